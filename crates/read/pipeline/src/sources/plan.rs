//! The order of events that several streams have at hand, made ahead of its use.
//!
//! Streams find events some at a time. As long as each has one at hand, the order in which they
//! come can be worked out in one tight loop over the clocks, and going to the next event is then
//! only a step in a list. A plan never changes the order: it says what a comparison of the heads
//! would have said, and ends where a head is not known or is no event.

use super::mux::SliceRange;
use super::packets::PacketSource;
use super::stream::{EventsAtHand, StreamReader};

/// The next message of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    pub ns: i64,
    pub reader: usize,
}

/// After every message.
pub(super) const NEVER: Head = Head { ns: i64::MAX, reader: usize::MAX };

/// Events planned at once.
const EVENTS_MAX: usize = 1024;

/// Streams whose events come next, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    readers: Vec<u32>,
    /// Position of the next one.
    at: usize,
    /// The stream that was the current one when the plan was made.
    started_at: usize,
    /// Events at hand of each stream that were planned already.
    used: Vec<u32>,
    heap: Vec<Head>,
    times: [Vec<i64>; 2],
}

impl Plan {
    /// The stream of the next event.
    #[inline]
    pub(super) fn next(&mut self) -> Option<usize> {
        let reader = *self.readers.get(self.at)?;
        self.at += 1;
        Some(reader as usize)
    }

    /// Whether nothing is left of it.
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.readers.len()
    }

    /// The stream that was the current one when the plan was made.
    pub(super) fn started_at(&self) -> usize {
        self.started_at
    }

    /// Drops what is left; true if there was a plan.
    pub(super) fn forget(&mut self) -> bool {
        let was = !self.readers.is_empty();
        self.readers.clear();
        self.at = 0;
        was
    }

    /// Plans from the event that `current` stands on. `heads` are those of all other streams, a
    /// heap.
    pub(super) fn make<P: PacketSource>(
        &mut self,
        readers: &[StreamReader<P>],
        current: usize,
        heads: &[Head],
        range: SliceRange,
    ) {
        self.forget();
        let Some(own) = readers.get(current).and_then(StreamReader::at_hand) else {
            return;
        };
        if u32::try_from(readers.len()).is_err() {
            return;
        }
        self.started_at = current;
        let within =
            |ns: i64| range.to_ns.is_none_or(|to| ns < to) && range.from_ns.is_none_or(|from| ns >= from);
        match heads {
            [] => self.alone(current, own, within),
            [other] => {
                if let Some(events) = readers[other.reader].at_hand() {
                    self.pair((current, own), (other.reader, events), within);
                }
            }
            _ => self.many(readers, current, heads, within),
        }
    }

    fn alone(&mut self, reader: usize, own: EventsAtHand<'_>, within: impl Fn(i64) -> bool) {
        let count = own.times(1).take_while(|ns| within(*ns)).count();
        self.readers.resize(count, reader as u32);
    }

    /// Two streams, without a branch on which of them is next: nobody can guess that.
    fn pair(
        &mut self,
        (a, a_events): (usize, EventsAtHand<'_>),
        (b, b_events): (usize, EventsAtHand<'_>),
        within: impl Fn(i64) -> bool,
    ) {
        let [a_times, b_times] = &mut self.times;
        a_times.clear();
        b_times.clear();
        // At equal times the first stream comes first.
        let after = i64::from(b < a);
        // The current stream stands on an event that was given; the other one on its next.
        let given = a_events.times(1).take_while(|ns| within(*ns));
        a_times.extend(given.map(|ns| ns.saturating_add(after)));
        b_times.extend(b_events.times(0).take_while(|ns| within(*ns)));
        let choice = [a as u32, b as u32];
        let (mut a_left, mut b_left) = (a_times.as_slice(), b_times.as_slice());
        while let (Some(a_ns), Some(b_ns)) = (a_left.first(), b_left.first()) {
            let takes_b = usize::from(b_ns < a_ns);
            self.readers.push(choice[takes_b]);
            a_left = a_left.get(1 - takes_b..).unwrap_or_default();
            b_left = b_left.get(takes_b..).unwrap_or_default();
        }
    }

    /// Any number of streams, in runs: events of one until another one's head is due.
    fn many<P: PacketSource>(
        &mut self,
        readers: &[StreamReader<P>],
        current: usize,
        heads: &[Head],
        within: impl Fn(i64) -> bool,
    ) {
        self.used.clear();
        self.used.resize(readers.len(), 0);
        self.used[current] = 1;
        self.heap.clear();
        self.heap.extend_from_slice(heads);
        let mut reader = current;
        while let Some(events) = readers[reader].at_hand() {
            let limit = self.heap.first().copied().unwrap_or(NEVER);
            let mut at = self.used[reader] as usize;
            let next = loop {
                let Some(ns) = events.ns(at).filter(|_| self.readers.len() < EVENTS_MAX) else {
                    return;
                };
                let head = Head { ns, reader };
                if head >= limit {
                    break head;
                }
                if !within(ns) {
                    return;
                }
                self.readers.push(reader as u32);
                at += 1;
            };
            self.used[reader] = at as u32;
            // The other stream stands on its head already: that one comes without a step.
            reader = limit.reader;
            if !within(limit.ns) || readers[reader].at_hand().is_none() {
                return;
            }
            self.heap[0] = next;
            sift_down(&mut self.heap, 0);
            self.readers.push(reader as u32);
            self.used[reader] += 1;
        }
    }
}

/// Moves the head at `at` of a heap down to its place.
#[inline]
pub(super) fn sift_down(heap: &mut [Head], mut at: usize) {
    loop {
        let mut least = at;
        for child in [2 * at + 1, 2 * at + 2] {
            if child < heap.len() && heap[child] < heap[least] {
                least = child;
            }
        }
        if least == at {
            return;
        }
        heap.swap(at, least);
        at = least;
    }
}
