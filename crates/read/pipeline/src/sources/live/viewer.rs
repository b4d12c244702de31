//! The viewer's side of the protocol: one call per command.

use std::io::ErrorKind;

use sillage_protocol::codec::DecodeError;
use sillage_protocol::live::{
    AttachStatus, Connect, ConnectionType, Index, MAJOR, Metadata, NewStreamsStatus, PacketData, Progress,
    Request, Seek, Session, Streams, decode_sessions, decode_status,
};

use super::link::Link;
use crate::Error;

/// A connection with a relay that has agreed on a version.
pub struct Viewer {
    link: Box<dyn Link>,
    name: String,
    minor: u32,
    buffer: Vec<u8>,
    /// The connection ended, or is at an unknown place of a reply.
    broken: bool,
    interrupted: bool,
}

impl std::fmt::Debug for Viewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Viewer").field("name", &self.name).field("minor", &self.minor).finish()
    }
}

impl Viewer {
    /// Says hello as a viewer of this minor version. `name` is for messages to people.
    ///
    /// # Errors
    /// Another major version, a relay that hangs up.
    pub fn hello(link: Box<dyn Link>, name: String, minor: u32) -> Result<Self, Error> {
        let mut viewer = Self { link, name, minor, buffer: Vec::new(), broken: false, interrupted: false };
        let request = Request::Connect(Connect::viewer(minor, ConnectionType::Command));
        let reply = viewer.call(&request, Connect::decode)?;
        if reply.major != MAJOR {
            let text = format!(
                "{}: the relay speaks version {}.{} of the live protocol, not {MAJOR}",
                viewer.name, reply.major, reply.minor
            );
            return Err(Error::Other(text));
        }
        viewer.minor = minor.min(reply.minor);
        Ok(viewer)
    }

    /// The minor version that both sides speak.
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// Whether nothing more can be asked.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether waiting was given up because the user wants to stop.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    fn call<T>(
        &mut self,
        request: &Request,
        decode: impl Fn(&[u8]) -> Result<Progress<T>, DecodeError>,
    ) -> Result<T, Error> {
        if self.broken {
            return Err(Error::Other(format!("{}: the connection is closed", self.name)));
        }
        // Until the reply is whole.
        self.broken = true;
        let result = self.link.send(&request.encode());
        result.map_err(|error| self.lost(error))?;
        self.buffer.clear();
        loop {
            let progress = decode(&self.buffer).map_err(|error| {
                Error::Other(format!("{}: bad reply to command {}: {error}", self.name, request.command()))
            })?;
            match progress {
                Progress::Done(reply, _) => {
                    self.broken = false;
                    return Ok(reply);
                }
                Progress::Needs(bytes) => {
                    let result = self.link.receive(&mut self.buffer, bytes);
                    result.map_err(|error| self.lost(error))?;
                }
            }
        }
    }

    fn lost(&mut self, error: std::io::Error) -> Error {
        self.interrupted = error.kind() == ErrorKind::Interrupted;
        Error::io(self.name.clone(), error)
    }

    /// The relay's sessions.
    ///
    /// # Errors
    /// A broken connection or a bad reply, as of all commands.
    pub fn sessions(&mut self) -> Result<Vec<Session>, Error> {
        let minor = self.minor;
        self.call(&Request::ListSessions, |bytes| decode_sessions(bytes, minor))
    }

    /// Makes the viewer session that attaching needs.
    ///
    /// # Errors
    /// As [`sessions`](Self::sessions), and a relay that refuses.
    pub fn create_session(&mut self) -> Result<(), Error> {
        match self.call(&Request::CreateSession, decode_status)? {
            1 => Ok(()),
            status => {
                Err(Error::Other(format!("{}: the relay refuses a viewer session ({status})", self.name)))
            }
        }
    }

    /// Watches a session.
    ///
    /// # Errors
    /// As [`sessions`](Self::sessions).
    pub fn attach(&mut self, session_id: u64, seek: Seek) -> Result<Streams<AttachStatus>, Error> {
        let request = Request::Attach { session_id, offset: 0, seek: seek.number() };
        self.call(&request, Streams::decode)
    }

    /// Streams that were not announced yet.
    ///
    /// # Errors
    /// As [`sessions`](Self::sessions).
    pub fn new_streams(&mut self, session_id: u64) -> Result<Streams<NewStreamsStatus>, Error> {
        self.call(&Request::NewStreams { session_id }, Streams::decode)
    }

    /// The next packet of a stream.
    ///
    /// # Errors
    /// As [`sessions`](Self::sessions).
    pub fn next_index(&mut self, stream_id: u64) -> Result<Index, Error> {
        self.call(&Request::NextIndex { stream_id }, Index::decode)
    }

    /// Bytes of a packet.
    ///
    /// # Errors
    /// As [`sessions`](Self::sessions).
    pub fn packet(&mut self, stream_id: u64, offset: u64, len_bytes: u32) -> Result<PacketData, Error> {
        let request = Request::Packet { stream_id, offset, len_bytes };
        self.call(&request, |bytes| PacketData::decode(bytes, len_bytes))
    }

    /// Metadata that was not sent yet.
    ///
    /// # Errors
    /// As [`sessions`](Self::sessions).
    pub fn metadata(&mut self, stream_id: u64) -> Result<Metadata, Error> {
        self.call(&Request::Metadata { stream_id }, Metadata::decode)
    }

    /// Watches a session no longer; what the relay says to it is of no use.
    ///
    /// # Errors
    /// As [`sessions`](Self::sessions).
    pub fn detach(&mut self, session_id: u64) -> Result<(), Error> {
        self.call(&Request::Detach { session_id }, decode_status).map(|_| ())
    }
}
