//! Producers: a staged record goes into the ring of the CPU and exists with one store of its head.
//!
//! The caller stages the payload (bytes behind the event header) in private memory and calls
//! [`Producer::emit`]. `rseq` publishes on the current CPU's ring in one restartable sequence;
//! `locked` publishes on a ring of the process's own under a lock that signal handlers may meet;
//! both follow the steps that `steps` spells out, and that the loom model explores.
//!
//! Nothing here allocates, blocks or calls the kernel. What needs the kernel is reported by
//! [`Emit`]: the caller waits when the ring is full and rings the doorbell when a sub-buffer was
//! opened.

mod locked;
#[cfg(all(target_arch = "x86_64", not(loom)))]
mod rseq;
#[cfg(all(target_arch = "x86_64", not(loom)))]
mod short;
pub(crate) mod steps;

use crate::clock::ClockPage;
use crate::geometry::{Geometry, HeaderForm, Kind};
use crate::layout::{ConsumerLine, LostReason, PAGE_BYTES, ProducerLine, SetHeader};
use crate::primitive::{AtomicU32, Ordering};
use crate::set::{MapError, read_geometry};
use core::num::NonZeroUsize;

/// Writable bytes that a staging area has in front of the payload.
pub const STAGE_HEAD_BYTES: usize = 16;
/// Readable bytes that a staging area has behind the payload.
pub const STAGE_TAIL_BYTES: usize = 16;

/// What a producer cannot know by itself.
#[derive(Clone, Copy)]
pub struct Host {
    /// CLOCK_MONOTONIC in ns, in the daemon's time namespace; used when the clock page is stale.
    pub monotonic_ns: fn() -> u64,
    /// Number of the current CPU, for locked rings and for losses.
    pub cpu: fn() -> u32,
    /// False if the process may not execute `rdtsc` (`PR_SET_TSC`): every time comes from the kernel.
    pub tsc_allowed: bool,
    /// Distance of the thread's registered rseq area from the thread pointer (rseq rings alone).
    pub rseq_offset: isize,
}

/// What became of a staged record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// It is in the ring.
    Published,
    /// It is in the ring, and a sub-buffer was opened for it: the one before can be consumed.
    Opened,
    /// The ring `cpu` is full; nothing was counted. Wait with [`Producer::room`] and emit again, or
    /// count it with [`Producer::count_lost`].
    Full {
        /// Index of the ring that refused.
        cpu: u32,
    },
    /// The ring is closed: its session is gone. Nothing is counted.
    Closed,
    /// Lost for this reason, and counted.
    Lost(LostReason),
}

/// One ring set as a process sees it: constants for the hot path, addresses of the shared words.
/// The order of the fields means nothing; the assembly takes their offsets by name.
#[repr(C)]
pub struct Producer {
    variant: Variant,
    pub(crate) rseq_offset: isize,
    pub(crate) rings: *const u8,
    pub(crate) ring_bytes: u64,
    pub(crate) cpus: u64,
    pub(crate) clock: *const ClockPage,
    pub(crate) subbuf_mask: u64,
    pub(crate) subbuf_start_mask: u64,
    pub(crate) ring_mask: u64,
    pub(crate) subbuf_shift: u64,
    pub(crate) consumer: *const ConsumerLine,
    /// Sub-buffers that may be open and unreleased: N, or no bound when the oldest is overwritten.
    pub(crate) window: u64,
    pub(crate) active: *const u8,
    pub(crate) payload_bytes_max: usize,
    geometry: Geometry,
    host: Host,
    set_id: u64,
    locked: locked::State,
}

/// Which code publishes; one comparison tells the most frequent one from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// rseq, large headers, the page's clock.
    Plain,
    /// rseq in all its other forms.
    OtherRseq,
    /// Under the lock.
    Locked,
}

// SAFETY: the pointers lead to shared mappings that outlive the producer (`from_mapping`'s caller
// sees to it) and are only used through atomics, or for bytes that the algorithm gives to one
// writer.
unsafe impl Send for Producer {}
// SAFETY: as for `Send`.
unsafe impl Sync for Producer {}

impl Producer {
    /// A producer over the mapped set, consumer and clock files, `*_bytes` long. The geometry is
    /// read once and checked against those lengths.
    ///
    /// # Safety
    /// The three mappings are page-aligned, valid for their lengths, shared, `set` writable, and
    /// outlive the producer. For a set of kind rseq, glibc has registered rseq areas at
    /// `host.rseq_offset` for every thread that emits. A locked set is mapped by this process alone.
    pub unsafe fn from_mapping(
        set: *mut u8,
        set_bytes: u64,
        consumer: *const u8,
        consumer_bytes: u64,
        clock: *const ClockPage,
        host: Host,
    ) -> Result<Producer, MapError> {
        // SAFETY: the caller mapped `set_bytes` at `set`; `read_geometry` checks that they hold a header.
        let (geometry, set_id) = unsafe { read_geometry(set, set_bytes)? };
        if consumer_bytes < geometry.consumer_bytes() {
            return Err(MapError::Short { need: geometry.consumer_bytes(), have: consumer_bytes });
        }
        let ring_mask = (u64::from(geometry.subbuf_count) << geometry.subbuf_shift) - 1;
        let subbuf_mask = geometry.subbuf_bytes() - 1;
        Ok(Producer {
            variant: match geometry.kind {
                Kind::Rseq if cfg!(not(target_arch = "x86_64")) => return Err(MapError::Kind(1)),
                Kind::Rseq if plain(&geometry, &host) => Variant::Plain,
                Kind::Rseq => Variant::OtherRseq,
                Kind::Locked => Variant::Locked,
                Kind::Ebpf => return Err(MapError::Kind(3)),
            },
            rseq_offset: host.rseq_offset,
            // SAFETY: `read_geometry` proved that the rings follow the header page inside the mapping.
            rings: unsafe { set.add(PAGE_BYTES as usize) },
            ring_bytes: geometry.ring_bytes(),
            cpus: geometry.cpus.into(),
            clock,
            subbuf_mask,
            subbuf_start_mask: ring_mask & !subbuf_mask,
            ring_mask,
            subbuf_shift: geometry.subbuf_shift.into(),
            consumer: consumer.cast(),
            window: if geometry.overwrite { i64::MAX as u64 } else { geometry.subbuf_count.into() },
            // SAFETY: the header page holds one byte for each of `CPUS_MAX` CPUs.
            active: unsafe { (&raw const (*set.cast::<SetHeader>()).active).cast() },
            payload_bytes_max: geometry.payload_bytes_max() as usize,
            geometry,
            host,
            set_id,
            locked: locked::State::new(),
        })
    }

    /// The set's shape.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The set's identity.
    pub fn set_id(&self) -> u64 {
        self.set_id
    }

    /// Publishes the `len` bytes at `staged` as one event record with this id.
    ///
    /// `thread` is a number that no other thread of the process has now (locked rings need it).
    ///
    /// # Safety
    /// `staged` has [`STAGE_HEAD_BYTES`] writable bytes in front and [`STAGE_TAIL_BYTES`] readable
    /// bytes behind its `len` bytes (at most `limits::RECORD_BYTES_MAX`), and nobody else uses them until `emit` returns. The calling
    /// thread does not run in a vfork child.
    #[inline(always)]
    pub unsafe fn emit(&self, thread: NonZeroUsize, id: u32, staged: *mut u8, len: usize) -> Emit {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        if self.variant == Variant::Plain {
            // SAFETY: passed on from the caller.
            return unsafe { self.emit_plain(id, staged, len) };
        }
        // SAFETY: passed on from the caller.
        unsafe { self.emit_other(thread, id, staged, len) }
    }

    #[cold]
    #[inline(never)]
    unsafe fn emit_other(&self, thread: NonZeroUsize, id: u32, staged: *mut u8, len: usize) -> Emit {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        if self.variant == Variant::OtherRseq {
            // SAFETY: passed on from the caller.
            return unsafe { self.emit_other_rseq(id, staged, len) };
        }
        // SAFETY: passed on from the caller.
        unsafe { self.emit_locked(thread, id, staged, len) }
    }

    /// Counts one lost record against the ring `cpu`.
    #[cold]
    pub fn count_lost(&self, cpu: u32, reason: LostReason) {
        let cpu = if u64::from(cpu) < self.cpus { cpu } else { 0 };
        self.line(cpu).lost[reason as usize].fetch_add(1, Ordering::Relaxed);
        // Only then can the consumer know that this ring has something to tell.
        self.active_byte(cpu).store(1, Ordering::Release); // pairs with the Acquire in `Set::is_active`
    }

    /// Where to wait for room in the ring `cpu`: the futex word and the value it had, or None when
    /// there is room by now. The word may be mapped read-only.
    #[cold]
    pub fn room(&self, cpu: u32) -> Option<(*const u32, u32)> {
        let released = &self.consumer_line(cpu).released;
        let value = released.load(Ordering::Acquire); // pairs with the Release in `Cursor::done`
        let head = self.line(cpu).head.load(Ordering::Relaxed);
        let next = head.wrapping_add(self.subbuf_mask) >> self.subbuf_shift;
        if next.wrapping_sub(value) < self.window {
            return None;
        }
        // The low half comes first on the little-endian machines that we support.
        Some(((&raw const *released).cast::<u32>(), value as u32))
    }

    /// True if the set was closed for this CPU.
    pub fn is_closed(&self, cpu: u32) -> bool {
        self.line(cpu).closed.load(Ordering::Relaxed) != 0
    }

    fn ring(&self, cpu: u32) -> *const u8 {
        debug_assert!(u64::from(cpu) < self.cpus);
        // SAFETY: `from_mapping` proved that the mapping holds `cpus` rings, and callers bound `cpu`.
        unsafe { self.rings.add((u64::from(cpu) * self.ring_bytes) as usize) }
    }

    fn line(&self, cpu: u32) -> &ProducerLine {
        // SAFETY: each ring begins with a producer line, all of atomics, in a mapping that outlives self.
        unsafe { &*self.ring(cpu).cast() }
    }

    fn consumer_line(&self, cpu: u32) -> &ConsumerLine {
        debug_assert!(u64::from(cpu) < self.cpus);
        // SAFETY: `from_mapping` proved that the consumer mapping holds `cpus` lines.
        unsafe { &*self.consumer.add(cpu as usize) }
    }

    fn active_byte(&self, cpu: u32) -> &crate::primitive::AtomicU8 {
        debug_assert!(u64::from(cpu) < self.cpus);
        // SAFETY: `active` has `CPUS_MAX` bytes and `cpus` is not more (checked by `Geometry::checked`).
        unsafe { &*self.active.add(cpu as usize).cast() }
    }

    /// The time now, from the page or the kernel.
    fn now_ns(&self) -> u64 {
        // SAFETY: `from_mapping`'s caller keeps the clock page mapped.
        let page = unsafe { &*self.clock };
        let page_ns =
            if self.host.tsc_allowed { page.read(|| read_tsc(self.geometry.ordered)) } else { None };
        page_ns.unwrap_or_else(|| (self.host.monotonic_ns)())
    }
}

/// True for the rseq rings that most events go to.
fn plain(geometry: &Geometry, host: &Host) -> bool {
    geometry.header == HeaderForm::Large && !geometry.ordered && host.tsc_allowed
}

/// The TSC, fenced when `ordered`. Without a TSC the clock page is never usable, and this is not called
/// for its value.
fn read_tsc(ordered: bool) -> u64 {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: every x86-64 machine has both instructions.
    unsafe {
        if ordered {
            core::arch::x86_64::_mm_lfence();
        }
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    {
        let _ = ordered;
        0
    }
}

impl HeaderForm {
    /// Writes the event header to `at` and returns its length: short when time and id permit.
    ///
    /// # Safety
    /// `at` has 16 writable bytes that nobody else uses.
    pub(crate) unsafe fn write(self, at: *mut u8, id: u32, ts: u64, short: bool) -> usize {
        // SAFETY: at most 14 bytes are written, in unaligned stores; the caller gave 16.
        unsafe {
            if short {
                let word = (ts << self.id_bits()) | u64::from(id);
                at.cast::<u64>().write_unaligned(word);
                return self.short_bytes() as usize;
            }
            at.cast::<u16>().write_unaligned(self.extended_id() as u16);
            let rest = at.add(self.extended_bytes() as usize - 12);
            rest.cast::<u32>().write_unaligned(id);
            rest.add(4).cast::<u64>().write_unaligned(ts);
        }
        self.extended_bytes() as usize
    }
}

/// A lock word that only its own process sees.
pub(crate) type Owner = AtomicU32;
