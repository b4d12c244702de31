//! Fuzz targets of everything that reads what others wrote, and their seeds.
//!
//! Each target takes any bytes and must return: no panic, no endless loop, no allocation by a
//! length that was not checked. `cargo fuzz run NAME` (with `RUSTC_BOOTSTRAP=1`) searches with
//! coverage and the address sanitizer; `cargo run --bin seeds` writes the corpus that it starts
//! from; `cargo test --no-default-features` runs every target on the seeds and on random changes of
//! them for a few seconds, without any of that (the tests of `sillage-pipeline` do so too).

pub mod seeds;
pub mod smoke;
pub mod targets;

/// A target and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 9] = [
    ("tsdl", targets::tsdl),
    ("json", targets::json),
    ("packets", targets::packets),
    ("index", targets::index),
    ("live", targets::live),
    ("filter", targets::filter),
    ("program", targets::program),
    ("dmesg", targets::dmesg),
    ("btf", targets::btf),
];
