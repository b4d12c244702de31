//! The hot path: what a probe finds behind its first argument, and the operations that it calls.
//!
//! An event's structures lie in one block of four cache lines, in the order in which a probe looks
//! at them. A probe reserves a staging level, writes its fields there, and commits: only then does
//! the ring see anything.

use crate::layout::{
    ChannelBuffer, ChannelCommon, ChannelOps, Class, Context, EventCommon, EventDesc, EventRecorder,
    ProbeContext, Session,
};
use alloc::alloc::{Layout, alloc, dealloc};
use core::ffi::{c_char, c_int, c_void};
use sillage_ring::layout::LostReason;
use sillage_tracer_user::channel::{Recorder, record, record_short};
use sillage_tracer_user::rcu;
use sillage_tracer_user::registry::Binder;
use sillage_tracer_user::site::Probe;
use sillage_tracer_user::text::{copy_bytes, copy_text};
use sillage_tracer_user::thread::{self, Level, NoLevel, PAYLOAD_BYTES_MAX};

/// Everything about one event in one channel.
#[repr(C, align(64))]
struct Block {
    event: EventCommon,
    ours: Recorder,
    recorder: EventRecorder,
    buffer: ChannelBuffer,
    session: Session,
    channel: ChannelCommon,
}

const OURS_BEFORE_RECORDER: usize =
    core::mem::offset_of!(Block, recorder) - core::mem::offset_of!(Block, ours);
const _: () = assert!(core::mem::offset_of!(Block, recorder) == 64);

/// How LTTng's events become probes.
pub(crate) static BINDER: Binder = Binder { bind, unbind };

unsafe fn bind(event: *const c_void, recorder: Recorder) -> Option<Probe> {
    // SAFETY: the registry binds events of registered providers, which `describe` took apart.
    let class: &Class = unsafe { (*event.cast::<EventDesc>()).class.as_ref()? };
    probe(class.probe_callback, recorder)
}

/// A probe that calls `function` with a block that leads to `recorder`. None: no memory.
pub(crate) fn probe(function: *const c_void, recorder: Recorder) -> Option<Probe> {
    let size = |bytes: usize| bytes as u32;
    // SAFETY: a layout of more than no bytes; the block is filled before anyone sees it.
    unsafe {
        let block = alloc(Layout::new::<Block>()).cast::<Block>();
        if block.is_null() {
            return None;
        }
        let null = core::ptr::null_mut();
        block.write(Block {
            event: EventCommon {
                struct_size: size(size_of::<EventCommon>()),
                private: null,
                kind: 0,
                child: (&raw mut (*block).recorder).cast(),
                enabled: 1,
                eval_filter: 0,
                run_filter: accept,
            },
            ours: recorder,
            recorder: EventRecorder {
                struct_size: size(size_of::<EventRecorder>()),
                parent: &raw mut (*block).event,
                private: null,
                channel: &raw mut (*block).buffer,
            },
            buffer: ChannelBuffer {
                struct_size: size(size_of::<ChannelBuffer>()),
                parent: &raw mut (*block).channel,
                private: null,
                ops: &raw const OPS,
            },
            session: Session { struct_size: size(size_of::<Session>()), private: null, active: 1 },
            channel: ChannelCommon {
                struct_size: size(size_of::<ChannelCommon>()),
                private: null,
                kind: 0,
                child: (&raw mut (*block).buffer).cast(),
                enabled: 1,
                session: &raw mut (*block).session,
            },
        });
        Some(Probe { function, data: block.cast() })
    }
}

/// Frees such a probe.
///
/// # Safety
/// No reader uses it any more.
pub(crate) unsafe fn unbind(probe: Probe) {
    // SAFETY: made by `probe`, and no reader is left (contract of `Binder`).
    unsafe { dealloc(probe.data.cast(), Layout::new::<Block>()) };
}

/// The recorder behind a probe's data.
///
/// # Safety
/// `data` was made by [`BINDER`], in the read section in which it was found.
pub(crate) unsafe fn of_probe<'a>(data: *mut c_void) -> &'a Recorder {
    // SAFETY: the caller's promise.
    unsafe { &(*data.cast::<Block>()).ours }
}

unsafe extern "C" fn accept(
    _: *const EventCommon,
    _: *const c_char,
    _: *mut ProbeContext,
    _: *mut c_void,
) -> c_int {
    0
}

/// What all channels do.
static OPS: ChannelOps = ChannelOps {
    struct_size: size_of::<ChannelOps>() as u32,
    private: core::ptr::null_mut(),
    reserve,
    commit,
    write,
    strcpy,
    pstrcpy_pad,
};

/// # Safety
/// `context` came from a probe whose data is a block.
#[inline(always)]
unsafe fn recorder<'a>(context: *mut Context) -> &'a Recorder {
    // SAFETY: probes hand the event's recorder back; ours lies just in front of it.
    unsafe { &*(*context).recorder.cast::<u8>().sub(OURS_BEFORE_RECORDER).cast::<Recorder>() }
}

unsafe extern "C" fn reserve(context: *mut Context) -> c_int {
    // SAFETY: the probe's context, on its stack; blocks stay mapped.
    unsafe {
        if let Some(thread) = thread::current().as_ref()
            && (*context).data_size <= PAYLOAD_BYTES_MAX
            && let Some(level) = thread.take_first(context as usize)
        {
            (*context).level = level;
            return 0;
        }
        reserve_slowly(context)
    }
}

/// # Safety
/// As `reserve`.
#[cold]
#[inline(never)]
unsafe extern "C" fn reserve_slowly(context: *mut Context) -> c_int {
    // SAFETY: as above.
    unsafe {
        if (*context).data_size > PAYLOAD_BYTES_MAX {
            lose(context, LostReason::TooLarge);
            return -1;
        }
        match thread::get().take(context as usize) {
            Ok(level) => {
                (*context).level = level;
                return 0;
            }
            Err(NoLevel::Lost(reason)) => lose(context, reason),
            Err(NoLevel::Forked) => {}
        }
    }
    -1
}

/// # Safety
/// As [`recorder`].
#[cold]
#[inline(never)]
unsafe fn lose(context: *mut Context, reason: LostReason) {
    // SAFETY: inside the probe's read section.
    unsafe { recorder(context).channel().count_lost(reason) };
}

unsafe extern "C" fn commit(context: *mut Context) {
    // SAFETY: the probe reserved, in this thread and read section.
    unsafe {
        let level = (*context).level;
        let end = (*level).pos;
        if end.is_null() {
            return wiped();
        }
        let len = end as usize - Level::payload(level) as usize;
        if !record_short(recorder(context), level, len) {
            return commit_slowly(level);
        }
        (*Level::thread(level)).release(level);
    }
}

/// From the level alone, so that the hot path need not keep anything else: it was taken with the
/// context's address.
///
/// # Safety
/// As `commit`.
#[inline(never)]
unsafe extern "C" fn commit_slowly(level: *mut Level) {
    // SAFETY: as above.
    unsafe {
        let len = (*level).pos as usize - Level::payload(level) as usize;
        record(recorder(Level::frame(level) as *mut Context), level, len);
        (*Level::thread(level)).release(level);
    }
}

/// The process was forked in a signal handler between reserve and commit: this is the child, and the
/// record is the parent's.
#[cold]
#[inline(never)]
extern "C" fn wiped() {
    rcu::restore_one_section(thread::get());
}

/// Where the next `len` bytes go, and moves on behind them. Null: they do not fit what was reserved,
/// or the level was wiped by a fork.
///
/// # Safety
/// The probe reserved.
#[inline(always)]
unsafe fn advance(context: *mut Context, len: usize) -> *mut u8 {
    // SAFETY: the level is the probe's until it commits.
    unsafe {
        let level = (*context).level;
        let at = (*level).pos;
        let used = (at as usize).wrapping_sub(Level::payload(level) as usize);
        if used.saturating_add(len) > PAYLOAD_BYTES_MAX {
            return core::ptr::null_mut();
        }
        (*level).pos = at.add(len);
        at
    }
}

unsafe extern "C" fn write(context: *mut Context, from: *const u8, len: usize, _align: usize) {
    // SAFETY: the probe's promise: it reserved, and `from` has `len` bytes. A level's payload has room
    // for a word behind what any probe reserves.
    unsafe {
        let level = (*context).level;
        let at = (*level).pos;
        if len != 4 || at.is_null() {
            return write_any(context, from, len);
        }
        // Stored as a whole word, which the ring's loads can then take from the store buffer.
        at.cast::<u64>().write_unaligned(from.cast::<u32>().read_unaligned().into());
        (*level).pos = at.add(4);
    }
}

/// # Safety
/// As `write`.
#[inline(never)]
unsafe extern "C" fn write_any(context: *mut Context, from: *const u8, len: usize) {
    // SAFETY: the caller's promise, and the room that `advance` found.
    unsafe {
        let at = advance(context, len);
        if at.is_null() {
            return;
        }
        match len {
            8 => at.cast::<u64>().write_unaligned(from.cast::<u64>().read_unaligned()),
            _ => copy_bytes(at, from, len),
        }
    }
}

/// Text of `len` bytes with its NUL, which stays the last byte whatever happened to the text.
unsafe extern "C" fn strcpy(context: *mut Context, from: *const u8, len: usize) {
    // SAFETY: as `write`; what `copy_text` stores behind its text are zeroes.
    unsafe {
        let at = advance(context, len);
        if !at.is_null() && len > 0 {
            *at.add(len - 1) = 0;
            copy_text(at, from, len - 1, b'#');
        }
    }
}

/// Text of exactly `len` bytes, NULs behind its end.
unsafe extern "C" fn pstrcpy_pad(context: *mut Context, from: *const u8, len: usize) {
    // SAFETY: as `write`.
    unsafe {
        let at = advance(context, len);
        if !at.is_null() {
            copy_text(at, from, len, 0);
        }
    }
}
