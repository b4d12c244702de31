//! Finding traces below a path.
//!
//! A directory with a file `metadata` that looks like metadata is a trace; its sub-directories are
//! not descended. Every other directory is searched. Symbolic links are followed once per real
//! directory, so that loops end.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Error;

/// Directories below `root` (or itself) that hold a trace, sorted by path.
pub(crate) fn trace_directories(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(directory) = todo.pop() {
        let real = fs::canonicalize(&directory).map_err(|error| Error::io(&directory, error))?;
        if !seen.insert(real) {
            continue;
        }
        if is_trace(&directory) {
            found.push(directory);
            continue;
        }
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Only the root must be readable.
            Err(error) if directory == root => return Err(Error::io(&directory, error)),
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether there is a trace at or below a path.
pub fn has_trace(root: &Path) -> bool {
    trace_directories(root).is_ok_and(|found| !found.is_empty())
}

/// Whether the directory has a file `metadata` with anything in it.
fn is_trace(directory: &Path) -> bool {
    let path = directory.join("metadata");
    let mut byte = [0];
    path.is_file()
        && fs::File::open(&path).and_then(|mut file| file.read(&mut byte)).is_ok_and(|count| count == 1)
}

/// The stream files of a trace directory, sorted by path.
pub(crate) fn stream_files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(directory).map_err(|error| Error::io(directory, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(directory, error))?;
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        let path = entry.path();
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if !hidden && name != "metadata" && metadata.is_file() && metadata.len() > 0 {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
