//! One buffer between a sink and the system.
//!
//! Bytes are gathered up to [`CHUNK_SIZE_BYTES`] and then written with one call. Nothing is written
//! behind the sink's back: what is not flushed when the output is dropped is lost, so sinks flush
//! in `finish`.

use std::io::Write;
use std::path::PathBuf;

use crate::Error;

/// Bytes gathered before a write.
const CHUNK_SIZE_BYTES: usize = 1 << 20;
/// Bytes of lines gathered before a write: few enough to stay in the processor's second cache.
const LANE_SIZE_BYTES: usize = 256 << 10;
/// Room that [`Output::line`] gives at least.
pub(crate) const LINE_SIZE_BYTES: usize = 16 << 10;

/// A writer with a name and a buffer that sinks append to directly.
pub struct Output {
    writer: Box<dyn Write + Send>,
    /// Shown in errors.
    name: PathBuf,
    /// Bytes to write; sinks append here, then call [`settle`](Self::settle).
    pub bytes: Vec<u8>,
    /// Lines that were made in place, before `bytes`; without room until the first.
    lane: Box<[u8]>,
    /// Bytes of the lane that hold lines.
    lane_used: usize,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("name", &self.name).field("bytes", &self.bytes.len()).finish()
    }
}

impl Output {
    /// An output to `writer`; `name` is shown in errors.
    pub fn new(writer: Box<dyn Write + Send>, name: impl Into<PathBuf>) -> Self {
        Self { writer, name: name.into(), bytes: Vec::new(), lane: Box::default(), lane_used: 0 }
    }

    /// Standard output.
    pub fn stdout() -> Self {
        Self::new(Box::new(std::io::stdout()), "standard output")
    }

    /// A new file.
    ///
    /// # Errors
    /// The file can not be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let file = std::fs::File::create(&path).map_err(|error| Error::io(&path, error))?;
        Ok(Self::new(Box::new(file), path))
    }

    /// Writes if enough was gathered. Call it after each piece, such as an event.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[inline]
    pub fn settle(&mut self) -> Result<(), Error> {
        if self.bytes.len() >= CHUNK_SIZE_BYTES { self.write() } else { Ok(()) }
    }

    /// Room for a line, at least [`LINE_SIZE_BYTES`]: write from its start, then tell
    /// [`take_line`](Self::take_line) how much. Faster than appending, for there is nothing to grow.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[inline]
    pub(crate) fn line(&mut self) -> Result<&mut [u8], Error> {
        if !self.bytes.is_empty() || self.lane.len() - self.lane_used < LINE_SIZE_BYTES {
            self.make_room()?;
        }
        Ok(&mut self.lane[self.lane_used..])
    }

    /// Takes so many bytes of the room that [`line`](Self::line) gave.
    #[inline]
    pub(crate) fn take_line(&mut self, size_bytes: usize) {
        self.lane_used = (self.lane_used + size_bytes).min(self.lane.len());
    }

    #[cold]
    fn make_room(&mut self) -> Result<(), Error> {
        if self.lane.is_empty() {
            self.lane = vec![0; LANE_SIZE_BYTES].into();
        }
        // What was appended comes before the line.
        let used = self.lane_used;
        match self.lane.get_mut(used..used + self.bytes.len() + LINE_SIZE_BYTES) {
            Some(room) => {
                room[..self.bytes.len()].copy_from_slice(&self.bytes);
                self.lane_used += self.bytes.len();
                self.bytes.clear();
                Ok(())
            }
            None => self.write(),
        }
    }

    /// Writes everything.
    ///
    /// # Errors
    /// The system does not take it.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.write()?;
        self.writer.flush().map_err(|error| Error::io(&self.name, error))
    }

    fn write(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for bytes in [&self.lane[..self.lane_used], &self.bytes] {
            if !bytes.is_empty() && result.is_ok() {
                result = self.writer.write_all(bytes);
            }
        }
        self.lane_used = 0;
        self.bytes.clear();
        result.map_err(|error| Error::io(&self.name, error))
    }
}

/// An output whose bytes are sent to a channel, for tests and for callers that show them
/// themselves.
pub fn write_all_to(sender: std::sync::mpsc::Sender<Vec<u8>>) -> Output {
    struct Channel(std::sync::mpsc::Sender<Vec<u8>>);
    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    Output::new(Box::new(Channel(sender)), "channel")
}
