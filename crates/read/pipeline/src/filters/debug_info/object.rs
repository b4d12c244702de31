//! One executable or library on this machine: its build id, symbols and DWARF.
//!
//! Debug information is looked for as Babeltrace does: in the file itself, by build id below the
//! debug directory, by debug link beside the file and below the debug directory. A supplementary
//! file (as Debian's packages have) is followed. Files are parsed by `object`, `gimli` and
//! `addr2line`; what they can not read counts as not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::Context;
use gimli::{EndianArcSlice, RunTimeEndian, SectionId};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

type Slice = EndianArcSlice<RunTimeEndian>;

/// Name of a function and the distance from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub name: String,
    pub offset: u64,
}

/// A place in a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceLine {
    pub file: String,
    pub line: u32,
}

/// Build id and debug link as the trace tells them.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    pub build_id: Option<Vec<u8>>,
    /// File name and checksum.
    pub debug_link: Option<(String, u32)>,
}

/// A file's symbols or debug information.
pub(super) struct ObjectFile {
    dwarf: Option<Context<Slice>>,
    /// Functions of the symbol table by address, when there is no DWARF.
    symbols: Vec<(u64, String)>,
}

impl std::fmt::Debug for ObjectFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let symbols = self.symbols.len();
        f.debug_struct("ObjectFile")
            .field("has_dwarf", &self.dwarf.is_some())
            .field("symbols", &symbols)
            .finish()
    }
}

/// The build id that a file has, if it can be read.
pub(super) fn build_id(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let file = object::File::parse(&*bytes).ok()?;
    file.build_id().ok().flatten().map(<[u8]>::to_vec)
}

impl ObjectFile {
    /// Opens a file; one that can not be read knows nothing.
    pub(super) fn open(path: &Path, identity: &Identity, debug_directory: &Path) -> Self {
        let Ok(bytes) = fs::read(path) else {
            return Self { dwarf: None, symbols: Vec::new() };
        };
        let own = object::File::parse(&*bytes).ok();
        let own_dwarf = own.as_ref().and_then(|file| load(file, path));
        let dwarf = own_dwarf.or_else(|| by_build_id(identity, debug_directory));
        let dwarf = dwarf.or_else(|| by_debug_link(path, identity, debug_directory));
        let symbols = match (&dwarf, &own) {
            (None, Some(file)) => functions(file),
            _ => Vec::new(),
        };
        Self { dwarf, symbols }
    }

    /// The function that contains an address of the file.
    pub(super) fn function(&self, address: u64) -> Option<Function> {
        let Some(dwarf) = &self.dwarf else {
            let after = self.symbols.partition_point(|(at, _)| *at <= address);
            let (at, name) = self.symbols.get(after.checked_sub(1)?)?;
            return Some(Function { name: name.clone(), offset: address - at });
        };
        let unit = dwarf.find_dwarf_and_unit(address).skip_all_loads()?;
        let mut outermost = None;
        let mut frames = dwarf.find_frames(address).skip_all_loads().ok()?;
        while let Ok(Some(frame)) = frames.next() {
            outermost = Some(frame);
        }
        let frame = outermost?;
        let entry = unit.entry(frame.dw_die_offset?).ok()?;
        let start = lowest(&unit, &entry)?;
        let name = plain_name(&unit, &entry, 8)
            .or_else(|| frame.function.and_then(|f| f.raw_name().ok().map(std::borrow::Cow::into_owned)))?;
        Some(Function { name, offset: address.checked_sub(start)? })
    }

    /// The line of source at an address; of inlined code, that which calls it.
    pub(super) fn source_line(&self, address: u64) -> Option<SourceLine> {
        let dwarf = self.dwarf.as_ref()?;
        let mut outermost = None;
        let mut frames = dwarf.find_frames(address).skip_all_loads().ok()?;
        while let Ok(Some(frame)) = frames.next() {
            outermost = frame.location;
        }
        let location = outermost?;
        Some(SourceLine { file: location.file?.to_owned(), line: location.line? })
    }
}

/// The name as it is in the source, not the linker's; `depth` bounds the references followed.
fn plain_name(
    unit: &gimli::UnitRef<'_, Slice>,
    entry: &gimli::DebuggingInformationEntry<Slice>,
    depth: u32,
) -> Option<String> {
    use gimli::Reader as _;
    if let Some(value) = entry.attr_value(gimli::DW_AT_name) {
        let text = unit.attr_string(value).ok()?;
        return Some(text.to_string_lossy().ok()?.into_owned());
    }
    let depth = depth.checked_sub(1)?;
    let origin = entry
        .attr_value(gimli::DW_AT_abstract_origin)
        .or_else(|| entry.attr_value(gimli::DW_AT_specification))?;
    match origin {
        gimli::AttributeValue::UnitRef(offset) => plain_name(unit, &unit.entry(offset).ok()?, depth),
        _ => None,
    }
}

/// Where the code of an entry starts.
fn lowest(unit: &gimli::UnitRef<'_, Slice>, entry: &gimli::DebuggingInformationEntry<Slice>) -> Option<u64> {
    let mut ranges = unit.die_ranges(entry).ok()?;
    let mut least = None;
    while let Ok(Some(range)) = ranges.next() {
        least = Some(least.map_or(range.begin, |at: u64| at.min(range.begin)));
    }
    least
}

/// The DWARF of a file, if it has any.
fn load(file: &object::File<'_>, path: &Path) -> Option<Context<Slice>> {
    file.section_by_name(".debug_info")?;
    let mut dwarf = sections(file);
    if let Ok(Some((name, _))) = file.gnu_debugaltlink() {
        let name = PathBuf::from(String::from_utf8_lossy(name).into_owned());
        let beside = path.parent().unwrap_or(Path::new("/")).join(name);
        let bytes = fs::read(beside).ok();
        let other = bytes.as_ref().and_then(|bytes| object::File::parse(&**bytes).ok());
        if let Some(other) = other {
            dwarf.set_sup(sections(&other));
        }
    }
    Context::from_dwarf(dwarf).ok()
}

/// All of a file's sections that DWARF knows; empty where there is none.
fn sections(file: &object::File<'_>) -> gimli::Dwarf<Slice> {
    let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let section = |id: SectionId| -> Result<Slice, std::convert::Infallible> {
        let data = file.section_by_name(id.name()).and_then(|section| section.uncompressed_data().ok());
        Ok(EndianArcSlice::new(Arc::from(&*data.unwrap_or_default()), endian))
    };
    match gimli::Dwarf::load(section) {
        Ok(dwarf) => dwarf,
        Err(never) => match never {},
    }
}

fn load_file(path: &Path) -> Option<Context<Slice>> {
    let bytes = fs::read(path).ok()?;
    load(&object::File::parse(&*bytes).ok()?, path)
}

/// `DIRECTORY/.build-id/xx/yyyy.debug`.
fn by_build_id(identity: &Identity, debug_directory: &Path) -> Option<Context<Slice>> {
    let (first, rest) = identity.build_id.as_ref()?.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    load_file(&debug_directory.join(format!(".build-id/{first:02x}/{rest}.debug")))
}

/// Beside the file, in `.debug` there, or below the debug directory; the checksum must be right.
fn by_debug_link(path: &Path, identity: &Identity, debug_directory: &Path) -> Option<Context<Slice>> {
    let (name, checksum) = identity.debug_link.as_ref()?;
    let directory = path.parent()?;
    let below = debug_directory.join(directory.strip_prefix("/").unwrap_or(directory));
    [directory.join(name), directory.join(".debug").join(name), below.join(name)]
        .iter()
        .filter(|candidate| *candidate != path)
        .find_map(|candidate| {
            let bytes = fs::read(candidate).ok()?;
            if crc32(&bytes) != *checksum {
                return None;
            }
            load(&object::File::parse(&*bytes).ok()?, candidate)
        })
}

/// Functions of the symbol table, sorted by address.
fn functions(file: &object::File<'_>) -> Vec<(u64, String)> {
    let functions =
        file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.address() != 0);
    let mut all: Vec<_> =
        functions.filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?.to_owned()))).collect();
    all.sort_by_key(|(at, _)| *at);
    all
}

/// The checksum of debug links: CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_usual_example() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
