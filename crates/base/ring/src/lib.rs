//! The ring: producers and the consumer of per-CPU sub-buffers in shared memory.
