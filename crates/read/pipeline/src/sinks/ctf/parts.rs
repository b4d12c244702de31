//! The streams of a copy, each written by itself.
//!
//! All streams are entered first, in the order of their list, so that files get the same names
//! however many threads write them.

use sillage_ctf::writer::TraceWriter;
use sillage_ctf::{Message, Packet};

use super::stream::StreamSink;
use super::{CtfOptions, CtfSink, Pause};
use crate::sinks::Sink;
use crate::sinks::streams::{Watch, drain_each};
use crate::sources::SliceRange;
use crate::{Error, Messages, Run, Status, TakesRuns, Warning};

impl CtfSink {
    /// Writes streams, one in each sequence, on several threads. Streams of which nothing comes are
    /// not there in the result.
    ///
    /// # Errors
    /// What can not be written, and what [`drain_each`] gives.
    pub fn write_streams<M: Messages + Send>(
        &mut self,
        streams: Vec<M>,
        threads: usize,
        watch: &dyn Watch,
    ) -> Result<(), Error> {
        let mut begun = Vec::new();
        for mut messages in streams {
            if let Some(place) = self.begin(&mut messages, watch)? {
                begun.push((place, Begun { messages, is_first: true }));
            }
        }
        let Self { options, traces, streams, .. } = self;
        let mut files: Vec<Vec<_>> = streams
            .iter_mut()
            .map(|entries| entries.iter_mut().map(|entry| Some((entry.directory, &mut entry.file))).collect())
            .collect();
        let mut jobs = Vec::new();
        for ((index, place), messages) in begun {
            let Some((directory, file)) = files[index][place].take() else {
                return Err(Error::Other("a stream comes twice".to_owned()));
            };
            let pause = Pause::default();
            jobs.push((messages, Part { writer: &traces[directory].writer, file, options, pause }));
        }
        drain_each(jobs, threads, watch)?;
        self.finish()
    }

    /// Enters the stream of the first message; gives where it is, if there is one.
    fn begin<M: Messages>(
        &mut self,
        messages: &mut M,
        watch: &dyn Watch,
    ) -> Result<Option<(usize, usize)>, Error> {
        loop {
            match messages.advance() {
                Ok(Status::Ready) => break,
                Ok(Status::Pending | Status::End) => return Ok(None),
                Err(error @ (Error::Decode { .. } | Error::Metadata { .. })) => watch.fault(&error),
                Err(error) => return Err(error),
            }
        }
        let Some(message) = messages.current() else {
            return Ok(None);
        };
        let stream = message.stream();
        let place = match self.find(stream) {
            Some(place) => place,
            None => self.enter(stream)?,
        };
        Ok(Some((stream.index, place)))
    }
}

/// Messages whose first one is stood on already.
struct Begun<M> {
    messages: M,
    is_first: bool,
}

impl<M: Messages> Messages for Begun<M> {
    #[inline]
    fn advance(&mut self) -> Result<Status, Error> {
        if std::mem::take(&mut self.is_first) {
            return Ok(Status::Ready);
        }
        self.messages.advance()
    }
    #[inline]
    fn current(&self) -> Option<Message<'_>> {
        self.messages.current()
    }
    fn skip_packet(&mut self) -> bool {
        self.messages.skip_packet()
    }
    fn give_runs(&mut self, range: SliceRange, to: &mut dyn TakesRuns) -> Result<usize, Error> {
        if self.is_first { Ok(0) } else { self.messages.give_runs(range, to) }
    }
    fn take_warnings(&mut self) -> Vec<Warning> {
        self.messages.take_warnings()
    }
}

/// One stream on its way to its file.
struct Part<'a> {
    writer: &'a TraceWriter,
    file: &'a mut StreamSink,
    options: &'a CtfOptions,
    pause: Pause,
}

impl TakesRuns for Part<'_> {
    fn room(&self) -> usize {
        self.pause.room()
    }

    fn run(&mut self, run: &Run<'_>) -> Result<usize, Error> {
        let count = self.file.run(run)?;
        self.pause.told(count);
        Ok(count)
    }
}

impl Sink for Part<'_> {
    #[inline]
    fn message(&mut self, message: &Message<'_>) -> Result<(), Error> {
        match message {
            Message::Event(event) => self.file.event(self.writer, event),
            message => self.file.message(self.writer, message, self.options),
        }
    }

    fn wants_packet(&self, packet: &Packet<'_>) -> bool {
        self.writer.keeps_packets(packet.stream.class.index)
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        self.file.copy(self.writer, packet)
    }

    fn as_runs(&mut self) -> Option<&mut dyn TakesRuns> {
        Some(self)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.flush()
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.file.finish()
    }
}
