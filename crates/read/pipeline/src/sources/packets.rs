//! The packets of one stream, of one file or of many, in the order of time.
//!
//! Each file is walked from packet to packet by the sizes that the packets give. Files are merged
//! by the begin times of their packets, which puts rotation chunks, rings of trace files and
//! overlapping snapshots in order; a packet that several files hold comes once. A file is open only
//! while its packets are due, and memory does not grow with the number of packets.

use std::path::PathBuf;
use std::sync::Arc;

use memmap2::Mmap;
use sillage_ctf::model::TraceClass;
use sillage_ctf::{DecodeError, Fault, PacketDecoder, PacketInfo};

use super::bytes::{Access, HEAD_SIZE_BYTES, StreamFile};
use super::index::FileIndex;
use crate::Error;

/// What a [`PacketSource`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketStep {
    /// A packet: see [`PacketSource::bytes`].
    Packet,
    /// No packet before this clock value (live).
    Inactive(u64),
    /// Nothing for now, perhaps later (live).
    Pending,
    /// There will be no more.
    End,
}

/// Where a packet is, for messages to people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PacketPlace {
    /// File or other name of the stream.
    pub path: PathBuf,
    /// Number of the packet in the file, from 0.
    pub packet: u64,
    /// Offset of the packet in the file.
    pub offset_bytes: u64,
}

/// Gives the packets of one stream one after another.
pub trait PacketSource {
    /// Asked until it says `Packet` before the stream's begin is told (live streams learn what they
    /// are from their first packet); `End` is a stream that ends without ever having begun.
    ///
    /// # Errors
    /// As [`next_packet`](Self::next_packet).
    fn begin(&mut self) -> Result<PacketStep, Error> {
        Ok(PacketStep::Packet)
    }

    /// Goes to the next packet.
    ///
    /// # Errors
    /// A packet that can not be found or read. The stream can not be read on.
    fn next_packet(&mut self) -> Result<PacketStep, Error>;

    /// The whole current packet, from its first to its last byte.
    fn bytes(&self) -> &[u8];

    /// Head of the packet after the current one, if that is known already.
    fn following(&self) -> Option<&PacketInfo> {
        None
    }

    /// Bytes of the packet after the current one, if they are at hand.
    fn following_bytes(&mut self) -> Option<&[u8]> {
        None
    }

    /// Whether the current packet is the last of its file.
    fn is_last_of_file(&self) -> bool {
        false
    }

    /// Place of the current packet.
    fn place(&self) -> PacketPlace;

    /// Goes to where the packets needed from `cycles` on begin: the next packet is the one before
    /// the last that begins at or before. Gives the head of the packet before that, if there is
    /// one. `None` when the source can not seek.
    ///
    /// # Errors
    /// As [`next_packet`](Self::next_packet).
    fn seek(&mut self, cycles: u64) -> Result<Option<Option<PacketInfo>>, Error> {
        let _ = cycles;
        Ok(None)
    }
}

/// A file of a stream, not open.
#[derive(Debug, Clone)]
pub(crate) struct StreamPart {
    pub path: Arc<PathBuf>,
    /// Begin time of its first packet.
    pub begin: Option<u64>,
    /// Trace class of the directory that the file is in (chunks may differ in clock offset, not in
    /// layout).
    pub class: Arc<TraceClass>,
    /// Which of the trace's directories the file is in.
    pub directory: usize,
}

/// A walk over the packets of one file. Its head is the next packet that it has to give.
#[derive(Debug)]
struct Cursor {
    part: StreamPart,
    file: StreamFile,
    head: Option<Head>,
    /// What is wrong with the packet that should be the head.
    failure: Option<Error>,
    /// Number and offset of the head.
    packet: u64,
    offset: u64,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    info: PacketInfo,
    size_bytes: u64,
}

/// What makes two packets the same.
type Identity = (u64, Option<u64>, Option<u64>, Option<u64>);

impl Head {
    fn identity(&self) -> Identity {
        (self.size_bytes, self.info.begin, self.info.end, self.info.sequence)
    }
}

impl Cursor {
    fn open(part: &StreamPart, access: Access) -> Result<Self, Error> {
        let mut cursor = Self {
            part: part.clone(),
            file: StreamFile::open(&part.path, access)?,
            head: None,
            failure: None,
            packet: 0,
            offset: 0,
        };
        cursor.read_head();
        Ok(cursor)
    }

    /// Reads the packet at `offset` as the head.
    fn read_head(&mut self) {
        match self.head_at(self.offset) {
            Ok(head) => self.head = head,
            Err(error) => {
                self.head = None;
                self.failure = Some(error);
            }
        }
    }

    fn head_at(&mut self, offset: u64) -> Result<Option<Head>, Error> {
        let left = self.file.size_bytes().saturating_sub(offset);
        if left == 0 {
            return Ok(None);
        }
        let located = |source| Error::Decode {
            path: self.part.path.to_path_buf(),
            packet: self.packet,
            offset_bytes: offset,
            source,
        };
        let info = if self.file.is_mapped() {
            PacketInfo::read(&self.part.class, self.file.get(offset, left)).map_err(located)?
        } else {
            read_info_in_steps(&mut self.file, &self.part, offset, left)?.map_err(located)?
        };
        let (_, packet_bits) = info.sizes(left).map_err(located)?;
        Ok(Some(Head { info, size_bytes: packet_bits / 8 }))
    }

    /// Goes past the head; gives where it was.
    fn pass(&mut self) -> Option<(u64, u64, Head)> {
        let head = self.head?;
        let was = (self.packet, self.offset, head);
        self.packet += 1;
        self.offset += head.size_bytes;
        self.read_head();
        Some(was)
    }
}

/// Reads ever more of a file that is not mapped, until the head of the packet is whole.
fn read_info_in_steps(
    file: &mut StreamFile,
    part: &StreamPart,
    offset: u64,
    left: u64,
) -> Result<Result<PacketInfo, Box<DecodeError>>, Error> {
    let mut len = HEAD_SIZE_BYTES.min(left);
    loop {
        file.load(&part.path, offset, len)?;
        let bytes = file.get(offset, len);
        let result = PacketInfo::read(&part.class, bytes);
        let cut = match &result {
            Err(error) => {
                matches!(error.fault, Fault::Truncated { .. } | Fault::UnterminatedText)
                    && len < left
                    && bytes.len() as u64 == len
            }
            Ok(_) => false,
        };
        if !cut {
            return Ok(result);
        }
        len = len.saturating_mul(4).min(left);
    }
}

/// Whether another directory gave the same packet. Packets of one directory are never the same,
/// however alike: not all tracers number them.
fn is_given(given: &[(Identity, usize)], head: &Head, directory: usize) -> bool {
    let identity = head.identity();
    given.iter().any(|(other, from)| *other == identity && *from != directory)
}

/// The packets of the files of one stream.
#[derive(Debug)]
pub struct FilePackets {
    /// In the order of their first packets.
    parts: Arc<[StreamPart]>,
    access: Access,
    /// The next part to open.
    next_part: usize,
    cursors: Vec<Cursor>,
    current: Option<Current>,
    loaded: Loaded,
    /// Packets given so far that begin at the same time as the current one.
    given: Vec<(Identity, usize)>,
}

#[derive(Debug)]
struct Current {
    cursor: usize,
    packet: u64,
    offset: u64,
    head: Head,
}

/// The bytes of the current packet.
#[derive(Debug, Default)]
enum Loaded {
    #[default]
    Nothing,
    /// A part of a mapped file.
    Mapped(Arc<Mmap>, std::ops::Range<usize>),
    Copied(Vec<u8>),
}

impl FilePackets {
    pub(crate) fn new(parts: Arc<[StreamPart]>, access: Access) -> Self {
        Self {
            parts,
            access,
            next_part: 0,
            cursors: Vec::new(),
            current: None,
            loaded: Loaded::Nothing,
            given: Vec::new(),
        }
    }

    /// Opens the files whose packets may be due.
    fn open_due(&mut self) -> Result<(), Error> {
        while let Some(part) = self.parts.get(self.next_part) {
            let least = self.least_begin();
            let due = match (least, part.begin) {
                (Some(least), Some(begin)) => begin <= least,
                (Some(_), None) => false,
                (None, _) => true,
            };
            if !due {
                break;
            }
            self.next_part += 1;
            self.cursors.push(Cursor::open(part, self.access)?);
        }
        Ok(())
    }

    fn least_begin(&self) -> Option<u64> {
        self.due().map(|at| match &self.cursors[at].head {
            Some(head) => head.info.begin.unwrap_or(0),
            None => 0,
        })
    }

    /// The cursor whose head comes next. A failure comes at once: its time is not known.
    fn due(&self) -> Option<usize> {
        self.cursors
            .iter()
            .enumerate()
            .filter(|(_, cursor)| cursor.head.is_some() || cursor.failure.is_some())
            .min_by_key(|(_, cursor)| cursor.head.map_or(0, |head| head.info.begin.unwrap_or(0)))
            .map(|(at, _)| at)
    }

    /// Passes over heads that were given already, and closes files that have no more.
    fn tidy(&mut self) -> Result<(), Error> {
        loop {
            self.open_due()?;
            let Some(at) = self.due() else {
                return Ok(());
            };
            let cursor = &mut self.cursors[at];
            match cursor.head {
                Some(head)
                    if head.info.begin.is_some() && is_given(&self.given, &head, cursor.part.directory) =>
                {
                    cursor.pass();
                }
                _ => return Ok(()),
            }
        }
    }

    /// Drops cursors at their end, but the current one's.
    fn close_finished(&mut self) {
        let mut at = 0;
        while at < self.cursors.len() {
            let cursor = &self.cursors[at];
            let done = cursor.head.is_none() && cursor.failure.is_none();
            let current = self.current.as_ref().is_some_and(|current| current.cursor == at);
            if done && !current {
                self.cursors.remove(at);
                if let Some(current) = &mut self.current
                    && current.cursor > at
                {
                    current.cursor -= 1;
                }
            } else {
                at += 1;
            }
        }
    }
}

impl PacketSource for FilePackets {
    fn next_packet(&mut self) -> Result<PacketStep, Error> {
        let before = self.current.take().and_then(|current| current.head.info.begin);
        self.close_finished();
        self.tidy()?;
        let Some(at) = self.due() else {
            return Ok(PacketStep::End);
        };
        if let Some(error) = self.cursors[at].failure.take() {
            return Err(error);
        }
        let cursor = &mut self.cursors[at];
        self.loaded = Loaded::Nothing;
        if let Some(head) = cursor.head {
            self.loaded = match cursor.file.mapped(cursor.offset, head.size_bytes) {
                Some((map, range)) => Loaded::Mapped(map, range),
                None => {
                    cursor.file.load(&cursor.part.path, cursor.offset, head.size_bytes)?;
                    Loaded::Copied(cursor.file.get(cursor.offset, head.size_bytes).to_vec())
                }
            };
        }
        let Some((packet, offset, head)) = cursor.pass() else {
            return Ok(PacketStep::End);
        };
        if before != head.info.begin {
            self.given.clear();
        }
        self.given.push((head.identity(), self.cursors[at].part.directory));
        self.current = Some(Current { cursor: at, packet, offset, head });
        self.tidy()?;
        Ok(PacketStep::Packet)
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.loaded {
            Loaded::Mapped(map, range) => map.get(range.clone()).unwrap_or_default(),
            Loaded::Copied(copy) => copy,
            Loaded::Nothing => &[],
        }
    }

    fn following(&self) -> Option<&PacketInfo> {
        let at = self.due()?;
        self.cursors[at].head.as_ref().map(|head| &head.info)
    }

    fn following_bytes(&mut self) -> Option<&[u8]> {
        let at = self.due()?;
        let cursor = &mut self.cursors[at];
        let head = cursor.head?;
        cursor.file.load(&cursor.part.path, cursor.offset, head.size_bytes).ok()?;
        Some(cursor.file.get(cursor.offset, head.size_bytes))
    }

    fn is_last_of_file(&self) -> bool {
        self.current
            .as_ref()
            .and_then(|current| self.cursors.get(current.cursor))
            .is_some_and(|cursor| cursor.head.is_none() && cursor.failure.is_none())
    }

    fn place(&self) -> PacketPlace {
        let Some(current) = &self.current else {
            let path = self.parts.first().map(|part| part.path.to_path_buf());
            return PacketPlace { path: path.unwrap_or_default(), ..PacketPlace::default() };
        };
        PacketPlace {
            path: match self.cursors.get(current.cursor) {
                Some(cursor) => cursor.part.path.to_path_buf(),
                None => PathBuf::new(),
            },
            packet: current.packet,
            offset_bytes: current.offset,
        }
    }

    fn seek(&mut self, cycles: u64) -> Result<Option<Option<PacketInfo>>, Error> {
        self.current = None;
        self.loaded = Loaded::Nothing;
        self.cursors.clear();
        self.given.clear();
        // The last file that begins before the time, and the one before it: the packet wanted may
        // be the first of its file. Several may begin at the time itself.
        let after = self
            .parts
            .iter()
            .position(|part| part.begin.is_some_and(|begin| begin >= cycles))
            .unwrap_or(self.parts.len());
        let start = after.saturating_sub(1);
        self.next_part = start;
        let mut before = None;
        let Some(part) = self.parts.get(start).cloned() else {
            return Ok(Some(None));
        };
        self.next_part += 1;
        let mut cursor = Cursor::open(&part, self.access)?;
        if seek_in_file(&mut cursor, cycles, &mut before)? && start > 0 {
            // Nothing before it in this file: the last packets of the file before come first.
            let mut earlier = Cursor::open(&self.parts[start - 1].clone(), self.access)?;
            seek_in_file(&mut earlier, cycles, &mut before)?;
            self.cursors.push(earlier);
        }
        self.cursors.push(cursor);
        self.close_finished();
        Ok(Some(before))
    }
}

/// Moves a cursor to the packet before the last that begins before `cycles`, with the head of
/// the packet before that in `before`; true if the last one is the first of the file.
fn seek_in_file(cursor: &mut Cursor, cycles: u64, before: &mut Option<PacketInfo>) -> Result<bool, Error> {
    if let Some(index) = FileIndex::open(&cursor.part.path, cursor.file.size_bytes()) {
        let last = index.packet_at(cycles);
        if let Some(position) = last.checked_sub(2)
            && let Some(entry) = index.get(position)
        {
            *before = cursor.head_at(entry.offset_bytes)?.map(|head| head.info);
        }
        if let Some(entry) = index.get(last.saturating_sub(1)) {
            cursor.packet = last.saturating_sub(1) as u64;
            cursor.offset = entry.offset_bytes;
            cursor.failure = None;
            cursor.read_head();
        }
        return Ok(last == 0);
    }
    // The last three packets that begin before: number, offset, head.
    let mut last: [Option<(u64, u64, Head)>; 3] = [None; 3];
    while let Some(head) = cursor.head
        && (last[2].is_none() || head.info.begin.is_none_or(|begin| begin < cycles))
    {
        last.rotate_left(1);
        last[2] = cursor.pass();
    }
    if let Some((_, _, head)) = last[0] {
        *before = Some(head.info);
    }
    let first = last[1].is_none();
    if let Some((packet, offset, head)) = last[1].or(last[2]) {
        cursor.packet = packet;
        cursor.offset = offset;
        cursor.head = Some(head);
        cursor.failure = None;
    }
    Ok(first)
}

/// Begin time of the first and end time of the last packet of a file, for the range of its stream;
/// `None` for a file without packets.
pub(crate) fn file_range(
    part: &StreamPart,
    access: Access,
) -> Result<Option<(PacketInfo, PacketInfo, u64)>, Error> {
    let mut cursor = Cursor::open(part, access)?;
    if let Some(error) = cursor.failure.take() {
        return Err(error);
    }
    let Some(first) = cursor.head else {
        return Ok(None);
    };
    if let Some(index) = FileIndex::open(&part.path, cursor.file.size_bytes())
        && let Some(entry) = index.get(index.len().saturating_sub(1))
        && let Some(last) = cursor.head_at(entry.offset_bytes)?
    {
        return Ok(Some((first.info, last.info, entry.offset_bytes)));
    }
    let mut last = (first, 0);
    while let Some((_, offset, head)) = cursor.pass() {
        last = (head, offset);
    }
    match cursor.failure.take() {
        Some(error) => Err(error),
        None => Ok(Some((first.info, last.0.info, last.1))),
    }
}

/// Samples of a file that are kept at most.
const SAMPLES_MAX: usize = 256;

/// Where the bytes of a file are in time: begin times of some of its packets, in order, each with
/// the bytes from there to the next one; nothing for packets without a time.
pub(crate) fn spread(part: &StreamPart, access: Access) -> Result<Vec<(u64, u64)>, Error> {
    let mut cursor = Cursor::open(part, access)?;
    let mut samples = Vec::new();
    if let Some(index) = FileIndex::open(&part.path, cursor.file.size_bytes()) {
        let step = index.len().div_ceil(SAMPLES_MAX).max(1);
        let entries = (0..index.len()).step_by(step).filter_map(|position| index.get(position));
        samples.extend(entries.map(|entry| (entry.timestamp_begin, entry.offset_bytes)));
    } else {
        // Every so many packets, and twice as many whenever the samples are too many.
        let mut step = 1;
        while let Some((packet, offset, head)) = cursor.pass() {
            if packet % step != 0 {
                continue;
            }
            let Some(begin) = head.info.begin else { return Ok(Vec::new()) };
            samples.push((begin, offset));
            if samples.len() > SAMPLES_MAX {
                step *= 2;
                let mut number = 0;
                samples.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
            }
        }
    }
    let ends: Vec<u64> =
        samples.iter().skip(1).map(|sample| sample.1).chain([cursor.file.size_bytes()]).collect();
    Ok(samples.iter().zip(ends).map(|((begin, from), to)| (*begin, to.saturating_sub(*from))).collect())
}

/// Clock at the last event of a packet, or at its beginning when it has none.
pub(crate) fn last_event_clock(part: &StreamPart, access: Access, offset: u64) -> Result<Option<u64>, Error> {
    let mut cursor = Cursor::open(part, access)?;
    let Some(head) = cursor.head_at(offset)? else {
        return Ok(None);
    };
    cursor.file.load(&part.path, offset, head.size_bytes)?;
    let bytes = cursor.file.get(offset, head.size_bytes);
    let mut decoder = PacketDecoder::new();
    let Ok(info) = decoder.start(&part.class, bytes) else {
        return Ok(None);
    };
    let Some(class) = part.class.stream_class(info.stream_class_id) else {
        return Ok(None);
    };
    // A fault inside the packet is told when its events are read.
    while decoder.next_event(class, bytes).unwrap_or(false) {}
    Ok(Some(decoder.clock()))
}
