//! The state dump: what the machine looks like while recording begins, as `lttng_statedump_*` events.
//!
//! Processes, their namespaces, files and mappings come from the kernel's iterators: a program runs once
//! for each of them and writes a record like any other; where it has none, from `/proc` ([`Processes`]).
//! Block devices, interfaces, interrupts and processors come from what the system tells programs, and are
//! handed to a program that does nothing but write them ([`machine`]). Nothing stays loaded behind [`run`].

mod machine;
mod proc;

pub(crate) use proc::processes;

use crate::channel::{Channel, TracerError};
use crate::code::{Code, GenerateError, STRING_BYTES_MAX, helper, iterated};
use crate::fields;
use crate::kernel::Kernel;
use crate::parallel;
use crate::program::Guard;
use crate::recipe::{
    Expr, Field, Hook, Recipe, S32, Source, Type, U8, U16, U32, arg, at, custom, hex64, int, s32, text, u32,
    u64,
};
use crate::sys::{self, ProgramKind};
use sillage_bpf::{Alu, Assembler, Cond, Reg, Width};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::AsFd;

use Reg::*;

/// An event from an iterator of the kernel.
const fn each(name: &'static str, iterator: &'static str, fields: &'static [Field]) -> Recipe {
    Recipe { name: Cow::Borrowed(name), hook: Hook::Iterator(iterator), fields: Cow::Borrowed(fields) }
}

/// An event whose payload is made by this program.
const fn made(name: &'static str, fields: &'static [Field]) -> Recipe {
    Recipe { name: Cow::Borrowed(name), hook: Hook::Payload, fields: Cow::Borrowed(fields) }
}

/// Where the payload of an event that this program makes comes from: one piece for all fields.
fn written(_: &mut Code<'_>) -> Emitted {
    Ok(())
}
const fn given(name: &'static str, ty: Type) -> Field {
    custom(name, ty, written)
}

const TASK: &str = "task";
const TID: Field = s32("tid", at(1, "pid"));

/// Every event of the dump, in the order in which it is made. Namespaces nest: one event for each level.
static EVENTS: &[Recipe] = &[
    made("lttng_statedump_start", &[]),
    each(
        "lttng_statedump_process_state",
        TASK,
        fields![
            TID,
            s32("pid", at(1, "tgid")),
            s32("ppid", at(1, "real_parent->tgid")),
            text("name", 16, at(1, "comm")),
            s32("type", Expr::Custom(kind)),
            s32("mode", Expr::Const(MODE_UNKNOWN)),
            s32("submode", Expr::Const(0)),
            s32("status", Expr::Custom(status)),
            u32("cpu", crate::first![at(1, "thread_info.cpu"), at(1, "cpu")]),
            hex64("file_table_address", at(1, "files")),
        ],
    ),
    pid_namespace::<0>(),
    each(
        "lttng_statedump_process_user_ns",
        TASK,
        fields![
            TID,
            u32(
                "vuid",
                Expr::Custom(|code| crate::contexts::virtual_id(
                    code,
                    "uid_map",
                    &at(1, "cred->uid.val"),
                    |path| at(1, path)
                ))
            ),
            u32(
                "vgid",
                Expr::Custom(|code| crate::contexts::virtual_id(
                    code,
                    "gid_map",
                    &at(1, "cred->gid.val"),
                    |path| at(1, path)
                ))
            ),
            s32("ns_level", at(1, "cred->user_ns->level")),
            u32("ns_inum", at(1, "cred->user_ns->ns.inum")),
        ],
    ),
    each(
        "lttng_statedump_process_cgroup_ns",
        TASK,
        fields![TID, u32("ns_inum", at(1, "nsproxy->cgroup_ns->ns.inum"))],
    ),
    each(
        "lttng_statedump_process_ipc_ns",
        TASK,
        fields![TID, u32("ns_inum", at(1, "nsproxy->ipc_ns->ns.inum"))],
    ),
    each(
        "lttng_statedump_process_mnt_ns",
        TASK,
        fields![TID, u32("ns_inum", at(1, "nsproxy->mnt_ns->ns.inum"))],
    ),
    each(
        "lttng_statedump_process_net_ns",
        TASK,
        fields![TID, u32("ns_inum", at(1, "nsproxy->net_ns->ns.inum"))],
    ),
    each(
        "lttng_statedump_process_uts_ns",
        TASK,
        fields![TID, u32("ns_inum", at(1, "nsproxy->uts_ns->ns.inum"))],
    ),
    each(
        "lttng_statedump_process_time_ns",
        TASK,
        fields![TID, u32("ns_inum", at(1, "nsproxy->time_ns->ns.inum"))],
    ),
    each(
        "lttng_statedump_file_descriptor",
        "task_file",
        fields![
            hex64("file_table_address", at(1, "files")),
            s32("fd", arg(2)),
            int("flags", U32.octal(), at(3, "f_flags")),
            int("fmode", U32.hex(), at(3, "f_mode")),
            custom("filename", Type::String, path_of_file),
        ],
    ),
    each(
        "lttng_statedump_vm_map",
        "task_vma",
        fields![
            s32("pid", at(1, "tgid")),
            hex64("start", at(2, "vm_start")),
            hex64("end", at(2, "vm_end")),
            hex64("flags", at(2, "vm_flags")),
            u64("inode", at(2, "vm_file->f_inode->i_ino")),
            u64("pgoff", Expr::Op(Alu::Lsh, &PAGE_OFFSET, &Expr::Const(PAGE_SHIFT))),
        ],
    ),
    made(
        "lttng_statedump_interrupt",
        fields![
            given("irq", Type::Int(U32)),
            given("name", Type::String),
            given("action", Type::String),
            given("tid", Type::Int(S32)),
        ],
    ),
    made(
        "lttng_statedump_network_interface",
        fields![given("name", Type::String), given("address_ipv4", Type::Int(U32.hex().network())),],
    ),
    made(
        "lttng_statedump_block_device",
        fields![given("dev", Type::Int(U32)), given("diskname", Type::String)],
    ),
    made(
        "lttng_statedump_cpu_topology",
        fields![
            given("architecture", Type::String),
            given("cpu_id", Type::Int(U16)),
            given("vendor", Type::String),
            given("family", Type::Int(U8)),
            given("model", Type::Int(U8)),
            given("model_name", Type::String),
            given("physical_id", Type::Int(U16)),
            given("core_id", Type::Int(U16)),
            given("cores", Type::Int(U16)),
        ],
    ),
    made("lttng_statedump_end", &[]),
];

/// The events of the dump, each once: what the metadata declare.
pub fn events() -> impl Iterator<Item = &'static Recipe> {
    EVENTS
        .iter()
        .enumerate()
        .filter(|(at, recipe)| !EVENTS[..*at].iter().any(|e| e.name == recipe.name))
        .map(|(_, recipe)| recipe)
}

/// Payloads of an event that this program makes, as the machine is now.
pub(crate) fn payloads(event: &str) -> Vec<Vec<u8>> {
    machine::payloads(event)
}

/// The levels of nested PID namespaces behind the outermost.
static DEEPER: [(u32, Recipe); 3] =
    [(1, pid_namespace::<1>()), (2, pid_namespace::<2>()), (3, pid_namespace::<3>())];

/// The variable of the daemon's environment that says where the processes of the dump come from.
pub const SOURCE_VARIABLE: &str = "SILLAGE_KERNEL_DUMP";

/// Where the processes of the dump come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processes {
    /// The kernel's iterators.
    Iterators,
    /// `/proc`; with the reason.
    Proc(String),
}

/// Whether the kernel lets us iterate over its tasks: by doing so. The environment may forbid it.
pub fn probe(kernel: &Kernel) -> Processes {
    if std::env::var(SOURCE_VARIABLE).is_ok_and(|value| value == "proc") {
        return Processes::Proc(format!("{SOURCE_VARIABLE}=proc"));
    }
    let mut asm = Assembler::new();
    asm.mov(R0, 0);
    asm.exit();
    let insns = asm.finish().unwrap_or_default();
    let iterated = iterated(kernel.btf(), TASK).map_err(|error| error.to_string()).and_then(|(id, _)| {
        let program = sys::load_program(ProgramKind::Iterator(id.0), &insns, "probe");
        let done = program.and_then(|program| sys::iterate(program.as_fd()));
        done.map_err(|error| error.to_string())
    });
    iterated.map_or_else(Processes::Proc, |()| Processes::Iterators)
}

/// An event of the dump with its payload made by this program.
fn by_payload(recipe: &Recipe) -> Recipe {
    let fields = recipe.fields.iter().map(|field| Field {
        name: field.name.clone(),
        ty: field.ty.clone(),
        from: Source::Custom(written),
    });
    Recipe { name: recipe.name.clone(), hook: Hook::Payload, fields: fields.collect::<Vec<_>>().into() }
}

/// Dumps into a channel what `id_of` has a number for, as the events' classes say. What this kernel has
/// no iterator or type for comes from `/proc`: the result says why.
///
/// # Errors
/// The kernel refused a program that has nothing to do with iterators.
pub fn run(
    channel: &Channel,
    from: &Processes,
    contexts: &[Field],
    id_of: impl Fn(&str) -> Option<u32>,
) -> Result<Vec<String>, TracerError> {
    let mut all: Vec<(&Recipe, u32, u32)> = Vec::new();
    let by_proc = matches!(from, Processes::Proc(_));
    let is_iterated = |recipe: &Recipe| matches!(recipe.hook, Hook::Iterator(_));
    let replaced: Vec<Recipe> = EVENTS.iter().map(by_payload).collect();
    for (recipe, replaced) in EVENTS.iter().zip(&replaced) {
        let Some(id) = id_of(&recipe.name) else { continue };
        let by_proc = by_proc && is_iterated(recipe);
        all.push((if by_proc { replaced } else { recipe }, id, 0));
        if recipe.name == PID_NAMESPACE && !by_proc {
            all.extend(DEEPER.iter().map(|(level, recipe)| (recipe, id, *level)));
        }
    }
    // Checking the programs takes the kernel longer than running them.
    let programs = parallel::each(&all, |(recipe, id, level)| {
        let guard = |code: &mut Code<'_>, no| {
            code.value(&at(1, "thread_pid->level"))?;
            code.asm.jump_if(Cond::Lt, R1, *level as i32, no);
            Ok(())
        };
        let guards: &[Guard<'_>] = if *level > 0 { &[&guard] } else { &[] };
        channel.load(recipe, *id, contexts, guards)
    });
    let mut missing = Vec::new();
    let wanted = |event: &str| by_proc && id_of(event).is_some();
    let mut told = if by_proc { processes(wanted) } else { BTreeMap::new() };
    for ((recipe, id, level), program) in all.iter().zip(programs) {
        if is_iterated(recipe) {
            let done = program.and_then(|program| Ok(sys::iterate(program.as_fd())?));
            let Err(error) = done else { continue };
            missing.push(format!("{}: {error}; from /proc", recipe.name));
            if *level == 0 {
                let mut told = processes(|event| event == recipe.name);
                let payloads = told.remove(&*recipe.name).unwrap_or_default();
                channel.record(&by_payload(recipe), *id, contexts, &payloads)?;
            }
            continue;
        }
        let program = program?;
        let payloads = told.remove(&*recipe.name).unwrap_or_else(|| machine::payloads(&recipe.name));
        payloads.iter().try_for_each(|payload| sys::run_with(program.as_fd(), payload))?;
    }
    Ok(missing)
}

type Emitted = Result<(), GenerateError>;

/// What LTTng says of the mode of every process.
const MODE_UNKNOWN: i64 = 5;
const PAGE_SHIFT: i64 = 12;
const PAGE_OFFSET: Expr = at(2, "vm_pgoff");

/// A kernel thread's flag.
const PF_KTHREAD: i32 = 0x0020_0000;

/// 1 for the kernel's threads.
fn kind(code: &mut Code<'_>) -> Emitted {
    code.value(&at(1, "flags"))?;
    code.asm.alu(Alu::And, R1, PF_KTHREAD);
    code.asm.alu(Alu::Rsh, R1, PF_KTHREAD.trailing_zeros() as i32);
    Ok(())
}

/// LTTng's numbers of states.
const WAITS_FOR_CPU: i32 = 2;
const ZOMBIE: i32 = 4;
const WAITS: i32 = 5;
const DEAD: i32 = 7;

fn status(code: &mut Code<'_>) -> Emitted {
    let [zombie, dead, ready, waits, done] = code.asm.labels();
    code.value(&at(1, "exit_state"))?;
    code.asm.jump_if(Cond::Set, R1, 0x20, zombie);
    code.asm.jump_if(Cond::Set, R1, 0x10, dead);
    code.value(&crate::first![at(1, "__state"), at(1, "state")])?;
    code.asm.jump_if(Cond::Eq, R1, 0, ready);
    code.asm.jump_if(Cond::Set, R1, 0x3, waits);
    code.asm.mov(R1, 0);
    code.asm.jump(done);
    for (label, state) in [(zombie, ZOMBIE), (dead, DEAD), (ready, WAITS_FOR_CPU), (waits, WAITS)] {
        code.asm.bind(label);
        code.asm.mov(R1, state);
        code.asm.jump(done);
    }
    code.asm.bind(done);
    Ok(())
}

const PID_NAMESPACE: &str = "lttng_statedump_process_pid_ns";

/// The numbers of a process at a level of nested PID namespaces.
const fn pid_namespace<const LEVEL: u32>() -> Recipe {
    let fields = const {
        &[
            TID,
            s32("vtid", Expr::Custom(|code| number(code, LEVEL, "thread_pid"))),
            s32("vpid", Expr::Custom(|code| number(code, LEVEL, "group_leader->thread_pid"))),
            s32("vppid", Expr::Custom(|code| parent_number(code, LEVEL))),
            s32("ns_level", Expr::Const(LEVEL as i64)),
            u32("ns_inum", Expr::Custom(|code| namespace_number(code, LEVEL))),
        ]
    };
    each(PID_NAMESPACE, TASK, fields)
}

/// R1 = address of a member of the number at `level` of the `struct pid` at a path.
fn at_level(code: &mut Code<'_>, level: u32, pid: &'static str, member: &str) -> Emitted {
    let offset = code.offset_of("pid", "numbers")?
        + code.offset_of("upid", member)?
        + level * code.struct_size("upid")?;
    code.value(&at(1, pid))?;
    code.asm.alu(Alu::Add, R1, offset as i32);
    Ok(())
}

fn number(code: &mut Code<'_>, level: u32, pid: &'static str) -> Emitted {
    at_level(code, level, pid, "nr")?;
    code.read_kernel(Width::B4)
}

/// 0 if the parent is not that deep.
fn parent_number(code: &mut Code<'_>, level: u32) -> Emitted {
    let [outside, done] = code.asm.labels();
    code.value(&at(1, "real_parent->group_leader->thread_pid->level"))?;
    code.asm.jump_if(Cond::Lt, R1, level as i32, outside);
    number(code, level, "real_parent->group_leader->thread_pid")?;
    code.asm.jump(done);
    code.asm.bind(outside);
    code.asm.mov(R1, 0);
    code.asm.bind(done);
    Ok(())
}

fn namespace_number(code: &mut Code<'_>, level: u32) -> Emitted {
    at_level(code, level, "thread_pid", "ns")?;
    code.read_kernel(Width::B8)?;
    let inum = code.offset_of("pid_namespace", "ns.inum")?;
    code.asm.alu(Alu::Add, R1, inum as i32);
    code.read_kernel(Width::B4)
}

/// The path of an open file, as the kernel says it.
fn path_of_file(code: &mut Code<'_>) -> Emitted {
    let path = code.offset_of("file", "f_path")?;
    let [none, done] = code.asm.labels();
    code.begin_variable();
    code.argument(3)?;
    let asm = &mut code.asm;
    asm.jump_if(Cond::Eq, R1, 0, none);
    asm.alu(Alu::Add, R1, path as i32);
    asm.mov(R2, R8);
    asm.alu(Alu::Add, R2, R9);
    asm.mov(R3, STRING_BYTES_MAX as i32);
    asm.call(helper::PATH);
    asm.jump_if(Cond::SLe, R0, 0, none);
    asm.jump_if(Cond::SGt, R0, STRING_BYTES_MAX as i32, none);
    asm.alu(Alu::Add, R9, R0);
    asm.jump(done);
    asm.bind(none);
    asm.mov(R1, 0);
    code.put_variable(R1, Width::B1);
    code.asm.bind(done);
    code.end_variable();
    Ok(())
}
