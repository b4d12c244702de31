//! Another kernel: Debian's 6.1 in a virtual machine without acceleration records its own events with
//! both back ends, and the traces are read here. Only in the long runs (`cargo xtask test --full`), and
//! only where QEMU and Debian's archive are to be had; it says so when it skips.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::Home;

/// How long the machine may take; it needs about half a minute.
const PATIENCE: Duration = Duration::from_secs(400);
/// What the machine runs instead of a system. Traces leave it through the second serial line.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /tmp /run /root
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tracefs tracefs /sys/kernel/tracing
stty -F /dev/ttyS1 raw
export PATH=/bin HOME=/root LTTNG_HOME=/root
cd /tmp
for backend in ebpf tracefs; do
  export SILLAGE_KERNEL_BACKEND=$backend SILLAGE_RUNDIR=/run/$backend
  sillage record -o /tmp/trace/$backend -k 'sched_*' --syscall=openat -- \\
    sh -c 'for i in 1 2 3 4 5; do cat /proc/version > /dev/null; done' && echo $backend is fine
done
tar c trace > /dev/ttyS1
poweroff -f
";

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
                  tar -x --wildcards './boot/vmlinuz*' './bin/busybox' 2> /dev/null; done; ls boot/vmlinuz*";
    let kernel = run(Command::new("sh").args(["-c", unpack]).current_dir(dir))?;
    Ok(dir.join(kernel.trim()))
}

/// Packs the program, its libraries and the shell.
fn pack(dir: &Path) -> Result<PathBuf, String> {
    let program = env!("CARGO_BIN_EXE_sillage");
    let libraries = run(Command::new("ldd").arg(program))?;
    let mut paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    let copy = |from: &str, to: &str| {
        let to = dir.join("root").join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).and_then(|()| std::fs::copy(from, &to)).map(drop)
    };
    let mut copied = paths.try_for_each(|path| copy(path, path));
    copied = copied.and_then(|()| copy(dir.join("bin/busybox").to_str().unwrap(), "bin/busybox"));
    copied.map_err(|error| error.to_string())?;
    for folder in ["proc", "sys", "dev"] {
        std::fs::create_dir_all(dir.join("root").join(folder)).unwrap();
    }
    let init = dir.join("root/init");
    std::fs::write(&init, INIT).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&init, mode).unwrap();
    run(Command::new("strip").arg(program).arg("-o").arg(dir.join("root/bin/sillage")))?;
    let pack = "cd root && find . | cpio -o -H newc 2> /dev/null | gzip -1 > ../initrd.gz";
    run(Command::new("sh").args(["-c", pack]).current_dir(dir))?;
    Ok(dir.join("initrd.gz"))
}

/// Runs the machine to its end; what it printed.
fn boot(dir: &Path, kernel: &Path, disk: &Path) -> Result<String, String> {
    let mut machine = Command::new("qemu-system-x86_64");
    machine.args(["-accel", "tcg", "-m", "1024", "-smp", "2", "-display", "none", "-net", "none"]);
    machine.args(["-monitor", "none", "-no-reboot", "-append", "console=ttyS0 quiet panic=-1"]);
    machine.args(["-serial", "file:console", "-serial", "file:traces.tar", "-kernel"]).arg(kernel);
    machine.arg("-initrd").arg(disk).current_dir(dir).stdin(Stdio::null());
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

#[test]
fn debians_kernel_is_recorded_by_both_back_ends() {
    if std::env::var_os("SILLAGE_FULL").is_none() {
        return eprintln!("SKIPPED: debians_kernel_is_recorded: only in the long runs (SILLAGE_FULL=1)");
    }
    let home = Home::new("vm");
    let made = fetch(&home.dir).and_then(|kernel| Ok((kernel, pack(&home.dir)?)));
    let (kernel, disk) = match made {
        Ok(made) => made,
        Err(why) => return eprintln!("SKIPPED: debians_kernel_is_recorded: {why}"),
    };
    let console = match boot(&home.dir, &kernel, &disk) {
        Ok(console) => console,
        Err(why) => return eprintln!("SKIPPED: debians_kernel_is_recorded: {why}"),
    };
    run(Command::new("tar").args(["xf", "traces.tar"]).current_dir(&home.dir)).expect(&console);
    for back_end in ["ebpf", "tracefs"] {
        assert!(console.contains(&format!("{back_end} is fine")) && console.contains(" 0 lost"), "{console}");
        let trace = home.dir.join("trace").join(back_end);
        let metadata = std::fs::read_to_string(trace.join("kernel/metadata")).unwrap();
        assert!(metadata.contains("kernel_release = \"6.1.0-"), "{metadata}");
        let text = home.babeltrace(&trace);
        let own = home.output(&format!("view -t trace/{back_end}"));
        assert_eq!(String::from_utf8(own.stdout).unwrap().lines().count(), text.lines().count());
        for name in ["sched_switch", "sched_process_fork", "sched_process_exec", "syscall_entry_openat"] {
            let count = text.lines().filter(|line| line.contains(&format!(" {name}: "))).count();
            assert!(count >= 5, "{back_end}: {count} of {name}\n{console}");
        }
        // Programs also read what the argument points to.
        assert!(back_end != "ebpf" || text.contains("filename = \"/proc/version\""), "{console}");
    }
}
