//! WebSockets and the PROXY protocol on the real binary.

pub mod secure;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::process::{Broker, Engine, Folder, wait_until};

const OPEN: &str = "listener {port} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n";
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
/// CONNECT of MQTT 3.1.1 as `ws`, and its CONNACK.
const CONNECT: &[u8] = b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02ws";
const CONNACK: &[u8] = &[0x20, 2, 0, 0];

fn open(broker: &Broker) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", broker.port)).expect("accepted");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    socket
}

fn expect(socket: &mut TcpStream, bytes: &[u8]) {
    let mut came = vec![0; bytes.len()];
    socket.read_exact(&mut came).expect("an answer");
    assert_eq!(came, bytes);
}

/// All that comes until the broker closes.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    let _ = socket.read_to_end(&mut came);
    came
}

fn upgraded(broker: &Broker) -> TcpStream {
    let mut socket = open(broker);
    socket.write_all(REQUEST.as_bytes()).expect("taken");
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    expect(&mut socket, answer.as_bytes());
    socket
}

/// A client's frame of up to 125 bytes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [9, 8, 7, 6];
    let mut bytes = vec![first, 0x80 | payload.len() as u8];
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The broker's frame of up to 125 bytes.
fn message(packet: &[u8]) -> Vec<u8> {
    [&[0x82, packet.len() as u8][..], packet].concat()
}

fn connected(broker: &Broker) -> TcpStream {
    let mut socket = upgraded(broker);
    socket.write_all(&frame(0x82, CONNECT)).expect("taken");
    expect(&mut socket, &message(CONNACK));
    socket
}

#[test]
fn packets_are_split_and_joined_over_frames_and_answered_one_in_each() {
    let broker = Broker::start(OPEN);
    let mut socket = upgraded(&broker);
    let subscribe = b"\x82\x06\0\x01\0\x01t\0";
    let publish = b"\x30\x05\0\x01thi";
    socket.write_all(&frame(0x02, &CONNECT[..5])).expect("taken");
    socket.write_all(&frame(0x89, b"ping")).expect("taken");
    expect(&mut socket, b"\x8a\x04ping");
    socket.write_all(&frame(0x80, &[&CONNECT[5..], subscribe, publish].concat())).expect("taken");
    expect(&mut socket, &[message(CONNACK), message(b"\x90\x03\0\x01\0"), message(publish)].concat());
    socket.write_all(&frame(0x88, &[3, 0xe8])).expect("taken");
    assert_eq!(rest(&mut socket), [0x88, 2, 3, 0xe8]);
    broker.wait_for_log("Client ws closed its connection");
}

#[test]
fn silent_clients_hold_up_nobody_and_version_5_is_spoken() {
    for engine in Engine::BOTH {
        let folder = Folder::new("silent");
        engine.choose(&folder);
        let broker = Broker::start_in(folder, OPEN);
        let silent: Vec<_> = (0..100).map(|_| open(&broker)).collect();
        let mut half = open(&broker);
        half.write_all(&REQUEST.as_bytes()[..40]).expect("taken");
        let upgraded_only: Vec<_> = (0..10).map(|_| upgraded(&broker)).collect();
        connected(&broker);
        let mut socket = upgraded(&broker);
        socket.write_all(&frame(0x82, b"\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02w5")).expect("taken");
        let mut head = [0; 3];
        socket.read_exact(&mut head).expect("CONNACK");
        assert_eq!((head[0], head[2]), (0x82, 0x20), "{engine:?}");
        let mut connack = vec![0; usize::from(head[1]) - 1];
        socket.read_exact(&mut connack).expect("CONNACK");
        assert_eq!(connack[2], 0, "accepted with {engine:?}");
        socket.write_all(&frame(0x82, b"\x82\x07\0\x01\0\0\x01t\0")).expect("taken");
        expect(&mut socket, &message(b"\x90\x04\0\x01\0\0"));
        let publish = b"\x30\x08\0\x01t\x02\x01\x01hi";
        socket.write_all(&frame(0x82, publish)).expect("taken");
        expect(&mut socket, &message(publish));
        drop((silent, half, upgraded_only));
    }
}

#[test]
fn text_and_unmasked_frames_end_the_connection_and_nobody_elses() {
    let broker = Broker::start(OPEN);
    for (bytes, code) in [(frame(0x81, CONNECT), 1003_u16), (message(CONNECT), 1002), (vec![0xff; 300], 1002)] {
        let mut socket = upgraded(&broker);
        socket.write_all(&bytes).expect("taken");
        assert_eq!(rest(&mut socket), [&[0x88, 2][..], &code.to_be_bytes()].concat());
    }
    connected(&broker);
}

#[test]
fn a_refused_client_gets_its_connack_and_a_goodbye() {
    let broker = Broker::start("listener {port} 127.0.0.1\nprotocol websockets\nallow_anonymous false\n");
    let mut socket = upgraded(&broker);
    socket.write_all(&frame(0x82, CONNECT)).expect("taken");
    assert_eq!(rest(&mut socket), [message(&[0x20, 2, 0, 5]), vec![0x88, 2, 3, 0xe8]].concat());
}

#[test]
fn what_is_no_upgrade_is_told_why() {
    let broker = Broker::start(OPEN);
    let endless = format!("GET / HTTP/1.1\r\nCookie: {}", "a".repeat(70_000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "426"),
        (&REQUEST.replace("mqtt\r\n", "chat\r\n"), "400"),
        (&REQUEST.replace("HTTP/1.1", "HTTP/1.0"), "400"),
        (&endless, "431"),
    ] {
        let mut socket = open(&broker);
        let _ = socket.write_all(request.as_bytes());
        let answer = String::from_utf8_lossy(&rest(&mut socket)).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    connected(&broker);
}

#[test]
fn websockets_headers_size_is_how_long_a_request_may_be() {
    let with_cookie = |bytes: usize| REQUEST.replace("Host: a", &format!("Host: a\r\nCookie: {}", "a".repeat(bytes)));
    for (size, cookie, accepted) in [
        (None, 3_000, true),
        (None, 5_000, false),
        (Some(200), 0, true),
        (Some(200), 100, false),
        (Some(8192), 5_000, true),
        (Some(8192), 9_000, false),
    ] {
        let option = size.map_or_else(String::new, |size| format!("websockets_headers_size {size}\n"));
        let broker = Broker::start(&format!("{OPEN}{option}"));
        let mut socket = open(&broker);
        let _ = socket.write_all(with_cookie(cookie).as_bytes());
        let mut status = [0; 12];
        socket.read_exact(&mut status).expect("an answer");
        let expected: &[u8] = if accepted { b"HTTP/1.1 101" } else { b"HTTP/1.1 431" };
        assert_eq!(status, expected, "{size:?} and a cookie of {cookie} bytes");
    }
}

#[test]
fn only_pages_of_a_listed_origin_come_in() {
    let broker = Broker::start(&format!("{OPEN}websockets_origin https://a.example\n"));
    for (origin, is_in) in [("https://a.example", true), ("https://b.example", false)] {
        let mut socket = open(&broker);
        socket.write_all(REQUEST.replace("Host: a", &format!("Host: a\r\nOrigin: {origin}")).as_bytes()).expect("taken");
        let mut first = [0; 1];
        assert_eq!(socket.read(&mut first).unwrap_or(0) == 1, is_in, "{origin}");
    }
}

#[test]
fn websockets_go_over_tls() {
    let folder = crate::tls::folder().0;
    let tls = "certfile {folder}/server.crt\nkeyfile {folder}/server.key\n";
    let broker = Broker::start_in(folder, &format!("{OPEN}{tls}"));
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", broker.port)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let mut input = client.stdin.take().expect("piped");
    input.write_all(REQUEST.as_bytes()).expect("taken");
    input.write_all(&[frame(0x82, CONNECT), frame(0x82, &[0xe0, 0])].concat()).expect("taken");
    let mut output = Vec::new();
    client.stdout.take().expect("piped").read_to_end(&mut output).expect("an end");
    let expected = [&b"\r\n\r\n"[..], &message(CONNACK), &[0x88, 2, 3, 0xe8]].concat();
    assert!(output.ends_with(&expected), "{}", String::from_utf8_lossy(&output));
    drop(input);
    client.wait().expect("it ends");
}

#[test]
fn a_proxy_says_whose_the_connection_is() {
    let broker = Broker::start("listener {port} 127.0.0.1\nenable_proxy_protocol 1\nallow_anonymous true\n");
    let mut socket = open(&broker);
    socket.write_all(&[b"PROXY TCP4 192.0.2.5 127.0.0.1 6275 1234\r\n", CONNECT].concat()).expect("taken");
    expect(&mut socket, CONNACK);
    broker.wait_for_log("New client connected from 192.0.2.5:6275 as ws");
    let mut stranger = open(&broker);
    stranger.write_all(CONNECT).expect("taken");
    assert_eq!(rest(&mut stranger), b"");
    broker.wait_for_log("Connection rejected, corrupt PROXY header.");
    let mut sloppy = open(&broker);
    sloppy.write_all(&[b"PROXY TCP4 192.0.2.5 127.0.0.1 +80 1234\r\n", CONNECT].concat()).expect("taken");
    assert_eq!(rest(&mut sloppy), b"");
    wait_until("the second refusal", || broker.log().matches("corrupt PROXY header").count() == 2);
}
