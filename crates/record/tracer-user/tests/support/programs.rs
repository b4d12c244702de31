//! Compiles the C programs of the tests and runs them on our library.

use super::Daemon;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};

/// Where the C sources are.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-user-abi/tests/programs")
}

/// Where cargo lets tests keep files; examples, which have no such place, use the system's.
fn tmp() -> PathBuf {
    option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A directory with our library under its three names. `SILLAGE_UST_LIB` names a library that was
/// built already; otherwise it is built here, once.
pub fn library_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let library = std::env::var_os("SILLAGE_UST_LIB").map_or_else(build_library, PathBuf::from);
        let dir = tmp().join(format!("ust-lib-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for name in ["liblttng-ust.so.1", "liblttng-ust-common.so.1", "liblttng-ust-tracepoint.so.1"] {
            let link = dir.join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&library, link).unwrap();
        }
        dir
    })
}

/// Our library.
pub fn library() -> PathBuf {
    library_dir().join("liblttng-ust.so.1").canonicalize().expect("the library")
}

fn build_library() -> PathBuf {
    let target = tmp().join("ust-build");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "-p", "sillage-tracer-user-abi", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUSTFLAGS")
        .status()
        .expect("cargo");
    assert!(status.success(), "the library does not build");
    target.join("release/libsillage_ust.so")
}

/// Compiles `source` (with the wanted flags) once; returns the program.
pub fn compile(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    static LOCK: Mutex<()> = Mutex::new(());
    let _one = LOCK.lock().unwrap_or_else(|e| e.into_inner());
    let flags_name: String = flags.join("").chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let dir = tmp().join(format!("programs-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let shared = flags.contains(&"-shared");
    let out =
        dir.join(format!("{}{flags_name}{}", source.replace('.', "-"), if shared { ".so" } else { "" }));
    if out.exists() {
        return out;
    }
    let output = Command::new(compiler)
        .args(["-O2", "-g", "-Wall", "-Wno-unused-function", "-I"])
        .arg(sources())
        .arg("-o")
        .arg(&out)
        .arg(sources().join(source))
        .args(flags)
        .args(["-Wl,--as-needed", "-llttng-ust", "-llttng-ust-common", "-llttng-ust-tracepoint"])
        .args(["-ldl", "-lpthread"])
        .output()
        .unwrap_or_else(|e| panic!("{compiler}: {e} (install gcc, g++ and liblttng-ust-dev)"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

/// A command that runs on our library and registers with `daemon`.
pub fn command(program: impl AsRef<std::ffi::OsStr>, daemon: Option<&Daemon>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", library_dir());
    command.env("SILLAGE_RUNDIR", daemon.map_or(Path::new("/nonexistent/sillage"), |d| &d.keeper.dir));
    command
}

/// Runs it to its end, which must be a good one; its standard output.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&stderr);
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
    stdout
}

/// A program that does what it is told, line by line.
pub struct Obedient {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Obedient {
    pub fn start(command: &mut Command) -> Obedient {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Obedient { child, stdin, stdout }
    }

    /// Gives a command and waits for its answer.
    pub fn tell(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer.trim().to_string()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it; it must end well.
    pub fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().unwrap().success());
    }
}

/// One of the crate's examples, built here.
pub fn example(name: &str) -> PathBuf {
    let target = tmp().join("examples-build");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--release",
            "-p",
            "sillage-tracer-user",
            "--example",
            name,
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo");
    assert!(status.success(), "the example does not build");
    target.join("release/examples").join(name)
}
