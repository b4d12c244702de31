//! Every target on its seeds and on random changes of them, for a few seconds each.

#[test]
fn every_target_survives() {
    sillage_fuzz::smoke::every_target(3);
}
