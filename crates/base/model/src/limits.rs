//! Every maximum of the recording side, with the relations between them proved at compile time.
//!
//! Reaching one of them is never silent: whoever enforces it counts and shows what it refused.

/// CPUs that one ring set can describe.
pub const CPUS_MAX: usize = 1024;
/// Bytes of an event, channel or session name (LTTng's `LTTNG_SYMBOL_NAME_LEN`, without the NUL).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of the payload of one event record.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Fields of one event; LTTng's macros allow ten arguments, generated providers many more fields.
pub const FIELDS_MAX: usize = 512;
/// Labels of one enumeration.
pub const ENUM_ENTRIES_MAX: usize = 4096;
/// Tracepoints that one program may register.
pub const TRACEPOINTS_MAX: usize = 65_536;
/// Bytes of one message between a program and the daemon.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// File descriptors that travel with one message.
pub const MESSAGE_FDS_MAX: usize = 4;
/// Smallest sub-buffer, one page.
pub const SUBBUF_BYTES_MIN: u64 = 4096;
/// Largest sub-buffer.
pub const SUBBUF_BYTES_MAX: u64 = 1 << 30;
/// Most sub-buffers in one ring.
pub const SUBBUF_COUNT_MAX: u64 = 4096;
/// Channels of one session.
pub const CHANNELS_MAX: usize = 256;
/// Context fields of one channel.
pub const CONTEXTS_MAX: usize = 256;
/// Event rules of one channel.
pub const RULES_MAX: usize = 4096;
/// Values of one inclusion set.
pub const TRACKED_MAX: usize = 4000;
/// Sessions of one daemon.
pub const SESSIONS_MAX: usize = 1024;
/// Programs registered with one daemon at a time.
pub const PROGRAMS_MAX: usize = 8192;

const _: () = assert!(TRACKED_MAX * (NAME_BYTES_MAX + 5) + 64 <= MESSAGE_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX * 4 <= MESSAGE_BYTES_MAX);
const _: () = assert!(SUBBUF_BYTES_MIN.is_power_of_two() && SUBBUF_BYTES_MAX.is_power_of_two());
const _: () = assert!(SUBBUF_COUNT_MAX.is_power_of_two());
