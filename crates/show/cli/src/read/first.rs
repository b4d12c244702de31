//! Only the first events of a sequence of messages: `--limit`.
//!
//! The message after the last wanted event is the end, so sinks finish as they always do.

use sillage_pipeline::ctf::Message;
use sillage_pipeline::{Error, Messages, Status, Warning};

/// Ends after a number of events.
pub struct First<M> {
    messages: M,
    left: u64,
    is_over: bool,
}

impl<M: Messages> First<M> {
    /// The first `count` events of `messages`, and what is between them.
    pub fn new(messages: M, count: u64) -> Self {
        Self { messages, left: count, is_over: count == 0 }
    }
}

impl<M: Messages> Messages for First<M> {
    fn advance(&mut self) -> Result<Status, Error> {
        if self.is_over {
            return Ok(Status::End);
        }
        if self.left == 0 {
            self.is_over = true;
            return Ok(Status::End);
        }
        let status = self.messages.advance()?;
        if status == Status::Ready && matches!(self.messages.current(), Some(Message::Event(_))) {
            self.left -= 1;
        }
        Ok(status)
    }

    fn current(&self) -> Option<Message<'_>> {
        if self.is_over { None } else { self.messages.current() }
    }

    fn take_warnings(&mut self) -> Vec<Warning> {
        self.messages.take_warnings()
    }
}
