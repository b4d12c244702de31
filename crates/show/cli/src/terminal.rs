//! `println!` and its kin for this program: they never end it.
//!
//! The standard library's panic when nobody reads on (`sillage list -k | head`) or when the disk below is
//! full; `record` would then lose its command's exit code, and `destroy --all` would leave sessions behind.
//! Here whoever has gone misses the rest, and output that was lost for another reason is an error of the
//! whole program, said once at its end. Traces themselves are written by the pipeline's sinks, which stop.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Mutex;

/// Why standard output is not complete, except that its reader has gone.
static LOST: Mutex<Option<std::io::Error>> = Mutex::new(None);

macro_rules! print {
    ($($arguments:tt)*) => { $crate::terminal::out(format_args!($($arguments)*)) };
}
macro_rules! println {
    () => { $crate::terminal::out(format_args!("\n")) };
    ($($arguments:tt)*) => { $crate::terminal::out(format_args!("{}\n", format_args!($($arguments)*))) };
}
macro_rules! eprint {
    ($($arguments:tt)*) => { $crate::terminal::err(format_args!($($arguments)*)) };
}
macro_rules! eprintln {
    ($($arguments:tt)*) => { $crate::terminal::err(format_args!("{}\n", format_args!($($arguments)*))) };
}

/// Prints on standard output.
pub fn out(text: Arguments<'_>) {
    if let Err(error) = std::io::stdout().lock().write_fmt(text)
        && error.kind() != ErrorKind::BrokenPipe
        && let Ok(mut lost) = LOST.lock()
    {
        lost.get_or_insert(error);
    }
}

/// Prints on standard error; there is nobody to tell when that fails.
pub fn err(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// What the program exits with: an error if some of its output was lost.
pub fn outcome(code: ExitCode) -> ExitCode {
    let lost = LOST.lock().ok().and_then(|mut lost| lost.take());
    match lost {
        Some(error) => {
            eprintln!("Error: standard output: {error}");
            ExitCode::FAILURE
        }
        None => code,
    }
}
