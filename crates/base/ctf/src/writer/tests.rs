//! Round trips of the one-field traces: read, write in both versions, read again; copied where the
//! writer copies, and encoded field by field.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PacketValues, PacketWriter, TraceWriter};
use crate::decode::{FieldVisitor, Node, PacketDecoder};
use crate::message::{Event, Packet};
use crate::metadata::{MetadataOptions, MetadataReader};
use crate::model::{ClockSnapshot, CtfVersion, Scope, Stream, Trace, TraceClass};

fn fields_dir() -> PathBuf {
    std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from)
        .join("traces/fields")
}

/// The leaves of an event as text, without what only the target has.
#[derive(Default)]
struct Leaves(Vec<String>);

impl Leaves {
    fn put(&mut self, node: &Node, text: String) {
        let own =
            node.name.starts_with('_') && (node.name.ends_with("_length") || node.name.ends_with("_tag"));
        if !own {
            self.0.push(text);
        }
    }
}

impl FieldVisitor for Leaves {
    fn unsigned(&mut self, node: &Node, value: u64) {
        self.put(node, value.to_string());
    }
    fn signed(&mut self, node: &Node, value: i64) {
        self.put(node, value.to_string());
    }
    fn boolean(&mut self, node: &Node, value: bool) {
        self.put(node, u64::from(value).to_string());
    }
    fn bits(&mut self, node: &Node, value: u64) {
        self.put(node, value.to_string());
    }
    fn real(&mut self, node: &Node, value: f64) {
        self.put(node, value.to_bits().to_string());
    }
    fn text(&mut self, node: &Node, value: &[u8]) {
        self.put(node, format!("{:?}", String::from_utf8_lossy(value)));
    }
    fn blob(&mut self, _: &Node, value: &[u8]) {
        self.0.extend(value.iter().map(u8::to_string));
    }
}

fn stream_of(class: &Arc<TraceClass>, id: u64) -> Option<Stream> {
    Some(Stream {
        index: 0,
        trace: Arc::new(Trace { index: 0, class: Arc::clone(class), name: None }),
        class: Arc::clone(class.stream_class(id)?),
        id: 0,
        name: None,
    })
}

/// All scopes of all events of a packet, and its context.
fn leaves(class: &Arc<TraceClass>, data: &[u8]) -> Result<Vec<String>, String> {
    let mut decoder = PacketDecoder::new();
    let info = decoder.start(class, data).map_err(|e| e.to_string())?;
    let stream = stream_of(class, info.stream_class_id).ok_or("no stream class")?;
    let mut out = Leaves::default();
    while decoder.next_event(&stream.class, data).map_err(|e| e.to_string())? {
        let clock = Some(ClockSnapshot { cycles: decoder.clock(), ns: None });
        let event = Event::of_decoder(&stream, clock, data, &decoder).ok_or("no event")?;
        // CTF 1.8 must give a name to every event class.
        let name = event.class.name.clone().unwrap_or_else(|| format!("event_{}", event.class.id));
        out.0.push(name);
        for scope in [Scope::PacketContext, Scope::CommonContext, Scope::SpecificContext, Scope::Payload] {
            event.visit(scope, &mut out);
        }
    }
    Ok(out.0)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    AsItComes,
    Encoded,
}

/// Writes the only packet of a trace again: its metadata and bytes.
fn rewrite(
    class: &Arc<TraceClass>,
    data: &[u8],
    version: CtfVersion,
    how: How,
) -> Result<(String, Vec<u8>), String> {
    let trace = TraceWriter::new(Arc::clone(class), version);
    let mut decoder = PacketDecoder::new();
    let info = decoder.start(class, data).map_err(|e| e.to_string())?;
    let stream = stream_of(class, info.stream_class_id).ok_or("no stream class")?;
    let mut writer = PacketWriter::new();
    let packet = Packet { stream: &stream, clock: None, info: &info, bytes: data, decoder: &decoder };
    writer.begin(&trace, &packet, PacketValues::default());
    let mut out = Vec::new();
    while decoder.next_event(&stream.class, data).map_err(|e| e.to_string())? {
        let clock = Some(ClockSnapshot { cycles: decoder.clock(), ns: None });
        let event = Event::of_decoder(&stream, clock, data, &decoder).ok_or("no event")?;
        match how {
            How::AsItComes => assert!(writer.event(&trace, &event)),
            How::Encoded => writer.encode(&stream.class, &trace.layout.streams[stream.class.index], &event),
        }
        out.extend_from_slice(writer.pending());
        writer.take_pending();
    }
    let end = writer.end(PacketValues::default());
    out.extend_from_slice(end.rest);
    if let Some(head) = end.head {
        out[..head.len()].copy_from_slice(head);
    }
    assert_eq!(out.len() as u64 * 8, end.packet_size_bits);
    Ok((trace.metadata().to_owned(), out))
}

#[test]
fn every_field_class_survives_in_both_versions() {
    let root = fields_dir();
    let Ok(entries) = std::fs::read_dir(&root) else {
        eprintln!("SKIPPED: {} is missing", root.display());
        return;
    };
    let mut wrong = String::new();
    let mut right = 0;
    for dir in entries.flatten().map(|e| e.path()).filter(|dir| dir.join("expected-field.txt").exists()) {
        let metadata = std::fs::read(dir.join("trace/metadata")).unwrap();
        let data = std::fs::read(dir.join("trace/stream")).unwrap();
        let class = MetadataReader::read(&metadata, MetadataOptions::default()).unwrap();
        let want = leaves(&class, &data).unwrap();
        for version in [CtfVersion::V1_8, CtfVersion::V2] {
            for how in [How::AsItComes, How::Encoded] {
                let mut text = String::new();
                let got = rewrite(&class, &data, version, how).and_then(|(metadata, data)| {
                    text.clone_from(&metadata);
                    let class = MetadataReader::read(metadata.as_bytes(), MetadataOptions::default())
                        .map_err(|e| e.with_source())?;
                    leaves(&class, &data)
                });
                if got.as_ref() == Ok(&want) {
                    right += 1;
                } else {
                    let name = dir.file_name().unwrap_or_default().to_string_lossy();
                    wrong.push_str(&format!("== {name} {version:?} {how:?}\n{want:?}\n{got:?}\n{text}\n"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{right} right, but:\n{wrong}");
    assert!(right >= 4 * 290, "only {right} round trips");
}
