//! The one interface between sources, filters and sinks.
//!
//! A [`Messages`] stands on one message at a time: `advance` goes to the next, `current` looks at
//! it as often as one likes. A filter can so hold its source still while it hands on messages of
//! its own. Implementations never block unless they say so, and never lose a message by an error:
//! after an `Err` the failed stream is closed, and the next `advance` goes on with the others.

use sillage_ctf::model::Stream;
use sillage_ctf::{Columns, Event, Message};

use crate::sources::SliceRange;
use crate::{Error, Warning};

/// What `advance` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is a message: see [`Messages::current`].
    Ready,
    /// Nothing for now, perhaps later (live).
    Pending,
    /// There will be no more.
    End,
}

/// Events of one stream that follow one another in one packet.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// Time of each event in nanoseconds from the origin.
    pub times_ns: &'a [i64],
    /// All else that is known of them.
    pub columns: Columns<'a>,
}

/// Takes events in runs: for those that do not ask how the events of several streams interleave.
pub trait TakesRuns {
    /// How many events may come before this is asked again; 0: only messages now.
    fn room(&self) -> usize;

    /// Takes a run, never an empty one, or as much of its beginning as this likes: gives how many
    /// events it took. The others come as messages, or again.
    ///
    /// # Errors
    /// As [`Sink::message`](crate::sinks::Sink::message).
    fn run(&mut self, run: &Run<'_>) -> Result<usize, Error>;
}

/// A sequence of messages in the order of time.
pub trait Messages {
    /// Goes to the next message.
    ///
    /// # Errors
    /// A stream that can not be read on. It is closed; calling again goes on without it.
    fn advance(&mut self) -> Result<Status, Error>;

    /// The message stood on, after `advance` said [`Status::Ready`]; `None` before that and at the
    /// end.
    fn current(&self) -> Option<Message<'_>>;

    /// Starts again near a time: streams begin again, then come the packets that are open at `ns`
    /// (nanoseconds from the origin), whose begin may lie before it, and events and losses from
    /// `ns` on; those before are left out. False if this sequence can not seek; then nothing
    /// changed.
    ///
    /// # Errors
    /// As `advance`.
    fn seek(&mut self, ns: i64) -> Result<bool, Error> {
        let _ = ns;
        Ok(false)
    }

    /// Leaves out the rest of the events of the packet stood on, so that its `PacketEnd` comes
    /// next (of its stream). For sinks that take packets as a whole. False if this sequence can
    /// not.
    fn skip_packet(&mut self) -> bool {
        false
    }

    /// Gives the events that come next, as far as they are known and no other message comes between
    /// them, stream by stream to whoever needs no more order than that; only events that lie in
    /// `range`, and only if all of them find room. Then the last of those that were taken is the
    /// message stood on. Gives their number; 0 says nothing of what comes next.
    ///
    /// # Errors
    /// What `to` says.
    fn give_runs(&mut self, range: SliceRange, to: &mut dyn TakesRuns) -> Result<usize, Error> {
        let _ = (range, to);
        Ok(0)
    }

    /// Warnings since the last call.
    fn take_warnings(&mut self) -> Vec<Warning> {
        Vec::new()
    }

    /// [`advance`](Self::advance) and [`current`](Self::current) in one; `None` at the end and
    /// when there is nothing for now.
    ///
    /// # Errors
    /// As `advance`.
    fn next_message(&mut self) -> Result<Option<Message<'_>>, Error> {
        match self.advance()? {
            Status::Ready => Ok(self.current()),
            Status::Pending | Status::End => Ok(None),
        }
    }

    /// The next event, passing over all other messages; `None` as for
    /// [`next_message`](Self::next_message).
    ///
    /// # Errors
    /// As `advance`.
    fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        while self.advance()? == Status::Ready {
            if matches!(self.current(), Some(Message::Event(_))) {
                return Ok(match self.current() {
                    Some(Message::Event(event)) => Some(event),
                    _ => None,
                });
            }
        }
        Ok(None)
    }
}

impl<M: Messages + ?Sized> Messages for Box<M> {
    #[inline]
    fn advance(&mut self) -> Result<Status, Error> {
        (**self).advance()
    }
    #[inline]
    fn current(&self) -> Option<Message<'_>> {
        (**self).current()
    }
    fn seek(&mut self, ns: i64) -> Result<bool, Error> {
        (**self).seek(ns)
    }
    fn skip_packet(&mut self) -> bool {
        (**self).skip_packet()
    }
    fn give_runs(&mut self, range: SliceRange, to: &mut dyn TakesRuns) -> Result<usize, Error> {
        (**self).give_runs(range, to)
    }
    fn take_warnings(&mut self) -> Vec<Warning> {
        (**self).take_warnings()
    }
}
