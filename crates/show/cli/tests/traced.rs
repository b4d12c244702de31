//! Real C programs on our library, under the real daemon: what `record` takes, what outlives what.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Home, Obedient, Small, Traced, kill, wait_for};

/// The numbers of the ticks that Babeltrace reads under `dir`, in order.
fn ticks(home: &Home, dir: &str) -> Vec<i32> {
    let text = home.babeltrace(&home.dir.join(dir));
    let lines = text.lines().filter(|line| line.contains(" scenario:tick: "));
    let mut all: Vec<i32> = lines
        .map(|line| line.rsplit("n = ").next().unwrap().trim_end_matches(" }").parse().unwrap())
        .collect();
    all.sort_unstable();
    all
}

/// Of all files below a directory that may not be there yet.
fn size_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_bytes(&entry.path()),
        data => data.map_or(0, |data| data.len()),
    };
    entries.map(size).sum()
}

fn session(home: &Home, name: &str, options: &str) {
    home.ok(&format!("create {name} -o {name}"));
    home.ok(&format!("enable-channel -u c {options}"));
    home.ok("enable-event -u scenario:* -c c");
    home.ok("start");
}

#[test]
fn record_takes_its_command_with_all_that_it_starts_and_nothing_else() {
    let home = Home::new("alone");
    let Some(traced) = Traced::compile(&home) else { return };
    home.ok("create other -o other"); // a daemon, before all programs
    let mut bystander = Obedient::start(&mut traced.command(&home));
    // Two at a time, and children that leave the process tree.
    let program = traced.program.display();
    let first = format!(
        "{program} ticks 100; ({program} <tell >told & ); while ! test -s told; do sleep 0.01; done; touch first"
    );
    let fifo = home.dir.join("tell");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut first =
        traced.record(&home, "-o first -- setsid sh -c").arg(first).stderr(Stdio::null()).spawn().unwrap();
    let mut second =
        Obedient::start(traced.record(&home, "-o second --").arg(&traced.program).stderr(Stdio::null()));
    bystander.tell("tick 10 1000");
    second.tell("tick 10 2000");
    std::fs::write(&fifo, "tick 10 3000\n").unwrap();
    // A worker that was killed knows whose session it was.
    home.kill_worker();
    bystander.tell("tick 10 4000");
    second.tell("tick 10 5000");
    assert!(first.wait().unwrap().success());
    second.end();
    bystander.end();
    assert_eq!(ticks(&home, "first"), (0..100).chain(3000..3010).collect::<Vec<_>>());
    assert_eq!(ticks(&home, "second"), (2000..2010).chain(5000..5010).collect::<Vec<_>>());
}

#[test]
fn the_live_line_is_drawn_on_terminals_alone() {
    let home = Home::new("live");
    let Some(traced) = Traced::compile(&home) else { return };
    let sillage = env!("CARGO_BIN_EXE_sillage");
    let script = format!("{} ticks 5000; sleep 1.3", traced.program.display());
    let on_terminal = |redirection: &str, out: &str| {
        let line = format!("{sillage} record -o {out} -- sh -c '{script}' {redirection}");
        let mut command = home.command("script");
        command.env("SILLAGE_LIBDIR", &traced.libraries).args(["-qec", &line, "/dev/null"]);
        let output = command.stdin(Stdio::null()).output().expect("util-linux's script");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let seen = on_terminal("", "one");
    let lines: Vec<&str> = seen.split("\r\u{1b}[K").collect();
    let live =
        |line: &&&str| line.contains(" events, ") && line.contains(" B in ") || line.contains(" kB in ");
    assert!(lines.iter().filter(live).count() >= 2, "{seen:?}");
    assert!(lines[1].starts_with("about ") && lines[1].ends_with(" lost"), "{seen:?}");
    let shown = lines.iter().any(|line| line.starts_with("about 5000 events, "));
    assert!(shown, "what is in the rings counts as well: {seen:?}");
    assert!(lines.last().unwrap().starts_with("Recorded 5000 events, "), "{seen:?}");
    on_terminal("2>complaints", "two");
    let complaints = std::fs::read_to_string(home.dir.join("complaints")).unwrap();
    assert!(
        !complaints.contains('\u{1b}') && complaints.starts_with("Recorded 5000 events, "),
        "{complaints:?}"
    );
}

#[test]
fn record_on_a_disk_that_is_full_says_exactly_what_it_lost() {
    let home = Home::new("record-disk");
    let Some(traced) = Traced::compile(&home) else { return };
    let Some(small) = Small::mount(&home, "256k") else { return };
    let mut command = traced.record(&home, "--subbuf-size 16k --num-subbuf 128 -o small/out --");
    let output = command.arg(&traced.program).args(["ticks", "100000"]).output().unwrap();
    // The command itself never notices.
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let number = |before: &str, after: &str| -> u64 {
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before} in {text}"));
        rest.split_once(after)
            .unwrap_or_else(|| panic!("{after} in {text}"))
            .0
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let (recorded, lost) = (number("Recorded ", " events, "), number(" packets, ", " lost, "));
    assert_eq!(recorded + lost, 100_000, "{text}");
    assert!(recorded > 1000 && text.contains(" could not be written\n"), "{text}");
    assert!(text.contains("not written: No space left on device"), "{text}");
    assert_eq!(ticks(&home, "small/out").len() as u64, recorded);
    drop(small);
}

#[test]
fn record_says_what_became_of_its_trace_when_the_daemon_is_killed_whole() {
    let home = Home::new("lost");
    let Some(traced) = Traced::compile(&home) else { return };
    let mut command = traced.record(&home, "--subbuf-size 4k --num-subbuf 64 -o out --");
    let complaints = home.dir.join("complaints");
    command.arg(&traced.program).stderr(std::fs::File::create(&complaints).unwrap());
    let mut program = Obedient::start(&mut command);
    program.tell("tick 5000 0");
    // Far more than a thousand ticks.
    wait_for("packets", || size_bytes(&home.dir.join("out")) > 40 << 10);
    home.kill_daemon();
    program.tell("tick 10 5000");
    program.end(); // the command's own exit code, which is 0
    let text = std::fs::read_to_string(complaints).unwrap();
    assert!(
        text.contains("Error: the session was lost with its daemon: No session daemon is available"),
        "{text}"
    );
    assert!(text.contains("What was written before is in "), "{text}");
    home.ok("create next -o next");
    let read = ticks(&home, "out");
    assert!(read.len() > 1000 && read == (0..read.len() as i32).collect::<Vec<_>>(), "{}", read.len());
}

#[test]
fn the_session_of_a_killed_record_ends_with_its_command() {
    let home = Home::new("killed-record");
    let Some(traced) = Traced::compile(&home) else { return };
    let mut command = traced.record(&home, "-o out --");
    let mut program = Obedient::start(command.arg(&traced.program));
    program.tell("tick 10 0");
    home.kill_worker(); // the next one knows whose session it is
    program.tell("tick 10 10");
    kill(program.pid(), rustix::process::Signal::KILL);
    // The command goes on, and is recorded to its end.
    program.tell("tick 10 20");
    assert!(home.ok("list").contains("auto-"));
    program.wait();
    wait_for("the end of the session", || !home.ok("list").contains("auto-"));
    assert_eq!(ticks(&home, "out"), (0..30).collect::<Vec<_>>());
    // Of a command that has nothing to record, the session ends at once.
    let mut command = traced.record(&home, "-o nothing -- sleep 20");
    let mut record = command.spawn().unwrap();
    wait_for("the session", || home.ok("list").contains("auto-"));
    record.kill().unwrap();
    record.wait().unwrap();
    wait_for("the end of the session", || !home.ok("list").contains("auto-"));
}

#[test]
fn a_program_outlives_its_daemon_and_is_recorded_by_the_next() {
    let home = Home::new("outlives");
    let Some(traced) = Traced::compile(&home) else { return };
    for kind in ["rseq", "locked"] {
        let (before, after) = (format!("before-{kind}"), format!("after-{kind}"));
        session(&home, &before, "");
        let mut program = Obedient::start(traced.command(&home).env("SILLAGE_PRODUCER", kind));
        program.tell("tick 10 0");
        home.kill_daemon();
        program.tell("tick 10 10"); // into rings that nobody reads any more
        session(&home, &after, "");
        wait_for("the program", || home.ok("list -u").contains("scenario:tick"));
        home.ok("enable-event -u -c c other:*"); // answers when the program has confirmed what it was told
        program.tell("tick 10 20");
        // Killed in turn, nothing is lost.
        home.kill_worker();
        program.tell("tick 10 30");
        home.kill_keeper();
        program.tell("tick 10 40");
        home.kill_worker();
        program.tell("tick 10 50");
        program.end();
        let text = home.ok("destroy");
        assert!(!text.contains("Warning"), "{text}");
        assert_eq!(ticks(&home, &after), (20..60).collect::<Vec<_>>(), "{kind}");
    }
}

#[test]
fn a_stopped_program_is_named_by_stop_after_about_a_second() {
    let home = Home::new("sigstop");
    let Some(traced) = Traced::compile(&home) else { return };
    session(&home, "out", "");
    let mut program = Obedient::start(&mut traced.command(&home));
    program.tell("tick 10 0");
    kill(program.pid(), rustix::process::Signal::STOP);
    let start = Instant::now();
    let text = home.ok("stop");
    let took = start.elapsed();
    let name = format!("Warning: scenario ({}) did not confirm that it stopped", program.pid());
    assert!(text.contains(&name), "{text}");
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(ticks(&home, "out"), (0..10).collect::<Vec<_>>());
    kill(program.pid(), rustix::process::Signal::CONT);
    program.tell("tick 10 10");
    program.end();
    home.ok("destroy");
}

#[test]
fn a_program_that_cannot_map_its_rings_is_named() {
    let home = Home::new("nospace");
    let Some(traced) = Traced::compile(&home) else { return };
    session(&home, "out", "--subbuf-size 64M --num-subbuf 16");
    let mut limited = home.command("sh");
    limited.env("LD_LIBRARY_PATH", &traced.libraries);
    limited.args(["-c", "ulimit -v 65536; exec ./scenario"]);
    let mut program = Obedient::start(&mut limited);
    program.tell("tick 10 0");
    let why = "no address space for its rings, all its events are lost";
    wait_for("the program's word", || {
        home.ok("list -u").contains(&format!("Not recorded: channel c: {why}"))
    });
    let text = home.ok("stop");
    assert!(text.contains(&format!("scenario ({}) records nothing: {why}", program.pid())), "{text}");
    assert!(text.contains("10 records discarded (no staging memory)"), "{text}");
    program.end();
    home.ok("destroy");
}

#[test]
fn a_program_that_is_killed_leaves_everything_that_it_published() {
    let home = Home::new("shot");
    let Some(traced) = Traced::compile(&home) else { return };
    session(&home, "out", "");
    for (round, kind) in ["rseq", "locked"].into_iter().enumerate() {
        let mut program = Obedient::start(traced.command(&home).env("SILLAGE_PRODUCER", kind));
        program.tell(&format!("tick 100 {}", round * 100));
        let pid = program.pid();
        kill(pid, rustix::process::Signal::KILL);
        assert_eq!(program.wait().signal(), Some(9));
    }
    home.ok("destroy");
    assert_eq!(ticks(&home, "out"), (0..200).collect::<Vec<_>>());
}
