//! `view`: shows traces, of a session, at a place or live.
//!
//! Its options begin with LTTng's (`-t`, `-e`), so that scripts go on; the rest is ours.

use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use sillage_pipeline::Error;
use sillage_pipeline::sinks::{Counter, Csv, JsonLines, Output, Sink, details, pretty};

use super::Outcome;
use super::input::{Selection, pump};
use super::progress::{Goes, Progress};
use super::threads::{slices, write_text};
use crate::control::{General, place_of_trace};

/// `view [SESSION | TRACE...]`
#[derive(Args, Debug)]
pub struct Arguments {
    /// Name of a session (without one, the current one), directories with traces in them or below
    /// them, or the URL of a live session, `net://HOST[:PORT]/host/NAME/SESSION`
    #[arg(value_name = "SESSION | TRACE")]
    traces: Vec<String>,
    /// Show the trace in this directory
    #[arg(short, long, value_name = "DIR", conflicts_with = "traces")]
    trace_path: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// Show it with this program, which is given the directory; other options are not for it
    #[arg(short = 'e', long, value_name = "READER")]
    viewer: Option<String>,
    /// In what form
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Colours
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    color: Color,
    /// Show the date
    #[arg(long)]
    date: bool,
    /// Show times as seconds from the origin
    #[arg(long)]
    seconds: bool,
    /// Show times as values of the clock
    #[arg(long)]
    cycles: bool,
    /// Do not show the time since the event before
    #[arg(long)]
    no_delta: bool,
    /// Show no names of fields
    #[arg(long)]
    no_names: bool,
    /// Show what an event is of: trace, domain, log level, all names
    #[arg(long)]
    all: bool,
    /// Columns of CSV: names of fields, as `a.b`
    #[arg(long, value_name = "FIELD,...", value_delimiter = ',')]
    columns: Vec<String>,
    /// Stop after so many events
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<u64>,
}

/// Forms of `view`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A line per event
    Text,
    /// Everything, metadata included
    Details,
    /// JSON lines
    Json,
    /// Comma-separated values
    Csv,
    /// Only numbers of messages
    Count,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    Never,
    Auto,
    Always,
}

/// Runs the verb.
///
/// # Errors
/// What can not be opened or written.
pub fn run(general: &General, arguments: &Arguments) -> Result<Outcome> {
    let Some(places) = arguments.places(general) else {
        return Ok(Outcome::Partial);
    };
    if let Some(viewer) = &arguments.viewer {
        return Err(run_viewer(viewer, &places));
    }
    if !arguments.columns.is_empty() && arguments.format != Form::Csv {
        bail!("--columns is for --format csv");
    }
    let mut opened = arguments.selection.open(&places)?;
    if let Some(limit) = arguments.limit {
        opened = opened.limited(limit);
    }
    let goes = if arguments.output.is_some() { Goes::Files } else { Goes::Stdout };
    let mut progress = Progress::new(opened.source.as_ref(), goes);
    if let Some(path) = arguments.output.as_ref().filter(|path| path.is_file()) {
        bail!("{} exists: remove it, or give another name", path.display());
    }
    if arguments.format == Form::Text
        && let Some(slices) = slices(&opened, arguments.selection.threads())?
    {
        let options = arguments.text_options(arguments.is_colored());
        let (name, output) = arguments.writer()?;
        return write_text(&slices, &opened, &options, (output, &name), &mut progress);
    }
    let output = match &arguments.output {
        Some(path) => Output::create(path).context("can not write")?,
        None => Output::stdout(),
    };
    match arguments.sink(output) {
        AnySink::Text(mut sink) => pump(&mut opened, &mut *sink, &mut progress),
        AnySink::Other(mut sink) => pump(&mut opened, &mut *sink, &mut progress),
    }
}

/// Becomes another reader; returns only when that can not be.
fn run_viewer(viewer: &str, places: &[PathBuf]) -> anyhow::Error {
    let mut words = viewer.split_whitespace();
    let Some(reader) = words.next() else {
        return anyhow!("--viewer names no program");
    };
    let failed = Command::new(reader).args(words).args(places).exec();
    anyhow!(failed).context(reader.to_owned())
}

/// The sinks that are worth a loop of their own, and the others.
enum AnySink {
    Text(Box<pretty::Pretty>),
    Other(Box<dyn Sink>),
}

impl Arguments {
    /// Where the traces are; `None` after it was said why there are none.
    fn places(&self, general: &General) -> Option<Vec<PathBuf>> {
        match (&self.trace_path, self.traces.as_slice()) {
            (Some(path), _) => Some(vec![path.clone()]),
            (None, []) => Some(vec![place_of_trace(general, None)?]),
            (None, traces) => traces.iter().map(|trace| place_of_trace(general, Some(trace))).collect(),
        }
    }

    fn is_colored(&self) -> bool {
        match self.color {
            Color::Never => false,
            Color::Always => true,
            Color::Auto => {
                self.output.is_none()
                    && std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }

    /// Where the text goes, and its name in errors.
    fn writer(&self) -> Result<(String, Box<dyn Write + Send>)> {
        let Some(path) = &self.output else {
            return Ok(("standard output".into(), Box::new(std::io::stdout())));
        };
        let file = std::fs::File::create(path).map_err(|error| Error::io(path, error));
        Ok((path.to_string_lossy().into_owned(), Box::new(file.context("can not write")?)))
    }

    fn sink(&self, output: Output) -> AnySink {
        let color = self.is_colored();
        AnySink::Other(match self.format {
            Form::Text => {
                let notes = Box::new(std::io::stderr());
                return AnySink::Text(Box::new(pretty::Pretty::new(self.text_options(color), output, notes)));
            }
            Form::Details => Box::new(details::Details::new(
                details::Options { color, ..details::Options::default() },
                output,
            )),
            Form::Json => Box::new(JsonLines::new(output)),
            Form::Csv => Box::new(Csv::new(self.columns.clone(), output)),
            Form::Count => Box::new(Counter::new(0, true, output)),
        })
    }

    fn text_options(&self, color: bool) -> pretty::Options {
        let clock = if self.cycles {
            pretty::ClockFormat::Cycles
        } else if self.seconds {
            pretty::ClockFormat::Seconds
        } else {
            pretty::ClockFormat::TimeOfDay { zone: self.selection.zone(), with_date: self.date }
        };
        let mut options =
            pretty::Options { clock, color, delta: !self.no_delta, ..pretty::Options::default() };
        if self.no_names {
            options.names.payload = false;
            options.names.context = false;
        }
        if self.all {
            options.names.scope = true;
            options.names.header = true;
            options.headings.trace = true;
            options.headings.domain = true;
            options.headings.log_level = true;
            options.headings.emf_uri = true;
        }
        options
    }
}
