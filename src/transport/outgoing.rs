//! Bytes that wait for a socket, and the buffers they wait in: a connection with nothing to send owns none.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{MsgFlags, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::secure::Tls;

/// One write to the socket.
pub(super) fn send_some(socket: &AsyncFd<OwnedFd>, bytes: &[u8]) -> io::Result<usize> {
    socket.try_io(Interest::WRITABLE, |fd| Ok(send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?))
}

/// Buffers that were emptied, kept for the next connection that has something to send.
#[derive(Debug, Default)]
pub(super) struct Spares {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spares {
    /// All spare buffers together; a burst over many connections needs more for a moment, which goes back to the allocator.
    const BYTES_MAX: usize = 1 << 20;

    fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    fn put(&mut self, mut buffer: Vec<u8>) {
        if self.bytes + buffer.capacity() <= Self::BYTES_MAX {
            buffer.clear();
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    /// Bytes that are not yet in the socket.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Appends a packet; `patch` overwrites two bytes at an offset from its start.
    pub(super) fn push(&mut self, packet: &[u8], patch: Option<(u32, [u8; 2])>, spares: &mut Spares) {
        if self.bytes.capacity() == 0 {
            self.bytes = spares.take();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet);
        if let Some((offset, value)) = patch {
            let at = start + offset as usize;
            if let Some(target) = self.bytes.get_mut(at..at + 2) {
                target.copy_from_slice(&value);
            }
        }
    }

    /// Writes what the socket takes; true when all is written.
    pub(super) fn flush(&mut self, socket: &AsyncFd<OwnedFd>, spares: &mut Spares) -> io::Result<bool> {
        while self.written < self.bytes.len() {
            let rest = self.bytes.get(self.written..).unwrap_or_default();
            match send_some(socket, rest) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.compact();
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.emptied(spares);
        Ok(true)
    }

    /// The same through TLS; `closing` ends it once all is written.
    pub(super) fn flush_secure(
        &mut self,
        tls: &mut Tls,
        socket: &AsyncFd<OwnedFd>,
        closing: bool,
        spares: &mut Spares,
    ) -> io::Result<bool> {
        loop {
            if !tls.write_out(socket)? {
                self.compact();
                return Ok(false);
            }
            let rest = self.bytes.get(self.written..).unwrap_or_default();
            if !rest.is_empty() {
                self.written += tls.encrypt(rest)?;
            } else if !(closing && tls.say_goodbye()) {
                break;
            }
        }
        self.emptied(spares);
        Ok(true)
    }

    fn emptied(&mut self, spares: &mut Spares) {
        self.written = 0;
        if self.bytes.capacity() > 0 {
            spares.put(std::mem::take(&mut self.bytes));
        }
    }

    /// Written bytes are given back once they are the larger part, so that a slow reader costs no more than twice what waits for it.
    fn compact(&mut self) {
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}
