//! The ring: per-CPU sub-buffers of CTF event records in shared memory, written by producers that
//! publish each record with one store, read by one consumer that makes the packets.
//!
//! Terms, positions and the whole contract are drawn in `layout`; the rules that producers and the
//! consumer keep are in `producer` and `consumer`; the time that records carry is in `clock`.
//!
//! Guarantees (each has its test):
//! 1. bytes below the readable limit never change until they are released (discard mode) or until
//!    `opening` has announced that they will be overwritten (overwrite mode);
//! 2. timestamps of a ring never decrease, and lie inside their packet's begin and end;
//! 3. one producer kind alone stores the head of a ring, for life;
//! 4. every record staged while enabled is published once or counted once;
//! 5. the consumer never waits for a producer and uses no producer word unchecked;
//! 6. a CPU that records nothing costs no page.
//!
//! The crate works on memory, a clock and a CPU number that it is given: it maps nothing, calls no
//! system call, spawns no thread, and the producer neither allocates nor blocks. Waiting for room
//! and ringing the doorbell are its caller's.
#![no_std]

extern crate alloc;
#[cfg(any(test, loom))]
extern crate std;

pub mod clock;
pub mod consumer;
pub mod geometry;
pub mod layout;
#[cfg(all(loom, test))]
mod model_check;
mod primitive;
pub mod producer;
pub mod set;

pub use clock::{ClockPage, Slot};
pub use consumer::{Cursor, Cut, Packet, Violation};
pub use geometry::{Geometry, HeaderForm, Kind};
pub use producer::{Emit, Host, Producer, STAGE_HEAD_BYTES, STAGE_TAIL_BYTES};
pub use set::{MapError, Set};
