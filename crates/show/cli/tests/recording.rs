//! From the command line to a trace that Babeltrace reads, with a fake program.

mod support;

use sillage_protocol::program::ProducerKind;
use support::{Home, Program, tracepoint, wait_for};

/// The integers that Babeltrace shows for events of this name.
fn values(text: &str, name: &str) -> Vec<i32> {
    let lines = text.lines().filter(|line| line.contains(&format!(" {name}: ")));
    lines.map(|line| line.rsplit("i = ").next().unwrap().trim_end_matches(" }").parse().unwrap()).collect()
}

fn session(home: &Home, options: &str) -> std::path::PathBuf {
    home.ok("create s -o out");
    home.ok(&format!("enable-channel -u c {options}"));
    home.ok("enable-event -u p:* -c c");
    home.ok("start");
    home.dir.join("out")
}

#[test]
fn what_a_program_records_can_be_read() {
    for kind in [ProducerKind::Rseq, ProducerKind::Locked] {
        let home = Home::new("record");
        let out = session(&home, "");
        let mut program = Program::connect(&home, kind);
        program.register(&[(1, tracepoint("p:a")), (2, tracepoint("q:b")), (3, tracepoint("p:c"))]);
        for value in 0..1000 {
            assert_eq!(program.emit(1, value), 1);
            assert_eq!(program.emit(2, value), 0, "no rule wants it");
        }
        assert!(home.ok("list -u").contains("q:b (loglevel: TRACE_DEBUG_LINE (13)) (type: tracepoint)"));
        let text = home.ok("stop");
        assert!(text.contains("Tracing stopped for session s\nChannel c: "), "{text}");
        assert_eq!(program.emit(1, 0), 0, "stopped");
        let read = home.babeltrace(&out);
        assert_eq!(values(&read, "p:a"), (0..1000).collect::<Vec<_>>());
        // Started again, with another event.
        home.ok("start");
        wait_for("the start", || program.emit(3, 7) == 1);
        home.ok("destroy");
        assert_eq!(values(&home.babeltrace(&out), "p:c"), [7]);
    }
}

#[test]
fn rules_apply_to_programs_that_run_already() {
    let home = Home::new("rules");
    home.ok("create s -o out");
    home.ok("enable-channel -u c");
    home.ok("start");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    assert_eq!(program.emit(1, 0), 0);
    home.ok("enable-event -u p:a -c c");
    assert_eq!(program.emit(1, 1), 1);
    home.ok("disable-event -u p:a -c c");
    assert_eq!(program.emit(1, 2), 0);
    home.ok("enable-event -u p:a -c c");
    home.ok("disable-channel -u c");
    assert_eq!(program.emit(1, 3), 0);
    home.ok("enable-channel -u c");
    assert_eq!(program.emit(1, 4), 1);
    home.ok("destroy");
    assert_eq!(values(&home.babeltrace(&home.dir.join("out")), "p:a"), [1, 4]);
}

#[test]
fn programs_are_followed_as_they_are_told() {
    let home = Home::new("followed");
    home.ok("create s -o out");
    home.ok("enable-event -u p:a");
    home.ok("track -u --vpid 4000000000");
    home.ok("start");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    assert_eq!(program.emit(1, 1), 0, "somebody else is followed");
    // Both answered when the program has confirmed.
    assert_eq!(
        home.ok(&format!(
            "track -u --vpid {} --vuid={}",
            std::process::id(),
            rustix::process::getuid().as_raw()
        )),
        format!(
            "Added {} to the virtual process ID tracker inclusion set\n\
             Added {} to the virtual user ID tracker inclusion set\n",
            std::process::id(),
            rustix::process::getuid().as_raw()
        )
    );
    assert_eq!(program.emit(1, 2), 1);
    home.ok("untrack -u --all --vgid");
    assert_eq!(program.emit(1, 3), 0, "no group is followed");
    home.ok("track -u --all --vgid --vpid");
    assert_eq!(program.emit(1, 4), 1);
    home.ok("destroy");
    assert_eq!(home.babeltrace(&home.dir.join("out")).lines().count(), 2);
}

#[test]
fn several_channels_threads_and_programs_record_side_by_side() {
    let home = Home::new("side");
    home.ok("create s -o out");
    home.ok("enable-channel -u one --subbuf-size 64k --num-subbuf 16");
    home.ok("enable-channel -u two --subbuf-size 64k --num-subbuf 16");
    home.ok("enable-event -u p:a -c one");
    home.ok("enable-event -u p:* -c two");
    home.ok("start");
    let programs: Vec<_> = [ProducerKind::Rseq, ProducerKind::Rseq, ProducerKind::Locked]
        .into_iter()
        .map(|kind| {
            let mut program = Program::connect(&home, kind);
            program.register(&[(1, tracepoint("p:a")), (2, tracepoint("p:b"))]);
            program
        })
        .collect();
    std::thread::scope(|scope| {
        for program in &programs {
            for index in [1, 2] {
                scope.spawn(move || (0..2000).for_each(|value| assert!(program.emit(index, value) > 0)));
            }
        }
    });
    let said = home.ok("destroy");
    let text = home.babeltrace(&home.dir.join("out"));
    let read = values(&text, "p:a").len() + values(&text, "p:b").len();
    // A thread that was preempted with the lock makes others lose records, which are counted.
    let lost = said.lines().filter(|line| line.ends_with(" records discarded (lock taken)"));
    let lost = lost.map(|line| line.split(' ').rev().nth(4).unwrap().parse::<usize>().unwrap());
    assert_eq!(read + lost.sum::<usize>(), 12_000 + 6000, "{said}");
}

#[test]
fn the_switch_timer_writes_out_what_there_is() {
    let home = Home::new("switch");
    let out = session(&home, "--switch-timer 20000");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    program.emit(1, 5);
    wait_for("the timer", || out.join("ust").exists() && home.ok("list s").contains("in 1 packets"));
    assert_eq!(values(&home.babeltrace(&out), "p:a"), [5]);
    program.emit(1, 6);
    home.ok("destroy");
    assert_eq!(values(&home.babeltrace(&out), "p:a"), [5, 6]);
}

#[test]
fn a_full_ring_counts_what_it_loses_and_babeltrace_is_told() {
    let home = Home::new("full");
    let out = session(&home, "--subbuf-size 4k --num-subbuf 2");
    let mut program = Program::connect(&home, ProducerKind::Locked);
    program.register(&[(1, tracepoint("p:a"))]);
    // The daemon is stopped, so that nobody empties the ring.
    support::kill(home.pid("worker.pid"), rustix::process::Signal::STOP);
    for value in 0..5000 {
        program.emit(1, value);
    }
    support::kill(home.pid("worker.pid"), rustix::process::Signal::CONT);
    let text = home.ok("stop");
    let kept = values(&home.babeltrace(&out), "p:a").len();
    let lost = format!("Warning: Channel c: {} records discarded (ring full)", 5000 - kept);
    assert!(kept > 500 && text.contains(&lost), "{kept}: {text}");
    assert!(home.ok("list s").contains(&format!("Discarded events: {}", 5000 - kept)));
}

#[test]
fn trace_files_are_limited_in_size_and_number() {
    let home = Home::new("files");
    let out = session(&home, "--subbuf-size 4k --num-subbuf 64 --tracefile-size 8k --tracefile-count 2");
    let mut program = Program::connect(&home, ProducerKind::Locked);
    program.register(&[(1, tracepoint("p:a"))]);
    for value in 0..20_000 {
        program.emit(1, value);
        if value % 300 == 0 {
            // Let the consumer keep up: it is told by the doorbell.
            std::thread::yield_now();
        }
    }
    home.ok("destroy");
    let dir = out.join(format!("ust/uid/{}/64-bit", rustix::process::getuid().as_raw()));
    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names[0].ends_with("_0") && names[1].ends_with("_1"), "{names:?}");
    assert_eq!(values(&home.babeltrace(&out), "p:a").last(), Some(&19_999));
}

#[test]
fn directories_and_files_have_lttngs_modes() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new("modes");
    let out = session(&home, "");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    program.emit(1, 1);
    home.ok("destroy");
    let dir = out.join(format!("ust/uid/{}/64-bit", rustix::process::getuid().as_raw()));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("index"))), (0o770, 0o770));
    assert_eq!(mode(&dir.join("metadata")), 0o660);
    for entry in std::fs::read_dir(dir.join("index")).unwrap() {
        let index = entry.unwrap().path();
        let data = dir.join(index.file_stem().unwrap());
        assert_eq!((mode(&index), mode(&data)), (0o660, 0o660));
    }
}
