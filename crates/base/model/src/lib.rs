//! The vocabulary: event names and patterns, field types, log levels, channel settings, limits.
