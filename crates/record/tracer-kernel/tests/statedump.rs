//! The state dump of this machine, read back by Debian's babeltrace2.

mod support;

use sillage_ring::HeaderForm;
use sillage_tracer_kernel::metadata::event_class;
use sillage_tracer_kernel::statedump;
use std::time::Instant;
use support::*;

#[test]
fn the_machine_is_dumped() {
    let Some(kernel) = kernel("state dump") else { return };
    let mut session = Session::new("dump", &kernel, geometry(20, 16, false, HeaderForm::Large), &[]);
    session.consume();
    let file = session.dir.with_extension("open");
    let kept = std::fs::File::create(&file).unwrap();
    let names: Vec<_> = statedump::events().map(|recipe| recipe.name.to_string()).collect();
    for (id, recipe) in statedump::events().enumerate() {
        session.declare(event_class(recipe, id as u32, 0));
    }
    // Sleepers, so that there is something to see and the time means something.
    let sleepers: Vec<_> =
        (0..300).map(|_| std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap()).collect();
    let start = Instant::now();
    let missing = statedump::run(&session.channel, &statedump::Processes::Iterators, &[], |name| {
        names.iter().position(|known| known == name).map(|id| id as u32)
    });
    let took = start.elapsed();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let processes = processes.filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
    let pids: Vec<u32> = sleepers.iter().map(|child| child.id()).collect();
    for mut child in sleepers {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let fd = format!("fd = {},", std::os::fd::AsRawFd::as_raw_fd(&kept));
    drop(kept);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(missing.unwrap_or_else(|error| panic!("{error}")), [""; 0]);
    session.finish();
    assert_eq!(session.channel.loss().total(), 0, "{:?}", session.channel.loss());
    let lines = session.read();
    eprintln!("{} records of {processes} processes in {took:?}", lines.len());
    let short = |line: &Line| line.name.trim_start_matches("lttng_statedump_").to_string();
    assert_eq!(short(&lines[0]), "start");
    assert_eq!(lines.last().map(short).as_deref(), Some("end"));
    let has = |name: &str, parts: &[&str]| {
        let of: Vec<_> = lines.iter().filter(|line| short(line) == name).collect();
        let found = of.iter().any(|line| parts.iter().all(|part| line.text.contains(part)));
        assert!(found, "{name} {parts:?}, {} of the name, first {:?}", of.len(), of.first());
    };
    // In a namespace of processes there are other numbers than the kernel's first ones.
    let own_id = std::process::id();
    let own_number = sillage_tracer_kernel::guard::own_number().unwrap();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap().to_string_lossy().into_owned();
    let namespace = namespace.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let number = |pid: u32| {
        let seen = format!(" vtid = {pid}, vpid = {pid}, vppid = {own_id}, ns_level = ");
        let inside = format!("ns_inum = {namespace} }}");
        let is_it = |line: &&Line| line.text.contains(&seen) && line.text.contains(&inside);
        let line = lines.iter().find(is_it).unwrap_or_else(|| panic!("no{seen}"));
        let tid = line.text.split("{ tid = ").nth(1).unwrap();
        tid.split(',').next().unwrap().parse::<u32>().unwrap()
    };
    let own = format!("pid = {own_number},");
    let parent = format!("ppid = {own_number},");
    for pid in pids.iter().map(|pid| number(*pid)) {
        has(
            "process_state",
            &[&format!(
                "tid = {pid}, pid = {pid}, {parent} name = \"sleep\", type = 0, mode = 5, submode = 0, status = 5,"
            )],
        );
    }
    let first = number(pids[0]);
    // The kernel iterates over the processes of the daemon's namespace alone.
    if own_number == own_id {
        has("process_state", &["name = \"kthreadd\", type = 1,"]);
    }
    has(
        "process_pid_ns",
        &[&format!("tid = {first}, vtid = {first}, vpid = {first}, vppid = {own_number}, ns_level = 0,")],
    );
    has("process_user_ns", &[&format!("tid = {first}, vuid = 0, vgid = 0, ns_level = 0, ns_inum = 402653")]);
    for name in ["cgroup", "ipc", "mnt", "net", "uts", "time"] {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let link = link.to_string_lossy().into_owned();
        let number = link.trim_matches(|c: char| !c.is_ascii_digit());
        has(&format!("process_{name}_ns"), &[&format!("tid = {first}, ns_inum = {number}")]);
    }
    has("file_descriptor", &[&format!("filename = \"{}\"", file.display()), &fd, "flags = 0"]);
    has("vm_map", &[&own, "inode = ", "pgoff = "]);
    has("network_interface", &["name = \"lo\", address_ipv4 = 0x7F000001"]);
    has("cpu_topology", &["architecture = \"x86\", cpu_id = 1,"]);
}
