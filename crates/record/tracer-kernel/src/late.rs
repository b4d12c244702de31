//! Strings of system calls that could not be read at entry because their page was not in memory: they are
//! read again when the call returns, for which the kernel has fetched the page by then.
//!
//! A record of an entry is there when the call begins and cannot grow later, LTTng's exits have no place
//! for what went in, and holding the entry back would put it at the wrong time. So such a string becomes an
//! event of its own, `syscall_late_string`, between entry and exit. What is to be read again stands in a map by
//! task and string. A counter says how many there are: as long as it is 0, which is nearly always, an exit
//! costs one load more. When `execve` has succeeded, the memory that its file's name stood in is gone; the
//! kernel has put the name into the new one. Structures are not read again.

use crate::code::{Code, GenerateError, helper};
use crate::recipe::{Expr, Field, Hook, Recipe, Source, Type, current, custom};
use crate::sys::{self, MapKind, MapSpec, SysError, number};
use sillage_bpf::{Alu, Atomic, Cond, Label, Reg, Width};
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use Reg::*;

/// Name of the event.
pub const LATE_STRING: &str = "syscall_late_string";
/// Strings of a call that are read again.
pub(crate) const STRINGS_MAX: u32 = 3;
/// Strings that wait for the end of their calls at a time; more stay empty.
const WAITING_MAX: u32 = 1024;
/// Bytes of a call's and an argument's name in the record, zero included.
const CALL_BYTES: u32 = 32;
const ARGUMENT_BYTES: u32 = 16;
const VALUE_BYTES: u32 = 8 + CALL_BYTES + ARGUMENT_BYTES;

/// Stack offsets, below what [`Code`] keeps: task and string; address and names.
const KEY: i16 = -288;
const VALUE: i16 = KEY - VALUE_BYTES as i16;
const CALL: i16 = VALUE + 8;
const ARGUMENT: i16 = CALL + CALL_BYTES as i16;

/// Where the programs at exits find the call's result.
const RESULT: i16 = 8;
/// The call that replaces the program's memory, and the bit of an address that says it is such a call's: no
/// program has an address with it.
const EXECVE: &str = "execve";
const REPLACED: i64 = i64::MIN;

/// The event: which argument of which call, and what it was.
pub fn recipe() -> Recipe {
    const FIELDS: &[Field] = &[
        custom("call", Type::Text(CALL_BYTES), |code| {
            code.copy_stack(CALL, CALL_BYTES);
            Ok(())
        }),
        custom("argument", Type::Text(ARGUMENT_BYTES), |code| {
            code.copy_stack(ARGUMENT, ARGUMENT_BYTES);
            Ok(())
        }),
        Field { name: Cow::Borrowed("value"), ty: Type::String, from: Source::User(Expr::Custom(address)) },
    ];
    Recipe { name: Cow::Borrowed(LATE_STRING), hook: Hook::Later, fields: Cow::Borrowed(FIELDS) }
}

fn address(code: &mut Code<'_>) -> Result<(), GenerateError> {
    code.asm.load(Width::B8, R1, R10, VALUE);
    Ok(())
}

/// What the programs at both ends of calls share.
pub(crate) struct Late {
    waiting: OwnedFd,
    count: OwnedFd,
    /// Programs in the order in which they run when something waits: one for each string, then the plain
    /// dispatch of exits.
    chain: OwnedFd,
}

/// Descriptors of the maps, for programs.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    map: i32,
    count: i32,
}

impl Late {
    pub(crate) fn create() -> Result<Late, SysError> {
        let map = |kind, value_bytes, entries, name| {
            sys::create_map(&MapSpec { kind, value_bytes, entries, mappable: false, inner: None, name })
        };
        Ok(Late {
            waiting: map(MapKind::WholeHash, VALUE_BYTES, WAITING_MAX, "late_strings")?,
            count: map(MapKind::Array, 8, 1, "late_count")?,
            chain: map(MapKind::Programs, 4, STRINGS_MAX + 1, "late_chain")?,
        })
    }

    pub(crate) fn waiting(&self) -> Waiting {
        Waiting { map: number(&self.waiting), count: number(&self.count) }
    }

    /// Puts a program into the chain; the last one is the dispatch.
    pub(crate) fn set(&self, index: u32, program: BorrowedFd<'_>) -> Result<(), SysError> {
        sys::set_inner(self.chain.as_fd(), index, program)
    }

    /// Goes on with a program of the chain, if there is one.
    pub(crate) fn go_on(&self, code: &mut Code<'_>, index: u32) {
        tail_call(&mut code.asm, number(&self.chain), index);
    }

    /// What a program goes on with behind its own: descriptor of the chain and the place in it.
    pub(crate) fn behind(&self, index: u32) -> (i32, u32) {
        (number(&self.chain), index + 1)
    }

    /// Goes to `none` if no string waits anywhere.
    pub(crate) fn unless_any(&self, code: &mut Code<'_>, none: Label) {
        code.asm.map_value(R1, number(&self.count), 0);
        code.asm.load(Width::B8, R1, R1, 0);
        code.asm.jump_if(Cond::Eq, R1, 0, none);
    }
}

/// Goes on with a program of an array, with this one's context (in R6); returns if there is none.
pub(crate) fn tail_call(asm: &mut sillage_bpf::Assembler, programs: i32, index: u32) {
    asm.mov(R1, R6);
    asm.map(R2, programs);
    asm.mov(R3, index as i32);
    asm.call(helper::TAIL_CALL);
}

impl Waiting {
    fn key(self, code: &mut Code<'_>, index: u32) {
        code.asm.call(helper::CURRENT_PID_TGID);
        code.asm.store(Width::B8, R10, KEY, R0);
        code.asm.store_imm(Width::B8, R10, KEY + 8, index as i32);
    }

    /// R1 and R2 = map and key, for a helper.
    fn place(self, code: &mut Code<'_>) {
        code.asm.map(R1, self.map);
        code.asm.mov(R2, R10);
        code.asm.alu(Alu::Add, R2, i32::from(KEY));
    }

    fn count(self, code: &mut Code<'_>, by: i32) {
        code.asm.map_value(R1, self.count, 0);
        code.asm.mov(R2, by);
        code.asm.atomic(Atomic::Add, R1, 0, R2);
    }

    /// Takes the place's string out, if one is there.
    fn take(self, code: &mut Code<'_>) {
        let nothing = code.asm.label();
        self.place(code);
        code.asm.call(helper::MAP_DELETE);
        code.asm.jump_if(Cond::Ne, R0, 0, nothing);
        self.count(code, -1);
        code.asm.bind(nothing);
    }

    /// The string at the address in R1 is to be read again, as string `index` of the current task's call.
    pub(crate) fn remember(self, code: &mut Code<'_>, index: u32, call: &str, argument: &str) {
        const ANY: i32 = 0;
        let done = code.asm.label();
        code.asm.jump_if(Cond::Eq, R1, 0, done);
        if call == EXECVE {
            code.asm.constant(R2, REPLACED);
            code.asm.alu(Alu::Or, R1, R2);
        }
        code.asm.store(Width::B8, R10, VALUE, R1);
        store_text(code, CALL, call, CALL_BYTES);
        store_text(code, ARGUMENT, argument, ARGUMENT_BYTES);
        self.key(code, index);
        // Of a call whose end was not seen.
        self.take(code);
        self.place(code);
        code.asm.mov(R3, R10);
        code.asm.alu(Alu::Add, R3, i32::from(VALUE));
        code.asm.mov(R4, ANY);
        code.asm.call(helper::MAP_UPDATE);
        code.asm.jump_if(Cond::Ne, R0, 0, done);
        self.count(code, 1);
        code.asm.bind(done);
    }

    /// Takes string `index` of the current task's call, for the record that follows. Goes to `none` if it
    /// has no such string, or the string cannot be read now either.
    ///
    /// # Errors
    /// This kernel does not say where it puts the name of a program's file.
    pub(crate) fn recall(self, code: &mut Code<'_>, index: u32, none: Label) -> Result<(), GenerateError> {
        self.key(code, index);
        self.place(code);
        code.asm.call(helper::MAP_LOOKUP);
        code.asm.jump_if(Cond::Eq, R0, 0, none);
        for word in (0..VALUE_BYTES as i16).step_by(8) {
            code.asm.load(Width::B8, R1, R0, word);
            code.asm.store(Width::B8, R10, VALUE + word, R1);
        }
        self.take(code);
        self.find_again(code)?;
        code.asm.load(Width::B8, R3, R10, VALUE);
        code.asm.mov(R1, R10);
        code.asm.alu(Alu::Add, R1, i32::from(KEY));
        code.asm.mov(R2, 1);
        code.asm.call(helper::READ_USER);
        code.asm.jump_if(Cond::Ne, R0, 0, none);
        Ok(())
    }

    /// Where the string is now: of an `execve` that succeeded, behind the new program's environment.
    fn find_again(self, code: &mut Code<'_>) -> Result<(), GenerateError> {
        let found = code.asm.label();
        code.asm.load(Width::B8, R1, R10, VALUE);
        code.asm.jump_if(Cond::SGe, R1, 0, found);
        code.asm.constant(R2, !REPLACED);
        code.asm.alu(Alu::And, R1, R2);
        code.asm.store(Width::B8, R10, VALUE, R1);
        code.asm.load(Width::B8, R1, R6, RESULT);
        code.asm.jump_if(Cond::Ne, R1, 0, found);
        code.value(&current("mm->env_end"))?;
        code.asm.store(Width::B8, R10, VALUE, R1);
        code.asm.bind(found);
        Ok(())
    }
}

/// Text with zeroes behind it, cut so that one is there.
fn store_text(code: &mut Code<'_>, at: i16, text: &str, bytes: u32) {
    let text = &text.as_bytes()[..text.len().min(bytes as usize - 1)];
    for start in (0..bytes as usize).step_by(8) {
        let mut word = [0; 8];
        let part = text.get(start..).unwrap_or_default();
        let length = part.len().min(8);
        word[..length].copy_from_slice(&part[..length]);
        code.asm.constant(R1, i64::from_ne_bytes(word));
        code.asm.store(Width::B8, R10, at + start as i16, R1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscalls::{Abi, Side, all};

    #[test]
    fn names_and_numbers_of_strings_fit() {
        for call in [Abi::Native, Abi::Compat].into_iter().flat_map(all) {
            let recipe = call.recipe(Side::Entry);
            let strings = recipe.fields.iter().filter(|field| matches!(field.from, Source::User(_)));
            let names: Vec<&str> = strings.map(|field| &*field.name).collect();
            assert!(names.len() <= STRINGS_MAX as usize, "{}: {names:?}", call.name);
            assert!(
                names.iter().all(|name| name.len() < ARGUMENT_BYTES as usize),
                "{}: {names:?}",
                call.name
            );
            assert!(call.name.len() < CALL_BYTES as usize, "{}", call.name);
        }
    }
}
