//! For tests of the daemon (feature `fake`): the descriptors that it hands to a program, mapped as a
//! program maps them, with a producer on top. It is no tracer: it stages each record in a fresh
//! buffer, and blocks for nothing.

use crate::clock::monotonic_ns;
use crate::shared::{SharedError, futex_wake_all};
use sillage_ring::layout::Doorbell;
use sillage_ring::{Emit, Host, MapError, Producer, STAGE_HEAD_BYTES, STAGE_TAIL_BYTES};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use thiserror::Error;

/// Why descriptors are no ring set.
#[derive(Debug, Error)]
pub enum FakeError {
    /// They cannot be mapped.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// What they hold is no ring set.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// A file mapped for the life of the process: producers point into it.
struct Mapped {
    address: *mut u8,
    bytes: u64,
}

impl Mapped {
    fn new(file: &OwnedFd, write: bool) -> Result<Mapped, SharedError> {
        let kernel = |step| SharedError::Kernel { step, error: std::io::Error::last_os_error() };
        let bytes = rustix::fs::fstat(file).map_err(|_| kernel("fstat"))?.st_size as u64;
        let protection = if write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a fresh mapping at an address that the kernel chooses touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes as usize,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(kernel("mmap"));
        }
        Ok(Mapped { address: address.cast(), bytes })
    }
}

// SAFETY: shared memory that stays mapped until the process ends, used through atomics.
unsafe impl Send for Mapped {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapped {}

/// Clock page and doorbell of the daemon.
#[derive(Clone)]
pub struct FakePages {
    clock: Arc<Mapped>,
    doorbell: Arc<Mapped>,
}

impl FakePages {
    /// Maps what comes with `Welcome`.
    ///
    /// # Errors
    /// They cannot be mapped.
    pub fn map(clock: &OwnedFd, doorbell: &OwnedFd) -> Result<FakePages, SharedError> {
        let (clock, doorbell) = (Mapped::new(clock, false)?, Mapped::new(doorbell, true)?);
        Ok(FakePages { clock: Arc::new(clock), doorbell: Arc::new(doorbell) })
    }

    fn ring(&self) {
        // SAFETY: `map` mapped a page of atomics, for the life of the process.
        let doorbell = unsafe { &*self.doorbell.address.cast::<Doorbell>() };
        fence(Ordering::SeqCst); // pairs with the fence of the sleeping consumer
        if doorbell.sleeping.load(Ordering::Relaxed) != 0 {
            doorbell.bell.fetch_add(1, Ordering::Release);
            futex_wake_all((&raw const doorbell.bell).cast());
        }
    }
}

/// A producer on a set that the daemon handed out.
pub struct FakeProducer {
    producer: Producer,
    pages: FakePages,
    set: Mapped,
}

unsafe extern "C" {
    static __rseq_offset: isize;
}

impl FakeProducer {
    /// Maps what comes with `Channel`. Its producer must be of the kind that the program announced.
    ///
    /// # Errors
    /// It cannot be mapped, or is no ring set.
    pub fn map(set: &OwnedFd, words: &OwnedFd, pages: &FakePages) -> Result<FakeProducer, FakeError> {
        let (set, words) = (Mapped::new(set, true)?, Mapped::new(words, false)?);
        let host = Host {
            monotonic_ns,
            // SAFETY: the call has no preconditions.
            cpu: || unsafe { libc::sched_getcpu() } as u32,
            tsc_allowed: true,
            // SAFETY: glibc exports the constant, and has registered each thread's area there.
            rseq_offset: unsafe { __rseq_offset },
        };
        // SAFETY: all three are mapped shared for the life of the process, the set writable.
        let producer = unsafe {
            Producer::from_mapping(
                set.address,
                set.bytes,
                words.address,
                words.bytes,
                pages.clock.address.cast(),
                host,
            )?
        };
        Ok(FakeProducer { producer, pages: pages.clone(), set })
    }

    /// Publishes one record.
    pub fn emit(&self, event_id: u32, payload: &[u8]) -> Emit {
        let mut stage = vec![0; STAGE_HEAD_BYTES + payload.len() + STAGE_TAIL_BYTES];
        stage[STAGE_HEAD_BYTES..][..payload.len()].copy_from_slice(payload);
        // SAFETY: the staging area has the room in front and behind that `emit` asks for.
        let outcome = unsafe {
            self.producer.emit(
                thread_number(),
                event_id,
                stage.as_mut_ptr().add(STAGE_HEAD_BYTES),
                payload.len(),
            )
        };
        if outcome == Emit::Opened {
            self.pages.ring();
        }
        if let Emit::Full { cpu } = outcome {
            self.producer.count_lost(cpu, sillage_ring::layout::LostReason::Full);
        }
        outcome
    }

    /// Overwrites 8 bytes at this offset of the set, as no honest producer does.
    pub fn scribble(&self, offset: usize, value: u64) {
        assert!(offset + 8 <= self.set.bytes as usize);
        // SAFETY: inside the mapping; whoever reads it expects anything.
        unsafe { self.set.address.add(offset).cast::<u64>().write_unaligned(value) };
    }
}

/// A number that no other thread has.
fn thread_number() -> NonZeroUsize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed) * 64);
    NUMBER.with(|number| NonZeroUsize::new(*number)).unwrap_or(NonZeroUsize::MIN)
}
