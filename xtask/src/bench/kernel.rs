//! The kernel tracer beside the kernel's own tracing, `perf record` and `strace`: what an event costs, what
//! whole programs cost, what is lost, how long beginning takes, what the consumer uses.
//!
//! As root alone. Ours writes its traces to tmpfs as it always does; ftrace overwrites its buffers and
//! nobody reads them, which is in its favour; `perf record` writes to tmpfs.

use super::peers::{Peer, scratch};
use super::report::{Section, median};
use crate::build::{Built, cargo, run, target_dir};
use crate::setup;
use anyhow::{Context, bail, ensure};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Debian packages that this benchmark alone needs.
const PACKAGES: &[&str] = &["linux-perf", "rt-tests", "strace", "util-linux"];
/// Turns of whole programs.
const ROUNDS: usize = 3;
/// The events of an analysis, as tracefs and perf call them; ours have LTTng's names.
const EVENTS: [&str; 12] = [
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "sched/sched_switch",
    "sched/sched_waking",
    "sched/sched_wakeup",
    "irq/irq_handler_entry",
    "irq/irq_handler_exit",
    "irq/softirq_entry",
    "irq/softirq_exit",
    "irq/softirq_raise",
    "timer/hrtimer_expire_entry",
    "timer/hrtimer_expire_exit",
];
const OUR_EVENTS: &str = "sched_switch,sched_waking,sched_wakeup,irq_handler_entry,irq_handler_exit,\
     irq_softirq_entry,irq_softirq_exit,irq_softirq_raise,timer_hrtimer_expire_entry,timer_hrtimer_expire_exit";
const TWELVE: &str = "sched_switch,sched_waking,sched_wakeup,sched_process_fork,sched_process_exit,\
     irq_handler_entry,irq_handler_exit,irq_softirq_entry,irq_softirq_exit,irq_softirq_raise,\
     timer_hrtimer_expire_entry,timer_hrtimer_expire_exit";
const SESSION: &str = "bench";

/// Measures and keeps the section.
pub fn run_benchmark(built: &Built) -> anyhow::Result<()> {
    if !setup::is_root() {
        bail!("the kernel's benchmark needs root: ftrace, perf and eBPF do");
    }
    setup::need(PACKAGES)?;
    run(&mut cargo(&["build", "--release", "-p", "sillage-tracer-kernel", "--example", "event_cost"]))?;
    let out = scratch("kernel")?;
    let peer = Peer::sillage(built)?;
    let mut section = Section::new("kernel: what its events cost");
    section.paragraph(&format!(
        "A core with its own load shows another nanosecond each minute, so ours and the peers took turns in \
         one run; medians. Whole programs {ROUNDS} times each. {}",
        neighbours()
    ));
    single_events(&mut section)?;
    beginnings(&mut section, &peer)?;
    programs(&mut section, &peer, &out)?;
    hackbench(&mut section, &peer)?;
    calls(&mut section, &peer)?;
    drop(peer);
    std::fs::remove_dir_all(out)?;
    section.keep()
}

/// Whether the two processors are one core's.
fn neighbours() -> String {
    let path = "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list";
    let siblings = std::fs::read_to_string(path).unwrap_or_default();
    match siblings.trim() {
        "" | "0" => "Each processor is a core.".into(),
        list => format!("Processors {list} are threads of one core: what runs on one slows the other."),
    }
}

/// A row: what, ours, the peer's, their ratio, what was wanted.
fn row(what: &str, ours: String, peer: String, ratio: Option<f64>, wanted: &str) -> Vec<String> {
    let ratio = ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"));
    vec![what.into(), ours, peer, ratio, wanted.into()]
}

fn single_events(section: &mut Section) -> anyhow::Result<()> {
    let program = target_dir().join("release/examples/event_cost");
    let output = Command::new("taskset").args(["-c", "1", "chrt", "-f", "50"]).arg(&program).output()?;
    ensure!(output.status.success(), "event_cost: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let values: HashMap<&str, f64> = text
        .lines()
        .filter_map(|l| l.split_once('\t'))
        .filter_map(|(n, v)| Some((n, v.parse().ok()?)))
        .collect();
    let get = |name: &str| values.get(name).copied().with_context(|| format!("event_cost says no {name}"));
    let ns = |value: f64| format!("{value:.0}");
    section.paragraph(&format!(
        "Floors of the run: getpid {:.0} ns, a switch {:.0} ns; an empty program on the hook of system calls adds \
         {:.0} ns. Added nanoseconds for one event:",
        get("floor: getpid")?,
        get("floor: a switch")?,
        get("floor: empty program on the hook")?
    ));
    let mut rows = Vec::new();
    let mut beside = |what: &str, ours: &str, theirs: &str, wanted: &str| -> anyhow::Result<()> {
        let (ours, theirs) = (get(ours)?, get(theirs)?);
        rows.push(row(what, ns(ours), ns(theirs), Some(ours / theirs), wanted));
        Ok(())
    };
    beside("system call's entry", "getpid's entry, ours", "getpid's entry, ftrace", "≤ 0.65")?;
    beside("sched_switch", "sched_switch, ours", "sched_switch, ftrace", "≤ 0.40")?;
    beside("two CPUs at once", "two CPUs: getpid's entry, ours", "two CPUs: getpid's entry, ftrace", "–")?;
    let (one, two) = (get("getpid's entry, ours")?, get("two CPUs: getpid's entry, ours")?);
    rows.push(row("two CPUs at once, against one", ns(two), ns(one), Some(two / one), "≤ 1.2"));
    let floors = (get("floor: empty program on the hook")?, get("two CPUs: empty program on the hook")?);
    rows.push(row(
        "the same of the empty program",
        ns(floors.1),
        ns(floors.0),
        Some(floors.1 / floors.0),
        "–",
    ));
    let path = get("statx: entry with a path of 40 bytes, ours")?;
    rows.push(row("with a user string of 40 bytes", ns(path), "–".into(), None, "≤ 300"));
    let seven = get("getpid's entry with seven contexts")? - one;
    rows.push(row("seven contexts more", ns(seven), "–".into(), None, "≤ 30"));
    for (what, of) in [("a timer's start", "timer"), ("a system call's entry", "statx")] {
        let empty = get(&format!("{of}: empty program on the hook"))?;
        let rejected = get(&format!("{of}: rejected by a filter"))?;
        let what = format!("{what}, rejected by a filter, against the empty program");
        rows.push(row(&what, ns(rejected), ns(empty), Some(rejected / empty), "≤ 1.10"));
    }
    let other = get("a call that nobody asked for")?;
    rows.push(row("a call that nobody asked for", ns(other), ns(floors.0), Some(other / floors.0), "≤ 1.10"));
    let dump = get("state dump, ms")?;
    rows.push(row("state dump of 1,000 processes, ms", format!("{dump:.1}"), "–".into(), None, "≤ 50"));
    section.table(&["event", "Sillage", "ftrace", "ratio", "wanted"], &rows);
    Ok(())
}

/// Milliseconds of a control command.
fn timed(peer: &Peer, words: &[&str]) -> anyhow::Result<f64> {
    let start = Instant::now();
    peer.verb(words)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn create(peer: &Peer) -> anyhow::Result<()> {
    let trace = peer.trace();
    let _ = std::fs::remove_dir_all(&trace);
    peer.verb(&["create", SESSION, "-o", trace.to_str().context("a path that is not UTF-8")?])?;
    Ok(())
}

fn beginnings(section: &mut Section, peer: &Peer) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    // The first session also reads the kernel's types.
    for (what, words, wanted, turns) in [
        ("twelve events", &["enable-event", "-k", TWELVE][..], "≤ 50", 5),
        ("all tracepoints", &["enable-event", "-k", "--all", "--tracepoint"], "≤ 3000", 1),
        ("all system calls", &["enable-event", "-k", "--syscall", "--all"], "–", 1),
    ] {
        let mut starts = Vec::new();
        let mut stops = Vec::new();
        for _ in 0..turns {
            create(peer)?;
            peer.verb(words)?;
            starts.push(timed(peer, &["start", SESSION])?);
            stops.push(timed(peer, &["stop", SESSION])?);
            peer.verb(&["destroy", SESSION])?;
        }
        let count = peer.verb(&["list", "-k"])?.lines().count();
        let what = if what == "all tracepoints" { format!("{what} (about {count})") } else { what.into() };
        rows.push(vec![
            what,
            format!("{:.0}", median(starts)),
            wanted.into(),
            format!("{:.0}", median(stops)),
        ]);
    }
    section.paragraph("Milliseconds until `start` and `stop` return:");
    section.table(&["session with", "start", "wanted", "stop"], &rows);
    Ok(())
}

/// Who records while a program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recorder {
    Nobody,
    Ours,
    Ftrace,
    Perf,
}

const RECORDERS: [Recorder; 4] = [Recorder::Nobody, Recorder::Ours, Recorder::Ftrace, Recorder::Perf];

/// An instance of tracefs, gone with this.
struct Instance(PathBuf);

impl Instance {
    fn new() -> anyhow::Result<Instance> {
        let path = Path::new("/sys/kernel/tracing/instances").join(format!("bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Instance(path))
    }

    fn switch(&self, value: &str) -> anyhow::Result<()> {
        for event in EVENTS {
            std::fs::write(self.0.join("events").join(event).join("enable"), value).context(event)?;
        }
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Records a session of ours around some work: what it took and what `stop` said.
fn recorded<T>(
    peer: &Peer,
    channel: &[&str],
    rules: &[&[&str]],
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Totals)> {
    create(peer)?;
    peer.verb(&[&["enable-channel", "-k", "chan", "-s", SESSION], channel].concat())?;
    for rule in rules {
        peer.verb(&[&["enable-event", "-k", "-c", "chan", "-s", SESSION], *rule].concat())?;
    }
    peer.verb(&["start", SESSION])?;
    let before = consumer_ns(peer)?;
    let result = work()?;
    peer.verb(&["stop", SESSION])?;
    let consumer_ns = consumer_ns(peer)? - before;
    let listed = peer.verb(&["list", SESSION])?;
    let lost = listed.lines().filter_map(|line| line.trim().strip_prefix("Discarded events: "));
    let lost = lost.filter_map(|count| count.parse::<f64>().ok()).sum();
    peer.verb(&["destroy", SESSION])?;
    let totals = Totals { lost, bytes: stream_bytes(&peer.trace())?, consumer_ns };
    std::fs::remove_dir_all(peer.trace())?;
    Ok((result, totals))
}

/// What a recording left.
struct Totals {
    lost: f64,
    bytes: f64,
    consumer_ns: f64,
}

/// CPU nanoseconds that the daemon's threads that move data have used.
fn consumer_ns(peer: &Peer) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in peer.daemon_pids()? {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten().map(|task| task.path()) {
            let read = |file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default();
            if ["consumer", "bell"].contains(&read("comm").trim()) {
                sum += read("schedstat").split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
            }
        }
    }
    Ok(sum)
}

/// Bytes of a kernel trace's streams.
fn stream_bytes(trace: &Path) -> anyhow::Result<f64> {
    let folder = trace.join("kernel");
    let files = std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let files = files.flatten().filter(|file| file.file_name().to_string_lossy().starts_with("chan_"));
    Ok(files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len() as f64).sum())
}

fn wall_ms(words: &[&str]) -> anyhow::Result<f64> {
    let start = Instant::now();
    let status =
        Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.with_context(|| words.join(" "))?;
    ensure!(status.success(), "{} failed", words.join(" "));
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn programs(section: &mut Section, peer: &Peer, out: &Path) -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let mut rows = Vec::new();
    let mut consumed = Vec::new();
    for (what, words) in [
        (
            "`perf bench sched pipe`, one CPU",
            &["taskset", "-c", "1", "perf", "bench", "sched", "pipe", "-l", "50000"][..],
        ),
        ("`find /usr`", &["find", "/usr", "-name", "no such name"]),
    ] {
        wall_ms(words)?;
        let mut times: [Vec<f64>; 4] = Default::default();
        let (mut lost, mut events) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            for (recorder, times) in RECORDERS.into_iter().zip(&mut times) {
                times.push(match recorder {
                    Recorder::Nobody => wall_ms(words)?,
                    Recorder::Ours => {
                        let rules: [&[&str]; 2] = [&[OUR_EVENTS], &["--syscall", "--all"]];
                        let (time, totals) = recorded(peer, &[], &rules, || wall_ms(words))?;
                        lost += totals.lost;
                        events = totals.bytes / 64.0;
                        consumed.push(totals.consumer_ns / events);
                        time
                    }
                    Recorder::Ftrace => {
                        instance.switch("1")?;
                        let time = wall_ms(words)?;
                        instance.switch("0")?;
                        time
                    }
                    Recorder::Perf => under_perf(words, out)?,
                });
            }
        }
        let [nobody, ours, ftrace, perf] = times.map(median);
        let more = |time: f64| format!("{time:.0} (+{:.0} %)", (time / nobody - 1.0) * 100.0);
        rows.push(vec![
            what.into(),
            format!("{nobody:.0}"),
            more(ours),
            more(ftrace),
            more(perf),
            format!("{:.2}", (ours - nobody) / (ftrace - nobody)),
            format!("{:.2}", (ours - nobody) / (perf - nobody)),
            format!("{lost:.0}"),
            format!("{:.1}", events * 64.0 / 1e6),
        ]);
    }
    section.paragraph(
        "Whole programs with twelve events (entries and exits of all system calls, of ours with their arguments \
         and strings), ms; buffers of default size. Overhead wanted: at most 0.6 of ftrace's, 0.25 of `perf \
         record`'s, nothing lost.",
    );
    let head = [
        "program",
        "alone",
        "Sillage",
        "ftrace",
        "perf record",
        "of ftrace's",
        "of perf's",
        "lost",
        "our MB",
    ];
    section.table(&head, &rows);
    section.paragraph(&format!(
        "The consumer used {:.0} ns of CPU for each 64 bytes of trace (wanted: at most 35), waking and writing included.",
        median(consumed)
    ));
    Ok(())
}

/// The time that a program takes while `perf record` records the machine.
fn under_perf(words: &[&str], out: &Path) -> anyhow::Result<f64> {
    let data = out.join("perf.data");
    let events: Vec<String> = EVENTS.iter().map(|event| event.replace('/', ":")).collect();
    let mut perf = Command::new("perf")
        .args(["record", "-q", "-a", "-o"])
        .arg(&data)
        .args(["-e", &events.join(",")])
        .args(["--", "sleep", "600"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("perf")?;
    // It records from when its file grows.
    let grown = || std::fs::metadata(&data).is_ok_and(|file| file.len() > 1 << 16);
    let began = Instant::now();
    while !grown() && began.elapsed().as_secs() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let time = wall_ms(words);
    run(Command::new("kill").args(["-INT", &perf.id().to_string()]))?;
    perf.wait()?;
    std::fs::remove_file(&data)?;
    time
}

fn hackbench(section: &mut Section, peer: &Peer) -> anyhow::Result<()> {
    let words = ["hackbench", "-g", "5", "-l", "200"];
    wall_ms(&words)?;
    let alone = median((0..ROUNDS).map(|_| wall_ms(&words)).collect::<anyhow::Result<_>>()?);
    let rules: [&[&str]; 2] = [&[OUR_EVENTS], &["--syscall", "--all"]];
    let mut times = Vec::new();
    let (mut lost, mut bytes) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let (time, totals) = recorded(peer, &["--memory", "64M"], &rules, || wall_ms(&words))?;
        times.push(time);
        lost += totals.lost;
        bytes += totals.bytes;
    }
    section.paragraph(&format!(
        "`{}` (200 tasks) with a budget of 64 MB: {alone:.0} ms alone, {:.0} ms recorded, {:.0} MB of trace each, {lost:.0} \
         events lost in {ROUNDS} runs (wanted: none).",
        words.join(" "),
        median(times),
        bytes / 1e6 / ROUNDS as f64
    ));
    Ok(())
}

/// The same system calls by `strace -f`.
fn calls(section: &mut Section, peer: &Peer) -> anyhow::Result<()> {
    const WORDS: [&str; 4] = ["find", "/usr/lib", "-maxdepth", "3"];
    let strace = [&["strace", "-f", "-o", "/dev/null"][..], &WORDS].concat();
    wall_ms(&WORDS)?;
    let mut times: [Vec<f64>; 3] = Default::default();
    let mut lost = 0.0;
    for _ in 0..ROUNDS {
        times[0].push(wall_ms(&WORDS)?);
        let (time, totals) = recorded(peer, &[], &[&["--syscall", "--all"]], || wall_ms(&WORDS))?;
        times[1].push(time);
        lost += totals.lost;
        times[2].push(wall_ms(&strace)?);
    }
    let [alone, ours, theirs] = times.map(median);
    section.paragraph(&format!(
        "`{}`: {alone:.1} ms alone, {ours:.1} ms with all its system calls recorded ({lost:.0} lost), {theirs:.0} ms under \
         `strace -f`: our overhead is 1/{:.0} of strace's (wanted: 1/50).",
        WORDS.join(" "),
        (theirs - alone) / (ours - alone).max(0.001)
    ));
    Ok(())
}
