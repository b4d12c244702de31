//! Traces on a disk in memory, damaged in every way that a kill or a power cut does.

use super::*;
use crate::disk::fake::Fake;
use crate::feed::tests::METADATA;
use expect_test::{Expect, expect};
use sillage_ctf::index::ENTRY_SIZE_BYTES;
use sillage_ctf::packet::LttngPacketHeader;

const DIR: &str = "/s/ust/uid/0/64-bit";

fn file(disk: &Fake, name: &str, bytes: &[u8]) {
    disk.room.set(1 << 20);
    let file = disk.create(Path::new(&format!("{DIR}/{name}"))).unwrap();
    write_own(disk, &file, bytes, 0).unwrap();
}

fn header(n: u64) -> LttngPacketHeader {
    LttngPacketHeader {
        uuid: [0; 16],
        stream_id: 1,
        stream_instance_id: 0,
        timestamp_begin: n,
        timestamp_end: n + 1,
        content_size_bits: 100 * 8,
        packet_size_bits: 4096 * 8,
        packet_seq_num: n,
        events_discarded: 7,
        cpu_id: 0,
    }
}

fn packets(count: u64) -> Vec<u8> {
    let packet = |n| {
        let mut bytes = header(n).encode_native().to_vec();
        bytes.resize(4096, 0);
        bytes
    };
    (0..count).flat_map(packet).collect()
}

fn index(packets: u64) -> Vec<u8> {
    let entry = |n| Entry {
        offset_bytes: n * 4096,
        packet_size_bits: 4096 * 8,
        content_size_bits: 100 * 8,
        timestamp_begin: n,
        timestamp_end: n + 1,
        events_discarded: 7,
        stream_id: 1,
        stream_instance_id: 0,
        packet_seq_num: n,
    };
    let entries = (0..packets).flat_map(|n| entry(n).encode());
    Header::V1_1.encode().into_iter().chain(entries).collect()
}

/// Repairs, checks what was said to be done, and that a second repair does nothing.
fn check(disk: &Fake, expected: &Expect) {
    let repaired = repair(disk, Path::new("/s")).unwrap();
    let mut text = format!("{} streams\n", repaired.streams);
    let name = |path: &Path| path.strip_prefix(DIR).unwrap().display().to_string();
    for change in &repaired.changes {
        let after = change.after_bytes.map_or("removed".into(), |bytes| bytes.to_string());
        text.push_str(&format!("{}: {} -> {after}\n", name(&change.path), change.before_bytes));
    }
    for path in &repaired.left_alone {
        text.push_str(&format!("{}: left alone\n", name(path)));
    }
    expected.assert_eq(&text);
    let before = disk.listing();
    let again = repair(disk, Path::new("/s")).unwrap();
    assert_eq!((again.streams, again.changes), (repaired.streams, vec![]));
    assert_eq!(again.left_alone, repaired.left_alone);
    assert_eq!(disk.listing(), before);
}

#[test]
fn everything_behind_the_last_whole_packet_and_the_last_whole_block_goes() {
    let disk = Fake::default();
    file(&disk, "metadata", format!("{METADATA}\nevent {{\n\tname = \"x}};").as_bytes());
    file(&disk, "c_0", &[packets(3), packets(1)[..1000].to_vec()].concat());
    file(&disk, "index/c_0.idx", &[index(3), vec![0; 30]].concat());
    // Packets that the index has and the data has not.
    file(&disk, "c_1", &packets(2)[..4096 + 5]);
    file(&disk, "index/c_1.idx", &index(2));
    // Made, and nothing more.
    file(&disk, "c_2", &[]);
    file(&disk, "index/c_2.idx", &index(0)[..7]);
    check(
        &disk,
        &expect![[r#"
            2 streams
            metadata: 1036 -> 1015
            c_0: 13288 -> 12288
            index/c_0.idx: 262 -> 232
            c_1: 4101 -> 4096
            index/c_1.idx: 160 -> 88
            c_2: 0 -> removed
            index/c_2.idx: 7 -> removed
        "#]],
    );
    assert_eq!(disk.bytes(&format!("{DIR}/metadata")), METADATA.as_bytes());
    assert_eq!(disk.bytes(&format!("{DIR}/index/c_1.idx")), index(1));
    assert_eq!(repair(&disk, Path::new("/nothing")).unwrap(), Repaired::default());
}

#[test]
fn what_a_power_cut_leaves_keeps_every_whole_packet() {
    let disk = Fake::default();
    file(&disk, "metadata", &[METADATA.as_bytes(), &[0; 500]].concat());
    // The index is lost, in part, whole, or with its first bytes.
    file(&disk, "c_0", &packets(5));
    file(&disk, "index/c_0.idx", &index(2));
    file(&disk, "c_1", &packets(3));
    file(&disk, "index/c_1.idx", &[]);
    file(&disk, "c_2", &packets(3));
    file(&disk, "index/c_2.idx", &vec![0; 16 + 3 * ENTRY_SIZE_BYTES]);
    // The size of the data got there, and the data did not.
    file(&disk, "c_3", &[packets(2), vec![0; 8192]].concat());
    file(&disk, "index/c_3.idx", &index(4));
    file(&disk, "c_4", &[0; 8192]);
    file(&disk, "index/c_4.idx", &index(2));
    // The index without its data.
    file(&disk, "index/c_5.idx", &index(2));
    check(
        &disk,
        &expect![[r#"
            4 streams
            index/c_0.idx: 160 -> 376
            index/c_1.idx: 0 -> 232
            index/c_2.idx: 232 -> 232
            c_3: 16384 -> 8192
            index/c_3.idx: 304 -> 160
            c_4: 8192 -> removed
            index/c_4.idx: 160 -> removed
            index/c_5.idx: 160 -> removed
        "#]],
    );
    for (name, packets) in [("c_0", 5), ("c_1", 3), ("c_2", 3), ("c_3", 2)] {
        assert_eq!(disk.bytes(&format!("{DIR}/index/{name}.idx")), index(packets), "{name}");
    }
}

#[test]
fn a_trace_that_a_daemon_has_open_is_not_touched() {
    let disk = crate::Files::default();
    let dir = std::env::temp_dir().join(format!("sillage-repair-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let text = format!("{METADATA}\nevent {{");
    std::fs::write(dir.join("metadata"), &text).unwrap();
    let of_the_daemon = disk.open(&dir.join("metadata")).unwrap();
    disk.claim(&of_the_daemon);
    let refused = repair_trace(&disk, &dir).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(std::fs::read_to_string(dir.join("metadata")).unwrap(), text);
    drop(of_the_daemon);
    assert_eq!(repair_trace(&disk, &dir).unwrap().changes.len(), 1);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_is_not_understood_is_left_alone() {
    let disk = Fake::default();
    file(&disk, "metadata", METADATA.as_bytes());
    file(&disk, "notes.txt", b"not a stream");
    file(&disk, "c_0", &packets(1));
    check(
        &disk,
        &expect![[r#"
            1 streams
            notes.txt: left alone
        "#]],
    );
    file(&disk, "metadata", b"nothing that anybody reads");
    check(
        &disk,
        &expect![[r#"
            0 streams
            metadata: left alone
            c_0: left alone
            notes.txt: left alone
        "#]],
    );
}
