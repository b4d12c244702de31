//! The keeper: a small process that holds what must outlive a worker, and starts a new worker when
//! one dies.
//!
//! It holds the lock, the listening sockets, the files of rings, clock and doorbells, and the newest
//! state of the worker, and understands none of it. When the worker is killed, the next one gets
//! everything back and goes on where the other stopped. It ends when a worker says goodbye, and gives
//! up when workers die again and again.
//!
//! A keeper that is killed is replaced by its worker (see `succession`): the new one [`adopt`]s the
//! worker that started it, and is given everything by it.

use crate::limits::{DEATHS_MAX, DEATHS_WINDOW, raise_descriptor_limit};
use crate::link::{self, Key, Message, Outgoing};
use crate::rundir::RunDir;
use crate::{DaemonError, PID_FILE, WORKER_PID_FILE};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal as Number};
use sillage_consumer::signals::{Signal, Signals};
use sillage_protocol::paths::{CONTROL_SOCKET, PROGRAMS_SOCKET};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const SIGNALS: [Signal; 3] = [Signal::Terminate, Signal::Interrupt, Signal::Hangup];

/// How a worker ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Goodbye,
    Died,
}

/// A worker: one that we started, or the one that started us.
enum Worker {
    Child(Child),
    /// As a descriptor of the process. None: it is gone.
    Adopted(Option<OwnedFd>),
}

impl Worker {
    /// The worker at the other end of the link that it made.
    fn adopted(link: &OwnedFd) -> Worker {
        let pid = rustix::net::sockopt::socket_peercred(link).map(|peer| peer.pid);
        Worker::Adopted(pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())).ok())
    }

    /// Sends a signal. If the process is gone already, its link says so.
    fn signal(&self, number: Number) {
        let _ = match self {
            Worker::Child(child) => rustix::process::kill_process(Pid::from_child(child), number),
            Worker::Adopted(Some(process)) => rustix::process::pidfd_send_signal(process, number),
            Worker::Adopted(None) => Ok(()),
        };
    }

    /// Waits until the process is gone.
    fn wait(&mut self) -> io::Result<()> {
        match self {
            Worker::Child(child) => child.wait().map(drop),
            Worker::Adopted(process) => {
                let Some(process) = process.take() else { return Ok(()) };
                let mut fds = [PollFd::new(&process, PollFlags::IN)];
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
                Ok(())
            }
        }
    }
}

struct Keeper<'a, R: FnOnce()> {
    rundir: RunDir,
    /// Arguments with which this program becomes a worker.
    worker_words: &'a [&'a str],
    /// What is kept for the next worker.
    items: Vec<(Key, Vec<OwnedFd>)>,
    state: Option<OwnedFd>,
    restarts: u64,
    signals: Signals,
    ready: Option<R>,
}

/// Runs a daemon in this directory until it is told to end. Once it serves, `ready` is called.
///
/// # Errors
/// [`DaemonError::Running`] if there is one; what the kernel refused; workers that keep dying.
pub fn run(rundir: &Path, worker_words: &[&str], ready: impl FnOnce()) -> Result<(), DaemonError> {
    let rundir = RunDir::open(rundir).map_err(DaemonError::rundir(rundir))?;
    let Some(lock) = rundir.lock().map_err(DaemonError::Kernel)? else { return Err(DaemonError::Running) };
    let signals = Signals::catch(&SIGNALS)?;
    rundir.write_pid(PID_FILE, std::process::id())?;
    let items = vec![(Key::Lock, vec![lock])];
    Keeper { rundir, worker_words, items, state: None, restarts: 0, signals, ready: Some(ready) }.run(None)
}

/// Takes the place of a keeper that was killed: standard input is the link to the worker that started
/// this process, which sends everything that must be kept.
///
/// # Errors
/// As [`run`].
pub fn adopt(rundir: &Path, worker_words: &[&str]) -> Result<(), DaemonError> {
    rustix::thread::set_name(c"sillage").map_err(io::Error::from)?;
    let link = io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).map_err(io::Error::from)?;
    // The worker's is empty, for its trace files.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let rundir = RunDir::open(rundir).map_err(DaemonError::rundir(rundir))?;
    let worker = Worker::adopted(&link);
    let signals = Signals::catch(&SIGNALS)?;
    let ready = Some(|| {});
    Keeper { rundir, worker_words, items: Vec::new(), state: None, restarts: 0, signals, ready }
        .run(Some((link, worker)))
}

impl<R: FnOnce()> Keeper<'_, R> {
    fn run(mut self, adopted: Option<(OwnedFd, Worker)>) -> Result<(), DaemonError> {
        raise_descriptor_limit();
        let mut next = adopted;
        let mut deaths = Vec::new();
        let result = loop {
            let (link, mut worker) = match next.take() {
                Some(adopted) => adopted,
                None => self.start_worker()?,
            };
            let end = self.serve(&link, &worker).unwrap_or(End::Died);
            // A worker whose link is broken must not go on beside the next one.
            drop(link);
            if end == End::Died {
                worker.signal(Number::KILL);
            }
            worker.wait()?;
            if end == End::Goodbye {
                break Ok(());
            }
            let now = Instant::now();
            deaths.retain(|death| now.duration_since(*death) < DEATHS_WINDOW);
            deaths.push(now);
            if deaths.len() >= DEATHS_MAX {
                break Err(DaemonError::WorkerDies);
            }
            self.restarts += 1;
        };
        self.rundir.clean(&[PID_FILE, WORKER_PID_FILE, CONTROL_SOCKET, PROGRAMS_SOCKET]);
        result
    }

    /// Starts a worker and gives it everything. If that fails, its link says so.
    fn start_worker(&mut self) -> Result<(OwnedFd, Worker), DaemonError> {
        if !self.items.iter().any(|(key, _)| *key == Key::Lock) {
            // An adopted worker died before it had handed everything over: nobody holds the lock.
            let Some(lock) = self.rundir.lock()? else { return Err(DaemonError::Running) };
            self.items.push((Key::Lock, vec![lock]));
            self.rundir.write_pid(PID_FILE, std::process::id())?;
        }
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)?;
        let child = Command::new("/proc/self/exe")
            .arg0("sillage")
            .args(self.worker_words)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        self.rundir.write_pid(WORKER_PID_FILE, child.id())?;
        let worker = Worker::Child(child);
        if self.hand_over(&ours).is_err() {
            worker.signal(Number::KILL);
        }
        Ok((ours, worker))
    }

    fn hand_over(&self, link: &OwnedFd) -> io::Result<()> {
        for (key, fds) in &self.items {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            link::send(link, Outgoing::Keep(*key, &fds))?;
        }
        if let Some(state) = &self.state {
            link::send(link, Outgoing::State(state.as_fd()))?;
        }
        link::send(link, Outgoing::Begin { restarts: self.restarts })
    }

    /// Takes what the worker sends until its link closes.
    fn serve(&mut self, link: &OwnedFd, worker: &Worker) -> io::Result<End> {
        let mut goodbye = false;
        loop {
            let mut fds = [
                PollFd::new(link, PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            let readable = !fds[0].revents().is_empty();
            while self.signals.take().is_some() {
                worker.signal(Number::TERM);
            }
            if !readable {
                continue;
            }
            match link::receive(link)? {
                Some(Message::Keep(key, fds)) => {
                    self.items.retain(|(other, _)| *other != key);
                    self.items.push((key, fds));
                }
                Some(Message::Drop(key)) => self.items.retain(|(other, _)| *other != key),
                Some(Message::State(state)) => self.state = Some(state),
                Some(Message::Ready) => {
                    if let Some(ready) = self.ready.take() {
                        ready();
                    }
                }
                Some(Message::Goodbye) => goodbye = true,
                // An adopted worker has sent everything: from now on we are the keeper.
                Some(Message::Begin { restarts }) => {
                    self.restarts = restarts;
                    self.rundir.write_pid(PID_FILE, std::process::id())?;
                }
                None => return Ok(if goodbye { End::Goodbye } else { End::Died }),
            }
        }
    }
}

/// Detaches the process from its terminal and its starter; tells the starter with a line on standard
/// output that the daemon serves. To be called in the order `detach`, `run(…, announce)`.
///
/// # Errors
/// The kernel's.
pub fn detach() -> io::Result<()> {
    // It fails only for a process that leads its group already, which then has a session of its own.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")
}

/// See [`detach`].
pub fn announce() {
    // The starter may be gone: then nobody wants to know.
    let _ = io::stdout().write_all(b"ready\n").and_then(|()| io::stdout().flush());
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
