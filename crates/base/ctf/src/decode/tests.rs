//! The short ways give what the long way gives: every packet of the corpus is decoded twice, once
//! as always and once with every shortcut taken away, and all that comes out must be equal.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FastHeader, FieldVisitor, Node, PacketDecoder, PacketInfo, Plan};
use crate::model::{Scope, TraceClass};
use crate::{MetadataOptions, MetadataReader};

const SCOPES: [Scope; 4] = [Scope::EventHeader, Scope::CommonContext, Scope::SpecificContext, Scope::Payload];

/// A digest of what a visitor was told.
struct Heard(u64);

impl Heard {
    fn add(&mut self, what: u64, node: &Node, value: u64) {
        for word in [what, node.id as u64, value] {
            self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    fn bytes(&mut self, what: u64, node: &Node, value: &[u8]) {
        self.add(what, node, value.len() as u64);
        for byte in value {
            self.add(what, node, u64::from(*byte));
        }
    }
}

impl FieldVisitor for Heard {
    fn unsigned(&mut self, node: &Node, value: u64) {
        self.add(1, node, value);
    }
    fn signed(&mut self, node: &Node, value: i64) {
        self.add(2, node, value.cast_unsigned());
    }
    fn unsigned_leb128(&mut self, node: &Node, value: u64, size_bits: u32) {
        self.add(3 + u64::from(size_bits) * 100, node, value);
    }
    fn signed_leb128(&mut self, node: &Node, value: i64, size_bits: u32) {
        self.add(4 + u64::from(size_bits) * 100, node, value.cast_unsigned());
    }
    fn boolean(&mut self, node: &Node, value: bool) {
        self.add(5, node, u64::from(value));
    }
    fn bits(&mut self, node: &Node, value: u64) {
        self.add(6, node, value);
    }
    fn real(&mut self, node: &Node, value: f64) {
        self.add(7, node, value.to_bits());
    }
    fn text(&mut self, node: &Node, value: &[u8]) {
        self.bytes(8, node, value);
    }
    fn blob(&mut self, node: &Node, value: &[u8]) {
        self.bytes(9, node, value);
    }
    fn begin_struct(&mut self, node: &Node) {
        self.add(10, node, 0);
    }
    fn end_struct(&mut self, node: &Node) {
        self.add(11, node, 0);
    }
    fn begin_array(&mut self, node: &Node, length: u64) {
        self.add(12, node, length);
    }
    fn end_array(&mut self, node: &Node) {
        self.add(13, node, 0);
    }
    fn begin_optional(&mut self, node: &Node, present: bool) {
        self.add(14, node, u64::from(present));
    }
    fn end_optional(&mut self, node: &Node) {
        self.add(15, node, 0);
    }
    fn begin_variant(&mut self, node: &Node, option: usize) {
        self.add(16, node, option as u64);
    }
    fn end_variant(&mut self, node: &Node) {
        self.add(17, node, 0);
    }
}

fn plain(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.whole = None;
    plan.fixed_bits = None;
    plan.short = super::plan::Program::default();
    let shown = plan.shown.iter_mut();
    for program in shown.chain([&mut plan.full]) {
        // Every field is then checked against its neighbour's byte order.
        program.mixes_orders = true;
    }
    plan
}

/// The class without shortcuts.
fn plain_class(class: &TraceClass) -> TraceClass {
    let mut class = class.clone();
    for stream in &mut class.stream_classes {
        let stream = Arc::make_mut(stream);
        let plans = &mut stream.plan;
        plans.fast = FastHeader::None;
        plans.quick.clear();
        plans.ends.clear();
        for plan in [&mut plans.context, &mut plans.header, &mut plans.common] {
            *plan = Arc::new(plain(plan));
        }
        for event in &mut stream.event_classes {
            let event = Arc::make_mut(event);
            event.plan.specific = Arc::new(plain(&event.plan.specific));
            event.plan.payload = Arc::new(plain(&event.plan.payload));
        }
    }
    class
}

/// What one decoder says of the record it goes to next: clock, place, class and digests of its
/// scopes, or the fault; `None` at the end.
type Said = Option<Result<(u64, u64, u64, usize, [u64; 4]), String>>;

fn next(decoder: &mut PacketDecoder, class: &TraceClass, stream: u64, data: &[u8]) -> Said {
    let stream = class.stream_class(stream)?;
    match decoder.next_event(stream, data) {
        Ok(false) => None,
        Err(error) => Some(Err(error.to_string())),
        Ok(true) => {
            let heard = SCOPES.map(|scope| {
                let mut heard = Heard(0);
                decoder.visit(stream, data, scope, &mut heard);
                heard.0
            });
            let (mut body, mut scopes) = (Heard(0), Heard(0));
            decoder.visit_body(stream, data, &mut body);
            for scope in SCOPES.into_iter().skip(1) {
                decoder.visit(stream, data, scope, &mut scopes);
            }
            assert_eq!(body.0, scopes.0);
            let place = (decoder.event_at_bits(), decoder.next_at_bits());
            Some(Ok((decoder.clock(), place.0, place.1, decoder.event_class_position(), heard)))
        }
    }
}

/// Decodes a stream file both ways; gives the number of events.
fn both_ways(class: &TraceClass, plain: &TraceClass, path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut events = 0;
    let (mut one, mut other) = (PacketDecoder::new(), PacketDecoder::new());
    while !rest.is_empty() {
        let Ok(sizes) = PacketInfo::read(class, rest).and_then(|info| info.sizes(rest.len() as u64)) else {
            break;
        };
        let (packet, after) = rest.split_at((sizes.1 / 8) as usize);
        rest = after;
        let (Ok(info), Ok(same)) = (one.start(class, packet), other.start(plain, packet)) else { break };
        assert_eq!(info, same, "{}", path.display());
        loop {
            let quick = next(&mut one, class, info.stream_class_id, packet);
            let slow = next(&mut other, plain, info.stream_class_id, packet);
            assert_eq!(quick, slow, "{}: event {events}", path.display());
            match quick {
                Some(Ok(_)) => events += 1,
                _ => break,
            }
        }
    }
    events
}

fn traces_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            traces_below(&entry.path(), found);
        } else if entry.file_name() == "metadata" {
            found.push(directory.to_path_buf());
        }
    }
}

#[test]
fn shortcuts_change_nothing_in_the_whole_corpus() {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let mut directories = Vec::new();
    traces_below(&shared.join("traces"), &mut directories);
    traces_below(&shared.join("reference/kernel-traces"), &mut directories);
    if directories.is_empty() {
        eprintln!("SKIPPED: no traces below {}", shared.display());
        return;
    }
    let mut events = 0;
    for directory in directories {
        let metadata = std::fs::read(directory.join("metadata")).unwrap_or_default();
        let Ok(class) = MetadataReader::read(&metadata, MetadataOptions::default()) else { continue };
        let plain = plain_class(&class);
        let mut files: Vec<_> = std::fs::read_dir(&directory).into_iter().flatten().flatten().collect();
        files.retain(|file| file.file_name() != "metadata" && file.path().is_file());
        files.sort_by_key(std::fs::DirEntry::file_name);
        events += files.iter().map(|file| both_ways(&class, &plain, &file.path())).sum::<u64>();
    }
    assert!(events > 1_000_000, "only {events} events were compared");
}
