//! What the reading verbs have in common: opening, ranges of time, filters, telling what is wrong.

use std::io::ErrorKind;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use sillage_pipeline::ctf::{MetadataError, MetadataOptions};
use sillage_pipeline::filters::{Bound, Matcher, Trimmer, intersect};
use sillage_pipeline::sinks::{Drained, Sink, Zone, drain};
use sillage_pipeline::sources::live::{Live, Seek};
use sillage_pipeline::sources::{FilePackets, Muxer, Options, Source, open_all};
use sillage_pipeline::{Error, Messages};

use super::Outcome;
use super::first::First;
use super::live::{self, is_address};
use super::progress::Progress;
use crate::complaint::warn;

/// Traces and what to read of them.
#[derive(Args, Debug)]
pub struct Input {
    /// Directories with traces in them or below them, or the URL of a live session
    #[arg(value_name = "TRACE", required = true)]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub selection: Selection,
}

/// What to read of traces.
#[derive(Args, Debug)]
pub struct Selection {
    /// Begin of the time to read: `YYYY-MM-DD HH:MM[:SS[.N]]`, `HH:MM[:SS[.N]]` or `SECONDS[.N]`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub begin: Option<String>,
    /// End of the time to read; it is read too
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub end: Option<String>,
    /// Only events that match, e.g. `$event.name == "sched_*" && prev_tid > 0`
    #[arg(short, long, value_name = "EXPRESSION")]
    pub filter: Option<String>,
    /// Only the time in which all streams of a trace were active
    #[arg(long)]
    pub stream_intersection: bool,
    /// Times are in UTC, those that are given too
    #[arg(long, visible_alias = "clock-gmt")]
    pub utc: bool,
    /// Seconds to add to the times of the traces
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_hyphen_values = true)]
    pub clock_offset: i64,
    /// Take all clocks to count from the Unix epoch, so that any can be put in one order
    #[arg(long)]
    pub clock_force_correlate: bool,
    /// Refuse metadata that is not exactly as the specification says
    #[arg(long)]
    pub strict: bool,
    /// Threads to read with; without it, one on each processor. What comes out is the same
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<NonZero<usize>>,
    /// Of a live session, also what the relay has from before now
    #[arg(long)]
    pub from_start: bool,
}

/// An opened input.
pub struct Opened {
    /// The traces of files; none for a live session.
    pub source: Option<Source>,
    pub messages: AnyMessages,
    /// What the messages are of the source.
    pub parts: Parts,
}

/// Which part of a source is asked for.
pub struct Parts {
    pub begin: Option<Bound>,
    pub end: Option<Bound>,
    pub zone: Zone,
    pub filter: Option<sillage_filter::Expression>,
    pub intersection: bool,
    /// Only so many events.
    pub is_limited: bool,
}

impl Parts {
    /// Whether nothing is left out.
    pub fn is_everything(&self) -> bool {
        let has_range = self.begin.is_some() || self.end.is_some() || self.intersection;
        !has_range && self.filter.is_none() && !self.is_limited
    }
}

/// The messages, the usual kinds by themselves so that the loop over them is compiled for them.
pub enum AnyMessages {
    Files(Box<Muxer<FilePackets>>),
    Any(Box<dyn Messages>),
}

impl Selection {
    /// Whether it is less than everything.
    pub fn is_part(&self) -> bool {
        self.begin.is_some() || self.end.is_some() || self.filter.is_some() || self.stream_intersection
    }

    /// The zone of times.
    pub fn zone(&self) -> Zone {
        if self.utc { Zone::Utc } else { Zone::local() }
    }

    /// How many threads to read with.
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(super::threads::default_count, NonZero::get)
    }

    /// Opens the traces at these paths, or the live session at this URL, and puts the filters behind
    /// them.
    ///
    /// # Errors
    /// No trace, bad metadata, a bad time or filter.
    pub fn open(&self, places: &[PathBuf]) -> Result<Opened> {
        let filter = match &self.filter {
            Some(text) => Some(
                sillage_filter::parse(text)
                    .map_err(|error| anyhow::anyhow!("--filter: {}", error.with_source(text)))?,
            ),
            None => None,
        };
        let zone = self.zone();
        let bound = |text: &Option<String>, what: &'static str| match text {
            Some(text) => Bound::parse(text, &zone).map(Some).context(what),
            None => Ok(None),
        };
        let (begin, end) = (bound(&self.begin, "--begin")?, bound(&self.end, "--end")?);
        let is_trimmed = begin.is_some() || end.is_some();
        let parts = Parts {
            begin,
            end,
            zone: zone.clone(),
            filter: filter.clone(),
            intersection: self.stream_intersection,
            is_limited: false,
        };
        if let Some(live) = self.open_live(places)? {
            let messages = if is_trimmed {
                AnyMessages::Any(Box::new(Trimmer::new(live, begin, end, zone)?))
            } else {
                AnyMessages::Any(Box::new(live))
            };
            return Ok(Opened { source: None, messages: matching(messages, filter), parts });
        }
        let source = open_all(places, &Options { metadata: self.metadata_options(), ..Options::default() })?;
        warn(source.warnings());
        let messages = match (self.stream_intersection, is_trimmed) {
            (false, false) => AnyMessages::Files(Box::new(source.messages())),
            (false, true) => AnyMessages::Any(Box::new(Trimmer::new(source.messages(), begin, end, zone)?)),
            (true, false) => AnyMessages::Any(Box::new(intersect(&source)?)),
            (true, true) => AnyMessages::Any(Box::new(Trimmer::new(intersect(&source)?, begin, end, zone)?)),
        };
        Ok(Opened { source: Some(source), messages: matching(messages, filter), parts })
    }

    fn metadata_options(&self) -> MetadataOptions {
        MetadataOptions {
            lenient: !self.strict,
            clock_offset_s: self.clock_offset,
            force_unix_epoch: self.clock_force_correlate,
            ..MetadataOptions::default()
        }
    }

    /// The live session, if that is what is asked for.
    fn open_live(&self, places: &[PathBuf]) -> Result<Option<Live>> {
        let address = |place: &PathBuf| place.to_str().filter(|text| is_address(text)).map(str::to_owned);
        let Some(url) = places.iter().find_map(address) else {
            return Ok(None);
        };
        if places.len() > 1 {
            bail!("{url} is live: it can only be read alone");
        }
        if self.stream_intersection {
            bail!("{url} is live: when all of its streams are active is not known before its end");
        }
        let seek = if self.from_start { Seek::Beginning } else { Seek::Last };
        live::open(&url, seek, self.metadata_options()).map(Some)
    }
}

impl Opened {
    /// Leaves out what comes after so many events.
    pub fn limited(self, count: u64) -> Self {
        let messages: Box<dyn Messages> = match self.messages {
            AnyMessages::Files(messages) => Box::new(First::new(messages, count)),
            AnyMessages::Any(messages) => Box::new(First::new(messages, count)),
        };
        let parts = Parts { is_limited: true, ..self.parts };
        Self { messages: AnyMessages::Any(messages), parts, ..self }
    }
}

fn matching(messages: AnyMessages, filter: Option<sillage_filter::Expression>) -> AnyMessages {
    match (messages, filter) {
        (messages, None) => messages,
        (AnyMessages::Files(messages), Some(filter)) => {
            AnyMessages::Any(Box::new(Matcher::new(*messages, filter)))
        }
        (AnyMessages::Any(messages), Some(filter)) => {
            AnyMessages::Any(Box::new(Matcher::new(messages, filter)))
        }
    }
}

/// Tells of a stream that can not be read on.
pub fn tell_fault(error: &Error) {
    eprintln!("error: {error}");
    if let Error::Metadata { source, .. } = error
        && let Some(place) = place_in_text(source)
    {
        eprintln!("{place}");
    }
}

/// The line of metadata that is wrong, and a caret under the place, if it has one.
fn place_in_text(error: &MetadataError) -> Option<String> {
    Some(error.with_source().split_once('\n')?.1.to_owned())
}

/// Gives a sink all messages. Streams that can not be read on are told, and the others go on.
///
/// # Errors
/// The sink's.
pub fn pump(
    opened: &mut Opened,
    sink: &mut (impl Sink + ?Sized),
    progress: &mut Progress,
) -> Result<Outcome> {
    match &mut opened.messages {
        AnyMessages::Files(messages) => pump_messages(&mut **messages, sink, progress),
        AnyMessages::Any(messages) => pump_messages(&mut **messages, sink, progress),
    }
}

/// How long to wait for more of a live session.
const RETRY: std::time::Duration = std::time::Duration::from_millis(100);

fn pump_messages<M, S>(messages: &mut M, sink: &mut S, progress: &mut Progress) -> Result<Outcome>
where
    M: Messages + ?Sized,
    S: Sink + ?Sized,
{
    let mut outcome = Outcome::Whole;
    loop {
        let drained = drain(messages, sink, |messages| {
            progress.at(|| messages.current().and_then(|message| message.clock()).and_then(|clock| clock.ns));
            true
        });
        let warnings = messages.take_warnings();
        if !warnings.is_empty() {
            progress.aside(|| warn(&warnings));
        }
        match drained {
            Ok(Drained::End | Drained::Stopped) => {
                progress.finish();
                return Ok(outcome);
            }
            Ok(Drained::Pending) => std::thread::sleep(RETRY),
            // The stream is closed; the others can be read on.
            Err(error @ (Error::Decode { .. } | Error::Metadata { .. })) => {
                progress.aside(|| tell_fault(&error));
                outcome = Outcome::Partial;
            }
            Err(error) => {
                progress.finish();
                bail!(error);
            }
        }
    }
}

/// What to do about an error, in words.
pub fn next_step(error: &anyhow::Error) -> Option<String> {
    match error.downcast_ref::<Error>()? {
        Error::NoTrace(path) => Some(if path.is_file() {
            "A trace is a directory: give the one that holds the file `metadata`.".into()
        } else {
            "Give a directory that holds a file `metadata`, or one above it.".into()
        }),
        Error::Io { path, source } => match source.kind() {
            ErrorKind::NotFound => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                Some(format!("Is the path right? `ls {}` shows what is there.", parent.display()))
            }
            ErrorKind::NotADirectory => {
                Some("A trace is a directory: give the one that holds the file `metadata`.".into())
            }
            ErrorKind::PermissionDenied => {
                let path = path.display();
                Some(format!("Ask its owner for the right to read {path}, or read it as that user."))
            }
            _ => None,
        },
        Error::Metadata { source, .. } => place_in_text(source),
        _ => None,
    }
}
