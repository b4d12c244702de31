//! Arguments of SDT probes: where the assembler put them, as x86's assembler writes it (`-4@%edi`,
//! `8@-16(%rbp)`, `4@$7`, `8@table+8(%rip)`), and the instructions that fetch them.
//!
//! What is not understood is None, never a guess; other machines' words are not.

use super::elf::{Elf, SdtSite};
use crate::code::{Code, GenerateError};
use sillage_bpf::{Alu, Reg, Width};

use Reg::*;

/// Where a number is when a probe is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    from: From,
    bytes: u8,
    signed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Constant(i64),
    /// A register of the kernel's name, shifted down by so many bits.
    Register(&'static str, u8),
    /// Memory at base + index * scale + displacement.
    Memory {
        base: Option<&'static str>,
        index: Option<(&'static str, u8)>,
        displacement: i64,
    },
}

/// An argument of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) operand: Operand,
    pub(super) signed: bool,
}

/// x86's registers: the assembler's eight bytes, four, two, one, and the kernel's name of it.
const REGISTERS: [(&str, &str, &str, &str, &str); 16] = [
    ("rax", "eax", "ax", "al", "ax"),
    ("rbx", "ebx", "bx", "bl", "bx"),
    ("rcx", "ecx", "cx", "cl", "cx"),
    ("rdx", "edx", "dx", "dl", "dx"),
    ("rsi", "esi", "si", "sil", "si"),
    ("rdi", "edi", "di", "dil", "di"),
    ("rbp", "ebp", "bp", "bpl", "bp"),
    ("rsp", "esp", "sp", "spl", "sp"),
    ("r8", "r8d", "r8w", "r8b", "r8"),
    ("r9", "r9d", "r9w", "r9b", "r9"),
    ("r10", "r10d", "r10w", "r10b", "r10"),
    ("r11", "r11d", "r11w", "r11b", "r11"),
    ("r12", "r12d", "r12w", "r12b", "r12"),
    ("r13", "r13d", "r13w", "r13b", "r13"),
    ("r14", "r14d", "r14w", "r14b", "r14"),
    ("r15", "r15d", "r15w", "r15b", "r15"),
];
/// The second bytes of the first four.
const HIGH: [(&str, &str); 4] = [("ah", "ax"), ("bh", "bx"), ("ch", "cx"), ("dh", "dx")];

/// A register by the assembler's name: the kernel's, its bytes, and by how much it is shifted.
fn register(name: &str) -> Option<(&'static str, u8, u8)> {
    if let Some((_, kernel)) = HIGH.iter().find(|(high, _)| *high == name) {
        return Some((kernel, 1, 8));
    }
    REGISTERS.iter().find_map(|(eight, four, two, one, kernel)| {
        let names = [(eight, 8), (four, 4), (two, 2), (one, 1)];
        names.iter().find(|(known, _)| **known == name).map(|(_, bytes)| (*kernel, *bytes, 0))
    })
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    } as i64;
    Some(if negative { value.wrapping_neg() } else { value })
}

impl Argument {
    /// Reads an argument of a place in a file.
    pub(super) fn parse(text: &str, site: &SdtSite, elf: &Elf) -> Option<Argument> {
        Argument::read(text, site.address, |symbol| elf.address(symbol))
    }

    fn read(text: &str, ip: u64, symbol: impl Fn(&str) -> Option<u64>) -> Option<Argument> {
        if !cfg!(target_arch = "x86_64") {
            return None;
        }
        let (size, place) = text.split_once('@')?;
        let (signed, size) = size.strip_prefix('-').map_or((false, size), |rest| (true, rest));
        let bytes: u8 = size.parse().ok().filter(|bytes| [1, 2, 4, 8].contains(bytes))?;
        let operand = |from| Some(Argument { operand: Operand { from, bytes, signed }, signed });
        if let Some(constant) = place.strip_prefix('$') {
            return operand(From::Constant(integer(constant)?));
        }
        if let Some(name) = place.strip_prefix('%') {
            let (name, _, shift) = register(name)?;
            return operand(From::Register(name, shift));
        }
        let (front, inside) = place.split_once('(')?;
        let mut parts = inside.strip_suffix(')')?.split(',');
        let named =
            |part: &str| part.strip_prefix('%').and_then(register).filter(|(_, bytes, _)| *bytes == 8);
        let base = match parts.next()? {
            "" => None,
            "%rip" => {
                // As far from the instruction as the linker put it.
                let (name, plus) = front.find(['+', '-']).map_or((front, Some(0)), |at| {
                    (&front[..at], integer(front[at..].trim_start_matches('+')))
                });
                let target = symbol(name)?.wrapping_add_signed(plus?);
                let displacement = target.wrapping_sub(ip) as i64;
                return operand(From::Memory { base: Some("ip"), index: None, displacement });
            }
            part => Some(named(part)?.0),
        };
        let index = match parts.next() {
            None => None,
            Some(part) => {
                let scale = parts.next().map_or(Some(1), |scale| scale.parse::<u8>().ok())?;
                if ![1, 2, 4, 8].contains(&scale) {
                    return None;
                }
                Some((named(part)?.0, scale))
            }
        };
        if parts.next().is_some() {
            return None;
        }
        let displacement = if front.is_empty() { 0 } else { integer(front)? };
        operand(From::Memory { base, index, displacement })
    }
}

impl Operand {
    /// What the stack pointer points to.
    pub(super) const fn top_of_stack() -> Operand {
        let from = From::Memory { base: Some("sp"), index: None, displacement: 0 };
        Operand { from, bytes: 8, signed: false }
    }

    /// R1 = the number; 0 if it lies in memory that cannot be read now.
    pub(crate) fn fetch(&self, code: &mut Code<'_>) -> Result<(), GenerateError> {
        match self.from {
            From::Constant(value) => {
                code.asm.constant(R1, value);
                return Ok(());
            }
            From::Register(name, shift) => {
                code.register(name)?;
                if shift > 0 {
                    code.asm.alu(Alu::Rsh, R1, i32::from(shift));
                }
                let unused = 64 - 8 * i32::from(self.bytes);
                if unused > 0 && !self.signed {
                    code.asm.alu(Alu::Lsh, R1, unused);
                    code.asm.alu(Alu::Rsh, R1, unused);
                }
            }
            From::Memory { base, index, displacement } => {
                match index {
                    Some((name, scale)) => {
                        code.register(name)?;
                        code.asm.alu(Alu::Lsh, R1, scale.trailing_zeros() as i32);
                    }
                    None => code.asm.mov(R1, 0),
                }
                code.asm.mov(R2, R1);
                match base {
                    Some(name) => code.register(name)?,
                    None => code.asm.mov(R1, 0),
                }
                code.asm.alu(Alu::Add, R1, R2);
                code.asm.constant(R2, displacement);
                code.asm.alu(Alu::Add, R1, R2);
                code.read_user(Width::of(self.bytes.into()).unwrap_or(Width::B8));
            }
        }
        if self.signed && self.bytes < 8 {
            code.asm.sign_extend(R1, u32::from(self.bytes) * 8);
        }
        Ok(())
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(From, u8, bool)> {
        let symbol = |name: &str| (name == "table").then_some(0x4000);
        let argument = Argument::read(text, 0x1000, symbol)?;
        Some((argument.operand.from, argument.operand.bytes, argument.signed))
    }

    #[test]
    fn the_assemblers_words_are_understood() {
        let memory = |base, index, displacement| From::Memory { base, index, displacement };
        for (text, want) in [
            ("-4@%edi", (From::Register("di", 0), 4, true)),
            ("8@%r10", (From::Register("r10", 0), 8, false)),
            ("1@%ah", (From::Register("ax", 8), 1, false)),
            ("-1@%r9b", (From::Register("r9", 0), 1, true)),
            ("-4@$-7", (From::Constant(-7), 4, true)),
            ("8@$0xffffffffffffffff", (From::Constant(-1), 8, false)),
            ("4@-20(%rbp)", (memory(Some("bp"), None, -20), 4, false)),
            ("8@(%rax,%rbx,4)", (memory(Some("ax"), Some(("bx", 4)), 0), 8, false)),
            ("8@0x10(,%rsi,8)", (memory(None, Some(("si", 8)), 16), 8, false)),
            ("8@(%rax,%rcx)", (memory(Some("ax"), Some(("cx", 1)), 0), 8, false)),
            ("-4@table+8(%rip)", (memory(Some("ip"), None, 0x3008), 4, true)),
            ("8@table-8(%rip)", (memory(Some("ip"), None, 0x2ff8), 8, false)),
        ] {
            assert_eq!(read(text), Some(want), "{text}");
        }
        for text in [
            "",
            "8@",
            "3@%rax",
            "8@%xmm0",
            "8@%zz",
            "8@4(%eax)",
            "8@(%rax,%rbx,3)",
            "8@other(%rip)",
            "8@(%rax",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
