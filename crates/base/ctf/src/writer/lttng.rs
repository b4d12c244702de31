//! The blocks of TSDL that every trace of LTTng's shape has, in the words and order of LTTng 2.13
//! (`lttng-ctf-format.md` §5): what stands in front of the streams, and the streams.
//!
//! Programs' traces and the kernel's differ in their environment, their contexts and their events; the
//! recorders write the text of those. The ring's producers write packet contexts and event headers of these
//! very shapes.

use super::names::quoted;
use crate::model::{EnvValue, Uuid};
use std::fmt::{Arguments, Write as _};

/// What a trace says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// UUID of the trace.
    pub uuid: [u8; 16],
    /// The environment, in its order. Keys are identifiers.
    pub environment: &'a [(&'a str, EnvValue)],
    /// Boot id of the machine.
    pub boot_id: &'a str,
    /// CLOCK_REALTIME − CLOCK_MONOTONIC, ns.
    pub clock_offset: i64,
}

/// Shape of a stream's event headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventHeader {
    /// Ids of 5 bits beside 27 bits of time, up to 30.
    Compact,
    /// Ids of 16 bits and 32 bits of time, up to 65534.
    Large,
}

const INTEGERS: &str = "\
typealias integer { size = 8; align = 8; signed = false; } := uint8_t;
typealias integer { size = 16; align = 8; signed = false; } := uint16_t;
typealias integer { size = 32; align = 8; signed = false; } := uint32_t;
typealias integer { size = 64; align = 8; signed = false; } := uint64_t;
typealias integer { size = 64; align = 8; signed = false; } := unsigned long;
typealias integer { size = 5; align = 1; signed = false; } := uint5_t;
typealias integer { size = 27; align = 1; signed = false; } := uint27_t;
";

const PACKET_HEADER: &str = "\tpacket.header := struct {
		uint32_t magic;
		uint8_t  uuid[16];
		uint32_t stream_id;
		uint64_t stream_instance_id;
	};
};
";

const PACKET_CONTEXT: &str = "\
struct packet_context {
	uint64_clock_monotonic_t timestamp_begin;
	uint64_clock_monotonic_t timestamp_end;
	uint64_t content_size;
	uint64_t packet_size;
	uint64_t packet_seq_num;
	unsigned long events_discarded;
	uint32_t cpu_id;
};
";

/// Everything in front of the streams.
pub fn head(head: &Head<'_>) -> String {
    let (own, _) = byte_orders();
    let mut out = format!("/* CTF 1.8 */\n\n{INTEGERS}\ntrace {{\n\tmajor = 1;\n\tminor = 8;\n");
    put(&mut out, format_args!("\tuuid = \"{}\";\n\tbyte_order = {own};\n", Uuid(head.uuid)));
    put(&mut out, format_args!("{PACKET_HEADER}\nenv {{\n"));
    for (key, value) in head.environment {
        match value {
            EnvValue::Integer(value) => put(&mut out, format_args!("\t{key} = {value};\n")),
            EnvValue::Text(value) => put(&mut out, format_args!("\t{key} = {};\n", quoted(value))),
        }
    }
    put(
        &mut out,
        format_args!(
            "}};\n\nclock {{\n\tname = \"monotonic\";\n\tuuid = {};\n\tdescription = \"Monotonic Clock\";\n\
             \tfreq = 1000000000; /* Frequency, in Hz */\n\
             \t/* clock value offset from Epoch is: offset * (1/freq) */\n\toffset = {};\n}};\n\n",
            quoted(head.boot_id),
            head.clock_offset
        ),
    );
    for (bits, align) in [(27, 1), (32, 8), (64, 8)] {
        put(
            &mut out,
            format_args!(
                "typealias integer {{\n\tsize = {bits}; align = {align}; signed = false;\n\
                 \tmap = clock.monotonic.value;\n}} := uint{bits}_clock_monotonic_t;\n\n"
            ),
        );
    }
    put(&mut out, format_args!("{PACKET_CONTEXT}\n"));
    event_header(&mut out, "compact", (5, 31), 27);
    event_header(&mut out, "large", (16, 65535), 32);
    out
}

/// The shape of event headers whose ids have so many bits and this value where a long header follows.
fn event_header(out: &mut String, name: &str, (id_bits, escape): (u32, u32), time_bits: u32) {
    put(
        out,
        format_args!(
            "struct event_header_{name} {{\n\
             \tenum : uint{id_bits}_t {{ compact = 0 ... {}, extended = {escape} }} id;\n\
             \tvariant <id> {{\n\t\tstruct {{\n\t\t\tuint{time_bits}_clock_monotonic_t timestamp;\n\t\t}} compact;\n\
             \t\tstruct {{\n\t\t\tuint32_t id;\n\t\t\tuint64_clock_monotonic_t timestamp;\n\t\t}} extended;\n\
             \t}} v;\n}} align(8);\n\n",
            escape - 1
        ),
    );
}

/// The block of a stream; `contexts` are the members of its event context, each a line with two tabs in front.
pub fn stream(id: usize, header: EventHeader, contexts: &str) -> String {
    let form = match header {
        EventHeader::Compact => "compact",
        EventHeader::Large => "large",
    };
    let contexts = match contexts {
        "" => String::new(),
        _ => format!("\tevent.context := struct {{\n{contexts}\t}};\n"),
    };
    format!(
        "stream {{\n\tid = {id};\n\tevent.header := struct event_header_{form};\n\
         \tpacket.context := struct packet_context;\n{contexts}}};\n\n"
    )
}

/// A field name as it stands in the trace: with a leading underscore, other characters replaced.
pub fn identifier(name: &str) -> String {
    let rest = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    std::iter::once('_').chain(rest).collect()
}

/// The machine's byte order and the other one, in TSDL's words.
pub fn byte_orders() -> (&'static str, &'static str) {
    if cfg!(target_endian = "little") { ("le", "be") } else { ("be", "le") }
}

/// Appends formatted text.
pub fn put(out: &mut String, arguments: Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{MetadataOptions, MetadataReader};

    const BOOT_ID: &str = "d60e9800-6b9c-48b4-897b-169fd546ca6e";

    #[test]
    fn what_is_written_is_read_again() {
        let environment = [("domain", EnvValue::Text("a\"b".into())), ("major", EnvValue::Integer(2))];
        let head =
            head(&Head { uuid: [7; 16], environment: &environment, boot_id: BOOT_ID, clock_offset: -5 });
        let contexts = "\t\tuint32_t _tid;\n";
        let streams = [stream(0, EventHeader::Compact, ""), stream(1, EventHeader::Large, contexts)].concat();
        let text = format!("{head}{streams}");
        // A tab for each level, everywhere.
        let mut depth = 0;
        for line in text.lines() {
            let closing = usize::from(line.trim_start().starts_with('}'));
            let tabs = line.len() - line.trim_start_matches('\t').len();
            assert_eq!(tabs, depth - closing, "{line}");
            depth = depth + line.matches('{').count() - line.matches('}').count();
        }
        let class = MetadataReader::read(text.as_bytes(), MetadataOptions::default()).unwrap();
        assert_eq!((class.stream_classes.len(), class.environment.len()), (2, 2));
        assert_eq!(identifier("a.b-c"), "_a_b_c");
    }
}
