//! Writing the fields of a scope: a visitor that puts what it is told at the places of a layout.
//!
//! Values of fields with a role can be replaced, and the places of those fields are kept, so that a
//! packet's header can be finished after its events. Nothing fails here: what does not fit a field
//! is cut to its low bits, text that is too long to its first bytes.

use super::bits::{BitBuffer, write};
use super::layout::{Form, Layout, Slot};
use crate::decode::{FieldVisitor, Node, Scalar, Scalars};
use crate::model::{Role, StringEncoding};

/// All roles, in the order in which [`Places`] keeps them.
pub(crate) const ROLES: [Role; 11] = [
    Role::PacketMagic,
    Role::MetadataUuid,
    Role::StreamClassId,
    Role::StreamId,
    Role::PacketSize,
    Role::ContentSize,
    Role::Timestamp,
    Role::EndTimestamp,
    Role::EventsDiscarded,
    Role::PacketSequence,
    Role::EventClassId,
];

/// Values to write in the place of those that were read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Replace {
    values: [Option<u64>; ROLES.len()],
}

impl Replace {
    /// Replaces the value of the fields with this role.
    pub(crate) fn set(&mut self, role: Role, value: u64) {
        self.values[(role as u16).trailing_zeros() as usize] = Some(value);
    }

    fn get(&self, node: &Node) -> Option<u64> {
        let roles = ROLES.iter().zip(self.values);
        roles.filter(|(role, _)| node.roles.contains(**role)).find_map(|(_, value)| value)
    }
}

/// Where a field with a role was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub role: Role,
    pub at: u64,
    pub form: Form,
}

impl Place {
    /// Writes another value there.
    pub(crate) fn patch(&self, bytes: &mut [u8], value: u64) {
        match self.form {
            Form::Fixed { size, big, reversed } => {
                write(bytes, self.at, oriented(value, size, reversed), size, big);
            }
            Form::Leb => {
                if let Some(out) = bytes.get_mut((self.at / 8) as usize..) {
                    for (byte, new) in out.iter_mut().zip(padded_leb(value)) {
                        *byte = new;
                    }
                }
            }
            _ => {}
        }
    }
}

/// Ten bytes for any value, so that it can be replaced by any other.
fn padded_leb(value: u64) -> [u8; 10] {
    std::array::from_fn(|i| {
        let low = (value >> (7 * i)) as u8 & 0x7f;
        if i < 9 { low | 0x80 } else { low & 1 }
    })
}

#[inline]
fn oriented(value: u64, size: u32, reversed: bool) -> u64 {
    if reversed { value.reverse_bits() >> (64 - size.clamp(1, 64)) } else { value }
}

/// Writes the fields that it is told of.
pub(crate) struct Encoder<'a> {
    pub out: &'a mut BitBuffer,
    pub slots: &'a [Slot],
    /// Where the buffer starts in its packet, in bits.
    pub base: u64,
    /// Values of fields that others refer to, by slot number.
    pub saved: &'a mut Vec<u64>,
    pub replace: Replace,
    /// Receives the places of integers with a role, when wanted.
    pub places: Option<&'a mut Vec<Place>>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(
        out: &'a mut BitBuffer,
        layout: &'a Layout,
        base: u64,
        saved: &'a mut Vec<u64>,
    ) -> Self {
        Self { out, slots: &layout.slots, base, saved, replace: Replace::default(), places: None }
    }

    #[inline]
    fn slot(&self, node: &Node) -> Slot {
        self.slots.get(node.id).copied().unwrap_or(Slot::new(1, Form::Compound))
    }

    fn keep(&mut self, slot: &Slot, value: u64) {
        if let Some(save) = slot.save {
            let at = usize::from(save);
            if self.saved.len() <= at {
                self.saved.resize(at + 1, 0);
            }
            self.saved[at] = value;
        }
    }

    #[inline]
    fn integer(&mut self, node: &Node, value: u64, signed: bool, leb_bits: u32) {
        let slot = self.slot(node);
        let mut value = value;
        if !node.roles.is_empty() {
            value = self.replace.get(node).unwrap_or(value);
        }
        self.out.align(slot.align, self.base);
        if !node.roles.is_empty()
            && let Some(places) = &mut self.places
        {
            let roles = ROLES.into_iter().filter(|role| node.roles.contains(*role));
            places.extend(roles.map(|role| Place { role, at: self.out.at, form: slot.form }));
            if slot.form == Form::Leb {
                self.out.put_bytes(&padded_leb(value));
                return;
            }
        }
        self.keep(&slot, value);
        match slot.form {
            Form::Fixed { size, big, reversed } | Form::Bool { size, big, reversed } => {
                self.out.put(oriented(value, size, reversed), size, big);
            }
            Form::Leb => self.leb(value, signed, leb_bits),
            _ => {}
        }
    }

    /// As many bytes as the source had, or as are needed.
    fn leb(&mut self, value: u64, signed: bool, bits: u32) {
        let mut rest = value;
        let mut written = 0;
        loop {
            let low = rest as u8 & 0x7f;
            rest = if signed { (rest.cast_signed() >> 7).cast_unsigned() } else { rest >> 7 };
            written += 7;
            let sign_is_told = low & 0x40 != 0;
            let whole = if signed {
                (rest == 0 && !sign_is_told) || (rest == u64::MAX && sign_is_told)
            } else {
                rest == 0
            };
            if (whole && written >= bits) || written >= 70 {
                return self.out.put_bytes(&[low]);
            }
            self.out.put_bytes(&[low | 0x80]);
        }
    }

    fn own_count(&mut self, slot: &Slot, count: u64) {
        self.out.align(slot.align_first, self.base);
        self.out.align(8, self.base);
        self.out.put(count, 32, NATIVE_BIG);
        self.out.align(slot.align, self.base);
    }

    fn own_tag(&mut self, slot: &Slot, tag: u64) {
        self.out.align(slot.align_first, self.base);
        self.out.align(8, self.base);
        self.out.put(tag, 16, NATIVE_BIG);
    }
}

const NATIVE_BIG: bool = cfg!(target_endian = "big");

impl FieldVisitor for Encoder<'_> {
    #[inline]
    fn unsigned(&mut self, node: &Node, value: u64) {
        self.integer(node, value, false, 0);
    }
    #[inline]
    fn signed(&mut self, node: &Node, value: i64) {
        self.integer(node, value.cast_unsigned(), true, 0);
    }
    fn unsigned_leb128(&mut self, node: &Node, value: u64, size_bits: u32) {
        self.integer(node, value, false, size_bits);
    }
    fn signed_leb128(&mut self, node: &Node, value: i64, size_bits: u32) {
        self.integer(node, value.cast_unsigned(), true, size_bits);
    }
    fn boolean(&mut self, node: &Node, value: bool) {
        self.integer(node, u64::from(value), false, 0);
    }
    fn bits(&mut self, node: &Node, value: u64) {
        self.integer(node, value, false, 0);
    }

    fn real(&mut self, node: &Node, value: f64) {
        let slot = self.slot(node);
        let Form::Real { size, big, reversed } = slot.form else {
            return;
        };
        self.out.align(slot.align, self.base);
        let bits = match size {
            16 => u128::from(half(value)),
            32 => u128::from((value as f32).to_bits()),
            64 => u128::from(value.to_bits()),
            _ => quad(value),
        };
        if size <= 64 {
            return self.out.put(oriented(bits as u64, size, reversed), size, big);
        }
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        let parts = if big != reversed { [high, low] } else { [low, high] };
        for part in parts {
            self.out.put(oriented(part, 64, reversed), 64, big);
        }
    }

    fn text(&mut self, node: &Node, value: &[u8]) {
        let slot = self.slot(node);
        self.out.align(slot.align, self.base);
        let coded;
        let (encoding, room) = match slot.form {
            Form::Text { encoding } => (encoding, None),
            Form::SizedText { encoding, bytes } => (encoding, Some(bytes)),
            Form::CountedText { encoding, slot } => {
                (encoding, Some(self.saved.get(usize::from(slot)).copied().unwrap_or(0)))
            }
            Form::Counted => {
                self.own_count(&slot, value.len() as u64);
                return self.out.put_bytes(value);
            }
            _ => return,
        };
        let bytes = if encoding == StringEncoding::Utf8 {
            value
        } else {
            coded = encoded(value, encoding);
            &coded
        };
        match room {
            None => {
                self.out.put_bytes(bytes);
                self.out.put_zeros(encoding.unit_size_bytes());
            }
            Some(room) => {
                // The room was read from a packet that held as many bytes.
                let room = usize::try_from(room).unwrap_or(usize::MAX);
                let kept = bytes.len().min(room);
                self.out.put_bytes(&bytes[..kept]);
                self.out.put_zeros(room - kept);
            }
        }
    }

    fn blob(&mut self, node: &Node, value: &[u8]) {
        let slot = self.slot(node);
        if slot.form == Form::Counted {
            self.own_count(&slot, value.len() as u64);
        } else {
            self.out.align(slot.align, self.base);
        }
        self.out.put_bytes(value);
    }

    #[inline]
    fn begin_struct(&mut self, node: &Node) {
        self.out.align(self.slot(node).align, self.base);
    }

    fn begin_array(&mut self, node: &Node, length: u64) {
        let slot = self.slot(node);
        if slot.form == Form::Counted {
            self.own_count(&slot, length);
        } else {
            self.out.align(slot.align, self.base);
        }
    }

    fn begin_optional(&mut self, node: &Node, present: bool) {
        let slot = self.slot(node);
        if slot.form == Form::Tagged {
            self.own_tag(&slot, u64::from(present));
        }
    }

    fn begin_variant(&mut self, node: &Node, option: usize) {
        let slot = self.slot(node);
        if slot.form == Form::Tagged {
            self.own_tag(&slot, option as u64);
        }
    }

    fn scalars(&mut self, node: &Node, array: Scalars<'_>) -> bool {
        let element = self.slots.get(node.id + 1).copied();
        let Some(Slot { form: Form::Fixed { size: 8, reversed: false, .. }, align: 8, .. }) = element else {
            return false;
        };
        let Some(bytes) = array.as_bytes() else {
            return false;
        };
        self.begin_array(node, array.len());
        self.out.put_bytes(bytes);
        if let Some(last) = array.get(array.len().wrapping_sub(1)) {
            let raw = match last {
                Scalar::Unsigned(v) | Scalar::Bits(v) => v,
                Scalar::Signed(v) => v.cast_unsigned(),
                Scalar::Bool(v) => u64::from(v),
                Scalar::Real(v) => v.to_bits(),
            };
            if let Some(element) = element {
                self.keep(&element, raw);
            }
        }
        true
    }
}

/// UTF-8 to another encoding; what is no UTF-8 becomes U+FFFD.
fn encoded(text: &[u8], encoding: StringEncoding) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    match encoding {
        StringEncoding::Utf8 => text.into_owned().into_bytes(),
        StringEncoding::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        StringEncoding::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        StringEncoding::Utf32Be => text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
        StringEncoding::Utf32Le => text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
    }
}

/// IEEE 754 binary16 of a number that was one, rounded toward zero otherwise.
fn half(value: f64) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 48) as u16 & 0x8000;
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1023;
    let fraction = bits & 0xf_ffff_ffff_ffff;
    let magnitude = if exponent == 1024 {
        0x7c00 | if fraction != 0 { 0x200 } else { 0 }
    } else if exponent > 15 {
        0x7c00
    } else if exponent >= -14 {
        ((exponent + 15) as u16) << 10 | (fraction >> 42) as u16
    } else if exponent >= -24 {
        ((1u64 << 52 | fraction) >> (28 - exponent)) as u16
    } else {
        0
    };
    sign | magnitude
}

/// IEEE 754 binary128; exact but for numbers that are subnormal as `f64`, which become 0.
fn quad(value: f64) -> u128 {
    let bits = value.to_bits();
    let sign = u128::from(bits >> 63) << 127;
    let exponent = u128::from(bits >> 52 & 0x7ff);
    let fraction = u128::from(bits & 0xf_ffff_ffff_ffff) << 60;
    sign | match exponent {
        0 => 0,
        0x7ff => 0x7fff << 112 | fraction,
        e => (e + 16383 - 1023) << 112 | fraction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_every_half_is_itself() {
        // The reader's conversion to f64 is exact, so this must give the bits back.
        for bits in 0..=u16::MAX {
            let exponent = bits >> 10 & 0x1f;
            let fraction = f64::from(bits & 0x3ff);
            let sign = if bits & 0x8000 != 0 { -1.0 } else { 1.0 };
            let value = sign
                * match exponent {
                    0 => fraction * 2f64.powi(-24),
                    0x1f if fraction == 0.0 => f64::INFINITY,
                    0x1f => continue,
                    e => (1024.0 + fraction) * 2f64.powi(i32::from(e) - 25),
                };
            assert_eq!(half(value), bits, "{value}");
        }
        assert_eq!(half(f64::NAN) & 0x7c00, 0x7c00);
    }

    #[test]
    fn quads() {
        assert_eq!(quad(1.0), 0x3fff << 112);
        assert_eq!(quad(-3.0), 0xc_0008 << 108);
        assert_eq!(quad(f64::INFINITY), 0x7fff << 112);
        assert_eq!(quad(-0.0), 1 << 127);
    }

    #[test]
    fn padded_leb_keeps_the_value() {
        for value in [0, 1, 127, 128, u64::MAX, 1 << 63] {
            let bytes = padded_leb(value);
            let read = bytes.iter().rev().fold(0u64, |v, b| v << 7 | u64::from(b & 0x7f));
            assert_eq!(read, value);
            assert!(bytes[..9].iter().all(|b| b & 0x80 != 0) && bytes[9] & 0x80 == 0);
        }
    }
}
