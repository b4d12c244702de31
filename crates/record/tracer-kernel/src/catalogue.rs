//! Everything that the running kernel can record, by LTTng's names.
//!
//! Events with a recipe in the tables come first; tracepoints that no recipe hangs on are listed by what
//! tracefs has of them, under the name that LTTng would give: the kernel's, with the category in front
//! unless it stands there already. System calls have names of their own, behind each of which stand up
//! to four events: entry and exit, of 64-bit and of 32-bit programs. A recipe is made when it is asked for.

use crate::format::FormatError;
use crate::kernel::{BackEnd, Kernel, translated};
use crate::recipe::{Hook, Recipe};
use crate::syscalls::{self, Abi, Side};
use crate::{events, late, statedump, sys, tracefs};
use std::collections::{BTreeMap, HashMap, HashSet};
use thiserror::Error;

/// Categories of tracefs that are no events of their own: system calls are another kind of
/// instrumentation, and the function tracer's records come from no tracepoint.
const LEFT_OUT: [&str; 3] = ["syscalls", "raw_syscalls", "ftrace"];
/// Most names that an error suggests.
const SUGGESTIONS: usize = 3;

/// Why an event cannot be had.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// No such event.
    #[error("this kernel has no event {name}{}", suggested(.near))]
    Unknown {
        /// The name.
        name: String,
        /// Names that are near to it.
        near: Vec<String>,
    },
    /// No such system call.
    #[error("there is no system call {name}{}", suggested(.near))]
    UnknownSyscall {
        /// The name.
        name: String,
        /// Names that are near to it.
        near: Vec<String>,
    },
    /// Its format is not understood.
    #[error(transparent)]
    Format(#[from] FormatError),
}

pub(crate) fn suggested(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (near names: {})", near.join(", ")) }
}

/// Where an event's recipe comes from.
#[derive(Clone, Debug)]
enum Origin {
    Table(&'static Recipe),
    Format {
        category: String,
        name: String,
    },
    /// One end of a call; without a number, of all calls that no table has.
    Syscall {
        abi: Abi,
        side: Side,
        name: Option<&'static str>,
    },
    /// Made when the state is dumped.
    Dump(&'static Recipe),
}

const ABIS: [Abi; 2] = [Abi::Native, Abi::Compat];
const SIDES: [Side; 2] = [Side::Entry, Side::Exit];

/// The events of the running kernel.
#[derive(Debug)]
pub struct Catalogue {
    events: BTreeMap<String, Origin>,
    /// Events of system calls.
    syscalls: BTreeMap<String, Origin>,
    tracefs: bool,
}

/// A system call as lists show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bitness {
    /// 64-bit programs can make it.
    pub native: bool,
    /// 32-bit programs can.
    pub compat: bool,
}

impl Catalogue {
    /// Looks at the tables, the kernel's types and, as far as it may, at tracefs.
    pub fn of(kernel: &Kernel) -> Catalogue {
        let mut events = BTreeMap::new();
        let mut hooked = HashSet::new();
        // Tracepoints that the kernel's own types do not describe: those of modules have types of their own.
        let mut elsewhere = HashMap::new();
        for recipe in events::all() {
            let here = kernel.recipe(&recipe.name).is_some();
            if here {
                events.insert(recipe.name.to_string(), Origin::Table(recipe));
            }
            match &recipe.hook {
                Hook::Tracepoint(name) if !here => drop(elsewhere.insert(name.as_ref(), &recipe.name)),
                Hook::Tracepoint(name) => drop(hooked.insert(name.as_ref())),
                Hook::Format { name, .. } => drop(hooked.insert(name)),
                _ => {}
            }
        }
        let by_tracefs = kernel.back_end() == BackEnd::Tracefs;
        for recipe in statedump::events().filter(|recipe| !by_tracefs || tracefs::dumps(recipe)) {
            events.insert(recipe.name.to_string(), Origin::Dump(recipe));
        }
        let list = kernel.tracefs().map(|dir| std::fs::read_to_string(dir.join("available_events")));
        let list = list.and_then(Result::ok);
        for (category, name) in list.iter().flat_map(|text| text.lines()).filter_map(|l| l.split_once(':')) {
            if LEFT_OUT.contains(&category) || hooked.contains(name) {
                continue;
            }
            let origin = || Origin::Format { category: category.into(), name: name.into() };
            let full_name = elsewhere.get(name).map_or_else(|| full_name(category, name), |n| n.to_string());
            events.entry(full_name).or_insert_with(origin);
        }
        let mut syscalls = syscall_events();
        if by_tracefs {
            syscalls.retain(|_, origin| match origin {
                Origin::Syscall { abi, side, name: Some(name) } => {
                    kernel.has_syscall_format(*abi, *side, name)
                }
                _ => false,
            });
        }
        Catalogue { events, syscalls, tracefs: list.is_some() }
    }

    /// Whether tracefs could be looked into: without it there are only the events of the tables.
    pub fn has_formats(&self) -> bool {
        self.tracefs
    }

    /// Names of all system calls, sorted, and whose they are.
    pub fn syscalls(&self) -> BTreeMap<&'static str, Bitness> {
        let mut calls: BTreeMap<&str, Bitness> = BTreeMap::new();
        for abi in ABIS {
            for call in syscalls::all(abi) {
                let bitness = calls.entry(call.name).or_default();
                match abi {
                    Abi::Native => bitness.native = true,
                    Abi::Compat => bitness.compat = true,
                }
            }
        }
        calls
    }

    /// Names of the events of system calls whose name passes; of unknown calls, if every name does.
    pub fn syscall_events(&self, mut passes: impl FnMut(Option<&str>) -> bool) -> impl Iterator<Item = &str> {
        let calls = self.syscalls.iter().filter(move |(_, origin)| match origin {
            Origin::Syscall { name, .. } => passes(*name),
            _ => false,
        });
        calls.map(|(event, _)| event.as_str())
    }

    /// Whether the event is the beginning of a call, of which strings may have to be read later.
    pub fn may_read_late(&self, event: &str) -> bool {
        matches!(self.syscalls.get(event), Some(Origin::Syscall { side: Side::Entry, .. }))
    }

    /// That there is a system call of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn check_syscall(&self, name: &str) -> Result<(), CatalogueError> {
        let calls = self.syscalls();
        if calls.contains_key(name) {
            return Ok(());
        }
        let near = near(calls.keys().copied(), name);
        Err(CatalogueError::UnknownSyscall { name: name.into(), near })
    }

    /// True if the event of this name is not enabled but made when the state is dumped.
    pub fn is_dumped(&self, name: &str) -> bool {
        matches!(self.events.get(name), Some(Origin::Dump(_)))
    }

    /// All names but those of system calls, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.events.keys().map(String::as_str)
    }

    /// The recipe of an event.
    ///
    /// # Errors
    /// There is none of this name; its format is not understood.
    pub fn recipe(&self, kernel: &Kernel, name: &str) -> Result<Recipe, CatalogueError> {
        match self.events.get(name).or_else(|| self.syscalls.get(name)) {
            Some(Origin::Table(recipe)) => Ok(kernel.resolved(recipe)?.into_owned()),
            Some(Origin::Dump(recipe)) => Ok((*recipe).clone()),
            Some(Origin::Syscall { side, name: Some(call), .. }) if kernel.back_end() == BackEnd::Tracefs => {
                Ok(kernel.syscall_from_format(name, *side, call)?)
            }
            Some(Origin::Syscall { abi, side, name: call }) => {
                let known = call.and_then(|call| syscalls::find(*abi, call));
                Ok(known.map_or_else(|| syscalls::unknown(*abi, *side), |call| call.recipe(*side)))
            }
            Some(Origin::Format { category, name: record }) => {
                let recipe = kernel.from_format(category, record)?;
                let recipe = events::find(name).map_or(recipe.clone(), |table| translated(table, &recipe));
                Ok(Recipe { name: name.to_owned().into(), ..recipe })
            }
            None if name == late::LATE_STRING => Ok(late::recipe()),
            None => Err(CatalogueError::Unknown { name: name.into(), near: near(self.names(), name) }),
        }
    }
}

fn syscall_events() -> BTreeMap<String, Origin> {
    let mut events = BTreeMap::new();
    for (abi, side) in ABIS.into_iter().flat_map(|abi| SIDES.map(|side| (abi, side))) {
        let names = syscalls::all(abi).iter().map(|call| Some(call.name)).chain([None]);
        for name in names {
            let event = syscalls::event_name(abi, side, name.unwrap_or("unknown")).into_owned();
            events.insert(event, Origin::Syscall { abi, side, name });
        }
    }
    events
}

/// Names that somebody who typed `name` may have meant, the nearest first.
pub(crate) fn near<'a>(names: impl Iterator<Item = &'a str>, name: &str) -> Vec<String> {
    let most = (name.len() / 3).max(2);
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|known| {
            // Part of a name is a start as well.
            let part = name.len() > 3 && known.contains(name);
            let distance = if part { 0 } else { distance(name, known) };
            (distance <= most).then_some((distance, known))
        })
        .collect();
    near.sort_unstable_by_key(|(distance, known)| (*distance, known.len()));
    near.into_iter().take(SUGGESTIONS).map(|(_, known)| known.to_owned()).collect()
}

/// Events of KVM on x86 as the kernel has them, without `kvm_`: LTTng tells them from those of all machines.
const KVM_X86: &str = "apic apic_accept_irq apic_ipi cpuid cr emulate_insn entry eoi exit hv_hypercall hypercall \
                       inj_exception inj_virq invlpga msr nested_intercepts nested_intr_vmexit nested_vmexit \
                       nested_vmexit_inject nested_vmrun page_fault pic_set_irq pio pv_eoi skinit track_tsc \
                       update_master_clock vcpu_match_mmio write_tsc_offset";

/// LTTng's name of a tracepoint that no table has: the kernel's with its category in front, unless it stands
/// there already, and what LTTng's probes call differently.
fn full_name(category: &str, name: &str) -> String {
    let behind = |prefix: &str| name.strip_prefix(prefix);
    match category {
        "compaction" if behind("mm_compaction_").is_some() => name["mm_".len()..].to_owned(),
        "kvm" if behind("kvm_").is_some_and(|rest| KVM_X86.split(' ').any(|known| known == rest)) => {
            format!("kvm_x86_{}", &name["kvm_".len()..])
        }
        "kvmmmu" => name.into(),
        _ if behind(category).is_some_and(|rest| rest.starts_with('_')) => name.into(),
        _ => format!("{category}_{name}"),
    }
}

/// How many letters must change, come or go to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// What is missing for events that are known by their formats alone; None if nothing is.
pub fn missing_formats(catalogue: &Catalogue) -> Option<&'static str> {
    match (catalogue.has_formats(), sys::tracefs_mounted()) {
        (true, _) => None,
        (false, true) => Some(
            "events without a recipe: tracefs may be read by root alone (run the daemon as root, or remount it \
             for the daemon's group: mount -o remount,gid=GROUP,mode=750 /sys/kernel/tracing)",
        ),
        (false, false) => Some(
            "events without a recipe: tracefs is not mounted (mount -t tracefs tracefs /sys/kernel/tracing, as \
             root)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_category_once() {
        assert_eq!(full_name("sched", "sched_switch"), "sched_switch");
        assert_eq!(full_name("irq", "softirq_entry"), "irq_softirq_entry");
        assert_eq!(full_name("net", "netif_rx"), "net_netif_rx");
        for (category, name, lttngs) in [
            ("kmem", "kmalloc", "kmem_kmalloc"),
            ("kmem", "kmem_cache_alloc", "kmem_cache_alloc"),
            ("kmem", "mm_page_alloc", "kmem_mm_page_alloc"),
            ("compaction", "mm_compaction_migratepages", "compaction_migratepages"),
            ("kvm", "kvm_entry", "kvm_x86_entry"),
            ("kvm", "kvm_set_irq", "kvm_set_irq"),
            ("kvmmmu", "kvm_mmu_get_page", "kvm_mmu_get_page"),
            ("preemptirq", "irq_disable", "preemptirq_irq_disable"),
            ("btrfs", "btrfs_sync_file", "btrfs_sync_file"),
            ("ext4", "ext4_da_write_begin", "ext4_da_write_begin"),
        ] {
            assert_eq!(full_name(category, name), lttngs);
        }
    }

    #[test]
    fn near_names_are_found() {
        let events = ["sched_switch", "sched_waking", "irq_handler_entry", "block_rq_issue"];
        let near = |name| near(events.into_iter(), name);
        assert_eq!(near("sched_swich"), ["sched_switch"]);
        assert_eq!(near("handler"), ["irq_handler_entry"]);
        assert_eq!(near("zzzzzz"), [""; 0]);
    }

    #[test]
    fn a_call_has_four_events_and_unknown_ones_four_more() {
        let catalogue = Catalogue { events: BTreeMap::new(), syscalls: syscall_events(), tracefs: false };
        let events: Vec<&str> = catalogue.syscall_events(|name| name == Some("read")).collect();
        let expected = if cfg!(target_arch = "x86_64") {
            vec![
                "compat_syscall_entry_read",
                "compat_syscall_exit_read",
                "syscall_entry_read",
                "syscall_exit_read",
            ]
        } else {
            Vec::new()
        };
        assert_eq!(events, expected);
        assert_eq!(catalogue.syscall_events(|name| name.is_none()).count(), 4);
    }
}
