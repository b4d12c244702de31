//! The scheduler: switches, wake-ups, migrations, and the life of processes.
//!
//! Priorities are LTTng's: 0 is nice −20's neighbour below real time, the kernel's number minus 100.

use crate::code::{Code, GenerateError};
use crate::recipe::{
    Expr, Field, Int, Recipe, Root, S32, Type, U8, arg, at, current, custom, s32, s64, string, text, u32, u64,
};
use crate::{choose, fields, first};
use sillage_bpf::{Alu, Cond, Reg, Width};

/// The kernel's priority of the first ordinary task.
const RT_PRIO_MAX: i32 = 100;
/// Bytes of a task's name.
const COMM_BYTES: u32 = 16;
/// Nested PID namespaces that the kernel allows.
const PID_LEVELS_MAX: u32 = 32;

/// The CPU that the task of the first argument runs or ran on.
const TASK_CPU: Expr = first![at(0, "thread_info.cpu"), at(0, "cpu"), at(0, "wake_cpu")];

const COMM: Field = text("comm", COMM_BYTES, at(0, "comm"));
const TID: Field = s32("tid", at(0, "pid"));
const PRIO: Field = s32("prio", at(0, "prio").plus(-RT_PRIO_MAX));

const fn task(name: &'static str) -> Recipe {
    Recipe::of(name, fields![COMM, TID, PRIO])
}

const fn wakeup(name: &'static str) -> Recipe {
    Recipe::of(name, fields![COMM, TID, PRIO, s32("target_cpu", TASK_CPU)])
}

const fn delay(name: &'static str) -> Recipe {
    Recipe::of(name, fields![COMM, TID, u64("delay", arg(1))])
}

/// The tasks of a switch: since 5.18 their state is an argument of its own, behind them.
const fn prev(path: &'static str) -> Expr {
    at(1, path)
}
const fn next(path: &'static str) -> Expr {
    at(2, path)
}

pub(super) static EVENTS: &[Recipe] = &[
    Recipe::of("sched_kthread_stop", fields![COMM, TID]),
    Recipe::of("sched_kthread_stop_ret", fields![s32("ret", arg(0))]),
    Recipe::of(
        "sched_migrate_task",
        fields![COMM, TID, PRIO, s32("orig_cpu", TASK_CPU), s32("dest_cpu", arg(1))],
    ),
    Recipe::of(
        "sched_pi_setprio",
        fields![
            COMM,
            TID,
            s32("oldprio", at(0, "prio").plus(-RT_PRIO_MAX)),
            s32(
                "newprio",
                choose!(arg(1), at(1, "prio").plus(-RT_PRIO_MAX), at(0, "prio").plus(-RT_PRIO_MAX)),
            ),
        ],
    ),
    Recipe::of(
        "sched_process_exec",
        fields![string("filename", at(2, "filename")), TID, s32("old_tid", arg(1))],
    ),
    task("sched_process_exit"),
    Recipe::of(
        "sched_process_fork",
        fields![
            text("parent_comm", COMM_BYTES, at(0, "comm")),
            s32("parent_tid", at(0, "pid")),
            s32("parent_pid", at(0, "tgid")),
            u32("parent_ns_inum", Expr::Custom(parent_namespace)),
            text("child_comm", COMM_BYTES, at(1, "comm")),
            s32("child_tid", at(1, "pid")),
            custom("vtids", Type::Sequence { count: U8, element: &Type::Int(S32) }, virtual_tids),
            s32("child_pid", at(1, "tgid")),
            u32("child_ns_inum", Expr::Custom(child_namespace)),
        ],
    ),
    task("sched_process_free"),
    Recipe::of(
        "sched_process_wait",
        fields![
            text("comm", COMM_BYTES, current("comm")),
            s32("tid", at(0, "numbers[0].nr")),
            s32("prio", current("prio").plus(-RT_PRIO_MAX)),
        ],
    ),
    delay("sched_stat_blocked"),
    delay("sched_stat_iowait"),
    Recipe::of(
        "sched_stat_runtime",
        // Since 6.8 the tracepoint does not pass the virtual run time any more.
        fields![COMM, TID, u64("runtime", arg(1)), u64("vruntime", first![arg(2), at(0, "se.vruntime")])],
    ),
    delay("sched_stat_sleep"),
    delay("sched_stat_wait"),
    Recipe::of(
        "sched_switch",
        fields![
            text("prev_comm", COMM_BYTES, prev("comm")),
            s32("prev_tid", prev("pid")),
            s32("prev_prio", prev("prio").plus(-RT_PRIO_MAX)),
            s64("prev_state", Expr::Custom(switch_state)),
            text("next_comm", COMM_BYTES, next("comm")),
            s32("next_tid", next("pid")),
            s32("next_prio", next("prio").plus(-RT_PRIO_MAX)),
        ],
    ),
    task("sched_wait_task"),
    wakeup("sched_wakeup"),
    wakeup("sched_wakeup_new"),
    wakeup("sched_waking"),
];

/// States that are reported: running to parked.
const TASK_REPORT: i32 = 0x7f;
/// What an idle kernel thread is reported as.
const TASK_REPORT_IDLE: i32 = 0x80;
/// What a preempted task is reported as.
const TASK_REPORT_MAX: i32 = 0x100;
/// Uninterruptible, and not counted as load.
const TASK_IDLE: i32 = 0x402;
const TASK_UNINTERRUPTIBLE: i32 = 0x2;
/// Waits for a lock of the real-time kernel; reported as uninterruptible.
const TASK_RTLOCK_WAIT: i32 = 0x1000;

/// The state in which the previous task leaves, as the kernel's own tracing reports it: the highest
/// of the reported bits, or a bit of its own for preempted and for idle tasks.
fn switch_state(code: &mut Code<'_>) -> Result<(), GenerateError> {
    use Reg::*;
    let [preempted, idle, reported, done] = code.asm.labels();
    code.value(&arg(0))?;
    code.asm.jump_if(Cond::Ne, R1, 0, preempted);
    code.value(&prev("exit_state"))?;
    let kept = code.spill(R1);
    code.value(&first![arg(3), prev("__state"), prev("state")])?;
    code.unspill(R2, kept);
    code.release(1);
    let asm = &mut code.asm;
    asm.mov(R3, R1);
    asm.alu(Alu::And, R3, TASK_IDLE);
    asm.jump_if(Cond::Eq, R3, TASK_IDLE, idle);
    asm.alu(Alu::Or, R2, R1);
    asm.alu(Alu::And, R2, TASK_REPORT);
    asm.alu(Alu::And, R1, TASK_RTLOCK_WAIT);
    asm.jump_if(Cond::Eq, R1, 0, reported);
    asm.mov(R2, TASK_UNINTERRUPTIBLE);
    asm.bind(reported);
    // All bits below the highest, then that one alone.
    asm.mov(R1, R2);
    for shift in [1, 2, 4] {
        asm.mov(R2, R1);
        asm.alu(Alu::Rsh, R2, shift);
        asm.alu(Alu::Or, R1, R2);
    }
    asm.mov(R2, R1);
    asm.alu(Alu::Rsh, R2, 1);
    asm.alu(Alu::Sub, R1, R2);
    asm.jump(done);
    asm.bind(idle);
    asm.mov(R1, TASK_REPORT_IDLE);
    asm.jump(done);
    asm.bind(preempted);
    asm.mov(R1, TASK_REPORT_MAX);
    asm.bind(done);
    Ok(())
}

fn parent_namespace(code: &mut Code<'_>) -> Result<(), GenerateError> {
    namespace(code, 0)
}

fn child_namespace(code: &mut Code<'_>) -> Result<(), GenerateError> {
    namespace(code, 1)
}

/// Address of the innermost of a task's numbers, `thread_pid->numbers[level]`, plus the offset of a
/// member in it.
fn innermost(code: &mut Code<'_>, argument: u8, member: &'static str) -> Result<(), GenerateError> {
    use Reg::*;
    let thread_pid = Expr::Path { root: Root::Arg(argument), path: "thread_pid", plus: 0 };
    let stride = code.struct_size("upid")?;
    let offset = code.offset_of("pid", "numbers")? + code.offset_of("upid", member)?;
    code.value(&Expr::Path { root: Root::Arg(argument), path: "thread_pid->level", plus: 0 })?;
    let level = code.spill(R1);
    code.value(&thread_pid)?;
    code.unspill(R2, level);
    code.release(1);
    code.asm.alu(Alu::Mul, R2, stride as i32);
    code.asm.alu(Alu::Add, R1, R2);
    code.asm.alu(Alu::Add, R1, offset as i32);
    Ok(())
}

/// Number of the PID namespace in which a task was made.
fn namespace(code: &mut Code<'_>, argument: u8) -> Result<(), GenerateError> {
    innermost(code, argument, "ns")?;
    code.read_kernel(Width::B8)?;
    let inum = code.offset_of("pid_namespace", "ns.inum")?;
    code.asm.alu(Alu::Add, Reg::R1, inum as i32);
    code.read_kernel(Width::B4)
}

/// The numbers of the new task in all namespaces that see it, the outermost first.
fn virtual_tids(code: &mut Code<'_>) -> Result<(), GenerateError> {
    use Reg::*;
    const COUNT: Int = U8;
    let stride = code.struct_size("upid")?;
    let offset = code.offset_of("pid", "numbers")? + code.offset_of("upid", "nr")?;
    code.value(&at(1, "thread_pid"))?;
    let pid = code.spill(R1);
    code.value(&at(1, "thread_pid->level"))?;
    code.asm.alu(Alu::Add, R1, 1);
    code.at_most(PID_LEVELS_MAX);
    let count = code.spill(R1);
    code.put(R1, COUNT);
    code.begin_variable();
    let done = code.asm.label();
    for level in 0..PID_LEVELS_MAX {
        code.unspill(R1, count);
        code.asm.jump_if(Cond::Le, R1, level as i32, done);
        code.unspill(R1, pid);
        code.asm.alu(Alu::Add, R1, (offset + level * stride) as i32);
        code.read_kernel(Width::B4)?;
        code.put_variable(R1, Width::B4);
    }
    code.asm.bind(done);
    code.release(2);
    // So that the verifier follows what comes behind once, not for each number of levels.
    code.forget_length();
    Ok(())
}
