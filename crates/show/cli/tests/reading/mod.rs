//! What the tests of the reading verbs share: the program, the real Babeltrace 2, traces, and a
//! directory to write in.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a program did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The program with these arguments, not yet run.
pub fn sillage(arguments: &[&str]) -> Command {
    prepared(env!("CARGO_BIN_EXE_sillage"), arguments)
}

fn prepared(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.env("TZ", "UTC").env("LC_ALL", "C.UTF-8").env("BABELTRACE_TERM_COLOR", "NEVER");
    command
}

/// Runs the program.
pub fn run(arguments: &[&str]) -> Done {
    sillage(arguments).output().expect("the program runs").into()
}

/// Runs the program, which must succeed and have nothing to say on standard error.
pub fn ok(arguments: &[&str]) -> String {
    let done = run(arguments);
    assert_eq!((done.code, done.err.as_str()), (0, ""), "{arguments:?}");
    done.out
}

/// Runs Debian's Babeltrace 2.
pub fn peer(arguments: &[&str]) -> Done {
    let output = prepared("babeltrace2", arguments).output();
    output.expect("babeltrace2 is installed (Debian package babeltrace2)").into()
}

/// Runs Debian's Babeltrace 2, which must succeed.
pub fn babeltrace2(arguments: &[&str]) -> String {
    let done = peer(arguments);
    assert_eq!(done.code, 0, "{arguments:?}: {}", done.err);
    done.out
}

/// A path below the shared data; says so when it is missing.
pub fn shared(path: &str) -> Option<String> {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let path = shared.join(path);
    if !path.exists() {
        eprintln!("SKIPPED: {} is missing", path.display());
        return None;
    }
    Some(path.to_str().expect("a path in UTF-8").to_owned())
}

/// A trace of the corpus.
pub fn trace(name: &str) -> Option<String> {
    shared(&format!("traces/{name}/trace"))
}

/// A directory of one test, which goes away with it.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sillage-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }

    /// A path in it, as text.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// A copy of a trace in it, which may be written to.
    pub fn copy(&self, trace: &str, name: &str) -> String {
        let to = self.path(name);
        copy(Path::new(trace), Path::new(&to));
        to
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // Not with its rights: the original may be read-only.
            std::fs::write(target, std::fs::read(entry.path()).expect("a file")).expect("a copy");
        }
    }
}

/// All files below a directory, sorted.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
