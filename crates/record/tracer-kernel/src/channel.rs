//! One channel: rings for each CPU, and the programs that write into them.
//!
//! The rings are the consumer's [`RingMemory`], made here from eBPF maps; a restarted daemon makes it anew
//! from the maps' descriptors ([`RingMemory::from_maps`]). What is attached lives exactly as long
//! as its [`Channel`].

use crate::bell::Bell;
use crate::code::{Code, GenerateError, Reads, iterated};
use crate::dispatch::Dispatch;
use crate::format::FormatError;
use crate::guard;
use crate::kernel::Kernel;
use crate::late::{self, Late, STRINGS_MAX, Waiting};
use crate::probes::{self, ProbeError};
use crate::program::{self, CLOSED, Guard, Maps, SLACK_BYTES, STAGE_BYTES, STAGES, Spec};
use crate::recipe::{Field, Hook, Recipe};
use crate::records;
use crate::sys::{self, MapKind, MapSpec, Page, ProgramKind, SysError, number};
use crate::syscalls::{Abi, Side};
use sillage_consumer::{RingMemory, SharedError};
use sillage_ring::Geometry;
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use thiserror::Error;

/// Bytes of one ring that the kernel's verifier still follows.
pub const RING_BYTES_MAX: u64 = 512 << 20;

/// Why a channel or an event is not there.
#[derive(Debug, Error)]
pub enum TracerError {
    /// The kernel said no.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// No shared memory.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The recipe does not fit this kernel, or the rings.
    #[error("{event}: {error}")]
    Recipe {
        /// LTTng's name of the event.
        event: String,
        /// The reason.
        error: GenerateError,
    },
    /// The kernel has no such probes.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A record's format is not what the recipe expects.
    #[error("{event}: {error}")]
    Format {
        /// LTTng's name of the event.
        event: String,
        /// The reason.
        error: FormatError,
    },
    /// Rings larger than programs can address.
    #[error("a ring of {bytes} bytes for each CPU, {RING_BYTES_MAX} are possible")]
    RingSize {
        /// What was asked for.
        bytes: u64,
    },
}

/// Records that are not in the trace, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// By [`sillage_ring::layout::LostReason`], over all rings.
    pub rings: [u64; 8],
    /// On CPUs that came online without a ring.
    pub absent: u64,
    /// Programs that the kernel did not run because they were running already on that CPU.
    pub recursion: u64,
}

impl Loss {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.rings.iter().sum::<u64>() + self.absent + self.recursion
    }
}

/// An event that is being recorded.
struct Enabled {
    event_id: u32,
    program: OwnedFd,
    attached: Attached,
}

/// An event that [`Channel::prepare`] loaded.
pub struct Prepared(Enabled);

/// How an event is attached.
enum Attached {
    /// By a descriptor of its own; closing it detaches.
    Link { _link: OwnedFd },
    /// In programs' code, by a descriptor of its own.
    Probe { _event: OwnedFd },
    /// To the record of the kernel's own tracing.
    Record { _record: records::Attached },
    /// Behind the hook of all system calls.
    Syscall(Side, Abi, Option<u32>),
}

impl Attached {
    /// True if both stand behind the same call.
    fn is_call(&self, other: &Attached) -> bool {
        match (self, other) {
            (Attached::Syscall(a, b, c), Attached::Syscall(x, y, z)) => (a, b, c) == (x, y, z),
            _ => false,
        }
    }
}

/// One channel of the kernel domain.
pub struct Channel {
    kernel: Arc<Kernel>,
    geometry: Geometry,
    memory: Arc<RingMemory>,
    rings: Arc<OwnedFd>,
    stages: OwnedFd,
    absent: OwnedFd,
    absent_count: Page,
    notes: OwnedFd,
    enabled: Vec<Enabled>,
    /// The process whose own doings are not recorded.
    left_out: Option<u32>,
    /// Hooks of system calls, by side; there while one of their calls is enabled.
    dispatches: [Option<Dispatch>; 2],
    /// With what strings are read again, if they are.
    late: Option<Late>,
    /// Recursion misses of programs that are gone.
    past_recursion: u64,
    /// The word of each ring that says which programs may write into it.
    closed: Vec<Page>,
    /// What stands there.
    generation: u64,
}

/// Programs that take the place of others count up by two: 1 closes a ring for good.
const GENERATION_STEP: u64 = 2;

fn array(name: &'static str, value_bytes: u64, entries: u32, mappable: bool) -> Result<OwnedFd, SysError> {
    sys::create_map(&MapSpec {
        kind: MapKind::Array,
        value_bytes: value_bytes as u32,
        entries,
        mappable,
        inner: None,
        name,
    })
}

impl Channel {
    /// New rings, one for each CPU that is online, for [`Channel::new`]. `geometry` is of the kind ebpf,
    /// for all CPUs that the machine may have ([`sys::cpus`]).
    ///
    /// # Errors
    /// No rights, no memory, impossible sizes.
    pub fn rings(geometry: Geometry, set_id: u64) -> Result<RingMemory, TracerError> {
        let geometry = geometry.checked().map_err(SharedError::from)?;
        let (_, online) = sys::cpus();
        let online = online.into_iter().filter(|cpu| *cpu < geometry.cpus);
        let maps = online.map(|cpu| Ok((cpu, Channel::ring(&geometry)?)));
        Ok(RingMemory::from_maps(maps.collect::<Result<_, TracerError>>()?, geometry, set_id)?)
    }

    fn ring(geometry: &Geometry) -> Result<OwnedFd, TracerError> {
        let bytes = geometry.ring_bytes();
        if bytes + SLACK_BYTES > RING_BYTES_MAX {
            return Err(TracerError::RingSize { bytes });
        }
        Ok(array("ring", bytes + SLACK_BYTES, 1, true)?)
    }

    /// A channel that writes into these rings, new ones or those that an earlier daemon made.
    ///
    /// # Errors
    /// No rights; maps of another shape.
    pub fn new(kernel: Arc<Kernel>, memory: Arc<RingMemory>, bell: &Bell) -> Result<Channel, TracerError> {
        let geometry = *memory.geometry();
        let template = Channel::ring(&geometry)?;
        let rings = sys::create_map(&MapSpec {
            kind: MapKind::ArrayOfMaps,
            value_bytes: 4,
            entries: geometry.cpus,
            mappable: false,
            inner: Some(template.as_fd()),
            name: "rings",
        })?;
        let rings = Arc::new(rings);
        fill(&rings, &memory)?;
        let absent = array("absent", 8, 1, true)?;
        let failed = |error| SysError::Failed { call: "keeping a descriptor", error };
        let pages = memory.maps().map(|(_, map)| Page::map(map, 0, true));
        let closed = pages.collect::<Result<Vec<Page>, SysError>>()?;
        // A daemon before us may have been killed while it replaced programs.
        let generation = closed.iter().map(|page| page.load_at(CLOSED)).max().unwrap_or(0);
        closed.iter().for_each(|page| page.store_at(CLOSED, generation));
        Ok(Channel {
            closed,
            generation,
            stages: array("stages", STAGE_BYTES.into(), geometry.cpus * STAGES, false)?,
            absent_count: Page::map(absent.as_fd(), 0, false)?,
            notes: bell.notes().try_clone_to_owned().map_err(failed)?,
            memory,
            kernel,
            geometry,
            rings,
            absent,
            enabled: Vec::new(),
            left_out: None,
            dispatches: [None, None],
            late: None,
            past_recursion: 0,
        })
    }

    /// From now on events are enabled such that they leave out what this process does, by its number in the
    /// kernel's first namespace ([`guard::own_number`]).
    pub fn leave_out(&mut self, process: u32) {
        self.left_out = Some(process);
    }

    /// A ring for a CPU that came online. False if it has one, or cannot have one.
    ///
    /// # Errors
    /// No memory.
    pub fn add_memory(memory: &RingMemory, cpu: u32) -> Result<bool, TracerError> {
        let is_new = cpu < memory.geometry().cpus && !memory.maps().any(|(known, _)| known == cpu);
        Ok(is_new && memory.add_map(cpu, Channel::ring(memory.geometry())?)?)
    }

    /// From now on programs record on this CPU, whose ring [`Channel::add_memory`] made.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_ring(&mut self, cpu: u32) -> Result<(), TracerError> {
        let Some((_, map)) = self.memory.maps().find(|(known, _)| *known == cpu) else { return Ok(()) };
        let closed = Page::map(map, 0, true)?;
        closed.store_at(CLOSED, self.generation);
        self.closed.push(closed);
        Ok(sys::set_inner(self.rings.as_fd(), cpu, map)?)
    }

    /// CPUs that are online and have no ring.
    pub fn without_ring(&self) -> Vec<u32> {
        let (_, online) = sys::cpus();
        let has = |cpu: &u32| self.memory.maps().any(|(known, _)| known == *cpu);
        online.into_iter().filter(|cpu| *cpu < self.geometry.cpus && !has(cpu)).collect()
    }

    /// The rings, for the consumer's feed.
    pub fn memory(&self) -> &Arc<RingMemory> {
        &self.memory
    }

    /// Loads and attaches an event under a number that the channel has not used yet. `contexts` are
    /// the channel's; `guards` decide what is recorded.
    ///
    /// # Errors
    /// The recipe does not fit this kernel; the kernel refused the program.
    pub fn enable(
        &mut self,
        recipe: &Recipe,
        event_id: u32,
        contexts: &[Field],
        guards: &[Guard<'_>],
    ) -> Result<(), TracerError> {
        let prepared = self.prepare(recipe, event_id, contexts, guards)?;
        self.adopt(prepared)
    }

    /// Loads an event and attaches it, if it hangs on a descriptor of its own; for [`Channel::adopt`]. It
    /// records from here on, but for system calls. May be called from many threads at once.
    ///
    /// # Errors
    /// As `enable`.
    pub fn prepare(
        &self,
        recipe: &Recipe,
        event_id: u32,
        contexts: &[Field],
        guards: &[Guard<'_>],
    ) -> Result<Prepared, TracerError> {
        let recipe = &*self.resolved(recipe)?;
        let not_us = self.left_out.map(guard::not_of);
        // The hook of all system calls asks for its programs.
        let asks = not_us.as_ref().filter(|_| !matches!(recipe.hook, Hook::Syscall { .. }));
        let asks = asks.map(|guard| guard as Guard<'_>);
        let guards: Vec<Guard<'_>> = asks.into_iter().chain(guards.iter().copied()).collect();
        let program = self.load(recipe, event_id, contexts, &guards)?;
        let attached = match &recipe.hook {
            Hook::Tracepoint(name) => {
                let raw = |typed| sys::attach_raw(program.as_fd(), name).map_err(|_| typed);
                Attached::Link { _link: sys::attach_typed(program.as_fd()).or_else(raw)? }
            }
            Hook::Format { .. } | Hook::Iterator(_) | Hook::Payload | Hook::Later => {
                return Err(unfit(recipe));
            }
            Hook::Code(site) => Attached::Probe {
                _event: sys::attach_probe(program.as_fd(), probes::unit(site.unit)?, site)?,
            },
            Hook::Record { id, .. } => Attached::Record { _record: records::attach(program.as_fd(), *id)? },
            Hook::Syscall { abi, side, number } => Attached::Syscall(*side, *abi, *number),
        };
        Ok(Prepared(Enabled { event_id, program, attached }))
    }

    /// Takes a prepared event; what was not taken is detached when it is dropped.
    ///
    /// # Errors
    /// As `enable`.
    pub fn adopt(&mut self, Prepared(enabled): Prepared) -> Result<(), TracerError> {
        if let Attached::Syscall(side, abi, number) = enabled.attached {
            // Strings that an entry cannot read wait for the exit.
            let exit = (side == Side::Entry && self.late.is_some()).then_some(Side::Exit);
            for side in [side].into_iter().chain(exit) {
                if self.dispatches[side as usize].is_none() {
                    let dispatch = Dispatch::attach(&self.kernel, side, self.left_out, self.late.as_ref())?;
                    self.dispatches[side as usize] = Some(dispatch);
                }
            }
            if let Some(dispatch) = &mut self.dispatches[side as usize] {
                dispatch.set(abi, number, enabled.program.as_fd())?;
            }
        }
        self.enabled.push(enabled);
        Ok(())
    }

    /// From now on strings of system calls that cannot be read at entry are read again at exit, and
    /// recorded as an event of this number ([`late::recipe`]). To be called once, before a call is enabled.
    ///
    /// # Errors
    /// As `enable`.
    pub fn read_late(&mut self, event_id: u32, contexts: &[Field]) -> Result<(), TracerError> {
        let (late, recipe) = (Late::create()?, late::recipe());
        let waiting = late.waiting();
        for index in 0..STRINGS_MAX {
            let recall = |code: &mut Code<'_>, none| waiting.recall(code, index, none);
            let guards: &[Guard<'_>] = &[&recall];
            let program =
                self.load_with(&recipe, event_id, contexts, guards, (None, Some(late.behind(index))))?;
            late.set(index, program.as_fd())?;
        }
        self.late = Some(late);
        Ok(())
    }

    /// Makes a record for each object of the kernel's that the recipe iterates over, now.
    ///
    /// # Errors
    /// As `enable`.
    pub fn iterate(
        &self,
        recipe: &Recipe,
        event_id: u32,
        contexts: &[Field],
        guards: &[Guard<'_>],
    ) -> Result<(), TracerError> {
        let program = self.load(recipe, event_id, contexts, guards)?;
        Ok(sys::iterate(program.as_fd())?)
    }

    /// Makes a record of each payload, now.
    ///
    /// # Errors
    /// As `enable`.
    pub fn record(
        &self,
        recipe: &Recipe,
        event_id: u32,
        contexts: &[Field],
        payloads: &[Vec<u8>],
    ) -> Result<(), TracerError> {
        if payloads.is_empty() {
            return Ok(());
        }
        let program = self.load(recipe, event_id, contexts, &[])?;
        Ok(payloads.iter().try_for_each(|payload| sys::run_with(program.as_fd(), payload))?)
    }

    fn resolved<'a>(&self, recipe: &'a Recipe) -> Result<Cow<'a, Recipe>, TracerError> {
        let wrap = |error| TracerError::Format { event: recipe.name.to_string(), error };
        self.kernel.resolved(recipe).map_err(wrap)
    }

    /// Generates and loads an event's program without attaching it.
    ///
    /// # Errors
    /// As `enable`.
    pub fn load(
        &self,
        recipe: &Recipe,
        event_id: u32,
        contexts: &[Field],
        guards: &[Guard<'_>],
    ) -> Result<OwnedFd, TracerError> {
        let late = match &recipe.hook {
            Hook::Syscall { side: Side::Entry, .. } if !recipe.name.ends_with("_execveat") => {
                self.late.as_ref().map(Late::waiting)
            }
            _ => None,
        };
        self.load_with(recipe, event_id, contexts, guards, (late, None))
    }

    /// As `load`; where its strings are noted that cannot be read, and what it goes on with.
    fn load_with(
        &self,
        recipe: &Recipe,
        event_id: u32,
        contexts: &[Field],
        guards: &[Guard<'_>],
        (late, behind): (Option<Waiting>, Option<(i32, u32)>),
    ) -> Result<OwnedFd, TracerError> {
        let recipe = &*self.resolved(recipe)?;
        let wrap = |error| TracerError::Recipe { event: recipe.name.to_string(), error };
        let kind = match &recipe.hook {
            Hook::Tracepoint(name) => {
                let id = self.kernel.tracepoint(name);
                let id = id.ok_or_else(|| wrap(GenerateError::NoTracepoint(name.to_string())))?;
                ProgramKind::TypedTracepoint(id.0)
            }
            Hook::Syscall { .. } => ProgramKind::RawTracepoint,
            Hook::Iterator(name) => {
                ProgramKind::Iterator(iterated(self.kernel.btf(), name).map_err(wrap)?.0.0)
            }
            Hook::Payload | Hook::Later => ProgramKind::RawTracepoint,
            Hook::Format { .. } => return Err(unfit(recipe)),
            Hook::Record { .. } => ProgramKind::TracepointRecord,
            Hook::Code(_) => ProgramKind::Probe,
        };
        let maps = Maps {
            rings: number(&*self.rings),
            stages: number(&self.stages),
            notes: number(&self.notes),
            absent: number(&self.absent),
        };
        let spec = Spec {
            btf: self.kernel.btf(),
            geometry: self.geometry,
            maps,
            event_id,
            recipe,
            contexts,
            guards,
            // A call's place is taken by one store, so it is either program's.
            generation: (!matches!(recipe.hook, Hook::Syscall { .. } | Hook::Later))
                .then_some(self.generation),
            late,
            behind,
        };
        let load = |kind, reads| {
            let insns = program::generate(&spec, reads).map_err(wrap)?;
            Ok::<_, TracerError>(sys::load_program(kind, &insns, &recipe.name)?)
        };
        // The verifier trusts some arguments of some kernels only through a helper, and refuses a few
        // altogether that are plain numbers to untyped programs; older kernels cannot cast those.
        let mut outcome = load(kind, Reads::Direct);
        let untyped = matches!(recipe.hook, Hook::Tracepoint(_)).then_some(ProgramKind::RawTracepoint);
        for kind in [Some(kind), untyped].into_iter().flatten() {
            let Err(
                TracerError::Sys(SysError::Refused { .. })
                | TracerError::Recipe { error: GenerateError::NoType(_), .. },
            ) = &outcome
            else {
                break;
            };
            // The first answer says most.
            outcome = load(kind, Reads::Helper).or(outcome);
        }
        outcome
    }

    /// Has other programs take the place of all that are attached, `enable` attaching each of them to the
    /// channel that it is handed. Nothing is left out in between: the new ones begin where the old ones
    /// end. A tracepoint that is being hit in that moment may be recorded by both, once on each CPU; a
    /// system call is not.
    pub fn replace(&mut self, enable: impl FnOnce(&mut Channel)) {
        let old = std::mem::take(&mut self.enabled);
        self.generation += GENERATION_STEP;
        enable(self);
        self.closed.iter().for_each(|page| page.store_at(CLOSED, self.generation));
        self.past_recursion += old.iter().map(|e| misses(e.program.as_fd())).sum::<u64>();
        let (calls, links): (Vec<_>, Vec<_>) =
            old.into_iter().partition(|e| matches!(e.attached, Attached::Syscall(..)));
        close(links);
        // Calls whose place nobody took.
        for call in calls {
            if !self.enabled.iter().any(|e| e.attached.is_call(&call.attached)) {
                self.detach_call(&call.attached);
            }
        }
        self.detach_idle();
    }

    /// Detaches an event. Programs that are running may still write a record.
    pub fn disable(&mut self, event_id: u32) {
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.enabled).into_iter().partition(|enabled| enabled.event_id == event_id);
        self.enabled = kept;
        for enabled in gone {
            self.past_recursion += misses(enabled.program.as_fd());
            self.detach_call(&enabled.attached);
        }
        self.detach_idle();
    }

    /// Nothing for what hangs on a descriptor of its own.
    fn detach_call(&mut self, attached: &Attached) {
        if let Attached::Syscall(side, abi, number) = *attached
            && let Some(dispatch) = &mut self.dispatches[side as usize]
        {
            // It can only fail for a place that is not there.
            let _ = dispatch.clear(abi, number);
        }
    }

    /// Takes hooks of system calls away behind which nothing is left.
    fn detach_idle(&mut self) {
        for side in [Side::Entry, Side::Exit] {
            let used = |e: &Enabled| matches!(e.attached, Attached::Syscall(of, ..) if of == side);
            let is_late = side == Side::Exit && self.late.is_some();
            let needed = is_late && self.dispatches[Side::Entry as usize].is_some();
            if !needed && !self.enabled.iter().any(used) {
                self.detach(side);
            }
        }
    }

    /// Takes a hook of system calls away.
    fn detach(&mut self, side: Side) {
        if let Some(dispatch) = self.dispatches[side as usize].take() {
            self.past_recursion += misses(dispatch.program());
        }
    }

    /// Closes the rings to everything that is attached and waits until nothing writes any more: a cut after this
    /// is the last. The kernel takes programs off tracepoints one after the other, some two milliseconds each; they
    /// come off when the result is dropped, which another thread may do. Programs that are enabled meanwhile
    /// record. Probes, of which the probed programs see something (semaphores), are gone at once.
    ///
    /// # Errors
    /// The kernel cannot say when its programs have ended.
    pub fn silence(&mut self) -> Result<Silenced, TracerError> {
        let enabled = std::mem::take(&mut self.enabled);
        self.past_recursion += enabled.iter().map(|e| misses(e.program.as_fd())).sum::<u64>();
        self.generation += GENERATION_STEP;
        self.closed.iter().for_each(|page| page.store_at(CLOSED, self.generation));
        let is_probe = |enabled: &Enabled| matches!(enabled.attached, Attached::Probe { .. });
        let (probes, others) = enabled.into_iter().partition(is_probe);
        close(probes);
        let silenced = Silenced(others);
        [Side::Entry, Side::Exit].into_iter().for_each(|side| self.detach(side));
        sys::wait_for_programs()?;
        Ok(silenced)
    }

    /// Numbers of the events that are attached.
    pub fn enabled(&self) -> impl Iterator<Item = u32> + '_ {
        self.enabled.iter().map(|enabled| enabled.event_id)
    }

    /// The descriptor of an event's program.
    pub fn program(&self, event_id: u32) -> Option<BorrowedFd<'_>> {
        self.enabled.iter().find(|enabled| enabled.event_id == event_id).map(|e| e.program.as_fd())
    }

    /// What was lost so far.
    pub fn loss(&self) -> Loss {
        let mut loss =
            Loss { absent: self.absent_count.load(), recursion: self.past_recursion, ..Loss::default() };
        for cpu in self.memory.active() {
            let ring = self.memory.lost(cpu);
            loss.rings.iter_mut().zip(ring).for_each(|(sum, lost)| *sum += lost);
        }
        loss.recursion += self.enabled.iter().map(|e| misses(e.program.as_fd())).sum::<u64>();
        loss.recursion += self.dispatches.iter().flatten().map(|d| misses(d.program())).sum::<u64>();
        loss
    }
}

/// Stack of the thread that fills an array of maps, bytes.
const FILLER_STACK_BYTES: usize = 64 << 10;

/// Puts the rings into the array that programs find them in. The kernel then waits until no program uses the
/// array as it was; nobody can, so a thread waits for that alone.
fn fill(rings: &Arc<OwnedFd>, memory: &Arc<RingMemory>) -> Result<(), SysError> {
    let all = {
        let (rings, memory) = (Arc::clone(rings), Arc::clone(memory));
        move || {
            let maps: Vec<(u32, BorrowedFd<'_>)> = memory.maps().collect();
            let one_by_one =
                || maps.iter().try_for_each(|(cpu, map)| sys::set_inner(rings.as_fd(), *cpu, *map));
            sys::set_all_inner(rings.as_fd(), &maps).or_else(|_| one_by_one())
        }
    };
    let builder = std::thread::Builder::new().name("rings".into()).stack_size(FILLER_STACK_BYTES);
    let Ok(thread) = builder.spawn(all.clone()) else { return all() };
    while !memory.maps().all(|(cpu, _)| sys::has_inner(rings.as_fd(), cpu)) {
        if thread.is_finished() {
            return thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// A recipe that this is not done with: a format that was not looked up, or what is no hook to stay on.
fn unfit(recipe: &Recipe) -> TracerError {
    let error = GenerateError::Mismatch("an event that is made once, not enabled");
    TracerError::Recipe { event: recipe.name.to_string(), error }
}

/// Recursion misses of a program; a kernel that cannot tell has none to tell of.
fn misses(program: BorrowedFd<'_>) -> u64 {
    sys::recursion_misses(program).unwrap_or(0)
}

/// What is attached and records nothing any more. It is detached when this is dropped.
pub struct Silenced(Vec<Enabled>);

impl Silenced {
    /// True if nothing is attached.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        close(std::mem::take(&mut self.0));
    }
}

/// Threads that close at a time: they wait for the kernel rather than work.
const CLOSERS_MAX: usize = 16;

/// Closes what is attached, some at the same time: they share the moments that the kernel waits for.
fn close(enabled: Vec<Enabled>) {
    let share = enabled.len().div_ceil(CLOSERS_MAX).max(1);
    let mut enabled = enabled.into_iter();
    std::thread::scope(|scope| {
        loop {
            let part: Vec<Enabled> = enabled.by_ref().take(share).collect();
            if part.is_empty() {
                return;
            }
            scope.spawn(move || drop(part));
        }
    });
}
