//! The kernel tracer: LTTng's kernel events without a module. For each enabled event an eBPF program is
//! generated from a recipe and the running kernel's own types, loaded, and attached; it writes CTF
//! records straight into per-CPU rings that the consumer reads like any other.
//!
//! ```text
//!  events/*.rs ─┐                       BTF, tracefs
//!  format.rs ───┴─► recipe ──► code ──► program ──► sys (bpf) ──► kernel ──► rings ──► consumer
//!                      └─────► metadata                                       │
//!                                             bell ◄── a note for each sub-buffer
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`recipe`] | an event as data: names, types, where values come from; contexts are fields too |
//! | [`events`] | the tables, a file for each subsystem |
//! | [`syscalls`] | system calls: their tables, both ends of each as an event |
//! | [`dispatch`] | one hook for all system calls, which goes to the program of each |
//! | [`late`] | strings that were not in memory at entry, read again at exit |
//! | [`contexts`] | fields in front of every event's: of the current task, call stacks, counters |
//! | [`filters`] | LTTng's filter language as guards in front of a record |
//! | [`trackers`] | whom a session follows, as a guard whose sets change while it is attached |
//! | [`statedump`] | what the machine looks like when recording begins |
//! | [`probes`] | events at places in programs' and the kernel's code |
//! | [`format`] | a recipe from a tracepoint's record format, for what has no table |
//! | [`code`] | values and fields as instructions; what custom emitters write with |
//! | [`program`] | guards (filters), reserve, header, commit: the ring contract's kind ebpf |
//! | [`guard`] | who is left out of a channel |
//! | [`kernel`] | what the running kernel offers |
//! | [`catalogue`] | all events of the running kernel by LTTng's names |
//! | [`channel`] | rings and programs of one channel: enable, disable, losses |
//! | [`bell`] | wakes the consumer when a sub-buffer is full |
//! | [`metadata`] | the trace's description in LTTng's words |
//! | [`tracefs`] | the other back end: the kernel's own tracing, transcoded, where eBPF cannot be had |
//! | `records` | programs on what the kernel's own tracing records |
//! | [`rights`] | why the kernel said no, and what mends it |
//! | [`parallel`] | loads on all processors |
//! | [`sys`] | the few calls of bpf(2), with errors that name what is missing |
//!
//! Nothing is pinned: what is attached hangs on descriptors of this process and ends with it. It knows
//! no sessions and writes no files.

pub mod bell;
pub mod catalogue;
pub mod channel;
pub mod code;
pub mod contexts;
pub mod dispatch;
pub mod events;
pub mod filters;
pub mod format;
pub mod guard;
pub mod kernel;
pub mod late;
pub mod metadata;
pub mod parallel;
pub mod probes;
pub mod program;
pub mod recipe;
mod records;
pub mod rights;
pub mod statedump;
pub mod sys;
pub mod syscalls;
pub mod tracefs;
pub mod trackers;

pub use bell::Bell;
pub use catalogue::{Catalogue, CatalogueError};
pub use channel::{Channel, Loss, Prepared, TracerError};
pub use code::{Code, GenerateError};
pub use kernel::{BackEnd, Kernel};
pub use recipe::{Field, Hook, Recipe};
