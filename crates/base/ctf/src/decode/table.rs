//! Random access to fields: a scope decoded once into a table that is used again.
//!
//! [`Field`]s are cheap copies that point into the table; asking for them decodes the scope at
//! most once per event, into memory kept from the events before. Arrays of scalars stay undecoded
//! in it, so a large array costs one entry.

use std::cell::{Cell, OnceCell, RefCell};

use super::packet::PacketDecoder;
use super::plan::Node;
use super::walk::{FieldVisitor, Scalar, Scalars, scalar};
use crate::model::{FieldClass, Scope, StreamClass};

/// Scopes that have tables.
const SCOPES: [Scope; 5] =
    [Scope::PacketContext, Scope::EventHeader, Scope::CommonContext, Scope::SpecificContext, Scope::Payload];

/// The decoded scopes of the current packet and record, and memory for the next ones.
#[derive(Debug, Default)]
pub(super) struct Tables {
    filled: [OnceCell<Table>; 5],
    spare: RefCell<Vec<Table>>,
    used: Cell<bool>,
}

impl Tables {
    /// Forgets the record's scopes, keeps their memory.
    #[inline]
    pub(super) fn reset_event(&mut self) {
        if self.used.get() {
            self.reset(1);
        }
    }

    pub(super) fn reset_packet(&mut self) {
        self.reset(0);
    }

    fn reset(&mut self, from: usize) {
        for table in &mut self.filled[from..] {
            if let Some(mut table) = table.take() {
                table.clear();
                self.spare.get_mut().push(table);
            }
        }
        self.used.set(false);
    }
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    arrays: Vec<LazyArray>,
    /// Text and bytes that are not a slice of the packet.
    arena: Vec<u8>,
    /// Compounds that are being filled.
    open: Vec<usize>,
}

impl Table {
    fn clear(&mut self) {
        self.entries.clear();
        self.arrays.clear();
        self.arena.clear();
        self.open.clear();
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    node: u32,
    /// The entry after this one and all inside it.
    next: u32,
    kind: Kind,
    /// Value, offset, count or position: see [`Kind`].
    a: u64,
    b: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unsigned,
    Signed,
    Bool,
    Bits,
    Real,
    /// `b` bytes of the packet at `a`.
    Text,
    Blob,
    /// `b` bytes of the arena at `a`.
    ArenaText,
    ArenaBlob,
    Struct,
    /// `a` elements.
    Array,
    /// `a` is a position in `arrays`.
    Scalars,
    /// `a` is 1 when present.
    Optional,
    /// `a` is the option.
    Variant,
}

#[derive(Debug, Clone, Copy)]
struct LazyArray {
    at: u64,
    stride: u64,
    len: u64,
    step: super::plan::Step,
}

struct Filler<'a> {
    data: &'a [u8],
    table: Table,
}

impl Filler<'_> {
    fn leaf(&mut self, node: &Node, kind: Kind, a: u64, b: u64) {
        let next = self.table.entries.len() as u32 + 1;
        self.table.entries.push(Entry { node: node.id as u32, next, kind, a, b });
    }

    fn open(&mut self, node: &Node, kind: Kind, a: u64) {
        self.table.open.push(self.table.entries.len());
        self.leaf(node, kind, a, 0);
    }

    fn close(&mut self) {
        let next = self.table.entries.len() as u32;
        if let Some(at) = self.table.open.pop() {
            self.table.entries[at].next = next;
        }
    }

    fn bytes(&mut self, node: &Node, value: &[u8], inside: Kind, outside: Kind) {
        let offset = (value.as_ptr() as usize).wrapping_sub(self.data.as_ptr() as usize);
        if offset.saturating_add(value.len()) <= self.data.len() {
            self.leaf(node, inside, offset as u64, value.len() as u64);
        } else {
            let offset = self.table.arena.len() as u64;
            self.table.arena.extend_from_slice(value);
            self.leaf(node, outside, offset, value.len() as u64);
        }
    }
}

impl FieldVisitor for Filler<'_> {
    fn unsigned(&mut self, node: &Node, value: u64) {
        self.leaf(node, Kind::Unsigned, value, 0);
    }
    fn signed(&mut self, node: &Node, value: i64) {
        self.leaf(node, Kind::Signed, value.cast_unsigned(), 0);
    }
    fn boolean(&mut self, node: &Node, value: bool) {
        self.leaf(node, Kind::Bool, u64::from(value), 0);
    }
    fn bits(&mut self, node: &Node, value: u64) {
        self.leaf(node, Kind::Bits, value, 0);
    }
    fn real(&mut self, node: &Node, value: f64) {
        self.leaf(node, Kind::Real, value.to_bits(), 0);
    }
    fn text(&mut self, node: &Node, value: &[u8]) {
        self.bytes(node, value, Kind::Text, Kind::ArenaText);
    }
    fn blob(&mut self, node: &Node, value: &[u8]) {
        self.bytes(node, value, Kind::Blob, Kind::ArenaBlob);
    }
    fn begin_struct(&mut self, node: &Node) {
        self.open(node, Kind::Struct, 0);
    }
    fn end_struct(&mut self, _: &Node) {
        self.close();
    }
    fn begin_array(&mut self, node: &Node, length: u64) {
        self.open(node, Kind::Array, length);
    }
    fn end_array(&mut self, _: &Node) {
        self.close();
    }
    fn begin_optional(&mut self, node: &Node, present: bool) {
        self.open(node, Kind::Optional, u64::from(present));
    }
    fn end_optional(&mut self, _: &Node) {
        self.close();
    }
    fn begin_variant(&mut self, node: &Node, option: usize) {
        self.open(node, Kind::Variant, option as u64);
    }
    fn end_variant(&mut self, _: &Node) {
        self.close();
    }
    fn scalars(&mut self, node: &Node, array: Scalars<'_>) -> bool {
        let position = self.table.arrays.len() as u64;
        self.table.arrays.push(LazyArray {
            at: array.at,
            stride: array.stride,
            len: array.len(),
            step: array.step,
        });
        self.leaf(node, Kind::Scalars, position, 0);
        true
    }
}

impl PacketDecoder {
    /// The root structure of a scope of the current packet or record; `None` when it has none.
    pub(crate) fn fields<'a>(
        &'a self,
        class: &'a StreamClass,
        data: &'a [u8],
        scope: Scope,
    ) -> Option<Field<'a>> {
        let position = SCOPES.iter().position(|s| *s == scope)?;
        let (plan, _) = self.scope(class, scope)?;
        let table = self.tables.filled[position].get_or_init(|| {
            self.tables.used.set(true);
            let table = self.tables.spare.borrow_mut().pop().unwrap_or_default();
            let mut filler = Filler { data, table };
            self.visit(class, data, scope, &mut filler);
            filler.table
        });
        (!table.entries.is_empty())
            .then_some(Field { view: View { nodes: &plan.nodes, table, data }, at: At::Entry(0) })
    }
}

#[derive(Debug, Clone, Copy)]
struct View<'a> {
    nodes: &'a [Node],
    table: &'a Table,
    data: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
enum At {
    Entry(u32),
    /// An element of an array of scalars.
    Element {
        node: u32,
        value: Scalar,
    },
}

/// A decoded field: its class and its value.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    view: View<'a>,
    at: At,
}

/// The value of a [`Field`].
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// An unsigned integer or enumeration.
    Unsigned(u64),
    /// A signed integer or enumeration.
    Signed(i64),
    /// A boolean.
    Bool(bool),
    /// A bit array.
    Bits(u64),
    /// A real number.
    Real(f64),
    /// Text up to its first NUL, in UTF-8, not validated.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
    /// Members in order.
    Struct(Fields<'a>),
    /// Elements in order.
    Array(Fields<'a>),
    /// The content, if present.
    Optional(Option<Field<'a>>),
    /// Position of the chosen option and its field.
    Variant(usize, Option<Field<'a>>),
}

impl<'a> Field<'a> {
    /// The field's place and class.
    pub fn node(&self) -> &'a Node {
        let id = match self.at {
            At::Entry(index) => self.view.table.entries[index as usize].node,
            At::Element { node, .. } => node,
        };
        &self.view.nodes[id as usize]
    }

    /// The field's class.
    pub fn class(&self) -> &'a FieldClass {
        &self.node().class
    }

    /// The name of the member or option; empty for array elements and roots.
    pub fn name(&self) -> &'a str {
        &self.node().name
    }

    /// The value.
    pub fn value(&self) -> Value<'a> {
        let index = match self.at {
            At::Entry(index) => index,
            At::Element { value, .. } => {
                return match value {
                    Scalar::Unsigned(v) => Value::Unsigned(v),
                    Scalar::Signed(v) => Value::Signed(v),
                    Scalar::Bool(v) => Value::Bool(v),
                    Scalar::Bits(v) => Value::Bits(v),
                    Scalar::Real(v) => Value::Real(v),
                };
            }
        };
        let entry = self.view.table.entries[index as usize];
        let slice = |from: &'a [u8]| {
            let (at, len) = (entry.a as usize, entry.b as usize);
            from.get(at..at + len).unwrap_or_default()
        };
        let inside = Fields { view: self.view, state: State::Entries { at: index + 1, end: entry.next } };
        match entry.kind {
            Kind::Unsigned => Value::Unsigned(entry.a),
            Kind::Signed => Value::Signed(entry.a.cast_signed()),
            Kind::Bool => Value::Bool(entry.a != 0),
            Kind::Bits => Value::Bits(entry.a),
            Kind::Real => Value::Real(f64::from_bits(entry.a)),
            Kind::Text => Value::Text(slice(self.view.data)),
            Kind::Blob => Value::Blob(slice(self.view.data)),
            Kind::ArenaText => Value::Text(slice(&self.view.table.arena)),
            Kind::ArenaBlob => Value::Blob(slice(&self.view.table.arena)),
            Kind::Struct => Value::Struct(inside),
            Kind::Array => Value::Array(inside),
            Kind::Scalars => Value::Array(Fields {
                view: self.view,
                state: State::Scalars {
                    node: entry.node + 1,
                    array: self.view.table.arrays[entry.a as usize],
                    at: 0,
                },
            }),
            Kind::Optional => Value::Optional(inside.into_iter().next()),
            Kind::Variant => Value::Variant(entry.a as usize, inside.into_iter().next()),
        }
    }

    /// The member of this name, of a structure.
    pub fn get(&self, name: &str) -> Option<Field<'a>> {
        match self.value() {
            Value::Struct(mut fields) => fields.find(|field| field.name() == name),
            _ => None,
        }
    }

    /// The member, element, content or option at this position.
    pub fn at(&self, index: usize) -> Option<Field<'a>> {
        self.children().nth(index)
    }

    /// The fields inside, in order; nothing for leaves.
    pub fn children(&self) -> Fields<'a> {
        match self.value() {
            Value::Struct(fields) | Value::Array(fields) => fields,
            Value::Optional(Some(field)) | Value::Variant(_, Some(field)) => field.alone(),
            _ => Fields { view: self.view, state: State::Entries { at: 0, end: 0 } },
        }
    }

    /// An iterator of this field only.
    fn alone(self) -> Fields<'a> {
        let (at, end) = match self.at {
            At::Entry(at) => (at, self.view.table.entries[at as usize].next),
            At::Element { .. } => (0, 0),
        };
        Fields { view: self.view, state: State::Entries { at, end } }
    }

    /// The value as an unsigned number: unsigned integers, bits, booleans, and signed integers
    /// that are not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self.value() {
            Value::Unsigned(v) | Value::Bits(v) => Some(v),
            Value::Signed(v) => u64::try_from(v).ok(),
            Value::Bool(v) => Some(u64::from(v)),
            _ => None,
        }
    }

    /// The value as a signed number, if it is an integer that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self.value() {
            Value::Unsigned(v) | Value::Bits(v) => i64::try_from(v).ok(),
            Value::Signed(v) => Some(v),
            Value::Bool(v) => Some(i64::from(v)),
            _ => None,
        }
    }

    /// The text, if it is valid UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        match self.value() {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// Fields one after another.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    view: View<'a>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Entries { at: u32, end: u32 },
    Scalars { node: u32, array: LazyArray, at: u64 },
}

impl Fields<'_> {
    /// Number of fields that are left.
    pub fn count_left(&self) -> u64 {
        match self.state {
            State::Entries { .. } => (*self).count() as u64,
            State::Scalars { array, at, .. } => array.len - at,
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let view = self.view;
        match &mut self.state {
            State::Entries { at, end } => {
                if at >= end {
                    return None;
                }
                let field = Field { view, at: At::Entry(*at) };
                *at = view.table.entries[*at as usize].next;
                Some(field)
            }
            State::Scalars { node, array, at } => {
                if *at >= array.len {
                    return None;
                }
                let value = scalar(view.data, array.at + *at * array.stride, &array.step);
                *at += 1;
                Some(Field { view, at: At::Element { node: *node, value } })
            }
        }
    }
}
