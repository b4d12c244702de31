//! The corpus through the CTF sink and back: copied packets, copied records, some events left out,
//! and the other version of the format. The text and the counts of the result are those of the
//! input, by our reader, and by Debian's babeltrace2 where that reads the input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use sillage_ctf::model::CtfVersion;
use sillage_ctf::{Message, MetadataOptions};
use sillage_pipeline::sinks::ctf::{CtfOptions, CtfSink};
use sillage_pipeline::sinks::pretty::{ClockFormat, Dialect, Options as TextOptions, Pretty};
use sillage_pipeline::sinks::{Drained, Sink, Zone, drain, write_all_to};
use sillage_pipeline::sources::{Options, Source, open_all};
use sillage_pipeline::{Error, Messages, Status};

fn traces() -> Option<PathBuf> {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let traces = shared.join("traces");
    if !traces.is_dir() {
        eprintln!("SKIPPED: {} is missing", traces.display());
        return None;
    }
    Some(traces)
}

/// A directory that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let base =
            if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let path = base.join(format!("sillage-ctf-sink-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Result<Source, Error> {
    let metadata = MetadataOptions { lenient: true, ..MetadataOptions::default() };
    open_all(&[path.to_path_buf()], &Options { metadata, ..Options::default() })
}

/// How messages are handed to the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    /// As the source gives them.
    Packets,
    /// Without whole packets.
    Records,
    /// Only the events of which this is true.
    Every(u64),
}

/// Messages without whole packets, and perhaps without some events.
struct Fed<M> {
    messages: M,
    feed: Feed,
    events: u64,
}

impl<M: Messages> Messages for Fed<M> {
    fn advance(&mut self) -> Result<Status, Error> {
        loop {
            let status = self.messages.advance()?;
            if let (Feed::Every(n), Some(Message::Event(_))) = (self.feed, self.messages.current()) {
                self.events += 1;
                if !self.events.is_multiple_of(n) {
                    continue;
                }
            }
            return Ok(status);
        }
    }
    fn current(&self) -> Option<Message<'_>> {
        self.messages.current()
    }
    fn skip_packet(&mut self) -> bool {
        self.feed == Feed::Packets && self.messages.skip_packet()
    }
}

fn fed(source: &Source, feed: Feed) -> Fed<impl Messages> {
    Fed { messages: source.messages(), feed, events: 0 }
}

/// Everything to the sink, through errors.
fn drain_all(messages: &mut impl Messages, sink: &mut impl Sink) -> Vec<String> {
    let mut errors = Vec::new();
    loop {
        match drain(messages, sink, |_| true) {
            Ok(Drained::End) => return errors,
            Ok(_) => continue,
            Err(error) => errors.push(error.to_string()),
        }
        assert!(errors.len() < 100, "{errors:?}");
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Reading {
    /// Lines of text, those of equal time sorted: their order depends on the names of files.
    lines: Vec<String>,
    lost_events: u64,
    lost_packets: u64,
    counts: BTreeMap<&'static str, u64>,
}

fn text(mut messages: impl Messages) -> Vec<String> {
    let (sender, receiver) = mpsc::channel();
    let options = TextOptions {
        clock: ClockFormat::TimeOfDay { zone: Zone::Utc, with_date: true },
        delta: false,
        dialect: Dialect::V2_0,
        ..TextOptions::default()
    };
    let mut sink = Pretty::new(options, write_all_to(sender), Box::new(std::io::sink()));
    drain_all(&mut messages, &mut sink);
    drop(sink);
    let bytes: Vec<u8> = receiver.into_iter().flatten().collect();
    let mut lines: Vec<String> = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
    sort_equal_times(&mut lines);
    lines
}

fn sort_equal_times(lines: &mut [String]) {
    let time = |line: &str| line.split(']').next().unwrap_or_default().to_owned();
    for group in lines.chunk_by_mut(|a, b| time(a) == time(b)) {
        group.sort();
    }
}

fn reading(source: &Source, feed: Feed) -> Reading {
    let mut messages = fed(source, feed);
    let mut counts = BTreeMap::new();
    let (mut lost_events, mut lost_packets) = (0, 0);
    loop {
        match messages.advance() {
            Ok(Status::Ready) => {}
            Ok(_) => break,
            Err(_) => continue,
        }
        let name = match messages.current() {
            Some(Message::Event(_)) => "events",
            Some(Message::PacketBegin(_)) => "packets",
            Some(Message::StreamBegin(_)) => "streams",
            Some(Message::DiscardedEvents(lost)) => {
                lost_events += lost.count.unwrap_or(0);
                "losses of events"
            }
            Some(Message::DiscardedPackets(lost)) => {
                lost_packets += lost.count.unwrap_or(0);
                "losses of packets"
            }
            _ => continue,
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    Reading { lines: text(fed(source, feed)), lost_events, lost_packets, counts }
}

/// Writes a trace; gives the errors of reading it.
fn write(source: &Source, feed: Feed, version: CtfVersion, to: &Path) -> Result<Vec<String>, String> {
    let mut sink = CtfSink::new(CtfOptions { version, ..CtfOptions::new(to) });
    let errors = drain_all(&mut fed(source, feed), &mut sink);
    sink.finish().map_err(|e| e.to_string())?;
    Ok(errors)
}

fn babeltrace2(path: &Path) -> Option<Vec<String>> {
    let output = Command::new("babeltrace2")
        .args(["--clock-gmt", "--clock-date", "--no-delta"])
        .arg(path)
        .env("TZ", "UTC")
        .env("BABELTRACE_TERM_COLOR", "NEVER")
        .output()
        .ok()?;
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    sort_equal_times(&mut lines);
    output.status.success().then_some(lines)
}

/// Traces of the corpus that our reader opens.
fn corpus(test: &str, mut check: impl FnMut(&str, &Path, &Source, &Scratch) -> Result<bool, String>) {
    let Some(traces) = traces() else {
        return;
    };
    let (mut wrong, mut right) = (String::new(), 0);
    let mut names: Vec<_> = std::fs::read_dir(&traces).unwrap().flatten().map(|e| e.path()).collect();
    names.sort();
    for directory in names {
        let trace = directory.join("trace");
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(source) = open(&trace) else {
            continue;
        };
        if source.streams().next().is_none() {
            continue;
        }
        let scratch = Scratch::new(&format!("{test}-{name}"));
        match check(&name, &trace, &source, &scratch) {
            Ok(true) => right += 1,
            Ok(false) => {}
            Err(why) => wrong.push_str(&format!("== {name}: {why}\n")),
        }
    }
    assert!(wrong.is_empty(), "{right} right, but:\n{wrong}");
    assert!(right > 20, "only {right} traces");
    eprintln!("{test}: {right} traces");
}

fn differing(a: &Reading, b: &Reading) -> Option<String> {
    if a == b {
        return None;
    }
    let at = a.lines.iter().zip(&b.lines).position(|(a, b)| a != b);
    let lines = at.map(|at| format!("line {at}:\n{}\n{}", a.lines[at], b.lines[at]));
    let lost = |r: &Reading| format!("{:?} lost {} {}", r.counts, r.lost_events, r.lost_packets);
    Some(format!("{} / {} {}", lost(a), lost(b), lines.unwrap_or_default()))
}

/// Writes in a version, reads back, and compares.
fn round_trip(source: &Source, feed: Feed, version: CtfVersion, to: &Path) -> Result<Source, String> {
    let errors = write(source, feed, version, to)?;
    let back = open(to).map_err(|e| e.to_string())?;
    let (mut want, mut got) = (reading(source, feed), reading(&back, Feed::Packets));
    if !errors.is_empty() {
        // A stream that ends with an error may leave an empty file, which no reader takes up.
        for reading in [&mut want, &mut got] {
            reading.counts.remove("streams");
        }
    }
    if let Feed::Every(_) = feed {
        // A time that can not be told after the event before begins a new packet.
        assert!(got.counts.remove("packets") >= want.counts.remove("packets"));
    }
    match differing(&want, &got) {
        None => Ok(back),
        Some(why) => Err(format!("{feed:?} {version:?}: {why}")),
    }
}

/// CTF 1.8 has no flags, and no hyphens in names.
const INEXPRESSIBLE: [&str; 2] = ["bt2-fl-bm", "bt2-clock-offset-goes-back-in-time"];

fn version_of(source: &Source) -> CtfVersion {
    source.traces().first().map_or(CtfVersion::V1_8, |trace| trace.class.version)
}

#[test]
fn packets_are_copied() {
    corpus("packets", |_, _, source, scratch| {
        let version = version_of(source);
        round_trip(source, Feed::Packets, version, &scratch.0.join("out")).map(|_| true)
    });
}

#[test]
fn records_are_copied() {
    corpus("records", |_, _, source, scratch| {
        let version = version_of(source);
        round_trip(source, Feed::Records, version, &scratch.0.join("out")).map(|_| true)
    });
}

#[test]
fn some_events_are_left_out() {
    corpus("some", |_, _, source, scratch| {
        for n in [3, 1000] {
            let path = scratch.0.join(n.to_string());
            round_trip(source, Feed::Every(n), version_of(source), &path)?;
        }
        Ok(true)
    });
}

#[test]
fn the_other_version_and_back() {
    corpus("version", |name, _, source, scratch| {
        let version = version_of(source);
        let other = if version == CtfVersion::V2 { CtfVersion::V1_8 } else { CtfVersion::V2 };
        if other == CtfVersion::V1_8 && INEXPRESSIBLE.contains(&name) {
            return Ok(false);
        }
        let there = round_trip(source, Feed::Packets, other, &scratch.0.join("there"))?;
        if there.streams().next().is_none() {
            // The input's only stream has no packet that can be read.
            return Ok(false);
        }
        round_trip(&there, Feed::Packets, version, &scratch.0.join("back")).map(|_| true)
    });
}

#[test]
fn babeltrace_reads_what_we_write() {
    if Command::new("babeltrace2").arg("--version").output().is_err() {
        eprintln!("SKIPPED: babeltrace2 is not installed");
        return;
    }
    corpus("babeltrace2", |name, trace, source, scratch| {
        // The large ones show nothing that their smaller sisters do not.
        if name.starts_with("tc-m") || INEXPRESSIBLE.contains(&name) {
            return Ok(false);
        }
        let want = if version_of(source) == CtfVersion::V2 {
            // Debian's is too old for CTF 2: its text is ours.
            text(source.messages())
        } else {
            match babeltrace2(trace) {
                Some(lines) => lines,
                None => return Ok(false),
            }
        };
        for feed in [Feed::Packets, Feed::Records] {
            let path = scratch.0.join(format!("{feed:?}"));
            write(source, feed, CtfVersion::V1_8, &path)?;
            let got = babeltrace2(&path).ok_or_else(|| format!("{feed:?}: babeltrace2 refuses it"))?;
            if let Some(at) = want.iter().zip(&got).position(|(a, b)| a != b) {
                return Err(format!("{feed:?}: line {at}\n{}\n{}", want[at], got[at]));
            }
            if want.len() != got.len() {
                return Err(format!("{feed:?}: {} lines, not {}", got.len(), want.len()));
            }
        }
        Ok(true)
    });
}
