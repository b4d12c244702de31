//! The contract of one ring, step by step: what is published is read back by an independent
//! decoder, in both producer kinds, both header forms, and all three ways of being full.

mod support;

use sillage_ring::layout::LostReason;
use sillage_ring::{Cut, Emit, Geometry, HeaderForm, Kind, Slot};
use support::*;

fn each_kind_and_form(mut test: impl FnMut(Geometry)) {
    for kind in [Kind::Rseq, Kind::Locked] {
        for header in [HeaderForm::Large, HeaderForm::Compact] {
            test(Geometry { header, ..geometry(kind, 12, 4) });
        }
    }
}

/// Emits `count` records with payloads of growing length; returns the outcomes.
fn emit_many(rings: &Rings, first: u64, count: u64) -> Vec<Emit> {
    let (producer, mut stage, mut bytes) = (rings.producer(), Stage::new(1024), Vec::new());
    (first..first + count)
        .map(|number| {
            payload(5, number, (number % 300) as usize, &mut bytes);
            let id = if number % 16 == 7 { 70_000 } else { (number % 30) as u32 };
            stage.emit(&producer, id, &bytes)
        })
        .collect()
}

fn summary(rings: &Rings, collector: &Collector) -> Summary {
    let mut summary = Summary::default();
    for stream in &collector.streams {
        summary.add(rings.set.geometry().header, stream);
    }
    summary
}

#[test]
fn records_come_back_whole_in_order_and_inside_their_packets() {
    pin(0);
    each_kind_and_form(|g| {
        let rings = Rings::new(g);
        let mut collector = Collector::new(&rings.set);
        let mut number = 1;
        for round in 0..200 {
            let outcomes = emit_many(&rings, number, 20);
            assert!(outcomes.iter().all(|o| matches!(o, Emit::Published | Emit::Opened)), "{outcomes:?}");
            number += 20;
            collector.poll(&rings.set, if round % 3 == 0 { Cut::Open } else { Cut::Never });
        }
        collector.poll(&rings.set, Cut::Open);
        let s = summary(&rings, &collector);
        assert_eq!(s.numbers[&5], (1..number).collect::<Vec<_>>());
        assert!(s.extended >= 200 && s.packets > 60, "{g:?} {s:?}");
        assert_eq!((s.discarded, s.sequence_gaps), (0, 0));
    });
}

#[test]
fn a_full_ring_says_so_and_the_loss_stands_in_the_packet_in_which_it_happened() {
    pin(0);
    each_kind_and_form(|g| {
        let rings = Rings::new(g);
        let producer = rings.producer();
        let outcomes = emit_many(&rings, 0, 400);
        let refused = outcomes.iter().filter(|o| matches!(o, Emit::Full { .. })).count() as u64;
        assert!(refused > 100, "{g:?}");
        assert!(outcomes.iter().all(|o| !matches!(o, Emit::Full { cpu } if *cpu != 0)));
        (0..refused).for_each(|_| producer.count_lost(0, LostReason::Full));
        assert!(producer.room(0).is_some(), "a producer may wait");
        let mut collector = Collector::new(&rings.set);
        collector.poll(&rings.set, Cut::Never);
        assert!(producer.room(0).is_none(), "what was consumed is free again");
        assert!(collector.streams[0].iter().all(|p| p.discarded == 0), "closed before the loss");
        emit_many(&rings, 1000, 1);
        collector.poll(&rings.set, Cut::Open);
        let s = summary(&rings, &collector);
        assert_eq!((s.discarded, s.records), (refused, 401 - refused));
    });
}

#[test]
fn overwriting_keeps_the_newest_and_shows_the_gap_in_the_sequence_numbers() {
    pin(0);
    each_kind_and_form(|g| {
        let rings = Rings::new(Geometry { overwrite: true, ..g });
        let outcomes = emit_many(&rings, 0, 400);
        assert!(outcomes.iter().all(|o| matches!(o, Emit::Published | Emit::Opened)));
        let mut collector = Collector::new(&rings.set);
        collector.poll(&rings.set, Cut::Never);
        emit_many(&rings, 400, 400);
        collector.poll(&rings.set, Cut::Open);
        let s = summary(&rings, &collector);
        assert!(s.sequence_gaps > 3 && collector.overwritten() > s.sequence_gaps, "{s:?}");
        assert_eq!(s.numbers[&5].last(), Some(&799));
        assert_eq!(s.discarded, 0);
    });
}

#[test]
fn a_cpu_that_only_lost_records_gets_one_empty_packet() {
    pin(0);
    let rings = Rings::new(geometry(Kind::Rseq, 12, 4));
    let mut stage = Stage::new(8192);
    let producer = rings.producer();
    let outcome = stage.emit(&producer, 1, &[0; 5000]);
    assert_eq!(outcome, Emit::Lost(LostReason::TooLarge));
    let mut collector = Collector::new(&rings.set);
    collector.poll(&rings.set, Cut::Open);
    collector.poll(&rings.set, Cut::Open);
    let [only] = &collector.streams[0][..] else { panic!("{:?}", collector.streams) };
    assert_eq!((only.discarded, only.body.len(), only.sequence), (1, 0, 0));
    // A later record begins after that packet's end.
    emit_many(&rings, 1, 3);
    collector.poll(&rings.set, Cut::Open);
    assert_eq!(summary(&rings, &collector).records, 3);
}

#[test]
fn a_closed_ring_takes_nothing_and_counts_nothing() {
    pin(0);
    for kind in [Kind::Rseq, Kind::Locked] {
        let rings = Rings::new(geometry(kind, 12, 4));
        emit_many(&rings, 1, 2);
        rings.set.close_all();
        assert_eq!(emit_many(&rings, 3, 1), [Emit::Closed]);
        let mut collector = Collector::new(&rings.set);
        collector.poll(&rings.set, Cut::Open);
        let s = summary(&rings, &collector);
        assert_eq!((s.records, s.discarded), (2, 0));
    }
}

#[test]
fn a_cpu_number_outside_the_set_is_counted_not_followed() {
    let last = possible_cpus() - 1;
    if last == 0 {
        println!("skipped: one CPU");
        return;
    }
    let rings = Rings::new(Geometry { cpus: last, ..geometry(Kind::Rseq, 12, 4) });
    pin(last);
    assert_eq!(emit_many(&rings, 1, 1), [Emit::Lost(LostReason::NoCpu)]);
    assert_eq!(rings.set.lost(0)[LostReason::NoCpu as usize], 1);
}

#[test]
fn a_thousand_cpus_cost_no_page_until_they_record() {
    pin(0);
    let rings = Rings::new(Geometry { cpus: 1024, ..geometry(Kind::Rseq, 19, 4) });
    let before = rings.set_memory.pages_used();
    assert_eq!(before, 1, "the header page");
    emit_many(&rings, 1, 1);
    let mut collector = Collector::new(&rings.set);
    collector.poll(&rings.set, Cut::Open);
    // The control page and the first data page of one ring.
    assert!(rings.set_memory.pages_used() <= before + 3, "{}", rings.set_memory.pages_used());
    assert_eq!(summary(&rings, &collector).records, 1);
}

#[test]
fn time_is_the_pages_while_it_is_fresh_the_kernels_when_not_and_never_goes_back() {
    pin(0);
    for ordered in [false, true] {
        let rings = Rings::new(Geometry { ordered, ..geometry(Kind::Rseq, 14, 4) });
        let mut ticker = Ticker::start(rings.clock());
        let mut collector = Collector::new(&rings.set);
        let before = monotonic_ns();
        emit_many(&rings, 1, 5);
        let fresh = monotonic_ns();
        // A clock that stepped back by a second: the ring holds its time.
        let (tsc, ns) = clock_pair();
        let back =
            Slot { base_tsc: tsc, base_ns: ns - 1_000_000_000, multiplier: 1 << 30, limit_ticks: 1 << 29 };
        rings.clock().publish(back);
        emit_many(&rings, 6, 5);
        // No usable TSC: the kernel's clock.
        rings.clock().publish(Slot::UNUSABLE);
        emit_many(&rings, 11, 5);
        ticker.tick(rings.clock());
        emit_many(&rings, 16, 5);
        collector.poll(&rings.set, Cut::Open);
        let records: Vec<Record> =
            collector.streams.iter().flatten().flat_map(|p| decode(HeaderForm::Large, p)).collect();
        assert_eq!(records.len(), 20);
        let near = |ts: u64, low: u64, high: u64| ts + 2_000 >= low && ts <= high + 2_000;
        assert!(records[..5].iter().all(|r| near(r.ts, before, fresh)), "{records:?}");
        assert!(records[5..10].iter().all(|r| r.ts == records[4].ts), "held: {records:?}");
        assert!(records[10..].iter().all(|r| near(r.ts, fresh, monotonic_ns())), "{records:?}");
    }
}

#[test]
fn a_restarted_consumer_goes_on_where_the_files_end() {
    use sillage_ring::Cursor;
    pin(0);
    let rings = Rings::new(geometry(Kind::Rseq, 12, 4));
    emit_many(&rings, 1, 10);
    let mut scratch = Vec::new();
    let mut first = Cursor::resume(&rings.set, 0, None);
    let p = first.next(&rings.set, Cut::Open, monotonic_ns(), &mut scratch).unwrap().unwrap();
    // Killed after `next`: whether the packet reached the files decides.
    let mut unwritten = Cursor::resume(&rings.set, 0, None);
    let again = unwritten.next(&rings.set, Cut::Open, monotonic_ns(), &mut scratch).unwrap().unwrap();
    assert_eq!((again.sequence, again.body_bytes), (p.sequence, p.body_bytes));
    let mut written = Cursor::resume(&rings.set, 0, Some(p.sequence));
    assert_eq!(written.next(&rings.set, Cut::Open, monotonic_ns(), &mut scratch).unwrap(), None);
    emit_many(&rings, 11, 1);
    let next = written.next(&rings.set, Cut::Open, monotonic_ns(), &mut scratch).unwrap().unwrap();
    assert_eq!(next.sequence, p.sequence + 1);
    assert!(next.begin_ts >= p.end_ts);
}
