//! `view`: shows the trace of a session, or one that is named by its place, with our reader or another.

use super::{Context, ERROR, error};
use clap::Args;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// `view [SESSION | TRACE] [-t DIR] [-e READER]`
#[derive(Args)]
pub struct Arguments {
    /// Name of a session (without one, the current one), or a trace: a directory's path with a `/` in
    /// it, or the URL of a live session, `net://HOST/host/NAME/SESSION`.
    #[arg(value_name = "SESSION | TRACE")]
    session: Option<String>,
    /// Show the trace in this directory.
    #[arg(short, long, value_name = "DIR")]
    trace_path: Option<PathBuf>,
    /// Use this reader, with its options.
    #[arg(short = 'e', long, value_name = "READER")]
    viewer: Option<String>,
}

pub fn view(context: &Context, arguments: &Arguments) -> ExitCode {
    // The names of sessions have no `/`.
    let place = arguments.session.as_ref().filter(|s| s.contains('/')).map(PathBuf::from);
    let dir = match arguments.trace_path.clone().or(place) {
        Some(dir) => dir,
        None => {
            let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR.into() };
            match context.client().and_then(|mut client| client.sessions()) {
                Err(error) => {
                    error!("{error}");
                    return ERROR.into();
                }
                Ok(sessions) => match sessions.iter().find(|info| info.name == session) {
                    Some(info) => PathBuf::from(&info.output),
                    None => {
                        println!("Session name {session} not found");
                        return ERROR.into();
                    }
                },
            }
        }
    };
    let Some(viewer) = arguments.viewer.as_deref() else {
        return crate::babeltrace2::run(&[dir.into_os_string()]);
    };
    let words: Vec<&str> = viewer.split_whitespace().collect();
    let [reader, options @ ..] = words.as_slice() else {
        error!("No trace reader named");
        return ERROR.into();
    };
    // It only returns when the reader cannot be run.
    let failed = Command::new(reader).args(options).arg(&dir).exec();
    error!("{reader}: {failed}");
    ERROR.into()
}
