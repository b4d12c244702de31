//! The network: packets with their headers, sockets, polling.
//!
//! A packet's headers are its own bytes, taken from where the kernel says that they are, as far as they
//! lie in the linear part of the buffer; what is not there is `_unknown`.

use crate::code::{Code, GenerateError};
use crate::recipe::{
    Expr, Field, Int, Label, Recipe, S64, Type, U8, U16, U32, arg, at, custom, hex64, int, labelled, s32,
    string, u16, u32,
};
use crate::{fields, named};
use sillage_bpf::{Alu, Cond, Reg, Width};
use std::borrow::Cow;

use Reg::*;

const fn be(int: Int) -> Type {
    Type::Int(int.network())
}
const NIBBLE: Int = Int::unsigned(4).network().aligned(4);
const BYTE: Type = be(U8);
const HALF: Type = be(U16);
const HALF_HEX: Type = be(U16.hex());
const WORD: Type = be(U32);

const PROTOCOLS: &[Label] = &[
    ("_unknown", 0, 0),
    ("_icmp", 1, 1),
    ("_unknown", 2, 5),
    ("_tcp", 6, 6),
    ("_unknown", 7, 16),
    ("_udp", 17, 17),
    ("_unknown", 18, 255),
];
const TRANSPORTS: &[Label] = &[("_unknown", 0, 0), ("_tcp", 1, 1), ("_udp", 2, 2), ("_icmp", 3, 3)];
const NETWORKS: &[Label] = &[("_unknown", 0, 0), ("_ipv4", 1, 1), ("_ipv6", 2, 2)];

const TCP: Type = Type::Struct(&[
    ("source_port", HALF),
    ("dest_port", HALF),
    ("seq", WORD),
    ("ack_seq", WORD),
    ("data_offset", Type::Int(NIBBLE)),
    ("reserved", Type::Int(Int::unsigned(3).network().packed())),
    ("flags", Type::Int(Int::unsigned(9).hex().network().packed())),
    ("window_size", HALF),
    ("checksum", HALF_HEX),
    ("urg_ptr", HALF),
]);
const UDP: Type = Type::Struct(&[("source_port", HALF), ("dest_port", HALF), ("len", HALF), ("check", HALF)]);
const ICMP: Type = Type::Struct(&[("type", BYTE), ("code", BYTE), ("checksum", HALF), ("gateway", WORD)]);
const TRANSPORT: Type = Type::Variant {
    tag: "transport_header_type",
    options: &[("unknown", Type::Struct(&[])), ("tcp", TCP), ("udp", UDP), ("icmp", ICMP)],
};
const IPV4: Type = Type::Struct(&[
    ("version", Type::Int(NIBBLE)),
    ("ihl", Type::Int(NIBBLE)),
    ("tos", BYTE),
    ("tot_len", HALF),
    ("id", HALF_HEX),
    ("frag_off", HALF),
    ("ttl", BYTE),
    ("protocol", Type::Enum(U8.network(), PROTOCOLS)),
    ("checksum", HALF_HEX),
    ("saddr_padding", Type::Padding),
    ("saddr", Type::Array(U8.network(), 4)),
    ("daddr_padding", Type::Padding),
    ("daddr", Type::Array(U8.network(), 4)),
    ("transport_header_type", Type::Enum(U8, TRANSPORTS)),
    ("transport_header", TRANSPORT),
]);
const IPV6: Type = Type::Struct(&[
    ("version", Type::Int(NIBBLE)),
    ("prio", Type::Int(NIBBLE)),
    ("flow_lbl_padding", Type::Padding),
    ("flow_lbl", Type::Array(U8.hex().network(), 3)),
    ("payload_len", HALF),
    ("nexthdr", Type::Enum(U8.network(), PROTOCOLS)),
    ("hop_limit", BYTE),
    ("saddr_padding", Type::Padding),
    ("saddr", Type::Array(U16.hex().network(), 8)),
    ("daddr_padding", Type::Padding),
    ("daddr", Type::Array(U16.hex().network(), 8)),
    ("transport_header_type", Type::Enum(U8, TRANSPORTS)),
    ("transport_header", TRANSPORT),
]);
const NETWORK: Type = Type::Variant {
    tag: "network_header_type",
    options: &[("unknown", Type::Struct(&[])), ("ipv4", IPV4), ("ipv6", IPV6)],
};

const SKB: Field = hex64("skbaddr", arg(0));
const DEVICE: Field = string("name", at(0, "dev->name"));
const LENGTH: Field = u32("len", at(0, "len"));
const NETWORK_TYPE: Field = custom("network_header_type", Type::Enum(U8, NETWORKS), headers);
const NETWORK_HEADER: Field = custom("network_header", NETWORK, |_| Ok(()));

const fn packet(name: &'static str, tracepoint: &'static str) -> Recipe {
    Recipe::on(name, tracepoint, fields![SKB, LENGTH, DEVICE, NETWORK_TYPE, NETWORK_HEADER])
}
const fn entry(name: &'static str, tracepoint: &'static str) -> Recipe {
    Recipe::on(name, tracepoint, fields![SKB])
}
const fn exit(name: &'static str, tracepoint: &'static str) -> Recipe {
    Recipe::on(name, tracepoint, fields![s32("ret", arg(0))])
}

const REASONS: &[Label] = &[
    ("NOT_SPECIFIED", 1, 1),
    ("NO_SOCKET", 2, 2),
    ("PKT_TOO_SMALL", 3, 3),
    ("TCP_CSUM", 4, 4),
    ("SOCKET_FILTER", 5, 5),
    ("UDP_CSUM", 6, 6),
    ("MAX", 65, 65),
];

pub(super) static EVENTS: &[Recipe] = &[
    Recipe::of(
        "napi_poll",
        fields![
            hex64("napi", arg(0)),
            string("dev_name", at(0, "dev->name")),
            s32("work", arg(1)),
            s32("budget", arg(2)),
        ],
    ),
    packet("net_dev_queue", "net_dev_queue"),
    Recipe::of(
        "net_dev_xmit",
        fields![SKB, s32("rc", arg(1)), u32("len", arg(3)), string("name", at(2, "name"))],
    ),
    packet("net_if_receive_skb", "netif_receive_skb"),
    entry("net_if_receive_skb_entry", "netif_receive_skb_entry"),
    exit("net_if_receive_skb_exit", "netif_receive_skb_exit"),
    entry("net_if_receive_skb_list_entry", "netif_receive_skb_list_entry"),
    exit("net_if_receive_skb_list_exit", "netif_receive_skb_list_exit"),
    packet("net_if_rx", "netif_rx"),
    entry("net_if_rx_entry", "netif_rx_entry"),
    exit("net_if_rx_exit", "netif_rx_exit"),
    entry("net_if_rx_ni_entry", "netif_rx_ni_entry"),
    exit("net_if_rx_ni_exit", "netif_rx_ni_exit"),
    entry("net_napi_gro_frags_entry", "napi_gro_frags_entry"),
    exit("net_napi_gro_frags_exit", "napi_gro_frags_exit"),
    entry("net_napi_gro_receive_entry", "napi_gro_receive_entry"),
    exit("net_napi_gro_receive_exit", "napi_gro_receive_exit"),
    Recipe::on("skb_consume", "consume_skb", fields![SKB]),
    Recipe::of("skb_copy_datagram_iovec", fields![SKB, s32("len", arg(1))]),
    Recipe::on(
        "skb_kfree",
        "kfree_skb",
        fields![
            SKB,
            hex64("location", arg(1)),
            int("protocol", U16.network(), at(0, "protocol")),
            labelled("reason", U8, REASONS, Expr::Custom(reason)),
        ],
    ),
    Recipe::from_record(
        "sock_exceed_buf_limit",
        ("sock", "sock_exceed_buf_limit"),
        fields![
            string("name", named!("name")),
            Field {
                name: Cow::Borrowed("sysctl_mem"),
                ty: Type::Array(S64, 3),
                from: crate::recipe::Source::Kernel(named!("sysctl_mem")),
            },
            int("allocated", S64, named!("allocated")),
            s32("sysctl_rmem", named!("sysctl_rmem")),
            s32("rmem_alloc", named!("rmem_alloc")),
            s32("sysctl_wmem", named!("sysctl_wmem")),
            s32("wmem_alloc", named!("wmem_alloc")),
            s32("wmem_queued", named!("wmem_queued")),
            s32("kind", named!("kind")),
        ],
    ),
    Recipe::of(
        "sock_rcvqueue_full",
        fields![
            s32("rmem_alloc", at(0, "sk_backlog.rmem_alloc.counter")),
            u32("truesize", at(1, "truesize")),
            s32("sk_rcvbuf", at(0, "sk_rcvbuf")),
        ],
    ),
    Recipe::of(
        "udp_fail_queue_rcv_skb",
        fields![s32("rc", arg(0)), u16("lport", at(1, "__sk_common.skc_num"))],
    ),
];

/// LTTng's number of a reason for which a packet was dropped: kernels number them anew all the time.
/// Those without a number keep the kernel's if that is none of LTTng's, else they are 0.
fn reason(code: &mut Code<'_>) -> Result<(), GenerateError> {
    code.value(&crate::first![arg(2), Expr::Const(0)])?;
    code.asm.mov(R2, R1);
    let done = code.asm.label();
    for (label, number, _) in REASONS {
        let full = ["SKB_DROP_REASON_", label].concat();
        if let Some(kernels) = code.label("skb_drop_reason", &full) {
            code.asm.mov(R1, *number as i32);
            code.asm.jump_if(Cond::Eq, R2, kernels as i32, done);
        }
    }
    code.asm.mov(R1, R2);
    code.asm.jump_if(Cond::Gt, R1, 6, done);
    code.asm.mov(R1, 0);
    code.asm.bind(done);
    Ok(())
}

const ETH_P_IP: i32 = 0x0800;
const ETH_P_IPV6: i32 = 0x86dd;
const IPV4_BYTES: i32 = 20;
const IPV6_BYTES: i32 = 40;

/// Kinds of transport: protocol, LTTng's number, bytes of the header.
const TRANSPORT_KINDS: [(i32, i32, i32); 3] = [(6, 1, 20), (17, 2, 8), (1, 3, 8)];

/// Both headers of the packet with their kinds.
fn headers(code: &mut Code<'_>) -> Result<(), GenerateError> {
    let [ipv4, ipv6, unknown, done] = code.asm.labels();
    // How many bytes there are behind the network header, and where it is.
    code.value(&at(0, "network_header"))?;
    let offset = code.spill(R1);
    code.value(&at(0, "tail"))?;
    code.unspill(R2, offset);
    code.asm.alu(Alu::Sub, R1, R2);
    let room = code.spill(R1);
    code.value(&at(0, "head"))?;
    code.unspill(R2, offset);
    code.asm.alu(Alu::Add, R1, R2);
    let header = code.spill(R1);
    code.value(&at(0, "protocol"))?;
    code.begin_variable();
    let kept = code.spill(R9);
    code.asm.mov(R2, R1);
    code.unspill(R3, room);
    let order =
        |kind: i32| if cfg!(target_endian = "little") { i32::from((kind as u16).swap_bytes()) } else { kind };
    code.asm.jump_if(Cond::Eq, R2, order(ETH_P_IP), ipv4);
    code.asm.jump_if(Cond::Eq, R2, order(ETH_P_IPV6), ipv6);
    code.asm.jump(unknown);

    code.asm.bind(ipv4);
    code.asm.jump_if(Cond::SLt, R3, IPV4_BYTES, unknown);
    network(code, (1, IPV4_BYTES, 9), header, room)?;
    code.asm.jump(done);
    code.asm.bind(ipv6);
    code.asm.jump_if(Cond::SLt, R3, IPV6_BYTES, unknown);
    network(code, (2, IPV6_BYTES, 6), header, room)?;
    code.asm.jump(done);

    code.asm.bind(unknown);
    code.unspill(R9, kept);
    code.asm.mov(R1, 0);
    code.put_variable(R1, Width::B1);
    code.asm.bind(done);
    code.release(4);
    code.end_variable();
    Ok(())
}

type Put = crate::code::Spill;

/// A network header of so many bytes, with the protocol at an offset, and the transport's header.
fn network(
    code: &mut Code<'_>,
    (kind, bytes, protocol_at): (i32, i32, i16),
    header: Put,
    room: Put,
) -> Result<(), GenerateError> {
    let [other, done] = code.asm.labels();
    code.asm.mov(R1, kind);
    code.put_variable(R1, Width::B1);
    code.unspill(R1, header);
    code.append_kernel(bytes);
    // Where the transport's header begins: a length that varies only for IPv4.
    code.asm.mov(R5, R8);
    code.asm.alu(Alu::Add, R5, R9);
    code.asm.load(Width::B1, R4, R5, protocol_at - bytes as i16);
    if bytes == IPV4_BYTES {
        code.asm.load(Width::B1, R2, R5, -(bytes as i16));
        code.asm.alu(Alu::And, R2, 0xf);
        code.asm.alu(Alu::Lsh, R2, 2);
    } else {
        code.asm.mov(R2, bytes);
    }
    code.unspill(R3, room);
    code.asm.alu(Alu::Sub, R3, R2);
    code.unspill(R1, header);
    code.asm.alu(Alu::Add, R1, R2);
    let at = code.spill(R1);
    for (protocol, number, bytes) in TRANSPORT_KINDS {
        let next = code.asm.label();
        code.asm.jump_if(Cond::Ne, R4, protocol, next);
        code.asm.jump_if(Cond::SLt, R3, bytes, other);
        code.asm.mov(R1, number);
        code.put_variable(R1, Width::B1);
        code.unspill(R1, at);
        code.append_kernel(bytes);
        code.asm.jump(done);
        code.asm.bind(next);
    }
    code.asm.bind(other);
    code.asm.mov(R1, 0);
    code.put_variable(R1, Width::B1);
    code.asm.bind(done);
    code.release(1);
    Ok(())
}
