//! The producer without rseq: a ring of the process's own, under a lock that never blocks for long.
//!
//! A signal handler that meets its own thread's lock must not wait: it leaves its record in
//! `pending`, and the frame it interrupted publishes it before it gives the lock up. Another thread
//! spins, bounded, and then counts the record as lost. A process killed inside the lock leaves
//! nothing to repair, because the record still appears with the one store of the head.

use super::steps::{self, Attempt, Data, View};
use super::{Emit, Owner, Producer};
use crate::geometry::HeaderForm;
use crate::layout::{CONTROL_BYTES, Descriptor, LostReason};
use crate::primitive::{AtomicU32, Ordering};
use core::cell::UnsafeCell;
use core::num::NonZeroUsize;

/// Tries to take the lock before a record counts as lost; each is a pause of some ten nanoseconds.
const SPINS: u32 = 200_000;
/// Bytes for records of handlers that met their own thread's lock.
const PENDING_BYTES: usize = 8192;
/// Bytes in front of each pending record: id and length.
const PENDING_HEAD_BYTES: usize = 8;

/// The lock and what handlers left behind.
pub(super) struct State {
    /// 0, or a token of the thread that holds the lock.
    owner: Owner,
    /// Bytes of `pending` that are taken. Only the lock's holder and its handlers change it.
    taken: AtomicU32,
    pending: UnsafeCell<[u8; PENDING_BYTES]>,
}

impl State {
    pub(super) fn new() -> State {
        State { owner: Owner::new(0), taken: AtomicU32::new(0), pending: UnsafeCell::new([0; PENDING_BYTES]) }
    }
}

/// The ring's bytes.
struct Bytes(*mut u8);

impl Data for Bytes {
    fn descriptor(&self, offset: usize) -> &Descriptor {
        // SAFETY: `offset` is a multiple of the sub-buffer size inside the ring: a descriptor is there.
        unsafe { &*self.0.add(offset).cast() }
    }

    fn write(&self, offset: usize, header: HeaderForm, short: bool, id: u32, ts: u64, payload: &[u8]) {
        // SAFETY: `steps::attempt` computes `offset` inside the ring, with room for the record and
        // `TAIL_BYTES`; the lock makes this thread the only writer.
        unsafe {
            let at = self.0.add(offset);
            let length = header.write(at, id, ts, short);
            core::ptr::copy_nonoverlapping(payload.as_ptr(), at.add(length), payload.len());
        }
    }
}

impl Producer {
    /// [`Producer::emit`] for a locked ring.
    ///
    /// # Safety
    /// As [`Producer::emit`].
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn emit_locked(
        &self,
        thread: NonZeroUsize,
        id: u32,
        staged: *const u8,
        len: usize,
    ) -> Emit {
        if len > self.payload_bytes_max {
            self.count_lost(0, LostReason::TooLarge);
            return Emit::Lost(LostReason::TooLarge);
        }
        // SAFETY: the caller of `emit` gave `len` readable bytes.
        let payload = unsafe { core::slice::from_raw_parts(staged, len) };
        let token = token(thread);
        for _ in 0..SPINS {
            // Pairs with the Release in `unlock`.
            match self.locked.owner.compare_exchange(0, token, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    let outcome = self.publish(id, payload);
                    return self.unlock(token, outcome);
                }
                Err(owner) if owner == token => return self.leave_pending(id, payload),
                Err(_) => core::hint::spin_loop(),
            }
        }
        self.count_lost(0, LostReason::Contended);
        Emit::Lost(LostReason::Contended)
    }

    /// One record, with the lock held.
    fn publish(&self, id: u32, payload: &[u8]) -> Emit {
        let ring = View {
            geometry: self.geometry(),
            line: self.line(0),
            consumer: self.consumer_line(0),
            active: self.active_byte(0),
            data: Bytes(self.ring(0).wrapping_add(CONTROL_BYTES as usize).cast_mut()),
        };
        match steps::attempt(&ring, self.now_ns(), (self.host.cpu)(), id, payload, || false) {
            Attempt::Published => Emit::Published,
            Attempt::Opened => Emit::Opened,
            Attempt::Full => Emit::Full { cpu: 0 },
            Attempt::Closed => Emit::Closed,
            Attempt::Interrupted => unreachable!("nothing interrupts a locked attempt"),
        }
    }

    /// Publishes what handlers left, gives the lock up, and looks once more: a handler may have come
    /// between the last look and the release.
    fn unlock(&self, token: u32, outcome: Emit) -> Emit {
        let mut outcome = outcome;
        loop {
            if self.drain_pending() {
                outcome = merge(outcome);
            }
            self.locked.owner.store(0, Ordering::Release); // pairs with the Acquire in `emit_locked`
            if self.locked.taken.load(Ordering::Relaxed) == 0 {
                return outcome;
            }
            let again = self.locked.owner.compare_exchange(0, token, Ordering::Acquire, Ordering::Relaxed);
            if again.is_err() {
                return outcome; // the holder drains
            }
        }
    }

    /// In a handler above the lock's holder: keeps the record for that frame.
    fn leave_pending(&self, id: u32, payload: &[u8]) -> Emit {
        let need = (PENDING_HEAD_BYTES + payload.len()).next_multiple_of(8);
        if need > PENDING_BYTES {
            self.count_lost(0, LostReason::Nested);
            return Emit::Lost(LostReason::Nested);
        }
        // One instruction takes the room: a handler above this one goes behind it, and ends before us.
        let start = self.locked.taken.fetch_add(need as u32, Ordering::Relaxed) as usize;
        if start + need > PENDING_BYTES {
            self.locked.taken.fetch_sub(need as u32, Ordering::Relaxed);
            self.count_lost(0, LostReason::Nested);
            return Emit::Lost(LostReason::Nested);
        }
        // SAFETY: [start, start + need) is inside `pending` and belongs to this frame alone: the lock is
        // this thread's, and frames above ours take what lies behind.
        unsafe {
            let at = self.locked.pending.get().cast::<u8>().add(start);
            at.cast::<u32>().write(id);
            at.add(4).cast::<u32>().write(payload.len() as u32);
            core::ptr::copy_nonoverlapping(payload.as_ptr(), at.add(PENDING_HEAD_BYTES), payload.len());
        }
        Emit::Published
    }

    /// With the lock held and no handler running: publishes the pending records in order. True if
    /// one of them opened a sub-buffer.
    fn drain_pending(&self) -> bool {
        let (mut start, mut opened) = (0, false);
        loop {
            let taken = self.locked.taken.load(Ordering::Relaxed) as usize;
            if start >= taken {
                // A handler may add between the load and this: only an unchanged count is reset.
                let reset =
                    self.locked.taken.compare_exchange(taken as u32, 0, Ordering::Relaxed, Ordering::Relaxed);
                match reset {
                    Ok(_) => return opened,
                    Err(_) => continue,
                }
            }
            // SAFETY: below `taken` lie whole records: each handler finished before this frame went on.
            let (id, payload) = unsafe {
                let at = self.locked.pending.get().cast::<u8>().add(start);
                let len = at.add(4).cast::<u32>().read() as usize;
                (at.cast::<u32>().read(), core::slice::from_raw_parts(at.add(PENDING_HEAD_BYTES), len))
            };
            start += (PENDING_HEAD_BYTES + payload.len()).next_multiple_of(8);
            match self.publish(id, payload) {
                Emit::Opened => opened = true,
                Emit::Full { .. } => self.count_lost(0, LostReason::Full),
                _ => {}
            }
        }
    }
}

/// A sub-buffer was opened on the way: the doorbell is due.
fn merge(outcome: Emit) -> Emit {
    if outcome == Emit::Published { Emit::Opened } else { outcome }
}

/// A 32-bit lock token that differs between living threads: their state blocks lie at least 64
/// bytes apart, within a few gigabytes.
fn token(thread: NonZeroUsize) -> u32 {
    ((thread.get() >> 6) as u32) | 1 << 31
}
