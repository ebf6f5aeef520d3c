//! tls-alpn-01 with a real CA that knocks at the broker's own TLS listener, while clients are there.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::Running;
use crate::acme_worker::pebble::Pebble;
use crate::support::process::free_port;
use crate::tls::raw::Trusting;

pub(super) fn session(protocols: &[&str]) -> ClientConnection {
    let provider = rustls::crypto::ring::default_provider();
    let trusting = Arc::new(Trusting(provider.signature_verification_algorithms));
    let versions = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().expect("versions");
    let mut config = versions.dangerous().with_custom_certificate_verifier(trusting).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    ClientConnection::new(Arc::new(config), ServerName::try_from("mqtt.test").expect("a name")).expect("a session")
}

/// An MQTT client over TLS.
struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    fn connect(port: u16, protocols: &[&str]) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut client = Self(StreamOwned::new(session(protocols), stream));
        client.0.write_all(&[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0]).expect("CONNECT");
        assert_eq!(client.read(), [0x20, 2, 0, 0]);
        client
    }

    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).expect("an answer");
        bytes
    }

    fn ping(&mut self) {
        self.0.write_all(&[0xc0, 0]).expect("PINGREQ");
        assert_eq!(self.read(), [0xd0, 0]);
    }
}

#[test]
fn a_ca_that_knocks_at_the_tls_listener_disturbs_no_client() {
    let tls_port = free_port();
    let ca = Pebble::start(&serde_json::json!({ "tlsPort": tls_port }), &[]);
    let environment = ca.environment();
    let mut more: Vec<(&'static str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    more.retain(|(name, _)| *name != "ACME_HTTP_PORT");
    more.extend([("DOMAIN", "mqtt.test 127.0.0.1"), ("ACME_CHALLENGE", "tls-alpn-01"), ("RENEWAL", "reload")]);
    let mut running = Running::on(tls_port, &more);
    running.start();
    running.wait_for("the certificate", |running| running.log().contains("Obtained a certificate for"));
    running.wait_for("its use", |running| running.log().contains("Reload done"));

    let mut clients =
        [Client::connect(tls_port, &[]), Client::connect(tls_port, &["mqtt"]), Client::connect(tls_port, &["mqtt", "acme-tls/1"])];
    for protocols in [&[][..], &["mqtt"]] {
        clients.iter_mut().for_each(Client::ping);
        let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
        assert_eq!(code, 0, "{stdout}{stderr}{}", running.log());
        clients.iter_mut().for_each(Client::ping);
        Client::connect(tls_port, protocols).ping();
    }
    assert_eq!(ca.count("Issued certificate serial"), 3);
    assert!(!running.log().contains("handshake") && !running.log().contains("has none"), "{}", running.log());
    let folder = running.folder.path().join("letsencrypt/darner/challenges");
    assert_eq!(std::fs::read_dir(folder).expect("the folder").count(), 0, "nothing is left behind");

    // Somebody who plays the CA learns nothing: there is no challenge now.
    Client::connect(tls_port, &[]).ping();
    let mut session = session(&["acme-tls/1"]);
    let mut stream = TcpStream::connect(("127.0.0.1", tls_port)).expect("a connection");
    let _ = session.complete_io(&mut stream);
    assert_eq!(session.alpn_protocol(), None);

    // A first message that comes in crumbs is put together.
    let mut session = self::session(&["mqtt"]);
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a message");
    let mut stream = TcpStream::connect(("127.0.0.1", tls_port)).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    for byte in hello {
        stream.write_all(&[byte]).expect("sent");
    }
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    session.complete_io(&mut stream).expect("a handshake");
    assert!(!session.is_handshaking());
}

#[test]
fn what_the_ca_does_not_find_is_said_and_the_listener_serves_on() {
    let (tls_port, elsewhere) = (free_port(), free_port());
    let ca = Pebble::start(&serde_json::json!({ "tlsPort": elsewhere }), &[]);
    let environment = ca.environment();
    let mut more: Vec<(&'static str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    more.extend([("DOMAIN", "mqtt.test"), ("ACME_CHALLENGE", "tls-alpn-01")]);
    let mut running = Running::on(tls_port, &more);
    running.start();
    running.wait_for("the failure", |running| running.log().contains("Next try: "));
    assert!(running.log().contains("What to do: another server answered the CA, or none: look where"), "{}", running.log());
    Client::connect(tls_port, &["mqtt"]).ping();
}

#[test]
fn without_a_tls_listener_it_is_said_what_is_missing() {
    let mut running = Running::of_domain(&[("ACME_CHALLENGE", "tls-alpn-01")]);
    running.folder.write("mosquitto.conf", format!("listener {} 127.0.0.1\nallow_anonymous true\nuser root\n", running.port));
    running.start();
    running.wait_for("the warning", |running| running.log().contains("is answered by a TLS listener, and mosquitto.conf has none"));
}
