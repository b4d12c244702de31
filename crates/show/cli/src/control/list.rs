//! Lists: sessions, one session, programs with their tracepoints; and the status of the current one.

use super::{Context, ERROR, FINE, Outcome, error, totals};
use clap::Args;
use sillage_control::{ChannelDescription, ControlError, ProgramDescription, SessionInfo};
use sillage_model::{
    BlockingTimeout, ChannelSettings, Encoding, EventRule, FieldType, LogLevel, LogLevelRule, LossMode,
};

/// `list [SESSION] [-u] [-f] [-c CHANNEL]`
#[derive(Args)]
pub struct Arguments {
    /// Running programs and their tracepoints; with a session, its user-space part.
    #[arg(short, long)]
    userspace: bool,
    /// Kernel instrumentation points (not there yet).
    #[arg(short, long)]
    kernel: bool,
    /// With the fields of tracepoints.
    #[arg(short, long)]
    fields: bool,
    /// One channel of the session.
    #[arg(short, long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// The session's domains.
    #[arg(short, long)]
    domain: bool,
    /// Name of a session.
    session: Option<String>,
}

pub fn list(context: &Context, arguments: &Arguments) -> Outcome {
    let client = context.client();
    let listed = match arguments.session.as_deref() {
        None if arguments.kernel => {
            error!("Unable to list kernel events: Kernel tracer not available");
            return ERROR;
        }
        None if arguments.userspace => {
            let what = if arguments.fields { "event fields" } else { "events" };
            let programs = client.and_then(|mut client| client.programs());
            match programs {
                Ok(programs) => print_programs(&programs, arguments.fields),
                Err(error) => {
                    error!("Unable to list UST {what}: {error}");
                    return ERROR;
                }
            }
            Ok(FINE)
        }
        None => client.and_then(|mut client| client.sessions()).map(|sessions| {
            print_sessions(&sessions);
            FINE
        }),
        Some(session) => describe(client, session, arguments),
    };
    listed.unwrap_or_else(|error| {
        error!("{error}");
        ERROR
    })
}

pub fn status(context: &Context) -> Outcome {
    let Some(session) = context.session(None) else { return ERROR };
    let arguments = Arguments {
        userspace: false,
        kernel: false,
        fields: false,
        channel: None,
        domain: false,
        session: None,
    };
    describe(context.client(), &session, &arguments).unwrap_or_else(|error| {
        error!("{error}");
        ERROR
    })
}

fn print_sessions(sessions: &[SessionInfo]) {
    if sessions.is_empty() {
        println!("Currently no available recording session");
        return;
    }
    println!("Available recording sessions:");
    for (number, session) in sessions.iter().enumerate() {
        println!("  {}) {} [{}]", number + 1, session.name, activity(session));
        println!("    Trace output: {}\n", session.output);
    }
    println!("\nUse lttng list <session_name> for more details");
}

fn activity(session: &SessionInfo) -> &'static str {
    if session.active { "active" } else { "inactive" }
}

fn describe(
    client: Result<sillage_control::Client, ControlError>,
    session: &str,
    arguments: &Arguments,
) -> Result<Outcome, ControlError> {
    let mut client = client?;
    if !client.sessions()?.iter().any(|info| info.name == session) {
        error!("Session '{session}' not found");
        return Ok(ERROR);
    }
    let (info, channels) = client.describe(session)?;
    println!("Recording session {}: [{}]", info.name, activity(&info));
    println!("    Trace output: {}\n", info.output);
    if arguments.domain {
        println!("Domains:\n-------------\n  - UST global");
        return Ok(FINE);
    }
    if channels.is_empty() {
        return Ok(FINE);
    }
    if !arguments.userspace {
        println!("=== Domain: User space ===\n\nBuffering scheme: per-user\n");
    }
    println!(
        "Tracked process attributes\n  Virtual process IDs:  all\n  Virtual user IDs:     all\n  \
         Virtual group IDs:    all\n\nChannels:\n-------------"
    );
    let wanted = |channel: &&ChannelDescription| {
        arguments.channel.as_ref().is_none_or(|name| *name == channel.info.name)
    };
    let mut found = false;
    for channel in channels.iter().filter(wanted) {
        print_channel(channel);
        found = true;
    }
    if !found {
        error!("Channel {} not found", arguments.channel.as_deref().unwrap_or_default());
        return Ok(ERROR);
    }
    Ok(FINE)
}

fn print_channel(channel: &ChannelDescription) {
    let (info, settings) = (&channel.info, &channel.info.settings);
    println!("- {}: [{}]\n\n    Attributes:", info.name, on(info.enabled));
    for (name, value) in attributes(settings) {
        println!("      {name:<18}{value}");
    }
    println!("\n    Statistics:\n      Discarded events: {}", totals::lost(&info.totals));
    println!("      Recorded: {} in {} packets", totals::size(info.totals.bytes), info.totals.packets);
    for loss in totals::losses(&info.totals) {
        println!("      Lost: {loss}");
    }
    println!("\n    Recording event rules:");
    if channel.rules.is_empty() {
        println!("      None");
    }
    for rule in &channel.rules {
        println!("      {}", rule_text(rule));
    }
    println!();
}

fn on(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

fn attributes(s: &ChannelSettings) -> Vec<(&'static str, String)> {
    let timer = |us: u64| if us == 0 { "inactive".into() } else { format!("{us} us") };
    let loss = if s.loss_mode == LossMode::Overwrite { "overwrite" } else { "discard" };
    let blocking = match s.blocking_timeout {
        BlockingTimeout::None => "0 us".into(),
        BlockingTimeout::Us(us) => format!("{us} us"),
        BlockingTimeout::Forever => "infinite".into(),
    };
    let files = s.tracefile_count.max(1);
    let file =
        if s.tracefile_bytes == 0 { "unlimited".into() } else { format!("{} bytes", s.tracefile_bytes) };
    let mut out = vec![
        ("Event-loss mode:", loss.into()),
        ("Sub-buffer size:", format!("{} bytes", s.subbuf_bytes)),
        ("Sub-buffer count:", s.subbuf_count.to_string()),
        ("Switch timer:", timer(s.switch_timer_us)),
        ("Read timer:", timer(s.read_timer_us)),
        ("Monitor timer:", "1000000 us".into()),
        ("Blocking timeout:", blocking),
        ("Trace file count:", format!("{files} per stream")),
        ("Trace file size:", file),
        ("Output mode:", "mmap".into()),
    ];
    if s.ordered_clock {
        out.push(("Clock:", "ordered".into()));
    }
    out
}

fn rule_text(rule: &EventRule) -> String {
    let level = match rule.loglevel {
        LogLevelRule::Any => String::new(),
        LogLevelRule::AtLeast(level) => format!(" (loglevel <= {})", level_text(level)),
        LogLevelRule::Only(level) => format!(" (loglevel == {})", level_text(level)),
    };
    let exclusions: Vec<&str> = rule.exclusions.iter().map(|pattern| pattern.as_str()).collect();
    let exclusions = match exclusions.is_empty() {
        true => String::new(),
        false => format!(" [exclusions: {}]", exclusions.join(", ")),
    };
    format!("{}{level} (type: tracepoint) [{}]{exclusions}", rule.pattern, on(rule.enabled))
}

fn level_text(level: LogLevel) -> String {
    format!("TRACE_{} ({})", level.name(), level.number())
}

fn print_programs(programs: &[ProgramDescription], fields: bool) {
    println!("UST events:\n-------------");
    if programs.is_empty() {
        println!("None");
    }
    for program in programs {
        println!("\nPID: {} - Name: {}", program.info.pid, command_of(program));
        for trouble in &program.info.troubles {
            println!("      Not recorded: {trouble}");
        }
        for tracepoint in &program.tracepoints {
            let level = level_text(tracepoint.loglevel);
            println!("      {} (loglevel: {level}) (type: tracepoint)", tracepoint.name);
            for field in tracepoint.fields.iter().filter(|_| fields) {
                println!("        field: {} ({})", field.name, type_text(&field.field_type));
            }
        }
    }
    println!();
}

/// The program as it was called, as far as we may see that; else the name of the process.
fn command_of(program: &ProgramDescription) -> String {
    let line = std::fs::read(format!("/proc/{}/cmdline", program.info.pid)).unwrap_or_default();
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    match first {
        [] => program.info.procname.clone(),
        first => String::from_utf8_lossy(first).into_owned(),
    }
}

fn type_text(field: &FieldType) -> &'static str {
    match field {
        FieldType::Integer(_) => "integer",
        FieldType::Float(_) => "float",
        FieldType::String(_) => "string",
        FieldType::Enum { .. } => "enum",
        FieldType::Array { encoding, .. } | FieldType::Sequence { encoding, .. } => match encoding {
            Encoding::None => "unknown",
            _ => "string",
        },
    }
}
