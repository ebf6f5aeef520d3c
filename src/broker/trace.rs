//! `log_type debug`: a line for each packet, as mosquitto words them. Costs one test where it is off.

use super::Broker;
use super::connection::State;
use super::interface::{ConnectionId, Effect, Outbox};
use crate::mqtt::codec::{self, Decoded};
use crate::mqtt::{Packet, PacketId, Publish};
use crate::notice::Notice;

impl Broker {
    fn client_id_of(&self, id: ConnectionId) -> Option<&str> {
        let connection = self.connection(id)?;
        if connection.origin == super::Origin::Private {
            return None;
        }
        match &connection.state {
            State::Established { session } => self.sessions.get(*session).map(|session| &*session.identity.client_id),
            State::Authenticating { connect, .. } => Some(&connect.client_id),
            State::AwaitingConnect { .. } => None,
        }
    }

    pub(super) fn trace_received(&self, id: ConnectionId, packet: &Packet<'_>, out: &mut Outbox) {
        if let Some(client_id) = self.client_id_of(id) {
            let (name, detail) = describe(packet);
            out.note(Notice::Received { name, client_id: client_id.into(), detail });
        }
    }

    /// What was sent since the outbox held `before` effects.
    pub(super) fn trace_sent(&self, before: usize, out: &mut Outbox) {
        let mut lines = Vec::new();
        for effect in out.effects.get(before..).unwrap_or_default() {
            let Effect::Send { connection, start, end, packet_id } = effect else { continue };
            let Some(client_id) = self.client_id_of(*connection) else { continue };
            let Some(version) = self.connection(*connection).map(|connection| connection.version) else { continue };
            let mut bytes = out.bytes(*start, *end).to_vec();
            // The arena holds no Packet Identifier yet where receivers share the bytes.
            if let Some((at, packet_id)) = packet_id
                && let Some(place) = bytes.get_mut(*at as usize..*at as usize + 2)
            {
                place.copy_from_slice(&packet_id.get().to_be_bytes());
            }
            if let Ok(Decoded::Packet { packet, .. }) = codec::decode(&bytes, version, u32::MAX) {
                let (name, detail) = describe(&packet);
                lines.push(Notice::Sending { name, client_id: client_id.into(), detail });
            }
        }
        for line in lines {
            out.note(line);
        }
    }
}

/// Name of the packet, and what stands in brackets behind the client.
fn describe(packet: &Packet<'_>) -> (&'static str, String) {
    match packet {
        Packet::Connect(_) => ("CONNECT", String::new()),
        Packet::Connack(connack) => ("CONNACK", format!(" ({}, {})", u8::from(connack.session_present), connack.reason as u8)),
        Packet::Publish(publish) => ("PUBLISH", describe_publish(publish)),
        Packet::Puback(ack) => ("PUBACK", format!(" (m{}, rc{})", ack.packet_id, ack.reason as u8)),
        Packet::Pubrec(ack) => ("PUBREC", format!(" (m{}, rc{})", ack.packet_id, ack.reason as u8)),
        Packet::Pubrel(ack) => ("PUBREL", format!(" (m{})", ack.packet_id)),
        Packet::Pubcomp(ack) => ("PUBCOMP", format!(" (m{})", ack.packet_id)),
        Packet::Subscribe(subscribe) => {
            let filters: Vec<String> =
                subscribe.subscriptions.iter().map(|request| format!("{} (QoS {})", request.filter, request.options.qos as u8)).collect();
            ("SUBSCRIBE", format!(": {}", filters.join(", ")))
        }
        Packet::Suback(_) => ("SUBACK", String::new()),
        Packet::Unsubscribe(unsubscribe) => ("UNSUBSCRIBE", format!(": {}", unsubscribe.filters.join(", "))),
        Packet::Unsuback(_) => ("UNSUBACK", String::new()),
        Packet::Pingreq => ("PINGREQ", String::new()),
        Packet::Pingresp => ("PINGRESP", String::new()),
        Packet::Disconnect(disconnect) => ("DISCONNECT", format!(" (rc{})", disconnect.reason as u8)),
        Packet::Auth(_) => ("AUTH", String::new()),
    }
}

fn describe_publish(publish: &Publish<'_>) -> String {
    format!(
        " (d{}, q{}, r{}, m{}, '{}', ... ({} bytes))",
        u8::from(publish.dup),
        publish.qos as u8,
        u8::from(publish.retain),
        publish.packet_id.map_or(0, PacketId::get),
        publish.topic,
        publish.payload.len()
    )
}
