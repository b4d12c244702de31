//! The long run: programs that come and go, three sessions, kills of both halves of the daemon and of
//! programs, disks that fill up, for `SILLAGE_SOAK_S` seconds (600). What was published is what is read
//! plus what is counted as lost, to the record.
//!
//! Only with `SILLAGE_FULL=1` (`cargo xtask test --full`).

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::{Home, Obedient, Small, Traced, kill, wait_for};

/// Ticks that a program records when it is told to.
const TURN_TICKS: u64 = 100;
/// Ticks of a program that fills a disk.
const TICKS: u64 = 40_000;
/// Programs at a time.
const PROGRAMS: usize = 4;
const SESSIONS: [(&str, &str); 3] = [
    ("wide", "--subbuf-size 256k --num-subbuf 16"),
    ("narrow", "--subbuf-size 4k --num-subbuf 4"),
    ("files", "--subbuf-size 64k --num-subbuf 8 --switch-timer 50000"),
];

/// A small generator: the run is the same for the same seed, as far as the machine lets it be.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

/// Ticks by Babeltrace, with how often each number was read; and the events that it says were lost.
fn read(home: &Home, session: &str) -> (BTreeMap<u64, u32>, u64) {
    let output = home.command("babeltrace2").arg("--no-delta").arg(home.dir.join(session)).output().unwrap();
    assert!(output.status.success(), "{session}: {}", String::from_utf8_lossy(&output.stderr));
    let mut ticks = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        if let Some((_, n)) =
            line.split_once(" scenario:tick: ").and_then(|(_, rest)| rest.split_once("n = "))
        {
            *ticks.entry(n.trim_end_matches(" }").parse().unwrap()).or_default() += 1;
        }
    }
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let said =
        complaints.lines().filter_map(|line| line.split_once("Tracer discarded ")?.1.split(' ').next());
    (ticks, said.map(|n| n.parse::<u64>().unwrap()).sum())
}

fn start_sessions(home: &Home) {
    for (name, options) in SESSIONS {
        home.ok(&format!("create {name} -o {name}"));
        home.ok(&format!("enable-channel -u c -s {name} {options}"));
        home.ok(&format!("enable-event -u scenario:tick -c c -s {name}"));
        home.ok(&format!("start {name}"));
    }
}

/// A program of the run; it lives through several kills of the daemon.
struct Running {
    program: Obedient,
    turns_left: u64,
}

/// One life of three sessions. Returns ticks published, and read and lost for each session.
fn round(home: &Home, traced: &Traced, dice: &mut Dice, until: Instant) -> (u64, Vec<(u64, u64)>) {
    start_sessions(home);
    let mut programs: Vec<Running> = Vec::new();
    let mut published = 0;
    let mut kill_at = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        while programs.len() < PROGRAMS {
            let mut command = traced.command(home);
            if dice.roll(3) == 0 {
                command.env("SILLAGE_PRODUCER", "locked");
            }
            programs.push(Running { program: Obedient::start(&mut command), turns_left: 1 + dice.roll(800) });
        }
        let at = dice.roll(PROGRAMS as u64) as usize;
        // Everybody's numbers are different.
        programs[at].program.tell(&format!("tick {TURN_TICKS} {published}"));
        published += TURN_TICKS;
        programs[at].turns_left -= 1;
        if programs[at].turns_left == 0 {
            let program = programs.swap_remove(at).program;
            if dice.roll(2) == 0 {
                kill(program.pid(), rustix::process::Signal::KILL);
                program.wait();
            } else {
                program.end();
            }
        }
        if Instant::now() >= kill_at {
            // Not faster than the keeper's patience with workers that die.
            kill_at = Instant::now() + Duration::from_millis(2500 + dice.roll(1000));
            match dice.roll(3) {
                0 => home.kill_keeper(),
                // At once, while the programs go on: nobody waits for the next one.
                1 => kill(home.pid("worker.pid"), rustix::process::Signal::KILL),
                _ => home.kill_worker(),
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    programs.into_iter().for_each(|running| running.program.end());
    wait_for("the end of all programs", || {
        let (code, text) = home.run("list -u");
        code == 0 && text.contains("None")
    });
    let results = SESSIONS.iter().map(|(name, _)| {
        home.ok(&format!("stop {name}"));
        let lost = home.discarded(name);
        let text = home.ok(&format!("destroy {name}"));
        assert!(!text.contains("survive") && !text.contains("retired"), "{name}: {text}");
        let (ticks, said) = read(home, name);
        assert!(ticks.values().all(|count| *count == 1), "{name}: a record was read twice");
        assert!(ticks.keys().all(|n| *n < published), "{name}: a record that nobody wrote");
        assert!(said <= lost, "{name}: Babeltrace is told of {said} lost, {lost} were");
        std::fs::remove_dir_all(home.dir.join(name)).unwrap();
        (ticks.len() as u64, lost)
    });
    (published, results.collect())
}

#[test]
fn published_is_read_plus_lost_through_kills() {
    if std::env::var_os("SILLAGE_FULL").is_none_or(|full| full != "1") {
        eprintln!("SKIPPED: the soak run takes minutes (SILLAGE_FULL=1, or cargo xtask test --full)");
        return;
    }
    let seconds = std::env::var("SILLAGE_SOAK_S").map_or(600, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let home = Home::new("soak");
    let Some(traced) = Traced::compile(&home) else { return };
    let mut dice = Dice(seconds);
    let mut rounds = 0;
    while Instant::now() < end {
        let until = end.min(Instant::now() + Duration::from_secs(20));
        let (published, sessions) = round(&home, &traced, &mut dice, until);
        for ((name, _), (read, lost)) in SESSIONS.iter().zip(&sessions) {
            assert_eq!(published, read + lost, "{name}: {read} read, {lost} lost");
        }
        rounds += 1;
        println!("round {rounds}: {published} published; read and lost {sessions:?}");
    }
}

#[test]
fn a_disk_that_fills_up_and_empties_costs_what_is_counted() {
    if std::env::var_os("SILLAGE_FULL").is_none_or(|full| full != "1") {
        eprintln!("SKIPPED: the soak run takes minutes (SILLAGE_FULL=1, or cargo xtask test --full)");
        return;
    }
    let home = Home::new("soak-disk");
    let Some(traced) = Traced::compile(&home) else { return };
    let Some(small) = Small::mount(&home, "1m") else { return };
    home.ok("create s -o small/s");
    home.ok("enable-channel -u c --subbuf-size 16k --num-subbuf 64");
    home.ok("enable-event -u scenario:tick -c c");
    home.ok("start");
    for round in 0..20u64 {
        let mut command = traced.command(&home);
        command.args(["ticks", &TICKS.to_string(), &(round * TICKS).to_string()]);
        assert!(command.status().unwrap().success());
        match round {
            5 | 15 => home.kill_worker(),
            10 => small.resize("3m"),
            12 => home.kill_keeper(),
            _ => {}
        }
    }
    let text = home.ok("stop");
    let lost = home.discarded("s");
    let (ticks, _) = read(&home, "small/s");
    let text_of_loss = text.lines().find(|line| line.contains("could not be written"));
    home.ok("destroy s");
    drop(small);
    // The disk took something, and something not; what it took is read, and the rest is shown.
    assert_eq!(ticks.len() as u64 + lost, 20 * TICKS, "{} read, {lost} lost", ticks.len());
    assert!(ticks.len() > 50_000 && lost > 0, "{} read, {lost} lost", ticks.len());
    assert!(text_of_loss.is_some(), "{text}");
}
