//! IEEE 754 numbers of 16, 32, 64 and 128 bits, as `f64`.
//!
//! 16 and 32 bits convert exactly; 128 bits are rounded toward zero (no reader shows more than an
//! `f64` holds).

use super::walk::raw_bits;

/// The number of `size` bits at bit `at`; the caller has checked that the bits are there.
pub(crate) fn read(data: &[u8], at: u64, size: u32, big: bool, reversed: bool) -> f64 {
    match size {
        16 => half(raw_bits(data, at, 16, big, reversed)),
        32 => f64::from(f32::from_bits(raw_bits(data, at, 32, big, reversed) as u32)),
        64 => f64::from_bits(raw_bits(data, at, 64, big, reversed)),
        _ => {
            let first = raw_bits(data, at, 64, big, reversed);
            let second = raw_bits(data, at + 64, 64, big, reversed);
            // The half with the sign comes first when big-endian, unless the bits are reversed.
            let (high, low) = if big != reversed { (first, second) } else { (second, first) };
            quad(high, low)
        }
    }
}

fn half(bits: u64) -> f64 {
    let sign = if bits >> 15 & 1 == 1 { -1.0 } else { 1.0 };
    let exponent = (bits >> 10 & 0x1f) as i32;
    let fraction = (bits & 0x3ff) as f64;
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

fn quad(high: u64, low: u64) -> f64 {
    let sign = high & 1 << 63;
    let exponent = (high >> 48 & 0x7fff) as i64;
    // The upper 52 of 112 bits of the fraction.
    let fraction = (high & 0xffff_ffff_ffff) << 4 | low >> 60;
    let magnitude = if exponent == 0x7fff {
        let nan = u64::from(fraction != 0 || low != 0) << 51;
        0x7ff << 52 | nan
    } else {
        match exponent - 16383 + 1023 {
            e if e >= 0x7ff => 0x7ff << 52,
            e if e > 0 => (e as u64) << 52 | fraction,
            e if e > -52 => (1 << 52 | fraction) >> (1 - e),
            _ => 0,
        }
    };
    f64::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits() {
        let check = |bits: u16, want: f64| {
            assert_eq!(read(&bits.to_le_bytes(), 0, 16, false, false), want);
            assert_eq!(read(&bits.to_be_bytes(), 0, 16, true, false), want);
        };
        check(0x3c00, 1.0);
        check(0xc000, -2.0);
        check(0x0001, 2f64.powi(-24));
        check(0x7c00, f64::INFINITY);
        check(0x7bff, 65504.0);
    }

    #[test]
    fn one_hundred_twenty_eight_bits() {
        let check = |bits: u128, want: f64| {
            assert_eq!(read(&bits.to_le_bytes(), 0, 128, false, false), want);
            assert_eq!(read(&bits.to_be_bytes(), 0, 128, true, false), want);
        };
        check(0x3fff << 112, 1.0);
        check(0xc_0008 << 108, -3.0);
        check(0x7fff << 112, f64::INFINITY);
        check(1 << 127, -0.0);
    }
}
