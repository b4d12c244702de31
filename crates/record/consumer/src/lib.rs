//! From rings to trace files: the only reader of ring memory, and the only writer of streams.
//!
//! One [`Consumer`] thread for each user sleeps on that user's doorbell, cuts packets out of the
//! rings ([`feed`]) and writes them with LTTng's headers and indexes ([`stream`]) through a [`Disk`]
//! that tests can fill up. Around it stands what the rings need from the kernel: sealed shared
//! memory ([`shared`]), the clock page's publisher ([`clock`]) and signals as a descriptor
//! ([`signals`]).
//!
//! Guarantees: a stream file ends with its last whole packet, and its index never names more; what
//! cannot be written is counted and the session goes on; a ring that lies is retired with its
//! reason; no producer is ever waited for; a worker that takes over goes on with the counts of the one
//! before ([`ledger`]). It looks inside a packet only to say how many records were lost with it, and
//! knows no sessions.

pub mod clock;
pub mod disk;
#[cfg(feature = "fake")]
pub mod fake;
pub mod feed;
pub mod ledger;
pub mod repair;
pub mod shared;
pub mod signals;
pub mod stream;
mod tally;
mod thread;

pub use clock::ClockPublisher;
pub use disk::{Disk, Files};
pub use feed::{Counters, CountersSnapshot, Feed};
pub use shared::{ClockMemory, DoorbellMemory, RingMemory, SharedError};
pub use stream::Place;
pub use thread::{Command, Consumer, Finished, TROUBLE_TICKET, Urgency, may_be_urgent};
