//! Frames over sockets that never block: bytes in until a whole frame is there, frames out with
//! their descriptors, both bounded.

use crate::limits::{OUTBOX_BYTES_MAX, READ_TURN_BYTES};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use sillage_consumer::{ClockMemory, DoorbellMemory, shared::RingMemory};
use sillage_model::limits::MESSAGE_FDS_MAX;
use sillage_protocol::codec::{DecodeError, FRAME_HEADER_BYTES, FrameHeader};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// There may be more.
    Some,
    /// Nothing more for now.
    Empty,
    /// The peer closed.
    Closed,
}

/// Bytes that arrived and are no whole frame yet.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that were taken.
    taken: usize,
    /// When the unfinished frame began.
    since: Option<Instant>,
}

impl Inbox {
    /// Reads one turn's worth.
    ///
    /// # Errors
    /// The socket's.
    pub fn fill(&mut self, stream: &mut UnixStream) -> io::Result<Filled> {
        let mut turn = [0; READ_TURN_BYTES];
        match stream.read(&mut turn) {
            Ok(0) => Ok(Filled::Closed),
            Ok(count) => {
                self.bytes.extend_from_slice(&turn[..count]);
                Ok(if count == turn.len() { Filled::Some } else { Filled::Empty })
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Filled::Empty)
            }
            Err(e) => Err(e),
        }
    }

    /// The next whole frame: its kind and body.
    ///
    /// # Errors
    /// A header that cannot be one; the connection is of no more use.
    pub fn next(&mut self, now: Instant) -> Result<Option<(u16, Vec<u8>)>, DecodeError> {
        let rest = &self.bytes[self.taken..];
        let whole = match rest.first_chunk::<FRAME_HEADER_BYTES>() {
            None => None,
            Some(header) => {
                let header = FrameHeader::decode(header)?;
                let body = rest[FRAME_HEADER_BYTES..].get(..header.body_bytes);
                body.map(|body| (header.kind, body.to_vec()))
            }
        };
        match &whole {
            Some((_, body)) => {
                self.taken += FRAME_HEADER_BYTES + body.len();
                self.since = None;
            }
            None => {
                self.bytes.drain(..self.taken);
                self.taken = 0;
                if self.bytes.is_empty() {
                    self.bytes = Vec::new();
                    self.since = None;
                } else if self.since.is_none() {
                    self.since = Some(now);
                }
            }
        }
        Ok(whole)
    }

    /// Since when the peer owes the rest of a frame.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }
}

/// Descriptors that travel with a frame, kept alive by their owners.
#[derive(Clone)]
pub enum Attachment {
    /// None.
    Nothing,
    /// Clock page and doorbell.
    Welcome(Arc<ClockMemory>, Arc<DoorbellMemory>),
    /// A ring set.
    Rings(Arc<RingMemory>),
}

/// Frames that wait to be sent.
#[derive(Default)]
pub struct Outbox {
    queue: VecDeque<(Vec<u8>, Attachment)>,
    /// Bytes of the first frame that are gone.
    sent: usize,
    bytes: usize,
}

impl Outbox {
    /// Queues a frame; false if the peer has left too much unread.
    #[must_use]
    pub fn push(&mut self, frame: Vec<u8>, attachment: Attachment) -> bool {
        self.bytes += frame.len();
        self.queue.push_back((frame, attachment));
        self.bytes <= OUTBOX_BYTES_MAX
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends as much as the socket takes.
    ///
    /// # Errors
    /// The socket's; the connection is of no more use.
    pub fn flush(&mut self, stream: &UnixStream) -> io::Result<()> {
        while let Some((frame, attachment)) = self.queue.front() {
            let rest = &frame[self.sent..];
            let first = self.sent == 0;
            let sent = match attachment {
                Attachment::Welcome(clock, bell) if first => {
                    send(stream, rest, &[clock.for_programs(), bell.file()])
                }
                Attachment::Rings(memory) if first => send(stream, rest, &memory.for_programs()),
                _ => send(stream, rest, &[]),
            };
            match sent {
                Ok(count) => {
                    self.sent += count;
                    if self.sent == frame.len() {
                        self.bytes -= frame.len();
                        self.sent = 0;
                        self.queue.pop_front();
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn frames_come_out_whole_however_they_arrive_and_nonsense_is_refused() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut inbox = Inbox::default();
        let now = Instant::now();
        let frame = [12, 0, 0, 0, 7, 0, 0, 0, 1, 2, 3, 4];
        for byte in frame {
            assert_eq!(inbox.next(now), Ok(None));
            far.write_all(&[byte]).unwrap();
            assert_eq!(inbox.fill(&mut near).unwrap(), Filled::Empty);
        }
        assert!(inbox.since().is_some());
        assert_eq!(inbox.next(now), Ok(Some((7, vec![1, 2, 3, 4]))));
        assert_eq!(inbox.next(now), Ok(None));
        assert!(inbox.since().is_none());
        far.write_all(&[255; 8]).unwrap();
        inbox.fill(&mut near).unwrap();
        assert!(inbox.next(now).is_err());
        drop(far);
        assert_eq!(inbox.fill(&mut near).unwrap(), Filled::Closed);
    }

    #[test]
    fn a_peer_that_does_not_read_is_found_out() {
        let mut outbox = Outbox::default();
        let frame = vec![0; 1 << 20];
        let fits = (0..20).take_while(|_| outbox.push(frame.clone(), Attachment::Nothing)).count();
        assert_eq!(fits, OUTBOX_BYTES_MAX >> 20);
    }
}
