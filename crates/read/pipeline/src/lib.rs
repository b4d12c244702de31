//! Sources, filters and sinks of trace events.
