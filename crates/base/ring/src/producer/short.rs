//! The rseq producer's straight line: a record with a short large header, into the sub-buffer that is
//! open, at the page's time.
//!
//! That is what most events are, so it has sequences of its own, without a forward jump that is taken
//! and with registers that no caller has to save: one for payloads of a word, one that copies word by
//! word. Whatever is not so (an abort included) leaves them with nothing published, and `rseq`'s whole
//! section starts from the beginning.

use super::{Producer, Variant};
use crate::clock::{ClockPage, SharedSlot};
use crate::geometry::HeaderForm;
use crate::layout::{CONTROL_BYTES, Descriptor, ProducerLine, TAIL_BYTES};
use core::arch::asm;
use core::mem::offset_of;

/// Longest payload; above, the string instructions of the whole section are faster.
const PAYLOAD_BYTES: usize = 256;
const FORM: HeaderForm = HeaderForm::Large;
/// Where the clock page's slots begin; the index is a multiple of a slot's size.
const SLOT: usize = offset_of!(ClockPage, slots);

const _: () = assert!(offset_of!(ProducerLine, head) == 0);

/// One sequence; `$copy` moves the payload by way of rdx, from {at} + {STAGED} to rcx + {DATA} + {SHORT},
/// and may use {id} as an index.
macro_rules! straight {
    ($self:expr, $id:expr, $at:expr, $len:expr, $staged_at:expr; $($copy:literal),+ $(,)?) => {
        asm!(
            ".pushsection __rseq_cs, \"aw\"", ".balign 32",
            "66:", ".long 0, 0", ".quad 2f, 3f-2f, 4f",
            ".popsection",
            ".pushsection .text.sillage_rseq_abort, \"ax\"",
            ".byte 0x0f, 0xb9, 0x3d", ".long 0x53053053",
            "4: jmp {slow}",
            ".popsection",
            // ---- arm
            "lea rax, [rip + 66b]", "mov rdx, [{p} + {RSEQ}]", "mov fs:[rdx + 8], rax",
            "2:",
            // ---- CPU, closed
            "mov {ring:e}, fs:[rdx + 4]", "cmp {ring}, [{p} + {CPUS}]", "jae {slow}",
            "imul {ring}, [{p} + {STRIDE}]", "add {ring}, [{p} + {RINGS}]",
            "cmp qword ptr [{ring} + {L_CLOSED}], 0", "jne {slow}",
            // ---- clock: rax = ns
            "mov rcx, [{p} + {CLOCK}]",
            "mov {head}, [rcx + {C_INDEX}]",
            "rdtsc", "shl rdx, 32", "or rax, rdx",
            "mov edx, {head:e}", "and edx, 96",
            "sub rax, [rcx + rdx + {S_TSC}]", "cmp rax, [rcx + rdx + {S_LIMIT}]", "jae {slow}",
            "imul rax, [rcx + rdx + {S_MULTIPLIER}]", "shr rax, 32", "add rax, [rcx + rdx + {S_NS}]",
            "cmp {head}, [rcx + {C_INDEX}]", "jne {slow}",
            // ---- clamp
            "mov {head}, [{ring}]",
            "cmp rax, [{ring} + {L_LAST}]", "cmovb rax, [{ring} + {L_LAST}]",
            // ---- near enough to the sub-buffer's begin for a short header
            "mov rcx, {head}", "and rcx, [{p} + {START}]",
            "mov rdx, rax", "sub rdx, [{ring} + rcx + {DATA} + {D_BEGIN}]",
            "shr rdx, {SPAN_SHIFT}", "jnz {slow}",
            // ---- strictly inside the room of the open sub-buffer (none: no room)
            "mov rcx, {head}", "neg rcx", "and rcx, [{p} + {SMASK}]",
            "lea rdx, [{len} + {SHORT} + {TAIL}]", "cmp rdx, rcx", "jae {slow}",
            // ---- header and payload, each by a store of 8 bytes; commit
            "mov rcx, {head}", "and rcx, [{p} + {RMASK}]", "add rcx, {ring}",
            // (some events ahead, the line is fetched for writing)
            "prefetchw [rcx + {DATA} + 512]",
            "mov rdx, rax", "shl rdx, {ID_BITS}", "or rdx, {id}", "mov [rcx + {DATA}], rdx",
            $($copy),+,
            "lea {head}, [{head} + {len} + {SHORT}]",
            "mov [{ring} + {L_LAST}], rax",
            "mov [{ring}], {head}",
            "3:",
            "mov rcx, [{p} + {RSEQ}]", "mov qword ptr fs:[rcx + 8], 0",

            p = in(reg) $self as *const Producer,
            id = inout(reg) u64::from($id) => _,
            at = in(reg) $at,
            len = in(reg) $len,
            ring = out(reg) _,
            head = out(reg) _,
            out("rax") _, out("rcx") _, out("rdx") _,
            slow = label { return false; },
            RSEQ = const offset_of!(Producer, rseq_offset),
            RINGS = const offset_of!(Producer, rings),
            STRIDE = const offset_of!(Producer, ring_bytes),
            CPUS = const offset_of!(Producer, cpus),
            CLOCK = const offset_of!(Producer, clock),
            SMASK = const offset_of!(Producer, subbuf_mask),
            START = const offset_of!(Producer, subbuf_start_mask),
            RMASK = const offset_of!(Producer, ring_mask),
            STAGED = const $staged_at,
            DATA = const CONTROL_BYTES,
            TAIL = const TAIL_BYTES,
            ID_BITS = const FORM.id_bits(),
            SPAN_SHIFT = const FORM.short_span_ns().ilog2(),
            SHORT = const FORM.short_bytes(),
            L_LAST = const offset_of!(ProducerLine, last_ts),
            L_CLOSED = const offset_of!(ProducerLine, closed),
            D_BEGIN = const offset_of!(Descriptor, begin_ts),
            C_INDEX = const offset_of!(ClockPage, index),
            S_TSC = const SLOT + offset_of!(SharedSlot, base_tsc),
            S_NS = const SLOT + offset_of!(SharedSlot, base_ns),
            S_MULTIPLIER = const SLOT + offset_of!(SharedSlot, multiplier),
            S_LIMIT = const SLOT + offset_of!(SharedSlot, limit_ticks),
            options(nostack),
        )
    };
}

impl Producer {
    /// True if [`Producer::emit_short`] may be called for records with this id.
    pub fn has_short(&self, id: u32) -> bool {
        self.variant == Variant::Plain && id < FORM.extended_id()
    }

    /// As [`Producer::emit`] for the `len` bytes that lie `STAGED_AT` bytes behind `at`, if that can be
    /// done straight away. False: nothing happened, and `emit` is to be called.
    ///
    /// # Safety
    /// As [`Producer::emit`]; and [`Producer::has_short`] said so for `id`.
    #[inline(always)]
    pub unsafe fn emit_short<const STAGED_AT: usize>(&self, id: u32, at: *mut u8, len: usize) -> bool {
        // SAFETY: `from_mapping` checked the geometry that bounds every address; the caller of `emit`
        // gave the staging bytes; glibc registered the rseq area (contract of `from_mapping`).
        unsafe {
            if len <= 8 {
                straight!(self, id, at, len, STAGED_AT;
                    "mov rdx, [{at} + {STAGED}]", "mov [rcx + {DATA} + {SHORT}], rdx",
                );
            } else if len <= PAYLOAD_BYTES {
                straight!(self, id, at, len, STAGED_AT;
                    "xor {id:e}, {id:e}",
                    "41: mov rdx, [{at} + {id} + {STAGED}]", "mov [rcx + {id} + {DATA} + {SHORT}], rdx",
                    "add {id}, 8", "cmp {id}, {len}", "jb 41b",
                );
            } else {
                return false;
            }
        }
        true
    }
}
