//! Man pages and shell completions, made from the same definition that parses the command line.

use clap::{Args, CommandFactory, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// `manual DIR`
#[derive(Args)]
pub struct Arguments {
    /// Write the man pages and completions into this directory, which is made.
    dir: PathBuf,
}

/// Writes one man page for the program and each verb, and a completion file for each shell.
pub fn write(arguments: &Arguments) -> ExitCode {
    match try_write(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: cannot write to {}: {error}", arguments.dir.display());
            ExitCode::FAILURE
        }
    }
}

fn try_write(arguments: &Arguments) -> std::io::Result<()> {
    std::fs::create_dir_all(&arguments.dir)?;
    clap_mangen::generate_to(crate::Sillage::command(), &arguments.dir)?;
    for shell in clap_complete::Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut crate::Sillage::command(), "sillage", &arguments.dir)?;
    }
    Ok(())
}
