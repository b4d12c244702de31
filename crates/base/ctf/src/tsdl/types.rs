//! Type specifications of TSDL to field classes, with C's scopes of names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ast::{ArrayLength, Attribute, Declarator, Enumerator, Expr, Item, Spec, SpecKind};
use crate::error::{MetadataError, Warning};
use crate::model::{
    ArrayClass, Attributes, BitLayout, ByteOrder, ClockClass, DisplayBase, EnvValue, FieldClass, FieldKind,
    FieldRef, FloatClass, IntRange, IntegerClass, IntegerLayout, Length, Mapping, Member, RawPath, Roles,
    StringClass, StringEncoding, StringExtent, StructClass, VariantClass, VariantOption,
};

type Result<T> = std::result::Result<T, Box<MetadataError>>;

/// A named type: integers keep that they have a text encoding, which only arrays look at.
#[derive(Debug, Clone)]
pub(super) struct Type {
    pub class: Arc<FieldClass>,
    text: bool,
    /// An untagged variant must get its tag where it is used.
    untagged: bool,
}

impl Type {
    fn plain(class: FieldClass) -> Self {
        Self { class: Arc::new(class), text: false, untagged: false }
    }
}

#[derive(Debug, Default)]
struct Names {
    aliases: HashMap<String, Type>,
    structs: HashMap<String, Type>,
    variants: HashMap<String, Type>,
    enums: HashMap<String, Type>,
}

/// The names in scope and what types need to know of the trace.
#[derive(Debug, Default)]
pub(super) struct Types {
    scopes: Vec<Names>,
    pub byte_order: Option<ByteOrder>,
    pub environment: Vec<(String, EnvValue)>,
    pub clocks: Vec<Arc<ClockClass>>,
    pub warnings: Vec<Warning>,
    /// The text that the tree was parsed from, for errors.
    pub text: String,
}

/// Attributes among which a duplicate is looked for: more than there are known ones.
const ATTRIBUTES_CHECKED: usize = 64;

/// Which of the tables of names.
#[derive(Clone, Copy)]
enum Table {
    Structs,
    Variants,
    Enums,
}

impl Names {
    fn table(&mut self, table: Table) -> &mut HashMap<String, Type> {
        match table {
            Table::Structs => &mut self.structs,
            Table::Variants => &mut self.variants,
            Table::Enums => &mut self.enums,
        }
    }
}

impl Types {
    pub(super) fn new() -> Self {
        Self { scopes: vec![Names::default()], ..Self::default() }
    }

    pub(super) fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T> {
        Err(MetadataError::at(&self.text, at, message))
    }

    pub(super) fn warn(&mut self, at: usize, message: impl Into<String>) {
        let error = MetadataError::at(&self.text, at, message);
        self.warnings.push(Warning { line: error.line, message: error.message });
    }

    pub(super) fn push_scope(&mut self) {
        self.scopes.push(Names::default());
    }

    pub(super) fn pop_scope(&mut self) {
        self.scopes.pop();
    }

    /// Enters a `typedef`, `typealias` or tagged type; false for items that declare no type.
    pub(super) fn declare(&mut self, item: &Item<'_>) -> Result<bool> {
        match item {
            Item::TypeAlias { spec, name, at } => {
                let mut made = self.make(spec)?;
                if made.untagged {
                    return self.fail(*at, "an alias of a variant without a tag is not allowed");
                }
                if name.ends_with('*') {
                    set_base_16(&mut made);
                }
                self.enter_alias(name.to_string(), made, *at)?;
                Ok(true)
            }
            Item::Typedef { spec, declarators } => {
                for declarator in declarators {
                    let made = self.declared(spec, declarator)?;
                    self.enter_alias(declarator.name.to_string(), made, declarator.at)?;
                }
                Ok(true)
            }
            Item::Declaration { spec, declarators } if declarators.is_empty() => {
                self.make(spec)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn enter_alias(&mut self, name: String, made: Type, at: usize) -> Result<()> {
        let name = normal_name(&name);
        let duplicate = match self.scopes.last_mut() {
            Some(scope) => scope.aliases.insert(name.to_string(), made).is_some(),
            None => false,
        };
        if duplicate {
            return self.fail(at, format!("type `{name}` is declared twice in one scope"));
        }
        Ok(())
    }

    fn enter_tag(&mut self, table: Table, name: &str, made: &Type, at: usize) -> Result<()> {
        let duplicate = match self.scopes.last_mut() {
            Some(scope) => scope.table(table).insert(name.to_owned(), made.clone()).is_some(),
            None => false,
        };
        if duplicate {
            return self.fail(at, format!("`{name}` is declared twice in one scope"));
        }
        Ok(())
    }

    fn find_tag(&mut self, table: Table, name: &str, at: usize) -> Result<Type> {
        for scope in self.scopes.iter_mut().rev() {
            if let Some(found) = scope.table(table).get(name) {
                return Ok(found.clone());
            }
        }
        self.fail(at, format!("`{name}` is not declared"))
    }

    fn find_alias(&self, name: &str) -> Option<Type> {
        self.scopes.iter().rev().find_map(|scope| scope.aliases.get(name)).cloned()
    }

    /// The type of a declarator: pointers and arrays around the specified type.
    fn declared(&mut self, spec: &Spec<'_>, declarator: &Declarator<'_>) -> Result<Type> {
        let mut made = match (&spec.kind, declarator.pointers) {
            (SpecKind::Alias(name), pointers) if pointers > 0 => {
                let full = normal_name(&format!("{name}{}", " *".repeat(pointers)));
                match self.find_alias(&full) {
                    Some(found) => found,
                    None => {
                        let mut made = self.make(spec)?;
                        set_base_16(&mut made);
                        made
                    }
                }
            }
            _ => self.make(spec)?,
        };
        if made.untagged && !declarator.arrays.is_empty() {
            return self.fail(declarator.at, "variant without a tag");
        }
        for length in declarator.arrays.iter().rev() {
            made = self.array(made, length, declarator.at)?;
        }
        Ok(made)
    }

    fn array(&self, element: Type, length: &ArrayLength<'_>, at: usize) -> Result<Type> {
        let length = match length {
            ArrayLength::Int(length) => Length::Static(*length),
            ArrayLength::Path(path) => match path.strip_prefix("env.") {
                Some(name) => Length::Static(self.env_length(name, at)?),
                None => Length::Dynamic(FieldRef::unresolved(RawPath::Tsdl(path.to_string()), at)),
            },
        };
        if element.text {
            let kind = FieldKind::String(StringClass {
                extent: StringExtent::Sized(length),
                encoding: StringEncoding::Utf8,
            });
            return Ok(Type::plain(FieldClass::new(kind, 8)));
        }
        let align = element.class.alignment_bits;
        let kind = FieldKind::Array(ArrayClass { element: element.class, length });
        Ok(Type::plain(FieldClass::new(kind, align)))
    }

    fn env_length(&self, name: &str, at: usize) -> Result<u64> {
        let value = self.environment.iter().find(|(key, _)| key == name);
        match value {
            Some((_, EnvValue::Integer(value))) => match u64::try_from(*value) {
                Ok(value) => Ok(value),
                Err(_) => self.fail(at, format!("array length `env.{name}` is negative")),
            },
            _ => self.fail(at, format!("`env.{name}` is not an integer of the environment")),
        }
    }

    /// The type that a specification means; a tagged one is entered by its name.
    pub(super) fn make(&mut self, spec: &Spec<'_>) -> Result<Type> {
        let at = spec.at;
        match &spec.kind {
            SpecKind::Alias(name) => {
                let name = normal_name(name);
                let bare = || {
                    let words: Vec<&str> = name.split(' ').filter(|w| *w != "const").collect();
                    words.join(" ")
                };
                match self.find_alias(&name).or_else(|| self.find_alias(&bare())) {
                    Some(found) => Ok(found),
                    None => self.fail(at, format!("type `{name}` is not declared")),
                }
            }
            SpecKind::Integer(attributes) => self.integer(at, attributes),
            SpecKind::Float(attributes) => self.float(at, attributes),
            SpecKind::Text(attributes) => self.text(attributes),
            SpecKind::Struct { name, body, align } => {
                self.structure(at, name.as_deref(), body.as_deref(), *align)
            }
            SpecKind::Variant { name, tag, body } => {
                self.variant(at, name.as_deref(), tag.as_deref(), body.as_deref())
            }
            SpecKind::Enum { name, container, body } => {
                self.enumeration(at, name.as_deref(), container.as_deref(), body.as_deref())
            }
        }
    }

    fn integer(&mut self, at: usize, attributes: &[Attribute<'_>]) -> Result<Type> {
        let mut size = None;
        let mut align = None;
        let mut signed = false;
        let mut order = None;
        let mut base = DisplayBase::Decimal;
        let mut text = false;
        let mut mapped_clock = None;
        self.unique(attributes)?;
        for attribute in attributes {
            let value = &attribute.value;
            match &*attribute.name {
                "size" => size = Some(self.unsigned(attribute)?),
                "align" => align = Some(self.alignment(attribute)?),
                "signed" => signed = self.boolean(attribute)?,
                "byte_order" => order = self.order(attribute, true)?,
                "base" => base = self.base(attribute)?,
                "encoding" => text = self.encoding(attribute)?,
                "map" => match value {
                    Expr::Path(path) => mapped_clock = self.mapped_clock(attribute.at, path)?,
                    _ => return self.fail(attribute.at, "`map` must name a clock's value"),
                },
                name => self.warn(attribute.at, format!("unknown attribute `{name}` in integer type")),
            }
        }
        let Some(size) = size else {
            return self.fail(at, "integer type without `size`");
        };
        if !(1..=64).contains(&size) {
            return self.fail(at, format!("integer size of {size} bits is not in 1 to 64"));
        }
        let default_align = if size % 8 == 0 { 8 } else { 1 };
        let align = align.unwrap_or(default_align);
        let kind = FieldKind::Integer(IntegerClass {
            layout: IntegerLayout::Fixed(BitLayout {
                size_bits: size as u32,
                byte_order: self.native(order, at)?,
                reversed: false,
            }),
            signed,
            base,
            is_enum: false,
            mappings: Vec::new(),
            roles: Roles::default(),
            mapped_clock,
        });
        Ok(Type {
            class: Arc::new(FieldClass::new(kind, align)),
            text: text && size == 8 && align == 8,
            untagged: false,
        })
    }

    /// Name of the clock in `clock.NAME.value`; other mappings are warned about.
    fn mapped_clock(&mut self, at: usize, path: &str) -> Result<Option<String>> {
        let parts: Vec<&str> = path.split('.').collect();
        let ["clock", name, "value"] = parts.as_slice() else {
            self.warn(at, format!("`map = {path}` does not name a clock's value"));
            return Ok(None);
        };
        if !self.clocks.iter().any(|clock| clock.id == *name) {
            return self.fail(at, format!("clock `{name}` is not declared"));
        }
        Ok(Some((*name).to_owned()))
    }

    fn float(&mut self, at: usize, attributes: &[Attribute<'_>]) -> Result<Type> {
        let (mut exponent, mut mantissa) = (None, None);
        let mut align = 8;
        let mut order = None;
        self.unique(attributes)?;
        for attribute in attributes {
            match &*attribute.name {
                "exp_dig" => exponent = Some(self.unsigned(attribute)?),
                "mant_dig" => mantissa = Some(self.unsigned(attribute)?),
                "byte_order" => order = self.order(attribute, true)?,
                "align" => align = self.alignment(attribute)?,
                name => self.warn(attribute.at, format!("unknown attribute `{name}` in floating point type")),
            }
        }
        let size_bits = match (exponent, mantissa) {
            (Some(5), Some(11)) => 16,
            (Some(8), Some(24)) => 32,
            (Some(11), Some(53)) => 64,
            (Some(15), Some(113)) => 128,
            (None, _) | (_, None) => {
                return self.fail(at, "floating point type needs `exp_dig` and `mant_dig`");
            }
            _ => {
                return self
                    .fail(at, "floating point sizes are 5/11, 8/24, 11/53 and 15/113 (exponent/mantissa)");
            }
        };
        let kind = FieldKind::Float(FloatClass {
            layout: BitLayout { size_bits, byte_order: self.native(order, at)?, reversed: false },
        });
        Ok(Type::plain(FieldClass::new(kind, align)))
    }

    fn text(&mut self, attributes: &[Attribute<'_>]) -> Result<Type> {
        self.unique(attributes)?;
        for attribute in attributes {
            if attribute.name == "encoding" {
                self.encoding(attribute)?;
            } else {
                let name = &attribute.name;
                self.warn(attribute.at, format!("unknown attribute `{name}` in string type"));
            }
        }
        let kind = FieldKind::String(StringClass {
            extent: StringExtent::NullTerminated,
            encoding: StringEncoding::Utf8,
        });
        Ok(Type::plain(FieldClass::new(kind, 8)))
    }

    fn structure(
        &mut self,
        at: usize,
        name: Option<&str>,
        body: Option<&[Item<'_>]>,
        align: Option<u64>,
    ) -> Result<Type> {
        let min_align = match align {
            None => 1,
            Some(align) => match u32::try_from(align) {
                Ok(align) if align.is_power_of_two() => align,
                _ => return self.fail(at, format!("alignment {align} is not a power of two")),
            },
        };
        let Some(body) = body else {
            let mut found = self.find_tag(Table::Structs, name.unwrap_or_default(), at)?;
            if min_align > found.class.alignment_bits {
                Arc::make_mut(&mut found.class).alignment_bits = min_align;
            }
            return Ok(found);
        };
        let members = self.fields(body, "structure")?;
        let align = members.iter().map(|(_, _, made)| made.class.alignment_bits).fold(min_align, u32::max);
        let members = members
            .into_iter()
            .map(|(raw_name, _, made)| Member {
                name: display_name(&raw_name).to_owned(),
                raw_name,
                class: made.class,
                attributes: Attributes::new(),
            })
            .collect();
        let kind = FieldKind::Struct(StructClass { members });
        let made = Type::plain(FieldClass::new(kind, align));
        if let Some(name) = name {
            self.enter_tag(Table::Structs, name, &made, at)?;
        }
        Ok(made)
    }

    /// The fields of a structure or variant body, names unique.
    fn fields(&mut self, body: &[Item<'_>], what: &str) -> Result<Vec<(String, usize, Type)>> {
        self.push_scope();
        let mut out = Vec::new();
        let mut seen = HashSet::new();
        for item in body {
            if self.declare(item)? {
                continue;
            }
            let Item::Declaration { spec, declarators } = item else {
                return self.fail(0, format!("only fields are allowed in a {what}"));
            };
            for declarator in declarators {
                let made = self.declared(spec, declarator)?;
                if made.untagged {
                    return self.fail(declarator.at, "variant without a tag");
                }
                let name = &declarator.name;
                if !seen.insert(display_name(name).to_owned()) {
                    return self.fail(
                        declarator.at,
                        format!("Duplicate field `{name}` in {what} (a leading `_` does not count)"),
                    );
                }
                out.push((name.to_string(), declarator.at, made));
            }
        }
        self.pop_scope();
        Ok(out)
    }

    fn variant(
        &mut self,
        at: usize,
        name: Option<&str>,
        tag: Option<&str>,
        body: Option<&[Item<'_>]>,
    ) -> Result<Type> {
        let mut made = match body {
            None => self.find_tag(Table::Variants, name.unwrap_or_default(), at)?,
            Some(body) => {
                let options = self
                    .fields(body, "variant")?
                    .into_iter()
                    .map(|(raw_name, _, made)| VariantOption {
                        name: Some(display_name(&raw_name).to_owned()),
                        raw_name: Some(raw_name),
                        class: made.class,
                        ranges: Vec::new(),
                        attributes: Attributes::new(),
                    })
                    .collect::<Vec<_>>();
                if options.is_empty() {
                    return self.fail(at, "variant without options");
                }
                let kind = FieldKind::Variant(VariantClass {
                    options,
                    selector: FieldRef::unresolved(RawPath::Tsdl(String::new()), at),
                });
                let made = Type { untagged: true, ..Type::plain(FieldClass::new(kind, 1)) };
                if let Some(name) = name {
                    self.enter_tag(Table::Variants, name, &made, at)?;
                }
                made
            }
        };
        if let Some(tag) = tag {
            if let FieldKind::Variant(class) = &mut Arc::make_mut(&mut made.class).kind {
                class.selector = FieldRef::unresolved(RawPath::Tsdl(tag.to_owned()), at);
            }
            made.untagged = false;
        }
        Ok(made)
    }

    fn enumeration(
        &mut self,
        at: usize,
        name: Option<&str>,
        container: Option<&Spec<'_>>,
        body: Option<&[Enumerator<'_>]>,
    ) -> Result<Type> {
        let Some(body) = body else {
            return self.find_tag(Table::Enums, name.unwrap_or_default(), at);
        };
        let made = match container {
            Some(spec) => self.make(spec)?,
            None => match self.find_alias("int") {
                Some(found) => found,
                None => {
                    return self.fail(at, "enumeration without a container needs the type `int`");
                }
            },
        };
        let mut class = (*made.class).clone();
        let FieldKind::Integer(integer) = &mut class.kind else {
            return self.fail(at, "the container of an enumeration must be an integer");
        };
        if integer.is_enum {
            return self.fail(at, "the container of an enumeration must be an integer");
        }
        integer.is_enum = true;
        let mut next = 0i128;
        let mut mappings: Vec<Mapping> = Vec::new();
        for enumerator in body {
            let (lower, upper) = enumerator.values.unwrap_or((next, next));
            if upper < lower {
                return self.fail(enumerator.at, "enumeration range ends before it begins");
            }
            let (least, most) = limits(integer);
            if lower < least || upper > most {
                let label = &enumerator.label;
                self.warn(
                    enumerator.at,
                    format!("range of `{label}` does not fit the container of the enumeration"),
                );
            }
            next = upper + 1;
            let range = IntRange { lower, upper };
            match mappings.iter_mut().find(|m| m.label == enumerator.label) {
                Some(mapping) => mapping.ranges.push(range),
                None => mappings.push(Mapping { label: enumerator.label.to_string(), ranges: vec![range] }),
            }
        }
        integer.mappings = mappings;
        let made = Type::plain(class);
        if let Some(name) = name {
            self.enter_tag(Table::Enums, name, &made, at)?;
        }
        Ok(made)
    }

    fn unique(&self, attributes: &[Attribute<'_>]) -> Result<()> {
        for (index, attribute) in attributes.iter().enumerate() {
            let name = &attribute.name;
            // Types have few attributes, of which the known ones are all different.
            if attributes[..index.min(ATTRIBUTES_CHECKED)].iter().any(|other| other.name == *name) {
                return self.fail(attribute.at, format!("duplicate attribute `{name}`"));
            }
        }
        Ok(())
    }

    fn unsigned(&self, attribute: &Attribute<'_>) -> Result<u64> {
        match &attribute.value {
            Expr::Int { value, negative: false } => Ok(*value),
            _ => {
                let name = &attribute.name;
                self.fail(attribute.at, format!("`{name}` must be an unsigned integer"))
            }
        }
    }

    fn alignment(&self, attribute: &Attribute<'_>) -> Result<u32> {
        let value = self.unsigned(attribute)?;
        match u32::try_from(value) {
            Ok(align) if align.is_power_of_two() => Ok(align),
            _ => self.fail(attribute.at, format!("alignment {value} is not a power of two")),
        }
    }

    pub(super) fn boolean(&self, attribute: &Attribute<'_>) -> Result<bool> {
        let value = match &attribute.value {
            Expr::Int { value, negative: _ } => match value {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            },
            Expr::Path(word) | Expr::Str(word) => match &**word {
                "true" | "TRUE" => Some(true),
                "false" | "FALSE" => Some(false),
                _ => None,
            },
        };
        match value {
            Some(value) => Ok(value),
            None => {
                let name = &attribute.name;
                self.fail(attribute.at, format!("`{name}` must be true or false"))
            }
        }
    }

    /// A byte order; `None` is the native one.
    pub(super) fn order(&self, attribute: &Attribute<'_>, native_allowed: bool) -> Result<Option<ByteOrder>> {
        let word = match &attribute.value {
            Expr::Path(word) | Expr::Str(word) => &**word,
            Expr::Int { .. } => "",
        };
        match word {
            "be" | "network" => Ok(Some(ByteOrder::Big)),
            "le" => Ok(Some(ByteOrder::Little)),
            "native" if native_allowed => Ok(None),
            _ => self.fail(attribute.at, "`byte_order` must be be, le or network"),
        }
    }

    /// The native order where none is given: there must be one.
    fn native(&self, order: Option<ByteOrder>, at: usize) -> Result<ByteOrder> {
        match order.or(self.byte_order) {
            Some(order) => Ok(order),
            None => self.fail(at, "the trace block gives no `byte_order`"),
        }
    }

    fn base(&self, attribute: &Attribute<'_>) -> Result<DisplayBase> {
        let base = match &attribute.value {
            Expr::Int { value, .. } => match value {
                2 => Some(DisplayBase::Binary),
                8 => Some(DisplayBase::Octal),
                10 => Some(DisplayBase::Decimal),
                16 => Some(DisplayBase::Hexadecimal),
                _ => None,
            },
            Expr::Path(word) | Expr::Str(word) => match &**word {
                "decimal" | "dec" | "d" | "i" | "u" => Some(DisplayBase::Decimal),
                "hexadecimal" | "hex" | "x" | "X" | "p" => Some(DisplayBase::Hexadecimal),
                "octal" | "oct" | "o" => Some(DisplayBase::Octal),
                "binary" | "bin" | "b" => Some(DisplayBase::Binary),
                _ => None,
            },
        };
        match base {
            Some(base) => Ok(base),
            None => self.fail(attribute.at, "`base` must be 2, 8, 10 or 16"),
        }
    }

    /// Whether the encoding makes text of an array.
    fn encoding(&self, attribute: &Attribute<'_>) -> Result<bool> {
        let word = match &attribute.value {
            Expr::Path(word) | Expr::Str(word) => &**word,
            Expr::Int { .. } => "",
        };
        match word {
            "UTF8" | "utf8" | "UTF-8" | "utf-8" | "ASCII" | "ascii" => Ok(true),
            "none" | "NONE" => Ok(false),
            _ => self.fail(attribute.at, "`encoding` must be UTF8, ASCII or none"),
        }
    }
}

/// One leading underscore is not shown.
pub(super) fn display_name(raw: &str) -> &str {
    match raw.strip_prefix('_') {
        Some(rest) if !rest.is_empty() => rest,
        _ => raw,
    }
}

/// Words and stars of a type name, one space between them.
fn normal_name(name: &str) -> String {
    let spaced = name.replace('*', " * ");
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn set_base_16(made: &mut Type) {
    if let FieldKind::Integer(class) = &mut Arc::make_mut(&mut made.class).kind {
        class.base = DisplayBase::Hexadecimal;
    }
}

/// Smallest and largest value of an integer.
fn limits(class: &IntegerClass) -> (i128, i128) {
    let bits = class.size_bits();
    if class.signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}
