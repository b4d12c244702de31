//! The RCU symbols: for call sites through functions, for `_LGPL_SOURCE` code through variables.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};
use sillage_tracer_user::rcu;
use sillage_tracer_user::thread::{self, Thread};

/// The reader of the calling thread: its block, which begins with the counter. Inlined read sections
/// find it by this name; a thread-local symbol, because the section makes it one.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".tbss.lttng_ust_urcu_reader")]
pub static lttng_ust_urcu_reader: [AtomicU64; 1] = [AtomicU64::new(0)];

/// The grace period's counter, as large and aligned as programs have copied it.
#[repr(C, align(128))]
pub struct GracePeriod {
    ctr: AtomicU64,
    _rest: [u64; 15],
}

/// Follows the tracer's own counter.
#[unsafe(no_mangle)]
pub static lttng_ust_urcu_gp: GracePeriod = GracePeriod { ctr: AtomicU64::new(rcu::COUNT), _rest: [0; 15] };

/// Not 0: readers need no fences.
#[unsafe(no_mangle)]
pub static lttng_ust_urcu_has_sys_membarrier: AtomicI32 = AtomicI32::new(0);

/// Connects the exported words with the tracer.
pub(crate) fn connect() {
    rcu::set_mirror(&lttng_ust_urcu_gp.ctr);
    let fences = rcu::GATE.fences.load(Ordering::Relaxed);
    lttng_ust_urcu_has_sys_membarrier.store(i32::from(fences == 0), Ordering::SeqCst);
    thread::set_hook(set_reader);
}

/// Stores the thread's block in the exported word.
fn set_reader(block: *mut Thread) {
    // SAFETY: writes this thread's own TLS word.
    unsafe {
        asm!(
            "mov {place}, qword ptr [rip + {reader}@GOTTPOFF]",
            "mov fs:[{place}], {block}",
            place = out(reg) _, block = in(reg) block, reader = sym lttng_ust_urcu_reader,
            options(nostack, preserves_flags),
        );
    }
}

/// Makes the calling thread a reader.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_urcu_register() {
    let block = core::ptr::from_ref(thread::get()).cast_mut();
    // The block may be older than the hook.
    set_reader(block);
}

/// The same, under its other name.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_urcu_register_thread() {
    lttng_ust_urcu_register();
}

/// Called by programs before they trace, so that the first event has its memory.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_init_thread() {
    lttng_ust_urcu_register();
}

/// The usual case in a few instructions without a frame, everything else by a jump.
#[inline(always)]
fn read_lock() {
    // SAFETY: blocks stay mapped.
    match unsafe { thread::current().as_ref() } {
        Some(thread) if rcu::enter_fast(thread, thread::frame()) => {}
        _ => read_lock_slowly(),
    }
}

#[cold]
#[inline(never)]
extern "C" fn read_lock_slowly() {
    rcu::enter(thread::get(), thread::frame());
}

#[inline(always)]
fn read_unlock() {
    // SAFETY: blocks stay mapped.
    if let Some(thread) = unsafe { thread::current().as_ref() } {
        rcu::leave(thread);
    }
}

/// Enters a read section.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_tp_rcu_read_lock() {
    read_lock();
}

/// Leaves it.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_tp_rcu_read_unlock() {
    read_unlock();
}

/// Enters a read section.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_urcu_read_lock() {
    read_lock();
}

/// Leaves it.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_urcu_read_unlock() {
    read_unlock();
}

/// Not 0 inside a read section.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_urcu_read_ongoing() -> c_int {
    rcu::depth(thread::get()) as c_int
}

/// Waits for a grace period.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_urcu_synchronize_rcu() {
    rcu::wait_for_readers(u64::MAX);
}

/// The pointer itself: loads that depend on it are ordered by the machine.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_tp_rcu_dereference_sym(pointer: *mut c_void) -> *mut c_void {
    pointer
}

/// The same, under its other name.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_rcu_dereference_sym(pointer: *mut c_void) -> *mut c_void {
    pointer
}

/// Compares and exchanges a pointer.
///
/// # Safety
/// `place` is a valid, aligned pointer's place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_rcu_cmpxchg_pointer_sym(
    place: *mut *mut c_void,
    old: *mut c_void,
    new: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    let place = unsafe { AtomicPtr::from_ptr(place) };
    match place.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(was) | Err(was) => was,
    }
}

/// Stores a pointer for readers, and returns it.
///
/// # Safety
/// As above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_rcu_set_pointer_sym(
    place: *mut *mut c_void,
    new: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { AtomicPtr::from_ptr(place) }.store(new, Ordering::SeqCst);
    new
}

/// Exchanges a pointer.
///
/// # Safety
/// As above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_rcu_xchg_pointer_sym(
    place: *mut *mut c_void,
    new: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { AtomicPtr::from_ptr(place) }.swap(new, Ordering::SeqCst)
}

/// libc tells us of forks.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_urcu_before_fork() {}

/// libc tells us of forks.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_urcu_after_fork_parent() {}

/// libc tells us of forks.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_urcu_after_fork_child() {}

/// An exported word that points nowhere: no override is in place.
#[repr(transparent)]
pub struct NoOverride(UnsafeCell<*const c_void>);
// SAFETY: never written by us.
unsafe impl Sync for NoOverride {}

/// No clock override.
#[unsafe(no_mangle)]
pub static lttng_ust_trace_clock: NoOverride = NoOverride(UnsafeCell::new(core::ptr::null()));

/// No CPU override.
#[unsafe(no_mangle)]
pub static lttng_ust_get_cpu_sym: NoOverride = NoOverride(UnsafeCell::new(core::ptr::null()));
