//! Shared memory: memfds, their seals, and their mappings in the daemon.
//!
//! A ring set is two files. Producers map the first read-write; it is sealed at its full virtual
//! size, so that none of them can make the daemon fault. The second holds the consumer's words, the
//! rings' ledgers behind them, and
//! producers get only a *read-only descriptor* of it (as of the clock page), of an inode that others
//! cannot reopen for writing. `F_SEAL_FUTURE_WRITE` would say the same more strictly, but it also
//! refuses the writable mapping that a restarted daemon needs; a program of the daemon's own user
//! that wants to do harm can use a debugger on it anyway.
//!
//! Pages are touched on demand: a CPU that records nothing costs none.

use crate::ledger::Ledger;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use sillage_ring::geometry::GeometryError;
use sillage_ring::layout::Doorbell;
use sillage_ring::{ClockPage, Geometry, Set};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use thiserror::Error;

/// Bytes of the clock's and of a doorbell's file.
const PAGE_BYTES: usize = 4096;

/// Why shared memory could not be had.
#[derive(Debug, Error)]
pub enum SharedError {
    /// The kernel refused.
    #[error("shared memory ({step}): {error}")]
    Kernel {
        /// What was asked for.
        step: &'static str,
        /// Its answer.
        error: io::Error,
    },
    /// A shape that no set can have.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// A file that was kept is smaller than it must be.
    #[error("shared file of {have} bytes, {need} needed")]
    Short {
        /// Bytes it has.
        have: u64,
        /// Bytes it should have.
        need: u64,
    },
}

fn kernel(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> SharedError {
    move |error| SharedError::Kernel { step, error: error.into() }
}

/// A shared read-write mapping of a whole file.
struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory, used through raw pointers and atomics by its owners.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: BorrowedFd<'_>, bytes: u64) -> Result<Mapping, SharedError> {
        let have = rustix::fs::fstat(file).map_err(kernel("fstat"))?.st_size as u64;
        if have < bytes {
            return Err(SharedError::Short { have, need: bytes });
        }
        Mapping::of(file, bytes as usize)
    }

    /// A mapping of the first `bytes` bytes of something whose size the kernel checks by itself.
    fn of(file: BorrowedFd<'_>, bytes: usize) -> Result<Mapping, SharedError> {
        // SAFETY: a fresh shared mapping at an address that the kernel chooses touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(address.cast::<u8>()).filter(|_| address != libc::MAP_FAILED) {
            Some(address) => {
                // SAFETY: the range was just mapped. Rings do not belong into core files of the daemon.
                unsafe { libc::madvise(address.as_ptr().cast(), bytes, libc::MADV_DONTDUMP) };
                Ok(Mapping { address, bytes })
            }
            None => Err(SharedError::Kernel { step: "mmap", error: io::Error::last_os_error() }),
        }
    }
}

impl Mapping {
    /// Address space for `bytes` bytes, which costs memory only where it is written to.
    fn reserve(bytes: usize) -> Result<Mapping, SharedError> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping at an address that the kernel chooses touches no memory of ours.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags | libc::MAP_NORESERVE, -1, 0) };
        match NonNull::new(address.cast::<u8>()).filter(|_| address != libc::MAP_FAILED) {
            Some(address) => Ok(Mapping { address, bytes }),
            None => Err(SharedError::Kernel { step: "mmap", error: io::Error::last_os_error() }),
        }
    }

    /// Puts the first `bytes` bytes of a file into this mapping, `offset` bytes behind its start.
    fn place(&self, file: BorrowedFd<'_>, offset: u64, bytes: u64) -> Result<(), SharedError> {
        let (offset, bytes) = (offset as usize, bytes as usize);
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes), "inside the mapping");
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        // SAFETY: the range lies in our own mapping (checked above), and what lies there is used through raw
        // pointers and atomics alone, if at all.
        let address = unsafe {
            let at = self.address.as_ptr().add(offset);
            libc::mmap(at.cast(), bytes, access, flags, file.as_raw_fd(), 0)
        };
        match address == libc::MAP_FAILED {
            true => Err(SharedError::Kernel { step: "mmap of a ring", error: io::Error::last_os_error() }),
            false => Ok(()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped this range, and whoever held pointers into it owned this mapping.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

fn memory_file(name: &str, bytes: u64) -> Result<OwnedFd, SharedError> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(kernel("memfd_create"))?;
    rustix::fs::ftruncate(&file, bytes).map_err(kernel("ftruncate"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(kernel("seal"))?;
    Ok(file)
}

/// A descriptor through which the file can only be mapped for reading.
fn read_only(file: &OwnedFd) -> Result<OwnedFd, SharedError> {
    // Nobody but us (and root) may open it anew, whatever they do with the descriptor they get.
    rustix::fs::fchmod(file, Mode::RUSR).map_err(kernel("fchmod"))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(kernel("reopen"))
}

/// Bytes of the file with the consumer's words and the ledgers.
fn consumer_file_bytes(geometry: &Geometry) -> u64 {
    let ledgers = (u64::from(geometry.cpus) * Ledger::BYTES).next_multiple_of(PAGE_BYTES as u64);
    geometry.consumer_bytes() + ledgers
}

/// Where a CPU's ring begins in the mapping of a set.
fn ring_offset(geometry: &Geometry, cpu: u32) -> u64 {
    PAGE_BYTES as u64 + u64::from(cpu) * geometry.ring_bytes()
}

/// The two files of a ring set, mapped.
pub struct RingMemory {
    set: Set,
    set_file: OwnedFd,
    consumer_file: OwnedFd,
    consumer_read_only: OwnedFd,
    // Behind `set`, which points into them.
    mappings: [Mapping; 2],
    /// Kind ebpf: the map behind each ring, by CPU; there once its CPU was online.
    maps: Vec<OnceLock<OwnedFd>>,
}

impl RingMemory {
    /// A new set.
    ///
    /// # Errors
    /// An impossible geometry, or no memory, descriptors or address space.
    pub fn create(geometry: Geometry, set_id: u64) -> Result<RingMemory, SharedError> {
        let geometry = geometry.checked()?;
        let set_file = memory_file("sillage-ring", geometry.set_bytes())?;
        let consumer_file = memory_file("sillage-consumer", consumer_file_bytes(&geometry))?;
        RingMemory::map(set_file, consumer_file, geometry, set_id, true)
    }

    /// A set that an earlier daemon made, from its two files.
    ///
    /// # Errors
    /// As `create`; also files that are too small for the geometry.
    pub fn adopt(
        set_file: OwnedFd,
        consumer_file: OwnedFd,
        geometry: Geometry,
        set_id: u64,
    ) -> Result<RingMemory, SharedError> {
        RingMemory::map(set_file, consumer_file, geometry.checked()?, set_id, false)
    }

    fn map(
        set_file: OwnedFd,
        consumer_file: OwnedFd,
        geometry: Geometry,
        set_id: u64,
        new: bool,
    ) -> Result<RingMemory, SharedError> {
        let rings = Mapping::new(set_file.as_fd(), geometry.set_bytes())?;
        let words = Mapping::new(consumer_file.as_fd(), consumer_file_bytes(&geometry))?;
        let make = if new { Set::create } else { Set::adopt };
        // SAFETY: both mappings have the bytes that the geometry asks for (zeroed if new: fresh memfds),
        // and live as long as the set, beside it in this struct.
        let set = unsafe { make(rings.address, words.address, geometry, set_id)? };
        let consumer_read_only = read_only(&consumer_file)?;
        let (mappings, maps) = ([rings, words], Vec::new());
        Ok(RingMemory { set, set_file, consumer_file, consumer_read_only, mappings, maps })
    }

    /// A set of the kind ebpf: each ring is the value of an eBPF array map of its own, new or taken
    /// back. CPUs without a map have a ring that nobody writes to.
    ///
    /// # Errors
    /// As `create`; also a map that is too small or cannot be mapped.
    pub fn from_maps(
        maps: Vec<(u32, OwnedFd)>,
        geometry: Geometry,
        set_id: u64,
    ) -> Result<RingMemory, SharedError> {
        let geometry = geometry.checked()?;
        let all = Mapping::reserve(geometry.set_bytes() as usize)?;
        let words = Mapping::reserve(consumer_file_bytes(&geometry) as usize)?;
        let set_file = memory_file("sillage-ring", PAGE_BYTES as u64)?;
        all.place(set_file.as_fd(), 0, PAGE_BYTES as u64)?;
        for (cpu, map) in maps.iter().filter(|(cpu, _)| *cpu < geometry.cpus) {
            all.place(map.as_fd(), ring_offset(&geometry, *cpu), geometry.ring_bytes())?;
        }
        // SAFETY: both mappings have the bytes that the geometry asks for and live as long as the set;
        // the header page is fresh, and a map's bytes are zero or as its programs left them.
        let set = unsafe { Set::create(all.address, words.address, geometry, set_id)? };
        maps.iter().filter(|(cpu, _)| *cpu < geometry.cpus).for_each(|(cpu, _)| set.activate(*cpu));
        let consumer_file = memory_file("sillage-consumer", PAGE_BYTES as u64)?;
        let consumer_read_only = read_only(&consumer_file)?;
        let mappings = [all, words];
        let slots: Vec<OnceLock<OwnedFd>> = (0..geometry.cpus).map(|_| OnceLock::new()).collect();
        for (cpu, map) in maps {
            // Of two for one CPU the first is mapped over; none for CPUs that cannot be.
            let _ = slots.get(cpu as usize).map(|slot| slot.set(map));
        }
        Ok(RingMemory { set, set_file, consumer_file, consumer_read_only, mappings, maps: slots })
    }

    /// Kind ebpf: the ring of a CPU that was not there before. False, and nothing done, if it has one.
    /// One thread at a time may call it.
    ///
    /// # Errors
    /// A map that cannot be mapped.
    pub fn add_map(&self, cpu: u32, map: OwnedFd) -> Result<bool, SharedError> {
        let Some(slot) = self.maps.get(cpu as usize).filter(|slot| slot.get().is_none()) else {
            return Ok(false);
        };
        let geometry = self.set.geometry();
        // Until the CPU is active nobody looks there, but for loss counts, which are zeroes before and after.
        self.mappings[0].place(map.as_fd(), ring_offset(geometry, cpu), geometry.ring_bytes())?;
        let is_new = slot.set(map).is_ok();
        self.set.activate(cpu);
        Ok(is_new)
    }

    /// Kind ebpf: CPU and map of each ring, which a restarted daemon needs for `from_maps`.
    pub fn maps(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        (0..).zip(&self.maps).filter_map(|(cpu, map)| Some((cpu, map.get()?.as_fd())))
    }

    /// The totals of this ring's packets.
    pub(crate) fn ledger(&self, cpu: u32) -> &Ledger {
        let geometry = self.set.geometry();
        assert!(cpu < geometry.cpus, "a ring of this set");
        let offset = geometry.consumer_bytes() + u64::from(cpu) * Ledger::BYTES;
        // SAFETY: `map` and `from_maps` mapped a ledger of integers' atomics for each ring behind the
        // consumer's words, which end at a page; the mapping lives as long as `self`.
        unsafe { self.mappings[1].address.add(offset as usize).cast::<Ledger>().as_ref() }
    }

    /// What producers get: the set (read-write) and the consumer's words (read-only).
    pub fn for_programs(&self) -> [BorrowedFd<'_>; 2] {
        [self.set_file.as_fd(), self.consumer_read_only.as_fd()]
    }

    /// Where the set and the consumer's words lie in this process, with their lengths in bytes.
    #[cfg(test)]
    pub(crate) fn mapped(&self) -> (*mut u8, u64, *const u8, u64) {
        let [set, words] = &self.mappings;
        (set.address.as_ptr(), set.bytes as u64, words.address.as_ptr(), words.bytes as u64)
    }

    /// Bytes of address space that it takes.
    pub fn mapped_bytes(&self) -> usize {
        self.mappings.iter().map(|mapping| mapping.bytes).sum()
    }

    /// What a restarted daemon needs for `adopt`.
    pub fn for_keeping(&self) -> [BorrowedFd<'_>; 2] {
        [self.set_file.as_fd(), self.consumer_file.as_fd()]
    }
}

impl Deref for RingMemory {
    type Target = Set;
    fn deref(&self) -> &Set {
        &self.set
    }
}

/// The clock page's file, mapped.
pub struct ClockMemory {
    file: OwnedFd,
    read_only: OwnedFd,
    mapping: Mapping,
}

impl ClockMemory {
    /// A new page, which says "ask the kernel".
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn create() -> Result<ClockMemory, SharedError> {
        ClockMemory::adopt(memory_file("sillage-clock", PAGE_BYTES as u64)?)
    }

    /// The page that an earlier daemon made.
    ///
    /// # Errors
    /// As `create`; also a file that is too small.
    pub fn adopt(file: OwnedFd) -> Result<ClockMemory, SharedError> {
        let mapping = Mapping::new(file.as_fd(), PAGE_BYTES as u64)?;
        Ok(ClockMemory { read_only: read_only(&file)?, file, mapping })
    }

    /// The page.
    pub fn page(&self) -> &ClockPage {
        // SAFETY: the mapping holds a page of integers' atomics and lives as long as `self`.
        unsafe { self.mapping.address.cast().as_ref() }
    }

    /// What programs get.
    pub fn for_programs(&self) -> BorrowedFd<'_> {
        self.read_only.as_fd()
    }

    /// What a restarted daemon needs for `adopt`.
    pub fn for_keeping(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A user's doorbell page, mapped.
pub struct DoorbellMemory {
    file: OwnedFd,
    mapping: Mapping,
}

impl DoorbellMemory {
    /// A new page.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn create() -> Result<DoorbellMemory, SharedError> {
        DoorbellMemory::adopt(memory_file("sillage-doorbell", PAGE_BYTES as u64)?)
    }

    /// The page that an earlier daemon made.
    ///
    /// # Errors
    /// As `create`; also a file that is too small.
    pub fn adopt(file: OwnedFd) -> Result<DoorbellMemory, SharedError> {
        let mapping = Mapping::new(file.as_fd(), PAGE_BYTES as u64)?;
        Ok(DoorbellMemory { file, mapping })
    }

    /// The page.
    pub fn doorbell(&self) -> &Doorbell {
        // SAFETY: the mapping holds a page of atomics and lives as long as `self`.
        unsafe { self.mapping.address.cast().as_ref() }
    }

    /// What programs get, and a restarted daemon needs.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Sleeps while `word` has the value `value`, at most `timeout_ns`; wakes early for any reason.
pub(crate) fn futex_wait(word: *const u32, value: u32, timeout_ns: u64) {
    let timeout = libc::timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the kernel checks the address itself; the timeout lives through the call.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, value, &raw const timeout) };
}

/// Wakes all that wait on `word`.
pub(crate) fn futex_wake_all(word: *const u32) {
    // SAFETY: the kernel checks the address itself.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use sillage_ring::{HeaderForm, Kind};

    fn geometry() -> Geometry {
        Geometry {
            kind: Kind::Locked,
            cpus: 1,
            subbuf_shift: 12,
            subbuf_count: 2,
            overwrite: false,
            ordered: false,
            header: HeaderForm::Large,
        }
    }

    fn try_map(file: BorrowedFd<'_>, protection: i32) -> Result<Mapping, i32> {
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        match NonNull::new(address.cast::<u8>()).filter(|_| address != libc::MAP_FAILED) {
            Some(address) => Ok(Mapping { address, bytes: 4096 }),
            None => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        }
    }

    #[test]
    fn programs_can_neither_write_the_consumers_words_nor_shrink_the_rings() {
        let memory = RingMemory::create(geometry(), 1).unwrap();
        let [set, words] = memory.for_programs();
        assert!(rustix::fs::ftruncate(set, 0).is_err(), "sealed");
        let write = libc::PROT_READ | libc::PROT_WRITE;
        assert_eq!(try_map(words, write).err(), Some(libc::EACCES));
        let page = try_map(words, libc::PROT_READ).unwrap();
        // SAFETY: the page was just mapped by `try_map`.
        let raised = unsafe { libc::mprotect(page.address.as_ptr().cast(), 4096, write) };
        assert_eq!(raised, -1, "a read-only mapping stays one");
    }

    #[test]
    fn a_second_daemon_can_take_a_set_back_for_writing() {
        let memory = RingMemory::create(geometry(), 7).unwrap();
        let [set, words] = memory.for_keeping().map(|fd| fd.try_clone_to_owned().unwrap());
        drop(memory);
        let again = RingMemory::adopt(set, words, geometry(), 7).unwrap();
        assert_eq!(again.set_id(), 7);
        assert_eq!(again.active().count(), 0);
    }
}
