//! What a program may register: everything that the trace's metadata can express without harming the
//! other events in it.
//!
//! A tracepoint that fails here is garbage: its program is told so and disconnected, and the daemon
//! counts it. The wire format has been checked before; this is about meaning.

use sillage_ctf::writer::lttng::identifier;
use sillage_model::limits::RECORD_BYTES_MAX;
use sillage_model::{FieldType, IntegerType, Tracepoint};
use std::collections::HashMap;
use thiserror::Error;

/// Why a tracepoint was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Garbage {
    /// Empty, or with control characters.
    #[error("tracepoint name {0:?}")]
    Name(String),
    /// Two fields that would have the same name in the trace.
    #[error("{event}: field {field} twice")]
    FieldTwice {
        /// Event name.
        event: String,
        /// Field name.
        field: String,
    },
    /// A field that cannot be described.
    #[error("{event}: field {field}: {what}")]
    Field {
        /// Event name.
        event: String,
        /// Field name.
        field: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// Checks one tracepoint.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(t: &Tracepoint) -> Result<(), Garbage> {
    if t.name.is_empty() || t.name.chars().any(char::is_control) {
        return Err(Garbage::Name(t.name.clone()));
    }
    let mut seen: HashMap<String, bool> = HashMap::new();
    for field in &t.fields {
        let bad = |what| Garbage::Field { event: t.name.clone(), field: field.name.clone(), what };
        let unsigned = matches!(&field.field_type, FieldType::Integer(i) if !i.signed);
        if field.name.is_empty() {
            return Err(bad("no name"));
        }
        match &field.field_type {
            FieldType::Integer(i) => integer(i).map_err(bad)?,
            FieldType::Float(f) => aligned(f.align_bits.into()).map_err(bad)?,
            FieldType::String(_) => {}
            FieldType::Enum { container, entries, .. } => {
                integer(container).map_err(bad)?;
                if entries.is_empty() {
                    return Err(bad("enumeration without labels"));
                }
                for entry in entries {
                    let (start, end) = (entry.start, entry.end);
                    let order = if start.signed {
                        (start.bits as i64) <= end.bits as i64
                    } else {
                        start.bits <= end.bits
                    };
                    if start.signed != end.signed || !order {
                        return Err(bad("enumeration range backwards"));
                    }
                }
            }
            FieldType::Array { element, length, align_bits, .. } => {
                aligned(*align_bits).and(scalar(element)).map_err(bad)?;
                if *length as usize > RECORD_BYTES_MAX {
                    return Err(bad("array longer than a record"));
                }
            }
            FieldType::Sequence { element, length_name, align_bits, .. } => {
                aligned(*align_bits).and(scalar(element)).map_err(bad)?;
                if seen.get(&identifier(length_name)) != Some(&true) {
                    return Err(bad("no unsigned length field in front"));
                }
            }
        }
        if seen.insert(identifier(&field.name), unsigned).is_some() {
            return Err(Garbage::FieldTwice { event: t.name.clone(), field: field.name.clone() });
        }
    }
    Ok(())
}

fn scalar(t: &FieldType) -> Result<(), &'static str> {
    match t {
        FieldType::Integer(i) => integer(i),
        FieldType::Float(f) => aligned(f.align_bits.into()),
        _ => Err("elements that are no numbers"),
    }
}

fn integer(i: &IntegerType) -> Result<(), &'static str> {
    aligned(i.align_bits.into())
}

/// Records begin at any byte, so nothing in them can be aligned to more.
fn aligned(bits: u32) -> Result<(), &'static str> {
    if bits <= 8 { Ok(()) } else { Err("alignment of more than a byte") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use sillage_model::{Encoding, EnumEntry, EnumValue, Field, LogLevel};

    fn verdict(fields: Vec<(&str, FieldType)>) -> String {
        let fields = fields.into_iter().map(|(name, field_type)| Field { name: name.into(), field_type });
        let t = Tracepoint {
            name: "p:e".into(),
            loglevel: LogLevel::DEFAULT,
            emf_uri: None,
            fields: fields.collect(),
        };
        match check(&t) {
            Ok(()) => "fine\n".into(),
            Err(garbage) => format!("{garbage}\n"),
        }
    }

    #[test]
    fn what_would_break_the_metadata_is_refused() {
        let number = |signed, align_bits| {
            FieldType::Integer(IntegerType {
                size_bits: 32,
                align_bits,
                signed,
                reverse_byte_order: false,
                base: 10,
            })
        };
        let sequence = |element| FieldType::Sequence {
            element: Box::new(element),
            length_name: "n".into(),
            align_bits: 8,
            encoding: Encoding::None,
        };
        let colour = |start: i64, end: i64| FieldType::Enum {
            name: String::new(),
            container: IntegerType {
                size_bits: 8,
                align_bits: 8,
                signed: true,
                reverse_byte_order: false,
                base: 10,
            },
            entries: vec![EnumEntry {
                label: "x".into(),
                start: EnumValue { bits: start as u64, signed: true },
                end: EnumValue { bits: end as u64, signed: true },
                auto: false,
            }],
        };
        let verdicts = [
            verdict(vec![("n", number(false, 8)), ("q", sequence(number(true, 8))), ("e", colour(-1, 1))]),
            verdict(vec![("a", number(true, 8)), ("a", number(true, 8))]),
            verdict(vec![("a.b", number(true, 8)), ("a-b", number(true, 8))]),
            verdict(vec![("q", sequence(number(true, 8)))]),
            verdict(vec![("n", number(true, 8)), ("q", sequence(number(true, 8)))]),
            verdict(vec![("n", number(false, 8)), ("q", sequence(colour(0, 1)))]),
            verdict(vec![("e", colour(2, 1))]),
            verdict(vec![("i", number(true, 64))]),
            verdict(vec![("", number(true, 8))]),
        ];
        expect![[r#"
            fine
            p:e: field a twice
            p:e: field a-b twice
            p:e: field q: no unsigned length field in front
            p:e: field q: no unsigned length field in front
            p:e: field q: elements that are no numbers
            p:e: field e: enumeration range backwards
            p:e: field i: alignment of more than a byte
            p:e: field : no name
        "#]]
        .assert_eq(&verdicts.concat());
    }
}
