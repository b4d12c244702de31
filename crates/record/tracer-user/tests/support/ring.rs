//! Ring sets in memory files, and their records as text.

use super::decode;
use sillage_model::Tracepoint;
use sillage_ring::{Cursor, Cut, Geometry, HeaderForm, Set};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Mutex;

/// A memory file, mapped.
pub struct Page {
    fd: OwnedFd,
    at: *mut u8,
    bytes: usize,
}

// SAFETY: shared memory, used through atomics.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    pub fn new(name: &CStr) -> Page {
        Page::sized(name, 4096)
    }

    pub fn sized(name: &CStr, bytes: usize) -> Page {
        // SAFETY: a new file and a new mapping of it.
        unsafe {
            let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
            assert!(fd >= 0, "memfd");
            let fd = OwnedFd::from_raw_fd(fd);
            assert_eq!(libc::ftruncate(fd.as_raw_fd(), bytes as i64), 0);
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let at = libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0);
            assert_ne!(at, libc::MAP_FAILED);
            Page { fd, at: at.cast(), bytes }
        }
    }

    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub fn start(&self) -> *mut u8 {
        self.at
    }

    /// Bytes of memory that the file takes.
    pub fn resident_bytes(&self) -> u64 {
        // SAFETY: the structure is filled by the kernel.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            assert_eq!(libc::fstat(self.fd(), &mut stat), 0);
            stat.st_blocks as u64 * 512
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped in `sized`.
        unsafe { libc::munmap(self.at.cast(), self.bytes) };
    }
}

/// One record.
#[derive(Clone, Debug)]
pub struct Event {
    pub ts: u64,
    pub cpu: u32,
    pub name: String,
    /// `provider:event field=value …`.
    pub text: String,
    pub payload: Vec<u8>,
}

/// A ring set, its files, and the consumer of each ring.
pub struct RingSet {
    memory: Page,
    consumer: Page,
    set: Set,
    read: Mutex<BTreeMap<u32, (Cursor, Vec<u8>)>>,
}

impl RingSet {
    pub fn new(geometry: Geometry, id: u64) -> RingSet {
        let memory = Page::sized(c"set", geometry.set_bytes() as usize);
        let consumer = Page::sized(c"consumer", geometry.consumer_bytes() as usize);
        // SAFETY: both mappings are zeroed, as large as the geometry says, and kept beside the set.
        let set = unsafe {
            let base = NonNull::new(memory.start()).unwrap();
            Set::create(base, NonNull::new(consumer.start()).unwrap(), geometry, id).expect("geometry")
        };
        RingSet { memory, consumer, set, read: Mutex::default() }
    }

    pub fn id(&self) -> u64 {
        self.set.set_id()
    }

    pub fn fd(&self) -> RawFd {
        self.memory.fd()
    }

    pub fn consumer_fd(&self) -> RawFd {
        self.consumer.fd()
    }

    pub fn raw(&self) -> &Set {
        &self.set
    }

    pub fn resident_bytes(&self) -> u64 {
        self.memory.resident_bytes()
    }

    pub fn lost(&self) -> [u64; 8] {
        let mut all = [0; 8];
        for cpu in self.set.active() {
            all.iter_mut().zip(self.set.lost(cpu)).for_each(|(a, b)| *a += b);
        }
        all
    }

    /// Records of all rings so far; what was read before is kept and given again.
    pub fn events(&self, by_id: &BTreeMap<u32, &Tracepoint>) -> Vec<Event> {
        let mut read = self.read.lock().unwrap();
        let mut events = Vec::new();
        for cpu in self.set.active() {
            let (cursor, packets) =
                read.entry(cpu).or_insert_with(|| (Cursor::resume(&self.set, cpu, None), vec![]));
            take(&self.set, cursor, Cut::Open, |begin, body| {
                packets.extend_from_slice(&begin.to_le_bytes());
                packets.extend_from_slice(&(body.len() as u64).to_le_bytes());
                packets.extend_from_slice(body);
            });
            let mut rest = &packets[..];
            while !rest.is_empty() {
                let begin = u64::from_le_bytes(rest[..8].try_into().unwrap());
                let length = u64::from_le_bytes(rest[8..16].try_into().unwrap()) as usize;
                records(self.set.geometry().header, cpu, begin, &rest[16..16 + length], by_id, &mut events);
                rest = &rest[16 + length..];
            }
        }
        events
    }

    /// Consumes full sub-buffers and forgets them; bytes of records.
    pub fn discard(&self) -> u64 {
        let mut read = self.read.lock().unwrap();
        let mut bytes = 0;
        for cpu in self.set.active() {
            let (cursor, _) =
                read.entry(cpu).or_insert_with(|| (Cursor::resume(&self.set, cpu, None), vec![]));
            take(&self.set, cursor, Cut::Never, |_, body| bytes += body.len() as u64);
        }
        bytes
    }
}

fn take(set: &Set, cursor: &mut Cursor, cut: Cut, mut each: impl FnMut(u64, &[u8])) {
    let mut scratch = Vec::new();
    while let Some(packet) = cursor.next(set, cut, monotonic_ns(), &mut scratch).expect("an honest ring") {
        // SAFETY: the consumer answers for the bytes until `done`.
        let body = unsafe { std::slice::from_raw_parts(packet.body, packet.body_bytes) };
        each(packet.begin_ts, body);
        if cursor.done(set, &packet) {
            // SAFETY: the word lies in the consumer's mapping.
            unsafe {
                libc::syscall(libc::SYS_futex, set.wait_word(cursor.cpu()), libc::FUTEX_WAKE, i32::MAX)
            };
        }
    }
}

fn records(
    header: HeaderForm,
    cpu: u32,
    begin: u64,
    body: &[u8],
    by_id: &BTreeMap<u32, &Tracepoint>,
    events: &mut Vec<Event>,
) {
    let mut rest = body;
    let mut time = begin;
    while !rest.is_empty() {
        let word = |at: usize, count: usize| {
            rest[at..at + count].iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b))
        };
        let first = word(0, if header == HeaderForm::Compact { 4 } else { 2 });
        let short_id = first & ((1 << header.id_bits()) - 1);
        let (id, ts, length) = if short_id == u64::from(header.extended_id()) {
            let at = header.extended_bytes() as usize - 12;
            (word(at, 4), word(at + 4, 8), header.extended_bytes())
        } else {
            let (bits, low) = match header {
                HeaderForm::Compact => (27, first >> 5),
                HeaderForm::Large => (32, word(2, 4)),
            };
            let span = 1u64 << bits;
            let ts = (time & !(span - 1)) | low;
            (short_id, if ts < time { ts + span } else { ts }, header.short_bytes())
        };
        time = ts;
        rest = &rest[length as usize..];
        let Some(tracepoint) = by_id.get(&(id as u32)) else { panic!("event id {id} at {rest:?}") };
        let (text, used) = decode::payload(tracepoint, rest);
        let payload = rest[..used].to_vec();
        events.push(Event { ts, cpu, name: tracepoint.name.clone(), text, payload });
        rest = &rest[used..];
    }
}

/// CLOCK_MONOTONIC, ns.
pub fn monotonic_ns() -> u64 {
    // SAFETY: the kernel fills the structure.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// TSC and CLOCK_MONOTONIC at nearly the same instant.
pub fn clock_pair() -> (u64, u64) {
    // SAFETY: x86-64 has a TSC.
    let tsc = || unsafe { std::arch::x86_64::_rdtsc() };
    (0..8)
        .map(|_| {
            let (before, ns, after) = (tsc(), monotonic_ns(), tsc());
            (after - before, (before + (after - before) / 2, ns))
        })
        .min_by_key(|(window, _)| *window)
        .map(|(_, pair)| pair)
        .unwrap()
}
