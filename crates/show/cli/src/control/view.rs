//! `view`: finds the trace of a session and shows it with our reader, or with another one.

use super::{Context, ERROR, error};
use clap::Args;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// `view [SESSION] [-t DIR] [-e READER]`
#[derive(Args)]
pub struct Arguments {
    /// Name of the session; without one it is the current one.
    session: Option<String>,
    /// Show the trace in this directory.
    #[arg(short, long, value_name = "DIR")]
    trace_path: Option<PathBuf>,
    /// Use this reader, with its options.
    #[arg(short = 'e', long, value_name = "READER")]
    viewer: Option<String>,
}

pub fn view(context: &Context, arguments: &Arguments) -> ExitCode {
    let dir = match &arguments.trace_path {
        Some(dir) => dir.clone(),
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
