//! System calls whose arguments are structures: addresses of sockets, sets and lists of file
//! descriptors, pairs of them.
//!
//! Everything is read from the program's memory, bounded: what cannot be read (a page that is not
//! there) is zero, what is longer than the bound is cut, with `overflow` set where LTTng has it.
//! Fields that stand together are written by the emitter of the first of them.

use super::{Abi, Side, register};
use crate::code::{Code, GenerateError, helper};
use crate::recipe::{
    Emitter, Expr, Field, Int, Label, S32, Type, U8, U16, U32, U64, arg, custom, hex64, int, labelled, s32,
    u32, u64,
};
use sillage_bpf::{Alu, Cond, Reg, Width};

use Reg::*;

/// Bytes of a set of file descriptors that are kept: 1,024 of them.
const SET_BYTES_MAX: u32 = 128;
/// Elements of lists that are kept: a page of each.
const POLLS_MAX: i32 = 512;
const EPOLLS_MAX: i32 = 341;
/// Bytes of the largest address that is looked into (IPv6).
const ADDRESS_BYTES_MAX: i32 = 28;
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

type Emitted = Result<(), GenerateError>;

/// Written by the emitter of a field before it.
fn written(_: &mut Code<'_>) -> Emitted {
    Ok(())
}

/// An emitter for the registers of either kind of program.
macro_rules! by_abi {
    ($abi:expr, $emit:ident $(, $parameter:expr)*) => {
        match $abi {
            Abi::Native => {
                fn native(code: &mut Code<'_>) -> Emitted { $emit(code, Abi::Native $(, $parameter)*) }
                native as Emitter
            }
            Abi::Compat => {
                fn compat(code: &mut Code<'_>) -> Emitted { $emit(code, Abi::Compat $(, $parameter)*) }
                compat as Emitter
            }
        }
    };
}

const BIT: Type = Type::Int(Int::unsigned(1).packed());
const POLL_BITS: Type = Type::Struct(&[
    ("POLLIN", BIT),
    ("POLLPRI", BIT),
    ("POLLOUT", BIT),
    ("POLLERR", BIT),
    ("POLLHUP", BIT),
    ("padding", Type::Int(Int::unsigned(3).packed())),
]);
const POLL: Type =
    Type::Struct(&[("fd", Type::Int(S32)), ("raw_events", Type::Int(U16.hex())), ("events", POLL_BITS)]);
const EPOLL_BITS: Type = Type::Struct(&[
    ("EPOLLIN", BIT),
    ("EPOLLPRI", BIT),
    ("EPOLLOUT", BIT),
    ("EPOLLERR", BIT),
    ("padding", Type::Int(Int::unsigned(4).packed())),
]);
const EPOLL: Type = Type::Struct(&[
    ("data_union", Type::Struct(&[("u64", Type::Int(U64.hex())), ("fd", Type::Int(S32))])),
    ("raw_events", Type::Int(U32.hex())),
    ("events", EPOLL_BITS),
]);
static POLL_ELEMENT: Type = POLL;
static EPOLL_ELEMENT: Type = EPOLL;
static BE8: Type = Type::Int(U8.network());
static BE16: Type = Type::Int(U16.network());
static HEX8: Type = Type::Int(U8.hex());
const EPOLL_OPERATIONS: &[Label] =
    &[("EPOLL_CTL_ADD", 1, 1), ("EPOLL_CTL_DEL", 2, 2), ("EPOLL_CTL_MOD", 3, 3)];

/// The fields of a call, without the result.
pub(super) fn fields(name: &str, abi: Abi, side: Side) -> Vec<Field> {
    use Side::{Entry, Exit};
    let reg = |index| register(abi, index);
    match (name, side) {
        ("connect", Entry) => {
            let plain = [s32("fd", reg(0)), hex64("uservaddr", reg(1)), int("addrlen", S32.hex(), reg(2))];
            plain.into_iter().chain(address("dport", by_abi!(abi, connected))).collect()
        }
        ("accept" | "accept4", Entry) => {
            let mut plain = vec![
                s32("fd", reg(0)),
                hex64("upeer_sockaddr", reg(1)),
                s32("upeer_addrlen", Expr::Custom(by_abi!(abi, behind, 2))),
            ];
            if name == "accept4" {
                plain.push(int("flags", S32.hex(), reg(3)));
            }
            plain
        }
        ("accept" | "accept4", Exit) => {
            let length = s32("upeer_addrlen", Expr::Custom(by_abi!(abi, behind, 2)));
            std::iter::once(length).chain(address("sport", by_abi!(abi, accepted))).collect()
        }
        ("pipe" | "pipe2", Exit) => vec![pair("fildes", by_abi!(abi, descriptors, 0))],
        ("pipe2", Entry) => vec![s32("flags", reg(1))],
        ("socketpair", Entry) => vec![s32("family", reg(0)), s32("type", reg(1)), s32("protocol", reg(2))],
        ("socketpair", Exit) => vec![pair("socket", by_abi!(abi, descriptors, 3))],
        ("select" | "pselect6", side) => sets(name, abi, side),
        ("poll", Entry) => {
            let timeout = s32("timeout_msecs", reg(2));
            std::iter::once(timeout).chain(polls(abi, Entry, true)).collect()
        }
        ("poll", Exit) => polls(abi, Exit, false),
        ("ppoll", Entry) => {
            let plain = [u64("tsp", reg(2)), u64("sigmask", reg(3)), u64("sigsetsize", reg(4))];
            plain.into_iter().chain(polls(abi, Entry, true)).collect()
        }
        ("ppoll", Exit) => polls(abi, Exit, true),
        ("epoll_ctl", Entry) => vec![
            s32("epfd", reg(0)),
            labelled("op_enum", S32, EPOLL_OPERATIONS, reg(1)),
            s32("fd", reg(2)),
            custom("event", EPOLL, by_abi!(abi, epoll_event)),
        ],
        ("epoll_wait" | "epoll_pwait", Entry) => {
            let mut plain = vec![s32("epfd", reg(0)), s32("maxevents", reg(2)), s32("timeout", reg(3))];
            if name == "epoll_pwait" {
                plain.extend([hex64("sigmask", reg(4)), u64("sigsetsize", reg(5))]);
            }
            plain
        }
        ("epoll_wait" | "epoll_pwait", Exit) => vec![
            custom("fds_length", Type::Int(U32), by_abi!(abi, epoll_list)),
            custom("overflow", Type::Int(U8), written),
            custom("fds", Type::Counted { by: "fds_length", element: &EPOLL_ELEMENT }, written),
        ],
        _ => Vec::new(),
    }
}

/// All six arguments of a call, whatever it is.
pub(super) fn all_arguments(abi: Abi) -> Field {
    fn write(code: &mut Code<'_>, abi: Abi) -> Emitted {
        for index in 0..6 {
            code.value(&register(abi, index))?;
            code.put(R1, U64);
        }
        Ok(())
    }
    custom("args", Type::Array(U64, 6), by_abi!(abi, write))
}

/// The 32 bits that an argument points to.
fn behind(code: &mut Code<'_>, abi: Abi, index: u8) -> Emitted {
    code.value(&register(abi, index))?;
    code.read_user(Width::B4);
    Ok(())
}

fn address(port: &'static str, emit: Emitter) -> [Field; 4] {
    [
        custom("family", Type::Int(U16), emit),
        custom(port, Type::Int(U16.network()), written),
        custom("v4addr", Type::Sequence { count: U32, element: &BE8 }, written),
        custom("v6addr", Type::Sequence { count: U32, element: &BE16 }, written),
    ]
}

fn connected(code: &mut Code<'_>, abi: Abi) -> Emitted {
    code.value(&register(abi, 2))?;
    socket_address(code, abi)
}

fn accepted(code: &mut Code<'_>, abi: Abi) -> Emitted {
    behind(code, abi, 2)?;
    socket_address(code, abi)
}

/// Family, port and address of the socket address that the second argument points to; its length in R1.
fn socket_address(code: &mut Code<'_>, abi: Abi) -> Emitted {
    let kept = code.spill(R1);
    code.value(&register(abi, 1))?;
    code.asm.mov(R3, R1);
    code.unspill(R2, kept);
    code.release(1);
    let bytes = code.scratch(32);
    let [fits, v4, v6, none, done] = code.asm.labels();
    let asm = &mut code.asm;
    (0..4).for_each(|word| asm.store_imm(Width::B8, R10, bytes + 8 * word, 0));
    asm.jump_if(Cond::Le, R2, ADDRESS_BYTES_MAX, fits);
    asm.mov(R2, ADDRESS_BYTES_MAX);
    asm.bind(fits);
    asm.mov(R1, R10);
    asm.alu(Alu::Add, R1, i32::from(bytes));
    asm.call(helper::READ_USER);
    code.begin_variable();
    code.asm.load(Width::B2, R1, R10, bytes);
    code.put_variable(R1, Width::B2);
    code.asm.load(Width::B2, R2, R10, bytes + 2);
    code.asm.jump_if(Cond::Eq, R1, AF_INET, v4);
    code.asm.jump_if(Cond::Eq, R1, AF_INET6, v6);
    code.asm.jump(none);
    code.asm.bind(v4);
    code.put_variable(R2, Width::B2);
    code.asm.mov(R1, 4);
    code.put_variable(R1, Width::B4);
    code.asm.load(Width::B4, R1, R10, bytes + 4);
    code.put_variable(R1, Width::B4);
    code.asm.mov(R1, 0);
    code.put_variable(R1, Width::B4);
    code.asm.jump(done);
    code.asm.bind(v6);
    code.put_variable(R2, Width::B2);
    code.asm.mov(R1, 0);
    code.put_variable(R1, Width::B4);
    code.asm.mov(R1, 8);
    code.put_variable(R1, Width::B4);
    for word in 0..2 {
        code.asm.load(Width::B8, R1, R10, bytes + 8 + 8 * word);
        code.put_variable(R1, Width::B8);
    }
    code.asm.jump(done);
    code.asm.bind(none);
    code.asm.mov(R1, 0);
    code.put_variable(R1, Width::B2);
    code.put_variable(R1, Width::B8);
    code.asm.bind(done);
    code.release(4);
    code.end_variable();
    Ok(())
}

fn pair(name: &'static str, emit: Emitter) -> Field {
    custom(name, Type::Array(S32, 2), emit)
}

/// Two file descriptors that an argument points to.
fn descriptors(code: &mut Code<'_>, abi: Abi, index: u8) -> Emitted {
    code.value(&register(abi, index))?;
    code.read_user(Width::B8);
    code.put(R1, U64);
    Ok(())
}

fn sets(name: &str, abi: Abi, side: Side) -> Vec<Field> {
    fn overflow(code: &mut Code<'_>, abi: Abi) -> Emitted {
        code.value(&register(abi, 0))?;
        let [over, done] = code.asm.labels();
        code.asm.alu(Alu::Lsh, R1, 32);
        code.asm.alu(Alu::Rsh, R1, 32);
        code.asm.jump_if(Cond::Gt, R1, SET_BYTES_MAX as i32 * 8, over);
        code.asm.mov(R1, 0);
        code.asm.jump(done);
        code.asm.bind(over);
        code.asm.mov(R1, 1);
        code.asm.bind(done);
        Ok(())
    }
    let reg = |index| register(abi, index);
    let mut fields = Vec::new();
    if side == Side::Entry {
        fields.push(s32("n", reg(0)));
    }
    fields.push(crate::recipe::u8("overflow", Expr::Custom(by_abi!(abi, overflow))));
    fields.push(u64("tvp", reg(4)));
    if name == "pselect6" && side == Side::Entry {
        fields.push(hex64("sig", reg(5)));
    }
    let emitters: [Emitter; 3] = match side {
        Side::Entry => {
            [by_abi!(abi, set, 1, false), by_abi!(abi, set, 2, false), by_abi!(abi, set, 3, false)]
        }
        Side::Exit => [by_abi!(abi, set, 1, true), by_abi!(abi, set, 2, true), by_abi!(abi, set, 3, true)],
    };
    for (name, emit) in ["readfds", "writefds", "exceptfds"].into_iter().zip(emitters) {
        fields.push(custom(name, Type::Sequence { count: U8, element: &HEX8 }, emit));
    }
    fields
}

/// The set that argument `index` points to, of as many bits as the first argument says; at exit only
/// if the call found something.
fn set(code: &mut Code<'_>, abi: Abi, index: u8, exit: bool) -> Emitted {
    let none = code.asm.label();
    let kept = code.spill(R1);
    code.asm.store_imm(Width::B8, R10, kept.offset(), 0);
    if exit {
        code.value(&arg(1))?;
        code.asm.jump_if(Cond::SLe, R1, 0, none);
    }
    code.value(&register(abi, 0))?;
    let asm = &mut code.asm;
    asm.alu(Alu::Lsh, R1, 32);
    asm.alu(Alu::Rsh, R1, 32);
    asm.alu(Alu::Add, R1, 7);
    asm.alu(Alu::Rsh, R1, 3);
    code.at_most(SET_BYTES_MAX);
    let bytes = code.spill(R1);
    code.value(&register(abi, index))?;
    code.asm.jump_if(Cond::Eq, R1, 0, none);
    code.unspill(R2, bytes);
    code.asm.store(Width::B8, R10, kept.offset(), R2);
    code.asm.bind(none);
    code.begin_variable();
    code.unspill(R1, kept);
    code.put_variable(R1, Width::B1);
    code.value(&register(abi, index))?;
    code.asm.mov(R3, R1);
    code.unspill(R2, kept);
    code.asm.mov(R1, R8);
    code.asm.alu(Alu::Add, R1, R9);
    code.asm.call(helper::READ_USER);
    code.unspill(R1, kept);
    code.asm.alu(Alu::Add, R9, R1);
    code.release(2);
    code.end_variable();
    Ok(())
}

fn polls(abi: Abi, side: Side, overflow: bool) -> Vec<Field> {
    let emit = match (side, overflow) {
        (Side::Entry, _) => by_abi!(abi, poll_list, false, true),
        (Side::Exit, true) => by_abi!(abi, poll_list, true, true),
        (Side::Exit, false) => by_abi!(abi, poll_list, true, false),
    };
    let mut fields = vec![u32("nfds", register(abi, 1)), custom("fds_length", Type::Int(U32), emit)];
    if overflow {
        fields.push(custom("overflow", Type::Int(U8), written));
    }
    fields.push(custom("fds", Type::Counted { by: "fds_length", element: &POLL_ELEMENT }, written));
    fields
}

/// A list in the program's memory: count, overflow and elements. R1 is the number of elements that
/// there are. `element` writes `written_bytes` for the one whose address is in R1, or goes to the label
/// to leave it out; the count says how many were written.
fn list(
    code: &mut Code<'_>,
    from: &Expr,
    (element_bytes, most, written_bytes): (i32, i32, i32),
    overflow: bool,
    element: impl Fn(&mut Code<'_>, sillage_bpf::Label) -> Emitted,
) -> Emitted {
    let [fits, again, skip, done] = code.asm.labels();
    let over = code.spill(R1);
    code.asm.store_imm(Width::B8, R10, over.offset(), 0);
    code.asm.jump_if(Cond::Le, R1, most, fits);
    code.asm.mov(R1, most);
    code.asm.store_imm(Width::B8, R10, over.offset(), 1);
    code.asm.bind(fits);
    let left = code.spill(R1);
    code.value(from)?;
    let at = code.spill(R1);
    code.begin_variable();
    let count_at = code.spill(R9);
    code.asm.mov(R1, 0);
    code.put_variable(R1, Width::B4);
    if overflow {
        code.unspill(R1, over);
        code.put_variable(R1, Width::B1);
    }
    let start = code.spill(R9);
    code.forget_length();
    code.asm.bind(again);
    code.unspill(R1, left);
    code.asm.jump_if(Cond::Eq, R1, 0, done);
    code.asm.alu(Alu::Sub, R1, 1);
    code.asm.store(Width::B8, R10, left.offset(), R1);
    code.unspill(R1, at);
    element(code, skip)?;
    code.asm.bind(skip);
    // Both ways look alike to the verifier from here on, or it would follow each combination of them.
    code.forget_length();
    code.unspill(R1, at);
    code.asm.alu(Alu::Add, R1, element_bytes);
    code.asm.store(Width::B8, R10, at.offset(), R1);
    code.asm.jump(again);
    code.asm.bind(done);
    code.unspill(R2, start);
    code.asm.mov(R1, R9);
    code.asm.alu(Alu::Sub, R1, R2);
    code.asm.alu(Alu::Div, R1, written_bytes);
    code.unspill(R2, count_at);
    code.asm.mov(R5, R8);
    code.asm.alu(Alu::Add, R5, R2);
    code.asm.store(Width::B4, R5, 0, R1);
    code.release(5);
    Ok(())
}

/// The polled descriptors: at entry all, at exit those with something to report.
fn poll_list(code: &mut Code<'_>, abi: Abi, exit: bool, overflow: bool) -> Emitted {
    code.value(&register(abi, 1))?;
    code.asm.alu(Alu::Lsh, R1, 32);
    code.asm.alu(Alu::Rsh, R1, 32);
    if exit {
        only_after_success(code)?;
    }
    let events_shift = if exit { 48 } else { 32 };
    list(code, &register(abi, 0), (8, POLLS_MAX, 7), overflow, |code, skip| {
        code.read_user(Width::B8);
        code.asm.mov(R2, R1);
        code.asm.alu(Alu::Rsh, R2, events_shift);
        code.asm.alu(Alu::And, R2, 0xffff);
        if exit {
            code.asm.jump_if(Cond::Eq, R2, 0, skip);
        }
        code.put_variable(R1, Width::B4);
        code.put_variable(R2, Width::B2);
        code.asm.alu(Alu::And, R2, 0x1f);
        code.put_variable(R2, Width::B1);
        Ok(())
    })
}

/// R1 = 0 if the call gave nothing or an error.
fn only_after_success(code: &mut Code<'_>) -> Emitted {
    let [good, bad] = code.asm.labels();
    let kept = code.spill(R1);
    code.value(&arg(1))?;
    code.asm.jump_if(Cond::SLe, R1, 0, bad);
    code.unspill(R1, kept);
    code.asm.jump(good);
    code.asm.bind(bad);
    code.asm.mov(R1, 0);
    code.asm.bind(good);
    code.release(1);
    Ok(())
}

/// R2 = the data, R1 = the events of the `struct epoll_event` at R1.
fn read_epoll(code: &mut Code<'_>) {
    let at = code.spill(R1);
    code.read_user(Width::B4);
    let events = code.spill(R1);
    code.unspill(R1, at);
    code.asm.alu(Alu::Add, R1, 4);
    code.read_user(Width::B8);
    code.asm.mov(R2, R1);
    code.unspill(R1, events);
    code.release(2);
}

fn epoll_event(code: &mut Code<'_>, abi: Abi) -> Emitted {
    code.value(&register(abi, 3))?;
    read_epoll(code);
    code.put(R2, U64);
    code.put(R2, S32);
    code.put(R1, U32);
    code.asm.alu(Alu::And, R1, 0xf);
    code.put(R1, U8);
    Ok(())
}

/// The events that an epoll gave.
fn epoll_list(code: &mut Code<'_>, abi: Abi) -> Emitted {
    code.value(&arg(1))?;
    only_after_success(code)?;
    list(code, &register(abi, 1), (12, EPOLLS_MAX, 17), true, |code, _| {
        read_epoll(code);
        code.put_variable(R2, Width::B8);
        code.put_variable(R2, Width::B4);
        code.put_variable(R1, Width::B4);
        code.asm.alu(Alu::And, R1, 0xf);
        code.put_variable(R1, Width::B1);
        Ok(())
    })
}
