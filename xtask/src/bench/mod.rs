//! `cargo xtask bench [NAME]`: measurements, never tests. Each one shows the machine's floor first,
//! then the peer and us in turn in the same run, medians and ratio, and writes its section of
//! `benches/RESULTS.md`.

mod daemon;
mod flow;
mod kernel;
mod peers;
mod quiet;
mod read;
mod report;
mod ring;
mod user;

use crate::{build, setup};
use clap::ValueEnum;

/// The benchmarks.
#[derive(Clone, Copy, ValueEnum)]
pub enum Name {
    /// What one record costs in the ring, beside the clock's floor; the clock page's error
    Ring,
    /// What an event costs an unmodified program, against LTTng-UST; `tracepoint!`
    User,
    /// From two threads to files: events a second, the consumer's bytes a second
    Flow,
    /// Memory, idle CPU, control commands, program starts, against LTTng
    Daemon,
    /// What kernel events cost, against ftrace, perf and strace (as root)
    Kernel,
    /// How fast traces are read: counted, every field, as text, copied; memory; open and seek; against
    /// Babeltrace 2
    Read,
}

/// Runs one benchmark, or all.
pub fn run(name: Option<Name>) -> anyhow::Result<()> {
    setup::need(setup::TEST)?;
    let built = build::release()?;
    for name in name.map_or_else(|| Name::value_variants().to_vec(), |n| vec![n]) {
        match name {
            Name::Ring => ring::run_benchmark()?,
            Name::User => user::run_benchmark(&built)?,
            Name::Flow => flow::run_benchmark(&built)?,
            Name::Daemon => daemon::run_benchmark(&built)?,
            Name::Kernel => kernel::run_benchmark(&built)?,
            Name::Read => read::run_benchmark(&built)?,
        }
    }
    Ok(())
}
