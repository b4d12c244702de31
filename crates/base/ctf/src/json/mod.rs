//! CTF 2 metadata: a JSON text sequence to a draft of the trace class.
//!
//! Strict as the specification by default. When lenient, unknown properties give warnings and what
//! release candidates wrote is understood: clock names as references, UUIDs of classes, enumeration
//! types, locations as lists, `user-attributes`.

mod fields;
mod object;
mod parse;

use std::sync::Arc;

use fields::{Aliases, Maker, attributes, refuse_extensions};
use object::{Object, Result, Source};
use parse::{Json, Value};

use crate::error::{MetadataError, Warning};
use crate::metadata::{Draft, DraftEvent, DraftStream};
use crate::model::{
    Attributes, ClockClass, ClockOrigin, Datum, EnvValue, FieldClass, FieldKind, LogLevel, Role, Scope, Uuid,
};

/// Builds a draft from sections of a JSON text sequence.
#[derive(Debug)]
pub(crate) struct Builder {
    lenient: bool,
    aliases: Aliases,
    seen_preamble: bool,
    seen_trace: bool,
    warnings: Vec<Warning>,
}

impl Builder {
    pub(crate) fn new(lenient: bool) -> Self {
        Self {
            lenient,
            aliases: Aliases::new(),
            seen_preamble: false,
            seen_trace: false,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// Takes a section of the text sequence into the draft.
    pub(crate) fn section(&mut self, text: &str, draft: &mut Draft) -> Result<()> {
        let mut warnings = std::mem::take(&mut self.warnings);
        let mut source = Source { text, lenient: self.lenient, warnings: &mut warnings };
        let result = self.fragments(&mut source, draft);
        self.warnings = warnings;
        result
    }

    fn fragments(&mut self, source: &mut Source<'_>, draft: &mut Draft) -> Result<()> {
        let text = source.text;
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let skipped = rest.len() - rest.trim_start_matches(['\x1e', ' ', '\t', '\r', '\n', '\0']).len();
            at += skipped;
            if at == text.len() {
                break;
            }
            let (json, end) = parse::parse(text, at)?;
            at = end;
            if !text[at..].is_empty() && !text[at..].starts_with('\x1e') {
                let rest = text[at..].trim_start_matches('\0');
                if !rest.is_empty() {
                    return source.fail(at, "expected a record separator (0x1e)");
                }
            }
            self.fragment(source, &json, draft)?;
        }
        Ok(())
    }

    /// What must be there in the end.
    pub(crate) fn check_complete(&self, draft: &Draft) -> Result<()> {
        if !self.seen_preamble {
            return Err(MetadataError::whole("Missing preamble fragment"));
        }
        if draft.streams.is_empty() {
            return Err(MetadataError::whole("Missing data stream class fragment"));
        }
        Ok(())
    }

    fn fragment(&mut self, source: &mut Source<'_>, json: &Json, draft: &mut Draft) -> Result<()> {
        let mut object = source.object(json)?;
        let kind_json = object.need(source, "type")?;
        let kind = source.text(kind_json)?;
        if (kind == "preamble") == self.seen_preamble {
            let message = if self.seen_preamble {
                "there is more than one preamble fragment"
            } else {
                "the first fragment must be the preamble"
            };
            return source.fail(kind_json.at, message);
        }
        match kind {
            "preamble" => self.preamble(source, &mut object, draft)?,
            "field-class-alias" => self.alias(source, &mut object)?,
            "trace-class" => self.trace(source, &mut object, draft)?,
            "clock-class" => self.clock(source, &mut object, draft)?,
            "data-stream-class" => self.stream(source, &mut object, draft)?,
            "event-record-class" => self.event(source, &mut object, draft)?,
            other => {
                return source.fail(kind_json.at, format!("unknown fragment type `{other}`"));
            }
        }
        source.finish(object)
    }

    fn preamble(
        &mut self,
        source: &mut Source<'_>,
        object: &mut Object<'_>,
        draft: &mut Draft,
    ) -> Result<()> {
        self.seen_preamble = true;
        let version = object.need(source, "version")?;
        if source.unsigned(version)? != 2 {
            return source.fail(version.at, "only version 2 is supported");
        }
        draft.uuid = uuid(source, object)?;
        attributes(source, object)?;
        // Extensions that are only declared would have to be known as well.
        refuse_extensions(source, object)
    }

    fn alias(&mut self, source: &mut Source<'_>, object: &mut Object<'_>) -> Result<()> {
        let name_json = object.need(source, "name")?;
        let name = source.text(name_json)?.to_owned();
        attributes(source, object)?;
        refuse_extensions(source, object)?;
        let json = object.need(source, "field-class")?;
        let class = self.maker(source).make(json)?;
        if self.aliases.insert(name.clone(), class).is_some() {
            return source.fail(name_json.at, format!("field class alias `{name}` is declared twice"));
        }
        Ok(())
    }

    fn maker<'a, 's>(&'a self, source: &'a mut Source<'s>) -> Maker<'a, 's> {
        Maker { source, aliases: &self.aliases, depth: 0 }
    }

    /// The structure of a scope, if there is one.
    fn root(
        &self,
        source: &mut Source<'_>,
        object: &mut Object<'_>,
        key: &str,
        scope: Scope,
    ) -> Result<Option<Arc<FieldClass>>> {
        let Some(json) = object.take(key) else {
            return Ok(None);
        };
        let mut class = self.maker(source).make(json)?;
        if class.as_struct().is_none() {
            return source.fail(json.at, "a scope must be a structure");
        }
        if let Err(message) = check_roles(&mut class, scope) {
            return source.fail(json.at, message);
        }
        Ok(Some(class))
    }

    fn trace(&mut self, source: &mut Source<'_>, object: &mut Object<'_>, draft: &mut Draft) -> Result<()> {
        if std::mem::replace(&mut self.seen_trace, true) {
            return source.fail(object.at, "there is more than one trace class fragment");
        }
        if !draft.streams.is_empty() {
            return source
                .fail(object.at, "the trace class fragment must come before data stream class fragments");
        }
        draft.namespace = object.text(source, "namespace")?;
        draft.name = object.text(source, "name")?;
        draft.uid = object.text(source, "uid")?;
        draft.attributes = attributes(source, object)?;
        refuse_extensions(source, object)?;
        if source.lenient
            && let Some(uuid) = uuid(source, object)?
        {
            draft.uid.get_or_insert_with(|| uuid.to_string());
        }
        if let Some(json) = object.take("environment") {
            let Value::Map(entries) = &json.value else {
                return source.fail(json.at, "expected an object");
            };
            for (name, json) in entries {
                let value = match &json.value {
                    Value::Text(text) => EnvValue::Text(text.clone()),
                    Value::Unsigned(value) => EnvValue::Integer((*value).cast_signed()),
                    Value::Signed(value) => EnvValue::Integer(*value),
                    _ => return source.fail(json.at, "expected a string or an integer"),
                };
                draft.environment.push((name.clone(), value));
            }
        }
        let header = self.root(source, object, "packet-header-field-class", Scope::PacketHeader)?;
        if let Some(header) = &header
            && draft.uuid.is_none()
            && has_role(header, Role::MetadataUuid)
        {
            return source.fail(
                object.at,
                "a packet header with a metadata stream UUID needs the UUID in the preamble",
            );
        }
        draft.packet_header = header;
        Ok(())
    }

    fn clock(&mut self, source: &mut Source<'_>, object: &mut Object<'_>, draft: &mut Draft) -> Result<()> {
        let at = object.at;
        let name = object.text(source, "name")?;
        let id = match object.text(source, "id")? {
            Some(id) => id,
            // Drafts refer to clocks by name.
            None if source.lenient => name.clone().unwrap_or_default(),
            None => return source.fail(at, "Missing object property `id`"),
        };
        let frequency = object.need(source, "frequency")?;
        let frequency_hz = source.unsigned(frequency)?;
        if frequency_hz == 0 {
            return source.fail(frequency.at, "clock frequency is 0");
        }
        let (offset_s, offset_cycles) = offset(source, object, frequency_hz)?;
        let class_uuid = if source.lenient { uuid(source, object)? } else { None };
        let clock = ClockClass {
            id,
            namespace: object.text(source, "namespace")?,
            name,
            uid: object.text(source, "uid")?,
            uuid: class_uuid,
            description: object.text(source, "description")?,
            frequency_hz,
            precision_cycles: object.unsigned(source, "precision")?,
            accuracy_cycles: object.unsigned(source, "accuracy")?,
            offset_s,
            offset_cycles,
            origin: origin(source, object)?,
            attributes: attributes(source, object)?,
        };
        refuse_extensions(source, object)?;
        if draft.clocks.iter().any(|other| other.id == clock.id) {
            return source.fail(at, format!("clock class `{}` is declared twice", clock.id));
        }
        draft.clocks.push(Arc::new(clock));
        Ok(())
    }

    fn stream(&mut self, source: &mut Source<'_>, object: &mut Object<'_>, draft: &mut Draft) -> Result<()> {
        let at = object.at;
        let clock_json = match object.take("default-clock-class-id") {
            None if source.lenient => object.take("default-clock-class-name"),
            json => json,
        };
        let clock = match clock_json {
            None => None,
            Some(json) => {
                let id = source.text(json)?;
                match draft.clocks.iter().find(|clock| clock.id == id) {
                    Some(clock) => Some(Arc::clone(clock)),
                    None => return source.fail(json.at, format!("no clock class with ID `{id}`")),
                }
            }
        };
        let context_key = "event-record-common-context-field-class";
        let stream = DraftStream {
            id: object.unsigned(source, "id")?.unwrap_or(0),
            namespace: object.text(source, "namespace")?,
            name: object.text(source, "name")?,
            uid: object.text(source, "uid")?,
            attributes: attributes(source, object)?,
            clock,
            packet_context: self.root(source, object, "packet-context-field-class", Scope::PacketContext)?,
            event_header: self.root(source, object, "event-record-header-field-class", Scope::EventHeader)?,
            common_context: self.root(source, object, context_key, Scope::CommonContext)?,
            ..DraftStream::default()
        };
        refuse_extensions(source, object)?;
        let timed = [&stream.packet_context, &stream.event_header]
            .into_iter()
            .flatten()
            .any(|root| has_role(root, Role::Timestamp) || has_role(root, Role::EndTimestamp));
        if timed && stream.clock.is_none() {
            return source.fail(at, "timestamp fields need a default clock class");
        }
        if draft.streams.iter().any(|other| other.id == stream.id) {
            return source.fail(at, format!("data stream class {} is declared twice", stream.id));
        }
        draft.streams.push(stream);
        Ok(())
    }

    fn event(&mut self, source: &mut Source<'_>, object: &mut Object<'_>, draft: &mut Draft) -> Result<()> {
        let at = object.at;
        let id = object.unsigned(source, "id")?.unwrap_or(0);
        let stream_id = object.unsigned(source, "data-stream-class-id")?.unwrap_or(0);
        let Some(position) = draft.streams.iter().position(|s| s.id == stream_id) else {
            return source.fail(at, format!("no data stream class with ID {stream_id}"));
        };
        if draft.streams[position].has_event(id) {
            return source.fail(
                at,
                format!("event record class {id} of data stream class {stream_id} is declared twice"),
            );
        }
        let attributes = attributes(source, object)?;
        refuse_extensions(source, object)?;
        let context_key = "specific-context-field-class";
        let event = DraftEvent {
            id,
            namespace: object.text(source, "namespace")?,
            name: object.text(source, "name")?,
            uid: object.text(source, "uid")?,
            log_level: known_attribute(&attributes, "log-level").and_then(LogLevel::from_attribute),
            emf_uri: known_attribute(&attributes, "emf-uri").map(str::to_owned),
            attributes,
            specific_context: self.root(source, object, context_key, Scope::SpecificContext)?,
            payload: self.root(source, object, "payload-field-class", Scope::Payload)?,
            at,
            ..DraftEvent::default()
        };
        draft.add_event(position, event);
        Ok(())
    }
}

/// An attribute in the namespaces of LTTng or Babeltrace.
fn known_attribute<'a>(attributes: &'a Attributes, key: &str) -> Option<&'a str> {
    attributes
        .iter()
        .filter(|(namespace, _)| matches!(namespace.as_str(), "lttng.org,2009" | "babeltrace.org,2020"))
        .find_map(|(_, value)| value.get(key).and_then(Datum::as_str))
}

fn offset(source: &mut Source<'_>, object: &mut Object<'_>, hz: u64) -> Result<(i64, u64)> {
    let Some(json) = object.take("offset-from-origin") else {
        return Ok((0, 0));
    };
    let mut offset = source.object(json)?;
    let seconds = match offset.take("seconds") {
        Some(json) => match i64::try_from(source.integer(json)?) {
            Ok(seconds) => seconds,
            Err(_) => return source.fail(json.at, "offset does not fit 64 bits"),
        },
        None => 0,
    };
    let cycles = offset.unsigned(source, "cycles")?.unwrap_or(0);
    if cycles >= hz {
        return source
            .fail(json.at, format!("offset of {cycles} cycles is not less than the frequency {hz}"));
    }
    source.finish(offset)?;
    Ok((seconds, cycles))
}

fn origin(source: &mut Source<'_>, object: &mut Object<'_>) -> Result<ClockOrigin> {
    let Some(json) = object.take("origin") else {
        return Ok(ClockOrigin::Unknown);
    };
    if let Value::Text(text) = &json.value {
        return match text.as_str() {
            "unix-epoch" => Ok(ClockOrigin::UnixEpoch),
            _ => source.fail(json.at, format!("unknown clock origin `{text}`")),
        };
    }
    let mut object = source.object(json)?;
    let namespace = object.text(source, "namespace")?;
    let name = object.need(source, "name")?;
    let uid = object.need(source, "uid")?;
    let origin = ClockOrigin::Custom {
        namespace,
        name: source.text(name)?.to_owned(),
        uid: source.text(uid)?.to_owned(),
    };
    source.finish(object)?;
    Ok(origin)
}

/// Takes a UUID written as 16 integers.
fn uuid(source: &mut Source<'_>, object: &mut Object<'_>) -> Result<Option<Uuid>> {
    let Some(json) = object.take("uuid") else {
        return Ok(None);
    };
    let mut bytes = [0; 16];
    let items = source.list(json)?;
    if items.len() != 16 {
        return source.fail(json.at, "a UUID has 16 bytes");
    }
    for (byte, json) in bytes.iter_mut().zip(items) {
        *byte = match u8::try_from(source.unsigned(json)?) {
            Ok(value) => value,
            Err(_) => return source.fail(json.at, "a byte of a UUID is 0 to 255"),
        };
    }
    Ok(Some(Uuid(bytes)))
}

fn has_role(class: &FieldClass, role: Role) -> bool {
    class.roles().contains(role)
        || match &class.kind {
            FieldKind::Struct(c) => c.members.iter().any(|m| has_role(&m.class, role)),
            FieldKind::Array(c) => has_role(&c.element, role),
            FieldKind::Optional(c) => has_role(&c.content, role),
            FieldKind::Variant(c) => c.options.iter().any(|o| has_role(&o.class, role)),
            _ => false,
        }
}

/// Removes the roles that mean nothing in a scope (aliases may be used in several); refuses a magic
/// number that is not a 32-bit first member.
fn check_roles(root: &mut Arc<FieldClass>, scope: Scope) -> std::result::Result<(), &'static str> {
    let allowed: &[Role] = match scope {
        Scope::PacketHeader => &[Role::PacketMagic, Role::MetadataUuid, Role::StreamClassId, Role::StreamId],
        Scope::PacketContext => &[
            Role::PacketSize,
            Role::ContentSize,
            Role::Timestamp,
            Role::EndTimestamp,
            Role::EventsDiscarded,
            Role::PacketSequence,
        ],
        Scope::EventHeader => &[Role::EventClassId, Role::Timestamp],
        _ => &[],
    };
    if scope == Scope::PacketHeader
        && let Some(root) = root.as_struct()
    {
        for (index, member) in root.members.iter().enumerate() {
            if has_role(&member.class, Role::PacketMagic) {
                let fits = match &member.class.kind {
                    FieldKind::Integer(c) => c.size_bits() == 32,
                    _ => false,
                };
                if index != 0 || !fits {
                    return Err("the magic number must be a 32-bit integer and the first member");
                }
            }
        }
    }
    keep_roles(root, allowed);
    Ok(())
}

fn keep_roles(class: &mut Arc<FieldClass>, allowed: &[Role]) {
    if !any_role(class) {
        return;
    }
    let class = Arc::make_mut(class);
    match &mut class.kind {
        FieldKind::Integer(c) => c.roles.keep(allowed),
        FieldKind::Blob(c) => c.roles.keep(allowed),
        FieldKind::Struct(c) => {
            for member in &mut c.members {
                keep_roles(&mut member.class, allowed);
            }
        }
        FieldKind::Array(c) => keep_roles(&mut c.element, allowed),
        FieldKind::Optional(c) => keep_roles(&mut c.content, allowed),
        FieldKind::Variant(c) => {
            for option in &mut c.options {
                keep_roles(&mut option.class, allowed);
            }
        }
        _ => {}
    }
}

fn any_role(class: &FieldClass) -> bool {
    !class.roles().is_empty()
        || match &class.kind {
            FieldKind::Struct(c) => c.members.iter().any(|m| any_role(&m.class)),
            FieldKind::Array(c) => any_role(&c.element),
            FieldKind::Optional(c) => any_role(&c.content),
            FieldKind::Variant(c) => c.options.iter().any(|o| any_role(&o.class)),
            _ => false,
        }
}
