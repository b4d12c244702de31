//! Traces of the corpus with bytes changed at random: whatever comes, the reader ends, without a
//! panic and without taking memory by what the bytes say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sillage_ctf::model::{Scope, Stream, Trace, TraceClass};
use sillage_ctf::{Event, Field, MetadataOptions, MetadataReader, PacketDecoder, Value};

/// Events of one packet that are looked at: a changed byte may make very many of them.
const EVENTS_MAX: usize = 3000;
/// Fields of one event that are looked at.
const FIELDS_MAX: usize = 1000;

/// Xorshift: the same bytes are changed in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    /// Changes, doubles, cuts or overwrites a few bytes.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.below(256) as u8,
                2 => bytes[at] = [0, 0xff, 0x80, b'0', b'9', b'[', b'{', b'"'][self.below(8)],
                3 => bytes.truncate(at),
                4 => {
                    let to = (at + 1 + self.below(40)).min(bytes.len());
                    let piece = bytes[at..to].to_vec();
                    let into = self.below(bytes.len());
                    bytes.splice(into..into, piece);
                }
                _ => {
                    let to = (at + 1 + self.below(12)).min(bytes.len());
                    bytes.drain(at..to);
                }
            }
        }
    }
}

/// Every field that can be reached, up to a number.
fn touch(field: &Field<'_>, left: &mut usize) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    match field.value() {
        Value::Struct(fields) | Value::Array(fields) => {
            for field in fields.take(FIELDS_MAX) {
                touch(&field, left);
            }
        }
        Value::Optional(Some(field)) | Value::Variant(_, Some(field)) => touch(&field, left),
        _ => {}
    }
}

/// Reads the packets of a file as far as they go.
fn read(class: &Arc<TraceClass>, data: &[u8]) -> usize {
    let trace = Arc::new(Trace { index: 0, class: Arc::clone(class), name: None });
    let mut decoder = PacketDecoder::new();
    let mut from = 0;
    let mut events = 0;
    for _ in 0..50 {
        let Some(data) = data.get(from..).filter(|data| !data.is_empty()) else { break };
        let Ok(info) = decoder.start(class, data) else { break };
        let Some(stream_class) = class.stream_class(info.stream_class_id) else { break };
        let stream = Stream {
            index: 0,
            trace: Arc::clone(&trace),
            class: Arc::clone(stream_class),
            id: 0,
            name: None,
        };
        for _ in 0..EVENTS_MAX {
            match decoder.next_event(&stream.class, data) {
                Ok(true) => {}
                Ok(false) | Err(_) => break,
            }
            events += 1;
            let Some(event) = Event::of_decoder(&stream, None, data, &decoder) else { continue };
            for scope in [Scope::PacketContext, Scope::CommonContext, Scope::SpecificContext, Scope::Payload]
            {
                if let Some(root) = event.scope(scope) {
                    touch(&root, &mut FIELDS_MAX.clone());
                }
            }
        }
        let Ok((_, packet_bits)) = info.sizes(data.len() as u64) else { break };
        from += (packet_bits / 8) as usize;
    }
    events
}

fn load(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Ok(metadata) = std::fs::read(dir.join("metadata")) else { return Vec::new() };
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_file() && entry.file_name() != "metadata" && out.len() < 2 {
            let mut bytes = std::fs::read(&path).unwrap_or_default();
            bytes.truncate(60_000);
            out.push((metadata.clone(), bytes));
        }
    }
    out
}

#[test]
fn spoiled_traces_end_well() {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let mut seeds = Vec::new();
    for set in ["traces", "traces/fields"] {
        for entry in std::fs::read_dir(shared.join(set)).into_iter().flatten().flatten() {
            seeds.extend(load(&entry.path().join("trace")));
        }
    }
    if seeds.is_empty() {
        eprintln!("SKIPPED: {} has no traces", shared.display());
        return;
    }
    seeds.sort();
    let rounds: usize = std::env::var("SILLAGE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut read_events, mut bad_metadata) = (0, 0);
    for round in 0..rounds {
        let (metadata, data) = &seeds[random.below(seeds.len())];
        if metadata.len() > 100_000 && round % 20 != 0 {
            continue;
        }
        let (mut metadata, mut data) = (metadata.clone(), data.clone());
        match round % 3 {
            0 => random.spoil(&mut metadata),
            1 => random.spoil(&mut data),
            _ => {
                random.spoil(&mut metadata);
                random.spoil(&mut data);
            }
        }
        let options = MetadataOptions { lenient: round % 2 == 0, ..MetadataOptions::default() };
        match MetadataReader::read(&metadata, options) {
            Ok(class) => read_events += read(&class, &data),
            Err(error) => {
                bad_metadata += 1;
                assert!(!error.with_source().is_empty());
            }
        }
    }
    // Both ways must have been tried, or the test shows nothing.
    assert!(read_events > 1000 && bad_metadata > rounds / 20, "{read_events} {bad_metadata}");
}
