//! Assembled BTF, honest and broken.

use super::*;
use crate::path::Access;
use crate::path::PathError;

/// Writes BTF type by type.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Writer {
    fn new() -> Writer {
        Writer { strings: vec![0], ..Writer::default() }
    }
    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        at
    }
    fn add(&mut self, name: &str, kind: u32, flag: bool, count: u32, size: u32, extra: &[u32]) -> u32 {
        let name = self.name(name);
        let info = (kind << 24) | (u32::from(flag) << 31) | count;
        for word in [name, info, size].iter().chain(extra) {
            self.types.extend(word.to_ne_bytes());
        }
        self.count += 1;
        self.count
    }
    fn int(&mut self, name: &str, bytes: u32, signed: bool) -> u32 {
        self.add(name, 1, false, 0, bytes, &[(u32::from(signed) << 24) | (bytes * 8)])
    }
    /// Members: name, type, offset in bits with the width of a bit field in the top byte.
    fn structure(&mut self, name: &str, bytes: u32, flag: bool, members: &[(&str, u32, u32)]) -> u32 {
        let words: Vec<u32> = members.iter().flat_map(|(n, t, o)| [self.name(n), *t, *o]).collect();
        self.add(name, 4, flag, members.len() as u32, bytes, &words)
    }
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(&self.types);
        out.extend(&self.strings);
        out
    }
}

/// `struct task { int pid; union { struct { char comm[16]; u64 start; }; }; struct task *parent;
///  unsigned a:3, b:5; struct { u32 nr; } numbers[4]; enum { X = -1 } e; }`
fn sample() -> Writer {
    let mut w = Writer::new();
    let int = w.int("int", 4, true); // 1
    let character = w.int("char", 1, true); // 2
    let u64_type = w.int("u64", 8, false); // 3
    let comm = w.add("", 3, false, 0, 0, &[character, int, 16]); // 4
    let inner = w.structure("", 24, false, &[("comm", comm, 0), ("start", u64_type, 128)]); // 5
    let union = w.add("", 5, false, 1, 24, &[0, inner, 0]); // 6
    let pointer = w.add("", 2, false, 0, 8 + 5, &[]); // 7 → 13
    let u32_type = w.int("unsigned int", 4, false); // 8
    let number = w.structure("upid", 4, false, &[("nr", u32_type, 0)]); // 9
    let numbers = w.add("", 3, false, 0, 0, &[number, int, 4]); // 10
    let x = w.name("X");
    let labels = w.add("state", 6, true, 1, 4, &[x, u32::MAX]); // 11
    let constant = w.add("", 10, false, 0, labels, &[]); // 12
    let task = w.structure(
        "task",
        72,
        true,
        &[
            ("pid", int, 0),
            ("", union, 64),
            ("parent", pointer, 256),
            ("a", u32_type, (3 << 24) | 320),
            ("b", u32_type, (5 << 24) | 323),
            ("numbers", numbers, 352),
            ("e", constant, 480),
        ],
    );
    assert_eq!(task, 13);
    let proto = w.add("", 13, false, 2, 0, &[0, 0, 0, pointer]); // 14
    let proto_pointer = w.add("", 2, false, 0, proto, &[]); // 15
    w.add("btf_trace_switch", 8, false, 0, proto_pointer, &[]); // 16
    w
}

#[test]
fn types_are_found_by_kind_and_name() {
    let btf = Btf::parse(sample().bytes()).unwrap();
    assert_eq!(btf.find(Kind::Struct, "task"), Some(TypeId(13)));
    assert_eq!(btf.find(Kind::Union, "task"), None);
    assert_eq!(btf.find(Kind::Struct, "tas"), None);
    let hook = btf.find(Kind::Typedef, "btf_trace_switch").unwrap();
    let arguments: Vec<_> = btf.parameters(hook).map(|(_, id)| id).collect();
    assert_eq!(arguments, [TypeId(0), TypeId(7)]);
    assert_eq!(btf.labels(TypeId(11)).collect::<Vec<_>>(), [("X", -1)]);
    assert_eq!(
        btf.names(Kind::Typedef, "btf_").map(|(name, _)| name).collect::<Vec<_>>(),
        ["btf_trace_switch"]
    );
    assert_eq!(btf.size(TypeId(10)), Some(16));
}

#[test]
fn paths_become_offsets() {
    let btf = Btf::parse(sample().bytes()).unwrap();
    let walk = |path: &str| {
        let access = Access::resolve(&btf, TypeId(7), path)?;
        let p = access.place;
        Ok(format!(
            "{:?}+{} {} bytes signed {} bits {:?}",
            access.loads, access.offset, p.bytes, p.signed, p.bits
        ))
    };
    let show = |path| walk(path).unwrap_or_else(|error: PathError| error.to_string());
    assert_eq!(show("pid"), "[]+0 4 bytes signed true bits None");
    assert_eq!(show("comm"), "[]+8 16 bytes signed true bits None");
    assert_eq!(show("start"), "[]+24 8 bytes signed false bits None");
    assert_eq!(show("parent"), "[]+32 8 bytes signed false bits None");
    assert_eq!(show("parent->parent->comm[3]"), "[32, 32]+11 1 bytes signed true bits None");
    assert_eq!(show("b"), "[]+40 4 bytes signed false bits Some((3, 5))");
    assert_eq!(show("numbers[2].nr"), "[]+52 4 bytes signed false bits None");
    assert_eq!(show("e"), "[]+60 4 bytes signed true bits None");
    assert_eq!(show("gone"), "struct task has no member gone");
    assert_eq!(show("pid.x"), "int has no member x");
    assert_eq!(show("pid->x"), "pid->x: int is no pointer");
    assert_eq!(show("comm[16]"), "comm[16]: element 16 of 16");
    assert_eq!(show("comm["), "comm[: not a member path");
    assert_eq!(show(""), ": not a member path");
}

#[test]
fn a_module_continues_the_kernel() {
    let base = Arc::new(Btf::parse(sample().bytes()).unwrap());
    let mut module = Writer::new();
    module.strings.clear();
    let first_name = base.strings_bytes as u32;
    module.strings.extend(b"mine\0task2\0");
    // struct mine { struct task *task2; }: numbers go on at 17.
    module.types.clear();
    for word in [first_name, (4 << 24) | 1, 8, first_name + 5, 7, 0] {
        module.types.extend(u32::to_ne_bytes(word));
    }
    let btf = Btf::parse_split(module.bytes(), base).unwrap();
    let mine = btf.find(Kind::Struct, "mine").unwrap();
    assert_eq!(mine, TypeId(17));
    assert_eq!(btf.member(mine, "task2").map(|m| m.type_id), Some(TypeId(7)));
    assert_eq!(btf.find(Kind::Struct, "task"), Some(TypeId(13)));
    assert!(btf.is_own(mine) && !btf.is_own(TypeId(13)));
}

#[test]
fn broken_bytes_give_errors_or_nothing() {
    let whole = sample().bytes();
    assert_eq!(Btf::parse(Vec::new()).err(), Some(BtfError::Magic));
    for end in 2..whole.len() {
        assert!(Btf::parse(whole[..end].to_vec()).is_err(), "cut at {end}");
    }
    // Every single byte changed to each of a few values: whatever parses can be asked anything.
    for at in 0..whole.len() {
        for value in [0, 1, 0x1f, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            if let Ok(btf) = Btf::parse(bytes) {
                ask_everything(&btf);
            }
        }
    }
}

fn ask_everything(btf: &Btf) {
    for id in (0..btf.end_id() + 2).map(TypeId) {
        let _ = (btf.kind(id), btf.name(id), btf.size(id), btf.integer(id), btf.array(id), btf.strip(id));
        let _ = (btf.members(id).count(), btf.parameters(id).count(), btf.labels(id).count());
        let _ = btf.member(id, "no such member");
        for path in ["comm[3]", "parent->parent->numbers[1].nr", "a->b.c[2]"] {
            let _ = Access::resolve(btf, id, path);
        }
    }
    let _ = btf.find(Kind::Struct, "task");
}
