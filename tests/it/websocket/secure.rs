//! WebSockets within TLS: a certificate swapped under open connections, certificates of clients, and a proxy in front.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;

use super::{CONNACK, CONNECT, OPEN, REQUEST, frame, message};
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
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", broker.port)]);
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
