//! Traces, streams and events: their classes and their identities.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::{Attributes, ByteOrder, ClockClass, FieldClass};
use crate::decode::{EventPlan, StreamPlan};

/// A 16-byte universally unique identifier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Uuid {
    /// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|at| bytes[*at] != b'-') {
            return None;
        }
        let mut out = [0; 16];
        let mut digits = bytes.iter().filter(|b| **b != b'-');
        for byte in &mut out {
            let high = char::from(*digits.next()?).to_digit(16)?;
            let low = char::from(*digits.next()?).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        digits.next().is_none().then_some(Self(out))
    }
}

/// Which version of the format the metadata is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtfVersion {
    /// CTF 1.8 (TSDL).
    V1_8,
    /// CTF 2 (JSON text sequence).
    V2,
}

/// A value of the trace's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// An integer.
    Integer(i64),
    /// Text.
    Text(String),
}

/// Severity of an event class, LTTng's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum LogLevel {
    Emergency,
    Alert,
    Critical,
    Error,
    Warning,
    Notice,
    Info,
    DebugSystem,
    DebugProgram,
    DebugProcess,
    DebugModule,
    DebugUnit,
    DebugFunction,
    DebugLine,
    Debug,
}

impl LogLevel {
    const ALL: [(Self, &str); 15] = [
        (Self::Emergency, "emergency"),
        (Self::Alert, "alert"),
        (Self::Critical, "critical"),
        (Self::Error, "error"),
        (Self::Warning, "warning"),
        (Self::Notice, "notice"),
        (Self::Info, "info"),
        (Self::DebugSystem, "debug:system"),
        (Self::DebugProgram, "debug:program"),
        (Self::DebugProcess, "debug:process"),
        (Self::DebugModule, "debug:module"),
        (Self::DebugUnit, "debug:unit"),
        (Self::DebugFunction, "debug:function"),
        (Self::DebugLine, "debug:line"),
        (Self::Debug, "debug"),
    ];

    /// The level of LTTng's number (0 to 14).
    pub fn from_number(number: i64) -> Option<Self> {
        let index = usize::try_from(number).ok()?;
        Self::ALL.get(index).map(|(level, _)| *level)
    }

    /// The level of CTF 2's attribute value, such as `debug:line`.
    pub fn from_attribute(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(level, _)| *level)
    }

    /// LTTng's number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// CTF 2's attribute value.
    pub fn attribute(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// All that the metadata says of a trace.
#[derive(Debug, Clone)]
pub struct TraceClass {
    /// Version of the format.
    pub version: CtfVersion,
    /// Native byte order (CTF 1.8).
    pub byte_order: Option<ByteOrder>,
    /// UUID of the trace (CTF 1.8) or of the metadata stream (CTF 2).
    pub uuid: Option<Uuid>,
    /// Namespace (CTF 2).
    pub namespace: Option<String>,
    /// Name (CTF 2; CTF 1.8 has none).
    pub name: Option<String>,
    /// Unique identifier (CTF 2).
    pub uid: Option<String>,
    /// Environment, in the order of the metadata.
    pub environment: Vec<(String, EnvValue)>,
    /// User attributes.
    pub attributes: Attributes,
    /// Class of the packet header, when packets have one.
    pub packet_header: Option<Arc<FieldClass>>,
    /// Clocks, in the order of the metadata.
    pub clocks: Vec<Arc<ClockClass>>,
    /// Stream classes, in the order of the metadata.
    pub stream_classes: Vec<Arc<StreamClass>>,
    /// Plan to decode the packet header.
    pub(crate) header_plan: Arc<crate::decode::Plan>,
}

impl TraceClass {
    /// The environment value of this name.
    pub fn env(&self, name: &str) -> Option<&EnvValue> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The environment text of this name; `None` when missing or an integer.
    pub fn env_text(&self, name: &str) -> Option<&str> {
        match self.env(name)? {
            EnvValue::Text(text) => Some(text),
            EnvValue::Integer(_) => None,
        }
    }

    /// The environment integer of this name; `None` when missing or text.
    pub fn env_int(&self, name: &str) -> Option<i64> {
        match self.env(name)? {
            EnvValue::Integer(value) => Some(*value),
            EnvValue::Text(_) => None,
        }
    }

    /// The stream class of this id.
    pub fn stream_class(&self, id: u64) -> Option<&Arc<StreamClass>> {
        self.stream_classes.iter().find(|class| class.id == id)
    }

    /// Number of event classes in all stream classes; indexes of event classes are below it.
    pub fn event_class_count(&self) -> usize {
        self.stream_classes.iter().map(|class| class.event_classes.len()).sum()
    }
}

/// What the streams of a class have in common.
#[derive(Debug, Clone)]
pub struct StreamClass {
    /// Position in [`TraceClass::stream_classes`].
    pub index: usize,
    /// Numeric id.
    pub id: u64,
    /// Namespace (CTF 2).
    pub namespace: Option<String>,
    /// Name (CTF 2).
    pub name: Option<String>,
    /// Unique identifier (CTF 2).
    pub uid: Option<String>,
    /// User attributes.
    pub attributes: Attributes,
    /// The clock of the streams.
    pub clock: Option<Arc<ClockClass>>,
    /// Packets carry their beginning time.
    pub packets_have_begin_time: bool,
    /// Packets carry their end time.
    pub packets_have_end_time: bool,
    /// Packets count discarded events.
    pub counts_discarded_events: bool,
    /// Packets are numbered.
    pub counts_discarded_packets: bool,
    /// Class of the packet context; see [`FieldClass::visible`].
    pub packet_context: Option<Arc<FieldClass>>,
    /// Class of the event record header.
    pub event_header: Option<Arc<FieldClass>>,
    /// Class of the context common to all events.
    pub common_context: Option<Arc<FieldClass>>,
    /// Event classes, in the order of the metadata.
    pub event_classes: Vec<Arc<EventClass>>,
    /// Position in `event_classes` by event class id.
    pub(crate) by_id: HashMap<u64, u32>,
    /// Plans to decode headers and contexts.
    pub(crate) plan: StreamPlan,
}

impl StreamClass {
    /// The event class of this id.
    pub fn event_class(&self, id: u64) -> Option<&Arc<EventClass>> {
        let index = *self.by_id.get(&id)?;
        self.event_classes.get(index as usize)
    }
}

/// What the events of a class have in common.
#[derive(Debug, Clone)]
pub struct EventClass {
    /// Dense number of the class in its trace class, in the order of appearance: it never changes
    /// when the metadata grows, so sinks can keep what they prepare for a class in a vector.
    pub index: usize,
    /// Numeric id within its stream class.
    pub id: u64,
    /// Id of its stream class.
    pub stream_class_id: u64,
    /// Namespace (CTF 2).
    pub namespace: Option<String>,
    /// Name (may be missing in CTF 2).
    pub name: Option<String>,
    /// Unique identifier (CTF 2).
    pub uid: Option<String>,
    /// Log level.
    pub log_level: Option<LogLevel>,
    /// EMF URI.
    pub emf_uri: Option<String>,
    /// User attributes.
    pub attributes: Attributes,
    /// Class of the event's own context.
    pub specific_context: Option<Arc<FieldClass>>,
    /// Class of the payload.
    pub payload: Option<Arc<FieldClass>>,
    /// Plan to decode the event's own scopes.
    pub(crate) plan: EventPlan,
}

/// A trace as the reader sees it: one logical trace, perhaps of several directories.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Number of the trace in its source, from 0.
    pub index: usize,
    /// What the metadata says.
    pub class: Arc<TraceClass>,
    /// Name given to it by the source (Babeltrace: host name and path below the given root).
    pub name: Option<String>,
}

/// A stream of packets.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Number of the stream in its source, from 0, dense over all traces of the source.
    pub index: usize,
    /// The trace that it belongs to.
    pub trace: Arc<Trace>,
    /// Its class, as grown so far.
    pub class: Arc<StreamClass>,
    /// Id within its class: given by the packets, else by the source (0, 1, 2 …).
    pub id: u64,
    /// Name given to it by the source (Babeltrace: path of the earliest file).
    pub name: Option<String>,
}
