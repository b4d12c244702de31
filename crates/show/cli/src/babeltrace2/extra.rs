//! Component classes that are not about files: live sessions, kernel messages, debug information.

use anyhow::{Result, bail};
use sillage_pipeline::Messages;

use super::graph::Component;

/// What flows out of such a component; `upstream` gives what flows into it.
///
/// # Errors
/// A class that does not exist, parameters, or whatever opening it says.
pub fn output_of(
    component: &Component,
    upstream: impl FnOnce() -> Result<Box<dyn Messages>>,
) -> Result<Box<dyn Messages>> {
    let _ = upstream;
    let class = &component.class;
    bail!("component class `{}.{}` is not available in this build", class.plugin, class.class)
}
