//! lttng-analyses on a kernel trace of ours: it takes it for LTTng's own, and counts what Babeltrace shows.
//! Needs the tools (`SILLAGE_ANALYSES`, or in the path; `cargo xtask test` installs them) and the rights to
//! load eBPF programs, and says so when it skips.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use support::Home;

/// The folder of the tools; None, said loudly, where they are not.
fn tools() -> Option<PathBuf> {
    let chosen = std::env::var_os("SILLAGE_ANALYSES").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = chosen.into_iter().chain(std::env::split_paths(&path));
    let found = dirs.into_iter().find(|dir| dir.join("lttng-cputop").exists());
    if found.is_none() {
        eprintln!(
            "SKIPPED: lttng-analyses is not installed (lttnganalyses of PyPI, python3-babeltrace of Debian)"
        );
    }
    found
}

/// What a tool says of a trace.
fn tool(tools: &std::path::Path, name: &str, home: &Home) -> String {
    let mut command = home.command(tools.join(name));
    let output =
        command.args(["--no-progress", "--gmt", "out"]).env("PYTHONIOENCODING", "utf-8").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn number(line: &str, key: &str) -> Option<u64> {
    line.split(&format!(" {key} = ")).nth(1)?.split([',', ' ']).next()?.parse().ok()
}

#[test]
fn lttng_analyses_takes_our_traces() {
    let Some(tools) = tools() else { return };
    let home = Home::new("analyses");
    home.ok("create s -o out");
    let (code, text) = home.run("enable-channel -k c --memory 64M");
    if code != 0 {
        return eprintln!("SKIPPED: lttng_analyses_takes_our_traces: {text}");
    }
    let events = "sched_*,irq_*,block_*,net_*,timer_hrtimer_*,signal_*,power_*,writeback_pages_written,lttng_statedump_*";
    home.ok(&format!("enable-event -k -c c {events}"));
    home.ok("enable-event -k -c c --syscall -a");
    // What lttng-analyses-record adds.
    home.ok("add-context -k -t pid -t tid -t procname -t prio");
    home.ok("start");
    let dd = ["if=/dev/zero", "of=big", "bs=4k", "count=50", "conv=fsync"];
    let mut dd = home.command("dd").args(dd).stderr(std::process::Stdio::null()).spawn().unwrap();
    let pid = dd.id();
    assert!(dd.wait().unwrap().success());
    let text = home.ok("destroy");
    assert!(!text.contains("discarded"), "{text}");
    let text = home.babeltrace(&home.dir.join("out"));

    let calls = tool(&tools, "lttng-syscallstats", &home);
    // By the name that it had before: the tools name processes late.
    let of_dd: Vec<&str> = calls.lines().skip_while(|line| !line.contains(&format!("TID: {pid})"))).collect();
    let counted = of_dd.iter().find_map(|line| line.trim().strip_prefix("- write "));
    let counted = counted.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    let own = format!(" tid = {pid},");
    let written = text.lines().filter(|line| line.contains(" syscall_exit_write: ") && line.contains(&own));
    assert_eq!(counted, Some(written.count()), "{calls}");

    let interrupts = tool(&tools, "lttng-irqstats", &home);
    let mut ours: BTreeMap<u64, u64> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(" irq_handler_exit: ")) {
        *ours.entry(number(line, "irq").unwrap()).or_default() += 1;
    }
    let mut compared = 0;
    for line in interrupts.lines() {
        let Some((irq, rest)) = line.split_once(": <") else { continue };
        let Ok(irq) = irq.trim().parse::<u64>() else { continue };
        let count =
            rest.split_once('>').and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok());
        let (count, have) = (count.expect("a count"), ours.get(&irq).copied().unwrap_or(0));
        // An interrupt that was running when recording began is no pair.
        assert!(count <= have && have <= count + 2, "interrupt {irq}: {count} and {have}\n{interrupts}");
        compared += 1;
    }
    assert!(compared > 0 || ours.is_empty(), "{interrupts}");

    let usage = tool(&tools, "lttng-cputop", &home);
    assert!(usage.contains("Per-TID Usage") && usage.contains("Total CPU Usage: "), "{usage}");
    let latency = tool(&tools, "lttng-schedstats", &home);
    assert!(latency.contains(&format!("({pid})")), "{latency}");
    let io = tool(&tools, "lttng-iolatencytop", &home);
    assert!(
        io.contains("Top system call latencies write") && io.contains("Top system call latencies sync"),
        "{io}"
    );
    let version = Command::new(tools.join("lttng-cputop")).arg("--version").output().unwrap();
    assert!(version.status.success());
}
