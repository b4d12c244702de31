//! Whom a channel follows: `track` by process, user and group, a container by its namespace or control
//! group.
//!
//! The sets are maps that the programs in the kernel look into, so that they change while events are
//! attached, without loading anything. Programs of a channel that follows everybody do not ask at all;
//! when that ends, they are replaced ([`crate::Channel::replace`]).

use crate::code::{Code, GenerateError, helper};
use crate::contexts;
use crate::recipe::{Source, current};
use crate::sys::{self, MapKind, MapSpec, SysError, number};
use sillage_bpf::{Alu, Cond, Label, Reg, Width};
use sillage_model::ProcessAttribute;
use sillage_model::limits::TRACKED_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use Reg::*;

/// Levels of nested PID namespaces, and of control groups, that a set is asked for. The kernel allows 32 of
/// the former; whoever lives deeper belongs to nobody's set.
const LEVELS_MAX: u32 = 12;
/// Bytes of a key: the attribute, then the id.
const KEY_BYTES: usize = 16;

/// The sets that have not everything in them.
pub type Followed = BTreeMap<ProcessAttribute, BTreeSet<u64>>;

/// The sets of a channel, where its programs look them up.
#[derive(Debug)]
pub struct Trackers {
    ids: OwnedFd,
    /// One word: which sets have not everything in them.
    closed: OwnedFd,
    followed: Mutex<Followed>,
}

fn key(attribute: ProcessAttribute, id: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&(attribute as u64).to_ne_bytes());
    key[8..].copy_from_slice(&id.to_ne_bytes());
    key
}

impl Trackers {
    /// Sets that follow everybody.
    ///
    /// # Errors
    /// No rights, no memory.
    pub fn create() -> Result<Trackers, SysError> {
        let map = |kind, value_bytes, entries, name| {
            sys::create_map(&MapSpec { kind, value_bytes, entries, mappable: false, inner: None, name })
        };
        let entries = (TRACKED_MAX * ProcessAttribute::ALL.len()) as u32;
        Ok(Trackers {
            ids: map(MapKind::Hash, 1, entries, "ids")?,
            closed: map(MapKind::Array, 8, 1, "closed_sets")?,
            followed: Mutex::default(),
        })
    }

    /// Follows these from now on. Nobody who is in a set before and after is missed in between.
    ///
    /// # Errors
    /// The kernel's: no memory for so many.
    pub fn follow(&self, wanted: &Followed) -> Result<(), SysError> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = |sets: &Followed| -> BTreeSet<(ProcessAttribute, u64)> {
            sets.iter().flat_map(|(attribute, ids)| ids.iter().map(|id| (*attribute, *id))).collect()
        };
        let (old, new) = (ids(&followed), ids(wanted));
        for (attribute, id) in new.difference(&old) {
            sys::set_value(self.ids.as_fd(), &key(*attribute, *id), &[1])?;
        }
        let closed = wanted.keys().fold(0u64, |closed, attribute| closed | 1 << *attribute as u64);
        sys::set_value(self.closed.as_fd(), &0u32.to_ne_bytes(), &closed.to_ne_bytes())?;
        for (attribute, id) in old.difference(&new) {
            sys::clear_value(self.ids.as_fd(), &key(*attribute, *id))?;
        }
        followed.clone_from(wanted);
        Ok(())
    }

    /// Rejects whom the sets do not follow, in front of the record.
    ///
    /// # Errors
    /// The kernel's types lack what is asked for.
    pub fn guard(&self, code: &mut Code<'_>, rejected: Label) -> Result<(), GenerateError> {
        let open = code.asm.label();
        code.asm.map_value(R2, number(&self.closed), 0);
        code.asm.load(Width::B8, R1, R2, 0);
        code.asm.jump_if(Cond::Eq, R1, 0, open);
        let closed = code.spill(R1);
        let key = code.scratch(KEY_BYTES);
        for attribute in ProcessAttribute::ALL {
            let next = code.asm.label();
            code.unspill(R1, closed);
            code.asm.alu(Alu::And, R1, 1 << attribute as i32);
            code.asm.jump_if(Cond::Eq, R1, 0, next);
            code.asm.store_imm(Width::B8, R10, key, attribute as i32);
            match attribute {
                ProcessAttribute::Cgroup => self.control_groups(code, key, next),
                ProcessAttribute::PidNamespace => self.namespaces(code, key, next)?,
                plain => {
                    value(plain, code)?;
                    self.look_up(code, key, next);
                }
            }
            code.asm.jump(rejected);
            code.asm.bind(next);
        }
        code.release(1 + KEY_BYTES / 8);
        code.asm.bind(open);
        Ok(())
    }

    /// Goes to `found` if the id in R1 is in the set of the key's attribute.
    fn look_up(&self, code: &mut Code<'_>, key: i16, found: Label) {
        code.asm.store(Width::B8, R10, key + 8, R1);
        code.asm.map(R1, number(&self.ids));
        code.asm.mov(R2, R10);
        code.asm.alu(Alu::Add, R2, i32::from(key));
        code.asm.call(helper::MAP_LOOKUP);
        code.asm.jump_if(Cond::Ne, R0, 0, found);
    }

    /// Goes to `found` if the current task's control group, or one that this is in, is followed.
    fn control_groups(&self, code: &mut Code<'_>, key: i16, found: Label) {
        let no_more = code.asm.label();
        for level in 0..LEVELS_MAX {
            code.asm.mov(R1, level as i32);
            code.asm.call(helper::CGROUP_AT);
            code.asm.jump_if(Cond::Eq, R0, 0, no_more);
            code.asm.mov(R1, R0);
            self.look_up(code, key, found);
        }
        code.asm.bind(no_more);
    }

    /// Goes to `found` if the current task's PID namespace, or one that this is in, is followed.
    fn namespaces(&self, code: &mut Code<'_>, key: i16, found: Label) -> Result<(), GenerateError> {
        let no_more = code.asm.label();
        let stride = code.struct_size("upid")?;
        let first = code.offset_of("pid", "numbers")? + code.offset_of("upid", "ns")?;
        let inum = code.offset_of("pid_namespace", "ns.inum")?;
        code.value(&current("thread_pid->level"))?;
        let deepest = code.spill(R1);
        code.value(&current("thread_pid"))?;
        let pid = code.spill(R1);
        for level in 0..LEVELS_MAX {
            code.unspill(R1, deepest);
            code.asm.jump_if(Cond::Lt, R1, level as i32, no_more);
            code.unspill(R1, pid);
            code.asm.alu(Alu::Add, R1, (first + level * stride) as i32);
            code.read_kernel(Width::B8)?;
            code.asm.alu(Alu::Add, R1, inum as i32);
            code.read_kernel(Width::B4)?;
            self.look_up(code, key, found);
        }
        code.asm.bind(no_more);
        code.release(2);
        Ok(())
    }
}

/// R1 = the current task's value of an attribute that is a context too.
fn value(attribute: ProcessAttribute, code: &mut Code<'_>) -> Result<(), GenerateError> {
    let context = match attribute {
        ProcessAttribute::Pid => "pid",
        ProcessAttribute::Vpid => "vpid",
        ProcessAttribute::Uid => "uid",
        ProcessAttribute::Vuid => "vuid",
        ProcessAttribute::Gid => "gid",
        ProcessAttribute::Vgid => "vgid",
        ProcessAttribute::PidNamespace | ProcessAttribute::Cgroup => "",
    };
    match contexts::plain(context).map(|field| &field.from) {
        Some(Source::Kernel(expr)) => code.value(expr),
        _ => Err(GenerateError::Mismatch("an attribute that is no context")),
    }
}
