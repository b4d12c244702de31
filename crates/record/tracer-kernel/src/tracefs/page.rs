//! Pages of the kernel's own ring buffer, as `trace_pipe_raw` gives them: bytes in, records out.
//!
//! It never trusts a length: a page that is not as it should be ends where that shows.

/// Bytes in front of a page's records: its time and how much of it is filled.
const HEAD_BYTES: usize = 16;
/// Bits of the second word that say how much is filled.
const FILLED_MASK: u64 = (1 << 27) - 1;
/// Records are missing in front of this page.
const MISSED: u64 = 1 << 31;
/// How many stands behind the last record.
const MISSED_STORED: u64 = 1 << 30;
/// Bits of a record's first word that say what it is; the rest is the time since the one before.
const KIND_BITS: u32 = 5;
const PADDING: u32 = 29;
const LONG_DELTA: u32 = 30;
const ABSOLUTE: u32 = 31;
/// Bits of time that a record's first word holds.
const DELTA_BITS: u32 = 27;
/// The bits that an absolute time leaves out.
const UPPER_BITS: u64 = 0xf8 << 56;

/// One record of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// When, by the instance's clock.
    pub(super) time_ns: u64,
    /// Its bytes; the event's number stands in the first two.
    pub(super) bytes: &'a [u8],
}

impl Record<'_> {
    /// The event's number.
    pub(super) fn event(&self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.bytes.get(..2)?.try_into().ok()?))
    }

    /// The number of the task that was running.
    pub(super) fn task(&self) -> Option<u32> {
        u32_at(self.bytes, 4)
    }
}

/// A page.
#[derive(Clone, Debug)]
pub(super) struct Page<'a> {
    records: &'a [u8],
    time_ns: u64,
    lost: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

impl<'a> Page<'a> {
    /// The page in these bytes; None if they hold none.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Page<'a>> {
        let (time_ns, filled) = (u64_at(bytes, 0)?, u64_at(bytes, 8)?);
        let records = bytes.get(HEAD_BYTES..)?;
        let length = ((filled & FILLED_MASK) as usize).min(records.len());
        let lost = match filled & MISSED {
            0 => 0,
            _ if filled & MISSED_STORED != 0 => u64_at(records, length).unwrap_or(1).max(1),
            _ => 1,
        };
        Some(Page { records: &records[..length], time_ns, lost })
    }

    /// Records that the kernel had no room for before this page; at least that many.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

impl<'a> Iterator for Page<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            let first = u32_at(self.records, 0)?;
            let (kind, delta) = (first & ((1 << KIND_BITS) - 1), u64::from(first >> KIND_BITS));
            let second = u32_at(self.records, 4);
            let (skip, start, length): (usize, usize, usize) = match kind {
                PADDING if delta == 0 => return None,
                PADDING => (4 + second? as usize, 0, 0),
                LONG_DELTA | ABSOLUTE => (8, 0, 0),
                0 => ((4 + second? as usize).next_multiple_of(4), 8, (second? as usize).checked_sub(4)?),
                words => (4 + 4 * words as usize, 4, 4 * words as usize),
            };
            self.time_ns = match kind {
                LONG_DELTA => self.time_ns.wrapping_add((u64::from(second?) << DELTA_BITS) + delta),
                ABSOLUTE => (self.time_ns & UPPER_BITS) | ((u64::from(second?) << DELTA_BITS) + delta),
                _ => self.time_ns.wrapping_add(delta),
            };
            let bytes = self.records.get(start..start.checked_add(length)?)?;
            self.records = self.records.get(skip..).unwrap_or_default();
            if start > 0 {
                return Some(Record { time_ns: self.time_ns, bytes });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(filled: u64, words: &[u32]) -> Vec<u8> {
        let mut bytes = [1000u64, filled].map(u64::to_ne_bytes).concat();
        words.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn every_kind_of_record_is_read() {
        let words = [
            5 << 5 | 1, // four bytes, 5 ns later
            7,
            1 << 5 | LONG_DELTA, // 1 + 2^27 ns
            1,
            3 << 5, // twelve bytes with their length in a word of its own
            12,
            8,
            9,
            4 << 5 | PADDING, // a record that was taken back
            4,
            0,
            6 << 5 | 1,
            3,
        ];
        let bytes = page(4 * words.len() as u64, &words);
        let records: Vec<(u64, usize, Option<u16>)> =
            Page::new(&bytes).unwrap().map(|r| (r.time_ns, r.bytes.len(), r.event())).collect();
        let late = 1006 + (1 << 27);
        assert_eq!(
            records,
            [(1005, 4, Some(7)), (late + 3, 8, Some(8)), (late + 3 + 4 - 4 + 3, 0, None)][..2]
        );
        assert_eq!(Page::new(&bytes).unwrap().lost(), 0);
    }

    #[test]
    fn missing_records_are_counted() {
        let bytes = page(8 | MISSED | MISSED_STORED, &[1, 7, 42, 0]);
        assert_eq!(Page::new(&bytes).unwrap().lost(), 42);
        assert_eq!(Page::new(&page(8 | MISSED, &[1, 7])).unwrap().lost(), 1);
    }

    #[test]
    fn no_bytes_make_it_read_beyond_them() {
        assert!(Page::new(&[0; 15]).is_none());
        for words in [vec![28], vec![0, u32::MAX], vec![0, 0], vec![1 << 5 | PADDING, u32::MAX], vec![30]] {
            let bytes = page(1 << 20, &words);
            assert_eq!(Page::new(&bytes).unwrap().count(), 0, "{words:?}");
        }
    }
}
