//! Small packets to one client.

use super::connection::Connection;
use super::interface::{ConnectionId, Effect, Outbox};
use super::session::Wire;
use crate::mqtt::{Ack, Connack, Disconnect, Packet, PacketId, Properties, ProtocolVersion, ReasonCode, codec};

/// Encodes `packet` and sends it.
pub(super) fn packet(connection: ConnectionId, version: ProtocolVersion, packet: &Packet<'_>, out: &mut Outbox) {
    let start = out.arena.len() as u32;
    codec::encode(packet, version, &mut out.arena);
    let end = out.arena.len() as u32;
    out.effects.push(Effect::Send { connection, start, end, packet_id: None });
}

pub(super) fn ack(packet_id: PacketId, reason: ReasonCode) -> Ack {
    Ack { packet_id, reason, properties: Properties::new() }
}

pub(super) fn pubrel(wire: &Wire, packet_id: PacketId, out: &mut Outbox) {
    let version = if wire.v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
    packet(wire.connection, version, &Packet::Pubrel(ack(packet_id, ReasonCode::Success)), out);
}

/// A CONNACK that refuses, and the end of the connection.
pub(super) fn refuse(connection: ConnectionId, version: ProtocolVersion, reason: ReasonCode, out: &mut Outbox) {
    packet(connection, version, &Packet::Connack(Connack { session_present: false, reason, properties: Properties::new() }), out);
}

/// DISCONNECT, which only version 5 knows from a server `[MQTT-3.14.0-1]`.
pub(super) fn disconnect(connection: &Connection, reason: ReasonCode, out: &mut Outbox) {
    if connection.version == ProtocolVersion::V5 {
        packet(connection.id, ProtocolVersion::V5, &Packet::Disconnect(Disconnect { reason, properties: Properties::new() }), out);
    }
}
