//! Whom a channel follows, process by process: the kernel's own list of tasks keeps most others out of the
//! instance's buffers, and each record is looked at when it is transcoded.
//!
//! A record holds the number of its task alone, and the kernel's list holds tasks, among them those that
//! followed processes make, and lets a switch to one pass too. So the list is a first sieve, and here is the
//! second: whose task it is says `/proc`, or, of one that has ended, the kernel's note of each task that it
//! switched to (`saved_tgids`). A number that the kernel gives anew within [`TRUSTED`] may be taken for its
//! earlier owner's. All numbers are those of the first PID namespace.

use super::TracefsError;
use super::instance::Instance;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long what was found out of a task is believed.
const TRUSTED: Duration = Duration::from_secs(1);
/// Number of the first PID namespace, in every kernel.
const FIRST_NAMESPACE: u64 = 0xefff_fffc;
/// Numbers of tasks end here, if the kernel does not say where.
const PIDS: u64 = 32768;

/// The processes that are followed, and which tasks are theirs.
#[derive(Debug)]
pub(super) struct Processes {
    followed: BTreeSet<u32>,
    /// Where the kernel notes which process a task belonged to.
    notes: PathBuf,
    /// Tasks and their processes, as far as anybody knew.
    known: HashMap<u32, Option<u32>>,
    since: Instant,
}

impl Processes {
    /// These and no others.
    pub(super) fn new(tracefs: &Path, followed: BTreeSet<u32>) -> Processes {
        let notes = tracefs.join("saved_tgids");
        Processes { followed, notes, known: HashMap::new(), since: Instant::now() }
    }

    /// Whether a task belongs to one of them.
    pub(super) fn follow(&mut self, task: u32) -> bool {
        if self.since.elapsed() > TRUSTED {
            self.known.clear();
            self.since = Instant::now();
        }
        let process = match self.known.get(&task) {
            Some(process) => *process,
            None => {
                let process = living(task).or_else(|| noted(&self.notes, task));
                self.known.insert(task, process);
                process
            }
        };
        process.is_some_and(|process| self.followed.contains(&process))
    }
}

/// The process of a task that lives.
fn living(task: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{task}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The process of a task as the kernel noted it: a line `TASK PROCESS` for each.
fn noted(notes: &Path, task: u32) -> Option<u32> {
    let text = fs::read_to_string(notes).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(of, _)| of.parse() == Ok(task))?.1.trim().parse().ok()
}

/// Whether this process sees the numbers that the kernel's records have.
pub(super) fn are_ours() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == FIRST_NAMESPACE)
}

/// Has the kernel record these processes' tasks alone, those that they make included; as far as it can tell.
///
/// # Errors
/// The kernel's.
pub(super) fn list(instance: &Instance, followed: &BTreeSet<u32>) -> Result<(), TracefsError> {
    instance.write("options/event-fork", "1")?;
    instance.write("options/record-tgid", "1")?;
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").ok();
    let most = most.and_then(|text| text.trim().parse().ok()).unwrap_or(PIDS);
    // An empty list would be everybody; whoever is listed too much goes through the second sieve.
    let mut listed = BTreeSet::from([std::process::id()]);
    listed.extend(followed.iter().filter(|process| u64::from(**process) < most));
    instance.write("set_event_pid", &words(&listed))?;
    loop {
        // Tasks that a listed one makes are listed by the kernel: what is new here was made before.
        let tasks: BTreeSet<u32> = followed.iter().flat_map(|process| tasks_of(*process)).collect();
        let new: BTreeSet<u32> = tasks.difference(&listed).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        instance.append("set_event_pid", &words(&new))?;
        listed.extend(new);
    }
}

fn words(numbers: &BTreeSet<u32>) -> String {
    let words: Vec<String> = numbers.iter().map(u32::to_string).collect();
    words.join(" ")
}

fn tasks_of(process: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_told_from_others() {
        let notes = std::env::temp_dir().join(format!("sillage-notes-{}", std::process::id()));
        fs::create_dir_all(&notes).unwrap();
        // Numbers that no task has.
        let (gone, other, never) = (4_190_001, 4_190_002, 4_190_003);
        let own = std::process::id();
        fs::write(notes.join("saved_tgids"), format!("{gone} {own}\n{other} 1\n")).unwrap();
        let mut processes = Processes::new(&notes, BTreeSet::from([own]));
        assert!(processes.follow(own) && processes.follow(gone));
        assert!(tasks_of(own).into_iter().all(|task| processes.follow(task)));
        assert!(!processes.follow(other) && !processes.follow(never) && !processes.follow(0));
        fs::remove_dir_all(&notes).unwrap();
    }
}
