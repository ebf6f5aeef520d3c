//! Seeded random packets that are valid.

use darner::mqtt::codec::PublishParts;
use darner::mqtt::*;

use crate::support::random::Random;

pub struct Generator(Random);

/// A random PUBLISH by its parts.
pub struct OwnedParts {
    dup: bool,
    qos: Qos,
    retain: bool,
    topic: String,
    packet_id: Option<PacketId>,
    properties: Properties,
    message_expiry_interval: Option<u32>,
    subscription_identifiers: Vec<u32>,
    payload: Vec<u8>,
}

impl OwnedParts {
    pub fn parts(&self) -> PublishParts<'_> {
        PublishParts {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: self.packet_id,
            properties: &self.properties,
            topic_alias: None,
            message_expiry_interval: self.message_expiry_interval,
            subscription_identifiers: &self.subscription_identifiers,
            payload: &self.payload,
        }
    }

    /// What a subscriber sees: the parts' own expiry and identifiers, not those that the message came with.
    pub fn expected_properties(&self) -> Properties {
        let own = |p: &&Property| {
            !matches!(p, Property::TopicAlias(_) | Property::SubscriptionIdentifier(_) | Property::MessageExpiryInterval(_))
        };
        let expiry = self.message_expiry_interval.map(Property::MessageExpiryInterval);
        let identifiers = self.subscription_identifiers.iter().map(|&id| Property::SubscriptionIdentifier(id));
        expiry.into_iter().chain(self.properties.iter().filter(own).cloned()).chain(identifiers).collect()
    }
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next()
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    pub fn text(&mut self, len_max: u64) -> String {
        const LETTERS: [char; 9] = ['a', 'b', '/', '$', 'é', '€', '🦀', '~', '\u{fffd}'];
        (0..=self.below(len_max)).map(|_| LETTERS[self.below(9) as usize]).collect()
    }

    fn boxed(&mut self) -> Box<str> {
        self.text(10).into()
    }

    pub fn bytes(&mut self, len_max: u64) -> Vec<u8> {
        (0..self.below(len_max)).map(|_| self.next() as u8).collect()
    }

    fn qos(&mut self) -> Qos {
        Qos::from_u8(self.below(3) as u8).expect("0, 1 or 2")
    }

    fn packet_id(&mut self) -> PacketId {
        PacketId::new(self.next() as u16 | 1).expect("not 0")
    }

    /// One of the codes that the specification's table 2-6 gives for the packet.
    fn reason(&mut self, codes: &[u8]) -> ReasonCode {
        ReasonCode::from_u8(codes[self.below(codes.len() as u64) as usize]).expect("a Reason Code")
    }

    /// A random subset of what `all` makes, and some User Properties.
    fn properties(&mut self, version: ProtocolVersion, all: fn(&mut Self) -> Vec<Property>) -> Properties {
        if version != ProtocolVersion::V5 {
            return Properties::new();
        }
        let mut properties = all(self);
        properties.retain(|_| self.chance());
        for _ in 0..self.below(3) {
            properties.push(Property::UserProperty(self.boxed(), self.boxed()));
        }
        properties
    }

    fn reason_string(&mut self) -> Vec<Property> {
        vec![Property::ReasonString(self.boxed())]
    }

    fn message_properties(&mut self) -> Vec<Property> {
        vec![
            Property::PayloadFormatIndicator(self.below(2) as u8),
            Property::MessageExpiryInterval(self.next() as u32),
            Property::ContentType(self.boxed()),
            Property::ResponseTopic(self.boxed()),
            Property::CorrelationData(self.bytes(20).into()),
        ]
    }

    fn publish_properties(&mut self) -> Vec<Property> {
        let mut properties = self.message_properties();
        properties.push(Property::TopicAlias(self.next() as u16 | 1));
        properties.push(Property::SubscriptionIdentifier(1 + self.below(268_435_455) as u32));
        properties.push(Property::SubscriptionIdentifier(1 + self.below(127) as u32));
        properties
    }

    fn will_properties(&mut self) -> Vec<Property> {
        let mut properties = self.message_properties();
        properties.push(Property::WillDelayInterval(self.next() as u32));
        properties
    }

    fn connect_properties(&mut self) -> Vec<Property> {
        vec![
            Property::SessionExpiryInterval(self.next() as u32),
            Property::ReceiveMaximum(self.next() as u16 | 1),
            Property::MaximumPacketSize(self.next() as u32 | 1),
            Property::TopicAliasMaximum(self.next() as u16),
            Property::RequestResponseInformation(self.below(2) as u8),
            Property::RequestProblemInformation(self.below(2) as u8),
            Property::AuthenticationMethod(self.boxed()),
        ]
    }

    fn connack_properties(&mut self) -> Vec<Property> {
        vec![
            Property::SessionExpiryInterval(self.next() as u32),
            Property::ReceiveMaximum(self.next() as u16 | 1),
            Property::MaximumQos(self.below(2) as u8),
            Property::RetainAvailable(self.below(2) as u8),
            Property::MaximumPacketSize(self.next() as u32 | 1),
            Property::AssignedClientIdentifier(self.boxed()),
            Property::TopicAliasMaximum(self.next() as u16),
            Property::ReasonString(self.boxed()),
            Property::WildcardSubscriptionAvailable(self.below(2) as u8),
            Property::SubscriptionIdentifierAvailable(self.below(2) as u8),
            Property::SharedSubscriptionAvailable(self.below(2) as u8),
            Property::ServerKeepAlive(self.next() as u16),
            Property::ResponseInformation(self.boxed()),
            Property::ServerReference(self.boxed()),
            Property::AuthenticationMethod(self.boxed()),
            Property::AuthenticationData(self.bytes(20).into()),
        ]
    }

    fn ack(&mut self, version: ProtocolVersion, codes: &[u8]) -> Ack {
        let reason = if version == ProtocolVersion::V5 { self.reason(codes) } else { ReasonCode::Success };
        Ack { packet_id: self.packet_id(), reason, properties: self.properties(version, Self::reason_string) }
    }

    pub fn plain_publish<'a>(topic: &'a str, payload: &'a [u8]) -> Packet<'a> {
        Packet::Publish(Publish { dup: false, qos: Qos::AtMostOnce, retain: false, topic, packet_id: None, properties: vec![], payload })
    }

    pub fn publish_parts(&mut self) -> OwnedParts {
        let qos = self.qos();
        OwnedParts {
            dup: qos != Qos::AtMostOnce && self.chance(),
            qos,
            retain: self.chance(),
            topic: self.text(30),
            packet_id: (qos != Qos::AtMostOnce).then(|| self.packet_id()),
            properties: self.properties(ProtocolVersion::V5, Self::publish_properties),
            message_expiry_interval: self.chance().then(|| self.next() as u32),
            subscription_identifiers: (0..self.below(4)).map(|_| 1 + self.below(268_435_455) as u32).collect(),
            payload: self.bytes(400),
        }
    }

    fn connect(&mut self, version: ProtocolVersion) -> Connect {
        let username = self.chance().then(|| self.text(9));
        let will = self.chance().then(|| Will {
            topic: self.text(9),
            payload: self.bytes(20),
            qos: self.qos(),
            retain: self.chance(),
            properties: self.properties(version, Self::will_properties),
        });
        Connect {
            version,
            bridge: version != ProtocolVersion::V5 && self.chance(),
            clean_start: self.chance(),
            keep_alive: self.next() as u16,
            properties: self.properties(version, Self::connect_properties),
            client_id: self.text(20),
            will,
            // Version 3 permits a password only beside a username.
            password: (self.chance() && (username.is_some() || version == ProtocolVersion::V5)).then(|| self.bytes(9)),
            username,
        }
    }

    fn connack(&mut self, version: ProtocolVersion) -> Connack {
        let codes: &[u8] = match version {
            ProtocolVersion::V5 => &[0x00, 0x80, 0x81, 0x85, 0x87, 0x95, 0x9f],
            _ => &[0x00, 0x84, 0x85, 0x86, 0x87, 0x88],
        };
        Connack {
            session_present: version != ProtocolVersion::V31 && self.chance(),
            reason: self.reason(codes),
            properties: self.properties(version, Self::connack_properties),
        }
    }

    fn subscribe(&mut self, version: ProtocolVersion) -> Subscribe {
        let requests = 1 + self.below(4);
        let subscriptions = (0..requests).map(|_| {
            let mut options = SubscriptionOptions { qos: self.qos(), ..SubscriptionOptions::default() };
            if version == ProtocolVersion::V5 {
                options.no_local = self.chance();
                options.retain_as_published = self.chance();
                options.retain_handling =
                    [RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew, RetainHandling::DoNotSend][self.below(3) as usize];
            }
            SubscriptionRequest { filter: self.text(20) + "/#", options }
        });
        let subscriptions = subscriptions.collect();
        let properties = self.properties(version, |g| vec![Property::SubscriptionIdentifier(1 + g.below(268_435_455) as u32)]);
        Subscribe { packet_id: self.packet_id(), properties, subscriptions }
    }

    fn reasons(&mut self, codes: &[u8]) -> Vec<ReasonCode> {
        (0..=self.below(5)).map(|_| self.reason(codes)).collect()
    }

    /// Any packet type, valid in `version`.
    pub fn packet<'a>(&mut self, version: ProtocolVersion, topic: &'a str, payload: &'a [u8]) -> Packet<'a> {
        let v5 = version == ProtocolVersion::V5;
        match self.below(if v5 { 15 } else { 14 }) {
            0 => Packet::Connect(Box::new(self.connect(version))),
            1 => Packet::Connack(self.connack(version)),
            2 => {
                let qos = self.qos();
                Packet::Publish(Publish {
                    dup: qos != Qos::AtMostOnce && self.chance(),
                    qos,
                    retain: self.chance(),
                    topic,
                    packet_id: (qos != Qos::AtMostOnce).then(|| self.packet_id()),
                    properties: self.properties(version, Self::publish_properties),
                    payload,
                })
            }
            3 => Packet::Puback(self.ack(version, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])),
            4 => Packet::Pubrec(self.ack(version, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])),
            5 => Packet::Pubrel(self.ack(version, &[0x00, 0x92])),
            6 => Packet::Pubcomp(self.ack(version, &[0x00, 0x92])),
            7 => Packet::Subscribe(self.subscribe(version)),
            8 => {
                let codes: &[u8] = if v5 { &[0, 1, 2, 0x80, 0x87, 0x8f, 0x97, 0x9e, 0xa1, 0xa2] } else { &[0, 1, 2, 0x80] };
                let reasons = self.reasons(codes);
                Packet::Suback(Suback { packet_id: self.packet_id(), properties: self.properties(version, Self::reason_string), reasons })
            }
            9 => {
                let filters = (0..=self.below(3)).map(|_| self.text(20)).collect();
                Packet::Unsubscribe(Unsubscribe { packet_id: self.packet_id(), properties: self.properties(version, |_| vec![]), filters })
            }
            10 => {
                let reasons = if v5 { self.reasons(&[0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91]) } else { vec![] };
                Packet::Unsuback(Unsuback {
                    packet_id: self.packet_id(),
                    properties: self.properties(version, Self::reason_string),
                    reasons,
                })
            }
            11 => Packet::Pingreq,
            12 => Packet::Pingresp,
            13 => {
                let reason = if v5 { self.reason(&[0, 4, 0x81, 0x82, 0x8d, 0x8e, 0x93, 0x95, 0x98, 0x9d]) } else { ReasonCode::Success };
                Packet::Disconnect(Disconnect { reason, properties: self.properties(version, Self::reason_string) })
            }
            _ => Packet::Auth(Auth {
                reason: self.reason(&[0, 0x18, 0x19]),
                properties: self.properties(version, |g| vec![Property::AuthenticationMethod(g.boxed())]),
            }),
        }
    }
}
