//! A virtual machine with another kernel: Debian's, fetched and not installed, with the program, a static
//! shell and a few modules in its memory. It runs the script `init` to its end; what each part of it printed,
//! and the traces, are there to be looked at afterwards. No acceleration: that is not to be had everywhere.

use crate::support::Home;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the machine may take; it needs two to five minutes, by how busy the host is.
const PATIENCE: Duration = Duration::from_secs(900);
/// What the machine runs instead of a system.
const INIT: &str = include_str!("init");
/// Modules that bring tracepoints of LTTng's list. Those that they need come with them.
const MODULES: [&str; 7] = ["9pnet", "ext4", "jbd2", "kvm", "scsi_mod", "snd_soc_core", "sunrpc"];

/// What a machine left.
pub struct Machine {
    home: Home,
    parts: BTreeMap<String, String>,
}

impl Machine {
    /// Makes it and runs it to its end.
    ///
    /// # Errors
    /// What could not be had.
    pub fn run() -> Result<Machine, String> {
        let home = Home::new("vm");
        let kernel = fetch(&home.dir)?;
        pack(&home.dir)?;
        let console = boot(&home.dir, &kernel)?;
        let parts = parts(&console);
        assert!(parts.contains_key("end"), "the machine did not end by itself: {console}");
        run(Command::new("tar").args(["xf", "traces.tar"]).current_dir(&home.dir))?;
        Ok(Machine { home, parts })
    }

    /// What a part of the script printed.
    pub fn part(&self, name: &str) -> &str {
        self.parts.get(name).unwrap_or_else(|| panic!("the script has no part {name}"))
    }

    /// Where a trace is.
    pub fn trace(&self, name: &str) -> PathBuf {
        self.home.dir.join("trace").join(name)
    }

    /// A trace as Babeltrace reads it; ours gives as many events.
    pub fn read(&self, name: &str) -> String {
        let text = self.home.babeltrace(&self.trace(name));
        let own = self.home.output(&format!("view -t trace/{name}"));
        assert_eq!(String::from_utf8(own.stdout).unwrap().lines().count(), text.lines().count(), "{name}");
        text
    }
}

/// The console's text by part: each begins behind a line `@@ NAME`.
fn parts(console: &str) -> BTreeMap<String, String> {
    let console = console.replace('\r', "");
    let parts = console.split("@@ ").skip(1);
    parts.filter_map(|part| part.split_once('\n')).map(|(name, text)| (name.into(), text.into())).collect()
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Fetches Debian's kernel package and a static shell, without installing them; the kernel's image.
fn fetch(dir: &Path) -> Result<PathBuf, String> {
    let depends = run(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    let image = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let image = format!("linux-image-{}", image.ok_or("Debian's archive names no kernel (apt-get update)")?);
    run(Command::new("apt-get").args(["download", &image, "busybox-static"]).current_dir(dir))?;
    let unpack = "for package in *.deb; do dpkg-deb --fsys-tarfile $package | \
                  tar -x --wildcards './boot/vmlinuz*' './bin/busybox' './lib/modules/*' 2> /dev/null; done; \
                  ls boot/vmlinuz*";
    let kernel = run(Command::new("sh").args(["-c", unpack]).current_dir(dir))?;
    Ok(dir.join(kernel.trim()))
}

/// Files of the modules and of those that they need.
fn modules(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let found = run(Command::new("find").args(["lib/modules", "-name", "*.ko"]).current_dir(dir))?;
    let name_of = |path: &str| path.rsplit('/').next().unwrap_or(path).replace(".ko", "").replace('-', "_");
    let by_name: BTreeMap<String, &str> = found.lines().map(|path| (name_of(path), path)).collect();
    let mut wanted: Vec<String> = MODULES.map(String::from).to_vec();
    let mut paths = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        let path = by_name.get(&name).ok_or(format!("the kernel's package has no module {name}"))?;
        if !paths.insert(PathBuf::from(path)) {
            continue;
        }
        let bytes = std::fs::read(dir.join(path)).map_err(|error| error.to_string())?;
        let needed = bytes.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"depends="));
        let needed = String::from_utf8_lossy(needed.unwrap_or_default()).replace('-', "_");
        wanted.extend(needed.split(',').filter(|name| !name.is_empty()).map(String::from));
    }
    Ok(paths.into_iter().collect())
}

/// Packs the program, its libraries, the shell and the modules as the machine's memory disk.
fn pack(dir: &Path) -> Result<(), String> {
    let program = env!("CARGO_BIN_EXE_sillage");
    let root = dir.join("root");
    let copy = |from: &Path, to: &Path| {
        let to = root.join(to.strip_prefix("/").unwrap_or(to));
        std::fs::create_dir_all(to.parent().unwrap()).and_then(|()| std::fs::copy(from, &to)).map(drop)
    };
    let libraries = run(Command::new("ldd").arg(program))?;
    let mut libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    let mut copied = libraries.try_for_each(|path| copy(path, path));
    let modules = modules(dir)?;
    let lists = ["modules.order", "modules.builtin", "modules.builtin.modinfo"];
    let base: PathBuf = modules[0].components().take(3).collect();
    let lists = lists.iter().map(|list| base.join(list));
    for path in modules.iter().cloned().chain(lists).chain(["bin/busybox".into()]) {
        copied = copied.and_then(|()| copy(&dir.join(&path), &path));
    }
    for folder in ["proc", "sys", "dev"] {
        copied = copied.and_then(|()| std::fs::create_dir_all(root.join(folder)));
    }
    copied = copied.and_then(|()| std::fs::write(root.join("modules"), MODULES.join(" ")));
    copied = copied.and_then(|()| std::fs::write(root.join("init"), INIT));
    copied.map_err(|error| error.to_string())?;
    run(Command::new("strip").arg(program).arg("-o").arg(root.join("bin/sillage")))?;
    let pack = "chmod +x init && find . | cpio -o -H newc 2> /dev/null | gzip -1 > ../initrd.gz";
    run(Command::new("sh").args(["-c", pack]).current_dir(&root)).map(drop)
}

/// Runs the machine to its end; what it printed.
fn boot(dir: &Path, kernel: &Path) -> Result<String, String> {
    let mut machine = Command::new("qemu-system-x86_64");
    // A thread for each CPU may go on with code that the kernel has patched meanwhile, for ever.
    machine.args([
        "-accel",
        "tcg,thread=single",
        "-m",
        "1536",
        "-smp",
        "2",
        "-display",
        "none",
        "-net",
        "none",
    ]);
    machine.args(["-monitor", "none", "-no-reboot", "-append", "console=ttyS0 quiet panic=-1"]);
    machine.args(["-serial", "file:console", "-serial", "file:traces.tar", "-kernel"]).arg(kernel);
    machine.args(["-initrd", "initrd.gz"]).current_dir(dir).stdin(Stdio::null());
    let mut machine = machine.spawn().map_err(|error| format!("qemu-system-x86_64: {error}"))?;
    let began = Instant::now();
    while machine.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            machine.kill().unwrap();
            machine.wait().unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(String::from_utf8_lossy(&std::fs::read(dir.join("console")).unwrap_or_default()).into_owned())
}
