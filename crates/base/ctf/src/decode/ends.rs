//! The end of a record whose size depends on its data, found in one short list of steps.
//!
//! The short programs of common context, specific context and payload are joined into one list for
//! each event class, with what is rare left out: lengths must be plain unsigned integers of the
//! record itself, elements must have a fixed size. A class that needs more has no list, and its
//! records are walked field by field. Finding an end this way comes to the same place as the walk
//! or to none: then the walk says what is wrong.

use super::bits::mask;
use super::plan::{Code, NO_SLOT, Plan, Program, Step};
use super::records::Record;
use super::walk::{nul_byte_at, word};
use crate::model::StringEncoding;

/// Lengths and selectors that one record may keep for later.
const LENGTHS_MAX: usize = 8;

/// What a step does, after aligning.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Passes over bits.
    Skip(u64),
    /// A scope starts.
    Scope(u8),
    /// Reads an integer and keeps it as a length or selector.
    Length(Step, u8),
    /// Text up to its NUL.
    Text,
    /// Elements of a size in bits, one each so many bits, as many as a length says.
    Elements { size: u64, stride: u64, length: u8 },
    /// Goes on at the option that a selector chooses: options from the first to the last-plus-one.
    Choose { length: u8, options: (u32, u32) },
    /// Goes on at a later step.
    Jump(u32),
}

/// An option of a variant: the least and largest value that chooses it, and its first step.
#[derive(Debug, Clone, Copy)]
struct Choice {
    range: (u64, u64),
    step: u32,
}

/// The steps of one event class; none when it needs the walk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    /// Each with the mask of its alignment.
    steps: Vec<(u64, End)>,
    choices: Vec<Choice>,
}

impl Ends {
    /// Joins the scopes of an event class.
    pub(crate) fn compile(scopes: [&Plan; 3]) -> Self {
        let mut joined = Joined::default();
        for (number, plan) in scopes.into_iter().enumerate() {
            joined.ends.steps.push((0, End::Scope(number as u8)));
            if plan.nodes.is_empty() {
                continue;
            }
            let steps = plan.short.steps.len();
            if steps == 0 || joined.add(&plan.short, 0, steps).is_none() {
                return Self::default();
            }
        }
        joined.ends
    }

    /// Finds where the scopes of a record start, and its size. The record starts at `record.at` and
    /// has its header's size in `record.starts`. `None` when this takes the walk.
    #[inline]
    pub(super) fn find(&self, content: &[u8], end: u64, record: &mut Record) -> Option<()> {
        if self.steps.is_empty() {
            return None;
        }
        let mut lengths = [0u64; LENGTHS_MAX];
        let mut at = record.at + u64::from(record.starts[0]);
        let mut index = 0;
        // Every jump is forward, so this ends.
        while let Some((low, step)) = self.steps.get(index) {
            at = at.checked_add(*low)? & !low;
            index += 1;
            match step {
                End::Skip(bits) => at = at.checked_add(*bits)?,
                End::Scope(number) => {
                    *record.starts.get_mut(usize::from(*number))? = u32::try_from(at - record.at).ok()?;
                }
                End::Length(step, length) => {
                    *lengths.get_mut(usize::from(*length))? = word(content, at, step)?;
                    at += u64::from(step.size);
                }
                End::Text => {
                    let from = (at / 8) as usize;
                    at += (nul_byte_at(content.get(from..)?)? as u64 + 1) * 8;
                }
                End::Elements { size, stride, length } => {
                    let count = *lengths.get(usize::from(*length))?;
                    if count > 0 {
                        at = (count - 1).checked_mul(*stride)?.checked_add(*size)?.checked_add(at)?;
                    }
                }
                End::Choose { length, options } => {
                    let value = lengths.get(usize::from(*length))?;
                    let options = self.choices.get(options.0 as usize..options.1 as usize)?;
                    let chosen = options.iter().find(|c| c.range.0 <= *value && *value <= c.range.1)?;
                    index = chosen.step as usize;
                }
                End::Jump(to) => index = *to as usize,
            }
        }
        record.size = u32::try_from(at - record.at).ok()?;
        (at <= end).then_some(())
    }
}

/// Ends in the making.
#[derive(Default)]
struct Joined {
    ends: Ends,
    /// Slots of the lengths kept so far.
    slots: Vec<u16>,
}

impl Joined {
    /// Adds the steps `from` to `to` of a scope; `None` if there is one that has no place here.
    fn add(&mut self, program: &Program, from: usize, to: usize) -> Option<()> {
        let mut index = from;
        while index < to {
            let step = program.steps.get(index)?;
            index += 1;
            let end = match step.code {
                Code::Fixed => End::Skip(step.len),
                Code::Unsigned if step.len == mask(u32::from(step.size)) && step.save != NO_SLOT => {
                    End::Length(*step, self.keep(step.save)?)
                }
                Code::Text if step.encoding == StringEncoding::Utf8 => End::Text,
                Code::SizedText | Code::Blob if step.encoding == StringEncoding::Utf8 => {
                    End::Elements { size: 8, stride: 8, length: self.kept(step.from)? }
                }
                Code::Array if step.next as usize == index + 1 => {
                    let element = program.steps.get(index)?;
                    index += 1;
                    let plain = element.code == Code::Fixed && element.len > 0;
                    if !plain || element.align_log2 > step.align_log2 {
                        return None;
                    }
                    let stride = element.len.checked_next_multiple_of(1 << element.align_log2)?;
                    End::Elements { size: element.len, stride, length: self.kept(step.from)? }
                }
                Code::Variant => {
                    self.variant(program, step)?;
                    index = step.next as usize;
                    continue;
                }
                _ => return None,
            };
            self.ends.steps.push(((1 << step.align_log2) - 1, end));
        }
        Some(())
    }

    /// Adds a variant whose selector is unsigned, with its options one after the other.
    fn variant(&mut self, program: &Program, step: &Step) -> Option<()> {
        let choices = program.choices.get(step.len as usize).filter(|choices| !choices.signed)?;
        let length = self.kept(step.from)?;
        let first = self.ends.choices.len();
        for (number, option) in choices.options.iter().enumerate() {
            for range in &option.ranges {
                // What lies outside of 64 bits is never chosen.
                let lower = u64::try_from(range.lower.max(0)).ok()?;
                let Ok(upper) = u64::try_from(range.upper.min(i128::from(u64::MAX))) else { continue };
                self.ends.choices.push(Choice { range: (lower, upper), step: number as u32 });
            }
        }
        let last = self.ends.choices.len();
        let options = (first as u32, last as u32);
        self.ends.steps.push(((1 << step.align_log2) - 1, End::Choose { length, options }));
        let mut starts = Vec::new();
        let mut jumps = Vec::new();
        // A length that only some of the options keep is not there after the others.
        let before = self.slots.clone();
        for option in &choices.options {
            starts.push(self.ends.steps.len() as u32);
            self.add(program, option.steps.0 as usize, option.steps.1 as usize)?;
            self.slots.clone_from(&before);
            jumps.push(self.ends.steps.len());
            self.ends.steps.push((0, End::Jump(0)));
        }
        let after = self.ends.steps.len() as u32;
        for jump in jumps {
            self.ends.steps[jump].1 = End::Jump(after);
        }
        for choice in &mut self.ends.choices[first..last] {
            choice.step = *starts.get(choice.step as usize)?;
        }
        Some(())
    }

    /// Where the value of a slot is kept from now on.
    fn keep(&mut self, slot: u16) -> Option<u8> {
        if !self.slots.contains(&slot) {
            self.slots.push(slot);
        }
        self.kept(slot).filter(|at| usize::from(*at) < LENGTHS_MAX)
    }

    /// Where the value of a slot was kept.
    fn kept(&self, slot: u16) -> Option<u8> {
        self.slots.iter().position(|kept| *kept == slot).map(|at| at as u8)
    }
}
