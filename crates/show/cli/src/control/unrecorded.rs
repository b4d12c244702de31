//! Why a command left nothing behind: what its file says about whether it can be recorded at all.
//!
//! The dynamic loader puts the tracer library in front of a program; where there is no such loader, or
//! where it is told not to listen to us, nothing is recorded, and `record` says so. Only the command's
//! own file is looked at, not the programs that it starts.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Header of an ELF file for 64 bits.
const HEADER_BYTES: usize = 64;
/// Program header: the name of the dynamic loader.
const PT_INTERP: u32 = 3;
/// No loader's name is longer.
const NAME_BYTES_MAX: u64 = 4096;

/// A reason in words, if the file shows one.
pub fn reason(command: &OsStr) -> Option<&'static str> {
    let path = find(command)?;
    let about = path.metadata().ok()?;
    let mode = about.permissions().mode();
    let other_user = mode & 0o4000 != 0 && about.uid() != rustix::process::getuid().as_raw();
    let other_group = mode & 0o2000 != 0 && about.gid() != rustix::process::getgid().as_raw();
    if other_user || other_group {
        return Some("it is set-user-ID or set-group-ID, and takes no libraries from its caller");
    }
    let file = File::open(path).ok()?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).ok()?;
    match (header.strip_prefix(b"\x7fELF")?.first()?, loader(&file, &header)) {
        (1, _) => Some("it is a 32-bit program, which is not supported yet"),
        (_, None) => Some("it is statically linked, and loads no libraries"),
        (_, Some(name)) if name.windows(4).any(|part| part == b"musl") => {
            Some("it is linked with musl, which is not supported yet")
        }
        _ => None,
    }
}

/// The file that a shell would run.
fn find(command: &OsStr) -> Option<PathBuf> {
    if command.as_bytes().contains(&b'/') {
        return Some(Path::new(command).to_path_buf());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(command)).find(|file| {
        file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    })
}

/// The name of the dynamic loader that a 64-bit program asks for.
fn loader(file: &File, header: &[u8; HEADER_BYTES]) -> Option<Vec<u8>> {
    let table = number(header, 32, 8);
    let (size, count) = (number(header, 54, 2), number(header, 56, 2));
    (0..count).find_map(|index| {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, table.checked_add(index * size)?).ok()?;
        if number(&entry, 0, 4) != u64::from(PT_INTERP) {
            return None;
        }
        let mut name = vec![0; number(&entry, 32, 8).min(NAME_BYTES_MAX) as usize];
        file.read_exact_at(&mut name, number(&entry, 8, 8)).ok()?;
        Some(name)
    })
}

/// A little-endian number; the ranges are constants inside the arrays.
fn number(bytes: &[u8], from: usize, size: usize) -> u64 {
    bytes[from..from + size].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
