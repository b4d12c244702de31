//! The packet header and context that LTTng's tracers write: 84 bytes, or 80 without `cpu_id`.
//!
//! Encoding only, for the recording side: the reader decodes packets by the trace's own metadata
//! and never assumes this layout. Fields are packed with byte alignment in the byte order asked
//! for. No I/O.
//!
//! ```text
//!  0 u32 magic C1FC1FC1 |  4 u8[16] trace uuid  | 20 u32 stream class id | 24 u64 stream instance id
//! 32 u64 timestamp_begin | 40 u64 timestamp_end | 48 u64 content_size (bits, header included)
//! 56 u64 packet_size (bits, padding included)   | 64 u64 packet_seq_num
//! 72 u64 events_discarded (cumulative)          | 80 u32 cpu_id
//! ```

use crate::model::ByteOrder;

/// First four bytes of every CTF packet that has a `magic` member.
pub const MAGIC: u32 = 0xC1FC_1FC1;
/// Size of LTTng's packet header and context with `cpu_id`.
pub const LTTNG_HEADER_SIZE_BYTES: usize = 84;
/// Size without `cpu_id`, as used with per-channel buffers.
pub const LTTNG_HEADER_SIZE_BYTES_NO_CPU: usize = 80;

/// The values of LTTng's packet header and context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LttngPacketHeader {
    /// Trace UUID, as in the metadata.
    pub uuid: [u8; 16],
    /// Stream class id: the channel's id in the trace.
    pub stream_id: u32,
    /// Stream instance id: the CPU, 0 for per-channel buffers.
    pub stream_instance_id: u64,
    /// Clock at the start of the packet, in cycles.
    pub timestamp_begin: u64,
    /// Clock at the end of the packet, in cycles.
    pub timestamp_end: u64,
    /// Size of the content in bits, this header included.
    pub content_size_bits: u64,
    /// Size of the packet in bits, padding included.
    pub packet_size_bits: u64,
    /// Sequence number within the stream, from 0.
    pub packet_seq_num: u64,
    /// Events discarded since the stream began, sampled at the end of the packet.
    pub events_discarded: u64,
    /// CPU of the buffer.
    pub cpu_id: u32,
}

impl LttngPacketHeader {
    /// The 84 bytes of the header; drop the last four for the layout without `cpu_id`.
    pub fn encode(&self, order: ByteOrder) -> [u8; LTTNG_HEADER_SIZE_BYTES] {
        let mut out = [0; LTTNG_HEADER_SIZE_BYTES];
        let word32 = |value: u32| match order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        };
        let word64 = |value: u64| match order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        };
        out[0..4].copy_from_slice(&word32(MAGIC));
        out[4..20].copy_from_slice(&self.uuid);
        out[20..24].copy_from_slice(&word32(self.stream_id));
        for (slot, value) in out[24..80].chunks_exact_mut(8).zip([
            self.stream_instance_id,
            self.timestamp_begin,
            self.timestamp_end,
            self.content_size_bits,
            self.packet_size_bits,
            self.packet_seq_num,
            self.events_discarded,
        ]) {
            slot.copy_from_slice(&word64(value));
        }
        out[80..84].copy_from_slice(&word32(self.cpu_id));
        out
    }

    /// [`encode`](Self::encode) in this machine's byte order, as LTTng writes.
    pub fn encode_native(&self) -> [u8; LTTNG_HEADER_SIZE_BYTES] {
        self.encode(ByteOrder::NATIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_lies_at_its_offset() {
        let header = LttngPacketHeader {
            uuid: *b"0123456789abcdef",
            stream_id: 0x14,
            stream_instance_id: 0x18,
            timestamp_begin: 0x20,
            timestamp_end: 0x28,
            content_size_bits: 0x30,
            packet_size_bits: 0x38,
            packet_seq_num: 0x40,
            events_discarded: 0x48,
            cpu_id: 0x50,
        };
        let le = header.encode(ByteOrder::Little);
        assert_eq!(&le[0..20], b"\xC1\x1F\xFC\xC10123456789abcdef");
        for at in [0x14usize, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50] {
            assert_eq!(usize::from(le[at]), at);
        }
        let be = header.encode(ByteOrder::Big);
        assert_eq!(&be[0..4], b"\xC1\xFC\x1F\xC1");
        assert_eq!(be[83], 0x50);
        assert_eq!(be[79], 0x48);
    }
}
