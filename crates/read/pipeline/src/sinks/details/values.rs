//! The fields of a packet or event, and free values, as an indented tree.

use sillage_ctf::model::{BitFlag, Datum, DisplayBase, FieldKind};
use sillage_ctf::{Field, Value};

use super::pen::{Ink, Pen};

/// Writes a scope under a title of its own, ending its last line.
pub(super) fn write_scope(pen: &mut Pen<'_>, title: &str, field: &Field<'_>) {
    pen.line();
    pen.ink(Ink::Property, title);
    pen.plain(":");
    write_value(pen, field);
    pen.plain("\n");
}

/// Writes what follows the colon; the last line is left open.
fn write_value(pen: &mut Pen<'_>, field: &Field<'_>) {
    let base = match &field.class().kind {
        FieldKind::Integer(class) => class.base,
        _ => DisplayBase::Decimal,
    };
    match field.value() {
        Value::Unsigned(value) => {
            pen.plain(" ");
            pen.number(Ink::Value, false, value, base);
        }
        Value::Signed(value) => {
            pen.plain(" ");
            pen.number(Ink::Value, value < 0, value.unsigned_abs(), base);
        }
        Value::Bool(value) => {
            pen.plain(" ");
            pen.yes_no(value);
        }
        Value::Bits(value) => {
            pen.plain(" ");
            pen.number(Ink::Value, false, value, DisplayBase::Hexadecimal);
        }
        Value::Real(value) => {
            pen.plain(" ");
            pen.real(value);
        }
        Value::Text(text) => {
            pen.plain(" ");
            pen.bytes(Ink::Value, text);
        }
        Value::Blob(bytes) => write_blob(pen, bytes),
        Value::Struct(members) => {
            let mut any = false;
            for member in members {
                any = true;
                pen.plain("\n");
                pen.inside(|pen| {
                    pen.line();
                    pen.ink(Ink::Member, member.name());
                    pen.plain(":");
                    write_value(pen, &member);
                });
            }
            if !any {
                write_empty(pen);
            }
        }
        Value::Array(elements) => {
            let length = elements.count_left();
            if length == 0 {
                write_empty(pen);
                return;
            }
            write_length(pen, length);
            for (index, element) in elements.enumerate() {
                pen.plain("\n");
                pen.inside(|pen| {
                    pen.line();
                    pen.ink(Ink::Member, &format!("[{index}]"));
                    pen.plain(":");
                    write_value(pen, &element);
                });
            }
        }
        Value::Optional(Some(content)) | Value::Variant(_, Some(content)) => write_value(pen, &content),
        Value::Optional(None) | Value::Variant(_, None) => {
            pen.plain(" ");
            pen.ink(Ink::Empty, "None");
        }
    }
}

fn write_empty(pen: &mut Pen<'_>) {
    pen.plain(" ");
    pen.ink(Ink::Empty, "Empty");
}

fn write_length(pen: &mut Pen<'_>, length: u64) {
    pen.plain(" Length ");
    pen.unsigned(Ink::Value, length);
    pen.plain(":");
}

/// Bytes in rows of sixteen.
fn write_blob(pen: &mut Pen<'_>, bytes: &[u8]) {
    if bytes.is_empty() {
        return write_empty(pen);
    }
    pen.plain(" Length ");
    pen.unsigned(Ink::Value, bytes.len() as u64);
    pen.plain(" bytes:");
    for row in bytes.chunks(16) {
        pen.plain("\n");
        pen.inside(|pen| {
            pen.line();
            let text: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            pen.ink(Ink::Value, &text.join(" "));
        });
    }
}

/// Writes an environment or attribute value after its colon; the last line is left open.
pub(super) fn write_datum(pen: &mut Pen<'_>, datum: &Datum) {
    match datum {
        Datum::Null => {
            pen.plain(" ");
            pen.ink(Ink::Value, "Null");
        }
        Datum::Bool(value) => {
            pen.plain(" ");
            pen.yes_no(*value);
        }
        Datum::Unsigned(value) => {
            pen.plain(" ");
            pen.unsigned(Ink::Value, *value);
        }
        Datum::Signed(value) => {
            pen.plain(" ");
            pen.signed(Ink::Value, *value);
        }
        Datum::Real(value) => {
            pen.plain(" ");
            pen.real(*value);
        }
        Datum::Text(text) => {
            pen.plain(" ");
            pen.ink(Ink::Value, text);
        }
        Datum::List(values) if values.is_empty() => write_empty(pen),
        Datum::List(values) => {
            write_length(pen, values.len() as u64);
            for (index, value) in values.iter().enumerate() {
                write_entry(pen, &format!("[{index}]"), value);
            }
        }
        Datum::Map(entries) if entries.is_empty() => write_empty(pen),
        Datum::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by_key(|(key, _)| key);
            for (key, value) in sorted {
                write_entry(pen, key, value);
            }
        }
    }
}

fn write_entry(pen: &mut Pen<'_>, name: &str, value: &Datum) {
    pen.plain("\n");
    pen.inside(|pen| {
        pen.line();
        pen.ink(Ink::Member, name);
        pen.plain(":");
        write_datum(pen, value);
    });
}

/// The flags of a bit map sorted by name.
pub(super) fn sorted_flags(flags: &[BitFlag]) -> Vec<&BitFlag> {
    let mut sorted: Vec<_> = flags.iter().collect();
    sorted.sort_by(|a, b| a.label.cmp(&b.label));
    sorted
}
