//! CTF 2 metadata out of a trace class.
//!
//! CTF 2 expresses everything that the model holds, with the same bits, so the packets of any trace
//! stay as they are. References are written from the root of a scope. Log level and EMF URI of a
//! CTF 1.8 trace become attributes in LTTng's namespace.

use std::fmt::Write as _;
use std::sync::Arc;

use super::layout::Layout;
use super::tsdl::has_role;
use super::{EventLayout, StreamLayout, TraceLayout};
use crate::model::{
    Attributes, BitLayout, ByteOrder, ClockClass, ClockOrigin, CtfVersion, Datum, DisplayBase, EnvValue,
    EventClass, FieldClass, FieldKind, FieldPath, FieldRef, IntRange, IntegerClass, IntegerLayout, Length,
    PathItem, Role, Roles, Scope, StreamClass, StringEncoding, StringExtent, TraceClass,
};

const LTTNG: &str = "lttng.org,2009";

/// The metadata text and the layouts, which are the source's (but for sizes that it lacks).
pub(crate) fn write(class: &TraceClass) -> (String, TraceLayout) {
    let mut text = String::new();
    preamble(&mut text, class);
    trace(&mut text, class);
    for clock in &class.clocks {
        fragment(&mut text, "clock-class", |out| write_clock(out, clock));
    }
    let mut streams = Vec::new();
    for stream in &class.stream_classes {
        let writer = FieldWriter { class, stream: Some(stream), event: None };
        let context = &stream.plan.context;
        let add_packet_size = !has_role(context, Role::PacketSize);
        let add_content_size = !has_role(context, Role::ContentSize);
        fragment(&mut text, "data-stream-class", |out| {
            write_stream(out, &writer, stream, add_packet_size, add_content_size);
        });
        let mut context = Layout::same(context);
        if add_packet_size || add_content_size {
            if let Some(root) = context.slots.first_mut() {
                root.align = root.align.max(8);
            }
            context = Layout::new(context.slots, false);
        }
        let events = stream.event_classes.iter().map(|event| {
            fragment(&mut text, "event-record-class", |out| write_event(out, class, stream, event));
            EventLayout {
                specific: Layout::same(&event.plan.specific),
                payload: Layout::same(&event.plan.payload),
            }
        });
        streams.push(StreamLayout {
            events: events.collect(),
            header: Layout::same(&stream.plan.header),
            common: Layout::same(&stream.plan.common),
            context,
            copy_aligns: Arc::new([]),
            add_packet_size,
            add_content_size,
        });
    }
    (text, TraceLayout { header: Layout::same(&class.header_plan), streams })
}

/// One fragment: RS, an object of this type, LF.
fn fragment(text: &mut String, kind: &str, body: impl FnOnce(&mut Object<'_>)) {
    text.push('\u{1e}');
    let mut object = Object::open(text);
    object.text("type", kind);
    body(&mut object);
    object.close();
    text.push('\n');
}

/// An object that is being written.
struct Object<'a> {
    out: &'a mut String,
    empty: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    fn close(self) {
        self.out.push('}');
    }

    /// Writes the key; the caller writes the value into what it gets.
    fn key(&mut self, key: &str) -> &mut String {
        if !self.empty {
            self.out.push_str(", ");
        }
        self.empty = false;
        string(self.out, key);
        self.out.push_str(": ");
        self.out
    }

    fn text(&mut self, key: &str, value: &str) {
        string(self.key(key), value);
    }

    fn text_if(&mut self, key: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn number(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = write!(self.key(key), "{value}");
    }

    fn object(&mut self, key: &str, body: impl FnOnce(&mut Object<'_>)) {
        let mut object = Object::open(self.key(key));
        body(&mut object);
        object.close();
    }

    fn list<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut put: impl FnMut(&mut String, T),
    ) {
        let out = self.key(key);
        out.push('[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            put(out, item);
        }
        out.push(']');
    }

    fn attributes(&mut self, attributes: &Attributes) {
        if !attributes.is_empty() {
            map(self.key("attributes"), attributes);
        }
    }
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn map(out: &mut String, entries: &[(String, Datum)]) {
    let mut object = Object::open(out);
    for (key, value) in entries {
        datum(object.key(key), value);
    }
    object.close();
}

fn datum(out: &mut String, value: &Datum) {
    let _ = match value {
        Datum::Null => write!(out, "null"),
        Datum::Bool(value) => write!(out, "{value}"),
        Datum::Unsigned(value) => write!(out, "{value}"),
        Datum::Signed(value) => write!(out, "{value}"),
        // Debug formatting keeps the fraction or exponent that makes it a real number.
        Datum::Real(value) => write!(out, "{value:?}"),
        Datum::Text(text) => {
            string(out, text);
            Ok(())
        }
        Datum::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                datum(out, item);
            }
            out.push(']');
            Ok(())
        }
        Datum::Map(entries) => {
            map(out, entries);
            Ok(())
        }
    };
}

fn preamble(text: &mut String, class: &TraceClass) {
    fragment(text, "preamble", |out| {
        out.number("version", 2);
        if let Some(uuid) = class.uuid {
            out.list("uuid", uuid.0, |out, byte| {
                let _ = write!(out, "{byte}");
            });
        }
    });
}

fn trace(text: &mut String, class: &TraceClass) {
    fragment(text, "trace-class", |out| {
        out.text_if("namespace", class.namespace.as_ref());
        // Without a name the trace has no identity of its own: the UUID alone gives it one.
        match (&class.name, class.uuid) {
            (None, Some(_)) if class.version == CtfVersion::V1_8 => out.text("name", ""),
            (name, _) => out.text_if("name", name.as_ref()),
        }
        match (&class.uid, class.uuid) {
            (None, Some(uuid)) if class.version == CtfVersion::V1_8 => out.text("uid", &uuid.to_string()),
            (uid, _) => out.text_if("uid", uid.as_ref()),
        }
        if !class.environment.is_empty() {
            out.object("environment", |out| {
                for (key, value) in &class.environment {
                    match value {
                        EnvValue::Integer(value) => out.number(key, value),
                        EnvValue::Text(value) => out.text(key, value),
                    }
                }
            });
        }
        out.attributes(&class.attributes);
        if let Some(header) = &class.packet_header {
            let writer = FieldWriter { class, stream: None, event: None };
            writer.field(out.key("packet-header-field-class"), header);
        }
    });
}

fn write_clock(out: &mut Object<'_>, clock: &ClockClass) {
    out.text("id", &clock.id);
    out.text_if("namespace", clock.namespace.as_ref());
    out.text_if("name", clock.name.as_ref());
    match (&clock.uid, clock.uuid) {
        (None, Some(uuid)) => out.text("uid", &uuid.to_string()),
        (uid, _) => out.text_if("uid", uid.as_ref()),
    }
    out.text_if("description", clock.description.as_ref());
    out.number("frequency", clock.frequency_hz);
    if let Some(precision) = clock.precision_cycles {
        out.number("precision", precision);
    }
    if let Some(accuracy) = clock.accuracy_cycles {
        out.number("accuracy", accuracy);
    }
    match &clock.origin {
        ClockOrigin::Unknown => {}
        ClockOrigin::UnixEpoch => out.text("origin", "unix-epoch"),
        ClockOrigin::Custom { namespace, name, uid } => out.object("origin", |out| {
            out.text_if("namespace", namespace.as_ref());
            out.text("name", name);
            out.text("uid", uid);
        }),
    }
    out.object("offset-from-origin", |out| {
        out.number("seconds", clock.offset_s);
        out.number("cycles", clock.offset_cycles);
    });
    out.attributes(&clock.attributes);
}

fn write_stream(
    out: &mut Object<'_>,
    writer: &FieldWriter<'_>,
    stream: &StreamClass,
    add_packet_size: bool,
    add_content_size: bool,
) {
    out.number("id", stream.id);
    out.text_if("namespace", stream.namespace.as_ref());
    out.text_if("name", stream.name.as_ref());
    out.text_if("uid", stream.uid.as_ref());
    if let Some(clock) = &stream.clock {
        out.text("default-clock-class-id", &clock.id);
    }
    out.attributes(&stream.attributes);
    if stream.packet_context.is_some() || add_packet_size || add_content_size {
        let text = out.key("packet-context-field-class");
        let context = stream.packet_context.as_deref();
        writer.context(text, context, add_packet_size, add_content_size);
    }
    for (key, class) in [
        ("event-record-header-field-class", &stream.event_header),
        ("event-record-common-context-field-class", &stream.common_context),
    ] {
        if let Some(class) = class {
            writer.field(out.key(key), class);
        }
    }
}

fn write_event(out: &mut Object<'_>, class: &TraceClass, stream: &StreamClass, event: &EventClass) {
    out.number("id", event.id);
    out.number("data-stream-class-id", stream.id);
    out.text_if("namespace", event.namespace.as_ref());
    out.text_if("name", event.name.as_ref());
    out.text_if("uid", event.uid.as_ref());
    let told = class.version == CtfVersion::V1_8 && (event.log_level.is_some() || event.emf_uri.is_some());
    if told {
        out.object("attributes", |out| {
            out.object(LTTNG, |out| {
                if let Some(level) = event.log_level {
                    out.text("log-level", level.attribute());
                }
                out.text_if("emf-uri", event.emf_uri.as_ref());
            });
        });
    } else {
        out.attributes(&event.attributes);
    }
    let writer = FieldWriter { class, stream: Some(stream), event: Some(event) };
    for (key, class) in
        [("specific-context-field-class", &event.specific_context), ("payload-field-class", &event.payload)]
    {
        if let Some(class) = class {
            writer.field(out.key(key), class);
        }
    }
}

/// Writes field classes; knows the roots that references lead from.
struct FieldWriter<'a> {
    class: &'a TraceClass,
    stream: Option<&'a StreamClass>,
    event: Option<&'a EventClass>,
}

impl FieldWriter<'_> {
    /// The packet context with the sizes that the source does not have.
    fn context(&self, out: &mut String, class: Option<&FieldClass>, packet_size: bool, content_size: bool) {
        if !packet_size && !content_size {
            if let Some(class) = class {
                self.field(out, class);
            }
            return;
        }
        let members = class.and_then(FieldClass::as_struct).map_or(&[][..], |class| &class.members);
        let mut object = Object::open(out);
        object.text("type", "structure");
        let align = class.map_or(8, |class| class.alignment_bits.max(8));
        object.number("minimum-alignment", align);
        let list = object.key("member-classes");
        list.push('[');
        for member in members {
            self.member(list, &member.name, &member.class, &member.attributes);
            list.push_str(", ");
        }
        let order = if cfg!(target_endian = "big") { "big-endian" } else { "little-endian" };
        let added = [
            (packet_size, "packet_size", "packet-total-length"),
            (content_size, "content_size", "packet-content-length"),
        ];
        let added: Vec<String> = added
            .iter()
            .filter(|(add, ..)| *add)
            .map(|(_, name, role)| {
                format!(
                    "{{\"name\": \"{name}\", \"field-class\": {{\"type\": \"fixed-length-unsigned-integer\", \
                     \"length\": 64, \"byte-order\": \"{order}\", \"alignment\": 8, \"roles\": [\"{role}\"]}}}}"
                )
            })
            .collect();
        list.push_str(&added.join(", "));
        list.push(']');
        object.close();
    }

    fn member(&self, out: &mut String, name: &str, class: &FieldClass, attributes: &Attributes) {
        let mut object = Object::open(out);
        object.text("name", name);
        self.field(object.key("field-class"), class);
        object.attributes(attributes);
        object.close();
    }

    fn field(&self, out: &mut String, class: &FieldClass) {
        let mut object = Object::open(out);
        self.kind(&mut object, class);
        object.attributes(&class.attributes);
        object.close();
    }

    fn kind(&self, out: &mut Object<'_>, class: &FieldClass) {
        let align = class.alignment_bits;
        match &class.kind {
            FieldKind::BitArray(c) if c.flags.is_empty() => bits(out, "bit-array", &c.layout, align),
            FieldKind::BitArray(c) => {
                bits(out, "bit-map", &c.layout, align);
                out.object("flags", |out| {
                    for flag in &c.flags {
                        ranges(out, &flag.label, &flag.ranges);
                    }
                });
            }
            FieldKind::Bool(layout) => bits(out, "boolean", layout, align),
            FieldKind::Integer(c) => integer(out, c, align),
            FieldKind::Float(c) => bits(out, "floating-point-number", &c.layout, align),
            FieldKind::String(c) => {
                match &c.extent {
                    StringExtent::NullTerminated => out.text("type", "null-terminated-string"),
                    StringExtent::Sized(length) => self.sized(out, "string", length),
                }
                encoding(out, c.encoding);
            }
            FieldKind::Blob(c) => {
                self.sized(out, "blob", &c.length);
                out.text("media-type", &c.media_type);
                roles(out, c.roles);
            }
            FieldKind::Struct(c) => {
                out.text("type", "structure");
                let natural = c.members.iter().map(|m| m.class.alignment_bits).max().unwrap_or(1);
                if align > natural {
                    out.number("minimum-alignment", align);
                }
                out.list("member-classes", &c.members, |out, member| {
                    self.member(out, &member.name, &member.class, &member.attributes);
                });
            }
            FieldKind::Array(c) => {
                self.sized(out, "array", &c.length);
                if align > c.element.alignment_bits {
                    out.number("minimum-alignment", align);
                }
                self.field(out.key("element-field-class"), &c.element);
            }
            FieldKind::Optional(c) => {
                out.text("type", "optional");
                self.location(out, "selector-field-location", &c.selector);
                if !c.ranges.is_empty() {
                    ranges(out, "selector-field-ranges", &c.ranges);
                }
                self.field(out.key("field-class"), &c.content);
            }
            FieldKind::Variant(c) => {
                out.text("type", "variant");
                self.location(out, "selector-field-location", &c.selector);
                let mut taken: Vec<IntRange> = Vec::new();
                let options = c.options.iter().filter_map(|option| {
                    // The first option wins in our reading of overlaps; CTF 2 forbids them.
                    let own = without(&option.ranges, &taken);
                    taken.extend_from_slice(&option.ranges);
                    (!own.is_empty()).then_some((option, own))
                });
                out.list("options", options, |out, (option, own)| {
                    let mut object = Object::open(out);
                    object.text_if("name", option.name.as_ref());
                    ranges(&mut object, "selector-field-ranges", &own);
                    self.field(object.key("field-class"), &option.class);
                    object.attributes(&option.attributes);
                    object.close();
                });
            }
        }
    }

    /// The type and length of a string, BLOB or array.
    fn sized(&self, out: &mut Object<'_>, kind: &str, length: &Length) {
        match length {
            Length::Static(length) => {
                out.text("type", &format!("static-length-{kind}"));
                out.number("length", length);
            }
            Length::Dynamic(field) => {
                out.text("type", &format!("dynamic-length-{kind}"));
                self.location(out, "length-field-location", field);
            }
        }
    }

    fn location(&self, out: &mut Object<'_>, key: &str, field: &FieldRef) {
        let Some(path) = field.paths.first() else {
            return;
        };
        let origin = match path.scope {
            Scope::PacketHeader => "packet-header",
            Scope::PacketContext => "packet-context",
            Scope::EventHeader => "event-record-header",
            Scope::CommonContext => "event-record-common-context",
            Scope::SpecificContext => "event-record-specific-context",
            Scope::Payload => "event-record-payload",
        };
        let names = self.names_along(path);
        out.object(key, |out| {
            out.text("origin", origin);
            out.list("path", names, string);
        });
    }

    /// Names of the members on the way; elements, options and contents have none.
    fn names_along(&self, path: &FieldPath) -> Vec<&str> {
        let root = match path.scope {
            Scope::PacketHeader => self.class.packet_header.as_deref(),
            Scope::PacketContext => self.stream.and_then(|s| s.packet_context.as_deref()),
            Scope::EventHeader => self.stream.and_then(|s| s.event_header.as_deref()),
            Scope::CommonContext => self.stream.and_then(|s| s.common_context.as_deref()),
            Scope::SpecificContext => self.event.and_then(|e| e.specific_context.as_deref()),
            Scope::Payload => self.event.and_then(|e| e.payload.as_deref()),
        };
        let mut names = Vec::new();
        let mut class = root;
        for item in &path.items {
            class = match (class.map(|c| &c.kind), item) {
                (Some(FieldKind::Struct(c)), PathItem::Index(index)) => c.members.get(*index).map(|m| {
                    names.push(m.name.as_str());
                    &*m.class
                }),
                (Some(FieldKind::Variant(c)), PathItem::Index(index)) => {
                    c.options.get(*index).map(|option| &*option.class)
                }
                (Some(FieldKind::Array(c)), PathItem::Element) => Some(&*c.element),
                (Some(FieldKind::Optional(c)), PathItem::Content) => Some(&*c.content),
                _ => None,
            };
        }
        names
    }
}

fn bits(out: &mut Object<'_>, kind: &str, layout: &BitLayout, align: u32) {
    out.text("type", &format!("fixed-length-{kind}"));
    out.number("length", layout.size_bits);
    let big = layout.byte_order == ByteOrder::Big;
    out.text("byte-order", if big { "big-endian" } else { "little-endian" });
    if layout.reversed {
        out.text("bit-order", if big { "first-to-last" } else { "last-to-first" });
    }
    if align > 1 {
        out.number("alignment", align);
    }
}

fn integer(out: &mut Object<'_>, class: &IntegerClass, align: u32) {
    let sign = if class.signed { "signed" } else { "unsigned" };
    match &class.layout {
        IntegerLayout::Fixed(layout) => bits(out, &format!("{sign}-integer"), layout, align),
        IntegerLayout::Leb128 => out.text("type", &format!("variable-length-{sign}-integer")),
    }
    let base = match class.base {
        DisplayBase::Binary => 2,
        DisplayBase::Octal => 8,
        DisplayBase::Decimal => 10,
        DisplayBase::Hexadecimal => 16,
    };
    if base != 10 {
        out.number("preferred-display-base", base);
    }
    if !class.mappings.is_empty() {
        // A label of CTF 1.8 may come more than once; a key of an object may not.
        let mut labels: Vec<(&str, Vec<IntRange>)> = Vec::new();
        for mapping in &class.mappings {
            match labels.iter_mut().find(|(label, _)| *label == mapping.label) {
                Some((_, all)) => all.extend_from_slice(&mapping.ranges),
                None => labels.push((&mapping.label, mapping.ranges.clone())),
            }
        }
        out.object("mappings", |out| {
            for (label, all) in &labels {
                ranges(out, label, all);
            }
        });
    }
    roles(out, class.roles);
}

fn roles(out: &mut Object<'_>, roles: Roles) {
    let name = |role: &Role| match role {
        Role::PacketMagic => "packet-magic-number",
        Role::MetadataUuid => "metadata-stream-uuid",
        Role::StreamClassId => "data-stream-class-id",
        Role::StreamId => "data-stream-id",
        Role::PacketSize => "packet-total-length",
        Role::ContentSize => "packet-content-length",
        Role::Timestamp => "default-clock-timestamp",
        Role::EndTimestamp => "packet-end-default-clock-timestamp",
        Role::EventsDiscarded => "discarded-event-record-counter-snapshot",
        Role::PacketSequence => "packet-sequence-number",
        Role::EventClassId => "event-record-class-id",
    };
    if !roles.is_empty() {
        let names = super::encode::ROLES.iter().filter(|role| roles.contains(**role)).map(name);
        out.list("roles", names, string);
    }
}

fn encoding(out: &mut Object<'_>, encoding: StringEncoding) {
    match encoding {
        StringEncoding::Utf8 => {}
        StringEncoding::Utf16Be => out.text("encoding", "utf-16be"),
        StringEncoding::Utf16Le => out.text("encoding", "utf-16le"),
        StringEncoding::Utf32Be => out.text("encoding", "utf-32be"),
        StringEncoding::Utf32Le => out.text("encoding", "utf-32le"),
    }
}

fn ranges(out: &mut Object<'_>, key: &str, ranges: &[IntRange]) {
    out.list(key, ranges, |out, range| {
        let _ = write!(out, "[{}, {}]", range.lower, range.upper);
    });
}

/// The values of `ranges` that are in none of `taken`.
fn without(ranges: &[IntRange], taken: &[IntRange]) -> Vec<IntRange> {
    let mut left = ranges.to_vec();
    for cut in taken {
        left = left
            .into_iter()
            .flat_map(|range| {
                let below = IntRange { lower: range.lower, upper: range.upper.min(cut.lower - 1) };
                let above = IntRange { lower: range.lower.max(cut.upper + 1), upper: range.upper };
                [below, above].into_iter().filter(|r| r.lower <= r.upper)
            })
            .collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_values_are_cut_out() {
        let range = |lower, upper| IntRange { lower, upper };
        assert_eq!(without(&[range(0, 9)], &[range(3, 4), range(9, 20)]), [range(0, 2), range(5, 8)]);
        assert_eq!(without(&[range(3, 4)], &[range(0, 9)]), []);
    }

    #[test]
    fn strings_are_escaped() {
        let mut out = String::new();
        string(&mut out, "a\"\\\n\u{1}é");
        assert_eq!(out, "\"a\\\"\\\\\\n\\u0001é\"");
    }
}
