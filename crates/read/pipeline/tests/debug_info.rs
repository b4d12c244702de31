//! Debug information against Debian's babeltrace2: traces of the corpus, whose programs are not
//! here, and a trace of a program that is, made by LTTng in a mount namespace of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use sillage_ctf::model::CtfVersion;
use sillage_pipeline::Messages;
use sillage_pipeline::filters::debug_info::{DebugInfo, DebugInfoOptions};
use sillage_pipeline::sinks::ctf::{CtfOptions, CtfSink};
use sillage_pipeline::sinks::pretty::{ClockFormat, Options, Pretty};
use sillage_pipeline::sinks::{Drained, Sink, Zone, drain, write_all_to};

fn text(mut messages: impl Messages) -> String {
    let (sender, receiver) = mpsc::channel();
    let clock = ClockFormat::TimeOfDay { zone: Zone::Utc, with_date: false };
    let options = Options { clock, ..Options::default() };
    let mut sink = Pretty::new(options, write_all_to(sender), Box::new(std::io::sink()));
    assert_eq!(drain(&mut messages, &mut sink, |_| true).unwrap(), Drained::End);
    drop(sink);
    String::from_utf8(receiver.into_iter().flatten().collect()).unwrap()
}

fn with_debug_info(trace: &Path, options: DebugInfoOptions) -> DebugInfo<impl Messages> {
    DebugInfo::new(sillage_pipeline::open(trace).unwrap().messages(), options)
}

/// What babeltrace2 says; none when it is not installed.
fn babeltrace2(arguments: &[&str], trace: &Path) -> Option<String> {
    let mut command = Command::new("babeltrace2");
    command.arg("--clock-gmt").args(arguments).arg(trace).env("BABELTRACE_TERM_COLOR", "NEVER");
    match command.output() {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap()),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => {
            eprintln!("SKIPPED: babeltrace2 is not installed");
            None
        }
    }
}

fn same(ours: &str, theirs: &str) {
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

#[test]
fn traces_of_programs_that_are_not_here() {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    for name in ["tc-debuginfo-synth-exec", "tc-debuginfo-synth-buildid-debuglink", "tc-debuginfo-test-app3"]
    {
        let trace = shared.join("traces").join(name).join("trace");
        if !trace.exists() {
            eprintln!("SKIPPED: {} is missing", trace.display());
            return;
        }
        let ours = text(with_debug_info(&trace, DebugInfoOptions::default()));
        assert!(ours.contains("debug_info = { bin = \""));
        if let Some(theirs) = babeltrace2(&["--debug-info"], &trace) {
            same(&ours, &theirs);
        }
    }
}

const SCRIPT: &str = r#"
set -e
mkdir -p /run/lttng "$BASE/home"
mount -t tmpfs tmpfs /run/lttng
mount -t tmpfs tmpfs /dev/shm
export HOME="$BASE/home" LTTNG_HOME="$BASE/home"
trap 'kill $(cat "$BASE/pid" 2>/dev/null) 2>/dev/null || true' EXIT
lttng-sessiond --no-kernel --daemonize --pidfile "$BASE/pid"
lttng create d --output "$BASE/trace"
lttng enable-event --userspace 'demo:*,lttng_ust_statedump:*,lttng_ust_lib:*'
lttng add-context --userspace --type vpid --type ip
lttng start
"$BASE/demo" 10
lttng destroy
"#;

/// A directory with a program `demo` and its trace `trace`; none where that can not be made.
fn record() -> Option<PathBuf> {
    for tool in ["lttng", "lttng-sessiond", "gcc", "unshare"] {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("SKIPPED: {tool} is not installed");
            return None;
        }
    }
    let base = std::env::temp_dir().join(format!("sillage-debug-info-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&base);
    std::fs::create_dir_all(&base).unwrap();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let mut gcc = Command::new("gcc");
    gcc.args(["-g", "-O1", "-o"]).arg(base.join("demo")).arg("-I").arg(&programs);
    gcc.arg(programs.join("demo.c")).args(["-llttng-ust", "-ldl"]);
    if !gcc.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: LTTng-UST's headers are not installed");
        return None;
    }
    let recorded = Command::new("unshare").args(["-m", "bash", "-c", SCRIPT]).env("BASE", &base).output();
    match recorded {
        Ok(output) if output.status.success() => Some(base),
        Ok(output) => {
            eprintln!("SKIPPED: no session: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

#[test]
fn a_program_that_is_here() {
    let Some(base) = record() else {
        return;
    };
    let trace = base.join("trace");
    let ours = text(with_debug_info(&trace, DebugInfoOptions::default()));
    assert!(ours.contains("func = \"even+0x"), "{ours}");
    assert!(ours.contains("src = \"demo.c:14\""), "{ours}");
    let whole = DebugInfoOptions { full_path: true, ..DebugInfoOptions::default() };
    let whole = text(with_debug_info(&trace, whole));
    let renamed = DebugInfoOptions { field_name: "where".into(), ..DebugInfoOptions::default() };
    let renamed = text(with_debug_info(&trace, renamed));
    assert_eq!(ours.replace("debug_info = {", "where = {"), renamed);
    let elsewhere = DebugInfoOptions { target_prefix: Some("/nowhere".into()), ..Default::default() };
    assert!(!text(with_debug_info(&trace, elsewhere)).contains("even+"));
    if let Some(theirs) = babeltrace2(&["--debug-info"], &trace) {
        same(&ours, &theirs);
        same(&whole, &babeltrace2(&["--debug-info", "--debug-info-full-path"], &trace).unwrap());
    }
    // Written down, it can be read without the program.
    for version in [CtfVersion::V1_8, CtfVersion::V2] {
        let copy = base.join(format!("{version:?}"));
        let mut messages = with_debug_info(&trace, DebugInfoOptions::default());
        let mut sink = CtfSink::new(CtfOptions { version, ..CtfOptions::new(&copy) });
        drain(&mut messages, &mut sink, |_| true).unwrap();
        sink.finish().unwrap();
        same(&text(sillage_pipeline::open(&copy).unwrap().messages()), &ours);
        if version == CtfVersion::V1_8
            && let Some(theirs) = babeltrace2(&[], &copy)
        {
            same(&theirs, &ours);
        }
    }
    std::fs::remove_dir_all(&base).unwrap();
}
