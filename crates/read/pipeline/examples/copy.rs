//! Copies traces: `copy [--records] [--ctf2] INPUT OUTPUT`.
//!
//! Whole packets, or with `--records` event by event. Prints the time that it took.

use std::path::PathBuf;
use std::time::Instant;

use sillage_ctf::Message;
use sillage_ctf::model::CtfVersion;
use sillage_pipeline::sinks::ctf::{CtfOptions, CtfSink};
use sillage_pipeline::sinks::{Drained, drain};
use sillage_pipeline::sources::SliceRange;
use sillage_pipeline::{Error, Messages, Status, TakesRuns};

/// Messages without whole packets.
struct Records<M>(M);

impl<M: Messages> Messages for Records<M> {
    #[inline]
    fn advance(&mut self) -> Result<Status, Error> {
        self.0.advance()
    }
    #[inline]
    fn current(&self) -> Option<Message<'_>> {
        self.0.current()
    }
    fn give_runs(&mut self, range: SliceRange, to: &mut dyn TakesRuns) -> Result<usize, Error> {
        self.0.give_runs(range, to)
    }
}

fn copy(messages: &mut impl Messages, sink: &mut CtfSink) {
    loop {
        match drain(messages, sink, |_| true) {
            Ok(Drained::End) => return,
            Ok(_) => {}
            Err(error) => eprintln!("{error}"),
        }
    }
}

fn main() -> Result<(), Error> {
    let (options, paths): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let [input, output] = paths.as_slice() else {
        return Err(Error::Other("copy [--records] [--ctf2] INPUT OUTPUT".to_owned()));
    };
    let has = |name: &str| options.iter().any(|option| option == name);
    let version = if has("--ctf2") { CtfVersion::V2 } else { CtfVersion::V1_8 };
    let start = Instant::now();
    let source = sillage_pipeline::open(PathBuf::from(input))?;
    let mut sink = CtfSink::new(CtfOptions { version, ..CtfOptions::new(output) });
    if has("--records") {
        copy(&mut Records(source.messages()), &mut sink);
    } else {
        copy(&mut source.messages(), &mut sink);
    }
    for path in sink.take_created() {
        println!("Created CTF trace `{}`.", path.display());
    }
    println!("{:.3} s", start.elapsed().as_secs_f64());
    Ok(())
}
