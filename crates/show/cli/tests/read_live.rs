//! A session of LTTng's own daemons, watched by both faces of the program while it records, beside
//! Debian's Babeltrace 2.
//!
//! The daemons run in a mount namespace of their own, so that they meet no other daemon and leave
//! nothing behind. The test goes on when something has happened, never after a while.

mod reading;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use reading::{Done, Scratch, babeltrace2, files, ok, run, sillage};
use rustix::process::{Pid, Signal, kill_process};

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
for name in s0 s1 s2 s3 s4; do
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

const PATIENCE: Duration = Duration::from_secs(60);

struct Daemons {
    scratch: Scratch,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    relay: String,
}

fn free_port() -> u16 {
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

fn build_demo(to: &str) -> bool {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../read/pipeline/tests/programs");
    let mut gcc = Command::new("gcc");
    gcc.arg("-g").arg("-O1").arg("-I").arg(&programs).arg(programs.join("demo.c")).args(["-o", to]);
    gcc.args(["-llttng-ust", "-ldl"]).status().is_ok_and(|status| status.success())
}

impl Daemons {
    fn start() -> Option<Self> {
        if let Some(why) = missing() {
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let scratch = Scratch::new("cli-live");
        if !build_demo(&scratch.path("demo")) {
            eprintln!("SKIPPED: LTTng-UST's headers are not installed");
            return None;
        }
        let live = free_port();
        let mut child = Command::new("unshare")
            .args(["-m", "bash", "-c", SCRIPT])
            .env("BASE", &scratch.0)
            .env("CONTROL", free_port().to_string())
            .env("DATA", free_port().to_string())
            .env("LIVE", live.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Some(Self { scratch, child, input, output, relay: format!("net://127.0.0.1:{live}") })
    }

    /// Waits until the script says this.
    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the script speaks");
        let log = |name: &str| std::fs::read_to_string(self.scratch.path(name)).unwrap_or_default();
        assert_eq!(line.trim(), word, "{}{}{}", log("lttng.log"), log("sessiond.log"), log("relayd.log"));
    }

    fn go_on(&mut self) {
        self.input.write_all(b"\n").expect("the script listens");
    }

    /// Waits until just these sessions are watched. (The relay lets a session have one viewer.)
    fn wait_until_watched(&self, names: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = ok(&["babeltrace2", "-i", "lttng-live", &self.relay]);
            let is_watched = |name: &str| {
                let line = text.lines().find(|line| line.contains(&format!("/{name} (")));
                line.is_some_and(|line| line.contains(" 1 client(s) connected"))
            };
            if ["s0", "s1", "s2", "s3", "s4"].iter().all(|name| is_watched(name) == names.contains(name)) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain for {names:?}: {text}");
        }
    }

    /// What Debian's Babeltrace shows of a session on the relay's disk.
    fn on_disk(&self, name: &str) -> String {
        let is_of = |path: &Path| {
            path.file_name().is_some_and(|file| file == "metadata")
                && path.to_string_lossy().contains(&format!("/{name}-"))
        };
        let found = files(&self.scratch.0.join("relay")).into_iter().find(|path| is_of(path));
        let metadata = found.expect("the relay wrote it");
        babeltrace2(&[metadata.parent().expect("a directory").to_str().expect("UTF-8")])
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        // The script goes on to its end, which ends the daemons.
        let _ = self.input.write_all(b"\n\n\n");
        let _ = self.child.wait();
    }
}

/// A program that watches, with its output read as it comes.
struct Viewer {
    child: Child,
    out: BufReader<ChildStdout>,
    text: String,
}

impl Viewer {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a viewer");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, out, text: String::new() }
    }

    /// Reads so many lines more.
    fn read_lines(&mut self, count: usize) {
        for _ in 0..count {
            let size = self.out.read_line(&mut self.text).expect("text");
            assert_ne!(size, 0, "it ended early: {}", self.text);
        }
    }

    fn interrupt(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).expect("it is there");
    }

    /// Waits for its end.
    fn end(mut self) -> Done {
        self.out.read_to_string(&mut self.text).expect("text");
        let mut err = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
        let status = self.child.wait().expect("it ends");
        Done { code: status.code().unwrap_or(-1), out: self.text, err }
    }
}

fn debian(arguments: &[&str]) -> Command {
    let mut command = Command::new("babeltrace2");
    command.args(arguments).env("TZ", "UTC").env("BABELTRACE_TERM_COLOR", "NEVER").stdin(Stdio::null());
    command
}

#[test]
fn sessions_are_watched_as_babeltrace_watches_them() {
    let Some(mut daemons) = Daemons::start() else { return };
    daemons.wait_for("ready");
    let relay = daemons.relay.clone();
    let list = ok(&["babeltrace2", "-i", "lttng-live", &relay]);
    assert_eq!(list, babeltrace2(&["-i", "lttng-live", &relay]));
    let mut urls: Vec<String> =
        list.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    let choice = urls.join("\n  ");
    urls.sort();
    assert!(urls.len() == 5 && urls[4].ends_with("/s4"), "{list}");

    // What is not there is told at once, with what there is.
    let done = run(&["view", &relay]);
    assert_eq!(done.err, format!("error: {relay} is a relay, not a session; it has:\n  {choice}\n"));
    let done = run(&["view", &format!("{}-not", urls[0])]);
    let wanted = format!("error: {}-not: the relay has no such session; it has:\n  {choice}\n", urls[0]);
    assert_eq!((done.code, done.err), (1, wanted));
    let done = run(&["view", &urls[0], "/"]);
    assert_eq!(
        (done.code, done.err),
        (1, format!("error: {} is live: it can only be read alone\n", urls[0]))
    );

    // Viewers from the beginning on: both faces, Debian's, and one that writes a trace.
    let to = daemons.scratch.path("merged");
    let view = Viewer::start(sillage(&["view", &urls[0]]));
    let face = Viewer::start(sillage(&["babeltrace2", "-i", "lttng-live", &urls[1]]));
    let peer = Viewer::start(debian(&["-i", "lttng-live", &urls[2]]));
    let writer = Viewer::start(sillage(&["merge", &urls[3], "-o", &to]));
    daemons.wait_until_watched(&["s0", "s1", "s2", "s3"]);
    daemons.go_on();
    daemons.wait_for("ran");
    ctrl_c_ends_well(&daemons, &urls[4]);

    daemons.go_on();
    daemons.wait_for("destroyed");
    let (view, face, peer, writer) = (view.end(), face.end(), peer.end(), writer.end());
    assert_eq!((peer.code, peer.out.lines().count()), (0, 1500), "{}", peer.err);
    assert!(peer.out == daemons.on_disk("s2"));
    for (name, own) in [("s0", &view), ("s1", &face)] {
        assert_eq!((own.code, own.err.as_str()), (0, ""), "{name}");
        let wanted = daemons.on_disk(name);
        assert!(own.out == wanted, "{name}:\n{}\nand on disk:\n{wanted}", own.out);
    }
    assert_eq!((writer.code, writer.err.as_str()), (0, ""));
    assert!(babeltrace2(&[&to]) == daemons.on_disk("s3"));
}

/// Ctrl-C in the middle: all that came is shown, in whole lines, and that is no failure.
fn ctrl_c_ends_well(daemons: &Daemons, url: &str) {
    let others = ["s0", "s1", "s2", "s3"];
    let filter = "$event.name == \"demo:*\" && number < 900";
    for format in ["text", "json"] {
        let mut viewer =
            Viewer::start(sillage(&["view", "--from-start", "--format", format, "-f", filter, url]));
        viewer.read_lines(900);
        viewer.interrupt();
        let done = viewer.end();
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{format}");
        assert_eq!((done.out.lines().count(), done.out.ends_with('\n')), (900, true), "{format}");
        daemons.wait_until_watched(&others);
    }
    // So does Babeltrace's face. (Debian's own is killed by the signal.)
    let viewer = Viewer::start(sillage(&["babeltrace2", "-i", "lttng-live", url]));
    daemons.wait_until_watched(&["s0", "s1", "s2", "s3", "s4"]);
    viewer.interrupt();
    let done = viewer.end();
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    daemons.wait_until_watched(&others);
    // So many events and no more.
    let done = run(&["view", "--from-start", "-n", "3", url]);
    assert_eq!((done.code, done.out.lines().count(), done.err.as_str()), (0, 3, ""));
}

#[test]
fn a_relay_that_is_not_there_is_told() {
    let url = format!("net://127.0.0.1:{}/host/h/s", free_port());
    let done = run(&["view", &url]);
    assert_eq!((done.code, done.out.as_str()), (1, ""));
    assert!(done.err.contains("Connection refused"), "{}", done.err);
    let done = run(&["view", "nat://h/host/h/s"]);
    assert!(done.code == 1 && done.err.contains("unknown scheme"), "{}", done.err);
}
