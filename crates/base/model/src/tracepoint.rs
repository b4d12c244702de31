//! A tracepoint as a program declares it.

use crate::{Field, LogLevel};
use alloc::{string::String, vec::Vec};

/// What the daemon must know of a tracepoint to match rules and to write its event class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tracepoint {
    /// `provider:name`.
    pub name: String,
    /// Its log level.
    pub loglevel: LogLevel,
    /// `model.emf.uri`, if the provider gives one.
    pub emf_uri: Option<String>,
    /// Written fields in record order (the hidden length fields of sequences included).
    pub fields: Vec<Field>,
}
