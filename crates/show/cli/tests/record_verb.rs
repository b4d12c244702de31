//! `sillage record`: a command, its exit code and its output, and the trace beside it.

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use support::{Home, Traced, kill, wait_for};

/// A directory with something under the names of the tracer library: enough for commands that do not
/// load it.
fn dummy_library(home: &Home) -> PathBuf {
    let dir = home.dir.join("lib");
    std::fs::create_dir_all(&dir).unwrap();
    for name in ["liblttng-ust.so.1", "liblttng-ust-common.so.1", "liblttng-ust-tracepoint.so.1"] {
        std::fs::write(dir.join(name), "").unwrap();
    }
    dir
}

fn record(home: &Home) -> Command {
    let mut command = home.command(env!("CARGO_BIN_EXE_sillage"));
    command.env("SILLAGE_LIBDIR", dummy_library(home)).arg("record");
    command
}

#[test]
fn exit_code_output_and_environment_are_the_commands_own() {
    let home = Home::new("passes");
    let output = record(&home)
        .args(["-o", "out", "--", "sh", "-c", "echo $LD_LIBRARY_PATH; echo oops >&2; exit 7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    let library_path = String::from_utf8(output.stdout).unwrap();
    let first = library_path.trim_end().split(':').next();
    assert_eq!(first, home.dir.join("lib").to_str(), "ours is in front");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("oops\nRecorded 0 B in 0 packets, 0 lost\n"), "{text}");
    assert!(
        text.contains(&format!("View with: sillage view -t {}", home.dir.join("out").display())),
        "{text}"
    );
    assert!(home.ok("list").contains("Currently no available"), "the session is gone");
    assert!(!home.dir.join(".lttngrc").exists(), "the current session is not touched");
}

#[test]
fn the_default_directory_is_lttngs() {
    let home = Home::new("default");
    for _ in 0..2 {
        assert!(record(&home).args(["--", "true"]).output().unwrap().status.success());
    }
    let names: Vec<_> = std::fs::read_dir(home.dir.join("lttng-traces")).unwrap().collect();
    assert_eq!(names.len(), 2, "two in one second do not mix");
    for name in names {
        assert!(name.unwrap().file_name().to_str().unwrap().starts_with("auto-"));
    }
}

#[test]
fn a_command_killed_by_a_signal_exits_as_shells_say() {
    let home = Home::new("signal");
    let status = record(&home).args(["--", "sh", "-c", "kill -9 $$"]).stderr(Stdio::null()).status();
    assert_eq!(status.unwrap().code(), Some(128 + 9));
}

#[test]
fn a_signal_reaches_the_command_and_the_summary_still_comes() {
    let home = Home::new("term");
    let script = "trap 'echo caught; exit 3' TERM; touch ready; while :; do sleep 0.01; done";
    let child = record(&home)
        .args(["-o", "out", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the command", || home.dir.join("ready").exists());
    kill(child.id() as i32, rustix::process::Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"caught\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("Recorded "));
}

#[test]
fn what_cannot_run_says_so() {
    let home = Home::new("cannot");
    let run = |words: &[&str]| {
        let output = record(&home).args(words).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run(&["--", "no-such-command"]);
    assert_eq!(code, 127, "{text}");
    assert!(text.starts_with("Error: no-such-command: No such file"), "{text}");
    let (code, text) = run(&["--", "/"]);
    assert_eq!(code, 126, "{text}");
    let (code, text) = run(&["--sub-buf-size", "4k", "--", "true"]);
    assert_eq!((code, text.as_str()), (2, "Error: Unrecognized argument used with 'record' command\n"));
    let (code, text) = run(&["--subbuf-size", "0", "--", "true"]);
    assert_eq!((code, text.as_str()), (1, "Error: Wrong value in --subbuf-size parameter: 0\n"));
    std::fs::create_dir_all(home.dir.join("taken/ust")).unwrap();
    let (code, text) = run(&["-o", "taken", "--", "true"]);
    assert!(code == 1 && text.contains("is there already"), "{text}");
    let output = record(&home).env("SILLAGE_LIBDIR", "/nowhere").args(["--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no tracer library in /nowhere"));
    assert!(home.run("list").1.contains("Currently no available"), "no session is left behind");
}

#[test]
fn the_commands_exit_code_survives_a_reader_that_has_gone() {
    let home = Home::new("gone");
    let status = record(&home)
        .args(["-o", "out", "--", "sh", "-c", "exit 3"])
        .stderr(std::io::pipe().unwrap().1)
        .status();
    assert_eq!(status.unwrap().code(), Some(3));
}

#[test]
fn a_command_that_cannot_be_recorded_is_told() {
    let home = Home::new("nothing");
    let run = |command: &str| {
        let output = record(&home).args(["--", command]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}");
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines().find_map(|line| line.strip_prefix("Nothing of ").map(str::to_owned)).expect(&text)
    };
    assert!(run("true").contains("met no tracepoint that was asked for"));
    let source = home.dir.join("static.c");
    std::fs::write(&source, "int main(void) { return 0; }").unwrap();
    let program = home.dir.join("static");
    let built = Command::new("gcc").args(["-static", "-o"]).args([&program, &source]).status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: gcc makes no static programs here");
        return;
    }
    assert!(run("./static").contains("statically linked"));
}

#[test]
fn a_debian_program_under_lttngs_own_helper_is_recorded_by_our_library() {
    let home = Home::new("helper");
    let Some(Traced { libraries: library, .. }) = Traced::compile(&home) else { return };
    let output = home
        .command(env!("CARGO_BIN_EXE_sillage"))
        .env("SILLAGE_LIBDIR", library)
        .args(["record", "-o", "out", "-u", "lttng_ust_libc:*", "--"])
        .args(["env", "LD_PRELOAD=liblttng-ust-libc-wrapper.so.1", "ls", "/"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let read = home.babeltrace(&home.dir.join("out"));
    let events = read.lines().filter(|line| line.contains(" lttng_ust_libc:malloc: ")).count();
    assert!(events > 10, "{read}");
    assert!(text.contains(&format!("Recorded {} events, ", read.lines().count())), "{text}");
    // Our own reader shows the same.
    let own = home.output("view -t out");
    assert_eq!(String::from_utf8(own.stdout).unwrap().lines().count(), read.lines().count());
}
