//! What each traced thread has: its RCU counter and its staging levels, in one block of memory that
//! a forked child finds wiped.
//!
//! One initial-exec TLS word points to the block (more TLS would make later `dlopen`s fail). The
//! first event of a thread takes a block, a pthread key gives it back when the thread ends, and the
//! next thread uses it again; the list of blocks only grows. No lock is involved, so that a signal
//! handler may come at any instant.
//!
//! Events are staged in *levels*, one for each nested signal handler. `free` says how many are left;
//! the hot path compares it with [`LEVELS`] and leaves every other case to the cold path: nesting,
//! a wiped block, a thread that must not trace (a vfork child), levels left behind by `siglongjmp`.

use crate::{fork, rcu, sys};
use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use sillage_model::limits::RECORD_BYTES_MAX;
use sillage_ring::layout::LostReason;
use sillage_ring::{STAGE_HEAD_BYTES, STAGE_TAIL_BYTES};

/// Staging levels of a thread: the traced call itself and four signal handlers above it.
pub const LEVELS: u32 = 5;
/// Bytes that a payload may have.
pub const PAYLOAD_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// Bytes behind the payload: read by the ring, written by stores of whole words.
const TAIL_BYTES: usize = 64;

/// Where a block begins in its page. Rings, descriptors and the clock have their busy words at the
/// beginning of pages, and processors take a load for dependent on a store 4096 bytes away.
const BLOCK_OFFSET_BYTES: usize = 3072;

const _: () = assert!(TAIL_BYTES >= STAGE_TAIL_BYTES + 16 && STAGE_HEAD_BYTES == 16);

/// A thread's block.
#[repr(C, align(64))]
pub struct Thread {
    /// The reader's counter; first, because inlined readers of the C interface find it there.
    pub(crate) ctr: AtomicU64,
    /// Levels that are free; other than [`LEVELS`], the cold path decides.
    free: AtomicU32,
    /// Not 0: readers fence, because the kernel has no `membarrier`.
    pub(crate) fences: AtomicU32,
    /// Above 0: this thread must not trace.
    muted: AtomicU32,
    /// `free` while muted.
    kept_free: AtomicU32,
    /// [`UNUSED`], [`USED`], or [`LATE`].
    state: AtomicU32,
    /// The kernel's number of the thread.
    thread_id: AtomicU32,
    next: AtomicPtr<Thread>,
    levels: [UnsafeCell<Level>; LEVELS as usize],
}

// SAFETY: shared fields are atomics; levels are used by the owning thread alone.
unsafe impl Sync for Thread {}

/// A block without thread.
const UNUSED: u32 = 0;
/// A thread's block; its key will give it back.
const USED: u32 = 1;
/// Taken after the thread's keys were destroyed: found by its thread's absence.
const LATE: u32 = 2;

/// One staging area.
#[repr(C, align(64))]
pub struct Level {
    /// Where the next byte of the payload goes; null in a wiped block.
    pub pos: *mut u8,
    thread: *const Thread,
    /// Address in the frame that took the level.
    frame: usize,
    /// What `free` becomes when the level is given back.
    free_after: u32,
    _reserved: [u32; 5],
    _head: [u8; STAGE_HEAD_BYTES],
    payload: [u8; PAYLOAD_BYTES_MAX + TAIL_BYTES],
}

const _: () = assert!(core::mem::offset_of!(Level, payload) == 64);
const _: () = assert!(core::mem::offset_of!(Thread, ctr) == 0);

impl Level {
    /// Where the payload begins.
    pub const PAYLOAD_AT: usize = core::mem::offset_of!(Level, payload);

    /// First byte of the payload.
    #[inline(always)]
    pub fn payload(level: *mut Level) -> *mut u8 {
        level.cast::<u8>().wrapping_add(Level::PAYLOAD_AT)
    }

    /// The `frame` with which the level was taken.
    ///
    /// # Safety
    /// `level` came from [`Thread::take`].
    pub unsafe fn frame(level: *mut Level) -> usize {
        // SAFETY: as in `thread`.
        unsafe { (*level).frame }
    }

    /// The thread that took the level.
    ///
    /// # Safety
    /// `level` came from [`Thread::take`].
    #[inline(always)]
    pub unsafe fn thread(level: *mut Level) -> *const Thread {
        // SAFETY: `take` keeps the level for the caller.
        unsafe { (*level).thread }
    }

    /// True for a level that is not the thread's first: a signal handler's.
    ///
    /// # Safety
    /// `level` came from [`Thread::take`].
    pub unsafe fn is_nested(level: *mut Level) -> bool {
        // SAFETY: as above.
        unsafe { (*level).free_after != LEVELS }
    }
}

/// Why no level could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLevel {
    /// Count the record as lost.
    Lost(LostReason),
    /// The process was forked a moment ago; locked rings cannot be touched, the others can.
    Forked,
}

/// The calling thread's block, or null before its first event. Private to this copy of the tracer.
#[used]
#[unsafe(link_section = ".tbss.sillage_thread")]
static CURRENT: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Newest block; blocks are never unlinked.
static BLOCKS: AtomicPtr<Thread> = AtomicPtr::new(core::ptr::null_mut());
/// Set once a thread found no memory: from then on grace periods prove nothing about it.
static WITHOUT_MEMORY: AtomicU32 = AtomicU32::new(0);
/// Shared by threads without memory: their events count as lost. Its counter means nothing.
static SPARE: Spare = Spare([const { AtomicU64::new(0) }; 32]);
/// Told of a thread's new block, and of null when the thread ends.
static HOOK: AtomicUsize = AtomicUsize::new(0);
/// The pthread key whose destructor gives blocks back, plus one.
static KEY: AtomicU32 = AtomicU32::new(0);

#[repr(C, align(64))]
struct Spare([AtomicU64; 32]);

// `SPARE` stands for the part of a `Thread` in front of its levels.
const _: () = assert!(core::mem::offset_of!(Thread, levels) <= size_of::<Spare>());

/// Calls `hook` with each new block of a thread (the thread's own call), and with null at its end.
pub fn set_hook(hook: fn(*mut Thread)) {
    HOOK.store(hook as usize, Ordering::Release);
}

fn call_hook(block: *mut Thread) {
    let hook = HOOK.load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: `set_hook` alone stores there, a function of this type.
        let hook = unsafe { core::mem::transmute::<usize, fn(*mut Thread)>(hook) };
        hook(block);
    }
}

/// The calling thread's block, or null.
#[inline(always)]
pub fn current() -> *const Thread {
    let block: *const Thread;
    // SAFETY: reads this thread's TLS word.
    unsafe {
        asm!(
            "mov {block}, qword ptr [rip + {current}@GOTTPOFF]",
            "mov {block}, fs:[{block}]",
            block = out(reg) block, current = sym CURRENT,
            options(nostack, pure, readonly, preserves_flags),
        );
    }
    block
}

/// The calling thread's block; the first call of a thread maps it.
#[inline(always)]
pub fn get() -> &'static Thread {
    let block = current();
    if block.is_null() {
        return register();
    }
    // SAFETY: blocks stay mapped for the life of the process.
    unsafe { &*block }
}

/// An address in the frame of the function that calls this.
#[inline(always)]
pub fn frame() -> usize {
    let frame: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    frame
}

/// Stores `new` in the calling thread's TLS word if it holds `old`; returns what it held. One
/// instruction, so that a signal handler comes before it or after it.
fn exchange_current(old: *const Thread, new: *const Thread) -> *const Thread {
    let was: *const Thread;
    // SAFETY: writes this thread's own TLS word, which nothing else refers to.
    unsafe {
        asm!(
            "mov {place}, qword ptr [rip + {current}@GOTTPOFF]",
            "cmpxchg qword ptr fs:[{place}], {new}",
            place = out(reg) _, new = in(reg) new, current = sym CURRENT,
            inlateout("rax") old => was,
            options(nostack),
        );
    }
    was
}

/// The second TLS word: not 0 once the thread's key was destroyed.
fn ending(set: bool) -> bool {
    let was: u64;
    // SAFETY: as above.
    unsafe {
        asm!(
            "mov {place}, qword ptr [rip + {current}@GOTTPOFF]",
            "mov {was}, fs:[{place} + 8]",
            "or {set}, {was}",
            "mov fs:[{place} + 8], {set}",
            place = out(reg) _, was = out(reg) was, set = inout(reg) u64::from(set) => _,
            current = sym CURRENT,
            options(nostack),
        );
    }
    was != 0
}

/// Gives the calling thread a block. Works in signal handlers.
#[cold]
#[inline(never)]
pub fn register() -> &'static Thread {
    let late = ending(false);
    let Some(block) = take_block(if late { LATE } else { USED }) else {
        WITHOUT_MEMORY.store(1, Ordering::SeqCst);
        let spare = (&raw const SPARE).cast_mut().cast::<Thread>();
        call_hook(spare);
        // SAFETY: a static as large as what is used of it; `free` is 0 for ever. (Its sections mean nothing.)
        return unsafe { &*spare };
    };
    let was = exchange_current(core::ptr::null(), block.as_ptr());
    if !was.is_null() {
        // A signal handler was faster.
        // SAFETY: blocks stay mapped.
        unsafe { block.as_ref().state.store(UNUSED, Ordering::Release) };
        // SAFETY: as above.
        return unsafe { &*was };
    }
    call_hook(block.as_ptr());
    let key = KEY.load(Ordering::Relaxed);
    if key != 0 && !late {
        // SAFETY: the key was made by `create_key`. Small keys need no memory.
        unsafe { libc::pthread_setspecific(key - 1, block.as_ptr().cast()) };
    }
    // SAFETY: blocks stay mapped.
    unsafe { block.as_ref() }
}

/// Makes the key; called once, before any thread traces.
pub(crate) fn create_key() {
    let mut key = 0;
    // SAFETY: `ended` matches the destructor's type.
    if unsafe { libc::pthread_key_create(&mut key, Some(ended)) } == 0 {
        KEY.store(key + 1, Ordering::Relaxed);
    }
}

/// The key's destructor: the thread ends.
extern "C" fn ended(block: *mut libc::c_void) {
    ending(true);
    let block = block.cast::<Thread>();
    call_hook(core::ptr::null_mut());
    if core::ptr::eq(exchange_current(block, core::ptr::null()), block) {
        // SAFETY: blocks stay mapped; this thread used it until now.
        unsafe { (*block).state.store(UNUSED, Ordering::Release) };
    }
}

/// A block for the calling thread: an unused one, one whose thread is gone, or a new one.
fn take_block(state: u32) -> Option<NonNull<Thread>> {
    let mut at = BLOCKS.load(Ordering::Acquire);
    while let Some(block) = NonNull::new(at) {
        // SAFETY: blocks stay mapped.
        let this = unsafe { block.as_ref() };
        let seen = this.state.load(Ordering::Relaxed);
        let abandoned = seen == LATE && !sys::thread_exists(this.thread_id.load(Ordering::Relaxed));
        if (seen == UNUSED || abandoned)
            && this.state.compare_exchange(seen, state, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            this.prepare();
            return Some(block);
        }
        at = this.next.load(Ordering::Acquire);
    }
    let mapping = sys::map_private(size_of::<Thread>() + BLOCK_OFFSET_BYTES, sys::Wipe::OnFork)?;
    let block = NonNull::new(mapping.wrapping_add(BLOCK_OFFSET_BYTES).cast::<Thread>())?;
    // SAFETY: fresh zeroed memory of the right size is a valid, unused block.
    let this = unsafe { block.as_ref() };
    this.state.store(state, Ordering::Relaxed);
    this.prepare();
    this.link();
    Some(block)
}

/// True if `test` holds for a block that belongs to a thread.
pub(crate) fn any(test: impl Fn(&Thread) -> bool) -> bool {
    let mut at = BLOCKS.load(Ordering::Acquire);
    while !at.is_null() {
        // SAFETY: blocks stay mapped.
        let this = unsafe { &*at };
        if this.state.load(Ordering::Acquire) != UNUSED && test(this) {
            return true;
        }
        at = this.next.load(Ordering::Acquire);
    }
    false
}

/// True if a thread runs without a block of its own: what it reads must never be freed.
pub(crate) fn some_without_memory() -> bool {
    WITHOUT_MEMORY.load(Ordering::SeqCst) != 0
}

/// In a forked child: forgets the other threads' blocks.
///
/// # Safety
/// No other thread exists in this process.
pub(crate) unsafe fn forget_others() {
    let own = current().cast_mut();
    BLOCKS.store(core::ptr::null_mut(), Ordering::Release);
    if !own.is_null() {
        // SAFETY: blocks stay mapped.
        unsafe { (*own).revive() };
    }
}

impl Thread {
    /// A level for the calling thread, whose `frame` is an address in a frame that lives as long as
    /// the level is used.
    #[inline(always)]
    pub fn take(&self, frame: usize) -> Result<*mut Level, NoLevel> {
        match self.take_first(frame) {
            Some(level) => Ok(level),
            None => self.take_nested(frame),
        }
    }

    /// As [`Thread::take`] when all levels are free; otherwise nothing happens.
    #[inline(always)]
    pub fn take_first(&self, frame: usize) -> Option<*mut Level> {
        if self.free.load(Ordering::Relaxed) != LEVELS {
            return None;
        }
        self.free.store(LEVELS - 1, Ordering::Relaxed);
        let level = self.levels[0].get();
        // SAFETY: this thread owns the level from here to `release`.
        unsafe {
            (*level).frame = frame;
            (*level).pos = Level::payload(level);
        }
        Some(level)
    }

    /// Gives back a level, and every level above it.
    ///
    /// # Safety
    /// This thread took `level`.
    #[inline(always)]
    pub unsafe fn release(&self, level: *mut Level) {
        // SAFETY: the caller's promise.
        self.free.store(unsafe { (*level).free_after }, Ordering::Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn take_nested(&self, frame: usize) -> Result<*mut Level, NoLevel> {
        if core::ptr::eq(self, (&raw const SPARE).cast()) {
            return Err(NoLevel::Lost(LostReason::NoMemory));
        }
        if self.muted.load(Ordering::Relaxed) != 0 {
            return Err(NoLevel::Lost(LostReason::Vfork));
        }
        if self.state.load(Ordering::Relaxed) == UNUSED {
            if !fork::may_revive() {
                return Err(NoLevel::Forked);
            }
            self.revive();
        }
        let mut free = self.free.load(Ordering::Relaxed);
        while free < LEVELS && self.is_left_behind(free, frame) {
            free += 1;
            if free == LEVELS && rcu::depth(self) > 1 && !rcu::knows_frame(self) {
                // Inlined readers leave no frame address: the sections of the lost frames end here.
                rcu::restore_one_section(self);
            }
        }
        if free == 0 {
            return Err(NoLevel::Lost(LostReason::Nested));
        }
        self.free.store(free - 1, Ordering::Relaxed);
        let level = self.levels[(LEVELS - free) as usize].get();
        // SAFETY: level `LEVELS - free` is free, and this thread's.
        unsafe {
            (*level).thread = self;
            (*level).free_after = free;
            (*level).frame = frame;
            (*level).pos = Level::payload(level);
        }
        Ok(level)
    }

    /// True if the innermost level in use belongs to a frame that no longer exists.
    fn is_left_behind(&self, free: u32, frame: usize) -> bool {
        let innermost = self.levels[(LEVELS - free - 1) as usize].get();
        // SAFETY: this thread's own level.
        let taken_by = unsafe { (*innermost).frame };
        taken_by <= frame && !sys::on_alternate_stack()
    }

    /// All frames that took levels are gone.
    pub(crate) fn forget_frames(&self) {
        if self.muted.load(Ordering::Relaxed) == 0 {
            self.free.store(LEVELS, Ordering::Relaxed);
        }
    }

    /// The thread must not trace until [`Thread::unmute`]. Nests.
    pub fn mute(&self) {
        if self.state.load(Ordering::Relaxed) == UNUSED && !core::ptr::eq(self, (&raw const SPARE).cast()) {
            self.revive();
        }
        if self.muted.load(Ordering::Relaxed) == 0 {
            self.kept_free.store(self.free.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.muted.store(self.muted.load(Ordering::Relaxed) + 1, Ordering::SeqCst);
        self.free.store(0, Ordering::SeqCst);
    }

    /// Ends one [`Thread::mute`].
    pub fn unmute(&self) {
        let muted = self.muted.load(Ordering::Relaxed).saturating_sub(1);
        self.muted.store(muted, Ordering::SeqCst);
        if muted == 0 {
            self.free.store(self.kept_free.load(Ordering::Relaxed), Ordering::SeqCst);
        }
    }

    /// Fills a block that the calling thread has just taken.
    fn prepare(&self) {
        self.thread_id.store(sys::thread_id(), Ordering::Relaxed);
        self.ctr.store(0, Ordering::Relaxed);
        self.muted.store(0, Ordering::Relaxed);
        self.fences.store(rcu::GATE.fences.load(Ordering::Relaxed), Ordering::Relaxed);
        // The pages of the other levels stay untouched until a handler needs one.
        let first = self.levels[0].get();
        // SAFETY: the block is the calling thread's.
        unsafe {
            (*first).thread = self;
            (*first).free_after = LEVELS;
        }
        self.free.store(LEVELS, Ordering::Relaxed);
    }

    /// Puts the block in front of the list.
    fn link(&self) {
        let this = core::ptr::from_ref(self).cast_mut();
        let mut first = BLOCKS.load(Ordering::Relaxed);
        loop {
            self.next.store(first, Ordering::Relaxed);
            // Pairs with the Acquire of those who walk the list.
            match BLOCKS.compare_exchange(first, this, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => first = other,
            }
        }
    }

    /// The calling thread's own block, wiped by a fork, is ready again.
    fn revive(&self) {
        let inside = self.ctr.load(Ordering::Relaxed);
        self.state.store(USED, Ordering::Relaxed);
        self.prepare();
        // A call site entered its section before the first level of the child was asked for.
        self.ctr.store(inside, Ordering::Relaxed);
        let mut at = BLOCKS.load(Ordering::Acquire);
        while !at.is_null() && !core::ptr::eq(at, self) {
            // SAFETY: blocks stay mapped.
            at = unsafe { (*at).next.load(Ordering::Acquire) };
        }
        if at.is_null() {
            self.link();
        }
    }
}
