//! PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7).

use std::sync::Arc;

use super::super::in_flight::Awaiting;
use super::super::interface::{ConnectionId, Outbox, Time};
use super::super::message::Publication;
use super::super::record::Record;
use super::super::{Broker, reply};
use crate::mqtt::{Ack, Packet, PacketId, ReasonCode};

impl Broker {
    /// One flight ended: there is room for the next.
    fn complete(&mut self, id: ConnectionId, key: u32, packet_id: PacketId, awaiting: Awaiting, now: Time, out: &mut Outbox) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        match session.outgoing.find(packet_id).map(|entry| entry.awaiting) {
            Some(expected) if expected == awaiting => {
                let done = session.outgoing.complete(packet_id, awaiting);
                session.record_done(done.map_or(0, |delivery| delivery.number), out);
                self.pump(key, now, out);
            }
            // The acknowledgement of another QoS, or out of turn (4.3).
            Some(_) => self.abort(id, ReasonCode::ProtocolError, now, out),
            // An acknowledgement of nothing is ignored: it may be late, after a reconnect.
            None => {}
        }
    }

    pub(super) fn puback(&mut self, id: ConnectionId, key: u32, ack: &Ack, now: Time, out: &mut Outbox) {
        self.complete(id, key, ack.packet_id, Awaiting::Puback, now, out);
    }

    pub(super) fn pubrec(&mut self, id: ConnectionId, key: u32, ack: &Ack, now: Time, out: &mut Outbox) {
        if ack.reason.is_error() {
            // The receiver refused: the flight is over (4.3.3).
            return self.complete(id, key, ack.packet_id, Awaiting::Pubrec, now, out);
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        match session.outgoing.find(ack.packet_id) {
            Some(entry) if entry.awaiting != Awaiting::Puback => {
                let is_repeated = std::mem::replace(&mut entry.awaiting, Awaiting::Pubcomp) == Awaiting::Pubcomp;
                let number = entry.delivery.number;
                entry.is_due_again = false;
                if !is_repeated && number != 0 {
                    session.record(out, |client| Record::Released { client, number });
                }
            }
            Some(_) => return self.abort(id, ReasonCode::ProtocolError, now, out),
            // An answer lets the client finish, whatever it thinks of; mosquitto gives the same.
            None => {}
        }
        self.reply(id, &Packet::Pubrel(reply::ack(ack.packet_id, ReasonCode::Success)), out); // [MQTT-4.3.3-4]
    }

    pub(super) fn pubcomp(&mut self, id: ConnectionId, key: u32, ack: &Ack, now: Time, out: &mut Outbox) {
        self.complete(id, key, ack.packet_id, Awaiting::Pubcomp, now, out);
    }

    /// The client releases a QoS 2 message: now it goes its way, under the rules that hold now.
    pub(super) fn pubrel(&mut self, id: ConnectionId, key: u32, ack: &Ack, now: Time, out: &mut Outbox) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let identity = Arc::clone(&session.identity);
        let received = session.incoming.remove(&ack.packet_id.get());
        if let Some(connection) = self.connection_mut(id) {
            connection.repeated.remove(&ack.packet_id.get());
            connection.unreleased.remove(&ack.packet_id.get());
        }
        // A PUBREL of nothing is answered like any other: it may be repeated after a reconnect.
        if let Some(message) = received {
            if self.may_publish(&identity, &message.topic) {
                if !message.is_expired(now) {
                    self.route(&mut Publication::of(&message), Some(key), now, out);
                } else if message.retain {
                    // Nobody gets it any more, nor the value that it replaces.
                    self.retain(message, out);
                }
            }
            if let Some(session) = self.sessions.get(key) {
                session.record(out, |client| Record::ReceivedReleased { client, packet_id: ack.packet_id });
            }
        }
        self.reply(id, &Packet::Pubcomp(reply::ack(ack.packet_id, ReasonCode::Success)), out); // [MQTT-4.3.3-11]
    }
}
