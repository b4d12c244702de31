//! The run directory: its rights, the lock that makes a daemon the only one, pid files, sockets.
//!
//! Root's directory can be entered by everybody (programs register there) and its control socket
//! belongs to the `tracing` group, as LTTng's; a user's directory is the user's alone.

use crate::tracking::number_of;
use rustix::fs::{FlockOperation, Gid, Mode, OFlags};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The group whose members may control root's daemon.
const GROUP: &str = "tracing";

/// The run directory of this process's user.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    root: bool,
}

impl RunDir {
    /// Makes the directory if it is not there.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(path: &Path) -> io::Result<RunDir> {
        let root = rustix::process::geteuid().is_root();
        if !path.is_dir() {
            let mode = if root { 0o755 } else { 0o700 };
            std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
        }
        Ok(RunDir { path: path.to_owned(), root })
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes the lock; None if another daemon has it. It is held as long as any copy of the
    /// descriptor is open.
    ///
    /// # Errors
    /// The file system's.
    pub fn lock(&self) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.file("daemon.lock"), flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a process id, so that nobody ever reads half of it.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_pid(&self, name: &str, pid: u32) -> io::Result<()> {
        self.write(name, &format!("{pid}\n"))
    }

    /// Writes a small file that others may read, so that nobody ever reads half of it.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let new = self.file(&format!("{name}.new"));
        // Whatever the process's mask: nobody else may write it.
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::open(&new, flags, Mode::from_raw_mode(0o644))?;
        std::fs::File::from(file).write_all(text.as_bytes())?;
        std::fs::rename(new, self.file(name))
    }

    /// Listens on a socket of this name, in the place of one that a dead daemon left.
    ///
    /// # Errors
    /// The file system's or the socket's.
    pub fn listen(&self, name: &str, who: Who) -> io::Result<UnixListener> {
        let path = self.file(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let mode = match (who, self.root) {
            (Who::Programs, true) => 0o666,
            (Who::Clients, true) => {
                if let Some(gid) = group(GROUP) {
                    match rustix::fs::chown(&path, None, Some(Gid::from_raw(gid))) {
                        // A group that this user namespace does not have has no members in it either.
                        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                0o660
            }
            (_, false) => 0o600,
        };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Removes the sockets and pid files.
    pub fn clean(&self, names: &[&str]) {
        for name in names {
            // What is not there need not be removed; what cannot be is replaced by the next daemon.
            let _ = std::fs::remove_file(self.file(name));
        }
    }
}

/// Who connects to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Traced programs.
    Programs,
    /// The command line.
    Clients,
}

/// The id of a group, from the group file.
fn group(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    number_of(&groups, name)?.try_into().ok()
}
