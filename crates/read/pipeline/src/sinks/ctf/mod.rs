//! Messages to CTF traces on disk: Babeltrace's `sink.ctf.fs`.
//!
//! Each trace becomes a directory with a metadata file and one data file per stream, and LTTng's
//! index files when asked. When the output can have the input's layout, packets of which nothing is
//! left out are copied whole; so `sillage cut` touches only the packets at its two ends. A reader
//! of the result finds the same streams, packets, events, times and losses. Files are never
//! overwritten.

mod naming;
mod parts;
mod stream;

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sillage_ctf::model::{CtfVersion, Stream, Trace, TraceClass};
use sillage_ctf::writer::TraceWriter;
use sillage_ctf::{Message, Packet};

use super::Sink;
use crate::{Error, Run, TakesRuns, Warning};
use stream::StreamSink;

/// When LTTng's index files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Index {
    /// For LTTng's traces, whose readers expect them.
    #[default]
    Auto,
    /// For every stream whose packets have times.
    Always,
    /// Never.
    Never,
}

/// What to write and where.
#[derive(Debug, Clone)]
pub struct CtfOptions {
    /// Output directory; made when it does not exist.
    pub path: PathBuf,
    /// Version of the format.
    pub version: CtfVersion,
    /// The output directory is the trace itself. It must be empty, or not exist, and a second trace
    /// is an error.
    pub assume_single_trace: bool,
    /// Leave out losses of events.
    pub ignore_discarded_events: bool,
    /// Leave out losses of packets.
    pub ignore_discarded_packets: bool,
    /// LTTng's index files.
    pub index: Index,
}

impl CtfOptions {
    /// CTF 1.8 below this directory, with indexes for LTTng's traces.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            version: CtfVersion::V1_8,
            assume_single_trace: false,
            ignore_discarded_events: false,
            ignore_discarded_packets: false,
            index: Index::Auto,
        }
    }
}

/// Writes traces.
#[derive(Debug)]
pub struct CtfSink {
    options: CtfOptions,
    traces: Vec<TraceDirectory>,
    /// By number of the stream in its source; sources that are merged share numbers.
    streams: Vec<Vec<Entry>>,
    created: Vec<PathBuf>,
    pause: Pause,
}

/// A stream that is written.
#[derive(Debug)]
struct Entry {
    /// Its trace as it was told last (it grows in a live session).
    trace: Arc<Trace>,
    name: Option<String>,
    /// Number of the trace's directory.
    directory: usize,
    file: StreamSink,
}

#[derive(Debug)]
struct TraceDirectory {
    path: PathBuf,
    trace: Arc<Trace>,
    writer: TraceWriter,
    files: HashSet<PathBuf>,
    /// The metadata has grown since it was written.
    is_stale: bool,
}

impl CtfSink {
    /// A sink that has written nothing yet.
    pub fn new(options: CtfOptions) -> Self {
        Self {
            options,
            traces: Vec::new(),
            streams: Vec::new(),
            created: Vec::new(),
            pause: Pause::default(),
        }
    }

    /// Directories of the traces that were begun since the last call (Babeltrace tells them to its
    /// user).
    pub fn take_created(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.created)
    }

    /// What could not be written, since the last call: ask at the end.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        self.streams.iter_mut().flatten().filter_map(|entry| entry.file.take_warning()).collect()
    }

    /// Where the stream is in the list of its number, if it is known in just this form.
    #[inline]
    fn find(&self, stream: &Stream) -> Option<usize> {
        let entries = self.streams.get(stream.index)?;
        entries.iter().position(|entry| Arc::ptr_eq(&entry.trace, &stream.trace))
    }

    /// The trace and file of a stream; begins them when they are new.
    fn stream(&mut self, stream: &Stream) -> Result<(&TraceWriter, &mut StreamSink), Error> {
        let place = match self.find(stream) {
            Some(place) => place,
            None => self.enter(stream)?,
        };
        let entry = &mut self.streams[stream.index][place];
        Ok((&self.traces[entry.directory].writer, &mut entry.file))
    }

    /// Takes up a stream that is new, or whose trace has grown.
    #[cold]
    fn enter(&mut self, stream: &Stream) -> Result<usize, Error> {
        let directory = self.directory(stream)?;
        if self.streams.len() <= stream.index {
            self.streams.resize_with(stream.index + 1, Vec::new);
        }
        let entries = &mut self.streams[stream.index];
        let known = entries.iter().position(|e| e.directory == directory && e.name == stream.name);
        if let Some(known) = known {
            entries[known].trace = Arc::clone(&stream.trace);
            return Ok(known);
        }
        let file = self.traces[directory].create_stream(stream, self.options.index)?;
        entries.push(Entry { trace: Arc::clone(&stream.trace), name: stream.name.clone(), directory, file });
        let place = entries.len() - 1;
        let count = self.streams.iter().map(Vec::len).sum();
        self.streams.iter_mut().flatten().for_each(|entry| entry.file.share_memory(count));
        Ok(place)
    }

    /// Number of the directory of the stream's trace; begins it when it is new.
    fn directory(&mut self, stream: &Stream) -> Result<usize, Error> {
        let trace = &stream.trace;
        let version = self.options.version;
        if let Some(known) = self.traces.iter().position(|known| is_same(&known.trace, trace)) {
            let directory = &mut self.traces[known];
            if grew(&directory.trace.class, &trace.class) {
                directory.writer = TraceWriter::new(Arc::clone(&trace.class), version);
                directory.is_stale = true;
                directory.trace = Arc::clone(trace);
            }
            return Ok(known);
        }
        let path = if self.options.assume_single_trace {
            if !self.traces.is_empty() {
                let text = "the output is to be a single trace, but there are more: leave out the \
                            option that says so";
                return Err(Error::Other(text.to_owned()));
            }
            make_empty(&self.options.path)?;
            self.options.path.clone()
        } else {
            let path = self.options.path.join(naming::trace_directory(trace));
            let path = naming::unique(path, Path::exists);
            make_directory(&path)?;
            path
        };
        let mut directory = TraceDirectory {
            path: path.clone(),
            trace: Arc::clone(trace),
            writer: TraceWriter::new(Arc::clone(&trace.class), self.options.version),
            files: HashSet::from([PathBuf::from("metadata")]),
            is_stale: true,
        };
        directory.write_metadata()?;
        self.traces.push(directory);
        self.created.push(path);
        Ok(self.traces.len() - 1)
    }
}

/// Whether both are one trace, perhaps grown in between.
fn is_same(old: &Arc<Trace>, new: &Arc<Trace>) -> bool {
    let class = (&old.class, &new.class);
    Arc::ptr_eq(old, new)
        || old.index == new.index
            && class.0.uuid == class.1.uuid
            && class.0.uid == class.1.uid
            && (class.0.uuid.is_some() || grew(class.0, class.1))
}

/// Whether the new class has more in it. (Chunks of one trace may come with classes of their own.)
fn grew(old: &TraceClass, new: &TraceClass) -> bool {
    old.event_class_count() < new.event_class_count() || old.stream_classes.len() < new.stream_classes.len()
}

impl Sink for CtfSink {
    #[inline]
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        if let Message::Event(event) = message {
            // The usual case, without a look at anything else.
            if let Some(place) = self.find(event.stream) {
                let entry = &mut self.streams[event.stream.index][place];
                return entry.file.event(&self.traces[entry.directory].writer, event);
            }
        }
        self.other(message)
    }

    fn wants_packet(&self, packet: &Packet<'_>) -> bool {
        let class = packet.stream.class.index;
        let Some(place) = self.find(packet.stream) else {
            return false;
        };
        let entry = &self.streams[packet.stream.index][place];
        self.traces[entry.directory].writer.keeps_packets(class)
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        let (trace, file) = self.stream(packet.stream)?;
        file.copy(trace, packet)
    }

    fn as_runs(&mut self) -> Option<&mut dyn TakesRuns> {
        Some(self)
    }

    fn flush(&mut self) -> Result<(), Error> {
        for directory in &mut self.traces {
            directory.write_metadata()?;
        }
        for entry in self.streams.iter_mut().flatten() {
            entry.file.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        for entry in self.streams.iter_mut().flatten() {
            entry.file.finish()?;
        }
        self.flush()
    }
}

impl TakesRuns for CtfSink {
    fn room(&self) -> usize {
        self.pause.room()
    }

    fn run(&mut self, run: &Run<'_>) -> Result<usize, Error> {
        let Some(place) = self.find(run.stream) else { return Ok(0) };
        let count = self.streams[run.stream.index][place].file.run(run)?;
        self.pause.told(count);
        Ok(count)
    }
}

/// Asks for no runs for some time after one of which nothing could be taken: where every record has
/// to be written anew, offering them twice is in vain.
#[derive(Debug, Default)]
struct Pause(Cell<u32>);

impl Pause {
    const QUESTIONS: u32 = 64;

    /// One question less, until there is room again.
    fn room(&self) -> usize {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        if left == 0 { usize::MAX } else { 0 }
    }

    fn told(&self, taken: usize) {
        if taken == 0 {
            self.0.set(Self::QUESTIONS);
        }
    }
}

impl CtfSink {
    fn other(&mut self, message: &Message<'_>) -> Result<(), Error> {
        if matches!(message, Message::Inactivity(_)) {
            return Ok(());
        }
        // A stream without packets has a file too.
        let stream = message.stream();
        let place = match self.find(stream) {
            Some(place) => place,
            None => self.enter(stream)?,
        };
        let entry = &mut self.streams[stream.index][place];
        entry.file.message(&self.traces[entry.directory].writer, message, &self.options)
    }
}

impl TraceDirectory {
    fn create_stream(&mut self, stream: &Stream, index: Index) -> Result<StreamSink, Error> {
        let name = PathBuf::from(naming::stream_file(stream));
        let name = naming::unique(name, |name| self.files.contains(name));
        self.files.insert(name.clone());
        let class = &stream.class;
        let has_times = class.packets_have_begin_time && class.packets_have_end_time;
        let index = if index.wanted(naming::is_lttng(&stream.trace.class), has_times) {
            let directory = self.path.join("index");
            make_directory(&directory)?;
            let mut file = name.clone().into_os_string();
            file.push(".idx");
            Some(directory.join(file))
        } else {
            None
        };
        StreamSink::create(self.path.join(name), index)
    }

    fn write_metadata(&mut self) -> Result<(), Error> {
        if self.is_stale {
            let path = self.path.join("metadata");
            fs::write(&path, self.writer.metadata()).map_err(|error| Error::io(&path, error))?;
            self.is_stale = false;
        }
        Ok(())
    }
}

fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).create(path).map_err(|error| Error::io(path, error))
}

/// Makes the directory; one that holds anything is refused.
fn make_empty(path: &Path) -> Result<(), Error> {
    make_directory(path)?;
    let mut entries = fs::read_dir(path).map_err(|error| Error::io(path, error))?;
    if entries.next().is_some() {
        return Err(Error::Other(format!("{}: the directory is not empty", path.display())));
    }
    Ok(())
}
