//! Producers of both kinds are killed with SIGKILL at random instants, again and again, while the
//! consumer reads at random times: nothing that was published is missing, doubled, torn or out of
//! order, losses are counted once, and the rings stay usable.
//!
//! The test starts its own executable as the workers that get killed. `SILLAGE_KILLS` sets how many
//! kills (1,000 unless told), `SILLAGE_SEED` repeats a run.

mod support;

use sillage_ring::{Cut, Emit, Geometry, Kind, Producer};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::*;

/// Threads of a worker; each has a second number for its signal handler.
const THREADS: u32 = 3;
/// Numbers that one worker takes on the progress page.
const WORKER_NUMBERS: u32 = 2 * THREADS;
const SHARED_WORKERS: usize = 2;
const LOCKED_WORKERS: usize = 1;

fn env_or(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

// ---- the worker

static HANDLER_THREAD: AtomicU32 = AtomicU32::new(0);
static mut PRODUCER: Option<Producer> = None;
static mut PROGRESS: Option<Memory> = None;

thread_local! { static NUMBER: std::cell::Cell<u32> = const { std::cell::Cell::new(u32::MAX) } }

#[allow(static_mut_refs)]
fn record(thread: u32, random: &mut Random, stage: &mut [u8; 4096]) {
    // SAFETY: both are set before the first thread or signal, and never again.
    let (producer, memory) = unsafe { (PRODUCER.as_ref().unwrap(), PROGRESS.unwrap()) };
    let progress = progress(memory, thread);
    let number = progress.done.load(Ordering::Relaxed) + 1;
    let size = random.next();
    let count = match size % 16 {
        0 => (size >> 8) % 2048,
        1..4 => (size >> 8) % 256,
        _ => (size >> 8) % 32,
    } as usize;
    let head = sillage_ring::STAGE_HEAD_BYTES;
    let id = if (size >> 40).is_multiple_of(16) { 70_000 } else { 1 };
    // No allocation here: this also runs in a signal handler.
    let (id, len) = if (size >> 44).is_multiple_of(4) {
        stage[head..][..8].copy_from_slice(&word(thread, number));
        (WORD_ID, 8)
    } else {
        fill(thread, number, count, &mut stage[head..]);
        (id, PAYLOAD_HEAD + count)
    };
    // SAFETY: the array has room for head, payload and tail, and only this frame uses it.
    let outcome = unsafe { emit(producer, id, stage.as_mut_ptr().add(head), len) };
    match outcome {
        Emit::Published | Emit::Opened => progress.done.store(number, Ordering::Relaxed),
        Emit::Full { cpu } => {
            producer.count_lost(cpu, sillage_ring::layout::LostReason::Full);
            progress.lost.fetch_add(1, Ordering::Relaxed);
        }
        _ => {
            progress.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn fill(thread: u32, number: u64, count: usize, out: &mut [u8]) {
    out[..4].copy_from_slice(&thread.to_le_bytes());
    out[4..12].copy_from_slice(&number.to_le_bytes());
    out[12..14].copy_from_slice(&(count as u16).to_le_bytes());
    for (i, byte) in out[PAYLOAD_HEAD..][..count].iter_mut().enumerate() {
        *byte = (number as u8).wrapping_mul(31).wrapping_add(i as u8) ^ thread as u8 ^ (number >> 8) as u8;
    }
}

extern "C" fn on_alarm(_signal: i32) {
    let thread = NUMBER.with(|n| n.get());
    if thread != u32::MAX {
        record(thread + 1, &mut Random(monotonic_ns() | 1), &mut [0; 4096]);
    }
}

/// Not a test of its own: the body of a worker, when the environment says so.
#[test]
fn worker() {
    let Ok(task) = std::env::var("SILLAGE_KILL_WORKER") else { return };
    let (handle, rest) = task.split_once(';').unwrap();
    let numbers: Vec<u64> = rest.split(',').map(|x| x.parse().unwrap()).collect();
    // SAFETY: no other thread or handler runs yet.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        PRODUCER = Some(producer_from_handle(handle));
        PROGRESS = Some(Memory::open(numbers[0] as i32, numbers[1]));
        libc::signal(libc::SIGALRM, on_alarm as *const () as usize);
        let every = libc::timeval { tv_sec: 0, tv_usec: 150 };
        libc::setitimer(
            libc::ITIMER_REAL,
            &libc::itimerval { it_interval: every, it_value: every },
            std::ptr::null_mut(),
        );
    }
    let first = numbers[2] as u32;
    HANDLER_THREAD.store(first, Ordering::Relaxed);
    let threads: Vec<_> = (0..THREADS)
        .map(|i| {
            std::thread::spawn(move || {
                let thread = first + 2 * i;
                NUMBER.with(|n| n.set(thread));
                let (mut random, mut stage) = (Random((monotonic_ns() * u64::from(i + 1)) | 1), [0; 4096]);
                loop {
                    record(thread, &mut random, &mut stage);
                    if random.next() % 4096 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

// ---- the test

struct Worker {
    child: Child,
    /// Its own rings, if it is of the locked kind.
    private: Option<(Rings, Collector)>,
}

struct Run {
    overwrite: bool,
    shared: Rings,
    progress: Memory,
    next_number: u32,
    /// Kind of each worker so far, `WORKER_NUMBERS` numbers each.
    kinds: Vec<Kind>,
}

impl Run {
    fn geometry(&self, kind: Kind) -> Geometry {
        Geometry { overwrite: self.overwrite, ..geometry(kind, 12, 4) }
    }

    fn spawn(&mut self, kind: Kind) -> Worker {
        let private = (kind == Kind::Locked).then(|| {
            let rings = Rings::new(self.geometry(kind));
            let collector = Collector::new(&rings.set);
            (rings, collector)
        });
        let handle = private.as_ref().map_or(self.shared.handle(), |(rings, _)| rings.handle());
        let task = format!("{handle};{},{},{}", self.progress.fd, self.progress.bytes, self.next_number);
        self.next_number += WORKER_NUMBERS;
        self.kinds.push(kind);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker", "--nocapture", "--test-threads=1"])
            .env("SILLAGE_KILL_WORKER", task)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Worker { child, private }
    }
}

fn finish(mut worker: Worker, summary: &mut Summary) -> u64 {
    worker.child.kill().unwrap();
    worker.child.wait().unwrap();
    let Some((rings, mut collector)) = worker.private else { return 0 };
    // The socket closed: drain and free.
    collector.poll(&rings.set, Cut::Open);
    summary.add(rings.set.geometry().header, &collector.streams[0]);
    // SAFETY: nobody uses these mappings and descriptors any more.
    unsafe {
        for memory in [rings.set_memory, rings.consumer_memory, rings.clock_memory] {
            libc::munmap(memory.base.as_ptr().cast(), memory.bytes as usize);
            libc::close(memory.fd);
        }
    }
    collector.overwritten()
}

fn stress(overwrite: bool) {
    let kills = env_or("SILLAGE_KILLS", 1000) / 2;
    let seed = env_or("SILLAGE_SEED", monotonic_ns() | 1);
    let mut random = Random(seed);
    let shared = Rings::new(Geometry { overwrite, ..geometry(Kind::Rseq, 12, 4) });
    let progress_bytes = (kills + 8) * u64::from(WORKER_NUMBERS) * size_of::<Progress>() as u64;
    let mut run =
        Run { overwrite, shared, progress: Memory::new(progress_bytes), next_number: 0, kinds: vec![] };
    let mut ticker = Ticker::start(run.shared.clock());
    let mut collector = Collector::new(&run.shared.set);
    let mut summary = Summary::default();
    let kinds = [vec![Kind::Rseq; SHARED_WORKERS], vec![Kind::Locked; LOCKED_WORKERS]].concat();
    let mut workers: Vec<Option<Worker>> = kinds.iter().map(|kind| Some(run.spawn(*kind))).collect();
    let (mut overwritten, mut killed) = (0, 0);
    while killed < kills {
        // Up to some milliseconds: from the start of the worker's runtime to the midst of its work.
        let until = monotonic_ns() + 200_000 + random.next() % 6_000_000;
        while monotonic_ns() < until {
            let cut = |r: &mut Random| if r.next().is_multiple_of(3) { Cut::Open } else { Cut::Never };
            collector.poll(&run.shared.set, cut(&mut random));
            for worker in workers.iter_mut().flatten() {
                if let Some((rings, collector)) = &mut worker.private {
                    collector.poll(&rings.set, cut(&mut random));
                }
            }
            std::thread::sleep(Duration::from_micros(random.next() % 300));
        }
        // The clock page goes stale now and then.
        if !random.next().is_multiple_of(4) {
            ticker.tick(run.shared.clock());
        }
        let victim = (random.next() % workers.len() as u64) as usize;
        overwritten += finish(workers[victim].take().unwrap(), &mut summary);
        workers[victim] = Some(run.spawn(kinds[victim]));
        killed += 1;
    }
    for worker in workers.into_iter().flatten() {
        overwritten += finish(worker, &mut summary);
    }
    collector.poll(&run.shared.set, Cut::Open);
    for stream in &collector.streams {
        summary.add(run.shared.set.geometry().header, stream);
    }
    overwritten += collector.overwritten();
    check(&run, &mut summary, overwritten, killed, seed);
}

fn check(run: &Run, summary: &mut Summary, overwritten: u64, kills: u64, seed: u64) {
    let (mut lost, mut under_way, mut deferred) = (0, 0, 0);
    for thread in 0..run.next_number {
        let counters = progress(run.progress, thread);
        lost += counters.lost.load(Ordering::Relaxed);
        let done = counters.done.load(Ordering::Relaxed);
        let mut numbers = summary.numbers.remove(&thread).unwrap_or_default();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "thread {thread}: a record twice (seed {seed})");
        let last = numbers.last().copied().unwrap_or(0);
        // Killed between the store of the head and the count: one more than was counted.
        under_way += u64::from(last == done + 1);
        let locked = run.kinds[(thread / WORKER_NUMBERS) as usize] == Kind::Locked;
        if locked && thread % 2 == 1 && !run.overwrite {
            // A handler that met its own thread's lock left the record to the frame below, which may
            // have found the ring full (and counted it), or was killed first.
            assert!(last <= done + 1 && count as u64 <= last);
            deferred += done.saturating_sub(count as u64);
        } else if !run.overwrite {
            assert!(last == done || last == done + 1, "thread {thread}: {last} of {done} (seed {seed})");
            assert_eq!(count as u64, last, "thread {thread}: a record is missing (seed {seed})");
        } else {
            assert!(last <= done + 1, "thread {thread}: {last} of {done} (seed {seed})");
        }
    }
    assert!(summary.discarded >= lost, "{} counted, {lost} reported (seed {seed})", summary.discarded);
    // A kill between the two counts of one loss.
    let between = kills * u64::from(WORKER_NUMBERS);
    assert!(
        deferred <= summary.discarded - lost + between,
        "{deferred} deferred records vanished (seed {seed})"
    );
    assert!(summary.discarded - lost <= between + deferred, "{} counted, {lost} reported", summary.discarded);
    assert!(summary.records > kills, "the workers did work");
    println!(
        "{kills} kills, {} records ({} extended) in {} packets, {} discarded, {overwritten} sub-buffers \
         overwritten, {under_way} published and killed before they were counted (seed {seed})",
        summary.records, summary.extended, summary.packets, summary.discarded
    );
}

#[test]
fn kills_in_discard_mode_lose_nothing_that_was_published() {
    stress(false);
}

#[test]
fn kills_in_overwrite_mode_keep_what_is_there_whole() {
    stress(true);
}
