//! Every maximum and every patience of the daemon. Reaching one is counted or shown by whoever
//! enforces it.

use rustix::process::{Resource, Rlimit};
use sillage_model::limits::MESSAGE_BYTES_MAX;
use std::time::Duration;

/// Command line clients connected at a time.
pub const CLIENTS_MAX: usize = 256;
/// Programs of one user other than root, connected at a time.
pub const PROGRAMS_PER_USER_MAX: usize = 4096;
/// Bytes read from one peer before another gets its turn.
pub const READ_TURN_BYTES: usize = 64 << 10;
/// Bytes that may wait for a peer that does not read.
pub const OUTBOX_BYTES_MAX: usize = 8 << 20;
/// Event classes of one channel for one user.
pub const CLASSES_MAX: usize = 65_534;
/// Tracepoints that one connection may register in its life, those gone again included.
pub const REGISTRATIONS_MAX: u64 = 1 << 22;
/// How long a peer may take from connecting to a whole first message, and for any later one.
pub const MESSAGE_PATIENCE: Duration = Duration::from_secs(5);
/// How long programs may take to confirm that they stopped.
pub const SYNC_PATIENCE: Duration = Duration::from_secs(1);
/// How long the kernel may take to attach or detach what it was told: about a millisecond for each event.
pub const KERNEL_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what the kernel lost.
pub const KERNEL_LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Between two tries of what a full disk or a lack of memory prevented.
pub const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// How long after a restart the rings of single processes wait for their process.
pub const REATTACH_PATIENCE: Duration = Duration::from_secs(10);
/// Deaths of the worker within [`DEATHS_WINDOW`] after which the keeper gives up.
pub const DEATHS_MAX: usize = 5;
/// See [`DEATHS_MAX`].
pub const DEATHS_WINDOW: Duration = Duration::from_secs(10);

/// As many descriptors as the system lets us have: each ring set takes two in the keeper and three in
/// the worker.
pub fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // With the lower limit the daemon still works, for fewer sessions.
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit { current: limit.maximum, maximum: limit.maximum },
    );
}

const _: () = assert!(OUTBOX_BYTES_MAX >= 2 * MESSAGE_BYTES_MAX);
const _: () = assert!(CLASSES_MAX < u16::MAX as usize);
