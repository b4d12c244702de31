//! Debian packages that the demo, the tests and the benchmarks need: installed when we are root,
//! named in one command to copy when we are not.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the demo needs: a compiler, LTTng-UST's headers and helpers, and the other reader.
pub const DEMO: &[&str] = &["gcc", "libc6-dev", "liblttng-ust-dev", "babeltrace2"];
/// What the tests need besides: the real daemons, and the tools that interrupt programs.
pub const TEST: &[&str] = &[
    "gcc",
    "g++",
    "libc6-dev",
    "liblttng-ust-dev",
    "babeltrace2",
    "lttng-tools",
    "gdb",
    "python3",
    "python3-babeltrace",
    "python3-venv",
    "zstd",
    "binutils",
];
/// What the long runs need besides: a machine for another kernel.
pub const FULL: &[&str] = &["qemu-system-x86", "cpio"];

/// Makes lttng-analyses of PyPI callable, which reads kernel traces with Debian's Babeltrace 1: the folder
/// of its commands. None, said, where it cannot be had; its test skips then.
pub fn analyses(target: &Path) -> Option<PathBuf> {
    // Its last release is older than the Pythons that dropped this name.
    const SHIM: &str = "import collections, collections.abc; collections.Mapping = collections.abc.Mapping\n";
    let home = target.join("analyses");
    let commands = home.join("bin");
    if commands.join("lttng-cputop").exists() {
        return Some(commands);
    }
    let run = |program: &Path, arguments: &[&str]| {
        Command::new(program).args(arguments).stdout(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    let made = run(Path::new("/usr/bin/python3"), &["-m", "venv", "--system-site-packages", home.to_str()?])
        && run(&commands.join("pip"), &["install", "--quiet", "lttnganalyses==0.6.1"]);
    let libraries = std::fs::read_dir(home.join("lib")).into_iter().flatten().flatten();
    for library in libraries.map(|entry| entry.path().join("site-packages")).filter(|dir| dir.exists()) {
        if let Err(error) = std::fs::write(library.join("older_python.pth"), SHIM) {
            eprintln!("lttng-analyses: {error}");
        }
    }
    if !made {
        eprintln!("lttng-analyses could not be installed: the test with it skips");
    }
    made.then_some(commands)
}

/// Sees to it that all `packages` are installed.
pub fn need(packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|p| !installed(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() {
        bail!("missing Debian packages; install them and run this again:\n    sudo apt-get install {list}");
    }
    eprintln!("installing Debian packages: {list}");
    let apt = |arguments: &[&str]| -> anyhow::Result<bool> {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .context("cannot run apt-get; install the packages by hand")?;
        Ok(status.success())
    };
    let install: Vec<&str> =
        ["install", "-y", "--no-install-recommends"].into_iter().chain(missing).collect();
    // The package lists may be new enough already: only a failure is worth fetching them.
    let done = apt(&install)? || (apt(&["update"])? && apt(&install)?);
    if !done {
        bail!("apt-get could not install: {list}");
    }
    Ok(())
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|o| o.stdout == b"installed")
}

/// True if this process may install packages.
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}
