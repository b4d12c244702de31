//! Programs in surroundings that make tracing dangerous or its clock wrong: with other rights than their
//! caller, in a time namespace, where `rdtsc` is forbidden; and providers of other versions.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use support::programs::{command, compile, library, run};
use support::{Daemon, Options};

fn options() -> Options {
    Options { names: &["scenario:"], ..Options::default() }
}

fn ticks(count: i32) -> BTreeMap<String, usize> {
    (0..count).map(|n| (format!("scenario:tick n={n}"), 1)).collect()
}

fn is_root() -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs what must record 100 ticks; their times must lie between its start and its end.
fn records_at_the_right_time(daemon: &Daemon, command: &mut Command) {
    let before = monotonic_ns();
    run(command);
    let after = monotonic_ns();
    assert_eq!(daemon.counts(), ticks(100));
    for event in daemon.events() {
        assert!((before..=after).contains(&event.ts), "{before} <= {} <= {after}", event.ts);
    }
}

#[test]
fn a_set_user_id_program_takes_nothing_from_its_callers_environment() {
    if !is_root() {
        return;
    }
    // Where everybody may read: the program runs as nobody.
    let dir = std::env::temp_dir().join(format!("sillage-setuid-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for name in ["liblttng-ust.so.1", "liblttng-ust-common.so.1", "liblttng-ust-tracepoint.so.1"] {
        let _ = std::fs::remove_file(dir.join(name));
        match name {
            "liblttng-ust.so.1" => std::fs::copy(library(), dir.join(name)).map(drop).unwrap(),
            _ => std::os::unix::fs::symlink("liblttng-ust.so.1", dir.join(name)).unwrap(),
        }
    }
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(dir.join("liblttng-ust.so.1"), PermissionsExt::from_mode(0o755)).unwrap();
    let rpath = format!("-Wl,-rpath,{}", dir.display());
    let program = dir.join("program");
    std::fs::copy(compile("cc", "scenario.c", &[&rpath]), &program).unwrap();
    let daemon = Daemon::new(options());
    // Anybody could register: only the program itself holds back.
    let socket = daemon.keeper.dir.join(sillage_protocol::paths::PROGRAMS_SOCKET);
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).unwrap();
    let run_it = |mode: u32| {
        std::os::unix::fs::chown(&program, Some(65534), Some(65534)).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
        let mut command = command(&program, Some(&daemon));
        // The caller's idea of a library, which must not be loaded either.
        command.env("LD_LIBRARY_PATH", "/nonexistent").env("SILLAGE_DEBUG", "1").args(["ticks", "100"]);
        command.env("HOME", &daemon.keeper.dir).env("LTTNG_HOME", &daemon.keeper.dir);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run_it(0o755).contains("sillage["), "as an ordinary program it speaks when asked");
    assert_eq!(daemon.counts(), ticks(100));
    let said = run_it(0o4755);
    assert_eq!(said, "", "with other rights it does not listen to its caller");
    daemon.programs(|programs| assert_eq!(programs.len(), 1, "and registers with no daemon of the caller's"));
    assert_eq!(daemon.counts(), ticks(100));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn in_a_time_namespace_times_are_the_machines() {
    if !is_root() || !Path::new("/proc/self/timens_offsets").exists() {
        return;
    }
    // From the daemon's clock page, and from the kernel's shifted clock.
    for clock in [true, false] {
        let daemon = Daemon::new(Options { clock, ..options() });
        let mut unshare = command("unshare", Some(&daemon));
        unshare.args(["-T", "--monotonic", "1000", "--fork"]).arg(compile("cc", "scenario.c", &[]));
        records_at_the_right_time(&daemon, unshare.args(["ticks", "100"]));
    }
}

#[test]
fn a_program_that_may_not_execute_rdtsc_records_with_the_kernels_clock() {
    let forbid = compile("cc", "forbid.c", &["-shared", "-fPIC", "-Wl,-z,initfirst"]);
    for kind in ["rseq", "locked"] {
        let daemon = Daemon::new(options());
        let mut command = command(compile("cc", "scenario.c", &[]), Some(&daemon));
        command.args(["ticks", "100"]).env("LD_PRELOAD", &forbid).env("SILLAGE_PRODUCER", kind);
        records_at_the_right_time(&daemon, &mut command);
    }
}

#[test]
fn providers_of_version_4_are_recorded_and_of_unknown_versions_left_alone() {
    for (major, recorded) in [(3, 100), (4, 100), (2, 0), (5, 0)] {
        let daemon = Daemon::new(options());
        let program = compile("cc", "scenario.c", &[&format!("-DPROVIDER_MAJOR={major}")]);
        run(command(program, Some(&daemon)).args(["ticks", "100"]));
        assert_eq!(daemon.counts(), ticks(recorded), "major {major}");
    }
}

#[test]
fn a_debugger_finds_no_main_in_the_library() {
    let words = ["-nx", "-batch", "-ex", "break main"];
    let Ok(output) = Command::new("gdb").args(words).arg(library()).output() else {
        eprintln!("SKIPPED: gdb is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("Breakpoint 1"), "a user's `break main` must stop in the program alone: {text}");
}
