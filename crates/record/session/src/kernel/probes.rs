//! Probes of rules, and what was found of each in its file.
//!
//! A file that is replaced while it is probed is looked at again: programs that are started from then on
//! run the new one. One that is gone keeps what was found of it, for those who still run it.

use crate::model::Channel;
use sillage_model::Instrumentation;
use sillage_tracer_kernel::probes::{Identity, Probe, ProbeError, ProbeEvent, Probed};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

type Events = Vec<Arc<ProbeEvent>>;

/// Versions of a file that are probed at a time: somebody may still run an old one.
const VERSIONS_MAX: usize = 8;

/// What was found, by probe and the rule's name: for each version of the file, the newest last.
#[derive(Default)]
pub(super) struct Probes {
    found: HashMap<(Probe, String), Vec<Events>>,
}

fn file(events: &Events) -> Option<&Probed> {
    events.first()?.file.as_ref()
}

/// True if the file that was looked at is still the one of its name.
fn is_current(events: &Events) -> bool {
    file(events).is_none_or(|file| Identity::of(&file.path).is_ok_and(|now| now == file.identity))
}

impl Probes {
    /// The events of a probe, in its file as it is now and in those that had its name before.
    ///
    /// # Errors
    /// There is no such place, and never was.
    pub(super) fn find(&mut self, probe: &Probe, name: &str) -> Result<Events, ProbeError> {
        let versions = match self.found.entry((probe.clone(), name.into())) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(vec![probe.events(name)?]),
        };
        if let Some(newest) = versions.last()
            && !is_current(newest)
            && let Ok(events) = probe.events(name)
        {
            // What was written into the same file has taken the older version's place.
            let identity = |events: &Events| file(events).map(|file| file.identity);
            let stays = |old: &Events| match (identity(old), identity(&events)) {
                (Some(old), Some(new)) => old.is_another_file(&new),
                _ => false,
            };
            versions.retain(stays);
            versions.push(events);
            let surplus = versions.len().saturating_sub(VERSIONS_MAX);
            versions.drain(..surplus);
        }
        Ok(versions.iter().flatten().cloned().collect())
    }

    /// What there is to say of a probe whose file is not what it was and has no such place.
    pub(super) fn gone(&self, probe: &Probe, name: &str) -> Option<String> {
        let newest = self.found.get(&(probe.clone(), name.into()))?.last()?;
        let why = (!is_current(newest)).then(|| probe.events(name).err())??;
        Some(format!("event {name}: only programs that run already are probed: {why}"))
    }
}

/// The probe that a rule of this kind asks for.
pub(super) fn probe_of(instrumentation: &Instrumentation) -> Option<Probe> {
    Some(match instrumentation {
        Instrumentation::Tracepoint | Instrumentation::Syscall => return None,
        Instrumentation::Probe(place) => Probe::Kernel(place.clone()),
        Instrumentation::Function(place) => Probe::KernelFunction(place.clone()),
        Instrumentation::UserspaceProbe(place) => Probe::User(place.clone()),
        Instrumentation::UserspaceFunction(place) => Probe::UserFunction(place.clone()),
    })
}

/// The probes of a channel's rules, with the rules' names.
pub(super) fn probes(channel: &Channel) -> impl Iterator<Item = (&str, Probe)> {
    let rules = channel.rules.iter().filter(|rule| rule.enabled && channel.enabled);
    rules.filter_map(|rule| Some((rule.pattern.as_str(), probe_of(&rule.instrumentation)?)))
}
