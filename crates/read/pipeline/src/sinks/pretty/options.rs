//! What the text says and how: the choices of `sink.text.pretty`.

use crate::sinks::Zone;

/// How times are shown.
#[derive(Debug, Clone)]
pub enum ClockFormat {
    /// `HH:MM:SS.nnnnnnnnn`.
    TimeOfDay {
        /// Which time of day.
        zone: Zone,
        /// `YYYY-MM-DD ` in front.
        with_date: bool,
    },
    /// `SEC.nnnnnnnnn` from the origin.
    Seconds,
    /// The raw clock value in 20 digits.
    Cycles,
}

/// Which names are shown in front of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// Of the fields of the payload.
    pub payload: bool,
    /// Of the fields of the contexts.
    pub context: bool,
    /// Of the scopes, such as `event.fields`.
    pub scope: bool,
    /// Of what stands before the event's name.
    pub header: bool,
}

/// What is shown before the event's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Headings {
    pub trace: bool,
    pub hostname: bool,
    pub domain: bool,
    pub procname: bool,
    pub vpid: bool,
    pub log_level: bool,
    pub emf_uri: bool,
}

/// How an enumeration with several labels for its value is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As Babeltrace 2.0 for CTF 1.8 traces, as 2.1 for CTF 2 traces.
    ByTrace,
    /// As Babeltrace 2.0: `( "A", "B" : container = 3 )`.
    V2_0,
    /// As Babeltrace 2.1: `( { "A", "B" } : container = 3 )`.
    V2_1,
}

/// How times before 1970 are shown as a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NegativeTimes {
    /// As `-SEC.nnnnnnnnn`, always.
    Seconds,
    /// As Babeltrace 2.0.4: the first as `-SEC.nnnnnnnnn`, the others as the time of day of their
    /// absolute value (which is wrong, but is what its users compare with).
    AsBabeltrace,
}

/// All choices.
#[derive(Debug, Clone)]
pub struct Options {
    /// How times are shown.
    pub clock: ClockFormat,
    /// Show the time since the event before.
    pub delta: bool,
    /// Which names are shown.
    pub names: Names,
    /// What is shown before the event's name.
    pub headings: Headings,
    /// Colours of the terminal.
    pub color: bool,
    /// Show an enumeration value without a mapping of its own as the flags that it is made of.
    pub enum_flags: bool,
    /// Whose habits.
    pub dialect: Dialect,
    /// Times before 1970.
    pub negative_times: NegativeTimes,
}

impl Default for Options {
    /// Babeltrace's defaults, in the local time zone.
    fn default() -> Self {
        Self {
            clock: ClockFormat::TimeOfDay { zone: Zone::local(), with_date: false },
            delta: true,
            names: Names { payload: true, context: true, scope: false, header: false },
            headings: Headings {
                trace: false,
                hostname: true,
                domain: false,
                procname: true,
                vpid: true,
                log_level: false,
                emf_uri: false,
            },
            color: false,
            enum_flags: false,
            dialect: Dialect::ByTrace,
            negative_times: NegativeTimes::Seconds,
        }
    }
}
