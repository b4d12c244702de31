//! Batches of columns hold what the messages of the same streams say: times, classes, integers,
//! texts, reals, losses.

use std::path::{Path, PathBuf};

use sillage_ctf::model::{FieldKind, Scope, StreamClass};
use sillage_ctf::{Message, Picked, Value};
use sillage_pipeline::sources::Source;
use sillage_pipeline::{Messages, Status};

/// One value: stream, time, event class, scope and name, text of the value.
type Row = (u64, i64, u64, Scope, String, String);

const SCOPES: [Scope; 3] = [Scope::CommonContext, Scope::SpecificContext, Scope::Payload];

/// What the columns say of every member of every scope's root, and what was lost.
fn by_columns(source: &Source) -> (Vec<Row>, u64) {
    let mut found = Vec::new();
    let mut lost = 0;
    for mut reader in source.columns() {
        let stream = reader.stream().index as u64;
        let class = reader.stream().class.clone();
        let picked = pick_all(&class);
        while let Some(batch) = reader.next_batch().unwrap() {
            lost += batch.lost_events;
            assert!(!batch.columns.is_empty());
            assert_eq!(batch.times_ns.len(), batch.columns.len());
            assert_eq!(batch.columns.event_class_positions().count(), batch.columns.len());
            for (event_id, scope, name, field) in &picked {
                let mut add = |row: u32, value: String| {
                    let own = batch.columns.event_class(row as usize).unwrap();
                    assert_eq!(own.id, *event_id);
                    let ns = batch.times_ns[row as usize];
                    found.push((stream, ns, *event_id, *scope, name.clone(), value));
                };
                let (mut rows, mut integers, mut reals) = (Vec::new(), Vec::new(), Vec::new());
                batch.columns.integers(field, &mut rows, &mut integers);
                rows.iter().zip(&integers).for_each(|(row, value)| add(*row, value.to_string()));
                rows.clear();
                batch.columns.reals(field, &mut rows, &mut reals);
                rows.iter().zip(&reals).for_each(|(row, value)| add(*row, value.to_string()));
                batch.columns.texts(field, |row, text| add(row, String::from_utf8_lossy(text).into_owned()));
            }
        }
    }
    (found, lost)
}

fn pick_all(class: &StreamClass) -> Vec<(u64, Scope, String, Picked)> {
    let mut picked = Vec::new();
    for (position, event) in class.event_classes.iter().enumerate() {
        let roots = [&class.common_context, &event.specific_context, &event.payload];
        for (scope, root) in SCOPES.into_iter().zip(roots) {
            let members = root.as_ref().and_then(|root| root.as_struct()).map(|root| &root.members);
            for member in members.into_iter().flatten() {
                let nested = matches!(member.class.kind, FieldKind::Struct(_) | FieldKind::Array(_));
                if !nested && let Some(field) = Picked::new(class, position, scope, &member.name) {
                    picked.push((event.id, scope, member.name.clone(), field));
                }
            }
        }
    }
    picked
}

/// The same from the messages.
fn by_messages(source: &Source) -> (Vec<Row>, u64) {
    let mut found = Vec::new();
    let mut lost = 0;
    for (stream, mut messages) in source.messages_by_stream() {
        while messages.advance().unwrap() == Status::Ready {
            let event = match messages.current() {
                Some(Message::Event(event)) => event,
                Some(Message::DiscardedEvents(loss)) => {
                    lost += loss.count.unwrap_or(0);
                    continue;
                }
                _ => continue,
            };
            let ns = event.clock.and_then(|clock| clock.ns).unwrap();
            for scope in SCOPES {
                let Some(Value::Struct(members)) = event.scope(scope).map(|root| root.value()) else {
                    continue;
                };
                for member in members {
                    let value = match member.value() {
                        Value::Unsigned(value) | Value::Bits(value) => value.cast_signed().to_string(),
                        Value::Signed(value) => value.to_string(),
                        Value::Bool(value) => u64::from(value).to_string(),
                        Value::Real(value) => value.to_string(),
                        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
                        _ => continue,
                    };
                    found.push((stream.index as u64, ns, event.class.id, scope, member.name().into(), value));
                }
            }
        }
    }
    (found, lost)
}

#[test]
fn columns_say_what_messages_say() {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let mut values = 0;
    for name in [
        "traces/gen-ust-rich",
        "traces/tc-many-threads",
        "traces/gen-ust-lost1",
        "reference/kernel-traces/all",
    ] {
        let path = shared.join(name);
        if !path.is_dir() {
            eprintln!("SKIPPED: {} is missing", path.display());
            return;
        }
        let source = sillage_pipeline::open(&path).unwrap();
        let (mut columns, lost) = by_columns(&source);
        let (mut messages, lost_there) = by_messages(&source);
        columns.sort();
        messages.sort();
        assert_eq!(columns.len(), messages.len(), "{name}");
        let differs = columns.iter().zip(&messages).find(|(one, other)| one != other);
        assert_eq!(differs, None, "{name}");
        assert!(lost <= lost_there, "{name}: {lost} lost, {lost_there} in the messages");
        values += columns.len();
    }
    assert!(values > 100_000, "only {values} values were compared");
}
