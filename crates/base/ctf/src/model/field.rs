//! Field classes: what a field is, how its bits lie, and what its value means.
//!
//! One tree per scope. A field class carries everything that a sink shows (bases, mappings,
//! encodings, flags) and everything that decoding needs (sizes, orders, references). Names here are
//! the displayed ones: the leading underscore that CTF 1.8 adds is already removed. Trees are deep
//! copies of the aliases they were made from, so that each place has its own references.

use std::sync::Arc;

use super::{Attributes, ByteOrder};

/// The six places that hold fields, in the order in which they are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Header of a packet (never shown).
    PacketHeader,
    /// Context of a packet; members with a role are hidden.
    PacketContext,
    /// Header of an event record (never shown).
    EventHeader,
    /// Context common to all event records of a stream class.
    CommonContext,
    /// Context of one event class.
    SpecificContext,
    /// Payload of one event class.
    Payload,
}

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathItem {
    /// The member or option of this index.
    Index(usize),
    /// The element of an array that is being decoded.
    Element,
    /// The content of an optional field.
    Content,
}

/// Where a field lies: a scope and the way down its tree. Indexes count hidden members too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldPath {
    /// Root of the way.
    pub scope: Scope,
    /// Steps from the root structure.
    pub items: Vec<PathItem>,
}

/// What kind of value a selector has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SelectorKind {
    /// A boolean.
    Bool,
    /// An unsigned integer.
    Unsigned,
    /// A signed integer.
    Signed,
}

/// A resolved reference to the field that gives a length or selects an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRef {
    /// The referred fields; more than one when the way leads through variants (CTF 2).
    pub paths: Vec<FieldPath>,
    /// Type of the referred field.
    pub kind: SelectorKind,
    /// Whether the referred field is an enumeration.
    pub is_enum: bool,
    /// Where decoding keeps the value of the referred field.
    pub(crate) slot: u16,
    /// What the metadata says, until it is resolved.
    pub(crate) raw: RawRef,
}

/// A reference as the metadata writes it, and where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawRef {
    pub text: RawPath,
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawPath {
    /// Words joined by dots.
    Tsdl(String),
    /// CTF 2: no origin means the enclosing structure, `None` in the path its parent.
    Json { origin: Option<Scope>, path: Vec<Option<String>> },
}

impl FieldRef {
    /// A reference that is still to be resolved.
    pub(crate) fn unresolved(text: RawPath, at: usize) -> Self {
        Self {
            paths: Vec::new(),
            kind: SelectorKind::Unsigned,
            is_enum: false,
            slot: u16::MAX,
            raw: RawRef { text, at },
        }
    }
}

/// A meaning that the format gives to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Role {
    /// 0xC1FC1FC1 at the start of a packet.
    PacketMagic = 1,
    /// UUID of the metadata stream.
    MetadataUuid = 1 << 1,
    /// Which stream class the packet belongs to.
    StreamClassId = 1 << 2,
    /// Which stream of its class the packet belongs to.
    StreamId = 1 << 3,
    /// Size of the packet in bits.
    PacketSize = 1 << 4,
    /// Size of the content in bits.
    ContentSize = 1 << 5,
    /// Updates the stream's clock.
    Timestamp = 1 << 6,
    /// Clock at the end of the packet.
    EndTimestamp = 1 << 7,
    /// Cumulative count of discarded events.
    EventsDiscarded = 1 << 8,
    /// Sequence number of the packet.
    PacketSequence = 1 << 9,
    /// Which event class the record is of.
    EventClassId = 1 << 10,
}

/// A set of [`Role`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Roles(pub(crate) u16);

impl Roles {
    /// Whether the role is in the set.
    pub fn contains(self, role: Role) -> bool {
        self.0 & role as u16 != 0
    }

    /// Adds a role.
    pub fn insert(&mut self, role: Role) {
        self.0 |= role as u16;
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Removes all roles but these.
    pub(crate) fn keep(&mut self, roles: &[Role]) {
        self.0 &= roles.iter().fold(0, |bits, role| bits | *role as u16);
    }
}

/// A field class: alignment, kind and user attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldClass {
    /// Alignment of the field from the start of the packet, in bits; a power of two.
    pub alignment_bits: u32,
    /// What it is.
    pub kind: FieldKind,
    /// User attributes (CTF 2).
    pub attributes: Attributes,
    /// Whether readers show it: false for fields with a role in the packet context and for all of
    /// the headers.
    pub visible: bool,
    /// Where decoding keeps the value, when another field refers to it.
    pub(crate) slot: Option<u16>,
}

/// What a field is.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldKind {
    /// Bits without a meaning as a number, perhaps with named flags.
    BitArray(BitArrayClass),
    /// False if all bits are 0.
    Bool(BitLayout),
    /// An integer or an enumeration.
    Integer(IntegerClass),
    /// A real number.
    Float(FloatClass),
    /// Text.
    String(StringClass),
    /// Bytes.
    Blob(BlobClass),
    /// Named members.
    Struct(StructClass),
    /// Elements of one class.
    Array(ArrayClass),
    /// A field that may be absent.
    Optional(OptionalClass),
    /// One of several fields.
    Variant(VariantClass),
}

/// How the bits of a fixed-length field lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitLayout {
    /// Length in bits, 1 to 64.
    pub size_bits: u32,
    /// Order of bytes (and of bits inside a byte, in step with it).
    pub byte_order: ByteOrder,
    /// Whether the bits come in the order opposite to the byte order's natural one (CTF 2).
    pub reversed: bool,
}

/// A fixed-length bit array; a bit map when it has flags.
#[derive(Debug, Clone, PartialEq)]
pub struct BitArrayClass {
    /// Bits.
    pub layout: BitLayout,
    /// Named flags, in the order of the metadata.
    pub flags: Vec<BitFlag>,
}

/// A named set of bit positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitFlag {
    /// Its name.
    pub label: String,
    /// Positions, inclusive; 0 is the least significant bit.
    pub ranges: Vec<IntRange>,
}

/// A range of integers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntRange {
    /// Smallest value.
    pub lower: i128,
    /// Largest value.
    pub upper: i128,
}

impl IntRange {
    /// Whether the value is in the range.
    #[inline]
    pub fn contains(&self, value: i128) -> bool {
        self.lower <= value && value <= self.upper
    }
}

/// The base in which an integer is best shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DisplayBase {
    /// Base 2.
    Binary,
    /// Base 8.
    Octal,
    /// Base 10.
    Decimal,
    /// Base 16.
    Hexadecimal,
}

/// How an integer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegerLayout {
    /// A fixed number of bits.
    Fixed(BitLayout),
    /// LEB128: as many bytes as needed.
    Leb128,
}

/// An integer, or an enumeration when [`is_enum`](Self::is_enum).
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerClass {
    /// Storage.
    pub layout: IntegerLayout,
    /// Two's complement?
    pub signed: bool,
    /// Preferred base.
    pub base: DisplayBase,
    /// Whether the class is an enumeration (it may have no mapping).
    pub is_enum: bool,
    /// Names of values, in the order of the metadata; ranges may overlap.
    pub mappings: Vec<Mapping>,
    /// Meanings that the format gives to the field.
    pub roles: Roles,
    /// CTF 1.8: name of the clock that the field is mapped to.
    pub mapped_clock: Option<String>,
}

impl IntegerClass {
    /// Size in bits; 64 for variable-length integers.
    pub fn size_bits(&self) -> u32 {
        match self.layout {
            IntegerLayout::Fixed(layout) => layout.size_bits,
            IntegerLayout::Leb128 => 64,
        }
    }

    /// Labels whose ranges contain the value (raw bits as decoded: sign-extended when signed), in
    /// the order of the metadata.
    pub fn labels(&self, raw: u64) -> impl Iterator<Item = &str> {
        let value = if self.signed { i128::from(raw.cast_signed()) } else { i128::from(raw) };
        self.mappings
            .iter()
            .filter(move |m| m.ranges.iter().any(|r| r.contains(value)))
            .map(|m| m.label.as_str())
    }
}

/// A name for ranges of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The name.
    pub label: String,
    /// The values.
    pub ranges: Vec<IntRange>,
}

/// A real number of 16, 32, 64 or 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatClass {
    /// Bits; the size may be up to 128 here.
    pub layout: BitLayout,
}

/// Encoding of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum StringEncoding {
    Utf8,
    Utf16Be,
    Utf16Le,
    Utf32Be,
    Utf32Le,
}

impl StringEncoding {
    /// Bytes of one code unit.
    pub fn unit_size_bytes(self) -> usize {
        match self {
            Self::Utf8 => 1,
            Self::Utf16Be | Self::Utf16Le => 2,
            Self::Utf32Be | Self::Utf32Le => 4,
        }
    }
}

/// Where text ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringExtent {
    /// At the first NUL code unit.
    NullTerminated,
    /// After a number of bytes, all consumed; shown up to the first NUL.
    Sized(Length),
}

/// Text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringClass {
    /// Where it ends.
    pub extent: StringExtent,
    /// How it is encoded.
    pub encoding: StringEncoding,
}

/// A number of elements or bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Length {
    /// Known from the metadata.
    Static(u64),
    /// The value of another field.
    Dynamic(FieldRef),
}

/// Bytes with a media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobClass {
    /// Number of bytes.
    pub length: Length,
    /// IANA media type.
    pub media_type: String,
    /// Meanings that the format gives to the field.
    pub roles: Roles,
}

/// Named members, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StructClass {
    /// Members, hidden ones included.
    pub members: Vec<Member>,
}

impl StructClass {
    /// The members that readers show, with their index among all members.
    pub fn visible(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter(|(_, m)| m.class.visible)
    }

    /// The member of this displayed name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.name == name)
    }
}

/// A member of a structure.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Displayed name.
    pub name: String,
    /// Name as the metadata writes it (CTF 1.8 may put an underscore in front).
    pub raw_name: String,
    /// Its class.
    pub class: Arc<FieldClass>,
    /// User attributes of the member.
    pub attributes: Attributes,
}

/// Elements of one class.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrayClass {
    /// Class of the elements.
    pub element: Arc<FieldClass>,
    /// How many there are.
    pub length: Length,
}

/// A field that is there or not.
#[derive(Debug, Clone, PartialEq)]
pub struct OptionalClass {
    /// Class of the field when it is there.
    pub content: Arc<FieldClass>,
    /// The field that decides.
    pub selector: FieldRef,
    /// Values of an integer selector that enable it; empty for a boolean selector.
    pub ranges: Vec<IntRange>,
}

/// One of several fields.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantClass {
    /// Options in order.
    pub options: Vec<VariantOption>,
    /// The field that decides.
    pub selector: FieldRef,
}

/// An option of a variant.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantOption {
    /// Displayed name (may be missing in CTF 2).
    pub name: Option<String>,
    /// Name as the metadata writes it.
    pub raw_name: Option<String>,
    /// Its class.
    pub class: Arc<FieldClass>,
    /// Values of the selector that choose it.
    pub ranges: Vec<IntRange>,
    /// User attributes of the option.
    pub attributes: Attributes,
}

impl FieldClass {
    /// A visible class without attributes.
    pub fn new(kind: FieldKind, alignment_bits: u32) -> Self {
        Self { alignment_bits, kind, attributes: Attributes::new(), visible: true, slot: None }
    }

    /// The structure, if it is one.
    pub fn as_struct(&self) -> Option<&StructClass> {
        match &self.kind {
            FieldKind::Struct(class) => Some(class),
            _ => None,
        }
    }

    /// The roles of an integer or blob; empty for all others.
    pub fn roles(&self) -> Roles {
        match &self.kind {
            FieldKind::Integer(class) => class.roles,
            FieldKind::Blob(class) => class.roles,
            _ => Roles::default(),
        }
    }

    /// Size in bits when it does not depend on data; counts the padding inside, from a start that
    /// is aligned as [`alignment_bits`](Self::alignment_bits) asks.
    pub fn fixed_size_bits(&self) -> Option<u64> {
        match &self.kind {
            FieldKind::BitArray(c) => Some(u64::from(c.layout.size_bits)),
            FieldKind::Bool(layout) => Some(u64::from(layout.size_bits)),
            FieldKind::Integer(c) => match c.layout {
                IntegerLayout::Fixed(layout) => Some(u64::from(layout.size_bits)),
                IntegerLayout::Leb128 => None,
            },
            FieldKind::Float(c) => Some(u64::from(c.layout.size_bits)),
            FieldKind::String(c) => match &c.extent {
                StringExtent::Sized(Length::Static(bytes)) => bytes.checked_mul(8),
                _ => None,
            },
            FieldKind::Blob(c) => match &c.length {
                Length::Static(bytes) => bytes.checked_mul(8),
                Length::Dynamic(_) => None,
            },
            FieldKind::Struct(c) => c.members.iter().try_fold(0u64, |at, m| {
                at.checked_next_multiple_of(u64::from(m.class.alignment_bits))?
                    .checked_add(m.class.fixed_size_bits()?)
            }),
            FieldKind::Array(c) => {
                let Length::Static(length) = c.length else {
                    return None;
                };
                let element = c.element.fixed_size_bits()?;
                if length == 0 {
                    return Some(0);
                }
                // The last element has no padding after it.
                element
                    .checked_next_multiple_of(u64::from(c.element.alignment_bits))?
                    .checked_mul(length - 1)?
                    .checked_add(element)
            }
            FieldKind::Optional(_) | FieldKind::Variant(_) => None,
        }
    }
}
