//! A channel of the back end tracefs, as the tracer's thread holds it: told the whole list each time, as
//! the others are.

use super::thread::Wanted;
use sillage_tracer_kernel::filters::FilterRefusal;
use sillage_tracer_kernel::tracefs::{Recorder, Sieve};
use sillage_tracer_kernel::trackers::Followed;
use sillage_tracer_kernel::{Catalogue, Field, Recipe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One channel.
pub(super) struct Transcoded {
    recorder: Box<Recorder>,
    contexts: Vec<Field>,
    events: Vec<Wanted>,
    /// Where its losses outside of rings are shown.
    lost: Arc<AtomicU64>,
}

impl Transcoded {
    /// A channel that records nothing yet.
    pub(super) fn new(recorder: Box<Recorder>, contexts: Vec<Field>, lost: Arc<AtomicU64>) -> Transcoded {
        Transcoded { recorder, contexts, events: Vec::new(), lost }
    }

    /// True if it records anything.
    pub(super) fn is_recording(&self) -> bool {
        !self.events.is_empty()
    }

    /// Follows these from now on.
    pub(super) fn follow(&mut self, followed: &Followed, trouble: impl Fn(String)) {
        let done = self.recorder.follow(followed);
        done.unwrap_or_else(|error| trouble(format!("whom the session follows did not change: {error}")));
    }

    /// CPUs that are online and have no ring.
    pub(super) fn without_ring(&self) -> Vec<u32> {
        self.recorder.without_ring()
    }

    /// Goes on with a CPU that has a ring now.
    pub(super) fn add_ring(&mut self, cpu: u32) -> Result<(), String> {
        self.recorder.add_ring(cpu).map_err(|error| error.to_string())
    }

    /// Records these events from now on.
    pub(super) fn record(&mut self, catalogue: &Catalogue, events: Vec<Wanted>, trouble: impl Fn(String)) {
        if events.is_empty() {
            // The last cut must not come before the last record.
            match self.recorder.stop() {
                Ok(lost) => drop(self.lost.fetch_add(lost, Ordering::Relaxed)),
                Err(error) => trouble(error.to_string()),
            }
        }
        for gone in self.events.iter().filter(|event| !events.contains(event)) {
            self.recorder.disable(gone.event_id).unwrap_or_else(|error| trouble(error.to_string()));
        }
        let new = events.iter().filter(|event| !self.events.contains(event));
        let (dumped, recorded): (Vec<_>, Vec<_>) = new.partition(|event| catalogue.is_dumped(&event.name));
        for event in recorded {
            let recipe = catalogue.recipe(self.recorder.kernel(), &event.name);
            let enabled = recipe.map_err(|error| error.to_string()).and_then(|recipe| {
                let Some(sieve) = sieve(&recipe, &event.filters)? else { return Ok(()) };
                let enabled = self.recorder.enable(&recipe, event.event_id, &self.contexts, sieve);
                enabled.map_err(|error| error.to_string())
            });
            if let Err(text) = enabled {
                trouble(format!("event {} is not recorded: {text}", event.name));
            }
        }
        if !dumped.is_empty() {
            let id_of = |name: &str| dumped.iter().find(|e| &*e.name == name).map(|e| e.event_id);
            let made = self.recorder.dump(&self.contexts, id_of);
            made.unwrap_or_else(|error| trouble(format!("state dump: {error}")));
        }
        self.events = events;
    }
}

/// The sieve of an event's filters; None if no record of it could pass.
fn sieve(recipe: &Recipe, filters: &[Arc<str>]) -> Result<Option<Sieve>, String> {
    let (mut sieve, mut passable) = (Sieve::default(), filters.is_empty());
    for text in filters {
        match sieve.add(recipe, text) {
            Ok(()) => passable = true,
            // What an event has not is not so, as with LTTng.
            Err(FilterRefusal::Missing { .. }) => {}
            Err(refusal) => return Err(format!("filter '{text}': {refusal}")),
        }
    }
    Ok(passable.then_some(sieve))
}
