//! Forks: what the child keeps, and how it notices.
//!
//! A child goes on recording into the rings of its user at once: rseq rings are made for any number
//! of processes, and the thread's staging memory, wiped by the kernel, is set up again at its first
//! event. Rings under a lock are the parent's alone and are not mapped in the child. The child gets
//! a listener of its own, which registers it as a new program.
//!
//! A page that the kernel wipes tells a child made without libc's `fork` (a raw system call) from
//! its parent; such a child records into rseq rings but has no listener.

use crate::{listener, rcu, registry, settings, start, sys, thread};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use sillage_protocol::program::ProducerKind;

/// Points to a word that is 1 in the process that stored it there and 0 in its children.
static HOME: AtomicPtr<AtomicU32> = AtomicPtr::new(core::ptr::null_mut());
/// What the allocator of this copy wants done before a fork, and after it.
static HOLD_ALLOCATOR: AtomicUsize = AtomicUsize::new(0);
static RELEASE_ALLOCATOR: AtomicUsize = AtomicUsize::new(0);

/// Has `hold` called before each fork and `release` after it, in the parent and in the child.
pub fn set_allocator_hooks(hold: fn(), release: fn()) {
    HOLD_ALLOCATOR.store(hold as usize, Ordering::Relaxed);
    RELEASE_ALLOCATOR.store(release as usize, Ordering::Relaxed);
}

fn call(hook: &AtomicUsize) {
    let hook = hook.load(Ordering::Relaxed);
    if hook != 0 {
        // SAFETY: `set_allocator_hooks` alone stores there, functions of this type.
        unsafe { core::mem::transmute::<usize, fn()>(hook)() };
    }
}

/// Maps the page and asks libc to be told of forks. Called once.
pub(crate) fn prepare() {
    if let Some(page) = sys::map_private(4096, sys::Wipe::OnFork) {
        HOME.store(page.cast(), Ordering::Release);
        arrive();
    }
    // SAFETY: the handlers have the types that libc wants, and stay loaded (`-z nodelete`).
    unsafe { pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> i32;
}

fn arrive() {
    let page = HOME.load(Ordering::Acquire);
    if !page.is_null() {
        // SAFETY: mapped in `prepare`, for ever.
        unsafe { (*page).store(1, Ordering::SeqCst) };
    }
}

/// True unless this is a child that nobody has set up.
pub(crate) fn is_home() -> bool {
    let page = HOME.load(Ordering::Acquire);
    // SAFETY: mapped in `prepare`, for ever.
    page.is_null() || unsafe { (*page).load(Ordering::SeqCst) == 1 }
}

/// True if a thread whose block was wiped may trace again: locked rings are not mapped in a child
/// until they are out of its way.
pub(crate) fn may_revive() -> bool {
    is_home() || settings::producer_kind() == ProducerKind::Rseq
}

unsafe extern "C" fn before() {
    registry::hold();
    call(&HOLD_ALLOCATOR);
}

unsafe extern "C" fn after_in_parent() {
    call(&RELEASE_ALLOCATOR);
    // SAFETY: `before` took it.
    unsafe { registry::release() };
}

unsafe extern "C" fn after_in_child() {
    // SAFETY: `before` ran in the parent, and this thread is the only one.
    unsafe { settle_in_child() };
    if start::is_done() && !registry::is_empty() {
        listener::start_in_child();
    }
}

/// # Safety
/// `before` ran, in the parent or just now, and this thread is the only one.
unsafe fn settle_in_child() {
    call(&RELEASE_ALLOCATOR);
    // SAFETY: the caller's promise.
    unsafe {
        registry::release();
        rcu::reset_in_child();
        thread::forget_others();
    }
    listener::forget_in_child();
    registry::without_locked_channels();
    arrive();
}

/// In a child that libc's handlers were not told of (made by `clone`): sets it up, unless the parent
/// was inside the registry at that moment. It gets no listener, because a clone may end without
/// ending its process's other threads.
///
/// # Safety
/// This thread is the only one of the process.
pub unsafe fn adopt_child() {
    if is_home() || registry::is_held() {
        return;
    }
    registry::hold();
    call(&HOLD_ALLOCATOR);
    // SAFETY: the locks were taken just above, by this only thread.
    unsafe { settle_in_child() };
}
