//! Starting a session daemon and waiting until it serves.

use crate::ControlError;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a daemon may take until it serves.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a daemon says on its standard output when it serves.
const READY: &[u8; 6] = b"ready\n";
/// What it says there when another one serves.
const OTHER: &[u8; 6] = b"other\n";

/// Starts `program` with `arguments` as a daemon: one that detaches itself, and says so with a line on
/// its standard output once it serves.
///
/// # Errors
/// [`ControlError::Start`] with what it said, or [`ControlError::Running`] if another one runs.
pub fn start_daemon(program: &Path, arguments: &[&OsStr]) -> Result<(), ControlError> {
    let failed = |error: std::io::Error| ControlError::Start(format!("{}: {error}", program.display()));
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let (mut complaints, their_complaints) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::from(OwnedFd::from(theirs))).stderr(Stdio::from(OwnedFd::from(their_complaints)));
    command.spawn().map_err(failed)?;
    drop(command); // and with it our copies of its ends
    ours.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = [0; 6];
    let line = ours.read_exact(&mut line).is_ok().then_some(&line);
    if line == Some(READY) {
        return Ok(());
    }
    let mut said = String::new();
    complaints.set_read_timeout(Some(Duration::from_millis(100))).map_err(failed)?;
    // Whatever it said until it ended, or until it stopped talking.
    let _ = complaints.read_to_string(&mut said);
    let said = said.trim();
    let error = if line == Some(OTHER) { ControlError::Running } else { ControlError::Start };
    Err(error(if said.is_empty() { "it does not answer".into() } else { said.into() }))
}
