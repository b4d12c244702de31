//! The text of single values: integers in their base, quoted text, enumerations, flags.

use sillage_ctf::model::{BitFlag, DisplayBase, IntegerClass};

use super::palette::Palette;
use crate::sinks::number::{LOWER, UPPER, push_i64, push_radix, push_u64};

/// How an integer of a class is written, decided once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Radix {
    Decimal,
    /// Base 16 of the bits in the mask.
    Hexadecimal(u64),
    /// Base 8 of the bits in the mask.
    Octal(u64),
    /// Base 2 with this many digits.
    Binary(u32),
}

impl Radix {
    pub(super) fn of(class: &IntegerClass) -> Self {
        let bits = class.size_bits();
        let mask = |digit_bits: u32| {
            // A signed value is shown in whole digits.
            let rounded =
                if class.signed || digit_bits == 4 { bits.next_multiple_of(digit_bits) } else { 64 };
            if rounded >= 64 { u64::MAX } else { (1 << rounded) - 1 }
        };
        match class.base {
            DisplayBase::Decimal => Self::Decimal,
            DisplayBase::Hexadecimal => Self::Hexadecimal(mask(4)),
            DisplayBase::Octal => Self::Octal(if bits < 64 { mask(3) } else { u64::MAX }),
            DisplayBase::Binary => Self::Binary(bits),
        }
    }

    /// Appends the value whose bits are `raw`.
    #[inline]
    pub(super) fn push(self, out: &mut Vec<u8>, raw: u64, signed: bool) {
        match self {
            Self::Decimal if signed => push_i64(out, raw.cast_signed()),
            Self::Decimal => push_u64(out, raw),
            Self::Hexadecimal(mask) => {
                out.extend_from_slice(b"0x");
                push_radix(out, raw & mask, 4, UPPER);
            }
            Self::Octal(mask) => {
                out.push(b'0');
                push_radix(out, raw & mask, 3, UPPER);
            }
            Self::Binary(bits) => {
                out.extend_from_slice(b"0b");
                out.extend((0..bits).rev().map(|bit| b'0' + (raw >> bit & 1) as u8));
            }
        }
    }
}

/// Whether a byte can not stand in quoted text as it is.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || byte == 0x7f || matches!(byte as u8, b'\\' | b'\'' | b'"' | b'?');
        byte += 1;
    }
    table
};

/// Appends text in quotes, with escapes; bytes from 0x80 on pass.
#[inline]
pub(super) fn push_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| ESCAPED[usize::from(*byte)]) {
        out.extend_from_slice(&rest[..at]);
        let (text, len) = escape(rest[at]);
        out.extend_from_slice(&text[..len]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// What stands for a byte that can not stand as it is, in the first bytes of the array.
pub(super) fn escape(byte: u8) -> ([u8; 4], usize) {
    let letter = match byte {
        b'\\' | b'\'' | b'"' | b'?' => byte,
        0x07 => b'a',
        0x08 => b'b',
        0x1b => b'e',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x0b => b'v',
        _ => return ([b'\\', b'x', LOWER[usize::from(byte >> 4)], LOWER[usize::from(byte & 15)]], 4),
    };
    ([b'\\', letter, 0, 0], 2)
}

/// How labels of an enumeration are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EnumStyle {
    /// Several labels stand in braces.
    pub braces: bool,
    /// Values without a label are shown as flags.
    pub flags: bool,
}

/// Appends the whole of an enumeration field.
pub(super) fn push_enum(
    out: &mut Vec<u8>,
    class: &IntegerClass,
    raw: u64,
    style: EnumStyle,
    palette: &Palette,
) {
    out.extend_from_slice(b"( ");
    let count = class.labels(raw).count();
    if count > 0 {
        let several = count > 1 && style.braces;
        if several {
            out.extend_from_slice(b"{ ");
        }
        push_labels(out, class.labels(raw), b", ", palette);
        if several {
            out.extend_from_slice(b" }");
        }
    } else if !(style.flags && push_enum_flags(out, class, raw, palette)) {
        out.extend_from_slice(palette.unknown);
        out.extend_from_slice(b"<unknown>");
        out.extend_from_slice(palette.reset);
    }
    out.extend_from_slice(b" : container = ");
    out.extend_from_slice(palette.value);
    Radix::of(class).push(out, raw, class.signed);
    out.extend_from_slice(palette.reset);
    out.extend_from_slice(b" )");
}

/// Appends the value as the flags that it is made of; false, and nothing, when they do not cover
/// it. A flag is a mapping of one value with one bit.
fn push_enum_flags(out: &mut Vec<u8>, class: &IntegerClass, raw: u64, palette: &Palette) -> bool {
    let bit_of = |mapping: &sillage_ctf::model::Mapping| match mapping.ranges.as_slice() {
        [range] if range.lower == range.upper && range.lower > 0 => {
            u64::try_from(range.lower).ok().filter(|bits| bits.is_power_of_two())
        }
        _ => None,
    };
    let named = class.mappings.iter().filter_map(bit_of).fold(0, |all, bit| all | bit);
    if raw == 0 || raw & !named != 0 {
        return false;
    }
    let labels = class.mappings.iter().filter(|m| bit_of(m).is_some_and(|bit| bit & raw != 0));
    push_labels(out, labels.map(|mapping| mapping.label.as_str()), b" | ", palette);
    true
}

fn push_labels<'a>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = &'a str>,
    between: &[u8],
    palette: &Palette,
) {
    for (index, label) in labels.enumerate() {
        if index > 0 {
            out.extend_from_slice(between);
        }
        out.extend_from_slice(palette.value);
        push_quoted(out, label.as_bytes());
        out.extend_from_slice(palette.reset);
    }
}

/// Appends a bit array and the names of its flags that have a bit set, sorted.
pub(super) fn push_bits(out: &mut Vec<u8>, raw: u64, flags: &[BitFlag], palette: &Palette) {
    out.extend_from_slice(palette.value);
    out.extend_from_slice(b"0x");
    push_radix(out, raw, 4, UPPER);
    out.extend_from_slice(palette.reset);
    let on = |flag: &&BitFlag| {
        (0..64u32)
            .any(|bit| raw >> bit & 1 == 1 && flag.ranges.iter().any(|range| range.contains(i128::from(bit))))
    };
    let mut labels: Vec<&str> = flags.iter().filter(on).map(|flag| flag.label.as_str()).collect();
    if labels.is_empty() {
        return;
    }
    labels.sort_unstable();
    out.extend_from_slice(b" { ");
    push_labels(out, labels.into_iter(), b", ", palette);
    out.extend_from_slice(b" }");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let check = |text: &[u8], want: &str| {
            let mut out = Vec::new();
            push_quoted(&mut out, text);
            assert_eq!(String::from_utf8_lossy(&out), want);
        };
        check(b"plain", "\"plain\"");
        check("h\u{e9}".as_bytes(), "\"h\u{e9}\"");
        check(b"a\"b\\c'd?", r#""a\"b\\c\'d\?""#);
        check(b"\x01\x02\x1b\x7f\n\t\r\x07\x08\x0c\x0b", r#""\x01\x02\e\x7f\n\t\r\a\b\f\v""#);
    }

    #[test]
    fn bases() {
        let check = |radix: Radix, raw: i64, signed, want: &str| {
            let mut out = Vec::new();
            radix.push(&mut out, raw.cast_unsigned(), signed);
            assert_eq!(String::from_utf8_lossy(&out), want);
        };
        check(Radix::Hexadecimal(0xff), -2, true, "0xFE");
        check(Radix::Octal(0o77), -1, true, "077");
        check(Radix::Octal(u64::MAX), 0o11, false, "011");
        check(Radix::Binary(4), 5, false, "0b0101");
        check(Radix::Decimal, -5, true, "-5");
    }
}
