//! How soon a trace can be looked at: `seek PATH`.
//!
//! In lines of a name and milliseconds: from nothing to the first event, and the median and the
//! longest of seeks to times all over the trace, each with the first event from there on.

use std::path::PathBuf;
use std::time::Instant;

use sillage_pipeline::{Error, Messages};

/// Times that are sought.
const SEEKS: i64 = 41;

fn main() -> Result<(), Error> {
    let path = std::env::args().nth(1).ok_or_else(|| Error::Other("seek PATH".to_owned()))?;
    let start = Instant::now();
    let source = sillage_pipeline::open(PathBuf::from(path))?;
    let mut messages = source.messages();
    let first = messages.next_event()?.and_then(|event| event.clock).and_then(|clock| clock.ns);
    let opened_ms = start.elapsed().as_secs_f64() * 1e3;
    let begin = first.ok_or_else(|| Error::Other("no event with a time".to_owned()))?;
    let ranges = source.stream_ranges()?;
    let end = ranges.iter().filter_map(|range| range.ns).map(|range| range.1).max().unwrap_or(begin);
    let mut times_ms = Vec::new();
    for number in 0..SEEKS {
        // Not in order: 17 has no factor in common with the count.
        let ns = begin + (end - begin) / SEEKS * (number * 17 % SEEKS);
        let start = Instant::now();
        messages.seek(ns)?;
        let found = messages.next_event()?.and_then(|event| event.clock).and_then(|clock| clock.ns);
        times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        if found.is_some_and(|found| found < ns) {
            return Err(Error::Other(format!("sought {ns}, found {found:?}")));
        }
    }
    times_ms.sort_by(f64::total_cmp);
    println!("first {opened_ms:.3}");
    println!("median {:.3}", times_ms[times_ms.len() / 2]);
    println!("longest {:.3}", times_ms[times_ms.len() - 1]);
    Ok(())
}
