//! Field classes as an indented tree.

use sillage_ctf::model::{
    ArrayClass, DisplayBase, EventClass, FieldClass, FieldKind, FieldPath, FieldRef, IntRange, IntegerClass,
    IntegerLayout, Length, PathItem, Scope, SelectorKind, StreamClass, StringExtent,
};

use super::Dialect;
use super::pen::{Ink, Pen};
use super::values::{sorted_flags, write_datum};

/// Where a field class lies, to name the fields that it refers to.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub dialect: Dialect,
    pub stream: &'a StreamClass,
    pub event: Option<&'a EventClass>,
}

/// Writes a scope's class as a property, ending its last line.
pub(super) fn write_scope_class(pen: &mut Pen<'_>, name: &str, class: &FieldClass, place: Place<'_>) {
    pen.property(name);
    write_class(pen, class, place);
    pen.plain("\n");
}

/// Writes a class after `NAME: `; the last line is left open.
fn write_class(pen: &mut Pen<'_>, class: &FieldClass, place: Place<'_>) {
    pen.ink(Ink::Type, type_name(class));
    match &class.kind {
        FieldKind::BitArray(bits) => {
            if bits.flags.is_empty() {
                pen.plain(" (");
                pen.ink(Ink::Value, &format!("{}-bit", bits.layout.size_bits));
                pen.plain(")");
            } else {
                // The unopened parenthesis is Babeltrace 2.1's.
                pen.plain(" ");
                pen.count(bits.flags.len() as u64, "flag");
                pen.plain("):");
                for flag in sorted_flags(&bits.flags) {
                    write_ranges_line(pen, Ink::Property, &flag.label, &flag.ranges);
                }
            }
        }
        FieldKind::Integer(integer) => write_integer(pen, integer, place.dialect),
        FieldKind::Bool(_) | FieldKind::Float(_) | FieldKind::String(_) => {}
        FieldKind::Blob(blob) => {
            pen.plain(" (");
            match &blob.length {
                Length::Static(length) => {
                    pen.plain("Length ");
                    pen.unsigned(Ink::Value, *length);
                }
                Length::Dynamic(field) => write_reference(pen, "Length field", field, place),
            }
            pen.plain(", Media type ");
            pen.ink(Ink::Value, &blob.media_type);
            pen.plain(")");
        }
        FieldKind::Struct(members) => {
            let count = members.visible().count() as u64;
            pen.plain(" (");
            pen.count(count, "member");
            pen.plain(")");
            if count > 0 {
                pen.plain(":");
            }
            for (_, member) in members.visible() {
                pen.plain("\n");
                pen.inside(|pen| {
                    pen.line();
                    pen.ink(Ink::Member, &member.name);
                    pen.plain(": ");
                    write_class(pen, &member.class, place);
                });
            }
        }
        FieldKind::Array(array) => write_array(pen, array, place),
        FieldKind::Optional(optional) => {
            pen.plain(" (");
            write_reference(pen, "Selector field", &optional.selector, place);
            if !optional.ranges.is_empty() {
                pen.plain(", Selector ranges");
                write_ranges(pen, &optional.ranges);
            }
            pen.plain("):");
            write_inner(pen, "Content", &optional.content, place);
        }
        FieldKind::Variant(variant) => {
            pen.plain(" (");
            pen.count(variant.options.len() as u64, "option");
            pen.plain(", ");
            write_reference(pen, "Selector field", &variant.selector, place);
            pen.plain("):");
            for option in &variant.options {
                pen.plain("\n");
                pen.inside(|pen| {
                    pen.line();
                    if let Some(name) = &option.name {
                        pen.ink(Ink::Member, name);
                        pen.plain(":");
                    }
                    write_ranges(pen, &option.ranges);
                    pen.plain(": ");
                    write_class(pen, &option.class, place);
                });
            }
        }
    }
    if !class.attributes.is_empty() {
        pen.plain("\n");
        pen.inside(|pen| {
            pen.line();
            pen.ink(Ink::Property, "User attributes");
            pen.plain(":");
            write_datum(pen, &sillage_ctf::model::Datum::Map(class.attributes.clone()));
        });
    }
}

fn type_name(class: &FieldClass) -> &'static str {
    match &class.kind {
        FieldKind::BitArray(_) => "Bit array",
        FieldKind::Bool(_) => "Boolean",
        FieldKind::Integer(IntegerClass { is_enum: false, signed: false, .. }) => "Unsigned integer",
        FieldKind::Integer(IntegerClass { is_enum: false, signed: true, .. }) => "Signed integer",
        FieldKind::Integer(IntegerClass { is_enum: true, signed: false, .. }) => "Unsigned enumeration",
        FieldKind::Integer(IntegerClass { is_enum: true, signed: true, .. }) => "Signed enumeration",
        FieldKind::Float(float) if float.layout.size_bits <= 32 => "Single-precision real",
        FieldKind::Float(_) => "Double-precision real",
        FieldKind::String(class) => match class.extent {
            StringExtent::NullTerminated | StringExtent::Sized(_) => "String",
        },
        FieldKind::Blob(blob) => match blob.length {
            Length::Static(_) => "Static BLOB",
            Length::Dynamic(_) => "Dynamic BLOB (with length field)",
        },
        FieldKind::Struct(_) => "Structure",
        FieldKind::Array(ArrayClass { length: Length::Static(_), .. }) => "Static array",
        FieldKind::Array(_) => "Dynamic array (with length field)",
        FieldKind::Optional(optional) => match optional.selector.kind {
            SelectorKind::Bool => "Option (boolean selector)",
            SelectorKind::Unsigned => "Option (unsigned integer selector)",
            SelectorKind::Signed => "Option (signed integer selector)",
        },
        FieldKind::Variant(variant) => match variant.selector.kind {
            SelectorKind::Signed => "Variant (signed integer selector)",
            SelectorKind::Bool | SelectorKind::Unsigned => "Variant (unsigned integer selector)",
        },
    }
}

fn write_integer(pen: &mut Pen<'_>, class: &IntegerClass, dialect: Dialect) {
    pen.plain(" (");
    pen.ink(Ink::Value, &format!("{}-bit", class.size_bits()));
    pen.plain(", Base ");
    let base = match class.base {
        DisplayBase::Binary => "2",
        DisplayBase::Octal => "8",
        DisplayBase::Decimal => "10",
        DisplayBase::Hexadecimal => "16",
    };
    pen.ink(Ink::Value, base);
    let small = dialect == Dialect::V2_1Mip1 && class.layout == IntegerLayout::Leb128;
    if class.is_enum {
        pen.plain(", ");
        pen.count(merged(class).len() as u64, "mapping");
    }
    if small {
        pen.plain(", Expect small values");
    }
    pen.plain(")");
    if class.is_enum {
        let mut mappings = merged(class);
        mappings.sort_by(|a, b| a.0.cmp(b.0));
        if !mappings.is_empty() {
            pen.plain(":");
        }
        for (label, ranges) in mappings {
            write_ranges_line(pen, Ink::Property, label, &ranges);
        }
    }
}

/// Mappings with equal labels are one.
fn merged(class: &IntegerClass) -> Vec<(&str, Vec<IntRange>)> {
    let mut all: Vec<(&str, Vec<IntRange>)> = Vec::new();
    for mapping in &class.mappings {
        match all.iter_mut().find(|(label, _)| *label == mapping.label) {
            Some((_, ranges)) => ranges.extend_from_slice(&mapping.ranges),
            None => all.push((&mapping.label, mapping.ranges.clone())),
        }
    }
    all
}

fn write_ranges_line(pen: &mut Pen<'_>, ink: Ink, label: &str, ranges: &[IntRange]) {
    pen.plain("\n");
    pen.inside(|pen| {
        pen.line();
        pen.ink(ink, label);
        pen.plain(":");
        write_ranges(pen, ranges);
    });
}

/// Ranges sorted, each with a space before it.
fn write_ranges(pen: &mut Pen<'_>, ranges: &[IntRange]) {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| (range.lower, range.upper));
    for range in sorted {
        pen.plain(" [");
        write_bound(pen, range.lower);
        if range.lower != range.upper {
            pen.plain(", ");
            write_bound(pen, range.upper);
        }
        pen.plain("]");
    }
}

fn write_bound(pen: &mut Pen<'_>, bound: i128) {
    let magnitude = u64::try_from(bound.unsigned_abs()).unwrap_or(u64::MAX);
    pen.number(Ink::Value, bound < 0, magnitude, DisplayBase::Decimal);
}

fn write_array(pen: &mut Pen<'_>, array: &ArrayClass, place: Place<'_>) {
    pen.plain(" (");
    match &array.length {
        Length::Static(length) => {
            pen.plain("Length ");
            pen.unsigned(Ink::Value, *length);
        }
        Length::Dynamic(field) => write_reference(pen, "Length field", field, place),
    }
    pen.plain("):");
    write_inner(pen, "Element", &array.element, place);
}

fn write_inner(pen: &mut Pen<'_>, name: &str, class: &FieldClass, place: Place<'_>) {
    pen.plain("\n");
    pen.inside(|pen| {
        pen.property(name);
        write_class(pen, class, place);
    });
}

/// `WHAT path [SCOPE: 0, 1]` or, from MIP 1 on, `WHAT location [SCOPE: name, name]`.
fn write_reference(pen: &mut Pen<'_>, what: &str, field: &FieldRef, place: Place<'_>) {
    let by_name = place.dialect == Dialect::V2_1Mip1;
    pen.plain(what);
    pen.plain(if by_name { " location [" } else { " path [" });
    if let Some(path) = field.paths.first() {
        let scope = match path.scope {
            Scope::PacketHeader => "Packet header",
            Scope::PacketContext => "Packet context",
            Scope::EventHeader => "Event header",
            Scope::CommonContext => "Event common context",
            Scope::SpecificContext => "Event specific context",
            Scope::Payload => "Event payload",
        };
        pen.ink(Ink::Value, scope);
        let steps = steps_of(path, place, by_name);
        for (index, step) in steps.iter().enumerate() {
            pen.plain(if index == 0 { ": " } else { ", " });
            pen.ink(Ink::Value, step);
        }
    }
    pen.plain("]");
}

/// The way down, as positions among the members that are shown, or as names.
fn steps_of(path: &FieldPath, place: Place<'_>, by_name: bool) -> Vec<String> {
    let root = match path.scope {
        Scope::PacketHeader | Scope::EventHeader => None,
        Scope::PacketContext => place.stream.packet_context.as_deref(),
        Scope::CommonContext => place.stream.common_context.as_deref(),
        Scope::SpecificContext => place.event.and_then(|event| event.specific_context.as_deref()),
        Scope::Payload => place.event.and_then(|event| event.payload.as_deref()),
    };
    let mut at = root;
    let mut steps = Vec::new();
    for item in &path.items {
        match item {
            PathItem::Index(index) => {
                let (name, shown, next) = match at.map(|class| &class.kind) {
                    Some(FieldKind::Struct(class)) => (
                        class.members.get(*index).map(|member| member.name.as_str()),
                        class.visible().take_while(|(position, _)| position < index).count(),
                        class.members.get(*index).map(|member| &*member.class),
                    ),
                    Some(FieldKind::Variant(class)) => (
                        class.options.get(*index).and_then(|option| option.name.as_deref()),
                        *index,
                        class.options.get(*index).map(|option| &*option.class),
                    ),
                    _ => (None, *index, None),
                };
                at = next;
                match name {
                    Some(name) if by_name => steps.push(name.to_owned()),
                    _ => steps.push(shown.to_string()),
                }
            }
            PathItem::Element => {
                at = match at.map(|class| &class.kind) {
                    Some(FieldKind::Array(class)) => Some(&*class.element),
                    _ => None,
                };
                if !by_name {
                    steps.push("<current>".into());
                }
            }
            PathItem::Content => {
                at = match at.map(|class| &class.kind) {
                    Some(FieldKind::Optional(class)) => Some(&*class.content),
                    _ => None,
                };
                if !by_name {
                    steps.push("<content>".into());
                }
            }
        }
    }
    steps
}
