//! Clock classes and the conversion from cycles to nanoseconds.
//!
//! The conversion never overflows: a value that does not fit a signed 64-bit count of nanoseconds
//! is `None`. Nothing here reads a clock.

use super::{Attributes, Uuid};

const NS_PER_S: i128 = 1_000_000_000;

/// Where a clock counts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClockOrigin {
    /// 1970-01-01T00:00:00Z: comparable with every clock of the same origin.
    UnixEpoch,
    /// Nothing is known: comparable only with the same clock.
    Unknown,
    /// A named origin (CTF 2): comparable with every clock of the same origin.
    Custom {
        /// Namespace, if any.
        namespace: Option<String>,
        /// Name of the origin.
        name: String,
        /// Unique identifier of the origin.
        uid: String,
    },
}

/// A clock that timestamps are taken from.
#[derive(Debug, Clone, PartialEq)]
pub struct ClockClass {
    /// Identifier that the metadata uses to refer to it (CTF 2 `id`; the name in CTF 1.8).
    pub id: String,
    /// Namespace (CTF 2).
    pub namespace: Option<String>,
    /// Name shown to people.
    pub name: Option<String>,
    /// Unique identifier (CTF 2).
    pub uid: Option<String>,
    /// UUID (CTF 1.8).
    pub uuid: Option<Uuid>,
    /// Description.
    pub description: Option<String>,
    /// Cycles per second, never 0.
    pub frequency_hz: u64,
    /// Precision in cycles, when known.
    pub precision_cycles: Option<u64>,
    /// Accuracy in cycles, when known (CTF 2).
    pub accuracy_cycles: Option<u64>,
    /// Whole seconds from the origin to the clock's zero.
    pub offset_s: i64,
    /// Rest of the offset in cycles, less than the frequency.
    pub offset_cycles: u64,
    /// Where it counts from.
    pub origin: ClockOrigin,
    /// User attributes.
    pub attributes: Attributes,
}

impl ClockClass {
    /// Nanoseconds from the origin for a clock value, rounded down; `None` when out of `i64`.
    ///
    /// Offset and value are converted one by one, and other frequencies than 1 GHz through `f64`:
    /// Babeltrace does so, and its times are what people compare with.
    #[inline]
    pub fn ns_from_origin(&self, cycles: u64) -> Option<i64> {
        let convert = |cycles: u64| {
            if self.frequency_hz == 1_000_000_000 {
                i128::from(cycles)
            } else {
                (1e9 * cycles as f64 / self.frequency_hz as f64) as i128
            }
        };
        let offset = i128::from(self.offset_s) * NS_PER_S + convert(self.offset_cycles);
        i64::try_from(offset + convert(cycles)).ok()
    }

    /// The smallest clock value at or after `ns`, or, at other frequencies than 1 GHz, one a little
    /// before it; 0 when `ns` is before the clock's zero, `None` when it is after its last value.
    pub fn cycles_at(&self, ns: i64) -> Option<u64> {
        let rest = i128::from(ns) - i128::from(self.offset_s) * NS_PER_S;
        let hz = i128::from(self.frequency_hz);
        let secs = rest.div_euclid(NS_PER_S);
        let frac = rest.rem_euclid(NS_PER_S);
        let cycles = secs * hz + (frac * hz + NS_PER_S - 1) / NS_PER_S - i128::from(self.offset_cycles);
        // What the roundings of `ns_from_origin` can make of it.
        let slack = if hz == NS_PER_S { 0 } else { 2 * hz / NS_PER_S + 2 + (cycles >> 50) };
        u64::try_from((cycles - slack).max(0)).ok()
    }

    /// This clock with its offset moved, and perhaps its origin set to the Unix epoch.
    pub(crate) fn adjusted(&self, add_s: i64, add_ns: i64, unix_epoch: bool) -> Self {
        let mut clock = self.clone();
        let hz = i128::from(self.frequency_hz);
        let cycles = i128::from(self.offset_cycles) + i128::from(add_ns) * hz / NS_PER_S;
        let seconds = i128::from(self.offset_s) + i128::from(add_s) + cycles.div_euclid(hz);
        clock.offset_s = seconds.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        clock.offset_cycles = cycles.rem_euclid(hz) as u64;
        if unix_epoch {
            clock.origin = ClockOrigin::UnixEpoch;
        }
        clock
    }

    /// Whether timestamps of the two clocks can be put in one order.
    pub fn correlates_with(&self, other: &Self) -> bool {
        match (&self.origin, &other.origin) {
            (ClockOrigin::Unknown, ClockOrigin::Unknown) => {
                (self.uuid.is_some() && self.uuid == other.uuid)
                    || (self.uid.is_some()
                        && self.uid == other.uid
                        && self.name == other.name
                        && self.namespace == other.namespace)
            }
            (a, b) => a == b,
        }
    }
}

/// The value of a stream's clock at a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSnapshot {
    /// Raw value in cycles.
    pub cycles: u64,
    /// Nanoseconds from the clock's origin; `None` when the value does not fit.
    pub ns: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(frequency_hz: u64, offset_s: i64, offset_cycles: u64) -> ClockClass {
        ClockClass {
            id: "c".into(),
            namespace: None,
            name: None,
            uid: None,
            uuid: None,
            description: None,
            frequency_hz,
            precision_cycles: None,
            accuracy_cycles: None,
            offset_s,
            offset_cycles,
            origin: ClockOrigin::Unknown,
            attributes: vec![],
        }
    }

    #[test]
    fn conversion_and_its_inverse() {
        let check = |hz, s, c, cycles, ns: Option<i64>| {
            let clock = clock(hz, s, c);
            assert_eq!(clock.ns_from_origin(cycles), ns);
            if let Some(ns) = ns {
                let back = clock.cycles_at(ns).unwrap();
                assert!(back <= cycles && back + 8 >= cycles);
            }
        };
        check(1_000_000_000, 5, 7, 3, Some(5_000_000_010));
        check(1_000, -1, 500, 250, Some(-250_000_000));
        check(3, 0, 0, 1, Some(333_333_333));
        check(1, 0, 0, u64::MAX, None);
        check(1_000_000_000, i64::MAX, 0, 0, None);
    }

    #[test]
    fn clamped_ends() {
        let clock = clock(1_000_000_000, 10, 0);
        assert_eq!(clock.cycles_at(0), Some(0));
        assert_eq!(clock.cycles_at(10_000_000_001), Some(1));
    }
}
