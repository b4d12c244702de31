//! Streams that do not depend on one another, each with a sink of its own, on several threads.
//!
//! For sinks that need no order between streams (copies of traces, counts): without one, there is
//! nothing to merge. Each stream is read by one thread from its begin to its end; what a sink gets
//! does not depend on the number of threads.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Drained, Sink, drain};
use crate::{Error, Messages, Warning};

/// Hears of what happens in the streams, from any thread.
pub trait Watch: Sync {
    /// A stream can not be read on; its sink has what came before.
    fn fault(&self, error: &Error);
    /// What is unusual in a stream.
    fn warnings(&self, warnings: Vec<Warning>);
    /// How far a stream is, by its place in the list.
    fn at(&self, stream: usize, ns: i64);
}

/// Gives each sink the messages beside it; gives the sinks back in their order.
///
/// # Errors
/// The first error of a sink, or of a source that is not of one stream only. The others stop then.
pub fn drain_each<M: Messages + Send, S: Sink + Send>(
    streams: Vec<(M, S)>,
    threads: usize,
    watch: &dyn Watch,
) -> Result<Vec<S>, Error> {
    let jobs: Vec<_> = streams.into_iter().map(|job| Mutex::new((job, None))).collect();
    let next = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let work = || {
        while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < jobs.len()) {
            let mut job = jobs[number].lock().unwrap_or_else(PoisonError::into_inner);
            let ((messages, sink), failure) = &mut *job;
            if let Err(error) = drain_one(messages, sink, number, &stopped, watch) {
                *failure = Some(error);
                stopped.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(jobs.len()) {
            scope.spawn(work);
        }
        work();
    });
    let finished = jobs.into_iter().map(|job| job.into_inner().unwrap_or_else(PoisonError::into_inner));
    finished.map(|((_, sink), failure)| failure.map_or(Ok(sink), Err)).collect()
}

fn drain_one<M: Messages, S: Sink>(
    messages: &mut M,
    sink: &mut S,
    number: usize,
    stopped: &AtomicBool,
    watch: &dyn Watch,
) -> Result<(), Error> {
    let result = loop {
        let drained = drain(messages, sink, |messages| {
            let ns = messages.current().and_then(|message| message.clock()).and_then(|clock| clock.ns);
            if let Some(ns) = ns {
                watch.at(number, ns);
            }
            !stopped.load(Ordering::Relaxed)
        });
        match drained {
            Ok(Drained::End | Drained::Stopped) => break Ok(()),
            Ok(Drained::Pending) => {}
            Err(error @ (Error::Decode { .. } | Error::Metadata { .. })) => watch.fault(&error),
            Err(error) => break Err(error),
        }
    };
    watch.warnings(messages.take_warnings());
    result
}
