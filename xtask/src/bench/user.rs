//! What an event costs the program: an unmodified C program under LTTng-UST and under us in turn,
//! flight recorder and discard mode, one thread, two threads, two processes; and `tracepoint!`.

use super::peers::{Channel, Peer, System, compile, scratch};
use super::report::{Section, median};
use crate::build::{Built, cargo, run, target_dir};
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Rounds; the table shows medians over them.
const ROUNDS: usize = 5;
/// Batches of 20,000 events in a round.
const BATCHES: &str = "60";

const FLIGHT: Channel<'_> =
    Channel { options: &["--overwrite", "--subbuf-size=4M", "--num-subbuf=4"], flight_recorder: true };
const DISCARD: Channel<'_> =
    Channel { options: &["--discard", "--subbuf-size=4M", "--num-subbuf=16"], flight_recorder: false };
const ORDERED: Channel<'_> = Channel {
    options: &["--overwrite", "--subbuf-size=4M", "--num-subbuf=4", "--ordered"],
    flight_recorder: true,
};

/// Rows of the table: name, channel, what the program runs, threads, processes.
const CASES: &[(&str, Channel<'_>, &str, usize, usize)] = &[
    ("overwrite, one int", FLIGHT, "int", 1, 1),
    ("overwrite, int + 16-byte string", FLIGHT, "int_string", 1, 1),
    ("overwrite, four ints", FLIGHT, "ints", 1, 1),
    ("overwrite, ordered clock, one int", ORDERED, "int", 1, 1),
    ("overwrite, ordered clock, int + string", ORDERED, "int_string", 1, 1),
    ("discard with a consumer, one int", DISCARD, "int", 1, 1),
    ("discard with a consumer, int + string", DISCARD, "int_string", 1, 1),
    ("overwrite, one int, two threads", FLIGHT, "int", 2, 1),
    ("overwrite, one int, two processes", FLIGHT, "int", 1, 2),
    ("disabled tracepoint", FLIGHT, "off", 1, 1),
];

/// What one run of the program printed.
#[derive(Clone, Copy)]
struct Cost {
    median_ns: f64,
    /// CPU time of all threads for each event.
    cpu_ns: f64,
}

/// Measures and keeps the section.
pub fn run_benchmark(built: &Built) -> anyhow::Result<()> {
    let out = scratch("user")?;
    let program = compile("bench.c", &out)?;
    let (lttng, sillage) = (Peer::lttng()?, Peer::sillage(built)?);
    let mut costs: BTreeMap<(usize, &str), Vec<Cost>> = BTreeMap::new();
    let mut floors: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", round + 1);
        for floor in ["empty", "rdtsc"] {
            let cost = execute(Command::new(&program), floor, 1)?;
            floors.entry(floor).or_default().push(cost.median_ns);
        }
        for (i, (_, channel, what, threads, processes)) in CASES.iter().enumerate() {
            for peer in [&lttng, &sillage] {
                let Some(channel) = for_peer(*channel, peer) else { continue };
                let cost = measure(peer, channel, &program, what, *threads, *processes)?;
                costs.entry((i, peer.name())).or_default().push(cost);
            }
        }
    }
    let mut section = Section::new("user: what an event costs the program");
    let floor = |name: &str| median(floors[name].clone());
    section.paragraph(&format!(
        "Floors of the run: empty loop {:.2} ns, rdtsc {:.2} ns. ns an event of an unmodified C program, medians \
         of {ROUNDS} rounds; with several threads or processes CPU ns an event. Nothing was lost.",
        floor("empty"),
        floor("rdtsc")
    ));
    section.table(&["case", "LTTng-UST", "Sillage", "ratio"], &rows(&costs));
    section.paragraph("`tracepoint!` (Rust), flight recorder:");
    section.table(&["case", "median ns", "times rdtsc"], &rust_rows(floor("rdtsc"))?);
    std::fs::remove_dir_all(out)?;
    section.keep()
}

/// LTTng has no `--ordered`: its clock always is.
fn for_peer<'a>(channel: Channel<'a>, peer: &Peer) -> Option<Channel<'a>> {
    let ordered = channel.options.contains(&"--ordered");
    match peer.system() {
        System::Lttng if ordered => Some(FLIGHT),
        _ => Some(channel),
    }
}

fn measure(
    peer: &Peer,
    channel: Channel<'_>,
    program: &Path,
    what: &str,
    threads: usize,
    processes: usize,
) -> anyhow::Result<Cost> {
    peer.start(channel, &["bench:int", "bench:int_string", "bench:ints"])?;
    let result = match processes {
        1 => execute(peer.program(program), what, threads),
        _ => execute_together(peer, program, what, processes),
    };
    let said = peer.finish()?;
    // Both systems speak of losses when there are some.
    let lost = said.lines().any(|l| {
        l.contains("discarded") && !l.contains(" 0 ") || l.contains("lost: ") && !l.contains("lost: 0")
    });
    ensure!(!lost || channel.flight_recorder, "{} lost events: {said}", peer.name());
    result
}

fn execute(mut program: Command, what: &str, threads: usize) -> anyhow::Result<Cost> {
    let output = program.args([what, BATCHES, &threads.to_string()]).env("BENCH_FIFO", "1").output()?;
    parse(&output.stdout)
}

/// Several processes at once, on CPUs of their own.
fn execute_together(peer: &Peer, program: &Path, what: &str, processes: usize) -> anyhow::Result<Cost> {
    let children = (0..processes)
        .map(|i| {
            let traced = peer.program(program);
            let mut command = Command::new("taskset");
            command.args(["-c", &i.to_string()]).arg(program).args([what, BATCHES, "1"]);
            command.envs(traced.get_envs().filter_map(|(k, v)| Some((k, v?)))).env("BENCH_FIFO", "1");
            Ok(command.stdout(Stdio::piped()).spawn()?)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let costs = children
        .into_iter()
        .map(|c| parse(&c.wait_with_output()?.stdout))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mean = |f: fn(&Cost) -> f64| costs.iter().map(f).sum::<f64>() / costs.len() as f64;
    Ok(Cost { median_ns: mean(|c| c.median_ns), cpu_ns: mean(|c| c.cpu_ns) })
}

fn parse(output: &[u8]) -> anyhow::Result<Cost> {
    let text = String::from_utf8_lossy(output);
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |name: &str| -> anyhow::Result<f64> {
        let at = words.iter().position(|w| *w == name).with_context(|| format!("no `{name}` in {text:?}"))?;
        Ok(words.get(at + 1).context("no figure")?.parse()?)
    };
    Ok(Cost { median_ns: after("median")?, cpu_ns: after("cpu")? })
}

fn rows(costs: &BTreeMap<(usize, &str), Vec<Cost>>) -> Vec<Vec<String>> {
    CASES
        .iter()
        .enumerate()
        .map(|(i, (name, _, _, threads, processes))| {
            let of = |peer: &'static str| {
                let values = &costs[&(i, peer)];
                let one = threads * processes == 1;
                median(values.iter().map(|c| if one { c.median_ns } else { c.cpu_ns }).collect())
            };
            let (theirs, ours) = (of("LTTng"), of("Sillage"));
            vec![
                name.to_string(),
                format!("{theirs:.1}"),
                format!("{ours:.1}"),
                format!("{:.2}", theirs / ours),
            ]
        })
        .collect()
}

fn rust_rows(rdtsc_ns: f64) -> anyhow::Result<Vec<Vec<String>>> {
    run(&mut cargo(&["build", "--release", "-p", "sillage-tracer-user", "--example", "bench_rust"]))?;
    let program = target_dir().join("release/examples/bench_rust");
    let output = Command::new(program).args(["200", "1"]).env("BENCH_FIFO", "1").output()?;
    ensure!(output.status.success(), "bench_rust: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .filter_map(|line| line.split_once(" threads "))
        .map(|(name, figures)| {
            let median =
                figures.split_whitespace().skip_while(|w| *w != "median").nth(1).context("a median")?;
            let ns: f64 = median.parse()?;
            Ok(vec![name.trim().to_string(), format!("{ns:.1}"), format!("{:.2}", ns / rdtsc_ns)])
        })
        .collect()
}
