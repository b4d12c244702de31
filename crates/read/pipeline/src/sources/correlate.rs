//! Whether streams' clocks can be put in one order.
//!
//! They can when they count from the same origin or are known to be the same clock; CTF 1.8 clocks
//! without a UUID are taken for the same, as Babeltrace 2.0 does. Streams without a clock fit to
//! any: their messages come as they are reached. Nothing is converted here.

use std::sync::Arc;

use sillage_ctf::model::{CtfVersion, Stream};

/// Why the streams' messages can not be put in one order, in words; `None` when they can.
pub(super) fn refusal<'a>(streams: impl Iterator<Item = &'a Arc<Stream>>) -> Option<String> {
    let mut timed = streams.filter(|stream| stream.class.clock.is_some());
    let first = timed.next()?;
    let other = timed.find(|other| !correlate(first, other))?;
    let name = |stream: &Stream| {
        let clock = stream.class.clock.as_ref().map(|clock| clock.id.clone()).unwrap_or_default();
        let stream = stream.name.clone().unwrap_or_else(|| format!("stream {}", stream.id));
        format!("`{clock}` of {stream}")
    };
    Some(format!(
        "the clocks {} and {} can not be correlated: they have no common origin and no common UUID. \
         Give --clock-force-correlate to take them for one.",
        name(first),
        name(other),
    ))
}

fn correlate(first: &Stream, other: &Stream) -> bool {
    let (Some(clock), Some(foreign)) = (&first.class.clock, &other.class.clock) else {
        return true;
    };
    let is_old = |stream: &Stream| stream.trace.class.version == CtfVersion::V1_8;
    let nameless = clock.origin == foreign.origin && clock.uuid.is_none() && foreign.uuid.is_none();
    Arc::ptr_eq(clock, foreign)
        || clock.correlates_with(foreign)
        || (nameless && is_old(first) && is_old(other))
}
