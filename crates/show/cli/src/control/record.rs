//! `record`: a session for the life of one command.
//!
//! ```text
//! sillage record -u 'nginx:*' -- nginx -g 'daemon off;'
//! ```
//! The command runs with our tracer library in front; its input, output, signals and exit code are its
//! own. While it runs, a line on a terminal shows what was recorded; at the end a summary says so on
//! standard error, names every loss, and shows the command that views the result.
//!
//! While the command runs only bytes and packets are known, because the consumer never looks inside a
//! packet: the line's number of events is an estimate from the first of them. At the end our reader
//! counts. Without a terminal on standard error there is no line, and nobody reads meanwhile.
//!
//! Only the command is recorded, with everything that it starts, daemons that leave its process tree
//! included: a token in its environment (`SILLAGE_RECORD`) is inherited, and sent by the tracer when a
//! program registers. A program started with an environment of its own (by `env -i`, `sudo`, a service
//! manager) is not the command's in this sense; inside another `record` the inner one counts.

use super::channel::Settings;
use super::session::{Naming, output_dir};
use super::{Context, ERROR, Outcome, count, library, split_list, totals};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec};
use sillage_control::{Client, Place, Summary};
use sillage_model::{BlockingTimeout, EventRule, LogLevelRule, Pattern};
use sillage_session::signals::{Signal, Signals};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

/// Between two looks at what was recorded.
const LIVE_PERIOD_NS: i64 = 500_000_000;
/// The channel that takes everything.
const CHANNEL: &str = "channel0";
/// What shells exit with for a command that is not there, and for one that cannot be run.
const NOT_FOUND: Outcome = 127;
const NOT_RUNNABLE: Outcome = 126;

/// `record [OPTIONS] -- COMMAND ARG...`
#[derive(Args)]
pub struct Arguments {
    /// Write the trace to this directory.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Record the user-space events with these names or patterns (all if not given).
    #[arg(short, long, value_name = "PATTERN")]
    userspace: Vec<String>,
    /// Leave out the user-space events with these names or patterns.
    #[arg(short = 'x', long, value_name = "PATTERN")]
    exclude: Vec<String>,
    #[command(flatten)]
    settings: Settings,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub fn record(context: &Context, arguments: Arguments) -> Outcome {
    match run(context, &arguments) {
        Ok(outcome) => outcome,
        Err(error) => {
            super::error!("{error:#}");
            ERROR
        }
    }
}

fn run(context: &Context, arguments: &Arguments) -> Result<Outcome> {
    let Some(settings) = arguments.settings.parse() else { return Ok(ERROR) };
    let output = arguments.output.as_deref().map(output_dir).transpose()?;
    if let Some(old) = output.as_ref().map(|dir| dir.join("ust")).filter(|dir| dir.exists()) {
        bail!("{} is there already: another trace in the same directory could not be read", old.display());
    }
    let libraries = library::directory(context)?;
    let mut naming = Naming::new(context, None, output);
    // A quiet copy: what `record` prints on standard output would mix with the command's.
    let quiet = Context {
        place: context.place.clone(),
        quiet: true,
        no_sessiond: context.no_sessiond,
        sessiond_path: context.sessiond_path.clone(),
    };
    let mut client = quiet.client_or_start()?;
    // Two in one second get different names.
    naming.name = format!("{}-{}", naming.name, std::process::id());
    if arguments.output.is_none() && naming.output.exists() {
        naming.output.set_file_name(&naming.name);
    }
    let token = token();
    client.create_for(&naming.name, &naming.output.to_string_lossy(), &naming.created, token)?;
    let mut command = Command::new(&arguments.command[0]);
    command.args(&arguments.command[1..]).env("LD_LIBRARY_PATH", library_path(&libraries));
    command.env("SILLAGE_RECORD", token.to_string());
    if settings.blocking_timeout != BlockingTimeout::None {
        command.env("LTTNG_UST_ALLOW_BLOCKING", "1");
    }
    let exclusions = patterns(&arguments.exclude);
    let started = client.enable_channel(&naming.name, CHANNEL, settings).and_then(|()| {
        let wanted = match arguments.userspace.is_empty() {
            true => vec![Pattern::new("*")],
            false => patterns(&arguments.userspace),
        };
        for pattern in wanted {
            let exclusions = if pattern.has_star() { exclusions.clone() } else { Vec::new() };
            let rule = EventRule { pattern, exclusions, loglevel: LogLevelRule::Any, enabled: true };
            client.enable_event(&naming.name, Some(CHANNEL), rule)?;
        }
        client.start(&naming.name)
    });
    let finished = started
        .map_err(anyhow::Error::from)
        .and_then(|()| follow(&mut client, &context.place, &naming, command));
    // Whatever happened, the session ends here.
    let summary =
        Client::connect(&context.place.socket()).and_then(|mut client| client.destroy(&naming.name));
    let outcome = match finished? {
        Ended::Ran(status) => exit_code(status),
        Ended::NotRun(error) => {
            let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
            super::error!("{}: {error}", arguments.command[0].to_string_lossy());
            return Ok(code);
        }
    };
    match summary {
        Ok(summary) => print_summary(&summary, &naming.output),
        Err(error) => {
            super::error!("the session was lost with its daemon: {error}");
            eprintln!(
                "What was written before is in {}; the next session daemon makes it whole (any command that \
                 needs one starts it)",
                naming.output.display()
            );
        }
    }
    Ok(outcome)
}

/// A number that no other `record` has.
fn token() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Keyed by the system's random numbers.
    RandomState::new().build_hasher().finish().max(1)
}

fn patterns(texts: &[String]) -> Vec<Pattern> {
    texts.iter().flat_map(|text| split_list(text)).map(Pattern::new).collect()
}

fn library_path(dir: &Path) -> OsString {
    let mut path = dir.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("LD_LIBRARY_PATH").filter(|rest| !rest.is_empty()) {
        path.push(":");
        path.push(rest);
    }
    path
}

enum Ended {
    Ran(ExitStatus),
    NotRun(std::io::Error),
}

/// Runs the command to its end, passing on the signals that we alone get.
fn follow(client: &mut Client, place: &Place, naming: &Naming, mut command: Command) -> Result<Ended> {
    let all = [Signal::Child, Signal::Interrupt, Signal::Quit, Signal::Terminate, Signal::Hangup];
    let mut signals = Signals::catch(&all).context("signals")?;
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Ended::NotRun(error)),
    };
    let live = std::io::stderr().is_terminal();
    let ended = loop {
        let timeout = Timespec { tv_sec: 0, tv_nsec: LIVE_PERIOD_NS };
        let mut fds = [PollFd::new(&signals, PollFlags::IN)];
        // An interrupted wait is a signal, which the loop looks at anyway.
        let _ = rustix::event::poll(&mut fds, live.then_some(&timeout));
        while let Some(arrived) = signals.take() {
            // What the terminal sent, the command got as well.
            if arrived.signal != Signal::Child
                && (arrived.from_process || arrived.signal == Signal::Terminate)
            {
                pass_on(&child, arrived.signal);
            }
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if live && let Some(text) = live_line(client, place, naming) {
            eprint!("\r\x1b[K{text}");
            // A terminal that takes no more text changes nothing for the command.
            let _ = std::io::stderr().flush();
        }
    };
    if live {
        eprint!("\r\x1b[K");
    }
    Ok(Ended::Ran(ended))
}

/// What was recorded so far. A daemon that was killed is back in a moment, with the session.
fn live_line(client: &mut Client, place: &Place, naming: &Naming) -> Option<String> {
    let summary = match client.summary(&naming.name) {
        Ok(summary) => summary,
        Err(_) => {
            *client = Client::connect(&place.socket()).ok()?;
            client.summary(&naming.name).ok()?
        }
    };
    let packets = summary.channels.iter().map(|channel| channel.packets).sum();
    let about = count::about(&naming.output, packets);
    let events = about.map(|events| format!("about {events} events, ")).unwrap_or_default();
    Some(format!("{events}{}", line(&summary)))
}

fn pass_on(child: &Child, signal: Signal) {
    use rustix::process::Signal as Number;
    let number = match signal {
        Signal::Child => return,
        Signal::Interrupt => Number::INT,
        Signal::Quit => Number::QUIT,
        Signal::Terminate => Number::TERM,
        Signal::Hangup => Number::HUP,
    };
    // It may have ended just now.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), number);
}

fn exit_code(status: ExitStatus) -> Outcome {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.map_or(ERROR, |code| code as u8)
}

fn lost(summary: &Summary) -> u64 {
    summary.channels.iter().map(totals::lost).fold(0, u64::saturating_add)
}

/// What was recorded so far, in one line.
fn line(summary: &Summary) -> String {
    let (mut packets, mut bytes) = (0, 0);
    for channel in &summary.channels {
        packets += channel.packets;
        bytes += channel.bytes;
    }
    let dropped: u64 = summary.channels.iter().map(|channel| channel.dropped_packets).sum();
    let mut out = format!("{} in {packets} packets, {} lost", totals::size(bytes), lost(summary));
    if dropped > 0 {
        out.push_str(&format!(", {dropped} packets not written"));
    }
    out
}

fn print_summary(summary: &Summary, output: &Path) {
    let count = count::events(output).map(|events| format!("{events}, ")).unwrap_or_default();
    eprintln!("Recorded {count}{}", line(summary));
    for loss in summary.channels.iter().flat_map(totals::losses) {
        eprintln!("  {loss}");
    }
    for program in &summary.unanswered {
        eprintln!("  {program} did not confirm that it stopped: its last events may be missing");
    }
    eprintln!("View with: sillage view -t {}", output.display());
}
