//! `cargo xtask demo`: records programs that nobody here built for it, with the kernel beneath them, and
//! shows the result.
//!
//! The first is Debian's own `ls`, under LTTng's helpers that trace malloc and mutexes; the second
//! is a C program compiled on the spot with Debian's `<lttng/tracepoint.h>`. Neither knows Sillage. Then
//! the second again with the kernel's events beside its own, where that is permitted.

use crate::build::{self, Built, root, target_dir};
use crate::setup;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Lines of each trace that are shown.
const LINES: usize = 8;

/// Runs the demo.
pub fn run() -> anyhow::Result<()> {
    setup::need(setup::DEMO)?;
    let built = build::release()?;
    let out = target_dir().join("demo");
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out)?;
    let hello = compile(&out)?;

    println!("\n# A program of the system, under LTTng's malloc and mutex helpers");
    let helpers = "liblttng-ust-libc-wrapper.so:liblttng-ust-pthread-wrapper.so";
    let trace = out.join("ls");
    let preload = format!("LD_PRELOAD={helpers}");
    let options = ["-u", "lttng_ust_libc:*", "-u", "lttng_ust_pthread:*"];
    record(&built, &trace, &options, &["env", &preload, "ls", "/"])?;
    show(&built, &trace)?;

    println!("\n# A C program compiled just now with Debian's <lttng/tracepoint.h>");
    let trace = out.join("hello");
    record(&built, &trace, &["-u", "demo:*"], &[path(&hello)?])?;
    show(&built, &trace)?;

    println!("\n# The same program, and the kernel beneath it");
    let trace = out.join("kernel");
    let options = ["-u", "demo:*", "-k", "sched_process_*", "--syscall=openat,write"];
    match record(&built, &trace, &options, &[path(&hello)?]) {
        Ok(()) => show(&built, &trace)?,
        Err(error) => println!("Skipped, the reason stands above: {error}"),
    }
    println!("\nThe traces stay in {}", out.display());
    Ok(())
}

/// Compiles the demo's program as its users would.
fn compile(out: &Path) -> anyhow::Result<PathBuf> {
    let source = root().join("xtask/demo");
    let program = out.join("hello-traced");
    build::run(
        Command::new("cc")
            .arg("-O2")
            .arg("-I")
            .arg(&source)
            .arg(source.join("hello.c"))
            .arg("-o")
            .arg(&program)
            .args(["-llttng-ust", "-ldl"]),
    )?;
    Ok(program)
}

fn record(built: &Built, trace: &Path, options: &[&str], command: &[&str]) -> anyhow::Result<()> {
    let mut record = Command::new(&built.sillage);
    record.args(["record", "-o"]).arg(trace).args(options);
    let plain = |word: &&str| !word.contains('*');
    let shown =
        options.iter().map(|word| if plain(word) { format!("{word} ") } else { format!("'{word}' ") });
    println!("$ sillage record {}-- {}", shown.collect::<String>(), command.join(" "));
    build::run(record.arg("--").args(command))
}

/// The first lines by our reader, and the count of lines by Babeltrace, which must agree.
fn show(built: &Built, trace: &Path) -> anyhow::Result<()> {
    let text = |command: &mut Command| -> anyhow::Result<String> {
        let output = command.arg(trace).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{command:?} failed: {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let ours = text(Command::new(&built.sillage).arg("view"))?;
    println!("$ sillage view {}", trace.display());
    ours.lines().take(LINES).for_each(|line| println!("{line}"));
    let theirs = text(&mut Command::new("babeltrace2"))?;
    let (a, b) = (ours.lines().count(), theirs.lines().count());
    ensure!(a == b && a > 0, "sillage view gives {a} events, babeltrace2 {b}");
    println!("… {a} events in all; babeltrace2 reads the same {b}");
    Ok(())
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
