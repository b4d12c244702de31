//! Lists: sessions, one session, programs with their tracepoints; and the status of the current one.

use super::track::quoted;
use super::{Context, ERROR, FINE, Outcome, error, totals};
use clap::Args;
use sillage_control::{
    ChannelDescription, Client, ControlError, EventInfo, InclusionSet, ListedEvents, ProgramDescription,
    SessionDescription, SessionInfo,
};
use sillage_model::{
    BlockingTimeout, ChannelSettings, Domain, Encoding, EventRule, FieldType, Instrumentation, LogLevel,
    LogLevelRule, LossMode, ProcessAttribute,
};

/// `list [SESSION] [-k] [-u] [-f] [--syscall] [-c CHANNEL]`
#[derive(Args)]
pub struct Arguments {
    /// Running programs and their tracepoints; with a session, its user-space part.
    #[arg(short, long)]
    userspace: bool,
    /// Events that the kernel has; with a session, its kernel part.
    #[arg(short, long)]
    kernel: bool,
    /// With `-k`: system calls.
    #[arg(long)]
    syscall: bool,
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
            let (what, which) = match arguments.syscall {
                true => ("system calls", ListedEvents::Syscalls),
                false => ("kernel events", ListedEvents::Tracepoints),
            };
            match client.and_then(|mut client| client.kernel_events(which)) {
                Ok(events) => print_kernel_events(&events, which, arguments.fields),
                Err(error) => {
                    error!("Unable to list {what}: {error}");
                    return ERROR;
                }
            }
            Ok(FINE)
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
        syscall: false,
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
    client: Result<Client, ControlError>,
    session: &str,
    arguments: &Arguments,
) -> Result<Outcome, ControlError> {
    let mut client = client?;
    if !client.sessions()?.iter().any(|info| info.name == session) {
        error!("Session '{session}' not found");
        return Ok(ERROR);
    }
    let SessionDescription { info, inclusions, channels } = client.describe(session)?;
    println!("Recording session {}: [{}]", info.name, activity(&info));
    println!("    Trace output: {}\n", info.output);
    let shown = |domain: &Domain| {
        let chosen = if *domain == Domain::Kernel { arguments.kernel } else { arguments.userspace };
        let there = channels.iter().any(|channel| channel.info.domain == *domain);
        there && (chosen || !(arguments.kernel || arguments.userspace))
    };
    let domains: Vec<Domain> = [Domain::Kernel, Domain::User].into_iter().filter(shown).collect();
    if arguments.domain {
        println!("Domains:\n-------------");
        for domain in domains {
            println!("  - {}", if domain == Domain::Kernel { "Kernel" } else { "UST global" });
        }
        return Ok(FINE);
    }
    let is_wanted = |channel: &ChannelDescription| {
        arguments.channel.as_ref().is_none_or(|name| *name == channel.info.name)
    };
    let mut found = channels.is_empty();
    for domain in domains {
        if !(arguments.kernel || arguments.userspace) {
            println!("{}", heading(domain));
        }
        print_trackers(domain, &inclusions);
        println!("Channels:\n-------------");
        let channels = channels.iter().filter(|channel| channel.info.domain == domain);
        for channel in channels.filter(|channel| is_wanted(channel)) {
            print_channel(channel);
            found = true;
        }
        if domain == Domain::Kernel {
            print_kernel(&mut client);
        }
    }
    if !found {
        error!("Channel {} not found", arguments.channel.as_deref().unwrap_or_default());
        return Ok(ERROR);
    }
    Ok(FINE)
}

fn heading(domain: Domain) -> &'static str {
    match domain {
        Domain::Kernel => "=== Domain: Linux kernel ===\n",
        Domain::User => "=== Domain: User space ===\n\nBuffering scheme: per-user\n",
    }
}

/// Whom a domain follows. What LTTng has no set of is shown where it was used.
fn print_trackers(domain: Domain, inclusions: &[InclusionSet]) {
    use ProcessAttribute::{Cgroup, Gid, Pid, PidNamespace, Uid, Vgid, Vpid, Vuid};
    println!("Tracked process attributes");
    let rows: &[(ProcessAttribute, &str)] = match domain {
        Domain::Kernel => &[
            (Pid, "Process IDs:"),
            (Vpid, "Virtual process IDs:"),
            (Uid, "User IDs:"),
            (Vuid, "Virtual user IDs:"),
            (Gid, "Group IDs:"),
            (Vgid, "Virtual group IDs:"),
            (PidNamespace, "PID namespaces:"),
            (Cgroup, "Control groups:"),
        ],
        Domain::User => {
            &[(Vpid, "Virtual process IDs:"), (Vuid, "Virtual user IDs:"), (Vgid, "Virtual group IDs:")]
        }
    };
    for (attribute, name) in rows {
        let set = inclusions.iter().find(|set| set.domain == domain && set.attribute == *attribute);
        let values = match set {
            None if matches!(attribute, PidNamespace | Cgroup) => continue,
            None => "all".into(),
            Some(set) if set.values.is_empty() => "none".into(),
            Some(set) => set.values.iter().map(quoted).collect::<Vec<_>>().join(", "),
        };
        println!("  {name:<22}{values}");
    }
    println!();
}

/// How the kernel is traced, and what is lacking for more.
fn print_kernel(client: &mut Client) {
    let Ok(kernel) = client.kernel_status() else { return };
    if !kernel.back_end.is_empty() {
        println!("Kernel tracer: {}", kernel.back_end);
    }
    for reason in kernel.lacks {
        println!("  Lacks: {reason}");
    }
}

fn print_channel(channel: &ChannelDescription) {
    let (info, settings) = (&channel.info, &channel.info.settings);
    println!("- {}: [{}]\n\n    Attributes:", info.name, on(info.enabled));
    for (name, value) in attributes(settings) {
        println!("      {name:<18}{value}");
    }
    println!("\n    Statistics:");
    match settings.loss_mode {
        LossMode::Overwrite => println!("      Lost packets:     {}", totals::lost_packets(&info.totals)),
        LossMode::Discard => println!("      Discarded events: {}", totals::lost(&info.totals)),
    }
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
    if !channel.info.contexts.is_empty() {
        println!("\n    Context fields: {}", channel.info.contexts.join(", "));
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
    ];
    if s.loss_mode == LossMode::Discard {
        out.push(("Blocking timeout:", blocking));
    }
    out.extend([
        ("Trace file count:", format!("{files} per stream")),
        ("Trace file size:", file),
        ("Output mode:", "mmap".into()),
    ]);
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
    let kind = match &rule.instrumentation {
        Instrumentation::Tracepoint => "type: tracepoint".into(),
        Instrumentation::Syscall => "type:syscall".into(),
        Instrumentation::Probe(place) => format!("type: probe, {place}"),
        Instrumentation::Function(place) => format!("type: function, {place}"),
        Instrumentation::UserspaceProbe(place) => format!("type: userspace-probe, {place}"),
        Instrumentation::UserspaceFunction(place) => format!("type: userspace-function, {place}"),
    };
    let filter = rule.filter.as_ref().map(|filter| format!(" [filter: '{filter}']")).unwrap_or_default();
    format!("{}{level} ({kind}) [{}]{exclusions}{filter}", rule.pattern, on(rule.enabled))
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

/// LTTng gives every event of the kernel this level in lists.
const KERNEL_LEVEL: &str = "TRACE_EMERG (0)";

fn print_kernel_events(events: &[EventInfo], which: ListedEvents, fields: bool) {
    match which {
        ListedEvents::Tracepoints => println!("Kernel events:\n-------------"),
        ListedEvents::Syscalls => println!("System calls:\n-------------"),
        ListedEvents::Contexts => {}
    }
    for event in events {
        match which {
            ListedEvents::Tracepoints => {
                println!("      {} (loglevel: {KERNEL_LEVEL}) (type: tracepoint)", event.name);
            }
            ListedEvents::Syscalls | ListedEvents::Contexts => println!("      {}", event.name),
        }
        for (name, kind) in event.fields.iter().filter(|_| fields) {
            println!("        field: {name} ({kind})");
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
