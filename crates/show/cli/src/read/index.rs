//! `index`: writes LTTng's index files of a trace anew, from the packets themselves.
//!
//! A new file takes the place of an old one only when it is whole. Stream files whose packets have
//! no times or no sizes get none.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use sillage_ctf::PacketInfo;
use sillage_ctf::index::{Entry, Header, UNKNOWN};
use sillage_ctf::model::TraceClass;

use super::{Outcome, say};

/// `index TRACE...`
#[derive(Args, Debug)]
pub struct Arguments {
    /// Directories with traces in them or below them
    #[arg(value_name = "TRACE", required = true)]
    paths: Vec<PathBuf>,
}

/// Bytes of a packet that are read to see its header and context; more when they do not suffice.
const HEAD_SIZE_BYTES: u64 = 4096;

/// Runs the verb.
///
/// # Errors
/// What can not be opened or written.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let mut outcome = Outcome::Whole;
    for path in &arguments.paths {
        let source = sillage_pipeline::open(path)?;
        for directory in source.directories() {
            let opened = sillage_pipeline::open(directory)?;
            let Some(trace) = opened.traces().first() else {
                continue;
            };
            for file in stream_files(directory)? {
                match index_file(&trace.class, directory, &file) {
                    Ok(Some(count)) => say(&format!("{}: {count} packets\n", file.display()))?,
                    Ok(None) => eprintln!("{}: packets without times or sizes: no index", file.display()),
                    Err(error) => {
                        eprintln!("error: {}", crate::complaint::in_words(&error));
                        outcome = Outcome::Partial;
                    }
                }
            }
        }
    }
    Ok(outcome)
}

/// The stream files of a trace directory, sorted.
fn stream_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = directory.read_dir().with_context(|| directory.display().to_string())?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().starts_with(b".");
            !hidden && name != "metadata" && entry.metadata().is_ok_and(|data| data.is_file())
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    Ok(files)
}

/// Indexes one file; gives the number of its packets, or `None` when they can not be indexed.
fn index_file(class: &TraceClass, directory: &Path, path: &Path) -> Result<Option<u64>> {
    let place = || path.display().to_string();
    let file = File::open(path).with_context(place)?;
    let size_bytes = file.metadata().with_context(place)?.len();
    let mut out = Header::V1_1.encode().to_vec();
    let (mut at, mut count) = (0, 0);
    while at < size_bytes {
        let packet = || format!("{}: packet {count} at byte {at}", path.display());
        let info = head(class, &file, at, size_bytes).with_context(packet)?;
        let sizes = info.sizes(size_bytes - at).with_context(packet)?;
        let (Some(begin), Some(end), true) = (info.begin, info.end, info.packet_size_bits.is_some()) else {
            return Ok(None);
        };
        // A tracer that died left no end.
        if end < begin {
            return Ok(None);
        }
        let entry = Entry {
            offset_bytes: at,
            packet_size_bits: sizes.1,
            content_size_bits: sizes.0,
            timestamp_begin: begin,
            timestamp_end: end,
            events_discarded: info.events_discarded.unwrap_or(UNKNOWN),
            stream_id: info.stream_class_id,
            stream_instance_id: info.stream_id.unwrap_or(UNKNOWN),
            packet_seq_num: info.sequence.unwrap_or(UNKNOWN),
        };
        out.extend_from_slice(&entry.encode());
        at += sizes.1 / 8;
        count += 1;
    }
    write_index(directory, path, &out)?;
    Ok(Some(count))
}

/// Reads header and context of the packet at a byte of a file.
fn head(class: &TraceClass, file: &File, at: u64, size_bytes: u64) -> Result<PacketInfo> {
    let left = size_bytes - at;
    let mut length = HEAD_SIZE_BYTES.min(left);
    loop {
        let mut bytes = vec![0; usize::try_from(length)?];
        file.read_exact_at(&mut bytes, at)?;
        match PacketInfo::read(class, &bytes) {
            Ok(info) => return Ok(info),
            Err(error) if length >= left => bail!(error),
            Err(_) => length = length.saturating_mul(16).min(left),
        }
    }
}

fn write_index(directory: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = directory.join("index");
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".idx");
    let target = folder.join(&name);
    name.push(".new");
    let new = folder.join(&name);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let written = File::create(&new).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| std::fs::rename(&new, &target)).with_context(|| target.display().to_string())
}
