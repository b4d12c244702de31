//! Symbols that programs and plugins may name, for what this version does not do: they say so.

use core::ffi::{CStr, c_char, c_int, c_void};

macro_rules! refuse {
    ($($name:ident)+) => { $(
        /// Refused: not supported.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(_: *const c_void) -> c_int {
            -libc::ENOSYS
        }
    )+ };
}

refuse! {
    lttng_ust_trace_clock_set_read64_cb lttng_ust_trace_clock_set_freq_cb
    lttng_ust_trace_clock_set_uuid_cb lttng_ust_trace_clock_set_name_cb
    lttng_ust_trace_clock_set_description_cb
    lttng_ust_enable_trace_clock_override lttng_ust_getcpu_override
}

macro_rules! no_callback {
    ($($name:ident)+) => { $(
        /// Gives null: there is no override.
        ///
        /// # Safety
        /// `into` is null or a pointer's place.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(into: *mut *const c_void) -> c_int {
            if into.is_null() {
                return -libc::EINVAL;
            }
            // SAFETY: the caller's promise.
            unsafe { *into = core::ptr::null() };
            0
        }
    )+ };
}

no_callback! {
    lttng_ust_trace_clock_get_read64_cb lttng_ust_trace_clock_get_freq_cb
    lttng_ust_trace_clock_get_uuid_cb lttng_ust_trace_clock_get_name_cb
    lttng_ust_trace_clock_get_description_cb
}

/// Refused: null.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_context_provider_register(_: *const c_void) -> *const c_void {
    core::ptr::null()
}

/// Nothing was registered.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_context_provider_unregister(_: *const c_void) {}

/// Libraries were loaded or closed: there is no state dump to bring up to date.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_dl_update(_: *const c_void) {}

/// Cancellation is never enabled by us.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_cancelstate_disable_push() -> c_int {
    0
}

/// Cancellation is never enabled by us.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_cancelstate_disable_pop() -> c_int {
    0
}

/// What an error number of the control interface means.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_strerror(code: c_int) -> *const c_char {
    let text: &CStr = match -code {
        0 => c"no error",
        1024 => c"error",
        1025 => c"no such object",
        1026 => c"invalid peer",
        1027 => c"invalid magic number",
        1028 => c"already exists",
        1029 => c"does not exist",
        1030 => c"invalid state",
        1031 => c"invalid symbol",
        _ => c"unknown code",
    };
    text.as_ptr()
}
