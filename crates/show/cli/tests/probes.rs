//! Probes in programs' code, from the command line to a trace that Babeltrace reads. Needs the rights to load
//! eBPF programs, a C compiler, and a kernel with uprobes; says so when it skips.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use support::{Home, wait_for};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/probes/probed.c");

/// A home whose daemon may probe programs; None, said loudly, where it may not.
fn probing_home(name: &str) -> Option<Home> {
    let home = Home::new(name);
    if !Path::new("/sys/bus/event_source/devices/uprobe/type").exists() {
        eprintln!("SKIPPED: {name}: this kernel has no uprobes");
        return None;
    }
    home.ok("create probe -o probe");
    let (code, text) = home.run("enable-channel -k c");
    home.ok("destroy probe");
    if code != 0 {
        eprintln!("SKIPPED: {name}: {text}");
        return None;
    }
    Some(home)
}

fn compile(home: &Home, name: &str, options: &[&str]) -> PathBuf {
    let program = home.dir.join(name);
    let status =
        Command::new("gcc").args(["-O1", "-g0", "-o"]).arg(&program).arg(SOURCE).args(options).status();
    assert!(status.expect("gcc").success());
    program
}

/// Runs it; what it printed.
fn run(program: &Path, rounds: usize) -> String {
    let output = Command::new(program).arg(rounds.to_string()).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The numbers behind `key = ` in the lines of an event.
fn values(text: &str, event: &str, key: &str) -> Vec<i64> {
    let lines = text.lines().filter(|line| line.contains(&format!(" {event}: ")));
    let value = |line: &str| {
        let rest = line.split(&format!(" {key} = ")).nth(1).unwrap_or_else(|| panic!("no {key} in {line}"));
        let number = rest.split([',', ' ']).next().unwrap();
        match number.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap() as i64,
            None => number.parse().unwrap(),
        }
    };
    lines.map(value).collect()
}

#[test]
fn symbols_and_sdt_probes_are_recorded_with_what_they_carry() {
    let Some(home) = probing_home("probes") else { return };
    let program = compile(&home, "probed", &[]);
    let shown = program.display();
    home.ok("create s -o out");
    assert_eq!(
        home.ok(&format!("enable-event -k --userspace-probe={shown}:probed_function called")),
        "kernel event called created in channel channel0\n"
    );
    home.ok("enable-event -k --userspace-probe=elf:./probed:probed_function again");
    home.ok(&format!("enable-event -k --userspace-probe=sdt:{shown}:probed:step step"));
    home.ok(&format!("enable-event -k --userspace-function={shown}:probed_function twice"));
    home.ok("add-context -k -t procname -t vpid -t callstack-user");
    let list = home.ok("list s");
    assert!(
        list.contains(&format!("      step (type: userspace-probe, sdt:{shown}:probed:step) [enabled]\n")),
        "{list}"
    );
    assert_eq!(run(&program, 3), "0", "nobody listens yet");
    home.ok("start");
    assert_eq!(run(&program, 3), "3", "the semaphore is up");
    let text = home.ok("stop");
    // What is not understood is said, and left out.
    assert!(text.contains("argument 5 is at 8@%xmm0, which is not understood"), "{text}");
    assert_eq!(run(&program, 3), "0", "and down again");
    home.ok("destroy");
    let text = home.babeltrace(&home.dir.join("out"));
    for event in ["called", "again", "step", "twice_entry", "twice_exit"] {
        let ips = values(&text, event, "ip");
        assert!(ips.len() == 3 && ips.iter().all(|ip| *ip == ips[0] && *ip > 0xffff), "{event}: {text}");
    }
    assert!(text.lines().all(|line| line.contains("procname = \"probed\"")), "{text}");
    assert_eq!(values(&text, "step", "arg0"), [0, -1, -2]);
    assert_eq!(values(&text, "step", "arg1"), [250, 251, 252]);
    assert_eq!(values(&text, "step", "arg2"), [22; 3]);
    assert_eq!(values(&text, "step", "arg3"), [-5; 3]);
    assert_eq!(values(&text, "step", "arg4"), [33; 3]);
    assert_eq!(values(&text, "twice_exit", "ret"), [1, 3, 5]);
    let (entry, exit) = (values(&text, "twice_entry", "parent_ip"), values(&text, "twice_exit", "parent_ip"));
    assert!(entry == exit && entry[0] != 0, "{text}");
    assert_eq!(values(&text, "called", "ip")[0], values(&text, "twice_exit", "ip")[0]);
}

#[test]
fn static_programs_and_libraries_are_probed() {
    let Some(home) = probing_home("static") else { return };
    let program = compile(&home, "static", &["-static"]);
    home.ok("create s -o out");
    home.ok(&format!("enable-event -k --userspace-probe={}:probed_function f", program.display()));
    // The C library exports it; of a stripped file that is all there is.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library =
        maps.lines().filter_map(|line| line.split(' ').next_back()).find(|path| path.contains("/libc.so"));
    home.ok(&format!("enable-event -k --userspace-probe={}:getpgid g", library.unwrap()));
    home.ok("add-context -k -t vpid");
    home.ok("start");
    assert_eq!(run(&program, 2), "0");
    rustix::process::getpgid(None).unwrap();
    let python =
        Command::new("python3").args(["-c", "import os; os.getpgid(0); print(os.getpid())"]).output();
    let python = String::from_utf8(python.expect("python3").stdout).unwrap();
    home.ok("destroy");
    let text = home.babeltrace(&home.dir.join("out"));
    assert_eq!(values(&text, "f", "ip").len(), 2, "{text}");
    assert!(values(&text, "g", "vpid").contains(&python.trim().parse().unwrap()), "{text}");
}

/// A program that calls the function when it is told to.
struct Waiting {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Waiting {
    fn start(program: &Path) -> Waiting {
        let mut child = Command::new(program)
            .args(["0", "wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut waiting = Waiting { child, to, from: BufReader::new(from) };
        assert_eq!(waiting.line(), "0");
        waiting
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn call(&mut self, number: i64) {
        writeln!(self.to, "{number}").unwrap();
        assert_eq!(self.line(), (number * 2 + 1).to_string());
    }

    fn end(mut self) {
        drop(self.to);
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn a_file_that_is_replaced_or_deleted_goes_on_being_probed() {
    let Some(home) = probing_home("replaced") else { return };
    let program = compile(&home, "replaced", &[]);
    // The same function at another place.
    let newer = compile(&home, "newer", &["-O0", "-DNEWER=1", "-fno-inline", "-Wl,-Ttext-segment=0x40000"]);
    home.ok("create s -o out");
    home.ok(&format!("enable-event -k --userspace-function={}:probed_function f", program.display()));
    home.ok("add-context -k -t vpid");
    home.ok("start");
    let mut old = Waiting::start(&program);
    old.call(1);
    std::fs::rename(&newer, &program).unwrap();
    let mut new = Waiting::start(&program);
    // The file is looked at twice a second.
    let recorded = |new: &mut Waiting| {
        new.call(2);
        home.ok("stop");
        home.ok("start");
        values(&home.babeltrace(&home.dir.join("out")), "f_exit", "vpid").contains(&i64::from(new.child.id()))
    };
    wait_for("the new file to be probed", || recorded(&mut new));
    old.call(3);
    std::fs::remove_file(&program).unwrap();
    wait_for("the daemon to miss the file", || {
        home.ok("list s").contains("only programs that run already are probed")
    });
    old.call(4);
    new.call(5);
    home.ok("stop");
    let text = home.babeltrace(&home.dir.join("out"));
    let of = |child: &Child| {
        let lines = text.lines().filter(|line| line.contains(&format!(" vpid = {} ", child.id())));
        values(&lines.collect::<Vec<_>>().join("\n"), "f_exit", "ret")
    };
    assert_eq!(of(&old.child), [3, 7, 9], "{text}");
    assert_eq!(of(&new.child).last(), Some(&11), "{text}");
    home.ok("destroy");
    // Nothing of it is left in the programs.
    old.call(6);
    new.call(7);
    old.end();
    new.end();
}

#[test]
fn places_that_are_not_there_are_refused_with_the_reason() {
    let Some(home) = probing_home("nowhere") else { return };
    let program = compile(&home, "whole", &[]);
    let stripped = compile(&home, "stripped", &["-s"]);
    home.ok("create s -o out");
    let whole = program.display();
    let cases = [
        (
            "--userspace-probe=/nonexist:foo ev".to_owned(),
            1,
            "Error: Cannot find binary at path: /nonexist.\nError: Unable to parse userspace probe options\n".to_owned(),
        ),
        (
            "--userspace-probe=nosuchbinary:foo ev".into(),
            1,
            "Error: Binary not found.\nError: Unable to parse userspace probe options\n".into(),
        ),
        ("--userspace-probe=foo ev".into(), 1, "Error: Unable to parse userspace probe options\n".into()),
        ("--userspace-probe=sdt:/bin/ls:a ev".into(), 1, "Error: Unable to parse userspace probe options\n".into()),
        (
            "--probe=+5 ev".into(),
            1,
            "Error: Invalid probe description +5\nError: Unable to parse probe options\n".into(),
        ),
        ("--function= ev".into(), 1, "Error: Unable to parse function probe options\n".into()),
        (
            format!("--userspace-probe={whole}:probed_functio ev"),
            138,
            format!(
                "Error: Event ev: Invalid userspace probe location: {whole} has no function probed_functio (near \
                 names: probed_function) (channel channel0, session s)\n"
            ),
        ),
        (
            format!("--userspace-probe={}:probed_function ev", stripped.display()),
            138,
            format!(
                "Error: Event ev: Invalid userspace probe location: {} has no function probed_function (it is \
                 stripped: only what it exports has names) (channel channel0, session s)\n",
                stripped.display()
            ),
        ),
        (
            format!("--userspace-probe=sdt:{whole}:probed:steps ev"),
            138,
            format!(
                "Error: Event ev: Invalid userspace probe location: {whole} has no SDT probe probed:steps (near \
                 names: probed:step) (channel channel0, session s)\n"
            ),
        ),
        (
            "--userspace-probe=/etc/passwd:foo ev".into(),
            139,
            "Error: Event ev: ELF parsing error: /etc/passwd is no ELF file of a program or library: Unknown file \
             magic (channel channel0, session s)\n"
                .into(),
        ),
        (
            format!("--userspace-probe={whole}:main ev*"),
            112,
            "Error: Event ev*: Invalid event name: a probe has one name and no filter (channel channel0, session \
             s)\n"
                .into(),
        ),
    ];
    for (line, code, text) in cases {
        assert_eq!(home.run(&format!("enable-event -k {line}")), (code, text), "{line}");
    }
    // The kernel's own code, where it was built without.
    if !Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        for option in ["--probe", "--function"] {
            let (code, text) = home.run(&format!("enable-event -k {option}=vfs_read ev"));
            assert!(
                code == 43 && text.contains("CONFIG_KPROBE_EVENTS or CONFIG_KPROBES is not set"),
                "{text}"
            );
        }
    }
}
