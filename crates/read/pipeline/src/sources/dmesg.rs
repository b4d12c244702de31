//! Lines of the kernel's log, as dmesg(1) prints them: Babeltrace's `source.text.dmesg`.
//!
//! Each line that is not empty is an event `string` with a payload of one text, `str`. Times are
//! `[SECONDS.MICROSECONDS]` or `[YYYY-MM-DD HH:MM:SS.MICROSECONDS]` in front of it; whether there
//! are times at all is decided by the first line. A line without one, among others that have one,
//! is given the time of the line before. The stream has no packets. A line is held in memory, never
//! more; one that is longer than [`LINE_BYTES_MAX`] becomes several.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sillage_ctf::message::{Event, Message, StreamEdge};
use sillage_ctf::model::{ClockClass, ClockSnapshot, Stream, Trace, TraceClass};
use sillage_ctf::{MetadataOptions, MetadataReader, PacketDecoder};

use crate::{Error, Messages, Status};

/// Longest line that is one event.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// What to make of the fraction in `[YYYY-MM-DD HH:MM:SS.MICROSECONDS]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DateFraction {
    /// Microseconds.
    #[default]
    Microseconds,
    /// What Babeltrace makes of it: a thousand times as much.
    AsBabeltrace,
}

/// How to read the log.
#[derive(Debug, Clone, Default)]
pub struct DmesgOptions {
    /// The file; none is standard input.
    pub path: Option<PathBuf>,
    /// Leave times where they are, in the text.
    pub no_extract_timestamp: bool,
    /// Fractions of dates.
    pub date_fraction: DateFraction,
}

const METADATA: &str = "/* CTF 1.8 */
trace { major = 1; minor = 8; byte_order = le; };
clock { name = dmesg; freq = 1000000000; };
stream { event.header := struct {
	integer { size = 64; align = 8; signed = false; map = clock.dmesg.value; } timestamp;
}; };
event { name = \"string\"; fields := struct { string str; }; };
";

const METADATA_WITHOUT_TIMES: &str = "/* CTF 1.8 */
trace { major = 1; minor = 8; byte_order = le; };
stream { };
event { name = \"string\"; fields := struct { string str; }; };
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    StreamBegin,
    Event,
    StreamEnd,
    Done,
}

/// The log as messages.
pub struct Dmesg {
    input: Box<dyn BufRead + Send>,
    name: PathBuf,
    options: DmesgOptions,
    stream: Arc<Stream>,
    decoder: PacketDecoder,
    at: At,
    line: Vec<u8>,
    /// The first line, read to see what there is.
    peeked: bool,
    record: Vec<u8>,
    clock: u64,
}

impl std::fmt::Debug for Dmesg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dmesg").field("name", &self.name).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Dmesg {
    /// Opens the log and reads its first line.
    ///
    /// # Errors
    /// A file that can not be read.
    pub fn open(options: DmesgOptions) -> Result<Self, Error> {
        let (input, name): (Box<dyn BufRead + Send>, _) = match &options.path {
            Some(path) => {
                let file = File::open(path).map_err(|error| Error::io(path, error))?;
                (Box::new(BufReader::with_capacity(1 << 16, file)), path.clone())
            }
            None => (Box::new(BufReader::new(std::io::stdin())), PathBuf::from("STDIN")),
        };
        Self::of(input, name, options)
    }

    /// Reads the log from anywhere; `name` is its name for people.
    ///
    /// # Errors
    /// Input that can not be read.
    pub fn of(input: Box<dyn BufRead + Send>, name: PathBuf, options: DmesgOptions) -> Result<Self, Error> {
        let mut line = Vec::new();
        let mut input = input;
        let peeked = next_line(&mut *input, &name, &mut line)?;
        let timed = peeked && !options.no_extract_timestamp && split(&line, options.date_fraction).is_some();
        let stream = Arc::new(stream(&name, timed)?);
        let decoder = PacketDecoder::new();
        let at = if peeked { At::Start } else { At::Done };
        Ok(Self { input, name, options, stream, decoder, at, line, peeked, record: Vec::new(), clock: 0 })
    }

    fn next_event(&mut self) -> Result<Status, Error> {
        if !std::mem::take(&mut self.peeked) && !next_line(&mut *self.input, &self.name, &mut self.line)? {
            self.at = At::StreamEnd;
            return Ok(Status::Ready);
        }
        let timed = self.stream.class.clock.is_some();
        let mut text = self.line.as_slice();
        self.record.clear();
        if timed {
            if let Some((ns, rest)) = split(&self.line, self.options.date_fraction) {
                self.clock = ns;
                text = rest;
            }
            self.record.extend_from_slice(&self.clock.to_le_bytes());
        }
        // A NUL would end the text in the record too.
        text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        self.record.extend_from_slice(text);
        self.record.push(0);
        let place = |source| Error::Decode { path: self.name.clone(), packet: 0, offset_bytes: 0, source };
        self.decoder.start(&self.stream.trace.class, &self.record).map_err(place)?;
        self.decoder.next_event(&self.stream.class, &self.record).map_err(place)?;
        self.at = At::Event;
        Ok(Status::Ready)
    }

    fn snapshot(&self) -> Option<ClockSnapshot> {
        let clock = self.stream.class.clock.as_ref()?;
        Some(ClockSnapshot { cycles: self.clock, ns: clock.ns_from_origin(self.clock) })
    }
}

impl Messages for Dmesg {
    fn advance(&mut self) -> Result<Status, Error> {
        match self.at {
            At::Start => self.at = At::StreamBegin,
            At::StreamBegin | At::Event => {
                let result = self.next_event();
                if result.is_err() {
                    self.at = At::Done;
                }
                return result;
            }
            At::StreamEnd | At::Done => {
                self.at = At::Done;
                return Ok(Status::End);
            }
        }
        Ok(Status::Ready)
    }

    fn current(&self) -> Option<Message<'_>> {
        let edge = || StreamEdge { stream: &self.stream, clock: None };
        match self.at {
            At::StreamBegin => Some(Message::StreamBegin(edge())),
            At::StreamEnd => Some(Message::StreamEnd(edge())),
            At::Event => {
                let event = Event::of_decoder(&self.stream, self.snapshot(), &self.record, &self.decoder);
                event.map(Message::Event)
            }
            At::Start | At::Done => None,
        }
    }
}

/// The stream of a log, with a clock that has no name.
fn stream(name: &Path, timed: bool) -> Result<Stream, Error> {
    let text = if timed { METADATA } else { METADATA_WITHOUT_TIMES };
    let read = MetadataReader::read(text.as_bytes(), MetadataOptions::default());
    let class = read.map_err(|source| Error::Metadata { path: name.to_path_buf(), source })?;
    let class = Arc::new(without_clock_name(&class));
    let [stream_class] = class.stream_classes.as_slice() else {
        return Err(Error::NoTrace(name.to_path_buf()));
    };
    let stream_class = Arc::clone(stream_class);
    let base = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned();
    let trace = Arc::new(Trace { index: 0, class, name: Some(base) });
    Ok(Stream { index: 0, trace, class: stream_class, id: 0, name: None })
}

fn without_clock_name(class: &TraceClass) -> TraceClass {
    let mut class = class.clone();
    let nameless = |clock: &Arc<ClockClass>| Arc::new(ClockClass { name: None, ..(**clock).clone() });
    class.clocks = class.clocks.iter().map(nameless).collect();
    for stream in &mut class.stream_classes {
        let own = Arc::make_mut(stream);
        own.clock = own.clock.as_ref().map(nameless);
    }
    class
}

/// Reads the next line that is not blank, without its end; false when there is none.
fn next_line(input: &mut dyn BufRead, name: &Path, line: &mut Vec<u8>) -> Result<bool, Error> {
    loop {
        line.clear();
        let count =
            input.take(LINE_BYTES_MAX).read_until(b'\n', line).map_err(|error| Error::io(name, error))?;
        if count == 0 {
            return Ok(false);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if !line.iter().all(u8::is_ascii_whitespace) {
            return Ok(true);
        }
    }
}

/// The time in front of a line, in nanoseconds, and the text behind it.
fn split(line: &[u8], fraction: DateFraction) -> Option<(u64, &[u8])> {
    let inside = line.strip_prefix(b"[")?;
    let close = inside.iter().position(|byte| *byte == b']')?;
    let ns = seconds(inside).or_else(|| date(inside, fraction))?;
    let rest = &inside[close + 1..];
    Some((ns, rest.strip_prefix(b" ").unwrap_or(rest)))
}

/// As `scanf` reads an unsigned number: after blanks, saturating.
fn number(text: &mut &[u8]) -> Option<u64> {
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let digits = text[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let (number, rest) = text[start..].split_at(digits);
    *text = rest;
    let step = |value: u64, digit: &u8| value.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(number.iter().fold(0, step))
}

/// `SECONDS.MICROSECONDS`: what is behind the point is a number, not a fraction, as for Babeltrace.
fn seconds(text: &[u8]) -> Option<u64> {
    let mut text = text;
    let seconds = number(&mut text)?;
    text = text.strip_prefix(b".")?;
    let micros = number(&mut text)?;
    seconds.checked_mul(1_000_000)?.checked_add(micros)?.checked_mul(1_000)
}

/// `YYYY-MM-DD HH:MM:SS.MICROSECONDS`, in UTC.
fn date(text: &[u8], fraction: DateFraction) -> Option<u64> {
    let mut text = text;
    let mut parts = [0u64; 7];
    for (part, end) in parts.iter_mut().zip(["-", "-", "", ":", ":", ".", ""]) {
        *part = number(&mut text)?;
        text = text.strip_prefix(end.as_bytes())?;
    }
    let [year, month, day, hour, minute, second, micros] = parts;
    let small = |value: u64| i8::try_from(value).ok();
    let time = jiff::civil::DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        small(second)?,
        0,
    );
    let at = time.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    let unit_ns = match fraction {
        DateFraction::Microseconds => 1_000,
        DateFraction::AsBabeltrace => 1_000_000,
    };
    let whole = u64::try_from(at).ok()?.checked_mul(1_000_000_000)?;
    whole.checked_add(micros.checked_mul(unit_ns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, want: Option<(u64, &str)>) {
        let got = split(line.as_bytes(), DateFraction::Microseconds);
        assert_eq!(got, want.map(|(ns, text)| (ns, text.as_bytes())), "{line}");
    }

    #[test]
    fn times() {
        check("[    1.500000] hello", Some((1_500_000_000, "hello")));
        check("[4.25]x", Some((4_000_025_000, "x")));
        check("[ 1.5 ]y", Some((1_000_005_000, "y")));
        check("[    7.123456789] n", Some((130_456_789_000, "n")));
        check("[1.2] a[1] b", Some((1_000_002_000, "a[1] b")));
        check("[8.5]", Some((8_000_005_000, "")));
        check("[2017-01-01 10:00:00.123456] d", Some((1_483_264_800_123_456_000, "d")));
        for none in ["", "x", "  [3.2] x", "<6>[ 5.1] x", "[9.a] x", "[1.2", "[99999999999999999999.1] x"] {
            check(none, None);
        }
    }
}
