//! One file per packet; this one only dispatches.

mod acks;
mod connect;
mod disconnect;
mod publish;
mod subscribe;

use super::Broker;
use super::connection::State;
use super::interface::{ConnectionId, Outbox, Time};
use crate::mqtt::{Packet, ReasonCode, codec};

/// Bytes of packets that may wait behind a password check.
const EARLY_BYTES_MAX: usize = 64 << 10;

impl Broker {
    pub(super) fn packet(&mut self, id: ConnectionId, packet: Packet<'_>, now: Time, out: &mut Outbox) {
        let Some(connection) = self.connection_mut(id) else { return };
        connection.last_packet = now;
        match &mut connection.state {
            State::Established { session } => {
                let key = *session;
                self.established(id, key, packet, now, out);
            }
            State::AwaitingConnect { .. } => match packet {
                Packet::Connect(connect) => self.connect(id, connect, now, out),
                // [MQTT-3.1.0-1]
                _ => self.abort(id, ReasonCode::ProtocolError, now, out),
            },
            State::Authenticating { early, .. } => {
                codec::encode(&packet, connection.version, early);
                if matches!(packet, Packet::Connect(_)) || early.len() > EARLY_BYTES_MAX {
                    self.abort(id, ReasonCode::ProtocolError, now, out);
                }
            }
        }
    }

    fn established(&mut self, id: ConnectionId, key: u32, packet: Packet<'_>, now: Time, out: &mut Outbox) {
        match packet {
            Packet::Publish(publish) => self.publish(id, key, publish, now, out),
            Packet::Puback(ack) => self.puback(id, key, &ack, now, out),
            Packet::Pubrec(ack) => self.pubrec(id, key, &ack, now, out),
            Packet::Pubrel(ack) => self.pubrel(id, key, &ack, now, out),
            Packet::Pubcomp(ack) => self.pubcomp(id, key, &ack, now, out),
            Packet::Subscribe(subscribe) => self.subscribe(id, key, subscribe, now, out),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(id, key, &unsubscribe, now, out),
            Packet::Pingreq => {
                self.reply(id, &Packet::Pingresp, out); // [MQTT-3.12.4-1]
            }
            Packet::Disconnect(disconnect) => self.disconnect(id, key, &disconnect, now, out),
            // A second CONNECT [MQTT-3.1.0-2], a packet that only a server sends, and AUTH without an Authentication Method.
            Packet::Connect(_) | Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp | Packet::Auth(_) => {
                self.abort(id, ReasonCode::ProtocolError, now, out);
            }
        }
    }

    /// Packets that came while the password was checked.
    pub(super) fn handle_early(&mut self, id: ConnectionId, early: &[u8], now: Time, out: &mut Outbox) {
        let mut rest = early;
        while let Some(version) = self.connection(id).map(|connection| connection.version) {
            match codec::decode(rest, version, u32::MAX) {
                Ok(codec::Decoded::Packet { packet, len }) => {
                    self.packet(id, packet, now, out);
                    rest = rest.get(len..).unwrap_or_default();
                }
                Ok(codec::Decoded::Incomplete { .. }) | Err(_) => return,
            }
        }
    }
}
