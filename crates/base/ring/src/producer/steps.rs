//! The producer's steps in plain words and plain stores: one attempt to publish one record.
//!
//! The locked producer runs exactly this under its lock; the assembly of `rseq` is the same on the
//! CPU's ring; the loom model runs this as a thread that may stop before any store and start again.

use crate::geometry::{Geometry, HeaderForm};
use crate::layout::{ConsumerLine, DESCRIPTOR_BYTES, Descriptor, ProducerLine, TAIL_BYTES};
use crate::primitive::{AtomicU8, Ordering};

/// The words and bytes of one ring.
pub(crate) struct View<'a, D> {
    pub(crate) geometry: &'a Geometry,
    pub(crate) line: &'a ProducerLine,
    pub(crate) consumer: &'a ConsumerLine,
    pub(crate) active: &'a AtomicU8,
    pub(crate) data: D,
}

/// The sub-buffers' memory; offsets count from the first one's start.
pub(crate) trait Data {
    /// The descriptor of the sub-buffer that begins at `offset`.
    fn descriptor(&self, offset: usize) -> &Descriptor;
    /// Copies a record's header and payload to `offset`.
    fn write(&self, offset: usize, header: HeaderForm, short: bool, id: u32, ts: u64, payload: &[u8]);
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Published,
    Opened,
    Full,
    Closed,
    /// `interrupted` said so: nothing was published.
    Interrupted,
}

/// Publishes one record at time `now_ns`, unless `interrupted` answers true before one of the stores.
/// The payload fits a sub-buffer (`Geometry::payload_bytes_max`).
pub(crate) fn attempt<D: Data>(
    ring: &View<'_, D>,
    now_ns: u64,
    cpu: u32,
    id: u32,
    payload: &[u8],
    mut interrupted: impl FnMut() -> bool,
) -> Attempt {
    let g = ring.geometry;
    let header = g.header;
    let ring_mask = (u64::from(g.subbuf_count) << g.subbuf_shift) - 1;
    let offset = |pos: u64| (pos & ring_mask) as usize;
    let start = |subbuf: u64| ring.data.descriptor(offset(subbuf << g.subbuf_shift));
    macro_rules! store {
        ($word:expr, $value:expr, $order:ident) => {
            if interrupted() {
                return Attempt::Interrupted;
            }
            $word.store($value, Ordering::$order);
        };
    }
    if ring.line.closed.load(Ordering::Relaxed) != 0 {
        return Attempt::Closed;
    }
    let mut head = ring.line.head.load(Ordering::Relaxed);
    let ts = now_ns.max(ring.line.last_ts.load(Ordering::Relaxed));
    let room = head.wrapping_neg() & (g.subbuf_bytes() - 1);
    let begin_ts = start(head >> g.subbuf_shift).begin_ts.load(Ordering::Relaxed);
    let mut short = id < header.extended_id() && ts.wrapping_sub(begin_ts) < header.short_span_ns();
    let length =
        |short| payload.len() as u64 + if short { header.short_bytes() } else { header.extended_bytes() };
    let mut opened = false;
    // Strictly: the head must never reach the end of a sub-buffer, nor a copy run over it.
    if length(short) + TAIL_BYTES >= room {
        let next = head.div_ceil(g.subbuf_bytes());
        // Pairs with the Release in `Cursor::done`: the consumer's reads of the old lap are over.
        let released = ring.consumer.released.load(Ordering::Acquire);
        if !g.overwrite && next.wrapping_sub(released) >= g.subbuf_count.into() {
            return Attempt::Full;
        }
        store!(ring.active, 1, Release); // pairs with the Acquire in `Set::is_active`
        let before = next.wrapping_sub(1);
        store!(start(before).end, head.wrapping_sub(before << g.subbuf_shift), Relaxed);
        store!(ring.line.opening, next, Release); // pairs with the Acquire in `Cursor::intact`
        // Announce, then change: nothing of the old lap may be overwritten before.
        crate::primitive::fence(Ordering::SeqCst);
        let descriptor = start(next);
        store!(descriptor.number, next, Relaxed);
        store!(descriptor.begin_ts, ts, Relaxed);
        let lost = ring.line.lost.iter().map(|l| l.load(Ordering::Relaxed)).fold(0, u64::wrapping_add);
        store!(descriptor.lost_at_open, lost, Relaxed);
        store!(descriptor.cpu, cpu.into(), Relaxed);
        head = (next << g.subbuf_shift) + DESCRIPTOR_BYTES;
        short = id < header.extended_id();
        opened = true;
    }
    if interrupted() {
        return Attempt::Interrupted;
    }
    ring.data.write(offset(head), header, short, id, ts, payload);
    store!(ring.line.last_ts, ts, Release); // pairs with the Acquire in `Cursor::cut_point`
    store!(ring.line.head, head + length(short), Release); // pairs with the Acquire in `Cursor::next`
    if opened { Attempt::Opened } else { Attempt::Published }
}
