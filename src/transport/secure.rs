//! TLS between a connection's socket and its packets. Nothing here runs for a connection without it.

use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};
use tokio::sync::Semaphore;

use super::connection::read;
use super::connections::Socket;
use super::outgoing::send_some;

/// Reads from the socket in one turn: records may be empty, so that bytes for the reader are no measure.
const READS_MAX: usize = 64;

/// Handshakes reckoned at once, of all shards: half of the processors stay free for those who are connected.
pub(super) fn handshakes_at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2))
}

static HANDSHAKES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(handshakes_at_once()));

pub(super) struct Tls {
    session: ServerConnection,
    /// There is more to read without the socket having to say so.
    pub(super) pending: bool,
    /// What the peer sent made no sense; said after what came before it was read.
    failure: Option<rustls::Error>,
    said_goodbye: bool,
}

struct Reader<'a>(&'a Socket);

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read(self.0, buffer)
    }
}

struct Writer<'a>(&'a Socket);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send_some(self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tls {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self { session: ServerConnection::new(config)?, pending: false, failure: None, said_goodbye: false })
    }

    /// Like a read from the socket: 0 is the peer's end.
    pub(super) fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        let mut reads = 0;
        self.pending = false;
        let ended = loop {
            if let Some(failure) = &self.failure {
                break Err(io::Error::new(io::ErrorKind::InvalidData, failure.clone()));
            }
            match self.session.reader().read(buffer.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break Ok(0),
                Ok(count) => {
                    filled += count;
                    if filled == buffer.len() {
                        break Ok(filled);
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Without a goodbye: many clients just close.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break Ok(0),
                Err(error) => break Err(error),
            }
            if reads == READS_MAX {
                self.pending = true;
                return if filled > 0 { Ok(filled) } else { Err(io::ErrorKind::WouldBlock.into()) };
            }
            reads += 1;
            match self.session.read_tls(&mut Reader(socket)) {
                Ok(_) => self.failure = self.session.process_new_packets().err(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && filled > 0 => return Ok(filled),
                Err(error) => break Err(error),
            }
        };
        // What was read comes first; the end, or the failure, is met again by the next read.
        if filled > 0 {
            self.pending = true;
            return Ok(filled);
        }
        ended
    }

    /// The certificates that the client has shown.
    pub(super) fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.peer_certificates()
    }

    pub(super) fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Writes what is encrypted; false when the socket takes no more.
    pub(super) fn write_out(&mut self, socket: &Socket) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Writer(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Encrypts some of `bytes` and returns how many.
    pub(super) fn encrypt(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.session.writer().write(bytes)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        }
    }

    /// Says that nothing more comes; true the first time.
    pub(super) fn say_goodbye(&mut self) -> bool {
        if std::mem::replace(&mut self.said_goodbye, true) {
            return false;
        }
        self.session.send_close_notify();
        true
    }

    /// The handshake as far as it goes; `socket` has something to read.
    pub(super) async fn handshake(mut self: Box<Self>, socket: &Socket) -> io::Result<Box<Self>> {
        loop {
            while !self.write_out(socket)? {
                drop(socket.writable().await?);
            }
            if !self.session.is_handshaking() {
                return Ok(self);
            }
            drop(socket.readable().await?);
            match self.session.read_tls(&mut Reader(socket)) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client closed the connection")),
                Ok(_) => {
                    let (tls, judged) = self.reckon().await?;
                    self = tls;
                    if let Err(error) = judged {
                        // The peer is told why, as far as the socket takes it.
                        let _ = self.write_out(socket);
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The arithmetic of a handshake takes some milliseconds: not on the shard's thread, where others would wait for it.
    async fn reckon(mut self: Box<Self>) -> io::Result<(Box<Self>, Result<(), rustls::Error>)> {
        let turn = HANDSHAKES.acquire().await.map_err(io::Error::other)?;
        let reckoned = tokio::task::spawn_blocking(move || {
            let judged = self.session.process_new_packets().map(drop);
            // Held until the work is done, though nobody may wait for it any more.
            drop(turn);
            (self, judged)
        });
        reckoned.await.map_err(io::Error::other)
    }
}
