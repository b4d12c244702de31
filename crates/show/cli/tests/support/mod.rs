//! What the end-to-end tests share: a home of their own with the command line in it, and a program
//! that speaks the registration protocol without being a tracer.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod kernel;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use sillage_consumer::fake::{FakePages, FakeProducer};
use sillage_model::{Field, FieldType, IntegerType, LogLevel, Tracepoint};
use sillage_protocol::codec::{FRAME_HEADER_BYTES, FrameHeader};
use sillage_protocol::program::{
    EnabledEvent, Hello, IndexedTracepoint, ProducerKind, ToDaemon, ToProgram, VERSION,
};
use std::collections::HashMap;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A home directory for one test; its daemon ends with it.
pub struct Home {
    pub dir: PathBuf,
}

impl Home {
    pub fn new(name: &str) -> Home {
        let dir = std::env::temp_dir().join(format!("sillage-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Home { dir }
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LTTNG_HOME", &self.dir).env("SILLAGE_RUNDIR", self.run_dir()).current_dir(&self.dir);
        command.env_remove("SILLAGE_LIBDIR").env("TZ", "UTC");
        command
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub fn output(&self, words: &str) -> Output {
        self.command(env!("CARGO_BIN_EXE_sillage")).args(words.split_whitespace()).output().unwrap()
    }

    /// Runs a command line; returns its exit code and what it printed on both.
    pub fn run(&self, words: &str) -> (i32, String) {
        let output = self.output(words);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
    }

    /// Runs a command line that must succeed.
    pub fn ok(&self, words: &str) -> String {
        let (code, text) = self.run(words);
        assert_eq!(code, 0, "{words}: {text}");
        text
    }

    /// What a session's only channel counts as lost, by `list`.
    pub fn discarded(&self, session: &str) -> u64 {
        let text = self.ok(&format!("list {session}"));
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Discarded events: "));
        line.expect("a count").parse().unwrap()
    }

    pub fn pid(&self, file: &str) -> i32 {
        std::fs::read_to_string(self.run_dir().join(file)).unwrap().trim().parse().unwrap()
    }

    /// Kills the worker and waits until another serves.
    pub fn kill_worker(&self) {
        let old = self.pid("worker.pid");
        kill(old, rustix::process::Signal::KILL);
        wait_for("a new worker", || self.pid("worker.pid") != old && self.run("list").0 == 0);
    }

    /// Kills the keeper alone and waits until its worker has another.
    pub fn kill_keeper(&self) {
        let (old, worker) = (self.pid("sillage.pid"), self.pid("worker.pid"));
        kill(old, rustix::process::Signal::KILL);
        wait_for("a new keeper", || self.pid("sillage.pid") != old);
        assert_eq!(self.pid("worker.pid"), worker, "the worker goes on");
    }

    /// Kills both halves of the daemon.
    pub fn kill_daemon(&self) {
        let (keeper, worker) = (self.pid("sillage.pid"), self.pid("worker.pid"));
        // Stopped first, so that neither can replace the other.
        for signal in [rustix::process::Signal::STOP, rustix::process::Signal::KILL] {
            kill(worker, signal);
            kill(keeper, signal);
        }
        wait_for("the end of the daemon", || self.run("list").0 == 1);
    }

    /// Babeltrace's text of what lies under `dir`; it must read it without complaint.
    pub fn babeltrace(&self, dir: &Path) -> String {
        let output = Command::new("babeltrace2").arg("--no-delta").arg(dir).output();
        let output = output.expect("babeltrace2 is installed (Debian package babeltrace2)");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaints}");
        let fine = complaints.lines().all(|line| line.contains("WARNING: Tracer "));
        assert!(fine, "{complaints}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Ok(text) = std::fs::read_to_string(self.run_dir().join("sillage.pid")) {
            let pid = text.trim().parse().unwrap();
            kill(pid, rustix::process::Signal::TERM);
            let gone = || !self.run_dir().join("sillage.pid").exists();
            let deadline = Instant::now() + PATIENCE;
            while !gone() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A small tmpfs, or None where that is not allowed.
pub struct Small<'a>(&'a Home);

impl<'a> Small<'a> {
    /// Mounts it at `small` in the home, with so much room (`256k`).
    pub fn mount(home: &'a Home, size: &str) -> Option<Small<'a>> {
        let dir = home.dir.join("small");
        std::fs::create_dir(&dir).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("none", &dir, "tmpfs", flags, options.as_c_str()) {
            Ok(()) => Some(Small(home)),
            Err(error) => {
                eprintln!("SKIPPED: mounting a small tmpfs needs root ({error})");
                None
            }
        }
    }
}

impl Small<'_> {
    /// Gives it so much room from now on.
    pub fn resize(&self, size: &str) {
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount_remount(self.0.dir.join("small"), flags, options.as_c_str()).unwrap();
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _ = rustix::mount::unmount(self.0.dir.join("small"), flags);
    }
}

/// Our library (`SILLAGE_UST_LIB`, or beside the program under test); None where it was not built.
pub fn ust_library() -> Option<PathBuf> {
    if let Some(library) = std::env::var_os("SILLAGE_UST_LIB") {
        return Some(library.into());
    }
    let target = Path::new(env!("CARGO_BIN_EXE_sillage")).parent()?.parent()?;
    let mut built =
        ["release", "debug"].map(|profile| target.join(profile).join("libsillage_ust.so")).into_iter();
    let found = built.find(|library| library.exists());
    if found.is_none() {
        eprintln!(
            "SKIPPED: the tracer library is not built (cargo build --release -p sillage-tracer-user-abi)"
        );
    }
    found
}

/// A C program with tracepoints `scenario:*`, and our library for it.
pub struct Traced {
    pub program: PathBuf,
    /// For `LD_LIBRARY_PATH` and `SILLAGE_LIBDIR`.
    pub libraries: PathBuf,
}

impl Traced {
    /// Compiles it in the home. None, said aloud, where there is no library.
    pub fn compile(home: &Home) -> Option<Traced> {
        let library = ust_library()?;
        let libraries = home.dir.join("lib");
        std::fs::create_dir_all(&libraries).unwrap();
        for name in ["liblttng-ust.so.1", "liblttng-ust-common.so.1", "liblttng-ust-tracepoint.so.1"] {
            std::os::unix::fs::symlink(&library, libraries.join(name)).unwrap();
        }
        let sources =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../record/tracer-user-abi/tests/programs");
        let program = home.dir.join("scenario");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-I"]).arg(&sources).arg(sources.join("scenario.c")).arg("-o").arg(&program);
        let output = cc.args(["-llttng-ust", "-ldl", "-lpthread"]).output();
        let output = output.expect("gcc and liblttng-ust-dev are installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Traced { program, libraries })
    }

    /// A program on our library, not yet started.
    pub fn command(&self, home: &Home) -> Command {
        let mut command = home.command(&self.program);
        command.env("LD_LIBRARY_PATH", &self.libraries);
        command
    }

    /// `sillage record`, with our library.
    pub fn record(&self, home: &Home, words: &str) -> Command {
        let mut command = home.command(env!("CARGO_BIN_EXE_sillage"));
        command.env("SILLAGE_LIBDIR", &self.libraries).arg("record").args(words.split_whitespace());
        command
    }
}

/// A program that does what it is told, line by line.
pub struct Obedient {
    child: std::process::Child,
    stdin: std::process::ChildStdin,
    stdout: std::io::BufReader<std::process::ChildStdout>,
}

impl Obedient {
    pub fn start(command: &mut Command) -> Obedient {
        let piped = std::process::Stdio::piped;
        let mut child = command.stdin(piped()).stdout(piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Obedient { child, stdin, stdout: std::io::BufReader::new(stdout) }
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        std::io::BufRead::read_line(&mut self.stdout, &mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{line}");
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for its end.
    pub fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Ends it; it must end well.
    pub fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().unwrap().success());
    }
}

pub fn kill(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn integer(name: &str) -> Field {
    let field_type = FieldType::Integer(IntegerType {
        size_bits: 32,
        align_bits: 8,
        signed: true,
        reverse_byte_order: false,
        base: 10,
    });
    Field { name: name.into(), field_type }
}

pub fn tracepoint(name: &str) -> Tracepoint {
    Tracepoint { name: name.into(), loglevel: LogLevel::DEFAULT, emf_uri: None, fields: vec![integer("i")] }
}

#[derive(Default)]
struct Channel {
    set_id: u64,
    active: bool,
    events: Vec<EnabledEvent>,
}

#[derive(Default)]
struct State {
    pages: Option<FakePages>,
    channels: HashMap<u64, Channel>,
    producers: HashMap<u64, Arc<FakeProducer>>,
    batches_done: u32,
    refused: Option<String>,
    closed: bool,
    answers_sync: bool,
}

/// A program that registers and records like a traced one.
pub struct Program {
    stream: UnixStream,
    state: Arc<(Mutex<State>, Condvar)>,
    batch: u32,
}

impl Program {
    /// Connects and says hello.
    pub fn connect(home: &Home, kind: ProducerKind) -> Program {
        Program::connect_as(home, kind, Vec::new(), HashMap::new(), true)
    }

    /// A program that never confirms.
    pub fn connect_deaf(home: &Home) -> Program {
        Program::connect_as(home, ProducerKind::Rseq, Vec::new(), HashMap::new(), false)
    }

    fn connect_as(
        home: &Home,
        kind: ProducerKind,
        mapped_sets: Vec<u64>,
        producers: HashMap<u64, Arc<FakeProducer>>,
        answers_sync: bool,
    ) -> Program {
        let mut stream = socket(home);
        let hello = ToDaemon::Hello(Hello {
            version: VERSION,
            vpid: std::process::id(),
            vppid: 1,
            procname: "fake".into(),
            producer: kind,
            allow_blocking: false,
            tracer_version: "0".into(),
            mapped_sets,
            record: 0,
        });
        stream.write_all(&hello.encode()).unwrap();
        let state = State { producers, answers_sync, ..Default::default() };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let (for_thread, mut reading) = (Arc::clone(&state), stream.try_clone().unwrap());
        std::thread::spawn(move || {
            while let Some((message, fds)) = receive(&mut reading) {
                let answer = for_thread.0.lock().unwrap().take(message, fds);
                if let Some(answer) = answer {
                    let _ = reading.write_all(&answer.encode());
                }
                for_thread.1.notify_all();
            }
            for_thread.0.lock().unwrap().closed = true;
            for_thread.1.notify_all();
        });
        let program = Program { stream, state, batch: 0 };
        program.wait("welcome", |state| state.pages.is_some());
        program
    }

    /// Connects again after the daemon was lost, with the rings that it has.
    pub fn reconnect(self, home: &Home, kind: ProducerKind) -> Program {
        self.wait("the end of the connection", |state| state.closed);
        let mut state = self.state.0.lock().unwrap();
        let producers = std::mem::take(&mut state.producers);
        Program::connect_as(home, kind, producers.keys().copied().collect(), producers, true)
    }

    /// Registers and waits until the daemon has said what to record.
    pub fn register(&mut self, tracepoints: &[(u32, Tracepoint)]) {
        self.batch += 1;
        let batch = self.batch;
        let indexed = |(index, tracepoint): &(u32, Tracepoint)| IndexedTracepoint {
            index: *index,
            tracepoint: tracepoint.clone(),
        };
        let tracepoints = tracepoints.iter().map(indexed).collect();
        self.stream.write_all(&ToDaemon::Tracepoints { batch, tracepoints }.encode()).unwrap();
        self.wait("the end of the batch", |state| state.batches_done >= batch || state.closed);
    }

    /// Records one event with an integer, in every channel that wants it. How many did.
    pub fn emit(&self, index: u32, value: i32) -> usize {
        self.emit_bytes(index, &value.to_le_bytes())
    }

    pub fn emit_bytes(&self, index: u32, payload: &[u8]) -> usize {
        let mut wanted = Vec::new();
        {
            let state = self.state.0.lock().unwrap();
            for channel in state.channels.values().filter(|channel| channel.active) {
                for event in channel.events.iter().filter(|event| event.index == index) {
                    wanted.push((Arc::clone(&state.producers[&channel.set_id]), event.event_id));
                }
            }
        }
        for (producer, event_id) in &wanted {
            // A full ring is counted by the producer itself.
            let _ = producer.emit(*event_id, payload);
        }
        wanted.len()
    }

    /// The producer of its only channel.
    pub fn producer(&self) -> Arc<FakeProducer> {
        let state = self.state.0.lock().unwrap();
        Arc::clone(state.producers.values().next().expect("a channel"))
    }

    pub fn refused(&self) -> String {
        self.wait("a refusal", |state| state.refused.is_some());
        self.state.0.lock().unwrap().refused.clone().unwrap()
    }

    pub fn sets(&self) -> usize {
        self.state.0.lock().unwrap().producers.len()
    }

    fn wait(&self, what: &str, done: impl Fn(&State) -> bool) {
        let state = self.state.0.lock().unwrap();
        let (state, timeout) =
            self.state.1.wait_timeout_while(state, PATIENCE, |state| !done(state)).unwrap();
        assert!(!timeout.timed_out(), "waited in vain for {what}; refused: {:?}", state.refused);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl State {
    fn take(&mut self, message: ToProgram, fds: Vec<OwnedFd>) -> Option<ToDaemon> {
        match message {
            ToProgram::Welcome => self.pages = Some(FakePages::map(&fds[0], &fds[1]).unwrap()),
            ToProgram::Channel(channel) => {
                let pages = self.pages.clone().unwrap();
                let map = || Arc::new(FakeProducer::map(&fds[0], &fds[1], &pages).unwrap());
                self.producers.entry(channel.set_id).or_insert_with(map);
                self.channels.entry(channel.channel_id).or_default().set_id = channel.set_id;
            }
            ToProgram::Events { channel_id, active, events } => {
                let channel = self.channels.get_mut(&channel_id).expect("announced before");
                (channel.active, channel.events) = (active, events);
            }
            ToProgram::ChannelGone { channel_id } => {
                self.channels.remove(&channel_id);
            }
            ToProgram::BatchDone { batch } => self.batches_done = batch,
            ToProgram::Sync { sequence } => {
                return self.answers_sync.then_some(ToDaemon::Synced { sequence });
            }
            ToProgram::Refused { reason } => self.refused = Some(reason),
        }
        None
    }
}

/// A bare connection to the programs' socket.
pub fn socket(home: &Home) -> UnixStream {
    UnixStream::connect(home.run_dir().join("programs.sock")).unwrap()
}

fn receive(stream: &mut UnixStream) -> Option<(ToProgram, Vec<OwnedFd>)> {
    let mut header = [0; FRAME_HEADER_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        &*stream,
        &mut [IoSliceMut::new(&mut header)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
    );
    if received.ok()?.bytes < FRAME_HEADER_BYTES {
        return None;
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let header = FrameHeader::decode(&header).unwrap();
    let mut body = vec![0; header.body_bytes];
    stream.read_exact(&mut body).ok()?;
    assert_eq!(fds.len(), header.fds);
    Some((ToProgram::decode(header.kind, &body).unwrap(), fds))
}
