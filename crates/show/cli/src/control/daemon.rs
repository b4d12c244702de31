//! `sillage daemon`, and `lttng-sessiond`: the session daemon itself.

use super::{Context, ERROR, FINE, Outcome, error};
use clap::{Args, Parser};
use sillage_control::{Place, start_daemon};
use sillage_session::{DaemonError, keeper};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

/// What LTTng's daemon exits with for any error.
const DAEMON_ERROR: Outcome = 3;

/// `daemon [--daemonize | --background]`
#[derive(Args, Default)]
pub struct Arguments {
    /// Detach, and return when the daemon serves.
    #[arg(short, long)]
    daemonize: bool,
    /// Detach, and say `ready` on standard output when the daemon serves, or `other` when another one does.
    #[arg(short, long)]
    background: bool,
    /// Serve in this directory.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The inner half, which the outer half starts.
    #[arg(long, hide = true)]
    worker: bool,
    /// An outer half in the place of one that was killed, which the inner half starts.
    #[arg(long, hide = true)]
    keeper: bool,
}

/// The options of `lttng-sessiond` that matter here; the rest of its words are taken and ignored.
#[derive(Parser)]
#[command(name = "lttng-sessiond", version)]
struct Sessiond {
    #[command(flatten)]
    arguments: Arguments,
    /// Group whose members may control root's daemon (always `tracing`).
    #[arg(short, long)]
    group: Option<String>,
    /// No kernel tracing.
    #[arg(long)]
    no_kernel: bool,
    /// Print more.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print less.
    #[arg(short, long)]
    quiet: bool,
}

/// Called as `lttng-sessiond`.
pub fn sessiond(arguments: &[OsString]) -> ExitCode {
    let Some(place) = Place::from_environment() else { return DAEMON_ERROR.into() };
    match Sessiond::try_parse_from(arguments) {
        Ok(Sessiond { arguments, .. }) => run(place.run_dir, &arguments).into(),
        Err(error) => super::usage(arguments, &error),
    }
}

pub fn daemon(context: &Context, arguments: &Arguments) -> Outcome {
    run(context.place.run_dir.clone(), arguments)
}

fn run(default_dir: PathBuf, arguments: &Arguments) -> Outcome {
    let run_dir = arguments.run_dir.clone().unwrap_or(default_dir);
    if arguments.daemonize {
        let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
        let words: [&OsStr; 4] =
            ["daemon".as_ref(), "--background".as_ref(), "--run-dir".as_ref(), run_dir.as_os_str()];
        return match start_daemon(&own, &words) {
            Ok(()) => FINE,
            Err(error) => {
                error!("{error}");
                DAEMON_ERROR
            }
        };
    }
    let Some(dir) = run_dir.to_str() else {
        error!("{} is not UTF-8", run_dir.display());
        return ERROR;
    };
    let worker = ["daemon", "--worker", "--run-dir", dir];
    if arguments.worker {
        return report(sillage_session::work(&run_dir, &["daemon", "--keeper", "--run-dir", dir]));
    }
    if arguments.keeper {
        return report(keeper::adopt(&run_dir, &worker));
    }
    if arguments.background {
        return match keeper::detach() {
            Ok(()) => {
                let served = sillage_session::serve(&run_dir, &worker, keeper::announce);
                if matches!(served, Err(DaemonError::Running)) {
                    println!("other");
                }
                report(served)
            }
            Err(error) => report(Err(error.into())),
        };
    }
    report(sillage_session::serve(&run_dir, &worker, || {}))
}

fn report(result: Result<(), DaemonError>) -> Outcome {
    match result {
        Ok(()) => FINE,
        Err(error) => {
            error!("{error}");
            DAEMON_ERROR
        }
    }
}
