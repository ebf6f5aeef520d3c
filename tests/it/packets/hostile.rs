//! Bytes from strangers: cut off, changed and invented. Nothing panics, and whatever decodes is a packet that encodes again.

use super::generate::Generator;
use super::{SIZE_MAX, VERSIONS, encoded};
use darner::mqtt::codec::{Decoded, decode};
use darner::mqtt::{Packet, ProtocolVersion, ReasonCode};

/// The version in which a packet means what it says: a CONNECT brings its own.
fn version_of(packet: &Packet<'_>, connection: ProtocolVersion) -> ProtocolVersion {
    if let Packet::Connect(connect) = packet { connect.version } else { connection }
}

fn decodes_consistently(bytes: &[u8], version: ProtocolVersion) {
    match decode(bytes, version, SIZE_MAX) {
        Ok(Decoded::Packet { packet, len }) => {
            assert!(len <= bytes.len(), "{bytes:02x?}");
            // MQTT 3.1 has no Session Present to write.
            if matches!(&packet, Packet::Connack(connack) if connack.session_present && version == ProtocolVersion::V31) {
                return;
            }
            let again = encoded(&packet, version);
            let version = version_of(&packet, version);
            let len = again.len();
            assert_eq!(decode(&again, version, SIZE_MAX), Ok(Decoded::Packet { packet, len }), "{bytes:02x?}");
        }
        Ok(Decoded::Incomplete { needed }) => assert!(needed > bytes.len(), "{bytes:02x?}"),
        Err(error) => assert!(error.reason.is_error() && !error.detail.is_empty(), "{bytes:02x?}"),
    }
}

#[test]
fn a_packet_cut_off_anywhere_is_incomplete() {
    let mut generator = Generator::new(3);
    for round in 0..2_000 {
        let version = VERSIONS[round % 3];
        let (text, payload) = (generator.text(12), generator.bytes(40));
        let packet = generator.packet(version, &text, &payload);
        let bytes = encoded(&packet, version);
        for len in 0..bytes.len() {
            match decode(&bytes[..len], version, SIZE_MAX) {
                Ok(Decoded::Incomplete { needed }) => assert!(needed > len && needed <= bytes.len(), "{len} of {bytes:02x?}"),
                other => panic!("{len} bytes of {bytes:02x?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_packet_shorter_than_its_fields_is_an_error() {
    let mut generator = Generator::new(4);
    for round in 0..2_000 {
        let version = VERSIONS[round % 3];
        let packet = generator.packet(version, "topic", b"");
        let bytes = encoded(&packet, version);
        // Lie about the length: the body ends one byte early.
        let (&first, rest) = bytes.split_first().expect("a packet");
        let &[length @ 1..=0x7f, ref body @ ..] = rest else { continue };
        let mut short = vec![first, length - 1];
        short.extend(&body[..body.len() - 1]);
        // Lists may end after a whole element and version 5 acknowledgements after the Reason Code; nothing else may.
        if let Ok(Decoded::Packet { packet, .. }) = decode(&short, version, SIZE_MAX) {
            let may_be_short = matches!(packet, Packet::Suback(_) | Packet::Unsuback(_) | Packet::Disconnect(_) | Packet::Auth(_))
                || matches!(&packet, Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) if ack.reason == ReasonCode::Success);
            assert!(may_be_short, "{short:02x?} is {packet:?}");
        }
    }
}

#[test]
fn changed_bytes_never_panic() {
    let mut generator = Generator::new(5);
    for round in 0..60_000 {
        let version = VERSIONS[round % 3];
        let (text, payload) = (generator.text(12), generator.bytes(40));
        let mut bytes = encoded(&generator.packet(version, &text, &payload), version);
        for _ in 0..=generator.below(3) {
            let at = generator.below(bytes.len() as u64) as usize;
            match generator.below(4) {
                0 => bytes[at] = generator.next() as u8,
                1 => bytes[at] ^= 1 << generator.below(8),
                2 => bytes.insert(at, generator.next() as u8),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        for version in VERSIONS {
            decodes_consistently(&bytes, version);
        }
    }
}

#[test]
fn invented_bytes_never_panic() {
    let mut generator = Generator::new(6);
    for _ in 0..100_000 {
        let mut bytes = generator.bytes(24);
        // Mostly a length that fits, so that bodies are reached.
        if bytes.len() > 2 && generator.below(4) != 0 {
            bytes[1] = bytes.len() as u8 - 2;
        }
        for version in VERSIONS {
            decodes_consistently(&bytes, version);
        }
    }
}

#[test]
fn a_packet_over_the_limit_is_refused_by_its_header_alone() {
    let header = [0x30, 0xff, 0xff, 0xff, 0x7f];
    for (limit, refused) in [(1_000, true), (268_435_459, true), (268_435_460, false)] {
        let decoded = decode(&header, ProtocolVersion::V5, limit);
        assert_eq!(decoded.map_err(|error| error.reason) == Err(ReasonCode::PacketTooLarge), refused, "{limit}");
    }
}
