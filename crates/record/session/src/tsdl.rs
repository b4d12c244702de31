//! The metadata of a user-space trace, in TSDL, block by block in the order and style of LTTng 2.13
//! (`lttng-ctf-format.md` §5.3), as plain text; what the kernel's traces have too comes from
//! [`sillage_ctf::writer::lttng`].
//!
//! The text of [`header`] comes first, with all streams; [`event_class`] blocks follow as programs bring them.
//! Names and labels that programs made up are escaped or replaced, so that no program can break the trace of
//! another; [`crate::check`] has refused what cannot be expressed.

use sillage_ctf::model::EnvValue;
use sillage_ctf::writer::lttng::{self, EventHeader, Head, byte_orders, identifier, put};
use sillage_ctf::writer::quoted;
use sillage_model::{Encoding, EnumEntry, EnumValue, FieldType, FloatType, IntegerType, Tracepoint};

/// What the trace says of itself.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// UUID of the trace.
    pub uuid: [u8; 16],
    /// User whose programs it holds.
    pub uid: u32,
    /// Session name.
    pub session: &'a str,
    /// Local time of its creation, `20261121T063059+0000`.
    pub created: &'a str,
    /// Name of the machine.
    pub hostname: &'a str,
    /// Boot id of the machine.
    pub boot_id: &'a str,
    /// CLOCK_REALTIME − CLOCK_MONOTONIC, ns.
    pub clock_offset: i64,
    /// Version of this program.
    pub version: &'a str,
}

/// Everything up to the first event class, for a trace with this many streams (ids from 0).
pub fn header(h: &Header<'_>, streams: usize) -> String {
    let text = |text: &str| EnvValue::Text(text.into());
    let environment = [
        ("domain", text("ust")),
        ("tracer_name", text("lttng-ust")),
        ("tracer_major", EnvValue::Integer(2)),
        ("tracer_minor", EnvValue::Integer(13)),
        ("tracer_buffering_scheme", text("uid")),
        ("tracer_buffering_id", EnvValue::Integer(h.uid.into())),
        ("architecture_bit_width", EnvValue::Integer(64)),
        ("trace_name", text(h.session)),
        ("trace_creation_datetime", text(h.created)),
        ("hostname", text(h.hostname)),
        ("sillage_version", text(h.version)),
    ];
    let Header { uuid, boot_id, clock_offset, .. } = *h;
    let head = lttng::head(&Head { uuid, environment: &environment, boot_id, clock_offset });
    let streams = (0..streams).map(|id| lttng::stream(id, EventHeader::Large, ""));
    std::iter::once(head).chain(streams).collect()
}

/// The block of one event class.
pub fn event_class(t: &Tracepoint, id: u32, stream: usize) -> String {
    let mut out = format!(
        "event {{\n\tname = {};\n\tid = {id};\n\tstream_id = {stream};\n\tloglevel = {};\n",
        quoted(&t.name),
        t.loglevel.number()
    );
    if let Some(uri) = &t.emf_uri {
        put(&mut out, format_args!("\tmodel.emf.uri = {};\n", quoted(uri)));
    }
    out.push_str("\tfields := struct {\n");
    for field in &t.fields {
        let name = identifier(&field.name);
        out.push_str("\t\t");
        match &field.field_type {
            FieldType::Array { element, length, encoding, .. } => {
                element_type(&mut out, element, *encoding);
                put(&mut out, format_args!(" {name}[{length}];\n"));
            }
            FieldType::Sequence { element, length_name, encoding, .. } => {
                element_type(&mut out, element, *encoding);
                put(&mut out, format_args!(" {name}[ {} ];\n", identifier(length_name)));
            }
            other => {
                element_type(&mut out, other, Encoding::None);
                put(&mut out, format_args!(" {name};\n"));
            }
        }
    }
    out.push_str("\t};\n};\n\n");
    out
}

/// A scalar type, or the element of an array or sequence whose text encoding is `encoding`.
fn element_type(out: &mut String, t: &FieldType, encoding: Encoding) {
    match t {
        FieldType::Integer(i) => integer(out, i, encoding),
        FieldType::Float(f) => float(out, f),
        FieldType::String(Encoding::Ascii) => out.push_str("string { encoding = ASCII; }"),
        FieldType::String(_) => out.push_str("string"),
        FieldType::Enum { container, entries, .. } => enumeration(out, container, entries),
        // `check` refused arrays of arrays.
        FieldType::Array { element, .. } | FieldType::Sequence { element, .. } => {
            element_type(out, element, encoding);
        }
    }
}

fn integer(out: &mut String, i: &IntegerType, encoding: Encoding) {
    let encoding = match encoding {
        Encoding::None => "none",
        Encoding::Utf8 => "UTF8",
        Encoding::Ascii => "ASCII",
    };
    put(
        out,
        format_args!(
            "integer {{ size = {}; align = {}; signed = {}; encoding = {encoding}; base = {};{} }}",
            i.size_bits,
            i.align_bits,
            u8::from(i.signed),
            i.base,
            foreign(i.reverse_byte_order)
        ),
    );
}

fn float(out: &mut String, f: &FloatType) {
    put(
        out,
        format_args!(
            "floating_point {{ exp_dig = {}; mant_dig = {}; align = {};{} }}",
            f.exponent_bits,
            f.mantissa_bits,
            f.align_bits,
            foreign(f.reverse_byte_order)
        ),
    );
}

fn enumeration(out: &mut String, container: &IntegerType, entries: &[EnumEntry]) {
    out.push_str("enum : ");
    integer(out, container, Encoding::None);
    out.push_str(" {\n");
    for entry in entries {
        put(out, format_args!("\t\t\t{}", quoted(&entry.label)));
        if !entry.auto {
            put(out, format_args!(" = {}", Number(entry.start)));
            if entry.start != entry.end {
                put(out, format_args!(" ... {}", Number(entry.end)));
            }
        }
        out.push_str(",\n");
    }
    out.push_str("\t\t}");
}

struct Number(EnumValue);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.signed { write!(f, "{}", self.0.bits as i64) } else { write!(f, "{}", self.0.bits) }
    }
}

fn foreign(reverse: bool) -> String {
    let (_, other) = byte_orders();
    if reverse { format!(" byte_order = {other};") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use sillage_model::{Field, LogLevel};

    fn integer_type(size_bits: u32, signed: bool) -> IntegerType {
        IntegerType { size_bits, align_bits: 8, signed, reverse_byte_order: false, base: 10 }
    }

    #[test]
    fn the_header_is_lttngs() {
        let h = Header {
            uuid: *b"0123456789abcdef",
            uid: 7,
            session: "a\"b\\c\nd",
            created: "20261121T063059+0000",
            hostname: "vm",
            boot_id: "d60e9800-6b9c-48b4-897b-169fd546ca6e",
            clock_offset: -5,
            version: "0.1.0",
        };
        let text = header(&h, 2);
        let start = text.find("trace {").unwrap();
        let end = text.find("typealias integer {\n").unwrap();
        expect![[r#"
            trace {
            	major = 1;
            	minor = 8;
            	uuid = "30313233-3435-3637-3839-616263646566";
            	byte_order = le;
            	packet.header := struct {
            		uint32_t magic;
            		uint8_t  uuid[16];
            		uint32_t stream_id;
            		uint64_t stream_instance_id;
            	};
            };

            env {
            	domain = "ust";
            	tracer_name = "lttng-ust";
            	tracer_major = 2;
            	tracer_minor = 13;
            	tracer_buffering_scheme = "uid";
            	tracer_buffering_id = 7;
            	architecture_bit_width = 64;
            	trace_name = "a\"b\\c\nd";
            	trace_creation_datetime = "20261121T063059+0000";
            	hostname = "vm";
            	sillage_version = "0.1.0";
            };

            clock {
            	name = "monotonic";
            	uuid = "d60e9800-6b9c-48b4-897b-169fd546ca6e";
            	description = "Monotonic Clock";
            	freq = 1000000000; /* Frequency, in Hz */
            	/* clock value offset from Epoch is: offset * (1/freq) */
            	offset = -5;
            };

        "#]]
        .assert_eq(&text[start..end]);
        assert!(text.ends_with("stream {\n\tid = 1;\n\tevent.header := struct event_header_large;\n\tpacket.context := struct packet_context;\n};\n\n"));
    }

    #[test]
    fn every_field_type_has_lttngs_text() {
        let boxed = |t| Box::new(FieldType::Integer(t));
        let hex = IntegerType { base: 16, ..integer_type(64, false) };
        let network = IntegerType { reverse_byte_order: true, ..integer_type(32, true) };
        let double =
            FloatType { exponent_bits: 11, mantissa_bits: 53, align_bits: 8, reverse_byte_order: false };
        let value = |n: i64| EnumValue { bits: n as u64, signed: true };
        let entry = |label: &str, start, end, auto| EnumEntry {
            label: label.into(),
            start: value(start),
            end: value(end),
            auto,
        };
        let fields = [
            ("i", FieldType::Integer(integer_type(32, true))),
            ("s", FieldType::String(Encoding::Utf8)),
            ("a.b-c", FieldType::Integer(hex)),
            ("net", FieldType::Integer(network)),
            ("d", FieldType::Float(double)),
            (
                "e",
                FieldType::Enum {
                    name: "colour".into(),
                    container: integer_type(32, true),
                    entries: vec![
                        entry("red", -1, -1, false),
                        entry("bl\"ue", 2, 5, false),
                        entry("next", 6, 6, true),
                    ],
                },
            ),
            (
                "t",
                FieldType::Array {
                    element: boxed(integer_type(8, true)),
                    length: 4,
                    align_bits: 8,
                    encoding: Encoding::Utf8,
                },
            ),
            ("_q_length", FieldType::Integer(integer_type(64, false))),
            (
                "q",
                FieldType::Sequence {
                    element: boxed(integer_type(16, true)),
                    length_name: "_q_length".into(),
                    align_bits: 8,
                    encoding: Encoding::None,
                },
            ),
        ];
        let fields = fields.map(|(name, field_type)| Field { name: name.into(), field_type });
        let t = Tracepoint {
            name: "p:e".into(),
            loglevel: LogLevel::from_number(4),
            emf_uri: Some("http://x/y?z=1".into()),
            fields: fields.into(),
        };
        expect![[r#"
            event {
            	name = "p:e";
            	id = 3;
            	stream_id = 1;
            	loglevel = 4;
            	model.emf.uri = "http://x/y?z=1";
            	fields := struct {
            		integer { size = 32; align = 8; signed = 1; encoding = none; base = 10; } _i;
            		string _s;
            		integer { size = 64; align = 8; signed = 0; encoding = none; base = 16; } _a_b_c;
            		integer { size = 32; align = 8; signed = 1; encoding = none; base = 10; byte_order = be; } _net;
            		floating_point { exp_dig = 11; mant_dig = 53; align = 8; } _d;
            		enum : integer { size = 32; align = 8; signed = 1; encoding = none; base = 10; } {
            			"red" = -1,
            			"bl\"ue" = 2 ... 5,
            			"next",
            		} _e;
            		integer { size = 8; align = 8; signed = 1; encoding = UTF8; base = 10; } _t[4];
            		integer { size = 64; align = 8; signed = 0; encoding = none; base = 10; } __q_length;
            		integer { size = 16; align = 8; signed = 1; encoding = none; base = 10; } _q[ __q_length ];
            	};
            };

        "#]]
        .assert_eq(&event_class(&t, 3, 1));
    }
}
