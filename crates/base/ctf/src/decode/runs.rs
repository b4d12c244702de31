//! Runs: neighbouring fields whose places are known once the first one's is.
//!
//! A run is found when a program is compiled and hangs on its first step. Where it starts on a byte
//! and lies inside the content, which is looked at once for all of it, every integer in it is one
//! load and two shifts at a known offset. Else the steps are taken one by one: the run never
//! reports a fault, and says of every field exactly what its step would have said.

use std::cell::Cell;

use super::plan::{Code, NO_SLOT, Node, Program, Step};
use super::walk::{FieldVisitor, nul_byte_at};
use crate::model::StringEncoding;

/// No run starts at a step.
pub(crate) const NO_RUN: u32 = u32::MAX;
/// Longest run in bits, and so the largest offset in one.
const RUN_BITS_MAX: u64 = 1 << 24;
/// Steps that make a run worth its while.
const STEPS_MIN: usize = 3;

/// A run; see the module.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// First and last-plus-one of its leaves.
    pub leaves: (u32, u32),
    /// Bytes from its start that its leaves look at.
    pub span_bytes: usize,
    /// Its size.
    pub bits: u64,
    /// The step after it.
    pub next: u32,
}

/// What a leaf is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An integer.
    Number,
    /// Text of `more` bytes.
    Text,
    Begin,
    End,
    /// An integer whose value goes into slot `more`.
    Kept,
    /// A real number of `more` bits.
    Real,
}

/// One field in a run, or the bracket of a structure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaf {
    pub node: u32,
    /// Its offset from the run's start.
    pub byte: u32,
    pub more: u32,
    pub kind: Kind,
    /// Shifts of the eight bytes that bring an integer to the top and down again.
    pub left: u8,
    pub right: u8,
    pub signed: bool,
    pub big: bool,
}

impl Leaf {
    /// The value of an integer, sign-extended if it is signed; without a branch, because nobody can
    /// guess what the next leaf is.
    #[inline(always)]
    pub(super) fn number(&self, bytes: &[u8]) -> u64 {
        let from = self.byte as usize;
        let word = bytes.get(from..from + 8).and_then(|bytes| bytes.first_chunk::<8>());
        let word = u64::from_le_bytes(word.copied().unwrap_or_default());
        let word = if self.big { word.swap_bytes() } else { word };
        let right = self.right & 63;
        let value = word << (self.left & 63) >> right;
        // The sign's bit, taken off twice, is repeated above it; 0 where there is no sign.
        let sign = u64::from(self.signed) << (63 - right);
        (value ^ sign).wrapping_sub(sign)
    }
}

/// Reports leaves, which lie in `bytes`, to a visitor.
#[inline(never)]
pub(super) fn report<V: FieldVisitor>(
    leaves: &[Leaf],
    nodes: &[Node],
    bytes: &[u8],
    slots: &[Cell<u64>],
    visitor: &mut V,
) {
    for leaf in leaves {
        let Some(node) = nodes.get(leaf.node as usize) else { continue };
        // Most leaves are numbers, which for that reason are not one case among others.
        if leaf.kind == Kind::Number {
            number(leaf, node, bytes, visitor);
        } else {
            report_other(leaf, node, bytes, slots, visitor);
        }
    }
}

#[inline(always)]
fn number<V: FieldVisitor>(leaf: &Leaf, node: &Node, bytes: &[u8], visitor: &mut V) {
    let value = leaf.number(bytes);
    if leaf.signed {
        visitor.signed(node, value.cast_signed());
    } else {
        visitor.unsigned(node, value);
    }
}

#[inline(never)]
fn report_other<V: FieldVisitor>(
    leaf: &Leaf,
    node: &Node,
    bytes: &[u8],
    slots: &[Cell<u64>],
    visitor: &mut V,
) {
    match leaf.kind {
        Kind::Text => visitor.text(node, text(leaf, bytes)),
        Kind::Begin => visitor.begin_struct(node),
        Kind::End => visitor.end_struct(node),
        Kind::Real => {
            let at = u64::from(leaf.byte) * 8;
            visitor.real(node, super::real::read(bytes, at, leaf.more, leaf.big, false));
        }
        Kind::Number | Kind::Kept => {
            if let Some(slot) = slots.get(leaf.more as usize) {
                slot.set(leaf.number(bytes));
            }
            number(leaf, node, bytes, visitor);
        }
    }
}

/// Text up to its first NUL.
#[inline]
fn text<'a>(leaf: &Leaf, bytes: &'a [u8]) -> &'a [u8] {
    let from = leaf.byte as usize;
    let text = bytes.get(from..from + leaf.more as usize).unwrap_or_default();
    text.get(..nul_byte_at(text).unwrap_or(text.len())).unwrap_or_default()
}

/// A scope that is one run from its root's begin to its end.
#[derive(Debug, Clone)]
pub(crate) struct Whole {
    /// Mask of its alignment.
    low: u64,
    span_bytes: usize,
    /// Without the root's brackets.
    leaves: Vec<Leaf>,
}

impl Whole {
    /// The whole of a scope; `None` when it has parts whose place depends on data.
    pub(super) fn of(program: &Program) -> Option<Self> {
        let first = program.steps.first()?;
        let run = program.runs.get(first.run as usize)?;
        let leaves = program.leaves.get(run.leaves.0 as usize..run.leaves.1 as usize)?;
        let [begin, inner @ .., end] = leaves else { return None };
        let rooted = begin.kind == Kind::Begin && end.kind == Kind::End && begin.node == end.node;
        let low = (1u64 << first.align_log2) - 1;
        (rooted && low >= 7 && run.next as usize == program.steps.len()).then(|| Self {
            low,
            span_bytes: run.span_bytes,
            leaves: inner.to_vec(),
        })
    }

    /// The bytes that the leaves look at, of a scope at a bit of the packet; `None` when there is not
    /// enough behind it to look at its end in whole words.
    #[inline(always)]
    pub(super) fn bytes<'a>(&self, data: &'a [u8], start: u64) -> Option<&'a [u8]> {
        let from = (((start + self.low) & !self.low) / 8) as usize;
        data.get(from..from.saturating_add(self.span_bytes))
    }

    /// The leaf of a field; `None` for the root and for structures.
    pub(super) fn leaf(&self, node: usize) -> Option<Leaf> {
        let bracket = |leaf: &&Leaf| matches!(leaf.kind, Kind::Begin | Kind::End);
        self.leaves.iter().filter(|leaf| !bracket(leaf)).find(|leaf| leaf.node as usize == node).copied()
    }

    /// Reports the scope of a record that was found, `start` bits into the packet; false when there
    /// are not enough [`bytes`](Self::bytes).
    #[inline]
    pub(super) fn visit<V: FieldVisitor>(
        &self,
        nodes: &[Node],
        data: &[u8],
        start: u64,
        slots: &[Cell<u64>],
        visitor: &mut V,
    ) -> bool {
        let Some(bytes) = self.bytes(data, start) else { return false };
        let Some(root) = nodes.first() else { return false };
        visitor.begin_struct(root);
        report(&self.leaves, nodes, bytes, slots, visitor);
        visitor.end_struct(root);
        true
    }
}

/// Finds the runs of a program.
pub(super) fn find(program: &mut Program) {
    let end = program.steps.len();
    region(program, 0, end);
}

/// Finds the runs in steps that are taken one after another, and in those inside of them.
fn region(program: &mut Program, from: usize, to: usize) {
    let mut index = from;
    while index < to {
        if let Some(next) = run_from(program, index, to) {
            index = next;
            continue;
        }
        let step = program.steps[index];
        index = match step.code {
            Code::Array => {
                region(program, index + 1, step.next as usize);
                step.next as usize
            }
            Code::Optional | Code::Variant => {
                let choices = program.choices.get(step.len as usize);
                let inside: Vec<_> = choices.iter().flat_map(|c| &c.options).map(|o| o.steps).collect();
                for (from, to) in inside {
                    region(program, from as usize, to as usize);
                }
                step.next as usize
            }
            _ => index + 1,
        };
    }
}

/// Makes the longest run from a step on; gives the step after it.
fn run_from(program: &mut Program, from: usize, to: usize) -> Option<usize> {
    let align = (1u64 << program.steps.get(from)?.align_log2).max(8);
    let mut at = 0u64;
    let mut span_bits = 0;
    let mut leaves = Vec::new();
    let mut index = from;
    while index < to
        && let Some(step) = program.steps.get(index)
        && 1 << step.align_log2 <= align
        && let start = at.next_multiple_of(1 << step.align_log2)
        && let Some((leaf, bits)) = leaf_of(step, start, program.mixes_orders)
        && start + bits <= RUN_BITS_MAX
    {
        at = start + bits;
        if let Some(leaf) = leaf {
            let word = if matches!(leaf.kind, Kind::Begin | Kind::End | Kind::Text) { 0 } else { 64 };
            span_bits = span_bits.max(u64::from(leaf.byte) * 8 + word);
            leaves.push(leaf);
        }
        index += 1;
    }
    let first = program.leaves.len() as u32;
    let number = program.runs.len() as u32;
    if index - from < STEPS_MIN {
        return None;
    }
    program.leaves.extend(leaves);
    program.runs.push(Run {
        leaves: (first, program.leaves.len() as u32),
        span_bytes: span_bits.max(at).div_ceil(8) as usize,
        bits: at,
        next: index as u32,
    });
    program.steps[from].run = number;
    Some(index)
}

/// The leaf of a step at a bit of the run, if it reports anything, and its size; `None` when it can
/// not be in a run.
fn leaf_of(step: &Step, at: u64, mixes_orders: bool) -> Option<(Option<Leaf>, u64)> {
    if step.code == Code::Fixed {
        return (step.len <= RUN_BITS_MAX).then_some((None, step.len));
    }
    if !step.visible {
        return None;
    }
    let (byte, bit) = ((at / 8) as u32, (at % 8) as u32);
    let size = u32::from(step.size);
    let plain = Leaf {
        node: step.node,
        byte,
        more: 0,
        kind: Kind::Begin,
        left: 0,
        right: 0,
        signed: step.code == Code::Signed,
        big: step.big,
    };
    match step.code {
        Code::Struct => Some((Some(plain), 0)),
        Code::EndStruct => Some((Some(Leaf { kind: Kind::End, ..plain }), 0)),
        // Of integers that are more than a word `len` is 0.
        Code::Unsigned | Code::Signed if step.len != 0 && (1..=64 - bit).contains(&size) => {
            let kind = if step.save == NO_SLOT { Kind::Number } else { Kind::Kept };
            let left = if step.big { bit } else { 64 - bit - size } as u8;
            let leaf = Leaf { kind, left, right: 64 - size as u8, more: u32::from(step.save), ..plain };
            Some((Some(leaf), u64::from(size)))
        }
        Code::SizedText
            if step.from == NO_SLOT
                && step.encoding == StringEncoding::Utf8
                && bit == 0
                && step.len <= RUN_BITS_MAX / 8 =>
        {
            Some((Some(Leaf { kind: Kind::Text, more: step.len as u32, ..plain }), step.len * 8))
        }
        Code::Real if matches!(size, 32 | 64) && bit == 0 && !step.reversed && !mixes_orders => {
            Some((Some(Leaf { kind: Kind::Real, more: size, ..plain }), u64::from(size)))
        }
        _ => None,
    }
}
