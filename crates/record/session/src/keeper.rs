//! The keeper: a small process that holds what must outlive a worker, and starts a new worker when
//! one dies.
//!
//! It holds the lock, the listening sockets, the files of rings, clock and doorbells, and the newest
//! state of the worker, and understands none of it. When the worker is killed, the next one gets
//! everything back and goes on where the other stopped. It ends when a worker says goodbye, and gives
//! up when workers die again and again.

use crate::limits::{DEATHS_MAX, DEATHS_WINDOW};
use crate::link::{self, Key, Message, Outgoing};
use crate::rundir::RunDir;
use crate::{DaemonError, PID_FILE, WORKER_PID_FILE};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sillage_consumer::signals::{Signal, Signals};
use sillage_protocol::paths::{CONTROL_SOCKET, PROGRAMS_SOCKET};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What is kept for the next worker.
struct Kept {
    items: Vec<(Key, Vec<OwnedFd>)>,
    state: Option<OwnedFd>,
}

/// How a worker ended.
enum End {
    Goodbye,
    Died,
}

/// Runs a daemon in this directory until it is told to end. Once it serves, `ready` is called.
///
/// # Errors
/// [`DaemonError::Running`] if there is one; what the kernel refused; workers that keep dying.
pub fn run(rundir: &Path, worker: &[&str], ready: impl FnOnce()) -> Result<(), DaemonError> {
    let rundir = RunDir::open(rundir).map_err(DaemonError::rundir(rundir))?;
    let Some(lock) = rundir.lock().map_err(DaemonError::Kernel)? else { return Err(DaemonError::Running) };
    let mut signals = Signals::catch(&[Signal::Terminate, Signal::Interrupt, Signal::Hangup])?;
    let mut kept = Kept { items: vec![(Key::Lock, vec![lock])], state: None };
    let mut ready = Some(ready);
    let (mut restarts, mut deaths) = (0, Vec::new());
    rundir.write_pid(PID_FILE, std::process::id())?;
    let result = loop {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)?;
        let mut child = Command::new("/proc/self/exe")
            .args(worker)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        rundir.write_pid(WORKER_PID_FILE, child.id())?;
        let end = hand_over(&ours, &kept, restarts)
            .and_then(|()| serve(&ours, &child, &mut kept, &mut signals, &mut ready));
        // A worker whose link is broken must not go on beside the next one.
        drop(ours);
        let end = end.unwrap_or(End::Died);
        if matches!(end, End::Died) {
            let _ = child.kill();
        }
        child.wait()?;
        if matches!(end, End::Goodbye) {
            break Ok(());
        }
        let now = Instant::now();
        deaths.retain(|death| now.duration_since(*death) < DEATHS_WINDOW);
        deaths.push(now);
        if deaths.len() >= DEATHS_MAX {
            break Err(DaemonError::WorkerDies);
        }
        restarts += 1;
    };
    rundir.clean(&[PID_FILE, WORKER_PID_FILE, CONTROL_SOCKET, PROGRAMS_SOCKET]);
    result
}

fn hand_over(link: &OwnedFd, kept: &Kept, restarts: u64) -> io::Result<()> {
    for (key, fds) in &kept.items {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        link::send(link, Outgoing::Keep(*key, &fds))?;
    }
    if let Some(state) = &kept.state {
        link::send(link, Outgoing::State(state.as_fd()))?;
    }
    link::send(link, Outgoing::Begin { restarts })
}

fn serve(
    link: &OwnedFd,
    child: &Child,
    kept: &mut Kept,
    signals: &mut Signals,
    ready: &mut Option<impl FnOnce()>,
) -> io::Result<End> {
    let mut goodbye = false;
    loop {
        let mut fds =
            [PollFd::new(link, PollFlags::IN), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let readable = !fds[0].revents().is_empty();
        while signals.take().is_some() {
            let pid = rustix::process::Pid::from_child(child);
            // If it is gone already, its link says so.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if !readable {
            continue;
        }
        match link::receive(link)? {
            Some(Message::Keep(key, fds)) => {
                kept.items.retain(|(other, _)| *other != key);
                kept.items.push((key, fds));
            }
            Some(Message::Drop(key)) => kept.items.retain(|(other, _)| *other != key),
            Some(Message::State(state)) => kept.state = Some(state),
            Some(Message::Ready) => {
                if let Some(ready) = ready.take() {
                    ready();
                }
            }
            Some(Message::Goodbye) => goodbye = true,
            Some(Message::Begin { .. }) => {}
            None => return Ok(if goodbye { End::Goodbye } else { End::Died }),
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
