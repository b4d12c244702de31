//! A filter over one record.

use std::cmp::Ordering;

use crate::pattern::Pattern;
use crate::tree::{Binary, Expression, Reference, Unary};

/// A value of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// An integer; unsigned ones above 2^63 are the negative of the same bits.
    Integer(i64),
    /// A real number.
    Real(f64),
    /// Text in any encoding that its bytes are compared by.
    Text(&'a [u8]),
}

/// What a filter is evaluated over.
pub trait Record {
    /// The value that a reference leads to; `None` when there is none.
    fn value(&self, reference: &Reference) -> Option<Value<'_>>;

    /// Whether a label of an enumeration's value matches; `None` when the reference leads to no
    /// enumeration.
    fn has_label(&self, reference: &Reference, label: &Pattern) -> Option<bool> {
        let _ = (reference, label);
        None
    }
}

/// Whether the record passes the filter.
pub fn matches<R: Record + ?Sized>(filter: &Expression, record: &R) -> bool {
    is_true(evaluate(filter, record))
}

/// The value of a part that is not text; `None` when it has none.
fn evaluate<'a, R: Record + ?Sized>(expression: &'a Expression, record: &'a R) -> Option<Value<'a>> {
    match expression {
        Expression::Integer(value) => Some(Value::Integer(*value)),
        Expression::Real(value) => Some(Value::Real(*value)),
        Expression::Text(pattern) => pattern.as_literal().map(Value::Text),
        Expression::Reference(reference) => record.value(reference),
        Expression::Unary(operator, operand) => unary(*operator, evaluate(operand, record)),
        Expression::Binary(operator, left, right) => binary(*operator, left, right, record),
    }
}

fn is_true(value: Option<Value<'_>>) -> bool {
    match value {
        Some(Value::Integer(value)) => value != 0,
        Some(Value::Real(value)) => value != 0.0,
        Some(Value::Text(_)) | None => false,
    }
}

fn unary(operator: Unary, operand: Option<Value<'_>>) -> Option<Value<'_>> {
    match (operator, operand?) {
        (Unary::Not, Value::Integer(value)) => Some(truth(value == 0)),
        (Unary::Not, Value::Real(value)) => Some(truth(value == 0.0)),
        (Unary::Minus, Value::Integer(value)) => Some(Value::Integer(value.wrapping_neg())),
        (Unary::Minus, Value::Real(value)) => Some(Value::Real(-value)),
        (Unary::Plus, value @ (Value::Integer(_) | Value::Real(_))) => Some(value),
        (Unary::Invert, Value::Integer(value)) => Some(Value::Integer(!value)),
        (Unary::Invert, Value::Real(_)) | (_, Value::Text(_)) => None,
    }
}

fn truth(value: bool) -> Value<'static> {
    Value::Integer(i64::from(value))
}

fn binary<'a, R: Record + ?Sized>(
    operator: Binary,
    left: &'a Expression,
    right: &'a Expression,
    record: &'a R,
) -> Option<Value<'a>> {
    match operator {
        Binary::And => {
            return Some(truth(is_true(evaluate(left, record)) && is_true(evaluate(right, record))));
        }
        Binary::Or => {
            return Some(truth(is_true(evaluate(left, record)) || is_true(evaluate(right, record))));
        }
        _ => {}
    }
    if operator.is_comparison() {
        return Some(truth(compare(operator, left, right, record).unwrap_or(false)));
    }
    let (Value::Integer(left), Value::Integer(right)) = (evaluate(left, record)?, evaluate(right, record)?)
    else {
        return None;
    };
    let shift = u32::try_from(right).ok().filter(|shift| *shift < 64);
    Some(Value::Integer(match operator {
        Binary::ShiftLeft => left.wrapping_shl(shift?),
        // As on unsigned numbers: no sign moves in.
        Binary::ShiftRight => (left.cast_unsigned() >> shift?).cast_signed(),
        Binary::BitAnd => left & right,
        Binary::BitXor => left ^ right,
        _ => left | right,
    }))
}

/// `None` when the two can not be compared.
fn compare<R: Record + ?Sized>(
    operator: Binary,
    left: &Expression,
    right: &Expression,
    record: &R,
) -> Option<bool> {
    for (pattern, other) in [(left, right), (right, left)] {
        if let (Expression::Text(pattern), Expression::Reference(reference)) = (pattern, other)
            && let Some(equal) = equals_text(reference, pattern, record)
        {
            match operator {
                Binary::Equal => return Some(equal),
                Binary::NotEqual => return Some(!equal),
                _ => {}
            }
        }
    }
    let order = match (evaluate(left, record)?, evaluate(right, record)?) {
        (Value::Integer(left), Value::Integer(right)) => left.cmp(&right),
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        (Value::Text(_), _) | (_, Value::Text(_)) => return None,
        (left, right) => match as_real(left).partial_cmp(&as_real(right)) {
            Some(order) => order,
            // Nothing equals what is no number.
            None => return Some(operator == Binary::NotEqual),
        },
    };
    Some(match operator {
        Binary::Less => order == Ordering::Less,
        Binary::LessOrEqual => order != Ordering::Greater,
        Binary::Greater => order == Ordering::Greater,
        Binary::GreaterOrEqual => order != Ordering::Less,
        Binary::Equal => order == Ordering::Equal,
        _ => order != Ordering::Equal,
    })
}

/// Whether a reference equals text; `None` when it has no value that could.
fn equals_text<R: Record + ?Sized>(reference: &Reference, pattern: &Pattern, record: &R) -> Option<bool> {
    match record.value(reference)? {
        Value::Text(text) => Some(pattern.matches(text)),
        Value::Integer(_) => record.has_label(reference, pattern),
        Value::Real(_) => None,
    }
}

fn as_real(value: Value<'_>) -> f64 {
    match value {
        Value::Integer(value) => value as f64,
        Value::Real(value) => value,
        Value::Text(_) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    struct Sample;

    impl Record for Sample {
        fn value(&self, reference: &Reference) -> Option<Value<'_>> {
            Some(match reference.to_string().as_str() {
                "i" => Value::Integer(-5),
                "u" => Value::Integer(u64::MAX.cast_signed()),
                "f" => Value::Real(2.5),
                "nan" => Value::Real(f64::NAN),
                "s" => Value::Text(b"/var/log/x.log"),
                "s.n" => Value::Integer(7),
                "a[1]" => Value::Integer(11),
                "e" => Value::Integer(3),
                "$ctx.vpid" => Value::Integer(42),
                "$event.name" => Value::Text(b"sched_switch"),
                _ => return None,
            })
        }

        fn has_label(&self, reference: &Reference, label: &Pattern) -> Option<bool> {
            (reference.to_string() == "e").then(|| label.matches(b"RED"))
        }
    }

    #[test]
    fn filters_over_a_record() {
        let check = |text: &str, want: bool| {
            let filter = parse(text).expect(text);
            assert_eq!(matches(&filter, &Sample), want, "{text}");
        };
        for text in [
            "i == -5",
            "i < 0 && f > 2",
            "f == 2.5 || missing",
            "u == -1",
            "u == 0xffffffffffffffff",
            r#"s == "/var/*.log""#,
            r#""/var/log/x.log" == s"#,
            r#"s != "x*""#,
            r#"s > "/var""#,
            "s.n == 7 && a[1] == 11",
            "$ctx.vpid == 42",
            r#"$event.name == "sched_*""#,
            r#"e == "R*D""#,
            r#"e != "BLUE""#,
            "e == 3",
            "i & 0xff == 0xfb",
            "1 << 3 == 8",
            "i >> 60 == 15",
            "!(missing == 1)",
            "~0 == -1",
            "!0",
            "nan != nan",
            "+i == -5",
        ] {
            check(text, true);
        }
        for text in [
            "missing",
            "!missing",
            "missing == 1",
            "missing != 1",
            "a[9] == 0",
            "1 << 64",
            "1 << 64 == 0",
            "1 << -1 == 0",
            "s",
            "s == 1",
            "s != 1",
            "s & 1",
            "f & 1",
            r#"i == "x""#,
            r#"i != "x""#,
            r#"e == "BLUE""#,
            "nan == nan",
            "i > 0 || f < 2",
            "~f == 0",
        ] {
            check(text, false);
        }
    }
}
