//! The vocabulary of a trace: trace, stream, event, clock and field classes, and identities.
//!
//! CTF 1.8 and CTF 2 metadata both end as these types, so nothing after the metadata readers asks
//! which of the two it came from. Classes are immutable once shared: metadata that grows (a live
//! session) makes a new [`TraceClass`] which shares the unchanged parts, and every index given out
//! stays valid in the new one. No parsing and no decoding here.

mod attributes;
mod clock;
mod field;
mod trace;

pub use attributes::{Attributes, Datum};
pub use clock::{ClockClass, ClockOrigin, ClockSnapshot};
pub(crate) use field::RawPath;
pub use field::{
    ArrayClass, BitArrayClass, BitFlag, BitLayout, BlobClass, DisplayBase, FieldClass, FieldKind, FieldPath,
    FieldRef, FloatClass, IntRange, IntegerClass, IntegerLayout, Length, Mapping, Member, OptionalClass,
    PathItem, Role, Roles, Scope, SelectorKind, StringClass, StringEncoding, StringExtent, StructClass,
    VariantClass, VariantOption,
};
pub use trace::{CtfVersion, EnvValue, EventClass, LogLevel, Stream, StreamClass, Trace, TraceClass, Uuid};

/// Order of the bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first ("network").
    Big,
}

impl ByteOrder {
    /// The order of the machine that this program was compiled for.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}
