//! How fast traces are read: counted, as text, copied; two threads; kernel traces with every field;
//! memory, also of 400 streams; how soon a trace of 10 GB can be looked at. Debian's Babeltrace 2 in the same run.
//!
//! The large trace is recorded here with Debian's LTTng-UST and kept in the target directory between
//! runs. The kernel traces are short ones of the real tracer whose packets are repeated, later each
//! time; so is that of 10 GB, which is deleted in the end. All but that one are read from tmpfs.

use super::peers::{Channel, Peer, compile, scratch};
use super::quiet::Quiet;
use super::report::{Section, median};
use crate::build::{Built, cargo, root, run, target_dir};
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHANNEL: Channel<'_> = Channel {
    options: &["--discard", "--subbuf-size=4M", "--num-subbuf=4", "--blocking-timeout=inf"],
    flight_recorder: false,
};
/// Batches of 20,000 events of each of two programs; one more warms up.
const BATCHES: &str = "499";
const EVENTS: f64 = 20e6;
const ROUNDS: usize = 3;
/// Runs of ours in a round: they are short, and a neighbour of the machine slows some of them.
const OURS: usize = 3;
/// Copies that make 10 GB of the large trace.
const LONG_COPIES: &str = "52";

/// Traces to read.
struct Traces {
    ust: PathBuf,
    busy: PathBuf,
    threads: PathBuf,
    /// One of the kernel's with eight streams, fifty times side by side.
    streams: PathBuf,
}

/// One row: what is done with which trace, by whom.
struct Case<'a> {
    name: &'static str,
    events: f64,
    theirs: Option<Vec<&'a str>>,
    ours: Run<'a>,
    /// The figure that was asked for, in millions of events a second.
    wanted: Option<f64>,
}

/// What of ours runs.
enum Run<'a> {
    /// The `sillage` program, as Babeltrace 2.
    Program(Vec<&'a str>),
    /// The `sillage` program.
    Verb(Vec<&'a str>),
    /// An example of the pipeline.
    Example(&'a str, Vec<&'a str>),
}

/// Seconds and peak RssAnon in MB of one run.
type Cost = (f64, f64);

/// Measures and keeps the section.
pub fn run_benchmark(built: &Built) -> anyhow::Result<()> {
    run(&mut cargo(&["build", "--release", "-p", "sillage-pipeline", "--examples"]))?;
    let out = scratch("read")?;
    let result = measure_all(built, &out);
    std::fs::remove_dir_all(&out)?;
    result
}

fn measure_all(built: &Built, out: &Path) -> anyhow::Result<()> {
    let traces = make_traces(out)?;
    let floor = figures(&["floor", text(&traces.ust)?])?;
    let copies = out.join("copies");
    let target = text(&copies)?;
    let (busy_events, threads_events) = (count(&traces.busy)?, count(&traces.threads)?);
    let (ust, busy, threads) = (text(&traces.ust)?, text(&traces.busy)?, text(&traces.threads)?);
    let (streams, streams_events) = (text(&traces.streams)?, count(&traces.streams)?);
    let to_ctf = vec![ust, "--output-format=ctf", "--output", target];
    let dummy = |path| vec![path, "--output-format=dummy"];
    let counter = vec![ust, "--component=sink.utils.counter", "--params=step=+0"];
    let case = |name, events, theirs, ours, wanted| Case { name, events, theirs, ours, wanted };
    let cases = [
        case("20 M events: count", EVENTS, Some(counter.clone()), Run::Program(counter), Some(50.0)),
        case(
            "20 M events: every field",
            EVENTS,
            Some(dummy(ust)),
            Run::Example("iterate", vec!["--fields", ust]),
            None,
        ),
        case(
            "20 M events: every field, two threads",
            EVENTS,
            None,
            Run::Example("iterate", vec!["--fields", "--threads", "2", ust]),
            None,
        ),
        case(
            "20 M events: statistics",
            EVENTS,
            None,
            Run::Verb(vec!["stats", "--threads", "1", ust]),
            Some(50.0),
        ),
        case(
            "20 M events: statistics, two threads",
            EVENTS,
            None,
            Run::Verb(vec!["stats", "--threads", "2", ust]),
            Some(80.0),
        ),
        case("20 M events: text", EVENTS, Some(vec![ust]), Run::Program(vec![ust]), Some(12.0)),
        case(
            "20 M events: text, two threads",
            EVENTS,
            None,
            Run::Verb(vec!["view", "--threads", "2", ust]),
            Some(19.2),
        ),
        case(
            "20 M events: CTF to CTF, record by record",
            EVENTS,
            Some(to_ctf.clone()),
            Run::Example("copy", vec!["--records", ust, target]),
            Some(30.0),
        ),
        case("20 M events: CTF to CTF, packets passed", EVENTS, None, Run::Program(to_ctf), None),
        case("20 M events: iterate", EVENTS, None, Run::Example("iterate", vec![ust]), Some(50.0)),
        case(
            "20 M events: iterate, two threads",
            EVENTS,
            None,
            Run::Example("iterate", vec!["--threads", "2", ust]),
            Some(80.0),
        ),
        case(
            "20 M events: columns of time and payload, unmerged",
            EVENTS,
            None,
            Run::Example("iterate", vec!["--columns", ust]),
            None,
        ),
        case(
            "kernel, busy: every field",
            busy_events,
            Some(dummy(busy)),
            Run::Example("iterate", vec!["--fields", busy]),
            Some(15.0),
        ),
        case("kernel, busy: text", busy_events, Some(vec![busy]), Run::Program(vec![busy]), None),
        case(
            "kernel, many threads: every field",
            threads_events,
            Some(dummy(threads)),
            Run::Example("iterate", vec!["--fields", threads]),
            Some(15.0),
        ),
        case(
            "kernel, many threads: text",
            threads_events,
            Some(vec![threads]),
            Run::Program(vec![threads]),
            None,
        ),
        case(
            "kernel, many threads: CTF to CTF, record by record",
            threads_events,
            None,
            Run::Example("copy", vec!["--records", threads, target]),
            None,
        ),
        case(
            "400 streams: every field",
            streams_events,
            None,
            Run::Example("iterate", vec!["--fields", streams]),
            None,
        ),
        case("400 streams: text", streams_events, None, Run::Program(vec![streams]), None),
        case(
            "400 streams: statistics",
            streams_events,
            None,
            Run::Verb(vec!["stats", "--threads", "1", streams]),
            None,
        ),
        case(
            "400 streams: CTF to CTF, record by record",
            streams_events,
            None,
            Run::Example("copy", vec!["--records", streams, target]),
            None,
        ),
    ];
    let program = compile("bench.c", out)?;
    let mut quiet = Quiet::new(&program)?;
    let costs = measure_cases(built, &cases, &copies, &mut quiet)?;
    let mut floor = floor;
    floor.insert("at once".to_owned(), two_at_once(ust, &mut quiet)?);
    let long = measure_long(&traces.ust)?;
    keep(&traces, &floor, &cases, &costs, &long, &quiet)
}

/// What two programs do at once that have nothing in common, as a multiple of what one does alone: no
/// two threads do more.
fn two_at_once(trace: &str, quiet: &mut Quiet<'_>) -> anyhow::Result<f64> {
    let start = || Command::new(example("iterate")).arg(trace).stdout(Stdio::null()).spawn();
    let ratio = || {
        let begin = Instant::now();
        start()?.wait()?;
        let alone = begin.elapsed();
        let begin = Instant::now();
        let mut both = [start()?, start()?];
        for program in &mut both {
            program.wait()?;
        }
        Ok(2.0 * alone.as_secs_f64() / begin.elapsed().as_secs_f64())
    };
    let ratios = (0..ROUNDS * OURS).map(|_| quiet.run(ratio)).collect::<anyhow::Result<_>>()?;
    Ok(median(ratios))
}

fn measure_cases(
    built: &Built,
    cases: &[Case<'_>],
    copies: &Path,
    quiet: &mut Quiet<'_>,
) -> anyhow::Result<BTreeMap<(usize, &'static str), Vec<Cost>>> {
    let watch = |command: &mut Command| {
        let cost = watch(command);
        let _ = std::fs::remove_dir_all(copies);
        cost
    };
    let mut costs: BTreeMap<(usize, &'static str), Vec<Cost>> = BTreeMap::new();
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", round + 1);
        for (number, case) in cases.iter().enumerate() {
            if let Some(arguments) = &case.theirs {
                // Their runs last from five to fifty seconds, in which a neighbour comes and goes.
                quiet.wait()?;
                let cost = watch(Command::new("babeltrace2").args(arguments))?;
                costs.entry((number, "theirs")).or_default().push(cost);
            }
            for _ in 0..OURS {
                let cost = quiet.run(|| match &case.ours {
                    Run::Program(arguments) => {
                        watch(Command::new(&built.sillage).arg("babeltrace2").args(arguments))
                    }
                    Run::Verb(arguments) => watch(Command::new(&built.sillage).args(arguments)),
                    Run::Example(name, arguments) => watch(Command::new(example(name)).args(arguments)),
                });
                costs.entry((number, "ours")).or_default().push(cost?);
            }
        }
    }
    Ok(costs)
}

/// Runs a program with its output to nowhere; looks at its memory every two milliseconds.
fn watch(command: &mut Command) -> anyhow::Result<Cost> {
    let start = Instant::now();
    let mut child = command
        .env("LC_ALL", "C")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kb = 0.0f64;
    loop {
        if let Some(exit) = child.try_wait()? {
            ensure!(exit.success(), "{command:?}: {exit}");
            return Ok((start.elapsed().as_secs_f64(), peak_kb / 1e3));
        }
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kb = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        peak_kb = peak_kb.max(kb.unwrap_or(0.0));
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn make_traces(out: &Path) -> anyhow::Result<Traces> {
    let kept = target_dir().join("bench/ust20m");
    if !kept.join("metadata").exists() {
        eprintln!("recording 20 M events with LTTng-UST");
        record(out, &kept)?;
    }
    let shared = std::env::var_os("SILLAGE_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let traces = Traces {
        ust: out.join("ust20m"),
        busy: out.join("busy"),
        threads: out.join("many-threads"),
        streams: out.join("many-streams"),
    };
    run(Command::new("cp").arg("-r").arg(&kept).arg(&traces.ust))?;
    let busy = shared.join("reference/kernel-traces/busy-analysis/kernel");
    repeat("8", &busy, &traces.busy)?;
    let threads = shared.join("traces/tc-many-threads/trace");
    repeat("12", &threads, &traces.threads)?;
    side_by_side(50, &threads, &traces.streams)?;
    Ok(traces)
}

/// Writes every stream of a trace of LTTng's `copies` times, each as a stream of its own.
fn side_by_side(copies: u64, input: &Path, output: &Path) -> anyhow::Result<()> {
    /// Before a packet's instance id: magic number, UUID, number of the stream class.
    const BEFORE_INSTANCE: usize = 24;
    const MAGIC: [u8; 4] = 0xc1fc_1fc1u32.to_le_bytes();
    std::fs::create_dir_all(output)?;
    let mut instance = 0u64;
    for entry in std::fs::read_dir(input)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let mut bytes = std::fs::read(entry.path())?;
        if entry.file_name() == "metadata" {
            std::fs::write(output.join("metadata"), bytes)?;
            continue;
        }
        for _ in 0..copies {
            for packet in bytes.chunks_mut(4096).filter(|page| page.starts_with(&MAGIC)) {
                packet[BEFORE_INSTANCE..BEFORE_INSTANCE + 8].copy_from_slice(&instance.to_le_bytes());
            }
            std::fs::write(output.join(format!("stream_{instance}")), &bytes)?;
            instance += 1;
        }
    }
    Ok(())
}

/// Records with Debian's LTTng, in blocking mode, so that nothing is lost.
fn record(out: &Path, kept: &Path) -> anyhow::Result<()> {
    let program = compile("bench.c", out)?;
    let peer = Peer::lttng()?;
    peer.start(CHANNEL, &["bench:*"])?;
    // One program on each of two CPUs: two streams that interleave.
    let mut traced = Vec::new();
    for cpu in ["0", "1"] {
        let mut command = peer.program(Path::new("taskset"));
        command.args(["-c", cpu]).arg(&program).args(["int", BATCHES, "1"]);
        let command = command.env("LTTNG_UST_ALLOW_BLOCKING", "1").stdout(Stdio::null());
        traced.push(command.spawn().context("taskset")?);
    }
    for mut program in traced {
        ensure!(program.wait()?.success(), "the traced program failed");
    }
    peer.finish()?;
    let found = Command::new("find").arg(peer.trace()).args(["-name", "metadata"]).output()?;
    let metadata = PathBuf::from(String::from_utf8(found.stdout)?.trim());
    let directory = metadata.parent().context("LTTng wrote no trace")?;
    std::fs::create_dir_all(kept.parent().unwrap_or(kept))?;
    run(Command::new("cp").arg("-r").arg(directory).arg(kept))
}

fn repeat(count: &str, input: &Path, output: &Path) -> anyhow::Result<()> {
    run(Command::new(example("repeat")).arg(count).arg(input).arg(output))
}

/// Open, first event and seeks in a trace of 10 GB, in milliseconds; and Babeltrace's first event.
fn measure_long(ust: &Path) -> anyhow::Result<BTreeMap<String, f64>> {
    eprintln!("a trace of 10 GB");
    let long = target_dir().join("bench/long");
    let _ = std::fs::remove_dir_all(&long);
    repeat(LONG_COPIES, ust, &long)?;
    let measured = (|| {
        let path = text(&long)?;
        // The first run warms the page cache up, for what the others look at.
        figures(&["seek", path])?;
        let runs = (0..ROUNDS).map(|_| figures(&["seek", path])).collect::<anyhow::Result<Vec<_>>>()?;
        let names = runs[0].keys();
        Ok(names.map(|name| (name.clone(), median(runs.iter().map(|run| run[name]).collect()))).collect())
    })();
    std::fs::remove_dir_all(&long)?;
    measured
}

/// Runs an example that prints lines of a name and a figure.
fn figures(arguments: &[&str]) -> anyhow::Result<BTreeMap<String, f64>> {
    let output = Command::new(example(arguments[0])).args(&arguments[1..]).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let line = |line: &str| {
        let (name, figure) = line.split_once(' ').context("no figure")?;
        Ok((name.to_string(), figure.parse()?))
    };
    text.lines().map(line).collect()
}

/// Number of events of a trace.
fn count(trace: &Path) -> anyhow::Result<f64> {
    let output = Command::new(example("iterate")).arg(trace).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').next().context("nothing counted")?.parse()?)
}

fn example(name: &str) -> PathBuf {
    target_dir().join("release/examples").join(name)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

fn keep(
    traces: &Traces,
    floor: &BTreeMap<String, f64>,
    cases: &[Case<'_>],
    costs: &BTreeMap<(usize, &'static str), Vec<Cost>>,
    long: &BTreeMap<String, f64>,
    quiet: &Quiet<'_>,
) -> anyhow::Result<()> {
    let column = |number: usize, who: &'static str, pick: fn(&Cost) -> f64| {
        costs.get(&(number, who)).map(|costs| median(costs.iter().map(pick).collect()))
    };
    let best = |number: usize| {
        let costs = costs.get(&(number, "ours"))?;
        costs.iter().map(|cost| cost.0).min_by(f64::total_cmp)
    };
    let rows = cases.iter().enumerate().map(|(number, case)| {
        let rate = |seconds: f64| case.events / seconds / 1e6;
        let (theirs, ours) = (column(number, "theirs", |c| c.0), column(number, "ours", |c| c.0));
        let show = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "–".to_string(), |value| format!("{value:.digits$}"))
        };
        vec![
            case.name.to_string(),
            show(theirs.map(rate), 2),
            show(ours.map(rate), 1),
            show(best(number).map(rate), 1),
            show(theirs.zip(ours).map(|(theirs, ours)| theirs / ours), 1),
            show(case.wanted, 0),
            show(column(number, "ours", |c| c.1), 1),
        ]
    });
    let mut section = Section::new("read: traces counted, shown, copied");
    let size_gb = folder_gb(&traces.ust)?;
    section.paragraph(&format!(
        "Floors of the run, on the bytes of the 20 M events ({:.0} MB): summed up {:.1} GB/s, copied in memory \
         {:.1} GB/s; events found stream by stream, nothing merged, no field touched: {:.0} M/s. Two programs at once that \
         have nothing in common do {:.2} times what one does: no two threads can do more on this machine.",
        size_gb * 1e3,
        floor["sum"],
        floor["copy"],
        floor["found"],
        floor["at once"]
    ));
    section.paragraph(&format!(
        "M events/s of whole programs, start included, medians of {ROUNDS} rounds in turn, {OURS} runs of ours in \
         each; the best of them shows what a neighbour of the machine took; one thread unless said; files on tmpfs. Every field by Babeltrace 2 is its `dummy` sink: it decodes all fields always. The kernel \
         traces are those of the real tracer, their packets repeated 8 and 12 times, later each time; that of \
         400 streams is the second one's eight, 50 times side by side. Memory is the \
         peak of RssAnon of ours. {}",
        quiet.share()
    ));
    let head = ["case", "Babeltrace 2.0.4", "Sillage", "its best", "ratio", "wanted", "memory MB"];
    section.table(&head, &rows.collect::<Vec<_>>());
    let passed = cases.iter().position(|case| case.name.ends_with("packets passed"));
    let seconds = passed.and_then(|number| column(number, "ours", |c| c.0)).unwrap_or(f64::INFINITY);
    section.paragraph(&format!(
        "Packets passed on: {:.2} GB/s to tmpfs. A trace of 10 GB with its index: first event after {:.1} ms from \
         nothing; a seek with its first event {:.2} ms (median), {:.2} ms (longest of 41).",
        size_gb / seconds,
        long["first"],
        long["median"],
        long["longest"]
    ));
    section.keep()
}

/// Size of the files of a directory.
fn folder_gb(directory: &Path) -> anyhow::Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let data = entry?.metadata()?;
        bytes += if data.is_file() { data.len() } else { 0 };
    }
    Ok(bytes as f64 / 1e9)
}
