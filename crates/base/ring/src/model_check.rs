//! The loom model: all interleavings of a producer that may be interrupted before any store, and
//! the consumer that cuts, on rings of a few bytes. Run with `RUSTFLAGS="--cfg loom"`.
//!
//! An rseq section is `steps::attempt` by one of the threads of a CPU, of which the kernel lets one
//! at a time get to its last store and restarts the others. The model gives one loom thread all the
//! attempts of a CPU; another thread, the interrupter, decides before which store an attempt ends.
//! What follows is a new attempt with the same record or, as if the interrupted thread had been
//! killed, with the next one.

use crate::consumer::{Cursor, Cut, RingMemory};
use crate::geometry::{Geometry, HeaderForm, Kind};
use crate::layout::{ConsumerLine, Descriptor, ProducerLine};
use crate::producer::steps::{Attempt, Data, View, attempt};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use loom::thread;
use std::ops::RangeInclusive;
use std::time::Duration;
use std::vec::Vec;

/// log2 of the sub-buffer size.
const SHIFT: u32 = 7;
/// Sub-buffers of 128 bytes, 64 of them the descriptor's; records of a 6-byte header and this
/// payload: two fit, the third opens.
const PAYLOAD: [u8; 15] = [0; 15];
const RECORD_BYTES: u64 = 21;

/// A ring of loom's atomics. A record's bytes are one cell, at its position in the ring.
struct Ring {
    geometry: Geometry,
    line: ProducerLine,
    descriptors: Vec<Descriptor>,
    consumer: ConsumerLine,
    active: AtomicU8,
    cells: Vec<AtomicU64>,
}

fn atomics<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Ring {
    fn new(subbuf_count: u32, overwrite: bool) -> Ring {
        let geometry = Geometry {
            kind: Kind::Rseq,
            cpus: 1,
            subbuf_shift: SHIFT,
            subbuf_count,
            overwrite,
            ordered: false,
            header: HeaderForm::Large,
        };
        let [head, last_ts, opening, closed] = atomics();
        let [released, pos, sequence, previous_end, lost, intent_pos, intent_end, intent_lost] = atomics();
        let cells = (0..(subbuf_count as usize) << SHIFT).map(|_| AtomicU64::new(0)).collect();
        Ring {
            geometry,
            line: ProducerLine { head, last_ts, opening, closed, _reserved: [0; 4], lost: atomics() },
            descriptors: (0..subbuf_count)
                .map(|_| {
                    let [number, begin_ts, lost_at_open, end, cpu, committed] = atomics();
                    Descriptor { number, begin_ts, lost_at_open, end, cpu, committed, _reserved: [0; 2] }
                })
                .collect(),
            consumer: ConsumerLine {
                released,
                pos,
                sequence,
                previous_end,
                lost,
                intent_pos,
                intent_end,
                intent_lost,
            },
            active: AtomicU8::new(0),
            cells,
        }
    }

    /// The cell at a position.
    fn cell(&self, pos: u64) -> &AtomicU64 {
        &self.cells[(pos as usize) & (self.cells.len() - 1)]
    }

    fn view(&self) -> View<'_, Cells<'_>> {
        View {
            geometry: &self.geometry,
            line: &self.line,
            consumer: &self.consumer,
            active: &self.active,
            data: Cells(self),
        }
    }
}

struct Cells<'a>(&'a Ring);

impl Data for Cells<'_> {
    fn descriptor(&self, offset: usize) -> &Descriptor {
        &self.0.descriptors[offset >> SHIFT]
    }
    fn write(&self, offset: usize, _: HeaderForm, _: bool, id: u32, _: u64, _: &[u8]) {
        self.0.cell(offset as u64).store(id.into(), Ordering::Relaxed);
    }
}

impl RingMemory for Ring {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }
    fn line(&self) -> &ProducerLine {
        &self.line
    }
    fn descriptor(&self, subbuf: u64) -> &Descriptor {
        &self.descriptors[subbuf as usize & (self.descriptors.len() - 1)]
    }
    fn consumer_line(&self) -> &ConsumerLine {
        &self.consumer
    }
    fn byte(&self, pos: u64) -> *const u8 {
        std::ptr::without_provenance(pos as usize)
    }
    fn copy(&self, pos: u64, bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        for at in (pos..pos + bytes as u64).step_by(RECORD_BYTES as usize) {
            out.push(self.cell(at).load(Ordering::Relaxed) as u8);
        }
    }
}

/// What happened to the records, by number.
#[derive(Default)]
struct Outcome {
    published: Vec<u64>,
    lost: Vec<u64>,
}

/// Tries to publish these records. An interrupted record is tried again, or, if it is `killed`, given up.
fn produce(
    ring: &Ring,
    interrupts: &AtomicU32,
    records: RangeInclusive<u64>,
    killed: Option<u64>,
    outcome: &mut Outcome,
) {
    for number in records {
        loop {
            let interrupted = || interrupts.swap(0, Ordering::Relaxed) != 0;
            match attempt(&ring.view(), 10 * number, 0, number as u32, &PAYLOAD, interrupted) {
                Attempt::Published | Attempt::Opened => outcome.published.push(number),
                Attempt::Full => {
                    ring.line.lost[0].fetch_add(1, Ordering::Relaxed);
                    outcome.lost.push(number);
                }
                Attempt::Interrupted if killed == Some(number) => {}
                Attempt::Interrupted => continue,
                Attempt::Closed => unreachable!(),
            }
            break;
        }
    }
}

/// Takes what there is. Returns the record numbers and the last loss count.
fn consume(ring: &Ring, cursor: &mut Cursor, seen: &mut Vec<u64>, discarded: &mut u64) {
    let mut scratch = Vec::new();
    let mut previous_end = 0;
    while let Some(packet) = cursor.next_in(ring, Cut::Open, 1000, &mut scratch).unwrap() {
        assert!(packet.begin_ts <= packet.end_ts && packet.begin_ts >= previous_end);
        previous_end = packet.end_ts;
        if ring.geometry.overwrite {
            // `intact` vouches for the copy: consecutive numbers of one sub-buffer.
            assert!(scratch.windows(2).all(|w| w[1] == w[0] + 1), "torn copy {scratch:?}");
            seen.extend(scratch.iter().map(|n| u64::from(*n)));
        } else {
            let start = packet.body.addr() as u64;
            for at in (start..start + packet.body_bytes as u64).step_by(RECORD_BYTES as usize) {
                seen.push(ring.cell(at).load(Ordering::Relaxed));
            }
        }
        *discarded = packet.discarded;
        cursor.done_in(ring, &packet);
    }
}

/// The records up to `before` are there when the consumer starts; the others come while it reads.
fn explore(overwrite: bool, before: u64, records: u64, killed: Option<u64>) {
    let mut builder = loom::model::Builder::new();
    // Switches away from a thread that could go on: the races that we know of need one or two.
    builder.preemption_bound = Some(2);
    // Ten seconds' worth of the states each time, all of them in the full run.
    let whole = std::env::var_os("SILLAGE_FULL").is_some();
    builder.max_duration = (!whole).then(|| Duration::from_secs(10));
    builder.check(move || {
        let ring = Arc::new(Ring::new(2, overwrite));
        let interrupts = Arc::new(AtomicU32::new(0));
        let mut outcome = Outcome::default();
        produce(&ring, &interrupts, 1..=before, None, &mut outcome);
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut cursor = Cursor::resume_in(&*ring, 0, None);
                let (mut seen, mut discarded) = (Vec::new(), 0);
                consume(&ring, &mut cursor, &mut seen, &mut discarded);
                (cursor, seen, discarded)
            })
        };
        let interrupter = {
            let interrupts = interrupts.clone();
            // Fewer threads where the laps alone make states enough.
            (!overwrite).then(|| thread::spawn(move || interrupts.store(1, Ordering::Relaxed)))
        };
        produce(&ring, &interrupts, before + 1..=records, killed, &mut outcome);
        interrupter.into_iter().for_each(|i| i.join().unwrap());
        let (mut cursor, mut seen, mut discarded) = consumer.join().unwrap();
        consume(&ring, &mut cursor, &mut seen, &mut discarded);
        if overwrite {
            assert!(seen.is_sorted(), "{seen:?}");
            assert!(seen.iter().all(|n| outcome.published.contains(n)));
            assert_eq!(seen.last(), outcome.published.last());
        } else {
            assert_eq!(seen, outcome.published, "published once, read once, in order");
            assert_eq!(discarded, outcome.lost.len() as u64, "lost records are counted once");
        }
    });
}

#[test]
fn discard_mode_loses_nothing_that_was_published() {
    explore(false, 0, 3, None);
}

#[test]
fn discard_mode_counts_what_a_full_ring_refused() {
    explore(false, 2, 6, None);
}

#[test]
fn a_producer_killed_before_any_store_leaves_the_ring_whole() {
    explore(false, 1, 4, Some(3));
}

#[test]
fn overwrite_mode_never_gives_a_torn_copy() {
    explore(true, 3, 5, None);
}
