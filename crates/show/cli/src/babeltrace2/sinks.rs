//! Sink components from their parameters.

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use sillage_pipeline::ctf::Message;
use sillage_pipeline::ctf::model::{CtfVersion, Datum};
use sillage_pipeline::sinks::ctf::{CtfOptions, CtfSink, Index};
use sillage_pipeline::sinks::{Counter, Dummy, Output, Sink, Zone, details, pretty};

use super::graph::Component;
use super::params::Taken;
use crate::complaint::warn;

/// A sink, each kind by itself so that the loop over messages is compiled for it.
pub enum AnySink {
    Pretty(Box<pretty::Pretty>),
    Counter(Counter),
    Dummy(Dummy),
    Other(Box<dyn Sink>),
}

/// Makes the sink of a component.
///
/// # Errors
/// A parameter that is unknown or of another type, an output that can not be made.
pub fn build(component: &Component) -> Result<AnySink> {
    let mut taken = Taken::new(&component.name, &component.params);
    let class = &component.class;
    let sink = match (class.plugin.as_str(), class.class.as_str()) {
        ("text", "pretty") => AnySink::Pretty(Box::new(build_pretty(&mut taken)?)),
        ("text", "details") => AnySink::Other(Box::new(build_details(&mut taken)?)),
        ("utils", "counter") => {
            let step = taken.unsigned("step")?.unwrap_or(1000);
            let hide_zero = taken.boolean("hide-zero")?.unwrap_or(false);
            AnySink::Counter(Counter::new(step, hide_zero, Output::stdout()))
        }
        ("utils", "dummy") => AnySink::Dummy(Dummy),
        ("ctf", "fs") => AnySink::Other(Box::new(build_ctf(&mut taken)?)),
        (plugin, class) => bail!("there is no sink class `{class}` in plugin `{plugin}`"),
    };
    taken.end()?;
    Ok(sink)
}

fn output(path: Option<String>) -> Result<Output> {
    match path {
        None => Ok(Output::stdout()),
        Some(path) => Output::create(&path).with_context(|| format!("can not write to {path}")),
    }
}

/// Whether to use colours: never when the environment or the terminal has none.
fn color(taken: &mut Taken, to_file: bool) -> Result<bool> {
    let wanted = taken.text("color")?;
    if let Some(text) = &wanted
        && !["never", "auto", "always"].contains(&text.as_str())
    {
        bail!("parameter `color` must be `never`, `auto` or `always`, not `{text}`");
    }
    let supported =
        match std::env::var("BABELTRACE_TERM_COLOR").as_deref().map(str::to_ascii_lowercase).as_deref() {
            Ok("never") => false,
            Ok("always") => true,
            _ => {
                let term = std::env::var("TERM").unwrap_or_default();
                let known = [
                    "xterm",
                    "linux",
                    "screen",
                    "tmux",
                    "rxvt",
                    "konsole",
                    "vt100",
                    "vt220",
                    "cygwin",
                    "kitty",
                    "alacritty",
                    "foot",
                ];
                known.iter().any(|name| term.starts_with(name)) && std::io::stdout().is_terminal()
            }
        };
    Ok(match wanted.as_deref() {
        Some("never") => false,
        Some("always") => supported,
        _ => supported && !to_file,
    })
}

fn build_pretty(taken: &mut Taken) -> Result<pretty::Pretty> {
    let path = taken.text("path")?;
    let mut options = pretty::Options {
        color: color(taken, path.is_some())?,
        negative_times: pretty::NegativeTimes::AsBabeltrace,
        ..pretty::Options::default()
    };
    let gmt = taken.boolean("clock-gmt")?.unwrap_or(false);
    let with_date = taken.boolean("clock-date")?.unwrap_or(false);
    let zone = if gmt { Zone::Utc } else { Zone::local() };
    options.clock = pretty::ClockFormat::TimeOfDay { zone, with_date };
    if taken.boolean("clock-seconds")?.unwrap_or(false) {
        options.clock = pretty::ClockFormat::Seconds;
    }
    if taken.boolean("clock-cycles")?.unwrap_or(false) {
        options.clock = pretty::ClockFormat::Cycles;
    }
    options.delta = !taken.boolean("no-delta")?.unwrap_or(false);
    options.enum_flags = taken.boolean("print-enum-flags")?.unwrap_or(false);
    // Babeltrace takes it and shows the same with it.
    taken.boolean("verbose")?;
    let names = &mut options.names;
    if let Some(all) = shown_by_default(taken, "name-default")? {
        *names = pretty::Names { payload: all, context: all, scope: all, header: all };
    }
    for (name, on) in [
        ("name-payload", &mut names.payload),
        ("name-context", &mut names.context),
        ("name-scope", &mut names.scope),
        ("name-header", &mut names.header),
    ] {
        if let Some(value) = taken.boolean(name)? {
            *on = value;
        }
    }
    let shown = &mut options.headings;
    if let Some(all) = shown_by_default(taken, "field-default")? {
        *shown = pretty::Headings {
            trace: all,
            hostname: all,
            domain: all,
            procname: all,
            vpid: all,
            log_level: all,
            emf_uri: all,
        };
    }
    for (name, on) in [
        ("field-trace", &mut shown.trace),
        ("field-trace:hostname", &mut shown.hostname),
        ("field-trace:domain", &mut shown.domain),
        ("field-trace:procname", &mut shown.procname),
        ("field-trace:vpid", &mut shown.vpid),
        ("field-loglevel", &mut shown.log_level),
        ("field-emf", &mut shown.emf_uri),
        ("field-callsite", &mut false),
    ] {
        if let Some(value) = taken.boolean(name)? {
            *on = value;
        }
    }
    Ok(pretty::Pretty::new(options, output(path)?, Box::new(std::io::stderr())))
}

fn shown_by_default(taken: &mut Taken, name: &str) -> Result<Option<bool>> {
    Ok(match taken.text(name)?.as_deref() {
        None => None,
        Some("show") => Some(true),
        Some("hide") => Some(false),
        Some(other) => bail!("parameter `{name}` must be `show` or `hide`, not `{other}`"),
    })
}

fn build_details(taken: &mut Taken) -> Result<details::Details> {
    let path = taken.text("path")?;
    let mut options =
        details::Options { color: color(taken, path.is_some())?, ..details::Options::default() };
    for (name, on) in [
        ("compact", &mut options.compact),
        ("with-data", &mut options.with_data),
        ("with-metadata", &mut options.with_metadata),
        ("with-time", &mut options.with_time),
        ("with-trace-name", &mut options.with_trace_name),
        ("with-stream-name", &mut options.with_stream_name),
        ("with-stream-class-name", &mut options.with_stream_class_name),
        ("with-stream-class-namespace", &mut options.with_stream_class_namespace),
        ("with-uuid", &mut options.with_uuid),
        ("with-uid", &mut options.with_uid),
    ] {
        if let Some(value) = taken.boolean(name)? {
            *on = value;
        }
    }
    // Ours: whose wording to use.
    options.dialect = match taken.text("dialect")?.as_deref() {
        None => details::Dialect::ByTrace,
        Some("2.0") => details::Dialect::V2_0,
        Some("2.1-mip0") => details::Dialect::V2_1Mip0,
        Some("2.1") => details::Dialect::V2_1Mip1,
        Some(other) => bail!("parameter `dialect` must be `2.0`, `2.1-mip0` or `2.1`, not `{other}`"),
    };
    Ok(details::Details::new(options, output(path)?))
}

/// The CTF sink, telling which traces it makes.
struct TellingCtf {
    sink: CtfSink,
    quiet: bool,
}

fn build_ctf(taken: &mut Taken) -> Result<TellingCtf> {
    let Some(path) = taken.text("path")? else {
        bail!("sink.ctf.fs needs the parameter `path`");
    };
    let mut options = CtfOptions::new(path);
    options.assume_single_trace = taken.boolean("assume-single-trace")?.unwrap_or(false);
    options.ignore_discarded_events = taken.boolean("ignore-discarded-events")?.unwrap_or(false);
    options.ignore_discarded_packets = taken.boolean("ignore-discarded-packets")?.unwrap_or(false);
    let quiet = taken.boolean("quiet")?.unwrap_or(false);
    options.version = match taken.take("ctf-version") {
        None => options.version,
        Some(Datum::Signed(1) | Datum::Unsigned(1)) => CtfVersion::V1_8,
        Some(Datum::Text(text)) if ["1", "1.8"].contains(&text.as_str()) => CtfVersion::V1_8,
        Some(Datum::Signed(2) | Datum::Unsigned(2)) => CtfVersion::V2,
        Some(Datum::Text(text)) if ["2", "2.0"].contains(&text.as_str()) => CtfVersion::V2,
        Some(Datum::Real(2.0)) => CtfVersion::V2,
        Some(Datum::Real(1.8)) => CtfVersion::V1_8,
        Some(_) => bail!("parameter `ctf-version` must be 1 or 2"),
    };
    options.index = match taken.text("create-lttng-index")?.as_deref() {
        None | Some("auto") => Index::Auto,
        Some("always") => Index::Always,
        Some("never") => Index::Never,
        Some(other) => {
            bail!("parameter `create-lttng-index` must be `auto`, `always` or `never`, not `{other}`")
        }
    };
    Ok(TellingCtf { sink: CtfSink::new(options), quiet })
}

impl TellingCtf {
    fn tell(&mut self) {
        for path in self.sink.take_created() {
            if !self.quiet {
                println!("Created CTF trace `{}`.", path.display());
            }
        }
    }
}

impl Sink for TellingCtf {
    fn message(&mut self, message: &Message<'_>) -> Result<(), sillage_pipeline::Error> {
        self.sink.message(message)
    }

    fn wants_packet(&self, packet: &sillage_pipeline::ctf::Packet<'_>) -> bool {
        self.sink.wants_packet(packet)
    }

    fn packet(&mut self, packet: &sillage_pipeline::ctf::Packet<'_>) -> Result<(), sillage_pipeline::Error> {
        self.sink.packet(packet)
    }

    fn flush(&mut self) -> Result<(), sillage_pipeline::Error> {
        self.sink.flush()
    }

    fn finish(&mut self) -> Result<(), sillage_pipeline::Error> {
        self.sink.finish()?;
        warn(&self.sink.take_warnings());
        self.tell();
        Ok(())
    }
}
