//! TLS listeners of the real binary, with Debian's clients and certificates made here.

mod by_itself;
mod dates;
mod handed;
mod judged;
pub mod raw;
mod reload;
mod version_1;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::support::peer::debian;
use crate::support::process::{Broker, Folder, darner, free_port, run, wait_until};

/// A certificate authority whose files lie in the folder of a test.
pub struct Authority {
    name: &'static str,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(folder: &Folder, name: &'static str) -> Self {
        Self::under(folder, name, None)
    }

    fn under(folder: &Folder, name: &'static str, above: Option<&Self>) -> Self {
        Self::with(folder, name, above, KeyPair::generate().expect("a key"), |_| {})
    }

    /// `key`: of another, for one that was renewed.
    fn with(folder: &Folder, name: &'static str, above: Option<&Self>, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let certificate = match above {
            None => params.self_signed(&key),
            Some(above) => params.signed_by(&key, &above.issuer),
        };
        folder.write(&format!("{name}.crt"), certificate.expect("signed").pem());
        Self { name, issuer: Issuer::new(params, key) }
    }

    /// `NAME.crt` and `NAME.key`.
    pub fn sign(&self, folder: &Folder, name: &str, common_name: Option<&str>, serial: u64) {
        self.sign_with(folder, name, common_name, serial, |_| {});
    }

    fn sign_with(&self, folder: &Folder, name: &str, common_name: Option<&str>, serial: u64, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "darner, tests");
        if let Some(common_name) = common_name {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        folder.write(&format!("{name}.crt"), certificate.pem());
        folder.write(&format!("{name}.key"), key.serialize_pem());
    }

    pub(super) fn revoke(&self, folder: &Folder, serials: &[u64]) {
        self.revoke_until(folder, serials, 2090);
    }

    fn revoke_until(&self, folder: &Folder, serials: &[u64], year: i32) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        folder.write(&format!("{}.crl", self.name), list.signed_by(&self.issuer).expect("signed").pem().expect("text"));
    }
}

const LISTENER: &str = "listener {port} 127.0.0.1\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\n";

pub fn folder() -> (Folder, Authority) {
    let folder = Folder::new("tls");
    let authority = Authority::new(&folder, "ca");
    authority.sign(&folder, "server", Some("localhost"), 1);
    (folder, authority)
}

fn start(folder: Folder, more: &str) -> Broker {
    Broker::start_in(folder, &format!("{LISTENER}{more}"))
}

fn path(broker: &Broker, name: &str) -> PathBuf {
    broker.folder.path().join(name)
}

/// Debian's client with the authority's certificate, and one of its own where it is named.
fn client(broker: &Broker, tool: &str, certificate: Option<&str>) -> Command {
    let mut client = debian(tool);
    client.args(["-h", "localhost", "-p", &broker.port.to_string(), "--cafile"]).arg(path(broker, "ca.crt"));
    if let Some(name) = certificate {
        client.arg("--cert").arg(path(broker, &format!("{name}.crt"))).arg("--key").arg(path(broker, &format!("{name}.key")));
    }
    client
}

fn ours() -> Command {
    let mut command = Command::new(darner());
    command.arg("mosquitto_pub");
    command
}

fn publish(broker: &Broker, certificate: Option<&str>, topic: &str) -> i32 {
    run(client(broker, "mosquitto_pub", certificate).args(["-q", "1", "-t", topic, "-m", "hello"])).0
}

fn subscribe(broker: &Broker, certificate: Option<&str>, arguments: &[&str]) -> Child {
    let mut client = client(broker, "mosquitto_sub", certificate);
    client.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the client is installed")
}

fn output(child: Child) -> String {
    String::from_utf8_lossy(&child.wait_with_output().expect("it ends").stdout).into_owned()
}

#[test]
fn messages_go_both_ways_small_and_large() {
    let (folder, _) = folder();
    let broker = start(folder, "allow_anonymous true\nlog_type all\n");
    let large = "x".repeat(700_000);
    let file = broker.folder.write("large", &large);
    let subscriber = subscribe(&broker, None, &["-i", "reader", "-q", "1", "-t", "a/#", "-C", "3", "-W", "20"]);
    broker.wait_for_log("Sending SUBACK to reader");
    assert_eq!(publish(&broker, None, "a/1"), 0);
    assert_eq!(run(client(&broker, "mosquitto_pub", None).args(["-q", "2", "-t", "a/2", "-f"]).arg(file)).0, 0);
    assert_eq!(publish(&broker, None, "a/3"), 0);
    assert_eq!(output(subscriber), format!("hello\n{large}\nhello\n"));
    let clean = run(client(&broker, "mosquitto_sub", None).args(["--tls-version", "tlsv1.2", "-t", "a", "-W", "1"]));
    assert_eq!(clean.0, 27, "{}", clean.2);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_client_that_trusts_another_authority_stays_away() {
    let (folder, _) = folder();
    Authority::new(&folder, "other");
    let broker = start(folder, "allow_anonymous true\n");
    let port = broker.port.to_string();
    let stranger = run(debian("mosquitto_pub")
        .args(["-h", "localhost", "-p", &port, "-t", "a", "-m", "b", "--cafile"])
        .arg(path(&broker, "other.crt")));
    assert_ne!(stranger.0, 0);
    let plain = run(debian("mosquitto_pub").args(["-h", "localhost", "-p", &port, "-t", "a", "-m", "b"]));
    assert_ne!(plain.0, 0, "a client without TLS is no client of this listener");
    broker.wait_for_log("TLS handshake: ");
    assert_eq!(publish(&broker, None, "a"), 0);
}

#[test]
fn require_certificate_lets_in_only_those_of_the_authority() {
    let (folder, authority) = folder();
    authority.sign(&folder, "client", Some("anna"), 2);
    Authority::new(&folder, "other").sign(&folder, "stranger", Some("anna"), 3);
    let broker = start(folder, "allow_anonymous true\ncafile {folder}/ca.crt\nrequire_certificate true\n");
    assert_eq!(publish(&broker, Some("client"), "a"), 0);
    assert_ne!(publish(&broker, None, "a"), 0);
    assert_ne!(publish(&broker, Some("stranger"), "a"), 0);
}

#[test]
fn each_authority_of_the_file_counts() {
    let (folder, first) = folder();
    first.sign(&folder, "anna", Some("anna"), 2);
    Authority::new(&folder, "other").sign(&folder, "berta", Some("berta"), 3);
    let both = ["ca.crt", "other.crt"].map(|name| std::fs::read_to_string(folder.path().join(name)).expect("a certificate"));
    folder.write("both.crt", both.concat());
    let broker = start(folder, "allow_anonymous true\ncafile {folder}/both.crt\nrequire_certificate true\n");
    assert_eq!(["anna", "berta"].map(|name| publish(&broker, Some(name), "a")), [0, 0]);
}

#[test]
fn a_lone_certificate_is_sent_with_those_that_signed_it() {
    let (folder, authority) = folder();
    Authority::under(&folder, "middle", Some(&authority)).sign(&folder, "server", Some("localhost"), 4);
    let broker = start(folder, "allow_anonymous true\ncafile {folder}/middle.crt\n");
    assert_eq!(publish(&broker, None, "a"), 0);
}

#[test]
fn a_revoked_certificate_is_refused() {
    let (folder, authority) = folder();
    authority.sign(&folder, "good", Some("good"), 2);
    authority.sign(&folder, "revoked", Some("revoked"), 3);
    authority.revoke(&folder, &[3]);
    let broker = start(folder, "allow_anonymous true\ncafile {folder}/ca.crt\ncrlfile {folder}/ca.crl\nrequire_certificate true\n");
    assert_eq!(publish(&broker, Some("good"), "a"), 0);
    assert_ne!(publish(&broker, Some("revoked"), "a"), 0);
    broker.wait_for_log("Revoked");
}

#[test]
fn a_newer_list_takes_the_place_of_the_one_that_it_is_appended_to() {
    let (folder, authority) = folder();
    authority.sign(&folder, "good", Some("good"), 2);
    authority.sign(&folder, "revoked", Some("revoked"), 3);
    authority.revoke_until(&folder, &[], 2021);
    let former = std::fs::read_to_string(folder.path().join("ca.crl")).expect("a list");
    authority.revoke(&folder, &[3]);
    let now = std::fs::read_to_string(folder.path().join("ca.crl")).expect("a list");
    folder.write("ca.crl", former + &now);
    let broker = start(folder, "allow_anonymous true\ncafile {folder}/ca.crt\ncrlfile {folder}/ca.crl\nrequire_certificate true\n");
    assert_eq!(publish(&broker, Some("good"), "a"), 0, "{}", broker.log());
    assert_ne!(publish(&broker, Some("revoked"), "a"), 0);
    broker.wait_for_log("Revoked");
}

#[test]
fn the_name_in_the_certificate_is_the_user_name() {
    let (folder, authority) = folder();
    authority.sign(&folder, "anna", Some("anna"), 2);
    authority.sign(&folder, "nameless", None, 3);
    folder.write("acl", "user anna\ntopic read #\ntopic write anna/#\n");
    let more = "cafile {folder}/ca.crt\nrequire_certificate true\nuse_identity_as_username true\nacl_file {folder}/acl\nlog_type all\n";
    let broker = start(folder, more);
    let subscriber = subscribe(&broker, Some("anna"), &["-i", "reader", "-u", "somebody", "-t", "#", "-F", "%t", "-C", "1", "-W", "20"]);
    broker.wait_for_log("Sending SUBACK to reader");
    broker.wait_for_log("u'anna'");
    publish(&broker, Some("anna"), "bert/1");
    assert_eq!(publish(&broker, Some("anna"), "anna/1"), 0);
    assert_eq!(output(subscriber), "anna/1\n");
    let (code, _, said) = run(client(&broker, "mosquitto_pub", Some("nameless")).args(["-t", "a", "-m", "b"]));
    assert_eq!(code, 4, "as mosquitto: {said}");
}

#[test]
fn the_whole_subject_can_be_the_user_name() {
    let (folder, authority) = folder();
    authority.sign(&folder, "anna", Some("anna+b"), 2);
    let broker = start(folder, "cafile {folder}/ca.crt\nrequire_certificate true\nuse_subject_as_username true\n");
    assert_eq!(publish(&broker, Some("anna"), "a"), 0);
    broker.wait_for_log(r"u'CN=anna\+b,O=darner\, tests'");
}

#[test]
fn an_identity_is_asked_for_where_no_certificate_is_required() {
    let (folder, _) = folder();
    let broker = start(folder, "allow_anonymous true\nuse_identity_as_username true\n");
    assert_eq!(publish(&broker, None, "a"), 4);
}

#[test]
fn tls_version_and_ciphers_are_a_lower_bound_and_a_choice() {
    let (folder, _) = folder();
    let broker = start(folder, "allow_anonymous true\ntls_version tlsv1.3\nciphers_tls1.3 TLS_AES_128_GCM_SHA256\n");
    let address = format!("127.0.0.1:{}", broker.port);
    let attempt = |arguments: &[&str]| {
        let (code, said, _) = run(Command::new("openssl").args(["s_client", "-connect", &address]).args(arguments));
        (code == 0, said)
    };
    assert!(!attempt(&["-tls1_2"]).0);
    let (worked, said) = attempt(&["-tls1_3"]);
    assert!(worked && said.contains("TLS_AES_128_GCM_SHA256"), "{said}");
    assert!(!attempt(&["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"]).0);
}

#[test]
fn silent_clients_hold_up_nobody() {
    let (folder, _) = folder();
    let broker = start(folder, "allow_anonymous true\n");
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", broker.port)).expect("accepted")).collect();
    assert_eq!(publish(&broker, None, "a"), 0);
    let mut garbage = TcpStream::connect(("127.0.0.1", broker.port)).expect("accepted");
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("taken");
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer);
    assert_eq!(publish(&broker, None, "a"), 0);
    drop(silent);
}

/// What `openssl s_client` is shown.
fn serial(broker: &Broker) -> String {
    let shown = run(Command::new("openssl").args(["s_client", "-connect", &format!("127.0.0.1:{}", broker.port)])).1;
    let file = broker.folder.write("shown", shown);
    run(Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(file)).1.trim().to_owned()
}

#[test]
fn a_reload_swaps_the_certificate_and_drops_nobody() {
    let (folder, authority) = folder();
    let broker = start(folder, "allow_anonymous true\nlog_type all\n");
    let subscriber = subscribe(&broker, None, &["-i", "reader", "-t", "a", "-C", "1", "-W", "20"]);
    broker.wait_for_log("Sending SUBACK to reader");
    assert_eq!(serial(&broker), "serial=01");
    authority.sign(&broker.folder, "server", Some("localhost"), 0x22);
    broker.signal(Signal::SIGHUP);
    wait_until("the new certificate", || serial(&broker) == "serial=22");
    assert_eq!(publish(&broker, None, "a"), 0);
    assert_eq!(output(subscriber), "hello\n");
    assert_eq!(broker.log().matches("New client connected from").count(), 2);
}

#[test]
fn a_pair_that_does_not_belong_together_changes_nothing() {
    let (folder, authority) = folder();
    authority.sign(&folder, "other", Some("localhost"), 0x33);
    let broker = start(folder, "allow_anonymous true\n");
    std::fs::copy(path(&broker, "other.crt"), path(&broker, "server.crt")).expect("copied");
    broker.signal(Signal::SIGHUP);
    broker.wait_for_log("Error: Server certificate/key are inconsistent.");
    broker.wait_for_log("goes on with the one it has");
    assert_eq!(serial(&broker), "serial=01");
    assert_eq!(publish(&broker, None, "a"), 0);
    std::fs::copy(path(&broker, "other.key"), path(&broker, "server.key")).expect("copied");
    broker.signal(Signal::SIGHUP);
    wait_until("the new certificate", || serial(&broker) == "serial=33");
}

#[test]
fn what_cannot_be_loaded_is_said_in_mosquittos_words_and_is_1() {
    let (folder, authority) = folder();
    authority.sign(&folder, "other", Some("localhost"), 2);
    folder.write("garbage", "not a certificate");
    let here = folder.path().display().to_string();
    let pair = |certificate: &str, key: &str| format!("certfile {here}/{certificate}\nkeyfile {here}/{key}\n");
    let good = pair("server.crt", "server.key");
    let cases = [
        (pair("none.crt", "server.key"), format!("Error: Unable to load server certificate \"{here}/none.crt\". Check certfile."), 1),
        (pair("garbage", "server.key"), format!("Error: Unable to load server certificate \"{here}/garbage\". Check certfile."), 1),
        (pair("server.crt", "none.key"), format!("Error: Unable to load server key file \"{here}/none.key\". Check keyfile."), 1),
        (pair("server.crt", "garbage"), format!("Error: Unable to load server key file \"{here}/garbage\". Check keyfile."), 1),
        (pair("server.crt", "other.key"), "Error: Server certificate/key are inconsistent.".to_owned(), 1),
        (format!("{good}cafile {here}/none\n"), format!("Error: Unable to load CA certificates. Check cafile \"{here}/none\"."), 1),
        (
            format!("{good}crlfile {here}/none\n"),
            format!("Error: Unable to load certificate revocation file \"{here}/none\". Check crlfile."),
            1,
        ),
        (format!("{good}require_certificate true\n"), "Error: Unable to check client certificates".to_owned(), 1),
        (format!("{good}tls_version ssl\n"), "Error: Unsupported tls_version \"ssl\".".to_owned(), 1),
        (format!("{good}ciphers RC4\n"), "Error: Unable to set TLS ciphers. Check cipher list \"RC4\".".to_owned(), 1),
        (format!("certfile {here}/server.crt\n"), "has certfile without keyfile".to_owned(), 3),
    ];
    for (lines, sentence, expected) in cases {
        let conf = folder.write("mosquitto.conf", format!("listener {} 127.0.0.1\n{lines}", free_port()));
        let (code, _, said) = run(Command::new(darner()).args(["broker", "-c"]).arg(&conf));
        assert!(said.contains(&sentence), "{sentence}\n{said}");
        assert_eq!(code, expected, "{said}");
        let (code, said, _) = run(Command::new(darner()).args(["check", "-c"]).arg(&conf));
        assert!(said.contains(&sentence) && code == expected, "check says {code}: {said}");
    }
}
