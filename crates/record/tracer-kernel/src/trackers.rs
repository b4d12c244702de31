//! What a session follows: `track` by process, user and group, a container by its namespace or control
//! group, and never the tracer itself.
//!
//! The sets are maps that the programs in the kernel look into, so that they change while events are
//! attached, without loading anything. A channel whose sets are all open pays one load for them.

use crate::code::{Code, GenerateError, helper};
use crate::contexts;
use crate::recipe::{Expr, Source, current};
use crate::sys::{self, MapKind, MapSpec, SysError, number};
use sillage_bpf::{Alu, Cond, Label, Reg, Width};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use Reg::*;

/// Ids of all sets together.
const IDS_MAX: u32 = 16_384;
/// Processes that are left out of everything.
pub const EXCLUDED_MAX: usize = 4;

/// What is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// Processes.
    Pid,
    /// Processes by their numbers in their own namespaces.
    Vpid,
    /// Users.
    Uid,
    /// Users as their own namespaces see them.
    Vuid,
    /// Groups.
    Gid,
    /// Groups as their own namespaces see them.
    Vgid,
    /// PID namespaces by number.
    PidNamespace,
    /// Control groups (of version 2) by number.
    Cgroup,
}

/// All of them, in the order of their bits.
const ATTRIBUTES: [Attribute; 8] = [
    Attribute::Pid,
    Attribute::Vpid,
    Attribute::Uid,
    Attribute::Vuid,
    Attribute::Gid,
    Attribute::Vgid,
    Attribute::PidNamespace,
    Attribute::Cgroup,
];

impl Attribute {
    /// R1 = the current task's.
    fn value(self, code: &mut Code<'_>) -> Result<(), GenerateError> {
        let context = match self {
            Attribute::Pid => "pid",
            Attribute::Vpid => "vpid",
            Attribute::Uid => "uid",
            Attribute::Vuid => "vuid",
            Attribute::Gid => "gid",
            Attribute::Vgid => "vgid",
            Attribute::PidNamespace => "pid_ns",
            Attribute::Cgroup => return code.value(&Expr::Helper(helper::CGROUP)),
        };
        match contexts::plain(context).map(|field| &field.from) {
            Some(Source::Kernel(expr)) => code.value(expr),
            _ => Err(GenerateError::Mismatch("an attribute that is no context")),
        }
    }
}

/// The first words of the map of rules: which sets are closed, then whom to leave out.
#[derive(Debug, Default)]
struct Rules {
    closed: u64,
    excluded: [u64; EXCLUDED_MAX],
}

/// Sets of a session.
#[derive(Debug)]
pub struct Trackers {
    ids: OwnedFd,
    rules: OwnedFd,
    state: Mutex<Rules>,
}

/// Where the ids stand behind the word of closed sets.
const EXCLUDED_AT: i32 = 8;
/// Bytes of a key: the attribute, then the id.
const KEY_BYTES: usize = 16;

impl Trackers {
    /// Sets that follow everything.
    ///
    /// # Errors
    /// No rights, no memory.
    pub fn create() -> Result<Trackers, SysError> {
        let map = |kind, value_bytes, entries, name| {
            sys::create_map(&MapSpec { kind, value_bytes, entries, mappable: false, inner: None, name })
        };
        let rules_bytes = (EXCLUDED_AT as usize + 8 * EXCLUDED_MAX) as u32;
        Ok(Trackers {
            ids: map(MapKind::Hash, 1, IDS_MAX, "ids")?,
            rules: map(MapKind::Array, rules_bytes, 1, "rules")?,
            state: Mutex::default(),
        })
    }

    fn key(attribute: Attribute, id: u64) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key[..8].copy_from_slice(&(attribute as u64).to_ne_bytes());
        key[8..].copy_from_slice(&id.to_ne_bytes());
        key
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) -> Result<(), SysError> {
        let mut rules = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut rules);
        let words = std::iter::once(rules.closed).chain(rules.excluded);
        let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        sys::set_value(self.rules.as_fd(), &0u32.to_ne_bytes(), &bytes)
    }

    /// Follows `id` too; everybody else of this attribute is not followed any more, unless tracked.
    ///
    /// # Errors
    /// Too many ids.
    pub fn track(&self, attribute: Attribute, id: u64) -> Result<(), SysError> {
        sys::set_value(self.ids.as_fd(), &Trackers::key(attribute, id), &[1])?;
        self.change(|rules| rules.closed |= 1 << attribute as u64)
    }

    /// Does not follow `id`. If everybody was followed, nobody else is from now on either: as LTTng, a
    /// set of all has no exceptions.
    ///
    /// # Errors
    /// The kernel's.
    pub fn untrack(&self, attribute: Attribute, id: u64) -> Result<(), SysError> {
        sys::clear_value(self.ids.as_fd(), &Trackers::key(attribute, id))?;
        self.change(|rules| rules.closed |= 1 << attribute as u64)
    }

    /// Follows everybody; single ids that were tracked are to be untracked first, or count again when
    /// the set is closed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn track_all(&self, attribute: Attribute) -> Result<(), SysError> {
        self.change(|rules| rules.closed &= !(1 << attribute as u64))
    }

    /// Leaves these processes out of everything; 0 is nobody. More than [`EXCLUDED_MAX`] are ignored.
    ///
    /// # Errors
    /// The kernel's.
    pub fn exclude(&self, pids: &[u32]) -> Result<(), SysError> {
        self.change(|rules| {
            let pids = pids.iter().map(|pid| u64::from(*pid)).chain(std::iter::repeat(0));
            rules.excluded.iter_mut().zip(pids).for_each(|(slot, pid)| *slot = pid);
        })
    }

    /// Rejects whom the sets do not follow, in front of the record.
    ///
    /// # Errors
    /// The kernel's types lack what is asked for.
    pub fn guard(&self, code: &mut Code<'_>, rejected: Label) -> Result<(), GenerateError> {
        let rules = number(&self.rules);
        code.value(&current("tgid"))?;
        code.asm.map_value(R2, rules, 0);
        let all = code.asm.label();
        for slot in 0..EXCLUDED_MAX as i16 {
            code.asm.load(Width::B8, R3, R2, EXCLUDED_AT as i16 + 8 * slot);
            // Free slots are at the end; nor is the idle task, whose number is 0, somebody.
            code.asm.jump_if(Cond::Eq, R3, 0, all);
            code.asm.jump_if(Cond::Eq, R1, R3, rejected);
        }
        code.asm.bind(all);
        code.asm.load(Width::B8, R1, R2, 0);
        let open = code.asm.label();
        code.asm.jump_if(Cond::Eq, R1, 0, open);
        let closed = code.spill(R1);
        let key = code.scratch(KEY_BYTES);
        for attribute in ATTRIBUTES {
            let next = code.asm.label();
            code.unspill(R1, closed);
            code.asm.alu(Alu::And, R1, 1 << attribute as i32);
            code.asm.jump_if(Cond::Eq, R1, 0, next);
            attribute.value(code)?;
            code.asm.store(Width::B8, R10, key + 8, R1);
            code.asm.store_imm(Width::B8, R10, key, attribute as i32);
            code.asm.map(R1, number(&self.ids));
            code.asm.mov(R2, R10);
            code.asm.alu(Alu::Add, R2, i32::from(key));
            code.asm.call(helper::MAP_LOOKUP);
            code.asm.jump_if(Cond::Eq, R0, 0, rejected);
            code.asm.bind(next);
        }
        code.release(1 + KEY_BYTES / 8);
        code.asm.bind(open);
        Ok(())
    }
}
