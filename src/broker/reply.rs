//! Small packets to one client.

use super::Broker;
use super::connection::Connection;
use super::interface::{ConnectionId, Effect, Outbox};
use super::wire::Wire;
use crate::mqtt::{Ack, Connack, Disconnect, Packet, PacketId, Properties, ProtocolVersion, ReasonCode, codec};

/// Encodes `packet` and sends it, unless it is larger than `size_max` bytes `[MQTT-3.1.2-24]`. True when it was sent.
fn packet(connection: ConnectionId, version: ProtocolVersion, size_max: u32, packet: &Packet<'_>, out: &mut Outbox) -> bool {
    let start = out.arena.len() as u32;
    codec::encode(packet, version, &mut out.arena);
    let end = out.arena.len() as u32;
    if end - start > size_max {
        out.arena.truncate(start as usize);
        return false;
    }
    out.effects.push(Effect::Send { connection, start, end, packet_id: None });
    true
}

impl Broker {
    /// Sends a small packet as the connection's version has it. False when it is larger than the client takes, and was discarded.
    pub(super) fn reply(&self, id: ConnectionId, small: &Packet<'_>, out: &mut Outbox) -> bool {
        self.connection(id).is_some_and(|connection| packet(id, connection.version, connection.packet_size_max, small, out))
    }
}

pub(super) fn ack(packet_id: PacketId, reason: ReasonCode) -> Ack {
    Ack { packet_id, reason, properties: Properties::new() }
}

pub(super) fn pubrel(wire: &Wire, packet_id: PacketId, out: &mut Outbox) {
    let version = if wire.v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
    packet(wire.connection, version, wire.packet_size_max, &Packet::Pubrel(ack(packet_id, ReasonCode::Success)), out);
}

/// A CONNACK that refuses, and the end of the connection.
pub(super) fn refuse(connection: ConnectionId, version: ProtocolVersion, reason: ReasonCode, out: &mut Outbox) {
    let connack = Connack { session_present: false, reason, properties: Properties::new() };
    packet(connection, version, u32::MAX, &Packet::Connack(connack), out);
}

/// DISCONNECT, which only version 5 knows from a server `[MQTT-3.14.0-1]`.
pub(super) fn disconnect(connection: &Connection, reason: ReasonCode, out: &mut Outbox) {
    if connection.version == ProtocolVersion::V5 {
        let disconnect = Disconnect { reason, properties: Properties::new() };
        packet(connection.id, ProtocolVersion::V5, connection.packet_size_max, &Packet::Disconnect(disconnect), out);
    }
}
