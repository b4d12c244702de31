//! What can happen to a traced Rust program; each mode is a scenario of a test: `rust_scenario MODE`.

use sillage_tracer_user::{event, tracepoint};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

tracepoint! {
    TICK = scenario:tick(n: i32);
    HANDLED = scenario:handled(n: i32);
    TEXT = scenario:text(text: &str, bytes: &[u8]), loglevel = EMERG;
    EVERYTHING = scenario:everything(
        a: u8, b: i16, c: u32, d: i64, e: bool, f: f32, g: f64, h: &str, i: &std::ffi::CStr, j: [u16; 2],
        k: &[i8; 3], l: &[u64],
    );
    NEVER = elsewhere:never(n: i32);
}

/// Counts what the program allocates.
struct Counting;
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

fn everything() {
    event!(EVERYTHING, 1, -2, 3, -4, true, 1.5, -2.5, "text", c"c text", [5, 6], &[7, 8, 9], &[10, 11]);
    event!(TEXT, "", b"bytes");
    event!(TEXT, "ü", &[]);
}

fn lazy() {
    let evaluated = Cell::new(0);
    let value = || {
        evaluated.set(evaluated.get() + 1);
        evaluated.get()
    };
    event!(NEVER, value());
    event!(TICK, value());
    println!("{}", evaluated.get());
}

fn quiet() {
    event!(TICK, -1);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for n in 0..1000 {
        event!(TICK, n);
        event!(TEXT, "text", &[1, 2, 3]);
    }
    println!("{}", ALLOCATIONS.load(Ordering::Relaxed) - before);
}

static COUNT: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(_: libc::c_int) {
    event!(HANDLED, COUNT.fetch_add(1, Ordering::Relaxed));
}

fn signals() {
    // SAFETY: a handler that only traces, and a timer.
    unsafe {
        libc::signal(libc::SIGALRM, handler as *const () as libc::sighandler_t);
        let every = libc::timeval { tv_sec: 0, tv_usec: 100 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut());
        (0..200_000).for_each(|n| event!(TICK, n));
        let never = libc::itimerval { it_interval: std::mem::zeroed(), it_value: std::mem::zeroed() };
        libc::setitimer(libc::ITIMER_REAL, &never, std::ptr::null_mut());
    }
    println!("{}", COUNT.load(Ordering::Relaxed));
}

fn fork() {
    event!(TICK, 0);
    // SAFETY: the child traces and exits.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            event!(TICK, 1);
            libc::_exit(0);
        }
        let mut status = 0;
        assert!(libc::waitpid(child, &mut status, 0) == child && status == 0);
    }
    event!(TICK, 2);
}

fn large() {
    let bytes = vec![7; 70_000];
    event!(TEXT, "large", &bytes);
    event!(TEXT, "small", &bytes[..2]);
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("everything") => everything(),
        Some("lazy") => lazy(),
        Some("quiet") => quiet(),
        Some("signals") => signals(),
        Some("fork") => fork(),
        Some("large") => large(),
        mode => panic!("unknown mode {mode:?}"),
    }
}
