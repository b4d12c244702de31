//! CTF 2 field classes: JSON objects to field class trees.

use std::collections::HashMap;
use std::sync::Arc;

use super::object::{Object, Result, Source};
use super::parse::{Json, Value};
use crate::limits::NESTING_MAX;
use crate::model::{
    ArrayClass, Attributes, BitArrayClass, BitFlag, BitLayout, BlobClass, ByteOrder, Datum, DisplayBase,
    FieldClass, FieldKind, FieldRef, FloatClass, IntRange, IntegerClass, IntegerLayout, Length, Mapping,
    Member, OptionalClass, RawPath, Role, Roles, Scope, StringClass, StringEncoding, StringExtent,
    StructClass, VariantClass, VariantOption,
};

/// Field classes by the name of their alias.
pub(super) type Aliases = HashMap<String, Arc<FieldClass>>;

/// Makes field classes.
pub(super) struct Maker<'a, 's> {
    pub source: &'a mut Source<'s>,
    pub aliases: &'a Aliases,
    pub depth: usize,
}

impl Maker<'_, '_> {
    /// The class of a JSON value: an object, or the name of an alias.
    pub(super) fn make(&mut self, json: &Json) -> Result<Arc<FieldClass>> {
        if let Value::Text(name) = &json.value {
            return match self.aliases.get(name) {
                Some(class) => Ok(Arc::clone(class)),
                None => self.source.fail(json.at, format!("no field class alias named `{name}`")),
            };
        }
        if self.depth == NESTING_MAX {
            return self.source.fail(json.at, "field classes are nested too deeply");
        }
        self.depth += 1;
        let class = self.make_object(json);
        self.depth -= 1;
        class.map(Arc::new)
    }

    fn make_object(&mut self, json: &Json) -> Result<FieldClass> {
        let mut object = self.source.object(json)?;
        let kind_json = object.need(self.source, "type")?;
        let kind_name = self.source.text(kind_json)?;
        let attributes = attributes(self.source, &mut object)?;
        refuse_extensions(self.source, &mut object)?;
        let (kind, align) = match kind_name {
            "fixed-length-bit-array" => self.bits(&mut object, false)?,
            "fixed-length-bit-map" => self.bits(&mut object, true)?,
            "fixed-length-boolean" => {
                let (layout, align) = self.layout(&mut object)?;
                (FieldKind::Bool(layout), align)
            }
            "fixed-length-unsigned-integer" => self.fixed_integer(&mut object, false, false)?,
            "fixed-length-signed-integer" => self.fixed_integer(&mut object, true, false)?,
            "fixed-length-unsigned-enumeration" if self.source.lenient => {
                self.fixed_integer(&mut object, false, true)?
            }
            "fixed-length-signed-enumeration" if self.source.lenient => {
                self.fixed_integer(&mut object, true, true)?
            }
            "fixed-length-floating-point-number" => self.float(&mut object)?,
            "variable-length-unsigned-integer" => self.variable_integer(&mut object, false, false)?,
            "variable-length-signed-integer" => self.variable_integer(&mut object, true, false)?,
            "variable-length-unsigned-enumeration" if self.source.lenient => {
                self.variable_integer(&mut object, false, true)?
            }
            "variable-length-signed-enumeration" if self.source.lenient => {
                self.variable_integer(&mut object, true, true)?
            }
            "null-terminated-string" => self.text(&mut object, None)?,
            "static-length-string" => {
                let length = self.static_length(&mut object)?;
                self.text(&mut object, Some(length))?
            }
            "dynamic-length-string" => {
                let length = self.dynamic_length(&mut object)?;
                self.text(&mut object, Some(length))?
            }
            "static-length-blob" => {
                let length = self.static_length(&mut object)?;
                self.blob(&mut object, length)?
            }
            "dynamic-length-blob" => {
                let length = self.dynamic_length(&mut object)?;
                self.blob(&mut object, length)?
            }
            "structure" => self.structure(&mut object)?,
            "static-length-array" => {
                let length = self.static_length(&mut object)?;
                self.array(&mut object, length)?
            }
            "dynamic-length-array" => {
                let length = self.dynamic_length(&mut object)?;
                self.array(&mut object, length)?
            }
            "optional" => self.optional(&mut object)?,
            "variant" => self.variant(&mut object)?,
            other => {
                return self.source.fail(kind_json.at, format!("unknown field class type `{other}`"));
            }
        };
        self.source.finish(object)?;
        let mut class = FieldClass::new(kind, align);
        class.attributes = attributes;
        Ok(class)
    }

    /// Length, orders and alignment of a fixed-length field.
    fn layout(&mut self, object: &mut Object<'_>) -> Result<(BitLayout, u32)> {
        let length = object.need(self.source, "length")?;
        let size = self.source.unsigned(length)?;
        if !(1..=64).contains(&size) {
            return self.source.fail(length.at, format!("length of {size} bits is not in 1 to 64"));
        }
        let (byte_order, reversed) = self.orders(object)?;
        let align = self.alignment(object, "alignment")?;
        let layout = BitLayout { size_bits: size as u32, byte_order, reversed };
        Ok((layout, align))
    }

    fn orders(&mut self, object: &mut Object<'_>) -> Result<(ByteOrder, bool)> {
        let json = object.need(self.source, "byte-order")?;
        let byte_order = match self.source.text(json)? {
            "little-endian" => ByteOrder::Little,
            "big-endian" => ByteOrder::Big,
            other => {
                return self.source.fail(json.at, format!("unknown byte order `{other}`"));
            }
        };
        let first_to_last = byte_order == ByteOrder::Little;
        let reversed = match object.take("bit-order") {
            None => false,
            Some(json) => match self.source.text(json)? {
                "first-to-last" => !first_to_last,
                "last-to-first" => first_to_last,
                other => {
                    return self.source.fail(json.at, format!("unknown bit order `{other}`"));
                }
            },
        };
        Ok((byte_order, reversed))
    }

    fn alignment(&mut self, object: &mut Object<'_>, key: &str) -> Result<u32> {
        let Some(json) = object.take(key) else {
            return Ok(1);
        };
        let value = self.source.unsigned(json)?;
        match u32::try_from(value) {
            Ok(align) if align.is_power_of_two() => Ok(align),
            _ => self.source.fail(json.at, format!("alignment {value} is not a power of two")),
        }
    }

    fn bits(&mut self, object: &mut Object<'_>, map: bool) -> Result<(FieldKind, u32)> {
        let (layout, align) = self.layout(object)?;
        let mut flags = Vec::new();
        if map {
            let json = object.need(self.source, "flags")?;
            let Value::Map(entries) = &json.value else {
                return self.source.fail(json.at, "expected an object");
            };
            for (label, ranges) in entries {
                flags.push(BitFlag { label: label.clone(), ranges: self.ranges(ranges)? });
            }
            if flags.is_empty() {
                return self.source.fail(json.at, "a bit map needs at least one flag");
            }
        }
        Ok((FieldKind::BitArray(BitArrayClass { layout, flags }), align))
    }

    fn fixed_integer(
        &mut self,
        object: &mut Object<'_>,
        signed: bool,
        is_enum: bool,
    ) -> Result<(FieldKind, u32)> {
        let (layout, align) = self.layout(object)?;
        let layout = IntegerLayout::Fixed(layout);
        let class = self.integer(object, layout, signed, is_enum)?;
        Ok((FieldKind::Integer(class), align))
    }

    fn variable_integer(
        &mut self,
        object: &mut Object<'_>,
        signed: bool,
        is_enum: bool,
    ) -> Result<(FieldKind, u32)> {
        let class = self.integer(object, IntegerLayout::Leb128, signed, is_enum)?;
        Ok((FieldKind::Integer(class), 8))
    }

    fn integer(
        &mut self,
        object: &mut Object<'_>,
        layout: IntegerLayout,
        signed: bool,
        is_enum: bool,
    ) -> Result<IntegerClass> {
        let base = match object.take("preferred-display-base") {
            None => DisplayBase::Decimal,
            Some(json) => match self.source.unsigned(json)? {
                2 => DisplayBase::Binary,
                8 => DisplayBase::Octal,
                10 => DisplayBase::Decimal,
                16 => DisplayBase::Hexadecimal,
                other => {
                    return self.source.fail(json.at, format!("display base {other} is not 2, 8, 10 or 16"));
                }
            },
        };
        let mut mappings = Vec::new();
        let mut is_enum = is_enum;
        if let Some(json) = object.take("mappings") {
            let Value::Map(entries) = &json.value else {
                return self.source.fail(json.at, "expected an object");
            };
            is_enum |= !entries.is_empty();
            for (label, ranges) in entries {
                mappings.push(Mapping { label: label.clone(), ranges: self.ranges(ranges)? });
            }
        }
        let roles = if signed { Roles::default() } else { self.roles(object)? };
        Ok(IntegerClass { layout, signed, base, is_enum, mappings, roles, mapped_clock: None })
    }

    fn float(&mut self, object: &mut Object<'_>) -> Result<(FieldKind, u32)> {
        let length = object.need(self.source, "length")?;
        let size = self.source.unsigned(length)?;
        if !matches!(size, 16 | 32 | 64 | 128) {
            return self
                .source
                .fail(length.at, format!("floating point length of {size} bits is not supported"));
        }
        let (byte_order, reversed) = self.orders(object)?;
        let align = self.alignment(object, "alignment")?;
        let layout = BitLayout { size_bits: size as u32, byte_order, reversed };
        Ok((FieldKind::Float(FloatClass { layout }), align))
    }

    fn text(&mut self, object: &mut Object<'_>, length: Option<Length>) -> Result<(FieldKind, u32)> {
        let encoding = match object.take("encoding") {
            None => StringEncoding::Utf8,
            Some(json) => match self.source.text(json)? {
                "utf-8" => StringEncoding::Utf8,
                "utf-16be" => StringEncoding::Utf16Be,
                "utf-16le" => StringEncoding::Utf16Le,
                "utf-32be" => StringEncoding::Utf32Be,
                "utf-32le" => StringEncoding::Utf32Le,
                other => {
                    return self.source.fail(json.at, format!("unknown string encoding `{other}`"));
                }
            },
        };
        let extent = length.map_or(StringExtent::NullTerminated, StringExtent::Sized);
        Ok((FieldKind::String(StringClass { extent, encoding }), 8))
    }

    fn blob(&mut self, object: &mut Object<'_>, length: Length) -> Result<(FieldKind, u32)> {
        let media_type = object.text(self.source, "media-type")?;
        let at = object.at;
        let roles = match length {
            Length::Static(_) => self.roles(object)?,
            Length::Dynamic(_) => Roles::default(),
        };
        if roles.contains(Role::MetadataUuid) && length != Length::Static(16) {
            return self.source.fail(at, "a UUID must be of 16 bytes");
        }
        let class = BlobClass {
            length,
            media_type: media_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
            roles,
        };
        Ok((FieldKind::Blob(class), 8))
    }

    fn static_length(&mut self, object: &mut Object<'_>) -> Result<Length> {
        let json = object.need(self.source, "length")?;
        Ok(Length::Static(self.source.unsigned(json)?))
    }

    fn dynamic_length(&mut self, object: &mut Object<'_>) -> Result<Length> {
        let json = object.need(self.source, "length-field-location")?;
        Ok(Length::Dynamic(self.location(json)?))
    }

    /// A field location; drafts write a list whose first item may be the scope.
    fn location(&mut self, json: &Json) -> Result<FieldRef> {
        let (origin, path_json) = if let (Value::List(items), true) = (&json.value, self.source.lenient) {
            let origin = items.first().and_then(|item| match &item.value {
                Value::Text(text) => scope_of(text),
                _ => None,
            });
            let rest = if origin.is_some() { &items[1..] } else { &items[..] };
            (origin, rest)
        } else {
            let mut object = self.source.object(json)?;
            let origin = match object.take("origin") {
                None => None,
                Some(json) => {
                    let text = self.source.text(json)?;
                    let Some(scope) = scope_of(text) else {
                        return self.source.fail(json.at, format!("unknown field location origin `{text}`"));
                    };
                    Some(scope)
                }
            };
            let path = object.need(self.source, "path")?;
            let path = self.source.list(path)?;
            self.source.finish(object)?;
            (origin, path)
        };
        let mut path = Vec::new();
        for item in path_json {
            path.push(match &item.value {
                Value::Null => None,
                _ => Some(self.source.text(item)?.to_owned()),
            });
        }
        if !matches!(path.last(), Some(Some(_))) {
            return self.source.fail(json.at, "field location must end with a name");
        }
        Ok(FieldRef::unresolved(RawPath::Json { origin, path }, json.at))
    }

    fn structure(&mut self, object: &mut Object<'_>) -> Result<(FieldKind, u32)> {
        let mut align = self.alignment(object, "minimum-alignment")?;
        let mut members: Vec<Member> = Vec::new();
        let mut names = std::collections::HashSet::new();
        if let Some(json) = object.take("member-classes") {
            for json in self.source.list(json)? {
                let mut member = self.source.object(json)?;
                let name_json = member.need(self.source, "name")?;
                let name = self.source.text(name_json)?.to_owned();
                if !names.insert(name.clone()) {
                    return self.source.fail(
                        name_json.at,
                        format!("Duplicate structure field member class with name `{name}`"),
                    );
                }
                let class_json = member.need(self.source, "field-class")?;
                let class = self.make(class_json)?;
                let attributes = attributes(self.source, &mut member)?;
                refuse_extensions(self.source, &mut member)?;
                self.source.finish(member)?;
                align = align.max(class.alignment_bits);
                members.push(Member { raw_name: name.clone(), name, class, attributes });
            }
        }
        Ok((FieldKind::Struct(StructClass { members }), align))
    }

    fn array(&mut self, object: &mut Object<'_>, length: Length) -> Result<(FieldKind, u32)> {
        let align = self.alignment(object, "minimum-alignment")?;
        let element = object.need(self.source, "element-field-class")?;
        let element = self.make(element)?;
        let align = align.max(element.alignment_bits);
        Ok((FieldKind::Array(ArrayClass { element, length }), align))
    }

    fn optional(&mut self, object: &mut Object<'_>) -> Result<(FieldKind, u32)> {
        let content = object.need(self.source, "field-class")?;
        let content = self.make(content)?;
        let selector = object.need(self.source, "selector-field-location")?;
        let selector = self.location(selector)?;
        let ranges = match object.take("selector-field-ranges") {
            Some(json) => self.ranges(json)?,
            None => Vec::new(),
        };
        let class = OptionalClass { content, selector, ranges };
        Ok((FieldKind::Optional(class), 1))
    }

    fn variant(&mut self, object: &mut Object<'_>) -> Result<(FieldKind, u32)> {
        let selector = object.need(self.source, "selector-field-location")?;
        let selector = self.location(selector)?;
        let options_json = object.need(self.source, "options")?;
        let mut options: Vec<VariantOption> = Vec::new();
        for json in self.source.list(options_json)? {
            let mut option = self.source.object(json)?;
            let name = option.text(self.source, "name")?;
            let class_json = option.need(self.source, "field-class")?;
            let class = self.make(class_json)?;
            let ranges_json = option.need(self.source, "selector-field-ranges")?;
            let ranges = self.ranges(ranges_json)?;
            let attributes = attributes(self.source, &mut option)?;
            refuse_extensions(self.source, &mut option)?;
            self.source.finish(option)?;
            let meets = |other: &VariantOption| {
                other.ranges.iter().any(|a| ranges.iter().any(|b| a.lower <= b.upper && b.lower <= a.upper))
            };
            if options.iter().any(meets) {
                return self.source.fail(ranges_json.at, "ranges of two options intersect");
            }
            options.push(VariantOption { raw_name: name.clone(), name, class, ranges, attributes });
        }
        if options.is_empty() {
            return self.source.fail(options_json.at, "variant without options");
        }
        let class = VariantClass { options, selector };
        Ok((FieldKind::Variant(class), 1))
    }

    /// A set of ranges: `[[lower, upper], …]`; drafts may write a single value.
    fn ranges(&mut self, json: &Json) -> Result<Vec<IntRange>> {
        let mut out = Vec::new();
        for json in self.source.list(json)? {
            if self.source.lenient && matches!(json.value, Value::Unsigned(_) | Value::Signed(_)) {
                let value = self.source.integer(json)?;
                out.push(IntRange { lower: value, upper: value });
                continue;
            }
            let items = self.source.list(json)?;
            let (lower, upper) = match items {
                [lower, upper] => (self.source.integer(lower)?, self.source.integer(upper)?),
                [only] if self.source.lenient => {
                    let value = self.source.integer(only)?;
                    (value, value)
                }
                _ => return self.source.fail(json.at, "a range has two integers"),
            };
            if lower > upper {
                return self.source.fail(json.at, "range ends before it begins");
            }
            out.push(IntRange { lower, upper });
        }
        if out.is_empty() {
            return self.source.fail(json.at, "a set of ranges can not be empty");
        }
        Ok(out)
    }

    fn roles(&mut self, object: &mut Object<'_>) -> Result<Roles> {
        let mut roles = Roles::default();
        let Some(json) = object.take("roles") else {
            return Ok(roles);
        };
        for json in self.source.list(json)? {
            roles.insert(match self.source.text(json)? {
                "packet-magic-number" => Role::PacketMagic,
                "metadata-stream-uuid" => Role::MetadataUuid,
                "data-stream-class-id" => Role::StreamClassId,
                "data-stream-id" => Role::StreamId,
                "packet-total-length" => Role::PacketSize,
                "packet-content-length" => Role::ContentSize,
                "default-clock-timestamp" => Role::Timestamp,
                "packet-end-default-clock-timestamp" => Role::EndTimestamp,
                "discarded-event-record-counter-snapshot" => Role::EventsDiscarded,
                "packet-sequence-number" => Role::PacketSequence,
                "event-record-class-id" => Role::EventClassId,
                other => return self.source.fail(json.at, format!("unknown role `{other}`")),
            });
        }
        Ok(roles)
    }
}

fn scope_of(text: &str) -> Option<Scope> {
    Some(match text {
        "packet-header" => Scope::PacketHeader,
        "packet-context" => Scope::PacketContext,
        "event-record-header" => Scope::EventHeader,
        "event-record-common-context" => Scope::CommonContext,
        "event-record-specific-context" => Scope::SpecificContext,
        "event-record-payload" => Scope::Payload,
        _ => return None,
    })
}

/// Takes the user attributes.
pub(super) fn attributes(source: &Source<'_>, object: &mut Object<'_>) -> Result<Attributes> {
    let mut json = object.take("attributes");
    if json.is_none() && source.lenient {
        json = object.take("user-attributes");
    }
    let Some(json) = json else {
        return Ok(Attributes::new());
    };
    match json.datum() {
        Datum::Map(entries) => Ok(entries),
        _ => source.fail(json.at, "expected an object"),
    }
}

/// Extensions change how data is read: those that are not known can not be passed over.
pub(super) fn refuse_extensions(source: &Source<'_>, object: &mut Object<'_>) -> Result<()> {
    let Some(json) = object.take("extensions") else {
        return Ok(());
    };
    match &json.value {
        Value::Map(entries) => match entries.first() {
            None => Ok(()),
            Some((name, value)) => source.fail(value.at, format!("unknown extension `{name}`")),
        },
        _ => source.fail(json.at, "expected an object"),
    }
}
