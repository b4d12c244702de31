//! Free-form values: user attributes of CTF 2 and the values of its environment.
//!
//! A small ordered value tree; objects keep the order of the text.

/// A value as JSON knows it, with exact integers.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer from 0 to 2^64 − 1.
    Unsigned(u64),
    /// A negative integer.
    Signed(i64),
    /// A number with a fraction or an exponent.
    Real(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Datum>),
    /// Named values in the order of the text.
    Map(Vec<(String, Datum)>),
}

/// User attributes of a class or a member: always a map.
pub type Attributes = Vec<(String, Datum)>;

impl Datum {
    /// The value under `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}
