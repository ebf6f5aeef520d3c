//! What a CA lets its clients choose: profile, chain. And what the worker sees of our own listeners.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::pebble::Pebble;
use super::{names, take};

/// The common name of the topmost issuer.
fn topmost(outcome: &Value) -> String {
    let pem = std::fs::read(outcome["fullchain"].as_str().expect("a path")).expect("a chain");
    let last = CertificateDer::pem_slice_iter(&pem).last().expect("one").expect("PEM");
    let (_, last) = X509Certificate::from_der(&last).expect("a certificate");
    common_name(last.issuer())
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    name.iter_common_name().next().and_then(|name| name.as_str().ok()).expect("a name").to_owned()
}

#[test]
fn a_profile_is_asked_for_also_with_a_replacement() {
    let pebble = Pebble::start(&json!({}), &[]);
    let proxy = pebble.behind_proxy();
    proxy.wish((1_000, 2_000), None);
    for replaces in [Value::Null, json!("AQ.Ag")] {
        let request = pebble.request(&json!({ "directory": proxy.directory(), "profile": "shortlived", "replaces": replaces }));
        take(&pebble.work(&request));
        let order = proxy.asked("/order-plz").pop().expect("an order").payload;
        assert_eq!((&order["profile"], &order["replaces"]), (&json!("shortlived"), &replaces), "{order}");
    }
    take(&pebble.work(&pebble.request(&json!({ "directory": proxy.directory() }))));
    assert!(proxy.asked("/order-plz").pop().expect("an order").payload.get("profile").is_none_or(Value::is_null));
}

#[test]
fn the_chain_up_to_the_root_that_is_preferred_is_taken_and_one_that_is_not_offered_is_said() {
    let pebble = Pebble::start(&json!({}), &[("PEBBLE_ALTERNATE_ROOTS", "2")]);
    let roots: Vec<_> = (0..3)
        .map(|nth| {
            let root = CertificateDer::from_pem_slice(&std::fs::read(pebble.nth_root(nth)).expect("a root")).expect("PEM");
            let (_, root) = X509Certificate::from_der(&root).expect("a certificate");
            common_name(root.subject())
        })
        .collect();
    for root in &roots {
        let outcome = pebble.work(&pebble.request(&json!({ "preferred_chain": root })));
        assert_eq!(&topmost(&outcome), root);
        take(&outcome);
    }
    let reports = Pebble::reports(pebble.start_worker(&pebble.request(&json!({ "preferred_chain": "Nobody's Root" }))));
    let said: Vec<_> = reports.iter().filter(|report| report["report"] == "event").map(|report| report["text"].to_string()).collect();
    assert!(said.iter().any(|text| text.contains("no chain up to") && text.contains("Nobody's Root")), "{said:?}");
    names(reports.last().expect("an outcome"));
}

#[test]
fn a_look_at_listeners_tells_their_leaves() {
    let pebble = Pebble::start(&json!({}), &[]);
    let leaf = darner::tls::leaf::Leaf::of_chain(&std::fs::read(pebble.folder.path().join("server.pem")).expect("a file")).expect("a leaf");
    let port: u16 =
        pebble.environment()[0].1.trim_end_matches("/dir").rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let targets = json!([{ "host": "127.0.0.1", "port": port }, { "host": "127.0.0.1", "port": crate::support::process::free_port() }, { "host": "localhost", "port": port }]);
    let probed = pebble.work(&pebble.request(&json!({ "mode": "probe", "targets": targets })));
    assert_eq!(probed, json!({ "report": "probed", "leaves": [leaf.fingerprint(), null, leaf.fingerprint()] }));
}
