//! The fields of a scope as text, straight from the packet.
//!
//! What can be known of a field before its value (separators, names, colours, base) is made when
//! the field is first seen and kept in a [`Form`] under the number of its node, so that a field
//! costs two appends.

use sillage_ctf::model::{FieldKind, IntegerClass};
use sillage_ctf::{FieldVisitor, Node, Scalar, Scalars};

use super::palette::Palette;
use super::value::{EnumStyle, Radix, push_bits, push_enum, push_quoted};
use crate::sinks::number::{LOWER, Piece, push_general, push_i64, push_u64};

/// What is prepared for a field.
#[derive(Debug, Default)]
struct Form {
    prepared: bool,
    lead: Lead,
    look: Look,
    /// How the fields inside are led.
    inside: Inside,
    /// Whether a member of this structure was seen.
    has_member: bool,
}

/// What stands before a field.
#[derive(Debug, Default)]
enum Lead {
    #[default]
    Nothing,
    Member(Piece),
    Element,
}

/// How the fields inside a compound are led.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Inside {
    #[default]
    Bare,
    Members,
    Elements,
}

/// How a value is written.
#[derive(Debug, Default)]
enum Look {
    /// The visitor's method knows.
    #[default]
    Plain,
    Integer(Radix),
    Enum(Box<EnumCache>),
}

/// Texts of recent values of an enumeration, by the low bits of the value.
#[derive(Debug, Default)]
struct EnumCache([Option<(u64, Box<[u8]>)>; 16]);

/// The forms of a scope, by number of the node.
#[derive(Debug, Default)]
pub(super) struct Forms(Vec<Form>);

/// Writes the fields of one scope.
pub(super) struct FieldWriter<'a> {
    pub out: &'a mut Vec<u8>,
    pub forms: &'a mut Forms,
    pub names: bool,
    pub colored: bool,
    pub palette: &'a Palette,
    pub style: EnumStyle,
    /// Next index of each array that is open.
    pub indexes: &'a mut Vec<u64>,
}

impl FieldWriter<'_> {
    /// Writes what stands before the field; makes its form if it has none.
    #[inline]
    fn lead(&mut self, node: &Node) {
        if !self.forms.0.get(node.id).is_some_and(|form| form.prepared) {
            self.prepare(node);
        }
        match &self.forms.0[node.id].lead {
            Lead::Nothing => {}
            Lead::Member(text) => text.push(self.out),
            Lead::Element => {
                if let Some(index) = self.indexes.last_mut() {
                    push_element(self.out, *index, self.names);
                    *index += 1;
                }
            }
        }
    }

    #[cold]
    fn prepare(&mut self, node: &Node) {
        let forms = &mut self.forms.0;
        if forms.len() <= node.id {
            forms.resize_with(node.id + 1, Form::default);
        }
        let is_root = node.parent == node.id;
        let parent = &mut forms[node.parent];
        let lead = match parent.inside {
            _ if is_root => Lead::Nothing,
            Inside::Bare => Lead::Nothing,
            Inside::Elements => Lead::Element,
            Inside::Members => {
                let first = !std::mem::replace(&mut parent.has_member, true);
                let mut text = if first { b" ".to_vec() } else { b", ".to_vec() };
                if self.names {
                    text.extend_from_slice(self.palette.field_name);
                    text.extend_from_slice(node.name.as_bytes());
                    text.extend_from_slice(self.palette.reset);
                    text.extend_from_slice(b" = ");
                }
                Lead::Member(Piece::new(&text))
            }
        };
        let inside = match &node.class.kind {
            FieldKind::Struct(_) => Inside::Members,
            FieldKind::Array(_) => Inside::Elements,
            _ => Inside::Bare,
        };
        let look = match &node.class.kind {
            FieldKind::Integer(class) => look_of(class),
            FieldKind::Array(class) => match &class.element.kind {
                FieldKind::Integer(class) => look_of(class),
                _ => Look::Plain,
            },
            _ => Look::Plain,
        };
        forms[node.id] = Form { prepared: true, lead, look, inside, has_member: false };
    }

    /// Writes an integer whose form is that of `id`.
    #[inline]
    fn integer(&mut self, id: usize, class: &IntegerClass, raw: u64) {
        match &mut self.forms.0[id].look {
            Look::Integer(radix) => {
                self.out.extend_from_slice(self.palette.value);
                radix.push(self.out, raw, class.signed);
                self.out.extend_from_slice(self.palette.reset);
            }
            Look::Enum(cache) => {
                let entry = &mut cache.0[(raw & 15) as usize];
                match entry {
                    Some((value, text)) if *value == raw => self.out.extend_from_slice(text),
                    _ => {
                        let from = self.out.len();
                        push_enum(self.out, class, raw, self.style, self.palette);
                        *entry = Some((raw, self.out[from..].into()));
                    }
                }
            }
            Look::Plain => push_u64(self.out, raw),
        }
    }

    #[inline]
    fn lead_and_integer(&mut self, node: &Node, raw: u64, signed: bool) {
        // The usual case by itself: a member in base 10, without colours.
        if let Some(Form { lead: Lead::Member(text), look: Look::Integer(Radix::Decimal), .. }) =
            self.forms.0.get(node.id)
            && !self.colored
        {
            text.push(self.out);
            if signed {
                push_i64(self.out, raw.cast_signed());
            } else {
                push_u64(self.out, raw);
            }
            return;
        }
        self.lead(node);
        if let FieldKind::Integer(class) = &node.class.kind {
            self.integer(node.id, class, raw);
        }
    }

    fn value(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.extend_from_slice(self.palette.value);
        write(self.out);
        self.out.extend_from_slice(self.palette.reset);
    }

    fn close(&mut self, end: &[u8]) {
        self.out.extend_from_slice(end);
    }
}

fn look_of(class: &IntegerClass) -> Look {
    if class.is_enum { Look::Enum(Box::default()) } else { Look::Integer(Radix::of(class)) }
}

/// Writes what stands before an element.
#[inline]
fn push_element(out: &mut Vec<u8>, index: u64, names: bool) {
    out.extend_from_slice(if index == 0 { b" " } else { b", " });
    if names {
        out.push(b'[');
        push_u64(out, index);
        out.extend_from_slice(b"] = ");
    }
}

impl FieldVisitor for FieldWriter<'_> {
    #[inline]
    fn unsigned(&mut self, node: &Node, value: u64) {
        self.lead_and_integer(node, value, false);
    }

    #[inline]
    fn signed(&mut self, node: &Node, value: i64) {
        self.lead_and_integer(node, value.cast_unsigned(), true);
    }

    fn boolean(&mut self, node: &Node, value: bool) {
        self.lead(node);
        self.value(|out| out.extend_from_slice(if value { b"true" } else { b"false" }));
    }

    fn bits(&mut self, node: &Node, value: u64) {
        self.lead(node);
        if let FieldKind::BitArray(class) = &node.class.kind {
            push_bits(self.out, value, &class.flags, self.palette);
        }
    }

    fn real(&mut self, node: &Node, value: f64) {
        self.lead(node);
        self.value(|out| push_general(out, value));
    }

    fn text(&mut self, node: &Node, value: &[u8]) {
        self.lead(node);
        self.value(|out| push_quoted(out, value));
    }

    fn blob(&mut self, node: &Node, value: &[u8]) {
        self.lead(node);
        self.out.push(b'{');
        for byte in value {
            let digits = [LOWER[usize::from(byte >> 4)], LOWER[usize::from(byte & 15)]];
            self.out.push(b' ');
            self.value(|out| out.extend_from_slice(&digits));
        }
        self.out.extend_from_slice(b" }");
    }

    fn begin_struct(&mut self, node: &Node) {
        self.lead(node);
        self.out.push(b'{');
    }

    fn end_struct(&mut self, _: &Node) {
        self.close(b" }");
    }

    fn begin_array(&mut self, node: &Node, _: u64) {
        self.lead(node);
        self.out.push(b'[');
        self.indexes.push(0);
    }

    fn end_array(&mut self, _: &Node) {
        self.indexes.pop();
        self.close(b" ]");
    }

    fn begin_optional(&mut self, node: &Node, present: bool) {
        self.lead(node);
        self.out.extend_from_slice(b"{ ");
        if !present {
            self.out.extend_from_slice(b"<none>");
        }
    }

    fn end_optional(&mut self, _: &Node) {
        self.close(b" }");
    }

    fn begin_variant(&mut self, node: &Node, _: usize) {
        self.lead(node);
        self.out.extend_from_slice(b"{ ");
    }

    fn end_variant(&mut self, _: &Node) {
        self.close(b" }");
    }

    fn scalars(&mut self, node: &Node, array: Scalars<'_>) -> bool {
        let FieldKind::Array(class) = &node.class.kind else {
            return false;
        };
        let integers = match &class.element.kind {
            FieldKind::Integer(class) => Some(class),
            FieldKind::BitArray(_) => return false,
            _ => None,
        };
        self.lead(node);
        self.out.push(b'[');
        for (index, scalar) in (0..).zip(array.iter()) {
            push_element(self.out, index, self.names);
            match (scalar, integers) {
                (Scalar::Unsigned(raw), Some(class)) => self.integer(node.id, class, raw),
                (Scalar::Signed(value), Some(class)) => self.integer(node.id, class, value.cast_unsigned()),
                (Scalar::Real(value), _) => self.value(|out| push_general(out, value)),
                (Scalar::Bool(true), _) => self.value(|out| out.extend_from_slice(b"true")),
                (Scalar::Bool(false), _) => self.value(|out| out.extend_from_slice(b"false")),
                (Scalar::Unsigned(raw) | Scalar::Bits(raw), _) => self.value(|out| push_u64(out, raw)),
                (Scalar::Signed(value), None) => self.value(|out| push_i64(out, value)),
            }
        }
        self.close(b" ]");
        true
    }
}
