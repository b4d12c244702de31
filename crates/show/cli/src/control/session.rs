//! Sessions: create, start, stop, destroy, and which one is the current one.

use super::{Context, ERROR, FINE, Outcome, WARNING, code, error, is, totals, warning};
use clap::Args;
use jiff::Timestamp;
use sillage_control::{Client, ControlError, ErrorCode};
use sillage_pipeline::sinks::local_time_zone;
use std::path::PathBuf;

/// `create [NAME] [--output DIR]`
#[derive(Args)]
pub struct Create {
    /// Name of the session; without one it is `auto` and the time.
    session: Option<String>,
    /// Write the trace to this directory.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// `start [NAME]`
#[derive(Args)]
pub struct Named {
    /// Name of the session; without one it is the current one.
    session: Option<String>,
}

/// `stop [NAME] [--no-wait]`
#[derive(Args)]
pub struct Stop {
    /// Name of the session; without one it is the current one.
    session: Option<String>,
    /// Do not wait for the data (accepted; the data are there anyway when the daemon answers).
    #[arg(short, long)]
    no_wait: bool,
}

/// `destroy [NAME | --all] [--no-wait]`
#[derive(Args)]
pub struct Destroy {
    /// Name of the session; without one it is the current one.
    session: Option<String>,
    /// Destroy all sessions.
    #[arg(short, long)]
    all: bool,
    /// Do not wait for the data (accepted; the data are there anyway when the daemon answers).
    #[arg(short, long)]
    no_wait: bool,
}

/// `set-session NAME`
#[derive(Args)]
pub struct SetSession {
    /// Name of the session.
    session: Option<String>,
}

/// Names and dates of a new session.
pub struct Naming {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub output: PathBuf,
    /// `20261121T063059+0000`
    pub created: String,
}

impl Naming {
    /// LTTng's: `auto-DATE-TIME` without a name; `NAME-DATE-TIME` under the traces without a directory.
    pub fn new(context: &Context, name: Option<&str>, output: Option<PathBuf>) -> Naming {
        let now = Timestamp::now().to_zoned(local_time_zone());
        let date = now.strftime("%Y%m%d-%H%M%S").to_string();
        let (name, dir) = match name {
            Some(name) => (name.to_owned(), format!("{name}-{date}")),
            None => (format!("auto-{date}"), format!("auto-{date}")),
        };
        let output = output.unwrap_or_else(|| context.place.traces().join(dir));
        Naming { name, output, created: now.strftime("%Y%m%dT%H%M%S%z").to_string() }
    }
}

/// An absolute form of what was given with `--output`, `file://` in front or not.
pub fn output_dir(given: &std::path::Path) -> std::io::Result<PathBuf> {
    let text = given.to_string_lossy();
    std::path::absolute(text.strip_prefix("file://").unwrap_or(&text))
}

pub fn create(context: &Context, arguments: &Create) -> Outcome {
    if let Some(name) = arguments.session.as_deref() {
        if name.is_empty() {
            error!("Invalid parameter");
            return ERROR;
        }
        if name.contains('/') {
            error!("Invalid character found in session name");
            return ERROR;
        }
        if name == "auto" || name.starts_with("auto-") {
            error!("auto is a reserved keyword for default session(s)");
            return ERROR;
        }
    }
    let output = match arguments.output.as_deref().map(output_dir).transpose() {
        Ok(output) => output,
        Err(error) => {
            error!("{error}");
            return ERROR;
        }
    };
    let naming = Naming::new(context, arguments.session.as_deref(), output);
    let made = context.client_or_start().and_then(|mut client| {
        client.create(&naming.name, &naming.output.to_string_lossy(), &naming.created)
    });
    match made {
        Ok(session) => {
            context.say(format_args!("Session {} created.", session.name));
            context.say(format_args!("Traces will be output to {}", session.output));
            if let Err(error) = context.set_current_session(&session.name) {
                warning!("{}: {error}", context.rc_path().display());
            }
            FINE
        }
        Err(error) => {
            error!("{error}");
            ERROR
        }
    }
}

pub fn start(context: &Context, arguments: &Named) -> Outcome {
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    let started = context.client().and_then(|mut client| {
        client.start(&session)?;
        client.summary(&session)
    });
    match started {
        Ok(summary) => {
            context.say(format_args!("Tracing started for session {session}"));
            // What cannot be recorded is known by now.
            for channel in &summary.channels {
                for trouble in &channel.troubles {
                    warning!("Channel {}: {trouble}", channel.channel);
                }
            }
            FINE
        }
        Err(error) => {
            match is(&error, ErrorCode::AlreadyStarted) {
                true => warning!("{error} for session {session}"),
                false => error!("{error}"),
            }
            code(&error)
        }
    }
}

pub fn stop(context: &Context, arguments: &Stop) -> Outcome {
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    match context.client().and_then(|mut client| client.stop(&session)) {
        Ok(summary) => {
            if !arguments.no_wait {
                context.say("Waiting for data availability");
            }
            context.say(format_args!("Tracing stopped for session {session}"));
            totals::print(context, &summary);
            FINE
        }
        Err(error) => {
            match is(&error, ErrorCode::AlreadyStopped) {
                true => warning!("{error} for session {session}"),
                false => error!("{error}"),
            }
            code(&error)
        }
    }
}

pub fn destroy(context: &Context, arguments: &Destroy) -> Outcome {
    if arguments.all {
        return destroy_all(context);
    }
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    match context.client().and_then(|mut client| destroy_one(context, &mut client, &session)) {
        Ok(()) => FINE,
        Err(error) => {
            let unknown = is(&error, ErrorCode::NoSession);
            match unknown {
                true => error!("Session name {session} not found"),
                false => error!("{error}"),
            }
            if unknown { code(&error) } else { ERROR }
        }
    }
}

fn destroy_all(context: &Context) -> Outcome {
    let destroyed = context.client().and_then(|mut client| {
        let sessions = client.sessions()?;
        if sessions.is_empty() {
            context.say("No session found, nothing to do.");
        }
        sessions.iter().try_for_each(|session| destroy_one(context, &mut client, &session.name))
    });
    match destroyed {
        Ok(()) => FINE,
        Err(error) => {
            error!("{error}");
            ERROR
        }
    }
}

fn destroy_one(context: &Context, client: &mut Client, session: &str) -> Result<(), ControlError> {
    let active = client.sessions()?.iter().any(|info| info.name == session && info.active);
    if active {
        context.say(format_args!("Destroying session {session}.."));
    }
    let summary = client.destroy(session)?;
    context.say(format_args!("Session {session} destroyed"));
    if active {
        totals::print(context, &summary);
    }
    context.unset_current_session(session);
    Ok(())
}

pub fn set(context: &Context, arguments: &SetSession) -> Outcome {
    let Some(session) = arguments.session.as_deref() else {
        error!("Missing session name");
        return ERROR;
    };
    let known = context.client().and_then(|mut client| client.sessions());
    match known {
        Err(error) => {
            error!("{error}");
            ERROR
        }
        Ok(sessions) if !sessions.iter().any(|info| info.name == session) => {
            error!("Session '{session}' not found");
            ERROR
        }
        Ok(_) => match context.set_current_session(session) {
            Ok(()) => {
                context.say(format_args!("Session set to {session}"));
                FINE
            }
            Err(error) => {
                error!("{}: {error}", context.rc_path().display());
                WARNING
            }
        },
    }
}
