//! The largest sizes that the reader accepts, by name.
//!
//! Each keeps hostile input from costing more than its size is worth; real traces stay far below.

/// Elements without bits that one scope of one event may hold.
pub const EMPTY_ELEMENTS_MAX: u64 = 1 << 16;
/// Depth of a field class tree, and of a JSON value.
pub const NESTING_MAX: usize = 64;
/// Field classes in all of the metadata of a trace, copies of aliases included.
pub const FIELD_CLASSES_MAX: usize = 1 << 20;
/// Fields of one trace class that others refer to.
pub const SLOTS_MAX: usize = 1 << 15;
/// Event class ids that get a place in the direct table of their stream class.
pub const DIRECT_IDS_MAX: u64 = 1 << 12;
