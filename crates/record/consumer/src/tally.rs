//! How many records lie in a packet that the disk did not take: what was lost is said in records.
//!
//! It is the only place where the consumer looks inside a packet, and only at packets that are lost.
//! What the records look like stands in the trace's metadata, which are on disk before any program
//! can record an event of a class. Where they cannot be read, or programs wrote nonsense, there is no
//! number. The bytes are copied first: programs may still change the ring.

use crate::disk::Disk;
use crate::repair::whole_blocks;
use crate::stream::Place;
use sillage_ctf::model::TraceClass;
use sillage_ctf::packet::LttngPacketHeader;
use sillage_ctf::{MetadataOptions, MetadataReader, PacketDecoder};
use sillage_ring::Packet;
use std::sync::Arc;

/// Room that is kept from one packet to the next, bytes.
const KEPT_BYTES: usize = 1 << 20;

/// Counts records.
#[derive(Default)]
pub(crate) struct Tally {
    /// The metadata, when they had so many bytes.
    metadata: Option<(u64, Arc<TraceClass>)>,
    packet: Vec<u8>,
}

impl Tally {
    /// The number of records in the packet, if it can be told. `header` is the one that it would have
    /// been written with.
    ///
    /// # Safety
    /// The packet's body is readable until the call returns.
    pub(crate) unsafe fn count<D: Disk>(
        &mut self,
        disk: &D,
        place: &Place,
        header: &LttngPacketHeader,
        packet: &Packet,
    ) -> Option<u64> {
        let bytes = packet.body_bytes;
        if bytes == 0 {
            return Some(0);
        }
        self.read_metadata(disk, place)?;
        let whole = LttngPacketHeader { packet_size_bits: header.content_size_bits, ..*header };
        self.packet.clear();
        self.packet.extend_from_slice(&whole.encode_native());
        let at = self.packet.len();
        self.packet.resize(at + bytes, 0);
        // SAFETY: the caller keeps the body readable; the room for it was just made.
        unsafe { std::ptr::copy_nonoverlapping(packet.body, self.packet[at..].as_mut_ptr(), bytes) };
        let count = self.records(place);
        if self.packet.capacity() > KEPT_BYTES {
            self.packet = Vec::new();
        }
        count
    }

    fn records(&self, place: &Place) -> Option<u64> {
        let (_, trace) = self.metadata.as_ref()?;
        let class = trace.stream_class(place.stream_id.into())?;
        let mut decoder = PacketDecoder::new();
        decoder.start(trace, &self.packet).ok()?;
        let mut count = 0;
        while decoder.next_event(class, &self.packet).ok()? {
            count += 1;
        }
        Some(count)
    }

    /// Reads the metadata if there are more than at the last time. They stay known when they vanish.
    fn read_metadata<D: Disk>(&mut self, disk: &D, place: &Place) -> Option<()> {
        let path = place.dir.join("metadata");
        let size_bytes = disk.size(&path).unwrap_or(0);
        if self.metadata.as_ref().is_none_or(|(known, _)| *known < size_bytes) {
            let bytes = disk.read(&path).ok()?;
            // The session may be writing the next block.
            let text = &bytes[..whole_blocks(&bytes)];
            let trace = MetadataReader::read(text, MetadataOptions::default()).ok()?;
            self.metadata = Some((bytes.len() as u64, trace));
        }
        Some(())
    }
}
