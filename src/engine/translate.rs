//! darner's messages ↔ rumqttd's, without its codec.
//!
//! Every topic and filter goes below `t/`, so that the first character is ASCII and none begins with `$`. Serial, publisher, expiry, QoS and
//! RETAIN stand in front of the payload, because the router has ideas of its own about each of them.

use bytes::{BufMut as _, Bytes, BytesMut};
use rumqttd::protocol::{self, Packet, PublishProperties, QoS, RetainForwardRule, SubscribeProperties};

use crate::broker::Time;
use crate::broker::message::Message;
use crate::mqtt::{Properties, Property, Qos};

const BELOW: &str = "t/";
const HEAD_BYTES: usize = 25;
const NEVER: u64 = u64::MAX;

/// For tests that see the router die of what the guard is for. A release has no such variable.
#[cfg(debug_assertions)]
static IS_BARE: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| std::env::var_os("DARNER_TEST_BARE_TOPICS").is_some());

fn below(name: &str) -> String {
    #[cfg(debug_assertions)]
    if *IS_BARE {
        return name.to_owned();
    }
    format!("{BELOW}{name}")
}

pub(super) fn publish(message: &Message, serial: u64, client: u64) -> Packet {
    let mut payload = BytesMut::with_capacity(HEAD_BYTES + message.payload.len());
    payload.put_u64(serial);
    payload.put_u64(client);
    payload.put_u64(message.expires_at.map_or(NEVER, |at| at.0));
    payload.put_u8(message.qos as u8 | u8::from(message.retain) << 2);
    payload.extend_from_slice(&message.payload);
    let publish = protocol::Publish::new(Bytes::from(below(&message.topic)), payload.freeze(), false);
    Packet::Publish(publish, properties_out(&message.properties))
}

fn properties_out(properties: &[Property]) -> Option<PublishProperties> {
    let mut sent = PublishProperties::default();
    for property in properties {
        match property {
            Property::PayloadFormatIndicator(value) => sent.payload_format_indicator = Some(*value),
            Property::ContentType(value) => sent.content_type = Some(value.to_string()),
            Property::ResponseTopic(value) => sent.response_topic = Some(value.to_string()),
            Property::CorrelationData(value) => sent.correlation_data = Some(Bytes::copy_from_slice(value)),
            Property::UserProperty(name, value) => sent.user_properties.push((name.to_string(), value.to_string())),
            _ => {}
        }
    }
    (!properties.is_empty()).then_some(sent)
}

/// `number` comes back as a Subscription Identifier.
pub(super) fn subscribe(filter: &str, number: u32) -> Packet {
    let filter = protocol::Filter {
        path: below(filter),
        qos: QoS::AtMostOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::Never,
    };
    let properties = SubscribeProperties { id: Some(number as usize), user_properties: Vec::new() };
    Packet::Subscribe(protocol::Subscribe { pkid: 1, filters: vec![filter] }, Some(properties))
}

pub(super) fn unsubscribe(filter: &str) -> Packet {
    Packet::Unsubscribe(protocol::Unsubscribe { pkid: 1, filters: vec![below(filter)] }, None)
}

/// Subscription, serial and publisher of a message that came back.
pub(super) fn came_back(publish: &protocol::Publish, properties: Option<&PublishProperties>) -> Option<(u32, u64, u64)> {
    let number = *properties?.subscription_identifiers.first()?;
    let serial = publish.payload.first_chunk::<8>()?;
    let client = u64::from_be_bytes(*publish.payload.get(8..)?.first_chunk::<8>()?);
    Some((u32::try_from(number).ok()?, u64::from_be_bytes(*serial), client))
}

/// `None` where it is none of ours.
pub(super) fn message(publish: &protocol::Publish, properties: Option<PublishProperties>) -> Option<Message> {
    let (head, payload) = publish.payload.split_at_checked(HEAD_BYTES)?;
    let expires_at = u64::from_be_bytes(*head.get(16..)?.first_chunk::<8>()?);
    let flags = *head.get(24)?;
    let qos = match flags & 3 {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    };
    Some(Message {
        topic: std::str::from_utf8(&publish.topic).ok()?.strip_prefix(BELOW)?.into(),
        payload: payload.into(),
        qos,
        retain: flags & 4 != 0,
        properties: properties.map(properties_in).unwrap_or_default(),
        expires_at: (expires_at != NEVER).then_some(Time(expires_at)),
        publisher: None,
    })
}

fn properties_in(came: PublishProperties) -> Properties {
    let mut properties = Properties::new();
    properties.extend(came.payload_format_indicator.map(Property::PayloadFormatIndicator));
    properties.extend(came.content_type.map(|value| Property::ContentType(value.into())));
    properties.extend(came.response_topic.map(|value| Property::ResponseTopic(value.into())));
    properties.extend(came.correlation_data.map(|value| Property::CorrelationData(Box::from(&*value))));
    properties.extend(came.user_properties.into_iter().map(|(name, value)| Property::UserProperty(name.into(), value.into())));
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_out_comes_back_the_same() {
        let message_out = Message {
            topic: "\u{fc}/t".into(),
            payload: Box::from(*b"21.5"),
            qos: Qos::ExactlyOnce,
            retain: true,
            properties: vec![
                Property::PayloadFormatIndicator(1),
                Property::ContentType("text/plain".into()),
                Property::ResponseTopic("answers/1".into()),
                Property::CorrelationData(Box::from(*b"\0\xff")),
                Property::UserProperty("a".into(), "1".into()),
                Property::UserProperty("a".into(), "2".into()),
            ],
            expires_at: Some(Time(77)),
            publisher: None,
        };
        let Packet::Publish(publish, properties) = publish(&message_out, 9, 3) else { panic!("a PUBLISH") };
        assert!(publish.topic.is_ascii() || publish.topic.first().is_some_and(u8::is_ascii), "the router cuts after the first byte");
        assert!(!publish.retain, "the router retains nothing");
        let mut properties = properties.unwrap_or_default();
        assert_eq!(properties.message_expiry_interval, None, "nothing that was handed over may vanish in the router");
        properties.subscription_identifiers.push(5);
        assert_eq!(came_back(&publish, Some(&properties)), Some((5, 9, 3)));
        assert_eq!(message(&publish, Some(properties)), Some(message_out));
    }

    #[test]
    fn a_message_in_the_router_holds_on_to_nothing_else() {
        let read = vec![b'x'; 64 << 10];
        let message = Message::new("a", read.get(..200).expect("enough"), Qos::AtMostOnce);
        let Packet::Publish(publish, _) = publish(&message, 1, 0) else { panic!("a PUBLISH") };
        assert!(publish.payload.is_unique() && publish.topic.is_unique());
        let buffer = BytesMut::from(publish.payload);
        assert!(buffer.capacity() <= HEAD_BYTES + 200, "{}", buffer.capacity());
    }

    #[test]
    fn an_empty_payload_is_not_empty_to_the_router() {
        let empty = Message::new("$a", [], Qos::AtMostOnce);
        let Packet::Publish(publish, properties) = publish(&empty, 1, 0) else { panic!("a PUBLISH") };
        assert!(properties.is_none() && !publish.payload.is_empty() && !publish.topic.starts_with(b"$"));
        assert_eq!(message(&publish, None), Some(empty));
    }
}
