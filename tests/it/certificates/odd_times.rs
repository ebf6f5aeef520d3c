//! A clock that is far off, and things that change on the volume or in the environment while nobody looks.

use serde_json::json;

use super::{Running, exists, pair};
use crate::acme_worker::pebble::Pebble;

fn of(ca: &Pebble, more: &[(&'static str, &str)]) -> Running {
    let environment = ca.environment();
    let given = environment.iter().map(|(name, value)| (*name, value.as_str()));
    let all: Vec<_> = given.filter(|(name, _)| more.iter().all(|(other, _)| name != other)).chain(more.iter().copied()).collect();
    Running::of_domain(&all)
}

/// Starts with a clock of its own, which is set right later.
fn with_a_clock_far_off(clock: &str, words: &str) {
    // The program of that name stands between us and what it starts.
    let libraries = walkdir::WalkDir::new("/usr/lib").max_depth(3).into_iter().flatten();
    let library = libraries.map(walkdir::DirEntry::into_path).find(|path| path.ends_with("faketime/libfaketime.so.1"));
    let library = library.expect("faketime is installed by tests/setup/packages.sh");
    let ca = Pebble::start(&json!({}), &[]);
    let mut running = of(&ca, &[("RENEWAL", "reload")]);
    running.within = vec!["env".into(), format!("LD_PRELOAD={}", library.display()), format!("FAKETIME={clock}")];
    running.start();
    running.wait_for("the words", |running| running.log().contains(words));
    // The next look comes after a minute.
    std::thread::sleep(std::time::Duration::from_secs(65));
    assert_eq!(running.log().matches(words).count(), 1, "{}", running.log());
    assert_eq!(ca.count("Added order \""), 0, "{}", running.log());
    running.stop();
    running.within.clear();
    running.start();
    running.wait_for("a certificate", |running| running.log().contains("Obtained a certificate for"));
    assert_eq!(ca.count("Added order \""), 1);
}

#[test]
fn a_clock_that_was_never_set_orders_nothing_is_said_once_and_is_forgotten_when_it_is_set() {
    with_a_clock_far_off("1970-01-02 00:00:00", "the clock says 1970-01-02");
}

#[test]
fn a_clock_that_is_years_ahead_orders_nothing_is_said_once_and_is_forgotten_when_it_is_set() {
    with_a_clock_far_off("+4000d", "this machine's clock seems wrong");
}

#[test]
fn a_lineage_that_a_listener_names_and_nobody_renews_is_named_at_the_start() {
    let mut running = Running::of_domain(&[("DOMAIN", "new.test")]);
    let conf = std::fs::read_to_string(running.folder.path().join("mosquitto.conf")).expect("the configuration");
    running.folder.write("mosquitto.conf", conf.replace("mqtt.example.org", "mqtt.test"));
    running.install("mqtt.test", &pair("mqtt.test", (-1, 89)));
    running.start();
    let words = "live/mqtt.test, which darner does not renew: DOMAIN begins with new.test";
    assert_eq!(running.log().matches(words).count(), 1, "{}", running.log());
    assert_eq!(running.darner(&["reload"]).0, 0);
    assert_eq!(running.log().matches(words).count(), 1, "once: {}", running.log());
    running.stop();
    // Without DOMAIN somebody else renews it, unless it was obtained here.
    running.environment.retain(|(name, _)| *name != "DOMAIN");
    std::fs::write(running.folder.path().join("log"), "").expect("emptied");
    running.start();
    assert!(!running.log().contains("does not renew"), "{}", running.log());
    running.stop();
    running.folder.write("letsencrypt/darner/mqtt.test.json", "{}");
    running.start();
    assert!(running.log().contains("live/mqtt.test, which darner does not renew: DOMAIN is not set"), "{}", running.log());
}

#[test]
fn addresses_of_both_families_are_certified_over_http_and_not_asked_for_again() {
    let ca = Pebble::start(&json!({}), &[]);
    let mut running = of(&ca, &[("DOMAIN", "0:0::1 127.0.0.1"), ("RENEWAL", "reload")]);
    running.start();
    running.wait_for("a certificate", |running| running.log().contains("Obtained a certificate for 127.0.0.1, ::1"));
    assert!(exists(&running.folder.path().join("letsencrypt/live/::1/fullchain.pem")));
    running.wait_for("its use", |running| running.log().contains("Reload done"));
    running.stop();
    running.environment.retain(|(name, _)| *name != "DOMAIN");
    running.environment.push(("DOMAIN", "::1, 127.0.0.1".into()));
    running.start();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(ca.count("Added order \""), 1, "{}", running.log());
}

#[test]
fn a_wildcard_is_obtained_by_a_hook_that_runs_as_the_worker_s_user() {
    let ca = Pebble::start(&json!({}), &[]);
    let hook = ca.hook();
    let users = ca.folder.path().join("users");
    std::fs::write(&users, "").expect("a file");
    std::fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("a mode");
    let hook = format!("id -u >>{}; {hook}", users.display());
    let mut running = of(&ca, &[("DOMAIN", "*.a.test a.test"), ("ACME_DNS_HOOK", &hook), ("RENEWAL", "reload")]);
    running.start();
    running.wait_for("a certificate", |running| running.log().contains("Obtained a certificate for *.a.test, a.test"));
    assert!(exists(&running.folder.path().join("letsencrypt/live/a.test/fullchain.pem")));
    let own = nix::unistd::geteuid();
    let expected = if own.is_root() { "1884".to_owned() } else { own.to_string() };
    let said = std::fs::read_to_string(users).expect("the users");
    assert!(said.lines().count() >= 4 && said.lines().all(|user| user == expected), "{said}");
}

#[test]
fn a_damaged_account_key_is_moved_aside_and_another_account_registered() {
    let ca = Pebble::start(&json!({}), &[]);
    let mut running = of(&ca, &[("RENEWAL", "reload")]);
    running.start();
    running.wait_for("a certificate", |running| running.log().contains("Obtained a certificate for"));
    let accounts = running.folder.path().join("letsencrypt/darner/worker/accounts");
    let folder = std::fs::read_dir(accounts).expect("accounts").next().expect("one").expect("readable").path();
    for (nth, text) in ["", "no key"].into_iter().enumerate() {
        std::fs::write(folder.join("key.der"), text).expect("spoilt");
        let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
        assert_eq!(code, 0, "{stdout}{stderr}{}", running.log());
        assert!(exists(&folder.join("key.der.damaged")));
        assert_eq!(ca.count(&format!("There are now {} accounts in memory", nth + 2)), 1, "{}", ca.log());
    }
}
