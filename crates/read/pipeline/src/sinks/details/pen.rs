//! Writing with indentation, digit groups and the colours of `sink.text.details`.

use crate::sinks::number::{LOWER, push_fixed, push_radix, push_u64};
use sillage_ctf::model::DisplayBase;

const RESET: &str = "\x1b[0m";

/// What a piece of text is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// Kinds of objects and messages.
    Title,
    /// Names of properties.
    Property,
    /// Names of members, options and entries.
    Member,
    /// Values.
    Value,
    /// Types of field classes.
    Type,
    /// Names of events.
    EventName,
    /// Clock values.
    Time,
    /// Numbers of trace, class and stream.
    Number,
    Yes,
    No,
    Empty,
}

impl Ink {
    fn sequence(self) -> &'static str {
        match self {
            Self::Title => "\x1b[1m\x1b[1m\x1b[33m",
            Self::Property => "\x1b[35m",
            Self::Member => "\x1b[36m",
            Self::Value => "\x1b[1m",
            Self::Type => "\x1b[34m",
            Self::EventName => "\x1b[32m",
            Self::Time => "\x1b[1m\x1b[1m\x1b[34m",
            Self::Number => "\x1b[1m\x1b[1m\x1b[36m",
            Self::Yes => "\x1b[1m\x1b[1m\x1b[32m",
            Self::No => "\x1b[1m\x1b[1m\x1b[31m",
            Self::Empty => "\x1b[1m\x1b[1m\x1b[35m",
        }
    }
}

/// Appends to a buffer.
pub(super) struct Pen<'a> {
    pub out: &'a mut Vec<u8>,
    pub color: bool,
    pub indent: usize,
}

impl Pen<'_> {
    pub(super) fn plain(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn begin(&mut self, ink: Ink) {
        if self.color {
            self.plain(ink.sequence());
        }
    }

    pub(super) fn end(&mut self) {
        if self.color {
            self.plain(RESET);
        }
    }

    pub(super) fn ink(&mut self, ink: Ink, text: &str) {
        self.bytes(ink, text.as_bytes());
    }

    pub(super) fn bytes(&mut self, ink: Ink, text: &[u8]) {
        self.begin(ink);
        self.out.extend_from_slice(text);
        self.end();
    }

    /// Starts a line: its indentation.
    pub(super) fn line(&mut self) {
        self.out.extend(std::iter::repeat_n(b' ', self.indent));
    }

    /// Runs `write` two columns further right.
    pub(super) fn inside(&mut self, write: impl FnOnce(&mut Self)) {
        self.indent += 2;
        write(self);
        self.indent -= 2;
    }

    /// `NAME: ` at the start of a line.
    pub(super) fn property(&mut self, name: &str) {
        self.line();
        self.ink(Ink::Property, name);
        self.plain(": ");
    }

    pub(super) fn text_property(&mut self, name: &str, value: &str) {
        self.property(name);
        self.ink(Ink::Value, value);
        self.plain("\n");
    }

    pub(super) fn bool_property(&mut self, name: &str, value: bool) {
        self.property(name);
        self.yes_no(value);
        self.plain("\n");
    }

    pub(super) fn unsigned_property(&mut self, name: &str, value: u64) {
        self.property(name);
        self.unsigned(Ink::Value, value);
        self.plain("\n");
    }

    pub(super) fn signed_property(&mut self, name: &str, value: i64) {
        self.property(name);
        self.signed(Ink::Value, value);
        self.plain("\n");
    }

    pub(super) fn yes_no(&mut self, value: bool) {
        if value {
            self.ink(Ink::Yes, "Yes");
        } else {
            self.ink(Ink::No, "No");
        }
    }

    pub(super) fn unsigned(&mut self, ink: Ink, value: u64) {
        self.number(ink, false, value, DisplayBase::Decimal);
    }

    pub(super) fn signed(&mut self, ink: Ink, value: i64) {
        self.number(ink, value < 0, value.unsigned_abs(), DisplayBase::Decimal);
    }

    /// `COUNT NAME`, with an `s` unless it is one.
    pub(super) fn count(&mut self, count: u64, name: &str) {
        self.unsigned(Ink::Value, count);
        self.plain(" ");
        self.plain(name);
        if count != 1 {
            self.plain("s");
        }
    }

    /// A number in its base with its digits in groups. Base 2 is shown in base 16, as Babeltrace
    /// does.
    pub(super) fn number(&mut self, ink: Ink, negative: bool, magnitude: u64, base: DisplayBase) {
        self.begin(ink);
        if negative {
            self.out.push(b'-');
        }
        let out = &mut *self.out;
        match base {
            DisplayBase::Decimal => {
                let from = out.len();
                push_u64(out, magnitude);
                if magnitude > 9999 {
                    group(out, from, 3, b',');
                }
            }
            DisplayBase::Octal => {
                out.push(b'0');
                let from = out.len();
                push_radix(out, magnitude, 3, LOWER);
                group(out, from, 3, b':');
            }
            DisplayBase::Binary | DisplayBase::Hexadecimal => {
                out.extend_from_slice(b"0x");
                let from = out.len();
                push_radix(out, magnitude, 4, LOWER);
                group(out, from, 4, b':');
            }
        }
        self.end();
    }

    pub(super) fn real(&mut self, value: f64) {
        self.begin(Ink::Value);
        push_fixed(self.out, value);
        self.end();
    }
}

/// Puts a separator between groups of digits, counted from the right.
fn group(out: &mut Vec<u8>, from: usize, digits: usize, separator: u8) {
    let mut at = out.len();
    while at > from + digits {
        at -= digits;
        out.insert(at, separator);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        let check = |value: i64, base, want: &str| {
            let mut out = Vec::new();
            let mut pen = Pen { out: &mut out, color: false, indent: 0 };
            pen.number(Ink::Value, value < 0, value.unsigned_abs(), base);
            assert_eq!(String::from_utf8_lossy(&out), want);
        };
        check(9999, DisplayBase::Decimal, "9999");
        check(-1_234_567, DisplayBase::Decimal, "-1,234,567");
        check(0xfbde_15b0, DisplayBase::Hexadecimal, "0xfbde:15b0");
        check(0o7_534_121_721, DisplayBase::Octal, "07:534:121:721");
        check(-0x22a, DisplayBase::Hexadecimal, "-0x22a");
    }
}
