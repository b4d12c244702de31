//! `record`: a session for the life of one command.
//!
//! ```text
//! sillage record -u 'nginx:*' -- nginx -g 'daemon off;'
//! sillage record -k 'sched_*' -u '*' -- make
//! ```
//! The command runs with our tracer library in front; its input, output, signals and exit code are its
//! own. While it runs, a line on a terminal shows what was recorded; at the end a summary says so on
//! standard error, names every loss, and shows the command that views the result.
//!
//! While the command runs only bytes and packets are known, because the consumer never looks inside a
//! packet: the line's number of events is an estimate from the first of them. At the end our reader
//! counts. Without a terminal on standard error there is no line, nobody reads meanwhile, and packets are
//! written when they are full.
//!
//! Of user space only the command is recorded, with everything that it starts, daemons that leave its process tree
//! included: a token in its environment (`SILLAGE_RECORD`) is inherited, and sent by the tracer when a
//! program registers. A program started with an environment of its own (by `env -i`, `sudo`, a service
//! manager) is not the command's in this sense; inside another `record` the inner one counts.
//!
//! When this process is killed, the daemon ends the session with the last of those programs.

use super::channel::Settings;
use super::container::{self, Membership};
use super::session::{Naming, output_dir};
use super::{Context, ERROR, Outcome, count, library, split_list, totals, unrecorded};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec};
use sillage_control::{Client, ControlError, Place, Summary};
use sillage_model::{BlockingTimeout, ChannelSettings, Domain, EventRule, Instrumentation, Pattern, Tracked};
use sillage_session::signals::{Signal, Signals};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

/// Between two looks at what was recorded.
const LIVE_PERIOD_NS: i64 = 500_000_000;
/// While somebody looks at the line, what is in the rings is written out this often unless a switch timer
/// was chosen: the line knows only what is written.
const LIVE_SWITCH_US: u64 = 500_000;
/// The channel that takes everything.
const CHANNEL: &str = "channel0";
/// Memory of the kernel's rings unless it was chosen: what keeps a machine full of switching tasks whole.
const KERNEL_MEMORY_BYTES: u64 = 64 << 20;
/// What shells exit with for a command that is not there, and for one that cannot be run.
const NOT_FOUND: Outcome = 127;
const NOT_RUNNABLE: Outcome = 126;

/// `record [OPTIONS] -- COMMAND ARG...`
#[derive(Args)]
pub struct Arguments {
    /// Write the trace to this directory.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Record the user-space events with these names or patterns (all if nothing else is chosen).
    #[arg(short, long, value_name = "PATTERN")]
    userspace: Vec<String>,
    /// Record the kernel's events with these names or patterns, whoever causes them.
    #[arg(short, long, value_name = "PATTERN")]
    kernel: Vec<String>,
    /// Record these system calls (all without a pattern, which needs a `=`), whoever makes them.
    #[arg(long, value_name = "PATTERN", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    syscall: Vec<String>,
    /// Of the kernel's events, record those of one PID namespace: that of a process, or our own.
    #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true, conflicts_with = "container")]
    pid_ns: Option<Option<u32>>,
    /// Of the kernel's events, record those of one container: by its name (Docker, Podman, LXC,
    /// systemd-nspawn) or by a process in it.
    #[arg(long, value_name = "NAME|PID")]
    container: Option<String>,
    /// Leave out the user-space events with these names or patterns.
    #[arg(short = 'x', long, value_name = "PATTERN")]
    exclude: Vec<String>,
    #[command(flatten)]
    settings: Settings,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true)]
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
    let Some(channels) = channels(arguments) else { return Ok(ERROR) };
    let followed = followed(arguments)?;
    let output = arguments.output.as_deref().map(output_dir).transpose()?;
    let parts = output.iter().flat_map(|dir| ["ust", "kernel"].map(|part| dir.join(part)));
    if let Some(old) = parts.into_iter().find(|dir| dir.exists()) {
        bail!("{} is there already: another trace in the same directory could not be read", old.display());
    }
    let user = channels.iter().find(|channel| channel.domain == Domain::User);
    let libraries = user.map(|_| library::directory(context)).transpose()?;
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
    command.args(&arguments.command[1..]).env("SILLAGE_RECORD", token.to_string());
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", library_path(&libraries));
    }
    if user.is_some_and(|channel| channel.settings.blocking_timeout != BlockingTimeout::None) {
        command.env("LTTNG_UST_ALLOW_BLOCKING", "1");
    }
    let started = make(&mut client, &naming.name, channels).and_then(|()| {
        let (session, domain) = (&naming.name, Domain::Kernel);
        if let Some((attribute, number)) = followed {
            client.track(session, domain, attribute, Some(Tracked::Id(number)), true)?;
        }
        client.start(session)
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
        Ok(summary) => {
            print_summary(&summary, &naming.output);
            if is_empty(&summary) && arguments.kernel.is_empty() && arguments.syscall.is_empty() {
                let command = &arguments.command[0];
                let why = unrecorded::reason(command).unwrap_or(
                    "it met no tracepoint that was asked for (`sillage list -u` shows those of running programs)",
                );
                eprintln!("Nothing of {} was recorded: {why}", command.to_string_lossy());
            }
        }
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

/// A channel to be made.
struct Planned {
    domain: Domain,
    settings: ChannelSettings,
    rules: Vec<EventRule>,
}

/// The channels that were asked for; says what is wrong.
fn channels(arguments: &Arguments) -> Option<Vec<Planned>> {
    let Arguments { userspace, kernel, syscall, settings, .. } = arguments;
    let tracepoints = |texts: &[String]| patterns(texts).into_iter().map(EventRule::tracepoints);
    let mut channels = Vec::new();
    if !(kernel.is_empty() && syscall.is_empty()) {
        let calls = patterns(syscall).into_iter().map(|pattern| EventRule {
            instrumentation: Instrumentation::Syscall,
            ..EventRule::tracepoints(pattern)
        });
        let rules = tracepoints(kernel).chain(calls).collect();
        let mut settings = settings.parse(Domain::Kernel)?;
        if !arguments.settings.names_a_size() {
            settings.memory_bytes = KERNEL_MEMORY_BYTES;
        }
        channels.push(Planned { domain: Domain::Kernel, settings, rules });
    }
    if channels.is_empty() || !userspace.is_empty() {
        let all = ["*".to_owned()];
        let wanted = if userspace.is_empty() { &all } else { userspace.as_slice() };
        let exclusions = patterns(&arguments.exclude);
        let rules = tracepoints(wanted).map(|rule| match rule.pattern.has_star() {
            true => EventRule { exclusions: exclusions.clone(), ..rule },
            false => rule,
        });
        let rules = rules.collect();
        channels.push(Planned { domain: Domain::User, settings: settings.parse(Domain::User)?, rules });
    }
    if settings.switch_timer.is_none() && std::io::stderr().is_terminal() {
        channels.iter_mut().for_each(|channel| channel.settings.switch_timer_us = LIVE_SWITCH_US);
    }
    Some(channels)
}

/// Whom the kernel's channel follows.
fn followed(arguments: &Arguments) -> Result<Option<Membership>> {
    let found = match (arguments.pid_ns, &arguments.container) {
        (Some(pid), _) => container::namespace(pid),
        (None, Some(name)) => container::find(name),
        (None, None) => return Ok(None),
    };
    if arguments.kernel.is_empty() && arguments.syscall.is_empty() {
        bail!(
            "--pid-ns and --container choose among the kernel's events: none are recorded without -k or --syscall"
        );
    }
    found.map(Some).map_err(anyhow::Error::msg)
}

fn make(client: &mut Client, session: &str, channels: Vec<Planned>) -> Result<(), ControlError> {
    for Planned { domain, settings, rules } in channels {
        client.enable_channel(session, domain, CHANNEL, settings)?;
        for rule in rules {
            client.enable_event(session, domain, Some(CHANNEL), rule)?;
        }
    }
    Ok(())
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

/// Whether nothing was recorded, and nothing lost either.
fn is_empty(summary: &Summary) -> bool {
    let nothing = |channel| totals::losses(channel).is_empty();
    summary.channels.iter().all(|channel| channel.packets == 0 && nothing(channel))
        && summary.unanswered.is_empty()
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
