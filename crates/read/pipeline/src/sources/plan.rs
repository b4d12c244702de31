//! The order of events that several streams have at hand, made ahead of its use.
//!
//! Streams find events some at a time. As long as each has one at hand, the order in which they
//! come can be worked out in one tight loop over the clocks, and going to the next event is then
//! only a step in a list. A plan never changes the order: it says what a comparison of the heads
//! would have said, and ends where a head is not known or is no event.

use super::mux::SliceRange;
use super::packets::PacketSource;
use super::stream::StreamReader;

/// The next message of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    pub ns: i64,
    pub reader: usize,
}

impl Head {
    /// Whether it comes first, without a jump on the way there.
    #[inline(always)]
    fn is_before(&self, other: &Self) -> bool {
        let key = |head: &Self| (i128::from(head.ns) << 64) | head.reader as i128;
        key(self) < key(other)
    }
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
    /// Events at hand of each stream that were planned already; 0 between two plans.
    used: Vec<u32>,
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

    /// Drops what is left; gives the stream of its last event, if there was a plan.
    pub(super) fn forget(&mut self) -> Option<usize> {
        let last = self.readers.last().map(|reader| *reader as usize);
        self.readers.clear();
        self.at = 0;
        last
    }

    /// Plans from the event that `current` stands on. `heads` are those of all other streams, a
    /// heap; afterwards they are those of all but the plan's last one, as if it had been followed.
    pub(super) fn make<P: PacketSource>(
        &mut self,
        readers: &[StreamReader<P>],
        current: usize,
        heads: &mut [Head],
        range: SliceRange,
    ) {
        self.forget();
        // The current stream stands on an event that was given; the others on their next.
        let own = match readers.get(current).map(StreamReader::times_at_hand) {
            Some([_, own @ ..]) => own,
            _ => return,
        };
        if u32::try_from(readers.len()).is_err() {
            return;
        }
        match heads {
            [] => self.readers.resize(within(own, range).len(), current as u32),
            [other] => {
                let times = within(readers[other.reader].times_at_hand(), range);
                self.pair((current, within(own, range)), (other.reader, times), other);
            }
            _ => self.many(readers, current, heads, range),
        }
    }

    /// Two streams. At equal times the first one comes first.
    fn pair(&mut self, a: (usize, &[i64]), b: (usize, &[i64]), other: &mut Head) {
        let (a_at, b_at) = if a.0 < b.0 {
            self.merge(a, b, |a_ns, b_ns| b_ns < a_ns)
        } else {
            self.merge(a, b, |a_ns, b_ns| b_ns <= a_ns)
        };
        let Some(last) = self.readers.last() else { return };
        // The one that is not the last one stands on its next.
        let ((reader, times), at) = if *last as usize == a.0 { (b, b_at) } else { (a, a_at) };
        if let Some(ns) = times.get(at) {
            *other = Head { ns: *ns, reader };
        }
    }

    /// Merges without a branch on which stream is next: nobody can guess that. Gives how many events
    /// of each were taken.
    #[inline(always)]
    fn merge(
        &mut self,
        (a, a_times): (usize, &[i64]),
        (b, b_times): (usize, &[i64]),
        takes_b: impl Fn(i64, i64) -> bool,
    ) -> (usize, usize) {
        let (a, b) = (a as u32, b as u32);
        self.readers.resize(a_times.len() + b_times.len(), a);
        let (mut a_at, mut b_at) = (0, 0);
        for slot in &mut self.readers {
            let (Some(a_ns), Some(b_ns)) = (a_times.get(a_at), b_times.get(b_at)) else { break };
            let takes_b = takes_b(*a_ns, *b_ns);
            *slot = if takes_b { b } else { a };
            a_at += usize::from(!takes_b);
            b_at += usize::from(takes_b);
        }
        self.readers.truncate(a_at + b_at);
        (a_at, b_at)
    }

    /// Any number of streams, in runs: events of one until another one's head is due. The heap is that
    /// of all streams but `reader` all the time.
    fn many<P: PacketSource>(
        &mut self,
        readers: &[StreamReader<P>],
        current: usize,
        heap: &mut [Head],
        SliceRange { from_ns, to_ns }: SliceRange,
    ) {
        let inside = |ns: i64| to_ns.is_none_or(|to| ns < to) && from_ns.is_none_or(|from| ns >= from);
        self.used.resize(readers.len(), 0);
        self.used[current] = 1;
        let mut reader = current;
        while let Some(limit) = heap.first().copied() {
            let used = self.used[reader] as usize;
            let times = readers[reader].times_at_hand().get(used..).unwrap_or_default();
            let room = EVENTS_MAX.saturating_sub(self.readers.len());
            let due = |ns: &&i64| Head { ns: **ns, reader } < limit && inside(**ns);
            let run = times.iter().take(room).take_while(due).count();
            self.readers.extend(std::iter::repeat_n(reader as u32, run));
            self.used[reader] = (used + run) as u32;
            let Some(ns) = times.get(run).filter(|ns| run < room && inside(**ns)) else { break };
            // The other stream stands on its head already: that one comes without a step. It may be
            // no event.
            let used = &mut self.used[limit.reader];
            let known = *used > 0 || readers[limit.reader].times_at_hand().first() == Some(&limit.ns);
            if !known || !inside(limit.ns) {
                break;
            }
            *used += 1;
            heap[0] = Head { ns: *ns, reader };
            sift_down(heap, 0);
            reader = limit.reader;
            self.readers.push(reader as u32);
        }
        self.used[current] = 0;
        for reader in &self.readers {
            self.used[*reader as usize] = 0;
        }
    }
}

/// The times before the first that is not in the range.
#[inline]
fn within(times: &[i64], range: SliceRange) -> &[i64] {
    if range == SliceRange::default() {
        return times;
    }
    let out =
        |ns: &i64| range.to_ns.is_some_and(|to| *ns >= to) || range.from_ns.is_some_and(|from| *ns < from);
    times.split(out).next().unwrap_or_default()
}

/// Moves the head at `at` of a heap down to its place.
#[inline]
pub(super) fn sift_down(heap: &mut [Head], mut at: usize) {
    let Some(head) = heap.get(at).copied() else { return };
    loop {
        let mut child = 2 * at + 1;
        if let Some([left, right]) = heap.get(child..child + 2) {
            // Which child is the lesser one nobody can guess.
            child += usize::from(right.is_before(left));
        }
        match heap.get(child) {
            Some(least) if least.is_before(&head) => heap[at] = *least,
            _ => break,
        }
        at = child;
    }
    heap[at] = head;
}
