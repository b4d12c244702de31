//! A user's trace in a session: its directory, its metadata file, and which event ids are taken.
//!
//! An event class gets its id when a program of the user first brings it into a channel, and its text
//! is written before any program is told the id, so that no record can be met without its class. A
//! disk that does not take the text keeps the class waiting, not the daemon: [`Trace::flush`] is tried
//! again, and only classes that are on disk count as [`Trace::ready`].

use crate::limits::CLASSES_MAX;
use crate::tsdl;
use sillage_consumer::disk::{Disk, write_own};
use sillage_model::Tracepoint;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Ids of one channel's event classes.
#[derive(Default)]
pub struct Registry {
    ids: HashMap<Arc<Tracepoint>, u32>,
    classes: Vec<Arc<Tracepoint>>,
    /// Classes whose text is on disk.
    written: usize,
    /// Classes that found no id.
    pub refused: u64,
}

/// What a machine says of itself in every trace.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Its name.
    pub hostname: String,
    /// Its boot id.
    pub boot_id: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Machine {
            hostname: read("/proc/sys/kernel/hostname"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
        }
    }
}

/// One user's trace.
pub struct Trace<D: Disk> {
    /// Its user.
    pub uid: u32,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its directory.
    pub dir: PathBuf,
    disk: D,
    file: Option<D::File>,
    /// Bytes of metadata on disk.
    written_bytes: u64,
    pending: String,
    registries: Vec<Registry>,
}

impl<D: Disk> Trace<D> {
    /// A new trace with this many channels. Touches no file.
    pub fn new(disk: D, session_dir: &Path, header: &tsdl::Header<'_>, channels: usize) -> Trace<D> {
        Trace {
            uid: header.uid,
            uuid: header.uuid,
            dir: directory(session_dir, header.uid),
            disk,
            file: None,
            written_bytes: 0,
            pending: tsdl::header(header, channels),
            registries: (0..channels).map(|_| Registry::default()).collect(),
        }
    }

    /// A trace that an earlier daemon began: what it had written, and the classes with their ids.
    /// Text behind `written_bytes` is cut off, and `pending` is written, with the next flush.
    pub fn adopt(
        disk: D,
        session_dir: &Path,
        uid: u32,
        uuid: [u8; 16],
        written_bytes: u64,
        pending: String,
        classes: Vec<(Vec<Tracepoint>, u64)>,
    ) -> Trace<D> {
        let registries = classes.into_iter().map(|(classes, refused)| {
            let mut registry = Registry { refused, ..Default::default() };
            for class in classes {
                registry.add(Arc::new(class));
            }
            registry
        });
        let registries = registries.collect();
        let dir = directory(session_dir, uid);
        Trace { uid, uuid, dir, disk, file: None, written_bytes, pending, registries }
    }

    /// The id of an event class in a channel, new if need be. None: there are too many, or the channel
    /// does not exist.
    pub fn class(&mut self, channel: usize, tracepoint: &Arc<Tracepoint>) -> Option<u32> {
        let registry = self.registries.get_mut(channel)?;
        if let Some(id) = registry.ids.get(tracepoint) {
            return Some(*id);
        }
        if registry.classes.len() >= CLASSES_MAX {
            registry.refused += 1;
            return None;
        }
        let id = registry.add(Arc::clone(tracepoint));
        self.pending.push_str(&tsdl::event_class(tracepoint, id, channel));
        Some(id)
    }

    /// True once the class is on disk.
    pub fn ready(&self, channel: usize, id: u32) -> bool {
        self.registries.get(channel).is_some_and(|registry| (id as usize) < registry.written)
    }

    /// True if some text waits.
    pub fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes the text that waits.
    ///
    /// # Errors
    /// The disk's; the file ends where it ended before.
    pub fn flush(&mut self) -> io::Result<()> {
        // An earlier daemon's file is opened in any case: what was torn off is cut away.
        if !self.waits() && (self.file.is_some() || self.written_bytes == 0) {
            for registry in &mut self.registries {
                registry.written = registry.classes.len();
            }
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(self.open()?);
        }
        let Some(file) = &self.file else { return Ok(()) };
        write_own(&self.disk, file, self.pending.as_bytes(), self.written_bytes)?;
        self.written_bytes += self.pending.len() as u64;
        self.pending = String::new();
        for registry in &mut self.registries {
            registry.written = registry.classes.len();
        }
        Ok(())
    }

    fn open(&self) -> io::Result<D::File> {
        let path = self.dir.join("metadata");
        if self.written_bytes == 0 {
            self.disk.make_dirs(&self.dir)?;
            return self.disk.create(&path);
        }
        let file = self.disk.open(&path)?;
        self.disk.truncate(&file, self.written_bytes)?;
        Ok(file)
    }

    /// Channel by channel: the classes in id order, and how many found no id.
    pub fn classes(&self) -> impl Iterator<Item = (&[Arc<Tracepoint>], u64)> {
        self.registries.iter().map(|registry| (registry.classes.as_slice(), registry.refused))
    }

    /// Classes of a channel that found no id, or that wait for the disk.
    pub fn refused(&self, channel: usize) -> u64 {
        let registry = self.registries.get(channel);
        registry.map_or(0, |r| r.refused + (r.classes.len() - r.written) as u64)
    }

    /// Bytes on disk, and the text that waits.
    pub fn metadata(&self) -> (u64, &str) {
        (self.written_bytes, &self.pending)
    }
}

impl Registry {
    fn add(&mut self, class: Arc<Tracepoint>) -> u32 {
        let id = self.classes.len() as u32;
        self.ids.insert(Arc::clone(&class), id);
        self.classes.push(class);
        id
    }
}

/// `<session>/ust/uid/<uid>/64-bit`.
fn directory(session_dir: &Path, uid: u32) -> PathBuf {
    session_dir.join("ust").join("uid").join(uid.to_string()).join("64-bit")
}
