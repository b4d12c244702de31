//! The field classes of one scope as TSDL, with the layout that the text describes.
//!
//! A declaration is a type, a name and a suffix of array lengths. Counts and tags of our own are
//! members before the field; where the field is no member of a structure (an element, an option),
//! it is put into one.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::layout::{Form, Layout, Slot, same};
use super::names::{ClockNames, identifier, is_identifier, members, quoted, unique};
use super::tsdl::unchanged;
use crate::decode::{Node, Plan};
use crate::model::{
    BitLayout, ByteOrder, CtfVersion, DisplayBase, FieldClass, FieldKind, FieldPath, FieldRef, IntRange,
    IntegerClass, IntegerLayout, Length, PathItem, RawPath, Role, Scope, SelectorKind, StreamClass,
    StringEncoding, StringExtent, StructClass, TraceClass, VariantClass, VariantOption,
};

/// What the fields of all scopes need to know.
pub(super) struct Scopes<'a> {
    pub class: &'a TraceClass,
    pub clocks: &'a ClockNames,
    /// Byte order of the trace.
    pub order: ByteOrder,
}

impl<'a> Scopes<'a> {
    /// An integer that the source does not have, in this machine's byte order.
    pub(super) fn own_integer(&self, size_bits: u32) -> String {
        let order = match ByteOrder::NATIVE {
            native if native == self.order => "",
            ByteOrder::Big => " byte_order = be;",
            ByteOrder::Little => " byte_order = le;",
        };
        format!("integer {{ size = {size_bits}; align = 8; signed = false;{order} }}")
    }

    /// Writes a scope as `name := struct { … } align(N);`; nothing when it has no fields.
    pub(super) fn scope(
        &self,
        text: &mut String,
        scope: Scope,
        stream: Option<&'a StreamClass>,
        plan: &'a Plan,
        name: &str,
    ) -> Layout {
        if plan.nodes.is_empty() {
            return Layout { same: true, align_max: 1, ..Layout::default() };
        }
        let (body, layout) = self.members(scope, stream, plan);
        let align = layout.slots.first().map_or(1, |slot| slot.align);
        let _ = writeln!(text, "\t{name} := struct {{\n{body}\t}} align({align});");
        layout
    }

    /// The members of a scope's root structure, one a line.
    pub(super) fn members(
        &self,
        scope: Scope,
        stream: Option<&'a StreamClass>,
        plan: &'a Plan,
    ) -> (String, Layout) {
        let mut children = vec![Vec::new(); plan.nodes.len()];
        for node in plan.nodes.iter().skip(1) {
            if let Some(list) = children.get_mut(node.parent) {
                list.push(node.id);
            }
        }
        let mut writer = ScopeWriter {
            shared: self,
            scope,
            stream,
            nodes: &plan.nodes,
            slots: plan.nodes.iter().map(|node| same(&node.class)).collect(),
            children,
            path: Vec::new(),
        };
        let body = match plan.nodes.first().map(|root| &root.class.kind) {
            Some(FieldKind::Struct(class)) => writer.structure(0, class, 2),
            _ => String::new(),
        };
        let slots = writer.slots;
        let all_same = slots.iter().zip(&plan.nodes).all(|(slot, node)| unchanged(slot, node));
        (body, Layout::new(slots, all_same))
    }
}

/// A declaration without its name.
struct Declared {
    /// Members that come before it.
    before: Vec<String>,
    class: String,
    suffix: String,
    /// Alignment in bits.
    align: u64,
}

impl Declared {
    fn plain(class: String, align: u64) -> Self {
        Self { before: Vec::new(), class, suffix: String::new(), align }
    }
}

struct ScopeWriter<'a> {
    shared: &'a Scopes<'a>,
    scope: Scope,
    stream: Option<&'a StreamClass>,
    nodes: &'a [Node],
    slots: Vec<Slot>,
    children: Vec<Vec<usize>>,
    /// The way to the field that is being written.
    path: Vec<PathItem>,
}

impl<'a> ScopeWriter<'a> {
    fn version(&self) -> CtfVersion {
        self.shared.class.version
    }

    /// The members of structure `id`, one a line; sets the structure's alignment.
    fn structure(&mut self, id: usize, class: &'a StructClass, indent: usize) -> String {
        let names = members(class, self.version(), self.scope);
        let mut used: HashSet<String> = names.iter().cloned().collect();
        let mut text = String::new();
        let tabs = "\t".repeat(indent);
        for (index, child) in self.children[id].clone().into_iter().enumerate() {
            let Some(name) = names.get(index) else {
                continue;
            };
            self.path.push(PathItem::Index(index));
            let declared = self.field(child, name, indent, &mut used);
            self.path.pop();
            for line in &declared.before {
                let _ = writeln!(text, "{tabs}{line}");
            }
            let _ = writeln!(text, "{tabs}{} {name}{};", declared.class, declared.suffix);
        }
        text
    }

    /// Declares field `id`, which is a member called `name`.
    fn field(&mut self, id: usize, name: &str, indent: usize, used: &mut HashSet<String>) -> Declared {
        let nodes = self.nodes;
        let class = &*nodes[id].class;
        let align = u64::from(class.alignment_bits);
        match &class.kind {
            FieldKind::BitArray(c) => self.bits(id, &c.layout, align, DisplayBase::Hexadecimal),
            FieldKind::Bool(layout) => {
                let declared = self.bits(id, layout, align, DisplayBase::Decimal);
                // An integer shows every bit, so those of a boolean are written as 0 or 1.
                if let Form::Bool { size, big, reversed } = self.slots[id].form {
                    self.slots[id].form = Form::Fixed { size, big, reversed };
                }
                declared
            }
            FieldKind::Integer(c) => self.integer(id, c, align),
            FieldKind::Float(c) => self.real(id, &c.layout, align),
            FieldKind::String(c) => match &c.extent {
                _ if c.encoding != StringEncoding::Utf8 => {
                    self.slots[id].form = Form::Text { encoding: StringEncoding::Utf8 };
                    Declared::plain("string".into(), align)
                }
                StringExtent::NullTerminated => Declared::plain("string".into(), align),
                StringExtent::Sized(length) => {
                    let byte = "integer { size = 8; align = 8; signed = false; encoding = UTF8; }";
                    self.counted(id, Declared::plain(byte.into(), 8), length, name, used)
                }
            },
            FieldKind::Blob(c) => {
                let byte = "integer { size = 8; align = 8; signed = false; base = 16; }";
                self.counted(id, Declared::plain(byte.into(), 8), &c.length, name, used)
            }
            FieldKind::Struct(c) => {
                let body = self.structure(id, c, indent + 1);
                let tabs = "\t".repeat(indent);
                Declared::plain(format!("struct {{\n{body}{tabs}}} align({align})"), align)
            }
            FieldKind::Array(c) => {
                let element = self.inside(id, 0, PathItem::Element, "element", indent);
                self.counted(id, element, &c.length, name, used)
            }
            FieldKind::Optional(_) => self.optional(id, name, indent, used),
            FieldKind::Variant(c) => self.variant(id, c, name, indent, used),
        }
    }

    /// A field that is no member of a structure: put into one if it needs members before it.
    fn inside(&mut self, id: usize, child: usize, item: PathItem, name: &str, indent: usize) -> Declared {
        let Some(child) = self.children[id].get(child).copied() else {
            return Declared::plain("struct { }".into(), 1);
        };
        self.path.push(item);
        let mut used = HashSet::new();
        let declared = self.field(child, name, indent + 1, &mut used);
        self.path.pop();
        if declared.before.is_empty() {
            return declared;
        }
        let align = declared.align.max(8);
        self.slots[child].align_first = align;
        let tabs = "\t".repeat(indent + 1);
        let mut text = String::from("struct {\n");
        for line in &declared.before {
            let _ = writeln!(text, "{tabs}{line}");
        }
        let _ = writeln!(text, "{tabs}{} {name}{};", declared.class, declared.suffix);
        let _ = write!(text, "{}}} align({align})", "\t".repeat(indent));
        Declared::plain(text, align)
    }

    fn bits(&mut self, id: usize, layout: &BitLayout, align: u64, base: DisplayBase) -> Declared {
        let (layout, align) = self.fixed(id, layout, align);
        Declared::plain(self.integer_text(&layout, align, false, base, false), align)
    }

    /// The layout itself, or one that TSDL can express.
    fn fixed(&mut self, id: usize, layout: &BitLayout, align: u64) -> (BitLayout, u64) {
        if !layout.reversed {
            return (*layout, align);
        }
        let byte_order = self.shared.order;
        let big = byte_order == ByteOrder::Big;
        let align = align.max(8);
        self.slots[id].form = Form::Fixed { size: layout.size_bits, big, reversed: false };
        self.slots[id].align = align;
        (BitLayout { size_bits: layout.size_bits, byte_order, reversed: false }, align)
    }

    fn integer(&mut self, id: usize, class: &IntegerClass, align: u64) -> Declared {
        let (layout, align) = match &class.layout {
            IntegerLayout::Fixed(layout) => self.fixed(id, layout, align),
            IntegerLayout::Leb128 => {
                let byte_order = self.shared.order;
                let big = byte_order == ByteOrder::Big;
                self.slots[id].form = Form::Fixed { size: 64, big, reversed: false };
                (BitLayout { size_bits: 64, byte_order, reversed: false }, align)
            }
        };
        let timed = self.scope != Scope::PacketHeader
            && (class.mapped_clock.is_some()
                || class.roles.contains(Role::Timestamp)
                || class.roles.contains(Role::EndTimestamp));
        let number = self.integer_text(&layout, align, class.signed, class.base, timed);
        if class.mappings.is_empty() {
            return Declared::plain(number, align);
        }
        let mut text = format!("enum : {number} {{ ");
        for mapping in &class.mappings {
            for range in &mapping.ranges {
                let _ = write!(text, "{} = {}, ", quoted(&mapping.label), range_text(range));
            }
        }
        text.push('}');
        Declared::plain(text, align)
    }

    fn integer_text(
        &self,
        layout: &BitLayout,
        align: u64,
        signed: bool,
        base: DisplayBase,
        timed: bool,
    ) -> String {
        let mut text = format!("integer {{ size = {}; align = {align}; signed = {signed};", layout.size_bits);
        self.order(&mut text, layout.byte_order);
        match base {
            DisplayBase::Decimal => {}
            DisplayBase::Binary => text.push_str(" base = 2;"),
            DisplayBase::Octal => text.push_str(" base = 8;"),
            DisplayBase::Hexadecimal => text.push_str(" base = 16;"),
        }
        if let Some(clock) = self.stream.and_then(|stream| stream.clock.as_ref()).filter(|_| timed) {
            let _ = write!(text, " map = clock.{}.value;", self.shared.clocks.get(clock));
        }
        text.push_str(" }");
        text
    }

    fn order(&self, text: &mut String, order: ByteOrder) {
        if order != self.shared.order {
            let name = if order == ByteOrder::Big { "be" } else { "le" };
            let _ = write!(text, " byte_order = {name};");
        }
    }

    fn real(&mut self, id: usize, layout: &BitLayout, align: u64) -> Declared {
        let (mut layout, mut align) = (*layout, align);
        if layout.reversed || !matches!(layout.size_bits, 32 | 64) {
            layout = BitLayout {
                size_bits: if layout.size_bits == 32 { 32 } else { 64 },
                byte_order: self.shared.order,
                reversed: false,
            };
            align = align.max(8);
            let big = layout.byte_order == ByteOrder::Big;
            self.slots[id].form = Form::Real { size: layout.size_bits, big, reversed: false };
            self.slots[id].align = align;
        }
        let (exponent, mantissa) = if layout.size_bits == 32 { (8, 24) } else { (11, 53) };
        let mut text =
            format!("floating_point {{ exp_dig = {exponent}; mant_dig = {mantissa}; align = {align};");
        self.order(&mut text, layout.byte_order);
        text.push_str(" }");
        Declared::plain(text, align)
    }

    /// `length` times `element`.
    fn counted(
        &mut self,
        id: usize,
        element: Declared,
        length: &Length,
        name: &str,
        used: &mut HashSet<String>,
    ) -> Declared {
        // TSDL aligns an array as its element.
        self.slots[id].align = element.align;
        let mut out = Declared { suffix: String::new(), ..element };
        let reference = match length {
            Length::Static(length) => Some(length.to_string()),
            Length::Dynamic(field) => self.reference(field).filter(|_| field.kind == SelectorKind::Unsigned),
        };
        let reference = reference.unwrap_or_else(|| {
            let count = unique(format!("__{}_length", name.trim_start_matches('_')), used);
            out.before.push(format!("{} {count};", self.shared.own_integer(32)));
            self.slots[id].form = Form::Counted;
            count
        });
        let _ = write!(out.suffix, "[{reference}]{}", element.suffix);
        out
    }

    fn optional(&mut self, id: usize, name: &str, indent: usize, used: &mut HashSet<String>) -> Declared {
        let content = self.inside(id, 0, PathItem::Content, "some", indent);
        let tag = self.own_tag(id, name, used, ["none", "some"]);
        let class =
            format!("variant <{}> {{ struct {{ }} none; {} some{}; }}", tag.1, content.class, content.suffix);
        Declared { before: vec![tag.0], class, suffix: String::new(), align: 1 }
    }

    /// A tag of our own: its declaration and its name.
    fn own_tag<'n>(
        &mut self,
        id: usize,
        name: &str,
        used: &mut HashSet<String>,
        labels: impl IntoIterator<Item = &'n str>,
    ) -> (String, String) {
        self.slots[id].form = Form::Tagged;
        let tag = unique(format!("__{}_tag", name.trim_start_matches('_')), used);
        let mut text = format!("enum : {} {{ ", self.shared.own_integer(16));
        for (index, label) in labels.into_iter().enumerate() {
            let _ = write!(text, "{} = {index}, ", quoted(label));
        }
        let _ = write!(text, "}} {tag};");
        (text, tag)
    }

    fn variant(
        &mut self,
        id: usize,
        class: &'a VariantClass,
        name: &str,
        indent: usize,
        used: &mut HashSet<String>,
    ) -> Declared {
        let reusable = self.reusable_options(class);
        let names = reusable.clone().map_or_else(|| option_names(class), |(_, names)| names);
        let mut before = Vec::new();
        let tag = match reusable {
            Some((tag, _)) => tag,
            None => {
                let (line, tag) = self.own_tag(id, name, used, names.iter().map(String::as_str));
                before.push(line);
                tag
            }
        };
        let tabs = "\t".repeat(indent);
        let mut text = format!("variant <{tag}> {{\n");
        for (index, option) in names.iter().enumerate() {
            let declared = self.inside(id, index, PathItem::Index(index), option, indent + 1);
            let _ = writeln!(text, "{tabs}\t{} {option}{};", declared.class, declared.suffix);
        }
        let _ = write!(text, "{tabs}}}");
        Declared { before, class: text, suffix: String::new(), align: 1 }
    }

    /// The tag's reference and the options' names, if the source's selector can be the tag.
    fn reusable_options(&self, class: &VariantClass) -> Option<(String, Vec<String>)> {
        let tag = self.reference(&class.selector)?;
        if self.version() == CtfVersion::V1_8 {
            let names: Option<Vec<String>> = class.options.iter().map(|o| o.raw_name.clone()).collect();
            return names.filter(|names| names.iter().all(|n| is_identifier(n))).map(|names| (tag, names));
        }
        let [path] = class.selector.paths.as_slice() else {
            return None;
        };
        let FieldKind::Integer(selector) = &self.target(path)?.kind else {
            return None;
        };
        let names: Option<Vec<String>> = class.options.iter().map(|o| label_of(selector, o)).collect();
        let names = names?;
        let all_different = names.iter().collect::<HashSet<_>>().len() == names.len();
        all_different.then_some((tag, names))
    }

    /// How TSDL refers to a field from here; `None` when it can not.
    fn reference(&self, field: &FieldRef) -> Option<String> {
        if let RawPath::Tsdl(text) = &field.raw.text {
            return (!text.is_empty()).then(|| text.clone());
        }
        let [path] = field.paths.as_slice() else {
            return None;
        };
        if path.scope != self.scope {
            let prefix = match path.scope {
                Scope::PacketHeader => "trace.packet.header",
                Scope::PacketContext => "stream.packet.context",
                Scope::EventHeader => "stream.event.header",
                Scope::CommonContext => "stream.event.context",
                Scope::SpecificContext => "event.context",
                Scope::Payload => "event.fields",
            };
            return Some(format!("{prefix}.{}", self.names_along(path, 0)?));
        }
        // The longest common way that ends in a structure.
        let shared = path.items.iter().zip(&self.path).take_while(|(a, b)| a == b).count();
        let from = shared.min(path.items.len().checked_sub(1)?);
        let names = self.names_along(path, from)?;
        let first = names.split('.').next()?;
        // Readers look from the inside out: nothing nearer may have the name.
        let hidden = (from + 1..=self.path.len()).any(|depth| {
            let class = self.class_at(path.scope, &self.path[..depth]);
            class.and_then(FieldClass::as_struct).is_some_and(|class| {
                members(class, self.version(), self.scope).iter().any(|name| name == first)
            })
        });
        (!hidden).then_some(names)
    }

    /// Names of the members on the way from depth `from`, joined by dots; `None` when the way does
    /// not lead through structures only.
    fn names_along(&self, path: &FieldPath, from: usize) -> Option<String> {
        let mut out = Vec::new();
        for depth in from..path.items.len() {
            let class = self.class_at(path.scope, &path.items[..depth])?.as_struct()?;
            let PathItem::Index(index) = path.items[depth] else {
                return None;
            };
            out.push(members(class, self.version(), path.scope).get(index)?.clone());
        }
        Some(out.join("."))
    }

    fn target(&self, path: &FieldPath) -> Option<&'a FieldClass> {
        self.class_at(path.scope, &path.items)
    }

    /// The class at the end of a way.
    fn class_at(&self, scope: Scope, items: &[PathItem]) -> Option<&'a FieldClass> {
        let mut class: &'a FieldClass = if scope == self.scope {
            &self.nodes.first()?.class
        } else {
            match scope {
                Scope::PacketHeader => self.shared.class.packet_header.as_deref()?,
                Scope::PacketContext => self.stream?.packet_context.as_deref()?,
                Scope::EventHeader => self.stream?.event_header.as_deref()?,
                Scope::CommonContext => self.stream?.common_context.as_deref()?,
                Scope::SpecificContext | Scope::Payload => return None,
            }
        };
        for item in items {
            class = match (&class.kind, item) {
                (FieldKind::Struct(c), PathItem::Index(index)) => &c.members.get(*index)?.class,
                (FieldKind::Variant(c), PathItem::Index(index)) => &c.options.get(*index)?.class,
                (FieldKind::Array(c), PathItem::Element) => &c.element,
                (FieldKind::Optional(c), PathItem::Content) => &c.content,
                _ => return None,
            };
        }
        Some(class)
    }
}

/// The label of the selector that stands for exactly the option's values and may be its name in
/// TSDL. With an underscore in front, readers show the option's own name; without, they show it
/// with one less, which is better than another label.
fn label_of(selector: &IntegerClass, option: &VariantOption) -> Option<String> {
    let name = option.name.as_deref()?;
    let sorted = |ranges: &mut dyn Iterator<Item = &IntRange>| {
        let mut all: Vec<_> = ranges.map(|r| (r.lower, r.upper)).collect();
        all.sort_unstable();
        all
    };
    let have = sorted(&mut option.ranges.iter());
    [format!("_{name}"), name.to_owned()].into_iter().filter(|label| is_identifier(label)).find(|label| {
        let of_label = selector.mappings.iter().filter(|m| m.label == *label);
        sorted(&mut of_label.flat_map(|m| &m.ranges)) == have
    })
}

/// Names for the options of a variant behind a tag of our own.
fn option_names(class: &VariantClass) -> Vec<String> {
    let mut used = HashSet::new();
    let names = class.options.iter().enumerate().map(|(index, option)| {
        let name = option.name.as_deref().filter(|name| !name.is_empty());
        let name = name.map_or_else(|| format!("option{index}"), identifier);
        // Readers take one underscore away.
        unique(if name.starts_with('_') { format!("_{name}") } else { name }, &mut used)
    });
    names.collect()
}

fn range_text(range: &IntRange) -> String {
    if range.lower == range.upper {
        range.lower.to_string()
    } else {
        format!("{} ... {}", range.lower, range.upper)
    }
}
