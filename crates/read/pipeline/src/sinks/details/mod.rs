//! Everything that a trace says, as indented text: Babeltrace's `sink.text.details`.
//!
//! A block per message, and before the first message of a trace class a block with its metadata.
//! Byte for byte Babeltrace's; 2.0 and 2.1 differ, see [`Dialect`]. Streams that begin one right
//! after another are taken together, because each of their blocks lists them all.

mod classes;
mod metadata;
mod pen;
mod values;

use std::collections::HashSet;
use std::sync::Arc;

use sillage_ctf::model::{ClockSnapshot, CtfVersion, EnvValue, FieldClass, Stream, Trace, TraceClass, Uuid};
use sillage_ctf::{Discarded, Event, Message, Packet};

use self::metadata::{write_clock_class, write_event_class, write_stream_class, write_trace_class};
use self::pen::{Ink, Pen};
use self::values::{write_datum, write_scope};
use super::{Output, Sink};
use crate::Error;

/// Whose wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Babeltrace 2.0's for CTF 1.8 traces, 2.1's (MIP 1) for CTF 2 traces.
    ByTrace,
    /// Babeltrace 2.0.
    V2_0,
    /// Babeltrace 2.1 with `--allowed-mip-versions=0`.
    V2_1Mip0,
    /// Babeltrace 2.1.
    V2_1Mip1,
}

/// What to show.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Options {
    pub color: bool,
    /// One line per message.
    pub compact: bool,
    /// Messages at all.
    pub with_data: bool,
    pub with_metadata: bool,
    pub with_time: bool,
    pub with_trace_name: bool,
    pub with_stream_name: bool,
    pub with_stream_class_name: bool,
    pub with_stream_class_namespace: bool,
    pub with_uuid: bool,
    pub with_uid: bool,
    pub dialect: Dialect,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            color: false,
            compact: false,
            with_data: true,
            with_metadata: true,
            with_time: true,
            with_trace_name: true,
            with_stream_name: true,
            with_stream_class_name: true,
            with_stream_class_namespace: true,
            with_uuid: true,
            with_uid: true,
            dialect: Dialect::ByTrace,
        }
    }
}

/// Writes messages with all their details.
#[derive(Debug)]
pub struct Details {
    options: Options,
    output: Output,
    traces: Vec<KnownTrace>,
    beginning: Vec<(Stream, Option<ClockSnapshot>)>,
    /// Something was written before.
    started: bool,
    /// What was written last is a block of metadata.
    after_metadata: bool,
}

/// What was shown of a trace.
#[derive(Debug)]
struct KnownTrace {
    /// Number, name and UUID: sources that are merged share numbers.
    identity: (usize, Option<String>, Option<Uuid>),
    stream_classes: HashSet<usize>,
    event_classes: HashSet<usize>,
    /// Its streams that have begun: (class id, id).
    streams: Vec<(u64, u64)>,
    /// The class whose parts were looked through last.
    seen: Option<Arc<TraceClass>>,
}

impl Details {
    /// Writes to `output`.
    pub fn new(options: Options, output: Output) -> Self {
        Self {
            options,
            output,
            traces: Vec::new(),
            beginning: Vec::new(),
            started: false,
            after_metadata: false,
        }
    }

    fn dialect(&self, trace: &Trace) -> Dialect {
        match (self.options.dialect, trace.class.version) {
            (Dialect::ByTrace, CtfVersion::V1_8) => Dialect::V2_0,
            (Dialect::ByTrace, CtfVersion::V2) => Dialect::V2_1Mip1,
            (dialect, _) => dialect,
        }
    }

    fn trace_number(&mut self, trace: &Trace) -> usize {
        let known = self.traces.iter().position(|known| {
            let (index, name, uuid) = &known.identity;
            *index == trace.index && *name == trace.name && *uuid == trace.class.uuid
        });
        if let Some(number) = known {
            return number;
        }
        self.traces.push(KnownTrace {
            identity: (trace.index, trace.name.clone(), trace.class.uuid),
            stream_classes: HashSet::new(),
            event_classes: HashSet::new(),
            streams: Vec::new(),
            seen: None,
        });
        self.traces.len() - 1
    }

    /// Writes the metadata that the message of this stream and event class needs and that was not
    /// written yet.
    fn metadata(&mut self, stream: &Stream, event: Option<&Event<'_>>) {
        let number = self.trace_number(&stream.trace);
        if !self.options.with_metadata {
            return;
        }
        let dialect = self.dialect(&stream.trace);
        let known = &mut self.traces[number];
        let new_trace = known.seen.is_none();
        let new_stream = known.stream_classes.insert(stream.class.index);
        let new_event = event.is_some_and(|event| known.event_classes.insert(event.class.index));
        if !new_trace && !new_stream && !new_event {
            return;
        }
        let class = Arc::clone(&stream.trace.class);
        if new_trace {
            known.stream_classes.extend(class.stream_classes.iter().map(|class| class.index));
        }
        if new_trace || new_stream {
            let shown = class.stream_classes.iter().filter(|c| new_trace || c.index == stream.class.index);
            known.event_classes.extend(shown.flat_map(|c| c.event_classes.iter().map(|e| e.index)));
        }
        known.seen = Some(Arc::clone(&class));
        self.separate(true);
        let options = self.options;
        let mut pen = Pen { out: &mut self.output.bytes, color: options.color, indent: 0 };
        if new_trace {
            write_trace_class(&mut pen, &class, dialect, &options);
        } else if new_stream {
            write_stream_class(&mut pen, &stream.class, class.version, dialect, &options);
        } else if let Some(event) = event {
            write_event_class(&mut pen, &stream.class, event.class, dialect);
        }
    }

    /// Writes the empty line between blocks.
    fn separate(&mut self, metadata: bool) {
        if self.started && (metadata || self.after_metadata || !self.options.compact) {
            self.output.bytes.push(b'\n');
        }
        self.started = true;
        self.after_metadata = metadata;
    }

    /// Writes what every message starts with.
    fn start(&mut self, stream: &Stream, times: &[Option<ClockSnapshot>]) {
        self.separate(false);
        let number = self.trace_number(&stream.trace);
        let options = self.options;
        let mut pen = Pen { out: &mut self.output.bytes, color: options.color, indent: 0 };
        if options.with_time && stream.class.clock.is_some() {
            for time in times {
                write_time(&mut pen, *time, options.compact);
            }
        }
        let numbers = [number as u64, stream.class.id, stream.id];
        pen.begin(Ink::Member);
        if options.compact {
            pen.plain("{");
            let text = numbers.map(|number| number.to_string()).join(" ");
            pen.ink(Ink::Number, &text);
            pen.begin(Ink::Member);
            pen.plain("}");
            pen.end();
            pen.plain(" ");
        } else {
            for (what, number) in ["{Trace ", ", Stream class ID ", ", Stream ID "].iter().zip(numbers) {
                pen.plain(what);
                pen.ink(Ink::Number, &number.to_string());
                pen.begin(Ink::Member);
            }
            pen.plain("}");
            pen.end();
            pen.plain("\n");
        }
    }

    fn pen(&mut self) -> Pen<'_> {
        Pen { out: &mut self.output.bytes, color: self.options.color, indent: 0 }
    }

    fn stream_begin(&mut self, stream: &Stream, time: Option<ClockSnapshot>) {
        self.metadata(stream, None);
        if !self.options.with_data {
            return;
        }
        self.start(stream, &[time]);
        let (options, dialect) = (self.options, self.dialect(&stream.trace));
        let number = self.trace_number(&stream.trace);
        let Self { output, traces, .. } = self;
        let pen = &mut Pen { out: &mut output.bytes, color: options.color, indent: 0 };
        pen.ink(Ink::Title, "Stream beginning");
        if options.compact {
            pen.plain("\n");
            return;
        }
        pen.plain(":\n");
        pen.inside(|pen| {
            if let Some(name) = stream.name.as_ref().filter(|_| options.with_stream_name) {
                pen.text_property("Name", name);
            }
            if let Some(name) = stream.class.name.as_ref().filter(|_| options.with_stream_class_name) {
                pen.text_property("Class name", name);
            }
            let namespace = &stream.class.namespace;
            if let Some(namespace) = namespace.as_ref().filter(|_| options.with_stream_class_namespace) {
                pen.text_property("Class namespace", namespace);
            }
            write_trace(pen, &stream.trace, &traces[number].streams, dialect, &options);
        });
    }

    /// Writes the blocks of the streams that have just begun.
    fn settle_beginning(&mut self) {
        if self.beginning.is_empty() {
            return;
        }
        let beginning = std::mem::take(&mut self.beginning);
        for (stream, _) in &beginning {
            let number = self.trace_number(&stream.trace);
            self.traces[number].streams.push((stream.class.id, stream.id));
        }
        for (stream, time) in &beginning {
            self.stream_begin(stream, *time);
        }
    }

    fn packet_begin(&mut self, packet: &Packet<'_>) {
        self.start(packet.stream, &[packet.clock]);
        let compact = self.options.compact;
        let shown = packet.stream.class.packet_context.as_deref().is_some_and(has_shown_members);
        let pen = &mut self.pen();
        pen.ink(Ink::Title, "Packet beginning");
        match packet.context().filter(|_| shown && !compact) {
            Some(context) => {
                pen.plain(":\n");
                pen.inside(|pen| write_scope(pen, "Context", &context));
            }
            None => pen.plain("\n"),
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        self.start(event.stream, &[event.clock]);
        let compact = self.options.compact;
        let pen = &mut self.pen();
        pen.ink(Ink::Title, "Event");
        if let Some(name) = &event.class.name {
            pen.plain(" `");
            pen.ink(Ink::EventName, name);
            pen.plain("`");
        }
        pen.plain(if compact { " (" } else { " (Class ID " });
        pen.ink(Ink::Value, &event.class.id.to_string());
        pen.plain(")");
        if compact {
            pen.plain("\n");
            return;
        }
        pen.plain(":\n");
        pen.inside(|pen| {
            for (title, scope) in [
                ("Common context", event.common_context()),
                ("Specific context", event.specific_context()),
                ("Payload", event.payload()),
            ] {
                if let Some(field) = scope {
                    write_scope(pen, title, &field);
                }
            }
        });
    }

    fn discarded(&mut self, loss: &Discarded<'_>, what: &str) {
        let times = match (loss.begin, loss.end) {
            (None, None) => &[][..],
            _ => &[loss.begin, loss.end][..],
        };
        self.start(loss.stream, times);
        let pen = &mut self.pen();
        pen.ink(Ink::Title, "Discarded ");
        pen.ink(Ink::Title, &format!("{what}s"));
        if let Some(count) = loss.count {
            pen.plain(" (");
            pen.unsigned(Ink::Value, count);
            pen.plain(&format!(" {what}s)"));
        }
        pen.plain("\n");
    }

    fn inactivity(&mut self, stream: &Stream, time: Option<ClockSnapshot>) {
        self.separate(false);
        let (options, dialect) = (self.options, self.dialect(&stream.trace));
        let pen = &mut self.pen();
        if options.with_time {
            write_time(pen, time, options.compact);
        }
        pen.ink(Ink::Title, "Message iterator inactivity");
        if options.compact {
            pen.plain("\n");
            return;
        }
        pen.plain(":\n");
        if let Some(clock) = &stream.class.clock {
            pen.inside(|pen| {
                pen.line();
                pen.ink(Ink::Property, "Clock class");
                pen.plain(":\n");
                pen.inside(|pen| {
                    write_clock_class(pen, clock, stream.trace.class.version, dialect, &options)
                });
            });
        }
    }
}

/// Whether a packet context has anything to show: a structure of hidden members only is none.
fn has_shown_members(class: &FieldClass) -> bool {
    class.as_struct().is_some_and(|class| class.members.is_empty() || class.visible().next().is_some())
}

fn write_time(pen: &mut Pen<'_>, time: Option<ClockSnapshot>, compact: bool) {
    pen.plain("[");
    match time {
        Some(time) => {
            pen.unsigned(Ink::Time, time.cycles);
            pen.plain(if compact { " " } else { " cycles, " });
            match time.ns {
                Some(ns) => pen.signed(Ink::Time, ns),
                None => pen.ink(Ink::Time, "Unknown"),
            }
            if !compact {
                pen.plain(" ns from origin");
            }
        }
        None => pen.ink(Ink::Time, "Unknown"),
    }
    pen.plain(if compact { "] " } else { "]\n" });
}

fn write_trace(
    pen: &mut Pen<'_>,
    trace: &Trace,
    streams: &[(u64, u64)],
    dialect: Dialect,
    options: &Options,
) {
    let class = &trace.class;
    pen.line();
    pen.ink(Ink::Title, "Trace");
    if let Some(name) = trace.name.as_ref().or(class.name.as_ref()).filter(|_| options.with_trace_name) {
        pen.plain(" `");
        pen.ink(Ink::Value, name);
        pen.plain("`");
    }
    let uuid = class.uuid.map(|uuid| uuid.to_string());
    let by_uid = dialect == Dialect::V2_1Mip1;
    if by_uid {
        write_identity(pen, class, uuid.as_deref(), options);
    }
    pen.plain(":\n");
    pen.inside(|pen| {
        if let Some(uuid) = uuid.filter(|_| !by_uid && options.with_uuid) {
            pen.text_property("UUID", &uuid);
        }
        write_environment(pen, class, dialect);
        let mut sorted = streams.to_vec();
        sorted.sort_unstable();
        for (class_id, id) in sorted {
            pen.line();
            pen.ink(Ink::Title, "Stream");
            pen.plain(" (ID ");
            pen.ink(Ink::Value, &id.to_string());
            pen.plain(", Class ID ");
            pen.ink(Ink::Value, &class_id.to_string());
            pen.plain(")\n");
        }
    });
}

/// ` (Namespace `…`, UID `…`)`, as far as there are such.
fn write_identity(pen: &mut Pen<'_>, class: &TraceClass, uuid: Option<&str>, options: &Options) {
    let lttng = class.env_text("tracer_name").is_some_and(|name| name.starts_with("lttng"));
    let old = class.version == CtfVersion::V1_8;
    let namespace = class.namespace.as_deref().or((old && lttng).then_some("lttng.org,2009"));
    let uid = class.uid.as_deref().or(uuid.filter(|_| old)).filter(|_| options.with_uid);
    let parts = [("Namespace", namespace), ("UID", uid)];
    let mut before = " (";
    for (what, value) in parts {
        if let Some(value) = value {
            pen.plain(before);
            pen.plain(what);
            pen.plain(" `");
            pen.ink(Ink::Value, value);
            pen.plain("`");
            before = ", ";
        }
    }
    if before == ", " {
        pen.plain(")");
    }
}

fn write_environment(pen: &mut Pen<'_>, class: &TraceClass, dialect: Dialect) {
    let count = class.environment.len() as u64;
    if count == 0 {
        return;
    }
    pen.line();
    pen.ink(Ink::Property, "Environment");
    pen.plain(" (");
    pen.unsigned(Ink::Value, count);
    pen.plain(if count == 1 { " entry):\n" } else { " entries):\n" });
    let mut sorted: Vec<_> = class.environment.iter().collect();
    sorted.sort_by_key(|(name, _)| name);
    pen.inside(|pen| {
        for (name, value) in sorted {
            pen.line();
            pen.ink(Ink::Member, name);
            pen.plain(":");
            let datum = match value {
                EnvValue::Integer(value) => sillage_ctf::model::Datum::Signed(*value),
                EnvValue::Text(text) => sillage_ctf::model::Datum::Text(text.clone()),
            };
            // From 2.1 on, nothing follows the colon of an empty text.
            let empty = matches!(value, EnvValue::Text(text) if text.is_empty());
            if !empty || dialect == Dialect::V2_0 {
                write_datum(pen, &datum);
            }
            pen.plain("\n");
        }
    });
}

impl Sink for Details {
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        if let Message::StreamBegin(edge) = message {
            self.beginning.push((edge.stream.clone(), edge.clock));
            return Ok(());
        }
        self.settle_beginning();
        if !matches!(message, Message::Inactivity(_)) {
            let event = match message {
                Message::Event(event) => Some(event),
                _ => None,
            };
            self.metadata(message.stream(), event);
        }
        if !self.options.with_data {
            return self.output.settle();
        }
        match message {
            Message::StreamBegin(_) => {}
            Message::StreamEnd(edge) => {
                self.start(edge.stream, &[edge.clock]);
                let pen = &mut self.pen();
                // The line ends before its colour does.
                pen.ink(Ink::Title, "Stream end\n");
            }
            Message::PacketBegin(packet) => self.packet_begin(packet),
            Message::PacketEnd(packet) => {
                self.start(packet.stream, &[packet.clock]);
                let pen = &mut self.pen();
                pen.ink(Ink::Title, "Packet end");
                pen.plain("\n");
            }
            Message::Event(event) => self.event(event),
            Message::DiscardedEvents(loss) => self.discarded(loss, "event"),
            Message::DiscardedPackets(loss) => self.discarded(loss, "packet"),
            Message::Inactivity(edge) => self.inactivity(edge.stream, edge.clock),
        }
        self.output.settle()
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.settle_beginning();
        self.output.flush()
    }
}
