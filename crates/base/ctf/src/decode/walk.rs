//! Running a decode program over bytes, telling a visitor what is there.
//!
//! Every read is checked against the end of the content, every length against the bytes that are
//! left, and elements without bits are counted, so a walk over any bytes ends. Recursion is as deep
//! as the field class tree, which the metadata readers limit.

use std::cell::Cell;
use std::ffi::CStr;

use super::bits::{mask, read_be, read_le, sign_extend};
use super::plan::{Code, NO_SLOT, Node, Plan, Program, Step};
use super::text::transcode;
use crate::error::Fault;
use crate::limits::EMPTY_ELEMENTS_MAX;
use crate::model::StringEncoding;

/// Receives the fields of a scope in declaration order.
///
/// Compounds are bracketed by `begin_` and `end_`. Fields that readers do not show (see
/// [`FieldClass::visible`](crate::model::FieldClass::visible)) are left out. All methods do nothing
/// by default.
#[allow(unused_variables)]
pub trait FieldVisitor {
    /// An unsigned integer or enumeration.
    fn unsigned(&mut self, node: &Node, value: u64) {}
    /// A signed integer or enumeration.
    fn signed(&mut self, node: &Node, value: i64) {}
    /// An unsigned LEB128 integer and the bits that its bytes hold; [`unsigned`](Self::unsigned)
    /// by default.
    #[inline]
    fn unsigned_leb128(&mut self, node: &Node, value: u64, size_bits: u32) {
        self.unsigned(node, value);
    }
    /// A signed LEB128 integer and the bits that its bytes hold; [`signed`](Self::signed) by
    /// default.
    #[inline]
    fn signed_leb128(&mut self, node: &Node, value: i64, size_bits: u32) {
        self.signed(node, value);
    }
    /// A boolean.
    fn boolean(&mut self, node: &Node, value: bool) {}
    /// A bit array or bit map; bit 0 is the least significant.
    fn bits(&mut self, node: &Node, value: u64) {}
    /// A real number.
    fn real(&mut self, node: &Node, value: f64) {}
    /// Text up to its first NUL, in UTF-8 (not validated: a tracer may write any bytes).
    fn text(&mut self, node: &Node, value: &[u8]) {}
    /// Bytes.
    fn blob(&mut self, node: &Node, value: &[u8]) {}
    /// The members of a structure follow.
    fn begin_struct(&mut self, node: &Node) {}
    /// End of a structure.
    fn end_struct(&mut self, node: &Node) {}
    /// `length` elements follow.
    fn begin_array(&mut self, node: &Node, length: u64) {}
    /// End of an array.
    fn end_array(&mut self, node: &Node) {}
    /// The content follows, if present.
    fn begin_optional(&mut self, node: &Node, present: bool) {}
    /// End of an optional field.
    fn end_optional(&mut self, node: &Node) {}
    /// The field of the option of this index follows.
    fn begin_variant(&mut self, node: &Node, option: usize) {}
    /// End of a variant.
    fn end_variant(&mut self, node: &Node) {}
    /// An array of integers, bits, booleans or reals of fixed length, offered as a whole before its
    /// elements: return true to take it, false to get `begin_array`, the elements and `end_array`.
    #[inline]
    fn scalars(&mut self, node: &Node, array: Scalars<'_>) -> bool {
        false
    }
}

/// Passes over everything.
pub(crate) struct Ignore;

impl FieldVisitor for Ignore {
    #[inline]
    fn scalars(&mut self, _: &Node, _: Scalars<'_>) -> bool {
        true
    }
}

/// An array of fixed-length scalars, not yet decoded.
#[derive(Debug, Clone, Copy)]
pub struct Scalars<'a> {
    data: &'a [u8],
    pub(crate) at: u64,
    pub(crate) stride: u64,
    len: u64,
    pub(crate) step: Step,
}

/// A decoded scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// Unsigned integer.
    Unsigned(u64),
    /// Signed integer.
    Signed(i64),
    /// Boolean.
    Bool(bool),
    /// Bit array.
    Bits(u64),
    /// Real number.
    Real(f64),
}

impl<'a> Scalars<'a> {
    /// Elements that lie inside the data, which the caller has checked.
    #[inline]
    pub(super) fn new(data: &'a [u8], at: u64, stride: u64, len: u64, step: Step) -> Self {
        Self { data, at, stride, len, step }
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element at `index`, if there is one.
    #[inline]
    pub fn get(&self, index: u64) -> Option<Scalar> {
        (index < self.len).then(|| scalar(self.data, self.at + index * self.stride, &self.step))
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Scalar> + use<'a> {
        let all = *self;
        let integers = matches!(all.step.code, Code::Unsigned | Code::Signed);
        // Nearly all arrays of tracers are of bytes.
        let bytes = self.as_bytes().filter(|_| integers).unwrap_or_default();
        (0..all.len).map(move |i| match bytes.get(i as usize) {
            Some(byte) if all.step.code == Code::Signed => Scalar::Signed(i64::from(byte.cast_signed())),
            Some(byte) => Scalar::Unsigned(u64::from(*byte)),
            None => scalar(all.data, all.at + i * all.stride, &all.step),
        })
    }

    /// The bytes themselves, if the elements are whole aligned bytes.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if self.stride != 8 || self.step.size != 8 || !self.at.is_multiple_of(8) || self.step.reversed {
            return None;
        }
        let from = (self.at / 8) as usize;
        self.data.get(from..from.checked_add(self.len as usize)?)
    }
}

/// What is known where a walk stopped.
pub(crate) struct Stop {
    pub at_bits: u64,
    pub node: u32,
    pub fault: Fault,
}

/// Boxed, so that results of the walk stay in registers.
type Halt = Box<Stop>;

/// What a walk reads: a packet's bytes, the end of its content in bits (never beyond the bytes),
/// and the values that lengths and selectors come from.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub data: &'a [u8],
    pub end: u64,
    pub slots: &'a [Cell<u64>],
}

impl<'a> Input<'a> {
    /// The whole bytes of the content.
    #[inline]
    fn content(&self) -> &'a [u8] {
        self.data.get(..(self.end / 8) as usize).unwrap_or(self.data)
    }
}

/// A walk over one scope.
struct Walker<'a, V> {
    nodes: &'a [Node],
    program: &'a Program,
    input: Input<'a>,
    at: u64,
    visitor: &'a mut V,
    /// Byte order of the last fixed-length field.
    last_big: Option<bool>,
    idle: u64,
    all: bool,
}

/// Walks a whole scope from `at`; gives the bit after it.
#[inline]
pub(crate) fn walk<V: FieldVisitor>(
    plan: &Plan,
    input: Input<'_>,
    at: u64,
    visitor: &mut V,
) -> Result<u64, Halt> {
    start(plan, plan.shown.as_ref().unwrap_or(&plan.full), input, at, visitor, false)
}

/// As [`walk`], with the fields that readers do not show.
#[inline]
pub(crate) fn walk_all<V: FieldVisitor>(
    plan: &Plan,
    input: Input<'_>,
    at: u64,
    visitor: &mut V,
) -> Result<u64, Halt> {
    start(plan, &plan.full, input, at, visitor, true)
}

/// Finds the bit after a scope.
#[inline]
pub(crate) fn pass_over(plan: &Plan, input: Input<'_>, at: u64) -> Result<u64, Halt> {
    // The short list does not know in which field it stopped.
    let end = start(plan, plan.shortest(), input, at, &mut Ignore, false);
    end.or_else(|_| start(plan, &plan.full, input, at, &mut Ignore, true))
}

#[inline]
fn start<V: FieldVisitor>(
    plan: &Plan,
    program: &Program,
    input: Input<'_>,
    at: u64,
    visitor: &mut V,
    all: bool,
) -> Result<u64, Halt> {
    let mut walker = Walker { nodes: &plan.nodes, program, input, at, visitor, last_big: None, idle: 0, all };
    walker.run(0, program.steps.len())?;
    Ok(walker.at)
}

impl<'a, V: FieldVisitor> Walker<'a, V> {
    /// Runs steps. The position is kept in a local here, and in `self` only while others need it:
    /// it is what every step waits for.
    fn run(&mut self, from: usize, to: usize) -> Result<(), Halt> {
        let steps = self.program.steps.get(from..to).unwrap_or_default();
        let content = self.input.content();
        let mut at = self.at;
        let mut index = 0;
        while let Some(step) = steps.get(index) {
            let low = (1u64 << step.align_log2) - 1;
            if at & low != 0 {
                self.at = at;
                self.pad(step, low)?;
                at = self.at;
            }
            index += 1;
            match step.code {
                Code::Unsigned | Code::Signed => {
                    let raw = match word(content, at, step) {
                        Some(raw) => {
                            at += u64::from(step.size);
                            raw
                        }
                        None => {
                            self.at = at;
                            let raw = self.raw(step)?;
                            at = self.at;
                            raw
                        }
                    };
                    if step.code == Code::Unsigned {
                        self.save(step, raw);
                        if let Some(node) = self.shown(step) {
                            self.visitor.unsigned(node, raw);
                        }
                    } else {
                        let value = sign_extend(raw, u32::from(step.size));
                        self.save(step, value.cast_unsigned());
                        if let Some(node) = self.shown(step) {
                            self.visitor.signed(node, value);
                        }
                    }
                }
                Code::EndStruct => self.bracket(step, V::end_struct),
                Code::Struct => self.bracket(step, V::begin_struct),
                _ => {
                    self.at = at;
                    self.other(from + index - 1, step)?;
                    at = self.at;
                    index = (step.next as usize).saturating_sub(from);
                }
            }
        }
        self.at = at;
        Ok(())
    }

    /// The steps that are not single integers.
    #[inline]
    fn other(&mut self, index: usize, step: &Step) -> Result<(), Halt> {
        match step.code {
            Code::Text => {
                let bytes = self.until_nul(step)?;
                self.text(step, bytes);
                Ok(())
            }
            Code::SizedText => self.sized_text(step),
            Code::Fixed => self.take(step, step.len).map(|_| ()),
            _ => self.rare(index, step),
        }
    }

    /// The steps that take longer anyway.
    #[inline(never)]
    fn rare(&mut self, index: usize, step: &Step) -> Result<(), Halt> {
        match step.code {
            Code::Bool => {
                let value = self.raw(step)? != 0;
                self.save(step, u64::from(value));
                if let Some(node) = self.shown(step) {
                    self.visitor.boolean(node, value);
                }
            }
            Code::Bits => {
                let raw = self.raw(step)?;
                if let Some(node) = self.shown(step) {
                    self.visitor.bits(node, raw);
                }
            }
            Code::Real => {
                self.check_order(step)?;
                let at = self.take(step, u64::from(step.size))?;
                let size = u32::from(step.size);
                let value = super::real::read(self.input.data, at, size, step.big, step.reversed);
                if let Some(node) = self.shown(step) {
                    self.visitor.real(node, value);
                }
            }
            Code::LebUnsigned | Code::LebSigned => self.leb(step)?,
            Code::Blob => {
                let bytes = self.sized(step)?;
                if let Some(node) = self.shown(step) {
                    self.visitor.blob(node, bytes);
                }
            }
            Code::Array => self.array(index, step)?,
            Code::Optional => self.optional(step)?,
            _ => self.variant(step)?,
        }
        Ok(())
    }

    /// Text in a known number of bytes, of which those from a NUL on are not text.
    #[inline]
    fn sized_text(&mut self, step: &Step) -> Result<(), Halt> {
        let bytes = self.sized(step)?;
        if step.encoding != StringEncoding::Utf8
            && !bytes.len().is_multiple_of(step.encoding.unit_size_bytes())
        {
            return Err(self.halt(step, Fault::PartialCodeUnit(bytes.len() as u64)));
        }
        if self.shown(step).is_some() {
            let bytes = &bytes[..nul_at(bytes, step.encoding).unwrap_or(bytes.len())];
            self.text(step, bytes);
        }
        Ok(())
    }

    #[cold]
    fn halt(&self, step: &Step, fault: Fault) -> Halt {
        Box::new(Stop { at_bits: self.at, node: step.node, fault })
    }

    #[cold]
    fn truncated(&self, step: &Step, needed_bits: u64) -> Halt {
        let left_bits = self.input.end.saturating_sub(self.at);
        self.halt(step, Fault::Truncated { needed_bits, left_bits })
    }

    #[cold]
    fn pad(&mut self, step: &Step, low: u64) -> Result<(), Halt> {
        let at = (self.at | low).saturating_add(1);
        if at > self.input.end {
            return Err(self.truncated(step, at - self.at));
        }
        self.at = at;
        Ok(())
    }

    /// Passes over `bits`; gives where they start.
    #[inline]
    fn take(&mut self, step: &Step, bits: u64) -> Result<u64, Halt> {
        let left = self.input.end.saturating_sub(self.at);
        if bits > left {
            return Err(self.truncated(step, bits));
        }
        let at = self.at;
        self.at += bits;
        Ok(at)
    }

    /// The bits of a fixed-length field.
    #[inline(never)]
    fn raw(&mut self, step: &Step) -> Result<u64, Halt> {
        if self.program.mixes_orders {
            self.check_order(step)?;
        }
        let at = self.take(step, u64::from(step.size))?;
        Ok(raw_bits(self.input.data, at, u32::from(step.size), step.big, step.reversed))
    }

    fn check_order(&mut self, step: &Step) -> Result<(), Halt> {
        if !self.at.is_multiple_of(8)
            && let Some(first_big) = self.last_big
            && first_big != step.big
        {
            return Err(self.halt(step, Fault::MixedByteOrder { first_big }));
        }
        self.last_big = Some(step.big);
        Ok(())
    }

    #[inline]
    fn save(&self, step: &Step, raw: u64) {
        if step.save != NO_SLOT
            && let Some(slot) = self.input.slots.get(usize::from(step.save))
        {
            slot.set(raw);
        }
    }

    fn slot(&self, step: &Step) -> Result<u64, Halt> {
        match self.input.slots.get(usize::from(step.from)) {
            Some(slot) => Ok(slot.get()),
            None => Err(self.halt(step, Fault::NoSelector)),
        }
    }

    /// The node of the step, if the visitor is to hear of it.
    #[inline]
    fn shown(&self, step: &Step) -> Option<&'a Node> {
        if step.visible || self.all { self.nodes.get(step.node as usize) } else { None }
    }

    #[inline]
    fn text(&mut self, step: &Step, bytes: &[u8]) {
        let Some(node) = self.shown(step) else {
            return;
        };
        if step.encoding == StringEncoding::Utf8 {
            self.visitor.text(node, bytes);
        } else {
            let text = transcode(bytes, step.encoding);
            self.visitor.text(node, text.as_bytes());
        }
    }

    #[inline]
    fn bracket(&mut self, step: &Step, call: fn(&mut V, &Node)) {
        if let Some(node) = self.shown(step) {
            call(self.visitor, node);
        }
    }

    /// Bytes of a sized string or blob.
    #[inline]
    fn sized(&mut self, step: &Step) -> Result<&'a [u8], Halt> {
        let len = self.length(step)?;
        let Some(bits) = len.checked_mul(8) else {
            return Err(self.halt(step, Fault::TooFar));
        };
        let from = (self.take(step, bits)? / 8) as usize;
        match self.input.data.get(from..from + len as usize) {
            Some(bytes) => Ok(bytes),
            None => Err(self.halt(step, Fault::TooFar)),
        }
    }

    #[inline]
    fn length(&self, step: &Step) -> Result<u64, Halt> {
        if step.from == NO_SLOT { Ok(step.len) } else { self.slot(step) }
    }

    /// Bytes up to a NUL code unit, which is passed over.
    #[inline]
    fn until_nul(&mut self, step: &Step) -> Result<&'a [u8], Halt> {
        let from = (self.at / 8) as usize;
        let to = (self.input.end / 8) as usize;
        let rest = self.input.data.get(from..to).unwrap_or_default();
        let Some(len) = nul_at(rest, step.encoding) else {
            return Err(self.halt(step, Fault::UnterminatedText));
        };
        self.at += (len + step.encoding.unit_size_bytes()) as u64 * 8;
        Ok(&rest[..len])
    }

    fn leb(&mut self, step: &Step) -> Result<(), Halt> {
        let mut value = 0u64;
        let mut bits = 0u32;
        loop {
            let at = self.take(step, 8)?;
            let byte = self.input.data.get((at / 8) as usize).copied().unwrap_or(0);
            let low = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, which then must be needed; of a signed number
            // the rest repeats the sign.
            if bits == 63 {
                let fits = if step.code == Code::LebSigned { low == 0 || low == 0x7f } else { low == 1 };
                if !fits || byte & 0x80 != 0 {
                    return Err(self.halt(step, Fault::OversizedVarInt));
                }
            }
            value |= low << bits;
            bits += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if step.code == Code::LebSigned {
            let value = sign_extend(value, bits.min(64));
            self.save(step, value.cast_unsigned());
            if let Some(node) = self.shown(step) {
                self.visitor.signed_leb128(node, value, bits);
            }
        } else {
            self.save(step, value);
            if let Some(node) = self.shown(step) {
                self.visitor.unsigned_leb128(node, value, bits);
            }
        }
        Ok(())
    }

    fn array(&mut self, index: usize, step: &Step) -> Result<(), Halt> {
        let len = self.length(step)?;
        let inside = (index + 1, step.next as usize);
        if let Some(element) = self.program.steps.get(inside.0)
            && let Some(array) = self.as_scalars(element, inside, len)?
        {
            if let Some(node) = self.shown(step) {
                visit_scalars(node, self.shown(element), array, self.visitor);
            }
            if array.len > 0 {
                self.take(step, array.stride * (array.len - 1) + u64::from(element.size))?;
            }
            return Ok(());
        }
        if let Some(node) = self.shown(step) {
            self.visitor.begin_array(node, len);
        }
        for _ in 0..len {
            let before = self.at;
            self.run(inside.0, inside.1)?;
            if self.at == before {
                self.idle += 1;
                if self.idle > EMPTY_ELEMENTS_MAX {
                    return Err(self.halt(step, Fault::TooManyEmptyElements(len)));
                }
            }
        }
        self.bracket(step, V::end_array);
        Ok(())
    }

    /// The array as scalars, if its elements are; checks that all of them are there.
    fn as_scalars(
        &self,
        element: &Step,
        inside: (usize, usize),
        len: u64,
    ) -> Result<Option<Scalars<'a>>, Halt> {
        let alone = inside.1 == inside.0 + 1;
        let Some(stride) = element.scalar_stride(self.program.mixes_orders).filter(|_| alone) else {
            return Ok(None);
        };
        if !self.at.is_multiple_of(1 << element.align_log2) {
            return Ok(None);
        }
        // Of the last element the padding after it is not needed.
        let last = if len == 0 { 0 } else { u64::from(element.size) };
        let needed = len.saturating_sub(1).checked_mul(stride).and_then(|bits| bits.checked_add(last));
        match needed {
            Some(needed) if needed <= self.input.end.saturating_sub(self.at) => {}
            needed => return Err(self.truncated(element, needed.unwrap_or(u64::MAX))),
        }
        Ok(Some(Scalars { data: self.input.data, at: self.at, stride, len, step: *element }))
    }

    fn optional(&mut self, step: &Step) -> Result<(), Halt> {
        let raw = self.slot(step)?;
        let program = self.program;
        let Some(choices) = program.choices.get(step.len as usize) else {
            return Ok(());
        };
        let content = choices.options.first();
        let present = if step.size == 1 { raw != 0 } else { choices.select(raw).is_some() };
        if let Some(node) = self.shown(step) {
            self.visitor.begin_optional(node, present);
        }
        if let Some(content) = content.filter(|_| present) {
            self.run(content.steps.0 as usize, content.steps.1 as usize)?;
        }
        self.bracket(step, V::end_optional);
        Ok(())
    }

    fn variant(&mut self, step: &Step) -> Result<(), Halt> {
        let raw = self.slot(step)?;
        let program = self.program;
        let Some(choices) = program.choices.get(step.len as usize) else {
            return Ok(());
        };
        let Some((option, choice)) = choices.select(raw) else {
            return Err(self.halt(step, Fault::NoOption(choices.value(raw))));
        };
        if let Some(node) = self.shown(step) {
            self.visitor.begin_variant(node, option);
        }
        self.run(choice.steps.0 as usize, choice.steps.1 as usize)?;
        self.bracket(step, V::end_variant);
        Ok(())
    }
}

/// Tells a visitor an array of scalars: as a whole, or its elements one by one.
pub(super) fn visit_scalars<V: FieldVisitor>(
    node: &Node,
    element: Option<&Node>,
    array: Scalars<'_>,
    visitor: &mut V,
) {
    if visitor.scalars(node, array) {
        return;
    }
    visitor.begin_array(node, array.len);
    for (value, node) in array.iter().zip(element.into_iter().cycle()) {
        match value {
            Scalar::Unsigned(value) => visitor.unsigned(node, value),
            Scalar::Signed(value) => visitor.signed(node, value),
            Scalar::Bool(value) => visitor.boolean(node, value),
            Scalar::Bits(value) => visitor.bits(node, value),
            Scalar::Real(value) => visitor.real(node, value),
        }
    }
    visitor.end_array(node);
}

/// The bits of a field that lies in the eight bytes at its place, which are in the content.
/// `len` of such a step is the mask of its bits, 0 of any other.
#[inline(always)]
pub(super) fn word(content: &[u8], at: u64, step: &Step) -> Option<u64> {
    if step.len == 0 {
        return None;
    }
    let word = *content.get((at >> 3) as usize..)?.first_chunk::<8>()?;
    let shift = (at & 7) as u32;
    let word = if step.big {
        (u64::from_be_bytes(word) << shift) >> (64 - u32::from(step.size))
    } else {
        u64::from_le_bytes(word) >> shift
    };
    Some(word & step.len)
}

/// Decodes a fixed-length scalar; the caller has checked that it is inside the data.
#[inline]
pub(crate) fn scalar(data: &[u8], at: u64, step: &Step) -> Scalar {
    let size = u32::from(step.size);
    if step.code == Code::Real {
        return Scalar::Real(super::real::read(data, at, size, step.big, step.reversed));
    }
    let raw = raw_bits(data, at, size, step.big, step.reversed);
    match step.code {
        Code::Signed => Scalar::Signed(sign_extend(raw, size)),
        Code::Bool => Scalar::Bool(raw != 0),
        Code::Bits => Scalar::Bits(raw),
        _ => Scalar::Unsigned(raw),
    }
}

#[inline]
pub(crate) fn raw_bits(data: &[u8], at: u64, size: u32, big: bool, reversed: bool) -> u64 {
    let raw = if big { read_be(data, at, size) } else { read_le(data, at, size) };
    if reversed { raw.reverse_bits() >> (64 - size.clamp(1, 64)) & mask(size) } else { raw }
}

/// Position of the first NUL code unit.
#[inline]
fn nul_at(bytes: &[u8], encoding: StringEncoding) -> Option<usize> {
    match encoding.unit_size_bytes() {
        1 => nul_byte_at(bytes),
        unit => bytes
            .chunks_exact(unit)
            .position(|chunk| chunk.iter().all(|byte| *byte == 0))
            .map(|index| index * unit),
    }
}

/// Position of the first NUL: of short texts, which most are, eight bytes at a time; the rest is
/// left to the library, which is fast on long ones.
#[inline]
pub(super) fn nul_byte_at(bytes: &[u8]) -> Option<usize> {
    const LOW: u128 = u128::from_ne_bytes([0x01; 16]);
    const HIGH: u128 = u128::from_ne_bytes([0x80; 16]);
    let mut at = 0;
    // The names of tasks and of many other things have sixteen.
    if let Some(words) = bytes.first_chunk::<16>() {
        let words = u128::from_le_bytes(*words);
        let nul = words.wrapping_sub(LOW) & !words & HIGH;
        if nul != 0 {
            return Some((nul.trailing_zeros() / 8) as usize);
        }
        at = 16;
    }
    while at < SHORT_TEXT_BYTES
        && let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>())
    {
        // The lowest set bit is that of the first byte that is 0; above it there may be others.
        let word = u64::from_le_bytes(*word);
        let nul = word.wrapping_sub(LOW as u64) & !word & HIGH as u64;
        if nul != 0 {
            return Some(at + (nul.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    if rest.len() < 8 {
        return rest.iter().position(|byte| *byte == 0).map(|index| at + index);
    }
    CStr::from_bytes_until_nul(rest).ok().map(|text| at + text.count_bytes())
}

/// Bytes that are looked through for a NUL before the library is asked.
const SHORT_TEXT_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_nul_wherever_it_is() {
        for length in 0..200 {
            for at in 0..length {
                let mut bytes = vec![b'x'; length];
                bytes[at] = 0;
                if at + 1 < length {
                    bytes[length - 1] = 0;
                }
                assert_eq!(nul_byte_at(&bytes), Some(at));
            }
            assert_eq!(nul_byte_at(&vec![0x81; length]), None);
        }
    }
}
