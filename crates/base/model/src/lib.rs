//! The vocabulary that every room shares: event names and patterns, field types, log levels,
//! channel settings, event rules, limits.
//!
//! Guarantee: pure values and pure functions; what two rooms must agree on is decided here once.
//! It is `no_std` (with `alloc`), because the in-process tracer speaks it too. It does no I/O and
//! knows neither files nor sockets nor how anything is recorded.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod channel;
pub mod domain;
pub mod field;
pub mod limits;
pub mod loglevel;
pub mod pattern;
pub mod rule;
pub mod size;
pub mod tracepoint;
pub mod track;

pub use channel::{BlockingTimeout, ChannelSettings, LossMode};
pub use domain::Domain;
pub use field::{Encoding, EnumEntry, EnumValue, Field, FieldType, FloatType, IntegerType};
pub use loglevel::LogLevel;
pub use pattern::Pattern;
pub use rule::{EventRule, Instrumentation, LogLevelRule};
pub use tracepoint::Tracepoint;
pub use track::{Named, ProcessAttribute, Tracked};
