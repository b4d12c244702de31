//! The project commands: `cargo xtask demo|test|bench`.
fn main() {}
