//! What a source tells of and reads on after, odd metadata, odd packets; and what a copy can not tell.

use std::fmt;
use std::path::PathBuf;

use crate::sources::PacketPlace;

/// Something odd that was read all the same. Shown, it says where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// In a trace's description.
    Metadata {
        /// Its file; None in a live session.
        path: Option<PathBuf>,
        /// What, and in which line.
        warning: sillage_ctf::Warning,
    },
    /// In a stream, told of the first packet that is so.
    Packet {
        /// Where that packet is.
        place: PacketPlace,
        /// What is odd.
        oddity: Oddity,
    },
    /// Losses behind the last packet of a stream that was written: only a packet can tell one.
    Untold {
        /// The stream's file.
        path: PathBuf,
        /// Events, at least.
        events: u64,
        /// Packets, at least.
        packets: u64,
    },
}

/// What can be odd about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// A clock goes back inside it.
    ClockBack {
        /// Cycles of an event.
        from: u64,
        /// Cycles of the next one.
        to: u64,
    },
    /// Its UUID is not the metadata's.
    ForeignUuid,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Metadata { path, warning } => {
                if warning.line > 0 {
                    write!(f, "metadata:{}: ", warning.line)?;
                }
                f.write_str(&warning.message)?;
                path.as_ref().map_or(Ok(()), |path| write!(f, " ({})", path.display()))
            }
            Warning::Packet { place, oddity } => {
                write!(f, "{}: packet {}: {oddity}", place.path.display(), place.packet)
            }
            Warning::Untold { path, events, packets } => {
                let path = path.display();
                let lost = match (events, packets) {
                    (events, 0) => format!("{events} events"),
                    (0, packets) => format!("{packets} packets"),
                    (events, packets) => format!("{events} events and {packets} packets"),
                };
                write!(f, "{path}: at least {lost} were lost behind its last packet, which it does not tell")
            }
        }
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Oddity::ClockBack { from, to } => {
                write!(f, "the clock goes back from {from} to {to} cycles; the events stay in their order")
            }
            Oddity::ForeignUuid => {
                f.write_str("its UUID is not that of the metadata, by which it is read all the same")
            }
        }
    }
}
