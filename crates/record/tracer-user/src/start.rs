//! What happens once, while the program starts.

use crate::{clock, fork, rcu, settings, sys, thread};
use core::sync::atomic::{AtomicU32, Ordering};

const NOT_YET: u32 = 0;
const UNDER_WAY: u32 = 1;
const DONE: u32 = 2;

static STATE: AtomicU32 = AtomicU32::new(NOT_YET);

/// True once the tracer is set up in this process.
pub(crate) fn is_done() -> bool {
    STATE.load(Ordering::Acquire) == DONE
}

/// Sets the tracer up: settings, barriers, key, fork handlers. Best called in a constructor, while
/// the process has one thread.
pub fn init() {
    match STATE.compare_exchange(NOT_YET, UNDER_WAY, Ordering::Acquire, Ordering::Acquire) {
        Ok(_) => {
            clock::tsc_allowed(); // before anything reads a clock
            rcu::register_barriers();
            settings::read();
            clock::read_namespace_offset();
            thread::create_key();
            fork::prepare();
            STATE.store(DONE, Ordering::Release);
            sys::futex_wake(STATE.as_ptr());
        }
        Err(UNDER_WAY) => {
            while STATE.load(Ordering::Acquire) == UNDER_WAY {
                sys::futex_wait(STATE.as_ptr(), UNDER_WAY, 1_000_000);
            }
        }
        Err(_) => {}
    }
}
