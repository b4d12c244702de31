//! Events given in runs are those that would have come one by one, up to the order between streams,
//! and everything goes on behind them as if they had.

use std::path::{Path, PathBuf};

use sillage_ctf::Message;
use sillage_ctf::model::CtfVersion;
use sillage_pipeline::filters::{Bound, Trimmer};
use sillage_pipeline::sinks::ctf::{CtfOptions, CtfSink};
use sillage_pipeline::sinks::{Stats, Zone, drain};
use sillage_pipeline::sources::{SliceRange, Source};
use sillage_pipeline::{Error, Messages, Run, Status, TakesRuns};

/// Kind, stream, time and place of a message; a text for a failure.
type Line = (u8, usize, Option<i64>, u64, String);

fn line(message: &Message<'_>) -> Line {
    let ns = message.clock().and_then(|clock| clock.ns);
    let (kind, at) = match message {
        Message::Event(event) => (0, event.record_bits().0),
        Message::StreamBegin(_) => (1, 0),
        Message::StreamEnd(_) => (2, 0),
        Message::PacketBegin(packet) => (3, packet.bytes.len() as u64),
        Message::PacketEnd(_) => (4, 0),
        Message::DiscardedEvents(loss) => (5, loss.count.unwrap_or(0)),
        Message::DiscardedPackets(loss) => (6, loss.count.unwrap_or(0)),
        Message::Inactivity(_) => (7, 0),
    };
    (kind, message.stream().index, ns, at, String::new())
}

/// Goes on; false at the end.
fn step(messages: &mut impl Messages, out: &mut Vec<Line>) -> bool {
    match messages.advance() {
        Ok(Status::Ready) => out.extend(messages.current().iter().map(line)),
        Ok(_) => return false,
        Err(error) => out.push((9, 0, None, 0, error.to_string())),
    }
    true
}

fn one_by_one(mut messages: impl Messages) -> Vec<Line> {
    let mut out = Vec::new();
    while step(&mut messages, &mut out) {}
    out
}

struct Keep {
    room: usize,
    lines: Vec<Line>,
}

/// Takes only some of each run.
struct Part<'a>(&'a mut Vec<Line>);

impl TakesRuns for Part<'_> {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn run(&mut self, run: &Run<'_>) -> Result<usize, Error> {
        let mut all = Keep { room: 0, lines: Vec::new() };
        let count = all.run(run)?;
        let some = count * (self.0.len() % 5) / 2;
        self.0.extend(all.lines.drain(..some.min(count)));
        Ok(some.min(count))
    }
}

impl TakesRuns for Keep {
    fn room(&self) -> usize {
        self.room
    }

    fn run(&mut self, run: &Run<'_>) -> Result<usize, Error> {
        assert!(!run.columns.is_empty());
        assert_eq!(run.times_ns.len(), run.columns.len());
        let rows = run.times_ns.iter().zip(run.columns.record_bits());
        self.lines.extend(rows.map(|(ns, (at, _))| (0, run.stream.index, Some(*ns), at, String::new())));
        Ok(run.columns.len())
    }
}

/// Messages, some of them in runs of which some are taken, in the order of each stream.
fn in_parts(mut messages: impl Messages) -> Vec<Line> {
    let mut out = Vec::new();
    while step(&mut messages, &mut out) {
        let before = out.len();
        let count = messages.give_runs(SliceRange::default(), &mut Part(&mut out)).unwrap();
        assert_eq!(count, out.len() - before);
    }
    out.sort_by_key(|line| line.1);
    out
}

/// The same as `want`, some of it in runs; `steps` messages are taken one by one between two runs.
/// Gives how many events came in runs.
fn in_runs(mut messages: impl Messages, want: &[Line], room: usize, steps: usize, name: &str) -> usize {
    let mut at = 0;
    let mut given = 0;
    let mut singles = Vec::new();
    'all: loop {
        for _ in 0..steps {
            let goes_on = step(&mut messages, &mut singles);
            assert_eq!(singles, want[at..at + singles.len()], "{name}: message {at}");
            at += singles.len();
            singles.clear();
            if !goes_on {
                break 'all;
            }
        }
        let mut keep = Keep { room, lines: Vec::new() };
        let count = messages.give_runs(SliceRange::default(), &mut keep).unwrap();
        assert_eq!(count, keep.lines.len(), "{name}");
        assert!(count <= room, "{name}: {count} events");
        if count > 0 {
            assert_eq!(messages.current().as_ref().map(line).as_ref(), want.get(at + count - 1), "{name}");
            let mut expected = want[at..at + count].to_vec();
            expected.sort();
            keep.lines.sort();
            assert_eq!(keep.lines, expected, "{name}: from message {at} on");
        }
        at += count;
        given += count;
    }
    assert_eq!(at, want.len(), "{name}");
    given
}

/// A source without runs.
struct Singly<M>(M);

impl<M: Messages> Messages for Singly<M> {
    fn advance(&mut self) -> Result<Status, Error> {
        self.0.advance()
    }
    fn current(&self) -> Option<Message<'_>> {
        self.0.current()
    }
}

fn stats(mut messages: impl Messages) -> String {
    let mut stats = Stats::new();
    while drain(&mut messages, &mut stats, |_| true).is_err() {}
    format!("{:?} {:?} {:?}", stats.events(), stats.streams(), stats.range_ns())
}

fn shared() -> Option<PathBuf> {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    if !shared.join("traces").is_dir() {
        eprintln!("SKIPPED: {} is missing", shared.join("traces").display());
        return None;
    }
    Some(shared)
}

/// The middle half of the time of a source.
fn middle(source: &Source) -> Option<(i64, i64)> {
    let ranges = source.stream_ranges().ok()?;
    let begin = ranges.iter().filter_map(|range| Some(range.ns?.0)).min()?;
    let end = ranges.iter().filter_map(|range| Some(range.ns?.1)).max()?;
    let quarter = end.checked_sub(begin)? / 4;
    Some((begin + quarter, end - quarter))
}

#[test]
fn runs_hold_what_comes_next() {
    let Some(shared) = shared() else { return };
    let mut given = 0;
    let mut traces = 0;
    for entry in std::fs::read_dir(shared.join("traces")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(source) = sillage_pipeline::open(path.join("trace")) else { continue };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        traces += 1;
        let want = one_by_one(source.messages());
        for (room, steps) in [(usize::MAX, 1), (97, 1), (usize::MAX, 5)] {
            given += in_runs(source.messages(), &want, room, steps, &name);
        }
        let mut by_stream = want.clone();
        by_stream.sort_by_key(|line| line.1);
        assert!(in_parts(source.messages()) == by_stream, "{name}");
        assert_eq!(stats(source.messages()), stats(Singly(source.messages())), "{name}");
        let Some((begin, end)) = middle(&source) else { continue };
        let range = SliceRange { from_ns: Some(begin), to_ns: Some(end) };
        let Ok(slice) = source.messages_in(range) else { continue };
        let want = one_by_one(slice);
        in_runs(source.messages_in(range).unwrap(), &want, usize::MAX, 1, &name);
        let trimmer = || {
            let (begin, end) = (Some(Bound::Ns(begin)), Some(Bound::Ns(end)));
            Trimmer::new(source.messages(), begin, end, Zone::Utc)
        };
        let (Ok(one), Ok(other)) = (trimmer(), trimmer()) else { continue };
        in_runs(other, &one_by_one(one), usize::MAX, 1, &name);
    }
    assert!(traces > 50 && given > 1_000_000, "{given} events of {traces} traces");
}

/// A source without whole packets.
struct InRuns<M>(M);

impl<M: Messages> Messages for InRuns<M> {
    fn advance(&mut self) -> Result<Status, Error> {
        self.0.advance()
    }
    fn current(&self) -> Option<Message<'_>> {
        self.0.current()
    }
    fn give_runs(&mut self, range: SliceRange, to: &mut dyn TakesRuns) -> Result<usize, Error> {
        self.0.give_runs(range, to)
    }
}

/// Copies a trace; gives its files.
fn copied(mut messages: impl Messages, directory: &Path, version: CtfVersion) -> Vec<(PathBuf, Vec<u8>)> {
    let _ = std::fs::remove_dir_all(directory);
    let mut sink = CtfSink::new(CtfOptions { version, ..CtfOptions::new(directory) });
    while drain(&mut messages, &mut sink, |_| true).is_err() {}
    let mut files = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(at) = directories.pop() {
        for entry in std::fs::read_dir(at).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                files.push((path.strip_prefix(directory).unwrap().to_path_buf(), bytes));
            }
        }
    }
    std::fs::remove_dir_all(directory).unwrap();
    files.sort();
    files
}

#[test]
fn copies_of_runs_are_copies_of_records() {
    let Some(shared) = shared() else { return };
    let directory = std::env::temp_dir().join(format!("sillage-runs-{}", std::process::id()));
    let names = ["gen-ust-rich", "gen-ust-lost1", "tc-many-threads", "bt1-trace-with-index", "tc-scp_src"];
    for name in names {
        let source = sillage_pipeline::open(shared.join("traces").join(name).join("trace")).unwrap();
        for version in [CtfVersion::V1_8, CtfVersion::V2] {
            let one = copied(InRuns(source.messages()), &directory, version);
            let other = copied(Singly(source.messages()), &directory, version);
            assert!(one.len() > 1 && one == other, "{name}, {version:?}");
        }
    }
}
