//! The running kernel's own BTF: what the tracer relies on is there, and found fast enough.

use sillage_bpf::{Access, Btf, Kind, TypeId};
use std::time::Instant;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

#[test]
fn the_kernels_types_are_read_within_25_ms() {
    let Ok(bytes) = std::fs::read(VMLINUX) else {
        eprintln!("SKIPPED: {VMLINUX} cannot be read");
        return;
    };
    let took = |bytes: Vec<u8>| {
        let start = Instant::now();
        let btf = Btf::parse(bytes).unwrap();
        (start.elapsed(), btf)
    };
    // The best of three: others may be using the machine.
    let (best, btf) = (0..3).map(|_| took(bytes.clone())).min_by_key(|(time, _)| *time).unwrap();
    eprintln!("{} types in {best:?}", btf.end_id());
    assert!(best.as_millis() <= if cfg!(debug_assertions) { 75 } else { 25 }, "{best:?}");
    let hook = btf.find(Kind::Typedef, "btf_trace_sched_switch").expect("a scheduler");
    let arguments: Vec<TypeId> = btf.parameters(hook).map(|(_, id)| id).collect();
    let comm = Access::resolve(&btf, arguments[2], "comm").unwrap();
    assert_eq!((comm.place.bytes, comm.loads.len()), (16, 0));
    let parent = Access::resolve(&btf, arguments[2], "real_parent->thread_pid->numbers[0].nr").unwrap();
    assert_eq!((parent.place.bytes, parent.place.signed, parent.loads.len()), (4, true, 2));
    let hooks = btf.names(Kind::Typedef, "btf_trace_").count();
    assert!(hooks > 300, "{hooks} tracepoints");
}
