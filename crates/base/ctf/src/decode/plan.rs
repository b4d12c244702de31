//! Decode programs: a field class tree, compiled once into a flat list of steps.
//!
//! A plan has the full list, which reports every field to a visitor, and a short one that only
//! finds the end of the scope, in which neighbours of fixed size are one step. For scopes whose end is
//! known there is a list of leaves instead (see [`super::whole`]). Steps are in declaration order; the
//! steps inside a compound follow it up to its `next`. Compiling does not fail: what can not be
//! decoded is refused where the metadata is read.

use std::sync::Arc;

use super::orders;
use super::whole::Whole;
use crate::model::{
    ByteOrder, FieldClass, FieldKind, FieldRef, IntRange, IntegerLayout, Length, Roles, Scope,
    StringEncoding, StringExtent,
};

/// No slot.
pub(crate) const NO_SLOT: u16 = u16::MAX;

/// A field of a scope as visitors see it: its class and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Dense number in the scope, in declaration order from 0 (the scope's root structure): a key
    /// for what a visitor prepares per field.
    pub id: usize,
    /// Number of the field that this one is inside of; its own for the root.
    pub parent: usize,
    /// Name of the member or option; empty for roots, array elements and unnamed options.
    pub name: Box<str>,
    /// What it is.
    pub class: Arc<FieldClass>,
    /// The class's roles, copied here for speed.
    pub(crate) roles: Roles,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Only in the short list: align, then pass over `len` bits.
    Fixed,
    Unsigned,
    Signed,
    Bool,
    Bits,
    Real,
    LebUnsigned,
    LebSigned,
    /// NUL-terminated text.
    Text,
    /// Text of `len` bytes, or of as many as slot `from` says.
    SizedText,
    /// Bytes, likewise.
    Blob,
    Struct,
    /// After the last member of a structure.
    EndStruct,
    /// `len` elements, or as many as slot `from` says; the element's steps are inside.
    Array,
    /// Content inside; `len` is the position in `choices` of the ranges, for integer selectors.
    Optional,
    /// Options inside; `len` is the position in `choices`.
    Variant,
}

/// One step; see [`Code`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub code: Code,
    /// Big-endian.
    pub big: bool,
    /// Bits in reversed order.
    pub reversed: bool,
    pub visible: bool,
    pub align_log2: u8,
    /// Size in bits, of fixed-length leaves.
    pub size: u8,
    /// Slot that keeps the value.
    pub save: u16,
    /// Slot of the length or selector.
    pub from: u16,
    pub encoding: StringEncoding,
    pub node: u32,
    /// The step after this one and all inside it.
    pub next: u32,
    pub len: u64,
}

impl Step {
    /// Bits from one element to the next, for elements that are scalars which can be read without the
    /// ones before them.
    pub(super) fn scalar_stride(&self, mixes_orders: bool) -> Option<u64> {
        let code = matches!(self.code, Code::Unsigned | Code::Signed | Code::Bool | Code::Bits | Code::Real);
        // Whole bytes on bytes need no check of the byte order.
        let on_bytes = self.align_log2 >= 3 && self.size.is_multiple_of(8);
        let scalar = code && self.save == NO_SLOT && self.size <= 64 && (!mixes_orders || on_bytes);
        scalar.then(|| u64::from(self.size).next_multiple_of(1 << self.align_log2))
    }
}

/// One option of a variant (or the content of an optional field).
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub ranges: Vec<IntRange>,
    /// First and last-plus-one step.
    pub steps: (u32, u32),
}

/// Options and how the selector's bits are to be read.
#[derive(Debug, Clone)]
pub(crate) struct Choices {
    pub signed: bool,
    pub options: Vec<Choice>,
    /// The ranges of unsigned selectors as far as they fit, each with its option's number.
    quick: Vec<(u64, u64, u32)>,
}

impl Choices {
    pub(crate) fn new(signed: bool, options: Vec<Choice>) -> Self {
        let fit = |range: &IntRange| {
            let upper = u64::try_from(range.upper.min(i128::from(u64::MAX))).ok()?;
            Some((u64::try_from(range.lower.max(0)).ok()?, upper))
        };
        let all = options.iter().zip(0..).flat_map(|(o, number)| o.ranges.iter().map(move |r| (r, number)));
        let quick = all.filter_map(|(range, number)| fit(range).map(|(lower, upper)| (lower, upper, number)));
        Self { signed, quick: quick.filter(|_| !signed).collect(), options }
    }

    /// The first option that the raw selector value chooses.
    #[inline]
    pub(crate) fn select(&self, raw: u64) -> Option<(usize, &Choice)> {
        if !self.signed {
            let found = self.quick.iter().find(|(lower, upper, _)| *lower <= raw && raw <= *upper)?;
            let number = found.2 as usize;
            return Some((number, self.options.get(number)?));
        }
        let value = self.value(raw);
        self.options
            .iter()
            .enumerate()
            .find(|(_, option)| option.ranges.iter().any(|range| range.contains(value)))
    }

    pub(crate) fn value(&self, raw: u64) -> i128 {
        if self.signed { i128::from(raw.cast_signed()) } else { i128::from(raw) }
    }
}

/// One of the two lists of a plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub steps: Vec<Step>,
    pub choices: Vec<Choices>,
    /// Fields of both byte orders could meet inside a byte: the order of each must be checked.
    pub mixes_orders: bool,
}

/// A compiled scope.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub nodes: Vec<Node>,
    pub full: Program,
    /// Empty when the full list must be used to find the end too.
    pub short: Program,
    /// Alignment of the root in bits; 1 without a root.
    pub align: u64,
    /// The list for readers, when it differs from the full one: hidden fields are only passed over.
    pub shown: Option<Program>,
    /// What readers see, as leaves.
    pub whole: Option<Whole>,
    /// Size when it does not depend on data.
    pub fixed_bits: Option<u64>,
    /// Whether lengths or selectors are in other scopes of the record.
    pub refers_to_others: bool,
}

impl Plan {
    /// Compiles a scope; `None` is a scope without fields.
    pub(crate) fn compile(root: Option<&Arc<FieldClass>>, scope: Scope) -> Self {
        let Some(root) = root else {
            return Self { align: 1, fixed_bits: Some(0), ..Self::default() };
        };
        let mixes_orders = orders::can_meet(root);
        let mut full = Compiler::new(Purpose::All);
        full.program.mixes_orders = mixes_orders;
        full.field(root, "", 0);
        let mut short = Compiler::new(Purpose::End);
        if !mixes_orders {
            short.field(root, "", 0);
        }
        let shown = (hides_any(root) && !mixes_orders).then(|| {
            let mut shown = Compiler::new(Purpose::Shown);
            shown.field(root, "", 0);
            shown.program
        });
        Self {
            whole: Whole::of(shown.as_ref().unwrap_or(&full.program)),
            shown,
            nodes: full.nodes,
            full: full.program,
            fixed_bits: if short.program.steps.is_empty() {
                None
            } else {
                root.fixed_size_bits().filter(|_| !saves_anything(root))
            },
            short: short.program,
            refers_to_others: refers_to_others(root, scope),
            align: u64::from(root.alignment_bits),
        }
    }

    /// The list that finds the end of the scope soonest.
    pub(crate) fn shortest(&self) -> &Program {
        if self.short.steps.is_empty() { &self.full } else { &self.short }
    }
}

/// What a list of steps is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Every field.
    All,
    /// The fields that readers show.
    Shown,
    /// Only the end of the scope.
    End,
}

struct Compiler {
    purpose: Purpose,
    nodes: Vec<Node>,
    next_node: usize,
    program: Program,
    /// Steps before this one are jumped to from outside, so nothing is merged into them.
    barrier: usize,
}

impl Compiler {
    fn new(purpose: Purpose) -> Self {
        Self { purpose, nodes: Vec::new(), next_node: 0, program: Program::default(), barrier: 0 }
    }

    fn field(&mut self, class: &Arc<FieldClass>, name: &str, parent: usize) {
        let passed_over = match self.purpose {
            Purpose::All => false,
            Purpose::Shown => !class.visible,
            Purpose::End => true,
        };
        let short = self.purpose == Purpose::End;
        if passed_over
            && !saves_anything(class)
            && let Some(bits) = class.fixed_size_bits()
        {
            // Numbers of nodes stay those of the full list.
            self.skip_nodes(class);
            return self.fixed(class.alignment_bits, bits);
        }
        let id = self.next_node;
        self.next_node += 1;
        if self.purpose == Purpose::All {
            self.nodes.push(Node {
                id,
                parent,
                name: name.into(),
                class: Arc::clone(class),
                roles: class.roles(),
            });
        }
        let at = self.push(class, id);
        match &class.kind {
            FieldKind::Struct(c) => {
                if short {
                    // The alignment of the whole lets the members merge into one step.
                    self.program.steps.pop();
                    self.fixed(class.alignment_bits, 0);
                }
                for member in &c.members {
                    self.field(&member.class, &member.name, id);
                }
                if short {
                    return;
                }
                let begin = self.program.steps[at];
                let end = self.program.steps.len();
                self.program.steps[at].next = end as u32 + 1;
                self.program.steps.push(Step {
                    code: Code::EndStruct,
                    align_log2: 0,
                    next: end as u32 + 1,
                    ..begin
                });
                return;
            }
            FieldKind::Array(c) => {
                self.barrier = self.program.steps.len();
                self.field(&c.element, "", id);
                self.barrier = self.program.steps.len();
            }
            FieldKind::Optional(c) => {
                self.options(
                    at,
                    id,
                    c.selector.kind == crate::model::SelectorKind::Signed,
                    [(&c.content, "", c.ranges.as_slice())],
                );
            }
            FieldKind::Variant(c) => self.options(
                at,
                id,
                c.selector.kind == crate::model::SelectorKind::Signed,
                c.options
                    .iter()
                    .map(|o| (&o.class, o.name.as_deref().unwrap_or_default(), o.ranges.as_slice())),
            ),
            _ => {}
        }
        self.program.steps[at].next = self.program.steps.len() as u32;
    }

    /// Counts the nodes of a field that gets no steps.
    fn skip_nodes(&mut self, class: &FieldClass) {
        self.next_node += 1;
        match &class.kind {
            FieldKind::Struct(c) => c.members.iter().for_each(|m| self.skip_nodes(&m.class)),
            FieldKind::Array(c) => self.skip_nodes(&c.element),
            FieldKind::Optional(c) => self.skip_nodes(&c.content),
            FieldKind::Variant(c) => c.options.iter().for_each(|o| self.skip_nodes(&o.class)),
            _ => {}
        }
    }

    fn options<'a>(
        &mut self,
        at: usize,
        id: usize,
        signed: bool,
        options: impl IntoIterator<Item = (&'a Arc<FieldClass>, &'a str, &'a [IntRange])>,
    ) {
        let options = options
            .into_iter()
            .map(|(class, name, ranges)| {
                let from = self.program.steps.len();
                self.barrier = from;
                self.field(class, name, id);
                self.barrier = self.program.steps.len();
                Choice { ranges: ranges.to_vec(), steps: (from as u32, self.program.steps.len() as u32) }
            })
            .collect();
        self.program.steps[at].len = self.program.choices.len() as u64;
        self.program.choices.push(Choices::new(signed, options));
    }

    /// Adds bits of fixed size to the short list, to the step before if the offset is known.
    fn fixed(&mut self, alignment: u32, bits: u64) {
        let align_log2 = alignment.trailing_zeros() as u8;
        let mergeable = self.program.steps.len() > self.barrier;
        if let Some(last) = self.program.steps.last_mut()
            && mergeable
            && last.code == Code::Fixed
            && align_log2 <= last.align_log2
            && let Some(total) =
                last.len.checked_next_multiple_of(u64::from(alignment)).and_then(|at| at.checked_add(bits))
        {
            last.len = total;
            return;
        }
        let next = self.program.steps.len() as u32 + 1;
        self.program.steps.push(Step { code: Code::Fixed, len: bits, align_log2, next, ..BLANK });
    }

    /// Adds the step of the field itself; gives its position.
    fn push(&mut self, class: &FieldClass, id: usize) -> usize {
        let at = self.program.steps.len();
        let mut step = Step {
            visible: class.visible,
            align_log2: class.alignment_bits.trailing_zeros() as u8,
            save: class.slot.unwrap_or(NO_SLOT),
            node: id as u32,
            next: at as u32 + 1,
            ..BLANK
        };
        let set_layout = |step: &mut Step, layout: &crate::model::BitLayout| {
            step.big = layout.byte_order == ByteOrder::Big;
            step.reversed = layout.reversed;
            step.size = layout.size_bits as u8;
        };
        let set_length = |step: &mut Step, length: &Length| match length {
            Length::Static(length) => step.len = *length,
            Length::Dynamic(field) => step.from = field.slot,
        };
        step.code = match &class.kind {
            FieldKind::BitArray(c) => {
                set_layout(&mut step, &c.layout);
                Code::Bits
            }
            FieldKind::Bool(layout) => {
                set_layout(&mut step, layout);
                Code::Bool
            }
            FieldKind::Integer(c) => match c.layout {
                IntegerLayout::Fixed(layout) => {
                    set_layout(&mut step, &layout);
                    // See `word` in the walk. Where byte orders are mixed, whole bytes on bytes need
                    // no check of the order: what comes after them starts on a byte too.
                    let on_bytes =
                        class.alignment_bits.is_multiple_of(8) && layout.size_bits.is_multiple_of(8);
                    let unchecked = !layout.reversed && (on_bytes || !self.program.mixes_orders);
                    if unchecked && layout.size_bits <= 56 {
                        step.len = super::bits::mask(layout.size_bits);
                    } else if unchecked && layout.size_bits == 64 && on_bytes {
                        step.len = u64::MAX;
                    }
                    if c.signed { Code::Signed } else { Code::Unsigned }
                }
                IntegerLayout::Leb128 if c.signed => Code::LebSigned,
                IntegerLayout::Leb128 => Code::LebUnsigned,
            },
            FieldKind::Float(c) => {
                set_layout(&mut step, &c.layout);
                Code::Real
            }
            FieldKind::String(c) => {
                step.encoding = c.encoding;
                match &c.extent {
                    StringExtent::NullTerminated => Code::Text,
                    StringExtent::Sized(length) => {
                        set_length(&mut step, length);
                        Code::SizedText
                    }
                }
            }
            FieldKind::Blob(c) => {
                set_length(&mut step, &c.length);
                Code::Blob
            }
            FieldKind::Struct(_) => Code::Struct,
            FieldKind::Array(c) => {
                set_length(&mut step, &c.length);
                Code::Array
            }
            FieldKind::Optional(c) => {
                step.from = c.selector.slot;
                step.size = u8::from(c.ranges.is_empty());
                Code::Optional
            }
            FieldKind::Variant(c) => {
                step.from = c.selector.slot;
                Code::Variant
            }
        };
        self.program.steps.push(step);
        at
    }
}

const BLANK: Step = Step {
    code: Code::Fixed,
    big: false,
    reversed: false,
    visible: true,
    align_log2: 0,
    size: 0,
    save: NO_SLOT,
    from: NO_SLOT,
    encoding: StringEncoding::Utf8,
    node: 0,
    next: 0,
    len: 0,
};

/// Whether any field in it is hidden from readers.
fn hides_any(class: &FieldClass) -> bool {
    !class.visible
        || match &class.kind {
            FieldKind::Struct(c) => c.members.iter().any(|m| hides_any(&m.class)),
            FieldKind::Array(c) => hides_any(&c.element),
            FieldKind::Optional(c) => hides_any(&c.content),
            FieldKind::Variant(c) => c.options.iter().any(|o| hides_any(&o.class)),
            _ => false,
        }
}

/// Whether decoding the field leaves a value in a slot.
fn saves_anything(class: &FieldClass) -> bool {
    class.slot.is_some()
        || match &class.kind {
            FieldKind::Struct(c) => c.members.iter().any(|m| saves_anything(&m.class)),
            FieldKind::Array(c) => saves_anything(&c.element),
            FieldKind::Optional(c) => saves_anything(&c.content),
            FieldKind::Variant(c) => c.options.iter().any(|o| saves_anything(&o.class)),
            _ => false,
        }
}

/// Whether a length or selector of a field is in another scope of the same record.
fn refers_to_others(class: &FieldClass, own: Scope) -> bool {
    let other = |field: &FieldRef| {
        field.paths.iter().any(|path| path.scope != own && path.scope >= Scope::EventHeader)
    };
    match &class.kind {
        FieldKind::String(c) => matches!(&c.extent, StringExtent::Sized(Length::Dynamic(f)) if other(f)),
        FieldKind::Blob(c) => matches!(&c.length, Length::Dynamic(f) if other(f)),
        FieldKind::Struct(c) => c.members.iter().any(|m| refers_to_others(&m.class, own)),
        FieldKind::Array(c) => {
            matches!(&c.length, Length::Dynamic(f) if other(f)) || refers_to_others(&c.element, own)
        }
        FieldKind::Optional(c) => other(&c.selector) || refers_to_others(&c.content, own),
        FieldKind::Variant(c) => {
            other(&c.selector) || c.options.iter().any(|o| refers_to_others(&o.class, own))
        }
        _ => false,
    }
}
