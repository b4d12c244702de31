//! Data, and messages as text.

use std::path::{Path, PathBuf};

use sillage_ctf::Message;
use sillage_pipeline::sources::live::Live;
use sillage_pipeline::{Messages, Status};

/// A path below the shared data; says so when it is missing.
pub fn shared(path: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let path = shared.join(path);
    if !path.exists() {
        eprintln!("SKIPPED: {} is missing", path.display());
        return None;
    }
    Some(path)
}

/// A message in a line.
pub fn line(message: &Message<'_>) -> String {
    let time = match message.clock() {
        Some(clock) => clock.cycles.to_string(),
        None => "-".to_owned(),
    };
    let stream = message.stream();
    let name = stream.name.as_deref().unwrap_or_default();
    match message {
        Message::Inactivity(_) => format!("{time} inactivity"),
        Message::Event(event) => {
            format!("{time} {}:{} event {}", stream.trace.index, stream.id, event.name())
        }
        Message::StreamBegin(_) => format!("{time} {}:{} begin {name}", stream.trace.index, stream.id),
        Message::StreamEnd(_) => format!("{time} {}:{} end", stream.trace.index, stream.id),
        Message::PacketBegin(_) => format!("{time} {}:{} packet begin", stream.trace.index, stream.id),
        Message::PacketEnd(_) => format!("{time} {}:{} packet end", stream.trace.index, stream.id),
        Message::DiscardedEvents(lost) => format!("{time} lost events {:?}", lost.count),
        Message::DiscardedPackets(lost) => format!("{time} lost packets {:?}", lost.count),
    }
}

/// All messages of a session, asked again and again while there is nothing; the relays of these
/// tests have something new each time that they are asked.
pub fn all(live: &mut Live) -> Vec<String> {
    let mut lines = Vec::new();
    let mut idle = 0;
    loop {
        match live.advance() {
            Ok(Status::Ready) => {
                idle = 0;
                lines.push(live.current().map(|message| line(&message)).unwrap_or_default());
            }
            Ok(Status::Pending) => {
                idle += 1;
                assert!(idle < 1000, "nothing comes after {:?}", lines.last());
            }
            Ok(Status::End) => return lines,
            Err(error) => {
                idle += 1;
                assert!(idle < 1000, "no end of errors");
                lines.push(format!("error: {error}"));
            }
        }
    }
}

/// Only the events.
pub fn events(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.contains(" event ")).collect()
}
