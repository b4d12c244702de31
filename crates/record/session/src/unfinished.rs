//! Which traces are being written, on disk: for a daemon that finds neither keeper nor worker left.
//!
//! The file `unfinished` in the run directory has one record for each session that was ever started and
//! is not destroyed: `<uid> <gid> <directory>` and a NUL. A daemon that starts anew repairs these traces
//! (a torn last packet hides a whole trace from Babeltrace) and forgets them. The rings of such a
//! session are gone; what they held is lost, and nobody is left who could count it.

use crate::model::{Session, files_of};
use crate::rundir::RunDir;
use sillage_consumer::repair::{repair, traces};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const FILE: &str = "unfinished";

/// Writes the list.
///
/// # Errors
/// The file system's; then the older list stays.
pub fn save(rundir: &RunDir, sessions: &BTreeMap<u64, Session>) -> io::Result<()> {
    let mut text = String::new();
    for session in sessions.values().filter(|session| session.started_once) {
        text.push_str(&format!("{} {} {}\0", session.uid, session.gid, session.output.display()));
    }
    if text.is_empty() {
        rundir.clean(&[FILE]);
        return Ok(());
    }
    rundir.write(FILE, &text)
}

/// Why a session may not begin a trace in its directory: there is one already, finished or not. Its
/// streams would be replaced one by one, and those that are left belong to another trace: neither
/// could be read.
pub fn occupied(sessions: &BTreeMap<u64, Session>, id: u64) -> Option<String> {
    let session = sessions.get(&id).filter(|session| !session.started_once)?;
    let of_others = sessions.iter().filter(|(other, _)| **other != id);
    let mut started = of_others.filter(|(_, other)| other.started_once);
    if let Some((_, other)) = started.find(|(_, other)| other.output == session.output) {
        return Some(format!("{}: session {} records there", session.output.display(), other.name));
    }
    let old = traces(&session.files(), &session.output).ok()?.into_iter().next()?;
    Some(format!("{}: a trace is there already, choose another directory", old.display()))
}

/// Repairs the traces that an earlier daemon left, as far as they are there, and forgets them.
pub fn repair_all(rundir: &RunDir) {
    let Ok(text) = std::fs::read_to_string(rundir.file(FILE)) else { return };
    for record in text.split_terminator('\0') {
        let mut words = record.splitn(3, ' ');
        let mut number = || words.next()?.parse().ok();
        let (Some(uid), Some(gid), Some(dir)) = (number(), number(), words.next()) else { continue };
        // A trace that was moved away, or lies on a disk that fails: nothing that this daemon could do.
        let _ = repair(&files_of(uid, gid), Path::new(dir));
    }
    rundir.clean(&[FILE]);
}
