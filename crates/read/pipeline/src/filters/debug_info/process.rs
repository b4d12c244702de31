//! What a traced process has mapped, as its state dump and loader events tell it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::object::{Identity, ObjectFile, build_id};

/// The texts of an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Texts {
    pub bin: String,
    pub func: String,
    pub src: String,
}

/// How names of files are told, and where files are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub full_path: bool,
    pub target_prefix: Option<PathBuf>,
    pub debug_directory: PathBuf,
}

impl Places {
    /// A path of the traced system on this one.
    fn here(&self, path: &str) -> PathBuf {
        match &self.target_prefix {
            Some(prefix) => prefix.join(path.trim_start_matches('/')),
            None => PathBuf::from(path),
        }
    }

    fn shown<'a>(&self, path: &'a str) -> &'a str {
        if self.full_path { path } else { path.rsplit('/').next().unwrap_or(path) }
    }
}

/// An executable or library that a process has mapped.
#[derive(Debug)]
struct Binary {
    base: u64,
    size_bytes: u64,
    path: String,
    is_pic: bool,
    identity: Identity,
    /// The file here has the build id that the trace tells; none as long as that tells none.
    matches: Option<bool>,
    file: Option<Rc<ObjectFile>>,
}

/// A file with the build id and the debug link by which its debug information was looked for.
type FileKey = (PathBuf, Option<Vec<u8>>, Option<String>);

/// Files that were opened, for all processes.
#[derive(Debug, Default)]
pub(super) struct Files {
    opened: HashMap<FileKey, Rc<ObjectFile>>,
}

impl Files {
    fn open(&mut self, path: &Path, identity: &Identity, places: &Places) -> Rc<ObjectFile> {
        let link = identity.debug_link.as_ref().map(|(name, _)| name.clone());
        let key = (path.to_path_buf(), identity.build_id.clone(), link);
        let open = || Rc::new(ObjectFile::open(path, identity, &places.debug_directory));
        Rc::clone(self.opened.entry(key).or_insert_with(open))
    }
}

/// A traced process.
#[derive(Debug, Default)]
pub(super) struct Process {
    binaries: BTreeMap<u64, Binary>,
    /// Babeltrace tells the same of an address until the next state dump, whatever comes between.
    known: HashMap<u64, Rc<Texts>>,
}

impl Process {
    /// A state dump begins: everything will be told again.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn map(&mut self, base: u64, size_bytes: u64, path: &str, is_pic: bool) {
        // The vDSO has no size and no file.
        if size_bytes == 0 {
            return;
        }
        self.binaries.entry(base).or_insert_with(|| Binary {
            base,
            size_bytes,
            path: path.to_owned(),
            is_pic,
            identity: Identity::default(),
            matches: None,
            file: None,
        });
    }

    pub(super) fn unmap(&mut self, base: u64) {
        self.binaries.remove(&base);
    }

    pub(super) fn set_build_id(&mut self, base: u64, id: Vec<u8>, places: &Places) {
        if let Some(binary) = self.binaries.get_mut(&base) {
            binary.matches = Some(build_id(&places.here(&binary.path)).as_ref() == Some(&id));
            binary.identity.build_id = Some(id);
            binary.file = None;
        }
    }

    pub(super) fn set_debug_link(&mut self, base: u64, name: String, checksum: u32) {
        if let Some(binary) = self.binaries.get_mut(&base) {
            binary.identity.debug_link = Some((name, checksum));
            binary.file = None;
        }
    }

    /// What is known of an address; nothing for one that is in no binary.
    pub(super) fn look_up(&mut self, address: u64, files: &mut Files, places: &Places) -> Rc<Texts> {
        if let Some(known) = self.known.get(&address) {
            return Rc::clone(known);
        }
        let (_, binary) = match self.binaries.range_mut(..=address).next_back() {
            Some(entry) if address - entry.1.base < entry.1.size_bytes => entry,
            _ => return Rc::default(),
        };
        if binary.matches == Some(false) {
            // Another version of the file is here.
            return Rc::default();
        }
        let path = places.here(&binary.path);
        let file = binary.file.get_or_insert_with(|| files.open(&path, &binary.identity, places));
        let inside = if binary.is_pic { address - binary.base } else { address };
        let sign = if binary.is_pic { '+' } else { '@' };
        let path_text = path.to_string_lossy();
        let texts = Rc::new(Texts {
            bin: format!("{}{sign}{inside:#x}", places.shown(&path_text)),
            func: file.function(inside).map_or_else(String::new, |f| format!("{}+{:#x}", f.name, f.offset)),
            src: file
                .source_line(inside)
                .map_or_else(String::new, |s| format!("{}:{}", places.shown(&s.file), s.line)),
        });
        self.known.insert(address, Rc::clone(&texts));
        texts
    }
}
