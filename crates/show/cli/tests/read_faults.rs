//! Bad input to the reading verbs: what is said, with what exit code, and what comes out before.

mod reading;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use reading::{Scratch, ok, run, sillage, trace};

/// Fails with exactly this on standard error and nothing on standard output.
#[track_caller]
fn fails(arguments: &[&str], code: i32, wanted: &str) {
    let done = run(arguments);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (code, "", wanted), "{arguments:?}");
}

#[test]
fn what_is_no_trace_is_told_with_the_next_step() {
    let scratch = Scratch::new("no-trace");
    let empty = scratch.path("empty");
    std::fs::create_dir(&empty).expect("a directory");
    for verb in ["view", "stats", "index"] {
        let absent = scratch.path("absent");
        let step = format!("Is the path right? `ls {}` shows what is there.\n", scratch.0.display());
        fails(
            &[verb, &absent],
            1,
            &format!("error: {absent}: No such file or directory (os error 2)\n{step}"),
        );
        let step = "Give a directory that holds a file `metadata`, or one above it.\n";
        fails(&[verb, &empty], 1, &format!("error: {empty}: no trace found\n{step}"));
    }
    let file = scratch.path("empty/file");
    std::fs::write(&file, "text").expect("a file");
    let done = run(&["stats", &file]);
    assert_eq!(done.code, 1);
    assert!(done.err.ends_with("give the one that holds the file `metadata`.\n"), "{}", done.err);
    // The second is bad; nothing is half done.
    let Some(trace) = trace("bt1-smalltrace") else { return };
    let to = scratch.path("to");
    let done = run(&["merge", &trace, &scratch.path("absent"), "-o", &to]);
    assert_eq!((done.code, Path::new(&to).exists()), (1, false), "{}", done.err);
}

#[test]
fn bad_options_are_told() {
    let Some(trace) = trace("bt1-smalltrace") else { return };
    let scratch = Scratch::new("options");
    let to = scratch.path("to");
    let column = "error: --filter: column 6: unexpected character `=`\n  a == = 3\n       ^\n";
    fails(&["view", &trace, "--filter", "a == = 3"], 1, column);
    fails(&["cut", &trace, "--filter", "a == = 3", "-o", &to], 1, column);
    let done = run(&["view", &trace, "--begin", "25:99"]);
    assert!(done.code == 1 && done.err.starts_with("error: --begin: invalid time `25:99`"), "{}", done.err);
    let after = "error: the begin of the time range (10000000000 ns from the origin) is after its end (5000000000 ns)\n";
    fails(&["view", &trace, "--begin", "10", "--end", "5"], 1, after);
    let nothing = "error: nothing says what to cut: give --begin, --end, --filter or --stream-intersection\n";
    fails(&["cut", &trace, "-o", &to], 1, nothing);
    fails(&["view", &trace, "--columns", "a"], 1, "error: --columns is for --format csv\n");
    fails(&["convert", &trace, "-o", &to, "--columns", "a"], 1, "error: --columns is for CSV\n");
    let done = run(&["cut", &trace, "--begim", "3", "-o", &to]);
    assert_eq!(done.code, 2);
    assert!(done.err.contains("'--begim'") && done.err.contains("'--begin'"), "{}", done.err);
    let done = run(&["view", &trace, "--format", "xml"]);
    assert!(done.code == 2 && done.err.contains("text, details, json, csv, count"), "{}", done.err);
    fails(
        &["view", "-t", &trace, "-e", "no-such-reader-here"],
        1,
        "error: no-such-reader-here: No such file or directory (os error 2)\n",
    );
    assert!(!Path::new(&to).exists());
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let Some(trace) = trace("bt1-smalltrace") else { return };
    let scratch = Scratch::new("exists");
    let (file, full) = (scratch.path("t.json"), scratch.path("full"));
    std::fs::write(&file, "precious").expect("a file");
    std::fs::create_dir(&full).expect("a directory");
    std::fs::write(scratch.path("full/file"), "precious").expect("a file");
    let exists = format!("error: {file} exists: remove it, or give another name\n");
    fails(&["convert", &trace, "-o", &file], 1, &exists);
    fails(&["view", &trace, "-o", &file], 1, &exists);
    for arguments in [["merge", &trace, "-o", &full], ["convert", &trace, "-o", &full]] {
        let wanted = format!(
            "error: {full} exists: give a directory that is new or empty, so that nothing is mixed up\n"
        );
        fails(&arguments, 1, &wanted);
    }
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
    // An empty directory is as good as none, and a device takes everything.
    let empty = scratch.path("empty");
    std::fs::create_dir(&empty).expect("a directory");
    ok(&["merge", &trace, "-o", &empty]);
    assert_eq!(ok(&["view", &empty]), ok(&["view", &trace]));
    assert_eq!(
        ok(&["convert", &trace, "--to", "text", "-o", "/dev/stdout"]),
        ok(&["view", "--date", &trace])
    );
}

#[test]
fn where_nothing_can_be_written_is_told() {
    let Some(trace) = trace("bt1-smalltrace") else { return };
    // Nobody may make files there, root neither.
    let absent = "No such file or directory (os error 2)";
    for (verb, to) in [("convert", "/proc/t.json"), ("merge", "/proc/t"), ("view", "/proc/t")] {
        let done = run(&[verb, &trace, "-o", to]);
        assert_eq!(done.code, 1, "{verb}");
        assert!(done.err.contains("can not write") && done.err.contains(absent), "{}", done.err);
    }
    let done = run(&["view", &trace, "-o", "/dev/full"]);
    assert!(done.code == 1 && done.err.contains("/dev/full: No space left on device"), "{}", done.err);
}

#[test]
fn a_reader_that_goes_away_is_no_error_to_talk_about() {
    let Some(trace) = trace("bt1-trace-with-index") else { return };
    for verb in [&["view"][..], &["view", "--format", "json"], &["babeltrace2"]] {
        let mut child = sillage(&[verb, &[&trace]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        // As `head -1`: one line, then the pipe is closed.
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::with_capacity(64, out).read_line(&mut line).expect("a line");
        let output = child.wait_with_output().expect("it ends");
        assert!(line.contains("sample_component:message"), "{line}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{verb:?}");
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
    }
}

#[test]
fn a_damaged_trace_gives_what_is_before_the_fault() {
    let Some(original) = trace("bt1-trace-with-index") else { return };
    let scratch = Scratch::new("damaged");
    let copy = scratch.copy(&original, "t");
    std::fs::remove_dir_all(format!("{copy}/index")).expect("indexes");
    let stream = format!("{copy}/ust_channel_0");
    let file = std::fs::OpenOptions::new().write(true).open(&stream).expect("a stream");
    file.set_len(file.metadata().expect("a size").len() - 100).expect("a shorter stream");
    let fault = format!(
        "{stream}: packet 4 at byte 16384: packet of 4096 bytes is larger than the 3996 bytes left in the \
         file (at bit 672 of the packet)\n"
    );
    let done = run(&["view", &copy]);
    assert_eq!((done.code, done.err.as_str()), (1, format!("error: {fault}").as_str()));
    // One packet of the twenty is not there; the other streams are shown to their ends.
    assert_eq!(done.out.lines().count(), 3888);
    let whole = ok(&["view", "--no-delta", &original]);
    let shown = run(&["view", "--no-delta", &copy]).out;
    let lines: std::collections::HashSet<&str> = whole.lines().collect();
    assert!(shown.lines().all(|line| lines.contains(line)));
    let to = scratch.path("to");
    let merged = run(&["merge", &copy, "-o", &to]);
    assert_eq!((merged.code, merged.err.as_str()), (1, format!("error: {fault}").as_str()));
    assert_eq!(reading::babeltrace2(&[&to]), done.out);
    let stats = run(&["stats", &copy]);
    assert!(stats.code == 1 && stats.out.contains("3888  events of 1 kinds"), "{}", stats.out);
    // The index of a whole file is made, that of a broken one is not.
    let index = run(&["index", &copy]);
    assert_eq!((index.code, index.err.as_str()), (1, format!("error: {fault}").as_str()));
    assert_eq!(index.out.lines().count(), 3, "{}", index.out);
    assert!(!Path::new(&format!("{copy}/index/ust_channel_0.idx")).exists());
    // Babeltrace's face says the same, once.
    let face = run(&["babeltrace2", &copy]);
    assert_eq!((face.code, face.err.as_str()), (1, format!("ERROR: {fault}").as_str()));
}

#[test]
fn half_a_trace_is_read_as_far_as_it_is_there() {
    let Some(original) = trace("bt1-trace-with-index") else { return };
    let scratch = Scratch::new("half");
    let copy = scratch.copy(&original, "t");
    std::fs::remove_dir_all(format!("{copy}/index")).expect("indexes");
    // A file without a byte is a stream without a packet, and hides no other.
    std::fs::write(format!("{copy}/ust_channel_0"), "").expect("an empty stream");
    let shown = ok(&["view", &copy]);
    assert_eq!(shown, reading::babeltrace2(&[&copy]));
    assert_eq!(shown.lines().count(), 3000);
    // Metadata alone are a trace without events.
    for stream in 0..4 {
        std::fs::remove_file(format!("{copy}/ust_channel_{stream}")).expect("a stream");
    }
    assert_eq!(ok(&["view", &copy]), "");
    // Streams alone are none.
    let copy = scratch.copy(&original, "s");
    std::fs::remove_file(format!("{copy}/metadata")).expect("metadata");
    let step = "Give a directory that holds a file `metadata`, or one above it.\n";
    fails(&["view", &copy], 1, &format!("error: {copy}: no trace found\n{step}"));
}

#[test]
fn bad_metadata_is_shown_with_its_line() {
    let Some(trace) = trace("bt1-fail-metadata-syntax-error") else { return };
    for verb in ["view", "stats", "index"] {
        let done = run(&[verb, &trace]);
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{verb}");
        assert!(done.err.starts_with(&format!("error: {trace}/metadata: ")), "{}", done.err);
        assert!(done.err.contains('^'), "{}", done.err);
    }
}

/// Makes a trace of one stream: its clock's attributes (none: no clock), a UUID of its packets if
/// they have a header, and events by time and number.
fn make(
    scratch: &Scratch,
    name: &str,
    clock: Option<&str>,
    uuid: Option<u8>,
    events: &[(u64, u8)],
) -> String {
    let directory = scratch.path(name);
    std::fs::create_dir(&directory).expect("a directory");
    let mut text = String::from("/* CTF 1.8 */\ntrace { major = 1; minor = 8; byte_order = le;");
    if uuid.is_some() {
        text += " uuid = \"01010101-0101-0101-0101-010101010101\"; packet.header := struct { \
                 integer { size = 8; } uuid[16]; };";
    }
    text += "};\n";
    let (map, field) = match clock {
        Some(attributes) => {
            text += &format!("clock {{ name = c; freq = 1000000000; {attributes} }};\n");
            ("map = clock.c.value;", "timestamp")
        }
        None => ("", "number"),
    };
    text += &format!(
        "stream {{ event.header := struct {{ integer {{ size = 64; {map} }} {field}; }}; }};\n\
         event {{ name = e; fields := struct {{ integer {{ size = 8; }} x; }}; }};\n"
    );
    std::fs::write(format!("{directory}/metadata"), text).expect("metadata");
    let mut data: Vec<u8> = uuid.map(|byte| vec![byte; 16]).unwrap_or_default();
    for (time, number) in events {
        data.extend(time.to_le_bytes());
        data.push(*number);
    }
    std::fs::write(format!("{directory}/stream"), data).expect("a stream");
    directory
}

const UUID_1: &str = "uuid = \"11111111-1111-1111-1111-111111111111\";";
const UUID_2: &str = "uuid = \"22222222-1111-1111-1111-111111111111\";";
const ABSOLUTE: &str = "absolute = true;";

#[test]
fn clocks_that_can_not_be_correlated_are_refused_as_babeltrace_refuses_them() {
    let scratch = Scratch::new("clocks");
    let clocks = [
        ("plain", Some(String::new())),
        ("one", Some(UUID_1.into())),
        ("two", Some(UUID_2.into())),
        ("absolute", Some(ABSOLUTE.into())),
        ("both", Some(format!("{ABSOLUTE} {UUID_1}"))),
    ];
    for (name, clock) in &clocks {
        make(&scratch, &format!("a-{name}"), clock.as_deref(), None, &[(10, 1), (30, 3)]);
        make(&scratch, &format!("b-{name}"), clock.as_deref(), None, &[(20, 2), (40, 4)]);
    }
    let mut table = String::new();
    for (first, _) in &clocks {
        for (other, _) in &clocks {
            let (a, b) = (scratch.path(&format!("a-{first}")), scratch.path(&format!("b-{other}")));
            let peer = reading::peer(&[&a, &b]);
            let face = run(&["babeltrace2", &a, &b]);
            assert_eq!((face.code, &face.out), (peer.code, &peer.out), "{first} {other}");
            let own = run(&["view", &a, &b]);
            assert_eq!((own.code, &own.out), (peer.code, &peer.out), "{first} {other}");
            table += if own.code == 0 { "x" } else { "." };
            if own.code == 1 {
                let wanted = format!("error: the clocks `c` of {a}/stream and `c` of {b}/stream can not");
                let reversed = format!("error: the clocks `c` of {b}/stream and `c` of {a}/stream can not");
                assert!(own.err.starts_with(&wanted) || own.err.starts_with(&reversed), "{}", own.err);
                assert!(own.err.ends_with("Give --clock-force-correlate to take them for one.\n"));
            }
            let forced = ok(&["view", "--no-delta", "--clock-force-correlate", &a, &b]);
            assert_eq!(
                forced.lines().map(|line| line.chars().rev().nth(2)).collect::<Option<String>>().as_deref(),
                Some("1234")
            );
        }
        table.push('\n');
    }
    assert_eq!(table, "x....\n.x...\n..x..\n...xx\n...xx\n");
    // Babeltrace refuses this too, but it can be read: what has no time comes when it is reached.
    let timeless = make(&scratch, "timeless", None, None, &[(20, 2), (40, 4)]);
    assert_eq!(ok(&["view", &timeless, &scratch.path("a-one")]).lines().count(), 4);
}

#[test]
fn what_is_odd_in_a_stream_is_told_once() {
    let scratch = Scratch::new("odd");
    let back = make(&scratch, "back", Some(ABSOLUTE), None, &[(50, 1), (40, 2), (30, 3), (60, 4), (55, 5)]);
    let done = run(&["view", "--no-delta", &back]);
    let wanted = format!(
        "warning: {back}/stream: packet 0: the clock goes back from 50 to 40 cycles; the events stay in \
         their order\n"
    );
    assert_eq!((done.code, done.err), (0, wanted));
    let times: Vec<&str> = done.out.lines().filter_map(|line| line.get(16..19)).collect();
    assert_eq!(times, ["050", "040", "030", "060", "055"], "{}", done.out);
    // A trace whose clock only goes on has nothing to tell.
    let on = make(&scratch, "on", Some(ABSOLUTE), None, &[(50, 1), (50, 2), (60, 3)]);
    ok(&["view", &on]);

    let foreign = make(&scratch, "foreign", Some(ABSOLUTE), Some(2), &[(50, 1), (60, 2)]);
    let done = run(&["view", &foreign]);
    let wanted = format!(
        "warning: {foreign}/stream: packet 0: its UUID is not that of the metadata, by which it is read \
         all the same\n"
    );
    assert_eq!((done.code, done.out.lines().count(), done.err), (0, 2, wanted));
    let own = make(&scratch, "own", Some(ABSOLUTE), Some(1), &[(50, 1), (60, 2)]);
    ok(&["view", &own]);
}

/// Converts a trace into a pipe that is only read after the time in which no bar is drawn, with a
/// terminal for both outputs or with none; gives what came there.
fn slowly_converted(trace: &str, with_terminal: bool) -> String {
    let scratch = Scratch::new(if with_terminal { "bar" } else { "no-bar" });
    let pipe = scratch.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let program = env!("CARGO_BIN_EXE_sillage");
    let line = format!("{program} convert {trace} --to json -o {pipe}");
    let mut command = if with_terminal { Command::new("script") } else { Command::new("sh") };
    if with_terminal {
        command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("TERM", "xterm");
    } else {
        command.args(["-c", &format!("{line} 2>&1")]);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut reader = std::fs::File::open(&pipe).expect("the program writes");
    std::thread::sleep(Duration::from_millis(1200));
    let mut converted = Vec::new();
    reader.read_to_end(&mut converted).expect("it is read");
    assert_eq!(converted.iter().filter(|byte| **byte == b'\n').count(), 240_644);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_bar_is_drawn_on_a_terminal_when_it_takes_long() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("SKIPPED: script is not installed");
        return;
    }
    let Some(trace) = trace("tc-many-threads") else { return };
    let drawn = slowly_converted(&trace, true);
    assert!(drawn.contains("s of about "), "{drawn}");
    // In the end it is taken away.
    assert!(drawn.trim_end().ends_with("\u{1b}[2K"), "{drawn}");
    assert_eq!(slowly_converted(&trace, false), "");
}
