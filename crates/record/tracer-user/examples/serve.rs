//! Runs a program under the tests' daemon, on our C library, and says what it recorded:
//! `serve [--discard|--overwrite] [--ordered] [--locked] [--drain] [--text] PROGRAM ARG…`
//!
//! For looking at one program by hand, and for measuring without the real daemon. The library is
//! the one that `SILLAGE_UST_LIB` names, or is built.

#[path = "../tests/support/mod.rs"]
mod support;

use support::{Daemon, Options, programs};

fn main() {
    let mut options = Options { overwrite: true, subbuf_bytes: 4 << 20, ..Options::default() };
    let (mut text, mut drain, mut locked) = (false, false, false);
    let mut arguments = std::env::args().skip(1).peekable();
    while let Some(flag) = arguments.next_if(|a| a.starts_with("--")) {
        match flag.as_str() {
            "--discard" => options.overwrite = false,
            "--overwrite" => options.overwrite = true,
            "--ordered" => options.ordered = true,
            "--locked" => locked = true,
            "--drain" => drain = true,
            "--text" => text = true,
            other => panic!("unknown option {other}"),
        }
    }
    options.names = &["bench:int", "scenario:", "all:", "rust:", "lttng_ust_"];
    let daemon = Daemon::new(options);
    let drain = drain.then(|| daemon.drain());
    let mut command = programs::command(arguments.next().expect("a program"), Some(&daemon));
    command.args(arguments);
    if locked {
        command.env("SILLAGE_PRODUCER", "locked");
    }
    let status = command.status().expect("the program starts");
    let consumed = drain.map(|d| d.finish());
    if text {
        daemon.events().iter().for_each(|e| println!("{} {} {}", e.ts, e.cpu, e.text));
    }
    eprintln!("{status}, lost {:?}, consumed {consumed:?} bytes", daemon.lost());
}
