//! `convert`, `cut`, `merge`: traces to traces and to other formats.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use sillage_pipeline::Error;
use sillage_pipeline::ctf::model::CtfVersion;
use sillage_pipeline::sinks::ctf::{CtfOptions, CtfSink};
use sillage_pipeline::sinks::{Csv, JsonLines, Output, Perfetto, Sink, pretty};

use super::input::{Input, Opened, pump};
use super::progress::{Goes, Progress};
use super::threads::{self, write_text};
use super::{Outcome, say};
use crate::complaint::warn;

/// `convert TRACE... -o OUTPUT`
#[derive(Args, Debug)]
pub struct ConvertArguments {
    #[command(flatten)]
    input: Input,
    /// Directory (CTF) or file to write; its ending tells the format: .json, .csv, .pftrace, .txt
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Format to write, when the ending does not tell it
    #[arg(long, value_enum)]
    to: Option<Format>,
    /// Columns of CSV: names of fields, as `a.b`
    #[arg(long, value_name = "FIELD,...", value_delimiter = ',')]
    columns: Vec<String>,
}

/// `cut TRACE... -o DIRECTORY`
#[derive(Args, Debug)]
pub struct CutArguments {
    #[command(flatten)]
    input: Input,
    /// Directory to write the trace to
    #[arg(short, long, value_name = "DIRECTORY")]
    output: PathBuf,
    /// Write CTF 2 instead of CTF 1.8
    #[arg(long)]
    ctf_2: bool,
}

/// `merge TRACE... -o DIRECTORY`
#[derive(Args, Debug)]
pub struct MergeArguments {
    #[command(flatten)]
    input: Input,
    /// Directory to write the traces to
    #[arg(short, long, value_name = "DIRECTORY")]
    output: PathBuf,
    /// Write CTF 2 instead of CTF 1.8
    #[arg(long)]
    ctf_2: bool,
}

/// Formats of `convert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// CTF 1.8
    #[value(name = "ctf-1.8", alias = "ctf")]
    Ctf1,
    /// CTF 2
    #[value(name = "ctf-2")]
    Ctf2,
    /// JSON lines
    Json,
    /// Comma-separated values
    Csv,
    /// Perfetto's protobuf
    Perfetto,
    /// A line of text per event
    Text,
}

impl Format {
    fn of_path(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()? {
            "json" | "jsonl" | "ndjson" => Self::Json,
            "csv" => Self::Csv,
            "pftrace" | "perfetto" | "perfetto-trace" => Self::Perfetto,
            "txt" | "log" => Self::Text,
            _ => return None,
        })
    }
}

/// Runs `convert`.
///
/// # Errors
/// What can not be opened or written.
pub fn convert(arguments: &ConvertArguments) -> Result<Outcome> {
    let ConvertArguments { input, output: path, .. } = arguments;
    let format = arguments.to.or_else(|| Format::of_path(path)).unwrap_or(Format::Ctf1);
    if !arguments.columns.is_empty() && format != Format::Csv {
        bail!("--columns is for CSV");
    }
    match format {
        Format::Ctf1 => return write_ctf(input, path, CtfVersion::V1_8),
        Format::Ctf2 => return write_ctf(input, path, CtfVersion::V2),
        _ => {}
    }
    // Pipes and devices may be there before.
    if path.is_file() {
        bail!("{} exists: remove it, or give another name", path.display());
    }
    let opened = input.selection.open(&input.paths)?;
    if format == Format::Text
        && let Some(slices) = threads::slices(&opened, input.selection.threads())?
    {
        let file = std::fs::File::create(path).map_err(|error| Error::io(path, error));
        let file = file.context("can not write")?;
        let mut progress = Progress::new(opened.source.as_ref(), Goes::Files);
        let name = path.to_string_lossy();
        return write_text(&slices, &opened, &text_options(input), (Box::new(file), &name), &mut progress);
    }
    let output = Output::create(path).context("can not write")?;
    let sink: Box<dyn Sink> = match format {
        Format::Json => Box::new(JsonLines::new(output)),
        Format::Csv => Box::new(Csv::new(arguments.columns.clone(), output)),
        Format::Perfetto => Box::new(Perfetto::new(output)),
        Format::Ctf1 | Format::Ctf2 | Format::Text => {
            Box::new(pretty::Pretty::new(text_options(input), output, Box::new(std::io::stderr())))
        }
    };
    write(opened, sink)
}

fn text_options(input: &Input) -> pretty::Options {
    let clock = pretty::ClockFormat::TimeOfDay { zone: input.selection.zone(), with_date: true };
    pretty::Options { clock, ..pretty::Options::default() }
}

/// Runs `cut`.
///
/// # Errors
/// Nothing to cut by, what can not be opened or written.
pub fn cut(arguments: &CutArguments) -> Result<Outcome> {
    if !arguments.input.selection.is_part() {
        bail!("nothing says what to cut: give --begin, --end, --filter or --stream-intersection");
    }
    write_ctf(&arguments.input, &arguments.output, version(arguments.ctf_2))
}

/// Runs `merge`.
///
/// # Errors
/// What can not be opened or written.
pub fn merge(arguments: &MergeArguments) -> Result<Outcome> {
    write_ctf(&arguments.input, &arguments.output, version(arguments.ctf_2))
}

fn version(ctf_2: bool) -> CtfVersion {
    if ctf_2 { CtfVersion::V2 } else { CtfVersion::V1_8 }
}

fn write(mut opened: Opened, mut sink: Box<dyn Sink>) -> Result<Outcome> {
    let mut progress = Progress::new(opened.source.as_ref(), Goes::Files);
    pump(&mut opened, &mut *sink, &mut progress)
}

/// Writes what is asked for below a directory and prints the directories of the traces.
fn write_ctf(input: &Input, path: &Path, version: CtfVersion) -> Result<Outcome> {
    let occupied = path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if occupied || path.is_file() {
        let path = path.display();
        bail!("{path} exists: give a directory that is new or empty, so that nothing is mixed up");
    }
    let mut opened = input.selection.open(&input.paths)?;
    std::fs::create_dir_all(path).with_context(|| format!("can not write to {}", path.display()))?;
    let mut sink = CtfSink::new(CtfOptions { version, ..CtfOptions::new(path) });
    let mut progress = Progress::new(opened.source.as_ref(), Goes::Files);
    let outcome = match threads::copy(&opened, &mut sink, input.selection.threads(), &mut progress)? {
        Some(outcome) => outcome,
        None => pump(&mut opened, &mut sink, &mut progress)?,
    };
    warn(&sink.take_warnings());
    let created = sink.take_created();
    if created.is_empty() {
        eprintln!("warning: no stream is in what was asked for: nothing was written");
    }
    for trace in created {
        say(&format!("{}\n", trace.display()))?;
    }
    Ok(outcome)
}
