//! What is compiled per stream class and per event class, and LTTng's two event header shapes.
//!
//! The compact header (5 bits of id, 27 of time) and the large one (16 and 32), packed on bytes,
//! are recognised by the exact shape of their class tree and then read with two loads. Any other
//! header goes through its plan.

use std::sync::Arc;

use super::ends::Ends;
use super::plan::Plan;
use crate::limits::DIRECT_IDS_MAX;
use crate::model::{ByteOrder, EventClass, FieldClass, FieldKind, IntegerClass, IntegerLayout, Role, Scope};

/// An event record header that is read without a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FastHeader {
    None,
    /// 5-bit id, 27-bit time; id 31 is followed by a 32-bit id and a 64-bit time.
    Compact(ByteOrder),
    /// 16-bit id, 32-bit time; id 65535 is followed by a 32-bit id and a 64-bit time.
    Large(ByteOrder),
}

/// Body of an event class whose size is known, for byte-packed classes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quick {
    /// Position of the class in its stream class.
    pub class: u32,
    /// Size of the record after its header; `VARIABLE` when it depends on data.
    pub body_bits: u32,
    /// Where the specific context and the payload start in it.
    pub starts: [u32; 2],
}

/// Marks a body whose size depends on data or does not fit.
pub(crate) const VARIABLE: u32 = u32::MAX;
/// Marks an id without a class.
pub(crate) const NO_CLASS: u32 = u32::MAX;

/// What is compiled per stream class.
#[derive(Debug, Clone)]
pub(crate) struct StreamPlan {
    pub context: Arc<Plan>,
    pub header: Arc<Plan>,
    pub common: Arc<Plan>,
    pub fast: FastHeader,
    /// By event class id, for small ids.
    pub quick: Vec<Quick>,
    /// By position of the event class in the stream class.
    pub ends: Vec<Ends>,
    /// Number of slots that the stream's decoder needs.
    pub slot_count: usize,
}

/// What is compiled per event class.
#[derive(Debug, Clone)]
pub(crate) struct EventPlan {
    pub specific: Arc<Plan>,
    pub payload: Arc<Plan>,
}

impl StreamPlan {
    /// Compiles headers and contexts; classes are added by [`add_class`](Self::add_class).
    pub(crate) fn compile(
        context: Option<&Arc<FieldClass>>,
        header: Option<&Arc<FieldClass>>,
        common: Option<&Arc<FieldClass>>,
        slot_count: usize,
    ) -> Self {
        let header_plan = Plan::compile(header, Scope::EventHeader);
        Self {
            context: Arc::new(Plan::compile(context, Scope::PacketContext)),
            common: Arc::new(Plan::compile(common, Scope::CommonContext)),
            fast: header.map_or(FastHeader::None, |class| recognise(class)),
            header: Arc::new(header_plan),
            quick: Vec::new(),
            ends: Vec::new(),
            slot_count,
        }
    }

    /// Enters an event class, the `position`-th of its stream class.
    pub(crate) fn add_class(&mut self, class: &EventClass, position: u32) {
        if class.id >= DIRECT_IDS_MAX {
            return;
        }
        let own = position as usize;
        if self.ends.len() <= own {
            self.ends.resize(own + 1, Ends::default());
        }
        let at = class.id as usize;
        if self.quick.len() <= at {
            let empty = Quick { class: NO_CLASS, body_bits: VARIABLE, starts: [0; 2] };
            self.quick.resize(at + 1, empty);
        }
        // The id that announces an extended header is no class's short id: never quick.
        let escapes = matches!(self.fast, FastHeader::Compact(_)) && class.id == 31;
        let (body_bits, starts) =
            fixed_body(&self.common, &class.plan).filter(|_| !escapes).unwrap_or((VARIABLE, [0; 2]));
        if body_bits == VARIABLE {
            self.ends[own] = Ends::compile([&self.common, &class.plan.specific, &class.plan.payload]);
        }
        self.quick[at] = Quick { class: position, body_bits, starts };
    }
}

/// Size and starts of a body that begins on a byte and needs no other alignment.
fn fixed_body(common: &Plan, event: &EventPlan) -> Option<(u32, [u32; 2])> {
    let plans = [common, &*event.specific, &*event.payload];
    let mut at = 0u64;
    let mut starts = [0u64; 3];
    for (start, plan) in starts.iter_mut().zip(plans) {
        if plan.align > 8 {
            return None;
        }
        at = at.next_multiple_of(plan.align);
        *start = at;
        at = at.checked_add(plan.fixed_bits?)?;
    }
    let bits = u32::try_from(at).ok().filter(|bits| *bits < VARIABLE)?;
    Some((bits, [starts[1] as u32, starts[2] as u32]))
}

/// Which of LTTng's shapes the header class has, exactly.
fn recognise(class: &FieldClass) -> FastHeader {
    for (id_bits, time_bits, escape) in [(5, 27, 31), (16, 32, 65535)] {
        if let Some(order) = shape(class, id_bits, time_bits, escape) {
            return if id_bits == 5 { FastHeader::Compact(order) } else { FastHeader::Large(order) };
        }
    }
    FastHeader::None
}

fn shape(class: &FieldClass, id_bits: u32, time_bits: u32, escape: i128) -> Option<ByteOrder> {
    let outer = class.as_struct()?;
    let [id, variant] = outer.members.as_slice() else {
        return None;
    };
    if class.alignment_bits != 8 {
        return None;
    }
    let packed = if id_bits == 5 { 1 } else { 8 };
    let order = integer(&id.class, id_bits, packed, Role::EventClassId)?;
    let FieldKind::Variant(variant) = &variant.class.kind else {
        return None;
    };
    if variant.options.len() != 2 {
        return None;
    }
    for option in &variant.options {
        let inner = option.class.as_struct()?;
        match inner.members.as_slice() {
            [time] => {
                let whole = option.ranges.iter().all(|r| r.lower <= 0 && r.upper == escape - 1)
                    && option.ranges.len() == 1;
                let same = integer(&time.class, time_bits, packed, Role::Timestamp)? == order;
                if !whole || !same || option.class.alignment_bits != packed {
                    return None;
                }
            }
            [id, time] => {
                let whole = option.ranges.iter().all(|r| r.lower == escape && r.upper == escape)
                    && option.ranges.len() == 1;
                let same = integer(&id.class, 32, 8, Role::EventClassId)? == order
                    && integer(&time.class, 64, 8, Role::Timestamp)? == order;
                if !whole || !same || option.class.alignment_bits != 8 {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(order)
}

/// Byte order of an unsigned integer of this exact shape.
fn integer(class: &FieldClass, size: u32, align: u32, role: Role) -> Option<ByteOrder> {
    let FieldKind::Integer(IntegerClass {
        layout: IntegerLayout::Fixed(layout), signed: false, roles, ..
    }) = &class.kind
    else {
        return None;
    };
    let fits =
        layout.size_bits == size && class.alignment_bits == align && !layout.reversed && roles.contains(role);
    fits.then_some(layout.byte_order)
}
