//! All recipes, one file for each subsystem of the kernel.
//!
//! Names, field order, widths, signs and bases are LTTng's; a test compares them with the list of what
//! the real tracer records.

use crate::recipe::Recipe;

mod irq;
mod sched;

/// The tables.
const TABLES: &[&[Recipe]] = &[irq::EVENTS, sched::EVENTS];

/// Every recipe that there is. Whether the running kernel has its tracepoint is another question.
pub fn all() -> impl Iterator<Item = &'static Recipe> {
    TABLES.iter().copied().flatten()
}

/// The recipe of an event by LTTng's name of it.
pub fn find(name: &str) -> Option<&'static Recipe> {
    all().find(|recipe| recipe.name == name)
}

#[cfg(test)]
mod tests;
