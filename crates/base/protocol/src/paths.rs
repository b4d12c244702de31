//! Where the daemon's run directory and sockets lie; both sides compute them here.
//!
//! Pure functions of the environment that is passed in: `DESIGN.md` §4. A program registers with
//! the root daemon and with its own user's; the tracer of a set-user-ID program passes no
//! environment.

use alloc::{format, string::String};

/// Run directory of the root daemon when nothing overrides it.
pub const ROOT_RUN_DIR: &str = "/run/sillage";
/// Socket on which programs register, in the run directory.
pub const PROGRAMS_SOCKET: &str = "programs.sock";
/// Socket of the command line, in the run directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// What the environment says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Environment<'a> {
    /// `SILLAGE_RUNDIR`: this directory and no other; tests and parallel installations use it.
    pub sillage_rundir: Option<&'a str>,
    /// `LTTNG_UST_APP_PATH`: for programs, the same as `SILLAGE_RUNDIR`.
    pub app_path: Option<&'a str>,
    /// `LTTNG_HOME`: stands for `HOME`.
    pub lttng_home: Option<&'a str>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<&'a str>,
    /// `HOME`.
    pub home: Option<&'a str>,
}

fn given(value: Option<&str>) -> Option<&str> {
    value.filter(|v| !v.is_empty())
}

/// The run directory of the daemon of the user `uid`. None: the environment names no place.
pub fn run_dir(env: &Environment<'_>, uid: u32) -> Option<String> {
    if let Some(dir) = given(env.sillage_rundir) {
        return Some(dir.into());
    }
    if let Some(home) = given(env.lttng_home) {
        return Some(format!("{home}/.sillage/run"));
    }
    if uid == 0 {
        return Some(ROOT_RUN_DIR.into());
    }
    if let Some(dir) = given(env.xdg_runtime_dir) {
        return Some(format!("{dir}/sillage"));
    }
    given(env.home).map(|home| format!("{home}/.sillage/run"))
}

/// The run directories whose daemons a program of the user `uid` registers with, root's first.
pub fn program_run_dirs(env: &Environment<'_>, uid: u32) -> [Option<String>; 2] {
    if let Some(only) = given(env.sillage_rundir).or(given(env.app_path)) {
        return [Some(only.into()), None];
    }
    let own = run_dir(env, uid).filter(|dir| dir != ROOT_RUN_DIR);
    [Some(ROOT_RUN_DIR.into()), own]
}

/// The directory that holds the user's configuration and traces: `LTTNG_HOME`, else `HOME`.
pub fn home<'a>(env: &Environment<'a>) -> Option<&'a str> {
    given(env.lttng_home).or(given(env.home))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_knows_the_root_daemon_and_its_own() {
        let env =
            Environment { xdg_runtime_dir: Some("/run/user/7"), home: Some("/home/u"), ..Default::default() };
        assert_eq!(
            program_run_dirs(&env, 7),
            [Some("/run/sillage".into()), Some("/run/user/7/sillage".into())]
        );
        assert_eq!(program_run_dirs(&env, 0), [Some("/run/sillage".into()), None]);
        let env = Environment { lttng_home: Some("/tmp/x"), ..env };
        assert_eq!(run_dir(&env, 0), Some("/tmp/x/.sillage/run".into()));
        let env = Environment { sillage_rundir: Some("/r"), ..env };
        assert_eq!(program_run_dirs(&env, 7), [Some("/r".into()), None]);
    }
}
