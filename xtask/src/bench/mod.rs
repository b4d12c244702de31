//! `cargo xtask bench [NAME]`: measurements, never tests. Each one shows the machine's floor first,
//! then the peer and us in turn in the same run, medians and ratio, and writes its section of
//! `benches/RESULTS.md`.

mod report;
mod ring;

use crate::build;
use clap::ValueEnum;

/// The benchmarks.
#[derive(Clone, Copy, ValueEnum)]
pub enum Name {
    /// What one record costs in the ring, beside the clock's floor; the clock page's error
    Ring,
}

/// Runs one benchmark, or all.
pub fn run(name: Option<Name>) -> anyhow::Result<()> {
    build::release()?;
    for name in name.map_or_else(|| Name::value_variants().to_vec(), |n| vec![n]) {
        match name {
            Name::Ring => ring::run_benchmark()?,
        }
    }
    Ok(())
}
