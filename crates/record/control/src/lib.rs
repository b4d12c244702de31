//! The client library of the session daemon.
