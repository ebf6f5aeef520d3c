//! Packet bodies (3.1 to 3.15) out of bytes.

use super::DecodeError;
use super::fields::{Reader, malformed, protocol_error};
use crate::mqtt::packet::PacketSet;
use crate::mqtt::{
    Ack, Auth, Connack, Connect, Disconnect, Packet, Properties, Property, ProtocolVersion, Publish, Qos, ReasonCode, RetainHandling,
    Suback, Subscribe, SubscriptionOptions, SubscriptionRequest, Unsuback, Unsubscribe, Will, property,
};

const RESERVED_FLAGS: DecodeError = DecodeError::new(ReasonCode::MalformedPacket, "reserved flags of the fixed header");

type Result<T> = std::result::Result<T, DecodeError>;

/// Refuses what the first byte alone shows to be wrong: unknown types and fixed header flags `[MQTT-2.1.3-1]`.
#[inline]
pub(super) fn check_first_byte(first: u8, version: ProtocolVersion) -> Result<()> {
    let flags = first & 0x0f;
    match first >> 4 {
        3 if flags & 0x06 == 0x06 => Err(malformed("PUBLISH with QoS 3")),
        3 if flags & 0x0e == 0x08 => Err(malformed("PUBLISH with QoS 0 and DUP")),
        3 => Ok(()),
        0 => Err(protocol_error("packet type 0")),
        1 => Ok(()), // looked at when the version is known
        15 if version != ProtocolVersion::V5 => Err(protocol_error("packet type 15 before MQTT 5")),
        // MQTT 3.1 sends SUBSCRIBE, UNSUBSCRIBE and PUBREL again with DUP (3.1, section 3.8).
        6 | 8 | 10 if flags == 2 || (flags == 0x0a && version == ProtocolVersion::V31) => Ok(()),
        // mosquitto's choice of code for these three.
        6 => Err(protocol_error("reserved flags of the fixed header")),
        14 | 15 if flags != 0 => Err(protocol_error("reserved flags of the fixed header")),
        8 | 10 => Err(RESERVED_FLAGS),
        _ if flags == 0 => Ok(()),
        _ => Err(RESERVED_FLAGS),
    }
}

/// Decodes what follows the fixed header; all of it must be used.
#[inline]
pub(super) fn body(first: u8, mut reader: Reader<'_>, version: ProtocolVersion) -> Result<Packet<'_>> {
    let r = &mut reader;
    let packet = match first >> 4 {
        3 => return publish(first, reader, version).map(Packet::Publish),
        1 => Packet::Connect(Box::new(connect(first & 0x0f, r)?)),
        2 => Packet::Connack(connack(r, version)?),
        4 => Packet::Puback(ack(r, version, PacketSet::PUBACK)?),
        5 => Packet::Pubrec(ack(r, version, PacketSet::PUBREC)?),
        6 => Packet::Pubrel(ack(r, version, PacketSet::PUBREL)?),
        7 => Packet::Pubcomp(ack(r, version, PacketSet::PUBCOMP)?),
        8 => Packet::Subscribe(subscribe(r, version)?),
        9 => Packet::Suback(suback(r, version)?),
        10 => Packet::Unsubscribe(unsubscribe(r, version)?),
        11 => Packet::Unsuback(unsuback(r, version)?),
        12 => Packet::Pingreq,
        13 => Packet::Pingresp,
        14 => Packet::Disconnect(disconnect(r, version)?),
        _ => Packet::Auth(auth(r)?),
    };
    if reader.is_empty() { Ok(packet) } else { Err(malformed("bytes after the end of the packet")) }
}

#[inline]
fn publish(first: u8, mut reader: Reader<'_>, version: ProtocolVersion) -> Result<Publish<'_>> {
    let qos = qos(first >> 1 & 3)?;
    let topic = reader.string()?;
    if topic.bytes().any(|byte| byte == b'+' || byte == b'#') {
        return Err(malformed("wildcard in the Topic Name"));
    }
    if topic.is_empty() && version != ProtocolVersion::V5 {
        return Err(malformed("empty Topic Name"));
    }
    let packet_id = if qos == Qos::AtMostOnce { None } else { Some(reader.packet_id()?) };
    let properties = properties(&mut reader, version, PacketSet::PUBLISH)?;
    if topic.is_empty() && !properties.iter().any(|property| matches!(property, Property::TopicAlias(_))) {
        return Err(malformed("neither Topic Name nor Topic Alias")); // mosquitto's choice of code
    }
    Ok(Publish { dup: first & 8 != 0, qos, retain: first & 1 != 0, topic, packet_id, properties, payload: reader.rest() })
}

fn qos(value: u8) -> Result<Qos> {
    Qos::from_u8(value).ok_or_else(|| malformed("QoS 3"))
}

/// Properties in version 5, none before.
#[inline]
fn properties(reader: &mut Reader<'_>, version: ProtocolVersion, packet: PacketSet) -> Result<Properties> {
    if version == ProtocolVersion::V5 { property::decode(reader, packet) } else { Ok(Properties::new()) }
}

/// A Reason Code that `packet` may carry.
fn reason(reader: &mut Reader<'_>, packet: PacketSet) -> Result<ReasonCode> {
    let reason = ReasonCode::from_u8(reader.u8()?).ok_or_else(|| protocol_error("unknown Reason Code"))?;
    if reason.packets().contains(packet) { Ok(reason) } else { Err(protocol_error("Reason Code of another packet")) }
}

/// Reason Code and properties, of which version 5 leaves out what is Success or empty at the end (3.4.2.1).
fn reason_and_properties(reader: &mut Reader<'_>, version: ProtocolVersion, packet: PacketSet) -> Result<(ReasonCode, Properties)> {
    if version != ProtocolVersion::V5 || reader.is_empty() {
        return Ok((ReasonCode::Success, Properties::new()));
    }
    // Whoever leaves with a wrong Reason Code is not told so.
    let refused = |error: DecodeError| if packet == PacketSet::DISCONNECT { error.unanswered() } else { error };
    let reason = reason(reader, packet).map_err(refused)?;
    let properties = if reader.is_empty() { Properties::new() } else { property::decode(reader, packet)? };
    Ok((reason, properties))
}

fn ack(reader: &mut Reader<'_>, version: ProtocolVersion, packet: PacketSet) -> Result<Ack> {
    let packet_id = reader.packet_id()?;
    let (reason, properties) = reason_and_properties(reader, version, packet)?;
    Ok(Ack { packet_id, reason, properties })
}

fn disconnect(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<Disconnect> {
    let (reason, properties) = reason_and_properties(reader, version, PacketSet::DISCONNECT)?;
    Ok(Disconnect { reason, properties })
}

fn auth(reader: &mut Reader<'_>) -> Result<Auth> {
    let (reason, properties) = reason_and_properties(reader, ProtocolVersion::V5, PacketSet::AUTH)?;
    Ok(Auth { reason, properties })
}

/// Protocol Name and Version (3.1.2.1, 3.1.2.2); the top bit of the version marks mosquitto's bridges.
fn protocol(reader: &mut Reader<'_>) -> Result<(ProtocolVersion, bool)> {
    const UNSUPPORTED: DecodeError =
        DecodeError::new(ReasonCode::UnsupportedProtocolVersion, "CONNECT with an unsupported protocol version");
    /// A version that nobody knows is answered as in 5, one that goes by the other name as in 3, as by mosquitto.
    const UNKNOWN: DecodeError = DecodeError { in_connect_v5: true, ..UNSUPPORTED };
    let name = reader.string()?;
    let version = reader.u8()?;
    match (name, version) {
        ("MQIsdp", 0x03 | 0x83) => Ok((ProtocolVersion::V31, version & 0x80 != 0)),
        ("MQTT", 0x04 | 0x84) => Ok((ProtocolVersion::V311, version & 0x80 != 0)),
        ("MQTT", 0x05) => Ok((ProtocolVersion::V5, false)),
        ("MQIsdp" | "MQTT", 0x03..=0x05 | 0x83..=0x85) => Err(UNSUPPORTED),
        ("MQIsdp" | "MQTT", _) => Err(UNKNOWN),
        _ => Err(protocol_error("CONNECT with an unknown protocol name")),
    }
}

fn connect(header_flags: u8, reader: &mut Reader<'_>) -> Result<Connect> {
    let (version, bridge) = protocol(reader)?;
    let in_connect_v5 = version == ProtocolVersion::V5;
    let connect = connect_of(version, bridge, header_flags, reader);
    // Looked at here so that the refusal of what follows is one of this version, too.
    let connect =
        connect.and_then(|connect| if reader.is_empty() { Ok(connect) } else { Err(malformed("bytes after the end of the packet")) });
    connect.map_err(|error| DecodeError { in_connect_v5, ..error })
}

/// What mosquitto answers in version 5 is the properties, the Client Identifier and the Will; other faults end the connection at once.
fn connect_of(version: ProtocolVersion, bridge: bool, header_flags: u8, reader: &mut Reader<'_>) -> Result<Connect> {
    // MQTT 3.1 does not use these flags of CONNECT; later versions reserve them.
    if header_flags != 0 && version != ProtocolVersion::V31 {
        return Err(RESERVED_FLAGS.unanswered());
    }
    let refused = |detail| Err(protocol_error(detail).unanswered());
    let flags = reader.u8().map_err(DecodeError::unanswered)?;
    let has = |bit: u8| flags & bit != 0;
    if has(0x01) && version != ProtocolVersion::V31 {
        return refused("CONNECT with the reserved flag set"); // [MQTT-3.1.2-3]
    }
    let keep_alive = reader.u16().map_err(DecodeError::unanswered)?;
    let properties = properties(reader, version, PacketSet::CONNECT)?;
    let Some(will_qos) = Qos::from_u8(flags >> 3 & 3) else { return refused("CONNECT with Will QoS 3") }; // [MQTT-3.1.2-12]
    let says = |wanted: fn(&Property) -> bool| properties.iter().any(wanted);
    if says(|p| matches!(p, Property::AuthenticationData(_))) && !says(|p| matches!(p, Property::AuthenticationMethod(_))) {
        return Err(protocol_error("Authentication Data without Authentication Method"));
    }
    let not_valid = |error: DecodeError| DecodeError { reason: ReasonCode::ClientIdentifierNotValid, ..error };
    let client_id = reader.binary().map_err(DecodeError::unanswered)?;
    let client_id = Reader::of_string(client_id).map_err(not_valid)?.to_owned();
    if !has(0x04) && flags & 0x38 != 0 {
        return refused("CONNECT with Will flags but no Will"); // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    }
    let will = if has(0x04) { Some(will(reader, version, will_qos, has(0x20))?) } else { None };
    let (username, password) = credentials(flags, version, reader).map_err(DecodeError::unanswered)?;
    Ok(Connect { version, bridge, clean_start: has(0x02), keep_alive, properties, client_id, will, username, password })
}

fn credentials(flags: u8, version: ProtocolVersion, reader: &mut Reader<'_>) -> Result<(Option<String>, Option<Vec<u8>>)> {
    let (has_username, has_password) = (flags & 0x80 != 0, flags & 0x40 != 0);
    if has_password && !has_username && version != ProtocolVersion::V5 {
        return Err(protocol_error("CONNECT with a password but no username")); // 3.1.1 [MQTT-3.1.2-22]
    }
    let username = if has_username { Some(reader.string()?.to_owned()) } else { None };
    let password = if has_password { Some(reader.binary()?.to_vec()) } else { None };
    Ok((username, password))
}

fn will(reader: &mut Reader<'_>, version: ProtocolVersion, qos: Qos, retain: bool) -> Result<Will> {
    let properties = properties(reader, version, PacketSet::WILL)?;
    let topic = reader.string()?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(malformed("Will Topic is not a Topic Name"));
    }
    Ok(Will { topic: topic.to_owned(), payload: reader.binary()?.to_vec(), qos, retain, properties })
}

fn connack(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<Connack> {
    let flags = reader.u8()?;
    if flags & 0xfe != 0 && version != ProtocolVersion::V31 {
        return Err(malformed("CONNACK with reserved flags set")); // [MQTT-3.2.2-1]
    }
    let reason = if version == ProtocolVersion::V5 {
        reason(reader, PacketSet::CONNACK)?
    } else {
        return_code(reader.u8()?).ok_or_else(|| protocol_error("unknown return code in CONNACK"))?
    };
    Ok(Connack { session_present: flags & 1 != 0, reason, properties: properties(reader, version, PacketSet::CONNACK)? })
}

/// The Reason Code that stands for a return code of version 3 (3.1.1, table 3.1).
fn return_code(code: u8) -> Option<ReasonCode> {
    Some(match code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdentifierNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        _ => return None,
    })
}

fn subscribe(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<Subscribe> {
    let packet_id = packet_id_of_request(reader)?;
    let properties = properties(reader, version, PacketSet::SUBSCRIBE)?;
    let mut subscriptions = Vec::new();
    while !reader.is_empty() {
        let filter = filter(reader)?;
        subscriptions.push(SubscriptionRequest { filter, options: subscription_options(reader.u8()?, version)? });
    }
    if subscriptions.is_empty() {
        return Err(malformed("SUBSCRIBE without a Topic Filter")); // [MQTT-3.8.3-2]
    }
    Ok(Subscribe { packet_id, properties, subscriptions })
}

/// mosquitto calls Packet Identifier 0 malformed here and a protocol error elsewhere; clients see the difference.
fn packet_id_of_request(reader: &mut Reader<'_>) -> Result<crate::mqtt::PacketId> {
    crate::mqtt::PacketId::new(reader.u16()?).ok_or_else(|| malformed("Packet Identifier 0"))
}

fn filter(reader: &mut Reader<'_>) -> Result<String> {
    let filter = reader.string()?;
    if filter.is_empty() { Err(malformed("empty Topic Filter")) } else { Ok(filter.to_owned()) }
}

fn subscription_options(byte: u8, version: ProtocolVersion) -> Result<SubscriptionOptions> {
    let reserved = if version == ProtocolVersion::V5 { 0xc0 } else { 0xfc };
    if byte & reserved != 0 {
        return Err(malformed("reserved bits of Subscription Options")); // [MQTT-3.8.3-5]
    }
    let retain_handling = match byte >> 4 & 3 {
        0 => RetainHandling::SendAtSubscribe,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(malformed("Retain Handling 3")),
    };
    let qos = qos(byte & 3)?;
    Ok(SubscriptionOptions { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
}

fn suback(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<Suback> {
    let packet_id = reader.packet_id()?;
    let properties = properties(reader, version, PacketSet::SUBACK)?;
    let mut reasons = Vec::new();
    while !reader.is_empty() {
        let reason = reason(reader, PacketSet::SUBACK)?;
        if version != ProtocolVersion::V5 && reason as u8 > 0x80 {
            return Err(malformed("unknown return code in SUBACK")); // 3.1.1 [MQTT-3.9.3-2]
        }
        reasons.push(reason);
    }
    Ok(Suback { packet_id, properties, reasons })
}

fn unsubscribe(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<Unsubscribe> {
    let packet_id = packet_id_of_request(reader)?;
    let properties = properties(reader, version, PacketSet::UNSUBSCRIBE)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        filters.push(filter(reader)?);
    }
    if filters.is_empty() {
        return Err(malformed("UNSUBSCRIBE without a Topic Filter")); // [MQTT-3.10.3-2]
    }
    Ok(Unsubscribe { packet_id, properties, filters })
}

fn unsuback(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<Unsuback> {
    let packet_id = reader.packet_id()?;
    let properties = properties(reader, version, PacketSet::UNSUBACK)?;
    let mut reasons = Vec::new();
    while version == ProtocolVersion::V5 && !reader.is_empty() {
        reasons.push(reason(reader, PacketSet::UNSUBACK)?);
    }
    Ok(Unsuback { packet_id, properties, reasons })
}
