//! A session of LTTng's own daemons, watched while it records.
//!
//! The daemons run in a mount namespace of their own, so that they meet no other daemon and leave
//! nothing behind. The test goes on when a line of the script says so; it sleeps only between two
//! questions to the relay.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use sillage_pipeline::sources::live::{Live, LiveOptions, LiveUrl, SessionNotFound, list_sessions};
use sillage_pipeline::{Messages, Status};
use sillage_protocol::live::Seek;

use crate::support::{events, line};

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
{
	lttng create watched --live=200000 --ctrl-url="tcp://127.0.0.1:$CONTROL" --data-url="tcp://127.0.0.1:$DATA"
	lttng enable-event --userspace 'demo:*'
	lttng start
} >"$BASE/lttng.log" 2>&1
echo ready
read -r _
"$BASE/demo" 1000
echo ran
read -r _
"$BASE/demo" 500
lttng destroy watched >>"$BASE/lttng.log" 2>&1
echo destroyed
read -r _
"#;

struct Daemons {
    base: PathBuf,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    live: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Why LTTng's daemons can not be run here.
fn missing() -> Option<String> {
    for tool in ["lttng", "lttng-relayd", "lttng-sessiond", "gcc", "unshare"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return Some(format!("{tool} is not installed"));
        }
    }
    let unshared = Command::new("unshare").args(["-m", "true"]).status();
    (!unshared.is_ok_and(|status| status.success())).then(|| "no right to make a mount namespace".into())
}

fn build_demo(to: &Path) -> bool {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let mut gcc = Command::new("gcc");
    gcc.arg("-g").arg("-O1").arg("-I").arg(&programs).arg(programs.join("demo.c")).arg("-o").arg(to);
    gcc.args(["-llttng-ust", "-ldl"]).status().is_ok_and(|status| status.success())
}

impl Daemons {
    fn start() -> Option<Self> {
        if let Some(why) = missing() {
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let base = std::env::temp_dir().join(format!("sillage-live-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir_all(&base).unwrap();
        if !build_demo(&base.join("demo")) {
            eprintln!("SKIPPED: LTTng-UST's headers are not installed");
            return None;
        }
        let live = free_port();
        let mut child = Command::new("unshare")
            .args(["-m", "bash", "-c", SCRIPT])
            .env("BASE", &base)
            .env("CONTROL", free_port().to_string())
            .env("DATA", free_port().to_string())
            .env("LIVE", live.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Self { base, child, input, output, live })
    }

    /// Waits until the script says this.
    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let log = |name: &str| std::fs::read_to_string(self.base.join(name)).unwrap_or_default();
        assert_eq!(line.trim(), word, "{}{}{}", log("lttng.log"), log("sessiond.log"), log("relayd.log"));
    }

    fn go_on(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        let _ = self.input.write_all(b"\n\n\n");
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

/// Lines of messages until there are so many events, or the end.
fn watch(live: &mut Live, lines: &mut Vec<String>, events_wanted: usize) -> Status {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match live.advance().unwrap() {
            Status::Ready => {
                lines.push(live.current().map(|message| line(&message)).unwrap());
                if events(lines).len() == events_wanted {
                    return Status::Ready;
                }
            }
            Status::Pending => {
                assert!(Instant::now() < deadline, "nothing comes after {:?}", lines.last());
                std::thread::sleep(Duration::from_millis(20));
            }
            Status::End => return Status::End,
        }
    }
}

#[test]
fn lttng_s_own_relay() {
    let Some(mut daemons) = Daemons::start() else {
        return;
    };
    daemons.wait_for("ready");
    let relay = LiveUrl::parse(&format!("net://127.0.0.1:{}", daemons.live)).unwrap();
    let options = LiveOptions {
        session_not_found: SessionNotFound::End,
        seek: Seek::Beginning,
        ..LiveOptions::default()
    };
    let sessions = list_sessions(&relay, &options).unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let url = format!("{relay}/host/{}/{}", sessions[0].hostname, sessions[0].name);
    let mut live = Live::connect(&LiveUrl::parse(&url).unwrap(), options).unwrap();
    // Attached before anything is there.
    assert_eq!(live.advance().unwrap(), Status::Pending);
    let mut lines = Vec::new();
    daemons.go_on();
    daemons.wait_for("ran");
    assert_eq!(watch(&mut live, &mut lines, 1000), Status::Ready);
    daemons.go_on();
    assert_eq!(watch(&mut live, &mut lines, usize::MAX), Status::End);
    daemons.wait_for("destroyed");
    let seen = events(&lines);
    assert_eq!(seen.len(), 1500);
    let times: Vec<u64> = seen.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted());
    // What the relay has on its disk is the same.
    let mut disk = sillage_pipeline::open(daemons.base.join("relay")).unwrap().messages();
    let mut lines = Vec::new();
    while disk.advance().unwrap() == Status::Ready {
        lines.push(disk.current().map(|message| line(&message)).unwrap());
    }
    let strip = |line: &&String| line.rsplit_once(':').map(|(_, rest)| rest.to_owned());
    let (disk, seen) = (events(&lines), seen);
    assert_eq!(disk.iter().map(strip).collect::<Vec<_>>(), seen.iter().map(strip).collect::<Vec<_>>());
}
