//! What may happen to a certificate's world: other names, another CA, a volume that takes nothing, a CA that brings the wrong thing.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::{Running, pair};
use crate::acme_worker::pebble::Pebble;
use crate::support::fault_proxy::Fault;
use crate::support::volume::Volume;

const ISSUED: &str = "Issued certificate serial";

fn with<'a>(environment: &'a [(&'static str, String)], more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let given = environment.iter().map(|(name, value)| (*name, value.as_str()));
    given.filter(|(name, _)| more.iter().all(|(other, _)| name != other)).chain(more.iter().copied()).collect()
}

fn set(running: &mut Running, name: &'static str, value: Option<&str>) {
    running.environment.retain(|(known, _)| *known != name);
    running.environment.extend(value.map(|value| (name, value.to_owned())));
}

fn obtained(running: &Running) -> usize {
    running.log().matches("Obtained a certificate for").count()
}

#[test]
fn a_changed_list_of_names_is_a_new_certificate_in_the_same_place_and_their_order_means_nothing() {
    let ca = Pebble::start(&json!({}), &[]);
    let environment = ca.environment();
    let mut running = Running::of_domain(&with(&environment, &[("RENEWAL", "reload")]));
    running.start();
    running.wait_for("a certificate", |running| obtained(running) == 1);
    for kind in ["live", "archive"] {
        let key = running.folder.path().join(format!("letsencrypt/{kind}/mqtt.test"));
        let key = key.join(if kind == "live" { "privkey.pem" } else { "privkey1.pem" });
        assert_eq!(std::fs::metadata(&key).expect("a key").permissions().mode() & 0o7777, 0o600, "{}", key.display());
    }
    running.stop();
    set(&mut running, "DOMAIN", Some("MQTT.test, b.test"));
    running.start();
    running.wait_for("one for both", |running| obtained(running) == 2);
    assert!(running.log().contains("(DOMAIN has changed)"), "{}", running.log());
    assert!(running.darner(&["cert"]).1.contains("b.test, mqtt.test"));
    for same in ["mqtt.test b.test b.test", "mqtt.test,B.TEST."] {
        running.stop();
        set(&mut running, "DOMAIN", Some(same));
        running.start();
    }
    running.wait_for("the check at the start", |running| running.log().matches("Dealing with certificates...").count() == 4);
    assert_eq!(ca.count(ISSUED), 2, "{}", running.log());
}

#[test]
fn from_the_test_server_to_the_real_one_and_never_back() {
    let (staging, real) = (Pebble::start(&json!({}), &[]), Pebble::start(&json!({}), &[]));
    let (rehearsal, production) = (staging.environment(), real.environment());
    let mut running = Running::of_domain(&with(&rehearsal, &[("TESTCERT", "1"), ("RENEWAL", "reload")]));
    running.start();
    running.wait_for("a rehearsal", |running| obtained(running) == 1);
    assert!(running.darner(&["cert"]).1.contains("(a test server)"));
    running.stop();
    set(&mut running, "TESTCERT", None);
    for (name, value) in &production {
        set(&mut running, name, Some(value));
    }
    running.start();
    running.wait_for("a real one", |running| obtained(running) == 2);
    assert!(running.log().contains("(it comes from another CA)"), "{}", running.log());
    assert!(!running.darner(&["cert"]).1.contains("(a test server)"));
    let accounts = running.folder.path().join("letsencrypt/darner/worker/accounts");
    assert_eq!(std::fs::read_dir(accounts).expect("accounts").count(), 2);
    running.stop();
    set(&mut running, "TESTCERT", Some("1"));
    for (name, value) in &rehearsal {
        set(&mut running, name, Some(value));
    }
    let served = running.live("fullchain.pem").read_link().expect("a link");
    running.start();
    let (code, _, stderr) = running.darner(&["cert", "renew", "--force"]);
    assert!(code == 1 && stderr.contains("never takes the place of a real one"), "{stderr}");
    let (code, stdout, stderr) = running.darner(&["cert", "renew", "--dry-run"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(running.live("fullchain.pem").read_link().expect("a link"), served);
    assert_eq!((staging.count(ISSUED), real.count(ISSUED)), (2, 1));
}

#[test]
fn a_volume_that_takes_nothing_costs_no_order_and_nobody_his_certificate() {
    let ca = Pebble::start(&json!({}), &[]);
    let volume = Volume::new("2m");
    let environment = ca.environment();
    let mut running = Running::of_domain(&with(&environment, &[("RENEWAL", "reload")]));
    set(&mut running, "LETSENCRYPT_DIR", Some(&volume.path().join("letsencrypt").display().to_string()));
    let conf = std::fs::read_to_string(running.folder.path().join("mosquitto.conf")).expect("the configuration");
    let theirs = running.folder.path().join("letsencrypt").display().to_string();
    running.folder.write("mosquitto.conf", conf.replace(&theirs, &volume.path().join("letsencrypt").display().to_string()));
    running.within = volume.within();
    running.start();
    running.wait_for("a certificate", |running| obtained(running) == 1);
    running.wait_for("its use", |running| running.log().contains("Reload done"));
    let served = running.served();
    for (spoil, mend) in
        [(Volume::fill as fn(&Volume), Volume::free as fn(&Volume)), (|volume| volume.remount("ro"), |volume| volume.remount("rw"))]
    {
        let asked = ca.count("Added order \"");
        spoil(&volume);
        let (code, _, stderr) = running.darner(&["cert", "renew", "--force"]);
        assert!(code == 1 && stderr.contains("nothing was asked of the CA; free or mount the volume"), "{stderr}");
        assert_eq!((ca.count("Added order \""), running.served()), (asked, served.clone()));
        mend(&volume);
    }
    let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(ca.count(ISSUED), 2);
}

#[test]
fn what_the_ca_brings_is_looked_at_before_it_is_used() {
    let ca = Pebble::start(&json!({}), &[]);
    let proxy = ca.behind_proxy();
    let (environment, directory) = (ca.environment(), proxy.directory());
    let mut running = Running::of_domain(&with(&environment, &[("RENEWAL", "reload"), ("ACME_DIRECTORY", &directory)]));
    let old = pair("mqtt.test", (-1, 89));
    running.install("mqtt.test", &old);
    running.start();
    let other = pair("mqtt.test", (0, 90));
    let chain = String::from_utf8(other.fullchain).expect("text");
    let leaf = chain.split_inclusive("-----END CERTIFICATE-----\n").next().expect("a leaf").to_owned();
    for (body, words) in [
        (chain.clone(), "the key is not the certificate's"),
        (leaf, ""),
        ("nothing".to_owned(), ""),
        (chain[..chain.len() / 4].to_owned(), ""),
        ("x".repeat(2 << 20), ""),
    ] {
        proxy.spoil("/certZ/", 100, Fault::Body(body));
        let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
        assert!(code == 1 && stderr.contains(words), "{words:?}: {stdout}{stderr}");
        assert!(running.serves(&old), "{}", running.log());
        proxy.heal();
    }
    let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    running.wait_for("the real one", |running| !running.serves(&old) && !running.served().is_empty());
}

#[test]
fn a_rehearsal_switches_nothing_and_says_whose_limits_it_costs() {
    let ca = Pebble::start(&json!({}), &[]);
    let environment = ca.environment();
    let mut running = Running::of_domain(&with(&environment, &[("RENEWAL", "reload")]));
    running.start();
    running.wait_for("its use", |running| running.log().contains("Reload done"));
    let served = running.served();
    let (code, stdout, stderr) = running.darner(&["cert", "renew", "--dry-run"]);
    assert!(code == 0 && stdout.contains("The dry run for mqtt.test succeeded"), "{stdout}{stderr}");
    assert!(running.log().contains("no test server of this CA is known"), "{}", running.log());
    assert_eq!((running.served(), ca.count(ISSUED)), (served, 2));
}

/// A certificate for the key of a request, as a CA would make it that is in error.
fn for_key(request: &str, name: &str, days: (i64, i64)) -> String {
    use base64::Engine as _;
    let der = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(request).expect("base64");
    let mut request = rcgen::CertificateSigningRequestParams::from_der(&der.into()).expect("a request");
    let above_key = rcgen::KeyPair::generate().expect("a key");
    let mut above = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    above.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let chain = above.self_signed(&above_key).expect("signed").pem();
    let issuer = rcgen::Issuer::new(above, above_key);
    let date = |days: i64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs((super::now() + days * super::DAY) as u64);
    request.params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    (request.params.not_before, request.params.not_after) = (date(days.0), date(days.1));
    request.signed_by(&issuer).expect("signed").pem() + &chain
}

#[test]
fn the_right_key_with_other_names_or_other_dates_is_refused() {
    let ca = Pebble::start(&json!({}), &[]);
    let proxy = ca.behind_proxy();
    let (environment, directory) = (ca.environment(), proxy.directory());
    let mut running = Running::of_domain(&with(&environment, &[("RENEWAL", "reload"), ("ACME_DIRECTORY", &directory)]));
    let old = pair("mqtt.test", (-1, 89));
    running.install("mqtt.test", &old);
    running.start();
    for (name, days, words) in [
        ("other.test", (0, 90), "it is not for mqtt.test"),
        ("mqtt.test", (-90, -1), "it has already expired"),
        ("mqtt.test", (10, 90), "it is not valid yet"),
    ] {
        // The order goes on with the same key after an answer that did not come.
        proxy.spoil("/certZ/", 100, Fault::Refused);
        assert_eq!(running.darner(&["cert", "renew", "--force"]).0, 1);
        let csr = proxy.asked("/finalize-order/").pop().expect("a request").payload["csr"].as_str().expect("it").to_owned();
        proxy.heal();
        proxy.spoil("/certZ/", 100, Fault::Body(for_key(&csr, name, days)));
        let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
        assert!(code == 1 && stderr.contains(words), "{words}: {stdout}{stderr}");
        assert!(running.serves(&old), "{}", running.log());
        proxy.heal();
        if words.contains("not valid yet") {
            // Kept for a clock that is set later; nothing more is asked of the CA.
            let asked = proxy.asked("/order-plz").len();
            assert_eq!(running.darner(&["cert", "renew", "--force"]).0, 1);
            assert_eq!(proxy.asked("/order-plz").len(), asked);
        }
    }
}

#[test]
fn a_volume_without_room_for_names_costs_no_order() {
    let ca = Pebble::start(&json!({}), &[]);
    let volume = Volume::new("2m,nr_inodes=90");
    let environment = ca.environment();
    let mut running = Running::of_domain(&with(&environment, &[("RENEWAL", "reload")]));
    set(&mut running, "LETSENCRYPT_DIR", Some(&volume.path().join("letsencrypt").display().to_string()));
    running.within = volume.within();
    let conf = std::fs::read_to_string(running.folder.path().join("mosquitto.conf")).expect("the configuration");
    let theirs = running.folder.path().join("letsencrypt").display().to_string();
    running.folder.write("mosquitto.conf", conf.replace(&theirs, &volume.path().join("letsencrypt").display().to_string()));
    volume.run(&[
        "sh",
        "-c",
        &format!("cd {} && n=0; while touch n$n 2>/dev/null; do n=$((n + 1)); done; rm n1 n2 n3 n4 n5 n6 n7 n8", volume.path().display()),
    ]);
    running.start();
    running.wait_for("the reason", |running| running.log().contains("cannot be written"));
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(ca.count("Added order \""), 0, "{}", running.log());
    volume.run(&["sh", "-c", &format!("rm {}/n*", volume.path().display())]);
    let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
    assert_eq!(code, 0, "{stdout}{stderr}{}", running.log());
}

#[test]
fn a_certificate_of_half_a_minute_is_renewed_by_itself_at_its_half() {
    let ca = Pebble::start(&json!({ "certificateValidityPeriod": 30 }), &[]);
    let environment = ca.environment();
    let mut running = Running::of_domain(&with(&environment, &[("RENEWAL", "reload")]));
    running.start();
    running.wait_for("two of them", |running| obtained(running) == 2);
    assert!(running.log().contains("(little of its lifetime is left)"), "{}", running.log());
    assert!(!running.log().contains("it has expired"), "{}", running.log());
}

#[test]
fn pid_1_killed_in_the_middle_goes_on_with_the_same_order() {
    let ca = Pebble::start(&json!({}), &[]);
    let proxy = ca.behind_proxy();
    let (environment, directory) = (ca.environment(), proxy.directory());
    let mut running = Running::of_domain(&with(&environment, &[("RENEWAL", "reload"), ("ACME_DIRECTORY", &directory)]));
    proxy.spoil("/finalize-order/", 1, Fault::Silent);
    running.start();
    running.wait_for("the order", |_| !proxy.asked("/finalize-order/").is_empty());
    let mut child = running.child.take().expect("PID 1");
    child.kill().expect("killed");
    child.wait().expect("gone");
    running.wait_for("the broker's end", |running| std::net::TcpStream::connect(("127.0.0.1", running.port)).is_err());
    // The attempt counts as failed until its outcome is known.
    running.start();
    assert_eq!(proxy.asked("/finalize-order/").len(), 1);
    let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!((ca.count("Added order \""), ca.count(ISSUED)), (1, 1));
}
