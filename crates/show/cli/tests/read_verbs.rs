//! `view`, `convert`, `cut`, `merge`, `stats`, `index`: traces in, text or traces out, which Debian's
//! Babeltrace 2 must read as it reads the originals.

mod reading;

use std::collections::BTreeMap;
use std::path::Path;

use reading::{Scratch, babeltrace2, files, ok, shared, trace};

/// Traces of many kinds: indexes, rotated sessions, rings of files, several domains, losses, dead
/// tracers, and clocks with several cycles in a nanosecond.
const TRACES: &[&str] = &[
    "bt1-succeed1",
    "bt1-trace-with-index",
    "bt1-session-rotation",
    "bt1-lttng-tracefile-rotation",
    "bt1-multi-domains",
    "bt1-lttng-crash",
    "bt1-sequence",
    "bt1-seqnum-2-streams-lost-in-1",
    "bt1-wk-heartbeat-u",
    "tc-bandwidth_issue",
    "tc-debuginfo-test-app3",
    "tc-papi_counters",
];

/// Babeltrace's text of a trace; times as seconds, which can be given back to it.
fn seconds(arguments: &[&str]) -> String {
    babeltrace2(&[arguments, &["--clock-seconds", "--no-delta"]].concat())
}

/// The time of a line of that text.
fn time(line: &str) -> &str {
    line.trim_start_matches('[').split(']').next().expect("a time in brackets")
}

#[test]
fn the_text_of_view_is_babeltraces() {
    for name in TRACES {
        let Some(trace) = trace(name) else { return };
        let own = reading::run(&["view", "--seconds", "--no-delta", &trace]);
        assert_eq!(own.code, 0, "{name}: {}", own.err);
        assert!(own.out == seconds(&[&trace]), "{name}");
    }
}

#[test]
fn a_cut_is_a_trace_with_the_events_of_that_time() {
    let scratch = Scratch::new("cut");
    for (number, name) in TRACES.iter().enumerate() {
        let Some(trace) = trace(name) else { return };
        let whole = seconds(&[&trace]);
        let lines: Vec<&str> = whole.lines().collect();
        if !whole.starts_with('[') {
            // No clock, no times to cut by.
            continue;
        }
        let begin = format!("--begin={}", time(lines[lines.len() / 4]));
        let end = format!("--end={}", time(lines[lines.len() * 3 / 4]));
        for (version, option) in [("1.8", None), ("2", Some("--ctf-2"))] {
            let to = scratch.path(&format!("{number}-{version}"));
            let mut arguments = vec!["cut", &trace, &begin, &end, "-o", &to];
            arguments.extend(option);
            let done = reading::run(&arguments);
            assert_eq!(done.code, 0, "{name}: {}", done.err);
            // What it prints are the directories of the traces.
            assert!(done.out.lines().all(|line| Path::new(line).join("metadata").is_file()), "{}", done.out);
            let wanted = seconds(&[&trace, &begin, &end]);
            assert!(!wanted.is_empty(), "{name}");
            let own = reading::run(&["view", "--seconds", "--no-delta", &to]);
            assert_eq!((own.code, own.out.as_str()), (0, wanted.as_str()), "{name} {version}");
            if version == "1.8" {
                assert_eq!(seconds(&[&to]), wanted, "{name}");
            }
        }
    }
}

/// Losses of a trace: events with a count, and losses without.
fn losses(trace: &str) -> (u64, u64) {
    let stats: serde_json::Value = serde_json::from_str(&ok(&["stats", "--json", trace])).expect("JSON");
    let streams = stats["streams"].as_array().expect("streams");
    let sum = |key: &str| streams.iter().filter_map(|stream| stream[key].as_u64()).sum();
    (sum("lost_events"), sum("uncounted_losses"))
}

#[test]
fn the_parts_of_a_cut_tell_every_loss() {
    let Some(trace) = trace("gen-ust-lost1") else { return };
    let scratch = Scratch::new("cut-loss");
    let (before, after) = (scratch.path("before"), scratch.path("after"));
    // In the middle of the time in which 12043 events were lost.
    let at_the_cut = 12_043;
    let first = reading::run(&["cut", &trace, "--end", "1795243189.200500000", "-o", &before]);
    ok(&["cut", &trace, "--begin", "1795243189.200500001", "-o", &after]);
    let (whole, parts) = (losses(&trace), [losses(&before), losses(&after)]);
    // A packet says what was lost before its end. The first part has no packet behind that loss, and the
    // command says so; the second knows that there was one, and gives it no number of its own.
    let told = "at least 1 events were lost behind its last packet, which it does not tell\n";
    assert!(
        first.code == 0 && first.err.starts_with("warning: ") && first.err.ends_with(told),
        "{}",
        first.err
    );
    assert_eq!((whole.1, parts[0].1, parts[1].1), (0, 0, 1), "{parts:?}");
    assert_eq!(parts[0].0 + parts[1].0, whole.0 - at_the_cut, "{parts:?}");
}

#[test]
fn a_cut_of_a_kernel_trace_by_a_filter_holds_only_what_matches() {
    let Some(trace) = shared("reference/kernel-traces/analysis") else { return };
    let scratch = Scratch::new("cut-filter");
    let to = scratch.path("to");
    let filter = "$event.name == \"sched_switch\" && prev_tid != 0";
    let done = reading::run(&["cut", &trace, "--filter", filter, "-o", &to]);
    assert_eq!(done.code, 0, "{}", done.err);
    let whole = seconds(&[&trace]);
    let wanted: Vec<&str> = whole
        .lines()
        .filter(|line| line.contains(" sched_switch: ") && !line.contains("prev_tid = 0,"))
        .collect();
    assert!(wanted.len() > 100, "{}", wanted.len());
    assert_eq!(seconds(&[&to]).lines().collect::<Vec<_>>(), wanted);
    // The same filter shows the same.
    let shown = reading::run(&["view", "--seconds", "--no-delta", "-f", filter, &trace]);
    assert_eq!(shown.out.lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn merged_traces_are_read_as_the_traces_were() {
    let (Some(a), Some(b), Some(c)) =
        (trace("bt1-trace-with-index"), trace("bt1-multi-domains"), trace("bt1-wk-heartbeat-u"))
    else {
        return;
    };
    let scratch = Scratch::new("merge");
    let to = scratch.path("deep/to");
    let done = reading::run(&["merge", &a, &b, &c, "-o", &to]);
    assert_eq!(done.code, 0, "{}", done.err);
    // Two domains of one, and the two others.
    assert_eq!(done.out.lines().count(), 4, "{}", done.out);
    assert_eq!(seconds(&[&to]), seconds(&[&a, &b, &c]));
}

#[test]
fn stream_intersection_is_babeltraces() {
    let Some(trace) = trace("bt1-intersection-3eventsintersect") else { return };
    let scratch = Scratch::new("intersection");
    let to = scratch.path("to");
    ok(&["cut", "--stream-intersection", &trace, "-o", &to]);
    let wanted = seconds(&[&trace, "--stream-intersection"]);
    assert_eq!(seconds(&[&to]), wanted);
    assert_eq!(ok(&["view", "--seconds", "--no-delta", "--stream-intersection", &trace]), wanted);
}

#[test]
fn conversions_hold_every_event() {
    let Some(trace) = trace("bt1-trace-with-index") else { return };
    let scratch = Scratch::new("convert");
    let to = |name: &str| scratch.path(name);
    let text = babeltrace2(&[&trace, "--clock-date"]);
    let read = |name: &str| std::fs::read_to_string(to(name)).expect("it was written");

    assert_eq!(ok(&["convert", &trace, "-o", &to("t.txt")]), "");
    assert_eq!(read("t.txt"), text);

    ok(&["convert", &trace, "-o", &to("t.json")]);
    let json = read("t.json");
    assert_eq!(json.lines().count(), 4000);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["event"], "sample_component:message");
    assert_eq!(first["fields"]["message"], "Hello World");
    assert_eq!(first["packet"]["cpu_id"], 1);
    assert_eq!(first["time"], "2019-08-05T19:30:56.853953396Z");
    assert_eq!(ok(&["view", "--format", "json", &trace]), json);

    ok(&["convert", &trace, "--columns", "message,cpu_id,none", "-o", &to("t.csv")]);
    let csv = read("t.csv");
    assert_eq!(csv.lines().next(), Some("ns,time,trace,stream_class,stream,event,message,cpu_id,none"));
    assert_eq!(
        csv.lines().nth(1),
        Some(
            "1565033456853953396,2019-08-05T19:30:56.853953396Z,joraj-alpa,0,1,sample_component:message,\
             Hello World,1,"
        )
    );
    assert_eq!(csv.lines().count(), 4001);

    // `trace_processor` reads it; here only that each event is in it, in packets (field 1).
    ok(&["convert", &trace, "-o", &to("t.pftrace")]);
    let perfetto = std::fs::read(to("t.pftrace")).expect("it was written");
    assert_eq!(perfetto[0], 0x0a);
    assert!(perfetto.windows(24).any(|window| window == b"sample_component:message"));

    for (format, name) in [("ctf-1.8", "ctf1"), ("ctf-2", "ctf2")] {
        ok(&["convert", &trace, "--to", format, "-o", &to(name)]);
        assert_eq!(ok(&["view", "--date", &to(name)]), text, "{format}");
    }
    assert_eq!(babeltrace2(&[&to("ctf1"), "--clock-date"]), text);
    // CTF 2 can be made CTF 1.8 again, which Debian's Babeltrace reads.
    ok(&["convert", &to("ctf2"), "-o", &to("back")]);
    assert_eq!(babeltrace2(&[&to("back"), "--clock-date"]), text);
}

#[test]
fn statistics_count_events_and_losses() {
    let Some(trace) = trace("bt1-multi-domains") else { return };
    let text = ok(&["stats", &trace]);
    let wanted = "         COUNT       %      PER SECOND          SIZE    AVERAGE  EVENT
          4000   93.63            15.5      70.4 KiB     18.0 B  sample_component:message
           272    6.37             1.1      61.4 KiB    231.1 B  lttng_test_filter_event
          4272  events of 2 kinds in 257.839197 s, 16.6 per second
            46  packets, 184.0 KiB, in 8 streams
           728  events lost (14.56 % of all)
           728  of them in joraj-alpa/kernel stream class 0 stream 0
";
    assert_eq!(text, wanted);
    let json: serde_json::Value = serde_json::from_str(&ok(&["stats", "--json", &trace])).expect("JSON");
    assert_eq!(json["events"][0]["name"], "sample_component:message");
    assert_eq!(json["events"][0]["count"], 4000);
    let streams = json["streams"].as_array().expect("a list");
    assert_eq!(streams.iter().map(|stream| stream["lost_events"].as_u64().unwrap_or(0)).sum::<u64>(), 728);
    let text = ok(&["stats", "-n", "1", "--filter", "$event.name == \"sample*\"", &trace]);
    assert!(text.contains("4000  100.00") && !text.contains("filter_event"), "{text}");
}

#[test]
fn statistics_agree_with_babeltraces_text_of_a_kernel_trace() {
    let Some(trace) = shared("reference/kernel-traces/analysis") else { return };
    let mut wanted = BTreeMap::new();
    for line in babeltrace2(&[&trace, "--no-delta"]).lines() {
        let name = line.split(" { ").next().and_then(|head| head.trim_end_matches(':').rsplit(' ').next());
        *wanted.entry(name.expect("a name").to_owned()).or_insert(0) += 1;
    }
    let json: serde_json::Value =
        serde_json::from_str(&reading::run(&["stats", "--json", &trace]).out).expect("JSON");
    let events = json["events"].as_array().expect("a list");
    let found: BTreeMap<String, i32> = events
        .iter()
        .map(|event| {
            let count = event["count"].as_i64().and_then(|count| i32::try_from(count).ok());
            (event["name"].as_str().unwrap_or_default().to_owned(), count.unwrap_or(0))
        })
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn indexes_are_rebuilt_byte_for_byte() {
    let scratch = Scratch::new("index");
    let mut compared = 0;
    for name in [
        "bt1-trace-with-index",
        "bt1-2packets",
        "bt1-multi-domains",
        "bt1-session-rotation",
        "bt1-lttng-tracefile-rotation",
        "bt1-seqnum-7-lost-between-2-with-index",
        "bt2-trace-with-index",
        "gen-ust-rot",
        "tc-debuginfo-test-app3",
    ] {
        let Some(original) = trace(name) else { return };
        let copy = scratch.copy(&original, name);
        let indexes: Vec<_> = files(Path::new(&copy))
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "idx"))
            .map(|path| (std::fs::read(&path).expect("an index"), path))
            .collect();
        for (_, path) in &indexes {
            std::fs::remove_file(path).expect("removed");
        }
        let text = ok(&["index", &copy]);
        for (bytes, path) in &indexes {
            let rebuilt = std::fs::read(path).expect("an index again");
            assert!(rebuilt == *bytes, "{}: differs: {text}", path.display());
            compared += 1;
        }
        // With them the trace is what it was.
        let shown = |trace: &str| reading::run(&["view", "--seconds", trace]).out;
        assert!(shown(&copy) == shown(&original), "{name}");
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn an_index_is_not_made_up() {
    // A tracer that died left no end of its packets.
    let Some(original) = trace("bt1-lttng-crash") else { return };
    let scratch = Scratch::new("no-index");
    let copy = scratch.copy(&original, "t");
    let done = reading::run(&["index", &copy]);
    assert_eq!((done.code, done.out.as_str()), (0, ""), "{}", done.err);
    assert!(done.err.contains("packets without times or sizes: no index"), "{}", done.err);
}

#[test]
fn view_shows_as_many_as_it_is_told() {
    let Some(trace) = trace("bt1-trace-with-index") else { return };
    let text = ok(&["view", &trace]);
    for count in [0, 1, 4000, 5000] {
        let first: String = text.split_inclusive('\n').take(count).collect();
        assert!(ok(&["view", "-n", &count.to_string(), &trace]) == first, "{count}");
    }
    assert!(ok(&["view", "--format", "count", "-n", "7", &trace]).contains("  7 Event messages\n"));
    let details = ok(&["view", "--format", "details", "-n", "2", &trace]);
    assert_eq!(details.matches("\nEvent `sample_component:message` (Class ID 0):\n").count(), 2);
}

#[test]
fn view_can_leave_it_to_another_reader() {
    let Some(trace) = trace("bt1-smalltrace") else { return };
    assert_eq!(
        ok(&["view", "-t", &trace, "-e", "babeltrace2 --no-delta"]),
        babeltrace2(&["--no-delta", &trace])
    );
}

#[test]
fn help_and_man_pages_tell_every_verb_and_option() {
    let help = ok(&["--help"]);
    let view = ok(&["view", "--help"]);
    for verb in ["view", "convert", "cut", "merge", "stats", "index", "record", "create"] {
        assert!(help.contains(&format!("\n  {verb} ")), "{help}");
    }
    let options = [
        "--filter",
        "--begin",
        "--end",
        "--format",
        "--limit",
        "--from-start",
        "--trace-path",
        "--viewer",
        "--stream-intersection",
        "--columns",
        "--output",
        "--utc",
    ];
    let scratch = Scratch::new("manual");
    let to = scratch.path("man");
    ok(&["manual", &to]);
    let page = std::fs::read_to_string(format!("{to}/sillage-view.1")).expect("a page");
    for option in options {
        assert!(view.contains(option), "{option}: {view}");
        assert!(page.contains(&option.replace('-', "\\-")), "{option}: {page}");
    }
    for verb in ["convert", "cut", "merge", "stats", "index"] {
        assert!(Path::new(&format!("{to}/sillage-{verb}.1")).is_file(), "{verb}");
    }
}
