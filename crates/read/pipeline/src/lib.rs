//! Sources, filters and sinks of trace events: Babeltrace's job.
//!
//! Everything speaks [`Messages`]: a source is one, a filter takes one and is one, a sink takes
//! one. No whole trace is ever held in memory.
//!
//! ```no_run
//! # fn main() -> Result<(), sillage_pipeline::Error> {
//! use sillage_pipeline::Messages;
//! let mut messages = sillage_pipeline::open("lttng-traces/auto-1")?.messages();
//! while let Some(event) = messages.next_event()? {
//!     println!("{} {:?}", event.name(), event.field("fd").and_then(|fd| fd.as_i64()));
//! }
//! # Ok(())
//! # }
//! ```

mod error;
mod messages;
mod warning;

pub mod filters;
pub mod sinks;
pub mod sources;

pub use error::Error;
pub use messages::{Messages, Run, Status, TakesRuns};
pub use sillage_ctf as ctf;
pub use sources::{open, open_all};
pub use warning::{Oddity, Warning};
