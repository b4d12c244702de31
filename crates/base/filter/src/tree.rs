//! The tree of a filter. What a tree that was parsed holds is well typed: text stands only beside
//! `==`, `!=` and the relations, opposite a reference or text; bits are only asked of what can be
//! an integer.

use std::fmt;

use crate::pattern::Pattern;

/// Where a reference starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Root {
    /// A field of the record.
    Field(Box<str>),
    /// A context: `$ctx.NAME`.
    Context(Box<str>),
    /// A context of an application: `$app.PROVIDER:TYPE`.
    Application {
        /// What comes before the colon.
        provider: Box<str>,
        /// What comes after it.
        kind: Box<str>,
    },
    /// Something about the event itself: `$event.NAME`.
    Event(Box<str>),
}

/// A step into a compound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// `.NAME`
    Member(Box<str>),
    /// `[INDEX]`
    Index(u64),
}

/// A way to a value of the record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where it starts.
    pub root: Root,
    /// Steps from there.
    pub steps: Vec<Step>,
}

/// An operator before its operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    /// `-`
    Minus,
    /// `+`
    Plus,
    /// `!`
    Not,
    /// `~`
    Invert,
}

/// An operator between its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Binary {
    ShiftLeft,
    ShiftRight,
    BitAnd,
    BitXor,
    BitOr,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    And,
    Or,
}

/// A filter or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// An integer.
    Integer(i64),
    /// A real number.
    Real(f64),
    /// Text, perhaps with stars.
    Text(Pattern),
    /// A value of the record.
    Reference(Reference),
    /// An operator and its operand.
    Unary(Unary, Box<Expression>),
    /// An operator and its operands.
    Binary(Binary, Box<Expression>, Box<Expression>),
}

impl Unary {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Minus => "-",
            Self::Plus => "+",
            Self::Not => "!",
            Self::Invert => "~",
        }
    }
}

impl Binary {
    /// How tight it binds: higher is tighter.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Equal | Self::NotEqual => 3,
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => 4,
            Self::BitOr => 5,
            Self::BitXor => 6,
            Self::BitAnd => 7,
            Self::ShiftLeft | Self::ShiftRight => 8,
        }
    }

    /// Whether it takes bits.
    pub(crate) fn is_bitwise(self) -> bool {
        self.precedence() >= 5
    }

    /// Whether it compares.
    pub(crate) fn is_comparison(self) -> bool {
        matches!(self.precedence(), 3 | 4)
    }

    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::ShiftLeft => "<<",
            Self::ShiftRight => ">>",
            Self::BitAnd => "&",
            Self::BitXor => "^",
            Self::BitOr => "|",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::And => "&&",
            Self::Or => "||",
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Field(name) => f.write_str(name)?,
            Root::Context(name) => write!(f, "$ctx.{name}")?,
            Root::Application { provider, kind } => write!(f, "$app.{provider}:{kind}")?,
            Root::Event(name) => write!(f, "$event.{name}")?,
        }
        for step in &self.steps {
            match step {
                Step::Member(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Fully parenthesised, so that reading it again gives the same tree.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value:?}"),
            Self::Text(pattern) => {
                f.write_str("\"")?;
                for (index, part) in pattern.parts().enumerate() {
                    if index > 0 {
                        f.write_str("*")?;
                    }
                    for c in String::from_utf8_lossy(part).chars() {
                        if matches!(c, '"' | '\\' | '*') {
                            f.write_str("\\")?;
                        }
                        write!(f, "{c}")?;
                    }
                }
                f.write_str("\"")
            }
            Self::Reference(reference) => write!(f, "{reference}"),
            Self::Unary(operator, operand) => write!(f, "{}({operand})", operator.symbol()),
            Self::Binary(operator, left, right) => write!(f, "({left} {} {right})", operator.symbol()),
        }
    }
}
