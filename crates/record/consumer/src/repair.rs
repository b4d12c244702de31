//! A trace whose daemon was killed with nobody to take over: cut back to what is whole.
//!
//! A packet that was being written when the daemon died has no index entry; Babeltrace refuses a whole
//! trace for it. Everything behind the last indexed packet is cut off, and text behind the last whole
//! block of the metadata; what stands before is not touched. A trace that is whole stays as it is, byte
//! for byte, so a second repair does nothing. No event is decoded.

use crate::disk::Disk;
use sillage_ctf::index::{self, ENTRY_SIZE_BYTES, Entry, HEADER_SIZE_BYTES};
use std::io;
use std::path::{Path, PathBuf};

/// A block of metadata ends with this; strings in it have no raw line ends.
const BLOCK_END: &[u8] = b"\n};\n";

/// What was cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Streams that are there.
    pub streams: u64,
    /// Bytes cut off their data files.
    pub data_bytes: u64,
    /// Bytes cut off their indexes.
    pub index_bytes: u64,
    /// Bytes cut off the metadata.
    pub metadata_bytes: u64,
}

impl Repaired {
    fn add(&mut self, other: Repaired) {
        self.streams += other.streams;
        self.data_bytes += other.data_bytes;
        self.index_bytes += other.index_bytes;
        self.metadata_bytes += other.metadata_bytes;
    }
}

/// The traces of a session's directory, one for each user.
///
/// # Errors
/// The disk's.
pub fn traces<D: Disk>(disk: &D, session_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let users = session_dir.join("ust").join("uid");
    let names = match disk.list(&users) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    Ok(names.iter().map(|uid| users.join(uid).join("64-bit")).collect())
}

/// Repairs all traces of a session's directory, which nobody may be writing.
///
/// # Errors
/// The disk's. What was repaired before stays repaired.
pub fn repair<D: Disk>(disk: &D, session_dir: &Path) -> io::Result<Repaired> {
    let mut all = Repaired::default();
    for dir in traces(disk, session_dir)? {
        all.add(repair_trace(disk, &dir)?);
    }
    Ok(all)
}

fn repair_trace<D: Disk>(disk: &D, dir: &Path) -> io::Result<Repaired> {
    let mut all =
        Repaired { metadata_bytes: repair_metadata(disk, &dir.join("metadata"))?, ..Default::default() };
    let index_dir = dir.join("index");
    let names = match disk.list(&index_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names?,
    };
    for name in &names {
        if let Some(stem) = name.strip_suffix(".idx") {
            all.add(repair_stream(disk, &dir.join(stem), &index_dir.join(name))?);
        }
    }
    Ok(all)
}

fn repair_stream<D: Disk>(disk: &D, data_path: &Path, index_path: &Path) -> io::Result<Repaired> {
    let bytes = disk.read(index_path)?;
    let data_bytes = disk.size(data_path)?;
    let end = |entry: &Entry| entry.offset_bytes.saturating_add(entry.packet_size_bits / 8);
    let entries: Vec<Entry> = match index::decode(&bytes) {
        // The machine may have gone down with the data less far than its index.
        Ok((_, entries)) => entries.take_while(|entry| end(entry) <= data_bytes).collect(),
        // Killed while the stream was made.
        Err(_) if bytes.len() < HEADER_SIZE_BYTES => Vec::new(),
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    let Some(last) = entries.last() else {
        // Never given a packet. An empty stream is refused by readers.
        disk.remove(data_path)?;
        disk.remove(index_path)?;
        let index_bytes = bytes.len() as u64;
        return Ok(Repaired { data_bytes, index_bytes, ..Default::default() });
    };
    let index_end = HEADER_SIZE_BYTES + entries.len() * ENTRY_SIZE_BYTES;
    let cut = Repaired {
        streams: 1,
        data_bytes: data_bytes - end(last),
        index_bytes: bytes.len().saturating_sub(index_end) as u64,
        metadata_bytes: 0,
    };
    if cut.data_bytes > 0 {
        disk.truncate(&disk.open(data_path)?, end(last))?;
    }
    if cut.index_bytes > 0 {
        disk.truncate(&disk.open(index_path)?, index_end as u64)?;
    }
    Ok(cut)
}

/// Bytes of metadata up to the end of the last whole block.
pub(crate) fn whole_blocks(metadata: &[u8]) -> usize {
    let last = metadata.windows(BLOCK_END.len()).rposition(|window| window == BLOCK_END);
    last.map_or(0, |at| at + BLOCK_END.len())
}

fn repair_metadata<D: Disk>(disk: &D, path: &Path) -> io::Result<u64> {
    let bytes = match disk.read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        bytes => bytes?,
    };
    let end = whole_blocks(&bytes);
    let rest = bytes.get(end..).unwrap_or_default();
    if rest.iter().all(|byte| *byte == b'\n') {
        return Ok(0);
    }
    disk.truncate(&disk.open(path)?, end as u64)?;
    Ok(rest.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fake::Fake;
    use crate::disk::write_own;
    use sillage_ctf::index::Header;

    const DIR: &str = "/s/ust/uid/0/64-bit";

    fn file(disk: &Fake, name: &str, bytes: &[u8]) {
        disk.room.set(1 << 20);
        let file = disk.create(Path::new(&format!("{DIR}/{name}"))).unwrap();
        write_own(disk, &file, bytes, 0).unwrap();
    }

    fn index(packets: u64) -> Vec<u8> {
        let mut bytes = Header::V1_1.encode().to_vec();
        for n in 0..packets {
            let entry = Entry {
                offset_bytes: n * 4096,
                packet_size_bits: 4096 * 8,
                content_size_bits: 100 * 8,
                timestamp_begin: 0,
                timestamp_end: 0,
                events_discarded: 0,
                stream_id: 0,
                stream_instance_id: 0,
                packet_seq_num: n,
            };
            bytes.extend_from_slice(&entry.encode());
        }
        bytes
    }

    #[test]
    fn everything_behind_the_last_indexed_packet_and_the_last_whole_block_goes() {
        let disk = Fake::default();
        file(&disk, "metadata", b"trace {\n\ta;\n};\n\nevent {\n\tname = \"x};");
        file(&disk, "c_0", &[1; 3 * 4096 + 17]);
        file(&disk, "index/c_0.idx", &[index(3), vec![0; 30]].concat());
        // Packets that the index has and the data has not.
        file(&disk, "c_1", &[1; 4096 + 5]);
        file(&disk, "index/c_1.idx", &index(2));
        // Made, and nothing more.
        file(&disk, "c_2", &[]);
        file(&disk, "index/c_2.idx", &index(0)[..7]);
        let repaired = repair(&disk, Path::new("/s")).unwrap();
        assert_eq!(
            repaired,
            Repaired { streams: 2, data_bytes: 17 + 5, index_bytes: 30 + 72 + 7, metadata_bytes: 21 }
        );
        assert_eq!(disk.bytes(&format!("{DIR}/metadata")), b"trace {\n\ta;\n};\n");
        assert_eq!(disk.bytes(&format!("{DIR}/c_0")).len(), 3 * 4096);
        assert_eq!(disk.bytes(&format!("{DIR}/index/c_1.idx")), index(1));
        assert!(!disk.listing().contains("c_2"));
        // What is whole stays as it is.
        let before = disk.listing();
        assert_eq!(repair(&disk, Path::new("/s")).unwrap(), Repaired { streams: 2, ..Default::default() });
        assert_eq!(disk.listing(), before);
        assert_eq!(repair(&disk, Path::new("/nothing")).unwrap(), Repaired::default());
    }
}
