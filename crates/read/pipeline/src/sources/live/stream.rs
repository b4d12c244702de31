//! One stream of a live session: what the relay says of its packets, step by step.
//!
//! The states are Babeltrace's: no data is known, a packet is announced, the stream is silent until
//! a time, it is over. A packet is not touched while metadata or new streams must be fetched first;
//! the [`Live`](super::Live) source does that between two steps.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sillage_ctf::model::TraceClass;
use sillage_ctf::{DecodeError, PacketInfo};
use sillage_protocol::live::{FLAG_NEW_METADATA, FLAG_NEW_STREAM, Index, IndexStatus, PacketStatus};

use super::viewer::Viewer;
use crate::Error;
use crate::sources::{PacketPlace, PacketSource, PacketStep};

/// Bytes of a packet asked for at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Largest packet that is taken.
const PACKET_BYTES_MAX: u64 = 1 << 30;

/// What all streams of a source share.
#[derive(Debug)]
pub(super) struct Shared {
    pub viewer: Viewer,
    /// Classes of the traces, by number; none until metadata came.
    pub classes: Vec<Option<Arc<TraceClass>>>,
    /// Traces whose metadata must be fetched before a packet is decoded.
    pub metadata_wanted: Vec<usize>,
    /// Sessions with streams that were not announced yet.
    pub streams_wanted: Vec<u64>,
    /// Streams that have learned their id: index and id.
    pub identified: Vec<(usize, u64)>,
}

impl Shared {
    /// Whether something must be fetched before the streams go on.
    pub fn has_wants(&self) -> bool {
        !self.metadata_wanted.is_empty() || !self.streams_wanted.is_empty() || !self.identified.is_empty()
    }

    fn take_flags(&mut self, flags: u32, trace: usize, session: u64) {
        if flags & FLAG_NEW_METADATA != 0 && !self.metadata_wanted.contains(&trace) {
            self.metadata_wanted.push(trace);
        }
        if flags & FLAG_NEW_STREAM != 0 && !self.streams_wanted.contains(&session) {
            self.streams_wanted.push(session);
        }
    }
}

/// The shared state; a panic elsewhere has not left it half changed.
pub(super) fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next index is to be asked for.
    NoData,
    /// A packet is announced.
    Announced(Index),
    /// A packet is here and not given yet.
    Loaded,
    /// Nothing comes before this clock value.
    Silent(u64),
    Over,
}

/// What a stream has to say next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing for now.
    Waiting,
    /// Something of this stream class.
    Class(u64),
    Over,
}

/// The packets of a live stream.
#[derive(Debug)]
pub struct LivePackets {
    shared: Arc<Mutex<Shared>>,
    /// The relay's number.
    id: u64,
    session: u64,
    pub(super) trace: usize,
    /// Index of the stream in the source.
    pub(super) index: usize,
    state: State,
    /// Stream class of the last index.
    class_id: u64,
    last_silence: Option<u64>,
    identified: bool,
    bytes: Vec<u8>,
    packets: u64,
    offset: u64,
}

impl LivePackets {
    pub(super) fn new(
        shared: &Arc<Mutex<Shared>>,
        id: u64,
        session: u64,
        trace: usize,
        index: usize,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            id,
            session,
            trace,
            index,
            state: State::NoData,
            class_id: 0,
            last_silence: None,
            identified: false,
            bytes: Vec::new(),
            packets: 0,
            offset: 0,
        }
    }

    /// Babeltrace's name for the stream.
    pub(super) fn name(&self) -> String {
        format!("stream-{}", self.id)
    }

    /// The relay's number, which is the stream's id when packets have none.
    pub(super) fn relay_id(&self) -> u64 {
        self.id
    }

    /// Asks what comes next, without taking it.
    pub(super) fn next(&mut self) -> Result<Next, Error> {
        if self.state == State::NoData {
            self.ask()?;
        }
        Ok(match self.state {
            State::NoData => Next::Waiting,
            State::Over => Next::Over,
            State::Announced(_) | State::Loaded | State::Silent(_) => Next::Class(self.class_id),
        })
    }

    /// Asks for the next index.
    fn ask(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let mut shared = locked(&shared);
        let index = shared.viewer.next_index(self.id)?;
        shared.take_flags(index.flags, self.trace, self.session);
        match index.status {
            IndexStatus::Ok => {
                self.class_id = index.stream_class_id;
                self.state = State::Announced(index);
            }
            IndexStatus::Inactive if self.last_silence != Some(index.timestamp_end) => {
                self.class_id = index.stream_class_id;
                self.last_silence = Some(index.timestamp_end);
                self.state = State::Silent(index.timestamp_end);
            }
            IndexStatus::Inactive | IndexStatus::Retry => {}
            IndexStatus::HangUp | IndexStatus::EndOfFile => self.state = State::Over,
            IndexStatus::Error | IndexStatus::Other(_) => {
                self.state = State::Over;
                return Err(self.refused("its next index"));
            }
        }
        Ok(())
    }

    fn refused(&self, what: &str) -> Error {
        Error::Other(format!("{}: the relay can not give {what}", self.name()))
    }

    /// Goes on until there is something to give, or nothing for now.
    fn poll(&mut self) -> Result<PacketStep, Error> {
        if self.state == State::NoData {
            self.ask()?;
        }
        if locked(&self.shared).has_wants() {
            return Ok(PacketStep::Pending);
        }
        match self.state {
            State::NoData => Ok(PacketStep::Pending),
            State::Silent(until) => {
                self.state = State::NoData;
                Ok(PacketStep::Inactive(until))
            }
            State::Over => Ok(PacketStep::End),
            State::Loaded => Ok(PacketStep::Packet),
            State::Announced(index) => self.load(&index),
        }
    }

    /// Fetches an announced packet.
    fn load(&mut self, index: &Index) -> Result<PacketStep, Error> {
        let size = index.packet_size_bits / 8;
        if !index.packet_size_bits.is_multiple_of(8) || size == 0 || size > PACKET_BYTES_MAX {
            self.state = State::Over;
            let bits = index.packet_size_bits;
            return Err(Error::Other(format!("{}: packet of {bits} bits announced", self.name())));
        }
        self.bytes.clear();
        let shared = Arc::clone(&self.shared);
        let mut shared = locked(&shared);
        while (self.bytes.len() as u64) < size {
            let at = self.bytes.len() as u64;
            let len = u32::try_from((size - at).min(PIECE_BYTES)).unwrap_or(u32::MAX);
            let reply = shared.viewer.packet(self.id, index.offset.saturating_add(at), len)?;
            shared.take_flags(reply.flags, self.trace, self.session);
            match reply.status {
                PacketStatus::Ok if !reply.data.is_empty() => self.bytes.extend_from_slice(&reply.data),
                PacketStatus::Retry => return Ok(PacketStep::Pending),
                PacketStatus::EndOfFile => {
                    self.state = State::Over;
                    return Ok(PacketStep::End);
                }
                // Old relays refuse a packet before what it needs is fetched.
                PacketStatus::Error if reply.flags != 0 => return Ok(PacketStep::Pending),
                PacketStatus::Ok | PacketStatus::Error | PacketStatus::Other(_) => {
                    self.state = State::Over;
                    return Err(self.refused("a packet that it announced"));
                }
            }
        }
        self.offset = index.offset;
        self.state = State::Loaded;
        Ok(PacketStep::Packet)
    }

    /// Id of the stream as its packet says it.
    fn instance(&self) -> Result<u64, Error> {
        let class = locked(&self.shared).classes.get(self.trace).cloned().flatten();
        let Some(class) = class else {
            return Ok(self.id);
        };
        let info = PacketInfo::read(&class, &self.bytes).map_err(|source| self.located(source))?;
        Ok(info.stream_id.unwrap_or(self.id))
    }

    fn located(&self, source: Box<DecodeError>) -> Error {
        let place = self.place();
        Error::Decode { path: place.path, packet: place.packet, offset_bytes: place.offset_bytes, source }
    }
}

impl PacketSource for LivePackets {
    fn begin(&mut self) -> Result<PacketStep, Error> {
        let step = self.poll()?;
        if step == PacketStep::Packet && !self.identified {
            self.identified = true;
            let id = self.instance()?;
            locked(&self.shared).identified.push((self.index, id));
            return Ok(PacketStep::Pending);
        }
        Ok(step)
    }

    fn next_packet(&mut self) -> Result<PacketStep, Error> {
        let step = self.poll()?;
        if step == PacketStep::Packet {
            self.state = State::NoData;
            self.packets += 1;
        }
        Ok(step)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn place(&self) -> PacketPlace {
        PacketPlace {
            path: PathBuf::from(self.name()),
            packet: self.packets.saturating_sub(1),
            offset_bytes: self.offset,
        }
    }
}
