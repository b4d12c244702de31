//! Events that a filter of the filter language lets pass.
//!
//! A bare name is a field of the payload, else of the event's own, the common or the packet's
//! context. `$ctx.NAME` looks in the contexts only, then in the trace's environment (a process's
//! name or number may stand there). `$app.PROVIDER:TYPE` is the context of that name.
//! `$event.name`, `$event.loglevel`, `$event.id`, `$event.stream` are about the event itself. An
//! enumeration equals its value and, compared with text, each of its labels. All messages but
//! events pass. Where a reference leads is found once for each event class.

use std::sync::Arc;

use sillage_ctf::model::{EnvValue, EventClass, FieldKind, Scope};
use sillage_ctf::{Event, Field, Message, Picked, Value as FieldValue};
use sillage_filter::{Expression, Pattern, Record, Reference, Root, Step, Value, matches};

use crate::{Error, Messages, Status, Warning};

/// Passes on the events that a filter lets pass.
#[derive(Debug)]
pub struct Matcher<M> {
    source: M,
    /// In a place of its own, so that its references keep their addresses.
    filter: Box<Expression>,
    /// By number of the event class; sources that are merged share numbers.
    known: Vec<Vec<Known>>,
}

/// Where the references of the filter are in the events of one class.
#[derive(Debug)]
struct Known {
    class: Arc<EventClass>,
    /// By the address of the reference.
    ways: Vec<(usize, Way)>,
}

/// Where a reference leads.
#[derive(Debug, Clone)]
enum Way {
    /// To a field.
    Picked(Picked),
    /// To nothing in the event.
    Absent,
    /// Where it must be looked for in each event.
    Unknown,
}

impl<M: Messages> Matcher<M> {
    /// The messages of `source` without the events that do not match.
    pub fn new(source: M, filter: Expression) -> Self {
        Self { source, filter: Box::new(filter), known: Vec::new() }
    }

    /// Whether the current message passes.
    fn passes(&mut self) -> bool {
        let Some(Message::Event(event)) = self.source.current() else {
            return true;
        };
        let same = |known: &&Known| std::ptr::eq(&*known.class, event.class);
        let known = self.known.get(event.class.index).and_then(|known| known.iter().find(same));
        if let Some(known) = known {
            return matches(&self.filter, &EventRecord { event, ways: &known.ways });
        }
        let Some(class) = event.stream.class.event_classes.get(event.class_position()) else {
            return matches(&self.filter, &EventRecord { event, ways: &[] });
        };
        let mut ways = Vec::new();
        find_ways(&self.filter, &event, &mut ways);
        let known = Known { class: Arc::clone(class), ways };
        let passes = matches(&self.filter, &EventRecord { event, ways: &known.ways });
        let index = event.class.index;
        if self.known.len() <= index {
            self.known.resize_with(index + 1, Vec::new);
        }
        self.known[index].push(known);
        passes
    }
}

/// Looks all references of a filter up in an event's class.
fn find_ways(filter: &Expression, event: &Event<'_>, ways: &mut Vec<(usize, Way)>) {
    match filter {
        Expression::Reference(reference) => ways.push((address(reference), way(reference, event))),
        Expression::Unary(_, operand) => find_ways(operand, event, ways),
        Expression::Binary(_, left, right) => {
            find_ways(left, event, ways);
            find_ways(right, event, ways);
        }
        Expression::Integer(_) | Expression::Real(_) | Expression::Text(_) => {}
    }
}

fn address(reference: &Reference) -> usize {
    std::ptr::from_ref(reference) as usize
}

fn way(reference: &Reference, event: &Event<'_>) -> Way {
    let (name, scopes) = match &reference.root {
        Root::Field(name) => {
            (name, [Scope::Payload, Scope::SpecificContext, Scope::CommonContext].as_slice())
        }
        Root::Context(name) => (name, [Scope::SpecificContext, Scope::CommonContext].as_slice()),
        Root::Application { .. } | Root::Event(_) => return Way::Unknown,
    };
    if !reference.steps.is_empty() {
        return Way::Unknown;
    }
    let class = &event.stream.class;
    let found = scopes.iter().find_map(|scope| Picked::new(class, event.class_position(), *scope, name));
    if let Some(field) = found {
        return if field.is_plain() { Way::Picked(field) } else { Way::Unknown };
    }
    let context = class.packet_context.as_ref().and_then(|context| context.as_struct());
    let has = context.is_some_and(|context| context.members.iter().any(|member| *member.name == **name));
    if has { Way::Unknown } else { Way::Absent }
}

impl<M: Messages> Messages for Matcher<M> {
    fn advance(&mut self) -> Result<Status, Error> {
        loop {
            let status = self.source.advance()?;
            if status != Status::Ready || self.passes() {
                return Ok(status);
            }
        }
    }

    #[inline]
    fn current(&self) -> Option<Message<'_>> {
        self.source.current()
    }

    fn seek(&mut self, ns: i64) -> Result<bool, Error> {
        self.source.seek(ns)
    }

    fn take_warnings(&mut self) -> Vec<Warning> {
        self.source.take_warnings()
    }
}

/// An event as filters see it.
struct EventRecord<'a> {
    event: Event<'a>,
    ways: &'a [(usize, Way)],
}

/// Where contexts are, nearest first.
const CONTEXTS: [Scope; 3] = [Scope::SpecificContext, Scope::CommonContext, Scope::PacketContext];

impl<'a> EventRecord<'a> {
    fn in_scopes(&self, scopes: &[Scope], name: &str) -> Option<Field<'a>> {
        scopes.iter().find_map(|scope| self.event.scope(*scope)?.get(name))
    }

    fn field(&self, reference: &Reference) -> Option<Field<'a>> {
        let root = match &reference.root {
            Root::Field(name) => {
                self.in_scopes(&[Scope::Payload], name).or_else(|| self.in_scopes(&CONTEXTS, name))
            }
            Root::Context(name) => self.in_scopes(&CONTEXTS, name),
            Root::Application { provider, kind } => self.application(provider, kind),
            Root::Event(_) => None,
        }?;
        reference.steps.iter().try_fold(root, |field, step| match step {
            Step::Member(name) => content(field)?.get(name),
            Step::Index(index) => match content(field)?.value() {
                FieldValue::Array(mut elements) => elements.nth(usize::try_from(*index).ok()?),
                _ => None,
            },
        })
    }

    /// The context that is called `_app_PROVIDER_TYPE` or `app.PROVIDER:TYPE`.
    fn application(&self, provider: &str, kind: &str) -> Option<Field<'a>> {
        CONTEXTS.iter().find_map(|scope| match self.event.scope(*scope)?.value() {
            FieldValue::Struct(mut members) => members.find(|member| {
                let rest = member.name().trim_start_matches('_').strip_prefix("app");
                let rest = rest.and_then(|rest| rest.strip_prefix(['.', '_']));
                let rest = rest.and_then(|rest| rest.strip_prefix(provider));
                rest.and_then(|rest| rest.strip_prefix([':', '_'])) == Some(kind)
            }),
            _ => None,
        })
    }

    fn of_event(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "name" => Value::Text(self.event.class.name.as_deref()?.as_bytes()),
            "loglevel" => Value::Integer(i64::from(self.event.class.log_level?.number())),
            "id" => Value::Integer(self.event.class.id.cast_signed()),
            "stream" => Value::Integer(self.event.stream.id.cast_signed()),
            _ => return None,
        })
    }

    /// What stands for a field that is not there.
    fn instead(&self, reference: &Reference) -> Option<Value<'_>> {
        match &reference.root {
            Root::Context(name) if reference.steps.is_empty() => self.of_environment(name),
            _ => None,
        }
    }

    fn of_environment(&self, name: &str) -> Option<Value<'_>> {
        match self.event.stream.trace.class.env(name)? {
            EnvValue::Integer(value) => Some(Value::Integer(*value)),
            EnvValue::Text(text) => Some(Value::Text(text.as_bytes())),
        }
    }
}

/// The field itself, or what an optional field or variant holds.
fn content(field: Field<'_>) -> Option<Field<'_>> {
    match field.value() {
        FieldValue::Optional(inner) | FieldValue::Variant(_, inner) => content(inner?),
        _ => Some(field),
    }
}

impl Record for EventRecord<'_> {
    fn value(&self, reference: &Reference) -> Option<Value<'_>> {
        if let Root::Event(name) = &reference.root {
            return self.of_event(name).filter(|_| reference.steps.is_empty());
        }
        let at = address(reference);
        let value = match self.ways.iter().find(|(known, _)| *known == at) {
            Some((_, Way::Picked(field))) => self.event.picked(field)?,
            Some((_, Way::Absent)) => return self.instead(reference),
            Some((_, Way::Unknown)) | None => match self.field(reference) {
                Some(field) => content(field)?.value(),
                None => return self.instead(reference),
            },
        };
        Some(match value {
            FieldValue::Unsigned(value) | FieldValue::Bits(value) => Value::Integer(value.cast_signed()),
            FieldValue::Signed(value) => Value::Integer(value),
            FieldValue::Bool(value) => Value::Integer(i64::from(value)),
            FieldValue::Real(value) => Value::Real(value),
            FieldValue::Text(text) | FieldValue::Blob(text) => Value::Text(text),
            FieldValue::Struct(_)
            | FieldValue::Array(_)
            | FieldValue::Optional(_)
            | FieldValue::Variant(..) => return None,
        })
    }

    fn has_label(&self, reference: &Reference, label: &Pattern) -> Option<bool> {
        let field = content(self.field(reference)?)?;
        let FieldKind::Integer(class) = &field.class().kind else {
            return None;
        };
        let raw = match field.value() {
            FieldValue::Unsigned(value) => value,
            FieldValue::Signed(value) => value.cast_unsigned(),
            _ => return None,
        };
        class.is_enum.then(|| class.labels(raw).any(|text| label.matches(text.as_bytes())))
    }
}
