//! References of lengths and selectors to the fields that they mean.
//!
//! Both languages' rules: TSDL looks for the first name in the enclosing structures from the inside
//! out, CTF 2 starts at the enclosing structure or at a named scope. A target must be decoded before
//! the field that refers to it, is an integer or a boolean, and gets a slot in which decoding keeps
//! its value. Variants whose options are chosen by labels (TSDL) get their ranges here.

use std::sync::Arc;

use crate::limits::{FIELD_CLASSES_MAX, SLOTS_MAX};
use crate::model::{
    FieldClass, FieldKind, FieldPath, FieldRef, IntRange, Length, PathItem, RawPath, Scope, SelectorKind,
    StringExtent,
};

/// The roots of the scopes, in the order of [`Scope`].
pub(super) type Roots = [Option<Arc<FieldClass>>; 6];

/// Slots of shared scopes come first, those of single event classes after this many.
const SHARED_SLOTS: u16 = 256;

/// What is wrong and at which byte of the text.
pub(super) type Problem = (usize, String);

/// Hands out slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    shared: u16,
    /// Next slot of the event class being resolved.
    own: u16,
}

impl Slots {
    /// Starts an event class.
    pub(super) fn begin_event(&mut self) {
        self.own = 0;
    }

    /// Slots that a decoder needs for what was resolved so far.
    pub(super) fn count(&self) -> usize {
        if self.own > 0 { usize::from(SHARED_SLOTS + self.own) } else { usize::from(self.shared) }
    }

    fn take(&mut self, scope: Scope) -> Option<u16> {
        if scope <= Scope::CommonContext {
            self.shared += 1;
            (self.shared <= SHARED_SLOTS).then_some(self.shared - 1)
        } else {
            self.own += 1;
            (usize::from(self.own) <= SLOTS_MAX).then_some(SHARED_SLOTS + self.own - 1)
        }
    }
}

/// A field that refers to another.
struct Site {
    path: Vec<PathItem>,
    text: RawPath,
    at: usize,
    length: bool,
}

/// Resolves all references in one scope.
pub(super) fn resolve(
    roots: &mut Roots,
    scope: Scope,
    slots: &mut Slots,
    budget: &mut usize,
) -> Result<(), Problem> {
    let Some(root) = &roots[scope as usize] else {
        return Ok(());
    };
    let mut sites = Vec::new();
    collect(root, &mut Vec::new(), &mut sites, budget)?;
    for site in sites {
        let problem = |message: String| (site.at, message);
        let targets = match &site.text {
            RawPath::Tsdl(text) => tsdl_targets(roots, scope, &site, text),
            RawPath::Json { origin, path } => json_targets(roots, scope, &site, *origin, path),
        }
        .map_err(problem)?;
        let resolved = bind(roots, &site, targets, slots).map_err(problem)?;
        let labels = labels_of(roots, &resolved.paths);
        let Some(class) = roots[scope as usize].as_mut().and_then(|root| get_mut(root, &site.path)) else {
            continue;
        };
        apply(class, resolved, &labels).map_err(problem)?;
    }
    Ok(())
}

fn collect(
    class: &FieldClass,
    path: &mut Vec<PathItem>,
    sites: &mut Vec<Site>,
    budget: &mut usize,
) -> Result<(), Problem> {
    let Some(left) = budget.checked_sub(1) else {
        let message = format!("more than {FIELD_CLASSES_MAX} field classes");
        return Err((0, message));
    };
    *budget = left;
    let mut site = |field: &FieldRef, length| {
        sites.push(Site { path: path.clone(), text: field.raw.text.clone(), at: field.raw.at, length });
    };
    match &class.kind {
        FieldKind::String(c) => {
            if let StringExtent::Sized(Length::Dynamic(field)) = &c.extent {
                site(field, true);
            }
        }
        FieldKind::Blob(c) => {
            if let Length::Dynamic(field) = &c.length {
                site(field, true);
            }
        }
        FieldKind::Array(c) => {
            if let Length::Dynamic(field) = &c.length {
                site(field, true);
            }
        }
        FieldKind::Optional(c) => site(&c.selector, false),
        FieldKind::Variant(c) => site(&c.selector, false),
        _ => {}
    }
    for (item, child) in children(class) {
        path.push(item);
        collect(child, path, sites, budget)?;
        path.pop();
    }
    Ok(())
}

/// The classes directly inside, with the step to each.
fn children(class: &FieldClass) -> Box<dyn Iterator<Item = (PathItem, &Arc<FieldClass>)> + '_> {
    match &class.kind {
        FieldKind::Struct(c) => {
            Box::new(c.members.iter().enumerate().map(|(i, m)| (PathItem::Index(i), &m.class)))
        }
        FieldKind::Variant(c) => {
            Box::new(c.options.iter().enumerate().map(|(i, o)| (PathItem::Index(i), &o.class)))
        }
        FieldKind::Array(c) => Box::new(std::iter::once((PathItem::Element, &c.element))),
        FieldKind::Optional(c) => Box::new(std::iter::once((PathItem::Content, &c.content))),
        _ => Box::new(std::iter::empty()),
    }
}

fn get<'a>(root: &'a Arc<FieldClass>, path: &[PathItem]) -> Option<&'a Arc<FieldClass>> {
    path.iter().try_fold(root, |class, item| match (&class.kind, item) {
        (FieldKind::Struct(c), PathItem::Index(i)) => c.members.get(*i).map(|m| &m.class),
        (FieldKind::Variant(c), PathItem::Index(i)) => c.options.get(*i).map(|o| &o.class),
        (FieldKind::Array(c), PathItem::Element) => Some(&c.element),
        (FieldKind::Optional(c), PathItem::Content) => Some(&c.content),
        _ => None,
    })
}

fn get_mut<'a>(root: &'a mut Arc<FieldClass>, path: &[PathItem]) -> Option<&'a mut FieldClass> {
    let mut class = Arc::make_mut(root);
    for item in path {
        let next = match (&mut class.kind, item) {
            (FieldKind::Struct(c), PathItem::Index(i)) => &mut c.members.get_mut(*i)?.class,
            (FieldKind::Variant(c), PathItem::Index(i)) => &mut c.options.get_mut(*i)?.class,
            (FieldKind::Array(c), PathItem::Element) => &mut c.element,
            (FieldKind::Optional(c), PathItem::Content) => &mut c.content,
            _ => return None,
        };
        class = Arc::make_mut(next);
    }
    Some(class)
}

const PREFIXES: [(&str, Scope); 6] = [
    ("trace.packet.header.", Scope::PacketHeader),
    ("stream.packet.context.", Scope::PacketContext),
    ("stream.event.header.", Scope::EventHeader),
    ("stream.event.context.", Scope::CommonContext),
    ("event.context.", Scope::SpecificContext),
    ("event.fields.", Scope::Payload),
];

fn tsdl_targets(roots: &Roots, scope: Scope, site: &Site, text: &str) -> Result<Vec<FieldPath>, String> {
    for (prefix, target) in PREFIXES {
        if let Some(rest) = text.strip_prefix(prefix) {
            let names: Vec<&str> = rest.split('.').collect();
            return from_root(roots, scope, site, target, &names, true);
        }
    }
    let names: Vec<&str> = text.split('.').collect();
    let Some(root) = &roots[scope as usize] else {
        return Err(format!("cannot find field `{text}`"));
    };
    // From the innermost structure outward; only members before the referring one count.
    for depth in (0..site.path.len()).rev() {
        let (Some(class), PathItem::Index(before)) = (get(root, &site.path[..depth]), site.path[depth])
        else {
            continue;
        };
        let Some(parent) = class.as_struct() else {
            continue;
        };
        let found =
            parent.members[..before].iter().position(|m| Some(m.raw_name.as_str()) == names.first().copied());
        if let Some(index) = found {
            let mut path = site.path[..depth].to_vec();
            path.push(PathItem::Index(index));
            let start = (path, &parent.members[index].class);
            let mut out = Vec::new();
            descend(start, &names[1..], site, true, true, &mut out)?;
            return finish(out, scope, scope, site, text);
        }
    }
    Err(format!("cannot find field `{text}` before its user"))
}

fn json_targets(
    roots: &Roots,
    scope: Scope,
    site: &Site,
    origin: Option<Scope>,
    path: &[Option<String>],
) -> Result<Vec<FieldPath>, String> {
    let shown = || {
        let names: Vec<&str> = path.iter().map(|n| n.as_deref().unwrap_or("null")).collect();
        names.join("/")
    };
    if let Some(origin) = origin {
        let names: Option<Vec<&str>> = path.iter().map(Option::as_deref).collect();
        let names = names.ok_or("`null` is not allowed in a field location with an origin")?;
        return from_root(roots, scope, site, origin, &names, false);
    }
    let Some(root) = &roots[scope as usize] else {
        return Err(format!("cannot find field `{}`", shown()));
    };
    let is_struct =
        |depth: usize| get(root, &site.path[..depth]).is_some_and(|class| class.as_struct().is_some());
    let mut depth = site.path.len();
    let up = |depth: &mut usize| {
        while *depth > 0 {
            *depth -= 1;
            if is_struct(*depth) {
                return Ok(());
            }
        }
        Err("field location leads out of its scope".to_owned())
    };
    up(&mut depth)?;
    let mut names = Vec::new();
    for item in path {
        match item {
            None if names.is_empty() => up(&mut depth)?,
            None => return Err("`null` after a name in a field location".to_owned()),
            Some(name) => names.push(name.as_str()),
        }
    }
    let Some(class) = get(root, &site.path[..depth]) else {
        return Err(format!("cannot find field `{}`", shown()));
    };
    let mut out = Vec::new();
    let start = (site.path[..depth].to_vec(), class);
    descend(start, &names, site, true, false, &mut out)?;
    finish(out, scope, scope, site, &shown())
}

fn from_root(
    roots: &Roots,
    scope: Scope,
    site: &Site,
    target: Scope,
    names: &[&str],
    tsdl: bool,
) -> Result<Vec<FieldPath>, String> {
    let text = names.join(if tsdl { "." } else { "/" });
    if target > scope {
        return Err(format!("field `{text}` is decoded after its user"));
    }
    let Some(root) = &roots[target as usize] else {
        return Err(format!("cannot find field `{text}`: its scope has no fields"));
    };
    let mut out = Vec::new();
    descend((Vec::new(), root), names, site, target == scope, tsdl, &mut out)?;
    finish(out, target, scope, site, &text)
}

/// Checks that there are targets and that they come first.
fn finish(
    paths: Vec<Vec<PathItem>>,
    target: Scope,
    scope: Scope,
    site: &Site,
    text: &str,
) -> Result<Vec<FieldPath>, String> {
    if paths.is_empty() {
        return Err(format!("cannot find field `{text}`"));
    }
    for path in &paths {
        if target == scope && !comes_before(path, &site.path) {
            return Err(format!("field `{text}` is decoded after its user"));
        }
    }
    Ok(paths.into_iter().map(|items| FieldPath { scope: target, items }).collect())
}

fn comes_before(target: &[PathItem], site: &[PathItem]) -> bool {
    for (a, b) in target.iter().zip(site) {
        match (a, b) {
            (PathItem::Index(a), PathItem::Index(b)) if a != b => return a < b,
            _ => {}
        }
    }
    false
}

/// Goes down by names; enters what has one way, and all options of variants (CTF 2).
fn descend(
    (path, class): (Vec<PathItem>, &Arc<FieldClass>),
    names: &[&str],
    site: &Site,
    same_scope: bool,
    tsdl: bool,
    out: &mut Vec<Vec<PathItem>>,
) -> Result<(), String> {
    let with = |item| {
        let mut path = path.clone();
        path.push(item);
        path
    };
    match &class.kind {
        FieldKind::Struct(c) => {
            let Some((name, rest)) = names.split_first() else {
                return Err("a structure can not be a length or a selector".to_owned());
            };
            let index =
                c.members.iter().position(|m| if tsdl { m.raw_name == *name } else { m.name == *name });
            match index {
                Some(index) => {
                    let next = (with(PathItem::Index(index)), &c.members[index].class);
                    descend(next, rest, site, same_scope, tsdl, out)
                }
                None => Err(format!("cannot find field `{name}`")),
            }
        }
        FieldKind::Array(c) => {
            let next = with(PathItem::Element);
            if !same_scope || !site.path.starts_with(&next) {
                return Err("the way to the field leads into an array".to_owned());
            }
            descend((next, &c.element), names, site, same_scope, tsdl, out)
        }
        FieldKind::Optional(c) => {
            let next = (with(PathItem::Content), &c.content);
            descend(next, names, site, same_scope, tsdl, out)
        }
        FieldKind::Variant(c) if tsdl => {
            let Some((name, rest)) = names.split_first() else {
                return Err("a variant can not be a length or a selector".to_owned());
            };
            let index = c.options.iter().position(|o| o.raw_name.as_deref() == Some(*name));
            match index {
                Some(index) => {
                    let next = (with(PathItem::Index(index)), &c.options[index].class);
                    descend(next, rest, site, same_scope, tsdl, out)
                }
                None => Err(format!("cannot find field `{name}`")),
            }
        }
        FieldKind::Variant(c) => {
            // The option that the user itself is in is the only one that can be decoded before it.
            let inside = site.path.get(path.len()).copied();
            let own = same_scope && site.path.starts_with(&path);
            for (index, option) in c.options.iter().enumerate() {
                if own && inside != Some(PathItem::Index(index)) {
                    continue;
                }
                let next = (with(PathItem::Index(index)), &option.class);
                descend(next, names, site, same_scope, tsdl, out)?;
            }
            Ok(())
        }
        FieldKind::Bool(_) | FieldKind::Integer(_) if names.is_empty() => {
            out.push(path);
            Ok(())
        }
        _ if names.is_empty() => Err("a length or selector must be an integer or a boolean".to_owned()),
        _ => Err(format!("cannot find field `{}`", names[0])),
    }
}

/// Checks the types of the targets and gives them one slot.
fn bind(
    roots: &mut Roots,
    site: &Site,
    paths: Vec<FieldPath>,
    slots: &mut Slots,
) -> Result<FieldRef, String> {
    let mut kind = None;
    let mut is_enum = false;
    let mut slot = None;
    for path in &paths {
        let Some(class) = roots[path.scope as usize].as_ref().and_then(|root| get(root, &path.items)) else {
            return Err("cannot find field".to_owned());
        };
        let this = match &class.kind {
            FieldKind::Bool(_) => SelectorKind::Bool,
            FieldKind::Integer(c) => {
                is_enum |= c.is_enum;
                if c.signed { SelectorKind::Signed } else { SelectorKind::Unsigned }
            }
            _ => return Err("a length or selector must be an integer or a boolean".to_owned()),
        };
        if *kind.get_or_insert(this) != this {
            return Err("the fields of the location do not have one type".to_owned());
        }
        if let Some(own) = class.slot {
            if slot.is_some_and(|slot| slot != own) {
                return Err("the fields of the location already serve different users".to_owned());
            }
            slot = Some(own);
        }
    }
    let kind = kind.ok_or("cannot find field")?;
    if site.length && kind != SelectorKind::Unsigned {
        return Err("a length must be an unsigned integer".to_owned());
    }
    let slot = match slot {
        Some(slot) => slot,
        None => slots
            .take(paths.first().map_or(Scope::Payload, |path| path.scope))
            .ok_or("too many fields are lengths or selectors")?,
    };
    for path in &paths {
        if let Some(class) = roots[path.scope as usize].as_mut().and_then(|root| get_mut(root, &path.items))
            && class.slot.is_none()
        {
            class.slot = Some(slot);
        }
    }
    Ok(FieldRef { paths, kind, is_enum, slot, raw: FieldRef::unresolved(site.text.clone(), site.at).raw })
}

/// The ranges of each label of the enumeration referred to.
fn labels_of(roots: &Roots, paths: &[FieldPath]) -> Vec<(String, Vec<IntRange>)> {
    let class = paths.first().and_then(|path| {
        let root = roots[path.scope as usize].as_ref()?;
        get(root, &path.items)
    });
    match class.map(|class| &class.kind) {
        Some(FieldKind::Integer(c)) if c.is_enum => {
            c.mappings.iter().map(|m| (m.label.clone(), m.ranges.clone())).collect()
        }
        _ => Vec::new(),
    }
}

/// Puts the resolved reference into its field.
fn apply(
    class: &mut FieldClass,
    resolved: FieldRef,
    labels: &[(String, Vec<IntRange>)],
) -> Result<(), String> {
    match &mut class.kind {
        FieldKind::String(c) => c.extent = StringExtent::Sized(Length::Dynamic(resolved)),
        FieldKind::Blob(c) => c.length = Length::Dynamic(resolved),
        FieldKind::Array(c) => c.length = Length::Dynamic(resolved),
        FieldKind::Optional(c) => {
            if (resolved.kind == SelectorKind::Bool) != c.ranges.is_empty() {
                return Err("selector ranges are needed for an integer selector and for no other".to_owned());
            }
            c.selector = resolved;
        }
        FieldKind::Variant(c) => {
            if resolved.kind == SelectorKind::Bool {
                return Err("the selector of a variant must be an integer".to_owned());
            }
            if let RawPath::Tsdl(text) = &resolved.raw.text {
                if !resolved.is_enum {
                    return Err(format!("variant tag `{text}` is not an enumeration"));
                }
                for option in &mut c.options {
                    let name = option.raw_name.as_deref();
                    option.ranges = labels
                        .iter()
                        .filter(|(label, _)| Some(label.as_str()) == name)
                        .flat_map(|(_, ranges)| ranges.iter().copied())
                        .collect();
                }
            }
            c.selector = resolved;
        }
        _ => {}
    }
    Ok(())
}
