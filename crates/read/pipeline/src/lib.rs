//! Sources, filters and sinks of trace events: Babeltrace's job.
//!
//! Everything speaks [`Messages`]: a source is one, a filter takes one and is one, a sink takes
//! one. No whole trace is ever held in memory.

mod error;
mod messages;

pub mod sinks;

pub use error::Error;
pub use messages::{Messages, Status};
pub use sillage_ctf as ctf;
