//! A whole program: find the ring of this CPU, reserve, write header, contexts and payload, commit.
//!
//! The producer of the ring contract's kind ebpf. In one attempt it reads the head, takes the time,
//! chooses a place, moves `last_ts` and then the head, both by compare-and-exchange: whoever
//! interrupted it in between made one of them fail, and it tries again. So records of an interrupt
//! that lands inside another record are kept, and times never decrease. The winner of the head owns
//! the bytes; `committed` of their sub-buffer grows by them when they are written.
//!
//! A payload of fixed length is written straight into the ring. One of variable length is staged in a
//! slot of this CPU first, because a reservation cannot shrink; a slot belongs to whoever exchanged
//! its first word, so nested programs take the next one.

use crate::code::{
    Code, GenerateError, Kept, Reads, SCRATCH, SPILL, STAGED_BYTES_MAX, STRING_BYTES_MAX, arguments, helper,
    iterated,
};
use crate::late::{Waiting, tail_call};
use crate::recipe::{Field, Hook, Recipe};
use sillage_bpf::{Alu, Atomic, Btf, Cond, Insn, Label, Reg, Width};
use sillage_ring::Geometry;
use sillage_ring::layout::{
    CONSUMER_LINE_OFFSET, CONTROL_BYTES, ConsumerLine, DESCRIPTOR_BYTES, Descriptor, LostReason,
    ProducerLine, TAIL_BYTES,
};
use std::mem::offset_of;

use Reg::*;

/// What the first argument of the system calls' tracepoints points to. Their programs are untyped: the
/// kernel searches all its types to check a typed one, which takes a millisecond for each.
pub(crate) const SYSCALL_REGISTERS: &str = "pt_regs";
/// Attempts to reserve before a record is given up: each but the last was interrupted by another record,
/// and a task can be by a softirq, that by an interrupt and that by an NMI. The verifier follows each.
const ATTEMPTS: i32 = 4;
/// Staging slots of a CPU: task, softirq, hardirq and NMI, each once.
pub const STAGES: u32 = 4;
/// Bytes of a staging slot: the owner's word, and a payload that overran its limit by one field.
pub const STAGE_BYTES: u32 =
    (STAGE_HEAD as u32 + STAGED_BYTES_MAX + 2 * STRING_BYTES_MAX).next_multiple_of(8);
/// Bytes of a map behind the last sub-buffer, which the verifier believes that a record may reach.
pub const SLACK_BYTES: u64 = (STAGED_BYTES_MAX + 2 * STRING_BYTES_MAX) as u64;
/// Bytes in front of a staged payload; the first word says whether the slot is taken.
const STAGE_HEAD: i32 = 64;

// Places on the stack: this CPU and a zero, later the number of a sub-buffer or a note; attempts. What is
// staged is complete when it is copied, so its length and place may stand where its values stood.
const KEY_CPU: i16 = -8;
const KEY_ZERO: i16 = -4;
const NUMBER_OPENED: i16 = KEY_CPU;
const NOTE: i16 = KEY_CPU;
const TRIES: i16 = -16;
const STAGE_KEY: i16 = TRIES;
const PAYLOAD: i16 = SCRATCH;
const STAGE: i16 = SPILL;
/// Bit of R7 beside a record's length: the record opened a sub-buffer.
const OPENED: i32 = 1 << 30;

const HEAD: i16 = offset_of!(ProducerLine, head) as i16;
const LAST_TS: i16 = offset_of!(ProducerLine, last_ts) as i16;
pub(crate) const CLOSED: i16 = offset_of!(ProducerLine, closed) as i16;
const RELEASED: i16 = CONSUMER_LINE_OFFSET as i16 + offset_of!(ConsumerLine, released) as i16;

const fn lost(reason: LostReason) -> i16 {
    offset_of!(ProducerLine, lost) as i16 + 8 * reason as i16
}
/// Offset of a descriptor's word, from where its sub-buffer begins less the control page.
const fn word(offset: usize) -> i16 {
    CONTROL_BYTES as i16 + offset as i16
}
const NUMBER: i16 = word(offset_of!(Descriptor, number));
const LOST_AT_OPEN: i16 = word(offset_of!(Descriptor, lost_at_open));
const END: i16 = word(offset_of!(Descriptor, end));
const BEGIN_TS: i16 = word(offset_of!(Descriptor, begin_ts));
const COMMITTED: i16 = word(offset_of!(Descriptor, committed));

/// The maps that a channel's programs use, by descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// Array of maps: by CPU, the array whose only value is the ring.
    pub rings: i32,
    /// Array of staging slots, [`STAGES`] for each CPU.
    pub stages: i32,
    /// Ring buffer for notes that a sub-buffer is full.
    pub notes: i32,
    /// Array with one counter of records on CPUs without a ring.
    pub absent: i32,
}

/// What goes in front of a record: jumps to the label if it is not to be recorded.
pub type Guard<'a> = &'a dyn Fn(&mut Code<'_>, Label) -> Result<(), GenerateError>;

/// What a program records.
pub struct Spec<'a> {
    /// The kernel's types.
    pub btf: &'a Btf,
    /// The channel's rings.
    pub geometry: Geometry,
    /// And maps.
    pub maps: Maps,
    /// Number of the event in the channel.
    pub event_id: u32,
    /// The event.
    pub recipe: &'a Recipe,
    /// Fields in front of every event's.
    pub contexts: &'a [Field],
    /// Filters and trackers, in order.
    pub guards: &'a [Guard<'a>],
    /// It records while the rings' `closed` words have this value; None: whatever they have.
    pub generation: Option<u64>,
    /// Where strings of the call are noted that cannot be read at its entry.
    pub late: Option<Waiting>,
    /// It does not end but goes on with the program at this place of this array.
    pub behind: Option<(i32, u32)>,
}

/// Generates the program.
///
/// # Errors
/// The recipe does not fit this kernel, or its record the rings.
pub fn generate(spec: &Spec<'_>, reads: Reads) -> Result<Vec<Insn>, GenerateError> {
    let arguments = match &spec.recipe.hook {
        Hook::Tracepoint(name) => arguments(spec.btf, name)?,
        Hook::Syscall { side, .. } => arguments(spec.btf, side.tracepoint())?,
        Hook::Iterator(name) => iterated(spec.btf, name)?.1,
        Hook::Record { .. } | Hook::Format { .. } | Hook::Payload | Hook::Code(_) | Hook::Later => Vec::new(),
    };
    let fixed = || spec.contexts.iter().chain(spec.recipe.fields.iter());
    let fixed: Option<u32> = fixed().map(|field| field.ty.fixed_bytes()).sum();
    let fixed = fixed.filter(|_| spec.recipe.hook != Hook::Payload);
    let call = spec.recipe.name.split_once("syscall_entry_").map(|(_, call)| call);
    let first = matches!(spec.recipe.hook, Hook::Syscall { .. }).then_some(SYSCALL_REGISTERS);
    let make = |kept: Kept| {
        let mut code = Code::new(spec.btf, arguments.clone(), reads, kept);
        let [end, unstage, absent, note] = code.asm.labels();
        let rare = Rare::new(&mut code.asm);
        if let Some((waiting, call)) = spec.late.zip(call) {
            code.note_late(waiting, call);
        }
        let mut program = Program { spec, code, end, unstage, absent, note, rare, staged: fixed.is_none() };
        program.begin()?;
        match fixed {
            Some(bytes) => program.direct(bytes)?,
            None => program.staged()?,
        }
        let better = program.code.wants_current();
        Ok::<_, GenerateError>((program.finish(fixed)?, better))
    };
    let nullable = matches!(spec.recipe.hook, Hook::Iterator(_));
    let (insns, better) = make(Kept { current: false, first, nullable })?;
    if better { Ok(make(Kept { current: true, first, nullable })?.0) } else { Ok(insns) }
}

struct Program<'a> {
    spec: &'a Spec<'a>,
    code: Code<'a>,
    /// Nothing more to do.
    end: Label,
    /// Give the staging slot back, and end.
    unstage: Label,
    /// This CPU has no ring.
    absent: Label,
    /// Tell that a sub-buffer was opened.
    note: Label,
    rare: Rare,
    staged: bool,
}

/// Places of the code that reserves, those of what nearly never happens among them.
#[derive(Clone, Copy)]
struct Rare {
    /// Somebody interrupted: count the attempt.
    retry: Label,
    /// Try.
    again: Label,
    /// No room: open the next sub-buffer.
    open: Label,
    /// The room is ours.
    won: Label,
    /// The header must say the whole time.
    long_form: Label,
    /// The header's length is known.
    sized: Label,
    /// Write such a header.
    long_header: Label,
    /// The header is written.
    headed: Label,
}

impl Rare {
    fn new(asm: &mut sillage_bpf::Assembler) -> Rare {
        let [retry, again, open, won, long_form, sized, long_header, headed] = asm.labels();
        Rare { retry, again, open, won, long_form, sized, long_header, headed }
    }
}

impl Program<'_> {
    /// Guards, then R7 = the ring of this CPU.
    fn begin(&mut self) -> Result<(), GenerateError> {
        self.code.begin()?;
        if let Hook::Iterator(_) = self.spec.recipe.hook {
            // Behind the last object the program runs once more, without one.
            for argument in self.code.pointers() {
                self.code.argument(argument)?;
                self.code.asm.jump_if(Cond::Eq, R1, 0, self.end);
            }
        }
        for guard in self.spec.guards {
            guard(&mut self.code, self.end)?;
        }
        let absent = self.absent;
        let asm = &mut self.code.asm;
        asm.call(helper::CPU);
        asm.store(Width::B4, R10, KEY_CPU, R0);
        asm.store_imm(Width::B4, R10, KEY_ZERO, 0);
        lookup(asm, self.spec.maps.rings, KEY_CPU);
        asm.jump_if(Cond::Eq, R0, 0, absent);
        asm.mov(R1, R0);
        asm.mov(R2, R10);
        asm.alu(Alu::Add, R2, i32::from(KEY_ZERO));
        asm.call(helper::MAP_LOOKUP);
        asm.jump_if(Cond::Eq, R0, 0, absent);
        asm.mov(R7, R0);
        if let Some(generation) = self.spec.generation {
            asm.load(Width::B8, R1, R7, CLOSED);
            asm.jump_if(Cond::Ne, R1, generation as i32, self.end);
        }
        Ok(())
    }

    fn direct(&mut self, bytes: u32) -> Result<(), GenerateError> {
        let g = self.spec.geometry;
        // Any header fits, so that no form needs a check of its own.
        if u64::from(bytes) > g.payload_bytes_max().min(SLACK_BYTES - 64) {
            return Err(GenerateError::TooLarge { bytes, most: g.payload_bytes_max() });
        }
        self.reserve(Some(bytes));
        self.fields()?;
        match self.code.fixed_payload() {
            Some(written) if written == bytes => Ok(()),
            _ => Err(GenerateError::Mismatch("an emitter wrote another length than its type has")),
        }?;
        self.commit();
        Ok(())
    }

    fn staged(&mut self) -> Result<(), GenerateError> {
        self.claim();
        self.fields()?;
        let most = self.spec.geometry.payload_bytes_max().min(u64::from(STAGED_BYTES_MAX));
        let too_large = self.code.too_large();
        let asm = &mut self.code.asm;
        asm.jump_if(Cond::Gt, R9, most as i32, too_large);
        asm.store(Width::B8, R10, PAYLOAD, R9);
        asm.store(Width::B8, R10, STAGE, R8);
        self.reserve(None);
        let asm = &mut self.code.asm;
        asm.mov(R1, R8);
        asm.load(Width::B8, R2, R10, PAYLOAD);
        asm.load(Width::B8, R3, R10, STAGE);
        asm.call(helper::READ_KERNEL);
        self.commit();
        Ok(())
    }

    fn fields(&mut self) -> Result<(), GenerateError> {
        for field in self.spec.contexts.iter().chain(self.spec.recipe.fields.iter()) {
            self.code.field(field)?;
        }
        if self.spec.recipe.hook == Hook::Payload {
            self.code.append_payload();
        }
        self.code.end_payload();
        Ok(())
    }

    /// R8 = where to stage, in a slot that nobody else uses.
    fn claim(&mut self) {
        let [claimed, none] = self.code.asm.labels();
        let asm = &mut self.code.asm;
        asm.load(Width::B4, R8, R10, KEY_CPU);
        asm.alu(Alu::Mul, R8, STAGES as i32);
        for _ in 0..STAGES {
            asm.store(Width::B4, R10, STAGE_KEY, R8);
            lookup(asm, self.spec.maps.stages, STAGE_KEY);
            asm.jump_if(Cond::Eq, R0, 0, none);
            asm.mov(R1, 1);
            asm.atomic(Atomic::Exchange, R0, 0, R1);
            asm.jump_if(Cond::Eq, R1, 0, claimed);
            asm.alu(Alu::Add, R8, 1);
        }
        asm.bind(none);
        count(asm, LostReason::Nested);
        asm.jump(self.end);
        asm.bind(claimed);
        asm.mov(R8, R0);
        asm.alu(Alu::Add, R8, STAGE_HEAD);
    }

    /// Reserves room for the payload and writes the header. Then R8 = where the payload goes, R9 = the
    /// sub-buffer's start less the control page, R7 = the record's length.
    fn reserve(&mut self, payload: Option<u32>) {
        let g = self.spec.geometry;
        let h = g.header;
        let id = self.spec.event_id;
        let short_id = id < h.extended_id();
        let (subbuf_mask, shift) = ((g.subbuf_bytes() - 1) as i32, g.subbuf_shift as i32);
        let ring_mask = (u64::from(g.subbuf_count) * g.subbuf_bytes() - 1) as i32;
        let Rare { retry, again, open, won, long_form, sized, long_header, headed } = self.rare;
        let asm = &mut self.code.asm;

        // R1 = head, R2 = last_ts, R3 = time, R8 = header bytes.
        let later = asm.label();
        asm.store_imm(Width::B8, R10, TRIES, 0);
        asm.bind(again);
        asm.call(helper::KTIME_NS);
        asm.load(Width::B8, R1, R7, HEAD);
        asm.load(Width::B8, R2, R7, LAST_TS);
        asm.mov(R3, R0);
        asm.jump_if(Cond::Ge, R3, R2, later);
        asm.mov(R3, R2);
        asm.bind(later);
        // R9 = the open sub-buffer.
        asm.mov(R9, R1);
        asm.alu(Alu::And, R9, ring_mask & !subbuf_mask);
        asm.alu(Alu::Add, R9, R7);
        if short_id {
            asm.load(Width::B8, R4, R9, NUMBER);
            asm.mov(R5, R1);
            asm.alu(Alu::Rsh, R5, shift);
            asm.jump_if(Cond::Ne, R4, R5, long_form);
            asm.load(Width::B8, R4, R9, BEGIN_TS);
            asm.mov(R5, R3);
            asm.alu(Alu::Sub, R5, R4);
            asm.alu(Alu::Rsh, R5, h.short_span_ns().trailing_zeros() as i32);
            asm.jump_if(Cond::Ne, R5, 0, long_form);
            asm.mov(R8, h.short_bytes() as i32);
        } else {
            asm.mov(R8, h.extended_bytes() as i32);
        }
        asm.bind(sized);
        // R4 = bytes of the record, R5 = room.
        length(asm, payload);
        asm.mov(R5, R1);
        asm.push(Insn::alu(Alu::Neg, R5, 0.into()));
        asm.alu(Alu::And, R5, subbuf_mask);
        asm.mov(R0, R4);
        asm.alu(Alu::Add, R0, TAIL_BYTES as i32);
        asm.jump_if(Cond::Ge, R0, R5, open);
        take(asm, retry, |asm| {
            asm.mov(R5, R1);
            asm.alu(Alu::Add, R5, R4);
        });
        asm.alu(Alu::And, R1, ring_mask);
        asm.alu(Alu::Add, R1, R7);
        asm.mov(R7, R4);
        asm.bind(won);
        // R1 = where the record begins, less the control page.
        if short_id {
            asm.jump_if(Cond::Ne, R8, h.short_bytes() as i32, long_header);
            asm.alu(Alu::Lsh, R3, h.id_bits() as i32);
            if id != 0 {
                asm.alu(Alu::Or, R3, id as i32);
            }
            asm.store(Width::B4, R1, word(0), R3);
            if h.short_bytes() > 4 {
                asm.alu(Alu::Rsh, R3, 32);
                asm.store(Width::B2, R1, word(4), R3);
            }
            asm.mov(R8, R1);
            asm.alu(Alu::Add, R8, i32::from(word(h.short_bytes() as usize)));
        } else {
            long(asm, h, id);
        }
        asm.bind(headed);
    }

    /// What nearly never happens while a record is reserved; it stands behind the program's end, so that what
    /// always happens stands close together.
    fn rarely(&mut self, payload: Option<u32>) {
        let h = self.spec.geometry.header;
        let Rare { retry, again, open, long_form, sized, long_header, headed, .. } = self.rare;
        let away = if self.staged { self.unstage } else { self.end };
        let asm = &mut self.code.asm;
        asm.bind(retry);
        asm.load(Width::B8, R1, R10, TRIES);
        asm.alu(Alu::Add, R1, 1);
        asm.store(Width::B8, R10, TRIES, R1);
        asm.jump_if(Cond::Lt, R1, ATTEMPTS, again);
        count(asm, LostReason::Aborted);
        asm.jump(away);
        if self.spec.event_id < h.extended_id() {
            asm.bind(long_form);
            asm.mov(R8, h.extended_bytes() as i32);
            asm.jump(sized);
            asm.bind(long_header);
            long(asm, h, self.spec.event_id);
            asm.jump(headed);
        }
        asm.bind(open);
        self.open(payload);
    }

    /// The record begins the next sub-buffer: R1 = head, R3 = time. Goes on as the short way does.
    fn open(&mut self, payload: Option<u32>) {
        let g = self.spec.geometry;
        let h = g.header;
        let (subbuf_mask, shift) = ((g.subbuf_bytes() - 1) as i32, g.subbuf_shift as i32);
        let ring_mask = (u64::from(g.subbuf_count) * g.subbuf_bytes() - 1) as i32;
        let Rare { retry, won, .. } = self.rare;
        let away = if self.staged { self.unstage } else { self.end };
        let asm = &mut self.code.asm;
        let refused = asm.label();
        let short_id = self.spec.event_id < h.extended_id();
        asm.mov(R8, if short_id { h.short_bytes() } else { h.extended_bytes() } as i32);
        length(asm, payload);
        // R5 = number of the next one.
        asm.mov(R5, R1);
        asm.alu(Alu::Add, R5, subbuf_mask);
        asm.alu(Alu::Rsh, R5, shift);
        asm.mov(R9, R5);
        asm.alu(Alu::Lsh, R9, shift);
        asm.alu(Alu::And, R9, ring_mask & !subbuf_mask);
        asm.alu(Alu::Add, R9, R7);
        if g.overwrite {
            // Its former lap must be complete: S bytes for each lap.
            asm.load(Width::B8, R0, R9, COMMITTED);
            asm.mov(R2, R5);
            asm.alu(Alu::Rsh, R2, g.subbuf_count.ilog2() as i32);
            asm.alu(Alu::Lsh, R2, shift);
            asm.jump_if(Cond::Ne, R0, R2, refused);
        } else {
            asm.load(Width::B8, R0, R7, RELEASED);
            asm.mov(R2, R5);
            asm.alu(Alu::Sub, R2, R0);
            asm.jump_if(Cond::Ge, R2, g.subbuf_count as i32, refused);
        }
        asm.load(Width::B8, R2, R7, LAST_TS);
        asm.jump_if(Cond::Gt, R2, R3, retry);
        asm.store(Width::B8, R10, NUMBER_OPENED, R5);
        take(asm, retry, |asm| {
            asm.alu(Alu::Lsh, R5, shift);
            asm.alu(Alu::Add, R5, R4);
            asm.alu(Alu::Add, R5, DESCRIPTOR_BYTES as i32);
        });
        // Ours: describe it, the number last.
        asm.store(Width::B8, R9, BEGIN_TS, R3);
        asm.mov(R2, 0);
        for reason in sillage_ring::layout::LOST_REASONS {
            asm.load(Width::B8, R5, R7, lost(reason));
            asm.alu(Alu::Add, R2, R5);
        }
        asm.store(Width::B8, R9, LOST_AT_OPEN, R2);
        asm.load(Width::B8, R5, R10, NUMBER_OPENED);
        asm.store(Width::B8, R9, NUMBER, R5);
        let first = asm.label();
        asm.jump_if(Cond::Eq, R1, 0, first);
        // The one before: where it ends, and its padding.
        asm.mov(R2, R1);
        asm.alu(Alu::And, R2, ring_mask & !subbuf_mask);
        asm.alu(Alu::Add, R2, R7);
        asm.alu(Alu::And, R1, subbuf_mask);
        asm.store(Width::B8, R2, END, R1);
        asm.push(Insn::alu(Alu::Neg, R1, 0.into()));
        asm.alu(Alu::And, R1, subbuf_mask);
        asm.atomic(Atomic::FetchAdd, R2, COMMITTED, R1);
        asm.bind(first);
        asm.mov(R1, R9);
        asm.alu(Alu::Add, R1, DESCRIPTOR_BYTES as i32);
        // The descriptor counts as written with the record.
        asm.mov(R7, R4);
        asm.alu(Alu::Add, R7, DESCRIPTOR_BYTES as i32);
        asm.alu(Alu::Or, R7, OPENED);
        asm.jump(won);
        asm.bind(refused);
        count(asm, if g.overwrite { LostReason::Contended } else { LostReason::Full });
        asm.jump(away);
    }

    /// The record is there; a note if it opened a sub-buffer.
    fn commit(&mut self) {
        let asm = &mut self.code.asm;
        asm.mov(R1, R7);
        asm.alu(Alu::And, R1, OPENED - 1);
        asm.atomic(Atomic::FetchAdd, R9, COMMITTED, R1);
        asm.alu(Alu::And, R7, OPENED);
        asm.jump_if(Cond::Ne, R7, 0, self.note);
    }

    fn finish(mut self, payload: Option<u32>) -> Result<Vec<Insn>, GenerateError> {
        let Program { end, unstage, absent, note, .. } = self;
        let too_large = self.code.too_large();
        let asm = &mut self.code.asm;
        if self.staged {
            asm.bind(unstage);
            asm.load(Width::B8, R8, R10, STAGE);
            asm.store_imm(Width::B8, R8, -STAGE_HEAD as i16, 0);
        } else {
            asm.bind(too_large);
            asm.bind(unstage);
        }
        asm.bind(end);
        if let Some((programs, place)) = self.spec.behind {
            tail_call(asm, programs, place);
        }
        asm.mov(R0, 0);
        asm.exit();
        if self.staged {
            asm.bind(too_large);
            asm.store_imm(Width::B8, R8, -STAGE_HEAD as i16, 0);
            count(asm, LostReason::TooLarge);
            asm.jump(end);
        }
        asm.bind(absent);
        lookup(asm, self.spec.maps.absent, KEY_ZERO);
        asm.jump_if(Cond::Eq, R0, 0, end);
        asm.mov(R1, 1);
        asm.atomic(Atomic::Add, R0, 0, R1);
        asm.jump(end);
        asm.bind(note);
        asm.call(helper::CPU);
        asm.store(Width::B8, R10, NOTE, R0);
        asm.map(R1, self.spec.maps.notes);
        asm.mov(R2, R10);
        asm.alu(Alu::Add, R2, i32::from(NOTE));
        asm.mov(R3, 8);
        asm.mov(R4, 0);
        asm.call(helper::RINGBUF_OUTPUT);
        asm.jump(if self.staged { unstage } else { end });
        self.rarely(payload);
        Ok(self.code.asm.finish()?)
    }
}

/// R0 = the value of a map under the key at `key` on the stack, or 0.
fn lookup(asm: &mut sillage_bpf::Assembler, map: i32, key: i16) {
    asm.map(R1, map);
    asm.mov(R2, R10);
    asm.alu(Alu::Add, R2, i32::from(key));
    asm.call(helper::MAP_LOOKUP);
}

/// Writes a long header, and R8 = where the payload goes.
fn long(asm: &mut sillage_bpf::Assembler, h: sillage_ring::HeaderForm, id: u32) {
    let tag_bytes = h.extended_bytes() as i16 - 12;
    let tag = if tag_bytes == 1 { Width::B1 } else { Width::B2 };
    asm.store_imm(tag, R1, word(0), h.extended_id() as i32);
    asm.store_imm(Width::B4, R1, word(0) + tag_bytes, id as i32);
    asm.store(Width::B8, R1, word(0) + tag_bytes + 4, R3);
    asm.mov(R8, R1);
    asm.alu(Alu::Add, R8, i32::from(word(h.extended_bytes() as usize)));
}

/// One record more that was lost.
fn count(asm: &mut sillage_bpf::Assembler, reason: LostReason) {
    asm.mov(R1, 1);
    asm.atomic(Atomic::Add, R7, lost(reason), R1);
}

/// R4 = header (R8) and payload.
fn length(asm: &mut sillage_bpf::Assembler, payload: Option<u32>) {
    match payload {
        Some(bytes) => {
            asm.mov(R4, R8);
            asm.alu(Alu::Add, R4, bytes as i32);
        }
        None => {
            asm.load(Width::B8, R4, R10, PAYLOAD);
            asm.alu(Alu::Add, R4, R8);
        }
    }
}

/// Moves `last_ts` from R2 to R3 and the head from R1 to what `new_head` leaves in R5, or goes to `retry`.
fn take(asm: &mut sillage_bpf::Assembler, retry: Label, new_head: impl FnOnce(&mut sillage_bpf::Assembler)) {
    asm.mov(R0, R2);
    asm.atomic(Atomic::CompareExchange, R7, LAST_TS, R3);
    asm.jump_if(Cond::Ne, R0, R2, retry);
    new_head(asm);
    asm.mov(R0, R1);
    asm.atomic(Atomic::CompareExchange, R7, HEAD, R5);
    asm.jump_if(Cond::Ne, R0, R1, retry);
}
