//! The Network Connections, by slot.

use std::collections::BTreeSet;

use super::interface::{ConnectionId, Origin, Time};
use crate::mqtt::{Connect, ProtocolVersion};

/// Named by what it awaits.
#[derive(Debug)]
pub(super) enum State {
    AwaitingConnect {
        until: Time,
    },
    /// The password is being checked; `early` holds the encoded packets that came meanwhile.
    Authenticating {
        connect: Box<Connect>,
        early: Vec<u8>,
    },
    /// Key of its session.
    Established {
        session: u32,
    },
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) origin: Origin,
    pub(super) peer: Box<str>,
    /// From its certificate.
    pub(super) certificate_user: Option<Box<str>>,
    pub(super) state: State,
    pub(super) version: ProtocolVersion,
    pub(super) last_packet: Time,
    /// One and a half Keep Alive in milliseconds; 0 is off `[MQTT-3.1.2-22]`.
    pub(super) silence_max_ms: u64,
    /// Where this connection stands in the deadlines, to be taken out when it closes.
    pub(super) keep_alive_at: Option<Time>,
    /// Topic Aliases that the client has set, alias 1 first.
    pub(super) aliases: Vec<Option<Box<str>>>,
    /// Maximum Packet Size in bytes (3.1.2.11.4).
    pub(super) packet_size_max: u32,
    /// Packet Identifiers of QoS 2 messages that the client has sent on this connection, and has not released.
    pub(super) unreleased: BTreeSet<u16>,
    /// Those that it has sent twice.
    pub(super) repeated: BTreeSet<u16>,
    /// A client may not raise a Session Expiry Interval of 0 in its DISCONNECT.
    pub(super) session_expiry_was_zero: bool,
    /// Request Problem Information (3.1.2.11.7).
    pub(super) wants_reasons: bool,
}

/// A table of things by number; numbers are used again after `remove`.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Option<Box<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(key) = self.free.pop() {
            self.put(key as usize, value);
            return key;
        }
        self.slots.push(Some(Box::new(value)));
        (self.slots.len() - 1) as u32
    }

    /// At a number that the caller chose.
    pub(super) fn put(&mut self, key: usize, value: T) {
        if key >= self.slots.len() {
            self.slots.resize_with(key + 1, || None);
        }
        if let Some(slot) = self.slots.get_mut(key) {
            *slot = Some(Box::new(value));
        }
    }

    pub(super) fn get(&self, key: u32) -> Option<&T> {
        self.slots.get(key as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.slots.get_mut(key as usize)?.as_deref_mut()
    }

    /// Takes it out and frees the number.
    pub(super) fn remove(&mut self, key: u32) -> Option<T> {
        let value = self.slots.get_mut(key as usize)?.take()?;
        self.free.push(key);
        Some(*value)
    }

    /// Takes it out; the number belongs to whoever chose it.
    pub(super) fn take(&mut self, key: usize) -> Option<T> {
        self.slots.get_mut(key)?.take().map(|value| *value)
    }

    /// In the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(key, slot)| slot.as_deref().map(|value| (key as u32, value)))
    }
}
