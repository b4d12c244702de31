//! A provider's descriptors, translated into the vocabulary of the daemon.
//!
//! Fields that are not written are left out. What this version does not know (dynamic types,
//! structures, later inventions) makes the event unrecordable, never wrong.

use crate::layout::{
    EnumDesc, EventDesc, EventField, NOT_WRITTEN, ProbeDesc, TYPE_ARRAY, TYPE_ENUM, TYPE_FLOAT, TYPE_INTEGER,
    TYPE_SEQUENCE, TYPE_STRING, TypeArray, TypeCommon, TypeEnum, TypeFloat, TypeInteger, TypeSequence,
    TypeString,
};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{c_char, c_int, c_uint, c_void};
use sillage_model::{
    Encoding, EnumEntry, EnumValue, Field, FieldType, FloatType, IntegerType, LogLevel, Tracepoint,
};
use sillage_tracer_user::registry::Described;
use sillage_tracer_user::site::bytes;

/// Log level of events that declare none.
const DEFAULT_LOGLEVEL: c_int = 13;

/// Describes the events of the provider at `context`.
///
/// # Safety
/// `context` is a [`ProbeDesc`] whose module is loaded.
pub(crate) unsafe fn describe(context: *const c_void, take: &mut dyn FnMut(Described<'_>)) {
    // SAFETY: the caller's promise holds for everything that the descriptor leads to.
    unsafe {
        let provider = &*context.cast::<ProbeDesc>();
        for i in 0..provider.event_count as usize {
            let Some(event) = (*provider.events.add(i)).as_ref() else { continue };
            let Some(class) = event.class.as_ref() else { continue };
            if let Some(tracepoint) = tracepoint(provider, event) {
                take(Described {
                    event: core::ptr::from_ref(event).cast(),
                    provider: bytes(provider.provider_name),
                    name: bytes(event.name),
                    signature: bytes(class.signature),
                    tracepoint,
                });
            }
        }
    }
}

/// # Safety
/// As [`describe`].
unsafe fn tracepoint(provider: &ProbeDesc, event: &EventDesc) -> Option<Tracepoint> {
    // SAFETY: the caller's promise; pointers that may be null are looked at first.
    unsafe {
        let class = event.class.as_ref()?;
        let mut fields: Vec<Field> = Vec::new();
        for i in 0..class.field_count {
            let field = (*class.fields.add(i)).as_ref()?;
            if field.flags & NOT_WRITTEN == 0 {
                let field = written(field, fields.last())?;
                fields.push(field);
            }
        }
        let loglevel = event.loglevel.as_ref().and_then(|l| l.as_ref()).copied().unwrap_or(DEFAULT_LOGLEVEL);
        let uri = event.model_emf_uri.as_ref().copied().unwrap_or(core::ptr::null());
        Some(Tracepoint {
            name: format!("{}:{}", text(provider.provider_name), text(event.name)),
            loglevel: LogLevel::from_number(loglevel.into()),
            emf_uri: (!uri.is_null()).then(|| text(uri)),
            fields,
        })
    }
}

/// # Safety
/// As [`describe`].
unsafe fn written(field: &EventField, previous: Option<&Field>) -> Option<Field> {
    // SAFETY: the caller's promise.
    unsafe { Some(Field { name: text(field.name), field_type: field_type(field.field_type, previous)? }) }
}

/// # Safety
/// Null, or a C string of the provider's.
unsafe fn text(from: *const c_char) -> String {
    // SAFETY: the caller's promise.
    String::from_utf8_lossy(unsafe { bytes(from) }).into_owned()
}

fn encoding(number: c_uint) -> Encoding {
    match number {
        1 => Encoding::Utf8,
        2 => Encoding::Ascii,
        _ => Encoding::None,
    }
}

/// # Safety
/// `at` is null or one of the ABI's types.
unsafe fn field_type(at: *const TypeCommon, previous: Option<&Field>) -> Option<FieldType> {
    // SAFETY: the kind says which structure is there.
    unsafe {
        Some(match at.as_ref()?.kind {
            TYPE_INTEGER => FieldType::Integer(integer(at)?),
            TYPE_FLOAT => {
                let float = &*at.cast::<TypeFloat>();
                FieldType::Float(FloatType {
                    exponent_bits: float.exponent_bits,
                    mantissa_bits: float.mantissa_bits,
                    align_bits: float.align_bits,
                    reverse_byte_order: float.flags & 1 != 0,
                })
            }
            TYPE_STRING => FieldType::String(encoding((*at.cast::<TypeString>()).encoding)),
            TYPE_ENUM => {
                let this = &*at.cast::<TypeEnum>();
                let desc = this.desc.as_ref()?;
                FieldType::Enum {
                    name: text(desc.name),
                    container: integer(this.container)?,
                    entries: entries(desc)?,
                }
            }
            TYPE_ARRAY => {
                let array = &*at.cast::<TypeArray>();
                FieldType::Array {
                    element: Box::new(field_type(array.element, None)?),
                    length: array.length,
                    align_bits: alignment(array.align_bits),
                    encoding: encoding(array.encoding),
                }
            }
            TYPE_SEQUENCE => {
                let sequence = &*at.cast::<TypeSequence>();
                // Without a name, the length is the field before.
                let length_name = match sequence.length_name.is_null() {
                    true => previous?.name.clone(),
                    false => text(sequence.length_name),
                };
                FieldType::Sequence {
                    element: Box::new(field_type(sequence.element, None)?),
                    length_name,
                    align_bits: alignment(sequence.align_bits),
                    encoding: encoding(sequence.encoding),
                }
            }
            _ => return None,
        })
    }
}

/// 0 stands for the elements' own alignment, which is a byte on this machine.
fn alignment(align_bits: c_uint) -> u32 {
    align_bits.max(8)
}

/// # Safety
/// As [`field_type`].
unsafe fn integer(at: *const TypeCommon) -> Option<IntegerType> {
    // SAFETY: the kind says which structure is there.
    let this = unsafe {
        if at.as_ref()?.kind != TYPE_INTEGER {
            return None;
        }
        &*at.cast::<TypeInteger>()
    };
    Some(IntegerType {
        size_bits: this.size_bits,
        align_bits: this.align_bits,
        signed: this.flags & 1 != 0,
        reverse_byte_order: this.flags & 2 != 0,
        base: this.base,
    })
}

/// # Safety
/// As [`describe`].
unsafe fn entries(desc: &EnumDesc) -> Option<Vec<EnumEntry>> {
    let value = |v: crate::layout::EnumValue| EnumValue { bits: v.bits, signed: v.flags & 1 != 0 };
    let mut entries = Vec::new();
    for i in 0..desc.entry_count as usize {
        // SAFETY: the caller's promise.
        let entry = unsafe { (*desc.entries.add(i)).as_ref()? };
        entries.push(EnumEntry {
            // SAFETY: as above.
            label: unsafe { text(entry.label) },
            start: value(entry.start),
            end: value(entry.end),
            auto: entry.options & 1 != 0,
        });
    }
    Some(entries)
}
