//! A small recording session: a channel, its consumer, a trace directory, and Debian's reader.

// Each test program uses its part of this.
#![allow(dead_code)]

use sillage_consumer::feed::Service;
use sillage_consumer::{Command, Consumer, Counters, DoorbellMemory, Feed, Files, Finished, Place, Urgency};
use sillage_ring::{Geometry, HeaderForm, Kind};
use sillage_tracer_kernel::metadata::{Header, Stream, event_class, header};
use sillage_tracer_kernel::program::Guard;
use sillage_tracer_kernel::{Bell, Channel, Field, Kernel, Recipe, late, sys};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

const UUID: [u8; 16] = *b"sillage kernel t";
/// Every set gets a number of its own; one channel for each session here.
const SET_ID: u64 = 1;

/// The kernel, looked at once; None, said loudly, if it cannot be traced here.
pub fn kernel(test: &str) -> Option<Arc<Kernel>> {
    static KERNEL: OnceLock<Option<Arc<Kernel>>> = OnceLock::new();
    let kernel = KERNEL.get_or_init(|| Kernel::running().ok().map(Arc::new)).clone();
    let reason = match &kernel {
        None => Some("the kernel does not describe its types".into()),
        Some(_) => (sys::missing_rights().contains("missing")).then(sys::missing_rights),
    };
    if let Some(reason) = reason {
        eprintln!("SKIPPED: {test}: {reason}");
        return None;
    }
    kernel
}

/// Rings of `count` sub-buffers of 2^`shift` bytes.
pub fn geometry(shift: u32, count: u32, overwrite: bool, form: HeaderForm) -> Geometry {
    let (cpus, _) = sys::cpus();
    let kind = Kind::Ebpf;
    Geometry { kind, cpus, subbuf_shift: shift, subbuf_count: count, overwrite, ordered: false, header: form }
}

/// One session at a time: each sees what the whole machine does, the other tests of a program too.
static TURN: Mutex<()> = Mutex::new(());

pub struct Session {
    _turn: MutexGuard<'static, ()>,
    pub channel: Channel,
    pub counters: Arc<Counters>,
    pub dir: PathBuf,
    geometry: Geometry,
    contexts: Vec<Field>,
    events: Vec<String>,
    consumer: Consumer,
    finished: Arc<Finished>,
    _bell: Bell,
}

impl Session {
    /// Rings and a consumer; nothing is attached yet.
    pub fn new(name: &str, kernel: &Arc<Kernel>, geometry: Geometry, contexts: &[Field]) -> Session {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = std::env::temp_dir().join(format!("sillage-kernel-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        // Whole at the end; the consumer would miss it.
        std::fs::write(dir.join("metadata"), "").unwrap();
        let doorbell = Arc::new(DoorbellMemory::create().unwrap());
        let finished = Arc::new(Finished::new().unwrap());
        let bell = Bell::start(Arc::clone(&doorbell)).unwrap();
        let consumer = Consumer::start(doorbell, Arc::clone(&finished), Urgency::Ahead).unwrap();
        let memory = Arc::new(Channel::rings(geometry, SET_ID).unwrap());
        let channel = Channel::new(Arc::clone(kernel), memory, &bell).unwrap();
        let counters = Arc::new(Counters::default());
        Session {
            _turn: turn,
            channel,
            counters,
            dir,
            geometry,
            contexts: contexts.to_vec(),
            events: Vec::new(),
            consumer,
            finished,
            _bell: bell,
        }
    }

    /// The consumer reads from now on.
    pub fn consume(&self) {
        let place = Place {
            dir: self.dir.clone(),
            channel: "channel0".into(),
            uuid: UUID,
            stream_id: 0,
            tracefile_bytes: 0,
            tracefile_count: 0,
        };
        let (memory, counters) = (Arc::clone(self.channel.memory()), Arc::clone(&self.counters));
        let feed =
            Feed::new(memory, Arc::new(place), counters, Files::default(), Service::default(), 0, false);
        self.consumer.send(Command::Add(Box::new(feed)));
    }

    /// Attaches an event.
    pub fn enable(&mut self, recipe: &Recipe) {
        self.enable_with(recipe, &[]);
    }

    /// Strings that calls cannot read at entry are read at exit; in front of any call.
    pub fn enable_late(&mut self) {
        let id = self.events.len() as u32;
        self.channel.read_late(id, &self.contexts).unwrap_or_else(|error| panic!("{error}"));
        self.events.push(event_class(&late::recipe(), id, 0));
    }

    /// Attaches an event behind guards.
    pub fn enable_with(&mut self, recipe: &Recipe, guards: &[Guard<'_>]) {
        let id = self.events.len() as u32;
        self.channel.enable(recipe, id, &self.contexts, guards).unwrap_or_else(|error| panic!("{error}"));
        self.events.push(event_class(recipe, id, 0));
    }

    /// Describes an event that is not enabled but made once.
    pub fn declare(&mut self, class: String) {
        self.events.push(class);
    }

    /// The programs of all events, to be asked about when they are detached.
    pub fn programs(&self) -> Vec<OwnedFd> {
        let ids = 0..self.events.len() as u32;
        ids.map(|id| self.channel.program(id).unwrap().try_clone_to_owned().unwrap()).collect()
    }

    /// Detaches one event after the other, so that every run of a program has left its record, and waits.
    pub fn detach(&mut self) {
        let ids: Vec<u32> = self.channel.enabled().collect();
        ids.into_iter().for_each(|id| self.channel.disable(id));
        drop(self.channel.silence().unwrap());
    }

    /// Detaches everything, writes out what there is, and the metadata.
    pub fn finish(&mut self) {
        self.detach();
        self.consumer.send(Command::Remove { sets: vec![SET_ID], ticket: 7 });
        let patience = rustix::time::Timespec { tv_sec: 30, tv_nsec: 0 };
        let mut wait = [rustix::event::PollFd::new(&*self.finished, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut wait, Some(&patience)).unwrap();
        assert_eq!(self.finished.take(), [7], "the consumer wrote everything out");
        let h = Header {
            uuid: UUID,
            hostname: "test",
            kernel_release: "0",
            kernel_version: "0",
            session: "test",
            created: "20260101T000000+0000",
            boot_id: "00000000-0000-0000-0000-000000000000",
            clock_offset: 0,
            version: "0",
        };
        let stream = Stream { header: self.geometry.header, contexts: &self.contexts };
        let text = header(&h, &[stream]) + &self.events.concat();
        std::fs::write(self.dir.join("metadata"), text).unwrap();
    }

    /// Debian's babeltrace2 on the trace: one line for each event, with raw clock values. Fails if it
    /// complains about anything but losses.
    pub fn read(&self) -> Vec<Line> {
        let output = std::process::Command::new("babeltrace2")
            .args(["--clock-cycles", "--names=payload,context", "--fields=trace:hostname"])
            .arg(&self.dir)
            .output()
            .expect("babeltrace2");
        let complaints = String::from_utf8_lossy(&output.stderr);
        let other: Vec<&str> = complaints.lines().filter(|line| !line.contains("discarded")).collect();
        assert!(output.status.success() && other.iter().all(|line| line.trim().is_empty()), "{complaints}");
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(Line::parse).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// One event as babeltrace2 prints it.
#[derive(Debug)]
pub struct Line {
    pub ns: u64,
    pub name: String,
    pub cpu: u32,
    pub text: String,
}

impl Line {
    fn parse(line: &str) -> Line {
        let parse = || {
            let (clock, rest) = line.strip_prefix('[')?.split_once(']')?;
            let name = rest.split_once(": {")?.0.split_whitespace().last()?;
            let (_, behind) = line.split_once("cpu_id = ")?;
            let cpu = behind.split(|c: char| !c.is_ascii_digit()).next()?;
            let ns = clock.trim_start_matches('0');
            Some((if ns.is_empty() { 0 } else { ns.parse().ok()? }, name.to_string(), cpu.parse().ok()?))
        };
        let (ns, name, cpu) = parse().unwrap_or_else(|| panic!("not an event: {line}"));
        Line { ns, name, cpu, text: line.into() }
    }
}

/// Threads that wake each other, timers, and a child or two: something for each tracepoint.
pub fn commotion(rounds: usize) {
    use std::io::{Read, Write};
    let (mut near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while far.read(&mut byte).unwrap() == 1 {
            far.write_all(&byte).unwrap();
        }
    });
    for round in 0..rounds {
        let mut byte = [1];
        near.write_all(&byte).unwrap();
        near.read_exact(&mut byte).unwrap();
        if round % 500 == 0 {
            assert!(std::process::Command::new("/bin/true").status().unwrap().success());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    drop(near);
    echo.join().unwrap();
}

/// Context switches of all CPUs since boot.
pub fn context_switches() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    text.lines().find_map(|line| line.strip_prefix("ctxt ")).unwrap().parse().unwrap()
}

/// Softirqs of all CPUs since boot.
pub fn softirqs() -> u64 {
    let text = std::fs::read_to_string("/proc/softirqs").unwrap();
    text.lines().skip(1).flat_map(str::split_whitespace).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Times of each CPU's events never go back.
pub fn assert_ordered(lines: &[Line]) {
    let mut last = std::collections::BTreeMap::new();
    for line in lines {
        let before = last.insert(line.cpu, line.ns).unwrap_or(0);
        assert!(before <= line.ns, "{before} before {line:?}");
    }
}

/// Size of all files of a trace.
pub fn bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().filter_map(Result::ok);
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
