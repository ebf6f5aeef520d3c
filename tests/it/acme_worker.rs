//! `darner acme` against a real ACME server: Pebble.

mod choices;
mod faults;
pub mod pebble;

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use pebble::Pebble;

/// A line that Pebble writes for each.
const NEW_ORDER: &str = "Added order \"";
const NEW_CERTIFICATE: &str = "Issued certificate serial";

/// The names of the leaf that an outcome brought.
fn names(outcome: &Value) -> Vec<String> {
    assert_eq!(outcome["report"], "issued", "{outcome}");
    let pem = std::fs::read(outcome["fullchain"].as_str().expect("a path")).expect("a chain");
    let leaf = CertificateDer::pem_slice_iter(&pem).next().expect("a leaf").expect("PEM");
    let (_, leaf) = X509Certificate::from_der(&leaf).expect("a certificate");
    let names = leaf.subject_alternative_name().expect("parsed").expect("there");
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join("."),
        other => format!("{other:?}"),
    };
    let mut names: Vec<_> = names.value.general_names.iter().map(text).collect();
    names.sort();
    names
}

fn take(outcome: &Value) {
    let path = std::path::Path::new(outcome["fullchain"].as_str().expect("a path"));
    std::fs::remove_dir_all(path.parent().expect("a folder")).expect("removed, as PID 1 does");
}

#[test]
fn two_names_over_http_01_then_a_renewal_with_the_same_account() {
    let pebble = Pebble::start(&json!({}), &[]);
    let request = pebble.request(&json!({}));
    let outcome = pebble.work(&request);
    assert_eq!(names(&outcome), ["a.test", "b.test"]);
    // A certificate that PID 1 has not taken is brought again without asking the CA.
    assert_eq!(pebble.work(&request), outcome);
    assert_eq!((pebble.count(NEW_ORDER), pebble.count(NEW_CERTIFICATE)), (1, 1));
    take(&outcome);
    assert_eq!(names(&pebble.work(&request)), ["a.test", "b.test"]);
    assert_eq!(pebble.count(NEW_CERTIFICATE), 2, "{}", pebble.log());
    assert_eq!(pebble.count("There are now 1 accounts in memory"), 1);
}

#[test]
fn what_is_in_use_already_is_not_brought_again() {
    let pebble = Pebble::start(&json!({}), &[]);
    let mut request = pebble.request(&json!({}));
    let outcome = pebble.work(&request);
    let leaf = |outcome: &Value| {
        let pem = std::fs::read(outcome["fullchain"].as_str().expect("a path")).expect("a chain");
        darner::tls::leaf::Leaf::of_chain(&pem).expect("a leaf").fingerprint()
    };
    // PID 1 was killed after it had put it in use and before it had removed it here.
    request["held"] = json!(leaf(&outcome));
    let next = pebble.work(&request);
    assert_ne!(json!(leaf(&next)), request["held"]);
    assert_eq!(pebble.count(NEW_CERTIFICATE), 2);
}

#[test]
fn an_ip_address_with_an_rsa_key() {
    let pebble = Pebble::start(&json!({}), &[]);
    let outcome = pebble.work(&pebble.request(&json!({ "domains": ["127.0.0.1"], "key_type": "rsa2048" })));
    assert_eq!(names(&outcome), ["127.0.0.1".to_owned()]);
}

#[test]
fn a_wildcard_over_dns_01() {
    let pebble = Pebble::start(&json!({}), &[]);
    let hook = pebble.hook();
    let request = pebble.request(&json!({ "domains": ["*.a.test", "a.test"], "challenge": "dns-01", "dns_hook": hook }));
    assert_eq!(names(&pebble.work(&request)), ["*.a.test", "a.test"]);
}

#[test]
fn refused_nonces_are_outlasted() {
    let pebble = Pebble::start(&json!({}), &[("PEBBLE_WFE_NONCEREJECT", "50")]);
    assert_eq!(names(&pebble.work(&pebble.request(&json!({})))), ["a.test", "b.test"]);
    assert_eq!(pebble.count(NEW_CERTIFICATE), 1);
}

#[test]
fn external_account_binding_is_asked_for_and_used() {
    let more = json!({ "externalAccountBindingRequired": true, "externalAccountMACKeys": { "kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W" } });
    let pebble = Pebble::start(&more, &[]);
    let refused = pebble.work(&pebble.request(&json!({})));
    assert_eq!(refused["problem"], "externalAccountRequired", "{refused}");
    let eab = json!({ "kid": "kid-1", "hmac": more["externalAccountMACKeys"]["kid-1"] });
    names(&pebble.work(&pebble.request(&json!({ "eab": eab }))));
}

#[test]
fn a_blocked_name_is_named() {
    let pebble = Pebble::start(&json!({ "domainBlocklist": ["blocked.test"] }), &[]);
    let refused = pebble.work(&pebble.request(&json!({ "domains": ["blocked.test"] })));
    assert_eq!((&refused["problem"], &refused["step"]), (&json!("rejectedIdentifier"), &json!("order")), "{refused}");
    assert!(refused["text"].as_str().expect("text").contains("blocked.test"), "{refused}");
}

#[test]
fn a_worker_that_is_killed_anywhere_goes_on_with_its_order() {
    let pebble = Pebble::start(&json!({}), &[]);
    let request = pebble.request(&json!({}));
    for millis in [20, 60, 100, 150, 200, 250, 300, 400, 500, 700] {
        let mut worker = pebble.start_worker(&request);
        std::thread::sleep(Duration::from_millis(millis));
        worker.kill().expect("killed");
        worker.wait().expect("gone");
    }
    names(&pebble.work(&request));
    assert_eq!(pebble.count(NEW_CERTIFICATE), 1, "{}", pebble.log());
    assert_eq!(pebble.count("There are now 2 accounts in memory"), 0);
}

#[test]
fn a_damaged_account_is_found_again_by_its_key() {
    let pebble = Pebble::start(&json!({}), &[]);
    let request = pebble.request(&json!({}));
    take(&pebble.work(&request));
    let accounts = pebble.folder.path().join("work/accounts");
    let folder = std::fs::read_dir(accounts).expect("accounts").next().expect("one").expect("readable").path();
    std::fs::write(folder.join("account.json"), "{").expect("damaged");
    names(&pebble.work(&request));
    assert_eq!(pebble.count("There are now 2 accounts in memory"), 0);
}

#[test]
fn an_account_that_the_ca_lost_is_registered_again() {
    let pebble = Pebble::start(&json!({}), &[]);
    let request = pebble.request(&json!({}));
    take(&pebble.work(&request));
    let other = Pebble::start(&json!({}), &[]);
    // The old CA's address of an account, which the new one does not know.
    let folder = |pebble: &Pebble| pebble.folder.path().join("work/accounts");
    take(&other.work(&other.request(&json!({}))));
    let file = std::fs::read_dir(folder(&other)).expect("accounts").next().expect("one").expect("readable").path().join("account.json");
    let text = std::fs::read_to_string(&file).expect("an account");
    let unknown = text.rsplit_once('/').map(|(start, _)| format!("{start}/ffffffffffffff\"}}")).expect("an address");
    std::fs::write(&file, unknown).expect("written");
    names(&other.work(&other.request(&json!({}))));
}

#[test]
fn nothing_is_asked_of_the_ca_when_nothing_can_be_written() {
    let pebble = Pebble::start(&json!({}), &[]);
    let blocked = pebble.folder.write("no-folder", "a file where a folder should be");
    let refused = pebble.work(&pebble.request(&json!({ "work_dir": blocked })));
    assert_eq!((&refused["step"], &refused["counted"]), (&json!("storage"), &json!(false)), "{refused}");
    assert_eq!(pebble.count(NEW_ORDER), 0);
}

#[test]
fn without_the_socket_of_port_80_it_says_so() {
    let pebble = Pebble::start(&json!({}), &[]);
    let input = pebble.folder.write("request.json", pebble.request(&json!({})).to_string());
    let output = std::process::Command::new(crate::support::process::darner())
        .arg("acme")
        .stdin(std::fs::File::open(input).expect("the request"))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("port 80") && text.contains("\"counted\":false"), "{text}");
}

#[test]
fn a_dns_hook_that_does_not_end_is_ended_at_the_deadline_with_all_that_it_started() {
    let pebble = Pebble::start(&json!({}), &[]);
    let pid = pebble.folder.path().join("pid");
    let removed = pebble.folder.path().join("removed");
    let script = format!("[ $1 = add ] || exec touch {}\nsleep 1000 &\necho $! >{}\nwait\n", removed.display(), pid.display());
    let hook = format!("sh {}", pebble.folder.write("stuck", script).display());
    let request = pebble.request(&json!({ "domains": ["a.test"], "challenge": "dns-01", "dns_hook": hook, "deadline_secs": 3 }));
    let failed = pebble.work(&request);
    assert_eq!(failed["step"], "deadline", "{failed}");
    assert!(failed["text"].as_str().expect("text").starts_with("the DNS hook was not done within 3 seconds"), "{failed}");
    assert!(removed.exists(), "the record is removed all the same");
    let pid: i32 = std::fs::read_to_string(pid).expect("a pid").trim().parse().expect("a number");
    let is_there = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    crate::support::process::wait_until("the hook's end", || !is_there());
}

#[test]
fn before_an_order_we_look_ourselves_what_the_ca_will_find() {
    let pebble = Pebble::start(&json!({}), &[]);
    let look = |port: u16, more: Value| {
        let mut more = more;
        more["self_check"] = json!({ "port": port, "is_public": false });
        let reports = Pebble::reports(pebble.start_worker(&pebble.request(&more)));
        let warnings: Vec<_> =
            reports.iter().filter(|report| report["report"] == "event").map(|report| report["text"].to_string()).collect();
        let outcome = reports.last().cloned().expect("an outcome");
        assert_eq!(outcome["report"], "issued", "a warning stops nothing: {reports:?}");
        take(&outcome);
        warnings.join("\n")
    };
    // Our own answer comes back; the name's does not resolve, and this CA has a DNS of its own.
    assert_eq!(look(pebble.http_port(), json!({ "domains": ["127.0.0.1"] })), "");
    let closed = look(crate::support::process::free_port(), json!({ "domains": ["127.0.0.1"] }));
    assert!(closed.contains("is closed: open it") && closed.contains("this says nothing"), "{closed}");
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in other.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let other = look(port, json!({ "domains": ["127.0.0.1"] }));
    assert!(other.contains("another server answered on port") && other.contains("HTTP 404"), "{other}");
    let unknown = look(pebble.http_port(), json!({ "domains": ["nobody.invalid"] }));
    assert!(unknown.contains("nobody.invalid"), "{unknown}");
}
