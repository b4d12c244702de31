//! One stream on its way to a file: packets, losses, index.
//!
//! The counters of lost events and packets are written so that a reader of the result finds the
//! losses that were told here, no more and no less: packets that were cut off at the beginning are
//! no loss, and neither is what the sink was asked to leave out. A loss without a count that the
//! range of a cut runs through counts as the source's packet says, all of it: the part behind the cut
//! has none then, so that the parts together tell the whole.

use std::fs::File;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use sillage_ctf::index::{Entry, Header, UNKNOWN};
use sillage_ctf::writer::{PacketValues, PacketWriter, TraceWriter, patch_packet};
use sillage_ctf::{Discarded, Event, Message, Packet, PacketInfo};

use super::{CtfOptions, Index};
use crate::{Error, Run, Warning};

/// A packet goes to the file in pieces of this size, or smaller ones where there are many streams.
const PIECE_BYTES: RangeInclusive<usize> = 2 << 10..=256 << 10;
/// Size of the pieces of all streams together.
const PIECES_BYTES: usize = 1 << 20;
/// Index entries are gathered up to this many bytes, of all streams together up to so many more.
const INDEX_BYTES: RangeInclusive<usize> = 512..=64 << 10;
const INDEXES_BYTES: usize = 256 << 10;

/// A stream and its file.
#[derive(Debug)]
pub(super) struct StreamSink {
    path: PathBuf,
    file: File,
    /// Where the packet that is open starts.
    offset: u64,
    index: Option<IndexFile>,
    writer: PacketWriter,
    /// Losses told since the last packet.
    lost_events: Lost,
    lost_packets: Lost,
    /// Events and packets lost behind the last packet, once the stream has ended.
    untold: (u64, u64),
    /// Counters of the source's last packet.
    source: (Option<u64>, Option<u64>),
    /// Counters of the last packet.
    last: Option<Counters>,
    /// Values of the packet that is open.
    values: PacketValues,
    info: PacketInfo,
    /// See [`PIECE_BYTES`].
    piece_bytes: usize,
}

/// Losses: their counts, and whether there was one without.
#[derive(Debug, Clone, Copy, Default)]
struct Lost {
    count: u64,
    uncounted: bool,
}

impl Lost {
    fn add(&mut self, count: Option<u64>) {
        self.count = self.count.saturating_add(count.unwrap_or(0));
        self.uncounted |= count.is_none();
    }

    /// The sum, given how the source's counter went on from one packet to the next.
    fn total(self, step: Option<u64>) -> u64 {
        // At least something was lost: so Babeltrace, too, counts what nobody has counted.
        let rest = if self.uncounted { step.unwrap_or(0).saturating_sub(self.count).max(1) } else { 0 };
        self.count.saturating_add(rest)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    events_discarded: u64,
    sequence: u64,
}

impl StreamSink {
    pub(super) fn create(path: PathBuf, index: Option<PathBuf>) -> Result<Self, Error> {
        let file = File::create_new(&path).map_err(|error| Error::io(&path, error))?;
        Ok(Self {
            index: index.map(IndexFile::create).transpose()?,
            path,
            file,
            offset: 0,
            writer: PacketWriter::new(),
            lost_events: Lost::default(),
            lost_packets: Lost::default(),
            untold: (0, 0),
            source: (None, None),
            last: None,
            values: PacketValues::default(),
            info: PacketInfo::default(),
            piece_bytes: *PIECE_BYTES.end(),
        })
    }

    /// Is one of so many streams that are written at once.
    pub(super) fn share_memory(&mut self, streams: usize) {
        let share = |all: usize, each: RangeInclusive<usize>| {
            (all / streams.max(1)).clamp(*each.start(), *each.end())
        };
        self.piece_bytes = share(PIECES_BYTES, PIECE_BYTES);
        if let Some(index) = &mut self.index {
            index.gathered_bytes = share(INDEXES_BYTES, INDEX_BYTES);
        }
    }

    /// Takes any message of the stream.
    pub(super) fn message(
        &mut self,
        trace: &TraceWriter,
        message: &Message<'_>,
        options: &CtfOptions,
    ) -> Result<(), Error> {
        match message {
            Message::Event(event) => self.event(trace, event)?,
            Message::PacketBegin(packet) => self.packet_begin(trace, packet),
            Message::PacketEnd(packet) => self.packet_end(packet)?,
            Message::DiscardedEvents(lost) if !options.ignore_discarded_events => self.discarded_events(lost),
            Message::DiscardedPackets(lost) if !options.ignore_discarded_packets => {
                self.discarded_packets(lost);
            }
            Message::StreamEnd(_) => self.finish()?,
            Message::StreamBegin(_)
            | Message::Inactivity(_)
            | Message::DiscardedEvents(_)
            | Message::DiscardedPackets(_) => {}
        }
        Ok(())
    }

    fn discarded_events(&mut self, lost: &Discarded<'_>) {
        self.lost_events.add(lost.count);
    }

    fn discarded_packets(&mut self, lost: &Discarded<'_>) {
        self.lost_packets.add(lost.count);
    }

    /// A packet begins.
    fn packet_begin(&mut self, trace: &TraceWriter, packet: &Packet<'_>) {
        self.take_values(packet);
        self.writer.begin(trace, packet, self.values);
    }

    fn take_values(&mut self, packet: &Packet<'_>) {
        self.info = *packet.info;
        self.values = PacketValues {
            begin: packet.clock.map(|clock| clock.cycles).or(packet.info.begin),
            end: packet.info.end,
            events_discarded: packet.info.events_discarded,
            sequence: packet.info.sequence,
        };
        self.count();
    }

    /// Replaces the source's counters by those that tell the losses that were told to us.
    fn count(&mut self) {
        let step = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?);
        let (events_before, sequence_before) = self.source;
        let lost_events = self.lost_events.total(step(self.info.events_discarded, events_before));
        let gap = step(self.info.sequence, sequence_before).and_then(|step| step.checked_sub(1));
        let lost_packets = self.lost_packets.total(gap);
        let told = Counters {
            events_discarded: match &self.last {
                Some(last) => last.events_discarded.wrapping_add(lost_events),
                // The first packet's counter means nothing unless a loss was told.
                None if lost_events > 0 => self.info.events_discarded.unwrap_or(0),
                None => 0,
            },
            sequence: match &self.last {
                Some(last) => last.sequence.wrapping_add(1).wrapping_add(lost_packets),
                None => self.info.sequence.unwrap_or(0),
            },
        };
        (self.lost_events, self.lost_packets) = (Lost::default(), Lost::default());
        self.source = (self.info.events_discarded, self.info.sequence);
        self.values.events_discarded = self.values.events_discarded.map(|_| told.events_discarded);
        self.values.sequence = self.values.sequence.map(|_| told.sequence);
        self.last = Some(told);
    }

    /// Copies a packet, whole.
    pub(super) fn copy(&mut self, trace: &TraceWriter, packet: &Packet<'_>) -> Result<(), Error> {
        self.take_values(packet);
        let kept = self.values.events_discarded == self.info.events_discarded
            && self.values.sequence == self.info.sequence;
        if kept {
            self.write(packet.bytes)?;
        } else {
            let values = PacketValues { begin: None, end: None, ..self.values };
            let head = patch_packet(&mut self.writer, trace, packet, values);
            let size = head.len();
            self.write(&head)?;
            self.write(packet.bytes.get(size..).unwrap_or_default())?;
        }
        let size_bytes = packet.bytes.len() as u64;
        self.values.begin = self.info.begin;
        let content_bits = self.info.content_size_bits.unwrap_or(size_bytes * 8);
        self.enter(size_bytes * 8, content_bits)
    }

    #[inline]
    pub(super) fn event(&mut self, trace: &TraceWriter, event: &Event<'_>) -> Result<(), Error> {
        if !self.writer.is_open() {
            self.open_without_packet(trace, event);
        }
        if !self.writer.event(trace, event) {
            self.split(trace, event)?;
        }
        if self.writer.pending_size_bytes() >= self.piece_bytes {
            self.write_pending()?;
        }
        Ok(())
    }

    /// Takes events of the packet that is open, up to the first that is unlike what was before it.
    pub(super) fn run(&mut self, run: &Run<'_>) -> Result<usize, Error> {
        if !self.writer.is_open() {
            return Ok(0);
        }
        let count = self.writer.run(&run.columns);
        if self.writer.pending_size_bytes() >= self.piece_bytes {
            self.write_pending()?;
        }
        Ok(count)
    }

    /// Opens a packet for events of a stream that has none; it ends with the stream.
    #[cold]
    fn open_without_packet(&mut self, trace: &TraceWriter, event: &Event<'_>) {
        self.info = PacketInfo { stream_class_id: event.stream.class.id, ..PacketInfo::default() };
        self.values = PacketValues::default();
        self.count();
        self.writer.begin(trace, &event.packet(&self.info), self.values);
    }

    /// Ends the packet and goes on in another that begins at the event.
    fn split(&mut self, trace: &TraceWriter, event: &Event<'_>) -> Result<(), Error> {
        let cycles = event.clock.map(|clock| clock.cycles);
        let values = PacketValues { end: cycles, ..self.values };
        self.close(values)?;
        self.values.begin = cycles;
        self.info.begin = cycles;
        self.count();
        self.writer.begin(trace, &event.packet(&self.info), self.values);
        // The packet begins at the event's time, so the event fits.
        self.writer.event(trace, event);
        Ok(())
    }

    /// The packet ends.
    fn packet_end(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        if !self.writer.is_open() {
            return Ok(());
        }
        let end = packet.clock.map(|clock| clock.cycles).or(self.values.end);
        self.close(PacketValues { end, ..self.values })
    }

    /// The stream ends, perhaps in the middle of a packet.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        if self.writer.is_open() {
            let end = self.values.end.map(|_| self.writer.clock());
            self.close(PacketValues { end, ..self.values })?;
        }
        self.writer = PacketWriter::new();
        let lost =
            [&mut self.lost_events, &mut self.lost_packets].map(|lost| std::mem::take(lost).total(None));
        self.untold = (self.untold.0 + lost[0], self.untold.1 + lost[1]);
        self.flush()
    }

    /// What was lost behind the last packet: CTF has no place to count it in.
    pub(super) fn take_warning(&mut self) -> Option<Warning> {
        let (events, packets) = std::mem::take(&mut self.untold);
        let warning = Warning::Untold { path: self.path.clone(), events, packets };
        (events + packets > 0).then_some(warning)
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.index.as_mut().map_or(Ok(()), IndexFile::flush)
    }

    fn close(&mut self, values: PacketValues) -> Result<(), Error> {
        self.values = values;
        let finished = self.writer.end(values);
        let (content_bits, packet_bits) = (finished.content_size_bits, finished.packet_size_bits);
        let io = |error| Error::io(&self.path, error);
        self.file.write_all(finished.rest).map_err(io)?;
        if let Some(head) = finished.head {
            self.file.write_all_at(head, self.offset).map_err(io)?;
        }
        self.enter(packet_bits, content_bits)
    }

    fn write_pending(&mut self) -> Result<(), Error> {
        self.file.write_all(self.writer.pending()).map_err(|error| Error::io(&self.path, error))?;
        self.writer.take_pending();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|error| Error::io(&self.path, error))
    }

    /// Enters the packet that was written into the index, if it has all that an entry tells.
    fn enter(&mut self, packet_size_bits: u64, content_size_bits: u64) -> Result<(), Error> {
        let entry = Entry {
            offset_bytes: self.offset,
            packet_size_bits,
            content_size_bits,
            timestamp_begin: self.values.begin.unwrap_or(0),
            timestamp_end: self.values.end.unwrap_or(0),
            events_discarded: self.values.events_discarded.unwrap_or(0),
            stream_id: self.info.stream_class_id,
            stream_instance_id: self.info.stream_id.unwrap_or(UNKNOWN),
            packet_seq_num: self.values.sequence.unwrap_or(UNKNOWN),
        };
        self.offset += packet_size_bits / 8;
        match &mut self.index {
            Some(index) => index.put(&entry),
            None => Ok(()),
        }
    }
}

/// An index file.
#[derive(Debug)]
struct IndexFile {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
    /// See [`INDEX_BYTES`].
    gathered_bytes: usize,
}

impl IndexFile {
    fn create(path: PathBuf) -> Result<Self, Error> {
        let file = File::create_new(&path).map_err(|error| Error::io(&path, error))?;
        let pending = Header::V1_1.encode().to_vec();
        Ok(Self { path, file, pending, gathered_bytes: *INDEX_BYTES.end() })
    }

    fn put(&mut self, entry: &Entry) -> Result<(), Error> {
        self.pending.extend_from_slice(&entry.encode());
        if self.pending.len() >= self.gathered_bytes { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.write_all(&self.pending).map_err(|error| Error::io(&self.path, error))?;
        self.pending.clear();
        Ok(())
    }
}

impl Index {
    /// Whether a stream of this kind gets an index file.
    pub(super) fn wanted(self, is_lttng: bool, has_times: bool) -> bool {
        match self {
            Self::Always => has_times,
            Self::Never => false,
            Self::Auto => is_lttng && has_times,
        }
    }
}
