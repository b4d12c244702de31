//! Makes a long trace out of a short one of LTTng's: `repeat COUNT INPUT OUTPUT`.
//!
//! Every packet is written COUNT times, each time later by the same multiple of 2^32 cycles, so
//! that the short timestamps in the event headers stay what they are; the long ones, the packets'
//! times and sequence numbers are moved. LTTng's index files are written beside. What comes out is
//! a trace like any other, with every byte on disk.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sillage_ctf::index::{Entry, Header, UNKNOWN};
use sillage_ctf::model::{CtfVersion, Scope};
use sillage_ctf::writer::{PacketValues, PacketWriter, TraceWriter, patch_packet};
use sillage_ctf::{Event, Message, PacketInfo, Value};
use sillage_pipeline::sources::Source;
use sillage_pipeline::{Error, Messages, Status};

/// A packet of the input.
struct Original {
    info: PacketInfo,
    bytes: Vec<u8>,
    /// Its head, for each of the copies.
    heads: Vec<Vec<u8>>,
    /// Offsets in bytes of the 64-bit times in its records.
    times: Vec<usize>,
}

fn other(text: impl Into<String>) -> Error {
    Error::Other(text.into())
}

/// Where the 64-bit time of a record with an extended header is.
fn long_time(event: &Event<'_>) -> Result<Option<usize>, Error> {
    let header = event.scope(Scope::EventHeader).ok_or_else(|| other("events without header"))?;
    let variant = header.get("v").ok_or_else(|| other("not LTTng's event header"))?;
    let Value::Variant(_, Some(option)) = variant.value() else {
        return Err(other("not LTTng's event header"));
    };
    if option.get("id").is_none() {
        return Ok(None);
    }
    let at = (event.record_bits().0 / 8) as usize;
    let cycles = event.clock.map_or(0, |clock| clock.cycles);
    // After 5 bits or 2 bytes of short id and 4 bytes of long one.
    [at + 5, at + 6]
        .into_iter()
        .find(|at| event.packet_bytes().get(*at..at + 8) == Some(&cycles.to_le_bytes()))
        .map(Some)
        .ok_or_else(|| other("an extended header without its time"))
}

/// Cycles between two copies: more than the trace is long.
fn shift_of(source: &Source) -> Result<u64, Error> {
    let ranges = source.stream_ranges()?;
    let known: Option<Vec<_>> = ranges.iter().map(|range| range.ns).collect();
    let known = known.ok_or_else(|| other("packets without times"))?;
    let begin = known.iter().map(|range| range.0).min().unwrap_or(0);
    let end = known.iter().map(|range| range.1).max().unwrap_or(0);
    Ok(((end - begin).cast_unsigned() + 1).next_multiple_of(1 << 32))
}

/// How many sequence numbers the stream takes; goes back to its beginning.
fn sequence_numbers(messages: &mut impl Messages) -> Result<u64, Error> {
    let (mut first, mut last) = (None, 0);
    while messages.advance()? == Status::Ready {
        if let Some(Message::PacketBegin(packet)) = messages.current() {
            last = packet.info.sequence.unwrap_or(0);
            first.get_or_insert(last);
        }
        messages.skip_packet();
    }
    messages.seek(i64::MIN)?;
    Ok(last - first.unwrap_or(last) + 1)
}

fn packets_of(
    messages: &mut impl Messages,
    writer: &TraceWriter,
    (count, shift): (u64, u64),
    numbers: u64,
) -> Result<Vec<Original>, Error> {
    let mut scratch = PacketWriter::new();
    let mut packets: Vec<Original> = Vec::new();
    while messages.advance()? == Status::Ready {
        match messages.current() {
            Some(Message::PacketBegin(packet)) => {
                if !writer.keeps_packets(packet.stream.class.index) {
                    return Err(other("packets that can not be copied"));
                }
                let info = *packet.info;
                let heads = (0..count).map(|copy| {
                    let values = PacketValues {
                        begin: info.begin.map(|begin| begin + copy * shift),
                        end: info.end.map(|end| end + copy * shift),
                        events_discarded: info.events_discarded.map(|_| 0),
                        sequence: info.sequence.map(|number| number + copy * numbers),
                    };
                    patch_packet(&mut scratch, writer, &packet, values)
                });
                let heads = heads.collect();
                packets.push(Original { info, bytes: packet.bytes.to_vec(), heads, times: Vec::new() });
            }
            Some(Message::Event(event)) => {
                if let (Some(at), Some(packet)) = (long_time(&event)?, packets.last_mut()) {
                    packet.times.push(at);
                }
            }
            _ => {}
        }
    }
    Ok(packets)
}

fn write_stream(packets: &mut [Original], file: &Path, count: u64, shift: u64) -> std::io::Result<()> {
    let mut data = BufWriter::with_capacity(1 << 20, File::create_new(file)?);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let directory = file.parent().unwrap_or(Path::new(".")).join("index");
    fs::create_dir_all(&directory)?;
    let mut index = BufWriter::new(File::create_new(directory.join(format!("{name}.idx")))?);
    index.write_all(&Header::V1_1.encode())?;
    let mut offset_bytes = 0;
    for copy in 0..count {
        for packet in packets.iter_mut() {
            let head = &packet.heads[copy as usize];
            data.write_all(head)?;
            data.write_all(&packet.bytes[head.len()..])?;
            for at in &packet.times {
                let bytes = &mut packet.bytes[*at..*at + 8];
                let mut time = [0; 8];
                time.copy_from_slice(bytes);
                bytes.copy_from_slice(&(u64::from_le_bytes(time) + shift).to_le_bytes());
            }
            let size_bits = packet.bytes.len() as u64 * 8;
            let info = &packet.info;
            let entry = Entry {
                offset_bytes,
                packet_size_bits: size_bits,
                content_size_bits: info.content_size_bits.unwrap_or(size_bits),
                timestamp_begin: info.begin.unwrap_or(0) + copy * shift,
                timestamp_end: info.end.unwrap_or(0) + copy * shift,
                events_discarded: 0,
                stream_id: info.stream_class_id,
                stream_instance_id: info.stream_id.unwrap_or(UNKNOWN),
                packet_seq_num: UNKNOWN,
            };
            index.write_all(&entry.encode())?;
            offset_bytes += packet.bytes.len() as u64;
        }
    }
    data.flush()?;
    index.flush()
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [count, input, output] = arguments.as_slice() else {
        return Err(other("repeat COUNT INPUT OUTPUT"));
    };
    let count: u64 = count.parse().map_err(|_| other("COUNT is no number"))?;
    let source = sillage_pipeline::open(PathBuf::from(input))?;
    let [directory] = source.directories() else {
        return Err(other("the input must be one trace"));
    };
    let output = Path::new(output);
    fs::create_dir_all(output).map_err(|error| Error::io(output, error))?;
    fs::copy(directory.join("metadata"), output.join("metadata"))
        .map_err(|error| Error::io(output, error))?;
    let shift = shift_of(&source)?;
    let writer = TraceWriter::new(source.traces()[0].class.clone(), CtfVersion::V1_8);
    for (stream, mut messages) in source.messages_by_stream() {
        let numbers = sequence_numbers(&mut messages)?;
        let mut packets = packets_of(&mut messages, &writer, (count, shift), numbers)?;
        let name = stream.name.as_deref().map(Path::new).and_then(Path::file_name);
        let file = output.join(name.ok_or_else(|| other("a stream without a file"))?);
        write_stream(&mut packets, &file, count, shift).map_err(|error| Error::io(&file, error))?;
    }
    Ok(())
}
