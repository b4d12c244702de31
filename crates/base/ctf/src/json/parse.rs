//! JSON with places: text to values that know their byte offsets.
//!
//! Integers are exact from −2^63 to 2^64 − 1, objects keep their order and refuse a key twice,
//! depth is limited. Nothing is known of CTF here.

use crate::error::MetadataError;
use crate::limits::NESTING_MAX;
use crate::model::Datum;

type Result<T> = std::result::Result<T, Box<MetadataError>>;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Json {
    pub at: usize,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// Negative.
    Signed(i64),
    Real(f64),
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    /// The value without places.
    pub(super) fn datum(&self) -> Datum {
        match &self.value {
            Value::Null => Datum::Null,
            Value::Bool(value) => Datum::Bool(*value),
            Value::Unsigned(value) => Datum::Unsigned(*value),
            Value::Signed(value) => Datum::Signed(*value),
            Value::Real(value) => Datum::Real(*value),
            Value::Text(text) => Datum::Text(text.clone()),
            Value::List(items) => Datum::List(items.iter().map(Self::datum).collect()),
            Value::Map(entries) => {
                Datum::Map(entries.iter().map(|(key, value)| (key.clone(), value.datum())).collect())
            }
        }
    }
}

/// Parses one value of `text` that starts at `at`; gives it and where it ends, space after it
/// included.
pub(super) fn parse(text: &str, at: usize) -> Result<(Json, usize)> {
    let mut parser = Parser { text, at, depth: 0 };
    let value = parser.value()?;
    parser.space();
    Ok((value, parser.at))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn fail<T>(&self, message: &str) -> Result<T> {
        Err(MetadataError::at(self.text, self.at, message))
    }

    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Json> {
        self.space();
        let at = self.at;
        let value = match self.peek() {
            b'{' => self.nested(Self::map)?,
            b'[' => self.nested(Self::list)?,
            b'"' => Value::Text(self.string()?),
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.word("true", Value::Bool(true))?,
            b'f' => self.word("false", Value::Bool(false))?,
            b'n' => self.word("null", Value::Null)?,
            _ => return self.fail("expected a JSON value"),
        };
        Ok(Json { at, value })
    }

    fn nested(&mut self, parse: fn(&mut Self) -> Result<Value>) -> Result<Value> {
        // Field classes take three levels each.
        if self.depth == 4 * NESTING_MAX {
            return self.fail("JSON values are nested too deeply");
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        let value = parse(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn map(&mut self) -> Result<Value> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        let mut keys = std::collections::HashSet::new();
        while self.peek() != b'}' {
            if !entries.is_empty() {
                self.comma(b'}')?;
            }
            if self.peek() != b'"' {
                return self.fail("expected a property name");
            }
            let at = self.at;
            let key = self.string()?;
            if !keys.insert(key.clone()) {
                self.at = at;
                return self.fail(&format!("duplicate object property `{key}`"));
            }
            self.space();
            if self.peek() != b':' {
                return self.fail("expected `:`");
            }
            self.at += 1;
            let value = self.value()?;
            entries.push((key, value));
            self.space();
        }
        self.at += 1;
        Ok(Value::Map(entries))
    }

    fn list(&mut self) -> Result<Value> {
        let mut items = Vec::new();
        while self.peek() != b']' {
            if !items.is_empty() {
                self.comma(b']')?;
            }
            items.push(self.value()?);
            self.space();
        }
        self.at += 1;
        Ok(Value::List(items))
    }

    fn comma(&mut self, close: u8) -> Result<()> {
        if self.peek() != b',' {
            let message = format!("expected `,` or `{}`", char::from(close));
            return self.fail(&message);
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("expected a JSON value");
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<Value> {
        let rest = &self.text[self.at..];
        let len = rest
            .bytes()
            .position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        let literal = &rest[..len];
        let digits = literal.strip_prefix('-').unwrap_or(literal);
        let leading_zero = digits.len() > 1 && digits.starts_with('0');
        let value = if digits.bytes().all(|b| b.is_ascii_digit()) && !leading_zero {
            let parsed = if literal.starts_with('-') {
                literal.parse().map(Value::Signed).ok()
            } else {
                literal.parse().map(Value::Unsigned).ok()
            };
            match parsed {
                Some(Value::Signed(0)) => Some(Value::Unsigned(0)),
                other => other,
            }
        } else {
            let whole = digits.split(['.', 'e', 'E']).next().unwrap_or_default();
            let bad = whole.is_empty() || (whole.len() > 1 && whole.starts_with('0'));
            literal.parse().ok().filter(|_| !bad).map(Value::Real)
        };
        match value {
            Some(value) => {
                self.at += len;
                Ok(value)
            }
            None => self.fail("number is not valid or does not fit 64 bits"),
        }
    }

    fn string(&mut self) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < 0x20);
            let Some(plain) = plain else {
                self.at = start;
                return self.fail("string is not closed");
            };
            out.push_str(&rest[..plain]);
            self.at += plain + 1;
            match rest.as_bytes()[plain] {
                b'"' => return Ok(out),
                b'\\' => out.push(self.escape()?),
                _ => {
                    self.at -= 1;
                    return self.fail("control character in a string");
                }
            }
        }
    }

    /// The character of an escape sequence whose backslash is passed.
    fn escape(&mut self) -> Result<char> {
        let kind = self.peek();
        self.at += 1;
        Ok(match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                let code = if (0xd800..0xdc00).contains(&high) && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    let low = self.hex4()?;
                    0x10000 + ((high - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff)
                } else {
                    high
                };
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => {
                self.at -= 1;
                return self.fail("unknown escape sequence");
            }
        })
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at..self.at + 4);
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                self.at += 4;
                Ok(value)
            }
            None => self.fail("expected four hexadecimal digits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str) {
        let shown = match parse(text, 0) {
            Ok((json, end)) => format!("{:?} {end}", json.datum()),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, want);
    }

    #[test]
    fn values() {
        check("18446744073709551615 ", "Unsigned(18446744073709551615) 21");
        check("-9223372036854775808", "Signed(-9223372036854775808) 20");
        check("-0", "Unsigned(0) 2");
        check("1.5e1", "Real(15.0) 5");
        check(
            r#"{"b":[1,null],"a":"x\u00e9\ud83c\udf89\n"}"#,
            "Map([(\"b\", List([Unsigned(1), Null])), (\"a\", Text(\"xé🎉\\n\"))]) 42",
        );
    }

    #[test]
    fn errors_have_places() {
        check("18446744073709551616", "metadata:1:1: number is not valid or does not fit 64 bits");
        check("01", "metadata:1:1: number is not valid or does not fit 64 bits");
        check("{\"a\":1,\n \"a\":2}", "metadata:2:2: duplicate object property `a`");
        check("[1 2]", "metadata:1:4: expected `,` or `]`");
        check("[", "metadata:1:2: expected a JSON value");
        check("\"a", "metadata:1:1: string is not closed");
        check(&"[".repeat(1000), "metadata:1:257: JSON values are nested too deeply");
    }
}
