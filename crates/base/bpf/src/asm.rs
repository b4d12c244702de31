//! The assembler: instructions one after the other, with labels that may be bound later.

use crate::insn::{Alu, Atomic, Cond, Insn, Operand, Reg, Width};
use thiserror::Error;

/// A place in the program that jumps can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label(usize);

/// Why there is no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AsmError {
    /// A jump to a label that was never bound.
    #[error("instruction {at} jumps to a label that is nowhere")]
    Unbound {
        /// Index of the jump.
        at: usize,
    },
    /// A jump over more instructions than 16 bits can say.
    #[error("instruction {at} jumps over {distance} instructions")]
    TooFar {
        /// Index of the jump.
        at: usize,
        /// Distance in instructions.
        distance: i64,
    },
}

/// A program being written.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    insns: Vec<Insn>,
    /// Place of each label, once bound.
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// An empty program.
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// Instructions so far.
    pub fn len(&self) -> usize {
        self.insns.len()
    }

    /// True before the first instruction.
    pub fn is_empty(&self) -> bool {
        self.insns.is_empty()
    }

    /// A new label, to be bound once.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Several new labels.
    pub fn labels<const N: usize>(&mut self) -> [Label; N] {
        std::array::from_fn(|_| self.label())
    }

    /// The label names the next instruction.
    pub fn bind(&mut self, label: Label) {
        debug_assert!(self.labels[label.0].is_none(), "a label is one place");
        self.labels[label.0] = Some(self.insns.len());
    }

    /// A label for the next instruction.
    pub fn here(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// Any instruction.
    pub fn push(&mut self, insn: Insn) {
        self.insns.push(insn);
    }

    /// `dst = src`
    pub fn mov(&mut self, dst: Reg, src: impl Into<Operand>) {
        self.alu(Alu::Mov, dst, src);
    }

    /// `dst = value`, in one or two slots.
    pub fn constant(&mut self, dst: Reg, value: i64) {
        match i32::try_from(value) {
            Ok(small) => self.mov(dst, small),
            Err(_) => self.insns.extend(Insn::wide(dst, value as u64)),
        }
    }

    /// `dst = dst op operand`, 64 bits.
    pub fn alu(&mut self, op: Alu, dst: Reg, operand: impl Into<Operand>) {
        self.push(Insn::alu(op, dst, operand.into()));
    }

    /// Loads with zero extension.
    pub fn load(&mut self, width: Width, dst: Reg, src: Reg, offset: i16) {
        self.push(Insn::load(width, dst, src, offset));
    }

    /// Stores the low bytes of `src`.
    pub fn store(&mut self, width: Width, dst: Reg, offset: i16, src: Reg) {
        self.push(Insn::store(width, dst, offset, src));
    }

    /// Stores a constant.
    pub fn store_imm(&mut self, width: Width, dst: Reg, offset: i16, imm: i32) {
        self.push(Insn::store_imm(width, dst, offset, imm));
    }

    /// An atomic operation on eight bytes.
    pub fn atomic(&mut self, op: Atomic, dst: Reg, offset: i16, src: Reg) {
        self.push(Insn::atomic(op, dst, offset, src));
    }

    /// `dst` = the low `bits` of itself, sign-extended.
    pub fn sign_extend(&mut self, dst: Reg, bits: u32) {
        if bits < 64 {
            self.alu(Alu::Lsh, dst, 64 - bits as i32);
            self.alu(Alu::Arsh, dst, 64 - bits as i32);
        }
    }

    /// Goes on at `label`.
    pub fn jump(&mut self, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(Insn::jump());
    }

    /// Goes on at `label` if `dst cond operand`.
    pub fn jump_if(&mut self, cond: Cond, dst: Reg, operand: impl Into<Operand>, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(Insn::jump_if(cond, dst, operand.into()));
    }

    /// Calls a helper: arguments in R1 to R5, result in R0.
    pub fn call(&mut self, helper: i32) {
        self.push(Insn::call(helper));
    }

    /// `dst` = the map with this descriptor, for a helper.
    pub fn map(&mut self, dst: Reg, descriptor: i32) {
        self.insns.extend(Insn::map(dst, descriptor));
    }

    /// `dst` = the address `offset` behind the only value of the array with this descriptor.
    pub fn map_value(&mut self, dst: Reg, descriptor: i32, offset: i32) {
        self.insns.extend(Insn::map_value(dst, descriptor, offset));
    }

    /// Ends the program with R0.
    pub fn exit(&mut self) {
        self.push(Insn::exit());
    }

    /// The program, its jumps resolved.
    ///
    /// # Errors
    /// A jump that leads nowhere, or too far.
    pub fn finish(mut self) -> Result<Vec<Insn>, AsmError> {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].ok_or(AsmError::Unbound { at })?;
            let distance = target as i64 - at as i64 - 1;
            self.insns[at].offset = i16::try_from(distance).map_err(|_| AsmError::TooFar { at, distance })?;
        }
        Ok(self.insns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reg::*;

    fn bytes(asm: Assembler) -> Vec<u64> {
        let insns = asm.finish().unwrap();
        let word = |i: &Insn| {
            u64::from(i.code)
                | u64::from(i.registers) << 8
                | u64::from(i.offset as u16) << 16
                | u64::from(i.imm as u32) << 32
        };
        insns.iter().map(word).collect()
    }

    #[test]
    fn instructions_have_the_kernels_bytes() {
        let mut a = Assembler::new();
        a.mov(R6, R1);
        a.mov(R1, -2);
        a.load(Width::B4, R1, R6, 8);
        a.store(Width::B8, R10, -8, R1);
        a.store_imm(Width::B1, R10, -1, 7);
        a.atomic(Atomic::CompareExchange, R7, 16, R3);
        a.constant(R2, 1 << 40);
        a.map(R1, 5);
        a.call(1);
        a.exit();
        let expected = [
            0x0000_0000_0000_16bf,
            0xffff_fffe_0000_01b7,
            0x0000_0000_0008_6161,
            0x0000_0000_fff8_1a7b,
            0x0000_0007_ffff_0a72,
            0x0000_00f1_0010_37db,
            0x0000_0000_0000_0218,
            0x0000_0100_0000_0000,
            0x0000_0005_0000_1118,
            0,
            0x0000_0001_0000_0085,
            0x0000_0000_0000_0095,
        ];
        assert_eq!(bytes(a), expected, "{:x?}", expected);
    }

    #[test]
    fn jumps_count_instructions_behind_themselves() {
        let mut a = Assembler::new();
        let out = a.label();
        let again = a.here();
        a.jump_if(Cond::Eq, R1, 0, out);
        a.jump_if(Cond::Lt, R1, R2, again);
        a.jump(out);
        a.bind(out);
        a.exit();
        let insns = a.finish().unwrap();
        assert_eq!([insns[0].offset, insns[1].offset, insns[2].offset], [2, -2, 0]);
        assert_eq!([insns[0].code, insns[1].code, insns[2].code], [0x15, 0xad, 0x05]);
    }

    #[test]
    fn what_cannot_be_assembled_is_an_error() {
        let mut a = Assembler::new();
        let nowhere = a.label();
        a.jump(nowhere);
        assert_eq!(a.finish(), Err(AsmError::Unbound { at: 0 }));
        let mut a = Assembler::new();
        let start = a.here();
        (0..40_000).for_each(|_| a.mov(R0, 0));
        a.jump(start);
        assert_eq!(a.finish(), Err(AsmError::TooFar { at: 40_000, distance: -40_001 }));
    }
}
