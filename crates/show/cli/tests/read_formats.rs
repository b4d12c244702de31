//! JSON lines, CSV and Perfetto's protobuf, read whole by parsers that are not ours, and compared with
//! one another and with Debian's Babeltrace 2.

mod reading;

use std::collections::HashMap;
use std::process::{Command, Stdio};

use reading::{Scratch, babeltrace2, ok, shared, trace};
use serde_json::{Map, Value};

/// User space and kernel, contexts with threads, compounds, enumerations, losses.
fn traces() -> Vec<String> {
    let kernel = shared("reference/kernel-traces/analysis");
    let own =
        ["bt1-trace-with-index", "tc-debuginfo-test-app3", "bt1-seqnum-2-streams-lost-in-1", "bt1-sequence"];
    own.into_iter().map(trace).chain([kernel]).flatten().collect()
}

/// The lines of JSON; every one is an object.
fn json_lines(trace: &str) -> Vec<Value> {
    let text = ok(&["view", "--format", "json", trace]);
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    lines.inspect(|line: &Value| assert!(line.is_object(), "{line}")).collect()
}

/// The scopes of an event, the payload first.
fn scopes(event: &Value) -> impl Iterator<Item = &Map<String, Value>> {
    ["fields", "event_context", "context", "packet"].into_iter().filter_map(|key| event.get(key)?.as_object())
}

#[test]
fn json_lines_have_the_times_and_events_of_the_text() {
    for trace in traces() {
        let lines = json_lines(&trace);
        let events: Vec<&Value> = lines.iter().filter(|line| line.get("event").is_some()).collect();
        let text = babeltrace2(&["--clock-seconds", "--no-delta", &trace]);
        assert_eq!(events.len(), text.lines().count(), "{trace}");
        for (event, line) in events.iter().zip(text.lines()) {
            let name = event["event"].as_str().expect("a name");
            assert!(line.contains(&format!(" {name}: ")), "{event}: {line}");
            if let Some(ns) = event.get("ns") {
                let ns = ns.as_i64().expect("an integer");
                let seconds = format!("[{}.{:09}]", ns / 1_000_000_000, ns % 1_000_000_000);
                assert!(line.starts_with(&seconds), "{event}: {line}");
            }
            // Numbers and plain text of the payload stand in the line as they are. (Where text is empty,
            // Babeltrace 2.0.4 shows that of an event before.)
            for (name, value) in event.get("fields").and_then(Value::as_object).into_iter().flatten() {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'/';
                let wanted = match value {
                    Value::Number(number) if number.is_f64() => continue,
                    Value::Number(number) => format!("{name} = {number}"),
                    Value::String(text) if !text.is_empty() && text.bytes().all(is_plain) => {
                        format!("{name} = \"{text}\"")
                    }
                    _ => continue,
                };
                let is_hexadecimal = line.contains(&format!("{name} = 0"));
                assert!(is_hexadecimal || line.contains(&wanted), "{wanted}: {line}");
            }
        }
    }
}

/// Reads CSV with Python's module and gives a line of JSON for each row.
const READ_CSV: &str = "
import csv, json, sys
with open(sys.argv[1], newline='', encoding='utf-8') as file:
    for row in csv.DictReader(file, strict=True):
        assert None not in row and None not in row.values(), row
        row['fields'] = json.loads(row['fields'])
        print(json.dumps(row))
";

#[test]
fn csv_has_what_json_lines_have() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: python3 is not installed");
        return;
    }
    let scratch = Scratch::new("csv");
    for (number, trace) in traces().into_iter().enumerate() {
        let path = scratch.path(&format!("{number}.csv"));
        ok(&["convert", &trace, "-o", &path]);
        let read = Command::new("python3").args(["-c", READ_CSV, &path]).stdin(Stdio::null()).output();
        let read = read.expect("python3 runs");
        assert!(read.status.success(), "{trace}: {}", String::from_utf8_lossy(&read.stderr));
        let text = String::from_utf8(read.stdout).expect("UTF-8");
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let lines = json_lines(&trace);
        let events: Vec<&Value> = lines.iter().filter(|line| line.get("event").is_some()).collect();
        assert_eq!(rows.len(), events.len(), "{trace}");
        for (row, event) in rows.iter().zip(events) {
            let number = |key: &str| event[key].as_i64().map_or(String::new(), |number| number.to_string());
            assert_eq!(row["event"], event["event"]);
            for key in ["ns", "stream_class", "stream"] {
                assert_eq!(row[key].as_str(), Some(number(key).as_str()), "{row}");
            }
            let time = event.get("time").and_then(Value::as_str).unwrap_or_default();
            assert_eq!(row["time"].as_str(), Some(time));
            assert_eq!(row["trace"].as_str(), Some(event["trace"].as_str().unwrap_or_default()));
            // Names that two scopes have are told twice; a parser keeps the last.
            let mut all = Map::new();
            for scope in scopes(event) {
                all.extend(scope.clone());
            }
            assert_eq!(row["fields"], Value::Object(all), "{event}");
        }
    }
}

/// A value of protobuf's wire format.
#[derive(Debug, Clone)]
enum Wire {
    Number(u64),
    Bytes(Vec<u8>),
}

/// Fields of a message by their numbers, in the order of the bytes. Nothing may be left over.
fn message(bytes: &[u8]) -> Vec<(u64, Wire)> {
    let mut at = 0;
    let varint = |at: &mut usize| {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        panic!("a number of more than ten bytes");
    };
    let mut fields = Vec::new();
    while at < bytes.len() {
        let tag = varint(&mut at);
        let value = match tag & 7 {
            0 => Wire::Number(varint(&mut at)),
            1 => {
                at += 8;
                Wire::Number(u64::from_le_bytes(bytes[at - 8..at].try_into().expect("eight bytes")))
            }
            2 => {
                let len = usize::try_from(varint(&mut at)).expect("a length");
                at += len;
                Wire::Bytes(bytes[at - len..at].to_vec())
            }
            kind => panic!("wire type {kind} at {at}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn number(fields: &[(u64, Wire)], wanted: u64) -> Option<u64> {
    fields.iter().find_map(|(number, value)| match value {
        Wire::Number(value) if *number == wanted => Some(*value),
        _ => None,
    })
}

fn bytes(fields: &[(u64, Wire)], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields.iter().filter_map(move |(number, value)| match value {
        Wire::Bytes(bytes) if *number == wanted => Some(bytes.as_slice()),
        _ => None,
    })
}

fn text(fields: &[(u64, Wire)], wanted: u64) -> Option<String> {
    bytes(fields, wanted).next().map(|text| String::from_utf8(text.to_vec()).expect("UTF-8"))
}

/// A track: its parent, its name, the process and thread that it is of.
#[derive(Debug, Default, Clone, PartialEq)]
struct Track {
    parent: Option<u64>,
    name: Option<String>,
    pid: Option<u64>,
    tid: Option<u64>,
    thread_name: Option<String>,
}

/// What a trace of Perfetto's format says, by the numbers of its published `.proto` files.
#[derive(Debug, Default)]
struct Perfetto {
    clock_snapshots: usize,
    tracks: HashMap<u64, Track>,
    events: Vec<TrackEvent>,
}

/// Time, type, track, name and annotations.
type TrackEvent = (u64, u64, u64, String, Vec<(String, Value)>);

fn perfetto(file: &[u8]) -> Perfetto {
    let mut out = Perfetto::default();
    for (field, packet) in message(file) {
        let (1, Wire::Bytes(packet)) = (field, packet) else { panic!("not a packet: {field}") };
        let packet = message(&packet);
        assert_eq!(number(&packet, 10), Some(1), "trusted_packet_sequence_id");
        if let Some(snapshot) = bytes(&packet, 6).next() {
            out.clock_snapshots += 1;
            let clocks: Vec<_> = bytes(&message(snapshot), 1).map(message).collect();
            let ids: Vec<_> = clocks.iter().map(|clock| number(clock, 1)).collect();
            assert_eq!(ids, [Some(1), Some(6)], "realtime and boottime");
            assert_eq!(number(&clocks[0], 2), number(&clocks[1], 2));
        }
        if let Some(descriptor) = bytes(&packet, 60).next() {
            let descriptor = message(descriptor);
            let mut track =
                Track { parent: number(&descriptor, 5), name: text(&descriptor, 2), ..Track::default() };
            if let Some(process) = bytes(&descriptor, 3).next() {
                track.pid = number(&message(process), 1);
            }
            if let Some(thread) = bytes(&descriptor, 4).next() {
                let thread = message(thread);
                (track.pid, track.tid) = (number(&thread, 1), number(&thread, 2));
                track.thread_name = text(&thread, 5);
            }
            let uuid = number(&descriptor, 1).expect("the track's number");
            assert_eq!(out.tracks.insert(uuid, track), None, "described twice");
        }
        if let Some(event) = bytes(&packet, 11).next() {
            let event = message(event);
            let track = number(&event, 11).expect("a track");
            assert!(out.tracks.contains_key(&track), "an event before its track");
            let notes = bytes(&event, 4).map(|note| annotation(&message(note)));
            let notes = notes.map(|(name, value)| (name.expect("a name"), value)).collect();
            let kind = number(&event, 9).expect("a type");
            let name = text(&event, 23).expect("a name");
            out.events.push((number(&packet, 8).expect("a time"), kind, track, name, notes));
        }
    }
    out
}

/// A debug annotation: name and value.
fn annotation(note: &[(u64, Wire)]) -> (Option<String>, Value) {
    let name = text(note, 10);
    let is_array = bytes(note, 12).next().is_some();
    let value = if let Some(flag) = number(note, 2) {
        Value::Bool(flag != 0)
    } else if let Some(value) = number(note, 3) {
        value.into()
    } else if let Some(value) = number(note, 4) {
        value.cast_signed().into()
    } else if let Some(bits) = number(note, 5) {
        f64::from_bits(bits).into()
    } else if let Some(text) = text(note, 6) {
        text.into()
    } else if is_array {
        bytes(note, 12).map(|element| annotation(&message(element)).1).collect()
    } else {
        let members = bytes(note, 11).map(|member| annotation(&message(member)));
        members.map(|(name, value)| (name.expect("a name"), value)).collect()
    };
    (name, value)
}

/// A value of JSON lines in the form of annotations: enumerations are their first label.
fn annotated(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            match (members.get("labels").and_then(Value::as_array), members.get("value")) {
                (Some(labels), Some(value)) => labels.first().unwrap_or(value).clone(),
                _ => members.iter().map(|(name, value)| (name.clone(), annotated(value))).collect(),
            }
        }
        // An empty one can not be told from an empty structure.
        Value::Array(elements) if elements.is_empty() => Value::Object(Map::new()),
        Value::Array(elements) => elements.iter().map(annotated).collect(),
        other => other.clone(),
    }
}

/// Type and name of an event on the track of a thread.
fn edge(name: &str) -> (u64, &str) {
    let kinds = [("_entry", 1), ("_exit", 2), ("_begin", 1), ("_end", 2)];
    if let Some(found) = kinds.iter().find_map(|(end, kind)| Some((*kind, name.strip_suffix(end)?))) {
        return found;
    }
    let calls = [("syscall_entry_", 1), ("syscall_exit_", 2)];
    calls.iter().find_map(|(start, kind)| Some((*kind, name.strip_prefix(start)?))).unwrap_or((3, name))
}

#[test]
fn perfetto_has_what_json_lines_have() {
    let scratch = Scratch::new("perfetto");
    let mut threads = 0;
    let mut slices = 0;
    for (number, trace) in traces().into_iter().enumerate() {
        let path = scratch.path(&format!("{number}.pftrace"));
        ok(&["convert", &trace, "-o", &path]);
        let file = perfetto(&std::fs::read(&path).expect("it was written"));
        assert_eq!(file.clock_snapshots, 1);
        let lines = json_lines(&trace);
        assert_eq!(file.events.len(), lines.len(), "{trace}");
        for ((ns, kind, track, name, notes), line) in file.events.iter().zip(&lines) {
            let track = &file.tracks[track];
            if let Some(what) = line.get("lost").and_then(Value::as_str) {
                assert_eq!((*kind, name.as_str()), (3, format!("lost {what}").as_str()));
                assert_eq!(Some(*ns), line.get("begin_ns").map_or(Some(0), Value::as_u64));
                let count = line["count"].as_u64().map(|count| ("count".to_owned(), count.into()));
                assert_eq!(notes.first(), count.as_ref());
                continue;
            }
            assert_eq!(Some(*ns), line.get("ns").map_or(Some(0), Value::as_u64), "{line}");
            let context = |wanted: &[&str]| {
                let scopes = || ["event_context", "context"].into_iter().filter_map(|key| line.get(key));
                wanted.iter().find_map(|name| scopes().find_map(|scope| scope.get(name)?.as_u64()))
            };
            let full = line["event"].as_str().expect("a name");
            match context(&["vtid", "tid"]) {
                Some(tid) => {
                    threads += 1;
                    assert_eq!(((*kind, name.as_str()), track.tid), (edge(full), Some(tid)), "{line}");
                    slices += u32::from(*kind != 3);
                    if let Some(pid) = context(&["vpid", "pid"]) {
                        assert_eq!(track.pid, Some(pid));
                    }
                    let parent = &file.tracks[&track.parent.expect("its process")];
                    assert_eq!((parent.pid, parent.tid), (track.pid, None));
                }
                None => {
                    assert_eq!((*kind, name.as_str(), track.tid), (3, full, None), "{line}");
                    let stream = format!("stream {}/{}", line["stream_class"], line["stream"]);
                    assert!(track.name.as_ref().is_some_and(|name| name.ends_with(&stream)), "{track:?}");
                }
            }
            let wanted = scopes(line).flatten().filter(|(_, value)| !value.is_null());
            let wanted: Vec<_> = wanted.map(|(name, value)| (name.clone(), annotated(value))).collect();
            let sorted = |notes: &[(String, Value)]| {
                let mut texts: Vec<_> = notes.iter().map(|(name, value)| format!("{name}={value}")).collect();
                texts.sort();
                texts
            };
            assert_eq!(sorted(notes), sorted(&wanted), "{line}");
        }
    }
    assert!(threads > 1000 && slices > 500, "{threads} {slices}");
}
