//! Sources of messages: CTF traces on disk.
//!
//! [`open`](crate::open) finds the traces below a path, reads their metadata, sorts their files into
//! streams and gives a [`Source`]: a description that can be read from the beginning, from a time,
//! or in slices on several threads, as often as wanted. Live sources use the same [`StreamReader`]
//! and [`Muxer`] with packets of their own.

mod bytes;
mod columns;
mod correlate;
mod discover;
pub mod dmesg;
mod index;
pub mod live;
mod mux;
mod open;
mod packets;
mod plan;
mod quirks;
mod stream;

pub use bytes::Access;
pub use columns::{Batch, ColumnReader};
pub use discover::has_trace;
pub use mux::{Muxer, SliceRange};
pub use open::{Options, Source, StreamRange, open, open_all};
pub use packets::{FilePackets, PacketPlace, PacketSource, PacketStep};
pub use quirks::Quirks;
pub use stream::{Position, StreamReader};
