//! Kernel log lines as events, against Debian's babeltrace2 where that reads them.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use sillage_pipeline::Messages;
use sillage_pipeline::sinks::ctf::{CtfOptions, CtfSink};
use sillage_pipeline::sinks::pretty::{ClockFormat, Options, Pretty};
use sillage_pipeline::sinks::{Drained, Sink, drain, write_all_to};
use sillage_pipeline::sources::dmesg::{DateFraction, Dmesg, DmesgOptions};

fn text(mut messages: impl Messages) -> String {
    let (sender, receiver) = mpsc::channel();
    let options = Options { clock: ClockFormat::Seconds, ..Options::default() };
    let mut sink = Pretty::new(options, write_all_to(sender), Box::new(std::io::sink()));
    assert_eq!(drain(&mut messages, &mut sink, |_| true).unwrap(), Drained::End);
    drop(sink);
    String::from_utf8(receiver.into_iter().flatten().collect()).unwrap()
}

fn dmesg(lines: &str, options: DmesgOptions) -> Dmesg {
    Dmesg::of(Box::new(Cursor::new(lines.to_owned())), PathBuf::from("log"), options).unwrap()
}

const LOG: &str = "\
[    0.000000] Linux version 6.1\n\
[    1.500000] hello \"you\"\n\
\n\
[4.25]x\n\
[ 6.5] \n\
[    7.123456] a[1.2] b\n\
[2017-01-01 10:00:00.123456] date\n";

#[test]
fn every_form_of_line() {
    let options = || DmesgOptions { date_fraction: DateFraction::AsBabeltrace, ..DmesgOptions::default() };
    let got = text(dmesg(LOG, options()));
    assert_eq!(got.lines().count(), 6);
    assert!(got.starts_with("[0.000000000] (+?.?????????) string: { str = \"Linux version 6.1\" }\n"));
    let without = DmesgOptions { no_extract_timestamp: true, ..options() };
    assert!(
        text(dmesg(LOG, without)).starts_with("string: { str = \"[    0.000000] Linux version 6.1\" }\n")
    );
    assert_eq!(text(dmesg("", options())), "");
    // Babeltrace fails here: we give it the time of the line before.
    let mixed = text(dmesg("[1.0] a\nb\n[0.5] back\nlast", options()));
    assert_eq!(mixed.lines().nth(1).unwrap(), "[1.000000000] (+0.000000000) string: { str = \"b\" }");
    assert!(mixed.ends_with("{ str = \"last\" }\n"));
}

#[test]
fn the_same_as_babeltrace() {
    let directory = std::env::temp_dir().join(format!("sillage-dmesg-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("log");
    std::fs::write(&path, LOG).unwrap();
    let run = |arguments: &[&str], path: &Path| {
        let output = Command::new("babeltrace2").args(arguments).arg(path).env("TZ", "UTC").output();
        output.ok().map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    let parameters = format!("path=\"{}\"", path.display());
    let source = ["-c", "source.text.dmesg", "-p", &parameters, "--clock-seconds"];
    let babeltrace = Command::new("babeltrace2").args(source).output();
    let options = DmesgOptions {
        path: Some(path.clone()),
        date_fraction: DateFraction::AsBabeltrace,
        ..DmesgOptions::default()
    };
    let ours = text(Dmesg::open(options.clone()).unwrap());
    match babeltrace {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), ours),
        Err(_) => eprintln!("SKIPPED: babeltrace2 is not installed"),
    }
    // As a CTF trace it says the same, to us and to Babeltrace.
    let trace = directory.join("trace");
    let mut sink = CtfSink::new(CtfOptions { assume_single_trace: true, ..CtfOptions::new(&trace) });
    drain(&mut Dmesg::open(options).unwrap(), &mut sink, |_| true).unwrap();
    sink.finish().unwrap();
    assert_eq!(text(sillage_pipeline::open(&trace).unwrap().messages()), ours);
    if let Some(theirs) = run(&["--clock-seconds"], &trace) {
        assert_eq!(theirs, ours);
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
