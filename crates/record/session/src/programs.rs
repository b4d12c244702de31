//! Programs: registration, and telling each of them what to record.
//!
//! What a program must record is computed anew whenever rules, sessions or its tracepoints change, and
//! sent only if it differs from what the program was told last.

use crate::check;
use crate::limits::REGISTRATIONS_MAX;
use crate::model::{Origin, Session};
use crate::net::Attachment;
use crate::worker::{Connection, Daemon};
use sillage_model::limits::TRACEPOINTS_MAX;
use sillage_model::{Domain, Tracepoint};
use sillage_protocol::program::{
    Channel, EnabledEvent, Hello, IndexedTracepoint, ToDaemon, ToProgram, VERSION,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Tracepoints known before a first look for unused ones.
const PRUNE_MIN: usize = 1024;

/// What a program was told of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    active: bool,
    events: Vec<EnabledEvent>,
}

/// A connected program.
pub(crate) struct Program {
    pub(crate) connection: Connection,
    /// Who it says it is; None until it says so.
    pub(crate) hello: Option<Hello>,
    pub(crate) tracepoints: BTreeMap<u32, Arc<Tracepoint>>,
    registrations: u64,
    /// By channel id.
    pub(crate) declared: HashMap<u64, Declared>,
    /// By channel id: why it records nothing there.
    pub(crate) unusable: BTreeMap<u64, String>,
}

impl Program {
    pub(crate) fn new(connection: Connection) -> Program {
        Program {
            connection,
            hello: None,
            tracepoints: BTreeMap::new(),
            registrations: 0,
            declared: HashMap::new(),
            unusable: BTreeMap::new(),
        }
    }

    /// For people: name and process id.
    pub(crate) fn title(&self) -> String {
        let name = self.hello.as_ref().map_or("?", |hello| hello.procname.as_str());
        format!("{name} ({})", self.connection.peer.pid)
    }
}

impl Daemon {
    /// Takes one message of a program.
    pub(crate) fn program_message(&mut self, token: u64, kind: u16, body: &[u8]) {
        let result = match ToDaemon::decode(kind, body) {
            Err(error) => Err(error.to_string()),
            Ok(ToDaemon::Hello(hello)) => self.hello(token, hello),
            Ok(_) if self.programs.get(&token).is_none_or(|p| p.hello.is_none()) => {
                Err("spoke before it said hello".into())
            }
            Ok(ToDaemon::Tracepoints { batch, tracepoints }) => self.register(token, batch, tracepoints),
            Ok(ToDaemon::TracepointsGone(indexes)) => {
                if let Some(program) = self.programs.get_mut(&token) {
                    indexes.iter().for_each(|index| drop(program.tracepoints.remove(index)));
                }
                self.declare(token);
                Ok(())
            }
            Ok(ToDaemon::Synced { sequence }) => {
                self.synced(token, sequence);
                Ok(())
            }
            Ok(ToDaemon::ChannelUnusable { channel_id, reason }) => {
                self.channel_unusable(token, channel_id, &reason);
                Ok(())
            }
        };
        if let Err(why) = result {
            self.throw_out(token, why);
        }
    }

    /// Tells a program why, and ends its connection.
    pub(crate) fn throw_out(&mut self, token: u64, why: String) {
        let Some(program) = self.programs.get_mut(&token) else { return };
        let (title, mut reason) = (program.title(), why);
        let mut end = reason.len().min(sillage_model::limits::NAME_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        program.connection.closing = true;
        self.send(token, ToProgram::Refused { reason: reason.clone() }.encode(), Attachment::Nothing);
        self.refused(format!("{title}: {reason}"));
    }

    fn hello(&mut self, token: u64, mut hello: Hello) -> Result<(), String> {
        if hello.version != VERSION {
            return Err(format!("speaks version {} of the protocol, not {VERSION}", hello.version));
        }
        let clock = Arc::clone(&self.clock);
        let Some(program) = self.programs.get(&token) else { return Ok(()) };
        if program.hello.is_some() {
            return Err("said hello twice".into());
        }
        let (uid, pid) = (program.connection.peer.uid, program.connection.peer.pid);
        let doorbell = match self.reader(Origin::User(uid)) {
            Ok(reader) => Arc::clone(&reader.doorbell),
            Err(error) => return Err(error.to_string()),
        };
        self.reattach(token, uid, pid, &hello.mapped_sets);
        for text in [&mut hello.procname, &mut hello.tracer_version] {
            *text = text.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
        }
        if let Some(program) = self.programs.get_mut(&token) {
            program.hello = Some(hello);
        }
        self.send(token, ToProgram::Welcome.encode(), Attachment::Welcome(clock, doorbell));
        Ok(())
    }

    fn register(&mut self, token: u64, batch: u32, new: Vec<IndexedTracepoint>) -> Result<(), String> {
        for IndexedTracepoint { index, tracepoint } in new {
            check::check(&tracepoint).map_err(|garbage| garbage.to_string())?;
            let tracepoint = self.intern(tracepoint);
            let Some(program) = self.programs.get_mut(&token) else { return Ok(()) };
            program.registrations += 1;
            if program.tracepoints.len() >= TRACEPOINTS_MAX || program.registrations > REGISTRATIONS_MAX {
                return Err("registers too many tracepoints".into());
            }
            if program.tracepoints.insert(index, tracepoint).is_some() {
                return Err(format!("registered number {index} twice"));
            }
        }
        self.declare(token);
        self.send(token, ToProgram::BatchDone { batch }.encode(), Attachment::Nothing);
        Ok(())
    }

    fn intern(&mut self, tracepoint: Tracepoint) -> Arc<Tracepoint> {
        if let Some(known) = self.tracepoints.get(&tracepoint) {
            return Arc::clone(known);
        }
        if self.tracepoints.len() > 2 * self.tracepoints_pruned_at.max(PRUNE_MIN) {
            self.tracepoints.retain(|known| Arc::strong_count(known) > 1);
            self.tracepoints_pruned_at = self.tracepoints.len();
        }
        let tracepoint = Arc::new(tracepoint);
        self.tracepoints.insert(Arc::clone(&tracepoint));
        tracepoint
    }

    /// Forgets a program. Its own rings are emptied and freed.
    pub(crate) fn program_gone(&mut self, token: u64) {
        self.programs.remove(&token);
        self.synced(token, u64::MAX);
        self.drop_private_sets(token);
    }

    /// Remembers that a program cannot record into a channel, for `list` and `stop`.
    fn channel_unusable(&mut self, token: u64, channel_id: u64, reason: &str) {
        let Some(program) = self.programs.get_mut(&token) else { return };
        if !program.declared.contains_key(&channel_id) {
            // A channel that is gone meanwhile, or that it was never told of.
            return;
        }
        let reason: String = reason.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
        let text = format!("{} records nothing: {reason}", program.title());
        let mut channels = self.sessions.values_mut().flat_map(|session| &mut session.channels);
        if let Some(channel) = channels.find(|channel| channel.id == channel_id) {
            program.unusable.insert(channel_id, format!("channel {}: {reason}", channel.name));
            channel.trouble(text);
            self.changed = true;
        }
    }

    /// Tells all programs and the kernel tracer what to record now.
    pub(crate) fn declare_all(&mut self) {
        self.declare_kernel();
        for token in self.programs.keys().copied().collect::<Vec<_>>() {
            self.declare(token);
        }
    }

    /// Tells a program what to record now, as far as that is new to it.
    pub(crate) fn declare(&mut self, token: u64) {
        // Taken out, so that the rest of the daemon is at hand.
        let Some(mut program) = self.programs.remove(&token) else { return };
        let mut sessions = std::mem::take(&mut self.sessions);
        let mut frames = Vec::new();
        if let Some(hello) = program.hello.take() {
            let peer = program.connection.peer;
            for session in sessions.values_mut().filter(|session| session.records(peer.uid, hello.record)) {
                for index in 0..session.channels.len() {
                    if session.channels[index].domain != Domain::User {
                        continue;
                    }
                    let known = program.declared.contains_key(&session.channels[index].id);
                    let matching = match session.follows(hello.vpid, peer.uid, peer.gid) {
                        true => matching(&program, session, index),
                        false => Vec::new(),
                    };
                    if matching.is_empty() && !known {
                        continue;
                    }
                    let set = match self.ring_set(session, index, token, peer, hello.producer) {
                        Ok(set) => set,
                        Err(why) => {
                            session.channels[index].trouble(why);
                            self.retry_soon();
                            continue;
                        }
                    };
                    let events = self.event_ids(session, index, peer.uid, &matching);
                    let now = Declared { active: session.active, events };
                    let channel = &session.channels[index];
                    if !known {
                        let message = ToProgram::Channel(Channel {
                            channel_id: channel.id,
                            set_id: set.set_id(),
                            blocking_timeout: channel.settings.blocking_timeout,
                        });
                        frames.push((message.encode(), Attachment::Rings(set)));
                    }
                    if program.declared.get(&channel.id) != Some(&now) {
                        let (active, events) = (now.active, now.events.clone());
                        let message = ToProgram::Events { channel_id: channel.id, active, events };
                        frames.push((message.encode(), Attachment::Nothing));
                        program.declared.insert(channel.id, now);
                    }
                }
            }
            program.hello = Some(hello);
        }
        self.sessions = sessions;
        self.programs.insert(token, program);
        for (frame, attachment) in frames {
            self.send(token, frame, attachment);
        }
    }
}

/// The program's tracepoints that the channel records, with their numbers.
fn matching(program: &Program, session: &Session, index: usize) -> Vec<(u32, Arc<Tracepoint>)> {
    let channel = &session.channels[index];
    if !channel.enabled {
        return Vec::new();
    }
    let taken = |t: &Tracepoint| channel.rules.iter().any(|rule| rule.matches(t));
    let tracepoints = program.tracepoints.iter().filter(|(_, tracepoint)| taken(tracepoint));
    tracepoints.map(|(index, tracepoint)| (*index, Arc::clone(tracepoint))).collect()
}
