//! Building the components of a graph and running it.
//!
//! From each sink the way goes upstream. Sources of files that meet in one muxer are opened as one
//! source, which merges its streams itself.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sillage_pipeline::Messages;
use sillage_pipeline::ctf::MetadataOptions;
use sillage_pipeline::filters::{Bound, Merge, Trimmer, intersect};
use sillage_pipeline::sinks::{Drained, Zone, drain};
use sillage_pipeline::sources::{FilePackets, Muxer, Options, Source, open_all};

use super::graph::{ClassName, Component, Connection, Graph, Kind, glob};
use super::params::Taken;
use super::plugins;
use super::sinks::{self, AnySink};
use crate::complaint::warn;

/// Retry of live sources when nothing is said.
const RETRY_DURATION_US: u64 = 100_000;

/// What a sink reads.
enum Upstream {
    /// Streams of files: the fast way.
    Files(Box<Muxer<FilePackets>>),
    Any(Box<dyn Messages>),
}

/// Runs the graph to its end.
///
/// # Errors
/// A component that can not be made, a trace that can not be read on, an output that can not be
/// written.
pub fn run(graph: &Graph) -> Result<()> {
    for component in &graph.components {
        plugins::check(&component.class)?;
    }
    let mut chains = Vec::new();
    for component in graph.components.iter().filter(|component| component.class.kind == Kind::Sink) {
        let sink = sinks::build(component)?;
        chains.push((component, sink));
    }
    let retry = Duration::from_micros(graph.retry_duration_us.unwrap_or(RETRY_DURATION_US));
    for (component, sink) in chains {
        let upstream = upstream_of(graph, component)?;
        match (upstream, sink) {
            (Upstream::Files(mut source), AnySink::Pretty(mut sink)) => {
                pump(&mut *source, &mut *sink, retry)?
            }
            (Upstream::Files(mut source), AnySink::Counter(mut sink)) => {
                pump(&mut *source, &mut sink, retry)?
            }
            (Upstream::Files(mut source), AnySink::Dummy(mut sink)) => pump(&mut *source, &mut sink, retry)?,
            (Upstream::Files(mut source), AnySink::Other(mut sink)) => pump(&mut *source, &mut *sink, retry)?,
            (Upstream::Any(mut source), AnySink::Pretty(mut sink)) => pump(&mut *source, &mut *sink, retry)?,
            (Upstream::Any(mut source), AnySink::Counter(mut sink)) => pump(&mut *source, &mut sink, retry)?,
            (Upstream::Any(mut source), AnySink::Dummy(mut sink)) => pump(&mut *source, &mut sink, retry)?,
            (Upstream::Any(mut source), AnySink::Other(mut sink)) => pump(&mut *source, &mut *sink, retry)?,
        }
    }
    Ok(())
}

fn pump<M, S>(source: &mut M, sink: &mut S, retry: Duration) -> Result<()>
where
    M: Messages + ?Sized,
    S: sillage_pipeline::sinks::Sink + ?Sized,
{
    loop {
        let ended = drain(source, sink, |_| true);
        warn(&source.take_warnings());
        match ended? {
            Drained::End | Drained::Stopped => return Ok(()),
            Drained::Pending => std::thread::sleep(retry),
        }
    }
}

/// What flows into a component.
fn upstream_of(graph: &Graph, component: &Component) -> Result<Upstream> {
    let into: Vec<&Connection> =
        graph.connections.iter().filter(|connection| connection.downstream == component.name).collect();
    let sources: Vec<(&Component, &Connection)> = into
        .iter()
        .filter_map(|connection| Some((graph.component(&connection.upstream)?, *connection)))
        .collect();
    let is_muxer = component.class.kind == Kind::Filter && component.class.class == "muxer";
    if !is_muxer && sources.len() > 1 {
        bail!("component `{}` has one input port but {} connections", component.name, sources.len());
    }
    // Streams of files may come in one source, if nothing distinguishes them.
    let whole = sources.iter().all(|(up, connection)| is_files(&up.class) && connection.upstream_port == "*");
    if whole && let Some(settings) = same_settings(&sources)? {
        return settings.open(graph.stream_intersection);
    }
    let mut inputs: Vec<Box<dyn Messages>> = Vec::new();
    for (up, connection) in sources {
        match output_of(graph, up, connection)? {
            Upstream::Files(messages) => inputs.push(messages),
            Upstream::Any(messages) => inputs.push(messages),
        }
    }
    match inputs.len() {
        0 => bail!("component `{}` has no input", component.name),
        1 => Ok(Upstream::Any(inputs.remove(0))),
        _ => Ok(Upstream::Any(Box::new(Merge::new(inputs)))),
    }
}

/// What flows out of a component.
fn output_of(graph: &Graph, component: &Component, connection: &Connection) -> Result<Upstream> {
    let class = &component.class;
    match (class.kind, class.plugin.as_str(), class.class.as_str()) {
        (Kind::Source, "ctf", "fs") => {
            let settings = Settings::of(component)?;
            if connection.upstream_port == "*" {
                return settings.open(graph.stream_intersection);
            }
            let source = settings.open_source()?;
            let matching: Vec<_> = source
                .messages_by_stream()
                .into_iter()
                .filter(|(stream, _)| glob(&connection.upstream_port, &super::query::port_name(stream)))
                .map(|(_, messages)| messages)
                .collect();
            Ok(Upstream::Any(Box::new(Merge::new(matching))))
        }
        (Kind::Filter, "utils", "muxer") => {
            Taken::new(&component.name, &component.params).end()?;
            upstream_of(graph, component)
        }
        (Kind::Filter, "utils", "trimmer") => {
            let mut taken = Taken::new(&component.name, &component.params);
            let gmt = taken.boolean("gmt")?.unwrap_or(false);
            let zone = if gmt { Zone::Utc } else { Zone::local() };
            let begin = bound(&mut taken, "begin", &zone)?;
            let end = bound(&mut taken, "end", &zone)?;
            taken.end()?;
            let upstream = upstream_of(graph, component)?;
            Ok(Upstream::Any(match upstream {
                Upstream::Files(messages) => Box::new(Trimmer::new(*messages, begin, end, zone)?),
                Upstream::Any(messages) => Box::new(Trimmer::new(messages, begin, end, zone)?),
            }))
        }
        _ => super::extra::output_of(component, || boxed(upstream_of(graph, component)?)).map(Upstream::Any),
    }
}

fn boxed(upstream: Upstream) -> Result<Box<dyn Messages>> {
    Ok(match upstream {
        Upstream::Files(messages) => messages,
        Upstream::Any(messages) => messages,
    })
}

fn bound(taken: &mut Taken, name: &str, zone: &Zone) -> Result<Option<Bound>> {
    use sillage_pipeline::ctf::model::Datum;
    let text = match taken.take(name) {
        None => return Ok(None),
        Some(Datum::Text(text)) => text,
        Some(Datum::Signed(seconds)) => seconds.to_string(),
        Some(Datum::Unsigned(seconds)) => seconds.to_string(),
        Some(Datum::Real(seconds)) => seconds.to_string(),
        Some(_) => bail!("parameter `{name}` must be a time"),
    };
    Bound::parse(&text, zone).map(Some).with_context(|| format!("parameter `{name}`"))
}

fn is_files(class: &ClassName) -> bool {
    class.kind == Kind::Source && class.plugin == "ctf" && class.class == "fs"
}

/// Parameters of `source.ctf.fs`.
#[derive(Debug, Clone)]
pub struct Settings {
    roots: Vec<PathBuf>,
    metadata: MetadataOptions,
    trace_name: Option<String>,
}

impl Settings {
    /// Reads the parameters of a component.
    ///
    /// # Errors
    /// A parameter that is unknown, missing or of another type.
    pub fn of(component: &Component) -> Result<Self> {
        let mut taken = Taken::new(&component.name, &component.params);
        let Some(inputs) = taken.texts("inputs")? else {
            bail!("{}: parameter `inputs` is missing", component.name);
        };
        if inputs.is_empty() {
            bail!("{}: parameter `inputs` is empty", component.name);
        }
        let settings = Self {
            roots: inputs.into_iter().map(PathBuf::from).collect(),
            metadata: MetadataOptions {
                clock_offset_s: taken.signed("clock-class-offset-s")?.unwrap_or(0),
                clock_offset_ns: taken.signed("clock-class-offset-ns")?.unwrap_or(0),
                force_unix_epoch: taken.boolean("force-clock-class-origin-unix-epoch")?.unwrap_or(false),
                // Ours: drafts of CTF 2 and unknown properties are read, with warnings.
                lenient: taken.boolean("lenient")?.unwrap_or(true),
            },
            trace_name: taken.text("trace-name")?,
        };
        taken.end()?;
        Ok(settings)
    }

    /// Opens the traces.
    ///
    /// # Errors
    /// There is none, or one can not be read.
    pub fn open_source(&self) -> Result<Source> {
        let mut options = Options { metadata: self.metadata, ..Options::default() };
        let mut source = open_all(&self.roots, &options)?;
        if let Some(name) = &self.trace_name {
            let host = source.traces().first().and_then(|trace| trace.class.env_text("hostname"));
            options.trace_name = Some(match host {
                Some(host) => format!("{host}/{name}"),
                None => name.clone(),
            });
            source = open_all(&self.roots, &options)?;
        }
        warn(source.warnings());
        Ok(source)
    }

    fn open(&self, stream_intersection: bool) -> Result<Upstream> {
        let source = self.open_source()?;
        if stream_intersection {
            return Ok(Upstream::Any(Box::new(intersect(&source)?)));
        }
        Ok(Upstream::Files(Box::new(source.messages())))
    }
}

/// One set of settings for all of the sources, if they differ in their inputs only.
fn same_settings(sources: &[(&Component, &Connection)]) -> Result<Option<Settings>> {
    let mut all: Option<Settings> = None;
    for (component, _) in sources {
        let settings = Settings::of(component)?;
        match &mut all {
            None => all = Some(settings),
            Some(known) if known.metadata == settings.metadata && known.trace_name == settings.trace_name => {
                known.roots.extend(settings.roots);
            }
            Some(_) => return Ok(None),
        }
    }
    Ok(all)
}
