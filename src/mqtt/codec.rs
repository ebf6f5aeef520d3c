//! Bytes ↔ packets. No allocation for a PUBLISH without properties.

mod decode;
mod encode;
pub(in crate::mqtt) mod fields;

use super::{Packet, PacketId, PacketSet, Properties, Property, ProtocolVersion, Qos, ReasonCode, property};
use fields::{Reader, malformed, protocol_error};

pub use encode::{encode, encode_publish, publish_len};

/// What a read buffer begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Not a whole packet yet: come back with at least this many bytes in all (2 when even the length is not known).
    Incomplete { needed: usize },
    /// A packet that took `len` bytes.
    Packet { packet: Packet<'a>, len: usize },
}

/// Why bytes are not a packet: the Reason Code to answer with, and words for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct DecodeError {
    pub reason: ReasonCode,
    pub detail: &'static str,
    /// The bytes are a CONNECT of version 5, whose sender understands a CONNACK with this reason.
    pub in_connect_v5: bool,
    /// Ends the connection without a word, as mosquitto does here: saying why is optional (4.13.1).
    pub is_unanswered: bool,
}

impl DecodeError {
    pub(in crate::mqtt) const fn new(reason: ReasonCode, detail: &'static str) -> Self {
        Self { reason, detail, in_connect_v5: false, is_unanswered: false }
    }

    pub(in crate::mqtt) const fn unanswered(self) -> Self {
        Self { is_unanswered: true, ..self }
    }
}

/// What an encoded packet means for the state of whoever sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SUBACK, PUBACK, PUBREC, PUBCOMP: a promise that something was taken over. One that refuses promises nothing.
    Promise,
    /// CONNACK, UNSUBACK: a change of the session.
    Session,
    /// PUBREL, and PUBLISH at QoS 2: a step of an exactly-once flow.
    ExactlyOnce,
    Other,
}

/// By its first byte (2.1.1).
pub fn kind(packet: &[u8]) -> Kind {
    let first = packet.first().copied().unwrap_or_default();
    // Of version 5: length, Packet Identifier, Reason Code.
    let is_refusal = packet.get(1).is_some_and(|len| *len > 2) && packet.get(4).is_some_and(|reason| *reason >= 0x80);
    match first >> 4 {
        4 | 5 if is_refusal => Kind::Other,
        4 | 5 | 7 | 9 => Kind::Promise,
        2 | 11 => Kind::Session,
        3 if first & 0b110 == 0b100 => Kind::ExactlyOnce,
        6 => Kind::ExactlyOnce,
        _ => Kind::Other,
    }
}

/// The parts of an outgoing PUBLISH, so that the broker encodes straight from its shared message.
#[derive(Debug, Clone, Copy)]
pub struct PublishParts<'a> {
    pub dup: bool,
    pub qos: Qos,
    pub retain: bool,
    pub topic: &'a str,
    /// Written for `qos > 0`; the caller may patch it later at the returned offset.
    pub packet_id: Option<PacketId>,
    /// Properties of the message without Topic Alias, Subscription Identifier and Message Expiry Interval (ignored here if present).
    pub properties: &'a [Property],
    pub message_expiry_interval: Option<u32>,
    pub topic_alias: Option<u16>,
    pub subscription_identifiers: &'a [u32],
    pub payload: &'a [u8],
}

/// Decodes the first packet of `buffer`. `version` is that of the Network Connection; a CONNECT carries its own. A packet of more
/// than `packet_size_max` bytes in all is refused with Packet Too Large as soon as its fixed header is read.
#[inline]
pub fn decode(buffer: &[u8], version: ProtocolVersion, packet_size_max: u32) -> Result<Decoded<'_>, DecodeError> {
    let Some((&first, after)) = buffer.split_first() else { return Ok(Decoded::Incomplete { needed: 2 }) };
    decode::check_first_byte(first, version)?;
    let Some((header_len, remaining)) = remaining_length(after)? else {
        return Ok(Decoded::Incomplete { needed: buffer.len().saturating_add(1) });
    };
    let len = header_len + remaining;
    if len > packet_size_max as usize {
        return Err(DecodeError::new(ReasonCode::PacketTooLarge, "packet larger than permitted"));
    }
    let Some(body) = buffer.get(header_len..len) else { return Ok(Decoded::Incomplete { needed: len }) };
    if matches!(first >> 4, 12 | 13) && remaining > 0 {
        return Err(malformed("PINGREQ or PINGRESP with contents").unanswered());
    }
    let packet = decode::body(first, Reader::new(body), version)?;
    Ok(Decoded::Packet { packet, len })
}

/// [`decode`] for a server: a packet that only servers send is refused for what it is, whatever its contents.
#[inline]
pub fn decode_from_client(buffer: &[u8], version: ProtocolVersion, packet_size_max: u32) -> Result<Decoded<'_>, DecodeError> {
    if let Some(&first @ (0x20..0x30 | 0x90..0xa0 | 0xb0..0xc0 | 0xd0..0xe0)) = buffer.first() {
        let Some((_, remaining)) = remaining_length(buffer.get(1..).unwrap_or_default())? else {
            return Ok(Decoded::Incomplete { needed: buffer.len().saturating_add(1) });
        };
        if first >> 4 == 13 && remaining > 0 {
            return Err(malformed("PINGREQ or PINGRESP with contents").unanswered());
        }
        // mosquitto does not look at the flags of CONNACK.
        if first >> 4 != 2 {
            decode::check_first_byte(first, version)?;
        }
        return Err(protocol_error("a packet that only a server sends"));
    }
    decode(buffer, version, packet_size_max)
}

/// The properties of a PUBLISH by themselves, behind their length; nothing may follow them.
pub fn decode_publish_properties(bytes: &[u8]) -> Result<Properties, DecodeError> {
    let mut reader = Reader::new(bytes);
    let properties = property::decode(&mut reader, PacketSet::PUBLISH)?;
    if reader.is_empty() { Ok(properties) } else { Err(malformed("bytes behind the properties")) }
}

/// Appends properties behind their length.
pub fn encode_properties(properties: &[Property], out: &mut Vec<u8>) {
    property::encode(properties, out);
}

/// A string by itself, without its length, as the protocol permits it.
pub fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    Reader::of_string(bytes)
}

/// Bytes of the whole fixed header and the Remaining Length; `None` while bytes are missing. `[MQTT-1.5.5-1]` is not asked of it
/// (3.1.1 permits padding), four bytes at most are.
#[inline]
fn remaining_length(after: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in after.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(Some((index + 2, value)));
        }
    }
    if after.len() >= 4 { Err(malformed("Remaining Length of more than four bytes").unanswered()) } else { Ok(None) }
}
