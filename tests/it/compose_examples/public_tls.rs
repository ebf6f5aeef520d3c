//! The example with certificates, with Pebble as its CA: its port 80 is published where Pebble looks for http-01.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{NOT_AUTHORISED, USER, publish};
use crate::acme_worker::pebble::Pebble;
use crate::support::docker::{Project, image};
use crate::support::process::{Engine, run};
use crate::support::published::{DOMAIN, ORDER, Ports, REFUSED, ca_for_containers};

const PASSWD: &str = "/mosquitto/config/passwd";

/// The example, its CA, and where its ports are published.
struct Public {
    project: Project,
    ca: Pebble,
    ports: Ports,
    engine: Engine,
}

impl Public {
    /// A copy that is not started yet.
    fn new(image: &str, engine: Engine) -> Self {
        let ca = ca_for_containers();
        let project = Project::copy(image, "public-tls", "mqtt");
        let ports = Ports::new(&ca);
        for (inside, outside) in ports.pairs() {
            project.edit("docker-compose.yml", &format!("\"127.0.0.1::{inside}\""), &format!("\"127.0.0.1:{outside}:{inside}\""));
        }
        engine.choose(&project.folder);
        let public = Self { project, ca, ports, engine };
        public.choose(&public.ca);
        public.set(DOMAIN, "");
        public
    }

    /// Another CA than Let's Encrypt. In the container's network DOMAIN leads to the container, too.
    fn choose(&self, ca: &Pebble) {
        let [(_, directory), (_, ca_file), _] = ca.environment();
        let more = format!(
            "version: \"2.4\"\nservices:\n  mqtt:\n    environment:\n      - DARNER_CONFIG=/darner.toml\n      - ACME_DIRECTORY={directory}\n      \
             - ACME_CA_FILE=/ca.pem\n    volumes:\n      - ./darner.toml:/darner.toml:ro\n      - {ca_file}:/ca.pem:ro\n    \
             healthcheck:\n      interval: 1s\n    networks:\n      default:\n        aliases:\n          - {DOMAIN}\n"
        );
        self.project.folder.write("docker-compose.override.yml", more);
    }

    /// What the user writes into `.env`.
    fn set(&self, domain: &str, more: &str) {
        self.project.folder.write(".env", format!("DOMAIN={domain}\nEMAIL=info@mqtt.test\n{more}"));
    }

    /// `docker-compose up`, and a user.
    fn start(&self) {
        self.project.compose(&["up", "-d"]).ok();
        let container = &self.project.container;
        container.wait_for("health", || container.inspect("{{.State.Health.Status}}") == "healthy");
        container.exec(&["mosquitto_passwd", "-b", PASSWD, "hello", "world"]).ok();
        container.exec(&["darner", "reload"]).ok();
        assert_eq!(container.logs().contains("The rumqttd engine"), self.engine == Engine::Rumqttd, "{}", container.logs());
    }

    /// The same, and the certificate.
    fn up(&self) {
        self.start();
        self.project.container.wait_for("the CA's certificate to be served", || self.ports.serve_the_ca_s());
    }

    fn orders(&self) -> usize {
        self.ca.count(ORDER)
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
        client.args([
            "-h",
            "127.0.0.1",
            "-p",
            &public.ports.tls,
            "-c",
            "-i",
            "comes-back",
            "-q",
            "1",
            "-t",
            "/password/test",
            "-t",
            "kept/#",
        ]);
        // The name is not 127.0.0.1; that the chain leads to the root is still looked at. With -d each CONNECT is told.
        client.arg("--insecure").arg("-d").arg("--cafile").arg(&public.ports.root).args(USER);
        let child = client.stdin(Stdio::null()).stdout(file).stderr(Stdio::null()).spawn().expect("mosquitto_sub");
        Self { child, output }
    }

    /// Messages that came.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with("Client ") && !line.starts_with("Subscribed ")).map(str::to_owned).collect()
    }

    fn connects(&self) -> usize {
        std::fs::read_to_string(&self.output).unwrap_or_default().matches("sending CONNECT").count()
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

with_both_engines!(
    a_certificate_is_obtained_and_every_port_serves,
    a_restart_of_the_container_orders_nothing_and_a_renewal_loses_nothing,
    a_renewal_by_reload_ends_no_connection,
);

fn a_certificate_is_obtained_and_every_port_serves(engine: Engine) {
    let Some(image) = image() else { return };
    let public = Public::new(image, engine);
    public.up();
    let container = &public.project.container;

    let cert = container.exec(&["darner", "cert"]).ok();
    for part in [DOMAIN, "Pebble", "days left"] {
        assert!(cert.contains(part), "{part}: {cert}");
    }
    assert_eq!(publish(&public.ports.plain, &[]).0, NOT_AUTHORISED, "nobody without a password");
    assert_eq!(publish(&public.ports.plain, USER), (0, String::new()));
    // By its name, from a client in the container's network.
    std::fs::copy(&public.ports.root, public.project.path("mosquitto/config/root.pem")).expect("a copy");
    let inside = ["mosquitto_pub", "-h", DOMAIN, "-p", "8883", "--cafile", "/mosquitto/config/root.pem", "-q", "1", "-t", "a", "-m", "b"];
    let ended = container.exec(&[&inside[..], USER].concat());
    assert_eq!((ended.code, ended.said()), (0, String::new()), "{}", container.logs());
    assert_eq!(public.ports.through_websockets("hello", "world"), 0, "{}", container.logs());
    assert_eq!(container.exec(&["darner", "healthcheck"]).code, 0, "{}", container.logs());
    assert_eq!(container.inspect("{{.State.Health.Status}} {{.RestartCount}}"), "healthy 0");
    assert_eq!(public.orders(), 1);
}

fn a_restart_of_the_container_orders_nothing_and_a_renewal_loses_nothing(engine: Engine) {
    let Some(image) = image() else { return };
    let public = Public::new(image, engine);
    public.up();
    let container = &public.project.container;
    let leaf = public.ports.leaf();
    public.project.compose(&["restart"]).ok();
    container.wait_for("the same certificate", || public.ports.leaf() == leaf);
    container.wait_for("health", || container.exec(&["darner", "healthcheck"]).code == 0);
    assert_eq!(public.orders(), 1, "{}", container.logs());

    let subscriber = Subscriber::start(&public);
    container.wait_for("the subscription", || publish(&public.ports.plain, USER).0 == 0 && !subscriber.lines().is_empty());
    let started = container.inspect("{{.State.StartedAt}}");
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_numbers(&public.ports.plain, &stop));
        container.wait_for("messages before", || subscriber.lines().len() > 20);
        let renewal = container.exec(&["darner", "cert", "renew", "--force"]);
        let renewed = renewal.code == 0;
        if renewed {
            container.wait_for("the next certificate", || ![String::new(), leaf.clone()].contains(&public.ports.leaf()));
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
    assert!(subscriber.connects() > 1 && container.logs().contains("Restarting the broker."), "{}", container.logs());
    assert_eq!((container.inspect("{{.State.StartedAt}}"), public.orders()), (started, 2), "the container stayed");
    assert_eq!(public.ports.through_websockets("hello", "world"), 0, "{}", container.logs());
    container.wait_for("health", || container.exec(&["darner", "healthcheck"]).code == 0);
}

fn a_renewal_by_reload_ends_no_connection(engine: Engine) {
    let Some(image) = image() else { return };
    let public = Public::new(image, engine);
    public.set(DOMAIN, "RENEWAL=reload\n");
    public.up();
    let container = &public.project.container;
    let leaf = public.ports.leaf();
    let subscriber = Subscriber::start(&public);
    container.wait_for("the subscription", || publish(&public.ports.plain, USER).0 == 0 && !subscriber.lines().is_empty());

    // A rehearsal goes all the way, and switches nothing.
    container.exec(&["darner", "cert", "renew", "--dry-run"]).ok();
    assert_eq!((public.orders(), public.ports.leaf()), (2, leaf.clone()), "{}", container.logs());
    container.exec(&["darner", "cert", "renew", "--force"]).ok();
    container.wait_for("the next certificate", || public.ports.serve_the_ca_s() && public.ports.leaf() != leaf);
    let before = subscriber.lines().len();
    assert_eq!(publish(&public.ports.plain, USER).0, 0);
    container.wait_for("a message after", || subscriber.lines().len() > before);
    assert_eq!(subscriber.connects(), 1, "{}", container.logs());
    assert!(!container.logs().contains("Restarting the broker."), "{}", container.logs());
}

#[test]
fn a_rehearsal_and_then_the_real_thing() {
    let Some(image) = image() else { return };
    let public = Public::new(image, Engine::Core);
    let container = &public.project.container;
    public.set(DOMAIN, "TESTCERT=1\n");
    public.up();
    assert!(container.logs().contains("Obtaining TEST cert for mqtt.test"), "{}", container.logs());
    assert!(container.exec(&["darner", "cert"]).ok().contains("(a test server)"));

    let real = ca_for_containers();
    let ports = Ports { tls: public.ports.tls.clone(), ..Ports::new(&real) };
    // It looks for http-01 elsewhere: publish that in place of the first one's.
    public.project.edit("docker-compose.yml", &format!(":{}:80\"", public.ports.http), &format!(":{}:80\"", real.http_port()));
    public.choose(&real);
    public.set(DOMAIN, "");
    public.project.compose(&["up", "-d"]).ok();
    container.wait_for("the real certificate", || ports.serve_the_ca_s());
    let cert = container.exec(&["darner", "cert"]).ok();
    assert!(!cert.contains("test server") && real.count(ORDER) == 1, "{cert}");

    public.choose(&public.ca);
    public.set(DOMAIN, "TESTCERT=1\n");
    public.project.compose(&["up", "-d"]).ok();
    container.wait_for_log("a test certificate never takes the place of a real one");
    container.wait_for("the same certificate", || ports.serve_the_ca_s());
    assert_eq!(public.orders(), 1);
}

#[test]
fn a_name_that_nobody_wrote_into_env_is_asked_for_before_anything_starts() {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "public-tls", "mqtt");
    let up = project.compose(&["up", "-d"]);
    assert!(up.code != 0 && up.said().contains("write the name that your clients use into .env"), "{}", up.said());
    // So that the rest of the compose file can be taken down.
    project.folder.write(".env", "DOMAIN=a.test\nEMAIL=a@a.test\n");
}

/// What `docker-compose logs` says when the certificate does not come, while the broker serves.
#[track_caller]
fn is_told(public: &Public, words: &[&str]) {
    public.start();
    let container = &public.project.container;
    container.wait_for_log("Next try: ");
    let log = public.project.compose(&["logs", "--no-color"]).ok();
    for part in words {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(publish(&public.ports.plain, USER), (0, String::new()), "{log}");
    assert!(!public.ports.leaf().is_empty() && !public.ports.serve_the_ca_s(), "its own certificate is served: {log}");
    assert_eq!(container.inspect("{{.State.Health.Status}} {{.RestartCount}}"), "healthy 0");
    let cert = container.exec(&["darner", "cert"]).ok();
    assert!(cert.contains("last error") && cert.contains("next try"), "{cert}");
}

#[test]
fn a_domain_that_the_ca_refuses_is_said() {
    let Some(image) = image() else { return };
    let public = Public::new(image, Engine::Core);
    public.set(REFUSED, "");
    is_told(
        &public,
        &["no certificate for refused.test", "this CA gives no certificate for that name: take the name out, or choose another CA"],
    );
}

#[test]
fn a_port_80_that_does_not_lead_here_is_said() {
    let Some(image) = image() else { return };
    let public = Public::new(image, Engine::Core);
    let elsewhere = crate::support::process::free_port();
    public.project.edit("docker-compose.yml", &format!(":{}:80\"", public.ports.http), &format!(":{elsewhere}:80\""));
    is_told(
        &public,
        &[
            "the CA cannot connect: the name's A and AAAA records must lead to this machine",
            "the challenge's port must be open to everyone",
        ],
    );
}

#[test]
fn another_server_on_port_80_keeps_the_container_from_starting_and_elsewhere_it_is_said() {
    let Some(image) = image() else { return };
    let public = Public::new(image, Engine::Core);
    let taken = std::net::TcpListener::bind(format!("127.0.0.1:{}", public.ports.http)).expect("a free port");
    let up = public.project.compose(&["up", "-d"]);
    assert!(up.code != 0 && up.said().contains("address already in use"), "{}", up.said());
    let elsewhere = crate::support::process::free_port();
    public.project.edit("docker-compose.yml", &format!(":{}:80\"", public.ports.http), &format!(":{elsewhere}:80\""));
    std::thread::spawn(move || {
        for mut visitor in taken.incoming().flatten() {
            use std::io::{Read as _, Write as _};
            let _ = visitor.read(&mut [0; 4096]);
            let _ = visitor.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\nConnection: close\r\n\r\nnothing");
        }
    });
    is_told(&public, &["another server answered the CA, or none: look where the name's A and AAAA records and the challenge's port lead"]);
}
