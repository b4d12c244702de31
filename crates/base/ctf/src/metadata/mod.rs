//! Metadata of any kind to trace classes, all at once or piece by piece.
//!
//! A [`MetadataReader`] is given bytes: plain TSDL, packetized TSDL of either byte order, or a CTF 2
//! JSON text sequence; the first ones decide. Each piece must hold whole declarations (what LTTng's
//! live protocol promises). [`snapshot`](MetadataReader::snapshot) gives the trace class of all
//! pieces so far. No I/O.

mod draft;
mod packetized;
mod resolve;

use std::sync::Arc;

pub(crate) use draft::{Draft, DraftEvent, DraftStream};
pub use packetized::detect as detect_packetized;

use crate::error::{MetadataError, Warning};
use crate::json;
use crate::model::{CtfVersion, TraceClass, Uuid};
use crate::tsdl::{self, Rest};

/// How to read metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetadataOptions {
    /// Accept CTF 2 drafts and unknown properties (with a warning) instead of refusing them.
    pub lenient: bool,
    /// Seconds added to the offset of every clock.
    pub clock_offset_s: i64,
    /// Nanoseconds added to the offset of every clock.
    pub clock_offset_ns: i64,
    /// Treat every clock as counting from the Unix epoch.
    pub force_unix_epoch: bool,
}

/// Reads metadata in pieces.
#[derive(Debug)]
pub struct MetadataReader {
    options: MetadataOptions,
    language: Option<Language>,
    draft: Draft,
    text: String,
    packetized: bool,
    packet_uuid: Option<Uuid>,
    warnings: Vec<Warning>,
    adjusted_clocks: usize,
}

#[derive(Debug)]
enum Language {
    Tsdl(Box<tsdl::Builder>),
    Json(Box<json::Builder>),
}

impl MetadataReader {
    /// A reader that has read nothing.
    pub fn new(options: MetadataOptions) -> Self {
        Self {
            options,
            language: None,
            draft: Draft::new(CtfVersion::V1_8),
            text: String::new(),
            packetized: false,
            packet_uuid: None,
            warnings: Vec::new(),
            adjusted_clocks: 0,
        }
    }

    /// The trace class of a whole metadata file.
    ///
    /// # Errors
    /// Any rule of the language that the metadata breaks.
    pub fn read(bytes: &[u8], options: MetadataOptions) -> Result<Arc<TraceClass>, Box<MetadataError>> {
        let mut reader = Self::new(options);
        reader.push_file(bytes)?;
        reader.snapshot()
    }

    /// Takes a piece, for example what a live server sends at once.
    ///
    /// # Errors
    /// Any rule of the language that the piece breaks; the reader should not be used on.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Box<MetadataError>> {
        self.take(bytes, Rest::Unknown)
    }

    /// Takes a whole file. TSDL that ends in the middle of a declaration, because its writer was
    /// killed or the machine went down, is taken without it, and a warning says so.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_file(&mut self, bytes: &[u8]) -> Result<(), Box<MetadataError>> {
        self.take(bytes, Rest::Nothing)
    }

    fn take(&mut self, bytes: &[u8], rest: Rest) -> Result<(), Box<MetadataError>> {
        let unpacked;
        let mut text = bytes;
        if let Some(order) = packetized::detect(bytes) {
            unpacked = packetized::unpack(bytes, order, &mut self.warnings)?;
            self.packetized = true;
            self.packet_uuid = self.packet_uuid.or(unpacked.uuid);
            text = &unpacked.text;
        }
        let text = String::from_utf8_lossy(text);
        let language = self.language.get_or_insert_with(|| {
            if text.starts_with('\x1e') {
                self.draft.version = CtfVersion::V2;
                Language::Json(Box::new(json::Builder::new(self.options.lenient)))
            } else {
                Language::Tsdl(Box::new(tsdl::Builder::new()))
            }
        });
        let result = match language {
            Language::Tsdl(builder) => {
                let result = builder.section(&text, rest, &mut self.draft);
                self.warnings.extend(builder.take_warnings());
                result
            }
            Language::Json(builder) => {
                let result = builder.section(&text, &mut self.draft);
                self.warnings.extend(builder.take_warnings());
                result
            }
        };
        self.text.push_str(&text);
        result?;
        self.adjust_clocks();
        Ok(())
    }

    /// Applies the options to clocks that are new.
    fn adjust_clocks(&mut self) {
        let options = self.options;
        let from = self.adjusted_clocks.min(self.draft.clocks.len());
        self.adjusted_clocks = self.draft.clocks.len();
        if options.clock_offset_s == 0 && options.clock_offset_ns == 0 && !options.force_unix_epoch {
            return;
        }
        for clock in &mut self.draft.clocks[from..] {
            let new = Arc::new(clock.adjusted(
                options.clock_offset_s,
                options.clock_offset_ns,
                options.force_unix_epoch,
            ));
            for stream in &mut self.draft.streams {
                if stream.clock.as_ref().is_some_and(|old| Arc::ptr_eq(old, clock)) {
                    stream.clock = Some(Arc::clone(&new));
                }
            }
            *clock = new;
        }
    }

    /// The trace class of all pieces so far. Indexes in it are those of earlier snapshots.
    ///
    /// # Errors
    /// References that can not be resolved, metadata without anything to read by.
    pub fn snapshot(&mut self) -> Result<Arc<TraceClass>, Box<MetadataError>> {
        if let Some(Language::Json(builder)) = &self.language {
            builder.check_complete(&self.draft)?;
        }
        self.draft.snapshot().map_err(|(at, message)| MetadataError::at(&self.text, at, message))
    }

    /// The text of all pieces so far, without metadata packet headers.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the text came in metadata packets.
    pub fn is_packetized(&self) -> bool {
        self.packetized
    }

    /// UUID of the metadata packets, if there were any.
    pub fn packet_uuid(&self) -> Option<Uuid> {
        self.packet_uuid
    }

    /// Warnings since the last call.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }
}
