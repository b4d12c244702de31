//! A call site and its probes: the words that a tracepoint in the program's code reads.
//!
//! The layout is that of LTTng-UST's `struct lttng_ust_tracepoint` and
//! `struct lttng_ust_tracepoint_probe`, so that one registry serves programs built with LTTng's
//! headers and those that use our Rust API.

use core::ffi::{CStr, c_char, c_void};
use core::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// A call site.
#[repr(C)]
pub struct Site {
    struct_size: u32,
    provider: *const c_char,
    event: *const c_char,
    /// Not 0: somebody records.
    pub state: AtomicI32,
    /// What to call, ended by a probe without function; null when nobody records.
    pub probes: AtomicPtr<Probe>,
    provider_reference: *const i32,
    signature: *const c_char,
}

const _: () = assert!(size_of::<Site>() == 56 && core::mem::offset_of!(Site, state) == 24);

// SAFETY: the names never change; the two words that change are atomics.
unsafe impl Sync for Site {}

impl Site {
    /// A disabled site of the event `provider`:`event`. Sites and events belong together when their
    /// signatures are equal too.
    pub const fn new(provider: &'static CStr, event: &'static CStr, signature: &'static CStr) -> Site {
        Site {
            struct_size: size_of::<Site>() as u32,
            provider: provider.as_ptr(),
            event: event.as_ptr(),
            state: AtomicI32::new(0),
            probes: AtomicPtr::new(core::ptr::null_mut()),
            provider_reference: core::ptr::null(),
            signature: signature.as_ptr(),
        }
    }

    /// True if an event at this site would be recorded.
    #[inline(always)]
    pub fn is_enabled(&self) -> bool {
        self.state.load(Ordering::Relaxed) != 0
    }

    /// Provider, name and signature.
    ///
    /// # Safety
    /// The site's strings are valid (its module is loaded).
    pub(crate) unsafe fn key(&self) -> Key<'_> {
        // SAFETY: the caller's promise.
        unsafe {
            Key { provider: bytes(self.provider), event: bytes(self.event), signature: bytes(self.signature) }
        }
    }

    /// Points the site to `probes` (ended by one without function), or disables it.
    pub(crate) fn publish(&self, probes: *mut Probe) {
        if probes.is_null() {
            self.state.store(0, Ordering::Release);
            self.probes.store(probes, Ordering::Release);
        } else {
            // Pairs with the dependent loads of the readers.
            self.probes.store(probes, Ordering::Release);
            self.state.store(1, Ordering::Release);
        }
    }
}

/// What belongs together: the names and the arguments' types.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    pub(crate) provider: &'a [u8],
    pub(crate) event: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl Key<'_> {
    /// FNV-1a over the names.
    pub(crate) fn hash(&self) -> u64 {
        let bytes = self.provider.iter().chain(b":").chain(self.event);
        bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
    }
}

/// The bytes of a C string; none for null.
///
/// # Safety
/// `text` is null, or ends with a NUL and lives as long as the result is used.
pub unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text).to_bytes() }
}

/// A probe: a function and the first argument it is called with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Null ends a list of probes. Its type depends on the event.
    pub function: *const c_void,
    /// Handed to it.
    pub data: *mut c_void,
}

impl Probe {
    /// The end of a list.
    pub(crate) const END: Probe = Probe { function: core::ptr::null(), data: core::ptr::null_mut() };
}

// SAFETY: two words that the registry hands from thread to thread; what they point to is governed
// by grace periods.
unsafe impl Send for Probe {}
