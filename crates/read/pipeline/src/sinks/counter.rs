//! Counts of messages by kind: Babeltrace's `sink.utils.counter`.

use sillage_ctf::Message;

use super::{Output, Sink};
use crate::{Error, Run, TakesRuns};

/// Names of the counted kinds, in the order in which they are shown.
const KINDS: [&str; 8] = [
    "Event message",
    "Stream beginning message",
    "Stream end message",
    "Packet beginning message",
    "Packet end message",
    "Discarded event message",
    "Discarded packet message",
    "Message iterator inactivity message",
];

/// Counts messages and shows the counts from time to time and at the end.
#[derive(Debug)]
pub struct Counter {
    output: Output,
    counts: [u64; 8],
    total: u64,
    /// Messages between two shows; 0 is only at the end.
    step: u64,
    hide_zero: bool,
    next_show: u64,
    shown_at: Option<u64>,
}

impl Counter {
    /// A counter that shows its counts every `step` messages (0: only at the end), with or without
    /// the kinds that did not occur.
    pub fn new(step: u64, hide_zero: bool, output: Output) -> Self {
        Self { output, counts: [0; 8], total: 0, step, hide_zero, next_show: step, shown_at: None }
    }

    /// Counts messages of a kind, no more than there is room for.
    #[inline]
    fn count(&mut self, kind: usize, count: u64) -> Result<(), Error> {
        self.counts[kind] += count;
        self.total += count;
        if self.total == self.next_show {
            self.next_show += self.step;
            self.show();
            self.output.flush()?;
        }
        Ok(())
    }

    #[cold]
    fn show(&mut self) {
        if self.shown_at == Some(self.total) {
            return;
        }
        let mut text = String::new();
        if self.shown_at.is_some() {
            text.push('\n');
        }
        for (count, kind) in self.counts.iter().zip(KINDS) {
            if *count > 0 || !self.hide_zero {
                let plural = if *count == 1 { "" } else { "s" };
                text.push_str(&format!("{count:>15} {kind}{plural}\n"));
            }
        }
        let plural = if self.total == 1 { "" } else { "s" };
        text.push_str(&format!("{:>15} message{plural} (TOTAL)\n", self.total));
        self.output.bytes.extend_from_slice(text.as_bytes());
        self.shown_at = Some(self.total);
    }
}

impl Sink for Counter {
    #[inline]
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        let kind = match message {
            Message::Event(_) => 0,
            Message::StreamBegin(_) => 1,
            Message::StreamEnd(_) => 2,
            Message::PacketBegin(_) => 3,
            Message::PacketEnd(_) => 4,
            Message::DiscardedEvents(_) => 5,
            Message::DiscardedPackets(_) => 6,
            Message::Inactivity(_) => 7,
        };
        self.count(kind, 1)
    }

    fn as_runs(&mut self) -> Option<&mut dyn TakesRuns> {
        Some(self)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.output.flush()
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.show();
        self.output.flush()
    }
}

impl TakesRuns for Counter {
    /// Up to the next show, so that this comes at its message.
    fn room(&self) -> usize {
        match self.step {
            0 => usize::MAX,
            _ => usize::try_from(self.next_show.saturating_sub(self.total)).unwrap_or(usize::MAX),
        }
    }

    fn run(&mut self, run: &Run<'_>) -> Result<usize, Error> {
        self.count(0, run.columns.len() as u64)?;
        Ok(run.columns.len())
    }
}
