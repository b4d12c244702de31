//! Processes and descriptors: `vfork` and `clone`, the hooks of the fork helper, and the functions of
//! the helper that keeps programs from closing the tracer's descriptors.
//!
//! A vfork child shares its parent's thread-local memory while the kernel has dropped its rseq
//! registration: an event there could tear the rings of all of the user's programs. So both
//! functions are wrapped, and the thread must not trace meanwhile.

use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};
use sillage_tracer_user::{fork, listener, thread};

extern "C" fn before_vfork() {
    thread::get().mute();
}

extern "C" fn after_vfork() {
    thread::get().unmute();
}

extern "C" fn set_errno(number: c_int) {
    // SAFETY: libc's place of errno for this thread.
    unsafe { *libc::__errno_location() = number };
}

/// `vfork`, during which the calling thread does not trace.
///
/// The child returns through the same stack frame before the parent does, so the return address is
/// kept in a register across the system call.
///
/// # Safety
/// As libc's: the child may only call `_exit` or `exec`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfork() -> c_int {
    naked_asm!(
        "sub rsp, 8",
        "call {before}",
        "add rsp, 8",
        "pop rdi",
        "mov eax, {number}",
        "syscall",
        "push rdi",
        "test eax, eax",
        "jz 3f",
        "push rax",
        "call {after}",
        "pop rax",
        "cmp rax, -4096",
        "jbe 3f",
        "neg eax",
        "mov edi, eax",
        "sub rsp, 8",
        "call {errno}",
        "add rsp, 8",
        "mov eax, -1",
        "3: ret",
        before = sym before_vfork,
        after = sym after_vfork,
        errno = sym set_errno,
        number = const libc::SYS_vfork,
    );
}

/// The function that a clone runs.
type Main = extern "C" fn(*mut c_void) -> c_int;
type Clone = unsafe extern "C" fn(
    Option<Main>,
    *mut c_void,
    c_int,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
) -> c_int;

/// libc's `clone`, once it was looked up.
static REAL_CLONE: AtomicUsize = AtomicUsize::new(0);

/// `clone`: a child that shares memory and thread-local storage does not trace. (C declares the last
/// three arguments as variable ones, which this machine passes in the same places.)
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone(
    main: Option<Main>,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent_tid: *mut c_void,
    tls: *mut c_void,
    child_tid: *mut c_void,
) -> c_int {
    let mut real = REAL_CLONE.load(Ordering::Acquire);
    if real == 0 {
        // SAFETY: a name ended by NUL.
        real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clone".as_ptr()) } as usize;
        REAL_CLONE.store(real, Ordering::Release);
    }
    if real == 0 {
        set_errno(libc::ENOSYS);
        return -1;
    }
    // SAFETY: libc's function of this name has this type.
    let real = unsafe { core::mem::transmute::<usize, Clone>(real) };
    let shared = flags & (libc::CLONE_VM | libc::CLONE_SETTLS) == libc::CLONE_VM;
    if shared {
        thread::get().mute();
    }
    // SAFETY: passed on.
    let result = unsafe { real(main, stack, flags, argument, parent_tid, tls, child_tid) };
    // Without CLONE_VFORK the child goes on beside us with our thread's memory: neither may trace.
    if shared && (flags & libc::CLONE_VFORK != 0 || result < 0) {
        thread::get().unmute();
    }
    result
}

/// libc tells us of forks.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_before_fork(_: *mut libc::sigset_t) {}

/// libc tells us of forks.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_after_fork_parent(_: *mut libc::sigset_t) {}

/// For children that libc does not know of: made by `clone`, under the fork helper.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_after_fork_child(_: *mut libc::sigset_t) {
    // SAFETY: the helper calls this first thing in the child, whose only thread this is.
    unsafe { fork::adopt_child() };
}

macro_rules! nothing_cached {
    ($($name:ident)+) => { $(
        /// Nothing of this is cached.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() {}
    )+ };
}

nothing_cached! {
    lttng_ust_after_setns lttng_ust_after_unshare
    lttng_ust_after_setuid lttng_ust_after_setgid lttng_ust_after_seteuid lttng_ust_after_setegid
    lttng_ust_after_setreuid lttng_ust_after_setregid lttng_ust_after_setresuid lttng_ust_after_setresgid
    lttng_ust_context_procname_reset
    lttng_ust_lock_fd_tracker lttng_ust_unlock_fd_tracker
    lttng_ust_common_alloc_tls init_usterr lttng_ust_tp_init lttng_ust_tp_exit
}

/// Descriptors of helpers are the program's.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_add_fd_to_tracker(fd: c_int) -> c_int {
    fd
}

/// Descriptors of helpers are the program's.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_delete_fd_from_tracker(_: c_int) {}

/// Closes a descriptor that is not ours.
///
/// # Safety
/// `close` closes a descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_safe_close_fd(
    fd: c_int,
    close: unsafe extern "C" fn(c_int) -> c_int,
) -> c_int {
    if listener::is_own_fd(fd) {
        set_errno(libc::EBADF);
        return -1;
    }
    // SAFETY: the caller's promise.
    unsafe { close(fd) }
}

/// Closes a stream whose descriptor is not ours.
///
/// # Safety
/// `stream` is open, `close` closes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_safe_fclose_stream(
    stream: *mut libc::FILE,
    close: unsafe extern "C" fn(*mut libc::FILE) -> c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if listener::is_own_fd(libc::fileno(stream)) {
            set_errno(libc::EBADF);
            return -1;
        }
        close(stream)
    }
}

/// Closes the descriptors from `low` on, without ours.
///
/// # Safety
/// `close` closes a descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_safe_closefrom_fd(
    low: c_int,
    close: unsafe extern "C" fn(c_int) -> c_int,
) -> c_int {
    if low < 0 {
        set_errno(libc::EBADF);
        return -1;
    }
    // SAFETY: reads a limit; the caller's promise.
    unsafe {
        let end = c_int::try_from(libc::sysconf(libc::_SC_OPEN_MAX)).unwrap_or(c_int::MAX);
        for fd in (low..end).filter(|fd| !listener::is_own_fd(*fd)) {
            close(fd);
        }
    }
    0
}

/// Closes the descriptors from `first` to `last`, without ours.
///
/// # Safety
/// `close` is libc's `close_range`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_safe_close_range_fd(
    first: u32,
    last: u32,
    flags: c_int,
    close: unsafe extern "C" fn(u32, u32, c_int) -> c_int,
) -> c_int {
    let mut start = first;
    let mut at = first;
    // Ours lie below this number; what is above goes in one piece.
    while at <= last && at < 65_536 {
        if listener::is_own_fd(at as c_int) {
            // SAFETY: the caller's promise.
            if at > start && unsafe { close(start, at - 1, flags) } < 0 {
                return -1;
            }
            start = at + 1;
        }
        at += 1;
    }
    // SAFETY: the caller's promise.
    if start <= last { unsafe { close(start, last, flags) } } else { 0 }
}
