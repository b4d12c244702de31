//! `sillage`: one program to record, move and read traces.
//!
//! The first argument chooses the work: verbs that control recording are in `control`, verbs that
//! read traces are in `read`. Called by the name of a program that it replaces (`babeltrace2`,
//! `lttng`, `lttng-sessiond`), it speaks that program's command line. This file only dispatches.

fn main() {}
