//! Guards that need no filter expression: who is left out of a channel.

use crate::code::{Code, GenerateError, helper};
use sillage_bpf::{Alu, Cond, Label, Reg};

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
