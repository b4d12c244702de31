//! The calls of bpf(2) and perf_event_open(2) that the tracer needs, with typed errors.
//!
//! All `unsafe` of this crate stands here. Every object is a descriptor: when it is closed, what it
//! attached is gone.

use crate::recipe::Site;
pub use crate::rights::missing_rights;
use crate::rights::{Facts, Refused};
use sillage_bpf::Insn;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Bytes of the verifier's log that are kept.
const LOG_BYTES: usize = 1 << 20;
/// Characters of the verifier's reason that an error shows.
const REASON_CHARACTERS: usize = 160;

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_UPDATE_BATCH: i32 = 26;
const MAP_DELETE: i32 = 3;
const PROG_LOAD: i32 = 5;
const PROG_RUN: i32 = 10;
const PROG_BY_ID: i32 = 13;
const OBJ_INFO: i32 = 15;
const RAW_TRACEPOINT_OPEN: i32 = 17;
const LINK_CREATE: i32 = 28;
const ENABLE_STATS: i32 = 32;
const ITERATOR_CREATE: i32 = 33;

/// How iterators' programs are attached.
const TRACE_ITERATOR: u32 = 28;

/// Why the kernel did not do it.
#[derive(Debug, Error)]
pub enum SysError {
    /// Not permitted; `missing` says what would mend it.
    #[error("{call} is not permitted: {missing}")]
    Denied {
        /// What was asked for.
        call: &'static str,
        /// What is missing, in words.
        missing: String,
    },
    /// The verifier refused a program.
    #[error("program {name} was refused ({error}): {reason}")]
    Refused {
        /// Its name.
        name: String,
        /// The kernel's answer.
        error: io::Error,
        /// The verifier's last words.
        reason: String,
        /// The whole log.
        log: String,
    },
    /// Anything else.
    #[error("{call}: {error}")]
    Failed {
        /// What was asked for.
        call: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
}

impl SysError {
    fn last(call: &'static str) -> SysError {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EPERM) | Some(libc::EACCES) => SysError::Denied { call, missing: missing_rights() },
            _ => SysError::Failed { call, error },
        }
    }

    /// As `last`, of perf_event_open(2).
    fn last_of_perf(call: &'static str) -> SysError {
        match SysError::last(call) {
            SysError::Denied { call, .. } => {
                SysError::Denied { call, missing: Facts::of_this_process().explain(Refused::Perf) }
            }
            other => other,
        }
    }
}

/// bpf(2) with an attribute block made of words at offsets.
struct Attributes([u8; 144]);

impl Attributes {
    fn new() -> Attributes {
        Attributes([0; 144])
    }
    fn u32(mut self, at: usize, value: u32) -> Attributes {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }
    fn u64(mut self, at: usize, value: u64) -> Attributes {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }
    fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Attributes {
        self.u32(at, fd.as_raw_fd() as u32)
    }
    /// At most 15 bytes of what the kernel allows in names.
    fn name(mut self, at: usize, name: &str) -> Attributes {
        let allowed = name.bytes().filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        self.0[at..at + 15].iter_mut().zip(allowed).for_each(|(to, from)| *to = from);
        self
    }
    /// # Safety
    /// Every address in the block points to memory that the command may use as it does.
    unsafe fn call(&mut self, command: i32) -> io::Result<i32> {
        // SAFETY: the block is ours and as long as said; the caller vouches for addresses in it.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Kinds of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Values by index.
    Array = 2,
    /// Values by keys of 16 bytes.
    Hash = 1,
    /// The same, with memory for all entries from the start: programs may put something in.
    WholeHash = 0x1_0001,
    /// Programs by index, for tail calls.
    Programs = 3,
    /// Events of perf by CPU.
    PerfEvents = 4,
    /// Maps by index.
    ArrayOfMaps = 12,
    /// Messages to user space.
    RingBuffer = 27,
}

/// What a map is to be.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec<'a> {
    /// Kind.
    pub kind: MapKind,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Entries; for a ring buffer, its bytes.
    pub entries: u32,
    /// User space may map it.
    pub mappable: bool,
    /// For an array of maps: one like those that it will hold.
    pub inner: Option<BorrowedFd<'a>>,
    /// Name, for people.
    pub name: &'static str,
}

/// Makes a map.
///
/// # Errors
/// No rights, no memory.
pub fn create_map(spec: &MapSpec<'_>) -> Result<OwnedFd, SysError> {
    /// The kernel's number of a kind; what is above tells flavours apart.
    const KIND_BITS: u32 = 0xffff;
    let key_bytes = match spec.kind {
        MapKind::RingBuffer => 0,
        MapKind::Hash | MapKind::WholeHash => 16,
        _ => 4,
    };
    // Entries of hash maps are made when they are put in: most sets stay small.
    let flags = match spec.kind {
        MapKind::Hash => 1,
        _ if spec.mappable => 1 << 10,
        _ => 0,
    };
    let mut attributes = Attributes::new()
        .u32(0, spec.kind as u32 & KIND_BITS)
        .u32(4, key_bytes)
        .u32(8, spec.value_bytes)
        .u32(12, spec.entries)
        .u32(16, flags)
        .name(28, spec.name);
    if let Some(inner) = spec.inner {
        attributes = attributes.fd(20, inner);
    }
    // SAFETY: no addresses in it.
    unsafe { attributes.call(MAP_CREATE) }.map(owned).map_err(|_| SysError::last("creating a map"))
}

/// Puts a map into an array of maps, or a program into an array of programs.
///
/// # Errors
/// The kernel's: a map that is not like the others, an index beyond the end.
pub fn set_inner(outer: BorrowedFd<'_>, index: u32, inner: BorrowedFd<'_>) -> Result<(), SysError> {
    let value = inner.as_raw_fd() as u32;
    let mut attributes =
        Attributes::new().fd(0, outer).u64(8, &raw const index as u64).u64(16, &raw const value as u64);
    // SAFETY: both words live through the call, and key and value of such a map have four bytes.
    unsafe { attributes.call(MAP_UPDATE) }.map(drop).map_err(|_| SysError::last("filling a map"))
}

/// Puts maps into an array of maps, at once: the kernel waits for its programs after each change of such an
/// array, some ten milliseconds.
///
/// # Errors
/// The kernel's: before 5.13 it changes one place at a time.
pub fn set_all_inner(outer: BorrowedFd<'_>, inner: &[(u32, BorrowedFd<'_>)]) -> Result<(), SysError> {
    let keys: Vec<u32> = inner.iter().map(|(index, _)| *index).collect();
    let values: Vec<u32> = inner.iter().map(|(_, map)| map.as_raw_fd() as u32).collect();
    let mut attributes = Attributes::new()
        .u64(16, keys.as_ptr() as u64)
        .u64(24, values.as_ptr() as u64)
        .u32(32, keys.len() as u32)
        .fd(36, outer);
    // SAFETY: keys and values live through the call, as many as said, of four bytes each as such a map has them.
    unsafe { attributes.call(MAP_UPDATE_BATCH) }.map(drop).map_err(|_| SysError::last("filling a map"))
}

/// True if there is a map at this place of an array of maps.
pub fn has_inner(outer: BorrowedFd<'_>, index: u32) -> bool {
    let mut id = 0u32;
    let mut attributes =
        Attributes::new().fd(0, outer).u64(8, &raw const index as u64).u64(16, &raw mut id as u64);
    // SAFETY: both words live through the call, and key and value of such a map have four bytes.
    unsafe { attributes.call(MAP_LOOKUP) }.is_ok()
}

/// Sets a value of an array or hash map. Key and value have the bytes that the map was made for.
///
/// # Errors
/// The kernel's: the map is full.
pub fn set_value(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<(), SysError> {
    let mut attributes =
        Attributes::new().fd(0, map).u64(8, key.as_ptr() as u64).u64(16, value.as_ptr() as u64);
    // SAFETY: both live through the call; the maps of this crate are filled with keys and values of the
    // sizes that they were made with.
    unsafe { attributes.call(MAP_UPDATE) }.map(drop).map_err(|_| SysError::last("filling a map"))
}

/// Takes a value out of a map. One that is not there is no error. The key has the bytes that the map was made
/// for.
///
/// # Errors
/// The kernel's.
pub fn clear_value(map: BorrowedFd<'_>, key: &[u8]) -> Result<(), SysError> {
    let mut attributes = Attributes::new().fd(0, map).u64(8, key.as_ptr() as u64);
    // SAFETY: the key lives through the call and has the bytes that the map was made for.
    match unsafe { attributes.call(MAP_DELETE) } {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(_) => Err(SysError::last("emptying a map")),
    }
}

/// Empties a place in an array of programs. One that is empty already is no error.
///
/// # Errors
/// The kernel's.
pub fn clear_program(array: BorrowedFd<'_>, index: u32) -> Result<(), SysError> {
    clear_value(array, &index.to_ne_bytes())
}

/// What a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// A typed raw tracepoint: number of its `btf_trace_` type in the kernel's BTF.
    TypedTracepoint(u32),
    /// A raw tracepoint, whose arguments are plain numbers.
    RawTracepoint,
    /// An iterator: number of its function in the kernel's BTF.
    Iterator(u32),
    /// The record of a tracepoint.
    TracepointRecord,
    /// A place in code: its context is the registers.
    Probe,
}

/// Loads a program.
///
/// # Errors
/// No rights; the verifier's refusal with its log.
pub fn load_program(kind: ProgramKind, insns: &[Insn], name: &str) -> Result<OwnedFd, SysError> {
    const TRACING: u32 = 26;
    const TRACE_RAW_TRACEPOINT: u32 = 23;
    const PROBE: u32 = 2;
    const TRACEPOINT: u32 = 5;
    const RAW_TRACEPOINT: u32 = 17;
    let licence = c"Dual MIT/GPL";
    let base = || {
        let attributes = Attributes::new()
            .u32(4, insns.len() as u32)
            .u64(8, insns.as_ptr() as u64)
            .u64(16, licence.as_ptr() as u64)
            .name(48, name);
        match kind {
            ProgramKind::TypedTracepoint(id) => {
                attributes.u32(0, TRACING).u32(68, TRACE_RAW_TRACEPOINT).u32(108, id)
            }
            ProgramKind::Iterator(id) => attributes.u32(0, TRACING).u32(68, TRACE_ITERATOR).u32(108, id),
            ProgramKind::RawTracepoint => attributes.u32(0, RAW_TRACEPOINT),
            ProgramKind::TracepointRecord => attributes.u32(0, TRACEPOINT),
            ProgramKind::Probe => attributes.u32(0, PROBE),
        }
    };
    // SAFETY: instructions and licence live through the call, with the lengths said.
    let first = match unsafe { base().call(PROG_LOAD) } {
        Ok(fd) => return Ok(owned(fd)),
        Err(error) => error,
    };
    if first.raw_os_error() == Some(libc::EPERM) {
        return Err(SysError::Denied { call: "loading a program", missing: missing_rights() });
    }
    let mut log = vec![0u8; LOG_BYTES];
    let mut again = base().u32(24, 1).u32(28, log.len() as u32).u64(32, log.as_mut_ptr() as u64);
    // SAFETY: as above, and the log is as long as said.
    match unsafe { again.call(PROG_LOAD) } {
        Ok(fd) => Ok(owned(fd)),
        Err(error) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]).into_owned();
            let reason = reason_of(&log);
            Err(SysError::Refused { name: name.into(), error, reason, log })
        }
    }
}

/// Why the verifier refused a program: its last words in front of the statistics.
fn reason_of(log: &str) -> String {
    let is_figure = |line: &str| {
        ["processed ", "verification time", "stack depth", "mark_precise", "max_states"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let words = log.lines().map(str::trim).rfind(|line| !line.is_empty() && !is_figure(line));
    words.unwrap_or("the verifier says nothing").chars().take(REASON_CHARACTERS).collect()
}

/// Runs an iterator's program over everything.
///
/// # Errors
/// The kernel's.
pub fn iterate(program: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attributes = Attributes::new().fd(0, program).u32(8, TRACE_ITERATOR);
    // SAFETY: no addresses in it.
    let link = unsafe { attributes.call(LINK_CREATE) }.map(owned);
    let link = link.map_err(|_| SysError::last("attaching an iterator"))?;
    let mut attributes = Attributes::new().fd(0, link.as_fd());
    // SAFETY: no addresses in it.
    let iterator = unsafe { attributes.call(ITERATOR_CREATE) }.map(owned);
    let iterator = iterator.map_err(|_| SysError::last("opening an iterator"))?;
    let failed = |error| SysError::Failed { call: "iterating", error };
    // Its programs print nothing, so the first read goes to the end.
    let mut file = std::fs::File::from(iterator);
    io::copy(&mut file, &mut io::sink()).map_err(failed)?;
    Ok(())
}

/// Runs a raw tracepoint's program once, with the address and the length of `payload` as arguments.
///
/// # Errors
/// The kernel's.
pub fn run_with(program: BorrowedFd<'_>, payload: &[u8]) -> Result<(), SysError> {
    let arguments = [payload.as_ptr() as u64, payload.len() as u64];
    let mut attributes = Attributes::new()
        .fd(0, program)
        .u32(40, size_of_val(&arguments) as u32)
        .u64(48, arguments.as_ptr() as u64);
    // SAFETY: the arguments live through the call and have the bytes said; the program only reads what
    // they point to, and checks that it can.
    unsafe { attributes.call(PROG_RUN) }.map(drop).map_err(|_| SysError::last("running a program"))
}

/// Runs a raw tracepoint's program that looks at no arguments, in this thread: what it returns.
///
/// # Errors
/// The kernel's.
pub fn run(program: BorrowedFd<'_>) -> Result<u32, SysError> {
    const RESULT: std::ops::Range<usize> = 4..8;
    let mut attributes = Attributes::new().fd(0, program);
    // SAFETY: no addresses in it.
    unsafe { attributes.call(PROG_RUN) }.map_err(|_| SysError::last("running a program"))?;
    let mut result = [0; 4];
    result.copy_from_slice(&attributes.0[RESULT]);
    Ok(u32::from_ne_bytes(result))
}

/// Names of the machine's interfaces with their IPv4 addresses; nothing if the system does not tell.
pub(crate) fn interface_addresses() -> Vec<(String, std::net::Ipv4Addr)> {
    let mut first = std::ptr::null_mut();
    // SAFETY: the list is given to us and freed below.
    if unsafe { libc::getifaddrs(&mut first) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = first;
    // SAFETY: entries of the list just made, which lives until it is freed; an address of the family
    // AF_INET is a `sockaddr_in`, and names end with a zero.
    unsafe {
        while let Some(entry) = next.as_ref() {
            next = entry.ifa_next;
            if entry.ifa_addr.is_null() || i32::from((*entry.ifa_addr).sa_family) != libc::AF_INET {
                continue;
            }
            let address = std::ptr::read_unaligned(entry.ifa_addr.cast::<libc::sockaddr_in>());
            let name = std::ffi::CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned();
            found.push((name, std::net::Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr))));
        }
        libc::freeifaddrs(first);
    }
    found
}

/// Opens a counter of perf that counts everything on a CPU.
///
/// # Errors
/// The kernel's: the machine has no such counter, or the rights are missing.
pub fn open_counter(kind: u32, config: u64, cpu: u32) -> Result<OwnedFd, SysError> {
    // SAFETY: no addresses in it.
    unsafe { open_event(Attributes::new().u32(0, kind).u64(8, config), cpu, "opening a counter") }
}

/// Opens an event of perf for whatever runs on a CPU.
///
/// # Safety
/// As [`Attributes::call`].
unsafe fn open_event(attributes: Attributes, cpu: u32, call: &'static str) -> Result<OwnedFd, SysError> {
    const ATTRIBUTE_BYTES: u32 = 128;
    const CLOSE_ON_EXEC: u64 = 8;
    let attributes = attributes.u32(4, ATTRIBUTE_BYTES);
    // SAFETY: the block has the bytes that it says and lives through the call; the caller vouches for addresses
    // in it.
    let event = unsafe {
        libc::syscall(libc::SYS_perf_event_open, attributes.0.as_ptr(), -1, cpu, -1, CLOSE_ON_EXEC)
    };
    if event < 0 { Err(SysError::last_of_perf(call)) } else { Ok(owned(event as i32)) }
}

/// Attaches a typed raw tracepoint's program. Closing the result detaches it.
///
/// # Errors
/// The kernel's.
pub fn attach_typed(program: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let mut attributes = Attributes::new().fd(8, program);
    // SAFETY: no addresses in it (no name: the program says what it hangs on).
    unsafe { attributes.call(RAW_TRACEPOINT_OPEN) }
        .map(owned)
        .map_err(|_| SysError::last("attaching a program"))
}

/// Attaches a raw tracepoint's program. Closing the result detaches it.
///
/// # Errors
/// The kernel's.
pub fn attach_raw(program: BorrowedFd<'_>, tracepoint: &str) -> Result<OwnedFd, SysError> {
    let name: Vec<u8> = tracepoint.bytes().chain([0]).collect();
    let mut attributes = Attributes::new().u64(0, name.as_ptr() as u64).fd(8, program);
    // SAFETY: the name ends with a zero and lives through the call.
    unsafe { attributes.call(RAW_TRACEPOINT_OPEN) }
        .map(owned)
        .map_err(|_| SysError::last("attaching a program"))
}

/// Opens the event of perf for a tracepoint's record, switched off: it only carries programs, which run on
/// all CPUs whatever its state.
///
/// # Errors
/// The kernel's.
pub(crate) fn open_record(tracepoint: u32) -> Result<OwnedFd, SysError> {
    const TYPE_TRACEPOINT: u32 = 2;
    const DISABLED: u64 = 1;
    let attributes =
        Attributes::new().u32(0, TYPE_TRACEPOINT).u64(8, tracepoint.into()).u64(16, 1).u64(40, DISABLED);
    // SAFETY: no addresses in it.
    unsafe { open_event(attributes, 0, "opening a tracepoint") }
}

/// Attaches a program to such an event. Closing the result detaches it.
///
/// # Errors
/// The kernel's: before 5.15 it has no such links.
pub(crate) fn link_record(program: BorrowedFd<'_>, event: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    const PERF_EVENT: u32 = 41;
    let mut attributes = Attributes::new().fd(0, program).fd(4, event).u32(8, PERF_EVENT);
    // SAFETY: no addresses in it.
    unsafe { attributes.call(LINK_CREATE) }
        .map(owned)
        .map_err(|_| SysError::last("attaching a program to a tracepoint"))
}

/// Attaches a program to an event of perf for as long as that is open.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_program(program: BorrowedFd<'_>, event: BorrowedFd<'_>) -> Result<(), SysError> {
    const SET_BPF: u64 = 0x4004_2408;
    // SAFETY: the request takes an integer.
    match unsafe { libc::ioctl(event.as_raw_fd(), SET_BPF as _, program.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(SysError::last("attaching a program to an event of perf")),
    }
}

/// Puts a probe at a place in code, in all programs, that does nothing yet. `unit` is the kernel's number of
/// such places' kind. Closing the result takes it away.
///
/// # Errors
/// The kernel's: it lets no probe be there.
pub(crate) fn place_probe(unit: u32, site: &Site) -> Result<OwnedFd, SysError> {
    const COUNTER_SHIFT: u32 = 32;
    let place = CString::new(site.place.as_bytes())
        .map_err(|error| SysError::Failed { call: "placing a probe", error: error.into() })?;
    if site.semaphore >> COUNTER_SHIFT != 0 {
        let error = io::Error::other("its semaphore lies behind 4 GiB of the file");
        return Err(SysError::Failed { call: "placing a probe", error });
    }
    let name = if site.place.is_empty() { 0 } else { place.as_ptr() as u64 };
    let attributes = Attributes::new()
        .u32(0, unit)
        .u64(8, u64::from(site.returns) | site.semaphore << COUNTER_SHIFT)
        .u64(56, name)
        .u64(64, site.offset);
    // SAFETY: the name ends with a zero and lives through the call.
    unsafe { open_event(attributes, 0, "placing a probe") }
}

/// Attaches a program to a place in code. Closing the result detaches it.
///
/// # Errors
/// As `place_probe`.
pub fn attach_probe(program: BorrowedFd<'_>, unit: u32, site: &Site) -> Result<OwnedFd, SysError> {
    const ENABLE: u64 = 0x2400;
    let event = place_probe(unit, site)?;
    set_program(program, event.as_fd())?;
    // SAFETY: the request takes an integer.
    match unsafe { libc::ioctl(event.as_raw_fd(), ENABLE as _, 0) } {
        0 => Ok(event),
        _ => Err(SysError::last("switching a probe on")),
    }
}

/// Words of what the kernel tells about a program.
const INFO_WORDS: usize = 32;

fn program_info(program: BorrowedFd<'_>) -> Result<[u64; INFO_WORDS], SysError> {
    let mut info = [0u64; INFO_WORDS];
    let mut attributes =
        Attributes::new().fd(0, program).u32(4, (INFO_WORDS * 8) as u32).u64(8, info.as_mut_ptr() as u64);
    // SAFETY: the kernel writes at most the bytes said into `info`.
    unsafe { attributes.call(OBJ_INFO) }.map_err(|_| SysError::last("asking about a program"))?;
    Ok(info)
}

/// Runs of a program that the kernel skipped because it was running already on that CPU.
///
/// # Errors
/// The kernel's.
pub fn recursion_misses(program: BorrowedFd<'_>) -> Result<u64, SysError> {
    const WORD: usize = 208 / 8;
    Ok(program_info(program)?[WORD])
}

/// While the result is open, the kernel counts the runs of all programs (and takes their time, which
/// slows them down).
///
/// # Errors
/// The kernel's.
pub fn count_runs() -> Result<OwnedFd, SysError> {
    // Statistics of the kind 0: runs and their time.
    let mut attributes = Attributes::new();
    // SAFETY: no addresses in it.
    unsafe { attributes.call(ENABLE_STATS) }.map(owned).map_err(|_| SysError::last("counting runs"))
}

/// Runs of a program while they were counted.
///
/// # Errors
/// The kernel's.
pub fn runs(program: BorrowedFd<'_>) -> Result<u64, SysError> {
    const WORD: usize = 200 / 8;
    Ok(program_info(program)?[WORD])
}

/// Instructions that the verifier looked at, each as often as it did.
///
/// # Errors
/// The kernel's.
pub fn verified_insns(program: BorrowedFd<'_>) -> Result<u32, SysError> {
    const WORD: usize = 216 / 8;
    Ok(program_info(program)?[WORD] as u32)
}

/// Number of a program, which the whole machine knows it by.
///
/// # Errors
/// The kernel's.
pub fn program_id(program: BorrowedFd<'_>) -> Result<u32, SysError> {
    Ok(upper_half(program_info(program)?[0]))
}

/// The second of two 32-bit words that lie in one of 64 bits.
fn upper_half(word: u64) -> u32 {
    let [.., a, b, c, d] = word.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// True while the kernel holds a program of this number.
///
/// # Errors
/// The kernel's, other than that there is none.
pub fn program_exists(id: u32) -> Result<bool, SysError> {
    let mut attributes = Attributes::new().u32(0, id);
    // SAFETY: no addresses in it.
    match unsafe { attributes.call(PROG_BY_ID) } {
        Ok(fd) => Ok(owned(fd).as_raw_fd() >= 0),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(_) => Err(SysError::last("looking for a program")),
    }
}

/// Returns when every program that was running when it was called has ended.
///
/// # Errors
/// The kernel does not offer it.
pub fn wait_for_programs() -> Result<(), SysError> {
    const GLOBAL: i32 = 1;
    // SAFETY: no addresses.
    match unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(SysError::last("membarrier")),
    }
}

/// True if a tracefs is mounted, whether we may look into it or not.
pub fn tracefs_mounted() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(2) == Some("tracefs"))
}

/// CPUs that the machine may ever have, and those that are online.
pub fn cpus() -> (u32, Vec<u32>) {
    let read = |file: &str| {
        let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/{file}")).unwrap_or_default();
        parse_cpus(&text)
    };
    let online = read("online");
    let possible = read("possible").last().or(online.last()).map_or(1, |last| last + 1);
    (possible, online)
}

/// `0-3,7` as numbers.
fn parse_cpus(text: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last.min(first.saturating_add(sillage_model::limits::CPUS_MAX as u32)));
        }
    }
    cpus
}

/// One page of a descriptor, mapped.
pub(crate) struct Page(NonNull<u8>);

// SAFETY: the page is used through atomics alone.
unsafe impl Send for Page {}
// SAFETY: as for `Send`.
unsafe impl Sync for Page {}

impl Page {
    const BYTES: usize = 4096;

    pub(crate) fn map(file: BorrowedFd<'_>, offset: i64, writable: bool) -> Result<Page, SysError> {
        let access = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a fresh shared mapping at an address that the kernel chooses touches no memory of ours.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), Page::BYTES, access, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        match NonNull::new(address.cast::<u8>()).filter(|_| address != libc::MAP_FAILED) {
            Some(address) => Ok(Page(address)),
            None => Err(SysError::last("mapping a page")),
        }
    }

    /// The first word. To be stored to only in a writable page.
    pub(crate) fn word(&self) -> &AtomicU64 {
        // SAFETY: a page that stays mapped as long as `self`, aligned, used through atomics by all.
        unsafe { self.0.cast().as_ref() }
    }

    /// Where the word at an offset inside the page is.
    fn word_at(&self, offset: i16) -> &AtomicU64 {
        let words = Page::BYTES / size_of::<AtomicU64>();
        let index = usize::try_from(offset).unwrap_or(0) / size_of::<AtomicU64>();
        assert!(index < words, "words of the page");
        // SAFETY: a page that stays mapped as long as `self`, aligned, used through atomics by all; the
        // index was checked.
        unsafe { self.0.cast::<AtomicU64>().add(index).as_ref() }
    }

    pub(crate) fn load_at(&self, offset: i16) -> u64 {
        self.word_at(offset).load(Ordering::Acquire) // pairs with the stores of `store_at`
    }

    /// To be called on writable pages alone.
    pub(crate) fn store_at(&self, offset: i16, value: u64) {
        self.word_at(offset).store(value, Ordering::Release); // pairs with the programs' loads
    }

    pub(crate) fn load(&self) -> u64 {
        self.word().load(Ordering::Acquire) // pairs with the kernel's release of its positions
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: `map` mapped it, and `word` borrows from us.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Page::BYTES) };
    }
}

/// Memory of our own that is shared by its descriptor.
///
/// # Errors
/// No memory.
pub(crate) fn memory_file(name: &str, bytes: u64) -> Result<OwnedFd, SysError> {
    let failed = |error: rustix::io::Errno| SysError::Failed { call: "making memory", error: error.into() };
    let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).map_err(failed)?;
    rustix::fs::ftruncate(&file, bytes).map_err(failed)?;
    Ok(file)
}

/// A ring of our own, mapped to be written by one thread while the consumer reads it.
pub(crate) struct Memory {
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory that belongs to this value alone in this process's view of it; whoever else maps
// the file reads only what the ring's words say is complete.
unsafe impl Send for Memory {}

impl Memory {
    pub(crate) fn map(file: BorrowedFd<'_>, bytes: usize) -> Result<Memory, SysError> {
        let have = rustix::fs::fstat(file).map_or(0, |stat| stat.st_size as usize);
        if have < bytes {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(SysError::Failed { call: "mapping a ring", error });
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh shared mapping at an address that the kernel chooses touches no memory of ours.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        match NonNull::new(address.cast::<u8>()).filter(|_| address != libc::MAP_FAILED) {
            Some(address) => Ok(Memory { address, bytes }),
            None => Err(SysError::last("mapping a ring")),
        }
    }

    /// The word at an offset.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.bytes, "a word of the ring");
        // SAFETY: inside the mapping and aligned (just asserted), mapped as long as `self`, and only used
        // through atomics: records never lie on words.
        unsafe { self.address.add(offset).cast().as_ref() }
    }

    /// Puts bytes at an offset.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.bytes && bytes.len() <= self.bytes - offset, "inside the ring");
        // SAFETY: inside the mapping (just asserted), which no Rust object lies in; the ring's only writer
        // owns these bytes until it commits them.
        unsafe {
            self.address.add(offset).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len())
        };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `map` mapped it, and `word` borrows from us.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

/// The clock of all kernel events, in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Wakes everyone who waits on the futex `word`.
pub(crate) fn wake(word: &std::sync::atomic::AtomicU32) {
    // SAFETY: the kernel checks the address itself.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Has the calling thread run as soon as it can, in front of everything without a real-time priority, if it
/// may: for threads that work for some microseconds at a time. Else it gets the highest ordinary priority.
pub(crate) fn run_first() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the parameters live through the call.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const priority) } {
        0 => Ok(()),
        _ => raise_priority(),
    }
}

/// Gives the calling thread the highest ordinary priority, if it may.
pub(crate) fn raise_priority() -> io::Result<()> {
    // SAFETY: no addresses.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The descriptor's number, for instructions.
pub(crate) fn number(fd: &impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_verifiers_reason_is_found() {
        let log = "0: (85) call bpf_get_func_ip#173\nR1 type=scalar expected=ctx\nprocessed 1 insns (limit 1000000) \
                   max_states_per_insn 0\n\n";
        assert_eq!(super::reason_of(log), "R1 type=scalar expected=ctx");
        assert_eq!(super::reason_of("\n"), "the verifier says nothing");
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(super::parse_cpus("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(super::parse_cpus("\n"), [0u32; 0]);
        assert_eq!(super::parse_cpus("3-1,x,4-"), [0u32; 0]);
    }
}
