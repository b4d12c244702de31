//! `lttng_ust_tracef` and `lttng_ust_tracelog`: formatted messages as events, with the call sites
//! that programs test and the providers that belong to them.
//!
//! The message is formatted where it is staged. libc's `vsnprintf` runs on the traced thread: that
//! is what these two are.

use crate::recorder;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::sync::atomic::Ordering;
use sillage_model::{Encoding, Field, FieldType, IntegerType, LogLevel, Tracepoint};
use sillage_ring::layout::LostReason;
use sillage_tracer_user::channel::record;
use sillage_tracer_user::field::Field as _;
use sillage_tracer_user::registry::{self, Binder, Described, ModuleNode, ProviderNode};
use sillage_tracer_user::site::{Probe, Site, bytes};
use sillage_tracer_user::thread::{self, Level, NoLevel, PAYLOAD_BYTES_MAX};
use sillage_tracer_user::{rcu, text};

const TRACEF_SIGNATURE: &CStr = c"const char *, msg, unsigned int, len, void *, ip";
const TRACELOG_SIGNATURE: &CStr =
    c"const char *, file, int, line, const char *, func, const char *, msg, unsigned int, len, void *, ip";
const TRACEF_PROVIDER: &CStr = c"lttng_ust_tracef";
const TRACELOG_PROVIDER: &CStr = c"lttng_ust_tracelog";
/// Level of `tracef`'s event.
const TRACEF_LEVEL: u8 = 14;

unsafe extern "C" {
    /// `ap` is a `va_list`, which this machine passes as a pointer.
    fn vsnprintf(to: *mut c_char, size: usize, format: *const c_char, ap: *mut c_void) -> c_int;
}

/// Marks our own probes, which are recorded without a call.
static OURS: u8 = 0;

fn our_function() -> *const c_void {
    (&raw const OURS).cast()
}

static BINDER: Binder = Binder {
    bind: |_, ours| recorder::probe(our_function(), ours),
    // SAFETY: passed on.
    unbind: |probe| unsafe { recorder::unbind(probe) },
};

/// Where a `tracelog` call stands in the program.
#[derive(Clone, Copy)]
struct Place {
    file: *const c_char,
    line: c_int,
    function: *const c_char,
}

/// The C string, or what stands for null.
///
/// # Safety
/// Null, or a C string that lives as long as the result.
unsafe fn shown<'a>(from: *const c_char) -> &'a [u8] {
    // SAFETY: the caller's promise.
    if from.is_null() { b"(null)" } else { unsafe { bytes(from) } }
}

/// Records one message at `site`.
///
/// # Safety
/// `format` and `ap` fit each other; the place's strings are C strings.
unsafe fn log(site: &Site, place: Option<Place>, format: *const c_char, ap: *mut c_void) {
    let thread = thread::get();
    let frame = thread::frame();
    rcu::enter(thread, frame);
    match thread.take(frame) {
        Ok(level) => {
            // SAFETY: the level is ours; the caller's promise.
            unsafe {
                stage(site, place, level, format, ap);
                thread.release(level);
            }
        }
        // SAFETY: inside the read section.
        Err(NoLevel::Lost(reason)) => unsafe { lose(site, reason) },
        Err(NoLevel::Forked) => {}
    }
    rcu::leave(thread);
}

/// # Safety
/// As [`log`], with a level of this thread, inside a read section.
unsafe fn stage(
    site: &Site,
    place: Option<Place>,
    level: *mut Level,
    format: *const c_char,
    ap: *mut c_void,
) {
    // SAFETY: the strings are measured before anything is written behind the payload's end.
    unsafe {
        let mut at = Level::payload(level);
        if let Some(place) = place {
            let (file, function) = (shown(place.file), shown(place.function));
            if 16 + file.len() + function.len() > PAYLOAD_BYTES_MAX / 2 {
                return lose(site, LostReason::TooLarge);
            }
            at = place.line.put(at);
            for name in [file, function] {
                text::copy_text(at, name.as_ptr(), name.len(), b'#');
                at = at.add(name.len());
                *at = 0;
                at = at.add(1);
            }
        }
        let message = at.add(size_of::<u32>());
        let room = PAYLOAD_BYTES_MAX - (message as usize - Level::payload(level) as usize);
        let length = vsnprintf(message.cast(), room, format, ap);
        let Some(length) = u32::try_from(length).ok().filter(|l| (*l as usize) < room) else {
            return lose(site, LostReason::TooLarge);
        };
        at.cast::<u32>().write_unaligned(length);
        let size_bytes = message as usize + length as usize - Level::payload(level) as usize;
        each_probe(site, |probe| {
            if probe.function == our_function() {
                record(recorder::of_probe(probe.data), level, size_bytes);
            } else {
                call(probe, place, message.cast(), length);
            }
        });
    }
}

/// # Safety
/// Inside a read section.
unsafe fn each_probe(site: &Site, mut take: impl FnMut(Probe)) {
    let mut at = site.probes.load(Ordering::Acquire); // pairs with the Release in `Site::publish`
    // SAFETY: a list of probes ends with a null function, and lives until the last reader left.
    unsafe {
        while !at.is_null() && !(*at).function.is_null() {
            take(*at);
            at = at.add(1);
        }
    }
}

/// # Safety
/// Inside a read section.
#[cold]
unsafe fn lose(site: &Site, reason: LostReason) {
    // SAFETY: the caller's promise; data of our own probes.
    unsafe {
        each_probe(site, |probe| {
            if probe.function == our_function() {
                recorder::of_probe(probe.data).channel().count_lost(reason);
            }
        });
    }
}

/// A probe that the program registered itself.
type TracefProbe = unsafe extern "C" fn(*mut c_void, *const c_char, c_uint, *mut c_void);
/// The same for `tracelog`.
type TracelogProbe = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    c_int,
    *const c_char,
    *const c_char,
    c_uint,
    *mut c_void,
);

/// # Safety
/// The program registered the probe with this signature.
unsafe fn call(probe: Probe, place: Option<Place>, message: *const c_char, length: u32) {
    let ip = core::ptr::null_mut();
    // SAFETY: the caller's promise: the signature says the function's type.
    unsafe {
        match place {
            None => core::mem::transmute::<*const c_void, TracefProbe>(probe.function)(
                probe.data, message, length, ip,
            ),
            Some(p) => core::mem::transmute::<*const c_void, TracelogProbe>(probe.function)(
                probe.data, p.file, p.line, p.function, message, length, ip,
            ),
        }
    }
}

fn integer(size_bits: u32, signed: bool) -> FieldType {
    FieldType::Integer(IntegerType { size_bits, align_bits: 8, signed, reverse_byte_order: false, base: 10 })
}

fn field(name: &str, field_type: FieldType) -> Field {
    Field { name: name.into(), field_type }
}

fn message_fields(into: &mut Vec<Field>) {
    into.push(field("_msg_length", integer(32, false)));
    let sequence = FieldType::Sequence {
        element: Box::new(integer(8, true)),
        length_name: "_msg_length".into(),
        align_bits: 8,
        encoding: Encoding::Utf8,
    };
    into.push(field("msg", sequence));
}

/// Describes all sixteen events.
unsafe fn describe(_: *const c_void, take: &mut dyn FnMut(Described<'_>)) {
    let mut fields = Vec::new();
    message_fields(&mut fields);
    take(described(TRACEF_PROVIDER, c"event", TRACEF_SIGNATURE, TRACEF_LEVEL, fields));
    for (level, name) in LEVEL_NAMES.iter().enumerate() {
        let mut fields = alloc::vec![field("line", integer(32, true))];
        fields.push(field("file", FieldType::String(Encoding::Utf8)));
        fields.push(field("func", FieldType::String(Encoding::Utf8)));
        message_fields(&mut fields);
        take(described(TRACELOG_PROVIDER, name, TRACELOG_SIGNATURE, level as u8, fields));
    }
}

fn described<'a>(
    provider: &'a CStr,
    name: &'a CStr,
    signature: &'a CStr,
    level: u8,
    fields: Vec<Field>,
) -> Described<'a> {
    let shown = |name: &CStr| alloc::string::String::from_utf8_lossy(name.to_bytes()).into_owned();
    Described {
        event: core::ptr::null(),
        provider: provider.to_bytes(),
        name: name.to_bytes(),
        signature: signature.to_bytes(),
        tracepoint: Tracepoint {
            name: format!("{}:{}", shown(provider), shown(name)),
            loglevel: LogLevel::from_number(level.into()),
            emf_uri: None,
            fields,
        },
    }
}

static PROVIDER: ProviderNode = ProviderNode::new(core::ptr::null(), describe, &BINDER);

/// Adds our sites and providers; called once, by the constructor.
pub(crate) fn register() {
    static MODULE: ModuleNode = ModuleNode::new((&raw const SITES).cast(), 16);
    // SAFETY: statics.
    unsafe {
        registry::add_module(&MODULE);
        registry::add_provider(&PROVIDER);
    }
}

/// Saves the variable arguments as a `va_list` and calls `$target` with it in `$ap`, the register of
/// the argument behind the fixed ones.
macro_rules! variadic {
    ($(#[$meta:meta])* $name:ident, fixed_bytes: $fixed:literal, ap: $ap:literal, $target:path) => {
        $(#[$meta])*
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                "sub rsp, 216",
                // where va_arg looks for arguments that came in registers
                "mov [rsp + 32], rdi", "mov [rsp + 40], rsi", "mov [rsp + 48], rdx",
                "mov [rsp + 56], rcx", "mov [rsp + 64], r8", "mov [rsp + 72], r9",
                "test al, al", "je 2f",
                "movaps [rsp + 80], xmm0", "movaps [rsp + 96], xmm1", "movaps [rsp + 112], xmm2",
                "movaps [rsp + 128], xmm3", "movaps [rsp + 144], xmm4", "movaps [rsp + 160], xmm5",
                "movaps [rsp + 176], xmm6", "movaps [rsp + 192], xmm7",
                // the list itself: offsets behind the fixed arguments, the stack's arguments, the area
                "2: mov dword ptr [rsp], {fixed}", "mov dword ptr [rsp + 4], 48",
                "lea rax, [rsp + 224]", "mov [rsp + 8], rax",
                "lea rax, [rsp + 32]", "mov [rsp + 16], rax",
                concat!("mov ", $ap, ", rsp"),
                "call {target}",
                "add rsp, 216",
                "ret",
                fixed = const $fixed, target = sym $target,
            );
        }
    };
}

/// `lttng_ust_vtracef`.
///
/// # Safety
/// The format and the arguments fit each other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust__vtracef(format: *const c_char, ap: *mut c_void) {
    // SAFETY: passed on.
    unsafe { log(&lttng_ust_tracepoint_lttng_ust_tracef___event, None, format, ap) };
}

variadic!(
    /// `lttng_ust_tracef`.
    ///
    /// # Safety
    /// The format and the arguments fit each other.
    lttng_ust__tracef,
    fixed_bytes: 8,
    ap: "rsi",
    lttng_ust__vtracef
);

/// The call site of `tracef`.
#[unsafe(no_mangle)]
pub static lttng_ust_tracepoint_lttng_ust_tracef___event: Site =
    Site::new(TRACEF_PROVIDER, c"event", TRACEF_SIGNATURE);

/// Site, function and variadic function of each level, in the order of their numbers.
macro_rules! levels {
    ($($name:literal, $site:ident, $vtracelog:ident, $tracelog:ident;)+) => {
        static LEVEL_NAMES: [&CStr; 15] = [$($name),+];
        static SITES: [&Site; 16] = [&lttng_ust_tracepoint_lttng_ust_tracef___event, $(&$site),+];
        $(
            /// The call site of this level.
            #[unsafe(no_mangle)]
            pub static $site: Site = Site::new(TRACELOG_PROVIDER, $name, TRACELOG_SIGNATURE);

            /// `lttng_ust_vtracelog` of this level.
            ///
            /// # Safety
            /// The format and the arguments fit each other.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $vtracelog(
                file: *const c_char,
                line: c_int,
                function: *const c_char,
                format: *const c_char,
                ap: *mut c_void,
            ) {
                // SAFETY: passed on.
                unsafe { log(&$site, Some(Place { file, line, function }), format, ap) };
            }

            variadic!(
                /// `lttng_ust_tracelog` of this level.
                ///
                /// # Safety
                /// The format and the arguments fit each other.
                $tracelog,
                fixed_bytes: 32,
                ap: "r8",
                $vtracelog
            );
        )+
    };
}

levels! {
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_EMERG",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_EMERG,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_EMERG,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_EMERG;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_ALERT",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_ALERT,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_ALERT,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_ALERT;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_CRIT",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_CRIT,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_CRIT,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_CRIT;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_ERR",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_ERR,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_ERR,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_ERR;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_WARNING",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_WARNING,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_WARNING,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_WARNING;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_NOTICE",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_NOTICE,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_NOTICE,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_NOTICE;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_INFO",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_INFO,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_INFO,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_INFO;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_SYSTEM",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_SYSTEM,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_SYSTEM,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_SYSTEM;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_PROGRAM",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_PROGRAM,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_PROGRAM,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_PROGRAM;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_PROCESS",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_PROCESS,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_PROCESS,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_PROCESS;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_MODULE",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_MODULE,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_MODULE,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_MODULE;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_UNIT",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_UNIT,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_UNIT,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_UNIT;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_FUNCTION",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_FUNCTION,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_FUNCTION,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_FUNCTION;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_LINE",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_LINE,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_LINE,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG_LINE;
    c"LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG",
        lttng_ust_tracepoint_lttng_ust_tracelog___LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG,
        lttng_ust__vtracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG,
        lttng_ust__tracelog_LTTNG_UST_TRACEPOINT_LOGLEVEL_DEBUG;
}
