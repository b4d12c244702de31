//! A trace of a session, a user's or the kernel's: its directory, its metadata file, and which event ids
//! are taken.
//!
//! An event class gets its id when it is first brought into a channel, and its text is written before
//! any producer is told the id, so that no record can be met without its class. A
//! disk that does not take the text keeps the class waiting, not the daemon: [`Trace::flush`] is tried
//! again, and only classes that are on disk count as [`Trace::ready`].

use crate::limits::CLASSES_MAX;
use crate::model::Origin;
use sillage_consumer::disk::{Disk, write_own};
use sillage_model::Tracepoint;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What makes two event classes of a channel the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A tracepoint of a program, with all that it declares.
    Tracepoint(Arc<Tracepoint>),
    /// An event of the kernel, by name: there is one kernel.
    Kernel(Arc<str>),
    /// An event of a probe: name, place and fields, in words.
    Probe(Arc<str>),
}

/// Ids of one channel's event classes.
#[derive(Default)]
pub struct Registry {
    ids: HashMap<Class, u32>,
    classes: Vec<Class>,
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
    /// Release of its kernel.
    pub kernel_release: String,
    /// Version of its kernel.
    pub kernel_version: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Machine {
            hostname: read("/proc/sys/kernel/hostname"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel_release: read("/proc/sys/kernel/osrelease"),
            kernel_version: read("/proc/sys/kernel/version"),
        }
    }
}

/// One trace.
pub struct Trace<D: Disk> {
    /// Whose it is.
    pub origin: Origin,
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
    /// A new trace with this many channels, whose metadata begin with `header`. Touches no file.
    pub fn new(
        disk: D,
        session_dir: &Path,
        origin: Origin,
        uuid: [u8; 16],
        header: String,
        channels: usize,
    ) -> Trace<D> {
        Trace {
            origin,
            uuid,
            dir: directory(session_dir, origin),
            disk,
            file: None,
            written_bytes: 0,
            pending: header,
            registries: (0..channels).map(|_| Registry::default()).collect(),
        }
    }

    /// A trace that an earlier daemon began: what it had written, and the classes with their ids.
    /// Text behind `written_bytes` is cut off, and `pending` is written, with the next flush.
    pub fn adopt(
        disk: D,
        session_dir: &Path,
        origin: Origin,
        uuid: [u8; 16],
        written_bytes: u64,
        pending: String,
        classes: Vec<(Vec<Class>, u64)>,
    ) -> Trace<D> {
        let registries = classes.into_iter().map(|(classes, refused)| {
            let mut registry = Registry { refused, ..Default::default() };
            for class in classes {
                registry.add(class);
            }
            registry
        });
        let registries = registries.collect();
        let dir = directory(session_dir, origin);
        Trace { origin, uuid, dir, disk, file: None, written_bytes, pending, registries }
    }

    /// The id of an event class in a channel, new if need be: then `text` describes it. None: there are
    /// too many, or the channel does not exist.
    pub fn class(&mut self, channel: usize, class: Class, text: impl FnOnce(u32) -> String) -> Option<u32> {
        let registry = self.registries.get_mut(channel)?;
        if let Some(id) = registry.ids.get(&class) {
            return Some(*id);
        }
        if registry.classes.len() >= CLASSES_MAX {
            registry.refused += 1;
            return None;
        }
        let id = registry.add(class);
        self.pending.push_str(&text(id));
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
            let file = self.open()?;
            self.disk.claim(&file);
            self.file = Some(file);
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
    pub fn classes(&self) -> impl Iterator<Item = (&[Class], u64)> {
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
    fn add(&mut self, class: Class) -> u32 {
        let id = self.classes.len() as u32;
        self.ids.insert(class.clone(), id);
        self.classes.push(class);
        id
    }
}

/// `<session>/kernel`, or `<session>/ust/uid/<uid>/64-bit`.
fn directory(session_dir: &Path, origin: Origin) -> PathBuf {
    match origin {
        Origin::Kernel => session_dir.join("kernel"),
        Origin::User(uid) => session_dir.join("ust").join("uid").join(uid.to_string()).join("64-bit"),
    }
}
