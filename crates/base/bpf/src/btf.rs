//! BTF: the kernel's types, found by name.
//!
//! The bytes are kept as they are. One pass notes where each type begins and files the named ones in
//! a table of hashes, so that a kernel's hundred thousand types are ready in a few milliseconds;
//! everything else is read when it is asked for.
//!
//! ```text
//! header   u16 magic, u8 version, u8 flags, u32 header bytes, u32 types at/bytes, u32 strings at/bytes
//! type     u32 name, u32 info (vlen 16 bits, kind 5 bits at 24, flag at 31), u32 size or type, extra
//! ```
//! Both offsets count from the end of the header. A module's BTF continues the numbers and the strings
//! of the kernel's ([`Btf::parse_split`]).

use std::sync::Arc;
use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
/// Links of typedefs and qualifiers that are followed; honest ones are a handful long.
const LINKS_MAX: usize = 64;
/// Anonymous structs inside each other in which a member is looked for.
const NESTING_MAX: usize = 16;
/// Anonymous structs in all in which one member is looked for.
const STRUCTS_MAX: usize = 1024;
const NOTHING: u32 = u32::MAX;

/// Number of a type; 0 is `void`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

impl TypeId {
    /// `void`.
    pub const VOID: TypeId = TypeId(0);
}

/// What a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Void,
    Int,
    Pointer,
    Array,
    Struct,
    Union,
    Enum,
    Forward,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Function,
    FunctionProto,
    Variable,
    DataSection,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

const KINDS: [Kind; 20] = [
    Kind::Void,
    Kind::Int,
    Kind::Pointer,
    Kind::Array,
    Kind::Struct,
    Kind::Union,
    Kind::Enum,
    Kind::Forward,
    Kind::Typedef,
    Kind::Volatile,
    Kind::Const,
    Kind::Restrict,
    Kind::Function,
    Kind::FunctionProto,
    Kind::Variable,
    Kind::DataSection,
    Kind::Float,
    Kind::DeclTag,
    Kind::TypeTag,
    Kind::Enum64,
];

/// Why bytes are no BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    /// No BTF header of this machine's byte order.
    #[error("not BTF")]
    Magic,
    /// A part lies outside of the bytes.
    #[error("BTF ends at byte {at}")]
    Short {
        /// Where something is missing.
        at: usize,
    },
    /// A kind that is not known, whose length therefore is not either.
    #[error("BTF type {id} has the unknown kind {kind}")]
    Kind {
        /// Number of the type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its type.
    pub type_id: TypeId,
    /// Offset from the start of the struct, in bits.
    pub offset_bits: u64,
    /// Width of a bit field, in bits.
    pub bitfield_bits: Option<u32>,
}

/// An integer as the type describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntType {
    /// Bytes.
    pub bytes: u32,
    /// True for a signed integer.
    pub signed: bool,
}

/// The types of a kernel or of one module.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    /// Where each type begins in `data`; the first one is number `first_id`.
    types: Vec<u32>,
    first_id: u32,
    strings_at: usize,
    strings_bytes: usize,
    /// Bytes of the base's strings: offsets from there on are ours.
    first_string: usize,
    /// Indexes into `types` by the hash of kind and name; [`NOTHING`] is free.
    names: Vec<u32>,
    base: Option<Arc<Btf>>,
}

/// Index of the kind's namespace; C has tags, ordinary names and functions apart.
fn space(kind: Kind) -> Option<u32> {
    match kind {
        Kind::Struct => Some(1),
        Kind::Union => Some(2),
        Kind::Enum | Kind::Enum64 => Some(3),
        Kind::Typedef => Some(4),
        Kind::Function => Some(5),
        Kind::Int | Kind::Float => Some(6),
        _ => None,
    }
}

fn hash(space: u32, name: &[u8]) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ u64::from(space);
    for chunk in name.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash as usize
}

impl Btf {
    /// The kernel's types.
    ///
    /// # Errors
    /// Bytes that are no BTF, or torn, or of a newer kind.
    pub fn parse(data: Vec<u8>) -> Result<Btf, BtfError> {
        Btf::parse_on(data, None)
    }

    /// A module's types, which continue the kernel's.
    ///
    /// # Errors
    /// As `parse`.
    pub fn parse_split(data: Vec<u8>, base: Arc<Btf>) -> Result<Btf, BtfError> {
        Btf::parse_on(data, Some(base))
    }

    fn parse_on(data: Vec<u8>, base: Option<Arc<Btf>>) -> Result<Btf, BtfError> {
        let word = |at: usize| word_at(&data, at).ok_or(BtfError::Short { at: data.len() });
        if data.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(BtfError::Magic);
        }
        let header = word(4)? as usize;
        let part = |at: u32, bytes: u32| {
            let start = header.checked_add(at as usize);
            let end = start.and_then(|start| start.checked_add(bytes as usize));
            match (start, end) {
                (Some(start), Some(end)) if end <= data.len() => Ok((start, end)),
                _ => Err(BtfError::Short { at: data.len() }),
            }
        };
        let (types_at, types_end) = part(word(8)?, word(12)?)?;
        let (strings_at, strings_end) = part(word(16)?, word(20)?)?;
        let (first_id, first_string) = match &base {
            Some(base) => (base.end_id(), base.first_string + base.strings_bytes),
            None => (1, 0),
        };
        let mut types = Vec::with_capacity((types_end - types_at) / 20);
        let mut at = types_at;
        while at < types_end {
            let info = word(at + 4)?;
            let (kind, count) = (info >> 24 & 31, (info & 0xffff) as usize);
            let extra = match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * count,
                6 | 13 => 8 * count,
                2 | 7..=12 | 16 | 18 => 0,
                kind => return Err(BtfError::Kind { id: first_id + types.len() as u32, kind }),
            };
            if at + 12 + extra > types_end {
                return Err(BtfError::Short { at: types_end });
            }
            types.push(at as u32);
            at += 12 + extra;
        }
        let strings_bytes = strings_end - strings_at;
        let mut btf =
            Btf { data, types, first_id, strings_at, strings_bytes, first_string, names: Vec::new(), base };
        btf.file_names();
        Ok(btf)
    }

    /// Fills the table of names. The first of several types with one name is found.
    fn file_names(&mut self) {
        let mut names = vec![NOTHING; (self.types.len() * 2).next_power_of_two()];
        let mask = names.len() - 1;
        for (index, at) in self.types.iter().enumerate() {
            let Some(space) = space(kind_at(&self.data, *at as usize)) else { continue };
            let name = self.string(word_at(&self.data, *at as usize).unwrap_or(0));
            if name.is_empty() {
                continue;
            }
            let mut slot = hash(space, name) & mask;
            while names[slot] != NOTHING {
                slot = (slot + 1) & mask;
            }
            names[slot] = index as u32;
        }
        self.names = names;
    }

    /// Number behind the last type.
    pub fn end_id(&self) -> u32 {
        self.first_id + self.types.len() as u32
    }

    /// The type of this kind and name, in this BTF or the one that it continues.
    pub fn find(&self, kind: Kind, name: &str) -> Option<TypeId> {
        let space = space(kind)?;
        let mask = self.names.len() - 1;
        let mut slot = hash(space, name.as_bytes()) & mask;
        while let Some(index) = self.names.get(slot).filter(|index| **index != NOTHING) {
            let at = self.types[*index as usize] as usize;
            let same = || self.string(word_at(&self.data, at).unwrap_or(0)) == name.as_bytes();
            if self::space(kind_at(&self.data, at)) == Some(space) && same() {
                return Some(TypeId(self.first_id + index));
            }
            slot = (slot + 1) & mask;
        }
        self.base.as_ref().and_then(|base| base.find(kind, name))
    }

    /// Names of all types of a kind whose name begins with `prefix`, in this BTF alone.
    pub fn names<'a>(&'a self, kind: Kind, prefix: &'a str) -> impl Iterator<Item = (&'a str, TypeId)> + 'a {
        self.types.iter().enumerate().filter_map(move |(index, at)| {
            let at = *at as usize;
            if kind_at(&self.data, at) != kind {
                return None;
            }
            let name = self.string(word_at(&self.data, at)?);
            let name = std::str::from_utf8(name).ok().filter(|name| name.starts_with(prefix))?;
            Some((name, TypeId(self.first_id + index as u32)))
        })
    }

    /// True if the type stands in this BTF itself and not in the one that it continues.
    pub fn is_own(&self, id: TypeId) -> bool {
        id.0 >= self.first_id
    }

    fn at(&self, id: TypeId) -> Option<(&Btf, usize)> {
        match &self.base {
            Some(base) if id.0 < self.first_id => base.at(id),
            _ => {
                let index = id.0.checked_sub(self.first_id)?;
                self.types.get(index as usize).map(|at| (self, *at as usize))
            }
        }
    }

    /// Word `index` of a type: 0 name, 1 info, 2 size or type, 3… extra.
    fn word(&self, id: TypeId, index: usize) -> Option<u32> {
        let (btf, at) = self.at(id)?;
        word_at(&btf.data, at + 4 * index)
    }

    fn string(&self, offset: u32) -> &[u8] {
        let offset = offset as usize;
        let Some(own) = offset.checked_sub(self.first_string) else {
            return self.base.as_ref().map_or(&[], |base| base.string(offset as u32));
        };
        let strings = &self.data[self.strings_at..self.strings_at + self.strings_bytes];
        let rest = strings.get(own..).unwrap_or(&[]);
        rest.iter().position(|byte| *byte == 0).map_or(&[], |end| &rest[..end])
    }

    /// What the type is; `Void` for numbers that do not exist.
    pub fn kind(&self, id: TypeId) -> Kind {
        self.at(id).map_or(Kind::Void, |(btf, at)| kind_at(&btf.data, at))
    }

    /// Its name; empty if it has none.
    pub fn name(&self, id: TypeId) -> &str {
        let name = self.word(id, 0).map_or(&[][..], |offset| self.string(offset));
        std::str::from_utf8(name).unwrap_or("")
    }

    /// The type behind typedefs and qualifiers.
    pub fn strip(&self, id: TypeId) -> TypeId {
        let mut id = id;
        for _ in 0..LINKS_MAX {
            match self.kind(id) {
                Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                    id = TypeId(self.word(id, 2).unwrap_or(0));
                }
                _ => return id,
            }
        }
        TypeId::VOID
    }

    /// What a pointer, typedef, qualifier or function refers to.
    pub fn target(&self, id: TypeId) -> Option<TypeId> {
        match self.kind(id) {
            Kind::Pointer
            | Kind::Typedef
            | Kind::Volatile
            | Kind::Const
            | Kind::Restrict
            | Kind::TypeTag
            | Kind::Function => self.word(id, 2).map(TypeId),
            _ => None,
        }
    }

    /// Element type and count of an array.
    pub fn array(&self, id: TypeId) -> Option<(TypeId, u32)> {
        let id = self.strip(id);
        if self.kind(id) != Kind::Array {
            return None;
        }
        Some((TypeId(self.word(id, 3)?), self.word(id, 5)?))
    }

    /// Bytes of a value of the type; None for functions, `void` and what is only declared.
    pub fn size(&self, id: TypeId) -> Option<u32> {
        let (mut id, mut count) = (self.strip(id), 1u32);
        for _ in 0..LINKS_MAX {
            match self.kind(id) {
                Kind::Pointer => return count.checked_mul(8),
                Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float => {
                    return count.checked_mul(self.word(id, 2)?);
                }
                Kind::Array => {
                    let (element, elements) = self.array(id)?;
                    count = count.checked_mul(elements)?;
                    id = self.strip(element);
                }
                _ => return None,
            }
        }
        None
    }

    /// Width and sign of an integer, enumeration or pointer.
    pub fn integer(&self, id: TypeId) -> Option<IntType> {
        let id = self.strip(id);
        match self.kind(id) {
            Kind::Int => {
                let signed = self.word(id, 3)? >> 24 & 1 != 0;
                Some(IntType { bytes: self.word(id, 2)?, signed })
            }
            Kind::Enum | Kind::Enum64 => {
                Some(IntType { bytes: self.word(id, 2)?, signed: self.word(id, 1)? >> 31 != 0 })
            }
            Kind::Pointer => Some(IntType { bytes: 8, signed: false }),
            _ => None,
        }
    }

    /// Members of a struct or union, in order, with their names (empty for anonymous ones).
    pub fn members(&self, id: TypeId) -> impl Iterator<Item = (&str, Member)> + '_ {
        let id = self.strip(id);
        let info = match self.kind(id) {
            Kind::Struct | Kind::Union => self.word(id, 1).unwrap_or(0),
            _ => 0,
        };
        let has_bitfields = info >> 31 != 0;
        (0..(info & 0xffff) as usize).filter_map(move |index| {
            let word = |part| self.word(id, 3 + 3 * index + part);
            let (name, type_id, offset) = (word(0)?, TypeId(word(1)?), word(2)?);
            let (bits, offset) = if has_bitfields { (offset >> 24, offset & 0xff_ffff) } else { (0, offset) };
            let name = std::str::from_utf8(self.string(name)).unwrap_or("");
            let bitfield_bits = Some(bits).filter(|bits| *bits > 0);
            Some((name, Member { type_id, offset_bits: offset.into(), bitfield_bits }))
        })
    }

    /// The member of this name, also inside anonymous structs and unions.
    pub fn member(&self, id: TypeId, name: &str) -> Option<Member> {
        self.member_within(id, name, NESTING_MAX, &mut { STRUCTS_MAX })
    }

    fn member_within(&self, id: TypeId, name: &str, depth: usize, budget: &mut usize) -> Option<Member> {
        *budget = budget.checked_sub(1)?;
        if let Some((_, member)) = self.members(id).find(|(found, _)| *found == name) {
            return Some(member);
        }
        let depth = depth.checked_sub(1)?;
        self.members(id).filter(|(found, _)| found.is_empty()).find_map(|(_, outer)| {
            let inner = self.member_within(outer.type_id, name, depth, budget)?;
            Some(Member { offset_bits: outer.offset_bits + inner.offset_bits, ..inner })
        })
    }

    /// Parameters of a function or its prototype: names (may be empty) and types.
    pub fn parameters(&self, id: TypeId) -> impl Iterator<Item = (&str, TypeId)> + '_ {
        let mut id = id;
        for _ in 0..4 {
            id = self.strip(id);
            match self.kind(id) {
                Kind::Function | Kind::Pointer => id = self.target(id).unwrap_or(TypeId::VOID),
                _ => break,
            }
        }
        let count = match self.kind(id) {
            Kind::FunctionProto => self.word(id, 1).unwrap_or(0) & 0xffff,
            _ => 0,
        };
        (0..count as usize).filter_map(move |index| {
            let name = self.string(self.word(id, 3 + 2 * index)?);
            Some((std::str::from_utf8(name).unwrap_or(""), TypeId(self.word(id, 4 + 2 * index)?)))
        })
    }

    /// Labels of an enumeration with their values, sign-extended if it is signed.
    pub fn labels(&self, id: TypeId) -> impl Iterator<Item = (&str, i64)> + '_ {
        let id = self.strip(id);
        let kind = self.kind(id);
        let info = match kind {
            Kind::Enum | Kind::Enum64 => self.word(id, 1).unwrap_or(0),
            _ => 0,
        };
        let signed = info >> 31 != 0;
        (0..(info & 0xffff) as usize).filter_map(move |index| {
            let words = if kind == Kind::Enum64 { 3 } else { 2 };
            let word = |part| self.word(id, 3 + words * index + part);
            let low = word(1)?;
            let value = match kind {
                Kind::Enum64 => (u64::from(word(2)?) << 32 | u64::from(low)) as i64,
                _ if signed => i64::from(low as i32),
                _ => i64::from(low),
            };
            Some((std::str::from_utf8(self.string(word(0)?)).unwrap_or(""), value))
        })
    }
}

fn word_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn kind_at(data: &[u8], at: usize) -> Kind {
    let number = word_at(data, at + 4).unwrap_or(0) >> 24 & 31;
    KINDS.get(number as usize).copied().unwrap_or(Kind::Void)
}

#[cfg(test)]
mod tests;
