//! What the daemon costs: memory, idle CPU, control commands, and what our library adds to a
//! program's start; each beside LTTng's.

use super::peers::{Channel, Peer, compile, scratch};
use super::quiet::Quiet;
use super::report::{Section, median};
use crate::build::{Built, run};
use anyhow::Context;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHANNEL: Channel<'_> = Channel { options: &[], flight_recorder: false };
/// Program starts of each kind.
const STARTS: usize = 60;
/// How long the idle daemon is watched.
const IDLE: Duration = Duration::from_secs(10);

/// Measures and keeps the section.
pub fn run_benchmark(built: &Built) -> anyhow::Result<()> {
    let out = scratch("daemon")?;
    let traced = compile("bench.c", &out)?;
    let plain = compile_plain(&out)?;
    let (lttng, sillage) = (Peer::lttng()?, Peer::sillage(built)?);
    sillage.verb(&["create", "warm"])?;
    sillage.verb(&["destroy", "warm"])?;
    let mut quiet = Quiet::new(&traced)?;
    let mut rows = Vec::new();
    let mut row = |name: &str, theirs: f64, ours: f64, unit: &str| {
        rows.push(vec![name.to_string(), format!("{theirs:.2} {unit}"), format!("{ours:.2} {unit}")]);
    };
    let (theirs, ours) = quiet.run(|| starts(&[&lttng, &sillage], &plain, &traced))?;
    row("added to a program's start, daemon without session", theirs, ours, "ms");
    for peer in [&lttng, &sillage] {
        peer.start(CHANNEL, &["bench:*"])?;
    }
    let (theirs, ours) = quiet.run(|| starts(&[&lttng, &sillage], &plain, &traced))?;
    row("added to a program's start, with a session", theirs, ours, "ms");
    row(
        "resident memory, one session (without shared memory)",
        memory_mb(&lttng)?,
        memory_mb(&sillage)?,
        "MB",
    );
    let (theirs, ours) = (idle_cpu(&lttng)?, idle_cpu(&sillage)?);
    row("CPU with an active session and no events", theirs, ours, "%");
    for peer in [&lttng, &sillage] {
        peer.finish()?;
    }
    for verb in [
        &["list"][..],
        &["create", "x", "-o"],
        &["enable-event", "-u", "a:*", "-s", "x"],
        &["start", "x"],
        &["stop", "x"],
        &["destroy", "x"],
    ] {
        let (theirs, ours) = quiet.run(|| Ok((control_ms(&lttng, verb)?, control_ms(&sillage, verb)?)))?;
        row(&format!("`{}`", verb[0]), theirs, ours, "ms");
    }
    drop((lttng, sillage));
    let ours = quiet.run(|| without_daemon(built, &plain, &traced))?;
    rows.push(vec!["added to a program's start, no daemon".into(), "–".into(), format!("{ours:.2} ms")]);
    std::fs::remove_dir_all(out)?;
    let mut section = Section::new("daemon: what it costs");
    section.paragraph(&format!(
        "Medians; starts are of a program with five tracepoints against the same program without. {}",
        quiet.share()
    ));
    section.table(&["what", "LTTng", "Sillage"], &rows);
    section.keep()
}

/// The same work without tracepoints: prints its usage and ends.
fn compile_plain(out: &Path) -> anyhow::Result<std::path::PathBuf> {
    let source = out.join("plain.c");
    std::fs::write(
        &source,
        "#include <stdio.h>\nint main(void) { fprintf(stderr, \"usage\\n\"); return 2; }\n",
    )?;
    let program = out.join("plain");
    run(Command::new("cc").arg("-O2").arg(&source).arg("-o").arg(&program))?;
    Ok(program)
}

fn start_ms(mut command: Command) -> anyhow::Result<f64> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    command.status()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds that each peer adds to a start, the three programs in turn.
fn starts(peers: &[&Peer; 2], plain: &Path, traced: &Path) -> anyhow::Result<(f64, f64)> {
    let mut added = [Vec::new(), Vec::new()];
    for _ in 0..STARTS {
        let base = start_ms(Command::new(plain))?;
        for (peer, added) in peers.iter().zip(&mut added) {
            added.push(start_ms(peer.program(traced))? - base);
        }
    }
    let [theirs, ours] = added;
    Ok((median(theirs), median(ours)))
}

fn without_daemon(built: &Built, plain: &Path, traced: &Path) -> anyhow::Result<f64> {
    let peer = Peer::sillage(built)?;
    let mut added = Vec::new();
    for _ in 0..STARTS {
        let base = start_ms(Command::new(plain))?;
        added.push(start_ms(peer.program(traced))? - base);
    }
    Ok(median(added))
}

/// Resident memory of all its processes, shared memory (the rings) left out.
fn memory_mb(peer: &Peer) -> anyhow::Result<f64> {
    let mut kb = 0.0;
    for pid in peer.daemon_pids()? {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        for field in ["RssAnon:", "RssFile:"] {
            let line = status.lines().find_map(|l| l.strip_prefix(field)).context("memory of the daemon")?;
            kb += line.trim().trim_end_matches(" kB").parse::<f64>()?;
        }
    }
    Ok(kb / 1024.0)
}

/// Share of one CPU that its processes used over a while, in percent.
fn idle_cpu(peer: &Peer) -> anyhow::Result<f64> {
    let used = || -> anyhow::Result<f64> { Ok(cpu_ns(&peer.daemon_pids()?)) };
    let before = used()?;
    std::thread::sleep(IDLE);
    Ok((used()? - before) / IDLE.as_nanos() as f64 * 100.0)
}

/// CPU nanoseconds of the threads that these processes have now; fine enough for an idle daemon.
fn cpu_ns(pids: &[u32]) -> f64 {
    let mut sum = 0.0;
    for pid in pids {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            sum += text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    sum
}

/// Milliseconds of one control command, the median of several in the state it needs.
fn control_ms(peer: &Peer, verb: &[&str]) -> anyhow::Result<f64> {
    let trace = peer.trace();
    let trace = trace.to_str().context("a path that is not UTF-8")?;
    let steps: [&[&str]; 5] = [
        &["create", "x", "-o", trace],
        &["enable-event", "-u", "a:*", "-s", "x"],
        &["start", "x"],
        &["stop", "x"],
        &["destroy", "x"],
    ];
    let mut times = Vec::new();
    for _ in 0..15 {
        if verb[0] == "list" {
            let start = Instant::now();
            peer.verb(verb)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            continue;
        }
        let _ = std::fs::remove_dir_all(trace);
        for step in steps {
            let start = Instant::now();
            peer.verb(step)?;
            if step[0] == verb[0] {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(median(times))
}
