//! Seeking and slices: whatever the way, the same messages come.

use std::path::{Path, PathBuf};

use sillage_ctf::Message;
use sillage_pipeline::sources::{Access, Options, SliceRange, Source, open_all};
use sillage_pipeline::{Messages, Status};

const TRACES: [&str; 6] = [
    "bt1-trace-with-index",
    "gen-ust-rot",
    "bt1-session-rotation",
    "tc-scp_src",
    "bt1-lttng-crash",
    "tc-memory",
];

fn open(name: &str, access: Access) -> Option<Source> {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let path = shared.join("traces").join(name).join("trace");
    if !path.is_dir() {
        eprintln!("SKIPPED: {} is missing", path.display());
        return None;
    }
    Some(open_all(&[path], &Options { access, ..Options::default() }).unwrap())
}

/// Time and kind of a message, and which stream it is of.
type Line = (Option<i64>, u8, usize);

fn line(message: Message<'_>) -> Line {
    let kind = match message {
        Message::StreamBegin(_) => 0,
        Message::StreamEnd(_) => 1,
        Message::PacketBegin(_) => 2,
        Message::PacketEnd(_) => 3,
        Message::Event(_) => 4,
        Message::DiscardedEvents(_) => 5,
        Message::DiscardedPackets(_) => 6,
        Message::Inactivity(_) => 7,
    };
    (message.clock().and_then(|clock| clock.ns), kind, message.stream().index)
}

fn collect(mut messages: impl Messages) -> Vec<Line> {
    let mut out = Vec::new();
    while messages.advance().unwrap() == Status::Ready {
        out.push(line(messages.current().unwrap()));
    }
    out
}

#[test]
fn slices_give_every_message_once() {
    for name in TRACES {
        let Some(source) = open(name, Access::Map) else { return };
        let mut whole = collect(source.messages());
        for count in [2, 3, 7] {
            let slices = source.slices(count).unwrap();
            assert!(slices.len() > 1, "{name}");
            let mut parts: Vec<Line> = slices
                .iter()
                .flat_map(|range: &SliceRange| collect(source.messages_in(*range).unwrap()))
                .collect();
            // At the cuts, messages of equal time may change places with those that have none.
            parts.sort();
            whole.sort();
            assert_eq!(parts.len(), whole.len(), "{name} in {count}");
            assert!(parts == whole, "{name} in {count}");
        }
    }
}

#[test]
fn seek_gives_the_events_from_a_time_on() {
    for name in TRACES {
        let Some(source) = open(name, Access::Map) else { return };
        let whole = collect(source.messages());
        let events: Vec<Line> = whole.into_iter().filter(|line| line.1 == 4).collect();
        let mut messages = source.messages();
        for part in [0, 1, 2, 5, 8, 9] {
            let from = events[events.len() * part / 10].0.unwrap();
            assert!(messages.seek(from).unwrap(), "{name}");
            let mut got = Vec::new();
            while messages.advance().unwrap() == Status::Ready {
                let line = line(messages.current().unwrap());
                if line.1 == 4 {
                    got.push(line);
                }
            }
            let want: Vec<Line> = events.iter().copied().filter(|line| line.0 >= Some(from)).collect();
            assert_eq!(got.len(), want.len(), "{name} from {part}/10");
            assert!(got == want, "{name} from {part}/10");
        }
    }
}

#[test]
fn read_access_gives_what_a_mapping_gives() {
    for name in TRACES {
        let (Some(mapped), Some(read)) = (open(name, Access::Map), open(name, Access::Read)) else { return };
        assert!(collect(mapped.messages()) == collect(read.messages()), "{name}");
    }
}

#[test]
fn ranges_hold_all_events() {
    for name in TRACES {
        let Some(source) = open(name, Access::Map) else { return };
        let lines = collect(source.messages());
        for range in source.stream_ranges().unwrap() {
            let (begin, end) = range.ns.unwrap();
            let of_stream = lines.iter().filter(|line| line.2 == range.stream.index && line.1 == 4);
            for line in of_stream {
                assert!((begin..=end).contains(&line.0.unwrap()), "{name}: {line:?} in {begin}..={end}");
            }
        }
    }
}
