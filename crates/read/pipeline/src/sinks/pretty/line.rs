//! A line of text that is made in place, in room that is large enough for most.
//!
//! Pieces are copied whole, with a size that the compiler knows, and overlap: only the length says
//! how much of the last one counts. Every method gives `None` when the room is at its end; the line
//! is worth nothing then.

use super::value::escape;
use crate::sinks::number::{Piece, UPPER, digits8, short_digits};

/// Room, and how much of it is used.
pub(super) struct Line<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl<'a> Line<'a> {
    /// An empty line.
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Self { room, used: 0 }
    }

    /// Bytes of the line so far.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Appends the first `len` bytes of the array, at most all.
    #[inline(always)]
    pub(super) fn put<const SIZE: usize>(&mut self, bytes: &[u8; SIZE], len: usize) -> Option<()> {
        *self.room.get_mut(self.used..)?.first_chunk_mut()? = *bytes;
        self.used += len;
        Some(())
    }

    /// Appends bytes of any number.
    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.room.get_mut(self.used..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        self.used += bytes.len();
        Some(())
    }

    /// Appends a prepared text.
    #[inline(always)]
    pub(super) fn piece(&mut self, piece: &Piece) -> Option<()> {
        let (head, len, tail) = piece.parts();
        self.put(head, len)?;
        if tail.is_empty() { Some(()) } else { self.bytes(tail) }
    }

    /// Appends a decimal number.
    #[inline(always)]
    pub(super) fn unsigned(&mut self, value: u64) -> Option<()> {
        if value < EIGHT {
            let (digits, len) = short_digits(value as u32);
            return self.put(&digits, len);
        }
        self.long(value)
    }

    #[inline(never)]
    fn long(&mut self, value: u64) -> Option<()> {
        let (high, low) = (value / EIGHT, (value % EIGHT) as u32);
        if high < EIGHT {
            self.unsigned(high)?;
        } else {
            self.unsigned(high / EIGHT)?;
            self.put(&digits8((high % EIGHT) as u32), 8)?;
        }
        self.put(&digits8(low), 8)
    }

    /// Appends a decimal number with its sign.
    #[inline(always)]
    pub(super) fn signed(&mut self, value: i64) -> Option<()> {
        self.put(b"-", usize::from(value < 0))?;
        self.unsigned(value.unsigned_abs())
    }

    /// Appends a number in base 16 with its prefix.
    #[inline]
    pub(super) fn hexadecimal(&mut self, value: u64) -> Option<()> {
        let digits = (64 - (value | 1).leading_zeros()).div_ceil(4) as usize;
        let mut text = [0u8; 18];
        text[..2].copy_from_slice(b"0x");
        let mut rest = value << (64 - 4 * digits);
        for digit in text.iter_mut().skip(2).take(digits) {
            *digit = UPPER[(rest >> 60) as usize];
            rest <<= 4;
        }
        self.put(&text, 2 + digits)
    }

    /// Appends text up to its first NUL in quotes, with escapes; gives how many bytes of it that
    /// are. Bytes from 0x80 on pass.
    #[inline]
    pub(super) fn quoted(&mut self, text: &[u8]) -> Option<usize> {
        self.put(b"\"", 1)?;
        let mut at = 0;
        loop {
            let rest = text.get(at..)?;
            let word = match rest.first_chunk() {
                Some(word) => *word,
                // The zeros that fill it are found as a NUL.
                None => {
                    let mut word = [0; 8];
                    word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                    word
                }
            };
            let plain = (odd_bytes(u64::from_le_bytes(word)).trailing_zeros() / 8) as usize;
            self.put(&word, plain)?;
            at += plain;
            if plain == 8 {
                continue;
            }
            match text.get(at) {
                None | Some(0) => break,
                Some(byte) => {
                    let (escaped, len) = escape(*byte);
                    self.put(&escaped, len)?;
                    at += 1;
                }
            }
        }
        self.put(b"\"", 1)?;
        Some(at)
    }
}

const EIGHT: u64 = 100_000_000;

/// The high bit of the first byte, from the lowest, that can not stand in quoted text as it is, NUL
/// included; bits above it mean nothing.
#[inline]
fn odd_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let is = |byte: u8| {
        let word = word ^ (ONES * u64::from(byte));
        word.wrapping_sub(ONES) & !word
    };
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | is(0x7f) | is(b'\\') | is(b'\'') | is(b'"') | is(b'?')) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Line<'_>) -> Option<()>) -> Option<String> {
        let mut room = [b'.'; 64];
        let mut line = Line::new(&mut room);
        write(&mut line)?;
        let used = line.len();
        Some(String::from_utf8_lossy(&room[..used]).into_owned())
    }

    #[test]
    fn numbers_are_those_of_the_standard_library() {
        let mut value = 1u64;
        for step in 0..200u64 {
            for value in [value, value - 1, value / 7, !value] {
                assert_eq!(text(|line| line.unsigned(value)), Some(value.to_string()));
                let signed = value.cast_signed();
                assert_eq!(text(|line| line.signed(signed)), Some(signed.to_string()));
                assert_eq!(text(|line| line.hexadecimal(value)), Some(format!("0x{value:X}")));
            }
            value = value.wrapping_mul(3) + step;
        }
        assert_eq!(text(|line| line.signed(i64::MIN)), Some(i64::MIN.to_string()));
        assert_eq!(text(|line| line.unsigned(0)), Some("0".into()));
    }

    #[test]
    fn quoted_text_is_that_of_the_general_way() {
        for byte in 0..=255u8 {
            for len in [0, 1, 7, 8, 9, 17] {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(len);
                    let mut want = Vec::new();
                    super::super::value::push_quoted(&mut want, &bytes[..end]);
                    let mut consumed = None;
                    let got = text(|line| {
                        consumed = line.quoted(&bytes);
                        consumed.map(|_| ())
                    });
                    assert_eq!(got, Some(String::from_utf8_lossy(&want).into_owned()));
                    assert_eq!(consumed, Some(end));
                }
            }
        }
    }

    #[test]
    fn no_room_is_told() {
        assert_eq!(text(|line| line.quoted(&[b'a'; 100]).map(|_| ())), None);
        assert_eq!(text(|line| line.bytes(&[b'a'; 65])), None);
        assert_eq!(text(|line| line.piece(&Piece::new(&[b'a'; 65]))), None);
    }
}
