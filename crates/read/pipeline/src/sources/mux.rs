//! Many streams as one sequence of messages in the order of time.
//!
//! The next message is the one with the least time; at equal times the stream with the least rank,
//! which Babeltrace's rules give (identity of the trace, its name, stream class id, stream id).
//! Messages without a time come as soon as their stream reaches them. The merge goes in runs: it
//! takes from one stream until another one's head is due. Times that go back within a stream are
//! passed on as they are.

use sillage_ctf::{Message, Warning};

use super::packets::PacketSource;
use super::stream::StreamReader;
use crate::Error;
use crate::messages::{Messages, Status};

/// Merges stream readers; the readers' order is their rank.
#[derive(Debug)]
pub struct Muxer<P> {
    readers: Vec<StreamReader<P>>,
    /// Binary heap of the heads of all streams but the current one, least first.
    heap: Vec<Head>,
    /// The stream whose message is the current one.
    current: Option<usize>,
    /// Streams that have to be advanced before there can be a next message.
    waiting: Vec<usize>,
    /// Time of the last message given: that of messages which have none.
    last_ns: i64,
    /// The head of the heap, which ends the run.
    limit: Head,
    range: SliceRange,
}

/// Half-open range of times whose messages are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SliceRange {
    /// First nanosecond; none is the beginning of all.
    pub from_ns: Option<i64>,
    /// First nanosecond that is not in it; none is the end of all.
    pub to_ns: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    ns: i64,
    reader: usize,
}

const NEVER: Head = Head { ns: i64::MAX, reader: usize::MAX };

impl<P: PacketSource> Muxer<P> {
    /// Merges these streams.
    pub fn new(readers: Vec<StreamReader<P>>) -> Self {
        Self {
            heap: Vec::with_capacity(readers.len()),
            current: None,
            waiting: (0..readers.len()).rev().collect(),
            last_ns: i64::MIN,
            limit: NEVER,
            readers,
            range: SliceRange::default(),
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
        Ok(muxer)
    }

    /// Adds a stream (live). It ranks last.
    pub fn add(&mut self, reader: StreamReader<P>) {
        self.waiting.push(self.readers.len());
        self.readers.push(reader);
    }

    /// The readers, in the order of their rank.
    pub fn readers_mut(&mut self) -> impl Iterator<Item = &mut StreamReader<P>> {
        self.readers.iter_mut()
    }

    /// Advances the streams that must be, until all have a head.
    fn settle(&mut self) -> Result<Status, Error> {
        let mut still = Vec::new();
        while let Some(index) = self.waiting.pop() {
            match self.readers[index].advance() {
                Ok(Status::Ready) => self.push(index),
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

    fn push(&mut self, reader: usize) {
        let head = self.head(reader);
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
            self.sift_down();
        }
        Some(least)
    }

    #[inline]
    fn sift_down(&mut self) {
        let mut at = 0;
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.heap[child] < self.heap[least] {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
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
        self.current = Some(head.reader);
        self.last_ns = head.ns;
        self.limit = self.heap.first().copied().unwrap_or(NEVER);
        Status::Ready
    }

    #[inline]
    fn advance_any(&mut self) -> Result<Status, Error> {
        let Some(current) = self.current else {
            return self.take_least();
        };
        match self.readers[current].advance() {
            Ok(Status::Ready) => {
                let head = self.head(current);
                if head <= self.limit {
                    self.last_ns = head.ns;
                    return Ok(Status::Ready);
                }
                // The run is over: the streams change places.
                self.heap[0] = head;
                let least = self.limit;
                self.sift_down();
                Ok(self.stand_on(least))
            }
            Ok(Status::Pending) => {
                self.current = None;
                self.waiting.push(current);
                Ok(Status::Pending)
            }
            Ok(Status::End) => {
                self.current = None;
                self.take_least()
            }
            Err(error) => {
                self.current = None;
                Err(error)
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
    #[inline]
    fn advance(&mut self) -> Result<Status, Error> {
        if self.range == SliceRange::default() {
            return self.advance_any();
        }
        loop {
            let status = self.advance_any()?;
            if status != Status::Ready {
                return Ok(status);
            }
            if self.range.to_ns.is_some_and(|to| self.last_ns >= to) {
                // Everything from here on is of the slices after this one.
                self.current = None;
                self.heap.clear();
                self.waiting.clear();
                return Ok(Status::End);
            }
            if self.in_range() {
                return Ok(Status::Ready);
            }
        }
    }

    #[inline]
    fn current(&self) -> Option<Message<'_>> {
        self.readers[self.current?].current()
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
        self.heap.clear();
        self.current = None;
        self.last_ns = i64::MIN;
        self.waiting = (0..self.readers.len()).rev().collect();
        Ok(true)
    }

    fn skip_packet(&mut self) -> bool {
        match self.current {
            Some(current) => self.readers[current].skip_packet(),
            None => false,
        }
    }

    fn take_warnings(&mut self) -> Vec<Warning> {
        Vec::new()
    }
}
