//! What a source tells a sink: streams and packets that begin and end, events, losses, silence.
//!
//! Messages are views: they borrow from the reader that stands on them and cost nothing to make.
//! Their clock snapshots are public so that a filter can pass a message on with another time.

use crate::decode::{Field, FieldVisitor, PacketDecoder, PacketInfo, Picked, Value};
use crate::model::{ClockSnapshot, EventClass, Scope, Stream};

/// One message of a stream.
///
/// Of each stream, in order: `StreamBegin`, then per packet the discarded events and packets before
/// it, `PacketBegin`, its events, `PacketEnd`; at last `StreamEnd`.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// A stream begins.
    StreamBegin(StreamEdge<'a>),
    /// A stream ends.
    StreamEnd(StreamEdge<'a>),
    /// A packet begins.
    PacketBegin(Packet<'a>),
    /// A packet ends.
    PacketEnd(Packet<'a>),
    /// An event.
    Event(Event<'a>),
    /// The tracer lost events.
    DiscardedEvents(Discarded<'a>),
    /// The tracer lost packets.
    DiscardedPackets(Discarded<'a>),
    /// Nothing happens in this stream before this time (live).
    Inactivity(StreamEdge<'a>),
}

impl<'a> Message<'a> {
    /// The stream that the message is of.
    pub fn stream(&self) -> &'a Stream {
        match self {
            Self::StreamBegin(m) | Self::StreamEnd(m) | Self::Inactivity(m) => m.stream,
            Self::PacketBegin(m) | Self::PacketEnd(m) => m.stream,
            Self::Event(m) => m.stream,
            Self::DiscardedEvents(m) | Self::DiscardedPackets(m) => m.stream,
        }
    }

    /// The clock at the message: the beginning, for losses.
    #[inline]
    pub fn clock(&self) -> Option<ClockSnapshot> {
        match self {
            Self::StreamBegin(m) | Self::StreamEnd(m) | Self::Inactivity(m) => m.clock,
            Self::PacketBegin(m) | Self::PacketEnd(m) => m.clock,
            Self::Event(m) => m.clock,
            Self::DiscardedEvents(m) | Self::DiscardedPackets(m) => m.begin,
        }
    }
}

/// Beginning or end of a stream, or a time until which it is silent.
#[derive(Debug, Clone, Copy)]
pub struct StreamEdge<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// Its clock, when known.
    pub clock: Option<ClockSnapshot>,
}

/// Events or packets that the tracer lost.
#[derive(Debug, Clone, Copy)]
pub struct Discarded<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// How many; `None` when the tracer says only that there were some.
    pub count: Option<u64>,
    /// Beginning of the time in which they were lost.
    pub begin: Option<ClockSnapshot>,
    /// End of the time in which they were lost.
    pub end: Option<ClockSnapshot>,
}

/// A packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// The clock at its beginning or end, whichever the message is about.
    pub clock: Option<ClockSnapshot>,
    /// What its header and context say.
    pub info: &'a PacketInfo,
    /// The whole packet as it is stored, padding included.
    pub bytes: &'a [u8],
    pub(crate) decoder: &'a PacketDecoder,
}

impl<'a> Packet<'a> {
    /// The packet that a decoder has started. `bytes` is the packet.
    pub fn of_decoder(
        stream: &'a Stream,
        clock: Option<ClockSnapshot>,
        info: &'a PacketInfo,
        bytes: &'a [u8],
        decoder: &'a PacketDecoder,
    ) -> Self {
        Self { stream, clock, info, bytes, decoder }
    }

    /// The context's fields.
    pub fn context(&self) -> Option<Field<'a>> {
        let class = &self.stream.class;
        self.decoder.fields(class, self.bytes, Scope::PacketContext)
    }

    /// Tells a visitor the context's fields; false when there are none.
    pub fn visit_context<V: FieldVisitor>(&self, visitor: &mut V) -> bool {
        let class = &self.stream.class;
        self.decoder.visit(class, self.bytes, Scope::PacketContext, visitor)
    }
}

/// An event.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// Its class.
    pub class: &'a EventClass,
    /// The stream's clock at the event.
    pub clock: Option<ClockSnapshot>,
    /// The packet that it is in.
    pub(crate) bytes: &'a [u8],
    pub(crate) decoder: &'a PacketDecoder,
}

impl<'a> Event<'a> {
    /// The event that a decoder stands on; `None` when it stands on none. `bytes` is its packet.
    #[inline]
    pub fn of_decoder(
        stream: &'a Stream,
        clock: Option<ClockSnapshot>,
        bytes: &'a [u8],
        decoder: &'a PacketDecoder,
    ) -> Option<Self> {
        let class = stream.class.event_classes.get(decoder.event_class_position())?;
        Some(Self { stream, class, clock, bytes, decoder })
    }

    /// The event's name; empty when it has none.
    pub fn name(&self) -> &'a str {
        self.class.name.as_deref().unwrap_or_default()
    }

    /// The root structure of a scope; `None` when the event has no such scope.
    pub fn scope(&self, scope: Scope) -> Option<Field<'a>> {
        self.decoder.fields(&self.stream.class, self.bytes, scope)
    }

    /// The payload.
    pub fn payload(&self) -> Option<Field<'a>> {
        self.scope(Scope::Payload)
    }

    /// The context of the event's own class.
    pub fn specific_context(&self) -> Option<Field<'a>> {
        self.scope(Scope::SpecificContext)
    }

    /// The context common to all events of the stream.
    pub fn common_context(&self) -> Option<Field<'a>> {
        self.scope(Scope::CommonContext)
    }

    /// The context of the packet.
    pub fn packet_context(&self) -> Option<Field<'a>> {
        self.scope(Scope::PacketContext)
    }

    /// The field of this name in the payload, the specific, the common or the packet context,
    /// whichever has it first.
    pub fn field(&self, name: &str) -> Option<Field<'a>> {
        [Scope::Payload, Scope::SpecificContext, Scope::CommonContext, Scope::PacketContext]
            .into_iter()
            .find_map(|scope| self.scope(scope)?.get(name))
    }

    /// Position of its class in its stream class.
    #[inline]
    pub fn class_position(&self) -> usize {
        self.decoder.event_class_position()
    }

    /// The value of a field that was looked up for its class; `None` if it has none, is not
    /// [plain](Picked::is_plain), or is of another class. The fastest way to one field.
    #[inline]
    pub fn picked(&self, field: &Picked) -> Option<Value<'a>> {
        field.read(self.decoder, &self.stream.class, self.bytes)
    }

    /// Tells a visitor the fields of a scope, straight from the packet; false when the event has
    /// no such scope. This is the fastest way to touch all of them.
    #[inline]
    pub fn visit<V: FieldVisitor>(&self, scope: Scope, visitor: &mut V) -> bool {
        self.decoder.visit(&self.stream.class, self.bytes, scope, visitor)
    }

    /// Tells a visitor the fields of the common context, the specific context and the payload, as
    /// [`visit`](Self::visit) would one after the other.
    #[inline]
    pub fn visit_body<V: FieldVisitor>(&self, visitor: &mut V) {
        self.decoder.visit_body(&self.stream.class, self.bytes, visitor);
    }

    /// Bytes of the packet that the event is in.
    #[inline]
    pub fn packet_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the record's fields start in the packet, after its header, and where it ends, in bits:
    /// for whoever decodes it by a program of his own.
    #[inline]
    pub fn body_bits(&self) -> (u64, u64) {
        (self.decoder.body_at_bits(), self.decoder.next_at_bits())
    }

    /// Where the record starts and ends in the packet, in bits.
    pub fn record_bits(&self) -> (u64, u64) {
        (self.decoder.event_at_bits(), self.decoder.next_at_bits())
    }
}
