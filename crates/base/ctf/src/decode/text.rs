//! UTF-16 and UTF-32 text to UTF-8; what is no character becomes U+FFFD.

use crate::model::StringEncoding;

/// The text of whole code units.
pub(crate) fn transcode(bytes: &[u8], encoding: StringEncoding) -> String {
    let unit16 = |big: bool| {
        let units = bytes.chunks_exact(2).map(move |b| {
            let pair = [b[0], b[1]];
            if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
        });
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    let unit32 = |big: bool| {
        let chars = bytes.chunks_exact(4).map(move |b| {
            let quad = [b[0], b[1], b[2], b[3]];
            let code = if big { u32::from_be_bytes(quad) } else { u32::from_le_bytes(quad) };
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        });
        chars.collect()
    };
    match encoding {
        StringEncoding::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
        StringEncoding::Utf16Be => unit16(true),
        StringEncoding::Utf16Le => unit16(false),
        StringEncoding::Utf32Be => unit32(true),
        StringEncoding::Utf32Le => unit32(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_and_bad_units() {
        let check = |bytes: &[u8], encoding, want: &str| {
            assert_eq!(transcode(bytes, encoding), want);
        };
        check(b"\xd8\x3c\xdf\x89", StringEncoding::Utf16Be, "🎉");
        check(b"\x3c\xd8a\0", StringEncoding::Utf16Le, "\u{fffd}a");
        check(b"\0\0\0\x41\0\x11\0\0", StringEncoding::Utf32Be, "A\u{fffd}");
        check(b"\x89\xf3\x01\0", StringEncoding::Utf32Le, "🎉");
    }
}
