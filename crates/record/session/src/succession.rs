//! A new keeper in the place of one that was killed.
//!
//! The worker notices by its link, starts this program again as a keeper, and gives it everything that
//! the dead one held: the lock, the listening sockets, clock, doorbells, rings and the state. Until that
//! is done (milliseconds) a crash of the worker would lose what is in the rings; before and after it
//! loses nothing. The worker itself, its programs and its sessions notice nothing.

use crate::limits::RETRY_PERIOD;
use crate::link::{self, Key, Outgoing};
use crate::state;
use crate::worker::Daemon;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Who keeps what must outlive the worker.
pub(crate) struct Succession {
    /// The link; None: nobody keeps anything.
    pub(crate) link: Option<OwnedFd>,
    /// Arguments with which this program becomes a keeper.
    words: Vec<String>,
    /// The lock of the run directory, so that it is held without a keeper too.
    lock: Option<OwnedFd>,
    /// A keeper that we started.
    child: Option<Child>,
    keeper_pid: u32,
    started_at: Option<Instant>,
    /// When to start a keeper.
    pub(crate) due_at: Option<Instant>,
}

impl Succession {
    pub(crate) fn new(link: OwnedFd, words: &[&str], lock: Option<OwnedFd>) -> Succession {
        Succession {
            link: Some(link),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            lock,
            child: None,
            keeper_pid: rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32),
            started_at: None,
            due_at: None,
        }
    }

    /// The keeper is gone, or its link is of no more use. Not more than one new keeper a second.
    fn lost(&mut self) {
        self.link = None;
        if let Some(mut child) = self.child.take() {
            // Dead most likely; were it not, two would keep.
            let _ = child.kill();
            let _ = child.wait();
        }
        let now = Instant::now();
        let soonest = self.started_at.map_or(now, |at| at + RETRY_PERIOD);
        self.due_at = Some(soonest.max(now));
    }
}

impl Daemon {
    /// Process id of the keeper.
    pub(crate) fn keeper_pid(&self) -> u32 {
        self.succession.keeper_pid
    }

    /// Tells the keeper. Without one, its successor will be given what there is then.
    pub(crate) fn tell_keeper(&mut self, message: Outgoing<'_>) {
        if let Some(link) = &self.succession.link
            && link::send(link, message).is_err()
        {
            self.succession.lost();
        }
    }

    /// The keeper sends nothing after `begin`: it is gone.
    pub(crate) fn keeper_gone(&mut self) {
        if let Some(link) = &self.succession.link {
            self.unwatch(link.as_fd());
        }
        self.succession.lost();
    }

    /// Starts a keeper if one is due.
    pub(crate) fn succeed(&mut self, now: Instant) {
        if self.succession.due_at.is_none_or(|at| at > now) {
            return;
        }
        self.succession.due_at = None;
        self.succession.started_at = Some(now);
        if self.start_keeper().is_err() {
            self.succession.lost();
        }
    }

    fn start_keeper(&mut self) -> io::Result<()> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new("/proc/self/exe")
            .arg0("sillage")
            .args(&self.succession.words)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        self.succession.keeper_pid = child.id();
        self.succession.child = Some(child);
        self.hand_over(&ours)?;
        self.watch_keeper(ours.as_fd())?;
        self.succession.link = Some(ours);
        Ok(())
    }

    fn hand_over(&self, link: &OwnedFd) -> io::Result<()> {
        let keep = |key, fds: &[_]| link::send(link, Outgoing::Keep(key, fds));
        if let Some(lock) = &self.succession.lock {
            keep(Key::Lock, &[lock.as_fd()])?;
        }
        let [clients, programs] = self.listeners();
        keep(Key::ControlListener, &[clients])?;
        keep(Key::ProgramsListener, &[programs])?;
        keep(Key::Clock, &[self.clock.for_keeping()])?;
        for (origin, reader) in &self.readers {
            keep(Key::Doorbell(*origin), &[reader.doorbell.file()])?;
        }
        let channels = self.sessions.values().flat_map(|session| &session.channels);
        for set in channels.flat_map(|channel| &channel.sets) {
            for (key, files) in set.for_keeping() {
                keep(key, &files)?;
            }
        }
        let state = state::save(&self.numbers, &self.sessions)?;
        link::send(link, Outgoing::State(state.as_fd()))?;
        link::send(link, Outgoing::Begin { restarts: self.restarts.into() })
    }
}
