//! Recording the running kernel, read back by Debian's babeltrace2. Needs the rights to load eBPF
//! programs, and says so when it skips.

mod support;

use sillage_ring::HeaderForm;
use sillage_ring::layout::LostReason;
use sillage_tracer_kernel::recipe::{current, s32, text};
use sillage_tracer_kernel::{Field, events, fields, sys};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::*;

/// The two contexts that say most.
const CONTEXTS: &[Field] = fields![s32("tid", current("pid")), text("procname", 16, current("comm"))];

#[test]
fn the_scheduler_and_interrupts_are_recorded_whole() {
    let Some(kernel) = kernel("recording") else { return };
    let mut session = Session::new("whole", &kernel, geometry(18, 8, false, HeaderForm::Compact), CONTEXTS);
    session.consume();
    let counting = sys::count_runs().unwrap();
    let outer_switches = context_switches();
    let mut names = Vec::new();
    for recipe in events::all().filter(|recipe| kernel.recipe(&recipe.name).is_some()) {
        if recipe.name.starts_with("sched_") || recipe.name.starts_with("irq_") {
            session.enable(recipe);
            names.push(&*recipe.name);
        }
    }
    let programs = session.programs();
    let inner_softirqs = softirqs();
    commotion(20_000);
    let inner_softirqs = softirqs() - inner_softirqs;
    session.finish();
    let outer_switches = context_switches() - outer_switches;
    drop(counting);

    let loss = session.channel.loss();
    // An interrupt inside a program may want the same program: the kernel skips it, and we count it.
    assert_eq!(loss.total(), loss.recursion, "{loss:?}");
    assert_eq!(session.counters.snapshot().troubles, [""; 0]);
    let lines = session.read();
    assert_ordered(&lines);
    let count = |name: &str| lines.iter().filter(|line| line.name == name).count() as u64;
    // Nested ones included, every run of a program left its record.
    for (name, program) in names.iter().zip(&programs) {
        assert_eq!(count(name), sys::runs(program.as_fd()).unwrap(), "{name}");
    }
    // Not every switch that the kernel counts passes its tracepoint: no lower bound.
    let switches = count("sched_switch");
    assert!((20_000..=outer_switches).contains(&switches), "{switches} of {outer_switches}");
    assert!(count("irq_softirq_entry") >= inner_softirqs, "{inner_softirqs} softirqs");
    let has = |name: &str, parts: &[&str]| {
        lines.iter().any(|line| line.name == name && parts.iter().all(|part| line.text.contains(part)))
    };
    assert!(has("sched_process_exec", &["filename = \"/bin/true\""]));
    assert!(has("sched_process_fork", &["vtids = [ [0] = ", "parent_ns_inum = 40265"]));
    // Whoever leaves the CPU is the current task of the event.
    for line in lines.iter().filter(|line| line.name == "sched_switch") {
        let number = |key: &str| line.text.split(key).nth(1).and_then(|rest| rest.split([',', ' ']).next());
        assert_eq!(number("{ tid = "), number("prev_tid = "), "{line:?}");
    }
}

#[test]
fn every_table_is_recorded() {
    let Some(kernel) = kernel("tables") else { return };
    let mut session = Session::new("tables", &kernel, geometry(20, 8, false, HeaderForm::Large), CONTEXTS);
    session.consume();
    let start = Instant::now();
    let recipes: Vec<_> = events::all().filter(|recipe| kernel.recipe(&recipe.name).is_some()).collect();
    recipes.iter().for_each(|recipe| session.enable(recipe));
    eprintln!("{} events enabled in {:?}", recipes.len(), start.elapsed());
    commotion(300);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(&mut &stream, b"a few bytes").unwrap();
    let six = std::net::UdpSocket::bind("[::1]:0").and_then(|six| six.send_to(b"six", "[::1]:9"));
    let file = session.dir.with_extension("file");
    std::fs::write(&file, vec![1; 1 << 16]).unwrap();
    std::fs::File::open(&file).unwrap().sync_all().unwrap();
    std::fs::remove_file(&file).unwrap();
    session.finish();
    let lines = session.read();
    assert_ordered(&lines);
    let seen: std::collections::BTreeSet<_> = lines.iter().map(|line| &*line.name).collect();
    eprintln!("{} events, {} kinds; {:?}", lines.len(), seen.len(), session.channel.loss());
    let has = |name: &str, parts: &[&str]| {
        lines.iter().any(|line| line.name == name && parts.iter().all(|part| line.text.contains(part)))
    };
    let port = format!("dest_port = {port},");
    let packet = [
        "name = \"lo\"",
        "version = 4, ihl = 5",
        "_tcp",
        "daddr = [ [0] = 127, [1] = 0, [2] = 0, [3] = 1 ]",
        &port,
    ];
    assert!(has("net_dev_queue", &packet), "a packet with its headers");
    assert!(has("net_if_receive_skb", &packet), "received, too");
    if six.is_ok() {
        assert!(has("net_dev_queue", &["version = 6", "_udp", "dest_port = 9,"]), "an IPv6 packet");
    }
    for name in [
        "timer_hrtimer_start",
        "timer_start",
        "workqueue_execute_start",
        "rcu_utilization",
        "signal_generate",
    ] {
        assert!(seen.contains(name), "{name} of {seen:?}");
    }
}

#[test]
fn both_header_forms_are_read_back_with_the_same_times() {
    let Some(kernel) = kernel("header forms") else { return };
    for form in [HeaderForm::Compact, HeaderForm::Large] {
        let mut session = Session::new("forms", &kernel, geometry(12, 16, false, form), &[]);
        session.consume();
        session.enable(events::find("sched_waking").unwrap());
        session.enable(events::find("sched_process_exec").unwrap());
        let begin = now_ns();
        commotion(600);
        // Longer than 27 bits of nanoseconds: the extended form must take over.
        std::thread::sleep(Duration::from_millis(300));
        commotion(600);
        let end = now_ns();
        session.finish();
        let lines = session.read();
        assert_ordered(&lines);
        let commotion = lines.iter().filter(|line| line.ns >= begin && line.ns <= end).count();
        assert!(commotion > 1200, "{commotion} of {} events in time", lines.len());
        let loss = session.channel.loss();
        assert_eq!(loss.total(), loss.rings[LostReason::Full as usize], "{loss:?}");
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let Some(kernel) = kernel("discarding") else { return };
    let mut session = Session::new("tiny", &kernel, geometry(12, 2, false, HeaderForm::Compact), &[]);
    let counting = sys::count_runs().unwrap();
    session.enable(events::find("sched_switch").unwrap());
    session.enable(events::find("sched_process_exec").unwrap());
    let programs = session.programs();
    commotion(5_000);
    session.detach();
    drop(counting);
    session.consume();
    session.finish();
    let (kept, loss) = (session.read().len() as u64, session.channel.loss());
    assert!(loss.rings[LostReason::Full as usize] > 1_000, "{loss:?}");
    assert_eq!(loss.total(), loss.rings[LostReason::Full as usize], "{loss:?}");
    let runs: u64 = programs.iter().map(|program| sys::runs(program.as_fd()).unwrap()).sum();
    assert_eq!(kept + loss.total(), runs, "{kept} kept, {loss:?}");
}

#[test]
fn a_flight_recorder_keeps_the_newest() {
    let Some(kernel) = kernel("overwriting") else { return };
    let mut session = Session::new("overwrite", &kernel, geometry(12, 4, true, HeaderForm::Compact), &[]);
    session.enable(events::find("sched_switch").unwrap());
    commotion(5_000);
    let late = now_ns();
    commotion(20);
    session.detach();
    session.consume();
    session.finish();
    let lines = session.read();
    assert_ordered(&lines);
    assert!(lines.iter().filter(|line| line.ns >= late).count() >= 20, "the newest are there");
    assert!(session.counters.snapshot().overwritten > 10, "{:?}", session.counters.snapshot());
    assert_eq!(session.channel.loss().total(), 0, "{:?}", session.channel.loss());
    assert!(bytes(&session.dir) < 1 << 20);
}

#[test]
fn a_tracepoint_without_a_recipe_is_recorded_by_its_format() {
    let Some(kernel) = kernel("formats") else { return };
    let recipe = match kernel.from_format("sched", "sched_process_fork") {
        Ok(recipe) => recipe,
        Err(error) => return eprintln!("SKIPPED: formats: {error}"),
    };
    let mut session = Session::new("format", &kernel, geometry(16, 4, false, HeaderForm::Large), CONTEXTS);
    session.consume();
    session.enable(&recipe);
    commotion(100);
    session.finish();
    let lines = session.read();
    assert!(!lines.is_empty(), "a fork was recorded");
    for line in &lines {
        assert!(line.text.contains("parent_comm = \"") && line.text.contains("child_pid = "), "{line:?}");
    }
}

/// Set in the process that is to be killed.
const VICTIM: &str = "SILLAGE_TEST_VICTIM";

#[test]
fn nothing_stays_attached_when_the_tracer_is_killed() {
    let Some(kernel) = kernel("kill") else { return };
    if std::env::var_os(VICTIM).is_some() {
        let mut session = Session::new("kill", &kernel, geometry(12, 2, false, HeaderForm::Compact), &[]);
        session.enable(events::find("sched_switch").unwrap());
        let id = sys::program_id(session.channel.program(0).unwrap().as_fd()).unwrap();
        println!("\nprogram {id}");
        loop {
            std::thread::park();
        }
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing_stays_attached_when_the_tracer_is_killed", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(victim.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output).map_while(Result::ok);
    let id: u32 = lines.find_map(|line| line.strip_prefix("program ")?.parse().ok()).expect("a program");
    assert!(sys::program_exists(id).unwrap());
    victim.kill().unwrap();
    victim.wait().unwrap();
    // The kernel frees programs a grace period after their last user is gone.
    let deadline = Instant::now() + Duration::from_secs(10);
    while sys::program_exists(id).unwrap() {
        assert!(Instant::now() < deadline, "program {id} outlived its tracer");
        std::thread::yield_now();
    }
}

fn now_ns() -> u64 {
    sillage_consumer::clock::monotonic_ns()
}

#[test]
fn the_kernel_takes_a_program_for_each_of_its_tracepoints() {
    let Some(kernel) = kernel("all tracepoints") else { return };
    let Some(tracefs) = kernel.tracefs() else { return eprintln!("SKIPPED: no tracefs") };
    let session = Session::new("all", &kernel, geometry(18, 4, false, HeaderForm::Large), CONTEXTS);
    let list = std::fs::read_to_string(tracefs.join("available_events")).unwrap();
    let (mut taken, mut refused) = (0, Vec::new());
    for (category, name) in list.lines().filter_map(|line| line.split_once(':')) {
        let recipe = kernel.from_format(category, name).unwrap_or_else(|e| panic!("{category}:{name}: {e}"));
        match session.channel.load(&recipe, 40_000, CONTEXTS, &[]) {
            Ok(_) => taken += 1,
            Err(error) => refused.push(format!("{category}:{name}: {error}")),
        }
    }
    eprintln!("{taken} programs taken");
    assert!(
        refused.is_empty() && taken > 300,
        "{taken} taken, {} refused: {:#?}",
        refused.len(),
        &refused[..3.min(refused.len())]
    );
}
