//! CTF 1.8 and CTF 2: metadata, decode programs, packets, indexes, clocks, and writing them.

pub mod index;
pub mod model;
pub mod packet;
