//! Every target on its seeds and on random changes of them.
//!
//! Without coverage and without the sanitizer: to see in seconds that the targets still run.

use std::time::{Duration, Instant};

use super::{TARGETS, seeds};

/// xorshift: any changes do, as long as they can be made again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// A few changes: bits, bytes, numbers at the edges, pieces cut, doubled or taken from another seed.
fn change(data: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        let len = 1 + random.below(16).min(data.len().saturating_sub(at + 1));
        match random.below(7) {
            0 if !data.is_empty() => data[at] ^= 1 << random.below(8),
            1 if !data.is_empty() => data[at] = random.next() as u8,
            2 if data.len() >= at + 8 => {
                let edge = [0, 1, u64::MAX, 1 << 63, 1 << 32, 255][random.below(6)];
                data[at..at + 8].copy_from_slice(&edge.to_le_bytes());
            }
            3 if !data.is_empty() => {
                data.drain(at..(at + len).min(data.len()));
            }
            4 if !data.is_empty() => {
                let piece = data[at..(at + len).min(data.len())].to_vec();
                data.splice(at..at, piece);
            }
            5 if !other.is_empty() => {
                let from = random.below(other.len());
                let piece = &other[from..(from + len).min(other.len())];
                data.splice(at..at, piece.iter().copied());
            }
            _ => data.truncate(at.max(1)),
        }
    }
}

/// Runs every target for so many seconds unless `SILLAGE_FUZZ_SECONDS` says how many. The changes are
/// the same in every run.
///
/// # Panics
/// When a target does.
pub fn every_target(seconds: u64) {
    let asked = std::env::var("SILLAGE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = asked.unwrap_or(seconds);
    if seeds::shared().is_none() {
        eprintln!("SKIPPED: the shared traces are missing; only built-in seeds are used");
    }
    for (name, target) in TARGETS {
        let all = seeds::of(name);
        for seed in &all {
            target(seed);
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut runs = 0u64;
        while Instant::now() < end {
            let mut data = all.get(random.below(all.len())).cloned().unwrap_or_default();
            let other = all.get(random.below(all.len())).map_or(&[][..], Vec::as_slice);
            change(&mut data, other, &mut random);
            target(&data);
            runs += 1;
        }
        println!("{name}: {} seeds, {runs} changes", all.len());
    }
}
