//! What a worker leaves for the next one, as bytes: everything in `model` that cannot be seen in the
//! rings or on disk.
//!
//! It is written to a fresh memory file whenever something changed, before anybody is told of the
//! change, and handed to the keeper, which only holds it. Both ends are the same program, so there is
//! one version; another one is refused, and then the sessions are gone.

use crate::model::{Channel, Holder, InclusionSet, Origin, Recorder, RingSet, Session};
use crate::trace::{Class, Trace};
use rustix::fs::MemfdFlags;
use sillage_consumer::{Counters, shared::RingMemory};
use sillage_model::limits::{
    CHANNELS_MAX, CONTEXTS_MAX, NAME_BYTES_MAX, PROGRAMS_MAX, RULES_MAX, SESSIONS_MAX, TRACKED_MAX,
};
use sillage_model::{Domain, ProcessAttribute};
use sillage_protocol::codec::{DecodeError, FRAME_HEADER_BYTES, Reader, Writer};
use sillage_protocol::control::{
    ChannelTotals, PATH_BYTES_MAX, get_attribute, get_counts, get_domain, get_rule, get_settings,
    get_tracked, put_attribute, put_counts, put_domain, put_rule, put_settings, put_tracked,
};
use sillage_protocol::program::{get_tracepoint, put_tracepoint};
use sillage_ring::{HeaderForm, Kind};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const VERSION: u32 = 5;
/// Stands for the kernel where a user's number would stand.
const KERNEL: u32 = u32::MAX;

/// The numbers of the daemon that outlive a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Next number for a session, channel or ring set.
    pub next_id: u64,
    /// Programs thrown out for what they sent.
    pub refused_programs: u64,
    /// Why the last of them was.
    pub last_refusal: String,
}

/// A set that was kept: where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SetEntry {
    set_id: u64,
    origin: Origin,
    pid: u32,
    first_number: u32,
    troubles: Vec<String>,
}

/// Writes everything to a new memory file.
///
/// # Errors
/// No memory or descriptors.
pub fn save(numbers: &Numbers, sessions: &BTreeMap<u64, Session>) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("sillage-state", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(&encode(numbers, sessions))?;
    Ok(file.into())
}

/// Reads what an earlier worker saved. `set` gives the memory of a ring set, if it was kept and fits.
///
/// # Errors
/// The file cannot be read, or is of another version.
pub fn load(
    state: OwnedFd,
    cpus: u32,
    mut set: impl FnMut(u64, sillage_ring::Geometry) -> Option<Arc<RingMemory>>,
) -> io::Result<(Numbers, BTreeMap<u64, Session>)> {
    let mut bytes = Vec::new();
    let mut file = File::from(state);
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let body = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    decode(body, cpus, &mut set).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn encode(numbers: &Numbers, sessions: &BTreeMap<u64, Session>) -> Vec<u8> {
    let mut w = Writer::frame(0, 0);
    w.u32(VERSION);
    w.u64(numbers.next_id);
    w.u64(numbers.refused_programs);
    w.str(&numbers.last_refusal);
    w.count(sessions.len());
    for (id, session) in sessions {
        w.u64(*id);
        put_session(&mut w, session);
    }
    w.finish()
}

fn put_session(w: &mut Writer, s: &Session) {
    w.str(&s.name);
    w.str(&s.output.to_string_lossy());
    w.u32(s.uid);
    w.u32(s.gid);
    w.str(&s.created);
    w.bool(s.active);
    w.bool(s.started_once);
    w.bool(s.destroying);
    w.list(&s.unanswered, |w, name| w.str(name));
    w.u64(s.record);
    w.option(s.recorder, |w, recorder| {
        w.u32(recorder.pid);
        w.u64(recorder.started_ticks);
    });
    w.option(s.clock_offset, |w, offset| w.u64(offset as u64));
    w.count(s.tracked.len());
    for ((domain, attribute), set) in &s.tracked {
        put_domain(w, *domain);
        put_attribute(w, *attribute);
        w.count(set.len());
        for (value, id) in set {
            put_tracked(w, value);
            w.u64(*id);
        }
    }
    w.list(&s.channels, |w, c| {
        w.u64(c.id);
        w.str(&c.name);
        put_domain(w, c.domain);
        w.u32(c.number as u32);
        put_settings(w, &c.settings);
        w.bool(c.header == HeaderForm::Compact);
        w.list(&c.contexts, |w, name| w.str(name));
        w.bool(c.enabled);
        w.list(&c.rules, put_rule);
        w.u32(c.private_rings);
        put_past(w, &c.past, c.kernel_lost.load(Ordering::Relaxed));
        put_troubles(w, &c.troubles);
        w.list(&c.sets, |w, set| {
            w.u64(set.memory.set_id());
            put_origin(w, set.origin);
            w.u32(match set.holder {
                Holder::Shared => 0,
                Holder::Process { pid, .. } => pid,
            });
            w.u32(set.first_number);
            put_troubles(w, &set.counters.snapshot().troubles);
        });
    });
    w.count(s.traces.len());
    for trace in s.traces.values() {
        put_origin(w, trace.origin);
        trace.uuid.iter().for_each(|byte| w.u8(*byte));
        let (written, pending) = trace.metadata();
        w.u64(written);
        w.str(pending);
        let classes: Vec<_> = trace.classes().collect();
        w.list(&classes, |w, (classes, refused)| {
            w.u64(*refused);
            w.list(classes, put_class);
        });
    }
}

fn put_origin(w: &mut Writer, origin: Origin) {
    w.u32(match origin {
        Origin::Kernel => KERNEL,
        Origin::User(uid) => uid,
    });
}

fn get_origin(r: &mut Reader<'_>) -> Result<Origin, DecodeError> {
    Ok(match r.u32()? {
        KERNEL => Origin::Kernel,
        uid => Origin::User(uid),
    })
}

fn put_class(w: &mut Writer, class: &Class) {
    match class {
        Class::Tracepoint(tracepoint) => {
            w.u8(0);
            put_tracepoint(w, tracepoint);
        }
        Class::Kernel(name) => {
            w.u8(1);
            w.str(name);
        }
        Class::Probe(words) => {
            w.u8(2);
            w.str(words);
        }
    }
}

fn get_class(r: &mut Reader<'_>) -> Result<Class, DecodeError> {
    Ok(match r.u8()? {
        0 => Class::Tracepoint(Arc::new(get_tracepoint(r)?)),
        1 => Class::Kernel(r.string(NAME_BYTES_MAX)?.into()),
        2 => Class::Probe(r.string(2 * PATH_BYTES_MAX)?.into()),
        n => return r.unknown("event class", n),
    })
}

type Sets<'a> = &'a mut dyn FnMut(u64, sillage_ring::Geometry) -> Option<Arc<RingMemory>>;

fn decode(body: &[u8], cpus: u32, set: Sets<'_>) -> Result<(Numbers, BTreeMap<u64, Session>), DecodeError> {
    let r = &mut Reader::new(body);
    match r.u32()? {
        VERSION => {}
        other => return r.unknown("state version", other),
    }
    let numbers =
        Numbers { next_id: r.u64()?, refused_programs: r.u64()?, last_refusal: r.string(PATH_BYTES_MAX)? };
    let sessions = r.list(SESSIONS_MAX, |r| Ok((r.u64()?, get_session(r, cpus, set)?)))?;
    r.end()?;
    Ok((numbers, sessions.into_iter().collect()))
}

fn get_session(r: &mut Reader<'_>, cpus: u32, set: Sets<'_>) -> Result<Session, DecodeError> {
    let name = |r: &mut Reader<'_>| r.string(NAME_BYTES_MAX);
    let mut session = Session {
        name: name(r)?,
        output: r.string(PATH_BYTES_MAX)?.into(),
        uid: r.u32()?,
        gid: r.u32()?,
        created: name(r)?,
        active: r.bool()?,
        started_once: r.bool()?,
        destroying: r.bool()?,
        unanswered: r.list(PROGRAMS_MAX, |r| r.string(PATH_BYTES_MAX))?,
        record: r.u64()?,
        recorder: r.option(|r| Ok(Recorder { pid: r.u32()?, started_ticks: r.u64()? }))?,
        clock_offset: r.option(|r| r.u64())?.map(|offset| offset as i64),
        tracked: r.list(2 * ProcessAttribute::ALL.len(), get_inclusion)?.into_iter().collect(),
        channels: r.list(CHANNELS_MAX, |r| get_channel(r, cpus, set))?,
        traces: BTreeMap::new(),
    };
    for _ in 0..r.count(usize::MAX)? {
        let origin = get_origin(r)?;
        let mut uuid = [0; 16];
        for byte in &mut uuid {
            *byte = r.u8()?;
        }
        let (written, pending) = (r.u64()?, r.string(usize::MAX)?);
        let classes = r.list(CHANNELS_MAX, |r| {
            let refused = r.u64()?;
            Ok((r.list(usize::MAX, get_class)?, refused))
        })?;
        let trace = Trace::adopt(session.files(), &session.output, origin, uuid, written, pending, classes);
        session.traces.insert(origin, trace);
    }
    Ok(session)
}

type Inclusion = ((Domain, ProcessAttribute), InclusionSet);

fn get_inclusion(r: &mut Reader<'_>) -> Result<Inclusion, DecodeError> {
    let of = (get_domain(r)?, get_attribute(r)?);
    let values = r.list(TRACKED_MAX, |r| Ok((get_tracked(r)?, r.u64()?)))?;
    Ok((of, values.into_iter().collect()))
}

fn get_channel(r: &mut Reader<'_>, cpus: u32, memory: Sets<'_>) -> Result<Channel, DecodeError> {
    let id = r.u64()?;
    let name = r.string(NAME_BYTES_MAX)?;
    let (domain, number) = (get_domain(r)?, r.u32()? as usize);
    let mut channel = Channel::new(id, name, domain, number, get_settings(r)?);
    channel.header = if r.bool()? { HeaderForm::Compact } else { HeaderForm::Large };
    channel.contexts = r.list(CONTEXTS_MAX, |r| r.string(NAME_BYTES_MAX))?;
    channel.enabled = r.bool()?;
    channel.rules = r.list(RULES_MAX, get_rule)?;
    channel.private_rings = r.u32()?;
    channel.past = get_past(r)?;
    channel.troubles = get_troubles(r)?;
    let entries = r.list(usize::MAX, |r| {
        Ok(SetEntry {
            set_id: r.u64()?,
            origin: get_origin(r)?,
            pid: r.u32()?,
            first_number: r.u32()?,
            troubles: get_troubles(r)?,
        })
    })?;
    for entry in entries {
        let (kind, holder) = match entry.pid {
            0 if domain == Domain::Kernel => (Kind::Ebpf, Holder::Shared),
            0 => (Kind::Rseq, Holder::Shared),
            pid => (Kind::Locked, Holder::Process { pid, program: None }),
        };
        let geometry = channel.geometry(kind, cpus);
        match memory(entry.set_id, geometry) {
            Some(memory) => channel.sets.push(RingSet {
                memory,
                counters: Arc::new(Counters::with_troubles(entry.troubles)),
                origin: entry.origin,
                holder,
                first_number: entry.first_number,
                closing: false,
            }),
            None => channel.trouble("a ring set did not survive the restart of the daemon".into()),
        }
    }
    Ok(channel)
}

fn put_past(w: &mut Writer, t: &ChannelTotals, kernel_lost: u64) {
    w.u64(t.kernel_lost + kernel_lost);
    put_counts(w, t);
    put_troubles(w, &t.troubles);
}

fn put_troubles(w: &mut Writer, troubles: &[String]) {
    w.list(troubles, |w, text| w.str(text));
}

fn get_troubles(r: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    r.list(RULES_MAX, |r| r.string(usize::MAX))
}

fn get_past(r: &mut Reader<'_>) -> Result<ChannelTotals, DecodeError> {
    let mut t = ChannelTotals { kernel_lost: r.u64()?, ..Default::default() };
    get_counts(r, &mut t)?;
    t.troubles = get_troubles(r)?;
    Ok(t)
}
