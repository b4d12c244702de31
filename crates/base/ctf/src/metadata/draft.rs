//! A trace class in the making: what the two metadata languages fill and what becomes a
//! [`TraceClass`].
//!
//! Drafts grow; each [`snapshot`](Draft::snapshot) compiles only what is new and shares the rest
//! with the snapshot before, so event class indexes stay and live metadata stays cheap.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::resolve::{Problem, Roots, Slots, resolve};
use crate::decode::{EventPlan, Plan, StreamPlan};
use crate::limits::FIELD_CLASSES_MAX;
use crate::model::{
    Attributes, ByteOrder, ClockClass, CtfVersion, EnvValue, EventClass, FieldClass, FieldKind, LogLevel,
    Role, Scope, StreamClass, TraceClass, Uuid,
};

/// A trace class in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    pub version: CtfVersion,
    pub byte_order: Option<ByteOrder>,
    pub uuid: Option<Uuid>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub uid: Option<String>,
    pub environment: Vec<(String, EnvValue)>,
    pub attributes: Attributes,
    pub packet_header: Option<Arc<FieldClass>>,
    pub clocks: Vec<Arc<ClockClass>>,
    pub streams: Vec<DraftStream>,
    event_count: usize,
    budget: usize,
    slots: Slots,
}

/// A stream class in the making.
#[derive(Debug, Default)]
pub(crate) struct DraftStream {
    pub id: u64,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub uid: Option<String>,
    pub attributes: Attributes,
    pub clock: Option<Arc<ClockClass>>,
    pub packet_context: Option<Arc<FieldClass>>,
    pub event_header: Option<Arc<FieldClass>>,
    pub common_context: Option<Arc<FieldClass>>,
    pub events: Vec<DraftEvent>,
    pub(crate) event_ids: HashSet<u64>,
    pub(crate) slot_count: usize,
    pub(crate) resolved: bool,
    pub(crate) compiled: Option<Arc<StreamClass>>,
}

/// An event class in the making.
#[derive(Debug, Default)]
pub(crate) struct DraftEvent {
    pub id: u64,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub uid: Option<String>,
    pub log_level: Option<LogLevel>,
    pub emf_uri: Option<String>,
    pub attributes: Attributes,
    pub specific_context: Option<Arc<FieldClass>>,
    pub payload: Option<Arc<FieldClass>>,
    /// Where it is in the text.
    pub at: usize,
    pub(crate) index: usize,
    pub(crate) compiled: Option<Arc<EventClass>>,
}

impl Draft {
    pub(crate) fn new(version: CtfVersion) -> Self {
        Self {
            version,
            byte_order: None,
            uuid: None,
            namespace: None,
            name: None,
            uid: None,
            environment: Vec::new(),
            attributes: Attributes::new(),
            packet_header: None,
            clocks: Vec::new(),
            streams: Vec::new(),
            event_count: 0,
            budget: FIELD_CLASSES_MAX,
            slots: Slots::default(),
        }
    }

    /// Adds an event class to the stream class at `stream`.
    pub(crate) fn add_event(&mut self, stream: usize, mut event: DraftEvent) {
        event.index = self.event_count;
        self.event_count += 1;
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.event_ids.insert(event.id);
            stream.events.push(event);
            stream.compiled = None;
        }
    }

    /// The trace class of all that is there so far.
    pub(crate) fn snapshot(&mut self) -> Result<Arc<TraceClass>, Problem> {
        let mut roots = Roots::default();
        roots[0] = self.packet_header.take();
        let result = resolve(&mut roots, Scope::PacketHeader, &mut self.slots, &mut self.budget);
        self.packet_header = roots[0].take();
        result?;
        let mut stream_classes = Vec::with_capacity(self.streams.len());
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let class = stream.compile(index, &mut self.packet_header, &mut self.slots, &mut self.budget)?;
            stream_classes.push(class);
        }
        Ok(Arc::new(TraceClass {
            version: self.version,
            byte_order: self.byte_order,
            uuid: self.uuid,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            environment: self.environment.clone(),
            attributes: self.attributes.clone(),
            header_plan: Arc::new(Plan::compile(self.packet_header.as_ref(), Scope::PacketHeader)),
            packet_header: self.packet_header.clone(),
            clocks: self.clocks.clone(),
            stream_classes,
        }))
    }
}

impl DraftStream {
    /// Whether an event class has this id.
    pub(crate) fn has_event(&self, id: u64) -> bool {
        self.event_ids.contains(&id)
    }

    fn compile(
        &mut self,
        index: usize,
        packet_header: &mut Option<Arc<FieldClass>>,
        slots: &mut Slots,
        budget: &mut usize,
    ) -> Result<Arc<StreamClass>, Problem> {
        if let Some(class) = &self.compiled {
            return Ok(Arc::clone(class));
        }
        let mut roots: Roots = [
            packet_header.take(),
            self.packet_context.take(),
            self.event_header.take(),
            self.common_context.take(),
            None,
            None,
        ];
        let result = self.resolve_all(&mut roots, slots, budget);
        let [header, context, event_header, common, ..] = roots;
        *packet_header = header;
        self.packet_context = context;
        self.event_header = event_header;
        self.common_context = common;
        result?;
        let class = self.build(index);
        self.compiled = Some(Arc::clone(&class));
        Ok(class)
    }

    fn resolve_all(
        &mut self,
        roots: &mut Roots,
        slots: &mut Slots,
        budget: &mut usize,
    ) -> Result<(), Problem> {
        if !self.resolved {
            self.resolved = true;
            for scope in [Scope::PacketContext, Scope::EventHeader, Scope::CommonContext] {
                resolve(roots, scope, slots, budget)?;
            }
            if let Some(context) = &mut roots[Scope::PacketContext as usize] {
                hide_roles(Arc::make_mut(context));
            }
        }
        for event in &mut self.events {
            if event.compiled.is_some() {
                continue;
            }
            slots.begin_event();
            roots[Scope::SpecificContext as usize] = event.specific_context.take();
            roots[Scope::Payload as usize] = event.payload.take();
            for scope in [Scope::SpecificContext, Scope::Payload] {
                resolve(roots, scope, slots, budget)
                    .map_err(|(at, message)| (if at == 0 { event.at } else { at }, message))?;
            }
            event.specific_context = roots[Scope::SpecificContext as usize].take();
            event.payload = roots[Scope::Payload as usize].take();
            self.slot_count = self.slot_count.max(slots.count());
            event.compiled = Some(event.build(self.id));
        }
        slots.begin_event();
        self.slot_count = self.slot_count.max(slots.count());
        Ok(())
    }

    fn build(&self, index: usize) -> Arc<StreamClass> {
        let mut plan = StreamPlan::compile(
            self.packet_context.as_ref(),
            self.event_header.as_ref(),
            self.common_context.as_ref(),
            self.slot_count,
        );
        let event_classes: Vec<Arc<EventClass>> =
            self.events.iter().filter_map(|event| event.compiled.clone()).collect();
        let mut by_id = HashMap::with_capacity(event_classes.len());
        for (position, class) in event_classes.iter().enumerate() {
            plan.add_class(class, position as u32);
            by_id.insert(class.id, position as u32);
        }
        let has = |role| plan.context.nodes.iter().any(|node| node.roles.contains(role));
        Arc::new(StreamClass {
            index,
            id: self.id,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            attributes: self.attributes.clone(),
            clock: self.clock.clone(),
            packets_have_begin_time: self.clock.is_some() && has(Role::Timestamp),
            packets_have_end_time: self.clock.is_some() && has(Role::EndTimestamp),
            counts_discarded_events: has(Role::EventsDiscarded),
            counts_discarded_packets: has(Role::PacketSequence),
            packet_context: self.packet_context.clone(),
            event_header: self.event_header.clone(),
            common_context: self.common_context.clone(),
            event_classes,
            by_id,
            plan,
        })
    }
}

impl DraftEvent {
    fn build(&self, stream_class_id: u64) -> Arc<EventClass> {
        Arc::new(EventClass {
            index: self.index,
            id: self.id,
            stream_class_id,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            log_level: self.log_level,
            emf_uri: self.emf_uri.clone(),
            attributes: self.attributes.clone(),
            specific_context: self.specific_context.clone(),
            payload: self.payload.clone(),
            plan: EventPlan {
                specific: Arc::new(Plan::compile(self.specific_context.as_ref(), Scope::SpecificContext)),
                payload: Arc::new(Plan::compile(self.payload.as_ref(), Scope::Payload)),
            },
        })
    }
}

/// Hides the fields that have a role, and the structures that then have nothing to show.
fn hide_roles(class: &mut FieldClass) {
    if !class.roles().is_empty() {
        class.visible = false;
        return;
    }
    if let FieldKind::Struct(c) = &mut class.kind {
        for member in &mut c.members {
            hide_roles(Arc::make_mut(&mut member.class));
        }
        class.visible = c.members.is_empty() || c.members.iter().any(|m| m.class.visible);
    }
}
