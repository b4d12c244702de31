//! LTTng's own relay and session daemon with live sessions that record a program, for the tests of
//! this crate and of the command line.
//!
//! The daemons run in a mount namespace of their own, so that they meet no other daemon and leave
//! nothing behind. A script goes on when it is told to, and says how far it is: `ready` when the
//! sessions record, `ran` after 1000 events, `destroyed` after 500 more and the end of the sessions.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const SCRIPT: &str = r#"
set -e
mkdir -p /run/lttng "$BASE/home"
mount -t tmpfs tmpfs /run/lttng
mount -t tmpfs tmpfs /dev/shm
export HOME="$BASE/home" LTTNG_HOME="$BASE/home"
lttng-relayd -o "$BASE/relay" -C "tcp://127.0.0.1:$CONTROL" -D "tcp://127.0.0.1:$DATA" \
	-L "tcp://127.0.0.1:$LIVE" >"$BASE/relayd.log" 2>&1 &
relayd=$!
trap 'kill $relayd $(cat "$BASE/sessiond.pid" 2>/dev/null) 2>/dev/null || true' EXIT
until (: <"/dev/tcp/127.0.0.1/$LIVE") 2>/dev/null; do
	kill -0 $relayd
	read -t 0.05 <> <(:) || true
done
lttng-sessiond --no-kernel --daemonize --pidfile "$BASE/sessiond.pid" >"$BASE/sessiond.log" 2>&1
for name in $SESSIONS; do
	lttng create $name --live=200000 --ctrl-url="tcp://127.0.0.1:$CONTROL" --data-url="tcp://127.0.0.1:$DATA"
	lttng enable-event --userspace 'demo:*'
	lttng start
done >"$BASE/lttng.log" 2>&1
echo ready
read -r _
"$BASE/demo" 1000
echo ran
read -r _
"$BASE/demo" 500
lttng destroy --all >>"$BASE/lttng.log" 2>&1
echo destroyed
read -r _
"#;

/// The daemons; they go away with it.
pub struct Daemons {
    /// Directory for the test; the relay writes below `relay` in it.
    pub base: PathBuf,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// URL of the relay.
    pub relay: String,
}

/// A port that nobody listens at.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port()
}

/// Why LTTng's daemons can not be run here.
fn missing() -> Option<String> {
    for tool in ["lttng", "lttng-relayd", "lttng-sessiond", "gcc", "unshare", "babeltrace2"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return Some(format!("{tool} is not installed"));
        }
    }
    let unshared = Command::new("unshare").args(["-m", "true"]).status();
    (!unshared.is_ok_and(|status| status.success())).then(|| "no right to make a mount namespace".into())
}

fn build_demo(to: &Path) -> bool {
    // The same from every crate that uses this file.
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../read/pipeline/tests/programs");
    let mut gcc = Command::new("gcc");
    gcc.arg("-g").arg("-O1").arg("-I").arg(&programs).arg(programs.join("demo.c")).arg("-o").arg(to);
    gcc.args(["-llttng-ust", "-ldl"]).status().is_ok_and(|status| status.success())
}

impl Daemons {
    /// Starts them with live sessions of these names. `name` is that of the test. Says why when they
    /// can not run here.
    pub fn start(name: &str, sessions: &[&str]) -> Option<Self> {
        if let Some(why) = missing() {
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let base = std::env::temp_dir().join(format!("sillage-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir_all(&base).expect("a directory for the test");
        if !build_demo(&base.join("demo")) {
            eprintln!("SKIPPED: LTTng-UST's headers are not installed");
            return None;
        }
        let live = free_port();
        let mut child = Command::new("unshare")
            .args(["-m", "bash", "-c", SCRIPT])
            .env("BASE", &base)
            .env("SESSIONS", sessions.join(" "))
            .env("CONTROL", free_port().to_string())
            .env("DATA", free_port().to_string())
            .env("LIVE", live.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Some(Self { base, child, input, output, relay: format!("net://127.0.0.1:{live}") })
    }

    /// Waits until the script says this.
    pub fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the script speaks");
        let log = |name: &str| std::fs::read_to_string(self.base.join(name)).unwrap_or_default();
        assert_eq!(line.trim(), word, "{}{}{}", log("lttng.log"), log("sessiond.log"), log("relayd.log"));
    }

    /// Lets the script go on.
    pub fn go_on(&mut self) {
        self.input.write_all(b"\n").expect("the script listens");
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        // The script goes on to its end, which ends the daemons.
        let _ = self.input.write_all(b"\n\n\n");
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.base);
    }
}
