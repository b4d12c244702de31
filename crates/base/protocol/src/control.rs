//! Between the command line and the session daemon.
