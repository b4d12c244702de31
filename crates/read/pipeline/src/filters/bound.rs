//! The times that people give for a range: parsing, and finding the date that they left out.
//!
//! `YYYY-MM-DD HH:MM[:SS[.NNNNNNNNN]]`, `HH:MM[:SS[.NNNNNNNNN]]` on the day of the first message,
//! `[-]SECONDS[.NNNNNNNNN]` from the origin. Without a zone given, times of day are local.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use thiserror::Error;

use crate::sinks::Zone;

/// One end of a range of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Nanoseconds from the origin.
    Ns(i64),
    /// A time on a day that is not known yet.
    TimeOfDay(Time),
}

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "invalid time `{text}`: {reason}; use `YYYY-MM-DD HH:MM[:SS[.NNNNNNNNN]]`, `HH:MM[:SS[.NNNNNNNNN]]` or `[-]SECONDS[.NNNNNNNNN]`"
)]
pub struct BoundError {
    text: String,
    reason: &'static str,
}

impl Bound {
    /// Reads a time.
    ///
    /// # Errors
    /// Text in none of the formats, or a time that does not exist or does not fit.
    pub fn parse(text: &str, zone: &Zone) -> Result<Self, BoundError> {
        let fail = |reason| BoundError { text: text.to_owned(), reason };
        if let Some((date, time)) = text.split_once(char::is_whitespace) {
            let date = parse_date(date).ok_or_else(|| fail("not a date"))?;
            let time = parse_time(time.trim_start()).ok_or_else(|| fail("not a time of day"))?;
            return resolve(date.to_datetime(time), zone).map(Self::Ns).ok_or_else(|| fail("out of range"));
        }
        if text.contains(':') {
            return parse_time(text).map(Self::TimeOfDay).ok_or_else(|| fail("not a time of day"));
        }
        parse_seconds(text).map(Self::Ns).ok_or_else(|| fail("not a number of seconds that fits"))
    }

    /// Nanoseconds from the origin, if they are known without a date.
    pub fn known_ns(self) -> Option<i64> {
        match self {
            Self::Ns(ns) => Some(ns),
            Self::TimeOfDay(_) => None,
        }
    }

    /// Nanoseconds from the origin, on the day of `first_ns` if the date was left out.
    pub fn ns_on_day_of(self, first_ns: i64, zone: &Zone) -> Option<i64> {
        match self {
            Self::Ns(ns) => Some(ns),
            Self::TimeOfDay(time) => {
                let first = Timestamp::from_nanosecond(i128::from(first_ns)).ok()?;
                let date = first.to_zoned(time_zone(zone)).date();
                resolve(date.to_datetime(time), zone)
            }
        }
    }
}

fn time_zone(zone: &Zone) -> TimeZone {
    match zone {
        Zone::Utc => TimeZone::UTC,
        Zone::Local(zone) => zone.clone(),
    }
}

fn resolve(time: DateTime, zone: &Zone) -> Option<i64> {
    let zoned = time.to_zoned(time_zone(zone)).ok()?;
    i64::try_from(zoned.timestamp().as_nanosecond()).ok()
}

/// `count` digits of exactly that number.
fn digits(text: &str, count: usize) -> Option<u32> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Up to nine digits of a fraction of a second.
fn nanoseconds(text: &str) -> Option<u32> {
    if text.is_empty() || text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{text:0<9}").parse().ok()
}

fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let year = i16::try_from(digits(year, 4)?).ok()?;
    let month = i8::try_from(digits(month, 2)?).ok()?;
    Date::new(year, month, i8::try_from(digits(day, 2)?).ok()?).ok()
}

fn parse_time(text: &str) -> Option<Time> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, nanoseconds(fraction)?),
        None => (text, 0),
    };
    let mut parts = clock.split(':');
    let hour = i8::try_from(digits(parts.next()?, 2)?).ok()?;
    let minute = i8::try_from(digits(parts.next()?, 2)?).ok()?;
    let second = match parts.next() {
        Some(second) => i8::try_from(digits(second, 2)?).ok()?,
        None if text.contains('.') => return None,
        None => 0,
    };
    if parts.next().is_some() {
        return None;
    }
    // A leap second is the first of the next minute, as for C.
    if second == 60 {
        return Time::new(hour, minute, 59, i32::try_from(fraction).ok()?).ok()?.checked_add(1.second()).ok();
    }
    Time::new(hour, minute, second, i32::try_from(fraction).ok()?).ok()
}

fn parse_seconds(text: &str) -> Option<i64> {
    let (negative, number) = match text.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, text),
    };
    let (seconds, fraction) = match number.split_once('.') {
        Some((seconds, fraction)) => (seconds, nanoseconds(fraction)?),
        None => (number, 0),
    };
    if seconds.is_empty() || !seconds.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let magnitude = seconds.parse::<i128>().ok()? * 1_000_000_000 + i128::from(fraction);
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let check = |text: &str, want: Option<i64>| {
            let day = 1_700_000_000_000_000_000;
            let got = Bound::parse(text, &Zone::Utc).ok().and_then(|b| b.ns_on_day_of(day, &Zone::Utc));
            assert_eq!(got, want, "{text}");
        };
        check("12", Some(12_000_000_000));
        check("-1.5", Some(-1_500_000_000));
        check("1.000000001", Some(1_000_000_001));
        check("2023-11-14 22:13:20.5", Some(1_700_000_000_500_000_000));
        check("2023-11-14   22:13", Some(1_699_999_980_000_000_000));
        check("22:13:20", Some(1_700_000_000_000_000_000));
        check("22:13", Some(1_699_999_980_000_000_000));
        for bad in ["", "x", "1.", ".5", "1.0000000001", "22:1", "22:13.5", "2023-13-01 00:00", "99999999999"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn a_place_has_its_own_time() {
        let zone = TimeZone::posix("EST5").map(Zone::Local);
        let bound = zone.as_ref().map(|zone| Bound::parse("1970-01-01 00:00:01", zone));
        assert_eq!(bound.ok(), Some(Ok(Bound::Ns(5 * 3_600_000_000_000 + 1_000_000_000))));
    }
}
