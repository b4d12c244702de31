//! Nanoseconds for each event of `tracepoint!`, beside the floor: `bench_rust [BATCHES] [THREADS]`
//!
//! The program is its own daemon (a flight recorder of 4 MiB × 4 for each CPU). Batches of 20,000
//! events; min, median and p90 of the batches. Pinned, and SCHED_FIFO when `BENCH_FIFO` is set.
//! With `BENCH_QUIET` batches count while the core is ours alone, as in the C program `bench.c`; what
//! the known work takes at best is measured by this program itself, whose loop is another one.

#[path = "../tests/support/mod.rs"]
mod support;

use sillage_tracer_user::{event, tracepoint};
use std::hint::black_box;
use std::time::Instant;
use support::{Daemon, Options};

const BATCH: u32 = 20_000;
/// Batches that are run at most for each that is asked for.
const EXTRA: usize = 60;
/// Slower than its best by more than this: the core is shared at the moment.
const TOLERANCE: f64 = 1.12;

tracepoint! {
    ONE = rust:one(a: i32);
    FOUR = rust:four(a: i32, b: i32, c: i32, d: i32);
    TEXT = rust:text(a: i32, text: &str);
    OFF = off:never(a: i32);
}

fn measure(name: &str, batches: usize, threads: usize, batch: fn()) {
    let best: f64 = std::env::var("BENCH_QUIET").ok().and_then(|ns| ns.parse().ok()).unwrap_or(f64::MAX);
    let run = move |number: usize| {
        pin(number);
        batch();
        let (mut times, mut quiet) = (Vec::new(), 0);
        let mut before = known_work_ns();
        for left in (1..=batches * EXTRA).rev() {
            let start = Instant::now();
            batch();
            let ns = start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH);
            let after = known_work_ns();
            let good = before.max(after) <= best * TOLERANCE;
            before = after;
            // What is missing at the end is taken as it comes.
            if good || left <= batches - times.len() {
                times.push(ns);
                quiet += usize::from(good);
            }
            if times.len() == batches {
                break;
            }
        }
        (times, quiet)
    };
    let handles: Vec<_> = (0..threads).map(|n| std::thread::spawn(move || run(n))).collect();
    let (mut ns, mut quiet) = (Vec::new(), 0);
    for handle in handles {
        let (times, good) = handle.join().expect("a thread");
        ns.extend(times);
        quiet += good;
    }
    ns.sort_by(f64::total_cmp);
    let (median, p90) = (ns[ns.len() / 2], ns[ns.len() * 9 / 10]);
    let cpu = ns.iter().sum::<f64>() / ns.len() as f64;
    println!(
        "{name:<28} threads {threads} min {:.2} median {median:.2} p90 {p90:.2} cpu {cpu:.2} quiet {quiet} of {}",
        ns[0],
        ns.len()
    );
}

/// Nanoseconds of known work: as much at once as a core can do, about 20 µs.
fn known_work_ns() -> f64 {
    let start = Instant::now();
    for _ in 0..30_000 {
        // SAFETY: touches the registers that it names.
        unsafe {
            std::arch::asm!(
                "add rax, 1", "add rcx, 1", "add rdx, 1", "add rsi, 1", "add r8, 1", "add r9, 1",
                out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("r8") _, out("r9") _,
                options(nomem, nostack),
            );
        }
    }
    start.elapsed().as_secs_f64() * 1e9
}

/// The best of three seconds.
fn best_known_work_ns() -> f64 {
    let start = Instant::now();
    let mut best = f64::MAX;
    while start.elapsed().as_secs() < 3 {
        best = best.min(known_work_ns());
    }
    best
}

fn pin(number: usize) {
    // SAFETY: the set and the parameter are valid; failing is allowed.
    unsafe {
        let cpus = libc::sysconf(libc::_SC_NPROCESSORS_ONLN) as usize;
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(number % cpus, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        if std::env::var_os("BENCH_FIFO").is_some() {
            let priority = libc::sched_param { sched_priority: 1 };
            libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority);
        }
    }
}

fn read_tsc() {
    // SAFETY: x86-64 has a TSC.
    black_box(unsafe { std::arch::x86_64::_rdtsc() });
}

fn main() {
    let number = |n: usize, default| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    let Some(dir) = std::env::var_os("SILLAGE_RUNDIR") else {
        // The tracepoints registered before `main`: start again, with a daemon that waits.
        let options =
            Options { overwrite: true, subbuf_bytes: 4 << 20, names: &["rust:"], ..Options::default() };
        let best_ns = std::env::var_os("BENCH_QUIET").map(|_| best_known_work_ns().to_string());
        for ordered in [false, true] {
            println!("clock {}", if ordered { "ordered" } else { "plain" });
            let daemon = Daemon::new(Options { ordered, ..options });
            let mut again = std::process::Command::new(std::env::current_exe().expect("this program"));
            again.args(std::env::args().skip(1)).env("SILLAGE_RUNDIR", &daemon.keeper.dir);
            again.envs(best_ns.iter().map(|ns| ("BENCH_QUIET", ns)));
            assert!(again.status().expect("the program starts").success());
        }
        return;
    };
    assert!(ONE.is_enabled() && !OFF.is_enabled(), "the daemon of {dir:?} records rust:*");
    let (batches, threads) = (number(1, 400), number(2, 1));
    measure("floor: empty loop", batches, 1, || {
        (0..BATCH).for_each(|i| {
            black_box(i);
        })
    });
    measure("floor: rdtsc", batches, 1, || (0..BATCH).for_each(|_| read_tsc()));
    measure("disabled", batches, 1, || {
        (0..BATCH as i32).for_each(|i| {
            event!(OFF, black_box(i));
        })
    });
    measure("one int", batches, threads, || (0..BATCH as i32).for_each(|i| event!(ONE, i)));
    measure("four ints", batches, threads, || (0..BATCH as i32).for_each(|i| event!(FOUR, i, i, i, i)));
    measure("int and 15 letters", batches, threads, || {
        (0..BATCH as i32).for_each(|i| event!(TEXT, i, "fifteen letters"));
    });
}
