//! What can be wrong with a trace, and where.
//!
//! Metadata errors carry line and column and can show the source line with a caret; decoding
//! errors carry the bit offset in the packet, the event class and the field. File names and packet
//! numbers are added by whoever opened the file.

use std::fmt;

use thiserror::Error;

use crate::model::Scope;

/// The rule that the bytes of a packet break.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// A field ends after the content.
    #[error("field needs {needed_bits} bits but {left_bits} are left in the content")]
    Truncated {
        /// Bits that the field takes.
        needed_bits: u64,
        /// Bits that are left.
        left_bits: u64,
    },
    /// A position that does not fit 64 bits.
    #[error("field length does not fit the packet")]
    TooFar,
    /// No NUL before the end of the content.
    #[error("text is not terminated before the end of the content")]
    UnterminatedText,
    /// A text length that cuts a code unit.
    #[error("text length of {0} bytes is not a whole number of code units")]
    PartialCodeUnit(u64),
    /// More than 64 bits of data.
    #[error("unsupported oversized (more than 64 bits of data) variable-length integer field")]
    OversizedVarInt,
    /// Byte order changes inside a byte.
    #[error(
        "two contiguous fixed-length bit array fields which aren't byte-aligned don't share the same byte order: {} followed with {}",
        order_name(*first_big),
        order_name(!*first_big)
    )]
    MixedByteOrder {
        /// Whether the first of the two is big-endian.
        first_big: bool,
    },
    /// No option of a variant has the selector's value.
    #[error("no variant field option selected by the selector value {0}")]
    NoOption(i128),
    /// A reference that was not resolved.
    #[error("the field that gives the length or selects the option was not decoded")]
    NoSelector,
    /// An array of elements without bits.
    #[error("array of {0} elements holds too many elements without any bit")]
    TooManyEmptyElements(u64),
    /// An event class id that the metadata does not have.
    #[error("no event class with id {id} in stream class {stream_class_id}")]
    UnknownEventClass {
        /// The id found.
        id: u64,
        /// The stream class of the packet.
        stream_class_id: u64,
    },
    /// A stream class id that the metadata does not have.
    #[error("no stream class with id {0}")]
    UnknownStreamClass(u64),
    /// A record without any bit: the next one would be at the same place for ever.
    #[error("invalid empty event record")]
    EmptyEvent,
    /// Wrong magic number.
    #[error("packet magic number is {0:#x}, expected 0xc1fc1fc1")]
    BadMagic(u64),
    /// Content larger than the packet.
    #[error("content size of {content_bits} bits is greater than packet size of {packet_bits} bits")]
    ContentTooLarge {
        /// Content size.
        content_bits: u64,
        /// Packet size.
        packet_bits: u64,
    },
    /// Packet size of a fraction of a byte, or of nothing.
    #[error("packet size of {0} bits is not a positive multiple of 8")]
    BadPacketSize(u64),
    /// Packet reaches beyond its file.
    #[error("packet of {packet_bytes} bytes is larger than the {left_bytes} bytes left in the file")]
    PacketTooLarge {
        /// Size of the packet.
        packet_bytes: u64,
        /// Bytes from its start to the end of the file.
        left_bytes: u64,
    },
    /// Content that ends before its own header.
    #[error("content size of {content_bits} bits ends inside the packet's header of {header_bits} bits")]
    ContentTooSmall {
        /// Content size.
        content_bits: u64,
        /// Size of header and context.
        header_bits: u64,
    },
}

fn order_name(big: bool) -> &'static str {
    if big { "big-endian" } else { "little-endian" }
}

/// A fault in a packet and its place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{fault} (at bit {at_bits} of the packet{place})", place = Place(self))]
pub struct DecodeError {
    /// Bit offset from the start of the packet.
    pub at_bits: u64,
    /// The scope that was being decoded, if any.
    pub scope: Option<Scope>,
    /// Name of the event class, once known.
    pub event: Option<String>,
    /// Name of the field, if it has one.
    pub field: Option<String>,
    /// The rule.
    pub fault: Fault,
}

impl DecodeError {
    /// A fault outside any field.
    pub fn new(at_bits: u64, fault: Fault) -> Box<Self> {
        Box::new(Self { at_bits, scope: None, event: None, field: None, fault })
    }
}

struct Place<'a>(&'a DecodeError);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(event) = &self.0.event {
            write!(f, ", event `{event}`")?;
        }
        if let Some(scope) = self.0.scope {
            let name = match scope {
                Scope::PacketHeader => "packet header",
                Scope::PacketContext => "packet context",
                Scope::EventHeader => "event header",
                Scope::CommonContext => "common context",
                Scope::SpecificContext => "specific context",
                Scope::Payload => "payload",
            };
            write!(f, ", {name}")?;
        }
        match self.0.field.as_deref() {
            Some(field) if !field.is_empty() => write!(f, ", field `{field}`"),
            _ => Ok(()),
        }
    }
}

/// What is wrong with metadata, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("metadata:{line}:{column}: {message}")]
pub struct MetadataError {
    /// Line from 1; 0 when the fault has no place in the text.
    pub line: usize,
    /// Column from 1, in characters.
    pub column: usize,
    /// The rule that is broken.
    pub message: String,
    /// The line's text.
    pub source_line: String,
}

impl MetadataError {
    /// The error at a byte of the text.
    pub fn at(text: &str, offset: usize, message: impl Into<String>) -> Box<Self> {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let rest = &text[start..];
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        Box::new(Self {
            line: text[..offset].matches('\n').count() + 1,
            column: text[start..offset].chars().count() + 1,
            message: message.into(),
            source_line: rest[..end].to_owned(),
        })
    }

    /// An error of the whole.
    pub fn whole(message: impl Into<String>) -> Box<Self> {
        Box::new(Self { line: 0, column: 0, message: message.into(), source_line: String::new() })
    }

    /// The message, the source line and a caret under the fault, on three lines.
    pub fn with_source(&self) -> String {
        if self.line == 0 {
            return self.message.clone();
        }
        let pad: String = self
            .source_line
            .chars()
            .take(self.column.saturating_sub(1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        format!("{self}\n  {}\n  {pad}^", self.source_line)
    }
}

/// Something that a reader can go on after, but should tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Line of the metadata from 1; 0 when it has no place in the text.
    pub line: usize,
    /// What is unusual.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_fault() {
        let text = "trace {\n\tmajor = x;\r\n};";
        let error = MetadataError::at(text, text.find('x').unwrap_or(0), "integer expected");
        assert_eq!(error.with_source(), "metadata:2:10: integer expected\n  \tmajor = x;\n  \t        ^");
    }
}
