//! The connected client's side of a session: what it takes, and the bytes it gets.

use hashbrown::HashMap;

use super::interface::{ConnectionId, Effect, Outbox, Time};
use super::message::{Encoded, Form, Publication};
use crate::mqtt::PacketId;

#[derive(Debug)]
pub(super) struct Wire {
    pub(super) connection: ConnectionId,
    pub(super) v5: bool,
    /// The driver holds enough bytes for this connection already.
    pub(super) congested: bool,
    /// The client's Maximum Packet Size in bytes.
    pub(super) packet_size_max: u32,
    /// The smaller of its Topic Alias Maximum and `max_topic_alias_broker`.
    pub(super) topic_alias_max: u16,
    /// Topic Aliases that it was sent, first come, first served, as in mosquitto.
    pub(super) topic_aliases: HashMap<Box<str>, u16>,
}

impl Wire {
    /// Lays out a PUBLISH in the form that this client takes; `None` where that is larger than it takes.
    pub(super) fn encode(&mut self, publication: &mut Publication<'_>, mut form: Form, now: Time, out: &mut Outbox) -> Option<Encoded> {
        if self.topic_alias_max == 0 {
            return self.fitting(publication.encode(form, now, out));
        }
        if let Some(alias) = self.topic_aliases.get(publication.topic) {
            (form.topic_alias, form.alias_is_known) = (*alias, true);
            return self.fitting(publication.encode(form, now, out));
        }
        let next = self.topic_aliases.len() as u16 + 1;
        if next <= self.topic_alias_max {
            let aliased = publication.encode(Form { topic_alias: next, ..form }, now, out);
            // The property that sets the alias must not be what makes the packet too large.
            if let Some(encoded) = self.fitting(aliased) {
                self.topic_aliases.insert(publication.topic.into(), next);
                return Some(encoded);
            }
        }
        self.fitting(publication.encode(form, now, out))
    }

    fn fitting(&self, encoded: Encoded) -> Option<Encoded> {
        (encoded.end - encoded.start <= self.packet_size_max).then_some(encoded)
    }

    pub(super) fn send(&self, encoded: Encoded, packet_id: Option<PacketId>, out: &mut Outbox) {
        let packet_id = encoded.packet_id_at.zip(packet_id);
        out.effects.push(Effect::Send { connection: self.connection, start: encoded.start, end: encoded.end, packet_id });
    }
}
