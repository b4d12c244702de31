//! Where the project lies and what it builds: the `sillage` program and the library that programs
//! load instead of LTTng-UST.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A cargo command in the root.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs a command and fails with its words if it fails.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// What the release build leaves.
pub struct Built {
    /// The `sillage` program.
    pub sillage: PathBuf,
    /// The library behind LTTng-UST's names.
    pub ust_library: PathBuf,
}

/// Builds the program and the library, optimised.
pub fn release() -> anyhow::Result<Built> {
    run(&mut cargo(&["build", "--release", "-p", "sillage-tracer-user-abi"]))?;
    run(&mut cargo(&["build", "--release", "-p", "sillage-cli"]))?;
    let out = target_dir().join("release");
    Ok(Built { sillage: out.join("sillage"), ust_library: out.join("libsillage_ust.so") })
}
