//! The worker and a CA that goes wrong at each of its steps.

use std::time::Duration;

use serde_json::{Value, json};

use super::pebble::Pebble;
use super::{NEW_CERTIFICATE, NEW_ORDER, names, take};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::process::wait_until;

fn behind(pebble: &Pebble, proxy: &FaultProxy, more: &Value) -> Value {
    let mut request = pebble.request(&json!({ "directory": proxy.directory() }));
    for (name, value) in more.as_object().expect("an object") {
        request[name] = value.clone();
    }
    request
}

#[test]
fn an_answer_that_drips_or_never_comes_is_waited_for_until_the_deadline_and_the_order_goes_on() {
    let pebble = Pebble::start(&json!({}), &[]);
    let proxy = pebble.behind_proxy();
    let request = |seconds| behind(&pebble, &proxy, &json!({ "deadline_secs": seconds }));
    for (path, fault) in [("/finalize-order/", Fault::Silent), ("/certZ/", Fault::Dripping(Duration::from_millis(20)))] {
        proxy.spoil(path, 1, fault);
        let failed = pebble.work(&request(3));
        assert_eq!((&failed["step"], &failed["counted"]), (&json!("deadline"), &json!(true)), "{path}: {failed}");
        assert!(failed["text"].as_str().expect("text").contains("within 3 seconds"), "{path}: {failed}");
    }
    names(&pebble.work(&request(60)));
    assert_eq!((pebble.count(NEW_ORDER), pebble.count(NEW_CERTIFICATE)), (1, 1), "{}", pebble.log());
}

#[test]
fn renewal_information_that_makes_no_sense_is_none() {
    let pebble = Pebble::start(&json!({}), &[]);
    let proxy = pebble.behind_proxy();
    let request = behind(&pebble, &proxy, &json!({ "mode": "renewal_info", "replaces": "AQ.Ag" }));
    let ask = || pebble.work(&request);
    // Without any, later is soon enough.
    assert_eq!(ask(), json!({ "report": "renewal_info", "window": null, "retry_after_secs": 21_600, "explanation_url": null }));
    for ((start, end), retry_after, expected) in [
        ((2_000, 1_000), Some("7"), json!({ "window": null, "retry_after_secs": 60 })),
        ((1_000, 2_000), Some("soon"), json!({ "window": { "start": 1_000, "end": 2_000 }, "retry_after_secs": 21_600 })),
        ((1_000, 2_000), Some("9999999"), json!({ "window": { "start": 1_000, "end": 2_000 }, "retry_after_secs": 86_400 })),
    ] {
        proxy.wish((start, end), retry_after);
        let answer = ask();
        assert_eq!((&answer["window"], &answer["retry_after_secs"]), (&expected["window"], &expected["retry_after_secs"]), "{answer}");
    }
    for fault in [Fault::Body("{".into()), Fault::Body(String::new()), Fault::problem(404, "malformed", "no such certificate", None)] {
        proxy.spoil("/renewal-info/", 1, fault.clone());
        assert_eq!(ask()["window"], Value::Null, "{fault:?}");
    }
    proxy.spoil("/renewal-info/", 1, Fault::page(503, Some("500")));
    let failed = ask();
    assert_eq!((&failed["step"], &failed["status"], &failed["retry_after_secs"]), (&json!("renewal_info"), &json!(503), &json!(500)));
}

#[test]
fn killed_at_any_step_the_same_order_goes_on_with_the_same_account() {
    // Where the CA hears of it and the worker dies before the answer: before, when it never hears of it.
    let steps: [(&'static str, Fault, usize); 9] = [
        ("/dir", Fault::Silent, 1),
        ("/sign-me-up", Fault::Silent, 1),
        ("/order-plz", Fault::Silent, 1),
        ("/authZ/", Fault::Silent, 1),
        ("/chalZ/", Fault::Silent, 1),
        ("/my-order/", Fault::Silent, 1),
        ("/finalize-order/", Fault::Silent, 1),
        ("/certZ/", Fault::Silent, 1),
        // Only here does nobody know the order's address: it is the one case that costs another.
        ("/order-plz", Fault::Dripping(Duration::from_secs(60)), 2),
    ];
    let pebble = Pebble::start(&json!({}), &[]);
    let mut accounts = Vec::new();
    for (path, fault, orders) in steps {
        let proxy = pebble.behind_proxy();
        let work = pebble.folder.path().join(format!("work-{}", accounts.len()));
        let request = behind(&pebble, &proxy, &json!({ "work_dir": work }));
        proxy.spoil(path, 1, fault.clone());
        let ordered = pebble.count(NEW_ORDER);
        let issued = pebble.count(NEW_CERTIFICATE);
        let mut worker = pebble.start_worker(&request);
        wait_until("the step", || !proxy.asked(path).is_empty());
        if orders == 2 {
            wait_until("the order", || pebble.count(NEW_ORDER) > ordered);
        }
        worker.kill().expect("killed");
        worker.wait().expect("gone");
        names(&pebble.work(&request));
        assert_eq!(pebble.count(NEW_ORDER) - ordered, orders, "{path}, {fault:?}");
        assert_eq!(pebble.count(NEW_CERTIFICATE) - issued, 1, "{path}, {fault:?}");
        accounts.push(work);
    }
    // A key that the CA has heard of twice is still one account.
    assert_eq!(pebble.count(&format!("There are now {} accounts in memory", accounts.len() + 1)), 0, "{}", pebble.log());
}

#[test]
fn two_at_once_make_one_order() {
    let pebble = Pebble::start(&json!({}), &[]);
    let proxy = pebble.behind_proxy();
    let request = behind(&pebble, &proxy, &json!({}));
    proxy.spoil("/finalize-order/", 1, Fault::Silent);
    let mut first = pebble.start_worker(&request);
    wait_until("the first one's order", || !proxy.asked("/finalize-order/").is_empty());
    let asked = proxy.asked("/").len();
    // It has no socket of its own, but does not come so far.
    let second = std::process::Command::new(crate::support::process::darner())
        .arg("acme")
        .stdin(std::fs::File::open(pebble.folder.path().join("request.json")).expect("the request"))
        .output()
        .expect("it runs");
    let refused: Value = serde_json::from_slice(&second.stdout).expect("a report");
    assert_eq!((&refused["step"], &refused["counted"]), (&json!("storage"), &json!(false)), "{refused}");
    assert!(refused["text"].as_str().expect("text").starts_with("another attempt is under way"), "{refused}");
    assert_eq!(proxy.asked("/").len(), asked, "nothing is asked");
    first.kill().expect("killed");
    first.wait().expect("gone");
    names(&pebble.work(&request));
    assert_eq!((pebble.count(NEW_ORDER), pebble.count(NEW_CERTIFICATE)), (1, 1));
}

#[test]
fn a_clock_that_is_wrong_is_told_by_the_ca_s_own_certificate_and_is_not_counted() {
    let pebble = Pebble::start(&json!({}), &[]);
    for (name, years) in [("later", (2090, 2091)), ("earlier", (1990, 1991))] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").pem();
        let issuer = rcgen::Issuer::new(params, key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut server = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("parameters");
        (server.not_before, server.not_after) = (rcgen::date_time_ymd(years.0, 1, 1), rcgen::date_time_ymd(years.1, 1, 1));
        let folder = crate::support::process::Folder::new("clock");
        folder.write("ca.pem", root);
        folder.write("server.pem", server.signed_by(&key, &issuer).expect("a certificate").pem());
        folder.write("server.key", key.serialize_pem());
        let proxy = FaultProxy::start(folder.path(), 1);
        let request = behind(&pebble, &proxy, &json!({ "ca_file": folder.path().join("ca.pem") }));
        let failed = pebble.work(&request);
        assert_eq!((&failed["is_clock_error"], &failed["counted"]), (&json!(true), &json!(false)), "{name}: {failed}");
        assert!(failed["text"].as_str().expect("text").contains("this machine's clock seems wrong: set it"), "{failed}");
    }
}

#[test]
fn a_ca_that_cannot_be_reached_or_trusted_is_told_with_the_reason() {
    let pebble = Pebble::start(&json!({}), &[]);
    let port = crate::support::process::free_port();
    for (more, words) in [
        (json!({ "directory": format!("https://localhost:{port}/dir") }), "refused"),
        (json!({ "directory": "https://ca.invalid/dir" }), "ca.invalid port 443: failed to lookup address"),
        (json!({ "ca_file": Value::Null }), "ACME_CA_FILE"),
    ] {
        let failed = pebble.work(&pebble.request(&more));
        assert_eq!((&failed["step"], &failed["counted"]), (&json!("directory"), &json!(true)), "{failed}");
        let text = failed["text"].as_str().expect("text");
        assert!(text.contains(words) && text.contains("What to do: "), "{words}: {text}");
    }
}

#[test]
fn what_the_dns_says_wrong_is_told() {
    let pebble = Pebble::start(&json!({}), &[]);
    pebble.dns("set-servfail", &json!({ "host": "broken.test." }));
    // The CA goes to IPv6 first, and nobody listens there.
    pebble.dns("add-aaaa", &json!({ "host": "six.test.", "addresses": ["::1"] }));
    for (name, words) in [("broken.test", "could not resolve"), ("six.test", "[::1]")] {
        let failed = pebble.work(&pebble.request(&json!({ "domains": [name], "lineage": name })));
        let text = failed["text"].as_str().expect("text");
        assert!(text.starts_with(&format!("{name}: ")) && text.contains(words) && text.contains("What to do: "), "{text}");
        assert_eq!(failed["identifiers"], json!([name]), "{failed}");
    }
    // One bad name among good ones is named.
    let failed = pebble.work(&pebble.request(&json!({ "domains": ["a.test", "broken.test"] })));
    assert_eq!(failed["identifiers"], json!(["broken.test"]), "{failed}");
}

#[test]
fn an_authorization_that_the_ca_still_has_is_not_proven_again() {
    let pebble = Pebble::start(&json!({}), &[("PEBBLE_AUTHZREUSE", "100")]);
    let proxy = pebble.behind_proxy();
    let request = behind(&pebble, &proxy, &json!({}));
    take(&pebble.work(&request));
    let proven = proxy.asked("/chalZ/").len();
    names(&pebble.work(&request));
    assert_eq!(proxy.asked("/chalZ/").len(), proven);
    assert_eq!(pebble.count(NEW_CERTIFICATE), 2);
}
