//! From programs to files: what the consumer moves for a second of CPU, and how many events two
//! threads get through end to end when nothing may be lost.

use super::peers::{Channel, Peer, compile, scratch};
use super::quiet::Quiet;
use super::report::{Section, median};
use crate::build::Built;
use anyhow::ensure;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

const BLOCKING: Channel<'_> = Channel {
    options: &["--discard", "--subbuf-size=1M", "--num-subbuf=8", "--blocking-timeout=inf"],
    flight_recorder: false,
};
/// Events of a batch of the program.
const BATCH: f64 = 20_000.0;
/// Batches of each of the two threads.
const BATCHES: f64 = 500.0;
const ROUNDS: usize = 5;

struct Run {
    events_per_us: f64,
    consumer_gb_per_s: f64,
}

/// Measures and keeps the section.
pub fn run_benchmark(built: &Built) -> anyhow::Result<()> {
    let out = scratch("flow")?;
    let program = compile("bench.c", &out)?;
    let (lttng, sillage) = (Peer::lttng()?, Peer::sillage(built)?);
    let mut quiet = Quiet::new(&program)?;
    let mut rows = Vec::new();
    for (name, what) in [("one int", "int"), ("int + 16-byte string", "int_string")] {
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (peer, runs) in [&lttng, &sillage].into_iter().zip(&mut runs) {
                runs.push(quiet.run(|| measure(peer, &program, what))?);
            }
        }
        let column = |i: usize, f: fn(&Run) -> f64| median(runs[i].iter().map(f).collect());
        rows.push(vec![
            name.to_string(),
            format!("{:.1}", column(0, |r| r.events_per_us)),
            format!("{:.1}", column(1, |r| r.events_per_us)),
            format!("{:.2}", column(0, |r| r.consumer_gb_per_s)),
            format!("{:.2}", column(1, |r| r.consumer_gb_per_s)),
        ]);
    }
    std::fs::remove_dir_all(out)?;
    let mut section = Section::new("flow: from two threads to files");
    section.paragraph(&format!(
        "Blocking mode, two threads of an unmodified C program, trace on tmpfs, until the session is stopped; \
         nothing was lost. Medians of {ROUNDS} rounds. The consumer's GB are the trace's bytes for each second of \
         the daemon's CPU. {}",
        quiet.share()
    ));
    let head = ["event", "LTTng M events/s", "Sillage M events/s", "LTTng GB/s", "Sillage GB/s"];
    section.table(&head, &rows);
    section.keep()
}

fn measure(peer: &Peer, program: &Path, what: &str) -> anyhow::Result<Run> {
    peer.start(BLOCKING, &["bench:*"])?;
    let pids = peer.daemon_pids()?;
    let before = cpu_seconds(&pids);
    let start = Instant::now();
    let batches = BATCHES.to_string();
    let status = peer
        .program(program)
        .args([what, &batches, "2"])
        .env("LTTNG_UST_ALLOW_BLOCKING", "1")
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "{}: the program failed", peer.name());
    peer.verb(&["stop", "bench"])?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds(&pids) - before;
    peer.verb(&["destroy", "bench"])?;
    // One batch more than asked: the program warms up with it.
    let events = 2.0 * (BATCHES + 1.0) * BATCH;
    let bytes = folder_bytes(&peer.trace())?;
    let least = events * if what == "int" { 10.0 } else { 26.0 };
    ensure!(bytes >= least, "{}: {bytes} bytes for {events} events", peer.name());
    std::fs::remove_dir_all(peer.trace())?;
    Ok(Run { events_per_us: events / seconds / 1e6, consumer_gb_per_s: bytes / 1e9 / cpu_seconds })
}

/// CPU seconds of these processes, threads that have ended included; in steps of 10 ms.
fn cpu_seconds(pids: &[u32]) -> f64 {
    let of = |pid: &u32| -> Option<f64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold spaces: state is field 3, utime 14, stime 15.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / 100.0)
    };
    pids.iter().filter_map(of).sum()
}

fn folder_bytes(folder: &Path) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            entry.metadata()?.len() as f64
        };
    }
    Ok(sum)
}
