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
    if value < 10 {
        out.push(b'0' + value as u8);
        return;
    }
    let mut text = [0u8; 20];
    let mut at = text.len();
    let mut value = value;
    while value > u64::from(u32::MAX) {
        let rest = (value % 100_000_000) as u32;
        value /= 100_000_000;
        let eight = digits8(rest);
        at -= 8;
        text[at..at + 8].copy_from_slice(&eight);
    }
    let mut value = value as u32;
    while value >= 100 {
        at -= 2;
        text[at..at + 2].copy_from_slice(&pair(value % 100));
        value /= 100;
    }
    if value >= 10 {
        at -= 2;
        text[at..at + 2].copy_from_slice(&pair(value));
    } else {
        at -= 1;
        text[at] = b'0' + value as u8;
    }
    out.extend_from_slice(&text[at..]);
}

/// Appends a decimal number with its sign.
#[inline]
pub(crate) fn push_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_u64(out, value.unsigned_abs());
}

/// Eight digits, zero-padded.
#[inline]
fn digits8(value: u32) -> [u8; 8] {
    let (high, low) = (value / 10_000, value % 10_000);
    let [a, b] = pair(high / 100);
    let [c, d] = pair(high % 100);
    let [e, f] = pair(low / 100);
    let [g, h] = pair(low % 100);
    [a, b, c, d, e, f, g, h]
}

/// Nine digits, zero-padded: the nanoseconds of a second.
#[inline]
pub(crate) fn digits9(value: u32) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = digits8(value / 10);
    [a, b, c, d, e, f, g, h, b'0' + (value % 10) as u8]
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
    fn integers() {
        for value in [0, 9, 10, 99, 100, 4_294_967_295, 4_294_967_296, 10_000_000_000_000_000, u64::MAX] {
            assert_eq!(text(|out| push_u64(out, value)), value.to_string());
        }
        for value in [i64::MIN, -10, -1, 0, i64::MAX] {
            assert_eq!(text(|out| push_i64(out, value)), value.to_string());
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
