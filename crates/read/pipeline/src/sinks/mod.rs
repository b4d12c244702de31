//! Where messages end: text, counts, other formats.
//!
//! A [`Sink`] is told one message after another and keeps nothing of them. [`drain`] is the loop
//! between a sequence of messages and a sink. Sinks write through an [`Output`], which gathers a
//! mebibyte before it asks the system; they never print to the terminal by themselves.

mod number;
mod output;
mod time;

mod counter;
mod csv;
pub mod ctf;
pub mod details;
mod json;
mod perfetto;
pub mod pretty;
mod stats;
pub mod streams;

use sillage_ctf::{Discarded, Event, Message, Packet};

pub use counter::Counter;
pub use csv::Csv;
pub use json::JsonLines;
pub use output::{Output, write_all_to};
pub use perfetto::Perfetto;
pub use stats::{EventStats, Stats, StreamStats};
pub use time::{WallClock, Zone, local_time_zone};

use crate::sources::SliceRange;
use crate::{Error, Messages, Run, Status, TakesRuns};

/// Takes messages in the order of time.
pub trait Sink {
    /// Takes one message.
    ///
    /// # Errors
    /// What is written can not be written, or a message that this sink has no form for.
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error>;

    /// Whether the sink would take this packet, which begins, as a whole: then, if the source can
    /// leave out its events, [`packet`](Self::packet) is called instead of
    /// [`message`](Self::message).
    fn wants_packet(&self, packet: &Packet<'_>) -> bool {
        let _ = packet;
        false
    }

    /// Takes a whole packet that it wanted; the next message of its stream is its end.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        self.message(&Message::PacketBegin(*packet))
    }

    /// This sink as one that takes events in runs, if it does: then events may come so instead of as
    /// messages. It always does or never.
    fn as_runs(&mut self) -> Option<&mut dyn TakesRuns> {
        None
    }

    /// Brings out what was taken so far: nothing comes for now (live).
    ///
    /// # Errors
    /// As [`message`](Self::message).
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// There are no more messages: brings out everything.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    fn finish(&mut self) -> Result<(), Error> {
        self.flush()
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    #[inline]
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        (**self).message(message)
    }
    fn wants_packet(&self, packet: &Packet<'_>) -> bool {
        (**self).wants_packet(packet)
    }
    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        (**self).packet(packet)
    }
    fn as_runs(&mut self) -> Option<&mut dyn TakesRuns> {
        (**self).as_runs()
    }
    fn flush(&mut self) -> Result<(), Error> {
        (**self).flush()
    }
    fn finish(&mut self) -> Result<(), Error> {
        (**self).finish()
    }
}

/// What writes one record for each event and each loss.
trait Records {
    fn output(&mut self) -> &mut Output;
    fn event(&mut self, event: &Event<'_>);
    /// `what` are `events` or `packets`.
    fn lost(&mut self, loss: &Discarded<'_>, what: &str);

    /// Takes any message, and writes if enough was gathered.
    fn take(&mut self, message: &Message<'_>) -> Result<(), Error> {
        match message {
            Message::Event(event) => self.event(event),
            Message::DiscardedEvents(loss) => self.lost(loss, "events"),
            Message::DiscardedPackets(loss) => self.lost(loss, "packets"),
            _ => return Ok(()),
        }
        self.output().settle()
    }
}

/// Takes everything and does nothing: Babeltrace's `sink.utils.dummy`.
#[derive(Debug, Default, Clone, Copy)]
pub struct Dummy;

impl Sink for Dummy {
    #[inline]
    fn message(&mut self, _: &Message<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn as_runs(&mut self) -> Option<&mut dyn TakesRuns> {
        Some(self)
    }
}

impl TakesRuns for Dummy {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn run(&mut self, run: &Run<'_>) -> Result<usize, Error> {
        Ok(run.columns.len())
    }
}

/// How a [`drain`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All messages were taken; the sink is finished.
    End,
    /// Nothing comes for now (live): call again later.
    Pending,
    /// The caller asked to stop.
    Stopped,
}

/// Messages between two questions whether to stop.
const MESSAGES_PER_CHECK: usize = 4096;

/// Gives the sink all messages that there are. `go_on` is asked every few thousand messages; false
/// stops between two messages. The sink is flushed before this returns, also with an error.
///
/// # Errors
/// The first error of the source or the sink. After one of the source, calling again goes on with
/// the streams that are left (see [`Messages::advance`]).
pub fn drain<M, S>(source: &mut M, sink: &mut S, mut go_on: impl FnMut(&M) -> bool) -> Result<Drained, Error>
where
    M: Messages + ?Sized,
    S: Sink + ?Sized,
{
    let mut left = MESSAGES_PER_CHECK;
    let in_runs = sink.as_runs().is_some();
    loop {
        match source.advance() {
            Ok(Status::Ready) => match source.current() {
                Some(Message::PacketBegin(packet)) => {
                    let wanted = sink.wants_packet(&packet);
                    begin_packet(source, sink, wanted)?;
                }
                Some(message) => sink.message(&message)?,
                None => {}
            },
            Ok(Status::Pending) => {
                sink.flush()?;
                return Ok(Drained::Pending);
            }
            Ok(Status::End) => {
                sink.finish()?;
                return Ok(Drained::End);
            }
            Err(error) => {
                sink.flush()?;
                return Err(error);
            }
        }
        let taken = match sink.as_runs().filter(|_| in_runs) {
            Some(runs) => source.give_runs(SliceRange::default(), runs)?,
            None => 0,
        };
        left = left.saturating_sub(taken.saturating_add(1));
        if left == 0 {
            left = MESSAGES_PER_CHECK;
            if !go_on(source) {
                sink.flush()?;
                return Ok(Drained::Stopped);
            }
        }
    }
}

/// Gives the sink the packet that begins: as a whole when it wants that and the source can.
fn begin_packet<M, S>(source: &mut M, sink: &mut S, wanted: bool) -> Result<(), Error>
where
    M: Messages + ?Sized,
    S: Sink + ?Sized,
{
    let whole = wanted && source.skip_packet();
    match source.current() {
        Some(Message::PacketBegin(packet)) if whole => sink.packet(&packet),
        Some(message) => sink.message(&message),
        None => Ok(()),
    }
}
