//! The verbs that control recording, with LTTng's grammar, texts and exit codes.
//!
//! Each verb is a function in the module of its subject that prints what it did and returns what the
//! program exits with. What LTTng says is said in LTTng's words, because scripts compare them.

mod channel;
mod container;
mod context;
mod count;
mod daemon;
mod event;
mod library;
mod list;
mod record;
mod repair;
mod session;
mod totals;
mod track;
mod unrecorded;
mod view;

use clap::{Args, Subcommand};
use sillage_control::{Client, ControlError, ErrorCode, Place, start_daemon};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub use daemon::sessiond;
pub use view::place as place_of_trace;

/// Options in front of the verb.
#[derive(Args)]
pub struct General {
    /// Print less.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Print more; again for even more.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Do not start a session daemon.
    #[arg(short = 'n', long)]
    no_sessiond: bool,
    /// Start this program as session daemon.
    #[arg(long, value_name = "PATH", conflicts_with = "no_sessiond")]
    sessiond_path: Option<PathBuf>,
    /// Group whose members may use root's daemon (the daemon decides; accepted for LTTng's sake).
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
}

/// The verbs.
#[derive(Subcommand)]
pub enum Verb {
    /// Record what one command does, from its start to its end.
    Record(record::Arguments),
    /// Create a recording session.
    Create(session::Create),
    /// Destroy recording sessions.
    Destroy(session::Destroy),
    /// Start a recording session.
    Start(session::Named),
    /// Stop a recording session.
    Stop(session::Stop),
    /// Show the status of the current recording session.
    Status,
    /// Set the current recording session.
    SetSession(session::SetSession),
    /// List recording sessions and instrumentation points.
    List(list::Arguments),
    /// Create or enable channels.
    EnableChannel(channel::Enable),
    /// Disable channels.
    DisableChannel(channel::Disable),
    /// Create or enable recording event rules.
    EnableEvent(event::Enable),
    /// Disable recording event rules.
    DisableEvent(event::Disable),
    /// Make traces whole whose daemon was killed or whose machine went down.
    Repair(repair::Arguments),
    /// Add context fields to channels.
    AddContext(context::Add),
    /// Let only some processes be recorded.
    Track(track::Arguments),
    /// Take processes out of those that are recorded.
    Untrack(track::Arguments),
    /// Show the version.
    Version,
    /// Run the session daemon.
    Daemon(daemon::Arguments),
}

/// What the program exits with.
pub type Outcome = u8;

/// Everything is fine.
pub const FINE: Outcome = 0;
/// An error without a code of its own.
pub const ERROR: Outcome = 1;
/// The command line makes no sense.
pub const UNDEFINED: Outcome = 2;
/// Done, with a warning.
pub const WARNING: Outcome = 4;

/// How long a daemon that somebody else starts or ends may take, and between two looks at it.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// An error on standard error.
macro_rules! error {
    ($($arguments:tt)*) => { eprintln!("Error: {}", format_args!($($arguments)*)) };
}
/// A warning on standard error.
macro_rules! warning {
    ($($arguments:tt)*) => { eprintln!("Warning: {}", format_args!($($arguments)*)) };
}
pub(crate) use {error, warning};

/// What the verbs share: where daemons and configuration are, and what to print.
pub struct Context {
    place: Place,
    quiet: bool,
    no_sessiond: bool,
    sessiond_path: Option<PathBuf>,
}

impl Context {
    /// Says what is wrong if there is no place for it.
    fn new(general: &General) -> Option<Self> {
        let Some(place) = Place::from_environment() else {
            error!("Neither HOME nor a run directory is known; set HOME or SILLAGE_RUNDIR");
            return None;
        };
        Some(Self {
            place,
            quiet: general.quiet,
            no_sessiond: general.no_sessiond,
            sessiond_path: general.sessiond_path.clone(),
        })
    }

    /// The daemon, if there is one.
    fn client(&self) -> Result<Client, ControlError> {
        Client::connect(&self.place.socket())
    }

    /// The daemon; it is started if there is none.
    fn client_or_start(&self) -> Result<Client, ControlError> {
        match self.client() {
            Err(ControlError::NoDaemon) if !self.no_sessiond => {}
            result => return result,
        }
        self.say("Spawning a session daemon");
        let begin = Instant::now();
        let socket = self.place.own_socket();
        loop {
            match self.start_daemon() {
                // Somebody else started one in the same moment, or the last one is about to end.
                Err(ControlError::Running(said)) => match Client::connect(&socket) {
                    Err(ControlError::NoDaemon) if begin.elapsed() < PATIENCE => {
                        std::thread::sleep(PAUSE);
                    }
                    Err(ControlError::NoDaemon) => {
                        let said = format!("{said}, but does not answer at {}", socket.display());
                        return Err(ControlError::Running(said));
                    }
                    result => return result,
                },
                started => return started.and_then(|()| Client::connect(&socket)),
            }
        }
    }

    fn start_daemon(&self) -> Result<(), ControlError> {
        if let Some(path) = &self.sessiond_path {
            return start_daemon(path, &["--background".as_ref()]);
        }
        let own = std::env::current_exe().map_err(|error| ControlError::Start(error.to_string()))?;
        let run_dir = self.place.run_dir.as_os_str();
        start_daemon(&own, &["daemon".as_ref(), "--background".as_ref(), "--run-dir".as_ref(), run_dir])
    }

    /// Prints a line unless told to be quiet.
    fn say(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            println!("{line}");
        }
    }

    fn rc_path(&self) -> PathBuf {
        self.place.home.join(".lttngrc")
    }

    /// The session that was named, or else the current one. Says what is wrong if there is none.
    fn session(&self, named: Option<&str>) -> Option<String> {
        if let Some(name) = named {
            return Some(name.to_owned());
        }
        let current = current_session(&self.rc_path());
        if current.is_none() {
            error!("Can't find valid lttng config {}", self.rc_path().display());
            println!("Did you create a session? (lttng create <my_session>)");
        }
        current
    }

    fn set_current_session(&self, name: &str) -> std::io::Result<()> {
        std::fs::write(self.rc_path(), format!("session={name}\n"))
    }

    /// Forgets the current session if it is this one.
    fn unset_current_session(&self, name: &str) {
        let path = self.rc_path();
        if current_session(&path).as_deref() == Some(name) {
            // Should it stay, later commands say that they do not find the session.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn current_session(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("session=").map(|name| name.trim().to_owned()))
}

/// LTTng's exit code for an error of the daemon.
fn code(error: &ControlError) -> Outcome {
    error.code() as u32 as u8
}

/// Runs a verb.
pub fn run(general: &General, verb: Verb) -> ExitCode {
    let Some(context) = Context::new(general) else { return ERROR.into() };
    let outcome = match verb {
        Verb::Record(arguments) => record::record(&context, arguments),
        Verb::Create(arguments) => session::create(&context, &arguments),
        Verb::Destroy(arguments) => session::destroy(&context, &arguments),
        Verb::Start(arguments) => session::start(&context, &arguments),
        Verb::Stop(arguments) => session::stop(&context, &arguments),
        Verb::Status => list::status(&context),
        Verb::SetSession(arguments) => session::set(&context, &arguments),
        Verb::List(arguments) => list::list(&context, &arguments),
        Verb::EnableChannel(arguments) => channel::enable(&context, &arguments),
        Verb::DisableChannel(arguments) => channel::disable(&context, &arguments),
        Verb::EnableEvent(arguments) => event::enable(&context, &arguments),
        Verb::DisableEvent(arguments) => event::disable(&context, &arguments),
        Verb::Repair(arguments) => repair::repair(&context, &arguments),
        Verb::AddContext(arguments) => context::add(&context, &arguments),
        Verb::Track(arguments) => track::change(&context, &arguments, true),
        Verb::Untrack(arguments) => track::change(&context, &arguments, false),
        Verb::Version => version(),
        Verb::Daemon(arguments) => daemon::daemon(&context, &arguments),
    };
    outcome.into()
}

fn version() -> Outcome {
    // The first line is what scripts look for: the version of LTTng whose command line this is.
    println!("lttng version 2.13.0 - Sillage {}", env!("CARGO_PKG_VERSION"));
    FINE
}

/// What is wrong with a command line, in LTTng's words and with its exit codes; or help.
pub fn usage(arguments: &[OsString], error: &clap::Error) -> ExitCode {
    use clap::error::{ContextKind, ErrorKind};
    let program = arguments.first().map(|path| Path::new(path).file_name().unwrap_or_default());
    let program = program.unwrap_or_default().to_string_lossy();
    let verb = || {
        let verbs = arguments.iter().skip(1).filter(|word| !word.to_string_lossy().starts_with('-'));
        verbs.map(|word| word.to_string_lossy().into_owned()).next().unwrap_or_default()
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print!("{}", error.render());
            FINE.into()
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            print!("{}", error.render());
            ERROR.into()
        }
        ErrorKind::InvalidSubcommand => {
            let word = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string).unwrap_or_default();
            let article = if program.starts_with("lttng") { "an" } else { "a" };
            println!("{program}: {word} is not {article} {program} command. See '{program} --help'.");
            UNDEFINED.into()
        }
        ErrorKind::UnknownArgument if !is_option(error) => {
            let word = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
            error!("Unknown argument: {word}");
            ERROR.into()
        }
        ErrorKind::UnknownArgument | ErrorKind::InvalidValue
            if error.get(ContextKind::InvalidValue).is_none() =>
        {
            error!("Unrecognized argument used with '{}' command", verb());
            UNDEFINED.into()
        }
        _ => {
            eprint!("{}", error.render());
            UNDEFINED.into()
        }
    }
}

fn is_option(error: &clap::Error) -> bool {
    let word = error.get(clap::error::ContextKind::InvalidArg);
    word.is_none_or(|word| word.to_string().starts_with('-'))
}

/// The texts of a comma-separated list, in which `\,` is a comma.
fn split_list(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if characters.peek() == Some(&',') => {
                characters.next();
                push(&mut items, ',');
            }
            ',' => items.push(String::new()),
            c => push(&mut items, c),
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn push(items: &mut [String], c: char) {
    if let Some(last) = items.last_mut() {
        last.push(c);
    }
}

/// True for an error that means "it was so already".
fn is(error: &ControlError, code: ErrorCode) -> bool {
    error.code() == code
}

#[cfg(test)]
mod tests {
    use super::split_list;

    #[test]
    fn lists_are_split_at_commas_that_are_not_escaped() {
        assert_eq!(split_list("a,b*,c\\,d,"), ["a", "b*", "c,d"]);
        assert_eq!(split_list(""), Vec::<String>::new());
    }
}
