//! LTTng and Sillage behind one face, so that a benchmark runs the same program under each in turn.
//!
//! Both write to tmpfs, both get their own daemon, which is gone when the [`Peer`] is.

use crate::build::{Built, root, run};
use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which system.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Debian's LTTng.
    Lttng,
    /// Ours.
    Sillage,
}

/// A system with its daemon running.
pub struct Peer {
    system: System,
    /// Directory on tmpfs for its sockets and traces.
    home: PathBuf,
    control: PathBuf,
    /// Where programs find our library.
    libraries: Option<PathBuf>,
    /// The session daemon that we started.
    daemon: Option<std::process::Child>,
}

/// How a channel is made.
#[derive(Clone, Copy)]
pub struct Channel<'a> {
    /// `--overwrite` and the like.
    pub options: &'a [&'a str],
    /// A flight recorder: LTTng's session is a snapshot one, which writes nothing.
    pub flight_recorder: bool,
}

/// A scratch directory on tmpfs.
pub fn scratch(name: &str) -> anyhow::Result<PathBuf> {
    let dir = Path::new("/dev/shm").join(format!("sillage-bench-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Compiles the benchmark's C program against Debian's LTTng-UST.
pub fn compile(source: &str, out: &Path) -> anyhow::Result<PathBuf> {
    let dir = root().join("crates/record/tracer-user-abi/tests/programs");
    let program = out.join(source.trim_end_matches(".c"));
    let mut cc = Command::new("cc");
    cc.arg("-O2").arg("-I").arg(&dir).arg(dir.join(source)).arg("-o").arg(&program);
    run(cc.args(["-llttng-ust", "-ldl", "-pthread"]))?;
    Ok(program)
}

impl Peer {
    /// Starts Debian's daemon. Fails if one of the system's is running: it would get the events.
    pub fn lttng() -> anyhow::Result<Peer> {
        let home = scratch("lttng")?;
        let running = Command::new("pgrep").args(["-x", "lttng-sessiond"]).output()?;
        ensure!(running.stdout.is_empty(), "a lttng-sessiond is running; stop it for the benchmark");
        let daemon = Command::new("lttng-sessiond")
            .env("LTTNG_HOME", &home)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("lttng-sessiond")?;
        let peer = Peer {
            system: System::Lttng,
            home,
            control: "lttng".into(),
            libraries: None,
            daemon: Some(daemon),
        };
        for _ in 0..100 {
            if peer.verb(&["list"]).is_ok() {
                return Ok(peer);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        bail!("lttng-sessiond does not answer")
    }

    /// Ours; its daemon starts with the first command.
    pub fn sillage(built: &Built) -> anyhow::Result<Peer> {
        let home = scratch("sillage")?;
        let libraries = home.join("lib");
        std::fs::create_dir_all(&libraries)?;
        for name in ["liblttng-ust.so.1", "liblttng-ust-common.so.1", "liblttng-ust-tracepoint.so.1"] {
            let link = libraries.join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&built.ust_library, link)?;
        }
        let control = built.sillage.clone();
        Ok(Peer { system: System::Sillage, home, control, libraries: Some(libraries), daemon: None })
    }

    /// Which one it is.
    pub fn system(&self) -> System {
        self.system
    }

    /// The name in tables.
    pub fn name(&self) -> &'static str {
        match self.system {
            System::Lttng => "LTTng",
            System::Sillage => "Sillage",
        }
    }

    /// A control command of this system, ready to run.
    pub fn control(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.control);
        command.args(arguments).env("LTTNG_HOME", &self.home);
        if self.system == System::Sillage {
            command.env("SILLAGE_RUNDIR", self.home.join("run"));
        }
        command
    }

    /// Runs a control command; returns what it printed.
    pub fn verb(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.control(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{} {arguments:?}: {text}{}", self.name(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }

    /// A program that this system traces.
    pub fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LTTNG_HOME", &self.home);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries).env("SILLAGE_RUNDIR", self.home.join("run"));
        }
        command
    }

    /// Directory of the trace of [`Peer::start`]'s session.
    pub fn trace(&self) -> PathBuf {
        self.home.join("trace")
    }

    /// Makes and starts a session that records `events` to one channel.
    pub fn start(&self, channel: Channel<'_>, events: &[&str]) -> anyhow::Result<()> {
        let _ = std::fs::remove_dir_all(self.trace());
        let trace = self.trace();
        let trace = trace.to_str().context("a path that is not UTF-8")?;
        if channel.flight_recorder && self.system == System::Lttng {
            self.verb(&["create", "bench", "--snapshot"])?;
        } else {
            self.verb(&["create", "bench", "-o", trace])?;
        }
        let enable = [&["enable-channel", "-u", "chan", "-s", "bench"], channel.options].concat();
        self.verb(&enable)?;
        for event in events {
            self.verb(&["enable-event", "-u", event, "-c", "chan", "-s", "bench"])?;
        }
        self.verb(&["start", "bench"])?;
        Ok(())
    }

    /// Stops and destroys that session; returns what `stop` printed.
    pub fn finish(&self) -> anyhow::Result<String> {
        let text = self.verb(&["stop", "bench"])?;
        self.verb(&["destroy", "bench"])?;
        Ok(text)
    }

    /// Processes of its daemon.
    pub fn daemon_pids(&self) -> anyhow::Result<Vec<u32>> {
        let pattern = match self.system {
            System::Lttng => vec!["lttng-sessiond", "lttng-consumerd", "lttng-runas"],
            System::Sillage => vec!["sillage"],
        };
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let text = String::from_utf8_lossy(&line).replace('\0', " ");
            let ours = String::from_utf8_lossy(&environment).contains(&*self.home.to_string_lossy());
            let command = text.split(' ').next().unwrap_or_default();
            if ours && pattern.iter().any(|p| command.contains(p)) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        } else {
            for pid in self.daemon_pids().unwrap_or_default() {
                let _ = Command::new("kill").arg(pid.to_string()).stderr(Stdio::null()).status();
            }
        }
        let _ = std::fs::remove_dir_all(&self.home);
    }
}
