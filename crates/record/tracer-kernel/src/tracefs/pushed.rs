//! LTTng's filters in the kernel's own words, so that what they reject does not fill the instance's buffers.
//!
//! What the kernel's language cannot say exactly is left out on the side of letting pass: the sieve looks at
//! every record anyway. So a negation is moved inwards to comparisons, of which each either means the same in
//! both languages or is not pushed; a conjunction may lose parts, a disjunction is pushed whole or not at all.

use crate::recipe::{Expr, Field, Int, Recipe, Source, Type};
use sillage_filter::{Binary, Expression, Pattern, Reference, Unary};

/// Bytes of a text that kernels compare with.
const TEXT_BYTES_MAX: usize = 200;
/// Bytes of a filter; the kernel takes less than a page.
const FILTER_BYTES_MAX: usize = 2000;
/// Where every record has the number of its task, and what the kernel calls it.
const TASK: (u16, &str) = (4, "common_pid");

/// What the kernel has to know of an event: its fields by their own names.
pub(super) struct Words<'a> {
    /// The record as its format describes it.
    pub(super) record: &'a Recipe,
    /// What a filter's references lead to, and what is added to the numbers of each.
    pub(super) fields: &'a [(Reference, Field, i64)],
}

impl Words<'_> {
    /// A text that lets pass what one of the filters does, and perhaps more; None if it would say nothing.
    pub(super) fn any(&self, filters: &[Expression]) -> Option<String> {
        let texts: Option<Vec<String>> = filters.iter().map(|filter| self.weaker(filter, true)).collect();
        let texts = texts.filter(|texts| !texts.is_empty())?;
        Some(texts.join(" || ")).filter(|text| text.len() < FILTER_BYTES_MAX)
    }

    /// A text for a condition or its opposite (`wanted` is false); None where the kernel's words do not suffice.
    fn weaker(&self, condition: &Expression, wanted: bool) -> Option<String> {
        match condition {
            Expression::Unary(Unary::Not, operand) => self.weaker(operand, !wanted),
            Expression::Binary(operator @ (Binary::And | Binary::Or), left, right) => {
                let (left, right) = (self.weaker(left, wanted), self.weaker(right, wanted));
                match ((*operator == Binary::And) == wanted, left, right) {
                    (true, Some(left), Some(right)) => Some(format!("({left} && {right})")),
                    (true, left, right) => left.or(right),
                    (false, left, right) => Some(format!("({} || {})", left?, right?)),
                }
            }
            Expression::Binary(Binary::BitAnd, left, right) if wanted => {
                let (Expression::Reference(reference), Expression::Integer(bits)) = (&**left, &**right)
                else {
                    return None;
                };
                let number = self.number(reference)?;
                (number.plus == 0 && *bits > 0 && number.holds(*bits))
                    .then(|| format!("{} & {bits}", number.name))
            }
            Expression::Binary(operator, left, right) => {
                let symbol = symbol(*operator, wanted)?;
                match (&**left, &**right) {
                    (Expression::Reference(reference), Expression::Integer(value)) => {
                        self.compared(reference, symbol, *value)
                    }
                    (Expression::Integer(value), Expression::Reference(reference)) => {
                        self.compared(reference, mirrored(symbol), *value)
                    }
                    (Expression::Reference(reference), Expression::Text(pattern))
                    | (Expression::Text(pattern), Expression::Reference(reference)) => {
                        self.text(reference, symbol, pattern)
                    }
                    _ => None,
                }
            }
            Expression::Reference(reference) => self.compared(reference, if wanted { "!=" } else { "==" }, 0),
            _ => None,
        }
    }

    fn field(&self, reference: &Reference) -> Option<(&Field, i64)> {
        let (_, field, plus) = self.fields.iter().find(|(of, ..)| of == reference)?;
        Some((field, *plus))
    }

    /// The kernel's name of what has this place in the record.
    fn name(&self, from: &Source) -> Option<(&str, &Type)> {
        let at = offset(from)?;
        let mut fields = self.record.fields.iter();
        fields.find(|field| offset(&field.from) == Some(at)).map(|field| (&*field.name, &field.ty))
    }

    /// What a reference is, if it is a number that means the same to the kernel.
    fn number(&self, reference: &Reference) -> Option<Number<'_>> {
        let (field, plus) = self.field(reference)?;
        let (Type::Int(int) | Type::Enum(int, _)) = &field.ty else { return None };
        let Source::Kernel(Expr::Record { offset, bytes, signed }) = field.from else { return None };
        let name = match self.name(&field.from) {
            None if offset == TASK.0 => TASK.1,
            // What is a pointer may be a text to the kernel.
            Some((name, Type::Int(Int { base: 10, .. }))) => name,
            _ => return None,
        };
        let bits = 8 * u32::from(bytes);
        let same = u32::from(int.bits) == bits && int.signed == signed;
        let wider = u32::from(int.bits) > bits && (int.signed || !signed);
        (!int.big_endian && (same || wider)).then_some(Number { name, bits, signed, plus })
    }

    fn compared(&self, reference: &Reference, symbol: &str, value: i64) -> Option<String> {
        let number = self.number(reference)?;
        let value = value.checked_sub(number.plus)?;
        // Our language orders numbers of 64 bits as signed ones.
        let ordered = number.signed || number.bits < 64 || matches!(symbol, "==" | "!=");
        (ordered && number.holds(value)).then(|| format!("{} {symbol} {value}", number.name))
    }

    fn text(&self, reference: &Reference, symbol: &str, pattern: &Pattern) -> Option<String> {
        let (field, _) = self.field(reference)?;
        let (name, ty) = self.name(&field.from)?;
        let room = match ty {
            Type::String => TEXT_BYTES_MAX,
            Type::Text(bytes) => *bytes as usize,
            _ => return None,
        };
        let parts: Option<Vec<&str>> = pattern.parts().map(plain).collect();
        let parts = parts?;
        if parts.iter().map(|part| part.len()).sum::<usize>() + parts.len() >= room.min(TEXT_BYTES_MAX) {
            return None;
        }
        match (&parts[..], symbol) {
            ([""], _) => None,
            ([text], "==" | "!=") => Some(format!("{name} {symbol} \"{text}\"")),
            ([start, ""], "==") if !start.is_empty() => Some(format!("{name} ~ \"{start}*\"")),
            // Of arrays the kernel compares ends with the array's. A set of one character makes it compare any
            // other pattern with the text alone.
            (_, "==") if *ty == Type::String => {
                let pattern = parts.join("*");
                let at = pattern.rfind(|c: char| c.is_ascii_alphanumeric())?;
                Some(format!("{name} ~ \"{}[{}]{}\"", &pattern[..at], &pattern[at..=at], &pattern[at + 1..]))
            }
            _ => None,
        }
    }
}

/// Where in the record a field, or what says where it is, begins.
fn offset(from: &Source) -> Option<u16> {
    match from {
        Source::Kernel(Expr::Record { offset, .. } | Expr::RecordDynamic { offset, .. }) => Some(*offset),
        _ => None,
    }
}

/// A number of a record.
struct Number<'a> {
    name: &'a str,
    bits: u32,
    signed: bool,
    /// What is added to it.
    plus: i64,
}

impl Number<'_> {
    /// Whether the kernel, which cuts what it compares with, keeps this value.
    fn holds(&self, value: i64) -> bool {
        let unused = 64 - self.bits.clamp(1, 64);
        match self.signed {
            true => value << unused >> unused == value,
            false => value >= 0 && ((value as u64) << unused >> unused) as i64 == value,
        }
    }
}

/// The text of a part of a pattern, if nothing in it means something to the kernel.
fn plain(part: &[u8]) -> Option<&str> {
    let fine = |byte: &u8| (byte.is_ascii_graphic() || *byte == b' ') && !b"\"'\\*?[]!".contains(byte);
    part.iter().all(fine).then(|| std::str::from_utf8(part).ok())?
}

fn symbol(operator: Binary, wanted: bool) -> Option<&'static str> {
    Some(match (operator, wanted) {
        (Binary::Equal, true) | (Binary::NotEqual, false) => "==",
        (Binary::NotEqual, true) | (Binary::Equal, false) => "!=",
        (Binary::Less, true) | (Binary::GreaterOrEqual, false) => "<",
        (Binary::LessOrEqual, true) | (Binary::Greater, false) => "<=",
        (Binary::Greater, true) | (Binary::LessOrEqual, false) => ">",
        (Binary::GreaterOrEqual, true) | (Binary::Less, false) => ">=",
        _ => return None,
    })
}

/// The same comparison with its sides changed.
fn mirrored(symbol: &'static str) -> &'static str {
    match symbol {
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sieve::Sieve;
    use crate::format;

    const FORMAT: &str = "name: x\nID: 9\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:int prio;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:char comm[8];\toffset:12;\tsize:8;\tsigned:0;\n\
        \tfield:__data_loc char[] path;\toffset:20;\tsize:4;\tsigned:0;\n\
        \tfield:u8 small;\toffset:24;\tsize:1;\tsigned:0;\n\
        \tfield:u64 big;\toffset:32;\tsize:8;\tsigned:0;\n\
        \tfield:void * at;\toffset:40;\tsize:8;\tsigned:0;\n";

    fn pushed(filters: &[&str]) -> String {
        let recipe = format::recipe("sched", "x", FORMAT).unwrap();
        let mut sieve = Sieve::default();
        filters.iter().for_each(|text| sieve.add(&recipe, text).unwrap());
        sieve.pushed(&recipe).unwrap_or_default()
    }

    #[test]
    fn what_the_kernel_says_in_the_same_way_is_pushed() {
        for (filter, text) in [
            ("prio == -10", "prio == 90"),
            ("!(prio < 20 || small >= 3)", "(prio >= 120 && small < 3)"),
            ("5 > small", "small < 5"),
            ("$ctx.tid == 7", "common_pid == 7"),
            ("small & 4", "small & 4"),
            ("small", "small != 0"),
            ("comm == \"dd\"", "comm == \"dd\""),
            ("!(comm == \"dd\")", "comm != \"dd\""),
            ("comm == \"d*\"", "comm ~ \"d*\""),
            ("path == \"*/sleep\"", "path ~ \"*/slee[p]\""),
            ("path == \"/a*/b.*\"", "path ~ \"/a*/[b].*\""),
            ("big != 3", "big != 3"),
        ] {
            assert_eq!(pushed(&[filter]), text, "{filter}");
        }
        assert_eq!(pushed(&["prio == 1", "small == 2"]), "prio == 101 || small == 2");
    }

    #[test]
    fn what_it_would_understand_otherwise_is_left_to_the_sieve() {
        for filter in [
            "small == 300",               // cut to a byte
            "small != -1",                // no sign
            "big > 3",                    // ordered as signed numbers here
            "at == 3",                    // perhaps a text
            "comm == \"*d\"",             // the array's end there
            "comm == \"longer than it\"", // compared up to the array's end
            "path == \"a?b\"",            // any character there
            "path != \"a*\"",             // no such operator
            "!(small & 4)",               // nor this
            "prio == small",              // nor two fields
            "$ctx.need_reschedule == 1 || prio == 1",
        ] {
            assert_eq!(pushed(&[filter]), "", "{filter}");
        }
        // Of a conjunction that much stays.
        assert_eq!(pushed(&["big > 3 && prio == 1"]), "prio == 101");
        assert_eq!(pushed(&["!(big > 3 || prio == 1)"]), "prio != 101");
        assert_eq!(pushed(&["prio == 1", "big > 3"]), "");
    }
}
