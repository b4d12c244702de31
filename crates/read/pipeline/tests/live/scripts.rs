//! Upstream's scripts for a relay, and what Babeltrace shows of them.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sillage_pipeline::sources::live::{Live, LiveOptions, LiveUrl, SessionNotFound, Target, list_sessions};
use sillage_pipeline::{Error, Messages, Status};

use crate::fake::{DirectLink, FakeRelay, serve};
use crate::support::{all, events, shared};

fn url(session: &str, port: u16) -> LiveUrl {
    LiveUrl::parse(&format!("net://localhost:{port}/host/hostname/{session}")).unwrap()
}

fn until_its_end() -> LiveOptions {
    LiveOptions { session_not_found: SessionNotFound::End, ..LiveOptions::default() }
}

/// All messages of a session of a script.
fn play(script: &str, session: &str, minor: u32, hesitates: bool) -> Option<Vec<String>> {
    let traces = shared("traces")?;
    let script = traces.join(format!("live-scripts/{script}.json"));
    let mut relay = FakeRelay::of_script(&script, &traces, minor);
    relay.hesitates = hesitates;
    let link = Box::new(DirectLink::to(relay));
    let mut live = Live::over(link, &url(session, 1), until_its_end()).unwrap();
    Some(all(&mut live))
}

/// What the blocks of Babeltrace's details say: times and kinds, but for streams' ends.
fn expected(name: &str) -> Option<Vec<String>> {
    let path = shared(&format!("traces/upstream-expects/plugins__src.ctf.lttng-live__{name}"))?;
    let text = read(&path);
    let mut out = Vec::new();
    for block in text.split("\n\n") {
        let lines: Vec<&str> = block.lines().collect();
        let Some(time) = lines.first().and_then(|line| line.strip_prefix('[')) else {
            continue;
        };
        let time = time.split(' ').next().unwrap().replace(',', "");
        let kind = lines.iter().skip(1).find(|line| !line.starts_with('{')).unwrap();
        out.push(match *kind {
            "Message iterator inactivity:" => format!("{time} inactivity"),
            "Packet end" => format!("{time} packet end"),
            kind if kind.starts_with("Packet beginning") => format!("{time} packet begin"),
            kind if kind.starts_with("Event ") => {
                format!("{time} event {}", kind.split('`').nth(1).unwrap())
            }
            _ => continue,
        });
    }
    Some(out)
}

fn read(path: &Path) -> String {
    if path.extension().is_none_or(|e| e != "zst") {
        return std::fs::read_to_string(path).unwrap();
    }
    let mut tool = Command::new("zstdcat").arg(path).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    tool.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(tool.wait().unwrap().success());
    text
}

/// Our lines in the form of [`expected`].
fn plain(lines: &[String]) -> Vec<String> {
    let kept = lines.iter().filter(|line| !line.starts_with('-'));
    kept.map(|line| {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        if words[1] == "inactivity" { line.clone() } else { format!("{} {}", words[0], words[2]) }
    })
    .collect()
}

#[test]
fn a_session_comes_as_babeltrace_tells_it() {
    for minor in [4, 15] {
        let script = if minor == 15 { "base-2.15" } else { "base" };
        let Some(lines) = play(script, "trace-with-index", minor, false) else {
            return;
        };
        let name = if minor == 15 { "cli-base-2.15.expect.zst" } else { "cli-base.expect.zst" };
        assert_eq!(events(&plain(&lines)), events(&expected(name).unwrap()), "minor {minor}");
        assert_eq!(events(&lines).len(), 4000);
    }
}

#[test]
fn a_slow_relay_changes_nothing() {
    let (Some(quick), Some(slow)) = (
        play("rate-limited", "trace-with-index", 15, false),
        play("rate-limited", "trace-with-index", 15, true),
    ) else {
        return;
    };
    assert_eq!(events(&quick), events(&slow));
}

#[test]
fn new_traces_and_silence() {
    let Some(lines) = play("new-streams", "new-streams", 4, false) else {
        return;
    };
    let want = expected("new-streams.expect").unwrap();
    let got = plain(&lines);
    // Babeltrace tells of silence at 120 after the other stream's event of that time.
    let sorted = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort_by_key(|l| (l.split(' ').next().unwrap().parse::<u64>().unwrap(), l.clone()));
        lines
    };
    assert_eq!(sorted(&got), sorted(&want));
    let times: Vec<u64> = got.iter().map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted(), "{got:#?}");
    assert!(lines.iter().any(|l| l == "- 0:1 begin stream-1"), "{lines:#?}");
    assert!(lines.iter().any(|l| l == "- 1:3 begin stream-3"), "{lines:#?}");
}

#[test]
fn metadata_in_sections() {
    let Some(lines) = play("split-metadata", "split-metadata", 4, false) else {
        return;
    };
    assert_eq!(plain(&lines), expected("split-metadata.expect").unwrap());
}

#[test]
fn bad_metadata_of_a_later_section_is_shown_with_its_line() {
    let Some(traces) = shared("traces") else {
        return;
    };
    let mut relay = FakeRelay::of_script(&traces.join("live-scripts/split-metadata.json"), &traces, 4);
    relay.damage_metadata("signe_de_pia$$e_2\"", "signe_de_pia$$e_2\" 3");
    let link = Box::new(DirectLink::to(relay));
    let mut live = Live::over(link, &url("split-metadata", 1), until_its_end()).unwrap();
    let mut events = 0;
    // The relay has nothing more to say: the fault is certain only after some asking.
    let error = (0..1000).find_map(|_| match live.advance() {
        Ok(_) => {
            events += u32::from(matches!(live.current(), Some(sillage_ctf::Message::Event(_))));
            None
        }
        Err(error) => Some(error),
    });
    let Some(Error::Metadata { source, .. }) = error else {
        panic!("{error:?}");
    };
    // Counted in the whole text, not in the section.
    let wanted = "metadata:113:36: syntax error: expected `;`, found `3`\n  \
                  \tname = \"my_app:signe_de_pia$$e_2\" 3;\n  \t                                  ^";
    assert_eq!(source.with_source(), wanted);
    assert_ne!(events, 0);
}

#[test]
fn several_sessions_of_one_name_and_ctf_2() {
    let Some(lines) = play("list-sessions-2.15", "multi-domains", 15, true) else {
        return;
    };
    assert_eq!(events(&lines).len(), 4272);
    let names: Vec<_> = lines.iter().filter(|line| line.contains(" begin stream-")).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    assert!(!lines.iter().any(|line| line.starts_with("error")));
}

#[test]
fn over_a_network_and_listed() {
    let Some(traces) = shared("traces") else {
        return;
    };
    let relay = || {
        let script = traces.join("live-scripts/list-sessions-2.15.json");
        FakeRelay::of_script(&script, &traces, 15)
    };
    let port = serve(relay());
    let mut live = Live::connect(&url("trace-with-index", port), until_its_end()).unwrap();
    assert_eq!(events(&all(&mut live)).len(), 4000);
    let list = |minor| {
        let relay = LiveUrl { target: None, ..url("x", serve(relay())) };
        list_sessions(&relay, &LiveOptions { minor, ..LiveOptions::default() }).unwrap()
    };
    let names: Vec<_> = list(15).into_iter().map(|s| (s.hostname, s.name, s.streams)).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(names[2], ("hostname".into(), "trace-with-index".into(), 5));
    // Viewers that are too old for CTF 2 do not see it.
    assert_eq!(list(4).len(), 1);
}

#[test]
fn a_session_that_is_not_there() {
    let Some(traces) = shared("traces") else {
        return;
    };
    let look = |session_not_found, name: &str| {
        let script = traces.join("live-scripts/base.json");
        let link = DirectLink::to(FakeRelay::of_script(&script, &traces, 4));
        let options = LiveOptions { session_not_found, ..LiveOptions::default() };
        let target = Some(Target { hostname: "hostname".into(), session: name.into() });
        let mut live = Live::over(Box::new(link), &LiveUrl { target, ..url("x", 1) }, options).unwrap();
        live.advance().map_err(|error| error.to_string())
    };
    assert_eq!(look(SessionNotFound::Continue, "none"), Ok(Status::Pending));
    assert_eq!(look(SessionNotFound::End, "none"), Ok(Status::End));
    assert!(look(SessionNotFound::Fail, "none").unwrap_err().contains("no such session"));
    assert_eq!(look(SessionNotFound::Fail, "trace-with-index"), Ok(Status::Ready));
}

#[test]
fn the_user_stops_a_wait() {
    // A relay that takes the connection and never says anything.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let interrupted = Arc::new(AtomicBool::new(false));
    let options = LiveOptions { interrupted: Arc::clone(&interrupted), ..LiveOptions::default() };
    let viewer = std::thread::spawn(move || {
        Live::connect(&url("s", port), options).map(|_| ()).unwrap_err().to_string()
    });
    let (_silent, _) = listener.accept().unwrap();
    interrupted.store(true, Ordering::Relaxed);
    assert!(viewer.join().unwrap().contains("interrupted"));
}
