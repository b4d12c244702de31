//! The project's own commands: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`.
//!
//! The first two do all their set-up: what they need from Debian they install when they run as
//! root, and name when they do not.

mod bench;
mod build;
mod demo;
mod setup;
mod test;
#[cfg(test)]
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tries, tests and measures Sillage")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Record programs that nobody here wrote, and show what was recorded
    Demo,
    /// Run every test (what CI runs)
    Test {
        /// Also the long kill, fuzz and soak runs
        #[arg(long)]
        full: bool,
    },
    /// Measure, against the floor and the peer in the same run
    Bench {
        /// Which benchmark; without a name, all of them
        name: Option<bench::Name>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Demo => demo::run(),
        Command::Test { full } => test::run(full),
        Command::Bench { name } => bench::run(name),
    }
}
