//! Where this user's daemon is, its traces and its configuration, by environment and user.

use sillage_protocol::paths::{self, CONTROL_SOCKET, Environment, ROOT_RUN_DIR};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The places of this process's user.
#[derive(Clone, Debug)]
pub struct Place {
    /// Run directory of the user's own daemon.
    pub run_dir: PathBuf,
    /// `LTTNG_HOME`, else `HOME`.
    pub home: PathBuf,
    /// Root's daemon may be asked instead.
    root_too: bool,
}

impl Place {
    /// By this process's environment. None: it names neither a home nor a run directory.
    pub fn from_environment() -> Option<Place> {
        let read = |name| std::env::var(name).ok();
        let [rundir, lttng_home, xdg, home] =
            ["SILLAGE_RUNDIR", "LTTNG_HOME", "XDG_RUNTIME_DIR", "HOME"].map(read);
        let env = Environment {
            sillage_rundir: rundir.as_deref(),
            app_path: None,
            lttng_home: lttng_home.as_deref(),
            xdg_runtime_dir: xdg.as_deref(),
            home: home.as_deref(),
        };
        let uid = rustix::process::geteuid().as_raw();
        let run_dir = PathBuf::from(paths::run_dir(&env, uid)?);
        let home = paths::home(&env).map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let root_too = uid != 0 && rundir.is_none() && lttng_home.is_none();
        Some(Place { run_dir, home, root_too })
    }

    /// The control socket to use: root's, if we are let in (members of the `tracing` group are), else
    /// the user's own.
    pub fn socket(&self) -> PathBuf {
        let root = Path::new(ROOT_RUN_DIR).join(CONTROL_SOCKET);
        if self.root_too && UnixStream::connect(&root).is_ok() {
            return root;
        }
        self.own_socket()
    }

    /// The control socket of the user's own daemon.
    pub fn own_socket(&self) -> PathBuf {
        self.run_dir.join(CONTROL_SOCKET)
    }

    /// Directory of traces that are given no other.
    pub fn traces(&self) -> PathBuf {
        self.home.join("lttng-traces")
    }
}
