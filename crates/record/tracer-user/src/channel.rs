//! A mapped channel, and what happens to an event once it is staged.
//!
//! [`record`] is the end of the hot path. What it leaves to the cold path: ringing the doorbell,
//! waiting for room in blocking mode, and counting losses. A channel whose rings do not fit the
//! address space is mapped just far enough to count what it loses.

use crate::thread::{Level, Thread};
use crate::{fork, rcu, settings, sys};
use alloc::sync::Arc;
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};
use sillage_ring::layout::{Doorbell, LostReason, PAGE_BYTES, ProducerLine, SetHeader};
use sillage_ring::{ClockPage, Emit, Host, Kind, Producer};

/// Longest sleep of a blocked producer before it looks whether anyone still serves it, ns.
const WAIT_SLICE_NS: u64 = 100_000_000;

/// A mapping that ends with its value.
pub struct Mapping {
    at: *mut u8,
    bytes: usize,
}

// SAFETY: addresses alone; what lies there is shared memory used through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

/// What the mapping is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads alone.
    Read,
    /// Loads and stores.
    Write,
}

impl Mapping {
    /// Maps `bytes` of a file, shared, left out of core dumps, with no page touched.
    pub fn shared(fd: i32, bytes: usize, access: Access) -> Option<Mapping> {
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        if bytes == 0 {
            return None;
        }
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { sys::map_untouched(bytes, protection, libc::MAP_SHARED, fd)? };
        let mapping = Mapping { at, bytes };
        mapping.advise(libc::MADV_DONTDUMP);
        Some(mapping)
    }

    fn advise(&self, advice: i32) {
        // SAFETY: our own mapping.
        unsafe { sys::syscall(libc::SYS_madvise, [self.at as usize, self.bytes, advice as usize, 0, 0, 0]) };
    }

    /// First byte.
    pub fn start(&self) -> *mut u8 {
        self.at
    }

    /// Length.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Never: a mapping has at least a page.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        sys::unmap(self.at, self.bytes);
    }
}

/// What a connection shares with its channels.
pub struct Service {
    /// Cleared when the daemon is gone.
    pub alive: AtomicBool,
    /// The clock page.
    pub clock: Option<Mapping>,
    /// The doorbell page.
    pub doorbell: Option<Mapping>,
}

impl Service {
    fn clock_page(&self) -> *const ClockPage {
        match &self.clock {
            Some(mapping) => mapping.start().cast(),
            None => crate::clock::blank_page(),
        }
    }
}

/// A channel as the hot path sees it.
#[repr(C)]
pub struct Channel {
    /// None: the rings do not fit; losses alone are counted.
    producer: Option<Producer>,
    /// How long a producer may wait for room, µs; 0 not at all, `u64::MAX` for ever.
    blocking_us: u64,
    /// Cleared when its events are no longer wanted: who waits leaves.
    wanted: AtomicBool,
    doorbell: AtomicPtr<Doorbell>,
    service: Arc<Service>,
    memory: Arc<Memory>,
}

/// The mappings under a channel; the next daemon's channel may take them over.
pub struct Memory {
    set: Mapping,
    consumer: Option<Mapping>,
}

/// Why a channel cannot be recorded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// Not even the first ring's control words could be mapped.
    Memory,
    /// The file is no ring set of ours.
    Set(sillage_ring::MapError),
}

impl Memory {
    /// Maps both files; descriptors stay the caller's.
    pub fn map(set_fd: i32, consumer_fd: i32) -> Result<Memory, ChannelError> {
        let bytes = |fd| sys::file_bytes(fd).ok_or(ChannelError::Memory).map(|b| b as usize);
        let (set_bytes, consumer_bytes) = (bytes(set_fd)?, bytes(consumer_fd)?);
        let set = Mapping::shared(set_fd, set_bytes, Access::Write);
        let consumer = Mapping::shared(consumer_fd, consumer_bytes, Access::Read);
        if let (Some(set), Some(consumer)) = (set, consumer) {
            return Ok(Memory { set, consumer: Some(consumer) });
        }
        let counters = (2 * PAGE_BYTES as usize).min(set_bytes);
        let set = Mapping::shared(set_fd, counters, Access::Write).ok_or(ChannelError::Memory)?;
        Ok(Memory { set, consumer: None })
    }
}

impl Channel {
    /// The channel over `memory`.
    pub fn new(
        memory: Arc<Memory>,
        service: Arc<Service>,
        blocking_us: u64,
    ) -> Result<Channel, ChannelError> {
        let host = Host {
            monotonic_ns: crate::clock::monotonic_ns,
            cpu: crate::clock::cpu,
            tsc_allowed: crate::clock::tsc_allowed(),
            rseq_offset: settings::rseq_offset().unwrap_or(0),
        };
        let producer = match &memory.consumer {
            // SAFETY: the mappings live as long as the channel (it holds `memory` and `service`); glibc
            // registered rseq areas, or the set is not of kind rseq (checked below).
            Some(consumer) => Some(unsafe {
                Producer::from_mapping(
                    memory.set.start(),
                    memory.set.len() as u64,
                    consumer.start(),
                    consumer.len() as u64,
                    service.clock_page(),
                    host,
                )
                .map_err(ChannelError::Set)?
            }),
            None => None,
        };
        let kind = producer.as_ref().map(|p| p.geometry().kind);
        match kind {
            Some(Kind::Locked) => memory.set.advise(libc::MADV_DONTFORK),
            Some(Kind::Ebpf) => return Err(ChannelError::Set(sillage_ring::MapError::Kind(3))),
            Some(Kind::Rseq) if settings::rseq_offset().is_none() => {
                return Err(ChannelError::Set(sillage_ring::MapError::Kind(1)));
            }
            _ => {}
        }
        let doorbell = service.doorbell.as_ref().map_or(core::ptr::null_mut(), |d| d.start().cast());
        Ok(Channel {
            producer,
            blocking_us,
            wanted: AtomicBool::new(true),
            doorbell: AtomicPtr::new(doorbell),
            service,
            memory,
        })
    }

    /// Its mappings.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// True for a ring that this process alone writes.
    pub fn is_locked(&self) -> bool {
        self.producer.as_ref().is_some_and(|p| p.geometry().kind == Kind::Locked)
    }

    /// True if only losses are counted.
    pub fn is_counting_only(&self) -> bool {
        self.producer.is_none()
    }

    /// Whoever waits for room leaves.
    pub fn unwanted(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    /// Counts one lost record.
    #[cold]
    #[inline(never)]
    pub fn count_lost(&self, reason: LostReason) {
        match &self.producer {
            Some(producer) if producer.geometry().kind == Kind::Locked => producer.count_lost(0, reason),
            Some(producer) => producer.count_lost(crate::clock::cpu(), reason),
            None => self.count_without_rings(),
        }
    }

    #[cold]
    #[inline(never)]
    fn count_without_rings(&self) {
        if self.memory.set.len() < 2 * PAGE_BYTES as usize {
            return;
        }
        let start = self.memory.set.start();
        // SAFETY: two pages are mapped: the header and the beginning of the first ring.
        unsafe {
            let line = &*start.add(PAGE_BYTES as usize).cast::<ProducerLine>();
            line.lost[LostReason::NoMemory as usize].fetch_add(1, Ordering::Relaxed);
            // Pairs with the Acquire in the consumer's `is_active`.
            (&*start.cast::<SetHeader>()).active[0].store(1, Ordering::Release);
        }
    }

    /// Rings the daemon's bell if it sleeps.
    fn ring_doorbell(&self) {
        let doorbell = self.doorbell.load(Ordering::Relaxed);
        if doorbell.is_null() {
            return;
        }
        // SAFETY: the page is mapped as long as the service lives.
        let doorbell = unsafe { &*doorbell };
        // The head was stored: it must be seen before `sleeping` is read, or a wake is lost.
        fence(Ordering::SeqCst);
        if doorbell.sleeping.load(Ordering::Relaxed) != 0 {
            doorbell.bell.fetch_add(1, Ordering::Release);
            sys::futex_wake(doorbell.bell.as_ptr());
        }
    }
}

/// One event of one channel: what a probe's data leads to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Recorder {
    channel: *const Channel,
    event_id: u32,
    /// The channel's producer has [`Producer::emit_short`] for this event.
    short: bool,
}

impl Recorder {
    /// The recorder of event `event_id`; whoever publishes it keeps `channel` until the last reader left.
    pub fn new(channel: &Arc<Channel>, event_id: u32) -> Recorder {
        let short = channel.producer.as_ref().is_some_and(|p| p.has_short(event_id));
        Recorder { channel: Arc::as_ptr(channel), event_id, short }
    }

    /// Its channel.
    ///
    /// # Safety
    /// Inside the read section in which the recorder was found.
    pub unsafe fn channel(&self) -> &Channel {
        // SAFETY: the registry frees channels a grace period after their recorders.
        unsafe { &*self.channel }
    }
}

/// Publishes the first `len` payload bytes of `level` if that is done straight away. False: nothing
/// happened, and [`record`] is to be called.
///
/// # Safety
/// As [`record`].
#[inline(always)]
pub unsafe fn record_short(recorder: &Recorder, level: *mut Level, len: usize) -> bool {
    if !recorder.short {
        return false;
    }
    // SAFETY: `short` says that there is a producer that takes this event; channels outlive the read
    // section; a level has the bytes around its payload that the ring asks for, belongs to this thread,
    // and a vfork child gets none.
    unsafe {
        let producer = (*recorder.channel).producer.as_ref().unwrap_unchecked();
        producer.emit_short::<{ Level::PAYLOAD_AT }>(recorder.event_id, level.cast(), len)
    }
}

/// Publishes the first `len` payload bytes of `level`.
///
/// # Safety
/// Inside the read section of the thread that took `level`, in which the recorder was found; the
/// bytes were written.
pub unsafe fn record(recorder: &Recorder, level: *mut Level, len: usize) {
    // SAFETY: the caller's promise; channels outlive the read section.
    unsafe {
        let thread = &*Level::thread(level);
        let token = NonZeroUsize::from(core::ptr::NonNull::from(thread).addr());
        let Some(producer) = &(*recorder.channel).producer else {
            return (*recorder.channel).count_without_rings();
        };
        // A level has the bytes around its payload that the ring asks for, belongs to this thread, and a
        // vfork child gets none.
        let outcome = producer.emit(token, recorder.event_id, Level::payload(level), len);
        if outcome != Emit::Published {
            settle(recorder, producer, thread, level, len, outcome);
        }
    }
}

/// Everything but plain publication.
///
/// # Safety
/// As [`record`].
#[cold]
#[inline(never)]
unsafe fn settle(
    recorder: &Recorder,
    producer: &Producer,
    thread: &Thread,
    level: *mut Level,
    len: usize,
    outcome: Emit,
) {
    // SAFETY: channels outlive the read section.
    let channel = unsafe { &*recorder.channel };
    let token = NonZeroUsize::from(core::ptr::NonNull::from(thread).addr());
    let start_ns = crate::clock::monotonic_ns();
    let mut outcome = outcome;
    loop {
        match outcome {
            Emit::Published | Emit::Closed | Emit::Lost(_) => return,
            Emit::Opened => return channel.ring_doorbell(),
            Emit::Full { cpu } => {
                // SAFETY: the caller's promise: this thread took the level.
                let nested = unsafe { Level::is_nested(level) } || rcu::depth(thread) > 1;
                if nested || !wait_for_room(channel, producer, cpu, start_ns) {
                    return producer.count_lost(cpu, LostReason::Full);
                }
                // SAFETY: as in `record`.
                outcome = unsafe { producer.emit(token, recorder.event_id, Level::payload(level), len) };
            }
        }
    }
}

/// Sleeps until there may be room in the ring of `cpu`. False: the record is lost.
fn wait_for_room(channel: &Channel, producer: &Producer, cpu: u32, start_ns: u64) -> bool {
    if channel.blocking_us == 0 || !fork::is_home() {
        return false;
    }
    let limit_ns = channel.blocking_us.saturating_mul(1000);
    loop {
        let Some((word, value)) = producer.room(cpu) else { return true };
        let waited_ns = crate::clock::monotonic_ns().saturating_sub(start_ns);
        let served = channel.service.alive.load(Ordering::Acquire) && channel.wanted.load(Ordering::Acquire);
        if waited_ns >= limit_ns || !served || producer.is_closed(cpu) {
            return false;
        }
        // The consumer may have gone to sleep before this ring was full.
        channel.ring_doorbell();
        sys::futex_wait(word, value, WAIT_SLICE_NS.min(limit_ns - waited_ns));
    }
}
