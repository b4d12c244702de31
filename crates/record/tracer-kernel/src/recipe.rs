//! Recipes: a kernel event as data. What LTTng calls it, which tracepoint of the kernel it hangs on,
//! and for each field its name, its CTF type and where its value comes from.
//!
//! A file of recipes is a table that reads like LTTng's documentation; nothing here knows how
//! instructions are made (that is [`crate::code`]) or how metadata are written (`metadata`). The same
//! types describe contexts (fields in front of every event's) and events made from a tracepoint's
//! record format at run time, so whoever handles one handles all.
//!
//! ```
//! use sillage_tracer_kernel::fields;
//! use sillage_tracer_kernel::recipe::{Recipe, arg, at, s32, text};
//! static MIGRATE: Recipe = Recipe::on("sched_migrate_task", "sched_migrate_task", fields![
//!     text("comm", 16, at(0, "comm")),
//!     s32("tid", at(0, "pid")),
//!     s32("prio", at(0, "prio").plus(-100)),
//!     s32("dest_cpu", arg(1)),
//! ]);
//! ```
//!
//! Kernels differ: [`Expr::First`] lists ways to the same value, newest first, and the first one that
//! the running kernel's types know is taken. A recipe of which a field has no way left does not fit
//! this kernel, and says which field.

use crate::code::{Code, GenerateError};
use crate::probes::Operand;
use crate::syscalls::{Abi, Side};
use sillage_bpf::Alu;
use std::borrow::Cow;

/// The fields of a recipe in a table.
#[macro_export]
macro_rules! fields {
    ($($field:expr),* $(,)?) => { const { &[$($field),*] } };
}

/// The first of several ways to a value that the running kernel has, newest first.
#[macro_export]
macro_rules! first {
    ($($way:expr),* $(,)?) => { $crate::recipe::Expr::First(const { &[$($way),*] }) };
}

/// The second if the first is not 0, else the third.
#[macro_export]
macro_rules! choose {
    ($condition:expr, $then:expr, $other:expr $(,)?) => {
        $crate::recipe::Expr::If(const { &$condition }, const { &$then }, const { &$other })
    };
}

/// Text that is static in tables and made at run time for formats.
pub type Name = Cow<'static, str>;

/// One event.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// LTTng's name of it.
    pub name: Name,
    /// Where it comes from.
    pub hook: Hook,
    /// Its payload, in order.
    pub fields: Cow<'static, [Field]>,
}

/// What an event hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The typed raw tracepoint `btf_trace_<name>`: arguments as the kernel passes them.
    Tracepoint(Name),
    /// The record that the kernel's own tracing makes for this event of tracefs.
    Record {
        /// Folder of the event.
        category: Name,
        /// Event in it.
        name: Name,
        /// Its number.
        id: u32,
    },
    /// As `Record`, to be looked up in tracefs: what a table calls differently than the kernel.
    Format {
        /// Folder of the event.
        category: &'static str,
        /// Event in it.
        name: &'static str,
    },
    /// An iterator of the kernel: a record for each object.
    Iterator(&'static str),
    /// This process hands the payload over, for as many records as it likes.
    Payload,
    /// The end of a call of which a string could not be read at its beginning ([`crate::late`]).
    Later,
    /// A place in code.
    Code(Site),
    /// One end of a system call.
    Syscall {
        /// Whose numbers.
        abi: Abi,
        /// Which end.
        side: Side,
        /// The number; None for all that no table has.
        number: Option<u32>,
    },
}

/// Whose code a probe is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// The kernel's own.
    Kernel,
    /// Programs'.
    User,
}

/// A place in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Whose.
    pub unit: Unit,
    /// A file of programs' code; a symbol of the kernel, or nothing for an address.
    pub place: Name,
    /// Offset in the file or from the symbol, in bytes; or the address.
    pub offset: u64,
    /// Where in the file a counter of those who listen is; 0: nowhere.
    pub semaphore: u64,
    /// Not the place but the return of the function that begins there.
    pub returns: bool,
}

/// One field of a payload or context.
#[derive(Clone, Debug)]
pub struct Field {
    /// LTTng's name, without the underscore that metadata put in front.
    pub name: Name,
    /// How it lies in the record.
    pub ty: Type,
    /// Where it comes from.
    pub from: Source,
}

/// An integer in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    /// Width; below 8 only inside structs whose custom emitter packs them.
    pub bits: u8,
    /// True for signed.
    pub signed: bool,
    /// Base that readers show it in: 8, 10 or 16.
    pub base: u8,
    /// Network byte order.
    pub big_endian: bool,
    /// Alignment in bits: 8, or 1 for bit fields.
    pub align: u8,
}

impl Int {
    const fn new(bits: u8, signed: bool) -> Int {
        Int { bits, signed, base: 10, big_endian: false, align: 8 }
    }
    /// Shown in base 16.
    pub const fn hex(self) -> Int {
        Int { base: 16, ..self }
    }
    /// Shown in base 8.
    pub const fn octal(self) -> Int {
        Int { base: 8, ..self }
    }
    /// In network byte order.
    pub const fn network(self) -> Int {
        Int { big_endian: true, ..self }
    }
    /// Aligned to so many bits.
    pub const fn aligned(self, align: u8) -> Int {
        Int { align, ..self }
    }
    /// Without alignment, for bit fields.
    pub const fn packed(self) -> Int {
        Int { align: 1, ..self }
    }
    /// An unsigned integer of any width up to 64.
    pub const fn unsigned(bits: u8) -> Int {
        Int::new(bits, false)
    }
    /// Bytes of it.
    pub const fn bytes(self) -> u32 {
        self.bits as u32 / 8
    }
}

/// `s8` and so on.
pub const S8: Int = Int::new(8, true);
/// 16 bits, signed.
pub const S16: Int = Int::new(16, true);
/// 32 bits, signed.
pub const S32: Int = Int::new(32, true);
/// 64 bits, signed.
pub const S64: Int = Int::new(64, true);
/// 8 bits.
pub const U8: Int = Int::new(8, false);
/// 16 bits.
pub const U16: Int = Int::new(16, false);
/// 32 bits.
pub const U32: Int = Int::new(32, false);
/// 64 bits.
pub const U64: Int = Int::new(64, false);

/// A label of an enumeration: text, first and last value.
pub type Label = (&'static str, i64, i64);

/// How a field lies in a record. Everything is packed to bytes, as LTTng does on x86 and arm64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// An integer.
    Int(Int),
    /// An integer with labels.
    Enum(Int, &'static [Label]),
    /// So many bytes of text, with zeroes behind it.
    Text(u32),
    /// Bytes up to and with a zero.
    String,
    /// So many integers.
    Array(Int, u32),
    /// A count, then as many elements. The count is a field of its own, `_<name>_length`.
    Sequence {
        /// The count's integer.
        count: Int,
        /// One element.
        element: &'static Type,
    },
    /// As many elements as a field before it says, of which the emitter takes care.
    Counted {
        /// Name of that field.
        by: &'static str,
        /// One element.
        element: &'static Type,
    },
    /// Text with a count in front.
    TextSequence {
        /// The count's integer.
        count: Int,
    },
    /// Fields in a row. What they come from is up to the emitter of the outermost field.
    Struct(&'static [(&'static str, Type)]),
    /// Nothing, aligned to bytes; LTTng has one in front of arrays behind bit fields.
    Padding,
    /// One of several types, by the label of an enumeration that precedes it.
    Variant {
        /// Name of that field.
        tag: &'static str,
        /// Types by label.
        options: &'static [(&'static str, Type)],
    },
}

/// Writes a field that no expression can say.
pub type Emitter = fn(&mut Code<'_>) -> Result<(), GenerateError>;

/// Where a field comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// From the kernel: an integer's value; the bytes at a member for text and arrays; for strings
    /// those at a character array, or behind a pointer.
    Kernel(Expr),
    /// A string in the memory of the current process.
    User(Expr),
    /// A sequence: where its elements lie in the kernel, and how many there are. More than `most` are
    /// cut off.
    Sequence {
        /// Address of the first element.
        from: Expr,
        /// Number of elements.
        count: Expr,
        /// Most elements.
        most: u32,
    },
    /// Written by a function of its own.
    Custom(Emitter),
}

/// A pointer at which a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// An argument of the tracepoint, from 0.
    Arg(u8),
    /// The first argument that is a pointer to this struct, wherever it stands.
    ArgOf(&'static str),
    /// The current task.
    Current,
}

/// A number, as a rule for computing it.
#[derive(Clone, Copy, Debug)]
pub enum Expr {
    /// Always the same.
    Const(i64),
    /// An argument of the tracepoint itself, from 0.
    Arg {
        /// Which.
        index: u8,
        /// Added to it.
        plus: i32,
    },
    /// A member, found from a pointer.
    Path {
        /// The pointer.
        root: Root,
        /// The way from there, `a->b.c[2]`.
        path: &'static str,
        /// Added to it.
        plus: i32,
    },
    /// A member found from a value that is a pointer to a struct, whatever the kernel's types say.
    Behind {
        /// The pointer.
        pointer: &'static Expr,
        /// Name of the struct.
        of: &'static str,
        /// The way from there.
        path: &'static str,
    },
    /// Two numbers and an operation.
    Op(Alu, &'static Expr, &'static Expr),
    /// The second if the first is not 0, else the third.
    If(&'static Expr, &'static Expr, &'static Expr),
    /// The first of these that this kernel has.
    First(&'static [Expr]),
    /// The result of a helper without arguments.
    Helper(i32),
    /// The value of a label of the kernel's own enumeration.
    KernelLabel(&'static str, &'static str),
    /// Bytes of the tracepoint's record (for [`Hook::Record`]).
    Record {
        /// Where.
        offset: u16,
        /// How many: 1, 2, 4, 8, or any number for text and arrays.
        bytes: u16,
        /// True for signed.
        signed: bool,
    },
    /// A string or array whose place in the record stands in the record (`__data_loc`).
    RecordDynamic {
        /// Where the place stands.
        offset: u16,
        /// True if it counts from behind itself (`__rel_loc`).
        relative: bool,
    },
    /// Bytes of such an array, divided by `element_bytes`.
    RecordDynamicCount {
        /// Where the place stands.
        offset: u16,
        /// Bytes of an element.
        element_bytes: u16,
    },
    /// A field of the tracepoint's record by the kernel's name of it (for [`Hook::Format`]): the first of
    /// these that its format has.
    Named(&'static [&'static str]),
    /// As `Named`; the number if the format has none of them.
    NamedOr(&'static [&'static str], i64),
    /// What a counter of perf has counted on this CPU: descriptor of the map of its events.
    Counter(i32),
    /// A register where a probe was hit, by its name in `struct pt_regs` (for [`Hook::Code`]).
    Register(&'static str),
    /// An argument of a probe (for [`Hook::Code`]).
    Operand(Operand),
    /// Computed by a function, which leaves it in R1.
    Custom(Emitter),
}

/// The field of the tracepoint's record that the kernel calls so.
#[macro_export]
macro_rules! named {
    ($($name:literal)|+) => { $crate::recipe::Expr::Named(const { &[$($name),+] }) };
    ($($name:literal)|+ or $value:expr) => { $crate::recipe::Expr::NamedOr(const { &[$($name),+] }, $value) };
}

/// The tracepoint's argument `index`.
pub const fn arg(index: u8) -> Expr {
    Expr::Arg { index, plus: 0 }
}

/// The member `path` behind the argument `index`.
pub const fn at(index: u8, path: &'static str) -> Expr {
    Expr::Path { root: Root::Arg(index), path, plus: 0 }
}

/// The member `path` behind the first argument that points to a `name`.
pub const fn of(name: &'static str, path: &'static str) -> Expr {
    Expr::Path { root: Root::ArgOf(name), path, plus: 0 }
}

/// The member `path` of the current task.
pub const fn current(path: &'static str) -> Expr {
    Expr::Path { root: Root::Current, path, plus: 0 }
}

impl Expr {
    /// With a constant added. Only arguments and members can carry one; others use [`Expr::Op`].
    pub const fn plus(self, n: i32) -> Expr {
        match self {
            Expr::Arg { index, plus } => Expr::Arg { index, plus: plus + n },
            Expr::Path { root, path, plus } => Expr::Path { root, path, plus: plus + n },
            Expr::Const(value) => Expr::Const(value + n as i64),
            _ => panic!("this expression carries no addend"),
        }
    }
}

/// A field of an integer.
pub const fn int(name: &'static str, of: Int, from: Expr) -> Field {
    Field { name: Cow::Borrowed(name), ty: Type::Int(of), from: Source::Kernel(from) }
}
/// A signed field of 32 bits.
pub const fn s32(name: &'static str, from: Expr) -> Field {
    int(name, S32, from)
}
/// A signed field of 64 bits.
pub const fn s64(name: &'static str, from: Expr) -> Field {
    int(name, S64, from)
}
/// An unsigned field of 16 bits.
pub const fn u16(name: &'static str, from: Expr) -> Field {
    int(name, U16, from)
}
/// An unsigned field of 8 bits.
pub const fn u8(name: &'static str, from: Expr) -> Field {
    int(name, U8, from)
}
/// An unsigned field of 32 bits.
pub const fn u32(name: &'static str, from: Expr) -> Field {
    int(name, U32, from)
}
/// An unsigned field of 64 bits.
pub const fn u64(name: &'static str, from: Expr) -> Field {
    int(name, U64, from)
}
/// An address or mask of 64 bits, shown in base 16.
pub const fn hex64(name: &'static str, from: Expr) -> Field {
    int(name, U64.hex(), from)
}
/// An integer with labels.
pub const fn labelled(name: &'static str, of: Int, labels: &'static [Label], from: Expr) -> Field {
    Field { name: Cow::Borrowed(name), ty: Type::Enum(of, labels), from: Source::Kernel(from) }
}
/// Text of fixed length.
pub const fn text(name: &'static str, bytes: u32, from: Expr) -> Field {
    Field { name: Cow::Borrowed(name), ty: Type::Text(bytes), from: Source::Kernel(from) }
}
/// A string of the kernel.
pub const fn string(name: &'static str, from: Expr) -> Field {
    Field { name: Cow::Borrowed(name), ty: Type::String, from: Source::Kernel(from) }
}
/// A string of the current process.
pub const fn user_string(name: &'static str, from: Expr) -> Field {
    Field { name: Cow::Borrowed(name), ty: Type::String, from: Source::User(from) }
}
/// A field that a function writes.
pub const fn custom(name: &'static str, ty: Type, emit: Emitter) -> Field {
    Field { name: Cow::Borrowed(name), ty, from: Source::Custom(emit) }
}

impl Recipe {
    /// An event on a tracepoint.
    pub const fn on(name: &'static str, tracepoint: &'static str, fields: &'static [Field]) -> Recipe {
        Recipe {
            name: Cow::Borrowed(name),
            hook: Hook::Tracepoint(Cow::Borrowed(tracepoint)),
            fields: Cow::Borrowed(fields),
        }
    }
    /// An event from the record that the kernel's own tracing makes.
    pub const fn from_record(
        name: &'static str,
        (category, event): (&'static str, &'static str),
        fields: &'static [Field],
    ) -> Recipe {
        Recipe {
            name: Cow::Borrowed(name),
            hook: Hook::Format { category, name: event },
            fields: Cow::Borrowed(fields),
        }
    }
    /// An event that has its tracepoint's name.
    pub const fn of(name: &'static str, fields: &'static [Field]) -> Recipe {
        Recipe::on(name, name, fields)
    }
}

impl Type {
    /// Bytes that it always takes; None if that depends on the value.
    pub fn fixed_bytes(&self) -> Option<u32> {
        match self {
            Type::Int(int) | Type::Enum(int, _) => Some(int.bytes()),
            Type::Padding => Some(0),
            Type::Text(bytes) => Some(*bytes),
            Type::Array(element, count) => Some(element.bytes() * count),
            Type::Struct(fields) => {
                let bits = fields.iter().map(|(_, ty)| match ty {
                    Type::Int(int) => Some(u32::from(int.bits)),
                    other => other.fixed_bytes().map(|bytes| bytes * 8),
                });
                bits.sum::<Option<u32>>().map(|bits| bits / 8)
            }
            Type::Counted { .. }
            | Type::String
            | Type::Sequence { .. }
            | Type::TextSequence { .. }
            | Type::Variant { .. } => None,
        }
    }
}
