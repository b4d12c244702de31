//! A relay that plays upstream's scripts: traces on disk, given packet by packet, with beacons, new
//! traces and metadata in sections at the times that the script says.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use sillage_ctf::model::CtfVersion;
use sillage_ctf::{MetadataOptions, MetadataReader, PacketInfo};
use sillage_pipeline::sources::live::Link;
use sillage_protocol::live::{
    AttachStatus, Connect, FLAG_NEW_METADATA, FLAG_NEW_STREAM, Index, IndexStatus, Metadata, MetadataStatus,
    NewStreamsStatus, PacketData, PacketStatus, Progress, Request, Session, Stream, Streams, TraceFormat,
    encode_sessions, encode_status,
};

/// What a stream has to give.
#[derive(Debug)]
enum Entry {
    Packet(Index),
    Beacon(u64),
}

impl Entry {
    fn time(&self) -> u64 {
        match self {
            Self::Packet(index) => index.timestamp_begin,
            Self::Beacon(time) => *time,
        }
    }
}

#[derive(Debug)]
struct FakeStream {
    id: u64,
    name: String,
    data: Vec<u8>,
    entries: VecDeque<Entry>,
    /// Asked once in vain before each entry.
    hesitates: bool,
}

#[derive(Debug)]
struct FakeTrace {
    id: u64,
    creation: u64,
    announced: bool,
    metadata_id: u64,
    /// What is not sent yet: bytes and from when on they are there.
    sections: VecDeque<(Vec<u8>, u64)>,
    streams: Vec<FakeStream>,
}

#[derive(Debug)]
struct FakeSession {
    id: u64,
    name: String,
    hostname: String,
    live_timer_us: u32,
    format: TraceFormat,
    attached: bool,
    traces: Vec<FakeTrace>,
    time: u64,
}

/// The relay.
#[derive(Debug)]
pub struct FakeRelay {
    minor: u32,
    sessions: Vec<FakeSession>,
    /// Whether each stream says "retry" before each of its entries.
    pub hesitates: bool,
}

impl FakeRelay {
    /// The relay of a script; `minor` is what it speaks.
    pub fn of_script(script: &Path, traces: &Path, minor: u32) -> Self {
        let script: Value = serde_json::from_slice(&std::fs::read(script).unwrap()).unwrap();
        let mut next_id = 0;
        let sessions = script.as_array().unwrap().iter();
        let sessions = sessions.map(|session| read_session(session, traces, &mut next_id)).collect();
        Self { minor, sessions, hesitates: false }
    }

    /// Writes something else for these words in the metadata of all traces.
    pub fn damage_metadata(&mut self, words: &str, other: &str) {
        let sections = self.sessions.iter_mut().flat_map(|session| &mut session.traces);
        for (section, _) in sections.flat_map(|trace| &mut trace.sections) {
            let text = String::from_utf8(std::mem::take(section)).unwrap();
            *section = text.replace(words, other).into();
        }
    }

    fn answer(&mut self, request: &Request) -> Option<Vec<u8>> {
        Some(match request {
            Request::Connect(hello) => {
                self.minor = self.minor.min(hello.minor);
                Connect { viewer_session_id: 1, minor: self.minor, kind: 0, ..*hello }.encode()
            }
            Request::CreateSession => encode_status(1),
            Request::ListSessions => encode_sessions(&self.list(), self.minor),
            Request::Attach { session_id, .. } => {
                let session = self.session(*session_id)?;
                session.attached = true;
                let streams = session.announce(0);
                Streams { status: AttachStatus::Ok, streams }.encode()
            }
            Request::NewStreams { session_id } => {
                let session = self.session(*session_id)?;
                let streams = session.announce(session.time);
                let over = streams.is_empty() && session.is_over();
                let status = if over { NewStreamsStatus::HangUp } else { NewStreamsStatus::Ok };
                Streams { status, streams }.encode()
            }
            Request::NextIndex { stream_id } => self.index(*stream_id).encode(),
            Request::Packet { stream_id, offset, len_bytes } => {
                let stream = self.stream(*stream_id)?.1;
                let data = stream.data[*offset as usize..][..*len_bytes as usize].to_vec();
                PacketData { status: PacketStatus::Ok, flags: 0, data }.encode()
            }
            Request::Metadata { stream_id } => self.metadata(*stream_id).encode(),
            Request::Detach { session_id } => {
                self.session(*session_id)?.attached = false;
                encode_status(1)
            }
        })
    }

    fn list(&self) -> Vec<Session> {
        let seen = |s: &&FakeSession| self.minor >= 15 || s.format == TraceFormat::Ctf18;
        let sessions = self.sessions.iter().filter(seen);
        sessions
            .map(|s| Session {
                id: s.id,
                live_timer_us: s.live_timer_us,
                clients: u32::from(s.attached),
                streams: s.traces.iter().map(|t| t.streams.len() as u32 + 1).sum(),
                hostname: s.hostname.clone(),
                name: s.name.clone(),
                format: Some(s.format),
            })
            .collect()
    }

    fn session(&mut self, id: u64) -> Option<&mut FakeSession> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    /// A stream and the number of its session.
    fn stream(&mut self, id: u64) -> Option<(usize, &mut FakeStream)> {
        self.sessions.iter_mut().enumerate().find_map(|(at, session)| {
            let mut streams = session.traces.iter_mut().flat_map(|t| &mut t.streams);
            streams.find(|stream| stream.id == id).map(|stream| (at, stream))
        })
    }

    fn index(&mut self, id: u64) -> Index {
        let hesitates = self.hesitates;
        let Some((at, stream)) = self.stream(id) else {
            return Index::without(IndexStatus::Error, 0);
        };
        if hesitates {
            stream.hesitates = !stream.hesitates;
            if stream.hesitates {
                return Index::without(IndexStatus::Retry, 0);
            }
        }
        let Some(entry) = stream.entries.pop_front() else {
            return Index::without(IndexStatus::HangUp, 0);
        };
        let session = &mut self.sessions[at];
        session.time = session.time.max(entry.time());
        let mut flags = 0;
        if session.traces.iter().any(|t| !t.announced && t.creation <= session.time) {
            flags |= FLAG_NEW_STREAM;
        }
        let trace = session.traces.iter().find(|t| t.streams.iter().any(|s| s.id == id));
        if trace.is_some_and(|t| t.sections.front().is_some_and(|(_, from)| *from <= session.time)) {
            flags |= FLAG_NEW_METADATA;
        }
        match entry {
            Entry::Packet(index) => Index { flags, ..index },
            Entry::Beacon(until) => {
                Index { timestamp_end: until, ..Index::without(IndexStatus::Inactive, flags) }
            }
        }
    }

    fn metadata(&mut self, id: u64) -> Metadata {
        for session in &mut self.sessions {
            let time = session.time;
            if let Some(trace) = session.traces.iter_mut().find(|trace| trace.metadata_id == id) {
                return match trace.sections.pop_front_if(|(_, from)| *from <= time) {
                    Some((data, _)) => Metadata { status: MetadataStatus::Ok, data },
                    None => Metadata { status: MetadataStatus::NoNew, data: Vec::new() },
                };
            }
        }
        Metadata { status: MetadataStatus::Error, data: Vec::new() }
    }
}

impl FakeSession {
    fn announce(&mut self, time: u64) -> Vec<Stream> {
        let mut out = Vec::new();
        for trace in self.traces.iter_mut().filter(|t| !t.announced && t.creation <= time) {
            trace.announced = true;
            let stream = |id, is_metadata, channel_name: &str| Stream {
                id,
                ctf_trace_id: trace.id,
                is_metadata,
                path_name: "trace".into(),
                channel_name: channel_name.into(),
            };
            out.push(stream(trace.metadata_id, true, "metadata"));
            out.extend(trace.streams.iter().map(|s| stream(s.id, false, &s.name)));
        }
        out
    }

    fn is_over(&self) -> bool {
        self.traces.iter().all(|t| t.announced && t.streams.iter().all(|s| s.entries.is_empty()))
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// Where the corpus keeps the trace that a script names.
fn trace_path(name: &str, traces: &Path) -> PathBuf {
    let name = name.trim_end_matches('/');
    let directory = match name.split('/').collect::<Vec<_>>()[..] {
        [version, "succeed", trace] => format!("bt{version}-{trace}/trace"),
        [version, "succeed", trace, below] => format!("bt{version}-{trace}/trace/{below}"),
        [version, "live", trace] => format!("bt{version}-live-{trace}/trace"),
        [trace] => format!("bt1-live-new-streams-{trace}/trace"),
        _ => panic!("unknown trace {name}"),
    };
    traces.join(directory)
}

fn read_session(session: &Value, traces: &Path, next_id: &mut u64) -> FakeSession {
    let mut format = TraceFormat::Ctf18;
    let fake = session["traces"].as_array().unwrap().iter().enumerate().map(|(number, trace)| {
        let directory = trace_path(&text(trace, "path"), traces);
        let (fake, version) = read_trace(trace, &directory, number as u64, next_id);
        if version == CtfVersion::V2 {
            format = TraceFormat::Ctf2;
        }
        fake
    });
    FakeSession {
        traces: fake.collect(),
        id: session["id"].as_u64().unwrap(),
        name: text(session, "name"),
        hostname: text(session, "hostname"),
        live_timer_us: session["live-timer-freq"].as_u64().unwrap() as u32,
        format,
        attached: false,
        time: 0,
    }
}

fn read_trace(trace: &Value, directory: &Path, number: u64, next_id: &mut u64) -> (FakeTrace, CtfVersion) {
    let mut take_id = || {
        *next_id += 1;
        *next_id - 1
    };
    let metadata = std::fs::read(directory.join("metadata")).unwrap();
    let class = MetadataReader::read(&metadata, MetadataOptions::default()).unwrap();
    let metadata_id = take_id();
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().map(|e| e.path()).collect();
    files.retain(|path| path.is_file() && path.file_name().is_some_and(|name| name != "metadata"));
    files.sort();
    let mut streams = Vec::new();
    for file in files {
        let data = std::fs::read(&file).unwrap();
        let mut entries = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let info = PacketInfo::read(&class, &data[at..]).unwrap();
            let (content_size_bits, packet_size_bits) = info.sizes((data.len() - at) as u64).unwrap();
            entries.push(Entry::Packet(Index {
                offset: at as u64,
                packet_size_bits,
                content_size_bits,
                timestamp_begin: info.begin.unwrap_or(0),
                timestamp_end: info.end.unwrap_or(0),
                events_discarded: info.events_discarded.unwrap_or(0),
                stream_class_id: info.stream_class_id,
                ..Index::without(IndexStatus::Ok, 0)
            }));
            at += (packet_size_bits / 8) as usize;
        }
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let beacons = trace["beacons"].as_object().into_iter().flatten();
        for beacon in beacons.filter(|(stream, _)| **stream == name).flat_map(|(_, b)| b.as_array().unwrap())
        {
            entries.push(Entry::Beacon(beacon.as_u64().unwrap()));
        }
        entries.sort_by_key(Entry::time);
        let (id, entries) = (take_id(), entries.into());
        streams.push(FakeStream { id, name, data, entries, hesitates: false });
    }
    let fake = FakeTrace {
        id: number,
        creation: trace["creation-timestamp"].as_u64().unwrap_or(0),
        announced: false,
        metadata_id,
        sections: sections(trace, metadata),
        streams,
    };
    (fake, class.version)
}

/// Metadata in the sections of the script, by first line and time.
fn sections(trace: &Value, metadata: Vec<u8>) -> VecDeque<(Vec<u8>, u64)> {
    let Some(script) = trace["metadata-sections"].as_array() else {
        return VecDeque::from([(metadata, 0)]);
    };
    let lines: Vec<&[u8]> = metadata.split_inclusive(|byte| *byte == b'\n').collect();
    let first_line = |section: &Value| section["line"].as_u64().map(|line| line as usize - 1);
    let mut out = VecDeque::new();
    let mut from = 0;
    for (at, section) in script.iter().enumerate() {
        let Some(first) = first_line(section) else {
            out.push_back((Vec::new(), from));
            continue;
        };
        // The first section must be there for anything to be read.
        from = if at == 0 { 0 } else { section["timestamp"].as_u64().unwrap() };
        let end = script[at + 1..].iter().find_map(first_line).unwrap_or(lines.len());
        out.push_back((lines[first..end].concat(), from));
    }
    out
}

/// The relay without a network.
pub struct DirectLink {
    relay: Arc<Mutex<FakeRelay>>,
    out: VecDeque<u8>,
}

impl DirectLink {
    pub fn to(relay: FakeRelay) -> Self {
        Self { relay: Arc::new(Mutex::new(relay)), out: VecDeque::new() }
    }
}

impl Link for DirectLink {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Ok(Progress::Done(request, used)) = Request::decode(bytes) else {
            return Err(ErrorKind::InvalidData.into());
        };
        assert_eq!(used, bytes.len());
        let reply = self.relay.lock().unwrap().answer(&request);
        self.out.extend(reply.ok_or(ErrorKind::BrokenPipe)?);
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, len: usize) -> std::io::Result<()> {
        while buffer.len() < len {
            buffer.push(self.out.pop_front().ok_or(ErrorKind::UnexpectedEof)?);
        }
        Ok(())
    }
}

/// Serves one viewer over TCP, a few bytes at a time; gives the port.
pub fn serve(mut relay: FakeRelay) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut input = Vec::new();
        while let Some(request) = receive(&mut stream, &mut input) {
            let Some(reply) = relay.answer(&request) else {
                return;
            };
            for piece in reply.chunks(1000) {
                if stream.write_all(piece).is_err() {
                    return;
                }
            }
        }
    });
    port
}

fn receive(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Progress::Done(request, used) = Request::decode(input).ok()? {
            input.drain(..used);
            return Some(request);
        }
        let mut piece = [0; 7];
        match stream.read(&mut piece).ok()? {
            0 => return None,
            count => input.extend_from_slice(&piece[..count]),
        }
    }
}
