//! The shape of a ring set: how many rings, how large, of which kind. All sizes in bytes.

use crate::layout::{CONTROL_BYTES, DESCRIPTOR_BYTES, PAGE_BYTES, TAIL_BYTES};
use sillage_model::limits::{CPUS_MAX, SUBBUF_BYTES_MAX, SUBBUF_BYTES_MIN, SUBBUF_COUNT_MAX};
use thiserror::Error;

/// Who stores the heads of a set; fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Restartable sequences: any process of the user, on the ring of its CPU.
    Rseq = 1,
    /// One process under its own lock; the set has one ring.
    Locked = 2,
    /// eBPF programs of the kernel tracer.
    Ebpf = 3,
}

/// The event header of the records, LTTng's two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderForm {
    /// u32 with 5 bits of id and 27 of time; 13 bytes extended.
    Compact,
    /// u16 id and u32 time; 14 bytes extended.
    Large,
}

impl HeaderForm {
    /// Bytes of the short form.
    pub const fn short_bytes(self) -> u64 {
        match self {
            HeaderForm::Compact => 4,
            HeaderForm::Large => 6,
        }
    }
    /// Bytes of the extended form.
    pub const fn extended_bytes(self) -> u64 {
        match self {
            HeaderForm::Compact => 13,
            HeaderForm::Large => 14,
        }
    }
    /// The id that announces the extended form; smaller ids fit the short one.
    pub const fn extended_id(self) -> u32 {
        match self {
            HeaderForm::Compact => 31,
            HeaderForm::Large => 0xffff,
        }
    }
    /// Bits of the id in the short form.
    pub const fn id_bits(self) -> u32 {
        match self {
            HeaderForm::Compact => 5,
            HeaderForm::Large => 16,
        }
    }
    /// The short form is good for times less than this many nanoseconds after the sub-buffer's begin.
    pub const fn short_span_ns(self) -> u64 {
        match self {
            HeaderForm::Compact => 1 << 27,
            HeaderForm::Large => 1 << 32,
        }
    }
}

/// Why a geometry is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// No rings, or more than the limit.
    #[error("{0} rings (1 to {CPUS_MAX})")]
    Cpus(u32),
    /// Sub-buffer size not a power of two or out of range.
    #[error("sub-buffer size 2^{0} bytes")]
    SubbufShift(u32),
    /// Sub-buffer count not a power of two or out of range.
    #[error("{0} sub-buffers")]
    SubbufCount(u32),
    /// The whole does not fit the address space.
    #[error("ring set too large")]
    TooLarge,
}

/// The shape of a ring set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Who stores the heads.
    pub kind: Kind,
    /// Rings: possible CPUs of the machine, or 1 for `Locked`.
    pub cpus: u32,
    /// log2 of the sub-buffer size in bytes.
    pub subbuf_shift: u32,
    /// Sub-buffers of a ring, a power of two.
    pub subbuf_count: u32,
    /// Flight recorder: the oldest sub-buffer is overwritten.
    pub overwrite: bool,
    /// Records carry the fenced clock.
    pub ordered: bool,
    /// Form of the event headers.
    pub header: HeaderForm,
}

impl Geometry {
    /// Checks every rule above; what passes can be computed with, without overflow.
    pub fn checked(self) -> Result<Geometry, GeometryError> {
        if self.cpus == 0 || self.cpus as usize > CPUS_MAX {
            return Err(GeometryError::Cpus(self.cpus));
        }
        if self.subbuf_shift < SUBBUF_BYTES_MIN.ilog2() || self.subbuf_shift > SUBBUF_BYTES_MAX.ilog2() {
            return Err(GeometryError::SubbufShift(self.subbuf_shift));
        }
        let least = if self.overwrite { 4 } else { 2 };
        let count = self.subbuf_count;
        if !count.is_power_of_two() || count < least || u64::from(count) > SUBBUF_COUNT_MAX {
            return Err(GeometryError::SubbufCount(count));
        }
        let ring = self.ring_bytes();
        match ring.checked_mul(self.cpus.into()).and_then(|all| all.checked_add(PAGE_BYTES)) {
            Some(all) if all < 1 << 46 => Ok(self),
            _ => Err(GeometryError::TooLarge),
        }
    }

    /// Bytes of one sub-buffer.
    pub const fn subbuf_bytes(&self) -> u64 {
        1 << self.subbuf_shift
    }
    /// Bytes of one ring, whole pages.
    pub const fn ring_bytes(&self) -> u64 {
        CONTROL_BYTES + (self.subbuf_bytes() * self.subbuf_count as u64).next_multiple_of(PAGE_BYTES)
    }
    /// Bytes of the set's file: header page and all rings.
    pub const fn set_bytes(&self) -> u64 {
        PAGE_BYTES + self.ring_bytes() * self.cpus as u64
    }
    /// Bytes of the consumer's file.
    pub const fn consumer_bytes(&self) -> u64 {
        (crate::layout::CONSUMER_LINE_BYTES * self.cpus as u64).next_multiple_of(PAGE_BYTES)
    }
    /// Largest payload that fits a sub-buffer whatever its header.
    pub const fn payload_bytes_max(&self) -> u64 {
        self.subbuf_bytes() - DESCRIPTOR_BYTES - self.header.extended_bytes() - TAIL_BYTES - 1
    }
}
