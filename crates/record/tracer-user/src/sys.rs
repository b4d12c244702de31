//! System calls without libc's wrappers, for code that runs on traced threads: they touch neither
//! `errno` nor cancellation, and no library in between can trace them.
//!
//! Results are the kernel's: negative numbers are errors.

use core::arch::asm;
use libc::{c_int, c_void};

/// One system call.
///
/// # Safety
/// As the call `number` demands of its arguments.
#[inline]
pub unsafe fn syscall(number: i64, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention; the caller answers for the arguments.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

fn is_error(result: isize) -> bool {
    (-4095..0).contains(&result)
}

/// Private memory of `bytes` zeroes that a core dump leaves out. With `wipe` a forked child finds it
/// zeroed again. `mlockall(MCL_FUTURE)` does not make it resident. None: no memory.
pub fn map_private(bytes: usize, wipe: Wipe) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping where the kernel finds room.
    let at = unsafe { map_untouched(bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1)? };
    let advise = |advice: c_int| {
        // SAFETY: the mapping was made just above.
        unsafe { syscall(libc::SYS_madvise, [at as usize, bytes, advice as usize, 0, 0, 0]) }
    };
    advise(libc::MADV_DONTDUMP);
    if wipe == Wipe::OnFork && is_error(advise(libc::MADV_WIPEONFORK)) {
        unmap(at, bytes);
        return None;
    }
    Some(at)
}

/// Whether a forked child finds memory as it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wipe {
    /// Zeroed in the child.
    OnFork,
    /// Copied.
    Never,
}

/// Maps without a page being touched, even when the process locks all its future memory: what has no
/// permissions cannot be populated, and is unlocked before it gets them.
///
/// # Safety
/// As `mmap` at an address of the kernel's choice.
pub unsafe fn map_untouched(bytes: usize, protection: c_int, flags: c_int, fd: c_int) -> Option<*mut u8> {
    // SAFETY: a mapping without permissions, at no fixed address.
    let at = unsafe {
        syscall(libc::SYS_mmap, [0, bytes, libc::PROT_NONE as usize, flags as usize, fd as usize, 0])
    };
    if is_error(at) {
        return None;
    }
    let at = at as *mut u8;
    // SAFETY: the mapping just made.
    let failed = unsafe {
        syscall(libc::SYS_munlock, [at as usize, bytes, 0, 0, 0, 0]);
        is_error(syscall(libc::SYS_mprotect, [at as usize, bytes, protection as usize, 0, 0, 0]))
    };
    if failed {
        unmap(at, bytes);
        return None;
    }
    Some(at)
}

/// Unmaps what one of the functions above mapped; nobody uses it any more.
pub fn unmap(at: *mut u8, bytes: usize) {
    // SAFETY: callers own the mapping (every call is in a `Drop` or behind the call that mapped it).
    unsafe { syscall(libc::SYS_munmap, [at as usize, bytes, 0, 0, 0, 0]) };
}

/// Sleeps while `*word == value`, at most `timeout_ns`. The word may be mapped read-only and shared.
pub fn futex_wait(word: *const u32, value: u32, timeout_ns: u64) {
    let limit = libc::timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as i64,
        tv_nsec: (timeout_ns % 1_000_000_000) as i64,
    };
    let op = libc::FUTEX_WAIT as usize;
    let limit = (&raw const limit) as usize;
    // SAFETY: the kernel checks the word's address and reads the limit.
    unsafe { syscall(libc::SYS_futex, [word as usize, op, value as usize, limit, 0, 0]) };
}

/// Wakes everyone who sleeps on the word.
pub fn futex_wake(word: *const u32) {
    let op = libc::FUTEX_WAKE as usize;
    // SAFETY: the kernel checks the address.
    unsafe { syscall(libc::SYS_futex, [word as usize, op, i32::MAX as usize, 0, 0, 0]) };
}

/// This thread's number in the kernel.
pub fn thread_id() -> u32 {
    // SAFETY: no arguments.
    unsafe { syscall(libc::SYS_gettid, [0; 6]) as u32 }
}

/// This process's number.
pub fn process_id() -> u32 {
    // SAFETY: no arguments.
    unsafe { syscall(libc::SYS_getpid, [0; 6]) as u32 }
}

/// True while the thread of this process exists.
pub fn thread_exists(thread_id: u32) -> bool {
    // SAFETY: signal 0 sends nothing.
    unsafe { syscall(libc::SYS_tgkill, [process_id() as usize, thread_id as usize, 0, 0, 0, 0]) == 0 }
}

/// True while this thread runs on an alternate signal stack.
pub fn on_alternate_stack() -> bool {
    // SAFETY: a stack_t of zeroes is valid; the kernel fills it.
    unsafe {
        let mut stack: libc::stack_t = core::mem::zeroed();
        let at = (&raw mut stack) as usize;
        syscall(libc::SYS_sigaltstack, [0, at, 0, 0, 0, 0]) == 0 && stack.ss_flags & libc::SS_ONSTACK != 0
    }
}

/// Sleeps.
pub fn sleep_ns(ns: u64) {
    let time = libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
    // SAFETY: the kernel reads `time`.
    unsafe { syscall(libc::SYS_nanosleep, [(&raw const time) as usize, 0, 0, 0, 0, 0]) };
}

/// One `membarrier` command; true if the kernel did it.
pub fn membarrier(command: c_int) -> bool {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_membarrier, [command as usize, 0, 0, 0, 0, 0]) == 0 }
}

/// Closes a descriptor that is known to be ours.
pub fn close(fd: c_int) {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]) };
}

/// Device and inode of a descriptor, by which a reused number is told from ours.
pub fn identity(fd: c_int) -> Option<(u64, u64)> {
    stat(fd).map(|s| (s.st_dev, s.st_ino))
}

/// Bytes of the file behind a descriptor.
pub fn file_bytes(fd: c_int) -> Option<u64> {
    stat(fd).map(|s| s.st_size as u64)
}

fn stat(fd: c_int) -> Option<libc::stat> {
    // SAFETY: a stat of zeroes is valid; the kernel fills it.
    unsafe {
        let mut stat: libc::stat = core::mem::zeroed();
        let done = syscall(libc::SYS_fstat, [fd as usize, (&raw mut stat) as usize, 0, 0, 0, 0]);
        (done == 0).then_some(stat)
    }
}

/// Reads at most `into.len()` bytes; negative on error.
pub fn read(fd: c_int, into: &mut [u8]) -> isize {
    // SAFETY: the buffer is ours and as long as it says.
    unsafe { syscall(libc::SYS_read, [fd as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0]) }
}

/// Writes; negative on error.
pub fn write(fd: c_int, bytes: &[u8]) -> isize {
    // SAFETY: the buffer is as long as it says.
    unsafe { syscall(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) }
}

/// Opens a file of our own choosing for reading. Negative on error.
pub fn open(path: &core::ffi::CStr) -> c_int {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let at = libc::AT_FDCWD as isize as usize;
    // SAFETY: `path` ends with its NUL.
    unsafe { syscall(libc::SYS_openat, [at, path.as_ptr() as usize, flags as usize, 0, 0, 0]) as c_int }
}

/// True if the path leads to something.
pub fn exists(path: &core::ffi::CStr) -> bool {
    let at = libc::AT_FDCWD as isize as usize;
    // SAFETY: `path` ends with its NUL.
    unsafe { syscall(libc::SYS_faccessat, [at, path.as_ptr() as usize, libc::F_OK as usize, 0, 0, 0]) == 0 }
}

/// `prctl` with one pointer argument; true on success.
pub fn prctl_get(option: c_int, into: *mut c_void) -> bool {
    // SAFETY: callers pass a place of the size that the option fills.
    unsafe { syscall(libc::SYS_prctl, [option as usize, into as usize, 0, 0, 0, 0]) == 0 }
}
