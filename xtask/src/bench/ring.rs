//! The ring alone: what a record costs beside the clock's floor, and how true the clock page is.

use super::report::{Section, median};
use crate::build::{cargo, run, target_dir};
use anyhow::{Context, ensure};
use std::process::Command;

/// Runs of each program; the table shows the median run.
const RUNS: usize = 5;

/// Measures and keeps both sections.
pub fn run_benchmark() -> anyhow::Result<()> {
    run(&mut cargo(&["build", "--release", "-p", "sillage-ring", "--examples"]))?;
    emit_cost()?;
    clock_error()
}

fn lines(example: &str, arguments: &[&str]) -> anyhow::Result<Vec<Vec<String>>> {
    let program = target_dir().join("release/examples").join(example);
    let output = Command::new(&program).args(arguments).output().with_context(|| format!("{program:?}"))?;
    ensure!(output.status.success(), "{example} failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(|l| l.split('\t').map(String::from).collect()).collect())
}

fn emit_cost() -> anyhow::Result<()> {
    let runs = (0..RUNS).map(|_| lines("emit_cost", &[])).collect::<anyhow::Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (i, first) in runs[0].iter().enumerate() {
        let column = |c: usize| -> anyhow::Result<f64> {
            Ok(median(runs.iter().map(|r| r[i][c].parse()).collect::<Result<_, _>>()?))
        };
        rows.push(vec![
            first[0].clone(),
            format!("{:.1}", column(1)?),
            format!("{:.1}", column(2)?),
            format!("{:.1}", column(3)?),
        ]);
    }
    let mut section = Section::new("ring: one record");
    section.paragraph("ns a call in a tight loop, flight recorder of 8 × 1 MiB; medians of five runs.");
    section.table(&["case", "min", "median", "p90"], &rows);
    section.keep()
}

fn clock_error() -> anyhow::Result<()> {
    let row = lines("clock_error", &["20"])?.remove(0);
    let mut section = Section::new("clock page: error against CLOCK_MONOTONIC");
    section.paragraph("Published every 100 ms, read between publications for 20 s; ns.");
    section.table(&["readings", "median", "p99", "max"], &[row]);
    section.keep()
}
