//! A container with certificates, as the world sees it: its published ports, and a CA that reaches them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::docker::docker;
use super::process::{free_port, run};
use crate::acme_worker::pebble::Pebble;
use crate::clients::paho;

pub const DOMAIN: &str = "mqtt.test";
/// A name that it gives no certificate for.
pub const REFUSED: &str = "refused.test";
/// What Pebble writes of an order.
pub const ORDER: &str = "Added order \"";

/// Pebble where containers find it: at this machine's address on Docker's bridge.
pub fn ca_for_containers() -> Pebble {
    Pebble::start_at(&gateway(), &serde_json::json!({ "domainBlocklist": [REFUSED] }), &[])
}

/// Asked of the machine, as a daemon that was never started before does not list it.
fn gateway() -> String {
    let bridge = docker(&["network", "inspect", "bridge", "--format", r#"{{index .Options "com.docker.network.bridge.name"}}"#]).ok();
    let addresses = nix::ifaddrs::getifaddrs().expect("the kernel lists them");
    let mut of_bridge = addresses.filter(|address| address.interface_name == bridge.trim()).filter_map(|address| address.address);
    let four = of_bridge.find_map(|address| address.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip));
    four.expect("the bridge has an address").to_string()
}

/// Where ports of a container are published on this machine, for good.
pub struct Ports {
    pub plain: String,
    pub tls: String,
    pub websockets: String,
    pub http: String,
    /// A file with the root that clients trust.
    pub root: PathBuf,
}

impl Ports {
    pub fn new(ca: &Pebble) -> Self {
        let free = || free_port().to_string();
        Self { plain: free(), tls: free(), websockets: free(), http: ca.http_port().to_string(), root: ca.root() }
    }

    /// Inside, outside.
    pub fn pairs(&self) -> [(u16, &str); 4] {
        [(1883, &self.plain), (8883, &self.tls), (8083, &self.websockets), (80, &self.http)]
    }

    /// Whether the leaf on 8883 has a chain up to the CA's root, and DOMAIN's name.
    pub fn serve_the_ca_s(&self) -> bool {
        let mut client = self.client();
        client.arg("-CAfile").arg(&self.root).args(["-verify_hostname", DOMAIN, "-verify_return_error"]);
        run(&mut client).0 == 0
    }

    fn client(&self) -> Command {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &format!("127.0.0.1:{}", self.tls), "-servername", DOMAIN]);
        client
    }

    /// Base64 of the leaf that is served on 8883, whoever signed it; empty where none is.
    pub fn leaf(&self) -> String {
        let shown = run(&mut self.client()).1;
        let leaf = shown.split_once("-----BEGIN CERTIFICATE-----").and_then(|(_, rest)| rest.split_once("-----END"));
        leaf.map(|(leaf, _)| leaf.trim().to_owned()).unwrap_or_default()
    }

    /// The exit code of Debian's mosquitto_pub on 8883, which shows no certificate of its own.
    pub fn publish_over_tls(&self, user: &str, password: &str) -> i32 {
        let mut client = Command::new("mosquitto_pub");
        client.args(["-h", "127.0.0.1", "-p", &self.tls, "-t", "a", "-m", "b", "-q", "1", "-u", user, "-P", password]);
        // The name is not 127.0.0.1; that the chain leads to the root is still looked at.
        run(client.arg("--insecure").arg("--cafile").arg(&self.root)).0
    }

    /// The exit code of a paho client that sends itself a message through 8083, by the name DOMAIN.
    pub fn through_websockets(&self, user: &str, password: &str) -> i32 {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/through_tls.py");
        let mut python = Command::new("python3");
        python.arg(script).arg(&self.websockets).arg(&self.root).args([user, password, DOMAIN]);
        let (code, stdout, stderr) = run(python.env("PYTHONPATH", paho::library()).env("PYTHONDONTWRITEBYTECODE", "1"));
        if code != 0 {
            eprintln!("{stdout}{stderr}");
        }
        code
    }
}
