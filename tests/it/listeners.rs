//! Where the real binary listens, and whom it lets in when strangers fill its entrance.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::peer::debian;
use crate::support::process::{Broker, Folder, darner, free_port, run};
use crate::websocket::secure::proxy;

/// CONNECT of MQTT 3.1.1 as whoever the broker says, and its CONNACK.
const CONNECT: &[u8] = b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

fn comes_in(mut socket: TcpStream) -> bool {
    let mut answer = [0; 4];
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    socket.write_all(CONNECT).is_ok() && socket.read_exact(&mut answer).is_ok() && answer == CONNACK
}

fn reaches(host: &str, port: u16) -> bool {
    TcpStream::connect((host, port)).is_ok_and(comes_in)
}

#[test]
fn an_interface_is_all_that_is_listened_on() {
    let broker = Broker::start("listener {port}\nbind_interface lo\nallow_anonymous true\n");
    assert!(reaches("127.0.0.1", broker.port) && reaches("::1", broker.port), "{}", broker.log());
    let folder = Folder::new("interface");
    let conf = folder.write("mosquitto.conf", format!("listener {}\nbind_interface none9\nallow_anonymous true\n", free_port()));
    let (code, _, said) = run(Command::new(darner()).args(["broker", "-c"]).arg(conf));
    assert!(code == 1 && said.contains("none9"), "{code} {said}");
}

#[test]
fn a_family_is_all_that_is_listened_on() {
    for (domain, four, six) in [("ipv4", true, false), ("ipv6", false, true)] {
        // The port is waited for over IPv4, so there is a second listener for it.
        let other = free_port();
        let conf = format!("listener {{port}} 127.0.0.1\nlistener {other}\nsocket_domain {domain}\nallow_anonymous true\n");
        let broker = Broker::start(&conf);
        assert_eq!((reaches("127.0.0.1", other), reaches("::1", other)), (four, six), "{domain}: {}", broker.log());
    }
    let other = free_port();
    let broker = Broker::start(&format!("listener {{port}} 127.0.0.1\nlistener {other} ::1\nallow_anonymous true\n"));
    assert!(reaches("::1", other) && !reaches("127.0.0.1", other), "{}", broker.log());
}

/// A proxy's header of version 2 about a client that came by TLS, with the common name of its certificate if it showed one.
fn header(common_name: Option<&str>) -> Vec<u8> {
    let value = |kind: u8, bytes: &[u8]| [&[kind][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let client = if common_name.is_some() { 0x05 } else { 0x01 };
    let inside = [value(0x21, b"TLSv1.3"), common_name.map(|name| value(0x22, name.as_bytes())).unwrap_or_default()].concat();
    let tls = value(0x20, &[&[client, 0, 0, 0, 0][..], &inside].concat());
    let rest = [&b"\xc0\0\x02\x07\x7f\0\0\x01\x18\x83\x22\xb3"[..], &tls].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &(rest.len() as u16).to_be_bytes(), &rest].concat()
}

#[test]
fn a_proxy_s_word_about_tls_is_asked_for_and_its_names_are_users() {
    const PLAIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x18\x83\x22\xb3";
    let listener = "listener {port} 127.0.0.1\nenable_proxy_protocol 2\n";
    let attempt = |broker: &Broker, header: Vec<u8>| {
        let port = proxy(broker, header).to_string();
        run(debian("mosquitto_pub").args(["-h", "localhost", "-p", &port, "-q", "1", "-t", "a", "-m", "b"])).0
    };
    let broker = Broker::start(&format!("{listener}proxy_protocol_v2_require_tls true\nallow_anonymous true\n"));
    assert_ne!(attempt(&broker, PLAIN.to_vec()), 0);
    broker.wait_for_log("client did not connect using TLS");
    assert_eq!(attempt(&broker, header(None)), 0, "{}", broker.log());

    let broker = Broker::start(&format!("{listener}require_certificate true\nuse_identity_as_username true\n"));
    assert_eq!(attempt(&broker, header(Some("anna"))), 0, "{}", broker.log());
    broker.wait_for_log("u'anna'");
    assert_ne!(attempt(&broker, header(None)), 0);
    for nobody in ["", "an\0na"] {
        assert_ne!(attempt(&broker, header(Some(nobody))), 0, "{nobody:?} is no user: {}", broker.log());
    }
}

/// A connection from another address of this machine.
fn from(source: &str, port: u16) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(source.parse().expect("an address"), 0).into()).expect("bound");
    socket.connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)).into(), Duration::from_secs(5)).ok()?;
    Some(socket.into())
}

/// With so many descriptors.
fn start(descriptors: u32, folder: Folder, conf: &str) -> Broker {
    let words = ["/bin/sh", "-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")].map(str::to_owned);
    Broker::start_within(&words, folder, conf)
}

#[test]
fn strangers_who_take_every_descriptor_keep_nobody_out() {
    let broker = start(120, Folder::new("flood"), "listener {port} 127.0.0.1\nallow_anonymous true\n");
    let member = TcpStream::connect(("127.0.0.1", broker.port)).expect("accepted");
    let mut held = member.try_clone().expect("a socket");
    assert!(comes_in(member));
    let slow = TcpStream::connect(("127.0.0.1", broker.port)).expect("accepted");
    let strangers: Vec<_> = (0..300).filter_map(|_| from("127.0.0.2", broker.port)).collect();
    assert!(strangers.len() > 120);
    assert!(reaches("127.0.0.1", broker.port), "{}", broker.log());
    assert!(comes_in(slow), "who came before them, and is slow, is not who goes: {}", broker.log());
    held.write_all(&[0xc0, 0]).expect("still there");
    let mut pong = [0; 2];
    held.read_exact(&mut pong).expect("still there");
    assert_eq!(pong, [0xd0, 0]);
    broker.wait_for_log("Unable to accept new connections");
}

#[test]
fn strangers_who_fill_the_entrance_keep_nobody_out() {
    let (folder, _) = crate::tls::folder();
    let conf = "listener {port} 127.0.0.1\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\nallow_anonymous true\n";
    let broker = start(4096, folder, conf);
    let slow = TcpStream::connect(("127.0.0.1", broker.port)).expect("accepted");
    let strangers: Vec<_> = (0..1500).filter_map(|_| from("127.0.0.2", broker.port)).collect();
    assert_eq!(strangers.len(), 1500);
    broker.wait_for_log("have not finished their handshake: the oldest of 127.0.0.2");
    crate::tls::raw::finish(&broker, slow, &rustls::version::TLS13, None).expect("who came before them, and is slow, is not who goes");
}

#[test]
fn strangers_who_take_every_descriptor_in_the_entrance_keep_nobody_out() {
    let (folder, _) = crate::tls::folder();
    let conf = "listener {port} 127.0.0.1\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\nallow_anonymous true\n";
    let broker = start(120, folder, conf);
    let connect = || TcpStream::connect(("127.0.0.1", broker.port)).expect("accepted");
    let finish = |socket| crate::tls::raw::finish(&broker, socket, &rustls::version::TLS13, None);
    let slow = connect();
    let strangers: Vec<_> = (0..300).filter_map(|_| from("127.0.0.2", broker.port)).collect();
    assert!(strangers.len() > 120);
    finish(connect()).unwrap_or_else(|error| panic!("{error}: {}", broker.log()));
    finish(slow).expect("who came before them, and is slow, is not who goes");
    broker.wait_for_log("Unable to accept new connections");
}

/// Somebody behind a load balancer, by what it says before them.
fn balanced(broker: &Broker, address: &str) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", broker.port)).expect("accepted");
    // Of a broker that has sent it away meanwhile nothing is expected.
    let _ = socket.write_all(format!("PROXY TCP4 {address} 127.0.0.1 6275 1883\r\n").as_bytes());
    socket
}

#[test]
fn behind_a_load_balancer_the_address_is_the_clients() {
    let conf = "listener {port} 127.0.0.1\nenable_proxy_protocol 1\nallow_anonymous true\n";
    let broker = start(120, Folder::new("flood"), conf);
    let slow = balanced(&broker, "192.0.2.7");
    let _strangers: Vec<_> = (0..300).map(|_| balanced(&broker, "192.0.2.66")).collect();
    assert!(comes_in(balanced(&broker, "192.0.2.8")), "{}", broker.log());
    assert!(comes_in(slow), "who came before them, and is slow, is not who goes: {}", broker.log());
    broker.wait_for_log("Unable to accept new connections");
}

#[test]
fn in_the_entrance_too_the_address_is_the_clients_behind_a_load_balancer() {
    let (folder, _) = crate::tls::folder();
    let conf = "listener {port} 127.0.0.1\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\nallow_anonymous true\n";
    let broker = start(4096, folder, &format!("{conf}enable_proxy_protocol 1\n"));
    let slow = balanced(&broker, "192.0.2.7");
    let _strangers: Vec<_> = (0..1500).map(|_| balanced(&broker, "192.0.2.66")).collect();
    broker.wait_for_log("have not finished their handshake: the oldest of 192.0.2.66");
    crate::tls::raw::finish(&broker, slow, &rustls::version::TLS13, None).expect("who came before them, and is slow, is not who goes");
}

#[test]
fn whose_password_is_being_checked_is_no_stranger() {
    let folder = Folder::new("flood");
    let file = folder.path().join("passwd");
    // So many iterations that the check outlasts the flood.
    let made = run(Command::new(darner()).args(["mosquitto_passwd", "-I", "2000000", "-c", "-b"]).arg(&file).args(["anna", "secret"]));
    assert_eq!(made.0, 0, "{}", made.2);
    let broker = start(120, folder, "listener {port} 127.0.0.1\npassword_file {folder}/passwd\n");
    let mut member = from("127.0.0.2", broker.port).expect("accepted");
    member.write_all(b"\x10\x1a\0\x04MQTT\x04\xc2\0\x3c\0\0\0\x04anna\0\x06secret").expect("accepted");
    let strangers: Vec<_> = (0..300).filter_map(|_| from("127.0.0.2", broker.port)).collect();
    assert!(strangers.len() > 120);
    broker.wait_for_log("Unable to accept new connections");
    let mut answer = [0; 4];
    member.set_nonblocking(true).expect("a socket");
    let early = member.read(&mut answer).map_err(|error| error.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "the check was over before anybody had to go");
    member.set_nonblocking(false).expect("a socket");
    member.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    member.read_exact(&mut answer).unwrap_or_else(|error| panic!("{error}: {}", broker.log()));
    assert_eq!(answer, CONNACK, "{}", broker.log());
}
