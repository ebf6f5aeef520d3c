//! What a fuzzer does with bytes: one function a target, and the table of them. The fuzzing package (tests/fuzz) and the bounded run
//! in `make test` share this file.

use std::io;
use std::path::{Path, PathBuf};

use darner::access::{Acl, Passwords};
use darner::conf::change;
use darner::conf::files::ReadFiles;
use darner::conf::{CommandLine, Conf};
use darner::mqtt::ProtocolVersion;
use darner::mqtt::codec::{Decoded, decode};

use super::session;

/// A name, and what is done with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// The name is also that of the corpus. A target panics where something is wrong.
pub const TARGETS: &[Target] = &[
    ("codec", codec),
    ("session", session::session),
    ("websocket", websocket),
    ("proxy", proxy),
    ("mosquitto_conf", mosquitto_conf),
    ("password_file", password_file),
    ("acl_file", acl_file),
    ("mosquitto_db", mosquitto_db),
];

/// The fuzzing package names its programs as the table does.
#[allow(dead_code)] // only the fuzzing package calls it
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a row of TARGETS");
    target(bytes);
}

/// Whatever decodes encodes again, to the same packet.
fn codec(bytes: &[u8]) {
    const SIZE_MAX: u32 = 1 << 20;
    for version in [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5] {
        match decode(bytes, version, SIZE_MAX) {
            Ok(Decoded::Incomplete { needed }) => assert!(needed > bytes.len()),
            Err(error) => assert!(error.reason.is_error() && !error.detail.is_empty()),
            Ok(Decoded::Packet { packet, len }) => {
                assert!(len <= bytes.len());
                // MQTT 3.1 has no Session Present to write.
                if matches!(&packet, darner::mqtt::Packet::Connack(connack) if connack.session_present && version == ProtocolVersion::V31) {
                    continue;
                }
                let of_packet = if let darner::mqtt::Packet::Connect(connect) = &packet { connect.version } else { version };
                let mut again = Vec::new();
                darner::mqtt::codec::encode(&packet, of_packet, &mut again);
                let len = again.len();
                assert_eq!(decode(&again, of_packet, u32::MAX), Ok(Decoded::Packet { packet, len }));
            }
        }
    }
}

/// A connection that asks for WebSockets, sends its CONNECT, and is cut into pieces anywhere: the same comes of it as in one piece. What
/// the frames held goes to a broker, in both pieces.
fn websocket(bytes: &[u8]) {
    use darner::websocket::frames::Frames;
    use darner::websocket::upgrade::{Rules, Upgrade, judge};
    const RULES: Rules<'_> = Rules { origins: &[], bytes_max: 4096 };
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let cut = usize::from(cut).min(bytes.len());
    let first = judge(&bytes[..cut], 0, RULES);
    let upgrade = if first == Upgrade::Incomplete { judge(bytes, cut, RULES) } else { first };
    let Upgrade::Accepted { answer, len } = upgrade else { return };
    assert!(answer.starts_with("HTTP/1.1 101") && len <= bytes.len());
    let unframed = |pieces: &[&[u8]]| {
        let (mut frames, mut answers, mut packets) = (Frames::default(), Vec::new(), Vec::new());
        let mut end = None;
        for piece in pieces {
            let mut piece = piece.to_vec();
            let (taken, ended) = frames.unframe(&mut piece, &mut answers);
            assert!(taken <= piece.len());
            packets.extend_from_slice(&piece[..taken]);
            end = end.or(ended);
        }
        (packets, answers, end)
    };
    let rest = &bytes[len..];
    let (head, tail) = rest.split_at(cut.min(rest.len()));
    let whole = unframed(&[rest]);
    assert_eq!(whole, unframed(&[head, tail]));
    let (first, second) = whole.0.split_at(cut.min(whole.0.len()));
    session::stream(cut as u8, &[first, second]);
}

/// A header that comes in pieces, cut anywhere, says what it says in one piece, and what is taken for it is the header and no byte more.
fn proxy(bytes: &[u8]) {
    use darner::conf::ProxyVersion;
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (said, header) = header(version, &[bytes]);
        let (said_of_two, header_of_two) = self::header(version, &[head, tail]);
        let (said_of_all, header_of_all) = self::header(version, &bytes.chunks(1).collect::<Vec<_>>());
        assert!(said == said_of_two && said == said_of_all, "{said:?}, in two pieces {said_of_two:?}, byte by byte {said_of_all:?}");
        if !matches!(said, Ok(Some(_))) {
            continue;
        }
        assert!(header == header_of_two && header == header_of_all && bytes.starts_with(&header));
        let whole = match version {
            ProxyVersion::V1 => bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1),
            ProxyVersion::V2 => 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])),
        };
        assert_eq!(header.len(), whole, "{said:?}");
    }
}

/// As a connection is read: what came of the header, and the bytes that were taken for it.
fn header(version: darner::conf::ProxyVersion, pieces: &[&[u8]]) -> (Result<Option<darner::proxy::Said>, darner::proxy::Corrupt>, Vec<u8>) {
    let mut held = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let taken = darner::proxy::share(version, &held, rest);
            assert!((1..=rest.len()).contains(&taken), "{taken} of {} bytes, {} held", rest.len(), held.len());
            held.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            let said = darner::proxy::parse(version, &held);
            if said != Ok(None) {
                return (said, held);
            }
        }
    }
    (Ok(None), held)
}

/// One file, and no other anywhere.
struct OnlyFile<'a>(&'a [u8]);

impl ReadFiles for OnlyFile<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new("/mosquitto.conf") { Ok(self.0.to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn list(&self, _folder: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Read twice, a file means the same; what is refused says why.
fn mosquitto_conf(bytes: &[u8]) {
    let load = || Conf::load(&OnlyFile(bytes), Some(Path::new("/mosquitto.conf")), &CommandLine::default(), &[]);
    match load() {
        Ok(conf) => {
            assert!(!conf.listeners.is_empty());
            assert!(change::diff(&conf, &load().expect("what loads once loads twice")).is_empty());
            let _ = darner::access::load(&OnlyFile(b""), &conf);
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty());
            for found in diagnostics {
                assert!(!found.sentence().is_empty());
                drop(found.log_lines());
            }
        }
    }
}

/// Nobody with an empty name gets in, and asking for anybody is harmless.
fn password_file(bytes: &[u8]) {
    let (passwords, diagnostics) = Passwords::parse(Path::new("/pwfile"), bytes);
    for found in diagnostics {
        assert!(!found.sentence().is_empty());
    }
    for name in String::from_utf8_lossy(bytes).lines().filter_map(|line| line.split(':').next()).take(8) {
        let _ = passwords.contains(name);
    }
    assert!(!passwords.contains(""));
}

/// Every question has an answer, and what nobody was given is refused.
fn acl_file(bytes: &[u8]) {
    use darner::access::Access;
    match Acl::parse(Path::new("/aclfile"), bytes) {
        Ok((acl, _)) => {
            let names_nothing = !bytes.windows(5).any(|word| word == b"topic") && !bytes.windows(7).any(|word| word == b"pattern");
            for client in ["", "c", "a/b", "+", "%u"] {
                for user in [None, Some(""), Some("u"), Some("#")] {
                    for topic in ["a", "a/b", "/", "$SYS/x", ""] {
                        let permitted = acl.permits(client, user, topic, Access::Write);
                        assert!(!(permitted && names_nothing), "an empty ACL file permits {topic}");
                        let _ = acl.permits(client, user, topic, Access::Read);
                    }
                    let _ = acl.danger(client, user);
                }
            }
        }
        Err(diagnostics) => assert!(!diagnostics.is_empty()),
    }
}

/// Whatever a database holds, what is made of it is the same after it was given back and taken over again.
fn mosquitto_db(bytes: &[u8]) {
    use darner::store::mosquitto::{Listener, Terms, export, import};
    let listeners = vec![
        Listener { port: 1883, security: 0, mount_point: None, max_qos: darner::mqtt::Qos::ExactlyOnce },
        Listener { port: 1884, security: 1, mount_point: Some("m/".into()), max_qos: darner::mqtt::Qos::AtLeastOnce },
    ];
    let terms = Terms { zero: 1_760_000_000_000, listeners, client_expiration_secs: Some(86_400) };
    let Ok((first, report)) = import(bytes, &terms) else { return };
    assert!(report.is_whole() || !report.missing().is_empty());
    assert!(report.retained <= bytes.len() && report.queued <= bytes.len());
    let written = |state: &darner::broker::State| {
        let mut bytes = Vec::new();
        export(state, &terms, &mut bytes).expect("memory takes it");
        bytes
    };
    // What is damaged may be in no order; after that it is.
    let (second, report) = import(&written(&first), &terms).expect("a database");
    assert!(report.is_whole(), "{}", report.missing());
    assert_eq!((second.retained.len(), second.sessions.len()), (first.retained.len(), first.sessions.len()));
    let (third, _) = import(&written(&second), &terms).expect("a database");
    assert!(second == third, "{second:?} is not {third:?}");
}
