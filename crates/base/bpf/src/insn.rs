//! The instruction set: registers, widths, operations and the eight bytes of an instruction.
//!
//! Only what every kernel since 5.12 takes (instruction set v3, atomics with fetch) can be expressed.

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reg {
    /// Return value of calls and of the program.
    R0,
    /// First argument; lost in a call, as are R2 to R5.
    R1,
    /// Second argument.
    R2,
    /// Third argument.
    R3,
    /// Fourth argument.
    R4,
    /// Fifth argument.
    R5,
    /// Kept over calls, as are R7 to R9.
    R6,
    /// Kept over calls.
    R7,
    /// Kept over calls.
    R8,
    /// Kept over calls.
    R9,
    /// End of the 512 bytes of stack; read-only.
    R10,
}

/// Bytes that a load or store moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// One byte.
    B1,
    /// Two bytes.
    B2,
    /// Four bytes.
    B4,
    /// Eight bytes.
    B8,
}

impl Width {
    /// The width of so many bytes, if there is one.
    pub const fn of(bytes: u32) -> Option<Width> {
        match bytes {
            1 => Some(Width::B1),
            2 => Some(Width::B2),
            4 => Some(Width::B4),
            8 => Some(Width::B8),
            _ => None,
        }
    }
    /// Bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Width::B1 => 1,
            Width::B2 => 2,
            Width::B4 => 4,
            Width::B8 => 8,
        }
    }
    /// Largest width that a piece of so many bytes (not 0) begins with.
    pub const fn largest_in(bytes: u32) -> Width {
        match bytes {
            0 | 1 => Width::B1,
            2 | 3 => Width::B2,
            4..=7 => Width::B4,
            _ => Width::B8,
        }
    }
    const fn code(self) -> u8 {
        match self {
            Width::B4 => 0x00,
            Width::B2 => 0x08,
            Width::B1 => 0x10,
            Width::B8 => 0x18,
        }
    }
}

/// An operation on 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Alu {
    /// `dst += src`
    Add = 0x00,
    /// `dst -= src`
    Sub = 0x10,
    /// `dst *= src`
    Mul = 0x20,
    /// `dst /= src`, unsigned; 0 if src is 0
    Div = 0x30,
    /// `dst |= src`
    Or = 0x40,
    /// `dst &= src`
    And = 0x50,
    /// `dst <<= src`
    Lsh = 0x60,
    /// `dst >>= src`, zeroes shifted in
    Rsh = 0x70,
    /// `dst = -dst`
    Neg = 0x80,
    /// `dst %= src`, unsigned
    Mod = 0x90,
    /// `dst ^= src`
    Xor = 0xa0,
    /// `dst = src`
    Mov = 0xb0,
    /// `dst >>= src`, the sign shifted in
    Arsh = 0xc0,
}

/// A comparison of 64 bits; the jump is taken when it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cond {
    /// equal
    Eq = 0x10,
    /// unsigned greater
    Gt = 0x20,
    /// unsigned greater or equal
    Ge = 0x30,
    /// a common bit
    Set = 0x40,
    /// not equal
    Ne = 0x50,
    /// signed greater
    SGt = 0x60,
    /// signed greater or equal
    SGe = 0x70,
    /// unsigned less
    Lt = 0xa0,
    /// unsigned less or equal
    Le = 0xb0,
    /// signed less
    SLt = 0xc0,
    /// signed less or equal
    SLe = 0xd0,
}

/// Second operand: a register, or a constant that is sign-extended to 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A register.
    Reg(Reg),
    /// A constant.
    Imm(i32),
}

impl From<Reg> for Operand {
    fn from(reg: Reg) -> Operand {
        Operand::Reg(reg)
    }
}

impl From<i32> for Operand {
    fn from(imm: i32) -> Operand {
        Operand::Imm(imm)
    }
}

/// Atomic operations on a word in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Atomic {
    /// `*p += src`, without an order on weakly ordered machines
    Add = 0x00,
    /// `src = *p; *p += src`, a full barrier
    FetchAdd = 0x01,
    /// `swap(*p, src)`, a full barrier
    Exchange = 0xe1,
    /// `if *p == r0 { *p = src }; r0 = old *p`, a full barrier
    CompareExchange = 0xf1,
}

/// One instruction, as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// Class, operation and form.
    pub code: u8,
    /// Destination (low) and source (high) register.
    pub registers: u8,
    /// Offset of a memory access, or jump distance in instructions.
    pub offset: i16,
    /// Constant.
    pub imm: i32,
}

const ALU64: u8 = 0x07;
const JMP: u8 = 0x05;
const FROM_REGISTER: u8 = 0x08;

impl Insn {
    const fn new(code: u8, dst: Reg, src: Reg, offset: i16, imm: i32) -> Insn {
        Insn { code, registers: dst as u8 | (src as u8) << 4, offset, imm }
    }
    fn with(code: u8, dst: Reg, operand: Operand, offset: i16) -> Insn {
        match operand {
            Operand::Reg(src) => Insn::new(code | FROM_REGISTER, dst, src, offset, 0),
            Operand::Imm(imm) => Insn::new(code, dst, Reg::R0, offset, imm),
        }
    }
    /// 64-bit arithmetic.
    pub fn alu(op: Alu, dst: Reg, operand: Operand) -> Insn {
        Insn::with(ALU64 | op as u8, dst, operand, 0)
    }
    /// `dst = src`, the lower 32 bits; the upper ones become 0. Of a pointer it makes a number.
    pub const fn mov32(dst: Reg, src: Reg) -> Insn {
        Insn::new(0xbc, dst, src, 0, 0)
    }
    /// Swaps the lowest `bits` (16, 32, 64) of a register from or to big-endian; the rest becomes 0.
    pub const fn to_big_endian(dst: Reg, bits: i32) -> Insn {
        Insn::new(0xdc, dst, Reg::R0, 0, bits)
    }
    /// `dst = *(src + offset)`, zero-extended.
    pub const fn load(width: Width, dst: Reg, src: Reg, offset: i16) -> Insn {
        Insn::new(0x61 | width.code(), dst, src, offset, 0)
    }
    /// `*(dst + offset) = src`
    pub const fn store(width: Width, dst: Reg, offset: i16, src: Reg) -> Insn {
        Insn::new(0x63 | width.code(), dst, src, offset, 0)
    }
    /// `*(dst + offset) = imm`
    pub const fn store_imm(width: Width, dst: Reg, offset: i16, imm: i32) -> Insn {
        Insn::new(0x62 | width.code(), dst, Reg::R0, offset, imm)
    }
    /// An atomic operation on the eight bytes at `dst + offset`.
    pub const fn atomic(op: Atomic, dst: Reg, offset: i16, src: Reg) -> Insn {
        Insn::new(0xdb, dst, src, offset, op as i32)
    }
    /// A jump without its distance.
    pub(crate) const fn jump() -> Insn {
        Insn::new(JMP, Reg::R0, Reg::R0, 0, 0)
    }
    /// A conditional jump without its distance.
    pub(crate) fn jump_if(cond: Cond, dst: Reg, operand: Operand) -> Insn {
        Insn::with(JMP | cond as u8, dst, operand, 0)
    }
    /// Calls a helper by its number.
    pub const fn call(helper: i32) -> Insn {
        Insn::new(0x85, Reg::R0, Reg::R0, 0, helper)
    }
    /// Calls a function of the kernel by the number of its type in the kernel's BTF.
    pub const fn call_kernel(function: u32) -> Insn {
        Insn { code: 0x85, registers: 2 << 4, offset: 0, imm: function as i32 }
    }
    /// Ends the program with R0.
    pub const fn exit() -> Insn {
        Insn::new(0x95, Reg::R0, Reg::R0, 0, 0)
    }
    /// Both halves of a 64-bit constant.
    pub const fn wide(dst: Reg, value: u64) -> [Insn; 2] {
        Insn::wide_of(dst, 0, value as u32 as i32, (value >> 32) as u32 as i32)
    }
    /// Both halves of a reference to the map with this descriptor.
    pub const fn map(dst: Reg, descriptor: i32) -> [Insn; 2] {
        Insn::wide_of(dst, 1, descriptor, 0)
    }
    /// Both halves of the address `offset` behind the value of an array of one with this descriptor.
    pub const fn map_value(dst: Reg, descriptor: i32, offset: i32) -> [Insn; 2] {
        Insn::wide_of(dst, 2, descriptor, offset)
    }
    const fn wide_of(dst: Reg, source: u8, low: i32, high: i32) -> [Insn; 2] {
        let first = Insn { code: 0x18, registers: dst as u8 | source << 4, offset: 0, imm: low };
        [first, Insn { code: 0, registers: 0, offset: 0, imm: high }]
    }
}

const _: () = assert!(size_of::<Insn>() == 8);
