//! The kernel's events, from the command line to a trace that Babeltrace reads. Needs the rights to load
//! eBPF programs, and says so when it skips.

mod support;

use rustix::process::Signal;
use sillage_protocol::program::ProducerKind;
use std::path::Path;
use std::process::Command;
use support::{Home, Program, kill, tracepoint, wait_for};

/// A home whose daemon may trace the kernel; None, said loudly, where it may not.
fn kernel_home(name: &str) -> Option<Home> {
    let home = Home::new(name);
    home.ok("create probe -o probe");
    let (code, text) = home.run("enable-channel -k c");
    home.ok("destroy probe");
    match code {
        0 => Some(home),
        _ => {
            eprintln!("SKIPPED: {name}: {text}");
            None
        }
    }
}

/// A process that switches, forks, waits for any child, and ends.
fn commotion() {
    let shell = Command::new("sh").args(["-c", "sleep 0.001 & sleep 0.001 & wait; true"]).status();
    assert!(shell.unwrap().success());
}

/// Lines of events of this name.
fn count(text: &str, name: &str) -> usize {
    text.lines().filter(|line| line.contains(&format!(" {name}: "))).count()
}

/// The number behind `key = ` in a line.
fn number(line: &str, key: &str) -> i64 {
    let rest = line.split(&format!("{key} = ")).nth(1).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split([',', ' ']).next().unwrap().parse().unwrap()
}

/// Number of the PID namespace in which we are: process ids here are not those of the kernel's records
/// where it is not the first.
fn own_namespace() -> i64 {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let digits = |c: char| !c.is_ascii_digit();
    link.to_string_lossy().trim_matches(digits).parse().unwrap()
}

/// Babeltrace and our reader agree on how many events there are; Babeltrace's text.
fn read(home: &Home, out: &str) -> String {
    let text = home.babeltrace(&home.dir.join(out));
    let own = home.output(&format!("view -t {out}"));
    assert_eq!(String::from_utf8(own.stdout).unwrap().lines().count(), text.lines().count());
    text
}

#[test]
fn the_scheduler_and_interrupts_are_recorded_and_read() {
    let Some(home) = kernel_home("whole") else { return };
    home.ok("create s -o out");
    let text = home.ok("enable-event -k sched_switch,sched_process_*");
    assert_eq!(
        text,
        "kernel event sched_switch created in channel channel0\n\
         kernel event sched_process_* created in channel channel0\n"
    );
    home.ok("enable-event -k irq_softirq_entry");
    home.ok("start");
    for _ in 0..20 {
        commotion();
    }
    let text = home.ok("stop");
    assert!(text.contains("Channel channel0: ") && !text.contains("Warning"), "{text}");
    let text = read(&home, "out");
    assert!(count(&text, "sched_process_fork") >= 60 && count(&text, "sched_process_exit") >= 60, "{text}");
    assert!(count(&text, "sched_switch") >= 100, "{text}");
    // Whoever waits for any child passes no process: its number reads as 0, and nobody comes to harm.
    assert!(text.lines().any(|line| line.contains(" sched_process_wait: ") && number(line, " tid") == 0));
    // Started again, the same trace goes on.
    home.ok("start");
    commotion();
    home.ok("destroy");
    assert!(read(&home, "out").lines().count() > text.lines().count());
    for file in ["metadata", "channel0_0", "index/channel0_0.idx"] {
        assert!(home.dir.join("out/kernel").join(file).exists(), "{file}");
    }
    assert!(!home.dir.join("out/ust").exists());
}

#[test]
fn system_calls_are_recorded_with_their_arguments() {
    let Some(home) = kernel_home("calls") else { return };
    home.ok("create s -o out");
    home.ok("enable-event -k --syscall openat,getpriority");
    home.ok("start");
    assert!(std::fs::File::open(home.dir.join("no such file")).is_err());
    // A name on a page that the program has not touched.
    std::fs::write(home.dir.join("cold"), format!("/no/such/cold\0{:4000}", "")).unwrap();
    let open = "import ctypes, os\nc = ctypes.CDLL(None)\nc.mmap.restype = ctypes.c_void_p\n\
                page = c.mmap(None, 4096, 1, 2, os.open('cold', 0), ctypes.c_long(0))\n\
                assert c.open(ctypes.c_void_p(page), 0) < 0";
    let python = Command::new("python3").args(["-c", open]).current_dir(&home.dir).status();
    home.ok("destroy");
    let text = read(&home, "out");
    let entry = |line: &&str| line.contains("syscall_entry_openat: ") && line.contains("no such file\"");
    assert!(text.lines().any(|line| entry(&line)), "{text}");
    assert!(count(&text, "syscall_exit_openat") > 0);
    match python {
        Ok(status) => {
            assert!(status.success());
            let late = "{ call = \"openat\", argument = \"filename\", value = \"/no/such/cold\" }";
            assert!(
                text.lines().any(|line| line.contains("syscall_late_string: ") && line.ends_with(late)),
                "{text}"
            );
        }
        Err(error) => eprintln!("SKIPPED: a cold name: python3: {error}"),
    }
}

#[test]
fn contexts_filters_and_the_state_dump_are_in_the_trace() {
    let Some(home) = kernel_home("contexts") else { return };
    home.ok("create s -o out");
    home.ok("enable-event -k lttng_statedump_process_state");
    let filtered = "enable-event -k sched_process_exec --filter filename==*/sleep";
    let words: Vec<String> = filtered.split(' ').map(|word| word.replace("*/sleep", "\"*/sleep\"")).collect();
    let made = home.command(env!("CARGO_BIN_EXE_sillage")).args(&words).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    assert_eq!(text, "Event sched_process_exec: Filter 'filename==\"*/sleep\"' successfully set\n");
    assert_eq!(
        home.ok("add-context -k -t procname -t tid"),
        "kernel context procname added to all channels\nkernel context tid added to all channels\n"
    );
    // As with LTTng's daemon, a second time is none.
    home.ok("add-context -k -t tid");
    let (code, text) = home.run("add-context -k -t nope");
    assert!(code == 4 && text.contains("no kernel context is called nope"), "{code} {text}");
    assert!(home.ok("add-context --list").contains("\nvpid\n"));
    let (code, text) = home.run("enable-event -k sched_process_exit --filter nosuch==1");
    assert!(code == 106 && text.contains("has no"), "{code} {text}");
    home.ok("start");
    commotion();
    home.ok("destroy");
    let text = read(&home, "out");
    assert!(count(&text, "lttng_statedump_process_state") > 10, "{text}");
    let execs: Vec<&str> = text.lines().filter(|line| line.contains(" sched_process_exec: ")).collect();
    assert!(execs.len() >= 2 && execs.iter().all(|line| line.contains("/sleep\"")), "{execs:?}");
    assert!(execs.iter().all(|line| line.contains("procname = \"")), "{execs:?}");
    assert!(execs.iter().all(|line| line.matches(" tid = ").count() == 2), "the context once, and the field");
}

#[test]
fn a_user_event_and_the_call_behind_it_are_in_order() {
    const ROUNDS: i32 = 1000;
    let Some(home) = kernel_home("order") else { return };
    home.ok("create s -o out");
    home.ok("enable-channel -u c --ordered --subbuf-size 256k");
    home.ok("enable-event -u p:a -c c");
    home.ok("enable-event -k --syscall getpriority");
    home.ok("start");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    for value in 0..ROUNDS {
        assert_eq!(program.emit(1, value), 1);
        rustix::process::getpriority_process(None).unwrap();
    }
    home.ok("stop");
    let text = read(&home, "out");
    let offsets: Vec<String> = ["kernel", &format!("ust/uid/{}/64-bit", rustix::process::getuid().as_raw())]
        .iter()
        .map(|dir| std::fs::read_to_string(home.dir.join("out").join(dir).join("metadata")).unwrap())
        .map(|text| text.lines().find(|line| line.contains("\toffset = ")).unwrap().to_owned())
        .collect();
    assert_eq!(offsets[0], offsets[1], "one clock");
    // Per round: the user event, then entry and exit of the call that follows it. Others may call too.
    let cycles = Command::new("babeltrace2").args(["--clock-cycles"]).arg(home.dir.join("out")).output();
    let cycles = String::from_utf8(cycles.unwrap().stdout).unwrap();
    let events: Vec<(i64, &str)> =
        cycles.lines().map(|line| (line[1..].split(']').next().unwrap().parse().unwrap(), line)).collect();
    let of = |name: &str| {
        let name = format!(" {name}: ");
        events.iter().filter(move |(_, line)| line.contains(&name)).map(|(ns, _)| *ns).collect::<Vec<i64>>()
    };
    let (user, entries) = (of("p:a"), of("syscall_entry_getpriority"));
    assert_eq!((user.len(), text.lines().filter(|l| l.contains(" p:a: ")).count()), (1000, 1000));
    assert!(entries.len() >= user.len(), "{} calls", entries.len());
    for pair in user.windows(2) {
        let between = entries.iter().filter(|ns| **ns >= pair[0] - 1000 && **ns <= pair[1] + 1000).count();
        assert!(between >= 1, "no call between {} and {}", pair[0], pair[1]);
    }
}

#[test]
fn the_daemons_own_doings_are_left_out_unless_wanted() {
    let Some(home) = kernel_home("self") else { return };
    let worker_switches = |options: &str, out: &str| {
        home.ok(&format!("create s -o {out}"));
        home.ok(&format!("enable-channel -k c {options}"));
        home.ok("enable-event -k sched_switch -c c");
        home.ok("add-context -k -t vpid -t pid_ns");
        home.ok("start");
        let worker = i64::from(home.pid("worker.pid"));
        for _ in 0..10 {
            home.ok("list s");
        }
        home.ok("destroy s");
        let text = read(&home, out);
        let ours =
            |line: &&str| number(line, " vpid") == worker && number(line, " pid_ns") == own_namespace();
        text.lines().filter(ours).count()
    };
    assert_eq!(worker_switches("", "without"), 0);
    assert!(worker_switches("--include-self", "with") >= 10);
}

/// As in a container, whose processes have other numbers than the kernel's records: the tests that compare
/// them, and that a daemon knows itself.
#[test]
fn the_same_in_a_namespace_of_processes() {
    let tests = [
        "the_daemons_own_doings_are_left_out_unless_wanted",
        "a_session_follows_whom_it_is_told",
        "a_killed_worker_leaves_nothing_attached_and_the_next_goes_on",
    ];
    let output = Command::new("unshare")
        .args(["-pf", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .args(tests)
        .output()
        .expect("unshare of util-linux");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if text.contains("unshare failed") {
        return eprintln!("SKIPPED: the_same_in_a_namespace_of_processes: {text}");
    }
    assert!(output.status.success() && text.contains("3 passed"), "{text}");
}

/// A shell that opens `inside` when somebody writes into `go`, and then says so in `done`.
struct Guest {
    child: std::process::Child,
    dir: std::path::PathBuf,
}

impl Guest {
    fn start(home: &Home, name: &str, around: &[&str]) -> Guest {
        let dir = home.dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        assert!(Command::new("mkfifo").args(["go", "done"]).current_dir(&dir).status().unwrap().success());
        let script = "read line < go; sh -c '(cat inside)' 2>/dev/null; echo done > done; true";
        let words: Vec<&str> = around.iter().copied().chain(["sh", "-c", script]).collect();
        let child = Command::new(words[0]).args(&words[1..]).current_dir(&dir).spawn().unwrap();
        Guest { child, dir }
    }

    /// Records the machine's opened files while the guest and somebody else open one each.
    fn record(self, home: &Home, option: &str) -> (String, String) {
        let out = format!("{}-out", self.dir.display());
        let script =
            format!("cat outside 2>/dev/null; cd {}; echo go > go; read line < done", self.dir.display());
        let output = home
            .command(env!("CARGO_BIN_EXE_sillage"))
            .args(["record", "-o", &out, "--syscall=openat", option, "--", "sh", "-c", &script])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        let mut guest = self;
        guest.child.wait().unwrap();
        (home.babeltrace(Path::new(&out)), text)
    }
}

fn opened(text: &str, name: &str) -> bool {
    text.contains(&format!("filename = \"{name}\""))
}

#[test]
fn record_follows_a_namespace_or_a_control_group() {
    let Some(home) = kernel_home("guest") else { return };
    if !rustix::process::getuid().is_root() {
        return eprintln!("SKIPPED: record_follows_a_namespace_or_a_control_group: only root makes them");
    }
    // A namespace below another one: whoever follows the outer has both.
    let nested = ["unshare", "-pf", "unshare", "-pf"];
    let guest = Guest::start(&home, "spaces", &nested);
    let first = format!("/proc/{0}/task/{0}/children", guest.child.id());
    let children = || std::fs::read_to_string(&first).unwrap_or_default().trim().to_owned();
    wait_for("the process in the namespace", || !children().is_empty());
    let (text, _) = guest.record(&home, &format!("--pid-ns={}", children()));
    assert!(opened(&text, "inside") && !opened(&text, "outside"), "{text}");
    // Our own: everybody's here.
    let (text, _) = Guest::start(&home, "own", &["env"]).record(&home, "--pid-ns");
    assert!(opened(&text, "inside") && opened(&text, "outside"), "{text}");
    // A control group.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        words.next().filter(|_| words.next() == Some("cgroup2"))
    });
    let Some(mount) = mount else {
        return eprintln!("SKIPPED: control groups: version 2 is not mounted");
    };
    let group = Path::new(mount).join(format!("sillage-test-{}", std::process::id()));
    let inner = group.join("inner");
    std::fs::create_dir_all(&inner).unwrap();
    let guest = Guest::start(&home, "group", &["env"]);
    let mut helper = Command::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(inner.join("cgroup.procs"), guest.child.id().to_string()).unwrap();
    std::fs::write(group.join("cgroup.procs"), helper.id().to_string()).unwrap();
    let (text, _) = guest.record(&home, &format!("--container={}", helper.id()));
    helper.kill().unwrap();
    helper.wait().unwrap();
    wait_for("the group to be empty", || std::fs::remove_dir(&inner).is_ok() || !inner.exists());
    wait_for("the group to be empty", || std::fs::remove_dir(&group).is_ok());
    assert!(opened(&text, "inside") && !opened(&text, "outside"), "{text}");
    for (words, want) in [
        ("record --container nobody-here -k sched_switch -- true", "no container nobody-here runs"),
        ("record --pid-ns -- true", "none are recorded without -k or --syscall"),
        ("record --pid-ns=4000000 -k sched_switch -- true", "/proc/4000000/ns/pid: No such file"),
    ] {
        let (code, text) = home.run(words);
        assert!(code == 1 && text.contains(want), "{words}: {text}");
    }
}

/// Where tracefs is not mounted, what has a recipe is recorded all the same, and `status` says what is not.
#[test]
fn without_tracefs_the_tables_events_are_recorded() {
    let Some(home) = kernel_home("mounts") else { return };
    // The daemon that looked whether there is a kernel tracer sees our mounts.
    kill(home.pid("sillage.pid"), Signal::TERM);
    wait_for("the daemon's end", || !home.run_dir().join("sillage.pid").exists());
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

#[test]
fn record_takes_kernel_and_user_events_of_one_command() {
    let Some(home) = kernel_home("record") else { return };
    let output = home
        .command(env!("CARGO_BIN_EXE_sillage"))
        .args(["record", "-o", "out", "-k", "sched_process_*", "--syscall=openat", "--", "ls", "/"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let read = read(&home, "out");
    assert!(text.contains(&format!("Recorded {} events, ", read.lines().count())), "{text}");
    assert!(count(&read, "sched_process_exec") > 0 && count(&read, "syscall_entry_openat") > 0, "{read}");
}

#[test]
fn many_sessions_record_the_same_event() {
    const SESSIONS: usize = 100;
    let Some(home) = kernel_home("many") else { return };
    for n in 0..SESSIONS {
        home.ok(&format!("create s{n} -o out{n}"));
        home.ok("enable-channel -k c --subbuf-size 64k --num-subbuf 4");
        home.ok("enable-event -k sched_process_exec -c c");
        home.ok("start");
    }
    Command::new("true").status().unwrap();
    for n in 0..SESSIONS {
        home.ok(&format!("destroy s{n}"));
        let text = read(&home, &format!("out{n}"));
        assert!(text.lines().any(|line| line.contains("/true\"")), "session {n}: {text}");
    }
}

#[test]
fn the_command_line_answers_as_lttngs() {
    let Some(home) = kernel_home("words") else { return };
    home.ok("create s -o out");
    let cases = [
        (
            "enable-channel -k c --blocking-timeout 10",
            1,
            "Error: Retry timeout option not supported for kernel domain (-k)\n",
        ),
        ("enable-channel -k c --buffers-uid", 1, "Error: Buffer type not supported for domain -k\n"),
        (
            "enable-channel -k c --output foo",
            1,
            "Error: Unknown output type foo. Possible values are: mmap, splice\n\n",
        ),
        ("enable-channel -k c --output splice", 0, "kernel channel c enabled for session s\n"),
        ("enable-channel -k c", 4, "Warning: Channel c: Kernel channel already exists (session s)\n"),
        ("disable-channel -k d", 4, "Error: Channel d: Kernel channel not found (session s)\n"),
        (
            "enable-event -k -a --exclude x -c c",
            1,
            "Error: Event name exclusions are not yet implemented for kernel events\n",
        ),
        (
            "enable-event -k sched_switch --tracepoint --syscall -c c",
            1,
            "Error: Multiple event type not supported.\n",
        ),
        (
            "enable-event -k x --userspace-probe foo -c c",
            1,
            "Error: Unable to parse userspace probe options\n",
        ),
        (
            "enable-event -k x --probe a --filter a==1 -c c",
            1,
            "Error: Filter expressions are not supported for Probe events\n",
        ),
        ("enable-event -u x --syscall", 5, "Error: Event type not available for user-space tracing\n"),
        ("enable-event -k", 1, "Error: Missing event name(s).\n"),
        ("enable-event -k sched_switch -c c", 0, "kernel event sched_switch created in channel c\n"),
        (
            "enable-event -k sched_switch -c c",
            4,
            "Warning: Kernel event sched_switch already enabled (channel c, session s)\n",
        ),
        ("enable-event -k --syscall -a -c c", 0, "All kernel system calls are enabled in channel c\n"),
        ("enable-event -k --tracepoint -a -c c", 0, "All kernel tracepoints are enabled in channel c\n"),
        (
            "enable-event -k sched_swich -c c",
            43,
            "Error: Event sched_swich: Enable kernel event failed: this kernel has no event sched_swich (near names: \
             sched_switch) (channel c, session s)\n",
        ),
        (
            "disable-event -k sched_switch -c c",
            0,
            "kernel sched_switch of type any disabled in channel c for session s\n",
        ),
        (
            "disable-event -k nosuch -c c",
            29,
            "Error: nosuch of type any : Event not found (channel c, session s)\n",
        ),
        ("disable-channel -k c", 0, "kernel channel c disabled for session s\n"),
    ];
    for (line, code, text) in cases {
        assert_eq!(home.run(line), (code, text.into()), "{line}");
    }
    let text = home.ok("list s");
    assert!(text.contains("=== Domain: Linux kernel ==="), "{text}");
    assert!(text.contains("      sched_switch (type: tracepoint) [disabled]\n"), "{text}");
    assert!(text.contains("      Read timer:       200000 us\n"), "{text}");
    assert!(text.contains("      Sub-buffer size:  1048576 bytes\n"), "{text}");
    assert!(text.contains("Kernel tracer: eBPF"), "{text}");
    let list = home.ok("list -k -f");
    let event = "      sched_switch (loglevel: TRACE_EMERG (0)) (type: tracepoint)\n        field: prev_comm (string)\n";
    assert!(list.starts_with("Kernel events:\n-------------\n") && list.contains(event), "{list}");
    assert!(home.ok("list -k --syscall").contains("      openat [32/64-bit]\n"));
}

#[test]
fn a_session_follows_whom_it_is_told() {
    let Some(home) = kernel_home("track") else { return };
    home.ok("create s -o out");
    home.ok("enable-event -k --syscall openat");
    let own = std::process::id();
    let error = |text: &str| (1, format!("Error: {text}\n"));
    let cases = [
        (format!("track -k --vpid {own}"), (0, format!("Added {own} to the virtual process ID tracker inclusion set\n"))),
        (
            format!("track -k --vpid={own},88888"),
            (
                0,
                format!(
                    "Added 88888 to the virtual process ID tracker inclusion set\n\
                     Warning: {own} is already in the virtual process ID inclusion set\n"
                ),
            ),
        ),
        (
            "untrack -k --vpid=88888,99999".into(),
            (
                0,
                "Removed 88888 from the virtual process ID tracker inclusion set\n\
                 Warning: 99999 is not in the virtual process ID the inclusion set\n"
                    .into(),
            ),
        ),
        ("track -k".into(), error("At least one process attribute must be specified")),
        ("track --vpid 1".into(), error("Please specify a domain (--kernel/--userspace).")),
        ("track -k -u --vpid 1".into(), error("Only one domain must be specified.")),
        ("track -k --pid=abc".into(), error("abc is not a valid process ID value; expected an integer")),
        ("track -k --uid=nosuchuser".into(), error("User `nosuchuser` was not found")),
        ("track -k --vgid=nosuchgroup".into(), error("Group `nosuchgroup` was not found")),
        ("track -k --pid".into(), error("No process attribute value specified for Process ID tracker")),
        (
            "track -k --all --pid=1".into(),
            error("The --all option cannot be used with a list of process attribute values"),
        ),
        ("track -u --uid 0".into(), error("The user ID process attribute cannot be tracked in the user space domain.")),
        ("track -k --pid 1 extra".into(), error("Unknown argument: extra")),
        ("track -k -s nosession --pid 1".into(), error("Recording session does not exist")),
        ("track -k --vuid=root,77".into(), (0, "Added root to the virtual user ID tracker inclusion set\nAdded 77 to the virtual user ID tracker inclusion set\n".into())),
        ("track -k --vuid --all".into(), (0, "Virtual user ID tracking policy set to `include all`\n".into())),
        ("track -k --uid=root,77".into(), (0, "Added root to the user ID tracker inclusion set\nAdded 77 to the user ID tracker inclusion set\n".into())),
        ("untrack -k --gid --all".into(), (0, "Group ID tracking policy set to `exclude all`\n".into())),
    ];
    for (line, answer) in cases {
        assert_eq!(home.run(&line), answer, "{line}");
    }
    let list = format!(
        "Tracked process attributes\n  Process IDs:          all\n  Virtual process IDs:  {own}\n  \
         User IDs:             77, `root`\n  Virtual user IDs:     all\n  Group IDs:            none\n  \
         Virtual group IDs:    all\n\n"
    );
    let text = home.ok("list s");
    assert!(text.contains(&list), "{text}");
    home.ok("track -k --gid --all");
    if !rustix::process::getuid().is_root() {
        home.ok("track -k --uid --all");
    }
    home.ok("start");
    let open = |name: &str| assert!(std::fs::File::open(home.dir.join(name)).is_err());
    let other = |name: &str| {
        let words = format!("exec 3<{}", home.dir.join(name).display());
        assert!(!Command::new("sh").args(["-c", &words]).output().unwrap().status.success());
    };
    let both = |name: &str| {
        open(&format!("{name}-own"));
        other(&format!("{name}-other"));
    };
    both("tracked");
    home.ok(&format!("untrack -k --vpid {own}"));
    both("nobody");
    home.ok("track -k --vpid --all");
    both("everybody");
    // The sets outlive a worker.
    home.ok(&format!("track -k --vpid {own}"));
    home.kill_worker();
    // Answered when the tracer has done everything before.
    home.ok("track -k --vpid 4000000000");
    both("again");
    home.ok("destroy");
    let text = read(&home, "out");
    let opened: Vec<&str> = ["tracked", "nobody", "everybody", "again"]
        .iter()
        .flat_map(|name| ["own", "other"].map(|who| (name, who)))
        .filter(|(name, who)| text.contains(&format!("/{name}-{who}\"")))
        .flat_map(|(name, who)| [*name, who])
        .collect();
    assert_eq!(
        opened,
        ["tracked", "own", "everybody", "own", "everybody", "other", "again", "own"],
        "{text}"
    );
    // Whom a session that records follows can begin at any time.
    home.ok("create t -o later");
    home.ok("enable-event -k --syscall openat");
    home.ok("start");
    both("before");
    home.ok(&format!("track -k --vpid {own}"));
    both("after");
    home.ok("destroy");
    let text = read(&home, "later");
    let seen = |name: &str| text.contains(&format!("/{name}\""));
    assert!(
        seen("before-own") && seen("before-other") && seen("after-own") && !seen("after-other"),
        "{text}"
    );
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

/// A daemon started in a mount namespace of its own, by a command that runs behind `prepare`.
fn home_with_mounts(name: &str, prepare: &str) -> Option<Home> {
    let home = kernel_home(name)?;
    kill(home.pid("sillage.pid"), Signal::TERM);
    wait_for("the daemon's end", || !home.run_dir().join("sillage.pid").exists());
    let script = format!("{prepare} || exit 9; exec {} create s -o out", env!("CARGO_BIN_EXE_sillage"));
    let output = home.command("unshare").args(["-m", "sh", "-c", &script]).output().expect("unshare");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if output.status.code() == Some(9) || text.contains("unshare failed") {
        eprintln!("SKIPPED: {name}: {text}");
        return None;
    }
    assert!(output.status.success(), "{text}");
    Some(home)
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
    let Some(home) = home_with_mounts("hotplug", &bind) else { return };
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

/// Where the kernel lets nobody iterate, `/proc` says what runs: forced.
#[test]
fn the_state_dump_comes_from_proc_without_iterators() {
    let Some(home) = kernel_home("proc-dump") else { return };
    kill(home.pid("sillage.pid"), Signal::TERM);
    wait_for("the daemon's end", || !home.run_dir().join("sillage.pid").exists());
    let mut create = home.command(env!("CARGO_BIN_EXE_sillage"));
    // The daemon inherits the environment of the command that starts it.
    let created = create.env("SILLAGE_KERNEL_DUMP", "proc").args(["create", "s", "-o", "out"]).status();
    assert!(created.unwrap().success());
    home.ok("enable-event -k lttng_statedump_*");
    let status = home.ok("status");
    assert!(
        status.contains("reads processes from /proc") && status.contains("SILLAGE_KERNEL_DUMP=proc"),
        "{status}"
    );
    let held = std::fs::File::create(home.dir.join("held open")).unwrap();
    home.ok("start");
    home.ok("stop");
    drop(held);
    let text = read(&home, "out");
    let pid = i64::from(std::process::id());
    let has = |name: &str, what: &dyn Fn(&str) -> bool| {
        let mut lines = text.lines().filter(|line| line.contains(&format!(" {name}: ")));
        assert!(lines.any(what), "{name}: {text}");
    };
    has("lttng_statedump_process_state", &|line| {
        number(line, " pid") == pid && line.contains(&format!("file_table_address = 0x{pid:X} "))
    });
    has("lttng_statedump_process_pid_ns", &|line| {
        number(line, " vpid") == pid && number(line, " ns_inum") == own_namespace()
    });
    has("lttng_statedump_process_user_ns", &|_| true);
    has("lttng_statedump_process_mnt_ns", &|line| number(line, " ns_inum") > 0);
    has("lttng_statedump_file_descriptor", &|line| line.contains("/held open\""));
    has("lttng_statedump_vm_map", &|line| number(line, " pid") == pid);
    has("lttng_statedump_start", &|_| true);
    has("lttng_statedump_end", &|_| true);
    home.ok("destroy");
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
