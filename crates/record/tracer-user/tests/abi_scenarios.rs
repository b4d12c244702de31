//! What happens to traced programs: forks, signals, threads, libraries that come and go, too little
//! memory, debuggers. Each program runs on our C library and registers with a daemon of the test's.

#![allow(clippy::single_range_in_vec_init, reason = "ticks come in ranges, of which there may be one")]

mod support;

use sillage_protocol::program::ProducerKind;
use sillage_ring::layout::LostReason;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;
use support::programs::{Obedient, command, compile, run};
use support::{Daemon, Options};

fn scenario() -> PathBuf {
    compile("cc", "scenario.c", &[])
}

const NAMES: &[&str] = &["scenario:", "plugin:"];

fn options() -> Options {
    Options { names: NAMES, ..Options::default() }
}

/// Texts of `scenario:tick` with these numbers.
fn ticks(ranges: impl IntoIterator<Item = std::ops::Range<i32>>) -> BTreeMap<String, usize> {
    ranges.into_iter().flatten().map(|n| (format!("scenario:tick n={n}"), 1)).collect()
}

fn lost(daemon: &Daemon, reason: LostReason) -> u64 {
    daemon.lost()[reason as usize]
}

/// Runs the scenario with both kinds of producer.
fn both(mode: &[&str], check: impl Fn(&Daemon, &str, ProducerKind)) {
    for kind in [ProducerKind::Rseq, ProducerKind::Locked] {
        let daemon = Daemon::new(options());
        let mut command = command(scenario(), Some(&daemon));
        command.args(mode);
        if kind == ProducerKind::Locked {
            command.env("SILLAGE_PRODUCER", "locked");
        }
        let stdout = run(&mut command);
        daemon.programs(|p| assert_eq!(p[0].hello.producer, kind));
        check(&daemon, &stdout, kind);
    }
}

#[test]
fn events_are_recorded_by_both_kinds_of_producer() {
    both(&["ticks", "1000"], |daemon, _, _| assert_eq!(daemon.counts(), ticks([0..1000])));
}

#[test]
fn threads_that_come_and_go() {
    both(&["threads", "8", "500"], |daemon, _, kind| {
        let mut counts = daemon.counts();
        let recorded = counts.len() as u64;
        for text in ticks((0..32).map(|n| n * 1_000_000..n * 1_000_000 + 500)).keys() {
            assert!(counts.remove(text).is_none_or(|count| count == 1), "{text} is doubled");
        }
        assert_eq!(counts, BTreeMap::new(), "nobody recorded these");
        // On a busy machine the holder of the one lock may be away for long.
        assert_eq!(recorded + lost(daemon, LostReason::Contended), 16_000, "{:?}", daemon.lost());
        assert!(kind == ProducerKind::Locked || recorded == 16_000, "{:?}", daemon.lost());
    });
}

#[test]
fn a_forked_child_records_at_once_and_registers_as_a_program() {
    let daemon = Daemon::new(options());
    run(command(scenario(), Some(&daemon)).args(["fork", "100"]).env("LINGER", "1"));
    assert_eq!(daemon.counts(), ticks([0..100, 1000..1100, 2000..2100]));
    daemon.programs(|programs| {
        let [parent, child] = programs else { panic!("{} programs", programs.len()) };
        assert_eq!(child.hello.vppid, parent.hello.vpid);
        assert!(child.seen.keys().eq(parent.seen.keys()));
    });
}

#[test]
fn a_forked_child_without_rseq_records_nothing_before_it_has_a_ring_of_its_own() {
    let daemon = Daemon::new(options());
    let mut command = command(scenario(), Some(&daemon));
    run(command.args(["fork", "100"]).env("SILLAGE_PRODUCER", "locked"));
    let counts = daemon.counts();
    for (text, count) in ticks([0..100, 2000..2100]) {
        assert_eq!(counts.get(&text), Some(&count), "{text}");
    }
}

#[test]
fn a_child_that_libc_knows_nothing_of_records() {
    let daemon = Daemon::new(options());
    run(command(scenario(), Some(&daemon)).args(["rawfork", "100"]));
    assert_eq!(daemon.counts(), ticks([0..100, 1000..1100, 2000..2100]));
}

#[test]
fn a_vfork_child_does_not_trace_and_its_events_are_counted() {
    for mode in ["vfork", "clone"] {
        both(&[mode, "100"], |daemon, _, _| {
            assert_eq!(daemon.counts(), ticks([0..100, 2000..2100]), "{mode}");
            assert_eq!(lost(daemon, LostReason::Vfork), 100, "{mode}");
        });
    }
}

#[test]
fn python_starts_processes_under_the_malloc_wrapper() {
    let wrapper = "/usr/lib/x86_64-linux-gnu/liblttng-ust-libc-wrapper.so.1";
    let daemon =
        Daemon::new(Options { names: &["lttng_ust_libc:"], subbuf_bytes: 8 << 20, ..Options::default() });
    let script = "import subprocess\n\
        for i in range(20):\n    assert subprocess.run(['/bin/echo', str(i)], capture_output=True).stdout.decode() == f'{i}\\n'\n\
        print('done')";
    let mut python = command("python3", Some(&daemon));
    assert_eq!(run(python.args(["-c", script]).env("LD_PRELOAD", wrapper)), "done\n");
    let names = daemon.names();
    assert!(names["lttng_ust_libc:malloc"] > 1000, "{names:?}");
    assert!(names["lttng_ust_libc:free"] > 1000, "{names:?}");
    // All that was not recorded was counted.
    let unexpected: u64 = daemon.lost().iter().sum::<u64>()
        - lost(&daemon, LostReason::Vfork)
        - lost(&daemon, LostReason::Full);
    assert_eq!(unexpected, 0, "{:?}", daemon.lost());
}

#[test]
fn a_signal_handler_inside_a_traced_call_traces() {
    both(&["signals", "1000"], |daemon, stdout, _| {
        let mut numbers = stdout.split_whitespace().map(|n| n.parse::<usize>().unwrap());
        let (_, handled) = (numbers.next().unwrap(), numbers.next().unwrap());
        let names = daemon.names();
        let lost: u64 = daemon.lost().iter().sum();
        let recorded: usize = names.values().sum();
        assert_eq!(recorded + lost as usize, 1000 + 300_000 + handled, "{names:?} {:?}", daemon.lost());
        assert!(names["scenario:slow"] == 1000 && names["scenario:handled"] >= 1000, "{names:?}");
    });
}

#[test]
fn jumps_out_of_signal_handlers_leave_nothing_behind() {
    for alternate in ["0", "1"] {
        both(&["jumps", "200", alternate], |daemon, stdout, _| {
            assert_eq!(stdout, "200\n");
            let names = daemon.names();
            let want = [("scenario:handled", 200), ("scenario:slow", 200), ("scenario:tick", 200)];
            assert_eq!(names, want.map(|(n, c)| (n.to_string(), c)).into(), "alternate stack: {alternate}");
            assert_eq!(daemon.lost(), [0; 8]);
        });
    }
}

#[test]
fn a_jump_does_not_hold_up_quiescence() {
    for flags in [&[][..], &["-D_LGPL_SOURCE"]] {
        let daemon = Daemon::new(options());
        let mut program = Obedient::start(&mut command(compile("cc", "scenario.c", flags), Some(&daemon)));
        assert_eq!(program.tell("tick 3"), "ok");
        assert_eq!(program.tell("jumps 5"), "ok");
        assert_eq!(program.tell("tick 3 10"), "ok");
        daemon.sync();
        daemon.set_active(false);
        daemon.sync();
        program.end();
        let names = daemon.names();
        assert_eq!(names["scenario:tick"], 6, "{names:?}");
    }
}

#[test]
fn signal_handlers_nest_as_deep_as_there_are_levels() {
    let daemon = Daemon::new(options());
    run(command(scenario(), Some(&daemon)).args(["nest"]));
    // Levels 7 to 3 have room to stage; the next one does not, and so raises no further signal.
    let counts = daemon.counts();
    let slow: Vec<&String> = counts.keys().filter(|t| t.starts_with("scenario:slow")).collect();
    assert_eq!(slow.len(), 5, "{counts:?}");
    assert_eq!(lost(&daemon, LostReason::Nested), 1);
    assert_eq!(counts["scenario:tick n=0"], 1);
}

#[test]
fn the_hot_path_allocates_nothing_and_calls_no_kernel() {
    for kind in ["rseq", "locked"] {
        let daemon = Daemon::new(Options { subbuf_bytes: 8 << 20, ..options() });
        let mut command = command(scenario(), Some(&daemon));
        // A locked ring asks `getcpu`, and both the clock, in the vDSO.
        let stdout = run(command.args(["quiet", "5000"]).env("SILLAGE_PRODUCER", kind));
        assert_eq!(stdout, "allocations 0 errno 77\n", "{kind}");
        assert_eq!(daemon.names()["scenario:tick"], 5001, "{kind}");
        assert_eq!(daemon.names()["scenario:large"], 313, "{kind}");
    }
}

#[test]
fn a_program_that_is_stepped_by_a_debugger_loses_events_and_goes_on() {
    let daemon = Daemon::new(options());
    let stdout = run(command(scenario(), Some(&daemon)).args(["stepped", "20"]));
    assert_eq!(stdout, "1\n");
    let names = daemon.names();
    let recorded = names.get("scenario:tick").copied().unwrap_or(0) as u64;
    assert_eq!(recorded + lost(&daemon, LostReason::Aborted), 21, "{names:?} {:?}", daemon.lost());
    assert!(lost(&daemon, LostReason::Aborted) > 0, "{:?}", daemon.lost());
}

#[test]
fn libraries_with_providers_are_opened_and_closed() {
    let plugin = compile("cc", "plugin.c", &["-shared", "-fPIC"]);
    let daemon = Daemon::new(options());
    run(command(scenario(), Some(&daemon)).arg("dlopen").arg(&plugin).arg("50"));
    let fired: Vec<String> =
        daemon.events().into_iter().map(|e| e.text).filter(|t| t.starts_with("plugin:")).collect();
    let want: Vec<String> = (0..50).map(|n| format!("plugin:fired n={n}")).collect();
    assert_eq!(fired, want);
    // The last one may end with the program, before its end is told.
    daemon.wait_for("the others are taken back", |p| {
        p[0].tracepoints.values().filter(|t| t.name == "plugin:fired").count() <= 1
    });
}

#[test]
fn a_program_without_address_space_for_the_rings_counts_what_it_loses() {
    let daemon = Daemon::new(Options { subbuf_bytes: 64 << 20, subbuf_count: 16, ..options() });
    let mut command = command(scenario(), Some(&daemon));
    command.args(["ticks", "1000"]);
    assert!(within(&mut command, 64).status.success());
    assert_eq!(daemon.counts(), BTreeMap::new());
    assert_eq!(lost(&daemon, LostReason::NoMemory), 1000);
}

#[test]
fn too_little_memory_never_ends_the_program() {
    for megabytes in [3, 4, 5, 6, 8, 12, 16] {
        let daemon = Daemon::new(options());
        let mut command = command(scenario(), Some(&daemon));
        // What it needs before the tracer is there.
        let loaded =
            within(std::process::Command::new(scenario()).env("LD_TRACE_LOADED_OBJECTS", "1"), megabytes);
        let output = within(command.args(["ticks", "10"]), megabytes);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let loader = !loaded.status.success() || stderr.contains("error while loading shared libraries");
        assert!(output.status.success() || loader, "{megabytes} MiB: {} {stderr}", output.status);
        assert!(megabytes < 8 || output.status.success(), "{megabytes} MiB suffice");
    }
}

/// Runs a command that may use so much address space.
fn within(command: &mut std::process::Command, megabytes: u64) -> std::process::Output {
    // SAFETY: between fork and exec, one system call.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: megabytes << 20, rlim_max: megabytes << 20 };
            if libc::setrlimit(libc::RLIMIT_AS, &limit) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
    command.output().expect("the program starts")
}

#[test]
fn a_program_that_locks_its_memory_does_not_make_the_rings_resident() {
    let daemon = Daemon::new(Options { subbuf_bytes: 16 << 20, ..options() });
    let mut command = command(scenario(), Some(&daemon));
    let stdout = run(command.args(["memory", "100"]).env("LOCK_MEMORY", "1"));
    let kb: Vec<u64> = stdout.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(daemon.counts(), ticks([0..100]));
    assert!(kb[1] > 0, "the program locked its memory: {stdout}");
    assert!(kb[0] < 16 << 10, "resident {} KiB of rings that have 128 MiB", kb[0]);
    assert!(daemon.set(0).resident_bytes() < 1 << 20, "{}", daemon.set(0).resident_bytes());
}

#[test]
fn a_program_outlives_the_daemon_and_meets_the_next_one() {
    for kind in ["rseq", "locked"] {
        let daemon = Daemon::new(options());
        let mut program = Obedient::start(command(scenario(), Some(&daemon)).env("SILLAGE_PRODUCER", kind));
        program.tell("tick 10 0");
        let keeper = daemon.kill();
        program.tell("tick 10 10"); // the mapped rings go on recording
        let daemon = Daemon::start(keeper);
        daemon.wait_for("the program registers again", |p| p.len() == 2 && !p[1].tracepoints.is_empty());
        daemon.programs(|p| assert_eq!(p[1].hello.mapped_sets, [if kind == "rseq" { 1 } else { 2 }]));
        daemon.sync();
        program.tell("tick 10 20");
        daemon.set_active(false);
        daemon.sync();
        program.tell("tick 10 30");
        daemon.set_active(true);
        daemon.sync();
        program.tell("tick 10 40");
        program.end();
        assert_eq!(daemon.counts(), ticks([0..30, 40..50]), "{kind}");
    }
}

#[test]
fn a_daemon_that_comes_later_is_noticed() {
    let daemon = Daemon::new(options());
    let keeper = daemon.kill();
    // Not even the directory is there when the program starts.
    std::fs::remove_dir_all(&keeper.dir).unwrap();
    let mut program = command(scenario(), None);
    let mut program = Obedient::start(program.env("SILLAGE_RUNDIR", &keeper.dir));
    program.tell("tick 10 0");
    std::fs::create_dir_all(&keeper.dir).unwrap();
    let daemon = Daemon::start(keeper);
    daemon.wait_for("registered", |p| p.len() == 1 && !p[0].tracepoints.is_empty());
    daemon.sync();
    program.tell("tick 10 10");
    program.end();
    assert_eq!(daemon.counts(), ticks([10..20]));
}

#[test]
fn channels_that_go_take_their_memory_with_them() {
    let daemon = Daemon::new(options());
    let mut program = Obedient::start(&mut command(scenario(), Some(&daemon)));
    program.tell("tick 10 0");
    daemon.drop_channels();
    daemon.sync();
    program.tell("tick 10 10");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", program.id())).unwrap();
    assert!(!maps.contains("memfd:set"), "{maps}");
    program.end();
    assert_eq!(daemon.counts(), ticks([0..10]));
}

#[test]
fn a_program_that_closes_all_descriptors_does_not_meet_ours() {
    let daemon = Daemon::new(options());
    let mut program = Obedient::start(&mut command(scenario(), Some(&daemon)));
    program.tell("tick 10 0");
    let listed = run(std::process::Command::new("ls").args(["-a", "/proc/self/fd"]));
    assert_eq!(program.tell("countfds").parse(), Ok(listed.lines().count()), "no more than any program has");
    program.tell("closefds");
    daemon.sync();
    program.tell("tick 10 10");
    daemon.programs(|p| assert!(p.len() == 1 && p[0].connected));
    program.end();
    assert_eq!(daemon.counts(), ticks([0..20]));
}

#[test]
fn where_descriptors_must_be_shared_the_program_may_take_ours() {
    let daemon = Daemon::new(options());
    let mut command = command(scenario(), Some(&daemon));
    // SAFETY: between fork and exec, system calls.
    unsafe { command.pre_exec(without_close_range) };
    let mut program = Obedient::start(&mut command);
    program.tell("tick 10 0");
    let listed = run(std::process::Command::new("ls").args(["-a", "/proc/self/fd"])).lines().count();
    assert!(program.tell("countfds").parse::<usize>().unwrap() > listed, "ours are among them");
    program.tell("closefds");
    let files = program.tell("countfds");
    daemon.wait_for("the program registers again", |p| {
        p.iter().filter(|p| p.connected && !p.tracepoints.is_empty()).count() == 1 && p.len() == 2
    });
    daemon.sync();
    program.tell("tick 10 10");
    assert!(program.tell("countfds").parse::<u32>().unwrap() >= files.parse::<u32>().unwrap());
    program.end();
    assert_eq!(daemon.counts(), ticks([0..20]));
}

/// From here on `close_range` does not exist.
fn without_close_range() -> std::io::Result<()> {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(0x20, 0, 0, 0), // the call's number
        step(0x15, 0, 1, libc::SYS_close_range as u32),
        step(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the filter lives until the call ends.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        match libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

#[test]
fn a_full_ring_discards_and_counts() {
    both(&["ticks", "2000000"], |daemon, _, _| {
        let recorded = daemon.names()["scenario:tick"] as u64;
        assert_eq!(recorded + lost(daemon, LostReason::Full), 2_000_000);
        assert!(lost(daemon, LostReason::Full) > 0);
    });
}

#[test]
fn blocking_mode_loses_nothing_while_somebody_reads() {
    for kind in ["rseq", "locked"] {
        let blocking = sillage_model::BlockingTimeout::Forever;
        let daemon = Daemon::new(Options { blocking, subbuf_bytes: 64 << 10, ..options() });
        let drain = daemon.drain_all();
        let mut command = command(scenario(), Some(&daemon));
        command.args(["ticks", "500000"]).env("LTTNG_UST_ALLOW_BLOCKING", "1").env("SILLAGE_PRODUCER", kind);
        run(&mut command);
        drain.finish();
        assert_eq!(daemon.lost(), [0; 8], "{kind}");
    }
}

#[test]
fn blocking_mode_ends_with_its_timeout_and_needs_its_permission() {
    let blocking = sillage_model::BlockingTimeout::Us(1000);
    for (allowed, at_least) in [(true, Duration::from_millis(20)), (false, Duration::ZERO)] {
        // Two sub-buffers of a page hold 819 ticks, at most, on each CPU.
        let daemon = Daemon::new(Options { blocking, subbuf_bytes: 4096, subbuf_count: 2, ..options() });
        let mut command = command(scenario(), Some(&daemon));
        command.args(["ticks", "1700"]);
        if allowed {
            command.env("LTTNG_UST_ALLOW_BLOCKING", "1");
        }
        let start = std::time::Instant::now();
        run(&mut command);
        assert!(start.elapsed() >= at_least, "{:?}", start.elapsed());
        assert_eq!(daemon.names()["scenario:tick"] as u64 + lost(&daemon, LostReason::Full), 1700);
        assert!(lost(&daemon, LostReason::Full) >= 62);
    }
}

#[test]
fn a_blocked_program_goes_on_when_the_daemon_dies() {
    let blocking = sillage_model::BlockingTimeout::Forever;
    let daemon = Daemon::new(Options { blocking, subbuf_bytes: 4096, subbuf_count: 2, ..options() });
    let mut command = command(scenario(), Some(&daemon));
    command.args(["ticks", "3000"]).env("LTTNG_UST_ALLOW_BLOCKING", "1");
    let mut child = command.spawn().unwrap();
    daemon.wait_for("registered", |p| p.len() == 1 && !p[0].tracepoints.is_empty());
    // Full on the CPU where it runs, and nobody reads.
    while !(0..daemon.set(0).raw().geometry().cpus).any(|cpu| daemon.set(0).raw().head(cpu) > 8000) {
        std::thread::yield_now();
    }
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    let keeper = daemon.kill();
    assert!(child.wait().unwrap().success());
    drop(keeper);
}

#[test]
fn records_larger_than_staging_are_counted() {
    let daemon = Daemon::new(options());
    let mut program = Obedient::start(&mut command(scenario(), Some(&daemon)));
    program.tell("large 65528"); // with its length of 8 bytes just the maximum
    program.tell("large 65529");
    program.end();
    assert_eq!(daemon.names()["scenario:large"], 1);
    assert_eq!(lost(&daemon, LostReason::TooLarge), 1);
}

#[test]
fn a_program_of_another_kind_of_clone_under_the_fork_helper() {
    let helper = "/usr/lib/x86_64-linux-gnu/liblttng-ust-fork.so.1";
    let daemon = Daemon::new(options());
    let mut command = command(scenario(), Some(&daemon));
    run(command.args(["clonefork", "50"]).env("LD_PRELOAD", helper));
    assert_eq!(daemon.counts(), ticks([0..50, 1000..1050, 2000..2050]));
}

#[test]
fn a_program_waits_for_a_daemon_only_as_long_as_it_was_told() {
    let dir = std::env::temp_dir().join(format!("sillage-silent-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    // Connections are made, and nobody ever answers.
    let _silent = std::os::unix::net::UnixListener::bind(dir.join("programs.sock")).unwrap();
    let took = |timeout_ms: &str| {
        let mut command = command(scenario(), None);
        command
            .args(["ticks", "1"])
            .env("SILLAGE_RUNDIR", &dir)
            .env("LTTNG_UST_REGISTER_TIMEOUT", timeout_ms);
        let start = std::time::Instant::now();
        run(&mut command);
        start.elapsed()
    };
    let (told, none) = (took("700"), took("0"));
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(told >= Duration::from_millis(700), "{told:?}");
    assert!(told < Duration::from_millis(2800), "it waited once, not for each provider: {told:?}");
    assert!(none < Duration::from_millis(700), "{none:?}");
}

#[test]
fn a_program_may_end_in_a_signal_handler_inside_a_traced_call() {
    both(&["leave"], |daemon, _, _| assert_eq!(daemon.counts(), ticks([0..3])));
}
