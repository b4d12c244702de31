//! A recipe from the format that tracefs gives for a tracepoint's record, for events without a table.
//!
//! Such an event hangs on the record that the kernel's own tracing makes, which costs that making and
//! loses what interrupts another program of the kind (counted as recursion misses), so it is the
//! second choice. Fields keep the kernel's names; what LTTng would call them is for tables to say.

use crate::recipe::{Expr, Field, Hook, Int, Recipe, S8, S16, S32, S64, Source, Type, U8, U16, U32, U64};
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Largest offset in a record: the kernel's limit is below it.
const OFFSET_MAX: u32 = 8192;
/// Elements of a dynamic array that are kept.
const ELEMENTS_MAX: u32 = 1024;

/// Why there is no recipe.
#[derive(Debug, Error)]
pub enum FormatError {
    /// tracefs is not mounted, or may not be looked into.
    #[error("tracefs is not mounted or not readable (mount -t tracefs tracefs /sys/kernel/tracing, as root)")]
    NoTracefs,
    /// No such event.
    #[error("{path}: {error}")]
    Unreadable {
        /// File of its format.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// A line of the format that is not understood.
    #[error("format, line {line}: {text}")]
    Line {
        /// From 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A table's field that the format does not have.
    #[error("the record of {event} has no field {field}")]
    NoField {
        /// The kernel's name of the event.
        event: String,
        /// The kernel's newest name of the field.
        field: &'static str,
    },
    /// The format names no number.
    #[error("the format has no ID")]
    NoId,
}

/// The recipe for the event `category/name` with this format.
///
/// # Errors
/// What is not understood.
pub fn recipe(category: &str, name: &str, text: &str) -> Result<Recipe, FormatError> {
    let mut id = None;
    let mut fields = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let bad = || FormatError::Line { line: index + 1, text: line.trim().into() };
        if let Some(number) = line.strip_prefix("ID: ") {
            id = Some(number.trim().parse().map_err(|_| bad())?);
        }
        let Some(declaration) = line.trim().strip_prefix("field:") else { continue };
        let field = Declared::parse(declaration).ok_or_else(bad)?;
        if !field.name.starts_with("common_") {
            fields.extend(field.field());
        }
    }
    let hook = Hook::Record {
        category: Cow::Owned(category.into()),
        name: Cow::Owned(name.into()),
        id: id.ok_or(FormatError::NoId)?,
    };
    Ok(Recipe { name: Cow::Owned(name.into()), hook, fields: Cow::Owned(fields) })
}

/// A table's recipe with its fields found in what the format gave.
///
/// # Errors
/// The format has none of a field's names.
pub(crate) fn named(table: &Recipe, record: &Recipe) -> Result<Recipe, FormatError> {
    let find = |names: &[&'static str]| {
        let fields = names.iter().filter_map(|name| record.fields.iter().find(|field| field.name == *name));
        fields.map(|field| field.from.clone()).next()
    };
    let missing = |names: &[&'static str]| FormatError::NoField {
        event: record.name.to_string(),
        field: names.first().copied().unwrap_or_default(),
    };
    let resolve = |field: &Field| {
        let from = match &field.from {
            Source::Kernel(Expr::Named(names)) => find(names).ok_or_else(|| missing(names))?,
            Source::Kernel(Expr::NamedOr(names, other)) => {
                find(names).unwrap_or(Source::Kernel(Expr::Const(*other)))
            }
            other => other.clone(),
        };
        Ok(Field { name: field.name.clone(), ty: field.ty.clone(), from })
    };
    let fields = table.fields.iter().map(resolve).collect::<Result<_, FormatError>>()?;
    Ok(Recipe { name: table.name.clone(), hook: record.hook.clone(), fields })
}

/// One line: `char comm[16]; offset:8; size:16; signed:0;`.
struct Declared<'a> {
    ty: &'a str,
    name: &'a str,
    offset: u16,
    size: u16,
    signed: bool,
    array: bool,
}

impl Declared<'_> {
    fn parse(text: &str) -> Option<Declared<'_>> {
        let mut parts = text.split(';').map(str::trim);
        let declaration = parts.next()?;
        let (mut offset, mut size, mut signed) = (None, None, false);
        for part in parts {
            match part.split_once(':') {
                Some(("offset", value)) => offset = value.parse::<u32>().ok(),
                Some(("size", value)) => size = value.parse::<u32>().ok(),
                Some(("signed", value)) => signed = value == "1",
                _ => {}
            }
        }
        let (offset, size) = (offset?, size?);
        if offset.checked_add(size)? > OFFSET_MAX {
            return None;
        }
        let (before, array) = match declaration.split_once('[') {
            // `__data_loc char[] name` has its brackets in front of the name.
            Some((_, behind)) if ["__data_loc", "__rel_loc"].iter().any(|p| declaration.starts_with(p)) => {
                (declaration, behind.contains(']'))
            }
            Some((before, _)) => (before, true),
            None => (declaration, false),
        };
        let start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        let (ty, name) = before.split_at(start);
        if name.is_empty() {
            return None;
        }
        Some(Declared { ty: ty.trim(), name, offset: offset as u16, size: size as u16, signed, array })
    }

    fn integer(bytes: u16, signed: bool) -> Option<Int> {
        Some(match (bytes, signed) {
            (1, true) => S8,
            (2, true) => S16,
            (4, true) => S32,
            (8, true) => S64,
            (1, false) => U8,
            (2, false) => U16,
            (4, false) => U32,
            (8, false) => U64,
            _ => return None,
        })
    }

    /// The field, or nothing for one of no bytes.
    fn field(&self) -> Option<Field> {
        let Declared { offset, size, signed, .. } = *self;
        let name = Cow::Owned(self.name.to_string());
        let located = ["__data_loc", "__rel_loc"].iter().position(|prefix| self.ty.starts_with(prefix));
        if let Some(which) = located {
            let from = Expr::RecordDynamic { offset, relative: which == 1 };
            if self.ty.contains(" char[") {
                return Some(Field { name, ty: Type::String, from: Source::Kernel(from) });
            }
            let element_bytes = element_bytes(self.ty).unwrap_or(1);
            let element = element_type(element_bytes);
            let count = Expr::RecordDynamicCount { offset, element_bytes };
            let ty = Type::Sequence { count: U32, element };
            return Some(Field { name, ty, from: Source::Sequence { from, count, most: ELEMENTS_MAX } });
        }
        let from = Source::Kernel(Expr::Record { offset, bytes: size, signed });
        let ty = match Declared::integer(size, signed).filter(|_| !self.array) {
            Some(int) if self.ty.contains('*') => Type::Int(int.hex()),
            Some(int) => Type::Int(int),
            None if size == 0 => return None,
            None if self.ty.ends_with("char") => Type::Text(size.into()),
            None => {
                let bytes = element_bytes(self.ty).filter(|bytes| size % bytes == 0).unwrap_or(1);
                let element = Declared::integer(bytes, signed).unwrap_or(U8);
                Type::Array(element, u32::from(size / bytes))
            }
        };
        Some(Field { name, ty, from })
    }
}

/// Bytes of the C types that kernel records use as elements.
fn element_bytes(ty: &str) -> Option<u16> {
    const TYPES: [(&str, u16); 8] =
        [("long", 8), ("64", 8), ("*", 8), ("short", 2), ("16", 2), ("u8", 1), ("char", 1), ("int", 4)];
    if ty.contains("32") || ty.contains("unsigned int") {
        return Some(4);
    }
    TYPES.iter().find(|(part, _)| ty.contains(part)).map(|(_, bytes)| *bytes)
}

fn element_type(bytes: u16) -> &'static Type {
    const TYPES: [Type; 4] =
        [Type::Int(U8), Type::Int(U16.hex()), Type::Int(U32.hex()), Type::Int(U64.hex())];
    static ELEMENTS: [Type; 4] = TYPES;
    &ELEMENTS[usize::from(bytes).trailing_zeros().min(3) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_becomes_a_field() {
        let text = "name: x\nID: 366\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
            \tfield:__data_loc char[] parent_comm;\toffset:8;\tsize:4;\tsigned:0;\n\
            \tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;\n\
            \tfield:char comm[16];\toffset:16;\tsize:16;\tsigned:0;\n\
            \tfield:const void * at;\toffset:32;\tsize:8;\tsigned:0;\n\
            \tfield:__data_loc u8[] bytes;\toffset:40;\tsize:4;\tsigned:0;\n\
            \tfield:__u32 words[3];\toffset:44;\tsize:12;\tsigned:0;\n\nprint fmt: \"\"\n";
        let made = recipe("sched", "x", text).unwrap();
        let shown: Vec<String> =
            made.fields.iter().map(|field| crate::metadata::summary(&field.name, &field.ty)).collect();
        assert_eq!(
            shown.join(" "),
            "string _parent_comm; s32 _pid; s8:UTF8 _comm[16]; u64x _at; u32 __bytes_length; \
             u8 _bytes[ __bytes_length ]; u32 _words[3];"
        );
        assert!(matches!(made.hook, Hook::Record { id: 366, .. }));
    }

    #[test]
    fn broken_formats_are_errors() {
        let show = |text: &str| recipe("a", "b", text).map(drop).unwrap_err().to_string();
        assert_eq!(show(""), "the format has no ID");
        assert_eq!(show("ID: x"), "format, line 1: ID: x");
        assert_eq!(show("ID: 1\n\tfield:int;\toffset:99999;"), "format, line 2: field:int;\toffset:99999;");
        assert_eq!(show("ID: 1\nfield:;offset:1;size:1;"), "format, line 2: field:;offset:1;size:1;");
    }
}
