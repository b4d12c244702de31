//! The session daemon: sessions, channels, rules, programs.
