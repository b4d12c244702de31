//! System calls as events: `syscall_entry_NAME` with what goes in, `syscall_exit_NAME` with the result
//! and what comes out, by LTTng's names and fields; `compat_…` for those of 32-bit programs, and
//! `…_unknown` for numbers without a line in the tables.
//!
//! The tables are text (`native.txt`, `compat.txt`): a line for each call, from which entry and exit
//! are made. Calls whose arguments are structures have their fields in [`compounds`]. Numbers are those
//! of x86-64; other machines have empty tables, and every call is unknown.

mod compounds;

use crate::recipe::{
    Expr, Field, Hook, Int, Name, Recipe, Root, S16, S32, S64, Source, Type, U8, U16, U32, U64,
};
use crate::recipe::{arg, int};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Whose numbers a call has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Abi {
    /// Those of 64-bit programs.
    Native,
    /// Those of 32-bit programs on a 64-bit kernel.
    Compat,
}

/// Which end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The program enters the kernel.
    Entry,
    /// It returns.
    Exit,
}

impl Side {
    /// The tracepoint that all calls pass there.
    pub(crate) const fn tracepoint(self) -> &'static str {
        match self {
            Side::Entry => "sys_enter",
            Side::Exit => "sys_exit",
        }
    }
}

/// Numbers of calls that have slots of their own: beyond them every call is unknown.
pub(crate) const NUMBERS: u32 = 512;

/// One call of a table.
#[derive(Clone, Debug)]
pub struct Syscall {
    /// Its number.
    pub number: u32,
    /// LTTng's name of it.
    pub name: &'static str,
    /// Whose number.
    pub abi: Abi,
    result: Int,
    /// None if the fields are compounds.
    arguments: Option<Vec<Argument>>,
}

#[derive(Clone, Debug)]
struct Argument {
    name: &'static str,
    register: u8,
    /// None for a string.
    ty: Option<Int>,
    entry: bool,
    exit: bool,
}

fn parse_type(text: &str) -> Option<Int> {
    let (text, hex) = text.strip_suffix('x').map_or((text, false), |text| (text, true));
    let int = match text {
        "s16" => S16,
        "s32" => S32,
        "s64" => S64,
        "u8" => U8,
        "u16" => U16,
        "u32" => U32,
        "u64" => U64,
        _ => return None,
    };
    Some(if hex { int.hex() } else { int })
}

fn parse(line: &'static str, abi: Abi) -> Option<Syscall> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok()?;
    let name = words.next()?;
    let (mut result, mut arguments, mut register) = (S64, Some(Vec::new()), 0);
    for word in words {
        if word == "*" {
            arguments = None;
            continue;
        }
        if let Some(ty) = word.strip_prefix('^') {
            result = parse_type(ty)?;
            continue;
        }
        if let Some((name, ty)) = word.split_once(':') {
            let (entry, exit, name) = match name.as_bytes().first()? {
                b'>' => (false, true, &name[1..]),
                b'=' => (true, true, &name[1..]),
                _ => (true, false, name),
            };
            let ty = if ty == "str" { None } else { Some(parse_type(ty)?) };
            arguments.as_mut()?.push(Argument { name, register, ty, entry, exit });
        }
        register += 1;
    }
    Some(Syscall { number, name, abi, result, arguments })
}

fn table(text: &'static str, abi: Abi) -> Vec<Syscall> {
    let text = if cfg!(target_arch = "x86_64") { text } else { "" };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| parse(line, abi)).collect()
}

static NATIVE: LazyLock<Vec<Syscall>> = LazyLock::new(|| table(include_str!("native.txt"), Abi::Native));
static COMPAT: LazyLock<Vec<Syscall>> = LazyLock::new(|| table(include_str!("compat.txt"), Abi::Compat));

/// The calls of a table, by number.
pub fn all(abi: Abi) -> &'static [Syscall] {
    match abi {
        Abi::Native => &NATIVE,
        Abi::Compat => &COMPAT,
    }
}

/// A call by LTTng's name of it.
pub fn find(abi: Abi, name: &str) -> Option<&'static Syscall> {
    all(abi).iter().find(|call| call.name == name)
}

/// Name of the event of one end of a call.
pub(crate) fn event_name(abi: Abi, side: Side, name: &str) -> Name {
    let compat = if abi == Abi::Compat { "compat_" } else { "" };
    let side = if side == Side::Entry { "entry" } else { "exit" };
    Cow::Owned(format!("{compat}syscall_{side}_{name}"))
}

/// An argument of a call, by its place.
pub(crate) const fn register(abi: Abi, index: u8) -> Expr {
    const NATIVE: [&str; 6] = ["di", "si", "dx", "r10", "r8", "r9"];
    const COMPAT: [&str; 6] = ["bx", "cx", "dx", "si", "di", "bp"];
    let names = match abi {
        Abi::Native => NATIVE,
        Abi::Compat => COMPAT,
    };
    Expr::Path { root: Root::Arg(0), path: names[index as usize], plus: 0 }
}

impl Syscall {
    /// One end of it as an event.
    pub fn recipe(&self, side: Side) -> Recipe {
        let result = (side == Side::Exit).then(|| int("ret", self.result, arg(1)));
        let mut fields: Vec<Field> = result.into_iter().collect();
        match &self.arguments {
            Some(arguments) => {
                let here = |a: &&Argument| if side == Side::Entry { a.entry } else { a.exit };
                fields.extend(arguments.iter().filter(here).map(|argument| {
                    let from = register(self.abi, argument.register);
                    let name = Cow::Borrowed(argument.name);
                    match argument.ty {
                        Some(ty) => Field { name, ty: Type::Int(ty), from: Source::Kernel(from) },
                        None => Field { name, ty: Type::String, from: Source::User(from) },
                    }
                }));
            }
            None => fields.extend(compounds::fields(self.name, self.abi, side)),
        }
        let number = Some(self.number);
        let hook = Hook::Syscall { abi: self.abi, side, number };
        Recipe { name: event_name(self.abi, side, self.name), hook, fields: Cow::Owned(fields) }
    }
}

/// The event of calls without a line in the tables.
pub fn unknown(abi: Abi, side: Side) -> Recipe {
    let id = Expr::Path { root: Root::Arg(0), path: "orig_ax", plus: 0 };
    let mut fields = vec![int("id", S32, id)];
    if side == Side::Exit {
        fields.push(int("ret", S64, arg(1)));
    }
    fields.push(compounds::all_arguments(abi));
    let hook = Hook::Syscall { abi, side, number: None };
    Recipe { name: event_name(abi, side, "unknown"), hook, fields: Cow::Owned(fields) }
}

/// Both ends of every call of a table, the unknown ones last.
pub fn recipes(abi: Abi) -> impl Iterator<Item = Recipe> {
    let known = all(abi).iter().flat_map(|call| [call.recipe(Side::Entry), call.recipe(Side::Exit)]);
    known.chain([unknown(abi, Side::Entry), unknown(abi, Side::Exit)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood_and_numbers_are_unique() {
        for (text, abi) in
            [(include_str!("native.txt"), Abi::Native), (include_str!("compat.txt"), Abi::Compat)]
        {
            let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
            lines.iter().for_each(|line| assert!(parse(line, abi).is_some(), "{line}"));
            let calls = all(abi);
            assert_eq!(calls.len(), lines.len());
            assert!(calls.windows(2).all(|pair| pair[0].number < pair[1].number));
            assert!(calls.iter().all(|call| call.number < NUMBERS));
        }
    }
}
