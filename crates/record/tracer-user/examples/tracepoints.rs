//! A Rust program with tracepoints: two are declared, and recorded whenever a session wants them.
//!
//! `tracepoints [COUNT]` handles that many requests.

use sillage_tracer_user::{event, tracepoint};

tracepoint! {
    /// A request came in.
    pub REQUEST = shop:request(id: u64, user: &str, items: &[u32]), loglevel = INFO;
    /// A request was answered.
    pub ANSWER = shop:answer(id: u64, ok: bool, checksum: [u8; 4], cost: f64);
}

fn main() {
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(3);
    for id in 0..count {
        event!(REQUEST, id, "bob", &[1, 2, 3]);
        event!(ANSWER, id, id % 2 == 0, (id as u32).to_le_bytes(), id as f64 / 2.0);
    }
}
