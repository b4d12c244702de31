//! Events that a filter of the filter language lets pass.
//!
//! A bare name is a field of the payload, else of the event's own, the common or the packet's
//! context. `$ctx.NAME` looks in the contexts only, then in the trace's environment (a process's
//! name or number may stand there). `$app.PROVIDER:TYPE` is the context of that name.
//! `$event.name`, `$event.loglevel`, `$event.id`, `$event.stream` are about the event itself. An
//! enumeration equals its value and, compared with text, each of its labels. All messages but
//! events pass.

use sillage_ctf::model::{EnvValue, FieldKind, Scope};
use sillage_ctf::{Event, Field, Message, Value as FieldValue};
use sillage_filter::{Expression, Pattern, Record, Reference, Root, Step, Value, matches};

use crate::{Error, Messages, Status, Warning};

/// Passes on the events that a filter lets pass.
#[derive(Debug)]
pub struct Matcher<M> {
    source: M,
    filter: Expression,
}

impl<M: Messages> Matcher<M> {
    /// The messages of `source` without the events that do not match.
    pub fn new(source: M, filter: Expression) -> Self {
        Self { source, filter }
    }
}

impl<M: Messages> Messages for Matcher<M> {
    fn advance(&mut self) -> Result<Status, Error> {
        loop {
            let status = self.source.advance()?;
            if status != Status::Ready {
                return Ok(status);
            }
            match self.source.current() {
                Some(Message::Event(event)) if !matches(&self.filter, &EventRecord(event)) => {}
                _ => return Ok(Status::Ready),
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
struct EventRecord<'a>(Event<'a>);

/// Where contexts are, nearest first.
const CONTEXTS: [Scope; 3] = [Scope::SpecificContext, Scope::CommonContext, Scope::PacketContext];

impl<'a> EventRecord<'a> {
    fn in_scopes(&self, scopes: &[Scope], name: &str) -> Option<Field<'a>> {
        scopes.iter().find_map(|scope| self.0.scope(*scope)?.get(name))
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
        CONTEXTS.iter().find_map(|scope| match self.0.scope(*scope)?.value() {
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
            "name" => Value::Text(self.0.class.name.as_deref()?.as_bytes()),
            "loglevel" => Value::Integer(i64::from(self.0.class.log_level?.number())),
            "id" => Value::Integer(self.0.class.id.cast_signed()),
            "stream" => Value::Integer(self.0.stream.id.cast_signed()),
            _ => return None,
        })
    }

    fn of_environment(&self, name: &str) -> Option<Value<'_>> {
        match self.0.stream.trace.class.env(name)? {
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
        let Some(field) = self.field(reference) else {
            return match &reference.root {
                Root::Context(name) if reference.steps.is_empty() => self.of_environment(name),
                _ => None,
            };
        };
        Some(match content(field)?.value() {
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
