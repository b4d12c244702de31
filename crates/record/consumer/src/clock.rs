//! The clock page's publisher: while a session is active it measures TSC against CLOCK_MONOTONIC
//! every 100 ms and publishes how to convert.
//!
//! A pair is the tightest of eight tries. The rate comes from pairs up to half a second apart, so
//! that a slewed clock is followed and the error of a pair does not matter. Another clocksource than
//! `tsc` publishes "unusable", and a rate that jumps (suspend, a stopped virtual machine) starts the
//! measurement anew; in both cases programs ask the kernel meanwhile.

use crate::shared::ClockMemory;
use sillage_ring::Slot;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Between two publications.
const PERIOD: Duration = Duration::from_millis(100);
/// Between the first pair and the first publication.
const FIRST: Duration = Duration::from_millis(20);
/// Pairs that are remembered: the rate is measured over that many periods.
const PAIRS: usize = 6;
/// Tries for one pair.
const TRIES: usize = 8;
/// A rate that differs by more than this from the last one (parts of 2^20, about 1000 ppm) is a jump.
const JUMP_SHIFT: u32 = 10;
const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// Stack of the thread, bytes.
const STACK_BYTES: usize = 64 << 10;

#[derive(Default)]
struct State {
    active: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Wanted {
    #[default]
    Idle,
    Active,
    End,
}

/// The publisher's thread. It ends when this is dropped.
pub struct ClockPublisher {
    state: Arc<State>,
}

impl ClockPublisher {
    /// Starts the thread, idle.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(memory: Arc<ClockMemory>) -> io::Result<ClockPublisher> {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let builder = std::thread::Builder::new().name("clock".into()).stack_size(STACK_BYTES);
        builder.spawn(move || run(&shared, &memory))?;
        Ok(ClockPublisher { state })
    }

    /// Publishes while `active`.
    pub fn set_active(&self, active: bool) {
        self.want(if active { Wanted::Active } else { Wanted::Idle });
    }

    fn want(&self, wanted: Wanted) {
        *self.state.active.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = wanted;
        self.state.changed.notify_all();
    }
}

impl Drop for ClockPublisher {
    fn drop(&mut self) {
        self.want(Wanted::End);
    }
}

fn run(state: &State, memory: &ClockMemory) {
    let source = File::open(CLOCKSOURCE).ok();
    let mut rate = Rate::default();
    let mut wanted = state.active.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        match *wanted {
            Wanted::End => return,
            Wanted::Idle => {
                rate = Rate::default();
                wanted = state.changed.wait(wanted).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            Wanted::Active => {
                let slot = if source.as_ref().is_some_and(is_tsc) { rate.slot(measure()) } else { None };
                memory.page().publish(slot.unwrap_or(Slot::UNUSABLE));
                let pause = if rate.pairs.len() == 1 { FIRST } else { PERIOD };
                let waited = state.changed.wait_timeout(wanted, pause);
                wanted = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            }
        }
    }
}

/// The pairs so far, newest last, and the last rate.
#[derive(Default)]
struct Rate {
    pairs: VecDeque<(u64, u64)>,
    multiplier: Option<u64>,
}

impl Rate {
    /// The slot that `pair` makes possible; None: not enough is known yet.
    fn slot(&mut self, pair: (u64, u64)) -> Option<Slot> {
        let slot = self.pairs.front().and_then(|first| Slot::from_pairs(*first, pair));
        let steady = match (slot, self.multiplier) {
            (Some(slot), Some(before)) => slot.multiplier.abs_diff(before) < before >> JUMP_SHIFT,
            (Some(_), None) => true,
            (None, _) => self.pairs.is_empty(),
        };
        if !steady {
            *self = Rate::default();
        }
        self.multiplier = slot.filter(|_| steady).map(|slot| slot.multiplier).or(self.multiplier);
        self.pairs.push_back(pair);
        if self.pairs.len() > PAIRS {
            self.pairs.pop_front();
        }
        slot.filter(|_| steady)
    }
}

fn is_tsc(file: &File) -> bool {
    let mut name = [0; 8];
    matches!(file.read_at(&mut name, 0), Ok(n) if name[..n].trim_ascii_end() == b"tsc")
}

/// CLOCK_MONOTONIC now, ns.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// TSC and CLOCK_MONOTONIC at one time, as nearly as eight tries can tell.
#[cfg(target_arch = "x86_64")]
fn measure() -> (u64, u64) {
    // SAFETY: every x86-64 machine has both instructions.
    let tsc = || unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    };
    let attempt = || {
        let before = tsc();
        let ns = monotonic_ns();
        let after = tsc();
        (after.wrapping_sub(before), (before + after.wrapping_sub(before) / 2, ns))
    };
    (0..TRIES).map(|_| attempt()).min_by_key(|(window, _)| *window).map_or((0, 0), |(_, pair)| pair)
}

/// No TSC: equal pairs never make a slot, and programs ask the kernel.
#[cfg(not(target_arch = "x86_64"))]
fn measure() -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_pairs_and_starts_anew_after_a_jump() {
        let mut rate = Rate::default();
        let at = |ms: u64| (ms * 2_600_000, 5_000_000_000 + ms * 1_000_000);
        assert_eq!(rate.slot(at(0)), None);
        let slot = rate.slot(at(100)).unwrap();
        assert!(slot.convert(at(150).0).unwrap().abs_diff(at(150).1) <= 1);
        assert!(rate.slot(at(200)).is_some());
        // The machine slept: the TSC ran on for a minute, the clock did not.
        let slept = (at(200).0 + 60_000 * 2_600_000, at(210).1);
        assert_eq!(rate.slot(slept), None);
        let later = (slept.0 + 260_000_000, slept.1 + 100_000_000);
        assert!(rate.slot(later).is_some(), "a new measurement begins with the jump");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_published_time_is_the_kernels() {
        let Ok(source) = File::open(CLOCKSOURCE) else { return };
        if !is_tsc(&source) {
            eprintln!("SKIPPED: the clocksource of this machine is not tsc");
            return;
        }
        let memory = Arc::new(ClockMemory::create().unwrap());
        let publisher = ClockPublisher::start(Arc::clone(&memory)).unwrap();
        publisher.set_active(true);
        let read = || {
            // SAFETY: every x86-64 machine has the instruction.
            memory.page().read(|| unsafe { core::arch::x86_64::_rdtsc() })
        };
        let deadline = monotonic_ns() + 5_000_000_000;
        let (before, ours, after) = loop {
            let sample = (monotonic_ns(), read(), monotonic_ns());
            if let (before, Some(ours), after) = sample {
                break (before, ours, after);
            }
            assert!(monotonic_ns() < deadline, "nothing was published");
            std::thread::yield_now();
        };
        let slack = 20_000;
        assert!(before - slack <= ours && ours <= after + slack, "{before} {ours} {after}");
    }
}
