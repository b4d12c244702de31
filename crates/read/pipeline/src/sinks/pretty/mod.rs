//! One line of text per event, byte for byte that of Babeltrace's `sink.text.pretty`.
//!
//! ```text
//! [21:20:15.327941112] (+11.404514254) joraj-alpa app:event: { cpu_id = 2 }, { vpid = 15062 }, { n = 1 }
//! ```
//!
//! What does not change from event to event (what stands before the name, field names, the packet's
//! context, the whole second of the time) is made once and copied; nothing is allocated per event.
//! Losses are not lines of the text: they are told to the `notes` writer, Babeltrace's standard
//! error, after the text so far was written.

mod fields;
mod head;
mod line;
mod options;
mod palette;
mod program;
mod slices;
mod turns;
mod value;

use std::io::Write;
use std::sync::Arc;

use sillage_ctf::model::{ClockSnapshot, Scope, Stream, Trace};
use sillage_ctf::{Discarded, Event, Message};

pub use options::{ClockFormat, Dialect, Headings, Names, NegativeTimes, Options};
pub use slices::{Slices, Watch};

use self::fields::{FieldWriter, Forms};
use self::head::head_of;
use self::line::Line;
use self::palette::Palette;
use self::program::{Leads, Program};
use self::turns::Share;
use self::value::EnumStyle;
use super::number::{Piece, push_padded, push_u64};
use super::time::{WallClock, push_seconds};
use super::{Output, Sink};
use crate::Error;

/// Writes events as text.
pub struct Pretty {
    options: Options,
    palette: Palette,
    wall: Option<WallClock>,
    output: Output,
    notes: Box<dyn Write + Send>,
    times: LastTimes,
    /// By number of the stream in its source; sources that are merged share numbers.
    streams: Vec<Vec<StreamState>>,
    traces: Vec<TraceForms>,
    indexes: Vec<u64>,
    /// Where the difference to an event is told that another worker writes; see [`slices`].
    share: Option<Share>,
    /// Whether events may be written by their programs: without colours and names in the header.
    is_plain: bool,
}

/// Times of the event written last.
#[derive(Debug, Default, Clone, Copy)]
struct LastTimes {
    ns: Option<i64>,
    cycles: Option<u64>,
    warned_negative: bool,
}

#[derive(Debug)]
struct StreamState {
    /// The trace, and where its forms are.
    of: Arc<Trace>,
    trace: usize,
    /// Text of the context of the packet, with its scope name.
    packet: Piece,
}

/// What is prepared for a trace.
#[derive(Debug)]
struct TraceForms {
    trace: Arc<Trace>,
    style: EnumStyle,
    /// By position of the stream class.
    streams: Vec<StreamForms>,
    /// By number of the event class.
    events: Vec<Option<Box<EventForms>>>,
}

#[derive(Debug, Default)]
struct StreamForms {
    packet: Forms,
    common: Forms,
}

#[derive(Debug)]
struct EventForms {
    /// From after the time to the name.
    head: Piece,
    /// What stands before each scope; none for a scope that there is not.
    common_lead: Option<Piece>,
    specific_lead: Option<Piece>,
    payload_lead: Option<Piece>,
    specific: Forms,
    payload: Forms,
    /// Writes all from the first scope on, if it can.
    program: Option<Program>,
}

impl std::fmt::Debug for Pretty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pretty").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Pretty {
    /// Writes text to `output` and what is lost to `notes`.
    pub fn new(options: Options, output: Output, notes: Box<dyn Write + Send>) -> Self {
        let wall = match &options.clock {
            ClockFormat::TimeOfDay { zone, with_date } => Some(WallClock::new(zone.clone(), *with_date)),
            ClockFormat::Seconds | ClockFormat::Cycles => None,
        };
        Self {
            palette: Palette::new(options.color),
            is_plain: !options.color && !options.names.header && wall.is_some(),
            options,
            wall,
            output,
            notes,
            times: LastTimes::default(),
            streams: Vec::new(),
            traces: Vec::new(),
            indexes: Vec::new(),
            share: None,
        }
    }

    #[inline]
    fn event(&mut self, event: &Event<'_>) -> Result<(), Error> {
        if self.is_plain && self.event_by_program(event)?.is_some() {
            return Ok(());
        }
        self.event_by_fields(event)
    }

    /// Writes an event of a usual kind; `None` and nothing when it has to be done field by field.
    #[inline]
    fn event_by_program(&mut self, event: &Event<'_>) -> Result<Option<()>, Error> {
        let Some(place) = self.find(event.stream) else {
            return Ok(None);
        };
        let Self { output, traces, streams, options, wall, times, .. } = self;
        let state = &streams[event.stream.index][place];
        let forms = traces[state.trace].events.get_mut(event.class.index);
        let Some(own) = forms.and_then(|own| own.as_deref_mut()) else {
            return Ok(None);
        };
        let Some(program) = &mut own.program else {
            return Ok(None);
        };
        let ns = event.clock.and_then(|clock| clock.ns);
        let mut line = Line::new(output.line()?);
        let mut write = || {
            if event.stream.class.clock.is_some() {
                let delta_ns = ns?.wrapping_sub(times.ns?);
                let (stamp, len) = wall.as_mut()?.stamp(ns?, options.delta.then_some(delta_ns))?;
                line.put(stamp, len)?;
            }
            line.piece(&own.head)?;
            line.piece(&state.packet)?;
            program.run(&mut line, event)
        };
        if write().is_none() {
            return Ok(None);
        }
        let len = line.len();
        output.take_line(len);
        times.ns = ns.or(times.ns);
        Ok(Some(()))
    }

    #[inline(never)]
    fn event_by_fields(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let stream = event.stream;
        let place = match self.find(stream) {
            Some(place) => place,
            None => {
                let place = self.enter_stream(stream);
                self.packet(stream, place, |writer| {
                    event.visit(Scope::PacketContext, writer);
                });
                place
            }
        };
        if stream.class.clock.is_some() {
            self.time(event.clock)?;
        }
        let Self { output, traces, streams, options, palette, indexes, .. } = self;
        let out = &mut output.bytes;
        let state = &streams[stream.index][place];
        let forms = &mut traces[state.trace];
        if !matches!(forms.events.get(event.class.index), Some(Some(_))) {
            forms.enter_event(event, options, palette);
        }
        let (names, style) = (options.names, forms.style);
        let Some(Some(own)) = forms.events.get_mut(event.class.index) else {
            return Ok(());
        };
        own.head.push(out);
        state.packet.push(out);
        let colored = options.color;
        if let Some(lead) = &own.common_lead
            && let Some(forms) = forms.streams.get_mut(stream.class.index)
        {
            lead.push(out);
            let forms = &mut forms.common;
            let mut writer =
                FieldWriter { out, forms, names: names.context, colored, palette, style, indexes };
            event.visit(Scope::CommonContext, &mut writer);
        }
        if let Some(lead) = &own.specific_lead {
            lead.push(out);
            let forms = &mut own.specific;
            let mut writer =
                FieldWriter { out, forms, names: names.context, colored, palette, style, indexes };
            event.visit(Scope::SpecificContext, &mut writer);
        }
        if let Some(lead) = &own.payload_lead {
            lead.push(out);
            let forms = &mut own.payload;
            let mut writer =
                FieldWriter { out, forms, names: names.payload, colored, palette, style, indexes };
            event.visit(Scope::Payload, &mut writer);
        }
        out.push(b'\n');
        output.settle()
    }

    /// Writes the time and the time since the event before.
    #[inline]
    fn time(&mut self, clock: Option<ClockSnapshot>) -> Result<(), Error> {
        let names = self.options.names.header;
        if names {
            push_name(&mut self.output.bytes, "timestamp", &self.palette);
        } else {
            self.output.bytes.push(b'[');
        }
        self.output.bytes.extend_from_slice(self.palette.timestamp);
        let is_cycles = matches!(self.options.clock, ClockFormat::Cycles);
        let before = self.times;
        if is_cycles {
            match clock {
                Some(clock) => push_padded(&mut self.output.bytes, clock.cycles, 20),
                None => self.output.bytes.extend_from_slice(b"????????????????????"),
            }
            self.times.cycles = clock.map(|clock| clock.cycles).or(before.cycles);
        } else if let Some(ns) = clock.and_then(|clock| clock.ns) {
            self.times.ns = Some(ns);
            self.push_time(ns)?;
        } else {
            self.output.bytes.extend_from_slice(b"??:??:??.?????????");
        }
        let out = &mut self.output.bytes;
        out.extend_from_slice(self.palette.reset);
        if !names {
            out.extend_from_slice(b"] ");
        }
        if !self.options.delta {
            return Ok(());
        }
        if names {
            out.extend_from_slice(b", ");
            push_name(out, "delta", &self.palette);
            out.push(b'+');
        } else {
            out.extend_from_slice(b"(+");
        }
        let own = LastTimes {
            ns: clock.and_then(|clock| clock.ns).filter(|_| !is_cycles),
            cycles: clock.map(|clock| clock.cycles).filter(|_| is_cycles),
            ..LastTimes::default()
        };
        let is_first = before.ns.is_none() && before.cycles.is_none();
        match &self.share {
            // The event before is in the slice of another worker.
            Some(share) if is_first && (own.ns.is_some() || own.cycles.is_some()) => {
                let share = share.clone();
                self.output.flush()?;
                share.difference(own)?;
            }
            _ => push_difference(&mut self.output.bytes, is_cycles, before, own),
        }
        if !names {
            self.output.bytes.extend_from_slice(b") ");
        }
        Ok(())
    }

    #[inline]
    fn push_time(&mut self, ns: i64) -> Result<(), Error> {
        match &mut self.wall {
            Some(wall) if ns >= 0 => wall.push(&mut self.output.bytes, ns),
            None => push_seconds(&mut self.output.bytes, ns),
            Some(wall) => {
                let first = !std::mem::replace(&mut self.times.warned_negative, true);
                let wrong = self.options.negative_times == NegativeTimes::AsBabeltrace && !first;
                if wrong {
                    wall.push(&mut self.output.bytes, ns.saturating_neg());
                } else {
                    push_seconds(&mut self.output.bytes, ns);
                }
                if first {
                    self.note(
                        "[warning] Fallback to [sec.ns] to print negative time value. Use --clock-seconds.\n",
                    );
                }
            }
        }
        Ok(())
    }

    /// Tells something beside the text.
    fn note(&mut self, text: &str) {
        // Whoever closed the notes does not want them; the text goes on.
        let _ = self.notes.write_all(text.as_bytes());
    }

    /// Where the state of the stream is.
    #[inline]
    fn find(&self, stream: &Stream) -> Option<usize> {
        let states = self.streams.get(stream.index)?;
        states.iter().position(|state| Arc::ptr_eq(&state.of, &stream.trace))
    }

    #[cold]
    fn enter_stream(&mut self, stream: &Stream) -> usize {
        let known = self.traces.iter().position(|forms| Arc::ptr_eq(&forms.trace, &stream.trace));
        let trace = known.unwrap_or_else(|| {
            self.traces.push(TraceForms::new(&stream.trace, &self.options));
            self.traces.len() - 1
        });
        if self.streams.len() <= stream.index {
            self.streams.resize_with(stream.index + 1, Vec::new);
        }
        self.streams[stream.index].push(StreamState {
            of: Arc::clone(&stream.trace),
            trace,
            packet: Piece::default(),
        });
        self.streams[stream.index].len() - 1
    }

    /// Prepares the text of a packet's context, which `visit` tells.
    fn packet(&mut self, stream: &Stream, place: usize, visit: impl FnOnce(&mut FieldWriter<'_>)) {
        let state = &mut self.streams[stream.index][place];
        state.packet = Piece::default();
        if !shows_packet_context(stream) {
            return;
        }
        let trace = &mut self.traces[state.trace];
        let style = trace.style;
        let Some(forms) = trace.stream_forms(stream.class.index) else {
            return;
        };
        let mut text = Vec::new();
        if self.options.names.scope {
            push_name(&mut text, "stream.packet.context", &self.palette);
        }
        visit(&mut FieldWriter {
            out: &mut text,
            forms: &mut forms.packet,
            names: self.options.names.context,
            colored: self.options.color,
            palette: &self.palette,
            style,
            indexes: &mut self.indexes,
        });
        state.packet = Piece::new(&text);
    }

    /// Tells of a loss.
    fn discarded(&mut self, loss: &Discarded<'_>, what: &str) -> Result<(), Error> {
        self.output.flush()?;
        let mut text = b"WARNING: Tracer ".to_vec();
        match loss.count {
            Some(count) => {
                text.extend_from_slice(b"discarded ");
                push_u64(&mut text, count);
                text.extend_from_slice(format!(" {what}{}", if count == 1 { "" } else { "s" }).as_bytes());
            }
            None => text.extend_from_slice(format!("may have discarded {what}s").as_bytes()),
        }
        match (loss.begin, loss.end) {
            (Some(begin), Some(end)) => {
                text.extend_from_slice(b" between [");
                self.loss_time(&mut text, begin)?;
                text.extend_from_slice(b"] and [");
                self.loss_time(&mut text, end)?;
                text.push(b']');
            }
            _ => text.extend_from_slice(b" (unknown time range)"),
        }
        let stream = loss.stream;
        let class = &stream.trace.class;
        let trace = match &stream.trace.name {
            Some(name) => format!(" in trace \"{name}\""),
            None => " in trace (no name)".into(),
        };
        let identity = match (&class.uuid, &class.uid) {
            (Some(uuid), _) => format!(" (UUID: {uuid})"),
            (None, Some(uid)) => format!(" (UID: {uid})"),
            (None, None) => " (no UUID)".into(),
        };
        let name = match &stream.name {
            Some(name) => format!(" within stream \"{name}\""),
            None => " within stream (no name)".into(),
        };
        text.extend_from_slice(trace.as_bytes());
        text.extend_from_slice(identity.as_bytes());
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(
            format!(" (stream class ID: {}, stream ID: {}).\n", stream.class.id, stream.id).as_bytes(),
        );
        let _ = self.notes.write_all(&text);
        Ok(())
    }

    fn loss_time(&mut self, text: &mut Vec<u8>, clock: ClockSnapshot) -> Result<(), Error> {
        if matches!(self.options.clock, ClockFormat::Cycles) {
            push_padded(text, clock.cycles, 20);
            return Ok(());
        }
        let Some(ns) = clock.ns else {
            text.extend_from_slice(b"??:??:??.?????????");
            return Ok(());
        };
        std::mem::swap(text, &mut self.output.bytes);
        let result = self.push_time(ns);
        std::mem::swap(text, &mut self.output.bytes);
        result
    }
}

impl TraceForms {
    fn new(trace: &Arc<Trace>, options: &Options) -> Self {
        let braces = match options.dialect {
            Dialect::ByTrace => trace.class.version == sillage_ctf::model::CtfVersion::V2,
            Dialect::V2_0 => false,
            Dialect::V2_1 => true,
        };
        Self {
            trace: Arc::clone(trace),
            style: EnumStyle { braces, flags: options.enum_flags },
            streams: Vec::new(),
            events: Vec::new(),
        }
    }

    fn stream_forms(&mut self, index: usize) -> Option<&mut StreamForms> {
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, StreamForms::default);
        }
        self.streams.get_mut(index)
    }

    #[cold]
    fn enter_event(&mut self, event: &Event<'_>, options: &Options, palette: &Palette) {
        self.stream_forms(event.stream.class.index);
        let index = event.class.index;
        if self.events.len() <= index {
            self.events.resize_with(index + 1, || None);
        }
        let mut between = shows_packet_context(event.stream);
        let mut lead = |there: bool, title: &str| {
            there.then(|| {
                let mut text =
                    if std::mem::replace(&mut between, true) { b", ".to_vec() } else { Vec::new() };
                if options.names.scope {
                    push_name(&mut text, title, palette);
                }
                text
            })
        };
        let common = lead(event.stream.class.common_context.is_some(), "stream.event.context");
        let specific = lead(event.class.specific_context.is_some(), "event.context");
        let payload = lead(event.class.payload.is_some(), "event.fields");
        let leads = Leads {
            common: common.as_deref(),
            specific: specific.as_deref(),
            payload: payload.as_deref(),
            context_names: options.names.context,
            payload_names: options.names.payload,
        };
        let piece = |text: &Option<Vec<u8>>| text.as_deref().map(Piece::new);
        self.events[index] = Some(Box::new(EventForms {
            head: Piece::new(&head_of(event, options, palette)),
            common_lead: piece(&common),
            specific_lead: piece(&specific),
            payload_lead: piece(&payload),
            specific: Forms::default(),
            payload: Forms::default(),
            program: Program::compile(event, &leads, self.style),
        }));
    }
}

/// Appends the time from one event to another.
fn push_difference(out: &mut Vec<u8>, is_cycles: bool, before: LastTimes, now: LastTimes) {
    if is_cycles {
        match (before.cycles, now.cycles) {
            (Some(before), Some(now)) => push_padded(out, now.wrapping_sub(before), 12),
            _ => out.extend_from_slice(b"????????????"),
        }
        return;
    }
    match (before.ns, now.ns) {
        (Some(before), Some(now)) => {
            let delta = now.wrapping_sub(before).cast_unsigned();
            push_u64(out, delta / 1_000_000_000);
            out.push(b'.');
            out.extend_from_slice(&super::number::digits9((delta % 1_000_000_000) as u32));
        }
        _ => out.extend_from_slice(b"?.?????????"),
    }
}

/// Whether there is a packet context to show: a structure of hidden members only is none.
fn shows_packet_context(stream: &Stream) -> bool {
    let class = stream.class.packet_context.as_deref().and_then(|class| class.as_struct());
    class.is_some_and(|class| class.members.is_empty() || class.visible().next().is_some())
}

/// Appends a name of what stands before the event's name, or of a scope.
fn push_name(out: &mut Vec<u8>, name: &str, palette: &Palette) {
    out.extend_from_slice(palette.name);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(palette.reset);
    out.extend_from_slice(b" = ");
}

impl Sink for Pretty {
    #[inline]
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        match message {
            Message::Event(event) => self.event(event),
            Message::PacketBegin(packet) => {
                let place = self.find(packet.stream).unwrap_or_else(|| self.enter_stream(packet.stream));
                self.packet(packet.stream, place, |writer| {
                    packet.visit_context(writer);
                });
                Ok(())
            }
            Message::DiscardedEvents(loss) => self.discarded(loss, "event"),
            Message::DiscardedPackets(loss) => self.discarded(loss, "packet"),
            Message::StreamBegin(_)
            | Message::StreamEnd(_)
            | Message::PacketEnd(_)
            | Message::Inactivity(_) => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.output.flush()
    }
}
