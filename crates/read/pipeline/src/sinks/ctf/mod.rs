//! Messages to CTF traces on disk: Babeltrace's `sink.ctf.fs`.
//!
//! Each trace becomes a directory with a metadata file and one data file per stream, and LTTng's
//! index files when asked. When the output can have the input's layout, packets of which nothing is
//! left out are copied whole; so `sillage cut` touches only the packets at its two ends. A reader
//! of the result finds the same streams, packets, events, times and losses. Files are never
//! overwritten.

mod naming;
mod stream;

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sillage_ctf::model::{CtfVersion, Stream, TraceClass};
use sillage_ctf::writer::TraceWriter;
use sillage_ctf::{Message, Packet};

use super::Sink;
use crate::Error;
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
    /// By stream index: number of its trace here, and its file.
    streams: Vec<Option<(usize, StreamSink)>>,
    created: Vec<PathBuf>,
}

#[derive(Debug)]
struct TraceDirectory {
    path: PathBuf,
    /// The trace's number in the source.
    index: usize,
    writer: TraceWriter,
    files: HashSet<PathBuf>,
    /// The metadata has grown since it was written.
    is_stale: bool,
}

impl CtfSink {
    /// A sink that has written nothing yet.
    pub fn new(options: CtfOptions) -> Self {
        Self { options, traces: Vec::new(), streams: Vec::new(), created: Vec::new() }
    }

    /// Directories of the traces that were begun since the last call (Babeltrace tells them to its
    /// user).
    pub fn take_created(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.created)
    }

    fn stream(&mut self, stream: &Stream) -> Result<(&TraceWriter, &mut StreamSink), Error> {
        let index = stream.index;
        if self.streams.get(index).is_none_or(Option::is_none) {
            let trace = self.trace(stream)?;
            let file = self.traces[trace].create_stream(stream, self.options.index)?;
            if self.streams.len() <= index {
                self.streams.resize_with(index + 1, || None);
            }
            self.streams[index] = Some((trace, file));
        }
        match &mut self.streams[index] {
            Some((trace, file)) => Ok((&self.traces[*trace].writer, file)),
            None => Err(Error::Other("stream without a file".to_owned())),
        }
    }

    /// Number of the stream's trace here; begins it when it is new.
    fn trace(&mut self, stream: &Stream) -> Result<usize, Error> {
        let trace = &stream.trace;
        if let Some(known) = self.traces.iter().position(|t| t.index == trace.index) {
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
            index: trace.index,
            writer: TraceWriter::new(Arc::clone(&trace.class), self.options.version),
            files: HashSet::from([PathBuf::from("metadata")]),
            is_stale: true,
        };
        directory.write_metadata()?;
        self.traces.push(directory);
        self.created.push(path);
        Ok(self.traces.len() - 1)
    }

    /// Takes up a trace class that has grown.
    fn follow(&mut self, stream: &Stream) {
        let version = self.options.version;
        let Some(Some((trace, _))) = self.streams.get(stream.index) else {
            return;
        };
        if let Some(directory) = self.traces.get_mut(*trace)
            && !Arc::ptr_eq(directory.writer.class(), &stream.trace.class)
            && grew(directory.writer.class(), &stream.trace.class)
        {
            directory.writer = TraceWriter::new(Arc::clone(&stream.trace.class), version);
            directory.is_stale = true;
        }
    }
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
            if let Some(Some((trace, file))) = self.streams.get_mut(event.stream.index) {
                return file.event(&self.traces[*trace].writer, event);
            }
        }
        self.other(message)
    }

    fn wants_packet(&self, packet: &Packet<'_>) -> bool {
        let class = packet.stream.class.index;
        match self.streams.get(packet.stream.index) {
            Some(Some((trace, _))) => self.traces[*trace].writer.keeps_packets(class),
            _ => false,
        }
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        self.follow(packet.stream);
        let (trace, file) = self.stream(packet.stream)?;
        file.copy(trace, packet)
    }

    fn flush(&mut self) -> Result<(), Error> {
        for directory in &mut self.traces {
            directory.write_metadata()?;
        }
        for (_, file) in self.streams.iter_mut().flatten() {
            file.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        for (_, file) in self.streams.iter_mut().flatten() {
            file.finish()?;
        }
        self.flush()
    }
}

impl CtfSink {
    fn other(&mut self, message: &Message<'_>) -> Result<(), Error> {
        match message {
            Message::Event(event) => {
                let (trace, file) = self.stream(event.stream)?;
                file.event(trace, event)
            }
            Message::PacketBegin(packet) => {
                self.stream(packet.stream)?;
                self.follow(packet.stream);
                let (trace, file) = self.stream(packet.stream)?;
                file.packet_begin(trace, packet);
                Ok(())
            }
            Message::PacketEnd(packet) => self.stream(packet.stream)?.1.packet_end(packet),
            Message::DiscardedEvents(lost) => {
                if !self.options.ignore_discarded_events {
                    self.stream(lost.stream)?.1.discarded_events(lost);
                }
                Ok(())
            }
            Message::DiscardedPackets(lost) => {
                if !self.options.ignore_discarded_packets {
                    self.stream(lost.stream)?.1.discarded_packets(lost);
                }
                Ok(())
            }
            // A stream without packets has a file too.
            Message::StreamBegin(edge) => self.stream(edge.stream).map(|_| ()),
            Message::StreamEnd(edge) => {
                let file = self.stream(edge.stream)?.1;
                file.finish()
            }
            Message::Inactivity(_) => Ok(()),
        }
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
