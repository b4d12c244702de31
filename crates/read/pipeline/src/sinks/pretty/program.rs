//! An event class as a list of steps: copy this text, write the value of that size.
//!
//! Most events consist of whole bytes: integers, enumerations, text, arrays of them. For these, all
//! that stands between two values is known, and so is how each value is read; a program does both
//! straight from the packet, without a walk and without colours. What it has no step for (bits,
//! variants, optional fields, structures in arrays, other encodings) is left to
//! [`FieldWriter`](super::fields::FieldWriter), whose text is the same.

use std::sync::Arc;

use sillage_ctf::Event;
use sillage_ctf::model::{
    ByteOrder, FieldClass, FieldKind, FieldRef, IntegerClass, IntegerLayout, Length, PathItem, Scope,
    StringEncoding, StringExtent,
};

use super::line::Line;
use super::palette::Palette;
use super::value::{EnumStyle, Radix, push_enum};
use crate::sinks::number::{Piece, push_general};

/// Bytes of text before a value.
const LEAD_SIZE_BYTES: usize = 32;
/// Lengths that a program can remember.
const LENGTHS_MAX: usize = 8;
/// No length to remember or to use.
const NO_LENGTH: u8 = u8::MAX;

/// What is done after the lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    /// Nothing: only text, or only alignment.
    Nothing,
    Unsigned,
    Signed,
    Hexadecimal,
    /// In another base: the number in the list of bases.
    Radix,
    /// The number in the list of enumerations.
    Enum,
    Real,
    /// Text up to a NUL.
    Text,
    /// Text in `count` bytes.
    SizedText,
    /// `count` values of the step after this one.
    Array,
}

/// One value and what stands before it.
#[derive(Debug, Clone, Copy)]
struct Step {
    lead: [u8; LEAD_SIZE_BYTES],
    lead_len: u8,
    code: Code,
    /// Alignment in bytes less one.
    align_mask: u8,
    /// Size in bytes, and the bits of a word that it leaves out.
    size: u8,
    shift: u8,
    is_big: bool,
    is_signed: bool,
    /// Where the value is remembered as a length.
    save: u8,
    /// The length that is used instead of `count`.
    from: u8,
    /// See [`Code`].
    count: u64,
}

/// An event class's fields as text.
#[derive(Debug, Clone)]
pub(super) struct Program {
    steps: Box<[Step]>,
    /// Whether elements of arrays have their index before them.
    names: bool,
    values: Values,
}

/// What the values that are not plain numbers need.
#[derive(Debug, Clone)]
struct Values {
    enums: Vec<Texts>,
    /// Bases, and whether the number is signed.
    radixes: Vec<(Radix, bool)>,
    style: EnumStyle,
    scratch: Vec<u8>,
}

/// Texts of recent values of an enumeration, by the low bits of the value.
#[derive(Debug, Clone)]
struct Texts {
    class: Arc<FieldClass>,
    recent: [Option<(u64, Piece)>; 16],
}

/// What stands before the scopes, and whether fields are named in them.
pub(super) struct Leads<'a> {
    pub common: Option<&'a [u8]>,
    pub specific: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    pub context_names: bool,
    pub payload_names: bool,
}

impl Program {
    /// The program of an event's class; `None` when it has fields that there is no step for.
    pub(super) fn compile(event: &Event<'_>, leads: &Leads<'_>, style: EnumStyle) -> Option<Self> {
        let class = &event.stream.class;
        let scopes = [
            (Scope::CommonContext, leads.common, &class.common_context, leads.context_names),
            (Scope::SpecificContext, leads.specific, &event.class.specific_context, leads.context_names),
            (Scope::Payload, leads.payload, &event.class.payload, leads.payload_names),
        ];
        // One answer for all arrays, or none.
        if leads.context_names != leads.payload_names {
            return None;
        }
        let mut compiler = Compiler {
            names: leads.payload_names,
            lead: Vec::new(),
            steps: Vec::new(),
            enums: Vec::new(),
            radixes: Vec::new(),
            seen: Vec::new(),
            path: (Scope::CommonContext, Vec::new()),
            lengths: 0,
        };
        for (scope, lead, root, _) in scopes {
            compiler.path = (scope, Vec::new());
            compiler.lead.extend_from_slice(lead.unwrap_or_default());
            if let Some(root) = root {
                compiler.field(root)?;
            }
        }
        compiler.lead.push(b'\n');
        compiler.add(Step::new(Code::Nothing, 8)?);
        Some(Self {
            steps: compiler.steps.into(),
            names: compiler.names,
            values: Values { enums: compiler.enums, radixes: compiler.radixes, style, scratch: Vec::new() },
        })
    }

    /// Appends the fields of an event of the class, and the end of the line; `None` when it has to
    /// be written in the general way, because the line is too long or the fields do not lie on
    /// bytes.
    #[inline]
    pub(super) fn run(&mut self, line: &mut Line<'_>, event: &Event<'_>) -> Option<()> {
        let (body, _) = event.body_bits();
        if body % 8 != 0 {
            return None;
        }
        // The record was walked when it was found, so all of it is there.
        let bytes = event.packet_bytes();
        let mut at = (body / 8) as usize;
        let mut lengths = [0u64; LENGTHS_MAX];
        let Self { steps, names, values } = self;
        let mut steps = steps.iter();
        while let Some(step) = steps.next() {
            line.put(&step.lead, usize::from(step.lead_len))?;
            let mask = usize::from(step.align_mask);
            at = (at + mask) & !mask;
            match step.code {
                Code::Nothing => {}
                Code::Unsigned => {
                    let value = step.read(bytes, at)?;
                    at += usize::from(step.size);
                    if let Some(length) = lengths.get_mut(usize::from(step.save)) {
                        *length = value;
                    }
                    line.unsigned(value)?;
                }
                Code::Signed => {
                    let value = step.read(bytes, at)?;
                    at += usize::from(step.size);
                    line.signed(value.cast_signed())?;
                }
                Code::Text => at += line.quoted(bytes.get(at..)?)? + 1,
                Code::SizedText => {
                    let len = step.count(&lengths)?;
                    line.quoted(bytes.get(at..at.checked_add(len)?)?)?;
                    at += len;
                }
                Code::Array => {
                    let count = step.count(&lengths)?;
                    let element = steps.next()?;
                    at = values.array(line, bytes, at, (element, count), *names)?;
                }
                _ => {
                    let value = step.read(bytes, at)?;
                    at += usize::from(step.size);
                    if let Some(length) = lengths.get_mut(usize::from(step.save)) {
                        *length = value;
                    }
                    values.put(line, step, value)?;
                }
            }
        }
        Some(())
    }
}

impl Values {
    /// Appends the elements of an array, and gives where they end.
    fn array(
        &mut self,
        line: &mut Line<'_>,
        bytes: &[u8],
        mut at: usize,
        (element, count): (&Step, usize),
        names: bool,
    ) -> Option<usize> {
        let mask = usize::from(element.align_mask);
        // Also in front of no element.
        at = (at + mask) & !mask;
        for index in 0..count {
            let lead: &[u8; 2] = if index == 0 { b" \0" } else { b", " };
            line.put(lead, if index == 0 { 1 } else { 2 })?;
            if names {
                line.put(b"[", 1)?;
                line.unsigned(index as u64)?;
                line.put(b"] = ", 4)?;
            }
            at = (at + mask) & !mask;
            let value = element.read(bytes, at)?;
            at += usize::from(element.size);
            self.put(line, element, value)?;
        }
        Some(at)
    }

    /// Appends a value whose step is a scalar.
    fn put(&mut self, line: &mut Line<'_>, step: &Step, value: u64) -> Option<()> {
        match step.code {
            Code::Unsigned => return line.unsigned(value),
            Code::Signed => return line.signed(value.cast_signed()),
            Code::Hexadecimal => return line.hexadecimal(value & (u64::MAX >> step.shift)),
            Code::Enum => {
                let texts = self.enums.get_mut(step.count as usize)?;
                let recent = &mut texts.recent[(value & 15) as usize];
                if !matches!(recent, Some((known, _)) if *known == value)
                    && let FieldKind::Integer(class) = &texts.class.kind
                {
                    self.scratch.clear();
                    push_enum(&mut self.scratch, class, value, self.style, &Palette::new(false));
                    *recent = Some((value, Piece::new(&self.scratch)));
                }
                return line.piece(&recent.as_ref()?.1);
            }
            Code::Radix => {
                let (radix, is_signed) = self.radixes.get(step.count as usize)?;
                self.scratch.clear();
                radix.push(&mut self.scratch, value, *is_signed);
            }
            Code::Real => {
                let real = match step.size {
                    4 => f64::from(f32::from_bits(value as u32)),
                    _ => f64::from_bits(value),
                };
                self.scratch.clear();
                push_general(&mut self.scratch, real);
            }
            _ => return None,
        }
        line.bytes(&self.scratch)
    }
}

impl Step {
    /// A step without a lead; `None` for an alignment that is not in bytes, or too large.
    fn new(code: Code, alignment_bits: u32) -> Option<Self> {
        let align_bytes = (alignment_bits / 8).max(1);
        Some(Self {
            lead: [0; LEAD_SIZE_BYTES],
            lead_len: 0,
            code,
            align_mask: u8::try_from(align_bytes - 1).ok()?,
            size: 0,
            shift: 0,
            is_big: false,
            is_signed: false,
            save: NO_LENGTH,
            from: NO_LENGTH,
            count: 0,
        })
    }

    /// The value at `at`, sign-extended.
    #[inline(always)]
    fn read(&self, bytes: &[u8], at: usize) -> Option<u64> {
        let rest = bytes.get(at..)?;
        let word = match rest.first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => short_word(rest, usize::from(self.size))?,
        };
        let high = if self.is_big { word.swap_bytes() } else { word << self.shift };
        Some(if self.is_signed {
            (high.cast_signed() >> self.shift).cast_unsigned()
        } else {
            high >> self.shift
        })
    }

    /// The number of elements or bytes.
    #[inline]
    fn count(&self, lengths: &[u64; LENGTHS_MAX]) -> Option<usize> {
        let count = lengths.get(usize::from(self.from)).unwrap_or(&self.count);
        usize::try_from(*count).ok()
    }
}

/// A word at the end of the packet, where there are fewer than eight bytes.
#[cold]
fn short_word(rest: &[u8], size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    (rest.len() >= size).then_some(u64::from_le_bytes(word))
}

struct Compiler {
    names: bool,
    /// Text before the next step.
    lead: Vec<u8>,
    steps: Vec<Step>,
    enums: Vec<Texts>,
    radixes: Vec<(Radix, bool)>,
    /// Unsigned integers so far, which may be lengths, and their steps.
    seen: Vec<(Scope, Vec<PathItem>, usize)>,
    path: (Scope, Vec<PathItem>),
    /// Lengths that are remembered.
    lengths: u8,
}

impl Compiler {
    /// Adds a step behind the lead, what of it is too long in steps of its own.
    fn add(&mut self, mut step: Step) {
        let lead = std::mem::take(&mut self.lead);
        let mut pieces = lead.chunks(LEAD_SIZE_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            let mut text = [0; LEAD_SIZE_BYTES];
            text[..piece.len()].copy_from_slice(piece);
            if pieces.peek().is_none() {
                (step.lead, step.lead_len) = (text, piece.len() as u8);
            } else {
                let only = Step {
                    lead: text,
                    lead_len: piece.len() as u8,
                    code: Code::Nothing,
                    align_mask: 0,
                    ..step
                };
                self.steps.push(only);
            }
        }
        self.steps.push(step);
    }

    fn field(&mut self, class: &Arc<FieldClass>) -> Option<()> {
        if !class.visible {
            return None;
        }
        match &class.kind {
            FieldKind::Struct(own) => {
                if class.alignment_bits > 8 {
                    self.add(Step::new(Code::Nothing, class.alignment_bits)?);
                }
                self.lead.push(b'{');
                for (index, member) in own.members.iter().enumerate() {
                    self.lead.extend_from_slice(if index == 0 { b" " } else { b", " });
                    if self.names {
                        self.lead.extend_from_slice(member.name.as_bytes());
                        self.lead.extend_from_slice(b" = ");
                    }
                    self.path.1.push(PathItem::Index(index));
                    self.field(&member.class)?;
                    self.path.1.pop();
                }
                self.lead.extend_from_slice(b" }");
            }
            FieldKind::String(own) => {
                if own.encoding != StringEncoding::Utf8 {
                    return None;
                }
                let mut step = Step::new(Code::Text, class.alignment_bits.max(8))?;
                if let StringExtent::Sized(length) = &own.extent {
                    step.code = Code::SizedText;
                    self.length(&mut step, length)?;
                }
                self.add(step);
            }
            FieldKind::Array(own) => {
                let mut step = Step::new(Code::Array, class.alignment_bits)?;
                self.length(&mut step, &own.length)?;
                self.lead.push(b'[');
                let element = self.scalar(&own.element)?;
                self.add(step);
                self.steps.push(element);
                self.lead.extend_from_slice(b" ]");
            }
            _ => {
                let step = self.scalar(class)?;
                if step.code == Code::Unsigned {
                    // Behind the pieces of the lead.
                    let at = self.steps.len() + self.lead.len().div_ceil(LEAD_SIZE_BYTES).max(1) - 1;
                    self.seen.push((self.path.0, self.path.1.clone(), at));
                }
                self.add(step);
            }
        }
        Some(())
    }

    /// The step of an integer, enumeration or real of whole bytes.
    fn scalar(&mut self, class: &Arc<FieldClass>) -> Option<Step> {
        let layout = match &class.kind {
            FieldKind::Integer(IntegerClass { layout: IntegerLayout::Fixed(layout), .. }) => layout,
            FieldKind::Float(own) if matches!(own.layout.size_bits, 32 | 64) => &own.layout,
            _ => return None,
        };
        let is_whole = layout.size_bits.is_multiple_of(8) && (1..=64).contains(&layout.size_bits);
        if !class.visible || !is_whole || layout.reversed || class.alignment_bits == 0 {
            return None;
        }
        let mut step = Step::new(Code::Real, class.alignment_bits)?;
        step.size = (layout.size_bits / 8) as u8;
        step.shift = (64 - layout.size_bits) as u8;
        step.is_big = layout.byte_order == ByteOrder::Big;
        if let FieldKind::Integer(own) = &class.kind {
            step.is_signed = own.signed;
            step.code = match Radix::of(own) {
                _ if own.is_enum => {
                    step.count = self.enums.len() as u64;
                    self.enums
                        .push(Texts { class: Arc::clone(class), recent: std::array::from_fn(|_| None) });
                    Code::Enum
                }
                Radix::Decimal if own.signed => Code::Signed,
                Radix::Decimal => Code::Unsigned,
                Radix::Hexadecimal(_) => Code::Hexadecimal,
                radix @ (Radix::Octal(_) | Radix::Binary(_)) => {
                    step.count = self.radixes.len() as u64;
                    self.radixes.push((radix, own.signed));
                    Code::Radix
                }
            };
        }
        Some(step)
    }

    /// Sets the count of a step, or which length it uses.
    fn length(&mut self, step: &mut Step, length: &Length) -> Option<()> {
        let field: &FieldRef = match length {
            Length::Static(count) => {
                step.count = *count;
                return Some(());
            }
            Length::Dynamic(field) => field,
        };
        let [path] = field.paths.as_slice() else {
            return None;
        };
        let known = self.seen.iter().find(|(scope, items, _)| *scope == path.scope && *items == path.items);
        let source = self.steps.get_mut(known?.2)?;
        if source.save == NO_LENGTH {
            if usize::from(self.lengths) == LENGTHS_MAX {
                return None;
            }
            source.save = self.lengths;
            self.lengths += 1;
        }
        step.from = source.save;
        Some(())
    }
}
