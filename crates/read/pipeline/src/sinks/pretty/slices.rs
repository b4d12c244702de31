//! Text by several threads, byte for byte that of one.
//!
//! The time of the traces is cut into many slices. Each worker has readers of its own, passes over
//! the slices of others without looking at fields, and formats its own; see [`turns`](super::turns)
//! for how the pieces come together. Memory is bounded by what a worker keeps until its turn.

use sillage_ctf::Message;
use sillage_filter::Expression;

use super::turns::{Next, Notes, Share, Turns};
use super::{ClockFormat, LastTimes, Options, Pretty};
use crate::filters::Matcher;
use crate::sinks::{Drained, Output, drain};
use crate::sources::{FilePackets, Muxer, SliceRange, Source};
use crate::{Error, Messages, Status, Warning};

/// Bytes of traces in a slice.
const SLICE_SIZE_BYTES: u64 = 512 << 10;
/// Slices that are passed over event by event; over more, the reader seeks.
const NEAR_SLICES: usize = 6;

/// Text of traces by several threads.
pub struct Slices<'a> {
    source: &'a Source,
    ranges: Vec<SliceRange>,
    threads: usize,
}

/// What is told while the text is written.
pub struct Watch<'a> {
    /// A stream that can not be read on, in its place in the text.
    pub fault: Box<dyn FnMut(&Error) + Send>,
    /// The time that a worker is at.
    pub at: &'a (dyn Fn(i64) + Sync),
}

impl<'a> Slices<'a> {
    /// Cuts the time of a source; `None` when it is small, when its streams can not be sought in, or
    /// when fewer than two threads are to do it: then one does it as well.
    ///
    /// # Errors
    /// A stream that can not be read.
    pub fn of(source: &'a Source, threads: usize) -> Result<Option<Self>, Error> {
        let count = usize::try_from(source.size_bytes() / SLICE_SIZE_BYTES).unwrap_or(usize::MAX);
        if threads < 2 || count < 2 * threads {
            return Ok(None);
        }
        let ranges = source.slices(count)?;
        let starts_late = ranges.get(1).and_then(|range| range.from_ns).is_some_and(|ns| ns >= 0);
        Ok((ranges.len() > 1 && starts_late).then_some(Self { source, ranges, threads }))
    }

    /// Writes the text of all events, or of those that match, to `output`, which is called `name` in
    /// errors, and what is lost to `notes`; gives the warnings.
    ///
    /// # Errors
    /// What can not be written, clocks that can not be correlated.
    pub fn write(
        &self,
        options: &Options,
        filter: Option<&Expression>,
        (output, name): (Box<dyn std::io::Write + Send>, &str),
        notes: Box<dyn std::io::Write + Send>,
        watch: Watch<'_>,
    ) -> Result<Vec<Warning>, Error> {
        let is_cycles = matches!(options.clock, ClockFormat::Cycles);
        let Watch { fault, at } = watch;
        let turns = Turns::new(self.ranges.len(), is_cycles, output, notes, fault);
        let warnings = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads)
                .map(|_| {
                    let share = turns.share();
                    scope.spawn(move || self.work(share, options, filter, name, at))
                })
                .collect();
            // A worker does not end by a panic: the program would.
            workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
        });
        match turns.take_failure() {
            Some(error) => Err(error),
            None => Ok(warnings),
        }
    }

    fn work(
        &self,
        share: Share,
        options: &Options,
        filter: Option<&Expression>,
        name: &str,
        at: &(dyn Fn(i64) + Sync),
    ) -> Vec<Warning> {
        let output = Output::new(Box::new(share.clone()), name);
        let mut pretty = Pretty::new(options.clone(), output, Box::new(Notes(share.clone())));
        pretty.share = Some(share.clone());
        let mut reader =
            Reader { muxer: self.source.messages(), held: false, begun: true, from_ns: None, to_ns: None };
        let mut passed = 0;
        let mut next = Next::Take;
        loop {
            let slice = match next {
                Next::Stop => return reader.muxer.take_warnings(),
                Next::GoOn(slice) => slice,
                Next::Take => match share.take() {
                    Some(slice) => slice,
                    None => return reader.muxer.take_warnings(),
                },
            };
            let range = self.ranges[slice];
            reader.to_ns = range.to_ns;
            reader.muxer.plan_until(range.to_ns);
            let ready = match (next, range.from_ns) {
                (Next::Take, Some(from)) => {
                    pretty.times = LastTimes::default();
                    reader.go_to(from, slice - passed > NEAR_SLICES)
                }
                _ => Ok(()),
            };
            let result = ready.and_then(|()| match filter {
                Some(filter) => {
                    let mut messages =
                        Matcher::new(Slice { reader: &mut reader, share: &share }, filter.clone());
                    write_all(&mut messages, &mut pretty, &share, at)
                }
                None => write_all(&mut Slice { reader: &mut reader, share: &share }, &mut pretty, &share, at),
            });
            reader.begin(&share);
            next = share.ends_at(result, &reader.muxer.positions(), pretty.times);
            passed = slice + 1;
        }
    }
}

/// Writes a slice to its end; the faults of its streams are told.
fn write_all<M: Messages>(
    messages: &mut M,
    pretty: &mut Pretty,
    share: &Share,
    at: &(dyn Fn(i64) + Sync),
) -> Result<(), Error> {
    loop {
        let drained = drain(messages, pretty, |messages| {
            if let Some(ns) =
                messages.current().and_then(|message| message.clock()).and_then(|clock| clock.ns)
            {
                at(ns);
            }
            true
        });
        match drained {
            Ok(Drained::End) => return Ok(()),
            Ok(Drained::Pending | Drained::Stopped) => {}
            Err(error @ (Error::Decode { .. } | Error::Metadata { .. })) => share.fault(error),
            Err(error) => return Err(error),
        }
    }
}

/// The streams, read by one worker from slice to slice.
struct Reader {
    muxer: Muxer<FilePackets>,
    /// The current message is still to be given.
    held: bool,
    /// What comes is in the slice.
    begun: bool,
    from_ns: Option<i64>,
    to_ns: Option<i64>,
}

impl Reader {
    /// Goes to where messages from this time on are near.
    fn go_to(&mut self, from: i64, far: bool) -> Result<(), Error> {
        if far && self.muxer.seek(from)? {
            self.held = false;
        } else {
            self.muxer.skip_until(Some(from));
        }
        self.begun = false;
        self.from_ns = Some(from);
        Ok(())
    }

    /// From here on, all is in the slice.
    fn begin(&mut self, share: &Share) {
        if !std::mem::replace(&mut self.begun, true) {
            self.muxer.skip_until(None);
            share.begins_at(self.muxer.positions());
        }
    }
}

/// The messages of one slice.
struct Slice<'a> {
    reader: &'a mut Reader,
    share: &'a Share,
}

impl Messages for Slice<'_> {
    #[inline]
    fn advance(&mut self) -> Result<Status, Error> {
        let reader = &mut *self.reader;
        if reader.begun && !reader.held && reader.muxer.has_plan() {
            return reader.muxer.advance();
        }
        self.advance_unplanned()
    }

    #[inline]
    fn current(&self) -> Option<Message<'_>> {
        self.reader.muxer.current()
    }
}

impl Slice<'_> {
    #[inline(never)]
    fn advance_unplanned(&mut self) -> Result<Status, Error> {
        let reader = &mut *self.reader;
        loop {
            if !std::mem::take(&mut reader.held) {
                let status = match reader.muxer.advance() {
                    // It is told in the slice that it is in.
                    Err(Error::Decode { .. } | Error::Metadata { .. }) if !reader.begun => continue,
                    status => status?,
                };
                if status != Status::Ready {
                    return Ok(status);
                }
            }
            let Some(message) = reader.muxer.current() else {
                continue;
            };
            let ns = message.clock().and_then(|clock| clock.ns);
            let is_packet = matches!(message, Message::PacketBegin(_));
            if !reader.begun {
                if ns.is_none_or(|ns| Some(ns) < reader.from_ns) {
                    if is_packet {
                        // Writes nothing, but its context is that of the events.
                        return Ok(Status::Ready);
                    }
                    continue;
                }
                reader.begin(self.share);
            }
            if let (Some(ns), Some(to)) = (ns, reader.to_ns)
                && ns >= to
            {
                reader.held = true;
                return Ok(Status::End);
            }
            return Ok(Status::Ready);
        }
    }
}

impl std::fmt::Debug for Slices<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ranges, threads, .. } = self;
        f.debug_struct("Slices").field("ranges", &ranges.len()).field("threads", threads).finish()
    }
}
