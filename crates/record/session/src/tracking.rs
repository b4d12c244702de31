//! Whom a session follows: the inclusion sets of both its domains, changed as LTTng changes them.
//!
//! A set that was never touched has everything in it and is not in the model. Names of users and groups
//! are looked up here, once, in the files of this machine.

use crate::commands::{fail, no_session};
use crate::model::Session;
use crate::worker::Daemon;
use sillage_model::limits::TRACKED_MAX;
use sillage_model::{Domain, Named, ProcessAttribute, Tracked};
use sillage_protocol::control::{ErrorCode, Failure};
use sillage_tracer_kernel::trackers::Followed;

/// Files in which users and groups are looked up.
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

impl Daemon {
    /// Changes an inclusion set, and tells the tracer.
    pub(crate) fn track(
        &mut self,
        id: u64,
        domain: Domain,
        attribute: ProcessAttribute,
        value: Option<Tracked>,
        include: bool,
    ) -> Result<(), Failure> {
        use ProcessAttribute::{Vgid, Vpid, Vuid};
        match domain {
            Domain::Kernel => self.check_kernel_attribute(attribute)?,
            Domain::User if [Vpid, Vuid, Vgid].contains(&attribute) => {}
            Domain::User => return fail(ErrorCode::NotSupported),
        }
        let session = self.sessions.get_mut(&id).ok_or_else(no_session)?;
        change(session, (domain, attribute), value, include)?;
        self.changed = true;
        match domain {
            Domain::Kernel => self.follow_kernel(id),
            Domain::User => self.declare_all(),
        }
        Ok(())
    }
}

fn change(
    session: &mut Session,
    of: (Domain, ProcessAttribute),
    value: Option<Tracked>,
    include: bool,
) -> Result<(), Failure> {
    let Some(value) = value else {
        match include {
            true => drop(session.tracked.remove(&of)),
            false => drop(session.tracked.insert(of, Default::default())),
        }
        return Ok(());
    };
    let number = number(of.1, &value)?;
    if include {
        let set = session.tracked.entry(of).or_default();
        if set.contains_key(&value) {
            return fail(ErrorCode::AttributeExists);
        }
        if set.len() >= TRACKED_MAX {
            return fail(ErrorCode::Limit);
        }
        set.insert(value, number);
        return Ok(());
    }
    // As LTTng's: a set of everything has no value that could be taken out of it.
    match session.tracked.get_mut(&of).and_then(|set| set.remove(&value)) {
        Some(_) => Ok(()),
        None => fail(ErrorCode::AttributeMissing),
    }
}

/// The number that a value stands for.
fn number(attribute: ProcessAttribute, value: &Tracked) -> Result<u64, Failure> {
    let named = match (attribute.named(), value) {
        (_, Tracked::Id(id)) => return Ok(*id),
        (Some(named), Tracked::Name(name)) => (named, name),
        (None, Tracked::Name(_)) => return fail(ErrorCode::Invalid),
    };
    let (file, missing) = match named.0 {
        Named::User => (USERS, ErrorCode::NoUser),
        Named::Group => (GROUPS, ErrorCode::NoGroup),
    };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    match number_of(&text, named.1) {
        Some(number) => Ok(number),
        None => fail(missing),
    }
}

/// The third column behind a name in a file of users or groups.
pub(crate) fn number_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(name)).then(|| parts.nth(1)?.parse().ok())?
    })
}

/// The numbers in a session's sets of the kernel domain.
pub(crate) fn followed(session: &Session) -> Followed {
    let sets = session.tracked.iter().filter(|((domain, _), _)| *domain == Domain::Kernel);
    sets.map(|((_, attribute), set)| (*attribute, set.values().copied().collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::number_of;

    #[test]
    fn names_are_looked_up() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\ntty:x:5:\n";
        assert_eq!((number_of(text, "root"), number_of(text, "tty")), (Some(0), Some(5)));
        assert_eq!((number_of(text, "broken"), number_of(text, "x")), (None, None));
    }
}
