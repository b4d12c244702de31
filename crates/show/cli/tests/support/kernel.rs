//! What the tests of the kernel tracer share: a home whose daemon may trace, something to record, and
//! reading it back.

use super::{Home, kill, wait_for};
use rustix::process::Signal;
use std::process::Command;

/// A home whose daemon may trace the kernel; None, said loudly, where it may not.
pub fn kernel_home(name: &str) -> Option<Home> {
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
pub fn commotion() {
    let shell = Command::new("sh").args(["-c", "sleep 0.001 & sleep 0.001 & wait; true"]).status();
    assert!(shell.unwrap().success());
}

/// Lines of events of this name.
pub fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let name = format!(" {name}: ");
    text.lines().filter(|line| line.contains(&name)).collect()
}

/// How many lines of events of this name there are.
pub fn count(text: &str, name: &str) -> usize {
    lines(text, name).len()
}

/// The number behind `key = ` in a line.
pub fn number(line: &str, key: &str) -> i64 {
    let rest = line.split(&format!("{key} = ")).nth(1).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split([',', ' ']).next().unwrap().parse().unwrap()
}

/// Number of the PID namespace in which we are: process ids here are not those of the kernel's records
/// where it is not the first.
pub fn own_namespace() -> i64 {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let digits = |c: char| !c.is_ascii_digit();
    link.to_string_lossy().trim_matches(digits).parse().unwrap()
}

/// Babeltrace and our reader agree on how many events there are; Babeltrace's text.
pub fn read(home: &Home, out: &str) -> String {
    let text = home.babeltrace(&home.dir.join(out));
    let own = home.output(&format!("view -t {out}"));
    assert_eq!(String::from_utf8(own.stdout).unwrap().lines().count(), text.lines().count());
    text
}

/// Ends a home's daemon, so that the next command starts another.
pub fn end_daemon(home: &Home) {
    kill(home.pid("sillage.pid"), Signal::TERM);
    wait_for("the daemon's end", || !home.run_dir().join("sillage.pid").exists());
}

/// Runs these tests of the calling file again in a PID namespace, as in a container, whose processes have
/// other numbers than the kernel's records.
pub fn again_in_a_namespace_of_processes(tests: &[&str]) {
    let output = Command::new("unshare")
        .args(["-pf", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .args(tests)
        .output()
        .expect("unshare of util-linux");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if text.contains("unshare failed") {
        return eprintln!("SKIPPED: a namespace of processes: {text}");
    }
    assert!(output.status.success() && text.contains(&format!("{} passed", tests.len())), "{text}");
}

/// A daemon started in a mount namespace of its own, by a command that runs behind `prepare`.
pub fn with_mounts(home: Home, name: &str, prepare: &str) -> Option<Home> {
    end_daemon(&home);
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
