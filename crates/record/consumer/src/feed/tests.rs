//! Feeds from a real ring to a disk in memory.

use super::*;
use crate::disk::fake::Fake;
use expect_test::expect;
use sillage_ring::{Emit, Geometry, HeaderForm, Host, Kind, Producer, STAGE_HEAD_BYTES, STAGE_TAIL_BYTES};
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[repr(align(64))]
struct Page([u64; 64]);
/// A clock page that says "ask the kernel".
static PAGE: Page = Page([0; 64]);

fn memory(overwrite: bool) -> Arc<RingMemory> {
    let geometry = Geometry {
        kind: Kind::Locked,
        cpus: 1,
        subbuf_shift: 12,
        subbuf_count: 4,
        overwrite,
        ordered: false,
        header: HeaderForm::Large,
    };
    Arc::new(RingMemory::create(geometry, 1).unwrap())
}

/// A producer on the daemon's own mapping: for the ring it is the same memory.
fn producer(memory: &RingMemory) -> Producer {
    let host = Host { monotonic_ns, cpu: || 5, tsc_allowed: true, rseq_offset: 0 };
    let (set, set_bytes, words, words_bytes) = memory.mapped();
    // SAFETY: the mapping outlives the test's producer; an all-zero page is a valid clock page.
    unsafe {
        Producer::from_mapping(set, set_bytes, words, words_bytes, PAGE.0.as_ptr().cast(), host).unwrap()
    }
}

fn emit(producer: &Producer, bytes: usize) -> Emit {
    let mut stage = vec![7; STAGE_HEAD_BYTES + bytes + STAGE_TAIL_BYTES];
    let thread = NonZeroUsize::new(64).unwrap();
    // SAFETY: the staging area has the room in front and behind that `emit` asks for.
    unsafe { producer.emit(thread, 3, stage.as_mut_ptr().add(STAGE_HEAD_BYTES), bytes) }
}

fn place(tracefile_bytes: u64, tracefile_count: u64) -> Arc<Place> {
    Arc::new(Place {
        dir: PathBuf::from("/t"),
        channel: "c".into(),
        uuid: [9; 16],
        stream_id: 1,
        tracefile_bytes,
        tracefile_count,
    })
}

fn feed(memory: &Arc<RingMemory>, place: Arc<Place>, disk: Fake, recover: bool) -> Feed<Fake> {
    let service = Service::default();
    Feed::new(Arc::clone(memory), place, Arc::default(), disk, service, 2, recover)
}

/// A ring, who writes into it, and who writes it to a disk with this much room.
fn traced(overwrite: bool, place: Arc<Place>, room_bytes: usize) -> (Arc<RingMemory>, Producer, Feed<Fake>) {
    let memory = memory(overwrite);
    let disk = Fake::default();
    disk.room.set(room_bytes);
    let feed = feed(&memory, place, disk, false);
    (Arc::clone(&memory), producer(&memory), feed)
}

fn counts(feed: &Feed<Fake>) -> String {
    let c = feed.counters.snapshot();
    let troubles = c.troubles.join("; ");
    let CountersSnapshot { dropped_packets, dropped_bytes, dropped_records, uncounted_packets, .. } = c;
    let dropped = match dropped_packets {
        0 => String::from("0 dropped"),
        n => format!(
            "{n} dropped {dropped_bytes} bytes {dropped_records} records ({uncounted_packets} uncounted)"
        ),
    };
    format!("{} packets {} bytes, {dropped}, {} overwritten {troubles}\n", c.packets, c.bytes, c.overwritten)
}

/// The index of `file`: sequence number, offset and content of each packet, and what its data begin with.
fn index(disk: &Fake, file: &str) -> String {
    let data = disk.bytes(&format!("/t/{file}"));
    let bytes = disk.bytes(&format!("/t/index/{file}.idx"));
    let (_, entries) = sillage_ctf::index::decode(&bytes).unwrap();
    entries
        .map(|e| {
            let at = e.offset_bytes as usize;
            let magic = u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
            let cpu = u32::from_le_bytes(data[at + 80..at + 84].try_into().unwrap());
            format!("{} @{at} {} {magic:x} cpu {cpu}\n", e.packet_seq_num, e.content_size_bits / 8)
        })
        .collect()
}

#[test]
fn full_sub_buffers_become_packets_and_a_cut_takes_the_rest() {
    let (_, producer, mut feed) = traced(false, place(0, 0), 1 << 20);
    for _ in 0..3 {
        assert_ne!(emit(&producer, 3000), Emit::Full { cpu: 0 });
    }
    assert_eq!(feed.drain(Cut::Never), Progress { packets: 2, more: false });
    assert_eq!(feed.drain(Cut::Open), Progress { packets: 1, more: false });
    assert_eq!(feed.drain(Cut::Open), Progress::default());
    expect![[r#"
        /t/c_2 12288
        /t/index/c_2.idx 232
    "#]]
    .assert_eq(&feed.disk.listing());
    expect![[r#"
        0 @0 3090 c1fc1fc1 cpu 5
        1 @4096 3090 c1fc1fc1 cpu 5
        2 @8192 3090 c1fc1fc1 cpu 5
    "#]]
    .assert_eq(&index(&feed.disk, "c_2"));
    expect![[r#"
        3 packets 9018 bytes, 0 dropped, 0 overwritten 
    "#]]
    .assert_eq(&counts(&feed));
}

#[test]
fn trace_files_of_limited_size_replace_the_oldest() {
    let (_, producer, mut feed) = traced(false, place(8192, 2), 1 << 20);
    for _ in 0..7 {
        emit(&producer, 3000);
        feed.drain(Cut::Open);
    }
    expect![[r#"
        /t/c_2_0 8192
        /t/c_2_1 4096
        /t/index/c_2_0.idx 160
        /t/index/c_2_1.idx 88
    "#]]
    .assert_eq(&feed.disk.listing());
    assert!(index(&feed.disk, "c_2_1").starts_with("6 @0"));
    assert!(index(&feed.disk, "c_2_0").starts_with("4 @0"));
}

#[test]
fn a_full_disk_costs_whole_packets_that_are_counted_and_writing_goes_on_when_there_is_room() {
    // Room for one packet and its entry, and for half of the next.
    let (_, producer, mut feed) = traced(false, place(0, 0), 4096 + 88 + 2000);
    for _ in 0..3 {
        emit(&producer, 3000);
        feed.drain(Cut::Open);
    }
    expect![[r#"
        /t/c_2 4096
        /t/index/c_2.idx 88
    "#]]
    .assert_eq(&feed.disk.listing());
    feed.disk.room.set(1 << 20);
    emit(&producer, 3000);
    feed.drain(Cut::Open);
    expect![[r#"
        0 @0 3090 c1fc1fc1 cpu 5
        3 @4096 3090 c1fc1fc1 cpu 5
    "#]]
    .assert_eq(&index(&feed.disk, "c_2"));
    expect![[r#"
        2 packets 6012 bytes, 2 dropped 6012 bytes 0 records (2 uncounted), 0 overwritten c_2 not written: no storage space
    "#]]
    .assert_eq(&counts(&feed));
}

#[test]
fn a_disk_that_takes_the_packet_but_not_its_entry_takes_neither() {
    let (_, producer, mut feed) = traced(false, place(0, 0), 2 * 4096 + 88 + 10);
    for _ in 0..2 {
        emit(&producer, 3000);
        feed.drain(Cut::Open);
    }
    expect![[r#"
        /t/c_2 4096
        /t/index/c_2.idx 88
    "#]]
    .assert_eq(&feed.disk.listing());
}

#[test]
fn the_next_daemon_cuts_a_torn_packet_off_and_writes_what_was_unread() {
    let (memory, producer, mut feed_1) = traced(false, place(0, 0), 1 << 20);
    emit(&producer, 3000);
    feed_1.drain(Cut::Open);
    emit(&producer, 3000);
    let disk = std::mem::take(&mut feed_1.disk);
    drop(feed_1);
    // The daemon was killed in the middle of the second packet, and of an index entry.
    disk.open("/t/c_2".as_ref()).unwrap().borrow_mut().extend([1; 1000]);
    disk.open("/t/index/c_2.idx".as_ref()).unwrap().borrow_mut().extend([1; 10]);
    let mut feed_2 = feed(&memory, place(0, 0), disk, true);
    feed_2.drain(Cut::Open);
    expect![[r#"
        0 @0 3090 c1fc1fc1 cpu 5
        1 @4096 3090 c1fc1fc1 cpu 5
    "#]]
    .assert_eq(&index(&feed_2.disk, "c_2"));
    assert_eq!(feed_2.disk.bytes("/t/c_2").len(), 8192);
    expect![[r#"
        2 packets 6012 bytes, 0 dropped, 0 overwritten 
    "#]]
    .assert_eq(&counts(&feed_2));
}

#[test]
fn a_packet_that_was_written_but_not_taken_off_the_ring_is_not_written_twice() {
    let (memory, producer, mut feed_1) = traced(false, place(0, 0), 1 << 20);
    emit(&producer, 3000);
    // What `drain` does, killed before `done`.
    let mut cursor = Cursor::resume(&memory, 0, None);
    let packet = cursor.next(&memory, Cut::Open, monotonic_ns(), &mut Vec::new()).unwrap().unwrap();
    let mut stream = Stream::new(place(0, 0), 2);
    // SAFETY: the ring is mapped.
    unsafe { stream.write(&feed_1.disk, &packet).unwrap() };
    let disk = std::mem::take(&mut feed_1.disk);
    let mut feed_2 = feed(&memory, place(0, 0), disk, true);
    feed_2.drain(Cut::Open);
    assert_eq!(index(&feed_2.disk, "c_2").lines().count(), 1);
    emit(&producer, 100);
    feed_2.drain(Cut::Open);
    assert_eq!(index(&feed_2.disk, "c_2").lines().count(), 2);
}

#[test]
fn an_overwriting_ring_shows_the_gap() {
    let (_, producer, mut feed) = traced(true, place(0, 0), 1 << 20);
    for _ in 0..10 {
        assert_ne!(emit(&producer, 3000), Emit::Full { cpu: 0 });
    }
    feed.drain(Cut::Open);
    expect![[r#"
        6 @0 3090 c1fc1fc1 cpu 5
        7 @4096 3090 c1fc1fc1 cpu 5
        8 @8192 3090 c1fc1fc1 cpu 5
        9 @12288 3090 c1fc1fc1 cpu 5
    "#]]
    .assert_eq(&index(&feed.disk, "c_2"));
    expect![[r#"
        4 packets 12024 bytes, 0 dropped, 6 overwritten 
    "#]]
    .assert_eq(&counts(&feed));
}

#[test]
fn a_ring_that_lies_is_retired_and_says_why() {
    let (memory, producer, mut feed) = traced(false, place(0, 0), 1 << 20);
    emit(&producer, 10);
    feed.drain(Cut::Open);
    let (set, ..) = memory.mapped();
    // SAFETY: the head is the first word of the first ring, behind the header page.
    unsafe { set.add(4096).cast::<u64>().write_volatile(3) };
    feed.drain(Cut::Open);
    assert!(counts(&feed).contains("c_2 retired: "), "{}", counts(&feed));
    assert_eq!(emit(&producer, 10), Emit::Closed);
    assert_eq!(feed.drain(Cut::Open), Progress::default());
}

/// Metadata of a trace whose channel 1 has one event class, of 300 bytes.
pub(crate) const METADATA: &str = r#"/* CTF 1.8 */
typealias integer { size = 8; align = 8; signed = false; } := uint8_t;
typealias integer { size = 16; align = 8; signed = false; } := uint16_t;
typealias integer { size = 32; align = 8; signed = false; } := uint32_t;
typealias integer { size = 64; align = 8; signed = false; } := uint64_t;
trace {
	major = 1; minor = 8; byte_order = le;
	packet.header := struct {
		uint32_t magic; uint8_t uuid[16]; uint32_t stream_id; uint64_t stream_instance_id;
	};
};

stream {
	id = 1;
	event.header := struct {
		enum : uint16_t { compact = 0 ... 65534, extended = 65535 } id;
		variant <id> {
			struct { uint32_t timestamp; } compact;
			struct { uint32_t id; uint64_t timestamp; } extended;
		} v;
	} align(8);
	packet.context := struct {
		uint64_t timestamp_begin; uint64_t timestamp_end; uint64_t content_size; uint64_t packet_size;
		uint64_t packet_seq_num; uint64_t events_discarded; uint32_t cpu_id;
	};
};

event {
	name = "p:a"; id = 3; stream_id = 1;
	fields := struct { uint8_t bytes[300]; };
};
"#;

/// A disk with the metadata and a half-written block behind them, and no room left.
fn full_disk() -> Fake {
    let disk = Fake::default();
    disk.room.set(1 << 20);
    let metadata = disk.create("/t/metadata".as_ref()).unwrap();
    let text = format!("{METADATA}\nevent {{\n\tname = ");
    crate::disk::write_own(&disk, &metadata, text.as_bytes(), 0).unwrap();
    disk.room.set(0);
    disk
}

#[test]
fn records_that_the_disk_did_not_take_are_counted_one_by_one() {
    let memory = memory(false);
    let producer = producer(&memory);
    let mut feed_1 = feed(&memory, place(0, 0), full_disk(), false);
    for _ in 0..9 {
        emit(&producer, 300);
        feed_1.drain(Cut::Open);
    }
    (0..5).for_each(|_| assert_ne!(emit(&producer, 300), Emit::Full { cpu: 0 }));
    feed_1.drain(Cut::Open);
    let lost = "0 packets 0 bytes, 11 dropped 4284 bytes 14 records (0 uncounted), 0 overwritten";
    assert_eq!(counts(&feed_1), format!("{lost} c_2 not written: no storage space\n"));
    // Bytes that are no records have no number, and stop nobody.
    emit(&producer, 299);
    feed_1.drain(Cut::Open);
    let lost = "0 packets 0 bytes, 12 dropped 4589 bytes 14 records (1 uncounted), 0 overwritten";
    assert!(counts(&feed_1).starts_with(lost), "{}", counts(&feed_1));
    // The next worker goes on with the same totals, at once and after its first look.
    let disk = std::mem::take(&mut feed_1.disk);
    drop(feed_1);
    let mut feed_2 = feed(&memory, place(0, 0), disk, true);
    assert!(counts(&feed_2).starts_with(lost), "{}", counts(&feed_2));
    feed_2.drain(Cut::Open);
    assert!(counts(&feed_2).starts_with(lost), "{}", counts(&feed_2));
    // And its first packet has the next number.
    feed_2.disk.room.set(1 << 20);
    emit(&producer, 300);
    feed_2.drain(Cut::Open);
    assert!(index(&feed_2.disk, "c_2").starts_with("12 @0 "));
}

#[test]
fn a_kill_between_counting_a_packet_and_going_on_counts_it_once() {
    for written in [true, false] {
        let memory = memory(false);
        let producer = producer(&memory);
        let disk = full_disk();
        disk.room.set(1 << 20);
        emit(&producer, 300);
        // What `drain` does, up to the kill.
        memory.activate(0);
        let mut cursor = Cursor::resume(&memory, 0, None);
        let packet = cursor.next(&memory, Cut::Open, monotonic_ns(), &mut Vec::new()).unwrap().unwrap();
        let total = match written {
            true => {
                // SAFETY: the ring is mapped.
                unsafe { Stream::new(place(0, 0), 2).write(&disk, &packet).unwrap() };
                Entry::default().and_written(packet.body_bytes as u64)
            }
            false => Entry::default().and_dropped(packet.body_bytes as u64, Some(1)),
        };
        memory.ledger(0).write(Entry { through: 1, ..total });
        // The program goes on.
        emit(&producer, 300);
        let mut feed = feed(&memory, place(0, 0), disk, true);
        feed.drain(Cut::Open);
        let expected = match written {
            true => "2 packets 612 bytes, 0 dropped, 0 overwritten \n",
            false => "1 packets 306 bytes, 1 dropped 306 bytes 1 records (0 uncounted), 0 overwritten \n",
        };
        assert_eq!(counts(&feed), expected);
        assert!(index(&feed.disk, "c_2").lines().last().unwrap().starts_with("1 @"), "numbered 1");
    }
}

#[test]
fn overwritten_sub_buffers_stay_counted_over_a_restart() {
    let (memory, producer, mut feed_1) = traced(true, place(0, 0), 1 << 20);
    (0..10).for_each(|_| assert_ne!(emit(&producer, 3000), Emit::Full { cpu: 0 }));
    feed_1.drain(Cut::Open);
    let before = counts(&feed_1);
    assert!(before.contains(" 6 overwritten"), "{before}");
    let disk = std::mem::take(&mut feed_1.disk);
    let mut feed_2 = feed(&memory, place(0, 0), disk, true);
    feed_2.drain(Cut::Open);
    assert_eq!(counts(&feed_2), before);
    (0..10).for_each(|_| assert_ne!(emit(&producer, 3000), Emit::Full { cpu: 0 }));
    feed_2.drain(Cut::Open);
    // Of the last one that was written, the rest.
    assert!(counts(&feed_2).contains(" 13 overwritten"), "{}", counts(&feed_2));
}

#[test]
fn a_file_that_is_removed_while_it_is_written_is_noticed() {
    let memory = memory(false);
    let producer = producer(&memory);
    let disk = full_disk();
    disk.room.set(1 << 20);
    let mut feed = feed(&memory, place(0, 0), disk, false);
    emit(&producer, 300);
    feed.drain(Cut::Open);
    feed.check_files();
    assert!(!feed.take_news());
    feed.disk.files.borrow_mut().clear();
    feed.check_files();
    assert!(feed.take_news() && counts(&feed).contains("c_2: its file was removed"), "{}", counts(&feed));
    assert!(counts(&feed).contains("/t/metadata was removed"), "{}", counts(&feed));
    // What comes behind is counted as lost, by what the metadata said; the file does not come back.
    emit(&producer, 300);
    feed.drain(Cut::Open);
    assert!(counts(&feed).starts_with("1 packets 306 bytes, 1 dropped 306 bytes"), "{}", counts(&feed));
    assert_eq!(feed.disk.listing(), "");
}

#[test]
fn writing_nothing_is_no_error() {
    let disk = Fake::default();
    let file = disk.create("/t/x".as_ref()).unwrap();
    assert!(crate::disk::write_own(&disk, &file, &[], 0).is_ok());
}
