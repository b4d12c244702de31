//! Many streams as one sequence of messages in the order of time.
//!
//! The next message is the one with the least time; at equal times the stream with the least rank,
//! which Babeltrace's rules give (identity of the trace, its name, stream class id, stream id).
//! Streams whose clocks can not be put in one order are refused at the first message: the order of
//! their events would mean nothing. Messages without a time come as soon as their stream reaches
//! them. The order of events that the streams have at hand is made ahead, some hundred at a time
//! (see [`super::plan`]), so that going to the next one is a step in a list. Times that go back
//! within a stream are passed on as they are.

mod runs;

use sillage_ctf::Message;

use super::correlate::refusal;
use super::packets::PacketSource;
use super::plan::{Head, NEVER, Plan, sift_down};
use super::stream::{Position, StreamReader};
use crate::messages::{Messages, Status, TakesRuns};
use crate::{Error, Warning};

/// Merges stream readers; the readers' order is their rank.
#[derive(Debug)]
pub struct Muxer<P> {
    readers: Vec<StreamReader<P>>,
    /// Binary heap of the heads of all streams but the current one, least first; while a plan is
    /// followed, as it will be at its end.
    heap: Vec<Head>,
    /// The stream whose message is the current one; `NOBODY` when there is none.
    current: usize,
    /// Streams that have to be advanced before there can be a next message.
    waiting: Vec<usize>,
    /// Time of the last message given: that of messages which have none.
    last_ns: i64,
    /// The head of the heap, which ends the run.
    limit: Head,
    plan: Plan,
    /// Two streams whose clocks have nothing in common: told once, then all is at its end.
    refusal: Option<String>,
    range: SliceRange,
    /// Whether `range` leaves anything out.
    sliced: bool,
    /// Events are given in runs, for which no plan is needed.
    in_runs: bool,
    /// See [`runs`].
    counts: Vec<usize>,
}

/// No stream.
const NOBODY: usize = usize::MAX;

/// Events that all streams together have at hand, so that thousands of streams do not take much memory;
/// a single stream has no more than its decoder finds at once.
const EVENTS_AT_HAND: usize = 8192;
/// Events that each stream has at hand at least.
const EVENTS_AT_HAND_MIN: usize = 16;

/// Half-open range of times whose messages are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SliceRange {
    /// First nanosecond; none is the beginning of all.
    pub from_ns: Option<i64>,
    /// First nanosecond that is not in it; none is the end of all.
    pub to_ns: Option<i64>,
}

impl<P: PacketSource> Muxer<P> {
    /// Merges these streams.
    pub fn new(mut readers: Vec<StreamReader<P>>) -> Self {
        let batch = (EVENTS_AT_HAND / readers.len().max(1)).max(EVENTS_AT_HAND_MIN);
        readers.iter_mut().for_each(|reader| reader.set_batch(batch));
        Self {
            heap: Vec::with_capacity(readers.len()),
            current: NOBODY,
            waiting: (0..readers.len()).rev().collect(),
            last_ns: i64::MIN,
            limit: NEVER,
            refusal: refusal(readers.iter().map(StreamReader::stream)),
            readers,
            plan: Plan::default(),
            range: SliceRange::default(),
            sliced: false,
            in_runs: false,
            counts: Vec::new(),
        }
    }

    /// Merges these streams, and gives only messages in a range of time; see
    /// [`Source::slices`](super::Source::slices). Begin and end of streams belong to the first and
    /// the last slice.
    ///
    /// # Errors
    /// As [`Messages::seek`].
    pub fn slice(readers: Vec<StreamReader<P>>, range: SliceRange) -> Result<Self, Error> {
        let mut muxer = Self::new(readers);
        if let Some(from) = range.from_ns {
            for reader in &mut muxer.readers {
                reader.seek(from)?;
            }
        }
        muxer.range = range;
        muxer.sliced = range != SliceRange::default();
        Ok(muxer)
    }

    /// Adds a stream (live). It ranks last.
    pub fn add(&mut self, reader: StreamReader<P>) {
        self.waiting.push(self.readers.len());
        self.readers.push(reader);
        self.refusal = self.refusal.take().or_else(|| refusal(self.readers.iter().map(StreamReader::stream)));
    }

    /// The readers, in the order of their rank.
    pub fn readers_mut(&mut self) -> impl Iterator<Item = &mut StreamReader<P>> {
        self.readers.iter_mut()
    }

    /// Leaves out the events before `ns`, of each stream up to its first that is not before it; none
    /// is the end of that. All other messages come as they are.
    pub(crate) fn skip_until(&mut self, ns: Option<i64>) {
        self.land();
        for reader in &mut self.readers {
            reader.skip_until(ns);
        }
    }

    /// Plans no further than to this time.
    pub(crate) fn plan_until(&mut self, ns: Option<i64>) {
        self.range.to_ns = ns;
    }

    /// Whether the next message is known to be an event before the time that is planned to.
    #[inline]
    pub(crate) fn has_plan(&self) -> bool {
        !self.plan.is_empty()
    }

    /// Where the streams stand, in the order of their rank.
    pub(crate) fn positions(&self) -> Vec<Position> {
        self.readers.iter().map(StreamReader::position).collect()
    }

    /// Advances the streams that must be, until all have a head.
    fn settle(&mut self) -> Result<Status, Error> {
        if let Some(why) = self.refusal.take() {
            self.waiting.clear();
            self.heap.clear();
            return Err(Error::Other(why));
        }
        let mut still = Vec::new();
        while let Some(index) = self.waiting.pop() {
            match self.readers[index].advance() {
                Ok(Status::Ready) => self.push(self.head(index)),
                Ok(Status::Pending) => still.push(index),
                Ok(Status::End) => {}
                Err(error) => {
                    self.waiting.append(&mut still);
                    return Err(error);
                }
            }
        }
        let pending = !still.is_empty();
        self.waiting = still;
        Ok(if pending {
            Status::Pending
        } else if self.heap.is_empty() {
            Status::End
        } else {
            Status::Ready
        })
    }

    #[inline]
    fn head(&self, reader: usize) -> Head {
        let ns = self.readers[reader].ns().unwrap_or(self.last_ns);
        Head { ns, reader }
    }

    fn push(&mut self, head: Head) {
        self.heap.push(head);
        let mut at = self.heap.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent] <= self.heap[at] {
                break;
            }
            self.heap.swap(parent, at);
            at = parent;
        }
    }

    /// Takes the least head.
    fn pop(&mut self) -> Option<Head> {
        let least = *self.heap.first()?;
        let last = self.heap.pop()?;
        if !self.heap.is_empty() {
            self.heap[0] = last;
            sift_down(&mut self.heap, 0);
        }
        Some(least)
    }

    /// Makes the least head the current message.
    fn take_least(&mut self) -> Result<Status, Error> {
        match self.settle()? {
            Status::Ready => {}
            other => return Ok(other),
        }
        let Some(head) = self.pop() else {
            return Ok(Status::End);
        };
        Ok(self.stand_on(head))
    }

    #[inline]
    fn stand_on(&mut self, head: Head) -> Status {
        self.current = head.reader;
        self.last_ns = head.ns;
        self.limit = self.heap.first().copied().unwrap_or(NEVER);
        Status::Ready
    }

    #[inline(always)]
    fn advance_any(&mut self) -> Result<Status, Error> {
        if let Some(next) = self.plan.next() {
            if let Some(reader) = self.readers.get_mut(self.current) {
                reader.step_at_hand();
            }
            self.current = next;
            return Ok(Status::Ready);
        }
        self.advance_unplanned()
    }

    /// Goes to the next message without a plan, then plans from there on.
    #[inline(never)]
    fn advance_unplanned(&mut self) -> Result<Status, Error> {
        self.land();
        let status = self.advance_one()?;
        if status == Status::Ready && !std::mem::take(&mut self.in_runs) {
            self.plan.make(&self.readers, self.current, &mut self.heap, self.range);
        }
        Ok(status)
    }

    /// Forgets the plan; all that is known of the streams is that of the message stood on.
    fn land(&mut self) {
        let followed = self.plan.is_empty();
        let Some(last) = self.plan.forget() else { return };
        self.last_ns = self.head(self.current).ns;
        if followed {
            self.limit = self.heap.first().copied().unwrap_or(NEVER);
        } else {
            self.enter_heads(last);
        }
    }

    /// Enters the heads anew after some messages were passed over: the heap is that of all streams but
    /// `without`, which is one of those now that are not current.
    fn enter_heads(&mut self, without: usize) {
        for head in &mut self.heap {
            if head.reader == self.current {
                head.reader = without;
            }
            // A message without a time keeps the one that it was given.
            head.ns = self.readers[head.reader].ns().unwrap_or(head.ns);
        }
        for at in (0..self.heap.len() / 2).rev() {
            sift_down(&mut self.heap, at);
        }
        self.limit = self.heap.first().copied().unwrap_or(NEVER);
    }

    fn advance_one(&mut self) -> Result<Status, Error> {
        let current = self.current;
        let last_ns = self.last_ns;
        if let Some(reader) = self.readers.get_mut(current)
            && let Some(ns) = reader.step()
        {
            let head = Head { ns: ns.unwrap_or(last_ns), reader: current };
            return Ok(self.go_on(head));
        }
        self.advance_rarely()
    }

    /// Stands on the next message of the current stream, or changes to the stream that is due.
    #[inline]
    fn go_on(&mut self, head: Head) -> Status {
        if head < self.limit {
            self.last_ns = head.ns;
            return Status::Ready;
        }
        let least = self.limit;
        if let Some(first) = self.heap.first_mut() {
            *first = head;
        }
        sift_down(&mut self.heap, 0);
        self.stand_on(least)
    }

    /// The current stream has no event at hand.
    #[inline(never)]
    fn advance_rarely(&mut self) -> Result<Status, Error> {
        let current = self.current;
        let Some(reader) = self.readers.get_mut(current) else {
            return self.take_least();
        };
        let status = reader.advance();
        if let Ok(Status::Ready) = status {
            let head = self.head(current);
            return Ok(self.go_on(head));
        }
        self.current = NOBODY;
        match status? {
            Status::Pending => {
                self.waiting.push(current);
                Ok(Status::Pending)
            }
            _ => self.take_least(),
        }
    }

    /// Goes to the next message that is in the range.
    #[inline]
    fn advance_sliced(&mut self) -> Result<Status, Error> {
        loop {
            // What is planned is in the range.
            let planned = !self.plan.is_empty();
            let status = self.advance_any()?;
            if planned || status != Status::Ready {
                return Ok(status);
            }
            if self.range.to_ns.is_some_and(|to| self.last_ns >= to) {
                // Everything from here on is of the slices after this one.
                self.current = NOBODY;
                self.heap.clear();
                self.waiting.clear();
                return Ok(Status::End);
            }
            if self.in_range() {
                return Ok(Status::Ready);
            }
        }
    }

    /// Whether the current message is in the range.
    fn in_range(&self) -> bool {
        let Some(message) = self.current() else {
            return true;
        };
        let SliceRange { from_ns, to_ns } = self.range;
        match message {
            Message::StreamBegin(_) => from_ns.is_none(),
            Message::StreamEnd(_) => to_ns.is_none(),
            _ => {
                let ns = message.clock().and_then(|clock| clock.ns).unwrap_or(self.last_ns);
                from_ns.is_none_or(|from| ns >= from) && to_ns.is_none_or(|to| ns < to)
            }
        }
    }
}

impl<P: PacketSource> Messages for Muxer<P> {
    #[inline(always)]
    fn advance(&mut self) -> Result<Status, Error> {
        if self.sliced { self.advance_sliced() } else { self.advance_any() }
    }

    #[inline(always)]
    fn current(&self) -> Option<Message<'_>> {
        self.readers.get(self.current)?.current()
    }

    fn seek(&mut self, ns: i64) -> Result<bool, Error> {
        if self.readers.iter().any(|reader| reader.stream().class.clock.is_none()) {
            return Ok(false);
        }
        for reader in &mut self.readers {
            if !reader.seek(ns)? {
                return Ok(false);
            }
        }
        self.plan.forget();
        self.heap.clear();
        self.current = NOBODY;
        self.last_ns = i64::MIN;
        self.waiting = (0..self.readers.len()).rev().collect();
        Ok(true)
    }

    fn skip_packet(&mut self) -> bool {
        self.land();
        self.readers.get_mut(self.current).is_some_and(StreamReader::skip_packet)
    }

    fn give_runs(&mut self, range: SliceRange, to: &mut dyn TakesRuns) -> Result<usize, Error> {
        self.give_known(range, to)
    }

    fn take_warnings(&mut self) -> Vec<Warning> {
        self.readers.iter_mut().flat_map(StreamReader::take_warnings).collect()
    }
}
