//! What stands between source and sink: ranges of time, stream intersection, merging, matching.
//!
//! A filter takes [`Messages`](crate::Messages) and is such a sequence itself. None holds more than
//! one message per stream.

mod bound;
pub mod debug_info;
mod intersection;
mod matcher;
mod merge;
mod trimmer;

pub use bound::{Bound, BoundError};
pub use intersection::{Intersection, intersect, intersect_streams};
pub use matcher::Matcher;
pub use merge::Merge;
pub use trimmer::Trimmer;
