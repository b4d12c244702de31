//! One packet: its header and context, then its event records one by one.
//!
//! A [`PacketDecoder`] belongs to one stream and keeps what goes on from packet to packet: the
//! clock. It is given the packet's bytes with every call and holds none itself. Times only ever
//! come from the fields; whether they make sense is not judged here.

use std::cell::Cell;

use super::header::{FastHeader, NO_CLASS, VARIABLE};
use super::plan::{Node, Plan};
use super::table::Tables;
use super::walk::{FieldVisitor, Ignore, Stop, walk};
use crate::error::{DecodeError, Fault};
use crate::model::{ByteOrder, EventClass, FieldKind, Role, Scope, StreamClass, TraceClass, Uuid};

/// What the header and context of a packet say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketInfo {
    /// Id of the stream class; 0 when the header has none.
    pub stream_class_id: u64,
    /// Id of the stream in its class.
    pub stream_id: Option<u64>,
    /// Size of the packet in bits.
    pub packet_size_bits: Option<u64>,
    /// Size of the content in bits.
    pub content_size_bits: Option<u64>,
    /// Clock at the beginning, in cycles.
    pub begin: Option<u64>,
    /// Clock at the end, in cycles.
    pub end: Option<u64>,
    /// Cumulative count of discarded events.
    pub events_discarded: Option<u64>,
    /// Bits of the counter of discarded events: it wraps there.
    pub events_discarded_bits: u32,
    /// Sequence number.
    pub sequence: Option<u64>,
    /// Whether the packet carries another UUID than the metadata. Its layout is taken to be that of
    /// the metadata all the same.
    pub foreign_uuid: bool,
    /// Where the context starts.
    pub context_at_bits: u64,
    /// Where the events start.
    pub header_size_bits: u64,
}

impl PacketInfo {
    /// Reads header and context at the start of `data`, which may be the whole packet or only its
    /// beginning (then [`Fault::Truncated`] can mean that more of it is needed).
    ///
    /// # Errors
    /// Any fault of the fields, a wrong magic number or UUID, an unknown stream class.
    pub fn read(trace: &TraceClass, data: &[u8]) -> Result<Self, Box<DecodeError>> {
        let mut decoder = PacketDecoder::new();
        decoder.read_info(trace, data)
    }

    /// Size of content and packet in bits, checked, for a packet at the start of `available_bytes`
    /// bytes of a file: (content, packet). A missing size means all of the rest.
    ///
    /// # Errors
    /// Sizes that contradict one another or the file.
    pub fn sizes(&self, available_bytes: u64) -> Result<(u64, u64), Box<DecodeError>> {
        let at = self.header_size_bits;
        let all = available_bytes.saturating_mul(8);
        let packet = match (self.packet_size_bits, self.content_size_bits) {
            (Some(packet), _) => packet,
            (None, _) => all,
        };
        let content = self.content_size_bits.unwrap_or(packet);
        if packet % 8 != 0 || packet == 0 {
            return Err(DecodeError::new(at, Fault::BadPacketSize(packet)));
        }
        if content > packet {
            let (content_bits, packet_bits) = (content, packet);
            let fault = Fault::ContentTooLarge { content_bits, packet_bits };
            return Err(DecodeError::new(at, fault));
        }
        if packet > all {
            let fault = Fault::PacketTooLarge { packet_bytes: packet / 8, left_bytes: available_bytes };
            return Err(DecodeError::new(at, fault));
        }
        if content < at {
            let fault = Fault::ContentTooSmall { content_bits: content, header_bits: at };
            return Err(DecodeError::new(at, fault));
        }
        Ok((content, packet))
    }
}

/// Decodes the packets of one stream.
#[derive(Debug, Default)]
pub struct PacketDecoder {
    slots: Vec<Cell<u64>>,
    /// Clock of the stream, in cycles.
    clock: u64,
    /// Start of the next record.
    next: u64,
    /// End of the content.
    end: u64,
    context_at: u64,
    /// The current record: position of its class, and where its header, common context, specific
    /// context and payload start.
    class: u32,
    starts: [u64; 4],
    pub(super) tables: Tables,
}

impl PacketDecoder {
    /// A decoder whose clock is at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The stream's clock after what was decoded last, in cycles.
    #[inline]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Bit offset in the packet at which the current record starts.
    pub fn event_at_bits(&self) -> u64 {
        self.starts[0]
    }

    /// Bit offset in the packet at which the next record would start.
    pub fn next_at_bits(&self) -> u64 {
        self.next
    }

    /// Starts a packet: reads header and context, sets the clock from them, checks the sizes.
    /// `data` is the whole packet, or all that there is when the packet does not tell its size.
    ///
    /// # Errors
    /// As [`PacketInfo::read`] and [`PacketInfo::sizes`]; no event can be read then.
    pub fn start(&mut self, trace: &TraceClass, data: &[u8]) -> Result<PacketInfo, Box<DecodeError>> {
        self.tables.reset_packet();
        self.end = 0;
        self.next = 0;
        let info = self.read_info(trace, data)?;
        let (content, _) = info.sizes(data.len() as u64)?;
        self.end = content;
        self.next = info.header_size_bits;
        self.context_at = info.context_at_bits;
        Ok(info)
    }

    fn read_info(&mut self, trace: &TraceClass, data: &[u8]) -> Result<PacketInfo, Box<DecodeError>> {
        let end = (data.len() as u64).saturating_mul(8);
        let mut visitor =
            PacketVisitor { info: PacketInfo::default(), clock: self.clock, magic: None, uuid: None };
        let plan = &trace.header_plan;
        grow(&mut self.slots, trace.stream_classes.iter().map(|c| c.plan.slot_count).max());
        let at = walk(plan, &plan.full, data, 0, end, &self.slots, &mut visitor, true)
            .map_err(|stop| located(stop, plan, Scope::PacketHeader, None))?;
        visitor.check(trace)?;
        let id = visitor.info.stream_class_id;
        let class =
            trace.stream_class(id).ok_or_else(|| DecodeError::new(at, Fault::UnknownStreamClass(id)))?;
        let plan = &class.plan.context;
        visitor.info.context_at_bits = at;
        let at = walk(plan, &plan.full, data, at, end, &self.slots, &mut visitor, true)
            .map_err(|stop| located(stop, plan, Scope::PacketContext, None))?;
        visitor.info.header_size_bits = at;
        self.clock = visitor.clock;
        Ok(visitor.info)
    }

    /// Goes to the next record; false at the end of the content. `class` and `data` are those of
    /// the packet that was started (the class may have grown).
    ///
    /// # Errors
    /// Any fault of the record. The packet has no further records then.
    #[inline]
    pub fn next_event(&mut self, class: &StreamClass, data: &[u8]) -> Result<bool, Box<DecodeError>> {
        self.tables.reset_event();
        let at = self.next;
        if at >= self.end {
            return Ok(false);
        }
        let header = match class.plan.fast {
            FastHeader::Large(order) => self.large(data, order),
            FastHeader::Compact(order) => self.compact(data, order),
            FastHeader::None => None,
        };
        if let Some((id, time, time_bits, body_at)) = header
            && let Some(quick) = class.plan.quick.get(id as usize)
            && quick.body_bits != VARIABLE
            && quick.class != NO_CLASS
            && body_at + u64::from(quick.body_bits) <= self.end
        {
            update_clock(&mut self.clock, time, time_bits);
            self.class = quick.class;
            self.starts =
                [at, body_at, body_at + u64::from(quick.starts[0]), body_at + u64::from(quick.starts[1])];
            self.next = body_at + u64::from(quick.body_bits);
            return Ok(true);
        }
        self.next_event_by_plan(class, data, header)
    }

    /// Reads a large header: (id, time, bits of time, start of the body).
    #[inline]
    fn large(&self, data: &[u8], order: ByteOrder) -> Option<(u32, u64, u32, u64)> {
        let at = self.next.next_multiple_of(8);
        let bytes = data.get((at / 8) as usize..(self.end / 8) as usize)?;
        let head = bytes.first_chunk::<6>()?;
        let [a, b, time @ ..] = *head;
        let (id, time) = match order {
            ByteOrder::Little => (u16::from_le_bytes([a, b]), u32::from_le_bytes(time)),
            ByteOrder::Big => (u16::from_be_bytes([a, b]), u32::from_be_bytes(time)),
        };
        if id != u16::MAX {
            return Some((u32::from(id), u64::from(time), 32, at + 48));
        }
        let (id, time) = extended(bytes.get(2..)?, order)?;
        Some((id, time, 64, at + 112))
    }

    /// Reads a compact header, likewise.
    #[inline]
    fn compact(&self, data: &[u8], order: ByteOrder) -> Option<(u32, u64, u32, u64)> {
        let at = self.next.next_multiple_of(8);
        let bytes = data.get((at / 8) as usize..(self.end / 8) as usize)?;
        let head = *bytes.first_chunk::<4>()?;
        let (id, time) = match order {
            ByteOrder::Little => {
                let word = u32::from_le_bytes(head);
                (word & 31, word >> 5)
            }
            ByteOrder::Big => {
                let word = u32::from_be_bytes(head);
                (word >> 27, word & 0x7ff_ffff)
            }
        };
        if id != 31 {
            return Some((id, u64::from(time), 27, at + 32));
        }
        let (id, time) = extended(bytes.get(1..)?, order)?;
        Some((id, time, 64, at + 104))
    }

    #[inline(never)]
    fn next_event_by_plan(
        &mut self,
        class: &StreamClass,
        data: &[u8],
        header: Option<(u32, u64, u32, u64)>,
    ) -> Result<bool, Box<DecodeError>> {
        grow(&mut self.slots, Some(class.plan.slot_count));
        let start = self.next;
        let end = self.end;
        // Whatever happens, the same record is not tried twice.
        self.next = end;
        let plan = &*class.plan.header;
        if start.next_multiple_of(plan.align) >= end && plan.align > 1 {
            // Only padding is left.
            return Ok(false);
        }
        let (id, at) = if let Some((id, time, bits, at)) = header {
            update_clock(&mut self.clock, time, bits);
            (u64::from(id), at)
        } else {
            let mut visitor = HeaderVisitor { clock: self.clock, id: None };
            let at = walk(plan, &plan.full, data, start, end, &self.slots, &mut visitor, true)
                .map_err(|stop| located(stop, plan, Scope::EventHeader, None))?;
            self.clock = visitor.clock;
            (visitor.id.unwrap_or(0), at)
        };
        let Some(position) = class.by_id.get(&id).copied() else {
            let stream_class_id = class.id;
            let fault = Fault::UnknownEventClass { id, stream_class_id };
            return Err(DecodeError::new(start, fault));
        };
        let Some(event) = class.event_classes.get(position as usize) else {
            return Ok(false);
        };
        self.class = position;
        let mut at = at;
        self.starts[0] = start.next_multiple_of(plan.align);
        for (index, plan, scope) in [
            (1, &class.plan.common, Scope::CommonContext),
            (2, &event.plan.specific, Scope::SpecificContext),
            (3, &event.plan.payload, Scope::Payload),
        ] {
            self.starts[index] = at;
            let program = plan.shortest();
            at = walk(plan, program, data, at, end, &self.slots, &mut Ignore, true)
                .map_err(|stop| located(stop, plan, scope, Some(event)))?;
        }
        if at == start {
            return Err(DecodeError::new(start, Fault::EmptyEvent));
        }
        self.next = at;
        Ok(true)
    }

    /// Leaves out the rest of the packet's records.
    pub fn skip_rest(&mut self) {
        self.next = self.end;
    }

    /// Position in its stream class of the class of the current record.
    #[inline]
    pub fn event_class_position(&self) -> usize {
        self.class as usize
    }

    /// The plan and start of a scope of the current packet and record.
    pub(crate) fn scope<'a>(&self, class: &'a StreamClass, scope: Scope) -> Option<(&'a Plan, u64)> {
        let event = || class.event_classes.get(self.class as usize);
        let (plan, start) = match scope {
            Scope::PacketHeader => return None,
            Scope::PacketContext => (&class.plan.context, self.context_at),
            Scope::EventHeader => (&class.plan.header, self.starts[0]),
            Scope::CommonContext => (&class.plan.common, self.starts[1]),
            Scope::SpecificContext => (&event()?.plan.specific, self.starts[2]),
            Scope::Payload => (&event()?.plan.payload, self.starts[3]),
        };
        (!plan.nodes.is_empty()).then_some((&**plan, start))
    }

    /// Walks a scope of the current packet or record; false when it has no fields.
    #[inline]
    pub(crate) fn visit<V: FieldVisitor>(
        &self,
        class: &StreamClass,
        data: &[u8],
        scope: Scope,
        visitor: &mut V,
    ) -> bool {
        let Some((plan, start)) = self.scope(class, scope) else {
            return false;
        };
        // The same bytes were walked when the record was found, so this gets to the end.
        let all = matches!(scope, Scope::EventHeader);
        walk(plan, &plan.full, data, start, self.end, &self.slots, visitor, all).is_ok()
    }
}

impl PacketDecoder {
    /// Walks all fields of a scope, hidden ones too, from a place where it was decoded before.
    pub(crate) fn visit_plan<V: FieldVisitor>(&self, plan: &Plan, data: &[u8], start: u64, visitor: &mut V) {
        if !plan.nodes.is_empty() {
            // The same bytes were walked when the packet or record was found.
            let end = self.end.min((data.len() as u64).saturating_mul(8));
            let _ = walk(plan, &plan.full, data, start, end, &self.slots, visitor, true);
        }
    }

    /// Where the current record goes on after its header, in bits.
    pub(crate) fn body_at_bits(&self) -> u64 {
        self.starts[1]
    }
}

/// The rest of an extended header: 32-bit id, 64-bit time.
#[inline]
fn extended(bytes: &[u8], order: ByteOrder) -> Option<(u32, u64)> {
    let (id, rest) = bytes.split_first_chunk::<4>()?;
    let time = rest.first_chunk::<8>()?;
    Some(match order {
        ByteOrder::Little => (u32::from_le_bytes(*id), u64::from_le_bytes(*time)),
        ByteOrder::Big => (u32::from_be_bytes(*id), u64::from_be_bytes(*time)),
    })
}

/// Replaces the low bits of the clock; a value below them means that it wrapped once.
#[inline]
pub(crate) fn update_clock(clock: &mut u64, value: u64, size_bits: u32) {
    if size_bits >= 64 {
        *clock = value;
        return;
    }
    let mask = (1u64 << size_bits) - 1;
    let wrapped = u64::from(value < *clock & mask) << size_bits;
    *clock = (*clock & !mask | value).wrapping_add(wrapped);
}

fn grow(slots: &mut Vec<Cell<u64>>, count: Option<usize>) {
    let count = count.unwrap_or(0);
    if slots.len() < count {
        slots.resize(count, Cell::new(0));
    }
}

fn located(stop: Stop, plan: &Plan, scope: Scope, event: Option<&EventClass>) -> Box<DecodeError> {
    let node = plan.nodes.get(stop.node as usize);
    Box::new(DecodeError {
        at_bits: stop.at_bits,
        scope: Some(scope),
        event: event.map(|class| {
            let name = class.name.clone();
            name.unwrap_or_else(|| class.id.to_string())
        }),
        field: node.map(|node| node.name.to_string()),
        fault: stop.fault,
    })
}

fn size_of(node: &Node) -> u32 {
    match &node.class.kind {
        FieldKind::Integer(class) => class.size_bits(),
        _ => 64,
    }
}

struct PacketVisitor {
    info: PacketInfo,
    clock: u64,
    magic: Option<u64>,
    uuid: Option<Uuid>,
}

impl PacketVisitor {
    fn check(&mut self, trace: &TraceClass) -> Result<(), Box<DecodeError>> {
        if let Some(magic) = self.magic
            && magic != u64::from(crate::packet::MAGIC)
        {
            return Err(DecodeError::new(0, Fault::BadMagic(magic)));
        }
        self.info.foreign_uuid = matches!((self.uuid, trace.uuid), (Some(found), Some(own)) if found != own);
        Ok(())
    }

    fn number(&mut self, node: &Node, value: u64, size_bits: u32) {
        let roles = node.roles;
        if roles.is_empty() {
            return;
        }
        let info = &mut self.info;
        for (role, field) in [
            (Role::StreamId, &mut info.stream_id),
            (Role::PacketSize, &mut info.packet_size_bits),
            (Role::ContentSize, &mut info.content_size_bits),
            (Role::EventsDiscarded, &mut info.events_discarded),
            (Role::PacketSequence, &mut info.sequence),
            (Role::PacketMagic, &mut self.magic),
        ] {
            if roles.contains(role) {
                *field = Some(value);
            }
        }
        if roles.contains(Role::EventsDiscarded) {
            info.events_discarded_bits = size_bits;
        }
        if roles.contains(Role::StreamClassId) {
            info.stream_class_id = value;
        }
        if roles.contains(Role::Timestamp) {
            update_clock(&mut self.clock, value, size_bits);
            info.begin = Some(self.clock);
        }
        if roles.contains(Role::EndTimestamp) {
            let mut end = self.clock;
            update_clock(&mut end, value, size_bits);
            info.end = Some(end);
        }
    }
}

impl FieldVisitor for PacketVisitor {
    fn unsigned(&mut self, node: &Node, value: u64) {
        self.number(node, value, size_of(node));
    }

    fn unsigned_leb128(&mut self, node: &Node, value: u64, size_bits: u32) {
        self.number(node, value, size_bits);
    }

    fn blob(&mut self, node: &Node, value: &[u8]) {
        if node.roles.contains(Role::MetadataUuid) {
            self.uuid = value.try_into().ok().map(Uuid);
        }
    }
}

struct HeaderVisitor {
    clock: u64,
    id: Option<u64>,
}

impl HeaderVisitor {
    #[inline]
    fn number(&mut self, node: &Node, value: u64, size_bits: u32) {
        if node.roles.contains(Role::EventClassId) {
            self.id = Some(value);
        }
        if node.roles.contains(Role::Timestamp) {
            update_clock(&mut self.clock, value, size_bits);
        }
    }
}

impl FieldVisitor for HeaderVisitor {
    #[inline]
    fn unsigned(&mut self, node: &Node, value: u64) {
        if !node.roles.is_empty() {
            self.number(node, value, size_of(node));
        }
    }

    fn unsigned_leb128(&mut self, node: &Node, value: u64, size_bits: u32) {
        self.number(node, value, size_bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_replaces_low_bits_and_sees_one_wrap() {
        let check = |mut clock, value, bits, want| {
            update_clock(&mut clock, value, bits);
            assert_eq!(clock, want);
        };
        check(0x1_0000_0010, 0x20, 32, 0x1_0000_0020);
        check(0x1_0000_0010, 0x0f, 32, 0x2_0000_000f);
        check(0x1_0000_0010, 0x10, 32, 0x1_0000_0010);
        check(100, 5, 64, 5);
        check(u64::MAX, 0, 1, 0);
    }
}
