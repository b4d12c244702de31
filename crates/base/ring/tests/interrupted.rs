//! A restartable sequence that is interrupted on purpose: killed at each of its instructions,
//! single-stepped by a debugger for ever, and met by a hog on its CPU.

mod support;

use sillage_ring::layout::LostReason;
use sillage_ring::{Cut, Geometry, Kind};
use support::*;

unsafe extern "C" {
    // The linker's bounds of the section with the descriptors of all restartable sequences.
    #[link_name = "__start___rseq_cs"]
    static SEQUENCES_START: Sequence;
    #[link_name = "__stop___rseq_cs"]
    static SEQUENCES_END: Sequence;
}

/// `struct rseq_cs` of the kernel's ABI.
#[repr(C, align(32))]
struct Sequence {
    version_and_flags: u64,
    start: u64,
    post_commit_offset: u64,
    abort: u64,
}

fn sequences() -> &'static [Sequence] {
    let (start, end) = (&raw const SEQUENCES_START, &raw const SEQUENCES_END);
    // SAFETY: the linker put whole descriptors between the two symbols.
    unsafe { std::slice::from_raw_parts(start, (end as usize - start as usize) / size_of::<Sequence>()) }
}

fn wait_stopped(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: plain system call.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status))
}

fn ptrace(request: u32, pid: i32, address: u64, data: u64) -> i64 {
    // SAFETY: the tracee is ours and stopped.
    unsafe { libc::ptrace(request, pid, address, data) }
}

/// Forks a child that stops itself and then runs `work`; returns it stopped and traced.
fn traced_child(work: impl FnOnce()) -> i32 {
    // SAFETY: the child only makes system calls and runs `work`, which neither allocates nor locks.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            work();
            libc::_exit(0);
        }
    }
    assert_eq!(wait_stopped(pid), Some(libc::SIGSTOP));
    pid
}

fn kill(pid: i32) {
    let mut status = 0;
    // SAFETY: the child is ours.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, &mut status, 0);
    }
}

/// Runs `work` in children that a hardware breakpoint stops at every address of every sequence in
/// turn (addresses inside an instruction never hit) and kills there. Returns how many died inside.
fn kill_at_every_instruction(mut work: impl FnMut(u64), mut check: impl FnMut()) -> usize {
    let debug_register = |n: usize| (std::mem::offset_of!(libc::user, u_debugreg) + 8 * n) as u64;
    let (mut died, mut attempt) = (0, 0);
    for sequence in sequences() {
        for address in sequence.start..sequence.start + sequence.post_commit_offset {
            let pid = traced_child(|| work(attempt));
            attempt += 1;
            let set = ptrace(libc::PTRACE_POKEUSER, pid, debug_register(0), address)
                | ptrace(libc::PTRACE_POKEUSER, pid, debug_register(7), 1);
            assert_eq!(set, 0, "hardware breakpoints");
            assert_eq!(ptrace(libc::PTRACE_CONT, pid, 0, 0), 0);
            if wait_stopped(pid) == Some(libc::SIGTRAP) {
                died += 1;
                kill(pid);
            }
            check();
        }
    }
    died
}

#[test]
fn a_producer_killed_at_any_instruction_leaves_a_whole_ring() {
    pin(0);
    for overwrite in [false, true] {
        let rings = Rings::new(Geometry { overwrite, ..geometry(Kind::Rseq, 12, 4) });
        let producer = rings.producer();
        let _ticker = Ticker::start(rings.clock());
        let mut collector = Collector::new(&rings.set);
        let mut survivors_number = 0;
        // Payloads that take every path: short, extended id, long copy, and a new sub-buffer each time.
        let (mut stage, mut bytes) = (Stage::new(4096), Vec::new());
        let mut own = Stage::new(64);
        let died = kill_at_every_instruction(
            |attempt| {
                for (i, (id, count)) in (1..).zip([(3, 4), (70_000, 20), (3, 400), (3, 2000)]) {
                    payload(9, 6 * attempt + i, count, &mut bytes);
                    stage.emit(&producer, id, &bytes);
                }
                payload(9, 6 * attempt + 5, 4, &mut bytes);
                stage.emit_in_whole_section(&producer, 3, &bytes);
                stage.emit(&producer, WORD_ID, &word(9, 6 * attempt + 6));
            },
            || {
                survivors_number += 1;
                let mut mine = Vec::new();
                payload(1, survivors_number, 3, &mut mine);
                own.emit(&producer, 2, &mine);
                collector.poll(&rings.set, Cut::Open);
            },
        );
        let mut summary = Summary::default();
        collector.streams.iter().for_each(|s| summary.add(rings.set.geometry().header, s));
        assert!(died > 100, "only {died} children died inside a sequence");
        assert_eq!(summary.numbers[&1], (1..=survivors_number).collect::<Vec<_>>(), "nothing else is lost");
        assert!(summary.numbers[&9].is_sorted(), "what the killed ones published came once, in order");
        println!("{died} killed inside a sequence, {} records of theirs", summary.numbers[&9].len());
    }
}

#[test]
fn single_stepping_gives_up_after_a_while_and_counts_the_record() {
    pin(0);
    let rings = Rings::new(geometry(Kind::Rseq, 12, 4));
    let producer = rings.producer();
    let mut stage = Stage::new(64);
    let pid = traced_child(|| {
        stage.emit(&producer, 1, &[0; 14]);
    });
    let mut steps = 0u32;
    loop {
        assert_eq!(ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0), 0);
        if wait_stopped(pid).is_none() {
            break;
        }
        steps += 1;
        assert!(steps < 200_000, "the sequence must end under a debugger");
    }
    assert_eq!(rings.set.lost(0)[LostReason::Aborted as usize], 1, "after {steps} steps");
    // And the ring is as good as before.
    let (mut own, mut bytes) = (Stage::new(64), Vec::new());
    payload(1, 1, 3, &mut bytes);
    own.emit(&producer, 1, &bytes);
    let mut collector = Collector::new(&rings.set);
    collector.poll(&rings.set, Cut::Open);
    let mut summary = Summary::default();
    collector.streams.iter().for_each(|s| summary.add(rings.set.geometry().header, s));
    assert_eq!((summary.records, summary.discarded), (1, 1));
}

#[test]
fn a_cpu_that_the_consumer_may_not_run_on_is_flushed_all_the_same() {
    let last = possible_cpus() - 1;
    if last == 0 {
        println!("skipped: one CPU");
        return;
    }
    let rings = Rings::new(geometry(Kind::Rseq, 12, 4));
    let producer = rings.producer();
    // SAFETY: the child only pins itself, emits and spins; it neither allocates nor locks.
    let hog = unsafe { libc::fork() };
    if hog == 0 {
        pin(last);
        let (mut stage, mut bytes) = (Stage::new(64), [0; PAYLOAD_HEAD]);
        bytes[4] = 1; // number 1 of thread 0
        stage.emit(&producer, 1, &bytes);
        // From here on nobody else gets this CPU for long, where the right to it is given.
        let parameter = libc::sched_param { sched_priority: 50 };
        // SAFETY: plain system call.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameter) };
        loop {
            std::hint::spin_loop();
        }
    }
    pin(0); // as a cpuset would
    let mut collector = Collector::new(&rings.set);
    let until = monotonic_ns() + 10_000_000_000;
    while !collector.poll(&rings.set, Cut::Open) {
        assert!(monotonic_ns() < until, "nothing was flushed");
        std::thread::yield_now();
    }
    kill(hog);
    assert_eq!(decode(rings.set.geometry().header, &collector.streams[last as usize][0]).len(), 1);
}
