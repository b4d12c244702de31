//! All recipes, one file for each subsystem of the kernel.
//!
//! Names, field order, widths, signs and bases are LTTng's; a test compares them with the list of what
//! the real tracer records.

use crate::recipe::{Field, Recipe, current, s32, text};

mod block;
mod irq;
mod machine;
mod memory;
mod net;
mod sched;
mod services;
mod timer;
mod writeback;

/// The tables.
const TABLES: &[&[Recipe]] = &[
    block::EVENTS,
    irq::EVENTS,
    machine::EVENTS,
    memory::EVENTS,
    net::EVENTS,
    sched::EVENTS,
    services::EVENTS,
    timer::EVENTS,
    writeback::EVENTS,
];

/// The current task in a payload.
const TASK_ID: Field = s32("tid", current("pid"));
const COMM: Field = text("comm", 16, current("comm"));

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
