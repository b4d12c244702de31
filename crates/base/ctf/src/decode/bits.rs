//! Reading integers of any size at any bit of a slice, in both byte orders.
//!
//! Little-endian: bit n of a stream is bit n % 8, from the least significant, of byte n / 8, and
//! integers fill from their least significant bit. Big-endian: both from the most significant.
//! Callers have checked that the bits lie inside the slice; should they not, the missing bits
//! read as 0 and nothing panics.

/// The `size_bits` (1 to 64) bits at `at_bits`, little-endian.
#[inline]
pub(crate) fn read_le(data: &[u8], at_bits: u64, size_bits: u32) -> u64 {
    let byte = (at_bits / 8) as usize;
    let shift = (at_bits % 8) as u32;
    if let Some(word) = word_at(data, byte)
        && shift + size_bits <= 64
    {
        return (u64::from_le_bytes(word) >> shift) & mask(size_bits);
    }
    let mut value = 0u128;
    for (index, byte) in tail(data, byte).iter().enumerate() {
        value |= u128::from(*byte) << (8 * index);
    }
    (value >> shift) as u64 & mask(size_bits)
}

/// The `size_bits` (1 to 64) bits at `at_bits`, big-endian.
#[inline]
pub(crate) fn read_be(data: &[u8], at_bits: u64, size_bits: u32) -> u64 {
    let byte = (at_bits / 8) as usize;
    let shift = (at_bits % 8) as u32;
    if let Some(word) = word_at(data, byte)
        && shift + size_bits <= 64
    {
        return (u64::from_be_bytes(word) << shift) >> (64 - size_bits);
    }
    let mut value = 0u128;
    for (index, byte) in tail(data, byte).iter().enumerate() {
        value |= u128::from(*byte) << (120 - 8 * index);
    }
    ((value << shift) >> (128 - size_bits)) as u64
}

/// All ones in the low `size_bits` (1 to 64) bits.
#[inline]
pub(crate) fn mask(size_bits: u32) -> u64 {
    u64::MAX >> (64 - size_bits.clamp(1, 64))
}

/// Sign-extends the low `size_bits` bits.
#[inline]
pub(crate) fn sign_extend(value: u64, size_bits: u32) -> i64 {
    let shift = 64 - size_bits.clamp(1, 64);
    (value << shift).cast_signed() >> shift
}

#[inline]
fn word_at(data: &[u8], byte: usize) -> Option<[u8; 8]> {
    data.get(byte..)?.first_chunk::<8>().copied()
}

/// Up to nine bytes: what 64 bits at an odd bit can touch.
fn tail(data: &[u8], byte: usize) -> &[u8] {
    let from = byte.min(data.len());
    &data[from..data.len().min(from + 9)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, the definition itself.
    fn slow(data: &[u8], at: u64, size: u32, big: bool) -> u64 {
        (0..u64::from(size)).fold(0, |value, i| {
            let bit = at + i;
            let byte = data[(bit / 8) as usize];
            if big {
                value << 1 | u64::from(byte >> (7 - bit % 8) & 1)
            } else {
                value | u64::from(byte >> (bit % 8) & 1) << i
            }
        })
    }

    #[test]
    fn every_position_and_size_equals_the_definition() {
        let data: Vec<u8> = (0..19u32).map(|i| (i * 73 + 41) as u8).collect();
        for at in 0..88 {
            for size in 1..=64u32 {
                if at + u64::from(size) > 152 {
                    continue;
                }
                assert_eq!(read_le(&data, at, size), slow(&data, at, size, false));
                assert_eq!(read_be(&data, at, size), slow(&data, at, size, true));
            }
        }
    }

    #[test]
    fn beyond_the_end_reads_zero() {
        assert_eq!(read_le(&[0xff], 4, 64), 0xf);
        assert_eq!(read_be(&[0xff], 100, 8), 0);
    }

    #[test]
    fn signs() {
        assert_eq!(sign_extend(0b1000, 4), -8);
        assert_eq!(sign_extend(u64::MAX, 64), -1);
    }
}
