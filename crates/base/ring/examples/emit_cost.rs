//! What one record costs, beside the floor of the machine: `emit_cost` prints a line for each case,
//! nanoseconds for each call (minimum, median, 90th percentile of batches of 20,000), tab-separated.
//!
//! Pinned to one CPU and, where permitted, under SCHED_FIFO, so that other work does not count.

#[path = "../tests/support/mod.rs"]
mod support;

use sillage_ring::{Emit, Geometry, Kind, Producer, STAGE_HEAD_BYTES};
use std::hint::black_box;
use support::*;

const CALLS: u64 = 20_000;
const BATCHES: usize = 200;

/// Measures `call` and prints its line; `between` runs before each batch, outside the time.
fn case(name: &str, mut between: impl FnMut(), mut call: impl FnMut(u64)) {
    let mut batches: Vec<f64> = (0..BATCHES + 2)
        .map(|_| {
            between();
            let start = monotonic_ns();
            (0..CALLS).for_each(&mut call);
            (monotonic_ns() - start) as f64 / CALLS as f64
        })
        .skip(2)
        .collect();
    batches.sort_by(f64::total_cmp);
    println!("{name}\t{:.2}\t{:.2}\t{:.2}", batches[0], batches[BATCHES / 2], batches[BATCHES * 9 / 10]);
}

fn emit_case(name: &str, geometry: Geometry, payload_bytes: usize) {
    let rings = Rings::new(geometry);
    let producer: Producer = rings.producer();
    let mut ticker = Ticker::start(rings.clock());
    let mut stage = vec![0u64; 1024];
    let at = stage.as_mut_ptr().cast::<u8>().wrapping_add(STAGE_HEAD_BYTES);
    case(
        name,
        || ticker.tick(rings.clock()),
        |i| {
            // SAFETY: the stage has room for head, payload and tail, and is used here alone.
            let outcome = unsafe {
                at.cast::<u64>().write(i);
                emit(&producer, 2, at, payload_bytes)
            };
            debug_assert!(matches!(outcome, Emit::Published | Emit::Opened));
            black_box(outcome);
        },
    );
}

fn main() {
    pin(possible_cpus() - 1);
    let parameter = libc::sched_param { sched_priority: 10 };
    // SAFETY: plain system call; without the right to it the figures are noisier, not wrong.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameter) };
    // SAFETY: x86-64 has the instructions.
    let tsc = || unsafe { core::arch::x86_64::_rdtsc() };
    // SAFETY: as above.
    let fenced = || unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    };
    case(
        "floor: empty loop",
        || {},
        |i| {
            black_box(i);
        },
    );
    case(
        "floor: rdtsc",
        || {},
        |_| {
            black_box(tsc());
        },
    );
    case(
        "floor: lfence, rdtsc",
        || {},
        |_| {
            black_box(fenced());
        },
    );
    case(
        "floor: clock_gettime",
        || {},
        |_| {
            black_box(monotonic_ns());
        },
    );
    let flight = Geometry { overwrite: true, ..geometry(Kind::Rseq, 20, 8) };
    for bytes in [4, 16, 64, 1024] {
        emit_case(&format!("emit {bytes} bytes"), flight, bytes);
    }
    emit_case("emit 4 bytes, ordered", Geometry { ordered: true, ..flight }, 4);
    let locked = Geometry { overwrite: true, ..geometry(Kind::Locked, 20, 8) };
    emit_case("emit 4 bytes, locked", locked, 4);
}
