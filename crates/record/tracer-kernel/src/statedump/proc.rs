//! The processes of the state dump as `/proc` tells them, for kernels without iterators and back ends
//! without programs. What has a record stands in the recipes of the dump; here it is made as payloads.
//!
//! `/proc` is read process by process, so the dump is not of one moment, and it tells less than the kernel
//! knows: processes are numbered as in the daemon's PID namespace, whose level is 0 here; of nested PID namespaces
//! only the outermost and the innermost are told, of nested user namespaces whether it is the daemon's (0) or not
//! (1); a table of files has its process's number in place of its address, so that files still belong to
//! somebody; of a mapping's flags there are the four that `/proc` shows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// LTTng's numbers of states, and of the mode that nobody knows.
const WAITS_FOR_CPU: i32 = 2;
const ZOMBIE: i32 = 4;
const WAITS: i32 = 5;
const DEAD: i32 = 7;
const MODE_UNKNOWN: i32 = 5;
/// A kernel thread's flag.
const PF_KTHREAD: u64 = 0x0020_0000;
const NAME_BYTES: usize = 16;

/// Payloads, by event.
type Payloads = BTreeMap<String, Vec<Vec<u8>>>;

/// Namespaces whose events have the task and the namespace's number alone: the event's and the file's name.
const NAMESPACES: [(&str, &str); 6] = [
    ("lttng_statedump_process_cgroup_ns", "cgroup"),
    ("lttng_statedump_process_ipc_ns", "ipc"),
    ("lttng_statedump_process_mnt_ns", "mnt"),
    ("lttng_statedump_process_net_ns", "net"),
    ("lttng_statedump_process_uts_ns", "uts"),
    ("lttng_statedump_process_time_ns", "time"),
];
const STATE: &str = "lttng_statedump_process_state";
const PID_NAMESPACE: &str = "lttng_statedump_process_pid_ns";
const USER_NAMESPACE: &str = "lttng_statedump_process_user_ns";
const FILES: &str = "lttng_statedump_file_descriptor";
const MAPPINGS: &str = "lttng_statedump_vm_map";

/// One task.
struct Task {
    tid: i32,
    pid: i32,
    dir: PathBuf,
    stat: String,
    /// Its and its leader's numbers in the namespaces from ours inwards.
    numbers: [Vec<i32>; 2],
    /// Real user and group, as we see them.
    ids: [u32; 2],
}

fn numbers(dir: &Path) -> Vec<i32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Bytes of a file as text; nothing if its process has ended, or does not let us look.
fn read(path: PathBuf) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Words behind a key of `/proc/PID/status`.
fn status_words<T: std::str::FromStr>(status: &str, key: &str) -> Vec<T> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.into_iter().flat_map(str::split_whitespace).filter_map(|word| word.parse().ok()).collect()
}

/// Number of a namespace, from a link `mnt:[4026531841]`.
fn namespace(link: &Path) -> Option<u32> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// Payloads of all processes' events that are wanted.
pub(crate) fn processes(wanted: impl Fn(&str) -> bool) -> Payloads {
    let mut tasks = Vec::new();
    for pid in numbers(Path::new("/proc")) {
        let dir = PathBuf::from(format!("/proc/{pid}/task"));
        for tid in numbers(&dir) {
            let dir = dir.join(tid.to_string());
            let status = read(dir.join("status"));
            let ids = ["Uid", "Gid"].map(|key| status_words(&status, key).first().copied().unwrap_or(0));
            let numbers = ["NSpid", "NStgid"].map(|key| status_words(&status, key));
            tasks.push(Task { tid, pid, stat: read(dir.join("stat")), dir, numbers, ids });
        }
    }
    let leaders: BTreeMap<i32, &Task> =
        tasks.iter().filter(|task| task.tid == task.pid).map(|task| (task.pid, task)).collect();
    let mut payloads = Payloads::new();
    let mut put = |event: &str, payload: Vec<u8>| payloads.entry(event.into()).or_default().push(payload);
    let own = Path::new("/proc/self/ns");
    let (own_pid, own_user) = (namespace(&own.join("pid")), namespace(&own.join("user")));
    for task in &tasks {
        if wanted(STATE) {
            state(task).into_iter().for_each(|payload| put(STATE, payload));
        }
        if wanted(PID_NAMESPACE) {
            let parent = parent(&task.stat).and_then(|pid| leaders.get(&pid));
            let inner = namespace(&task.dir.join("ns/pid"));
            pid_namespaces(task, parent.copied(), (own_pid, inner))
                .into_iter()
                .for_each(|payload| put(PID_NAMESPACE, payload));
        }
        if wanted(USER_NAMESPACE)
            && let Some(inner) = namespace(&task.dir.join("ns/user"))
        {
            let map = |file: &str, id| inside(&read(task.dir.join(file)), id);
            let ids = [map("uid_map", task.ids[0]), map("gid_map", task.ids[1])];
            let level = i32::from(Some(inner) != own_user);
            let words = [task.tid.to_ne_bytes(), ids[0].to_ne_bytes(), ids[1].to_ne_bytes()];
            put(
                USER_NAMESPACE,
                [words.concat(), level.to_ne_bytes().to_vec(), inner.to_ne_bytes().to_vec()].concat(),
            );
        }
        for (event, name) in NAMESPACES.into_iter().filter(|(event, _)| wanted(event)) {
            if let Some(number) = namespace(&task.dir.join("ns").join(name)) {
                put(event, [task.tid.to_ne_bytes(), number.to_ne_bytes()].concat());
            }
        }
        if task.tid == task.pid {
            if wanted(FILES) {
                files(task).into_iter().for_each(|payload| put(FILES, payload));
            }
            if wanted(MAPPINGS) {
                let maps = read(task.dir.join("maps"));
                maps.lines()
                    .filter_map(|line| mapping(task.pid, line))
                    .for_each(|payload| put(MAPPINGS, payload));
            }
        }
    }
    payloads
}

/// What stands behind the name in `1 (name) S 0 …`, and the name, which may hold anything.
fn stat_words(stat: &str) -> Option<(&str, Vec<&str>)> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    Some((name, rest.split_whitespace().collect()))
}

fn parent(stat: &str) -> Option<i32> {
    stat_words(stat)?.1.get(1)?.parse().ok()
}

fn state(task: &Task) -> Option<Vec<u8>> {
    let (name, words) = stat_words(&task.stat)?;
    let number = |index: usize| words.get(index)?.parse::<u64>().ok();
    let status = match *words.first()? {
        "R" => WAITS_FOR_CPU,
        "S" | "D" => WAITS,
        "Z" => ZOMBIE,
        "X" => DEAD,
        _ => 0,
    };
    let is_kernel = i32::from(number(6)? & PF_KTHREAD != 0);
    let mut payload = [task.tid, task.pid, number(1)? as i32].map(i32::to_ne_bytes).concat();
    let name = &name.as_bytes()[..name.len().min(NAME_BYTES - 1)];
    payload.extend(name);
    payload.resize(12 + NAME_BYTES, 0);
    payload.extend([is_kernel, MODE_UNKNOWN, 0, status].map(i32::to_ne_bytes).concat());
    payload.extend((number(36)? as u32).to_ne_bytes());
    // The address of its files is the kernel's secret.
    payload.extend((task.pid as u64).to_ne_bytes());
    Some(payload)
}

/// A task's numbers in the outermost namespace that we see and in its own.
fn pid_namespaces(
    task: &Task,
    parent: Option<&Task>,
    (outer, inner): (Option<u32>, Option<u32>),
) -> Vec<Vec<u8>> {
    let deepest = task.numbers[0].len().saturating_sub(1);
    let record = |(level, number): (usize, Option<u32>)| {
        let at = |numbers: &[i32]| numbers.get(level).copied();
        let vppid = parent.and_then(|parent| at(&parent.numbers[1])).unwrap_or(0);
        let words =
            [task.tid, at(&task.numbers[0])?, at(&task.numbers[1])?, vppid, level as i32, number? as i32];
        Some(words.map(i32::to_ne_bytes).concat())
    };
    let levels = if deepest == 0 { vec![(0, inner)] } else { vec![(0, outer), (deepest, inner)] };
    levels.into_iter().filter_map(record).collect()
}

/// An id that we see, inside of a user namespace with this `uid_map`; 65534 if it has none there.
fn inside(map: &str, id: u32) -> u32 {
    const NOBODY: u32 = 65534;
    let line = |line: &str| {
        let words: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let &[first, outside, count] = words.as_slice() else { return None };
        let distance = id.checked_sub(outside)?;
        (distance < count).then(|| first.wrapping_add(distance))
    };
    map.lines().find_map(line).unwrap_or(NOBODY)
}

fn files(task: &Task) -> Vec<Vec<u8>> {
    const ACCESS_MODES: u32 = 3;
    let dir = task.dir.join("fd");
    let file = |fd: i32| {
        let path = fs::read_link(dir.join(fd.to_string())).ok()?;
        let info = read(task.dir.join("fdinfo").join(fd.to_string()));
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap_or("0").trim(), 8).unwrap_or(0);
        // 0, 1, 2: to read, to write, both; the kernel's mode has a bit for each.
        let mode = (flags & ACCESS_MODES) + 1;
        let mut payload = (task.pid as u64).to_ne_bytes().to_vec();
        payload.extend([fd.to_ne_bytes(), flags.to_ne_bytes(), mode.to_ne_bytes()].concat());
        payload.extend(path.as_os_str().as_encoded_bytes());
        payload.push(0);
        Some(payload)
    };
    numbers(&dir).into_iter().filter_map(file).collect()
}

/// A line `7f0000000000-7f0000001000 r-xp 00001000 fe:00 1234 /path`.
fn mapping(pid: i32, line: &str) -> Option<Vec<u8>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?.bytes();
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let offset = hex(words.next()?)?;
    let inode: u64 = words.nth(1)?.parse().ok()?;
    let bits = permissions.zip(*b"rwxs").enumerate();
    let flags: u64 = bits.map(|(bit, (has, wanted))| u64::from(has == wanted) << bit).sum();
    let mut payload = pid.to_ne_bytes().to_vec();
    payload.extend([hex(start)?, hex(end)?, flags, inode, offset].map(u64::to_ne_bytes).concat());
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(tid: i32, pid: i32, stat: &str) -> Task {
        let numbers = [vec![tid, 7], vec![pid, 6]];
        Task { tid, pid, dir: PathBuf::new(), stat: stat.into(), numbers, ids: [0, 0] }
    }

    #[test]
    fn a_line_of_proc_becomes_a_payload() {
        let rest = (8..40).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("5 (a ) b) S 4 5 5 0 -1 2097216 {rest}");
        let payload = state(&task(6, 5, &stat)).unwrap();
        assert_eq!(payload.len(), 3 * 4 + 16 + 4 * 4 + 4 + 8);
        assert_eq!(&payload[..12], [6, 5, 4].map(i32::to_ne_bytes).concat());
        assert_eq!(&payload[12..18], b"a ) b\0");
        assert_eq!(&payload[28..44], [1, 5, 0, WAITS].map(i32::to_ne_bytes).concat());
        assert!(state(&task(1, 1, "1 (x")).is_none());
        assert_eq!(parent(&stat), Some(4));
    }

    #[test]
    fn namespaces_and_mappings_become_payloads() {
        let words = |words: &[i32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let parent = task(3, 3, "");
        let found = pid_namespaces(&task(6, 5, ""), Some(&parent), (Some(100), Some(200)));
        assert_eq!(found, [words(&[6, 6, 5, 3, 0, 100]), words(&[6, 7, 6, 6, 1, 200])]);
        assert_eq!(inside("0 1000 1\n1 100000 65536\n", 1000), 0);
        assert_eq!(inside("0 1000 1\n1 100000 65536\n", 100_005), 6);
        assert_eq!(inside("0 1000 1\n", 999), 65534);
        let payload = mapping(9, "7f00-7f10 r-xp 00001000 fe:00 1234   /a b").unwrap();
        let expected = [0x7f00u64, 0x7f10, 5, 1234, 0x1000].map(u64::to_ne_bytes).concat();
        assert_eq!(payload, [9i32.to_ne_bytes().to_vec(), expected].concat());
        assert_eq!(mapping(9, "7f00-7f10 rw-s 0"), None);
    }

    #[test]
    fn this_process_is_found_with_its_files_and_mappings() {
        let all = processes(|_| true);
        let own = (std::process::id() as i32).to_ne_bytes();
        assert!(all[STATE].iter().any(|payload| payload[4..8] == own));
        assert!(all[PID_NAMESPACE].iter().any(|payload| payload[8..12] == own || payload.len() == 24));
        assert!(all[FILES].iter().any(|payload| payload[..4] == own));
        assert!(all[MAPPINGS].iter().any(|payload| payload[..4] == own));
        assert!(all.contains_key(USER_NAMESPACE) && all.contains_key("lttng_statedump_process_net_ns"));
        assert!(processes(|event| event == STATE).len() == 1);
    }
}
