//! Counts the messages of traces, or touches every field, or reads batches:
//! `iterate [--fields | --columns] [--threads N] PATH…`.
//!
//! The floor of every reader: nothing but decoding and merging. Prints what it counted, the time
//! that it took and its peak anonymous memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use sillage_ctf::model::{EventClass, FieldKind, Member, Scope};
use sillage_ctf::{FieldVisitor, Message, Node, Picked, Scalar, Scalars};
use sillage_pipeline::sources::{Options, SliceRange, Source, open_all};
use sillage_pipeline::{Error, Messages, Status};

/// Adds up what it sees, so that nothing can be left out.
#[derive(Default)]
struct Sum(u64);

impl FieldVisitor for Sum {
    fn unsigned(&mut self, _: &Node, value: u64) {
        self.0 = self.0.wrapping_add(value);
    }
    fn signed(&mut self, _: &Node, value: i64) {
        self.0 = self.0.wrapping_add(value.cast_unsigned());
    }
    fn boolean(&mut self, _: &Node, value: bool) {
        self.0 += u64::from(value);
    }
    fn bits(&mut self, _: &Node, value: u64) {
        self.0 = self.0.wrapping_add(value);
    }
    fn real(&mut self, _: &Node, value: f64) {
        self.0 ^= value.to_bits();
    }
    fn text(&mut self, _: &Node, value: &[u8]) {
        self.0 += value.len() as u64;
    }
    fn blob(&mut self, _: &Node, value: &[u8]) {
        self.0 += value.len() as u64;
    }
    fn scalars(&mut self, _: &Node, array: Scalars<'_>) -> bool {
        for value in array.iter() {
            let value = match value {
                Scalar::Unsigned(value) | Scalar::Bits(value) => value,
                Scalar::Signed(value) => value.cast_unsigned(),
                Scalar::Bool(value) => u64::from(value),
                Scalar::Real(value) => value.to_bits(),
            };
            self.0 = self.0.wrapping_add(value);
        }
        true
    }
}

#[derive(Default)]
struct Totals {
    events: u64,
    others: u64,
    sum: Sum,
}

fn read<const FIELDS: bool>(source: &Source, range: SliceRange) -> Result<Totals, Error> {
    let mut totals = Totals::default();
    let mut messages = source.messages_in(range)?;
    while messages.advance()? == Status::Ready {
        match messages.current() {
            Some(Message::Event(event)) => {
                totals.events += 1;
                if FIELDS {
                    totals.sum.0 ^= event.clock.map_or(0, |clock| clock.cycles);
                    event.visit_body(&mut totals.sum);
                }
            }
            Some(Message::PacketBegin(packet)) => {
                totals.others += 1;
                if FIELDS {
                    packet.visit_context(&mut totals.sum);
                }
            }
            _ => totals.others += 1,
        }
    }
    Ok(totals)
}

/// Every event's time and first integer, stream by stream.
fn read_columns(source: &Source) -> Result<Totals, Error> {
    let mut totals = Totals::default();
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for mut reader in source.columns() {
        let class = reader.stream().class.clone();
        let first = |(position, event): (usize, &Arc<EventClass>)| {
            let root = event.payload.as_ref()?.as_struct()?;
            let integer = |member: &&Member| matches!(member.class.kind, FieldKind::Integer(_));
            let name = &root.members.iter().find(integer)?.name;
            Picked::new(&class, position, Scope::Payload, name)
        };
        let picked: Vec<Picked> = class.event_classes.iter().enumerate().filter_map(first).collect();
        while let Some(batch) = reader.next_batch()? {
            totals.events += batch.columns.len() as u64;
            totals.sum.0 ^= batch.times_ns.iter().fold(0, |sum, ns| sum ^ ns.cast_unsigned());
            for field in &picked {
                rows.clear();
                values.clear();
                batch.columns.integers(field, &mut rows, &mut values);
                totals.sum.0 ^= values.iter().fold(0, |sum, value: &i64| sum ^ value.cast_unsigned());
            }
        }
    }
    Ok(totals)
}

fn anonymous_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon"));
    line.unwrap_or("RssAnon: unknown").to_owned()
}

fn main() -> Result<(), Error> {
    let mut fields = false;
    let mut columns = false;
    let mut threads = 1;
    let mut paths = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--fields" => fields = true,
            "--columns" => columns = true,
            "--threads" => threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1),
            path => paths.push(PathBuf::from(path)),
        }
    }
    let start = Instant::now();
    let source = open_all(&paths, &Options::default())?;
    let opened = start.elapsed();
    let slices = source.slices(threads)?;
    let work = if fields { read::<true> } else { read::<false> };
    let totals = std::thread::scope(|scope| {
        if columns {
            return read_columns(&source);
        }
        let workers: Vec<_> = slices.iter().map(|range| scope.spawn(|| work(&source, *range))).collect();
        let mut totals = Totals::default();
        for worker in workers {
            let part = worker.join().map_err(|_| Error::Other("a worker panicked".to_owned()))??;
            totals.events += part.events;
            totals.others += part.others;
            totals.sum.0 ^= part.sum.0;
        }
        Ok::<_, Error>(totals)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} events, {} other messages, check {:x}: {seconds:.3} s (open {:.1} ms), {:.1} M events/s, {}",
        totals.events,
        totals.others,
        totals.sum.0,
        opened.as_secs_f64() * 1e3,
        totals.events as f64 / seconds / 1e6,
        anonymous_kib(),
    );
    Ok(())
}
