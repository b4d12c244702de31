//! The Rust API: tracepoints declared once, with typed fields.
//!
//! ```
//! use sillage_tracer_user::{event, tracepoint};
//!
//! tracepoint! {
//!     /// A request came in.
//!     pub REQUEST = shop:request(id: u64, user: &str, sizes: &[u32]), loglevel = INFO;
//! }
//!
//! event!(REQUEST, 42, "bob", &[1, 2, 3]);
//! ```
//!
//! A disabled tracepoint costs a load and a branch, and its arguments are not evaluated. An enabled
//! one allocates nothing, takes no lock, and may be used in any thread and signal handler. All
//! tracepoints of a binary register before `main`. A plugin with tracepoints must not be unloaded
//! (link it with `-z nodelete`), because it has a thread of its own.

use crate::channel::{Recorder, record, record_short};
use crate::listener::{self, Wait};
use crate::registry::{self, Binder, Described, ModuleNode, ProviderNode};
use crate::site::{Probe, Site};
use crate::thread::{self, Level, NoLevel, PAYLOAD_BYTES_MAX, Thread};
use crate::{rcu, start};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicU32, Ordering};
use sillage_model::{Field, LogLevel, Tracepoint};
use sillage_ring::layout::LostReason;

/// What `tracepoint!` knows of a tracepoint while the program is compiled.
pub struct Declaration {
    /// Provider.
    pub provider: &'static CStr,
    /// Event.
    pub event: &'static CStr,
    /// Log level, 0 to 14.
    pub loglevel: u8,
    /// Adds its fields.
    pub fields: fn(&mut Vec<Field>),
}

/// Log levels by the names that `tracepoint!` takes.
#[allow(missing_docs, reason = "the names say it: those of LTTng's levels")]
pub mod loglevel {
    pub const EMERG: u8 = 0;
    pub const ALERT: u8 = 1;
    pub const CRIT: u8 = 2;
    pub const ERR: u8 = 3;
    pub const WARNING: u8 = 4;
    pub const NOTICE: u8 = 5;
    pub const INFO: u8 = 6;
    pub const DEBUG_SYSTEM: u8 = 7;
    pub const DEBUG_PROGRAM: u8 = 8;
    pub const DEBUG_PROCESS: u8 = 9;
    pub const DEBUG_MODULE: u8 = 10;
    pub const DEBUG_UNIT: u8 = 11;
    pub const DEBUG_FUNCTION: u8 = 12;
    pub const DEBUG_LINE: u8 = 13;
    pub const DEBUG: u8 = 14;
}

/// How our own events become probes: the data is a recorder.
pub static BINDER: Binder = Binder { bind, unbind };

unsafe fn bind(_event: *const c_void, recorder: Recorder) -> Option<Probe> {
    let data = Box::into_raw(Box::new(recorder)).cast();
    // The function is never called; it must only not be null, which ends a list.
    Some(Probe { function: bind as *const c_void, data })
}

unsafe fn unbind(probe: Probe) {
    // SAFETY: made by `bind`, and unused by now (contract of `Binder`).
    drop(unsafe { Box::from_raw(probe.data.cast::<Recorder>()) });
}

/// Describes the [`Declaration`] at `context`.
///
/// # Safety
/// `context` is the address of a static declaration.
pub unsafe fn describe(context: *const c_void, take: &mut dyn FnMut(Described<'_>)) {
    // SAFETY: the caller's promise.
    let declaration = unsafe { &*context.cast::<Declaration>() };
    let mut fields = Vec::new();
    (declaration.fields)(&mut fields);
    let text = |name: &CStr| String::from_utf8_lossy(name.to_bytes()).into_owned();
    take(Described {
        event: context,
        provider: declaration.provider.to_bytes(),
        name: declaration.event.to_bytes(),
        signature: SIGNATURE.to_bytes(),
        tracepoint: Tracepoint {
            name: format!("{}:{}", text(declaration.provider), text(declaration.event)),
            loglevel: LogLevel::from_number(declaration.loglevel.into()),
            emf_uri: None,
            fields,
        },
    });
}

/// Signature of all Rust sites: no C site has it, so neither calls the other's probes.
pub const SIGNATURE: &CStr = c"rust";

/// Tracepoints that were declared and not announced yet.
static PENDING: AtomicU32 = AtomicU32::new(0);

/// Registers one tracepoint; called before `main`, for each.
///
/// # Safety
/// The nodes are valid for ever: the statics of `tracepoint!`.
pub unsafe fn register(module: &'static ModuleNode, provider: &'static ProviderNode) {
    start::init();
    // SAFETY: the caller's promise.
    unsafe {
        registry::add_module(module);
        registry::add_provider(provider);
    }
    PENDING.fetch_add(1, Ordering::SeqCst);
}

/// Announces what was registered; the first call waits for the daemon, the others find nothing to do.
pub fn announce() {
    if PENDING.swap(0, Ordering::SeqCst) != 0 {
        listener::announce(Wait::Daemons);
    }
}

/// An event under way: inside a read section, with a level to write to.
pub struct Stage {
    level: *mut Level,
}

impl Stage {
    /// Begins an event whose payload has `size_bytes`. None: it is lost, and was counted.
    #[inline(always)]
    pub fn begin(site: &Site, size_bytes: usize) -> Option<Stage> {
        let thread = thread::get();
        let frame = thread::frame();
        rcu::enter(thread, frame);
        if size_bytes > PAYLOAD_BYTES_MAX {
            lose(site, thread, LostReason::TooLarge);
            return None;
        }
        match thread.take(frame) {
            Ok(level) => Some(Stage { level }),
            Err(NoLevel::Lost(reason)) => {
                lose(site, thread, reason);
                None
            }
            Err(NoLevel::Forked) => {
                rcu::leave(thread);
                None
            }
        }
    }

    /// Where the payload goes.
    #[inline(always)]
    pub fn payload(&self) -> *mut u8 {
        Level::payload(self.level)
    }

    /// Publishes the payload, which ends at `end`.
    ///
    /// # Safety
    /// Everything from `payload` to `end` was written, and is not more than `begin` was told.
    #[inline(always)]
    pub unsafe fn finish(self, site: &Site, end: *mut u8) {
        let len = end as usize - self.payload() as usize;
        // SAFETY: the level is this thread's, in the read section that `begin` entered.
        unsafe { publish(site, self.level, len) };
    }
}

/// The staged bytes go to every channel that records the site.
///
/// # Safety
/// As [`record`].
#[inline(never)]
unsafe fn publish(site: &Site, level: *mut Level, len: usize) {
    // SAFETY: a list of probes ends with a null function; those of Rust sites have recorders, which
    // live until the last reader left; the stage took the level in this thread.
    unsafe {
        let at = site.probes.load(Ordering::Acquire); // pairs with the Release in `Site::publish`
        let alone = !at.is_null() && (*at.add(1)).function.is_null();
        if !alone || !record_short(&*(*at).data.cast::<Recorder>(), level, len) {
            return publish_slowly(at, level, len);
        }
        leave(level);
    }
}

/// # Safety
/// As [`record`]; `at` is a list of probes, or null.
#[inline(never)]
unsafe fn publish_slowly(mut at: *mut Probe, level: *mut Level, len: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        while !at.is_null() && !(*at).function.is_null() {
            record(&*(*at).data.cast::<Recorder>(), level, len);
            at = at.add(1);
        }
        leave(level);
    }
}

/// Gives back the level, and leaves the read section.
///
/// # Safety
/// The stage took `level` in this thread, which the level remembers better than a register across
/// the publication.
#[inline(always)]
unsafe fn leave(level: *mut Level) {
    // SAFETY: the caller's promise.
    unsafe {
        let thread = &*Level::thread(level);
        thread.release(level);
        rcu::leave(thread);
    }
}

/// The record is lost in every channel.
#[cold]
#[inline(never)]
fn lose(site: &Site, thread: &Thread, reason: LostReason) {
    let mut at = site.probes.load(Ordering::Acquire);
    // SAFETY: as in `publish`.
    unsafe {
        while !at.is_null() && !(*at).function.is_null() {
            (*(*at).data.cast::<Recorder>()).channel().count_lost(reason);
            at = at.add(1);
        }
    }
    rcu::leave(thread);
}

/// Declares tracepoints: `VISIBILITY NAME = provider:event(field: type, …), loglevel = LEVEL;`
///
/// Types are those of [`crate::field`]; the log level may be left out (`DEBUG_LINE`). Each becomes a
/// unit struct `NAME` with `is_enabled()` and `record(…)`; [`event!`](crate::event) calls them.
#[macro_export]
macro_rules! tracepoint {
    ($(
        $(#[$meta:meta])*
        $vis:vis $name:ident = $provider:ident : $event:ident ( $($field:ident : $type:ty),* $(,)? )
        $(, loglevel = $level:ident)? ;
    )+) => { $(
        $(#[$meta])*
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        $vis struct $name;

        const _: () = {
            use $crate::{api, registry, site};
            static SITE: site::Site = site::Site::new(
                match ::core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($provider), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                },
                match ::core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($event), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                },
                api::SIGNATURE,
            );
            static SITES: [&site::Site; 1] = [&SITE];
            static DECLARATION: api::Declaration = api::Declaration {
                provider: match ::core::ffi::CStr::from_bytes_with_nul(
                    concat!(stringify!($provider), "\0").as_bytes(),
                ) {
                    Ok(name) => name,
                    Err(_) => c"",
                },
                event: match ::core::ffi::CStr::from_bytes_with_nul(
                    concat!(stringify!($event), "\0").as_bytes(),
                ) {
                    Ok(name) => name,
                    Err(_) => c"",
                },
                loglevel: {
                    let _level = api::loglevel::DEBUG_LINE;
                    $(let _level = api::loglevel::$level;)?
                    _level
                },
                fields,
            };
            fn fields(into: &mut api::Fields) {
                let _ = &into;
                $(<$type as $crate::field::Field>::describe(stringify!($field), into);)*
            }
            static MODULE: registry::ModuleNode =
                registry::ModuleNode::new((&raw const SITES).cast(), 1);
            static PROVIDER: registry::ProviderNode =
                registry::ProviderNode::new((&raw const DECLARATION).cast(), api::describe, &api::BINDER);

            // Before the program's other constructors: those may trace already.
            #[used]
            #[unsafe(link_section = ".init_array.00101")]
            static REGISTER: extern "C" fn() = {
                extern "C" fn register() {
                    // SAFETY: the nodes are statics.
                    unsafe { api::register(&MODULE, &PROVIDER) }
                }
                register
            };
            #[used]
            #[unsafe(link_section = ".init_array.00102")]
            static ANNOUNCE: extern "C" fn() = {
                extern "C" fn announce() {
                    api::announce();
                }
                announce
            };

            impl $name {
                /// True if an event would be recorded.
                #[inline(always)]
                #[allow(dead_code)]
                $vis fn is_enabled(&self) -> bool {
                    SITE.is_enabled()
                }

                /// Records an event. Ask `is_enabled` first, as `event!` does.
                #[inline(always)]
                #[allow(clippy::too_many_arguments)]
                $vis fn record(&self $(, $field: $type)*) {
                    let size_bytes = 0 $(+ $crate::field::Field::size_bytes(&$field))*;
                    let Some(stage) = api::Stage::begin(&SITE, size_bytes) else { return };
                    let at = stage.payload();
                    // SAFETY: a stage has room for the bytes that it was told of.
                    unsafe {
                        $(let at = $crate::field::Field::put(&$field, at);)*
                        stage.finish(&SITE, at);
                    }
                }
            }
        };
    )+ };
}

/// Records an event of a tracepoint if somebody records it; otherwise the arguments are not evaluated.
#[macro_export]
macro_rules! event {
    ($name:path $(, $value:expr)* $(,)?) => {
        if $name.is_enabled() {
            $name.record($($value),*)
        }
    };
}

/// The list that a declaration adds its fields to.
pub type Fields = Vec<Field>;
