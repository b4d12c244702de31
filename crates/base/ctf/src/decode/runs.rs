//! Runs: neighbouring fields whose places are known once the first one's is.
//!
//! A run is found when a program is compiled and hangs on its first step. Where it starts on a byte
//! and lies inside the content, which is looked at once for all of it, every integer in it is one
//! load and two shifts at a known offset. Else the steps are taken one by one: the run never
//! reports a fault, and says of every field exactly what its step would have said.

use std::cell::Cell;

use super::bits::mask;
use super::plan::{Code, NO_SLOT, Node, Program, Step};
use super::walk::{FieldVisitor, Scalars, nul_byte_at, visit_scalars};
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
    /// An integer on whole bytes, the least significant first.
    Number,
    /// Any other integer.
    Odd,
    /// Text of `more` bytes.
    Text,
    Begin,
    End,
    /// An integer whose value goes into slot `more`.
    Kept,
    /// A real number of `more` bits.
    Real,
    /// The array `more` of the arrays.
    Array,
}

/// One field in a run, or the bracket of a structure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaf {
    /// The bits of an integer, once it is shifted down.
    pub mask: u64,
    /// The bit of its sign; 0 of an unsigned one.
    pub sign: u64,
    pub node: u32,
    /// Its offset from the run's start.
    pub byte: u32,
    pub more: u32,
    pub kind: Kind,
    /// How far the eight bytes are shifted down.
    pub shift: u8,
    pub big: bool,
}

/// An array of a fixed number of scalars.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArrayLeaf {
    element: Step,
    stride: u64,
    len: u64,
}

impl Leaf {
    /// The value of an integer, sign-extended if it is signed; without a branch, because nobody can
    /// guess what the next leaf is.
    #[inline(always)]
    pub(super) fn number(&self, bytes: &[u8]) -> u64 {
        let word = self.word(bytes);
        let word = if self.big { word.swap_bytes() } else { word };
        self.extended(word >> (self.shift & 63))
    }

    #[inline(always)]
    fn word(&self, bytes: &[u8]) -> u64 {
        let from = self.byte as usize;
        let word = bytes.get(from..from + 8).and_then(|bytes| bytes.first_chunk::<8>());
        u64::from_le_bytes(word.copied().unwrap_or_default())
    }

    /// The sign's bit, taken off twice, is repeated above it; 0 where there is no sign.
    #[inline(always)]
    fn extended(&self, word: u64) -> u64 {
        ((word & self.mask) ^ self.sign).wrapping_sub(self.sign)
    }
}

/// Where the leaves of a run are.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The packet.
    pub data: &'a [u8],
    /// Where the run starts in it.
    pub from: usize,
    /// What the leaves look at.
    pub bytes: &'a [u8],
}

/// Reports leaves to a visitor.
#[inline(always)]
pub(super) fn report<V: FieldVisitor>(
    leaves: &[Leaf],
    arrays: &[ArrayLeaf],
    nodes: &[Node],
    place: Place<'_>,
    slots: &[Cell<u64>],
    visitor: &mut V,
) {
    for leaf in leaves {
        let Some(node) = nodes.get(leaf.node as usize) else { continue };
        // Most leaves are numbers, and most of these of the simplest kind.
        match leaf.kind {
            Kind::Number => say(leaf, node, leaf.extended(leaf.word(place.bytes)), visitor),
            Kind::Text => visitor.text(node, text(leaf, place.bytes)),
            Kind::Odd => say(leaf, node, leaf.number(place.bytes), visitor),
            Kind::Begin => visitor.begin_struct(node),
            Kind::End => visitor.end_struct(node),
            _ => report_other(leaf, arrays, nodes, place, slots, visitor),
        }
    }
}

#[inline(always)]
fn say<V: FieldVisitor>(leaf: &Leaf, node: &Node, value: u64, visitor: &mut V) {
    if leaf.sign != 0 {
        visitor.signed(node, value.cast_signed());
    } else {
        visitor.unsigned(node, value);
    }
}

#[inline(never)]
fn report_other<V: FieldVisitor>(
    leaf: &Leaf,
    arrays: &[ArrayLeaf],
    nodes: &[Node],
    place: Place<'_>,
    slots: &[Cell<u64>],
    visitor: &mut V,
) {
    let Some(node) = nodes.get(leaf.node as usize) else { return };
    match leaf.kind {
        Kind::Real => {
            let at = u64::from(leaf.byte) * 8;
            visitor.real(node, super::real::read(place.bytes, at, leaf.more, leaf.big, false));
        }
        Kind::Array => {
            let Some(array) = arrays.get(leaf.more as usize) else { return };
            let at = (place.from as u64 + u64::from(leaf.byte)) * 8;
            let scalars = Scalars::new(place.data, at, array.stride, array.len, array.element);
            visit_scalars(node, nodes.get(array.element.node as usize), scalars, visitor);
        }
        _ => {
            let value = leaf.number(place.bytes);
            if let Some(slot) = slots.get(leaf.more as usize) {
                slot.set(value);
            }
            say(leaf, node, value, visitor);
        }
    }
}

/// Text up to its first NUL.
#[inline]
pub(super) fn text<'a>(leaf: &Leaf, bytes: &'a [u8]) -> &'a [u8] {
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
    arrays: Vec<ArrayLeaf>,
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
            arrays: program.arrays.clone(),
        })
    }

    /// The bytes that the leaves look at, of a scope at a bit of the packet; `None` when there is not
    /// enough behind it to look at its end in whole words.
    #[inline(always)]
    pub(super) fn bytes<'a>(&self, data: &'a [u8], start: u64) -> Option<&'a [u8]> {
        self.place(data, start).map(|place| place.bytes)
    }

    #[inline(always)]
    fn place<'a>(&self, data: &'a [u8], start: u64) -> Option<Place<'a>> {
        let from = (((start + self.low) & !self.low) / 8) as usize;
        let bytes = data.get(from..from.saturating_add(self.span_bytes))?;
        Some(Place { data, from, bytes })
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
        let Some(place) = self.place(data, start) else { return false };
        let Some(root) = nodes.first() else { return false };
        visitor.begin_struct(root);
        report(&self.leaves, &self.arrays, nodes, place, slots, visitor);
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
    let mut arrays = Vec::new();
    let mut fields = 0;
    let mut index = from;
    while index < to
        && let Some(step) = program.steps.get(index)
        && 1 << step.align_log2 <= align
        && let start = at.next_multiple_of(1 << step.align_log2)
    {
        if let Some((leaf, bits)) = leaf_of(step, start, program.mixes_orders) {
            if start + bits > RUN_BITS_MAX {
                break;
            }
            at = start + bits;
            if let Some(leaf) = leaf {
                let word = if matches!(leaf.kind, Kind::Begin | Kind::End | Kind::Text) { 0 } else { 64 };
                span_bits = span_bits.max(u64::from(leaf.byte) * 8 + word);
                leaves.push(leaf);
            }
            index += 1;
            fields += 1;
        } else if let Some((leaf, array, bits)) = array_of(program, index, start) {
            at = start + bits;
            let more = (program.arrays.len() + arrays.len()) as u32;
            leaves.push(Leaf { more, ..leaf });
            arrays.push(array);
            index = step.next as usize;
            fields += STEPS_MIN;
        } else {
            break;
        }
    }
    if fields < STEPS_MIN {
        return None;
    }
    let first = program.leaves.len() as u32;
    let number = program.runs.len() as u32;
    program.leaves.extend(leaves);
    program.arrays.extend(arrays);
    program.runs.push(Run {
        leaves: (first, program.leaves.len() as u32),
        span_bytes: span_bits.max(at).div_ceil(8) as usize,
        bits: at,
        next: index as u32,
    });
    program.steps[from].run = number;
    Some(index)
}

/// What is the same of all leaves at a byte.
fn blank(step: &Step, byte: u32) -> Leaf {
    Leaf { mask: 0, sign: 0, node: step.node, byte, more: 0, kind: Kind::Begin, shift: 0, big: step.big }
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
    let plain = blank(step, byte);
    match step.code {
        Code::Struct => Some((Some(plain), 0)),
        Code::EndStruct => Some((Some(Leaf { kind: Kind::End, ..plain }), 0)),
        // Of integers that are more than a word `len` is 0.
        Code::Unsigned | Code::Signed if step.len != 0 && (1..=64 - bit).contains(&size) => {
            // The order of the bytes of one byte does not matter.
            let big = step.big && (bit != 0 || size != 8);
            let kind = match (step.save, big, bit) {
                (NO_SLOT, false, 0) => Kind::Number,
                (NO_SLOT, ..) => Kind::Odd,
                _ => Kind::Kept,
            };
            let shift = if big { 64 - bit - size } else { bit } as u8;
            let sign = if step.code == Code::Signed { 1 << (size - 1) } else { 0 };
            let more = u32::from(step.save);
            let leaf = Leaf { kind, mask: mask(size), sign, shift, big, more, ..plain };
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

/// The leaf of an array of a fixed number of scalars on whole bytes, and its size.
fn array_of(program: &Program, index: usize, at: u64) -> Option<(Leaf, ArrayLeaf, u64)> {
    let step = program.steps.get(index)?;
    let element = program.steps.get(index + 1)?;
    let alone = step.code == Code::Array && step.next as usize == index + 2;
    if !alone || step.from != NO_SLOT || !step.visible || !element.visible || !at.is_multiple_of(8) {
        return None;
    }
    let stride = element.scalar_stride(program.mixes_orders)?;
    let aligned = element.align_log2 <= step.align_log2.max(3);
    if !aligned || step.len == 0 || step.len > RUN_BITS_MAX / stride.max(1) {
        return None;
    }
    let bits = stride * (step.len - 1) + u64::from(element.size);
    let leaf = Leaf { kind: Kind::Array, ..blank(step, (at / 8) as u32) };
    (at + bits <= RUN_BITS_MAX).then_some((
        leaf,
        ArrayLeaf { element: *element, stride, len: step.len },
        bits,
    ))
}
