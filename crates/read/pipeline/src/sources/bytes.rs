//! The bytes of a stream file: mapped when possible, else read packet by packet.
//!
//! A mapping covers the file as long as it was when it was opened; a file that grows is seen up to
//! there. Nothing of the content is interpreted. Files that are truncated while they are mapped
//! would end the process, so whoever reads what a foreign program still rewrites asks for
//! [`Access::Read`].

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Advice, Mmap};

use crate::Error;

/// How to get at a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Map the whole file.
    #[default]
    Map,
    /// Read each packet into memory.
    Read,
}

/// An open stream file.
#[derive(Debug)]
pub(crate) struct StreamFile {
    data: Data,
    size_bytes: u64,
}

#[derive(Debug)]
enum Data {
    Mapped(Arc<Mmap>),
    Read {
        file: File,
        /// The range that is in `buffer`.
        from: u64,
        buffer: Vec<u8>,
    },
}

/// The bytes that are read at first to decode the head of a packet whose size is unknown.
pub(crate) const HEAD_SIZE_BYTES: u64 = 4096;

impl StreamFile {
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, Error> {
        let fail = |source| Error::io(path, source);
        let file = File::open(path).map_err(fail)?;
        let size_bytes = file.metadata().map_err(fail)?.len();
        let data = match access {
            Access::Map if size_bytes > 0 => map(&file),
            _ => None,
        };
        let data = match data {
            Some(mapped) => Data::Mapped(Arc::new(mapped)),
            None => Data::Read { file, from: 0, buffer: Vec::new() },
        };
        Ok(Self { data, size_bytes })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Makes `len` bytes from `from` on available to [`get`](Self::get); fewer at the end of the
    /// file. Forgets what was loaded before.
    pub(crate) fn load(&mut self, path: &Path, from: u64, len: u64) -> Result<(), Error> {
        let len = len.min(self.size_bytes.saturating_sub(from)) as usize;
        if let Data::Read { file, from: loaded, buffer } = &mut self.data {
            if *loaded == from && buffer.len() >= len {
                return Ok(());
            }
            *loaded = from;
            buffer.clear();
            buffer.resize(len, 0);
            let mut at = 0;
            while at < len {
                match file.read_at(&mut buffer[at..], from + at as u64) {
                    Ok(0) => break,
                    Ok(count) => at += count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Error::io(path, error)),
                }
            }
            buffer.truncate(at);
        }
        Ok(())
    }

    /// Up to `len` bytes from `from` on, of what is loaded.
    #[inline]
    pub(crate) fn get(&self, from: u64, len: u64) -> &[u8] {
        let (data, from): (&[u8], u64) = match &self.data {
            Data::Mapped(mapped) => (mapped, from),
            Data::Read { from: loaded, buffer, .. } => {
                let Some(from) = from.checked_sub(*loaded) else {
                    return &[];
                };
                (buffer, from)
            }
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(data.len());
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(data.len() - from);
        &data[from..from + len]
    }

    /// The mapping and where `len` bytes from `from` on are in it; `None` when it is not mapped.
    pub(crate) fn mapped(&self, from: u64, len: u64) -> Option<(Arc<Mmap>, Range<usize>)> {
        let Data::Mapped(map) = &self.data else {
            return None;
        };
        let from = usize::try_from(from).ok()?.min(map.len());
        let len = usize::try_from(len).ok()?.min(map.len() - from);
        Some((Arc::clone(map), from..from + len))
    }

    /// Whether everything is always loaded.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.data, Data::Mapped(_))
    }
}

/// Maps a file for reading from front to back; `None` when the file system can not.
pub(crate) fn map(file: &File) -> Option<Mmap> {
    // SAFETY: the mapping is only ever read, and the caller chose `Access::Map` for a file that
    // is not truncated while it is read (see the module's text).
    let mapped = unsafe { Mmap::map(file) }.ok()?;
    // Only a hint: the mapping is as good without it.
    let _ = mapped.advise(Advice::Sequential);
    Some(mapped)
}
