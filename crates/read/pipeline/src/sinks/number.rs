//! Numbers to text, appended to a buffer without allocating.
//!
//! Reals come out exactly as C's `printf` writes them with `%g` and `%f`, because two formats of
//! Babeltrace are defined that way.

use std::io::Write;

const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

#[inline]
fn pair(value: u32) -> [u8; 2] {
    let at = (value as usize % 100) * 2;
    [PAIRS[at], PAIRS[at + 1]]
}

/// Appends a decimal number.
#[inline]
pub(crate) fn push_u64(out: &mut Vec<u8>, value: u64) {
    const EIGHT: u64 = 100_000_000;
    if value < EIGHT {
        push_short(out, value as u32);
        return;
    }
    push_long(out, value);
}

#[inline(never)]
fn push_long(out: &mut Vec<u8>, value: u64) {
    const EIGHT: u64 = 100_000_000;
    let (high, low) = (value / EIGHT, (value % EIGHT) as u32);
    if high < EIGHT {
        push_short(out, high as u32);
    } else {
        push_short(out, (high / EIGHT) as u32);
        out.extend_from_slice(&digits8((high % EIGHT) as u32));
    }
    out.extend_from_slice(&digits8(low));
}

/// Appends a number below 10^8. Copies of a fixed size need no loop.
#[inline]
fn push_short(out: &mut Vec<u8>, value: u32) {
    let from = out.len();
    let (digits, len) = short_digits(value);
    out.extend_from_slice(&digits);
    out.truncate(from + len);
}

/// The digits of a number below 10^8, and how many there are: all eight, moved left over the zeros
/// in front.
#[inline]
pub(crate) fn short_digits(value: u32) -> ([u8; 8], usize) {
    let digits = u64::from_le_bytes(digits8(value));
    let zeros = ((digits ^ 0x3030_3030_3030_3030).trailing_zeros() / 8).min(7);
    ((digits >> (8 * zeros)).to_le_bytes(), 8 - zeros as usize)
}

/// Appends a decimal number with its sign.
#[inline]
pub(crate) fn push_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_u64(out, value.unsigned_abs());
}

/// Eight digits, zero-padded, of a number below 10^8. All of them at once: halves, pairs and digits
/// are split in parallel in the lanes of a word by multiplying with the inverse of 100 and 10.
#[inline]
pub(crate) fn digits8(value: u32) -> [u8; 8] {
    let (high, low) = (value / 10_000, value % 10_000);
    let halves = u64::from(high) | u64::from(low) << 32;
    let hundreds = ((halves * 10_486) >> 20) & 0x7f_0000_007f;
    let pairs = hundreds | (halves - 100 * hundreds) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    let digits = tens | (pairs - 10 * tens) << 8;
    (digits + 0x3030_3030_3030_3030).to_le_bytes()
}

/// Nine digits, zero-padded: the nanoseconds of a second.
#[inline]
pub(crate) fn digits9(value: u32) -> [u8; 9] {
    let mut out = [0; 9];
    out[..8].copy_from_slice(&digits8(value / 10));
    out[8] = b'0' + (value % 10) as u8;
    out
}

/// Two digits, zero-padded.
#[inline]
pub(crate) fn digits2(value: u32) -> [u8; 2] {
    pair(value)
}

/// Appends a number in base 2, 8 or 16 (`bits_per_digit` 1, 3 or 4), without a prefix.
pub(crate) fn push_radix(out: &mut Vec<u8>, mut value: u64, bits_per_digit: u32, digits: &[u8; 16]) {
    let mut text = [0u8; 64];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = digits[(value & ((1 << bits_per_digit) - 1)) as usize];
        value >>= bits_per_digit;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Digits of [`push_radix`] in lower case.
pub(crate) const LOWER: &[u8; 16] = b"0123456789abcdef";
/// Digits of [`push_radix`] in upper case.
pub(crate) const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Longest text of a [`Piece`] that is copied in one go.
const PIECE_SIZE_BYTES: usize = 32;

/// Text that is appended again and again: short ones by a copy of fixed size, which is faster than
/// one of a length that the processor does not know in advance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Piece {
    head: [u8; PIECE_SIZE_BYTES],
    len: usize,
    /// What does not fit the head.
    tail: Box<[u8]>,
}

impl Piece {
    /// A piece of this text.
    pub(crate) fn new(text: &[u8]) -> Self {
        let (start, tail) = text.split_at(text.len().min(PIECE_SIZE_BYTES));
        let mut head = [0; PIECE_SIZE_BYTES];
        head[..start.len()].copy_from_slice(start);
        Self { head, len: start.len(), tail: tail.into() }
    }

    /// The first bytes, of which those up to the length count, and what follows them.
    #[inline]
    pub(crate) fn parts(&self) -> (&[u8; PIECE_SIZE_BYTES], usize, &[u8]) {
        (&self.head, self.len, &self.tail)
    }

    /// Appends the text.
    #[inline]
    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(&self.head);
        out.truncate(from + self.len);
        if !self.tail.is_empty() {
            out.extend_from_slice(&self.tail);
        }
    }
}

/// Appends `value` zero-padded to `width` digits.
pub(crate) fn push_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let from = out.len();
    push_u64(out, value);
    let missing = width.saturating_sub(out.len() - from);
    out.splice(from..from, std::iter::repeat_n(b'0', missing));
}

/// `inf` and `nan` as C writes them; false for other numbers.
fn push_special(out: &mut Vec<u8>, value: f64) -> bool {
    if value.is_finite() {
        return false;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    out.extend_from_slice(if value.is_nan() { b"nan" } else { b"inf" });
    true
}

/// Appends as `%f` does: six digits after the point.
pub(crate) fn push_fixed(out: &mut Vec<u8>, value: f64) {
    if !push_special(out, value) {
        // Writing to a vector does not fail.
        let _ = write!(out, "{value:.6}");
    }
}

/// Appends as `%g` does: six significant digits, the shorter of the two notations.
pub(crate) fn push_general(out: &mut Vec<u8>, value: f64) {
    if push_special(out, value) {
        return;
    }
    if value.abs() < 1e6 && value.fract() == 0.0 {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        push_u64(out, value.abs() as u64);
        return;
    }
    let from = out.len();
    let _ = write!(out, "{value:.5e}");
    // Now it is `-d.ddddde-x`; the exponent decides the notation.
    let e = out[from..].iter().position(|b| *b == b'e').unwrap_or(0) + from;
    let exponent: i32 = std::str::from_utf8(&out[e + 1..]).ok().and_then(|t| t.parse().ok()).unwrap_or(0);
    if (-4..6).contains(&exponent) {
        out.truncate(from);
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        let _ = write!(out, "{value:.decimals$}");
        trim_zeros(out, from);
    } else {
        out.truncate(e);
        trim_zeros(out, from);
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        push_u64(out, u64::from(exponent.unsigned_abs()));
    }
}

/// Takes away zeros at the end of a fraction, and its point when nothing is left of it.
fn trim_zeros(out: &mut Vec<u8>, from: usize) {
    if out[from..].contains(&b'.') {
        while out.last() == Some(&b'0') {
            out.pop();
        }
        if out.last() == Some(&b'.') {
            out.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"x".to_vec();
        write(&mut out);
        String::from_utf8_lossy(&out[1..]).into_owned()
    }

    #[test]
    fn eight_digits_at_once() {
        let check = |value: u32| {
            assert_eq!(digits8(value), *format!("{value:08}").as_bytes().first_chunk().expect("8"))
        };
        (0..20_000).for_each(check);
        (0..100_000_000).step_by(9_973).for_each(check);
        (0..10_000).for_each(|low| check(99_990_000 + low));
    }

    #[test]
    fn integers() {
        for value in [0, 9, 10, 99, 100, 4_294_967_295, 4_294_967_296, 10_000_000_000_000_000, u64::MAX] {
            assert_eq!(text(|out| push_u64(out, value)), value.to_string());
        }
        for value in [i64::MIN, -10, -1, 0, i64::MAX] {
            assert_eq!(text(|out| push_i64(out, value)), value.to_string());
        }
        for digits in 1..=20 {
            let value = (0..digits).fold(0u64, |value, digit| value.wrapping_mul(10) + digit % 9 + 1);
            assert_eq!(text(|out| push_u64(out, value)), value.to_string());
            assert_eq!(text(|out| push_u64(out, value / 10 * 10)), (value / 10 * 10).to_string());
        }
        for length in [0, 1, 31, 32, 33, 100] {
            let long = "y".repeat(length);
            assert_eq!(text(|out| Piece::new(long.as_bytes()).push(out)), long);
        }
        assert_eq!(&digits9(7_000_089), b"007000089");
        assert_eq!(text(|out| push_padded(out, 42, 5)), "00042");
        assert_eq!(text(|out| push_radix(out, 0xFBDE, 4, UPPER)), "FBDE");
        assert_eq!(text(|out| push_radix(out, u64::MAX, 1, LOWER)), "1".repeat(64));
        assert_eq!(text(|out| push_radix(out, u64::MAX, 3, LOWER)), format!("{:o}", u64::MAX));
    }

    #[test]
    fn reals_as_c_writes_them() {
        let check = |value: f64, general: &str, fixed: &str| {
            assert_eq!(text(|out| push_general(out, value)), general);
            assert_eq!(text(|out| push_fixed(out, value)), fixed);
        };
        check(0.0, "0", "0.000000");
        check(-0.0, "-0", "-0.000000");
        check(145_801.5, "145802", "145801.500000");
        check(13_885.857_142_9, "13885.9", "13885.857143");
        check(99_999.95, "99999.9", "99999.950000");
        check(999_999.5, "1e+06", "999999.500000");
        check(1e-4, "0.0001", "0.000100");
        check(1.234e-5, "1.234e-05", "0.000012");
        check(1e15, "1e+15", "1000000000000000.000000");
        check(-1.5e300, "-1.5e+300", &format!("{:.6}", -1.5e300));
        check(f64::NEG_INFINITY, "-inf", "-inf");
        check(f64::NAN, "nan", "nan");
    }
}
