//! CTF 1.8 metadata out of a trace class, and the layouts of the fields that it describes.
//!
//! Every field that CTF 1.8 can express keeps its size, order and alignment, so that packets can be
//! copied as they are. The others change: LEB128 integers to 64 bits, UTF-16 and UTF-32 text to
//! UTF-8, 16- and 128-bit reals to 64 bits, reversed bits to native order, optional fields to
//! variants with a tag of their own, counts and selectors that TSDL can not refer to are written
//! again beside the field. User attributes, namespaces and names of CTF 2 are not written.

use std::fmt::Write as _;
use std::sync::Arc;

use super::layout::{Layout, same};
use super::names::{ClockNames, quoted};
use super::tsdl_fields::Scopes;
use super::{EventLayout, StreamLayout, TraceLayout};
use crate::model::{
    ByteOrder, ClockClass, ClockOrigin, EnvValue, EventClass, Role, Scope, StreamClass, TraceClass, Uuid,
};

/// The metadata text and the layouts of everything in it.
pub(crate) fn write(class: &TraceClass) -> (String, TraceLayout) {
    let clocks = ClockNames::of(class);
    let order = class.byte_order.unwrap_or(ByteOrder::NATIVE);
    let scopes = Scopes { class, clocks: &clocks, order };
    let mut text = String::from("/* CTF 1.8 */\n\n");
    let header = trace(&mut text, &scopes);
    environment(&mut text, class);
    for clock in &class.clocks {
        write_clock(&mut text, clock, clocks.get(clock));
    }
    let mut streams = Vec::new();
    for stream in &class.stream_classes {
        streams.push(write_stream(&mut text, &scopes, stream));
    }
    (text, TraceLayout { header, streams })
}

fn trace(text: &mut String, scopes: &Scopes<'_>) -> Layout {
    let class = scopes.class;
    text.push_str("trace {\n\tmajor = 1;\n\tminor = 8;\n");
    if let Some(uuid) = class.uuid {
        let _ = writeln!(text, "\tuuid = \"{uuid}\";");
    }
    let order = if scopes.order == ByteOrder::Big { "be" } else { "le" };
    let _ = writeln!(text, "\tbyte_order = {order};");
    let layout = scopes.scope(text, Scope::PacketHeader, None, &class.header_plan, "packet.header");
    text.push_str("};\n\n");
    layout
}

fn environment(text: &mut String, class: &TraceClass) {
    if class.environment.is_empty() {
        return;
    }
    text.push_str("env {\n");
    for (key, value) in &class.environment {
        let key = super::names::identifier(key);
        let _ = match value {
            EnvValue::Integer(value) => writeln!(text, "\t{key} = {value};"),
            EnvValue::Text(value) => writeln!(text, "\t{key} = {};", quoted(value)),
        };
    }
    text.push_str("};\n\n");
}

fn write_clock(text: &mut String, clock: &ClockClass, name: &str) {
    let _ = writeln!(text, "clock {{\n\tname = \"{name}\";");
    let uuid = clock.uuid.or_else(|| clock.uid.as_deref().and_then(Uuid::parse));
    if let Some(uuid) = uuid {
        let _ = writeln!(text, "\tuuid = \"{uuid}\";");
    }
    if let Some(description) = &clock.description {
        let _ = writeln!(text, "\tdescription = {};", quoted(description));
    }
    let _ = writeln!(text, "\tfreq = {};", clock.frequency_hz);
    if let Some(precision) = clock.precision_cycles {
        let _ = writeln!(text, "\tprecision = {precision};");
    }
    let _ = writeln!(text, "\toffset_s = {};\n\toffset = {};", clock.offset_s, clock.offset_cycles);
    let absolute = clock.origin == ClockOrigin::UnixEpoch;
    let _ = writeln!(text, "\tabsolute = {absolute};\n}};\n");
}

fn write_stream(text: &mut String, scopes: &Scopes<'_>, stream: &StreamClass) -> StreamLayout {
    let numbered = has_role(&scopes.class.header_plan, Role::StreamClassId);
    text.push_str("stream {\n");
    if numbered {
        let _ = writeln!(text, "\tid = {};", stream.id);
    }
    let plan = &stream.plan;
    let mut layout = StreamLayout {
        header: scopes.scope(text, Scope::EventHeader, Some(stream), &plan.header, "event.header"),
        context: Layout::default(),
        common: Layout::default(),
        events: Vec::new(),
        copy_aligns: Arc::new([]),
        add_packet_size: !has_role(&plan.context, Role::PacketSize),
        add_content_size: !has_role(&plan.context, Role::ContentSize),
    };
    layout.context = packet_context(text, scopes, stream, &layout);
    layout.common = scopes.scope(text, Scope::CommonContext, Some(stream), &plan.common, "event.context");
    text.push_str("};\n\n");
    for event in &stream.event_classes {
        let written = write_event(text, scopes, stream, event, numbered);
        layout.events.push(written);
    }
    layout
}

/// The context, with the sizes that the source does not have.
fn packet_context(
    text: &mut String,
    scopes: &Scopes<'_>,
    stream: &StreamClass,
    layout: &StreamLayout,
) -> Layout {
    let plan = &stream.plan.context;
    let mut added = String::new();
    for (add, name) in [(layout.add_packet_size, "packet_size"), (layout.add_content_size, "content_size")] {
        if add {
            let _ = writeln!(added, "\t\t{} {name};", scopes.own_integer(64));
        }
    }
    if added.is_empty() {
        return scopes.scope(text, Scope::PacketContext, Some(stream), plan, "packet.context");
    }
    let (mut body, mut written) = scopes.members(Scope::PacketContext, Some(stream), plan);
    body.push_str(&added);
    let align = written.slots.first().map_or(8, |slot| slot.align.max(8));
    let _ = writeln!(text, "\tpacket.context := struct {{\n{body}\t}} align({align});");
    if let Some(root) = written.slots.first_mut() {
        root.align = align;
    }
    Layout::new(written.slots, false)
}

fn write_event(
    text: &mut String,
    scopes: &Scopes<'_>,
    stream: &StreamClass,
    event: &EventClass,
    numbered: bool,
) -> EventLayout {
    let name = event.name.clone().unwrap_or_else(|| format!("event_{}", event.id));
    let _ = writeln!(text, "event {{\n\tname = {};", quoted(&name));
    let only = stream.event_classes.len() == 1 && event.id == 0;
    if has_role(&stream.plan.header, Role::EventClassId) || !only {
        let _ = writeln!(text, "\tid = {};", event.id);
    }
    if numbered {
        let _ = writeln!(text, "\tstream_id = {};", stream.id);
    }
    if let Some(level) = event.log_level {
        let _ = writeln!(text, "\tloglevel = {};", level.number());
    }
    if let Some(uri) = &event.emf_uri {
        let _ = writeln!(text, "\tmodel.emf.uri = {};", quoted(uri));
    }
    let plan = &event.plan;
    let of = Some(stream);
    let specific = scopes.scope(text, Scope::SpecificContext, of, &plan.specific, "context");
    let payload = scopes.scope(text, Scope::Payload, of, &plan.payload, "fields");
    text.push_str("};\n\n");
    EventLayout { specific, payload }
}

pub(super) fn has_role(plan: &crate::decode::Plan, role: Role) -> bool {
    plan.nodes.iter().any(|node| node.roles.contains(role))
}

/// Whether a written slot is what the source has.
pub(super) fn unchanged(slot: &super::layout::Slot, node: &crate::decode::Node) -> bool {
    let source = same(&node.class);
    slot.form == source.form && slot.align == source.align
}
