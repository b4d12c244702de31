//! Signals as bytes on a descriptor, so that an event loop can wait for them beside everything else.
//!
//! Handlers are used, not a blocked mask with `signalfd`, because a mask is inherited by the programs
//! that we start and a handler is not. The handler only writes two bytes to a pipe.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

/// Write end of the pipe that handlers use; -1 until the first `catch`.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Signals that the daemon and `record` know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A child changed state.
    Child,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-\.
    Quit,
    /// Please end.
    Terminate,
    /// The terminal is gone.
    Hangup,
}

const ALL: [(Signal, i32); 5] = [
    (Signal::Child, libc::SIGCHLD),
    (Signal::Interrupt, libc::SIGINT),
    (Signal::Quit, libc::SIGQUIT),
    (Signal::Terminate, libc::SIGTERM),
    (Signal::Hangup, libc::SIGHUP),
];

impl Signal {
    /// Its number.
    pub fn number(self) -> i32 {
        ALL.iter().find(|(signal, _)| *signal == self).map_or(0, |(_, number)| *number)
    }
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which.
    pub signal: Signal,
    /// True if a process sent it to us (not the kernel, as for Ctrl-C, which others got as well).
    pub from_process: bool,
}

/// The read end of the pipe. One for each process.
pub struct Signals {
    pipe: UnixStream,
}

impl Signals {
    /// Catches these signals from now on. The descriptor never blocks.
    ///
    /// # Errors
    /// No descriptors left, or called twice.
    pub fn catch(signals: &[Signal]) -> io::Result<Signals> {
        let (pipe, write) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        let write = OwnedFd::from(write);
        let unused = PIPE.compare_exchange(-1, write.as_raw_fd(), Ordering::Relaxed, Ordering::Relaxed);
        if unused.is_err() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        std::mem::forget(write); // handlers use it until the process ends
        for signal in signals {
            // SAFETY: an all-zero sigaction is a valid one; `handle` only makes async-signal-safe calls.
            let result = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handle as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                libc::sigaction(signal.number(), &raw const action, std::ptr::null_mut())
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Signals { pipe })
    }

    /// The next signal that arrived, if any.
    pub fn take(&mut self) -> Option<Arrived> {
        let mut record = [0; 2];
        self.pipe.read_exact(&mut record).ok()?;
        let (signal, _) = ALL.iter().find(|(_, number)| *number == i32::from(record[0]))?;
        Some(Arrived { signal: *signal, from_process: record[1] != 0 })
    }
}

impl std::os::fd::AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

extern "C" fn handle(number: i32, info: *const libc::siginfo_t, _context: *const libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo; errno is this thread's own.
    unsafe {
        let errno = *libc::__errno_location();
        let record = [number as u8, u8::from((*info).si_code <= 0)];
        libc::write(PIPE.load(Ordering::Relaxed), record.as_ptr().cast(), record.len());
        *libc::__errno_location() = errno;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_becomes_a_record_and_a_second_catch_is_refused() {
        let mut signals = Signals::catch(&[Signal::Hangup]).unwrap();
        assert!(Signals::catch(&[Signal::Hangup]).is_err());
        assert_eq!(signals.take(), None);
        // SAFETY: raising a signal that is handled.
        unsafe { libc::raise(libc::SIGHUP) };
        assert_eq!(signals.take(), Some(Arrived { signal: Signal::Hangup, from_process: true }));
    }
}
