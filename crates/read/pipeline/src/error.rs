//! What can go wrong between a path and a sink.

use std::path::PathBuf;

use sillage_ctf::{DecodeError, MetadataError};
use thiserror::Error;

/// An error of a source, a filter or a sink. Small, so that results stay small.
#[derive(Debug, Error)]
pub enum Error {
    /// A file or directory can not be read (or written).
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The metadata is not valid.
    #[error("{}: {source}", path.display())]
    Metadata {
        /// The metadata file.
        path: PathBuf,
        /// Line, column and rule.
        source: Box<MetadataError>,
    },
    /// A packet is not valid.
    #[error("{}: packet {packet} at byte {offset_bytes}: {source}", path.display())]
    Decode {
        /// The stream file (or the stream's name, when it is not from a file).
        path: PathBuf,
        /// Number of the packet in its file, from 0.
        packet: u64,
        /// Where the packet starts in its file.
        offset_bytes: u64,
        /// Bit offset, field and rule.
        source: Box<DecodeError>,
    },
    /// The path holds no trace.
    #[error("{}: no trace found", .0.display())]
    NoTrace(PathBuf),
    /// A rule of a filter or sink, in words.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An I/O error of a file.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
