//! Application Messages: borrowed while they pass, shared once somebody must keep them.

use std::sync::Arc;

use super::interface::{Outbox, Time};
use crate::mqtt::codec::{self, PublishParts};
use crate::mqtt::{PacketId, Properties, Property, ProtocolVersion, Qos};

/// Who a client is, as far as permissions go. Shared by its session and its messages.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    pub client_id: Box<str>,
    pub username: Option<Box<str>>,
    /// Index into `Settings::security`.
    pub security: usize,
    /// Came in through the private socket: every permission.
    pub trusted: bool,
}

/// An Application Message that somebody keeps.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    pub topic: Box<str>,
    pub payload: Box<[u8]>,
    pub qos: Qos,
    /// RETAIN as the publisher sent it.
    pub retain: bool,
    /// Those that are passed on: without Topic Alias, Subscription Identifier and Message Expiry Interval.
    pub properties: Properties,
    pub expires_at: Option<Time>,
    /// `None` for the broker's own messages.
    pub publisher: Option<Arc<Identity>>,
}

impl Message {
    /// Not retained, by nobody, and with nothing that is optional.
    pub fn new(topic: impl Into<Box<str>>, payload: impl Into<Box<[u8]>>, qos: Qos) -> Self {
        let (topic, payload) = (topic.into(), payload.into());
        Self { topic, payload, qos, retain: false, properties: Vec::new(), expires_at: None, publisher: None }
    }

    pub fn is_expired(&self, now: Time) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Bytes that count against `max_queued_bytes` and `max_inflight_bytes`.
    pub(super) fn bytes(&self) -> u64 {
        self.payload.len() as u64
    }
}

/// How one receiver gets a message.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Delivery {
    pub message: Arc<Message>,
    pub qos: Qos,
    /// RETAIN as this receiver sees it.
    pub retain: bool,
    /// 0 is none.
    pub subscription_identifier: u32,
    /// Set aside when the message was offered, as mosquitto numbers messages; `None` at QoS 0.
    pub packet_id: Option<PacketId>,
    /// Its place in the session's order of arrival, under which records know it; 0 where none do.
    pub number: u64,
}

/// What an encoded PUBLISH depends on besides its message; receivers with the same form share the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) v5: bool,
    pub(super) dup: bool,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) subscription_identifier: u32,
    /// 0 is none; an alias that the receiver knows stands for the topic.
    pub(super) topic_alias: u16,
    pub(super) alias_is_known: bool,
}

impl Form {
    pub(super) fn of(delivery: &Delivery, v5: bool, dup: bool) -> Self {
        let Delivery { qos, retain, subscription_identifier, .. } = *delivery;
        Self { v5, dup, qos, retain, subscription_identifier, topic_alias: 0, alias_is_known: false }
    }
}

/// Where an encoded PUBLISH stands in the arena.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoded {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) packet_id_at: Option<u32>,
}

/// A message on its one way through `route`: borrowed from the read buffer, or from a message that is already kept.
pub(super) struct Publication<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) properties: &'a [Property],
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) expires_at: Option<Time>,
    pub(super) publisher: Option<&'a Arc<Identity>>,
    kept: Option<Arc<Message>>,
    encodings: [Option<(Form, Encoded)>; 4],
    encodings_next: usize,
}

impl<'a> Publication<'a> {
    pub(super) fn new(topic: &'a str, payload: &'a [u8], properties: &'a [Property]) -> Self {
        Self {
            topic,
            payload,
            properties,
            qos: Qos::AtMostOnce,
            retain: false,
            expires_at: None,
            publisher: None,
            kept: None,
            encodings: [None; 4],
            encodings_next: 0,
        }
    }

    pub(super) fn of(message: &'a Arc<Message>) -> Self {
        Self {
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at,
            publisher: message.publisher.as_ref(),
            kept: Some(Arc::clone(message)),
            ..Self::new(&message.topic, &message.payload, &message.properties)
        }
    }

    /// The shared message, made when first asked for.
    pub(super) fn keep(&mut self) -> Arc<Message> {
        let kept = self.kept.get_or_insert_with(|| {
            Arc::new(Message {
                topic: self.topic.into(),
                payload: self.payload.into(),
                qos: self.qos,
                retain: self.retain,
                properties: self.properties.to_vec(),
                expires_at: self.expires_at,
                publisher: self.publisher.cloned(),
            })
        });
        Arc::clone(kept)
    }

    /// Encodes into the arena, or finds what was encoded before for another receiver.
    pub(super) fn encode(&mut self, form: Form, now: Time, out: &mut Outbox) -> Encoded {
        if let Some((_, encoded)) = self.encodings.iter().flatten().find(|(known, _)| *known == form) {
            return *encoded;
        }
        let identifiers = [form.subscription_identifier];
        let parts = PublishParts {
            dup: form.dup,
            qos: form.qos,
            retain: form.retain,
            topic: if form.alias_is_known { "" } else { self.topic },
            packet_id: None,
            properties: if form.v5 { self.properties } else { &[] },
            message_expiry_interval: if form.v5 { remaining_secs(self.expires_at, now) } else { None },
            topic_alias: (form.topic_alias != 0).then_some(form.topic_alias),
            subscription_identifiers: if form.v5 && form.subscription_identifier != 0 { &identifiers } else { &[] },
            payload: self.payload,
        };
        let version = if form.v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let start = out.arena.len() as u32;
        let packet_id_at = codec::encode_publish(&parts, version, &mut out.arena);
        let encoded = Encoded { start, end: out.arena.len() as u32, packet_id_at };
        if let Some(slot) = self.encodings.get_mut(self.encodings_next) {
            *slot = Some((form, encoded));
        }
        self.encodings_next = (self.encodings_next + 1) % self.encodings.len();
        encoded
    }
}

/// Seconds left of a Message Expiry Interval, rounded up `[MQTT-3.3.2-6]`.
pub(super) fn remaining_secs(expires_at: Option<Time>, now: Time) -> Option<u32> {
    expires_at.map(|at| u32::try_from(at.0.saturating_sub(now.0).div_ceil(1000)).unwrap_or(u32::MAX))
}
