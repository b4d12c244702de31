//! LTTng index files (`index/<stream>.idx`): one fixed-size entry per packet of a stream file.
//!
//! Pure encoding and decoding of the 16-byte header and of the 56- or 72-byte entries, all
//! big-endian. Decoding checks only what makes an entry unreadable; whether an index agrees with
//! its data file is the reader's question (see the pipeline's sources). No I/O.
//!
//! ```text
//! header: 0 u32 magic C1F1DCC1 | 4 u32 major 1 | 8 u32 minor | 12 u32 entry size in bytes
//! entry:  0 u64 offset (bytes) | 8 packet size (bits) | 16 content size (bits) | 24 begin | 32 end
//!        40 events discarded  | 48 stream class id   | [1.1] 56 stream instance id | 64 sequence
//! ```

use thiserror::Error;

/// First four bytes of every index file, big-endian.
pub const MAGIC: u32 = 0xC1F1_DCC1;
/// Size of the file header.
pub const HEADER_SIZE_BYTES: usize = 16;
/// Size of an entry of version 1.0 (no instance id, no sequence number).
pub const ENTRY_SIZE_BYTES_V1_0: usize = 56;
/// Size of an entry of version 1.1, the one that we write.
pub const ENTRY_SIZE_BYTES: usize = 72;
/// Value of `stream_instance_id` and `packet_seq_num` when the tracer does not know them.
pub const UNKNOWN: u64 = u64::MAX;

/// What makes an index file unreadable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IndexError {
    /// Fewer bytes than the header or the entry needs.
    #[error("index is {got} bytes long, at least {needed} needed")]
    TooShort {
        /// Bytes that are there.
        got: usize,
        /// Bytes that the structure takes.
        needed: usize,
    },
    /// The first four bytes are not [`MAGIC`].
    #[error("index magic is {0:#010x}, expected 0xc1f1dcc1")]
    BadMagic(u32),
    /// Only major version 1 is known.
    #[error("index version {major}.{minor} is not supported")]
    Version {
        /// Major version found.
        major: u32,
        /// Minor version found.
        minor: u32,
    },
    /// Entries are smaller than those of version 1.0.
    #[error("index entry size is {0} bytes, at least 56 needed")]
    EntrySize(u32),
}

/// The header of an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Major version; always 1.
    pub major: u32,
    /// Minor version; 1 is what everything since LTTng 2.8 writes.
    pub minor: u32,
    /// Distance between two entries, in bytes.
    pub entry_size_bytes: u32,
}

impl Header {
    /// The header of the version that we write: 1.1, 72-byte entries.
    pub const V1_1: Self = Self { major: 1, minor: 1, entry_size_bytes: ENTRY_SIZE_BYTES as u32 };

    /// The 16 bytes of this header.
    pub fn encode(&self) -> [u8; HEADER_SIZE_BYTES] {
        let mut out = [0; HEADER_SIZE_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        out[4..8].copy_from_slice(&self.major.to_be_bytes());
        out[8..12].copy_from_slice(&self.minor.to_be_bytes());
        out[12..16].copy_from_slice(&self.entry_size_bytes.to_be_bytes());
        out
    }

    /// Reads and checks the header at the start of `bytes`.
    ///
    /// # Errors
    /// Too few bytes, a wrong magic number, a major version other than 1, entries under 56 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let field = |at: usize| -> Result<u32, IndexError> {
            bytes
                .get(at..at + 4)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_be_bytes)
                .ok_or(IndexError::TooShort { got: bytes.len(), needed: HEADER_SIZE_BYTES })
        };
        let header = Self { major: field(4)?, minor: field(8)?, entry_size_bytes: field(12)? };
        let magic = field(0)?;
        if magic != MAGIC {
            return Err(IndexError::BadMagic(magic));
        }
        if header.major != 1 {
            return Err(IndexError::Version { major: header.major, minor: header.minor });
        }
        if (header.entry_size_bytes as usize) < ENTRY_SIZE_BYTES_V1_0 {
            return Err(IndexError::EntrySize(header.entry_size_bytes));
        }
        Ok(header)
    }
}

/// One entry: where a packet lies in its stream file and what its context says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Offset of the packet in its stream file, in bytes.
    pub offset_bytes: u64,
    /// Whole size of the packet, padding included, in bits.
    pub packet_size_bits: u64,
    /// Size of the content, header included, in bits.
    pub content_size_bits: u64,
    /// Clock value at the start of the packet, in cycles.
    pub timestamp_begin: u64,
    /// Clock value at the end of the packet, in cycles.
    pub timestamp_end: u64,
    /// Cumulative count of discarded events at the end of the packet.
    pub events_discarded: u64,
    /// Stream class id.
    pub stream_id: u64,
    /// Stream instance id; [`UNKNOWN`] when not recorded.
    pub stream_instance_id: u64,
    /// Packet sequence number; [`UNKNOWN`] when not recorded.
    pub packet_seq_num: u64,
}

impl Entry {
    /// The 72 bytes of this entry (version 1.1).
    pub fn encode(&self) -> [u8; ENTRY_SIZE_BYTES] {
        let mut out = [0; ENTRY_SIZE_BYTES];
        for (slot, value) in out.chunks_exact_mut(8).zip([
            self.offset_bytes,
            self.packet_size_bits,
            self.content_size_bits,
            self.timestamp_begin,
            self.timestamp_end,
            self.events_discarded,
            self.stream_id,
            self.stream_instance_id,
            self.packet_seq_num,
        ]) {
            slot.copy_from_slice(&value.to_be_bytes());
        }
        out
    }

    /// Reads one entry at the start of `bytes`; 56 bytes give an entry whose last two fields are
    /// [`UNKNOWN`], 72 or more give all of them.
    ///
    /// # Errors
    /// Fewer than 56 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let field = |at: usize| -> Option<u64> {
            let chunk = bytes.get(at..at + 8)?;
            Some(u64::from_be_bytes(chunk.try_into().ok()?))
        };
        let needed =
            |at| field(at).ok_or(IndexError::TooShort { got: bytes.len(), needed: ENTRY_SIZE_BYTES_V1_0 });
        Ok(Self {
            offset_bytes: needed(0)?,
            packet_size_bits: needed(8)?,
            content_size_bits: needed(16)?,
            timestamp_begin: needed(24)?,
            timestamp_end: needed(32)?,
            events_discarded: needed(40)?,
            stream_id: needed(48)?,
            stream_instance_id: field(56).unwrap_or(UNKNOWN),
            packet_seq_num: field(64).unwrap_or(UNKNOWN),
        })
    }
}

/// The header and the entries of a whole index file given as bytes; a partial last entry is
/// ignored (a file that is still written to).
///
/// # Errors
/// As [`Header::decode`].
pub fn decode(bytes: &[u8]) -> Result<(Header, impl Iterator<Item = Entry> + '_), IndexError> {
    let header = Header::decode(bytes)?;
    let entries = bytes[HEADER_SIZE_BYTES..]
        .chunks_exact(header.entry_size_bytes as usize)
        .filter_map(|chunk| Entry::decode(chunk).ok());
    Ok((header, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry {
        offset_bytes: 4096,
        packet_size_bits: 32768,
        content_size_bits: 672,
        timestamp_begin: 1,
        timestamp_end: 2,
        events_discarded: 3,
        stream_id: 4,
        stream_instance_id: 5,
        packet_seq_num: 6,
    };

    #[test]
    fn header_bytes_are_big_endian() {
        assert_eq!(Header::V1_1.encode(), [0xC1, 0xF1, 0xDC, 0xC1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 72]);
    }

    #[test]
    fn round_trip_with_a_partial_last_entry() {
        let mut file = Header::V1_1.encode().to_vec();
        file.extend(ENTRY.encode());
        file.extend([0; 10]);
        let (header, entries) = decode(&file).unwrap();
        assert_eq!(header, Header::V1_1);
        assert_eq!(entries.collect::<Vec<_>>(), [ENTRY]);
    }

    #[test]
    fn version_1_0_entries_lack_the_last_two_fields() {
        let old = Entry::decode(&ENTRY.encode()[..ENTRY_SIZE_BYTES_V1_0]).unwrap();
        assert_eq!(old, Entry { stream_instance_id: UNKNOWN, packet_seq_num: UNKNOWN, ..ENTRY });
    }

    #[test]
    fn bad_headers_are_named() {
        let check = |edit: fn(&mut Vec<u8>), want: IndexError| {
            let mut bytes = Header::V1_1.encode().to_vec();
            edit(&mut bytes);
            assert_eq!(Header::decode(&bytes), Err(want));
        };
        check(|b| b[0] = 0, IndexError::BadMagic(0x00F1_DCC1));
        check(|b| b[7] = 2, IndexError::Version { major: 2, minor: 1 });
        check(|b| b[15] = 55, IndexError::EntrySize(55));
        check(|b| b.truncate(15), IndexError::TooShort { got: 15, needed: 16 });
    }
}
