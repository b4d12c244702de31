//! Events with more in their common context than was recorded, for filters that add a field.
//!
//! [`with_common_member`] makes the class that has the member; an [`ExtendedStream`] encodes one
//! event at a time, with the values of the member, into a packet of its own, on which it then
//! stands. Whoever takes messages can not tell it from one that was recorded so.

use std::sync::Arc;

use super::bits::BitBuffer;
use super::encode::{Encoder, Place};
use super::layout::Layout;
use crate::decode::{PacketDecoder, StreamPlan};
use crate::error::DecodeError;
use crate::message::Event;
use crate::model::{
    ClockSnapshot, FieldClass, FieldKind, Member, Role, Scope, Stream, StreamClass, StringClass,
    StringEncoding, StringExtent, StructClass, TraceClass,
};

/// The trace class with one more member, a structure of texts, at the end of the common context of
/// the stream classes that are wanted (which must have one).
pub fn with_common_member(
    class: &TraceClass,
    wanted: impl Fn(&StreamClass) -> bool,
    name: &str,
    texts: &[&str],
) -> TraceClass {
    let mut class = class.clone();
    for stream in class.stream_classes.iter_mut().filter(|stream| wanted(stream)) {
        let mut common = match &stream.common_context {
            Some(common) => (**common).clone(),
            None => continue,
        };
        if let FieldKind::Struct(members) = &mut common.kind {
            common.alignment_bits = common.alignment_bits.max(8);
            members.members.push(member(name, structure(texts)));
        }
        let stream = Arc::make_mut(stream);
        stream.common_context = Some(Arc::new(common));
        recompile(stream);
    }
    class
}

fn member(name: &str, class: FieldClass) -> Member {
    Member {
        name: name.to_owned(),
        raw_name: format!("_{name}"),
        class: Arc::new(class),
        attributes: Vec::new(),
    }
}

fn structure(texts: &[&str]) -> FieldClass {
    let members = texts.iter().map(|name| {
        let extent = StringExtent::NullTerminated;
        let text = StringClass { extent, encoding: StringEncoding::Utf8 };
        member(name, FieldClass::new(FieldKind::String(text), 8))
    });
    FieldClass::new(FieldKind::Struct(StructClass { members: members.collect() }), 8)
}

fn recompile(stream: &mut StreamClass) {
    let mut plan = StreamPlan::compile(
        stream.packet_context.as_ref(),
        stream.event_header.as_ref(),
        stream.common_context.as_ref(),
        stream.plan.slot_count,
    );
    for (position, event) in stream.event_classes.iter().enumerate() {
        plan.add_class(event, position as u32);
    }
    stream.plan = plan;
}

/// A stream whose class has one more member in the common context, standing on an event.
#[derive(Debug)]
pub struct ExtendedStream {
    stream: Arc<Stream>,
    packet_header: Layout,
    context: Layout,
    header: Layout,
    common: Layout,
    /// By position of the event class: specific context and payload.
    events: Vec<(Layout, Layout)>,
    out: BitBuffer,
    saved: Vec<u64>,
    places: Vec<Place>,
    decoder: PacketDecoder,
}

impl ExtendedStream {
    /// Prepares for events of `source`; `stream` is the same with a class of
    /// [`with_common_member`].
    pub fn new(source: &Stream, stream: Arc<Stream>) -> Self {
        let class = &source.class;
        let own = class.event_classes.iter();
        Self {
            stream,
            packet_header: Layout::same(&source.trace.class.header_plan),
            context: Layout::same(&class.plan.context),
            header: Layout::same(&class.plan.header),
            common: Layout::same(&class.plan.common),
            events: own.map(|e| (Layout::same(&e.plan.specific), Layout::same(&e.plan.payload))).collect(),
            out: BitBuffer::default(),
            saved: Vec::new(),
            places: Vec::new(),
            decoder: PacketDecoder::new(),
        }
    }

    /// The stream with the new class.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Stands on an event of the source stream, with these values of the new member's texts, which
    /// are cut at a NUL.
    ///
    /// # Errors
    /// What was encoded can not be decoded; then there is no current event.
    pub fn extend(&mut self, event: &Event<'_>, texts: &[&[u8]]) -> Result<(), Box<DecodeError>> {
        self.out.clear();
        self.places.clear();
        let class = &event.stream.class;
        let decoder = event.decoder;
        let plan = &event.stream.trace.class.header_plan;
        let mut encoder = Encoder::new(&mut self.out, &self.packet_header, 0, &mut self.saved);
        decoder.visit_plan(plan, event.bytes, 0, &mut encoder);
        let mut encoder = Encoder::new(&mut self.out, &self.context, 0, &mut self.saved);
        encoder.places = Some(&mut self.places);
        if let Some((plan, start)) = decoder.scope(class, Scope::PacketContext) {
            decoder.visit_plan(plan, event.bytes, start, &mut encoder);
        }
        let none = (Layout::default(), Layout::default());
        let (specific, payload) = self.events.get(decoder.event_class_position()).unwrap_or(&none);
        for (scope, layout) in [
            (Scope::EventHeader, &self.header),
            (Scope::CommonContext, &self.common),
            (Scope::SpecificContext, specific),
            (Scope::Payload, payload),
        ] {
            if scope == Scope::CommonContext {
                // The structure may be aligned more than its old members.
                self.out.align(8, 0);
            }
            let mut encoder = Encoder::new(&mut self.out, layout, 0, &mut self.saved);
            if let Some((plan, start)) = decoder.scope(class, scope) {
                decoder.visit_plan(plan, event.bytes, start, &mut encoder);
            }
            if scope == Scope::CommonContext {
                self.out.align(8, 0);
                for text in texts {
                    self.out.put_bytes(text.split(|byte| *byte == 0).next().unwrap_or_default());
                    self.out.put_bytes(&[0]);
                }
            }
        }
        let content_size_bits = self.out.at;
        self.out.align(8, 0);
        let sizes = [(Role::ContentSize, content_size_bits), (Role::PacketSize, self.out.at)];
        for (role, value) in sizes {
            for place in self.places.iter().filter(|place| place.role == role) {
                place.patch(&mut self.out.bytes, value);
            }
        }
        self.decoder.start(&self.stream.trace.class, &self.out.bytes)?;
        self.decoder.next_event(&self.stream.class, &self.out.bytes)?;
        Ok(())
    }

    /// The event stood on.
    pub fn event(&self, clock: Option<ClockSnapshot>) -> Option<Event<'_>> {
        Event::of_decoder(&self.stream, clock, &self.out.bytes, &self.decoder)
    }
}
