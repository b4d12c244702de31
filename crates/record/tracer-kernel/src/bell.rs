//! The bell: kernel programs put a note into a small ring buffer when they open a sub-buffer, and a
//! thread here rings the consumer's doorbell for it.
//!
//! Once for each sub-buffer, never for each event: waking somebody from inside the kernel costs more
//! than recording. The notes' content is not looked at: the consumer looks at all rings that it
//! serves anyway.

use crate::sys::{self, MapKind, MapSpec, Page, SysError};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use sillage_consumer::DoorbellMemory;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of the ring buffer: 16 for each note, of which a few are there at a time.
const NOTES_BYTES: u32 = 16 << 10;
/// Stack of the thread, bytes.
const STACK_BYTES: usize = 64 << 10;

/// The bell of one consumer. Its thread ends when this is dropped.
pub struct Bell {
    notes: Arc<OwnedFd>,
    end: Arc<OwnedFd>,
}

impl Bell {
    /// Starts the thread that rings `doorbell`.
    ///
    /// # Errors
    /// No rights to make the ring buffer; no thread.
    pub fn start(doorbell: Arc<DoorbellMemory>) -> Result<Bell, SysError> {
        let failed = |call| move |error: io::Error| SysError::Failed { call, error };
        let notes = Arc::new(sys::create_map(&MapSpec {
            kind: MapKind::RingBuffer,
            value_bytes: 0,
            entries: NOTES_BYTES,
            mappable: false,
            inner: None,
            name: "notes",
        })?);
        let end = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| failed("eventfd")(e.into()))?;
        let end = Arc::new(end);
        let read = Page::map(notes.as_fd(), 0, true)?;
        let written = Page::map(notes.as_fd(), 4096, false)?;
        let thread = Thread { notes: Arc::clone(&notes), end: Arc::clone(&end), doorbell, read, written };
        let builder = std::thread::Builder::new().name("bell".into()).stack_size(STACK_BYTES);
        builder.spawn(move || thread.run()).map_err(failed("starting a thread"))?;
        Ok(Bell { notes, end })
    }

    /// Where programs put their notes.
    pub(crate) fn notes(&self) -> BorrowedFd<'_> {
        self.notes.as_fd()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // It can only fail when the thread is told already.
        let _ = rustix::io::write(&*self.end, &1u64.to_ne_bytes());
    }
}

struct Thread {
    notes: Arc<OwnedFd>,
    end: Arc<OwnedFd>,
    doorbell: Arc<DoorbellMemory>,
    /// Position up to which notes were taken.
    read: Page,
    /// Position up to which there are notes.
    written: Page,
}

impl Thread {
    fn run(self) {
        // Without the right to it, a machine full of runnable tasks may let rings overflow; the loss
        // is counted there.
        let _ = sys::run_first();
        loop {
            let mut sources =
                [PollFd::new(&*self.notes, PollFlags::IN), PollFd::new(&*self.end, PollFlags::IN)];
            if poll(&mut sources, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
                return;
            }
            if !sources[1].revents().is_empty() {
                return;
            }
            self.read.word().store(self.written.load(), Ordering::Release); // pairs with the kernel's acquire
            let doorbell = self.doorbell.doorbell();
            doorbell.bell.fetch_add(1, Ordering::Release); // pairs with the consumer's Acquire
            sys::wake(&doorbell.bell);
        }
    }
}
