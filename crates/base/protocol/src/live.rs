//! LTTng's live viewer protocol: what a trace viewer and a relay daemon say to one another.
//!
//! One request, one reply, all numbers big-endian. A request is a 16-byte header (u64 payload size,
//! u32 command, u32 version 0) and its payload; a reply has no header, so its decoder says how many
//! bytes it still [`Needs`](Progress::Needs). Both directions are here, for viewers and for relays.
//! Nothing is allocated by a count that was not checked against the bytes that are there.
//!
//! | command | request payload | reply |
//! |---|---|---|
//! | 1 connect | 20 | 20 |
//! | 2 list sessions | 0 | 4 + entries of 339, or from minor 15 of 32 + names |
//! | 3 attach | 20 | 8 + 4371 per stream |
//! | 4 next index | 8 | 64 |
//! | 5 packet | 20 | 12 + data |
//! | 6 metadata | 8 | 12 + data |
//! | 7 new streams | 8 | 8 + 4371 per stream |
//! | 8 create viewer session | 0 | 4 |
//! | 9 detach | 8 | 4 |

use alloc::{string::String, vec::Vec};

use crate::codec::DecodeError;

/// TCP port of the viewers' side of a relay.
pub const DEFAULT_PORT: u16 = 5344;
/// The only major version.
pub const MAJOR: u32 = 2;
/// The newest minor version: it lists CTF 2 sessions.
pub const MINOR: u32 = 15;
/// The first minor version with names of any length and trace formats in the list of sessions.
pub const MINOR_LONG_ENTRIES: u32 = 15;
/// Bytes of a request's header.
pub const HEADER_BYTES: usize = 16;
/// Viewer session id of a viewer that has none.
pub const NO_SESSION: u64 = u64::MAX;
/// Flag of an index or packet: metadata must be fetched before the packet is decoded.
pub const FLAG_NEW_METADATA: u32 = 1;
/// Flag of an index or packet: there are new streams to ask for.
pub const FLAG_NEW_STREAM: u32 = 2;

/// Most sessions in a list.
pub const SESSIONS_MAX: u32 = 1 << 16;
/// Most streams in a reply.
pub const STREAMS_MAX: u32 = 1 << 18;
/// Most bytes of metadata in one reply.
pub const METADATA_BYTES_MAX: u64 = 1 << 30;
/// Most bytes of a packet in one reply.
pub const PACKET_BYTES_MAX: u32 = 1 << 30;
/// Most bytes of a name of any length.
pub const NAME_BYTES_MAX: u32 = 1 << 16;

const HOST_BYTES: usize = 64;
const NAME_BYTES: usize = 255;
const PATH_BYTES: usize = 4096;
const STREAM_BYTES: usize = 8 + 8 + 4 + PATH_BYTES + NAME_BYTES;
const SESSION_BYTES: usize = 8 + 4 + 4 + 4 + HOST_BYTES + NAME_BYTES;
const LONG_SESSION_BYTES: usize = 32;

/// How far a reply has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<T> {
    /// The reply is not whole before there are this many bytes (it may need still more then).
    Needs(usize),
    /// The reply, and the bytes that it took.
    Done(T, usize),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionType {
    /// Commands.
    Command,
    /// Notifications (nothing is ever sent on it).
    Notification,
}

/// Where to begin in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// With everything that the relay still has.
    Beginning,
    /// With what arrives from now on.
    Last,
}

/// What a viewer asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// First of all.
    Connect(Connect),
    /// The relay's sessions.
    ListSessions,
    /// Watch a session.
    Attach {
        /// The session.
        session_id: u64,
        /// Reserved, 0.
        offset: u64,
        /// Where to begin; the raw number, as a relay must answer wrong ones.
        seek: u32,
    },
    /// The next packet's place and times.
    NextIndex {
        /// The stream.
        stream_id: u64,
    },
    /// Bytes of a packet.
    Packet {
        /// The stream.
        stream_id: u64,
        /// Where they begin in the stream's file.
        offset: u64,
        /// How many.
        len_bytes: u32,
    },
    /// Metadata that was not sent yet.
    Metadata {
        /// The metadata stream.
        stream_id: u64,
    },
    /// Streams that were not announced yet.
    NewStreams {
        /// The session.
        session_id: u64,
    },
    /// Needed before attaching.
    CreateSession,
    /// Watch a session no longer.
    Detach {
        /// The session.
        session_id: u64,
    },
}

/// Request and reply of `Connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect {
    /// [`NO_SESSION`] in a request, the new viewer session's id in a reply.
    pub viewer_session_id: u64,
    /// Major version of the sender.
    pub major: u32,
    /// Minor version of the sender.
    pub minor: u32,
    /// 1 commands, 2 notifications; 0 in a reply.
    pub kind: u32,
}

impl Connect {
    /// What a viewer of this minor version says.
    pub fn viewer(minor: u32, kind: ConnectionType) -> Self {
        let kind = match kind {
            ConnectionType::Command => 1,
            ConnectionType::Notification => 2,
        };
        Self { viewer_session_id: NO_SESSION, major: MAJOR, minor, kind }
    }

    fn put(&self, out: &mut Out) {
        out.u64(self.viewer_session_id);
        out.u32(self.major);
        out.u32(self.minor);
        out.u32(self.kind);
    }

    fn get(r: &mut In<'_>) -> Result<Self, Stop> {
        Ok(Self { viewer_session_id: r.u64()?, major: r.u32()?, minor: r.u32()?, kind: r.u32()? })
    }

    /// The 20 bytes of a reply.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        self.put(&mut out);
        out.0
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// None: any 20 bytes are a reply.
    pub fn decode(bytes: &[u8]) -> Result<Progress<Self>, DecodeError> {
        progress(bytes, Self::get)
    }
}

impl Seek {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::Beginning => 1,
            Self::Last => 2,
        }
    }
}

impl Request {
    /// The command's number.
    pub fn command(&self) -> u32 {
        match self {
            Self::Connect(_) => 1,
            Self::ListSessions => 2,
            Self::Attach { .. } => 3,
            Self::NextIndex { .. } => 4,
            Self::Packet { .. } => 5,
            Self::Metadata { .. } => 6,
            Self::NewStreams { .. } => 7,
            Self::CreateSession => 8,
            Self::Detach { .. } => 9,
        }
    }

    /// Header and payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Out::default();
        match self {
            Self::Connect(connect) => connect.put(&mut body),
            Self::ListSessions | Self::CreateSession => {}
            Self::Attach { session_id, offset, seek } => {
                body.u64(*session_id);
                body.u64(*offset);
                body.u32(*seek);
            }
            Self::NextIndex { stream_id } | Self::Metadata { stream_id } => body.u64(*stream_id),
            Self::Packet { stream_id, offset, len_bytes } => {
                body.u64(*stream_id);
                body.u64(*offset);
                body.u32(*len_bytes);
            }
            Self::NewStreams { session_id } | Self::Detach { session_id } => body.u64(*session_id),
        }
        let mut out = Out::default();
        out.u64(body.0.len() as u64);
        out.u32(self.command());
        out.u32(0);
        out.0.extend_from_slice(&body.0);
        out.0
    }

    /// Reads a request as a relay does: the command alone says how large the payload is.
    ///
    /// # Errors
    /// An unknown command.
    pub fn decode(bytes: &[u8]) -> Result<Progress<Self>, DecodeError> {
        progress(bytes, |r| {
            r.u64()?;
            let offset = r.at;
            let command = r.u32()?;
            r.u32()?;
            Ok(match command {
                1 => Self::Connect(Connect::get(r)?),
                2 => Self::ListSessions,
                3 => Self::Attach { session_id: r.u64()?, offset: r.u64()?, seek: r.u32()? },
                4 => Self::NextIndex { stream_id: r.u64()? },
                5 => Self::Packet { stream_id: r.u64()?, offset: r.u64()?, len_bytes: r.u32()? },
                6 => Self::Metadata { stream_id: r.u64()? },
                7 => Self::NewStreams { session_id: r.u64()? },
                8 => Self::CreateSession,
                9 => Self::Detach { session_id: r.u64()? },
                n => return Err(unknown("command", offset, n)),
            })
        })
    }
}

/// Reply to `CreateSession` and `Detach`: 1 is yes.
pub fn encode_status(status: u32) -> Vec<u8> {
    status.to_be_bytes().to_vec()
}

/// Reads a reply that is only a status.
///
/// # Errors
/// None: any four bytes are a reply.
pub fn decode_status(bytes: &[u8]) -> Result<Progress<u32>, DecodeError> {
    progress(bytes, In::u32)
}

/// Format of a session's traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceFormat {
    /// CTF 1.8.
    Ctf18,
    /// CTF 2.
    Ctf2,
}

/// A session of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: u64,
    /// Period of its live timer in microseconds; 0 when it is not live.
    pub live_timer_us: u32,
    /// Viewers that watch it.
    pub clients: u32,
    /// Its streams.
    pub streams: u32,
    /// Host that it records.
    pub hostname: String,
    /// Its name.
    pub name: String,
    /// Format of its traces, told from minor 15 on.
    pub format: Option<TraceFormat>,
}

/// Reply to `ListSessions`.
pub fn encode_sessions(sessions: &[Session], minor: u32) -> Vec<u8> {
    let mut out = Out::default();
    out.u32(sessions.len() as u32);
    for session in sessions {
        out.u64(session.id);
        out.u32(session.live_timer_us);
        out.u32(session.clients);
        out.u32(session.streams);
        if minor < MINOR_LONG_ENTRIES {
            out.padded(&session.hostname, HOST_BYTES);
            out.padded(&session.name, NAME_BYTES);
            continue;
        }
        out.u32(session.hostname.len() as u32);
        out.u32(session.name.len() as u32);
        out.u32(u32::from(session.format == Some(TraceFormat::Ctf2)));
        out.0.extend_from_slice(session.hostname.as_bytes());
        out.0.extend_from_slice(session.name.as_bytes());
    }
    out.0
}

/// Reads a reply to `ListSessions` of a connection with this minor version.
///
/// # Errors
/// Too many sessions, names that are too long, an unknown format.
pub fn decode_sessions(bytes: &[u8], minor: u32) -> Result<Progress<Vec<Session>>, DecodeError> {
    progress(bytes, |r| {
        let least = if minor < MINOR_LONG_ENTRIES { SESSION_BYTES } else { LONG_SESSION_BYTES };
        r.list(SESSIONS_MAX, least, |r| get_session(r, minor))
    })
}

fn get_session(r: &mut In<'_>, minor: u32) -> Result<Session, Stop> {
    let id = r.u64()?;
    let live_timer_us = r.u32()?;
    let clients = r.u32()?;
    let streams = r.u32()?;
    let (hostname, name, format) = if minor < MINOR_LONG_ENTRIES {
        (r.padded(HOST_BYTES)?, r.padded(NAME_BYTES)?, None)
    } else {
        let hostname_bytes = r.count(NAME_BYTES_MAX)?;
        let name_bytes = r.count(NAME_BYTES_MAX)?;
        let offset = r.at;
        let format = match r.u32()? {
            0 => TraceFormat::Ctf18,
            1 => TraceFormat::Ctf2,
            n => return Err(unknown("trace format", offset, n)),
        };
        let hostname = text(r.take(hostname_bytes as usize)?);
        (hostname, text(r.take(name_bytes as usize)?), Some(format))
    };
    Ok(Session { id, live_timer_us, clients, streams, hostname, name, format })
}

/// A stream of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its id.
    pub id: u64,
    /// Streams of the same number are of one trace.
    pub ctf_trace_id: u64,
    /// Whether it is the metadata of its trace.
    pub is_metadata: bool,
    /// Directory of the trace, such as `ust/uid/0/64-bit`.
    pub path_name: String,
    /// Name of the stream, such as `ch0_1`.
    pub channel_name: String,
}

/// What a relay answers to `Attach` beside streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AttachStatus {
    Ok,
    /// Somebody watches it already.
    Already,
    /// There is no such session.
    Unknown,
    NotLive,
    BadSeek,
    /// `CreateSession` is missing.
    NoViewerSession,
    /// A number that is none of these.
    Other(u32),
}

/// What a relay answers to `NewStreams` beside streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NewStreamsStatus {
    Ok,
    /// None for now.
    NoNew,
    Error,
    /// The session is closed and everything was sent.
    HangUp,
    /// A number that is none of these.
    Other(u32),
}

/// A status and streams: the reply to `Attach` and `NewStreams`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams<S> {
    /// The status.
    pub status: S,
    /// The streams.
    pub streams: Vec<Stream>,
}

/// A status with numbers on the wire.
pub trait Status: Sized + Copy {
    /// From the wire.
    fn from_number(number: u32) -> Self;
    /// To the wire.
    fn number(self) -> u32;
}

macro_rules! status {
    ($name:ident, $($number:literal => $variant:ident),+) => {
        impl Status for $name {
            fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    n => Self::Other(n),
                }
            }
            fn number(self) -> u32 {
                match self {
                    $(Self::$variant => $number,)+
                    Self::Other(n) => n,
                }
            }
        }
    };
}

status!(AttachStatus, 1 => Ok, 2 => Already, 3 => Unknown, 4 => NotLive, 5 => BadSeek, 6 => NoViewerSession);
status!(NewStreamsStatus, 1 => Ok, 2 => NoNew, 3 => Error, 4 => HangUp);
status!(IndexStatus, 1 => Ok, 2 => Retry, 3 => HangUp, 4 => Error, 5 => Inactive, 6 => EndOfFile);
status!(PacketStatus, 1 => Ok, 2 => Retry, 3 => Error, 4 => EndOfFile);
status!(MetadataStatus, 1 => Ok, 2 => NoNew, 3 => Error);

impl<S: Status> Streams<S> {
    /// The bytes of the reply.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        out.u32(self.status.number());
        out.u32(self.streams.len() as u32);
        for stream in &self.streams {
            out.u64(stream.id);
            out.u64(stream.ctf_trace_id);
            out.u32(u32::from(stream.is_metadata));
            out.padded(&stream.path_name, PATH_BYTES);
            out.padded(&stream.channel_name, NAME_BYTES);
        }
        out.0
    }

    /// Reads a reply. Streams follow only when the status is 1.
    ///
    /// # Errors
    /// Too many streams.
    pub fn decode(bytes: &[u8]) -> Result<Progress<Self>, DecodeError> {
        progress(bytes, |r| {
            let number = r.u32()?;
            let streams = if number == 1 {
                r.list(STREAMS_MAX, STREAM_BYTES, get_stream)?
            } else {
                r.u32()?;
                Vec::new()
            };
            Ok(Self { status: S::from_number(number), streams })
        })
    }
}

fn get_stream(r: &mut In<'_>) -> Result<Stream, Stop> {
    Ok(Stream {
        id: r.u64()?,
        ctf_trace_id: r.u64()?,
        is_metadata: r.u32()? != 0,
        path_name: r.padded(PATH_BYTES)?,
        channel_name: r.padded(NAME_BYTES)?,
    })
}

/// What a relay answers to `NextIndex`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum IndexStatus {
    Ok,
    /// Nothing for now.
    Retry,
    /// The stream is closed and everything was sent.
    HangUp,
    Error,
    /// Nothing happened until the end time.
    Inactive,
    EndOfFile,
    /// A number that is none of these.
    Other(u32),
}

/// Reply to `NextIndex`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// Where the packet is in the stream's file, in bytes.
    pub offset: u64,
    /// Its size in bits.
    pub packet_size_bits: u64,
    /// Size of its content in bits.
    pub content_size_bits: u64,
    /// Clock at its beginning, in cycles.
    pub timestamp_begin: u64,
    /// Clock at its end, in cycles; when inactive, the time until which nothing comes.
    pub timestamp_end: u64,
    /// Events discarded so far.
    pub events_discarded: u64,
    /// Stream class id.
    pub stream_class_id: u64,
    /// Status.
    pub status: IndexStatus,
    /// [`FLAG_NEW_METADATA`] and [`FLAG_NEW_STREAM`], with any status.
    pub flags: u32,
}

impl Index {
    /// A reply without an index.
    pub fn without(status: IndexStatus, flags: u32) -> Self {
        Self {
            offset: 0,
            packet_size_bits: 0,
            content_size_bits: 0,
            timestamp_begin: 0,
            timestamp_end: 0,
            events_discarded: 0,
            stream_class_id: 0,
            status,
            flags,
        }
    }

    /// The 64 bytes of the reply.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        for value in [
            self.offset,
            self.packet_size_bits,
            self.content_size_bits,
            self.timestamp_begin,
            self.timestamp_end,
            self.events_discarded,
            self.stream_class_id,
        ] {
            out.u64(value);
        }
        out.u32(self.status.number());
        out.u32(self.flags);
        out.0
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// None: any bytes of the right number are a reply.
    pub fn decode(bytes: &[u8]) -> Result<Progress<Self>, DecodeError> {
        progress(bytes, |r| {
            Ok(Self {
                offset: r.u64()?,
                packet_size_bits: r.u64()?,
                content_size_bits: r.u64()?,
                timestamp_begin: r.u64()?,
                timestamp_end: r.u64()?,
                events_discarded: r.u64()?,
                stream_class_id: r.u64()?,
                status: IndexStatus::from_number(r.u32()?),
                flags: r.u32()?,
            })
        })
    }
}

/// What a relay answers to `Packet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PacketStatus {
    Ok,
    Retry,
    Error,
    EndOfFile,
    /// A number that is none of these.
    Other(u32),
}

/// Reply to `Packet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketData {
    /// Status.
    pub status: PacketStatus,
    /// [`FLAG_NEW_METADATA`] and [`FLAG_NEW_STREAM`].
    pub flags: u32,
    /// The bytes; none unless the status is `Ok`.
    pub data: Vec<u8>,
}

impl PacketData {
    /// The bytes of the reply.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        out.u32(self.status.number());
        out.u32(self.data.len() as u32);
        out.u32(self.flags);
        out.0.extend_from_slice(&self.data);
        out.0
    }

    /// Reads a reply to a request of `asked_bytes`.
    ///
    /// # Errors
    /// More bytes than were asked for.
    pub fn decode(bytes: &[u8], asked_bytes: u32) -> Result<Progress<Self>, DecodeError> {
        progress(bytes, |r| {
            let status = PacketStatus::from_number(r.u32()?);
            let len = r.count(asked_bytes.min(PACKET_BYTES_MAX));
            // What other statuses say of the length is not meant.
            let len = if status == PacketStatus::Ok { len? } else { 0 };
            let flags = r.u32()?;
            Ok(Self { status, flags, data: r.take(len as usize)?.to_vec() })
        })
    }
}

/// What a relay answers to `Metadata`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MetadataStatus {
    Ok,
    /// Nothing for now.
    NoNew,
    Error,
    /// A number that is none of these.
    Other(u32),
}

/// Reply to `Metadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Status.
    pub status: MetadataStatus,
    /// The bytes; none unless the status is `Ok`.
    pub data: Vec<u8>,
}

impl Metadata {
    /// The bytes of the reply.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        out.u64(self.data.len() as u64);
        out.u32(self.status.number());
        out.0.extend_from_slice(&self.data);
        out.0
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// More than [`METADATA_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Progress<Self>, DecodeError> {
        progress(bytes, |r| {
            let offset = r.at;
            let len = r.u64()?;
            let status = MetadataStatus::from_number(r.u32()?);
            if status != MetadataStatus::Ok {
                return Ok(Self { status, data: Vec::new() });
            }
            if len > METADATA_BYTES_MAX {
                let max = METADATA_BYTES_MAX as usize;
                return Err(Stop::Bad(DecodeError::Count { offset, count: len, max }));
            }
            Ok(Self { status, data: r.take(len as usize)?.to_vec() })
        })
    }
}

/// Why reading stopped.
enum Stop {
    Needs(usize),
    Bad(DecodeError),
}

fn unknown(what: &'static str, offset: usize, number: u32) -> Stop {
    Stop::Bad(DecodeError::Unknown { what, offset, number: number.into() })
}

fn progress<'a, T>(
    bytes: &'a [u8],
    get: impl FnOnce(&mut In<'a>) -> Result<T, Stop>,
) -> Result<Progress<T>, DecodeError> {
    let mut r = In { bytes, at: 0 };
    match get(&mut r) {
        Ok(value) => Ok(Progress::Done(value, r.at)),
        Err(Stop::Needs(bytes)) => Ok(Progress::Needs(bytes)),
        Err(Stop::Bad(error)) => Err(error),
    }
}

/// Reads big-endian.
struct In<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> In<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(count);
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Needs(end))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn count(&mut self, max: u32) -> Result<u32, Stop> {
        let offset = self.at;
        let count = self.u32()?;
        if count > max {
            let max = max as usize;
            return Err(Stop::Bad(DecodeError::Count { offset, count: count.into(), max }));
        }
        Ok(count)
    }

    /// A count and that many items of at least `least_bytes` each, which are there.
    fn list<T>(
        &mut self,
        max: u32,
        least_bytes: usize,
        get: impl FnMut(&mut Self) -> Result<T, Stop>,
    ) -> Result<Vec<T>, Stop> {
        let count = self.count(max)? as usize;
        let end = self.at.saturating_add(count.saturating_mul(least_bytes));
        if end > self.bytes.len() {
            return Err(Stop::Needs(end));
        }
        let mut get = get;
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            out.push(get(self)?);
        }
        Ok(out)
    }

    /// Text in a field of fixed size, up to its first NUL.
    fn padded(&mut self, size: usize) -> Result<String, Stop> {
        let bytes = self.take(size)?;
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(size);
        Ok(text(&bytes[..len]))
    }
}

/// What is no UTF-8 becomes U+FFFD: names are only compared and shown.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes big-endian.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Text in a field of fixed size, cut so that a NUL ends it.
    fn padded(&mut self, text: &str, size: usize) {
        let len = text.len().min(size - 1);
        self.0.extend_from_slice(&text.as_bytes()[..len]);
        self.0.resize(self.0.len() + size - len, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};

    #[test]
    fn requests_survive_and_have_their_sizes() {
        let requests = [
            (Request::Connect(Connect::viewer(4, ConnectionType::Command)), 20),
            (Request::ListSessions, 0),
            (Request::Attach { session_id: 1, offset: 0, seek: Seek::Last.number() }, 20),
            (Request::NextIndex { stream_id: 2 }, 8),
            (Request::Packet { stream_id: 3, offset: 4, len_bytes: 5 }, 20),
            (Request::Metadata { stream_id: 6 }, 8),
            (Request::NewStreams { session_id: 7 }, 8),
            (Request::CreateSession, 0),
            (Request::Detach { session_id: 8 }, 8),
        ];
        for (request, payload) in requests {
            let bytes = request.encode();
            assert_eq!(bytes.len(), HEADER_BYTES + payload);
            assert_eq!(bytes[..8], (payload as u64).to_be_bytes());
            for cut in 0..bytes.len() {
                let needs = Request::decode(&bytes[..cut]);
                assert!(matches!(needs, Ok(Progress::Needs(n)) if n > cut), "{request:?} {needs:?}");
            }
            assert_eq!(Request::decode(&bytes), Ok(Progress::Done(request, bytes.len())));
        }
        let mut bad = Request::ListSessions.encode();
        bad[11] = 99;
        let error = DecodeError::Unknown { what: "command", offset: 8, number: 99 };
        assert_eq!(Request::decode(&bad), Err(error));
    }

    fn session() -> Session {
        Session {
            id: 1,
            live_timer_us: 2,
            clients: 0,
            streams: 4,
            hostname: "host".into(),
            name: "name".into(),
            format: None,
        }
    }

    #[test]
    fn sessions_of_both_forms() {
        let old = vec![session(), session()];
        let bytes = encode_sessions(&old, 4);
        assert_eq!(bytes.len(), 4 + 2 * 339);
        assert_eq!(decode_sessions(&bytes, 4), Ok(Progress::Done(old, bytes.len())));
        let new = vec![Session { format: Some(TraceFormat::Ctf2), ..session() }];
        let bytes = encode_sessions(&new, 15);
        assert_eq!(bytes.len(), 4 + 32 + 8);
        for cut in 0..bytes.len() {
            assert!(matches!(decode_sessions(&bytes[..cut], 15), Ok(Progress::Needs(n)) if n > cut));
        }
        assert_eq!(decode_sessions(&bytes, 15), Ok(Progress::Done(new, bytes.len())));
    }

    #[test]
    fn streams_and_their_statuses() {
        let stream = Stream {
            id: 1,
            ctf_trace_id: 2,
            is_metadata: true,
            path_name: "ust".into(),
            channel_name: "metadata".into(),
        };
        let reply = Streams { status: AttachStatus::Ok, streams: vec![stream] };
        let bytes = reply.encode();
        assert_eq!(bytes.len(), 8 + 4371);
        assert_eq!(Streams::decode(&bytes), Ok(Progress::Done(reply, bytes.len())));
        for number in 0..9 {
            assert_eq!(AttachStatus::from_number(number).number(), number);
            assert_eq!(IndexStatus::from_number(number).number(), number);
        }
        // After a bad status no streams follow, whatever the count says.
        let none: Result<Progress<Streams<AttachStatus>>, _> = Streams::decode(&[0, 0, 0, 3, 0, 0, 0, 9]);
        assert_eq!(none, Ok(Progress::Done(Streams { status: AttachStatus::Unknown, streams: vec![] }, 8)));
    }

    #[test]
    fn data_that_was_not_asked_for_is_refused() {
        let reply = PacketData { status: PacketStatus::Ok, flags: 0, data: vec![1, 2, 3] };
        let bytes = reply.encode();
        assert_eq!(PacketData::decode(&bytes, 3), Ok(Progress::Done(reply, bytes.len())));
        assert!(matches!(PacketData::decode(&bytes, 2), Err(DecodeError::Count { .. })));
        let huge = [&u64::MAX.to_be_bytes()[..], &1u32.to_be_bytes()].concat();
        assert!(matches!(Metadata::decode(&huge), Err(DecodeError::Count { .. })));
        let index = Index::without(IndexStatus::Inactive, FLAG_NEW_STREAM);
        assert_eq!(Index::decode(&index.encode()), Ok(Progress::Done(index, 64)));
        assert!(format!("{index:?}").contains("Inactive"));
    }
}
