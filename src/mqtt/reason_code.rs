//! Reason Codes (2.4): one table.

use super::packet::PacketSet;

macro_rules! reason_codes {
    ($($name:ident = $code:literal, $text:literal, $($packet:ident)|+;)*) => {
        /// A Reason Code of MQTT 5; version 3's return codes are mapped to these by the codec.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ReasonCode { $($name = $code),* }
        impl ReasonCode {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            pub fn from_u8(code: u8) -> Option<Self> { match code { $($code => Some(Self::$name),)* _ => None } }
            /// The specification's name, lower case.
            pub fn text(self) -> &'static str { match self { $(Self::$name => $text),* } }
            /// The packets that may carry it (2.4, table 2-6).
            pub const fn packets(self) -> PacketSet { match self { $(Self::$name => PacketSet::NONE$(.or(PacketSet::$packet))+),* } }
        }
    };
}

// Codes that the specification names twice (0x00 Success, Normal disconnection, Granted QoS 0) have one variant.
reason_codes! {
    Success = 0x00, "success", CONNACK | ACKS | SUBACK | UNSUBACK | DISCONNECT | AUTH;
    GrantedQos1 = 0x01, "granted QoS 1", SUBACK;
    GrantedQos2 = 0x02, "granted QoS 2", SUBACK;
    DisconnectWithWillMessage = 0x04, "disconnect with Will Message", DISCONNECT;
    NoMatchingSubscribers = 0x10, "no matching subscribers", PUBACK | PUBREC;
    NoSubscriptionExisted = 0x11, "no subscription existed", UNSUBACK;
    ContinueAuthentication = 0x18, "continue authentication", AUTH;
    ReAuthenticate = 0x19, "re-authenticate", AUTH;
    UnspecifiedError = 0x80, "unspecified error", CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT;
    MalformedPacket = 0x81, "malformed packet", CONNACK | DISCONNECT;
    ProtocolError = 0x82, "protocol error", CONNACK | DISCONNECT;
    ImplementationSpecificError = 0x83, "implementation specific error", CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT;
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version", CONNACK;
    ClientIdentifierNotValid = 0x85, "client identifier not valid", CONNACK;
    BadUserNameOrPassword = 0x86, "bad user name or password", CONNACK;
    NotAuthorized = 0x87, "not authorized", CONNACK | PUBACK | PUBREC | SUBACK | UNSUBACK | DISCONNECT;
    ServerUnavailable = 0x88, "server unavailable", CONNACK;
    ServerBusy = 0x89, "server busy", CONNACK | DISCONNECT;
    Banned = 0x8A, "banned", CONNACK;
    ServerShuttingDown = 0x8B, "server shutting down", DISCONNECT;
    BadAuthenticationMethod = 0x8C, "bad authentication method", CONNACK | DISCONNECT;
    KeepAliveTimeout = 0x8D, "keep alive timeout", DISCONNECT;
    SessionTakenOver = 0x8E, "session taken over", DISCONNECT;
    TopicFilterInvalid = 0x8F, "topic filter invalid", SUBACK | UNSUBACK | DISCONNECT;
    TopicNameInvalid = 0x90, "topic name invalid", CONNACK | PUBACK | PUBREC | DISCONNECT;
    PacketIdentifierInUse = 0x91, "packet identifier in use", PUBACK | PUBREC | SUBACK | UNSUBACK;
    PacketIdentifierNotFound = 0x92, "packet identifier not found", PUBREL | PUBCOMP;
    ReceiveMaximumExceeded = 0x93, "receive maximum exceeded", DISCONNECT;
    TopicAliasInvalid = 0x94, "topic alias invalid", DISCONNECT;
    // PUBACK and PUBREC are mosquitto's addition, for its message_size_limit.
    PacketTooLarge = 0x95, "packet too large", CONNACK | PUBACK | PUBREC | DISCONNECT;
    MessageRateTooHigh = 0x96, "message rate too high", DISCONNECT;
    QuotaExceeded = 0x97, "quota exceeded", CONNACK | PUBACK | PUBREC | SUBACK | DISCONNECT;
    AdministrativeAction = 0x98, "administrative action", DISCONNECT;
    PayloadFormatInvalid = 0x99, "payload format invalid", CONNACK | PUBACK | PUBREC | DISCONNECT;
    RetainNotSupported = 0x9A, "retain not supported", CONNACK | DISCONNECT;
    QosNotSupported = 0x9B, "QoS not supported", CONNACK | DISCONNECT;
    UseAnotherServer = 0x9C, "use another server", CONNACK | DISCONNECT;
    ServerMoved = 0x9D, "server moved", CONNACK | DISCONNECT;
    SharedSubscriptionsNotSupported = 0x9E, "shared subscriptions not supported", SUBACK | DISCONNECT;
    ConnectionRateExceeded = 0x9F, "connection rate exceeded", CONNACK | DISCONNECT;
    MaximumConnectTime = 0xA0, "maximum connect time", DISCONNECT;
    SubscriptionIdentifiersNotSupported = 0xA1, "subscription identifiers not supported", SUBACK | DISCONNECT;
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard subscriptions not supported", SUBACK | DISCONNECT;
}

impl ReasonCode {
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }
}
