//! The atomics of the algorithm: the machine's, or loom's when its model checks all interleavings.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, fence};

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, fence};

pub(crate) use core::sync::atomic::Ordering;
