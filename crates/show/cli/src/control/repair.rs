//! `repair`: traces whose daemon was killed or whose machine went down, made whole for every reader.
//!
//! ```text
//! sillage repair ~/lttng-traces/auto-20261121-063059
//! ```
//! Says for each file what was cut off, and changes nothing in a trace that is whole. A trace that
//! somebody writes is not touched: a daemon of ours holds a lock on it, and of others whoever has one of
//! its files open for writing is looked for among the processes that we may look at.

use super::{Context, ERROR, FINE, Outcome, error, totals, warning};
use clap::Args;
use sillage_session::repair::{self, Change};
use std::path::{Path, PathBuf};

/// How deep traces lie below a directory at most: archives of sessions of a day.
const DEPTH_MAX: usize = 8;

/// `repair PATH...`
#[derive(Args)]
pub struct Arguments {
    /// Directories with traces: of a session, of one trace, or of many.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Exits with 0 if every trace is whole now, with 1 if one could not be repaired or none was found.
pub fn repair(context: &Context, arguments: &Arguments) -> Outcome {
    let mut outcome = FINE;
    for path in &arguments.paths {
        outcome = outcome.max(repair_below(context, path));
    }
    outcome
}

fn repair_below(context: &Context, path: &Path) -> Outcome {
    let found = path.canonicalize().and_then(|path| {
        let mut found = Vec::new();
        find(&path, DEPTH_MAX, &mut found).map(|()| found)
    });
    let traces = match found {
        Ok(traces) if traces.is_empty() => {
            error!("{}: no trace there (no directory with a metadata file)", path.display());
            return ERROR;
        }
        Ok(traces) => traces,
        Err(error) => {
            error!("{}: {error}", path.display());
            return ERROR;
        }
    };
    let mut outcome = FINE;
    for dir in traces {
        if let Some(writer) = writer_of(&dir) {
            error!("{}: not touched, {writer} writes it", dir.display());
            outcome = ERROR;
            continue;
        }
        match repair::repair_trace(&sillage_session::repair_files(), &dir) {
            Ok(repaired) => {
                print(context, &dir, &repaired);
                if repaired.left_alone.iter().any(|path| path.ends_with("metadata")) {
                    outcome = ERROR;
                }
            }
            Err(error) => {
                error!("{}: not repaired: {error}", dir.display());
                outcome = ERROR;
            }
        }
    }
    outcome
}

/// All directories with a metadata file.
fn find(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if dir.join("metadata").is_file() {
        found.push(dir.to_owned());
        return Ok(());
    }
    let mut below: Vec<PathBuf> =
        std::fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    below.retain(|path| depth > 0 && path.is_dir() && !path.is_symlink());
    below.sort();
    below.iter().try_for_each(|path| find(path, depth - 1, found))
}

/// A process that has a file of this trace open for writing, as far as we may know.
fn writer_of(dir: &Path) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_writing = |process: &PathBuf| {
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| {
            let inside = std::fs::read_link(file.path()).is_ok_and(|target| target.starts_with(dir));
            inside && opened_for_writing(&process.join("fdinfo").join(file.file_name()))
        })
    };
    let process = processes.into_iter().find(is_writing)?;
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(format!("process {} ({})", process.file_name()?.to_string_lossy(), name.trim()))
}

fn opened_for_writing(info: &Path) -> bool {
    let text = std::fs::read_to_string(info).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    // O_ACCMODE: anything but O_RDONLY.
    flags.is_some_and(|flags| flags & 3 != 0)
}

fn print(context: &Context, dir: &Path, repaired: &repair::Repaired) {
    for path in &repaired.left_alone {
        warning!("{}: left as it is, nothing in it is understood", path.display());
    }
    for change in &repaired.changes {
        context.say(format_args!("{}: {}", change.path.display(), words(change)));
    }
    let (streams, files) = (repaired.streams, repaired.changes.len());
    let summary = match files {
        0 => "whole, nothing to repair".to_owned(),
        1 => "1 file repaired".to_owned(),
        n => format!("{n} files repaired"),
    };
    context.say(format_args!("{}: {streams} streams, {summary}", dir.display()));
}

fn words(change: &Change) -> String {
    match change.after_bytes {
        None => format!("removed, no whole packet in it ({})", totals::size(change.before_bytes)),
        Some(after) if after < change.before_bytes => {
            let cut = totals::size(change.before_bytes - after);
            format!("{cut} cut off behind the last whole part, {after} bytes are left")
        }
        Some(after) => format!("made again from the packets, {after} bytes"),
    }
}
