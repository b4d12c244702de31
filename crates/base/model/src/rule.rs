//! Event rules: what a channel records.

use crate::{LogLevel, Pattern, Tracepoint};
use alloc::{string::String, vec::Vec};

/// Which log levels a rule takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogLevelRule {
    /// All of them.
    Any,
    /// This one and the more severe ones (`--loglevel`).
    AtLeast(LogLevel),
    /// This one alone (`--loglevel-only`).
    Only(LogLevel),
}

impl LogLevelRule {
    /// True if an event of this level passes.
    pub fn takes(self, level: LogLevel) -> bool {
        match self {
            LogLevelRule::Any => true,
            LogLevelRule::AtLeast(least) => level <= least,
            LogLevelRule::Only(only) => level == only,
        }
    }
}

/// What kind of instrumentation a rule takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instrumentation {
    /// Tracepoints, by name.
    Tracepoint,
    /// System calls, by name: entry and exit (kernel).
    Syscall,
    /// One place in the kernel's code, `SYMBOL[+OFFSET]` or an address; the pattern names the event.
    Probe(String),
    /// Entry and return of a function of the kernel.
    Function(String),
    /// One place in a program's code, `[elf:]PATH:SYMBOL` or `sdt:PATH:PROVIDER:NAME`.
    UserspaceProbe(String),
    /// Entry and return of a function of a program, `[elf:]PATH:SYMBOL` (not LTTng's).
    UserspaceFunction(String),
}

/// One event rule of a channel. Two rules are the same rule when all but `enabled` is equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventRule {
    /// What it is about.
    pub instrumentation: Instrumentation,
    /// Names it takes.
    pub pattern: Pattern,
    /// Names it leaves out.
    pub exclusions: Vec<Pattern>,
    /// Log levels it takes.
    pub loglevel: LogLevelRule,
    /// Filter expression that events must pass.
    pub filter: Option<String>,
    /// Disabled rules match nothing.
    pub enabled: bool,
}

impl EventRule {
    /// The enabled rule for all tracepoints of this pattern.
    pub fn tracepoints(pattern: Pattern) -> EventRule {
        EventRule {
            instrumentation: Instrumentation::Tracepoint,
            pattern,
            exclusions: Vec::new(),
            loglevel: LogLevelRule::Any,
            filter: None,
            enabled: true,
        }
    }

    /// True if the rule is enabled and takes this tracepoint. An exclusion is compared with the
    /// whole name and, as LTTng does, with the part behind the provider.
    pub fn matches(&self, tracepoint: &Tracepoint) -> bool {
        self.enabled
            && self.loglevel.takes(tracepoint.loglevel)
            && self.pattern.matches(&tracepoint.name)
            && !self.exclusions.iter().any(|x| x.matches(&tracepoint.name))
    }
}
