//! Containers by name, and what tells their processes from others: a PID namespace of their own, or else a
//! control group.
//!
//! Container managers are asked by the files that they keep, not by their services, so nothing is started
//! and no client of theirs is needed; rights to read the files are. Nothing here is cached: a container
//! that is started again has other numbers.

use sillage_model::ProcessAttribute;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Whom to follow: an inclusion set and its value.
pub type Membership = (ProcessAttribute, u64);

/// The PID namespace of a process (None: of this one).
pub fn namespace(pid: Option<u32>) -> Result<Membership, String> {
    let process = pid.map_or("self".into(), |pid| pid.to_string());
    let number = namespace_of(Path::new("/"), &process)?;
    Ok((ProcessAttribute::PidNamespace, number))
}

/// What the processes of a container have in common; `name` is its name, or a process in it.
pub fn find(name: &str) -> Result<Membership, String> {
    find_under(Path::new("/"), name)
}

fn find_under(root: &Path, name: &str) -> Result<Membership, String> {
    let named = [docker(root, name), podman(root, name), machine(root, name), lxc(root, name)];
    let by_number = || name.parse().ok().filter(|pid: &u32| root.join(format!("proc/{pid}")).exists());
    let pid = named.into_iter().flatten().next().or_else(by_number);
    let pid = pid.ok_or_else(|| {
        format!(
            "no container {name} runs that Docker, Podman, LXC or systemd-nspawn keep files of here (as root \
             more of them can be read; a process of it will do as well)"
        )
    })?;
    let process = pid.to_string();
    let own = namespace_of(root, "self")?;
    let number = namespace_of(root, &process)?;
    if number != own {
        return Ok((ProcessAttribute::PidNamespace, number));
    }
    let group = control_group(root, &process);
    let number = group.ok_or_else(|| {
        format!(
            "container {name} shares our PID namespace and has no control group (of version 2) of its own"
        )
    })?;
    Ok((ProcessAttribute::Cgroup, number))
}

fn namespace_of(root: &Path, process: &str) -> Result<u64, String> {
    let path = root.join("proc").join(process).join("ns/pid");
    let link = fs::read_link(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = link.to_string_lossy();
    let number = text.strip_prefix("pid:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
    number.ok_or_else(|| format!("{}: {text} is no namespace", path.display()))
}

/// Number of the control group of version 2 that a process is in, unless that is everybody's.
fn control_group(root: &Path, process: &str) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc").join(process).join("cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    if path.is_empty() {
        return None;
    }
    let dirs = groups(root).into_iter().map(|mount| mount.join(path));
    dirs.filter_map(|dir| fs::metadata(dir).ok()).map(|metadata| metadata.ino()).next()
}

/// Where control groups of version 2 are mounted.
fn groups(root: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(root.join("proc/self/mounts")).unwrap_or_default();
    let mounts = text.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| root.join(at.trim_start_matches('/')))
    });
    mounts.collect()
}

fn json(path: PathBuf) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn entries(dir: PathBuf) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// Numbers of containers are given by their first digits.
fn is_id(id: &str, name: &str) -> bool {
    const DIGITS_MIN: usize = 12;
    name.len() >= DIGITS_MIN && id.starts_with(name)
}

fn docker(root: &Path, name: &str) -> Option<u32> {
    entries(root.join("var/lib/docker/containers")).find_map(|dir| {
        let config = json(dir.join("config.v2.json"))?;
        let called = config["Name"].as_str()?.trim_start_matches('/');
        let is_it = called == name || is_id(config["ID"].as_str()?, name);
        let pid = config["State"]["Pid"].as_u64().filter(|pid| is_it && *pid > 0)?;
        pid.try_into().ok()
    })
}

fn podman(root: &Path, name: &str) -> Option<u32> {
    let user = rustix::process::getuid().as_raw();
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let home = home.strip_prefix("/").unwrap_or(&home).join(".local/share/containers/storage");
    let places = [
        (PathBuf::from("var/lib/containers/storage"), "run/containers/storage".to_owned()),
        (home, format!("run/user/{user}/containers")),
    ];
    places.into_iter().find_map(|(storage, run)| {
        let list = json(root.join(storage).join("overlay-containers/containers.json"))?;
        let is_it = |entry: &&serde_json::Value| {
            let names = entry["names"].as_array().into_iter().flatten();
            names.filter_map(|n| n.as_str()).any(|known| known == name)
                || entry["id"].as_str().is_some_and(|id| is_id(id, name))
        };
        let id = list.as_array()?.iter().find(is_it)?["id"].as_str()?.to_owned();
        let file = root.join(run).join("overlay-containers").join(id).join("userdata/pidfile");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    })
}

/// systemd-nspawn, and whatever else registers machines.
fn machine(root: &Path, name: &str) -> Option<u32> {
    let is_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    let file = root.join("run/systemd/machines").join(name);
    let text = fs::read_to_string(file).ok().filter(|_| is_name)?;
    text.lines().find_map(|line| line.strip_prefix("LEADER=")?.parse().ok())
}

/// LXC and LXD name control groups after their containers.
fn lxc(root: &Path, name: &str) -> Option<u32> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let mounts =
        groups(root).into_iter().chain([root.join("sys/fs/cgroup/systemd"), root.join("sys/fs/cgroup/pids")]);
    let dirs =
        mounts.flat_map(|mount| [mount.join(format!("lxc.payload.{name}")), mount.join("lxc").join(name)]);
    let first = |dir: PathBuf| {
        let text = fs::read_to_string(dir.join("cgroup.procs")).ok()?;
        text.lines().next()?.parse().ok()
    };
    // Under systemd a container keeps its processes one level deeper.
    let mut all = dirs.flat_map(|dir| [vec![dir.clone()], entries(dir).collect()].concat());
    all.find_map(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small machine: this process in the namespace 1, another one in 2, two more that share ours.
    fn machine_with(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("sillage-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (process, namespace, group) in
            [("self", 1, "/"), ("20", 2, "/boxes/b"), ("30", 1, "/boxes/c"), ("40", 1, "/")]
        {
            write(&format!("proc/{process}/cgroup"), &format!("1:pids:/x\n0::{group}\n"));
            fs::create_dir_all(root.join(format!("proc/{process}/ns"))).unwrap();
            let link = root.join(format!("proc/{process}/ns/pid"));
            std::os::unix::fs::symlink(format!("pid:[{namespace}]"), link).unwrap();
        }
        write("proc/self/mounts", "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
        for group in ["boxes/b", "boxes/c", "lxc.payload.guest"] {
            fs::create_dir_all(root.join("sys/fs/cgroup/unified").join(group)).unwrap();
        }
        write("sys/fs/cgroup/unified/lxc.payload.guest/init.scope/cgroup.procs", "20\n21\n");
        let id = "0123456789abcdef";
        write(
            &format!("var/lib/docker/containers/{id}/config.v2.json"),
            &format!(r#"{{"ID":"{id}","Name":"/web","State":{{"Pid":20,"Running":true}}}}"#),
        );
        write(
            "var/lib/docker/containers/ff/config.v2.json",
            r#"{"ID":"ff","Name":"/stopped","State":{"Pid":0}}"#,
        );
        write(
            "var/lib/containers/storage/overlay-containers/containers.json",
            r#"[{"id":"aa","names":["pod"]}]"#,
        );
        write("run/containers/storage/overlay-containers/aa/userdata/pidfile", "30");
        write("run/systemd/machines/nspawn", "NAME=nspawn\nLEADER=20\n");
        root
    }

    #[test]
    fn containers_are_found_by_what_their_managers_keep() {
        let root = machine_with("containers");
        let group = fs::metadata(root.join("sys/fs/cgroup/unified/boxes/c")).unwrap().ino();
        for name in ["web", "0123456789ab", "nspawn", "guest", "20"] {
            assert_eq!(find_under(&root, name), Ok((ProcessAttribute::PidNamespace, 2)), "{name}");
        }
        assert_eq!(find_under(&root, "pod"), Ok((ProcessAttribute::Cgroup, group)));
        for name in ["stopped", "nobody", "0123", "../..", "", "99"] {
            assert!(find_under(&root, name).unwrap_err().contains("no container"), "{name}");
        }
        assert!(find_under(&root, "40").unwrap_err().contains("no control group"));
        let _ = fs::remove_dir_all(&root);
    }
}
