//! A ring set as the daemon sees it: both files mapped, header written, rings opened and closed.

use crate::geometry::{Geometry, GeometryError, HeaderForm, Kind};
use crate::layout::{
    CONSUMER_LINE_OFFSET, CONTROL_BYTES, ConsumerLine, Descriptor, FLAG_COMPACT, FLAG_ORDERED,
    FLAG_OVERWRITE, MAGIC, PAGE_BYTES, ProducerLine, SetHeader, VERSION,
};
use crate::primitive::Ordering;
use core::ptr::NonNull;
use thiserror::Error;

/// Why a mapping is no ring set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    /// Too few bytes are mapped.
    #[error("ring file has {have} bytes and needs {need}")]
    Short {
        /// Bytes needed.
        need: u64,
        /// Bytes mapped.
        have: u64,
    },
    /// The first word is not the magic number.
    #[error("not a ring set")]
    Magic,
    /// Another version of the layout.
    #[error("ring layout version {0}, expected {VERSION}")]
    Version(u32),
    /// A kind of producer that does not exist.
    #[error("unknown ring kind {0}")]
    Kind(u32),
    /// A shape that no set can have.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
}

/// Reads and checks the geometry in a set's header. Returns it with the set's identity.
///
/// # Safety
/// `bytes` bytes are mapped at `set`, which is page-aligned.
pub(crate) unsafe fn read_geometry(set: *const u8, bytes: u64) -> Result<(Geometry, u64), MapError> {
    if bytes < PAGE_BYTES {
        return Err(MapError::Short { need: PAGE_BYTES, have: bytes });
    }
    // SAFETY: a page of atomics is mapped there (checked above, and the caller's promise).
    let header = unsafe { &*set.cast::<SetHeader>() };
    if header.magic.load(Ordering::Acquire) != MAGIC {
        return Err(MapError::Magic); // pairs with the Release in `Set::create`
    }
    match header.version.load(Ordering::Relaxed) {
        VERSION => {}
        other => return Err(MapError::Version(other)),
    }
    let flags = header.flags.load(Ordering::Relaxed);
    let geometry = Geometry {
        kind: match header.kind.load(Ordering::Relaxed) {
            1 => Kind::Rseq,
            2 => Kind::Locked,
            3 => Kind::Ebpf,
            other => return Err(MapError::Kind(other)),
        },
        cpus: header.cpus.load(Ordering::Relaxed),
        subbuf_shift: header.subbuf_shift.load(Ordering::Relaxed),
        subbuf_count: header.subbuf_count.load(Ordering::Relaxed),
        overwrite: flags & FLAG_OVERWRITE != 0,
        ordered: flags & FLAG_ORDERED != 0,
        header: if flags & FLAG_COMPACT != 0 { HeaderForm::Compact } else { HeaderForm::Large },
    }
    .checked()?;
    if bytes < geometry.set_bytes() {
        return Err(MapError::Short { need: geometry.set_bytes(), have: bytes });
    }
    Ok((geometry, header.set_id.load(Ordering::Relaxed)))
}

/// A mapped set. The geometry is the daemon's own copy: the header page is producers' to scribble on.
pub struct Set {
    base: NonNull<u8>,
    consumer: NonNull<ConsumerLine>,
    geometry: Geometry,
    set_id: u64,
}

// SAFETY: the mappings outlive the set (promise of `create` and `adopt`) and are used through atomics,
// or for bytes that the contract gives to the consumer.
unsafe impl Send for Set {}
// SAFETY: as for `Send`.
unsafe impl Sync for Set {}

impl Set {
    /// Writes the header of a new set into zeroed memory.
    ///
    /// # Safety
    /// `geometry.set_bytes()` zeroed bytes are mapped shared and writable at `base`, and
    /// `geometry.consumer_bytes()` at `consumer` (not used by the kind ebpf); both outlive the set.
    pub unsafe fn create(
        base: NonNull<u8>,
        consumer: NonNull<u8>,
        geometry: Geometry,
        set_id: u64,
    ) -> Result<Set, GeometryError> {
        let geometry = geometry.checked()?;
        // SAFETY: the caller mapped at least the header page.
        let header = unsafe { base.cast::<SetHeader>().as_ref() };
        let flag = |on: bool, flag| if on { flag } else { 0 };
        header.set_id.store(set_id, Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
        header.kind.store(geometry.kind as u32, Ordering::Relaxed);
        header.cpus.store(geometry.cpus, Ordering::Relaxed);
        header.subbuf_shift.store(geometry.subbuf_shift, Ordering::Relaxed);
        header.subbuf_count.store(geometry.subbuf_count, Ordering::Relaxed);
        let flags = flag(geometry.overwrite, FLAG_OVERWRITE)
            | flag(geometry.ordered, FLAG_ORDERED)
            | flag(geometry.header == HeaderForm::Compact, FLAG_COMPACT);
        header.flags.store(flags, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release); // pairs with the Acquire in `read_geometry`
        Ok(Set { base, consumer: consumer.cast(), geometry, set_id })
    }

    /// Takes back a set that an earlier daemon made, with the geometry that this daemon remembers.
    ///
    /// # Safety
    /// As [`Set::create`], with the bytes as the set's users left them.
    pub unsafe fn adopt(
        base: NonNull<u8>,
        consumer: NonNull<u8>,
        geometry: Geometry,
        set_id: u64,
    ) -> Result<Set, GeometryError> {
        Ok(Set { base, consumer: consumer.cast(), geometry: geometry.checked()?, set_id })
    }

    /// Its shape.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Its identity.
    pub fn set_id(&self) -> u64 {
        self.set_id
    }

    /// True once the ring has had a record or a loss. Touches no page of the ring.
    pub fn is_active(&self, cpu: u32) -> bool {
        // SAFETY: the header page is mapped for the life of the set.
        let header = unsafe { self.base.cast::<SetHeader>().as_ref() };
        // Pairs with the Release of the producers' stores.
        header.active.get(cpu as usize).is_some_and(|a| a.load(Ordering::Acquire) != 0)
    }

    /// The rings that are active.
    pub fn active(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.geometry.cpus).filter(|cpu| self.is_active(*cpu))
    }

    /// Nobody publishes in the ring `cpu` from now on (apart from a section that has begun).
    pub fn close(&self, cpu: u32) {
        self.line(cpu).closed.store(1, Ordering::Release);
    }

    /// The ring `cpu` is there (kind ebpf, whose programs do not say so themselves).
    pub fn activate(&self, cpu: u32) {
        // SAFETY: the header page is mapped for the life of the set.
        let header = unsafe { self.base.cast::<SetHeader>().as_ref() };
        if let Some(active) = header.active.get(cpu as usize) {
            active.store(1, Ordering::Release); // pairs with the Acquire in `is_active`
        }
    }

    /// Closes every ring. Rings that were never used get a page by this.
    pub fn close_all(&self) {
        (0..self.geometry.cpus).for_each(|cpu| self.close(cpu));
    }

    /// Records lost in the ring, by reason.
    pub fn lost(&self, cpu: u32) -> [u64; 8] {
        core::array::from_fn(|i| self.line(cpu).lost[i].load(Ordering::Relaxed))
    }

    /// Bytes that were published in the ring so far, event headers included, sub-buffer ends skipped.
    pub fn head(&self, cpu: u32) -> u64 {
        self.line(cpu).head.load(Ordering::Relaxed)
    }

    fn ring(&self, cpu: u32) -> *mut u8 {
        assert!(cpu < self.geometry.cpus);
        let offset = PAGE_BYTES + self.geometry.ring_bytes() * u64::from(cpu);
        // SAFETY: `cpu` is one of the `cpus` rings that the mapping holds.
        unsafe { self.base.as_ptr().add(offset as usize) }
    }

    pub(crate) fn line(&self, cpu: u32) -> &ProducerLine {
        // SAFETY: each ring begins with a line of atomics.
        unsafe { &*self.ring(cpu).cast() }
    }

    pub(crate) fn descriptor(&self, cpu: u32, subbuf: u64) -> &Descriptor {
        // SAFETY: each sub-buffer begins with a descriptor of atomics.
        unsafe { &*self.byte(cpu, subbuf << self.geometry.subbuf_shift).cast() }
    }

    pub(crate) fn consumer_line(&self, cpu: u32) -> &ConsumerLine {
        assert!(cpu < self.geometry.cpus);
        if self.geometry.kind == Kind::Ebpf {
            // SAFETY: the control page of each ring holds the line there.
            return unsafe { &*self.ring(cpu).add(CONSUMER_LINE_OFFSET as usize).cast() };
        }
        // SAFETY: the consumer's file holds one line for each ring.
        unsafe { &*self.consumer.as_ptr().add(cpu as usize) }
    }

    /// Address of the byte at position `pos`, with the rest of its sub-buffer behind it.
    pub(crate) fn byte(&self, cpu: u32, pos: u64) -> *const u8 {
        let g = &self.geometry;
        let inside = pos & ((u64::from(g.subbuf_count) << g.subbuf_shift) - 1);
        // SAFETY: N × S bytes follow the control page of each ring.
        unsafe { self.ring(cpu).add((CONTROL_BYTES + inside) as usize) }
    }

    /// The futex word on which producers of the ring wait.
    pub fn wait_word(&self, cpu: u32) -> *const u32 {
        (&raw const self.consumer_line(cpu).released).cast()
    }
}
