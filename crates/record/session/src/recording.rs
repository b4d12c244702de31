//! Recording: traces, ring sets, and the steps of starting, stopping and destroying a session.
//!
//! Stopping has three steps. Programs are told to stop and asked to confirm that none of their
//! threads can still publish ([`Wait`], at most a second; who does not answer is named). Then the
//! consumers write out what the rings hold ([`Job`]). Then the client gets its answer.

use crate::limits::{KERNEL_PATIENCE, SYNC_PATIENCE};
use crate::model::{Holder, Origin, RingSet, Session};
use crate::net::Attachment;
use crate::trace::{Class, Trace};
use crate::tsdl;
use crate::unfinished;
use crate::worker::{Daemon, KERNEL, Peer};
use sillage_consumer::feed::Service;
use sillage_consumer::{Command, Disk, Feed, Place, shared::RingMemory};
use sillage_model::{Domain, Tracepoint};
use sillage_protocol::control::{ErrorCode, Failure, Reply, Summary};
use sillage_protocol::program::{EnabledEvent, ProducerKind, ToProgram};
use sillage_ring::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What follows when programs have confirmed.
pub(crate) enum Goal {
    /// Nothing but the answer.
    Answer(Vec<Reply>),
    /// Write out, then answer.
    Stop,
    /// Write out, forget the session, then answer.
    Destroy,
}

/// Programs that were asked to confirm.
pub(crate) struct Wait {
    session: u64,
    sequence: u64,
    programs: BTreeSet<u64>,
    pub(crate) deadline: Instant,
    client: Option<u64>,
    goal: Goal,
}

/// What follows when the consumers have written out.
pub(crate) enum Job {
    /// A session was stopped.
    Stop {
        /// The session.
        session: u64,
        /// Who asked.
        client: Option<u64>,
        /// Consumers that are not done.
        consumers: usize,
    },
    /// A session is gone.
    Destroy {
        /// The session.
        session: u64,
        /// Who asked.
        client: Option<u64>,
        /// Consumers that are not done.
        consumers: usize,
    },
    /// Ring sets of a program that ended.
    Forget(Vec<u64>),
}

impl Daemon {
    /// The memory that this program records into for a channel, made if need be, with its trace.
    pub(crate) fn ring_set(
        &mut self,
        session: &mut Session,
        index: usize,
        token: u64,
        peer: Peer,
        producer: ProducerKind,
    ) -> Result<Arc<RingMemory>, String> {
        let is_ours = |set: &&RingSet| {
            set.origin == Origin::User(peer.uid)
                && !set.closing
                && match (producer, set.holder) {
                    (ProducerKind::Rseq, Holder::Shared) => true,
                    (ProducerKind::Locked, Holder::Process { program, .. }) => program == Some(token),
                    _ => false,
                }
        };
        if let Some(set) = session.channels[index].sets.iter().find(is_ours) {
            return Ok(Arc::clone(&set.memory));
        }
        let origin = Origin::User(peer.uid);
        self.ensure_trace(session, origin);
        let kind = match producer {
            ProducerKind::Rseq => Kind::Rseq,
            ProducerKind::Locked => Kind::Locked,
        };
        let set_id = self.new_id();
        let channel = &mut session.channels[index];
        let memory = RingMemory::create(channel.geometry(kind, self.cpus), set_id);
        let memory = Arc::new(memory.map_err(|error| error.to_string())?);
        let (holder, first_number) = match producer {
            ProducerKind::Rseq => (Holder::Shared, 0),
            ProducerKind::Locked => {
                let number = self.cpus + channel.private_rings;
                channel.private_rings += 1;
                (Holder::Process { pid: peer.pid, program: Some(token) }, number)
            }
        };
        let counters = Arc::default();
        let set =
            RingSet { memory: Arc::clone(&memory), counters, origin, holder, first_number, closing: false };
        self.add_set(session, index, set)?;
        Ok(memory)
    }

    /// Has a new set kept and served.
    pub(crate) fn add_set(
        &mut self,
        session: &mut Session,
        index: usize,
        set: RingSet,
    ) -> Result<(), String> {
        for (key, files) in set.for_keeping() {
            self.keep(key, &files);
        }
        self.feed(session, index, &set, false)?;
        session.channels[index].sets.push(set);
        Ok(())
    }

    /// Has the consumer of a set's origin serve it.
    fn feed(&mut self, session: &Session, index: usize, set: &RingSet, recover: bool) -> Result<(), String> {
        let Some(trace) = session.traces.get(&set.origin) else { return Err("no trace".into()) };
        let channel = &session.channels[index];
        let place = Place {
            dir: trace.dir.clone(),
            channel: channel.name.clone(),
            uuid: trace.uuid,
            stream_id: channel.number as u32,
            tracefile_bytes: channel.settings.tracefile_bytes,
            tracefile_count: channel.settings.tracefile_count,
        };
        let service = Service {
            switch_timer: Duration::from_micros(channel.settings.switch_timer_us),
            read_timer: Duration::from_micros(channel.settings.read_timer_us),
            wake: channel.blocks(),
        };
        let feed = Feed::new(
            Arc::clone(&set.memory),
            Arc::new(place),
            Arc::clone(&set.counters),
            session.files(),
            service,
            set.first_number,
            recover,
        );
        let reader = self.reader(set.origin).map_err(|error| error.to_string())?;
        reader.consumer.send(Command::Add(Box::new(feed)));
        Ok(())
    }

    /// The trace of this origin, made if need be: then all channels of its domain are in it.
    pub(crate) fn ensure_trace(&mut self, session: &mut Session, origin: Origin) {
        if session.traces.contains_key(&origin) {
            return;
        }
        self.changed = true;
        let mut uuid = [0; 16];
        // The kernel's random numbers do not fail once the machine is up.
        let _ = rustix::rand::getrandom(&mut uuid, rustix::rand::GetRandomFlags::empty());
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let clock_offset = *session.clock_offset.get_or_insert_with(clock_offset);
        let channels = session.of_domain(origin.domain()).count();
        let header = match origin {
            Origin::Kernel => self.kernel_header(session, uuid, clock_offset),
            Origin::User(uid) => {
                let header = tsdl::Header {
                    uuid,
                    uid,
                    session: &session.name,
                    created: &session.created,
                    hostname: &self.machine.hostname,
                    boot_id: &self.machine.boot_id,
                    clock_offset,
                    version: env!("CARGO_PKG_VERSION"),
                };
                tsdl::header(&header, channels)
            }
        };
        let trace = Trace::new(session.files(), &session.output, origin, uuid, header, channels);
        session.traces.insert(origin, trace);
    }

    /// The ids of these tracepoints in a channel, as far as their classes are on disk.
    pub(crate) fn event_ids(
        &mut self,
        session: &mut Session,
        index: usize,
        uid: u32,
        matching: &[(u32, Arc<Tracepoint>)],
    ) -> Vec<EnabledEvent> {
        let origin = Origin::User(uid);
        let Some(trace) = session.traces.get_mut(&origin) else { return Vec::new() };
        let stream = session.channels[index].number;
        let ids: Vec<(u32, u32)> = matching
            .iter()
            .filter_map(|(number, tracepoint)| {
                let text = |id| tsdl::event_class(tracepoint, id, stream);
                Some((*number, trace.class(stream, Class::Tracepoint(Arc::clone(tracepoint)), text)?))
            })
            .collect();
        self.write_classes(session, index, origin);
        let Some(trace) = session.traces.get(&origin) else { return Vec::new() };
        let ready = ids.into_iter().filter(|(_, event_id)| trace.ready(stream, *event_id));
        ready.map(|(index, event_id)| EnabledEvent { index, event_id }).collect()
    }

    /// Writes new event classes of a channel's trace, as far as the disk takes them now.
    pub(crate) fn write_classes(&mut self, session: &mut Session, index: usize, origin: Origin) {
        let Some(trace) = session.traces.get_mut(&origin) else { return };
        if trace.waits() {
            self.changed = true;
        }
        if let Err(error) = trace.flush() {
            session.channels[index].trouble(format!("metadata not written: {error}"));
            self.retry_soon();
        }
    }

    /// Writes all metadata that waits.
    pub(crate) fn flush_traces(&mut self) {
        let traces = self.sessions.values_mut().flat_map(|session| session.traces.values_mut());
        if traces.filter_map(|trace| trace.flush().err()).count() > 0 {
            self.retry_soon();
        }
    }

    /// Takes up what an earlier worker left.
    pub(crate) fn resume(&mut self) {
        self.flush_traces();
        let mut sessions = std::mem::take(&mut self.sessions);
        for session in sessions.values_mut() {
            for index in 0..session.channels.len() {
                let sets = std::mem::take(&mut session.channels[index].sets);
                for set in &sets {
                    if let Err(why) = self.feed(session, index, set, true) {
                        session.channels[index].trouble(why);
                    }
                }
                session.channels[index].sets = sets;
            }
        }
        self.sessions = sessions;
        self.resume_kernel();
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.watch_recorder(id);
        }
        let destroying = self.sessions.iter().filter(|(_, session)| session.destroying);
        for id in destroying.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.write_out(id, None, &Goal::Destroy);
        }
        // The worker before may have been killed between the stop and the end of the writing.
        let stopped = self.sessions.iter().filter(|(_, s)| s.started_once && !s.active && !s.destroying);
        for id in stopped.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.write_out(id, None, &Goal::Stop);
        }
        self.publish_clock();
    }

    /// The clock page is kept while any session records.
    pub(crate) fn publish_clock(&self) {
        self.publisher.set_active(self.sessions.values().any(|session| session.active));
    }

    /// Starts a session.
    pub(crate) fn start(&mut self, id: u64, client: u64) -> Result<(), Failure> {
        let fail = |code, detail: String| Err(Failure { code, detail });
        let Some(session) = self.sessions.get_mut(&id) else {
            return fail(ErrorCode::NoSession, String::new());
        };
        if session.active {
            return fail(ErrorCode::AlreadyStarted, String::new());
        }
        if session.channels.is_empty() {
            return fail(ErrorCode::NoChannelInSession, String::new());
        }
        if let Some(why) = unfinished::occupied(&self.sessions, id) {
            return fail(ErrorCode::CreateDirectory, why);
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return fail(ErrorCode::NoSession, String::new());
        };
        for (domain, dir) in [(Domain::User, "ust"), (Domain::Kernel, "kernel")] {
            let dir = session.output.join(dir);
            if session.of_domain(domain).next().is_none() {
                continue;
            }
            if let Err(error) = session.files().make_dirs(&dir) {
                return fail(ErrorCode::CreateDirectory, format!("{}: {error}", dir.display()));
            }
        }
        self.prepare_kernel(id)?;
        let Some(session) = self.sessions.get_mut(&id) else {
            return fail(ErrorCode::NoSession, String::new());
        };
        session.active = true;
        session.started_once = true;
        self.changed = true;
        self.note_unfinished();
        self.publish_clock();
        self.declare_all();
        self.confirm(id, Some(client), Goal::Answer(vec![Reply::Done]));
        Ok(())
    }

    /// What a daemon must repair that finds nothing else of this one.
    pub(crate) fn note_unfinished(&mut self) {
        if unfinished::save(&self.rundir, &self.sessions).is_err() {
            // A full run directory: tried again. It matters only after a crash of
            // both halves.
            self.retry_soon();
        }
    }

    /// Stops a session; the client is answered when everything is on disk.
    pub(crate) fn stop(&mut self, id: u64, client: u64) -> Result<(), Failure> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Err(Failure { code: ErrorCode::NoSession, detail: String::new() });
        };
        if !session.active {
            return Err(Failure { code: ErrorCode::AlreadyStopped, detail: String::new() });
        }
        session.active = false;
        self.changed = true;
        self.declare_all();
        self.publish_clock();
        self.confirm(id, Some(client), Goal::Stop);
        Ok(())
    }

    /// Stops a session if need be and forgets it.
    pub(crate) fn begin_destroy(&mut self, id: u64, client: Option<u64>) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.destroying) else { return };
        let was_active = std::mem::replace(&mut session.active, false);
        self.changed = true;
        if was_active {
            self.declare_all();
            self.publish_clock();
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.destroying = true;
        }
        if was_active {
            self.confirm(id, client, Goal::Destroy);
        } else {
            self.write_out(id, client, &Goal::Destroy);
        }
    }

    /// Asks all programs that record into the session to confirm what they were told; goes on with
    /// `goal` when they did.
    pub(crate) fn confirm(&mut self, session: u64, client: Option<u64>, goal: Goal) {
        let channels: Vec<u64> = self.channel_ids(session);
        let concerned = |declared: &dyn Fn(&u64) -> bool| channels.iter().any(declared);
        let programs: BTreeSet<u64> = self
            .programs
            .iter()
            .filter(|(_, program)| concerned(&|channel| program.declared.contains_key(channel)))
            .map(|(token, _)| *token)
            .collect();
        let mut programs = programs;
        let sequence = self.new_id();
        for token in &programs {
            self.send(*token, ToProgram::Sync { sequence }.encode(), Attachment::Nothing);
        }
        let mut deadline = Instant::now() + SYNC_PATIENCE;
        if self.sync_kernel(&channels, sequence) {
            programs.insert(KERNEL);
            deadline = Instant::now() + KERNEL_PATIENCE;
        }
        let wait = Wait { session, sequence, programs, deadline, client, goal };
        if wait.programs.is_empty() { self.confirmed(wait) } else { self.waits.push(wait) }
    }

    /// A program confirmed up to `sequence` (or is gone, which confirms everything).
    pub(crate) fn synced(&mut self, token: u64, sequence: u64) {
        for wait in &mut self.waits {
            if wait.sequence <= sequence {
                wait.programs.remove(&token);
            }
        }
        self.waits_due(Instant::now());
    }

    /// Goes on with what has been confirmed, or waited for long enough.
    pub(crate) fn waits_due(&mut self, now: Instant) {
        while let Some(at) = self.waits.iter().position(|w| w.programs.is_empty() || w.deadline <= now) {
            let wait = self.waits.remove(at);
            self.confirmed(wait);
        }
    }

    fn confirmed(&mut self, wait: Wait) {
        let name = |token: &u64| match *token {
            KERNEL => Some("the kernel tracer".into()),
            token => self.programs.get(&token).map(|program| program.title()),
        };
        let names = wait.programs.iter().filter_map(name);
        let unanswered: Vec<String> = names.collect();
        let stops = !matches!(wait.goal, Goal::Answer(_));
        if !stops && wait.programs.contains(&KERNEL) {
            self.kernel_is_late(wait.session);
        }
        if let Some(session) = self.sessions.get_mut(&wait.session).filter(|_| stops) {
            session.unanswered = unanswered;
            self.changed = true;
        }
        match wait.goal {
            Goal::Answer(replies) => self.answer(wait.client, replies),
            goal => self.write_out(wait.session, wait.client, &goal),
        }
    }

    /// Has the consumers write out a session's rings, and forget them if it is destroyed.
    fn write_out(&mut self, id: u64, client: Option<u64>, goal: &Goal) {
        let Some(session) = self.sessions.get(&id) else { return };
        let destroys = matches!(goal, Goal::Destroy);
        let mut sets: BTreeMap<Origin, Vec<u64>> = BTreeMap::new();
        for set in session.channels.iter().flat_map(|channel| &channel.sets) {
            sets.entry(set.origin).or_default().push(set.memory.set_id());
        }
        let (session, consumers) = (id, sets.len());
        let ticket = self.new_id();
        for (origin, sets) in sets {
            let Some(reader) = self.readers.get(&origin) else { continue };
            reader.consumer.send(match destroys {
                true => Command::Remove { sets, ticket },
                false => Command::Cut { sets, ticket },
            });
        }
        let job = match destroys {
            true => Job::Destroy { session, client, consumers: consumers.max(1) },
            false => Job::Stop { session, client, consumers: consumers.max(1) },
        };
        self.jobs.insert(ticket, job);
        if consumers == 0 {
            self.job_finished(ticket);
        }
    }

    /// A consumer has done what it was asked under this ticket.
    pub(crate) fn job_finished(&mut self, ticket: u64) {
        let Some(mut job) = self.jobs.remove(&ticket) else { return };
        if let Job::Stop { consumers, .. } | Job::Destroy { consumers, .. } = &mut job {
            *consumers -= 1;
            if *consumers > 0 {
                self.jobs.insert(ticket, job);
                return;
            }
        }
        match job {
            Job::Stop { session, client, .. } => {
                let summary = self.sessions.get(&session).map(|session| self.summary(session));
                self.answer(client, summary.map(Reply::Summary).into_iter().chain([Reply::Done]).collect());
            }
            Job::Destroy { session, client, .. } => {
                let gone = self.sessions.remove(&session);
                self.note_unfinished();
                let summary = gone.as_ref().map(|session| self.summary(session));
                if let Some(session) = gone {
                    self.free(&session);
                }
                self.answer(client, summary.map(Reply::Summary).into_iter().chain([Reply::Done]).collect());
            }
            Job::Forget(sets) => {
                for set_id in sets {
                    let channels = self.sessions.values_mut().flat_map(|session| &mut session.channels);
                    let gone: Vec<RingSet> =
                        channels.filter_map(|channel| channel.forget_set(set_id)).collect();
                    gone.iter().for_each(|set| self.drop_kept(set));
                }
                self.changed = true;
            }
        }
    }

    /// Tells programs that a session's channels are gone, and lets go of its rings.
    fn free(&mut self, session: &Session) {
        self.changed = true;
        for channel in &session.channels {
            for set in &channel.sets {
                // Whoever did not answer must not go on recording into nothing.
                set.memory.active().for_each(|cpu| set.memory.close(cpu));
                self.drop_kept(set);
            }
            self.kernel_channel_gone(channel.id);
            let told = self.programs.iter_mut().filter_map(|(token, program)| {
                program.unusable.remove(&channel.id);
                program.declared.remove(&channel.id).map(|_| *token)
            });
            for token in told.collect::<Vec<_>>() {
                let message = ToProgram::ChannelGone { channel_id: channel.id };
                self.send(token, message.encode(), Attachment::Nothing);
            }
        }
        self.publish_clock();
    }

    /// The keeper need not keep a set any more.
    fn drop_kept(&mut self, set: &RingSet) {
        self.unneeded.extend(set.for_keeping().into_iter().map(|(key, _)| key));
    }

    /// What a session recorded so far.
    pub(crate) fn summary(&self, session: &Session) -> Summary {
        let records = |declared: &std::collections::HashMap<u64, _>| {
            session.channels.iter().any(|channel| declared.contains_key(&channel.id))
        };
        let programs = self.programs.values().filter(|program| records(&program.declared)).count();
        let unanswered = session.unanswered.clone();
        Summary { channels: session.totals(), unanswered, programs: programs as u32 }
    }

    fn channel_ids(&self, session: u64) -> Vec<u64> {
        let session = self.sessions.get(&session);
        session.map(|s| s.channels.iter().map(|channel| channel.id).collect()).unwrap_or_default()
    }

    /// A program's own rings are emptied and freed.
    pub(crate) fn drop_private_sets(&mut self, token: u64) {
        self.drop_sets(|holder| matches!(holder, Holder::Process { program, .. } if *program == Some(token)));
    }

    /// After a restart: rings whose process did not come back. `all`: it had its time.
    pub(crate) fn drop_orphans(&mut self, all: bool) {
        let dead = |pid: u32| !std::path::Path::new("/proc").join(pid.to_string()).exists();
        self.drop_sets(
            |holder| matches!(holder, Holder::Process { pid, program: None } if all || dead(*pid)),
        );
    }

    fn drop_sets(&mut self, is_gone: impl Fn(&Holder) -> bool) {
        let mut sets: BTreeMap<Origin, Vec<u64>> = BTreeMap::new();
        let channels = self.sessions.values_mut().filter(|s| !s.destroying).flat_map(|s| &mut s.channels);
        for set in channels.flat_map(|channel| &mut channel.sets) {
            if is_gone(&set.holder) && !set.closing {
                set.closing = true;
                sets.entry(set.origin).or_default().push(set.memory.set_id());
            }
        }
        for (origin, sets) in sets {
            let ticket = self.new_id();
            let Some(reader) = self.readers.get(&origin) else { continue };
            reader.consumer.send(Command::Remove { sets: sets.clone(), ticket });
            self.jobs.insert(ticket, Job::Forget(sets));
        }
    }

    /// A program that reconnects after a restart has its own rings mapped still.
    pub(crate) fn reattach(&mut self, token: u64, uid: u32, pid: u32, mapped: &[u64]) {
        let channels = self.sessions.values_mut().flat_map(|session| &mut session.channels);
        for set in channels.flat_map(|channel| &mut channel.sets) {
            let free = set.holder == Holder::Process { pid, program: None };
            if free
                && set.origin == Origin::User(uid)
                && !set.closing
                && mapped.contains(&set.memory.set_id())
            {
                set.holder = Holder::Process { pid, program: Some(token) };
            }
        }
    }
}

/// CLOCK_REALTIME − CLOCK_MONOTONIC in ns: of ten tries, the one that took the least time.
fn clock_offset() -> i64 {
    use rustix::time::{ClockId, clock_gettime};
    let ns = |id| {
        let t = clock_gettime(id);
        t.tv_sec * 1_000_000_000 + t.tv_nsec
    };
    let attempt = || {
        let (before, wall, after) = (ns(ClockId::Monotonic), ns(ClockId::Realtime), ns(ClockId::Monotonic));
        (after - before, wall - (before + (after - before) / 2))
    };
    (0..10).map(|_| attempt()).min_by_key(|(took, _)| *took).map_or(0, |(_, offset)| offset)
}
