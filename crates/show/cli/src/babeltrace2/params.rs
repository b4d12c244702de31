//! Parameters of components and queries: `name=value,…` to values, and values to text.
//!
//! The syntax is that of `babeltrace2 --params`; errors show the column.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use sillage_pipeline::ctf::model::Datum;

/// Named values in the order of the text; a later one replaces an earlier one of its name.
pub type Params = Vec<(String, Datum)>;

/// Deepest nesting of arrays and maps.
const NESTING_MAX: usize = 64;

/// Reads parameters.
///
/// # Errors
/// A fault of the syntax, with its column.
pub fn parse(text: &str) -> Result<Params> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let params = parser.assignments(None)?;
    Ok(params)
}

/// Puts the parameters of `from` over those of `into`.
pub fn extend(into: &mut Params, from: Params) {
    for (name, value) in from {
        match into.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => into.push((name, value)),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-')
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += self.peek().map_or(0, char::len_utf8);
        }
    }

    fn eat(&mut self, c: char) -> bool {
        self.blanks();
        let found = self.rest().starts_with(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn fail<T>(&self, what: &str) -> Result<T> {
        let column = self.text[..self.at].chars().count() + 1;
        bail!("invalid parameters: {what} at column {column}\n  {}\n  {:>column$}", self.text, "^")
    }

    fn word(&mut self) -> &str {
        self.blanks();
        let from = self.at;
        while self.peek().is_some_and(is_name) {
            self.at += 1;
        }
        &self.text[from..self.at]
    }

    fn assignments(&mut self, end: Option<char>) -> Result<Params> {
        let mut params = Params::new();
        if let Some(end) = end
            && self.eat(end)
        {
            return Ok(params);
        }
        loop {
            let name = self.word().to_owned();
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                return self.fail("expected the name of a parameter");
            }
            if !self.eat('=') {
                return self.fail("expected `=`");
            }
            let value = self.value()?;
            extend(&mut params, vec![(name, value)]);
            if self.eat(',') {
                continue;
            }
            self.blanks();
            return match end {
                Some(end) if self.eat(end) => Ok(params),
                None if self.rest().is_empty() => Ok(params),
                _ => self.fail("expected `,`"),
            };
        }
    }

    fn value(&mut self) -> Result<Datum> {
        self.blanks();
        match self.peek() {
            None => self.fail("expected a value"),
            Some('"') => self.quoted().map(Datum::Text),
            Some('[' | '{') => {
                self.depth += 1;
                if self.depth > NESTING_MAX {
                    return self.fail("nested too deeply");
                }
                let value = if self.eat('[') { self.list() } else { self.map() };
                self.depth -= 1;
                value
            }
            Some('+') => {
                self.at += 1;
                let word = self.word().to_owned();
                match number(&word).and_then(|value| u64::try_from(value).ok()) {
                    Some(value) => Ok(Datum::Unsigned(value)),
                    None => self.fail("expected an unsigned number after `+`"),
                }
            }
            Some(_) => self.bare(),
        }
    }

    fn map(&mut self) -> Result<Datum> {
        self.eat('{');
        self.assignments(Some('}')).map(Datum::Map)
    }

    fn list(&mut self) -> Result<Datum> {
        let mut values = Vec::new();
        if self.eat(']') {
            return Ok(Datum::List(values));
        }
        loop {
            values.push(self.value()?);
            if self.eat(']') {
                return Ok(Datum::List(values));
            }
            if !self.eat(',') {
                return self.fail("expected `,` or `]`");
            }
            if self.eat(']') {
                return Ok(Datum::List(values));
            }
        }
    }

    fn quoted(&mut self) -> Result<String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.peek() else {
                return self.fail("text without an end");
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\\' => {
                    let Some(c) = self.peek() else {
                        return self.fail("text without an end");
                    };
                    self.at += c.len_utf8();
                    text.push(match c {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'a' => '\x07',
                        'b' => '\x08',
                        'f' => '\x0c',
                        'v' => '\x0b',
                        other => other,
                    });
                }
                c => text.push(c),
            }
        }
    }

    /// A word without quotes: a keyword, a signed number, or text.
    fn bare(&mut self) -> Result<Datum> {
        let from = self.at;
        let mut word = self.word().to_owned();
        // The sign of an exponent belongs to the number.
        if word.ends_with(['e', 'E'])
            && word.starts_with(|c: char| c.is_ascii_digit() || c == '-')
            && self.eat('+')
        {
            word = format!("{word}{}", self.word());
        }
        Ok(match word.as_str() {
            "" => {
                self.at = from;
                return self.fail("expected a value");
            }
            "null" | "nul" | "NULL" => Datum::Null,
            "true" | "TRUE" | "yes" | "YES" => Datum::Bool(true),
            "false" | "FALSE" | "no" | "NO" => Datum::Bool(false),
            word => match number(word) {
                Some(value) => match i64::try_from(value) {
                    Ok(value) => Datum::Signed(value),
                    Err(_) => return self.fail("number out of range"),
                },
                None if word.contains('.') || word.contains(['e', 'E']) => {
                    match word
                        .parse()
                        .ok()
                        .filter(|_| word.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
                    {
                        Some(real) => Datum::Real(real),
                        None => Datum::Text(word.to_owned()),
                    }
                }
                None => Datum::Text(word.to_owned()),
            },
        })
    }
}

/// A signed integer in base 2 (`0b`), 8 (`0`), 10 or 16 (`0x`).
fn number(word: &str) -> Option<i128> {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word),
    };
    let value = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i128::from_str_radix(hex, 16)
    } else if let Some(binary) = digits.strip_prefix("0b").or_else(|| digits.strip_prefix("0B")) {
        i128::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(digits, 8)
    } else {
        digits.parse()
    }
    .ok()?;
    // Only digits: `from_str_radix` would take a second sign.
    (!digits.contains(['-', '+'])).then_some(if negative { -value } else { value })
}

/// Writes a value as the result of a query.
pub fn show(value: &Datum) -> String {
    let mut out = String::new();
    show_at(&mut out, value, 0);
    out
}

fn is_inline(value: &Datum) -> bool {
    match value {
        Datum::List(values) => values.is_empty(),
        Datum::Map(entries) => entries.is_empty(),
        _ => true,
    }
}

fn show_at(out: &mut String, value: &Datum, indent: usize) {
    let nested = |out: &mut String, value: &Datum| {
        if is_inline(value) {
            show_at(out, value, indent + 2);
        } else {
            out.push('\n');
            show_at(out, value, indent + 2);
        }
    };
    // Writing to a string does not fail.
    let _ = match value {
        Datum::Null => writeln!(out, "null"),
        Datum::Bool(value) => writeln!(out, "{}", if *value { "yes" } else { "no" }),
        Datum::Unsigned(value) => writeln!(out, "{value}"),
        Datum::Signed(value) => writeln!(out, "{value}"),
        Datum::Real(value) => writeln!(out, "{value:.6}"),
        Datum::Text(text) => writeln!(out, "{text}"),
        Datum::List(values) if values.is_empty() => writeln!(out, "[ ]"),
        Datum::Map(entries) if entries.is_empty() => writeln!(out, "{{ }}"),
        Datum::List(values) => {
            for value in values {
                let _ = write!(out, "{:indent$}- ", "");
                nested(out, value);
            }
            Ok(())
        }
        Datum::Map(entries) => {
            for (name, value) in entries {
                let _ = write!(out, "{:indent$}{name}: ", "");
                nested(out, value);
            }
            Ok(())
        }
    };
}

/// Takes parameters out one by one; what is left at the end is unknown.
pub struct Taken {
    component: String,
    params: Params,
}

impl Taken {
    /// The parameters of a component, whose name is for errors.
    pub fn new(component: &str, params: &Params) -> Self {
        Self { component: component.to_owned(), params: params.clone() }
    }

    /// The parameter of this name.
    pub fn take(&mut self, name: &str) -> Option<Datum> {
        let at = self.params.iter().position(|(known, _)| known == name)?;
        Some(self.params.remove(at).1)
    }

    fn wrong<T>(&self, name: &str, want: &str, found: &Datum) -> Result<T> {
        bail!("{}: parameter `{name}` must be {want}, not {}", self.component, show(found).trim_end())
    }

    /// A boolean.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Datum::Bool(value)) => Ok(Some(value)),
            Some(other) => self.wrong(name, "`yes` or `no`", &other),
        }
    }

    /// Text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Datum::Text(text)) => Ok(Some(text)),
            Some(other) => self.wrong(name, "text", &other),
        }
    }

    /// An unsigned number (`+N`).
    pub fn unsigned(&mut self, name: &str) -> Result<Option<u64>> {
        match self.take(name) {
            None => Ok(None),
            Some(Datum::Unsigned(value)) => Ok(Some(value)),
            Some(other) => self.wrong(name, "an unsigned number (`+N`)", &other),
        }
    }

    /// A signed number.
    pub fn signed(&mut self, name: &str) -> Result<Option<i64>> {
        match self.take(name) {
            None => Ok(None),
            Some(Datum::Signed(value)) => Ok(Some(value)),
            Some(other) => self.wrong(name, "a signed number", &other),
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let Datum::List(values) = &value else {
            return self.wrong(name, "an array of texts", &value);
        };
        let texts: Option<Vec<String>> = values.iter().map(|v| v.as_str().map(str::to_owned)).collect();
        match texts {
            Some(texts) => Ok(Some(texts)),
            None => self.wrong(name, "an array of texts", &value),
        }
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// A parameter that nobody took.
    pub fn end(self) -> Result<()> {
        match self.params.first() {
            None => Ok(()),
            Some((name, _)) => bail!("{}: unexpected parameter `{name}`", self.component),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_help_text() {
        let text = r#"many=null, fresh=yes, condition=false, squirrel=-782329,
            play=+23, observe=3.14, simple=beef, needs-quotes="some string",
            escape.chars-are:allowed="this is a \" double quote",
            things=[1, "2", 3], m={a=0x10,b=[],c={}}, o=017, e=1.5e+3"#;
        let got = parse(text).map(|params| show(&Datum::Map(params))).expect("valid");
        let want = "many: null\nfresh: yes\ncondition: no\nsquirrel: -782329\nplay: 23\nobserve: 3.140000\n\
            simple: beef\nneeds-quotes: some string\nescape.chars-are:allowed: this is a \" double quote\n\
            things: \n  - 1\n  - 2\n  - 3\nm: \n  a: 16\n  b: [ ]\n  c: { }\no: 15\ne: 1500.000000\n";
        assert_eq!(got, want);
    }

    #[test]
    fn faults_have_a_column() {
        let check = |text: &str, want: &str| {
            let error = parse(text).expect_err("invalid").to_string();
            assert!(error.starts_with(want), "{error}");
        };
        check("a", "invalid parameters: expected `=` at column 2");
        check("a=", "invalid parameters: expected a value at column 3");
        check("a=1 b=2", "invalid parameters: expected `,` at column 5");
        check("a=\"x", "invalid parameters: text without an end at column 5");
        check("a=[1", "invalid parameters: expected `,` or `]` at column 5");
        check("a=+x", "invalid parameters: expected an unsigned number");
        check("1=2", "invalid parameters: expected the name of a parameter");
        check(&format!("a={}", "[".repeat(100)), "invalid parameters: nested too deeply");
    }

    #[test]
    fn a_later_value_wins() {
        let mut params = parse("a=1,b=2,a=3").expect("valid");
        extend(&mut params, parse("b=x").expect("valid"));
        assert_eq!(show(&Datum::Map(params)), "a: 3\nb: x\n");
    }
}
