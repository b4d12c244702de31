//! Another kernel: Debian's 6.1 in a virtual machine without acceleration records its own events, and the
//! traces are read here. It has what the machines that run the other tests may lack: probes of its own code,
//! modules, CPUs that come and go, and a verifier of 2022. One machine runs the script `vm/init`; each check
//! looks at a part of it. Only in the long runs (`cargo xtask test --full`), and only where QEMU and Debian's
//! archive are to be had; it says so when it skips.

mod support;
mod vm;

use std::collections::BTreeSet;
use std::path::PathBuf;
use vm::Machine;

const CHECKS: [fn(&Machine); 9] = [
    both_back_ends_record,
    the_kernels_code_is_probed,
    places_that_cannot_be_probed_are_refused_with_the_reason,
    contexts_are_recorded_or_refused,
    filters_trackers_and_the_state_dump_work,
    the_real_tracers_events_are_offered,
    no_program_is_refused,
    a_cpu_that_comes_online_is_recorded,
    a_killed_daemon_leaves_nothing_attached,
];

#[test]
fn debians_kernel_is_recorded() {
    if std::env::var_os("SILLAGE_FULL").is_none() {
        return eprintln!("SKIPPED: debians_kernel_is_recorded: only in the long runs (SILLAGE_FULL=1)");
    }
    match Machine::run() {
        Ok(machine) => CHECKS.iter().for_each(|check| check(&machine)),
        Err(why) => eprintln!("SKIPPED: debians_kernel_is_recorded: {why}"),
    }
}

/// The lines of an event.
fn lines<'a>(text: &'a str, event: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.contains(&format!(" {event}: "))).collect()
}

/// The hexadecimal number behind `key = 0x`.
fn address(line: &str, key: &str) -> u64 {
    let digits = line.split(&format!(" {key} = 0x")).nth(1).unwrap_or_else(|| panic!("no {key} in {line}"));
    u64::from_str_radix(digits.split([',', ' ']).next().unwrap(), 16).unwrap()
}

fn both_back_ends_record(machine: &Machine) {
    for back_end in ["ebpf", "tracefs"] {
        let console = machine.part(back_end);
        assert!(console.contains(" 0 lost"), "{console}");
        let metadata = std::fs::read_to_string(machine.trace(back_end).join("kernel/metadata")).unwrap();
        assert!(metadata.contains("kernel_release = \"6.1.0-"), "{metadata}");
        let text = machine.read(back_end);
        for name in ["sched_switch", "sched_process_fork", "sched_process_exec", "syscall_entry_openat"] {
            let count = lines(&text, name).len();
            assert!(count >= 5, "{back_end}: {count} of {name}\n{console}");
        }
        // Programs also read what the argument points to.
        assert!(back_end != "ebpf" || text.contains("filename = \"/proc/version\""), "{console}");
    }
}

/// By symbol, symbol and offset, address; entry and return: `stat` of the script hits each twice at least.
fn the_kernels_code_is_probed(machine: &Machine) {
    let console = machine.part("probes");
    let place = console.lines().find_map(|line| line.strip_prefix("address 0x")).expect(console);
    let place = u64::from_str_radix(place, 16).unwrap();
    let text = machine.read("probes");
    let hits = |event: &str, offset: u64| {
        let hits = lines(&text, event);
        let by_stat = hits.iter().filter(|line| line.contains("procname = \"stat\"")).count();
        assert!(by_stat >= 2, "{event}: {text}");
        assert!(hits.iter().all(|line| address(line, "ip") == place + offset), "{event}: {text}");
        hits
    };
    hits("at_symbol", 0);
    hits("behind_symbol", 5);
    hits("behind_symbol_in_hex", 5);
    hits("at_address", 0);
    let callers =
        |event| -> BTreeSet<u64> { hits(event, 0).iter().map(|line| address(line, "parent_ip")).collect() };
    let (entered, left) = (callers("function_entry"), callers("function_exit"));
    assert!(entered == left && entered.iter().all(|caller| *caller > u64::MAX << 48), "{text}");
}

fn places_that_cannot_be_probed_are_refused_with_the_reason(machine: &Machine) {
    let console = machine.part("probes");
    for reason in [
        "this kernel has no function vfs_stat_x (near names: vfs_statx",
        "takes no probe at vfs_statx+1: no instruction begins there",
        "takes no probe at 0x10: none of its code is there",
        "takes no probe at vfs_statx+5: a function begins at its symbol",
    ] {
        assert!(console.contains(reason), "{reason}: {console}");
    }
    // LTTng's code for what the kernel does not enable.
    assert_eq!(console.matches("\ncode 43\n").count(), 5, "{console}");
}

fn contexts_are_recorded_or_refused(machine: &Machine) {
    let console = machine.part("contexts");
    let offered = console.lines().filter_map(|line| line.strip_prefix("context ")?.split_once(": "));
    let (added, refused): (Vec<_>, Vec<_>) =
        offered.partition(|(_, answer)| answer.ends_with("added to all channels"));
    assert!(added.len() >= 35, "{console}");
    for (name, answer) in refused {
        // The machine has no counters, its kernel no way to see the interrupt flag.
        let reason = match name {
            "interruptible" => "this kernel has no function bpf_local_irq_save",
            _ if name.starts_with("perf:cpu:") => "opening a counter: No such file or directory",
            _ => "",
        };
        assert!(!reason.is_empty() && answer.contains(reason), "{name}: {answer}");
    }
    assert!(!console.contains("is not recorded"), "{console}");
    let text = machine.read("contexts");
    for event in ["sched_process_exec", "sched_switch", "irq_softirq_entry", "syscall_entry_openat"] {
        let hits = lines(&text, event);
        assert!(hits.len() >= 5, "{event}: {text}");
        for (name, _) in &added {
            let field = format!(" {} = ", name.replace([':', '-'], "_"));
            assert!(hits.iter().all(|line| line.contains(&field)), "{event} without {name}: {text}");
        }
    }
}

fn filters_trackers_and_the_state_dump_work(machine: &Machine) {
    assert!(!machine.part("chosen").contains("Warning"), "{}", machine.part("chosen"));
    let text = machine.read("filtered");
    let programs = lines(&text, "sched_process_exec");
    let wanted = |line: &&str| line.contains("\"/bin/uptime\"") || line.contains("\"/bin/stat\"");
    assert!(programs.len() == 2 && programs.iter().all(wanted), "{text}");
    for name in [
        "start",
        "process_state",
        "process_pid_ns",
        "file_descriptor",
        "vm_map",
        "interrupt",
        "network_interface",
        "cpu_topology",
        "end",
    ] {
        assert!(!lines(&text, &format!("lttng_statedump_{name}")).is_empty(), "{name}: {text}");
    }
    let text = machine.read("tracked");
    let events = |name| -> Vec<&str> { lines(&text, name) };
    assert!(events("sched_process_fork").len() >= 5, "{text}");
    assert!(events("sched_process_fork").iter().all(|line| line.contains("{ pid = 1 }")), "{text}");
    assert!(events("sched_process_exit").is_empty(), "its children are not followed: {text}");
}

/// Events of LTTng's list that this kernel cannot have: it has no such tracepoints. LTTng lists them, and
/// never records one.
const GONE: [&str; 15] = [
    "kvm_age_page",
    "kvm_async_pf_doublefault",
    "net_if_rx_ni_entry",
    "net_if_rx_ni_exit",
    "power_machine_suspend",
    "rpc_bind_status",
    "writeback_bdi_unregister",
    "writeback_congestion_wait",
    "writeback_nothread",
    "writeback_nowork",
    "writeback_thread_start",
    "writeback_thread_stop",
    "writeback_wait_iff_congested",
    "writeback_wake_forker_thread",
    "writeback_wake_thread",
];
/// What programs write to lttng-modules' own file, which is not there.
const LOGGER: &str = "lttng_logger";

fn the_real_tracers_events_are_offered(machine: &Machine) {
    let shared = std::env::var_os("SILLAGE_SHARED").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../../shared");
    let path = shared.unwrap_or_else(beside).join("reference/kernel-traces/EVENTS.txt");
    let Ok(oracle) = std::fs::read_to_string(&path) else {
        return eprintln!("SKIPPED: {} cannot be read", path.display());
    };
    fn words(text: &str) -> BTreeSet<&str> {
        text.lines().filter_map(|line| line.split_whitespace().next()).collect()
    }
    let (events, calls) = (words(machine.part("events")), words(machine.part("syscalls")));
    let call = |name: &str| {
        let ends = ["syscall_entry_", "syscall_exit_", "compat_syscall_entry_", "compat_syscall_exit_"];
        ends.iter().find_map(|end| name.strip_prefix(end).map(String::from))
    };
    let offered = |name: &str| match call(name) {
        Some(call) => call == "unknown" || calls.contains(call.as_str()),
        None => events.contains(name),
    };
    let missing: Vec<&str> = words(&oracle).into_iter().filter(|name| !offered(name)).collect();
    eprintln!("{} of LTTng's events are not offered on this kernel: {missing:?}", missing.len());
    let known = machine.part("available");
    let unexcused: Vec<_> = missing.iter().filter(|name| **name != LOGGER && !GONE.contains(name)).collect();
    assert!(unexcused.is_empty(), "{unexcused:?} of {known}");
    // And the kernel really has none of these, with or without its category in front.
    let there = |name: &&&str| {
        let plain = name.split_once('_').map_or(**name, |(_, plain)| plain);
        known.lines().any(|line| line.ends_with(&format!(":{name}")) || line.ends_with(&format!(":{plain}")))
    };
    let there: Vec<_> = GONE.iter().filter(there).collect();
    assert!(there.is_empty(), "{there:?} of {known}");
}

fn no_program_is_refused(machine: &Machine) {
    let console = machine.part("all");
    assert!(console.contains("Tracing started") && !console.contains("is not recorded"), "{console}");
    machine.read("all");
}

fn a_cpu_that_comes_online_is_recorded(machine: &Machine) {
    let text = machine.read("hotplug");
    let there = |line: &&&str| line.contains("cpu_id = 1 }");
    let ran = lines(&text, "sched_process_exec");
    assert!(ran.iter().filter(there).count() >= 2, "{text}");
    assert!(ran.iter().any(|line| there(&line) && line.contains("/uptime\"")), "gone and back: {text}");
}

fn a_killed_daemon_leaves_nothing_attached(machine: &Machine) {
    let console = machine.part("killed");
    let counts = console.lines().find_map(|line| line.strip_prefix("programs ")).expect(console);
    let counts: Vec<u32> = counts.split(' ').map(|count| count.parse().unwrap()).collect();
    assert!(counts[1] >= counts[0] + 3 && counts[2] == counts[0], "{console}");
}
