//! Guards that need no filter expression: who is left out of a channel.
//!
//! Programs see processes by their numbers in the kernel's first namespace. A daemon in a container has
//! another number for itself, so it asks the kernel by a program of its own ([`own_number`]), and never
//! compares what it reads in its /proc.

use crate::code::{Code, GenerateError, helper};
use crate::sys::{self, ProgramKind, SysError};
use sillage_bpf::{Alu, Assembler, Cond, Label, Reg};

/// Leaves out what this process does, by its number as the kernel's first namespace sees it.
///
/// # Errors
/// None; the type is that of all guards.
pub fn not_of(process: u32) -> impl Fn(&mut Code<'_>, Label) -> Result<(), GenerateError> {
    move |code, leave| {
        code.asm.call(helper::CURRENT_PID_TGID);
        code.asm.alu(Alu::Rsh, Reg::R0, 32);
        code.asm.jump_if(Cond::Eq, Reg::R0, process as i32, leave);
        Ok(())
    }
}

/// The number that this process has in the kernel's first namespace.
///
/// # Errors
/// No rights to load the program that asks; a kernel before 5.10, which does not run it for us.
pub fn own_number() -> Result<u32, SysError> {
    let mut asm = Assembler::new();
    asm.call(helper::CURRENT_PID_TGID);
    asm.alu(Alu::Rsh, Reg::R0, 32);
    asm.exit();
    let insns = asm.finish().unwrap_or_default();
    let program = sys::load_program(ProgramKind::RawTracepoint, &insns, "own_number")?;
    sys::run(std::os::fd::AsFd::as_fd(&program))
}
