//! What is known to be wrong in the traces of certain tracers, by their environment.

use sillage_ctf::model::TraceClass;

/// The corrections that a trace needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// Events may come after the end time of their packet (LTTng before 2.11).
    pub event_after_packet: bool,
    /// The first event may come before the beginning of its packet (barectf before 2.3.1).
    pub event_before_packet: bool,
    /// An end time of 0 means that it was never written (LTTng, after a crash).
    pub crash_end: bool,
}

impl Quirks {
    /// The corrections for the tracer that the environment names.
    pub fn of(class: &TraceClass) -> Self {
        let (Some(name), Some(major)) = (class.env_text("tracer_name"), class.env_int("tracer_major")) else {
            return Self::default();
        };
        let minor = class.env_int("tracer_minor").unwrap_or(0);
        let patch = class.env_int("tracer_patch").or_else(|| class.env_int("tracer_patchlevel")).unwrap_or(0);
        let version = (major, minor, patch);
        match name {
            "lttng-ust" => {
                Self { event_after_packet: version < (2, 11, 0), crash_end: true, ..Self::default() }
            }
            "lttng-modules" => Self {
                event_after_packet: version < (2, 9, 13) || ((2, 10, 0)..(2, 10, 10)).contains(&version),
                crash_end: true,
                ..Self::default()
            },
            "barectf" => Self { event_before_packet: version < (2, 3, 1), ..Self::default() },
            _ => Self::default(),
        }
    }
}
