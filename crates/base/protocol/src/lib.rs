//! The wire types: program registration and control.
