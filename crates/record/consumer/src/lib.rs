//! From rings to trace files.
