//! The in-process tracer: it registers the program's tracepoints with the session daemons, and puts
//! events into the rings that they hand out.
//!
//! **On the traced thread nothing here allocates, locks, logs, panics or calls the kernel**, with
//! the exceptions of the design's §3.13: blocking mode waits because its user asked for it; the
//! first event of a thread maps its staging memory; a sub-buffer that was opened may ring the
//! doorbell. Whatever cannot be recorded is counted in the ring, with the reason.
//!
//! How it hangs together:
//! - `site`: a call site and its probes, in the shape that LTTng-UST's call sites have, which the
//!   Rust API shares; `registry`: which sites, which events, what is enabled;
//! - `thread`: what each thread has (staging levels for nested signal handlers); `rcu`: the read
//!   side that call sites run in, and grace periods;
//! - `channel`: mapped rings, and what happens after an event is staged;
//! - `listener`: the one thread of ours, with its `connection`s to the daemons and the `watch` for
//!   daemons that come later; `fork`: what a child keeps;
//! - `text`: copying strings and bytes into a payload; `api` and `field`: `tracepoint!` for Rust programs.
//!
//! `sillage-tracer-user-abi` puts LTTng-UST's C interface in front of this crate. The crate is
//! `no_std` with `alloc`; it allocates on the listener's thread alone.
#![no_std]

extern crate alloc;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64")))]
compile_error!("the in-process tracer supports x86-64 Linux alone for now");

pub mod api;
pub mod channel;
pub mod clock;
mod connection;
pub mod field;
pub mod fork;
pub mod listener;
pub mod lock;
pub mod rcu;
pub mod registry;
pub mod settings;
pub mod site;
pub mod start;
pub mod sys;
pub mod text;
pub mod thread;
mod watch;
