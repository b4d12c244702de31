//! A trace whose daemon was killed with nobody to take over, or whose machine went down: cut back to
//! what is whole.
//!
//! A packet that was being written has no index entry, and may end in the middle; Babeltrace refuses a
//! whole trace for it. Text behind the last whole block of the metadata is cut off. A stream keeps all
//! packets whose headers the metadata understand and that lie in the file whole, also those that its
//! index does not know (their entries are made again), up to the first that is not; the rest is cut
//! off. A file of which nothing is understood is left alone, and said to be. A trace that is whole
//! stays as it is, byte for byte, so a second repair does nothing. No event is decoded.
//!
//! A trace that a daemon of ours has open is refused: both hold a lock on its metadata file.

use crate::disk::{Disk, write_own};
use sillage_ctf::index::{self, Entry, HEADER_SIZE_BYTES, Header, UNKNOWN};
use sillage_ctf::model::TraceClass;
use sillage_ctf::{MetadataOptions, MetadataReader, PacketInfo};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// A block of metadata ends with this; strings in it have no raw line ends.
const BLOCK_END: &[u8] = b"\n};\n";
/// More than any packet header and context takes.
const HEAD_BYTES: usize = 4096;

/// A file that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// Bytes that it had.
    pub before_bytes: u64,
    /// Bytes that it has; None: it held nothing whole and was removed.
    pub after_bytes: Option<u64>,
}

/// What was found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Streams that are there and whole now.
    pub streams: u64,
    /// What was changed, in order.
    pub changes: Vec<Change>,
    /// What was left alone because it is not understood.
    pub left_alone: Vec<PathBuf>,
}

/// The traces of a session's directory: one for each user, and the kernel's.
///
/// # Errors
/// The disk's.
pub fn traces<D: Disk>(disk: &D, session_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let users = session_dir.join("ust").join("uid");
    let mut traces: Vec<PathBuf> =
        list(disk, &users)?.iter().map(|uid| users.join(uid).join("64-bit")).collect();
    let kernel = session_dir.join("kernel");
    if disk.size(&kernel.join("metadata")).is_ok() {
        traces.push(kernel);
    }
    Ok(traces)
}

/// Repairs all traces of a session's directory.
///
/// # Errors
/// As [`repair_trace`]. What was repaired before stays repaired.
pub fn repair<D: Disk>(disk: &D, session_dir: &Path) -> io::Result<Repaired> {
    let mut all = Repaired::default();
    for dir in traces(disk, session_dir)? {
        let one = repair_trace(disk, &dir)?;
        all.streams += one.streams;
        all.changes.extend(one.changes);
        all.left_alone.extend(one.left_alone);
    }
    Ok(all)
}

/// Repairs one trace: the directory of a metadata file.
///
/// # Errors
/// `ResourceBusy` if a daemon has it open, and then nothing was touched; the disk's.
pub fn repair_trace<D: Disk>(disk: &D, dir: &Path) -> io::Result<Repaired> {
    let mut all = Repaired::default();
    let path = dir.join("metadata");
    // Held until the end.
    let metadata = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        file => Some(file?),
    };
    if metadata.as_ref().is_some_and(|file| !disk.claim_alone(file)) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "a session daemon records it"));
    }
    let class = match metadata {
        Some(_) => repair_metadata(disk, &path, &mut all)?,
        None => None,
    };
    let index_dir = dir.join("index");
    let mut names: BTreeSet<String> = list(disk, dir)?.into_iter().collect();
    names.retain(|name| name != "metadata" && name != "index" && !name.starts_with('.'));
    let indexed = list(disk, &index_dir)?;
    names.extend(indexed.iter().filter_map(|name| name.strip_suffix(".idx")).map(String::from));
    for name in names {
        let files = [dir.join(&name), index_dir.join(format!("{name}.idx"))];
        let has_index = indexed.iter().any(|index| index.strip_suffix(".idx") == Some(&name));
        repair_stream(disk, class.as_deref(), &files, has_index, &mut all)?;
    }
    Ok(all)
}

fn list<D: Disk>(disk: &D, dir: &Path) -> io::Result<Vec<String>> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

/// The entry of the packet at `at`, if a whole one lies there.
fn packet_at<D: Disk>(
    disk: &D,
    class: &TraceClass,
    data: &D::File,
    at: u64,
    data_bytes: u64,
) -> Option<Entry> {
    let mut head = [0; HEAD_BYTES];
    let room = usize::try_from(data_bytes.checked_sub(at)?).unwrap_or(HEAD_BYTES).min(HEAD_BYTES);
    let read = disk.read_at(data, &mut head[..room], at).ok()?;
    let info = PacketInfo::read(class, &head[..read]).ok().filter(|info| !info.foreign_uuid)?;
    // Without sizes in its header it cannot be told where a packet ends.
    info.packet_size_bits?;
    let (content_size_bits, packet_size_bits) = info.sizes(data_bytes - at).ok()?;
    Some(Entry {
        offset_bytes: at,
        packet_size_bits,
        content_size_bits,
        timestamp_begin: info.begin.unwrap_or(0),
        timestamp_end: info.end.unwrap_or(0),
        events_discarded: info.events_discarded.unwrap_or(0),
        stream_id: info.stream_class_id,
        stream_instance_id: info.stream_id.unwrap_or(UNKNOWN),
        packet_seq_num: info.sequence.unwrap_or(UNKNOWN),
    })
}

fn end_of(entry: &Entry) -> u64 {
    entry.offset_bytes.saturating_add(entry.packet_size_bits / 8)
}

/// Entries of the index file as far as it has whole ones, and the bytes of each.
fn read_index<D: Disk>(disk: &D, path: &Path) -> io::Result<(Vec<Entry>, usize, u64)> {
    let bytes = disk.read(path)?;
    // Killed while the stream was made, or lost with the machine: made anew.
    let entry_bytes = Header::decode(&bytes).map_or(0, |header| header.entry_size_bytes as usize);
    let entries = index::decode(&bytes).map(|(_, entries)| entries.collect()).unwrap_or_default();
    Ok((entries, entry_bytes, bytes.len() as u64))
}

fn repair_stream<D: Disk>(
    disk: &D,
    class: Option<&TraceClass>,
    [data_path, index_path]: &[PathBuf; 2],
    has_index: bool,
    all: &mut Repaired,
) -> io::Result<()> {
    let (indexed, entry_bytes, index_bytes) = match has_index {
        true => read_index(disk, index_path)?,
        false => (Vec::new(), 0, 0),
    };
    let data = match disk.open(data_path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_index => {
            return remove(disk, index_path, index_bytes, all);
        }
        file => file?,
    };
    let data_bytes = disk.size(data_path)?;
    let found = |at| packet_at(disk, class?, &data, at, data_bytes);
    // The machine may have gone down with the data less far than its index: blocks of zeroes, or none.
    let is_there = |entry: &&Entry| match class {
        Some(_) => found(entry.offset_bytes).is_some_and(|packet| end_of(&packet) == end_of(entry)),
        None => end_of(entry) <= data_bytes,
    };
    let mut entries: Vec<Entry> = indexed.iter().take_while(is_there).copied().collect();
    let kept = entries.len();
    while let Some(packet) = found(entries.last().map_or(0, end_of)) {
        entries.push(packet);
    }
    let end = entries.last().map_or(0, end_of);
    if end == 0 && data_bytes > 0 && !is_torn_or_empty(disk, class, &data)? {
        all.left_alone.push(data_path.clone());
        return Ok(());
    }
    if end == 0 {
        // Never given a packet. An empty stream is refused by readers.
        remove(disk, data_path, data_bytes, all)?;
        return if has_index { remove(disk, index_path, index_bytes, all) } else { Ok(()) };
    }
    all.streams += 1;
    if end < data_bytes {
        disk.truncate(&data, end)?;
        change(all, data_path, data_bytes, end);
    }
    if !has_index {
        // Then the trace has none at all, or readers do without this one.
        return Ok(());
    }
    let (file, entry_bytes) = match entry_bytes {
        0 => {
            let file = disk.create(index_path)?;
            write_own(disk, &file, &Header::V1_1.encode(), 0)?;
            (file, index::ENTRY_SIZE_BYTES)
        }
        known => (disk.open(index_path)?, known),
    };
    let index_end = (HEADER_SIZE_BYTES + entries.len() * entry_bytes) as u64;
    if kept < entries.len() || index_end != index_bytes {
        let at = HEADER_SIZE_BYTES + kept * entry_bytes;
        disk.truncate(&file, at as u64)?;
        // Older versions have the first fields of the newest.
        let bytes: Vec<u8> = entries[kept..].iter().flat_map(|e| of_size(&e.encode(), entry_bytes)).collect();
        write_own(disk, &file, &bytes, at as u64)?;
        change(all, index_path, index_bytes, index_end);
    }
    Ok(())
}

fn of_size(entry: &[u8], bytes: usize) -> Vec<u8> {
    let mut out = entry.to_vec();
    out.resize(bytes, 0);
    out
}

/// True if a file without any whole packet begins with the beginning of one, or with zeroes alone.
fn is_torn_or_empty<D: Disk>(disk: &D, class: Option<&TraceClass>, data: &D::File) -> io::Result<bool> {
    let mut head = [0; HEAD_BYTES];
    let read = disk.read_at(data, &mut head, 0)?;
    let is_torn = class.is_some_and(|class| match PacketInfo::read(class, &head[..read]) {
        Ok(info) => info.packet_size_bits.is_some() && !info.foreign_uuid,
        // A header that is not there to its end.
        Err(_) => {
            read < HEAD_BYTES
                && head[..read.min(4)] == sillage_ctf::packet::MAGIC.to_ne_bytes()[..read.min(4)]
        }
    });
    Ok(is_torn || head[..read].iter().all(|byte| *byte == 0))
}

fn change(all: &mut Repaired, path: &Path, before_bytes: u64, after_bytes: u64) {
    all.changes.push(Change { path: path.to_owned(), before_bytes, after_bytes: Some(after_bytes) });
}

fn remove<D: Disk>(disk: &D, path: &Path, before_bytes: u64, all: &mut Repaired) -> io::Result<()> {
    disk.remove(path)?;
    all.changes.push(Change { path: path.to_owned(), before_bytes, after_bytes: None });
    Ok(())
}

/// Bytes of metadata up to the end of the last whole block.
pub(crate) fn whole_blocks(metadata: &[u8]) -> usize {
    let last = metadata.windows(BLOCK_END.len()).rposition(|window| window == BLOCK_END);
    last.map_or(0, |at| at + BLOCK_END.len())
}

/// What the metadata describe, if they can be read.
fn repair_metadata<D: Disk>(
    disk: &D,
    path: &Path,
    all: &mut Repaired,
) -> io::Result<Option<std::sync::Arc<TraceClass>>> {
    let bytes = disk.read(path)?;
    let read = |bytes: &[u8]| MetadataReader::read(bytes, MetadataOptions::default()).ok();
    let mut strict = MetadataReader::new(MetadataOptions::default());
    if strict.push(&bytes).is_ok() {
        // Whole, in whatever language and form.
        return Ok(read(&bytes));
    }
    let end = whole_blocks(&bytes);
    let Some(class) = read(&bytes[..end]).filter(|_| end > 0) else {
        all.left_alone.push(path.to_owned());
        return Ok(None);
    };
    disk.truncate(&disk.open(path)?, end as u64)?;
    change(all, path, bytes.len() as u64, end as u64);
    Ok(Some(class))
}

#[cfg(test)]
mod tests;
