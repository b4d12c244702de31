//! Where streams are written: the file system with the rights of a session's owner, or a fake of it.
//!
//! Bytes to write lie in memory that other processes share, so they travel as raw [`Piece`]s and
//! never as slices.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Bytes somewhere in memory.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The first one.
    pub start: *const u8,
    /// How many.
    pub bytes: usize,
}

impl Piece {
    /// A piece of our own memory.
    pub fn of(bytes: &[u8]) -> Piece {
        Piece { start: bytes.as_ptr(), bytes: bytes.len() }
    }

    /// What is left of it behind its first `bytes` bytes.
    fn behind(self, bytes: usize) -> Piece {
        Piece { start: self.start.wrapping_add(bytes), bytes: self.bytes - bytes }
    }
}

/// What streams and metadata need of a file system.
pub trait Disk {
    /// An open file.
    type File;
    /// Makes a directory and those above it, mode 0770.
    ///
    /// # Errors
    /// The file system's.
    fn make_dirs(&self, path: &Path) -> io::Result<()>;
    /// Makes an empty file, mode 0660, in the place of one that may be there.
    ///
    /// # Errors
    /// The file system's.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file that is there, for writing.
    ///
    /// # Errors
    /// The file system's.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Writes the pieces one after the other at `offset`; returns how many bytes it took.
    ///
    /// # Errors
    /// The file system's.
    ///
    /// # Safety
    /// The pieces are readable until the call returns. Others may change them meanwhile.
    unsafe fn write_at(&self, file: &Self::File, pieces: &[Piece], offset: u64) -> io::Result<usize>;
    /// Cuts a file to `bytes`.
    ///
    /// # Errors
    /// The file system's.
    fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;
    /// Bytes of a file from `offset` on, as many as there are and fit.
    ///
    /// # Errors
    /// The file system's.
    fn read_at(&self, file: &Self::File, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Tells others that the file is being written, as long as it is open.
    fn claim(&self, file: &Self::File);
    /// True if nobody else claimed the file, and nobody can as long as it is open here.
    fn claim_alone(&self, file: &Self::File) -> bool;
    /// True if an open file has no name any more.
    fn is_removed(&self, file: &Self::File) -> bool;
    /// Removes a file.
    ///
    /// # Errors
    /// The file system's.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// All bytes of a (small) file.
    ///
    /// # Errors
    /// The file system's.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Bytes of a file.
    ///
    /// # Errors
    /// The file system's.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// Names of the entries of a directory.
    ///
    /// # Errors
    /// The file system's.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Writes all pieces at `offset`, or none: what a failed write left is cut off again.
    ///
    /// # Errors
    /// The file system's; a write that takes nothing is `WriteZero`.
    ///
    /// # Safety
    /// As `write_at`.
    unsafe fn write_all_at(&self, file: &Self::File, pieces: &[Piece], offset: u64) -> io::Result<()> {
        let mut left: Vec<Piece> = pieces.iter().filter(|piece| piece.bytes > 0).copied().collect();
        let mut at = offset;
        while !left.is_empty() {
            // SAFETY: passed on from the caller; `left` are parts of its pieces.
            let failed = match unsafe { self.write_at(file, &left, at) } {
                Ok(0) => io::Error::from(io::ErrorKind::WriteZero),
                Ok(bytes) => {
                    at += bytes as u64;
                    advance(&mut left, bytes);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            if at > offset {
                self.truncate(file, offset)?;
            }
            return Err(failed);
        }
        Ok(())
    }
}

/// Writes our own bytes at `offset`, all or none.
///
/// # Errors
/// The file system's.
pub fn write_own<D: Disk>(disk: &D, file: &D::File, bytes: &[u8], offset: u64) -> io::Result<()> {
    // SAFETY: the slice is borrowed for the whole call.
    unsafe { disk.write_all_at(file, &[Piece::of(bytes)], offset) }
}

fn advance(pieces: &mut Vec<Piece>, mut bytes: usize) {
    pieces.retain_mut(|piece| {
        let taken = bytes.min(piece.bytes);
        *piece = piece.behind(taken);
        bytes -= taken;
        piece.bytes > 0
    });
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files {
    /// Uid and gid with whose rights files are made; None: the daemon's own. A root daemon sets it
    /// for the sessions of other users, who must not write where they may not.
    pub owner: Option<(u32, u32)>,
}

impl Files {
    fn as_owner<T>(&self, act: impl FnOnce() -> T) -> T {
        let Some((uid, gid)) = self.owner else { return act() };
        // SAFETY: these calls change the file-system ids of this thread alone, and are undone below.
        let (before_gid, before_uid) = unsafe { (libc::setfsgid(gid), libc::setfsuid(uid)) };
        let result = act();
        // SAFETY: as above.
        unsafe {
            libc::setfsuid(before_uid as libc::uid_t);
            libc::setfsgid(before_gid as libc::gid_t);
        }
        result
    }
}

impl Disk for Files {
    type File = File;

    fn make_dirs(&self, path: &Path) -> io::Result<()> {
        self.as_owner(|| DirBuilder::new().recursive(true).mode(0o770).create(path))
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        // Not truncated in place: a reader that has the old file open keeps it.
        self.as_owner(|| {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o660).open(path)
        })
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.as_owner(|| OpenOptions::new().read(true).write(true).open(path))
    }

    unsafe fn write_at(&self, file: &File, pieces: &[Piece], offset: u64) -> io::Result<usize> {
        const PIECES_MAX: usize = 8;
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES_MAX];
        for (vector, piece) in vectors.iter_mut().zip(pieces) {
            *vector = libc::iovec { iov_base: piece.start.cast_mut().cast(), iov_len: piece.bytes };
        }
        let count = pieces.len().min(PIECES_MAX) as i32;
        let offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: the caller keeps the pieces readable; the kernel only reads them.
        let written = unsafe { libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), count, offset) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    fn truncate(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            match file.read_at(&mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn claim(&self, file: &File) {
        // Where there are no locks, nobody is told.
        let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockShared);
    }

    fn claim_alone(&self, file: &File) -> bool {
        let lock = rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        lock != Err(rustix::io::Errno::WOULDBLOCK)
    }

    fn is_removed(&self, file: &File) -> bool {
        // Should the kernel not tell, writing goes on.
        file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.as_owner(|| std::fs::remove_file(path))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.as_owner(|| std::fs::read(path))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.as_owner(|| std::fs::metadata(path)).map(|metadata| metadata.len())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = self.as_owner(|| std::fs::read_dir(path))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A file system in memory, with so much room and no more.

    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::rc::Rc;

    /// Files by path, and the bytes that they may still grow by.
    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) files: RefCell<BTreeMap<PathBuf, Rc<RefCell<Vec<u8>>>>>,
        pub(crate) room: Cell<usize>,
    }

    impl Fake {
        pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
            self.files.borrow()[Path::new(path)].borrow().clone()
        }

        pub(crate) fn listing(&self) -> String {
            let files = self.files.borrow();
            files.iter().map(|(p, f)| format!("{} {}\n", p.display(), f.borrow().len())).collect()
        }
    }

    impl Disk for Fake {
        type File = Rc<RefCell<Vec<u8>>>;
        fn make_dirs(&self, _path: &Path) -> io::Result<()> {
            Ok(())
        }
        fn create(&self, path: &Path) -> io::Result<Self::File> {
            let file = Rc::new(RefCell::new(Vec::new()));
            self.files.borrow_mut().insert(path.to_owned(), Rc::clone(&file));
            Ok(file)
        }
        fn open(&self, path: &Path) -> io::Result<Self::File> {
            let files = self.files.borrow();
            files.get(path).map(Rc::clone).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        }
        unsafe fn write_at(&self, file: &Self::File, pieces: &[Piece], offset: u64) -> io::Result<usize> {
            let mut file = file.borrow_mut();
            let mut bytes = Vec::new();
            for piece in pieces {
                // SAFETY: the caller keeps the pieces readable.
                bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(piece.start, piece.bytes) });
            }
            let end = (offset as usize + bytes.len()).min(file.len() + self.room.get());
            if end <= offset as usize {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            let taken = end - offset as usize;
            self.room.set(self.room.get() - end.saturating_sub(file.len()));
            if file.len() < end {
                file.resize(end, 0);
            }
            file[offset as usize..end].copy_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()> {
            let mut file = file.borrow_mut();
            self.room.set(self.room.get() + file.len().saturating_sub(bytes as usize));
            file.resize(bytes as usize, 0);
            Ok(())
        }
        fn read_at(&self, file: &Self::File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
            let file = file.borrow();
            let from = file.get(offset as usize..).unwrap_or_default();
            let count = from.len().min(bytes.len());
            bytes[..count].copy_from_slice(&from[..count]);
            Ok(count)
        }
        fn claim(&self, _file: &Self::File) {}
        fn claim_alone(&self, _file: &Self::File) -> bool {
            true
        }
        fn is_removed(&self, file: &Self::File) -> bool {
            !self.files.borrow().values().any(|other| Rc::ptr_eq(other, file))
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            if let Some(file) = self.files.borrow_mut().remove(path) {
                self.room.set(self.room.get() + file.borrow().len());
            }
            Ok(())
        }
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            Ok(self.open(path)?.borrow().clone())
        }
        fn size(&self, path: &Path) -> io::Result<u64> {
            Ok(self.open(path)?.borrow().len() as u64)
        }
        fn list(&self, path: &Path) -> io::Result<Vec<String>> {
            let files = self.files.borrow();
            let below = files.keys().filter_map(|p| p.strip_prefix(path).ok()?.iter().next()?.to_str());
            let names: std::collections::BTreeSet<&str> = below.collect();
            Ok(names.into_iter().map(String::from).collect())
        }
    }
}
