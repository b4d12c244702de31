//! A tracefs instance of our own: a folder whose buffers and switches nobody else uses.
//!
//! Its name holds the number of the process that made it, so that what a killed daemon left is found and
//! removed by the next one.

use super::TracefsError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the names of our instances begin with.
const PREFIX: &str = "sillage-";
/// The clock that eBPF programs take too.
const CLOCK: &str = "mono";

/// The folder. It goes away with this.
pub(super) struct Instance {
    path: PathBuf,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> TracefsError + '_ {
    move |error| TracefsError::File { path: path.into(), error }
}

impl Instance {
    /// Makes one whose buffers have this size on each CPU.
    pub(super) fn new(tracefs: &Path, name: &str, buffer_bytes: u64) -> Result<Instance, TracefsError> {
        let path = tracefs.join("instances").join(format!("{PREFIX}{}-{name}", std::process::id()));
        fs::create_dir(&path).map_err(failed(&path))?;
        let instance = Instance { path };
        instance.write("trace_clock", CLOCK)?;
        instance.write("buffer_size_kb", &(buffer_bytes >> 10).max(1).to_string())?;
        Ok(instance)
    }

    /// Leaves out what the tasks of this process do, and those that they will make. The kernel takes the
    /// numbers of its first namespace; a daemon in another one has no way to know them without eBPF.
    pub(super) fn leave_out_own(&self) -> Result<(), TracefsError> {
        self.write("options/event-fork", "1")?;
        let tasks = Path::new("/proc/self/task");
        let entries = fs::read_dir(tasks).map_err(failed(tasks))?;
        let own: Vec<String> =
            entries.flatten().filter_map(|task| task.file_name().into_string().ok()).collect();
        self.write("set_event_notrace_pid", &own.join(" "))
    }

    /// Writes a file of it anew.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<(), TracefsError> {
        let path = self.path.join(file);
        fs::write(&path, text).map_err(failed(&path))
    }

    /// Adds to what a file of it says.
    pub(super) fn append(&self, file: &str, text: &str) -> Result<(), TracefsError> {
        use std::io::Write;
        let path = self.path.join(file);
        let opened = fs::OpenOptions::new().append(true).open(&path);
        opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed(&path))
    }

    /// Switches an event on or off.
    pub(super) fn switch(&self, category: &str, name: &str, on: bool) -> Result<(), TracefsError> {
        self.write(&format!("events/{category}/{name}/enable"), if on { "1" } else { "0" })
    }

    /// Keeps records of an event from being made that do not pass `text`; `0`: all pass.
    pub(super) fn filter(&self, category: &str, name: &str, text: &str) -> Result<(), TracefsError> {
        self.write(&format!("events/{category}/{name}/filter"), text)
    }

    /// Forgets what a CPU has recorded and nobody has read; how many records that was.
    pub(super) fn forget(&self, cpu: u32) -> Result<u64, TracefsError> {
        let path = self.path.join(format!("per_cpu/cpu{cpu}/stats"));
        // A CPU that was never there has no buffer.
        let text = fs::read_to_string(&path).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("entries: "));
        let count = count.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
        if count > 0 {
            self.write(&format!("per_cpu/cpu{cpu}/trace"), "")?;
        }
        Ok(count)
    }

    /// The raw pages of a CPU, to be read without waiting.
    pub(super) fn pages(&self, cpu: u32) -> Result<fs::File, TracefsError> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path.join(format!("per_cpu/cpu{cpu}/trace_pipe_raw"));
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        file.map_err(failed(&path))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The kernel switches its events off first. What cannot be removed is left for the next daemon.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Removes the instances of processes that are gone. The kernel keeps one that somebody reads, as a daemon
/// in another namespace does, whose number says nothing here.
pub(super) fn remove_abandoned(tracefs: &Path) {
    let Ok(entries) = fs::read_dir(tracefs.join("instances")) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let Some(maker) = maker.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if maker != std::process::id() && !Path::new(&format!("/proc/{maker}")).exists() {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
