//! What a trace holds: events by name, rates, sizes, losses.
//!
//! Counts only; nothing is kept of single events. The sizes are those of the records in the trace,
//! headers included.

use std::collections::HashMap;
use std::sync::Arc;

use sillage_ctf::model::{EventClass, Stream, Trace};
use sillage_ctf::{Discarded, Event, Message, Packet};

use super::Sink;
use crate::{Error, Run, TakesRuns};

/// Counts of one kind of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventStats {
    /// Name of the event.
    pub name: String,
    /// How many there are.
    pub count: u64,
    /// Bits of their records.
    pub size_bits: u64,
}

/// Counts of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Name of the trace.
    pub trace: String,
    /// Id of the stream class.
    pub class_id: u64,
    /// Id of the stream.
    pub id: u64,
    /// Events.
    pub events: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes of its packets.
    pub size_bytes: u64,
    /// Events that the tracer lost.
    pub lost_events: u64,
    /// Packets that the tracer lost.
    pub lost_packets: u64,
    /// Losses without a count.
    pub uncounted_losses: u64,
}

impl StreamStats {
    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.packets += other.packets;
        self.size_bytes += other.size_bytes;
        self.lost_events += other.lost_events;
        self.lost_packets += other.lost_packets;
        self.uncounted_losses += other.uncounted_losses;
    }
}

/// Counts everything.
#[derive(Debug, Default)]
pub struct Stats {
    /// By number of the trace and of the class.
    kinds: Vec<Vec<Option<usize>>>,
    names: HashMap<String, usize>,
    events: Vec<EventStats>,
    streams: Vec<StreamStats>,
    /// By number of the stream: merged sources share numbers.
    places: Vec<Vec<(Arc<Trace>, usize)>>,
    first_ns: Option<i64>,
    last_ns: Option<i64>,
}

impl Stats {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was counted elsewhere, in other streams.
    pub fn add(&mut self, other: Self) {
        for event in other.events {
            let at = self.enter_name(&event.name);
            self.events[at].count += event.count;
            self.events[at].size_bits += event.size_bits;
        }
        for stream in other.streams {
            let same = |known: &&mut StreamStats| {
                known.trace == stream.trace && known.class_id == stream.class_id && known.id == stream.id
            };
            match self.streams.iter_mut().find(same) {
                Some(known) => known.add(&stream),
                None => self.streams.push(stream),
            }
        }
        self.first_ns = [self.first_ns, other.first_ns].into_iter().flatten().min();
        self.last_ns = self.last_ns.max(other.last_ns);
    }

    /// Events by name, most frequent first.
    pub fn events(&self) -> Vec<&EventStats> {
        let mut sorted: Vec<_> = self.events.iter().filter(|event| event.count > 0).collect();
        sorted.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        sorted
    }

    /// Streams, in the order of their names and ids.
    pub fn streams(&self) -> Vec<&StreamStats> {
        let mut sorted: Vec<_> = self.streams.iter().collect();
        sorted.sort_by(|a, b| (&a.trace, a.class_id, a.id).cmp(&(&b.trace, b.class_id, b.id)));
        sorted
    }

    /// Time of the first and the last event, if events have times.
    pub fn range_ns(&self) -> Option<(i64, i64)> {
        Some((self.first_ns?, self.last_ns?))
    }

    fn stream(&mut self, stream: &Stream) -> &mut StreamStats {
        let known = self.places.get(stream.index);
        let known =
            known.and_then(|places| places.iter().find(|(trace, _)| Arc::ptr_eq(trace, &stream.trace)));
        let at = match known {
            Some((_, at)) => *at,
            None => self.enter_stream(stream),
        };
        &mut self.streams[at]
    }

    #[cold]
    fn enter_stream(&mut self, stream: &Stream) -> usize {
        let trace = stream.trace.name.clone().unwrap_or_default();
        let same = |known: &StreamStats| {
            known.trace == trace && known.class_id == stream.class.id && known.id == stream.id
        };
        let at = self.streams.iter().position(same).unwrap_or_else(|| {
            let (class_id, id) = (stream.class.id, stream.id);
            self.streams.push(StreamStats { trace: trace.clone(), class_id, id, ..StreamStats::default() });
            self.streams.len() - 1
        });
        if self.places.len() <= stream.index {
            self.places.resize_with(stream.index + 1, Vec::new);
        }
        self.places[stream.index].push((Arc::clone(&stream.trace), at));
        at
    }

    fn event(&mut self, event: &Event<'_>) {
        let (from, to) = event.record_bits();
        self.record(event.stream.trace.index, event.class, 1, to.saturating_sub(from));
        if let Some(ns) = event.clock.and_then(|clock| clock.ns) {
            self.time(ns);
        }
    }

    /// Counts events of one class, of the trace of this number, with the size of all together.
    fn record(&mut self, trace: usize, class: &EventClass, count: u64, size_bits: u64) {
        let name = class.name.as_deref().unwrap_or_default();
        let known = self.kinds.get(trace).and_then(|kinds| *kinds.get(class.index)?);
        let at = match known {
            // Merged sources share numbers of traces, so the name decides.
            Some(at) if self.events[at].name == name => at,
            _ => self.enter(trace, class.index, name),
        };
        let stats = &mut self.events[at];
        stats.count += count;
        stats.size_bits += size_bits;
    }

    fn time(&mut self, ns: i64) {
        self.first_ns = Some(self.first_ns.map_or(ns, |first| first.min(ns)));
        self.last_ns = Some(self.last_ns.map_or(ns, |last| last.max(ns)));
    }

    fn enter_name(&mut self, name: &str) -> usize {
        *self.names.entry(name.to_owned()).or_insert_with(|| {
            self.events.push(EventStats { name: name.to_owned(), ..EventStats::default() });
            self.events.len() - 1
        })
    }

    #[cold]
    fn enter(&mut self, trace: usize, class: usize, name: &str) -> usize {
        let at = self.enter_name(name);
        if self.kinds.len() <= trace {
            self.kinds.resize_with(trace + 1, Vec::new);
        }
        let kinds = &mut self.kinds[trace];
        if kinds.len() <= class {
            kinds.resize(class + 1, None);
        }
        kinds[class] = Some(at);
        at
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        let size_bytes = packet.bytes.len() as u64;
        let stats = self.stream(packet.stream);
        stats.packets += 1;
        stats.size_bytes += size_bytes;
    }

    fn lost(&mut self, loss: &Discarded<'_>, packets: bool) {
        let stats = self.stream(loss.stream);
        match loss.count {
            None => stats.uncounted_losses += 1,
            Some(count) if packets => stats.lost_packets += count,
            Some(count) => stats.lost_events += count,
        }
    }
}

impl Sink for Stats {
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        match message {
            Message::Event(event) => {
                self.event(event);
                self.stream(event.stream).events += 1;
            }
            Message::PacketBegin(packet) => self.packet(packet),
            Message::DiscardedEvents(loss) => self.lost(loss, false),
            Message::DiscardedPackets(loss) => self.lost(loss, true),
            Message::StreamBegin(edge) => {
                self.stream(edge.stream);
            }
            _ => {}
        }
        Ok(())
    }

    fn as_runs(&mut self) -> Option<&mut dyn TakesRuns> {
        Some(self)
    }
}

impl TakesRuns for Stats {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn run(&mut self, run: &Run<'_>) -> Result<usize, Error> {
        let columns = run.columns;
        let mut rows = columns.event_class_positions().zip(columns.record_bits()).peekable();
        while let Some((class, (from, to))) = rows.next() {
            // Many traces have long rows of one class.
            let (mut count, mut size_bits) = (1, to.saturating_sub(from));
            while let Some((_, (from, to))) = rows.next_if(|(next, _)| *next == class) {
                count += 1;
                size_bits += to.saturating_sub(from);
            }
            if let Some(class) = run.stream.class.event_classes.get(class) {
                self.record(run.stream.trace.index, class, count, size_bits);
            }
        }
        let (first, last) = (run.times_ns.iter().min(), run.times_ns.iter().max());
        first.into_iter().chain(last).for_each(|ns| self.time(*ns));
        self.stream(run.stream).events += columns.len() as u64;
        Ok(columns.len())
    }
}
