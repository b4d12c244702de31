//! The kernel tracer in trouble: killed, refused, starved, without rights or without what it needs; what is
//! lost is counted, what is missing is named, and nothing stays attached. Needs the rights to load eBPF programs,
//! and says so when it skips.

mod support;

use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use support::kernel::{
    again_in_a_namespace_of_processes, commotion, end_daemon, kernel_home, number, own_namespace, read,
    with_mounts,
};
use support::{Home, kill, wait_for};

/// Numbers of the programs that a process holds.
fn programs_of(pid: i32) -> Vec<u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let infos = entries.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
    let ids = infos.filter_map(|info| {
        let line = info.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
        line.trim().parse().ok()
    });
    ids.collect()
}

fn wait_until_gone(programs: &[u32]) {
    for id in programs {
        wait_for("the end of a program", || !sillage_tracer_kernel::sys::program_exists(*id).unwrap());
    }
}

#[test]
fn a_killed_worker_leaves_nothing_attached_and_the_next_goes_on() {
    let Some(home) = kernel_home("killed") else { return };
    home.ok("create s -o out");
    home.ok("enable-event -k sched_process_exit,sched_switch");
    home.ok("add-context -k -t vtid -t pid_ns");
    home.ok("start");
    commotion();
    let programs = programs_of(home.pid("worker.pid"));
    assert!(!programs.is_empty());
    home.kill_worker();
    wait_until_gone(&programs);
    // Answered when the tracer has done everything before.
    home.ok("track -k --vpid --all");
    let before = Command::new("true").spawn().unwrap().wait_with_output().map(drop);
    before.unwrap();
    let child = Command::new("sh").args(["-c", "exit 0"]).spawn().unwrap();
    let pid = child.id();
    child.wait_with_output().unwrap();
    let text = home.ok("destroy");
    assert!(!text.contains("not survive"), "{text}");
    let text = read(&home, "out");
    let exits = text.lines().filter(|line| line.contains(" sched_process_exit: "));
    let is_child =
        |line: &str| number(line, " vtid") == i64::from(pid) && number(line, " pid_ns") == own_namespace();
    assert!(exits.into_iter().any(is_child), "{text}");
}

/// In a container, whose processes have other numbers than the kernel's records, a daemon knows itself all the same.
#[test]
fn the_same_in_a_namespace_of_processes() {
    again_in_a_namespace_of_processes(&["a_killed_worker_leaves_nothing_attached_and_the_next_goes_on"]);
}

#[test]
fn a_daemon_killed_whole_leaves_nothing_attached_and_a_trace_that_is_read() {
    let Some(home) = kernel_home("dead") else { return };
    home.ok("create s -o out");
    home.ok("enable-channel -k c --subbuf-size 4k --num-subbuf 4");
    home.ok("enable-event -k sched_* -c c");
    home.ok("start");
    for _ in 0..20 {
        commotion();
    }
    wait_for("packets", || !home.ok("list s").contains("in 0 packets"));
    let programs = programs_of(home.pid("worker.pid"));
    assert!(!programs.is_empty());
    home.kill_daemon();
    wait_until_gone(&programs);
    // The next daemon makes whole what a kill tore.
    home.ok("create other -o other");
    assert!(read(&home, "out").lines().count() > 0);
}

#[test]
fn losses_are_counted_and_shown() {
    let Some(home) = kernel_home("loss") else { return };
    home.ok("create s -o out");
    home.ok("enable-channel -k c --subbuf-size 4k --num-subbuf 2 --read-timer 0");
    home.ok("enable-event -k sched_switch -c c");
    home.ok("start");
    kill(home.pid("worker.pid"), Signal::STOP);
    for _ in 0..50 {
        commotion();
    }
    kill(home.pid("worker.pid"), Signal::CONT);
    let text = home.ok("stop");
    assert!(
        text.contains("Warning: Channel c: ") && text.contains("records discarded (ring full)"),
        "{text}"
    );
    let output = Command::new("babeltrace2").arg(home.dir.join("out")).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("discarded"), "Babeltrace is told");
}

/// The command line as another user, a member of the `tracing` group or of none.
fn as_nobody(home: &Home, group: &str, run_dir: &Path, words: &str) -> (i32, String) {
    let mut command = home.command("setpriv");
    let groups = if group.is_empty() { "--clear-groups".into() } else { format!("--groups={group}") };
    command.args(["--reuid=65534", "--regid=65534", &groups]).arg(env!("CARGO_BIN_EXE_sillage"));
    command.env("SILLAGE_RUNDIR", run_dir).env("LTTNG_HOME", home.dir.join("nobody"));
    let output = command.args(words.split_whitespace()).output().expect("setpriv of util-linux");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
}

#[test]
fn rights_are_the_daemons_and_what_is_missing_is_named() {
    let Some(home) = kernel_home("rights") else { return };
    if !rustix::process::getuid().is_root() {
        return eprintln!("SKIPPED: rights: only root can become somebody else");
    }
    let nobody = home.dir.join("nobody");
    std::fs::create_dir(&nobody).unwrap();
    std::os::unix::fs::chown(&nobody, Some(65534), Some(65534)).unwrap();
    // A daemon of one's own without capabilities.
    let own = nobody.join("run");
    let (code, text) = as_nobody(&home, "", &own, "create s -o own");
    assert_eq!(code, 0, "{text}");
    let (code, text) = as_nobody(&home, "", &own, "enable-event -k sched_switch");
    let pid: i32 = std::fs::read_to_string(own.join("sillage.pid")).unwrap().trim().parse().unwrap();
    kill(pid, Signal::TERM);
    assert_eq!(code, 33, "{text}");
    assert!(
        text.contains("Kernel tracer not available: ") && text.contains("CAP_BPF and CAP_PERFMON"),
        "{text}"
    );
    assert!(text.contains("setcap cap_bpf,cap_perfmon+ep"), "{text}");
    // Root's, for a member of the group.
    let words = |words: &str| as_nobody(&home, "tracing", &home.run_dir(), words);
    let out = nobody.join("out");
    let (code, text) = words(&format!("create g -o {}", out.display()));
    if code != 0 {
        return eprintln!("SKIPPED: rights: there is no group tracing: {text}");
    }
    for line in ["enable-event -k sched_switch", "start", "stop", "destroy"] {
        let (code, text) = words(line);
        assert_eq!(code, 0, "{line}: {text}");
    }
    let metadata = std::fs::metadata(out.join("kernel/metadata")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 65534, "the trace is who asked for it's");
    assert!(home.babeltrace(&out).lines().count() > 0);
}

/// Root of a user namespace has all capabilities, and may not trace the kernel: it is told why.
#[test]
fn a_user_namespace_is_named_as_the_reason() {
    let home = Home::new("userns");
    let program = env!("CARGO_BIN_EXE_sillage");
    let script =
        format!("{program} create s -o out; {program} enable-event -k sched_switch; {program} status");
    let output = home.command("unshare").args(["-Ur", "sh", "-c", &script]).output().expect("unshare");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if text.contains("unshare failed") || text.contains("write failed") {
        return eprintln!("SKIPPED: a user namespace: {text}");
    }
    // Where root's tracefs may be used from inside, that is what records, and eBPF's refusal is its reason.
    assert!(text.contains("Kernel tracer") && text.contains("is in a user namespace"), "{text}");
}

/// Where tracefs is not mounted, what has a recipe is recorded all the same, and `status` says what is not.
#[test]
fn without_tracefs_the_tables_events_are_recorded() {
    let Some(home) = kernel_home("mounts") else { return };
    // The daemon that looked whether there is a kernel tracer sees our mounts.
    end_daemon(&home);
    let program = env!("CARGO_BIN_EXE_sillage");
    let script = format!(
        "umount -l /sys/kernel/tracing /sys/kernel/debug/tracing /sys/kernel/debug 2>/dev/null; \
         ! grep -q ' tracefs ' /proc/self/mounts || exit 9; \
         {program} create s -o out && {program} enable-event -k sched_process_exec && {program} start && true && \
         sh -c true; {program} stop; {program} list s; {program} enable-event -k ext4_sync_file_enter"
    );
    let output =
        home.command("unshare").args(["-m", "sh", "-c", &script]).output().expect("unshare of util-linux");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if output.status.code() == Some(9) || text.contains("unshare failed") {
        return eprintln!("SKIPPED: without_tracefs_the_tables_events_are_recorded: {text}");
    }
    assert!(
        text.contains("tracefs is not mounted (mount -t tracefs tracefs /sys/kernel/tracing, as root)"),
        "{text}"
    );
    assert!(text.contains("this kernel has no event ext4_sync_file_enter"), "{text}");
    assert!(read(&home, "out").contains(" sched_process_exec: "), "{text}");
}

/// The daemon is told that CPU 1 is offline, by a file in place of the system's: what happens there is lost,
/// and counted. Then the CPU comes online.
#[test]
fn a_cpu_that_comes_online_gets_a_ring() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return eprintln!("SKIPPED: a CPU that comes online: there is only one");
    }
    let list = std::env::temp_dir().join(format!("sillage-online-{}", std::process::id()));
    std::fs::write(&list, "0\n").unwrap();
    let bind = format!("mount --bind {} /sys/devices/system/cpu/online", list.display());
    let Some(home) = kernel_home("hotplug") else { return };
    let Some(home) = with_mounts(home, "hotplug", &bind) else { return };
    home.ok("enable-channel -k c --switch-timer 50000");
    home.ok("enable-event -k sched_process_exec -c c");
    home.ok("start");
    let on_cpu_1 = || Command::new("taskset").args(["-c", "1", "true"]).status().unwrap();
    if !on_cpu_1().success() {
        return eprintln!("SKIPPED: a CPU that comes online: CPU 1 is not ours");
    }
    wait_for("a loss that is shown", || {
        on_cpu_1();
        let text = home.ok("stop");
        home.ok("start");
        text.contains("on a CPU that came online")
    });
    assert!(!home.dir.join("out/kernel/c_1").exists());
    std::fs::write(&list, "0-1\n").unwrap();
    wait_for("a packet of CPU 1", || {
        on_cpu_1();
        home.dir.join("out/kernel/c_1").exists()
    });
    home.ok("destroy");
    let text = read(&home, "out");
    assert!(text.lines().any(|line| line.contains("cpu_id = 1") && line.contains("/true\"")), "{text}");
    std::fs::remove_file(&list).unwrap();
}

/// Children that are ended with this.
struct Crowd(Vec<std::process::Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        // All of them first: each that lives on keeps the others from ending.
        self.0.iter_mut().for_each(|child| drop(child.kill()));
        self.0.iter_mut().for_each(|child| drop(child.wait()));
    }
}

/// Two hundred tasks want to run all the time, some of which make system calls: with buffers of default size
/// nothing is lost where the daemon may run ahead of them.
#[test]
fn two_hundred_runnable_tasks_cost_no_records() {
    const SPINNERS: usize = 190;
    const CALLERS: usize = 10;
    let Some(home) = kernel_home("crowd") else { return };
    home.ok("create s -o out");
    home.ok("enable-event -k sched_switch,sched_waking");
    if home.ok("status").contains("priority for the consumer") {
        return eprintln!("SKIPPED: two hundred tasks: the daemon may not run ahead of others");
    }
    home.ok("enable-event -k --syscall read,write");
    home.ok("start");
    // They wait for a line, so that nobody spins while others are made.
    let spawn = |what: &str| {
        let script = format!("read line; {what}");
        Command::new("sh").args(["-c", &script]).stdin(std::process::Stdio::piped()).spawn().unwrap()
    };
    let mut crowd = Crowd(Vec::new());
    crowd.0.extend((0..SPINNERS).map(|_| spawn("while :; do :; done")));
    let copy = "exec dd if=/dev/zero of=/dev/null bs=1 status=none";
    crowd.0.extend((0..CALLERS).map(|_| spawn(copy)));
    for child in &mut crowd.0 {
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
    }
    // Not a wait for something to happen: this is how long they are to be a burden.
    std::thread::sleep(std::time::Duration::from_secs(2));
    drop(crowd);
    let text = home.ok("stop");
    assert!(text.contains("Channel channel0: ") && !text.contains("Warning"), "{text}");
    let bytes: u64 = ["channel0_0", "channel0_1"]
        .iter()
        .filter_map(|file| std::fs::metadata(home.dir.join("out/kernel").join(file)).ok())
        .map(|metadata| metadata.len())
        .sum();
    assert!(bytes > 1 << 20, "{bytes} bytes: they made no calls");
    eprintln!("two hundred tasks: {bytes} bytes, nothing lost");
    home.ok("destroy");
}

/// A filter that is more than the verifier follows: the refusal is told with its reason, and the whole log kept.
#[test]
fn a_refused_program_is_told_with_the_verifiers_log() {
    // Each is some 37,000 instructions for the verifier, which follows a million.
    const PATTERNS: usize = 27;
    let Some(home) = kernel_home("verifier") else { return };
    home.ok("create s -o out");
    let patterns: Vec<String> = (0..PATTERNS).map(|n| format!("filename == \"*a*{n}*b*\"")).collect();
    let enabled = home
        .command(env!("CARGO_BIN_EXE_sillage"))
        .args(["enable-event", "-k", "sched_process_exec", "--filter", &patterns.join(" || ")])
        .output()
        .unwrap();
    assert!(enabled.status.success(), "{enabled:?}");
    home.ok("start");
    let shown = home.ok("list s");
    if !shown.contains("is not recorded") {
        return eprintln!("SKIPPED: a refused program: this kernel's verifier follows even that");
    }
    let name = "refused-sched_process_exec.log";
    assert!(shown.contains("was refused") && shown.contains(name), "{shown}");
    let log = std::fs::read_to_string(home.run_dir().join(name)).unwrap();
    // Its last words are the reason.
    let reason = shown.lines().find_map(|line| line.split_once("was refused (")).unwrap().1;
    let reason = reason.split_once("): ").unwrap().1.split(" (the verifier's log").next().unwrap();
    assert!(reason.len() > 10 && log.contains(reason), "{reason}\n{}", &log[log.len().saturating_sub(500)..]);
    home.ok("destroy");
}
