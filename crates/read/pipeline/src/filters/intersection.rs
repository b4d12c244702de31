//! The time during which all streams of a trace were active.

use crate::sinks::Zone;
use crate::sources::{FilePackets, Muxer, Source, StreamRange};
use crate::{Error, filters::Bound};

use super::{Merge, Trimmer};

/// The messages of a source inside the intersection of each trace's streams.
pub type Intersection = Merge<Trimmer<Muxer<FilePackets>>>;

/// Cuts each stream to the time in which all streams of its trace were active, and merges them.
///
/// # Errors
/// A stream whose packets have no times, streams that have no common time, an unreadable file.
pub fn intersect(source: &Source) -> Result<Intersection, Error> {
    Ok(Merge::new(intersect_streams(source)?))
}

/// As [`intersect`], each stream by itself.
///
/// # Errors
/// As [`intersect`].
pub fn intersect_streams(source: &Source) -> Result<Vec<Trimmer<Muxer<FilePackets>>>, Error> {
    let ranges = source.stream_ranges()?;
    for trace in source.traces() {
        if !ranges.iter().any(|range| range.stream.trace.index == trace.index) {
            return Err(Error::Other("trace has no streams: there is no intersection".into()));
        }
    }
    let mut trimmed = Vec::new();
    for (stream, messages) in source.messages_by_stream() {
        let (begin, end) = common(&ranges, stream.trace.index)?;
        trimmed.push(Trimmer::new(messages, Some(Bound::Ns(begin)), Some(Bound::Ns(end)), Zone::Utc)?);
    }
    Ok(trimmed)
}

/// Latest begin and earliest end of the streams of a trace.
fn common(ranges: &[StreamRange], trace: usize) -> Result<(i64, i64), Error> {
    let mut whole = (i64::MIN, i64::MAX);
    for range in ranges.iter().filter(|range| range.stream.trace.index == trace) {
        let Some((begin, end)) = range.ns else {
            let name = range.stream.name.clone().unwrap_or_default();
            let text = format!("packets of stream \"{name}\" have no times: its intersection is not known");
            return Err(Error::Other(text));
        };
        whole = (whole.0.max(begin), whole.1.min(end));
    }
    Ok(whole)
}
