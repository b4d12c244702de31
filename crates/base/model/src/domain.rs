//! Domains: whose events a channel records.

/// A domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// The kernel's events.
    Kernel,
    /// Programs' events.
    User,
}

impl Domain {
    /// LTTng's word for it in what its command line prints.
    pub fn word(self) -> &'static str {
        match self {
            Domain::Kernel => "kernel",
            Domain::User => "ust",
        }
    }

    /// The option that chooses it.
    pub fn option(self) -> &'static str {
        match self {
            Domain::Kernel => "-k",
            Domain::User => "-u",
        }
    }
}
