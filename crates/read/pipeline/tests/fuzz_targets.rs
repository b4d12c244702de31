//! The fuzz targets on their seeds and on some changes of them, so that every run of the tests sees
//! that they still hold; see `fuzz/` for the search with coverage.

#[path = "../../../../fuzz/src/lib.rs"]
#[allow(dead_code, missing_docs, reason = "made for another crate")]
mod fuzz;

#[test]
fn every_target_survives() {
    fuzz::smoke::every_target(1);
}
