//! `view`: finds the trace of a session and has a reader show it.

use super::{Context, ERROR, Outcome, error};
use clap::Args;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Readers that are tried in this order.
const READERS: [&str; 2] = ["babeltrace2", "babeltrace"];

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

pub fn view(context: &Context, arguments: &Arguments) -> Outcome {
    let dir = match &arguments.trace_path {
        Some(dir) => dir.clone(),
        None => {
            let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
            match context.client().and_then(|mut client| client.sessions()) {
                Err(error) => {
                    error!("{error}");
                    return ERROR;
                }
                Ok(sessions) => match sessions.iter().find(|info| info.name == session) {
                    Some(info) => PathBuf::from(&info.output),
                    None => {
                        println!("Session name {session} not found");
                        return ERROR;
                    }
                },
            }
        }
    };
    let words: Vec<&str> =
        arguments.viewer.as_deref().map(|v| v.split_whitespace().collect()).unwrap_or_default();
    let readers = match words.as_slice() {
        [] => READERS.map(|reader| vec![reader]).to_vec(),
        words => vec![words.to_vec()],
    };
    for words in readers {
        if let [reader, options @ ..] = words.as_slice() {
            // It only returns when the reader cannot be run.
            let failed = Command::new(reader).args(options).arg(&dir).exec();
            if failed.kind() != std::io::ErrorKind::NotFound {
                error!("{reader}: {failed}");
                return ERROR;
            }
        }
    }
    error!("No trace reader found; name one with --viewer");
    ERROR
}
