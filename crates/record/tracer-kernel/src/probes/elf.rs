//! Places in ELF files: functions by their symbols, SDT probes by their notes, both as offsets in the file,
//! which is what the kernel wants. Only the parts that are needed are read, however large the file is.

use super::{Identity, ProbeError, Probed};
use crate::catalogue::near;
use crate::recipe::Name;
use object::read::ReadCache;
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind};
use std::borrow::Cow;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Notes of SDT probes, and what tells by how much the file was moved since they were written.
const NOTES: &str = ".note.stapsdt";
const BASE: &str = ".stapsdt.base";
const OWNER: &[u8] = b"stapsdt\0";
const KIND: u32 = 3;

/// An SDT probe's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SdtSite {
    /// The instruction, in the file.
    pub(super) offset: u64,
    /// The counter of those who listen, in the file; 0: it has none.
    pub(super) semaphore: u64,
    /// The instruction, in the program's own addresses.
    pub(super) address: u64,
    /// Where its arguments are, in the assembler's words.
    pub(super) arguments: Vec<String>,
}

/// A program or library.
pub(super) struct Elf {
    path: PathBuf,
    /// Which version of the file this is.
    identity: Identity,
    /// The file itself, whatever has its name later.
    file: Arc<File>,
    symbols: Vec<Symbol>,
    /// Address, offset in the file and bytes of what is loaded.
    segments: Vec<(u64, u64, u64)>,
    notes: Vec<Note>,
    stripped: bool,
}

struct Symbol {
    name: String,
    address: u64,
    is_code: bool,
}

/// An SDT probe as its note has it.
struct Note {
    address: u64,
    semaphore: u64,
    provider: String,
    name: String,
    arguments: Vec<String>,
}

impl Elf {
    /// Reads what is needed of a file.
    pub(super) fn open(path: &Path) -> Result<Elf, ProbeError> {
        let failed = |error| ProbeError::File { path: path.into(), error };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(std::io::Error::other("not a file")));
        }
        let file = Arc::new(file);
        let cache = ReadCache::new(&*file);
        let broken = |reason: String| ProbeError::NoElf { path: path.into(), reason };
        let elf = object::File::parse(&cache).map_err(|error| broken(error.to_string()))?;
        if elf.format() != object::BinaryFormat::Elf {
            return Err(broken(format!("{:?}", elf.format())));
        }
        let symbol = |symbol: object::Symbol<'_, '_, _>| {
            let is_code = symbol.kind() == SymbolKind::Text;
            Some(Symbol { name: symbol.name().ok()?.to_owned(), address: symbol.address(), is_code })
                .filter(|_| symbol.is_definition())
        };
        let stripped = elf.symbols().next().is_none();
        let symbols = elf.symbols().chain(elf.dynamic_symbols()).filter_map(symbol).collect();
        let segments = elf.segments().map(|segment| {
            let (offset, bytes) = segment.file_range();
            (segment.address(), offset, bytes)
        });
        let segments = segments.collect();
        let data = |name| elf.section_by_name(name).and_then(|section| section.data().ok());
        let base = elf.section_by_name(BASE).map(|section| section.address());
        let words = Words { is_64: elf.is_64(), is_little: elf.is_little_endian() };
        let notes = data(NOTES).map(|bytes| words.notes(bytes, base)).unwrap_or_default();
        let identity = Identity::from(&metadata);
        Ok(Elf { path: path.into(), identity, file: Arc::clone(&file), symbols, segments, notes, stripped })
    }

    /// What the kernel finds this very file by.
    pub(super) fn place(&self) -> Name {
        Cow::Owned(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// The file, for whoever probes it.
    pub(super) fn probed(&self) -> Probed {
        Probed { path: self.path.clone(), identity: self.identity, _file: Arc::clone(&self.file) }
    }

    /// Where an address is in the file.
    fn offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|(start, offset, bytes)| {
            let inside = address.checked_sub(*start)?;
            (inside < *bytes).then(|| offset.checked_add(inside))?
        })
    }

    /// A symbol's address in the program.
    pub(super) fn address(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.address)
    }

    /// Where a function begins.
    pub(super) fn function(&self, name: &str) -> Result<u64, ProbeError> {
        let functions = || self.symbols.iter().filter(|symbol| symbol.is_code);
        let found = functions().find(|symbol| symbol.name == name);
        found.and_then(|symbol| self.offset(symbol.address)).ok_or_else(|| {
            let near = near(functions().map(|symbol| symbol.name.as_str()), name);
            let mut hint = match near.is_empty() {
                true => String::new(),
                false => format!(" (near names: {})", near.join(", ")),
            };
            if self.stripped {
                hint.push_str(" (it is stripped: only what it exports has names)");
            }
            ProbeError::NoSymbol { path: self.path.clone(), symbol: name.into(), hint }
        })
    }

    /// All places of an SDT probe.
    pub(super) fn sdt(&self, provider: &str, name: &str) -> Result<Vec<SdtSite>, ProbeError> {
        let of = |note: &&Note| note.provider == provider && note.name == name;
        let site = |note: &Note| {
            // A counter that is in no file part would be in memory that nobody loads from it.
            let semaphore = if note.semaphore == 0 { 0 } else { self.offset(note.semaphore)? };
            let (address, arguments) = (note.address, note.arguments.clone());
            Some(SdtSite { offset: self.offset(address)?, semaphore, address, arguments })
        };
        let sites: Vec<SdtSite> = self.notes.iter().filter(of).filter_map(site).collect();
        if !sites.is_empty() {
            return Ok(sites);
        }
        let names: Vec<String> =
            self.notes.iter().map(|note| format!("{}:{}", note.provider, note.name)).collect();
        let near = near(names.iter().map(String::as_str), &format!("{provider}:{name}"));
        let hint = match (names.is_empty(), near.is_empty()) {
            (true, _) => " (it has none at all)".into(),
            (false, true) => String::new(),
            (false, false) => format!(" (near names: {})", near.join(", ")),
        };
        Err(ProbeError::NoSdt { path: self.path.clone(), provider: provider.into(), name: name.into(), hint })
    }
}

/// A note as it lies in the file.
struct RawNote<'a> {
    owner: &'a [u8],
    kind: u32,
    description: &'a [u8],
}

/// How numbers lie in a file.
#[derive(Clone, Copy)]
struct Words {
    is_64: bool,
    is_little: bool,
}

impl Words {
    fn half(self, bytes: &[u8]) -> Option<(u32, &[u8])> {
        let (first, rest) = bytes.split_first_chunk::<4>()?;
        Some((if self.is_little { u32::from_le_bytes(*first) } else { u32::from_be_bytes(*first) }, rest))
    }

    fn address(self, bytes: &[u8]) -> Option<(u64, &[u8])> {
        if !self.is_64 {
            return self.half(bytes).map(|(word, rest)| (word.into(), rest));
        }
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        Some((if self.is_little { u64::from_le_bytes(*first) } else { u64::from_be_bytes(*first) }, rest))
    }

    /// The notes of a section. One that ends early ends the list.
    fn notes(self, mut bytes: &[u8], base: Option<u64>) -> Vec<Note> {
        let mut notes = Vec::new();
        while let Some((note, rest)) = self.next(bytes) {
            bytes = rest;
            if note.owner == OWNER && note.kind == KIND {
                notes.extend(self.note(note.description, base));
            }
        }
        notes
    }

    fn next(self, bytes: &[u8]) -> Option<(RawNote<'_>, &[u8])> {
        let (owner_bytes, rest) = self.half(bytes)?;
        let (description_bytes, rest) = self.half(rest)?;
        let (kind, rest) = self.half(rest)?;
        let part = |bytes: &'_ [u8], count: u32| -> Option<(usize, usize)> {
            let count = count as usize;
            let padded = count.checked_next_multiple_of(4)?.min(bytes.len());
            (count <= bytes.len()).then_some((count, padded))
        };
        let (count, padded) = part(rest, owner_bytes)?;
        let (owner, rest) = (&rest[..count], &rest[padded..]);
        let (count, padded) = part(rest, description_bytes)?;
        Some((RawNote { owner, kind, description: &rest[..count] }, &rest[padded..]))
    }

    fn note(self, bytes: &[u8], base: Option<u64>) -> Option<Note> {
        let (address, rest) = self.address(bytes)?;
        let (written_base, rest) = self.address(rest)?;
        let (semaphore, rest) = self.address(rest)?;
        // Tools that moved the file left the notes as they were.
        let moved = |address: u64| match base {
            Some(base) => address.wrapping_add(base.wrapping_sub(written_base)),
            None => address,
        };
        let mut texts = rest.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        Some(Note {
            address: moved(address),
            semaphore: if semaphore == 0 { 0 } else { moved(semaphore) },
            provider: texts.next()?,
            name: texts.next()?,
            arguments: texts.next().unwrap_or_default().split_whitespace().map(String::from).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(words: &[u64], texts: &[u8]) -> Vec<u8> {
        let description: Vec<u8> =
            words.iter().flat_map(|word| word.to_le_bytes()).chain(texts.iter().copied()).collect();
        let mut bytes = Vec::new();
        for word in [8, description.len() as u32, 3] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(OWNER);
        bytes.extend(&description);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn notes_are_read_as_far_as_they_go() {
        let words = Words { is_64: true, is_little: true };
        let mut bytes = note(&[0x1000, 0x2000, 0], b"p\0n\0-4@%edi 8@-8(%rbp)\0");
        bytes.extend(note(&[0x1010, 0x2000, 0x3000], b"p\0m\0\0"));
        let all = words.notes(&bytes, Some(0x2100));
        assert_eq!((all.len(), all[0].address, all[0].semaphore), (2, 0x1100, 0));
        assert_eq!(all[0].arguments, ["-4@%edi", "8@-8(%rbp)"]);
        assert_eq!((all[1].semaphore, all[1].arguments.len()), (0x3100, 0));
        assert_eq!((all[1].provider.as_str(), all[1].name.as_str()), ("p", "m"));
        for end in 0..bytes.len() {
            assert!(words.notes(&bytes[..end], None).len() <= 2);
        }
        assert!(words.notes(&[0xff; 64], None).is_empty());
    }
}
