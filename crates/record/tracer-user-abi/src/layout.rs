//! The structures of the provider ABI, 64-bit, in the order of LTTng-UST's headers.
//!
//! Those that can grow begin with their size. The first part is what providers give us (read only),
//! the second what we give them.

use core::ffi::{c_char, c_int, c_uint, c_void};
use sillage_tracer_user::thread::Level;

/// `lttng_ust_probe_desc`: a provider.
#[repr(C)]
pub struct ProbeDesc {
    pub(crate) struct_size: u32,
    pub(crate) provider_name: *const c_char,
    pub(crate) events: *const *const EventDesc,
    pub(crate) event_count: c_uint,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// `lttng_ust_event_desc`: an event.
#[repr(C)]
pub struct EventDesc {
    pub(crate) struct_size: u32,
    pub(crate) name: *const c_char,
    pub(crate) provider: *const ProbeDesc,
    pub(crate) class: *const Class,
    pub(crate) loglevel: *const *const c_int,
    pub(crate) model_emf_uri: *const *const c_char,
}

/// `lttng_ust_tracepoint_class`: fields and the function that records them.
#[repr(C)]
pub struct Class {
    pub(crate) struct_size: u32,
    pub(crate) fields: *const *const EventField,
    pub(crate) field_count: usize,
    pub(crate) probe_callback: *const c_void,
    pub(crate) signature: *const c_char,
    pub(crate) provider: *const ProbeDesc,
}

/// `lttng_ust_event_field`.
#[repr(C)]
pub struct EventField {
    pub(crate) struct_size: u32,
    pub(crate) name: *const c_char,
    pub(crate) field_type: *const TypeCommon,
    /// Bit 0: not written to the trace; bit 1: not for filters.
    pub(crate) flags: c_uint,
}

/// In [`EventField::flags`].
pub(crate) const NOT_WRITTEN: c_uint = 1;

/// `lttng_ust_type_common`: which of the types follows.
#[repr(C)]
pub struct TypeCommon {
    pub(crate) kind: c_uint,
}

pub(crate) const TYPE_INTEGER: c_uint = 0;
pub(crate) const TYPE_STRING: c_uint = 1;
pub(crate) const TYPE_FLOAT: c_uint = 2;
pub(crate) const TYPE_ENUM: c_uint = 4;
pub(crate) const TYPE_ARRAY: c_uint = 5;
pub(crate) const TYPE_SEQUENCE: c_uint = 6;

/// `lttng_ust_type_integer`.
#[repr(C)]
pub struct TypeInteger {
    pub(crate) common: TypeCommon,
    pub(crate) struct_size: u32,
    pub(crate) size_bits: c_uint,
    pub(crate) align_bits: u16,
    /// Bit 0: signed; bit 1: not the machine's byte order.
    pub(crate) flags: u16,
    pub(crate) base: c_uint,
}

/// `lttng_ust_type_float`.
#[repr(C)]
pub struct TypeFloat {
    pub(crate) common: TypeCommon,
    pub(crate) struct_size: u32,
    pub(crate) exponent_bits: c_uint,
    pub(crate) mantissa_bits: c_uint,
    pub(crate) align_bits: u16,
    /// Bit 0: not the machine's byte order.
    pub(crate) flags: u16,
}

/// `lttng_ust_type_string`.
#[repr(C)]
pub struct TypeString {
    pub(crate) common: TypeCommon,
    pub(crate) struct_size: u32,
    pub(crate) encoding: c_uint,
}

/// `lttng_ust_type_enum`.
#[repr(C)]
pub struct TypeEnum {
    pub(crate) common: TypeCommon,
    pub(crate) struct_size: u32,
    pub(crate) desc: *const EnumDesc,
    pub(crate) container: *const TypeCommon,
}

/// `lttng_ust_type_array`.
#[repr(C)]
pub struct TypeArray {
    pub(crate) common: TypeCommon,
    pub(crate) struct_size: u32,
    pub(crate) element: *const TypeCommon,
    pub(crate) length: c_uint,
    pub(crate) align_bits: c_uint,
    pub(crate) encoding: c_uint,
}

/// `lttng_ust_type_sequence`.
#[repr(C)]
pub struct TypeSequence {
    pub(crate) common: TypeCommon,
    pub(crate) struct_size: u32,
    pub(crate) length_name: *const c_char,
    pub(crate) element: *const TypeCommon,
    pub(crate) align_bits: c_uint,
    pub(crate) encoding: c_uint,
}

/// `lttng_ust_enum_desc`.
#[repr(C)]
pub struct EnumDesc {
    pub(crate) struct_size: u32,
    pub(crate) name: *const c_char,
    pub(crate) entries: *const *const EnumEntry,
    pub(crate) entry_count: c_uint,
    pub(crate) provider: *const ProbeDesc,
}

/// `lttng_ust_enum_value`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EnumValue {
    pub(crate) bits: u64,
    /// Bit 0: signed.
    pub(crate) flags: c_uint,
}

/// `lttng_ust_enum_entry`.
#[repr(C)]
pub struct EnumEntry {
    pub(crate) struct_size: u32,
    pub(crate) start: EnumValue,
    pub(crate) end: EnumValue,
    pub(crate) label: *const c_char,
    /// Bit 0: the value follows from the entry before.
    pub(crate) options: c_uint,
}

/// `lttng_ust_event_common`: what a probe gets as its first argument.
#[repr(C)]
pub struct EventCommon {
    pub(crate) struct_size: u32,
    pub(crate) private: *mut c_void,
    /// 0: a recorder.
    pub(crate) kind: c_uint,
    pub(crate) child: *mut c_void,
    pub(crate) enabled: c_int,
    pub(crate) eval_filter: c_int,
    pub(crate) run_filter: Filter,
}

/// Called by probes while `eval_filter` is set; 0 accepts.
pub type Filter =
    unsafe extern "C" fn(*const EventCommon, *const c_char, *mut ProbeContext, *mut c_void) -> c_int;

/// `lttng_ust_probe_ctx`.
#[repr(C)]
pub struct ProbeContext {
    struct_size: u32,
    ip: *const c_void,
}

/// `lttng_ust_event_recorder`.
#[repr(C)]
pub struct EventRecorder {
    pub(crate) struct_size: u32,
    pub(crate) parent: *mut EventCommon,
    pub(crate) private: *mut c_void,
    pub(crate) channel: *mut ChannelBuffer,
}

/// `lttng_ust_channel_buffer`.
#[repr(C)]
pub struct ChannelBuffer {
    pub(crate) struct_size: u32,
    pub(crate) parent: *mut ChannelCommon,
    pub(crate) private: *mut c_void,
    pub(crate) ops: *const ChannelOps,
}

/// `lttng_ust_channel_common`.
#[repr(C)]
pub struct ChannelCommon {
    pub(crate) struct_size: u32,
    pub(crate) private: *mut c_void,
    /// 0: a buffer.
    pub(crate) kind: c_uint,
    pub(crate) child: *mut c_void,
    pub(crate) enabled: c_int,
    pub(crate) session: *mut Session,
}

/// `lttng_ust_session`.
#[repr(C)]
pub struct Session {
    pub(crate) struct_size: u32,
    pub(crate) private: *mut c_void,
    pub(crate) active: c_int,
}

/// `lttng_ust_ring_buffer_ctx`: an event under way, on the probe's stack.
#[repr(C)]
pub struct Context {
    pub(crate) struct_size: u32,
    pub(crate) recorder: *mut EventRecorder,
    pub(crate) data_size: usize,
    pub(crate) largest_align: c_int,
    pub(crate) probe_context: *mut ProbeContext,
    /// Ours: set by `reserve`.
    pub(crate) level: *mut Level,
}

/// `lttng_ust_channel_buffer_ops`.
#[repr(C)]
pub struct ChannelOps {
    pub(crate) struct_size: u32,
    pub(crate) private: *mut c_void,
    pub(crate) reserve: unsafe extern "C" fn(*mut Context) -> c_int,
    pub(crate) commit: unsafe extern "C" fn(*mut Context),
    pub(crate) write: unsafe extern "C" fn(*mut Context, *const u8, usize, usize),
    pub(crate) strcpy: unsafe extern "C" fn(*mut Context, *const u8, usize),
    pub(crate) pstrcpy_pad: unsafe extern "C" fn(*mut Context, *const u8, usize),
}

// SAFETY: functions and a null pointer.
unsafe impl Sync for ChannelOps {}

// Sizes as in 2.13 and 2.17.
const _: () = {
    assert!(size_of::<ProbeDesc>() == 40 && size_of::<EventDesc>() == 48);
    assert!(size_of::<Class>() == 48 && size_of::<EventField>() == 32);
    assert!(size_of::<TypeInteger>() == 20 && size_of::<TypeFloat>() == 20);
    assert!(size_of::<TypeString>() == 12 && size_of::<TypeEnum>() == 24);
    assert!(size_of::<TypeArray>() == 32 && size_of::<TypeSequence>() == 32);
    assert!(size_of::<EnumDesc>() == 40 && size_of::<EnumEntry>() == 56);
    assert!(size_of::<EventCommon>() == 48 && size_of::<EventRecorder>() == 32);
    assert!(size_of::<ChannelBuffer>() == 32 && size_of::<ChannelCommon>() == 48);
    assert!(size_of::<Session>() == 24 && size_of::<Context>() == 48);
    assert!(size_of::<ChannelOps>() == 56 && size_of::<ProbeContext>() == 16);
};
