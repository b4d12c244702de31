//! What stands between the time and the fields of an event: the same for all events of a class.

use sillage_ctf::Event;
use sillage_ctf::model::{EnvValue, LogLevel};

use super::Options;
use super::palette::Palette;
use super::push_name;

/// Trace, host name, domain, process, log level, EMF URI, name.
pub(super) fn head_of(event: &Event<'_>, options: &Options, palette: &Palette) -> Vec<u8> {
    let trace = &event.stream.trace;
    let names = options.names.header;
    let shown = &options.headings;
    // In front of the first there is no comma, which with a time is the time.
    let has_time = event.stream.class.clock.is_some();
    let mut head = Head { out: Vec::new(), names, comma: has_time && names, joined: false, palette };
    if shown.trace
        && let Some(name) = &trace.name
    {
        // Here Babeltrace ends the item instead of beginning the next one, and so do we.
        if head.comma {
            head.out.extend_from_slice(b", ");
        }
        if names {
            push_name(&mut head.out, "trace", palette);
        }
        head.out.extend_from_slice(name.as_bytes());
        if names {
            head.out.extend_from_slice(b", ");
        }
    }
    for (on, key) in [(shown.hostname, "hostname"), (shown.domain, "domain"), (shown.procname, "procname")] {
        if on && let Some(text) = trace.class.env(key) {
            match text {
                EnvValue::Text(text) => head.item(&format!("trace:{key}"), text),
                EnvValue::Integer(value) => head.item(&format!("trace:{key}"), &value.to_string()),
            }
        }
    }
    if shown.vpid
        && let Some(vpid) = trace.class.env_int("vpid")
    {
        head.item("trace:vpid", &format!("({vpid})"));
    }
    if shown.log_level
        && let Some(level) = event.class.log_level
    {
        head.item("loglevel", &format!("{} ({})", level_name(level), level.number()));
    }
    if shown.emf_uri
        && let Some(uri) = &event.class.emf_uri
    {
        head.item("model.emf.uri", uri);
    }
    if head.joined && !names {
        head.out.push(b' ');
    }
    if head.comma {
        head.out.extend_from_slice(b", ");
    }
    let mut out = head.out;
    if names {
        push_name(&mut out, "name", palette);
    }
    match &event.class.name {
        Some(name) => {
            out.extend_from_slice(palette.event_name);
            out.extend_from_slice(name.as_bytes());
        }
        None => {
            out.extend_from_slice(palette.unknown);
            out.extend_from_slice(b"<unknown>");
        }
    }
    out.extend_from_slice(palette.reset);
    out.extend_from_slice(if names { b", " } else { b": " });
    out
}

struct Head<'a> {
    out: Vec<u8>,
    names: bool,
    /// Whether items begin with a comma.
    comma: bool,
    /// Whether there was an item: without names, the next is joined to it with a colon.
    joined: bool,
    palette: &'a Palette,
}

impl Head<'_> {
    fn item(&mut self, name: &str, text: &str) {
        if self.comma {
            self.out.extend_from_slice(b", ");
        }
        if self.names {
            push_name(&mut self.out, name, self.palette);
        } else if self.joined {
            self.out.push(b':');
        }
        self.out.extend_from_slice(text.as_bytes());
        self.joined = true;
    }
}

/// The name that Babeltrace prints for a log level.
fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Emergency => "TRACE_EMERG",
        LogLevel::Alert => "TRACE_ALERT",
        LogLevel::Critical => "TRACE_CRIT",
        LogLevel::Error => "TRACE_ERR",
        LogLevel::Warning => "TRACE_WARNING",
        LogLevel::Notice => "TRACE_NOTICE",
        LogLevel::Info => "TRACE_INFO",
        LogLevel::DebugSystem => "TRACE_DEBUG_SYSTEM",
        LogLevel::DebugProgram => "TRACE_DEBUG_PROGRAM",
        LogLevel::DebugProcess => "TRACE_DEBUG_PROCESS",
        LogLevel::DebugModule => "TRACE_DEBUG_MODULE",
        LogLevel::DebugUnit => "TRACE_DEBUG_UNIT",
        LogLevel::DebugFunction => "TRACE_DEBUG_FUNCTION",
        LogLevel::DebugLine => "TRACE_DEBUG_LINE",
        LogLevel::Debug => "TRACE_DEBUG",
    }
}
