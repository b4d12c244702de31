//! Channels: make, enable, disable.

use super::{Context, ERROR, FINE, Outcome, WARNING, error, is, split_list, warning};
use clap::Args;
use sillage_control::ErrorCode;
use sillage_model::size::{parse_bytes, parse_duration_us};
use sillage_model::{BlockingTimeout, ChannelSettings, Domain, LossMode};

/// Smallest sub-buffer that LTTng accepts: a page.
const SUBBUF_BYTES_MIN: u64 = 4096;

/// The domain's options.
#[derive(Args)]
pub struct DomainChoice {
    /// User-space tracing.
    #[arg(short, long)]
    pub userspace: bool,
    /// Kernel tracing.
    #[arg(short, long, conflicts_with = "userspace")]
    pub kernel: bool,
}

/// Settings of a channel, as LTTng writes them; `record` has them as well.
#[derive(Args, Default)]
pub struct Settings {
    /// Size of a sub-buffer (k, M, G), rounded up to a power of two.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub subbuf_size: Option<String>,
    /// Number of sub-buffers, rounded up to a power of two.
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    pub num_subbuf: Option<String>,
    /// When a ring is full, lose the newest events (default).
    #[arg(long, overrides_with = "overwrite")]
    pub discard: bool,
    /// When a ring is full, lose the oldest events.
    #[arg(long)]
    pub overwrite: bool,
    /// How long programs that permit it wait for room: 0, a time in µs, or `inf`.
    #[arg(long, value_name = "TIMEOUT", allow_hyphen_values = true)]
    pub blocking_timeout: Option<String>,
    /// Write out what there is every so many µs.
    #[arg(long, value_name = "PERIOD", allow_hyphen_values = true)]
    pub switch_timer: Option<String>,
    /// Look for full sub-buffers every so many µs.
    #[arg(long, value_name = "PERIOD", allow_hyphen_values = true)]
    pub read_timer: Option<String>,
    /// Largest trace file (k, M, G); 0: no limit.
    #[arg(short = 'C', long, value_name = "SIZE", allow_hyphen_values = true)]
    pub tracefile_size: Option<String>,
    /// Trace files of a stream before the oldest is replaced; 0: no limit.
    #[arg(short = 'W', long, value_name = "COUNT", allow_hyphen_values = true)]
    pub tracefile_count: Option<String>,
    /// Times of events keep the order of causes between threads (about 10 ns more an event).
    #[arg(long)]
    pub ordered: bool,
    /// Memory for all rings of the channel together (k, M, G), instead of the sub-buffers' size and number.
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["subbuf_size", "num_subbuf"])]
    pub memory: Option<String>,
    /// Kernel: record also what the session daemon itself does.
    #[arg(long)]
    pub include_self: bool,
}

/// `enable-channel -k|-u [OPTIONS] NAME[,NAME]...`
#[derive(Args)]
pub struct Enable {
    #[command(flatten)]
    domain: DomainChoice,
    #[command(flatten)]
    settings: Settings,
    /// Buffers of each user (user space; default).
    #[arg(long)]
    buffers_uid: bool,
    /// Buffers of the whole system (kernel; default).
    #[arg(long)]
    buffers_global: bool,
    /// Where trace data go on their way: `mmap`; for the kernel also `splice`, which is the same here.
    #[arg(long, value_name = "TYPE")]
    output: Option<String>,
    /// Name of the session; without one it is the current one.
    #[arg(short, long, value_name = "SESSION")]
    session: Option<String>,
    /// Names of the channels.
    channels: Option<String>,
}

/// `disable-channel -k|-u NAME[,NAME]...`
#[derive(Args)]
pub struct Disable {
    #[command(flatten)]
    domain: DomainChoice,
    /// Name of the session; without one it is the current one.
    #[arg(short, long, value_name = "SESSION")]
    session: Option<String>,
    /// Names of the channels.
    channels: Option<String>,
}

impl Settings {
    /// True if the size of rings was chosen.
    pub fn names_a_size(&self) -> bool {
        self.memory.is_some() || self.subbuf_size.is_some() || self.num_subbuf.is_some()
    }

    /// The settings in numbers; says what is wrong, and what it rounds.
    pub fn parse(&self, domain: Domain) -> Option<ChannelSettings> {
        let mut settings = ChannelSettings {
            ordered_clock: self.ordered,
            include_self: self.include_self,
            ..ChannelSettings::of(domain)
        };
        if let Some(text) = &self.memory {
            settings.memory_bytes = size("--memory", text, 1)?;
        }
        if self.overwrite {
            settings.loss_mode = LossMode::Overwrite;
        }
        if let Some(text) = &self.subbuf_size {
            settings.subbuf_bytes = size("--subbuf-size", text, 1)?;
            let rounded = settings.subbuf_bytes.checked_next_power_of_two().unwrap_or(u64::MAX);
            if rounded != settings.subbuf_bytes {
                let given = settings.subbuf_bytes;
                warning!("The subbuf size ({given}) is rounded to the next power of 2 ({rounded})");
                settings.subbuf_bytes = rounded;
            }
        }
        if let Some(text) = &self.num_subbuf {
            settings.subbuf_count = count("--num-subbuf", text, 1)?;
            let rounded = settings.subbuf_count.checked_next_power_of_two().unwrap_or(u64::MAX);
            if rounded != settings.subbuf_count {
                let given = settings.subbuf_count;
                warning!("The number of subbuffers ({given}) is rounded to the next power of 2 ({rounded})");
                settings.subbuf_count = rounded;
            }
        }
        if let Some(text) = &self.blocking_timeout.as_ref().filter(|_| domain == Domain::User) {
            settings.blocking_timeout = match text.as_str() {
                "inf" => BlockingTimeout::Forever,
                text => match time("--blocking-timeout", text)? {
                    0 => BlockingTimeout::None,
                    us => BlockingTimeout::Us(us),
                },
            };
            if self.overwrite && settings.blocking_timeout != BlockingTimeout::None {
                error!(
                    "You cannot specify --overwrite and --blocking-timeout=N, where N is different than 0"
                );
                return None;
            }
        }
        if let Some(text) = &self.switch_timer {
            settings.switch_timer_us = time("--switch-timer", text)?;
        }
        if let Some(text) = &self.read_timer {
            settings.read_timer_us = time("--read-timer", text)?;
        }
        if let Some(text) = &self.tracefile_size {
            settings.tracefile_bytes = size("--tracefile-size", text, 0)?;
        }
        if let Some(text) = &self.tracefile_count {
            settings.tracefile_count = count("--tracefile-count", text, 0)?;
        }
        if settings.tracefile_count > 0 && settings.tracefile_bytes == 0 {
            error!("Missing option --tracefile-size. A file count without a size won't do anything.");
            return None;
        }
        let (file, subbuf) = (settings.tracefile_bytes, settings.subbuf_bytes);
        if file > 0 && file < subbuf {
            warning!("Tracefile size rounded up from ({file}) to subbuffer size ({subbuf})");
            settings.tracefile_bytes = subbuf;
        }
        Some(settings)
    }
}

fn size(option: &str, text: &str, least: u64) -> Option<u64> {
    checked(parse_bytes(text).ok().filter(|n| *n >= least), option, text)
}

fn count(option: &str, text: &str, least: u64) -> Option<u64> {
    checked(text.parse().ok().filter(|n| *n >= least), option, text)
}

fn checked(value: Option<u64>, option: &str, text: &str) -> Option<u64> {
    if value.is_none() {
        error!("Wrong value in {option} parameter: {text}");
    }
    value
}

fn time(option: &str, text: &str) -> Option<u64> {
    let value = parse_duration_us(text).ok();
    if value.is_none() {
        error!("Wrong value for {option} parameter: {text}");
    }
    value
}

impl DomainChoice {
    /// The domain; says that one is missing if none was chosen.
    pub fn get(&self, known: &str) -> Option<Domain> {
        if self.kernel {
            return Some(Domain::Kernel);
        }
        if !self.userspace {
            error!("Please specify a domain ({known}).");
        }
        self.userspace.then_some(Domain::User)
    }
}

pub fn enable(context: &Context, arguments: &Enable) -> Outcome {
    let Some(domain) = arguments.domain.get("--kernel/--userspace") else { return ERROR };
    let names = split_list(arguments.channels.as_deref().unwrap_or_default());
    if names.is_empty() {
        error!("Missing channel name.");
        return ERROR;
    }
    if domain == Domain::Kernel && arguments.settings.blocking_timeout.is_some() {
        error!("Retry timeout option not supported for kernel domain (-k)");
        return ERROR;
    }
    if if domain == Domain::Kernel { arguments.buffers_uid } else { arguments.buffers_global } {
        error!("Buffer type not supported for domain {}", domain.option());
        return ERROR;
    }
    let outputs: &[&str] = if domain == Domain::Kernel { &["mmap", "splice"] } else { &["mmap"] };
    if let Some(other) = arguments.output.as_deref().filter(|output| !outputs.contains(output)) {
        error!("Unknown output type {other}. Possible values are: {}\n", outputs.join(", "));
        return ERROR;
    }
    let Some(settings) = arguments.settings.parse(domain) else { return ERROR };
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    let mut outcome = FINE;
    for name in names {
        if name.starts_with('.') || name.contains('/') {
            error!(
                "Invalid channel name: \"{name}\". Channel names may not start with '.', and may not contain '/'."
            );
            outcome = ERROR;
            continue;
        }
        if settings.subbuf_bytes < SUBBUF_BYTES_MIN {
            error!("Channel {name}: Invalid parameter (session {session})");
            outcome = ERROR;
            continue;
        }
        match context.client().and_then(|mut client| client.enable_channel(&session, domain, &name, settings))
        {
            Ok(()) => {
                context.say(format_args!("{} channel {name} enabled for session {session}", domain.word()))
            }
            Err(error)
                if is(&error, ErrorCode::ChannelExists) || is(&error, ErrorCode::KernelChannelExists) =>
            {
                warning!("Channel {name}: {error} (session {session})");
                outcome = WARNING;
            }
            Err(error) => {
                error!("Channel {name}: {error} (session {session})");
                outcome = ERROR;
            }
        }
    }
    outcome
}

pub fn disable(context: &Context, arguments: &Disable) -> Outcome {
    let Some(domain) = arguments.domain.get("--kernel/--userspace") else { return ERROR };
    let names = split_list(arguments.channels.as_deref().unwrap_or_default());
    if names.is_empty() {
        error!("Missing channel name(s).");
        return ERROR;
    }
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    let mut outcome = FINE;
    for name in names {
        match context.client().and_then(|mut client| client.disable_channel(&session, domain, &name)) {
            Ok(()) => {
                context.say(format_args!("{} channel {name} disabled for session {session}", domain.word()))
            }
            Err(error) => {
                error!("Channel {name}: {error} (session {session})");
                outcome = WARNING;
            }
        }
    }
    outcome
}
