//! Several sequences as one, in the order of time; at equal times the first in the list first.
//!
//! For sequences that were filtered on their own (stream intersection) or come from sources of
//! different kinds. A source merges its own streams faster by itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use sillage_ctf::Message;

use crate::{Error, Messages, Status, Warning};

/// Merges sequences.
#[derive(Debug)]
pub struct Merge<M> {
    inputs: Vec<M>,
    /// Heads of all inputs but the current one: (time, input).
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    /// Inputs that have to be advanced before there can be a next message.
    waiting: Vec<usize>,
    current: Option<usize>,
    last_ns: i64,
}

impl<M: Messages> Merge<M> {
    /// Merges these.
    pub fn new(inputs: Vec<M>) -> Self {
        Self {
            heads: BinaryHeap::with_capacity(inputs.len()),
            waiting: (0..inputs.len()).rev().collect(),
            inputs,
            current: None,
            last_ns: i64::MIN,
        }
    }

    /// Time of the input's current message; that of the message before for those without.
    #[inline]
    fn head(&self, input: usize) -> i64 {
        let clock = self.inputs[input].current().and_then(|message| message.clock());
        clock.and_then(|clock| clock.ns).unwrap_or(self.last_ns)
    }

    /// Advances an input; its head is not entered.
    fn step(&mut self, input: usize) -> Result<bool, Error> {
        match self.inputs[input].advance() {
            Ok(Status::Ready) => Ok(true),
            Ok(Status::Pending) => {
                self.waiting.push(input);
                Ok(false)
            }
            Ok(Status::End) => Ok(false),
            Err(error) => {
                // It may have other streams: it is asked again.
                self.waiting.push(input);
                Err(error)
            }
        }
    }
}

impl<M: Messages> Messages for Merge<M> {
    fn advance(&mut self) -> Result<Status, Error> {
        if let Some(current) = self.current.take()
            && self.step(current)?
        {
            let ns = self.head(current);
            match self.heads.peek() {
                Some(Reverse(least)) if *least < (ns, current) => self.heads.push(Reverse((ns, current))),
                _ if !self.waiting.is_empty() => self.heads.push(Reverse((ns, current))),
                _ => {
                    self.last_ns = ns;
                    self.current = Some(current);
                    return Ok(Status::Ready);
                }
            }
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        while let Some(input) = waiting.pop() {
            match self.step(input) {
                Ok(true) => {
                    let ns = self.head(input);
                    self.heads.push(Reverse((ns, input)));
                }
                Ok(false) => {}
                Err(error) => {
                    self.waiting.append(&mut waiting);
                    return Err(error);
                }
            }
        }
        if !self.waiting.is_empty() {
            return Ok(Status::Pending);
        }
        let Some(Reverse((ns, input))) = self.heads.pop() else {
            return Ok(Status::End);
        };
        self.last_ns = ns;
        self.current = Some(input);
        Ok(Status::Ready)
    }

    #[inline]
    fn current(&self) -> Option<Message<'_>> {
        self.inputs[self.current?].current()
    }

    fn seek(&mut self, ns: i64) -> Result<bool, Error> {
        for input in &mut self.inputs {
            if !input.seek(ns)? {
                return Ok(false);
            }
        }
        self.heads.clear();
        self.current = None;
        self.last_ns = i64::MIN;
        self.waiting = (0..self.inputs.len()).rev().collect();
        Ok(true)
    }

    fn skip_packet(&mut self) -> bool {
        self.current.is_some_and(|input| self.inputs[input].skip_packet())
    }

    fn take_warnings(&mut self) -> Vec<Warning> {
        self.inputs.iter_mut().flat_map(Messages::take_warnings).collect()
    }
}
