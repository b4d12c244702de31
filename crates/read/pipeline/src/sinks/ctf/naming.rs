//! Where traces and streams go below the output directory: the names of Babeltrace's `sink.ctf.fs`.
//!
//! A trace of LTTng 2.11 or newer gets the directories that LTTng itself would give it, any other
//! its name, `trace` without one. No part of a path leads out of the output directory.

use std::path::{Path, PathBuf};

use sillage_ctf::model::{EnvValue, Stream, Trace, TraceClass};

/// Directory of a trace, relative to the output directory.
pub(super) fn trace_directory(trace: &Trace) -> PathBuf {
    let path =
        lttng_directory(&trace.class).unwrap_or_else(|| sanitised(trace.name.as_deref().unwrap_or_default()));
    if path.as_os_str().is_empty() { PathBuf::from("trace") } else { path }
}

/// Name of the data file of a stream.
pub(super) fn stream_file(stream: &Stream) -> String {
    let name = stream.name.as_deref().unwrap_or_default();
    match name.rsplit('/').next().unwrap_or_default() {
        "" => "stream".to_owned(),
        last if last == "." || last == ".." || last == "metadata" => format!("_{last}"),
        // Readers pass over hidden files, and index/ is a directory.
        last if last.starts_with('.') || last == "index" => format!("_{last}"),
        last => last.replace('\0', "_"),
    }
}

/// The first of `name`, `name-0`, `name-1` … that is not taken.
pub(super) fn unique(name: PathBuf, is_taken: impl Fn(&Path) -> bool) -> PathBuf {
    if !is_taken(&name) {
        return name;
    }
    let numbered = (0u32..).map(|number| {
        let mut name = name.clone().into_os_string();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    });
    numbered.into_iter().find(|name| !is_taken(name)).unwrap_or(name)
}

fn sanitised(name: &str) -> PathBuf {
    name.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| if matches!(part, "." | "..") { format!("_{part}") } else { part.replace('\0', "_") })
        .collect()
}

/// `HOST/SESSION-TIME/kernel`, `…/ust/uid/UID/64-bit` or `…/ust/pid/NAME-PID-TIME`.
fn lttng_directory(class: &TraceClass) -> Option<PathBuf> {
    if !is_lttng(class) {
        return None;
    }
    let version = (class.env_int("tracer_major")?, class.env_int("tracer_minor")?);
    if version < (2, 11) {
        return None;
    }
    let session = format!(
        "{}/{}-{}",
        class.env_text("hostname")?,
        class.env_text("trace_name")?,
        class.env_text("trace_creation_datetime")?
    );
    let rest = match class.env_text("domain")? {
        "kernel" => "kernel".to_owned(),
        "ust" => match class.env_text("tracer_buffering_scheme")? {
            "uid" => {
                let user = class.env_int("tracer_buffering_id")?;
                format!("ust/uid/{user}/{}-bit", class.env_int("architecture_bit_width")?)
            }
            "pid" => format!(
                "ust/pid/{}-{}-{}",
                class.env_text("procname")?,
                class.env_int("vpid")?,
                class.env_text("vpid_datetime")?
            ),
            _ => return None,
        },
        _ => return None,
    };
    Some(sanitised(&format!("{session}/{rest}")))
}

/// Whether LTTng made the trace.
pub(super) fn is_lttng(class: &TraceClass) -> bool {
    matches!(class.env("tracer_name"), Some(EnvValue::Text(name)) if name.starts_with("lttng-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out() {
        assert_eq!(sanitised("a/../b//./c"), PathBuf::from("a/_../b/_./c"));
        assert_eq!(sanitised("/"), PathBuf::new());
        assert_eq!(unique("x".into(), |p| p == Path::new("x")), PathBuf::from("x-0"));
        let taken = |p: &Path| p == Path::new("x") || p == Path::new("x-0");
        assert_eq!(unique("x".into(), taken), PathBuf::from("x-1"));
    }
}
