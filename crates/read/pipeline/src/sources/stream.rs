//! One stream as messages: begin, losses, packets, events, end.
//!
//! A [`StreamReader`] takes packets from a [`PacketSource`] and stands on one message at a time. It
//! derives losses from the packets' counters and corrects what certain tracers are known to write
//! wrong ([`Quirks`]). It never invents an order: events come as they are in the packets.

use std::sync::Arc;

use sillage_ctf::message::{Discarded, Event, Message, Packet, StreamEdge};
use sillage_ctf::model::{ClockSnapshot, Stream};
use sillage_ctf::{Columns, PacketDecoder, PacketInfo};

use super::packets::{PacketPlace, PacketSource, PacketStep};
use super::quirks::Quirks;
use crate::messages::{Run, Status, TakesRuns};
use crate::{Error, Oddity, Warning};

/// What a reader stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    /// Silence before the stream begins.
    EarlyInactivity,
    StreamBegin,
    LostEvents,
    LostPackets,
    PacketBegin,
    Event,
    PacketEnd,
    Inactivity,
    StreamEnd,
    Done,
}

/// Losses found between two packets, in cycles.
#[derive(Debug, Clone, Copy)]
struct Loss {
    count: Option<u64>,
    begin: Option<u64>,
    end: Option<u64>,
}

/// Where a reader stands: two readers of one stream at equal positions give the same messages from
/// there on, if the stream is not changed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    at: At,
    place: PacketPlace,
    bit: u64,
}

/// What is kept of the packet before.
#[derive(Debug, Clone, Copy)]
struct Previous {
    end: Option<u64>,
    discarded: Option<u64>,
    sequence: Option<u64>,
}

/// The messages of one stream.
#[derive(Debug)]
pub struct StreamReader<P> {
    stream: Arc<Stream>,
    packets: P,
    decoder: PacketDecoder,
    /// Events found at once.
    batch: usize,
    quirks: Quirks,
    at: At,
    info: PacketInfo,
    /// Corrected times of the current packet.
    begin: Option<u64>,
    end: Option<u64>,
    clock: Clock,
    snapshot: Option<ClockSnapshot>,
    previous: Option<Previous>,
    lost_events: Option<Loss>,
    lost_packets: Option<Loss>,
    /// The first event of the packet is decoded before the packet's begin is told.
    peeked: Option<bool>,
    /// Events before this time are left out (after a seek).
    from_ns: Option<i64>,
    /// Whether events at hand may follow one another without a further look.
    stepping: bool,
    /// Times of the events at hand, by their position; those without a time and after are missing.
    times: Vec<i64>,
    /// Whether none of these times is before the one in front of it.
    sorted: bool,
    /// What is unusual and was not told yet, and what was told: once a stream is enough.
    warnings: Vec<Warning>,
    told: Told,
}

/// What a reader has warned of.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    clock_back: bool,
    foreign_uuid: bool,
}

/// Conversion of cycles, with the usual case of 1 GHz at hand.
#[derive(Debug, Clone, Copy)]
enum Clock {
    None,
    /// Nanoseconds to add.
    Ghz(i64),
    Other,
}

impl<P: PacketSource> StreamReader<P> {
    /// A reader that has not begun.
    pub fn new(stream: Arc<Stream>, packets: P, quirks: Quirks) -> Self {
        Self {
            clock: Clock::of(&stream),
            stream,
            packets,
            decoder: PacketDecoder::new(),
            batch: usize::MAX,
            quirks,
            at: At::Start,
            info: PacketInfo::default(),
            begin: None,
            end: None,
            snapshot: None,
            previous: None,
            lost_events: None,
            lost_packets: None,
            peeked: None,
            from_ns: None,
            stepping: false,
            times: Vec::new(),
            sorted: false,
            warnings: Vec::new(),
            told: Told::default(),
        }
    }

    /// Sets how many events are found at once: for a reader that has not begun.
    pub(crate) fn set_batch(&mut self, events: usize) {
        self.batch = events;
        self.decoder = PacketDecoder::with_batch(events);
    }

    /// The stream.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The stream with a class that has grown (live).
    pub fn set_stream(&mut self, stream: Arc<Stream>) {
        self.clock = Clock::of(&stream);
        self.stream = stream;
    }

    /// Where the packets come from.
    pub fn packets_mut(&mut self) -> &mut P {
        &mut self.packets
    }

    /// Time of the current message, if it has one.
    #[inline]
    pub fn ns(&self) -> Option<i64> {
        if self.at == At::Event {
            return self.clock.ns(&self.stream, self.decoder.clock());
        }
        self.snapshot.and_then(|snapshot| snapshot.ns)
    }

    /// Goes to the next message if that is an event at hand, and gives its time.
    #[inline]
    pub(crate) fn step(&mut self) -> Option<Option<i64>> {
        if !self.stepping {
            return None;
        }
        let cycles = self.decoder.step()?;
        Some(self.clock.ns(&self.stream, cycles))
    }

    /// Times of the events at hand, from the current one on, as far as they have any; empty when the
    /// reader does not stand on an event.
    #[inline]
    pub(crate) fn times_at_hand(&self) -> &[i64] {
        if self.at != At::Event || !self.stepping {
            return &[];
        }
        self.times.get(self.decoder.position_at_hand()..).unwrap_or_default()
    }

    /// As [`times_at_hand`](Self::times_at_hand), if none goes back.
    #[inline]
    pub(crate) fn sorted_times_at_hand(&self) -> Option<&[i64]> {
        self.sorted.then(|| self.times_at_hand())
    }

    /// Whether there are times at hand, and one goes back.
    pub(crate) fn is_unsorted(&self) -> bool {
        !self.sorted && !self.times_at_hand().is_empty()
    }

    /// Gives some of the events at hand, from the one `from` after the current one on.
    pub(crate) fn give_run(&self, from: usize, count: usize, to: &mut dyn TakesRuns) -> Result<usize, Error> {
        let times_ns = self.times_at_hand().get(from..from + count).unwrap_or_default();
        to.run(&Run { stream: &self.stream, times_ns, columns: self.columns().part(from, count) })
    }

    /// Goes on by some of the events at hand.
    pub(crate) fn pass(&mut self, count: usize) {
        self.decoder.pass(count);
    }

    /// The events at hand, from the current one on, as columns.
    pub(crate) fn columns(&self) -> Columns<'_> {
        self.decoder.columns(&self.stream.class, self.packets.bytes())
    }

    /// Passes over the events at hand and goes to the next ones; gives the events and packets that
    /// were lost in between, as far as they were counted. `None` at the end, or for now (live).
    pub(crate) fn advance_batch(&mut self) -> Result<Option<(u64, u64)>, Error> {
        let (mut events, mut packets) = (0, 0);
        if self.at == At::Event {
            self.decoder.pass_at_hand();
        }
        while self.advance()? == Status::Ready {
            match self.at {
                At::Event => return Ok(Some((events, packets))),
                At::LostEvents => events += self.lost_events.and_then(|loss| loss.count).unwrap_or(0),
                At::LostPackets => packets += self.lost_packets.and_then(|loss| loss.count).unwrap_or(0),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Goes to the next event at hand, which there is.
    #[inline]
    pub(crate) fn step_at_hand(&mut self) {
        self.decoder.step_at_hand();
    }

    /// Goes to the next message.
    ///
    /// # Errors
    /// A packet or event that can not be read; the reader is at its end then.
    #[inline]
    pub fn advance(&mut self) -> Result<Status, Error> {
        if self.step().is_some() {
            return Ok(Status::Ready);
        }
        let result = self.advance_rarely();
        self.stepping = self.at == At::Event && self.from_ns.is_none();
        if self.stepping {
            self.date_events();
        }
        if let Some(back) = self.decoder.take_went_back() {
            self.warn_of_clock(back);
        }
        result
    }

    /// Converts the clocks of the events at hand, all at once.
    fn date_events(&mut self) {
        let clocks = self.decoder.clocks_at_hand();
        self.times.clear();
        self.times.resize(self.decoder.position_at_hand(), 0);
        if let Clock::Ghz(base) = self.clock {
            // The bits of all together are no less than the largest: none goes beyond the end.
            let limit = i64::MAX.saturating_sub(base).cast_unsigned();
            if clocks.iter().fold(0, |all, clock| all | clock) <= limit {
                self.times.extend(clocks.iter().map(|clock| base.wrapping_add_unsigned(*clock)));
                self.sorted = is_sorted(clocks);
                return;
            }
        }
        self.times.extend(clocks.iter().map_while(|clock| self.clock.ns(&self.stream, *clock)));
        self.sorted = is_sorted(clocks);
    }

    /// Warnings since the last call.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    #[cold]
    fn warn_of_clock(&mut self, (from, to): (u64, u64)) {
        if !std::mem::replace(&mut self.told.clock_back, true) {
            self.warn(Oddity::ClockBack { from, to });
        }
    }

    #[cold]
    fn warn(&mut self, oddity: Oddity) {
        self.warnings.push(Warning::Packet { place: self.packets.place(), oddity });
    }

    #[inline(never)]
    fn advance_rarely(&mut self) -> Result<Status, Error> {
        let result = match self.at {
            At::Start | At::EarlyInactivity => self.begin(),
            At::StreamBegin | At::PacketEnd | At::Inactivity => self.next_packet(),
            At::LostEvents => Ok(self.lost_packets_or_begin()),
            At::LostPackets => Ok(self.packet_begin()),
            At::PacketBegin | At::Event => self.next_event(),
            At::StreamEnd | At::Done => {
                self.at = At::Done;
                Ok(Status::End)
            }
        };
        if result.is_err() {
            self.at = At::Done;
        }
        result
    }

    fn begin(&mut self) -> Result<Status, Error> {
        match self.packets.begin()? {
            PacketStep::Packet => self.stand(At::StreamBegin, None),
            PacketStep::Inactive(cycles) => self.stand(At::EarlyInactivity, Some(cycles)),
            PacketStep::Pending => return Ok(Status::Pending),
            PacketStep::End => {
                self.at = At::Done;
                return Ok(Status::End);
            }
        }
        Ok(Status::Ready)
    }

    fn stand(&mut self, at: At, cycles: Option<u64>) {
        self.at = at;
        self.snapshot = cycles.and_then(|cycles| self.clock.snapshot(&self.stream, cycles));
    }

    fn fail(&mut self, source: Box<sillage_ctf::DecodeError>) -> Error {
        self.at = At::Done;
        let place = self.packets.place();
        Error::Decode { path: place.path, packet: place.packet, offset_bytes: place.offset_bytes, source }
    }

    fn next_event(&mut self) -> Result<Status, Error> {
        loop {
            let found = match self.peeked.take() {
                Some(found) => found,
                None => {
                    let bytes = self.packets.bytes();
                    match self.decoder.next_event(&self.stream.class, bytes) {
                        Ok(found) => found,
                        Err(source) => return Err(self.fail(source)),
                    }
                }
            };
            if !found {
                return self.packet_end();
            }
            self.at = At::Event;
            let Some(from) = self.from_ns else {
                return Ok(Status::Ready);
            };
            let (clock, stream) = (self.clock, &self.stream);
            let early = |cycles| clock.ns(stream, cycles).is_some_and(|ns| ns < from);
            if !early(self.decoder.clock()) || self.decoder.pass_found(early) {
                self.from_ns = None;
                return Ok(Status::Ready);
            }
        }
    }

    fn packet_end(&mut self) -> Result<Status, Error> {
        let last = self.decoder.clock();
        if let Some(end) = &mut self.end
            && (self.quirks.event_after_packet || *end == 0)
        {
            *end = (*end).max(last);
        }
        self.previous = Some(Previous {
            end: self.end,
            discarded: self.info.events_discarded,
            sequence: self.info.sequence,
        });
        let end = self.end.filter(|_| self.stream.class.packets_have_end_time);
        self.stand(At::PacketEnd, end);
        Ok(Status::Ready)
    }

    fn next_packet(&mut self) -> Result<Status, Error> {
        match self.packets.next_packet()? {
            PacketStep::Packet => {}
            PacketStep::Inactive(cycles) => {
                self.stand(At::Inactivity, Some(cycles));
                return Ok(Status::Ready);
            }
            PacketStep::Pending => return Ok(Status::Pending),
            PacketStep::End => {
                self.stand(At::StreamEnd, None);
                return Ok(Status::Ready);
            }
        }
        let trace = Arc::clone(&self.stream.trace);
        self.info = match self.decoder.start(&trace.class, self.packets.bytes()) {
            Ok(info) => info,
            Err(source) => return Err(self.fail(source)),
        };
        if self.info.foreign_uuid && !std::mem::replace(&mut self.told.foreign_uuid, true) {
            self.warn(Oddity::ForeignUuid);
        }
        self.peeked = None;
        self.begin = self.info.begin;
        self.end = self.info.end;
        self.correct()?;
        self.find_losses();
        if self.from_ns.is_some() {
            // Before the time that was sought, losses are left out like events.
            let class = &self.stream.class;
            let timed = self.end.is_some() && class.packets_have_begin_time && class.packets_have_end_time;
            let end = self.end.and_then(|end| self.clock.snapshot(&self.stream, end));
            if end.and_then(|end| end.ns) < self.from_ns {
                self.lost_events = None;
                self.lost_packets = None;
                // Its events all are before that time: they need not be found.
                let true_end = timed && self.end != Some(0) && !self.quirks.event_after_packet;
                if true_end && !self.quirks.event_before_packet {
                    self.decoder.skip_rest();
                }
            }
        }
        if let Some(loss) = self.lost_events {
            self.stand(At::LostEvents, loss.begin);
            return Ok(Status::Ready);
        }
        Ok(self.lost_packets_or_begin())
    }

    fn lost_packets_or_begin(&mut self) -> Status {
        self.lost_events = None;
        if let Some(loss) = self.lost_packets {
            self.stand(At::LostPackets, loss.begin);
            return Status::Ready;
        }
        self.packet_begin()
    }

    fn packet_begin(&mut self) -> Status {
        self.lost_packets = None;
        let begin = self.begin.filter(|_| self.stream.class.packets_have_begin_time);
        self.stand(At::PacketBegin, begin);
        Status::Ready
    }

    /// The packet begins at its first event if the tracer may have dated it later. Ends are
    /// corrected when the last event is known.
    fn correct(&mut self) -> Result<(), Error> {
        if !self.quirks.event_before_packet {
            return Ok(());
        }
        let found = match self.decoder.next_event(&self.stream.class, self.packets.bytes()) {
            Ok(found) => found,
            Err(source) => return Err(self.fail(source)),
        };
        self.peeked = Some(found);
        if found && let Some(begin) = &mut self.begin {
            *begin = (*begin).min(self.decoder.clock());
        }
        Ok(())
    }

    /// Compares the counters with those of the packet before.
    fn find_losses(&mut self) {
        self.lost_events = None;
        self.lost_packets = None;
        let info = &self.info;
        let class = &self.stream.class;
        let timed = class.packets_have_begin_time && class.packets_have_end_time;
        let begin = self.begin.filter(|_| timed);
        let end = self.end.filter(|_| timed);
        let Some(previous) = self.previous else {
            // The counter started at an unknown value.
            if info.events_discarded.is_some_and(|count| count > 0) {
                self.lost_events = Some(Loss { count: None, begin, end });
            }
            return;
        };
        let previous_end = previous.end.filter(|_| timed);
        if let (Some(now), Some(before)) = (info.events_discarded, previous.discarded) {
            let bits = info.events_discarded_bits;
            let count = if now >= before {
                now - before
            } else if bits < 64 {
                // A narrow counter has wrapped.
                (now + (1 << bits)).saturating_sub(before)
            } else {
                0
            };
            if count > 0 {
                self.lost_events = Some(Loss { count: Some(count), begin: previous_end, end });
            }
        }
        if let (Some(now), Some(before)) = (info.sequence, previous.sequence)
            && now > before
            && now - before > 1
        {
            let count = Some(now - before - 1);
            self.lost_packets = Some(Loss { count, begin: previous_end, end: begin });
        }
    }

    /// The message stood on.
    #[inline(always)]
    pub fn current(&self) -> Option<Message<'_>> {
        if self.at == At::Event {
            let bytes = self.packets.bytes();
            let cycles = self.decoder.clock();
            let clock = match self.times.get(self.decoder.position_at_hand()) {
                Some(ns) => Some(ClockSnapshot { cycles, ns: Some(*ns) }),
                None => self.clock.snapshot(&self.stream, cycles),
            };
            return Event::of_decoder(&self.stream, clock, bytes, &self.decoder).map(Message::Event);
        }
        self.current_rarely()
    }

    #[inline(never)]
    fn current_rarely(&self) -> Option<Message<'_>> {
        let edge = || StreamEdge { stream: &self.stream, clock: self.snapshot };
        let packet = || {
            let bytes = self.packets.bytes();
            Packet::of_decoder(&self.stream, self.snapshot, &self.info, bytes, &self.decoder)
        };
        let loss = |loss: &Option<Loss>| {
            loss.map(|loss| Discarded {
                stream: &self.stream,
                count: loss.count,
                begin: self.snapshot,
                end: loss.end.and_then(|end| self.clock.snapshot(&self.stream, end)),
            })
        };
        match self.at {
            At::StreamBegin => Some(Message::StreamBegin(edge())),
            At::StreamEnd => Some(Message::StreamEnd(edge())),
            At::EarlyInactivity | At::Inactivity => Some(Message::Inactivity(edge())),
            At::PacketBegin => Some(Message::PacketBegin(packet())),
            At::PacketEnd => Some(Message::PacketEnd(packet())),
            At::LostEvents => loss(&self.lost_events).map(Message::DiscardedEvents),
            At::LostPackets => loss(&self.lost_packets).map(Message::DiscardedPackets),
            At::Event | At::Start | At::Done => None,
        }
    }

    /// Leaves out the rest of the current packet's events.
    pub fn skip_packet(&mut self) -> bool {
        if !matches!(self.at, At::PacketBegin | At::Event) {
            return false;
        }
        self.peeked = None;
        self.decoder.skip_rest();
        true
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        let is_over = matches!(self.at, At::Start | At::StreamEnd | At::Done);
        Position {
            at: self.at,
            place: if is_over { PacketPlace::default() } else { self.packets.place() },
            bit: if self.at == At::Event { self.decoder.event_at_bits() } else { 0 },
        }
    }

    /// Leaves out the events before `ns` from here on, up to the first that is not before it; none
    /// is the end of that.
    pub(crate) fn skip_until(&mut self, ns: Option<i64>) {
        self.from_ns = ns;
        self.stepping = self.at == At::Event && ns.is_none();
        if self.stepping {
            self.date_events();
        }
    }

    /// Starts again near a time: stream begin, then the packet that is open at `ns` and its events
    /// from `ns` on. False when the packets can not be sought.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn seek(&mut self, ns: i64) -> Result<bool, Error> {
        let Some(clock) = self.stream.class.clock.clone() else {
            return Ok(false);
        };
        let cycles = clock.cycles_at(ns).unwrap_or(u64::MAX);
        let Some(before) = self.packets.seek(cycles)? else {
            return Ok(false);
        };
        self.previous = before.map(|info| Previous {
            end: info.end,
            discarded: info.events_discarded,
            sequence: info.sequence,
        });
        // The clock that was read so far is not that of the packets before these.
        self.decoder = PacketDecoder::with_batch(self.batch);
        self.at = At::Start;
        self.snapshot = None;
        self.peeked = None;
        self.lost_events = None;
        self.lost_packets = None;
        self.from_ns = Some(ns);
        self.stepping = false;
        Ok(true)
    }
}

/// Whether no clock is before the one in front of it; without a branch for each.
fn is_sorted(clocks: &[u64]) -> bool {
    let later = clocks.get(1..).unwrap_or_default();
    clocks.iter().zip(later).fold(true, |sorted, (before, after)| sorted & (before <= after))
}

impl Clock {
    fn of(stream: &Stream) -> Self {
        match &stream.class.clock {
            None => Self::None,
            Some(clock) if clock.frequency_hz == 1_000_000_000 => match clock.ns_from_origin(0) {
                Some(base) => Self::Ghz(base),
                None => Self::Other,
            },
            Some(_) => Self::Other,
        }
    }

    #[inline]
    fn ns(self, stream: &Stream, cycles: u64) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Ghz(base) => base.checked_add_unsigned(cycles),
            Self::Other => stream.class.clock.as_ref()?.ns_from_origin(cycles),
        }
    }

    #[inline]
    fn snapshot(self, stream: &Stream, cycles: u64) -> Option<ClockSnapshot> {
        match self {
            Self::None => None,
            _ => Some(ClockSnapshot { cycles, ns: self.ns(stream, cycles) }),
        }
    }
}
