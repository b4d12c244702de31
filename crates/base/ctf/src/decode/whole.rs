//! A scope as a list of leaves: the fastest way to tell all its fields.
//!
//! The record that the scope is in was found before, so nothing has to be checked again: no end, no
//! length, no selector. Every field has a fixed offset from a base, where the scope
//! starts or where the last field of variable size ended; an integer is then one load, one mask and
//! no position to wait for. What can not be told this way (elements that are not scalars, optional
//! fields, scopes not on bytes) makes no list, and such scopes are walked.

use std::cell::Cell;

use super::bits::{mask, read_le};
use super::plan::{Choices, Code, NO_SLOT, Node, Program, Step};
use super::walk::{FieldVisitor, Scalars, nul_byte_at, visit_scalars};
use crate::model::StringEncoding;

/// Largest offset from a base in bits.
const OFFSET_BITS_MAX: u64 = 1 << 24;

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
    /// Text up to its NUL, behind which the base is from here on.
    Line,
    /// The array `more` of the arrays; behind it the base is if its length is not fixed.
    Array,
    /// A variant: the option that choice `more` says follows.
    Choose,
    /// After an option: goes on at leaf `more`, with the base where the option ended.
    Close,
    /// A real number of `more` bits.
    Real,
    /// Text of as many bytes as slot `more` says, behind which the base is from here on.
    SizedText,
    /// Bytes, likewise.
    Blob,
}

/// One field, or the bracket of a structure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaf {
    /// The bits of an integer, once it is shifted down.
    mask: u64,
    /// The bit of its sign; 0 of an unsigned one.
    pub sign: u64,
    node: u32,
    /// Its offset from the base.
    byte: u32,
    more: u32,
    pub kind: Kind,
    /// How far the eight bytes are shifted down.
    shift: u8,
    big: bool,
}

/// An array of scalars on whole bytes.
#[derive(Debug, Clone, Copy)]
struct ArrayLeaf {
    element: Step,
    stride: u64,
    len: u64,
    /// Slot of its length; `NO_SLOT` when that is `len`.
    from: u16,
}

/// How a variant chooses.
#[derive(Debug, Clone)]
struct Choice {
    slot: u16,
    choices: Choices,
    /// First leaf of each option.
    starts: Vec<u32>,
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
        match bytes.get(from..from + 8).and_then(|bytes| bytes.first_chunk::<8>()) {
            Some(word) => u64::from_le_bytes(*word),
            None => last_word(bytes, from),
        }
    }

    /// The sign's bit, taken off twice, is repeated above it; 0 where there is no sign.
    #[inline(always)]
    fn extended(&self, word: u64) -> u64 {
        ((word & self.mask) ^ self.sign).wrapping_sub(self.sign)
    }

    /// The bytes from the leaf on.
    #[inline(always)]
    fn onward<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.byte as usize..).unwrap_or_default()
    }
}

/// The eight bytes at the end of a packet, where there may be fewer.
#[cold]
#[inline(never)]
fn last_word(bytes: &[u8], from: usize) -> u64 {
    read_le(bytes, from as u64 * 8, 64)
}

/// Text up to its first NUL.
#[inline]
pub(super) fn text<'a>(leaf: &Leaf, bytes: &'a [u8]) -> &'a [u8] {
    let from = leaf.byte as usize;
    until_nul(bytes.get(from..from + leaf.more as usize).unwrap_or_default())
}

#[inline]
fn until_nul(text: &[u8]) -> &[u8] {
    text.get(..nul_byte_at(text).unwrap_or(text.len())).unwrap_or_default()
}

#[inline(always)]
fn say<V: FieldVisitor>(leaf: &Leaf, node: &Node, value: u64, visitor: &mut V) {
    if leaf.sign != 0 {
        visitor.signed(node, value.cast_signed());
    } else {
        visitor.unsigned(node, value);
    }
}

/// A scope as leaves; see the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whole {
    /// Mask of its alignment.
    low: u64,
    /// Without the root's brackets.
    leaves: Vec<Leaf>,
    /// Number of leaves whose base is the start of the scope.
    fixed: usize,
    arrays: Vec<ArrayLeaf>,
    choices: Vec<Choice>,
}

impl Whole {
    /// The leaves of a scope; `None` when it has parts that have to be walked.
    pub(super) fn of(program: &Program) -> Option<Self> {
        let first = program.steps.first()?;
        let low = (1u64 << first.align_log2) - 1;
        if first.code != Code::Struct || low < 7 || !first.visible || program.mixes_orders {
            return None;
        }
        let whole = Self { low, ..Self::default() };
        let mut list = List { program, whole, at: 0, align: low + 1, moved: false, kept: Vec::new() };
        // The last step is the root's end.
        list.add(1, program.steps.len().checked_sub(1)?)?;
        list.end_fixed();
        list.whole.leaves.shrink_to_fit();
        Some(list.whole)
    }

    /// The bytes that the leaves of a scope look at that starts at a bit of the packet.
    #[inline(always)]
    pub(super) fn bytes<'a>(&self, data: &'a [u8], start: u64) -> Option<&'a [u8]> {
        data.get((((start + self.low) & !self.low) / 8) as usize..)
    }

    /// The leaf of a field whose place does not depend on data; `None` for the root and for
    /// structures.
    pub(super) fn leaf(&self, node: usize) -> Option<Leaf> {
        let bracket = |leaf: &&Leaf| matches!(leaf.kind, Kind::Begin | Kind::End);
        let fixed = self.leaves.get(..self.fixed)?;
        fixed.iter().filter(|leaf| !bracket(leaf)).find(|leaf| leaf.node as usize == node).copied()
    }

    /// Reports the scope of a record that was found, `start` bits into the packet.
    #[inline]
    pub(super) fn visit<V: FieldVisitor>(
        &self,
        nodes: &[Node],
        (data, start): (&[u8], u64),
        slots: &[Cell<u64>],
        visitor: &mut V,
    ) {
        let mut bytes = self.bytes(data, start).unwrap_or_default();
        let Some(root) = nodes.first() else { return };
        visitor.begin_struct(root);
        let mut leaves = self.leaves.iter();
        while let Some(leaf) = leaves.next() {
            let Some(node) = nodes.get(leaf.node as usize) else { continue };
            // Most leaves are numbers, and most of these of the simplest kind.
            match leaf.kind {
                Kind::Number => say(leaf, node, leaf.extended(leaf.word(bytes)), visitor),
                Kind::Text => visitor.text(node, text(leaf, bytes)),
                Kind::Odd => say(leaf, node, leaf.number(bytes), visitor),
                Kind::Begin => visitor.begin_struct(node),
                Kind::End => visitor.end_struct(node),
                Kind::Kept => {
                    let value = leaf.number(bytes);
                    if let Some(slot) = slots.get(leaf.more as usize) {
                        slot.set(value);
                    }
                    say(leaf, node, value, visitor);
                }
                Kind::Line => {
                    let rest = leaf.onward(bytes);
                    let text = until_nul(rest);
                    visitor.text(node, text);
                    bytes = rest.get(text.len() + 1..).unwrap_or_default();
                }
                // Both go on at a later leaf, so this ends.
                Kind::Choose => {
                    let Some((option, start)) = self.choose(leaf.more, slots) else { return };
                    visitor.begin_variant(node, option);
                    leaves = self.leaves.get(start as usize..).unwrap_or_default().iter();
                }
                Kind::Close => {
                    visitor.end_variant(node);
                    bytes = leaf.onward(bytes);
                    leaves = self.leaves.get(leaf.more as usize..).unwrap_or_default().iter();
                }
                _ => bytes = self.report_other((leaf, node), nodes, (data, bytes), slots, visitor),
            }
        }
        visitor.end_struct(root);
    }

    /// The option that a variant's selector chooses, and its first leaf.
    #[inline]
    fn choose(&self, number: u32, slots: &[Cell<u64>]) -> Option<(usize, u32)> {
        let choice = self.choices.get(number as usize)?;
        let (option, _) = choice.choices.select(slots.get(usize::from(choice.slot))?.get())?;
        Some((option, *choice.starts.get(option)?))
    }

    /// Reports a rare leaf; gives the bytes from the base on that comes after it.
    #[inline(never)]
    fn report_other<'a, V: FieldVisitor>(
        &self,
        (leaf, node): (&Leaf, &Node),
        nodes: &[Node],
        (data, bytes): (&'a [u8], &'a [u8]),
        slots: &[Cell<u64>],
        visitor: &mut V,
    ) -> &'a [u8] {
        let kept = |slot: usize| slots.get(slot).map_or(0, Cell::get);
        match leaf.kind {
            Kind::Real => {
                let at = u64::from(leaf.byte) * 8;
                visitor.real(node, super::real::read(bytes, at, leaf.more, leaf.big, false));
                bytes
            }
            Kind::Array => {
                let Some(array) = self.arrays.get(leaf.more as usize) else { return bytes };
                let rest = leaf.onward(bytes);
                let at = (data.len() - rest.len()) as u64 * 8;
                let dynamic = array.from != NO_SLOT;
                let len = if dynamic { kept(usize::from(array.from)) } else { array.len };
                let scalars = Scalars::new(data, at, array.stride, len, array.element);
                visit_scalars(node, nodes.get(array.element.node as usize), scalars, visitor);
                if !dynamic {
                    return bytes;
                }
                let padding = array.stride - u64::from(array.element.size);
                let bits = len.saturating_mul(array.stride).saturating_sub(padding);
                rest.get((bits / 8) as usize..).unwrap_or_default()
            }
            _ => {
                let rest = leaf.onward(bytes);
                let len = usize::try_from(kept(leaf.more as usize)).unwrap_or(usize::MAX);
                let (value, after) = rest.split_at_checked(len).unwrap_or_default();
                if leaf.kind == Kind::Blob {
                    visitor.blob(node, value);
                } else {
                    visitor.text(node, until_nul(value));
                }
                after
            }
        }
    }
}

/// A list in the making.
struct List<'a> {
    program: &'a Program,
    whole: Whole,
    /// Bits from the base.
    at: u64,
    /// What the base is aligned to, in bits.
    align: u64,
    /// Whether places depend on data already.
    moved: bool,
    /// Slots that have a value by now.
    kept: Vec<u16>,
}

impl List<'_> {
    /// Adds the steps `from` to `to`; `None` if there is one that has to be walked.
    fn add(&mut self, from: usize, to: usize) -> Option<()> {
        let mut index = from;
        while index < to {
            let step = self.program.steps.get(index)?;
            let align = 1u64 << step.align_log2;
            self.at = self.at.next_multiple_of(align);
            if align > self.align {
                return None;
            }
            match step.code {
                Code::Fixed => self.at = self.at.checked_add(step.len)?,
                _ if !step.visible => return None,
                Code::Array => self.array(index, step)?,
                Code::Variant => self.variant(step)?,
                Code::Text | Code::SizedText | Code::Blob => self.bytes(step)?,
                _ => {
                    let (leaf, bits) = leaf_of(step, self.at)?;
                    if leaf.kind == Kind::Kept {
                        self.kept.push(step.save);
                    }
                    self.whole.leaves.push(leaf);
                    self.at += bits;
                }
            }
            // What is inside of a structure follows it; its brackets are leaves of their own.
            index = if step.code == Code::Struct { index + 1 } else { step.next as usize };
            if self.at > OFFSET_BITS_MAX {
                return None;
            }
        }
        Some(())
    }

    /// The places of the leaves from here on depend on data.
    fn end_fixed(&mut self) {
        if !std::mem::replace(&mut self.moved, true) {
            self.whole.fixed = self.whole.leaves.len();
        }
    }

    /// The base is where the last leaf ends.
    fn move_base(&mut self) {
        self.end_fixed();
        (self.at, self.align) = (0, 8);
    }

    /// Where the next leaf is, if on a byte.
    fn byte(&self) -> Option<u32> {
        self.at.is_multiple_of(8).then_some((self.at / 8) as u32)
    }

    /// Adds text or bytes.
    fn bytes(&mut self, step: &Step) -> Option<()> {
        let plain = blank(step, self.byte()?);
        let (kind, more) = match step.code {
            _ if step.encoding != StringEncoding::Utf8 => return None,
            Code::Text => (Kind::Line, 0),
            Code::SizedText if step.from == NO_SLOT => {
                let more = u32::try_from(step.len).ok()?;
                self.at = step.len.checked_mul(8)?.checked_add(self.at)?;
                self.whole.leaves.push(Leaf { kind: Kind::Text, more, ..plain });
                return Some(());
            }
            _ if !self.kept.contains(&step.from) => return None,
            Code::SizedText => (Kind::SizedText, u32::from(step.from)),
            _ => (Kind::Blob, u32::from(step.from)),
        };
        self.whole.leaves.push(Leaf { kind, more, ..plain });
        self.move_base();
        Some(())
    }

    /// Adds an array of scalars on whole bytes.
    fn array(&mut self, index: usize, step: &Step) -> Option<()> {
        let element = self.program.steps.get(index + 1)?;
        let alone = step.next as usize == index + 2;
        let stride = element.scalar_stride(self.program.mixes_orders)?;
        let aligned = element.align_log2 <= step.align_log2.max(3) && 1 << element.align_log2 <= self.align;
        if !alone || !element.visible || !aligned || stride == 0 {
            return None;
        }
        let more = self.whole.arrays.len() as u32;
        let leaf = Leaf { kind: Kind::Array, more, ..blank(step, self.byte()?) };
        let (len, from) = (step.len, step.from);
        self.whole.arrays.push(ArrayLeaf { element: *element, stride, len, from });
        self.whole.leaves.push(leaf);
        if from != NO_SLOT {
            let whole_bytes = stride.is_multiple_of(8) && element.size.is_multiple_of(8);
            if !whole_bytes || !self.kept.contains(&from) {
                return None;
            }
            self.move_base();
        } else if len > 0 {
            let bits = stride.checked_mul(len)? - (stride - u64::from(element.size));
            self.at = self.at.checked_add(bits)?;
        }
        Some(())
    }

    /// Adds a variant, its options one after the other. Each starts where the variant does, and the
    /// base is where it ended.
    fn variant(&mut self, step: &Step) -> Option<()> {
        let choices = self.program.choices.get(step.len as usize)?;
        if !self.kept.contains(&step.from) {
            return None;
        }
        self.end_fixed();
        let number = self.whole.choices.len();
        let plain = blank(step, 0);
        self.whole.leaves.push(Leaf { kind: Kind::Choose, more: number as u32, ..plain });
        let mut choice = Choice { slot: step.from, choices: choices.clone(), starts: Vec::new() };
        self.whole.choices.push(choice.clone());
        let before = (self.at, self.align, self.kept.clone());
        let mut closes = Vec::new();
        for option in &choices.options {
            (self.at, self.align) = (before.0, before.1);
            self.kept.clone_from(&before.2);
            choice.starts.push(self.whole.leaves.len() as u32);
            self.add(option.steps.0 as usize, option.steps.1 as usize)?;
            closes.push(self.whole.leaves.len());
            self.whole.leaves.push(Leaf { kind: Kind::Close, byte: self.byte()?, ..plain });
            self.move_base();
        }
        let after = self.whole.leaves.len() as u32;
        for close in closes {
            self.whole.leaves[close].more = after;
        }
        self.whole.choices[number] = choice;
        self.kept = before.2;
        self.move_base();
        Some(())
    }
}

/// What is the same of all leaves at a byte.
fn blank(step: &Step, byte: u32) -> Leaf {
    Leaf { mask: 0, sign: 0, node: step.node, byte, more: 0, kind: Kind::Begin, shift: 0, big: step.big }
}

/// The leaf of a step of fixed size, some bits from the base, and its size; `None` when there is none.
fn leaf_of(step: &Step, at: u64) -> Option<(Leaf, u64)> {
    let (byte, bit) = ((at / 8) as u32, (at % 8) as u32);
    let size = u32::from(step.size);
    let plain = blank(step, byte);
    match step.code {
        Code::Struct => Some((plain, 0)),
        Code::EndStruct => Some((Leaf { kind: Kind::End, ..plain }, 0)),
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
            Some((leaf, u64::from(size)))
        }
        Code::Real if matches!(size, 32 | 64) && bit == 0 && !step.reversed => {
            Some((Leaf { kind: Kind::Real, more: size, ..plain }, u64::from(size)))
        }
        _ => None,
    }
}
