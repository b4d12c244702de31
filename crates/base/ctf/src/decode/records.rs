//! The records found in a packet, and the loop that finds them behind LTTng's short headers.
//!
//! Records lie in columns: their clocks in one, all else that is known of them in another, so that
//! whoever only wants times reads only times. Records of one class of fixed size that follow one
//! another are found by adding, others by the ends of their class (see [`super::ends`]). The loop
//! stops in front of whatever it does not know or that does not fit; it never reports a fault.

use super::ends::Ends;
use super::header::{Quick, VARIABLE};
use crate::model::ByteOrder;

/// Records found at once: enough to spread the cost of starting, few enough for the nearest cache.
pub(super) const BATCH: usize = 128;

/// A record whose end was found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    /// Where it starts, in bits.
    pub at: u64,
    /// Position of its class in the stream class.
    pub class: u32,
    /// Where common context, specific context and payload start, in bits after `at`.
    pub starts: [u32; 3],
    /// Its size in bits, without padding after it.
    pub size: u32,
}

impl Record {
    /// Where the next record would start, padding not counted.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.at + u64::from(self.size)
    }
}

/// One of LTTng's header shapes in one byte order.
pub(super) trait Shape {
    const TIME_BITS: u32;
    const SIZE_BITS: u32;
    /// The id that announces the extended form.
    const ESCAPE: u64;
    /// Bytes before the rest of the extended form.
    const ESCAPE_BYTES: usize;
    const ORDER: ByteOrder;
    /// Id and time of the short form, of the first eight bytes.
    fn read(bytes: [u8; 8]) -> (u64, u64);
}

pub(super) struct Large<const BIG: bool>;

impl<const BIG: bool> Shape for Large<BIG> {
    const TIME_BITS: u32 = 32;
    const SIZE_BITS: u32 = 48;
    const ESCAPE: u64 = 0xffff;
    const ESCAPE_BYTES: usize = 2;
    const ORDER: ByteOrder = if BIG { ByteOrder::Big } else { ByteOrder::Little };

    #[inline(always)]
    fn read(bytes: [u8; 8]) -> (u64, u64) {
        if BIG {
            let word = u64::from_be_bytes(bytes);
            (word >> 48, (word >> 16) & 0xffff_ffff)
        } else {
            let word = u64::from_le_bytes(bytes);
            (word & 0xffff, (word >> 16) & 0xffff_ffff)
        }
    }
}

pub(super) struct Compact<const BIG: bool>;

impl<const BIG: bool> Shape for Compact<BIG> {
    const TIME_BITS: u32 = 27;
    const SIZE_BITS: u32 = 32;
    const ESCAPE: u64 = 31;
    const ESCAPE_BYTES: usize = 1;
    const ORDER: ByteOrder = if BIG { ByteOrder::Big } else { ByteOrder::Little };

    #[inline(always)]
    fn read(bytes: [u8; 8]) -> (u64, u64) {
        if BIG {
            let word = u64::from_be_bytes(bytes);
            (word >> 59, (word >> 32) & 0x7ff_ffff)
        } else {
            let word = u64::from_le_bytes(bytes);
            (word & 31, (word >> 5) & 0x7ff_ffff)
        }
    }
}

/// The stream class's tables for the search.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// By event class id.
    pub quick: &'a [Quick],
    /// By position of the event class.
    pub ends: &'a [Ends],
}

/// A search through a packet's content.
pub(super) struct Search<'a> {
    /// The whole bytes of the content.
    pub content: &'a [u8],
    /// End of the content in bits.
    pub end: u64,
    /// Clock of the stream after the records found, in cycles.
    pub clock: u64,
    /// Start of the record after those found.
    pub next: u64,
    /// See `PacketDecoder::take_went_back`; between records of this search.
    pub went_back: Option<(u64, u64)>,
}

impl Search<'_> {
    /// Finds records up to the first that has to be looked at field by field; gives how many.
    pub(super) fn find<S: Shape>(
        &mut self,
        known: Known<'_>,
        clocks: &mut [u64],
        records: &mut [Record],
    ) -> usize {
        let room = clocks.len().min(records.len());
        let mut count = 0;
        // Size in bytes of the record before when it was a plain one, and its id.
        let mut before = (0, u64::MAX);
        while count < room {
            let at = (self.next + 7) & !7;
            // The last records of a packet may have fewer than eight bytes: they are not quick.
            let Some(rest) = self.content.get((at / 8) as usize..) else { break };
            let Some(word) = rest.first_chunk::<8>() else { break };
            let (mut id, time) = S::read(*word);
            if id == before.1 {
                let (clocks, records) = (&mut clocks[count - 1..], &mut records[count - 1..]);
                count += self.find_same::<S>(rest, before, clocks, records);
                before.1 = u64::MAX;
                continue;
            }
            let mut clock = self.clock;
            let mut head = S::SIZE_BITS;
            if id == S::ESCAPE {
                let more = rest.get(S::ESCAPE_BYTES..).and_then(|rest| extended(rest, S::ORDER));
                let Some((long, time)) = more else { break };
                id = u64::from(long);
                clock = time;
                // Only a whole timestamp can go back.
                if clock < self.clock && count > 0 {
                    self.went_back.get_or_insert((self.clock, clock));
                }
                head = 8 * S::ESCAPE_BYTES as u32 + 96;
            } else {
                update_clock(&mut clock, time, S::TIME_BITS);
            }
            let Some(quick) = known.quick.get(id as usize) else { break };
            let mut record = Record { at, class: quick.class, starts: [head; 3], size: 0 };
            if quick.body_bits == VARIABLE {
                let Some(ends) = known.ends.get(quick.class as usize) else { break };
                if ends.find(self.content, self.end, &mut record).is_none() {
                    break;
                }
                before.1 = u64::MAX;
            } else {
                record.starts = [head, head + quick.starts[0], head + quick.starts[1]];
                record.size = head + quick.body_bits;
                // At least the eight bytes that are looked at for the header.
                let plain = head == S::SIZE_BITS && record.size >= 64 && record.size.is_multiple_of(8);
                before = (record.size as usize / 8, if plain { id } else { u64::MAX });
                if record.next() > self.end {
                    break;
                }
            }
            clocks[count] = clock;
            records[count] = record;
            self.clock = clock;
            self.next = record.next();
            count += 1;
        }
        count
    }

    /// Finds records of the size and id of the first of `records`, one right behind the other.
    #[inline(always)]
    fn find_same<S: Shape>(
        &mut self,
        mut rest: &[u8],
        (size_bytes, id): (usize, u64),
        clocks: &mut [u64],
        records: &mut [Record],
    ) -> usize {
        let Some((first, records)) = records.split_first_mut() else { return 0 };
        let clocks = clocks.get_mut(1..).unwrap_or_default();
        let mut record = *first;
        let mut clock = self.clock;
        let mut count = 0;
        for (clock_slot, slot) in clocks.iter_mut().zip(records) {
            let Some((bytes, after)) = rest.split_at_checked(size_bytes) else { break };
            let Some(word) = bytes.first_chunk::<8>() else { break };
            let (found, time) = S::read(*word);
            if found != id {
                break;
            }
            update_clock(&mut clock, time, S::TIME_BITS);
            record.at += u64::from(record.size);
            *clock_slot = clock;
            *slot = record;
            rest = after;
            count += 1;
        }
        self.clock = clock;
        self.next = record.next();
        count
    }
}

/// The rest of an extended header: 32-bit id, 64-bit time.
#[inline]
pub(super) fn extended(bytes: &[u8], order: ByteOrder) -> Option<(u32, u64)> {
    let (id, rest) = bytes.split_first_chunk::<4>()?;
    let time = rest.first_chunk::<8>()?;
    Some(match order {
        ByteOrder::Little => (u32::from_le_bytes(*id), u64::from_le_bytes(*time)),
        ByteOrder::Big => (u32::from_be_bytes(*id), u64::from_be_bytes(*time)),
    })
}

/// Replaces the low bits of the clock; a value below them means that it wrapped once.
#[inline(always)]
pub(crate) fn update_clock(clock: &mut u64, value: u64, size_bits: u32) {
    if size_bits >= 64 {
        *clock = value;
        return;
    }
    let mask = (1u64 << size_bits) - 1;
    let wrapped = u64::from(value < *clock & mask) << size_bits;
    *clock = (*clock & !mask | value).wrapping_add(wrapped);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_replaces_low_bits_and_sees_one_wrap() {
        let check = |mut clock, value, bits, want| {
            update_clock(&mut clock, value, bits);
            assert_eq!(clock, want);
        };
        check(0x1_0000_0010, 0x20, 32, 0x1_0000_0020);
        check(0x1_0000_0010, 0x0f, 32, 0x2_0000_000f);
        check(0x1_0000_0010, 0x10, 32, 0x1_0000_0010);
        check(100, 5, 64, 5);
        check(u64::MAX, 0, 1, 0);
    }
}
