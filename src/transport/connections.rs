//! The table of Network Connections: a slot for each, reused under a new number.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::crowd::Stranger;
use super::outgoing::Outgoing;
use super::secure::Tls;
use crate::broker::{ConnectionId, Origin};
use crate::websocket::frames::Frames;

pub(super) type Socket = AsyncFd<OwnedFd>;

/// Lets the loop watch a descriptor.
// Deprecated because it takes descriptors that others may close meanwhile; an OwnedFd is what its unsafe successor asks for.
#[allow(deprecated)]
pub(super) fn register(socket: OwnedFd) -> io::Result<Socket> {
    AsyncFd::new(socket)
}

pub(super) struct Connection {
    pub(super) socket: Rc<Socket>,
    pub(super) origin: Origin,
    pub(super) outgoing: Outgoing,
    pub(super) tls: Option<Box<Tls>>,
    pub(super) websocket: Option<Box<Frames>>,
    /// In the list of those to flush at the end of this turn.
    pub(super) dirty: bool,
    /// The socket is full, and a task waits until it is not.
    pub(super) blocked: bool,
    /// The machine was told so.
    pub(super) congested: bool,
    /// The machine has closed it: what is left is to flush, and to wait for the peer's end.
    pub(super) closing: bool,
    /// Until the machine has answered it: then it has sent its CONNECT.
    pub(super) stranger: Option<Stranger>,
    /// Its password is being checked: its task waits for this before it gives the machine another packet.
    pub(super) authenticating: Option<Rc<Notify>>,
}

#[derive(Default)]
struct Slot {
    uses: u32,
    connection: Option<Connection>,
}

#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Open ones by listener, those being closed not counted.
    open: Vec<u32>,
}

impl Connections {
    pub(super) fn insert(
        &mut self,
        socket: Rc<Socket>,
        (origin, stranger): (Origin, Stranger),
        tls: Option<Box<Tls>>,
        websocket: Option<Box<Frames>>,
    ) -> ConnectionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        self.tally(&origin, 1);
        let entry = &mut self.slots[slot as usize];
        entry.uses = entry.uses.wrapping_add(1);
        entry.connection = Some(Connection {
            socket,
            origin,
            outgoing: Outgoing::default(),
            tls,
            websocket,
            dirty: false,
            blocked: false,
            congested: false,
            closing: false,
            stranger: Some(stranger),
            authenticating: None,
        });
        ConnectionId::new(slot, entry.uses)
    }

    fn tally(&mut self, origin: &Origin, change: i32) {
        if let Origin::Listener(listener) = *origin {
            if self.open.len() <= listener {
                self.open.resize(listener + 1, 0);
            }
            self.open[listener] = self.open[listener].saturating_add_signed(change);
        }
    }

    /// How many are open on a listener.
    pub(super) fn open_on(&self, listener: usize) -> u32 {
        self.open.get(listener).copied().unwrap_or(0)
    }

    /// How many are open on all listeners.
    pub(super) fn open(&self) -> u32 {
        self.open.iter().sum()
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot())?;
        if ConnectionId::new(id.slot() as u32, slot.uses) == id { slot.connection.as_mut() } else { None }
    }

    /// Marks it as being closed; `None` when it is already, or gone.
    pub(super) fn close(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.get_mut(id).filter(|connection| !connection.closing)?;
        connection.closing = true;
        let origin = connection.origin.clone();
        self.tally(&origin, -1);
        self.get_mut(id)
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get_mut(id)?;
        let connection = self.slots.get_mut(id.slot())?.connection.take()?;
        if !connection.closing {
            self.tally(&connection.origin, -1);
        }
        self.free.push(id.slot() as u32);
        Some(connection)
    }

    /// Those that have sent no CONNECT yet.
    pub(super) fn strangers(&self) -> impl Iterator<Item = (ConnectionId, &Stranger)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let connection = entry.connection.as_ref()?;
            let is_silent = connection.authenticating.is_none() && !connection.closing && connection.origin != Origin::Private;
            let stranger = connection.stranger.as_ref().filter(|_| is_silent)?;
            Some((ConnectionId::new(slot as u32, entry.uses), stranger))
        })
    }

    /// Numbers of all, those being closed too.
    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        let taken = self.slots.iter().enumerate().filter(|(_, slot)| slot.connection.is_some());
        taken.map(|(slot, entry)| ConnectionId::new(slot as u32, entry.uses)).collect()
    }
}
