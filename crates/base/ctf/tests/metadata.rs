//! Metadata text in, what was understood of it (or the error with its place) out.

use std::fmt::Write as _;

use sillage_ctf::model::{FieldClass, FieldKind, IntegerLayout, Length, StringExtent};
use sillage_ctf::{MetadataOptions, MetadataReader};

/// One field class in a few letters: `u8`, `i32be@32`, `[3]u8`, `{a:u8}`, `<A:…|B:…>`.
fn short(class: &FieldClass) -> String {
    let length = |length: &Length| match length {
        Length::Static(length) => length.to_string(),
        Length::Dynamic(field) => format!("{:?}{:?}", field.paths[0].scope, field.paths[0].items),
    };
    match &class.kind {
        FieldKind::Integer(c) => {
            let sign = if c.signed { 'i' } else { 'u' };
            let IntegerLayout::Fixed(layout) = c.layout else { return format!("{sign}leb") };
            let mut out = format!("{sign}{}", layout.size_bits);
            if layout.byte_order == sillage_ctf::model::ByteOrder::Big {
                out += "be";
            }
            if class.alignment_bits != 8 {
                let _ = write!(out, "@{}", class.alignment_bits);
            }
            for mapping in &c.mappings {
                let ranges: Vec<String> =
                    mapping.ranges.iter().map(|r| format!("{}..{}", r.lower, r.upper)).collect();
                let _ = write!(out, " {}={}", mapping.label, ranges.join("+"));
            }
            out
        }
        FieldKind::Float(c) => format!("f{}", c.layout.size_bits),
        FieldKind::String(c) => match &c.extent {
            StringExtent::NullTerminated => "text".to_owned(),
            StringExtent::Sized(l) => format!("text({})", length(l)),
        },
        FieldKind::Struct(c) => {
            let members: Vec<String> =
                c.members.iter().map(|m| format!("{}:{}", m.name, short(&m.class))).collect();
            format!("{{{}}}@{}", members.join(" "), class.alignment_bits)
        }
        FieldKind::Array(c) => format!("[{}]{}", length(&c.length), short(&c.element)),
        FieldKind::Variant(c) => {
            let options: Vec<String> = c
                .options
                .iter()
                .map(|o| {
                    let ranges: Vec<String> =
                        o.ranges.iter().map(|r| format!("{}..{}", r.lower, r.upper)).collect();
                    format!("{}({}):{}", o.name.as_deref().unwrap_or("-"), ranges.join("+"), short(&o.class))
                })
                .collect();
            format!("<{}>", options.join("|"))
        }
        other => format!("{other:?}"),
    }
}

fn understood(text: &str, options: MetadataOptions) -> String {
    let mut reader = MetadataReader::new(options);
    let class = match reader.push(text.as_bytes()).and_then(|()| reader.snapshot()) {
        Ok(class) => class,
        Err(error) => return error.with_source(),
    };
    let mut out = String::new();
    for stream in &class.stream_classes {
        for event in &stream.event_classes {
            let payload = event.payload.as_deref().map(short).unwrap_or_default();
            let name = event.name.as_deref().unwrap_or("-");
            let _ = writeln!(out, "{}/{} {name} {payload}", stream.id, event.id);
        }
    }
    for warning in reader.take_warnings() {
        let _ = writeln!(out, "! {}: {}", warning.line, warning.message);
    }
    out
}

const HEAD: &str = "/* CTF 1.8 */ trace { major = 1; minor = 8; byte_order = le; };\n\
typealias integer { size = 8; } := u8; typealias integer { size = 32; } := unsigned int;\n";

/// Checks the payload that `fields` declares.
fn check(fields: &str, want: &str) {
    let text = format!("{HEAD}event {{ name = e; fields := struct {{ {fields} }}; }};");
    let got = understood(&text, MetadataOptions::default());
    assert_eq!(got.trim_end(), want, "{fields}");
}

#[test]
fn types() {
    check("unsigned int _a; u8 __b;", "0/0 e {a:u32 _b:u8}@8");
    check("integer { size = 5; signed = true; byte_order = be; } x;", "0/0 e {x:i5be@1}@1");
    check("u8 x[2][3];", "0/0 e {x:[2][3]u8}@8");
    check("u8 n; u8 x[n];", "0/0 e {n:u8 x:[Payload[Index(0)]]u8}@8");
    check("integer { size = 8; encoding = UTF8; } s[4]; string t;", "0/0 e {s:text(4) t:text}@8");
    check("struct { } align(64) pad;", "0/0 e {pad:{}@64}@64");
    check("typedef u8 pair[2]; pair p;", "0/0 e {p:[2]u8}@8");
    check("enum : u8 { A, B = 4 ... 6, C, A = 20, } e;", "0/0 e {e:u8 A=0..0+20..20 B=4..6 C=7..7}@8");
    check(
        "enum : u8 { A, _B } t; variant <t> { u8 A; string _B; } v;",
        "0/0 e {t:u8 A=0..0 _B=1..1 v:<A(0..0):u8|B(1..1):text>}@8",
    );
    check("floating_point { exp_dig = 11; mant_dig = 53; } d;", "0/0 e {d:f64}@8");
}

#[test]
fn errors_show_the_place() {
    let at = "event { name = e; fields := struct { ";
    let fails = |fields: &str, message: &str, column: usize| {
        let want = format!(
            "metadata:3:{}: {message}\n  {at}{fields} }}; }};\n  {}^",
            at.len() + column,
            " ".repeat(at.len() + column - 1)
        );
        check(fields, &want);
    };
    fails("nope x;", "type `nope` is not declared", 1);
    fails("u8 a; u8 _a;", "Duplicate field `_a` in structure (a leading `_` does not count)", 10);
    fails("u8 x[n];", "cannot find field `n` before its user", 4);
    fails("integer { size = 65; } x;", "integer size of 65 bits is not in 1 to 64", 1);
    fails("u8 x:3;", "GNU bit-fields are not supported", 5);
    fails("u8 t; variant <t> { u8 a; } v;", "variant tag `t` is not an enumeration", 7);
    fails("u8 a", "syntax error: expected `,`, found `}`", 6);
    fails(
        "floating_point { exp_dig = 1; mant_dig = 2; } f;",
        "floating point sizes are 5/11, 8/24, 11/53 and 15/113 (exponent/mantissa)",
        1,
    );
}

#[test]
fn metadata_whose_writer_was_killed_are_read_up_to_the_last_whole_declaration() {
    let whole = "/* CTF 1.8 */\ntrace { major = 1; minor = 8; byte_order = le; };\nstream { };\n\
                 event { name = \"a\"; fields := struct { integer { size = 8; } x; }; };\n";
    let torn = "\nevent {\n\tname = \"b;}\";\n\tid = 0x1;\n\tfields := struct { string s; } /* ; */;\n};\n";
    let read = |text: &str| {
        let mut reader = MetadataReader::new(MetadataOptions::default());
        reader.push_file(text.as_bytes())?;
        let events = reader.snapshot()?.event_class_count();
        Ok::<_, Box<sillage_ctf::MetadataError>>((events, reader.take_warnings()))
    };
    for end in 0..torn.len() - 2 {
        let text = format!("{whole}{}", &torn[..end]);
        let (events, warnings) = read(&text).unwrap();
        assert_eq!((events, warnings.len()), (1, usize::from(end > 1)), "{end} {warnings:?}");
        // After a power cut the rest of the file may be zeroes.
        let (events, _) = read(&format!("{text}\0\0\0")).unwrap();
        assert_eq!(events, 1);
        if let Some(warning) = warnings.first() {
            let cut = end + 1;
            let expected = format!(
                "the metadata end in a torn declaration: {cut} bytes behind offset {} are left out",
                whole.len() - 1
            );
            assert_eq!((warning.line, &warning.message), (4, &expected));
        }
    }
    assert_eq!(read(&format!("{whole}{torn}")).unwrap(), (2, vec![]));
    // A fault in the middle stays a fault, as does a text without anything whole.
    assert!(read(&format!("{whole}{}{torn}", "event {\n\tname = ;\n};\n")).is_err());
    assert!(read(&format!("event {{ name = \n{whole}{torn}")).is_err());
    assert!(read("trace { major = 1; minor").is_err());
    // A piece that ends so is not complete.
    let mut reader = MetadataReader::new(MetadataOptions::default());
    assert!(reader.push(format!("{whole}{}", &torn[..20]).as_bytes()).is_err());
}

#[test]
fn pieces_grow_the_same_trace() {
    let mut reader = MetadataReader::new(MetadataOptions::default());
    reader.push(HEAD.as_bytes()).unwrap();
    reader.push(b"stream { id = 0; }; event { name = a; id = 0; stream_id = 0; };").unwrap();
    let first = reader.snapshot().unwrap();
    reader.push(b"event { name = b; id = 1; stream_id = 0; fields := struct { u8 x; }; };").unwrap();
    let second = reader.snapshot().unwrap();
    assert_eq!(first.event_class_count(), 1);
    assert_eq!(second.event_class_count(), 2);
    // What was there is shared, and indexes stay.
    assert!(std::sync::Arc::ptr_eq(
        &first.stream_classes[0].event_classes[0],
        &second.stream_classes[0].event_classes[0]
    ));
    assert_eq!(second.stream_classes[0].event_classes[1].index, 1);
}

#[test]
fn ctf_2_is_strict_unless_told() {
    let text = "\x1e{\"type\":\"preamble\",\"version\":2}\n\
        \x1e{\"type\":\"trace-class\",\"nope\":1}\n\x1e{\"type\":\"data-stream-class\"}";
    assert_eq!(
        understood(text, MetadataOptions::default()),
        "metadata:2:31: Unknown object property `nope`\n  \x1e{\"type\":\"trace-class\",\"nope\":1}\n                                ^"
    );
    let lenient = MetadataOptions { lenient: true, ..MetadataOptions::default() };
    assert_eq!(understood(text, lenient), "! 2: Unknown object property `nope`\n");
    let without = "\x1e{\"type\":\"preamble\",\"version\":2}";
    assert_eq!(understood(without, MetadataOptions::default()), "Missing data stream class fragment");
}
