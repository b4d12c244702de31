//! Between a traced program and the session daemon.
//!
//! The program connects and says [`ToDaemon::Hello`]; the daemon answers with [`ToProgram::Welcome`]
//! (clock page and doorbell). The program then sends its tracepoints in batches; for each batch the
//! daemon sends what the program must record and then [`ToProgram::BatchDone`], so that a
//! constructor can wait until everything enabled before `main` is in place.
//!
//! What to record is *declared*, never changed step by step: [`ToProgram::Events`] carries the whole
//! list for one channel, and replaces the one before. A daemon that was restarted simply declares
//! again; a ring set that the program has already mapped is known by its `set_id`, and stays mapped.
//!
//! [`ToProgram::Sync`] asks for quiescence: the program applies everything received before, waits
//! until no thread can still publish by the old state, and answers [`ToDaemon::Synced`].
//!
//! Descriptors travel with `SCM_RIGHTS` on the first byte of their frame, in the order given here.

use crate::codec::{DecodeError, Reader, Writer};
use alloc::{boxed::Box, string::String, vec::Vec};
use sillage_model::limits::{
    ENUM_ENTRIES_MAX, FIELDS_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, TRACEPOINTS_MAX,
};
use sillage_model::{
    BlockingTimeout, Encoding, EnumEntry, EnumValue, Field, FieldType, FloatType, IntegerType, LogLevel,
    Tracepoint,
};

/// Version of this protocol; the daemon refuses programs of another one.
pub const VERSION: u16 = 2;
/// Tracepoints in one [`ToDaemon::Tracepoints`] message, at most.
pub const BATCH_TRACEPOINTS_MAX: usize = 512;
/// Depth of nested field types (arrays of arrays).
const TYPE_DEPTH_MAX: usize = 4;

/// Which producer a program uses; a ring set has one kind for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProducerKind {
    /// Restartable sequences on the rings of its user, one for each CPU.
    Rseq,
    /// A ring of its own under a lock.
    Locked,
}

/// Who registers. The peer's uid, gid and pid come from the socket, never from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u16,
    /// Process id as the program sees it.
    pub vpid: u32,
    /// Parent's process id as the program sees it.
    pub vppid: u32,
    /// Name of the process, at most 16 bytes.
    pub procname: String,
    /// Which producer it uses.
    pub producer: ProducerKind,
    /// True when `LTTNG_UST_ALLOW_BLOCKING` permits waiting.
    pub allow_blocking: bool,
    /// Version of the tracer library.
    pub tracer_version: String,
    /// Ring sets that it has mapped already (after a lost connection).
    pub mapped_sets: Vec<u64>,
    /// Token of the `record` command whose command it belongs to (`SILLAGE_RECORD`, inherited); 0: of none.
    pub record: u64,
}

/// A tracepoint and the number by which both sides call it from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedTracepoint {
    /// The program's number for it, never used twice in one connection.
    pub index: u32,
    /// What it is.
    pub tracepoint: Tracepoint,
}

/// Messages of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToDaemon {
    /// First message of a connection.
    Hello(Hello),
    /// More tracepoints: answered by `BatchDone` with the same number.
    Tracepoints {
        /// Number of the batch.
        batch: u32,
        /// The tracepoints.
        tracepoints: Vec<IndexedTracepoint>,
    },
    /// These are gone (their library was closed).
    TracepointsGone(
        /// Their numbers.
        Vec<u32>,
    ),
    /// Answer to `Sync`.
    Synced {
        /// Its number.
        sequence: u64,
    },
    /// A channel that the program cannot record into: what it should record there is lost.
    ChannelUnusable {
        /// The channel.
        channel_id: u64,
        /// Why, for people.
        reason: String,
    },
}

/// A channel as a program needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The daemon's number for it; never used again for another channel.
    pub channel_id: u64,
    /// Identity of the ring set.
    pub set_id: u64,
    /// How long producers may wait.
    pub blocking_timeout: BlockingTimeout,
}

/// One enabled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnabledEvent {
    /// The program's number of the tracepoint.
    pub index: u32,
    /// Id in the event header.
    pub event_id: u32,
}

/// Messages of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToProgram {
    /// Answer to `Hello`. Descriptors: clock page (read-only), doorbell page.
    Welcome,
    /// A channel. Descriptors: ring set, consumer page (read-only). Precedes its `Events`.
    Channel(Channel),
    /// All events to record to a channel. Replaces what was declared before.
    Events {
        /// The channel.
        channel_id: u64,
        /// True while its session is started.
        active: bool,
        /// All its events in this program.
        events: Vec<EnabledEvent>,
    },
    /// The channel is gone: unmap it after a grace period.
    ChannelGone {
        /// The channel.
        channel_id: u64,
    },
    /// Everything that follows from this batch of tracepoints was sent.
    BatchDone {
        /// Number of the batch.
        batch: u32,
    },
    /// Apply, wait for quiescence, answer `Synced`.
    Sync {
        /// Number to answer with.
        sequence: u64,
    },
    /// The daemon will not serve this program; the connection ends.
    Refused {
        /// Why, for the program's debug log.
        reason: String,
    },
}

impl ToDaemon {
    /// The message as one frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToDaemon::Hello(h) => {
                let mut w = Writer::frame(1, 0);
                w.u16(h.version);
                w.u32(h.vpid);
                w.u32(h.vppid);
                w.str(&h.procname);
                w.u8(match h.producer {
                    ProducerKind::Rseq => 0,
                    ProducerKind::Locked => 1,
                });
                w.bool(h.allow_blocking);
                w.str(&h.tracer_version);
                w.list(&h.mapped_sets, |w, id| w.u64(*id));
                w.u64(h.record);
                w.finish()
            }
            ToDaemon::Tracepoints { batch, tracepoints } => {
                let mut w = Writer::frame(2, 0);
                w.u32(*batch);
                w.list(tracepoints, |w, t| {
                    w.u32(t.index);
                    put_tracepoint(w, &t.tracepoint);
                });
                w.finish()
            }
            ToDaemon::TracepointsGone(indexes) => {
                let mut w = Writer::frame(3, 0);
                w.list(indexes, |w, i| w.u32(*i));
                w.finish()
            }
            ToDaemon::Synced { sequence } => {
                let mut w = Writer::frame(4, 0);
                w.u64(*sequence);
                w.finish()
            }
            ToDaemon::ChannelUnusable { channel_id, reason } => {
                let mut w = Writer::frame(5, 0);
                w.u64(*channel_id);
                w.str(reason);
                w.finish()
            }
        }
    }

    /// The message in the body of a frame of this kind.
    pub fn decode(kind: u16, body: &[u8]) -> Result<ToDaemon, DecodeError> {
        let r = &mut Reader::new(body);
        let message = match kind {
            1 => ToDaemon::Hello(get_hello(r)?),
            2 => ToDaemon::Tracepoints {
                batch: r.u32()?,
                tracepoints: r.list(BATCH_TRACEPOINTS_MAX, |r| {
                    Ok(IndexedTracepoint { index: r.u32()?, tracepoint: get_tracepoint(r)? })
                })?,
            },
            3 => ToDaemon::TracepointsGone(r.list(TRACEPOINTS_MAX, Reader::u32)?),
            4 => ToDaemon::Synced { sequence: r.u64()? },
            5 => ToDaemon::ChannelUnusable { channel_id: r.u64()?, reason: r.string(NAME_BYTES_MAX)? },
            n => return r.unknown("message kind", n),
        };
        r.end()?;
        Ok(message)
    }
}

fn get_hello(r: &mut Reader<'_>) -> Result<Hello, DecodeError> {
    Ok(Hello {
        version: r.u16()?,
        vpid: r.u32()?,
        vppid: r.u32()?,
        procname: r.string(NAME_BYTES_MAX)?,
        producer: match r.u8()? {
            0 => ProducerKind::Rseq,
            1 => ProducerKind::Locked,
            n => return r.unknown("producer kind", n),
        },
        allow_blocking: r.bool()?,
        tracer_version: r.string(NAME_BYTES_MAX)?,
        mapped_sets: r.list(TRACEPOINTS_MAX, Reader::u64)?,
        record: r.u64()?,
    })
}

impl ToProgram {
    /// Descriptors that travel with the message.
    pub fn fds(&self) -> usize {
        match self {
            ToProgram::Welcome | ToProgram::Channel(_) => 2,
            _ => 0,
        }
    }

    /// The message as one frame.
    pub fn encode(&self) -> Vec<u8> {
        let fds = self.fds();
        let mut w;
        match self {
            ToProgram::Welcome => w = Writer::frame(1, fds),
            ToProgram::Channel(c) => {
                w = Writer::frame(2, fds);
                w.u64(c.channel_id);
                w.u64(c.set_id);
                match c.blocking_timeout {
                    BlockingTimeout::None => w.u8(0),
                    BlockingTimeout::Forever => w.u8(1),
                    BlockingTimeout::Us(us) => {
                        w.u8(2);
                        w.u64(us);
                    }
                }
            }
            ToProgram::Events { channel_id, active, events } => {
                w = Writer::frame(3, fds);
                w.u64(*channel_id);
                w.bool(*active);
                w.list(events, |w, e| {
                    w.u32(e.index);
                    w.u32(e.event_id);
                });
            }
            ToProgram::ChannelGone { channel_id } => {
                w = Writer::frame(4, fds);
                w.u64(*channel_id);
            }
            ToProgram::BatchDone { batch } => {
                w = Writer::frame(5, fds);
                w.u32(*batch);
            }
            ToProgram::Sync { sequence } => {
                w = Writer::frame(6, fds);
                w.u64(*sequence);
            }
            ToProgram::Refused { reason } => {
                w = Writer::frame(7, fds);
                w.str(reason);
            }
        }
        w.finish()
    }

    /// The message in the body of a frame of this kind.
    pub fn decode(kind: u16, body: &[u8]) -> Result<ToProgram, DecodeError> {
        let r = &mut Reader::new(body);
        let message = match kind {
            1 => ToProgram::Welcome,
            2 => ToProgram::Channel(Channel {
                channel_id: r.u64()?,
                set_id: r.u64()?,
                blocking_timeout: match r.u8()? {
                    0 => BlockingTimeout::None,
                    1 => BlockingTimeout::Forever,
                    2 => BlockingTimeout::Us(r.u64()?),
                    n => return r.unknown("blocking timeout", n),
                },
            }),
            3 => ToProgram::Events {
                channel_id: r.u64()?,
                active: r.bool()?,
                events: r
                    .list(TRACEPOINTS_MAX, |r| Ok(EnabledEvent { index: r.u32()?, event_id: r.u32()? }))?,
            },
            4 => ToProgram::ChannelGone { channel_id: r.u64()? },
            5 => ToProgram::BatchDone { batch: r.u32()? },
            6 => ToProgram::Sync { sequence: r.u64()? },
            7 => ToProgram::Refused { reason: r.string(NAME_BYTES_MAX)? },
            n => return r.unknown("message kind", n),
        };
        r.end()?;
        Ok(message)
    }
}

/// A tracepoint; also used by the control protocol and the daemon's own state.
pub fn put_tracepoint(w: &mut Writer, t: &Tracepoint) {
    w.str(&t.name);
    w.u8(t.loglevel.number());
    w.option(t.emf_uri.as_deref(), |w, uri| w.str(uri));
    w.list(&t.fields, |w, f| {
        w.str(&f.name);
        put_type(w, &f.field_type);
    });
}

/// Inverse of [`put_tracepoint`].
pub fn get_tracepoint(r: &mut Reader<'_>) -> Result<Tracepoint, DecodeError> {
    Ok(Tracepoint {
        name: r.string(2 * NAME_BYTES_MAX + 1)?,
        loglevel: LogLevel::from_number(r.u8()?.into()),
        emf_uri: r.option(|r| r.string(RECORD_BYTES_MAX))?,
        fields: r.list(FIELDS_MAX, |r| {
            Ok(Field { name: r.string(NAME_BYTES_MAX)?, field_type: get_type(r, TYPE_DEPTH_MAX)? })
        })?,
    })
}

fn put_integer(w: &mut Writer, i: &IntegerType) {
    w.u32(i.size_bits);
    w.u16(i.align_bits);
    w.bool(i.signed);
    w.bool(i.reverse_byte_order);
    w.u32(i.base);
}

fn get_integer(r: &mut Reader<'_>) -> Result<IntegerType, DecodeError> {
    let size_bits = r.u32()?;
    if !matches!(size_bits, 8 | 16 | 32 | 64) {
        return r.unknown("integer size", size_bits);
    }
    let align_bits = get_align(r)? as u16;
    Ok(IntegerType {
        size_bits,
        align_bits,
        signed: r.bool()?,
        reverse_byte_order: r.bool()?,
        base: match r.u32()? {
            n @ (2 | 8 | 10 | 16) => n,
            n => return r.unknown("base", n),
        },
    })
}

/// A power of two between 1 and 512 bits, from two bytes.
fn get_align(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
    match r.u16()? {
        n if n.is_power_of_two() && n <= 512 => Ok(n.into()),
        n => r.unknown("alignment", n),
    }
}

fn put_encoding(w: &mut Writer, e: Encoding) {
    w.u8(match e {
        Encoding::None => 0,
        Encoding::Utf8 => 1,
        Encoding::Ascii => 2,
    });
}

fn get_encoding(r: &mut Reader<'_>) -> Result<Encoding, DecodeError> {
    Ok(match r.u8()? {
        0 => Encoding::None,
        1 => Encoding::Utf8,
        2 => Encoding::Ascii,
        n => return r.unknown("encoding", n),
    })
}

fn put_type(w: &mut Writer, t: &FieldType) {
    match t {
        FieldType::Integer(i) => {
            w.u8(0);
            put_integer(w, i);
        }
        FieldType::Float(f) => {
            w.u8(1);
            w.u32(f.exponent_bits);
            w.u32(f.mantissa_bits);
            w.u16(f.align_bits);
            w.bool(f.reverse_byte_order);
        }
        FieldType::String(e) => {
            w.u8(2);
            put_encoding(w, *e);
        }
        FieldType::Enum { name, container, entries } => {
            w.u8(3);
            w.str(name);
            put_integer(w, container);
            w.list(entries, |w, e| {
                w.str(&e.label);
                for v in [e.start, e.end] {
                    w.u64(v.bits);
                    w.bool(v.signed);
                }
                w.bool(e.auto);
            });
        }
        FieldType::Array { element, length, align_bits, encoding } => {
            w.u8(4);
            w.u32(*length);
            w.u16(*align_bits as u16);
            put_encoding(w, *encoding);
            put_type(w, element);
        }
        FieldType::Sequence { element, length_name, align_bits, encoding } => {
            w.u8(5);
            w.str(length_name);
            w.u16(*align_bits as u16);
            put_encoding(w, *encoding);
            put_type(w, element);
        }
    }
}

fn get_type(r: &mut Reader<'_>, depth: usize) -> Result<FieldType, DecodeError> {
    let kind = r.u8()?;
    if depth == 0 {
        return r.unknown("nesting of field type", kind);
    }
    Ok(match kind {
        0 => FieldType::Integer(get_integer(r)?),
        1 => {
            let (exponent_bits, mantissa_bits) = (r.u32()?, r.u32()?);
            if !matches!((exponent_bits, mantissa_bits), (8, 24) | (11, 53)) {
                return r.unknown("floating point format", exponent_bits);
            }
            let align_bits = get_align(r)? as u16;
            FieldType::Float(FloatType {
                exponent_bits,
                mantissa_bits,
                align_bits,
                reverse_byte_order: r.bool()?,
            })
        }
        2 => FieldType::String(get_encoding(r)?),
        3 => FieldType::Enum {
            name: r.string(NAME_BYTES_MAX)?,
            container: get_integer(r)?,
            entries: r.list(ENUM_ENTRIES_MAX, |r| {
                let label = r.string(RECORD_BYTES_MAX)?;
                let start = EnumValue { bits: r.u64()?, signed: r.bool()? };
                let end = EnumValue { bits: r.u64()?, signed: r.bool()? };
                Ok(EnumEntry { label, start, end, auto: r.bool()? })
            })?,
        },
        4 => {
            let length = r.u32()?;
            let align_bits = get_align(r)?;
            let encoding = get_encoding(r)?;
            FieldType::Array { element: Box::new(get_type(r, depth - 1)?), length, align_bits, encoding }
        }
        5 => {
            let length_name = r.string(NAME_BYTES_MAX)?;
            let align_bits = get_align(r)?;
            let encoding = get_encoding(r)?;
            FieldType::Sequence {
                element: Box::new(get_type(r, depth - 1)?),
                length_name,
                align_bits,
                encoding,
            }
        }
        n => return r.unknown("field type", n),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{FRAME_HEADER_BYTES, FrameHeader};
    use alloc::vec;

    fn integer(size_bits: u32) -> IntegerType {
        IntegerType { size_bits, align_bits: 8, signed: true, reverse_byte_order: false, base: 10 }
    }

    fn samples() -> Vec<ToDaemon> {
        let text = FieldType::Array {
            element: Box::new(FieldType::Integer(integer(8))),
            length: 4,
            align_bits: 8,
            encoding: Encoding::Utf8,
        };
        let colour = FieldType::Enum {
            name: "colour".into(),
            container: integer(32),
            entries: vec![EnumEntry {
                label: "red".into(),
                start: EnumValue { bits: 1, signed: true },
                end: EnumValue { bits: 2, signed: true },
                auto: false,
            }],
        };
        let tracepoint = Tracepoint {
            name: "p:e".into(),
            loglevel: LogLevel::DEFAULT,
            emf_uri: Some("u".into()),
            fields: vec![
                Field { name: "t".into(), field_type: text },
                Field { name: "c".into(), field_type: colour },
            ],
        };
        vec![
            ToDaemon::Hello(Hello {
                version: VERSION,
                vpid: 1,
                vppid: 2,
                procname: "x".into(),
                producer: ProducerKind::Locked,
                allow_blocking: true,
                tracer_version: "0".into(),
                mapped_sets: vec![7],
                record: 8,
            }),
            ToDaemon::Tracepoints { batch: 3, tracepoints: vec![IndexedTracepoint { index: 9, tracepoint }] },
            ToDaemon::TracepointsGone(vec![9]),
            ToDaemon::Synced { sequence: 5 },
            ToDaemon::ChannelUnusable { channel_id: 6, reason: "no room".into() },
        ]
    }

    fn header(frame: &[u8]) -> FrameHeader {
        FrameHeader::decode(frame[..FRAME_HEADER_BYTES].try_into().unwrap()).unwrap()
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same_and_cut_bodies_are_refused() {
        for message in samples() {
            let frame = message.encode();
            let (h, body) = (header(&frame), &frame[FRAME_HEADER_BYTES..]);
            assert_eq!(ToDaemon::decode(h.kind, body), Ok(message));
            for cut in 0..body.len() {
                assert!(ToDaemon::decode(h.kind, &body[..cut]).is_err());
            }
        }
        let to_program = [
            ToProgram::Welcome,
            ToProgram::Channel(Channel {
                channel_id: 1,
                set_id: 2,
                blocking_timeout: BlockingTimeout::Us(3),
            }),
            ToProgram::Events {
                channel_id: 1,
                active: true,
                events: vec![EnabledEvent { index: 1, event_id: 2 }],
            },
            ToProgram::ChannelGone { channel_id: 1 },
            ToProgram::BatchDone { batch: 1 },
            ToProgram::Sync { sequence: 1 },
            ToProgram::Refused { reason: "no".into() },
        ];
        for message in to_program {
            let frame = message.encode();
            assert_eq!(header(&frame).fds, message.fds());
            assert_eq!(ToProgram::decode(header(&frame).kind, &frame[FRAME_HEADER_BYTES..]), Ok(message));
        }
    }

    #[test]
    fn a_count_that_the_body_cannot_hold_is_refused_before_anything_is_allocated() {
        let mut w = Writer::frame(3, 0);
        w.count(60_000);
        let frame = w.finish();
        let error = ToDaemon::decode(3, &frame[FRAME_HEADER_BYTES..]);
        assert_eq!(error, Err(DecodeError::Count { offset: 0, count: 60_000, max: 0 }));
    }
}
