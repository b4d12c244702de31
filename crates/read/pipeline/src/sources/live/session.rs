//! Sessions, traces and metadata of a live source: what happens between the packets.

use std::sync::Arc;

use sillage_ctf::model::{Stream, Trace};
use sillage_ctf::{MetadataError, MetadataReader};
use sillage_protocol::live::{AttachStatus, MetadataStatus, NewStreamsStatus, Stream as Announced};

use super::stream::{LivePackets, locked};
use super::{Live, SessionNotFound};
use crate::sources::{Quirks, StreamReader};
use crate::{Error, Status, Warning};

/// Replies without data in a row after which a relay is not asked on.
const EMPTY_REPLIES_MAX: u32 = 16;
/// Times that metadata which ends in the middle of a declaration is asked for its rest.
const UNFINISHED_MAX: u32 = 100;

/// A session that is watched.
#[derive(Debug)]
pub(super) struct Attached {
    pub id: u64,
}

/// A trace of a session.
#[derive(Debug)]
pub(super) struct LiveTrace {
    session: u64,
    /// The relay's number.
    id: u64,
    metadata_stream: Option<u64>,
    reader: MetadataReader,
    /// Everything that came, to begin again when a piece ended in the middle of a declaration.
    bytes: Vec<u8>,
    unfinished: Option<(Box<MetadataError>, u32)>,
    trace: Option<Arc<Trace>>,
    /// The relay has no more metadata, now or later.
    is_closed: bool,
}

impl Live {
    /// Looks for the session, and watches all of its name.
    pub(super) fn find_session(&mut self) -> Result<Status, Error> {
        let sessions = locked(&self.shared).viewer.sessions()?;
        let target = &self.target;
        let matching: Vec<_> = sessions
            .into_iter()
            .filter(|s| s.hostname == target.hostname && s.name == target.session)
            .collect();
        for session in matching {
            let reply = locked(&self.shared).viewer.attach(session.id, self.options.seek)?;
            let why = match reply.status {
                AttachStatus::Ok => {
                    self.sessions.push(Attached { id: session.id });
                    self.announce(session.id, reply.streams);
                    continue;
                }
                // It ended just now.
                AttachStatus::Unknown => continue,
                AttachStatus::Already => "another viewer watches it",
                AttachStatus::NotLive => "it is not live",
                AttachStatus::BadSeek | AttachStatus::NoViewerSession | AttachStatus::Other(_) => {
                    "the relay refuses"
                }
            };
            return Err(Error::Other(format!("{}: {why}", self.url)));
        }
        if !self.sessions.is_empty() {
            self.was_found = true;
            self.is_idle = false;
            return Ok(Status::Ready);
        }
        match self.options.session_not_found {
            SessionNotFound::Continue => Ok(Status::Pending),
            SessionNotFound::Fail if !self.was_found => {
                Err(Error::Other(format!("{}: the relay has no such session", self.url)))
            }
            SessionNotFound::Fail | SessionNotFound::End => Ok(Status::End),
        }
    }

    /// Takes up streams that the relay announces.
    fn announce(&mut self, session: u64, streams: Vec<Announced>) {
        for stream in streams {
            let trace = self.trace_number(session, stream.ctf_trace_id);
            if stream.is_metadata {
                self.traces[trace].metadata_stream = Some(stream.id);
                let mut shared = locked(&self.shared);
                if !shared.metadata_wanted.contains(&trace) {
                    shared.metadata_wanted.push(trace);
                }
            } else {
                let packets = LivePackets::new(&self.shared, stream.id, session, trace, self.streams);
                self.streams += 1;
                self.unborn.push(packets);
            }
        }
    }

    fn trace_number(&mut self, session: u64, id: u64) -> usize {
        if let Some(known) = self.traces.iter().position(|t| t.session == session && t.id == id) {
            return known;
        }
        self.traces.push(LiveTrace {
            session,
            id,
            metadata_stream: None,
            reader: MetadataReader::new(self.options.metadata),
            bytes: Vec::new(),
            unfinished: None,
            trace: None,
            is_closed: false,
        });
        locked(&self.shared).classes.push(None);
        self.traces.len() - 1
    }

    /// Whether [`serve`](Self::serve) has something to do that was not in vain a moment ago.
    pub(super) fn can_serve(&self) -> bool {
        let shared = locked(&self.shared);
        let unfinished = |trace: &usize| self.traces[*trace].waits();
        !shared.streams_wanted.is_empty()
            || !shared.identified.is_empty()
            || shared.metadata_wanted.iter().any(|trace| !unfinished(trace))
    }

    /// Fetches what was found to be missing; true when that brought something.
    pub(super) fn serve(&mut self) -> Result<bool, Error> {
        let mut progress = false;
        let sessions = std::mem::take(&mut locked(&self.shared).streams_wanted);
        for session in sessions {
            progress |= self.fetch_streams(session)? == NewStreamsStatus::Ok;
        }
        let traces = std::mem::take(&mut locked(&self.shared).metadata_wanted);
        for trace in traces {
            progress |= self.fetch_metadata(trace)?;
            if self.traces[trace].waits() {
                locked(&self.shared).metadata_wanted.push(trace);
            }
        }
        let identified = std::mem::take(&mut locked(&self.shared).identified);
        for (index, id) in identified {
            progress = true;
            for reader in self.muxer.readers_mut().filter(|reader| reader.stream().index == index) {
                let stream = Stream { id, ..(**reader.stream()).clone() };
                reader.set_stream(Arc::new(stream));
            }
        }
        Ok(progress)
    }

    /// Asks a session for new streams; forgets it when it is over.
    fn fetch_streams(&mut self, session: u64) -> Result<NewStreamsStatus, Error> {
        let reply = locked(&self.shared).viewer.new_streams(session)?;
        match reply.status {
            NewStreamsStatus::Ok => self.announce(session, reply.streams),
            NewStreamsStatus::HangUp => {
                self.sessions.retain(|attached| attached.id != session);
                locked(&self.shared).viewer.detach(session)?;
            }
            NewStreamsStatus::NoNew => {}
            NewStreamsStatus::Error | NewStreamsStatus::Other(_) => {
                return Err(Error::Other(format!("{}: the relay can not list new streams", self.url)));
            }
        }
        Ok(reply.status)
    }

    /// All streams are over: there may be new ones, or the sessions are over too.
    pub(super) fn after_all_streams(&mut self) -> Result<Status, Error> {
        let before = self.streams;
        let sessions: Vec<u64> = self.sessions.iter().map(|session| session.id).collect();
        for session in sessions {
            self.fetch_streams(session)?;
        }
        if self.streams > before {
            return Ok(Status::Ready);
        }
        if self.sessions.is_empty() {
            return Ok(match self.options.session_not_found {
                SessionNotFound::Continue => Status::Pending,
                SessionNotFound::Fail | SessionNotFound::End => Status::End,
            });
        }
        Ok(Status::Pending)
    }

    /// Fetches all metadata that there is for a trace; true when something came.
    fn fetch_metadata(&mut self, number: usize) -> Result<bool, Error> {
        let Some(stream) = self.traces[number].metadata_stream else {
            return Ok(false);
        };
        let mut piece = Vec::new();
        let mut empty = 0;
        while empty < EMPTY_REPLIES_MAX {
            let reply = locked(&self.shared).viewer.metadata(stream)?;
            match reply.status {
                MetadataStatus::Ok if reply.data.is_empty() => empty += 1,
                MetadataStatus::Ok => piece.extend_from_slice(&reply.data),
                MetadataStatus::NoNew => break,
                // A closed metadata stream that was read whole gives errors from then on.
                MetadataStatus::Error | MetadataStatus::Other(_) => {
                    self.traces[number].is_closed = true;
                    break;
                }
            }
        }
        let trace = &mut self.traces[number];
        if piece.is_empty() {
            if let Some((error, count)) = &mut trace.unfinished {
                *count += 1;
                if *count > UNFINISHED_MAX || trace.is_closed {
                    let source = error.clone();
                    trace.unfinished = None;
                    return Err(Error::Metadata { path: format!("stream-{stream}").into(), source });
                }
            }
            return Ok(false);
        }
        if let Err(source) = trace.take(&piece, self.options.metadata) {
            if trace.is_closed {
                return Err(Error::Metadata { path: format!("stream-{stream}").into(), source });
            }
            trace.unfinished = Some((source, 0));
            return Ok(false);
        }
        let told = self.traces[number].reader.take_warnings().into_iter();
        self.warnings.extend(told.map(|warning| Warning::Metadata { path: None, warning }));
        self.renew(number)?;
        Ok(true)
    }

    /// Hands the grown class of a trace to its streams.
    fn renew(&mut self, number: usize) -> Result<(), Error> {
        let live = &mut self.traces[number];
        let class = match live.reader.snapshot() {
            Ok(class) => class,
            Err(source) => {
                // Not enough to read by yet.
                live.unfinished = Some((source, 0));
                return Ok(());
            }
        };
        let trace = Arc::new(Trace { index: number, class: Arc::clone(&class), name: None });
        live.trace = Some(Arc::clone(&trace));
        locked(&self.shared).classes[number] = Some(Arc::clone(&class));
        for reader in self.muxer.readers_mut().filter(|reader| reader.stream().trace.index == number) {
            let old = reader.stream();
            if let Some(class) = class.stream_class(old.class.id) {
                let stream =
                    Stream { trace: Arc::clone(&trace), class: Arc::clone(class), ..(**old).clone() };
                reader.set_stream(Arc::new(stream));
            }
        }
        Ok(())
    }

    /// A reader for a stream of this class; the packets back when the metadata does not have it yet.
    pub(super) fn reader(
        &mut self,
        packets: LivePackets,
        class_id: u64,
    ) -> Result<Result<StreamReader<LivePackets>, LivePackets>, Error> {
        let Some(trace) = &self.traces[packets.trace].trace else {
            return Ok(Err(packets));
        };
        let Some(class) = trace.class.stream_class(class_id) else {
            if locked(&self.shared).metadata_wanted.contains(&packets.trace) {
                return Ok(Err(packets));
            }
            let name = packets.name();
            return Err(Error::Other(format!("{name}: the metadata has no stream class {class_id}")));
        };
        let stream = Stream {
            index: packets.index,
            trace: Arc::clone(trace),
            class: Arc::clone(class),
            id: packets.relay_id(),
            name: Some(packets.name()),
        };
        let quirks = Quirks::of(&trace.class);
        Ok(Ok(StreamReader::new(Arc::new(stream), packets, quirks)))
    }
}

impl LiveTrace {
    /// Whether metadata is still needed and may still come.
    fn waits(&self) -> bool {
        !self.is_closed && (self.trace.is_none() || self.unfinished.is_some())
    }

    /// Whether there will never be anything to read its streams by.
    pub(super) fn is_dead(&self) -> bool {
        self.is_closed && self.trace.is_none()
    }

    /// Whether its streams can be read.
    pub(super) fn is_known(&self) -> bool {
        self.trace.is_some()
    }

    /// Takes a piece; after one that ended in the middle of a declaration, all pieces again.
    fn take(
        &mut self,
        piece: &[u8],
        options: sillage_ctf::MetadataOptions,
    ) -> Result<(), Box<MetadataError>> {
        self.bytes.extend_from_slice(piece);
        if self.unfinished.take().is_none() && self.reader.push(piece).is_ok() {
            return Ok(());
        }
        // All of it once more: lines of what is wrong are then those of the whole text.
        let mut reader = MetadataReader::new(options);
        reader.push(&self.bytes)?;
        self.reader = reader;
        Ok(())
    }
}
