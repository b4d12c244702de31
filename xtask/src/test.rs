//! `cargo xtask test`: formatting, lints, the release build that the end-to-end tests use, all
//! tests, the ring's loom model. What CI runs.

use crate::build::{self, Built, cargo, target_dir};
use crate::setup;
use std::process::Command;
use std::time::Instant;

/// The library is a `no_std` program part with its own panic handler: no test harness fits it.
const WITHOUT_HARNESS: &str = "sillage-tracer-user-abi";

/// Runs everything; `full` adds the long runs.
pub fn run(full: bool) -> anyhow::Result<()> {
    setup::need(setup::TEST)?;
    if full {
        setup::need(setup::FULL)?;
    }
    let started = Instant::now();
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    let built = timed("release build", build::release)?;
    step(
        "lints",
        &mut cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--exclude",
            WITHOUT_HARNESS,
            "--all-targets",
            "--",
            "-Dwarnings",
        ]),
    )?;
    step(
        "lints of the library",
        &mut cargo(&["clippy", "--quiet", "--release", "-p", WITHOUT_HARNESS, "--", "-Dwarnings"]),
    )?;
    let mut tests = cargo(&["test", "--workspace", "--exclude", WITHOUT_HARNESS]);
    if let Some(commands) = setup::analyses(&target_dir()) {
        tests.env("SILLAGE_ANALYSES", commands);
    }
    step("tests", with_long_runs(with_built(&mut tests, &built), full))?;
    let mut model = cargo(&["test", "--release", "-p", "sillage-ring", "--lib"]);
    model.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target_dir().join("loom"));
    step("loom model of the ring", with_long_runs(&mut model, full))?;
    println!("everything passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Tells the end-to-end tests what to try.
fn with_built<'a>(command: &'a mut Command, built: &Built) -> &'a mut Command {
    command.env("SILLAGE_BIN", &built.sillage).env("SILLAGE_UST_LIB", &built.ust_library)
}

fn with_long_runs(command: &mut Command, full: bool) -> &mut Command {
    if full {
        command.env("SILLAGE_FULL", "1").env("SILLAGE_KILLS", "20000");
    }
    command
}

fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    timed(name, || build::run(command))
}

fn timed<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    println!("== {name}");
    let started = Instant::now();
    let result = work()?;
    println!("== {name}: {:.0} s", started.elapsed().as_secs_f64());
    Ok(result)
}
