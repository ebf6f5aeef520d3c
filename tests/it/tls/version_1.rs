//! Certificates of version 1, made with the commands of mosquitto's own manual, which most houses with certificates have followed.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use nix::sys::signal::Signal;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::{ours, path, publish, start};
use crate::support::peer::debian;
use crate::support::process::{Broker, Folder, run, wait_until};

pub(super) fn openssl(folder: &Folder, words: &str) {
    let (code, _, said) = run(Command::new("openssl").current_dir(folder.path()).args(words.split(' ')));
    assert_eq!(code, 0, "openssl {words}: {said}");
}

/// `ca.crt` and `ca.key`.
fn authority(folder: &Folder, name: &str) {
    openssl(folder, &format!("req -new -x509 -nodes -days 365 -newkey rsa:2048 -keyout {name}.key -out {name}.crt -subj /CN=house"));
}

/// `NAME.crt` and `NAME.key` for the host or user `common_name`, without any extension.
fn sign(folder: &Folder, authority: &str, name: &str, kind: &str, common_name: &str, days: i32) {
    openssl(folder, &format!("req -new -nodes {kind} -keyout {name}.key -out {name}.csr -subj /CN={common_name}"));
    openssl(
        folder,
        &format!("x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -out {name}.crt -days {days}"),
    );
    let text = run(Command::new("openssl").current_dir(folder.path()).args(["x509", "-noout", "-text", "-in", &format!("{name}.crt")])).1;
    assert!(text.contains("Version: 1 (0x0)"), "this openssl makes another version: {text}");
}

const RSA: &str = "-newkey rsa:2048";
const ECDSA: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

fn house() -> Folder {
    let folder = Folder::new("version-1");
    authority(&folder, "ca");
    sign(&folder, "ca", "server", RSA, "localhost", 365);
    // A broker without PID 1 reads it again as the user that it has become.
    std::fs::set_permissions(folder.path().join("server.key"), std::fs::Permissions::from_mode(0o644)).expect("ours");
    folder
}

/// A client of `tool` with the certificate NAME over TLS in `version`.
fn come_in(broker: &Broker, mut tool: Command, name: &str, version: &str) -> (i32, String) {
    tool.args(["-h", "localhost", "-p", &broker.port.to_string(), "--tls-version", version, "-t", "a", "-m", "b", "-q", "1"]);
    tool.arg("--cafile").arg(path(broker, "ca.crt"));
    tool.arg("--cert").arg(path(broker, &format!("{name}.crt"))).arg("--key").arg(path(broker, &format!("{name}.key")));
    let (code, _, said) = run(&mut tool);
    (code, said)
}

#[test]
fn clients_and_brokers_are_known_by_them_with_both_kinds_of_keys_and_in_both_versions_of_tls() {
    let folder = house();
    sign(&folder, "ca", "anna", RSA, "anna", 365);
    sign(&folder, "ca", "bert", ECDSA, "bert", 365);
    let broker = start(folder, "cafile {folder}/ca.crt\nrequire_certificate true\nuse_identity_as_username true\n");
    for name in ["anna", "bert"] {
        for version in ["tlsv1.2", "tlsv1.3"] {
            for tool in [debian("mosquitto_pub"), ours()] {
                let (code, said) = come_in(&broker, tool, name, version);
                assert_eq!(code, 0, "{name} over {version}: {said}\n{}", broker.log());
            }
        }
        broker.wait_for_log(&format!("u'{name}'"));
    }
}

#[test]
fn strangers_stay_outside() {
    let folder = house();
    // The same name above it, and another key.
    authority(&folder, "other");
    sign(&folder, "other", "stranger", RSA, "anna", 365);
    // No authority may be made of a certificate that is none.
    sign(&folder, "ca", "anna", RSA, "anna", 365);
    sign(&folder, "anna", "child", RSA, "child", 365);
    sign(&folder, "ca", "past", RSA, "past", -1);
    let broker = start(folder, "cafile {folder}/ca.crt\nrequire_certificate true\nallow_anonymous true\n");
    assert_eq!(publish(&broker, Some("anna"), "a"), 0, "{}", broker.log());
    for (name, reason) in [("stranger", "BadSignature"), ("child", "UnknownIssuer"), ("past", "Expired")] {
        assert_ne!(publish(&broker, Some(name), "a"), 0, "{name}");
        broker.wait_for_log(reason);
    }
    assert_ne!(publish(&broker, None, "a"), 0);
}

/// An authority `NAME.crt` and `NAME.key` of version 3, as `change` makes it, and one client of version 1 that it signed, `NAME-client`.
fn version_3(folder: &Folder, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    folder.write(&format!("{name}.crt"), params.self_signed(&key).expect("signed").pem());
    folder.write(&format!("{name}.key"), key.serialize_pem());
    sign(folder, name, &format!("{name}-client"), RSA, name, 365);
    Issuer::new(params, key)
}

/// A broker that trusts all of them, and knows the revocation lists of those that have one.
fn trusting(folder: Folder, authorities: &[&str], more: &str) -> Broker {
    let texts = authorities.iter().map(|name| std::fs::read_to_string(folder.path().join(format!("{name}.crt"))).expect("a certificate"));
    folder.write("all.crt", texts.collect::<String>());
    start(folder, &format!("cafile {{folder}}/all.crt\nrequire_certificate true\nallow_anonymous true\n{more}"))
}

/// Has the client of each authority come, and looks for the reason where one is expected.
fn each_gets(broker: &Broker, expected: &[(&str, Option<&str>)]) {
    for (name, reason) in expected {
        let count = |reason: &str| broker.log().matches(reason).count();
        let before = reason.map_or(0, count);
        let code = publish(broker, Some(&format!("{name}-client")), "a");
        assert_eq!(code != 0, reason.is_some(), "{name}: {}", broker.log());
        if let Some(reason) = reason {
            wait_until(&format!("{name}: {reason}"), || count(reason) > before);
        }
    }
}

#[test]
fn an_authority_of_version_3_signs_only_what_it_may() {
    let folder = house();
    version_3(&folder, "plain", |_| {});
    version_3(&folder, "usage", |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    version_3(&folder, "last", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    version_3(&folder, "lists", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    version_3(&folder, "none", |params| params.is_ca = IsCa::ExplicitNoCa);
    version_3(&folder, "silent", |params| params.is_ca = IsCa::NoCa);
    version_3(&folder, "names", |params| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("example.org".into())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    });
    let names = ["ca", "plain", "usage", "last", "lists", "none", "silent", "names"];
    let broker = trusting(folder, &names, "");
    each_gets(&broker, &[("plain", None), ("usage", None), ("last", None)]);
    let unknown = Some("UnknownIssuer");
    each_gets(&broker, &[("lists", unknown), ("none", unknown), ("silent", unknown), ("names", unknown)]);
}

fn out_of_date(folder: &Folder) {
    version_3(folder, "past", |params| params.not_after = date_time_ymd(2020, 1, 1));
    version_3(folder, "future", |params| params.not_before = date_time_ymd(2090, 1, 1));
    version_3(folder, "none", |params| params.is_ca = IsCa::ExplicitNoCa);
}

#[test]
fn an_authority_has_a_time_outside_of_which_it_is_none() {
    let folder = house();
    out_of_date(&folder);
    let broker = trusting(folder, &["ca", "past", "future"], "");
    each_gets(&broker, &[("past", Some("Expired")), ("future", Some("NotValidYet"))]);
}

#[test]
fn without_date_checks_those_of_the_authority_do_not_matter_either_and_all_else_does() {
    let folder = house();
    out_of_date(&folder);
    let broker = trusting(folder, &["ca", "past", "future", "none"], "disable_client_cert_date_checks true\n");
    each_gets(&broker, &[("past", None), ("future", None), ("none", Some("UnknownIssuer"))]);
}

#[test]
fn an_authority_that_was_renewed_under_its_name_and_key_is_the_one_that_is_good() {
    let folder = house();
    let issuer = version_3(&folder, "now", |_| {});
    let mut former = CertificateParams::new([]).expect("no names");
    former.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    former.distinguished_name.push(DnType::CommonName, "now");
    former.not_after = date_time_ymd(2020, 1, 1);
    folder.write("former.crt", former.self_signed(issuer.key()).expect("signed").pem());
    let broker = trusting(folder, &["former", "now"], "");
    each_gets(&broker, &[("now", None)]);
}

#[test]
fn a_key_that_is_not_the_certificates_is_noticed() {
    let folder = house();
    sign(&folder, "ca", "anna", RSA, "anna", 365);
    sign(&folder, "ca", "thief", RSA, "thief", 365);
    let broker = start(folder, "cafile {folder}/ca.crt\nrequire_certificate true\nallow_anonymous true\n");
    // openssl refuses to send them together, so a client of our own does.
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let error = super::raw::shake_hands(&broker, version, "anna.crt", "thief.key").expect_err("anna's certificate, the thief's key");
        assert!(error.contains("DecryptError") || error.contains("alert") || error.contains("BadSignature"), "{error}");
        super::raw::shake_hands(&broker, version, "anna.crt", "anna.key").expect("anna herself");
    }
}

/// A list that is good for long.
fn list(serials: Vec<SerialNumber>, key: &[u8]) -> CertificateRevocationListParams {
    CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials
            .into_iter()
            .map(|serial_number| RevokedCertParams {
                serial_number,
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::PreSpecified(key.to_vec()),
    }
}

#[test]
fn the_revocation_list_is_heeded() {
    let folder = house();
    sign(&folder, "ca", "anna", RSA, "anna", 365);
    sign(&folder, "ca", "bert", RSA, "bert", 365);
    let serial = |name: &str| {
        let shown =
            run(Command::new("openssl").current_dir(folder.path()).args(["x509", "-noout", "-serial", "-in", &format!("{name}.crt")]));
        let digits = shown.1.trim().trim_start_matches("serial=").to_owned();
        let bytes = digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"));
        SerialNumber::from(bytes.collect::<Vec<_>>())
    };
    let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
    let issuer = Issuer::from_ca_cert_pem(
        &text("ca.crt"),
        KeyPair::from_pem_and_sign_algo(&text("ca.key"), &rcgen::PKCS_RSA_SHA256).expect("a key"),
    );
    let issuer = issuer.expect("the authority");
    // As openssl has named the key in the authority's certificate.
    let der = darner::tls::certificates(text("ca.crt").as_bytes()).expect("a certificate").remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
    let key = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0.to_vec()),
        _ => None,
    });
    let key = key.expect("its name");
    folder.write("ca.crl", list(vec![serial("bert")], &key).signed_by(&issuer).expect("signed").pem().expect("text"));
    let both = list(vec![serial("bert"), serial("anna")], &key).signed_by(&issuer).expect("signed").pem().expect("text");
    let more = "cafile {folder}/ca.crt\ncrlfile {folder}/ca.crl\nrequire_certificate true\nallow_anonymous true\n";
    let broker = start(folder, more);
    assert_eq!(publish(&broker, Some("anna"), "a"), 0, "{}", broker.log());
    assert_ne!(publish(&broker, Some("bert"), "a"), 0);
    broker.wait_for_log("Revoked");
    broker.folder.write("ca.crl", both);
    broker.signal(Signal::SIGHUP);
    wait_until("the new list", || publish(&broker, Some("anna"), "a") != 0);
}

#[test]
fn a_broker_of_another_name_is_refused_by_our_tools_unless_they_are_insecure() {
    let folder = house();
    sign(&folder, "ca", "elsewhere", RSA, "elsewhere.example", 365);
    let conf = "listener {port} 127.0.0.1\ncertfile {folder}/elsewhere.crt\nkeyfile {folder}/elsewhere.key\nallow_anonymous true\n";
    let broker = Broker::start_in(folder, conf);
    let attempt = |more: &[&str]| {
        let mut tool = ours();
        tool.args(["-h", "localhost", "-p", &broker.port.to_string(), "-t", "a", "-m", "b"]).args(more);
        run(tool.arg("--cafile").arg(path(&broker, "ca.crt"))).0
    };
    assert_ne!(attempt(&[]), 0);
    assert_eq!(attempt(&["--insecure"]), 0);
}
