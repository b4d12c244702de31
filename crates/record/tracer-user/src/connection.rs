//! One daemon: the socket, the frames on it, and the channels that it declared.
//!
//! The socket never blocks. Its descriptor may be closed or used otherwise by the program at any
//! time: before each use its identity is compared, and a stranger's descriptor is left alone.

use crate::channel::{Access, Channel, Mapping, Memory, Service};
use crate::registry::Registry;
use crate::settings::{self, SocketPath, say};
use crate::sys;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use sillage_model::BlockingTimeout;
use sillage_model::limits::{MESSAGE_BYTES_MAX, MESSAGE_FDS_MAX};
use sillage_protocol::codec::{FRAME_HEADER_BYTES, FrameHeader};
use sillage_protocol::program::{
    self, BATCH_TRACEPOINTS_MAX, Channel as DeclaredChannel, EnabledEvent, Hello, IndexedTracepoint,
    ToDaemon, ToProgram,
};
use sillage_ring::layout::Doorbell;

/// Descriptors that may wait for their message.
const FDS_WAITING_MAX: usize = 4 * MESSAGE_FDS_MAX;
/// Bytes taken from the socket at once.
const RECEIVE_BYTES: usize = 16 * 1024;
/// Descriptors of ours are kept away from the low numbers that programs expect to get.
const FD_MIN: i32 = 40;
/// How long a `connect` may wait for a busy daemon, µs.
const CONNECT_TIMEOUT_US: i64 = 500_000;

/// A descriptor of ours, known by its identity.
pub(crate) struct OwnFd {
    fd: i32,
    identity: Option<(u64, u64)>,
    /// Where others can see that the number is ours.
    slot: &'static AtomicI32,
}

impl OwnFd {
    /// Takes over `fd`, moves it out of the way, and shows its number in `slot`.
    pub(crate) fn new(fd: i32, slot: &'static AtomicI32) -> OwnFd {
        // SAFETY: plain descriptor calls on a descriptor that the caller just made.
        let high = unsafe {
            let command = libc::F_DUPFD_CLOEXEC as usize;
            sys::syscall(libc::SYS_fcntl, [fd as usize, command, FD_MIN as usize, 0, 0, 0]) as i32
        };
        let fd = if high >= 0 {
            sys::close(fd);
            high
        } else {
            fd
        };
        slot.store(fd, Ordering::Release);
        OwnFd { fd, identity: sys::identity(fd), slot }
    }

    /// The descriptor, unless the program closed it or uses its number for something else.
    pub(crate) fn get(&self) -> Option<i32> {
        (self.identity.is_some() && sys::identity(self.fd) == self.identity).then_some(self.fd)
    }
}

impl Drop for OwnFd {
    fn drop(&mut self) {
        if let Some(fd) = self.get() {
            sys::close(fd);
        }
        self.slot.store(-1, Ordering::Release);
    }
}

/// Connects to a daemon's socket. The error is the kernel's, negative.
pub(crate) fn connect(path: &SocketPath) -> Result<i32, i32> {
    let kind = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC) as usize;
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    address.sun_path.iter_mut().zip(path.as_bytes()).for_each(|(to, from)| *to = *from as libc::c_char);
    let limit = libc::timeval { tv_sec: 0, tv_usec: CONNECT_TIMEOUT_US };
    // SAFETY: the address and the limit are valid and as long as said; the descriptor is ours.
    unsafe {
        let fd = sys::syscall(libc::SYS_socket, [libc::AF_UNIX as usize, kind, 0, 0, 0, 0]) as i32;
        if fd < 0 {
            return Err(fd);
        }
        let option = [libc::SOL_SOCKET as usize, libc::SO_SNDTIMEO as usize];
        let at = (&raw const limit) as usize;
        sys::syscall(libc::SYS_setsockopt, [fd as usize, option[0], option[1], at, size_of_val(&limit), 0]);
        let (at, bytes) = ((&raw const address) as usize, size_of_val(&address));
        let done = sys::syscall(libc::SYS_connect, [fd as usize, at, bytes, 0, 0, 0]) as i32;
        if done < 0 {
            sys::close(fd);
            return Err(done);
        }
        let nonblocking = libc::O_NONBLOCK as usize;
        sys::syscall(libc::SYS_fcntl, [fd as usize, libc::F_SETFL as usize, nonblocking, 0, 0, 0]);
        Ok(fd)
    }
}

/// A channel as the daemon declared it last.
struct State {
    /// Our own key; the daemon's numbers may repeat after it was restarted.
    key: u64,
    channel_id: u64,
    set_id: u64,
    channel: Arc<Channel>,
    /// Declared by a daemon that is gone, and not yet again by this one.
    stale: bool,
}

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer closed it, or an error.
    Lost,
    /// The program closed or reused the descriptor.
    Stolen,
    /// The daemon will not serve us.
    Refused,
}

/// The connection to one daemon, and what outlives it.
pub(crate) struct Connection {
    link: Option<Link>,
    channels: Vec<State>,
    /// Numbers to send with `TracepointsGone`.
    gone: Vec<u32>,
    slot: &'static AtomicI32,
}

/// What ends with the connection.
struct Link {
    fd: OwnFd,
    inbox: Vec<u8>,
    fds: VecDeque<i32>,
    outbox: Vec<u8>,
    service: Option<Arc<Service>>,
    /// First entry that was not sent.
    next_index: u32,
    batches_sent: u32,
    batches_done: u32,
    /// Syncs to answer after a grace period.
    syncs: Vec<u64>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.fds.drain(..).for_each(sys::close);
        if let Some(service) = &self.service {
            service.alive.store(false, Ordering::Release);
        }
    }
}

impl Connection {
    pub(crate) const fn new(slot: &'static AtomicI32) -> Connection {
        Connection { link: None, channels: Vec::new(), gone: Vec::new(), slot }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// A connected socket: says hello.
    pub(crate) fn begin(&mut self, fd: i32) {
        let mapped_sets = self.channels.iter().map(|c| c.set_id).collect();
        self.channels.iter_mut().for_each(|c| c.stale = true);
        self.gone.clear();
        let hello = ToDaemon::Hello(Hello {
            version: program::VERSION,
            vpid: sys::process_id(),
            // SAFETY: no arguments.
            vppid: unsafe { sys::syscall(libc::SYS_getppid, [0; 6]) as u32 },
            procname: process_name(),
            producer: settings::producer_kind(),
            allow_blocking: settings::allow_blocking(),
            tracer_version: env!("CARGO_PKG_VERSION").into(),
            mapped_sets,
            record: settings::record(),
        });
        self.link = Some(Link {
            fd: OwnFd::new(fd, self.slot),
            inbox: Vec::new(),
            fds: VecDeque::new(),
            outbox: hello.encode(),
            service: None,
            next_index: 0,
            batches_sent: 0,
            batches_done: 0,
            syncs: Vec::new(),
        });
    }

    /// The connection is over; its channels go on recording.
    pub(crate) fn end(&mut self) {
        self.link = None;
    }

    /// In a forked child: nothing of the parent's connection is ours.
    pub(crate) fn abandon(&mut self) {
        if let Some(link) = self.link.take() {
            if let Some(service) = &link.service {
                // Nobody waits for room before the child has registered.
                service.alive.store(false, Ordering::Release);
            }
            core::mem::forget(link);
        }
    }

    /// The socket, if the program left it alone, and whether there is something to write.
    pub(crate) fn poll(&self) -> Option<(Option<i32>, bool)> {
        self.link.as_ref().map(|l| (l.fd.get(), !l.outbox.is_empty()))
    }

    /// Tells the daemon later that these entries are gone.
    pub(crate) fn tell_gone(&mut self, gone: &[u32]) {
        if let Some(link) = &self.link {
            self.gone.extend(gone.iter().copied().filter(|index| *index < link.next_index));
        }
    }

    /// Queues what the registry has and the daemon does not know, and sends what can be sent.
    pub(crate) fn send(&mut self, registry: &Registry) -> Result<(), End> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if !self.gone.is_empty() {
            let gone = core::mem::take(&mut self.gone);
            link.outbox.extend_from_slice(&ToDaemon::TracepointsGone(gone).encode());
        }
        while link.next_index < registry.next_index() {
            let batch: Vec<IndexedTracepoint> = registry
                .entries_from(link.next_index)
                .take(BATCH_TRACEPOINTS_MAX)
                .map(|(index, t)| IndexedTracepoint { index, tracepoint: t.clone() })
                .collect();
            let next = match batch.last() {
                Some(last) if batch.len() == BATCH_TRACEPOINTS_MAX => last.index + 1,
                _ => registry.next_index(),
            };
            link.queue_batch(batch);
            link.next_index = next;
        }
        link.flush()
    }

    /// True if the daemon answered everything that it was told.
    pub(crate) fn is_settled(&self) -> bool {
        self.link.as_ref().is_none_or(|l| l.batches_done == l.batches_sent && l.outbox.is_empty())
    }

    /// Takes what arrived and applies it.
    pub(crate) fn receive(&mut self, registry: &mut Registry) -> Result<(), End> {
        loop {
            let Some(link) = &mut self.link else { return Ok(()) };
            let more = link.fill()?;
            while let Some(message) = self.next_message()? {
                self.apply(message, registry)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn next_message(&mut self) -> Result<Option<(ToProgram, [i32; 2])>, End> {
        let Some(link) = &mut self.link else { return Ok(None) };
        let Some(head) = link.inbox.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let bad = |error| {
            say(format_args!("the daemon sent what is no message: {error}"));
            End::Refused
        };
        let header = FrameHeader::decode(head).map_err(bad)?;
        let length = FRAME_HEADER_BYTES + header.body_bytes;
        if link.inbox.len() < length {
            return Ok(None);
        }
        let message = ToProgram::decode(header.kind, &link.inbox[FRAME_HEADER_BYTES..length]).map_err(bad)?;
        link.inbox.drain(..length);
        let count = message.fds();
        if header.fds != count || link.fds.len() < count {
            say(format_args!("the daemon sent {} descriptors with a message that has {count}", header.fds));
            return Err(End::Refused);
        }
        let mut fds = [-1; 2];
        fds.iter_mut().take(count).for_each(|fd| *fd = link.fds.pop_front().unwrap_or(-1));
        Ok(Some((message, fds)))
    }

    fn apply(&mut self, (message, fds): (ToProgram, [i32; 2]), registry: &mut Registry) -> Result<(), End> {
        match message {
            ToProgram::Welcome => self.welcome(fds),
            ToProgram::Channel(channel) => self.channel(&channel, fds, registry),
            ToProgram::Events { channel_id, active, events } => {
                self.events(channel_id, active, &events, registry);
            }
            ToProgram::ChannelGone { channel_id } => {
                let gone = |c: &State| c.channel_id == channel_id && !c.stale;
                if let Some(at) = self.channels.iter().position(gone) {
                    drop_channel(self.channels.remove(at), registry);
                }
            }
            ToProgram::BatchDone { batch } => self.batch_done(batch, registry),
            ToProgram::Sync { sequence } => {
                if let Some(link) = &mut self.link {
                    link.syncs.push(sequence);
                }
            }
            ToProgram::Refused { reason } => {
                say(format_args!("refused by the daemon: {reason}"));
                return Err(End::Refused);
            }
        }
        Ok(())
    }

    fn welcome(&mut self, [clock, doorbell]: [i32; 2]) {
        let clock_bytes = sys::file_bytes(clock).unwrap_or(0) as usize;
        let doorbell_bytes = sys::file_bytes(doorbell).unwrap_or(0) as usize;
        let large_enough = |bytes, least| bytes >= least;
        let service = Service {
            alive: AtomicBool::new(true),
            clock: large_enough(clock_bytes, size_of::<sillage_ring::ClockPage>())
                .then(|| Mapping::shared(clock, clock_bytes, Access::Read))
                .flatten(),
            doorbell: large_enough(doorbell_bytes, size_of::<Doorbell>().min(4096))
                .then(|| Mapping::shared(doorbell, doorbell_bytes, Access::Write))
                .flatten(),
        };
        [clock, doorbell].into_iter().for_each(sys::close);
        if let Some(link) = &mut self.link {
            link.service = Some(Arc::new(service));
        }
    }

    fn channel(&mut self, declared: &DeclaredChannel, fds: [i32; 2], registry: &mut Registry) {
        let service = self.link.as_ref().and_then(|l| l.service.clone());
        let known = self.channels.iter().position(|c| c.set_id == declared.set_id);
        let made = service.map(|service| {
            let blocking_us = match declared.blocking_timeout {
                _ if !settings::allow_blocking() => 0,
                BlockingTimeout::None => 0,
                BlockingTimeout::Us(us) => us,
                BlockingTimeout::Forever => u64::MAX,
            };
            match known.map(|at| &self.channels[at].channel) {
                // Its lock lives in the channel: there must be one.
                Some(channel) if channel.is_locked() => Ok(channel.clone()),
                Some(channel) if !channel.is_counting_only() => {
                    Channel::new(channel.memory().clone(), service, blocking_us).map(Arc::new)
                }
                _ => Memory::map(fds[0], fds[1])
                    .and_then(|memory| Channel::new(Arc::new(memory), service, blocking_us))
                    .map(Arc::new),
            }
        });
        fds.into_iter().for_each(sys::close);
        let channel = match made {
            Some(Ok(channel)) => channel,
            Some(Err(error)) => {
                self.unusable(declared.channel_id, "its rings cannot be mapped");
                return say(format_args!("channel {} cannot be recorded: {error:?}", declared.channel_id));
            }
            None => return say(format_args!("a channel before the welcome")),
        };
        if channel.is_counting_only() {
            self.unusable(declared.channel_id, "no address space for its rings, all its events are lost");
            say(format_args!("no address space for channel {}: its events are lost", declared.channel_id));
        }
        match known {
            Some(at) => {
                let state = &mut self.channels[at];
                state.channel_id = declared.channel_id;
                state.stale = false;
                registry.garbage.keep(core::mem::replace(&mut state.channel, channel));
            }
            None => self.channels.push(State {
                key: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
                channel_id: declared.channel_id,
                set_id: declared.set_id,
                channel,
                stale: false,
            }),
        }
    }

    /// Tells the daemon that nothing will be recorded to a channel.
    fn unusable(&mut self, channel_id: u64, reason: &str) {
        if let Some(link) = &mut self.link {
            let message = ToDaemon::ChannelUnusable { channel_id, reason: reason.into() };
            link.outbox.extend_from_slice(&message.encode());
        }
    }

    fn events(&mut self, channel_id: u64, active: bool, events: &[EnabledEvent], registry: &mut Registry) {
        let Some(state) = self.channels.iter().find(|c| c.channel_id == channel_id && !c.stale) else {
            return;
        };
        say(format_args!("channel {channel_id}: {} events, active: {active}", events.len()));
        let events = if active { events } else { &[] };
        registry.declare(state.key, &state.channel, events);
    }

    fn batch_done(&mut self, batch: u32, registry: &mut Registry) {
        let Some(link) = &mut self.link else { return };
        link.batches_done = link.batches_done.max(batch.min(link.batches_sent));
        if link.batches_done < link.batches_sent {
            return;
        }
        // The new daemon has declared everything; what it did not name is over.
        let mut at = 0;
        while at < self.channels.len() {
            if self.channels[at].stale {
                drop_channel(self.channels.remove(at), registry);
            } else {
                at += 1;
            }
        }
    }

    /// True if a `Sync` waits for a grace period.
    pub(crate) fn awaits_grace(&self) -> bool {
        self.link.as_ref().is_some_and(|l| !l.syncs.is_empty())
    }

    /// Syncs received until now; they can be answered after a grace period that begins now.
    pub(crate) fn take_syncs(&mut self) -> Vec<u64> {
        self.link.as_mut().map(|l| core::mem::take(&mut l.syncs)).unwrap_or_default()
    }

    /// The grace period was not over in time: try again.
    pub(crate) fn give_back_syncs(&mut self, syncs: Vec<u64>) {
        if let Some(link) = &mut self.link {
            link.syncs.splice(0..0, syncs);
        }
    }

    /// Answers syncs after their grace period.
    pub(crate) fn answer(&mut self, syncs: &[u64]) -> Result<(), End> {
        let Some(link) = &mut self.link else { return Ok(()) };
        for sequence in syncs {
            link.outbox.extend_from_slice(&ToDaemon::Synced { sequence: *sequence }.encode());
        }
        link.flush()
    }
}

fn drop_channel(state: State, registry: &mut Registry) {
    state.channel.unwanted();
    registry.forget_channel(state.key);
    registry.garbage.keep(state.channel);
}

fn process_name() -> String {
    let fd = sys::open(c"/proc/self/comm");
    let mut name = [0; 16];
    let count = if fd >= 0 { sys::read(fd, &mut name) } else { -1 };
    if fd >= 0 {
        sys::close(fd);
    }
    let name = name.get(..usize::try_from(count).unwrap_or(0)).unwrap_or(&[]);
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}

impl Link {
    fn queue_batch(&mut self, mut tracepoints: Vec<IndexedTracepoint>) {
        if tracepoints.is_empty() {
            return;
        }
        let message = ToDaemon::Tracepoints { batch: self.batches_sent + 1, tracepoints };
        let frame = message.encode();
        if frame.len() <= MESSAGE_BYTES_MAX {
            self.batches_sent += 1;
            self.outbox.extend_from_slice(&frame);
            return;
        }
        let ToDaemon::Tracepoints { tracepoints: whole, .. } = message else { return };
        tracepoints = whole;
        if tracepoints.len() == 1 {
            say(format_args!("{} is too large to be announced", tracepoints[0].tracepoint.name));
            return;
        }
        let rest = tracepoints.split_off(tracepoints.len() / 2);
        self.queue_batch(tracepoints);
        self.queue_batch(rest);
    }

    fn flush(&mut self) -> Result<(), End> {
        while !self.outbox.is_empty() {
            let fd = self.fd.get().ok_or(End::Stolen)?;
            let flags = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as usize;
            // SAFETY: the buffer is ours; the descriptor too, as `get` has just found.
            let sent = unsafe {
                let (at, bytes) = (self.outbox.as_ptr() as usize, self.outbox.len());
                sys::syscall(libc::SYS_sendto, [fd as usize, at, bytes, flags, 0, 0])
            };
            match -sent as i32 {
                _ if sent > 0 => {
                    self.outbox.drain(..sent as usize);
                }
                libc::EAGAIN => return Ok(()),
                libc::EINTR => {}
                _ => return Err(End::Lost),
            }
        }
        Ok(())
    }

    /// Takes what the socket has; true if there may be more.
    fn fill(&mut self) -> Result<bool, End> {
        let fd = self.fd.get().ok_or(End::Stolen)?;
        let start = self.inbox.len();
        if start > MESSAGE_BYTES_MAX + RECEIVE_BYTES {
            return Err(End::Refused);
        }
        self.inbox.resize(start + RECEIVE_BYTES, 0);
        let mut control = [0u64; 16];
        let mut part =
            libc::iovec { iov_base: self.inbox[start..].as_mut_ptr().cast(), iov_len: RECEIVE_BYTES };
        // SAFETY: a message header of zeroes is valid; its pointers are set to our own buffers; the
        // control messages are walked as the kernel left them.
        let received = unsafe {
            let mut header: libc::msghdr = core::mem::zeroed();
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control);
            let flags = (libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT) as usize;
            let at = (&raw mut header) as usize;
            let received = sys::syscall(libc::SYS_recvmsg, [fd as usize, at, flags, 0, 0, 0]);
            if received > 0 {
                self.take_fds(&header);
            }
            received
        };
        self.inbox.truncate(start + usize::try_from(received).unwrap_or(0));
        match -received as i32 {
            _ if received > 0 && self.fds.len() > FDS_WAITING_MAX => Err(End::Refused),
            _ if received > 0 => Ok(true),
            libc::EAGAIN | libc::EINTR => Ok(false),
            _ => Err(End::Lost),
        }
    }

    /// # Safety
    /// The kernel has just filled `header`.
    unsafe fn take_fds(&mut self, header: &libc::msghdr) {
        // SAFETY: the macros stay inside the control bytes that the kernel filled.
        unsafe {
            let mut at = libc::CMSG_FIRSTHDR(header);
            while let Some(message) = at.as_ref() {
                if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
                    let bytes = message.cmsg_len - libc::CMSG_LEN(0) as usize;
                    let first = libc::CMSG_DATA(at).cast::<i32>();
                    (0..bytes / size_of::<i32>())
                        .for_each(|i| self.fds.push_back(first.add(i).read_unaligned()));
                }
                at = libc::CMSG_NXTHDR(header, at);
            }
        }
    }
}
