//! Time at the price of the TSC: a page on which the daemon publishes how to turn TSC ticks into
//! CLOCK_MONOTONIC nanoseconds, as a latch of four slots that no one ever waits for.
//!
//! The publisher fills the slot after the current one and then moves the index. A reader takes the
//! index, computes with that slot, and re-reads the index: if it moved meanwhile, once in 100 ms, the
//! reader does it again, for the slot might have been reused. A slot is trusted for `limit_ticks` behind its base (a quarter of a second);
//! beyond it, before it, or with a limit of 0 (no usable TSC) the reader must ask the kernel.
//!
//! Readers may see time step back by some nanoseconds when a slot changes; each ring clamps, so
//! that time in one ring never goes back.

use crate::primitive::{AtomicU64, Ordering, fence};

/// One conversion: ns = `base_ns` + ((tsc − `base_tsc`) × `multiplier` >> 32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// TSC at the base.
    pub base_tsc: u64,
    /// CLOCK_MONOTONIC at the base, ns.
    pub base_ns: u64,
    /// Nanoseconds for each tick, times 2^32.
    pub multiplier: u64,
    /// Ticks for which the slot is good; 0: the TSC is unusable.
    pub limit_ticks: u64,
}

impl Slot {
    /// A slot without a usable TSC.
    pub const UNUSABLE: Slot = Slot { base_tsc: 0, base_ns: 0, multiplier: 0, limit_ticks: 0 };
    /// How long a slot is trusted, ns.
    pub const TRUSTED_NS: u64 = 250_000_000;

    /// The slot that continues from the pair `now` = (TSC, ns) at the rate measured since `before`.
    /// None: the pairs do not describe a steady clock (equal, backwards, or an absurd rate).
    pub fn from_pairs(before: (u64, u64), now: (u64, u64)) -> Option<Slot> {
        let ticks = now.0.checked_sub(before.0).filter(|t| *t > 0)?;
        let ns = now.1.checked_sub(before.1).filter(|n| *n > 0)?;
        let multiplier = ((u128::from(ns) << 32) / u128::from(ticks)) as u64;
        // From 0.1 to 100 GHz; it also keeps ticks × multiplier inside 64 bits within the limit.
        if !(1 << 25..1 << 36).contains(&multiplier) {
            return None;
        }
        let limit_ticks = ((u128::from(Slot::TRUSTED_NS) << 32) / u128::from(multiplier)) as u64;
        Some(Slot { base_tsc: now.0, base_ns: now.1, multiplier, limit_ticks })
    }

    /// The time at `tsc`, if the slot is good for it.
    pub fn convert(&self, tsc: u64) -> Option<u64> {
        let ticks = tsc.wrapping_sub(self.base_tsc);
        (ticks < self.limit_ticks)
            .then(|| self.base_ns.wrapping_add(ticks.wrapping_mul(self.multiplier) >> 32))
    }
}

#[repr(C)]
pub(crate) struct SharedSlot {
    pub(crate) base_tsc: AtomicU64,
    pub(crate) base_ns: AtomicU64,
    pub(crate) multiplier: AtomicU64,
    pub(crate) limit_ticks: AtomicU64,
}

/// Slots of the latch.
pub(crate) const SLOTS: u64 = 4;
/// The index counts in bytes of a slot, so that producers need no shift.
pub(crate) const INDEX_STEP: u64 = size_of::<SharedSlot>() as u64;

fn place(index: u64) -> usize {
    (index / INDEX_STEP % SLOTS) as usize
}

/// The page. All zero is a valid page that says "ask the kernel".
#[repr(C, align(64))]
pub struct ClockPage {
    pub(crate) index: AtomicU64,
    _reserved: [u64; 7],
    pub(crate) slots: [SharedSlot; SLOTS as usize],
}

impl ClockPage {
    /// Publishes a slot. Only one thread of one process may publish.
    pub fn publish(&self, slot: Slot) {
        let next = self.index.load(Ordering::Relaxed).wrapping_add(INDEX_STEP);
        let place = &self.slots[place(next)];
        // The limit goes first to 0, so that a publisher killed half way leaves a slot that, should
        // the index reach it, sends readers to the kernel instead of to a wrong time.
        place.limit_ticks.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        place.base_tsc.store(slot.base_tsc, Ordering::Relaxed);
        place.base_ns.store(slot.base_ns, Ordering::Relaxed);
        place.multiplier.store(slot.multiplier, Ordering::Relaxed);
        place.limit_ticks.store(slot.limit_ticks, Ordering::Relaxed);
        self.index.store(next, Ordering::Release); // pairs with the Acquire in `read`
    }

    /// Nanoseconds now, by a TSC that `tsc` reads. None: ask the kernel.
    pub fn read(&self, tsc: impl Fn() -> u64) -> Option<u64> {
        loop {
            let index = self.index.load(Ordering::Acquire); // pairs with the Release in `publish`
            let place = &self.slots[place(index)];
            let slot = Slot {
                base_tsc: place.base_tsc.load(Ordering::Relaxed),
                base_ns: place.base_ns.load(Ordering::Relaxed),
                multiplier: place.multiplier.load(Ordering::Relaxed),
                limit_ticks: place.limit_ticks.load(Ordering::Relaxed),
            };
            let time = slot.convert(tsc());
            fence(Ordering::Acquire);
            if self.index.load(Ordering::Relaxed) == index {
                return time;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::cell::Cell;

    fn page() -> alloc::boxed::Box<ClockPage> {
        // SAFETY: a page of zeroes is a valid page: all its fields are atomics of integers.
        unsafe { alloc::boxed::Box::new(core::mem::zeroed()) }
    }

    #[test]
    fn a_page_converts_within_its_limit_and_refuses_outside() {
        let page = page();
        assert_eq!(page.read(|| 5), None, "an empty page knows no time");
        let slot = Slot::from_pairs((0, 1_000), (2_600_000, 1_001_000)).unwrap();
        page.publish(slot);
        assert_eq!(page.read(|| 2_600_000), Some(1_001_000));
        let half = page.read(|| 2_600_000 + 1_300_000).unwrap();
        assert!(half.abs_diff(1_501_000) <= 1, "{half}");
        assert_eq!(page.read(|| 2_599_999), None, "before the base");
        assert_eq!(page.read(|| 2_600_000 + 2_600 * 250_001), None, "a stale page is not trusted");
        page.publish(Slot::UNUSABLE);
        assert_eq!(page.read(|| 2_600_001), None);
    }

    #[test]
    fn a_slot_that_is_reused_while_it_is_read_is_read_again() {
        let page = page();
        let slot = |base_ns| Slot { base_tsc: 0, base_ns, multiplier: 1 << 32, limit_ticks: 1000 };
        page.publish(slot(100));
        let reads = Cell::new(0);
        let time = page.read(|| {
            reads.set(reads.get() + 1);
            if reads.get() == 1 {
                (1..=4).for_each(|k| page.publish(slot(100 * k + 100)));
            }
            0
        });
        assert_eq!((time, reads.get()), (Some(500), 2));
    }

    #[test]
    fn absurd_rates_are_refused() {
        assert_eq!(Slot::from_pairs((10, 10), (10, 20)), None);
        assert_eq!(Slot::from_pairs((10, 10), (20, 10)), None);
        assert_eq!(Slot::from_pairs((20, 10), (10, 20)), None);
        assert_eq!(Slot::from_pairs((0, 0), (1, 1_000_000)), None);
        assert_eq!(Slot::from_pairs((0, 0), (1_000_000_000, 1)), None);
    }
}
