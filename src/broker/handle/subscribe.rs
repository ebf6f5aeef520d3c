//! SUBSCRIBE and UNSUBSCRIBE (3.8, 3.10).

use super::super::Broker;
use super::super::interface::{ConnectionId, Outbox, Time};
use super::super::record::Record;
use super::super::session::Held;
use super::super::subscribing::{Replay, Requested};
use crate::mqtt::{Packet, Property, ReasonCode, RetainHandling, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe, topic_filter};
use crate::notice::Notice;

/// Subscriptions that one session may hold.
const SUBSCRIPTIONS_MAX: usize = 1_000_000;

impl Broker {
    pub(super) fn subscribe(&mut self, id: ConnectionId, key: u32, subscribe: Subscribe, now: Time, out: &mut Outbox) {
        let identifier = subscribe.properties.iter().find_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(*identifier),
            _ => None,
        });
        for request in &subscribe.subscriptions {
            // Whoever sends an invalid filter is disconnected, as by mosquitto.
            let Some(parsed) = topic_filter::parse(&request.filter) else {
                return self.abort(id, ReasonCode::MalformedPacket, now, out);
            };
            if parsed.share_name.is_some() && request.options.no_local {
                return self.abort(id, ReasonCode::ProtocolError, now, out); // [MQTT-3.8.3-4]
            }
        }
        let mut requested = Requested::new(id, subscribe.packet_id);
        for request in subscribe.subscriptions {
            let reason = self.subscribe_one(key, request, identifier.unwrap_or(0), &mut requested, out);
            requested.reasons.push(reason);
        }
        self.answer_when_known(key, requested, now, out);
    }

    /// Adds one Subscription; gives the Reason Code for SUBACK `[MQTT-3.8.4-7]`.
    fn subscribe_one(
        &mut self,
        key: u32,
        request: SubscriptionRequest,
        identifier: u32,
        requested: &mut Requested,
        out: &mut Outbox,
    ) -> ReasonCode {
        let Some(session) = self.sessions.get_mut(key) else { return ReasonCode::UnspecifiedError };
        let mut options = request.options;
        options.qos = options.qos.min(session.max_qos);
        let filter = mounted(&request.filter, session.mount_point.as_deref());
        let held = Held { options, identifier };
        let nothing_kept = self.refuses_to_keep && session.is_recorded;
        let no_memory = self.memory_full && !session.identity.trusted;
        if (nothing_kept || no_memory || session.subscriptions.len() >= SUBSCRIPTIONS_MAX) && !session.subscriptions.contains_key(&*filter)
        {
            return ReasonCode::QuotaExceeded;
        }
        let is_new = session.subscriptions.insert(filter.clone(), held).is_none();
        let client_id = session.identity.client_id.clone();
        out.note(Notice::Subscribed { client_id: client_id.to_string(), qos: options.qos as u8, filter: filter.to_string() });
        session.record(out, |client| Record::Subscribed { client, filter: filter.clone(), options, identifier });
        self.add_subscription(key, &filter, held, requested, out);
        let wants_retained = match options.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if wants_retained && !filter.starts_with("$share/") {
            requested.replays.push(Replay { filter }); // a Shared Subscription gets none (4.8.2)
        }
        match options.qos {
            crate::mqtt::Qos::AtMostOnce => ReasonCode::Success,
            crate::mqtt::Qos::AtLeastOnce => ReasonCode::GrantedQos1,
            crate::mqtt::Qos::ExactlyOnce => ReasonCode::GrantedQos2,
        }
    }

    pub(super) fn unsubscribe(&mut self, id: ConnectionId, key: u32, unsubscribe: &Unsubscribe, now: Time, out: &mut Outbox) {
        if unsubscribe.filters.iter().any(|filter| topic_filter::parse(filter).is_none()) {
            return self.abort(id, ReasonCode::MalformedPacket, now, out);
        }
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        for filter in &unsubscribe.filters {
            let Some(session) = self.sessions.get_mut(key) else { return };
            let filter = mounted(filter, session.mount_point.as_deref());
            if session.subscriptions.remove(&filter).is_none() {
                reasons.push(ReasonCode::NoSubscriptionExisted);
                continue;
            }
            let client_id = session.identity.client_id.clone();
            out.note(Notice::Unsubscribed { client_id: client_id.to_string(), filter: filter.to_string() });
            session.record(out, |client| Record::Unsubscribed { client, filter: filter.clone() });
            self.remove_subscription(key, &filter, out);
            reasons.push(ReasonCode::Success);
        }
        let unsuback = Unsuback { packet_id: unsubscribe.packet_id, properties: Vec::new(), reasons };
        self.reply(id, &Packet::Unsuback(unsuback), out); // [MQTT-3.10.4-4]
    }
}

/// The filter under the listener's `mount_point`, which goes behind the share name.
fn mounted(filter: &str, mount_point: Option<&str>) -> Box<str> {
    match (mount_point, topic_filter::parse(filter)) {
        (None, _) | (_, None) => filter.into(),
        (Some(mount_point), Some(parsed)) => match parsed.share_name {
            Some(share_name) => format!("$share/{share_name}/{mount_point}{}", parsed.filter).into(),
            None => format!("{mount_point}{filter}").into(),
        },
    }
}
