//! A feed: one ring set and the streams that its packets go to.
//!
//! What a feed counts is shared with the session, which shows it: packets and bytes written, packets
//! that the disk did not take and the records in them, sub-buffers overwritten, and troubles in words.
//! Losses inside the producers stand in the rings themselves. All but the troubles go on where an
//! earlier worker stopped, to the packet (see [`ledger`](crate::ledger)).

use crate::clock::monotonic_ns;
use crate::disk::Disk;
use crate::ledger::Entry;
use crate::shared::{RingMemory, futex_wake_all};
use crate::stream::{Place, REMOVED, Stream};
use crate::tally::Tally;
use sillage_ring::{Cursor, Cut, Packet};
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
    dropped_records: AtomicU64,
    uncounted_packets: AtomicU64,
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
    /// Records in them, but for those of `uncounted_packets`.
    pub dropped_records: u64,
    /// Packets that the disk did not take and whose records cannot be counted.
    pub uncounted_packets: u64,
    /// What went wrong, in words.
    pub troubles: Vec<String>,
}

impl Counters {
    /// None so far, with what went wrong in an earlier worker.
    pub fn with_troubles(troubles: Vec<String>) -> Counters {
        Counters { troubles: Mutex::new(troubles), ..Default::default() }
    }

    /// The values now.
    pub fn snapshot(&self) -> CountersSnapshot {
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        CountersSnapshot {
            packets: read(&self.packets),
            bytes: read(&self.bytes),
            overwritten: read(&self.overwritten),
            dropped_packets: read(&self.dropped_packets),
            dropped_bytes: read(&self.dropped_bytes),
            dropped_records: read(&self.dropped_records),
            uncounted_packets: read(&self.uncounted_packets),
            troubles: self.lock().clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.troubles.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// True if the text is new.
    fn trouble(&self, text: String) -> bool {
        let mut troubles = self.lock();
        let is_new = troubles.len() < TROUBLES_MAX && !troubles.contains(&text);
        if is_new {
            troubles.push(text);
        }
        is_new
    }

    /// Adds what a ring's totals grew by.
    fn grow(&self, from: Entry, to: Entry) {
        add(&self.packets, to.packets.saturating_sub(from.packets));
        add(&self.bytes, to.bytes.saturating_sub(from.bytes));
        add(&self.dropped_packets, to.dropped_packets.saturating_sub(from.dropped_packets));
        add(&self.dropped_bytes, to.dropped_bytes.saturating_sub(from.dropped_bytes));
        add(&self.dropped_records, to.dropped_records.saturating_sub(from.dropped_records));
        add(&self.uncounted_packets, to.uncounted_packets.saturating_sub(from.uncounted_packets));
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
    total: Entry,
    overwritten: u64,
    retired: bool,
}

impl<D: Disk> Ring<D> {
    /// Writes the ring's totals down, up to and with this packet.
    fn commit(&mut self, memory: &RingMemory, counters: &Counters, total: Entry, packet: &Packet) {
        let total = Entry { through: packet.sequence + 1, ..total };
        memory.ledger(self.cursor.cpu()).write(total);
        counters.grow(self.total, total);
        self.total = total;
    }
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
    tally: Tally,
    /// Files of an earlier daemon may be there.
    recover: bool,
    /// Something went wrong that was not told yet.
    news: bool,
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
        for cpu in memory.active() {
            counters.grow(Entry::default(), memory.ledger(cpu).read());
        }
        let rings = (0..memory.geometry().cpus).map(|_| None).collect();
        let (scratch, tally) = (Vec::new(), Tally::default());
        let news = false;
        Feed { memory, place, counters, disk, service, first_number, rings, scratch, tally, recover, news }
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

    /// True if something went wrong since the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Files that somebody removed while they were written: nobody will see what went there.
    pub fn check_files(&mut self) {
        for ring in self.rings.iter().flatten().filter(|ring| ring.stream.is_removed(&self.disk)) {
            self.news |= self.counters.trouble(format!("{}: {REMOVED}", ring.stream.name()));
        }
        let path = self.place.dir.join("metadata");
        let is_gone = |size: io::Result<u64>| size.is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        if self.rings.iter().flatten().any(|ring| ring.total.packets > 0) && is_gone(self.disk.size(&path)) {
            self.news |= self.counters.trouble(format!("{} was removed", path.display()));
        }
    }

    fn drain_ring(&mut self, index: usize, cut: Cut) -> usize {
        if self.rings[index].is_none() {
            self.rings[index] = Some(Box::new(self.open_ring(index as u32)));
        }
        let Feed { memory, counters, disk, rings, scratch, service, tally, place, news, .. } = self;
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
                    *news |= counters.trouble(format!("{} retired: {violation}", ring.stream.name()));
                    return turn;
                }
            };
            // SAFETY: the body lies in the ring, which `memory` keeps mapped, or in `scratch`.
            let written = unsafe { ring.stream.write(disk, &packet) };
            let wake = match written {
                Ok(()) => {
                    let total = ring.total.and_written(packet.body_bytes as u64);
                    ring.commit(memory, counters, total, &packet);
                    ring.cursor.done(memory, &packet)
                }
                Err(error) => {
                    *news |= counters.trouble(format!("{} not written: {error}", ring.stream.name()));
                    let header = ring.stream.header(&packet);
                    // SAFETY: as above.
                    let records = unsafe { tally.count(disk, place, &header, &packet) };
                    let total = ring.total.and_dropped(packet.body_bytes as u64, records);
                    ring.commit(memory, counters, total, &packet);
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
        let found = recovered.unwrap_or_else(|error| {
            self.news |= self.counters.trouble(format!("{} not recovered: {error}", stream.name()));
            Default::default()
        });
        let ledger = self.memory.ledger(cpu);
        let (before, mut total) = (ledger.read(), ledger.read());
        // Killed between writing a packet and counting it, or between counting and going on: both are
        // made up for, whichever way the packet went.
        if let Some(next) = found.last_sequence.map(|last| last + 1).filter(|next| *next > total.through) {
            total = Entry { through: next, ..total.and_written(found.last_bytes) };
            ledger.write(total);
            self.counters.grow(before, total);
        }
        let cursor = Cursor::resume(&self.memory, cpu, total.through.checked_sub(1));
        // What has a number and is neither written nor dropped.
        let overwritten = cursor.sequence().saturating_sub(total.packets + total.dropped_packets);
        add(&self.counters.overwritten, overwritten);
        Ring { cursor, stream, total, overwritten: 0, retired: false }
    }
}

#[cfg(test)]
pub(crate) mod tests;
