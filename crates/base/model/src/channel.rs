//! Channel settings with LTTng's defaults and its rounding.

use crate::Domain;
use crate::limits::{SUBBUF_BYTES_MAX, SUBBUF_BYTES_MIN, SUBBUF_COUNT_MAX};
use thiserror::Error;

/// What happens when a ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossMode {
    /// The newest event records are discarded and counted.
    Discard,
    /// The oldest sub-buffer is overwritten (flight recorder).
    Overwrite,
}

/// How long a producer may wait for room, in discard mode, if its program allows blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockingTimeout {
    /// Not at all.
    None,
    /// At most this long.
    Us(u64),
    /// As long as the daemon lives.
    Forever,
}

/// The settings of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelSettings {
    /// Bytes of a sub-buffer, a power of two.
    pub subbuf_bytes: u64,
    /// Sub-buffers of a ring, a power of two (overwrite mode: at least 4).
    pub subbuf_count: u64,
    /// What happens when a ring is full.
    pub loss_mode: LossMode,
    /// Whether producers wait first.
    pub blocking_timeout: BlockingTimeout,
    /// Period at which open sub-buffers are cut into packets; 0: never.
    pub switch_timer_us: u64,
    /// Period at which full sub-buffers are looked for; 0: the doorbell alone.
    pub read_timer_us: u64,
    /// Bytes of a trace file before the next one begins; 0: no limit.
    pub tracefile_bytes: u64,
    /// Trace files of a stream before the oldest is replaced; 0: no limit.
    pub tracefile_count: u64,
    /// True when events carry the fenced clock (`ordered`).
    pub ordered_clock: bool,
    /// Bytes for all rings together, from which the sub-buffers' size and number follow; 0: those count.
    pub memory_bytes: u64,
    /// Kernel: what the session daemon itself does is recorded too.
    pub include_self: bool,
}

impl ChannelSettings {
    /// LTTng's defaults: 4 sub-buffers, of 1 MiB with a read timer of 200 ms in the kernel domain, of
    /// 512 KiB without timers for programs (per-user buffers); discard.
    pub const fn of(domain: Domain) -> ChannelSettings {
        let (subbuf_bytes, read_timer_us) = match domain {
            Domain::Kernel => (1 << 20, 200_000),
            Domain::User => (512 << 10, 0),
        };
        ChannelSettings {
            subbuf_bytes,
            subbuf_count: 4,
            loss_mode: LossMode::Discard,
            blocking_timeout: BlockingTimeout::None,
            switch_timer_us: 0,
            read_timer_us,
            tracefile_bytes: 0,
            tracefile_count: 0,
            ordered_clock: false,
            memory_bytes: 0,
            include_self: false,
        }
    }
}

impl Default for ChannelSettings {
    /// Those of the user-space domain.
    fn default() -> Self {
        ChannelSettings::of(Domain::User)
    }
}

/// Why channel settings were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// A sub-buffer of no bytes.
    #[error("sub-buffer size must not be 0")]
    SubbufSizeZero,
    /// Larger than the limit.
    #[error("sub-buffer size {0} is larger than {SUBBUF_BYTES_MAX}")]
    SubbufSizeTooLarge(u64),
    /// No sub-buffers.
    #[error("number of sub-buffers must not be 0")]
    SubbufCountZero,
    /// More than the limit.
    #[error("number of sub-buffers {0} is larger than {SUBBUF_COUNT_MAX}")]
    SubbufCountTooLarge(u64),
    /// Waiting makes no sense where nothing is ever full.
    #[error("a blocking timeout needs discard mode")]
    BlockingOverwrite,
    /// A ring of files needs a size for each.
    #[error("a trace file count needs a trace file size")]
    CountWithoutSize,
    /// A packet would not fit a file.
    #[error("trace file size {0} is smaller than a sub-buffer")]
    TracefileTooSmall(u64),
}

/// Sub-buffers of a ring whose size follows from a memory budget: enough that one being written out
/// leaves most of the ring to producers.
const BUDGET_SUBBUFS: u64 = 8;
/// Largest sub-buffer of such a ring: more only makes packets late.
const BUDGET_SUBBUF_BYTES_MAX: u64 = 4 << 20;

impl ChannelSettings {
    /// Shares a memory budget out to so many rings: the largest sub-buffers and then as many of them as
    /// do not exceed it, but never less than the smallest ring.
    pub fn shared_out(mut self, rings: u64) -> ChannelSettings {
        if self.memory_bytes == 0 {
            return self;
        }
        let ring = (self.memory_bytes / rings.max(1)).max(BUDGET_SUBBUFS * SUBBUF_BYTES_MIN);
        let ring = 1 << ring.ilog2();
        self.subbuf_bytes = (ring / BUDGET_SUBBUFS).min(BUDGET_SUBBUF_BYTES_MAX);
        self.subbuf_count = (ring / self.subbuf_bytes).min(SUBBUF_COUNT_MAX);
        self
    }

    /// Rounds sizes up to powers of two (as LTTng does) and checks the whole.
    pub fn normalised(mut self) -> Result<ChannelSettings, ChannelError> {
        if self.subbuf_bytes == 0 {
            return Err(ChannelError::SubbufSizeZero);
        }
        if self.subbuf_bytes > SUBBUF_BYTES_MAX {
            return Err(ChannelError::SubbufSizeTooLarge(self.subbuf_bytes));
        }
        if self.subbuf_count == 0 {
            return Err(ChannelError::SubbufCountZero);
        }
        if self.subbuf_count > SUBBUF_COUNT_MAX {
            return Err(ChannelError::SubbufCountTooLarge(self.subbuf_count));
        }
        if self.loss_mode == LossMode::Overwrite && self.blocking_timeout != BlockingTimeout::None {
            return Err(ChannelError::BlockingOverwrite);
        }
        if self.tracefile_count > 0 && self.tracefile_bytes == 0 {
            return Err(ChannelError::CountWithoutSize);
        }
        self.subbuf_bytes = self.subbuf_bytes.next_power_of_two().max(SUBBUF_BYTES_MIN);
        // A snapshot holds one sub-buffer less than the ring, and the ring needs three at least.
        let least = if self.loss_mode == LossMode::Overwrite { 4 } else { 2 };
        self.subbuf_count = self.subbuf_count.next_power_of_two().max(least);
        if self.tracefile_bytes > 0 && self.tracefile_bytes < self.subbuf_bytes {
            return Err(ChannelError::TracefileTooSmall(self.tracefile_bytes));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_and_zero_is_refused() {
        let given = ChannelSettings { subbuf_bytes: 5000, subbuf_count: 3, ..Default::default() };
        let made = given.normalised().map(|c| (c.subbuf_bytes, c.subbuf_count));
        assert_eq!(made, Ok((8192, 4)));
        let zero = ChannelSettings { subbuf_bytes: 0, ..Default::default() };
        assert_eq!(zero.normalised(), Err(ChannelError::SubbufSizeZero));
        let flight =
            ChannelSettings { subbuf_count: 2, loss_mode: LossMode::Overwrite, ..Default::default() };
        assert_eq!(flight.normalised().map(|c| c.subbuf_count), Ok(4));
    }

    #[test]
    fn a_budget_is_shared_out_to_all_rings() {
        let shared = |memory_bytes, rings| {
            let s = ChannelSettings { memory_bytes, ..Default::default() }.shared_out(rings);
            (s.subbuf_bytes, s.subbuf_count)
        };
        assert_eq!(shared(0, 2), (512 << 10, 4), "no budget");
        assert_eq!(shared(64 << 20, 2), (4 << 20, 8));
        assert_eq!(shared(64 << 20, 3), (2 << 20, 8), "never more than the budget");
        assert_eq!(shared(1 << 30, 2), (4 << 20, 128));
        assert_eq!(shared(1, 512), (4096, 8), "never less than a ring needs");
    }
}
