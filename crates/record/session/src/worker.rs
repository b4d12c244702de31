//! The worker's loop: one thread over all sockets, and everything that it owns.
//!
//! A turn of the loop takes what arrived, lets the other modules change the model, hands the new
//! state to the keeper if it changed, and only then sends what they queued.

use crate::DaemonError;
use crate::kernel::Tracer;
use crate::limits::{
    CLIENTS_MAX, MESSAGE_PATIENCE, PROGRAMS_PER_USER_MAX, REATTACH_PATIENCE, RETRY_PERIOD,
    raise_descriptor_limit,
};
use crate::link::{self, Key, Message, Outgoing};
use crate::model::{Origin, Session};
use crate::net::{Attachment, Filled, Inbox, Outbox};
use crate::programs::Program;
use crate::recorders::Recorders;
use crate::recording::{Job, Wait};
use crate::rundir::{RunDir, Who};
use crate::state::{self, Numbers};
use crate::succession::Succession;
use crate::trace::Machine;
use crate::unfinished;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use sillage_consumer::signals::{Signal, Signals};
use sillage_consumer::{
    ClockMemory, ClockPublisher, Consumer, DoorbellMemory, Finished, TROUBLE_TICKET, Urgency,
    shared::RingMemory,
};
use sillage_model::Tracepoint;
use sillage_model::limits::{CPUS_MAX, PROGRAMS_MAX};
use sillage_protocol::paths::{CONTROL_SOCKET, PROGRAMS_SOCKET};
use sillage_ring::{Geometry, Kind};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LINK: u64 = 0;
const CLIENTS: u64 = 1;
const PROGRAMS: u64 = 2;
const SIGNALS: u64 = 3;
const FINISHED: u64 = 4;
/// The kernel tracer, which is one of those that confirm what they were told.
pub(crate) const KERNEL: u64 = 5;
/// Connections get tokens from here on.
const FIRST_TOKEN: u64 = 16;
/// Events taken from epoll at a time.
const EVENTS: usize = 64;

/// Who is on the other side, by the socket's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    pub(crate) peer: Peer,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) since: Instant,
    /// It ends when the outbox is empty, or cannot be sent.
    pub(crate) closing: bool,
    /// epoll tells when it can be written.
    watched: bool,
}

/// A command line client.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    /// A request of it is under way.
    pub(crate) busy: bool,
}

/// Who reads what a user's programs, or the kernel, records.
pub(crate) struct Reader {
    pub(crate) doorbell: Arc<DoorbellMemory>,
    pub(crate) consumer: Consumer,
}

/// Everything that a worker owns.
pub(crate) struct Daemon {
    epoll: OwnedFd,
    pub(crate) succession: Succession,
    clients_listener: UnixListener,
    programs_listener: UnixListener,
    pub(crate) rundir: RunDir,
    /// Given up for a moment to tell a peer that descriptors ran out.
    reserve: Option<File>,
    pub(crate) machine: Machine,
    pub(crate) cpus: u32,
    pub(crate) clock: Arc<ClockMemory>,
    pub(crate) publisher: ClockPublisher,
    pub(crate) finished: Arc<Finished>,
    pub(crate) readers: BTreeMap<Origin, Reader>,
    /// None until it was asked for.
    pub(crate) kernel: Option<Tracer>,
    pub(crate) numbers: Numbers,
    pub(crate) restarts: u32,
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) programs: BTreeMap<u64, Program>,
    pub(crate) clients: BTreeMap<u64, Client>,
    pub(crate) recorders: Recorders,
    /// Each tracepoint once, however many programs have it.
    pub(crate) tracepoints: HashSet<Arc<Tracepoint>>,
    pub(crate) tracepoints_pruned_at: usize,
    pub(crate) waits: Vec<Wait>,
    pub(crate) jobs: HashMap<u64, Job>,
    next_token: u64,
    /// The state must be saved before anything is sent.
    pub(crate) changed: bool,
    /// Rings that the keeper may forget as soon as it has a state without them, never before.
    pub(crate) unneeded: Vec<Key>,
    /// When to try again what failed.
    pub(crate) retry_at: Option<Instant>,
    /// Until when rings of single processes wait for their process.
    pub(crate) reattach_until: Option<Instant>,
    /// Connections with something to send or to end.
    pub(crate) touched: HashSet<u64>,
    ending: bool,
}

/// What the keeper gave.
#[derive(Default)]
struct Inheritance {
    items: HashMap<Key, Vec<OwnedFd>>,
    state: Option<OwnedFd>,
    restarts: u32,
}

impl Inheritance {
    fn receive(link: &OwnedFd) -> Result<Inheritance, DaemonError> {
        let mut found = Inheritance::default();
        loop {
            match link::receive(link)? {
                Some(Message::Keep(key, fds)) => {
                    found.items.insert(key, fds);
                }
                Some(Message::State(state)) => found.state = Some(state),
                Some(Message::Begin { restarts }) => {
                    found.restarts = restarts as u32;
                    return Ok(found);
                }
                Some(_) => {}
                None => return Err(DaemonError::NoKeeper),
            }
        }
    }

    fn one(&mut self, key: Key) -> Option<OwnedFd> {
        self.items.remove(&key)?.pop()
    }

    /// The memory of a ring set, if all of it was kept and fits.
    fn rings(&mut self, set_id: u64, geometry: Geometry) -> Option<RingMemory> {
        if geometry.kind == Kind::Ebpf {
            let maps = (0..geometry.cpus).filter_map(|cpu| Some((cpu, self.one(Key::Ring(set_id, cpu))?)));
            let maps: Vec<_> = maps.collect();
            return (!maps.is_empty()).then(|| RingMemory::from_maps(maps, geometry, set_id).ok())?;
        }
        let mut files = self.items.remove(&Key::Set(set_id))?.into_iter();
        RingMemory::adopt(files.next()?, files.next()?, geometry, set_id).ok()
    }
}

/// Runs a worker whose link to the keeper is standard input. With the arguments `keeper` this program
/// becomes another keeper.
pub(crate) fn run(rundir: &Path, keeper: &[&str]) -> Result<(), DaemonError> {
    rustix::thread::set_name(c"sillage-worker").map_err(io::Error::from)?;
    let link = io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).map_err(io::Error::from)?;
    let signals = Signals::catch(&[Signal::Terminate, Signal::Interrupt, Signal::Hangup])?;
    // Modes of trace files are LTTng's, whatever the starter's mask.
    rustix::process::umask(rustix::fs::Mode::empty());
    raise_descriptor_limit();
    let inheritance = Inheritance::receive(&link)?;
    let mut daemon = Daemon::new(link, rundir, keeper, inheritance)?;
    daemon.watch(FINISHED, daemon.finished.as_fd())?;
    daemon.watch(SIGNALS, signals.as_fd())?;
    daemon.resume();
    daemon.run(signals)
}

/// CPUs that this machine may ever have.
fn possible_cpus() -> u32 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<u32>().ok());
    (last.unwrap_or(0) + 1).min(CPUS_MAX as u32)
}

impl Daemon {
    fn new(
        link: OwnedFd,
        rundir: &Path,
        keeper: &[&str],
        mut from: Inheritance,
    ) -> Result<Daemon, DaemonError> {
        let rundir = RunDir::open(rundir).map_err(DaemonError::rundir(rundir))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let mut listener = |key, name, who| match from.one(key) {
            Some(fd) => Ok(UnixListener::from(fd)),
            None => {
                let listener = rundir.listen(name, who)?;
                link::send(&link, Outgoing::Keep(key, &[listener.as_fd()]))?;
                Ok::<_, io::Error>(listener)
            }
        };
        let clients_listener = listener(Key::ControlListener, CONTROL_SOCKET, Who::Clients)?;
        let programs_listener = listener(Key::ProgramsListener, PROGRAMS_SOCKET, Who::Programs)?;
        let clock = match from.one(Key::Clock) {
            Some(file) => Arc::new(ClockMemory::adopt(file)?),
            None => {
                let clock = Arc::new(ClockMemory::create()?);
                link::send(&link, Outgoing::Keep(Key::Clock, &[clock.for_keeping()]))?;
                clock
            }
        };
        let cpus = possible_cpus();
        let (numbers, sessions) = match from.state.take() {
            Some(state) => {
                state::load(state, cpus, |set_id, geometry| from.rings(set_id, geometry).map(Arc::new))?
            }
            None => {
                unfinished::repair_all(&rundir);
                (first_numbers(), BTreeMap::new())
            }
        };
        let mut daemon = Daemon {
            epoll,
            succession: Succession::new(link, keeper, from.one(Key::Lock)),
            clients_listener,
            programs_listener,
            rundir,
            reserve: File::open("/dev/null").ok(),
            machine: Machine::this(),
            cpus,
            publisher: ClockPublisher::start(Arc::clone(&clock))?,
            clock,
            finished: Arc::new(Finished::new()?),
            readers: BTreeMap::new(),
            kernel: None,
            numbers,
            restarts: from.restarts,
            sessions,
            programs: BTreeMap::new(),
            clients: BTreeMap::new(),
            recorders: Recorders::new(),
            tracepoints: HashSet::new(),
            tracepoints_pruned_at: 0,
            waits: Vec::new(),
            jobs: HashMap::new(),
            next_token: FIRST_TOKEN,
            changed: true,
            unneeded: Vec::new(),
            retry_at: None,
            reattach_until: (from.restarts > 0).then(|| Instant::now() + REATTACH_PATIENCE),
            touched: HashSet::new(),
            ending: false,
        };
        for (key, mut fds) in from.items {
            match (key, fds.pop()) {
                (Key::Doorbell(origin), Some(file)) => {
                    daemon.add_reader(origin, DoorbellMemory::adopt(file)?)?
                }
                // Made or left behind in the moment in which the worker before was killed.
                (Key::Set(_) | Key::Ring(..), _) => daemon.unneeded.push(key),
                _ => {}
            }
        }
        if let Some(link) = &daemon.succession.link {
            daemon.watch_keeper(link.as_fd())?;
        }
        daemon.watch(CLIENTS, daemon.clients_listener.as_fd())?;
        daemon.watch(PROGRAMS, daemon.programs_listener.as_fd())?;
        Ok(daemon)
    }

    /// For something new to watch.
    pub(crate) fn new_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    pub(crate) fn watch(&self, token: u64, fd: BorrowedFd<'_>) -> io::Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?;
        Ok(())
    }

    pub(crate) fn watch_keeper(&self, link: BorrowedFd<'_>) -> io::Result<()> {
        self.watch(LINK, link)
    }

    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        // It is closed next, and with it the registration.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// The command line's socket and the programs'.
    pub(crate) fn listeners(&self) -> [BorrowedFd<'_>; 2] {
        [self.clients_listener.as_fd(), self.programs_listener.as_fd()]
    }

    /// Doorbell and consumer of a user's programs or of the kernel, made when they are first needed.
    pub(crate) fn reader(&mut self, origin: Origin) -> Result<&Reader, DaemonError> {
        if !self.readers.contains_key(&origin) {
            let doorbell = DoorbellMemory::create()?;
            self.keep(Key::Doorbell(origin), &[doorbell.file()]);
            self.add_reader(origin, doorbell)?;
        }
        self.readers.get(&origin).ok_or(DaemonError::NoKeeper)
    }

    fn add_reader(&mut self, origin: Origin, doorbell: DoorbellMemory) -> Result<(), DaemonError> {
        let doorbell = Arc::new(doorbell);
        let urgency = match origin {
            Origin::Kernel => Urgency::Ahead,
            Origin::User(_) => Urgency::Ordinary,
        };
        let consumer = Consumer::start(Arc::clone(&doorbell), Arc::clone(&self.finished), urgency)?;
        self.readers.insert(origin, Reader { doorbell, consumer });
        Ok(())
    }

    /// A number that was never used before.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.changed = true;
        self.numbers.next_id += 1;
        self.numbers.next_id
    }

    /// Has the keeper keep descriptors.
    pub(crate) fn keep(&mut self, key: Key, fds: &[BorrowedFd<'_>]) {
        self.tell_keeper(Outgoing::Keep(key, fds));
    }

    fn run(mut self, mut signals: Signals) -> Result<(), DaemonError> {
        self.turn_end();
        self.tell_keeper(Outgoing::Ready);
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS];
        loop {
            let timeout = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let ready = {
                let timeout = timeout.map(|t| rustix::event::Timespec {
                    tv_sec: t.as_secs() as i64,
                    tv_nsec: t.subsec_nanos().into(),
                });
                match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
                    Ok((ready, _)) => ready,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(io::Error::from(error).into()),
                }
            };
            for event in ready.iter() {
                match event.data.u64() {
                    LINK => self.keeper_gone(),
                    CLIENTS => self.accept(Who::Clients),
                    PROGRAMS => self.accept(Who::Programs),
                    SIGNALS => {
                        while signals.take().is_some() {
                            self.end();
                        }
                    }
                    FINISHED => {
                        for ticket in self.finished.take() {
                            // What went wrong in a consumer is for the next worker too.
                            self.changed |= ticket == TROUBLE_TICKET;
                            self.job_finished(ticket);
                        }
                    }
                    KERNEL => self.kernel_reports(),
                    token if self.recorder_gone(token) => {}
                    token => self.connection_ready(token),
                }
            }
            self.deadlines(Instant::now());
            self.turn_end();
            if self.ending && self.sessions.is_empty() && self.jobs.is_empty() {
                self.tell_keeper(Outgoing::Goodbye);
                return Ok(());
            }
        }
    }

    /// Ends the daemon when all sessions are written out.
    fn end(&mut self) {
        self.ending = true;
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.begin_destroy(id, None);
        }
    }

    fn accept(&mut self, who: Who) {
        loop {
            let listener = match who {
                Who::Clients => &self.clients_listener,
                Who::Programs => &self.programs_listener,
            };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) =>
                {
                    continue;
                }
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                    // Take it with the last descriptor and close it: it would be reported for ever.
                    self.reserve = None;
                    drop(listener.accept());
                    self.reserve = File::open("/dev/null").ok();
                    self.refused("no file descriptors left".into());
                    continue;
                }
                Err(_) => return,
            };
            if let Err(error) = self.welcome(who, stream) {
                self.refused(error.to_string());
            }
        }
    }

    fn welcome(&mut self, who: Who, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let credentials = rustix::net::sockopt::socket_peercred(&stream)?;
        let peer = Peer {
            pid: credentials.pid.as_raw_nonzero().get() as u32,
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
        };
        let too_many = match who {
            Who::Clients => self.clients.len() >= CLIENTS_MAX,
            Who::Programs => {
                let of_user = || self.programs.values().filter(|p| p.connection.peer.uid == peer.uid).count();
                self.programs.len() >= PROGRAMS_MAX
                    || (peer.uid != 0 && self.programs.len() >= PROGRAMS_PER_USER_MAX)
                        && of_user() >= PROGRAMS_PER_USER_MAX
            }
        };
        if too_many {
            return Err(io::Error::other("too many connections"));
        }
        let token = self.new_token();
        self.watch(token, stream.as_fd())?;
        let connection = Connection {
            stream,
            peer,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            since: Instant::now(),
            closing: false,
            watched: false,
        };
        match who {
            Who::Clients => {
                self.clients.insert(token, Client { connection, busy: false });
            }
            Who::Programs => {
                self.programs.insert(token, Program::new(connection));
            }
        }
        Ok(())
    }

    /// Counts a program that was refused or thrown out.
    pub(crate) fn refused(&mut self, why: String) {
        self.numbers.refused_programs += 1;
        self.numbers.last_refusal = why;
        self.numbers.last_refusal.truncate(sillage_model::limits::NAME_BYTES_MAX);
        self.changed = true;
    }

    pub(crate) fn connection(&mut self, token: u64) -> Option<&mut Connection> {
        connection_of(&mut self.programs, &mut self.clients, token)
    }

    /// Queues a frame for a connection.
    pub(crate) fn send(&mut self, token: u64, frame: Vec<u8>, attachment: Attachment) {
        if let Some(connection) = self.connection(token) {
            if !connection.outbox.push(frame, attachment) {
                connection.closing = true;
                connection.outbox = Outbox::default();
            }
            self.touched.insert(token);
        }
    }

    fn connection_ready(&mut self, token: u64) {
        self.touched.insert(token);
        let Some(connection) = self.connection(token) else { return };
        if connection.closing {
            return;
        }
        let filled = connection.inbox.fill(&mut connection.stream).unwrap_or(Filled::Closed);
        let now = Instant::now();
        while let Some(connection) = self.connection(token).filter(|connection| !connection.closing) {
            match connection.inbox.next(now) {
                Ok(Some((kind, body))) if self.programs.contains_key(&token) => {
                    self.program_message(token, kind, &body);
                }
                Ok(Some((kind, body))) => self.request(token, kind, &body),
                Ok(None) => break,
                Err(error) => {
                    if self.programs.contains_key(&token) {
                        self.throw_out(token, error.to_string());
                    } else {
                        connection_closes(self.connection(token));
                    }
                }
            }
        }
        if filled == Filled::Closed {
            self.close(token);
        }
    }

    /// Forgets a connection.
    fn close(&mut self, token: u64) {
        self.touched.remove(&token);
        self.clients.remove(&token);
        if self.programs.contains_key(&token) {
            self.program_gone(token);
        }
    }

    /// Saves the state if it changed, then sends.
    fn turn_end(&mut self) {
        if self.changed {
            self.changed = false;
            match state::save(&self.numbers, &self.sessions) {
                Ok(file) => {
                    self.tell_keeper(Outgoing::State(file.as_fd()));
                    // Behind the state that holds their totals: whenever this process is killed, the
                    // keeper has either a set or what is left of it.
                    for key in std::mem::take(&mut self.unneeded) {
                        self.tell_keeper(Outgoing::Drop(key));
                    }
                }
                // The older state stays with the keeper: worse than the newest, better than none.
                Err(_) => self.retry_soon(),
            }
        }
        if let Some(tracer) = &mut self.kernel {
            tracer.flush();
        }
        for token in std::mem::take(&mut self.touched) {
            let Some(connection) = connection_of(&mut self.programs, &mut self.clients, token) else {
                continue;
            };
            let failed = connection.outbox.flush(&connection.stream).is_err();
            let done = connection.outbox.is_empty();
            if failed || (connection.closing && done) {
                self.close(token);
                continue;
            }
            if connection.watched == done {
                connection.watched = !done;
                let flags = if done { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
                if epoll::modify(&self.epoll, &connection.stream, EventData::new_u64(token), flags).is_err() {
                    // It would never be told the rest.
                    self.close(token);
                }
            }
        }
    }

    pub(crate) fn retry_soon(&mut self) {
        self.retry_at.get_or_insert_with(|| Instant::now() + RETRY_PERIOD);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let waits = self.waits.iter().map(|wait| wait.deadline);
        let programs = self.programs.values().filter_map(|p| {
            let owes = if p.hello.is_none() { Some(p.connection.since) } else { p.connection.inbox.since() };
            owes.map(|since| since + MESSAGE_PATIENCE)
        });
        let clients = self.clients.values().filter_map(|c| c.connection.inbox.since());
        let clients = clients.map(|since| since + MESSAGE_PATIENCE);
        waits
            .chain(programs)
            .chain(clients)
            .chain(self.retry_at)
            .chain(self.reattach_until)
            .chain(self.succession.due_at)
            .min()
    }

    fn deadlines(&mut self, now: Instant) {
        self.succeed(now);
        self.waits_due(now);
        let late = |since: Option<Instant>| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= MESSAGE_PATIENCE)
        };
        let programs = self.programs.iter().filter(|(_, p)| {
            late(p.connection.inbox.since()) || (p.hello.is_none() && late(Some(p.connection.since)))
        });
        for token in programs.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.throw_out(token, "took too long to finish a message".into());
            self.close(token);
        }
        let clients = self.clients.iter().filter(|(_, c)| late(c.connection.inbox.since()));
        for token in clients.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.close(token);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.changed = true;
            self.flush_traces();
            self.note_unfinished();
            self.declare_all();
        }
        if self.reattach_until.is_some() {
            self.drop_orphans(self.reattach_until.is_some_and(|until| until <= now));
            if self.reattach_until.is_some_and(|until| until <= now) {
                self.reattach_until = None;
            }
        }
        self.destroy_deserted();
    }
}

fn connection_of<'a>(
    programs: &'a mut BTreeMap<u64, Program>,
    clients: &'a mut BTreeMap<u64, Client>,
    token: u64,
) -> Option<&'a mut Connection> {
    match programs.get_mut(&token) {
        Some(program) => Some(&mut program.connection),
        None => clients.get_mut(&token).map(|client| &mut client.connection),
    }
}

fn connection_closes(connection: Option<&mut Connection>) {
    if let Some(connection) = connection {
        connection.closing = true;
    }
}

/// Numbers start at the time of day, so that a later daemon never uses the same ones.
fn first_numbers() -> Numbers {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let next_id = now.unwrap_or(Duration::ZERO).as_nanos() as u64;
    Numbers { next_id, ..Default::default() }
}

#[cfg(test)]
mod tests;
