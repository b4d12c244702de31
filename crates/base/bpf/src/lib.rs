//! eBPF without a compiler: an assembler for the kernel's instruction set ([`asm`], [`insn`]), and a
//! reader of BTF, the kernel's description of its own types ([`btf`], [`path`]).
//!
//! Bytes in, programs out: nothing here calls the kernel, opens a file or knows what is traced. BTF
//! comes from the kernel but is read as if it were hostile: no panic, no endless loop, no allocation
//! by a count that its bytes do not back.

pub mod asm;
pub mod btf;
pub mod insn;
pub mod path;

pub use asm::{AsmError, Assembler, Label};
pub use btf::{Btf, BtfError, Kind, Member, TypeId};
pub use insn::{Alu, Atomic, Cond, Insn, Operand, Reg, Width};
pub use path::{Access, PathError, Place};
