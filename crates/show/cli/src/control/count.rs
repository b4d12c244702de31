//! How many events a trace holds: `record` says it at its end, and about how many while it runs.
//!
//! The consumer never looks inside a packet, so nobody knows the number while recording. Our reader
//! decodes a stream at about a hundred million events a second; a trace that takes it longer than its
//! patience is not counted to the end, and the answer says so.

use sillage_ctf::Message;
use sillage_pipeline::sinks::{Drained, Sink, drain};
use sillage_pipeline::{Error, sources};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long counting may keep the user waiting.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a look at a growing trace may take, each time.
const MOMENT: Duration = Duration::from_millis(10);

/// The number of events, or of those that were counted in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// All of them.
    Exactly(u64),
    /// There are more than these.
    MoreThan(u64),
}

impl std::fmt::Display for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Events::Exactly(count) => write!(f, "{count} events"),
            Events::MoreThan(count) => write!(f, "more than {count} events"),
        }
    }
}

#[derive(Default)]
struct Count {
    events: u64,
    packets: u64,
}

impl Sink for Count {
    #[inline]
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        match message {
            Message::Event(_) => self.events += 1,
            Message::PacketEnd(_) => self.packets += 1,
            _ => {}
        }
        Ok(())
    }
}

/// Counts until the end or the deadline. None: there is no trace, or it cannot be read.
fn count(dir: &Path, deadline: Instant) -> Option<(Count, Drained)> {
    let source = sources::open(dir).ok()?;
    let mut count = Count::default();
    for (_, mut messages) in source.messages_by_stream() {
        // The order between streams does not matter here.
        let ended = drain(&mut messages, &mut count, |_| Instant::now() < deadline).ok()?;
        if ended != Drained::End {
            return Some((count, ended));
        }
    }
    Some((count, Drained::End))
}

/// About how many events there are in the first `packets` packets of traces that are being written:
/// as many in each as in those that can be counted in a moment.
pub fn about(dir: &Path, packets: u64) -> Option<u64> {
    let (count, _) = count(dir, Instant::now() + MOMENT)?;
    let events = u128::from(count.events) * u128::from(packets) / u128::from(count.packets.max(1));
    u64::try_from(events).ok()
}

/// Counts the events of the traces under `dir`. None: there is no trace, or it cannot be read.
pub fn events(dir: &Path) -> Option<Events> {
    Some(match count(dir, Instant::now() + PATIENCE)? {
        (count, Drained::End) => Events::Exactly(count.events),
        (count, _) => Events::MoreThan(count.events),
    })
}
