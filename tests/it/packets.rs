//! The codec: golden lines of `tests/packets`, every packet type there and back, and hostile bytes.

pub mod generate;
mod golden;
mod hostile;

use darner::mqtt::ProtocolVersion;
use darner::mqtt::codec::{Decoded, decode, encode, encode_publish, publish_len};
use darner::mqtt::{Packet, Property};
use generate::Generator;

const VERSIONS: [ProtocolVersion; 3] = [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5];
const SIZE_MAX: u32 = 268_435_460;

fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes);
    bytes
}

#[test]
fn every_packet_decodes_to_what_was_encoded() {
    let mut generator = Generator::new(1);
    for round in 0..20_000 {
        let version = VERSIONS[round % 3];
        let text = generator.text(12);
        let payload = generator.bytes(300);
        let packet = generator.packet(version, &text, &payload);
        let bytes = encoded(&packet, version);
        let decoded = decode(&bytes, version, SIZE_MAX);
        assert_eq!(decoded, Ok(Decoded::Packet { packet, len: bytes.len() }), "round {round}: {bytes:02x?}");
    }
}

#[test]
fn encoding_appends() {
    let mut bytes = vec![1, 2, 3];
    encode(&Packet::Pingreq, ProtocolVersion::V5, &mut bytes);
    encode(&Packet::Pingresp, ProtocolVersion::V5, &mut bytes);
    assert_eq!(bytes, [1, 2, 3, 0xc0, 0, 0xd0, 0]);
}

#[test]
fn a_publish_from_its_parts_has_the_promised_length_and_identifier_offset() {
    let mut generator = Generator::new(2);
    for round in 0..5_000 {
        let version = VERSIONS[round % 3];
        let owned = generator.publish_parts();
        let parts = owned.parts();
        let mut bytes = vec![0xee];
        let packet_id_at = encode_publish(&parts, version, &mut bytes);
        let packet_bytes = &bytes[1..];
        assert_eq!(packet_bytes.len(), publish_len(&parts, version), "round {round}");
        let Ok(Decoded::Packet { packet: Packet::Publish(publish), len }) = decode(packet_bytes, version, SIZE_MAX) else {
            panic!("round {round}: {packet_bytes:02x?}")
        };
        assert_eq!(len, packet_bytes.len());
        assert_eq!((publish.dup, publish.qos, publish.retain), (parts.dup, parts.qos, parts.retain));
        assert_eq!((publish.topic, publish.payload, publish.packet_id), (parts.topic, parts.payload, parts.packet_id));
        assert_eq!(publish.properties, if version == ProtocolVersion::V5 { owned.expected_properties() } else { Vec::new() });
        match (packet_id_at, publish.packet_id) {
            (Some(at), Some(id)) => assert_eq!(packet_bytes[at as usize..][..2], id.get().to_be_bytes()),
            (None, None) => {}
            other => panic!("round {round}: {other:?}"),
        }
    }
}

#[test]
fn lengths_at_the_borders_of_the_variable_byte_integer_survive() {
    for len in [0, 120, 127, 128, 16_380, 16_383, 16_384, 2_097_151, 2_097_152] {
        let payload = vec![7; len];
        for version in VERSIONS {
            let packet = Generator::plain_publish("t", &payload);
            let bytes = encoded(&packet, version);
            assert_eq!(decode(&bytes, version, SIZE_MAX), Ok(Decoded::Packet { packet, len: bytes.len() }), "{len}");
        }
        let reason = "x".repeat(len.min(65_535)).into_boxed_str();
        let packet = Packet::Disconnect(darner::mqtt::Disconnect {
            reason: darner::mqtt::ReasonCode::ServerBusy,
            properties: vec![Property::ReasonString(reason)],
        });
        let bytes = encoded(&packet, ProtocolVersion::V5);
        assert_eq!(decode(&bytes, ProtocolVersion::V5, SIZE_MAX), Ok(Decoded::Packet { packet, len: bytes.len() }), "{len}");
    }
}
