//! Reading a JSON object's properties: each is taken once, what is left is unknown.

use super::parse::{Json, Value};
use crate::error::{MetadataError, Warning};

pub(super) type Result<T> = std::result::Result<T, Box<MetadataError>>;

/// The text that values point into, and how strict to be.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub text: &'a str,
    pub lenient: bool,
    pub warnings: &'a mut Vec<Warning>,
}

impl Source<'_> {
    pub(super) fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T> {
        Err(MetadataError::at(self.text, at, message))
    }

    pub(super) fn warn(&mut self, at: usize, message: impl Into<String>) {
        let error = MetadataError::at(self.text, at, message);
        self.warnings.push(Warning { line: error.line, message: error.message });
    }

    /// An object, or the error that it is none.
    pub(super) fn object<'j>(&self, json: &'j Json) -> Result<Object<'j>> {
        match &json.value {
            Value::Map(entries) => {
                Ok(Object { at: json.at, left: entries.iter().map(|(k, v)| (k.as_str(), v)).collect() })
            }
            _ => self.fail(json.at, "expected an object"),
        }
    }

    pub(super) fn list<'j>(&self, json: &'j Json) -> Result<&'j [Json]> {
        match &json.value {
            Value::List(items) => Ok(items),
            _ => self.fail(json.at, "expected an array"),
        }
    }

    pub(super) fn text<'j>(&self, json: &'j Json) -> Result<&'j str> {
        match &json.value {
            Value::Text(text) => Ok(text),
            _ => self.fail(json.at, "expected a string"),
        }
    }

    pub(super) fn unsigned(&self, json: &Json) -> Result<u64> {
        match json.value {
            Value::Unsigned(value) => Ok(value),
            _ => self.fail(json.at, "expected an unsigned integer"),
        }
    }

    pub(super) fn integer(&self, json: &Json) -> Result<i128> {
        match json.value {
            Value::Unsigned(value) => Ok(i128::from(value)),
            Value::Signed(value) => Ok(i128::from(value)),
            _ => self.fail(json.at, "expected an integer"),
        }
    }

    /// Refuses what was not taken of an object (warns of it when lenient).
    pub(super) fn finish(&mut self, object: Object<'_>) -> Result<()> {
        for (key, value) in object.left {
            let message = format!("Unknown object property `{key}`");
            if !self.lenient {
                return self.fail(value.at, message);
            }
            self.warn(value.at, message);
        }
        Ok(())
    }
}

/// An object whose properties are being taken.
#[derive(Debug)]
pub(super) struct Object<'j> {
    pub at: usize,
    left: Vec<(&'j str, &'j Json)>,
}

impl<'j> Object<'j> {
    /// Takes a property.
    pub(super) fn take(&mut self, key: &str) -> Option<&'j Json> {
        let position = self.left.iter().position(|(k, _)| *k == key)?;
        Some(self.left.remove(position).1)
    }

    /// Takes a property that must be there.
    pub(super) fn need(&mut self, source: &Source<'_>, key: &str) -> Result<&'j Json> {
        match self.take(key) {
            Some(json) => Ok(json),
            None => source.fail(self.at, format!("Missing object property `{key}`")),
        }
    }

    pub(super) fn text(&mut self, source: &Source<'_>, key: &str) -> Result<Option<String>> {
        let json = self.take(key);
        json.map(|json| source.text(json).map(str::to_owned)).transpose()
    }

    pub(super) fn unsigned(&mut self, source: &Source<'_>, key: &str) -> Result<Option<u64>> {
        let json = self.take(key);
        json.map(|json| source.unsigned(json)).transpose()
    }
}
