//! `sillage`: one program to record, move and read traces.
//!
//! The first argument chooses the work: verbs that control recording are in `control`, verbs that
//! read traces are in `read`. Called by the name of a program that it replaces (`babeltrace2`,
//! `lttng`, `lttng-sessiond`), it speaks that program's command line. `manual` writes the man pages.
//! This file only dispatches.

// First: its macros are for all the others.
#[macro_use]
mod terminal;

mod babeltrace2;
mod complaint;
mod control;
mod interrupt;
mod manual;
mod read;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Record, move and read traces of programs and of the kernel.
#[derive(Parser)]
#[command(name = "sillage", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "`sillage babeltrace2 ...` speaks the command line of Babeltrace 2.")]
struct Sillage {
    #[command(flatten)]
    general: control::General,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    #[command(flatten)]
    Control(control::Verb),
    #[command(flatten)]
    Read(read::Verb),
    /// Write man pages and shell completions (for packages).
    Manual(manual::Arguments),
}

fn main() -> ExitCode {
    terminal::outcome(run())
}

fn run() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let name = arguments.first().map(|path| std::path::Path::new(path).file_name().unwrap_or_default());
    if name.is_some_and(|name| name == "lttng-sessiond") {
        return control::sessiond(&arguments);
    }
    if name.is_some_and(|name| name == "babeltrace2") {
        return babeltrace2::run(&arguments[1..]);
    }
    if arguments.get(1).is_some_and(|verb| verb == "babeltrace2") {
        return babeltrace2::run(&arguments[2..]);
    }
    match Sillage::try_parse_from(&arguments) {
        Ok(Sillage { general, verb: Verb::Control(verb) }) => control::run(&general, verb),
        Ok(Sillage { general, verb: Verb::Read(verb) }) => read::run(&general, &verb),
        Ok(Sillage { verb: Verb::Manual(arguments), .. }) => manual::write(&arguments),
        Err(error) if read::is_verb(&arguments) => error.exit(),
        Err(error) => control::usage(&arguments, &error),
    }
}
