//! What a stranger may send.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use darner::tls::lists::Lists;
use darner::tls::trust::{Purpose, Rules, Trust};
use rcgen::KeyPair;
use rustls::pki_types::UnixTime;

use super::lists::list;
use super::{Cases, authority, numbered};

/// webpki looks at signatures when it has come to a root, and at every way to it: some of these would keep it busy for days.
#[test]
fn a_stranger_who_sends_many_certificates_gets_little_work_for_it() {
    let cases = Cases::new();
    cases.certificate("ca", None, authority);
    let namesakes: Vec<_> = (0..12).map(|_| cases.make(("namesake", "a"), None, KeyPair::generate().expect("a key"), authority)).collect();
    let mut sent = Vec::new();
    for namesake in &namesakes {
        // Each by another of the name.
        cases.make(("one", "a"), Some(namesake), KeyPair::generate().expect("a key"), authority);
        sent.extend(darner::tls::certificates(cases.read("one", "crt").as_bytes()).expect("a certificate"));
    }
    let filler = [0x30, 0x19, 0x30, 0x14, 0xa0, 3, 2, 1, 2, 2, 1, 1, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 0, 3, 1, 0];
    sent.extend(std::iter::repeat_n(filler.to_vec().into(), 1_900));
    for able in [false, true] {
        cases.certificate("leaf", namesakes.first(), |params| {
            if able {
                authority(params);
            }
        });
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let mut trust = Trust::new(Purpose::Client, algorithms);
        let certificates = |name: &str| darner::tls::certificates(cases.read(name, "crt").as_bytes()).expect("a certificate").remove(0);
        trust.add(certificates("ca")).expect("a certificate");
        let rules = Rules { lists: None, without_dates: false, now: UnixTime::now() };
        assert!(trust.judge(&certificates("leaf"), &sent, rules).is_err());
    }
}

/// `bytes` with each of its bits changed, one at a time; and whether that bit is signed, or the signature's. What holds these together is
/// read with some indulgence.
fn with_a_bit_changed(bytes: &[u8]) -> impl Iterator<Item = (Vec<u8>, bool)> {
    // Both kinds begin with two headers of four bytes (or of three, where it is short) and end with the signature.
    let long = |at: usize| {
        if bytes[at + 1] == 0x82 { (4, usize::from(bytes[at + 2]) << 8 | usize::from(bytes[at + 3])) } else { (3, bytes[at + 2].into()) }
    };
    let (outer, _) = long(0);
    let (inner, len) = long(outer);
    let signed = outer + inner..outer + inner + len;
    let signature = bytes.len() - 60..bytes.len();
    (0..bytes.len() * 8).map(move |bit| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        (changed, signed.contains(&(bit / 8)) || signature.contains(&(bit / 8)))
    })
}

#[test]
fn no_bit_of_a_certificate_or_a_list_can_be_changed() {
    let cases = Cases::new();
    let ca = cases.certificate("ca", None, authority);
    let middle = cases.certificate("middle", Some(&ca), authority);
    cases.certificate("leaf", Some(&middle), numbered(7));
    cases.certificate("able", Some(&middle), authority);
    cases.plain("plain", "middle");
    cases.write_list("list", list((2020, 2090), &[7]), &middle);
    let der = |name: &str| darner::tls::certificates(cases.read(name, "crt").as_bytes()).expect("a certificate").remove(0);
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let mut trust = Trust::new(Purpose::Client, algorithms);
    trust.add(der("ca")).expect("a certificate");
    let rules = Rules { lists: None, without_dates: false, now: UnixTime::now() };
    let between = [der("middle")];
    for name in ["leaf", "able", "plain"] {
        let leaf = der(name);
        trust.judge(&leaf, &between, rules).expect("as it is");
        for (changed, is_signed) in with_a_bit_changed(&leaf) {
            let verdict = trust.judge(&changed.clone().into(), &between, rules);
            assert!(!is_signed || verdict.is_err(), "{name}: {changed:02x?}");
        }
        for (changed, is_signed) in with_a_bit_changed(&between[0]) {
            let verdict = trust.judge(&leaf, &[changed.clone().into()], rules);
            assert!(!is_signed || verdict.is_err(), "{name} below {changed:02x?}");
        }
    }
    let pem = cases.read("list", "crl");
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let mut counted = 0;
    for (changed, _) in with_a_bit_changed(&BASE64_STANDARD.decode(lines).expect("PEM")) {
        let text = format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", BASE64_STANDARD.encode(changed));
        let mut lists = Lists::default();
        if lists.add(text.as_bytes(), between.iter()).is_err() {
            continue;
        }
        counted += 1;
        assert!(trust.judge(&der("leaf"), &between, Rules { lists: Some(&lists), ..rules }).is_err(), "{text}");
    }
    assert!(counted > 100);
}
