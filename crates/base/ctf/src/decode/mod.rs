//! From bytes to fields: decode programs, the walk over them, packets and event records.
//!
//! Works on slices that it is given, one packet at a time, and allocates nothing per event. A
//! record is decoded as far as is needed to find its end (every length, selector and bound of it is
//! then checked); fields are decoded again only when somebody asks for them, which for that reason
//! can not fail.

pub(crate) mod bits;
mod columns;
mod ends;
mod header;
mod orders;
mod packet;
mod plan;
mod real;
mod records;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod walk;
mod whole;

pub use columns::{Columns, Picked};
pub use packet::{PacketDecoder, PacketInfo};
pub use plan::Node;
pub use table::{Field, Fields, Value};
pub use walk::{FieldVisitor, Scalar, Scalars};

pub(crate) use header::{EventPlan, FastHeader, StreamPlan};
pub(crate) use plan::Plan;
