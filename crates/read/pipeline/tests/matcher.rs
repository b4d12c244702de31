//! A filter finds what a look at every event finds, whichever way its references go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sillage_ctf::{Event, Message, Value};
use sillage_pipeline::filters::Matcher;
use sillage_pipeline::sources::Source;
use sillage_pipeline::{Messages, Status};

/// A value that a filter can be asked for.
#[derive(Debug, Clone, PartialEq)]
enum Plain {
    Integer(i64),
    Text(Vec<u8>),
}

fn plain(value: &Value<'_>) -> Option<Plain> {
    Some(match value {
        Value::Unsigned(value) | Value::Bits(value) => Plain::Integer(value.cast_signed()),
        Value::Signed(value) => Plain::Integer(*value),
        Value::Bool(value) => Plain::Integer(i64::from(*value)),
        Value::Text(text) => Plain::Text(text.to_vec()),
        _ => return None,
    })
}

fn is_word(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// The names of the members of the event's roots.
fn names(event: &Event<'_>) -> Vec<String> {
    let roots = [event.payload(), event.specific_context(), event.common_context(), event.packet_context()];
    let members = roots.into_iter().flatten().flat_map(|root| root.children().collect::<Vec<_>>());
    members.map(|member| member.name().to_owned()).filter(|name| is_word(name)).collect()
}

fn events(mut messages: impl Messages, mut each: impl FnMut(&Event<'_>)) {
    loop {
        match messages.advance() {
            Ok(Status::Ready) => {}
            Ok(_) => return,
            Err(_) => continue,
        }
        if let Some(Message::Event(event)) = messages.current() {
            each(&event);
        }
    }
}

/// Values of the fields of a source: the first that each name has, and one that comes later.
fn wanted(source: &Source) -> Vec<(String, Plain)> {
    let mut found: BTreeMap<String, Vec<Plain>> = BTreeMap::new();
    let mut number = 0;
    events(source.messages(), |event| {
        number += 1;
        if number > 200 && number % 97 != 0 {
            return;
        }
        for name in names(event) {
            let Some(value) = event.field(&name).and_then(|field| plain(&field.value())) else { continue };
            let values = found.entry(name).or_default();
            if values.len() < 2 && !values.contains(&value) {
                values.push(value);
            }
        }
    });
    found.into_iter().flat_map(|(name, values)| values.into_iter().map(move |v| (name.clone(), v))).collect()
}

fn count_by_filter(source: &Source, text: &str) -> u64 {
    let filter = sillage_filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut count = 0;
    events(Matcher::new(source.messages(), filter), |_| count += 1);
    count
}

#[test]
fn filters_find_what_looking_finds() {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let (mut filters, mut matching) = (0, 0);
    for name in [
        "traces/gen-ust-rich",
        "traces/gen-ust-lost1",
        "traces/tc-papi_counters",
        "traces/bt1-meta-ctx-sequence",
        "traces/bt2-wk-heartbeat-u",
        "traces/tc-flipping-endianness",
        "traces/tc-CTF2-vl-ints",
    ] {
        let path = shared.join(name);
        if !path.is_dir() {
            eprintln!("SKIPPED: {} is missing", path.display());
            return;
        }
        let Ok(source) = sillage_pipeline::open(&path) else { continue };
        for (field, value) in wanted(&source).into_iter().take(40) {
            let text = match &value {
                Plain::Integer(value) if *value >= 0 => format!("{field} == {value}"),
                Plain::Integer(value) if *value > i64::MIN => format!("{field} == -{}", value.unsigned_abs()),
                Plain::Text(text) if text.iter().all(u8::is_ascii_alphanumeric) => {
                    format!("{field} == \"{}\"", String::from_utf8_lossy(text))
                }
                _ => continue,
            };
            let mut want = 0;
            events(source.messages(), |event| {
                let found = event.field(&field).and_then(|field| plain(&field.value()));
                want += u64::from(found.as_ref() == Some(&value));
            });
            assert_eq!(count_by_filter(&source, &text), want, "{name}: {text}");
            filters += 1;
            matching += want;
        }
    }
    assert!(filters > 100 && matching > 10_000, "{filters} filters, {matching} events");
}
