//! What strangers may do to a broker, one case after another, and how much memory each may cost. `make limits` runs them at full size and
//! measures; tests/it/limits.rs runs them small.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use darner::mqtt::codec::{PublishParts, encode, encode_publish};
use darner::mqtt::{Connect, Packet, PacketId, ProtocolVersion, Qos, Subscribe, SubscriptionOptions, SubscriptionRequest};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::SockRef;

/// The connections of an attack: it lasts until they are dropped.
pub type Held = Vec<TcpStream>;

pub struct Case {
    pub name: &'static str,
    pub does: &'static str,
    /// How often, in full and in the tests.
    pub size: usize,
    pub small: usize,
    /// MiB that the broker's memory may grow by, in full and in the tests.
    pub bound_mib: u64,
    pub small_bound_mib: u64,
    /// Options of the listener that is attacked.
    pub listener: &'static str,
    /// Attacks a port that many times.
    pub attack: fn(u16, usize) -> Held,
}

pub const TLS: &str = "certfile {folder}/server.crt\nkeyfile {folder}/server.key\n";
pub const WEBSOCKETS: &str = "protocol websockets\n";

pub const CASES: &[Case] = &[
    Case {
        name: "half-open connections",
        does: "10,000 connections that never say a word",
        size: 10_000,
        small: 500,
        bound_mib: 40,
        small_bound_mib: 8,
        listener: "",
        attack: silent,
    },
    Case {
        name: "TLS handshakes that stop",
        does: "1,000 handshakes, half of them left in the middle of the ClientHello, half after it",
        size: 1_000,
        small: 100,
        bound_mib: 40,
        small_bound_mib: 16,
        listener: TLS,
        attack: handshakes,
    },
    Case {
        name: "slow CONNECT",
        does: "1,000 clients that send their CONNECT byte by byte",
        size: 1_000,
        small: 100,
        bound_mib: 10,
        small_bound_mib: 8,
        listener: "",
        attack: slow_connect,
    },
    Case {
        name: "endless headers",
        does: "1,000 WebSocket upgrades whose headers never end",
        size: 1_000,
        small: 100,
        bound_mib: 20,
        small_bound_mib: 8,
        listener: WEBSOCKETS,
        attack: headers,
    },
    Case {
        name: "200-level topics",
        does: "20,000 messages to topics of 200 levels, past 100 filters of as many levels that match all but the last",
        size: 20_000,
        small: 500,
        bound_mib: 20,
        small_bound_mib: 16,
        listener: "",
        attack: deep_topics,
    },
    Case {
        name: "subscriptions",
        does: "100,000 subscriptions of one client",
        size: 100_000,
        small: 5_000,
        bound_mib: 100,
        small_bound_mib: 12,
        listener: "",
        attack: subscriptions,
    },
    Case {
        name: "topic names",
        does: "one publisher, a message to each of 1,000,000 topics",
        size: 1_000_000,
        small: 20_000,
        bound_mib: 4,
        small_bound_mib: 4,
        listener: "",
        attack: topics,
    },
    Case {
        name: "subscriber that never reads",
        does: "20,000 messages of 16 KiB at QoS 1 to a client that reads none; the queue takes 1,000",
        size: 20_000,
        small: 1_500,
        bound_mib: 32,
        small_bound_mib: 32,
        listener: "",
        attack: never_reads,
    },
];

/// A configuration with a plain listener for the others and one that is attacked. Its files are made in `folder`.
pub fn configuration(case: &Case, folder: &Path, port: u16, attacked: u16) -> String {
    if case.listener == TLS {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        std::fs::write(folder.join("server.crt"), certified.cert.pem()).expect("a file");
        std::fs::write(folder.join("server.key"), certified.signing_key.serialize_pem()).expect("a file");
    }
    let listener = case.listener.replace("{folder}", &folder.display().to_string());
    format!("user root\nallow_anonymous true\nlog_dest none\nlistener {port} 127.0.0.1\nlistener {attacked} 127.0.0.1\n{listener}")
}

/// A connection whose end leaves nothing behind in the kernel.
fn open(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a TCP socket");
    stream.set_write_timeout(Some(Duration::from_secs(30))).expect("a TCP socket");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    stream
}

const VERSION: ProtocolVersion = ProtocolVersion::V311;

fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let connect = Connect {
        version: VERSION,
        bridge: false,
        clean_start: true,
        keep_alive: 0,
        properties: Vec::new(),
        client_id: client_id.to_owned(),
        will: None,
        username: None,
        password: None,
    };
    encode(&Packet::Connect(Box::new(connect)), VERSION, &mut bytes);
    bytes
}

fn subscribe_packet(filters: impl Iterator<Item = String>, qos: Qos) -> Vec<u8> {
    let mut bytes = Vec::new();
    let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let subscriptions = filters.map(|filter| SubscriptionRequest { filter, options }).collect();
    let packet_id = PacketId::new(1).expect("not 0");
    encode(&Packet::Subscribe(Subscribe { packet_id, properties: Vec::new(), subscriptions }), VERSION, &mut bytes);
    bytes
}

fn publish(topic: &str, packet_id: Option<u16>, payload: &[u8], bytes: &mut Vec<u8>) {
    let packet_id = packet_id.and_then(PacketId::new);
    let parts = PublishParts {
        dup: false,
        qos: if packet_id.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce },
        retain: false,
        topic,
        packet_id,
        properties: &[],
        topic_alias: None,
        message_expiry_interval: None,
        subscription_identifiers: &[],
        payload,
    };
    encode_publish(&parts, VERSION, bytes);
}

/// A client that the broker has accepted.
fn connected(port: u16, client_id: &str) -> TcpStream {
    let mut stream = open(port);
    request(&mut stream, &connect_packet(client_id), 4);
    stream
}

/// Sends, and reads an answer of known length.
fn request(stream: &mut TcpStream, bytes: &[u8], answer: usize) {
    stream.write_all(bytes).expect("the broker reads");
    stream.read_exact(&mut vec![0; answer]).expect("the broker answers");
}

fn silent(port: u16, size: usize) -> Held {
    (0..size).map(|_| open(port)).collect()
}

fn handshakes(port: u16, size: usize) -> Held {
    let config = Arc::new(ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    let start = |number: usize| {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut hello = Vec::new();
        ClientConnection::new(Arc::clone(&config), name).expect("a client").write_tls(&mut hello).expect("memory");
        let mut stream = open(port);
        let len = if number.is_multiple_of(2) { hello.len() } else { hello.len() / 2 };
        let _ = stream.write_all(&hello[..len]);
        stream
    };
    (0..size).map(start).collect()
}

fn slow_connect(port: u16, size: usize) -> Held {
    let mut held = silent(port, size);
    for byte in connect_packet(&"x".repeat(60)).iter().take(60) {
        for stream in &mut held {
            let _ = stream.write(&[*byte]);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    held
}

fn headers(port: u16, size: usize) -> Held {
    let mut held = silent(port, size);
    let line = format!("X-Filler: {}\r\n", "x".repeat(500));
    for round in 0..128 {
        for stream in &mut held {
            // It is cut off at some time.
            let _ = stream.write_all(if round == 0 { b"GET /mqtt HTTP/1.1\r\n" } else { line.as_bytes() });
        }
    }
    held
}

fn deep_topics(port: u16, size: usize) -> Held {
    let mut subscriber = connected(port, "deep-filters");
    // All of the 128 ways to write + for the first seven levels, but for some.
    let deep = |bits: usize| {
        let levels = (0..199).map(|level| if level < 7 && bits >> level & 1 == 1 { "+" } else { "a" });
        format!("{}/none", levels.collect::<Vec<_>>().join("/"))
    };
    for bits in 0..100 {
        request(&mut subscriber, &subscribe_packet(std::iter::once(deep(bits)), Qos::AtMostOnce), 5);
    }
    let mut publisher = connected(port, "deep-topics");
    for number in 0..size {
        let mut bytes = Vec::new();
        publish(&format!("{}{number}", "a/".repeat(199)), None, b"1", &mut bytes);
        publisher.write_all(&bytes).expect("the broker reads");
    }
    request(&mut publisher, &[0xc0, 0], 2);
    vec![subscriber, publisher]
}

fn subscriptions(port: u16, size: usize) -> Held {
    let mut subscriber = connected(port, "many-subscriptions");
    for first in (0..size).step_by(100) {
        let filters = (first..first + 100).map(|number| format!("house/{number}/+/state"));
        request(&mut subscriber, &subscribe_packet(filters, Qos::AtMostOnce), 2 + 2 + 100);
    }
    vec![subscriber]
}

fn topics(port: u16, size: usize) -> Held {
    let mut publisher = connected(port, "many-topics");
    for first in (0..size).step_by(1000) {
        let mut bytes = Vec::new();
        for number in first..first + 1000 {
            publish(&format!("sensor/{number}/state"), None, b"on", &mut bytes);
        }
        publisher.write_all(&bytes).expect("the broker reads");
    }
    request(&mut publisher, &[0xc0, 0], 2);
    vec![publisher]
}

fn never_reads(port: u16, size: usize) -> Held {
    let mut subscriber = connected(port, "never-reads");
    request(&mut subscriber, &subscribe_packet(std::iter::once("flood".to_owned()), Qos::AtLeastOnce), 5);
    let mut publisher = connected(port, "flood");
    let payload = vec![b'x'; 16 << 10];
    for first in (0..size).step_by(10) {
        let mut bytes = Vec::new();
        for number in first..first + 10 {
            publish("flood", Some((number % 60_000) as u16 + 1), &payload, &mut bytes);
        }
        request(&mut publisher, &bytes, 10 * 4);
    }
    vec![subscriber, publisher]
}
