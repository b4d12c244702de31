//! How each field of a scope is written: one [`Slot`] per node of the scope's plan.
//!
//! [`same`] gives the layout that the source has; the CTF 1.8 writer changes those nodes that its
//! format can not express. A scope whose nodes are all the same can be copied bit by bit.

use crate::decode::Plan;
use crate::model::{
    BitLayout, ByteOrder, FieldClass, FieldKind, IntegerLayout, Length, StringEncoding, StringExtent,
};

/// How a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The bits of an integer or bit array.
    Fixed { size: u32, big: bool, reversed: bool },
    /// The bits of a boolean, of which any may be set when it is true.
    Bool { size: u32, big: bool, reversed: bool },
    /// A real number of 16, 32, 64 or 128 bits.
    Real { size: u32, big: bool, reversed: bool },
    /// LEB128; signed or not as the value is.
    Leb,
    /// Text and a NUL code unit.
    Text { encoding: StringEncoding },
    /// Text in a fixed number of bytes.
    SizedText { encoding: StringEncoding, bytes: u64 },
    /// Text in as many bytes as a field before it says.
    CountedText { encoding: StringEncoding, slot: u16 },
    /// Bytes.
    Blob,
    /// Bytes or elements behind an own 32-bit count, which is written first.
    Counted,
    /// Structure or array: only an alignment.
    Compound,
    /// A variant or optional field: no alignment.
    Choice,
    /// A variant or optional field behind an own 16-bit tag, which is written first.
    Tagged,
}

/// How one node is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Alignment in bits before the field (after an own count or tag).
    pub align: u64,
    /// Alignment in bits before an own count or tag.
    pub align_first: u64,
    pub form: Form,
    /// Where the value is kept for fields that need it.
    pub save: Option<u16>,
}

impl Slot {
    pub(crate) fn new(align: u64, form: Form) -> Self {
        Self { align, align_first: 1, form, save: None }
    }
}

/// How the fields of a scope are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// By node id.
    pub slots: Vec<Slot>,
    /// Whether it is exactly the source's: records may be copied as they are.
    pub same: bool,
    /// Largest alignment of the scope in bits.
    pub align_max: u64,
}

impl Layout {
    /// The source's own layout.
    pub(crate) fn same(plan: &Plan) -> Self {
        let slots = plan.nodes.iter().map(|node| same(&node.class)).collect();
        Self::new(slots, true)
    }

    pub(crate) fn new(slots: Vec<Slot>, same: bool) -> Self {
        let align_max = slots.iter().map(|slot| slot.align.max(slot.align_first)).max().unwrap_or(1);
        Self { slots, same, align_max }
    }
}

fn bits(layout: &BitLayout) -> Form {
    Form::Fixed {
        size: layout.size_bits,
        big: layout.byte_order == ByteOrder::Big,
        reversed: layout.reversed,
    }
}

/// The source's layout of one field.
pub(crate) fn same(class: &FieldClass) -> Slot {
    let form = match &class.kind {
        FieldKind::BitArray(c) => bits(&c.layout),
        FieldKind::Bool(layout) => Form::Bool {
            size: layout.size_bits,
            big: layout.byte_order == ByteOrder::Big,
            reversed: layout.reversed,
        },
        FieldKind::Integer(c) => match &c.layout {
            IntegerLayout::Fixed(layout) => bits(layout),
            IntegerLayout::Leb128 => Form::Leb,
        },
        FieldKind::Float(c) => Form::Real {
            size: c.layout.size_bits,
            big: c.layout.byte_order == ByteOrder::Big,
            reversed: c.layout.reversed,
        },
        FieldKind::String(c) => {
            let encoding = c.encoding;
            match &c.extent {
                StringExtent::NullTerminated => Form::Text { encoding },
                StringExtent::Sized(Length::Static(bytes)) => Form::SizedText { encoding, bytes: *bytes },
                StringExtent::Sized(Length::Dynamic(field)) => {
                    Form::CountedText { encoding, slot: field.slot }
                }
            }
        }
        FieldKind::Blob(_) => Form::Blob,
        FieldKind::Struct(_) | FieldKind::Array(_) => Form::Compound,
        FieldKind::Optional(_) | FieldKind::Variant(_) => Form::Choice,
    };
    Slot { align: u64::from(class.alignment_bits), align_first: 1, form, save: class.slot }
}
