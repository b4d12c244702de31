//! Contexts: fields in front of every event's, by LTTng's names and types.
//!
//! Those of the current task are expressions like any other field. Call stacks and the interrupt flag
//! have emitters; counters of perf need descriptors, which a [`Counter`] holds. What cannot be had is an
//! error that says why.

pub mod counters;

pub use counters::Counter;

use crate::code::{Code, GenerateError, helper};
use crate::recipe::{Expr, Field, Root, S8, Type, U8, U32, U64, current, custom, int, s32, text, u32};
use crate::{choose, fields};
use sillage_bpf::{Alu, Cond, Insn, Kind, Reg, Width};
use thiserror::Error;

use Reg::*;

/// Why there is no such context.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ContextError {
    /// Nobody knows it.
    #[error("no kernel context is called {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It exists, but not here.
    #[error("context {name}: {reason}")]
    Unavailable {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
}

/// A context, and what must live as long as it is used.
#[derive(Debug)]
pub struct Context {
    /// What goes into the records.
    pub field: Field,
    /// For counters: their descriptors.
    pub counter: Option<Counter>,
}

/// The context of this name.
///
/// # Errors
/// There is none, or it cannot be had, with the reason.
pub fn find(name: &str) -> Result<Context, ContextError> {
    let unavailable =
        |reason: &str| Err(ContextError::Unavailable { name: name.into(), reason: reason.into() });
    if let Some(field) = TABLE.iter().find(|field| listed_as(&field.name) == name) {
        return Ok(Context { field: field.clone(), counter: None });
    }
    match name {
        "preemptible" => unavailable("the kernel does not show its preemption count to eBPF programs"),
        "pthread_id" | "ip" => unavailable("only programs have it"),
        _ if name.starts_with("perf:thread:") => {
            unavailable("counters of single threads belong to programs; the kernel's are perf:cpu:NAME")
        }
        _ => match name.strip_prefix("perf:cpu:").or_else(|| name.strip_prefix("perf:")) {
            Some(event) => counters::open(name, event),
            None => Err(ContextError::Unknown { name: name.into() }),
        },
    }
}

/// Names of all contexts that do not depend on the machine, as `add-context --list` has them.
pub fn names() -> impl Iterator<Item = String> {
    TABLE.iter().map(|field| listed_as(&field.name)).chain(counters::names())
}

/// LTTng lists two of them with a dash.
fn listed_as(field: &str) -> String {
    field.strip_prefix("callstack_").map_or_else(|| field.into(), |which| format!("callstack-{which}"))
}

const fn namespace(name: &'static str, path: &'static str) -> Field {
    u32(name, current(path))
}
const fn stack(name: &'static str, emit: crate::recipe::Emitter) -> Field {
    custom(name, Type::Sequence { count: U32, element: &ADDRESS }, emit)
}
static ADDRESS: Type = Type::Int(U64.hex());

/// Numbers of the task as its own namespace sees them.
const VPID: Expr = Expr::Custom(vpid);

const TABLE: &[Field] = fields![
    s32("pid", current("tgid")),
    text("procname", 16, current("comm")),
    s32("prio", current("prio").plus(-100)),
    s32("nice", current("static_prio").plus(-120)),
    s32("vpid", VPID),
    s32("tid", current("pid")),
    s32("vtid", Expr::Custom(vtid)),
    s32("ppid", current("real_parent->tgid")),
    s32("vppid", Expr::Custom(vppid)),
    text("hostname", 65, current("nsproxy->uts_ns->name.nodename")),
    int("interruptible", S8, Expr::Custom(interruptible)),
    int("need_reschedule", U8, Expr::Custom(need_reschedule)),
    int("migratable", U8, choose!(current("migration_disabled"), Expr::Const(0), Expr::Const(1))),
    stack("callstack_kernel", kernel_stack),
    stack("callstack_user", user_stack),
    namespace("cgroup_ns", "nsproxy->cgroup_ns->ns.inum"),
    namespace("ipc_ns", "nsproxy->ipc_ns->ns.inum"),
    namespace("mnt_ns", "nsproxy->mnt_ns->ns.inum"),
    namespace("net_ns", "nsproxy->net_ns->ns.inum"),
    u32("pid_ns", PID_NAMESPACE),
    namespace("time_ns", "nsproxy->time_ns->ns.inum"),
    namespace("user_ns", "cred->user_ns->ns.inum"),
    namespace("uts_ns", "nsproxy->uts_ns->ns.inum"),
    u32("uid", current("cred->uid.val")),
    u32("euid", current("cred->euid.val")),
    u32("suid", current("cred->suid.val")),
    u32("gid", current("cred->gid.val")),
    u32("egid", current("cred->egid.val")),
    u32("sgid", current("cred->sgid.val")),
    u32("vuid", Expr::Custom(|code| current_id(code, "uid_map", "cred->uid.val"))),
    u32("veuid", Expr::Custom(|code| current_id(code, "uid_map", "cred->euid.val"))),
    u32("vsuid", Expr::Custom(|code| current_id(code, "uid_map", "cred->suid.val"))),
    u32("vgid", Expr::Custom(|code| current_id(code, "gid_map", "cred->gid.val"))),
    u32("vegid", Expr::Custom(|code| current_id(code, "gid_map", "cred->egid.val"))),
    u32("vsgid", Expr::Custom(|code| current_id(code, "gid_map", "cred->sgid.val"))),
    s32("cpu_id", Expr::Helper(helper::CPU)),
];

/// The table's field of this name, for filters and trackers.
pub(crate) fn plain(name: &str) -> Option<&'static Field> {
    TABLE.iter().find(|field| field.name == name)
}

type Emitted = Result<(), GenerateError>;

/// Number of the namespace in which the current task was made.
pub(crate) const PID_NAMESPACE: Expr = Expr::Custom(pid_namespace);

fn pid_namespace(code: &mut Code<'_>) -> Emitted {
    let [deep, done] = code.asm.labels();
    code.value(&current("thread_pid->level"))?;
    code.asm.jump_if(Cond::Ne, R1, 0, deep);
    code.value(&current("thread_pid->numbers[0].ns->ns.inum"))?;
    code.asm.jump(done);
    code.asm.bind(deep);
    innermost(code, "thread_pid", "ns")?;
    code.read_kernel(Width::B8)?;
    let inum = code.offset_of("pid_namespace", "ns.inum")?;
    code.asm.alu(Alu::Add, R1, inum as i32);
    code.read_kernel(Width::B4)?;
    code.asm.bind(done);
    Ok(())
}

/// R1 = address of a member of the innermost number behind a path to a `struct pid`. The level in R1.
fn innermost(code: &mut Code<'_>, pid: &'static str, member: &str) -> Emitted {
    let level = code.spill(R1);
    code.value(&current(pid))?;
    let stride = code.struct_size("upid")?;
    let offset = code.offset_of("pid", "numbers")? + code.offset_of("upid", member)?;
    code.unspill(R2, level);
    code.release(1);
    code.asm.alu(Alu::Mul, R2, stride as i32);
    code.asm.alu(Alu::Add, R1, R2);
    code.asm.alu(Alu::Add, R1, offset as i32);
    Ok(())
}

/// The number of a `struct pid` in the innermost namespace of the current task; `outer` is the same
/// number where there is only one namespace.
fn virtual_number(code: &mut Code<'_>, pid: &'static str, outer: &'static str) -> Emitted {
    let [deep, done] = code.asm.labels();
    code.value(&current("thread_pid->level"))?;
    code.asm.jump_if(Cond::Ne, R1, 0, deep);
    code.value(&current(outer))?;
    code.asm.jump(done);
    code.asm.bind(deep);
    innermost(code, pid, "nr")?;
    code.read_kernel(Width::B4)?;
    code.asm.bind(done);
    Ok(())
}

fn vpid(code: &mut Code<'_>) -> Emitted {
    virtual_number(code, "group_leader->thread_pid", "tgid")
}

fn vtid(code: &mut Code<'_>) -> Emitted {
    virtual_number(code, "thread_pid", "pid")
}

/// The parent's number as the current task sees it; 0 if it is outside of the task's namespace.
fn vppid(code: &mut Code<'_>) -> Emitted {
    const PARENT: &str = "real_parent->group_leader->thread_pid";
    let [deep, outside, done] = code.asm.labels();
    code.value(&current("thread_pid->level"))?;
    code.asm.jump_if(Cond::Ne, R1, 0, deep);
    code.value(&current("real_parent->tgid"))?;
    code.asm.jump(done);
    code.asm.bind(deep);
    let level = code.spill(R1);
    code.value(&current("real_parent->group_leader->thread_pid->level"))?;
    code.unspill(R2, level);
    code.asm.jump_if(Cond::Lt, R1, R2, outside);
    code.asm.mov(R1, R2);
    innermost(code, PARENT, "nr")?;
    code.read_kernel(Width::B4)?;
    code.asm.jump(done);
    code.asm.bind(outside);
    code.asm.mov(R1, 0);
    code.asm.bind(done);
    code.release(1);
    Ok(())
}

/// What an id without a counterpart becomes.
const OVERFLOW_ID: i32 = 65534;
/// Ranges of a map that stand in it; with more of them they stand elsewhere, and every id is the
/// overflow id here.
const RANGES_MAX: u32 = 5;

fn current_id(code: &mut Code<'_>, map: &'static str, id: &'static str) -> Emitted {
    virtual_id(code, map, &current(id), current)
}

/// An id as the user namespace of a task sees it, to which `task` gives the way.
pub(crate) fn virtual_id(
    code: &mut Code<'_>,
    map: &'static str,
    id: &Expr,
    task: fn(&'static str) -> Expr,
) -> Emitted {
    let [done, mapped] = code.asm.labels();
    let parts = |code: &Code<'_>, member: &str| code.offset_of("uid_gid_extent", member);
    let stride = code.struct_size("uid_gid_extent")?;
    let at = code.offset_of("user_namespace", map)? + code.offset_of("uid_gid_map", "extent")?;
    let (first, lower, count) = (parts(code, "first")?, parts(code, "lower_first")?, parts(code, "count")?);
    let ranges = code.offset_of("user_namespace", map)? + code.offset_of("uid_gid_map", "nr_extents")?;
    code.value(id)?;
    let id = code.spill(R1);
    code.value(&task("cred->user_ns->level"))?;
    let level = code.spill(R1);
    code.unspill(R1, id);
    code.unspill(R2, level);
    code.release(1);
    code.asm.jump_if(Cond::Eq, R2, 0, mapped);
    code.value(&task("cred->user_ns"))?;
    let namespace = code.spill(R1);
    code.asm.alu(Alu::Add, R1, ranges as i32);
    code.read_kernel(Width::B4)?;
    let number = code.spill(R1);
    let none = code.asm.label();
    code.asm.jump_if(Cond::Gt, R1, RANGES_MAX as i32, none);
    let scratch = code.scratch(16);
    for index in 0..RANGES_MAX {
        let next = code.asm.label();
        code.unspill(R1, number);
        code.asm.jump_if(Cond::Le, R1, index as i32, none);
        code.unspill(R3, namespace);
        code.asm.alu(Alu::Add, R3, (at + index * stride) as i32);
        code.asm.mov(R1, R10);
        code.asm.alu(Alu::Add, R1, i32::from(scratch));
        code.asm.mov(R2, stride as i32);
        code.asm.call(helper::READ_KERNEL);
        code.unspill(R1, id);
        code.asm.load(Width::B4, R2, R10, scratch + lower as i16);
        code.asm.jump_if(Cond::Lt, R1, R2, next);
        code.asm.alu(Alu::Sub, R1, R2);
        code.asm.load(Width::B4, R2, R10, scratch + count as i16);
        code.asm.jump_if(Cond::Ge, R1, R2, next);
        code.asm.load(Width::B4, R2, R10, scratch + first as i16);
        code.asm.alu(Alu::Add, R1, R2);
        code.asm.jump(done);
        code.asm.bind(next);
    }
    code.asm.bind(none);
    code.asm.mov(R1, OVERFLOW_ID);
    code.asm.jump(done);
    code.asm.bind(mapped);
    code.asm.bind(done);
    code.release(5);
    Ok(())
}

/// Bit of the interrupt flag in x86's flags.
const INTERRUPT_FLAG: i32 = 9;

/// 1 if interrupts are on. The kernel gives programs no way to ask, but one to save the flags.
fn interruptible(code: &mut Code<'_>) -> Emitted {
    if !cfg!(target_arch = "x86_64") {
        return Err(GenerateError::NoType("way to ask for the interrupt flag on this machine".into()));
    }
    let function = |code: &Code<'_>, name: &str| {
        let id = code.btf().find(Kind::Function, name);
        id.ok_or_else(|| GenerateError::NoType(format!("function {name}")))
    };
    let (save, restore) = (function(code, "bpf_local_irq_save")?, function(code, "bpf_local_irq_restore")?);
    let slot = code.scratch(8);
    for function in [save, restore] {
        code.asm.mov(R1, R10);
        code.asm.alu(Alu::Add, R1, i32::from(slot));
        code.asm.push(Insn::call_kernel(function.0));
    }
    code.asm.load(Width::B8, R1, R10, slot);
    code.asm.alu(Alu::Rsh, R1, INTERRUPT_FLAG);
    code.asm.alu(Alu::And, R1, 1);
    code.release(1);
    Ok(())
}

/// 1 if the scheduler has been asked to look again. The flag's bit is no type of the kernel's: it is
/// another one since the kernel's enumeration of it is common to all machines (6.18).
fn need_reschedule(code: &mut Code<'_>) -> Emitted {
    let bit = resched_bit()
        .ok_or_else(|| GenerateError::NoType("known number of TIF_NEED_RESCHED on this machine".into()))?;
    code.value(&Expr::Path { root: Root::Current, path: "thread_info.flags", plus: 0 })?;
    code.asm.alu(Alu::Rsh, R1, bit);
    code.asm.alu(Alu::And, R1, 1);
    Ok(())
}

fn resched_bit() -> Option<i32> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    if cfg!(target_arch = "x86_64") {
        return Some(if version >= COMMON_FLAGS { 4 } else { 3 });
    }
    cfg!(target_arch = "aarch64").then_some(1)
}

/// First kernel in which x86 takes the common numbers of thread flags.
const COMMON_FLAGS: (u32, u32) = (6, 18);

/// Frames of a call stack that are kept.
const FRAMES_MAX: i32 = 127;
/// Flag of the helper for the program's own stack.
const USER_STACK: i32 = 1 << 8;

fn kernel_stack(code: &mut Code<'_>) -> Emitted {
    call_stack(code, 0)
}

fn user_stack(code: &mut Code<'_>) -> Emitted {
    call_stack(code, USER_STACK)
}

/// Return addresses, the innermost first.
fn call_stack(code: &mut Code<'_>, flags: i32) -> Emitted {
    code.begin_variable();
    let start = code.spill(R9);
    let asm = &mut code.asm;
    asm.mov(R1, R6);
    asm.mov(R2, R8);
    asm.alu(Alu::Add, R2, R9);
    asm.alu(Alu::Add, R2, 4);
    asm.mov(R3, 8 * FRAMES_MAX);
    asm.mov(R4, flags);
    asm.call(helper::STACK);
    let [some, fits] = asm.labels();
    asm.jump_if(Cond::SGt, R0, 0, some);
    asm.mov(R0, 0);
    asm.bind(some);
    asm.jump_if(Cond::Le, R0, 8 * FRAMES_MAX, fits);
    asm.mov(R0, 8 * FRAMES_MAX);
    asm.bind(fits);
    asm.mov(R1, R0);
    asm.alu(Alu::Rsh, R1, 3);
    asm.mov(R2, R1);
    asm.alu(Alu::Lsh, R2, 3);
    code.unspill(R9, start);
    let kept = code.spill(R2);
    code.put_variable(R1, Width::B4);
    code.unspill(R2, kept);
    code.asm.alu(Alu::Add, R9, R2);
    code.release(2);
    code.end_variable();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::summary;

    #[test]
    fn contexts_have_ltt_ngs_types() {
        let shown: Vec<String> =
            ["procname", "hostname", "interruptible", "need_reschedule", "callstack-kernel", "vuid"]
                .iter()
                .map(|name| {
                    find(name).map(|context| summary(&context.field.name, &context.field.ty)).unwrap()
                })
                .collect();
        assert_eq!(
            shown.join(" "),
            "s8:UTF8 _procname[16]; s8:UTF8 _hostname[65]; s8 _interruptible; u8 _need_reschedule; \
             u32 __callstack_kernel_length; u64x _callstack_kernel[ __callstack_kernel_length ]; u32 _vuid;"
        );
    }

    #[test]
    fn what_cannot_be_had_says_why() {
        let show = |name: &str| find(name).map(drop).unwrap_err().to_string();
        assert_eq!(show("colour"), "no kernel context is called colour");
        assert_eq!(show("ip"), "context ip: only programs have it");
        assert!(show("preemptible").contains("preemption count"));
        assert!(show("perf:thread:cycles").contains("perf:cpu:"));
        assert_eq!(show("perf:cpu:nonsense"), "no kernel context is called perf:cpu:nonsense");
    }
}
