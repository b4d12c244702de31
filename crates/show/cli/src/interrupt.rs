//! Ctrl-C as a flag, for work that should end well rather than at once: a live session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use sillage_session::signals::{Signal, Signals};

/// A flag that the first Ctrl-C sets; from here on it no longer ends the program.
///
/// # Errors
/// Signals or a thread that can not be had.
pub fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::catch(&[Signal::Interrupt, Signal::Terminate])?;
    let flag = Arc::clone(&interrupted);
    std::thread::Builder::new().name("interruption".to_owned()).spawn(move || {
        loop {
            // An interrupted wait is a signal, which is looked at anyway.
            let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
            if signals.take().is_some() {
                flag.store(true, Ordering::Relaxed);
            }
        }
    })?;
    Ok(interrupted)
}
