//! Writing integers of any size at any bit of a growing buffer, in both byte orders.
//!
//! The mirror of the reader's `decode/bits.rs`: little-endian integers fill bytes from the least
//! significant bit, big-endian ones from the most significant. The buffer grows with zeros; bits
//! that are not written stay 0.

/// A buffer that is written bit by bit, from its end on.
#[derive(Debug, Default, Clone)]
pub(crate) struct BitBuffer {
    pub bytes: Vec<u8>,
    /// Where the next field goes, in bits from the start of the buffer.
    pub at: u64,
}

impl BitBuffer {
    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }

    /// Moves up to a multiple of `align` bits, a power of two. `base_bits` is where the buffer
    /// starts in its packet.
    #[inline]
    pub fn align(&mut self, align: u64, base_bits: u64) {
        let to = (base_bits + self.at).next_multiple_of(align) - base_bits;
        self.at = to;
        let len = to.div_ceil(8) as usize;
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
    }

    /// Appends the low `size` (1 to 64) bits of `value`.
    #[inline]
    pub fn put(&mut self, value: u64, size: u32, big: bool) {
        let at = self.at;
        self.at += u64::from(size);
        if at.is_multiple_of(8) && size.is_multiple_of(8) && self.bytes.len() as u64 * 8 == at {
            let count = (size / 8) as usize;
            if big {
                self.bytes.extend_from_slice(&value.to_be_bytes()[8 - count..]);
            } else {
                self.bytes.extend_from_slice(&value.to_le_bytes()[..count]);
            }
            return;
        }
        let len = self.at.div_ceil(8) as usize;
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        write(&mut self.bytes, at, value, size, big);
    }

    /// Appends whole bytes; the position is on a byte.
    #[inline]
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        let at = (self.at / 8) as usize;
        if at < self.bytes.len() {
            self.bytes.truncate(at);
        }
        self.bytes.extend_from_slice(bytes);
        self.at = self.bytes.len() as u64 * 8;
    }

    /// Appends `count` zero bytes; the position is on a byte.
    pub fn put_zeros(&mut self, count: usize) {
        let at = (self.at / 8) as usize;
        self.bytes.truncate(at);
        self.bytes.resize(at + count, 0);
        self.at = self.bytes.len() as u64 * 8;
    }
}

/// Overwrites `size` (1 to 64) bits at bit `at`; bits beyond the buffer are dropped.
pub(crate) fn write(bytes: &mut [u8], at: u64, value: u64, size: u32, big: bool) {
    let mut left = size;
    let mut at = at;
    while left > 0 {
        let in_byte = (at % 8) as u32;
        let count = left.min(8 - in_byte);
        let mask = ((1u16 << count) - 1) as u8;
        // Little-endian takes the value from its low end, big-endian from its high end.
        let (part, shift) = if big {
            (value >> (left - count), 8 - in_byte - count)
        } else {
            (value >> (size - left), in_byte)
        };
        if let Some(byte) = bytes.get_mut((at / 8) as usize) {
            *byte = *byte & !(mask << shift) | (part as u8 & mask) << shift;
        }
        left -= count;
        at += u64::from(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::bits::{mask, read_be, read_le};

    #[test]
    fn what_is_written_is_read() {
        let value = 0xfedc_ba98_7654_3210u64 ^ 0x5555_0000_1111_2222;
        for start in 0..16u64 {
            for size in 1..=64u32 {
                for big in [false, true] {
                    let mut buffer = BitBuffer::default();
                    buffer.align(1, 0);
                    if start > 0 {
                        buffer.put(u64::MAX, start as u32, big);
                    }
                    buffer.put(value, size, big);
                    buffer.put(u64::MAX, 3, big);
                    let read = if big { read_be } else { read_le };
                    assert_eq!(read(&buffer.bytes, start, size), value & mask(size));
                    assert_eq!(read(&buffer.bytes, start + u64::from(size), 3), 7);
                    if start > 0 {
                        assert_eq!(read(&buffer.bytes, 0, start as u32), mask(start as u32));
                    }
                }
            }
        }
    }
}
