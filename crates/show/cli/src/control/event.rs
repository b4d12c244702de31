//! Recording event rules: make, enable, disable.

use super::channel::Domain;
use super::{Context, ERROR, FINE, Outcome, code, error, is, split_list, warning};
use clap::Args;
use sillage_control::{ControlError, ErrorCode};
use sillage_model::{EventRule, LogLevel, LogLevelRule, Pattern};

const DOMAINS: &str = "--kernel/--userspace/--jul/--log4j/--python";
/// What LTTng exits with for a log level that does not exist.
const UNKNOWN_LOGLEVEL: Outcome = 97;

/// `enable-event -u NAME[,NAME]... | --all`
#[derive(Args)]
pub struct Enable {
    #[command(flatten)]
    domain: Domain,
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
    /// Name of the channel.
    #[arg(short, long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Name of the session; without one it is the current one.
    #[arg(short, long, value_name = "SESSION")]
    session: Option<String>,
    /// Names or globbing patterns.
    events: Option<String>,
}

/// `disable-event -u NAME[,NAME]... | --all-events`
#[derive(Args)]
pub struct Disable {
    #[command(flatten)]
    domain: Domain,
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

pub fn enable(context: &Context, arguments: &Enable) -> Outcome {
    if !arguments.domain.check(DOMAINS) {
        return ERROR;
    }
    let names = match arguments.all {
        true => vec!["*".to_owned()],
        false => split_list(arguments.events.as_deref().unwrap_or_default()),
    };
    if names.is_empty() {
        error!("Missing event name(s).");
        return ERROR;
    }
    let exclusions = split_list(arguments.exclude.as_deref().unwrap_or_default());
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    // As LTTng's, the names of levels alone are taken, not their numbers.
    let level = |text: &str| LogLevel::parse(text).filter(|_| text.parse::<i64>().is_err());
    let (text, loglevel) = match (arguments.loglevel_only.as_deref(), arguments.loglevel.as_deref()) {
        (Some(text), _) => (Some(text), level(text).map(LogLevelRule::Only)),
        (None, Some(text)) => (Some(text), level(text).map(LogLevelRule::AtLeast)),
        (None, None) => (None, Some(LogLevelRule::Any)),
    };
    let Some(loglevel) = loglevel else {
        error!("Unknown loglevel {}", text.unwrap_or_default());
        return UNKNOWN_LOGLEVEL;
    };
    let mut outcome = FINE;
    for name in names {
        let rule = EventRule {
            pattern: Pattern::new(name.as_str()),
            exclusions: exclusions.iter().map(|text| Pattern::new(text.as_str())).collect(),
            loglevel,
            enabled: true,
        };
        if !exclusions.is_empty() && !rule.pattern.has_star() {
            error!("Event {name}: Exclusions can only be used with a globbing pattern");
            return ERROR;
        }
        for exclusion in &exclusions {
            match overlap(&name, exclusion) {
                Overlap::Some => {}
                Overlap::None => {
                    warning!("Event {name}: {exclusion} does not exclude any events from {name}");
                }
                Overlap::All => warning!("Event {name}: {exclusion} excludes all events from {name}"),
            }
        }
        let made = context
            .client()
            .and_then(|mut client| client.enable_event(&session, arguments.channel.as_deref(), rule));
        let level = text.filter(|_| arguments.all).map(|text| format!(" for loglevel {text}"));
        match made {
            Ok(channel) if arguments.all => context.say(format_args!(
                "All ust events{} are enabled in channel {channel}{}",
                excluding(&exclusions),
                level.unwrap_or_default()
            )),
            Ok(channel) => context
                .say(format_args!("ust event {name}{} created in channel {channel}", excluding(&exclusions))),
            Err(error) => {
                let channel = channel_of(arguments.channel.as_deref(), &error);
                match arguments.all {
                    true => error!("Events: {error} (channel {channel}, session {session})"),
                    false => error!("Event {name}: {error} (channel {channel}, session {session})"),
                }
                outcome = if arguments.all { ERROR } else { code(&error) };
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
    if !arguments.domain.check(DOMAINS) {
        return ERROR;
    }
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
            client.disable_event(&session, arguments.channel.as_deref(), pattern.as_deref())
        });
        match (done, pattern) {
            (Ok(channel), None) => {
                context.say(format_args!("All ust events of type any are disabled in channel {channel}"));
            }
            (Ok(channel), Some(name)) => context.say(format_args!(
                "ust {name} of type any disabled in channel {channel} for session {session}"
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
