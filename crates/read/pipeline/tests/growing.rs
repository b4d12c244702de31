//! A trace that somebody still writes is read as far as it was there when its files were opened, or
//! further, and never wrong.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sillage_ctf::Message;
use sillage_pipeline::{Messages, Status};

#[test]
fn files_that_grow_while_they_are_read() {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let original = shared.join("traces/bt1-trace-with-index/trace");
    if !original.is_dir() {
        eprintln!("SKIPPED: {} is missing", original.display());
        return;
    }
    let copy = std::env::temp_dir().join(format!("sillage-growing-{}", std::process::id()));
    std::fs::create_dir_all(&copy).unwrap();
    let mut streams = Vec::new();
    for entry in std::fs::read_dir(&original).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            let to = copy.join(entry.file_name());
            std::fs::write(&to, std::fs::read(entry.path()).unwrap()).unwrap();
            if entry.file_name() != "metadata" {
                streams.push(to);
            }
        }
    }
    let mut messages = sillage_pipeline::open(&copy).unwrap().messages();
    let (mut events, mut steps) = (0u64, 0u64);
    while messages.advance().unwrap() == Status::Ready {
        events += u64::from(matches!(messages.current(), Some(Message::Event(_))));
        steps += 1;
        if steps.is_multiple_of(50) && steps <= 1000 {
            // The beginning of a packet, piece by piece.
            for path in &streams {
                let packet = std::fs::read(path).unwrap()[..4096].to_vec();
                let from = (steps / 50 * 100) as usize;
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                file.write_all(&packet[from..from + 100]).unwrap();
            }
        }
    }
    std::fs::remove_dir_all(&copy).unwrap();
    assert_eq!(events, 4000);
}
