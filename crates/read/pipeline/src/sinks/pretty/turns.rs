//! Several workers, one text: what each writes is held back until its turn.
//!
//! The time of a trace is cut into slices, each of which one worker writes. A worker whose slice
//! has its turn writes straight to the output; the others keep their pieces, up to a limit, then
//! wait. Slices follow one another exactly: a worker's pieces count only if it began where the
//! slice before it ended, in every stream. What is unusual in a trace (clocks that go back, faults)
//! may break that; then the slice is written again by whoever wrote the one before it.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{LastTimes, push_difference};
use crate::Error;
use crate::sources::Position;

/// Text that a worker keeps before it waits for its turn.
const KEPT_SIZE_BYTES: usize = 6 << 20;

/// What the workers have in common.
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
    count: usize,
    is_cycles: bool,
}

struct State {
    output: Box<dyn Write + Send>,
    notes: Box<dyn Write + Send>,
    fault: Box<dyn FnMut(&Error) + Send>,
    /// First slice that nobody took.
    next: usize,
    /// The slice that is written.
    turn: usize,
    /// Where workers began slices whose turn is still to come.
    begins: Vec<(usize, Vec<Position>)>,
    /// Whether the worker of `turn` may write; `None` until that is known.
    verdict: Option<bool>,
    /// Times of the last event written.
    times: LastTimes,
    /// The output can not be written to, or a worker failed: all stop.
    failure: Option<Error>,
    stopped: bool,
}

/// What is kept.
enum Kept {
    Text(Vec<u8>),
    Note(Vec<u8>),
    Difference(LastTimes),
    Fault(Error),
}

/// A worker's part, and the writer of its text.
#[derive(Clone)]
pub(super) struct Share {
    turns: Arc<Turns>,
    own: Arc<Mutex<Own>>,
}

#[derive(Default)]
struct Own {
    slice: usize,
    kept: Vec<Kept>,
    kept_size_bytes: usize,
    /// The slice has its turn: nothing is kept.
    is_direct: bool,
    /// What was written does not count.
    is_rejected: bool,
}

/// What a worker does after a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Goes on with the slice after it, which is its own now, straight to the output.
    GoOn(usize),
    /// Takes a new one.
    Take,
    Stop,
}

/// The text of the slice does not count.
fn rejected() -> std::io::Error {
    std::io::Error::other("the slice is written by another worker")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turns {
    /// Turns of so many slices.
    pub(super) fn new(
        count: usize,
        is_cycles: bool,
        output: Box<dyn Write + Send>,
        notes: Box<dyn Write + Send>,
        fault: Box<dyn FnMut(&Error) + Send>,
    ) -> Arc<Self> {
        let state = State {
            output,
            notes,
            fault,
            next: 0,
            turn: 0,
            begins: Vec::new(),
            // Nothing is before the first.
            verdict: Some(true),
            times: LastTimes::default(),
            failure: None,
            stopped: false,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), count, is_cycles })
    }

    /// The part of one worker.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share { turns: Arc::clone(self), own: Arc::default() }
    }

    /// What went wrong.
    pub(super) fn take_failure(&self) -> Option<Error> {
        locked(&self.state).failure.take()
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        until: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waits = |state: &mut State| !state.stopped && !until(state);
        self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops all workers.
    fn stop(&self, state: &mut State, failure: Option<Error>) {
        state.stopped = true;
        if state.failure.is_none() {
            state.failure = failure;
        }
        self.changed.notify_all();
    }

    fn put(&self, state: &mut State, kept: &Kept) -> std::io::Result<()> {
        match kept {
            Kept::Text(text) => state.output.write_all(text),
            Kept::Note(text) => {
                // Whoever closed the notes does not want them; the text goes on.
                let _ = state.notes.write_all(text);
                Ok(())
            }
            Kept::Difference(now) => {
                let mut text = Vec::new();
                push_difference(&mut text, self.is_cycles, state.times, *now);
                state.output.write_all(&text)
            }
            Kept::Fault(error) => {
                (state.fault)(error);
                Ok(())
            }
        }
    }
}

impl Share {
    /// The first slice that nobody has, which is this worker's now.
    pub(super) fn take(&self) -> Option<usize> {
        let mut state = locked(&self.turns.state);
        if state.stopped || state.next == self.turns.count {
            return None;
        }
        let slice = state.next;
        state.next += 1;
        *locked(&self.own) = Own { slice, is_direct: slice == 0, ..Own::default() };
        Some(slice)
    }

    /// Tells where the slice begins.
    pub(super) fn begins_at(&self, positions: Vec<Position>) {
        let own = locked(&self.own);
        if !own.is_direct {
            locked(&self.turns.state).begins.push((own.slice, positions));
            self.turns.changed.notify_all();
        }
    }

    /// Writes, or keeps to write later. An error ends the slice.
    fn give(&self, kept: Kept) -> std::io::Result<()> {
        let mut own = locked(&self.own);
        if own.is_rejected {
            return Err(rejected());
        }
        if !own.is_direct {
            own.kept_size_bytes += if let Kept::Text(text) = &kept { text.len() } else { 64 };
            own.kept.push(kept);
            let is_full = own.kept_size_bytes >= KEPT_SIZE_BYTES;
            return self.settle(&mut own, is_full);
        }
        let mut state = locked(&self.turns.state);
        self.turns.put(&mut state, &kept)
    }

    /// Writes what was kept if it is its turn; waits for that when asked to.
    fn settle(&self, own: &mut Own, patiently: bool) -> std::io::Result<()> {
        let slice = own.slice;
        let mut state = locked(&self.turns.state);
        // Whoever wrote the slice in this worker's place may be through with it.
        let is_known = |state: &State| state.turn > slice || (state.turn == slice && state.verdict.is_some());
        if patiently {
            state = self.turns.wait(state, is_known);
        }
        if state.stopped {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        if !is_known(&state) {
            return Ok(());
        }
        let kept = std::mem::take(&mut own.kept);
        if state.turn > slice || state.verdict == Some(false) {
            own.is_rejected = true;
            return Err(rejected());
        }
        own.is_direct = true;
        kept.iter().try_for_each(|kept| self.turns.put(&mut state, kept))
    }

    /// Tells the time of the first event of a slice, whose difference to the one before is not
    /// known here.
    pub(super) fn difference(&self, now: LastTimes) -> Result<(), Error> {
        self.give(Kept::Difference(now)).map_err(|error| Error::io("standard output", error))
    }

    /// Tells a fault of the trace, in its place.
    pub(super) fn fault(&self, error: Error) {
        // What stops the writing is found when the slice ends.
        let _ = self.give(Kept::Fault(error));
    }

    /// The slice is written: `ends` is where, `times` are those of its last event. Waits for its
    /// turn and until it is known who writes the slice after it.
    pub(super) fn ends_at(&self, result: Result<(), Error>, ends: &[Position], times: LastTimes) -> Next {
        let mut own = locked(&self.own);
        let settled = match own.is_direct || own.is_rejected || result.is_err() {
            true => Ok(()),
            false => self.settle(&mut own, true),
        };
        if own.is_rejected {
            return Next::Take;
        }
        let mut state = locked(&self.turns.state);
        if let Err(error) = result.and(settled.map_err(|error| Error::io("output", error))) {
            let failure = (!state.stopped).then_some(error);
            self.turns.stop(&mut state, failure);
        }
        if state.stopped {
            return Next::Stop;
        }
        if times.ns.is_some() || times.cycles.is_some() {
            state.times = times;
        }
        let after = own.slice + 1;
        state.turn = after;
        state.verdict = None;
        if after == self.turns.count {
            return Next::Stop;
        }
        if state.next == after {
            state.next += 1;
        } else {
            let began = |state: &State| state.begins.iter().any(|(slice, _)| *slice == after);
            state = self.turns.wait(state, began);
            if state.stopped {
                return Next::Stop;
            }
            let is_right = state.begins.iter().any(|(slice, begin)| *slice == after && begin == ends);
            state.begins.retain(|(slice, _)| *slice > after);
            state.verdict = Some(is_right);
            self.turns.changed.notify_all();
            if is_right {
                return Next::Take;
            }
        }
        own.slice = after;
        Next::GoOn(after)
    }
}

impl Write for Share {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if locked(&self.own).is_direct {
            let mut state = locked(&self.turns.state);
            return state.output.write(bytes);
        }
        self.give(Kept::Text(bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if locked(&self.own).is_direct { locked(&self.turns.state).output.flush() } else { Ok(()) }
    }
}

/// The writer of a worker's notes.
pub(super) struct Notes(pub Share);

impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.give(Kept::Note(bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
