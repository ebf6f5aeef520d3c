//! WebSockets within TLS: a certificate swapped under open connections, certificates of clients, and a proxy in front.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;

use super::{CONNACK, CONNECT, OPEN, REQUEST, frame, message};
use crate::support::peer::debian;
use crate::support::process::{Broker, Folder, run, wait_until};
use crate::tls::{Authority, folder};

const PAIR: &str = "certfile {folder}/server.crt\nkeyfile {folder}/server.key\n";
/// PINGREQ, and its answer.
const PING: &[u8] = &[0xc0, 0];
const PONG: &[u8] = &[0xd0, 0];

/// `openssl s_client` between a test and the broker.
struct Tunnel {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Tunnel {
    /// With the certificate NAME.crt and its key, where one is named.
    fn open(broker: &Broker, certificate: Option<&str>) -> Self {
        Self::to(broker.port, certificate, broker)
    }

    fn to(port: u16, certificate: Option<&str>, broker: &Broker) -> Self {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")]);
        if let Some(name) = certificate {
            let file = |ending: &str| broker.folder.path().join(format!("{name}.{ending}"));
            client.arg("-cert").arg(file("crt")).arg("-key").arg(file("key"));
        }
        let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl is installed");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self { child, input, output }
    }

    fn say(&mut self, bytes: &[u8]) {
        let _ = self.input.write_all(bytes);
    }

    /// Whether the upgrade and CONNECT are answered with CONNACK 0.
    fn comes_in(&mut self) -> bool {
        self.say(REQUEST.as_bytes());
        self.say(&frame(0x82, CONNECT));
        let mut came = Vec::new();
        let mut byte = [0];
        while !came.ends_with(b"\r\n\r\n") {
            if self.output.read(&mut byte).unwrap_or(0) == 0 {
                return false;
            }
            came.extend(byte);
        }
        self.answers(CONNACK)
    }

    fn answers(&mut self, packet: &[u8]) -> bool {
        let mut came = vec![0; packet.len() + 2];
        self.output.read_exact(&mut came).is_ok() && came == message(packet)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(folder: Folder, more: &str) -> Broker {
    Broker::start_in(folder, &format!("{OPEN}{PAIR}{more}"))
}

fn serial(broker: &Broker) -> String {
    let shown = run(Command::new("openssl").args(["s_client", "-connect", &format!("127.0.0.1:{}", broker.port)])).1;
    let file = broker.folder.write("shown", shown);
    run(Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(file)).1.trim().to_owned()
}

#[test]
fn a_reload_swaps_the_certificate_and_drops_no_websocket() {
    let (folder, authority) = folder();
    let broker = start(folder, "");
    let mut client = Tunnel::open(&broker, None);
    assert!(client.comes_in());
    assert_eq!(serial(&broker), "serial=01");
    authority.sign(&broker.folder, "server", Some("localhost"), 0x22);
    broker.signal(Signal::SIGHUP);
    wait_until("the new certificate", || serial(&broker) == "serial=22");
    client.say(&frame(0x82, PING));
    assert!(client.answers(PONG), "{}", broker.log());
}

#[test]
fn a_pair_that_does_not_belong_together_is_not_swapped_under_websockets() {
    let (folder, authority) = folder();
    authority.sign(&folder, "other", Some("localhost"), 0x33);
    let broker = start(folder, "");
    let mut client = Tunnel::open(&broker, None);
    assert!(client.comes_in());
    std::fs::copy(broker.folder.path().join("other.crt"), broker.folder.path().join("server.crt")).expect("copied");
    broker.signal(Signal::SIGHUP);
    broker.wait_for_log("Error: Server certificate/key are inconsistent.");
    broker.wait_for_log("goes on with the one it has");
    assert_eq!(serial(&broker), "serial=01");
    client.say(&frame(0x82, PING));
    assert!(client.answers(PONG), "{}", broker.log());
}

#[test]
fn certificates_of_clients_are_asked_for_and_name_them_over_websockets() {
    for (option, name) in [("use_identity_as_username", "u'anna'"), ("use_subject_as_username", r"u'CN=anna,O=darner\, tests'")] {
        let (folder, authority) = folder();
        authority.sign(&folder, "anna", Some("anna"), 2);
        Authority::new(&folder, "other").sign(&folder, "stranger", Some("anna"), 3);
        let broker = start(folder, &format!("cafile {{folder}}/ca.crt\nrequire_certificate true\n{option} true\n"));
        assert!(Tunnel::open(&broker, Some("anna")).comes_in(), "{}", broker.log());
        broker.wait_for_log(name);
        assert!(!Tunnel::open(&broker, None).comes_in());
        assert!(!Tunnel::open(&broker, Some("stranger")).comes_in());
    }
}

/// A proxy that puts `header` before each connection to the broker; its port.
pub fn proxy(broker: &Broker, header: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (port, behind) = (listener.local_addr().expect("bound").port(), broker.port);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(mut broker) = TcpStream::connect(("127.0.0.1", behind)) else { return };
            let _ = broker.write_all(&header);
            pass(&client, &broker);
            pass(&broker, &client);
        }
    });
    port
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Debian's client through a proxy.
fn publish(port: u16, more: &[&str]) {
    let mut client = debian("mosquitto_pub");
    client.args(["-h", "localhost", "-p", &port.to_string(), "-i", "real", "-q", "1", "-t", "a", "-m", "b"]);
    let (code, _, said) = run(client.args(more));
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_proxys_header_comes_before_tls_and_before_websockets_in_it() {
    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 6275 8883\r\n";
    let conf = format!("listener {{port}} 127.0.0.1\nallow_anonymous true\n{PAIR}enable_proxy_protocol 1\n");
    let broker = Broker::start_in(folder().0, &conf);
    let authority = broker.folder.path().join("ca.crt").display().to_string();
    publish(proxy(&broker, HEADER.to_vec()), &["--cafile", &authority]);
    broker.wait_for_log("New client connected from 192.0.2.7:6275 as real");

    let broker = start(folder().0, "enable_proxy_protocol 1\n");
    assert!(Tunnel::to(proxy(&broker, HEADER.to_vec()), None, &broker).comes_in(), "{}", broker.log());
    broker.wait_for_log("New client connected from 192.0.2.7:6275 as ws");
}

#[test]
fn a_proxys_binary_header_comes_before_mqtt_and_before_websockets() {
    const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x18\x83\x22\xb3";
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\nenable_proxy_protocol 2\n");
    publish(proxy(&broker, HEADER.to_vec()), &[]);
    broker.wait_for_log("New client connected from 192.0.2.7:6275 as real");

    let broker = Broker::start(&format!("{OPEN}enable_proxy_protocol 2\n"));
    let mut socket = TcpStream::connect(("127.0.0.1", proxy(&broker, HEADER.to_vec()))).expect("accepted");
    socket.write_all(REQUEST.as_bytes()).expect("taken");
    socket.write_all(&frame(0x82, CONNECT)).expect("taken");
    broker.wait_for_log("New client connected from 192.0.2.7:6275 as ws");
}
