//! The lock of the slow paths. Never taken on a traced thread's hot path.
//!
//! It cannot be poisoned by the end of our own thread: when the tracer has died (out of memory, a
//! bug), [`Lock::lock`] gives nothing instead of waiting for ever, and callers leave.

use crate::sys;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// True once the tracer gave up in this process.
static DEAD: AtomicBool = AtomicBool::new(false);

/// Gives the tracer up: every later attempt to lock fails.
pub fn declare_dead() {
    DEAD.store(true, Ordering::SeqCst);
}

/// True once the tracer gave up.
pub fn is_dead() -> bool {
    DEAD.load(Ordering::SeqCst)
}

/// How long one sleep lasts before `DEAD` is looked at again.
const SLICE_NS: u64 = 100_000_000;

/// A futex lock around a value.
pub struct Lock<T> {
    /// 0 free, 1 taken, 2 taken and awaited.
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives the value to one thread at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Lock<T> {
        Lock { word: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock. None: the tracer is dead.
    pub fn lock(&self) -> Option<Guard<'_, T>> {
        let mut seen = self.word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
        while seen.is_err() {
            if is_dead() {
                return None;
            }
            if self.word.swap(2, Ordering::Acquire) == 0 {
                seen = Ok(0);
                break;
            }
            sys::futex_wait(self.word.as_ptr(), 2, SLICE_NS);
        }
        (seen.is_ok() && !is_dead()).then_some(Guard { lock: self })
    }

    /// Takes the lock and keeps it (before a fork); [`Lock::release`] gives it back.
    pub fn hold(&self) -> bool {
        self.lock().map(core::mem::forget).is_some()
    }

    /// Gives up a lock that [`Lock::hold`] took, in the parent or in the child.
    ///
    /// # Safety
    /// The calling thread, or its parent before the fork, holds the lock through `hold`.
    pub unsafe fn release(&self) {
        if self.word.swap(0, Ordering::Release) == 2 {
            sys::futex_wake(self.word.as_ptr());
        }
    }

    /// Frees the lock whoever holds it: in a child without its holder.
    ///
    /// # Safety
    /// No other thread exists in this process.
    pub unsafe fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
    }

    /// True if somebody holds it now.
    pub fn is_held(&self) -> bool {
        self.word.load(Ordering::Relaxed) != 0
    }
}

/// The value, while the lock is held.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this guard holds the lock.
        unsafe { self.lock.release() };
    }
}
