//! Nanoseconds since the Unix epoch to a time of day, fast for times that follow one another.
//!
//! The text of the whole second is kept, so that only its fraction is made anew for each event.
//! The time zone is what the caller gives; leap seconds do not exist here, as in C.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::number::{digits2, digits9, push_u64};

const NS_PER_S: i64 = 1_000_000_000;

/// Which time of day to show.
#[derive(Debug, Clone)]
pub enum Zone {
    /// Coordinated universal time.
    Utc,
    /// The time of a place.
    Local(TimeZone),
}

impl Zone {
    /// The zone of the machine: `TZ`, else the system's setting.
    pub fn local() -> Self {
        Self::Local(local_time_zone())
    }

    fn offset_s(&self, second: i64) -> i64 {
        match self {
            Self::Utc => 0,
            Self::Local(zone) => {
                Timestamp::from_second(second).map_or(0, |at| i64::from(zone.to_offset(at).seconds()))
            }
        }
    }
}

/// The zone of the machine: `TZ`, else the system's setting. The setting's own file is enough where it
/// is one: to find its name, the library would read the whole data base of zones first.
pub fn local_time_zone() -> TimeZone {
    let setting = || TimeZone::tzif("Local", &std::fs::read("/etc/localtime").ok()?).ok();
    let zone = if std::env::var_os("TZ").is_none() { setting() } else { None };
    zone.unwrap_or_else(TimeZone::system)
}

/// Writes times of day.
#[derive(Debug, Clone)]
pub struct WallClock {
    zone: Zone,
    with_date: bool,
    second: i64,
    text: Vec<u8>,
    /// `[TIME] (+d.nnnnnnnnn) `, of which only the digits change while the second is the same.
    frame: [u8; FRAME_SIZE_BYTES],
    /// Where the nanoseconds are in it; 0 when the time has no room in it.
    fraction_at: usize,
}

/// No second that a time is in, and far from overflow.
const NO_SECOND: i64 = i64::MIN / NS_PER_S;

/// Room for a time with its date and a difference.
const FRAME_SIZE_BYTES: usize = 48;
/// What follows the nanoseconds in the frame, without and with a difference.
const FRAME_END: &[u8; 17] = b"] (+d.nnnnnnnnn) ";
const SHORT_END_SIZE_BYTES: usize = 2;

impl WallClock {
    /// A clock that writes `HH:MM:SS.nnnnnnnnn`, after `YYYY-MM-DD ` if `with_date`.
    pub fn new(zone: Zone, with_date: bool) -> Self {
        Self {
            zone,
            with_date,
            second: NO_SECOND,
            text: Vec::with_capacity(24),
            frame: [0; FRAME_SIZE_BYTES],
            fraction_at: 0,
        }
    }

    /// Appends the time at `ns`.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, ns: i64) {
        let (second, fraction) = split(ns);
        if second != self.second {
            self.change(second);
        }
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&digits9(fraction));
    }

    /// `[TIME] ` or, with a difference, `[TIME] (+DELTA) ` in the first bytes of the array, and how
    /// many those are. `None` for what has another form: times before 1970, differences that are
    /// negative or of ten seconds and more.
    #[inline]
    pub(crate) fn stamp(
        &mut self,
        ns: i64,
        delta_ns: Option<i64>,
    ) -> Option<(&[u8; FRAME_SIZE_BYTES], usize)> {
        // No division as long as the second stays the same.
        let mut fraction = ns.wrapping_sub(self.second.wrapping_mul(NS_PER_S)).cast_unsigned();
        if fraction >= NS_PER_S as u64 {
            if ns < 0 {
                return None;
            }
            let (second, rest) = split(ns);
            self.change(second);
            fraction = u64::from(rest);
        }
        let at = self.fraction_at;
        self.frame.get_mut(at..)?.first_chunk_mut().map(|text| *text = digits9(fraction as u32))?;
        let Some(delta_ns) = delta_ns else {
            return (at > 0).then_some((&self.frame, at + 9 + SHORT_END_SIZE_BYTES));
        };
        let (seconds, fraction) = match delta_ns {
            0..NS_PER_S => (0, delta_ns),
            _ if (0..10 * NS_PER_S).contains(&delta_ns) => (delta_ns / NS_PER_S, delta_ns % NS_PER_S),
            _ => return None,
        };
        let end: &mut [u8; 17] = self.frame.get_mut(at + 9..)?.first_chunk_mut()?;
        end[4] = b'0' + seconds as u8;
        end[6..15].copy_from_slice(&digits9(fraction as u32));
        (at > 0).then_some((&self.frame, at + 9 + FRAME_END.len()))
    }

    #[cold]
    fn change(&mut self, second: i64) {
        self.second = second;
        let local = second.saturating_add(self.zone.offset_s(second));
        let (day, of_day) = (local.div_euclid(86_400), local.rem_euclid(86_400) as u32);
        self.text.clear();
        if self.with_date {
            let (year, month, day) = civil(day);
            if (0..=9999).contains(&year) {
                let year = year as u32;
                self.text.extend_from_slice(&digits2(year / 100));
                self.text.extend_from_slice(&digits2(year % 100));
            } else {
                super::number::push_i64(&mut self.text, year);
            }
            self.text.push(b'-');
            self.text.extend_from_slice(&digits2(month));
            self.text.push(b'-');
            self.text.extend_from_slice(&digits2(day));
            self.text.push(b' ');
        }
        for (value, end) in [(of_day / 3600, b':'), (of_day / 60 % 60, b':'), (of_day % 60, b'.')] {
            self.text.extend_from_slice(&digits2(value));
            self.text.push(end);
        }
        self.fraction_at = 0;
        let at = 1 + self.text.len();
        if let Some(frame) = self.frame.get_mut(..at + 9 + FRAME_END.len()) {
            frame[0] = b'[';
            frame[1..at].copy_from_slice(&self.text);
            frame[at + 9..].copy_from_slice(FRAME_END);
            self.fraction_at = at;
        }
    }
}

/// Appends `SEC.nnnnnnnnn`, with a sign in front when negative.
#[inline]
pub(crate) fn push_seconds(out: &mut Vec<u8>, ns: i64) {
    if ns < 0 {
        out.push(b'-');
    }
    let ns = ns.unsigned_abs();
    push_u64(out, ns / NS_PER_S as u64);
    out.push(b'.');
    out.extend_from_slice(&digits9((ns % NS_PER_S as u64) as u32));
}

/// Whole second at or before `ns`, and the nanoseconds after it.
#[inline]
fn split(ns: i64) -> (i64, u32) {
    if ns >= 0 {
        let ns = ns.cast_unsigned();
        return ((ns / NS_PER_S as u64).cast_signed(), (ns % NS_PER_S as u64) as u32);
    }
    (ns.div_euclid(NS_PER_S), ns.rem_euclid(NS_PER_S) as u32)
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(day: i64) -> (i64, u32, u32) {
    // Days are counted from 1 March of year 0, so that leap days end the four-century cycle.
    let from_march = day + 719_468;
    let era = from_march.div_euclid(146_097);
    let of_era = from_march.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(zone: Zone, date: bool, ns: i64) -> String {
        let mut out = Vec::new();
        WallClock::new(zone, date).push(&mut out, ns);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn dates_and_times() {
        assert_eq!(at(Zone::Utc, true, 0), "1970-01-01 00:00:00.000000000");
        assert_eq!(at(Zone::Utc, true, 1_709_251_199_999_999_999), "2024-02-29 23:59:59.999999999");
        assert_eq!(at(Zone::Utc, true, 951_868_800_000_000_001), "2000-03-01 00:00:00.000000001");
        assert_eq!(at(Zone::Utc, true, -1), "1969-12-31 23:59:59.999999999");
        assert_eq!(at(Zone::Utc, false, i64::MAX), "23:47:16.854775807");
        let zone = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").map(Zone::Local);
        assert_eq!(zone.map(|zone| at(zone, true, 0)).ok().as_deref(), Some("1969-12-31 19:00:00.000000000"));
    }

    #[test]
    fn stamps() {
        let check = |date, ns, delta_ns, want: Option<&str>| {
            let mut clock = WallClock::new(Zone::Utc, date);
            // Of a second before, so that all of it has to change.
            clock.stamp(1, None);
            let text = clock.stamp(ns, delta_ns).map(|(text, len)| String::from_utf8_lossy(&text[..len]));
            assert_eq!(text.as_deref(), want);
        };
        check(false, 3_661_000_000_005, None, Some("[01:01:01.000000005] "));
        let want = Some("[01:01:01.000000005] (+9.000000120) ");
        check(false, 3_661_000_000_005, Some(9_000_000_120), want);
        check(false, 999_999_999, Some(7), Some("[00:00:00.999999999] (+0.000000007) "));
        let want = Some("[2024-02-29 23:59:59.999999999] (+1.000000000) ");
        check(true, 1_709_251_199_999_999_999, Some(NS_PER_S), want);
        check(true, i64::MAX, None, Some("[2262-04-11 23:47:16.854775807] "));
        check(false, 5, Some(10 * NS_PER_S), None);
        check(false, 5, Some(-1), None);
        check(false, -1, Some(1), None);
        check(false, i64::MIN, None, None);
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut last = civil(-1);
        for day in 0..146_097 {
            let now = civil(day);
            let next_month =
                now.2 == 1 && last.2 >= 28 && (now.1 == last.1 + 1 || (now.1, last.1) == (1, 12));
            assert!(next_month || (now.0, now.1, now.2) == (last.0, last.1, last.2 + 1), "{last:?} {now:?}");
            last = now;
        }
        assert_eq!(last, (2369, 12, 31));
    }

    #[test]
    fn seconds() {
        let check = |ns, want: &str| {
            let mut out = Vec::new();
            push_seconds(&mut out, ns);
            assert_eq!(String::from_utf8_lossy(&out), want);
        };
        check(-4_999_999_000, "-4.999999000");
        check(1_000_000_007, "1.000000007");
    }
}
