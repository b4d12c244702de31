//! What the house promises about itself, checked: where imports may point, who may use `unsafe`,
//! that each module says what it is.

use crate::build::root;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that may use `unsafe`; everywhere else the compiler forbids it.
const UNSAFE: &[&str] = &[
    "sillage-ring",
    "sillage-tracer-user",
    "sillage-tracer-user-abi",
    "sillage-tracer-kernel",
    "sillage-consumer",
    "sillage-pipeline",
];

/// Folders that each folder may import from, itself included.
const IMPORTS: &[(&str, &[&str])] = &[
    ("base", &["base"]),
    ("record", &["record", "base"]),
    ("read", &["read", "base"]),
    ("show", &["show", "record", "read", "base"]),
];

/// Folder under `crates/` of each of our packages, with the packages it imports in its own build.
fn packages() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let Ok(inside) = manifest.strip_prefix(root().join("crates")) else { continue };
        let folder = inside.iter().next().unwrap().to_str().unwrap();
        let imports = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|d| d["kind"] != "dev")
            .map(|d| d["name"].as_str().unwrap().to_string())
            .collect();
        packages.insert(package["name"].as_str().unwrap().to_string(), (folder.to_string(), imports));
    }
    packages
}

#[test]
fn imports_point_toward_base_and_record_and_read_never_meet() {
    let packages = packages();
    assert!(packages.len() >= 11, "cargo metadata lost packages: {packages:?}");
    for (name, (folder, imports)) in &packages {
        let (_, allowed) = IMPORTS.iter().find(|(f, _)| f == folder).expect("a folder of the house");
        for import in imports {
            if let Some((target, _)) = packages.get(import) {
                assert!(allowed.contains(&target.as_str()), "{name} ({folder}) imports {import} ({target})");
            }
        }
    }
}

#[test]
fn the_tracer_brings_nothing_into_programs_but_libc() {
    let packages = packages();
    let mut todo = vec!["sillage-tracer-user-abi".to_string()];
    let mut seen = BTreeSet::new();
    while let Some(name) = todo.pop() {
        let Some((_, imports)) = packages.get(&name) else {
            assert!(["libc", "thiserror"].contains(&name.as_str()), "the in-process tracer imports {name}");
            continue;
        };
        // Only the model checker's build of the ring knows loom.
        todo.extend(imports.iter().filter(|i| *i != "loom" && seen.insert((*i).clone())).cloned());
    }
}

#[test]
fn unsafe_code_is_forbidden_except_in_the_named_crates() {
    for (name, manifest) in manifests() {
        let text = std::fs::read_to_string(&manifest).unwrap();
        let inherits = text.contains("[lints]\nworkspace = true");
        let own = text.contains("unsafe_op_in_unsafe_fn = \"deny\"")
            && text.contains("undocumented_unsafe_blocks = \"deny\"");
        if inherits {
            continue;
        }
        assert!(UNSAFE.contains(&name.as_str()) && own, "{name}: lints of its own, or not the named ones");
    }
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
}

fn manifests() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for folder in IMPORTS.iter().map(|(folder, _)| folder) {
        for entry in std::fs::read_dir(root().join("crates").join(folder)).unwrap() {
            let manifest = entry.unwrap().path().join("Cargo.toml");
            let text = std::fs::read_to_string(&manifest).unwrap();
            let name = text.lines().find_map(|l| l.strip_prefix("name = \"")).unwrap();
            found.push((name.trim_end_matches('"').to_string(), manifest));
        }
    }
    found
}

/// All Rust files below a folder, build output left out.
fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
            sources(&path, out);
        } else if path.extension().is_some_and(|x| x == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn every_module_opens_with_a_paragraph() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    sources(&root().join("xtask"), &mut files);
    assert!(files.len() > 60);
    let silent: Vec<_> =
        files.iter().filter(|f| !std::fs::read_to_string(f).unwrap().starts_with("//!")).collect();
    assert!(silent.is_empty(), "modules without an opening paragraph: {silent:#?}");
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    sources(&root().join("xtask"), &mut files);
    let machine = ["/work", "/tmp/target-", "index.crates"].map(|s| format!("{s}{}", "/"));
    for file in files.iter().filter(|f| !f.ends_with("tidy.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for path in &machine {
            assert!(!text.contains(path.as_str()), "{} names {path}", file.display());
        }
    }
}
