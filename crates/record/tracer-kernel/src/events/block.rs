//! Block devices: requests and bios.
//!
//! Devices are the kernel's numbers (major << 20 | minor), `rwbs` is LTTng's set of bits.

use super::{COMM, TASK_ID};
use crate::code::{Code, GenerateError};
use crate::fields;
use crate::recipe::{Expr, Field, Recipe, arg, at, s32, u32, u64};
use sillage_bpf::{Alu, Cond, Reg};

use Reg::*;

/// Bytes in sectors.
macro_rules! sectors {
    ($bytes:expr) => {
        Expr::Op(Alu::Rsh, const { &$bytes }, const { &Expr::Const(9) })
    };
}
const TWENTY: Expr = Expr::Const(20);

const MAJOR: Expr = Expr::Op(Alu::Lsh, &at(0, "q->disk->major"), &TWENTY);
const RQ_DEVICE: Field = u32("dev", Expr::Op(Alu::Or, &MAJOR, &at(0, "q->disk->first_minor")));
const RQ_SECTOR: Field = u64("sector", Expr::Custom(request_sector));
const RQ_SECTORS: Field = u32("nr_sector", Expr::Custom(request_sectors));
const RQ_RWBS: Field = u32("rwbs", Expr::Custom(request_rwbs));
const BIO_DEVICE: Field = u32("dev", at(0, "bi_bdev->bd_dev"));
const BIO_SECTOR: Field = u64("sector", at(0, "bi_iter.bi_sector"));
const BIO_SECTORS: Field = u32("nr_sector", sectors!(at(0, "bi_iter.bi_size")));
const BIO_RWBS: Field = u32("rwbs", Expr::Custom(bio_rwbs));

const fn request(name: &'static str) -> Recipe {
    Recipe::of(
        name,
        fields![RQ_DEVICE, RQ_SECTOR, RQ_SECTORS, u32("bytes", at(0, "__data_len")), TASK_ID, RQ_RWBS, COMM],
    )
}

const fn bio(name: &'static str) -> Recipe {
    Recipe::of(name, fields![BIO_DEVICE, BIO_SECTOR, BIO_SECTORS, BIO_RWBS, TASK_ID, COMM])
}

const fn buffer(name: &'static str) -> Recipe {
    Recipe::of(
        name,
        fields![
            u32("dev", at(0, "b_bdev->bd_dev")),
            u64("sector", at(0, "b_blocknr")),
            u64("size", at(0, "b_size"))
        ],
    )
}

pub(super) static EVENTS: &[Recipe] = &[
    bio("block_bio_backmerge"),
    bio("block_bio_bounce"),
    Recipe::of(
        "block_bio_complete",
        fields![
            u32("dev", at(1, "bi_bdev->bd_dev")),
            u64("sector", at(1, "bi_iter.bi_sector")),
            u32("nr_sector", sectors!(at(1, "bi_iter.bi_size"))),
            s32("error", Expr::Custom(bio_error)),
            u32("rwbs", Expr::Custom(completed_rwbs)),
        ],
    ),
    bio("block_bio_frontmerge"),
    bio("block_bio_queue"),
    Recipe::of(
        "block_bio_remap",
        fields![
            BIO_DEVICE,
            BIO_SECTOR,
            BIO_SECTORS,
            BIO_RWBS,
            u32("old_dev", arg(1)),
            u64("old_sector", arg(2))
        ],
    ),
    buffer("block_dirty_buffer"),
    bio("block_getrq"),
    Recipe::of("block_plug", fields![TASK_ID, COMM]),
    Recipe::of(
        "block_rq_complete",
        fields![
            RQ_DEVICE,
            RQ_SECTOR,
            u32("nr_sector", sectors!(arg(2))),
            s32("error", Expr::Custom(request_error)),
            RQ_RWBS
        ],
    ),
    request("block_rq_insert"),
    request("block_rq_issue"),
    request("block_rq_merge"),
    Recipe::of(
        "block_rq_remap",
        fields![RQ_DEVICE, RQ_SECTOR, RQ_SECTORS, u32("old_dev", arg(1)), u64("old_sector", arg(2)), RQ_RWBS],
    ),
    Recipe::of("block_rq_requeue", fields![RQ_DEVICE, RQ_SECTOR, RQ_SECTORS, RQ_RWBS]),
    Recipe::of(
        "block_split",
        fields![BIO_DEVICE, BIO_SECTOR, BIO_RWBS, u64("new_sector", arg(1)), TASK_ID, COMM],
    ),
    buffer("block_touch_buffer"),
    Recipe::of("block_unplug", fields![s32("nr_rq", arg(1)), TASK_ID, COMM]),
];

type Emitted = Result<(), GenerateError>;

/// Bits of the operation in a request's flags.
const OPERATION: i32 = 0xff;
/// The first operation that carries a driver's own command: it has no sector.
const OPERATION_PASSTHROUGH: i32 = 34;
/// Operations and their bits in `rwbs`: read, write, flush, discard, secure erase.
const OPERATIONS: [(i32, i32); 5] = [(0, 1 << 2), (1, 1), (2, 1 << 8), (3, 1 << 1), (5, 1 << 1 | 1 << 7)];
/// Flags and theirs: sync, meta, forced unit access, preflush, read-ahead.
const FLAGS: [(u32, i32); 5] = [(11, 1 << 5), (12, 1 << 6), (17, 1 << 9), (18, 1 << 10), (19, 1 << 3)];

/// LTTng's bits for operation and flags.
fn rwbs(code: &mut Code<'_>, flags: &Expr) -> Emitted {
    code.value(flags)?;
    let asm = &mut code.asm;
    asm.mov(R2, R1);
    asm.alu(Alu::And, R2, OPERATION);
    asm.mov(R3, 0);
    let done = asm.label();
    for (operation, bits) in OPERATIONS {
        let next = asm.label();
        asm.jump_if(Cond::Ne, R2, operation, next);
        asm.mov(R3, bits);
        asm.jump(done);
        asm.bind(next);
    }
    asm.bind(done);
    for (flag, bits) in FLAGS {
        let next = asm.label();
        asm.mov(R2, R1);
        asm.alu(Alu::Rsh, R2, flag as i32);
        asm.alu(Alu::And, R2, 1);
        asm.jump_if(Cond::Eq, R2, 0, next);
        asm.alu(Alu::Or, R3, bits);
        asm.bind(next);
    }
    asm.mov(R1, R3);
    Ok(())
}

fn request_rwbs(code: &mut Code<'_>) -> Emitted {
    rwbs(code, &at(0, "cmd_flags"))
}

fn bio_rwbs(code: &mut Code<'_>) -> Emitted {
    rwbs(code, &at(0, "bi_opf"))
}

fn completed_rwbs(code: &mut Code<'_>) -> Emitted {
    rwbs(code, &at(1, "bi_opf"))
}

/// `value`, or 0 for a request that carries a driver's own command.
fn unless_passthrough(code: &mut Code<'_>, value: &Expr) -> Emitted {
    let [none, done] = code.asm.labels();
    code.value(&at(0, "cmd_flags"))?;
    code.asm.alu(Alu::And, R1, OPERATION);
    code.asm.jump_if(Cond::Ge, R1, OPERATION_PASSTHROUGH, none);
    code.value(value)?;
    code.asm.jump(done);
    code.asm.bind(none);
    code.asm.mov(R1, 0);
    code.asm.bind(done);
    Ok(())
}

fn request_sector(code: &mut Code<'_>) -> Emitted {
    unless_passthrough(code, &at(0, "__sector"))?;
    // All ones: no sector.
    let some = code.asm.label();
    code.asm.jump_if(Cond::Ne, R1, -1, some);
    code.asm.mov(R1, 0);
    code.asm.bind(some);
    Ok(())
}

fn request_sectors(code: &mut Code<'_>) -> Emitted {
    unless_passthrough(code, &sectors!(at(0, "__data_len")))
}

/// Block layer states and the errors that they mean, where that is not EIO.
const STATES: [(i32, i32); 12] = [
    (0, 0),
    (1, -95),
    (2, -110),
    (3, -28),
    (4, -67),
    (5, -121),
    (6, -52),
    (7, -61),
    (8, -84),
    (9, -12),
    (12, -11),
    (13, -16),
];
const EIO: i32 = -5;

fn errno(code: &mut Code<'_>, state: &Expr) -> Emitted {
    code.value(state)?;
    let asm = &mut code.asm;
    asm.alu(Alu::And, R1, 0xff);
    asm.mov(R2, R1);
    let done = asm.label();
    for (state, error) in STATES {
        asm.mov(R1, error);
        asm.jump_if(Cond::Eq, R2, state, done);
    }
    asm.mov(R1, EIO);
    asm.bind(done);
    Ok(())
}

fn request_error(code: &mut Code<'_>) -> Emitted {
    errno(code, &arg(1))
}

fn bio_error(code: &mut Code<'_>) -> Emitted {
    errno(code, &at(1, "bi_status"))
}
