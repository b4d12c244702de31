//! A session of LTTng's own daemons, watched while it records. The test goes on when the daemons' script
//! says so; it sleeps only between two questions to the relay.

use std::time::{Duration, Instant};

use sillage_pipeline::sources::live::{Live, LiveOptions, LiveUrl, SessionNotFound, list_sessions};
use sillage_pipeline::{Messages, Status};
use sillage_protocol::live::Seek;

use crate::daemons::Daemons;
use crate::support::{events, line};

/// Lines of messages until there are so many events, or the end.
fn watch(live: &mut Live, lines: &mut Vec<String>, events_wanted: usize) -> Status {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match live.advance().unwrap() {
            Status::Ready => {
                lines.push(live.current().map(|message| line(&message)).unwrap());
                if events(lines).len() == events_wanted {
                    return Status::Ready;
                }
            }
            Status::Pending => {
                assert!(Instant::now() < deadline, "nothing comes after {:?}", lines.last());
                std::thread::sleep(Duration::from_millis(20));
            }
            Status::End => return Status::End,
        }
    }
}

#[test]
fn lttng_s_own_relay() {
    let Some(mut daemons) = Daemons::start("live", &["watched"]) else {
        return;
    };
    daemons.wait_for("ready");
    let relay = LiveUrl::parse(&daemons.relay).unwrap();
    let options = LiveOptions {
        session_not_found: SessionNotFound::End,
        seek: Seek::Beginning,
        ..LiveOptions::default()
    };
    let sessions = list_sessions(&relay, &options).unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let url = format!("{relay}/host/{}/{}", sessions[0].hostname, sessions[0].name);
    let mut live = Live::connect(&LiveUrl::parse(&url).unwrap(), options).unwrap();
    // Attached before anything is there.
    assert_eq!(live.advance().unwrap(), Status::Pending);
    let mut lines = Vec::new();
    daemons.go_on();
    daemons.wait_for("ran");
    assert_eq!(watch(&mut live, &mut lines, 1000), Status::Ready);
    daemons.go_on();
    assert_eq!(watch(&mut live, &mut lines, usize::MAX), Status::End);
    daemons.wait_for("destroyed");
    let seen = events(&lines);
    assert_eq!(seen.len(), 1500);
    let times: Vec<u64> = seen.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted());
    // What the relay has on its disk is the same.
    let mut disk = sillage_pipeline::open(daemons.base.join("relay")).unwrap().messages();
    let mut lines = Vec::new();
    while disk.advance().unwrap() == Status::Ready {
        lines.push(disk.current().map(|message| line(&message)).unwrap());
    }
    let strip = |line: &&String| line.rsplit_once(':').map(|(_, rest)| rest.to_owned());
    let (disk, seen) = (events(&lines), seen);
    assert_eq!(disk.iter().map(strip).collect::<Vec<_>>(), seen.iter().map(strip).collect::<Vec<_>>());
}
