//! Recipes against the list of what the real tracer records, and against the running kernel's types.

use super::*;
use crate::Kernel;
use crate::metadata::summary;
use crate::program::{Maps, Spec, generate};
use sillage_ring::{Geometry, HeaderForm, Kind};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Events of the real tracer by name: their fields in short.
fn oracle() -> Option<BTreeMap<String, String>> {
    let shared = std::env::var_os("SILLAGE_SHARED").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../../shared");
    let path = shared.unwrap_or_else(beside).join("reference/kernel-traces/EVENTS.txt");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: {} cannot be read", path.display());
        return None;
    };
    let line = |line: &str| line.split_once(" | ").map(|(name, fields)| (name.into(), fields.trim().into()));
    Some(text.lines().filter_map(line).collect())
}

#[test]
fn recipes_say_what_the_real_tracer_records() {
    let Some(oracle) = oracle() else { return };
    let mut wrong = String::new();
    for recipe in
        all().chain(crate::statedump::events()).filter(|r| r.name != "lttng_statedump_process_mnt_ns")
    {
        let fields: Vec<String> = recipe.fields.iter().map(|f| summary(&f.name, &f.ty)).collect();
        let ours = fields.join(" ");
        match oracle.get(&*recipe.name) {
            Some(theirs) if *theirs == ours => {}
            theirs => wrong += &format!("{}\n  ours   {ours}\n  LTTng's {theirs:?}\n", recipe.name),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn system_calls_are_what_the_real_tracer_records() {
    use crate::syscalls::{Abi, recipes};
    let Some(mut oracle) = oracle() else { return };
    oracle.retain(|name, _| name.contains("syscall_entry_") || name.contains("syscall_exit_"));
    let (mut equal, mut newer, mut wrong) = (0, 0, String::new());
    for recipe in recipes(Abi::Native).chain(recipes(Abi::Compat)) {
        let ours: Vec<String> = recipe.fields.iter().map(|f| summary(&f.name, &f.ty)).collect();
        match oracle.remove(&*recipe.name) {
            Some(theirs) if theirs == ours.join(" ") => equal += 1,
            Some(theirs) => {
                wrong += &format!("{}\n  ours   {}\n  LTTng's {theirs}\n", recipe.name, ours.join(" "))
            }
            None => newer += 1,
        }
    }
    eprintln!("{equal} ends of system calls equal, {newer} of newer calls");
    assert!(wrong.is_empty() && oracle.is_empty(), "{wrong}missing: {:?}", oracle.keys());
}

/// Events of the real tracer that no table has, and why.
const WITHOUT_A_TABLE: &[(&str, &str)] = &[
    ("asoc_snd_soc_dapm_connected", "sound: computed from lists of the driver"),
    ("asoc_snd_soc_dapm_path", "sound: computed from lists of the driver"),
    ("i2c_reply", "bytes of the message are not in the kernel's record as LTTng has them"),
    ("i2c_write", "bytes of the message are not in the kernel's record as LTTng has them"),
    ("kvm_age_page", "no kernel since 5.13 has the tracepoint"),
    ("lttng_logger", "what programs write to lttng-modules' own file"),
    ("scsi_dispatch_cmd_", "no test machine has SCSI; from the kernel's record"),
];

#[test]
fn tables_miss_none_of_the_real_tracers_events_without_a_reason() {
    let Some(mut oracle) = oracle() else { return };
    oracle.retain(|name, _| !name.contains("syscall_entry_") && !name.contains("syscall_exit_"));
    let dumped = |name: &str| crate::statedump::events().any(|recipe| recipe.name == name);
    let (with, without): (Vec<_>, Vec<_>) =
        oracle.keys().partition(|name| find(name).is_some() || dumped(name));
    let excused = |name: &&String| WITHOUT_A_TABLE.iter().any(|(prefix, _)| name.starts_with(prefix));
    let missing: Vec<_> = without.iter().filter(|name| !excused(name)).collect();
    let kernel = Kernel::running().ok();
    let here =
        kernel.map(|kernel| with.iter().filter(|name| kernel.recipe(name).is_some() || dumped(name)).count());
    eprintln!(
        "{} of {} events equal to LTTng's, {} of which this kernel has; {} without a table",
        with.len(),
        oracle.len(),
        here.map_or("?".into(), |here| here.to_string()),
        without.len()
    );
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn names_are_unique() {
    let mut seen = std::collections::BTreeSet::new();
    all().for_each(|recipe| assert!(seen.insert(&recipe.name), "{} twice", recipe.name));
}

#[test]
fn every_recipe_whose_tracepoint_this_kernel_has_gives_a_program() {
    let kernel = match Kernel::running() {
        Ok(kernel) => kernel,
        Err(error) => return eprintln!("SKIPPED: {error}"),
    };
    let geometry = Geometry {
        kind: Kind::Ebpf,
        cpus: 1,
        subbuf_shift: 18,
        subbuf_count: 4,
        overwrite: false,
        ordered: false,
        header: HeaderForm::Compact,
    };
    let maps = Maps { rings: 3, stages: 4, notes: 5, absent: 6 };
    let mut made = 0;
    for recipe in all().filter(|recipe| kernel.recipe(&recipe.name).is_some()) {
        let recipe = &*kernel.resolved(recipe).unwrap_or_else(|error| panic!("{}: {error}", recipe.name));
        let spec = Spec {
            btf: kernel.btf(),
            geometry,
            maps,
            event_id: 3,
            recipe,
            contexts: &[],
            guards: &[],
            generation: None,
            late: None,
            behind: None,
        };
        for reads in [crate::code::Reads::Direct, crate::code::Reads::Helper] {
            generate(&spec, reads).unwrap_or_else(|error| panic!("{}: {error}", recipe.name));
        }
        made += 1;
    }
    assert!(made > 100, "{made} recipes fit this kernel");
}

/// What the tables do not say.
const ELSEWHERE: &str = "
## On another kernel

On Debian's kernel 6.1, which the list was made on, `list -k` offers all of its 1,750 events but 16: \
`lttng_logger`, and 15 whose tracepoints that kernel does not have, so that LTTng lists them and never records \
one (two of `kvm`, two of `net_if_rx_ni`, `power_machine_suspend`, `rpc_bind_status`, nine of `writeback`). \
Events whose tracepoints stand in modules come from the kernel's record, under LTTng's names. \
`crates/show/cli/tests/kernel_vm.rs` compares.

## What a program handed over on pages that are not in memory

A string that cannot be read when a call begins is empty there, and comes as `syscall_late_string` when the \
call returns; the name that a successful `execve` was given too. Of 12,000 `execve` of shells, `find`, Python \
and a compiler none was cold; of a C program that forks and executes a literal, each. (Babeltrace 2.0 shows an \
empty string as the one before it.) Structures (the address of a socket, a list for `poll`) are not read again \
and are zero then: programs fill them just before the call; one in a constant that nobody has touched is lost.
";

/// The document of all events, from the tables.
fn document(oracle: &BTreeMap<String, String>) -> String {
    use crate::syscalls::{Abi, recipes};
    let mut out = String::from(
        "# Kernel events\n\nMade from the tables of `sillage-tracer-kernel` by its tests. *Equal* means: name, \
         fields, widths, signs, bases and labels are those of the list of LTTng's real kernel tracer.\n\n\
         | events | equal to LTTng's | beyond its list | missing |\n|---|---|---|---|\n",
    );
    let mut row = |title: &str, names: Vec<String>, missing: usize| {
        let equal = names.iter().filter(|name| oracle.contains_key(*name)).count();
        out += &format!("| {title} | {equal} | {} | {missing} |\n", names.len() - equal);
    };
    let call = |abi: Abi| recipes(abi).map(|recipe| recipe.name.to_string()).collect();
    row("system calls of 64-bit programs, entries and exits", call(Abi::Native), 0);
    row("system calls of 32-bit programs, entries and exits", call(Abi::Compat), 0);
    let tables = all().chain(crate::statedump::events()).map(|recipe| recipe.name.to_string());
    let tables: Vec<String> = tables.collect();
    let syscall = |name: &String| name.contains("syscall_entry_") || name.contains("syscall_exit_");
    let missing: Vec<&String> =
        oracle.keys().filter(|name: &&String| !syscall(name) && !tables.contains(*name)).collect();
    row("tracepoints and the state dump", tables, missing.len());
    out += "\nEvery other tracepoint of the running kernel is recorded from the format that tracefs gives, with \
            the kernel's own names of fields.\n\n## Missing, and why\n\n| event | reason |\n|---|---|\n";
    for name in missing {
        let reason = WITHOUT_A_TABLE.iter().find(|(prefix, _)| name.starts_with(prefix));
        out += &format!("| {name} | {} |\n", reason.map_or("", |(_, reason)| reason));
    }
    out += ELSEWHERE;
    out += "\n## Tables\n\n| event | comes from |\n|---|---|\n";
    for recipe in all().chain(crate::statedump::events()) {
        let from = match &recipe.hook {
            crate::Hook::Tracepoint(name) => format!("tracepoint {name}"),
            crate::Hook::Format { category, name } => format!("record of {category}/{name}"),
            crate::Hook::Iterator(name) => format!("the kernel's iterator {name}"),
            _ => "what the system tells programs".into(),
        };
        out += &format!("| {} | {from} |\n", recipe.name);
    }
    out
}

#[test]
fn the_document_is_what_the_tables_say() {
    let Some(oracle) = oracle() else { return };
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../docs/kernel-events.md");
    let made = document(&oracle);
    if std::env::var_os("SILLAGE_WRITE_DOCUMENTS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == made, "docs/kernel-events.md: run this test with SILLAGE_WRITE_DOCUMENTS=1");
}
