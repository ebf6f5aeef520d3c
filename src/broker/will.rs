//! Will Messages (3.1.2.5) and their delay.

use std::sync::Arc;

use super::Broker;
use super::interface::{Outbox, Time};
use super::message::{Message, Publication};
use super::record::Record;
use crate::mqtt::{self, Property};

/// What a client left to be published when its connection breaks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Will {
    /// Without expiry, which begins to count when the will is published.
    pub message: Message,
    pub delay_secs: u32,
    pub expiry_secs: Option<u32>,
}

impl Will {
    pub(super) fn new(will: &mqtt::Will, mount_point: Option<&str>, publisher: &Arc<super::message::Identity>) -> Self {
        let mut delay_secs = 0;
        let mut expiry_secs = None;
        let mut properties = Vec::new();
        for property in &will.properties {
            match property {
                Property::WillDelayInterval(secs) => delay_secs = *secs,
                Property::MessageExpiryInterval(secs) => expiry_secs = Some(*secs),
                other => properties.push(other.clone()),
            }
        }
        let message = Message {
            topic: format!("{}{}", mount_point.unwrap_or_default(), will.topic).into(),
            payload: will.payload.as_slice().into(),
            qos: will.qos,
            retain: will.retain,
            properties,
            expires_at: None,
            publisher: Some(Arc::clone(publisher)),
        };
        Self { message, delay_secs, expiry_secs }
    }
}

impl Broker {
    /// Publishes a session's will now, if it has one and may `[MQTT-3.1.2-8]`.
    pub(super) fn publish_will(&mut self, key: u32, now: Time, out: &mut Outbox) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(will) = session.will.take() else { return };
        session.record(out, |client| Record::WillGone { client });
        let identity = Arc::clone(&session.identity);
        let mut message = will.message.clone();
        if !self.may_publish(&identity, &message.topic) || (message.retain && !self.settings.conf.retain_available) {
            return;
        }
        message.expires_at = will.expiry_secs.map(|secs| now.plus_secs(secs.into()));
        let message = Arc::new(message);
        self.route(&mut Publication::of(&message), None, now, out);
    }
}
