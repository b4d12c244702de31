//! The thread that attaches and detaches kernel programs: that takes about a millisecond for each event,
//! for which the loop over the sockets must not stand still.
//!
//! It is told what to record as programs are: channel by channel, the whole list each time; and it
//! confirms as programs do. What it attached ends with it.

use super::transcoded::Transcoded;
use crate::limits::KERNEL_LOOK_PERIOD;
use rustix::event::EventfdFlags;
use sillage_bpf::Label;
use sillage_tracer_kernel::channel::Silenced;
use sillage_tracer_kernel::contexts::{Context, counters::Counter};
use sillage_tracer_kernel::filters::{Filter, FilterRefusal};
use sillage_tracer_kernel::late::LATE_STRING;
use sillage_tracer_kernel::probes::{Identity, ProbeEvent};
use sillage_tracer_kernel::program::Guard;
use sillage_tracer_kernel::sys::SysError;
use sillage_tracer_kernel::tracefs::Recorder;
use sillage_tracer_kernel::trackers::{Followed, Trackers};
use sillage_tracer_kernel::{
    Catalogue, Channel, Code, Field, GenerateError, Kernel, Prepared, Recipe, TracerError, guard, parallel,
    statedump,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};

/// An event that a channel is to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// LTTng's name of it.
    pub(crate) name: Arc<str>,
    /// Its number in the channel's records.
    pub(crate) event_id: u32,
    /// Expressions of which it must pass one; none: it is recorded always.
    pub(crate) filters: Vec<Arc<str>>,
    /// For events of probes: where they are. The others are in the catalogue.
    pub(crate) probe: Option<Arc<ProbeEvent>>,
}

/// What the thread is told.
pub(crate) enum Order {
    /// A new channel, which records nothing yet.
    Add {
        /// The daemon's number of it.
        channel_id: u64,
        /// The channel.
        channel: Box<Channel>,
        /// What stands in front of every event's fields.
        contexts: Vec<Context>,
        /// What this process itself does is recorded too.
        include_self: bool,
        /// Where its losses outside of rings are shown.
        lost: Arc<AtomicU64>,
        /// Whom it follows.
        followed: Followed,
    },
    /// A new channel of the back end tracefs.
    Transcode {
        /// The daemon's number of it.
        channel_id: u64,
        /// Its instance.
        recorder: Box<Recorder>,
        /// What stands in front of every event's fields.
        contexts: Vec<Field>,
        /// Where its losses outside of rings are shown.
        lost: Arc<AtomicU64>,
    },
    /// Whom a channel follows from now on.
    Follow {
        /// Which.
        channel_id: u64,
        /// All sets that have not everything in them.
        followed: Followed,
    },
    /// What a channel records from now on.
    Events {
        /// Which.
        channel_id: u64,
        /// All of it.
        events: Vec<Wanted>,
    },
    /// A CPU came online, whose ring is in the channel's memory.
    Ring {
        /// Which channel.
        channel_id: u64,
        /// Which CPU.
        cpu: u32,
    },
    /// A channel is gone.
    Remove {
        /// Which.
        channel_id: u64,
    },
    /// Report when everything up to here is done.
    Sync {
        /// What to report.
        sequence: u64,
    },
}

/// What the thread says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Everything up to this is done.
    Synced {
        /// See [`Order::Sync`].
        sequence: u64,
    },
    /// A probed file is not what it was.
    Moved,
    /// CPUs are online that have no ring in a channel.
    Online {
        /// In which channel.
        channel_id: u64,
        /// Which CPUs.
        cpus: Vec<u32>,
    },
    /// An event is not recorded.
    Trouble {
        /// In which channel.
        channel_id: u64,
        /// Why.
        text: String,
        /// Of which program, and what the verifier said of it.
        log: Option<(String, String)>,
    },
}

/// Why an event is not recorded.
struct Refusal {
    text: String,
    /// All that the verifier said.
    log: Option<String>,
}

impl From<String> for Refusal {
    fn from(text: String) -> Refusal {
        Refusal { text, log: None }
    }
}

impl From<TracerError> for Refusal {
    fn from(error: TracerError) -> Refusal {
        let text = error.to_string();
        let log = match error {
            TracerError::Sys(SysError::Refused { log, .. }) => Some(log),
            _ => None,
        };
        Refusal { text, log }
    }
}

/// Reports, with a descriptor that is readable when there are some.
pub(crate) struct Mailbox {
    reports: Mutex<Vec<Report>>,
    event: OwnedFd,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Mailbox> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Mailbox { reports: Mutex::default(), event })
    }

    /// All reports since the last call.
    pub(crate) fn take(&self) -> Vec<Report> {
        // A count that is not there to be read only means that nothing was reported since.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut self.reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn post(&self, report: Report) {
        self.reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(report);
        // It can only fail when the count is full, and then the descriptor is readable anyway.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

struct Recording {
    channel: Box<Channel>,
    contexts: Vec<Field>,
    /// What counters among them count with.
    _counters: Vec<Counter>,
    lost: Arc<AtomicU64>,
    events: Vec<Wanted>,
    /// None as long as everybody was followed.
    trackers: Option<Trackers>,
}

/// Stack of a thread that detaches, bytes.
const DETACHING_STACK_BYTES: usize = 64 << 10;

impl Recording {
    /// Detaches behind us what records nothing any more.
    fn detach(&self, silenced: Silenced) {
        // A CPU without a ring has nothing that is closed to programs: they would go on to count losses there.
        if silenced.is_empty() || !self.channel.without_ring().is_empty() {
            return drop(silenced);
        }
        let thread = std::thread::Builder::new().name("detaching".into()).stack_size(DETACHING_STACK_BYTES);
        // Where there can be no thread, it is dropped here.
        let _ = thread.spawn(move || drop(silenced));
    }
}

/// What the thread has.
pub(crate) struct Thread {
    kernel: Arc<Kernel>,
    catalogue: Arc<Catalogue>,
    mailbox: Arc<Mailbox>,
    recordings: BTreeMap<u64, Recording>,
    /// Channels of the back end tracefs.
    transcoded: BTreeMap<u64, Transcoded>,
    /// This process as the kernel's first namespace numbers it.
    own: u32,
    /// Probed files, as they were seen last.
    seen: BTreeMap<PathBuf, Option<Identity>>,
    /// Channels and CPUs for which a ring was asked, once each.
    asked: BTreeSet<(u64, u32)>,
}

impl Thread {
    pub(crate) fn new(kernel: Arc<Kernel>, catalogue: Arc<Catalogue>, mailbox: Arc<Mailbox>) -> Thread {
        // A kernel that does not tell is asked by a daemon outside of containers, which knows it.
        let own = guard::own_number().unwrap_or_else(|_| std::process::id());
        let (recordings, transcoded, seen) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let asked = BTreeSet::new();
        Thread { kernel, catalogue, mailbox, recordings, transcoded, own, seen, asked }
    }

    /// Does what it is told until nobody tells it anything any more.
    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let is_recording = self.recordings.values().any(|recording| !recording.events.is_empty())
                || self.transcoded.values().any(Transcoded::is_recording);
            let order = match is_recording {
                true => orders.recv_timeout(KERNEL_LOOK_PERIOD),
                false => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {
                    self.count_losses();
                    self.look_at_files();
                    self.look_at_cpus();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Add { channel_id, mut channel, contexts, include_self, lost, followed } => {
                if !include_self {
                    channel.leave_out(self.own);
                }
                let fields = contexts.iter().map(|context| context.field.clone()).collect();
                let recording = Recording {
                    channel,
                    contexts: fields,
                    _counters: contexts.into_iter().filter_map(|context| context.counter).collect(),
                    lost,
                    events: Vec::new(),
                    trackers: None,
                };
                self.recordings.insert(channel_id, recording);
                self.follow(channel_id, &followed);
            }
            Order::Follow { channel_id, followed } => self.follow(channel_id, &followed),
            Order::Events { channel_id, events } => self.record(channel_id, events),
            Order::Transcode { channel_id, recorder, contexts, lost } => {
                self.transcoded.insert(channel_id, Transcoded::new(recorder, contexts, lost));
            }
            Order::Ring { channel_id, cpu } => {
                let recording = self.recordings.get_mut(&channel_id);
                let transcoded = self.transcoded.get_mut(&channel_id);
                let added = recording
                    .map(|recording| recording.channel.add_ring(cpu).map_err(|error| error.to_string()));
                let added = added.or_else(|| transcoded.map(|transcoded| transcoded.add_ring(cpu)));
                if let Some(Err(error)) = added {
                    let text = format!("CPU {cpu}, which came online, is not recorded: {error}");
                    self.mailbox.post(Report::Trouble { channel_id, text, log: None });
                }
            }
            Order::Remove { channel_id } => {
                self.asked.retain(|(of, _)| *of != channel_id);
                drop(self.recordings.remove(&channel_id));
                drop(self.transcoded.remove(&channel_id));
            }
            Order::Sync { sequence } => {
                self.count_losses();
                self.mailbox.post(Report::Synced { sequence });
            }
        }
    }

    fn record(&mut self, channel_id: u64, events: Vec<Wanted>) {
        let Thread { kernel, catalogue, mailbox, .. } = self;
        let trouble = |text| mailbox.post(Report::Trouble { channel_id, text, log: None });
        if let Some(transcoded) = self.transcoded.get_mut(&channel_id) {
            return transcoded.record(catalogue, events, trouble);
        }
        let Some(recording) = self.recordings.get_mut(&channel_id) else { return };
        if events.is_empty() {
            // The last cut must not come before the last record.
            match recording.channel.silence() {
                Ok(silenced) => recording.detach(silenced),
                Err(error) => trouble(error.to_string()),
            }
        }
        let gone = recording.events.iter().filter(|event| !events.contains(event));
        let gone: BTreeSet<u32> = gone.map(|event| event.event_id).collect();
        gone.iter().for_each(|event_id| recording.channel.disable(*event_id));
        // Versions of a probed file share an event; what was detached with the one that is gone comes back.
        let is_there = |event: &Wanted| recording.events.contains(event) && !gone.contains(&event.event_id);
        let new: Vec<&Wanted> = events.iter().filter(|event| !is_there(event)).collect();
        let Recording { channel, contexts, trackers, .. } = recording;
        let (late, new): (Vec<&Wanted>, Vec<&Wanted>) =
            new.into_iter().partition(|event| &*event.name == LATE_STRING);
        // In front of the calls whose strings it reads again.
        for event in late {
            if let Err(error) = channel.read_late(event.event_id, contexts) {
                trouble(format!("strings that are not in memory at entry are not recorded: {error}"));
            }
        }
        let setting = Setting { kernel, catalogue, contexts, trackers: trackers.as_ref() };
        let (dumped, recorded): (Vec<&Wanted>, Vec<&Wanted>) =
            new.into_iter().partition(|event| catalogue.is_dumped(&event.name));
        let dumps = !dumped.is_empty();
        for (event, Refusal { text, log }) in setting.enable(channel, &recorded) {
            let text = format!("event {event} is not recorded: {text}");
            let log = log.map(|log| (event.to_owned(), log));
            mailbox.post(Report::Trouble { channel_id, text, log });
        }
        if dumps {
            let id_of =
                |name: &str| events.iter().find(|event| &*event.name == name).map(|event| event.event_id);
            let from = statedump::probe(kernel);
            match statedump::run(&recording.channel, &from, &recording.contexts, id_of) {
                Ok(missing) => missing.into_iter().for_each(|text| trouble(format!("state dump: {text}"))),
                Err(error) => trouble(format!("state dump: {error}")),
            }
        }
        recording.events = events;
    }

    fn follow(&mut self, channel_id: u64, followed: &Followed) {
        let Thread { kernel, catalogue, mailbox, .. } = self;
        let trouble = |text| mailbox.post(Report::Trouble { channel_id, text, log: None });
        if let Some(transcoded) = self.transcoded.get_mut(&channel_id) {
            return transcoded.follow(followed, trouble);
        }
        let Some(recording) = self.recordings.get_mut(&channel_id) else { return };
        let known = recording.trackers.take();
        let is_new = known.is_none();
        if is_new && followed.is_empty() {
            return;
        }
        let made = known.map_or_else(Trackers::create, Ok);
        match made.and_then(|trackers| trackers.follow(followed).map(|()| trackers)) {
            Ok(trackers) => recording.trackers = Some(trackers),
            Err(error) => return trouble(format!("whom the session follows did not change: {error}")),
        }
        if !is_new || recording.events.is_empty() {
            return;
        }
        // The programs that are attached do not ask whom to follow.
        let Recording { channel, contexts, events, trackers, .. } = recording;
        let setting = Setting { kernel, catalogue, contexts, trackers: trackers.as_ref() };
        channel.replace(|channel| {
            let attached = |event: &&Wanted| !catalogue.is_dumped(&event.name) && &*event.name != LATE_STRING;
            let recorded = events.iter().filter(attached);
            for (event, refusal) in setting.enable(channel, &recorded.collect::<Vec<_>>()) {
                trouble(format!("event {event} is not recorded any more: {}", refusal.text));
            }
        });
    }

    /// Tells of probed files that have changed since they were looked at last.
    fn look_at_files(&mut self) {
        let events = self.recordings.values().flat_map(|recording| &recording.events);
        let files = events.filter_map(|event| event.probe.as_ref()?.file.as_ref());
        let mut versions: BTreeMap<&Path, Vec<Identity>> = BTreeMap::new();
        for file in files {
            versions.entry(&file.path).or_default().push(file.identity);
        }
        let mut moved = false;
        let mut seen = BTreeMap::new();
        for (path, versions) in versions {
            let now = Identity::of(path).ok();
            let is_known = now.is_some_and(|now| versions.contains(&now));
            moved |= !is_known && self.seen.get(path) != Some(&now);
            seen.insert(path.to_owned(), now);
        }
        self.seen = seen;
        if moved {
            self.mailbox.post(Report::Moved);
        }
    }

    /// Asks for rings for CPUs that came online. Until they are there, what is lost is counted.
    fn look_at_cpus(&mut self) {
        let programs = self.recordings.iter().map(|(id, recording)| (id, recording.channel.without_ring()));
        let transcoded = self.transcoded.iter().map(|(id, transcoded)| (id, transcoded.without_ring()));
        for (channel_id, missing) in programs.chain(transcoded) {
            let missing = missing.into_iter();
            let cpus: Vec<u32> = missing.filter(|cpu| self.asked.insert((*channel_id, *cpu))).collect();
            if !cpus.is_empty() {
                self.mailbox.post(Report::Online { channel_id: *channel_id, cpus });
            }
        }
    }

    fn count_losses(&self) {
        for recording in self.recordings.values() {
            let loss = recording.channel.loss();
            recording.lost.store(loss.absent + loss.recursion, Ordering::Relaxed);
        }
    }
}

/// What the programs of a channel have in common.
struct Setting<'a> {
    kernel: &'a Kernel,
    catalogue: &'a Catalogue,
    contexts: &'a [Field],
    trackers: Option<&'a Trackers>,
}

impl Setting<'_> {
    /// Loads and attaches events, on all processors; returns those that could not be, and why.
    fn enable<'e>(&self, channel: &mut Channel, events: &[&'e Wanted]) -> Vec<(&'e str, Refusal)> {
        let all = parallel::each(events, |event| self.prepare(channel, event));
        let mut refused = Vec::new();
        for (event, prepared) in events.iter().zip(all) {
            let adopted = prepared.and_then(|prepared| {
                let mut prepared = prepared.into_iter();
                prepared.try_for_each(|prepared| Ok(channel.adopt(prepared)?))
            });
            refused.extend(adopted.err().map(|refusal: Refusal| (&*event.name, refusal)));
        }
        refused
    }

    /// Loads an event: a program for each of its places; none if no record of it could pass its filters.
    fn prepare(&self, channel: &Channel, event: &Wanted) -> Result<Vec<Prepared>, Refusal> {
        if let Some(probe) = &event.probe {
            return probe.recipes.iter().map(|recipe| self.load(channel, event, recipe, &[])).collect();
        }
        let recipe = self.catalogue.recipe(self.kernel, &event.name).map_err(|error| error.to_string())?;
        let mut filters = Vec::new();
        for text in &event.filters {
            match Filter::new(self.kernel, &recipe, text) {
                Ok(filter) => filters.push(filter),
                // What an event has not is not so, as with LTTng.
                Err(FilterRefusal::Missing { .. }) => {}
                Err(refusal) => return Err(format!("filter '{text}': {refusal}").into()),
            }
        }
        if filters.is_empty() && !event.filters.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![self.load(channel, event, &recipe, &filters)?])
    }

    fn load(
        &self,
        channel: &Channel,
        event: &Wanted,
        recipe: &Recipe,
        filters: &[Filter],
    ) -> Result<Prepared, Refusal> {
        let follows =
            self.trackers.map(|trackers| |code: &mut Code<'_>, reject| trackers.guard(code, reject));
        let passes = |code: &mut Code<'_>, reject| one_of(filters, code, reject);
        let mut guards: Vec<Guard<'_>> = Vec::new();
        guards.extend(follows.as_ref().map(|guard| guard as Guard<'_>));
        if !filters.is_empty() {
            guards.push(&passes);
        }
        Ok(channel.prepare(recipe, event.event_id, self.contexts, &guards)?)
    }
}

/// Rejects what none of the filters lets pass.
fn one_of(filters: &[Filter], code: &mut Code<'_>, reject: Label) -> Result<(), GenerateError> {
    let pass = code.asm.label();
    for filter in filters {
        let next = code.asm.label();
        filter.guard(code, next)?;
        code.asm.jump(pass);
        code.asm.bind(next);
    }
    code.asm.jump(reject);
    code.asm.bind(pass);
    Ok(())
}
