//! What the targets start from: metadata, packets, indexes and relays' words of the shared corpus.
//!
//! Seeds are small, because a fuzzer that changes them is as fast as they are short: of a stream
//! the first packets are taken, of a large file nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Largest seed.
const SEED_BYTES_MAX: usize = 24 << 10;
/// Bytes of a stream that go into a seed.
const STREAM_BYTES: usize = 8 << 10;

/// The shared data, if it is there.
pub fn shared() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Beside the project, wherever in it this is compiled.
    let beside = here.ancestors().map(|directory| directory.join("shared"));
    let told = std::env::var_os("SILLAGE_SHARED").map(PathBuf::from);
    told.into_iter().chain(beside).find(|shared| shared.join("traces").is_dir())
}

/// Seeds of a target; only what needs no data when there is none.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let mut out = built_in(target);
    let Some(shared) = shared() else {
        return out;
    };
    let mut files = Vec::new();
    collect(&shared.join("traces"), &mut files);
    match target {
        "tsdl" | "json" => {
            let all = files.iter().filter(|path| path.ends_with("metadata")).filter_map(|path| small(path));
            out.extend(all.filter(|text| text.starts_with(b"\x1e") == (target == "json")));
        }
        "packets" => out.extend(files.iter().filter_map(|path| packets(path))),
        "index" => {
            let all = files.iter().filter(|path| path.extension().is_some_and(|e| e == "idx"));
            out.extend(all.filter_map(|path| small(path)));
        }
        "live" => {
            let mut transcripts = Vec::new();
            collect(&shared.join("reference/transcripts"), &mut transcripts);
            let said = transcripts.iter().filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("live") && name.ends_with(".bin")
            });
            out.extend(said.filter_map(|path| fs::read(path).ok()).map(named));
        }
        _ => {}
    }
    out.sort();
    out.dedup();
    out
}

fn collect(directory: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, out);
        } else {
            out.push(path);
        }
    }
    out.sort();
}

fn small(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok().filter(|bytes| bytes.len() <= SEED_BYTES_MAX)
}

/// A data file with the metadata beside it, in the form of the target `packets`.
fn packets(path: &Path) -> Option<Vec<u8>> {
    if path.ends_with("metadata") {
        return None;
    }
    let metadata = small(&path.with_file_name("metadata"))?;
    let mut stream = fs::read(path).ok()?;
    stream.truncate(STREAM_BYTES);
    let mut seed = (metadata.len() as u32).to_le_bytes().to_vec();
    seed.extend(metadata);
    seed.extend(stream);
    Some(seed)
}

/// What a relay said, with the names of host and session that the target asks for.
fn named(mut said: Vec<u8>) -> Vec<u8> {
    // The first session of a list of minor 4 is behind two replies and a count.
    for (at, name) in [(28 + 20, b"h\0"), (28 + 84, b"s\0")] {
        if let Some(place) = said.get_mut(at..at + 2) {
            place.copy_from_slice(name);
        }
    }
    said
}

/// Seeds that are written here.
fn built_in(target: &str) -> Vec<Vec<u8>> {
    let texts: &[&str] = match target {
        "filter" => &[
            "fd >= 3 && filename == \"/var/*.log\" && $ctx.procname != \"cron\" || flags & 0x80",
            "a.b[3].c == -1.5e3 || !($app.p:t.x << 2 > ~0)",
            "$event.name == \"sched_*\" && (x == 'y' || 017 != 0x1F)",
        ],
        "dmesg" => {
            &["[    0.000000] Linux\n[1.5]x\n\nno time\n[2017-01-01 10:00:00.123456] d\n", "plain\n[1.2] x\n"]
        }
        _ => &[],
    };
    let mut out: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "program" => out.extend(program()),
        "btf" => out.push(btf()),
        _ => {}
    }
    out
}

/// One type of each kind that refers to others, in this machine's byte order.
fn btf() -> Vec<u8> {
    let strings = b"\0int\0task\0a\0next\0list\0ON\0f\0";
    let (int, task, a, next, list, on, f) = (1, 5, 10, 12, 17, 22, 25);
    let info = |kind: u32, count: u32| kind << 24 | count;
    let types: &[&[u32]] = &[
        &[int, info(1, 0), 4, 0x0100_0020], // 1: int
        &[0, info(2, 0), 3],                // 2: struct task *
        &[task, info(4, 4), 40, a, 1, 0, next, 2, 64, list, 4, 128, 0, 5, 256], // 3: struct task
        &[0, info(3, 0), 0, 1, 1, 4],       // 4: int[4]
        &[0, info(5, 1), 8, f, 6, 0],       // 5: union { u }
        &[a, info(8, 0), 7],                // 6: typedef
        &[0, info(10, 0), 1],               // 7: const int
        &[next, info(6, 1), 4, on, 1],      // 8: enum
        &[next, info(19, 1), 8, on, 1, 1],  // 9: enum64
        &[0, info(13, 2), 1, a, 2, 0, 0],   // 10: int (struct task *, ...)
        &[f, info(12, 1), 10],              // 11: function
        &[f, info(14, 0), 1, 0],            // 12: variable
        &[list, info(15, 1), 4, 12, 0, 4],  // 13: section
        &[a, info(17, 0), 3, 0],            // 14: tag
    ];
    let types: Vec<u32> = types.concat();
    let mut out = 0xeb9f_u16.to_ne_bytes().to_vec();
    out.extend([1, 0]);
    for word in [24, 0, 4 * types.len() as u32, 4 * types.len() as u32, strings.len() as u32] {
        out.extend(word.to_ne_bytes());
    }
    out.extend(types.into_iter().flat_map(u32::to_ne_bytes));
    out.extend(strings);
    out
}

fn program() -> Vec<Vec<u8>> {
    use sillage_model::BlockingTimeout;
    use sillage_protocol::program::{Channel, EnabledEvent, ToDaemon, ToProgram};
    vec![
        ToDaemon::TracepointsGone(vec![1, 2, 3]).encode(),
        ToDaemon::Synced { sequence: 5 }.encode(),
        ToProgram::Welcome.encode(),
        ToProgram::Events {
            channel_id: 1,
            active: true,
            events: vec![EnabledEvent { index: 1, event_id: 2 }],
        }
        .encode(),
        ToProgram::Channel(Channel { channel_id: 1, set_id: 2, blocking_timeout: BlockingTimeout::Us(3) })
            .encode(),
        ToProgram::Refused { reason: "no".into() }.encode(),
    ]
}
