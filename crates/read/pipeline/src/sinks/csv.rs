//! Comma-separated values (RFC 4180): a header, then a row per event.
//!
//! Without chosen columns: time in nanoseconds, time in UTC, trace, stream class, stream, event,
//! and all fields as one JSON object. With chosen columns the object gives way to one column for
//! each of them, looked up in the payload and then in the contexts; text is bare, enumerations show
//! their first label, compounds are JSON, and what an event does not have is empty. Losses are not
//! rows: they are counted by [`Csv::lost`].

use sillage_ctf::model::{FieldKind, Scope};
use sillage_ctf::{Discarded, Event, Field, Message, Value};

use super::json::{push_fields, push_iso_time, push_real, push_text};
use super::number::{push_i64, push_u64};
use super::{Output, Records, Sink, WallClock, Zone};
use crate::Error;

/// Writes events as rows.
#[derive(Debug)]
pub struct Csv {
    output: Output,
    wall: WallClock,
    columns: Vec<String>,
    cell: Vec<u8>,
    lost: u64,
}

impl Csv {
    /// Writes to `output`, the header at once. `columns` are paths such as `a.b`; none means all
    /// fields in one column.
    pub fn new(columns: Vec<String>, mut output: Output) -> Self {
        let out = &mut output.bytes;
        out.extend_from_slice(b"ns,time,trace,stream_class,stream,event");
        if columns.is_empty() {
            out.extend_from_slice(b",fields");
        }
        for column in &columns {
            out.push(b',');
            push_cell(out, column.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        Self { output, wall: WallClock::new(Zone::Utc, true), columns, cell: Vec::new(), lost: 0 }
    }

    /// Losses seen so far: messages, not events.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl Records for Csv {
    fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    fn event(&mut self, event: &Event<'_>) {
        let out = &mut self.output.bytes;
        if let Some(ns) = event.clock.and_then(|clock| clock.ns) {
            push_i64(out, ns);
            out.push(b',');
            push_iso_time(&mut self.wall, out, ns);
        } else {
            out.push(b',');
        }
        out.push(b',');
        push_cell(out, event.stream.trace.name.as_deref().unwrap_or_default().as_bytes());
        out.push(b',');
        push_u64(out, event.stream.class.id);
        out.push(b',');
        push_u64(out, event.stream.id);
        out.push(b',');
        push_cell(out, event.name().as_bytes());
        if self.columns.is_empty() {
            self.cell.clear();
            all_fields(&mut self.cell, event);
            out.push(b',');
            push_cell(out, &self.cell);
        }
        for column in &self.columns {
            out.push(b',');
            if let Some(field) = lookup(event, column) {
                self.cell.clear();
                push_value(&mut self.cell, &field);
                push_cell(out, &self.cell);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn lost(&mut self, _: &Discarded<'_>, _: &str) {
        self.lost += 1;
    }
}

/// The members of all scopes as one object; the payload's win over equal names of contexts by
/// standing first.
fn all_fields(cell: &mut Vec<u8>, event: &Event<'_>) {
    cell.push(b'{');
    for scope in [Scope::Payload, Scope::SpecificContext, Scope::CommonContext, Scope::PacketContext] {
        let from = cell.len();
        if !push_fields(cell, event, scope) || cell[from..] == *b"{}" {
            cell.truncate(from);
            continue;
        }
        // Without its own braces, behind a comma if it is not the first.
        cell.pop();
        match from {
            1 => {
                cell.remove(from);
            }
            _ => cell[from] = b',',
        }
    }
    cell.push(b'}');
}

fn lookup<'a>(event: &Event<'a>, path: &str) -> Option<Field<'a>> {
    let mut names = path.split('.');
    let root = event.field(names.next()?)?;
    names.try_fold(root, |field, name| field.get(name))
}

fn push_value(cell: &mut Vec<u8>, field: &Field<'_>) {
    match field.value() {
        Value::Unsigned(value) => push_integer(cell, field, value, false),
        Value::Signed(value) => push_integer(cell, field, value.cast_unsigned(), true),
        Value::Bits(value) => push_u64(cell, value),
        Value::Bool(value) => cell.extend_from_slice(if value { b"true" } else { b"false" }),
        Value::Real(value) => match &field.class().kind {
            FieldKind::Float(class) => push_real(cell, value, class.layout.size_bits),
            _ => push_real(cell, value, 64),
        },
        Value::Text(text) => cell.extend_from_slice(String::from_utf8_lossy(text).as_bytes()),
        Value::Blob(bytes) => {
            bytes.iter().for_each(|byte| cell.extend_from_slice(format!("{byte:02x}").as_bytes()))
        }
        Value::Optional(inner) | Value::Variant(_, inner) => {
            if let Some(inner) = inner {
                push_value(cell, &inner);
            }
        }
        Value::Struct(members) => push_list(cell, members, (b'{', b'}')),
        Value::Array(elements) => push_list(cell, elements, (b'[', b']')),
    }
}

fn push_integer(cell: &mut Vec<u8>, field: &Field<'_>, raw: u64, signed: bool) {
    if let FieldKind::Integer(class) = &field.class().kind
        && class.is_enum
        && let Some(label) = class.labels(raw).next()
    {
        cell.extend_from_slice(label.as_bytes());
    } else if signed {
        push_i64(cell, raw.cast_signed());
    } else {
        push_u64(cell, raw);
    }
}

fn push_list<'a>(cell: &mut Vec<u8>, fields: impl Iterator<Item = Field<'a>>, (open, close): (u8, u8)) {
    cell.push(open);
    for (index, field) in fields.enumerate() {
        if index > 0 {
            cell.push(b',');
        }
        if open == b'{' {
            push_text(cell, field.name().as_bytes());
            cell.push(b':');
        }
        match field.value() {
            Value::Text(text) => push_text(cell, text),
            _ => push_value(cell, &field),
        }
    }
    cell.push(close);
}

/// Appends a cell, in quotes when it must be.
fn push_cell(out: &mut Vec<u8>, text: &[u8]) {
    if !text.iter().any(|byte| matches!(byte, b'"' | b',' | b'\r' | b'\n')) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

impl Sink for Csv {
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        self.take(message)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.output.flush()
    }
}
