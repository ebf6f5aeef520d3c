//! `tests/packets/*.txt`: a line is `version | bytes | what it shows → result`. Bytes are hex or `'text'`. `BLESS=1` writes the
//! results anew, to be read before they are committed.

use super::{SIZE_MAX, encoded};
use darner::mqtt::codec::{Decoded, decode};
use darner::mqtt::{Packet, ProtocolVersion};
use std::fmt::Write as _;
use std::path::Path;

fn version(word: &str) -> ProtocolVersion {
    match word {
        "v31" => ProtocolVersion::V31,
        "v311" => ProtocolVersion::V311,
        "v5" => ProtocolVersion::V5,
        _ => panic!("no version: {word}"),
    }
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend(part.as_bytes());
            continue;
        }
        let digits: Vec<_> = part.chars().filter(|c| !c.is_whitespace()).collect();
        assert!(digits.len().is_multiple_of(2), "odd hex in {text}");
        bytes.extend(digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex")));
    }
    bytes
}

fn result(version: ProtocolVersion, bytes: &[u8]) -> String {
    match decode(bytes, version, SIZE_MAX) {
        Ok(Decoded::Packet { packet, len }) => {
            assert_eq!(len, bytes.len(), "{bytes:02x?}");
            let own_version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
            let again = encoded(&packet, version);
            let text = format!("{packet:?}");
            let len = again.len();
            assert_eq!(decode(&again, own_version, SIZE_MAX), Ok(Decoded::Packet { packet, len }), "{bytes:02x?} encoded again");
            text
        }
        Ok(Decoded::Incomplete { needed }) => format!("incomplete: needs {needed} bytes"),
        Err(error) => format!("{:?}: {error}", error.reason),
    }
}

fn check(file: &Path) -> usize {
    let text = std::fs::read_to_string(file).expect("a golden file");
    let (mut blessed, mut lines) = (String::new(), 0);
    let bless = std::env::var_os("BLESS").is_some();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            writeln!(blessed, "{line}").expect("a string takes it");
            continue;
        }
        let (case, expected) = line.split_once(" →").unwrap_or((line, ""));
        let mut columns = case.splitn(3, " | ");
        let (Some(version_word), Some(hex), Some(_)) = (columns.next(), columns.next(), columns.next()) else {
            panic!("{}: not three columns: {line}", file.display())
        };
        let got = result(version(version_word.trim()), &bytes(hex));
        assert!(bless || got == expected.trim_start(), "{}: {case}\n  expected{expected}\n  got      {got}", file.display());
        writeln!(blessed, "{case} → {got}").expect("a string takes it");
        lines += 1;
    }
    if bless {
        std::fs::write(file, blessed).expect("the file is ours");
    }
    lines
}

#[test]
fn golden_lines_decode_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packets");
    let files = std::fs::read_dir(folder).expect("the golden folder").map(|entry| entry.expect("an entry").path());
    let lines: usize = files.map(|file| check(&file)).sum();
    assert!(lines > 150, "only {lines} golden lines");
}

/// Table 2-4 of the specification, written out a second time: identifier, a valid value in hex, packets that may carry it.
const PROPERTIES: &[(&str, &str, &str)] = &[
    ("01", "01", "publish will"),
    ("02", "00000005", "publish will"),
    ("03", "0001 61", "publish will"),
    ("08", "0001 61", "publish will"),
    ("09", "0001 61", "publish will"),
    ("0b", "05", "publish subscribe"),
    ("11", "00000005", "connect connack disconnect"),
    ("12", "0001 61", "connack"),
    ("13", "0005", "connack"),
    ("15", "0001 61", "connect connack auth"),
    ("16", "0001 61", "connack auth"), // and CONNECT, only beside 0x15
    ("17", "01", "connect"),
    ("18", "00000005", "will"),
    ("19", "01", "connect"),
    ("1a", "0001 61", "connack"),
    ("1c", "0001 61", "connack disconnect"),
    ("1f", "0001 61", "connack puback pubrec pubrel pubcomp suback unsuback disconnect auth"),
    ("21", "0005", "connect connack"),
    ("22", "0005", "connect connack"),
    ("23", "0005", "publish"),
    ("24", "01", "connack"),
    ("25", "01", "connack"),
    (
        "26",
        "0001 61 0001 62",
        "connect will connack publish puback pubrec pubrel pubcomp subscribe suback unsubscribe unsuback disconnect auth",
    ),
    ("27", "00000005", "connect connack"),
    ("28", "01", "connack"),
    ("29", "01", "connack"),
    ("2a", "01", "connack"),
];

/// First byte, body before the properties, body after them.
const PACKETS: &[(&str, &str, &str, &str)] = &[
    ("connect", "10", "0004 'MQTT' 05 02 0000", "0001 61"),
    ("will", "10", "0004 'MQTT' 05 06 0000 00 0001 61", "0001 77 0000"),
    ("connack", "20", "00 00", ""),
    ("publish", "30", "0001 74", ""),
    ("puback", "40", "0001 00", ""),
    ("pubrec", "50", "0001 00", ""),
    ("pubrel", "62", "0001 00", ""),
    ("pubcomp", "70", "0001 00", ""),
    ("subscribe", "82", "0001", "0001 61 00"),
    ("suback", "90", "0001", "00"),
    ("unsubscribe", "a2", "0001", "0001 61"),
    ("unsuback", "b0", "0001", "00"),
    ("disconnect", "e0", "00", ""),
    ("auth", "f0", "00", ""),
];

#[test]
fn each_property_is_taken_where_the_specification_permits_it_and_nowhere_else() {
    for (packet, first, before, after) in PACKETS {
        for (identifier, value, permitted) in PROPERTIES {
            let property = bytes(&format!("{identifier}{value}"));
            for times in [1, 2] {
                let properties = property.repeat(times);
                let body = [bytes(before), vec![properties.len() as u8], properties, bytes(after)].concat();
                let packet_bytes = [bytes(first), vec![body.len() as u8], body].concat();
                let repeats = *identifier == "26" || (*identifier == "0b" && *packet == "publish");
                let valid = permitted.split(' ').any(|p| p == *packet) && (times == 1 || repeats);
                let got = result(ProtocolVersion::V5, &packet_bytes);
                let refused = got.starts_with("ProtocolError") || got.starts_with("MalformedPacket: property");
                assert_eq!(refused, !valid, "{packet} with {times} of 0x{identifier}: {got}");
            }
        }
    }
}

/// Table 2-6 of the specification: for each packet, the Reason Codes that it may carry; and 0x95 where mosquitto sends it.
const REASONS: &[(&str, &str)] = &[
    ("20 03 00 {} 00", "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f"),
    ("40 03 0001 {}", "00 10 80 83 87 90 91 95 97 99"),
    ("50 03 0001 {}", "00 10 80 83 87 90 91 95 97 99"),
    ("62 03 0001 {}", "00 92"),
    ("70 03 0001 {}", "00 92"),
    ("90 04 0001 00 {}", "00 01 02 80 83 87 8f 91 97 9e a1 a2"),
    ("b0 04 0001 00 {}", "00 11 80 83 87 8f 91"),
    ("e0 01 {}", "00 04 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2"),
    ("f0 01 {}", "00 18 19"),
];

#[test]
fn each_reason_code_is_taken_where_the_specification_permits_it_and_nowhere_else() {
    for (packet, permitted) in REASONS {
        for code in 0..=255_u8 {
            let hex = format!("{code:02x}");
            let got = result(ProtocolVersion::V5, &bytes(&packet.replace("{}", &hex)));
            assert_eq!(!got.starts_with("ProtocolError"), permitted.split(' ').any(|p| p == hex), "{packet} with 0x{hex}: {got}");
        }
    }
}
