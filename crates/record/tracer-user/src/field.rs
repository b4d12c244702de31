//! The types that fields of Rust tracepoints can have, and how their bytes lie in a record.
//!
//! | Rust | in the trace |
//! |---|---|
//! | `u8` … `u64`, `i8` … `i64`, `usize`, `isize`, `bool` | integer |
//! | `f32`, `f64` | floating point |
//! | `&str`, `&CStr` | string; from a NUL inside on, `#` |
//! | `[T; N]`, `&[T; N]` | array |
//! | `&[T]` | sequence, its length (u32) in the hidden field `_NAME_length` |
//!
//! Bytes are packed, in the machine's order.

use crate::text;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;
use sillage_model::{Encoding, FieldType, FloatType, IntegerType};

/// A type that a tracepoint's field can have.
pub trait Field {
    /// Adds what the daemon must know of the field `name`.
    fn describe(name: &str, into: &mut Vec<sillage_model::Field>);

    /// Bytes that this value takes in the record.
    fn size_bytes(&self) -> usize;

    /// Writes the value and returns where the next one goes.
    ///
    /// # Safety
    /// `at` has `size_bytes` writable bytes and [`text::OVERRUN_BYTES`] behind them.
    unsafe fn put(&self, at: *mut u8) -> *mut u8;
}

/// A number of fixed size.
pub trait Number: Copy {
    /// Its type in the trace.
    fn field_type() -> FieldType;
}

fn integer(size_bits: u32, signed: bool) -> FieldType {
    FieldType::Integer(IntegerType { size_bits, align_bits: 8, signed, reverse_byte_order: false, base: 10 })
}

fn float(exponent_bits: u32, mantissa_bits: u32) -> FieldType {
    FieldType::Float(FloatType { exponent_bits, mantissa_bits, align_bits: 8, reverse_byte_order: false })
}

macro_rules! numbers {
    ($($type:ty => $field:expr),+ $(,)?) => { $(
        impl Number for $type {
            fn field_type() -> FieldType {
                $field
            }
        }
        impl Field for $type {
            fn describe(name: &str, into: &mut Vec<sillage_model::Field>) {
                into.push(sillage_model::Field { name: name.into(), field_type: <$type>::field_type() });
            }
            #[inline(always)]
            fn size_bytes(&self) -> usize {
                size_of::<$type>()
            }
            #[inline(always)]
            unsafe fn put(&self, at: *mut u8) -> *mut u8 {
                // SAFETY: the caller's promise covers the value and the overrun.
                unsafe {
                    text::copy_bytes(at, core::ptr::from_ref(self).cast(), size_of::<$type>());
                    at.add(size_of::<$type>())
                }
            }
        }
    )+ };
}

numbers! {
    u8 => integer(8, false), u16 => integer(16, false), u32 => integer(32, false), u64 => integer(64, false),
    i8 => integer(8, true), i16 => integer(16, true), i32 => integer(32, true), i64 => integer(64, true),
    usize => integer(64, false), isize => integer(64, true), bool => integer(8, false),
    f32 => float(8, 24), f64 => float(11, 53),
}

/// # Safety
/// As [`Field::put`] for `count` bytes and a NUL.
#[inline(always)]
unsafe fn put_string(at: *mut u8, from: &[u8]) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        text::copy_text(at, from.as_ptr(), from.len(), b'#');
        let end = at.add(from.len());
        *end = 0;
        end.add(1)
    }
}

macro_rules! strings {
    ($($type:ty, $bytes:ident);+) => { $(
        impl Field for &$type {
            fn describe(name: &str, into: &mut Vec<sillage_model::Field>) {
                let field_type = FieldType::String(Encoding::Utf8);
                into.push(sillage_model::Field { name: name.into(), field_type });
            }
            #[inline(always)]
            fn size_bytes(&self) -> usize {
                self.$bytes().len() + 1
            }
            #[inline(always)]
            unsafe fn put(&self, at: *mut u8) -> *mut u8 {
                // SAFETY: the caller's promise covers the text and its NUL.
                unsafe { put_string(at, self.$bytes()) }
            }
        }
    )+ };
}

strings! { str, as_bytes; CStr, to_bytes }

/// # Safety
/// As [`Field::put`] for the values' bytes.
#[inline(always)]
unsafe fn put_all<T: Number>(at: *mut u8, values: &[T]) -> *mut u8 {
    // SAFETY: numbers have no padding; the caller's promise covers the bytes.
    unsafe {
        text::copy_bytes(at, values.as_ptr().cast(), size_of_val(values));
        at.add(size_of_val(values))
    }
}

impl<T: Number, const N: usize> Field for [T; N] {
    fn describe(name: &str, into: &mut Vec<sillage_model::Field>) {
        let field_type = FieldType::Array {
            element: Box::new(T::field_type()),
            length: N as u32,
            align_bits: 8,
            encoding: Encoding::None,
        };
        into.push(sillage_model::Field { name: name.into(), field_type });
    }
    #[inline(always)]
    fn size_bytes(&self) -> usize {
        size_of::<[T; N]>()
    }
    #[inline(always)]
    unsafe fn put(&self, at: *mut u8) -> *mut u8 {
        // SAFETY: passed on.
        unsafe { put_all(at, self) }
    }
}

impl<T: Number, const N: usize> Field for &[T; N] {
    fn describe(name: &str, into: &mut Vec<sillage_model::Field>) {
        <[T; N]>::describe(name, into);
    }
    #[inline(always)]
    fn size_bytes(&self) -> usize {
        size_of::<[T; N]>()
    }
    #[inline(always)]
    unsafe fn put(&self, at: *mut u8) -> *mut u8 {
        // SAFETY: passed on.
        unsafe { put_all(at, *self) }
    }
}

impl<T: Number> Field for &[T] {
    fn describe(name: &str, into: &mut Vec<sillage_model::Field>) {
        let length_name = format!("_{name}_length");
        into.push(sillage_model::Field { name: length_name.clone(), field_type: integer(32, false) });
        let field_type = FieldType::Sequence {
            element: Box::new(T::field_type()),
            length_name,
            align_bits: 8,
            encoding: Encoding::None,
        };
        into.push(sillage_model::Field { name: name.into(), field_type });
    }
    #[inline(always)]
    fn size_bytes(&self) -> usize {
        size_of::<u32>() + size_of_val(*self)
    }
    #[inline(always)]
    unsafe fn put(&self, at: *mut u8) -> *mut u8 {
        // SAFETY: the caller's promise covers the length and the values.
        unsafe { put_all((self.len() as u32).put(at), self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::{String, ToString};
    use std::vec;

    fn bytes(field: impl Field) -> Vec<u8> {
        let size = field.size_bytes();
        let mut to = vec![0xee; size + text::OVERRUN_BYTES];
        // SAFETY: `to` is as long as asked for.
        let end = unsafe { field.put(to.as_mut_ptr()) };
        assert_eq!(end as usize - to.as_ptr() as usize, size);
        to.truncate(size);
        to
    }

    fn names<T: Field>() -> Vec<String> {
        let mut fields = Vec::new();
        T::describe("x", &mut fields);
        fields.iter().map(|f| f.name.to_string()).collect()
    }

    #[test]
    fn each_type_has_its_bytes_and_its_fields() {
        assert_eq!(bytes(-2i16), [0xfe, 0xff]);
        assert_eq!(bytes(true), [1]);
        assert_eq!(bytes(1.5f64), 1.5f64.to_le_bytes());
        assert_eq!(bytes("abc"), b"abc\0");
        assert_eq!(bytes("a\0bc"), b"a###\0", "text behind a NUL cannot be told from the next field");
        assert_eq!(bytes(c"xy"), b"xy\0");
        assert_eq!(bytes([1u16, 2]), [1, 0, 2, 0]);
        let borrowed: &[u8; 3] = &[7; 3];
        assert_eq!(bytes(borrowed), [7, 7, 7]);
        assert_eq!(bytes(&[5u8, 6][..]), [2, 0, 0, 0, 5, 6]);
        assert_eq!(bytes(&[0u32; 0][..]), [0, 0, 0, 0]);
        assert_eq!(names::<&[u8]>(), ["_x_length", "x"]);
        assert_eq!(names::<&str>(), ["x"]);
    }
}
