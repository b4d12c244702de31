//! The in-process tracer behind LTTng-UST's provider ABI: programs that were built with LTTng's
//! headers load this library instead of `liblttng-ust.so.1`, `liblttng-ust-common.so.1` and
//! `liblttng-ust-tracepoint.so.1` (one file, three names; glibc loads a file once).
//!
//! It accepts providers of the majors 3 and 4, and keeps the rules of `sillage-tracer-user` on the
//! traced thread. It holds no second tracer: everything is that crate's but the shapes of C.
//!
//! The library has its own allocator over `mmap`, because the host's `malloc` may be traced, and
//! needs nothing but libc. A bug or a lack of memory in its own thread ends tracing, not the program.
//!
//! Every symbol that LTTng-UST 2.13's three libraries export is here. These do less than there:
//!
//! | symbols | here |
//! |---|---|
//! | `__start_`, `__stop_lttng_ust_tracepoints_ptrs` | absent: section bounds private to that library |
//! | `lttng_ust_trace_clock_set_*_cb`, `lttng_ust_enable_trace_clock_override`, `lttng_ust_getcpu_override` | refuse (`-ENOSYS`): records carry CLOCK_MONOTONIC and the kernel's CPU number |
//! | `lttng_ust_trace_clock_get_*_cb` | give null: nothing is overridden |
//! | `lttng_ust_context_provider_register` | refuses (null) until contexts exist |
//! | `lttng_ust_dl_update`, `lttng_ust_context_procname_reset`, `lttng_ust_after_set*`, `lttng_ust_after_unshare` | nothing to do: no state dump and no cached contexts |
//! | `lttng_ust_before_fork`, `lttng_ust_after_fork_parent` | nothing to do: libc tells us of forks |
//! | `lttng_ust_lock_`, `lttng_ust_unlock_fd_tracker`, `lttng_ust_add_fd_to_`, `lttng_ust_delete_fd_from_tracker` | nothing to do: our descriptors are known by identity |
//! | `lttng_ust_cancelstate_*`, `init_usterr`, `lttng_ust_tp_init`, `lttng_ust_tp_exit`, `lttng_ust_common_alloc_tls` | nothing to do |
//! | `tracepoint_register_lib` | refuses: the ABI of liblttng-ust.so.0 |
#![no_std]

extern crate alloc;
// Checkers look at the library as if it had tests, which bring a panic handler along.
#[cfg(test)]
extern crate std;

pub mod describe;
pub mod layout;
pub mod log;
pub mod memory;
pub mod other;
pub mod process;
pub mod recorder;
pub mod register;
pub mod urcu;

/// A bug, or no memory: if it is in our own thread, tracing ends and the program goes on.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    if sillage_tracer_user::listener::is_current_thread() {
        sillage_tracer_user::lock::declare_dead();
        loop {
            sillage_tracer_user::sys::sleep_ns(u64::MAX >> 2);
        }
    }
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

// The unwinder's entries, which the core library's code names; nothing here unwinds. Hidden: a Rust
// program that is linked dynamically has real ones under these names.
core::arch::global_asm!(
    ".globl rust_eh_personality",
    ".hidden rust_eh_personality",
    ".type rust_eh_personality, @function",
    ".globl _Unwind_Resume",
    ".hidden _Unwind_Resume",
    ".type _Unwind_Resume, @function",
    "rust_eh_personality: _Unwind_Resume: ud2",
);
