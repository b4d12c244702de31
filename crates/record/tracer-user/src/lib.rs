//! The in-process tracer: registration, staging, events into the ring.
