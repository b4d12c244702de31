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
        // The current stream stands on an event that was given; the others on their next.
        let own = match readers.get(current).map(StreamReader::times_at_hand) {
            Some([_, own @ ..]) => within(own, range),
            _ => return,
        };
        if u32::try_from(readers.len()).is_err() {
            return;
        }
        self.started_at = current;
        match heads {
            [] => self.readers.resize(own.len(), current as u32),
            [other] => {
                let times = within(readers[other.reader].times_at_hand(), range);
                self.pair((current as u32, own), (other.reader as u32, times));
            }
            _ => self.many(readers, current, heads, range),
        }
    }

    /// Two streams. At equal times the first one comes first.
    fn pair(&mut self, a: (u32, &[i64]), b: (u32, &[i64])) {
        if a.0 < b.0 {
            self.merge(a, b, |a_ns, b_ns| b_ns < a_ns);
        } else {
            self.merge(a, b, |a_ns, b_ns| b_ns <= a_ns);
        }
    }

    /// Merges without a branch on which stream is next: nobody can guess that.
    #[inline(always)]
    fn merge(
        &mut self,
        (a, a_times): (u32, &[i64]),
        (b, b_times): (u32, &[i64]),
        takes_b: impl Fn(i64, i64) -> bool,
    ) {
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
    }

    /// Any number of streams, in runs: events of one until another one's head is due.
    fn many<P: PacketSource>(
        &mut self,
        readers: &[StreamReader<P>],
        current: usize,
        heads: &[Head],
        range: SliceRange,
    ) {
        self.used.clear();
        self.used.resize(readers.len(), 0);
        self.used[current] = 1;
        self.heap.clear();
        self.heap.extend_from_slice(heads);
        let mut reader = current;
        loop {
            let limit = self.heap.first().copied().unwrap_or(NEVER);
            let used = self.used[reader] as usize;
            let times = readers[reader].times_at_hand();
            let times = within(times.get(used..).unwrap_or_default(), range);
            let room = EVENTS_MAX.saturating_sub(self.readers.len());
            let due = |ns: &&i64| Head { ns: **ns, reader } < limit;
            let run = times.iter().take(room).take_while(due).count();
            self.readers.resize(self.readers.len() + run, reader as u32);
            let Some(ns) = times.get(run).filter(|_| run < room) else {
                return;
            };
            let next = Head { ns: *ns, reader };
            self.used[reader] = (used + run) as u32;
            // The other stream stands on its head already: that one comes without a step.
            reader = limit.reader;
            let used = &mut self.used[reader];
            let times = readers[reader].times_at_hand().get(*used as usize..).unwrap_or_default();
            if times.first() != Some(&limit.ns) || within(&times[..1], range).is_empty() {
                return;
            }
            *used += 1;
            self.heap[0] = next;
            sift_down(&mut self.heap, 0);
            self.readers.push(reader as u32);
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
