//! Payload bytes as text, by the tracepoint's declared fields.

use sillage_model::{Encoding, FieldType, IntegerType, Tracepoint};
use std::collections::BTreeMap;

/// The text of a record and the bytes that it took.
pub fn payload(tracepoint: &Tracepoint, bytes: &[u8]) -> (String, usize) {
    let mut text = tracepoint.name.clone();
    let mut at = 0;
    let mut lengths = BTreeMap::new();
    for field in &tracepoint.fields {
        let value = value(&field.field_type, bytes, &mut at, &mut lengths, &field.name);
        text += &format!(" {}={value}", field.name);
    }
    (text, at)
}

fn value(
    field_type: &FieldType,
    bytes: &[u8],
    at: &mut usize,
    lengths: &mut BTreeMap<String, u64>,
    name: &str,
) -> String {
    match field_type {
        FieldType::Integer(i) => {
            let value = integer(i, bytes, at);
            lengths.insert(name.into(), value as u64);
            match i.base {
                16 => format!("{:#x}", value as u64 & (u64::MAX >> (64 - i.size_bits))),
                _ => value.to_string(),
            }
        }
        FieldType::Float(f) if f.mantissa_bits == 24 => {
            f32::from_le_bytes(take(bytes, at, 4).try_into().unwrap()).to_string()
        }
        FieldType::Float(_) => f64::from_le_bytes(take(bytes, at, 8).try_into().unwrap()).to_string(),
        FieldType::String(_) => {
            let length = bytes[*at..].iter().position(|b| *b == 0).expect("a NUL");
            let text = String::from_utf8_lossy(take(bytes, at, length)).into_owned();
            *at += 1;
            format!("{text:?}")
        }
        FieldType::Enum { container, entries, .. } => {
            let value = integer(container, bytes, at);
            let mut next = 0i128;
            for e in entries {
                let range = |v: &sillage_model::EnumValue| {
                    if v.signed { i128::from(v.bits as i64) } else { i128::from(v.bits) }
                };
                let (start, end) = if e.auto { (next, next) } else { (range(&e.start), range(&e.end)) };
                next = end + 1;
                if (start..=end).contains(&value) {
                    return format!("{}({value})", e.label);
                }
            }
            format!("?({value})")
        }
        FieldType::Array { element, length, encoding, .. } => {
            elements(element, u64::from(*length), *encoding, bytes, at)
        }
        FieldType::Sequence { element, length_name, encoding, .. } => {
            elements(element, lengths[length_name], *encoding, bytes, at)
        }
    }
}

fn elements(element: &FieldType, count: u64, encoding: Encoding, bytes: &[u8], at: &mut usize) -> String {
    if encoding != Encoding::None {
        let text = take(bytes, at, count as usize);
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        return format!("{:?}", String::from_utf8_lossy(&text[..end]));
    }
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(value(element, bytes, at, &mut BTreeMap::new(), ""));
    }
    format!("[{}]", values.join(" "))
}

fn integer(i: &IntegerType, bytes: &[u8], at: &mut usize) -> i128 {
    let mut raw = take(bytes, at, i.size_bits as usize / 8).to_vec();
    if i.reverse_byte_order {
        raw.reverse();
    }
    let word = raw.iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b));
    let unused = 64 - i.size_bits;
    if i.signed { i128::from((word << unused) as i64 >> unused) } else { i128::from(word) }
}

fn take<'a>(bytes: &'a [u8], at: &mut usize, count: usize) -> &'a [u8] {
    let taken = &bytes[*at..*at + count];
    *at += count;
    taken
}
