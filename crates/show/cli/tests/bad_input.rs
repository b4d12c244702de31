//! What must not hurt: bad command lines, bad programs, bad disks, killed daemons.

mod support;

use rustix::process::Signal;
use sillage_protocol::codec::Writer;
use sillage_protocol::program::ProducerKind;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;
use support::{Home, PATIENCE, Program, Small, integer, kill, socket, tracepoint, wait_for};

fn values(text: &str) -> Vec<i32> {
    let ends = text.lines().map(|line| line.rsplit("i = ").next().unwrap().trim_end_matches(" }"));
    ends.map(|number| number.parse().unwrap()).collect()
}

fn session(home: &Home, output: &str, options: &str) {
    home.ok(&format!("create s -o {output}"));
    home.ok(&format!("enable-channel -u c {options}"));
    home.ok("enable-event -u p:* -c c");
    home.ok("start");
}

#[test]
fn no_daemon_is_an_error_with_lttngs_words_and_codes() {
    let home = Home::new("none");
    std::fs::write(home.dir.join(".lttngrc"), "session=s\n").unwrap();
    let none = "Error: No session daemon is available\n".to_string();
    assert_eq!(home.run("list"), (1, none.clone()));
    assert_eq!(home.run("start"), (19, none.clone()));
    assert_eq!(home.run("stop"), (19, none.clone()));
    assert_eq!(home.run("status"), (1, none.clone()));
    assert_eq!(home.run("--no-sessiond create x"), (1, none));
    let event = "Error: Event a:b: No session daemon is available (channel channel0, session s)\n";
    assert_eq!(home.run("enable-event -u a:b"), (19, event.into()));
}

#[test]
fn who_starts_a_daemon_in_the_same_moment_as_others_gets_theirs() {
    let home = Home::new("race");
    let start = |name: usize| {
        let mut command = home.command(env!("CARGO_BIN_EXE_sillage"));
        command.args(["create", &format!("s{name}")]).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..20).map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.as_str()), (Some(0), ""));
    }
    assert_eq!(home.ok("list").matches("Trace output").count(), 20);
    // One that nobody can reach any more is named.
    std::fs::remove_file(home.run_dir().join("control.sock")).unwrap();
    let (code, text) = home.run("create late");
    assert!(code == 1 && text.contains("already running, but does not answer at "), "{text}");
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let home = Home::new("unstartable");
    std::fs::write(home.run_dir(), "a file where the directory should be").unwrap();
    let (code, text) = home.run("create s");
    assert_eq!(code, 1);
    assert!(text.contains("Error: cannot start a session daemon: Error: run directory"), "{text}");
}

#[test]
fn a_reader_that_has_gone_and_a_full_disk_end_no_verb_in_a_panic() {
    let home = Home::new("output");
    home.ok("create s -o out");
    let run = |words: &[&str], out: Stdio, err: Stdio| {
        let mut command = home.command(env!("CARGO_BIN_EXE_sillage"));
        let child = command.args(words).stdout(out).stderr(err).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // A pipe whose reader has gone.
    let gone = || Stdio::from(std::io::pipe().unwrap().1);
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(run(&["list", "s"], gone(), Stdio::piped()), (Some(0), String::new()));
    assert_eq!(run(&["--help"], gone(), Stdio::piped()), (Some(0), String::new()));
    assert_eq!(run(&["list", "nosuch"], Stdio::piped(), gone()), (Some(1), String::new()));
    let (code, text) = run(&["list", "s"], full(), Stdio::piped());
    assert_eq!(code, Some(1), "what was asked for is not there");
    assert!(text.starts_with("Error: standard output: No space left"), "{text}");
    // Done is done, whoever hears of it.
    assert_eq!(run(&["destroy", "--all"], gone(), gone()).0, Some(0));
    assert!(home.ok("list").contains("Currently no available"));
}

#[test]
fn the_command_line_answers_as_lttngs() {
    let home = Home::new("words");
    home.ok("create s -o out");
    let cases = [
        ("create s", 1, "Error: Session name already exists\n"),
        ("create a/b", 1, "Error: Invalid character found in session name\n"),
        ("create auto-1", 1, "Error: auto is a reserved keyword for default session(s)\n"),
        ("create x y", 1, "Error: Unknown argument: y\n"),
        ("start", 72, "Error: No channel found in the session\n"),
        ("start nosuch", 23, "Error: Session name not found\n"),
        ("stop nosuch", 23, "Error: Session name not found\n"),
        ("destroy nosuch", 23, "Error: Session name nosuch not found\n"),
        ("list nosuch", 1, "Error: Session 'nosuch' not found\n"),
        ("set-session nosuch", 1, "Error: Session 'nosuch' not found\n"),
        ("enable-channel -u", 1, "Error: Missing channel name.\n"),
        ("enable-channel c", 1, "Error: Please specify a domain (--kernel/--userspace).\n"),
        ("enable-channel -u c --subbuf-size 0", 1, "Error: Wrong value in --subbuf-size parameter: 0\n"),
        ("enable-channel -u c --num-subbuf 0", 1, "Error: Wrong value in --num-subbuf parameter: 0\n"),
        ("enable-channel -u c --subbuf-size -5", 1, "Error: Wrong value in --subbuf-size parameter: -5\n"),
        ("enable-channel -u c --read-timer -1", 1, "Error: Wrong value for --read-timer parameter: -1\n"),
        ("enable-channel -u c --subbuf-size 12q", 1, "Error: Wrong value in --subbuf-size parameter: 12q\n"),
        ("enable-channel -u c --subbuf-size 1", 1, "Error: Channel c: Invalid parameter (session s)\n"),
        (
            "enable-channel -u c --switch-timer abc",
            1,
            "Error: Wrong value for --switch-timer parameter: abc\n",
        ),
        (
            "enable-channel -u c --tracefile-count 2",
            1,
            "Error: Missing option --tracefile-size. A file count without a size won't do anything.\n",
        ),
        (
            "enable-channel -u c --overwrite --blocking-timeout 100",
            1,
            "Error: You cannot specify --overwrite and --blocking-timeout=N, where N is different than 0\n",
        ),
        (
            "enable-channel -u .c",
            1,
            "Error: Invalid channel name: \".c\". Channel names may not start with '.', and may not contain '/'.\n",
        ),
        (
            "enable-channel -u c --bogus",
            2,
            "Error: Unrecognized argument used with 'enable-channel' command\n",
        ),
        (
            "enable-channel -u c --subbuf-size 5000 --num-subbuf 3",
            0,
            "ust channel c enabled for session s\n\
             Warning: The subbuf size (5000) is rounded to the next power of 2 (8192)\n\
             Warning: The number of subbuffers (3) is rounded to the next power of 2 (4)\n",
        ),
        ("enable-channel -u c", 4, "Warning: Channel c: UST channel already exist (session s)\n"),
        ("enable-channel -u x -s nosuch", 1, "Error: Channel x: Session name not found (session nosuch)\n"),
        ("disable-channel -u nosuch", 4, "Error: Channel nosuch: UST channel not found (session s)\n"),
        (
            "enable-event -u a:b",
            83,
            "Error: Event a:b: Non-default channel exists within session: channel name needs to be specified \
             with '-c name' (channel <default>, session s)\n",
        ),
        ("enable-event -u a:b -c c", 0, "ust event a:b created in channel c\n"),
        (
            "enable-event -u a:b -c c",
            55,
            "Error: Event a:b: UST event already enabled (channel c, session s)\n",
        ),
        (
            "enable-event -u a:* --exclude a:x,a:y* -c c",
            0,
            "ust event a:* excluding \"a:x\", \"a:y*\" created in channel c\n",
        ),
        (
            "enable-event -u a:b --exclude a:x -c c",
            1,
            "Error: Event a:b: Exclusions can only be used with a globbing pattern\n",
        ),
        ("enable-event -u a:b --loglevel BOGUS -c c", 97, "Error: Unknown loglevel BOGUS\n"),
        ("enable-event -u -c c", 1, "Error: Missing event name(s).\n"),
        (
            "disable-event -u no:no -c c",
            76,
            "Error: no:no of type any : UST event not found (channel c, session s)\n",
        ),
        (
            "disable-event -u a:b -c no",
            59,
            "Error: a:b of type any : UST channel not found (channel no, session s)\n",
        ),
        ("disable-event -u a:b -c c", 0, "ust a:b of type any disabled in channel c for session s\n"),
        ("start", 0, "Tracing started for session s\n"),
        ("start", 80, "Warning: Tracing already started for session s\n"),
        (
            "enable-channel -u late",
            1,
            "Error: Channel late: Tracing has already been started once (session s)\n",
        ),
        (
            "stop",
            0,
            "Waiting for data availability\nTracing stopped for session s\nChannel c: 0 B of events in 0 packets\n",
        ),
        ("stop", 81, "Warning: Tracing already stopped for session s\n"),
        ("view nosuch", 1, "Session name nosuch not found\n"),
        ("bogus", 2, "sillage: bogus is not a sillage command. See 'sillage --help'.\n"),
        ("destroy", 0, "Session s destroyed\n"),
        ("destroy --all", 0, "No session found, nothing to do.\n"),
        ("list", 0, "Currently no available recording session\n"),
    ];
    for (words, code, text) in cases {
        assert_eq!(home.run(words), (code, text.into()), "{words}");
    }
    let (code, text) = home.run("status");
    assert_eq!(code, 1);
    assert!(text.starts_with("Did you create a session? (lttng create <my_session>)\n"), "{text}");
}

#[test]
fn an_output_directory_that_cannot_be_made_fails_the_start_alone() {
    let home = Home::new("output");
    home.ok("create s -o /proc/no/such");
    home.ok("enable-event -u p:*");
    let (code, text) = home.run("start");
    assert_eq!(code, 17, "{text}");
    assert!(text.starts_with("Error: Create directory failed"), "{text}");
    assert!(home.ok("list").contains("1) s [inactive]"));
    std::fs::write(home.dir.join("file"), "").unwrap();
    home.ok("create t -o file");
    home.ok("enable-event -u p:*");
    assert_eq!(home.run("start").0, 17);
    home.ok("destroy --all");
}

#[test]
fn a_directory_that_goes_away_costs_packets_not_the_session() {
    let home = Home::new("vanish");
    session(&home, "out", "");
    let mut program = Program::connect(&home, ProducerKind::Locked);
    program.register(&[(1, tracepoint("p:a"))]);
    std::fs::remove_dir_all(home.dir.join("out")).unwrap();
    std::fs::write(home.dir.join("out"), "").unwrap();
    program.emit(1, 1);
    let text = home.ok("stop");
    assert!(text.contains("1 packets (10 B) could not be written"), "{text}");
    assert!(text.contains("not written: Not a directory"), "{text}");
}

#[test]
fn a_full_disk_leaves_a_readable_trace_and_a_session_that_goes_on() {
    for kind in [ProducerKind::Locked, ProducerKind::Rseq] {
        let home = Home::new("disk");
        let Some(small) = Small::mount(&home, "256k") else { return };
        session(&home, "small/out", "--subbuf-size 16k --num-subbuf 4");
        let mut program = Program::connect(&home, kind);
        program.register(&[(1, tracepoint("p:a"))]);
        let recorded =
            |text: &str| text.contains("could not be written") && text.contains("not written: No space");
        let mut value = 0;
        let mut emit = |program: &Program| {
            for _ in 0..1000 {
                assert_eq!(program.emit(1, value), 1);
                value += 1;
            }
        };
        wait_for("a full disk", || {
            emit(&program);
            recorded(&home.ok("list s"))
        });
        let read = values(&home.babeltrace(&home.dir.join("small")));
        assert!(read.len() > 5000, "{}", read.len());
        // Every packet before the disk was full is whole.
        assert!(read.windows(2).all(|pair| kind == ProducerKind::Rseq || pair[0] < pair[1]));
        // The next worker knows what was lost, and why; before anything was written by it.
        let lost = home.discarded("s");
        home.kill_worker();
        assert!(lost > 0 && home.discarded("s") >= lost, "{lost}, {}", home.discarded("s"));
        assert!(recorded(&home.ok("list s")), "{}", home.ok("list s"));
        program = program.reconnect(&home, kind);
        program.register(&[(1, tracepoint("p:a"))]);
        emit(&program);
        // There is room again, and it goes on.
        small.resize("4m");
        emit(&program);
        let text = home.ok("stop");
        assert!(recorded(&text), "{text}");
        let read = values(&home.babeltrace(&home.dir.join("small")));
        assert_eq!(read.iter().max(), Some(&(value - 1)));
        // To the record: what was published was read, or lost and shown.
        let lost = home.discarded("s");
        assert_eq!(read.len() as u64 + lost, value as u64, "{} read, {lost} lost", read.len());
        let shown: u64 = text
            .lines()
            .filter_map(|line| line.strip_prefix("Warning: Channel c: ")?.split_once(" records "))
            .map(|(count, _)| count.parse::<u64>().unwrap())
            .sum();
        assert_eq!(shown, lost, "{text}");
        home.ok("destroy");
        drop(small);
    }
}

#[test]
fn a_session_does_not_begin_where_a_trace_lies() {
    let home = Home::new("occupied");
    session(&home, "out", "");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    program.emit(1, 1);
    // Neither in the directory of a session that records, nor in that of one that did.
    let refused = |name: &str, why: &str| {
        home.ok(&format!("create {name} -o out"));
        home.ok(&format!("enable-event -u p:* -s {name}"));
        let (code, text) = home.run(&format!("start {name}"));
        assert!(code == 17 && text.contains(why), "{code} {text}");
        home.ok(&format!("destroy {name}"));
    };
    refused("beside", "session s records there");
    // A session may go on in its own.
    home.ok("stop s");
    home.ok("start s");
    wait_for("the start", || program.emit(1, 2) == 1);
    home.ok("destroy s");
    refused("behind", "a trace is there already");
    home.kill_daemon();
    refused("anew", "a trace is there already");
    assert_eq!(values(&home.babeltrace(&home.dir.join("out"))), [1, 2]);
}

#[test]
fn a_trace_that_is_removed_while_it_is_recorded_is_said_to_be() {
    let home = Home::new("removed");
    session(&home, "out", "--switch-timer 10000");
    let mut program = Program::connect(&home, ProducerKind::Locked);
    program.register(&[(1, tracepoint("p:a"))]);
    program.emit(1, 1);
    wait_for("a packet", || home.ok("list s").contains("in 1 packets"));
    std::fs::remove_dir_all(home.dir.join("out")).unwrap();
    program.emit(1, 2);
    let text = home.ok("stop");
    assert!(text.contains("its file was removed, what it held is gone"), "{text}");
    assert!(text.contains("in 1 packets (10 B) could not be written"), "{text}");
    assert!(text.contains("64-bit/metadata was removed"), "{text}");
    // The daemon and its other sessions go on.
    home.ok("destroy");
    session(&home, "again", "");
    wait_for("the start", || program.emit(1, 3) == 1);
    home.ok("destroy");
    assert_eq!(values(&home.babeltrace(&home.dir.join("again"))), [3]);
}

#[test]
fn metadata_that_find_no_room_hold_the_event_back_until_they_do() {
    let home = Home::new("metadata");
    let Some(small) = Small::mount(&home, "64k") else { return };
    session(&home, "small/out", "");
    let mut program = Program::connect(&home, ProducerKind::Locked);
    program.register(&[(1, tracepoint("p:a"))]);
    std::fs::write(home.dir.join("small/filler"), vec![0; 1 << 20]).unwrap_err();
    // Fields enough that the class needs a page that is not there.
    let mut large = tracepoint("p:large");
    large.fields.extend((0..200).map(|n| integer(&format!("field_{n}"))));
    program.register(&[(2, large)]);
    assert_eq!(program.emit(2, 0), 0, "not declared: nobody could read it");
    assert!(home.ok("list s").contains("metadata not written: No space"));
    std::fs::remove_file(home.dir.join("small/filler")).unwrap();
    wait_for("the metadata", || program.emit_bytes(2, &[0; 4 * 201]) == 1);
    home.ok("destroy");
    assert!(home.babeltrace(&home.dir.join("small")).contains("field_199 = 0"));
    drop(small);
}

#[test]
fn garbage_floods_and_half_dead_programs_are_thrown_out_and_counted() {
    let home = Home::new("garbage");
    session(&home, "out", "");
    let mut honest = Program::connect(&home, ProducerKind::Rseq);
    honest.register(&[(1, tracepoint("p:a"))]);
    // Bytes that are no frame.
    let mut stream = socket(&home);
    stream.write_all(&[0xff; 64]).unwrap();
    let mut rest = Vec::new();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_end(&mut rest).unwrap();
    // A frame that is no message, and a message before hello.
    for frame in
        [Writer::frame(99, 0).finish(), sillage_protocol::program::ToDaemon::Synced { sequence: 1 }.encode()]
    {
        let mut stream = socket(&home);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&frame).unwrap();
        stream.read_to_end(&mut rest).unwrap();
    }
    // Two fields of one name would make the trace unreadable.
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    let mut twice = tracepoint("p:b");
    twice.fields.push(integer("i"));
    program.register(&[(1, twice)]);
    assert_eq!(program.refused(), "p:b: field i twice");
    // One number twice.
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:b"))]);
    program.register(&[(1, tracepoint("p:c"))]);
    assert_eq!(program.refused(), "registered number 1 twice");
    // More tracepoints than anybody needs.
    let mut flood = Program::connect(&home, ProducerKind::Rseq);
    for batch in 0..129 {
        let many: Vec<_> = (0..512).map(|n| (batch * 512 + n, tracepoint("q:flood"))).collect();
        flood.register(&many);
    }
    assert_eq!(flood.refused(), "registers too many tracepoints");
    // Half a frame, and silence.
    let mut half = socket(&home);
    half.write_all(&[9, 0, 0]).unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    half.read_to_end(&mut rest).unwrap();
    // The honest one never noticed.
    honest.emit(1, 42);
    home.ok("destroy");
    assert_eq!(values(&home.babeltrace(&home.dir.join("out"))), [42]);
}

#[test]
fn names_that_programs_make_up_cannot_break_the_trace() {
    let home = Home::new("names");
    session(&home, "out", "");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    let mut odd = tracepoint("p:\"; } é\\");
    odd.fields = vec![integer("a b\"}")];
    odd.emf_uri = Some("\"\n};".into());
    program.register(&[(1, odd), (2, tracepoint("p:a"))]);
    program.emit(1, 1);
    program.emit(2, 2);
    home.ok("destroy");
    assert_eq!(home.babeltrace(&home.dir.join("out")).lines().count(), 2);
}

#[test]
fn a_program_that_dies_half_way_leaves_what_it_recorded() {
    let home = Home::new("dies");
    session(&home, "out", "");
    for kind in [ProducerKind::Locked, ProducerKind::Rseq] {
        let mut program = Program::connect(&home, kind);
        program.register(&[(1, tracepoint("p:a"))]);
        program.emit(1, 5);
        drop(program);
    }
    wait_for("the program to be forgotten", || home.ok("list -u").contains("None"));
    home.ok("destroy");
    assert_eq!(values(&home.babeltrace(&home.dir.join("out"))), [5, 5]);
}

#[test]
fn a_program_that_does_not_confirm_is_named_after_a_second() {
    let home = Home::new("deaf");
    home.ok("create s -o out");
    home.ok("enable-event -u p:*");
    home.ok("start");
    let mut program = Program::connect_deaf(&home);
    program.register(&[(1, tracepoint("p:a"))]);
    program.emit(1, 1);
    let text = home.ok("stop");
    let name = format!("Warning: fake ({}) did not confirm that it stopped", std::process::id());
    assert!(text.contains(&name), "{text}");
    assert_eq!(values(&home.babeltrace(&home.dir.join("out"))), [1]);
}

#[test]
fn a_ring_that_lies_is_retired_and_shown() {
    let home = Home::new("liar");
    session(&home, "out", "--switch-timer 10000");
    let mut program = Program::connect(&home, ProducerKind::Locked);
    program.register(&[(1, tracepoint("p:a"))]);
    program.emit(1, 1);
    wait_for("a packet", || home.ok("list s").contains("in 1 packets"));
    program.producer().scribble(4096, u64::MAX / 2);
    wait_for("the retirement", || home.ok("list s").contains(" retired: "));
    assert_eq!(values(&home.babeltrace(&home.dir.join("out"))), [1]);
}

#[test]
fn a_second_daemon_for_one_directory_refuses() {
    let home = Home::new("second");
    home.ok("create s -o out");
    let (code, text) = home.run("daemon");
    assert_eq!((code, text.as_str()), (3, "Error: a session daemon is already running\n"));
    assert!(home.ok("list").contains("1) s"));
}

#[test]
fn a_killed_worker_loses_no_published_record() {
    for kind in [ProducerKind::Rseq, ProducerKind::Locked] {
        let home = Home::new("killed");
        session(&home, "out", "--subbuf-size 4k --num-subbuf 64");
        let mut program = Program::connect(&home, kind);
        program.register(&[(1, tracepoint("p:a"))]);
        let mut value = 0;
        for round in 0..5 {
            for _ in 0..3000 {
                assert_eq!(program.emit(1, value), 1);
                value += 1;
            }
            let old = home.pid("worker.pid");
            kill(old, Signal::KILL);
            // Nobody but the rings takes these.
            for _ in 0..100 {
                assert_eq!(program.emit(1, value), 1);
                value += 1;
            }
            wait_for("a new worker", || home.pid("worker.pid") != old && home.run("list").0 == 0);
            program = program.reconnect(&home, kind);
            program.register(&[(1, tracepoint("p:a"))]);
            assert_eq!(program.sets(), 1, "handed the same ring");
            let list = home.ok("list s");
            assert!(list.contains("s: [active]") && !list.contains("Lost:"), "round {round}: {list}");
            if round < 4 {
                // The keeper gives up on a worker that dies all the time.
                std::thread::sleep(Duration::from_millis(2600));
            }
        }
        let text = home.ok("destroy");
        assert!(!text.contains("Warning"), "{text}");
        let mut read = values(&home.babeltrace(&home.dir.join("out")));
        read.sort_unstable();
        assert_eq!(read, (0..value).collect::<Vec<_>>());
    }
}

#[test]
fn a_killed_keeper_is_replaced_and_the_next_crash_loses_nothing_either() {
    for kind in [ProducerKind::Rseq, ProducerKind::Locked] {
        let home = Home::new("keeper");
        session(&home, "out", "--subbuf-size 4k --num-subbuf 64");
        let mut program = Program::connect(&home, kind);
        program.register(&[(1, tracepoint("p:a"))]);
        let mut value = 0;
        let emit = |program: &Program, value: &mut i32| {
            for _ in 0..1000 {
                assert_eq!(program.emit(1, *value), 1);
                *value += 1;
            }
        };
        for _ in 0..2 {
            emit(&program, &mut value);
            // Programs and sessions do not notice.
            home.kill_keeper();
            emit(&program, &mut value);
            assert!(home.ok("list").contains("1) s [active]"));
            // The new keeper has what the old one had.
            home.kill_worker();
            emit(&program, &mut value);
            program = program.reconnect(&home, kind);
            program.register(&[(1, tracepoint("p:a"))]);
            assert_eq!(program.sets(), 1, "handed the same ring");
            emit(&program, &mut value);
        }
        assert_eq!(home.run("daemon"), (3, "Error: a session daemon is already running\n".into()));
        let text = home.ok("destroy");
        assert!(!text.contains("Warning"), "{text}");
        let mut read = values(&home.babeltrace(&home.dir.join("out")));
        read.sort_unstable();
        assert_eq!(read, (0..value).collect::<Vec<_>>());
        // The new keeper ends the daemon as the first one would.
        let (keeper, worker) = (home.pid("sillage.pid"), home.pid("worker.pid"));
        kill(keeper, Signal::TERM);
        let gone = |pid: i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.is_empty() || status.contains("State:\tZ")
        };
        wait_for("the end of both", || gone(keeper) && gone(worker));
        assert!(!home.run_dir().join("sillage.pid").exists());
    }
}

#[test]
fn a_worker_without_keeper_that_is_killed_at_once_leaves_its_heir_the_rings() {
    let home = Home::new("both-in-turn");
    session(&home, "out", "");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    (0..100).for_each(|value| assert_eq!(program.emit(1, value), 1));
    // The worker has started the new keeper and may or may not have handed everything over.
    let (keeper, worker) = (home.pid("sillage.pid"), home.pid("worker.pid"));
    kill(keeper, Signal::KILL);
    wait_for("the new keeper's process", || !children(worker).is_empty());
    kill(worker, Signal::KILL);
    wait_for("a new worker", || home.pid("worker.pid") != worker && home.run("list").0 == 0);
    if home.ok("list").contains("1) s [active]") {
        home.ok("destroy s");
        assert_eq!(values(&home.babeltrace(&home.dir.join("out"))).len(), 100);
    }
    // Whatever came of it, the daemon serves.
    session(&home, "again", "");
    home.ok("destroy");
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn a_trace_whose_daemon_was_killed_is_readable_at_once_and_repaired_by_the_next_daemon() {
    let home = Home::new("torn");
    session(&home, "out", "--subbuf-size 4k --num-subbuf 64");
    let mut program = Program::connect(&home, ProducerKind::Locked);
    program.register(&[(1, tracepoint("p:a"))]);
    (0..3000).for_each(|value| assert_eq!(program.emit(1, value), 1));
    // A second event, whose metadata are there.
    program.register(&[(2, tracepoint("p:b"))]);
    wait_for("packets", || !home.ok("list s").contains("in 0 packets"));
    home.kill_daemon();
    // As if the kill had hit it while it wrote: half a packet, half an index entry, half a block.
    let dir = home.dir.join(format!("out/ust/uid/{}/64-bit", rustix::process::getuid().as_raw()));
    let append = |path: std::path::PathBuf, bytes: &[u8]| {
        std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
    };
    let index = std::fs::read_dir(dir.join("index")).unwrap().next().unwrap().unwrap().path();
    let data = dir.join(index.file_stem().unwrap());
    let whole = std::fs::metadata(&data).unwrap().len();
    let mut torn = vec![0; 1000];
    std::fs::File::open(&data).unwrap().read_exact(&mut torn).unwrap();
    append(data.clone(), &torn);
    append(index, &[0; 30]);
    assert_eq!(home.run("list"), (1, "Error: No session daemon is available\n".into()));
    assert_eq!(home.run("stop"), (19, "Error: No session daemon is available\n".into()));
    // Our reader shows what is whole, at once, and says that something is wrong.
    let own = home.output("view -t out");
    let own = String::from_utf8(own.stdout).unwrap();
    let read = values(&own);
    assert!(read.len() > 1000 && read == (0..read.len() as i32).collect::<Vec<_>>(), "{}", read.len());
    // Also with metadata whose last block is torn.
    append(dir.join("metadata"), b"event {\n\tname = \"p:c");
    let own = home.output("view -t out");
    assert_eq!(values(&String::from_utf8(own.stdout).unwrap()), read);
    let complaints = String::from_utf8(own.stderr).unwrap();
    let named = |line: &str| line.contains("torn declaration") && line.contains("64-bit/metadata)");
    assert!(complaints.lines().any(named), "{complaints}");
    // The next daemon makes it whole for everybody.
    home.ok("create t -o new");
    assert_eq!(std::fs::metadata(&data).unwrap().len(), whole);
    assert_eq!(values(&home.babeltrace(&home.dir.join("out"))), read);
    assert_eq!(home.run("start s"), (23, "Error: Session name not found\n".into()));
    home.ok("destroy");
    assert!(!home.run_dir().join("unfinished").exists());
}

#[test]
fn programs_outlive_both_halves_of_the_daemon_and_meet_the_next() {
    let home = Home::new("both");
    session(&home, "out", "");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    home.kill_daemon();
    program.emit(1, 1);
    session(&home, "again", "");
    let mut program = program.reconnect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    program.emit(1, 2);
    home.ok("destroy");
    assert_eq!(values(&home.babeltrace(&home.dir.join("again"))), [2]);
}

#[test]
fn repair_makes_a_trace_whole_and_touches_none_that_is_recorded() {
    let home = Home::new("repair");
    session(&home, "out", "--subbuf-size 4k --num-subbuf 64");
    let mut program = Program::connect(&home, ProducerKind::Locked);
    program.register(&[(1, tracepoint("p:a"))]);
    (0..3000).for_each(|value| assert_eq!(program.emit(1, value), 1));
    wait_for("packets", || !home.ok("list s").contains("in 0 packets"));
    let dir = home.dir.join(format!("out/ust/uid/{}/64-bit", rustix::process::getuid().as_raw()));
    let (code, text) = home.run("repair out");
    assert!(
        code == 1 && text.contains("64-bit: not touched, process ") && text.contains(" writes it"),
        "{text}"
    );
    home.kill_daemon();
    // As after a power cut: half a packet, an index that is gone, and half a block of metadata.
    let index = std::fs::read_dir(dir.join("index")).unwrap().next().unwrap().unwrap().path();
    let data = dir.join(index.file_stem().unwrap());
    let whole = std::fs::read(&data).unwrap();
    std::fs::write(&data, [&whole[..], &whole[..1000]].concat()).unwrap();
    std::fs::write(&index, []).unwrap();
    let metadata = std::fs::read(dir.join("metadata")).unwrap();
    std::fs::write(dir.join("metadata"), [&metadata[..], b"event {\n\tname = \"p"].concat()).unwrap();
    let text = home.ok("repair out");
    for said in [
        "/metadata: 19 B cut off behind the last whole part, ",
        ": 1.0 kB cut off behind the last whole part, ",
        ".idx: made again from the packets, ",
        "64-bit: 1 streams, 3 files repaired\n",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(std::fs::read(&data).unwrap() == whole);
    let repaired = std::fs::read(dir.join("metadata")).unwrap();
    assert!(repaired.trim_ascii_end() == metadata.trim_ascii_end(), "but for empty lines");
    let read = values(&home.babeltrace(&home.dir.join("out")));
    assert!(read.len() > 1000 && read == (0..read.len() as i32).collect::<Vec<_>>(), "{}", read.len());
    // Again, from the trace's own directory: nothing to do, no daemon started for it.
    let text = home.ok(&format!("repair {}", dir.display()));
    assert!(text.ends_with(": 1 streams, whole, nothing to repair\n"), "{text}");
    assert_eq!(home.ok("-q repair out"), "");
    assert_eq!(home.run("list").0, 1, "no daemon");
    let (code, text) = home.run("repair nothing");
    assert!(code == 1 && text.contains("nothing: No such file"), "{code} {text}");
    std::fs::create_dir(home.dir.join("empty")).unwrap();
    let (code, text) = home.run("repair empty");
    assert!(code == 1 && text.contains("empty: no trace there"), "{code} {text}");
    assert_eq!(home.run("repair").0, 2);
}

#[test]
fn a_daemon_that_is_killed_during_stop_leaves_a_stopped_session_with_all_its_data() {
    let home = Home::new("stop-killed");
    session(&home, "out", "");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    program.emit(1, 1);
    // It never confirms, so that the stop takes a second.
    let mut deaf = Program::connect_deaf(&home);
    deaf.register(&[(1, tracepoint("p:a"))]);
    deaf.emit(1, 2);
    let mut stop = home.command(env!("CARGO_BIN_EXE_sillage"));
    let mut stop = stop.arg("stop").stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the stop", || home.ok("list").contains("1) s [inactive]"));
    home.kill_worker();
    assert!(!stop.wait().unwrap().success());
    let mut text = String::new();
    stop.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("connection to the session daemon"), "{text}");
    assert!(home.ok("list").contains("1) s [inactive]"));
    // Written out by the next worker, without being told again.
    wait_for("the data", || home.ok("list s").contains("20 B in"));
    let mut read = values(&home.babeltrace(&home.dir.join("out")));
    read.sort_unstable();
    assert_eq!(read, [1, 2]);
    assert_eq!(home.run("stop").0, 81);
    home.ok("destroy");
}

#[test]
fn a_command_of_another_version_is_told_which_daemon_runs() {
    use sillage_protocol::control::{Reply, Request, VERSION};
    let home = Home::new("version");
    home.ok("create s -o out");
    let mut frame = Request::Ping.encode();
    let at = sillage_protocol::codec::FRAME_HEADER_BYTES;
    frame[at..at + 2].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let mut stream = std::os::unix::net::UnixStream::connect(home.run_dir().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&frame).unwrap();
    let mut header = [0; sillage_protocol::codec::FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let header = sillage_protocol::codec::FrameHeader::decode(&header).unwrap();
    let mut body = vec![0; header.body_bytes];
    stream.read_exact(&mut body).unwrap();
    let Ok(Reply::Failed(failure)) = Reply::decode(header.kind, &body) else { panic!("{body:?}") };
    let (ours, theirs) = (format!("version {VERSION} of"), format!("has version {}:", VERSION + 1));
    assert!(failure.detail.contains(&ours) && failure.detail.contains(&theirs), "{}", failure.detail);
    assert!(failure.detail.contains(&format!("'kill {}'", home.pid("worker.pid"))), "{}", failure.detail);
    assert!(home.ok("list").contains("1) s"));
}

#[test]
fn a_daemon_without_address_space_says_so_and_serves_what_fits() {
    let home = Home::new("no-space");
    let sillage = env!("CARGO_BIN_EXE_sillage");
    let run_dir = home.run_dir();
    let start =
        format!("ulimit -v 600000; exec {sillage} daemon --daemonize --run-dir {}", run_dir.display());
    assert!(home.command("sh").args(["-c", &start]).status().unwrap().success());
    session(&home, "out", "--subbuf-size 64M --num-subbuf 16");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    assert_eq!(program.emit(1, 1), 0, "no ring");
    let list = home.ok("list s");
    assert!(list.contains("shared memory (mmap): Cannot allocate memory"), "{list}");
    home.ok("create small -o small");
    home.ok("enable-channel -u c -s small --subbuf-size 16k --num-subbuf 4");
    home.ok("enable-event -u p:* -c c -s small");
    home.ok("start small");
    wait_for("the start", || program.emit(1, 2) == 1);
    home.ok("destroy --all");
    assert_eq!(values(&home.babeltrace(&home.dir.join("small"))), [2]);
}

#[test]
fn ten_thousand_programs_one_after_another_leave_nothing_behind() {
    let home = Home::new("many");
    session(&home, "out", "");
    let worker = home.pid("worker.pid");
    let resident_kb = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let files = || std::fs::read_dir(format!("/proc/{worker}/fd")).unwrap().count();
    let run = |numbers: std::ops::Range<i32>| {
        for number in numbers {
            let mut program = Program::connect(&home, ProducerKind::Rseq);
            program.register(&[(1, tracepoint("p:a"))]);
            assert_eq!(program.emit(1, number), 1);
        }
        wait_for("the programs to be forgotten", || home.ok("list -u").contains("None"));
    };
    run(0..500);
    let before = (resident_kb(), files());
    run(500..10_000);
    let after = (resident_kb(), files());
    assert!(after.1 <= before.1, "descriptors: {before:?}, then {after:?}");
    assert!(after.0 < before.0 + 4096, "memory: {before:?}, then {after:?} kB");
    home.ok("destroy");
    let mut read = values(&home.babeltrace(&home.dir.join("out")));
    read.sort_unstable();
    assert_eq!(read, (0..10_000).collect::<Vec<_>>());
}
