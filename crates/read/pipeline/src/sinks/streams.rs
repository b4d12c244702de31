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
    let (messages, sinks): (Vec<M>, Vec<S>) = streams.into_iter().unzip();
    let sinks: Vec<_> = sinks.into_iter().map(Mutex::new).collect();
    work(messages, threads, |(): &mut (), number, messages, stopped| {
        let sink = sinks.get(number).map(|sink| sink.lock().unwrap_or_else(PoisonError::into_inner));
        sink.map_or(Ok(()), |mut sink| drain_one(messages, &mut *sink, number, stopped, watch))
    })?;
    Ok(sinks.into_iter().map(|sink| sink.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

/// Gives the streams to one sink for each thread, as many of them to each as it comes to; gives the
/// sinks, which together had every stream once.
///
/// # Errors
/// As [`drain_each`].
pub fn drain_shared<M: Messages + Send, S: Sink + Send + Default>(
    streams: Vec<M>,
    threads: usize,
    watch: &dyn Watch,
) -> Result<Vec<S>, Error> {
    work(streams, threads, |sink, number, messages, stopped| {
        drain_one(messages, sink, number, stopped, watch)
    })
}

/// Goes through the streams on several threads, each with a state of its own, until one fails; what a
/// stream takes is freed at its end.
fn work<M: Send, T: Send + Default>(
    streams: Vec<M>,
    threads: usize,
    one: impl Fn(&mut T, usize, &mut M, &AtomicBool) -> Result<(), Error> + Sync,
) -> Result<Vec<T>, Error> {
    let threads = threads.clamp(1, streams.len().max(1));
    let jobs: Vec<_> = streams.into_iter().map(|job| Mutex::new(Some(job))).collect();
    let failures: Mutex<Vec<(usize, Error)>> = Mutex::default();
    let next = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let work = || {
        let mut state = T::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(number) else { return state };
            let taken = job.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(mut messages) = taken else { continue };
            if let Err(error) = one(&mut state, number, &mut messages, &stopped) {
                failures.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
                stopped.store(true, Ordering::Relaxed);
            }
        }
    };
    let states = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let mut states = vec![own];
        for worker in others {
            match worker.join() {
                Ok(state) => states.push(state),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        states
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failures.into_iter().min_by_key(|(number, _)| *number) {
        Some((_, error)) => Err(error),
        None => Ok(states),
    }
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
