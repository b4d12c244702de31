//! TSDL, the metadata language of CTF 1.8: text to a draft of the trace class.
//!
//! Lexer, parser and this builder follow one another. Text may come in sections (live): names,
//! types and blocks of earlier sections stay. Inside a section the trace's byte order is looked up
//! first, then environment, clocks, types, the trace, streams and events are taken in this order,
//! wherever they stand. Unknown attributes give warnings, broken rules give errors with a place;
//! in a whole file,
//! a last declaration that was cut off is left out with a warning: who wrote it was killed.

mod ast;
mod lexer;
mod parser;
mod types;

use std::sync::Arc;

use ast::{Attribute, BlockKind, Expr, Item, Spec};
use types::Types;

use crate::error::{MetadataError, Warning};
use crate::metadata::{Draft, DraftEvent, DraftStream};
use crate::model::{
    ArrayClass, Attributes, BlobClass, ClockClass, ClockOrigin, EnvValue, FieldClass, FieldKind, Length,
    LogLevel, Role, Roles, Uuid,
};

type Result<T> = std::result::Result<T, Box<MetadataError>>;

/// What may come behind a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// More sections: one that ends in the middle of a declaration is not complete.
    Unknown,
    /// It is a whole file: nothing ever completes a declaration that is torn.
    Nothing,
}

/// Builds a draft from sections of TSDL.
#[derive(Debug)]
pub(crate) struct Builder {
    types: Types,
    seen_trace: bool,
    /// Whether the only stream class was made because events came without one.
    implicit_stream: bool,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { types: Types::new(), seen_trace: false, implicit_stream: false }
    }

    /// Takes a section of text into the draft.
    pub(crate) fn section(&mut self, text: &str, rest: Rest, draft: &mut Draft) -> Result<()> {
        let (items, torn_at) = match parser::parse(text) {
            Ok(items) => (items, None),
            Err(error) => {
                let torn = if rest == Rest::Nothing { lexer::torn_behind(text) } else { None };
                let Some(whole) = torn else { return Err(error) };
                (parser::parse(&text[..whole])?, Some(whole))
            }
        };
        text.clone_into(&mut self.types.text);
        if let Some(whole) = torn_at {
            let cut = text.len() - whole;
            let message = format!(
                "the metadata end in a torn declaration: {cut} bytes behind offset {whole} are left out"
            );
            self.types.warn(whole, message);
        }
        self.byte_order(&items, draft)?;
        self.blocks(&items, BlockKind::Env, draft, Self::env)?;
        self.blocks(&items, BlockKind::Clock, draft, Self::clock)?;
        for item in &items {
            match item {
                Item::Block { .. } => {}
                Item::Assign { at, .. } | Item::TypeAssign { at, .. } => {
                    return self.types.fail(*at, "this is only allowed inside a block");
                }
                Item::Declaration { spec, declarators } if !declarators.is_empty() => {
                    return self.types.fail(spec.at, "fields are only allowed inside a structure");
                }
                _ => {
                    self.types.declare(item)?;
                }
            }
        }
        self.blocks(&items, BlockKind::Trace, draft, Self::trace)?;
        self.blocks(&items, BlockKind::Stream, draft, Self::stream)?;
        self.blocks(&items, BlockKind::Event, draft, Self::event)?;
        for item in &items {
            if let Item::Block { kind: BlockKind::Callsite, at, .. } = item {
                self.types.warn(*at, "callsite block is ignored");
            }
        }
        Ok(())
    }

    pub(crate) fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.types.warnings)
    }

    fn blocks(
        &mut self,
        items: &[Item<'_>],
        wanted: BlockKind,
        draft: &mut Draft,
        take: fn(&mut Self, &[Item<'_>], usize, &mut Draft) -> Result<()>,
    ) -> Result<()> {
        for item in items {
            if let Item::Block { kind, items, at } = item
                && *kind == wanted
            {
                take(self, items, *at, draft)?;
            }
        }
        Ok(())
    }

    /// Looks for the byte order, which all types need.
    fn byte_order(&mut self, items: &[Item<'_>], draft: &mut Draft) -> Result<()> {
        for item in items {
            let Item::Block { kind: BlockKind::Trace, items, .. } = item else {
                continue;
            };
            for item in items {
                if let Item::Assign { name, value, at } = item
                    && name == "byte_order"
                {
                    let attribute = Attribute { at: *at, name: name.clone(), value: value.clone() };
                    let order = self.types.order(&attribute, false)?;
                    if draft.byte_order.is_some_and(|old| Some(old) != order) {
                        return self.types.fail(*at, "byte order changes");
                    }
                    draft.byte_order = order;
                    self.types.byte_order = order;
                }
            }
        }
        Ok(())
    }

    fn env(&mut self, items: &[Item<'_>], _: usize, draft: &mut Draft) -> Result<()> {
        for item in items {
            let Item::Assign { name, value, at } = item else {
                return self.types.fail(0, "only `name = value;` is allowed in an env block");
            };
            let value = match value {
                Expr::Str(text) => EnvValue::Text(text.to_string()),
                Expr::Int { value, negative } => EnvValue::Integer(if *negative {
                    (*value).cast_signed().wrapping_neg()
                } else {
                    (*value).cast_signed()
                }),
                Expr::Path(_) => {
                    let message = format!("value of `{name}` is neither text nor an integer");
                    self.types.warn(*at, message);
                    continue;
                }
            };
            match draft.environment.iter_mut().find(|(key, _)| key == name) {
                Some((_, old)) => *old = value,
                None => draft.environment.push((name.to_string(), value)),
            }
        }
        self.types.environment.clone_from(&draft.environment);
        Ok(())
    }

    fn clock(&mut self, items: &[Item<'_>], at: usize, draft: &mut Draft) -> Result<()> {
        let mut clock = ClockClass {
            id: String::new(),
            namespace: None,
            name: None,
            uid: None,
            uuid: None,
            description: None,
            frequency_hz: 1_000_000_000,
            precision_cycles: None,
            accuracy_cycles: None,
            offset_s: 0,
            offset_cycles: 0,
            origin: ClockOrigin::Unknown,
            attributes: Attributes::new(),
        };
        let mut offset = 0i128;
        let mut seen = Vec::new();
        for item in items {
            let Item::Assign { name, value, at } = item else {
                return self.types.fail(at, "only `name = value;` is allowed in a clock block");
            };
            let at = *at;
            self.unique(item, &mut seen)?;
            match &**name {
                "name" => clock.id = self.words(at, name, value)?,
                "uuid" => clock.uuid = Some(self.uuid(at, value)?),
                "description" => clock.description = Some(self.words(at, name, value)?),
                "freq" => clock.frequency_hz = self.unsigned(at, name, value)?,
                "precision" => clock.precision_cycles = Some(self.unsigned(at, name, value)?),
                "offset_s" => clock.offset_s = self.signed(at, name, value)? as i64,
                "offset" => offset = self.signed(at, name, value)?,
                "absolute" => {
                    let attribute = Attribute { at, name: name.clone(), value: value.clone() };
                    if self.types.boolean(&attribute)? {
                        clock.origin = ClockOrigin::UnixEpoch;
                    }
                }
                _ => {
                    let message = format!("unknown attribute `{name}` in clock block");
                    self.types.warn(at, message);
                }
            }
        }
        if clock.id.is_empty() {
            return self.types.fail(at, "clock block without `name`");
        }
        if clock.frequency_hz == 0 {
            return self.types.fail(at, "clock frequency is 0");
        }
        if draft.clocks.iter().any(|other| other.id == clock.id) {
            return self.types.fail(at, format!("clock `{}` is declared twice", clock.id));
        }
        let hz = i128::from(clock.frequency_hz);
        clock.offset_cycles = offset.rem_euclid(hz) as u64;
        let carried = i128::from(clock.offset_s) + offset.div_euclid(hz);
        clock.offset_s = i64::try_from(carried).unwrap_or(i64::MAX);
        // LTTng's clock counts from the epoch and does not say so.
        if clock.id == "monotonic" {
            clock.origin = ClockOrigin::UnixEpoch;
        }
        clock.name = Some(clock.id.clone());
        draft.clocks.push(Arc::new(clock));
        self.types.clocks.clone_from(&draft.clocks);
        Ok(())
    }

    fn trace(&mut self, items: &[Item<'_>], at: usize, draft: &mut Draft) -> Result<()> {
        if std::mem::replace(&mut self.seen_trace, true) {
            return self.types.fail(at, "there is more than one trace block");
        }
        self.types.push_scope();
        let mut seen = Vec::new();
        for item in items {
            self.unique(item, &mut seen)?;
            match item {
                Item::Assign { name, value, at } => match &**name {
                    "major" => self.version(*at, name, value, 1)?,
                    "minor" => self.version(*at, name, value, 8)?,
                    "uuid" => draft.uuid = Some(self.uuid(*at, value)?),
                    "byte_order" => {}
                    _ => {
                        let message = format!("unknown attribute `{name}` in trace block");
                        self.types.warn(*at, message);
                    }
                },
                Item::TypeAssign { name, spec, at } => {
                    if name == "packet.header" {
                        draft.packet_header = Some(self.packet_header(spec)?);
                    } else {
                        let message = format!("unknown scope `{name}` in trace block");
                        self.types.warn(*at, message);
                    }
                }
                _ => {
                    self.types.declare(item)?;
                }
            }
        }
        self.types.pop_scope();
        if draft.byte_order.is_none() {
            return self.types.fail(at, "trace block without `byte_order`");
        }
        Ok(())
    }

    fn version(&self, at: usize, name: &str, value: &Expr<'_>, wanted: u64) -> Result<()> {
        let found = self.unsigned(at, name, value)?;
        if found == wanted {
            return Ok(());
        }
        self.types.fail(at, format!("`{name}` is {found}, only CTF 1.8 is supported here"))
    }

    /// The structure of a scope.
    fn root(&mut self, spec: &Spec<'_>) -> Result<Arc<FieldClass>> {
        let made = self.types.make(spec)?;
        if made.class.as_struct().is_none() {
            return self.types.fail(spec.at, "a scope must be a structure");
        }
        Ok(made.class)
    }

    fn packet_header(&mut self, spec: &Spec<'_>) -> Result<Arc<FieldClass>> {
        let mut class = self.root(spec)?;
        let FieldKind::Struct(root) = &mut Arc::make_mut(&mut class).kind else {
            return Ok(class);
        };
        let mut problem = None;
        for member in &mut root.members {
            let role = match member.raw_name.as_str() {
                "magic" => Role::PacketMagic,
                "stream_id" => Role::StreamClassId,
                "stream_instance_id" => Role::StreamId,
                "uuid" => {
                    match uuid_blob(&member.class) {
                        Some(blob) => member.class = Arc::new(blob),
                        None => problem = Some("`uuid` must be an array of 16 bytes"),
                    }
                    continue;
                }
                name => {
                    let message = format!("unknown member `{name}` in packet header");
                    self.types.warn(spec.at, message);
                    continue;
                }
            };
            if let Some(clock) = mapped_clock(&member.class) {
                let message = format!("packet header is mapped to clock `{clock}`");
                return self.types.fail(spec.at, message);
            }
            if !add_role(Arc::make_mut(&mut member.class), role) {
                problem = Some("members of the packet header must be unsigned integers");
            }
        }
        match problem {
            Some(problem) => self.types.fail(spec.at, problem),
            None => Ok(class),
        }
    }

    fn stream(&mut self, items: &[Item<'_>], at: usize, draft: &mut Draft) -> Result<()> {
        let mut stream = DraftStream::default();
        let mut id = None;
        let mut clock = None;
        self.types.push_scope();
        let mut seen = Vec::new();
        for item in items {
            self.unique(item, &mut seen)?;
            match item {
                Item::Assign { name, value, at } => {
                    if name == "id" {
                        id = Some(self.unsigned(*at, name, value)?);
                    } else {
                        let message = format!("unknown attribute `{name}` in stream block");
                        self.types.warn(*at, message);
                    }
                }
                Item::TypeAssign { name, spec, at } => {
                    let mut class = self.root(spec)?;
                    match &**name {
                        "packet.context" => {
                            self.context_roles(&mut class, spec.at, &mut clock, draft)?;
                            stream.packet_context = Some(class);
                        }
                        "event.header" => {
                            let root = Arc::make_mut(&mut class);
                            self.header_roles(root, spec.at, &mut clock, draft)?;
                            stream.event_header = Some(class);
                        }
                        "event.context" => stream.common_context = Some(class),
                        _ => {
                            let message = format!("unknown scope `{name}` in stream block");
                            self.types.warn(*at, message);
                        }
                    }
                }
                _ => {
                    self.types.declare(item)?;
                }
            }
        }
        self.types.pop_scope();
        if id.is_none() && !draft.streams.is_empty() {
            return self.types.fail(at, "stream block without `id` beside another one");
        }
        stream.id = id.unwrap_or(0);
        if self.implicit_stream || draft.streams.iter().any(|s| s.id == stream.id) {
            return self.types.fail(at, format!("stream {} is declared twice", stream.id));
        }
        stream.clock = clock;
        draft.streams.push(stream);
        Ok(())
    }

    /// Roles of the packet context's members.
    fn context_roles(
        &mut self,
        class: &mut Arc<FieldClass>,
        at: usize,
        clock: &mut Option<Arc<ClockClass>>,
        draft: &mut Draft,
    ) -> Result<()> {
        let FieldKind::Struct(root) = &mut Arc::make_mut(class).kind else {
            return Ok(());
        };
        for member in &mut root.members {
            let role = match member.raw_name.as_str() {
                "timestamp_begin" => Role::Timestamp,
                "timestamp_end" => Role::EndTimestamp,
                "content_size" => Role::ContentSize,
                "packet_size" => Role::PacketSize,
                "events_discarded" => Role::EventsDiscarded,
                "packet_seq_num" => Role::PacketSequence,
                _ => continue,
            };
            let class = Arc::make_mut(&mut member.class);
            if !add_role(class, role) {
                let name = &member.raw_name;
                return self.types.fail(at, format!("`{name}` must be an unsigned integer"));
            }
            if matches!(role, Role::Timestamp | Role::EndTimestamp) {
                self.map_clock(class, at, clock, draft)?;
            }
        }
        Ok(())
    }

    /// Roles in the event header: every `id`, and every `timestamp` or mapped integer.
    fn header_roles(
        &mut self,
        class: &mut FieldClass,
        at: usize,
        clock: &mut Option<Arc<ClockClass>>,
        draft: &mut Draft,
    ) -> Result<()> {
        let mut fields: Vec<(&str, &mut Arc<FieldClass>)> = match &mut class.kind {
            FieldKind::Struct(c) => {
                c.members.iter_mut().map(|m| (m.raw_name.as_str(), &mut m.class)).collect()
            }
            FieldKind::Variant(c) => c
                .options
                .iter_mut()
                .map(|o| (o.raw_name.as_deref().unwrap_or_default(), &mut o.class))
                .collect(),
            _ => return Ok(()),
        };
        for (name, class) in &mut fields {
            let class = Arc::make_mut(class);
            if !matches!(class.kind, FieldKind::Integer(_)) {
                self.header_roles(class, at, clock, draft)?;
                continue;
            }
            if *name == "id" && !add_role(class, Role::EventClassId) {
                return self.types.fail(at, "event header's `id` must be an unsigned integer");
            }
            let timed = *name == "timestamp" || mapped_clock(class).is_some();
            if timed && add_role(class, Role::Timestamp) {
                self.map_clock(class, at, clock, draft)?;
            }
        }
        Ok(())
    }

    /// The clock of a timestamp: the one it is mapped to, else the only one, else one of our own.
    fn map_clock(
        &mut self,
        class: &mut FieldClass,
        at: usize,
        clock: &mut Option<Arc<ClockClass>>,
        draft: &mut Draft,
    ) -> Result<()> {
        let found = match mapped_clock(class) {
            Some(name) => draft.clocks.iter().find(|c| c.id == name).cloned(),
            None => match draft.clocks.as_slice() {
                [] => {
                    let own = Arc::new(default_clock());
                    draft.clocks.push(Arc::clone(&own));
                    self.types.clocks.clone_from(&draft.clocks);
                    Some(own)
                }
                [only] => Some(Arc::clone(only)),
                _ => {
                    return self.types.fail(at, "timestamp is mapped to no clock and the trace has several");
                }
            },
        };
        if let (Some(old), Some(new)) = (&clock, &found)
            && old.id != new.id
        {
            return self.types.fail(at, "the timestamps of a stream are mapped to different clocks");
        }
        *clock = found;
        Ok(())
    }

    fn event(&mut self, items: &[Item<'_>], at: usize, draft: &mut Draft) -> Result<()> {
        let mut event = DraftEvent { at, ..DraftEvent::default() };
        let mut id = None;
        let mut stream_id = None;
        self.types.push_scope();
        let mut seen = Vec::new();
        for item in items {
            self.unique(item, &mut seen)?;
            match item {
                Item::Assign { name, value, at } => match &**name {
                    "name" => event.name = Some(self.words(*at, name, value)?),
                    "id" => id = Some(self.unsigned(*at, name, value)?),
                    "stream_id" => stream_id = Some(self.unsigned(*at, name, value)?),
                    "loglevel" => event.log_level = self.log_level(*at, value),
                    "model.emf.uri" => {
                        let uri = self.words(*at, name, value)?;
                        event.emf_uri = (!uri.is_empty()).then_some(uri);
                    }
                    _ => {
                        let message = format!("unknown attribute `{name}` in event block");
                        self.types.warn(*at, message);
                    }
                },
                Item::TypeAssign { name, spec, at } => match &**name {
                    "context" => event.specific_context = Some(self.root(spec)?),
                    "fields" => event.payload = Some(self.root(spec)?),
                    _ => {
                        let message = format!("unknown scope `{name}` in event block");
                        self.types.warn(*at, message);
                    }
                },
                _ => {
                    self.types.declare(item)?;
                }
            }
        }
        self.types.pop_scope();
        if event.name.is_none() {
            return self.types.fail(at, "event block without `name`");
        }
        let position = self.stream_of(stream_id, at, draft)?;
        let stream = &draft.streams[position];
        event.id = match id {
            Some(id) => id,
            None if stream.events.is_empty() => 0,
            None => return self.types.fail(at, "event block without `id` beside another one"),
        };
        if stream.has_event(event.id) {
            let (id, stream_id) = (event.id, stream.id);
            return self.types.fail(at, format!("event {id} of stream {stream_id} is declared twice"));
        }
        draft.add_event(position, event);
        Ok(())
    }

    /// Position of the event's stream; makes one when there is none at all.
    fn stream_of(&mut self, id: Option<u64>, at: usize, draft: &mut Draft) -> Result<usize> {
        if draft.streams.is_empty() && id.unwrap_or(0) == 0 {
            self.implicit_stream = true;
            draft.streams.push(DraftStream::default());
        }
        match id {
            None if draft.streams.len() == 1 => Ok(0),
            None => self.types.fail(at, "event block without `stream_id` in a trace of several streams"),
            Some(id) => match draft.streams.iter().position(|s| s.id == id) {
                Some(position) => Ok(position),
                None => self.types.fail(at, format!("stream {id} is not declared")),
            },
        }
    }

    fn log_level(&mut self, at: usize, value: &Expr<'_>) -> Option<LogLevel> {
        let level = match value {
            Expr::Int { value, negative: false } => {
                i64::try_from(*value).ok().and_then(LogLevel::from_number)
            }
            _ => None,
        };
        if level.is_none() {
            self.types.warn(at, "unknown log level is ignored");
        }
        level
    }

    fn unique<'i>(&self, item: &'i Item, seen: &mut Vec<&'i str>) -> Result<()> {
        let (name, at) = match item {
            Item::Assign { name, at, .. } | Item::TypeAssign { name, at, .. } => (name, *at),
            _ => return Ok(()),
        };
        if seen.contains(&&**name) {
            return self.types.fail(at, format!("duplicate attribute `{name}`"));
        }
        // More than there are known attributes.
        if seen.len() < 64 {
            seen.push(name);
        }
        Ok(())
    }

    /// Text or an identifier.
    fn words(&self, at: usize, name: &str, value: &Expr<'_>) -> Result<String> {
        match value {
            Expr::Str(text) | Expr::Path(text) => Ok(text.to_string()),
            Expr::Int { .. } => self.types.fail(at, format!("`{name}` must be text")),
        }
    }

    fn unsigned(&self, at: usize, name: &str, value: &Expr<'_>) -> Result<u64> {
        match value {
            Expr::Int { value, negative: false } => Ok(*value),
            _ => self.types.fail(at, format!("`{name}` must be an unsigned integer")),
        }
    }

    fn signed(&self, at: usize, name: &str, value: &Expr<'_>) -> Result<i128> {
        match value {
            Expr::Int { value, negative } if *negative => Ok(-i128::from(*value)),
            Expr::Int { value, .. } => Ok(i128::from(*value)),
            _ => self.types.fail(at, format!("`{name}` must be an integer")),
        }
    }

    fn uuid(&self, at: usize, value: &Expr<'_>) -> Result<Uuid> {
        let found = match value {
            Expr::Str(text) => Uuid::parse(text),
            _ => None,
        };
        match found {
            Some(uuid) => Ok(uuid),
            None => self.types.fail(at, "`uuid` must be the text of a UUID"),
        }
    }
}

/// The clock of traces that have timestamps and no clock.
fn default_clock() -> ClockClass {
    ClockClass {
        id: "default".to_owned(),
        namespace: None,
        name: Some("default".to_owned()),
        uid: None,
        uuid: None,
        description: None,
        frequency_hz: 1_000_000_000,
        precision_cycles: None,
        accuracy_cycles: None,
        offset_s: 0,
        offset_cycles: 0,
        origin: ClockOrigin::Unknown,
        attributes: Attributes::new(),
    }
}

/// Sixteen bytes as what they are; `None` for any other class.
fn uuid_blob(class: &FieldClass) -> Option<FieldClass> {
    let FieldKind::Array(ArrayClass { element, length: Length::Static(16) }) = &class.kind else {
        return None;
    };
    let FieldKind::Integer(byte) = &element.kind else {
        return None;
    };
    if byte.size_bits() != 8 || element.alignment_bits != 8 {
        return None;
    }
    let mut roles = Roles::default();
    roles.insert(Role::MetadataUuid);
    let kind = FieldKind::Blob(BlobClass {
        length: Length::Static(16),
        media_type: "application/octet-stream".to_owned(),
        roles,
    });
    Some(FieldClass::new(kind, 8))
}

/// Adds a role to an unsigned integer; false for other classes.
fn add_role(class: &mut FieldClass, role: Role) -> bool {
    match &mut class.kind {
        FieldKind::Integer(c) if !c.signed => {
            c.roles.insert(role);
            true
        }
        _ => false,
    }
}

fn mapped_clock(class: &FieldClass) -> Option<String> {
    match &class.kind {
        FieldKind::Integer(c) => c.mapped_clock.clone(),
        _ => None,
    }
}
