//! The client library of the session daemon: one method for each thing that can be asked, over one
//! blocking socket. What the command line can do, a program can do with this.
//!
//! [`Place`] says where daemons are, [`start_daemon`] starts one. Nothing here prints, and nothing
//! decides for its caller: errors carry the daemon's code and words.

mod place;
mod spawn;

pub use place::Place;
pub use sillage_protocol::control::{
    ChannelInfo, ChannelTotals, DaemonInfo, ErrorCode, EventInfo, Failure, InclusionSet, KernelInfo,
    ListedEvents, ProgramInfo, SessionInfo, Summary,
};
pub use spawn::start_daemon;

use sillage_model::{ChannelSettings, Domain, EventRule, ProcessAttribute, Tracepoint, Tracked};
use sillage_protocol::codec::{DecodeError, FRAME_HEADER_BYTES, FrameHeader};
use sillage_protocol::control::{Reply, Request};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use thiserror::Error;

/// Why a request came to nothing.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens there.
    #[error("No session daemon is available")]
    NoDaemon,
    /// The daemon refused.
    #[error("{}{}{}", .0.code.text(), if .0.detail.is_empty() { "" } else { ": " }, .0.detail)]
    Failed(Failure),
    /// The connection broke.
    #[error("connection to the session daemon: {0}")]
    Io(#[from] io::Error),
    /// The daemon said something that is no answer.
    #[error("answer of the session daemon: {0}")]
    Decode(#[from] DecodeError),
    /// The daemon's answer lacks what was asked for.
    #[error("incomplete answer of the session daemon")]
    Incomplete,
    /// A daemon could not be started.
    #[error("cannot start a session daemon: {0}")]
    Start(String),
    /// None was started: one runs already, which may not answer yet, or no more.
    #[error("cannot start a session daemon: {0}")]
    Running(String),
}

impl ControlError {
    /// LTTng's code for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            ControlError::NoDaemon | ControlError::Start(_) | ControlError::Running(_) => ErrorCode::NoDaemon,
            ControlError::Failed(failure) => failure.code,
            _ => ErrorCode::Unknown,
        }
    }
}

/// A channel with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelDescription {
    /// The channel.
    pub info: ChannelInfo,
    /// Its rules.
    pub rules: Vec<EventRule>,
}

/// A session with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDescription {
    /// The session.
    pub info: SessionInfo,
    /// Whom it follows: sets that have not everything in them.
    pub inclusions: Vec<InclusionSet>,
    /// Its channels.
    pub channels: Vec<ChannelDescription>,
}

/// A program with its tracepoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramDescription {
    /// The program.
    pub info: ProgramInfo,
    /// Its tracepoints.
    pub tracepoints: Vec<Tracepoint>,
}

/// A connection to a session daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the daemon whose control socket this is.
    ///
    /// # Errors
    /// [`ControlError::NoDaemon`] if nobody listens there, or we may not.
    pub fn connect(socket: &Path) -> Result<Client, ControlError> {
        UnixStream::connect(socket).map(|stream| Client { stream }).map_err(|_| ControlError::NoDaemon)
    }

    /// Who it is.
    ///
    /// # Errors
    /// See [`ControlError`]; so for all that follow.
    pub fn ping(&mut self) -> Result<DaemonInfo, ControlError> {
        self.one(&Request::Ping, |reply| if let Reply::Daemon(d) = reply { Some(d) } else { None })
    }

    /// Makes a session whose trace goes to `output` (absolute); `created` is the local time,
    /// `20261121T063059+0000`.
    pub fn create(
        &mut self,
        session: &str,
        output: &str,
        created: &str,
    ) -> Result<SessionInfo, ControlError> {
        self.create_for(session, output, created, 0)
    }

    /// As [`Client::create`], for a session that records only programs that were started with this
    /// number in their environment as `SILLAGE_RECORD` (decimal; they and their children pass it on).
    pub fn create_for(
        &mut self,
        session: &str,
        output: &str,
        created: &str,
        record: u64,
    ) -> Result<SessionInfo, ControlError> {
        let (session, output, created) = (session.into(), output.into(), created.into());
        let request = Request::Create { session, output, created, record };
        self.one(&request, |reply| if let Reply::Session(s) = reply { Some(s) } else { None })
    }

    /// All sessions that we may see, newest first.
    pub fn sessions(&mut self) -> Result<Vec<SessionInfo>, ControlError> {
        let replies = self.call(&Request::ListSessions)?.into_iter();
        Ok(replies.filter_map(|reply| if let Reply::Session(s) = reply { Some(s) } else { None }).collect())
    }

    /// One session with its channels.
    pub fn describe(&mut self, session: &str) -> Result<SessionDescription, ControlError> {
        let mut found = None;
        let mut inclusions = Vec::new();
        let mut channels: Vec<ChannelDescription> = Vec::new();
        for reply in self.call(&Request::Describe { session: session.into() })? {
            match reply {
                Reply::Session(info) => found = Some(info),
                Reply::Inclusion(set) => inclusions.push(set),
                Reply::Channel(info) => channels.push(ChannelDescription { info: *info, rules: Vec::new() }),
                Reply::Rule(rule) => {
                    if let Some(channel) = channels.last_mut() {
                        channel.rules.push(rule);
                    }
                }
                _ => {}
            }
        }
        Ok(SessionDescription { info: found.ok_or(ControlError::Incomplete)?, inclusions, channels })
    }

    /// All registered programs that we may see.
    pub fn programs(&mut self) -> Result<Vec<ProgramDescription>, ControlError> {
        let mut programs: Vec<ProgramDescription> = Vec::new();
        for reply in self.call(&Request::ListPrograms)? {
            match reply {
                Reply::Program(info) => programs.push(ProgramDescription { info, tracepoints: Vec::new() }),
                Reply::Tracepoint(tracepoint) => {
                    if let Some(program) = programs.last_mut() {
                        program.tracepoints.push(tracepoint);
                    }
                }
                _ => {}
            }
        }
        Ok(programs)
    }

    /// Makes a channel, or enables it again.
    pub fn enable_channel(
        &mut self,
        session: &str,
        domain: Domain,
        channel: &str,
        settings: ChannelSettings,
    ) -> Result<(), ControlError> {
        let (session, channel) = (session.into(), channel.into());
        self.call(&Request::EnableChannel { session, domain, channel, settings }).map(drop)
    }

    /// Disables a channel.
    pub fn disable_channel(
        &mut self,
        session: &str,
        domain: Domain,
        channel: &str,
    ) -> Result<(), ControlError> {
        let (session, channel) = (session.into(), channel.into());
        self.call(&Request::DisableChannel { session, domain, channel }).map(drop)
    }

    /// The kernel's events of this kind.
    pub fn kernel_events(&mut self, instrumentation: ListedEvents) -> Result<Vec<EventInfo>, ControlError> {
        let replies = self.call(&Request::ListEvents { instrumentation })?.into_iter();
        Ok(replies.filter_map(|reply| if let Reply::Event(e) = reply { Some(e) } else { None }).collect())
    }

    /// What the kernel tracer has and lacks.
    pub fn kernel_status(&mut self) -> Result<KernelInfo, ControlError> {
        self.one(&Request::KernelStatus, |reply| if let Reply::Kernel(k) = reply { Some(k) } else { None })
    }

    /// Puts a context field into the records of a channel, or of all channels of the domain.
    pub fn add_context(
        &mut self,
        session: &str,
        domain: Domain,
        channel: Option<&str>,
        context: &str,
    ) -> Result<(), ControlError> {
        let (session, channel, context) = (session.into(), channel.map(String::from), context.into());
        self.call(&Request::AddContext { session, domain, channel, context }).map(drop)
    }

    /// Takes a value into an inclusion set, or out of it; without one, all values.
    pub fn track(
        &mut self,
        session: &str,
        domain: Domain,
        attribute: ProcessAttribute,
        value: Option<Tracked>,
        include: bool,
    ) -> Result<(), ControlError> {
        self.call(&Request::Track { session: session.into(), domain, attribute, value, include }).map(drop)
    }

    /// Makes a rule, or enables it again; returns the channel that took it. Without a channel it is the
    /// only one, or a new `channel0`.
    pub fn enable_event(
        &mut self,
        session: &str,
        domain: Domain,
        channel: Option<&str>,
        rule: EventRule,
    ) -> Result<String, ControlError> {
        let (session, channel) = (session.into(), channel.map(String::from));
        self.channel_name(&Request::EnableEvent { session, domain, channel, rule })
    }

    /// Disables the rules with this pattern, or all; returns the channel.
    pub fn disable_event(
        &mut self,
        session: &str,
        domain: Domain,
        channel: Option<&str>,
        pattern: Option<&str>,
    ) -> Result<String, ControlError> {
        let (channel, pattern) = (channel.map(String::from), pattern.map(String::from));
        self.channel_name(&Request::DisableEvent { session: session.into(), domain, channel, pattern })
    }

    /// Starts recording. Programs that run have confirmed when this returns.
    pub fn start(&mut self, session: &str) -> Result<(), ControlError> {
        self.call(&Request::Start { session: session.into() }).map(drop)
    }

    /// Stops recording. Everything is on disk when this returns.
    pub fn stop(&mut self, session: &str) -> Result<Summary, ControlError> {
        self.summary_of(&Request::Stop { session: session.into() })
    }

    /// Stops if need be and forgets the session. Everything is on disk when this returns.
    pub fn destroy(&mut self, session: &str) -> Result<Summary, ControlError> {
        self.summary_of(&Request::Destroy { session: session.into() })
    }

    /// What a session recorded so far.
    pub fn summary(&mut self, session: &str) -> Result<Summary, ControlError> {
        self.summary_of(&Request::Summary { session: session.into() })
    }

    fn channel_name(&mut self, request: &Request) -> Result<String, ControlError> {
        self.one(request, |reply| if let Reply::ChannelName(name) = reply { Some(name) } else { None })
    }

    fn summary_of(&mut self, request: &Request) -> Result<Summary, ControlError> {
        self.one(request, |reply| if let Reply::Summary(s) = reply { Some(s) } else { None })
    }

    fn one<T>(&mut self, request: &Request, pick: impl Fn(Reply) -> Option<T>) -> Result<T, ControlError> {
        self.call(request)?.into_iter().find_map(pick).ok_or(ControlError::Incomplete)
    }

    fn call(&mut self, request: &Request) -> Result<Vec<Reply>, ControlError> {
        self.stream.write_all(&request.encode())?;
        let mut replies = Vec::new();
        loop {
            let mut header = [0; FRAME_HEADER_BYTES];
            self.stream.read_exact(&mut header)?;
            let header = FrameHeader::decode(&header)?;
            let mut body = vec![0; header.body_bytes];
            self.stream.read_exact(&mut body)?;
            match Reply::decode(header.kind, &body)? {
                Reply::Failed(failure) => return Err(ControlError::Failed(failure)),
                Reply::Done => return Ok(replies),
                reply => replies.push(reply),
            }
        }
    }
}
