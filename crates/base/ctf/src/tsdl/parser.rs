//! Tokens to tree, by recursive descent.
//!
//! The C grammar's typedef problem does not arise: in a declaration the last word before `[`, `,`
//! or `;` is the declarator and all words before it name the type.

use super::ast::{ArrayLength, Attribute, BlockKind, Declarator, Enumerator, Expr, Item, Spec, SpecKind};
use super::lexer::{Kind, Token, tokens};
use std::borrow::Cow;

use crate::error::MetadataError;
use crate::limits::NESTING_MAX;

type Result<T> = std::result::Result<T, Box<MetadataError>>;

/// Parses a whole text.
pub(super) fn parse(text: &str) -> Result<Vec<Item<'_>>> {
    let mut parser = Parser { text, tokens: tokens(text)?, next: 0, depth: 0 };
    let mut items = Vec::new();
    loop {
        while parser.eat(";") {}
        if parser.peek() == &Kind::End {
            return Ok(items);
        }
        items.push(parser.top_level()?);
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    #[inline]
    fn peek(&self) -> &Kind<'a> {
        self.peek_at(0)
    }

    #[inline]
    fn peek_at(&self, ahead: usize) -> &Kind<'a> {
        // The last token is `End` and is never passed.
        let last = self.tokens.len() - 1;
        &self.tokens[(self.next + ahead).min(last)].kind
    }

    fn at(&self) -> usize {
        self.tokens[self.next.min(self.tokens.len() - 1)].at
    }

    #[inline]
    fn bump(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(MetadataError::at(self.text, self.at(), message))
    }

    fn unexpected<T>(&self, wanted: &str) -> Result<T> {
        let got = match self.peek() {
            Kind::Word(word) => format!("`{word}`"),
            Kind::Int(value) => format!("`{value}`"),
            Kind::Str(_) => "a string".to_owned(),
            Kind::Char(_) => "a character".to_owned(),
            Kind::Punct(punct) => format!("`{punct}`"),
            Kind::End => "the end of the text".to_owned(),
        };
        self.fail(format!("syntax error: expected {wanted}, found {got}"))
    }

    #[inline]
    fn eat(&mut self, punct: &str) -> bool {
        let found = self.is(punct);
        if found {
            self.bump();
        }
        found
    }

    fn expect(&mut self, punct: &str) -> Result<()> {
        if self.eat(punct) {
            return Ok(());
        }
        self.unexpected(&format!("`{punct}`"))
    }

    #[inline]
    fn is(&self, punct: &str) -> bool {
        matches!(self.peek(), Kind::Punct(p) if *p == punct)
    }

    fn word(&mut self) -> Option<&'a str> {
        let Kind::Word(word) = *self.peek() else {
            return None;
        };
        self.bump();
        Some(word)
    }

    fn expect_word(&mut self, what: &str) -> Result<&'a str> {
        match self.word() {
            Some(word) => Ok(word),
            None => self.unexpected(what),
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == NESTING_MAX {
            return self.fail("blocks and types are nested too deeply");
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn top_level(&mut self) -> Result<Item<'a>> {
        let at = self.at();
        let block = match (self.peek(), self.peek_at(1)) {
            (Kind::Word(word), Kind::Punct("{")) => match *word {
                "trace" => Some(BlockKind::Trace),
                "env" => Some(BlockKind::Env),
                "clock" => Some(BlockKind::Clock),
                "stream" => Some(BlockKind::Stream),
                "event" => Some(BlockKind::Event),
                "callsite" => Some(BlockKind::Callsite),
                _ => None,
            },
            _ => None,
        };
        let Some(kind) = block else {
            return self.declaration();
        };
        self.bump();
        let items = self.body(Self::block_item)?;
        self.expect(";")?;
        Ok(Item::Block { kind, items, at })
    }

    /// `{ item … }`
    fn body(&mut self, item: fn(&mut Self) -> Result<Item<'a>>) -> Result<Vec<Item<'a>>> {
        self.nested(|parser| {
            parser.expect("{")?;
            let mut items = Vec::new();
            loop {
                while parser.eat(";") {}
                if parser.eat("}") {
                    return Ok(items);
                }
                items.push(item(parser)?);
            }
        })
    }

    /// An attribute, a type attribute, or a local declaration.
    fn block_item(&mut self) -> Result<Item<'a>> {
        let at = self.at();
        // A dotted name up to `=` or `:=` is an attribute; anything else declares a type.
        let mut ahead = 0;
        while matches!(self.peek_at(ahead), Kind::Word(_) | Kind::Punct(".") | Kind::Str(_)) {
            ahead += 1;
        }
        match self.peek_at(ahead) {
            Kind::Punct("=") => {
                let name = self.path("attribute name")?;
                self.expect("=")?;
                let value = self.value()?;
                self.expect(";")?;
                Ok(Item::Assign { name, value, at })
            }
            Kind::Punct(":=") if !matches!(self.peek(), Kind::Word("typealias")) => {
                let name = self.path("attribute name")?;
                self.expect(":=")?;
                let spec = self.spec(Words::All)?;
                self.expect(";")?;
                Ok(Item::TypeAssign { name, spec, at })
            }
            _ => self.declaration(),
        }
    }

    /// `typedef`, `typealias`, a type alone, or fields.
    fn declaration(&mut self) -> Result<Item<'a>> {
        let at = self.at();
        match self.peek() {
            Kind::Word("typealias") => {
                self.bump();
                let spec = self.spec(Words::All)?;
                // Pointers of the aliased type change nothing but the base.
                self.expect(":=")?;
                let name = self.alias_name()?;
                self.expect(";")?;
                Ok(Item::TypeAlias { spec, name, at })
            }
            Kind::Word("typedef") => {
                self.bump();
                let spec = self.spec(Words::ButLast)?;
                let declarators = self.declarators()?;
                if declarators.is_empty() {
                    return self.unexpected("a name");
                }
                Ok(Item::Typedef { spec, declarators })
            }
            _ => {
                let mut spec = self.spec(Words::ButLast)?;
                // `struct x {…} typedef y;` is C too.
                if matches!(self.peek(), Kind::Word("typedef")) {
                    self.bump();
                    let declarators = self.declarators()?;
                    return Ok(Item::Typedef { spec, declarators });
                }
                if let SpecKind::Alias(name) = &spec.kind
                    && name.contains(" typedef ")
                {
                    spec.kind = SpecKind::Alias(Cow::Owned(name.replace(" typedef ", " ")));
                    let declarators = self.declarators()?;
                    return Ok(Item::Typedef { spec, declarators });
                }
                let declarators = self.declarators()?;
                if declarators.is_empty() && matches!(spec.kind, SpecKind::Alias(_)) {
                    return self.unexpected("a name");
                }
                Ok(Item::Declaration { spec, declarators })
            }
        }
    }

    /// Words and stars, as the name of an alias.
    fn alias_name(&mut self) -> Result<Cow<'a, str>> {
        let mut name = String::new();
        loop {
            let part = if self.eat("*") {
                "*"
            } else if let Some(word) = self.word() {
                word
            } else if name.is_empty() {
                return self.unexpected("a type name");
            } else {
                return Ok(Cow::Owned(name));
            };
            if !name.is_empty() {
                name.push(' ');
            }
            name.push_str(part);
        }
    }

    /// Declarators up to and with `;`.
    fn declarators(&mut self) -> Result<Vec<Declarator<'a>>> {
        let mut out = Vec::new();
        if self.eat(";") {
            return Ok(out);
        }
        loop {
            let at = self.at();
            let mut pointers = 0;
            loop {
                if self.eat("*") {
                    pointers += 1;
                } else if pointers > 0 && matches!(self.peek(), Kind::Word("const")) {
                    self.bump();
                } else {
                    break;
                }
            }
            let name = match self.peek() {
                Kind::Punct(":") | Kind::Punct("(") => {
                    return self.fail("GNU bit-fields and nested declarators are not supported");
                }
                Kind::Str(name) => {
                    let name = Cow::Owned(name.clone());
                    self.bump();
                    name
                }
                _ => Cow::Borrowed(self.expect_word("a name")?),
            };
            if self.is(":") {
                return self.fail("GNU bit-fields are not supported");
            }
            let mut arrays = Vec::new();
            while self.eat("[") {
                arrays.push(match *self.peek() {
                    Kind::Int(length) => {
                        self.bump();
                        ArrayLength::Int(length)
                    }
                    _ => ArrayLength::Path(self.path("a length")?),
                });
                self.expect("]")?;
                if arrays.len() > NESTING_MAX {
                    return self.fail("array has too many dimensions");
                }
            }
            out.push(Declarator { at, pointers, name, arrays });
            if self.eat(";") {
                return Ok(out);
            }
            self.expect(",")?;
        }
    }

    fn spec(&mut self, words: Words) -> Result<Spec<'a>> {
        self.nested(|parser| parser.spec_inner(words))
    }

    fn spec_inner(&mut self, words: Words) -> Result<Spec<'a>> {
        while matches!(self.peek(), Kind::Word("const"))
            && matches!(self.peek_at(1), Kind::Word(_))
            && (words == Words::All || matches!(self.peek_at(2), Kind::Word(_) | Kind::Punct("{" | "*")))
        {
            self.bump();
        }
        let at = self.at();
        let kind = match (self.peek(), self.peek_at(1)) {
            (Kind::Word("integer"), Kind::Punct("{")) => {
                self.bump();
                SpecKind::Integer(self.attributes()?)
            }
            (Kind::Word("floating_point"), Kind::Punct("{")) => {
                self.bump();
                SpecKind::Float(self.attributes()?)
            }
            (Kind::Word("string"), next) => {
                let block = *next == Kind::Punct("{");
                self.bump();
                SpecKind::Text(if block { self.attributes()? } else { Vec::new() })
            }
            (Kind::Word("struct"), _) => {
                self.bump();
                self.structure()?
            }
            (Kind::Word("variant"), _) => {
                self.bump();
                self.variant()?
            }
            (Kind::Word("enum"), _) => {
                self.bump();
                self.enumeration()?
            }
            (Kind::Word(_), _) => SpecKind::Alias(self.words(words)),
            _ => return self.unexpected("a type"),
        };
        Ok(Spec { at, kind })
    }

    /// The words of a type name: all of them, or all but the declarator.
    fn words(&mut self, words: Words) -> Cow<'a, str> {
        let mut name = Cow::Borrowed("");
        loop {
            let Kind::Word(word) = *self.peek() else {
                // `void * := …` and `void *` before `;`
                if words == Words::All && self.is("*") {
                    self.bump();
                    name.to_mut().push_str(" *");
                    continue;
                }
                return name;
            };
            let more = matches!(self.peek_at(1), Kind::Word(_));
            let pointer = matches!(self.peek_at(1), Kind::Punct("*"));
            let name_follows = matches!(self.peek_at(1), Kind::Str(_));
            if words == Words::ButLast && !name.is_empty() && !more && !pointer && !name_follows {
                return name;
            }
            if name.is_empty() {
                name = Cow::Borrowed(word);
            } else {
                let name = name.to_mut();
                name.push(' ');
                name.push_str(word);
            }
            self.bump();
        }
    }

    fn structure(&mut self) -> Result<SpecKind<'a>> {
        let name = self.tag_name();
        let body = if self.is("{") { Some(self.body(Self::declaration)?) } else { None };
        let mut align = None;
        if matches!(self.peek(), Kind::Word("align")) && *self.peek_at(1) == Kind::Punct("(") {
            self.bump();
            self.bump();
            match *self.peek() {
                Kind::Int(value) => align = Some(value),
                _ => return self.unexpected("an alignment"),
            }
            self.bump();
            self.expect(")")?;
        }
        if name.is_none() && body.is_none() {
            return self.unexpected("a structure's name or body");
        }
        Ok(SpecKind::Struct { name, body, align })
    }

    /// The optional name after `struct`, `variant` or `enum`.
    fn tag_name(&mut self) -> Option<Cow<'a, str>> {
        self.word().map(Cow::Borrowed)
    }

    fn variant(&mut self) -> Result<SpecKind<'a>> {
        let name = self.tag_name();
        let mut tag = None;
        if self.eat("<") {
            tag = Some(self.path("a tag")?);
            self.expect(">")?;
        }
        let body = if self.is("{") { Some(self.body(Self::declaration)?) } else { None };
        if name.is_none() && body.is_none() {
            return self.unexpected("a variant's name or body");
        }
        Ok(SpecKind::Variant { name, tag, body })
    }

    fn enumeration(&mut self) -> Result<SpecKind<'a>> {
        let name = self.tag_name();
        let mut container = None;
        if self.eat(":") {
            container = Some(Box::new(self.spec(Words::All)?));
        }
        let mut body = None;
        if self.eat("{") {
            let mut enumerators = Vec::new();
            while !self.eat("}") {
                enumerators.push(self.enumerator()?);
                if !self.is("}") {
                    self.expect(",")?;
                }
            }
            body = Some(enumerators);
        }
        if name.is_none() && body.is_none() {
            return self.unexpected("an enumeration's name or body");
        }
        Ok(SpecKind::Enum { name, container, body })
    }

    fn enumerator(&mut self) -> Result<Enumerator<'a>> {
        let at = self.at();
        let label = match self.peek() {
            Kind::Str(label) => {
                let label = Cow::Owned(label.clone());
                self.bump();
                label
            }
            _ => Cow::Borrowed(self.expect_word("a label")?),
        };
        let mut values = None;
        if self.eat("=") {
            let first = self.signed()?;
            let last = if self.eat("...") { self.signed()? } else { first };
            values = Some((first, last));
        }
        Ok(Enumerator { at, label, values })
    }

    fn signed(&mut self) -> Result<i128> {
        match self.value()? {
            Expr::Int { value, negative } if negative => Ok(-i128::from(value)),
            Expr::Int { value, .. } => Ok(i128::from(value)),
            _ => self.unexpected("an integer"),
        }
    }

    fn attributes(&mut self) -> Result<Vec<Attribute<'a>>> {
        let items = self.body(Self::block_item)?;
        items
            .into_iter()
            .map(|item| match item {
                Item::Assign { name, value, at } => Ok(Attribute { at, name, value }),
                _ => self.fail("only `name = value;` is allowed in this type"),
            })
            .collect()
    }

    /// The right side of `=`.
    fn value(&mut self) -> Result<Expr<'a>> {
        let mut negative = false;
        loop {
            if self.eat("-") {
                negative = !negative;
            } else if !self.eat("+") {
                break;
            }
        }
        let value = match self.peek() {
            Kind::Int(value) => Expr::Int { value: *value, negative },
            Kind::Char(value) => Expr::Int { value: u64::from(*value), negative },
            Kind::Str(text) => Expr::Str(Cow::Owned(text.clone())),
            Kind::Word(_) => return Ok(Expr::Path(self.path("a value")?)),
            _ => return self.unexpected("a value"),
        };
        self.bump();
        Ok(value)
    }

    /// Words joined by `.` or `->`.
    fn path(&mut self, what: &str) -> Result<Cow<'a, str>> {
        let mut path = match self.peek() {
            Kind::Str(text) => {
                let text = Cow::Owned(text.clone());
                self.bump();
                text
            }
            _ => Cow::Borrowed(self.expect_word(what)?),
        };
        while self.eat(".") || self.eat("->") {
            let word = self.expect_word(what)?;
            let path = path.to_mut();
            path.push('.');
            path.push_str(word);
        }
        Ok(path)
    }
}

/// Which words of a row belong to the type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    All,
    /// The last one is the declarator.
    ButLast,
}
