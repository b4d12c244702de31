//! The trace's description in TSDL, in the words and order of lttng-modules (`lttng-ctf-format.md` §5),
//! so that readers take our kernel traces for LTTng's.
//!
//! [`header`] comes first, with all streams; an [`event_class`] for each event that is enabled follows.

use crate::recipe::{Field, Int, Label, Recipe, Type};
use sillage_ctf::model::Uuid;
use sillage_ctf::writer::quoted;
use sillage_ring::HeaderForm;
use std::fmt::Write;

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

const TYPES: &str = "\
typealias integer { size = 8; align = 8; signed = false; } := uint8_t;
typealias integer { size = 16; align = 8; signed = false; } := uint16_t;
typealias integer { size = 32; align = 8; signed = false; } := uint32_t;
typealias integer { size = 64; align = 8; signed = false; } := uint64_t;
typealias integer { size = 64; align = 8; signed = false; } := unsigned long;
typealias integer { size = 5; align = 1; signed = false; } := uint5_t;
typealias integer { size = 27; align = 1; signed = false; } := uint27_t;
";

/// Everything up to the first event class, for these streams (ids from 0).
pub fn header(h: &Header<'_>, streams: &[Stream<'_>]) -> String {
    let order = if cfg!(target_endian = "little") { "le" } else { "be" };
    let mut out = format!("/* CTF 1.8 */\n\n{TYPES}\ntrace {{\n\tmajor = 1;\n\tminor = 8;\n");
    put(&mut out, format_args!("\tuuid = \"{}\";\n\tbyte_order = {order};\n", Uuid(h.uuid)));
    out.push_str(
        "\tpacket.header := struct {\n\t\tuint32_t magic;\n\t\tuint8_t  uuid[16];\n\t\tuint32_t stream_id;\n\
         \t\tuint64_t stream_instance_id;\n\t};\n};\n\nenv {\n",
    );
    for (key, value) in [
        ("hostname", h.hostname),
        ("domain", "kernel"),
        ("sysname", "Linux"),
        ("kernel_release", h.kernel_release),
        ("kernel_version", h.kernel_version),
        ("tracer_name", "lttng-modules"),
    ] {
        put(&mut out, format_args!("\t{key} = {};\n", quoted(value)));
    }
    out.push_str("\ttracer_major = 2;\n\ttracer_minor = 13;\n\ttracer_patchlevel = 0;\n");
    for (key, value) in [
        ("trace_buffering_scheme", "global"),
        ("trace_name", h.session),
        ("trace_creation_datetime", h.created),
        ("sillage_version", h.version),
    ] {
        put(&mut out, format_args!("\t{key} = {};\n", quoted(value)));
    }
    put(
        &mut out,
        format_args!(
            "}};\n\nclock {{\n\tname = \"monotonic\";\n\tuuid = {};\n\tdescription = \"Monotonic Clock\";\n\
             \tfreq = 1000000000; /* Frequency, in Hz */\n\
             \t/* clock value offset from Epoch is: offset * (1/freq) */\n\toffset = {};\n}};\n\n",
            quoted(h.boot_id),
            h.clock_offset
        ),
    );
    clock_types(&mut out);
    event_headers(&mut out);
    streams.iter().enumerate().for_each(|(id, stream)| put_stream(&mut out, id, stream));
    out
}

fn clock_types(out: &mut String) {
    for (bits, align) in [(27, 1), (32, 8), (64, 8)] {
        put(
            out,
            format_args!(
                "typealias integer {{\n\tsize = {bits}; align = {align}; signed = false;\n\
                 \tmap = clock.monotonic.value;\n}} := uint{bits}_clock_monotonic_t;\n\n"
            ),
        );
    }
    out.push_str(
        "struct packet_context {\n\tuint64_clock_monotonic_t timestamp_begin;\n\
         \tuint64_clock_monotonic_t timestamp_end;\n\tuint64_t content_size;\n\tuint64_t packet_size;\n\
         \tuint64_t packet_seq_num;\n\tunsigned long events_discarded;\n\tuint32_t cpu_id;\n};\n\n",
    );
}

fn event_headers(out: &mut String) {
    for (name, id_bits, last, escape, time_bits) in
        [("compact", 5, 30, 31, 27), ("large", 16, 65534, 65535, 32)]
    {
        put(
            out,
            format_args!(
                "struct event_header_{name} {{\n\tenum : uint{id_bits}_t {{ compact = 0 ... {last}, extended = {escape} }} id;\n\
                 \tvariant <id> {{\n\t\tstruct {{\n\t\t\tuint{time_bits}_clock_monotonic_t timestamp;\n\t\t}} compact;\n\
                 \t\tstruct {{\n\t\t\tuint32_t id;\n\t\t\tuint64_clock_monotonic_t timestamp;\n\t\t}} extended;\n\
                 \t}} v;\n}} align(8);\n\n"
            ),
        );
    }
}

fn put_stream(out: &mut String, id: usize, stream: &Stream<'_>) {
    let form = match stream.header {
        HeaderForm::Compact => "compact",
        HeaderForm::Large => "large",
    };
    put(
        out,
        format_args!(
            "stream {{\n\tid = {id};\n\tevent.header := struct event_header_{form};\n\
             \tpacket.context := struct packet_context;\n"
        ),
    );
    if !stream.contexts.is_empty() {
        out.push_str("\tevent.context := struct {\n");
        stream.contexts.iter().for_each(|field| put_field(out, 2, &field.name, &field.ty));
        out.push_str("\t};\n");
    }
    out.push_str("};\n\n");
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
    let name = identifier(name);
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
                other => put_field(out, depth, &format!("{}[ {length} ]", &name[1..]), other),
            }
        }
        Type::Counted { by, element } => {
            let mut inner = String::new();
            put_field(&mut inner, depth, "", element);
            // The element's own name is empty: `_;` ends what it says.
            let element = inner.trim_end().trim_end_matches("_;");
            put(out, format_args!("{element}{name}[ {} ];\n", identifier(by)));
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

/// A field name as it stands in the trace: with a leading underscore, other characters replaced.
fn identifier(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "[] ".contains(c);
    std::iter::once('_').chain(name.chars().map(|c| if keep(c) { c } else { '_' })).collect()
}

fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(arguments);
}
