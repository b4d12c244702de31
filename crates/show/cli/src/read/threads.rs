//! Reading on several threads: text in slices of time, copies and counts stream by stream.

use std::collections::HashSet;
use std::io::Write;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use sillage_pipeline::filters::{Bound, Matcher, Trimmer, intersect_streams};
use sillage_pipeline::sinks::pretty::{self, Slices};
use sillage_pipeline::sinks::streams::{self, drain_shared};
use sillage_pipeline::sinks::{Stats, ctf::CtfSink};
use sillage_pipeline::sources::{FilePackets, Muxer};
use sillage_pipeline::{Error, Messages, Warning};

use super::Outcome;
use super::input::{Opened, tell_fault};
use super::progress::Progress;
use crate::complaint::warn;

/// More threads than this gain little where one has to write.
const DEFAULT_MAX: usize = 8;

/// How many threads to use when nobody says it: one on each processor.
pub fn default_count() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(DEFAULT_MAX)
}

/// The streams of an input, each by itself.
enum Streams {
    Files(Vec<Muxer<FilePackets>>),
    Any(Vec<Box<dyn Messages + Send>>),
}

impl Opened {
    /// The streams, each by itself; `None` when they can not be told apart before they are merged: in
    /// a live session, and for times of day on a day that only the first message tells.
    fn streams(&self) -> Result<Option<Streams>> {
        let parts = &self.parts;
        let Some(source) = &self.source else {
            return Ok(None);
        };
        let dated = |bound: &Option<Bound>| bound.is_none_or(|bound| bound.known_ns().is_some());
        if !dated(&parts.begin) || !dated(&parts.end) || parts.is_limited {
            return Ok(None);
        }
        let plain = || source.messages_by_stream().into_iter().map(|(_, messages)| messages);
        if parts.is_everything() {
            return Ok(Some(Streams::Files(plain().collect())));
        }
        let boxed: Vec<Box<dyn Messages + Send>> = if parts.intersection {
            intersect_streams(source)?.into_iter().map(|messages| Box::new(messages) as _).collect()
        } else {
            plain().map(|messages| Box::new(messages) as _).collect()
        };
        let mut out: Vec<Box<dyn Messages + Send>> = Vec::with_capacity(boxed.len());
        for mut messages in boxed {
            if parts.begin.is_some() || parts.end.is_some() {
                messages = Box::new(Trimmer::new(messages, parts.begin, parts.end, parts.zone.clone())?);
            }
            if let Some(filter) = &parts.filter {
                messages = Box::new(Matcher::new(messages, filter.clone()));
            }
            out.push(messages);
        }
        Ok(Some(Streams::Any(out)))
    }
}

/// Copies the streams; `None` when they have to come in the order of time.
///
/// # Errors
/// The sink's.
pub fn copy(
    opened: &Opened,
    sink: &mut CtfSink,
    threads: usize,
    progress: &mut Progress,
) -> Result<Option<Outcome>> {
    let Some(streams) = opened.streams()? else {
        return Ok(None);
    };
    let told = Told::new(progress);
    match streams {
        Streams::Files(streams) => sink.write_streams(streams, threads, &told)?,
        Streams::Any(streams) => sink.write_streams(streams, threads, &told)?,
    }
    Ok(Some(told.outcome()))
}

/// Counts what is in the streams; `None` when they have to come in the order of time.
///
/// # Errors
/// What a source says of all of its streams.
pub fn count(opened: &Opened, threads: usize, progress: &mut Progress) -> Result<Option<(Stats, Outcome)>> {
    let Some(streams) = opened.streams()? else {
        return Ok(None);
    };
    let told = Told::new(progress);
    let counted: Vec<Stats> = match streams {
        Streams::Files(streams) => drain_shared(streams, threads, &told)?,
        Streams::Any(streams) => drain_shared(streams, threads, &told)?,
    };
    let mut all = Stats::new();
    counted.into_iter().for_each(|stats| all.add(stats));
    Ok(Some((all, told.outcome())))
}

/// How text can be made by several threads; `None` when one has to make it.
///
/// # Errors
/// A stream that can not be read.
pub fn slices(opened: &Opened, threads: usize) -> Result<Option<Slices<'_>>, Error> {
    let only_events = opened.parts.begin.is_none()
        && opened.parts.end.is_none()
        && !opened.parts.intersection
        && !opened.parts.is_limited;
    match &opened.source {
        Some(source) if only_events => Slices::of(source, threads),
        _ => Ok(None),
    }
}

/// Writes text by several threads to `output`, which is called `name` in errors.
///
/// # Errors
/// What can not be written.
pub fn write_text(
    slices: &Slices<'_>,
    opened: &Opened,
    options: &pretty::Options,
    output: (Box<dyn Write + Send>, &str),
    progress: &mut Progress,
) -> Result<Outcome> {
    let is_partial = Arc::new(AtomicBool::new(false));
    let faulty = Arc::clone(&is_partial);
    let told = Told::new(progress);
    let watch = pretty::Watch {
        fault: Box::new(move |error| {
            faulty.store(true, Ordering::Relaxed);
            tell_fault(error);
        }),
        at: &|ns| told.state().progress.at(|| Some(ns)),
    };
    let filter = opened.parts.filter.as_ref();
    let mut warnings = slices.write(options, filter, output, Box::new(std::io::stderr()), watch)?;
    // Every thread has met what is odd in the parts of the streams that it read: the first place counts.
    warnings.sort_by_key(|warning| match warning {
        Warning::Packet { place, .. } => place.packet,
        Warning::Metadata { .. } | Warning::Untold { .. } => 0,
    });
    let mut seen = HashSet::new();
    let first = |warning: &Warning| match warning {
        Warning::Packet { place, oddity } => {
            seen.insert((place.path.clone(), std::mem::discriminant(oddity)))
        }
        Warning::Metadata { .. } | Warning::Untold { .. } => true,
    };
    streams::Watch::warnings(&told, warnings.into_iter().filter(first).collect());
    told.is_partial.store(is_partial.load(Ordering::Relaxed), Ordering::Relaxed);
    Ok(told.outcome())
}

/// What the threads tell.
struct Told<'a> {
    state: Mutex<State<'a>>,
    is_partial: AtomicBool,
}

struct State<'a> {
    progress: &'a mut Progress,
    /// Times that the streams are at.
    at_ns: Vec<i64>,
    warnings: Vec<Warning>,
}

impl<'a> Told<'a> {
    fn new(progress: &'a mut Progress) -> Self {
        Self {
            state: Mutex::new(State { progress, at_ns: Vec::new(), warnings: Vec::new() }),
            is_partial: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the bar away, tells the warnings.
    fn outcome(self) -> Outcome {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.progress.finish();
        warn(&state.warnings);
        if self.is_partial.into_inner() { Outcome::Partial } else { Outcome::Whole }
    }
}

impl streams::Watch for Told<'_> {
    fn fault(&self, error: &Error) {
        self.is_partial.store(true, Ordering::Relaxed);
        self.state().progress.aside(|| tell_fault(error));
    }

    fn warnings(&self, warnings: Vec<Warning>) {
        self.state().warnings.extend(warnings);
    }

    fn at(&self, stream: usize, ns: i64) {
        let mut state = self.state();
        let Some(begin) = state.progress.begin_ns() else {
            return;
        };
        if state.at_ns.len() <= stream {
            state.at_ns.resize(stream + 1, begin);
        }
        state.at_ns[stream] = ns;
        let passed = state.at_ns.iter().map(|at| i128::from(*at) - i128::from(begin)).sum::<i128>();
        let mean = i128::from(begin) + passed / state.at_ns.len() as i128;
        state.progress.at(|| i64::try_from(mean).ok());
    }
}
