//! What the log says at a start, a renewal and a rehearsal: in the words of the image with certbot, which people look for; and whom a rehearsal asks.

use serde_json::{Value, json};

use super::{Running, exists, pair};
use crate::acme_worker::pebble::Pebble;
use crate::support::volume::Volume;

const REAL: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// The words of that image, in the order of the log: what they begin with.
fn words(running: &Running) -> Vec<&'static str> {
    const KNOWN: [&str; 7] = [
        "Dealing with certificates...",
        "Location: /",
        "Obtaining cert for mqtt.test",
        "Obtaining TEST cert for mqtt.test",
        "Certificates exist, attempting to renew...",
        "Renew certs ...",
        "Renew dry run ...",
    ];
    let log = running.log();
    // That image has no time before them, as little as PID 1 here.
    log.lines().filter_map(|line| KNOWN.into_iter().find(|word| line.starts_with(word))).collect()
}

/// With this CA instead of the one that nobody can reach.
fn of(ca: &Pebble) -> Running {
    let environment = ca.environment();
    let more: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).chain([("RENEWAL", "reload")]).collect();
    Running::of_domain(&more)
}

const START: [&str; 2] = ["Dealing with certificates...", "Location: /"];
const RENEWAL: [&str; 2] = ["Certificates exist, attempting to renew...", "Renew certs ..."];

#[test]
fn a_start_a_renewal_a_rehearsal_and_the_weekly_check_are_told_in_the_words_that_people_know() {
    let ca = Pebble::start(&json!({}), &[]);
    let mut running = of(&ca);
    // With a third of its lifetime left it is renewed at the start.
    running.install("mqtt.test", &pair("mqtt.test", (-80, 10)));
    running.start();
    running.wait_for("the renewal", |running| running.log().contains("Obtained a certificate for mqtt.test"));
    running.wait_for("its use", |running| running.log().contains("Reload done"));
    assert_eq!(words(&running), [START, RENEWAL].concat(), "{}", running.log());
    let live = running.live("").display().to_string();
    assert!(running.log().contains(&format!("Location: {}", live.trim_end_matches('/'))), "{}", running.log());

    let before = words(&running).len();
    let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(words(&running)[before..], RENEWAL);
    let (code, stdout, stderr) = running.darner(&["cert", "renew", "--dry-run"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(words(&running)[before + 2..], ["Renew dry run ..."]);

    // Where nothing is due nothing is said to be renewed; the check is said once a week, and at the first start.
    let checks = |running: &Running| running.log().matches("Checking on certificates...\n").count();
    running.wait_for("the first check", |running| checks(running) == 1);
    let before = words(&running).len();
    running.stop();
    let state = running.folder.path().join("letsencrypt/darner/mqtt.test.json");
    let mut aged: Value = serde_json::from_slice(&std::fs::read(&state).expect("the state")).expect("JSON");
    aged["next_check"] = json!(1);
    running.start();
    running.stop();
    assert_eq!((&words(&running)[before..], checks(&running)), (&START[..], 1));
    std::fs::write(&state, aged.to_string()).expect("written");
    running.start();
    running.wait_for("the check", |running| checks(running) == 2);
    assert_eq!(words(&running)[before..], [START, START].concat());
}

/// With Let's Encrypt for its CA, which is never reached: its names lead to this machine, where nobody answers, and so does the name server.
fn at_lets_encrypt(volume: &Volume, more: &[(&'static str, &str)]) -> Running {
    let more: Vec<_> = more.iter().copied().chain([("EMAIL", "info@mqtt.test"), ("RENEWAL", "reload")]).collect();
    let mut running = Running::of_domain(&more);
    running.environment.retain(|(name, _)| *name != "ACME_DIRECTORY");
    let hosts = "127.0.0.1 localhost\n127.0.0.78 acme-v02.api.letsencrypt.org acme-staging-v02.api.letsencrypt.org\n";
    for (file, text) in [("hosts", hosts), ("resolv.conf", "nameserver 127.0.0.78\noptions timeout:1 attempts:1\n")] {
        let ours = running.folder.write(file, text);
        volume.run(&["mount", "--bind", &ours.display().to_string(), &format!("/etc/{file}")]);
    }
    running.within = volume.within();
    running
}

#[test]
fn a_rehearsal_goes_to_the_test_server_of_lets_encrypt_and_costs_nothing_of_the_real_one() {
    let volume = Volume::new("1m");
    let mut running = at_lets_encrypt(&volume, &[]);
    running.start();
    // The weekly check, which is due at the first start, follows; it is in the list too.
    running.wait_for("the attempt at the start", |running| running.log().contains("Checking on certificates..."));
    let first = running.log();
    assert!(first.contains("Next try: "), "{first}");
    assert!(first.contains(&format!("no certificate for mqtt.test: {REAL}: ")) && !first.contains(STAGING), "{first}");
    assert_eq!(words(&running)[2..], ["Obtaining cert for mqtt.test"], "{first}");
    let tries = |running: &Running| running.log().matches("Next try: ").count();
    let listed = running.darner(&["cert"]).1;

    let (code, _, stderr) = running.darner(&["cert", "renew", "--dry-run"]);
    assert!(code == 1 && stderr.contains(&format!("no certificate for mqtt.test: {STAGING}: ")), "{stderr}");
    let rehearsed = running.log().split_off(first.len());
    assert!(rehearsed.contains(STAGING) && !rehearsed.contains(REAL), "{rehearsed}");
    assert!(!rehearsed.contains("no test server of this CA is known"), "{rehearsed}");
    assert_eq!(words(&running)[3..], ["Renew dry run ..."]);
    // What is waited for, and why, is still about the real one.
    assert_eq!((running.darner(&["cert"]).1, tries(&running)), (listed.clone(), 1));
    assert!(listed.contains(REAL), "{listed}");
    assert!(!exists(&running.live("privkey.pem")));
}

#[test]
fn with_testcert_the_test_server_of_lets_encrypt_is_asked_and_rehearsed_at() {
    let volume = Volume::new("1m");
    let mut running = at_lets_encrypt(&volume, &[("TESTCERT", "1")]);
    running.start();
    running.wait_for("the attempt at the start", |running| running.log().contains("Next try: "));
    assert_eq!(words(&running)[2..], ["Obtaining TEST cert for mqtt.test"], "{}", running.log());
    let (code, _, stderr) = running.darner(&["cert", "renew", "--dry-run"]);
    assert!(code == 1 && stderr.contains(STAGING), "{stderr}");
    assert!(!running.log().contains(REAL) && !running.log().contains("no test server"), "{}", running.log());
}
