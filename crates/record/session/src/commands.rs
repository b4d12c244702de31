//! The command line's requests: who may ask for what, and LTTng's answers.

use crate::model::{Channel, Recorder, Session};
use crate::net::Attachment;
use crate::recording::Goal;
use crate::worker::{Daemon, Peer};
use sillage_model::limits::{CHANNELS_MAX, CONTEXTS_MAX, NAME_BYTES_MAX, RULES_MAX, SESSIONS_MAX};
use sillage_model::{ChannelSettings, Domain, EventRule, Instrumentation};
use sillage_protocol::codec::DecodeError;
use sillage_protocol::control::{
    ChannelInfo, DaemonInfo, ErrorCode, Failure, InclusionSet, ProgramInfo, Reply, Request, VERSION,
    VERSION_WORD,
};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The channel that `enable-event` makes when there is none.
const DEFAULT_CHANNEL: &str = "channel0";

pub(crate) fn fail<T>(code: ErrorCode) -> Result<T, Failure> {
    Err(Failure { code, detail: String::new() })
}

/// What to say to a client whose request makes no sense.
fn not_understood(error: &DecodeError) -> String {
    match error {
        DecodeError::Unknown { what: VERSION_WORD, number, .. } => {
            let (own, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
            format!(
                "the session daemon that runs is Sillage {own} with version {VERSION} of the control \
                 protocol, and this command has version {number}: one of them is older. Destroy the \
                 daemon's sessions with its own version, or end it with 'kill {pid}' (which writes them \
                 out); the next command starts a new one"
            )
        }
        error => error.to_string(),
    }
}

/// Answer now, or later when others have done their part.
enum Answer {
    Now(Vec<Reply>),
    Later,
}

fn done(reply: Reply) -> Result<Answer, Failure> {
    Ok(Answer::Now(vec![reply, Reply::Done]))
}

impl Daemon {
    /// Takes one request of a client.
    pub(crate) fn request(&mut self, token: u64, kind: u16, body: &[u8]) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        if std::mem::replace(&mut client.busy, true) {
            // A second request before the answer to the first: no client of ours.
            client.connection.closing = true;
            return;
        }
        let peer = client.connection.peer;
        let answer = match Request::decode(kind, body) {
            Ok(request) => self.handle(token, peer, request),
            Err(error) => Err(Failure { code: ErrorCode::Undefined, detail: not_understood(&error) }),
        };
        match answer {
            Ok(Answer::Now(replies)) => self.answer(Some(token), replies),
            Ok(Answer::Later) => {}
            Err(failure) => self.answer(Some(token), vec![Reply::Failed(failure)]),
        }
    }

    /// Sends a client its answer, if it is still there.
    pub(crate) fn answer(&mut self, client: Option<u64>, replies: Vec<Reply>) {
        let Some(token) = client else { return };
        if let Some(client) = self.clients.get_mut(&token) {
            client.busy = false;
        }
        for reply in replies {
            self.send(token, reply.encode(), Attachment::Nothing);
        }
    }

    fn handle(&mut self, token: u64, peer: Peer, request: Request) -> Result<Answer, Failure> {
        match request {
            Request::Ping => done(Reply::Daemon(DaemonInfo {
                version: env!("CARGO_PKG_VERSION").into(),
                keeper_pid: self.keeper_pid(),
                worker_pid: std::process::id(),
                restarts: self.restarts,
                refused_programs: self.numbers.refused_programs,
                last_refusal: self.numbers.last_refusal.clone(),
            })),
            Request::Create { session, output, created, record } => {
                self.create(peer, session, &output, created, record)
            }
            Request::ListSessions => {
                let visible = self.sessions.values().rev().filter(|session| sees(peer, session));
                let sessions = visible.map(|session| Reply::Session(session.info()));
                Ok(Answer::Now(sessions.chain([Reply::Done]).collect()))
            }
            Request::Describe { session } => self.describe(peer, &session),
            Request::ListPrograms => Ok(Answer::Now(self.list_programs(peer))),
            Request::EnableChannel { session, domain, channel, settings } => {
                let id = self.find(peer, &session)?;
                self.enable_channel(token, id, domain, channel, settings)
            }
            Request::DisableChannel { session, domain, channel } => {
                let id = self.find(peer, &session)?;
                match self.session(id)?.channel(domain, &channel) {
                    Some(channel) => channel.enabled = false,
                    None => return fail(codes(domain).no_channel),
                }
                self.rules_changed(id, token, vec![Reply::Done])
            }
            Request::EnableEvent { session, domain, channel, rule } => {
                let id = self.find(peer, &session)?;
                let channel = self.enable_event(id, domain, channel, rule)?;
                self.rules_changed(id, token, vec![Reply::ChannelName(channel), Reply::Done])
            }
            Request::DisableEvent { session, domain, channel, pattern } => {
                let id = self.find(peer, &session)?;
                let channel = self.disable_event(id, domain, channel, pattern.as_deref())?;
                self.rules_changed(id, token, vec![Reply::ChannelName(channel), Reply::Done])
            }
            Request::ListEvents { instrumentation } => {
                let events = self.kernel_events(instrumentation)?.into_iter().map(Reply::Event);
                Ok(Answer::Now(events.chain([Reply::Done]).collect()))
            }
            Request::KernelStatus => {
                let info = self.kernel_info();
                done(Reply::Kernel(info))
            }
            Request::AddContext { session, domain, channel, context } => {
                let id = self.find(peer, &session)?;
                self.add_context(id, domain, channel.as_deref(), context)?;
                Ok(Answer::Now(vec![Reply::Done]))
            }
            Request::Track { session, domain, attribute, value, include } => {
                let id = self.find(peer, &session)?;
                self.track(id, domain, attribute, value, include)?;
                // Who is followed counts from the answer on.
                self.confirm_change(id, token, vec![Reply::Done])
            }
            Request::Start { session } => {
                let id = self.find(peer, &session)?;
                self.start(id, token).map(|()| Answer::Later)
            }
            Request::Stop { session } => {
                let id = self.find(peer, &session)?;
                self.stop(id, token).map(|()| Answer::Later)
            }
            Request::Destroy { session } => {
                let id = self.find(peer, &session)?;
                self.begin_destroy(id, Some(token));
                Ok(Answer::Later)
            }
            Request::Summary { session } => {
                let id = self.find(peer, &session)?;
                let summary = self.summary(self.sessions.get(&id).ok_or_else(no_session)?);
                done(Reply::Summary(summary))
            }
        }
    }

    fn find(&self, peer: Peer, name: &str) -> Result<u64, Failure> {
        let found = self.sessions.iter().find(|(_, session)| session.name == name && sees(peer, session));
        found.map(|(id, _)| *id).ok_or_else(no_session)
    }

    fn session(&mut self, id: u64) -> Result<&mut Session, Failure> {
        self.sessions.get_mut(&id).ok_or_else(no_session)
    }

    fn create(
        &mut self,
        peer: Peer,
        name: String,
        output: &str,
        created: String,
        record: u64,
    ) -> Result<Answer, Failure> {
        let is_clean = |text: &str| !text.chars().any(char::is_control);
        if name.is_empty() || name.contains('/') || !is_clean(&name) || !is_clean(&created) {
            return fail(ErrorCode::Invalid);
        }
        let output = clean_path(Path::new(output))
            .ok_or(Failure { code: ErrorCode::Invalid, detail: format!("{output} is no absolute path") })?;
        // Names are unique in the daemon, whoever sees them.
        if self.sessions.values().any(|session| session.name == name && !session.destroying) {
            return fail(ErrorCode::SessionExists);
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return fail(ErrorCode::Limit);
        }
        let session = Session {
            name,
            output,
            uid: peer.uid,
            gid: peer.gid,
            created,
            active: false,
            started_once: false,
            destroying: false,
            channels: Vec::new(),
            traces: BTreeMap::new(),
            clock_offset: None,
            unanswered: Vec::new(),
            record,
            recorder: if record == 0 { None } else { Recorder::of(peer.pid) },
            tracked: BTreeMap::new(),
        };
        let info = session.info();
        let id = self.new_id();
        self.sessions.insert(id, session);
        self.watch_recorder(id);
        done(Reply::Session(info))
    }

    fn describe(&mut self, peer: Peer, name: &str) -> Result<Answer, Failure> {
        let id = self.find(peer, name)?;
        let session = self.session(id)?;
        let mut replies = vec![Reply::Session(session.info())];
        replies.extend(session.tracked.iter().map(|((domain, attribute), set)| {
            let values = set.keys().cloned().collect();
            Reply::Inclusion(InclusionSet { domain: *domain, attribute: *attribute, values })
        }));
        for (channel, totals) in session.channels.iter().zip(session.totals()) {
            replies.push(Reply::Channel(Box::new(ChannelInfo {
                name: channel.name.clone(),
                domain: channel.domain,
                enabled: channel.enabled,
                contexts: channel.contexts.clone(),
                settings: channel.settings,
                totals,
            })));
            replies.extend(channel.rules.iter().cloned().map(Reply::Rule));
        }
        replies.push(Reply::Done);
        Ok(Answer::Now(replies))
    }

    fn list_programs(&self, peer: Peer) -> Vec<Reply> {
        let mut replies = Vec::new();
        for program in self.programs.values() {
            let owner = program.connection.peer;
            let Some(hello) = program.hello.as_ref().filter(|_| peer.uid == 0 || peer.uid == owner.uid)
            else {
                continue;
            };
            replies.push(Reply::Program(ProgramInfo {
                pid: owner.pid,
                uid: owner.uid,
                procname: hello.procname.clone(),
                tracer_version: hello.tracer_version.clone(),
                troubles: program.unusable.values().cloned().collect(),
            }));
            replies.extend(program.tracepoints.values().map(|t| Reply::Tracepoint(t.as_ref().clone())));
        }
        replies.push(Reply::Done);
        replies
    }

    fn enable_channel(
        &mut self,
        token: u64,
        id: u64,
        domain: Domain,
        name: String,
        settings: ChannelSettings,
    ) -> Result<Answer, Failure> {
        if let Some(channel) = self.session(id)?.channel(domain, &name) {
            if channel.enabled {
                return fail(codes(domain).channel_exists);
            }
            channel.enabled = true;
            return self.rules_changed(id, token, vec![Reply::Done]);
        }
        self.add_channel(id, domain, name, settings)?;
        Ok(Answer::Now(vec![Reply::Done]))
    }

    fn add_channel(
        &mut self,
        id: u64,
        domain: Domain,
        name: String,
        settings: ChannelSettings,
    ) -> Result<(), Failure> {
        let is_bad = |c: char| c == '/' || c.is_control();
        if name.is_empty() || name.starts_with('.') || name.contains(is_bad) || name.len() > NAME_BYTES_MAX {
            return fail(ErrorCode::Invalid);
        }
        let settings = settings.shared_out(self.rings(domain)).normalised();
        let settings =
            settings.map_err(|error| Failure { code: ErrorCode::Invalid, detail: error.to_string() })?;
        if domain == Domain::Kernel {
            self.kernel()?;
        }
        let channel_id = self.new_id();
        let session = self.session(id)?;
        if session.started_once {
            return fail(ErrorCode::StartedOnce);
        }
        if session.channels.len() >= CHANNELS_MAX {
            return fail(ErrorCode::Limit);
        }
        let number = session.of_domain(domain).count();
        session.channels.push(Channel::new(channel_id, name, domain, number, settings));
        Ok(())
    }

    fn enable_event(
        &mut self,
        id: u64,
        domain: Domain,
        channel: Option<String>,
        rule: EventRule,
    ) -> Result<String, Failure> {
        if rule.pattern.as_str().is_empty() {
            return fail(ErrorCode::Invalid);
        }
        if !rule.exclusions.is_empty() && !rule.pattern.has_star() {
            return fail(ErrorCode::ExclusionInvalid);
        }
        let name = self.session(id)?.channel_for(domain, channel)?;
        match domain {
            Domain::Kernel => self.check_kernel_rule(&rule)?,
            Domain::User if rule.instrumentation != Instrumentation::Tracepoint || rule.filter.is_some() => {
                return fail(ErrorCode::NotSupported);
            }
            Domain::User => {}
        }
        if self.session(id)?.channel(domain, &name).is_none() {
            self.add_channel(id, domain, name.clone(), ChannelSettings::of(domain))?;
        }
        let Some(channel) = self.session(id)?.channel(domain, &name) else {
            return fail(codes(domain).no_channel);
        };
        let same = |other: &EventRule| *other == EventRule { enabled: other.enabled, ..rule.clone() };
        match channel.rules.iter().position(same) {
            Some(at) if channel.rules[at].enabled => return fail(codes(domain).event_exists),
            Some(at) => channel.rules[at].enabled = true,
            None if channel.rules.len() >= RULES_MAX => return fail(ErrorCode::Limit),
            None => channel.rules.push(EventRule { enabled: true, ..rule }),
        }
        Ok(name)
    }

    fn disable_event(
        &mut self,
        id: u64,
        domain: Domain,
        channel: Option<String>,
        pattern: Option<&str>,
    ) -> Result<String, Failure> {
        let session = self.session(id)?;
        let name = session.channel_for(domain, channel)?;
        let Some(channel) = session.channel(domain, &name) else { return fail(codes(domain).no_channel) };
        let mut found = pattern.is_none();
        for rule in &mut channel.rules {
            if pattern.is_none_or(|pattern| rule.pattern.as_str() == pattern) {
                rule.enabled = false;
                found = true;
            }
        }
        if found { Ok(name) } else { fail(codes(domain).no_event) }
    }

    /// How many rings a channel of this domain has (of a user's, for programs).
    fn rings(&self, domain: Domain) -> u64 {
        match domain {
            Domain::Kernel => sillage_tracer_kernel::sys::cpus().1.len() as u64,
            Domain::User => self.cpus.into(),
        }
    }

    /// Puts a context field into the records of one channel or of all.
    fn add_context(
        &mut self,
        id: u64,
        domain: Domain,
        channel: Option<&str>,
        context: String,
    ) -> Result<(), Failure> {
        if domain != Domain::Kernel {
            return fail(ErrorCode::NotSupported);
        }
        self.check_kernel_context(&context)?;
        let session = self.session(id)?;
        if session.started_once {
            return fail(ErrorCode::StartedOnce);
        }
        if channel.is_none() && session.of_domain(domain).next().is_none() {
            self.add_channel(id, domain, DEFAULT_CHANNEL.into(), ChannelSettings::of(domain))?;
        }
        let channels = self.session(id)?.channels.iter_mut().filter(|c| c.domain == domain);
        let mut found = false;
        for channel in channels.filter(|c| channel.is_none_or(|name| c.name == name)) {
            found = true;
            // As LTTng's daemon: it is there, and that was wanted.
            if channel.contexts.contains(&context) {
                continue;
            }
            if channel.contexts.len() >= CONTEXTS_MAX {
                return fail(ErrorCode::Limit);
            }
            channel.contexts.push(context.clone());
        }
        self.changed = true;
        if found { Ok(()) } else { fail(codes(domain).no_channel) }
    }

    /// Tells programs; while the session records, the answer waits until they have confirmed.
    fn rules_changed(&mut self, id: u64, token: u64, replies: Vec<Reply>) -> Result<Answer, Failure> {
        self.changed = true;
        if self.session(id)?.started_once {
            self.declare_all();
        }
        self.confirm_change(id, token, replies)
    }

    /// Answers when everybody has confirmed what they were told; at once if nobody records.
    fn confirm_change(&mut self, id: u64, token: u64, replies: Vec<Reply>) -> Result<Answer, Failure> {
        if !self.session(id)?.active {
            return Ok(Answer::Now(replies));
        }
        self.confirm(id, Some(token), Goal::Answer(replies));
        Ok(Answer::Later)
    }
}

impl Session {
    /// The channel that a rule is for: the one named, or the default one unless there are others.
    fn channel_for(&self, domain: Domain, named: Option<String>) -> Result<String, Failure> {
        match named {
            Some(name) => Ok(name),
            None if self.of_domain(domain).all(|channel| channel.name == DEFAULT_CHANNEL) => {
                Ok(DEFAULT_CHANNEL.into())
            }
            None => fail(ErrorCode::NeedChannel),
        }
    }
}

/// What LTTng calls the same error in each domain.
struct Codes {
    channel_exists: ErrorCode,
    no_channel: ErrorCode,
    event_exists: ErrorCode,
    no_event: ErrorCode,
}

const fn codes(domain: Domain) -> Codes {
    match domain {
        Domain::Kernel => Codes {
            channel_exists: ErrorCode::KernelChannelExists,
            no_channel: ErrorCode::KernelNoChannel,
            event_exists: ErrorCode::KernelEventExists,
            no_event: ErrorCode::KernelNoEvent,
        },
        Domain::User => Codes {
            channel_exists: ErrorCode::ChannelExists,
            no_channel: ErrorCode::NoChannel,
            event_exists: ErrorCode::EventEnabled,
            no_event: ErrorCode::NoEvent,
        },
    }
}

pub(crate) fn no_session() -> Failure {
    Failure { code: ErrorCode::NoSession, detail: String::new() }
}

/// Sessions are their owner's and root's.
fn sees(peer: Peer, session: &Session) -> bool {
    !session.destroying && (peer.uid == 0 || peer.uid == session.uid)
}

/// An absolute path without `.` and `..`.
fn clean_path(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::Normal(_) => out.push(component),
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            Component::Prefix(_) => return None,
        }
    }
    out.is_absolute().then_some(out)
}
