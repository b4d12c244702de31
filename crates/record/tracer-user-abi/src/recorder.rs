//! The hot path: what a probe finds behind its first argument, and the operations that it calls.
//!
//! An event's structures lie in one block of four cache lines, in the order in which a probe looks
//! at them. A probe reserves a staging level, writes its fields there, and commits: only then does
//! the ring see anything.

use crate::layout::{
    ChannelBuffer, ChannelCommon, ChannelOps, Class, Context, EventCommon, EventDesc, EventRecorder, ProbeContext,
    Session,
};
use alloc::alloc::{Layout, alloc, dealloc};
use core::ffi::{c_char, c_int, c_void};
use sillage_ring::layout::LostReason;
use sillage_tracer_user::channel::{Recorder, record};
use sillage_tracer_user::rcu;
use sillage_tracer_user::registry::Binder;
use sillage_tracer_user::site::Probe;
use sillage_tracer_user::text::{copy_bytes, copy_text};
use sillage_tracer_user::thread::{self, Level, NoLevel, PAYLOAD_BYTES_MAX, Thread};

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
    let thread = thread::get();
    // SAFETY: the probe's context, on its stack.
    let data_size = unsafe { (*context).data_size };
    if data_size <= PAYLOAD_BYTES_MAX {
        match thread.take(context as usize) {
            Ok(level) => {
                // SAFETY: as above.
                unsafe { (*context).level = level };
                return 0;
            }
            // SAFETY: as above.
            Err(NoLevel::Lost(reason)) => unsafe { lose(context, reason) },
            Err(NoLevel::Forked) => {}
        }
    } else {
        // SAFETY: as above.
        unsafe { lose(context, LostReason::TooLarge) };
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
        let thread: &Thread = &*Level::thread(level);
        let len = end as usize - Level::payload(level) as usize;
        record(recorder(context), thread, level, len);
        thread.release(level);
    }
}

/// The process was forked in a signal handler between reserve and commit: this is the child, and the
/// record is the parent's.
#[cold]
fn wiped() {
    rcu::restore_one_section(thread::get());
}

/// # Safety
/// The probe reserved; it writes no more than it reserved.
#[inline(always)]
unsafe fn append(context: *mut Context, len: usize, put: impl FnOnce(*mut u8)) {
    // SAFETY: the level is the probe's until it commits.
    unsafe {
        let level = (*context).level;
        let pos = (*level).pos;
        // Past the end, or in a wiped level: the probe wrote more than it said.
        let used = (pos as usize).wrapping_sub(Level::payload(level) as usize);
        if used.saturating_add(len) > PAYLOAD_BYTES_MAX {
            return;
        }
        put(pos);
        (*level).pos = pos.add(len);
    }
}

unsafe extern "C" fn write(context: *mut Context, from: *const u8, len: usize, _align: usize) {
    // SAFETY: the probe's promise: it reserved, and `from` has `len` bytes.
    unsafe { append(context, len, |at| copy_bytes(at, from, len)) };
}

/// Text of `len` bytes with its NUL, which stays the last byte whatever happened to the text.
unsafe extern "C" fn strcpy(context: *mut Context, from: *const u8, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: as `write`.
    unsafe {
        append(context, len, |at| {
            copy_text(at, from, len - 1, b'#');
            *at.add(len - 1) = 0;
        });
    }
}

/// Text of exactly `len` bytes, NULs behind its end.
unsafe extern "C" fn pstrcpy_pad(context: *mut Context, from: *const u8, len: usize) {
    // SAFETY: as `write`.
    unsafe { append(context, len, |at| copy_text(at, from, len, 0)) };
}
