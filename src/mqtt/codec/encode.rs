//! Packets into bytes.

use super::PublishParts;
use super::fields::{variable_byte_integer_len, write_binary, write_string, write_variable_byte_integer, write_with_length};
use crate::mqtt::{
    Ack, Auth, Connack, Connect, Disconnect, Packet, PacketId, Property, ProtocolVersion, Publish, Qos, ReasonCode, Suback, Subscribe,
    SubscriptionOptions, Unsuback, Unsubscribe, property,
};

/// Appends `packet` to `out`.
pub fn encode(packet: &Packet<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    if let Packet::Publish(publish) = packet {
        return encode_whole_publish(publish, version, out);
    }
    out.push(first_byte(packet));
    write_with_length(out, |out| write_body(packet, version, out));
}

/// Packet type and flags (2.1.1); a PUBLISH writes its own.
fn first_byte(packet: &Packet<'_>) -> u8 {
    match packet {
        Packet::Connect(_) => 0x10,
        Packet::Connack(_) => 0x20,
        Packet::Publish(_) => 0x30,
        Packet::Puback(_) => 0x40,
        Packet::Pubrec(_) => 0x50,
        Packet::Pubrel(_) => 0x62,
        Packet::Pubcomp(_) => 0x70,
        Packet::Subscribe(_) => 0x82,
        Packet::Suback(_) => 0x90,
        Packet::Unsubscribe(_) => 0xa2,
        Packet::Unsuback(_) => 0xb0,
        Packet::Pingreq => 0xc0,
        Packet::Pingresp => 0xd0,
        Packet::Disconnect(_) => 0xe0,
        Packet::Auth(_) => 0xf0,
    }
}

fn write_body(packet: &Packet<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    match packet {
        Packet::Connect(packet) => connect(packet, out),
        Packet::Connack(packet) => connack(packet, version, out),
        Packet::Puback(packet) | Packet::Pubrec(packet) | Packet::Pubrel(packet) | Packet::Pubcomp(packet) => ack(packet, version, out),
        Packet::Subscribe(packet) => subscribe(packet, version, out),
        Packet::Suback(packet) => suback(packet, version, out),
        Packet::Unsubscribe(packet) => unsubscribe(packet, version, out),
        Packet::Unsuback(packet) => unsuback(packet, version, out),
        Packet::Disconnect(Disconnect { reason, properties }) | Packet::Auth(Auth { reason, properties }) => {
            reason_and_properties(*reason, properties, version, out);
        }
        Packet::Publish(_) | Packet::Pingreq | Packet::Pingresp => {}
    }
}

fn encode_whole_publish(publish: &Publish<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let parts = PublishParts {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: publish.topic,
        packet_id: publish.packet_id,
        properties: &publish.properties,
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: &[],
        payload: publish.payload,
    };
    let properties_len = publish.properties.iter().map(Property::wire_len).sum();
    write_publish(&parts, properties_len, version, out, |out| publish.properties.iter().for_each(|property| property.write(out)));
}

/// Appends a PUBLISH to `out`; returns the offset of its two Packet Identifier bytes from the packet's first byte (`None` at QoS 0).
/// Properties are left out in version 3.
#[inline]
pub fn encode_publish(parts: &PublishParts<'_>, version: ProtocolVersion, out: &mut Vec<u8>) -> Option<u32> {
    write_publish(parts, properties_len(parts), version, out, |out| {
        if let Some(seconds) = parts.message_expiry_interval {
            Property::MessageExpiryInterval(seconds).write(out);
        }
        forwarded(parts).for_each(|property| property.write(out));
        for &identifier in parts.subscription_identifiers {
            Property::SubscriptionIdentifier(identifier).write(out);
        }
        if let Some(alias) = parts.topic_alias {
            Property::TopicAlias(alias).write(out);
        }
    })
}

/// Bytes that [`encode_publish`] would append.
#[inline]
pub fn publish_len(parts: &PublishParts<'_>, version: ProtocolVersion) -> usize {
    let remaining = publish_remaining_length(parts, properties_len(parts), version);
    1 + variable_byte_integer_len(remaining) + remaining
}

/// Properties of the message that go along unchanged.
fn forwarded<'a>(parts: &PublishParts<'a>) -> impl Iterator<Item = &'a Property> {
    let own = |property: &&Property| {
        !matches!(property, Property::TopicAlias(_) | Property::SubscriptionIdentifier(_) | Property::MessageExpiryInterval(_))
    };
    parts.properties.iter().filter(own)
}

fn properties_len(parts: &PublishParts<'_>) -> usize {
    let expiry = if parts.message_expiry_interval.is_some() { 5 } else { 0 };
    let identifiers = parts.subscription_identifiers.iter().map(|&identifier| 1 + variable_byte_integer_len(identifier as usize));
    let alias = if parts.topic_alias.is_some() { 3 } else { 0 };
    expiry + alias + forwarded(parts).map(Property::wire_len).sum::<usize>() + identifiers.sum::<usize>()
}

fn publish_remaining_length(parts: &PublishParts<'_>, properties_len: usize, version: ProtocolVersion) -> usize {
    let packet_id = if parts.qos == Qos::AtMostOnce { 0 } else { 2 };
    let properties = if version == ProtocolVersion::V5 { variable_byte_integer_len(properties_len) + properties_len } else { 0 };
    2 + parts.topic.floor_char_boundary(usize::from(u16::MAX)) + packet_id + properties + parts.payload.len()
}

#[inline]
fn write_publish(
    parts: &PublishParts<'_>,
    properties_len: usize,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
    write_properties: impl FnOnce(&mut Vec<u8>),
) -> Option<u32> {
    let start = out.len();
    let remaining = publish_remaining_length(parts, properties_len, version);
    out.reserve(remaining + 5);
    out.push(0x30 | u8::from(parts.dup) << 3 | (parts.qos as u8) << 1 | u8::from(parts.retain));
    write_variable_byte_integer(remaining, out);
    write_string(parts.topic, out);
    let packet_id_at = (parts.qos != Qos::AtMostOnce).then(|| (out.len() - start) as u32);
    if packet_id_at.is_some() {
        out.extend_from_slice(&parts.packet_id.map_or(0, PacketId::get).to_be_bytes());
    }
    if version == ProtocolVersion::V5 {
        write_variable_byte_integer(properties_len, out);
        write_properties(out);
    }
    out.extend_from_slice(parts.payload);
    packet_id_at
}

fn write_properties(properties: &[Property], version: ProtocolVersion, out: &mut Vec<u8>) {
    if version == ProtocolVersion::V5 {
        property::encode(properties, out);
    }
}

fn write_packet_id(packet_id: PacketId, out: &mut Vec<u8>) {
    out.extend_from_slice(&packet_id.get().to_be_bytes());
}

/// Version 5 leaves out what is Success or empty at the end; version 3 says neither.
fn reason_and_properties(reason: ReasonCode, properties: &[Property], version: ProtocolVersion, out: &mut Vec<u8>) {
    if version != ProtocolVersion::V5 || (reason == ReasonCode::Success && properties.is_empty()) {
        return;
    }
    out.push(reason as u8);
    if !properties.is_empty() {
        property::encode(properties, out);
    }
}

fn ack(ack: &Ack, version: ProtocolVersion, out: &mut Vec<u8>) {
    write_packet_id(ack.packet_id, out);
    reason_and_properties(ack.reason, &ack.properties, version, out);
}

fn connect(connect: &Connect, out: &mut Vec<u8>) {
    write_string(if connect.version == ProtocolVersion::V31 { "MQIsdp" } else { "MQTT" }, out);
    out.push(connect.version as u8 | u8::from(connect.bridge) << 7);
    let will_flags = connect.will.as_ref().map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    let credentials = u8::from(connect.username.is_some()) << 7 | u8::from(connect.password.is_some()) << 6;
    out.push(credentials | will_flags | u8::from(connect.clean_start) << 1);
    out.extend_from_slice(&connect.keep_alive.to_be_bytes());
    write_properties(&connect.properties, connect.version, out);
    write_string(&connect.client_id, out);
    if let Some(will) = &connect.will {
        write_properties(&will.properties, connect.version, out);
        write_string(&will.topic, out);
        write_binary(&will.payload, out);
    }
    if let Some(username) = &connect.username {
        write_string(username, out);
    }
    if let Some(password) = &connect.password {
        write_binary(password, out);
    }
}

fn connack(connack: &Connack, version: ProtocolVersion, out: &mut Vec<u8>) {
    let code = if version == ProtocolVersion::V5 { connack.reason as u8 } else { return_code(connack.reason) };
    // MQTT 3.1 has no Session Present.
    out.push(u8::from(connack.session_present && version != ProtocolVersion::V31));
    out.push(code);
    write_properties(&connack.properties, version, out);
}

/// The return code of version 3 that comes nearest (3.1.1, table 3.1).
fn return_code(reason: ReasonCode) -> u8 {
    match reason {
        reason if !reason.is_error() => 0,
        ReasonCode::UnsupportedProtocolVersion => 1,
        ReasonCode::ClientIdentifierNotValid => 2,
        ReasonCode::BadUserNameOrPassword => 4,
        ReasonCode::NotAuthorized => 5,
        _ => 3,
    }
}

fn subscribe(subscribe: &Subscribe, version: ProtocolVersion, out: &mut Vec<u8>) {
    write_packet_id(subscribe.packet_id, out);
    write_properties(&subscribe.properties, version, out);
    for request in &subscribe.subscriptions {
        write_string(&request.filter, out);
        out.push(subscription_options(request.options, version));
    }
}

fn subscription_options(options: SubscriptionOptions, version: ProtocolVersion) -> u8 {
    let qos = options.qos as u8;
    if version != ProtocolVersion::V5 {
        return qos;
    }
    qos | u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3 | (options.retain_handling as u8) << 4
}

fn suback(suback: &Suback, version: ProtocolVersion, out: &mut Vec<u8>) {
    write_packet_id(suback.packet_id, out);
    write_properties(&suback.properties, version, out);
    let old = version != ProtocolVersion::V5;
    out.extend(suback.reasons.iter().map(|&reason| if old && reason.is_error() { 0x80 } else { reason as u8 }));
}

fn unsubscribe(unsubscribe: &Unsubscribe, version: ProtocolVersion, out: &mut Vec<u8>) {
    write_packet_id(unsubscribe.packet_id, out);
    write_properties(&unsubscribe.properties, version, out);
    unsubscribe.filters.iter().for_each(|filter| write_string(filter, out));
}

fn unsuback(unsuback: &Unsuback, version: ProtocolVersion, out: &mut Vec<u8>) {
    write_packet_id(unsuback.packet_id, out);
    if version == ProtocolVersion::V5 {
        property::encode(&unsuback.properties, out);
        out.extend(unsuback.reasons.iter().map(|&reason| reason as u8));
    }
}
