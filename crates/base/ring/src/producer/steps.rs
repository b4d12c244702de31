//! The producer's steps in plain words and plain stores: one attempt to publish one record.
//!
//! The locked producer runs exactly this under its lock; the assembly of `rseq` is the same on the
//! CPU's ring; the loom model runs this as a thread that may stop before any store and start again.

use crate::geometry::{Geometry, HeaderForm};
use crate::layout::{ConsumerLine, Descriptor, ProducerLine};
use crate::primitive::{AtomicU8, Ordering};

/// The words and bytes of one ring.
pub(crate) struct View<'a, D> {
    pub(crate) geometry: &'a Geometry,
    pub(crate) line: &'a ProducerLine,
    pub(crate) descriptors: &'a [Descriptor],
    pub(crate) consumer: &'a ConsumerLine,
    pub(crate) active: &'a AtomicU8,
    pub(crate) data: D,
}

/// The sub-buffers' memory, slack included.
pub(crate) trait Data {
    /// Copies a record's header and payload to `offset` bytes behind the first sub-buffer's start.
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
    let (count_mask, header) = (u64::from(g.subbuf_count) - 1, g.header);
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
    let mut place = ((head >> g.subbuf_shift) & count_mask) as usize;
    let room = head.wrapping_neg() & (g.subbuf_bytes() - 1);
    let begin_ts = ring.descriptors[place].begin_ts.load(Ordering::Relaxed);
    let mut short = id < header.extended_id() && ts.wrapping_sub(begin_ts) < header.short_span_ns();
    let length =
        |short| payload.len() as u64 + if short { header.short_bytes() } else { header.extended_bytes() };
    let mut opened = false;
    // Strictly: the head must never reach the end of a sub-buffer.
    if length(short) >= room {
        let next = head.div_ceil(g.subbuf_bytes());
        // Pairs with the Release in `Cursor::done`: the consumer's reads of the old lap are over.
        let released = ring.consumer.released.load(Ordering::Acquire);
        if !g.overwrite && next.wrapping_sub(released) >= g.subbuf_count.into() {
            return Attempt::Full;
        }
        store!(ring.active, 1, Release); // pairs with the Acquire in `Set::is_active`
        let before = (next.wrapping_sub(1) & count_mask) as usize;
        let end = head.wrapping_sub(next.wrapping_sub(1) << g.subbuf_shift);
        store!(ring.descriptors[before].end, end, Relaxed);
        store!(ring.line.opening, next, Release); // pairs with the Acquire in `Cursor::intact`
        // Announce, then change: nothing of the old lap may be overwritten before.
        crate::primitive::fence(Ordering::SeqCst);
        place = (next & count_mask) as usize;
        let descriptor = &ring.descriptors[place];
        store!(descriptor.number, next, Relaxed);
        store!(descriptor.begin_ts, ts, Relaxed);
        let lost = ring.line.lost.iter().map(|l| l.load(Ordering::Relaxed)).fold(0, u64::wrapping_add);
        store!(descriptor.lost_at_open, lost, Relaxed);
        store!(descriptor.cpu, cpu.into(), Relaxed);
        head = next << g.subbuf_shift;
        short = id < header.extended_id();
        opened = true;
    }
    if interrupted() {
        return Attempt::Interrupted;
    }
    let slack = place as u64 * crate::layout::SLACK_BYTES;
    let offset = (head & ((u64::from(g.subbuf_count) << g.subbuf_shift) - 1)) + slack;
    ring.data.write(offset as usize, header, short, id, ts, payload);
    store!(ring.line.last_ts, ts, Release); // pairs with the Acquire in `Cursor::cut_point`
    store!(ring.line.head, head + length(short), Release); // pairs with the Acquire in `Cursor::next`
    if opened { Attempt::Opened } else { Attempt::Published }
}
