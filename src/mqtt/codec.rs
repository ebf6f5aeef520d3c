//! Bytes ↔ packets. No allocation for a PUBLISH without properties.

use super::{Packet, PacketId, Property, ProtocolVersion, Qos, ReasonCode};

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
}

/// Decodes the first packet of `buffer`. `version` is that of the Network Connection; a CONNECT carries its own. A packet of more
/// than `packet_size_max` bytes in all is refused with Packet Too Large as soon as its fixed header is read.
pub fn decode(_buffer: &[u8], _version: ProtocolVersion, _packet_size_max: u32) -> Result<Decoded<'_>, DecodeError> {
    todo!()
}

/// Appends `packet` to `out`.
pub fn encode(_packet: &Packet<'_>, _version: ProtocolVersion, _out: &mut Vec<u8>) {
    todo!()
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
    pub subscription_identifiers: &'a [u32],
    pub payload: &'a [u8],
}

/// Appends a PUBLISH to `out`; returns the offset of its two Packet Identifier bytes from the packet's first byte (`None` at QoS 0).
/// Properties are left out in version 3.
pub fn encode_publish(_parts: &PublishParts<'_>, _version: ProtocolVersion, _out: &mut Vec<u8>) -> Option<u32> {
    todo!()
}

/// Bytes that [`encode_publish`] would append.
pub fn publish_len(_parts: &PublishParts<'_>, _version: ProtocolVersion) -> usize {
    todo!()
}
