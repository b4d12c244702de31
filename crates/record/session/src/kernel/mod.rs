//! The kernel domain: what of it is there, and telling the kernel tracer what to record.
//!
//! The kernel is treated as one more program: its events are matched with rules as tracepoints are, get
//! their ids in the trace before anybody is told of them, and the tracer ([`thread`]) is told the whole
//! list of a channel whenever it changes, and confirms. Differences: it is everybody's, so each client
//! of a daemon that may trace the kernel records all of it; and its rings are made when a session starts.

mod probes;
mod thread;
mod transcoded;

use crate::limits::{CLASSES_MAX, KERNEL_PATIENCE};
use crate::link::Key;
use crate::model::{Channel, Holder, Origin, RingSet, Session};
use crate::trace::Class;
use crate::tracking::followed;
use crate::worker::{Daemon, KERNEL};
use probes::{Probes, probe_of, probes};
use sillage_consumer::shared::{DoorbellMemory, RingMemory};
use sillage_model::{Domain, EventRule, Instrumentation, ProcessAttribute};
use sillage_protocol::control::{ErrorCode, EventInfo, Failure, KernelInfo, ListedEvents};
use sillage_ring::{HeaderForm, Kind};
use sillage_tracer_kernel::catalogue::{self, Bitness};
use sillage_tracer_kernel::contexts::{self, Context, ContextError};
use sillage_tracer_kernel::filters::{Filter, FilterRefusal};
use sillage_tracer_kernel::late::LATE_STRING;
use sillage_tracer_kernel::probes::{Probe, ProbeError};
use sillage_tracer_kernel::recipe::Type;
use sillage_tracer_kernel::statedump::{self, Processes};
use sillage_tracer_kernel::tracefs::{self, Recorder, Sieve};
use sillage_tracer_kernel::{BackEnd, Bell, Catalogue, Field, Kernel, metadata};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use thread::{Mailbox, Order, Report, Thread, Wanted};

/// Stack of the tracer's thread, bytes: the verifier's answers are read on the heap.
const STACK_BYTES: usize = 512 << 10;

/// The kernel tracer, as the daemon's loop holds it.
pub(crate) struct Tracer {
    kernel: Arc<Kernel>,
    catalogue: Arc<Catalogue>,
    /// With the back end eBPF.
    bell: Option<Bell>,
    doorbell: Arc<DoorbellMemory>,
    orders: Sender<Order>,
    /// What it will be told once the state is in the keeper's hands.
    outbox: Vec<Order>,
    mailbox: Arc<Mailbox>,
    /// By channel id: what it was told last.
    declared: HashMap<u64, Vec<Wanted>>,
    probes: Probes,
}

impl Tracer {
    fn tell(&mut self, order: Order) {
        self.outbox.push(order);
    }

    /// Sends what was told.
    pub(crate) fn flush(&mut self) {
        for order in self.outbox.drain(..) {
            // Its thread ends with us alone.
            let _ = self.orders.send(order);
        }
    }
}

fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure { code: ErrorCode::KernelNotAvailable, detail: error.to_string() }
}

impl Daemon {
    /// The kernel tracer, started if need be.
    ///
    /// # Errors
    /// What this process or this kernel lacks.
    pub(crate) fn kernel(&mut self) -> Result<&mut Tracer, Failure> {
        if self.kernel.is_none() {
            let kernel = Kernel::choose().map_err(unavailable)?;
            let doorbell = Arc::clone(&self.reader(Origin::Kernel).map_err(unavailable)?.doorbell);
            let bell = match kernel.back_end() {
                BackEnd::Programs => Some(Bell::start(Arc::clone(&doorbell)).map_err(unavailable)?),
                BackEnd::Tracefs => None,
            };
            let (orders, told) = channel();
            let kernel = Arc::new(kernel);
            let catalogue = Arc::new(Catalogue::of(&kernel));
            let mailbox = Arc::new(Mailbox::new().map_err(unavailable)?);
            let thread = Thread::new(Arc::clone(&kernel), Arc::clone(&catalogue), Arc::clone(&mailbox));
            let builder = std::thread::Builder::new().name("kernel".into()).stack_size(STACK_BYTES);
            builder.spawn(move || thread.run(&told)).map_err(unavailable)?;
            self.watch(KERNEL, mailbox.as_fd()).map_err(unavailable)?;
            self.kernel = Some(Tracer {
                kernel,
                catalogue,
                bell,
                doorbell,
                orders,
                outbox: Vec::new(),
                mailbox,
                declared: HashMap::new(),
                probes: Probes::default(),
            });
        }
        self.kernel.as_mut().ok_or_else(|| unavailable("it ended"))
    }

    /// How the kernel is traced, and what is lacking.
    pub(crate) fn kernel_info(&mut self) -> KernelInfo {
        match self.kernel() {
            Err(failure) => KernelInfo { back_end: String::new(), lacks: vec![failure.detail] },
            Ok(tracer) => {
                let count = tracer.catalogue.names().count();
                let priority = (!sillage_consumer::may_be_urgent()).then_some(
                    "priority for the consumer, so a machine full of runnable tasks may cost records (setcap \
                     cap_sys_nice+ep on the daemon's file, or ulimit -e 40)",
                );
                let lacks = [catalogue::missing_formats(&tracer.catalogue), priority].into_iter().flatten();
                let lacks = lacks.map(String::from);
                match tracer.kernel.back_end() {
                    BackEnd::Programs => {
                        let dump = match statedump::probe(&tracer.kernel) {
                            Processes::Iterators => None,
                            Processes::Proc(reason) => Some(format!(
                                "iterators, so the state dump reads processes from /proc, one by one: {reason}"
                            )),
                        };
                        KernelInfo {
                            back_end: format!("eBPF, typed tracepoints; {count} events"),
                            lacks: lacks.chain(dump).collect(),
                        }
                    }
                    BackEnd::Tracefs => {
                        let reason = tracer.kernel.reason().map(|reason| format!("eBPF: {reason}"));
                        let less = "trackers but --pid, most contexts, and strings of system calls";
                        KernelInfo {
                            back_end: format!("tracefs, transcoded (without {less}); {count} events"),
                            lacks: reason.into_iter().chain(lacks).collect(),
                        }
                    }
                }
            }
        }
    }

    /// The kernel's events with their fields.
    pub(crate) fn kernel_events(&mut self, which: ListedEvents) -> Result<Vec<EventInfo>, Failure> {
        let tracer = self.kernel()?;
        if which == ListedEvents::Contexts {
            let info = |name| EventInfo { name, fields: Vec::new() };
            return Ok(contexts::names().map(info).collect());
        }
        if which == ListedEvents::Syscalls {
            let info = |(name, bitness): (&str, Bitness)| {
                let bits = match bitness {
                    Bitness { native: true, compat: true } => "32/64-bit",
                    Bitness { native: true, .. } => "64-bit",
                    _ => "32-bit",
                };
                EventInfo { name: format!("{name} [{bits}]"), fields: Vec::new() }
            };
            return Ok(tracer.catalogue.syscalls().into_iter().map(info).collect());
        }
        let info = |name: &str| {
            let recipe = tracer.catalogue.recipe(&tracer.kernel, name).ok();
            let fields = recipe.iter().flat_map(|recipe| recipe.fields.iter());
            let fields = fields.filter(|field| field.ty != Type::Padding);
            let fields = fields.map(|field| (field.name.to_string(), metadata::kind_word(&field.ty).into()));
            EventInfo { name: name.into(), fields: fields.collect() }
        };
        Ok(tracer.catalogue.names().map(info).collect())
    }

    /// Whether the kernel can record what a rule asks for.
    pub(crate) fn check_kernel_rule(&mut self, rule: &EventRule) -> Result<(), Failure> {
        let refuse = |detail: String| Err(Failure { code: ErrorCode::KernelEnable, detail });
        if let Some(probe) = probe_of(&rule.instrumentation) {
            return self.check_probe(rule, probe);
        }
        let Tracer { kernel, catalogue, .. } = self.kernel()?;
        let (name, has_star) = (rule.pattern.as_str(), rule.pattern.has_star());
        let known = match &rule.instrumentation {
            _ if has_star => Ok(()),
            Instrumentation::Tracepoint => catalogue.recipe(kernel, name).map(drop),
            Instrumentation::Syscall => catalogue.check_syscall(name),
            _ => Ok(()),
        };
        known.or_else(|error| refuse(error.to_string()))?;
        let Some(text) = &rule.filter else { return Ok(()) };
        // One of the events must have what the expression asks for; of a pattern's all may be strangers.
        let mut refusal = None;
        let events: Vec<&str> = names(rule, catalogue).collect();
        for recipe in events.iter().filter_map(|event| catalogue.recipe(kernel, event).ok()) {
            let fits = match kernel.back_end() {
                BackEnd::Programs => Filter::new(kernel, &recipe, text).map(drop),
                BackEnd::Tracefs => Sieve::default().add(&recipe, text),
            };
            match fits {
                Ok(()) => return Ok(()),
                Err(error @ FilterRefusal::Text(_)) => {
                    return Err(Failure { code: ErrorCode::FilterInvalid, detail: error.to_string() });
                }
                Err(error) => refusal = Some(error),
            }
        }
        match refusal.filter(|_| !has_star) {
            Some(error) => Err(Failure { code: ErrorCode::FilterInvalid, detail: error.to_string() }),
            None => Ok(()),
        }
    }

    fn check_probe(&mut self, rule: &EventRule, probe: Probe) -> Result<(), Failure> {
        let name = rule.pattern.as_str();
        if rule.pattern.has_star() || rule.filter.is_some() || name.chars().any(char::is_control) {
            return Err(Failure {
                code: ErrorCode::EventName,
                detail: "a probe has one name and no filter".into(),
            });
        }
        let tracer = self.kernel()?;
        if tracer.kernel.back_end() == BackEnd::Tracefs {
            let detail = "probes need eBPF, and the kernel is recorded by its own tracing".into();
            return Err(Failure { code: ErrorCode::KernelEnable, detail });
        }
        tracer.probes.find(&probe, name).map(drop).map_err(|error| {
            let code = match error {
                ProbeError::NoElf { .. } => ErrorCode::ProbeFile,
                ProbeError::NoUnit { .. }
                | ProbeError::NoKernelSymbol { .. }
                | ProbeError::NoKernelProbe { .. } => ErrorCode::KernelEnable,
                _ => ErrorCode::ProbePlace,
            };
            Failure { code, detail: error.to_string() }
        })
    }

    /// Whether the kernel has a context of this name.
    pub(crate) fn check_kernel_context(&mut self, name: &str) -> Result<(), Failure> {
        let kernel = &self.kernel()?.kernel;
        let refused = |detail: String| Failure { code: ErrorCode::KernelContext, detail };
        let context = contexts::find(name).map_err(|error: ContextError| refused(error.to_string()))?;
        match kernel.back_end() {
            BackEnd::Tracefs if tracefs::context(name).is_none() => {
                Err(refused(format!("context {name}: tracefs does not record it; eBPF would")))
            }
            BackEnd::Tracefs => Ok(()),
            BackEnd::Programs => {
                let wrap = |error| refused(format!("context {name}: {error}"));
                kernel.check_context(&context.field).map_err(wrap)
            }
        }
    }

    /// Whether sessions can follow those that have an attribute of this kind.
    pub(crate) fn check_kernel_attribute(&mut self, attribute: ProcessAttribute) -> Result<(), Failure> {
        match self.kernel()?.kernel.back_end() {
            BackEnd::Programs => Ok(()),
            BackEnd::Tracefs => tracefs::follows(attribute)
                .map_err(|error| Failure { code: ErrorCode::NotSupported, detail: error.to_string() }),
        }
    }

    /// Makes what a session needs to record the kernel, before it starts.
    pub(crate) fn prepare_kernel(&mut self, id: u64) -> Result<(), Failure> {
        let Some(mut session) = self.sessions.remove(&id) else { return Ok(()) };
        let result = self.prepare(&mut session);
        self.sessions.insert(id, session);
        result
    }

    fn prepare(&mut self, session: &mut Session) -> Result<(), Failure> {
        let failed = |detail: String| Failure { code: ErrorCode::KernelStart, detail };
        for index in 0..session.channels.len() {
            if session.channels[index].domain != Domain::Kernel || !session.channels[index].sets.is_empty() {
                continue;
            }
            if !session.traces.contains_key(&Origin::Kernel) {
                // What is enabled before the first start decides on the headers, as with LTTng.
                let tracer = self.kernel()?;
                for channel in session.channels.iter_mut().filter(|c| c.domain == Domain::Kernel) {
                    let count = matching(channel, &tracer.catalogue).len() + 2 * probes(channel).count();
                    let count = count as u32;
                    let fits = count < HeaderForm::Compact.extended_id();
                    channel.header = if fits { HeaderForm::Compact } else { HeaderForm::Large };
                }
                self.ensure_trace(session, Origin::Kernel);
            }
            let set_id = self.new_id();
            let geometry = session.channels[index].geometry(Kind::Ebpf, self.cpus);
            let memory = match self.kernel()?.kernel.back_end() {
                BackEnd::Programs => sillage_tracer_kernel::Channel::rings(geometry, set_id)
                    .map_err(|error| failed(error.to_string())),
                BackEnd::Tracefs => {
                    Recorder::rings(geometry, set_id).map_err(|error| failed(error.to_string()))
                }
            };
            let memory = Arc::new(memory?);
            self.add_kernel_channel(session, index, Arc::clone(&memory))?;
            let set = RingSet {
                memory,
                counters: Arc::default(),
                origin: Origin::Kernel,
                holder: Holder::Shared,
                first_number: 0,
                closing: false,
            };
            self.add_set(session, index, set).map_err(failed)?;
        }
        Ok(())
    }

    /// Has the tracer know a channel with these rings.
    fn add_kernel_channel(
        &mut self,
        session: &Session,
        index: usize,
        memory: Arc<RingMemory>,
    ) -> Result<(), Failure> {
        let failed = |detail: String| Failure { code: ErrorCode::KernelStart, detail };
        let channel = &session.channels[index];
        let contexts = contexts_of(channel);
        let tracer = self.kernel()?;
        tracer.declared.insert(channel.id, Vec::new());
        let kernel = Arc::clone(&tracer.kernel);
        let Some(bell) = &tracer.bell else {
            let doorbell = Arc::clone(&tracer.doorbell);
            let made = Recorder::new(kernel, memory, doorbell, channel.settings.include_self);
            let recorder = Box::new(made.map_err(|error| failed(error.to_string()))?);
            let contexts = contexts.into_iter().filter_map(|c| tracefs::context(&c.field.name)).collect();
            let (channel_id, lost) = (channel.id, Arc::clone(&channel.kernel_lost));
            tracer.tell(Order::Transcode { channel_id, recorder, contexts, lost });
            let followed = followed(session);
            if !followed.is_empty() {
                tracer.tell(Order::Follow { channel_id, followed });
            }
            return Ok(());
        };
        let made = sillage_tracer_kernel::Channel::new(kernel, memory, bell);
        tracer.tell(Order::Add {
            channel_id: channel.id,
            channel: Box::new(made.map_err(|error| failed(error.to_string()))?),
            contexts,
            include_self: channel.settings.include_self,
            lost: Arc::clone(&channel.kernel_lost),
            followed: followed(session),
        });
        Ok(())
    }

    /// Tells the tracer whom a session follows.
    pub(crate) fn follow_kernel(&mut self, id: u64) {
        let (Some(session), Some(tracer)) = (self.sessions.get(&id), self.kernel.as_mut()) else { return };
        for channel in session.of_domain(Domain::Kernel) {
            if tracer.declared.contains_key(&channel.id) {
                tracer.tell(Order::Follow { channel_id: channel.id, followed: followed(session) });
            }
        }
    }

    /// The metadata in front of a kernel trace's event classes.
    pub(crate) fn kernel_header(&self, session: &Session, uuid: [u8; 16], clock_offset: i64) -> String {
        let channels: Vec<&Channel> = session.of_domain(Domain::Kernel).collect();
        let fields = |channel: &&Channel| contexts_of(channel).into_iter().map(|c| c.field).collect();
        let contexts: Vec<Vec<Field>> = channels.iter().map(fields).collect();
        let streams: Vec<metadata::Stream<'_>> = channels
            .iter()
            .zip(&contexts)
            .map(|(channel, contexts)| metadata::Stream { header: channel.header, contexts })
            .collect();
        let header = metadata::Header {
            uuid,
            hostname: &self.machine.hostname,
            kernel_release: &self.machine.kernel_release,
            kernel_version: &self.machine.kernel_version,
            session: &session.name,
            created: &session.created,
            boot_id: &self.machine.boot_id,
            clock_offset,
            version: env!("CARGO_PKG_VERSION"),
        };
        metadata::header(&header, &streams)
    }

    /// Tells the tracer what to record now, as far as that is new to it.
    pub(crate) fn declare_kernel(&mut self) {
        let Some(mut tracer) = self.kernel.take() else { return };
        let mut sessions = std::mem::take(&mut self.sessions);
        for session in sessions.values_mut().filter(|session| session.started_once && !session.destroying) {
            for index in 0..session.channels.len() {
                let id = session.channels[index].id;
                if !tracer.declared.contains_key(&id) {
                    continue;
                }
                let events = match session.active {
                    true => self.kernel_ids(session, index, &mut tracer),
                    false => Vec::new(),
                };
                if tracer.declared.get(&id) != Some(&events) {
                    tracer.tell(Order::Events { channel_id: id, events: events.clone() });
                    tracer.declared.insert(id, events);
                }
            }
        }
        // Whoever is going away records nothing any more.
        let ending = sessions.values().filter(|session| session.destroying);
        for id in ending.flat_map(|session| &session.channels).map(|channel| channel.id) {
            if tracer.declared.get_mut(&id).is_some_and(|events| !std::mem::take(events).is_empty()) {
                tracer.tell(Order::Events { channel_id: id, events: Vec::new() });
            }
        }
        self.sessions = sessions;
        self.kernel = Some(tracer);
    }

    /// The ids of the events that a channel records, as far as their classes are on disk.
    fn kernel_ids(&mut self, session: &mut Session, index: usize, tracer: &mut Tracer) -> Vec<Wanted> {
        let channel = &session.channels[index];
        let stream = channel.number;
        let Some(trace) = session.traces.get_mut(&Origin::Kernel) else { return Vec::new() };
        let mut wanted = Vec::new();
        let mut troubles = Vec::new();
        let mut events = matching(channel, &tracer.catalogue);
        let by_programs = tracer.kernel.back_end() == BackEnd::Programs;
        if by_programs && events.keys().any(|name| tracer.catalogue.may_read_late(name)) {
            events.insert(LATE_STRING, Vec::new());
        }
        for (name, filters) in events.into_iter().take(CLASSES_MAX) {
            let recipe = match tracer.catalogue.recipe(&tracer.kernel, name) {
                Ok(recipe) => recipe,
                Err(error) => {
                    troubles.push(format!("event {name} is not recorded: {error}"));
                    continue;
                }
            };
            let name: Arc<str> = name.into();
            let text = |id| metadata::event_class(&recipe, id, stream);
            if let Some(event_id) = trace.class(stream, Class::Kernel(Arc::clone(&name)), text) {
                wanted.push(Wanted { name, event_id, filters, probe: None });
            }
        }
        for (name, probe) in probes(channel).take(CLASSES_MAX) {
            let events = match tracer.probes.find(&probe, name) {
                Ok(events) => events,
                Err(error) => {
                    troubles.push(format!("event {name} is not recorded: {error}"));
                    continue;
                }
            };
            troubles.extend(tracer.probes.gone(&probe, name));
            for event in events {
                let Some(recipe) = event.recipes.first() else { continue };
                troubles.extend(event.lacks.iter().cloned());
                let class = Class::Probe(event.class(&probe).into());
                let text = |id| metadata::event_class(recipe, id, stream);
                if let Some(event_id) = trace.class(stream, class, text) {
                    let name = event.name.as_str().into();
                    wanted.push(Wanted { name, event_id, filters: Vec::new(), probe: Some(event) });
                }
            }
        }
        troubles.into_iter().for_each(|text| session.channels[index].trouble(text));
        self.write_classes(session, index, Origin::Kernel);
        let trace = session.traces.get(&Origin::Kernel);
        wanted.retain(|event| trace.is_some_and(|trace| trace.ready(stream, event.event_id)));
        wanted
    }

    /// Asks the tracer to confirm what it was told, if it records into one of these channels.
    pub(crate) fn sync_kernel(&mut self, channels: &[u64], sequence: u64) -> bool {
        let concerned =
            |tracer: &&mut Tracer| channels.iter().any(|channel| tracer.declared.contains_key(channel));
        let Some(tracer) = self.kernel.as_mut().filter(concerned) else { return false };
        tracer.tell(Order::Sync { sequence });
        true
    }

    /// The tracer has not done in time what a session asked for: it goes on, but what happened in the meantime is
    /// not in the trace.
    pub(crate) fn kernel_is_late(&mut self, session: u64) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        for channel in session.channels.iter_mut().filter(|channel| channel.domain == Domain::Kernel) {
            let patience_s = KERNEL_PATIENCE.as_secs();
            channel.trouble(format!(
                "not everything was attached {patience_s} s after it was asked for: the rest is recorded from a later time on"
            ));
        }
        self.changed = true;
    }

    /// Takes what the tracer says.
    pub(crate) fn kernel_reports(&mut self) {
        let Some(tracer) = &self.kernel else { return };
        let (mut moved, mut online) = (false, Vec::new());
        for report in tracer.mailbox.take() {
            match report {
                Report::Synced { sequence } => self.synced(KERNEL, sequence),
                Report::Moved => moved = true,
                Report::Online { channel_id, cpus } => online.push((channel_id, cpus)),
                Report::Trouble { channel_id, mut text, log } => {
                    if let Some((event, log)) = log {
                        let name = format!("refused-{}.log", event.replace('/', "_"));
                        match self.rundir.write(&name, &log) {
                            Ok(()) => {
                                text.push_str(&format!(" (the verifier's log: {name} in the run directory)"))
                            }
                            Err(error) => {
                                text.push_str(&format!(" (the verifier's log cannot be kept: {error})"))
                            }
                        }
                    }
                    let mut channels = self.sessions.values_mut().flat_map(|session| &mut session.channels);
                    if let Some(channel) = channels.find(|channel| channel.id == channel_id) {
                        channel.trouble(text);
                        self.changed = true;
                    }
                }
            }
        }
        for (channel_id, cpus) in online {
            cpus.into_iter().for_each(|cpu| self.add_ring(channel_id, cpu));
        }
        if moved {
            self.declare_kernel();
            self.changed = true;
        }
    }

    /// Makes the ring of a CPU that came online: the keeper has it before anybody writes into it.
    fn add_ring(&mut self, channel_id: u64, cpu: u32) {
        let mut channels = self.sessions.values_mut().flat_map(|session| &mut session.channels);
        let Some(channel) = channels.find(|channel| channel.id == channel_id) else { return };
        let Some(set) = channel.sets.first() else { return };
        let memory = Arc::clone(&set.memory);
        let by_tracefs =
            self.kernel.as_ref().is_some_and(|tracer| tracer.kernel.back_end() == BackEnd::Tracefs);
        let added = match by_tracefs {
            true => Recorder::add_memory(&memory, cpu).map_err(|error| error.to_string()),
            false => {
                let added = sillage_tracer_kernel::Channel::add_memory(&memory, cpu);
                added.map_err(|error| error.to_string())
            }
        };
        match added {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                channel.trouble(format!("CPU {cpu}, which came online, is not recorded: {error}"));
                self.changed = true;
                return;
            }
        }
        for (number, map) in memory.maps().filter(|(number, _)| *number == cpu) {
            self.keep(Key::Ring(memory.set_id(), number), &[map]);
        }
        if let Some(tracer) = &mut self.kernel {
            tracer.tell(Order::Ring { channel_id, cpu });
        }
    }

    /// A channel's session is gone.
    pub(crate) fn kernel_channel_gone(&mut self, channel_id: u64) {
        if let Some(tracer) = &mut self.kernel
            && tracer.declared.remove(&channel_id).is_some()
        {
            tracer.tell(Order::Remove { channel_id });
        }
    }

    /// Goes on recording the kernel where an earlier worker was killed: its rings are there, its programs
    /// went with it.
    pub(crate) fn resume_kernel(&mut self) {
        let mut sessions = std::mem::take(&mut self.sessions);
        for session in sessions.values_mut().filter(|session| !session.destroying) {
            for index in 0..session.channels.len() {
                let channel = &session.channels[index];
                let set = channel.sets.first().filter(|_| channel.domain == Domain::Kernel);
                let Some(memory) = set.map(|set| Arc::clone(&set.memory)) else { continue };
                if let Err(failure) = self.add_kernel_channel(session, index, memory) {
                    let text = format!("{}: {}", failure.code.text(), failure.detail);
                    session.channels[index].trouble(text);
                }
            }
        }
        self.sessions = sessions;
        self.declare_kernel();
    }
}

/// The contexts of a channel. They were there when they were added.
fn contexts_of(channel: &Channel) -> Vec<Context> {
    channel.contexts.iter().filter_map(|name| contexts::find(name).ok()).collect()
}

/// Names of the events that a rule takes.
fn names<'a>(rule: &'a EventRule, catalogue: &'a Catalogue) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    let pattern = &rule.pattern;
    match rule.instrumentation {
        Instrumentation::Tracepoint => Box::new(catalogue.names().filter(|name| pattern.matches(name))),
        Instrumentation::Syscall => Box::new(catalogue.syscall_events(|name| match name {
            Some(name) => pattern.matches(name),
            None => pattern.as_str() == "*",
        })),
        _ => Box::new(std::iter::empty()),
    }
}

/// Names of the events that a channel records, with the filters of which they must pass one (none:
/// always).
fn matching<'a>(channel: &'a Channel, catalogue: &'a Catalogue) -> BTreeMap<&'a str, Vec<Arc<str>>> {
    let mut found: BTreeMap<&str, Option<Vec<Arc<str>>>> = BTreeMap::new();
    for rule in channel.rules.iter().filter(|rule| rule.enabled && channel.enabled) {
        let filter: Option<Arc<str>> = rule.filter.as_deref().map(Arc::from);
        for name in names(rule, catalogue) {
            let filters = found.entry(name).or_insert_with(|| Some(Vec::new()));
            match (&filter, filters.as_mut()) {
                (Some(filter), Some(filters)) => filters.push(Arc::clone(filter)),
                (None, _) => *filters = None,
                (_, None) => {}
            }
        }
    }
    found.into_iter().map(|(name, filters)| (name, filters.unwrap_or_default())).collect()
}
