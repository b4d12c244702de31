//! The 317 one-field traces of Babeltrace's test set: every field class, alignment, byte and bit
//! order, against the rendering that Babeltrace's own tests expect.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sillage_ctf::model::{DisplayBase, FieldKind, Scope, Stream, Trace};
use sillage_ctf::{Event, Field, MetadataOptions, MetadataReader, PacketDecoder, Value};

fn shared() -> PathBuf {
    std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from)
}

/// Decodes the only event of a trace directory and renders its payload's member `root`.
fn decode(dir: &Path) -> Result<String, String> {
    let metadata = std::fs::read(dir.join("metadata")).map_err(|e| e.to_string())?;
    let class = MetadataReader::read(&metadata, MetadataOptions::default()).map_err(|e| e.with_source())?;
    let data = std::fs::read(dir.join("stream")).map_err(|e| e.to_string())?;
    let mut decoder = PacketDecoder::new();
    decoder.start(&class, &data).map_err(|e| e.to_string())?;
    let stream = Stream {
        index: 0,
        trace: Arc::new(Trace { index: 0, class: Arc::clone(&class), name: None }),
        class: Arc::clone(&class.stream_classes[0]),
        id: 0,
        name: None,
    };
    let found = decoder.next_event(&stream.class, &data).map_err(|e| e.to_string())?;
    assert!(found);
    let event = Event::of_decoder(&stream, None, &data, &decoder).ok_or("no event")?;
    let root = event.payload().and_then(|p| p.get("root")).ok_or("no root")?;
    let mut out = String::new();
    render(&root, 0, &mut out);
    // The visitor must see as many fields as there are in the table.
    let mut count = Count(0);
    event.visit(Scope::Payload, &mut count);
    assert_eq!(count.0, leaves(&event.payload().ok_or("no payload")?));
    Ok(out.trim_end().to_owned())
}

struct Count(usize);

impl sillage_ctf::FieldVisitor for Count {
    fn unsigned(&mut self, _: &sillage_ctf::Node, _: u64) {
        self.0 += 1;
    }
    fn signed(&mut self, _: &sillage_ctf::Node, _: i64) {
        self.0 += 1;
    }
    fn boolean(&mut self, _: &sillage_ctf::Node, _: bool) {
        self.0 += 1;
    }
    fn bits(&mut self, _: &sillage_ctf::Node, _: u64) {
        self.0 += 1;
    }
    fn real(&mut self, _: &sillage_ctf::Node, _: f64) {
        self.0 += 1;
    }
    fn text(&mut self, _: &sillage_ctf::Node, _: &[u8]) {
        self.0 += 1;
    }
    fn blob(&mut self, _: &sillage_ctf::Node, _: &[u8]) {
        self.0 += 1;
    }
}

fn leaves(field: &Field<'_>) -> usize {
    match field.value() {
        Value::Struct(fields) | Value::Array(fields) => fields.map(|f| leaves(&f)).sum(),
        Value::Optional(content) | Value::Variant(_, content) => content.map_or(0, |f| leaves(&f)),
        _ => 1,
    }
}

/// The field on the rest of the line, or on lines of its own below.
fn render(field: &Field<'_>, indent: usize, out: &mut String) {
    let line = |out: &mut String| {
        if !out.is_empty() && !out.ends_with("- ") {
            if out.ends_with(' ') {
                out.pop();
            }
            out.push('\n');
            out.push_str(&" ".repeat(indent));
        }
    };
    match field.value() {
        Value::Struct(fields) | Value::Array(fields) if fields.count_left() == 0 => {
            out.push('∅');
        }
        Value::Struct(fields) => {
            for field in fields {
                line(out);
                let _ = write!(out, "{}: ", field.name());
                render(&field, indent + 2, out);
            }
        }
        Value::Array(fields) => {
            for (index, field) in fields.enumerate() {
                if index == 0 && out.ends_with("- ") {
                    out.pop();
                    let _ = write!(out, "\n{}", " ".repeat(indent));
                } else {
                    line(out);
                }
                out.push_str("- ");
                render(&field, indent + 2, out);
            }
        }
        Value::Optional(None) => out.push('~'),
        Value::Optional(Some(field)) => render(&field, indent, out),
        Value::Variant(_, field) => {
            if let Some(field) = field {
                render(&field, indent, out);
            }
        }
        leaf => out.push_str(&scalar(field, leaf)),
    }
}

fn scalar(field: &Field<'_>, value: Value<'_>) -> String {
    let base = match &field.class().kind {
        FieldKind::Integer(class) => class.base,
        _ => DisplayBase::Decimal,
    };
    match value {
        Value::Unsigned(v) => match base {
            DisplayBase::Binary => format!("{v:#b}"),
            DisplayBase::Octal => format!("{v:#o}"),
            DisplayBase::Decimal => v.to_string(),
            DisplayBase::Hexadecimal => format!("{v:#x}"),
        },
        Value::Signed(v) => v.to_string(),
        Value::Bool(v) => if v { "yes" } else { "no" }.to_owned(),
        Value::Bits(v) => {
            let FieldKind::BitArray(class) = &field.class().kind else {
                return "not a bit array".to_owned();
            };
            let bits: Vec<String> =
                (0..class.layout.size_bits).rev().map(|bit| (v >> bit & 1).to_string()).collect();
            format!("[{}]", bits.join(", "))
        }
        Value::Real(v) => format!("{v:.6}"),
        Value::Text(v) => format!("\"{}\"", String::from_utf8_lossy(v)),
        Value::Blob([]) => "∅".to_owned(),
        Value::Blob(v) => {
            let bytes: Vec<String> = v.iter().map(|byte| format!("{byte:02x}")).collect();
            bytes.join(" ")
        }
        _ => "not a scalar".to_owned(),
    }
}

#[test]
fn corpus_of_field_classes() {
    let root = shared().join("traces/fields");
    let Ok(entries) = std::fs::read_dir(&root) else {
        eprintln!("SKIPPED: {} is missing", root.display());
        return;
    };
    let mut wrong = String::new();
    let mut right = 0;
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        let dir = entry.path();
        let name = entry.file_name();
        let got = decode(&dir.join("trace"));
        let ok = match (
            std::fs::read_to_string(dir.join("expected-field.txt")),
            std::fs::read_to_string(dir.join("expected-error-substring.txt")),
            &got,
        ) {
            (Ok(want), _, Ok(got)) => want.trim_end() == got,
            // What Babeltrace says when data is missing, in our words.
            (_, Ok(want), Err(got)) if want.starts_with("Insufficient data") => {
                got.contains("are left in the content")
            }
            (_, Ok(want), Err(got)) => got.contains(want.trim_end()),
            _ => false,
        };
        if ok {
            right += 1;
        } else {
            let _ = writeln!(wrong, "== {}\n{got:?}", name.display());
        }
    }
    assert!(wrong.is_empty(), "{right} right, but:\n{wrong}");
    assert_eq!(right, 317);
}
