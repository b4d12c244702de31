//! The session daemon: sessions, channels, rules, the registry of programs, and the commands of the
//! command line. It never touches event data; that is the consumer's.
//!
//! Two processes of one program: the [`keeper`] holds what must outlive a crash and restarts the
//! worker, a single-threaded loop over sockets (`worker`) with the consumer's threads beside it. What
//! the loop knows is in `model`, what it does with it in `programs` (registration), `kernel` (the kernel
//! domain), `recording` (ring sets, traces, start and stop), `tracking` (whom a session follows) and `commands` (requests); `state` carries it to the next worker, and `succession` to the next keeper.
//!
//! Guarantees: a program is told of an event id only after the id's class is on disk and in the
//! keeper's hands, so that no crash makes a record unreadable; nothing that a program or client sends
//! can stop the daemon or cost unbounded memory; every refusal is counted and shown.

mod check;
mod commands;
pub mod keeper;
mod kernel;
mod limits;
mod link;
mod model;
mod net;
mod programs;
mod recorders;
mod recording;
mod rundir;
mod state;
mod succession;
mod trace;
mod tracking;
mod tsdl;
mod unfinished;
mod worker;

pub use sillage_consumer::{repair, signals};

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Process id of the keeper, in the run directory: the daemon's.
pub const PID_FILE: &str = "sillage.pid";
/// Process id of the worker, in the run directory.
pub const WORKER_PID_FILE: &str = "worker.pid";

/// Why the daemon cannot run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Another daemon serves this directory.
    #[error("a session daemon is already running")]
    Running,
    /// The run directory cannot be used.
    #[error("run directory {path}: {error}")]
    RunDirectory {
        /// The directory.
        path: PathBuf,
        /// What the file system says.
        error: io::Error,
    },
    /// The kernel refused something.
    #[error("session daemon: {0}")]
    Kernel(#[from] io::Error),
    /// Shared memory cannot be had.
    #[error(transparent)]
    Shared(#[from] sillage_consumer::SharedError),
    /// The worker died again and again.
    #[error("the session daemon's worker keeps dying")]
    WorkerDies,
    /// Started by hand.
    #[error("a worker is started by its keeper")]
    NoKeeper,
}

impl DaemonError {
    fn rundir(path: &Path) -> impl FnOnce(io::Error) -> DaemonError {
        move |error| DaemonError::RunDirectory { path: path.to_owned(), error }
    }
}

/// The file system with the caller's own rights, for [`repair`].
pub fn repair_files() -> sillage_consumer::Files {
    sillage_consumer::Files::default()
}

/// Runs the daemon of this directory in this process until it is told to end. `worker` are the
/// arguments with which this program becomes a worker, that is, calls [`work`] with the same
/// directory; `ready` is called once the daemon serves.
///
/// # Errors
/// See [`DaemonError`].
pub fn serve(rundir: &Path, worker: &[&str], ready: impl FnOnce()) -> Result<(), DaemonError> {
    keeper::run(rundir, worker, ready)
}

/// Runs a worker, with the link to its keeper as standard input. `keeper` are the arguments with which
/// this program becomes a keeper in the place of one that was killed, that is, calls [`keeper::adopt`].
///
/// # Errors
/// See [`DaemonError`].
pub fn work(rundir: &Path, keeper: &[&str]) -> Result<(), DaemonError> {
    worker::run(rundir, keeper)
}
