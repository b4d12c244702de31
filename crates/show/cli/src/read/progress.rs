//! How far reading is, on a terminal, when it takes long.
//!
//! The place in the time of the trace is what is shown. Nothing is drawn in the first second, nor
//! when standard error is no terminal, nor when text goes to the same terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sillage_pipeline::sources::Source;

/// Work that is done sooner needs no bar.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// Parts of the bar.
const PARTS: u64 = 1000;

/// A bar, if it is wanted.
pub struct Progress {
    /// Begin and end of the trace, while the bar may still be shown.
    range_ns: Option<(i64, i64)>,
    started: Instant,
    bar: Option<ProgressBar>,
}

/// Where the result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// To standard output.
    Stdout,
    /// To files.
    Files,
}

impl Progress {
    /// A bar over the time of these traces.
    pub fn new(source: Option<&Source>, result: Goes) -> Self {
        let visible =
            std::io::stderr().is_terminal() && (result == Goes::Files || !std::io::stdout().is_terminal());
        let range_ns = source.filter(|_| visible).and_then(|source| {
            let ranges = source.stream_ranges().ok()?;
            let begin = ranges.iter().filter_map(|range| range.ns).map(|(begin, _)| begin).min()?;
            let end = ranges.iter().filter_map(|range| range.ns).map(|(_, end)| end).max()?;
            (end > begin).then_some((begin, end))
        });
        Self { range_ns, started: Instant::now(), bar: None }
    }

    /// Begin of the time, while the bar may still be shown.
    pub fn begin_ns(&self) -> Option<i64> {
        self.range_ns.map(|(begin, _)| begin)
    }

    /// Tells where reading is.
    pub fn at(&mut self, ns: impl FnOnce() -> Option<i64>) {
        let Some((begin, end)) = self.range_ns else {
            return;
        };
        if self.bar.is_none() && self.started.elapsed() < QUIET_TIME {
            return;
        }
        let Some(ns) = ns() else {
            return;
        };
        let done = i128::from(ns.clamp(begin, end)) - i128::from(begin);
        let parts = done * i128::from(PARTS) / (i128::from(end) - i128::from(begin));
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(PARTS), ProgressDrawTarget::stderr())
                .with_elapsed(self.started.elapsed());
            let style = ProgressStyle::with_template("{wide_bar} {percent}%  {elapsed} of about {duration}");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        bar.set_position(u64::try_from(parts).unwrap_or(0));
    }

    /// Lets something be printed without the bar in its way.
    pub fn aside(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        self.range_ns = None;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
