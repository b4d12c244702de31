//! The bytes between viewer and relay: a TCP connection, or anything that can stand for one.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::url::{Family, LiveUrl};
use crate::Error;

/// How often a wait looks whether it is interrupted.
const WAIT_STEP: Duration = Duration::from_millis(50);
/// Longest time to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes asked of the system at once, so that memory grows only with what arrives.
const RECEIVE_BYTES: usize = 256 << 10;

/// Carries bytes.
pub trait Link: Send {
    /// Sends a whole request.
    ///
    /// # Errors
    /// What the system says; [`ErrorKind::Interrupted`] when the user wants to stop.
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()>;

    /// Appends to `buffer` until it holds exactly `len` bytes.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`ErrorKind::UnexpectedEof`] when the relay hangs up.
    fn receive(&mut self, buffer: &mut Vec<u8>, len: usize) -> std::io::Result<()>;
}

/// A TCP connection.
#[derive(Debug)]
pub struct TcpLink {
    stream: TcpStream,
    interrupted: Arc<AtomicBool>,
}

impl TcpLink {
    /// Connects to the relay of an address. Waiting ends soon after `interrupted` becomes true.
    ///
    /// # Errors
    /// No such host, nobody who answers.
    pub fn connect(url: &LiveUrl, interrupted: Arc<AtomicBool>) -> Result<Self, Error> {
        let failed = |error| Error::io(format!("net://{}:{}", url.host, url.port), error);
        let addresses = (url.host.as_str(), url.port).to_socket_addrs().map_err(failed)?;
        let mut last = std::io::Error::new(ErrorKind::NotFound, "no address of this family");
        for address in addresses {
            let fits = match url.family {
                Family::Any => true,
                Family::V4 => address.is_ipv4(),
                Family::V6 => address.is_ipv6(),
            };
            if !fits {
                continue;
            }
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(WAIT_STEP)).map_err(failed)?;
                    stream.set_nodelay(true).map_err(failed)?;
                    return Ok(Self { stream, interrupted });
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Whether to go on after this error.
    fn may_go_on(&self, error: &std::io::Error) -> bool {
        let waited =
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted);
        // Only told from the user's side; nothing else is read after it.
        waited && !self.interrupted.load(Ordering::Relaxed)
    }
}

fn stopped(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ErrorKind::Interrupted.into(),
        _ => error,
    }
}

impl Link for TcpLink {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if self.may_go_on(&error) => {}
                Err(error) => return Err(stopped(error)),
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, len: usize) -> std::io::Result<()> {
        while buffer.len() < len {
            let from = buffer.len();
            buffer.resize(from + (len - from).min(RECEIVE_BYTES), 0);
            let result = self.stream.read(&mut buffer[from..]);
            buffer.truncate(from + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if self.may_go_on(&error) => {}
                Err(error) => return Err(stopped(error)),
            }
        }
        Ok(())
    }
}
