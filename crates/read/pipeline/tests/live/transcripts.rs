//! Sessions that real relays once served.

use sillage_pipeline::sources::live::{Live, LiveOptions, LiveUrl, SessionNotFound};

use crate::recorded::Recorded;
use crate::support::{all, events, shared};

/// All messages of a recorded connection; `packets` of them were announced.
fn replay(folder: &str, connection: &str, session: &str) -> Option<(Vec<String>, usize)> {
    let directory = shared(&format!("reference/transcripts/{folder}"))?;
    let relay = Recorded::read(&directory, connection);
    let packets = relay.packets.len();
    let (minor, host) = (relay.minor, relay.sessions[0].0.clone());
    let url = LiveUrl::parse(&format!("net://localhost/host/{host}/{session}")).unwrap();
    let options = LiveOptions { session_not_found: SessionNotFound::End, minor, ..LiveOptions::default() };
    let mut live = Live::over(Box::new(relay), &url, options).unwrap();
    Some((all(&mut live), packets))
}

fn count(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|line| line.ends_with(what)).count()
}

fn check_order(lines: &[String]) {
    let times: Vec<u64> = lines.iter().filter_map(|l| l.split(' ').next()?.parse().ok()).collect();
    assert!(times.is_sorted());
    assert!(!lines.iter().any(|line| line.starts_with("error")), "{lines:#?}");
}

#[test]
fn per_user_buffers_with_new_streams() {
    let Some((lines, packets)) = replay("live-uid", "live0", "livesess") else {
        return;
    };
    check_order(&lines);
    assert_eq!(count(&lines, "packet begin"), packets);
    assert_eq!(count(&lines, "packet end"), packets);
    // Babeltrace was attached while 5 events came on ch0 and 2 on both channels.
    assert!(events(&lines).len() >= 7, "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with("inactivity")));
    assert_eq!(count(&lines, " end") - packets, count_begins(&lines));
}

fn count_begins(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.contains(" begin stream-")).count()
}

#[test]
fn per_process_buffers_come_and_go() {
    let Some((lines, packets)) = replay("live-pid", "live0", "livepid") else {
        return;
    };
    check_order(&lines);
    assert_eq!(count(&lines, "packet begin"), packets);
    assert!(!events(&lines).is_empty());
}

#[test]
fn viewers_of_both_minors() {
    for (connection, session) in [("live1", "live18"), ("live2", "live2"), ("live3", "live18")] {
        let Some((lines, packets)) = replay("v2.15-live", connection, session) else {
            return;
        };
        check_order(&lines);
        assert!(packets > 0);
        assert_eq!(count(&lines, "packet begin"), packets, "{connection}");
        assert!(!events(&lines).is_empty(), "{connection} {lines:#?}");
    }
}
