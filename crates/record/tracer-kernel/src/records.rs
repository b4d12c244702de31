//! Programs on the records that the kernel's own tracing makes (events of perf), and what is left of them.
//!
//! The kernel lets go of such an event only after three grace periods, one event after the other, some
//! ten milliseconds each; a session with all of them would take half a minute to stop. So programs hang
//! on links, which go at once, and the events behind them, which do nothing without a program, are kept
//! for the next session that wants them, and closed by a thread when nobody did for a while.

use crate::sys::{self, SysError};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long events stay for whoever wants them again, counted from when the last one was wanted or left.
const KEPT: Duration = Duration::from_secs(2);
/// Stack of the thread, bytes.
const STACK_BYTES: usize = 64 << 10;

/// Events without a program, by tracepoint, the oldest first.
struct Idle {
    events: VecDeque<(u32, OwnedFd)>,
    /// When somebody wanted one last, or brought one back.
    moved: Option<Instant>,
    /// A thread is going to close them.
    is_attended: bool,
}

static IDLE: Mutex<Idle> = Mutex::new(Idle { events: VecDeque::new(), moved: None, is_attended: false });

fn idle() -> MutexGuard<'static, Idle> {
    IDLE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A program on a tracepoint's record. It is detached when this is dropped.
pub(crate) struct Attached {
    tracepoint: u32,
    /// None on kernels before 5.15, where the event itself holds the program.
    link: Option<OwnedFd>,
    event: Option<OwnedFd>,
}

/// Attaches a program to the record of a tracepoint, on all CPUs.
///
/// # Errors
/// The kernel's.
pub(crate) fn attach(program: BorrowedFd<'_>, tracepoint: u32) -> Result<Attached, SysError> {
    let kept = {
        let mut idle = idle();
        idle.moved = Some(Instant::now());
        let at = idle.events.iter().position(|(number, _)| *number == tracepoint);
        at.and_then(|at| idle.events.remove(at))
    };
    let event = kept.map_or_else(|| sys::open_record(tracepoint), |(_, event)| Ok(event))?;
    let link = match sys::link_record(program, event.as_fd()) {
        Ok(link) => Some(link),
        Err(_) => sys::set_program(program, event.as_fd()).map(|()| None)?,
    };
    Ok(Attached { tracepoint, link, event: Some(event) })
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Without a link only closing the event detaches.
        let (Some(link), Some(event)) = (self.link.take(), self.event.take()) else { return };
        drop(link);
        let mut idle = idle();
        idle.events.push_back((self.tracepoint, event));
        idle.moved = Some(Instant::now());
        if !idle.is_attended {
            let thread = std::thread::Builder::new().name("records".into()).stack_size(STACK_BYTES);
            // Without a thread they stay open, which costs memory alone.
            idle.is_attended = thread.spawn(close_idle).is_ok();
        }
    }
}

fn close_idle() {
    let mut rest = KEPT;
    loop {
        std::thread::sleep(rest);
        let mut idle = idle();
        // As long as sessions begin or end they may want events, and none should wait for the kernel's letting go.
        rest = idle.moved.map_or(Duration::ZERO, |moved| KEPT.saturating_sub(moved.elapsed()));
        if !rest.is_zero() {
            continue;
        }
        let Some(event) = idle.events.pop_front() else {
            idle.is_attended = false;
            return;
        };
        drop(idle);
        drop(event);
    }
}
