//! A session of LTTng's own daemons, watched by both faces of the program while it records, beside
//! Debian's Babeltrace 2.
//! The test goes on when something has happened, never after a while.

#[path = "../../../read/pipeline/tests/live/daemons.rs"]
mod daemons;
mod reading;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use daemons::{Daemons, free_port};
use reading::{Done, babeltrace2, files, ok, run, sillage};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until just these sessions are watched. (The relay lets a session have one viewer.)
fn wait_until_watched(daemons: &Daemons, names: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = ok(&["babeltrace2", "-i", "lttng-live", &daemons.relay]);
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
fn on_disk(daemons: &Daemons, name: &str) -> String {
    let is_of = |path: &Path| {
        path.file_name().is_some_and(|file| file == "metadata")
            && path.to_string_lossy().contains(&format!("/{name}-"))
    };
    let found = files(&daemons.base.join("relay")).into_iter().find(|path| is_of(path));
    let metadata = found.expect("the relay wrote it");
    babeltrace2(&[metadata.parent().expect("a directory").to_str().expect("UTF-8")])
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
    let Some(mut daemons) = Daemons::start("cli-live", &["s0", "s1", "s2", "s3", "s4"]) else { return };
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
    let to = daemons.base.join("merged").to_str().expect("UTF-8").to_owned();
    let view = Viewer::start(sillage(&["view", &urls[0]]));
    let face = Viewer::start(sillage(&["babeltrace2", "-i", "lttng-live", &urls[1]]));
    let peer = Viewer::start(debian(&["-i", "lttng-live", &urls[2]]));
    let writer = Viewer::start(sillage(&["merge", &urls[3], "-o", &to]));
    wait_until_watched(&daemons, &["s0", "s1", "s2", "s3"]);
    daemons.go_on();
    daemons.wait_for("ran");
    ctrl_c_ends_well(&daemons, &urls[4]);

    daemons.go_on();
    daemons.wait_for("destroyed");
    let (view, face, peer, writer) = (view.end(), face.end(), peer.end(), writer.end());
    assert_eq!((peer.code, peer.out.lines().count()), (0, 1500), "{}", peer.err);
    assert!(peer.out == on_disk(&daemons, "s2"));
    for (name, own) in [("s0", &view), ("s1", &face)] {
        assert_eq!((own.code, own.err.as_str()), (0, ""), "{name}");
        let wanted = on_disk(&daemons, name);
        assert!(own.out == wanted, "{name}:\n{}\nand on disk:\n{wanted}", own.out);
    }
    assert_eq!((writer.code, writer.err.as_str()), (0, ""));
    assert!(babeltrace2(&[&to]) == on_disk(&daemons, "s3"));
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
        wait_until_watched(daemons, &others);
    }
    // So does Babeltrace's face. (Debian's own is killed by the signal.)
    let viewer = Viewer::start(sillage(&["babeltrace2", "-i", "lttng-live", url]));
    wait_until_watched(daemons, &["s0", "s1", "s2", "s3", "s4"]);
    viewer.interrupt();
    let done = viewer.end();
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    wait_until_watched(daemons, &others);
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
