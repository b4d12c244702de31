//! The read side that call sites run in, and grace periods for those who change what they read.
//!
//! The counters have the layout and rules of LTTng-UST's own RCU (count of nesting in the low half,
//! a phase bit above), because programs built with `_LGPL_SOURCE` carry its read side inlined. Where
//! the code is ours, the bits above the phase remember the stack address of the outermost frame: a
//! frame that a `siglongjmp` left behind is noticed by the next read section, which starts afresh.
//!
//! Readers pay no fence: `membarrier` makes the writer pay. On kernels without it every read
//! section fences ([`Gate::fences`]).

use crate::lock::Lock;
use crate::sys;
use crate::thread::{self, Thread};
use core::arch::asm;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

/// One nested section.
pub const COUNT: u64 = 1;
/// The phase bit.
pub const PHASE: u64 = 1 << 32;
const NEST_MASK: u64 = PHASE - 1;
/// The remembered stack address starts above the phase bit.
const FRAME_SHIFT: u32 = 33;

/// What readers load: the current phase with a count of one.
#[repr(C, align(64))]
pub struct Gate {
    ctr: AtomicU64,
    /// Not 0: readers must fence.
    pub fences: AtomicU32,
}

/// The gate of this copy of the tracer.
pub static GATE: Gate = Gate { ctr: AtomicU64::new(COUNT), fences: AtomicU32::new(1) };

/// A second counter that follows the gate's: `lttng_ust_urcu_gp` of the C interface.
static MIRROR: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());

/// Keeps `mirror` equal to the gate's counter from now on.
pub fn set_mirror(mirror: &'static AtomicU64) {
    mirror.store(GATE.ctr.load(Ordering::Relaxed), Ordering::Relaxed);
    MIRROR.store(core::ptr::from_ref(mirror).cast_mut(), Ordering::Release);
}

/// The gate, at an address that needs no table: it is always in the same object as this code.
#[inline(always)]
fn gate() -> &'static Gate {
    let gate: *const Gate;
    // SAFETY: computes the address of a static.
    unsafe {
        asm!("lea {}, [rip + {}]", out(reg) gate, sym GATE, options(pure, nomem, nostack, preserves_flags));
        &*gate
    }
}

/// The address of a frame, in the bits above the phase; never 0 for a real stack.
#[inline(always)]
fn tag(frame: usize) -> u64 {
    (frame as u64 >> 4) << FRAME_SHIFT
}

/// As [`enter`], if that is done in a few instructions: not nested, no fences. Otherwise nothing
/// happens, and the answer is false.
#[inline(always)]
pub fn enter_fast(thread: &Thread, frame: usize) -> bool {
    let plain =
        thread.ctr.load(Ordering::Relaxed) & NEST_MASK == 0 && thread.fences.load(Ordering::Relaxed) == 0;
    if plain {
        thread.ctr.store(gate().ctr.load(Ordering::Relaxed) | tag(frame), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst); // pairs with the membarrier in `wait_for_readers`
    }
    plain
}

/// Enters a read section of `thread`; `frame` is an address in the caller's frame.
#[inline(always)]
pub fn enter(thread: &Thread, frame: usize) {
    let ctr = thread.ctr.load(Ordering::Relaxed);
    if ctr & NEST_MASK != 0 {
        return enter_nested(thread, ctr, frame);
    }
    begin(thread, frame);
}

#[inline(always)]
fn begin(thread: &Thread, frame: usize) {
    thread.ctr.store(gate().ctr.load(Ordering::Relaxed) | tag(frame), Ordering::Relaxed);
    fence_reader(thread);
}

#[inline(always)]
fn fence_reader(thread: &Thread) {
    if thread.fences.load(Ordering::Relaxed) == 0 {
        compiler_fence(Ordering::SeqCst); // pairs with the membarrier in `wait_for_readers`
    } else {
        fence(Ordering::SeqCst);
    }
}

/// A signal handler inside a section, or the first section after one that was jumped out of.
#[cold]
#[inline(never)]
fn enter_nested(thread: &Thread, ctr: u64, frame: usize) {
    let outermost = ctr >> FRAME_SHIFT;
    // Below zero: a fork wiped the counter inside a section.
    let wiped = ctr & NEST_MASK > NEST_MASK / 2;
    if wiped || outermost != 0 && is_gone(outermost, frame) {
        thread.forget_frames();
        return begin(thread, frame);
    }
    thread.ctr.store(ctr + COUNT, Ordering::Relaxed);
}

/// True if the frame with this tag lies below `frame` on the same stack: then it no longer exists.
fn is_gone(frame_tag: u64, frame: usize) -> bool {
    // 31 bits of address, compared as a signed distance.
    let distance = (((frame as u64 >> 4) << FRAME_SHIFT).wrapping_sub(frame_tag << FRAME_SHIFT)) as i64;
    // On an alternate stack, addresses say nothing; off it, no frame of it can be alive.
    distance >= 0 && !sys::on_alternate_stack()
}

/// Leaves the section.
#[inline(always)]
pub fn leave(thread: &Thread) {
    if thread.fences.load(Ordering::Relaxed) != 0 {
        return leave_fenced(thread);
    }
    compiler_fence(Ordering::SeqCst); // pairs with the membarrier in `wait_for_readers`
    uncount(thread);
}

#[cold]
#[inline(never)]
fn leave_fenced(thread: &Thread) {
    fence(Ordering::SeqCst);
    uncount(thread);
}

#[inline(always)]
fn uncount(thread: &Thread) {
    thread.ctr.store(thread.ctr.load(Ordering::Relaxed).wrapping_sub(COUNT), Ordering::Relaxed);
}

/// Depth of nesting of this thread.
pub fn depth(thread: &Thread) -> u32 {
    (thread.ctr.load(Ordering::Relaxed) & NEST_MASK) as u32
}

/// True if the outermost section was entered by our own code.
pub(crate) fn knows_frame(thread: &Thread) -> bool {
    thread.ctr.load(Ordering::Relaxed) >> FRAME_SHIFT != 0
}

/// Makes the thread one section deep: after its memory was wiped inside one.
pub fn restore_one_section(thread: &Thread) {
    thread.ctr.store(GATE.ctr.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// One writer at a time.
static WRITER: Lock<()> = Lock::new(());

/// Waits until every read section that runs now has ended. False: not within `timeout_ns`
/// (`u64::MAX`: no limit), or the tracer is dead.
pub fn wait_for_readers(timeout_ns: u64) -> bool {
    let Some(_writer) = WRITER.lock() else { return false };
    let start_ns = crate::clock::monotonic_ns();
    let expired = || crate::clock::monotonic_ns().saturating_sub(start_ns) >= timeout_ns;
    barrier();
    // Twice: a reader may have loaded the phase long before it stores it.
    for _ in 0..2 {
        flip();
        barrier();
        let mut pause_ns = 1_000;
        // Not for ourselves: a signal handler may have come above a section of this thread, and left by
        // `exit`.
        let own = thread::current();
        while thread::any(|t| !core::ptr::eq(t, own) && is_active_in_old_phase(t)) {
            if expired() {
                return false;
            }
            sys::sleep_ns(pause_ns);
            pause_ns = (pause_ns * 2).min(1_000_000);
        }
    }
    barrier();
    true
}

fn flip() {
    let ctr = GATE.ctr.load(Ordering::Relaxed) ^ PHASE;
    let mirror = MIRROR.load(Ordering::Acquire);
    if !mirror.is_null() {
        // SAFETY: `set_mirror` was given a static.
        unsafe { (*mirror).store(ctr, Ordering::Relaxed) };
    }
    GATE.ctr.store(ctr, Ordering::SeqCst);
}

fn is_active_in_old_phase(thread: &Thread) -> bool {
    let ctr = thread.ctr.load(Ordering::Acquire);
    let nest = ctr & NEST_MASK;
    // Below zero: its memory was wiped inside a section; it is in none that counts.
    let inside = nest != 0 && nest < NEST_MASK / 2;
    inside && (ctr ^ GATE.ctr.load(Ordering::Relaxed)) & PHASE != 0
}

/// A full barrier on every thread of the process, and the restart of every rseq section.
fn barrier() {
    fence(Ordering::SeqCst);
    if GATE.fences.load(Ordering::Relaxed) == 0 {
        sys::membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        sys::membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ);
    }
    fence(Ordering::SeqCst);
}

/// Asks the kernel for `membarrier`: while the process has one thread this costs microseconds,
/// afterwards milliseconds. Returns whether readers may do without fences.
pub(crate) fn register_barriers() -> bool {
    let expedited = sys::membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
    // Older kernels lack it; a grace period alone then waits for the sections.
    sys::membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ);
    GATE.fences.store(u32::from(!expedited), Ordering::SeqCst);
    expedited
}

/// Frees the writers' lock in a forked child.
///
/// # Safety
/// No other thread exists in this process.
pub(crate) unsafe fn reset_in_child() {
    // SAFETY: passed on.
    unsafe { WRITER.reset() };
}
