//! One packet: its header and context, then its event records one by one.
//!
//! A [`PacketDecoder`] belongs to one stream and keeps what goes on from packet to packet: the
//! clock. It is given the packet's bytes with every call and holds none itself. Times only ever
//! come from the fields; whether they make sense is not judged here.

use std::cell::Cell;

use super::columns::Columns;
use super::header::{FastHeader, NO_CLASS};
use super::plan::{Node, Plan};
use super::records::{BATCH, Compact, Known, Large, Record, Search, extended, update_clock};
use super::table::Tables;
use super::walk::{FieldVisitor, Input, Stop, pass_over, walk, walk_all};
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
///
/// Records are found some at a time ahead of the one stood on; nobody sees that but the clock of
/// the machine. A fault among them comes when the records before it were given.
#[derive(Debug)]
pub struct PacketDecoder {
    /// Records found at once.
    batch: usize,
    slots: Vec<Cell<u64>>,
    /// Clock of the stream after the records found, in cycles.
    clock: u64,
    /// Start of the record after those found.
    next: u64,
    /// End of the content.
    end: u64,
    context_at: u64,
    /// Records found and their clocks; the one at `current` is stood on.
    records: Vec<Record>,
    clocks: Vec<u64>,
    current: usize,
    /// What ended the search for records.
    failure: Option<Box<DecodeError>>,
    /// Clock at the last record found, of this packet or one before.
    last_record: u64,
    /// The clock at a record and at the one after it, which was earlier.
    went_back: Option<(u64, u64)>,
    pub(super) tables: Tables,
}

/// A record's header: id, time and its bits, where the body starts.
type Header = (u32, u64, u32, u64);

impl Default for PacketDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketDecoder {
    /// A decoder whose clock is at 0.
    pub fn new() -> Self {
        Self::with_batch(BATCH)
    }

    /// A decoder that finds up to so many records at once, at least one: fewer take less memory.
    pub fn with_batch(records: usize) -> Self {
        Self {
            batch: records.clamp(1, BATCH),
            slots: Vec::new(),
            clock: 0,
            next: 0,
            end: 0,
            context_at: 0,
            records: Vec::new(),
            clocks: Vec::new(),
            current: 0,
            failure: None,
            last_record: 0,
            went_back: None,
            tables: Tables::default(),
        }
    }

    /// The stream's clock at the current record; when there is none, after what was decoded last.
    #[inline]
    pub fn clock(&self) -> u64 {
        match self.clocks_at_hand().first() {
            Some(clock) => *clock,
            None => self.clock,
        }
    }

    /// Bit offset in the packet at which the current record starts.
    pub fn event_at_bits(&self) -> u64 {
        self.record().map_or(self.next, |record| record.at)
    }

    /// Bit offset in the packet at which the record after the current one would start.
    #[inline]
    pub fn next_at_bits(&self) -> u64 {
        self.record().map_or(self.next, Record::next)
    }

    /// Where the current record goes on after its header, in bits.
    #[inline]
    pub(crate) fn body_at_bits(&self) -> u64 {
        self.record().map_or(self.next, |record| record.at + u64::from(record.starts[0]))
    }

    /// The record stood on.
    #[inline]
    pub(super) fn record(&self) -> Option<&Record> {
        self.records.get(self.current)
    }

    fn input<'a>(&'a self, data: &'a [u8]) -> Input<'a> {
        Input { data, end: self.end.min((data.len() as u64).saturating_mul(8)), slots: &self.slots }
    }

    /// Starts a packet: reads header and context, sets the clock from them, checks the sizes.
    /// `data` is the whole packet, or all that there is when the packet does not tell its size.
    ///
    /// # Errors
    /// As [`PacketInfo::read`] and [`PacketInfo::sizes`]; no event can be read then.
    pub fn start(&mut self, trace: &TraceClass, data: &[u8]) -> Result<PacketInfo, Box<DecodeError>> {
        self.tables.reset_packet();
        self.forget_records();
        self.end = 0;
        self.next = 0;
        let info = self.read_info(trace, data)?;
        let (content, _) = info.sizes(data.len() as u64)?;
        self.end = content;
        self.next = info.header_size_bits;
        self.context_at = info.context_at_bits;
        Ok(info)
    }

    fn forget_records(&mut self) {
        self.records.clear();
        self.clocks.clear();
        self.current = 0;
        self.failure = None;
    }

    fn read_info(&mut self, trace: &TraceClass, data: &[u8]) -> Result<PacketInfo, Box<DecodeError>> {
        grow(&mut self.slots, trace.stream_classes.iter().map(|c| c.plan.slot_count).max());
        let end = (data.len() as u64).saturating_mul(8);
        let input = Input { data, end, slots: &self.slots };
        let mut visitor =
            PacketVisitor { info: PacketInfo::default(), clock: self.clock, magic: None, uuid: None };
        let plan = &trace.header_plan;
        let at = walk_all(plan, input, 0, &mut visitor)
            .map_err(|stop| located(*stop, plan, Scope::PacketHeader, None))?;
        visitor.check(trace)?;
        let id = visitor.info.stream_class_id;
        let class =
            trace.stream_class(id).ok_or_else(|| DecodeError::new(at, Fault::UnknownStreamClass(id)))?;
        let plan = &class.plan.context;
        visitor.info.context_at_bits = at;
        let at = walk_all(plan, input, at, &mut visitor)
            .map_err(|stop| located(*stop, plan, Scope::PacketContext, None))?;
        visitor.info.header_size_bits = at;
        self.clock = visitor.clock;
        Ok(visitor.info)
    }

    /// Goes to the next record if it was found already, and gives its clock; else
    /// [`next_event`](Self::next_event) has to look for it.
    #[inline]
    pub fn step(&mut self) -> Option<u64> {
        let clock = *self.clocks_at_hand().get(1)?;
        self.current += 1;
        self.tables.reset_event();
        Some(clock)
    }

    /// Goes to the first of the records found already, behind the current one, whose clock is not
    /// early; to the last of them, and false, when all are.
    pub fn pass_found(&mut self, early: impl Fn(u64) -> bool) -> bool {
        self.tables.reset_event();
        let later = self.clocks_at_hand().get(1..).unwrap_or_default();
        match later.iter().position(|clock| !early(*clock)) {
            Some(passed) => {
                self.current += 1 + passed;
                true
            }
            None => {
                self.current += later.len();
                false
            }
        }
    }

    /// Goes on by some records, all of them found already.
    #[inline]
    pub fn pass(&mut self, count: usize) {
        self.current = self.current.saturating_add(count).min(self.records.len());
        self.tables.reset_event();
    }

    /// Goes to the next record, which was found already: see [`clocks_at_hand`](Self::clocks_at_hand).
    /// Without one there is no current record after it.
    #[inline]
    pub fn step_at_hand(&mut self) {
        self.current += 1;
        self.tables.reset_event();
    }

    /// Position of the current record among those that were found together, from 0.
    #[inline]
    pub fn position_at_hand(&self) -> usize {
        self.current
    }

    /// Clocks in cycles of the records found already, from the current one on: for whoever puts the
    /// records of several streams in order some at a time. Empty when there is no current record.
    #[inline]
    pub fn clocks_at_hand(&self) -> &[u64] {
        self.clocks.get(self.current..).unwrap_or_default()
    }

    /// Goes to the next record; false at the end of the content. `class` and `data` are those of
    /// the packet that was started (the class may have grown).
    ///
    /// # Errors
    /// Any fault of the record. The packet has no further records then.
    #[inline]
    pub fn next_event(&mut self, class: &StreamClass, data: &[u8]) -> Result<bool, Box<DecodeError>> {
        if self.step().is_some() {
            return Ok(true);
        }
        self.find_records(class, data)
    }

    /// Finds records until a batch is full, the content ends, or one is not right.
    #[inline(never)]
    fn find_records(&mut self, class: &StreamClass, data: &[u8]) -> Result<bool, Box<DecodeError>> {
        self.tables.reset_event();
        self.current = 0;
        if let Some(failure) = self.failure.take() {
            self.records.clear();
            self.clocks.clear();
            return Err(failure);
        }
        grow(&mut self.slots, Some(class.plan.slot_count));
        self.records.resize(self.batch, Record::default());
        self.clocks.resize(self.batch, 0);
        let count = self.fill(class, data);
        self.records.truncate(count);
        self.clocks.truncate(count);
        match self.failure.take_if(|_| count == 0) {
            Some(failure) => Err(failure),
            None => Ok(count > 0),
        }
    }

    /// Fills the columns from their beginning; gives how many records there are.
    fn fill(&mut self, class: &StreamClass, data: &[u8]) -> usize {
        let content = &data[..data.len().min((self.end / 8) as usize)];
        let mut count = 0;
        while count < self.batch && self.next < self.end {
            count += self.find_quickly(class, content, count);
            if count == self.batch || self.next >= self.end {
                break;
            }
            match self.find_by_plan(class, data) {
                Ok(Some(record)) => {
                    self.records[count] = record;
                    self.clocks[count] = self.clock;
                    count += 1;
                    self.next = record.next();
                    self.watch_clock(self.clock);
                }
                Ok(None) => self.next = self.end,
                Err(failure) => {
                    self.next = self.end;
                    self.failure = Some(failure);
                }
            }
        }
        count
    }

    /// Finds records behind headers of LTTng's short forms, up to the first that takes the walk.
    fn find_quickly(&mut self, class: &StreamClass, content: &[u8], from: usize) -> usize {
        let known = Known { quick: &class.plan.quick, ends: &class.plan.ends };
        let mut search =
            Search { content, end: self.end, clock: self.clock, next: self.next, went_back: None };
        let (clocks, records) = (&mut self.clocks[from..], &mut self.records[from..]);
        let found = match class.plan.fast {
            FastHeader::Large(ByteOrder::Little) => search.find::<Large<false>>(known, clocks, records),
            FastHeader::Large(ByteOrder::Big) => search.find::<Large<true>>(known, clocks, records),
            FastHeader::Compact(ByteOrder::Little) => search.find::<Compact<false>>(known, clocks, records),
            FastHeader::Compact(ByteOrder::Big) => search.find::<Compact<true>>(known, clocks, records),
            FastHeader::None => 0,
        };
        if found > 0 {
            self.watch_clock(self.clocks[from]);
            self.went_back = self.went_back.or(search.went_back);
            self.last_record = search.clock;
        }
        self.clock = search.clock;
        self.next = search.next;
        found
    }

    /// Finds the end of the record at `next` field by field; `None` when only padding is left.
    fn find_by_plan(&mut self, class: &StreamClass, data: &[u8]) -> Result<Option<Record>, Box<DecodeError>> {
        let start = self.next;
        let plan = &*class.plan.header;
        let aligned = start.next_multiple_of(plan.align);
        if aligned >= self.end && plan.align > 1 {
            return Ok(None);
        }
        let mut clock = self.clock;
        let input = self.input(data);
        let bytes = input.data.get((aligned / 8) as usize..(input.end / 8) as usize).unwrap_or_default();
        let header = match class.plan.fast {
            FastHeader::Large(order) => large(bytes, order),
            FastHeader::Compact(order) => compact(bytes, order),
            FastHeader::None => None,
        };
        let (id, mut at) = if let Some((id, time, bits, size)) = header {
            update_clock(&mut clock, time, bits);
            (u64::from(id), aligned + size)
        } else {
            let mut visitor = HeaderVisitor { clock, id: None };
            let at = walk_all(plan, input, start, &mut visitor)
                .map_err(|stop| located(*stop, plan, Scope::EventHeader, None))?;
            clock = visitor.clock;
            (visitor.id.unwrap_or(0), at)
        };
        let quick = usize::try_from(id).ok().and_then(|id| class.plan.quick.get(id));
        let position = match quick {
            Some(quick) => Some(quick.class).filter(|class| *class != NO_CLASS),
            None => class.by_id.get(&id).copied(),
        };
        let Some(position) = position else {
            let fault = Fault::UnknownEventClass { id, stream_class_id: class.id };
            return Err(DecodeError::new(start, fault));
        };
        let Some(event) = class.event_classes.get(position as usize) else {
            return Ok(None);
        };
        let mut starts = [0; 3];
        for (from, (plan, scope)) in starts.iter_mut().zip([
            (&class.plan.common, Scope::CommonContext),
            (&event.plan.specific, Scope::SpecificContext),
            (&event.plan.payload, Scope::Payload),
        ]) {
            *from = match u32::try_from(at - aligned) {
                Ok(from) => from,
                Err(_) => return Err(DecodeError::new(at, Fault::TooFar)),
            };
            // A scope of known size, above all an empty one, needs no walk.
            if let Some(bits) = plan.fixed_bits
                && let after = at.next_multiple_of(plan.align).saturating_add(bits)
                && after <= input.end
            {
                at = after;
                continue;
            }
            at = pass_over(plan, input, at).map_err(|stop| located(*stop, plan, scope, Some(event)))?;
        }
        if at == start {
            return Err(DecodeError::new(start, Fault::EmptyEvent));
        }
        let Ok(size) = u32::try_from(at - aligned) else {
            return Err(DecodeError::new(at, Fault::TooFar));
        };
        self.clock = clock;
        Ok(Some(Record { at: aligned, class: position, starts, size }))
    }

    /// Where the clock went back since the last call, the first time: in cycles, at a record and at
    /// the one after it. Records that are found ahead count too.
    pub fn take_went_back(&mut self) -> Option<(u64, u64)> {
        self.went_back.take()
    }

    /// Remembers the clock at a record that was found by itself or began a run.
    fn watch_clock(&mut self, clock: u64) {
        if clock < self.last_record {
            self.went_back.get_or_insert((self.last_record, clock));
        }
        self.last_record = clock;
    }

    /// Leaves out the rest of the packet's records.
    pub fn skip_rest(&mut self) {
        self.records.truncate(self.current + 1);
        self.clocks.truncate(self.current + 1);
        self.failure = None;
        self.next = self.end;
    }

    /// Position in its stream class of the class of the current record; `usize::MAX` when there is
    /// no record.
    #[inline]
    pub fn event_class_position(&self) -> usize {
        self.record().map_or(usize::MAX, |record| record.class as usize)
    }

    /// The plan and start of a scope of the current packet and record.
    pub(crate) fn scope<'a>(&self, class: &'a StreamClass, scope: Scope) -> Option<(&'a Plan, u64)> {
        if scope == Scope::PacketContext {
            let plan = &*class.plan.context;
            return (!plan.nodes.is_empty()).then_some((plan, self.context_at));
        }
        scope_of(self.record()?, class, scope)
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
        if scope != Scope::EventHeader
            && let Some(whole) = &plan.whole
        {
            whole.visit(&plan.nodes, (data, start), &self.slots, visitor);
            return true;
        }
        self.walk_scope(class, data, scope, (self.record(), plan, start), visitor)
    }

    /// Walks the scopes of the current record that have fields of the event, one after the other.
    #[inline]
    pub(crate) fn visit_body<V: FieldVisitor>(&self, class: &StreamClass, data: &[u8], visitor: &mut V) {
        let Some(record) = self.record() else { return };
        let Some(event) = class.event_classes.get(record.class as usize) else { return };
        for (plan, start, scope) in [
            (&*class.plan.common, record.starts[0], Scope::CommonContext),
            (&*event.plan.specific, record.starts[1], Scope::SpecificContext),
            (&*event.plan.payload, record.starts[2], Scope::Payload),
        ] {
            let start = record.at + u64::from(start);
            if let Some(whole) = &plan.whole {
                whole.visit(&plan.nodes, (data, start), &self.slots, visitor);
            } else if !plan.nodes.is_empty() {
                self.walk_scope(class, data, scope, (Some(record), plan, start), visitor);
            }
        }
    }

    /// Walks a scope of the record at a position of those at hand, counted from the current one.
    pub(super) fn visit_at_hand<V: FieldVisitor>(
        &self,
        position: usize,
        class: &StreamClass,
        data: &[u8],
        scope: Scope,
        visitor: &mut V,
    ) -> bool {
        let Some(record) = self.records_at_hand().get(position) else { return false };
        let Some((plan, start)) = scope_of(record, class, scope) else { return false };
        self.walk_scope(class, data, scope, (Some(record), plan, start), visitor)
    }

    /// The records found already, from the current one on.
    pub(super) fn records_at_hand(&self) -> &[Record] {
        self.records.get(self.current..).unwrap_or_default()
    }

    /// Passes over all records at hand but the last, so that [`next_event`](Self::next_event) finds
    /// others.
    pub fn pass_at_hand(&mut self) {
        self.current = self.current.max(self.records.len().saturating_sub(1));
        self.tables.reset_event();
    }

    /// The records at hand, from the current one on, as columns. `class` and `data` are those of the
    /// packet that was started.
    pub fn columns<'a>(&'a self, class: &'a StreamClass, data: &'a [u8]) -> Columns<'a> {
        Columns { class, data, decoder: self, rows: (0, self.records_at_hand().len()) }
    }

    /// Walks a scope whose fields are not all where they always are.
    #[inline(never)]
    fn walk_scope<V: FieldVisitor>(
        &self,
        class: &StreamClass,
        data: &[u8],
        scope: Scope,
        (record, plan, start): (Option<&Record>, &Plan, u64),
        visitor: &mut V,
    ) -> bool {
        if plan.refers_to_others
            && let Some(record) = record
        {
            self.refresh_slots(record, class, data, scope);
        }
        let input = self.input(data);
        let result = if scope == Scope::EventHeader {
            walk_all(plan, input, start, visitor)
        } else {
            walk(plan, input, start, visitor)
        };
        result.is_ok()
    }

    /// Decodes the record's scopes before this one again: lengths and selectors in them are those
    /// of the last record found, not of the current one.
    fn refresh_slots(&self, record: &Record, class: &StreamClass, data: &[u8], scope: Scope) {
        for before in [Scope::EventHeader, Scope::CommonContext, Scope::SpecificContext] {
            if before < scope
                && let Some((plan, start)) = scope_of(record, class, before)
            {
                let _ = pass_over(plan, self.input(data), start);
            }
        }
    }

    /// Walks all fields of a scope, hidden ones too, from a place where it was decoded before.
    pub(crate) fn visit_plan<V: FieldVisitor>(&self, plan: &Plan, data: &[u8], start: u64, visitor: &mut V) {
        if !plan.nodes.is_empty() {
            // The same bytes were walked when the packet or record was found.
            let _ = walk_all(plan, self.input(data), start, visitor);
        }
    }
}

/// The plan and start of a record's scope, if it has fields.
#[inline]
fn scope_of<'a>(record: &Record, class: &'a StreamClass, scope: Scope) -> Option<(&'a Plan, u64)> {
    let event = || class.event_classes.get(record.class as usize);
    let (plan, start) = match scope {
        Scope::PacketHeader | Scope::PacketContext => return None,
        Scope::EventHeader => (&*class.plan.header, 0),
        Scope::CommonContext => (&*class.plan.common, record.starts[0]),
        Scope::SpecificContext => (&*event()?.plan.specific, record.starts[1]),
        Scope::Payload => (&*event()?.plan.payload, record.starts[2]),
    };
    (!plan.nodes.is_empty()).then_some((plan, record.at + u64::from(start)))
}

/// Reads a large header: id, time, bits of time, size in bits.
fn large(bytes: &[u8], order: ByteOrder) -> Option<Header> {
    let [a, b, time @ ..] = *bytes.first_chunk::<6>()?;
    let (id, time) = match order {
        ByteOrder::Little => (u16::from_le_bytes([a, b]), u32::from_le_bytes(time)),
        ByteOrder::Big => (u16::from_be_bytes([a, b]), u32::from_be_bytes(time)),
    };
    if id != u16::MAX {
        return Some((u32::from(id), u64::from(time), 32, 48));
    }
    let (id, time) = extended(bytes.get(2..)?, order)?;
    Some((id, time, 64, 112))
}

/// Reads a compact header, likewise.
fn compact(bytes: &[u8], order: ByteOrder) -> Option<Header> {
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
        return Some((id, u64::from(time), 27, 32));
    }
    let (id, time) = extended(bytes.get(1..)?, order)?;
    Some((id, time, 64, 104))
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
