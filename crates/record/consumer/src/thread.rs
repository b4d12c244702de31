//! The consumer's thread: one for each user whose programs are recorded.
//!
//! Everything that can wake it is listed in [`Wake`]: the doorbell (rung by producers that filled a
//! sub-buffer and by whoever sends a command), and the timers. It announces its sleep before it looks
//! a last time, so that no ring of the bell is lost; a slow net of one second catches programs that
//! break that protocol.

use crate::clock::monotonic_ns;
use crate::disk::Files;
use crate::feed::{Feed, Progress};
use crate::shared::{DoorbellMemory, futex_wait, futex_wake_all};
use sillage_ring::Cut;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Stack of the thread, bytes.
const STACK_BYTES: usize = 512 << 10;
/// Longest sleep while there are feeds, ns.
const NET_NS: u64 = 1_000_000_000;
/// Longest sleep without feeds, ns.
const IDLE_NS: u64 = 3_600_000_000_000;
/// Rounds over all rings in one cut, at most: a producer that never stops must not hold it up.
const CUT_ROUNDS_MAX: usize = 4096;

/// Reported when something went wrong that the session should keep for the next worker.
pub const TROUBLE_TICKET: u64 = 0;

/// What the session asks for.
pub enum Command {
    /// Serve this feed.
    Add(Box<Feed<Files>>),
    /// Write out everything that these sets hold now, then report the ticket.
    Cut {
        /// The sets.
        sets: Vec<u64>,
        /// What to report.
        ticket: u64,
    },
    /// Write out and forget these sets, then report the ticket.
    Remove {
        /// The sets.
        sets: Vec<u64>,
        /// What to report.
        ticket: u64,
    },
    /// End the thread.
    End,
}

/// Tickets of commands that are done, with a descriptor that becomes readable.
pub struct Finished {
    tickets: Mutex<Vec<u64>>,
    event: OwnedFd,
}

impl Finished {
    /// None so far.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Finished> {
        use rustix::event::EventfdFlags;
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Finished { tickets: Mutex::new(Vec::new()), event })
    }

    /// All tickets since the last call.
    pub fn take(&self) -> Vec<u64> {
        // A count that is not there to be read only means that nothing was reported since.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut self.tickets.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn report(&self, ticket: u64) {
        self.tickets.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(ticket);
        // It can only fail when the count is full, and then the descriptor is readable anyway.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

impl std::os::fd::AsFd for Finished {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.event)
    }
}

struct Shared {
    commands: Mutex<VecDeque<Command>>,
    doorbell: Arc<DoorbellMemory>,
    finished: Arc<Finished>,
}

/// How urgent a consumer's work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// As that of any thread.
    Ordinary,
    /// Ahead of whatever else runs, as far as this process may: what fills these rings never waits.
    Ahead,
}

/// A user's consumer. Its thread ends when this is dropped.
pub struct Consumer {
    shared: Arc<Shared>,
}

impl Consumer {
    /// Starts the thread of the user whose programs ring `doorbell`.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(
        doorbell: Arc<DoorbellMemory>,
        finished: Arc<Finished>,
        urgency: Urgency,
    ) -> io::Result<Consumer> {
        let shared = Arc::new(Shared { commands: Mutex::new(VecDeque::new()), doorbell, finished });
        let for_thread = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("consumer".into()).stack_size(STACK_BYTES);
        builder.spawn(move || {
            if urgency == Urgency::Ahead {
                // Without the right to it the machine's load may cost records, which the rings count.
                let _ = raise_priority();
            }
            Thread { shared: for_thread, feeds: Vec::new() }.run();
        })?;
        Ok(Consumer { shared })
    }

    /// Gives the thread a command.
    pub fn send(&self, command: Command) {
        self.shared.commands.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push_back(command);
        let doorbell = self.shared.doorbell.doorbell();
        doorbell.bell.fetch_add(1, Ordering::Release); // pairs with the Acquire in `sleep`
        futex_wake_all((&raw const doorbell.bell).cast());
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.send(Command::End);
    }
}

/// The nice value of an urgent consumer.
const AHEAD_NICE: i32 = -20;

/// Gives the calling thread the highest ordinary priority. Not a real-time one: a consumer that keeps up
/// with a busy kernel may run all the time, and must leave something to those whom it records.
fn raise_priority() -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, AHEAD_NICE)?)
}

/// True if this process may put consumers ahead of others: by capability, or by the limit on nice values.
pub fn may_be_urgent() -> bool {
    const SYS_NICE: u32 = 23;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nice).current;
    // The limit counts down from 20: 40 stands for -20.
    capabilities >> SYS_NICE & 1 != 0 || limit.is_none_or(|limit| limit >= (20 - AHEAD_NICE) as u64)
}

/// What the thread has to do next.
enum Wake {
    /// A command.
    Command(Command),
    /// Some ring may have full sub-buffers: the bell rang, a read timer or the net ran out.
    Look,
    /// Switch timers ran out.
    Switch,
}

struct Served {
    feed: Feed<Files>,
    next_switch_ns: u64,
    next_read_ns: u64,
}

struct Thread {
    shared: Arc<Shared>,
    feeds: Vec<Served>,
}

/// When a timer with this period runs out next.
fn after(now_ns: u64, period: Duration) -> u64 {
    if period.is_zero() { u64::MAX } else { now_ns.saturating_add(period.as_nanos() as u64) }
}

impl Thread {
    fn run(mut self) {
        loop {
            if self.feeds.iter_mut().any(|served| served.feed.take_news()) {
                self.shared.finished.report(TROUBLE_TICKET);
            }
            match self.next() {
                Wake::Command(Command::Add(feed)) => {
                    let now = monotonic_ns();
                    let service = feed.service();
                    self.feeds.push(Served {
                        feed: *feed,
                        next_switch_ns: after(now, service.switch_timer),
                        next_read_ns: after(now, service.read_timer),
                    });
                }
                Wake::Command(Command::Cut { sets, ticket }) => {
                    self.cut(&sets);
                    self.shared.finished.report(ticket);
                }
                Wake::Command(Command::Remove { sets, ticket }) => {
                    self.cut(&sets);
                    self.feeds.retain(|served| !sets.contains(&served.feed.set_id()));
                    self.shared.finished.report(ticket);
                }
                Wake::Command(Command::End) => return,
                Wake::Look => {
                    // Until nothing is left: a bell that rings meanwhile is answered by the same look.
                    while self.look().packets > 0 && !self.is_asked() {}
                }
                Wake::Switch => self.switch(),
            }
        }
    }

    fn is_asked(&self) -> bool {
        !self.shared.commands.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_empty()
            || self.feeds.iter().any(|served| served.next_switch_ns <= monotonic_ns())
    }

    /// Sleeps until there is something to do.
    fn next(&mut self) -> Wake {
        let command =
            self.shared.commands.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front();
        if let Some(command) = command {
            return Wake::Command(command);
        }
        let now = monotonic_ns();
        if self.feeds.iter().any(|served| served.next_switch_ns <= now) {
            return Wake::Switch;
        }
        self.sleep(now);
        Wake::Look
    }

    /// Sleeps until the bell, a timer or the net, unless there is something to do already.
    fn sleep(&mut self, now_ns: u64) {
        let bell = self.shared.doorbell.doorbell().bell.load(Ordering::Acquire); // pairs with who rings
        self.shared.doorbell.doorbell().sleeping.store(1, Ordering::SeqCst);
        // Either the producer sees that we sleep, or we see what it published.
        fence(Ordering::SeqCst);
        if self.look().packets == 0 && !self.is_asked() {
            let net_ns = if self.feeds.is_empty() { IDLE_NS } else { NET_NS };
            let timers = self.feeds.iter().map(|served| served.next_switch_ns.min(served.next_read_ns));
            let timer_ns = timers.min().unwrap_or(u64::MAX).saturating_sub(now_ns);
            let word = (&raw const self.shared.doorbell.doorbell().bell).cast();
            futex_wait(word, bell, timer_ns.min(net_ns));
        }
        self.shared.doorbell.doorbell().sleeping.store(0, Ordering::Relaxed);
    }

    fn look(&mut self) -> Progress {
        let mut progress = Progress::default();
        let now = monotonic_ns();
        for served in &mut self.feeds {
            let done = served.feed.drain(Cut::Never);
            progress.packets += done.packets;
            progress.more |= done.more;
            if served.next_read_ns <= now {
                served.next_read_ns = after(now, served.feed.service().read_timer);
            }
        }
        progress
    }

    fn switch(&mut self) {
        let now = monotonic_ns();
        for served in &mut self.feeds {
            if served.next_switch_ns <= now {
                served.feed.drain(Cut::Open);
                served.next_switch_ns = after(now, served.feed.service().switch_timer);
            }
        }
    }

    fn cut(&mut self, sets: &[u64]) {
        for served in &mut self.feeds {
            if !sets.contains(&served.feed.set_id()) {
                continue;
            }
            for _ in 0..CUT_ROUNDS_MAX {
                if !served.feed.drain(Cut::Open).more {
                    break;
                }
            }
            served.feed.check_files();
        }
    }
}
