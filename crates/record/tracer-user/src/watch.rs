//! Notices when a daemon's socket appears: inotify on its directory, or on the nearest directory
//! above that exists.
//!
//! The watch is made only when a daemon is missing, and then stays: the kernel takes milliseconds to
//! take one down.

use crate::connection::OwnFd;
use crate::settings::SocketPath;
use crate::sys;
use alloc::vec::Vec;
use core::sync::atomic::AtomicI32;

/// What makes a path appear in a directory.
const EVENTS: u32 = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ONLYDIR;

/// The watches.
pub(crate) struct Watch {
    fd: Option<OwnFd>,
    slot: &'static AtomicI32,
}

impl Watch {
    pub(crate) const fn new(slot: &'static AtomicI32) -> Watch {
        Watch { fd: None, slot }
    }

    /// The descriptor to poll. None: nothing is watched, or the program took the descriptor.
    pub(crate) fn poll(&self) -> Option<i32> {
        self.fd.as_ref().and_then(OwnFd::get)
    }

    /// Watches for each of the sockets. False: the kernel has no watch for us.
    pub(crate) fn start<'a>(&mut self, sockets: impl Iterator<Item = &'a SocketPath>) -> bool {
        let fd = match self.poll() {
            Some(fd) => fd,
            None => {
                let flags = (libc::IN_CLOEXEC | libc::IN_NONBLOCK) as usize;
                // SAFETY: no pointers.
                let fd = unsafe { sys::syscall(libc::SYS_inotify_init1, [flags, 0, 0, 0, 0, 0]) as i32 };
                if fd < 0 {
                    return false;
                }
                // A descriptor that was taken from us is not closed by its `Drop`.
                let own = OwnFd::new(fd, self.slot);
                let fd = own.get();
                self.fd = Some(own);
                let Some(fd) = fd else { return false };
                fd
            }
        };
        let mut all = true;
        for socket in sockets {
            all &= watch_nearest(fd, socket.directory());
        }
        all
    }

    /// In a forked child: the descriptor is shared with the parent.
    pub(crate) fn abandon(&mut self) {
        core::mem::forget(self.fd.take());
    }

    /// Takes what is there to read.
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 1024];
        while self.poll().is_some_and(|fd| sys::read(fd, &mut bytes) > 0) {}
    }
}

/// Watches `directory`, or the nearest one above it that exists.
fn watch_nearest(fd: i32, directory: &[u8]) -> bool {
    let mut length = directory.len();
    loop {
        let mut path: Vec<u8> = directory[..length].to_vec();
        if path.is_empty() {
            path.push(b'/');
        }
        path.push(0);
        // SAFETY: the path ends with its NUL.
        let watch = unsafe {
            sys::syscall(
                libc::SYS_inotify_add_watch,
                [fd as usize, path.as_ptr() as usize, EVENTS as usize, 0, 0, 0],
            )
        };
        if watch >= 0 {
            return true;
        }
        if length == 0 {
            return false;
        }
        length = directory[..length].iter().rposition(|b| *b == b'/').unwrap_or(0);
    }
}
