//! Certificates that have run out or are not valid yet: of clients, and of the authorities that signed them.

use std::process::Command;

use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::{Authority, folder, ours, path, publish, start};
use crate::support::peer::debian;
use crate::support::process::{Broker, Folder, run, wait_until};

#[test]
fn without_date_checks_those_who_come_too_late_or_early_are_let_in_and_strangers_are_not() {
    let (folder, authority) = folder();
    let late = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 6, 1);
    authority.sign_with(&folder, "late", Some("late"), 2, late);
    authority.sign_with(&folder, "early", Some("early"), 3, |params| params.not_before = date_time_ymd(2090, 6, 1));
    authority.sign_with(&folder, "revoked", Some("revoked"), 4, late);
    authority.sign(&folder, "good", Some("good"), 7);
    authority.revoke(&folder, &[4]);
    Authority::new(&folder, "other").sign_with(&folder, "stranger", None, 5, late);
    // Who has it revoked now is not known, though it was on that day.
    let former = Authority::new(&folder, "former");
    former.sign_with(&folder, "unknown", None, 6, late);
    former.revoke_until(&folder, &[], 2021);
    for (file, parts) in [("all.crt", ["ca.crt", "former.crt"]), ("all.crl", ["ca.crl", "former.crl"])] {
        folder.write(file, parts.map(|name| std::fs::read_to_string(folder.path().join(name)).expect("a file")).concat());
    }
    let more = "allow_anonymous true\ncafile {folder}/all.crt\ncrlfile {folder}/all.crl\nrequire_certificate true\n";
    let broker = start(folder, &format!("{more}disable_client_cert_date_checks true\n"));
    assert_eq!(["late", "early"].map(|name| publish(&broker, Some(name), "a")), [0, 0], "{}", broker.log());
    for (name, reason) in [("revoked", "Revoked"), ("stranger", "UnknownIssuer"), ("unknown", "ExpiredRevocationList")] {
        assert_ne!(publish(&broker, Some(name), "a"), 0, "{name}");
        broker.wait_for_log(reason);
    }
    let conf = std::fs::read_to_string(path(&broker, "mosquitto.conf")).expect("the configuration");
    broker.folder.write("mosquitto.conf", conf.replace("date_checks true", "date_checks false"));
    broker.signal(Signal::SIGHUP);
    wait_until("dates that are looked at", || publish(&broker, Some("late"), "a") != 0 && publish(&broker, Some("early"), "a") != 0);
    assert_eq!(publish(&broker, Some("good"), "a"), 0, "who is in time comes in: {}", broker.log());
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn past(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2020, 1, 1);
}

/// `cafile`: authorities of which some are none any more or not yet, and each has signed somebody.
fn with_old_authorities(more: &str) -> Broker {
    let (folder, good) = folder();
    good.sign(&folder, "good", None, 2);
    Authority::with(&folder, "past", None, key(), past).sign(&folder, "late", None, 3);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2090, 1, 1);
    Authority::with(&folder, "future", None, key(), future).sign(&folder, "early", None, 4);
    // What it signed before it was renewed under its name and key is good.
    let former = Authority::with(&folder, "renewed", None, key(), past);
    former.sign(&folder, "faithful", None, 5);
    let text = |folder: &Folder, name: &str| std::fs::read_to_string(folder.path().join(format!("{name}.crt"))).expect("a certificate");
    let former_text = text(&folder, "renewed");
    let same_key = KeyPair::from_pem(&former.issuer.key().serialize_pem()).expect("its key");
    Authority::with(&folder, "renewed", None, same_key, |_| {});
    folder.write("all.crt", former_text + &["past", "ca", "renewed", "future"].map(|name| text(&folder, name)).concat());
    start(folder, &format!("allow_anonymous true\ncafile {{folder}}/all.crt\nrequire_certificate true\n{more}"))
}

#[test]
fn an_authority_has_a_time_outside_of_which_it_is_none() {
    let broker = with_old_authorities("");
    for (name, reason) in [("late", "Expired"), ("early", "NotValidYet")] {
        assert_ne!(publish(&broker, Some(name), "a"), 0, "{name}");
        broker.wait_for_log(reason);
    }
    assert_eq!(["good", "faithful"].map(|name| publish(&broker, Some(name), "a")), [0, 0], "{}", broker.log());
}

#[test]
fn our_tools_trust_no_broker_by_an_authority_that_is_none_any_more_and_debians_neither() {
    let (folder, _) = folder();
    let former = Authority::with(&folder, "ca", None, key(), past);
    former.sign(&folder, "server", Some("localhost"), 2);
    let broker = start(folder, "allow_anonymous true\n");
    let come = |mut tool: Command| {
        tool.args(["-h", "localhost", "-p", &broker.port.to_string(), "-t", "a", "-m", "b", "-q", "1"]);
        let (code, _, said) = run(tool.arg("--cafile").arg(path(&broker, "ca.crt")));
        (code != 0, said)
    };
    let (debians_refuses, said) = come(debian("mosquitto_pub"));
    assert!(debians_refuses, "{said}");
    let (ours_refuses, said) = come(ours());
    assert!(ours_refuses && said.contains("Expired"), "{said}");
    let key = KeyPair::from_pem(&former.issuer.key().serialize_pem()).expect("its key");
    Authority::with(&broker.folder, "ca", None, key, |_| {});
    let (ours_refuses, said) = come(ours());
    assert!(!ours_refuses, "renewed: {said}");
}

#[test]
fn without_date_checks_those_of_an_authority_do_not_matter_either() {
    let broker = with_old_authorities("disable_client_cert_date_checks true\n");
    assert_eq!(["good", "faithful", "late", "early"].map(|name| publish(&broker, Some(name), "a")), [0; 4], "{}", broker.log());
}
