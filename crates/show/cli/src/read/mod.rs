//! The verbs that read traces: `view`, `convert`, `cut`, `merge`, `stats`, `index`.
//!
//! For people: what is missing is said with the next step to take, long work shows its progress on
//! a terminal, nothing that exists is overwritten. The command line of Babeltrace 2 is beside this,
//! in `babeltrace2`.

mod convert;
mod first;
mod index;
mod input;
mod live;
mod progress;
mod stats;
mod threads;
mod view;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::complaint;
use crate::control::General;

/// The verbs.
#[derive(Subcommand)]
pub enum Verb {
    /// Show a trace: of a session, in a directory, or live.
    View(view::Arguments),
    /// Write traces in another format.
    Convert(convert::ConvertArguments),
    /// Write a part of traces, by time or by a filter, as a trace.
    Cut(convert::CutArguments),
    /// Write several traces into one directory.
    Merge(convert::MergeArguments),
    /// Show what a trace holds: events by name, rates, sizes, losses.
    Stats(stats::Arguments),
    /// Write LTTng's index files of a trace anew.
    Index(index::Arguments),
}

/// Whether a command line, perhaps a wrong one, is about one of them: then it is told what is wrong
/// with it in our words rather than in LTTng's.
pub fn is_verb(arguments: &[OsString]) -> bool {
    let Some(verb) = arguments.iter().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-")) else {
        return false;
    };
    verb.to_str().is_some_and(Verb::has_subcommand)
}

/// Runs a verb. `general` is what was said in front of it.
pub fn run(general: &General, verb: &Verb) -> ExitCode {
    let result = match verb {
        Verb::View(arguments) => view::run(general, arguments),
        Verb::Convert(arguments) => convert::convert(arguments),
        Verb::Cut(arguments) => convert::cut(arguments),
        Verb::Merge(arguments) => convert::merge(arguments),
        Verb::Stats(arguments) => stats::run(arguments),
        Verb::Index(arguments) => index::run(arguments),
    };
    match result {
        Ok(Outcome::Whole) => ExitCode::SUCCESS,
        Ok(Outcome::Partial) => ExitCode::FAILURE,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether all could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Whole,
    /// Something was wrong, was told, and the rest was done.
    Partial,
}

/// Says what is wrong and what to do about it; nothing when whoever read the output has gone.
fn tell(error: &anyhow::Error) {
    if complaint::is_broken_pipe(error) {
        return;
    }
    eprintln!("error: {}", complaint::in_words(error));
    if let Some(step) = input::next_step(error) {
        eprintln!("{step}");
    }
}

/// Prints text on standard output.
///
/// # Errors
/// Standard output can not be written to; `println!` would panic.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("standard output")
}
