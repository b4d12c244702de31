//! CTF 1.8 and CTF 2: metadata, decode programs, packets, indexes, clocks, and writing them.
//!
//! No I/O: everything works on bytes that it is given. [`model`] is the vocabulary, [`decode`] goes
//! from bytes to fields, [`message`] is what readers hand to sinks, [`index`] and [`packet`] are
//! LTTng's files. Malformed input gives an error with a place, never a panic, never an endless
//! loop, never an allocation by a length that was not checked.

pub mod decode;
pub mod error;
pub mod index;
mod json;
pub mod limits;
pub mod message;
pub mod metadata;
pub mod model;
pub mod packet;
mod tsdl;
pub mod writer;

pub use decode::{
    Columns, Field, FieldVisitor, Fields, Node, PacketDecoder, PacketInfo, Picked, Scalar, Scalars, Value,
};
pub use error::{DecodeError, Fault, MetadataError, Warning};
pub use message::{Discarded, Event, Message, Packet, StreamEdge};
pub use metadata::{MetadataOptions, MetadataReader};
