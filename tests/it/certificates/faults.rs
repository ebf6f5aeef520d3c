//! A CA that wishes, refuses, stumbles or is away, under PID 1: what is asked of it again, when, and what the log says.

use serde_json::{Value, json};

use super::{DAY, Running, now};
use crate::acme_worker::pebble::Pebble;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::process::free_port;

const NEW_ORDER: &str = "/order-plz";
const RENEWAL_INFO: &str = "/renewal-info/";

/// A CA behind a proxy, and a supervised broker that has its certificates from it.
struct Setting {
    running: Running,
    proxy: FaultProxy,
    ca: Pebble,
}

impl Setting {
    fn new(more: &[(&'static str, &str)]) -> Self {
        let ca = Pebble::start(&json!({}), &[]);
        let proxy = ca.behind_proxy();
        let mut environment = ca.environment().to_vec();
        for (name, value) in &mut environment {
            if *name == "ACME_DIRECTORY" {
                *value = proxy.directory();
            }
        }
        environment.push(("RENEWAL", "reload".to_owned()));
        environment.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect();
        let running = Running::of_domain(&environment);
        Self { running, proxy, ca }
    }

    fn state(&self) -> Value {
        let text = std::fs::read(self.running.folder.path().join("letsencrypt/darner/mqtt.test.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Changes the state on the volume, as time would.
    fn age(&self, change: impl FnOnce(&mut Value)) {
        assert!(self.running.child.is_none(), "PID 1 is not there to write it");
        let mut state = self.state();
        change(&mut state);
        self.running.folder.write("letsencrypt/darner/mqtt.test.json", state.to_string());
    }

    fn versions(&self) -> usize {
        let files = std::fs::read_dir(self.running.folder.path().join("letsencrypt/archive/mqtt.test")).into_iter().flatten().flatten();
        files.filter(|file| file.file_name().to_string_lossy().starts_with("cert")).count()
    }

    fn wait_for_version(&self, wanted: usize) {
        self.running.wait_for(&format!("version {wanted}"), |_| self.versions() == wanted && self.state()["failures"] == 0);
    }

    fn wait_for_failure(&self) {
        self.running.wait_for("the failure", |running| running.log().contains("Next try: ") && self.state()["last_error"].is_string());
    }

    fn orders(&self) -> Vec<Value> {
        self.proxy.asked(NEW_ORDER).into_iter().map(|asked| asked.payload).collect()
    }

    fn restart(&mut self) {
        self.running.stop();
        self.running.start();
    }
}

#[test]
fn the_ca_s_wish_decides_when_and_the_renewal_says_what_it_replaces() {
    let mut setting = Setting::new(&[]);
    setting.proxy.wish((now() + 10 * DAY, now() + 12 * DAY), Some("21600"));
    setting.running.start();
    setting.wait_for_version(1);
    setting.running.wait_for("the question", |_| setting.state()["renewal_info"]["selected"].is_i64());
    let selected = setting.state()["renewal_info"]["selected"].as_i64().expect("a time");
    assert!((now() + 9 * DAY..now() + 12 * DAY).contains(&selected), "{selected}");
    let id = setting.state()["renewal_info"]["certificate"].as_str().expect("an id").to_owned();
    assert_eq!(setting.proxy.asked(RENEWAL_INFO).last().map(|asked| asked.path.clone()), Some(format!("{RENEWAL_INFO}{id}")));
    setting.restart();
    assert!(setting.running.darner(&["cert"]).1.contains("the CA wants it at"));
    assert_eq!((setting.orders().len(), setting.proxy.asked(RENEWAL_INFO).len()), (1, 1), "not asked again before the time");

    // The CA has changed its mind when it is asked again.
    setting.running.stop();
    setting.proxy.wish((now() - 2 * DAY, now() - DAY), None);
    setting.age(|state| {
        state["renewal_info"]["ask_at"] = json!(0);
        state["rest_until"] = json!(now() - 1);
    });
    setting.running.start();
    setting.wait_for_version(2);
    let orders = setting.orders();
    assert_eq!((orders.len(), orders[1]["replaces"].as_str()), (2, Some(id.as_str())), "{orders:?}");
    assert!(setting.running.log().contains("(the CA wants it)"), "{}", setting.running.log());
}

#[test]
fn a_ca_that_always_wishes_another_certificate_gets_no_more_than_one_a_day() {
    let mut setting = Setting::new(&[]);
    setting.proxy.wish((now() - 2 * DAY, now() - DAY), Some("60"));
    setting.running.start();
    setting.wait_for_version(1);
    setting.running.wait_for("the question", |_| !setting.proxy.asked(RENEWAL_INFO).is_empty());
    for _ in 0..3 {
        setting.restart();
    }
    assert!(setting.running.darner(&["cert"]).1.contains("the CA wants it at"), "{}", setting.running.log());
    let (code, _, stderr) = setting.running.darner(&["cert", "renew"]);
    assert!(code == 1 && stderr.contains("the last one is new") && stderr.contains("--force"), "{stderr}");
    assert_eq!(setting.orders().len(), 1, "{}", setting.running.log());
    assert_eq!(setting.running.darner(&["cert", "renew", "--force"]).0, 0, "by hand it is not waited for");
    assert_eq!(setting.orders().len(), 2);
}

#[test]
fn what_was_replaced_already_is_ordered_once_more_without_saying_so() {
    let mut setting = Setting::new(&[]);
    setting.proxy.wish((now() + 10 * DAY, now() + 12 * DAY), None);
    setting.running.start();
    setting.wait_for_version(1);
    setting.proxy.spoil(NEW_ORDER, 1, Fault::problem(409, "alreadyReplaced", "it has been replaced", None));
    let (code, stdout, stderr) = setting.running.darner(&["cert", "renew", "--force"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    setting.wait_for_version(2);
    let replaces: Vec<_> = setting.orders().iter().map(|order| order["replaces"].is_string()).collect();
    assert_eq!(replaces, [false, true, false]);
    assert!(setting.running.log().contains("refuses to count this as a replacement"), "{}", setting.running.log());
}

#[test]
fn the_ca_s_retry_after_goes_before_the_table_and_outlives_restarts() {
    let tomorrow =
        |seconds: i64| jiff::Timestamp::from_second(now() + seconds).expect("a time").strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let limit = "too many certificates (5) already issued for this exact set of identifiers";
    let cases: [(&'static str, Fault, i64, &[&str]); 4] = [
        (NEW_ORDER, Fault::problem(429, "rateLimited", limit, Some("122400")), 122_400, &[limit, "rate limit", "wait"]),
        (NEW_ORDER, Fault::page(503, Some("7200")), 7_200, &["the CA answered HTTP 503"]),
        ("/dir", Fault::page(503, Some(&tomorrow(40_000))), 40_000, &["HTTP 503"]),
        ("/sign-me-up", Fault::problem(429, "rateLimited", "too many registrations", Some("3000")), 3_000, &["too many registrations"]),
    ];
    for (path, fault, seconds, said) in cases {
        let mut setting = Setting::new(&[]);
        setting.proxy.spoil(path, 100, fault);
        setting.running.start();
        setting.wait_for_failure();
        let next = setting.state()["next_attempt"].as_i64().expect("a time");
        assert!((next - now() - seconds).abs() < 60, "{path}: {} and not {seconds}", next - now());
        for words in said {
            assert!(setting.running.log().contains(words), "{path}, {words:?}: {}", setting.running.log());
        }
        let asked = setting.proxy.asked("/").len();
        for _ in 0..3 {
            setting.restart();
        }
        assert_eq!(setting.proxy.asked("/").len(), asked, "{path}");
        assert_eq!(setting.state()["next_attempt"].as_i64(), Some(next));
        assert!(setting.running.darner(&["cert"]).1.contains("next try"));
        // When that time has come, all is as if nothing had been.
        setting.proxy.heal();
        setting.running.stop();
        setting.age(|state| state["next_attempt"] = json!(now() - 1));
        setting.running.start();
        setting.wait_for_version(1);
    }
}

#[test]
fn an_answer_that_breaks_off_is_said_and_the_same_order_goes_on() {
    // The CA has made the order, but nobody knows its address: the next try makes another. Everywhere else the same one goes on.
    let cases: [(&'static str, Fault, usize); 7] = [
        ("/dir", Fault::Truncated(20), 1),
        ("/dir", Fault::Refused, 1),
        (NEW_ORDER, Fault::Unanswered, 2),
        ("/authZ/", Fault::Truncated(10), 1),
        ("/finalize-order/", Fault::Unanswered, 1),
        ("/finalize-order/", Fault::problem(500, "serverInternal", "oh", None), 1),
        ("/certZ/", Fault::Truncated(100), 1),
    ];
    let mut setting = Setting::new(&[]);
    let mut expected = 0;
    for (nth, (path, fault, orders)) in cases.into_iter().enumerate() {
        setting.proxy.spoil(path, 100, fault.clone());
        if setting.running.child.is_none() {
            setting.running.start();
        } else {
            assert_eq!(setting.running.darner(&["cert", "renew", "--force"]).0, 1, "{path}: {fault:?}");
        }
        setting.running.wait_for("the failure", |running| running.log().matches("Next try: ").count() == nth + 1);
        assert!(std::net::TcpStream::connect(("127.0.0.1", setting.running.port)).is_ok());
        let log = setting.running.log();
        let line = log.lines().rfind(|line| line.contains("no certificate for mqtt.test")).expect("a line").to_owned();
        assert!(line.contains("What to do: "), "{path}, {fault:?}: {line}");
        let is_broken_off = !matches!(fault, Fault::Instead(..));
        assert_eq!(line.contains("broke off the connection before its answer was whole"), is_broken_off, "{path}, {fault:?}: {line}");
        setting.proxy.heal();
        let (code, stdout, stderr) = setting.running.darner(&["cert", "renew", "--force"]);
        assert_eq!(code, 0, "{path}, {fault:?}: {stdout}{stderr}");
        setting.wait_for_version((nth + 1).min(5));
        expected += orders;
        assert_eq!(setting.orders().len(), expected, "{path}: {fault:?}");
    }
    assert_eq!(setting.ca.count("Issued certificate serial"), 7);
}

#[test]
fn a_ca_that_never_answers_keeps_nobody_waiting() {
    let mut setting = Setting::new(&[]);
    setting.proxy.spoil("/dir", 100, Fault::Silent);
    setting.running.start();
    setting.running.wait_for("the question", |_| !setting.proxy.asked("/dir").is_empty());
    let hello = [0x10, 0x0c, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 0];
    let mut client = std::net::TcpStream::connect(("127.0.0.1", setting.running.port)).expect("a connection");
    std::io::Write::write_all(&mut client, &hello).expect("sent");
    let mut answer = [0; 4];
    std::io::Read::read_exact(&mut client, &mut answer).expect("CONNACK");
    assert_eq!(answer, [0x20, 2, 0, 0]);
    assert!(setting.running.darner(&["status"]).1.contains("ready     for"));
    // The end does not wait for the worker's 600 seconds.
    setting.running.stop();
}

#[test]
fn a_container_in_a_restart_loop_makes_one_order() {
    // Nobody answers where the CA looks.
    let port = free_port().to_string();
    let mut setting = Setting::new(&[("ACME_HTTP_PORT", &port)]);
    let began = std::time::Instant::now();
    setting.running.start();
    setting.wait_for_failure();
    for _ in 0..50 {
        setting.restart();
    }
    // On a slow machine the second try may have come after its minute, but no more.
    let due = if began.elapsed().as_secs() < 54 { 1 } else { 2 };
    assert!((1..=due).contains(&setting.orders().len()), "{}", setting.orders().len());
    let log = setting.running.log();
    assert!(log.contains("What to do: the CA cannot connect"), "{log}");
}

#[test]
fn refused_nonces_cost_nothing() {
    let mut setting = Setting::new(&[]);
    for path in ["/sign-me-up", NEW_ORDER, "/authZ/", "/chalZ/", "/finalize-order/", "/certZ/"] {
        setting.proxy.spoil(path, 4, Fault::BadNonce);
    }
    setting.running.start();
    setting.wait_for_version(1);
    assert_eq!(setting.ca.count("Added order \""), 1);
}

#[test]
fn a_reason_that_only_the_challenge_knows_is_found_there() {
    let port = free_port().to_string();
    let mut setting = Setting::new(&[("ACME_HTTP_PORT", &port)]);
    setting.proxy.spoil("/my-order/", 1000, Fault::Without("error"));
    setting.running.start();
    setting.wait_for_failure();
    assert!(setting.running.log().contains("mqtt.test: "), "{}", setting.running.log());
    assert!(setting.running.log().contains("(connection)"), "{}", setting.running.log());
}

#[test]
fn a_corrected_variable_is_tried_at_once() {
    let port = free_port().to_string();
    let mut setting = Setting::new(&[("ACME_HTTP_PORT", &port)]);
    setting.running.start();
    setting.wait_for_failure();
    setting.restart();
    assert_eq!(setting.orders().len(), 1, "the same again has to wait: {}", setting.running.log());
    setting.running.stop();
    let right = setting.ca.http_port().to_string();
    setting.running.environment.retain(|(name, _)| *name != "ACME_HTTP_PORT");
    setting.running.environment.push(("ACME_HTTP_PORT", right));
    setting.running.start();
    setting.wait_for_version(1);
}

#[test]
fn a_file_of_roots_that_is_mended_is_used_at_the_next_start() {
    let mut setting = Setting::new(&[]);
    let path = setting.ca.folder.path().join("ca.pem");
    let roots = std::fs::read(&path).expect("roots");
    std::fs::write(&path, "nothing").expect("spoilt");
    setting.running.start();
    setting.wait_for_failure();
    assert!(setting.running.log().contains("(ACME_CA_FILE) cannot be used"), "{}", setting.running.log());
    let wait = setting.state()["retry_at"].as_i64().expect("a time") - now();
    assert!((1..=60).contains(&wait), "soon: {wait}");
    std::fs::write(&path, roots).expect("mended");
    setting.restart();
    setting.wait_for_version(1);
}

#[test]
fn a_port_that_is_freed_is_used_unaided() {
    let mut setting = Setting::new(&[]);
    let taken = std::net::TcpListener::bind(("0.0.0.0", setting.ca.http_port())).expect("the port");
    setting.running.start();
    setting.wait_for_failure();
    let asked = setting.proxy.asked("/").len();
    assert!(setting.running.log().contains("another program has it"), "{}", setting.running.log());
    drop(taken);
    assert_eq!(asked, 0, "nothing is asked of a CA that could not come back");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(100);
    while setting.versions() == 0 {
        assert!(std::time::Instant::now() < end, "{}", setting.running.log());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(
        setting.running.log().matches("another program has it").count(),
        2,
        "at the start and at the try: {}",
        setting.running.log()
    );
}
