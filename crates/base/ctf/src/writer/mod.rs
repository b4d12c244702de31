//! Writing CTF 1.8 and CTF 2: metadata out of a trace class, packets out of events.
//!
//! What a format can express keeps its layout, bit by bit: then whole packets are copied, or whole
//! records when some of a packet's events are left out, and only what the target lacks is encoded
//! anew. A reader of the result finds the same streams, events, times and losses. No I/O: a
//! [`TraceWriter`] gives the metadata text, a [`PacketWriter`] per stream gives bytes.

mod bits;
mod encode;
mod extend;
mod json;
mod layout;
pub mod lttng;
mod names;
mod packet;
#[cfg(test)]
mod tests;
mod tsdl;
mod tsdl_fields;

use std::sync::Arc;

use crate::model::{CtfVersion, TraceClass};
use layout::Layout;

pub use extend::{ExtendedStream, with_common_member};
pub use names::quoted;
pub use packet::{Finished, PacketValues, PacketWriter, patch_packet};

/// The metadata of one trace and how its packets are written.
#[derive(Debug)]
pub struct TraceWriter {
    class: Arc<TraceClass>,
    metadata: String,
    layout: TraceLayout,
}

/// Layouts of everything in a trace.
#[derive(Debug)]
pub(crate) struct TraceLayout {
    pub header: Layout,
    /// By position of the stream class.
    pub streams: Vec<StreamLayout>,
}

/// Layouts of the scopes of a stream class.
#[derive(Debug)]
pub(crate) struct StreamLayout {
    pub context: Layout,
    pub header: Layout,
    pub common: Layout,
    /// By position of the event class.
    pub events: Vec<EventLayout>,
    /// By position of the event class: the largest alignment in its records, at least a byte, if
    /// they may be copied; else 0.
    pub copy_aligns: Arc<[u64]>,
    /// Whether the sizes that the source lacks are added to the context.
    pub add_packet_size: bool,
    pub add_content_size: bool,
}

impl StreamLayout {
    /// Fills in `copy_aligns` when all else is known.
    fn finish(&mut self) {
        let own = self.events.iter().map(|event| {
            let all = [&self.header, &self.common, &event.specific, &event.payload];
            if all.iter().all(|layout| layout.same) {
                all.iter().map(|layout| layout.align_max).fold(8, u64::max)
            } else {
                0
            }
        });
        self.copy_aligns = own.collect();
    }
}

/// Layouts of the scopes of an event class.
#[derive(Debug)]
pub(crate) struct EventLayout {
    pub specific: Layout,
    pub payload: Layout,
}

impl TraceWriter {
    /// Prepares to write a trace of this class in this version of the format. When the class grows
    /// (a live session), make a new one: the layouts of what was there stay the same.
    pub fn new(class: Arc<TraceClass>, version: CtfVersion) -> Self {
        let (metadata, mut layout) = match version {
            CtfVersion::V1_8 => tsdl::write(&class),
            CtfVersion::V2 => json::write(&class),
        };
        for stream in &mut layout.streams {
            stream.finish();
        }
        Self { class, metadata, layout }
    }

    /// The content of the `metadata` file.
    pub fn metadata(&self) -> &str {
        &self.metadata
    }

    /// The class that the metadata describes.
    pub fn class(&self) -> &Arc<TraceClass> {
        &self.class
    }

    /// Whether packets of the stream class at this position may be copied as they are.
    pub fn keeps_packets(&self, stream_class: usize) -> bool {
        self.layout.streams.get(stream_class).is_some_and(|stream| {
            self.layout.header.same && stream.context.same && !stream.copy_aligns.contains(&0)
        })
    }
}
