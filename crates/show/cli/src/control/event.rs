//! Recording event rules: make, enable, disable.

use super::channel::DomainChoice;
use super::{Context, ERROR, FINE, Outcome, WARNING, code, error, is, split_list, warning};
use clap::Args;
use sillage_control::{ControlError, ErrorCode};
use sillage_model::{Domain, EventRule, Instrumentation, LogLevel, LogLevelRule, Pattern};
use std::path::PathBuf;

const DOMAINS: &str = "--kernel/--userspace/--jul/--log4j/--python";
/// What LTTng exits with for a log level that does not exist.
const UNKNOWN_LOGLEVEL: Outcome = 97;
/// What it exits with for what a domain has not.
const UNSUPPORTED: Outcome = 5;

/// `enable-event -k|-u NAME[,NAME]... | --all`
#[derive(Args)]
pub struct Enable {
    #[command(flatten)]
    domain: DomainChoice,
    /// All events.
    #[arg(short, long)]
    all: bool,
    /// Names left out (with a globbing pattern).
    #[arg(short = 'x', long, value_name = "NAME[,NAME]...")]
    exclude: Option<String>,
    /// Events at least as severe as this log level.
    #[arg(long, value_name = "LOGLEVEL")]
    loglevel: Option<String>,
    /// Events of this log level alone.
    #[arg(long, value_name = "LOGLEVEL")]
    loglevel_only: Option<String>,
    /// Tracepoints (default).
    #[arg(long)]
    tracepoint: bool,
    /// Kernel: system calls.
    #[arg(long)]
    syscall: bool,
    /// Kernel: a place in its code, a symbol with an offset or an address.
    #[arg(long, value_name = "PLACE")]
    probe: Option<String>,
    /// Kernel: entry and return of a function, given as for `--probe`.
    #[arg(long, value_name = "PLACE")]
    function: Option<String>,
    /// Kernel: a place in a program's code, `[elf:]PATH:SYMBOL` or `sdt:PATH:PROVIDER:NAME`; a PATH without
    /// slashes is looked for in $PATH. An SDT probe's arguments are fields `arg0` and so on.
    #[arg(long, value_name = "PLACE")]
    userspace_probe: Option<String>,
    /// Kernel: entry and return of a function in a program's code, `[elf:]PATH:SYMBOL`: events NAME_entry
    /// and, with what it returned, NAME_exit.
    #[arg(long, value_name = "PLACE")]
    userspace_function: Option<String>,
    /// Record only events that pass this expression.
    #[arg(short, long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Name of the channel.
    #[arg(short, long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Name of the session; without one it is the current one.
    #[arg(short, long, value_name = "SESSION")]
    session: Option<String>,
    /// Names or globbing patterns.
    events: Option<String>,
}

/// `disable-event -k|-u NAME[,NAME]... | --all-events`
#[derive(Args)]
pub struct Disable {
    #[command(flatten)]
    domain: DomainChoice,
    /// All rules.
    #[arg(short, long)]
    all_events: bool,
    /// Name of the channel.
    #[arg(short, long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Name of the session; without one it is the current one.
    #[arg(short, long, value_name = "SESSION")]
    session: Option<String>,
    /// Patterns of the rules.
    events: Option<String>,
}

/// Where the daemon's word about an event is said to come from.
fn channel_of(given: Option<&str>, error: &ControlError) -> String {
    match given {
        Some(name) => name.into(),
        None if is(error, ErrorCode::NeedChannel) => "<default>".into(),
        None => "channel0".into(),
    }
}

/// What the rules of one command line are made of, and how their making is told.
struct Plan<'a> {
    domain: Domain,
    all: bool,
    /// The kinds of instrumentation, a rule for each.
    kinds: Vec<Instrumentation>,
    exclusions: Vec<String>,
    loglevel: LogLevelRule,
    loglevel_text: Option<&'a str>,
    filter: Option<&'a str>,
}

impl Enable {
    /// The one kind of instrumentation that was asked for; None: none was.
    fn kind(&self) -> Result<Option<Instrumentation>, Outcome> {
        let given = [
            self.tracepoint.then_some(Instrumentation::Tracepoint),
            self.syscall.then_some(Instrumentation::Syscall),
            self.probe.clone().map(Instrumentation::Probe),
            self.function.clone().map(Instrumentation::Function),
            self.userspace_probe.clone().map(Instrumentation::UserspaceProbe),
            self.userspace_function.clone().map(Instrumentation::UserspaceFunction),
        ];
        let mut given = given.into_iter().flatten();
        let kind = given.next();
        if given.next().is_some() {
            error!("Multiple event type not supported.");
            return Err(ERROR);
        }
        Ok(kind)
    }

    fn plan(&self, domain: Domain) -> Result<Plan<'_>, Outcome> {
        let kind = self.kind()?;
        let exclusions = split_list(self.exclude.as_deref().unwrap_or_default());
        // As LTTng's, the names of levels alone are taken, not their numbers.
        let level = |text: &str| LogLevel::parse(text).filter(|_| text.parse::<i64>().is_err());
        let (text, mut loglevel) = match (self.loglevel_only.as_deref(), self.loglevel.as_deref()) {
            (Some(text), _) => (Some(text), level(text).map(LogLevelRule::Only)),
            (None, Some(text)) => (Some(text), level(text).map(LogLevelRule::AtLeast)),
            (None, None) => (None, Some(LogLevelRule::Any)),
        };
        if domain == Domain::Kernel {
            if self.exclude.is_some() {
                error!("Event name exclusions are not yet implemented for kernel events");
                return Err(ERROR);
            }
            if text.is_some() {
                warning!("Kernel loglevels are not supported.");
            }
            loglevel = Some(LogLevelRule::Any);
        }
        let Some(loglevel) = loglevel else {
            error!("Unknown loglevel {}", text.unwrap_or_default());
            return Err(UNKNOWN_LOGLEVEL);
        };
        if let (Some(_), Some(words)) = (&self.filter, kind.as_ref().and_then(unfiltered)) {
            error!("Filter expressions are not supported for {words} events");
            return Err(ERROR);
        }
        let kind = kind.map(placed).transpose()?;
        if domain == Domain::User && kind.as_ref().is_some_and(|kind| *kind != Instrumentation::Tracepoint) {
            error!("Event type not available for user-space tracing");
            return Err(UNSUPPORTED);
        }
        let kinds = match kind {
            Some(kind) => vec![kind],
            None if self.all && domain == Domain::Kernel => {
                vec![Instrumentation::Tracepoint, Instrumentation::Syscall]
            }
            None => vec![Instrumentation::Tracepoint],
        };
        let (all, filter) = (self.all, self.filter.as_deref());
        Ok(Plan { domain, all, kinds, exclusions, loglevel, loglevel_text: text, filter })
    }
}

/// LTTng's words for kinds that cannot be filtered.
fn unfiltered(kind: &Instrumentation) -> Option<&'static str> {
    match kind {
        Instrumentation::Tracepoint | Instrumentation::Syscall => None,
        Instrumentation::Probe(_) => Some("Probe"),
        Instrumentation::Function(_) => Some("Function"),
        Instrumentation::UserspaceProbe(_) => Some("Userspace Probe"),
        Instrumentation::UserspaceFunction(_) => Some("Userspace Function"),
    }
}

/// A probe with its place as the daemon wants it: files by their whole paths. Says what is wrong.
fn placed(kind: Instrumentation) -> Result<Instrumentation, Outcome> {
    let say = |what: &str| {
        error!("Unable to parse {what} options");
        ERROR
    };
    // What a symbol looks like is for the daemon to say; that there is one is LTTng's command line's.
    let is_described = |place: &str| !place.is_empty() && !place.starts_with('+');
    match kind {
        Instrumentation::Probe(place) if !is_described(&place) => {
            error!("Invalid probe description {place}");
            Err(say("probe"))
        }
        Instrumentation::Function(place) if !is_described(&place) => {
            if !place.is_empty() {
                error!("Invalid probe description {place}");
            }
            Err(say("function probe"))
        }
        Instrumentation::UserspaceProbe(place) => {
            let whole = whole_place(&place, true).ok_or_else(|| say("userspace probe"))?;
            Ok(Instrumentation::UserspaceProbe(whole))
        }
        Instrumentation::UserspaceFunction(place) => {
            let whole = whole_place(&place, false).ok_or_else(|| say("userspace function probe"))?;
            Ok(Instrumentation::UserspaceFunction(whole))
        }
        other => Ok(other),
    }
}

/// `[elf:]PATH:SYMBOL` or `sdt:PATH:PROVIDER:NAME` with the whole path; a `:` in a part has a backslash in
/// front. Says which file is not there.
fn whole_place(text: &str, sdt: bool) -> Option<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => super::push(&mut parts, characters.next().unwrap_or(c)),
            ':' => parts.push(String::new()),
            c => super::push(&mut parts, c),
        }
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (kind, path, rest) = match parts[..] {
        _ if parts.contains(&"") => return None,
        [path, symbol] | ["elf", path, symbol] => ("elf", path, vec![symbol]),
        ["sdt", path, provider, name] if sdt => ("sdt", path, vec![provider, name]),
        _ => return None,
    };
    let path = binary(path)?;
    let all = [kind, path.to_str()?].into_iter().chain(rest);
    let escaped = all.map(|part| part.replace('\\', "\\\\").replace(':', "\\:"));
    Some(escaped.collect::<Vec<_>>().join(":"))
}

/// The file of a program: without slashes it is looked for as a shell does.
fn binary(path: &str) -> Option<PathBuf> {
    if path.contains('/') {
        // A link stays one: whoever points it elsewhere replaces the program.
        let whole = std::path::absolute(path).ok()?;
        if !whole.exists() {
            error!("Cannot find binary at path: {}.", whole.display());
            return None;
        }
        return Some(whole);
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).map(|dir| dir.join(path)).find(|file| file.is_file());
    if found.is_none() {
        error!("Binary not found.");
    }
    found
}

impl Plan<'_> {
    fn rule(&self, name: &str, instrumentation: Instrumentation) -> EventRule {
        EventRule {
            instrumentation,
            exclusions: self.exclusions.iter().map(|text| Pattern::new(text.as_str())).collect(),
            loglevel: self.loglevel,
            filter: self.filter.map(String::from),
            ..EventRule::tracepoints(Pattern::new(name))
        }
    }

    /// What was made, in LTTng's words.
    fn made(&self, name: &str, channel: &str) -> String {
        let (word, excluding) = (self.domain.word(), excluding(&self.exclusions));
        if let Some(filter) = self.filter {
            return match self.all {
                true => format!("Filter '{filter}' successfully set"),
                false => format!("Event {name}{excluding}: Filter '{filter}' successfully set"),
            };
        }
        if !self.all {
            return format!("{word} event {name}{excluding} created in channel {channel}");
        }
        let what = match (self.domain, &self.kinds[..]) {
            (Domain::Kernel, [Instrumentation::Tracepoint]) => "tracepoints",
            (Domain::Kernel, [Instrumentation::Syscall]) => "system calls",
            _ => "events",
        };
        let level = self.loglevel_text.filter(|_| self.domain == Domain::User);
        let level = level.map(|text| format!(" for loglevel {text}")).unwrap_or_default();
        format!("All {word} {what}{excluding} are enabled in channel {channel}{level}")
    }

    /// Says what kept a rule from being made; returns what to exit with.
    fn failed(&self, name: &str, channel: &str, session: &str, error: &ControlError) -> Outcome {
        if is(error, ErrorCode::KernelEventExists) {
            match self.all {
                true => warning!("Kernel events already enabled (channel {channel}, session {session})"),
                false => {
                    warning!("Kernel event {name} already enabled (channel {channel}, session {session})")
                }
            }
            return WARNING;
        }
        let filter = self.filter.map(|filter| format!(", filter '{filter}'")).unwrap_or_default();
        match self.all {
            true => error!("Events: {error} (channel {channel}, session {session}{filter})"),
            false => error!("Event {name}: {error} (channel {channel}, session {session}{filter})"),
        }
        if self.all { ERROR } else { code(error) }
    }
}

pub fn enable(context: &Context, arguments: &Enable) -> Outcome {
    let Some(domain) = arguments.domain.get(DOMAINS) else { return ERROR };
    let plan = match arguments.plan(domain) {
        Ok(plan) => plan,
        Err(outcome) => return outcome,
    };
    let names = match arguments.all {
        true => vec!["*".to_owned()],
        false => split_list(arguments.events.as_deref().unwrap_or_default()),
    };
    if names.is_empty() {
        error!("Missing event name(s).");
        return ERROR;
    }
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    let mut outcome = FINE;
    for name in names {
        if !plan.exclusions.is_empty() && !Pattern::new(name.as_str()).has_star() {
            error!("Event {name}: Exclusions can only be used with a globbing pattern");
            return ERROR;
        }
        for exclusion in &plan.exclusions {
            match overlap(&name, exclusion) {
                Overlap::Some => {}
                Overlap::None => {
                    warning!("Event {name}: {exclusion} does not exclude any events from {name}");
                }
                Overlap::All => warning!("Event {name}: {exclusion} excludes all events from {name}"),
            }
        }
        let made = context.client().and_then(|mut client| {
            let channel = arguments.channel.as_deref();
            let mut taken = String::new();
            for kind in &plan.kinds {
                taken = client.enable_event(&session, domain, channel, plan.rule(&name, kind.clone()))?;
            }
            Ok(taken)
        });
        match made {
            Ok(channel) => context.say(plan.made(&name, &channel)),
            Err(error) => {
                let channel = channel_of(arguments.channel.as_deref(), &error);
                outcome = plan.failed(&name, &channel, &session, &error);
            }
        }
    }
    outcome
}

fn excluding(exclusions: &[String]) -> String {
    let quoted: Vec<String> = exclusions.iter().map(|text| format!("\"{text}\"")).collect();
    if quoted.is_empty() { String::new() } else { format!(" excluding {}", quoted.join(", ")) }
}

enum Overlap {
    None,
    Some,
    All,
}

/// What an exclusion can take from a pattern, by the text in front of their first stars.
fn overlap(pattern: &str, exclusion: &str) -> Overlap {
    let mut left = pattern.bytes();
    let mut right = exclusion.bytes();
    loop {
        match (left.next(), right.next()) {
            (_, Some(b'*')) => return Overlap::All,
            (Some(b'*'), _) | (None, None) => return Overlap::Some,
            (a, b) if a == b => {}
            _ => return Overlap::None,
        }
    }
}

pub fn disable(context: &Context, arguments: &Disable) -> Outcome {
    let Some(domain) = arguments.domain.get(DOMAINS) else { return ERROR };
    let word = domain.word();
    let mut patterns: Vec<Option<String>> =
        split_list(arguments.events.as_deref().unwrap_or_default()).into_iter().map(Some).collect();
    if arguments.all_events {
        patterns = vec![None];
    }
    if patterns.is_empty() {
        error!("Missing event name(s).\n");
        return ERROR;
    }
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    let mut outcome = FINE;
    for pattern in patterns {
        let done = context.client().and_then(|mut client| {
            client.disable_event(&session, domain, arguments.channel.as_deref(), pattern.as_deref())
        });
        match (done, pattern) {
            (Ok(channel), None) => {
                context.say(format_args!("All {word} events of type any are disabled in channel {channel}"));
            }
            (Ok(channel), Some(name)) => context.say(format_args!(
                "{word} {name} of type any disabled in channel {channel} for session {session}"
            )),
            (Err(error), pattern) => {
                let channel = channel_of(arguments.channel.as_deref(), &error);
                match pattern {
                    None => error!("{error}"),
                    Some(name) => {
                        error!("{name} of type any : {error} (channel {channel}, session {session})");
                    }
                }
                outcome = code(&error);
            }
        }
    }
    outcome
}
