//! Counters of perf as contexts: `perf:cpu:NAME`, and `perf:cpu:raw:rHEX:NAME`.
//!
//! One event for each CPU that is online, in a map that programs read the current CPU's from.

use super::{Context, ContextError};
use crate::recipe::{Expr, Field, Source, Type, U64};
use crate::sys::{self, MapKind, MapSpec, SysError, number};
use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};

/// The descriptors of a counter. It counts as long as this lives or a program uses it.
#[derive(Debug)]
pub struct Counter {
    _map: OwnedFd,
    _events: Vec<OwnedFd>,
}

const HARDWARE: u32 = 0;
const SOFTWARE: u32 = 1;
const CACHE: u32 = 3;
const RAW: u32 = 4;

/// Kinds that have a number of their own, by LTTng's names and their other names.
const EVENTS: &[(&str, u32, u64)] = &[
    ("cpu-cycles", HARDWARE, 0),
    ("cycles", HARDWARE, 0),
    ("instructions", HARDWARE, 1),
    ("cache-references", HARDWARE, 2),
    ("cache-misses", HARDWARE, 3),
    ("branch-instructions", HARDWARE, 4),
    ("branches", HARDWARE, 4),
    ("branch-misses", HARDWARE, 5),
    ("bus-cycles", HARDWARE, 6),
    ("stalled-cycles-frontend", HARDWARE, 7),
    ("idle-cycles-frontend", HARDWARE, 7),
    ("stalled-cycles-backend", HARDWARE, 8),
    ("idle-cycles-backend", HARDWARE, 8),
    ("cpu-clock", SOFTWARE, 0),
    ("task-clock", SOFTWARE, 1),
    ("page-fault", SOFTWARE, 2),
    ("faults", SOFTWARE, 2),
    ("context-switches", SOFTWARE, 3),
    ("cs", SOFTWARE, 3),
    ("cpu-migrations", SOFTWARE, 4),
    ("migrations", SOFTWARE, 4),
    ("minor-faults", SOFTWARE, 5),
    ("major-faults", SOFTWARE, 6),
    ("alignment-faults", SOFTWARE, 7),
    ("emulation-faults", SOFTWARE, 8),
];
/// Caches in the order of their numbers.
const CACHES: [&str; 6] = ["L1-dcache", "L1-icache", "LLC", "dTLB", "iTLB", "branch"];
/// What is counted about a cache: operation and result.
const USES: [(&str, u64, u64); 6] = [
    ("loads", 0, 0),
    ("load-misses", 0, 1),
    ("stores", 1, 0),
    ("store-misses", 1, 1),
    ("prefetches", 2, 0),
    ("prefetch-misses", 2, 1),
];

/// Whether the real tracer lists this use of a cache.
fn listed(cache: &str, operation: u64) -> bool {
    !matches!((cache, operation), ("iTLB" | "branch", 1..))
}

/// Names as `add-context --list` has them.
pub(super) fn names() -> impl Iterator<Item = String> {
    let plain = EVENTS.iter().map(|(name, ..)| format!("perf:cpu:{name}"));
    let caches = CACHES.iter().flat_map(|cache| {
        let uses = USES.iter().filter(move |(_, operation, _)| listed(cache, *operation));
        uses.map(move |(use_of, ..)| format!("perf:cpu:{cache}-{use_of}"))
    });
    plain.chain(caches)
}

/// Kind and number of an event.
fn config(event: &str) -> Option<(u32, u64)> {
    if let Some((_, kind, config)) = EVENTS.iter().find(|(name, ..)| *name == event) {
        return Some((*kind, *config));
    }
    if let Some(raw) = event.strip_prefix("raw:r") {
        let (hex, name) = raw.split_once(':')?;
        return Some((RAW, u64::from_str_radix(hex, 16).ok().filter(|_| !name.is_empty())?));
    }
    CACHES.iter().enumerate().find_map(|(number, cache)| {
        let use_of = event.strip_prefix(cache)?.strip_prefix('-')?;
        let (_, operation, result) = USES.iter().find(|(name, ..)| *name == use_of)?;
        listed(cache, *operation).then_some((CACHE, number as u64 | operation << 8 | result << 16))
    })
}

/// Opens the counter on every CPU.
pub(super) fn open(name: &str, event: &str) -> Result<Context, ContextError> {
    let (kind, config) = config(event).ok_or_else(|| ContextError::Unknown { name: name.into() })?;
    let unavailable =
        |error: SysError| ContextError::Unavailable { name: name.into(), reason: error.to_string() };
    let (cpus, online) = sys::cpus();
    let map = sys::create_map(&MapSpec {
        kind: MapKind::PerfEvents,
        value_bytes: 4,
        entries: cpus,
        mappable: false,
        inner: None,
        name: "counter",
    })
    .map_err(unavailable)?;
    let mut events = Vec::new();
    for cpu in online {
        let event = sys::open_counter(kind, config, cpu).map_err(unavailable)?;
        sys::set_inner(map.as_fd(), cpu, event.as_fd()).map_err(unavailable)?;
        events.push(event);
    }
    let called = event.rsplit(':').next().unwrap_or(event).replace('-', "_");
    let field = Field {
        name: Cow::Owned(format!("perf_cpu_{called}")),
        ty: Type::Int(U64),
        from: Source::Kernel(Expr::Counter(number(&map))),
    };
    Ok(Context { field, counter: Some(Counter { _map: map, _events: events }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_has_an_event() {
        let names: Vec<String> = names().collect();
        names.iter().for_each(|name| assert!(config(&name["perf:cpu:".len()..]).is_some(), "{name}"));
        assert_eq!(config("dTLB-store-misses"), Some((CACHE, 3 | 1 << 8 | 1 << 16)));
        assert_eq!(config("raw:r1a8:uops"), Some((RAW, 0x1a8)));
        assert_eq!((config("raw:r1a8:"), config("iTLB-stores")), (None, None));
    }
}
