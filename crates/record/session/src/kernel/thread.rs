//! The thread that attaches and detaches kernel programs: that takes about a millisecond for each event,
//! for which the loop over the sockets must not stand still.
//!
//! It is told what to record as programs are: channel by channel, the whole list each time; and it
//! confirms as programs do. What it attached ends with it.

use crate::limits::KERNEL_LOOK_PERIOD;
use rustix::event::EventfdFlags;
use sillage_tracer_kernel::{Catalogue, Channel, Field, Kernel, guard};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};

/// An event that a channel is to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// LTTng's name of it.
    pub(crate) name: Arc<str>,
    /// Its number in the channel's records.
    pub(crate) event_id: u32,
}

/// What the thread is told.
pub(crate) enum Order {
    /// A new channel, which records nothing yet.
    Add {
        /// The daemon's number of it.
        channel_id: u64,
        /// The channel.
        channel: Box<Channel>,
        /// Fields in front of every event's.
        contexts: Vec<Field>,
        /// What this process itself does is recorded too.
        include_self: bool,
        /// Where its losses outside of rings are shown.
        lost: Arc<AtomicU64>,
    },
    /// What a channel records from now on.
    Events {
        /// Which.
        channel_id: u64,
        /// All of it.
        events: Vec<Wanted>,
    },
    /// A channel is gone.
    Remove {
        /// Which.
        channel_id: u64,
    },
    /// Report when everything up to here is done.
    Sync {
        /// What to report.
        sequence: u64,
    },
}

/// What the thread says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Everything up to this is done.
    Synced {
        /// See [`Order::Sync`].
        sequence: u64,
    },
    /// An event is not recorded.
    Trouble {
        /// In which channel.
        channel_id: u64,
        /// Why.
        text: String,
    },
}

/// Reports, with a descriptor that is readable when there are some.
pub(crate) struct Mailbox {
    reports: Mutex<Vec<Report>>,
    event: OwnedFd,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Mailbox> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Mailbox { reports: Mutex::default(), event })
    }

    /// All reports since the last call.
    pub(crate) fn take(&self) -> Vec<Report> {
        // A count that is not there to be read only means that nothing was reported since.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut self.reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn post(&self, report: Report) {
        self.reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(report);
        // It can only fail when the count is full, and then the descriptor is readable anyway.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

struct Recording {
    channel: Box<Channel>,
    contexts: Vec<Field>,
    include_self: bool,
    lost: Arc<AtomicU64>,
    events: Vec<Wanted>,
}

/// What the thread has.
pub(crate) struct Thread {
    kernel: Arc<Kernel>,
    catalogue: Arc<Catalogue>,
    mailbox: Arc<Mailbox>,
    recordings: BTreeMap<u64, Recording>,
}

impl Thread {
    pub(crate) fn new(kernel: Arc<Kernel>, catalogue: Arc<Catalogue>, mailbox: Arc<Mailbox>) -> Thread {
        Thread { kernel, catalogue, mailbox, recordings: BTreeMap::new() }
    }

    /// Does what it is told until nobody tells it anything any more.
    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let is_recording = self.recordings.values().any(|recording| !recording.events.is_empty());
            let order = match is_recording {
                true => orders.recv_timeout(KERNEL_LOOK_PERIOD),
                false => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => self.count_losses(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Add { channel_id, channel, contexts, include_self, lost } => {
                let recording = Recording { channel, contexts, include_self, lost, events: Vec::new() };
                self.recordings.insert(channel_id, recording);
            }
            Order::Events { channel_id, events } => self.record(channel_id, events),
            Order::Remove { channel_id } => drop(self.recordings.remove(&channel_id)),
            Order::Sync { sequence } => {
                self.count_losses();
                self.mailbox.post(Report::Synced { sequence });
            }
        }
    }

    fn record(&mut self, channel_id: u64, events: Vec<Wanted>) {
        let Thread { kernel, catalogue, mailbox, .. } = self;
        let Some(recording) = self.recordings.get_mut(&channel_id) else { return };
        let trouble = |text| mailbox.post(Report::Trouble { channel_id, text });
        if events.is_empty() {
            // The last cut must not come before the last record.
            if let Err(error) = recording.channel.stop() {
                trouble(error.to_string());
            }
        }
        let gone = recording.events.iter().filter(|event| !events.contains(event));
        let gone: Vec<u32> = gone.map(|event| event.event_id).collect();
        gone.into_iter().for_each(|event_id| recording.channel.disable(event_id));
        let not_us = guard::not_of(std::process::id());
        for event in events.iter().filter(|event| !recording.events.contains(event)) {
            let guards: &[sillage_tracer_kernel::program::Guard<'_>] =
                if recording.include_self { &[] } else { &[&not_us] };
            let done =
                catalogue.recipe(kernel, &event.name).map_err(|error| error.to_string()).and_then(|recipe| {
                    let enabled =
                        recording.channel.enable(&recipe, event.event_id, &recording.contexts, guards);
                    enabled.map_err(|error| error.to_string())
                });
            if let Err(text) = done {
                trouble(format!("event {} is not recorded: {text}", event.name));
            }
        }
        recording.events = events;
    }

    fn count_losses(&self) {
        for recording in self.recordings.values() {
            let loss = recording.channel.loss();
            recording.lost.store(loss.absent + loss.recursion, Ordering::Relaxed);
        }
    }
}
