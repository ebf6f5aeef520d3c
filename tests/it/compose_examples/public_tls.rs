//! The example with certificates, with Pebble as its CA: its port 80 is published where Pebble looks for http-01.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{NOT_AUTHORISED, USER, publish};
use crate::acme_worker::pebble::Pebble;
use crate::clients::paho;
use crate::support::docker::{Project, docker, image};
use crate::support::process::{Engine, free_port, run};

const DOMAIN: &str = "mqtt.test";
const PASSWD: &str = "/mosquitto/config/passwd";

/// The example, its CA, and where its ports are published.
pub(super) struct Public {
    pub(super) project: Project,
    pub(super) ca: Pebble,
    root: PathBuf,
    plain: String,
    tls: String,
    websockets: String,
}

impl Public {
    /// A copy that is not started yet.
    pub(super) fn new(image: &str, engine: Engine) -> Self {
        // A name server of the container's network is asked for DOMAIN, too: it leads to the container.
        let gateway = docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]).ok();
        let ca = Pebble::start_at(gateway.trim(), &serde_json::json!({}), &[]);
        let project = Project::copy(image, "public-tls", "mqtt");
        let ports = [1883, 8883, 8083].map(|inside| {
            let port = free_port().to_string();
            project.edit("docker-compose.yml", &format!("127.0.0.1::{inside}"), &format!("127.0.0.1:{port}:{inside}"));
            port
        });
        project.edit("docker-compose.yml", "127.0.0.1::80\"", &format!("127.0.0.1:{}:80\"", ca.http_port()));
        engine.choose(&project.folder);
        let [(_, directory), (_, ca_file), _] = ca.environment();
        let more = format!(
            "version: \"2.4\"\nservices:\n  mqtt:\n    environment:\n      - DARNER_CONFIG=/darner.toml\n      - ACME_DIRECTORY={directory}\n      \
             - ACME_CA_FILE=/ca.pem\n    volumes:\n      - ./darner.toml:/darner.toml:ro\n      - {ca_file}:/ca.pem:ro\n    \
             healthcheck:\n      interval: 1s\n    networks:\n      default:\n        aliases:\n          - {DOMAIN}\n"
        );
        project.folder.write("docker-compose.override.yml", more);
        project.folder.write(".env", format!("DOMAIN={DOMAIN}\nEMAIL=info@mqtt.test\n"));
        let root = ca.root();
        let [plain, tls, websockets] = ports;
        Self { project, ca, root, plain, tls, websockets }
    }

    /// `docker-compose up`, a user, and the certificate.
    pub(super) fn up(&self) {
        self.project.compose(&["up", "-d"]).ok();
        let container = &self.project.container;
        container.wait_for("health", || container.inspect("{{.State.Health.Status}}") == "healthy");
        container.exec(&["mosquitto_passwd", "-b", PASSWD, "hello", "world"]).ok();
        container.exec(&["darner", "reload"]).ok();
        container.wait_for("the CA's certificate to be served", || self.serves_the_ca_s());
    }

    /// The leaf on 8883, with a chain up to the CA's root and DOMAIN's name, as `openssl` judges it.
    pub(super) fn serves_the_ca_s(&self) -> bool {
        self.look().0 == 0
    }

    fn look(&self) -> (i32, String) {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &format!("127.0.0.1:{}", self.tls), "-servername", DOMAIN, "-CAfile"]).arg(&self.root);
        let (code, stdout, _) = run(client.args(["-verify_hostname", DOMAIN, "-verify_return_error"]));
        (code, stdout)
    }

    /// PEM of the leaf that is served.
    fn leaf(&self) -> String {
        let (_, shown) = self.look();
        let leaf = shown.split_once("-----BEGIN").and_then(|(_, rest)| rest.split_once("-----END")).map(|(leaf, _)| leaf.to_owned());
        leaf.unwrap_or_default()
    }

    fn orders(&self) -> usize {
        self.ca.count("Added order \"")
    }

    fn through_websockets(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/through_tls.py");
        let mut python = Command::new("python3");
        python.arg(script).arg(&self.websockets).arg(&self.root).args(["hello", "world", DOMAIN]);
        let (code, stdout, stderr) = run(python.env("PYTHONPATH", paho::library()).env("PYTHONDONTWRITEBYTECODE", "1"));
        assert_eq!(code, 0, "{stdout}{stderr}\n{}", self.project.container.logs());
    }
}

/// Debian's mosquitto_sub on 8883 with a session of its own that outlives its connections.
struct Subscriber {
    child: Child,
    output: PathBuf,
}

impl Subscriber {
    fn start(public: &Public) -> Self {
        let output = public.project.path("subscriber");
        let file = std::fs::File::create(&output).expect("a file");
        let mut client = Command::new("mosquitto_sub");
        client.args(["-h", "127.0.0.1", "-p", &public.tls, "-c", "-i", "comes-back", "-q", "1", "-t", "/password/test", "-t", "kept/#"]);
        // The name is not 127.0.0.1; that the chain leads to the root is still looked at.
        client.arg("--insecure").arg("--cafile").arg(&public.root).args(USER);
        let child = client.stdin(Stdio::null()).stdout(file).stderr(Stdio::null()).spawn().expect("mosquitto_sub");
        Self { child, output }
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.output).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes numbers until told to stop; those that the broker acknowledged.
fn publish_numbers(port: &str, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let number = format!("n{number}");
        let mut client = Command::new("mosquitto_pub");
        client.args(["-h", "127.0.0.1", "-p", port, "-q", "1", "-t", "kept/number", "-m", &number]).args(USER);
        if run(&mut client).0 == 0 {
            acknowledged.push(number);
        }
    }
    acknowledged
}

with_both_engines!(a_certificate_is_obtained_and_every_port_serves, a_restart_of_the_container_orders_nothing_and_a_renewal_loses_nothing,);

fn a_certificate_is_obtained_and_every_port_serves(engine: Engine) {
    let Some(image) = image() else { return };
    let public = Public::new(image, engine);
    public.up();
    let container = &public.project.container;
    assert_eq!(container.logs().contains("The rumqttd engine"), engine == Engine::Rumqttd, "{}", container.logs());

    let cert = container.exec(&["darner", "cert"]).ok();
    for part in [DOMAIN, "Pebble", "days left"] {
        assert!(cert.contains(part), "{part}: {cert}");
    }
    assert_eq!(publish(&public.plain, &[]).0, NOT_AUTHORISED, "nobody without a password");
    assert_eq!(publish(&public.plain, USER), (0, String::new()));
    // By its name, from a client in the container's network.
    std::fs::copy(&public.root, public.project.path("mosquitto/config/root.pem")).expect("a copy");
    let inside = ["mosquitto_pub", "-h", DOMAIN, "-p", "8883", "--cafile", "/mosquitto/config/root.pem", "-q", "1", "-t", "a", "-m", "b"];
    let ended = container.exec(&[&inside[..], USER].concat());
    assert_eq!((ended.code, ended.said()), (0, String::new()), "{}", container.logs());
    public.through_websockets();
    assert_eq!(container.exec(&["darner", "healthcheck"]).code, 0, "{}", container.logs());
    assert_eq!(container.inspect("{{.State.Health.Status}} {{.RestartCount}}"), "healthy 0");
    assert_eq!(public.orders(), 1);
}

fn a_restart_of_the_container_orders_nothing_and_a_renewal_loses_nothing(engine: Engine) {
    let Some(image) = image() else { return };
    let public = Public::new(image, engine);
    public.up();
    let container = &public.project.container;
    let leaf = public.leaf();
    public.project.compose(&["restart"]).ok();
    container.wait_for("the same certificate", || public.leaf() == leaf);
    container.wait_for("health", || container.exec(&["darner", "healthcheck"]).code == 0);
    assert_eq!(public.orders(), 1, "{}", container.logs());

    let subscriber = Subscriber::start(&public);
    container.wait_for("the subscription", || publish(&public.plain, USER).0 == 0 && !subscriber.lines().is_empty());
    let started = container.inspect("{{.State.StartedAt}}");
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_numbers(&public.plain, &stop));
        container.wait_for("messages before", || subscriber.lines().len() > 20);
        let renewal = container.exec(&["darner", "cert", "renew", "--force"]);
        let renewed = renewal.code == 0;
        if renewed {
            container.wait_for("the next certificate", || ![String::new(), leaf.clone()].contains(&public.leaf()));
            let before = subscriber.lines().len();
            container.wait_for("messages after", || subscriber.lines().len() > before + 20);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(renewed, "{}\n{}", renewal.said(), container.logs());
        publisher.join().expect("a publisher")
    });
    container.wait_for("every message", || {
        let lines = subscriber.lines();
        acknowledged.iter().all(|number| lines.contains(number))
    });
    assert!(container.logs().contains("Restarting the broker."), "{}", container.logs());
    assert_eq!((container.inspect("{{.State.StartedAt}}"), public.orders()), (started, 2), "the container stayed");
    public.through_websockets();
    container.wait_for("health", || container.exec(&["darner", "healthcheck"]).code == 0);
}
