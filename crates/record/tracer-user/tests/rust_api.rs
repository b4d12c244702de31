//! `tracepoint!` in a Rust program, without our C library.

mod support;

use sillage_ring::layout::LostReason;
use std::process::Command;
use std::sync::OnceLock;
use support::programs::{example, run};
use support::{Daemon, Options};

fn record(mode: &str, producer: &str) -> (Daemon, String) {
    static PROGRAM: OnceLock<std::path::PathBuf> = OnceLock::new();
    let daemon = Daemon::new(Options { names: &["scenario:"], ..Options::default() });
    let mut command = Command::new(PROGRAM.get_or_init(|| example("rust_scenario")));
    command.arg(mode).env("SILLAGE_RUNDIR", &daemon.keeper.dir).env("SILLAGE_PRODUCER", producer);
    let stdout = run(&mut command);
    (daemon, stdout)
}

fn texts(daemon: &Daemon) -> Vec<String> {
    daemon.events().into_iter().map(|e| e.text).collect()
}

#[test]
fn every_type_of_field_is_recorded() {
    for producer in ["rseq", "locked"] {
        let (daemon, _) = record("everything", producer);
        let want = [
            "scenario:everything a=1 b=-2 c=3 d=-4 e=1 f=1.5 g=-2.5 h=\"text\" i=\"c text\" j=[5 6] k=[7 8 9] \
             _l_length=2 l=[10 11]",
            "scenario:text text=\"\" _bytes_length=5 bytes=[98 121 116 101 115]",
            "scenario:text text=\"ü\" _bytes_length=0 bytes=[]",
        ];
        assert_eq!(texts(&daemon), want, "{producer}");
        daemon.programs(|p| {
            let levels = |name: &str| p[0].seen[name].loglevel.name();
            assert_eq!((levels("scenario:text"), levels("elsewhere:never")), ("EMERG", "DEBUG_LINE"));
        });
    }
}

#[test]
fn arguments_are_evaluated_only_when_somebody_records() {
    let (daemon, evaluated) = record("lazy", "rseq");
    assert_eq!((evaluated.as_str(), texts(&daemon)), ("1\n", vec!["scenario:tick n=1".to_string()]));
}

#[test]
fn an_event_allocates_nothing() {
    for producer in ["rseq", "locked"] {
        let (daemon, allocations) = record("quiet", producer);
        assert_eq!(allocations, "0\n", "{producer}");
        assert_eq!(texts(&daemon).len(), 2001, "{producer}");
    }
}

#[test]
fn signal_handlers_trace() {
    for producer in ["rseq", "locked"] {
        let (daemon, handled) = record("signals", producer);
        let names = daemon.names();
        let lost = daemon.lost()[LostReason::Full as usize] as usize;
        let want = 200_000 + handled.trim().parse::<usize>().unwrap();
        assert_eq!(names.values().sum::<usize>() + lost, want, "{producer} {names:?} {:?}", daemon.lost());
        assert_eq!(daemon.lost().iter().sum::<u64>() as usize, lost, "{:?}", daemon.lost());
    }
}

#[test]
fn a_forked_child_traces() {
    let (daemon, _) = record("fork", "rseq");
    assert_eq!(texts(&daemon), [0, 1, 2].map(|n| format!("scenario:tick n={n}")));
}

#[test]
fn a_record_that_is_too_large_is_counted() {
    let (daemon, _) = record("large", "rseq");
    assert_eq!(texts(&daemon), ["scenario:text text=\"small\" _bytes_length=2 bytes=[7 7]"]);
    assert_eq!(daemon.lost()[LostReason::TooLarge as usize], 1);
}

#[test]
fn without_a_daemon_nothing_happens() {
    let program = example("tracepoints");
    run(Command::new(program).arg("10").env("SILLAGE_RUNDIR", "/nonexistent/run"));
}
