//! PUBLISH from a client (3.3).

use std::borrow::Cow;
use std::sync::Arc;

use super::super::control::CONTROL;
use super::super::interface::{ConnectionId, Outbox, Time};
use super::super::message::{Message, Publication};
use super::super::record::Record;
use super::super::{Broker, reply};
use crate::conf::Listener;
use crate::mqtt::{Packet, PacketId, Properties, Property, ProtocolVersion, Publish, Qos, ReasonCode, topic_name};

/// QoS 2 messages that a session may leave without their PUBREL. A Receive Maximum, which version 3 does not know, holds for a connection.
const UNRELEASED_MAX: usize = 1000;

impl Broker {
    pub(super) fn publish(&mut self, id: ConnectionId, key: u32, publish: Publish<'_>, now: Time, out: &mut Outbox) {
        self.counters.publish_received += 1;
        self.counters.publish_bytes_received += publish.payload.len() as u64;
        let Publish { qos, retain, topic, packet_id, mut properties, payload, .. } = publish;
        let Some(connection) = self.connection(id) else { return };
        let version = connection.version;
        let listener = self.listener(&connection.origin);
        if let Some(reason) = self.not_supported(listener, qos, retain) {
            return self.abort(id, reason, now, out);
        }
        if properties.iter().any(|property| matches!(property, Property::SubscriptionIdentifier(_))) {
            return self.abort(id, ReasonCode::ProtocolError, now, out); // [MQTT-3.3.4-6]
        }
        let alias_maximum = listener.map_or(0, |listener| listener.max_topic_alias);
        let mount_point: Option<Box<str>> = listener.and_then(|listener| listener.mount_point.as_deref().map(Into::into));
        let topic: Cow<'_, str> = if properties.is_empty() {
            Cow::Borrowed(topic)
        } else {
            match self.resolve_alias(id, topic, &properties, alias_maximum) {
                Ok(Some(aliased)) => Cow::Owned(aliased),
                Ok(None) => Cow::Borrowed(topic),
                Err(reason) => return self.abort(id, reason, now, out),
            }
        };
        if !topic_name::is_valid(&topic) {
            return self.abort(id, ReasonCode::MalformedPacket, now, out); // mosquitto's answer
        }
        let topic = match &mount_point {
            Some(mount_point) => Cow::Owned(format!("{mount_point}{topic}")),
            None => topic,
        };
        let Some(session) = self.sessions.get(key) else { return };
        let identity = Arc::clone(&session.identity);
        if self.settings.conf.limits.payload_size.is_some_and(|max| payload.len() > max as usize) {
            return self.decline(id, (version, qos, packet_id), ReasonCode::PacketTooLarge, out);
        }
        if !self.may_publish(&identity, &topic) {
            return self.decline(id, (version, qos, packet_id), ReasonCode::NotAuthorized, out);
        }
        if topic.starts_with(CONTROL) {
            self.control(key, &topic, payload, now, out);
            // Done, whatever came of it: nothing waits for a PUBREL.
            return self.decline(id, (version, qos, packet_id), ReasonCode::Success, out);
        }
        let no_memory = self.memory_full && (qos != Qos::AtMostOnce || retain) && !payload.is_empty();
        if no_memory || (self.refuses_to_keep && self.would_be_kept(key, qos, retain, &topic)) {
            // An acknowledgement would promise what cannot be kept; version 3 knows no other way to say so than to close.
            return match version {
                ProtocolVersion::V5 => self.decline(id, (version, qos, packet_id), ReasonCode::QuotaExceeded, out),
                ProtocolVersion::V31 | ProtocolVersion::V311 => self.abort(id, ReasonCode::QuotaExceeded, now, out),
            };
        }
        let expires_at = take_expiry(&mut properties, now);
        let mut publication = Publication::new(&topic, payload, &properties);
        publication.qos = qos;
        publication.retain = retain;
        publication.expires_at = expires_at;
        publication.publisher = Some(&identity);
        self.take_in(id, key, packet_id, &mut publication, now, out);
    }

    /// By its QoS (4.3).
    fn take_in(
        &mut self,
        id: ConnectionId,
        key: u32,
        packet_id: Option<PacketId>,
        publication: &mut Publication<'_>,
        now: Time,
        out: &mut Outbox,
    ) {
        match (publication.qos, packet_id) {
            (Qos::AtLeastOnce, Some(packet_id)) => {
                let version = self.connection(id).map_or(ProtocolVersion::V311, |connection| connection.version);
                let matched = self.route(publication, Some(key), now, out);
                let reason =
                    if matched || version != ProtocolVersion::V5 { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers };
                self.reply(id, &Packet::Puback(reply::ack(packet_id, reason)), out); // [MQTT-4.3.2-4]
            }
            (Qos::ExactlyOnce, Some(packet_id)) => self.receive_exactly_once(id, key, packet_id, publication, now, out),
            _ => {
                self.route(publication, Some(key), now, out);
            }
        }
    }

    /// Whether acknowledging it promises that something outlives a crash.
    fn would_be_kept(&mut self, key: u32, qos: Qos, retain: bool, topic: &str) -> bool {
        if qos == Qos::AtMostOnce || !self.persists {
            return false;
        }
        let is_recorded = self.sessions.get(key).is_some_and(|session| session.is_recorded);
        retain || (qos == Qos::ExactlyOnce && is_recorded) || self.reaches_recorded(topic)
    }

    /// What this listener or broker announced not to take.
    fn not_supported(&self, listener: Option<&Listener>, qos: Qos, retain: bool) -> Option<ReasonCode> {
        if listener.is_some_and(|listener| qos > listener.max_qos) {
            return Some(ReasonCode::QosNotSupported); // [MQTT-3.2.2-11]
        }
        // [MQTT-3.2.2-14]
        (retain && !self.settings.conf.retain_available).then_some(ReasonCode::RetainNotSupported)
    }

    /// Keeps a QoS 2 message until its PUBREL (4.3.3, method A), once per Packet Identifier `[MQTT-4.3.3-10]`.
    fn receive_exactly_once(
        &mut self,
        id: ConnectionId,
        key: u32,
        packet_id: PacketId,
        publication: &mut Publication<'_>,
        now: Time,
        out: &mut Outbox,
    ) {
        let version = self.connection(id).map_or(ProtocolVersion::V311, |connection| connection.version);
        let (most, in_session) = match version {
            ProtocolVersion::V5 => {
                let most = usize::from(self.settings.conf.limits.inflight_messages.unwrap_or(u16::MAX));
                (most, most.max(UNRELEASED_MAX))
            }
            ProtocolVersion::V31 | ProtocolVersion::V311 => (UNRELEASED_MAX, UNRELEASED_MAX),
        };
        let Some(connection) = self.connection(id) else { return };
        let is_again = connection.repeated.contains(&packet_id.get());
        let exceeds = !connection.unreleased.contains(&packet_id.get()) && connection.unreleased.len() >= most;
        let Some(session) = self.sessions.get_mut(key) else { return };
        // The same identifier with other contents is a new message from a client that has lost its state, as mosquitto holds.
        let is_repeated = session.incoming.get(&packet_id.get()).is_some_and(|kept| is_same(kept, publication));
        if is_repeated {
            if is_again {
                // Sending again is for a new connection [MQTT-4.4.0-1]; mosquitto bears it once.
                return self.abort(id, ReasonCode::ProtocolError, now, out);
            }
        } else {
            let exceeds = exceeds || session.incoming.len() >= in_session && !session.incoming.contains_key(&packet_id.get());
            if exceeds {
                return self.abort(id, ReasonCode::ReceiveMaximumExceeded, now, out); // 3.3.4
            }
            let message = publication.keep();
            session.record(out, |client| Record::Received { client, packet_id, message: Arc::clone(&message) });
            session.incoming.insert(packet_id.get(), message);
        }
        if let Some(connection) = self.connection_mut(id) {
            connection.unreleased.insert(packet_id.get());
            if is_repeated {
                connection.repeated.insert(packet_id.get());
            } else {
                connection.repeated.remove(&packet_id.get());
            }
        }
        self.reply(id, &Packet::Pubrec(reply::ack(packet_id, ReasonCode::Success)), out); // [MQTT-4.3.3-8]
    }

    /// Acknowledged and dropped: version 5 learns why `[MQTT-3.3.5-2]`, version 3 cannot.
    fn decline(
        &mut self,
        id: ConnectionId,
        (version, qos, packet_id): (ProtocolVersion, Qos, Option<PacketId>),
        reason: ReasonCode,
        out: &mut Outbox,
    ) {
        let reason = if version == ProtocolVersion::V5 { reason } else { ReasonCode::Success };
        if let Some(packet_id) = packet_id {
            if reason.is_error() && qos == Qos::ExactlyOnce {
                self.forget_received(id, packet_id, out);
            }
            let ack = reply::ack(packet_id, reason);
            let packet = if qos == Qos::ExactlyOnce { Packet::Pubrec(ack) } else { Packet::Puback(ack) };
            self.reply(id, &packet, out);
        }
    }

    /// A PUBREC that refuses ends the flow (4.3.3): the client will not release what had come before.
    fn forget_received(&mut self, id: ConnectionId, packet_id: PacketId, out: &mut Outbox) {
        if let Some(connection) = self.connection_mut(id) {
            connection.unreleased.remove(&packet_id.get());
        }
        let Some(session) = self.session_key(id).and_then(|key| self.sessions.get_mut(key)) else { return };
        if session.incoming.remove(&packet_id.get()).is_some() {
            session.record(out, |client| Record::ReceivedReleased { client, packet_id });
        }
    }

    /// Stores a new Topic Alias, or finds the Topic Name of a known one (3.3.2.3.4).
    fn resolve_alias(
        &mut self,
        id: ConnectionId,
        topic: &str,
        properties: &Properties,
        maximum: u16,
    ) -> Result<Option<String>, ReasonCode> {
        let alias = properties.iter().find_map(|property| if let Property::TopicAlias(alias) = property { Some(*alias) } else { None });
        let Some(alias) = alias else { return Ok(None) };
        if alias == 0 || alias > maximum {
            return Err(ReasonCode::TopicAliasInvalid); // [MQTT-3.3.2-8], [MQTT-3.3.2-9]
        }
        let Some(connection) = self.connection_mut(id) else { return Ok(None) };
        let at = usize::from(alias) - 1;
        if topic.is_empty() {
            let known = connection.aliases.get(at).and_then(Option::as_deref);
            return known.map(|topic| Some(topic.to_owned())).ok_or(ReasonCode::ProtocolError);
        }
        if connection.aliases.len() <= at {
            connection.aliases.resize(at + 1, None);
        }
        if let Some(slot) = connection.aliases.get_mut(at) {
            *slot = Some(topic.into());
        }
        Ok(None)
    }
}

/// Takes out what is not passed on as it came: Topic Alias, and the Message Expiry Interval, which becomes a time.
fn take_expiry(properties: &mut Properties, now: Time) -> Option<Time> {
    let mut expires_at = None;
    properties.retain(|property| match property {
        Property::MessageExpiryInterval(secs) => {
            expires_at = Some(now.plus_secs((*secs).into()));
            false
        }
        Property::TopicAlias(_) | Property::SubscriptionIdentifier(_) => false,
        _ => true,
    });
    expires_at
}

fn is_same(kept: &Message, publication: &Publication<'_>) -> bool {
    *kept.topic == *publication.topic && *kept.payload == *publication.payload
}
