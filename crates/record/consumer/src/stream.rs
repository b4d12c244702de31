//! One stream: a ring's packets as files, with their indexes, in LTTng's layout.
//!
//! ```text
//! <dir>/<channel>_<number>[_<n>]              packets: 84 bytes of header, records, zeroes to 4096
//! <dir>/index/<channel>_<number>[_<n>].idx    one entry for each of them
//! ```
//! `_<n>` is there when trace files have a size limit: a packet that would exceed it begins the next
//! file, and after `tracefile_count` files the oldest is replaced.
//!
//! The file is made with its first packet. A packet is written first and its entry second; if either
//! fails, both files are cut back to the packet before. [`Stream::recover`] does the same for files
//! that a killed daemon left, so that a trace never ends in a torn packet (readers refuse it whole).

use crate::disk::{Disk, Piece, write_own};
use sillage_ctf::index::{self, ENTRY_SIZE_BYTES, Entry, HEADER_SIZE_BYTES, Header};
use sillage_ctf::packet::{LTTNG_HEADER_SIZE_BYTES, LttngPacketHeader};
use sillage_ring::Packet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Packets are padded to a multiple of this.
const PACKET_ALIGN_BYTES: usize = 4096;
/// What is wrong with a file that nobody can find any more.
pub(crate) const REMOVED: &str = "its file was removed, what it held is gone";
static ZEROES: [u8; PACKET_ALIGN_BYTES] = [0; PACKET_ALIGN_BYTES];

/// Where a channel's streams go and what their packets say of themselves.
#[derive(Clone, Debug)]
pub struct Place {
    /// Directory with the metadata.
    pub dir: PathBuf,
    /// Name of the channel.
    pub channel: String,
    /// UUID of the trace.
    pub uuid: [u8; 16],
    /// Id of the channel in the trace.
    pub stream_id: u32,
    /// Bytes of a trace file before the next begins; 0: no limit.
    pub tracefile_bytes: u64,
    /// Trace files before the oldest is replaced; 0: no limit.
    pub tracefile_count: u64,
}

/// What a recovered stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sequence number of the last whole packet.
    pub last_sequence: Option<u64>,
    /// Bytes of records in it.
    pub last_bytes: u64,
}

struct OpenFile<F> {
    data: F,
    index: F,
    data_bytes: u64,
    index_bytes: u64,
}

/// The files of one ring.
pub struct Stream<D: Disk> {
    place: Arc<Place>,
    number: u32,
    file: Option<OpenFile<D::File>>,
    /// n of the open file, or of the next to be opened.
    file_number: u64,
}

impl<D: Disk> Stream<D> {
    /// The stream `number` (a CPU, or beyond them for the rings of single processes). Touches no file.
    pub fn new(place: Arc<Place>, number: u32) -> Stream<D> {
        Stream { place, number, file: None, file_number: 0 }
    }

    /// Its name, for people.
    pub fn name(&self) -> String {
        format!("{}_{}", self.place.channel, self.number)
    }

    /// What the packet says of itself.
    pub(crate) fn header(&self, packet: &Packet) -> LttngPacketHeader {
        let content = LTTNG_HEADER_SIZE_BYTES + packet.body_bytes;
        LttngPacketHeader {
            uuid: self.place.uuid,
            stream_id: self.place.stream_id,
            stream_instance_id: self.number.into(),
            timestamp_begin: packet.begin_ts,
            timestamp_end: packet.end_ts,
            content_size_bits: content as u64 * 8,
            packet_size_bits: content.next_multiple_of(PACKET_ALIGN_BYTES) as u64 * 8,
            packet_seq_num: packet.sequence,
            events_discarded: packet.discarded,
            cpu_id: packet.cpu,
        }
    }

    /// True if somebody removed the file that is being written: what goes there is seen by nobody.
    pub fn is_removed(&self, disk: &D) -> bool {
        self.file.as_ref().is_some_and(|file| disk.is_removed(&file.data) || disk.is_removed(&file.index))
    }

    /// Writes one packet and its index entry, or nothing.
    ///
    /// # Errors
    /// What the disk answered, or that somebody removed the file. The files are as they were, as far as the disk let us.
    ///
    /// # Safety
    /// The packet's body is readable until the call returns.
    pub unsafe fn write(&mut self, disk: &D, packet: &Packet) -> io::Result<()> {
        let header = self.header(packet);
        let content = (header.content_size_bits / 8) as usize;
        let size = (header.packet_size_bits / 8) as usize;
        let limit = self.place.tracefile_bytes;
        if self.file.as_ref().is_some_and(|f| limit > 0 && f.data_bytes + size as u64 > limit) {
            self.file = None;
            self.file_number += 1;
            if self.place.tracefile_count > 0 {
                self.file_number %= self.place.tracefile_count;
            }
        }
        if self.is_removed(disk) {
            return Err(io::Error::other(REMOVED));
        }
        if self.file.is_none() {
            self.file = Some(self.create(disk)?);
        }
        let Some(file) = &mut self.file else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        let entry = Entry {
            offset_bytes: file.data_bytes,
            packet_size_bits: header.packet_size_bits,
            content_size_bits: header.content_size_bits,
            timestamp_begin: header.timestamp_begin,
            timestamp_end: header.timestamp_end,
            events_discarded: header.events_discarded,
            stream_id: header.stream_id.into(),
            stream_instance_id: header.stream_instance_id,
            packet_seq_num: header.packet_seq_num,
        };
        let header = header.encode_native();
        let body = Piece { start: packet.body, bytes: packet.body_bytes };
        let pieces = [Piece::of(&header), body, Piece::of(&ZEROES[..size - content])];
        // SAFETY: the caller keeps the body readable; the rest is our own.
        unsafe { disk.write_all_at(&file.data, &pieces, file.data_bytes)? };
        // SAFETY: our own bytes.
        let indexed =
            unsafe { disk.write_all_at(&file.index, &[Piece::of(&entry.encode())], file.index_bytes) };
        if let Err(error) = indexed {
            disk.truncate(&file.data, file.data_bytes)?;
            return Err(error);
        }
        file.data_bytes += size as u64;
        file.index_bytes += ENTRY_SIZE_BYTES as u64;
        Ok(())
    }

    /// Takes up the files that a killed daemon left: cuts them to the last indexed packet, and goes on
    /// behind it. Without files it stays as it is.
    ///
    /// # Errors
    /// What the disk answered.
    pub fn recover(&mut self, disk: &D) -> io::Result<Recovered> {
        let mut found = Recovered::default();
        let mut newest: Option<(u64, u64, Vec<Entry>)> = None;
        for file_number in self.file_numbers(disk)? {
            let [data_path, index_path] = self.paths(file_number);
            let bytes = disk.read(&index_path).unwrap_or_default();
            let entries: Vec<Entry> = index::decode(&bytes).map(|(_, e)| e.collect()).unwrap_or_default();
            let Some(last) = entries.last() else {
                // Made, but never given a packet: the next packet makes it again.
                disk.remove(&data_path).or_else(missing)?;
                disk.remove(&index_path).or_else(missing)?;
                continue;
            };
            let sequence = last.packet_seq_num;
            if newest.as_ref().is_none_or(|(newest, ..)| sequence > *newest) {
                newest = Some((sequence, file_number, entries));
            }
        }
        let Some((sequence, file_number, entries)) = newest else { return Ok(found) };
        let [data_path, index_path] = self.paths(file_number);
        let (data, index) = (disk.open(&data_path)?, disk.open(&index_path)?);
        let last = entries.last();
        let data_bytes = last.map_or(0, |last| last.offset_bytes + last.packet_size_bits / 8);
        let index_bytes = (HEADER_SIZE_BYTES + entries.len() * ENTRY_SIZE_BYTES) as u64;
        disk.truncate(&data, data_bytes)?;
        disk.truncate(&index, index_bytes)?;
        self.file = Some(OpenFile { data, index, data_bytes, index_bytes });
        self.file_number = file_number;
        found.last_sequence = Some(sequence);
        let content_bytes = last.map_or(0, |last| last.content_size_bits / 8);
        found.last_bytes = content_bytes.saturating_sub(LTTNG_HEADER_SIZE_BYTES as u64);
        Ok(found)
    }

    /// The n of every file that is there (0 when files have no limit).
    fn file_numbers(&self, disk: &D) -> io::Result<Vec<u64>> {
        let names = match disk.list(&self.place.dir.join("index")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names?,
        };
        let limited = self.place.tracefile_bytes > 0;
        let stem = self.name();
        let mut numbers: Vec<u64> = names
            .iter()
            .filter_map(|name| {
                let rest = name.strip_suffix(".idx")?.strip_prefix(&stem)?;
                if limited { rest.strip_prefix('_')?.parse().ok() } else { rest.is_empty().then_some(0) }
            })
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn paths(&self, file_number: u64) -> [PathBuf; 2] {
        let mut name = self.name();
        if self.place.tracefile_bytes > 0 {
            name = format!("{name}_{file_number}");
        }
        let index = self.place.dir.join("index").join(format!("{name}.idx"));
        [self.place.dir.join(name), index]
    }

    fn create(&self, disk: &D) -> io::Result<OpenFile<D::File>> {
        let [data_path, index_path] = self.paths(self.file_number);
        disk.make_dirs(index_path.parent().unwrap_or(Path::new("/")))?;
        let make = || {
            let data = disk.create(&data_path)?;
            let index = disk.create(&index_path)?;
            write_own(disk, &index, &Header::V1_1.encode(), 0)?;
            Ok(OpenFile { data, index, data_bytes: 0, index_bytes: HEADER_SIZE_BYTES as u64 })
        };
        make().inspect_err(|_| {
            // Half a stream is worse than none; that this may fail too changes nothing.
            let _ = disk.remove(&data_path);
            let _ = disk.remove(&index_path);
        })
    }
}

fn missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
