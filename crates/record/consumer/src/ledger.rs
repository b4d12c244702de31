//! What became of a ring's packets, kept behind the consumer's words in the file that outlives a
//! worker: the next one goes on counting where this one stopped.
//!
//! Each ring has one [`Ledger`] of 128 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | commits: entry `commits % 2` counts |
//! | 8, 64 | 56 | two entries of seven words, in the order of [`Entry`]'s fields |
//!
//! A new entry is written beside the old one and becomes valid by a single store, so that a kill at
//! any instruction leaves one whole entry. [`Entry::through`] says up to which packet it counts: the
//! next worker neither counts a packet twice nor forgets one. Programs see the words read-only and
//! have no use for them. Sub-buffers that were overwritten are not written down: they are what is
//! missing between sequence numbers and packets.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words of an entry.
const WORDS: usize = 7;

/// The totals of one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Packets written.
    pub packets: u64,
    /// Bytes of records in them.
    pub bytes: u64,
    /// Packets that the disk did not take.
    pub dropped_packets: u64,
    /// Bytes of records in them.
    pub dropped_bytes: u64,
    /// Records in them, as far as they could be counted.
    pub dropped_records: u64,
    /// Those of them whose records could not be counted.
    pub uncounted_packets: u64,
    /// Sequence number behind the last packet that is counted.
    pub through: u64,
}

impl Entry {
    /// With one more packet that was written.
    pub fn and_written(self, bytes: u64) -> Entry {
        Entry { packets: self.packets + 1, bytes: self.bytes + bytes, ..self }
    }

    /// With one more packet that was dropped, with so many records if that is known.
    pub fn and_dropped(self, bytes: u64, records: Option<u64>) -> Entry {
        Entry {
            dropped_packets: self.dropped_packets + 1,
            dropped_bytes: self.dropped_bytes + bytes,
            dropped_records: self.dropped_records + records.unwrap_or(0),
            uncounted_packets: self.uncounted_packets + u64::from(records.is_none()),
            ..self
        }
    }

    fn words(self) -> [u64; WORDS] {
        [
            self.packets,
            self.bytes,
            self.dropped_packets,
            self.dropped_bytes,
            self.dropped_records,
            self.uncounted_packets,
            self.through,
        ]
    }

    fn of(words: [u64; WORDS]) -> Entry {
        let [packets, bytes, dropped_packets, dropped_bytes, dropped_records, uncounted_packets, through] =
            words;
        Entry { packets, bytes, dropped_packets, dropped_bytes, dropped_records, uncounted_packets, through }
    }
}

/// One ring's ledger in shared memory. Zeroes are an empty one.
#[repr(C, align(128))]
pub struct Ledger {
    commits: AtomicU64,
    entries: [[AtomicU64; WORDS]; 2],
}

const _: () = assert!(size_of::<Ledger>() == Ledger::BYTES as usize);

impl Ledger {
    /// Bytes of one.
    pub const BYTES: u64 = 128;

    /// The totals now.
    pub fn read(&self) -> Entry {
        let commits = self.commits.load(Ordering::Acquire); // pairs with the Release in `write`
        Entry::of(self.entries[(commits % 2) as usize].each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// Replaces them. There is one writer: the consumer of the ring.
    pub fn write(&self, entry: Entry) {
        let commits = self.commits.load(Ordering::Relaxed).wrapping_add(1);
        for (word, value) in self.entries[(commits % 2) as usize].iter().zip(entry.words()) {
            word.store(value, Ordering::Relaxed);
        }
        self.commits.store(commits, Ordering::Release); // pairs with the Acquire in `read`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_not_finished_does_not_count() {
        let zero = [const { AtomicU64::new(0) }; WORDS];
        let ledger =
            Ledger { commits: AtomicU64::new(0), entries: [zero, [const { AtomicU64::new(0) }; WORDS]] };
        let entry = |n| Entry::of([n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6]);
        assert_eq!(ledger.read(), Entry::default());
        for n in 1..5 {
            ledger.write(entry(n));
            assert_eq!(ledger.read(), entry(n));
            // The writer is killed in the middle of the next one.
            ledger.entries[((n + 1) % 2) as usize][3].store(99, Ordering::Relaxed);
            assert_eq!(ledger.read(), entry(n));
        }
    }
}
