//! JSON lines: one object per event, and per loss.
//!
//! ```text
//! {"time":"2026-11-21T06:39:47.180556027Z","ns":1795243187180556027,"trace":"vm/ust/uid/0/64-bit",
//!  "stream_class":0,"stream":1,"event":"app:e","level":"info","packet":{"cpu_id":1},"fields":{"n":1}}
//! {"lost":"events","count":12,"begin_ns":1,"end_ns":2,"trace":"…","stream_class":0,"stream":1}
//! ```
//!
//! Integers are exact. Enumerations are `{"value":1,"labels":["A"]}`, bit arrays with flags
//! `{"value":1,"flags":["F"]}`, bytes are hexadecimal text, an absent optional field is `null`, and
//! so is a real that is not finite. Bytes that are no UTF-8 become U+FFFD.

use sillage_ctf::model::{FieldKind, IntegerClass, Scope, Stream};
use sillage_ctf::{Discarded, Event, FieldVisitor, Message, Node};

use super::number::{LOWER, push_i64, push_u64};
use super::{Output, Records, Sink, WallClock, Zone};
use crate::Error;

/// Writes events as JSON lines.
#[derive(Debug)]
pub struct JsonLines {
    output: Output,
    wall: WallClock,
}

impl JsonLines {
    /// Writes to `output`; times are in UTC.
    pub fn new(output: Output) -> Self {
        Self { output, wall: WallClock::new(Zone::Utc, true) }
    }
}

impl Records for JsonLines {
    fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    fn event(&mut self, event: &Event<'_>) {
        let out = &mut self.output.bytes;
        out.push(b'{');
        if let Some(clock) = event.clock {
            if let Some(ns) = clock.ns {
                out.extend_from_slice(b"\"time\":\"");
                push_iso_time(&mut self.wall, out, ns);
                out.extend_from_slice(b"\",\"ns\":");
                push_i64(out, ns);
            } else {
                out.extend_from_slice(b"\"cycles\":");
                push_u64(out, clock.cycles);
            }
            out.push(b',');
        }
        push_stream(out, event.stream);
        out.extend_from_slice(b",\"event\":");
        match &event.class.name {
            Some(name) => push_text(out, name.as_bytes()),
            None => push_u64(out, event.class.id),
        }
        if let Some(level) = event.class.log_level {
            out.extend_from_slice(b",\"level\":");
            push_text(out, level.attribute().as_bytes());
        }
        for (scope, key) in [
            (Scope::PacketContext, "packet"),
            (Scope::CommonContext, "context"),
            (Scope::SpecificContext, "event_context"),
            (Scope::Payload, "fields"),
        ] {
            push_scope(out, event, scope, key);
        }
        out.extend_from_slice(b"}\n");
    }

    fn lost(&mut self, loss: &Discarded<'_>, what: &str) {
        let out = &mut self.output.bytes;
        out.extend_from_slice(b"{\"lost\":");
        push_text(out, what.as_bytes());
        out.extend_from_slice(b",\"count\":");
        match loss.count {
            Some(count) => push_u64(out, count),
            None => out.extend_from_slice(b"null"),
        }
        for (key, clock) in [("begin_ns", loss.begin), ("end_ns", loss.end)] {
            if let Some(ns) = clock.and_then(|clock| clock.ns) {
                out.extend_from_slice(format!(",\"{key}\":{ns}").as_bytes());
            }
        }
        out.push(b',');
        push_stream(out, loss.stream);
        out.extend_from_slice(b"}\n");
    }
}

fn push_stream(out: &mut Vec<u8>, stream: &Stream) {
    if let Some(name) = &stream.trace.name {
        out.extend_from_slice(b"\"trace\":");
        push_text(out, name.as_bytes());
        out.push(b',');
    }
    out.extend_from_slice(b"\"stream_class\":");
    push_u64(out, stream.class.id);
    out.extend_from_slice(b",\"stream\":");
    push_u64(out, stream.id);
}

/// `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ`
pub(super) fn push_iso_time(wall: &mut WallClock, out: &mut Vec<u8>, ns: i64) {
    let from = out.len();
    wall.push(out, ns);
    if let Some(blank) = out[from..].iter().position(|byte| *byte == b' ') {
        out[from + blank] = b'T';
    }
    out.push(b'Z');
}

/// Appends `,"KEY":{…}` for a scope that has anything to show.
fn push_scope(out: &mut Vec<u8>, event: &Event<'_>, scope: Scope, key: &str) {
    let from = out.len();
    out.extend_from_slice(format!(",\"{key}\":").as_bytes());
    let body = out.len();
    if !push_fields(out, event, scope) || (scope == Scope::PacketContext && out[body..] == *b"{}") {
        out.truncate(from);
    }
}

/// Appends the fields of a scope as an object; false, and nothing, if the event has no such scope, or
/// one that readers do not show.
pub(super) fn push_fields(out: &mut Vec<u8>, event: &Event<'_>, scope: Scope) -> bool {
    let from = out.len();
    let mut writer = JsonFields { out, first: true, bare: false };
    event.visit(scope, &mut writer) && out.len() > from
}

/// Appends text in quotes.
pub(super) fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\');
    if text.iter().all(plain) {
        out.extend_from_slice(text);
    } else {
        push_escaped(out, text);
    }
    out.push(b'"');
}

fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..0x20 | 0x7f => {
                    let digits = [LOWER[usize::from(byte >> 4)], LOWER[usize::from(byte & 15)]];
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&digits);
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends a real number; `null` when it is not finite.
pub(super) fn push_real(out: &mut Vec<u8>, value: f64, size_bits: u32) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if size_bits <= 32 {
        out.extend_from_slice(format!("{:?}", value as f32).as_bytes());
    } else {
        out.extend_from_slice(format!("{value:?}").as_bytes());
    }
}

/// Writes fields as JSON.
struct JsonFields<'a> {
    out: &'a mut Vec<u8>,
    /// The next member or element is the first.
    first: bool,
    /// The next field is what an optional field or variant holds: it takes its place.
    bare: bool,
}

impl JsonFields<'_> {
    /// Comma and name before a field.
    fn lead(&mut self, node: &Node) {
        if std::mem::replace(&mut self.bare, false) {
            return;
        }
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        if !node.name.is_empty() {
            push_text(self.out, node.name.as_bytes());
            self.out.push(b':');
        }
    }

    fn open(&mut self, node: &Node, bracket: u8) {
        self.lead(node);
        self.out.push(bracket);
        self.first = true;
    }

    fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.first = false;
    }

    fn integer(&mut self, class: &IntegerClass, raw: u64) {
        let push = |out: &mut Vec<u8>| {
            if class.signed { push_i64(out, raw.cast_signed()) } else { push_u64(out, raw) }
        };
        if !class.is_enum {
            return push(self.out);
        }
        self.out.extend_from_slice(b"{\"value\":");
        push(self.out);
        self.out.extend_from_slice(b",\"labels\":[");
        for (index, label) in class.labels(raw).enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            push_text(self.out, label.as_bytes());
        }
        self.out.extend_from_slice(b"]}");
    }
}

impl FieldVisitor for JsonFields<'_> {
    fn unsigned(&mut self, node: &Node, value: u64) {
        self.lead(node);
        if let FieldKind::Integer(class) = &node.class.kind {
            self.integer(class, value);
        }
    }

    fn signed(&mut self, node: &Node, value: i64) {
        self.unsigned(node, value.cast_unsigned());
    }

    fn boolean(&mut self, node: &Node, value: bool) {
        self.lead(node);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn bits(&mut self, node: &Node, value: u64) {
        self.lead(node);
        let FieldKind::BitArray(class) = &node.class.kind else {
            return push_u64(self.out, value);
        };
        if class.flags.is_empty() {
            return push_u64(self.out, value);
        }
        self.out.extend_from_slice(b"{\"value\":");
        push_u64(self.out, value);
        self.out.extend_from_slice(b",\"flags\":[");
        let on = |ranges: &[sillage_ctf::model::IntRange]| {
            (0..64u32).any(|bit| value >> bit & 1 == 1 && ranges.iter().any(|r| r.contains(i128::from(bit))))
        };
        for (index, flag) in class.flags.iter().filter(|flag| on(&flag.ranges)).enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            push_text(self.out, flag.label.as_bytes());
        }
        self.out.extend_from_slice(b"]}");
    }

    fn real(&mut self, node: &Node, value: f64) {
        self.lead(node);
        let size_bits = match &node.class.kind {
            FieldKind::Float(class) => class.layout.size_bits,
            _ => 64,
        };
        push_real(self.out, value, size_bits);
    }

    fn text(&mut self, node: &Node, value: &[u8]) {
        self.lead(node);
        push_text(self.out, value);
    }

    fn blob(&mut self, node: &Node, value: &[u8]) {
        self.lead(node);
        self.out.push(b'"');
        for byte in value {
            self.out.extend_from_slice(&[LOWER[usize::from(byte >> 4)], LOWER[usize::from(byte & 15)]]);
        }
        self.out.push(b'"');
    }

    fn begin_struct(&mut self, node: &Node) {
        self.open(node, b'{');
    }

    fn end_struct(&mut self, _: &Node) {
        self.close(b'}');
    }

    fn begin_array(&mut self, node: &Node, _: u64) {
        self.open(node, b'[');
    }

    fn end_array(&mut self, _: &Node) {
        self.close(b']');
    }

    fn begin_optional(&mut self, node: &Node, present: bool) {
        self.lead(node);
        self.bare = present;
        if !present {
            self.out.extend_from_slice(b"null");
        }
    }

    fn begin_variant(&mut self, node: &Node, _: usize) {
        self.lead(node);
        self.bare = true;
    }
}

impl Sink for JsonLines {
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
    fn texts_and_reals() {
        let check = |text: &[u8], want: &str| {
            let mut out = Vec::new();
            push_text(&mut out, text);
            assert_eq!(String::from_utf8_lossy(&out), want);
        };
        check(b"plain", "\"plain\"");
        check(b"a\"\\\n\x01\x7f", "\"a\\\"\\\\\\n\\u0001\\u007f\"");
        check("h\u{e9}".as_bytes(), "\"h\u{e9}\"");
        check(b"a\xffb", "\"a\u{fffd}b\"");
        let check = |value: f64, bits, want: &str| {
            let mut out = Vec::new();
            push_real(&mut out, value, bits);
            assert_eq!(String::from_utf8_lossy(&out), want);
        };
        check(f64::from(0.1f32), 32, "0.1");
        check(1e300, 64, "1e300");
        check(2.0, 64, "2.0");
        check(f64::NAN, 64, "null");
    }
}
