//! The LTTng index of a stream file, when it can be trusted.
//!
//! An index is only ever used to find packets sooner (seek, ranges); what a packet says of itself
//! comes from the packet. It is dropped as Babeltrace drops it: bad header, wrong sizes, offsets or
//! times that go back, a sum of sizes that is not the file's.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sillage_ctf::index::{Entry, HEADER_SIZE_BYTES, Header};

use super::bytes::map;

/// A valid index of a file of known size.
#[derive(Debug)]
pub(crate) struct FileIndex {
    bytes: Mmap,
    entry_size_bytes: usize,
    count: usize,
}

/// Where the index of a stream file would be.
pub(crate) fn path_of(stream: &Path) -> Option<PathBuf> {
    let mut name = stream.file_name()?.to_owned();
    name.push(".idx");
    Some(stream.parent()?.join("index").join(name))
}

impl FileIndex {
    /// The index of `stream`, if there is one that agrees with a file of `size_bytes`.
    pub(crate) fn open(stream: &Path, size_bytes: u64) -> Option<Self> {
        let file = File::open(path_of(stream)?).ok()?;
        let bytes = map(&file)?;
        let header = Header::decode(&bytes).ok()?;
        let entry_size_bytes = header.entry_size_bytes as usize;
        let entries = bytes.len() - HEADER_SIZE_BYTES;
        if !entries.is_multiple_of(entry_size_bytes) {
            return None;
        }
        let index = Self { count: entries / entry_size_bytes, bytes, entry_size_bytes };
        index.agrees(size_bytes).then_some(index)
    }

    fn agrees(&self, size_bytes: u64) -> bool {
        let mut at = 0;
        let mut begin = 0;
        for position in 0..self.count {
            let Some(entry) = self.get(position) else {
                return false;
            };
            let good = entry.offset_bytes == at
                && entry.packet_size_bits != 0
                && entry.packet_size_bits % 8 == 0
                && entry.content_size_bits <= entry.packet_size_bits
                && entry.timestamp_end >= entry.timestamp_begin
                && entry.timestamp_begin >= begin;
            if !good {
                return false;
            }
            begin = entry.timestamp_begin;
            let Some(next) = at.checked_add(entry.packet_size_bits / 8) else {
                return false;
            };
            at = next;
        }
        at == size_bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, position: usize) -> Option<Entry> {
        let from = HEADER_SIZE_BYTES + position.checked_mul(self.entry_size_bytes)?;
        Entry::decode(self.bytes.get(from..from + self.entry_size_bytes)?).ok()
    }

    /// Position of the last packet that begins before `cycles`; the first one if none does.
    pub(crate) fn packet_at(&self, cycles: u64) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = (low + high) / 2;
            match self.get(middle) {
                Some(entry) if entry.timestamp_begin < cycles => low = middle + 1,
                _ => high = middle,
            }
        }
        low.saturating_sub(1)
    }
}
