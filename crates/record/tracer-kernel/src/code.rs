//! From recipes to instructions: expressions become values in R1. `fields` stores them.
//!
//! Registers while a payload is written: R6 is the program's context, R8 points to where the payload
//! begins, R9 is the length so far behind the first field of variable length; R0 to R5 belong to
//! whoever emits. R7 (the ring) is [`crate::program`]'s.
//!
//! Nothing here knows rings. Reading kernel memory never faults: members behind typed arguments are
//! loaded directly (a bad pointer reads as 0), the arguments themselves are tested for null first
//! (`Code::unless_null` says how), and anything computed goes through a helper that checks.

use crate::late::Waiting;
use crate::recipe::{Expr, Root};
use sillage_bpf::{
    Access, Alu, AsmError, Assembler, Btf, Cond, Insn, Kind, Label, PathError, Reg, TypeId, Width,
};
use thiserror::Error;

use Reg::*;

mod fields;

/// Bytes of a string, its zero included, beyond which it is cut.
pub const STRING_BYTES_MAX: u32 = 4096;
/// Bytes that a payload with fields of variable length may take.
pub const STAGED_BYTES_MAX: u32 = 8192;
/// Stack offsets of pointers that are kept: the first argument, the current task.
///
/// A program that goes no deeper than 48 bytes stands on the kernel's stack, which is in the cache; a deeper
/// one is given memory of its own (6.13 and later). So what most programs have comes first.
const KEPT_FIRST: i16 = -24;
const KEPT_CURRENT: i16 = -32;
/// Stack offset of eight bytes that a read of kernel memory lands in.
pub(crate) const SCRATCH: i16 = -40;
/// Stack offset of the first spilled value.
pub(crate) const SPILL: i16 = -48;
/// Spilled values at a time.
const SPILLS_MAX: usize = 24;

/// Numbers of the kernel's helpers.
pub(crate) mod helper {
    pub(crate) const MAP_LOOKUP: i32 = 1;
    pub(crate) const MAP_UPDATE: i32 = 2;
    pub(crate) const MAP_DELETE: i32 = 3;
    pub(crate) const KTIME_NS: i32 = 5;
    pub(crate) const CPU: i32 = 8;
    pub(crate) const TAIL_CALL: i32 = 12;
    pub(crate) const READ_COUNTER: i32 = 55;
    pub(crate) const STACK: i32 = 67;
    pub(crate) const CGROUP_AT: i32 = 123;
    pub(crate) const PATH: i32 = 147;
    pub(crate) const READ_USER: i32 = 112;
    pub(crate) const JIFFIES: i32 = 118;
    pub(crate) const CURRENT_PID_TGID: i32 = 14;
    pub(crate) const READ_KERNEL: i32 = 113;
    pub(crate) const READ_USER_STRING: i32 = 114;
    pub(crate) const READ_KERNEL_STRING: i32 = 115;
    pub(crate) const RINGBUF_OUTPUT: i32 = 130;
    pub(crate) const CURRENT_TASK: i32 = 158;
    pub(crate) const FUNCTION_IP: i32 = 173;
}

/// Why a recipe gives no program on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GenerateError {
    /// The kernel has no such tracepoint, or does not describe it.
    #[error("this kernel has no tracepoint {0}")]
    NoTracepoint(String),
    /// The tracepoint passes fewer arguments.
    #[error("argument {index} of a tracepoint with {count}")]
    NoArgument {
        /// Which was asked for.
        index: u8,
        /// How many there are.
        count: usize,
    },
    /// No argument points to this struct.
    #[error("no argument points to struct {0}")]
    NoArgumentOf(String),
    /// A member that this kernel does not have.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A type or label that this kernel does not have.
    #[error("this kernel has no {0}")]
    NoType(String),
    /// None of several ways; the reason of the last.
    #[error("none of the known ways: {0}")]
    NoWay(Box<GenerateError>),
    /// A field cannot be written.
    #[error("field {field}: {error}")]
    Field {
        /// Its name.
        field: String,
        /// The reason.
        error: Box<GenerateError>,
    },
    /// A type and a source that do not go together: a mistake in a recipe.
    #[error("{0}")]
    Mismatch(&'static str),
    /// The record cannot fit a sub-buffer.
    #[error("record of {bytes} bytes, {most} fit")]
    TooLarge {
        /// What it needs.
        bytes: u32,
        /// What there is.
        most: u64,
    },
    /// The program is too long.
    #[error(transparent)]
    Asm(#[from] AsmError),
}

/// How members of arguments are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// By loads that the verifier understands: fast.
    Direct,
    /// By a helper, for kernels that mistrust the pointer.
    Helper,
}

/// What becomes of a null pointer on the way to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Null {
    /// A load through it gives 0: the kernel's translator catches loads through what the verifier does
    /// not trust.
    ReadsAsZero,
    /// It must not be loaded through.
    Tested,
}

/// A program being generated.
pub struct Code<'a> {
    /// The instructions so far.
    pub asm: Assembler,
    btf: &'a Btf,
    arguments: Vec<TypeId>,
    reads: Reads,
    /// Bytes of the payload behind R8, or behind R8 + R9 if `variable`.
    fixed: u32,
    variable: bool,
    spills: usize,
    too_large: Label,
    kept: Kept,
    /// Times that the current task was asked for.
    current_uses: usize,
    /// Where strings are noted that cannot be read now, and the name of the call that they belong to.
    late: Option<(Waiting, &'a str)>,
    /// Strings of the program so far.
    strings: u32,
}

/// Pointers that a program gets once and keeps on its stack.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    /// The current task.
    pub(crate) current: bool,
    /// The first argument, which is an untyped pointer to this struct.
    pub(crate) first: Option<&'static str>,
    /// Arguments are pointers of which the verifier knows that they may be null, and wants it excluded.
    pub(crate) nullable: bool,
}

/// A value put aside.
#[derive(Clone, Copy, Debug)]
pub struct Spill(i16);

impl Spill {
    /// Where it stands on the stack, for stores and loads behind R10.
    pub fn offset(self) -> i16 {
        self.0
    }
}

/// Arguments of an iterator: what its program's context holds.
///
/// # Errors
/// The kernel has no such iterator.
pub fn iterated(btf: &Btf, iterator: &str) -> Result<(TypeId, Vec<TypeId>), GenerateError> {
    let name = format!("bpf_iter_{iterator}");
    let function = btf.find(Kind::Function, &name).ok_or(GenerateError::NoType(name))?;
    Ok((function, btf.parameters(function).map(|(_, id)| id).collect()))
}

/// Arguments of a tracepoint: what its typed raw tracepoint passes.
///
/// # Errors
/// The kernel has no such tracepoint.
pub fn arguments(btf: &Btf, tracepoint: &str) -> Result<Vec<TypeId>, GenerateError> {
    let hook = btf
        .find(Kind::Typedef, &format!("btf_trace_{tracepoint}"))
        .ok_or_else(|| GenerateError::NoTracepoint(tracepoint.into()))?;
    // The first one is the probe's private data, which eBPF programs do not see.
    Ok(btf.parameters(hook).skip(1).map(|(_, id)| id).collect())
}

impl<'a> Code<'a> {
    pub(crate) fn new(btf: &'a Btf, arguments: Vec<TypeId>, reads: Reads, kept: Kept) -> Code<'a> {
        let mut asm = Assembler::new();
        let too_large = asm.label();
        let (fixed, variable, spills, current_uses) = (0, false, 0, 0);
        let (late, strings) = (None, 0);
        Code {
            asm,
            btf,
            arguments,
            reads,
            fixed,
            variable,
            spills,
            too_large,
            kept,
            current_uses,
            late,
            strings,
        }
    }

    /// The program's first instructions: R6 = its context, and what it keeps.
    pub(crate) fn begin(&mut self) -> Result<(), GenerateError> {
        self.asm.mov(R6, R1);
        if self.kept.current {
            self.keep_current();
        }
        if let Some(of) = self.kept.first {
            self.asm.load(Width::B8, R1, R6, 0);
            if self.reads == Reads::Direct {
                let id = self.btf.find(Kind::Struct, of);
                let id = id.ok_or_else(|| GenerateError::NoType(format!("struct {of}")))?;
                let cast = self.btf.find(Kind::Function, "bpf_rdonly_cast");
                let cast = cast.ok_or_else(|| GenerateError::NoType("bpf_rdonly_cast".into()))?;
                self.cast(id, cast);
            }
            self.asm.store(Width::B8, R10, KEPT_FIRST, R1);
        }
        Ok(())
    }

    /// From here on the current task is kept.
    pub(crate) fn keep_current(&mut self) {
        self.asm.call(helper::CURRENT_TASK);
        self.asm.store(Width::B8, R10, KEPT_CURRENT, R0);
        self.kept.current = true;
    }

    /// From here on strings of programs that cannot be read are noted for when the call ends.
    pub(crate) fn note_late(&mut self, waiting: Waiting, call: &'a str) {
        self.late = Some((waiting, call));
    }

    /// True if the program would be shorter with the current task kept.
    pub(crate) fn wants_current(&self) -> bool {
        self.current_uses > 1
    }

    /// Where to go when a record does not fit.
    pub(crate) fn too_large(&self) -> Label {
        self.too_large
    }

    /// The kernel's types.
    pub fn btf(&self) -> &Btf {
        self.btf
    }

    // Values.

    /// Computes `expr` into R1. Loses R0 and R2 to R5.
    ///
    /// # Errors
    /// This kernel does not have it.
    pub fn value(&mut self, expr: &Expr) -> Result<(), GenerateError> {
        match *expr {
            Expr::Const(value) => self.asm.constant(R1, value),
            Expr::KernelLabel(of, label) => {
                let value = self.kernel_label(of, label)?;
                self.asm.constant(R1, value);
            }
            Expr::Arg { index, plus } => {
                self.argument(index)?;
                self.plus(plus);
            }
            Expr::Path { .. } => self.path(expr, true)?,
            Expr::Behind { pointer, of, path } => {
                let access = self.within(of, path)?;
                self.value(pointer)?;
                self.follow_unchecked(&access)?;
            }
            Expr::Op(op, left, &Expr::Const(right)) if i32::try_from(right).is_ok() => {
                self.value(left)?;
                self.asm.alu(op, R1, right as i32);
            }
            Expr::Op(op, left, right) => {
                self.value(left)?;
                let kept = self.spill(R1);
                self.value(right)?;
                self.asm.mov(R2, R1);
                self.unspill(R1, kept);
                self.release(1);
                self.asm.alu(op, R1, R2);
            }
            Expr::If(condition, then, other) => {
                let [no, done] = self.asm.labels();
                self.value(condition)?;
                self.asm.jump_if(Cond::Eq, R1, 0, no);
                self.value(then)?;
                self.asm.jump(done);
                self.asm.bind(no);
                self.value(other)?;
                self.asm.bind(done);
            }
            Expr::First(ways) => self.value(self.way(ways)?)?,
            Expr::Helper(number) => {
                self.asm.call(number);
                self.asm.mov(R1, R0);
            }
            Expr::Record { offset, bytes, signed } => {
                let width = Width::of(bytes.into())
                    .ok_or(GenerateError::Mismatch("a record's integer has 1 to 8 bytes"))?;
                self.asm.load(width, R1, R6, offset as i16);
                if signed {
                    self.asm.sign_extend(R1, u32::from(bytes) * 8);
                }
            }
            Expr::RecordDynamicCount { offset, element_bytes } => {
                self.asm.load(Width::B4, R1, R6, offset as i16);
                self.asm.alu(Alu::Rsh, R1, 16);
                if element_bytes > 1 {
                    self.asm.alu(Alu::Div, R1, i32::from(element_bytes));
                }
            }
            Expr::RecordDynamic { .. } => self.address(expr)?,
            Expr::Named(_) | Expr::NamedOr(..) => {
                return Err(GenerateError::Mismatch("a record's field outside of a record"));
            }
            Expr::Counter(map) => self.counter(map),
            Expr::Register(name) => self.register(name)?,
            Expr::Operand(operand) => operand.fetch(self)?,
            Expr::Custom(emit) => emit(self)?,
        }
        Ok(())
    }

    /// Computes `expr` into R1, of which only the lowest `bytes` bytes count. Loses R0 and R2 to R5.
    ///
    /// # Errors
    /// This kernel does not have it.
    pub(crate) fn low_value(&mut self, expr: &Expr, bytes: u32) -> Result<(), GenerateError> {
        let expr = self.chosen(expr)?;
        match expr {
            Expr::Path { root, path, .. } => {
                let place = self.access(root, path)?.place;
                self.path(&expr, place.bits.is_some() || place.bytes < bytes)
            }
            other => self.value(&other),
        }
    }

    /// R1 = the integer that a path leads to, with its sign if it is to be `extended`.
    fn path(&mut self, expr: &Expr, extended: bool) -> Result<(), GenerateError> {
        let Expr::Path { root, path, plus } = *expr else { return self.value(expr) };
        let access = self.access(root, path)?;
        let null_pointers = self.start(root, &access)?;
        self.load(&access, null_pointers, extended)?;
        self.plus(plus);
        Ok(())
    }

    /// R1 = a register where a probe was hit, by the kernel's name of it. Loses nothing else.
    pub(crate) fn register(&mut self, name: &'static str) -> Result<(), GenerateError> {
        let offset = self.offset_of("pt_regs", name)?;
        self.asm.load(Width::B8, R1, R6, offset as i16);
        Ok(())
    }

    /// R1 = what this CPU's counter of a map has counted; 0 if it does not count.
    fn counter(&mut self, map: i32) {
        const THIS_CPU: i64 = 0xffff_ffff;
        const BYTES: usize = 24;
        let at = self.scratch(BYTES);
        let counted = self.asm.label();
        self.asm.map(R1, map);
        self.asm.constant(R2, THIS_CPU);
        self.asm.mov(R3, R10);
        self.asm.alu(Alu::Add, R3, i32::from(at));
        self.asm.mov(R4, BYTES as i32);
        self.asm.call(helper::READ_COUNTER);
        self.asm.load(Width::B8, R1, R10, at);
        self.asm.jump_if(Cond::Eq, R0, 0, counted);
        self.asm.mov(R1, 0);
        self.asm.bind(counted);
        self.release(BYTES / 8);
    }

    /// True if this kernel has everything that the expression names (inside of custom emitters it is
    /// only known when they run).
    ///
    /// # Errors
    /// What it does not have.
    pub fn check(&self, expr: &Expr) -> Result<(), GenerateError> {
        match *expr {
            Expr::Arg { index, .. } => self.argument_type(index).map(drop),
            Expr::Path { root, path, .. } => self.access(root, path).map(drop),
            Expr::Behind { pointer, of, path } => {
                self.check(pointer)?;
                self.within(of, path).map(drop)
            }
            Expr::Op(_, left, right) => self.check(left).and_then(|()| self.check(right)),
            Expr::If(condition, then, other) => {
                self.check(condition).and_then(|()| self.check(then)).and_then(|()| self.check(other))
            }
            Expr::First(ways) => self.way(ways).map(drop),
            Expr::KernelLabel(of, label) => self.kernel_label(of, label).map(drop),
            _ => Ok(()),
        }
    }

    fn way(&self, ways: &'static [Expr]) -> Result<&'static Expr, GenerateError> {
        let mut last = GenerateError::Mismatch("no ways at all");
        for way in ways {
            match self.check(way) {
                Ok(()) => return Ok(way),
                Err(error) => last = error,
            }
        }
        Err(GenerateError::NoWay(Box::new(last)))
    }

    fn kernel_label(&self, of: &str, label: &str) -> Result<i64, GenerateError> {
        let id = self.btf.find(Kind::Enum, of);
        let value = id.and_then(|id| self.btf.labels(id).find(|(name, _)| *name == label));
        value
            .map(|(_, value)| value)
            .ok_or_else(|| GenerateError::NoType(format!("label {label} in enum {of}")))
    }

    /// The value of a label of the kernel's own enumeration, if it has it.
    pub fn label(&self, of: &str, label: &str) -> Option<i64> {
        self.kernel_label(of, label).ok()
    }

    fn plus(&mut self, n: i32) {
        if n != 0 {
            self.asm.alu(Alu::Add, R1, n);
        }
    }

    fn argument_type(&self, index: u8) -> Result<TypeId, GenerateError> {
        let count = self.arguments.len();
        self.arguments.get(usize::from(index)).copied().ok_or(GenerateError::NoArgument { index, count })
    }

    pub(crate) fn argument(&mut self, index: u8) -> Result<(), GenerateError> {
        let id = self.argument_type(index)?;
        self.asm.load(Width::B8, R1, R6, 8 * i16::from(index));
        // The kernel passes small integers zero-extended.
        if let Some(int) = self.btf.integer(id).filter(|int| int.signed && int.bytes < 8) {
            self.asm.sign_extend(R1, int.bytes * 8);
        }
        Ok(())
    }

    /// Places of the arguments behind the first that are pointers.
    pub(crate) fn pointers(&self) -> Vec<u8> {
        let pointer = |index: &usize| self.btf.kind(self.btf.strip(self.arguments[*index])) == Kind::Pointer;
        (1..self.arguments.len()).filter(pointer).map(|index| index as u8).collect()
    }

    fn argument_of(&self, name: &str) -> Result<u8, GenerateError> {
        let wanted = self.btf.find(Kind::Struct, name);
        let points = |id: &TypeId| {
            let target = self.btf.target(self.btf.strip(*id));
            target.is_some_and(|target| Some(self.btf.strip(target)) == wanted)
        };
        let index = self.arguments.iter().position(points).filter(|_| wanted.is_some());
        index.map(|index| index as u8).ok_or_else(|| GenerateError::NoArgumentOf(name.into()))
    }

    fn access(&self, root: Root, path: &str) -> Result<Access, GenerateError> {
        match root {
            Root::Arg(index) => Ok(Access::resolve(self.btf, self.argument_type(index)?, path)?),
            Root::ArgOf(name) => {
                Ok(Access::resolve(self.btf, self.argument_type(self.argument_of(name)?)?, path)?)
            }
            Root::Current => self.within("task_struct", path),
        }
    }

    fn within(&self, of: &str, path: &str) -> Result<Access, GenerateError> {
        let id =
            self.btf.find(Kind::Struct, of).ok_or_else(|| GenerateError::NoType(format!("struct {of}")))?;
        Ok(Access::within(self.btf, id, path)?)
    }

    /// Offset of a member in a struct of the kernel, in bytes.
    ///
    /// # Errors
    /// This kernel has no such place.
    pub fn offset_of(&self, of: &str, path: &str) -> Result<u32, GenerateError> {
        Ok(self.within(of, path)?.offset)
    }

    /// Bytes of a struct of the kernel.
    ///
    /// # Errors
    /// This kernel has no such struct.
    pub fn struct_size(&self, name: &str) -> Result<u32, GenerateError> {
        let id = self.btf.find(Kind::Struct, name);
        id.and_then(|id| self.btf.size(id)).ok_or_else(|| GenerateError::NoType(format!("struct {name}")))
    }

    /// The pointer at which a path begins, in R1.
    fn root(&mut self, root: Root) -> Result<(), GenerateError> {
        match root {
            Root::Arg(0) if self.kept.first.is_some() => {
                self.asm.load(Width::B8, R1, R10, KEPT_FIRST);
                Ok(())
            }
            Root::Arg(index) => self.argument(index),
            Root::ArgOf(name) => self.argument(self.argument_of(name)?),
            Root::Current => {
                self.current_uses += 1;
                if self.kept.current {
                    self.asm.load(Width::B8, R1, R10, KEPT_CURRENT);
                    return Ok(());
                }
                self.asm.call(helper::CURRENT_TASK);
                self.asm.mov(R1, R0);
                Ok(())
            }
        }
    }

    /// R1 = the pointer at which the way to a place begins. The verifier searches all types of the kernel
    /// for each pointer that is loaded from a trusted one, which takes it a millisecond, so ways to
    /// pointers begin at one that it does not trust.
    fn start(&mut self, root: Root, access: &Access) -> Result<Null, GenerateError> {
        self.root(root)?;
        if self.reads == Reads::Helper {
            return Ok(Null::Tested);
        }
        if self.kept.first.is_some() && root == Root::Arg(0) {
            return Ok(Null::ReadsAsZero);
        }
        let is_pointer = self.btf.kind(self.btf.strip(access.place.type_id)) == Kind::Pointer;
        if access.loads.is_empty() && !is_pointer {
            // The current task is there.
            return Ok(if root == Root::Current { Null::ReadsAsZero } else { Null::Tested });
        }
        let of = match root {
            Root::Arg(index) => self.btf.target(self.btf.strip(self.argument_type(index)?)),
            Root::ArgOf(name) => self.btf.find(Kind::Struct, name),
            Root::Current => self.btf.find(Kind::Struct, "task_struct"),
        };
        let of = of.map(|of| self.btf.strip(of));
        if let (Some(of), Some(cast)) = (of, self.btf.find(Kind::Function, "bpf_rdonly_cast")) {
            self.cast(of, cast);
            return Ok(Null::ReadsAsZero);
        }
        Ok(Null::Tested)
    }

    /// R1 = itself as an untrusted pointer to a struct. Costs nothing when the program runs.
    fn cast(&mut self, of: TypeId, cast: TypeId) {
        self.asm.mov(R2, of.0 as i32);
        self.asm.push(Insn::call_kernel(cast.0));
        self.asm.mov(R1, R0);
    }

    /// From the pointer in R1 to the one whose struct holds the place. Goes to `null` with R1 = 0 if
    /// one of them is.
    fn follow(&mut self, access: &Access, null: Label) -> Result<(), GenerateError> {
        self.unless_null(null);
        if self.kept.nullable {
            self.asm.jump_if(Cond::Eq, R1, 0, null);
        }
        for offset in &access.loads {
            self.read(*offset, Width::B8)?;
            self.unless_null(null);
        }
        Ok(())
    }

    /// Goes to `null`, with R1 = 0, if the pointer in R1 is. The verifier believes that many arguments of
    /// tracepoints never are, which is not so for all of them (`sched_process_wait` of any child), and
    /// takes a comparison with 0 out of the program; what is left would bring the kernel down. Of the
    /// pointer's lower half it knows nothing. (An object at a multiple of 4 GiB would read as 0.)
    fn unless_null(&mut self, null: Label) {
        self.asm.push(Insn::mov32(R0, R1));
        self.asm.jump_if(Cond::Eq, R0, 0, null);
    }

    /// R1 = the bytes `offset` behind R1.
    fn read(&mut self, offset: u32, width: Width) -> Result<(), GenerateError> {
        match (self.reads, i16::try_from(offset)) {
            (Reads::Direct, Ok(offset)) => self.asm.load(width, R1, R1, offset),
            (Reads::Direct, Err(_)) => {
                self.asm.alu(Alu::Add, R1, offset as i32);
                self.asm.load(width, R1, R1, 0);
            }
            (Reads::Helper, _) => {
                self.asm.alu(Alu::Add, R1, offset as i32);
                self.read_kernel(width)?;
            }
        }
        Ok(())
    }

    /// Loads the integer that `access` leads to from the pointer in R1 into R1, with its sign if it is to be
    /// `extended`; 0 behind a null pointer.
    fn load(&mut self, access: &Access, null_pointers: Null, extended: bool) -> Result<(), GenerateError> {
        let place = access.place;
        let width = Width::of(place.bytes)
            .ok_or(GenerateError::Mismatch("an integer's value of something larger"))?;
        if null_pointers == Null::ReadsAsZero {
            for offset in &access.loads {
                self.read(*offset, Width::B8)?;
            }
            self.read(access.offset, width)?;
            if extended {
                self.extend(access);
            }
            return Ok(());
        }
        let [null, done] = self.asm.labels();
        self.follow(access, null)?;
        self.read(access.offset, width)?;
        if extended {
            self.extend(access);
        }
        self.asm.jump(done);
        self.asm.bind(null);
        self.asm.mov(R1, 0);
        self.asm.bind(done);
        Ok(())
    }

    fn extend(&mut self, access: &Access) {
        let place = access.place;
        let (low, bits) = place.bits.unwrap_or((0, place.bytes * 8));
        if bits == 64 {
            return;
        }
        if place.signed {
            self.asm.alu(Alu::Lsh, R1, (64 - low - bits) as i32);
            self.asm.alu(Alu::Arsh, R1, (64 - bits) as i32);
        } else if place.bits.is_some() {
            self.asm.alu(Alu::Lsh, R1, (64 - low - bits) as i32);
            self.asm.alu(Alu::Rsh, R1, (64 - bits) as i32);
        }
    }

    /// As `load`, from a pointer that the verifier does not know.
    fn follow_unchecked(&mut self, access: &Access) -> Result<(), GenerateError> {
        let reads = std::mem::replace(&mut self.reads, Reads::Helper);
        let result = self.load(access, Null::Tested, true);
        self.reads = reads;
        result
    }

    /// R1 = what lies at the kernel address in R1; 0 if nothing can be read there. Loses R0, R2 to R5.
    ///
    /// # Errors
    /// None today.
    pub fn read_kernel(&mut self, width: Width) -> Result<(), GenerateError> {
        self.asm.mov(R3, R1);
        self.asm.mov(R1, R10);
        self.asm.alu(Alu::Add, R1, i32::from(SCRATCH));
        self.asm.mov(R2, width.bytes() as i32);
        self.asm.call(helper::READ_KERNEL);
        self.asm.load(width, R1, R10, SCRATCH);
        Ok(())
    }

    /// R1 = the address that a string or array of this source begins at; 0 behind a null pointer.
    pub(crate) fn address(&mut self, expr: &Expr) -> Result<(), GenerateError> {
        let expr = self.chosen(expr)?;
        match expr {
            Expr::Path { root, path, .. } => {
                let access = self.access(root, path)?;
                if self.btf.array(access.place.type_id).is_none() {
                    return self.value(&expr);
                }
                let null = self.asm.label();
                self.start(root, &access)?;
                self.follow(&access, null)?;
                self.asm.alu(Alu::Add, R1, access.offset as i32);
                self.asm.bind(null);
            }
            Expr::Record { offset, .. } => {
                self.asm.mov(R1, R6);
                self.asm.alu(Alu::Add, R1, i32::from(offset));
            }
            Expr::RecordDynamic { offset, relative } => {
                self.asm.load(Width::B4, R2, R6, offset as i16);
                self.asm.alu(Alu::And, R2, 0xffff);
                self.asm.mov(R1, R6);
                self.asm.alu(Alu::Add, R1, R2);
                if relative {
                    self.asm.alu(Alu::Add, R1, i32::from(offset) + 4);
                }
            }
            other => self.value(&other)?,
        }
        Ok(())
    }

    fn chosen(&self, expr: &Expr) -> Result<Expr, GenerateError> {
        match expr {
            Expr::First(ways) => self.chosen(self.way(ways)?),
            other => Ok(*other),
        }
    }

    // Comparisons.

    /// R1 = R1, or `most` if it is more.
    pub fn at_most(&mut self, most: u32) {
        let fits = self.asm.label();
        self.asm.jump_if(Cond::Le, R1, most as i32, fits);
        self.asm.mov(R1, most as i32);
        self.asm.bind(fits);
    }

    /// Goes on if the bytes at `base + offset` are `wanted`, else to `differs`. Loses R2 and R3.
    pub(crate) fn bytes_equal(&mut self, base: Reg, offset: i16, wanted: &[u8], differs: Label) {
        let mut at = 0;
        while at < wanted.len() {
            let width = Width::largest_in((wanted.len() - at) as u32);
            let bytes = width.bytes() as usize;
            let mut word = [0; 8];
            word[..bytes].copy_from_slice(&wanted[at..at + bytes]);
            let value = u64::from_le_bytes(word);
            let value =
                if cfg!(target_endian = "little") { value } else { value.swap_bytes() >> (64 - 8 * bytes) };
            self.asm.load(width, R2, base, offset + at as i16);
            match i32::try_from(value) {
                Ok(small) => self.asm.jump_if(Cond::Ne, R2, small, differs),
                Err(_) => {
                    self.asm.constant(R3, value as i64);
                    self.asm.jump_if(Cond::Ne, R2, R3, differs);
                }
            }
            at += bytes;
        }
    }

    /// As `bytes_equal`, for the text in an array of the kernel that an expression leads to; if `whole`,
    /// it must also end there. False, with nothing emitted, if the expression leads elsewhere or the
    /// kernel wants a helper for it.
    ///
    /// # Errors
    /// This kernel does not have it.
    pub(crate) fn array_equals(
        &mut self,
        expr: &Expr,
        bytes: u32,
        (wanted, whole): (&[u8], bool),
        differs: Label,
    ) -> Result<bool, GenerateError> {
        let Expr::Path { root, path, .. } = self.chosen(expr)? else { return Ok(false) };
        let access = self.access(root, path)?;
        let have = access.place.bytes.min(bytes) as usize;
        let offset = match i16::try_from(access.offset + access.place.bytes) {
            Ok(_) if self.reads == Reads::Direct && self.btf.array(access.place.type_id).is_some() => {
                access.offset as i16
            }
            _ => return Ok(false),
        };
        if wanted.len() > have {
            self.asm.jump(differs);
            return Ok(true);
        }
        self.start(root, &access)?;
        self.follow(&access, differs)?;
        let mut ended = wanted.to_vec();
        if whole && wanted.len() < have {
            ended.push(0);
        }
        self.bytes_equal(R1, offset, &ended, differs);
        Ok(true)
    }

    // Values put aside.

    /// Puts a register aside over calls and other values.
    pub fn spill(&mut self, reg: Reg) -> Spill {
        assert!(self.spills < SPILLS_MAX, "recipes spill a handful of values");
        let slot = SPILL - 8 * self.spills as i16;
        self.spills += 1;
        self.asm.store(Width::B8, R10, slot, reg);
        Spill(slot)
    }

    /// Takes a value back; it stays put aside too.
    pub fn unspill(&mut self, reg: Reg, spill: Spill) {
        self.asm.load(Width::B8, reg, R10, spill.0);
    }

    /// The last `count` values that were put aside are not needed any more.
    pub fn release(&mut self, count: usize) {
        self.spills -= count;
    }

    /// `bytes` (a multiple of 8) of the stack, to be given back by releasing a value for each eight:
    /// the offset of the first of them.
    pub fn scratch(&mut self, bytes: usize) -> i16 {
        self.spills += bytes / 8;
        assert!(self.spills <= SPILLS_MAX, "recipes spill a handful of values");
        SPILL - 8 * (self.spills as i16 - 1)
    }

    /// R1 = what lies at the address R1 of the current program's memory; 0 if that cannot be read now.
    /// Loses R0, R2 to R5.
    pub fn read_user(&mut self, width: Width) {
        self.asm.mov(R3, R1);
        self.asm.mov(R1, R10);
        self.asm.alu(Alu::Add, R1, i32::from(SCRATCH));
        self.asm.mov(R2, width.bytes() as i32);
        self.asm.call(helper::READ_USER);
        self.asm.load(width, R1, R10, SCRATCH);
    }
}
