//! The consumer: it alone makes packets, and may cut one at any published position.
//!
//! Everything below a ring's head is complete, so a packet is [pos, head) with a header that the
//! consumer makes itself. Flush, timer, live, rotation, stop and snapshot are the same operation,
//! and no producer, CPU or cpuset takes part in it.
//!
//! Use: [`Cursor::next`] gives the next packet, the caller writes it out, [`Cursor::done`] gives the
//! memory back. What `next` announces in the consumer line lets a restarted daemon know, from the
//! last sequence number in its files, whether the packet got written.
//!
//! Programs of the kind ebpf reserve before they write. There, what may be read ends where the bytes
//! committed in a sub-buffer equal those reserved in it, and the head itself is the announcement.
//!
//! Every producer word is read once and checked: a ring that lies gives a [`Violation`] and is
//! retired by the caller; it can neither stall nor crash the consumer.

use crate::geometry::{Geometry, Kind};
use crate::layout::{ConsumerLine, DESCRIPTOR_BYTES, Descriptor, ProducerLine};
use crate::primitive::{Ordering, fence};
use crate::set::Set;
use alloc::vec::Vec;
use thiserror::Error;

/// Times that a moving head is read again before a cut is left to the next closing.
const CUT_RETRIES: u32 = if cfg!(loom) { 2 } else { 100 };
/// How far ahead of the daemon's clock a ring's time may be, ns.
const FUTURE_NS_MAX: u64 = 1_000_000_000;
/// No honest ring gets this far: at 10 GB/s it takes fourteen years. Below it, sums do not overflow.
const POSITION_MAX: u64 = 1 << 62;
/// Laps of a running producer that `next` tries to copy in overwrite mode before it leaves it for later.
const COPY_RETRIES: u32 = if cfg!(loom) { 1 } else { 64 };

/// What to take besides full sub-buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing: full sub-buffers alone.
    Never,
    /// What lies in the open sub-buffer (timer, rotation, stop).
    Open,
}

/// What a ring did that no honest producer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// The head went back, or further ahead than the ring is long.
    #[error("head {head} with everything up to {pos} consumed")]
    Head {
        /// What it said.
        head: u64,
        /// Where the consumer is.
        pos: u64,
    },
    /// A sub-buffer is announced that does not follow the head.
    #[error("sub-buffer {opening} announced with the head at {head}")]
    Opening {
        /// What was announced.
        opening: u64,
        /// Where the head is.
        head: u64,
    },
    /// A sub-buffer ends before what was consumed of it, or beyond its size.
    #[error("sub-buffer {subbuf} ends at {end}")]
    End {
        /// Its number.
        subbuf: u64,
        /// What its descriptor says.
        end: u64,
    },
    /// Begin or end time backwards, or in the future.
    #[error("packet from {begin} to {end} after one that ended at {previous} (now {now})")]
    Time {
        /// Begin of the packet, ns.
        begin: u64,
        /// End of the packet, ns.
        end: u64,
        /// End of the packet before, ns.
        previous: u64,
        /// The daemon's clock, ns.
        now: u64,
    },
    /// A descriptor of another sub-buffer where this one's should be.
    #[error("descriptor of sub-buffer {found} in the place of {expected}")]
    Number {
        /// What it says.
        found: u64,
        /// What it should say.
        expected: u64,
    },
}

/// A packet to write: header fields, and where its event records lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// First byte of the records: in the ring, or in the scratch buffer given to `next`.
    pub body: *const u8,
    /// Bytes of records.
    pub body_bytes: usize,
    /// Begin time, ns.
    pub begin_ts: u64,
    /// End time, ns.
    pub end_ts: u64,
    /// Records discarded on this ring since it was made.
    pub discarded: u64,
    /// Sequence number.
    pub sequence: u64,
    /// CPU that recorded it: the ring's, or for locked rings the opener's.
    pub cpu: u32,
    next_pos: u64,
    release: bool,
}

/// Where the consumer stands in one ring. Its words live in the consumer line too, so that another
/// process can go on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    cpu: u32,
    pos: u64,
    sequence: u64,
    previous_end: u64,
    lost: u64,
    /// Sub-buffers that were overwritten before they could be read.
    overwritten: u64,
    /// False until the first packet.
    started: bool,
}

/// One ring as the consumer reaches it: the words and bytes of a mapped set, or of the loom model.
pub(crate) trait RingMemory {
    fn geometry(&self) -> &Geometry;
    fn line(&self) -> &ProducerLine;
    fn descriptor(&self, subbuf: u64) -> &Descriptor;
    fn consumer_line(&self) -> &ConsumerLine;
    /// Address of the byte at `pos`.
    fn byte(&self, pos: u64) -> *const u8;
    /// Copies `bytes` bytes at `pos`, all in one sub-buffer, that a producer may be changing.
    fn copy(&self, pos: u64, bytes: usize, out: &mut Vec<u8>);
}

/// A ring of a mapped set.
struct Mapped<'a> {
    set: &'a Set,
    cpu: u32,
}

impl RingMemory for Mapped<'_> {
    fn geometry(&self) -> &Geometry {
        self.set.geometry()
    }
    fn line(&self) -> &ProducerLine {
        self.set.line(self.cpu)
    }
    fn descriptor(&self, subbuf: u64) -> &Descriptor {
        self.set.descriptor(self.cpu, subbuf)
    }
    fn consumer_line(&self) -> &ConsumerLine {
        self.set.consumer_line(self.cpu)
    }
    fn byte(&self, pos: u64) -> *const u8 {
        self.set.byte(self.cpu, pos)
    }
    fn copy(&self, pos: u64, bytes: usize, out: &mut Vec<u8>) {
        out.resize(bytes, 0);
        // SAFETY: the cursor bounded the range inside one sub-buffer of the mapped ring. A producer may
        // write there meanwhile; the cursor finds that out before anyone looks at the copy.
        unsafe { core::ptr::copy_nonoverlapping(self.byte(pos), out.as_mut_ptr(), bytes) };
    }
}

/// What lies between the cursor and a point up to which everything is published.
struct Span {
    end_pos: u64,
    end_ts: u64,
    discarded: u64,
    closing: bool,
}

impl Cursor {
    /// The cursor of the ring `cpu`, where the consumer line says that it stood.
    /// `last_written` is the sequence number of the last whole packet in the stream's files: if the
    /// packet that was under way got there, it counts as done.
    pub fn resume(set: &Set, cpu: u32, last_written: Option<u64>) -> Cursor {
        Cursor::resume_in(&Mapped { set, cpu }, cpu, last_written)
    }

    pub(crate) fn resume_in(ring: &impl RingMemory, cpu: u32, last_written: Option<u64>) -> Cursor {
        let line = ring.consumer_line();
        let sequence = line.sequence.load(Ordering::Relaxed);
        let mut cursor = Cursor {
            cpu,
            pos: line.pos.load(Ordering::Relaxed),
            sequence,
            previous_end: line.previous_end.load(Ordering::Relaxed),
            lost: line.lost.load(Ordering::Relaxed),
            overwritten: 0,
            started: sequence > 0,
        };
        if last_written.is_some_and(|last| last >= sequence) {
            cursor.sequence = last_written.map_or(0, |last| last + 1);
            cursor.pos = line.intent_pos.load(Ordering::Relaxed);
            cursor.previous_end = line.intent_end.load(Ordering::Relaxed);
            cursor.lost = line.intent_lost.load(Ordering::Relaxed);
            cursor.started = true;
            cursor.save(ring);
        }
        cursor
    }

    /// Number of the ring.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Sub-buffers lost by overwriting, seen by this cursor.
    pub fn overwritten(&self) -> u64 {
        self.overwritten
    }

    /// Sequence number of the next packet.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Records lost that packets account for so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The next packet, or None when there is nothing to write. In overwrite mode the records are
    /// copied to `scratch` first. `now_ns` is CLOCK_MONOTONIC.
    pub fn next(
        &mut self,
        set: &Set,
        cut: Cut,
        now_ns: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Packet>, Violation> {
        self.next_in(&Mapped { set, cpu: self.cpu }, cut, now_ns, scratch)
    }

    pub(crate) fn next_in(
        &mut self,
        ring: &impl RingMemory,
        cut: Cut,
        now_ns: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Packet>, Violation> {
        let g = *ring.geometry();
        let mut copies = 0;
        loop {
            if g.overwrite {
                self.skip_overwritten(ring)?;
            }
            let head = ring.line().head.load(Ordering::Acquire); // pairs with the producers' Release of head
            // A flight recorder's head may be laps ahead; `intact` then refuses the copy.
            let bound = if g.overwrite { POSITION_MAX } else { u64::from(g.subbuf_count) << g.subbuf_shift };
            if head > POSITION_MAX || head.wrapping_sub(self.pos) > bound {
                return Err(Violation::Head { head, pos: self.pos });
            }
            let Some(span) = self.span(ring, head, cut)? else { return Ok(None) };
            let subbuf = self.pos >> g.subbuf_shift;
            let inside = self.pos & (g.subbuf_bytes() - 1);
            let descriptor = ring.descriptor(subbuf);
            let (number, opened_ts, cpu) = (
                descriptor.number.load(Ordering::Relaxed),
                descriptor.begin_ts.load(Ordering::Relaxed),
                descriptor.cpu.load(Ordering::Relaxed),
            );
            // A sub-buffer's records begin behind its descriptor; before the first one there are none.
            let nothing_opened = span.end_pos == 0;
            let start = if inside == 0 && !nothing_opened { self.pos + DESCRIPTOR_BYTES } else { self.pos };
            let Some(body_bytes) = span.end_pos.checked_sub(start) else {
                if g.overwrite && !self.intact(ring) {
                    return Ok(None);
                }
                return Err(Violation::End { subbuf, end: span.end_pos });
            };
            let body_bytes = body_bytes as usize;
            let mut body = ring.byte(start);
            if g.overwrite {
                ring.copy(start, body_bytes, scratch);
                if !self.intact(ring) {
                    copies += 1;
                    if copies > COPY_RETRIES {
                        return Ok(None);
                    }
                    continue;
                }
                body = scratch.as_ptr();
            }
            if number != subbuf && !nothing_opened {
                return Err(Violation::Number { found: number, expected: subbuf });
            }
            if body_bytes == 0 && span.discarded == self.lost {
                if !span.closing {
                    return Ok(None);
                }
                // The rest of a sub-buffer that was cut at its end: nothing to write, but to give back.
                self.advance(ring, subbuf + 1);
                continue;
            }
            // Without a sub-buffer there are only losses: their packet lies at the time of writing.
            let opened_ts = if nothing_opened { now_ns.max(self.previous_end) } else { opened_ts };
            let begin_ts =
                if inside > 0 || nothing_opened { self.previous_end.max(opened_ts) } else { opened_ts };
            let end_ts = if nothing_opened { begin_ts } else { span.end_ts };
            let late = self.started && begin_ts < self.previous_end;
            if late || end_ts < begin_ts || end_ts > now_ns.saturating_add(FUTURE_NS_MAX) {
                let previous = self.previous_end;
                return Err(Violation::Time { begin: begin_ts, end: end_ts, previous, now: now_ns });
            }
            let cpu = if g.kind == Kind::Locked { cpu as u32 } else { self.cpu };
            let packet = Packet {
                body,
                body_bytes,
                begin_ts,
                end_ts,
                discarded: span.discarded,
                sequence: self.sequence,
                cpu,
                next_pos: if span.closing { (subbuf + 1) << g.subbuf_shift } else { span.end_pos },
                release: span.closing,
            };
            self.announce(ring, &packet);
            return Ok(Some(packet));
        }
    }

    /// The packet was written: gives its memory back. True if producers may be waiting for it: wake
    /// them at [`Set::wait_word`].
    pub fn done(&mut self, set: &Set, packet: &Packet) -> bool {
        self.done_in(&Mapped { set, cpu: self.cpu }, packet)
    }

    pub(crate) fn done_in(&mut self, ring: &impl RingMemory, packet: &Packet) -> bool {
        self.pos = packet.next_pos;
        self.sequence = packet.sequence + 1;
        self.previous_end = packet.end_ts;
        self.lost = packet.discarded;
        self.started = true;
        self.save(ring);
        if packet.release {
            let subbuf = packet.next_pos >> ring.geometry().subbuf_shift;
            // Pairs with the producers' Acquire: our reads of the sub-buffer are over.
            ring.consumer_line().released.store(subbuf, Ordering::Release);
        }
        packet.release && !ring.geometry().overwrite
    }

    /// The packet could not be written and never will be (disk full): its records count as lost
    /// from here on, and the memory is given back. Returns what `done` does.
    pub fn drop_packet(&mut self, set: &Set, packet: &Packet) -> bool {
        let (sequence, lost, end, started) = (self.sequence, self.lost, self.previous_end, self.started);
        let wake = self.done(set, packet);
        // The next packet that is written shows the hole by its sequence number, as lost packets do.
        self.sequence = sequence + 1;
        self.lost = lost;
        self.previous_end = end;
        self.started = started;
        self.save(&Mapped { set, cpu: self.cpu });
        wake
    }

    /// From the cursor to the end of a closed sub-buffer, or to the cut point of the open one.
    fn span(&self, ring: &impl RingMemory, head: u64, cut: Cut) -> Result<Option<Span>, Violation> {
        let g = ring.geometry();
        let subbuf = self.pos >> g.subbuf_shift;
        if head >> g.subbuf_shift > subbuf {
            if !self.is_complete(ring, (subbuf + 1) << g.subbuf_shift) {
                return Ok(None);
            }
            let end = ring.descriptor(subbuf).end.load(Ordering::Relaxed);
            let next = ring.descriptor(subbuf + 1);
            let end_pos = (subbuf << g.subbuf_shift).wrapping_add(end);
            if end > g.subbuf_bytes() || end_pos < self.pos {
                // In overwrite mode `end` may be of a later lap already; `intact` would say so.
                if g.overwrite && !self.intact(ring) {
                    return Ok(None);
                }
                return Err(Violation::End { subbuf, end });
            }
            return Ok(Some(Span {
                end_pos,
                end_ts: next.begin_ts.load(Ordering::Relaxed),
                discarded: next.lost_at_open.load(Ordering::Relaxed),
                closing: true,
            }));
        }
        if cut == Cut::Never {
            return Ok(None);
        }
        let discarded = self.lost_now(ring);
        Ok(self.cut_point(ring, head).map(|(end_pos, end_ts)| Span {
            end_pos,
            end_ts,
            discarded,
            closing: false,
        }))
    }

    /// A head with the time of its last record, if it stands still long enough, in the cursor's sub-buffer.
    fn cut_point(&self, ring: &impl RingMemory, head: u64) -> Option<(u64, u64)> {
        let (line, mut head) = (ring.line(), head);
        for _ in 0..CUT_RETRIES {
            let complete = self.is_complete(ring, head);
            let last_ts = line.last_ts.load(Ordering::Acquire); // pairs with the producers' Release
            let again = line.head.load(Ordering::Acquire);
            if again == head && complete {
                return Some((head, last_ts));
            }
            if again >> ring.geometry().subbuf_shift != self.pos >> ring.geometry().subbuf_shift {
                return None;
            }
            head = again;
        }
        None
    }

    /// True if everything in the cursor's sub-buffer was written up to `end`, which lies in it or at its
    /// end. To be called before the head is read (again): what is committed never exceeds it.
    fn is_complete(&self, ring: &impl RingMemory, end: u64) -> bool {
        let g = ring.geometry();
        if g.kind != Kind::Ebpf || end == 0 {
            return true;
        }
        let subbuf = self.pos >> g.subbuf_shift;
        let laps = subbuf / u64::from(g.subbuf_count);
        let reserved = (laps << g.subbuf_shift) + (end - (subbuf << g.subbuf_shift));
        // Pairs with the fetch-and-add of the programs. In a later lap there is more: `intact` says so.
        let committed = ring.descriptor(subbuf).committed.load(Ordering::Acquire);
        committed == reserved || (g.overwrite && committed > reserved)
    }

    /// The highest sub-buffer that a producer may be changing.
    fn opening(&self, ring: &impl RingMemory) -> u64 {
        let line = ring.line();
        match ring.geometry().kind {
            // The head is moved before anything is written behind it.
            Kind::Ebpf => line.head.load(Ordering::Acquire) >> ring.geometry().subbuf_shift,
            _ => line.opening.load(Ordering::Acquire), // pairs with the producers' Release
        }
    }

    /// Overwrite mode: moves on to the oldest sub-buffer that no producer can be changing.
    fn skip_overwritten(&mut self, ring: &impl RingMemory) -> Result<(), Violation> {
        let g = ring.geometry();
        let opening = self.opening(ring);
        let head = ring.line().head.load(Ordering::Acquire);
        // Producers announce the sub-buffer behind the head's at most.
        if head > POSITION_MAX || opening > (head >> g.subbuf_shift) + 1 {
            return Err(Violation::Opening { opening, head });
        }
        let oldest = (opening + 1).saturating_sub(g.subbuf_count.into());
        let subbuf = self.pos >> g.subbuf_shift;
        if subbuf < oldest {
            // A sub-buffer of which a part was written already loses its rest alone: still a gap.
            let missed = oldest - subbuf;
            self.overwritten += missed;
            self.sequence += missed;
            self.advance(ring, oldest);
        }
        Ok(())
    }

    /// Overwrite mode: true if what was just read of the cursor's sub-buffer (and of the next one's
    /// descriptor) was not being overwritten.
    fn intact(&self, ring: &impl RingMemory) -> bool {
        fence(Ordering::SeqCst);
        let g = ring.geometry();
        let opening = self.opening(ring);
        (self.pos >> g.subbuf_shift) + u64::from(g.subbuf_count) > opening
    }

    fn lost_now(&self, ring: &impl RingMemory) -> u64 {
        ring.line().lost.iter().map(|l| l.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    fn advance(&mut self, ring: &impl RingMemory, subbuf: u64) {
        self.pos = subbuf << ring.geometry().subbuf_shift;
        self.save(ring);
        ring.consumer_line().released.store(subbuf, Ordering::Release); // as in `done`
    }

    fn announce(&self, ring: &impl RingMemory, packet: &Packet) {
        let line = ring.consumer_line();
        line.intent_pos.store(packet.next_pos, Ordering::Relaxed);
        line.intent_end.store(packet.end_ts, Ordering::Relaxed);
        line.intent_lost.store(packet.discarded, Ordering::Relaxed);
        line.sequence.store(packet.sequence, Ordering::Release);
    }

    fn save(&self, ring: &impl RingMemory) {
        let line = ring.consumer_line();
        line.pos.store(self.pos, Ordering::Relaxed);
        line.previous_end.store(self.previous_end, Ordering::Relaxed);
        line.lost.store(self.lost, Ordering::Relaxed);
        line.sequence.store(self.sequence, Ordering::Release);
    }
}
