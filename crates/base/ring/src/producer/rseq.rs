//! The rseq producer on x86-64: the whole of `steps` in one restartable sequence.
//!
//! The kernel sends a thread that is preempted, migrated or signalled inside the range [start, end)
//! to the abort handler, which starts again; so the loads and stores of the range happen on one CPU
//! without another thread of that CPU in between. The last instruction of the range is the store of
//! `head`: whatever was stored before is rewritten by the next attempt, or harmless.
//!
//! The rare paths (opening, extended header, large copies) lie before the entry label but inside the
//! range: a jump out of the range after the commit could be aborted and publish twice. What leaves
//! without publishing goes through the cold section outside.
//!
//! `cpu_id` (offset 4 of the rseq area) is used, never `cpu_id_start` (tcmalloc overlays it), and
//! `rseq_cs` is NULL again afterwards, because the code may live in a library that gets closed.

use super::{Emit, Producer};
use crate::clock::{ClockPage, SharedSlot};
use crate::layout::{ConsumerLine, Descriptor, LINE_BYTES, LostReason, ProducerLine};
use core::arch::asm;
use core::mem::{offset_of, size_of};

/// Attempts before a record is given up: only a single-stepping debugger gets there.
const ATTEMPTS: u64 = 64;
/// Added to the attempts when a sub-buffer was opened.
const OPENED: u64 = 0x1_0000;

const CODE_CLOCK: u64 = 2;
const CODE_FULL: u64 = 3;
const CODE_CLOSED: u64 = 4;
const CODE_NO_CPU: u64 = 5;

// Shifts stand for multiplications in the assembly.
const _: () = assert!(size_of::<Descriptor>() == 64 && size_of::<ConsumerLine>() == 64);
const _: () = assert!(size_of::<SharedSlot>() == 32 && crate::clock::SLOTS == 4);
const _: () = assert!(offset_of!(ConsumerLine, released) == 0 && offset_of!(ClockPage, index) == 0);
const _: () = assert!(offset_of!(Descriptor, number) == 0 && offset_of!(ProducerLine, head) == 0);

/// One section; `$clock` leaves the time in {ts} and may use rax, rcx, rdx and {head}.
/// The result in rax: 0 published, 1 published and opened, else one of the codes, or 6.
macro_rules! section {
    ($self:expr, $id:expr, $staged:expr, $len:expr, $code:ident, $ring:ident; $($clock:literal),+ $(,)?) => {
        asm!(
            ".pushsection __rseq_cs, \"aw\"", ".balign 32",
            "66:", ".long 0, 0", ".quad 2f, 3f-2f, 4f",
            ".popsection",
            // ---- outside the range: the abort handler, and the exits that publish nothing
            ".pushsection .text.sillage_rseq_abort, \"ax\"",
            ".byte 0x0f, 0xb9, 0x3d", ".long 0x53053053",
            "4: movzx {tries:e}, {tries:x}", "dec {tries:e}", "jnz 20f", "mov eax, 6", "jmp 70f",
            "82: mov eax, 2", "jmp 70f",
            "83: mov eax, 3", "jmp 70f",
            "84: mov eax, 4", "jmp 70f",
            "85: mov eax, 5", "jmp 70f",
            ".popsection",
            "jmp 20f",

            "2:",
            // ---- open sub-buffer t = ceil(head / S), in rdx
            "50: mov rcx, [{p} + {SHIFT}]",
            "mov rdx, {head}", "add rdx, [{p} + {SMASK}]", "shr rdx, cl",
            "mov rax, [{p} + {RSEQ}]", "mov edi, fs:[rax + 4]",
            "mov rax, rdi", "shl rax, 6", "add rax, [{p} + {CONS}]",
            "mov rsi, rdx", "sub rsi, [rax]", "cmp rsi, [{p} + {WINDOW}]", "jae 83b",
            "add rdi, [{p} + {ACTIVE}]", "mov byte ptr [rdi], 1",
            // end of t-1: only right if t-1 was open, and only then will anyone read it
            "lea rax, [rdx - 1]", "mov rdi, rax", "shl rdi, cl", "neg rdi", "add rdi, {head}",
            "and rax, [{p} + {NMASK}]", "shl eax, 6", "mov [{ring} + rax + {LINE} + {D_END}], rdi",
            // announce, then change (x86 keeps stores in order)
            "mov [{ring} + {L_OPENING}], rdx",
            "mov rax, rdx", "and rax, [{p} + {NMASK}]", "shl eax, 6",
            "mov [{ring} + rax + {LINE}], rdx",
            "mov [{ring} + rax + {LINE} + {D_BEGIN}], {ts}",
            "mov rdi, [{ring} + {L_LOST}]",
            "add rdi, [{ring} + {L_LOST} + 8]", "add rdi, [{ring} + {L_LOST} + 16]",
            "add rdi, [{ring} + {L_LOST} + 24]", "add rdi, [{ring} + {L_LOST} + 32]",
            "add rdi, [{ring} + {L_LOST} + 40]", "add rdi, [{ring} + {L_LOST} + 48]",
            "add rdi, [{ring} + {L_LOST} + 56]",
            "mov [{ring} + rax + {LINE} + {D_LOST}], rdi",
            "shl rdx, cl", "mov {head}, rdx", "or {tries:e}, {OPENED}",
            "cmp {id}, [{p} + {EXT_ID}]", "jb 44f", "jmp 64f",
            // ---- extended header
            "60: mov rdx, [{p} + {EXT_LEN}]", "add rdx, {len}", "cmp rdx, rcx", "jae 50b",
            "64: mov rdi, {head}", "and rdi, [{p} + {NSMASK}]",
            "add rdi, rax", "add rdi, [{p} + {CONTROL}]", "add rdi, {ring}",
            "mov rdx, [{p} + {EXT_ID}]", "mov word ptr [rdi], dx",
            "add rdi, [{p} + {EXT_PREFIX}]",
            "mov dword ptr [rdi], {id:e}", "mov [rdi + 4], {ts}", "add rdi, 12",
            "add {head}, {len}", "add {head}, [{p} + {EXT_LEN}]", "jmp 40f",
            // ---- payload above 256 bytes
            "46: mov rsi, {staged}", "mov rcx, {len}", "rep movsb", "jmp 47f",

            // ---- entry: arm, CPU, closed
            "20: lea rax, [rip + 66b]", "mov rdx, [{p} + {RSEQ}]", "mov fs:[rdx + 8], rax",
            "mov eax, fs:[rdx + 4]", "cmp rax, [{p} + {CPUS}]", "jae 85b",
            "imul rax, [{p} + {STRIDE}]", "add rax, [{p} + {RINGS}]", "mov {ring}, rax",
            "cmp qword ptr [{ring} + {L_CLOSED}], 0", "jne 84b",
            $($clock),+,
            // ---- clamp
            "mov {head}, [{ring}]",
            "cmp {ts}, [{ring} + {L_LAST}]", "cmovb {ts}, [{ring} + {L_LAST}]",
            // ---- rax = 64 x place of the sub-buffer, rcx = room in it (0: nothing is open)
            "mov rcx, [{p} + {SHIFT}]", "mov rax, {head}", "shr rax, cl",
            "and rax, [{p} + {NMASK}]", "shl eax, 6",
            "mov rcx, {head}", "neg rcx", "and rcx, [{p} + {SMASK}]",
            // ---- short or extended; strictly inside the room
            "mov rdx, {ts}", "sub rdx, [{ring} + rax + {LINE} + {D_BEGIN}]",
            "cmp rdx, [{p} + {SPAN}]", "jae 60b",
            "cmp {id}, [{p} + {EXT_ID}]", "jae 60b",
            "mov rdx, [{p} + {SHORT_LEN}]", "add rdx, {len}", "cmp rdx, rcx", "jae 50b",
            // ---- short header: one 8-byte store, of which the payload overwrites the end
            "44: mov rdi, {head}", "and rdi, [{p} + {NSMASK}]",
            "add rdi, rax", "add rdi, [{p} + {CONTROL}]", "add rdi, {ring}",
            "mov rax, {ts}", "mov rcx, [{p} + {ID_BITS}]", "shl rax, cl", "or rax, {id}",
            "mov [rdi], rax",
            "mov rcx, [{p} + {SHORT_LEN}]", "add rdi, rcx", "add {head}, rcx", "add {head}, {len}",
            // ---- copy, commit
            "40: cmp {len}, 256", "ja 46b", "xor ecx, ecx",
            "41: mov rax, [{staged} + rcx]", "mov [rdi + rcx], rax",
            "add rcx, 8", "cmp rcx, {len}", "jb 41b",
            "47: mov [{ring} + {L_LAST}], {ts}",
            "mov [{ring}], {head}",
            "3: mov eax, {tries:e}", "shr eax, 16",
            "70: mov rcx, [{p} + {RSEQ}]", "mov qword ptr fs:[rcx + 8], 0",

            p = in(reg) $self as *const Producer,
            id = in(reg) u64::from($id),
            staged = in(reg) $staged,
            len = in(reg) $len,
            tries = inout(reg) ATTEMPTS => _,
            ring = out(reg) $ring,
            head = out(reg) _,
            ts = out(reg) _,
            out("rax") $code, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            RSEQ = const offset_of!(Producer, rseq_offset),
            RINGS = const offset_of!(Producer, rings),
            STRIDE = const offset_of!(Producer, ring_bytes),
            CPUS = const offset_of!(Producer, cpus),
            SMASK = const offset_of!(Producer, subbuf_mask),
            SHIFT = const offset_of!(Producer, subbuf_shift),
            NMASK = const offset_of!(Producer, count_mask),
            NSMASK = const offset_of!(Producer, ring_mask),
            CONS = const offset_of!(Producer, consumer),
            WINDOW = const offset_of!(Producer, window),
            SPAN = const offset_of!(Producer, short_span_ns),
            ACTIVE = const offset_of!(Producer, active),
            CONTROL = const offset_of!(Producer, control_bytes),
            ID_BITS = const offset_of!(Producer, id_bits),
            EXT_ID = const offset_of!(Producer, extended_id),
            EXT_PREFIX = const offset_of!(Producer, extended_prefix_bytes),
            EXT_LEN = const offset_of!(Producer, extended_bytes),
            SHORT_LEN = const offset_of!(Producer, short_bytes),
            LINE = const LINE_BYTES,
            L_LAST = const offset_of!(ProducerLine, last_ts),
            L_OPENING = const offset_of!(ProducerLine, opening),
            L_CLOSED = const offset_of!(ProducerLine, closed),
            L_LOST = const offset_of!(ProducerLine, lost),
            D_BEGIN = const offset_of!(Descriptor, begin_ts),
            D_LOST = const offset_of!(Descriptor, lost_at_open),
            D_END = const offset_of!(Descriptor, end),
            OPENED = const OPENED,
            options(nostack),
        )
    };
}

impl Producer {
    /// [`Producer::emit`] for rseq rings.
    ///
    /// # Safety
    /// As [`Producer::emit`].
    #[inline(always)]
    pub(super) unsafe fn emit_rseq(&self, id: u32, staged: *mut u8, len: usize) -> Emit {
        if len > self.payload_bytes_max {
            return self.lost_here(LostReason::TooLarge);
        }
        let (mut code, ring): (u64, *const u8);
        // SAFETY: `from_mapping` checked the geometry that bounds every address; the caller of `emit`
        // gave the staging bytes; glibc registered the rseq area (contract of `from_mapping`).
        unsafe {
            section!(self, id, staged, len, code, ring;
                "mov rcx, [{p} + 64]",
                "25: mov {ts}, [rcx]", "mov {head}, {ts}", "and {head:e}, 3", "shl {head:e}, 5", "add {head}, rcx",
                // a slot without limit must not even execute rdtsc: the process may have forbidden it
                "cmp qword ptr [{head} + 88], 0", "je 82b",
                "cmp qword ptr [{p} + 152], 0", "je 26f", "lfence",
                "26: rdtsc", "shl rdx, 32", "or rax, rdx",
                "sub rax, [{head} + 64]", "cmp rax, [{head} + 88]", "jae 82b",
                "imul rax, [{head} + 80]", "shr rax, 32", "add rax, [{head} + 72]",
                // fewer than three publications meanwhile, or the slot may have been reused
                "mov rdx, [rcx]", "sub rdx, {ts}", "cmp rdx, 3", "jae 25b", "mov {ts}, rax",
            );
        }
        if code == 0 {
            return Emit::Published;
        }
        let mut ring = ring;
        if code == CODE_CLOCK {
            // SAFETY: as `emit`.
            (code, ring) = unsafe { self.emit_rseq_slow_clock(id, staged, len) };
        }
        self.outcome(code, ring)
    }

    /// The same with a time from the kernel, taken outside the section.
    ///
    /// # Safety
    /// As [`Producer::emit`].
    #[cold]
    #[inline(never)]
    unsafe fn emit_rseq_slow_clock(&self, id: u32, staged: *mut u8, len: usize) -> (u64, *const u8) {
        let (code, ring): (u64, *const u8);
        // SAFETY: the caller gave `STAGE_HEAD_BYTES` writable bytes in front of `staged`; the rest as above.
        unsafe {
            staged.cast::<u64>().sub(1).write_unaligned((self.host.monotonic_ns)());
            section!(self, id, staged, len, code, ring; "mov {ts}, [{staged} - 8]");
        }
        (code, ring)
    }

    #[cold]
    #[inline(never)]
    fn outcome(&self, code: u64, ring: *const u8) -> Emit {
        // The ring whose section refused; not that of the CPU where the thread runs by now.
        let cpu = || ((ring as usize - self.rings as usize) as u64 / self.ring_bytes) as u32;
        match code {
            0 => Emit::Published,
            1 => Emit::Opened,
            CODE_FULL => Emit::Full { cpu: cpu() },
            CODE_CLOSED => Emit::Closed,
            CODE_NO_CPU => {
                self.count_lost(0, LostReason::NoCpu);
                Emit::Lost(LostReason::NoCpu)
            }
            _ => self.lost_here(LostReason::Aborted),
        }
    }

    /// Counts a loss on the ring of the current CPU, whichever that is when the count is made.
    #[cold]
    #[inline(never)]
    fn lost_here(&self, reason: LostReason) -> Emit {
        self.count_lost((self.host.cpu)(), reason);
        Emit::Lost(reason)
    }
}

// The clock of `emit_rseq` names these offsets in figures, because `$clock` is text to the macro.
const _: () = assert!(offset_of!(Producer, clock) == 64 && offset_of!(Producer, ordered) == 152);
const _: () = assert!(offset_of!(ClockPage, slots) == 64 && offset_of!(SharedSlot, base_tsc) == 0);
const _: () = assert!(offset_of!(SharedSlot, base_ns) == 8 && offset_of!(SharedSlot, multiplier) == 16);
const _: () = assert!(offset_of!(SharedSlot, limit_ticks) == 24);
