//! mosquitto's words and numbers for why a broker refuses.

use crate::mqtt::{ProtocolVersion, ReasonCode};

/// Return codes of version 3 (3.2.2.3): Reason Code, number, mosquitto's sentence.
const REFUSALS: &[(ReasonCode, u8, &str)] = &[
    (ReasonCode::UnsupportedProtocolVersion, 1, "Connection Refused: unacceptable protocol version."),
    (ReasonCode::ClientIdentifierNotValid, 2, "Connection Refused: identifier rejected."),
    (ReasonCode::ServerUnavailable, 3, "Connection Refused: broker unavailable."),
    (ReasonCode::BadUserNameOrPassword, 4, "Connection Refused: bad user name or password."),
    (ReasonCode::NotAuthorized, 5, "Connection Refused: not authorised."),
];

/// For a return code that version 3 does not have.
pub const UNKNOWN_REFUSAL: &str = "Connection Refused: unknown reason.";

/// The number that was on the wire.
pub fn connack_code(reason: ReasonCode, version: ProtocolVersion) -> u8 {
    let refusal = REFUSALS.iter().find(|(refusal, ..)| version != ProtocolVersion::V5 && *refusal == reason);
    refusal.map_or(reason as u8, |(_, code, _)| *code)
}

/// What the tools print after `Connection error: `.
pub fn connack_text(reason: ReasonCode, version: ProtocolVersion) -> String {
    if version == ProtocolVersion::V5 {
        let hint = ". Try connecting to an MQTT v5 broker, or use MQTT v3.x mode.";
        let hint = if reason == ReasonCode::UnsupportedProtocolVersion { hint } else { "" };
        return format!("{}{hint}", reason_text(reason));
    }
    let refusal = REFUSALS.iter().find(|(refusal, ..)| *refusal == reason);
    refusal.map_or(UNKNOWN_REFUSAL, |(.., text)| *text).to_owned()
}

/// A Reason Code as mosquitto spells it: with capitals where the specification has them.
pub fn reason_text(reason: ReasonCode) -> String {
    let text = match reason {
        ReasonCode::MalformedPacket => "Malformed Packet",
        ReasonCode::ProtocolError => "Protocol Error",
        ReasonCode::UnsupportedProtocolVersion => "Unsupported Protocol Version",
        ReasonCode::ClientIdentifierNotValid => "Client Identifier not valid",
        ReasonCode::BadUserNameOrPassword => "Bad User Name or Password",
        ReasonCode::KeepAliveTimeout => "Keep Alive timeout",
        ReasonCode::TopicFilterInvalid => "Topic Filter invalid",
        ReasonCode::TopicNameInvalid => "Topic Name invalid",
        ReasonCode::PacketIdentifierInUse => "Packet Identifier in use",
        ReasonCode::PacketIdentifierNotFound => "Packet Identifier not found",
        ReasonCode::ReceiveMaximumExceeded => "Receive Maximum exceeded",
        ReasonCode::TopicAliasInvalid => "Topic Alias invalid",
        ReasonCode::SharedSubscriptionsNotSupported => "Shared Subscriptions not supported",
        ReasonCode::WildcardSubscriptionsNotSupported => "Wildcard Subscriptions not supported",
        other => {
            let mut letters = other.text().chars();
            return letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
        }
    };
    text.to_owned()
}
