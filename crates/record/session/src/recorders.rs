//! Sessions of `record` commands end with them, also when they are killed.
//!
//! Such a session would record on for ever: nobody knows its name. So the command's process is watched,
//! and when it is gone, with every program that it started and that records, its session is destroyed as
//! by the command itself: written out, whole. Where the process cannot be watched (it lives in a PID
//! namespace that we do not see, no descriptors are left, the kernel is older than 5.3), the session stays
//! until somebody destroys it.

use crate::model::Recorder;
use crate::worker::Daemon;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// The commands that are alive: their sessions and processes, by the loop's token.
pub(crate) type Recorders = BTreeMap<u64, (u64, OwnedFd)>;

impl Recorder {
    /// The process of this number, if it is there.
    pub(crate) fn of(pid: u32) -> Option<Recorder> {
        Some(Recorder { pid, started_ticks: started_ticks(pid)? })
    }

    /// The process; None if it is gone.
    ///
    /// # Errors
    /// It cannot be watched: no descriptors left, a kernel before 5.3.
    fn process(&self) -> rustix::io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid as i32) else { return Ok(None) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Asked when it can no longer become another's number.
        Ok((started_ticks(self.pid) == Some(self.started_ticks)).then_some(process))
    }
}

/// When a process started, in clock ticks since boot (proc(5), `stat`, field 22).
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, parentheses and spaces included; the fields behind it do not.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

impl Daemon {
    /// Watches the command of a session, if it has one. One that cannot be watched is none: its session must
    /// not end while it lives.
    pub(crate) fn watch_recorder(&mut self, id: u64) {
        let Some(recorder) = self.sessions.get(&id).and_then(|session| session.recorder) else { return };
        let token = self.new_token();
        match recorder.process() {
            Ok(None) => {}
            Ok(Some(process)) if self.watch(token, process.as_fd()).is_ok() => {
                self.recorders.insert(token, (id, process));
            }
            _ => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.recorder = None;
                }
            }
        }
    }

    /// A watched process ended; false if the token is none of one.
    pub(crate) fn recorder_gone(&mut self, token: u64) -> bool {
        self.recorders.remove(&token).is_some()
    }

    /// Destroys the sessions whose commands are gone, with all that they started.
    pub(crate) fn destroy_deserted(&mut self) {
        // Programs of the worker before have a moment to come back.
        if self.reattach_until.is_some() {
            return;
        }
        let is_alive = |id: &u64| self.recorders.values().any(|(session, _)| session == id);
        let records = |token: u64| {
            let mut hellos = self.programs.values().filter_map(|program| program.hello.as_ref());
            hellos.any(|hello| hello.record == token)
        };
        let deserted = self.sessions.iter().filter(|(id, session)| {
            session.recorder.is_some() && !session.destroying && !is_alive(id) && !records(session.record)
        });
        for id in deserted.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.begin_destroy(id, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_process_has_now_is_not_the_recorder() {
        let own = Recorder::of(std::process::id()).unwrap();
        assert!(own.process().unwrap().is_some());
        assert!(Recorder { started_ticks: own.started_ticks + 1, ..own }.process().unwrap().is_none());
    }
}
