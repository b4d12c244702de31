//! The clock when the daemon's page cannot be used: CLOCK_MONOTONIC as the daemon sees it.
//!
//! In a time namespace the kernel shifts the clock of this process; the shift is read once and
//! subtracted, so that all programs and the kernel share one time line.
//!
//! Where PR_SET_TSC forbids `rdtsc`, the vDSO's clock would end the program as well: there the kernel is
//! called. (It is looked at while the program starts; a thread that forbids it later must not trace, nor
//! read any clock.)

use crate::sys;
use core::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use sillage_ring::ClockPage;

/// What this process's CLOCK_MONOTONIC is ahead of the machine's, in ns.
static OFFSET_NS: AtomicI64 = AtomicI64::new(0);

/// This process may not execute `rdtsc`.
static TSC_FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// CLOCK_MONOTONIC of the machine, ns.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the vDSO or the kernel fills `time`; this clock always exists, so `errno` is not touched.
    unsafe {
        if TSC_FORBIDDEN.load(Ordering::Relaxed) {
            let at = (&raw mut time) as usize;
            sys::syscall(libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC as usize, at, 0, 0, 0, 0]);
        } else {
            libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time);
        }
    }
    let ns = time.tv_sec * 1_000_000_000 + time.tv_nsec;
    (ns - OFFSET_NS.load(Ordering::Relaxed)) as u64
}

/// Number of the CPU that runs this thread now.
pub fn cpu() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::sched_getcpu() as u32 }
}

/// Reads the time namespace's offset.
pub(crate) fn read_namespace_offset() {
    let fd = sys::open(c"/proc/self/timens_offsets");
    if fd < 0 {
        return;
    }
    let mut text = [0; 256];
    let count = sys::read(fd, &mut text);
    sys::close(fd);
    let text = text.get(..usize::try_from(count).unwrap_or(0)).unwrap_or(&[]);
    if let Some(offset) = core::str::from_utf8(text).ok().and_then(monotonic_offset_ns) {
        OFFSET_NS.store(offset, Ordering::Relaxed);
    }
}

/// The offset in the text of `timens_offsets`: lines of clock, seconds, nanoseconds.
fn monotonic_offset_ns(text: &str) -> Option<i64> {
    let line = text.lines().find(|l| l.starts_with("monotonic") || l.starts_with("1 "))?;
    let mut words = line.split_whitespace().skip(1);
    let seconds: i64 = words.next()?.parse().ok()?;
    let ns: i64 = words.next()?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(ns)
}

/// True if this process may execute `rdtsc`.
pub(crate) fn tsc_allowed() -> bool {
    let mut mode: libc::c_int = 0;
    let allowed = !sys::prctl_get(libc::PR_GET_TSC, (&raw mut mode).cast()) || mode != libc::PR_TSC_SIGSEGV;
    TSC_FORBIDDEN.store(!allowed, Ordering::Relaxed);
    allowed
}

/// A page that always says "ask the kernel", for daemons that give none.
#[repr(C, align(4096))]
struct Blank([u64; 512]);
static BLANK: Blank = Blank([0; 512]);

/// The blank page.
pub(crate) fn blank_page() -> *const ClockPage {
    (&raw const BLANK.0).cast()
}

const _: () = assert!(size_of::<ClockPage>() <= size_of::<Blank>());

#[cfg(test)]
mod tests {
    use super::monotonic_offset_ns;

    #[test]
    fn the_offset_is_the_monotonic_line() {
        let text = "monotonic           0         0\nboottime            0         0\n";
        assert_eq!(monotonic_offset_ns(text), Some(0));
        let text = "monotonic      -86400         5\nboottime       3         1\n";
        assert_eq!(monotonic_offset_ns(text), Some(-86_399_999_999_995));
        assert_eq!(monotonic_offset_ns("boottime 1 2"), None);
    }
}
