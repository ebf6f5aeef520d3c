//! Certificates under PID 1: until there is one, when somebody else renews it, when it has expired, and what is said of it.

pub mod certbot;
mod changes;
mod durable;
mod faults;
mod in_use;
mod load;
mod odd_times;
mod probe;
mod self_made;
mod tls_alpn_01;
mod words;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use darner::acme::lineage::{Pair, Store};

use crate::acme_worker::pebble::Pebble;
use crate::support::process::{Folder, darner, free_port, run};

const DAY: i64 = 86_400;

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// A pair for a name with an issuer, good from `days.0` to `days.1` from now on.
fn pair(name: &str, days: (i64, i64)) -> Pair {
    let date = |days: i64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs((now() + days * DAY) as u64);
    let above_key = rcgen::KeyPair::generate().expect("a key");
    let mut above = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    above.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let chain = above.self_signed(&above_key).expect("signed").pem();
    let issuer = rcgen::Issuer::new(above, above_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    (params.not_before, params.not_after) = (date(days.0), date(days.1));
    let leaf = params.signed_by(&key, &issuer).expect("signed").pem();
    Pair { privkey: key.serialize_pem().into_bytes(), fullchain: (leaf + &chain).into_bytes() }
}

/// A supervised broker with a plain and a TLS listener on the lineage `mqtt.test`.
struct Running {
    port: u16,
    tls_port: u16,
    folder: Folder,
    child: Option<Child>,
    environment: Vec<(&'static str, String)>,
    /// What its command begins with.
    within: Vec<String>,
}

impl Running {
    fn new(environment: &[(&'static str, &str)]) -> Self {
        Self::on(free_port(), environment)
    }

    fn on(tls_port: u16, environment: &[(&'static str, &str)]) -> Self {
        let folder = Folder::new("certificates");
        let port = free_port();
        let live = folder.path().join("letsencrypt/live/mqtt.example.org").display().to_string();
        let conf = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlistener {tls_port} 127.0.0.1\n\
             cafile {live}/chain.pem\ncertfile {live}/fullchain.pem\nkeyfile {live}/privkey.pem\n"
        );
        folder.write("mosquitto.conf", conf);
        let mut environment: Vec<_> = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        environment.push(("LETSENCRYPT_DIR", folder.path().join("letsencrypt").display().to_string()));
        environment.push(("DARNER_RUN_DIR", folder.path().join("run").display().to_string()));
        Self { port, tls_port, folder, child: None, environment, within: Vec::new() }
    }

    /// With DOMAIN, and a CA that nobody can reach.
    fn of_domain(more: &[(&'static str, &str)]) -> Self {
        let http = free_port().to_string();
        let mut environment = vec![("DOMAIN", "mqtt.test"), ("ACME_DIRECTORY", "https://127.0.0.1:1/dir"), ("ACME_HTTP_PORT", &http)];
        environment.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
        environment.extend(more);
        Self::new(&environment)
    }

    fn store(&self) -> Store {
        let store = Store::new(&self.folder.path().join("letsencrypt"));
        store.open().expect("folders");
        store
    }

    fn install(&self, name: &str, pair: &Pair) {
        self.store().install(name, pair, &mut |_| Ok(())).expect("installed");
    }

    fn start(&mut self) {
        self.spawn();
        self.wait_for("an answer on the plain port", |running| {
            std::net::TcpStream::connect(("127.0.0.1", running.port)).is_ok() && running.darner(&["status"]).1.contains("ready     for")
        });
    }

    /// Without waiting for anything.
    fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let words = self.within.iter().map(PathBuf::from).chain([darner()]).collect::<Vec<_>>();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.arg("supervise").arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = log.try_clone().expect("a log");
        self.child = Some(command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().expect("it starts"));
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM);
            assert!(child.wait().expect("it ends").success());
        }
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
        while !condition(self) {
            assert!(std::time::Instant::now() < end, "waited in vain for {what}:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn darner(&self, words: &[&str]) -> (i32, String, String) {
        run(Command::new(darner()).args(words).envs(self.environment.iter().map(|(name, value)| (name, value))))
    }

    /// PEM of the leaf that is served.
    fn served(&self) -> String {
        let address = format!("127.0.0.1:{}", self.tls_port);
        let (_, stdout, _) = run(Command::new("openssl").args(["s_client", "-connect", &address]));
        let leaf = stdout.split_once("-----BEGIN").and_then(|(_, rest)| rest.split_once("-----END")).map(|(leaf, _)| leaf.to_owned());
        leaf.unwrap_or_default().lines().skip(1).collect()
    }

    fn serves(&self, pair: &Pair) -> bool {
        let text = String::from_utf8_lossy(&pair.fullchain).replace(['\n', '\r'], "");
        let served = self.served();
        !served.is_empty() && text.contains(&served)
    }

    fn live(&self, file: &str) -> PathBuf {
        self.folder.path().join("letsencrypt/live/mqtt.test").join(file)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[test]
fn the_broker_does_not_wait_for_a_certificate_and_a_restart_makes_no_second_attempt() {
    let mut running = Running::of_domain(&[]);
    running.start();
    assert!(!running.served().is_empty(), "a placeholder is served: {}", running.log());
    assert!(!exists(&running.live("privkey.pem")), "and stored nowhere");
    running.wait_for("the outcome of the attempt", |running| running.log().contains("no certificate for mqtt.test"));
    for line in ["Dealing with certificates...", "Obtaining cert for mqtt.test", "Next try: "] {
        assert!(running.log().contains(line), "{line}: {}", running.log());
    }
    let attempts = |running: &Running| running.log().matches("Obtaining cert for").count();
    for _ in 0..3 {
        running.stop();
        running.start();
    }
    assert_eq!(attempts(&running), 1, "{}", running.log());
    let (code, stdout, _) = running.darner(&["cert"]);
    assert!(code == 0 && stdout.contains("not obtained yet") && stdout.contains("last error"), "{stdout}");
    let (code, _, stderr) = running.darner(&["cert", "renew"]);
    assert!(code == 1 && stderr.contains("--force tries now"), "{stderr}");
    let (code, _, stderr) = running.darner(&["cert", "renew", "--force"]);
    assert!(code == 1 && stderr.contains("no certificate for mqtt.test"), "{stderr}");
    assert_eq!(attempts(&running), 2);
}

#[test]
fn what_somebody_else_renews_is_used_by_itself() {
    for (renewal, said, engine) in
        [("restart", "Restarting the broker.", "core"), ("reload", "Reload done", "core"), ("restart", "Restarting the broker.", "rumqttd")]
    {
        let mut running = Running::of_domain(&[("RENEWAL", renewal), ("DARNER_ENGINE", engine)]);
        let (old, new) = (pair("mqtt.test", (-1, 89)), pair("mqtt.test", (0, 90)));
        running.install("mqtt.test", &old);
        running.start();
        assert!(running.serves(&old), "{}", running.log());
        running.install("mqtt.test", &new);
        running.wait_for("the new certificate", |running| running.serves(&new));
        assert!(running.log().contains(said), "{renewal}: {}", running.log());
        let other = if renewal == "reload" { "Restarting the broker." } else { "Reload done" };
        assert!(!running.log().contains(other), "{renewal}: {}", running.log());
    }
}

#[test]
fn without_a_domain_files_are_watched_too() {
    let mut running = Running::new(&[]);
    let (old, new) = (pair("own.test", (-1, 89)), pair("own.test", (0, 90)));
    running.install("mqtt.example.org", &old);
    running.start();
    running.install("mqtt.example.org", &new);
    running.wait_for("the new certificate", |running| running.serves(&new));
    assert!(running.darner(&["cert", "renew"]).2.contains("no DOMAIN is set"));
}

#[test]
fn a_pair_that_does_not_belong_together_is_not_used() {
    let mut running = Running::of_domain(&[("RENEWAL", "reload")]);
    let (old, new) = (pair("mqtt.test", (-1, 89)), pair("mqtt.test", (0, 90)));
    running.install("mqtt.test", &old);
    running.start();
    std::fs::write(running.folder.path().join("letsencrypt/archive/mqtt.test/privkey1.pem"), &new.privkey).expect("another key");
    running.wait_for("the refusal", |running| running.log().contains("the key is not the certificate's"));
    assert!(running.serves(&old), "{}", running.log());
    // At the next start there is nothing good left: the placeholder serves until a certificate is obtained.
    running.stop();
    running.start();
    assert!(!running.served().is_empty() && !running.serves(&old), "{}", running.log());
}

#[test]
fn an_expired_certificate_is_served_said_and_makes_the_health_check_fail() {
    let mut running = Running::of_domain(&[]);
    let expired = pair("mqtt.test", (-90, -1));
    running.install("mqtt.test", &expired);
    running.environment.push(("HEALTHCHECK_PORT", running.port.to_string()));
    running.start();
    assert!(running.serves(&expired), "{}", running.log());
    running.wait_for("the warning", |running| running.log().contains("it is served all the same"));
    let (code, stdout, _) = running.darner(&["healthcheck"]);
    assert!(code == 1 && stdout.contains("expired at"), "{stdout}");
    assert!(running.darner(&["cert"]).1.contains("EXPIRED"));
    let soon = pair("mqtt.test", (-89, 1));
    running.install("mqtt.test", &soon);
    running.wait_for("the next certificate", |running| running.serves(&soon));
    running.wait_for("health", |running| {
        let (code, stdout, _) = running.darner(&["healthcheck"]);
        code == 0 && stdout.contains("expires at")
    });
}

#[test]
fn a_port_that_somebody_has_is_said_on_the_first_day_and_stops_nothing() {
    let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let mut running = Running::of_domain(&[("ACME_HTTP_PORT", &port)]);
    running.install("mqtt.test", &pair("mqtt.test", (-1, 89)));
    running.start();
    assert!(running.log().contains(&format!("port {port} cannot be bound for http-01")), "{}", running.log());
}

#[test]
fn links_that_a_crash_left_half_switched_are_put_right_at_the_start() {
    let mut running = Running::of_domain(&[]);
    let (old, new) = (pair("mqtt.test", (-1, 89)), pair("mqtt.test", (0, 90)));
    running.install("mqtt.test", &old);
    let mut steps = 0;
    let crash = running.store().install("mqtt.test", &new, &mut |step| {
        steps += usize::from(step.starts_with("link"));
        if steps == 3 { Err(std::io::ErrorKind::Other.into()) } else { Ok(()) }
    });
    assert!(crash.is_err());
    running.start();
    assert!(running.serves(&new), "{}", running.log());
    assert!(running.log().contains("did not lead to one whole version"), "{}", running.log());
}

#[test]
fn a_damaged_state_is_moved_aside_and_a_wrong_variable_is_said() {
    let mut running = Running::of_domain(&[("ACME_KEY_TYPE", "dsa")]);
    running.start();
    assert!(running.log().contains("ACME_KEY_TYPE \"dsa\" is not known"), "{}", running.log());
    let mut running = Running::of_domain(&[]);
    running.install("mqtt.test", &pair("mqtt.test", (-1, 89)));
    running.folder.write("letsencrypt/darner/mqtt.test.json", "{ damaged");
    running.start();
    assert!(exists(&running.folder.path().join("letsencrypt/darner/mqtt.test.json.broken")), "{}", running.log());
}

#[test]
fn the_certificate_of_a_ca_replaces_the_placeholder_and_is_renewed_on_demand() {
    let ca = Pebble::start(&serde_json::json!({}), &[]);
    let environment = ca.environment();
    let mut more: Vec<(&'static str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    more.push(("RENEWAL", "reload"));
    let mut running = Running::of_domain(&more);
    running.start();
    running.wait_for("the CA's certificate to be served", |running| {
        let chain = std::fs::read(running.live("fullchain.pem")).unwrap_or_default();
        !chain.is_empty() && running.serves(&Pair { privkey: Vec::new(), fullchain: chain })
    });
    let (_, cert, _) = running.darner(&["cert"]);
    assert!(cert.contains("mqtt.test") && cert.contains("Pebble"), "{cert}");
    let first = running.served();
    let (status, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
    assert_eq!(status, 0, "{stdout}{stderr}{}", running.log());
    running.wait_for("the next certificate to be served", |running| ![String::new(), first.clone()].contains(&running.served()));
    running.stop();
    // A restart asks for nothing.
    let orders = ca.count("Added order \"");
    assert_eq!(orders, 2);
    running.start();
    assert!(running.log().contains("mqtt.test"));
    running.stop();
    assert_eq!(ca.count("Added order \""), orders);
}
