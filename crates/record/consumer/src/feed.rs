//! A feed: one ring set and the streams that its packets go to.
//!
//! What a feed counts is shared with the session, which shows it: packets and bytes written, packets
//! that the disk did not take, sub-buffers overwritten, and troubles in words. Losses inside the
//! producers stand in the rings themselves.

use crate::clock::monotonic_ns;
use crate::disk::Disk;
use crate::shared::{RingMemory, futex_wake_all};
use crate::stream::{Place, Stream};
use sillage_ring::{Cursor, Cut};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Packets taken from one ring before the next one gets its turn.
const TURN_PACKETS: usize = 16;
/// Troubles that a feed remembers in words; more are only counted.
const TROUBLES_MAX: usize = 16;

/// What became of a feed's packets.
#[derive(Debug, Default)]
pub struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    overwritten: AtomicU64,
    dropped_packets: AtomicU64,
    dropped_bytes: AtomicU64,
    troubles: Mutex<Vec<String>>,
}

/// [`Counters`] at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// Packets written.
    pub packets: u64,
    /// Bytes of records written.
    pub bytes: u64,
    /// Sub-buffers overwritten before they were read.
    pub overwritten: u64,
    /// Packets that the disk did not take.
    pub dropped_packets: u64,
    /// Bytes of records in them.
    pub dropped_bytes: u64,
    /// What went wrong, in words.
    pub troubles: Vec<String>,
}

impl Counters {
    /// The values now.
    pub fn snapshot(&self) -> CountersSnapshot {
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        CountersSnapshot {
            packets: read(&self.packets),
            bytes: read(&self.bytes),
            overwritten: read(&self.overwritten),
            dropped_packets: read(&self.dropped_packets),
            dropped_bytes: read(&self.dropped_bytes),
            troubles: self.lock().clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.troubles.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn trouble(&self, text: String) {
        let mut troubles = self.lock();
        if troubles.len() < TROUBLES_MAX && !troubles.contains(&text) {
            troubles.push(text);
        }
    }
}

fn add(word: &AtomicU64, n: u64) {
    word.fetch_add(n, Ordering::Relaxed);
}

/// How a feed is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Period of cuts; zero: none.
    pub switch_timer: Duration,
    /// Period of looks at full sub-buffers; zero: the doorbell alone.
    pub read_timer: Duration,
    /// Producers may wait for room: wake them.
    pub wake: bool,
}

struct Ring<D: Disk> {
    cursor: Cursor,
    stream: Stream<D>,
    overwritten: u64,
    retired: bool,
}

/// One ring set and its streams.
pub struct Feed<D: Disk> {
    memory: Arc<RingMemory>,
    place: Arc<Place>,
    counters: Arc<Counters>,
    disk: D,
    service: Service,
    /// Number of the first ring's stream: 0, or the one of a ring that belongs to a single process.
    first_number: u32,
    /// By ring; None until it is active.
    rings: Vec<Option<Box<Ring<D>>>>,
    scratch: Vec<u8>,
    /// Files of an earlier daemon may be there.
    recover: bool,
}

/// What a look at the rings came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets taken out of rings (written or dropped).
    pub packets: usize,
    /// A ring had its turn and has more.
    pub more: bool,
}

impl<D: Disk> Feed<D> {
    /// A feed from `memory` to the streams of `place`. With `recover`, files of an earlier daemon are
    /// taken up.
    pub fn new(
        memory: Arc<RingMemory>,
        place: Arc<Place>,
        counters: Arc<Counters>,
        disk: D,
        service: Service,
        first_number: u32,
        recover: bool,
    ) -> Feed<D> {
        let rings = (0..memory.geometry().cpus).map(|_| None).collect();
        Feed { memory, place, counters, disk, service, first_number, rings, scratch: Vec::new(), recover }
    }

    /// Identity of its set.
    pub fn set_id(&self) -> u64 {
        self.memory.set_id()
    }

    /// How it is served.
    pub fn service(&self) -> Service {
        self.service
    }

    /// Writes what there is in all active rings, a turn for each.
    pub fn drain(&mut self, cut: Cut) -> Progress {
        let mut progress = Progress::default();
        for index in 0..self.rings.len() {
            if !self.memory.is_active(index as u32) {
                continue;
            }
            let packets = self.drain_ring(index, cut);
            progress.packets += packets;
            progress.more |= packets == TURN_PACKETS;
        }
        progress
    }

    /// Nobody records into the set from now on.
    pub fn close(&self) {
        for cpu in self.memory.active() {
            self.memory.close(cpu);
        }
    }

    fn drain_ring(&mut self, index: usize, cut: Cut) -> usize {
        if self.rings[index].is_none() {
            self.rings[index] = Some(Box::new(self.open_ring(index as u32)));
        }
        let Feed { memory, counters, disk, rings, scratch, service, .. } = self;
        let Some(ring) = rings[index].as_deref_mut().filter(|ring| !ring.retired) else { return 0 };
        for turn in 0..TURN_PACKETS {
            let next = ring.cursor.next(memory, cut, monotonic_ns(), scratch);
            add(&counters.overwritten, ring.cursor.overwritten() - ring.overwritten);
            ring.overwritten = ring.cursor.overwritten();
            let packet = match next {
                Ok(Some(packet)) => packet,
                Ok(None) => return turn,
                Err(violation) => {
                    ring.retired = true;
                    memory.close(index as u32);
                    counters.trouble(format!("{} retired: {violation}", ring.stream.name()));
                    return turn;
                }
            };
            // SAFETY: the body lies in the ring, which `memory` keeps mapped, or in `scratch`.
            let written = unsafe { ring.stream.write(disk, &packet) };
            let wake = match written {
                Ok(()) => {
                    add(&counters.packets, 1);
                    add(&counters.bytes, packet.body_bytes as u64);
                    ring.cursor.done(memory, &packet)
                }
                Err(error) => {
                    add(&counters.dropped_packets, 1);
                    add(&counters.dropped_bytes, packet.body_bytes as u64);
                    counters.trouble(format!("{} not written: {error}", ring.stream.name()));
                    ring.cursor.drop_packet(memory, &packet)
                }
            };
            if wake && service.wake {
                futex_wake_all(memory.wait_word(index as u32));
            }
        }
        TURN_PACKETS
    }

    fn open_ring(&mut self, cpu: u32) -> Ring<D> {
        let mut stream = Stream::new(Arc::clone(&self.place), self.first_number + cpu);
        let recovered = match self.recover {
            true => stream.recover(&self.disk),
            false => Ok(Default::default()),
        };
        let last_sequence = match recovered {
            Ok(found) => {
                add(&self.counters.packets, found.packets);
                add(&self.counters.bytes, found.bytes);
                found.last_sequence
            }
            Err(error) => {
                self.counters.trouble(format!("{} not recovered: {}", stream.name(), words(&error)));
                None
            }
        };
        let cursor = Cursor::resume(&self.memory, cpu, last_sequence);
        Ring { cursor, stream, overwritten: 0, retired: false }
    }
}

fn words(error: &io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
