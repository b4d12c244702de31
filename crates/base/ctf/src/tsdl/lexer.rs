//! TSDL text to tokens with byte offsets.
//!
//! Keywords are words like any other here: TSDL allows them after a dot and as attribute names, so
//! only the parser knows where they are special.

use crate::error::MetadataError;

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind<'a> {
    /// Identifier or keyword.
    Word(&'a str),
    /// Unsigned integer literal.
    Int(u64),
    /// String literal, unescaped (bytes that are no UTF-8 replaced).
    Str(String),
    /// Character literal.
    Char(u8),
    /// Punctuation.
    Punct(&'static str),
    /// End of the text.
    End,
}

/// A token and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'a> {
    pub kind: Kind<'a>,
    pub at: usize,
}

/// The punctuation that a text which begins with `first` begins with.
fn punctuation(first: u8, text: &str) -> Option<&'static str> {
    const ONES: [&str; 19] =
        ["[", "]", "(", ")", "{", "}", ".", "*", "+", "-", "<", ">", ":", ";", "=", ",", "~", "|", "&"];
    let longer = match first {
        b'.' => Some("..."),
        b'-' => Some("->"),
        b':' => Some(":="),
        _ => None,
    };
    let one = || ONES.into_iter().find(|one| one.as_bytes() == [first]);
    longer.filter(|longer| text.starts_with(longer)).or_else(one)
}

/// All tokens of the text, `End` last.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, Box<MetadataError>> {
    let mut lexer = Lexer { text, at: 0 };
    let mut out = Vec::with_capacity(text.len() / 4);
    loop {
        lexer.skip_space()?;
        let at = lexer.at;
        let kind = lexer.token()?;
        let end = kind == Kind::End;
        out.push(Token { kind, at });
        if end {
            return Ok(out);
        }
    }
}

/// Where the last whole declaration outside of all braces ends, in a text whose rest was cut off in
/// the middle of the next one (its writer was killed). None: it is not torn, or not only there.
pub(super) fn torn_behind(text: &str) -> Option<usize> {
    let (mut lexer, mut depth, mut whole) = (Lexer { text, at: 0 }, 0, 0);
    // The first fault ends the search: behind it nothing is whole.
    while let Ok(kind) = lexer.skip_space().and_then(|()| lexer.token()) {
        match kind {
            Kind::Punct("{") => depth += 1,
            Kind::Punct("}") => depth -= 1,
            Kind::Punct(";") if depth == 0 => whole = lexer.at,
            Kind::End => break,
            _ => {}
        }
    }
    let rest = &text[whole..];
    // A block that ends behind it: something else is wrong than an end that is missing.
    let is_torn = whole > 0 && !rest.trim_matches(['\0', ' ', '\n']).is_empty() && !rest.contains("\n};");
    is_torn.then_some(whole)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T, Box<MetadataError>> {
        Err(MetadataError::at(self.text, at, message))
    }

    fn skip_space(&mut self) -> Result<(), Box<MetadataError>> {
        loop {
            // Padding of metadata packets and a stray last byte count as space.
            let bytes = &self.text.as_bytes()[self.at..];
            self.at += bytes.iter().take_while(|b| matches!(**b, b' ' | b'\t'..=b'\r' | 0)).count();
            let trimmed = self.rest();
            if trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                match comment.find("*/") {
                    Some(end) => self.at += end + 4,
                    None => return self.fail(self.at, "comment is not closed"),
                }
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Kind<'a>, Box<MetadataError>> {
        let rest = self.rest();
        let Some(first) = rest.bytes().next() else {
            return Ok(Kind::End);
        };
        if first == b'"' || rest.starts_with("L\"") {
            self.at += if first == b'L' { 2 } else { 1 };
            return self.string(b'"').map(|bytes| Kind::Str(String::from_utf8_lossy(&bytes).into_owned()));
        }
        if first == b'\'' || rest.starts_with("L'") {
            let start = self.at;
            self.at += if first == b'L' { 2 } else { 1 };
            return match self.string(b'\'')?.as_slice() {
                [byte] => Ok(Kind::Char(*byte)),
                _ => self.fail(start, "character literal is not one character"),
            };
        }
        if first.is_ascii_digit() {
            return self.integer();
        }
        if first.is_ascii_alphabetic() || first == b'_' {
            let len =
                rest.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_').unwrap_or(rest.len());
            self.at += len;
            return Ok(Kind::Word(&rest[..len]));
        }
        match punctuation(first, rest) {
            Some(punct) => {
                self.at += punct.len();
                Ok(Kind::Punct(punct))
            }
            None => {
                let shown = rest.chars().next().unwrap_or(' ');
                self.fail(self.at, format!("unexpected character {shown:?}"))
            }
        }
    }

    fn integer(&mut self) -> Result<Kind<'a>, Box<MetadataError>> {
        let rest = self.rest();
        let start = self.at;
        let len = rest.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_').unwrap_or(rest.len());
        self.at += len;
        let literal = rest[..len].trim_end_matches(['u', 'U', 'l', 'L']);
        let (digits, radix) = match literal {
            "0" => ("0", 10),
            _ if literal.starts_with("0x") || literal.starts_with("0X") => (&literal[2..], 16),
            _ if literal.starts_with('0') => (&literal[1..], 8),
            _ => (literal, 10),
        };
        if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
            return self.fail(start, format!("invalid integer `{}`", &rest[..len]));
        }
        match u64::from_str_radix(digits, radix) {
            Ok(value) => Ok(Kind::Int(value)),
            Err(_) => self.fail(start, format!("integer `{literal}` does not fit 64 bits")),
        }
    }

    /// The rest of a literal up to the closing quote, escapes replaced.
    fn string(&mut self, quote: u8) -> Result<Vec<u8>, Box<MetadataError>> {
        let start = self.at - 1;
        let bytes = self.text.as_bytes();
        let mut out = Vec::new();
        loop {
            let byte = match bytes.get(self.at) {
                Some(b'\n') | None => return self.fail(start, "literal is not closed"),
                Some(byte) => *byte,
            };
            self.at += 1;
            if byte == quote {
                return Ok(out);
            }
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            let escape = bytes.get(self.at).copied().unwrap_or(0);
            self.at += 1;
            match escape {
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'r' => out.push(b'\r'),
                b'a' => out.push(7),
                b'b' => out.push(8),
                b'f' => out.push(12),
                b'v' => out.push(11),
                b'\\' | b'"' | b'\'' | b'?' => out.push(escape),
                b'0'..=b'7' => {
                    self.at -= 1;
                    let value = self.digits(8, 3);
                    out.push(value as u8);
                }
                b'x' => {
                    let value = self.digits(16, 2);
                    out.push(value as u8);
                }
                _ => return self.fail(self.at.saturating_sub(2), "unknown escape sequence"),
            }
        }
    }

    /// Up to `count` digits.
    fn digits(&mut self, radix: u32, count: usize) -> u32 {
        let mut value = 0;
        for _ in 0..count {
            let digit = self.text.as_bytes().get(self.at).and_then(|b| char::from(*b).to_digit(radix));
            let Some(digit) = digit else { break };
            value = value * radix + digit;
            self.at += 1;
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str) {
        let shown = match tokens(text) {
            Ok(tokens) => tokens
                .iter()
                .map(|t| match &t.kind {
                    Kind::Word(w) => format!("w:{w}"),
                    Kind::Int(i) => i.to_string(),
                    Kind::Str(s) => format!("{s:?}"),
                    Kind::Char(c) => format!("c:{c}"),
                    Kind::Punct(p) => (*p).to_owned(),
                    Kind::End => "$".to_owned(),
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, want);
    }

    #[test]
    fn tokens_and_errors() {
        check("a := b.c;\0", "w:a := w:b . w:c ; $");
        check("1 ... 0x1F 017 5ULL", "1 ... 31 15 5 $");
        check(r#""a\n\x41\102" L'x' "#, "\"a\\nAB\" c:120 $");
        check("/* x */ // y\n_z->q", "w:_z -> w:q $");
        check("18446744073709551616", "metadata:1:1: integer `18446744073709551616` does not fit 64 bits");
        check("a\n /* x", "metadata:2:2: comment is not closed");
        check("a $", "metadata:1:3: unexpected character '$'");
        check("\"a", "metadata:1:1: literal is not closed");
        check("09", "metadata:1:1: invalid integer `09`");
    }
}
