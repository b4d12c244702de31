//! What the ring's tests share: shared memory, a producer's view of it, a consumer that keeps
//! packets in memory, and an independent decoder that proves that no record is torn, missing,
//! doubled or out of order.
#![allow(dead_code)] // each test file takes its part

use sillage_ring::layout::PAGE_BYTES;
use sillage_ring::{
    ClockPage, Cursor, Cut, Emit, Geometry, HeaderForm, Host, Kind, Producer, STAGE_HEAD_BYTES,
    STAGE_TAIL_BYTES, Set, Slot,
};
use std::cell::Cell;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// A memfd, mapped shared for as long as the process lives; its descriptor is inherited by children.
#[derive(Clone, Copy)]
pub struct Memory {
    pub fd: i32,
    pub base: NonNull<u8>,
    pub bytes: u64,
}

// SAFETY: the mapping lives as long as the process, and is used through atomics.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(bytes: u64) -> Memory {
        // SAFETY: plain system calls on a name that is a C string.
        let fd = unsafe { libc::memfd_create(c"ring-test".as_ptr(), 0) };
        assert!(fd >= 0);
        // SAFETY: `fd` was just made.
        assert_eq!(unsafe { libc::ftruncate(fd, bytes as i64) }, 0);
        Memory::open(fd, bytes)
    }

    pub fn open(fd: i32, bytes: u64) -> Memory {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, placed by the kernel.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes as usize, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        Memory { fd, base: NonNull::new(base.cast()).unwrap(), bytes }
    }

    /// Pages of the file that exist.
    pub fn pages_used(&self) -> u64 {
        // SAFETY: `stat` is plain data, and `fd` is open.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::fstat(self.fd, &mut stat) }, 0);
        stat.st_blocks as u64 * 512 / PAGE_BYTES
    }
}

/// The three files of a ring set and the daemon's view of it.
pub struct Rings {
    pub set_memory: Memory,
    pub consumer_memory: Memory,
    pub clock_memory: Memory,
    pub set: Set,
}

pub fn geometry(kind: Kind, subbuf_shift: u32, subbuf_count: u32) -> Geometry {
    let cpus = if kind == Kind::Locked { 1 } else { possible_cpus() };
    Geometry {
        kind,
        cpus,
        subbuf_shift,
        subbuf_count,
        overwrite: false,
        ordered: false,
        header: HeaderForm::Large,
    }
}

pub fn possible_cpus() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) as u32 }
}

impl Rings {
    pub fn new(geometry: Geometry) -> Rings {
        let set_memory = Memory::new(geometry.set_bytes());
        let consumer_memory = Memory::new(geometry.consumer_bytes());
        let clock_memory = Memory::new(PAGE_BYTES);
        // SAFETY: both files were just made with these sizes and stay mapped.
        let set = unsafe { Set::create(set_memory.base, consumer_memory.base, geometry, 77) }.unwrap();
        Rings { set_memory, consumer_memory, clock_memory, set }
    }

    pub fn clock(&self) -> &ClockPage {
        // SAFETY: a page of zeroes is a clock page.
        unsafe { self.clock_memory.base.cast().as_ref() }
    }

    /// `fd,bytes` of the three files, for a child process.
    pub fn handle(&self) -> String {
        [self.set_memory, self.consumer_memory, self.clock_memory]
            .map(|m| format!("{},{}", m.fd, m.bytes))
            .join(",")
    }

    pub fn producer(&self) -> Producer {
        producer(self.set_memory, self.consumer_memory, self.clock_memory)
    }
}

/// The producer of a child that got a [`Rings::handle`].
pub fn producer_from_handle(handle: &str) -> Producer {
    let n: Vec<u64> = handle.split(',').map(|x| x.parse().unwrap()).collect();
    let memory = |i: usize| Memory::open(n[i] as i32, n[i + 1]);
    producer(memory(0), memory(2), memory(4))
}

fn producer(set: Memory, consumer: Memory, clock: Memory) -> Producer {
    let host = Host { monotonic_ns, cpu, tsc_allowed: true, rseq_offset: rseq_offset() };
    // SAFETY: `Memory` is mapped for good; glibc registers rseq for every thread (`rseq_offset`).
    unsafe {
        Producer::from_mapping(
            set.base.as_ptr(),
            set.bytes,
            consumer.base.as_ptr(),
            consumer.bytes,
            clock.base.as_ptr().cast(),
            host,
        )
    }
    .unwrap()
}

pub fn rseq_offset() -> isize {
    // SAFETY: both symbols are glibc's, of these types.
    unsafe {
        let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
        let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()).cast::<u32>();
        assert!(!offset.is_null() && *size >= 20, "the tests need a glibc that registers rseq");
        *offset
    }
}

pub fn monotonic_ns() -> u64 {
    // SAFETY: `timespec` is plain data.
    unsafe {
        let mut t: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t);
        t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
    }
}

pub fn cpu() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::sched_getcpu() as u32 }
}

/// A (TSC, CLOCK_MONOTONIC) pair, the tightest of eight.
pub fn clock_pair() -> (u64, u64) {
    // SAFETY: x86-64 has the instruction.
    let tsc = || unsafe { core::arch::x86_64::_rdtsc() };
    let tries = (0..8).map(|_| {
        let before = tsc();
        let ns = monotonic_ns();
        let window = tsc() - before;
        (window, before + window / 2, ns)
    });
    let (_, tsc, ns) = tries.min().unwrap();
    (tsc, ns)
}

pub fn pin(cpu: u32) {
    // SAFETY: `cpu_set_t` is plain data.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu as usize, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &set), 0);
    }
}

thread_local! { static TOKEN: Cell<u8> = const { Cell::new(0) } }

/// A number that no other living thread has: the address of a thread-local.
pub fn thread() -> NonZeroUsize {
    NonZeroUsize::new(TOKEN.with(|t| t as *const Cell<u8> as usize)).unwrap()
}

/// Staging memory for one record.
pub struct Stage(Box<[u8]>);

impl Stage {
    pub fn new(bytes: usize) -> Stage {
        Stage(vec![0; STAGE_HEAD_BYTES + bytes + STAGE_TAIL_BYTES].into())
    }

    pub fn emit(&mut self, producer: &Producer, id: u32, payload: &[u8]) -> Emit {
        // SAFETY: the box has head and tail around the payload, and is borrowed mutably.
        unsafe { emit(producer, id, self.filled(payload), payload.len()) }
    }

    /// Never by the straight line.
    pub fn emit_in_whole_section(&mut self, producer: &Producer, id: u32, payload: &[u8]) -> Emit {
        // SAFETY: as in `emit`.
        unsafe { producer.emit(thread(), id, self.filled(payload), payload.len()) }
    }

    fn filled(&mut self, payload: &[u8]) -> *mut u8 {
        self.0[STAGE_HEAD_BYTES..][..payload.len()].copy_from_slice(payload);
        self.0[STAGE_HEAD_BYTES..].as_mut_ptr()
    }
}

/// As the tracer does it: straight away if possible.
///
/// # Safety
/// As [`Producer::emit`].
pub unsafe fn emit(producer: &Producer, id: u32, staged: *mut u8, len: usize) -> Emit {
    // SAFETY: the caller's promise; `has_short` was asked.
    unsafe {
        if producer.has_short(id) && producer.emit_short::<0>(id, staged, len) {
            return Emit::Published;
        }
        producer.emit(thread(), id, staged, len)
    }
}

/// Id of records whose payload is one [`word`].
pub const WORD_ID: u32 = 0x7777;

/// The payload of such a record: thread u24, number u40.
pub fn word(thread: u32, number: u64) -> [u8; 8] {
    (number << 24 | u64::from(thread)).to_le_bytes()
}

/// Self-describing test payload: thread u32, number u64, count u16, then `count` derived bytes.
pub const PAYLOAD_HEAD: usize = 14;

pub fn payload(thread: u32, number: u64, count: usize, out: &mut Vec<u8>) {
    out.clear();
    out.extend(thread.to_le_bytes());
    out.extend(number.to_le_bytes());
    out.extend((count as u16).to_le_bytes());
    out.extend((0..count).map(|i| derived(thread, number, i)));
}

fn derived(thread: u32, number: u64, i: usize) -> u8 {
    (number as u8).wrapping_mul(31).wrapping_add(i as u8) ^ thread as u8 ^ (number >> 8) as u8
}

/// A packet as it was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub begin_ts: u64,
    pub end_ts: u64,
    pub discarded: u64,
    pub sequence: u64,
    pub cpu: u32,
    pub body: Vec<u8>,
}

/// A consumer that keeps what it would write.
pub struct Collector {
    pub cursors: Vec<Option<Cursor>>,
    pub streams: Vec<Vec<Written>>,
    scratch: Vec<u8>,
}

impl Collector {
    pub fn new(set: &Set) -> Collector {
        let cpus = set.geometry().cpus as usize;
        Collector { cursors: vec![None; cpus], streams: vec![Vec::new(); cpus], scratch: Vec::new() }
    }

    /// One pass over the active rings. True if anything was taken.
    pub fn poll(&mut self, set: &Set, cut: Cut) -> bool {
        let mut any = false;
        for cpu in set.active() {
            let cursor = self.cursors[cpu as usize].get_or_insert_with(|| Cursor::resume(set, cpu, None));
            while let Some(p) = cursor.next(set, cut, monotonic_ns(), &mut self.scratch).unwrap() {
                // SAFETY: `next` gave a range that nobody changes before `done`.
                let body = unsafe { std::slice::from_raw_parts(p.body, p.body_bytes) }.to_vec();
                self.streams[cpu as usize].push(Written {
                    begin_ts: p.begin_ts,
                    end_ts: p.end_ts,
                    discarded: p.discarded,
                    sequence: p.sequence,
                    cpu: p.cpu,
                    body,
                });
                any = true;
                if cursor.done(set, &p) {
                    // SAFETY: the futex word is mapped for the life of the set.
                    unsafe {
                        libc::syscall(libc::SYS_futex, set.wait_word(cpu), libc::FUTEX_WAKE, i32::MAX);
                    }
                }
            }
        }
        any
    }

    pub fn overwritten(&self) -> u64 {
        self.cursors.iter().flatten().map(Cursor::overwritten).sum()
    }
}

/// One decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: u32,
    pub ts: u64,
    pub extended: bool,
    pub thread: u32,
    pub number: u64,
}

/// Decodes the records of a packet by the CTF rules alone, and checks every byte and every time.
pub fn decode(form: HeaderForm, packet: &Written) -> Vec<Record> {
    let (b, mut at, mut clock, mut out) = (&packet.body, 0, packet.begin_ts, Vec::new());
    let word = |at: usize, n: usize| {
        let mut bytes = [0; 8];
        bytes[..n].copy_from_slice(&b[at..at + n]);
        u64::from_le_bytes(bytes)
    };
    while at < b.len() {
        let (short_id, low, bits, short_bytes, prefix) = match form {
            HeaderForm::Large => (word(at, 2), word(at, 6) >> 16, 32, 6, 2),
            HeaderForm::Compact => (word(at, 4) & 31, word(at, 4) >> 5, 27, 4, 1),
        };
        let extended = short_id == u64::from(form.extended_id());
        let (id, ts) = if extended {
            at += prefix + 12;
            (word(at - 12, 4), word(at - 8, 8))
        } else {
            at += short_bytes;
            let mask = (1u64 << bits) - 1;
            let ts = clock & !mask | low;
            (short_id, if ts < clock { ts + mask + 1 } else { ts })
        };
        assert!(ts >= clock && ts <= packet.end_ts, "time {ts} after {clock}, packet ends {}", packet.end_ts);
        clock = ts;
        if id == u64::from(WORD_ID) {
            let (thread, number) = (word(at, 3) as u32, word(at + 3, 5));
            at += 8;
            out.push(Record { id: WORD_ID, ts, extended, thread, number });
            continue;
        }
        let (thread, number, count) = (word(at, 4) as u32, word(at + 4, 8), word(at + 12, 2) as usize);
        let bytes = &b[at + PAYLOAD_HEAD..at + PAYLOAD_HEAD + count];
        let torn = bytes.iter().enumerate().position(|(i, x)| *x != derived(thread, number, i));
        assert_eq!(torn, None, "torn record {number} of thread {thread} at {at}");
        at += PAYLOAD_HEAD + count;
        out.push(Record { id: id as u32, ts, extended, thread, number });
    }
    out
}

/// What a whole run left behind, checked stream by stream.
#[derive(Default, Debug)]
pub struct Summary {
    pub records: u64,
    pub extended: u64,
    pub packets: u64,
    pub discarded: u64,
    pub sequence_gaps: u64,
    /// Numbers seen of each thread, in no order.
    pub numbers: HashMap<u32, Vec<u64>>,
}

impl Summary {
    /// Adds one stream: packets follow each other in time and sequence, and a thread's numbers rise.
    pub fn add(&mut self, form: HeaderForm, stream: &[Written]) {
        let (mut previous_end, mut sequence, mut discarded) = (0, None, 0);
        let mut last: HashMap<u32, u64> = HashMap::new();
        for packet in stream {
            assert!(packet.begin_ts >= previous_end, "packet begins before the last one's end");
            assert!(packet.end_ts >= packet.begin_ts && packet.discarded >= discarded);
            (previous_end, discarded) = (packet.end_ts, packet.discarded);
            if let Some(before) = sequence {
                assert!(packet.sequence > before);
                self.sequence_gaps += packet.sequence - before - 1;
            }
            sequence = Some(packet.sequence);
            self.packets += 1;
            for record in decode(form, packet) {
                self.records += 1;
                self.extended += u64::from(record.extended);
                if let Some(before) = last.insert(record.thread, record.number) {
                    assert!(
                        record.number > before,
                        "thread {}: {} after {before}",
                        record.thread,
                        record.number
                    );
                }
                self.numbers.entry(record.thread).or_default().push(record.number);
            }
        }
        self.discarded += discarded;
    }
}

/// A small generator of pseudo-random numbers (xorshift), so that a seed repeats a run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Keeps a clock page fresh as the daemon does.
pub struct Ticker {
    before: (u64, u64),
}

impl Ticker {
    pub fn start(clock: &ClockPage) -> Ticker {
        let before = clock_pair();
        while clock_pair().1 - before.1 < 20_000_000 {
            std::hint::spin_loop();
        }
        let mut ticker = Ticker { before };
        ticker.tick(clock);
        ticker
    }

    pub fn tick(&mut self, clock: &ClockPage) {
        let now = clock_pair();
        clock.publish(Slot::from_pairs(self.before, now).expect("a steady TSC"));
        self.before = now;
    }
}

/// Counters that a killed producer leaves behind: one for each thread.
#[repr(C)]
pub struct Progress {
    /// Highest number whose `emit` returned.
    pub done: AtomicU64,
    /// Numbers that `emit` reported as lost.
    pub lost: AtomicU64,
}

pub fn progress(memory: Memory, thread: u32) -> &'static Progress {
    assert!((thread as u64 + 1) * size_of::<Progress>() as u64 <= memory.bytes);
    // SAFETY: the memory is mapped for good and holds only these counters.
    unsafe { memory.base.cast::<Progress>().add(thread as usize).as_ref() }
}

/// Adds one and returns the value before.
pub fn next_number(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}
