//! The kernel tracer's other back end, forced: from the command line through tracefs to a trace that
//! Babeltrace reads. And what is said where nothing is permitted. Needs root and tracefs, and says so
//! when it skips.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::kernel::{commotion, lines, number, read, with_mounts};
use support::{Home, wait_for};

const VARIABLE: &str = "SILLAGE_KERNEL_BACKEND";

/// A home whose daemon traces the kernel through tracefs; None, said loudly, where it may not.
fn tracefs_home(name: &str) -> Option<Home> {
    let home = Home::new(name);
    let mut command = home.command(env!("CARGO_BIN_EXE_sillage"));
    // The daemon inherits the environment of the command that starts it.
    let started = command.env(VARIABLE, "tracefs").args(["create", "probe", "-o", "probe"]).status();
    assert!(started.unwrap().success());
    let (code, text) = home.run("enable-channel -k c");
    home.ok("destroy probe");
    if code != 0 {
        eprintln!("SKIPPED: {name}: {text}");
    }
    (code == 0).then_some(home)
}

/// Our instances that the process `pid` made.
fn instances_of(pid: i32) -> Vec<PathBuf> {
    let dir = ["/sys/kernel/tracing/instances", "/sys/kernel/debug/tracing/instances"];
    let dir = dir.iter().find(|dir| Path::new(dir).exists()).expect("tracefs");
    let prefix = format!("sillage-{pid}-");
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix)).collect()
}

#[test]
fn events_calls_and_processes_are_recorded_and_read() {
    let Some(home) = tracefs_home("tracefs-whole") else { return };
    home.ok("create s -o out");
    home.ok("enable-event -k sched_switch,sched_process_*,irq_softirq_entry");
    home.ok("enable-event -k lttng_statedump_process_state,lttng_statedump_start,lttng_statedump_end");
    home.ok("enable-event -k --syscall openat,getpriority");
    home.ok("add-context -k -t tid");
    let status = home.ok("status");
    assert!(status.contains("Kernel tracer: tracefs, transcoded"), "{status}");
    home.ok("start");
    for _ in 0..20 {
        commotion();
    }
    assert!(std::fs::File::open(home.dir.join("no such file")).is_err());
    rustix::process::getpriority_process(None).unwrap();
    let worker = home.pid("worker.pid");
    assert_eq!(instances_of(worker).len(), 1);
    let said = home.ok("stop");
    assert!(!said.contains("Warning"), "{said}");
    let text = read(&home, "out");
    let switches = lines(&text, "sched_switch");
    assert!(switches.len() >= 100, "{text}");
    // As LTTng counts them: the idle task at 20, ordinary ones around it.
    let prio = |line: &&str| (-100..=139).contains(&number(line, "prev_prio"));
    assert!(switches.iter().all(|line| prio(line) && number(line, "next_tid") >= 0), "{text}");
    assert!(
        switches.iter().any(|line| number(line, "next_tid") == number(line, " tid")) || !switches.is_empty()
    );
    assert!(lines(&text, "sched_process_fork").len() >= 60, "{text}");
    assert!(!lines(&text, "syscall_entry_openat").is_empty());
    let calls = lines(&text, "syscall_exit_getpriority");
    assert!(calls.iter().any(|line| (1..=40).contains(&number(line, " ret"))), "{calls:?}");
    let own = lines(&text, "lttng_statedump_process_state");
    let pid = i64::from(std::process::id());
    assert!(
        own.iter().any(|line| line.split(" pid = ").count() > 1 && number(line, " pid") == pid),
        "{own:?}"
    );
    // Started again, the same trace goes on.
    home.ok("start");
    commotion();
    home.ok("destroy");
    assert!(read(&home, "out").lines().count() > text.lines().count());
    // The thread that holds it ends a moment after the answer.
    wait_for("the end of the instance", || instances_of(worker).is_empty());
}

/// What came into the buffers of an instance, by the kernel's own count.
fn recorded(instance: &Path) -> u64 {
    let cpus = std::fs::read_dir(instance.join("per_cpu")).unwrap();
    let stats = cpus.map(|cpu| std::fs::read_to_string(cpu.unwrap().path().join("stats")).unwrap());
    let count = |stats: String, name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)).expect("a count");
        line.trim().parse::<u64>().unwrap()
    };
    let names = ["entries: ", "overrun: ", "dropped events: ", "read events: "];
    stats.map(|stats| names.iter().map(|name| count(stats.clone(), name)).sum::<u64>()).sum()
}

/// `enable-event` with a filter, which has blanks.
fn filtered(home: &Home, event: &str, filter: &str) {
    let mut command = home.command(env!("CARGO_BIN_EXE_sillage"));
    let made = command.args(["enable-event", "-k", event, "--filter", filter]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn what_filters_reject_does_not_fill_the_buffers() {
    let Some(home) = tracefs_home("tracefs-pushed") else { return };
    home.ok("create s -o out");
    filtered(&home, "sched_switch", "next_comm == \"nobody\" || prev_prio == -99999");
    home.ok("start");
    let instance = instances_of(home.pid("worker.pid")).pop().unwrap();
    let text = |event: &str| {
        let path = instance.join("events/sched").join(event).join("filter");
        // The kernel says it once, as far as there is room.
        let mut bytes = [0; 4096];
        let length = std::io::Read::read(&mut std::fs::File::open(path).unwrap(), &mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    assert_eq!(text("sched_switch"), "(next_comm == \"nobody\" || prev_prio == -99899)");
    (0..20).for_each(|_| commotion());
    assert_eq!(recorded(&instance), 0);
    // LTTng's numbers of priorities, not the kernel's; and a name that it changes.
    filtered(&home, "sched_process_exit", "comm == \"sleep\" && prio >= 20 && prio < 40 && !(tid < 2)");
    filtered(&home, "sched_process_exec", "filename == \"*/sleep\"");
    assert_eq!(text("sched_process_exec"), "filename ~ \"*/slee[p]\"");
    (0..20).for_each(|_| commotion());
    home.ok("stop");
    assert_eq!(text("sched_process_exec"), "none");
    let count = recorded(&instance);
    home.ok("destroy");
    let text = read(&home, "out");
    assert!(lines(&text, "sched_process_exit").len() >= 40, "{text}");
    assert!(lines(&text, "sched_process_exec").len() >= 40, "{text}");
    assert!(text.lines().all(|line| line.contains("sleep\"")), "{text}");
    assert_eq!(count as usize, text.lines().count());
    eprintln!("{count} events in the buffers, all of them in the trace");
}

/// A thread that asks for a priority, which is recorded; its number, as the kernel has it.
fn ask_for_priority() -> i64 {
    let thread = std::thread::spawn(|| {
        rustix::process::getpriority_process(None).unwrap();
        i64::from(rustix::thread::gettid().as_raw_nonzero().get())
    });
    thread.join().unwrap()
}

#[test]
fn a_session_follows_processes() {
    let Some(home) = tracefs_home("tracefs-track") else { return };
    home.ok("create s -o out");
    let own = std::process::id();
    let (code, text) = home.run(&format!("track -k --pid {own}"));
    if text.contains("outside of all containers") {
        return eprintln!("SKIPPED: a_session_follows_processes: {text}");
    }
    assert_eq!(code, 0, "{text}");
    for set in ["--vpid 1", "--uid 0", "--vuid 0", "--gid 0", "--vgid 0"] {
        let (code, text) = home.run(&format!("track -k {set}"));
        assert!(code != 0 && text.contains("tracefs follows processes (--pid) alone; eBPF"), "{code} {text}");
    }
    home.ok("enable-event -k --syscall getpriority");
    home.ok("add-context -k -t tid");
    // One that is there before anything is recorded.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let early = std::thread::spawn(move || {
        tell.send(i64::from(rustix::thread::gettid().as_raw_nonzero().get())).unwrap();
        wait.recv().unwrap();
        rustix::process::getpriority_process(None).unwrap();
    });
    let early_task = told.recv().unwrap();
    home.ok("start");
    go.send(()).unwrap();
    early.join().unwrap();
    // A child is another process.
    let child = || {
        let mut child = Command::new("nice").stdout(std::process::Stdio::null()).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        i64::from(child.id())
    };
    let (late_task, other) = (ask_for_priority(), child());
    home.ok("untrack -k --pid --all");
    let nobody = ask_for_priority();
    home.ok("track -k --pid --all");
    let (everybody, stranger) = (ask_for_priority(), child());
    home.ok(&format!("track -k --pid {own}"));
    let (again, another) = (ask_for_priority(), child());
    home.ok("destroy");
    let text = read(&home, "out");
    let entries = lines(&text, "syscall_entry_getpriority");
    let seen = |task: i64| entries.iter().any(|line| number(line, " tid") == task);
    let who = [early_task, late_task, everybody, stranger, again].map(seen);
    assert_eq!((who, [other, nobody, another].map(seen)), ([true; 5], [false; 3]), "{text}");
}

/// The daemon is told that CPU 1 is offline, by a file in place of the system's. What happens there waits in the
/// kernel's buffer until the CPU has a ring.
#[test]
fn a_cpu_that_comes_online_gets_a_ring() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return eprintln!("SKIPPED: a CPU that comes online: there is only one");
    }
    let Some(home) = tracefs_home("tracefs-hotplug") else { return };
    let list = home.dir.join("online");
    std::fs::write(&list, "0\n").unwrap();
    let bind = format!(
        "export {VARIABLE}=tracefs && mount --bind {} /sys/devices/system/cpu/online",
        list.display()
    );
    let Some(home) = with_mounts(home, "tracefs-hotplug", &bind) else { return };
    home.ok("enable-channel -k c --switch-timer 50000");
    home.ok("enable-event -k sched_process_exec -c c");
    home.ok("start");
    let on_cpu_1 = || Command::new("taskset").args(["-c", "1", "true"]).status().unwrap();
    if !on_cpu_1().success() {
        return eprintln!("SKIPPED: a CPU that comes online: CPU 1 is not ours");
    }
    // What is never read is lost, and counted.
    let said = home.ok("stop");
    assert!(said.contains("on a CPU that came online"), "{said}");
    home.ok("start");
    assert!(on_cpu_1().success());
    assert!(!home.dir.join("out/kernel/c_1").exists());
    std::fs::write(&list, "0-1\n").unwrap();
    wait_for("a packet of CPU 1", || home.dir.join("out/kernel/c_1").exists());
    home.ok("destroy");
    let text = read(&home, "out");
    assert!(text.lines().any(|line| line.contains("cpu_id = 1") && line.contains("/true\"")), "{text}");
}

#[test]
fn what_it_cannot_do_is_refused_with_the_reason() {
    let Some(home) = tracefs_home("tracefs-less") else { return };
    home.ok("create s -o out");
    let (code, text) = home.run("enable-event -k sched_switch --filter no_such_field==1");
    assert!(code != 0 && text.contains("column 1: sched_switch has no no_such_field"), "{text}");
    let (code, text) = home.run("enable-event -k sched_switch --filter $ctx.vtid==1");
    assert!(code != 0 && text.contains("tid, need_reschedule, interruptible alone"), "{text}");
    home.ok("enable-event -k sched_switch");
    let (code, text) = home.run("add-context -k -t vtid");
    assert!(code != 0 && text.contains("tracefs does not record it"), "{text}");
    let (code, text) = home.run("enable-event -k no_such_event");
    assert!(code != 0 && text.contains("no event no_such_event"), "{text}");
}

#[test]
fn a_killed_worker_leaves_no_instance_and_the_next_goes_on() {
    let Some(home) = tracefs_home("tracefs-killed") else { return };
    home.ok("create s -o out");
    home.ok("enable-event -k sched_switch");
    home.ok("start");
    commotion();
    let first = home.pid("worker.pid");
    home.kill_worker();
    home.ok("enable-event -k sched_process_exit");
    wait_for("the end of the first instance", || instances_of(first).is_empty());
    commotion();
    home.ok("destroy");
    assert!(!lines(&read(&home, "out"), "sched_process_exit").is_empty());
}

#[test]
fn losses_are_counted() {
    let Some(home) = tracefs_home("tracefs-loss") else { return };
    home.ok("create s -o out");
    home.ok("enable-channel -k c --subbuf-size 4k --num-subbuf 2");
    home.ok("enable-event -k sched_switch,sched_wak* -c c");
    home.ok("start");
    let worker = home.pid("worker.pid");
    support::kill(worker, rustix::process::Signal::STOP);
    for _ in 0..100 {
        commotion();
    }
    support::kill(worker, rustix::process::Signal::CONT);
    home.ok("stop");
    assert!(home.discarded("s") > 0);
}

#[test]
fn a_back_end_that_does_not_exist_is_named() {
    let home = Home::new("tracefs-unknown");
    let mut command = home.command(env!("CARGO_BIN_EXE_sillage"));
    assert!(command.env(VARIABLE, "dtrace").args(["create", "s", "-o", "out"]).status().unwrap().success());
    let (code, text) = home.run("enable-event -k sched_switch");
    assert!(code != 0 && text.contains("dtrace: ebpf or tracefs is possible"), "{text}");
}

/// A daemon of a user without rights says which are missing, and what gives them.
#[test]
fn where_nothing_is_permitted_the_message_names_what_is_missing() {
    if !rustix::process::getuid().is_root() {
        return eprintln!("SKIPPED: where_nothing_is_permitted: only root can become nobody");
    }
    const NOBODY: &str = "65534";
    let home = Home::new("tracefs-nobody");
    let program = home.dir.join("sillage");
    std::fs::copy(env!("CARGO_BIN_EXE_sillage"), &program).unwrap();
    std::os::unix::fs::chown(&home.dir, Some(65534), Some(65534)).unwrap();
    let run = |words: &[&str]| {
        let mut command = home.command("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all"]);
        let output = command.arg(&program).args(words).output().expect("setpriv of util-linux");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    run(&["create", "s", "-o", "out"]);
    let text = run(&["enable-event", "-k", "sched_switch"]);
    assert!(text.contains("CAP_BPF and CAP_PERFMON missing (setcap cap_bpf,cap_perfmon+ep"), "{text}");
    assert!(text.contains("tracefs: "), "{text}");
}

#[test]
fn filters_pass_what_they_say() {
    let Some(home) = tracefs_home("tracefs-filter") else { return };
    home.ok("create s -o out");
    filtered(&home, "sched_process_exec", "filename == \"*/sleep\"");
    home.ok("enable-event -k sched_process_exit --filter prio<-200");
    home.ok("enable-event -k sched_process_fork");
    home.ok("add-context -k -t tid -t need_reschedule -t interruptible");
    home.ok("start");
    for _ in 0..5 {
        commotion();
    }
    home.ok("destroy");
    let text = read(&home, "out");
    let execs = lines(&text, "sched_process_exec");
    assert!(execs.len() >= 10 && execs.iter().all(|line| line.contains("/sleep\"")), "{text}");
    assert!(lines(&text, "sched_process_fork").len() >= 15, "{text}");
    assert_eq!(lines(&text, "sched_process_exit"), [""; 0]);
    let flags = |line: &&str| number(line, "need_reschedule") <= 1 && number(line, "interruptible") <= 1;
    assert!(execs.iter().all(flags), "{text}");
}
