//! A range of time: Babeltrace's `filter.utils.trimmer`.
//!
//! Begin and end belong to the range. The source is asked to go to the begin, so that nothing
//! before it is read if the source can seek. What crosses an end of the range is cut there: a
//! stream or packet that is open at the begin begins there, one that is open at the end ends there,
//! a loss loses its count, because how much of it lies inside is not known.

use std::collections::VecDeque;

use sillage_ctf::message::{Discarded, Packet, StreamEdge};
use sillage_ctf::model::{ClockSnapshot, Stream};
use sillage_ctf::{Message, PacketDecoder, PacketInfo};

use super::Bound;
use crate::sinks::Zone;
use crate::sources::SliceRange;
use crate::{Error, Messages, Run, Status, TakesRuns, Warning};

/// Passes on what lies in a range of time.
#[derive(Debug)]
pub struct Trimmer<M> {
    source: M,
    bounds: Bounds,
    begin: Option<i64>,
    end: Option<i64>,
    /// By number of the stream.
    streams: Vec<Option<State>>,
    /// What is still to be given for the source's current message, or after its end.
    steps: VecDeque<Step>,
    current: Option<Step>,
    finished: bool,
    /// For packets that end without being at hand.
    decoder: PacketDecoder,
}

#[derive(Debug)]
enum Bounds {
    /// As given, with the zone for the missing dates.
    Given(Option<Bound>, Option<Bound>, Zone),
    /// `begin` and `end` are known and the source was sought.
    Known,
}

/// What is known of a stream.
#[derive(Debug, Clone)]
struct State {
    stream: Stream,
    /// Its begin was given.
    begun: bool,
    /// A message of it was seen that has a time.
    timed: bool,
    /// A packet is open in the source.
    packet: Option<PacketInfo>,
    /// The begin of that packet was given.
    packet_begun: bool,
}

/// A message to give.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The source's message.
    Message,
    /// The source's message, a loss, with other ends.
    Loss {
        begin: Option<ClockSnapshot>,
        end: Option<ClockSnapshot>,
    },
    StreamBegin {
        stream: usize,
        clock: Option<ClockSnapshot>,
    },
    /// The packet that the source's message is in or of.
    PacketBegin {
        stream: usize,
        clock: Option<ClockSnapshot>,
    },
    PacketEnd {
        stream: usize,
        clock: Option<ClockSnapshot>,
    },
    StreamEnd {
        stream: usize,
        clock: Option<ClockSnapshot>,
    },
}

/// What the source stands on, as far as the range matters.
enum Kind {
    StreamBegin,
    StreamEnd,
    PacketBegin(PacketInfo),
    PacketEnd,
    Event,
    Loss(Option<ClockSnapshot>, Option<ClockSnapshot>),
    Inactivity,
}

impl<M: Messages> Trimmer<M> {
    /// The part of `source` from `begin` to `end`, both included; none is the source's own. `zone`
    /// is for bounds without a date.
    ///
    /// # Errors
    /// A begin after the end, as far as both are known.
    pub fn new(source: M, begin: Option<Bound>, end: Option<Bound>, zone: Zone) -> Result<Self, Error> {
        check_order(begin.and_then(Bound::known_ns), end.and_then(Bound::known_ns))?;
        Ok(Self {
            source,
            bounds: Bounds::Given(begin, end, zone),
            begin: None,
            end: None,
            streams: Vec::new(),
            steps: VecDeque::new(),
            current: None,
            finished: false,
            decoder: PacketDecoder::new(),
        })
    }

    /// The first time: finds the bounds and goes to the begin. A status is what the source says
    /// while there is nothing to find a date by.
    fn start(&mut self) -> Result<Option<Status>, Error> {
        let Bounds::Given(begin, end, zone) = &self.bounds else {
            return Ok(None);
        };
        let (begin, end, zone) = (*begin, *end, zone.clone());
        let known = |bound: Option<Bound>| bound.is_none_or(|bound| bound.known_ns().is_some());
        if known(begin) && known(end) {
            self.begin = begin.and_then(Bound::known_ns);
            self.end = end.and_then(Bound::known_ns);
        } else {
            let first = loop {
                match self.source.advance()? {
                    Status::Ready => {}
                    other => return Ok(Some(other)),
                }
                if let Some(ns) = self.source.current().and_then(|m| m.clock()).and_then(|c| c.ns) {
                    break ns;
                }
                self.hold();
            };
            let resolve = |bound: Option<Bound>| match bound {
                Some(bound) => bound
                    .ns_on_day_of(first, &zone)
                    .map(Some)
                    .ok_or_else(|| Error::Other("time of day does not exist on the day of the trace".into())),
                None => Ok(None),
            };
            self.begin = resolve(begin)?;
            self.end = resolve(end)?;
            check_order(self.begin, self.end)?;
        }
        self.bounds = Bounds::Known;
        let sought = match self.begin {
            Some(begin) => self.source.seek(begin)?,
            None => false,
        };
        if sought {
            self.streams.clear();
        } else if self.source.current().is_some() {
            self.plan()?;
        }
        Ok(None)
    }

    /// Remembers a stream that begins while the bounds are not known.
    fn hold(&mut self) {
        if let Some(Message::StreamBegin(edge)) = self.source.current() {
            let stream = edge.stream.clone();
            self.enter(stream);
        }
    }

    fn enter(&mut self, stream: Stream) {
        let index = stream.index;
        if self.streams.len() <= index {
            self.streams.resize(index + 1, None);
        }
        self.streams[index] =
            Some(State { stream, begun: false, timed: false, packet: None, packet_begun: false });
    }

    /// The clock of a stream where the range begins: its smallest value that is in the range. (A
    /// nanosecond can be several cycles.)
    fn at_begin(&self, stream: usize) -> Option<ClockSnapshot> {
        let ns = self.begin?;
        let clock = self.known(stream)?.stream.class.clock.as_ref()?;
        let cycles = first_cycles(clock.cycles_at(ns)?, |cycles| {
            clock.ns_from_origin(cycles).is_none_or(|at| at >= ns)
        });
        Some(ClockSnapshot { cycles, ns: Some(ns) })
    }

    /// The clock of a stream where the range ends: its largest value that is in the range.
    fn at_end(&self, stream: usize) -> Option<ClockSnapshot> {
        let ns = self.end?;
        let clock = self.known(stream)?.stream.class.clock.as_ref()?;
        let after = first_cycles(clock.cycles_at(ns)?, |cycles| {
            clock.ns_from_origin(cycles).is_none_or(|at| at > ns)
        });
        Some(ClockSnapshot { cycles: after.saturating_sub(1), ns: Some(ns) })
    }

    /// Decides what is given for the source's current message.
    fn plan(&mut self) -> Result<(), Error> {
        let Some(message) = self.source.current() else {
            return Ok(());
        };
        let index = message.stream().index;
        let kind = match &message {
            Message::StreamBegin(_) => Kind::StreamBegin,
            Message::StreamEnd(_) => Kind::StreamEnd,
            Message::PacketBegin(packet) => Kind::PacketBegin(*packet.info),
            Message::PacketEnd(_) => Kind::PacketEnd,
            Message::Event(_) => Kind::Event,
            Message::DiscardedEvents(loss) | Message::DiscardedPackets(loss) => {
                Kind::Loss(loss.begin, loss.end)
            }
            Message::Inactivity(_) => Kind::Inactivity,
        };
        let ns = message.clock().and_then(|clock| clock.ns);
        let known = self.streams.get(index).is_some_and(Option::is_some);
        if !known || matches!(kind, Kind::StreamBegin) {
            if message.stream().class.clock.is_none() {
                let name = message.stream().name.clone().unwrap_or_default();
                let text = format!("stream \"{name}\" has no clock: it can not be cut by time");
                return Err(Error::Other(text));
            }
            let stream = message.stream().clone();
            self.enter(stream);
        }
        if ns.is_some_and(|ns| self.end.is_some_and(|end| ns > end)) {
            self.finish();
            return Ok(());
        }
        match kind {
            Kind::StreamBegin => {
                if self.begin.is_none() {
                    self.begin_stream(index, None);
                }
            }
            Kind::StreamEnd => self.end_stream(index, ns),
            Kind::PacketBegin(info) => self.begin_packet(index, info, ns),
            Kind::Event | Kind::Inactivity => self.inside(index, ns, Step::Message),
            Kind::PacketEnd => {
                self.inside(index, ns, Step::Message);
                if let Some(Some(state)) = self.streams.get_mut(index) {
                    state.packet = None;
                    state.packet_begun = false;
                }
            }
            Kind::Loss(begin, end) => self.loss(index, begin, end),
        }
        Ok(())
    }

    fn state(&mut self, index: usize) -> Option<&mut State> {
        self.streams.get_mut(index)?.as_mut()
    }

    fn before(&self, ns: Option<i64>) -> bool {
        matches!((ns, self.begin), (Some(ns), Some(begin)) if ns < begin)
    }

    /// Gives the begin of a stream, if it was not given.
    fn begin_stream(&mut self, index: usize, clock: Option<ClockSnapshot>) {
        let Some(state) = self.state(index) else {
            return;
        };
        if !std::mem::replace(&mut state.begun, true) {
            self.steps.push_back(Step::StreamBegin { stream: index, clock });
        }
    }

    /// The begin of a stream before a message at `ns`: unknown, or that of the range if the stream
    /// was there before.
    fn begin_stream_for(&mut self, index: usize, early: bool) {
        let was_there = early || self.streams[index].as_ref().is_some_and(|state| state.timed);
        let clock = if was_there { self.at_begin(index) } else { None };
        self.begin_stream(index, clock);
    }

    fn begin_packet(&mut self, index: usize, info: PacketInfo, ns: Option<i64>) {
        let early = self.before(ns);
        if !early {
            self.begin_stream_for(index, false);
            self.steps.push_back(Step::Message);
        }
        if let Some(state) = self.state(index) {
            state.packet = Some(info);
            state.packet_begun = !early;
            state.timed |= ns.is_some();
        }
    }

    /// A message inside a stream that is given as it is, after what has to be begun before it.
    fn inside(&mut self, index: usize, ns: Option<i64>, step: Step) {
        if self.before(ns) {
            if let Some(state) = self.state(index) {
                state.timed = true;
            }
            return;
        }
        let open = |state: &State| state.packet.is_some() && !state.packet_begun;
        let begins_packet = self.streams[index].as_ref().is_some_and(open);
        self.begin_stream_for(index, begins_packet);
        if begins_packet {
            let has_time = |state: &State| state.stream.class.packets_have_begin_time;
            let clock = self.at_begin(index);
            let clock = clock.filter(|_| self.streams[index].as_ref().is_some_and(has_time));
            self.steps.push_back(Step::PacketBegin { stream: index, clock });
        }
        if let Some(state) = self.state(index) {
            state.packet_begun |= begins_packet;
            state.timed |= ns.is_some();
        }
        self.steps.push_back(step);
    }

    fn loss(&mut self, index: usize, begin: Option<ClockSnapshot>, end: Option<ClockSnapshot>) {
        let (begin_ns, end_ns) = (begin.and_then(|c| c.ns), end.and_then(|c| c.ns));
        if self.before(end_ns) {
            if let Some(state) = self.state(index) {
                state.timed = true;
            }
            return;
        }
        let early = self.before(begin_ns);
        let late = matches!((end_ns, self.end), (Some(ns), Some(last)) if ns > last);
        self.begin_stream_for(index, early);
        let step = if early || late {
            Step::Loss {
                begin: if early { self.at_begin(index) } else { begin },
                end: if late { self.at_end(index) } else { end },
            }
        } else {
            Step::Message
        };
        if let Some(state) = self.state(index) {
            state.timed |= begin_ns.is_some();
        }
        self.steps.push_back(step);
    }

    fn end_stream(&mut self, index: usize, ns: Option<i64>) {
        let begun = self.streams[index].as_ref().is_some_and(|state| state.begun);
        if begun && !self.before(ns) {
            self.steps.push_back(Step::Message);
        }
        if begun && let Some(state) = self.state(index) {
            // Nothing is left to end when the range ends.
            state.begun = false;
            state.packet = None;
        }
    }

    /// Ends everything that is open at the end of the range.
    fn finish(&mut self) {
        self.finished = true;
        for index in 0..self.streams.len() {
            let Some(state) = &self.streams[index] else {
                continue;
            };
            if !state.begun {
                continue;
            }
            let (timed, in_packet) = (state.timed, state.packet.is_some());
            let clock = self.at_end(index);
            if in_packet {
                let has_time =
                    self.streams[index].as_ref().is_some_and(|s| s.stream.class.packets_have_end_time);
                self.steps.push_back(Step::PacketEnd { stream: index, clock: clock.filter(|_| has_time) });
            }
            self.steps.push_back(Step::StreamEnd { stream: index, clock: clock.filter(|_| timed) });
        }
    }

    fn known(&self, stream: usize) -> Option<&State> {
        self.streams.get(stream)?.as_ref()
    }
}

/// The first value from `from` on for which it is so, and then for all larger ones.
fn first_cycles(from: u64, is_so: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (from, u64::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_so(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

fn check_order(begin: Option<i64>, end: Option<i64>) -> Result<(), Error> {
    match (begin, end) {
        (Some(begin), Some(end)) if begin > end => Err(Error::Other(format!(
            "the begin of the time range ({begin} ns from the origin) is after its end ({end} ns)"
        ))),
        _ => Ok(()),
    }
}

impl<M: Messages> Messages for Trimmer<M> {
    fn advance(&mut self) -> Result<Status, Error> {
        if let Some(status) = self.start()? {
            return Ok(status);
        }
        loop {
            self.current = self.steps.pop_front();
            if self.current.is_some() {
                return Ok(Status::Ready);
            }
            if self.finished {
                return Ok(Status::End);
            }
            match self.source.advance()? {
                Status::Ready => self.plan()?,
                other => return Ok(other),
            }
        }
    }

    fn current(&self) -> Option<Message<'_>> {
        match self.current? {
            Step::Message => self.source.current(),
            Step::Loss { begin, end } => match self.source.current()? {
                Message::DiscardedEvents(loss) => {
                    Some(Message::DiscardedEvents(Discarded { count: None, begin, end, ..loss }))
                }
                Message::DiscardedPackets(loss) => {
                    Some(Message::DiscardedPackets(Discarded { count: None, begin, end, ..loss }))
                }
                other => Some(other),
            },
            Step::StreamBegin { stream, clock } => {
                Some(Message::StreamBegin(StreamEdge { stream: &self.known(stream)?.stream, clock }))
            }
            Step::StreamEnd { stream, clock } => {
                Some(Message::StreamEnd(StreamEdge { stream: &self.known(stream)?.stream, clock }))
            }
            Step::PacketBegin { stream, clock } => {
                let info = self.known(stream)?.packet.as_ref()?;
                let mut packet = match self.source.current()? {
                    Message::Event(event) => event.packet(info),
                    Message::PacketEnd(packet) => packet,
                    _ => return None,
                };
                packet.clock = clock;
                Some(Message::PacketBegin(packet))
            }
            Step::PacketEnd { stream, clock } => {
                let state = self.known(stream)?;
                let info = state.packet.as_ref()?;
                let packet = Packet::of_decoder(&state.stream, clock, info, &[], &self.decoder);
                Some(Message::PacketEnd(packet))
            }
        }
    }

    fn skip_packet(&mut self) -> bool {
        // Only a packet that lies in the range as a whole may be taken as a whole.
        let Some(Step::Message) = self.current else {
            return false;
        };
        let Some(Message::PacketBegin(packet)) = self.source.current() else {
            return false;
        };
        let info = packet.info;
        // An end before the begin is none: the tracer died.
        let end = info.end.filter(|end| info.begin.is_none_or(|begin| begin <= *end));
        let end = end.and_then(|end| packet.stream.class.clock.as_ref()?.ns_from_origin(end));
        let whole = match (end, self.end) {
            (_, None) => true,
            (Some(ns), Some(end)) => ns <= end,
            (None, Some(_)) => false,
        };
        whole && self.source.skip_packet()
    }

    fn give_runs(&mut self, range: SliceRange, to: &mut dyn TakesRuns) -> Result<usize, Error> {
        // Once everything is open that was open at the begin, events in the range only pass through.
        let is_open = |state: &State| state.packet.is_none() || state.packet_begun;
        let passes = matches!((&self.bounds, self.current), (Bounds::Known, Some(Step::Message)));
        if !passes || !self.steps.is_empty() || !self.streams.iter().flatten().all(is_open) {
            return Ok(0);
        }
        let end = self.end.and_then(|end| end.checked_add(1));
        let range = SliceRange {
            from_ns: range.from_ns.max(self.begin),
            to_ns: [range.to_ns, end].into_iter().flatten().min(),
        };
        self.source.give_runs(range, &mut Timed { streams: &mut self.streams, to })
    }

    fn take_warnings(&mut self) -> Vec<Warning> {
        self.source.take_warnings()
    }
}

/// Remembers of which streams events with times went through.
struct Timed<'a> {
    streams: &'a mut Vec<Option<State>>,
    to: &'a mut dyn TakesRuns,
}

impl TakesRuns for Timed<'_> {
    fn room(&self) -> usize {
        self.to.room()
    }

    fn run(&mut self, run: &Run<'_>) -> Result<usize, Error> {
        if let Some(Some(state)) = self.streams.get_mut(run.stream.index) {
            state.timed = true;
        }
        self.to.run(run)
    }
}
