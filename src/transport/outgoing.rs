//! Bytes that wait for a socket, and the buffers they wait in: a connection with nothing to send owns none.

use std::collections::VecDeque;
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
    /// What stands behind a place in `bytes` waits until the store has so many records.
    holds: VecDeque<(u64, usize)>,
}

impl Outgoing {
    /// What is pushed from here on waits until the store has `until` records.
    pub(super) fn hold(&mut self, until: u64) {
        self.holds.push_back((until, self.bytes.len()));
    }

    /// The store has so many records. True when bytes may leave that could not before.
    pub(super) fn release(&mut self, stored: u64) -> bool {
        let before = self.holds.len();
        while self.holds.front().is_some_and(|(until, _)| *until <= stored) {
            self.holds.pop_front();
        }
        self.holds.len() < before
    }

    /// Forgets all that waits for the store.
    pub(super) fn take_back(&mut self) {
        self.bytes.truncate(self.may_leave());
        self.holds = VecDeque::new();
    }

    /// Nothing can leave before the store gets on.
    pub(super) fn waits_for_store(&self) -> bool {
        self.holds.front().is_some_and(|(_, at)| *at <= self.written)
    }

    /// Where the bytes end that may leave.
    fn may_leave(&self) -> usize {
        self.holds.front().map_or(self.bytes.len(), |(_, at)| *at)
    }

    /// Bytes that are not yet in the socket.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Appends a packet; `patch` overwrites two bytes at an offset from its start.
    pub(super) fn push(&mut self, packet: &[u8], patch: Option<(u32, [u8; 2])>, spares: &mut Spares) {
        self.append(spares, |bytes| {
            let start = bytes.len();
            bytes.extend_from_slice(packet);
            if let Some((offset, value)) = patch {
                let at = start + offset as usize;
                if let Some(target) = bytes.get_mut(at..at + 2) {
                    target.copy_from_slice(&value);
                }
            }
        });
    }

    /// Lets `write` append to what waits.
    pub(super) fn append(&mut self, spares: &mut Spares, write: impl FnOnce(&mut Vec<u8>)) {
        if self.bytes.capacity() == 0 {
            self.bytes = spares.take();
        }
        write(&mut self.bytes);
    }

    /// Writes what the socket takes; true when all is written.
    pub(super) fn flush(&mut self, socket: &AsyncFd<OwnedFd>, spares: &mut Spares) -> io::Result<bool> {
        let end = self.may_leave();
        while self.written < end {
            let rest = self.bytes.get(self.written..end).unwrap_or_default();
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
            let rest = self.bytes.get(self.written..self.may_leave()).unwrap_or_default();
            if !rest.is_empty() {
                self.written += tls.encrypt(rest)?;
            } else if !(closing && self.holds.is_empty() && tls.say_goodbye()) {
                break;
            }
        }
        self.emptied(spares);
        Ok(true)
    }

    /// All is written that may leave.
    fn emptied(&mut self, spares: &mut Spares) {
        if !self.holds.is_empty() {
            return self.compact();
        }
        self.written = 0;
        if self.bytes.capacity() > 0 {
            spares.put(std::mem::take(&mut self.bytes));
        }
    }

    /// Written bytes are given back once they are the larger part, so that a slow reader costs no more than twice what waits for it.
    fn compact(&mut self) {
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            for (_, at) in &mut self.holds {
                *at -= self.written;
            }
            self.written = 0;
        }
    }
}
