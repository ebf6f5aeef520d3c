//! Properties of MQTT 5 (2.2.2): one table says identifier, type, packets and whether one may repeat.

use super::codec::DecodeError;
use super::codec::fields::{self, Reader, malformed, protocol_error};
use super::packet::PacketSet;

macro_rules! properties {
    ($($identifier:literal $name:ident($($field:ident: $type:ty as $kind:ident),+) in $packets:expr, repeats in $repeats:expr;)*) => {
        /// One property with its value.
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum Property { $($name($($type),+)),* }

        impl Property {
            /// Identifier, packets that may carry it, packets in which it may repeat.
            const TABLE: &'static [(u8, PacketSet, PacketSet)] = &[$(($identifier, $packets, $repeats)),*];

            /// Identifier on the wire.
            pub fn identifier(&self) -> u8 {
                match self { $(Self::$name(..) => $identifier),* }
            }

            /// The specification's name, in one word.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(..) => stringify!($name)),* }
            }

            fn read(identifier: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match identifier {
                    $($identifier => Ok(Self::$name($(<$kind as Kind<_>>::read(reader)?),+)),)*
                    _ => Err(malformed("unknown property")),
                }
            }

            pub(super) fn write(&self, out: &mut Vec<u8>) {
                out.push(self.identifier());
                match self { $(Self::$name($($field),+) => { $($kind::write($field, out);)+ }),* }
            }

            /// Bytes that `write` appends.
            pub(super) fn wire_len(&self) -> usize {
                1 + match self { $(Self::$name($($field),+) => { 0 $(+ $kind::len($field))+ }),* }
            }
        }
    };
}

use PacketSet as P;

// Table 2-4. The kinds below say the wire format and which values are a Protocol Error.
properties! {
    0x01 PayloadFormatIndicator(value: u8 as Flag) in P::PUBLISH.or(P::WILL), repeats in P::NONE;
    0x02 MessageExpiryInterval(value: u32 as FourByteInteger) in P::PUBLISH.or(P::WILL), repeats in P::NONE;
    0x03 ContentType(value: Box<str> as Text) in P::PUBLISH.or(P::WILL), repeats in P::NONE;
    0x08 ResponseTopic(value: Box<str> as TopicName) in P::PUBLISH.or(P::WILL), repeats in P::NONE;
    0x09 CorrelationData(value: Box<[u8]> as BinaryData) in P::PUBLISH.or(P::WILL), repeats in P::NONE;
    0x0B SubscriptionIdentifier(value: u32 as SubscriptionNumber) in P::PUBLISH.or(P::SUBSCRIBE), repeats in P::PUBLISH;
    0x11 SessionExpiryInterval(value: u32 as FourByteInteger) in P::CONNECT.or(P::CONNACK).or(P::DISCONNECT), repeats in P::NONE;
    0x12 AssignedClientIdentifier(value: Box<str> as Text) in P::CONNACK, repeats in P::NONE;
    0x13 ServerKeepAlive(value: u16 as TwoByteInteger) in P::CONNACK, repeats in P::NONE;
    0x15 AuthenticationMethod(value: Box<str> as Text) in P::CONNECT.or(P::CONNACK).or(P::AUTH), repeats in P::NONE;
    0x16 AuthenticationData(value: Box<[u8]> as BinaryData) in P::CONNECT.or(P::CONNACK).or(P::AUTH), repeats in P::NONE;
    0x17 RequestProblemInformation(value: u8 as Flag) in P::CONNECT, repeats in P::NONE;
    0x18 WillDelayInterval(value: u32 as FourByteInteger) in P::WILL, repeats in P::NONE;
    0x19 RequestResponseInformation(value: u8 as Flag) in P::CONNECT, repeats in P::NONE;
    0x1A ResponseInformation(value: Box<str> as Text) in P::CONNACK, repeats in P::NONE;
    0x1C ServerReference(value: Box<str> as Text) in P::CONNACK.or(P::DISCONNECT), repeats in P::NONE;
    0x1F ReasonString(value: Box<str> as Text) in P::CONNACK.or(P::ACKS).or(P::SUBACK).or(P::UNSUBACK).or(P::DISCONNECT).or(P::AUTH), repeats in P::NONE;
    0x21 ReceiveMaximum(value: u16 as ReceiveQuota) in P::CONNECT.or(P::CONNACK), repeats in P::NONE;
    0x22 TopicAliasMaximum(value: u16 as TwoByteInteger) in P::CONNECT.or(P::CONNACK), repeats in P::NONE;
    0x23 TopicAlias(value: u16 as AliasNumber) in P::PUBLISH, repeats in P::NONE;
    0x24 MaximumQos(value: u8 as Flag) in P::CONNACK, repeats in P::NONE;
    0x25 RetainAvailable(value: u8 as Flag) in P::CONNACK, repeats in P::NONE;
    0x26 UserProperty(name: Box<str> as Text, value: Box<str> as Text) in P::ALL, repeats in P::ALL;
    0x27 MaximumPacketSize(value: u32 as PacketSize) in P::CONNECT.or(P::CONNACK), repeats in P::NONE;
    0x28 WildcardSubscriptionAvailable(value: u8 as Flag) in P::CONNACK, repeats in P::NONE;
    0x29 SubscriptionIdentifierAvailable(value: u8 as Flag) in P::CONNACK, repeats in P::NONE;
    0x2A SharedSubscriptionAvailable(value: u8 as Flag) in P::CONNACK, repeats in P::NONE;
}

/// Properties in wire order. Empty (and unallocated) in version 3.
pub type Properties = Vec<Property>;

/// Decodes a Property Length and that many bytes of properties of `packet`.
pub(super) fn decode(reader: &mut Reader<'_>, packet: PacketSet) -> Result<Properties, DecodeError> {
    let len = reader.variable_byte_integer()?;
    if len == 0 {
        return Ok(Properties::new());
    }
    let mut reader = Reader::new(reader.take(len as usize)?);
    let mut properties = Properties::new();
    let mut seen = 0_u64;
    let mut refusal = None;
    while !reader.is_empty() {
        let identifier = reader.u8()?;
        let row = Property::TABLE.iter().find(|row| row.0 == identifier);
        let &(_, packets, repeats) = row.ok_or_else(|| malformed("unknown property"))?;
        let bit = 1 << (identifier & 63);
        if !packets.contains(packet) {
            // mosquitto's choice of code differs by packet.
            let is_request = packet == PacketSet::SUBSCRIBE || packet == PacketSet::UNSUBSCRIBE;
            let refuse = if is_request { malformed } else { protocol_error };
            refusal = refusal.or(Some(refuse("property that this packet may not carry")));
        } else if seen & bit != 0 && !repeats.contains(packet) {
            refusal = refusal.or(Some(protocol_error("property said twice")));
        }
        seen |= bit;
        properties.push(Property::read(identifier, &mut reader)?);
    }
    // Wrong bytes outweigh what must not be said, as in mosquitto.
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    Ok(properties)
}

/// Appends a Property Length and the properties.
pub(super) fn encode(properties: &[Property], out: &mut Vec<u8>) {
    fields::write_with_length(out, |out| properties.iter().for_each(|property| property.write(out)));
}

/// A format of property values; reading refuses the values that the specification forbids.
trait Kind<V: ?Sized> {
    type Owned;
    fn read(reader: &mut Reader<'_>) -> Result<Self::Owned, DecodeError>;
    fn write(value: &V, out: &mut Vec<u8>);
    fn len(value: &V) -> usize;
}

macro_rules! integer_kinds {
    ($($name:ident: $type:ident, $permitted:expr, $refusal:literal;)*) => {$(
        struct $name;
        impl Kind<$type> for $name {
            type Owned = $type;
            fn read(reader: &mut Reader<'_>) -> Result<$type, DecodeError> {
                let value = reader.$type()?;
                if $permitted.contains(&value) { Ok(value) } else { Err(protocol_error($refusal)) }
            }
            fn write(value: &$type, out: &mut Vec<u8>) { out.extend_from_slice(&value.to_be_bytes()); }
            fn len(_: &$type) -> usize { size_of::<$type>() }
        }
    )*};
}

integer_kinds! {
    Flag: u8, (0..=1), "property that must be 0 or 1";
    TwoByteInteger: u16, (0..=u16::MAX), "";
    ReceiveQuota: u16, (1..=u16::MAX), "Receive Maximum 0";
    AliasNumber: u16, (1..=u16::MAX), "Topic Alias 0";
    FourByteInteger: u32, (0..=u32::MAX), "";
    PacketSize: u32, (1..=u32::MAX), "Maximum Packet Size 0";
}

/// Subscription Identifier: 1 to 268,435,455 (3.8.2.1.2).
struct SubscriptionNumber;
impl Kind<u32> for SubscriptionNumber {
    type Owned = u32;
    fn read(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
        match reader.variable_byte_integer()? {
            0 => Err(protocol_error("Subscription Identifier 0")),
            value => Ok(value),
        }
    }
    fn write(value: &u32, out: &mut Vec<u8>) {
        fields::write_variable_byte_integer(*value as usize, out);
    }
    fn len(value: &u32) -> usize {
        fields::variable_byte_integer_len(*value as usize)
    }
}

struct Text;
impl Kind<str> for Text {
    type Owned = Box<str>;
    fn read(reader: &mut Reader<'_>) -> Result<Box<str>, DecodeError> {
        reader.string().map(Box::from)
    }
    fn write(value: &str, out: &mut Vec<u8>) {
        fields::write_string(value, out);
    }
    fn len(value: &str) -> usize {
        2 + value.floor_char_boundary(usize::from(u16::MAX))
    }
}

/// Response Topic: a Topic Name, so not empty and without wildcards `[MQTT-3.3.2-14]`.
struct TopicName;
impl Kind<str> for TopicName {
    type Owned = Box<str>;
    fn read(reader: &mut Reader<'_>) -> Result<Box<str>, DecodeError> {
        let topic = reader.string()?;
        if topic.is_empty() || topic.contains(['+', '#']) {
            return Err(protocol_error("Response Topic is not a Topic Name"));
        }
        Ok(topic.into())
    }
    fn write(value: &str, out: &mut Vec<u8>) {
        Text::write(value, out);
    }
    fn len(value: &str) -> usize {
        Text::len(value)
    }
}

struct BinaryData;
impl Kind<[u8]> for BinaryData {
    type Owned = Box<[u8]>;
    fn read(reader: &mut Reader<'_>) -> Result<Box<[u8]>, DecodeError> {
        reader.binary().map(Box::from)
    }
    fn write(value: &[u8], out: &mut Vec<u8>) {
        fields::write_binary(value, out);
    }
    fn len(value: &[u8]) -> usize {
        2 + value.len().min(usize::from(u16::MAX))
    }
}
