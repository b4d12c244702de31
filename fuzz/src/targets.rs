//! What is done with the bytes of each target.

use std::collections::VecDeque;
use std::io::{Cursor, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use sillage_bpf::btf::{Btf, TypeId};
use sillage_bpf::path::Access;
use sillage_ctf::message::{Event, Message, Packet};
use sillage_ctf::model::{ClockSnapshot, CtfVersion, Scope, Stream, Trace, TraceClass};
use sillage_ctf::writer::{PacketValues, PacketWriter, TraceWriter};
use sillage_ctf::{FieldVisitor, MetadataOptions, MetadataReader, Node, PacketDecoder, Value};
use sillage_pipeline::sinks::pretty::{self, Pretty};
use sillage_pipeline::sinks::{Output, Sink, Zone};
use sillage_pipeline::sources::dmesg::{Dmesg, DmesgOptions};
use sillage_pipeline::sources::live::{Link, Live, LiveOptions, LiveUrl, SessionNotFound};
use sillage_pipeline::{Messages, Status};
use sillage_protocol::codec::{FRAME_HEADER_BYTES, FrameHeader};
use sillage_protocol::live as wire;
use sillage_protocol::program::{ToDaemon, ToProgram};

const LENIENT: MetadataOptions =
    MetadataOptions { lenient: true, clock_offset_s: 0, clock_offset_ns: 0, force_unix_epoch: false };

/// Metadata of CTF 1.8, plain or in packets: read, and written in both versions.
pub fn tsdl(data: &[u8]) {
    metadata(data, MetadataOptions::default());
}

/// Metadata of CTF 2: read as strictly and as leniently as possible.
pub fn json(data: &[u8]) {
    let mut sequence = vec![0x1e];
    sequence.extend_from_slice(data.strip_prefix(b"\x1e").unwrap_or(data));
    metadata(&sequence, MetadataOptions::default());
    metadata(&sequence, MetadataOptions { clock_offset_s: 7, ..LENIENT });
}

fn metadata(data: &[u8], options: MetadataOptions) {
    match MetadataReader::read(data, options) {
        Ok(class) => {
            for version in [CtfVersion::V1_8, CtfVersion::V2] {
                TraceWriter::new(Arc::clone(&class), version);
            }
        }
        Err(error) => {
            error.with_source();
        }
    }
    // In pieces, as a live relay may give it.
    let mut reader = MetadataReader::new(options);
    let (first, second) = data.split_at(data.len() / 2);
    if reader.push(first).is_ok() {
        let _ = reader.snapshot();
        if reader.push(second).is_ok() {
            let _ = reader.snapshot();
        }
    }
}

/// Length of the metadata in the first four bytes, metadata, stream: every field of every event, their
/// text, and the events written again in both versions, all of them and every second one.
pub fn packets(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    let Some((metadata, stream)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else {
        return;
    };
    let Ok(class) = MetadataReader::read(metadata, LENIENT) else {
        return;
    };
    for version in [CtfVersion::V1_8, CtfVersion::V2] {
        let trace = TraceWriter::new(Arc::clone(&class), version);
        for step in [1, 2] {
            walk(&class, &trace, stream, step);
        }
    }
}

/// Sees every field, takes none.
struct All(u64);

impl FieldVisitor for All {
    fn unsigned(&mut self, _: &Node, value: u64) {
        self.0 ^= value;
    }
    fn text(&mut self, _: &Node, value: &[u8]) {
        self.0 ^= value.len() as u64;
    }
}

fn walk(class: &Arc<TraceClass>, trace: &TraceWriter, stream: &[u8], step: usize) {
    let mut decoder = PacketDecoder::new();
    let mut writer = PacketWriter::new();
    let options = pretty::Options {
        clock: pretty::ClockFormat::TimeOfDay { zone: Zone::Utc, with_date: true },
        ..pretty::Options::default()
    };
    let output = Output::new(Box::new(std::io::sink()), "nowhere");
    let mut text = Pretty::new(options, output, Box::new(std::io::sink()));
    let mut at = 0;
    // A packet is not smaller than a byte, but many of them tell no more than some.
    for _ in 0..64 {
        let Some(data) = stream.get(at..).filter(|data| !data.is_empty()) else {
            return;
        };
        let Ok(info) = decoder.start(class, data) else {
            return;
        };
        let Ok((_, packet_bits)) = info.sizes(data.len() as u64) else {
            return;
        };
        let data = &data[..(packet_bits / 8) as usize];
        let Some(stream_class) = class.stream_class(info.stream_class_id) else {
            return;
        };
        let stream = Stream {
            index: 0,
            trace: Arc::new(Trace { index: 0, class: Arc::clone(class), name: None }),
            class: Arc::clone(stream_class),
            id: 0,
            name: None,
        };
        let clock = info.begin.map(|cycles| ClockSnapshot { cycles, ns: None });
        let packet = Packet::of_decoder(&stream, clock, &info, data, &decoder);
        writer.begin(trace, &packet, PacketValues::default());
        let mut number = 0;
        let _ = text.message(&Message::PacketBegin(packet));
        // As with packets. (A context of ten thousand bits is shown with each of ten thousand events of
        // one bit: the square of the input is what its text has.)
        while number < 256 && matches!(decoder.next_event(stream_class, data), Ok(true)) {
            let clock = Some(ClockSnapshot { cycles: decoder.clock(), ns: None });
            let Some(event) = Event::of_decoder(&stream, clock, data, &decoder) else {
                break;
            };
            look(&event);
            let _ = text.message(&Message::Event(event));
            if number % step == 0 && !writer.event(trace, &event) {
                let values = PacketValues { begin: Some(decoder.clock()), ..PacketValues::default() };
                writer.end(values);
                writer.begin(trace, &event.packet(&info), values);
                writer.event(trace, &event);
            }
            number += 1;
        }
        writer.end(PacketValues::default());
        at += (packet_bits / 8) as usize;
    }
}

fn look(event: &Event<'_>) {
    let mut all = All(0);
    for scope in [
        Scope::PacketContext,
        Scope::EventHeader,
        Scope::CommonContext,
        Scope::SpecificContext,
        Scope::Payload,
    ] {
        event.visit(scope, &mut all);
        if let Some(field) = event.scope(scope) {
            depth_first(field, &mut 1000);
        }
    }
}

fn depth_first(field: sillage_ctf::Field<'_>, left: &mut u32) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    if let Value::Text(text) | Value::Blob(text) = field.value() {
        std::hint::black_box(text.len());
    }
    for child in field.children() {
        depth_first(child, left);
    }
}

/// The kernel's types, and the same bytes as those of a module: every type looked at in every way.
pub fn btf(data: &[u8]) {
    let Ok(kernel) = Btf::parse(data.to_vec()) else {
        return;
    };
    types(&kernel, 0);
    let first = kernel.end_id();
    if let Ok(module) = Btf::parse_split(data.to_vec(), Arc::new(kernel)) {
        types(&module, first);
    }
}

/// Types from a number on; the many of a large input tell no more than some.
fn types(btf: &Btf, first: u32) {
    for id in (first..btf.end_id().saturating_add(2)).take(64).map(TypeId) {
        let (kind, name) = (btf.kind(id), btf.name(id));
        std::hint::black_box((btf.strip(id), btf.target(id), btf.array(id), btf.size(id), btf.integer(id)));
        let members = btf.members(id).take(16).map(|(name, _)| name.to_owned());
        for member in members.chain(["a".to_owned()]) {
            std::hint::black_box(btf.member(id, &member));
            for path in [format!("{member}->{member}"), format!("{member}[1].{member}")] {
                let _ = (Access::resolve(btf, id, &path), Access::within(btf, id, &path));
            }
        }
        std::hint::black_box((btf.parameters(id).count(), btf.labels(id).count()));
        if let Some(found) = btf.find(kind, name) {
            // Kinds of one namespace may stand for one another.
            assert_eq!(btf.name(found), name);
        }
        std::hint::black_box(btf.names(kind, "a").count());
    }
}

/// An index file.
pub fn index(data: &[u8]) {
    if let Ok((_, entries)) = sillage_ctf::index::decode(data) {
        for entry in entries {
            std::hint::black_box(entry);
        }
    }
}

/// What a relay says, until it stops.
struct Said(VecDeque<u8>);

impl Link for Said {
    fn send(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn receive(&mut self, buffer: &mut Vec<u8>, len: usize) -> std::io::Result<()> {
        let missing = len.saturating_sub(buffer.len());
        if missing > self.0.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        buffer.extend(self.0.drain(..missing));
        Ok(())
    }
}

/// All that a relay says to a viewer of the session `s` on host `h`; and the same bytes as requests.
pub fn live(data: &[u8]) {
    let mut rest = data;
    while let Ok(wire::Progress::Done(request, used)) = wire::Request::decode(rest) {
        assert_eq!(request.encode(), rest[..used].to_vec().with_own_sizes());
        rest = &rest[used..];
    }
    let Ok(url) = LiveUrl::parse("net://localhost/host/h/s") else {
        return;
    };
    let options = LiveOptions { session_not_found: SessionNotFound::End, ..LiveOptions::default() };
    let link = Box::new(Said(data.iter().copied().collect()));
    let Ok(mut live) = Live::over(link, &url, options) else {
        return;
    };
    let mut idle = 0;
    while idle < 64 {
        match live.advance() {
            Ok(Status::Ready) => {
                std::hint::black_box(live.current().map(|message| message.clock()));
            }
            Ok(Status::Pending) | Err(_) => idle += 1,
            Ok(Status::End) => return,
        }
    }
}

/// Requests say their size and version, which no relay looks at.
trait OwnSizes {
    fn with_own_sizes(self) -> Vec<u8>;
}

impl OwnSizes for Vec<u8> {
    fn with_own_sizes(mut self) -> Vec<u8> {
        let payload = (self.len() - wire::HEADER_BYTES) as u64;
        self[..8].copy_from_slice(&payload.to_be_bytes());
        self[12..16].fill(0);
        self
    }
}

struct Record<'a>(&'a [u8]);

impl sillage_filter::Record for Record<'_> {
    fn value(&self, reference: &sillage_filter::Reference) -> Option<sillage_filter::Value<'_>> {
        use sillage_filter::Value;
        let kind = self.0.get(reference.steps.len())?;
        Some(match kind % 4 {
            0 => Value::Integer(i64::from(*kind) << 56),
            1 => Value::Real(f64::from(*kind) / 3.0),
            2 => Value::Text(self.0),
            _ => return None,
        })
    }
}

/// Text of a filter, evaluated over a record made of the same bytes.
pub fn filter(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match sillage_filter::parse(&text) {
        Ok(filter) => {
            sillage_filter::matches(&filter, &Record(data));
        }
        Err(error) => {
            error.with_source(&text);
        }
    }
}

/// Frames between a program and the session daemon, in both directions.
pub fn program(data: &[u8]) {
    let mut rest = data;
    while let Some((head, body)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let Ok(header) = FrameHeader::decode(head) else {
            return;
        };
        let body = &body[..header.body_bytes.min(body.len())];
        if let Ok(message) = ToDaemon::decode(header.kind, body) {
            let again = message.encode();
            assert_eq!(ToDaemon::decode(header.kind, &again[FRAME_HEADER_BYTES..]), Ok(message));
        }
        if let Ok(message) = ToProgram::decode(header.kind, body) {
            let again = message.encode();
            assert_eq!(ToProgram::decode(header.kind, &again[FRAME_HEADER_BYTES..]), Ok(message));
        }
        rest = &rest[FRAME_HEADER_BYTES + body.len()..];
    }
}

/// Lines of the kernel's log.
pub fn dmesg(data: &[u8]) {
    let lines = Box::new(Cursor::new(data.to_vec()));
    let Ok(mut log) = Dmesg::of(lines, PathBuf::from("log"), DmesgOptions::default()) else {
        return;
    };
    while let Ok(Status::Ready) = log.advance() {
        std::hint::black_box(log.current().is_some());
    }
}
