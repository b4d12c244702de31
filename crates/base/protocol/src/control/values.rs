//! How the values in requests and replies lie in messages; the daemon's own state uses them too.

use super::{ChannelTotals, FILTER_BYTES_MAX, PATH_BYTES_MAX};
use crate::codec::{DecodeError, Reader, Writer};
use sillage_model::limits::{NAME_BYTES_MAX, RULES_MAX};
use sillage_model::{
    BlockingTimeout, ChannelSettings, Domain, EventRule, Instrumentation, LogLevel, LogLevelRule, LossMode,
    Pattern, ProcessAttribute, Tracked,
};

/// A domain.
pub fn put_domain(w: &mut Writer, domain: Domain) {
    w.u8(match domain {
        Domain::Kernel => 0,
        Domain::User => 1,
    });
}

/// Inverse of [`put_domain`].
pub fn get_domain(r: &mut Reader<'_>) -> Result<Domain, DecodeError> {
    match r.u8()? {
        0 => Ok(Domain::Kernel),
        1 => Ok(Domain::User),
        n => r.unknown("domain", n),
    }
}

/// An attribute of processes.
pub fn put_attribute(w: &mut Writer, attribute: ProcessAttribute) {
    w.u8(attribute as u8);
}

/// Inverse of [`put_attribute`].
pub fn get_attribute(r: &mut Reader<'_>) -> Result<ProcessAttribute, DecodeError> {
    let n = r.u8()?;
    let found = ProcessAttribute::ALL.into_iter().find(|attribute| *attribute as u8 == n);
    found.map_or_else(|| r.unknown("process attribute", n), Ok)
}

/// A value of an inclusion set.
pub fn put_tracked(w: &mut Writer, value: &Tracked) {
    match value {
        Tracked::Id(id) => {
            w.bool(false);
            w.u64(*id);
        }
        Tracked::Name(name) => {
            w.bool(true);
            w.str(name);
        }
    }
}

/// Inverse of [`put_tracked`].
pub fn get_tracked(r: &mut Reader<'_>) -> Result<Tracked, DecodeError> {
    Ok(match r.bool()? {
        false => Tracked::Id(r.u64()?),
        true => Tracked::Name(r.string(NAME_BYTES_MAX)?),
    })
}

/// As much of a text for people as fits a name.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(NAME_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Channel settings; also part of the daemon's own state.
pub fn put_settings(w: &mut Writer, s: &ChannelSettings) {
    w.u64(s.subbuf_bytes);
    w.u64(s.subbuf_count);
    w.bool(s.loss_mode == LossMode::Overwrite);
    w.u64(match s.blocking_timeout {
        BlockingTimeout::None => 0,
        BlockingTimeout::Us(us) => us,
        BlockingTimeout::Forever => u64::MAX,
    });
    w.u64(s.switch_timer_us);
    w.u64(s.read_timer_us);
    w.u64(s.tracefile_bytes);
    w.u64(s.tracefile_count);
    w.bool(s.ordered_clock);
    w.u64(s.memory_bytes);
    w.bool(s.include_self);
}

/// Inverse of [`put_settings`].
pub fn get_settings(r: &mut Reader<'_>) -> Result<ChannelSettings, DecodeError> {
    Ok(ChannelSettings {
        subbuf_bytes: r.u64()?,
        subbuf_count: r.u64()?,
        loss_mode: if r.bool()? { LossMode::Overwrite } else { LossMode::Discard },
        blocking_timeout: match r.u64()? {
            0 => BlockingTimeout::None,
            u64::MAX => BlockingTimeout::Forever,
            us => BlockingTimeout::Us(us),
        },
        switch_timer_us: r.u64()?,
        read_timer_us: r.u64()?,
        tracefile_bytes: r.u64()?,
        tracefile_count: r.u64()?,
        ordered_clock: r.bool()?,
        memory_bytes: r.u64()?,
        include_self: r.bool()?,
    })
}

/// An event rule; also part of the daemon's own state.
pub fn put_rule(w: &mut Writer, rule: &EventRule) {
    let (kind, place) = match &rule.instrumentation {
        Instrumentation::Tracepoint => (0, ""),
        Instrumentation::Syscall => (1, ""),
        Instrumentation::Probe(place) => (2, place.as_str()),
        Instrumentation::Function(place) => (3, place.as_str()),
        Instrumentation::UserspaceProbe(place) => (4, place.as_str()),
        Instrumentation::UserspaceFunction(place) => (5, place.as_str()),
    };
    w.u8(kind);
    w.str(place);
    w.str(rule.pattern.as_str());
    w.list(&rule.exclusions, |w, x| w.str(x.as_str()));
    let (kind, level) = match rule.loglevel {
        LogLevelRule::Any => (0, LogLevel::DEFAULT),
        LogLevelRule::AtLeast(level) => (1, level),
        LogLevelRule::Only(level) => (2, level),
    };
    w.u8(kind);
    w.u8(level.number());
    w.option(rule.filter.as_deref(), |w, f| w.str(f));
    w.bool(rule.enabled);
}

/// Inverse of [`put_rule`].
pub fn get_rule(r: &mut Reader<'_>) -> Result<EventRule, DecodeError> {
    let pattern = |r: &mut Reader<'_>| r.string(2 * NAME_BYTES_MAX + 1).map(Pattern::new);
    let instrumentation = match (r.u8()?, r.string(PATH_BYTES_MAX)?) {
        (0, _) => Instrumentation::Tracepoint,
        (1, _) => Instrumentation::Syscall,
        (2, place) => Instrumentation::Probe(place),
        (3, place) => Instrumentation::Function(place),
        (4, place) => Instrumentation::UserspaceProbe(place),
        (5, place) => Instrumentation::UserspaceFunction(place),
        (n, _) => return r.unknown("instrumentation", n),
    };
    Ok(EventRule {
        instrumentation,
        pattern: pattern(r)?,
        exclusions: r.list(RULES_MAX, pattern)?,
        loglevel: match (r.u8()?, LogLevel::from_number(r.u8()?.into())) {
            (0, _) => LogLevelRule::Any,
            (1, level) => LogLevelRule::AtLeast(level),
            (2, level) => LogLevelRule::Only(level),
            (n, _) => return r.unknown("log level rule", n),
        },
        filter: r.option(|r| r.string(FILTER_BYTES_MAX))?,
        enabled: r.bool()?,
    })
}

/// What a channel's totals count, losses in programs included; neither its name nor what the kernel lost.
pub fn put_counts(w: &mut Writer, t: &ChannelTotals) {
    let dropped = [t.dropped_packets, t.dropped_bytes, t.dropped_records, t.uncounted_packets];
    for n in [t.packets, t.bytes, t.overwritten].into_iter().chain(dropped).chain(t.lost) {
        w.u64(n);
    }
}

/// Takes what [`put_counts`] put.
///
/// # Errors
/// The message ends before.
pub fn get_counts(r: &mut Reader<'_>, t: &mut ChannelTotals) -> Result<(), DecodeError> {
    let counts = [
        &mut t.packets,
        &mut t.bytes,
        &mut t.overwritten,
        &mut t.dropped_packets,
        &mut t.dropped_bytes,
        &mut t.dropped_records,
        &mut t.uncounted_packets,
    ];
    for n in counts.into_iter().chain(&mut t.lost) {
        *n = r.u64()?;
    }
    Ok(())
}

pub(super) fn put_totals(w: &mut Writer, t: &ChannelTotals) {
    w.str(&t.channel);
    put_counts(w, t);
    w.u64(t.refused_classes);
    w.u64(t.kernel_lost);
    w.list(&t.troubles, |w, x| w.str(cut(x)));
}

pub(super) fn get_totals(r: &mut Reader<'_>) -> Result<ChannelTotals, DecodeError> {
    let mut t = ChannelTotals { channel: r.string(NAME_BYTES_MAX)?, ..Default::default() };
    get_counts(r, &mut t)?;
    t.refused_classes = r.u64()?;
    t.kernel_lost = r.u64()?;
    t.troubles = r.list(RULES_MAX, |r| r.string(NAME_BYTES_MAX))?;
    Ok(t)
}
