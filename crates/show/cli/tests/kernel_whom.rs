//! Whose kernel events are recorded: not the daemon's own, and of all others those whom a session follows, by
//! numbers of processes, users and groups, or by a container. Needs the rights to load eBPF programs, and says so
//! when it skips.

mod support;

use std::path::Path;
use std::process::Command;
use support::kernel::{again_in_a_namespace_of_processes, kernel_home, number, own_namespace, read};
use support::{Home, wait_for};

#[test]
fn the_daemons_own_doings_are_left_out_unless_wanted() {
    let Some(home) = kernel_home("self") else { return };
    let worker_switches = |options: &str, out: &str| {
        home.ok(&format!("create s -o {out}"));
        home.ok(&format!("enable-channel -k c {options}"));
        home.ok("enable-event -k sched_switch -c c");
        home.ok("add-context -k -t vpid -t pid_ns");
        home.ok("start");
        let worker = i64::from(home.pid("worker.pid"));
        for _ in 0..10 {
            home.ok("list s");
        }
        home.ok("destroy s");
        let text = read(&home, out);
        let ours =
            |line: &&str| number(line, " vpid") == worker && number(line, " pid_ns") == own_namespace();
        text.lines().filter(ours).count()
    };
    assert_eq!(worker_switches("", "without"), 0);
    assert!(worker_switches("--include-self", "with") >= 10);
}

#[test]
fn a_session_follows_whom_it_is_told() {
    let Some(home) = kernel_home("track") else { return };
    home.ok("create s -o out");
    home.ok("enable-event -k --syscall openat");
    let own = std::process::id();
    let error = |text: &str| (1, format!("Error: {text}\n"));
    let cases = [
        (format!("track -k --vpid {own}"), (0, format!("Added {own} to the virtual process ID tracker inclusion set\n"))),
        (
            format!("track -k --vpid={own},88888"),
            (
                0,
                format!(
                    "Added 88888 to the virtual process ID tracker inclusion set\n\
                     Warning: {own} is already in the virtual process ID inclusion set\n"
                ),
            ),
        ),
        (
            "untrack -k --vpid=88888,99999".into(),
            (
                0,
                "Removed 88888 from the virtual process ID tracker inclusion set\n\
                 Warning: 99999 is not in the virtual process ID the inclusion set\n"
                    .into(),
            ),
        ),
        ("track -k".into(), error("At least one process attribute must be specified")),
        ("track --vpid 1".into(), error("Please specify a domain (--kernel/--userspace).")),
        ("track -k -u --vpid 1".into(), error("Only one domain must be specified.")),
        ("track -k --pid=abc".into(), error("abc is not a valid process ID value; expected an integer")),
        ("track -k --uid=nosuchuser".into(), error("User `nosuchuser` was not found")),
        ("track -k --vgid=nosuchgroup".into(), error("Group `nosuchgroup` was not found")),
        ("track -k --pid".into(), error("No process attribute value specified for Process ID tracker")),
        (
            "track -k --all --pid=1".into(),
            error("The --all option cannot be used with a list of process attribute values"),
        ),
        ("track -u --uid 0".into(), error("The user ID process attribute cannot be tracked in the user space domain.")),
        ("track -k --pid 1 extra".into(), error("Unknown argument: extra")),
        ("track -k -s nosession --pid 1".into(), error("Recording session does not exist")),
        ("track -k --vuid=root,77".into(), (0, "Added root to the virtual user ID tracker inclusion set\nAdded 77 to the virtual user ID tracker inclusion set\n".into())),
        ("track -k --vuid --all".into(), (0, "Virtual user ID tracking policy set to `include all`\n".into())),
        ("track -k --uid=root,77".into(), (0, "Added root to the user ID tracker inclusion set\nAdded 77 to the user ID tracker inclusion set\n".into())),
        ("untrack -k --gid --all".into(), (0, "Group ID tracking policy set to `exclude all`\n".into())),
    ];
    for (line, answer) in cases {
        assert_eq!(home.run(&line), answer, "{line}");
    }
    let list = format!(
        "Tracked process attributes\n  Process IDs:          all\n  Virtual process IDs:  {own}\n  \
         User IDs:             77, `root`\n  Virtual user IDs:     all\n  Group IDs:            none\n  \
         Virtual group IDs:    all\n\n"
    );
    let text = home.ok("list s");
    assert!(text.contains(&list), "{text}");
    home.ok("track -k --gid --all");
    if !rustix::process::getuid().is_root() {
        home.ok("track -k --uid --all");
    }
    home.ok("start");
    let open = |name: &str| assert!(std::fs::File::open(home.dir.join(name)).is_err());
    let other = |name: &str| {
        let words = format!("exec 3<{}", home.dir.join(name).display());
        assert!(!Command::new("sh").args(["-c", &words]).output().unwrap().status.success());
    };
    let both = |name: &str| {
        open(&format!("{name}-own"));
        other(&format!("{name}-other"));
    };
    both("tracked");
    home.ok(&format!("untrack -k --vpid {own}"));
    both("nobody");
    home.ok("track -k --vpid --all");
    both("everybody");
    // The sets outlive a worker.
    home.ok(&format!("track -k --vpid {own}"));
    home.kill_worker();
    // Answered when the tracer has done everything before.
    home.ok("track -k --vpid 4000000000");
    both("again");
    home.ok("destroy");
    let text = read(&home, "out");
    let opened: Vec<&str> = ["tracked", "nobody", "everybody", "again"]
        .iter()
        .flat_map(|name| ["own", "other"].map(|who| (name, who)))
        .filter(|(name, who)| text.contains(&format!("/{name}-{who}\"")))
        .flat_map(|(name, who)| [*name, who])
        .collect();
    assert_eq!(
        opened,
        ["tracked", "own", "everybody", "own", "everybody", "other", "again", "own"],
        "{text}"
    );
    // Whom a session that records follows can begin at any time.
    home.ok("create t -o later");
    home.ok("enable-event -k --syscall openat");
    home.ok("start");
    both("before");
    home.ok(&format!("track -k --vpid {own}"));
    both("after");
    home.ok("destroy");
    let text = read(&home, "later");
    let seen = |name: &str| text.contains(&format!("/{name}\""));
    assert!(
        seen("before-own") && seen("before-other") && seen("after-own") && !seen("after-other"),
        "{text}"
    );
}

#[test]
fn the_same_in_a_namespace_of_processes() {
    again_in_a_namespace_of_processes(&[
        "the_daemons_own_doings_are_left_out_unless_wanted",
        "a_session_follows_whom_it_is_told",
    ]);
}

/// A shell that opens `inside` when somebody writes into `go`, and then says so in `done`.
struct Guest {
    child: std::process::Child,
    dir: std::path::PathBuf,
}

impl Guest {
    fn start(home: &Home, name: &str, around: &[&str]) -> Guest {
        let dir = home.dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        assert!(Command::new("mkfifo").args(["go", "done"]).current_dir(&dir).status().unwrap().success());
        let script = "read line < go; sh -c '(cat inside)' 2>/dev/null; echo done > done; true";
        let words: Vec<&str> = around.iter().copied().chain(["sh", "-c", script]).collect();
        let child = Command::new(words[0]).args(&words[1..]).current_dir(&dir).spawn().unwrap();
        Guest { child, dir }
    }

    /// Records the machine's opened files while the guest and somebody else open one each.
    fn record(self, home: &Home, option: &str) -> (String, String) {
        let out = format!("{}-out", self.dir.display());
        let script =
            format!("cat outside 2>/dev/null; cd {}; echo go > go; read line < done", self.dir.display());
        let output = home
            .command(env!("CARGO_BIN_EXE_sillage"))
            .args(["record", "-o", &out, "--syscall=openat", option, "--", "sh", "-c", &script])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        let mut guest = self;
        guest.child.wait().unwrap();
        (home.babeltrace(Path::new(&out)), text)
    }
}

fn opened(text: &str, name: &str) -> bool {
    text.contains(&format!("filename = \"{name}\""))
}

#[test]
fn record_follows_a_namespace_or_a_control_group() {
    let Some(home) = kernel_home("guest") else { return };
    if !rustix::process::getuid().is_root() {
        return eprintln!("SKIPPED: record_follows_a_namespace_or_a_control_group: only root makes them");
    }
    // A namespace below another one: whoever follows the outer has both.
    let nested = ["unshare", "-pf", "unshare", "-pf"];
    let guest = Guest::start(&home, "spaces", &nested);
    let first = format!("/proc/{0}/task/{0}/children", guest.child.id());
    let children = || std::fs::read_to_string(&first).unwrap_or_default().trim().to_owned();
    wait_for("the process in the namespace", || !children().is_empty());
    let (text, _) = guest.record(&home, &format!("--pid-ns={}", children()));
    assert!(opened(&text, "inside") && !opened(&text, "outside"), "{text}");
    // Our own: everybody's here.
    let (text, _) = Guest::start(&home, "own", &["env"]).record(&home, "--pid-ns");
    assert!(opened(&text, "inside") && opened(&text, "outside"), "{text}");
    // A control group.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        words.next().filter(|_| words.next() == Some("cgroup2"))
    });
    let Some(mount) = mount else {
        return eprintln!("SKIPPED: control groups: version 2 is not mounted");
    };
    let group = Path::new(mount).join(format!("sillage-test-{}", std::process::id()));
    let inner = group.join("inner");
    std::fs::create_dir_all(&inner).unwrap();
    let guest = Guest::start(&home, "group", &["env"]);
    let mut helper = Command::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(inner.join("cgroup.procs"), guest.child.id().to_string()).unwrap();
    std::fs::write(group.join("cgroup.procs"), helper.id().to_string()).unwrap();
    let (text, _) = guest.record(&home, &format!("--container={}", helper.id()));
    helper.kill().unwrap();
    helper.wait().unwrap();
    wait_for("the group to be empty", || std::fs::remove_dir(&inner).is_ok() || !inner.exists());
    wait_for("the group to be empty", || std::fs::remove_dir(&group).is_ok());
    assert!(opened(&text, "inside") && !opened(&text, "outside"), "{text}");
    for (words, want) in [
        ("record --container nobody-here -k sched_switch -- true", "no container nobody-here runs"),
        ("record --pid-ns -- true", "none are recorded without -k or --syscall"),
        ("record --pid-ns=4000000 -k sched_switch -- true", "/proc/4000000/ns/pid: No such file"),
    ] {
        let (code, text) = home.run(words);
        assert!(code == 1 && text.contains(want), "{words}: {text}");
    }
}
