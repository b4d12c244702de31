//! Splitting arguments into options and others, as `babeltrace2` does.
//!
//! Long options take `--name=VALUE` or `--name VALUE`, short ones can be joined (`-vd`, `-n all`,
//! `-nall`); after `--` everything is an argument.

use std::collections::VecDeque;

use anyhow::{Result, bail};

/// An option of a command.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Name after `--`.
    pub long: &'static str,
    /// Letter after `-`.
    pub short: Option<char>,
    /// Whether a value belongs to it.
    pub takes_value: bool,
}

/// An option without a value.
pub const fn flag(long: &'static str, short: Option<char>) -> Spec {
    Spec { long, short, takes_value: false }
}

/// An option with a value.
pub const fn value(long: &'static str, short: Option<char>) -> Spec {
    Spec { long, short, takes_value: true }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An option, by its long name, and its value.
    Option(&'static str, String),
    /// Something that is no option.
    Argument(String),
}

/// Reads arguments one by one.
pub struct Reader<'a> {
    specs: &'a [Spec],
    left: VecDeque<String>,
    /// Letters of joined short options that are left.
    joined: String,
    /// Everything is an argument from here on.
    only_arguments: bool,
}

impl<'a> Reader<'a> {
    /// Reads `arguments`.
    pub fn new(specs: &'a [Spec], arguments: &[String]) -> Self {
        let left = arguments.iter().cloned().collect();
        Self { specs, left, joined: String::new(), only_arguments: false }
    }

    /// What was not read yet.
    pub fn rest(self) -> Vec<String> {
        self.left.into()
    }

    /// What comes next, without taking it.
    pub fn peek(&self) -> Option<&str> {
        self.left.front().map(String::as_str)
    }

    /// Whether an argument would be read as an option that is known.
    pub fn knows(&self, argument: &str) -> bool {
        if let Some(long) = argument.strip_prefix("--") {
            let name = long.split('=').next().unwrap_or_default();
            return self.specs.iter().any(|spec| spec.long == name);
        }
        let letter = argument.strip_prefix('-').and_then(|letters| letters.chars().next());
        self.specs.iter().any(|spec| spec.short.is_some() && spec.short == letter)
    }

    /// The next option or argument; `None` at the end.
    ///
    /// # Errors
    /// An unknown option, a value that is missing or not wanted.
    pub fn next(&mut self) -> Result<Option<Item>> {
        if let Some(letter) = self.joined.chars().next() {
            self.joined.remove(0);
            return self.short(letter).map(Some);
        }
        let Some(argument) = self.left.pop_front() else {
            return Ok(None);
        };
        if self.only_arguments || argument == "-" || !argument.starts_with('-') {
            return Ok(Some(Item::Argument(argument)));
        }
        if argument == "--" {
            self.only_arguments = true;
            return self.next();
        }
        if let Some(long) = argument.strip_prefix("--") {
            return self.long(long).map(Some);
        }
        self.joined = argument[1..].to_owned();
        self.next()
    }

    fn long(&mut self, text: &str) -> Result<Item> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let Some(spec) = self.specs.iter().find(|spec| spec.long == name) else {
            bail!("unknown option `--{name}`");
        };
        match (spec.takes_value, value) {
            (true, Some(value)) => Ok(Item::Option(spec.long, value)),
            (true, None) => match self.left.pop_front() {
                Some(value) => Ok(Item::Option(spec.long, value)),
                None => bail!("missing value of option `--{name}`"),
            },
            (false, None) => Ok(Item::Option(spec.long, String::new())),
            (false, Some(_)) => bail!("option `--{name}` takes no value"),
        }
    }

    fn short(&mut self, letter: char) -> Result<Item> {
        let Some(spec) = self.specs.iter().find(|spec| spec.short == Some(letter)) else {
            bail!("unknown option `-{letter}`");
        };
        if !spec.takes_value {
            return Ok(Item::Option(spec.long, String::new()));
        }
        let joined = std::mem::take(&mut self.joined);
        if !joined.is_empty() {
            return Ok(Item::Option(spec.long, joined));
        }
        match self.left.pop_front() {
            Some(value) => Ok(Item::Option(spec.long, value)),
            None => bail!("missing value of option `-{letter}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings() {
        const SPECS: &[Spec] = &[value("names", Some('n')), flag("verbose", Some('v')), flag("gmt", None)];
        let words = ["-vn", "all", "x", "--names=a=b", "--gmt", "-nscope", "--names", "-v", "--", "-v"];
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let mut reader = Reader::new(SPECS, &words);
        let mut found = Vec::new();
        while let Some(item) = reader.next().expect("valid") {
            found.push(match item {
                Item::Option(name, value) => format!("{name}={value}"),
                Item::Argument(text) => format!("({text})"),
            });
        }
        let want = "verbose= names=all (x) names=a=b gmt= names=scope names=-v (-v)";
        assert_eq!(found.join(" "), want);
        for bad in ["--x", "-x", "-n", "--names", "--gmt=1"] {
            assert!(Reader::new(SPECS, &[bad.to_owned()]).next().is_err(), "{bad}");
        }
    }
}
