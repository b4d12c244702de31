//! Sizes and durations as LTTng's command line writes them: `512k`, `1M`, `200ms`, `1s`.

use thiserror::Error;

/// Why a size or duration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// The text is not a number with one of the known suffixes; `column` counts from 0.
    #[error("not a number with a known suffix (column {column})")]
    Syntax {
        /// Where the unexpected character stands.
        column: usize,
    },
    /// The number does not fit 64 bits.
    #[error("too large")]
    Overflow,
}

/// Bytes: decimal, `0x` or `0` octal, with an optional `k`, `M` or `G` (powers of 1024).
pub fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let (number, rest, column) = split_number(text)?;
    let shift = match rest {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(SizeError::Syntax { column }),
    };
    number.checked_mul(1 << shift).ok_or(SizeError::Overflow)
}

/// Microseconds: a number with an optional `us`, `ms`, `s`, `m` or `h`.
pub fn parse_duration_us(text: &str) -> Result<u64, SizeError> {
    let (number, rest, column) = split_number(text)?;
    let unit = match rest {
        "" | "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(SizeError::Syntax { column }),
    };
    number.checked_mul(unit).ok_or(SizeError::Overflow)
}

fn split_number(text: &str) -> Result<(u64, &str, usize), SizeError> {
    let lower = text.get(..2).is_some_and(|p| p.eq_ignore_ascii_case("0x"));
    let (digits, radix, start) = match text.as_bytes() {
        _ if lower => (&text[2..], 16, 2),
        [b'0', b'0'..=b'7', ..] => (&text[1..], 8, 1),
        _ => (text, 10, 0),
    };
    let len = digits.bytes().take_while(|b| (*b as char).is_digit(radix)).count();
    if len == 0 {
        return Err(SizeError::Syntax { column: start });
    }
    let number = u64::from_str_radix(&digits[..len], radix).map_err(|_| SizeError::Overflow)?;
    Ok((number, &digits[len..], start + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_powers_of_1024() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("512k"), Ok(512 << 10));
        assert_eq!(parse_bytes("0x10M"), Ok(16 << 20));
        assert_eq!(parse_bytes("010"), Ok(8));
        assert_eq!(parse_bytes("1G"), Ok(1 << 30));
        assert_eq!(parse_bytes("12q"), Err(SizeError::Syntax { column: 2 }));
        assert_eq!(parse_bytes(""), Err(SizeError::Syntax { column: 0 }));
        assert_eq!(parse_bytes("-1"), Err(SizeError::Syntax { column: 0 }));
        assert_eq!(parse_bytes("99999999999999999999"), Err(SizeError::Overflow));
        assert_eq!(parse_bytes("17179869184G"), Err(SizeError::Overflow));
    }

    #[test]
    fn durations_are_microseconds() {
        assert_eq!(parse_duration_us("200"), Ok(200));
        assert_eq!(parse_duration_us("2ms"), Ok(2000));
        assert_eq!(parse_duration_us("3s"), Ok(3_000_000));
        assert_eq!(parse_duration_us("2x"), Err(SizeError::Syntax { column: 1 }));
    }
}
