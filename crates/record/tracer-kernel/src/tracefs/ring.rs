//! A ring of the kind ebpf that this process writes: the same steps as the programs', by one thread.
//!
//! So sessions, consumers and the keeper need not know which back end fills their rings. Nobody else may
//! write to the ring; the consumer reads it at the same time.

use crate::sys::{Memory, SysError};
use sillage_ring::Geometry;
use sillage_ring::layout::{
    CONSUMER_LINE_OFFSET, CONTROL_BYTES, ConsumerLine, DESCRIPTOR_BYTES, Descriptor, LOST_REASONS,
    LostReason, ProducerLine, TAIL_BYTES,
};
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there.
    Plainly,
    /// It is there, and the sub-buffer before it is full.
    Opened,
    /// It is not, and was counted (or the ring is closed).
    Not,
}

/// The ring's only writer.
pub(super) struct Writer {
    memory: Memory,
    geometry: Geometry,
}

impl Writer {
    /// Maps the ring behind this descriptor.
    pub(super) fn new(ring: BorrowedFd<'_>, geometry: Geometry) -> Result<Writer, SysError> {
        Ok(Writer { memory: Memory::map(ring, geometry.ring_bytes() as usize)?, geometry })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.memory.word(offset)
    }

    fn lost(&self, reason: LostReason) -> &AtomicU64 {
        self.word(offset_of!(ProducerLine, lost) + 8 * reason as usize)
    }

    /// A word of the descriptor of the sub-buffer that begins at a position.
    fn descriptor(&self, start: u64, word: usize) -> &AtomicU64 {
        let ring_bytes = u64::from(self.geometry.subbuf_count) * self.geometry.subbuf_bytes();
        self.word((CONTROL_BYTES + (start & (ring_bytes - 1))) as usize + word)
    }

    /// Counts records that the kernel lost.
    pub(super) fn count_lost(&self, count: u64) {
        self.lost(LostReason::Full).fetch_add(count, Ordering::Relaxed);
    }

    /// Appends a record; one that is older than its predecessor takes that one's time.
    pub(super) fn record(&self, time_ns: u64, id: u32, payload: &[u8]) -> Written {
        let (g, h) = (&self.geometry, self.geometry.header);
        let lose = |reason| {
            self.lost(reason).fetch_add(1, Ordering::Relaxed);
            Written::Not
        };
        if self.word(offset_of!(ProducerLine, closed)).load(Ordering::Relaxed) == 1 {
            return Written::Not;
        }
        if payload.len() as u64 > g.payload_bytes_max() {
            return lose(LostReason::TooLarge);
        }
        let head_word = self.word(offset_of!(ProducerLine, head));
        let last_word = self.word(offset_of!(ProducerLine, last_ts));
        let head = head_word.load(Ordering::Relaxed);
        let time_ns = time_ns.max(last_word.load(Ordering::Relaxed));
        let mask = g.subbuf_bytes() - 1;
        let room = head.wrapping_neg() & mask;
        let begin = |start| self.descriptor(start, offset_of!(Descriptor, begin_ts));
        let small_id = id < h.extended_id();
        let is_open = room > 0;
        let short = small_id
            && is_open
            && time_ns - begin(head & !mask).load(Ordering::Relaxed).min(time_ns) < h.short_span_ns();
        let header_bytes = |short| if short { h.short_bytes() } else { h.extended_bytes() };
        let length = header_bytes(short) + payload.len() as u64;
        if is_open && length + TAIL_BYTES < room {
            last_word.store(time_ns, Ordering::Relaxed);
            // Pairs with the consumer's Acquire: whoever sees the new head sees its time.
            head_word.store(head + length, Ordering::Release);
            self.write(head, time_ns, (id, short), payload);
            self.commit(head & !mask, length);
            return Written::Plainly;
        }
        let start = (head + mask) & !mask;
        let number = start >> g.subbuf_shift;
        let released = CONSUMER_LINE_OFFSET as usize + offset_of!(ConsumerLine, released);
        // Pairs with the consumer's Release when it gives a sub-buffer back.
        let released = self.word(released).load(Ordering::Acquire);
        if !g.overwrite && number.saturating_sub(released) >= g.subbuf_count.into() {
            return lose(LostReason::Full);
        }
        let length = DESCRIPTOR_BYTES + header_bytes(small_id) + payload.len() as u64;
        last_word.store(time_ns, Ordering::Relaxed);
        head_word.store(start + length, Ordering::Release); // as above
        let lost_at_open: u64 = LOST_REASONS.iter().map(|r| self.lost(*r).load(Ordering::Relaxed)).sum();
        begin(start).store(time_ns, Ordering::Relaxed);
        self.descriptor(start, offset_of!(Descriptor, lost_at_open)).store(lost_at_open, Ordering::Relaxed);
        self.descriptor(start, offset_of!(Descriptor, number)).store(number, Ordering::Relaxed);
        if is_open {
            let before = head & !mask;
            self.descriptor(before, offset_of!(Descriptor, end)).store(head & mask, Ordering::Relaxed);
            self.commit(before, room);
        }
        self.write(start + DESCRIPTOR_BYTES, time_ns, (id, small_id), payload);
        self.commit(start, length);
        Written::Opened
    }

    /// The bytes of the sub-buffer's records are there.
    fn commit(&self, start: u64, bytes: u64) {
        // Pairs with the consumer's Acquire before it reads them.
        self.descriptor(start, offset_of!(Descriptor, committed)).fetch_add(bytes, Ordering::Release);
    }

    fn write(&self, position: u64, time_ns: u64, (id, short): (u32, bool), payload: &[u8]) {
        let (g, h) = (&self.geometry, self.geometry.header);
        let mut header = [0; 16];
        let bytes = if short {
            let word = time_ns << h.id_bits() | u64::from(id);
            let bytes = h.short_bytes() as usize;
            header[..bytes].copy_from_slice(&word.to_le_bytes()[..bytes]);
            bytes
        } else {
            let bytes = h.extended_bytes() as usize;
            let tag_bytes = bytes - 12;
            header[..tag_bytes].copy_from_slice(&h.extended_id().to_le_bytes()[..tag_bytes]);
            header[tag_bytes..tag_bytes + 4].copy_from_slice(&id.to_le_bytes());
            header[tag_bytes + 4..bytes].copy_from_slice(&time_ns.to_le_bytes());
            bytes
        };
        let ring_bytes = u64::from(g.subbuf_count) * g.subbuf_bytes();
        let at = (CONTROL_BYTES + (position & (ring_bytes - 1))) as usize;
        self.memory.write(at, &header[..bytes]);
        self.memory.write(at + bytes, payload);
    }
}
