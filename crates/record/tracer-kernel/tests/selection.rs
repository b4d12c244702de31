//! What is recorded and with what: contexts, filters and trackers in the kernel, read back by Debian's
//! babeltrace2.

mod support;

use sillage_model::ProcessAttribute;
use sillage_ring::HeaderForm;
use sillage_tracer_kernel::contexts;
use sillage_tracer_kernel::filters::{Filter, FilterRefusal};
use sillage_tracer_kernel::syscalls::{self, Abi, Side};
use sillage_tracer_kernel::trackers::{Followed, Trackers};
use sillage_tracer_kernel::{Code, Field, GenerateError, Kernel, Recipe, events};
use support::*;

fn geometry() -> sillage_ring::Geometry {
    support::geometry(18, 8, false, HeaderForm::Large)
}

fn call(name: &str) -> Recipe {
    syscalls::find(Abi::Native, name).unwrap().recipe(Side::Entry)
}

/// Opens these files, which need not exist.
fn open(names: &[&str]) {
    for name in names {
        let name = std::ffi::CString::new(*name).unwrap();
        // SAFETY: a text that ends with a zero.
        unsafe { libc::open(name.as_ptr(), libc::O_RDONLY) };
    }
}

/// Reads a number out of a line of the process' status.
fn status(key: &str, column: usize) -> u32 {
    let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().nth(column).unwrap().parse().unwrap()
}

#[test]
fn contexts_say_what_proc_says() {
    let Some(kernel) = kernel("contexts") else { return };
    let names: Vec<String> = contexts::names().filter(|name| !name.starts_with("perf:")).collect();
    let fields: Vec<Field> = names.iter().map(|name| contexts::find(name).unwrap().field).collect();
    let mut session = Session::new("contexts", &kernel, geometry(), &fields);
    session.consume();
    session.enable(&call("openat"));
    session.enable(events::find("sched_switch").unwrap());
    open(&["/no/such/file"]);
    std::thread::sleep(std::time::Duration::from_millis(2));
    session.finish();
    let lines = session.read();
    let line = lines.iter().find(|line| line.text.contains("/no/such/file")).expect("the call");
    let has = |part: String| assert!(line.text.contains(&part), "{part} in {}", line.text);
    // SAFETY: no arguments.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
    // In a namespace of processes `/proc` knows other numbers than the kernel's first one.
    let own = sillage_tracer_kernel::guard::own_number().unwrap();
    has(format!("{{ pid = {own}, "));
    has(format!(" vtid = {tid},"));
    if own == std::process::id() {
        has(format!(" tid = {tid},"));
        has(format!(" ppid = {},", status("PPid:", 0)));
    }
    has(format!(" vpid = {},", std::process::id()));
    for (key, line, column) in [
        ("uid", "Uid:", 0),
        ("euid", "Uid:", 1),
        ("suid", "Uid:", 2),
        ("gid", "Gid:", 0),
        ("egid", "Gid:", 1),
        ("sgid", "Gid:", 2),
    ] {
        has(format!(" {key} = {}", status(line, column)));
        has(format!(" v{key} = {}", status(line, column)));
    }
    for key in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        has(format!(" {key}_ns = {},", linked(&format!("/proc/thread-self/ns/{key}"))));
    }
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    has(format!(" hostname = \"{}\"", hostname.trim()));
    // SAFETY: no addresses.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    has(format!(" prio = {}, nice = {nice},", 20 + nice));
    has(" migratable = 1,".into());
    has(" interruptible = 1,".into());
    has("callstack_kernel = [ [0] = 0xFFFFFFFF".into());
    has("callstack_user = [ [0] = 0x".into());
    // The scheduler switches with interrupts off.
    assert!(
        lines
            .iter()
            .filter(|line| line.name == "sched_switch")
            .all(|line| line.text.contains(" interruptible = 0,"))
    );
}

#[test]
fn counters_count() {
    let Some(kernel) = kernel("counters") else { return };
    let context = contexts::find("perf:cpu:page-fault").unwrap();
    let mut session = Session::new("counters", &kernel, geometry(), std::slice::from_ref(&context.field));
    session.consume();
    session.enable(&call("openat"));
    for round in 0..50 {
        drop(vec![round; 1 << 22]);
        open(&["/no/such/file"]);
    }
    session.finish();
    let of = |line: &Line| {
        let number =
            line.text.split("perf_cpu_page_fault = ").nth(1)?.split(' ').next()?.parse::<u64>().ok()?;
        Some((line.cpu, number))
    };
    let mut last = std::collections::BTreeMap::new();
    let (mut grew, lines) = (false, session.read());
    for (cpu, count) in lines.iter().map(|line| of(line).expect("a counter")) {
        let before = last.insert(cpu, count).unwrap_or(count);
        assert!(before <= count);
        grew |= before < count;
    }
    assert!(grew, "pages were touched in between");
    // A machine without the counters says so.
    match contexts::find("perf:cpu:instructions") {
        Ok(_) => {}
        Err(error) => assert!(error.to_string().starts_with("context perf:cpu:instructions: "), "{error}"),
    }
}

/// Names of the files whose opening passes a filter.
fn filtered(kernel: &std::sync::Arc<Kernel>, filter: &str, names: &[&str]) -> Vec<String> {
    let recipe = call("open");
    let filter = Filter::new(kernel, &recipe, filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let mut session = Session::new("filter", kernel, geometry(), &[]);
    session.consume();
    let guard = |code: &mut Code<'_>, no| -> Result<(), GenerateError> { filter.guard(code, no) };
    session.enable_with(&recipe, &[&guard]);
    for name in names {
        let name = std::ffi::CString::new(*name).unwrap();
        // SAFETY: a text that ends with a zero.
        unsafe { libc::syscall(libc::SYS_open, name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC, 0o644) };
    }
    session.finish();
    assert_eq!(session.channel.loss().total(), 0);
    let name =
        |line: &Line| line.text.split("filename = \"").nth(1).unwrap().split('"').next().unwrap().to_string();
    session.read().iter().map(name).filter(|name| names.contains(&&**name)).collect()
}

#[test]
fn filters_pass_what_they_say() {
    let Some(kernel) = kernel("filters") else { return };
    let long = format!("/{}/end", "x".repeat(300));
    let names = ["/no/such/file", "/no/such", "/no/such/file.gz", "/var/log/a.gz.b", "", &long];
    let pid = std::process::id();
    for (filter, want) in [
        ("filename == \"/no/such/file\"".into(), &[0][..]),
        ("filename != \"/no/such/file\"".into(), &[1, 2, 3, 4, 5]),
        ("filename == \"/no*\"".into(), &[0, 1, 2]),
        ("filename == \"*.gz\"".into(), &[2]),
        ("filename == \"/*/*.gz*\"".into(), &[2, 3]),
        ("filename == \"*x/end\" || filename == \"\"".into(), &[4, 5]),
        ("\"/var/*.b\" == filename && flags == 524288".into(), &[3]),
        ("filename == \"/no/such\" && flags & 0x80000 && !(mode == 3)".into(), &[1]),
        ("filename == \"/no/such\" && mode == 0644 && mode >> 3 == 064 && -flags < 0".into(), &[1]),
        ("filename == \"/no/such\" && (1 << 64 == 0 || mode < 0 || !flags)".into(), &[]),
        ("filename == \"/no/such\" && (flags | 1) ^ 1 == 524288 && ~mode < 0".into(), &[1]),
        (format!("$ctx.vpid == {pid} && filename == \"/no/such\" && $ctx.procname == \"*\""), &[1]),
        (
            format!(
                "$ctx.tid != {pid} && $ctx.prio >= 0 && $ctx.procname != \"nobody\" && filename == \"/no/*\""
            ),
            &[0, 1, 2],
        ),
        ("filename == \"/no*\" && $ctx.procname == \"nobody\"".into(), &[]),
    ] {
        let want: Vec<String> = want.iter().map(|index: &usize| names[*index].to_string()).collect();
        assert_eq!(filtered(&kernel, &filter, &names), want, "{filter}");
    }
}

#[test]
fn filters_work_on_tracepoints_and_records() {
    let Some(kernel) = kernel("filters on tracepoints") else { return };
    let mut session = Session::new("filters", &kernel, geometry(), &[]);
    session.consume();
    let filters = [
        ("sched_switch", "prev_comm == \"swapper/*\" && next_tid > 0 && prev_state == 0"),
        ("signal_generate", "sig == 12 && comm != \"x*y*z\""),
        ("sched_process_exec", "filename == \"*/true\""),
    ];
    for (name, text) in filters {
        let recipe = events::find(name).unwrap();
        let filter = Filter::new(&kernel, recipe, text).unwrap();
        let guard = |code: &mut Code<'_>, no| -> Result<(), GenerateError> { filter.guard(code, no) };
        session.enable_with(recipe, &[&guard]);
    }
    commotion(1_000);
    for signal in [libc::SIGUSR2, libc::SIGWINCH] {
        // SAFETY: both are ignored or handled: the first is made so here.
        unsafe {
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
            libc::raise(signal);
        }
    }
    session.finish();
    let lines = session.read();
    let of = |name: &str| lines.iter().filter(|line| line.name == name).collect::<Vec<_>>();
    assert!(!of("sched_process_exec").is_empty() && !of("signal_generate").is_empty());
    assert!(of("sched_process_exec").iter().all(|line| line.text.contains("/bin/true\"")));
    assert!(of("signal_generate").iter().all(|line| line.text.contains(" sig = 12,")));
    assert!(of("sched_switch").iter().all(|line| line.text.contains("prev_comm = \"swapper/")));
}

#[test]
fn filters_that_do_not_fit_say_where() {
    let Some(kernel) = kernel("filter errors") else { return };
    let show = |name: &str, text: &str| {
        let recipe = events::find(name).cloned().unwrap_or_else(|| call(name));
        Filter::new(&kernel, &recipe, text).map(drop).map_err(|error: FilterRefusal| error.to_string())
    };
    for (name, text, want) in [
        ("sched_switch", "prev_tid == 1 && colour == 2", "column 18: sched_switch has no field colour"),
        ("sched_switch", "$ctx.colour == 2", "column 1: sched_switch has no context $ctx.colour"),
        ("sched_switch", "prev_tid == \"x\"", "column 1: prev_tid is a number, not text"),
        ("sched_switch", "1 && prev_comm", "column 6: prev_comm is text, not a condition"),
        (
            "sched_switch",
            "prev_comm < \"x\"",
            "column 1: prev_comm is text: only == and != are done in the kernel",
        ),
        ("sched_switch", "prev_tid == 1.5", "column 1: the kernel has no real numbers"),
        (
            "sched_process_fork",
            "vtids[0] == 1",
            "column 1: vtids[0] leads into a structure, which is not looked into in the kernel",
        ),
        (
            "connect",
            "family == 2",
            "column 1: family is made while it is recorded and cannot be compared before",
        ),
        ("sched_switch", "prev_tid = 1", "column 10: unexpected character `=`"),
    ] {
        assert_eq!(show(name, text), Err(want.into()), "{text}");
    }
}

/// The number in what a link of /proc points to.
fn linked(link: &str) -> u64 {
    let link = std::fs::read_link(link).unwrap();
    link.to_string_lossy().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

#[test]
fn trackers_follow_whom_they_are_told() {
    use ProcessAttribute::*;
    let Some(kernel) = kernel("trackers") else { return };
    let trackers = Trackers::create().unwrap();
    let mut session = Session::new("trackers", &kernel, geometry(), &[]);
    session.consume();
    let guard = |code: &mut Code<'_>, no| -> Result<(), GenerateError> { trackers.guard(code, no) };
    session.enable_with(&call("openat"), &[&guard]);
    // Numbers as the kernel's first namespaces have them, wherever the test runs.
    let pid = u64::from(sillage_tracer_kernel::guard::own_number().unwrap());
    let own = u64::from(std::process::id());
    let (user, group) = (u64::from(status("Uid:", 0)), u64::from(status("Gid:", 0)));
    let mut followed = Followed::new();
    let mut follow = |attribute, ids: &[u64], file: &str| {
        followed.insert(attribute, ids.iter().copied().collect());
        trackers.follow(&followed).unwrap();
        open(&[file]);
    };
    open(&["/open"]);
    follow(Pid, &[1], "/pid 1 alone");
    follow(Pid, &[1, pid], "/pid too");
    for (attribute, id) in [(Vpid, own), (Uid, user), (Vuid, user), (Vgid, group)] {
        follow(attribute, &[id], "/more of them");
    }
    follow(Gid, &[group + 1], "/another group");
    follow(Gid, &[group], "/our group");
    follow(PidNamespace, &[1], "/another namespace");
    follow(PidNamespace, &[linked("/proc/self/ns/pid")], "/namespace");
    follow(Pid, &[1], "/not this");
    follow(Pid, &[], "/nobody");
    trackers.follow(&Followed::new()).unwrap();
    open(&["/everybody"]);
    trackers.follow(&[(Cgroup, [u64::MAX].into())].into()).unwrap();
    open(&["/no cgroup"]);
    // Of every control group the root's is an ancestor.
    trackers.follow(&[(Cgroup, [1].into())].into()).unwrap();
    open(&["/a cgroup"]);
    session.finish();
    let lines = session.read();
    let name = |line: &Line| line.text.split("filename = \"").nth(1)?.split('"').next().map(String::from);
    let names: Vec<String> =
        lines.iter().filter_map(name).filter(|name| name.matches('/').count() == 1).collect();
    let more = "/more of them";
    let want =
        ["/open", "/pid too", more, more, more, more, "/our group", "/namespace", "/everybody", "/a cgroup"];
    assert_eq!(names, want);
}

#[test]
fn programs_that_replace_others_leave_nothing_out_and_record_nothing_twice() {
    const CALLS: usize = 20_000;
    let Some(kernel) = kernel("replaced") else { return };
    let mut session = Session::new("replaced", &kernel, geometry(), &[]);
    session.consume();
    let recipe = call("getpriority");
    session.enable(&recipe);
    session.enable(events::find("sched_switch").unwrap());
    let started = std::sync::Arc::new(std::sync::Barrier::new(2));
    let caller = {
        let started = std::sync::Arc::clone(&started);
        std::thread::spawn(move || {
            started.wait();
            for which in 0..CALLS {
                // SAFETY: no addresses.
                unsafe { libc::getpriority(libc::PRIO_PGRP, 1_000_000 + which as u32) };
            }
        })
    };
    started.wait();
    for _ in 0..20 {
        session.channel.replace(|channel| channel.enable(&recipe, 0, &[], &[]).unwrap());
    }
    caller.join().unwrap();
    session.finish();
    assert_eq!(session.channel.loss().total(), 0);
    let lines = session.read();
    let who = |line: &Line| line.text.split("who = ").nth(1)?.split(' ').next()?.parse::<usize>().ok();
    let calls: Vec<usize> = lines.iter().filter_map(who).filter(|who| *who >= 1_000_000).collect();
    assert!(calls.iter().copied().eq(1_000_000..1_000_000 + CALLS), "{} calls", calls.len());
}

#[test]
fn what_the_verifier_refuses_keeps_its_reason_and_its_log() {
    use sillage_tracer_kernel::sys::{ProgramKind, SysError, load_program};
    let Some(_) = kernel("refused") else { return };
    let mut asm = sillage_bpf::Assembler::new();
    asm.mov(sillage_bpf::Reg::R0, sillage_bpf::Reg::R5);
    asm.exit();
    match load_program(ProgramKind::RawTracepoint, &asm.finish().unwrap(), "nonsense") {
        Err(SysError::Refused { name, reason, log, .. }) => {
            assert_eq!((name.as_str(), reason.as_str()), ("nonsense", "R5 !read_ok"), "{log}");
            assert!(log.contains("r0 = r5"), "{log}");
        }
        other => panic!("{other:?}"),
    }
}
