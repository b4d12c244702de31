//! How far the clock page is from CLOCK_MONOTONIC: `clock_error [SECONDS]` publishes as the daemon
//! does, every 100 ms, reads the page in between, and prints the error's median, 99th percentile and
//! maximum in nanoseconds. The reference is a pair of readings with the kernel's between two of ours.

#[path = "../tests/support/mod.rs"]
mod support;

use sillage_ring::{Kind, Slot};
use support::*;

fn main() {
    let seconds: u64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(10);
    pin(0);
    let rings = Rings::new(geometry(Kind::Rseq, 12, 4));
    let page = rings.clock();
    let _first = Ticker::start(page);
    let end = monotonic_ns() + seconds * 1_000_000_000;
    let (mut before, mut errors) = (clock_pair(), Vec::new());
    while monotonic_ns() < end {
        let next = monotonic_ns() + 100_000_000;
        while monotonic_ns() < next {
            // SAFETY: x86-64 has the instruction.
            let tsc = || unsafe { core::arch::x86_64::_rdtsc() };
            let low = page.read(tsc);
            let kernel = monotonic_ns();
            let high = page.read(tsc);
            // A reading that was interrupted says nothing.
            if let (Some(low), Some(high)) = (low, high)
                && high - low < 200
            {
                errors.push(kernel.abs_diff((low + high) / 2));
            }
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        let now = clock_pair();
        if let Some(slot) = Slot::from_pairs(before, now) {
            page.publish(slot);
        }
        before = now;
    }
    errors.sort_unstable();
    let at = |share: usize| errors[(errors.len() - 1) * share / 100];
    println!("{}\t{}\t{}\t{}", errors.len(), at(50), at(99), at(100));
}
