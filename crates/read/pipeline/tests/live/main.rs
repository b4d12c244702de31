//! The live source against recorded relays, a relay made of upstream's scripts, and a real one.

mod daemons;
mod fake;
mod real;
mod recorded;
mod scripts;
mod support;
mod transcripts;
