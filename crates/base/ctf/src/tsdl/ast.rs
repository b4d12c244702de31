//! The tree of TSDL: what the text says, not yet what it means.

/// A block's content, a struct's body, or the whole text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// `name = value;`
    Assign { name: String, value: Expr, at: usize },
    /// `name := type;`
    TypeAssign { name: String, spec: Spec, at: usize },
    /// `typedef spec declarator, …;`
    Typedef { spec: Spec, declarators: Vec<Declarator> },
    /// `typealias spec := name;`
    TypeAlias { spec: Spec, name: String, at: usize },
    /// `struct x { … };` alone, or a field: `spec declarator, …;`
    Declaration { spec: Spec, declarators: Vec<Declarator> },
    /// `trace { … };` and its like.
    Block { kind: BlockKind, items: Vec<Item>, at: usize },
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
pub(super) enum Expr {
    /// An integer, with its sign.
    Int { value: u64, negative: bool },
    /// A string literal.
    Str(String),
    /// Words joined by dots.
    Path(String),
}

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    pub at: usize,
    pub kind: SpecKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum SpecKind {
    /// The name of an alias, words joined by a space.
    Alias(String),
    Integer(Vec<Attribute>),
    Float(Vec<Attribute>),
    Text(Vec<Attribute>),
    Struct {
        name: Option<String>,
        body: Option<Vec<Item>>,
        align: Option<u64>,
    },
    Variant {
        name: Option<String>,
        tag: Option<String>,
        body: Option<Vec<Item>>,
    },
    Enum {
        name: Option<String>,
        container: Option<Box<Spec>>,
        body: Option<Vec<Enumerator>>,
    },
}

/// `name = value;` in an `integer { … }` and its like.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attribute {
    pub at: usize,
    pub name: String,
    pub value: Expr,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Enumerator {
    pub at: usize,
    pub label: String,
    /// First and last value.
    pub values: Option<(i128, i128)>,
}

/// `*name[length]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declarator {
    pub at: usize,
    pub pointers: usize,
    pub name: String,
    pub arrays: Vec<ArrayLength>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum ArrayLength {
    Int(u64),
    Path(String),
}
