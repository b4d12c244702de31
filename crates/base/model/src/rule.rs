//! Event rules: which tracepoints a channel records.

use crate::{LogLevel, Pattern, Tracepoint};
use alloc::vec::Vec;

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

/// One event rule of a channel. Two rules are the same rule when all but `enabled` is equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventRule {
    /// Names it takes.
    pub pattern: Pattern,
    /// Names it leaves out.
    pub exclusions: Vec<Pattern>,
    /// Log levels it takes.
    pub loglevel: LogLevelRule,
    /// Disabled rules match nothing.
    pub enabled: bool,
}

impl EventRule {
    /// True if the rule is enabled and takes this tracepoint. An exclusion is compared with the
    /// whole name and, as LTTng does, with the part behind the provider.
    pub fn matches(&self, tracepoint: &Tracepoint) -> bool {
        self.enabled
            && self.loglevel.takes(tracepoint.loglevel)
            && self.pattern.matches(&tracepoint.name)
            && !self.exclusions.iter().any(|x| x.matches(&tracepoint.name))
    }
}
