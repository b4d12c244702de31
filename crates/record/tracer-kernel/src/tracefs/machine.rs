//! The processes of the state dump as `/proc` tells them, for kernels without iterators.

use std::fs;
use std::path::Path;

/// LTTng's numbers of states, and of the mode that nobody knows.
const WAITS_FOR_CPU: i32 = 2;
const ZOMBIE: i32 = 4;
const WAITS: i32 = 5;
const DEAD: i32 = 7;
const MODE_UNKNOWN: i32 = 5;
/// A kernel thread's flag.
const PF_KTHREAD: u64 = 0x0020_0000;
const NAME_BYTES: usize = 16;

/// Payloads of `lttng_statedump_process_state`, one for each task.
pub(super) fn processes() -> Vec<Vec<u8>> {
    let numbers = |dir: &Path| -> Vec<i32> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    let mut payloads = Vec::new();
    for pid in numbers(Path::new("/proc")) {
        let tasks = format!("/proc/{pid}/task");
        for tid in numbers(Path::new(&tasks)) {
            // Whoever ended meanwhile has no state.
            let stat = fs::read(format!("{tasks}/{tid}/stat")).unwrap_or_default();
            payloads.extend(process(tid, pid, &String::from_utf8_lossy(&stat)));
        }
    }
    payloads
}

/// `1 (name) S 0 …`: a name may hold anything.
fn process(tid: i32, pid: i32, stat: &str) -> Option<Vec<u8>> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| words.get(index)?.parse::<u64>().ok();
    let status = match *words.first()? {
        "R" => WAITS_FOR_CPU,
        "S" | "D" => WAITS,
        "Z" => ZOMBIE,
        "X" => DEAD,
        _ => 0,
    };
    let is_kernel = i32::from(number(6)? & PF_KTHREAD != 0);
    let mut payload = [tid, pid, number(1)? as i32].map(i32::to_ne_bytes).concat();
    let name = &name.as_bytes()[..name.len().min(NAME_BYTES - 1)];
    payload.extend(name);
    payload.resize(12 + NAME_BYTES, 0);
    payload.extend([is_kernel, MODE_UNKNOWN, 0, status].map(i32::to_ne_bytes).concat());
    payload.extend((number(36)? as u32).to_ne_bytes());
    // The address of its files is the kernel's secret.
    payload.extend(0u64.to_ne_bytes());
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_becomes_a_payload() {
        let rest = (8..40).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("5 (a ) b) S 4 5 5 0 -1 2097216 {rest}");
        let payload = process(6, 5, &stat).unwrap();
        assert_eq!(payload.len(), 3 * 4 + 16 + 4 * 4 + 4 + 8);
        assert_eq!(&payload[..12], [6, 5, 4].map(i32::to_ne_bytes).concat());
        assert_eq!(&payload[12..18], b"a ) b\0");
        assert_eq!(&payload[28..44], [1, 5, 0, WAITS].map(i32::to_ne_bytes).concat());
        assert!(process(1, 1, "1 (x").is_none());
    }
}
