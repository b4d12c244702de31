//! One packet at a time, out of the events of one stream.
//!
//! Records are copied when they lie in the target as in the source, else encoded again. A
//! timestamp of few bits only says how far the clock went since the record before; when records in
//! between were left out it may say too little, and then LTTng's headers are written in their
//! extended form, and any other header asks for a new packet. The bytes of a long packet can be
//! taken while it grows; its head is given again at the end, when its values are known.

use std::sync::Arc;

use super::bits::BitBuffer;
use super::encode::{Encoder, Place, Replace};
use super::layout::{Form, Layout};
use super::{StreamLayout, TraceWriter};
use crate::decode::{Columns, FastHeader, PacketInfo, Plan};
use crate::message::{Event, Packet};
use crate::model::{ByteOrder, Role, Scope, StreamClass};

/// What a packet's context says; `None` keeps what the source says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PacketValues {
    /// Clock at the beginning, in cycles.
    pub begin: Option<u64>,
    /// Clock at the end, in cycles.
    pub end: Option<u64>,
    /// Cumulative count of discarded events.
    pub events_discarded: Option<u64>,
    /// Sequence number.
    pub sequence: Option<u64>,
}

impl PacketValues {
    fn roles(&self) -> [(Role, Option<u64>); 4] {
        [
            (Role::Timestamp, self.begin),
            (Role::EndTimestamp, self.end),
            (Role::EventsDiscarded, self.events_discarded),
            (Role::PacketSequence, self.sequence),
        ]
    }

    fn replace(&self) -> Replace {
        let mut replace = Replace::default();
        for (role, value) in self.roles() {
            if let Some(value) = value {
                replace.set(role, value);
            }
        }
        replace
    }
}

/// A finished packet: what was not taken yet.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// The head of the packet, to be written again over what was taken; `None` when nothing was.
    pub head: Option<&'a [u8]>,
    /// The bytes that follow those that were taken.
    pub rest: &'a [u8],
    /// Size of the content in bits.
    pub content_size_bits: u64,
    /// Size of the packet in bits.
    pub packet_size_bits: u64,
}

/// Builds the packets of one stream.
#[derive(Debug)]
pub struct PacketWriter {
    out: BitBuffer,
    /// Bytes of the packet that were taken.
    taken_bytes: u64,
    head: Vec<u8>,
    head_size_bits: u64,
    places: Vec<Place>,
    saved: Vec<u64>,
    /// The stream's clock where the target is, in cycles.
    clock: u64,
    /// Where the next record starts in the source, if nothing is left out before it and target and
    /// source agree up to there; else [`NOWHERE`].
    source_next: u64,
    /// Address of the source packet: events may come from elsewhere (see
    /// [`ExtendedStream`](super::ExtendedStream)).
    source_at: usize,
    /// Bytes of the source that were copied behind the target's end, in case the records in them
    /// come next.
    ahead_bytes: u64,
    /// By position of the event class; see [`EventLayout::copy_align`](super::EventLayout).
    copy_aligns: Arc<[u64]>,
    /// Fewest bits of a timestamp in the headers of the source.
    time_bits: u32,
    open: bool,
}

/// Bytes that are copied ahead.
const AHEAD_SIZE_BYTES: usize = 1 << 10;
/// No place in a packet.
const NOWHERE: u64 = u64::MAX;

impl Default for PacketWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketWriter {
    /// A writer that has no packet open.
    pub fn new() -> Self {
        Self {
            out: BitBuffer::default(),
            taken_bytes: 0,
            head: Vec::new(),
            head_size_bits: 0,
            places: Vec::new(),
            saved: Vec::new(),
            clock: 0,
            source_next: NOWHERE,
            source_at: 0,
            ahead_bytes: 0,
            copy_aligns: Arc::new([]),
            time_bits: 64,
            open: false,
        }
    }

    /// The stream's clock after what was written last, in cycles.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Whether a packet is open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Opens a packet like `packet`, with other values.
    pub fn begin(&mut self, trace: &TraceWriter, packet: &Packet<'_>, values: PacketValues) {
        let class = &packet.stream.class;
        let Some(layout) = trace.layout.streams.get(class.index) else {
            return;
        };
        self.encode_head(trace, layout, packet, values);
        let same = trace.layout.header.same && layout.context.same;
        let aligned = self.head_size_bits == packet.info.header_size_bits;
        self.clock = values.begin.or(packet.info.begin).unwrap_or(0);
        let agree = same && aligned && self.clock == packet.info.begin.unwrap_or(0);
        self.source_next = if agree { packet.info.header_size_bits } else { NOWHERE };
        self.source_at = packet.bytes.as_ptr() as usize;
        self.copy_aligns = Arc::clone(&layout.copy_aligns);
        self.time_bits = fewest_time_bits(&class.plan.header);
        self.open = true;
    }

    fn encode_head(
        &mut self,
        trace: &TraceWriter,
        layout: &StreamLayout,
        packet: &Packet<'_>,
        values: PacketValues,
    ) {
        self.out.clear();
        self.ahead_bytes = 0;
        self.places.clear();
        self.taken_bytes = 0;
        let class = &packet.stream.class;
        let mut encoder = Encoder::new(&mut self.out, &trace.layout.header, 0, &mut self.saved);
        let plan = &packet.stream.trace.class.header_plan;
        packet.decoder.visit_plan(plan, packet.bytes, 0, &mut encoder);
        let mut encoder = Encoder::new(&mut self.out, &layout.context, 0, &mut self.saved);
        encoder.places = Some(&mut self.places);
        encoder.replace = values.replace();
        let plan = &class.plan.context;
        packet.decoder.visit_plan(plan, packet.bytes, packet.info.context_at_bits, &mut encoder);
        for (add, role) in
            [(layout.add_packet_size, Role::PacketSize), (layout.add_content_size, Role::ContentSize)]
        {
            if add {
                self.out.align(8, 0);
                let form =
                    Form::Fixed { size: 64, big: ByteOrder::NATIVE == ByteOrder::Big, reversed: false };
                self.places.push(Place { role, at: self.out.at, form });
                self.out.put(0, 64, false);
            }
        }
        self.head_size_bits = self.out.at;
    }

    /// Appends an event of the packet that was opened last. False when its time can not be told
    /// after the events before it: then end the packet, begin another at its time and try again.
    #[inline]
    pub fn event(&mut self, trace: &TraceWriter, event: &Event<'_>) -> bool {
        let (start, next) = event.record_bits();
        let at = self.taken_bytes * 8 + self.out.at;
        // The usual case: nothing was left out, and the record lies on bytes as in the source.
        if self.source_next == start
            && self.source_at == event.bytes.as_ptr() as usize
            && (start | at | next).is_multiple_of(8)
            && self.same_place(event, at, start)
            && (self.ahead_bytes >= (next - start) / 8 || self.copy_ahead(event, start, next))
        {
            self.ahead_bytes -= (next - start) / 8;
            self.out.at += next - start;
            self.source_next = next;
            if let Some(clock) = event.clock {
                self.clock = clock.cycles;
            }
            return true;
        }
        let class = &event.stream.class;
        match trace.layout.streams.get(class.index) {
            Some(layout) => self.unusual_event(class, layout, event, at),
            None => true,
        }
    }

    /// Appends events of the packet that was opened last, up to the first that [`event`](Self::event)
    /// has to look at; gives how many. They lie in the target as in the source, one behind the other,
    /// so they are one copy.
    pub fn run(&mut self, columns: &Columns<'_>) -> usize {
        let bytes = columns.packet_bytes();
        let (from, at) = (self.source_next, self.taken_bytes * 8 + self.out.at);
        if self.source_at != bytes.as_ptr() as usize || !(from | at).is_multiple_of(8) {
            return 0;
        }
        let moved = at.wrapping_sub(from);
        let mut count = 0usize;
        let mut next = from;
        for (class, (start, end)) in columns.event_class_positions().zip(columns.record_bits()) {
            let align = self.copy_aligns.get(class).copied().unwrap_or(0);
            let same = align != 0 && moved & (align - 1) == 0;
            if start != next || !same || !end.is_multiple_of(8) {
                break;
            }
            next = end;
            count += 1;
        }
        let Some(clock) = count.checked_sub(1).and_then(|last| columns.clocks().get(last)) else { return 0 };
        let Some(records) = bytes.get((from / 8) as usize..(next / 8) as usize) else { return 0 };
        self.drop_ahead();
        self.out.put_bytes(records);
        self.source_next = next;
        self.clock = *clock;
        count
    }

    /// Copies the record, and what follows it in the source, to the target's end. One large copy is
    /// much cheaper than many of a few bytes, and nearly always the next records come too.
    #[inline(never)]
    fn copy_ahead(&mut self, event: &Event<'_>, start: u64, next: u64) -> bool {
        let from = (start / 8) as usize;
        let size = ((next - start) / 8) as usize;
        let Some(rest) = event.bytes.get(from..).filter(|rest| rest.len() >= size) else {
            return false;
        };
        let copied = &rest[..rest.len().min(size.max(AHEAD_SIZE_BYTES))];
        self.drop_ahead();
        self.out.bytes.extend_from_slice(copied);
        self.ahead_bytes = copied.len() as u64;
        true
    }

    /// Takes away what was copied ahead.
    #[inline]
    fn drop_ahead(&mut self) {
        self.ahead_bytes = 0;
        self.out.bytes.truncate(self.out.at.div_ceil(8) as usize);
    }

    /// Whether the record would have the same bits at `at` as it has at `start`.
    #[inline]
    fn same_place(&self, event: &Event<'_>, at: u64, start: u64) -> bool {
        match self.copy_aligns.get(event.decoder.event_class_position()) {
            Some(0) | None => false,
            Some(align) => at.wrapping_sub(start) & (align - 1) == 0,
        }
    }

    #[inline(never)]
    fn unusual_event(
        &mut self,
        class: &StreamClass,
        layout: &StreamLayout,
        event: &Event<'_>,
        at: u64,
    ) -> bool {
        self.drop_ahead();
        let (start, next) = event.record_bits();
        let header_align = layout.header.slots.first().map_or(1, |slot| slot.align);
        let at = at.next_multiple_of(header_align);
        let follows = self.source_at == event.bytes.as_ptr() as usize
            && self.source_next.checked_next_multiple_of(header_align).is_some_and(|next| next == start);
        let same = self.same_place(event, at, start);
        let cycles = event.clock.map(|clock| clock.cycles);
        let told = |bits: u32| match cycles {
            Some(cycles) if bits < 64 => cycles >= self.clock && cycles - self.clock < 1 << bits,
            _ => true,
        };
        if same && (follows || (start.is_multiple_of(8) && told(self.time_bits))) {
            self.copy(event, start, next, header_align);
        } else if same && !follows && class.plan.fast != FastHeader::None && align_of(layout, event) <= 8 {
            self.copy_with_long_header(class, event);
        } else {
            // LEB128 holds the whole clock.
            let bits = fewest_bits(&class.plan.header, &layout.header);
            let can_begin = class.packets_have_begin_time;
            if !told(bits) && can_begin && cycles != Some(self.clock) {
                return false;
            }
            self.encode(class, layout, event);
        }
        self.source_next = next;
        if let Some(cycles) = cycles {
            self.clock = cycles;
        }
        true
    }

    /// Copies the record; the first byte may hold bits of the record before, which are those of the
    /// source too.
    fn copy(&mut self, event: &Event<'_>, start: u64, next: u64, align: u64) {
        self.out.align(align, self.taken_bytes * 8);
        let bytes = event.packet_bytes();
        let record = bytes.get((start / 8) as usize..next.div_ceil(8) as usize).unwrap_or_default();
        let odd = self.out.at % 8;
        self.out.at -= odd;
        self.out.put_bytes(record);
        self.out.at = self.out.at - record.len() as u64 * 8 + odd + (next - start);
    }

    /// Writes LTTng's extended header, which has 64 bits of time, and copies the rest.
    fn copy_with_long_header(&mut self, class: &StreamClass, event: &Event<'_>) {
        self.out.align(8, self.taken_bytes * 8);
        let (escape, escape_bits, order) = match class.plan.fast {
            FastHeader::Compact(order) => (31, 5, order),
            FastHeader::Large(order) => (u64::from(u16::MAX), 16, order),
            FastHeader::None => return,
        };
        let big = order == ByteOrder::Big;
        self.out.put(escape, escape_bits, big);
        self.out.align(8, self.taken_bytes * 8);
        self.out.put(event.class.id, 32, big);
        self.out.put(event.clock.map_or(0, |clock| clock.cycles), 64, big);
        let (_, next) = event.record_bits();
        let body = (event.decoder.body_at_bits() / 8) as usize..next.div_ceil(8) as usize;
        let (bytes, odd) = (event.packet_bytes().get(body).unwrap_or_default(), next % 8);
        self.out.put_bytes(bytes);
        if odd > 0 {
            self.out.at -= 8 - odd;
        }
    }

    pub(super) fn encode(&mut self, class: &StreamClass, layout: &StreamLayout, event: &Event<'_>) {
        let base = self.taken_bytes * 8;
        let Some(own) = layout.events.get(event.decoder.event_class_position()) else {
            return;
        };
        for (scope, layout) in [
            (Scope::EventHeader, &layout.header),
            (Scope::CommonContext, &layout.common),
            (Scope::SpecificContext, &own.specific),
            (Scope::Payload, &own.payload),
        ] {
            let mut encoder = Encoder::new(&mut self.out, layout, base, &mut self.saved);
            if scope == Scope::EventHeader
                && let Some(clock) = event.clock
            {
                encoder.replace.set(Role::Timestamp, clock.cycles);
            }
            if let Some((plan, start)) = event.decoder.scope(class, scope) {
                event.decoder.visit_plan(plan, event.packet_bytes(), start, &mut encoder);
            }
        }
    }

    /// How many whole bytes of the packet were not taken yet.
    #[inline]
    pub fn pending_size_bytes(&self) -> usize {
        (self.out.at / 8) as usize
    }

    /// The whole bytes of the packet that were not taken yet.
    pub fn pending(&self) -> &[u8] {
        &self.out.bytes[..(self.out.at / 8) as usize]
    }

    /// Forgets [`pending`](Self::pending): they are written.
    pub fn take_pending(&mut self) {
        self.drop_ahead();
        let whole = (self.out.at / 8) as usize;
        if self.taken_bytes == 0 {
            let head = (self.head_size_bits.div_ceil(8) as usize).min(whole);
            self.head.clear();
            self.head.extend_from_slice(&self.out.bytes[..head]);
        }
        self.out.bytes.drain(..whole);
        self.out.at -= whole as u64 * 8;
        self.taken_bytes += whole as u64;
    }

    /// Ends the packet: sets its sizes and these values, pads it to a whole byte.
    pub fn end(&mut self, values: PacketValues) -> Finished<'_> {
        self.drop_ahead();
        let content_size_bits = self.taken_bytes * 8 + self.out.at;
        self.out.align(8, self.taken_bytes * 8);
        let packet_size_bits = self.taken_bytes * 8 + self.out.at;
        let whole = (self.out.at / 8) as usize;
        let taken = self.taken_bytes > 0;
        if taken && self.head.len() < self.head_size_bits.div_ceil(8) as usize {
            // The head's last byte was shared with a record and not taken with it.
            self.head.extend(self.out.bytes.first());
        }
        let head = if taken { &mut self.head } else { &mut self.out.bytes };
        let sizes =
            [(Role::PacketSize, Some(packet_size_bits)), (Role::ContentSize, Some(content_size_bits))];
        for (role, value) in sizes.into_iter().chain(values.roles()) {
            for place in self.places.iter().filter(|place| place.role == role) {
                if let Some(value) = value {
                    place.patch(head, value);
                }
            }
        }
        self.open = false;
        Finished {
            head: taken.then_some(self.head.as_slice()),
            rest: &self.out.bytes[..whole],
            content_size_bits,
            packet_size_bits,
        }
    }
}

impl<'a> Event<'a> {
    /// The packet that the event is in, given what its head says.
    pub fn packet(&self, info: &'a PacketInfo) -> Packet<'a> {
        Packet { stream: self.stream, clock: None, info, bytes: self.bytes, decoder: self.decoder }
    }
}

/// The head of a packet that is copied as it is, with other values in its context. `scratch` is
/// any writer without an open packet; the rest of the packet follows at the length of the result.
pub fn patch_packet(
    scratch: &mut PacketWriter,
    trace: &TraceWriter,
    packet: &Packet<'_>,
    values: PacketValues,
) -> Vec<u8> {
    let Some(layout) = trace.layout.streams.get(packet.stream.class.index) else {
        return Vec::new();
    };
    scratch.encode_head(trace, layout, packet, PacketValues::default());
    let size = (packet.info.header_size_bits.div_ceil(8) as usize).min(packet.bytes.len());
    let mut head = packet.bytes[..size].to_vec();
    for (role, value) in values.roles() {
        for place in scratch.places.iter().filter(|place| place.role == role) {
            if let Some(value) = value {
                place.patch(&mut head, value);
            }
        }
    }
    scratch.out.clear();
    head
}

fn align_of(layout: &StreamLayout, event: &Event<'_>) -> u64 {
    let own = layout.events.get(event.decoder.event_class_position());
    own.map_or(1, |own| layout.common.align_max.max(own.specific.align_max).max(own.payload.align_max))
}

/// Fewest bits of a timestamp that a copied header can have; 64 without any.
fn fewest_time_bits(plan: &Plan) -> u32 {
    let sizes = plan.nodes.iter().filter(|node| node.roles.contains(Role::Timestamp)).map(|node| {
        match super::layout::same(&node.class).form {
            Form::Fixed { size, .. } => size,
            _ => 7,
        }
    });
    sizes.min().unwrap_or(64)
}

/// Fewest bits of a timestamp in a header that is encoded.
fn fewest_bits(plan: &Plan, layout: &Layout) -> u32 {
    let sizes = plan.nodes.iter().zip(&layout.slots).filter(|(node, _)| node.roles.contains(Role::Timestamp));
    let sizes = sizes.map(|(_, slot)| match slot.form {
        Form::Fixed { size, .. } => size,
        _ => 64,
    });
    sizes.min().unwrap_or(64)
}
