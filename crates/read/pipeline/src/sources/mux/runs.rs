//! Events that are known of all streams, given stream by stream instead of one by one.
//!
//! Which events come before the first message that is not known yet can be told without merging
//! them: of each stream those before the earliest of all streams' last known times. They are a
//! prefix of the order that the muxer would give, so going on message by message afterwards loses and
//! repeats nothing. Where times go back within a stream that is not so, and nothing is given. Of a
//! stream whose events were not all taken the next one comes late, after later ones of the others.

use super::super::packets::PacketSource;
use super::super::plan::Head;
use super::{Muxer, SliceRange};
use crate::Error;
use crate::messages::TakesRuns;

/// Where what is known ends.
#[derive(Clone, Copy)]
struct Limit {
    head: Head,
    /// The event of this head is known too.
    included: bool,
}

impl Limit {
    /// How many of the times of a reader, which do not go back, lie before the limit.
    fn count(self, reader: usize, times: &[i64]) -> usize {
        times.partition_point(|ns| {
            let head = Head { ns: *ns, reader };
            head < self.head || self.included && head == self.head
        })
    }
}

impl<P: PacketSource> Muxer<P> {
    /// See [`Messages::give_runs`](crate::Messages::give_runs).
    pub(super) fn give_known(&mut self, range: SliceRange, to: &mut dyn TakesRuns) -> Result<usize, Error> {
        let room = to.room();
        if self.refusal.is_some() || !self.waiting.is_empty() || room == 0 {
            return Ok(0);
        }
        self.land();
        let range = both(range, self.range);
        if self.count_known(range).is_none_or(|total| total > room) {
            return Ok(0);
        }
        let mut taken = 0;
        let mut last: Option<Head> = None;
        for reader in 0..self.counts.len() {
            let count = std::mem::take(&mut self.counts[reader]);
            if count == 0 {
                continue;
            }
            // The current stream stands on an event that was given; the others on their next.
            let from = usize::from(reader == self.current);
            let part = self.readers[reader].give_run(from, count, to)?.min(count);
            self.counts[reader] = part;
            taken += part;
            let known = self.known(reader).unwrap_or_default();
            let ns = part.checked_sub(1).and_then(|at| known.get(at).copied());
            last = last.max(ns.map(|ns| Head { ns, reader }));
        }
        if let Some(last) = last {
            self.go_behind(last);
        }
        Ok(taken)
    }

    /// The times of a reader's known events that were not given.
    fn known(&self, reader: usize) -> Option<&[i64]> {
        let times = self.readers.get(reader)?.sorted_times_at_hand()?;
        Some(times.get(usize::from(reader == self.current)..).unwrap_or_default())
    }

    /// Counts what can be given of each reader, and gives the sum; `None` when there is nothing.
    fn count_known(&mut self, range: SliceRange) -> Option<usize> {
        let mut limit = self.limit_of(self.current, range)?;
        for head in &self.heap {
            let other = match self.limit_of(head.reader, range) {
                Some(other) => other,
                // It stands on another message.
                None if self.readers[head.reader].is_unsorted() => return None,
                None => Limit { head: *head, included: false },
            };
            if other.head < limit.head {
                limit = other;
            }
        }
        self.counts.clear();
        self.counts.resize(self.readers.len(), 0);
        for reader in self.heap.iter().map(|head| head.reader).chain([self.current]) {
            self.counts[reader] = limit.count(reader, self.known(reader).unwrap_or_default());
        }
        Some(self.counts.iter().sum()).filter(|total| *total > 0)
    }

    /// Where what is known of a reader's events ends; `None` when nothing is.
    fn limit_of(&self, reader: usize, range: SliceRange) -> Option<Limit> {
        let times = self.known(reader)?;
        let (first, last) = (*times.first()?, *times.last()?);
        let limit = |ns, included| Limit { head: Head { ns, reader }, included };
        if range.from_ns.is_some_and(|from| first < from) {
            return Some(limit(first, false));
        }
        Some(match range.to_ns {
            Some(to) if last >= to => limit(*times.get(times.partition_point(|ns| *ns < to))?, false),
            _ => limit(last, true),
        })
    }

    /// Stands on the last event that was taken, every other stream on its next.
    fn go_behind(&mut self, last: Head) {
        let was = self.current;
        for (reader, count) in self.counts.iter().enumerate() {
            let stood = usize::from(reader == was);
            let stands = usize::from(reader == last.reader);
            self.readers[reader].pass(count + stood - stands);
        }
        self.current = last.reader;
        self.in_runs = true;
        self.enter_heads(was);
        self.stand_on(last);
    }
}

/// What is in both ranges.
fn both(a: SliceRange, b: SliceRange) -> SliceRange {
    SliceRange { from_ns: a.from_ns.max(b.from_ns), to_ns: [a.to_ns, b.to_ns].into_iter().flatten().min() }
}
