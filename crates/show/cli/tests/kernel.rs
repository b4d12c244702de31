//! The kernel's events and what they carry, from the command line to a trace that Babeltrace reads. Needs the
//! rights to load eBPF programs, and says so when it skips.

mod support;

use sillage_protocol::program::ProducerKind;
use std::process::Command;
use support::kernel::{commotion, count, end_daemon, kernel_home, number, own_namespace, read};
use support::{Program, tracepoint};

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
    home.ok("enable-event -k --syscall openat,execve,getpriority");
    home.ok("start");
    assert!(std::fs::File::open(home.dir.join("no such file")).is_err());
    // Names on pages that the program has not touched; the last one replaces its memory.
    std::fs::write(home.dir.join("cold"), format!("/no/such/cold\0{:4000}", "")).unwrap();
    std::fs::write(home.dir.join("program"), format!("/bin/true\0{:4000}", "")).unwrap();
    let open = "import ctypes, os\nc = ctypes.CDLL(None)\nc.mmap.restype = ctypes.c_void_p\n\
                def page(name):\n  file = os.open(name, 0)\n  \
                return ctypes.c_void_p(c.mmap(None, 4096, 1, 2, file, ctypes.c_long(0)))\n\
                nothing = (ctypes.c_char_p * 1)(None)\n\
                assert c.open(page('cold'), 0) < 0\n\
                assert c.execve(page('cold'), nothing, nothing) < 0\n\
                c.execve(page('program'), (ctypes.c_char_p * 2)(b'true', None), nothing)\nos._exit(9)";
    let python = Command::new("python3").args(["-c", open]).current_dir(&home.dir).status();
    home.ok("destroy");
    let text = read(&home, "out");
    let entry = |line: &&str| line.contains("syscall_entry_openat: ") && line.contains("no such file\"");
    assert!(text.lines().any(|line| entry(&line)), "{text}");
    assert!(count(&text, "syscall_exit_openat") > 0);
    match python {
        Ok(status) => {
            assert!(status.success());
            for (call, value) in
                [("openat", "/no/such/cold"), ("execve", "/no/such/cold"), ("execve", "/bin/true")]
            {
                let late = format!("{{ call = \"{call}\", argument = \"filename\", value = \"{value}\" }}");
                let is_late = |line: &str| line.contains("syscall_late_string: ") && line.ends_with(&late);
                assert!(text.lines().any(is_late), "{late}: {text}");
            }
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

/// Where the kernel lets nobody iterate, `/proc` says what runs: forced.
#[test]
fn the_state_dump_comes_from_proc_without_iterators() {
    let Some(home) = kernel_home("proc-dump") else { return };
    end_daemon(&home);
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
