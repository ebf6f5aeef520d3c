//! One task for each connection: it waits for bytes, and makes packets of them.

use std::io;
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::sync::Notify;

use super::connections::Socket;
use super::driver::{Driver, HOLD_BYTES, Shard};
use crate::broker::{ConnectionId, Input};
use crate::mqtt::codec::{Decoded, decode_from_client};
use crate::mqtt::{Packet, ProtocolVersion};
use crate::websocket::frames::End;

/// Bytes that a peer may make us hold before it has sent a CONNECT.
const CONNECT_BYTES_MAX: u32 = 64 << 10;

/// A connection's packets are handled for this long before others have their turn: some packets are a lot of work (a PUBLISH for
/// thousands of subscriptions), and while they last nobody is heard, not even the watchdog.
const TURN_MAX: Duration = Duration::from_micros(200);
/// Packets between two looks at the clock; the first few may each be a lot of work, and are looked at more closely.
const CLOCK_EVERY: u32 = 16;

/// What was read and is not a whole packet yet.
pub(super) struct Incoming {
    tail: Vec<u8>,
    /// Bytes that the packet in `tail` has in all, as far as known.
    needed: usize,
    /// Of the Network Connection; nothing depends on it before CONNECT.
    version: ProtocolVersion,
    connected: bool,
    /// Its packets took so long that others have their turn before the rest of `tail`.
    interrupted: bool,
    is_secure: bool,
    is_websocket: bool,
    /// The peer's last frame was read; what came before it is still to be done.
    end: Option<End>,
}

impl Incoming {
    pub(super) fn new(is_secure: bool, is_websocket: bool) -> Self {
        Self {
            tail: Vec::new(),
            needed: 0,
            version: ProtocolVersion::V5,
            connected: false,
            interrupted: false,
            is_secure,
            is_websocket,
            end: None,
        }
    }
}

/// What the task does next.
enum Next {
    /// Wait for bytes.
    Read,
    /// There is more to read, but others have their turn first.
    Again,
    /// There are whole packets left, but others have their turn first.
    Rest,
    /// Wait until its own socket takes bytes: it is not read from while so much waits for it.
    Held,
    /// Wait for its password to be checked.
    Paused(Rc<Notify>),
    /// Wait for the store, which has more to write than it wants to hold.
    Behind(Rc<Notify>),
    End,
}

/// `early` was read before its time.
pub(super) async fn serve(shard: Shard, id: ConnectionId, socket: Rc<Socket>, mut incoming: Incoming, early: Vec<u8>) {
    // The handshake may have read the first packet with it.
    let mut next = if incoming.is_secure { Next::Again } else { Next::Read };
    if !early.is_empty() {
        match shard.turn(|driver| driver.early(id, early, &mut incoming)) {
            Some(Next::Read) => {}
            Some(then) => next = then,
            None => return,
        }
    }
    loop {
        let turn = match next {
            Next::Read => {
                let Ok(ready) = socket.readable().await else { return };
                drop(ready);
                shard.turn(|driver| driver.read(id, &socket, &mut incoming))
            }
            Next::Again => {
                tokio::task::yield_now().await;
                shard.turn(|driver| driver.read(id, &socket, &mut incoming))
            }
            Next::Rest => {
                tokio::task::yield_now().await;
                shard.turn(|driver| driver.resume(id, &mut incoming))
            }
            Next::Held => {
                let Ok(ready) = socket.writable().await else { return };
                drop(ready);
                shard.turn(|driver| {
                    driver.flush(id);
                    driver.after(id, &incoming)
                })
            }
            Next::Paused(checked) => {
                checked.notified().await;
                shard.turn(|driver| driver.resume(id, &mut incoming))
            }
            Next::Behind(went_on) => {
                went_on.notified().await;
                shard.turn(|driver| driver.after(id, &incoming))
            }
            Next::End => return,
        };
        match turn {
            Some(then) => next = then,
            None => return,
        }
    }
}

/// Reads once. A read that does not fill the buffer has emptied the socket, which spares the second read that would say so.
pub(super) fn read(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    let mut received = None;
    let result = socket.try_io(Interest::READABLE, |fd| {
        let count = recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?;
        received = Some(count);
        if count > 0 && count < buffer.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match received {
        Some(count) => Ok(count),
        None => result.map(|()| 0),
    }
}

impl Driver {
    fn read(&mut self, id: ConnectionId, socket: &Socket, incoming: &mut Incoming) -> Next {
        let mut scratch = std::mem::take(&mut self.scratch);
        let next = self.read_into(&mut scratch, id, socket, incoming);
        self.scratch = scratch;
        next
    }

    fn read_into(&mut self, scratch: &mut [u8], id: ConnectionId, socket: &Socket, incoming: &mut Incoming) -> Next {
        // A short tail goes in front of what is read; a long one (of a large packet) grows where it is.
        let held = incoming.tail.len();
        let start = if held <= scratch.len() / 2 { held } else { 0 };
        scratch[..start].copy_from_slice(&incoming.tail[..start]);
        let full = scratch.len() - start;
        let (result, more) = if incoming.is_secure {
            self.read_secure(id, socket, &mut scratch[start..])
        } else {
            (read(socket, &mut scratch[start..]), false)
        };
        let count = match result {
            Ok(0) => {
                self.lost(id, None);
                return Next::End;
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return if more { Next::Again } else { Next::Read };
            }
            Err(error) => {
                self.lost(id, Some(error.to_string()));
                return Next::End;
            }
        };
        let brought = count;
        let count = if incoming.is_websocket { self.take_frames(id, &mut scratch[start..start + count], incoming) } else { count };
        let next = if start == held {
            incoming.tail = Vec::new();
            let used = self.packets(id, &scratch[..held + count], incoming);
            incoming.tail.extend_from_slice(&scratch[used..held + count]);
            self.after(id, incoming)
        } else {
            incoming.tail.extend_from_slice(&scratch[..count]);
            if incoming.tail.len() < incoming.needed { self.after(id, incoming) } else { self.resume(id, incoming) }
        };
        if matches!(next, Next::Read) && (brought == full || more) { Next::Again } else { next }
    }

    /// Takes the frames off what a WebSocket brought: how many bytes are left at the start, and whether that was the end.
    fn unframe(&mut self, id: ConnectionId, bytes: &mut [u8]) -> (usize, Option<End>) {
        let Some(connection) = self.connections.get_mut(id) else { return (0, None) };
        let Some(websocket) = &mut connection.websocket else { return (bytes.len(), None) };
        let mut answers = Vec::new();
        let unframed = websocket.unframe(bytes, &mut answers);
        if !answers.is_empty() && !connection.closing {
            connection.outgoing.append(&mut self.spares, |bytes| bytes.append(&mut answers));
            self.flush_soon(id);
        }
        unframed
    }

    fn take_frames(&mut self, id: ConnectionId, bytes: &mut [u8], incoming: &mut Incoming) -> usize {
        let (count, end) = self.unframe(id, bytes);
        incoming.end = incoming.end.take().or(end);
        count
    }

    fn early(&mut self, id: ConnectionId, mut bytes: Vec<u8>, incoming: &mut Incoming) -> Next {
        let count = self.take_frames(id, &mut bytes, incoming);
        bytes.truncate(count);
        incoming.tail = bytes;
        self.resume(id, incoming)
    }

    /// Goes on with bytes that were read before.
    fn resume(&mut self, id: ConnectionId, incoming: &mut Incoming) -> Next {
        let mut bytes = std::mem::take(&mut incoming.tail);
        let used = self.packets(id, &bytes, incoming);
        if used < bytes.len() {
            bytes.drain(..used);
            bytes.shrink_to(2 * bytes.len());
            incoming.tail = bytes;
        }
        self.after(id, incoming)
    }

    fn after(&mut self, id: ConnectionId, incoming: &Incoming) -> Next {
        let waits_for_router = self.waits_for_router();
        let Some(connection) = self.connections.get_mut(id) else { return Next::End };
        match &connection.authenticating {
            Some(waiting) => Next::Paused(Rc::clone(waiting)),
            None if connection.outgoing.len() > HOLD_BYTES && connection.outgoing.waits_for_store() => {
                Next::Behind(Rc::clone(&self.keeping.went_on))
            }
            None if connection.outgoing.len() > HOLD_BYTES => Next::Held,
            None if self.keeping.is_behind() => Next::Behind(Rc::clone(&self.keeping.went_on)),
            None if waits_for_router && let Some(outside) = &self.outside => Next::Behind(Rc::clone(&outside.came_back)),
            None if incoming.interrupted => Next::Rest,
            None if incoming.end.is_some() => {
                self.perform();
                self.flush(id);
                let error = match &incoming.end {
                    Some(End::Violation { what, .. }) => Some(format!("WebSocket: {what}")),
                    _ => None,
                };
                self.lost(id, error);
                Next::End
            }
            None if connection.tls.as_ref().is_some_and(|tls| tls.pending) => Next::Again,
            None => Next::Read,
        }
    }

    /// Reads through TLS; also whether there is more without the socket saying so.
    fn read_secure(&mut self, id: ConnectionId, socket: &Socket, buffer: &mut [u8]) -> (io::Result<usize>, bool) {
        let Some(tls) = self.connections.get_mut(id).and_then(|connection| connection.tls.as_mut()) else { return (Ok(0), false) };
        let (result, more) = (tls.read(socket, buffer), tls.pending);
        match &result {
            // The peer is told what was wrong before it is closed.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => self.flush(id),
            _ => self.answer_tls(id),
        }
        (result, more)
    }

    /// Gives the machine every whole packet; returns how many bytes are done with.
    fn packets(&mut self, id: ConnectionId, bytes: &[u8], incoming: &mut Incoming) -> usize {
        let limit = self.settings.conf.limits.packet_size.unwrap_or(u32::MAX);
        let began = Instant::now();
        let mut used = 0;
        let mut count = 0_u32;
        incoming.interrupted = false;
        while used < bytes.len() {
            if (count.is_power_of_two() || count % CLOCK_EVERY == CLOCK_EVERY - 1) && began.elapsed() > TURN_MAX {
                incoming.interrupted = true;
                return used;
            }
            if self.waits_for_router() {
                incoming.interrupted = true;
                return used;
            }
            count += 1;
            // What a closed connection still sends goes nowhere.
            let Some(connection) = self.connections.get_mut(id).filter(|connection| !connection.closing) else { return bytes.len() };
            if connection.authenticating.is_some() {
                return used;
            }
            let limit = if incoming.connected { limit } else { limit.min(CONNECT_BYTES_MAX) };
            match decode_from_client(&bytes[used..], incoming.version, limit) {
                Ok(Decoded::Packet { packet, len }) => {
                    used += len;
                    let is_connect = !incoming.connected;
                    incoming.connected = true;
                    if let (true, Packet::Connect(connect)) = (is_connect, &packet) {
                        incoming.version = connect.version;
                    }
                    self.input(Input::Packet { connection: id, packet, len });
                    if is_connect {
                        // It may ask for a password check, which the packets after it wait for.
                        self.perform();
                    }
                }
                Ok(Decoded::Incomplete { needed }) => {
                    incoming.needed = needed;
                    return used;
                }
                Err(error) => {
                    self.input(Input::Malformed { connection: id, error });
                    self.perform();
                    return bytes.len();
                }
            }
        }
        used
    }
}
