//! Everything that the running kernel can record but system calls, by LTTng's names.
//!
//! Events with a recipe in the tables come first; tracepoints that no recipe hangs on are listed by what
//! tracefs has of them, under the name that LTTng would give: the kernel's, with the category in front
//! unless it stands there already. A recipe is made when it is asked for.

use crate::format::FormatError;
use crate::kernel::Kernel;
use crate::recipe::{Hook, Recipe};
use crate::{events, sys};
use std::collections::{BTreeMap, HashSet};
use thiserror::Error;

/// Categories of tracefs that are no events of their own: system calls are another kind of
/// instrumentation, and the function tracer's records come from no tracepoint.
const LEFT_OUT: [&str; 3] = ["syscalls", "raw_syscalls", "ftrace"];
/// Most names that an error suggests.
const SUGGESTIONS: usize = 3;

/// Why an event cannot be had.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// No such event.
    #[error("this kernel has no event {name}{}", suggested(.near))]
    Unknown {
        /// The name.
        name: String,
        /// Names that are near to it.
        near: Vec<String>,
    },
    /// Its format is not understood.
    #[error(transparent)]
    Format(#[from] FormatError),
}

fn suggested(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (near names: {})", near.join(", ")) }
}

/// Where an event's recipe comes from.
#[derive(Clone, Debug)]
enum Origin {
    Table(&'static Recipe),
    Format { category: String, name: String },
}

/// The events of the running kernel.
#[derive(Debug)]
pub struct Catalogue {
    events: BTreeMap<String, Origin>,
    tracefs: bool,
}

impl Catalogue {
    /// Looks at the tables, the kernel's types and, as far as it may, at tracefs.
    pub fn of(kernel: &Kernel) -> Catalogue {
        let mut events = BTreeMap::new();
        let mut hooked = HashSet::new();
        for recipe in events::all() {
            if kernel.recipe(&recipe.name).is_some() {
                events.insert(recipe.name.to_string(), Origin::Table(recipe));
            }
            if let Hook::Tracepoint(name) = &recipe.hook {
                hooked.insert(name.as_ref());
            }
        }
        let list = kernel.tracefs().map(|dir| std::fs::read_to_string(dir.join("available_events")));
        let list = list.and_then(Result::ok);
        for (category, name) in list.iter().flat_map(|text| text.lines()).filter_map(|l| l.split_once(':')) {
            if LEFT_OUT.contains(&category) || hooked.contains(name) {
                continue;
            }
            let origin = || Origin::Format { category: category.into(), name: name.into() };
            events.entry(full_name(category, name)).or_insert_with(origin);
        }
        Catalogue { events, tracefs: list.is_some() }
    }

    /// Whether tracefs could be looked into: without it there are only the events of the tables.
    pub fn has_formats(&self) -> bool {
        self.tracefs
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.events.keys().map(String::as_str)
    }

    /// The recipe of an event.
    ///
    /// # Errors
    /// There is none of this name; its format is not understood.
    pub fn recipe(&self, kernel: &Kernel, name: &str) -> Result<Recipe, CatalogueError> {
        match self.events.get(name) {
            Some(Origin::Table(recipe)) => Ok((*recipe).clone()),
            Some(Origin::Format { category, name: record }) => {
                let recipe = kernel.from_format(category, record)?;
                Ok(Recipe { name: name.to_owned().into(), ..recipe })
            }
            None => Err(CatalogueError::Unknown { name: name.into(), near: self.near(name) }),
        }
    }

    /// Names that somebody who typed `name` may have meant, the nearest first.
    fn near(&self, name: &str) -> Vec<String> {
        let most = (name.len() / 3).max(2);
        let mut near: Vec<(usize, &str)> = self
            .names()
            .filter_map(|known| {
                // Part of a name is a start as well.
                let part = name.len() > 3 && known.contains(name);
                let distance = if part { 0 } else { distance(name, known) };
                (distance <= most).then_some((distance, known))
            })
            .collect();
        near.sort_unstable_by_key(|(distance, known)| (*distance, known.len()));
        near.into_iter().take(SUGGESTIONS).map(|(_, known)| known.to_owned()).collect()
    }
}

fn full_name(category: &str, name: &str) -> String {
    let known = name.strip_prefix(category).is_some_and(|rest| rest.starts_with('_'));
    if known { name.into() } else { format!("{category}_{name}") }
}

/// How many letters must change, come or go to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// What is missing for events that are known by their formats alone; None if nothing is.
pub fn missing_formats(catalogue: &Catalogue) -> Option<&'static str> {
    match (catalogue.has_formats(), sys::tracefs_mounted()) {
        (true, _) => None,
        (false, true) => Some(
            "events without a recipe: tracefs may be read by root alone (run the daemon as root, or remount it \
             for the daemon's group: mount -o remount,gid=GROUP,mode=750 /sys/kernel/tracing)",
        ),
        (false, false) => Some(
            "events without a recipe: tracefs is not mounted (mount -t tracefs tracefs /sys/kernel/tracing, as \
             root)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_category_once() {
        assert_eq!(full_name("sched", "sched_switch"), "sched_switch");
        assert_eq!(full_name("irq", "softirq_entry"), "irq_softirq_entry");
        assert_eq!(full_name("net", "netif_rx"), "net_netif_rx");
    }

    #[test]
    fn near_names_are_found() {
        let events = ["sched_switch", "sched_waking", "irq_handler_entry", "block_rq_issue"];
        let origin = Origin::Format { category: String::new(), name: String::new() };
        let events = events.map(|name| (name.to_owned(), origin.clone())).into();
        let catalogue = Catalogue { events, tracefs: true };
        assert_eq!(catalogue.near("sched_swich"), ["sched_switch"]);
        assert_eq!(catalogue.near("handler"), ["irq_handler_entry"]);
        assert_eq!(catalogue.near("zzzzzz"), [""; 0]);
    }
}
