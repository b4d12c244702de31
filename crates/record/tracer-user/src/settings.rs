//! What the environment says, read once while the program starts; a set-user-ID program's
//! environment is ignored.
//!
//! | variable | meaning |
//! |---|---|
//! | `SILLAGE_RUNDIR`, `LTTNG_UST_APP_PATH` | the one run directory whose daemon is asked |
//! | `LTTNG_HOME`, `XDG_RUNTIME_DIR`, `HOME` | where the user's daemon is |
//! | `LTTNG_UST_REGISTER_TIMEOUT` | ms that a constructor waits for the daemon: 3000, 0 never, −1 for ever |
//! | `LTTNG_UST_ALLOW_BLOCKING` | events may wait for room in channels that ask for it |
//! | `SILLAGE_PRODUCER=locked` | do not use rseq |
//! | `SILLAGE_RECORD` | token of the `record` command that we run under: its session records us |
//! | `LTTNG_UST_DEBUG`, `SILLAGE_DEBUG` | messages on stderr, from the listener's thread |

use crate::sys;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicIsize, AtomicU64, Ordering};
use sillage_protocol::paths::{self, Environment, PROGRAMS_SOCKET};
use sillage_protocol::program::ProducerKind;

/// Longest path of a socket, its NUL included.
pub const SOCKET_PATH_BYTES_MAX: usize = 108;
/// How long a constructor waits when nothing is said, ms.
const REGISTER_TIMEOUT_MS: i64 = 3000;
/// The rseq area must hold the words that the producer uses.
const RSEQ_BYTES_MIN: u32 = 20;
/// No rseq.
const ABSENT: isize = isize::MIN;

static TIMEOUT_MS: AtomicI64 = AtomicI64::new(REGISTER_TIMEOUT_MS);
static ALLOW_BLOCKING: AtomicBool = AtomicBool::new(false);
static DEBUG: AtomicBool = AtomicBool::new(false);
static RECORD: AtomicU64 = AtomicU64::new(0);
static RSEQ_OFFSET: AtomicIsize = AtomicIsize::new(ABSENT);

/// A socket's path, ended by NUL.
#[derive(Clone, Copy)]
pub(crate) struct SocketPath {
    bytes: [u8; SOCKET_PATH_BYTES_MAX],
    length: usize,
}

impl SocketPath {
    /// The path, without NUL.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
    /// The path, with NUL.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
    /// The directory that holds the socket.
    pub(crate) fn directory(&self) -> &[u8] {
        &self.bytes[..self.length - PROGRAMS_SOCKET.len() - 1]
    }

    fn new(directory: &str) -> Option<SocketPath> {
        let length = directory.len() + 1 + PROGRAMS_SOCKET.len();
        if length >= SOCKET_PATH_BYTES_MAX || directory.as_bytes().contains(&0) {
            return None;
        }
        let mut bytes = [0; SOCKET_PATH_BYTES_MAX];
        let parts = directory.bytes().chain(*b"/").chain(PROGRAMS_SOCKET.bytes());
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Some(SocketPath { bytes, length })
    }
}

fn variable(name: &CStr) -> Option<&'static str> {
    // SAFETY: called while the program starts, before it can change its environment.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: `getenv` gives C strings; the environment stays in place.
    unsafe { CStr::from_ptr(value) }.to_str().ok()
}

fn is_secure() -> bool {
    // SAFETY: no pointers.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Reads everything but the paths.
pub(crate) fn read() {
    if !is_secure() {
        if let Some(ms) = variable(c"LTTNG_UST_REGISTER_TIMEOUT").and_then(|v| v.trim().parse().ok()) {
            TIMEOUT_MS.store(ms, Ordering::Relaxed);
        }
        if let Some(token) = variable(c"SILLAGE_RECORD").and_then(|v| v.parse().ok()) {
            RECORD.store(token, Ordering::Relaxed);
        }
        let given = |name| variable(name).is_some();
        ALLOW_BLOCKING.store(given(c"LTTNG_UST_ALLOW_BLOCKING"), Ordering::Relaxed);
        DEBUG.store(given(c"LTTNG_UST_DEBUG") || given(c"SILLAGE_DEBUG"), Ordering::Relaxed);
        if variable(c"SILLAGE_PRODUCER") == Some("locked") {
            return;
        }
    }
    if let Some(offset) = find_rseq() {
        RSEQ_OFFSET.store(offset, Ordering::Relaxed);
    }
}

/// glibc's registration: where the area lies, if it did register one. (We never register ourselves.)
fn find_rseq() -> Option<isize> {
    // SAFETY: names end with NUL; the symbols, if they exist, have these types.
    unsafe {
        let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()).cast::<u32>();
        let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
        (!size.is_null() && !offset.is_null() && *size >= RSEQ_BYTES_MIN).then(|| *offset)
    }
}

/// The sockets of the daemons that this program registers with, root's first.
pub(crate) fn sockets() -> [Option<SocketPath>; 2] {
    let env = if is_secure() {
        Environment::default()
    } else {
        Environment {
            sillage_rundir: variable(c"SILLAGE_RUNDIR"),
            app_path: variable(c"LTTNG_UST_APP_PATH"),
            lttng_home: variable(c"LTTNG_HOME"),
            xdg_runtime_dir: variable(c"XDG_RUNTIME_DIR"),
            home: variable(c"HOME"),
        }
    };
    // SAFETY: no arguments.
    let uid = unsafe { libc::getuid() };
    paths::program_run_dirs(&env, uid).map(|dir| dir.as_deref().and_then(SocketPath::new))
}

/// Where a thread's rseq area lies from its thread pointer; None: rseq is not used.
pub fn rseq_offset() -> Option<isize> {
    match RSEQ_OFFSET.load(Ordering::Relaxed) {
        ABSENT => None,
        offset => Some(offset),
    }
}

/// The producer that this process uses.
pub fn producer_kind() -> ProducerKind {
    if rseq_offset().is_some() { ProducerKind::Rseq } else { ProducerKind::Locked }
}

/// How long a constructor waits, ns; `u64::MAX` for ever.
pub(crate) fn register_timeout_ns() -> u64 {
    match TIMEOUT_MS.load(Ordering::Relaxed) {
        ms if ms < 0 => u64::MAX,
        ms => (ms as u64).saturating_mul(1_000_000),
    }
}

/// True if events may wait for room.
pub fn allow_blocking() -> bool {
    ALLOW_BLOCKING.load(Ordering::Relaxed)
}

/// Token of the `record` command that this program runs under; 0: of none.
pub(crate) fn record() -> u64 {
    RECORD.load(Ordering::Relaxed)
}

/// True if the listener tells what it does.
pub(crate) fn debug() -> bool {
    DEBUG.load(Ordering::Relaxed)
}

/// A line on stderr, if asked for; from the listener's thread alone.
pub(crate) fn say(message: core::fmt::Arguments<'_>) {
    if debug() {
        let line = alloc::format!("sillage[{}]: {message}\n", sys::process_id());
        sys::write(2, line.as_bytes());
    }
}
