//! The objects that component classes can be asked for.

use std::path::Path;

use anyhow::{Context, Result, bail};
use sillage_pipeline::ctf::model::{Datum, Stream};
use sillage_pipeline::ctf::{MetadataOptions, MetadataReader};
use sillage_pipeline::sources::{Source, has_trace};

use super::graph::{ClassName, Component, Kind};
use super::params::{Params, Taken};
use super::{convert, run};

/// How sure a source is of an input that it can read.
const WEIGHT: f64 = 0.75;

/// Asks a class for an object.
///
/// # Errors
/// An object that the class does not have, or that can not be made.
pub fn query(class: &ClassName, object: &str, params: Params) -> Result<Datum> {
    match (class.kind, class.plugin.as_str(), class.class.as_str(), object) {
        (Kind::Source, "ctf", "fs", "babeltrace.support-info") => {
            support_info(params, "directory", |input| {
                let path = Path::new(input);
                path.join("metadata").is_file() && has_trace(path)
            })
        }
        (Kind::Source, "ctf", "lttng-live", "babeltrace.support-info") => {
            support_info(params, "string", convert::is_url)
        }
        (Kind::Source, "ctf", "fs", "babeltrace.trace-infos") => {
            let name = "source.ctf.fs".to_owned();
            let component = Component { name, class: class.clone(), params };
            trace_infos(&run::Settings::of(&component)?.open_source()?)
        }
        (Kind::Source, "ctf", "fs", "metadata-info") => {
            let mut taken = Taken::new("metadata-info", &params);
            let Some(path) = taken.text("path")? else {
                bail!("metadata-info: parameter `path` is missing");
            };
            metadata_info(Path::new(&path))
        }
        _ => super::extra::query(class, object, params),
    }
}

fn support_info(params: Params, wanted: &str, can_read: impl Fn(&str) -> bool) -> Result<Datum> {
    let mut taken = Taken::new("babeltrace.support-info", &params);
    let (Some(kind), Some(input)) = (taken.text("type")?, taken.text("input")?) else {
        bail!("babeltrace.support-info: parameters `type` and `input` are needed");
    };
    if kind != wanted || !can_read(&input) {
        return Ok(Datum::Map(vec![("weight".into(), Datum::Real(0.0))]));
    }
    let mut entries = Vec::new();
    if wanted == "directory" {
        let source = sillage_pipeline::open(&input)?;
        let class = source.traces().first().map(|trace| trace.class.clone());
        if let Some(uuid) = class.and_then(|class| class.uuid) {
            entries.push(("group".into(), Datum::Text(uuid.to_string())));
        }
    }
    entries.push(("weight".into(), Datum::Real(WEIGHT)));
    Ok(Datum::Map(entries))
}

/// Name of the output port of a stream.
pub fn port_name(stream: &Stream) -> String {
    let class = &stream.trace.class;
    let identity = match (&class.uuid, &class.uid) {
        (Some(uuid), _) => format!("{uuid} | "),
        (None, Some(uid)) => format!("{uid} | "),
        (None, None) => String::new(),
    };
    let path = stream.name.clone().unwrap_or_default();
    let directory = Path::new(&path).parent().map(|path| path.to_string_lossy().into_owned());
    match identity.as_str() {
        "" => format!("{} | {} | {path}", directory.unwrap_or_default(), stream.class.id),
        identity => format!("{identity}{} | {path}", stream.class.id),
    }
}

fn trace_infos(source: &Source) -> Result<Datum> {
    let ranges = source.stream_ranges()?;
    let infos = source.traces().iter().map(|trace| {
        let streams = ranges.iter().filter(|range| range.stream.trace.index == trace.index);
        let mut sorted: Vec<_> = streams.collect();
        sorted.sort_by_key(|range| range.stream.name.clone());
        let streams = sorted.into_iter().map(|range| {
            let mut entries = vec![("port-name".into(), Datum::Text(port_name(&range.stream)))];
            if let Some((begin, end)) = range.ns {
                let range = vec![("begin".into(), Datum::Signed(begin)), ("end".into(), Datum::Signed(end))];
                entries.push(("range-ns".into(), Datum::Map(range)));
            }
            Datum::Map(entries)
        });
        Datum::Map(vec![("stream-infos".into(), Datum::List(streams.collect()))])
    });
    Ok(Datum::List(infos.collect()))
}

fn metadata_info(path: &Path) -> Result<Datum> {
    let (text, packetized) = metadata_text(path)?;
    Ok(Datum::Map(vec![
        ("is-packetized".into(), Datum::Bool(packetized)),
        ("text".into(), Datum::Text(text)),
    ]))
}

/// Text of the metadata of a trace directory, and whether it lies in packets.
///
/// # Errors
/// A file that can not be read, or is no metadata.
pub fn metadata_text(directory: &Path) -> Result<(String, bool)> {
    let file = directory.join("metadata");
    let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
    let mut reader = MetadataReader::new(MetadataOptions { lenient: true, ..MetadataOptions::default() });
    let parsed = reader.push(&bytes);
    if !reader.is_packetized() {
        return Ok((String::from_utf8_lossy(&bytes).into_owned(), false));
    }
    parsed.with_context(|| file.display().to_string())?;
    Ok((reader.text().to_owned(), true))
}
