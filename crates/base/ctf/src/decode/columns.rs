//! Records found at once, as columns: for whoever wants values by the thousand, not events.
//!
//! [`Columns`] is a view of what a decoder has at hand, row by row in the order of the packet. A
//! [`Picked`] field, looked up once per event class, is then read out of all rows together: where
//! its place in the record is fixed, with one load a row. Rows are never reordered nor copied, and
//! nothing is allocated beside what the caller's vectors need.

use super::packet::PacketDecoder;
use super::plan::{Node, Plan};
use super::records::Record;
use super::table::Value;
use super::walk::{FieldVisitor, Scalars};
use super::whole::{self, Kind, Leaf};
use crate::model::{EventClass, FieldKind, Scope, StreamClass, StringEncoding};

/// Records at hand as columns; see [`PacketDecoder::columns`].
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    pub(super) class: &'a StreamClass,
    pub(super) data: &'a [u8],
    pub(super) decoder: &'a PacketDecoder,
    /// First and last-plus-one row, counted from the current record.
    pub(super) rows: (usize, usize),
}

/// A field of an event class, to be read as a column.
#[derive(Debug, Clone)]
pub struct Picked {
    event_class: u32,
    scope: Scope,
    node: usize,
    /// Its place in the scope, when that does not depend on data.
    leaf: Option<Leaf>,
    /// See [`is_plain`](Self::is_plain).
    is_plain: bool,
}

impl Picked {
    /// The member `name` of a scope's root structure, in events of the class at this position of
    /// the stream class; `None` when there is no such event class, scope or member.
    pub fn new(class: &StreamClass, event_class: usize, scope: Scope, name: &str) -> Option<Self> {
        let event = class.event_classes.get(event_class)?;
        let plan = match scope {
            Scope::CommonContext => &class.plan.common,
            Scope::SpecificContext => &event.plan.specific,
            Scope::Payload => &event.plan.payload,
            _ => return None,
        };
        let inside = |node: &&Node| node.id != 0 && node.parent == 0 && &*node.name == name;
        let found = plan.nodes.iter().find(inside)?;
        let node = found.id;
        let leaf = plan.whole.as_ref().and_then(|whole| whole.leaf(node));
        let is_plain = found.class.visible
            && match &found.class.kind {
                FieldKind::Integer(_) | FieldKind::Bool(_) | FieldKind::BitArray(_) => true,
                FieldKind::Float(_) | FieldKind::Blob(_) => true,
                FieldKind::String(class) => class.encoding == StringEncoding::Utf8,
                _ => false,
            };
        Some(Self { event_class: u32::try_from(event_class).ok()?, scope, node, leaf, is_plain })
    }

    /// Whether it is a value by itself that lies in the packet as it is told, so that
    /// [`Event::picked`](crate::Event::picked) gives it.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The value in a decoder's current record.
    #[inline]
    pub(crate) fn read<'a>(
        &self,
        decoder: &PacketDecoder,
        class: &StreamClass,
        data: &'a [u8],
    ) -> Option<Value<'a>> {
        let record = decoder.record().filter(|record| record.class == self.event_class && self.is_plain)?;
        if let Some(leaf) = &self.leaf
            && let Some((plan, start)) = self.start(class, record)
            && let Some(bytes) = plan.whole.as_ref().and_then(|whole| whole.bytes(data, start))
        {
            match leaf.kind {
                Kind::Number | Kind::Odd | Kind::Kept if leaf.sign != 0 => {
                    return Some(Value::Signed(leaf.number(bytes).cast_signed()));
                }
                Kind::Number | Kind::Odd | Kind::Kept => return Some(Value::Unsigned(leaf.number(bytes))),
                Kind::Text => return Some(Value::Text(whole::text(leaf, bytes))),
                _ => {}
            }
        }
        let mut visitor = PlainAt { node: self.node, data, value: None };
        decoder.visit(class, data, self.scope, &mut visitor);
        visitor.value
    }

    fn start<'a>(&self, class: &'a StreamClass, record: &Record) -> Option<(&'a Plan, u64)> {
        let event = class.event_classes.get(self.event_class as usize)?;
        let (plan, start) = match self.scope {
            Scope::CommonContext => (&class.plan.common, 0),
            Scope::SpecificContext => (&event.plan.specific, 1),
            _ => (&event.plan.payload, 2),
        };
        Some((plan, record.at + u64::from(record.starts[start])))
    }
}

impl<'a> Columns<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.clocks().len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.clocks().is_empty()
    }

    /// Some of the rows: from the one at `from` on, `count` of them or as many as there are.
    #[must_use]
    pub fn part(self, from: usize, count: usize) -> Self {
        let from = self.rows.0.saturating_add(from).min(self.rows.1);
        Self { rows: (from, from.saturating_add(count).min(self.rows.1)), ..self }
    }

    /// Clock of each row, in cycles.
    pub fn clocks(&self) -> &'a [u64] {
        self.decoder.clocks_at_hand().get(self.rows.0..self.rows.1).unwrap_or_default()
    }

    fn records(&self) -> &'a [Record] {
        self.decoder.records_at_hand().get(self.rows.0..self.rows.1).unwrap_or_default()
    }

    /// Position in the stream class of the event class of each row.
    pub fn event_class_positions(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.records().iter().map(|record| record.class as usize)
    }

    /// Where the record of each row starts and ends in its packet, in bits.
    pub fn record_bits(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        self.records().iter().map(|record| (record.at, record.next()))
    }

    /// The packet that the rows are in.
    pub fn packet_bytes(&self) -> &'a [u8] {
        self.data
    }

    /// The event class of a row.
    pub fn event_class(&self, row: usize) -> Option<&'a EventClass> {
        let record = self.records().get(row)?;
        self.class.event_classes.get(record.class as usize).map(|class| &**class)
    }

    /// Tells a visitor the fields of a scope of a row; false when it has no such scope.
    pub fn visit<V: FieldVisitor>(&self, row: usize, scope: Scope, visitor: &mut V) -> bool {
        row < self.len()
            && self.decoder.visit_at_hand(self.rows.0 + row, self.class, self.data, scope, visitor)
    }

    /// Appends the integers (enumerations, booleans and bits too) of a field: the row and the value
    /// of every row that has it. Unsigned values beyond [`i64::MAX`] keep their bits.
    pub fn integers(&self, field: &Picked, rows: &mut Vec<u32>, values: &mut Vec<i64>) {
        if let Some(leaf) =
            field.leaf.filter(|leaf| matches!(leaf.kind, Kind::Number | Kind::Odd | Kind::Kept))
        {
            for (row, bytes) in self.scopes(field) {
                if let Some(bytes) = bytes {
                    rows.push(row);
                    values.push(leaf.number(bytes).cast_signed());
                } else {
                    self.push(field, row, |value| value.integer, rows, values);
                }
            }
            return;
        }
        for (row, _) in self.scopes(field) {
            self.push(field, row, |value| value.integer, rows, values);
        }
    }

    /// Appends the real numbers of a field, likewise.
    pub fn reals(&self, field: &Picked, rows: &mut Vec<u32>, values: &mut Vec<f64>) {
        for (row, _) in self.scopes(field) {
            self.push(field, row, |value| value.real, rows, values);
        }
    }

    /// Calls `each` with the row and the text of every row that has the field: text up to its first
    /// NUL, in UTF-8, not validated.
    pub fn texts(&self, field: &Picked, mut each: impl FnMut(u32, &[u8])) {
        for (row, _) in self.scopes(field) {
            let mut text = |value: &[u8]| each(row, value);
            let mut visitor = TextAt { node: field.node, each: &mut text };
            self.visit(row as usize, field.scope, &mut visitor);
        }
    }

    fn push<T>(
        &self,
        field: &Picked,
        row: u32,
        pick: impl Fn(&ValueAt) -> Option<T>,
        rows: &mut Vec<u32>,
        values: &mut Vec<T>,
    ) {
        let mut visitor = ValueAt { node: field.node, integer: None, real: None };
        self.visit(row as usize, field.scope, &mut visitor);
        if let Some(value) = pick(&visitor) {
            rows.push(row);
            values.push(value);
        }
    }

    /// The rows of the field's event class, each with the bytes of the scope if the field's place is
    /// fixed and whole words can be read there.
    fn scopes(&self, field: &Picked) -> impl Iterator<Item = (u32, Option<&'a [u8]>)> + use<'a> {
        let event = self.class.event_classes.get(field.event_class as usize);
        let plan = event.map(|event| match field.scope {
            Scope::CommonContext => &self.class.plan.common,
            Scope::SpecificContext => &event.plan.specific,
            _ => &event.plan.payload,
        });
        let whole = plan.and_then(|plan| plan.whole.as_ref());
        let start = match field.scope {
            Scope::CommonContext => 0,
            Scope::SpecificContext => 1,
            _ => 2,
        };
        let (data, class) = (self.data, field.event_class);
        let records = self.records().iter().enumerate();
        records.filter(move |(_, record)| record.class == class).map(move |(row, record)| {
            let at = record.at + u64::from(record.starts[start]);
            (row as u32, whole.and_then(|whole| whole.bytes(data, at)))
        })
    }
}

/// Keeps the first value of a field.
struct ValueAt {
    node: usize,
    integer: Option<i64>,
    real: Option<f64>,
}

impl FieldVisitor for ValueAt {
    fn unsigned(&mut self, node: &Node, value: u64) {
        if node.id == self.node {
            self.integer.get_or_insert(value.cast_signed());
        }
    }
    fn signed(&mut self, node: &Node, value: i64) {
        if node.id == self.node {
            self.integer.get_or_insert(value);
        }
    }
    fn boolean(&mut self, node: &Node, value: bool) {
        self.unsigned(node, u64::from(value));
    }
    fn bits(&mut self, node: &Node, value: u64) {
        self.unsigned(node, value);
    }
    fn real(&mut self, node: &Node, value: f64) {
        if node.id == self.node {
            self.real.get_or_insert(value);
        }
    }
}

/// Keeps the first value of a plain field.
struct PlainAt<'a> {
    node: usize,
    data: &'a [u8],
    value: Option<Value<'a>>,
}

impl<'a> PlainAt<'a> {
    fn keep(&mut self, node: &Node, value: Value<'a>) {
        if node.id == self.node {
            self.value.get_or_insert(value);
        }
    }

    /// The part of the packet that a visitor was given, for longer than it was given.
    fn part(&self, part: &[u8]) -> &'a [u8] {
        let from = (part.as_ptr() as usize).wrapping_sub(self.data.as_ptr() as usize);
        let to = from.wrapping_add(part.len());
        self.data.get(from..to).filter(|found| *found == part).unwrap_or_default()
    }
}

impl FieldVisitor for PlainAt<'_> {
    fn unsigned(&mut self, node: &Node, value: u64) {
        self.keep(node, Value::Unsigned(value));
    }
    fn signed(&mut self, node: &Node, value: i64) {
        self.keep(node, Value::Signed(value));
    }
    fn boolean(&mut self, node: &Node, value: bool) {
        self.keep(node, Value::Bool(value));
    }
    fn bits(&mut self, node: &Node, value: u64) {
        self.keep(node, Value::Bits(value));
    }
    fn real(&mut self, node: &Node, value: f64) {
        self.keep(node, Value::Real(value));
    }
    fn text(&mut self, node: &Node, value: &[u8]) {
        self.keep(node, Value::Text(self.part(value)));
    }
    fn blob(&mut self, node: &Node, value: &[u8]) {
        self.keep(node, Value::Blob(self.part(value)));
    }
    fn scalars(&mut self, _: &Node, _: Scalars<'_>) -> bool {
        true
    }
}

/// Hands on the text of a field.
struct TextAt<'a> {
    node: usize,
    each: &'a mut dyn FnMut(&[u8]),
}

impl FieldVisitor for TextAt<'_> {
    fn text(&mut self, node: &Node, value: &[u8]) {
        if node.id == self.node {
            (self.each)(value);
        }
    }
}
