//! Member paths: `real_parent->tgid`, `numbers[0].nr`, resolved against a kernel's types.
//!
//! A path starts at a pointer. Its steps up to the last `->` become loads of pointers, the rest one
//! place behind the last of them. What a path means is fixed by the running kernel's BTF alone, so the
//! same text fits every kernel that has those members.

use crate::btf::{Btf, Kind, TypeId};
use thiserror::Error;

/// Steps of a path, at most.
const STEPS_MAX: usize = 32;

/// Why a path leads nowhere on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// Not of the form `a->b.c[2]`.
    #[error("{path}: not a member path")]
    Syntax {
        /// The path.
        path: String,
    },
    /// The type has no such member.
    #[error("{of} has no member {member}")]
    NoMember {
        /// The type.
        of: String,
        /// The member.
        member: String,
    },
    /// `->` behind something that is no pointer to a struct.
    #[error("{path}: {of} is no pointer")]
    NoPointer {
        /// The path.
        path: String,
        /// What it is.
        of: String,
    },
    /// `[n]` behind something that is no array, or beyond its end.
    #[error("{path}: element {index} of {count}")]
    NoElement {
        /// The path.
        path: String,
        /// The element.
        index: u32,
        /// Elements that there are.
        count: u32,
    },
    /// What the path names has no size, or lies too far from its start.
    #[error("{path}: cannot be loaded")]
    NoSize {
        /// The path.
        path: String,
    },
}

/// What lies at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its type.
    pub type_id: TypeId,
    /// Bytes; for a bit field, of the integer that holds it.
    pub bytes: u32,
    /// True for signed integers, and arrays of them.
    pub signed: bool,
    /// Lowest bit and width, for a bit field.
    pub bits: Option<(u32, u32)>,
}

/// How to get there: `p = *(p + loads[0])`, …, then the place is at `p + offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Offsets of the pointers to follow.
    pub loads: Vec<u32>,
    /// Offset from the last pointer.
    pub offset: u32,
    /// What is there.
    pub place: Place,
}

/// One step of a path.
enum Step<'a> {
    Member(&'a str),
    Arrow(&'a str),
    Element(u32),
}

impl Access {
    /// Resolves `path` from a pointer of type `pointer` (to a struct or union).
    ///
    /// # Errors
    /// The path is malformed, or this kernel has no such place.
    pub fn resolve(btf: &Btf, pointer: TypeId, path: &str) -> Result<Access, PathError> {
        let at = btf.strip(pointer);
        let walk = Walk { btf, path, at, loads: Vec::new(), offset_bits: 0, bits: None };
        // The first step goes through the pointer itself, which the caller has in hand.
        let target = walk.through_pointer()?;
        Access::within(btf, target, path)
    }

    /// Resolves `path` from a pointer to the struct or union `of`.
    ///
    /// # Errors
    /// As `resolve`.
    pub fn within(btf: &Btf, of: TypeId, path: &str) -> Result<Access, PathError> {
        let steps = parse(path).ok_or_else(|| PathError::Syntax { path: path.into() })?;
        let mut walk = Walk { btf, path, at: btf.strip(of), loads: Vec::new(), offset_bits: 0, bits: None };
        for step in steps {
            walk.step(&step)?;
        }
        walk.finish()
    }
}

struct Walk<'a> {
    btf: &'a Btf,
    path: &'a str,
    at: TypeId,
    loads: Vec<u32>,
    offset_bits: u64,
    bits: Option<u32>,
}

impl Walk<'_> {
    fn title(&self) -> String {
        let (btf, at) = (self.btf, self.btf.strip(self.at));
        match btf.kind(at) {
            Kind::Struct => format!("struct {}", btf.name(at)),
            Kind::Union => format!("union {}", btf.name(at)),
            _ if !btf.name(at).is_empty() => btf.name(at).into(),
            kind => format!("{kind:?}").to_lowercase(),
        }
    }

    fn through_pointer(&self) -> Result<TypeId, PathError> {
        let at = self.btf.strip(self.at);
        let target = self.btf.target(at).filter(|_| self.btf.kind(at) == Kind::Pointer);
        target
            .map(|target| self.btf.strip(target))
            .ok_or_else(|| PathError::NoPointer { path: self.path.into(), of: self.title() })
    }

    fn offset(&self) -> Result<u32, PathError> {
        let offset = u32::try_from(self.offset_bits / 8).ok().filter(|offset| *offset <= i32::MAX as u32);
        offset.ok_or_else(|| PathError::NoSize { path: self.path.into() })
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), PathError> {
        match *step {
            Step::Member(name) => self.member(name),
            Step::Arrow(name) => {
                let target = self.through_pointer()?;
                self.loads.push(self.offset()?);
                (self.at, self.offset_bits) = (target, 0);
                self.member(name)
            }
            Step::Element(index) => self.element(index),
        }
    }

    fn member(&mut self, name: &str) -> Result<(), PathError> {
        let member = self
            .btf
            .member(self.at, name)
            .ok_or_else(|| PathError::NoMember { of: self.title(), member: name.into() })?;
        self.offset_bits += member.offset_bits;
        self.at = member.type_id;
        self.bits = member.bitfield_bits;
        Ok(())
    }

    fn element(&mut self, index: u32) -> Result<(), PathError> {
        let no_element = |count| PathError::NoElement { path: self.path.into(), index, count };
        let (element, count) = self.btf.array(self.at).ok_or_else(|| no_element(0))?;
        // Arrays of length 0 or 1 at the end of a struct are longer than they say.
        if index >= count && count > 1 {
            return Err(no_element(count));
        }
        let bytes = self.btf.size(element).ok_or_else(|| PathError::NoSize { path: self.path.into() })?;
        self.offset_bits += u64::from(index) * u64::from(bytes) * 8;
        self.at = element;
        Ok(())
    }

    fn finish(self) -> Result<Access, PathError> {
        let bytes = self.btf.size(self.at).ok_or_else(|| PathError::NoSize { path: self.path.into() })?;
        let scalar = self.btf.array(self.at).map_or(self.at, |(element, _)| element);
        let signed = self.btf.integer(scalar).is_some_and(|integer| integer.signed);
        let mut place = Place { type_id: self.at, bytes, signed, bits: None };
        let mut offset = self.offset()?;
        if let Some(width) = self.bits {
            // The bit field inside the aligned integer of its type that holds its first bit.
            let holder_bits = u64::from(bytes.max(1)) * 8;
            let low = self.offset_bits % holder_bits;
            if low + u64::from(width) > holder_bits {
                return Err(PathError::NoSize { path: self.path.into() });
            }
            offset = u32::try_from((self.offset_bits - low) / 8)
                .map_err(|_| PathError::NoSize { path: self.path.into() })?;
            place.bits = Some((low as u32, width));
        }
        Ok(Access { loads: self.loads, offset, place })
    }
}

fn parse(path: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    let mut rest = path;
    let mut first = true;
    while !rest.is_empty() {
        if steps.len() == STEPS_MAX {
            return None;
        }
        if let Some(behind) = rest.strip_prefix('[') {
            let (index, behind) = behind.split_once(']')?;
            steps.push(Step::Element(index.parse().ok().filter(|_| !first)?));
            rest = behind;
            continue;
        }
        let (arrow, behind) = match (rest.strip_prefix("->"), rest.strip_prefix('.')) {
            _ if first => (false, rest),
            (Some(behind), _) => (true, behind),
            (_, Some(behind)) => (false, behind),
            _ => return None,
        };
        let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
        let (name, behind) = behind.split_at(end);
        if name.is_empty() {
            return None;
        }
        steps.push(if arrow { Step::Arrow(name) } else { Step::Member(name) });
        rest = behind;
        first = false;
    }
    Some(steps).filter(|steps| !steps.is_empty())
}
