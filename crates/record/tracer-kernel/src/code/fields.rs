//! Fields of a record as stores: numbers, texts, arrays and sequences, one behind the other.
//!
//! What has a fixed length is stored at constant places behind R8. From the first field of variable
//! length on, R9 counts, within bounds that the verifier can follow. Nothing here finds values: they
//! come from expressions, or in a register.

use super::{Code, GenerateError, Null, Reads, STAGED_BYTES_MAX, STRING_BYTES_MAX, helper};
use crate::recipe::{Expr, Field, Int, Source, Type};
use sillage_bpf::{Alu, Cond, Reg, Width};

use Reg::*;

/// Offset of a word in front of a staged payload, which the verifier knows nothing about.
const FORGET: i16 = -56;

impl Code<'_> {
    /// Register and offset where the next byte of the payload goes. May lose R5.
    fn target(&mut self) -> (Reg, i16) {
        if !self.variable {
            return (R8, self.fixed as i16);
        }
        self.asm.mov(R5, R8);
        self.asm.alu(Alu::Add, R5, R9);
        (R5, self.fixed as i16)
    }

    /// Appends an integer (of 8 to 64 bits). Numbers in network order are stored as they were read.
    pub fn put(&mut self, reg: Reg, int: Int) {
        let width = Width::of(int.bytes()).unwrap_or(Width::B8);
        let (base, offset) = self.target();
        self.asm.store(width, base, offset, reg);
        self.fixed += width.bytes();
    }

    /// From here on lengths are only known when the program runs: R9 counts.
    pub fn begin_variable(&mut self) {
        if !self.variable {
            self.asm.mov(R9, self.fixed as i32);
        } else if self.fixed > 0 {
            self.asm.alu(Alu::Add, R9, self.fixed as i32);
        }
        self.variable = true;
        self.fixed = 0;
    }

    /// Appends an integer of a sequence; between `begin_variable` and `end_variable`.
    pub fn put_variable(&mut self, reg: Reg, width: Width) {
        let (base, offset) = self.target();
        self.asm.store(width, base, offset, reg);
        self.asm.alu(Alu::Add, R9, width.bytes() as i32);
    }

    /// What was appended since `begin_variable` is complete: R9 is in bounds from here on.
    pub fn end_variable(&mut self) {
        self.asm.jump_if(Cond::Gt, R9, STAGED_BYTES_MAX as i32, self.too_large);
    }

    /// As `end_variable`; the verifier also forgets what else it knew about the length. For loops, whose
    /// rounds shall look alike.
    pub fn forget_length(&mut self) {
        self.asm.store(Width::B8, R8, FORGET, R9);
        self.asm.load(Width::B8, R9, R8, FORGET);
        self.end_variable();
    }

    /// Appends zeroes.
    fn put_zeroes(&mut self, bytes: u32) {
        let (base, offset) = self.target();
        let mut at = 0;
        while at < bytes {
            let width = Width::largest_in(bytes - at);
            self.asm.store_imm(width, base, offset + at as i16, 0);
            at += width.bytes();
        }
        self.fixed += bytes;
    }

    /// Appends `bytes` bytes of text or numbers: those of the source, then zeroes.
    fn put_bytes(&mut self, expr: &Expr, bytes: u32) -> Result<(), GenerateError> {
        let expr = self.chosen(expr)?;
        match expr {
            Expr::Path { root, path, .. } => {
                let access = self.access(root, path)?;
                let [null, done] = self.asm.labels();
                let start = self.fixed;
                let null_pointers = self.start(root, &access)?;
                if null_pointers == Null::ReadsAsZero && i16::try_from(access.offset + bytes).is_ok() {
                    for offset in &access.loads {
                        self.read(*offset, Width::B8)?;
                    }
                    let have = access.place.bytes.min(bytes);
                    self.copy(R1, access.offset as i16, have, 8);
                    self.put_zeroes(bytes - have);
                    return Ok(());
                }
                self.follow(&access, null)?;
                let have = access.place.bytes.min(bytes);
                match (self.reads, i16::try_from(access.offset + have)) {
                    (Reads::Direct, Ok(_)) => self.copy(R1, access.offset as i16, have, 8),
                    _ => {
                        self.asm.alu(Alu::Add, R1, access.offset as i32);
                        self.copy_kernel(have);
                    }
                }
                self.put_zeroes(bytes - have);
                self.asm.jump(done);
                self.asm.bind(null);
                self.fixed = start;
                self.put_zeroes(bytes);
                self.asm.bind(done);
                Ok(())
            }
            Expr::Record { offset, bytes: have, .. } => {
                let have = u32::from(have).min(bytes);
                // The kernel checks that loads of the record are aligned.
                self.copy(R6, offset as i16, have, 1 << offset.trailing_zeros().min(3));
                self.put_zeroes(bytes - have);
                Ok(())
            }
            other => {
                self.value(&other)?;
                self.copy_kernel(bytes);
                Ok(())
            }
        }
    }

    /// Appends bytes by loads behind `src`, at most `largest` at a time. Loses R2.
    fn copy(&mut self, src: Reg, offset: i16, bytes: u32, largest: u32) {
        let (base, target) = self.target();
        let mut at = 0;
        while at < bytes {
            let width = Width::largest_in((bytes - at).min(largest));
            self.asm.load(width, R2, src, offset + at as i16);
            self.asm.store(width, base, target + at as i16, R2);
            at += width.bytes();
        }
        self.fixed += bytes;
    }

    /// Appends bytes of the program's stack.
    pub(crate) fn copy_stack(&mut self, offset: i16, bytes: u32) {
        self.copy(R10, offset, bytes, 8);
    }

    /// Appends bytes at the kernel address in R1; zeroes if they cannot be read.
    pub fn copy_kernel(&mut self, bytes: u32) {
        self.asm.mov(R3, R1);
        let (base, offset) = self.target();
        self.asm.mov(R1, base);
        self.asm.alu(Alu::Add, R1, i32::from(offset));
        self.asm.mov(R2, bytes as i32);
        self.asm.call(helper::READ_KERNEL);
        self.fixed += bytes;
    }

    /// Appends bytes at the kernel address in R1, between `begin_variable` and `end_variable`; zeroes if
    /// they cannot be read.
    pub fn append_kernel(&mut self, bytes: i32) {
        self.asm.mov(R3, R1);
        self.asm.mov(R1, R8);
        self.asm.alu(Alu::Add, R1, R9);
        self.asm.mov(R2, bytes);
        self.asm.call(helper::READ_KERNEL);
        self.asm.alu(Alu::Add, R9, bytes);
    }

    /// Appends what a program hands over: its address and length are the arguments of this one.
    pub(crate) fn append_payload(&mut self) {
        self.begin_variable();
        let fits = self.asm.label();
        self.asm.load(Width::B8, R2, R6, 8);
        self.asm.jump_if(Cond::Le, R2, STRING_BYTES_MAX as i32, fits);
        self.asm.mov(R2, STRING_BYTES_MAX as i32);
        self.asm.bind(fits);
        let length = self.spill(R2);
        self.asm.load(Width::B8, R3, R6, 0);
        self.asm.mov(R1, R8);
        self.asm.alu(Alu::Add, R1, R9);
        self.asm.call(helper::READ_USER);
        self.unspill(R2, length);
        self.release(1);
        self.asm.alu(Alu::Add, R9, R2);
        self.end_variable();
    }

    /// Appends the string at the address in R1; an empty one if it cannot be read.
    /// For a string of the program, `late` is its name and where its address comes from.
    fn put_string(&mut self, read: i32, late: Option<(&str, &Expr)>) -> Result<(), GenerateError> {
        self.asm.mov(R3, R1);
        self.begin_variable();
        self.asm.mov(R1, R8);
        self.asm.alu(Alu::Add, R1, R9);
        self.asm.mov(R2, STRING_BYTES_MAX as i32);
        self.asm.call(read);
        let read = self.asm.label();
        self.asm.jump_if(Cond::SGt, R0, 0, read);
        let (base, offset) = self.target();
        self.asm.store_imm(Width::B1, base, offset, 0);
        if let (Some((waiting, call)), Some((argument, address))) = (self.late, late) {
            self.value(address)?;
            waiting.remember(self, self.strings, call, argument);
            self.strings += 1;
        }
        self.asm.mov(R0, 1);
        self.asm.bind(read);
        self.asm.alu(Alu::Add, R9, R0);
        // So that the verifier follows what comes behind once, not for either outcome.
        self.forget_length();
        Ok(())
    }

    /// Appends a count and as many bytes of the kernel.
    fn put_sequence(
        &mut self,
        count: Int,
        element_bytes: u32,
        from: &Expr,
        number: &Expr,
        most: u32,
    ) -> Result<(), GenerateError> {
        let most = most.min(STRING_BYTES_MAX / element_bytes);
        self.address(from)?;
        let start = self.spill(R1);
        self.value(number)?;
        self.at_most(most);
        let kept = self.spill(R1);
        self.put(R1, count);
        self.begin_variable();
        self.asm.mov(R1, R8);
        self.asm.alu(Alu::Add, R1, R9);
        self.unspill(R2, kept);
        self.asm.alu(Alu::Mul, R2, element_bytes as i32);
        self.unspill(R3, start);
        // The length again, over the call.
        self.asm.store(Width::B8, R10, kept.0, R2);
        self.asm.call(helper::READ_KERNEL);
        self.unspill(R1, kept);
        self.asm.alu(Alu::Add, R9, R1);
        self.release(2);
        self.end_variable();
        Ok(())
    }

    /// Appends a field.
    ///
    /// # Errors
    /// This kernel does not have what it comes from, or type and source do not go together.
    pub fn field(&mut self, field: &Field) -> Result<(), GenerateError> {
        let wrap = |error| GenerateError::Field { field: field.name.to_string(), error: Box::new(error) };
        self.field_of(&field.name, &field.ty, &field.from).map_err(wrap)
    }

    fn field_of(&mut self, name: &str, ty: &Type, from: &Source) -> Result<(), GenerateError> {
        match (ty, from) {
            (_, Source::Custom(emit)) => emit(self)?,
            (Type::Int(int) | Type::Enum(int, _), Source::Kernel(expr)) => {
                self.low_value(expr, int.bytes())?;
                self.put(R1, *int);
            }
            (Type::Text(bytes), Source::Kernel(expr)) => self.put_bytes(expr, *bytes)?,
            (Type::Array(element, count), Source::Kernel(expr)) => {
                self.put_bytes(expr, element.bytes() * count)?;
            }
            (Type::String, Source::Kernel(expr)) => {
                self.address(expr)?;
                self.put_string(helper::READ_KERNEL_STRING, None)?;
            }
            (Type::String, Source::User(expr)) => {
                self.value(expr)?;
                self.put_string(helper::READ_USER_STRING, Some((name, expr)))?;
            }
            (Type::Sequence { count, element }, Source::Sequence { from, count: number, most }) => {
                let bytes = element.fixed_bytes().filter(|bytes| *bytes > 0);
                let bytes =
                    bytes.ok_or(GenerateError::Mismatch("elements of a copied sequence have a size"))?;
                self.put_sequence(*count, bytes, from, number, *most)?;
            }
            (Type::TextSequence { count }, Source::Sequence { from, count: number, most }) => {
                self.put_sequence(*count, 1, from, number, *most)?;
            }
            _ => return Err(GenerateError::Mismatch("this type needs another source")),
        }
        Ok(())
    }

    /// The payload is complete; if its length varies, R9 says it.
    pub(crate) fn end_payload(&mut self) {
        if self.variable && self.fixed > 0 {
            self.asm.alu(Alu::Add, R9, self.fixed as i32);
            self.end_variable();
        }
    }

    /// Bytes of a payload whose length does not vary.
    pub(crate) fn fixed_payload(&self) -> Option<u32> {
        Some(self.fixed).filter(|_| !self.variable)
    }
}
