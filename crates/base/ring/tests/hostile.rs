//! A process of the user may write anything into the producers' file. The consumer reads on: it
//! takes no byte from outside the ring, it ends every call, and a lie is a violation at worst.

mod support;

use sillage_ring::layout::{CONTROL_BYTES, DESCRIPTOR_BYTES, LINE_BYTES, PAGE_BYTES};
use sillage_ring::{Cursor, Cut, Geometry, HeaderForm, Kind, Violation};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::*;

/// A word that a liar might write: near the truth, far from it, or anything.
fn lie(random: &mut Random, truth: u64) -> u64 {
    match random.next() % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << (random.next() % 64),
        3 => truth.wrapping_add(random.next() % 8192),
        4 => truth.wrapping_sub(random.next() % 8192),
        5 => truth ^ (1 << (random.next() % 64)),
        6 => truth.wrapping_add(1 << (random.next() % 40)),
        _ => random.next(),
    }
}

/// Writes lies over random control words of the set until told to stop, with real records between.
fn scribble(rings: &Rings, stop: &AtomicBool, seed: u64) {
    let (mut random, mut stage, mut bytes) = (Random(seed), Stage::new(512), Vec::new());
    let g = *rings.set.geometry();
    let producer = rings.producer();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..random.next() % 200 {
            number += 1;
            payload(3, number, (random.next() % 300) as usize, &mut bytes);
            // A ring of lies may make honest producers fail, never crash.
            stage.emit(&producer, 1, &bytes);
        }
        // A word of the producer line, of a descriptor, or of the records.
        let ring = PAGE_BYTES + u64::from(cpu()) * g.ring_bytes();
        let place = random.next() % u64::from(g.subbuf_count);
        let offset = ring
            + match random.next() % 4 {
                0 => 8 * (random.next() % (LINE_BYTES / 8)),
                1 | 2 => {
                    CONTROL_BYTES + place * g.subbuf_bytes() + 8 * (random.next() % (DESCRIPTOR_BYTES / 8))
                }
                _ => CONTROL_BYTES + 8 * (random.next() % (g.subbuf_bytes() / 8)),
            };
        // SAFETY: the offset lies in a ring of the mapped set.
        let target = unsafe { &*rings.set_memory.base.as_ptr().add(offset as usize).cast::<AtomicU64>() };
        target.store(lie(&mut random, target.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

fn run(g: Geometry, seed: u64) -> (u64, u64) {
    let (mut packets, mut violations) = (0, 0);
    for round in 0..60 {
        let rings = Rings::new(g);
        let _ticker = Ticker::start(rings.clock());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(&rings, &stop, seed + 2 * round));
            let mut cursors: Vec<Option<Cursor>> =
                vec![Some(Cursor::resume(&rings.set, 0, None)); g.cpus as usize];
            for (cpu, cursor) in cursors.iter_mut().enumerate() {
                *cursor = Some(Cursor::resume(&rings.set, cpu as u32, None));
            }
            let mut scratch = Vec::new();
            let set_range = rings.set_memory.base.as_ptr() as usize..;
            let until = monotonic_ns() + 20_000_000;
            while monotonic_ns() < until {
                for (cpu, slot) in cursors.iter_mut().enumerate() {
                    let Some(cursor) = slot else { continue };
                    match cursor.next(&rings.set, Cut::Open, monotonic_ns(), &mut scratch) {
                        Ok(None) => {}
                        Ok(Some(p)) => {
                            packets += 1;
                            let at = p.body as usize;
                            let end = at + p.body_bytes;
                            let in_ring = set_range.contains(&at)
                                && end <= rings.set_memory.base.as_ptr() as usize + g.set_bytes() as usize;
                            let in_scratch = at >= scratch.as_ptr() as usize
                                && end <= scratch.as_ptr() as usize + scratch.len();
                            assert!(in_ring || in_scratch, "{p:?}");
                            assert!(p.begin_ts <= p.end_ts && p.body_bytes as u64 <= g.subbuf_bytes());
                            cursor.done(&rings.set, &p);
                        }
                        Err(violation) => {
                            violations += 1;
                            let _: Violation = violation;
                            rings.set.close(cpu as u32);
                            *slot = None; // retired
                        }
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
    (packets, violations)
}

#[test]
fn lies_in_every_shared_word_are_survived() {
    let seed = monotonic_ns() | 1;
    for overwrite in [false, true] {
        let g = Geometry { overwrite, header: HeaderForm::Large, ..geometry(Kind::Rseq, 12, 4) };
        let (packets, violations) = run(g, seed);
        println!("{packets} packets, {violations} rings retired (seed {seed})");
        assert!(packets > 0 && violations > 10, "{packets} packets, {violations} violations (seed {seed})");
    }
}
