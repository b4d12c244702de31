//! LTTng's filter language in front of a record: what a filter rejects is never reserved.
//!
//! The values are those that the record would hold (narrowed and signed as the field is), read where
//! they are; every integer is compared as a signed one of 64 bits. Text is compared with literals:
//! without stars and with one at the end by its bytes, with any other stars by a small automaton in a
//! map, of which a table is made here and each byte costs one look-up. What a filter names and the
//! event does not have is an error with its column, before anything is loaded.

mod automaton;

use crate::code::{Code, GenerateError, STRING_BYTES_MAX, helper};
use crate::contexts;
use crate::format::FormatError;
use crate::kernel::Kernel;
use crate::recipe::{Field, Int, Recipe, Source, Type};
use crate::sys::{self, MapKind, MapSpec, SysError, number};
use automaton::Automaton;
use sillage_bpf::{Alu, Cond, Insn, Label, Reg, Width};
use sillage_filter::{Binary, Expression, FilterError, Pattern, Reference, Root, Unary, parse};
use std::os::fd::{AsFd, OwnedFd};
use thiserror::Error;

use Reg::*;

/// Bytes of text that are looked at in one piece, and where they lie on the stack.
const PIECE_BYTES: i32 = 128;
const PIECE: i16 = -504;
/// Longest text that is compared in one piece.
const LITERAL_BYTES_MAX: usize = 220;
/// Pieces of a text.
const PIECES_MAX: i32 = STRING_BYTES_MAX as i32 / PIECE_BYTES;

/// Why there is no filter.
#[derive(Debug, Error)]
pub enum FilterRefusal {
    /// The text is wrong.
    #[error(transparent)]
    Text(#[from] FilterError),
    /// The event has no such field, or there is no such context.
    #[error("column {column}: {event} has no {what}")]
    Missing {
        /// From 1.
        column: usize,
        /// LTTng's name of the event.
        event: String,
        /// What it does not have.
        what: String,
    },
    /// It is there, but cannot be compared in the kernel, or not with this.
    #[error("column {column}: {what}")]
    Unfit {
        /// From 1.
        column: usize,
        /// The reason.
        what: String,
    },
    /// The record's format is not what the event's table expects.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// No memory or rights for a pattern's table.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// The column of a filter's text where a reference stands first, from 1.
pub(crate) fn column_of(text: &str, reference: &Reference) -> usize {
    let name = reference.to_string();
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.');
    let mut places = text.match_indices(&name).map(|(at, _)| at);
    let alone = |at: &usize| !text[..*at].ends_with(part) && !text[at + name.len()..].starts_with(part);
    places.find(alone).map_or(1, |at| text[..at].chars().count() + 1)
}

/// A filter for one event.
#[derive(Debug)]
pub struct Filter {
    expression: Expression,
    fields: Vec<(Reference, Field)>,
    /// Tables of patterns, which must live until the program is loaded.
    tables: Vec<(Pattern, Automaton, OwnedFd)>,
}

impl Filter {
    /// The filter `text` for the event of this recipe.
    ///
    /// # Errors
    /// What is wrong with the text, or does not go with the event, with its column.
    pub fn new(kernel: &Kernel, recipe: &Recipe, text: &str) -> Result<Filter, FilterRefusal> {
        let expression = parse(text)?;
        let resolved = kernel.resolved(recipe)?;
        let mut filter = Filter { expression: expression.clone(), fields: Vec::new(), tables: Vec::new() };
        let mut check = Check { filter: &mut filter, recipe: &resolved, text };
        check.condition(&expression)?;
        Ok(filter)
    }

    /// Rejects what does not pass, in front of the record.
    ///
    /// # Errors
    /// The kernel does not have what a field comes from.
    pub fn guard(&self, code: &mut Code<'_>, rejected: Label) -> Result<(), GenerateError> {
        self.pass(code, &self.expression, rejected)
    }

    fn field(&self, reference: &Reference) -> Result<&Field, GenerateError> {
        let found = self.fields.iter().find(|(of, _)| of == reference).map(|(_, field)| field);
        found.ok_or(GenerateError::Mismatch("a filter's field that was not looked up"))
    }

    /// Goes on if the condition holds, else to `no`.
    fn pass(&self, code: &mut Code<'_>, condition: &Expression, no: Label) -> Result<(), GenerateError> {
        match condition {
            Expression::Binary(Binary::And, left, right) => {
                self.pass(code, left, no)?;
                self.pass(code, right, no)
            }
            Expression::Binary(Binary::Or, left, right) => {
                let [other, yes] = code.asm.labels();
                self.pass(code, left, other)?;
                code.asm.jump(yes);
                code.asm.bind(other);
                self.pass(code, right, no)?;
                code.asm.bind(yes);
                Ok(())
            }
            Expression::Unary(Unary::Not, operand) if is_truth(operand) => {
                let other = code.asm.label();
                self.pass(code, operand, other)?;
                code.asm.jump(no);
                code.asm.bind(other);
                Ok(())
            }
            Expression::Binary(operator, left, right) if is_truth(condition) => {
                self.compare(code, *operator, left, right, no)
            }
            other => {
                self.value(code, other, no)?;
                code.asm.jump_if(Cond::Eq, R1, 0, no);
                Ok(())
            }
        }
    }

    fn compare(
        &self,
        code: &mut Code<'_>,
        operator: Binary,
        left: &Expression,
        right: &Expression,
        no: Label,
    ) -> Result<(), GenerateError> {
        for (text, other) in [(left, right), (right, left)] {
            if let (Expression::Text(pattern), Expression::Reference(reference)) = (text, other) {
                let field = self.field(reference)?;
                if operator == Binary::Equal {
                    return self.text_equals(code, field, pattern, no);
                }
                let differs = code.asm.label();
                self.text_equals(code, field, pattern, differs)?;
                code.asm.jump(no);
                code.asm.bind(differs);
                return Ok(());
            }
        }
        let opposite = match operator {
            Binary::Less => Cond::SGe,
            Binary::LessOrEqual => Cond::SGt,
            Binary::Greater => Cond::SLe,
            Binary::GreaterOrEqual => Cond::SLt,
            Binary::Equal => Cond::Ne,
            _ => Cond::Eq,
        };
        if let Expression::Integer(constant) = right
            && let Ok(constant) = i32::try_from(*constant)
        {
            self.value(code, left, no)?;
            code.asm.jump_if(opposite, R1, constant, no);
            return Ok(());
        }
        self.both(code, left, right, no)?;
        code.asm.jump_if(opposite, R1, R2, no);
        Ok(())
    }

    /// R1 and R2 = both values.
    fn both(
        &self,
        code: &mut Code<'_>,
        left: &Expression,
        right: &Expression,
        missing: Label,
    ) -> Result<(), GenerateError> {
        self.value(code, left, missing)?;
        let kept = code.spill(R1);
        self.value(code, right, missing)?;
        code.asm.mov(R2, R1);
        code.unspill(R1, kept);
        code.release(1);
        Ok(())
    }

    /// R1 = the value; goes to `missing` if there is none.
    fn value(&self, code: &mut Code<'_>, of: &Expression, missing: Label) -> Result<(), GenerateError> {
        match of {
            Expression::Integer(value) => code.asm.constant(R1, *value),
            Expression::Reference(reference) => number_of(code, self.field(reference)?)?,
            Expression::Unary(operator, operand) if *operator != Unary::Not => {
                self.value(code, operand, missing)?;
                match operator {
                    Unary::Minus => code.asm.push(Insn::alu(Alu::Neg, R1, 0.into())),
                    Unary::Invert => code.asm.alu(Alu::Xor, R1, -1),
                    _ => {}
                }
            }
            Expression::Unary(_, operand) if !is_truth(operand) => {
                self.value(code, operand, missing)?;
                let [zero, done] = code.asm.labels();
                code.asm.jump_if(Cond::Eq, R1, 0, zero);
                code.asm.mov(R1, 0);
                code.asm.jump(done);
                code.asm.bind(zero);
                code.asm.mov(R1, 1);
                code.asm.bind(done);
            }
            Expression::Binary(operator, left, right) if !is_truth(of) => {
                self.both(code, left, right, missing)?;
                let operation = match operator {
                    Binary::ShiftLeft => Alu::Lsh,
                    Binary::ShiftRight => Alu::Rsh,
                    Binary::BitAnd => Alu::And,
                    Binary::BitXor => Alu::Xor,
                    _ => Alu::Or,
                };
                if matches!(operation, Alu::Lsh | Alu::Rsh) {
                    code.asm.jump_if(Cond::Gt, R2, 63, missing);
                }
                code.asm.alu(operation, R1, R2);
            }
            truth => {
                let [no, done] = code.asm.labels();
                self.pass(code, truth, no)?;
                code.asm.mov(R1, 1);
                code.asm.jump(done);
                code.asm.bind(no);
                code.asm.mov(R1, 0);
                code.asm.bind(done);
            }
        }
        Ok(())
    }

    /// Goes on if the text matches, else to `differs`.
    fn text_equals(
        &self,
        code: &mut Code<'_>,
        field: &Field,
        pattern: &Pattern,
        differs: Label,
    ) -> Result<(), GenerateError> {
        let (wanted, whole) = match simple(pattern) {
            Some(simple) => simple,
            None => return self.matches(code, field, pattern, differs),
        };
        // Loads of a name that lies in the kernel cost less than a helper that copies it.
        if let (Type::Text(bytes), Source::Kernel(expr)) = (&field.ty, &field.from)
            && code.array_equals(expr, *bytes, (wanted, whole), differs)?
        {
            return Ok(());
        }
        let read = address_of(code, field)?;
        // One byte more than wanted tells a longer text from an equal one.
        let bytes = wanted.len() as i32 + if whole { 2 } else { 1 };
        code.asm.mov(R3, R1);
        code.asm.mov(R1, R10);
        code.asm.alu(Alu::Add, R1, i32::from(PIECE));
        code.asm.mov(R2, bytes);
        code.asm.call(read);
        let readable = code.asm.label();
        if wanted.is_empty() && whole {
            // What cannot be read is empty.
            code.asm.jump_if(Cond::SGt, R0, 1, differs);
            return Ok(());
        }
        code.asm.jump_if(Cond::Eq, R0, wanted.len() as i32 + 1, readable);
        code.asm.jump(differs);
        code.asm.bind(readable);
        code.bytes_equal(R10, PIECE, wanted, differs);
        Ok(())
    }

    /// As `text_equals`, for patterns with stars anywhere.
    fn matches(
        &self,
        code: &mut Code<'_>,
        field: &Field,
        pattern: &Pattern,
        differs: Label,
    ) -> Result<(), GenerateError> {
        let table = self.tables.iter().find(|(of, ..)| of == pattern);
        let (_, automaton, map) =
            table.ok_or(GenerateError::Mismatch("a filter's pattern that has no table"))?;
        let read = address_of(code, field)?;
        let [piece, end] = code.asm.labels();
        let asm = &mut code.asm;
        // R7 = the state, R8 = where the next piece begins, R9 = pieces left.
        asm.mov(R8, R1);
        asm.mov(R7, 0);
        asm.mov(R9, PIECES_MAX);
        asm.bind(piece);
        asm.mov(R1, R10);
        asm.alu(Alu::Add, R1, i32::from(PIECE));
        asm.mov(R2, PIECE_BYTES + 1);
        asm.mov(R3, R8);
        asm.call(read);
        asm.jump_if(Cond::SLe, R0, 0, end);
        for at in 0..PIECE_BYTES as i16 {
            asm.load(Width::B1, R1, R10, PIECE + at);
            asm.jump_if(Cond::Eq, R1, 0, end);
            asm.alu(Alu::And, R7, automaton.state_mask());
            asm.alu(Alu::Lsh, R7, 8);
            // Of an OR with what is not constant, verifiers before 6.6 keep nothing.
            asm.alu(Alu::Add, R7, R1);
            asm.map_value(R2, number(map), 0);
            asm.alu(Alu::Add, R2, R7);
            asm.load(Width::B1, R7, R2, 0);
        }
        asm.alu(Alu::Add, R8, PIECE_BYTES);
        asm.alu(Alu::Sub, R9, 1);
        asm.jump_if(Cond::Ne, R9, 0, piece);
        asm.bind(end);
        asm.jump_if(Cond::Ne, R7, automaton.accepting(), differs);
        Ok(())
    }
}

/// Whether an expression is a truth by itself: a comparison, or made of such.
fn is_truth(expression: &Expression) -> bool {
    match expression {
        Expression::Binary(operator, ..) => matches!(
            operator,
            Binary::And
                | Binary::Or
                | Binary::Less
                | Binary::LessOrEqual
                | Binary::Greater
                | Binary::GreaterOrEqual
                | Binary::Equal
                | Binary::NotEqual
        ),
        Expression::Unary(Unary::Not, operand) => is_truth(operand),
        _ => false,
    }
}

/// The bytes of a pattern without stars (true: all of the text) or with only one at its end.
fn simple(pattern: &Pattern) -> Option<(&[u8], bool)> {
    let mut parts = pattern.parts();
    let first = parts.next().filter(|part| part.len() <= LITERAL_BYTES_MAX)?;
    match (parts.next(), parts.next()) {
        (None, _) => Some((first, true)),
        (Some([]), None) => Some((first, false)),
        _ => None,
    }
}

/// R1 = the field's number as the record has it.
fn number_of(code: &mut Code<'_>, field: &Field) -> Result<(), GenerateError> {
    let (Type::Int(int) | Type::Enum(int, _), Source::Kernel(expr)) = (&field.ty, &field.from) else {
        return Err(GenerateError::Mismatch("a filter's number that is none"));
    };
    code.value(expr)?;
    let Int { bits, signed, big_endian, .. } = *int;
    if big_endian && cfg!(target_endian = "little") && bits > 8 {
        code.asm.push(Insn::to_big_endian(R1, bits.into()));
    }
    if bits < 64 {
        code.asm.alu(Alu::Lsh, R1, 64 - i32::from(bits));
        code.asm.alu(if signed { Alu::Arsh } else { Alu::Rsh }, R1, 64 - i32::from(bits));
    }
    Ok(())
}

/// R1 = where the field's text lies; the helper that reads there.
fn address_of(code: &mut Code<'_>, field: &Field) -> Result<i32, GenerateError> {
    match &field.from {
        Source::User(expr) => {
            code.value(expr)?;
            Ok(helper::READ_USER_STRING)
        }
        Source::Kernel(expr) => {
            code.address(expr)?;
            Ok(helper::READ_KERNEL_STRING)
        }
        _ => Err(GenerateError::Mismatch("a filter's text that is none")),
    }
}

/// Looks up what a filter names, and makes the tables of its patterns.
struct Check<'a> {
    filter: &'a mut Filter,
    recipe: &'a Recipe,
    text: &'a str,
}

/// What an expression gives.
#[derive(PartialEq)]
enum Gives {
    Number,
    Text,
}

impl Check<'_> {
    /// Where a reference stands in the text, in characters from 1.
    fn column(&self, reference: &Reference) -> usize {
        column_of(self.text, reference)
    }

    fn unfit(&self, reference: &Reference, what: &str) -> FilterRefusal {
        FilterRefusal::Unfit { column: self.column(reference), what: format!("{reference} {what}") }
    }

    fn condition(&mut self, of: &Expression) -> Result<(), FilterRefusal> {
        match self.gives(of)? {
            Gives::Number => Ok(()),
            Gives::Text => match of {
                Expression::Reference(reference) => Err(self.unfit(reference, "is text, not a condition")),
                _ => Err(FilterError::TextResult { column: 1 }.into()),
            },
        }
    }

    fn gives(&mut self, of: &Expression) -> Result<Gives, FilterRefusal> {
        match of {
            Expression::Integer(_) => Ok(Gives::Number),
            Expression::Real(_) => {
                Err(FilterRefusal::Unfit { column: 1, what: "the kernel has no real numbers".into() })
            }
            Expression::Text(_) => Ok(Gives::Text),
            Expression::Reference(reference) => self.reference(reference),
            Expression::Unary(_, operand) => self.condition(operand).map(|()| Gives::Number),
            Expression::Binary(Binary::And | Binary::Or, left, right) => {
                self.condition(left)?;
                self.condition(right).map(|()| Gives::Number)
            }
            Expression::Binary(operator, left, right) => {
                let sides = [self.gives(left)?, self.gives(right)?];
                if sides.iter().all(|side| *side == Gives::Number) {
                    return Ok(Gives::Number);
                }
                self.texts(*operator, left, right)?;
                Ok(Gives::Number)
            }
        }
    }

    /// A comparison in which one side is text: the other must be the field.
    fn texts(
        &mut self,
        operator: Binary,
        left: &Expression,
        right: &Expression,
    ) -> Result<(), FilterRefusal> {
        let (reference, pattern) = match (left, right) {
            (Expression::Reference(reference), Expression::Text(pattern))
            | (Expression::Text(pattern), Expression::Reference(reference)) => (reference, pattern),
            (Expression::Reference(reference), _) | (_, Expression::Reference(reference)) => {
                return Err(self.unfit(reference, "can only be compared with text in quotes"));
            }
            _ => return Err(FilterError::TextResult { column: 1 }.into()),
        };
        if self.reference(reference)? != Gives::Text {
            return Err(self.unfit(reference, "is a number, not text"));
        }
        if !matches!(operator, Binary::Equal | Binary::NotEqual) {
            return Err(self.unfit(reference, "is text: only == and != are done in the kernel"));
        }
        if simple(pattern).is_none() && !self.filter.tables.iter().any(|(of, ..)| of == pattern) {
            let parts: Vec<&[u8]> = pattern.parts().collect();
            let automaton = Automaton::new(&parts)
                .ok_or_else(|| self.unfit(reference, "is compared with a pattern that is too long"))?;
            let map = sys::create_map(&MapSpec {
                kind: MapKind::Array,
                value_bytes: automaton.table().len() as u32,
                entries: 1,
                mappable: false,
                inner: None,
                name: "pattern",
            })?;
            sys::set_value(map.as_fd(), &0u32.to_ne_bytes(), automaton.table())?;
            self.filter.tables.push((pattern.clone(), automaton, map));
        }
        Ok(())
    }

    fn reference(&mut self, reference: &Reference) -> Result<Gives, FilterRefusal> {
        let missing = |check: &Check<'_>, what: String| FilterRefusal::Missing {
            column: check.column(reference),
            event: check.recipe.name.to_string(),
            what,
        };
        let field = match &reference.root {
            Root::Field(name) => self.recipe.fields.iter().find(|field| *field.name == **name),
            Root::Context(name) => contexts::plain(name),
            _ => return Err(self.unfit(reference, "is not known in the kernel")),
        };
        let Some(field) = field else {
            return Err(missing(
                self,
                match &reference.root {
                    Root::Field(name) => format!("field {name}"),
                    _ => format!("context {reference}"),
                },
            ));
        };
        if !reference.steps.is_empty() {
            return Err(
                self.unfit(reference, "leads into a structure, which is not looked into in the kernel")
            );
        }
        let gives = match (&field.ty, &field.from) {
            (Type::Int(_) | Type::Enum(..), Source::Kernel(_)) => Gives::Number,
            (Type::Text(_) | Type::String, Source::Kernel(_)) | (Type::String, Source::User(_)) => {
                Gives::Text
            }
            _ => {
                return Err(
                    self.unfit(reference, "is made while it is recorded and cannot be compared before")
                );
            }
        };
        if !self.filter.fields.iter().any(|(of, _)| of == reference) {
            self.filter.fields.push((reference.clone(), field.clone()));
        }
        Ok(gives)
    }
}
