//! The encoding under every message: little-endian integers, counted strings and lists, frames.
//!
//! A frame on a socket:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | length of the whole frame in bytes, this header included |
//! | 4 | 2 | kind of message |
//! | 6 | 2 | number of file descriptors that travel with it |
//! | 8 | … | body |

use alloc::{string::String, vec::Vec};
use sillage_model::limits::{MESSAGE_BYTES_MAX, MESSAGE_FDS_MAX};
use thiserror::Error;

/// Why bytes are not a message; `offset` counts from the start of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The body ends inside a value.
    #[error("message ends early at offset {offset}")]
    Short {
        /// Where the value begins.
        offset: usize,
    },
    /// A count or length larger than its limit.
    #[error("count {count} at offset {offset} exceeds {max}")]
    Count {
        /// Where the count stands.
        offset: usize,
        /// What it says.
        count: u64,
        /// What is allowed.
        max: usize,
    },
    /// A number that names no variant.
    #[error("unknown {what} {number} at offset {offset}")]
    Unknown {
        /// What was expected.
        what: &'static str,
        /// Where it stands.
        offset: usize,
        /// What was found.
        number: u64,
    },
    /// Text that is not UTF-8.
    #[error("text at offset {offset} is not UTF-8")]
    Utf8 {
        /// Where it stands.
        offset: usize,
    },
    /// Bytes behind the message.
    #[error("{count} bytes too many at offset {offset}")]
    Trailing {
        /// Where they begin.
        offset: usize,
        /// How many.
        count: usize,
    },
}

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 8;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Kind of message.
    pub kind: u16,
    /// File descriptors that travel with it.
    pub fds: usize,
}

impl FrameHeader {
    /// Reads the first eight bytes of a frame.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader, DecodeError> {
        let mut r = Reader::new(bytes);
        let (length, kind, fds) = (r.u32()? as usize, r.u16()?, r.u16()? as usize);
        if !(FRAME_HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(DecodeError::Count { offset: 0, count: length as u64, max: MESSAGE_BYTES_MAX });
        }
        if fds > MESSAGE_FDS_MAX {
            return Err(DecodeError::Count { offset: 6, count: fds as u64, max: MESSAGE_FDS_MAX });
        }
        Ok(FrameHeader { body_bytes: length - FRAME_HEADER_BYTES, kind, fds })
    }
}

/// Writes one frame: create it, put the body, finish it.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a frame of this kind.
    pub fn frame(kind: u16, fds: usize) -> Writer {
        let mut w = Writer { bytes: Vec::with_capacity(256) };
        w.u32(0);
        w.u16(kind);
        w.u16(fds as u16);
        w
    }

    /// The finished frame.
    pub fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self.bytes
    }

    /// Bytes so far, header included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True only before the header is written, which [`Writer::frame`] does.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) {
        self.bytes.push(v);
    }
    /// Two bytes.
    pub fn u16(&mut self, v: u16) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// Four bytes.
    pub fn u32(&mut self, v: u32) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// Eight bytes.
    pub fn u64(&mut self, v: u64) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// A truth value, one byte.
    pub fn bool(&mut self, v: bool) {
        self.u8(v as u8);
    }
    /// A u32 count.
    pub fn count(&mut self, v: usize) {
        self.u32(v as u32);
    }
    /// A count of bytes, then the text.
    pub fn str(&mut self, v: &str) {
        self.count(v.len());
        self.bytes.extend_from_slice(v.as_bytes());
    }
    /// One byte that says whether a value follows, then the value.
    pub fn option<T>(&mut self, v: Option<T>, put: impl FnOnce(&mut Writer, T)) {
        self.bool(v.is_some());
        if let Some(v) = v {
            put(self, v);
        }
    }
    /// A count, then each item.
    pub fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Writer, &T)) {
        self.count(items.len());
        for item in items {
            put(self, item);
        }
    }
}

/// Reads a body.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, offset: 0 }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Fails unless everything was read.
    pub fn end(&self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.offset {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { offset: self.offset, count }),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.offset..];
        let taken = rest.get(..count).ok_or(DecodeError::Short { offset: self.offset })?;
        self.offset += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }
    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    /// A truth value.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        let offset = self.offset;
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            n => Err(DecodeError::Unknown { what: "truth value", offset, number: n.into() }),
        }
    }
    /// A count of at most `max`, and of no more items than there are bytes left.
    pub fn count(&mut self, max: usize) -> Result<usize, DecodeError> {
        let offset = self.offset;
        let count = self.u32()? as usize;
        let max = max.min(self.bytes.len() - self.offset);
        if count > max {
            return Err(DecodeError::Count { offset, count: count as u64, max });
        }
        Ok(count)
    }
    /// A text of at most `max_bytes`.
    pub fn str(&mut self, max_bytes: usize) -> Result<&'a str, DecodeError> {
        let count = self.count(max_bytes)?;
        let offset = self.offset;
        core::str::from_utf8(self.take(count)?).map_err(|_| DecodeError::Utf8 { offset })
    }
    /// The same, owned.
    pub fn string(&mut self, max_bytes: usize) -> Result<String, DecodeError> {
        self.str(max_bytes).map(String::from)
    }
    /// A value that may be absent.
    pub fn option<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        Ok(if self.bool()? { Some(get(self)?) } else { None })
    }
    /// A list of at most `max` items.
    pub fn list<T>(
        &mut self,
        max: usize,
        mut get: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(max)?;
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(get(self)?);
        }
        Ok(out)
    }
    /// The error for a number that names no variant, which was read just before.
    pub fn unknown<T>(&self, what: &'static str, number: impl Into<u64>) -> Result<T, DecodeError> {
        Err(DecodeError::Unknown { what, offset: self.offset, number: number.into() })
    }
}
