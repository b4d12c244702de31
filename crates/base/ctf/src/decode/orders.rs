//! Whether fields of both byte orders can meet inside a byte, which CTF forbids.
//!
//! Found from the class tree alone, by following where in a byte each field can begin. Where no two
//! can meet, decoding needs no check; where they might, every field is checked when it is read.

use crate::model::{BitLayout, ByteOrder, FieldClass, FieldKind, IntegerLayout};

/// What is known of the place after some fields.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Bit in its byte; `None` when that depends on data.
    bit: Option<u32>,
    /// Byte orders that the last field of fixed length may have.
    little: bool,
    big: bool,
}

impl Place {
    /// The place after either of two ways.
    fn or(self, other: Self) -> Self {
        Self {
            bit: self.bit.filter(|_| self.bit == other.bit),
            little: self.little || other.little,
            big: self.big || other.big,
        }
    }

    fn aligned(self, align: u32) -> Self {
        let bit =
            if align >= 8 { Some(0) } else { self.bit.map(|bit| bit.next_multiple_of(align.max(1)) % 8) };
        Self { bit, ..self }
    }

    /// After a field; `None` when it could meet another order in its first byte.
    fn after(self, layout: &BitLayout) -> Option<Self> {
        let big = layout.byte_order == ByteOrder::Big;
        if self.bit != Some(0) && (if big { self.little } else { self.big }) {
            return None;
        }
        Some(Self { bit: self.bit.map(|bit| (bit + layout.size_bits) % 8), little: !big, big })
    }
}

/// Whether fields of both byte orders could meet inside a byte of this scope.
pub(super) fn can_meet(root: &FieldClass) -> bool {
    follow(root, Place { bit: None, little: false, big: false }).is_none()
}

/// The place after a field; `None` when orders could meet in it.
fn follow(class: &FieldClass, before: Place) -> Option<Place> {
    let at = before.aligned(class.alignment_bits);
    match &class.kind {
        FieldKind::BitArray(c) => at.after(&c.layout),
        FieldKind::Bool(layout) => at.after(layout),
        FieldKind::Float(c) => at.after(&c.layout),
        FieldKind::Integer(c) => match &c.layout {
            IntegerLayout::Fixed(layout) => at.after(layout),
            IntegerLayout::Leb128 => Some(at),
        },
        FieldKind::String(_) | FieldKind::Blob(_) => Some(at),
        FieldKind::Struct(c) => c.members.iter().try_fold(at, |at, member| follow(&member.class, at)),
        FieldKind::Array(c) => {
            // None, one, two elements: what is known after two is known after any number.
            let one = at.or(follow(&c.element, at)?);
            let two = one.or(follow(&c.element, one)?);
            Some(two.or(follow(&c.element, two)?))
        }
        FieldKind::Optional(c) => Some(at.or(follow(&c.content, at)?)),
        FieldKind::Variant(c) => {
            let mut after: Option<Place> = None;
            for option in &c.options {
                let place = follow(&option.class, at)?;
                after = Some(after.map_or(place, |other| other.or(place)));
            }
            Some(after.unwrap_or(at))
        }
    }
}
