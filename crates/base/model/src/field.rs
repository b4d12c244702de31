//! Field types of user-space events: what LTTng-UST's macros can declare, and what our own can.
//!
//! Fields are packed with byte alignment (as LTTng lays them out on machines with cheap unaligned
//! access) unless a type's `align_bits` says otherwise. Fields that are not written to the trace
//! (`_nowrite`) are not part of this model.

use alloc::{boxed::Box, string::String, vec::Vec};

/// One written field of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// Name as the provider declares it, without CTF's leading underscore.
    pub name: String,
    /// How its bytes are laid out.
    pub field_type: FieldType,
}

/// Text encoding of strings, character arrays and sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Plain numbers.
    None,
    /// UTF-8 text.
    Utf8,
    /// ASCII text.
    Ascii,
}

/// An integer of 8, 16, 32 or 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IntegerType {
    /// Width in bits.
    pub size_bits: u32,
    /// Alignment in bits.
    pub align_bits: u16,
    /// True for a signed integer.
    pub signed: bool,
    /// True when its byte order is not the machine's.
    pub reverse_byte_order: bool,
    /// Preferred display base: 2, 8, 10 or 16.
    pub base: u32,
}

/// An IEEE 754 number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FloatType {
    /// Exponent bits: 8 or 11.
    pub exponent_bits: u32,
    /// Mantissa bits, sign included: 24 or 53.
    pub mantissa_bits: u32,
    /// Alignment in bits.
    pub align_bits: u16,
    /// True when its byte order is not the machine's.
    pub reverse_byte_order: bool,
}

/// One end of an enumeration's range: the bits, and how to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnumValue {
    /// The value's 64 bits, sign-extended.
    pub bits: u64,
    /// True when `bits` is a signed number.
    pub signed: bool,
}

/// One label of an enumeration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnumEntry {
    /// The label.
    pub label: String,
    /// First value of the range.
    pub start: EnumValue,
    /// Last value of the range.
    pub end: EnumValue,
    /// True when the value follows from the entry before (`ctf_enum_auto`).
    pub auto: bool,
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// An integer.
    Integer(IntegerType),
    /// A floating point number.
    Float(FloatType),
    /// Bytes up to and with a NUL.
    String(Encoding),
    /// An integer with labels.
    Enum {
        /// Name of the enumeration.
        name: String,
        /// Its integer.
        container: IntegerType,
        /// Its labels in declaration order.
        entries: Vec<EnumEntry>,
    },
    /// `length` elements.
    Array {
        /// Type of an element.
        element: Box<FieldType>,
        /// Number of elements.
        length: u32,
        /// Alignment in bits in front of the first element.
        align_bits: u32,
        /// Text or numbers.
        encoding: Encoding,
    },
    /// As many elements as the field `length_name`, which precedes it in the event, says.
    Sequence {
        /// Type of an element.
        element: Box<FieldType>,
        /// Name of the length field.
        length_name: String,
        /// Alignment in bits in front of the first element.
        align_bits: u32,
        /// Text or numbers.
        encoding: Encoding,
    },
}
