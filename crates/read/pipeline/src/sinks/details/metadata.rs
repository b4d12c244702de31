//! Trace, stream, event and clock classes: the blocks before the messages that first need them.

use sillage_ctf::model::{
    Attributes, ClockClass, ClockOrigin, CtfVersion, Datum, EventClass, LogLevel, StreamClass, TraceClass,
};

use super::classes::{Place, write_scope_class};
use super::pen::{Ink, Pen};
use super::values::write_datum;
use super::{Dialect, Options};

/// Writes a trace class with all of its stream and event classes.
pub(super) fn write_trace_class(pen: &mut Pen<'_>, class: &TraceClass, dialect: Dialect, options: &Options) {
    pen.line();
    pen.ink(Ink::Title, "Trace class");
    pen.plain(":\n");
    pen.inside(|pen| {
        write_attributes(pen, &class.attributes);
        let version = class.version;
        let mut sorted: Vec<_> = class.stream_classes.iter().collect();
        sorted.sort_by_key(|class| class.id);
        for class in sorted {
            write_stream_class(pen, class, version, dialect, options);
        }
    });
}

/// Writes a stream class with all of its event classes.
pub(super) fn write_stream_class(
    pen: &mut Pen<'_>,
    class: &StreamClass,
    version: CtfVersion,
    dialect: Dialect,
    options: &Options,
) {
    write_class_title(
        pen,
        "Stream class",
        class.name.as_deref().filter(|_| options.with_stream_class_name),
        (class.namespace.as_deref(), class.uid.as_deref()),
        class.id,
        Ink::Value,
    );
    pen.inside(|pen| {
        write_attributes(pen, &class.attributes);
        let has_clock = class.clock.is_some();
        pen.bool_property("Supports packets", true);
        pen.bool_property("Packets have beginning default clock snapshot", class.packets_have_begin_time);
        pen.bool_property("Packets have end default clock snapshot", class.packets_have_end_time);
        let losses_have_times = has_clock && class.packets_have_begin_time && class.packets_have_end_time;
        pen.bool_property("Supports discarded events", class.counts_discarded_events);
        if class.counts_discarded_events {
            pen.bool_property("Discarded events have default clock snapshots", losses_have_times);
        }
        pen.bool_property("Supports discarded packets", class.counts_discarded_packets);
        if class.counts_discarded_packets {
            pen.bool_property("Discarded packets have default clock snapshots", losses_have_times);
        }
        if let Some(clock) = &class.clock {
            pen.line();
            pen.ink(Ink::Property, "Default clock class");
            pen.plain(":\n");
            pen.inside(|pen| write_clock_class(pen, clock, version, dialect, options));
        }
        let place = Place { dialect, stream: class, event: None };
        let context = class.packet_context.as_deref().filter(|class| super::has_shown_members(class));
        if let Some(context) = context {
            write_scope_class(pen, "Packet context field class", context, place);
        }
        if let Some(common) = &class.common_context {
            write_scope_class(pen, "Event common context field class", common, place);
        }
        let mut sorted: Vec<_> = class.event_classes.iter().collect();
        sorted.sort_by_key(|class| class.id);
        for event in sorted {
            write_event_class(pen, class, event, dialect);
        }
    });
}

/// Writes an event class.
pub(super) fn write_event_class(
    pen: &mut Pen<'_>,
    stream: &StreamClass,
    class: &EventClass,
    dialect: Dialect,
) {
    let identity = (class.namespace.as_deref(), class.uid.as_deref());
    write_class_title(pen, "Event class", class.name.as_deref(), identity, class.id, Ink::EventName);
    pen.inside(|pen| {
        write_attributes(pen, &class.attributes);
        if let Some(level) = class.log_level {
            pen.text_property("Log level", level_name(level));
        }
        if let Some(uri) = &class.emf_uri {
            pen.text_property("EMF URI", uri);
        }
        let place = Place { dialect, stream, event: Some(class) };
        if let Some(specific) = &class.specific_context {
            write_scope_class(pen, "Specific context field class", specific, place);
        }
        if let Some(payload) = &class.payload {
            write_scope_class(pen, "Payload field class", payload, place);
        }
    });
}

fn write_class_title(
    pen: &mut Pen<'_>,
    title: &str,
    name: Option<&str>,
    (namespace, uid): (Option<&str>, Option<&str>),
    id: u64,
    name_ink: Ink,
) {
    pen.line();
    pen.ink(Ink::Title, title);
    if let Some(name) = name {
        pen.plain(" `");
        pen.ink(name_ink, name);
        pen.plain("`");
    }
    pen.plain(" (");
    for (what, value) in [("Namespace", namespace), ("UID", uid)] {
        if let Some(value) = value {
            pen.plain(what);
            pen.plain(" `");
            pen.ink(Ink::Value, value);
            pen.plain("`, ");
        }
    }
    pen.plain("ID ");
    pen.ink(Ink::Value, &id.to_string());
    pen.plain("):\n");
}

/// Writes the properties of a clock class.
///
/// In CTF 1.8 a precision that is not given is 0.
pub(super) fn write_clock_class(
    pen: &mut Pen<'_>,
    clock: &ClockClass,
    version: CtfVersion,
    dialect: Dialect,
    options: &Options,
) {
    write_attributes(pen, &clock.attributes);
    if let Some(name) = &clock.name {
        pen.text_property("Name", name);
    }
    let uuid = clock.uuid.map(|uuid| uuid.to_string());
    match dialect {
        Dialect::V2_1Mip0 => {
            if let Some(uuid) = uuid.as_ref().filter(|_| options.with_uuid) {
                pen.text_property("UUID", uuid);
            }
        }
        Dialect::V2_1Mip1 => {
            if let Some(namespace) = &clock.namespace {
                pen.text_property("Namespace", namespace);
            }
            if let Some(uid) = clock.uid.as_ref().or(uuid.as_ref()).filter(|_| options.with_uid) {
                pen.text_property("UID", uid);
            }
        }
        Dialect::V2_0 | Dialect::ByTrace => {}
    }
    if let Some(description) = &clock.description {
        pen.text_property("Description", description);
    }
    pen.unsigned_property("Frequency (Hz)", clock.frequency_hz);
    let old = matches!(dialect, Dialect::V2_0 | Dialect::ByTrace);
    if let Some(precision) = clock.precision_cycles.or((version == CtfVersion::V1_8).then_some(0)) {
        pen.unsigned_property("Precision (cycles)", precision);
    }
    if let Some(accuracy) = clock.accuracy_cycles.filter(|_| dialect == Dialect::V2_1Mip1) {
        pen.unsigned_property("Accuracy (cycles)", accuracy);
    }
    let from = if old { "" } else { " from origin" };
    pen.signed_property(&format!("Offset{from} (s)"), clock.offset_s);
    pen.unsigned_property(&format!("Offset{from} (cycles)"), clock.offset_cycles);
    if old {
        pen.bool_property("Origin is Unix epoch", clock.origin == ClockOrigin::UnixEpoch);
        if let Some(uuid) = uuid.as_ref().filter(|_| options.with_uuid) {
            pen.text_property("UUID", uuid);
        }
        return;
    }
    match &clock.origin {
        ClockOrigin::Unknown => {}
        ClockOrigin::UnixEpoch => pen.text_property("Origin", "Unix epoch"),
        ClockOrigin::Custom { namespace, name, uid } => {
            pen.line();
            pen.ink(Ink::Property, "Origin");
            pen.plain(":\n");
            pen.inside(|pen| {
                if let Some(namespace) = namespace {
                    pen.text_property("Namespace", namespace);
                }
                pen.text_property("Name", name);
                pen.text_property("UID", uid);
            });
        }
    }
}

fn write_attributes(pen: &mut Pen<'_>, attributes: &Attributes) {
    if attributes.is_empty() {
        return;
    }
    pen.line();
    pen.ink(Ink::Property, "User attributes");
    pen.plain(":");
    write_datum(pen, &Datum::Map(attributes.clone()));
    pen.plain("\n");
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Emergency => "Emergency",
        LogLevel::Alert => "Alert",
        LogLevel::Critical => "Critical",
        LogLevel::Error => "Error",
        LogLevel::Warning => "Warning",
        LogLevel::Notice => "Notice",
        LogLevel::Info => "Info",
        LogLevel::DebugSystem => "Debug (system)",
        LogLevel::DebugProgram => "Debug (program)",
        LogLevel::DebugProcess => "Debug (process)",
        LogLevel::DebugModule => "Debug (module)",
        LogLevel::DebugUnit => "Debug (unit)",
        LogLevel::DebugFunction => "Debug (function)",
        LogLevel::DebugLine => "Debug (line)",
        LogLevel::Debug => "Debug",
    }
}
