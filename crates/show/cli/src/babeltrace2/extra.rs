//! Component classes that are not about files: live sessions, kernel messages, debug information.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use sillage_pipeline::Messages;
use sillage_pipeline::ctf::model::Datum;
use sillage_pipeline::filters::debug_info::{DebugInfo, DebugInfoOptions};
use sillage_pipeline::sources::dmesg::{DateFraction, Dmesg, DmesgOptions};
use sillage_pipeline::sources::live::{
    self, Live, LiveOptions, LiveUrl, Session, SessionNotFound, Target, TraceFormat,
};

use super::graph::{ClassName, Component, Graph, Kind};
use super::params::{Params, Taken};

/// What flows out of such a component; `upstream` gives what flows into it.
///
/// # Errors
/// A class that does not exist, parameters, or whatever opening it says.
pub fn output_of(
    component: &Component,
    upstream: impl FnOnce() -> Result<Box<dyn Messages>>,
) -> Result<Box<dyn Messages>> {
    let class = &component.class;
    let mut taken = Taken::new(&component.name, &component.params);
    match (class.kind, class.plugin.as_str(), class.class.as_str()) {
        (Kind::Source, "ctf", "lttng-live") => {
            let (url, options) = live(component, &mut taken)?;
            taken.end()?;
            Ok(Box::new(Live::connect(&url, options)?))
        }
        (Kind::Source, "text", "dmesg") => {
            let options = DmesgOptions {
                path: taken.text("path")?.map(PathBuf::from),
                no_extract_timestamp: taken.boolean("no-extract-timestamp")?.unwrap_or(false),
                date_fraction: DateFraction::AsBabeltrace,
            };
            taken.end()?;
            Ok(Box::new(Dmesg::open(options)?))
        }
        (Kind::Filter, "lttng-utils", "debug-info") => {
            let default = DebugInfoOptions::default();
            let options = DebugInfoOptions {
                field_name: taken.text("debug-info-field-name")?.unwrap_or(default.field_name),
                debug_directory: taken.text("debug-info-dir")?.map(PathBuf::from),
                target_prefix: taken.text("target-prefix")?.map(PathBuf::from),
                full_path: taken.boolean("full-path")?.unwrap_or(false),
            };
            taken.end()?;
            Ok(Box::new(DebugInfo::new(upstream()?, options)))
        }
        _ => bail!("component class `{}.{}` is not available in this build", class.plugin, class.class),
    }
}

/// Address and options of a live session; from here on Ctrl-C ends it, not the program.
fn live(component: &Component, taken: &mut Taken) -> Result<(LiveUrl, LiveOptions)> {
    let inputs = taken.texts("inputs")?.unwrap_or_default();
    let [url] = inputs.as_slice() else {
        bail!("{}: parameter `inputs` must be one URL", component.name);
    };
    let session_not_found = match taken.text("session-not-found-action")?.as_deref() {
        None | Some("continue") => SessionNotFound::Continue,
        Some("fail") => SessionNotFound::Fail,
        Some("end") => SessionNotFound::End,
        Some(other) => {
            bail!("{}: `session-not-found-action` is `{other}`, not continue, fail or end", component.name)
        }
    };
    let interrupted = crate::interrupt::flag().context("signals")?;
    Ok((LiveUrl::parse(url)?, LiveOptions { session_not_found, interrupted, ..LiveOptions::default() }))
}

/// Lists the sessions of a relay when a live source is given an address without a session; false
/// when there is no such source.
///
/// # Errors
/// A relay that can not be asked.
pub fn list_sessions(graph: &Graph) -> Result<bool> {
    for component in &graph.components {
        let class = &component.class;
        if (class.kind, class.plugin.as_str(), class.class.as_str()) != (Kind::Source, "ctf", "lttng-live") {
            continue;
        }
        let mut taken = Taken::new(&component.name, &component.params);
        let inputs = taken.texts("inputs")?.unwrap_or_default();
        let [url] = inputs.as_slice() else {
            continue;
        };
        let url = LiveUrl::parse(url)?;
        if url.target.is_some() {
            continue;
        }
        for session in sessions(&url)? {
            let format = match session.format {
                Some(TraceFormat::Ctf18) => ", CTF 1.8",
                Some(TraceFormat::Ctf2) => ", CTF 2",
                None => "",
            };
            println!(
                "{} (timer = {}, {} stream(s), {} client(s) connected{format})",
                address(&url, &session),
                session.live_timer_us,
                session.streams,
                session.clients
            );
        }
        return Ok(true);
    }
    Ok(false)
}

fn sessions(url: &LiveUrl) -> Result<Vec<Session>> {
    Ok(live::list_sessions(url, &LiveOptions::default())?)
}

/// Address of a session of the relay at `url`.
fn address(url: &LiveUrl, session: &Session) -> String {
    let target = Target { hostname: session.hostname.clone(), session: session.name.clone() };
    LiveUrl { target: Some(target), ..url.clone() }.to_string()
}

/// Objects of these classes.
///
/// # Errors
/// An object that there is not, or that can not be made.
pub fn query(class: &ClassName, object: &str, params: Params) -> Result<Datum> {
    if (class.plugin.as_str(), class.class.as_str(), object) != ("ctf", "lttng-live", "sessions") {
        bail!("`{}.{}` has no object `{object}`", class.plugin, class.class);
    }
    let mut taken = Taken::new("sessions", &params);
    let Some(url) = taken.text("url")? else {
        bail!("sessions: parameter `url` is missing");
    };
    let url = LiveUrl::parse(&url)?;
    let list = sessions(&url)?.into_iter().map(|session| {
        let number = |value: u32| Datum::Unsigned(u64::from(value));
        let mut map = vec![
            ("session-name".to_owned(), Datum::Text(session.name.clone())),
            ("target-hostname".to_owned(), Datum::Text(session.hostname.clone())),
            ("timer-us".to_owned(), number(session.live_timer_us)),
            ("stream-count".to_owned(), number(session.streams)),
            ("client-count".to_owned(), number(session.clients)),
            ("url".to_owned(), Datum::Text(address(&url, &session))),
        ];
        if let Some(format) = session.format {
            let name = if format == TraceFormat::Ctf2 { "ctf-2" } else { "ctf-1.8" };
            map.push(("trace-format".to_owned(), Datum::Text(name.to_owned())));
        }
        Datum::Map(map)
    });
    Ok(Datum::List(list.collect()))
}
