//! What the daemon knows of recording: sessions with their channels, rules, ring sets and traces.
//!
//! Values and lookups only; who does what with them is in `recording` and `commands`.

use crate::link::Key;
use crate::trace::Trace;
use sillage_consumer::{Counters, Files, shared::RingMemory};
use sillage_model::{
    BlockingTimeout, ChannelSettings, Domain, EventRule, LossMode, ProcessAttribute, Tracked,
};
use sillage_protocol::control::{ChannelTotals, SessionInfo};
use sillage_ring::{Geometry, HeaderForm, Kind};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Troubles that a summary names.
const TROUBLES_MAX: usize = 32;

/// Whose records rings, traces and consumers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The kernel's.
    Kernel,
    /// Those of this user's programs.
    User(u32),
}

impl Origin {
    /// The domain whose channels record it.
    pub fn domain(self) -> Domain {
        match self {
            Origin::Kernel => Domain::Kernel,
            Origin::User(_) => Domain::User,
        }
    }
}

/// Whose a ring set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// All programs of the user that have rseq; or the kernel.
    Shared,
    /// One process without rseq.
    Process {
        /// Its process id.
        pid: u32,
        /// Its connection; None after a restart of the daemon, until it reconnects.
        program: Option<u64>,
    },
}

/// A ring set of a channel.
pub struct RingSet {
    /// Its memory.
    pub memory: Arc<RingMemory>,
    /// What became of its packets.
    pub counters: Arc<Counters>,
    /// Who writes it.
    pub origin: Origin,
    /// Which of a user's programs.
    pub holder: Holder,
    /// Number of its first stream.
    pub first_number: u32,
    /// Its programs are gone; it is being emptied.
    pub closing: bool,
}

impl RingSet {
    /// What the keeper keeps of it, each under its key: both files of a set of programs, the map of each
    /// ring of the kernel's.
    pub fn for_keeping(&self) -> Vec<(Key, Vec<BorrowedFd<'_>>)> {
        let id = self.memory.set_id();
        match self.origin {
            Origin::User(_) => vec![(Key::Set(id), self.memory.for_keeping().to_vec())],
            Origin::Kernel => self.memory.maps().map(|(cpu, map)| (Key::Ring(id, cpu), vec![map])).collect(),
        }
    }
}

/// A channel.
pub struct Channel {
    /// Its number for programs, never used twice.
    pub id: u64,
    /// Name, once in its domain.
    pub name: String,
    /// Whose events it takes.
    pub domain: Domain,
    /// Its number among the session's channels of its domain: its stream id in their traces.
    pub number: usize,
    /// Settings.
    pub settings: ChannelSettings,
    /// Event headers of its records.
    pub header: HeaderForm,
    /// Context fields of its records.
    pub contexts: Vec<String>,
    /// Disabled channels record nothing.
    pub enabled: bool,
    /// What it records.
    pub rules: Vec<EventRule>,
    /// Where it records.
    pub sets: Vec<RingSet>,
    /// Rings of single processes so far.
    pub private_rings: u32,
    /// Totals of the sets that are gone.
    pub past: ChannelTotals,
    /// Records that the kernel lost outside of the rings, written by whoever asks the kernel.
    pub kernel_lost: Arc<AtomicU64>,
    /// What went wrong outside of the sets.
    pub troubles: Vec<String>,
}

impl Channel {
    /// A new channel without rules.
    pub fn new(id: u64, name: String, domain: Domain, number: usize, settings: ChannelSettings) -> Channel {
        Channel {
            id,
            name,
            domain,
            number,
            settings,
            header: HeaderForm::Large,
            contexts: Vec::new(),
            enabled: true,
            rules: Vec::new(),
            sets: Vec::new(),
            private_rings: 0,
            past: ChannelTotals::default(),
            kernel_lost: Arc::default(),
            troubles: Vec::new(),
        }
    }

    /// The shape of its sets of this kind.
    pub fn geometry(&self, kind: Kind, cpus: u32) -> Geometry {
        Geometry {
            kind,
            cpus: if kind == Kind::Locked { 1 } else { cpus },
            subbuf_shift: self.settings.subbuf_bytes.ilog2(),
            subbuf_count: self.settings.subbuf_count as u32,
            overwrite: self.settings.loss_mode == LossMode::Overwrite,
            ordered: self.settings.ordered_clock,
            header: self.header,
        }
    }

    /// True if producers may wait for room.
    pub fn blocks(&self) -> bool {
        self.settings.blocking_timeout != BlockingTimeout::None
    }

    /// What it recorded and lost so far, in all its sets.
    pub fn totals(&self) -> ChannelTotals {
        let mut totals = ChannelTotals { channel: self.name.clone(), ..self.past.clone() };
        for set in &self.sets {
            add_set(&mut totals, set);
        }
        totals.kernel_lost += self.kernel_lost.load(Ordering::Relaxed);
        totals.troubles.extend(self.troubles.iter().cloned());
        totals.troubles.truncate(TROUBLES_MAX);
        totals
    }

    /// Remembers what went wrong, once.
    pub fn trouble(&mut self, text: String) {
        if self.troubles.len() < TROUBLES_MAX && !self.troubles.contains(&text) {
            self.troubles.push(text);
        }
    }

    /// Takes a set out; its totals stay.
    pub fn forget_set(&mut self, set_id: u64) -> Option<RingSet> {
        let at = self.sets.iter().position(|set| set.memory.set_id() == set_id)?;
        let set = self.sets.swap_remove(at);
        add_set(&mut self.past, &set);
        self.past.troubles.truncate(TROUBLES_MAX);
        Some(set)
    }
}

/// The file system with the rights of this user.
pub fn files_of(uid: u32, gid: u32) -> Files {
    let own = rustix::process::geteuid().as_raw() == uid;
    Files { owner: (!own).then_some((uid, gid)) }
}

fn add_set(totals: &mut ChannelTotals, set: &RingSet) {
    let counters = set.counters.snapshot();
    totals.packets += counters.packets;
    totals.bytes += counters.bytes;
    totals.overwritten += counters.overwritten;
    totals.dropped_packets += counters.dropped_packets;
    totals.dropped_bytes += counters.dropped_bytes;
    totals.dropped_records += counters.dropped_records;
    totals.uncounted_packets += counters.uncounted_packets;
    for cpu in set.memory.active() {
        for (total, lost) in totals.lost.iter_mut().zip(set.memory.lost(cpu)) {
            // The rings' words are their programs': nonsense in them must not stop us.
            *total = total.saturating_add(lost);
        }
    }
    for trouble in counters.troubles {
        if totals.troubles.len() < TROUBLES_MAX {
            totals.troubles.push(trouble);
        }
    }
}

/// A session.
pub struct Session {
    /// Name.
    pub name: String,
    /// Directory of its trace.
    pub output: PathBuf,
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// Local time of its creation.
    pub created: String,
    /// Recording now.
    pub active: bool,
    /// Was started once: channels are fixed.
    pub started_once: bool,
    /// Is going away: nobody finds it any more.
    pub destroying: bool,
    /// Channels, in the order in which they were made.
    pub channels: Vec<Channel>,
    /// Traces by whose they are.
    pub traces: BTreeMap<Origin, Trace<Files>>,
    /// What the clocks of all its traces say of themselves: CLOCK_REALTIME − CLOCK_MONOTONIC, ns, taken
    /// once, so that they stand on one timeline.
    pub clock_offset: Option<i64>,
    /// Programs that did not confirm the last stop.
    pub unanswered: Vec<String>,
    /// Token of the `record` command whose programs alone are recorded; 0: all.
    pub record: u64,
    /// That command, with whose end the session ends.
    pub recorder: Option<Recorder>,
    /// Inclusion sets that have not everything in them.
    pub tracked: BTreeMap<(Domain, ProcessAttribute), InclusionSet>,
}

/// The process of a `record` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot: numbers are used again.
    pub started_ticks: u64,
}

/// The values of an inclusion set, and what number each stands for.
pub type InclusionSet = BTreeMap<Tracked, u64>;

impl Session {
    /// For the command line.
    pub fn info(&self) -> SessionInfo {
        let output = self.output.to_string_lossy().into_owned();
        SessionInfo { name: self.name.clone(), output, uid: self.uid, active: self.active }
    }

    /// With whose rights its files are made.
    pub fn files(&self) -> Files {
        files_of(self.uid, self.gid)
    }

    /// True if programs of this user that registered with this token are recorded: everybody's by
    /// root, else one's own; by the session of a `record` command only those of its command.
    pub fn records(&self, uid: u32, record: u64) -> bool {
        let is_wanted = self.record == 0 || self.record == record;
        self.started_once && !self.destroying && (self.uid == 0 || self.uid == uid) && is_wanted
    }

    /// True if this program of a user is in the inclusion sets of its domain. `vpid` is its number as
    /// it sees itself; namespaces of users are not looked into, as LTTng does not.
    pub fn follows(&self, vpid: u32, uid: u32, gid: u32) -> bool {
        let is_in = |attribute, id: u32| {
            let set = self.tracked.get(&(Domain::User, attribute));
            set.is_none_or(|set| set.values().any(|number| *number == u64::from(id)))
        };
        is_in(ProcessAttribute::Vpid, vpid)
            && is_in(ProcessAttribute::Vuid, uid)
            && is_in(ProcessAttribute::Vgid, gid)
    }

    /// The channel of this name.
    pub fn channel(&mut self, domain: Domain, name: &str) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|channel| channel.domain == domain && channel.name == name)
    }

    /// The channels of a domain, in the order of their ids in its traces.
    pub fn of_domain(&self, domain: Domain) -> impl Iterator<Item = &Channel> {
        self.channels.iter().filter(move |channel| channel.domain == domain)
    }

    /// Totals of each channel.
    pub fn totals(&self) -> Vec<ChannelTotals> {
        let with_classes = |channel: &Channel| {
            let mut totals = channel.totals();
            let traces = self.traces.values().filter(|trace| trace.origin.domain() == channel.domain);
            totals.refused_classes += traces.map(|trace| trace.refused(channel.number)).sum::<u64>();
            totals
        };
        self.channels.iter().map(with_classes).collect()
    }
}
