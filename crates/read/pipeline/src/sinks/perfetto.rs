//! Perfetto's trace format: protobuf `TracePacket`s with `TrackEvent`s, for its viewer.
//!
//! Threads that the events name (`vtid` or `tid` in a context) have tracks of their own under their
//! process; other events are on the track of their stream. `X_entry`/`X_exit`, `X_begin`/`X_end` and
//! `syscall_entry_X`/`syscall_exit_X` on the track of a thread become slices, all else instants.
//! Fields are debug annotations; losses are instants on the track of their stream.
//!
//! The few messages that are needed are encoded by hand; field numbers are those of Perfetto's
//! `trace_packet.proto`, `track_event.proto`, `track_descriptor.proto` and `debug_annotation.proto`.

use std::collections::HashMap;

use sillage_ctf::model::{EnvValue, FieldKind, Scope, Stream};
use sillage_ctf::{Discarded, Event, Field, Message, Value};

use super::{Output, Records, Sink};
use crate::Error;

/// Numbers of fields.
mod field {
    pub const TRACE_PACKET: u32 = 1;
    pub const PACKET_CLOCK_SNAPSHOT: u32 = 6;
    pub const PACKET_TIMESTAMP: u32 = 8;
    pub const PACKET_SEQUENCE_ID: u32 = 10;
    pub const PACKET_TRACK_EVENT: u32 = 11;
    pub const PACKET_SEQUENCE_FLAGS: u32 = 13;
    pub const PACKET_TRACK_DESCRIPTOR: u32 = 60;
    pub const SNAPSHOT_CLOCK: u32 = 1;
    pub const CLOCK_ID: u32 = 1;
    pub const CLOCK_TIMESTAMP: u32 = 2;
    pub const TRACK_UUID: u32 = 1;
    pub const TRACK_NAME: u32 = 2;
    pub const TRACK_PROCESS: u32 = 3;
    pub const TRACK_THREAD: u32 = 4;
    pub const TRACK_PARENT: u32 = 5;
    pub const PROCESS_PID: u32 = 1;
    pub const PROCESS_NAME: u32 = 6;
    pub const THREAD_PID: u32 = 1;
    pub const THREAD_TID: u32 = 2;
    pub const THREAD_NAME: u32 = 5;
    pub const EVENT_ANNOTATION: u32 = 4;
    pub const EVENT_TYPE: u32 = 9;
    pub const EVENT_TRACK: u32 = 11;
    pub const EVENT_CATEGORY: u32 = 22;
    pub const EVENT_NAME: u32 = 23;
    pub const NOTE_BOOL: u32 = 2;
    pub const NOTE_UINT: u32 = 3;
    pub const NOTE_INT: u32 = 4;
    pub const NOTE_DOUBLE: u32 = 5;
    pub const NOTE_STRING: u32 = 6;
    pub const NOTE_NAME: u32 = 10;
    pub const NOTE_ENTRY: u32 = 11;
    pub const NOTE_ELEMENT: u32 = 12;
}

/// Values of `TrackEvent.type`.
const SLICE_BEGIN: u64 = 1;
const SLICE_END: u64 = 2;
const INSTANT: u64 = 3;

/// `BUILTIN_CLOCK_REALTIME` and `BUILTIN_CLOCK_BOOTTIME`, the default of timestamps.
const CLOCKS: [u64; 2] = [1, 6];
/// All packets are of one sequence.
const SEQUENCE: u64 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`
const STATE_CLEARED: u64 = 1;

/// Writes events for Perfetto.
#[derive(Debug)]
pub struct Perfetto {
    output: Output,
    /// Tracks that were described: of streams (trace, class, id) and threads (trace, pid, tid).
    tracks: HashMap<Track, u64>,
    started: bool,
    packet: Vec<u8>,
    event: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Track {
    Stream { trace: usize, class: u64, stream: u64 },
    Process { trace: usize, pid: i64 },
    Thread { trace: usize, pid: i64, tid: i64 },
}

/// Where an event stands on its track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    Begin,
    End,
    None,
}

impl Perfetto {
    /// Writes to `output`.
    pub fn new(output: Output) -> Self {
        Self { output, tracks: HashMap::new(), started: false, packet: Vec::new(), event: Vec::new() }
    }

    /// Tells what the clocks are: nanoseconds since 1970.
    fn start(&mut self, ns: u64) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let mut snapshot = Vec::new();
        for id in CLOCKS {
            let mut clock = Vec::new();
            push_number(&mut clock, field::CLOCK_ID, id);
            push_number(&mut clock, field::CLOCK_TIMESTAMP, ns);
            push_bytes(&mut snapshot, field::SNAPSHOT_CLOCK, &clock);
        }
        self.packet.clear();
        push_number(&mut self.packet, field::PACKET_SEQUENCE_ID, SEQUENCE);
        push_number(&mut self.packet, field::PACKET_SEQUENCE_FLAGS, STATE_CLEARED);
        push_bytes(&mut self.packet, field::PACKET_CLOCK_SNAPSHOT, &snapshot);
        self.end_packet();
    }

    fn end_packet(&mut self) {
        push_bytes(&mut self.output.bytes, field::TRACE_PACKET, &self.packet);
    }

    /// The track's number; describes it the first time.
    fn track(&mut self, track: Track, describe: impl FnOnce(&mut Vec<u8>)) -> u64 {
        if let Some(uuid) = self.tracks.get(&track) {
            return *uuid;
        }
        let uuid = self.tracks.len() as u64 + 1;
        self.tracks.insert(track, uuid);
        let mut descriptor = Vec::new();
        push_number(&mut descriptor, field::TRACK_UUID, uuid);
        describe(&mut descriptor);
        self.packet.clear();
        push_number(&mut self.packet, field::PACKET_SEQUENCE_ID, SEQUENCE);
        push_bytes(&mut self.packet, field::PACKET_TRACK_DESCRIPTOR, &descriptor);
        self.end_packet();
        uuid
    }

    fn stream_track(&mut self, stream: &Stream) -> u64 {
        let (trace, class) = (&stream.trace, stream.class.id);
        let key = Track::Stream { trace: trace.index, class, stream: stream.id };
        self.track(key, |out| {
            let name = trace.name.as_deref().unwrap_or_default();
            push_bytes(out, field::TRACK_NAME, format!("{name} stream {class}/{}", stream.id).as_bytes());
        })
    }

    fn thread_track(&mut self, event: &Event<'_>, pid: i64, tid: i64) -> u64 {
        let trace = event.stream.trace.index;
        let name = context(event, &["procname", "comm"]).and_then(|field| match field.value() {
            Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        });
        let name = name.or_else(|| match event.stream.trace.class.env("procname") {
            Some(EnvValue::Text(text)) => Some(text.clone()),
            _ => None,
        });
        let parent = self.track(Track::Process { trace, pid }, |out| {
            let mut process = Vec::new();
            push_number(&mut process, field::PROCESS_PID, pid.cast_unsigned());
            if let Some(name) = &name {
                push_bytes(&mut process, field::PROCESS_NAME, name.as_bytes());
            }
            push_bytes(out, field::TRACK_PROCESS, &process);
        });
        self.track(Track::Thread { trace, pid, tid }, |out| {
            let mut thread = Vec::new();
            push_number(&mut thread, field::THREAD_PID, pid.cast_unsigned());
            push_number(&mut thread, field::THREAD_TID, tid.cast_unsigned());
            if let Some(name) = &name {
                push_bytes(&mut thread, field::THREAD_NAME, name.as_bytes());
            }
            push_number(out, field::TRACK_PARENT, parent);
            push_bytes(out, field::TRACK_THREAD, &thread);
        })
    }

    fn push_event(
        &mut self,
        ns: Option<i64>,
        edge: Edge,
        track: u64,
        name: &str,
        notes: impl FnOnce(&mut Vec<u8>),
    ) {
        // Perfetto has no time before 1970.
        let ns = ns.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0);
        self.start(ns);
        let kind = match edge {
            Edge::Begin => SLICE_BEGIN,
            Edge::End => SLICE_END,
            Edge::None => INSTANT,
        };
        let mut event = std::mem::take(&mut self.event);
        event.clear();
        push_number(&mut event, field::EVENT_TYPE, kind);
        push_number(&mut event, field::EVENT_TRACK, track);
        if let Some((provider, _)) = name.split_once(':') {
            push_bytes(&mut event, field::EVENT_CATEGORY, provider.as_bytes());
        }
        push_bytes(&mut event, field::EVENT_NAME, name.as_bytes());
        notes(&mut event);
        self.packet.clear();
        push_number(&mut self.packet, field::PACKET_TIMESTAMP, ns);
        push_number(&mut self.packet, field::PACKET_SEQUENCE_ID, SEQUENCE);
        push_bytes(&mut self.packet, field::PACKET_TRACK_EVENT, &event);
        self.event = event;
        self.end_packet();
    }
}

impl Records for Perfetto {
    fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    fn event(&mut self, event: &Event<'_>) {
        let ns = event.clock.and_then(|clock| clock.ns);
        self.start(ns.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0));
        let number = |names: &[&str]| context(event, names).and_then(|field| field.as_i64());
        let tid = number(&["vtid", "tid"]);
        let pid = number(&["vpid", "pid"]).or_else(|| event.stream.trace.class.env_int("vpid"));
        let (edge, name) = edge_of(event.name());
        let (edge, name, track) = match tid {
            Some(tid) => (edge, name, self.thread_track(event, pid.unwrap_or(tid), tid)),
            // Without a thread, slices of different threads would cross.
            None => (Edge::None, event.name().to_owned(), self.stream_track(event.stream)),
        };
        let event = *event;
        self.push_event(ns, edge, track, &name, |out| {
            for scope in [Scope::Payload, Scope::SpecificContext, Scope::CommonContext, Scope::PacketContext]
            {
                let root = event.scope(scope);
                for member in root.iter().flat_map(Field::children) {
                    push_note(out, field::EVENT_ANNOTATION, Some(member.name()), &member);
                }
            }
        });
    }

    fn lost(&mut self, loss: &Discarded<'_>, what: &str) {
        let ns = loss.begin.and_then(|clock| clock.ns);
        self.start(ns.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0));
        let track = self.stream_track(loss.stream);
        let count = loss.count;
        self.push_event(ns, Edge::None, track, &format!("lost {what}"), |out| {
            if let Some(count) = count {
                let mut note = Vec::new();
                push_bytes(&mut note, field::NOTE_NAME, b"count");
                push_number(&mut note, field::NOTE_UINT, count);
                push_bytes(out, field::EVENT_ANNOTATION, &note);
            }
        });
    }
}

/// The first of these contexts that the event has.
fn context<'a>(event: &Event<'a>, names: &[&str]) -> Option<Field<'a>> {
    let scopes = [Scope::SpecificContext, Scope::CommonContext];
    names.iter().find_map(|name| scopes.iter().find_map(|scope| event.scope(*scope)?.get(name)))
}

/// What the event is an edge of, and its name without saying so.
fn edge_of(name: &str) -> (Edge, String) {
    for (begin, end) in [("_entry", "_exit"), ("_begin", "_end")] {
        if let Some(stem) = name.strip_suffix(begin) {
            return (Edge::Begin, stem.to_owned());
        }
        if let Some(stem) = name.strip_suffix(end) {
            return (Edge::End, stem.to_owned());
        }
    }
    if let Some(call) = name.strip_prefix("syscall_entry_") {
        return (Edge::Begin, call.to_owned());
    }
    match name.strip_prefix("syscall_exit_") {
        Some(call) => (Edge::End, call.to_owned()),
        None => (Edge::None, name.to_owned()),
    }
}

fn push_note(out: &mut Vec<u8>, number: u32, name: Option<&str>, from: &Field<'_>) {
    let mut note = Vec::new();
    if let Some(name) = name {
        push_bytes(&mut note, field::NOTE_NAME, name.as_bytes());
    }
    match from.value() {
        Value::Unsigned(value) => match label_of(from, value) {
            Some(label) => push_bytes(&mut note, field::NOTE_STRING, label.as_bytes()),
            None => push_number(&mut note, field::NOTE_UINT, value),
        },
        Value::Signed(value) => match label_of(from, value.cast_unsigned()) {
            Some(label) => push_bytes(&mut note, field::NOTE_STRING, label.as_bytes()),
            None => push_number(&mut note, field::NOTE_INT, value.cast_unsigned()),
        },
        Value::Bits(value) => push_number(&mut note, field::NOTE_UINT, value),
        Value::Bool(value) => push_number(&mut note, field::NOTE_BOOL, u64::from(value)),
        Value::Real(value) => push_fixed64(&mut note, field::NOTE_DOUBLE, value.to_bits()),
        Value::Text(text) => {
            push_bytes(&mut note, field::NOTE_STRING, String::from_utf8_lossy(text).as_bytes())
        }
        Value::Blob(bytes) => {
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            push_bytes(&mut note, field::NOTE_STRING, text.as_bytes());
        }
        Value::Struct(members) => {
            for member in members {
                push_note(&mut note, field::NOTE_ENTRY, Some(member.name()), &member);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                push_note(&mut note, field::NOTE_ELEMENT, None, &element);
            }
        }
        Value::Optional(None) | Value::Variant(_, None) => return,
        Value::Optional(Some(inner)) | Value::Variant(_, Some(inner)) => {
            return push_note(out, number, name, &inner);
        }
    }
    push_bytes(out, number, &note);
}

fn label_of<'a>(field: &Field<'a>, raw: u64) -> Option<&'a str> {
    match &field.class().kind {
        FieldKind::Integer(class) if class.is_enum => class.labels(raw).next(),
        _ => None,
    }
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of wire type 0.
fn push_number(out: &mut Vec<u8>, number: u32, value: u64) {
    push_varint(out, u64::from(number) << 3);
    push_varint(out, value);
}

/// A field of wire type 1.
fn push_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    push_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of wire type 2: bytes, text or a message.
fn push_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    push_varint(out, u64::from(number) << 3 | 2);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl Sink for Perfetto {
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        self.take(message)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_format() {
        let mut out = Vec::new();
        push_number(&mut out, 1, 150);
        push_bytes(&mut out, 2, b"testing");
        push_fixed64(&mut out, 5, 1.0f64.to_bits());
        push_number(&mut out, 60, u64::MAX);
        assert_eq!(out[..3], [0x08, 0x96, 0x01]);
        assert_eq!(&out[3..12], b"\x12\x07testing");
        assert_eq!(out[12], 0x29);
        assert_eq!(out[21..23], [0xe0, 0x03]);
        assert_eq!(out[23..], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn edges() {
        assert_eq!(edge_of("syscall_entry_read"), (Edge::Begin, "read".into()));
        assert_eq!(edge_of("syscall_exit_read"), (Edge::End, "read".into()));
        assert_eq!(edge_of("p:func_exit"), (Edge::End, "p:func".into()));
        assert_eq!(edge_of("p:x"), (Edge::None, "p:x".into()));
    }
}
