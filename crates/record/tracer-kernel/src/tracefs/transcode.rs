//! From a record of the kernel's own tracing to the payload of ours: field by field, as the format says.
//!
//! It only does what a recipe made from a format asks for. A record that is shorter than its format reads
//! as zeroes behind its end.

use super::sieve::Sieve;
use crate::recipe::{Expr, Field, Hook, Recipe, Source, Type};
use sillage_bpf::Alu;

/// Bytes of a string, its zero included, beyond which it is cut; as programs do.
const STRING_BYTES_MAX: usize = crate::code::STRING_BYTES_MAX as usize;
/// Priorities of the scheduler's records are the kernel's; LTTng counts from the first of real time.
const PRIORITY_BASE: i64 = 100;

/// How an event's records are transcoded.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Our number of it.
    pub(super) event_id: u32,
    /// Fields, and what is added to the value of each.
    fields: Vec<(Field, i64)>,
    /// Which records are transcoded.
    sieve: Sieve,
}

impl Plan {
    /// For an event and the contexts in front of it; None if one of the fields is not in the record.
    pub(super) fn new(event_id: u32, recipe: &Recipe, contexts: &[Field], sieve: Sieve) -> Option<Plan> {
        let fields = contexts
            .iter()
            .chain(recipe.fields.iter())
            .map(|field| is_known(field).then(|| (field.clone(), plus(recipe, field))));
        Some(Plan { event_id, fields: fields.collect::<Option<_>>()?, sieve })
    }

    /// Whether the event's filters let a record pass.
    pub(super) fn passes(&self, record: &[u8]) -> bool {
        self.sieve.passes(record)
    }

    /// Appends the payload of a record.
    pub(super) fn write(&self, record: &[u8], payload: &mut Vec<u8>) {
        self.fields.iter().for_each(|(field, plus)| write_field(field, *plus, record, payload));
    }
}

/// What is added to the numbers of an event's field.
pub(super) fn plus(recipe: &Recipe, field: &Field) -> i64 {
    let scheduler = matches!(&recipe.hook, Hook::Record { category, .. } if category == "sched");
    if scheduler && field.name.ends_with("prio") { -PRIORITY_BASE } else { 0 }
}

/// The text of a field that is one, without its zero.
pub(super) fn text<'r>(field: &Field, record: &'r [u8]) -> Option<&'r [u8]> {
    let Source::Kernel(expr) = &field.from else { return None };
    let most = match (&field.ty, expr) {
        (Type::String, _) => STRING_BYTES_MAX - 1,
        (Type::Text(bytes), Expr::Record { bytes: have, .. }) => usize::from(*have).min(*bytes as usize),
        _ => return None,
    };
    let found = bytes_at(record, place(expr, record), most);
    let end = found.iter().position(|byte| *byte == 0).unwrap_or(found.len());
    Some(&found[..end])
}

/// The number that a field has in the event, as wide and signed as it is; 0 of what is none.
pub(super) fn number(field: &Field, plus: i64, record: &[u8]) -> i64 {
    let (Type::Int(int) | Type::Enum(int, _), Source::Kernel(expr)) = (&field.ty, &field.from) else {
        return 0;
    };
    let value = value(expr, record).wrapping_add(plus as u64);
    let unused = 64 - u32::from(int.bits.clamp(1, 64));
    if int.signed { (value << unused) as i64 >> unused } else { (value << unused >> unused) as i64 }
}

/// Whether a record alone says what the field is.
pub(super) fn is_known(field: &Field) -> bool {
    match (&field.ty, &field.from) {
        (Type::Int(_) | Type::Enum(..), Source::Kernel(expr)) => is_computable(expr),
        (Type::Text(_) | Type::Array(..), Source::Kernel(Expr::Record { .. })) => true,
        (Type::String, Source::Kernel(Expr::RecordDynamic { .. } | Expr::Record { .. })) => true,
        (
            Type::Sequence { element, .. },
            Source::Sequence { from: Expr::RecordDynamic { .. }, count, .. },
        ) => is_computable(count) && element.fixed_bytes().is_some_and(|bytes| bytes > 0),
        _ => false,
    }
}

fn is_computable(expr: &Expr) -> bool {
    match expr {
        Expr::Const(_) | Expr::Record { .. } | Expr::RecordDynamicCount { .. } => true,
        Expr::Op(op, left, right) => {
            matches!(op, Alu::Add | Alu::Sub | Alu::And | Alu::Or | Alu::Lsh | Alu::Rsh)
                && is_computable(left)
                && is_computable(right)
        }
        Expr::If(condition, then, other) => [condition, then, other].into_iter().all(|e| is_computable(e)),
        _ => false,
    }
}

fn bytes_at(record: &[u8], at: usize, length: usize) -> &[u8] {
    let rest = record.get(at..).unwrap_or_default();
    &rest[..length.min(rest.len())]
}

fn unsigned(record: &[u8], at: usize, bytes: usize) -> u64 {
    let mut word = [0; 8];
    let found = bytes_at(record, at, bytes.min(8));
    let start = if cfg!(target_endian = "big") { 8 - bytes.min(8) } else { 0 };
    word[start..start + found.len()].copy_from_slice(found);
    u64::from_ne_bytes(word)
}

fn value(expr: &Expr, record: &[u8]) -> u64 {
    match *expr {
        Expr::Const(value) => value as u64,
        Expr::Record { offset, bytes, signed } => {
            let value = unsigned(record, offset.into(), bytes.into());
            let unused = 64 - 8 * u32::from(bytes.min(8));
            match signed && unused < 64 {
                true => ((value << unused) as i64 >> unused) as u64,
                false => value,
            }
        }
        Expr::RecordDynamicCount { offset, element_bytes } => {
            (unsigned(record, offset.into(), 4) >> 16) / u64::from(element_bytes.max(1))
        }
        Expr::Op(op, left, right) => {
            let (left, right) = (value(left, record), value(right, record));
            match op {
                Alu::Add => left.wrapping_add(right),
                Alu::Sub => left.wrapping_sub(right),
                Alu::And => left & right,
                Alu::Or => left | right,
                Alu::Lsh => left.wrapping_shl(right as u32),
                Alu::Rsh => left.wrapping_shr(right as u32),
                _ => 0,
            }
        }
        Expr::If(condition, then, other) => {
            value(if value(condition, record) != 0 { then } else { other }, record)
        }
        _ => 0,
    }
}

/// Where the bytes of something with a place in the record begin.
fn place(expr: &Expr, record: &[u8]) -> usize {
    match *expr {
        Expr::Record { offset, .. } => offset.into(),
        Expr::RecordDynamic { offset, relative } => {
            let at = (unsigned(record, offset.into(), 4) & 0xffff) as usize;
            if relative { at + usize::from(offset) + 4 } else { at }
        }
        _ => usize::MAX,
    }
}

fn write_integer(payload: &mut Vec<u8>, value: u64, bytes: usize) {
    let word = value.to_ne_bytes();
    let start = if cfg!(target_endian = "big") { 8 - bytes } else { 0 };
    payload.extend_from_slice(&word[start..start + bytes]);
}

/// Appends bytes of the record, then zeroes.
fn write_bytes(payload: &mut Vec<u8>, found: &[u8], wanted: usize) {
    payload.extend_from_slice(&found[..found.len().min(wanted)]);
    payload.resize(payload.len() + wanted.saturating_sub(found.len()), 0);
}

fn write_field(field: &Field, plus: i64, record: &[u8], payload: &mut Vec<u8>) {
    match (&field.ty, &field.from) {
        (Type::Int(int) | Type::Enum(int, _), Source::Kernel(expr)) => {
            let value = value(expr, record).wrapping_add(plus as u64);
            write_integer(payload, value, int.bytes().min(8) as usize);
        }
        (Type::String, Source::Kernel(expr)) => {
            let text = bytes_at(record, place(expr, record), STRING_BYTES_MAX - 1);
            payload.extend(text.iter().take_while(|byte| **byte != 0));
            payload.push(0);
        }
        (ty @ (Type::Text(_) | Type::Array(..)), Source::Kernel(expr)) => {
            let wanted = ty.fixed_bytes().unwrap_or(0) as usize;
            let have = match expr {
                Expr::Record { bytes, .. } => usize::from(*bytes).min(wanted),
                _ => wanted,
            };
            write_bytes(payload, bytes_at(record, place(expr, record), have), wanted);
        }
        (Type::Sequence { count, element }, Source::Sequence { from, count: number, most }) => {
            let element_bytes = element.fixed_bytes().unwrap_or(1).max(1) as usize;
            let found = place(from, record);
            let whole = record.len().saturating_sub(found) / element_bytes;
            let number = value(number, record).min(u64::from(*most)).min(whole as u64);
            write_integer(payload, number, count.bytes() as usize);
            let bytes = number as usize * element_bytes;
            write_bytes(payload, bytes_at(record, found, bytes), bytes);
        }
        // `is_known` lets nothing else pass.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;

    const FORMAT: &str = "name: x\nID: 9\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:__data_loc char[] text;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:int prio;\toffset:12;\tsize:4;\tsigned:1;\n\
        \tfield:char comm[4];\toffset:16;\tsize:4;\tsigned:0;\n\
        \tfield:__data_loc u16[] words;\toffset:20;\tsize:4;\tsigned:0;\n";

    fn record() -> Vec<u8> {
        let mut record = vec![9, 0, 0, 0, 7, 0, 0, 0];
        for word in [24 | 3 << 16, 90u32, u32::from_ne_bytes(*b"ab\0\0"), 28 | 4 << 16] {
            record.extend(word.to_ne_bytes());
        }
        record.extend(b"hi\0\0");
        record.extend([1u16, 2].map(u16::to_ne_bytes).concat());
        record
    }

    #[test]
    fn every_kind_of_field_is_written() {
        let recipe = format::recipe("sched", "x", FORMAT).unwrap();
        let mut payload = Vec::new();
        Plan::new(1, &recipe, &[], Sieve::default()).unwrap().write(&record(), &mut payload);
        let expected = [&b"hi\0"[..], &(-10i32).to_ne_bytes(), b"ab\0\0", &2u32.to_ne_bytes(), &[1, 0, 2, 0]];
        assert_eq!(payload, expected.concat());
    }

    #[test]
    fn short_records_read_as_zeroes() {
        let recipe = format::recipe("other", "x", FORMAT).unwrap();
        let plan = Plan::new(1, &recipe, &[], Sieve::default()).unwrap();
        for length in 0..record().len() {
            let mut payload = Vec::new();
            plan.write(&record()[..length], &mut payload);
            assert!(payload.len() >= 1 + 4 + 4 + 4, "{length}: {payload:?}");
        }
    }
}
