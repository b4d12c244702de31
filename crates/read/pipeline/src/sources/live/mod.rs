//! A live session of LTTng's relay daemon as messages: Babeltrace's `source.ctf.lttng-live`.
//!
//! Streams are merged by time; the next message is given when every stream has said what it has, or
//! until when it is silent. Until then [`Status::Pending`] says that asking again later may help.
//! Metadata, new streams and new traces are taken up as they come. Waiting for the relay ends soon
//! after the user wants to stop.

mod link;
mod session;
mod stream;
mod url;
mod viewer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sillage_ctf::{Message, MetadataOptions};
use sillage_protocol::live::MINOR;

pub use sillage_protocol::live::{Seek, Session, TraceFormat};

pub use link::{Link, TcpLink};
pub use stream::LivePackets;
pub use url::{Family, LiveUrl, Target};
pub use viewer::Viewer;

use crate::sources::Muxer;
use crate::{Error, Messages, Status, Warning};
use session::{Attached, LiveTrace};
use stream::{Next, Shared, locked};

/// Times that new streams and metadata are fetched before the caller is asked to come back: a relay
/// may announce for a while what it does not give yet.
const ROUNDS_MAX: u32 = 8;

/// What to do when the relay does not have the session, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionNotFound {
    /// Wait for it.
    #[default]
    Continue,
    /// Fail, if it never was there; end, if it was.
    Fail,
    /// End.
    End,
}

/// How to watch a session.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// What to do without the session.
    pub session_not_found: SessionNotFound,
    /// Where to begin.
    pub seek: Seek,
    /// How to read metadata.
    pub metadata: MetadataOptions,
    /// Newest minor version of the protocol to speak, 4 to 15.
    pub minor: u32,
    /// True when the user wants to stop.
    pub interrupted: Arc<AtomicBool>,
}

impl Default for LiveOptions {
    /// Babeltrace's: what comes from now on, waiting for the session.
    fn default() -> Self {
        Self {
            session_not_found: SessionNotFound::Continue,
            seek: Seek::Last,
            metadata: MetadataOptions::default(),
            minor: MINOR,
            interrupted: Arc::default(),
        }
    }
}

/// The sessions of the relay at an address.
///
/// # Errors
/// No connection, or a relay that does not speak the protocol.
pub fn list_sessions(url: &LiveUrl, options: &LiveOptions) -> Result<Vec<Session>, Error> {
    let link = TcpLink::connect(url, Arc::clone(&options.interrupted))?;
    Viewer::hello(Box::new(link), url.to_string(), options.minor)?.sessions()
}

/// A live session.
#[derive(Debug)]
pub struct Live {
    target: Target,
    url: LiveUrl,
    options: LiveOptions,
    shared: Arc<Mutex<Shared>>,
    sessions: Vec<Attached>,
    traces: Vec<LiveTrace>,
    /// Streams of which nothing is known yet.
    unborn: Vec<LivePackets>,
    streams: usize,
    muxer: Muxer<LivePackets>,
    warnings: Vec<Warning>,
    /// The session was found once.
    was_found: bool,
    /// No session is watched, and nothing of one is left to be given.
    is_idle: bool,
    /// The muxer may be asked at once.
    is_running: bool,
    is_over: bool,
}

impl Live {
    /// Connects to the relay of an address that names a session.
    ///
    /// # Errors
    /// An address without a session, no connection, a relay that does not speak the protocol.
    pub fn connect(url: &LiveUrl, options: LiveOptions) -> Result<Self, Error> {
        let link = TcpLink::connect(url, Arc::clone(&options.interrupted))?;
        Self::over(Box::new(link), url, options)
    }

    /// The same over any link.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn over(link: Box<dyn Link>, url: &LiveUrl, options: LiveOptions) -> Result<Self, Error> {
        let Some(target) = url.target.clone() else {
            return Err(Error::Other(format!("{url}: the address names no session (…/host/TARGET/SESSION)")));
        };
        let mut viewer = Viewer::hello(link, url.to_string(), options.minor)?;
        viewer.create_session()?;
        let shared = Shared {
            viewer,
            classes: Vec::new(),
            metadata_wanted: Vec::new(),
            streams_wanted: Vec::new(),
            identified: Vec::new(),
        };
        Ok(Self {
            target,
            url: url.clone(),
            options,
            shared: Arc::new(Mutex::new(shared)),
            sessions: Vec::new(),
            traces: Vec::new(),
            unborn: Vec::new(),
            streams: 0,
            muxer: Muxer::new(Vec::new()),
            warnings: Vec::new(),
            was_found: false,
            is_idle: true,
            is_running: false,
            is_over: false,
        })
    }

    /// Whether waiting was given up because the user wants to stop.
    pub fn is_interrupted(&self) -> bool {
        locked(&self.shared).viewer.is_interrupted()
    }

    /// Everything that has to be done before the muxer can be asked, again and again while that
    /// brings something new.
    fn advance_rarely(&mut self) -> Result<Status, Error> {
        for _ in 0..ROUNDS_MAX {
            if self.is_idle {
                match self.find_session()? {
                    Status::Ready => {}
                    other => return Ok(other),
                }
            }
            let mut progress = self.serve()?;
            let settled = self.bear(&mut progress)?;
            if settled {
                match self.muxer.advance()? {
                    Status::Ready => {
                        self.is_running = true;
                        return Ok(Status::Ready);
                    }
                    Status::Pending => {}
                    Status::End => match self.after_all_streams()? {
                        Status::Ready => progress = true,
                        other => {
                            self.is_idle = self.sessions.is_empty();
                            return Ok(other);
                        }
                    },
                }
            }
            if !progress && !self.can_serve() {
                break;
            }
        }
        Ok(Status::Pending)
    }

    /// Gives readers to the streams of which something is known; true when there is none left.
    fn bear(&mut self, progress: &mut bool) -> Result<bool, Error> {
        let mut still = Vec::new();
        let mut failure = Ok(());
        for mut packets in std::mem::take(&mut self.unborn) {
            let trace = &self.traces[packets.trace];
            if trace.is_dead() {
                let text = format!("{}: the relay has no metadata for it", packets.name());
                failure = Err(Error::Other(text));
                continue;
            }
            if !trace.is_known() {
                // What its packets are can not be told yet.
                still.push(packets);
                continue;
            }
            let born = match packets.next() {
                Ok(Next::Over) => {
                    *progress = true;
                    continue;
                }
                Ok(Next::Waiting) => Ok(Err(packets)),
                Ok(Next::Class(id)) => self.reader(packets, id),
                Err(error) => Err(error),
            };
            match born {
                Ok(Ok(reader)) => {
                    *progress = true;
                    self.muxer.add(reader);
                }
                Ok(Err(packets)) => still.push(packets),
                // The stream is given up, the others stay.
                Err(error) => failure = Err(error),
            }
        }
        self.unborn = still;
        failure.map(|()| self.unborn.is_empty())
    }

    /// Turns an interruption into an end of waiting.
    fn unless_interrupted(&mut self, result: Result<Status, Error>) -> Result<Status, Error> {
        match result {
            Err(_) if self.is_interrupted() => {
                self.is_over = true;
                Ok(Status::Pending)
            }
            Err(error) => {
                self.is_running = false;
                self.is_over |= locked(&self.shared).viewer.is_broken();
                Err(error)
            }
            Ok(Status::End) => {
                self.is_over = true;
                Ok(Status::End)
            }
            Ok(status) => Ok(status),
        }
    }
}

impl Messages for Live {
    #[inline]
    fn advance(&mut self) -> Result<Status, Error> {
        if self.is_running {
            match self.muxer.advance() {
                Ok(Status::Ready) => return Ok(Status::Ready),
                Ok(_) => self.is_running = false,
                Err(error) => return self.unless_interrupted(Err(error)),
            }
        }
        // Only looked at here: what a relay has sent is told to its end.
        self.is_over |= self.options.interrupted.load(Ordering::Relaxed);
        if self.is_over {
            return Ok(Status::End);
        }
        let result = self.advance_rarely();
        self.unless_interrupted(result)
    }

    #[inline]
    fn current(&self) -> Option<Message<'_>> {
        self.muxer.current()
    }

    fn skip_packet(&mut self) -> bool {
        self.muxer.skip_packet()
    }

    fn take_warnings(&mut self) -> Vec<Warning> {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.muxer.take_warnings());
        warnings
    }
}
