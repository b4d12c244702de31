//! Whom a session follows: inclusion sets of process attributes.

use alloc::string::String;
use core::fmt;

/// An attribute of processes that has an inclusion set in each session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcessAttribute {
    /// Process, by its number in the first PID namespace.
    Pid,
    /// Process, by its number in its own PID namespace.
    Vpid,
    /// User, by its number in the first user namespace.
    Uid,
    /// User, as its own user namespace sees it.
    Vuid,
    /// Group, by its number in the first user namespace.
    Gid,
    /// Group, as its own user namespace sees it.
    Vgid,
    /// PID namespace by number, with those in it (not LTTng's).
    PidNamespace,
    /// Control group of version 2 by number, with those in it (not LTTng's).
    Cgroup,
}

impl ProcessAttribute {
    /// All of them, in the order of lists.
    pub const ALL: [ProcessAttribute; 8] = [
        ProcessAttribute::Pid,
        ProcessAttribute::Vpid,
        ProcessAttribute::Uid,
        ProcessAttribute::Vuid,
        ProcessAttribute::Gid,
        ProcessAttribute::Vgid,
        ProcessAttribute::PidNamespace,
        ProcessAttribute::Cgroup,
    ];

    /// LTTng's words for it.
    pub fn words(self) -> &'static str {
        match self {
            ProcessAttribute::Pid => "process ID",
            ProcessAttribute::Vpid => "virtual process ID",
            ProcessAttribute::Uid => "user ID",
            ProcessAttribute::Vuid => "virtual user ID",
            ProcessAttribute::Gid => "group ID",
            ProcessAttribute::Vgid => "virtual group ID",
            ProcessAttribute::PidNamespace => "PID namespace",
            ProcessAttribute::Cgroup => "control group",
        }
    }

    /// Whether its values may be names, and of what.
    pub fn named(self) -> Option<Named> {
        match self {
            ProcessAttribute::Uid | ProcessAttribute::Vuid => Some(Named::User),
            ProcessAttribute::Gid | ProcessAttribute::Vgid => Some(Named::Group),
            _ => None,
        }
    }
}

/// What has a name besides its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A user.
    User,
    /// A group.
    Group,
}

/// A value of an inclusion set. Numbers come before names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tracked {
    /// A number.
    Id(u64),
    /// The name of a user or group, which the daemon looks up.
    Name(String),
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tracked::Id(id) => id.fmt(f),
            Tracked::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::string::ToString;

    #[test]
    fn sets_are_listed_numbers_first() {
        let values = [Tracked::Name("root".into()), Tracked::Id(65534), Tracked::Id(5)];
        let set: BTreeSet<Tracked> = values.into();
        let shown: std::vec::Vec<String> = set.iter().map(Tracked::to_string).collect();
        assert_eq!(shown, ["5", "65534", "root"]);
    }
}
