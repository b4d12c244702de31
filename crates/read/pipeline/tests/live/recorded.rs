//! A relay made of what a real one once said: each question gets the recorded answers to the same
//! question, in their order.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::path::Path;

use sillage_pipeline::sources::live::Link;
use sillage_protocol::codec::DecodeError;
use sillage_protocol::live::{
    AttachStatus, Connect, Index, IndexStatus, Metadata, MetadataStatus, NewStreamsStatus, PacketData,
    PacketStatus, Progress, Request, Streams, decode_sessions, decode_status,
};

/// Which recorded answers fit a question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Question {
    Command(u32),
    Of(u32, u64),
}

/// The recorded relay.
#[derive(Debug, Default)]
pub struct Recorded {
    answers: HashMap<Question, VecDeque<Vec<u8>>>,
    /// Bytes of stream files: stream, offset, bytes.
    files: Vec<(u64, u64, Vec<u8>)>,
    /// Version that both sides spoke.
    pub minor: u32,
    /// Host and name of the sessions that were listed.
    pub sessions: Vec<(String, String)>,
    /// Announced packets, in order: stream, begin, end.
    pub packets: Vec<(u64, u64, u64)>,
    out: VecDeque<u8>,
}

fn question(request: &Request) -> Question {
    match request {
        Request::NextIndex { stream_id } | Request::Metadata { stream_id } => {
            Question::Of(request.command(), *stream_id)
        }
        // There may be questions about sessions whose number the list only tells here.
        _ => Question::Command(request.command()),
    }
}

impl Recorded {
    /// Reads both directions of a connection.
    pub fn read(directory: &Path, name: &str) -> Self {
        let asked = std::fs::read(directory.join(format!("{name}.c2s.bin"))).unwrap();
        let said = std::fs::read(directory.join(format!("{name}.s2c.bin"))).unwrap();
        let mut this = Self::default();
        let (mut asked, mut said) = (&asked[..], &said[..]);
        while !asked.is_empty() && !said.is_empty() {
            let Ok(Progress::Done(request, used)) = Request::decode(asked) else {
                break;
            };
            asked = &asked[used..];
            let Some(size) = this.learn(&request, said) else {
                break;
            };
            let answers = this.answers.entry(question(&request)).or_default();
            answers.push_back(said[..size].to_vec());
            said = &said[size..];
        }
        assert!(said.is_empty(), "{} bytes of answers are left", said.len());
        this
    }

    /// Size of the answer at the start of `said`; keeps what is of use to the tests.
    fn learn(&mut self, request: &Request, said: &[u8]) -> Option<usize> {
        fn size<T>(progress: Result<Progress<T>, DecodeError>, take: impl FnOnce(T)) -> Option<usize> {
            match progress.unwrap() {
                Progress::Done(value, used) => {
                    take(value);
                    Some(used)
                }
                Progress::Needs(_) => None,
            }
        }
        match request {
            Request::Connect(hello) => {
                size(Connect::decode(said), |reply| self.minor = hello.minor.min(reply.minor))
            }
            Request::ListSessions => size(decode_sessions(said, self.minor), |sessions| {
                self.sessions = sessions.into_iter().map(|s| (s.hostname, s.name)).collect();
            }),
            Request::Attach { .. } => size(Streams::<AttachStatus>::decode(said), |_| ()),
            Request::NewStreams { .. } => size(Streams::<NewStreamsStatus>::decode(said), |_| ()),
            Request::NextIndex { stream_id } => size(Index::decode(said), |index| {
                if index.status == IndexStatus::Ok {
                    self.packets.push((*stream_id, index.timestamp_begin, index.timestamp_end));
                }
            }),
            Request::Packet { stream_id, offset, len_bytes } => {
                size(PacketData::decode(said, *len_bytes), |reply| {
                    self.files.push((*stream_id, *offset, reply.data));
                })
            }
            Request::Metadata { .. } => size(Metadata::decode(said), |_| ()),
            Request::CreateSession | Request::Detach { .. } => size(decode_status(said), |_| ()),
        }
    }

    /// What to say when nothing more was recorded: that everything is over.
    fn after_all(&self, request: &Request) -> Option<Vec<u8>> {
        Some(match request {
            Request::NewStreams { .. } => {
                Streams { status: NewStreamsStatus::HangUp, streams: Vec::new() }.encode()
            }
            Request::NextIndex { .. } => Index::without(IndexStatus::HangUp, 0).encode(),
            Request::Metadata { .. } => Metadata { status: MetadataStatus::NoNew, data: Vec::new() }.encode(),
            Request::Detach { .. } => vec![0, 0, 0, 1],
            _ => return None,
        })
    }

    fn file_bytes(&self, stream: u64, offset: u64, len: u32) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < len as usize {
            let at = offset + out.len() as u64;
            let piece = self
                .files
                .iter()
                .find(|(s, from, bytes)| *s == stream && *from <= at && at < from + bytes.len() as u64);
            let Some((_, from, bytes)) = piece else {
                break;
            };
            out.extend_from_slice(&bytes[(at - from) as usize..]);
        }
        out.truncate(len as usize);
        PacketData { status: PacketStatus::Ok, flags: 0, data: out }.encode()
    }
}

impl Link for Recorded {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Ok(Progress::Done(request, _)) = Request::decode(bytes) else {
            return Err(ErrorKind::InvalidData.into());
        };
        let answer = if let Request::Packet { stream_id, offset, len_bytes } = request {
            Some(self.file_bytes(stream_id, offset, len_bytes))
        } else {
            let recorded = self.answers.get_mut(&question(&request)).and_then(VecDeque::pop_front);
            recorded.or_else(|| self.after_all(&request))
        };
        self.out.extend(answer.ok_or(ErrorKind::BrokenPipe)?);
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, len: usize) -> std::io::Result<()> {
        while buffer.len() < len {
            buffer.push(self.out.pop_front().ok_or(ErrorKind::UnexpectedEof)?);
        }
        Ok(())
    }
}
