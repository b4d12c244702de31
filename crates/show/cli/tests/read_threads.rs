//! The reading verbs with several threads: what comes out is that of one.

mod reading;

use std::path::Path;

use reading::{Done, Scratch, files, run, shared, trace};

/// Runs with one thread and with several; all must do the same, which is given.
#[track_caller]
fn alike(arguments: &[&str]) -> Done {
    let by = |count: &str| run(&[arguments, &["--threads", count]].concat());
    let one = by("1");
    for count in ["2", "3", "5"] {
        let several = by(count);
        assert_eq!((several.code, &several.err), (one.code, &one.err), "{count} threads: {arguments:?}");
        if several.out != one.out {
            let lines = several.out.lines().zip(one.out.lines()).enumerate();
            let first =
                lines.map(|(at, (several, one))| (at, several, one)).find(|(_, several, one)| several != one);
            panic!("{count} threads: {arguments:?}: {first:#?}");
        }
    }
    one
}

/// Traces that are large enough for slices.
fn large() -> Vec<String> {
    let kernel = shared("reference/kernel-traces/busy-analysis/kernel");
    [trace("tc-many-threads"), trace("tc-memory"), kernel].into_iter().flatten().collect()
}

#[test]
fn text_is_the_same() {
    for trace in large() {
        let plain = alike(&["view", &trace]);
        assert_eq!(plain.code, 0, "{}", plain.err);
        let face = run(&["babeltrace2", &trace]);
        assert!(face.out == plain.out);
        for options in
            [&["--no-delta"][..], &["--cycles"], &["--all", "--date"], &["--seconds"], &["--color", "always"]]
        {
            alike(&[&["view", &trace], options].concat());
        }
        let some = alike(&["view", &trace, "--filter", "$event.name == \"sched_*\""]);
        assert!(some.out.len() < plain.out.len());
        // Ranges and counts are done by one, whatever is asked for.
        assert_eq!(alike(&["view", &trace, "-n", "10"]).out.lines().count(), 10);
    }
}

/// Two streams of packets, whose events go back in time, also beyond the bounds of their packets.
fn make_odd(scratch: &Scratch) -> String {
    let directory = scratch.path("odd");
    std::fs::create_dir(&directory).expect("a directory");
    let metadata = "/* CTF 1.8 */\n\
        typealias integer { size = 64; map = clock.c.value; } := tick;\n\
        typealias integer { size = 64; } := u64;\n\
        trace { major = 1; minor = 8; byte_order = le; };\n\
        clock { name = c; freq = 1000000000; absolute = true; };\n\
        stream { packet.context := struct { tick timestamp_begin; tick timestamp_end; u64 content_size; \
        u64 packet_size; u64 events_discarded; }; event.header := struct { tick timestamp; }; };\n\
        event { name = e; fields := struct { u64 x; }; };\n";
    std::fs::write(format!("{directory}/metadata"), metadata).expect("metadata");
    let mut random = 88_172_645_463_325_252u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for stream in 0..2u64 {
        let mut data = Vec::new();
        let mut number = stream;
        for packet in 0..60u64 {
            let begin = 1_000_000 + packet * 100_000;
            let size = 40 + 16 * 4000;
            for word in [begin, begin + 99_000, size * 8, size * 8, packet / 20] {
                data.extend(word.to_le_bytes());
            }
            for event in 0..4000 {
                let back = if next() % 500 == 0 { next() % 150_000 } else { 0 };
                let on = if next() % 3000 == 0 { next() % 150_000 } else { 0 };
                data.extend((begin + event * 24 + on - back.min(begin)).to_le_bytes());
                data.extend(number.to_le_bytes());
                number += 2;
            }
        }
        std::fs::write(format!("{directory}/stream_{stream}"), data).expect("a stream");
    }
    directory
}

#[test]
fn text_of_odd_clocks_is_the_same() {
    let scratch = Scratch::new("odd-threads");
    let odd = make_odd(&scratch);
    let done = alike(&["view", &odd]);
    let events = done.out.lines().count();
    assert_eq!((done.code, events), (0, 2 * 60 * 4000));
    assert_eq!(done.err.matches("WARNING: Tracer discarded 1 event").count(), 4, "{}", done.err);
    assert_eq!(done.err.matches("the clock goes back").count(), 2, "{}", done.err);
}

#[test]
fn what_is_before_a_fault_is_the_same() {
    let Some(original) = trace("tc-many-threads") else { return };
    let scratch = Scratch::new("fault-threads");
    let copy = scratch.copy(&original, "t");
    let stream = Path::new(&copy).join("channel0_7");
    let mut data = std::fs::read(&stream).expect("a stream");
    // In the middle of its packets: an event of no class.
    let middle = data.len() / 2;
    data[middle..middle + 64].fill(0xff);
    std::fs::write(&stream, data).expect("a damaged stream");
    let done = alike(&["view", &copy]);
    assert_eq!(done.code, 1);
    assert!(done.err.starts_with("error: ") && done.out.lines().count() > 100_000, "{}", done.err);
    let (one, two) = (scratch.path("one"), scratch.path("two"));
    for (to, threads) in [(&one, "1"), (&two, "2")] {
        // Packets that nothing changes are passed on unread, damage included.
        let done = run(&["merge", &copy, "-o", to, "--threads", threads]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
    }
    same_files(&one, &two);
    assert_eq!(run(&["view", &one]).code, 1);
    alike(&["stats", &copy]);
}

fn same_files(one: &str, other: &str) {
    let of = |directory: &str| {
        let files = files(Path::new(directory)).into_iter();
        let named = files.map(|path| (path.strip_prefix(directory).expect("below").to_owned(), path));
        named.collect::<Vec<_>>()
    };
    let (own, others) = (of(one), of(other));
    assert!(!own.is_empty());
    assert_eq!(own.len(), others.len());
    for ((name, own), (other_name, other)) in own.iter().zip(&others) {
        assert_eq!(name, other_name);
        let read = |path| std::fs::read(path).expect("a file");
        assert!(read(own) == read(other), "{}", name.display());
    }
}

#[test]
fn copies_and_counts_are_the_same() {
    let scratch = Scratch::new("copy-threads");
    for (number, trace) in large().into_iter().enumerate() {
        let kinds: [&[&str]; 4] = [
            &["merge", &trace],
            &["convert", &trace, "--to", "ctf-2"],
            &["cut", &trace, "--filter", "$event.name == \"*switch*\""],
            &["cut", &trace, "--stream-intersection"],
        ];
        for (kind, arguments) in kinds.into_iter().enumerate() {
            let to = |threads: &str| scratch.path(&format!("{number}-{kind}-{threads}"));
            for threads in ["1", "2", "5"] {
                let done = run(&[arguments, &["-o", &to(threads), "--threads", threads]].concat());
                assert_eq!((done.code, done.err.as_str()), (0, ""), "{arguments:?}");
            }
            same_files(&to("1"), &to("2"));
            same_files(&to("1"), &to("5"));
        }
        alike(&["stats", &trace]);
        alike(&["stats", &trace, "--json", "--filter", "$event.name == \"*switch*\""]);
    }
    // Into files.
    if let Some(trace) = trace("tc-many-threads") {
        for (threads, name) in [("1", "1.txt"), ("4", "4.txt")] {
            run(&["convert", &trace, "-o", &scratch.path(name), "--threads", threads]);
        }
        let read = |name| std::fs::read(scratch.path(name)).expect("text");
        assert!(read("1.txt") == read("4.txt") && !read("1.txt").is_empty());
    }
}
