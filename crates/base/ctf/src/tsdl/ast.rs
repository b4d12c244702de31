//! The tree of TSDL: what the text says, not yet what it means.

use std::borrow::Cow;

/// A block's content, a struct's body, or the whole text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item<'a> {
    /// `name = value;`
    Assign { name: Cow<'a, str>, value: Expr<'a>, at: usize },
    /// `name := type;`
    TypeAssign { name: Cow<'a, str>, spec: Spec<'a>, at: usize },
    /// `typedef spec declarator, …;`
    Typedef { spec: Spec<'a>, declarators: Vec<Declarator<'a>> },
    /// `typealias spec := name;`
    TypeAlias { spec: Spec<'a>, name: Cow<'a, str>, at: usize },
    /// `struct x { … };` alone, or a field: `spec declarator, …;`
    Declaration { spec: Spec<'a>, declarators: Vec<Declarator<'a>> },
    /// `trace { … };` and its like.
    Block { kind: BlockKind, items: Vec<Item<'a>>, at: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockKind {
    Trace,
    Env,
    Clock,
    Stream,
    Event,
    Callsite,
}

/// The right side of `=`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr<'a> {
    /// An integer, with its sign.
    Int { value: u64, negative: bool },
    /// A string literal.
    Str(Cow<'a, str>),
    /// Words joined by dots.
    Path(Cow<'a, str>),
}

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec<'a> {
    pub at: usize,
    pub kind: SpecKind<'a>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum SpecKind<'a> {
    /// The name of an alias, words joined by a space.
    Alias(Cow<'a, str>),
    Integer(Vec<Attribute<'a>>),
    Float(Vec<Attribute<'a>>),
    Text(Vec<Attribute<'a>>),
    Struct {
        name: Option<Cow<'a, str>>,
        body: Option<Vec<Item<'a>>>,
        align: Option<u64>,
    },
    Variant {
        name: Option<Cow<'a, str>>,
        tag: Option<Cow<'a, str>>,
        body: Option<Vec<Item<'a>>>,
    },
    Enum {
        name: Option<Cow<'a, str>>,
        container: Option<Box<Spec<'a>>>,
        body: Option<Vec<Enumerator<'a>>>,
    },
}

/// `name = value;` in an `integer { … }` and its like.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attribute<'a> {
    pub at: usize,
    pub name: Cow<'a, str>,
    pub value: Expr<'a>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Enumerator<'a> {
    pub at: usize,
    pub label: Cow<'a, str>,
    /// First and last value.
    pub values: Option<(i128, i128)>,
}

/// `*name[length]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declarator<'a> {
    pub at: usize,
    pub pointers: usize,
    pub name: Cow<'a, str>,
    pub arrays: Vec<ArrayLength<'a>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum ArrayLength<'a> {
    Int(u64),
    Path(Cow<'a, str>),
}
