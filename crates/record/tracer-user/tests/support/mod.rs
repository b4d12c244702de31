//! A daemon for tests: it serves the registration protocol, makes the ring sets, and reads them back
//! as text. And what compiles and runs C programs on our library.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod decode;
pub mod programs;
pub mod ring;

use ring::{Page, RingSet};
use sillage_model::{BlockingTimeout, Tracepoint};
use sillage_protocol::codec::{FRAME_HEADER_BYTES, FrameHeader};
use sillage_protocol::program::{Channel, EnabledEvent, Hello, ProducerKind, ToDaemon, ToProgram};
use sillage_ring::{ClockPage, Geometry, HeaderForm, Kind, Slot};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the daemon records, and how.
#[derive(Clone, Copy)]
pub struct Options {
    pub overwrite: bool,
    pub ordered: bool,
    pub subbuf_bytes: u64,
    pub subbuf_count: u32,
    pub blocking: BlockingTimeout,
    pub compact: bool,
    /// Publishes a usable clock page.
    pub clock: bool,
    /// Names with one of these beginnings are recorded.
    pub names: &'static [&'static str],
    /// Channels that record the same.
    pub channels: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            overwrite: false,
            ordered: false,
            subbuf_bytes: 1 << 20,
            subbuf_count: 4,
            blocking: BlockingTimeout::None,
            compact: false,
            clock: true,
            names: &[""],
            channels: 1,
        }
    }
}

/// A program that has registered.
pub struct Program {
    pub hello: Hello,
    pub tracepoints: BTreeMap<u32, Tracepoint>,
    /// All that it ever registered: it takes them back before it ends.
    pub seen: BTreeMap<String, Tracepoint>,
    stream: UnixStream,
    declared: bool,
    /// Sets of its own, when its producer is locked.
    sets: Vec<Arc<RingSet>>,
    pub synced: u64,
    pub connected: bool,
}

#[derive(Default)]
struct State {
    programs: Vec<Program>,
    /// Event ids by name.
    ids: BTreeMap<String, (u32, Tracepoint)>,
    active: bool,
}

/// What outlives a daemon: the rings and the event ids (in a real one, the keeper's).
pub struct Keeper {
    pub options: Options,
    pub dir: PathBuf,
    sets: Vec<Arc<RingSet>>,
    state: Mutex<State>,
    changed: Condvar,
    next_set: AtomicU64,
    locked_sets: Mutex<Vec<Arc<RingSet>>>,
}

/// A running daemon.
pub struct Daemon {
    pub keeper: Arc<Keeper>,
    clock: Arc<Page>,
    doorbell: Arc<Page>,
    stop: Arc<AtomicBool>,
    listener: UnixListener,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

static DIRS: AtomicU32 = AtomicU32::new(0);

impl Keeper {
    pub fn new(options: Options) -> Arc<Keeper> {
        let number = DIRS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sillage-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("temporary directory");
        let next_set = AtomicU64::new(1);
        let sets = (0..options.channels)
            .map(|_| {
                Arc::new(RingSet::new(
                    geometry(&options, Kind::Rseq),
                    next_set.fetch_add(1, Ordering::Relaxed),
                ))
            })
            .collect();
        let state = State { active: true, ..State::default() };
        Arc::new(Keeper {
            options,
            dir,
            sets,
            state: Mutex::new(state),
            changed: Condvar::new(),
            next_set,
            locked_sets: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn geometry(options: &Options, kind: Kind) -> Geometry {
    // SAFETY: no pointers.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) } as u32;
    Geometry {
        kind,
        cpus: if kind == Kind::Locked { 1 } else { cpus },
        subbuf_shift: options.subbuf_bytes.ilog2(),
        subbuf_count: options.subbuf_count,
        overwrite: options.overwrite,
        ordered: options.ordered,
        header: if options.compact { HeaderForm::Compact } else { HeaderForm::Large },
    }
}

impl Daemon {
    pub fn new(options: Options) -> Daemon {
        Daemon::start(Keeper::new(options))
    }

    /// Starts a daemon on what an earlier one kept.
    pub fn start(keeper: Arc<Keeper>) -> Daemon {
        let path = keeper.dir.join(sillage_protocol::paths::PROGRAMS_SOCKET);
        let _ = std::fs::remove_file(&path);
        let daemon = Daemon {
            keeper,
            clock: Arc::new(Page::new(c"clock")),
            doorbell: Arc::new(Page::new(c"doorbell")),
            stop: Arc::new(AtomicBool::new(false)),
            listener: UnixListener::bind(path).expect("socket"),
            threads: Mutex::default(),
        };
        if daemon.keeper.options.clock {
            daemon.publish_clock();
        }
        daemon.accept();
        daemon
    }

    fn publish_clock(&self) {
        let (page, stop) = (self.clock.clone(), self.stop.clone());
        let mut before = ring::clock_pair();
        std::thread::sleep(Duration::from_millis(10)); // a rate needs two points in time
        let mut publish = move || {
            let now = ring::clock_pair();
            if let Some(slot) = Slot::from_pairs(before, now) {
                // SAFETY: the page is zeroed memory, mapped as long as the Arc lives.
                unsafe { (*page.start().cast::<ClockPage>()).publish(slot) };
            }
            before = now;
        };
        publish();
        self.threads.lock().unwrap().push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                publish();
            }
        }));
    }

    fn accept(&self) {
        let listener = self.listener.try_clone().expect("clone");
        let (keeper, stop) = (self.keeper.clone(), self.stop.clone());
        let pages = (self.clock.clone(), self.doorbell.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { return };
                let (keeper, pages) = (keeper.clone(), pages.clone());
                std::thread::spawn(move || {
                    // A connection that breaks is what many tests are about.
                    let _ = serve(&keeper, &pages.0, &pages.1, stream);
                });
            }
        });
        self.threads.lock().unwrap().push(thread);
    }

    /// Waits until the programs are as `test` wants them.
    pub fn wait_for(&self, what: &str, test: impl Fn(&[Program]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.keeper.state();
        while !test(&state.programs) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never happened: {what}");
            state = self.keeper.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Looks at the programs.
    pub fn programs<T>(&self, look: impl FnOnce(&[Program]) -> T) -> T {
        look(&self.keeper.state().programs)
    }

    /// Starts or stops recording, in every program.
    pub fn set_active(&self, active: bool) {
        let mut state = self.keeper.state();
        state.active = active;
        for i in 0..state.programs.len() {
            if state.programs[i].connected {
                let _ = declare(&self.keeper, &mut state, i);
            }
        }
    }

    /// All programs apply what they were told and reach quiescence.
    pub fn sync(&self) {
        let sequence = 1 + self.programs(|p| p.iter().map(|p| p.synced).max().unwrap_or(0));
        let state = self.keeper.state();
        for program in state.programs.iter().filter(|p| p.connected) {
            let _ = (&program.stream).write_all(&ToProgram::Sync { sequence }.encode());
        }
        drop(state);
        self.wait_for("synced", |p| p.iter().all(|p| !p.connected || p.synced >= sequence));
    }

    /// The channels are gone, for every program.
    pub fn drop_channels(&self) {
        let state = self.keeper.state();
        for program in state.programs.iter().filter(|p| p.connected) {
            for channel_id in 0..self.keeper.options.channels as u64 {
                let message = ToProgram::ChannelGone { channel_id: channel_id + 1 };
                let _ = (&program.stream).write_all(&message.encode());
            }
        }
    }

    /// All records so far, in the order of their times, as text.
    pub fn events(&self) -> Vec<ring::Event> {
        self.channel_events(0)
    }

    /// Those of one of the channels, with those of locked rings.
    pub fn channel_events(&self, channel: usize) -> Vec<ring::Event> {
        let state = self.keeper.state();
        let by_id: BTreeMap<u32, &Tracepoint> = state.ids.values().map(|(id, t)| (*id, t)).collect();
        let mut events = self.keeper.sets[channel].events(&by_id);
        for set in self.keeper.locked_sets.lock().unwrap().iter() {
            events.extend(set.events(&by_id));
        }
        events.sort_by_key(|e| e.ts);
        events
    }

    /// How often each text was recorded.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        self.events().into_iter().for_each(|e| *counts.entry(e.text).or_default() += 1);
        counts
    }

    /// How often each event was recorded, whatever its fields.
    pub fn names(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        self.events().into_iter().for_each(|e| *counts.entry(e.name).or_default() += 1);
        counts
    }

    /// Records lost, by reason.
    pub fn lost(&self) -> [u64; 8] {
        let mut all = [0; 8];
        let locked = self.keeper.locked_sets.lock().unwrap();
        for set in self.keeper.sets.iter().chain(locked.iter()) {
            all.iter_mut().zip(set.lost()).for_each(|(a, b)| *a += b);
        }
        all
    }

    /// The shared set of a channel.
    pub fn set(&self, channel: usize) -> &Arc<RingSet> {
        &self.keeper.sets[channel]
    }

    /// Consumes the rings all the time, throwing the records away, until the result is dropped.
    pub fn drain(&self) -> Drain {
        let stop = Arc::new(AtomicBool::new(false));
        let (set, stopped) = (self.keeper.sets[0].clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut bytes = 0;
            while !stopped.load(Ordering::Relaxed) {
                let before = bytes;
                bytes += set.discard();
                if bytes == before {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            bytes
        });
        Drain { stop, thread: Some(thread) }
    }

    /// As `drain`, with open sub-buffers and locked rings too.
    pub fn drain_all(&self) -> Drain {
        let stop = Arc::new(AtomicBool::new(false));
        let (keeper, stopped) = (self.keeper.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut bytes = 0;
            while !stopped.load(Ordering::Relaxed) {
                let locked: Vec<_> = keeper.locked_sets.lock().unwrap().clone();
                bytes += keeper.sets.iter().chain(&locked).map(|set| set.discard()).sum::<u64>();
                std::thread::sleep(Duration::from_micros(100));
            }
            bytes
        });
        Drain { stop, thread: Some(thread) }
    }

    /// The daemon ends as if killed: sockets close, rings stay with the keeper.
    pub fn kill(self) -> Arc<Keeper> {
        let keeper = self.keeper.clone();
        drop(self);
        keeper
    }
}

/// A consumer at work.
pub struct Drain {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Drain {
    /// Ends it; bytes that it consumed.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |t| t.join().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let path = self.keeper.dir.join(sillage_protocol::paths::PROGRAMS_SOCKET);
        let _ = UnixStream::connect(&path); // ends `accept`
        let _ = std::fs::remove_file(path);
        for thread in self.threads.get_mut().unwrap().drain(..) {
            let _ = thread.join();
        }
        for program in &mut self.keeper.state().programs {
            program.connected = false;
            let _ = program.stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn serve(keeper: &Keeper, clock: &Page, doorbell: &Page, mut stream: UnixStream) -> std::io::Result<()> {
    let mut number = None;
    let result = loop {
        let message = match receive(&mut stream) {
            Ok(message) => message,
            Err(error) => break Err(error),
        };
        let mut state = keeper.state();
        match message {
            ToDaemon::Hello(hello) => {
                send_with_fds(&stream, &ToProgram::Welcome, &[clock.fd(), doorbell.fd()])?;
                state.programs.push(Program {
                    hello,
                    tracepoints: BTreeMap::new(),
                    seen: BTreeMap::new(),
                    stream: stream.try_clone()?,
                    declared: false,
                    sets: Vec::new(),
                    synced: 0,
                    connected: true,
                });
                number = Some(state.programs.len() - 1);
            }
            ToDaemon::Tracepoints { batch, tracepoints } => {
                let n = number.expect("hello first");
                for t in tracepoints {
                    let program = &mut state.programs[n];
                    program.seen.insert(t.tracepoint.name.clone(), t.tracepoint.clone());
                    program.tracepoints.insert(t.index, t.tracepoint);
                }
                declare(keeper, &mut state, n)?;
                stream.write_all(&ToProgram::BatchDone { batch }.encode())?;
            }
            ToDaemon::TracepointsGone(gone) => {
                let n = number.expect("hello first");
                gone.iter().for_each(|index| {
                    state.programs[n].tracepoints.remove(index);
                });
            }
            ToDaemon::Synced { sequence } => state.programs[number.expect("hello first")].synced = sequence,
            // What is lost is counted in the rings; only the real daemon has somebody to tell.
            ToDaemon::ChannelUnusable { .. } => {}
        }
        keeper.changed.notify_all();
    };
    if let Some(n) = number {
        keeper.state().programs[n].connected = false;
        keeper.changed.notify_all();
    }
    result
}

/// Tells a program all that it must record.
fn declare(keeper: &Keeper, state: &mut State, n: usize) -> std::io::Result<()> {
    let wanted: Vec<(u32, Tracepoint)> = state.programs[n]
        .tracepoints
        .iter()
        .filter(|(_, t)| keeper.options.names.iter().any(|prefix| t.name.starts_with(prefix)))
        .map(|(index, t)| (*index, t.clone()))
        .collect();
    let mut events = Vec::new();
    for (index, t) in wanted {
        let next = state.ids.len() as u32;
        let (event_id, _) = state.ids.entry(t.name.clone()).or_insert((next, t));
        events.push(EnabledEvent { index, event_id: *event_id });
    }
    let active = state.active;
    let program = &mut state.programs[n];
    if !program.declared && events.is_empty() {
        return Ok(());
    }
    for channel in 0..keeper.options.channels {
        let channel_id = channel as u64 + 1;
        if !program.declared {
            let set = match program.hello.producer {
                ProducerKind::Rseq => keeper.sets[channel].clone(),
                ProducerKind::Locked => {
                    let id = keeper.next_set.fetch_add(1, Ordering::Relaxed);
                    let set = Arc::new(RingSet::new(geometry(&keeper.options, Kind::Locked), id));
                    program.sets.push(set.clone());
                    keeper.locked_sets.lock().unwrap().push(set.clone());
                    set
                }
            };
            let blocking_timeout = keeper.options.blocking;
            let message = ToProgram::Channel(Channel { channel_id, set_id: set.id(), blocking_timeout });
            send_with_fds(&program.stream, &message, &[set.fd(), set.consumer_fd()])?;
        }
        let message = ToProgram::Events { channel_id, active, events: events.clone() };
        program.stream.write_all(&message.encode())?;
    }
    program.declared = true;
    Ok(())
}

fn receive(stream: &mut UnixStream) -> std::io::Result<ToDaemon> {
    let mut head = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut head)?;
    let header = FrameHeader::decode(&head).expect("frame header");
    let mut body = vec![0; header.body_bytes];
    stream.read_exact(&mut body)?;
    Ok(ToDaemon::decode(header.kind, &body).expect("message"))
}

fn send_with_fds(mut stream: &UnixStream, message: &ToProgram, fds: &[RawFd; 2]) -> std::io::Result<()> {
    let frame = message.encode();
    let mut control = [0u64; 8];
    // SAFETY: one byte and two descriptors, described by a header whose buffers outlive the call.
    let sent = unsafe {
        let mut part = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: 1 };
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(8) as usize;
        let rights = libc::CMSG_FIRSTHDR(&header);
        (*rights).cmsg_level = libc::SOL_SOCKET;
        (*rights).cmsg_type = libc::SCM_RIGHTS;
        (*rights).cmsg_len = libc::CMSG_LEN(8) as usize;
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(rights), 8);
        libc::sendmsg(stream.as_raw_fd(), &header, libc::MSG_NOSIGNAL)
    };
    if sent != 1 {
        return Err(std::io::Error::last_os_error());
    }
    stream.write_all(&frame[1..])
}
