//! One hook for all system calls of a channel: a small program finds the one of the call's number and
//! goes on there by a tail call, so that a call that nobody asked for costs the hook and an array
//! access, and enabling or disabling one detaches nothing.
//!
//! The array of programs has a place for each number of either kind of program, and one behind them for
//! numbers that are too large. Calls that no table has lead to the program of unknown calls. A byte for
//! each number says whether anybody wants it, so that nothing else is asked for a call that nobody does.

use crate::channel::TracerError;
use crate::code::{Code, GenerateError, Kept, Reads, arguments, helper};
use crate::kernel::Kernel;
use crate::late::{Late, STRINGS_MAX};
use crate::program::SYSCALL_REGISTERS;
use crate::recipe::{Expr, Root, arg, current};
use crate::sys::{self, MapKind, MapSpec, ProgramKind, number};
use crate::syscalls::{Abi, NUMBERS, Side, all};
use sillage_bpf::{Alu, Cond, Insn, Reg, Width};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Places for each kind of program: its numbers and the too large ones.
const PLACES: u32 = NUMBERS + 1;
/// Bytes of the map that says which are wanted.
const WANTED_BYTES: u32 = PLACES.next_multiple_of(8);
/// The current task is in a system call of a 32-bit program (x86's thread status).
const TS_COMPAT: i32 = 2;

/// The hook on one end of all system calls.
pub(crate) struct Dispatch {
    places: OwnedFd,
    /// For each number how it is wanted: by native programs, by others.
    wanted: OwnedFd,
    /// What stands there.
    wants: [u8; PLACES as usize],
    program: OwnedFd,
    /// Closing it detaches.
    _link: OwnedFd,
}

impl Dispatch {
    /// Attaches it, with no call enabled; what the process `left_out` does passes nothing on. With `late`, at
    /// exits, strings that wait are read first.
    pub(crate) fn attach(
        kernel: &Kernel,
        side: Side,
        left_out: Option<u32>,
        late: Option<&Late>,
    ) -> Result<Dispatch, TracerError> {
        let name = side.tracepoint();
        let wrap = |error| TracerError::Recipe { event: name.into(), error };
        let map = |kind, value_bytes, entries, name| {
            sys::create_map(&MapSpec { kind, value_bytes, entries, mappable: false, inner: None, name })
        };
        let places = map(MapKind::Programs, 4, 2 * PLACES, "syscalls")?;
        let wanted = map(MapKind::Array, WANTED_BYTES, 1, "syscalls_wanted")?;
        let maps = Maps { places: number(&places), wanted: number(&wanted) };
        let load_by = |late, reads| {
            let insns = generate(kernel, side, maps, left_out, late, reads).map_err(wrap)?;
            Ok::<_, TracerError>(sys::load_program(ProgramKind::RawTracepoint, &insns, name)?)
        };
        let load = |late| {
            load_by(late, Reads::Direct).or_else(|refused| load_by(late, Reads::Helper).map_err(|_| refused))
        };
        let late = late.filter(|_| side == Side::Exit);
        if let Some(late) = late {
            late.set(STRINGS_MAX, load(None)?.as_fd())?;
        }
        let program = load(late)?;
        let link = sys::attach_raw(program.as_fd(), name)?;
        Ok(Dispatch { places, wanted, wants: [0; PLACES as usize], program, _link: link })
    }

    /// From now on the call's records are written by `program`.
    pub(crate) fn set(
        &mut self,
        abi: Abi,
        number: Option<u32>,
        program: BorrowedFd<'_>,
    ) -> Result<(), TracerError> {
        places(abi, number).try_for_each(|place| sys::set_inner(self.places.as_fd(), place, program))?;
        self.want(abi, number, true)
    }

    /// The call leaves no records any more.
    pub(crate) fn clear(&mut self, abi: Abi, number: Option<u32>) -> Result<(), TracerError> {
        self.want(abi, number, false)?;
        places(abi, number).try_for_each(|place| sys::clear_program(self.places.as_fd(), place))?;
        Ok(())
    }

    fn want(&mut self, abi: Abi, number: Option<u32>, is_wanted: bool) -> Result<(), TracerError> {
        let bit = 1 << abi as u8;
        for place in places(abi, number) {
            let wants = &mut self.wants[(place % PLACES) as usize];
            *wants = *wants & !bit | if is_wanted { bit } else { 0 };
        }
        let mut value = self.wants.to_vec();
        value.resize(WANTED_BYTES as usize, 0);
        Ok(sys::set_value(self.wanted.as_fd(), &0u32.to_ne_bytes(), &value)?)
    }

    /// The program on the hook.
    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

/// Places of a call; of all unknown ones.
fn places(abi: Abi, number: Option<u32>) -> impl Iterator<Item = u32> {
    let base = if abi == Abi::Native { 0 } else { PLACES };
    let known = move |number: &u32| all(abi).binary_search_by_key(number, |call| call.number).is_ok();
    let range = number.map_or(0..PLACES, |number| number..number + 1);
    range.filter(move |place| number.is_some() || !known(place)).map(move |place| base + place)
}

/// Descriptors of the maps, for the program.
#[derive(Clone, Copy)]
struct Maps {
    places: i32,
    wanted: i32,
}

fn generate(
    kernel: &Kernel,
    side: Side,
    maps: Maps,
    left_out: Option<u32>,
    late: Option<&Late>,
    reads: Reads,
) -> Result<Vec<Insn>, GenerateError> {
    use Reg::*;
    let first = (side == Side::Exit).then_some(SYSCALL_REGISTERS);
    let arguments = arguments(kernel.btf(), side.tracepoint())?;
    let mut code = Code::new(kernel.btf(), arguments, reads, Kept { first, ..Kept::default() });
    let [known, native, end, none_late] = code.asm.labels();
    code.begin()?;
    if let Some(late) = late {
        late.unless_any(&mut code, none_late);
        late.go_on(&mut code, 0);
    }
    code.asm.bind(none_late);
    match side {
        Side::Entry => code.value(&arg(1))?,
        Side::Exit => code.value(&Expr::Path { root: Root::Arg(0), path: "orig_ax", plus: 0 })?,
    }
    // Less than 0: not in a system call (a signal handler that returns).
    code.asm.jump_if(Cond::SLt, R1, 0, end);
    code.asm.jump_if(Cond::Lt, R1, NUMBERS as i32, known);
    code.asm.mov(R1, NUMBERS as i32);
    code.asm.bind(known);
    code.asm.mov(R7, R1);
    code.asm.map_value(R2, maps.wanted, 0);
    code.asm.alu(Alu::Add, R2, R1);
    code.asm.load(Width::B1, R1, R2, 0);
    code.asm.jump_if(Cond::Eq, R1, 0, end);
    code.keep_current();
    if let Some(process) = left_out {
        code.value(&current("tgid"))?;
        code.asm.jump_if(Cond::Eq, R1, process as i32, end);
    }
    let status = current("thread_info.status");
    if cfg!(target_arch = "x86_64") && code.check(&status).is_ok() {
        code.value(&status)?;
        code.asm.alu(Alu::And, R1, TS_COMPAT);
        code.asm.jump_if(Cond::Eq, R1, 0, native);
        code.asm.alu(Alu::Add, R7, PLACES as i32);
    }
    code.asm.bind(native);
    let asm = &mut code.asm;
    asm.mov(R1, R6);
    asm.map(R2, maps.places);
    asm.mov(R3, R7);
    asm.call(helper::TAIL_CALL);
    asm.bind(end);
    asm.mov(R0, 0);
    asm.exit();
    Ok(code.asm.finish()?)
}
