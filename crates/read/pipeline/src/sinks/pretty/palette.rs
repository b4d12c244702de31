//! The escape sequences of the text, or nothing.

/// Sequences by what they colour; all empty without colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette {
    pub reset: &'static [u8],
    pub name: &'static [u8],
    pub field_name: &'static [u8],
    pub value: &'static [u8],
    pub event_name: &'static [u8],
    pub timestamp: &'static [u8],
    pub unknown: &'static [u8],
}

impl Palette {
    pub(super) fn new(color: bool) -> Self {
        if !color {
            return Self {
                reset: b"",
                name: b"",
                field_name: b"",
                value: b"",
                event_name: b"",
                timestamp: b"",
                unknown: b"",
            };
        }
        Self {
            reset: b"\x1b[0m",
            name: b"\x1b[1m",
            field_name: b"\x1b[36m",
            value: b"\x1b[1m",
            event_name: b"\x1b[1m\x1b[1m\x1b[35m",
            timestamp: b"\x1b[1m\x1b[1m\x1b[33m",
            unknown: b"\x1b[1m\x1b[1m\x1b[31m",
        }
    }
}
