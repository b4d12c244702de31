//! The rseq producer on x86-64: the whole of `steps` in one restartable sequence.
//!
//! The kernel sends a thread that is preempted, migrated or signalled inside the range [start, end)
//! to the abort handler, which starts again; so the loads and stores of the range happen on one CPU
//! without another thread of that CPU in between. The last instruction of the range is the store of
//! `head`: whatever was stored before is rewritten by the next attempt, or harmless. Stores stay in
//! program order on x86, which is the release order that the consumer relies on.
//!
//! The rare paths (opening, extended header, payloads above 8 bytes) lie before the entry label but
//! inside the range: a jump out of the range after the commit could be aborted and publish twice.
//! What leaves without publishing goes through the cold section outside.
//!
//! `cpu_id` (offset 4 of the rseq area) is used, never `cpu_id_start` (tcmalloc overlays it), and
//! `rseq_cs` is NULL again afterwards, because the code may live in a library that gets closed.

use super::{Emit, HeaderForm, Producer};
use crate::clock::{ClockPage, INDEX_STEP, SLOTS, SharedSlot};
use crate::layout::{
    CONTROL_BYTES, ConsumerLine, DESCRIPTOR_BYTES, Descriptor, LostReason, ProducerLine, TAIL_BYTES,
};
use core::arch::asm;
use core::mem::{offset_of, size_of};

/// Attempts before a record is given up: only a single-stepping debugger gets there.
const ATTEMPTS: u64 = 64;
/// Results, in the register that counts attempts down: below `OPENED` the record is published.
const OPENED: u64 = 0x1_0000;
const CLOCK: u64 = 0x2_0000;
const FULL: u64 = 0x3_0000;
const CLOSED: u64 = 0x4_0000;
const NO_CPU: u64 = 0x5_0000;
const ABORTED: u64 = 0x6_0000;
const TOO_LARGE: u64 = 0x7_0000;

// Shifts and masks stand for multiplications in the assembly.
const _: () = assert!(size_of::<ConsumerLine>() == 64 && offset_of!(ConsumerLine, released) == 0);
const _: () = assert!(INDEX_STEP == 32 && SLOTS == 4 && offset_of!(ClockPage, index) == 0);
const _: () = assert!(offset_of!(Descriptor, number) == 0 && offset_of!(ProducerLine, head) == 0);

/// A form of event headers, as constants for the assembly.
trait Form {
    const FORM: HeaderForm;
    const ID_BITS: u32 = Self::FORM.id_bits();
    const EXTENDED_ID: u32 = Self::FORM.extended_id();
    const SPAN_SHIFT: u32 = Self::FORM.short_span_ns().ilog2();
    const SHORT: u64 = Self::FORM.short_bytes();
    const EXTENDED: u64 = Self::FORM.extended_bytes();
    /// Bytes of the announcing id in the extended form.
    const PREFIX: u64 = Self::FORM.extended_bytes() - 12;
}
struct Large;
impl Form for Large {
    const FORM: HeaderForm = HeaderForm::Large;
}
struct Compact;
impl Form for Compact {
    const FORM: HeaderForm = HeaderForm::Compact;
}

/// One section; `$clock` leaves the time in {ts} and may use rax, rcx, rdx and {head}.
macro_rules! section {
    ($form:ty, $self:expr, $id:expr, $staged:expr, $len:expr, $result:ident, $ring:ident; $($clock:literal),+ $(,)?) => {
        asm!(
            ".pushsection __rseq_cs, \"aw\"", ".balign 32",
            "66:", ".long 0, 0", ".quad 2f, 3f-2f, 4f",
            ".popsection",
            // ---- outside the range: the abort handler, and the exits that publish nothing
            ".pushsection .text.sillage_rseq_abort, \"ax\"",
            ".byte 0x0f, 0xb9, 0x3d", ".long 0x53053053",
            "4: movzx {tries:e}, {tries:x}", "dec {tries:e}", "jnz 20f", "mov {tries:e}, {ABORTED}", "jmp 70f",
            "82: mov {tries:e}, {CLOCK}", "jmp 70f",
            "83: mov {tries:e}, {FULL}", "jmp 70f",
            "84: mov {tries:e}, {CLOSED}", "jmp 70f",
            "85: mov {tries:e}, {NO_CPU}", "jmp 70f",
            "86: mov {tries:e}, {TOO_LARGE}", "jmp 70f",
            ".popsection",
            "jmp 20f",

            "2:",
            // ---- open sub-buffer t = ceil(head / S), in rdx
            "50: cmp {len}, [{p} + {PAYLOAD_MAX}]", "ja 86b",
            "mov rcx, [{p} + {SHIFT}]",
            "mov rdx, {head}", "add rdx, [{p} + {SMASK}]", "shr rdx, cl",
            "mov rax, [{p} + {RSEQ}]", "mov edi, fs:[rax + 4]",
            "mov rax, rdi", "shl rax, 6", "add rax, [{p} + {CONS}]",
            "mov rsi, rdx", "sub rsi, [rax]", "cmp rsi, [{p} + {WINDOW}]", "jae 83b",
            "add rdi, [{p} + {ACTIVE}]", "mov byte ptr [rdi], 1",
            // end of t-1: only right if t-1 was open, and only then will anyone read it
            "lea rax, [rdx - 1]", "shl rax, cl", "mov rdi, {head}", "sub rdi, rax",
            "and rax, [{p} + {RMASK}]", "mov [{ring} + rax + {DATA} + {D_END}], rdi",
            // announce, then change
            "mov [{ring} + {L_OPENING}], rdx",
            "mov {head}, rdx", "shl {head}, cl",
            "mov rax, {head}", "and rax, [{p} + {RMASK}]",
            "mov [{ring} + rax + {DATA}], rdx",
            "mov [{ring} + rax + {DATA} + {D_BEGIN}], {ts}",
            "mov rdi, [{ring} + {L_LOST}]",
            "add rdi, [{ring} + {L_LOST} + 8]", "add rdi, [{ring} + {L_LOST} + 16]",
            "add rdi, [{ring} + {L_LOST} + 24]", "add rdi, [{ring} + {L_LOST} + 32]",
            "add rdi, [{ring} + {L_LOST} + 40]", "add rdi, [{ring} + {L_LOST} + 48]",
            "add rdi, [{ring} + {L_LOST} + 56]",
            "mov [{ring} + rax + {DATA} + {D_LOST}], rdi",
            "add {head}, {FIRST}", "or {tries:e}, {OPENED}",
            "cmp {id:e}, {EXT_ID}", "jb 44f", "jmp 64f",
            // ---- extended header; rcx = room
            "60: lea rdx, [{len} + {EXT} + {TAIL}]", "cmp rdx, rcx", "jae 50b",
            "64: mov rdi, {head}", "and rdi, [{p} + {RMASK}]", "add rdi, {ring}",
            "mov word ptr [rdi + {DATA}], {EXT_ID}",
            "mov dword ptr [rdi + {DATA} + {PREFIX}], {id:e}",
            "mov [rdi + {DATA} + {PREFIX} + 4], {ts}",
            "add {head}, {EXT} - {SHORT}", "add rdi, {EXT} - {SHORT}", "jmp 40f",
            // ---- payload above 8 bytes
            "45: cmp {len}, 256", "ja 46f", "mov ecx, 8",
            "41: mov rax, [{staged} + rcx]", "mov [rdi + rcx + {DATA} + {SHORT}], rax",
            "add rcx, 8", "cmp rcx, {len}", "jb 41b", "jmp 47f",
            "46: add rdi, {DATA} + {SHORT}", "mov rsi, {staged}", "mov rcx, {len}", "rep movsb", "jmp 47f",

            // ---- entry: arm, CPU, closed
            "20: lea rax, [rip + 66b]", "mov rdx, [{p} + {RSEQ}]", "mov fs:[rdx + 8], rax",
            "mov {ring:e}, fs:[rdx + 4]", "cmp {ring}, [{p} + {CPUS}]", "jae 85b",
            "imul {ring}, [{p} + {STRIDE}]", "add {ring}, [{p} + {RINGS}]",
            "cmp qword ptr [{ring} + {L_CLOSED}], 0", "jne 84b",
            $($clock),+,
            // ---- clamp
            "mov {head}, [{ring}]",
            "cmp {ts}, [{ring} + {L_LAST}]", "cmovb {ts}, [{ring} + {L_LAST}]",
            // ---- rcx = room in the open sub-buffer (0: nothing is open)
            "mov rcx, {head}", "neg rcx", "and rcx, [{p} + {SMASK}]",
            // ---- short or extended; strictly inside the room
            "mov rax, {head}", "and rax, [{p} + {START}]",
            "mov rdx, {ts}", "sub rdx, [{ring} + rax + {DATA} + {D_BEGIN}]",
            "shr rdx, {SPAN_SHIFT}", "jnz 60b",
            "cmp {id:e}, {EXT_ID}", "jae 60b",
            "lea rdx, [{len} + {SHORT} + {TAIL}]", "cmp rdx, rcx", "jae 50b",
            // ---- short header: one 8-byte store, of which the payload overwrites the end
            "44: mov rdi, {head}", "and rdi, [{p} + {RMASK}]", "add rdi, {ring}",
            "mov rax, {ts}", "shl rax, {ID_BITS}", "or rax, {id}", "mov [rdi + {DATA}], rax",
            // ---- copy (rdi and head lack the short header's length), commit
            "40: mov rax, [{staged}]", "mov [rdi + {DATA} + {SHORT}], rax",
            "lea {head}, [{head} + {len} + {SHORT}]",
            "cmp {len}, 8", "ja 45b",
            "47: mov [{ring} + {L_LAST}], {ts}",
            "mov [{ring}], {head}",
            "3:",
            "70: mov rcx, [{p} + {RSEQ}]", "mov qword ptr fs:[rcx + 8], 0",

            p = in(reg) $self as *const Producer,
            id = in(reg) u64::from($id),
            staged = in(reg) $staged,
            len = in(reg) $len,
            tries = inout(reg) ATTEMPTS => $result,
            ring = out(reg) $ring,
            head = out(reg) _,
            ts = out(reg) _,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            RSEQ = const offset_of!(Producer, rseq_offset),
            RINGS = const offset_of!(Producer, rings),
            STRIDE = const offset_of!(Producer, ring_bytes),
            CPUS = const offset_of!(Producer, cpus),
            SMASK = const offset_of!(Producer, subbuf_mask),
            START = const offset_of!(Producer, subbuf_start_mask),
            SHIFT = const offset_of!(Producer, subbuf_shift),
            RMASK = const offset_of!(Producer, ring_mask),
            CONS = const offset_of!(Producer, consumer),
            WINDOW = const offset_of!(Producer, window),
            ACTIVE = const offset_of!(Producer, active),
            DATA = const CONTROL_BYTES,
            FIRST = const DESCRIPTOR_BYTES,
            TAIL = const TAIL_BYTES,
            ID_BITS = const <$form>::ID_BITS,
            EXT_ID = const <$form>::EXTENDED_ID,
            SPAN_SHIFT = const <$form>::SPAN_SHIFT,
            SHORT = const <$form>::SHORT,
            EXT = const <$form>::EXTENDED,
            PREFIX = const <$form>::PREFIX,
            L_LAST = const offset_of!(ProducerLine, last_ts),
            L_OPENING = const offset_of!(ProducerLine, opening),
            L_CLOSED = const offset_of!(ProducerLine, closed),
            L_LOST = const offset_of!(ProducerLine, lost),
            D_BEGIN = const offset_of!(Descriptor, begin_ts),
            D_LOST = const offset_of!(Descriptor, lost_at_open),
            D_END = const offset_of!(Descriptor, end),
            OPENED = const OPENED,
            CLOCK = const CLOCK,
            FULL = const FULL,
            CLOSED = const CLOSED,
            NO_CPU = const NO_CPU,
            ABORTED = const ABORTED,
            TOO_LARGE = const TOO_LARGE,
            PAYLOAD_MAX = const offset_of!(Producer, payload_bytes_max),
            options(nostack),
        )
    };
}

/// A section that reads the clock page; `$fence` comes in front of `rdtsc`.
macro_rules! section_with_clock_page {
    ($form:ty, $fence:literal, $self:expr, $id:expr, $staged:expr, $len:expr, $result:ident, $ring:ident) => {
        section!($form, $self, $id, $staged, $len, $result, $ring;
            "mov rcx, [{p} + 40]",
            "25: mov {ts}, [rcx]", "mov {head:e}, {ts:e}", "and {head:e}, 96",
            $fence, "rdtsc", "shl rdx, 32", "or rax, rdx",
            "sub rax, [rcx + {head} + 64]", "cmp rax, [rcx + {head} + 88]", "jae 82b",
            "imul rax, [rcx + {head} + 80]", "shr rax, 32", "add rax, [rcx + {head} + 72]",
            // published meanwhile: the slot may have been reused
            "cmp {ts}, [rcx]", "jne 25b", "mov {ts}, rax",
        )
    };
}

// The clock's instructions name these offsets in figures, because they are text to the macro.
const _: () = assert!(offset_of!(Producer, clock) == 40 && offset_of!(ClockPage, slots) == 64);
const _: () = assert!(offset_of!(SharedSlot, base_tsc) == 0 && offset_of!(SharedSlot, base_ns) == 8);
const _: () = assert!(offset_of!(SharedSlot, multiplier) == 16 && offset_of!(SharedSlot, limit_ticks) == 24);

impl Producer {
    /// [`Producer::emit`] for rseq rings with large headers and the page's clock.
    ///
    /// # Safety
    /// As [`Producer::emit`].
    #[inline(never)]
    pub(super) unsafe fn emit_plain(&self, id: u32, staged: *mut u8, len: usize) -> Emit {
        let (result, ring): (u64, *const u8);
        // SAFETY: `from_mapping` checked the geometry that bounds every address; the caller of `emit`
        // gave the staging bytes; glibc registered the rseq area (contract of `from_mapping`).
        unsafe { section_with_clock_page!(Large, "", self, id, staged, len, result, ring) };
        if result < OPENED {
            return Emit::Published;
        }
        // SAFETY: as above.
        unsafe { self.outcome(result, ring, id, staged, len) }
    }

    /// [`Producer::emit`] for all other rseq rings.
    ///
    /// # Safety
    /// As [`Producer::emit`].
    pub(super) unsafe fn emit_other_rseq(&self, id: u32, staged: *mut u8, len: usize) -> Emit {
        let (mut result, mut ring): (u64, *const u8) = (CLOCK, core::ptr::null());
        if self.host.tsc_allowed {
            // SAFETY: as in `emit_plain`.
            unsafe {
                match (self.geometry.header, self.geometry.ordered) {
                    (HeaderForm::Large, true) => {
                        section_with_clock_page!(Large, "lfence", self, id, staged, len, result, ring);
                    }
                    (HeaderForm::Large, false) => {
                        section_with_clock_page!(Large, "", self, id, staged, len, result, ring);
                    }
                    (HeaderForm::Compact, true) => {
                        section_with_clock_page!(Compact, "lfence", self, id, staged, len, result, ring);
                    }
                    (HeaderForm::Compact, false) => {
                        section_with_clock_page!(Compact, "", self, id, staged, len, result, ring);
                    }
                }
            }
        }
        // SAFETY: as in `emit_plain`.
        unsafe { self.outcome(result, ring, id, staged, len) }
    }

    /// What is left to do after a section.
    ///
    /// # Safety
    /// As [`Producer::emit`].
    #[cold]
    #[inline(never)]
    unsafe fn outcome(&self, result: u64, ring: *const u8, id: u32, staged: *mut u8, len: usize) -> Emit {
        let (mut result, mut ring) = (result, ring);
        if result == CLOCK {
            // SAFETY: passed on from the caller.
            (result, ring) = unsafe { self.emit_with_kernel_clock(id, staged, len) };
        }
        // The ring whose section refused; not that of the CPU where the thread runs by now.
        let cpu = || ((ring as usize - self.rings as usize) as u64 / self.ring_bytes) as u32;
        match result {
            0..OPENED => Emit::Published,
            OPENED..CLOCK => Emit::Opened,
            FULL => Emit::Full { cpu: cpu() },
            CLOSED => Emit::Closed,
            NO_CPU => {
                self.count_lost(0, LostReason::NoCpu);
                Emit::Lost(LostReason::NoCpu)
            }
            TOO_LARGE => {
                self.count_lost(cpu(), LostReason::TooLarge);
                Emit::Lost(LostReason::TooLarge)
            }
            _ => {
                self.count_lost((self.host.cpu)(), LostReason::Aborted);
                Emit::Lost(LostReason::Aborted)
            }
        }
    }

    /// A section with a time from the kernel, taken outside of it.
    ///
    /// # Safety
    /// As [`Producer::emit`].
    unsafe fn emit_with_kernel_clock(&self, id: u32, staged: *mut u8, len: usize) -> (u64, *const u8) {
        let (result, ring): (u64, *const u8);
        // SAFETY: the caller gave `STAGE_HEAD_BYTES` writable bytes in front of `staged`; the rest as in
        // `emit_plain`.
        unsafe {
            staged.cast::<u64>().sub(1).write_unaligned((self.host.monotonic_ns)());
            match self.geometry.header {
                HeaderForm::Large => {
                    section!(Large, self, id, staged, len, result, ring; "mov {ts}, [{staged} - 8]");
                }
                HeaderForm::Compact => {
                    section!(Compact, self, id, staged, len, result, ring; "mov {ts}, [{staged} - 8]");
                }
            }
        }
        (result, ring)
    }
}
