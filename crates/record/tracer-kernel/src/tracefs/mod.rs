//! The other back end: the kernel's own tracing in a tracefs instance of ours, its pages transcoded into
//! our records. For kernels without BTF or with older eBPF, and where eBPF is forbidden.
//!
//! ```text
//!  instance/events/*/enable ──► kernel ──► trace_pipe_raw ──► page ──► transcode ──► ring ──► consumer
//! ```
//!
//! Events come from their formats, under LTTng's names where a table has the event; a thread for each
//! channel moves the records into rings of the same kind as the programs', so that nobody behind them
//! knows the difference. It costs about twice as much, has few contexts, follows whole processes alone, and has
//! no strings of system calls; whoever asks for more is refused with the reason.

mod instance;
mod page;
mod processes;
mod pushed;
mod ring;
mod sieve;
mod transcode;

pub use sieve::Sieve;

use crate::kernel::Kernel;
use crate::recipe::{Expr, Field, Hook, Recipe, U8, int, s32};
use crate::statedump;
use crate::sys::{self, SysError};
use crate::trackers::Followed;
use instance::Instance;
use page::Page;
use processes::Processes;
use ring::{Writer, Written};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use sillage_bpf::Alu;
use sillage_consumer::{DoorbellMemory, RingMemory, SharedError};
use sillage_model::ProcessAttribute;
use sillage_ring::Geometry;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use thiserror::Error;
use transcode::Plan;

/// Bytes that hold a page of the largest size that the kernel offers by itself.
const PAGE_BYTES_MAX: usize = 64 << 10;
/// How long records may wait for a page to be half full.
const LOOK_NS: i64 = 100_000_000;
/// Stack of a thread, bytes.
const STACK_BYTES: usize = 256 << 10;

/// Why tracefs does not record.
#[derive(Debug, Error)]
pub enum TracefsError {
    /// A file of it.
    #[error("{path}: {error}{}", hint(.error))]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Not mounted, or closed to us.
    #[error("tracefs is not mounted or not readable (mount -t tracefs tracefs /sys/kernel/tracing, as root)")]
    None,
    /// Not something that the kernel's own tracing records.
    #[error("{0}; eBPF programs would do it")]
    Unfit(&'static str),
    /// The kernel said no.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// No shared memory.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The thread is gone.
    #[error("the thread that reads tracefs ended")]
    Ended,
}

/// What mends it.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (tracefs is root's: run the daemon as root)",
        _ => "",
    }
}

/// The contexts that a record has, as it has them: in front of every event's fields. Of the flags, bit 0 says
/// that interrupts were off, bit 2 that somebody else was to run.
static CONTEXTS: [Field; 3] = [
    s32("tid", Expr::Record { offset: 4, bytes: 4, signed: true }),
    int("need_reschedule", U8, Expr::Op(Alu::And, &RESCHEDULE, &Expr::Const(1))),
    int("interruptible", U8, Expr::If(&INTERRUPTS_OFF, &Expr::Const(0), &Expr::Const(1))),
];
const FLAGS: Expr = Expr::Record { offset: 2, bytes: 1, signed: false };
const RESCHEDULE: Expr = Expr::Op(Alu::Rsh, &FLAGS, &Expr::Const(2));
const INTERRUPTS_OFF: Expr = Expr::Op(Alu::And, &FLAGS, &Expr::Const(1));

/// The context of this name, in the form in which records have it.
pub fn context(name: &str) -> Option<Field> {
    CONTEXTS.iter().find(|field| field.name == name).cloned()
}

/// Whether a session can follow those that have an attribute of this kind.
///
/// # Errors
/// What it would need.
pub fn follows(attribute: ProcessAttribute) -> Result<(), TracefsError> {
    match attribute {
        ProcessAttribute::Pid if processes::are_ours() => Ok(()),
        ProcessAttribute::Pid => Err(TracefsError::Unfit(
            "tracefs follows processes by their numbers outside of all containers, where the daemon is not",
        )),
        _ => Err(TracefsError::Unfit("tracefs follows processes (--pid) alone")),
    }
}

/// Names of all of them.
fn context_names() -> String {
    let names: Vec<&str> = CONTEXTS.iter().map(|field| field.name.as_ref()).collect();
    names.join(", ")
}

/// Whether an event of the state dump can be made without programs.
pub(crate) fn dumps(recipe: &Recipe) -> bool {
    matches!(recipe.hook, Hook::Payload | Hook::Iterator(_))
}

/// Whether an instance can be made and written to.
///
/// # Errors
/// The system's.
pub(crate) fn probe(tracefs: &std::path::Path) -> Result<(), TracefsError> {
    instance::remove_abandoned(tracefs);
    Instance::new(tracefs, "probe", 4096).map(drop)
}

/// What the thread is told.
enum Command {
    /// Records of this number are written so.
    Plan(u16, Plan),
    /// A CPU came online.
    Source(Source),
    /// Whose records are transcoded; None: everybody's.
    Follow(Option<Processes>),
    /// Records of our own making, of the time at which they are asked for.
    Write(u32, Vec<Vec<u8>>),
    /// Answer when everything that the kernel has recorded by now is in the rings.
    Sync(Sender<()>),
}

/// An event that is on.
struct Enabled {
    event_id: u32,
    category: String,
    name: String,
    /// The kernel filters it too.
    is_filtered: bool,
}

/// One channel's instance and the thread that reads it.
pub struct Recorder {
    kernel: Arc<Kernel>,
    memory: Arc<RingMemory>,
    instance: Instance,
    enabled: Vec<Enabled>,
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// New rings for [`Recorder::new`], for every CPU that is online.
    ///
    /// # Errors
    /// No memory, impossible sizes.
    pub fn rings(geometry: Geometry, set_id: u64) -> Result<RingMemory, TracefsError> {
        let geometry = geometry.checked().map_err(SharedError::from)?;
        let (_, online) = sys::cpus();
        let ring = |cpu| Ok((cpu, Recorder::ring(&geometry)?));
        let rings = online.into_iter().filter(|cpu| *cpu < geometry.cpus).map(ring);
        let rings = rings.collect::<Result<Vec<_>, SysError>>()?;
        Ok(RingMemory::from_maps(rings, geometry, set_id)?)
    }

    fn ring(geometry: &Geometry) -> Result<OwnedFd, SysError> {
        sys::memory_file("ring", geometry.ring_bytes())
    }

    /// A ring for a CPU that came online. False if it has one, or cannot have one.
    ///
    /// # Errors
    /// No memory.
    pub fn add_memory(memory: &RingMemory, cpu: u32) -> Result<bool, TracefsError> {
        let is_new = cpu < memory.geometry().cpus && !memory.maps().any(|(known, _)| known == cpu);
        Ok(is_new && memory.add_map(cpu, Recorder::ring(memory.geometry())?)?)
    }

    /// Makes the instance and starts the thread that writes into these rings, new ones or those that an
    /// earlier daemon made.
    ///
    /// # Errors
    /// No rights; rings of another shape.
    pub fn new(
        kernel: Arc<Kernel>,
        memory: Arc<RingMemory>,
        doorbell: Arc<DoorbellMemory>,
        include_self: bool,
    ) -> Result<Recorder, TracefsError> {
        let failed = |call| move |error: io::Error| SysError::Failed { call, error };
        let geometry = *memory.geometry();
        let tracefs = kernel.tracefs().ok_or(TracefsError::None)?;
        instance::remove_abandoned(tracefs);
        let bytes = u64::from(geometry.subbuf_count) * geometry.subbuf_bytes();
        let instance = Instance::new(tracefs, &format!("{:x}", memory.set_id()), bytes)?;
        if !include_self {
            instance.leave_out_own()?;
        }
        let source = |(cpu, ring)| Source::new(&instance, cpu, ring, geometry);
        let sources = memory.maps().map(source).collect::<Result<Vec<_>, TracefsError>>()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.map_err(|e| failed("eventfd")(e.into()))?);
        let (commands, told) = channel();
        let (plans, followed) = (HashMap::new(), None);
        let reader = Reader { sources, plans, followed, told, wake: Arc::clone(&wake), doorbell };
        let builder = std::thread::Builder::new().name("tracefs".into()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || reader.run()).map_err(failed("starting a thread"))?;
        Ok(Recorder { kernel, memory, instance, enabled: Vec::new(), commands, wake, thread: Some(thread) })
    }

    fn tell(&self, command: Command) -> Result<(), TracefsError> {
        self.commands.send(command).map_err(|_| TracefsError::Ended)?;
        // It can only fail when the count is full, and then the thread is awake anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        Ok(())
    }

    /// Records an event from now on, as far as the sieve lets it pass, under a number that the channel has
    /// not used yet.
    ///
    /// # Errors
    /// It is none of the kernel's own events; the kernel refused.
    pub fn enable(
        &mut self,
        recipe: &Recipe,
        event_id: u32,
        contexts: &[Field],
        sieve: Sieve,
    ) -> Result<(), TracefsError> {
        let Hook::Record { category, name, id } = &recipe.hook else {
            return Err(TracefsError::Unfit("tracefs has no such event"));
        };
        let pushed = match sieve.is_open() {
            true => None,
            false => self.kernel.from_format(category, name).ok().and_then(|record| sieve.pushed(&record)),
        };
        let plan = Plan::new(event_id, recipe, contexts, sieve)
            .ok_or(TracefsError::Unfit("tracefs records no such field"))?;
        let number = u16::try_from(*id).map_err(|_| TracefsError::Unfit("tracefs has no such event"))?;
        self.tell(Command::Plan(number, plan))?;
        // What the kernel does not understand it lets pass.
        let is_filtered = pushed.is_some_and(|text| self.instance.filter(category, name, &text).is_ok());
        self.instance.switch(category, name, true)?;
        let (category, name) = (category.to_string(), name.to_string());
        self.enabled.push(Enabled { event_id, category, name, is_filtered });
        Ok(())
    }

    /// Records an event no longer.
    ///
    /// # Errors
    /// The kernel's.
    pub fn disable(&mut self, event_id: u32) -> Result<(), TracefsError> {
        let (gone, left) =
            std::mem::take(&mut self.enabled).into_iter().partition(|e| e.event_id == event_id);
        self.enabled = left;
        self.switch_off(gone)
    }

    fn switch_off(&self, events: Vec<Enabled>) -> Result<(), TracefsError> {
        events.iter().try_for_each(|event| self.instance.switch(&event.category, &event.name, false))?;
        let mut filtered = events.iter().filter(|event| event.is_filtered);
        filtered.try_for_each(|event| self.instance.filter(&event.category, &event.name, "0"))
    }

    /// Records nothing any more, and returns when everything that was recorded is in the rings. How many
    /// records are lost because their CPU came online and has no ring yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stop(&mut self) -> Result<u64, TracefsError> {
        let events = std::mem::take(&mut self.enabled);
        self.switch_off(events)?;
        // Whoever was about to write a record has done so when every CPU has passed a quiet moment.
        sys::wait_for_programs()?;
        self.drain()?;
        let unread = (0..self.memory.geometry().cpus).filter(|cpu| !self.has_ring(*cpu));
        unread.map(|cpu| self.instance.forget(cpu)).sum()
    }

    fn has_ring(&self, cpu: u32) -> bool {
        self.memory.maps().any(|(known, _)| known == cpu)
    }

    /// Returns when everything that was recorded is in the rings.
    fn drain(&self) -> Result<(), TracefsError> {
        let (done, answer) = channel();
        self.tell(Command::Sync(done))?;
        answer.recv().map_err(|_| TracefsError::Ended)
    }

    /// Follows these from now on: everybody, or processes by their numbers in the first PID namespace.
    ///
    /// # Errors
    /// Something else is to be followed; the kernel's.
    pub fn follow(&mut self, followed: &Followed) -> Result<(), TracefsError> {
        if let Some(attribute) = followed.keys().find(|attribute| follows(**attribute).is_err()) {
            follows(*attribute)?;
        }
        // What was recorded by now is judged as it was.
        self.drain()?;
        let Some(processes) = followed.get(&ProcessAttribute::Pid) else {
            self.tell(Command::Follow(None))?;
            return self.instance.write("set_event_pid", "");
        };
        // Larger numbers are nobody's.
        let processes = processes.iter().filter_map(|process| u32::try_from(*process).ok()).collect();
        let tracefs = self.kernel.tracefs().ok_or(TracefsError::None)?;
        processes::list(&self.instance, &processes)?;
        self.tell(Command::Follow(Some(Processes::new(tracefs, processes))))
    }

    /// CPUs that are online and have no ring. What they record waits in the instance's buffer.
    pub fn without_ring(&self) -> Vec<u32> {
        let (_, online) = sys::cpus();
        online.into_iter().filter(|cpu| *cpu < self.memory.geometry().cpus && !self.has_ring(*cpu)).collect()
    }

    /// From now on what this CPU records is transcoded, into the ring that [`Recorder::add_memory`] made.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_ring(&self, cpu: u32) -> Result<(), TracefsError> {
        let Some((_, ring)) = self.memory.maps().find(|(known, _)| *known == cpu) else { return Ok(()) };
        let source = Source::new(&self.instance, cpu, ring, *self.memory.geometry())?;
        self.tell(Command::Source(source))
    }

    /// Dumps what `id_of` has a number for and can be made without programs.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn dump(&self, contexts: &[Field], id_of: impl Fn(&str) -> Option<u32>) -> Result<(), TracefsError> {
        // Nobody is the current task of what we write.
        let front = contexts.iter().filter_map(|field| field.ty.fixed_bytes()).sum::<u32>() as usize;
        let mut processes = statedump::processes(|event| id_of(event).is_some());
        for recipe in statedump::events().filter(|recipe| dumps(recipe)) {
            let Some(id) = id_of(&recipe.name) else { continue };
            let told = processes.remove(&*recipe.name);
            let payloads = told.unwrap_or_else(|| statedump::payloads(&recipe.name));
            let behind = |payload: Vec<u8>| [vec![0; front], payload].concat();
            self.tell(Command::Write(id, payloads.into_iter().map(behind).collect()))?;
        }
        Ok(())
    }

    /// The kernel whose events these are.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}

/// A CPU's pages and ring.
struct Source {
    pages: File,
    ring: Writer,
}

impl Source {
    fn new(
        instance: &Instance,
        cpu: u32,
        ring: BorrowedFd<'_>,
        geometry: Geometry,
    ) -> Result<Source, TracefsError> {
        Ok(Source { pages: instance.pages(cpu)?, ring: Writer::new(ring, geometry)? })
    }
}

struct Reader {
    sources: Vec<Source>,
    plans: HashMap<u16, Plan>,
    followed: Option<Processes>,
    told: Receiver<Command>,
    wake: Arc<OwnedFd>,
    doorbell: Arc<DoorbellMemory>,
}

impl Reader {
    fn run(mut self) {
        // Without the right to it, a machine full of runnable tasks may let the kernel's buffers overflow;
        // the loss is counted there.
        let _ = sys::raise_priority();
        let mut buffer = vec![0; PAGE_BYTES_MAX];
        let mut payload = Vec::new();
        loop {
            self.wait();
            let now_ns = sys::monotonic_ns();
            let mut commands = Vec::new();
            let is_over = loop {
                match self.told.try_recv() {
                    // Whatever is recorded under a plan is read behind it, also on a new CPU.
                    Ok(Command::Plan(number, plan)) => drop(self.plans.insert(number, plan)),
                    Ok(Command::Source(source)) => self.sources.push(source),
                    // Whoever changes it has waited for what was recorded before.
                    Ok(Command::Follow(followed)) => self.followed = followed,
                    Ok(command) => commands.push(command),
                    Err(TryRecvError::Empty) => break false,
                    Err(TryRecvError::Disconnected) => break true,
                }
            };
            let Reader { sources, plans, followed, doorbell, .. } = &mut self;
            for source in sources {
                // Of a CPU that is gone everything was read before.
                let _ = drain(source, plans, followed.as_mut(), doorbell, (&mut buffer, &mut payload));
            }
            for command in commands {
                self.obey(command, now_ns);
            }
            if is_over {
                return;
            }
        }
    }

    /// Until a page is half full, somebody tells us something, or records may have waited long enough.
    fn wait(&self) {
        let mut sources: Vec<PollFd<'_>> =
            self.sources.iter().map(|source| PollFd::new(&source.pages, PollFlags::IN)).collect();
        sources.push(PollFd::new(&*self.wake, PollFlags::IN));
        let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK_NS };
        // Without events there is nothing that could wait.
        let _ = poll(&mut sources, (!self.plans.is_empty()).then_some(&timeout));
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }

    fn obey(&self, command: Command, now_ns: u64) {
        match command {
            Command::Plan(..) | Command::Source(_) | Command::Follow(_) => {}
            Command::Write(id, payloads) => {
                let Some(source) = self.sources.first() else { return };
                for payload in payloads {
                    if source.ring.record(now_ns, id, &payload) == Written::Opened {
                        ring_bell(&self.doorbell);
                    }
                }
            }
            // Nobody waits if this fails.
            Command::Sync(done) => drop(done.send(())),
        }
    }
}

/// Moves what the kernel has recorded on a CPU into its ring.
fn drain(
    source: &mut Source,
    plans: &HashMap<u16, Plan>,
    mut followed: Option<&mut Processes>,
    doorbell: &DoorbellMemory,
    (buffer, payload): (&mut [u8], &mut Vec<u8>),
) -> io::Result<()> {
    loop {
        let length = match source.pages.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(page) = Page::new(&buffer[..length]) else { return Ok(()) };
        if page.lost() > 0 {
            source.ring.count_lost(page.lost());
        }
        for record in page {
            let Some(plan) = record.event().and_then(|event| plans.get(&event)) else { continue };
            let task = record.task().unwrap_or(0);
            if followed.as_mut().is_some_and(|followed| !followed.follow(task)) || !plan.passes(record.bytes)
            {
                continue;
            }
            payload.clear();
            plan.write(record.bytes, payload);
            if source.ring.record(record.time_ns, plan.event_id, payload) == Written::Opened {
                ring_bell(doorbell);
            }
        }
    }
}

fn ring_bell(doorbell: &DoorbellMemory) {
    let doorbell = doorbell.doorbell();
    doorbell.bell.fetch_add(1, Ordering::Release); // pairs with the consumer's Acquire
    sys::wake(&doorbell.bell);
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // The thread ends when it is told nothing any more; this wakes it. The kernel keeps the instance as
        // long as the thread has files of it open.
        drop(std::mem::replace(&mut self.commands, channel().0));
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        self.thread.take().map(JoinHandle::join);
    }
}
