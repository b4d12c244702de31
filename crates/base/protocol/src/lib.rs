//! The wire types between our own parts: programs and the session daemon (`program`), the command
//! line and the session daemon (`control`), and where their sockets lie (`paths`).
//!
//! Guarantee: decoding never panics, never reads past its bytes and never allocates by a length
//! that it has not checked against what is there. Nothing here opens a socket. The crate is
//! `no_std` with `alloc`, because the in-process tracer speaks `program`.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod codec;
#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "live")]
pub mod live;
pub mod paths;
pub mod program;
