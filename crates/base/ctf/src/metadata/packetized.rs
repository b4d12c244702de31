//! Packetized metadata (CTF 1.8): text in packets with a 37-byte header each.
//!
//! The magic number of the first packet gives the byte order. The text is the concatenation of the
//! packets' contents and may be cut anywhere. Nothing is interpreted here.

use crate::error::{MetadataError, Warning};
use crate::model::{ByteOrder, Uuid};

const MAGIC: u32 = 0x75D1_1D57;
const HEADER_SIZE_BYTES: usize = 37;

/// The byte order of packetized metadata; `None` when the bytes are plain text.
pub fn detect(bytes: &[u8]) -> Option<ByteOrder> {
    let magic = *bytes.first_chunk::<4>()?;
    if u32::from_le_bytes(magic) == MAGIC {
        Some(ByteOrder::Little)
    } else if u32::from_be_bytes(magic) == MAGIC {
        Some(ByteOrder::Big)
    } else {
        None
    }
}

/// What the packets hold.
pub(super) struct Unpacked {
    pub text: Vec<u8>,
    pub uuid: Option<Uuid>,
}

/// Takes the text out of the packets.
pub(super) fn unpack(
    bytes: &[u8],
    order: ByteOrder,
    warnings: &mut Vec<Warning>,
) -> Result<Unpacked, Box<MetadataError>> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut uuid = None;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let fail = |rule: String| Err(MetadataError::whole(format!("metadata packet at byte {at}: {rule}")));
        let Some(header) = rest.first_chunk::<HEADER_SIZE_BYTES>() else {
            warnings.push(Warning {
                line: 0,
                message: format!("{} bytes after the last metadata packet are ignored", rest.len()),
            });
            break;
        };
        let word = |from: usize| {
            let bytes = [header[from], header[from + 1], header[from + 2], header[from + 3]];
            match order {
                ByteOrder::Little => u32::from_le_bytes(bytes),
                ByteOrder::Big => u32::from_be_bytes(bytes),
            }
        };
        if word(0) != MAGIC {
            return fail(format!("magic number is {:#x}", word(0)));
        }
        let mut own = [0; 16];
        own.copy_from_slice(&header[4..20]);
        if *uuid.get_or_insert(Uuid(own)) != Uuid(own) {
            return fail("UUID differs from that of the first packet".to_owned());
        }
        let (content, packet) = (word(24), word(28));
        let [compression, encryption, checksum, major, minor] =
            [header[32], header[33], header[34], header[35], header[36]];
        if compression != 0 || encryption != 0 || checksum != 0 {
            return fail("compression, encryption and checksums are not supported".to_owned());
        }
        if (major, minor) != (1, 8) {
            return fail(format!("version {major}.{minor} is not supported"));
        }
        if content % 8 != 0 || (content / 8) < HEADER_SIZE_BYTES as u32 {
            return fail(format!("content size of {content} bits is not valid"));
        }
        if packet < content || packet % 8 != 0 {
            return fail(format!("packet size of {packet} bits does not hold its content of {content} bits"));
        }
        let (content, packet) = ((content / 8) as usize, (packet / 8) as usize);
        let Some(content) = rest.get(HEADER_SIZE_BYTES..content) else {
            return fail(format!(
                "content of {content} bytes ends after the file's last {} bytes",
                rest.len()
            ));
        };
        text.extend_from_slice(content);
        at += packet.min(rest.len());
    }
    Ok(Unpacked { text, uuid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(text: &str, padding: usize) -> Vec<u8> {
        let content = (HEADER_SIZE_BYTES + text.len()) as u32 * 8;
        let mut out = MAGIC.to_be_bytes().to_vec();
        out.extend([7; 16]);
        out.extend([0; 4]);
        out.extend(content.to_be_bytes());
        out.extend((content + padding as u32 * 8).to_be_bytes());
        out.extend([0, 0, 0, 1, 8]);
        out.extend(text.as_bytes());
        out.extend(vec![0xaa; padding]);
        out
    }

    fn check(bytes: &[u8], want: &str) {
        let order = detect(bytes).unwrap();
        let mut warnings = Vec::new();
        let got = match unpack(bytes, order, &mut warnings) {
            Ok(unpacked) => String::from_utf8(unpacked.text).unwrap(),
            Err(error) => error.to_string(),
        };
        let warned: Vec<String> = warnings.into_iter().map(|w| format!(" ! {}", w.message)).collect();
        assert_eq!(got + &warned.concat(), want);
    }

    #[test]
    fn text_cut_anywhere_is_joined() {
        let mut bytes = packet("tra", 5);
        bytes.extend(packet("ce {}", 0));
        check(&bytes, "trace {}");
        bytes.extend([1, 2]);
        check(&bytes, "trace {} ! 2 bytes after the last metadata packet are ignored");
    }

    #[test]
    fn bad_headers_are_refused() {
        let edit = |at: usize, value: u8, want: &str| {
            let mut bytes = packet("x", 0);
            bytes[at] = value;
            check(&bytes, &format!("metadata:0:0: metadata packet at byte 0: {want}"));
        };
        edit(32, 1, "compression, encryption and checksums are not supported");
        edit(36, 9, "version 1.9 is not supported");
        edit(27, 0xff, "content size of 511 bits is not valid");
        edit(31, 0, "packet size of 256 bits does not hold its content of 304 bits");
    }
}
