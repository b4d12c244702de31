//! How many events a finished trace holds: `record` says it at its end.
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
struct Count(u64);

impl Sink for Count {
    #[inline]
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        self.0 += u64::from(matches!(message, Message::Event(_)));
        Ok(())
    }
}

/// Counts the events of the traces under `dir`. None: there is no trace, or it cannot be read.
pub fn events(dir: &Path) -> Option<Events> {
    let deadline = Instant::now() + PATIENCE;
    let source = sources::open(dir).ok()?;
    let mut count = Count::default();
    for (_, mut messages) in source.messages_by_stream() {
        // The order between streams does not matter here.
        let ended = drain(&mut messages, &mut count, |_| Instant::now() < deadline).ok()?;
        if ended != Drained::End {
            return Some(Events::MoreThan(count.0));
        }
    }
    Some(Events::Exactly(count.0))
}
