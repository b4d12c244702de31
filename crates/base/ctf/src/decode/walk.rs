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
        (0..all.len).map(move |i| scalar(all.data, all.at + i * all.stride, &all.step))
    }

    /// The bytes themselves, if the elements are whole aligned bytes.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if self.stride != 8 || self.step.size != 8 || self.at % 8 != 0 || self.step.reversed {
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

/// A walk over one scope.
pub(crate) struct Walker<'a, V> {
    pub nodes: &'a [Node],
    pub program: &'a Program,
    pub data: &'a [u8],
    /// End of the content, in bits; never beyond the data.
    pub end: u64,
    pub at: u64,
    pub slots: &'a [Cell<u64>],
    pub visitor: &'a mut V,
    /// Byte order of the last fixed-length field.
    last_big: Option<bool>,
    idle: u64,
    hidden: bool,
}

/// Walks a whole scope from `at`; gives the bit after it.
#[inline]
pub(crate) fn walk<V: FieldVisitor>(
    plan: &Plan,
    program: &Program,
    data: &[u8],
    at: u64,
    end: u64,
    slots: &[Cell<u64>],
    visitor: &mut V,
    show_hidden: bool,
) -> Result<u64, Stop> {
    let mut walker = Walker {
        nodes: &plan.nodes,
        program,
        data,
        end,
        at,
        slots,
        visitor,
        last_big: None,
        idle: 0,
        hidden: show_hidden,
    };
    walker.run(0, program.steps.len())?;
    Ok(walker.at)
}

impl<'a, V: FieldVisitor> Walker<'a, V> {
    fn run(&mut self, from: usize, to: usize) -> Result<(), Stop> {
        let program = self.program;
        let mut index = from;
        while index < to {
            let Some(step) = program.steps.get(index) else {
                break;
            };
            self.step(index, step).map_err(|fault| match fault {
                Failure::Here(fault) => Stop { at_bits: self.at, node: step.node, fault },
                Failure::Inside(stop) => stop,
            })?;
            index = step.next as usize;
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self, index: usize, step: &Step) -> Result<(), Failure> {
        self.align(step.align_log2)?;
        match step.code {
            Code::Fixed => {
                self.take(step.len)?;
            }
            Code::Unsigned | Code::Signed | Code::Bool | Code::Bits | Code::Real => {
                self.check_order(step)?;
                let at = self.take(u64::from(step.size))?;
                let value = scalar(self.data, at, step);
                self.leaf(step, value);
            }
            Code::LebUnsigned | Code::LebSigned => self.leb(step)?,
            Code::Text => {
                let bytes = self.until_nul(step.encoding)?;
                self.text(step, bytes);
            }
            Code::SizedText => {
                let bytes = self.sized(step)?;
                if bytes.len() % step.encoding.unit_size_bytes() != 0 {
                    return Err(Fault::PartialCodeUnit(bytes.len() as u64).into());
                }
                let bytes = &bytes[..nul_at(bytes, step.encoding).unwrap_or(bytes.len())];
                self.text(step, bytes);
            }
            Code::Blob => {
                let bytes = self.sized(step)?;
                if let Some(node) = self.shown(step) {
                    self.visitor.blob(node, bytes);
                }
            }
            Code::Struct => {
                self.bracket(step, V::begin_struct);
                self.run(index + 1, step.next as usize)?;
                self.bracket(step, V::end_struct);
            }
            Code::Array => self.array(index, step)?,
            Code::Optional => self.optional(step)?,
            Code::Variant => self.variant(step)?,
        }
        Ok(())
    }

    #[inline]
    fn align(&mut self, align_log2: u8) -> Result<(), Fault> {
        let low = (1u64 << align_log2) - 1;
        if self.at & low != 0 {
            let at = (self.at | low).checked_add(1).ok_or(Fault::TooFar)?;
            if at > self.end {
                return Err(Fault::Truncated {
                    needed_bits: at - self.at,
                    left_bits: self.end.saturating_sub(self.at),
                });
            }
            self.at = at;
        }
        Ok(())
    }

    /// Passes over `bits`; gives where they start.
    #[inline]
    fn take(&mut self, bits: u64) -> Result<u64, Fault> {
        let left = self.end.saturating_sub(self.at);
        if bits > left {
            return Err(Fault::Truncated { needed_bits: bits, left_bits: left });
        }
        let at = self.at;
        self.at += bits;
        Ok(at)
    }

    #[inline]
    fn check_order(&mut self, step: &Step) -> Result<(), Fault> {
        if self.at % 8 != 0
            && let Some(last_big) = self.last_big
            && last_big != step.big
        {
            return Err(Fault::MixedByteOrder { first_big: last_big });
        }
        self.last_big = Some(step.big);
        Ok(())
    }

    #[inline]
    fn save(&self, step: &Step, raw: u64) {
        if step.save != NO_SLOT
            && let Some(slot) = self.slots.get(usize::from(step.save))
        {
            slot.set(raw);
        }
    }

    fn slot(&self, slot: u16) -> Result<u64, Fault> {
        self.slots.get(usize::from(slot)).map(Cell::get).ok_or(Fault::NoSelector)
    }

    /// The node of the step, if the visitor is to hear of it.
    #[inline]
    fn shown(&self, step: &Step) -> Option<&'a Node> {
        if step.visible || self.hidden { self.nodes.get(step.node as usize) } else { None }
    }

    #[inline]
    fn leaf(&mut self, step: &Step, value: Scalar) {
        let raw = match value {
            Scalar::Unsigned(v) | Scalar::Bits(v) => v,
            Scalar::Signed(v) => v.cast_unsigned(),
            Scalar::Bool(v) => u64::from(v),
            Scalar::Real(v) => v.to_bits(),
        };
        self.save(step, raw);
        let Some(node) = self.shown(step) else {
            return;
        };
        match value {
            Scalar::Unsigned(v) => self.visitor.unsigned(node, v),
            Scalar::Signed(v) => self.visitor.signed(node, v),
            Scalar::Bool(v) => self.visitor.boolean(node, v),
            Scalar::Bits(v) => self.visitor.bits(node, v),
            Scalar::Real(v) => self.visitor.real(node, v),
        }
    }

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

    fn bracket(&mut self, step: &Step, call: fn(&mut V, &Node)) {
        if let Some(node) = self.shown(step) {
            call(self.visitor, node);
        }
    }

    /// Bytes of a sized string or blob.
    fn sized(&mut self, step: &Step) -> Result<&'a [u8], Fault> {
        let len = self.length(step)?;
        let bits = len.checked_mul(8).ok_or(Fault::TooFar)?;
        let from = (self.take(bits)? / 8) as usize;
        self.data.get(from..from + len as usize).ok_or(Fault::TooFar)
    }

    fn length(&self, step: &Step) -> Result<u64, Fault> {
        if step.from == NO_SLOT { Ok(step.len) } else { self.slot(step.from) }
    }

    /// Bytes up to a NUL code unit, which is passed over.
    fn until_nul(&mut self, encoding: StringEncoding) -> Result<&'a [u8], Fault> {
        let from = (self.at / 8) as usize;
        let to = (self.end / 8) as usize;
        let rest = self.data.get(from..to).unwrap_or_default();
        let len = nul_at(rest, encoding).ok_or(Fault::UnterminatedText)?;
        self.at += (len + encoding.unit_size_bytes()) as u64 * 8;
        Ok(&rest[..len])
    }

    fn leb(&mut self, step: &Step) -> Result<(), Fault> {
        let mut value = 0u64;
        let mut bits = 0u32;
        loop {
            let at = self.take(8)?;
            let byte = self.data.get((at / 8) as usize).copied().unwrap_or(0);
            let low = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, which then must be needed; of a signed number the
            // rest repeats the sign.
            if bits == 63 {
                let fits = if step.code == Code::LebSigned { low == 0 || low == 0x7f } else { low == 1 };
                if !fits || byte & 0x80 != 0 {
                    return Err(Fault::OversizedVarInt);
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

    fn array(&mut self, index: usize, step: &Step) -> Result<(), Failure> {
        let len = self.length(step)?;
        let inside = (index + 1, step.next as usize);
        if let Some(element) = self.program.steps.get(inside.0)
            && let Some(array) = self.as_scalars(element, inside, len)?
        {
            let taken = match self.shown(step) {
                Some(node) => self.visitor.scalars(node, array),
                None => true,
            };
            if taken {
                if array.len > 0 {
                    self.take(array.stride * (array.len - 1) + u64::from(element.size))?;
                }
                return Ok(());
            }
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
                    return Err(Fault::TooManyEmptyElements(len).into());
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
    ) -> Result<Option<Scalars<'a>>, Fault> {
        let scalar =
            matches!(element.code, Code::Unsigned | Code::Signed | Code::Bool | Code::Bits | Code::Real)
                && inside.1 == inside.0 + 1
                && element.save == NO_SLOT
                && element.size <= 64;
        if !scalar {
            return Ok(None);
        }
        let stride = u64::from(element.size).next_multiple_of(1 << element.align_log2);
        let unaligned = self.at % (1 << element.align_log2) != 0;
        if unaligned || (self.at % 8 != 0 && self.last_big.is_some_and(|big| big != element.big)) {
            return Ok(None);
        }
        let left = self.end.saturating_sub(self.at);
        // Of the last element the padding after it is not needed.
        let last = if len == 0 { 0 } else { u64::from(element.size) };
        let needed = len
            .saturating_sub(1)
            .checked_mul(stride)
            .and_then(|bits| bits.checked_add(last))
            .ok_or(Fault::TooFar)?;
        if needed > left {
            return Err(Fault::Truncated { needed_bits: needed, left_bits: left });
        }
        Ok(Some(Scalars { data: self.data, at: self.at, stride, len, step: *element }))
    }

    fn optional(&mut self, step: &Step) -> Result<(), Failure> {
        let raw = self.slot(step.from)?;
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

    fn variant(&mut self, step: &Step) -> Result<(), Failure> {
        let raw = self.slot(step.from)?;
        let program = self.program;
        let Some(choices) = program.choices.get(step.len as usize) else {
            return Ok(());
        };
        let Some((option, choice)) = choices.select(raw) else {
            return Err(Fault::NoOption(choices.value(raw)).into());
        };
        if let Some(node) = self.shown(step) {
            self.visitor.begin_variant(node, option);
        }
        self.run(choice.steps.0 as usize, choice.steps.1 as usize)?;
        self.bracket(step, V::end_variant);
        Ok(())
    }
}

/// A fault of the step itself, or one already located inside it.
enum Failure {
    Here(Fault),
    Inside(Stop),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Here(fault)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Inside(stop)
    }
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
        1 => CStr::from_bytes_until_nul(bytes).ok().map(CStr::count_bytes),
        unit => bytes
            .chunks_exact(unit)
            .position(|chunk| chunk.iter().all(|byte| *byte == 0))
            .map(|index| index * unit),
    }
}
