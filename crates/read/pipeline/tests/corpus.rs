//! The corpus through source and muxer: counts of messages against Babeltrace's counter, and time
//! and name of every event, in order, against Babeltrace's text.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sillage_ctf::{Message, MetadataOptions};
use sillage_pipeline::sources::{Options, open_all};
use sillage_pipeline::{Messages, Status};

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

/// What a run over a trace gave.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    events: u64,
    packets: u64,
    streams: u64,
    discarded_events: u64,
    discarded_packets: u64,
    lost_events: u64,
    lost_packets: u64,
    errors: Vec<String>,
}

/// Reads everything; calls `line` with time of day and name of each event.
fn read(path: &Path, lenient: bool, mut line: impl FnMut(Option<i64>, &str)) -> Counts {
    let mut counts = Counts::default();
    let options =
        Options { metadata: MetadataOptions { lenient, ..Default::default() }, ..Default::default() };
    let source = match open_all(&[path.to_path_buf()], &options) {
        Ok(source) => source,
        Err(error) => {
            counts.errors.push(error.to_string());
            return counts;
        }
    };
    let mut messages = source.messages();
    loop {
        match messages.advance() {
            Ok(Status::Ready) => {}
            Ok(Status::Pending | Status::End) => return counts,
            Err(error) => {
                counts.errors.push(error.to_string());
                continue;
            }
        }
        match messages.current().expect("ready") {
            Message::Event(event) => {
                counts.events += 1;
                line(event.clock.and_then(|clock| clock.ns), event.name());
            }
            Message::PacketBegin(_) => counts.packets += 1,
            Message::StreamBegin(_) => counts.streams += 1,
            Message::DiscardedEvents(lost) => {
                counts.discarded_events += 1;
                counts.lost_events += lost.count.unwrap_or(0);
            }
            Message::DiscardedPackets(lost) => {
                counts.discarded_packets += 1;
                counts.lost_packets += lost.count.unwrap_or(0);
            }
            _ => {}
        }
    }
}

/// The number after `"key":`, the last one in the text.
fn number(json: &str, key: &str) -> u64 {
    let at = json.rfind(&format!("\"{key}\":")).expect(key);
    let digits: String =
        json[at + key.len() + 3..].trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect(key)
}

fn text(json: &str, key: &str) -> String {
    let at = json.find(&format!("\"{key}\":")).expect(key);
    json[at + key.len() + 3..].split('"').nth(1).unwrap_or_default().to_owned()
}

/// The corpus's expected text, decompressed if need be.
fn expected(dir: &Path) -> Option<String> {
    let plain = dir.join("expected.txt");
    if plain.exists() {
        return Some(String::from_utf8_lossy(&std::fs::read(plain).ok()?).into_owned());
    }
    let mut child =
        Command::new("zstdcat").arg(dir.join("expected.txt.zst")).stdout(Stdio::piped()).spawn().ok()?;
    let mut bytes = Vec::new();
    child.stdout.take()?.read_to_end(&mut bytes).ok()?;
    child.wait().ok()?.success().then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// `[hh:mm:ss.nnnnnnnnn] (+d) host:proc name: …` as in the expected text, without the delta.
fn shown(ns: Option<i64>, name: &str) -> String {
    let Some(ns) = ns else {
        return format!("- {name}");
    };
    let (s, n) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let day = s.rem_euclid(86400);
    format!("{:02}:{:02}:{:02}.{n:09} {name}", day / 3600, day / 60 % 60, day % 60)
}

/// Whether a line of Babeltrace's is of an event of this time and name.
fn line_fits(line: &str, ns: Option<i64>, name: &str) -> bool {
    let time_fits = match ns {
        Some(_) => line.starts_with(&format!("[{}]", &shown(ns, "")[..18])),
        None => !line.starts_with('['),
    };
    time_fits && line.contains(&format!("{name}: "))
}

/// Rows in which we do better than the tool that made the expected counts: events that must come.
const BETTER: [(&str, u64); 5] = [
    ("tc-CTF2-7.0-barectf-event-before-packet", 2),
    ("tc-CTF2-7.0-debug-info", 4),
    ("tc-CTF2-7.0-lttng-crash", 400),
    ("tc-CTF2-7.0-meta-variant-no-underscore", 1),
    ("tc-funky_trace", 100_000),
];

#[test]
fn counts_and_order_of_the_whole_corpus() {
    let Some(traces) = traces() else { return };
    let mut wrong = String::new();
    let mut right = 0;
    let mut rows: Vec<_> = std::fs::read_dir(&traces).expect("corpus").flatten().collect();
    rows.sort_by_key(std::fs::DirEntry::file_name);
    for row in rows {
        let dir = row.path();
        let name = row.file_name().to_string_lossy().into_owned();
        let Ok(info) = std::fs::read_to_string(dir.join("info.json")) else {
            continue;
        };
        let mut problems = String::new();
        let kind = text(&info, "kind");
        let want_text = expected(&dir);
        let mut lines = want_text.as_deref().unwrap_or_default().lines();
        let mut misfits = 0;
        let better = BETTER.iter().find(|(row, _)| *row == name);
        // The text of a trimmed run lacks lines; a failing run may stop earlier than we do.
        let compare = kind == "ok" && better.is_none();
        let counts = read(&dir.join("trace"), better.is_some(), |ns, name| {
            if !compare {
                return;
            }
            let line = lines.next().unwrap_or_default();
            if !line_fits(line, ns, name) {
                misfits += 1;
                if misfits < 4 {
                    let _ = writeln!(problems, "  want {line:.150}\n  got  {}", shown(ns, name));
                }
            }
        });
        if misfits > 0 {
            let _ = writeln!(problems, "  {misfits} lines differ");
        }
        let failing = kind == "fail";
        if failing == counts.errors.is_empty() {
            let _ = writeln!(problems, "  errors: {:?}", counts.errors);
        }
        if let Some((_, events)) = better {
            if counts.events < *events {
                let _ = writeln!(problems, "  {counts:?}");
            }
        } else if !text(&info, "kind").starts_with("isect") {
            let want = ["events", "packets", "streams"].map(|key| number(&info, key));
            let got = [counts.events, counts.packets, counts.streams];
            let lost = [number(&info, "discarded_events"), number(&info, "discarded_packets")];
            if (!failing && want != got) || (failing && got[0] < want[0]) {
                let _ = writeln!(problems, "  want {want:?} got {got:?}");
            }
            if !failing && lost != [counts.lost_events, counts.lost_packets] {
                let _ = writeln!(problems, "  want lost {lost:?} got {counts:?}");
            }
        }
        if problems.is_empty() {
            right += 1;
        } else {
            let _ = writeln!(wrong, "== {name} ({kind})\n{problems}");
        }
    }
    assert!(wrong.is_empty(), "{right} right, but:\n{wrong}");
    assert_eq!(right, 89);
}
