//! Between the command line and the session daemon.
//!
//! A client sends one [`Request`] frame; the daemon answers with any number of [`Reply`] items and
//! then [`Reply::Done`] or [`Reply::Failed`]. The client's uid, gid and pid come from the socket.
//! Lists are streams of small frames, so that no message grows with the number of programs.
//!
//! Errors carry LTTng's number and text ([`ErrorCode`]): scripts compare them. This side knows no
//! clock and no zone, so dates come from the client, in its local time.

mod values;

pub use values::{
    get_attribute, get_counts, get_domain, get_rule, get_settings, get_tracked, put_attribute, put_counts,
    put_domain, put_rule, put_settings, put_tracked,
};

use crate::codec::{DecodeError, Reader, Writer};
use crate::program::{get_tracepoint, put_tracepoint};
use alloc::{boxed::Box, string::String, vec::Vec};
use sillage_model::limits::{CHANNELS_MAX, CONTEXTS_MAX, FIELDS_MAX, NAME_BYTES_MAX, RULES_MAX, TRACKED_MAX};
use sillage_model::{ChannelSettings, Domain, EventRule, ProcessAttribute, Tracepoint, Tracked};
use values::{cut, get_totals, put_totals};

/// Version of this protocol; the first two bytes of every request.
pub const VERSION: u16 = 4;
/// What is unknown in a request of another version, in the words of its decode error.
pub const VERSION_WORD: &str = "control protocol version";
/// Bytes of a path in a message.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of a filter expression.
pub const FILTER_BYTES_MAX: usize = 65_536;
/// Reasons that a status names.
const REASONS_MAX: usize = 64;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a request failed: LTTng's numbers, which its command line also exits with, and texts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode { $($(#[$doc])* $name = $number,)* }

        impl ErrorCode {
            /// The code with this number.
            pub fn from_number(number: u32) -> Option<ErrorCode> {
                match number { $($number => Some(ErrorCode::$name),)* _ => None }
            }
            /// LTTng's words for it.
            pub fn text(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }
        }
    };
}

error_codes! {
    /// Anything else.
    Unknown = 11, "Unknown error";
    /// The daemon does not know the request.
    Undefined = 12, "Undefined command";
    /// The trace directory cannot be made.
    CreateDirectory = 17, "Create directory failed";
    /// Nobody listens.
    NoDaemon = 19, "No session daemon is available";
    /// No session of that name.
    NoSession = 23, "Session name not found";
    /// The name is taken.
    SessionExists = 28, "Session name already exists";
    /// A limit of the daemon.
    Limit = 26, "Not enough memory";
    /// Not in this domain.
    NotSupported = 15, "Operation not supported";
    /// Kernel: no rule of that name.
    KernelNoEvent = 29, "Event not found";
    /// Kernel: it cannot be traced; the detail says why.
    KernelNotAvailable = 33, "Kernel tracer not available";
    /// Kernel: the rule exists and is enabled.
    KernelEventExists = 35, "Kernel event already exists";
    /// Kernel: the channel exists and is enabled.
    KernelChannelExists = 37, "Kernel channel already exists";
    /// Kernel: no channel of that name.
    KernelNoChannel = 39, "Kernel channel not found";
    /// Kernel: the context cannot be had.
    KernelContext = 42, "Add kernel context failed";
    /// Kernel: the rule cannot be recorded.
    KernelEnable = 43, "Enable kernel event failed";
    /// Kernel: the rings cannot be had.
    KernelStart = 46, "Starting kernel trace failed";
    /// A filter that says nothing.
    FilterInvalid = 106, "Invalid filter bytecode";
    /// The rule exists and is enabled.
    EventEnabled = 55, "UST event already enabled";
    /// The channel exists and is enabled.
    ChannelExists = 58, "UST channel already exist";
    /// No channel of that name.
    NoChannel = 59, "UST channel not found";
    /// A value that makes no sense.
    Invalid = 60, "Invalid parameter";
    /// Start without a channel.
    NoChannelInSession = 72, "No channel found in the session";
    /// No rule of that name.
    NoEvent = 76, "UST event not found";
    /// Not allowed to this user.
    Permission = 77, "Permission denied";
    /// Second start.
    AlreadyStarted = 80, "Tracing already started";
    /// Second stop.
    AlreadyStopped = 81, "Tracing already stopped";
    /// Several channels, none named.
    NeedChannel = 83, "Non-default channel exists within session: channel name needs to be specified with '-c name'";
    /// Channels cannot join a session that ran.
    StartedOnce = 93, "Tracing has already been started once";
    /// A name that no event can have.
    EventName = 112, "Invalid event name";
    /// The value is in the inclusion set.
    AttributeExists = 114, "Process attribute is already tracked";
    /// The value is not in the inclusion set.
    AttributeMissing = 115, "Process attribute was not tracked";
    /// No such user.
    NoUser = 160, "User not found";
    /// No such group.
    NoGroup = 161, "Group not found";
    /// A probed file is no program that makes sense.
    ProbeFile = 139, "ELF parsing error";
    /// The place of a probe in a program makes no sense.
    ProbePlace = 138, "Invalid userspace probe location";
    /// No exclusions without a glob.
    ExclusionInvalid = 110, "Invalid event exclusion data";
}

/// Why a request failed, with details for people (may be empty).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which of LTTng's errors.
    pub code: ErrorCode,
    /// What exactly, when the code's text says too little.
    pub detail: String,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who are you? Answer: `Daemon`.
    Ping,
    /// Makes a session. Answer: `Session`.
    Create {
        /// Its name.
        session: String,
        /// Absolute directory of its trace.
        output: String,
        /// Local time of creation, `20261121T063059+0000`.
        created: String,
        /// Record only programs that register with this token; 0: all.
        record: u64,
    },
    /// All sessions of the client (root: of everybody). Answer: `Session` for each.
    ListSessions,
    /// One session. Answer: `Session`, its `Inclusion` sets, then for each channel `Channel` and its `Rule`s.
    Describe {
        /// Its name.
        session: String,
    },
    /// Registered programs. Answer: for each `Program`, then its `Tracepoint`s.
    ListPrograms,
    /// Makes or enables a channel. Answer: `Done`.
    EnableChannel {
        /// Session.
        session: String,
        /// Domain.
        domain: Domain,
        /// Channel.
        channel: String,
        /// Its settings, already normalised (ignored when it exists).
        settings: ChannelSettings,
    },
    /// Disables a channel.
    DisableChannel {
        /// Session.
        session: String,
        /// Domain.
        domain: Domain,
        /// Channel.
        channel: String,
    },
    /// Makes or enables a rule. Answer: `ChannelName`, the channel that took it.
    EnableEvent {
        /// Session.
        session: String,
        /// Domain.
        domain: Domain,
        /// Channel; None: the only one, or a new `channel0`.
        channel: Option<String>,
        /// The rule.
        rule: EventRule,
    },
    /// Disables rules by their pattern's text. Answer: `ChannelName`.
    DisableEvent {
        /// Session.
        session: String,
        /// Domain.
        domain: Domain,
        /// Channel; None: `channel0`.
        channel: Option<String>,
        /// The pattern; None: all rules.
        pattern: Option<String>,
    },
    /// Starts recording.
    Start {
        /// Session.
        session: String,
    },
    /// Stops recording; answered when everything is on disk. Answer: `Summary`.
    Stop {
        /// Session.
        session: String,
    },
    /// Stops if need be and forgets the session. Answer: `Summary`.
    Destroy {
        /// Session.
        session: String,
    },
    /// What was recorded so far. Answer: `Summary`.
    Summary {
        /// Session.
        session: String,
    },
    /// Events that the kernel has. Answer: `Event` for each.
    ListEvents {
        /// Which.
        instrumentation: ListedEvents,
    },
    /// What the kernel tracer has and lacks. Answer: `Kernel`.
    KernelStatus,
    /// Puts a context field into the records of channels.
    AddContext {
        /// Session.
        session: String,
        /// Domain.
        domain: Domain,
        /// Channel; None: all of the domain.
        channel: Option<String>,
        /// LTTng's name of the field.
        context: String,
    },
    /// Changes an inclusion set.
    Track {
        /// Session.
        session: String,
        /// Domain.
        domain: Domain,
        /// Of what.
        attribute: ProcessAttribute,
        /// Which value; None: all.
        value: Option<Tracked>,
        /// Into the set, or out of it.
        include: bool,
    },
}

/// Which of the kernel's events are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedEvents {
    /// Tracepoints.
    Tracepoints,
    /// System calls.
    Syscalls,
    /// Context fields, which every record can have.
    Contexts,
}

/// One event that the kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventInfo {
    /// LTTng's name of it.
    pub name: String,
    /// Its fields, and what they are: `integer`, `string` and so on.
    pub fields: Vec<(String, String)>,
}

/// The kernel tracer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelInfo {
    /// How it records, in words; empty: not at all.
    pub back_end: String,
    /// What it lacks and what would mend that, one reason each.
    pub lacks: Vec<String>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Name.
    pub name: String,
    /// Directory of its trace.
    pub output: String,
    /// Owner.
    pub uid: u32,
    /// Recording now.
    pub active: bool,
}

/// What happened to a channel's records so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelTotals {
    /// Channel name.
    pub channel: String,
    /// Packets written.
    pub packets: u64,
    /// Bytes of event records written, event headers included.
    pub bytes: u64,
    /// Records lost by their producers, in the order of the ring's reasons.
    pub lost: [u64; 8],
    /// Sub-buffers overwritten before they were read (overwrite mode).
    pub overwritten: u64,
    /// Packets that could not be written (disk full and the like).
    pub dropped_packets: u64,
    /// Bytes of event records in them.
    pub dropped_bytes: u64,
    /// Event records in them, but for those of `uncounted_packets`.
    pub dropped_records: u64,
    /// Packets that could not be written and whose records could not be counted.
    pub uncounted_packets: u64,
    /// Event classes that do not fit any more, or that wait for the metadata to be writable.
    pub refused_classes: u64,
    /// Records that the kernel lost outside of rings: on CPUs without one, and of programs that it did not run.
    pub kernel_lost: u64,
    /// Rings that were retired, each with its reason; and the last write error.
    pub troubles: Vec<String>,
}

/// What a session recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// By channel.
    pub channels: Vec<ChannelTotals>,
    /// Programs that did not confirm within the time limit that they stopped: name and pid.
    pub unanswered: Vec<String>,
    /// Programs that record into the session now.
    pub programs: u32,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Name.
    pub name: String,
    /// Domain.
    pub domain: Domain,
    /// Enabled.
    pub enabled: bool,
    /// Context fields of its records.
    pub contexts: Vec<String>,
    /// Settings.
    pub settings: ChannelSettings,
    /// What it recorded.
    pub totals: ChannelTotals,
}

/// An inclusion set that has not everything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionSet {
    /// Domain.
    pub domain: Domain,
    /// Of what.
    pub attribute: ProcessAttribute,
    /// The values, sorted.
    pub values: Vec<Tracked>,
}

/// One registered program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Process id, as the daemon sees it.
    pub pid: u32,
    /// Owner.
    pub uid: u32,
    /// Name of the process.
    pub procname: String,
    /// Version of its tracer library.
    pub tracer_version: String,
    /// Why it cannot record into some of its channels.
    pub troubles: Vec<String>,
}

/// The daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonInfo {
    /// Version of the program.
    pub version: String,
    /// Process id of the keeper.
    pub keeper_pid: u32,
    /// Process id of the worker.
    pub worker_pid: u32,
    /// Times that the worker was started again.
    pub restarts: u32,
    /// Programs that were refused or thrown out for what they sent.
    pub refused_programs: u64,
    /// Why the last of them was.
    pub last_refusal: String,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The request is done.
    Done,
    /// It failed; nothing follows.
    Failed(Failure),
    /// The daemon.
    Daemon(DaemonInfo),
    /// A session.
    Session(SessionInfo),
    /// A channel of the session before.
    Channel(Box<ChannelInfo>),
    /// A rule of the channel before.
    Rule(EventRule),
    /// A program.
    Program(ProgramInfo),
    /// A tracepoint of the program before.
    Tracepoint(Tracepoint),
    /// The channel that the request applied to.
    ChannelName(String),
    /// What was recorded.
    Summary(Summary),
    /// An event of the kernel.
    Event(EventInfo),
    /// The kernel tracer.
    Kernel(KernelInfo),
    /// Whom the session before follows.
    Inclusion(InclusionSet),
}

impl Request {
    /// The request as one frame.
    pub fn encode(&self) -> Vec<u8> {
        let begin = |kind| {
            let mut w = Writer::frame(kind, 0);
            w.u16(VERSION);
            w
        };
        let one = |kind, session: &str| {
            let mut w = begin(kind);
            w.str(session);
            w
        };
        let in_domain = |kind, session: &str, domain| {
            let mut w = one(kind, session);
            put_domain(&mut w, domain);
            w
        };
        match self {
            Request::Ping => begin(1),
            Request::Create { session, output, created, record } => {
                let mut w = one(2, session);
                w.str(output);
                w.str(created);
                w.u64(*record);
                w
            }
            Request::ListSessions => begin(3),
            Request::Describe { session } => one(4, session),
            Request::ListPrograms => begin(5),
            Request::EnableChannel { session, domain, channel, settings } => {
                let mut w = in_domain(6, session, *domain);
                w.str(channel);
                put_settings(&mut w, settings);
                w
            }
            Request::DisableChannel { session, domain, channel } => {
                let mut w = in_domain(7, session, *domain);
                w.str(channel);
                w
            }
            Request::EnableEvent { session, domain, channel, rule } => {
                let mut w = in_domain(8, session, *domain);
                w.option(channel.as_deref(), |w, c| w.str(c));
                put_rule(&mut w, rule);
                w
            }
            Request::DisableEvent { session, domain, channel, pattern } => {
                let mut w = in_domain(9, session, *domain);
                w.option(channel.as_deref(), |w, c| w.str(c));
                w.option(pattern.as_deref(), |w, p| w.str(p));
                w
            }
            Request::Start { session } => one(10, session),
            Request::Stop { session } => one(11, session),
            Request::Destroy { session } => one(12, session),
            Request::Summary { session } => one(13, session),
            Request::ListEvents { instrumentation } => {
                let mut w = begin(14);
                w.u8(match instrumentation {
                    ListedEvents::Tracepoints => 0,
                    ListedEvents::Syscalls => 1,
                    ListedEvents::Contexts => 2,
                });
                w
            }
            Request::KernelStatus => begin(15),
            Request::AddContext { session, domain, channel, context } => {
                let mut w = in_domain(16, session, *domain);
                w.option(channel.as_deref(), |w, c| w.str(c));
                w.str(context);
                w
            }
            Request::Track { session, domain, attribute, value, include } => {
                let mut w = in_domain(17, session, *domain);
                put_attribute(&mut w, *attribute);
                w.option(value.as_ref(), put_tracked);
                w.bool(*include);
                w
            }
        }
        .finish()
    }

    /// The request in the body of a frame of this kind.
    pub fn decode(kind: u16, body: &[u8]) -> Result<Request, DecodeError> {
        let r = &mut Reader::new(body);
        match r.u16()? {
            VERSION => {}
            other => return r.unknown(VERSION_WORD, other),
        }
        let name = |r: &mut Reader<'_>| r.string(NAME_BYTES_MAX);
        let request = match kind {
            1 => Request::Ping,
            2 => Request::Create {
                session: name(r)?,
                output: r.string(PATH_BYTES_MAX)?,
                created: name(r)?,
                record: r.u64()?,
            },
            3 => Request::ListSessions,
            4 => Request::Describe { session: name(r)? },
            5 => Request::ListPrograms,
            6 => Request::EnableChannel {
                session: name(r)?,
                domain: get_domain(r)?,
                channel: name(r)?,
                settings: get_settings(r)?,
            },
            7 => Request::DisableChannel { session: name(r)?, domain: get_domain(r)?, channel: name(r)? },
            8 => Request::EnableEvent {
                session: name(r)?,
                domain: get_domain(r)?,
                channel: r.option(name)?,
                rule: get_rule(r)?,
            },
            9 => Request::DisableEvent {
                session: name(r)?,
                domain: get_domain(r)?,
                channel: r.option(name)?,
                pattern: r.option(|r| r.string(2 * NAME_BYTES_MAX + 1))?,
            },
            10 => Request::Start { session: name(r)? },
            11 => Request::Stop { session: name(r)? },
            12 => Request::Destroy { session: name(r)? },
            13 => Request::Summary { session: name(r)? },
            14 => Request::ListEvents {
                instrumentation: match r.u8()? {
                    0 => ListedEvents::Tracepoints,
                    1 => ListedEvents::Syscalls,
                    2 => ListedEvents::Contexts,
                    n => return r.unknown("list", n),
                },
            },
            15 => Request::KernelStatus,
            16 => Request::AddContext {
                session: name(r)?,
                domain: get_domain(r)?,
                channel: r.option(name)?,
                context: name(r)?,
            },
            17 => Request::Track {
                session: name(r)?,
                domain: get_domain(r)?,
                attribute: get_attribute(r)?,
                value: r.option(get_tracked)?,
                include: r.bool()?,
            },
            n => return r.unknown("request", n),
        };
        r.end()?;
        Ok(request)
    }
}

impl Reply {
    /// True if nothing follows this reply.
    pub fn is_last(&self) -> bool {
        matches!(self, Reply::Done | Reply::Failed(_))
    }

    /// The reply as one frame.
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self {
            Reply::Done => 1,
            Reply::Failed(_) => 2,
            Reply::Daemon(_) => 3,
            Reply::Session(_) => 4,
            Reply::Channel(_) => 5,
            Reply::Rule(_) => 6,
            Reply::Program(_) => 7,
            Reply::Tracepoint(_) => 8,
            Reply::ChannelName(_) => 9,
            Reply::Summary(_) => 10,
            Reply::Event(_) => 11,
            Reply::Kernel(_) => 12,
            Reply::Inclusion(_) => 13,
        };
        let mut w = Writer::frame(kind, 0);
        match self {
            Reply::Done => {}
            Reply::Failed(f) => {
                w.u32(f.code as u32);
                w.str(cut(&f.detail));
            }
            Reply::Daemon(d) => {
                w.str(cut(&d.version));
                w.u32(d.keeper_pid);
                w.u32(d.worker_pid);
                w.u32(d.restarts);
                w.u64(d.refused_programs);
                w.str(cut(&d.last_refusal));
            }
            Reply::Session(s) => {
                w.str(&s.name);
                w.str(&s.output);
                w.u32(s.uid);
                w.bool(s.active);
            }
            Reply::Channel(c) => {
                w.str(&c.name);
                put_domain(&mut w, c.domain);
                w.bool(c.enabled);
                w.list(&c.contexts, |w, name| w.str(name));
                put_settings(&mut w, &c.settings);
                put_totals(&mut w, &c.totals);
            }
            Reply::Rule(rule) => put_rule(&mut w, rule),
            Reply::Program(p) => {
                w.u32(p.pid);
                w.u32(p.uid);
                w.str(&p.procname);
                w.str(&p.tracer_version);
                w.list(&p.troubles, |w, text| w.str(text));
            }
            Reply::Tracepoint(t) => put_tracepoint(&mut w, t),
            Reply::ChannelName(c) => w.str(c),
            Reply::Summary(s) => {
                w.list(&s.channels, put_totals);
                w.list(&s.unanswered, |w, p| w.str(cut(p)));
                w.u32(s.programs);
            }
            Reply::Event(e) => {
                w.str(&e.name);
                w.list(&e.fields, |w, (name, kind)| {
                    w.str(cut(name));
                    w.str(cut(kind));
                });
            }
            Reply::Kernel(k) => {
                w.str(cut(&k.back_end));
                w.list(&k.lacks, |w, reason| w.str(reason));
            }
            Reply::Inclusion(set) => {
                put_domain(&mut w, set.domain);
                put_attribute(&mut w, set.attribute);
                w.list(&set.values, put_tracked);
            }
        }
        w.finish()
    }

    /// The reply in the body of a frame of this kind.
    pub fn decode(kind: u16, body: &[u8]) -> Result<Reply, DecodeError> {
        let r = &mut Reader::new(body);
        let name = |r: &mut Reader<'_>| r.string(NAME_BYTES_MAX);
        let reply = match kind {
            1 => Reply::Done,
            2 => Reply::Failed(Failure {
                code: ErrorCode::from_number(r.u32()?).unwrap_or(ErrorCode::Unknown),
                detail: name(r)?,
            }),
            3 => Reply::Daemon(DaemonInfo {
                version: name(r)?,
                keeper_pid: r.u32()?,
                worker_pid: r.u32()?,
                restarts: r.u32()?,
                refused_programs: r.u64()?,
                last_refusal: name(r)?,
            }),
            4 => Reply::Session(SessionInfo {
                name: name(r)?,
                output: r.string(PATH_BYTES_MAX)?,
                uid: r.u32()?,
                active: r.bool()?,
            }),
            5 => Reply::Channel(Box::new(ChannelInfo {
                name: name(r)?,
                domain: get_domain(r)?,
                enabled: r.bool()?,
                contexts: r.list(CONTEXTS_MAX, name)?,
                settings: get_settings(r)?,
                totals: get_totals(r)?,
            })),
            6 => Reply::Rule(get_rule(r)?),
            7 => Reply::Program(ProgramInfo {
                pid: r.u32()?,
                uid: r.u32()?,
                procname: name(r)?,
                tracer_version: name(r)?,
                troubles: r.list(CHANNELS_MAX, |r| r.string(PATH_BYTES_MAX))?,
            }),
            8 => Reply::Tracepoint(get_tracepoint(r)?),
            9 => Reply::ChannelName(name(r)?),
            10 => Reply::Summary(Summary {
                channels: r.list(RULES_MAX, get_totals)?,
                unanswered: r.list(RULES_MAX, name)?,
                programs: r.u32()?,
            }),
            11 => Reply::Event(EventInfo {
                name: name(r)?,
                fields: r.list(FIELDS_MAX, |r| Ok((name(r)?, name(r)?)))?,
            }),
            12 => Reply::Kernel(KernelInfo {
                back_end: name(r)?,
                lacks: r.list(REASONS_MAX, |r| r.string(PATH_BYTES_MAX))?,
            }),
            13 => Reply::Inclusion(InclusionSet {
                domain: get_domain(r)?,
                attribute: get_attribute(r)?,
                values: r.list(TRACKED_MAX, get_tracked)?,
            }),
            n => return r.unknown("reply", n),
        };
        r.end()?;
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::values::cut;
    use super::*;
    use crate::codec::{FRAME_HEADER_BYTES, FrameHeader};
    use alloc::vec;
    use sillage_model::{BlockingTimeout, Instrumentation, LogLevel, LogLevelRule, Pattern};

    fn kind(frame: &[u8]) -> u16 {
        FrameHeader::decode(frame[..FRAME_HEADER_BYTES].try_into().unwrap()).unwrap().kind
    }

    fn rule() -> EventRule {
        EventRule {
            instrumentation: Instrumentation::Function("f".into()),
            pattern: Pattern::new("a:*"),
            exclusions: vec![Pattern::new("a:x")],
            loglevel: LogLevelRule::Only(LogLevel::DEBUG),
            filter: Some("x == 1".into()),
            enabled: true,
        }
    }

    #[test]
    fn requests_survive_the_wire_and_cut_ones_are_refused() {
        let session = String::from("s");
        let requests = [
            Request::Ping,
            Request::Create { session: session.clone(), output: "/t".into(), created: "c".into(), record: 7 },
            Request::ListSessions,
            Request::Describe { session: session.clone() },
            Request::ListPrograms,
            Request::EnableChannel {
                session: session.clone(),
                domain: Domain::Kernel,
                channel: "c".into(),
                settings: ChannelSettings {
                    blocking_timeout: BlockingTimeout::Forever,
                    ..Default::default()
                },
            },
            Request::DisableChannel { session: session.clone(), domain: Domain::User, channel: "c".into() },
            Request::EnableEvent {
                session: session.clone(),
                domain: Domain::Kernel,
                channel: Some("c".into()),
                rule: rule(),
            },
            Request::DisableEvent {
                session: session.clone(),
                domain: Domain::Kernel,
                channel: None,
                pattern: Some("x".into()),
            },
            Request::Start { session: session.clone() },
            Request::Stop { session: session.clone() },
            Request::Destroy { session: session.clone() },
            Request::Summary { session: session.clone() },
            Request::ListEvents { instrumentation: ListedEvents::Contexts },
            Request::KernelStatus,
            Request::AddContext {
                session: session.clone(),
                domain: Domain::Kernel,
                channel: Some("c".into()),
                context: "pid".into(),
            },
            Request::Track {
                session,
                domain: Domain::Kernel,
                attribute: ProcessAttribute::Vuid,
                value: Some(Tracked::Name("root".into())),
                include: true,
            },
        ];
        for request in requests {
            let frame = request.encode();
            let body = &frame[FRAME_HEADER_BYTES..];
            assert_eq!(Request::decode(kind(&frame), body), Ok(request));
            for end in 0..body.len() {
                assert!(Request::decode(kind(&frame), &body[..end]).is_err());
            }
        }
    }

    #[test]
    fn replies_survive_the_wire() {
        let totals = ChannelTotals {
            channel: "c".into(),
            lost: [3; 8],
            troubles: vec!["x".into()],
            ..Default::default()
        };
        let replies = [
            Reply::Done,
            Reply::Failed(Failure { code: ErrorCode::NoSession, detail: "s".into() }),
            Reply::Daemon(DaemonInfo {
                version: "1".into(),
                keeper_pid: 1,
                worker_pid: 2,
                restarts: 3,
                refused_programs: 4,
                last_refusal: "x".into(),
            }),
            Reply::Session(SessionInfo { name: "s".into(), output: "/o".into(), uid: 1, active: true }),
            Reply::Channel(Box::new(ChannelInfo {
                name: "c".into(),
                domain: Domain::Kernel,
                enabled: true,
                contexts: vec!["pid".into()],
                settings: ChannelSettings::default(),
                totals: totals.clone(),
            })),
            Reply::Rule(rule()),
            Reply::Program(ProgramInfo {
                pid: 1,
                uid: 2,
                procname: "p".into(),
                tracer_version: "v".into(),
                troubles: vec!["t".into()],
            }),
            Reply::Event(EventInfo { name: "e".into(), fields: vec![("f".into(), "integer".into())] }),
            Reply::Kernel(KernelInfo { back_end: "b".into(), lacks: vec!["l".into()] }),
            Reply::Inclusion(InclusionSet {
                domain: Domain::Kernel,
                attribute: ProcessAttribute::Cgroup,
                values: vec![Tracked::Id(1 << 40), Tracked::Name("n".into())],
            }),
            Reply::ChannelName("c".into()),
            Reply::Summary(Summary { channels: vec![totals], unanswered: vec!["p".into()], programs: 1 }),
        ];
        for reply in replies {
            let frame = reply.encode();
            assert_eq!(Reply::decode(kind(&frame), &frame[FRAME_HEADER_BYTES..]), Ok(reply));
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let detail = "é".repeat(200);
        assert_eq!(cut(&detail).len(), 254);
    }
}
