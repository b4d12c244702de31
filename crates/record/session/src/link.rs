//! The socket between keeper and worker: what a worker leaves behind for the next one.
//!
//! Each message is one packet of 16 bytes with up to four descriptors:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | kind: 1 keep, 2 drop, 3 state, 4 ready, 5 goodbye, 6 begin |
//! | 4 | 4 | tag of the key; for the ring of a CPU, the CPU's number above it |
//! | 8 | 8 | id of the key; for `begin`: times that the worker was started again |
//!
//! The keeper understands nothing of what it keeps: descriptors under keys, and the newest state, a
//! memory file that only workers read. It sends all of that to a new worker and then `begin`.

use crate::model::Origin;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use sillage_model::limits::MESSAGE_FDS_MAX;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Under what descriptors are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The lock that makes the daemon the only one.
    Lock,
    /// The command line's socket.
    ControlListener,
    /// The programs' socket.
    ProgramsListener,
    /// The clock page.
    Clock,
    /// The doorbell of whose records these are.
    Doorbell(Origin),
    /// Both files of this ring set of programs.
    Set(u64),
    /// The kernel's ring of this CPU in this ring set.
    Ring(u64, u32),
}

/// Tag of [`Key::Ring`]; the CPU stands above it.
const RING: u32 = 7;
/// Where the CPU stands.
const CPU_SHIFT: u32 = 8;

impl Key {
    fn encode(self) -> (u32, u64) {
        match self {
            Key::Lock => (1, 0),
            Key::ControlListener => (2, 0),
            Key::ProgramsListener => (3, 0),
            Key::Clock => (4, 0),
            Key::Doorbell(Origin::User(uid)) => (5, uid.into()),
            Key::Doorbell(Origin::Kernel) => (8, 0),
            Key::Set(id) => (6, id),
            Key::Ring(id, cpu) => (RING | cpu << CPU_SHIFT, id),
        }
    }

    fn decode(tag: u32, id: u64) -> Option<Key> {
        Some(match tag {
            1 => Key::Lock,
            2 => Key::ControlListener,
            3 => Key::ProgramsListener,
            4 => Key::Clock,
            5 => Key::Doorbell(Origin::User(u32::try_from(id).ok()?)),
            6 => Key::Set(id),
            8 => Key::Doorbell(Origin::Kernel),
            tag if tag % (1 << CPU_SHIFT) == RING => Key::Ring(id, tag >> CPU_SHIFT),
            _ => return None,
        })
    }
}

/// A message.
#[derive(Debug)]
pub enum Message {
    /// Keep these descriptors.
    Keep(Key, Vec<OwnedFd>),
    /// Forget them.
    Drop(Key),
    /// This is the newest state.
    State(OwnedFd),
    /// The worker serves.
    Ready,
    /// The worker ends because it was asked to.
    Goodbye,
    /// Everything kept was sent.
    Begin {
        /// Times that the worker was started again.
        restarts: u64,
    },
}

/// Sends one message.
///
/// # Errors
/// The socket's.
pub fn send(link: &OwnedFd, kind: Outgoing<'_>) -> io::Result<()> {
    let (number, (tag, id), fds): (u32, (u32, u64), &[BorrowedFd<'_>]) = match &kind {
        Outgoing::Keep(key, fds) => (1, key.encode(), fds),
        Outgoing::Drop(key) => (2, key.encode(), &[]),
        Outgoing::State(fd) => (3, (0, 0), std::slice::from_ref(fd)),
        Outgoing::Ready => (4, (0, 0), &[]),
        Outgoing::Goodbye => (5, (0, 0), &[]),
        Outgoing::Begin { restarts } => (6, (0, *restarts), &[]),
    };
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..8].copy_from_slice(&tag.to_le_bytes());
    bytes[8..].copy_from_slice(&id.to_le_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(link, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// A message with the descriptors that it lends.
pub enum Outgoing<'a> {
    /// See [`Message::Keep`].
    Keep(Key, &'a [BorrowedFd<'a>]),
    /// See [`Message::Drop`].
    Drop(Key),
    /// See [`Message::State`].
    State(BorrowedFd<'a>),
    /// See [`Message::Ready`].
    Ready,
    /// See [`Message::Goodbye`].
    Goodbye,
    /// See [`Message::Begin`].
    Begin {
        /// Times that the worker was started again.
        restarts: u64,
    },
}

/// Receives one message; None when the other side is gone.
///
/// # Errors
/// The socket's, or a packet that is no message.
pub fn receive(link: &OwnedFd) -> io::Result<Option<Message>> {
    let mut bytes = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            link.as_fd(),
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    });
    let count = match received {
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "no message between keeper and worker");
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let id = u64::from(word(8)) | u64::from(word(12)) << 32;
    let key = || Key::decode(word(4), id).ok_or_else(nonsense);
    match (count, word(0)) {
        (0, _) => Ok(None),
        (16, 1) => Ok(Some(Message::Keep(key()?, fds))),
        (16, 2) => Ok(Some(Message::Drop(key()?))),
        (16, 3) => fds.pop().map(|fd| Some(Message::State(fd))).ok_or_else(nonsense),
        (16, 4) => Ok(Some(Message::Ready)),
        (16, 5) => Ok(Some(Message::Goodbye)),
        (16, 6) => Ok(Some(Message::Begin { restarts: id })),
        _ => Err(nonsense()),
    }
}
