//! The Control Packets as data. Variable-length fields that the broker keeps are owned; a PUBLISH borrows the read buffer.

use super::{PacketId, Properties, ProtocolVersion, Qos, ReasonCode};

/// Any Control Packet, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Box<Connect>),
    Connack(Connack),
    Publish(Publish<'a>),
    Puback(Ack),
    Pubrec(Ack),
    Pubrel(Ack),
    Pubcomp(Ack),
    Subscribe(Subscribe),
    Suback(Suback),
    Unsubscribe(Unsubscribe),
    Unsuback(Unsuback),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect),
    Auth(Auth),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub version: ProtocolVersion,
    /// mosquitto bridges set the top bit of the version byte (`try_private`).
    pub bridge: bool,
    /// Clean Start (5) or Clean Session (3).
    pub clean_start: bool,
    /// Seconds; 0 turns keep alive off.
    pub keep_alive: u16,
    pub properties: Properties,
    pub client_id: String,
    pub will: Option<Will>,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
}

/// Will Message as carried in CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: Qos,
    pub retain: bool,
    pub properties: Properties,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connack {
    pub session_present: bool,
    /// In version 3 the codec maps this to the return codes 0..=5 on encode, and from them on decode.
    pub reason: ReasonCode,
    pub properties: Properties,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: Qos,
    pub retain: bool,
    /// Empty only where a Topic Alias property stands for it (version 5).
    pub topic: &'a str,
    /// `Some` exactly when `qos > 0`.
    pub packet_id: Option<PacketId>,
    pub properties: Properties,
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP have one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub packet_id: PacketId,
    pub reason: ReasonCode,
    pub properties: Properties,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    pub packet_id: PacketId,
    pub properties: Properties,
    pub subscriptions: Vec<SubscriptionRequest>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRequest {
    /// As sent: UTF-8 checked by the codec; whether it is a valid Topic Filter is asked of `topic_filter::parse`.
    pub filter: String,
    pub options: SubscriptionOptions,
}

/// Subscription Options (3.8.3.1). In version 3 all but `qos` are the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct SubscriptionOptions {
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum RetainHandling {
    #[default]
    SendAtSubscribe = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suback {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// Granted QoS 0, 1, 2 or a failure; version 3 encodes every failure as 0x80.
    pub reasons: Vec<ReasonCode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    pub packet_id: PacketId,
    pub properties: Properties,
    pub filters: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsuback {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// Not on the wire in version 3.
    pub reasons: Vec<ReasonCode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    pub reason: ReasonCode,
    pub properties: Properties,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    pub reason: ReasonCode,
    pub properties: Properties,
}

/// A set of packet types, for the columns of tables. WILL stands for the properties of a Will Message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketSet(u16);

impl PacketSet {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(u16::MAX);
    pub const WILL: Self = Self(1);
    pub const CONNECT: Self = Self(1 << 1);
    pub const CONNACK: Self = Self(1 << 2);
    pub const PUBLISH: Self = Self(1 << 3);
    pub const PUBACK: Self = Self(1 << 4);
    pub const PUBREC: Self = Self(1 << 5);
    pub const PUBREL: Self = Self(1 << 6);
    pub const PUBCOMP: Self = Self(1 << 7);
    pub const SUBSCRIBE: Self = Self(1 << 8);
    pub const SUBACK: Self = Self(1 << 9);
    pub const UNSUBSCRIBE: Self = Self(1 << 10);
    pub const UNSUBACK: Self = Self(1 << 11);
    pub const DISCONNECT: Self = Self(1 << 14);
    pub const AUTH: Self = Self(1 << 15);
    /// The four acknowledgements of PUBLISH.
    pub const ACKS: Self = Self::PUBACK.or(Self::PUBREC).or(Self::PUBREL).or(Self::PUBCOMP);

    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn contains(self, packet: Self) -> bool {
        self.0 & packet.0 != 0
    }
}
