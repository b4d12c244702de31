//! The events of one stream as batches of columns, for those who want speed.
//!
//! A [`ColumnReader`] goes through one stream, packet by packet, and gives the events some hundred
//! at a time: their times in one slice, their fields read out column by column. Streams are not
//! merged, so each can be read on a thread of its own; whoever needs the order of all events sorts
//! by time or uses [`Messages`](crate::Messages). Losses are told with the batch that they precede.

use sillage_ctf::Columns;
use sillage_ctf::model::Stream;

use super::packets::PacketSource;
use super::stream::StreamReader;
use crate::Error;

/// Reads one stream in batches; see [`Source::columns`](super::Source::columns).
#[derive(Debug)]
pub struct ColumnReader<P> {
    reader: StreamReader<P>,
}

/// Some events of one stream, in their order in the packet.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// Time of each row in nanoseconds from the origin; empty when the stream has no clock.
    pub times_ns: &'a [i64],
    /// All else that is known of the rows.
    pub columns: Columns<'a>,
    /// Events that the tracer lost since the batch before, as far as it says how many.
    pub lost_events: u64,
    /// Packets that the tracer lost since the batch before.
    pub lost_packets: u64,
}

impl<P: PacketSource> ColumnReader<P> {
    pub(super) fn new(reader: StreamReader<P>) -> Self {
        Self { reader }
    }

    /// The stream.
    pub fn stream(&self) -> &Stream {
        self.reader.stream()
    }

    /// The next batch, never an empty one; `None` at the end.
    ///
    /// # Errors
    /// A packet or event that can not be read; what was before it has been given. The stream is at
    /// its end then.
    pub fn next_batch(&mut self) -> Result<Option<Batch<'_>>, Error> {
        let Some((lost_events, lost_packets)) = self.reader.advance_batch()? else {
            return Ok(None);
        };
        Ok(Some(Batch {
            stream: self.reader.stream(),
            times_ns: self.reader.times_at_hand(),
            columns: self.reader.columns(),
            lost_events,
            lost_packets,
        }))
    }
}
