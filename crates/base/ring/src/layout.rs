//! The shared memory, word by word.
//!
//! A ring has N sub-buffers of S bytes, both powers of two. Positions are 64-bit byte counts that
//! never wrap: sub-buffer number n = position / S, its place is n mod N. A sub-buffer begins with its
//! descriptor; records follow and never cross into the next. A record is placed only if it leaves
//! more than [`TAIL_BYTES`] behind it, so that copies in whole words stay inside, and a head that is a
//! multiple of S other than 0 does not exist; head 0 means that nothing was ever opened.
//!
//! The set's file (producers and consumer map it read-write):
//!
//! | where | what |
//! |---|---|
//! | page 0 | [`SetHeader`] |
//! | 4096 + cpu × `ring_bytes` | that CPU's ring |
//! | … + 0 | [`ProducerLine`] |
//! | … + 4096 + (n mod N) × S | [`Descriptor`] of sub-buffer n, 64 bytes |
//! | … + 4096 + (n mod N) × S + 64 | its records |
//!
//! So the address of any position is `data + (position mod N × S)`: a mask and a sum, no shift.
//!
//! The consumer's file (producers can only map it for reading): one [`ConsumerLine`] for each ring.
//! Rings of the kind ebpf have theirs in the control page, at [`CONSUMER_LINE_OFFSET`].
//!
//! All words are little atomics, each written by the side named with it. `ProducerLine.closed`
//! alone is stored by the consumer in the producers' file.

use crate::primitive::{AtomicU8, AtomicU32, AtomicU64};
use sillage_model::limits::CPUS_MAX;

/// `SILLRING`, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SILLRING");
/// Version of this layout.
pub const VERSION: u32 = 1;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a producer line.
pub const LINE_BYTES: u64 = 128;
/// Bytes in front of a ring's first sub-buffer.
pub const CONTROL_BYTES: u64 = PAGE_BYTES;
/// Bytes of a descriptor, and offset of the first record in a sub-buffer.
pub const DESCRIPTOR_BYTES: u64 = 64;
/// Bytes that a record leaves behind it at least (and one more), for copies that run over.
pub const TAIL_BYTES: u64 = 16;
/// Bytes of a consumer line.
pub const CONSUMER_LINE_BYTES: u64 = 64;
/// Kind ebpf: where a ring's control page holds its consumer line, so that one map is all a program
/// needs. Nobody but the kernel and the daemon can write to such a map.
pub const CONSUMER_LINE_OFFSET: u64 = 2048;

/// First page of a set. The geometry is written once, when the set is made.
#[repr(C, align(4096))]
pub struct SetHeader {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// Identity of the set, never used twice by a daemon.
    pub set_id: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// [`crate::Kind`] as a number.
    pub kind: AtomicU32,
    /// Rings.
    pub cpus: AtomicU32,
    /// log2 of S.
    pub subbuf_shift: AtomicU32,
    /// N.
    pub subbuf_count: AtomicU32,
    /// [`FLAG_OVERWRITE`] and the others.
    pub flags: AtomicU32,
    _reserved: [u64; 3],
    /// One byte for each CPU, set by its producer when it opens a sub-buffer or counts a loss, so
    /// that the consumer touches no ring that was never used.
    pub active: [AtomicU8; CPUS_MAX],
}

/// In [`SetHeader::flags`]: the oldest sub-buffer is overwritten.
pub const FLAG_OVERWRITE: u32 = 1;
/// In [`SetHeader::flags`]: the clock is fenced.
pub const FLAG_ORDERED: u32 = 2;
/// In [`SetHeader::flags`]: compact event headers.
pub const FLAG_COMPACT: u32 = 4;

/// Why a record was lost; the index of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// The ring was full.
    Full = 0,
    /// The kernel gave no CPU number that the set knows.
    NoCpu = 1,
    /// Interrupted too often (a debugger that single-steps).
    Aborted = 2,
    /// More nested signal handlers than staging levels.
    Nested = 3,
    /// Larger than a sub-buffer or than the staging memory.
    TooLarge = 4,
    /// In a vfork child, which must not touch the rings.
    Vfork = 5,
    /// No memory for staging.
    NoMemory = 6,
    /// The lock of a locked ring stayed taken.
    Contended = 7,
}

/// All reasons, in counter order.
pub const LOST_REASONS: [LostReason; 8] = [
    LostReason::Full,
    LostReason::NoCpu,
    LostReason::Aborted,
    LostReason::Nested,
    LostReason::TooLarge,
    LostReason::Vfork,
    LostReason::NoMemory,
    LostReason::Contended,
];

impl LostReason {
    /// As shown to people.
    pub fn text(self) -> &'static str {
        match self {
            LostReason::Full => "ring full",
            LostReason::NoCpu => "no CPU number",
            LostReason::Aborted => "interrupted too often",
            LostReason::Nested => "signal handlers nested too deeply",
            LostReason::TooLarge => "record too large",
            LostReason::Vfork => "in a vfork child",
            LostReason::NoMemory => "no staging memory",
            LostReason::Contended => "lock taken",
        }
    }
}

/// What a ring's producers write.
#[repr(C, align(64))]
pub struct ProducerLine {
    /// End of the last published record: the store that publishes.
    pub head: AtomicU64,
    /// Time of the last published record, or of an attempt after it; never decreases.
    pub last_ts: AtomicU64,
    /// Highest sub-buffer number whose memory may be under change.
    pub opening: AtomicU64,
    /// Not 0: nobody publishes here any more (stored by the consumer).
    pub closed: AtomicU64,
    pub(crate) _reserved: [u64; 4],
    /// Records lost, by [`LostReason`].
    pub lost: [AtomicU64; 8],
}

/// What producers say of sub-buffer n, at its start. The words that every record reads lie where no
/// word of the producer line has the same offset in its page: a load behind such a store would wait.
#[repr(C, align(64))]
pub struct Descriptor {
    /// n.
    pub number: AtomicU64,
    /// Sum of the lost counters when it was opened.
    pub lost_at_open: AtomicU64,
    /// CPU of the opener (kind locked alone).
    pub cpu: AtomicU64,
    /// Where its records end, in bytes from its start; valid only once head lies in a later sub-buffer.
    pub end: AtomicU64,
    /// Time at which it was opened.
    pub begin_ts: AtomicU64,
    /// Bytes written in this place over all laps, the descriptor's and the padding's included: S for
    /// each finished lap (kind ebpf alone, which reserves before it writes).
    pub committed: AtomicU64,
    pub(crate) _reserved: [u64; 2],
}

/// What the consumer writes; producers see it read-only.
#[repr(C, align(64))]
pub struct ConsumerLine {
    /// First sub-buffer not yet given back. Blocked producers wait (futex) on its low half.
    pub released: AtomicU64,
    /// Position up to which everything was written out.
    pub pos: AtomicU64,
    /// Sequence number of the next packet.
    pub sequence: AtomicU64,
    /// End time of the packet before.
    pub previous_end: AtomicU64,
    /// Lost records that the packets so far account for.
    pub lost: AtomicU64,
    /// `pos` after the packet that is being written.
    pub intent_pos: AtomicU64,
    /// End time of that packet.
    pub intent_end: AtomicU64,
    /// Its lost count.
    pub intent_lost: AtomicU64,
}

/// One for each user: producers ring it when a sub-buffer is full and the consumer sleeps.
#[repr(C, align(4096))]
pub struct Doorbell {
    /// Futex word; changed by each ring.
    pub bell: AtomicU32,
    /// Not 0 while the consumer sleeps or is about to.
    pub sleeping: AtomicU32,
}

#[cfg(not(loom))]
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<SetHeader>() == PAGE_BYTES as usize);
    assert!(size_of::<ProducerLine>() == LINE_BYTES as usize);
    assert!(size_of::<Descriptor>() == DESCRIPTOR_BYTES as usize);
    assert!(size_of::<ConsumerLine>() == CONSUMER_LINE_BYTES as usize);
    assert!(offset_of!(SetHeader, active) == 64);
    assert!(
        LINE_BYTES <= CONSUMER_LINE_OFFSET && CONSUMER_LINE_OFFSET + CONSUMER_LINE_BYTES <= CONTROL_BYTES
    );
    assert!(offset_of!(Descriptor, committed) == 40);
};
