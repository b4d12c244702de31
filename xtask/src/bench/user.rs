//! What an event costs the program: an unmodified C program under LTTng-UST and under us in turn,
//! flight recorder and discard mode, one thread, two threads, two processes; and `tracepoint!`.

use super::peers::{Channel, Peer, System, compile, scratch};
use super::report::{Section, median};
use crate::build::{Built, cargo, run, target_dir};
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Rounds; the table shows medians over them.
const ROUNDS: usize = 3;
/// Batches of 20,000 events in a round: several laps of the ring, whose first lap touches new memory.
const BATCHES: &str = "300";
/// Batches of each row of the Rust program.
const RUST_BATCHES: &str = "200";

const FLIGHT: Channel<'_> =
    Channel { options: &["--overwrite", "--subbuf-size=4M", "--num-subbuf=4"], flight_recorder: true };
const DISCARD: Channel<'_> =
    Channel { options: &["--discard", "--subbuf-size=1M", "--num-subbuf=16"], flight_recorder: false };
const ORDERED: Channel<'_> = Channel {
    options: &["--overwrite", "--subbuf-size=4M", "--num-subbuf=4", "--ordered"],
    flight_recorder: true,
};

/// Rows of the table: name, channel, what the program runs.
const CASES: &[(&str, Channel<'_>, &str)] = &[
    ("overwrite, one int", FLIGHT, "int"),
    ("overwrite, int + 16-byte string", FLIGHT, "int_string"),
    ("overwrite, four ints", FLIGHT, "ints"),
    ("overwrite, ordered clock, one int", ORDERED, "int"),
    ("overwrite, ordered clock, int + string", ORDERED, "int_string"),
    ("discard with a consumer, one int", DISCARD, "int"),
    ("discard with a consumer, int + string", DISCARD, "int_string"),
    ("disabled tracepoint", FLIGHT, "off"),
];

/// Side by side, none of them at real-time priority: name, threads, processes.
const SIDE_BY_SIDE: &[(&str, usize, usize)] =
    &[("one thread", 1, 1), ("two threads", 2, 1), ("two processes", 1, 2)];

/// What one run of the program printed.
#[derive(Clone, Copy)]
pub struct Cost {
    /// Of the batches, for each event.
    pub median_ns: f64,
    /// CPU time of all threads for each event.
    pub cpu_ns: f64,
    /// Batches that nobody disturbed, of how many.
    quiet: [f64; 2],
}

/// Measures and keeps the section.
pub fn run_benchmark(built: &Built) -> anyhow::Result<()> {
    let out = scratch("user")?;
    let program = compile("bench.c", &out)?;
    let rust_program = build_rust_program()?;
    let (lttng, sillage) = (Peer::lttng()?, Peer::sillage(built)?);
    let best_ns = best_known_work_ns(&program)?;
    let mut costs: BTreeMap<(usize, &str), Vec<Cost>> = BTreeMap::new();
    let mut together: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    let mut floors: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let traced = |peer: &Peer| {
        let (program, best_ns) = (program.clone(), best_ns.clone());
        let prepared = peer.program(&program);
        let environment: Vec<_> =
            prepared.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
        move || {
            let mut command = Command::new(&program);
            command.envs(environment.iter().cloned()).env("BENCH_QUIET", &best_ns);
            command
        }
    };
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", round + 1);
        for floor in ["empty", "rdtsc"] {
            let mut command = Command::new(&program);
            command.env("BENCH_QUIET", &best_ns).env("BENCH_FIFO", "1");
            floors.entry(floor).or_default().push(execute(command, floor, 1)?.median_ns);
        }
        for (i, (_, channel, what)) in CASES.iter().enumerate() {
            for peer in [&lttng, &sillage] {
                let Some(channel) = for_peer(*channel, peer) else { continue };
                let cost = measure(peer, channel, &alone_on_its_cpu(traced(peer)), what, 1, 1)?;
                costs.entry((i, peer.name())).or_default().push(cost);
            }
        }
        for (i, (_, threads, processes)) in SIDE_BY_SIDE.iter().enumerate() {
            for peer in [&lttng, &sillage] {
                let cost = measure(peer, FLIGHT, &traced(peer), "int", *threads, *processes)?;
                together.entry((i, peer.name())).or_default().push(cost.cpu_ns);
            }
        }
    }
    let mut section = Section::new("user: what an event costs the program");
    let floor = |name: &str| median(floors[name].clone());
    section.paragraph(&format!(
        "Floors of the run: empty loop {:.2} ns, rdtsc {:.2} ns. ns an event of an unmodified C program, medians \
         of {ROUNDS} rounds. Nothing was lost. Batches that \
         ran while a neighbour of the virtual machine slowed its core down were repeated as far as that was \
         possible: `quiet` is the share of those counted that nobody disturbed.",
        floor("empty"),
        floor("rdtsc")
    ));
    section.table(&["case", "LTTng-UST", "Sillage", "ratio", "quiet"], &rows(&costs));
    section.paragraph(
        "Side by side on two cores: CPU time of all producers for each event (one int, flight recorder), and how \
         much that is more than alone.",
    );
    section.table(&["producers", "LTTng-UST", "more", "Sillage", "more"], &side_by_side_rows(&together));
    section.paragraph("`tracepoint!` (Rust), flight recorder:");
    section.table(&["case", "median ns", "times rdtsc", "quiet"], &rust_rows(&rust_program)?);
    std::fs::remove_dir_all(out)?;
    section.keep()
}

/// What the loop of known work takes on this machine when nobody disturbs it.
fn best_known_work_ns(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).args(["known_work", "1"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.trim().rsplit_once(' ').context("the time of known work")?.1.to_string())
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
    program: &dyn Fn() -> Command,
    what: &str,
    threads: usize,
    processes: usize,
) -> anyhow::Result<Cost> {
    peer.start(channel, &["bench:int", "bench:int_string", "bench:ints"])?;
    let result = match processes {
        1 => execute(program(), what, threads),
        _ => execute_together(program, what, processes),
    };
    let said = peer.finish()?;
    // Both systems speak of losses when there are some.
    let lost = said.lines().any(|l| {
        l.contains("discarded") && !l.contains(" 0 ") || l.contains("lost: ") && !l.contains("lost: 0")
    });
    ensure!(!lost || channel.flight_recorder, "{} lost events: {said}", peer.name());
    result
}

/// At real-time priority. Never for a thread on each CPU: that would starve whoever keeps the clock page.
fn alone_on_its_cpu(program: impl Fn() -> Command) -> impl Fn() -> Command {
    move || {
        let mut command = program();
        command.env("BENCH_FIFO", "1");
        command
    }
}

fn execute(mut program: Command, what: &str, threads: usize) -> anyhow::Result<Cost> {
    program.args([what, BATCHES, &threads.to_string()]);
    parse(&program.output()?.stdout)
}

/// Several processes at once, on CPUs of their own.
fn execute_together(program: &dyn Fn() -> Command, what: &str, processes: usize) -> anyhow::Result<Cost> {
    let children = (0..processes)
        .map(|i| {
            let traced = program();
            let mut command = Command::new("taskset");
            command.args(["-c", &i.to_string()]).arg(traced.get_program()).args([what, BATCHES, "1"]);
            command.envs(traced.get_envs().filter_map(|(k, v)| Some((k, v?))));
            Ok(command.stdout(Stdio::piped()).spawn()?)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let costs = children
        .into_iter()
        .map(|c| parse(&c.wait_with_output()?.stdout))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mean = |f: fn(&Cost) -> f64| costs.iter().map(f).sum::<f64>() / costs.len() as f64;
    Ok(Cost { median_ns: mean(|c| c.median_ns), cpu_ns: mean(|c| c.cpu_ns), quiet: sum_quiet(&costs) })
}

fn sum_quiet(costs: &[Cost]) -> [f64; 2] {
    [0, 1].map(|i| costs.iter().map(|c| c.quiet[i]).sum())
}

/// What `bench.c` printed.
pub fn parse(output: &[u8]) -> anyhow::Result<Cost> {
    let text = String::from_utf8_lossy(output);
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |name: &str| -> anyhow::Result<f64> {
        let at = words.iter().position(|w| *w == name).with_context(|| format!("no `{name}` in {text:?}"))?;
        Ok(words.get(at + 1).context("no figure")?.parse()?)
    };
    let quiet = [after("quiet")?, after("of")?];
    Ok(Cost { median_ns: after("median")?, cpu_ns: after("cpu")?, quiet })
}

fn rows(costs: &BTreeMap<(usize, &str), Vec<Cost>>) -> Vec<Vec<String>> {
    CASES
        .iter()
        .enumerate()
        .map(|(i, (name, ..))| {
            let of = |peer: &'static str| median(costs[&(i, peer)].iter().map(|c| c.median_ns).collect());
            let (theirs, ours) = (of("LTTng"), of("Sillage"));
            vec![
                name.to_string(),
                format!("{theirs:.1}"),
                format!("{ours:.1}"),
                format!("{:.2}", theirs / ours),
                share(sum_quiet(&[&costs[&(i, "LTTng")][..], &costs[&(i, "Sillage")]].concat())),
            ]
        })
        .collect()
}

fn side_by_side_rows(together: &BTreeMap<(usize, &str), Vec<f64>>) -> Vec<Vec<String>> {
    let of = |i: usize, peer: &'static str| median(together[&(i, peer)].clone());
    let row = |(i, (name, ..)): (usize, &(&str, usize, usize))| {
        let figures = ["LTTng", "Sillage"].into_iter().flat_map(|peer| {
            let (ns, alone) = (of(i, peer), of(0, peer));
            [format!("{ns:.1}"), format!("{:+.0} %", 100.0 * (ns / alone - 1.0))]
        });
        [(*name).to_string()].into_iter().chain(figures).collect()
    };
    SIDE_BY_SIDE.iter().enumerate().map(row).collect()
}

fn build_rust_program() -> anyhow::Result<PathBuf> {
    run(&mut cargo(&["build", "--release", "-p", "sillage-tracer-user", "--example", "bench_rust"]))?;
    Ok(target_dir().join("release/examples/bench_rust"))
}

fn rust_rows(program: &Path) -> anyhow::Result<Vec<Vec<String>>> {
    let mut command = Command::new(program);
    command.args([RUST_BATCHES, "1"]).env("BENCH_FIFO", "1").env("BENCH_QUIET", "1");
    let output = command.output()?;
    ensure!(output.status.success(), "bench_rust: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let (mut rows, mut clock, mut floor) = (Vec::new(), "", None);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("clock ") {
            clock = name;
        }
        let Some((name, figures)) = line.split_once(" threads ") else { continue };
        let cost = parse(figures.as_bytes())?;
        if name.contains("rdtsc") {
            floor = Some(cost.median_ns);
        }
        rows.push(vec![
            format!("{clock} clock, {}", name.trim()),
            format!("{:.1}", cost.median_ns),
            floor.map_or("–".into(), |floor| format!("{:.2}", cost.median_ns / floor)),
            share(cost.quiet),
        ]);
    }
    Ok(rows)
}

/// The first of two numbers as a share of the second.
fn share([part, whole]: [f64; 2]) -> String {
    format!("{:.0} %", 100.0 * part / whole)
}
