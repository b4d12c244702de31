//! The trace's description in TSDL, in the words and order of lttng-modules (`lttng-ctf-format.md` §5),
//! so that readers take our kernel traces for LTTng's; what programs' traces have too comes from
//! [`sillage_ctf::writer::lttng`].
//!
//! [`header`] comes first, with all streams; an [`event_class`] for each event that is enabled follows.

use crate::recipe::{Field, Int, Label, Recipe, Type};
use sillage_ctf::model::EnvValue;
use sillage_ctf::writer::lttng::{self, EventHeader, Head, identifier, put};
use sillage_ctf::writer::quoted;
use sillage_ring::HeaderForm;

/// What the trace says of itself.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// UUID of the trace.
    pub uuid: [u8; 16],
    /// Name of the machine.
    pub hostname: &'a str,
    /// Release of the kernel (`uname -r`).
    pub kernel_release: &'a str,
    /// Version of the kernel (`uname -v`).
    pub kernel_version: &'a str,
    /// Session name.
    pub session: &'a str,
    /// Local time of its creation, `20261121T063059+0000`.
    pub created: &'a str,
    /// Boot id of the machine.
    pub boot_id: &'a str,
    /// CLOCK_REALTIME − CLOCK_MONOTONIC, ns.
    pub clock_offset: i64,
    /// Version of this program.
    pub version: &'a str,
}

/// One channel: its event headers and contexts.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    /// Form of the event headers.
    pub header: HeaderForm,
    /// Fields in front of every event's.
    pub contexts: &'a [Field],
}

/// Everything up to the first event class, for these streams (ids from 0).
pub fn header(h: &Header<'_>, streams: &[Stream<'_>]) -> String {
    let text = |text: &str| EnvValue::Text(text.into());
    let environment = [
        ("hostname", text(h.hostname)),
        ("domain", text("kernel")),
        ("sysname", text("Linux")),
        ("kernel_release", text(h.kernel_release)),
        ("kernel_version", text(h.kernel_version)),
        ("tracer_name", text("lttng-modules")),
        ("tracer_major", EnvValue::Integer(2)),
        ("tracer_minor", EnvValue::Integer(13)),
        ("tracer_patchlevel", EnvValue::Integer(0)),
        ("trace_buffering_scheme", text("global")),
        ("trace_name", text(h.session)),
        ("trace_creation_datetime", text(h.created)),
        ("sillage_version", text(h.version)),
    ];
    let Header { uuid, boot_id, clock_offset, .. } = *h;
    let head = lttng::head(&Head { uuid, environment: &environment, boot_id, clock_offset });
    let streams = streams.iter().enumerate().map(|(id, stream)| {
        let header = match stream.header {
            HeaderForm::Compact => EventHeader::Compact,
            HeaderForm::Large => EventHeader::Large,
        };
        let mut contexts = String::new();
        stream.contexts.iter().for_each(|field| put_field(&mut contexts, 2, &field.name, &field.ty));
        lttng::stream(id, header, &contexts)
    });
    std::iter::once(head).chain(streams).collect()
}

/// The block of one event.
pub fn event_class(recipe: &Recipe, id: u32, stream: usize) -> String {
    let mut out = format!(
        "event {{\n\tname = {};\n\tid = {id};\n\tstream_id = {stream};\n\tfields := struct {{\n",
        quoted(&recipe.name)
    );
    recipe.fields.iter().for_each(|field| put_field(&mut out, 2, &field.name, &field.ty));
    out.push_str("\t};\n};\n\n");
    out
}

/// A line for each field (several for compounds), indented by `depth` tabs.
fn put_field(out: &mut String, depth: usize, name: &str, ty: &Type) {
    put_declared(out, depth, &identifier(name), ty);
}

/// The same for a name as it stands in the trace, lengths of arrays included.
fn put_declared(out: &mut String, depth: usize, name: &str, ty: &Type) {
    let indent = "\t".repeat(depth);
    match ty {
        Type::Int(int) => put(out, format_args!("{indent}{} {name};\n", integer(*int, false))),
        Type::Enum(int, labels) => {
            put(out, format_args!("{indent}enum : {} {{\n", integer(*int, false)));
            for label in *labels {
                put(out, format_args!("{indent}\t{},\n", labelled(label)));
            }
            put(out, format_args!("{indent}}} {name};\n"));
        }
        Type::Text(bytes) => {
            put(out, format_args!("{indent}{} {name}[{bytes}];\n", integer(crate::recipe::S8, true)));
        }
        Type::Padding => put(out, format_args!("{indent}struct {{ }} align(8) {name};\n")),
        Type::String => put(out, format_args!("{indent}string {name};\n")),
        Type::Array(element, count) => {
            put(out, format_args!("{indent}{} {name}[{count}];\n", integer(*element, false)));
        }
        Type::Sequence { count, element } => {
            let length = format!("_{name}_length");
            put(out, format_args!("{indent}{} {length};\n", integer(*count, false)));
            match element {
                Type::Struct(fields) => {
                    put(out, format_args!("{indent}struct {{\n"));
                    fields.iter().for_each(|(name, ty)| put_field(out, depth + 1, name, ty));
                    put(out, format_args!("{indent}}} {name}[ {length} ];\n"));
                }
                Type::Int(int) | Type::Enum(int, _) => {
                    put(out, format_args!("{indent}{} {name}[ {length} ];\n", integer(*int, false)));
                }
                other => put_declared(out, depth, &format!("{name}[ {length} ]"), other),
            }
        }
        Type::Counted { by, element } => {
            put_declared(out, depth, &format!("{name}[ {} ]", identifier(by)), element);
        }
        Type::TextSequence { count } => {
            let length = format!("_{name}_length");
            put(out, format_args!("{indent}{} {length};\n", integer(*count, false)));
            let element = integer(crate::recipe::S8, true);
            put(out, format_args!("{indent}{element} {name}[ {length} ];\n"));
        }
        Type::Struct(fields) => {
            put(out, format_args!("{indent}struct {{\n"));
            fields.iter().for_each(|(name, ty)| put_field(out, depth + 1, name, ty));
            put(out, format_args!("{indent}}} {name};\n"));
        }
        Type::Variant { tag, options } => {
            put(out, format_args!("{indent}variant <{}> {{\n", identifier(tag)));
            options.iter().for_each(|(name, ty)| put_field(out, depth + 1, name, ty));
            put(out, format_args!("{indent}}} {name};\n"));
        }
    }
}

fn integer(int: Int, text: bool) -> String {
    let order = if int.big_endian { " byte_order = be;" } else { "" };
    format!(
        "integer {{ size = {}; align = {}; signed = {}; encoding = {}; base = {};{order} }}",
        int.bits,
        int.align,
        u8::from(int.signed),
        if text { "UTF8" } else { "none" },
        int.base
    )
}

fn labelled((text, first, last): &Label) -> String {
    match first == last {
        true => format!("{} = {first}", quoted(text)),
        false => format!("{} = {first} ... {last}", quoted(text)),
    }
}

/// A field in short, as lists of events show it: `s32 _tid;`.
pub fn summary(name: &str, ty: &Type) -> String {
    let name = identifier(name);
    let short = |int: &Int| {
        let sign = if int.signed { 's' } else { 'u' };
        format!("{sign}{}{}", int.bits, if int.base == 16 { "x" } else { "" })
    };
    let fields =
        |fields: &[(&str, Type)]| fields.iter().map(|(name, ty)| summary(name, ty) + " ").collect::<String>();
    let counted = |count: &Int, element: String| {
        format!("{} _{name}_length; {element} {name}[ _{name}_length ];", short(count))
    };
    match ty {
        Type::Int(int) => format!("{} {name};", short(int)),
        Type::Enum(int, labels) => {
            let labels: String = labels.iter().map(|label| labelled(label) + ", ").collect();
            format!("enum : {} {{ {labels}}} {name};", short(int))
        }
        Type::Text(bytes) => format!("s8:UTF8 {name}[{bytes}];"),
        Type::Padding => format!("struct {{ }} align(8) {name};"),
        Type::String => format!("string {name};"),
        Type::Array(element, count) => format!("{} {name}[{count}];", short(element)),
        Type::Sequence { count, element: Type::Int(int) } => counted(count, short(int)),
        Type::Sequence { count, element: Type::Struct(parts) } => {
            counted(count, format!("struct {{ {}}}", fields(parts)))
        }
        Type::Sequence { count, element } => counted(count, summary("", element)),
        Type::Counted { by, element } => {
            let inner = summary("", element);
            format!("{}{name}[ {} ];", inner.trim_end_matches("_;"), identifier(by))
        }
        Type::TextSequence { count } => counted(count, "s8:UTF8".into()),
        Type::Struct(parts) => format!("struct {{ {}}} {name};", fields(parts)),
        Type::Variant { tag, options } => {
            format!("variant <{}> {{ {}}} {name};", identifier(tag), fields(options))
        }
    }
}

/// What a field is, in the word that lists of fields show.
pub fn kind_word(ty: &Type) -> &'static str {
    match ty {
        Type::Int(_) => "integer",
        Type::Enum(..) => "enum",
        Type::Text(_) | Type::String | Type::TextSequence { .. } => "string",
        Type::Array(..) | Type::Sequence { .. } | Type::Counted { .. } => "sequence",
        Type::Struct(_) => "struct",
        Type::Variant { .. } => "variant",
        Type::Padding => "padding",
    }
}
