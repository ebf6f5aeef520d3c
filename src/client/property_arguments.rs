//! `-D command property value`: properties of MQTT 5 given on the command line.

use super::settings::{Stop, refused_spaced};
use crate::mqtt::{Properties, Property};

/// Properties for each packet that a tool sends.
#[derive(Debug, Clone, Default)]
pub(super) struct PropertyLists {
    pub(super) connect: Properties,
    pub(super) publish: Properties,
    pub(super) subscribe: Properties,
    pub(super) unsubscribe: Properties,
    pub(super) disconnect: Properties,
    pub(super) will: Properties,
}

/// How the value on the command line becomes a property.
#[derive(Clone, Copy)]
enum Value {
    Byte(fn(u8) -> Property),
    TwoBytes(fn(u16) -> Property),
    FourBytes(fn(u32) -> Property),
    Text(fn(Box<str>) -> Property),
    Binary(fn(Box<[u8]>) -> Property),
    Pair,
}

/// Properties that a client sends: name, packets they may be given for, value.
const PROPERTIES: &[(&str, &[&str], Value)] = &[
    ("payload-format-indicator", &["publish", "will"], Value::Byte(Property::PayloadFormatIndicator)),
    ("message-expiry-interval", &["publish", "will"], Value::FourBytes(Property::MessageExpiryInterval)),
    ("content-type", &["publish", "will"], Value::Text(Property::ContentType)),
    ("response-topic", &["publish", "will"], Value::Text(Property::ResponseTopic)),
    ("correlation-data", &["publish", "will"], Value::Binary(Property::CorrelationData)),
    ("subscription-identifier", &["subscribe"], Value::FourBytes(Property::SubscriptionIdentifier)),
    ("session-expiry-interval", &["connect", "disconnect"], Value::FourBytes(Property::SessionExpiryInterval)),
    ("authentication-method", &["connect", "auth"], Value::Text(Property::AuthenticationMethod)),
    ("authentication-data", &["connect", "auth"], Value::Binary(Property::AuthenticationData)),
    ("request-problem-information", &["connect"], Value::Byte(Property::RequestProblemInformation)),
    ("request-response-information", &["connect"], Value::Byte(Property::RequestResponseInformation)),
    ("will-delay-interval", &["will"], Value::FourBytes(Property::WillDelayInterval)),
    ("reason-string", &["disconnect", "puback", "pubrec", "pubrel", "pubcomp", "auth"], Value::Text(Property::ReasonString)),
    ("receive-maximum", &["connect"], Value::TwoBytes(Property::ReceiveMaximum)),
    ("topic-alias-maximum", &["connect"], Value::TwoBytes(Property::TopicAliasMaximum)),
    ("topic-alias", &["publish"], Value::TwoBytes(Property::TopicAlias)),
    ("maximum-packet-size", &["connect"], Value::FourBytes(Property::MaximumPacketSize)),
    (
        "user-property",
        &["connect", "publish", "subscribe", "unsubscribe", "disconnect", "will", "puback", "pubrec", "pubrel", "pubcomp", "auth"],
        Value::Pair,
    ),
    // Only a broker sends these.
    ("assigned-client-identifier", &[], Value::Text(Property::AssignedClientIdentifier)),
    ("server-keep-alive", &[], Value::TwoBytes(Property::ServerKeepAlive)),
    ("response-information", &[], Value::Text(Property::ResponseInformation)),
    ("server-reference", &[], Value::Text(Property::ServerReference)),
    ("maximum-qos", &[], Value::Byte(Property::MaximumQos)),
    ("retain-available", &[], Value::Byte(Property::RetainAvailable)),
    ("wildcard-subscription-available", &[], Value::Byte(Property::WildcardSubscriptionAvailable)),
    ("subscription-identifier-available", &[], Value::Byte(Property::SubscriptionIdentifierAvailable)),
    ("shared-subscription-available", &[], Value::Byte(Property::SharedSubscriptionAvailable)),
];

/// Packets that a tool sends, and that mosquitto's take no properties for.
const WITHOUT_LIST: &[&str] = &["puback", "pubrec", "pubrel", "pubcomp", "auth"];

/// How many values follow `-D` when the property is `name`: the packet, the name and one, or two for a User Property.
pub(super) fn argument_count(name: Option<&str>) -> usize {
    if name.is_some_and(|name| name.eq_ignore_ascii_case("user-property")) { 4 } else { 3 }
}

/// The property's own name as `-D` and JSON output spell it, for those that a PUBLISH carries.
pub(super) fn publish_property_name(property: &Property) -> Option<&'static str> {
    Some(match property {
        Property::PayloadFormatIndicator(_) => "payload-format-indicator",
        Property::MessageExpiryInterval(_) => "message-expiry-interval",
        Property::ContentType(_) => "content-type",
        Property::ResponseTopic(_) => "response-topic",
        Property::CorrelationData(_) => "correlation-data",
        Property::SubscriptionIdentifier(_) => "subscription-identifier",
        Property::TopicAlias(_) => "topic-alias",
        Property::UserProperty(..) => "user-properties",
        _ => return None,
    })
}

impl PropertyLists {
    fn list(&mut self, command: &str) -> Option<&mut Properties> {
        Some(match command {
            "connect" => &mut self.connect,
            "publish" => &mut self.publish,
            "subscribe" => &mut self.subscribe,
            "unsubscribe" => &mut self.unsubscribe,
            "disconnect" => &mut self.disconnect,
            "will" => &mut self.will,
            _ => return None,
        })
    }

    /// Adds what one `-D` says.
    pub(super) fn add(&mut self, words: &[&str]) -> Result<(), Stop> {
        let &[command, name, value, ref rest @ ..] = words else {
            return Err(refused_spaced("Error: --property argument given but not enough arguments specified."));
        };
        let lower_case = command.to_ascii_lowercase();
        if self.list(&lower_case).is_none() && !WITHOUT_LIST.contains(&lower_case.as_str()) {
            return Err(refused_spaced("Error: Invalid command given in --property argument."));
        }
        let found = PROPERTIES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
        let Some((_, commands, kind)) = found else {
            return Err(refused_spaced("Error: Invalid property name given in --property argument."));
        };
        if !commands.iter().any(|allowed| allowed.eq_ignore_ascii_case(command)) {
            let text = format!("Error: {name} property not allowed for {command} in --property argument.");
            return Err(refused_spaced(text));
        }
        let Some(list) = self.list(&lower_case) else {
            return Err(refused_spaced(format!("Error: {name} property not supported for {command} in --property argument.")));
        };
        list.push(match *kind {
            Value::Byte(make) => make(number(name, value)?),
            Value::TwoBytes(make) => make(number(name, value)?),
            Value::FourBytes(make) => make(number(name, value)?),
            Value::Text(make) => make(short(name, value)?.into()),
            Value::Binary(make) => make(short(name, value)?.as_bytes().into()),
            Value::Pair => match rest {
                [second, ..] => Property::UserProperty(short(name, value)?.into(), short(name, second)?.into()),
                [] => return Err(refused_spaced("Error: --property argument given but not enough arguments specified.")),
            },
        });
        Ok(())
    }

    /// Values that MQTT forbids, and properties given twice.
    pub(super) fn check(&self) -> Result<(), String> {
        let lists = [
            ("CONNECT", &self.connect),
            ("PUBLISH", &self.publish),
            ("SUBSCRIBE", &self.subscribe),
            ("UNSUBSCRIBE", &self.unsubscribe),
            ("DISCONNECT", &self.disconnect),
            ("Will", &self.will),
        ];
        for (packet, list) in lists {
            for (index, property) in list.iter().enumerate() {
                let later = list.iter().skip(index + 1);
                let same = |other: &&Property| std::mem::discriminant(*other) == std::mem::discriminant(property);
                if !matches!(property, Property::UserProperty(..)) && later.filter(same).count() > 0 {
                    return Err(format!("Error in {packet} properties: Duplicate property in property list"));
                }
                if is_forbidden(property) {
                    let text = "A network protocol error occurred when communicating with the broker.";
                    return Err(format!("Error in {packet} properties: {text}"));
                }
            }
        }
        Ok(())
    }
}

fn is_forbidden(property: &Property) -> bool {
    match property {
        Property::RequestProblemInformation(value)
        | Property::RequestResponseInformation(value)
        | Property::PayloadFormatIndicator(value) => *value > 1,
        Property::ReceiveMaximum(value) | Property::TopicAlias(value) => *value == 0,
        Property::MaximumPacketSize(value) => *value == 0,
        Property::SubscriptionIdentifier(value) => !(1..=268_435_455).contains(value),
        _ => false,
    }
}

fn number<N: TryFrom<i64>>(name: &str, value: &str) -> Result<N, Stop> {
    let out_of_range = || refused_spaced(format!("Error: Property value ({value}) out of range for property {name}."));
    value.trim().parse::<i64>().ok().and_then(|value| N::try_from(value).ok()).ok_or_else(out_of_range)
}

fn short<'a>(name: &str, value: &'a str) -> Result<&'a str, Stop> {
    if value.len() > usize::from(u16::MAX) {
        return Err(refused_spaced(format!("Error: Property value too long for property {name}.")));
    }
    Ok(value)
}
