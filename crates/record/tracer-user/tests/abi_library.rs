//! The library file itself: what it exports, what it needs, and what loading it costs.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use support::programs::{command, compile, library, library_dir, run};

const DEBIAN: &str = "/usr/lib/x86_64-linux-gnu";
/// Exported there, private here: the bounds of a section.
const ABSENT: [&str; 2] = ["__start_lttng_ust_tracepoints_ptrs", "__stop_lttng_ust_tracepoints_ptrs"];

fn tool(name: &str, arguments: &[&str], file: &Path) -> String {
    run(Command::new(name).args(arguments).arg(file))
}

fn exported(file: &Path) -> BTreeSet<String> {
    let symbols = tool("nm", &["-D", "--defined-only"], file);
    symbols.lines().filter_map(|l| l.split_whitespace().nth(2)).map(String::from).collect()
}

#[test]
fn it_exports_every_symbol_of_the_three_libraries_and_little_else() {
    let ours = exported(&library());
    let mut theirs = BTreeSet::new();
    for name in ["liblttng-ust.so.1", "liblttng-ust-common.so.1", "liblttng-ust-tracepoint.so.1"] {
        theirs.extend(exported(&Path::new(DEBIAN).join(name)));
    }
    assert!(theirs.len() > 120, "Debian's liblttng-ust1 is installed");
    let missing: Vec<_> = theirs.difference(&ours).filter(|s| !ABSENT.contains(&s.as_str())).collect();
    assert_eq!(missing, Vec::<&String>::new());
    let more: Vec<_> = ours.difference(&theirs).map(String::as_str).collect();
    assert_eq!(more, ["clone", "lttng_ust_safe_close_range_fd", "vfork"]);
}

#[test]
fn variables_that_programs_copy_have_their_size() {
    let symbols = tool("readelf", &["-W", "--dyn-syms"], &library());
    let line = |name: &str| {
        let found = symbols.lines().find(|l| l.split_whitespace().last() == Some(name));
        let words: Vec<_> = found.unwrap_or_else(|| panic!("{name}")).split_whitespace().collect();
        (words[2].parse::<u32>().unwrap(), words[3].to_string())
    };
    assert_eq!(line("lttng_ust_urcu_gp"), (128, "OBJECT".into()));
    assert_eq!(line("lttng_ust_urcu_has_sys_membarrier"), (4, "OBJECT".into()));
    assert_eq!(line("lttng_ust_urcu_reader"), (8, "TLS".into()));
    assert_eq!(line("lttng_ust_tracepoint_lttng_ust_tracef___event"), (56, "OBJECT".into()));
    assert_eq!(line("lttng_ust_loaded"), (4, "OBJECT".into()));
}

#[test]
fn it_needs_libc_alone_and_is_never_unloaded() {
    let dynamic = tool("readelf", &["-W", "-d"], &library());
    let needed: Vec<_> = dynamic.lines().filter(|l| l.contains("(NEEDED)")).collect();
    assert!(needed.iter().all(|l| l.contains("[libc.so.6]") || l.contains("[ld-linux")), "{needed:?}");
    assert!(dynamic.contains("[liblttng-ust.so.1]") && dynamic.contains("NODELETE"), "{dynamic}");
    // Static TLS is scarce: a pointer for inlined readers, and our own two words.
    let segments = tool("readelf", &["-W", "-l"], &library());
    let tls = segments.lines().find(|l| l.trim_start().starts_with("TLS")).expect("a TLS segment");
    let size =
        u64::from_str_radix(tls.split_whitespace().nth(5).unwrap().trim_start_matches("0x"), 16).unwrap();
    assert!(size <= 32, "{tls}");
}

#[test]
fn all_of_lttngs_helpers_load_with_it() {
    for helper in ["cyg-profile", "cyg-profile-fast", "dl", "fd", "fork", "libc-wrapper", "pthread-wrapper"] {
        let helper = format!("{DEBIAN}/liblttng-ust-{helper}.so.1");
        let mut true_ = command("/bin/true", None);
        // Every symbol must be found at once.
        let output = true_.env("LD_PRELOAD", &helper).env("LD_BIND_NOW", "1").output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{helper}: {output:?}");
    }
}

#[test]
fn one_file_serves_all_three_names() {
    // The program names two of the libraries, and opens the third by itself.
    let program = compile("cc", "all.c", &["-D_LGPL_SOURCE"]);
    let mapped = run(command("/bin/sh", None).arg("-c").arg(format!(
        "LD_TRACE_LOADED_OBJECTS=1 {}; LTTNG_UST_REGISTER_TIMEOUT=0 {}",
        program.display(),
        program.display()
    )));
    let here = library_dir().to_str().unwrap();
    assert!(mapped.lines().filter(|l| l.contains("lttng-ust")).all(|l| l.contains(here)), "{mapped}");
}
