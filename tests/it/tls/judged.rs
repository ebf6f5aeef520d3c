//! Each case is judged by `openssl verify`, too: whom mosquitto lets in comes in, and nobody else.

use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use darner::tls::lists::Lists;
use darner::tls::trust::{Purpose, Rules, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    SigningKey as _, date_time_ymd,
};
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

use super::version_1::openssl;
use crate::support::process::{Folder, run};

struct Cases {
    folder: Folder,
    /// `true`: the peer is a broker and we are its client.
    of_brokers: bool,
    without_dates: bool,
    failed: Vec<String>,
}

struct Signer(Issuer<'static, KeyPair>);

fn authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

impl Cases {
    fn new() -> Self {
        Self { folder: Folder::new("judged"), of_brokers: false, without_dates: false, failed: Vec::new() }
    }

    /// `NAME.crt` with the subject `common_name`, signed by `by` or itself with `key`.
    fn make(
        &self,
        (name, common_name): (&str, &str),
        by: Option<&Signer>,
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Signer {
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let certificate = match by {
            Some(Signer(issuer)) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        };
        self.folder.write(&format!("{name}.crt"), certificate.expect("signed").pem());
        self.folder.write(&format!("{name}.key"), key.serialize_pem());
        Signer(Issuer::new(params, key))
    }

    fn certificate(&self, name: &str, by: Option<&Signer>, change: impl FnOnce(&mut CertificateParams)) -> Signer {
        self.make((name, name), by, KeyPair::generate().expect("a key"), change)
    }

    /// Of version 1.
    fn plain(&self, name: &str, by: &str) {
        openssl(
            &self.folder,
            &format!("req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout {name}.key -out {name}.csr -subj /CN={name}"),
        );
        openssl(&self.folder, &format!("x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.key -CAcreateserial -out {name}.crt -days 30"));
    }

    fn write_list(&self, name: &str, list: CertificateRevocationListParams, signer: &Signer) {
        self.folder.write(&format!("{name}.crl"), list.signed_by(&signer.0).expect("signed").pem().expect("text"));
    }

    fn read(&self, names: &str, ending: &str) -> String {
        let paths = names.split_whitespace().map(|name| self.folder.path().join(format!("{name}.{ending}")));
        paths.map(|path| std::fs::read_to_string(path).expect("a file of the case")).collect()
    }

    /// What we say, and what openssl says.
    fn verdicts(&self, trusted: &str, sent: &str, leaf: &str, lists: &str) -> (Result<(), CertificateError>, (bool, String)) {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let certificates = |names: &str| darner::tls::certificates(self.read(names, "crt").as_bytes()).expect("certificates");
        let purpose = if self.of_brokers { Purpose::Server } else { Purpose::Client };
        let mut trust = Trust::new(purpose, algorithms);
        let all = certificates(trusted);
        for one in all.clone() {
            trust.add(one).expect("a certificate");
        }
        let known = (!lists.is_empty()).then(|| Lists::read(self.read(lists, "crl").as_bytes(), all.iter()).expect("lists"));
        let rules = Rules { lists: known.as_ref(), without_dates: self.without_dates, now: UnixTime::now() };
        let ours = trust.judge(&certificates(leaf)[0], &certificates(sent), rules);

        let file = |name: &str, text: String| self.folder.write(name, text).display().to_string();
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-purpose", if self.of_brokers { "sslserver" } else { "sslclient" }]);
        openssl.args(["-no-CApath", "-no-CAstore", "-CAfile", &file("all.pem", self.read(trusted, "crt"))]);
        if self.without_dates {
            openssl.arg("-no_check_time");
        }
        if !sent.is_empty() {
            openssl.args(["-untrusted", &file("sent.pem", self.read(sent, "crt"))]);
        }
        if !lists.is_empty() {
            openssl.args(["-crl_check", "-CRLfile", &file("lists.pem", self.read(lists, "crl"))]);
        }
        let (code, _, said) = run(openssl.arg(self.folder.path().join(format!("{leaf}.crt"))));
        (ours, (code == 0, said))
    }

    /// `trusted`, `sent` and `lists` are names with spaces between them.
    fn case(&mut self, [trusted, sent, leaf, lists]: [&str; 4], expected: Result<(), &str>) {
        let (ours, (theirs, said)) = self.verdicts(trusted, sent, leaf, lists);
        let shown = ours.as_ref().err().map(|error| format!("{error:?}"));
        if shown.as_deref() != expected.err() || theirs != expected.is_ok() {
            self.failed.push(format!(
                "{leaf} with [{sent}], trusted [{trusted}], lists [{lists}]: we {shown:?}, openssl {theirs} {said}, expected {expected:?}"
            ));
        }
    }

    fn end(self) {
        assert!(self.failed.is_empty(), "{:#?}", self.failed);
    }
}

const UNKNOWN: Result<(), &str> = Err("UnknownIssuer");
const NO_AUTHORITY: Result<(), &str> = Err("Other(OtherError(EndEntityUsedAsCa))");
const PURPOSE: Result<(), &str> = Err("InvalidPurpose");

#[test]
fn who_is_no_authority_vouches_for_himself_only() {
    let mut cases = Cases::new();
    let ca = cases.certificate("ca", None, authority);
    cases.certificate("leaf", Some(&ca), |_| {});
    let alone = cases.certificate("alone", None, |_| {});
    let silent = cases.certificate("silent", None, |params| params.is_ca = IsCa::NoCa);
    let usage = cases.certificate("usage", None, |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let member = cases.certificate("member", Some(&ca), |_| {});
    for (name, by) in [("of-alone", &alone), ("of-silent", &silent), ("of-usage", &usage), ("of-member", &member)] {
        cases.certificate(name, Some(by), |_| {});
    }
    cases.case(["ca", "", "leaf", ""], Ok(()));
    cases.case(["alone", "", "leaf", ""], UNKNOWN);
    for (trusted, leaf) in [("alone", "of-alone"), ("silent", "of-silent"), ("usage", "of-usage")] {
        cases.case([trusted, "", leaf, ""], UNKNOWN);
    }
    for (trusted, sent) in [("member", ""), ("ca member", ""), ("ca", "member")] {
        cases.case([trusted, sent, "of-member", ""], NO_AUTHORITY);
    }
    for itself in ["ca", "alone", "silent"] {
        cases.case([itself, "", itself, ""], Ok(()));
        cases.case(["ca leaf", "", "leaf", ""], Ok(()));
    }
    cases.case(["usage", "", "usage", ""], PURPOSE);
    cases.case(["ca", "", "alone", ""], UNKNOWN);
    // Signed by somebody: whoever trusts it has to trust him.
    cases.case(["leaf", "", "leaf", ""], UNKNOWN);
    cases.case(["alone", "alone", "of-alone", ""], NO_AUTHORITY);
    // The same name and key make no other certificate of it.
    let key = || KeyPair::from_pem(&alone.0.key().serialize_pem()).expect("its key");
    cases.make(("twin", "alone"), None, key(), |_| {});
    cases.make(("able-twin", "alone"), None, key(), authority);
    cases.case(["alone", "", "twin", ""], UNKNOWN);
    cases.case(["alone", "", "able-twin", ""], UNKNOWN);
    let key = KeyPair::from_pem(&ca.0.key().serialize_pem()).expect("its key");
    cases.make(("twin-of-ca", "ca"), None, key, |_| {});
    let key = KeyPair::from_pem(&ca.0.key().serialize_pem()).expect("its key");
    cases.make(("able-twin-of-ca", "ca"), None, key, authority);
    cases.case(["ca", "", "twin-of-ca", ""], UNKNOWN);
    cases.case(["ca", "", "able-twin-of-ca", ""], UNKNOWN);
    cases.end();
}

#[test]
fn a_way_leads_to_a_root_over_those_who_may_stand_between() {
    let mut cases = Cases::new();
    let ca = cases.certificate("ca", None, authority);
    let middle = cases.certificate("middle", Some(&ca), authority);
    let low = cases.certificate("low", Some(&middle), |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let lowest = cases.certificate("lowest", Some(&low), authority);
    for (name, by) in [("of-middle", &middle), ("of-low", &low), ("of-lowest", &lowest)] {
        cases.certificate(name, Some(by), |_| {});
        // One that could sign others is a leaf all the same.
        cases.certificate(&format!("ca-{name}"), Some(by), authority);
        cases.plain(&format!("plain-{name}"), name.trim_start_matches("of-"));
    }
    for kind in ["", "ca-", "plain-"] {
        let leaf = |name: &str| format!("{kind}{name}");
        cases.case(["ca", "middle", &leaf("of-middle"), ""], Ok(()));
        cases.case(["ca", "", &leaf("of-middle"), ""], UNKNOWN);
        cases.case(["ca middle", "", &leaf("of-middle"), ""], Ok(()));
        cases.case(["middle", "", &leaf("of-middle"), ""], UNKNOWN);
        cases.case(["ca", "low middle", &leaf("of-low"), ""], Ok(()));
        cases.case(["ca", "low", &leaf("of-low"), ""], UNKNOWN);
        let too_long = if kind.is_empty() { Err("Other(OtherError(PathLenConstraintViolated))") } else { PURPOSE };
        cases.case(["ca", "lowest low middle", &leaf("of-lowest"), ""], too_long);
    }
    // Of the root, too.
    let last = cases.certificate("last", None, |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let below = cases.certificate("below", Some(&last), authority);
    cases.certificate("of-last", Some(&last), |_| {});
    cases.certificate("of-below", Some(&below), |_| {});
    cases.plain("plain-of-below", "below");
    cases.case(["last", "", "of-last", ""], Ok(()));
    cases.case(["last", "below", "of-below", ""], PURPOSE);
    cases.case(["last", "below", "plain-of-below", ""], PURPOSE);
    cases.end();
}

#[test]
fn of_version_1_only_a_root_signs() {
    let mut cases = Cases::new();
    openssl(&cases.folder, "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout root.key -out root.csr -subj /CN=root");
    openssl(&cases.folder, "x509 -req -in root.csr -signkey root.key -out root.crt -days 30");
    cases.plain("member", "root");
    cases.plain("of-member", "member");
    let signer = |cases: &Cases, name: &str| {
        let key = KeyPair::from_pem(&cases.read(name, "key")).expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Signer(Issuer::new(params, key))
    };
    cases.certificate("three-of-root", Some(&signer(&cases, "root")), |params| params.use_authority_key_identifier_extension = false);
    cases.certificate("three-of-member", Some(&signer(&cases, "member")), |params| params.use_authority_key_identifier_extension = false);
    for leaf in ["member", "three-of-root", "root"] {
        cases.case(["root", "", leaf, ""], Ok(()));
    }
    for (leaf, reason) in [("of-member", UNKNOWN), ("three-of-member", Err("Other(OtherError(UnsupportedCertVersion))"))] {
        for (trusted, sent) in [("member", ""), ("root member", ""), ("root", "member")] {
            cases.case([trusted, sent, leaf, ""], reason);
        }
    }
    cases.end();
}

#[test]
fn a_key_is_for_what_its_certificate_says() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    use KeyUsagePurpose::{DataEncipherment, DigitalSignature, KeyAgreement, KeyEncipherment};
    let mut cases = Cases::new();
    let ca = cases.certificate("ca", None, authority);
    let extended = |usages: Vec<ExtendedKeyUsagePurpose>| move |params: &mut CertificateParams| params.extended_key_usages = usages;
    let usage = |usage: KeyUsagePurpose| move |params: &mut CertificateParams| params.key_usages = vec![usage];
    cases.certificate("clients", Some(&ca), extended(vec![ClientAuth]));
    cases.certificate("servers", Some(&ca), extended(vec![ServerAuth]));
    cases.certificate("both", Some(&ca), extended(vec![ServerAuth, ClientAuth]));
    cases.certificate("signs", Some(&ca), usage(DigitalSignature));
    cases.certificate("agrees", Some(&ca), usage(KeyAgreement));
    cases.certificate("enciphers", Some(&ca), usage(KeyEncipherment));
    cases.certificate("data", Some(&ca), usage(DataEncipherment));
    // Netscape's certificate type: a bit string of one bit.
    for (name, bits) in [("netscape-client", [3, 2, 7, 0x80]), ("netscape-server", [3, 2, 6, 0x40])] {
        let content = CustomExtension::from_oid_content(&[2, 16, 840, 1, 113_730, 1, 1], bits.to_vec());
        cases.certificate(name, Some(&ca), |params| params.custom_extensions = vec![content]);
    }
    for (name, usages) in [("client-ca", vec![ClientAuth]), ("server-ca", vec![ServerAuth]), ("both-ca", vec![ServerAuth, ClientAuth])] {
        let change = |params: &mut CertificateParams| {
            authority(params);
            params.extended_key_usages = usages;
        };
        let root = cases.certificate(name, None, change);
        cases.certificate(&format!("of-{name}"), Some(&root), |_| {});
        cases.plain(&format!("plain-of-{name}"), name);
    }
    let given = |ok: bool| if ok { Ok(()) } else { PURPOSE };
    for of_brokers in [false, true] {
        cases.of_brokers = of_brokers;
        cases.case(["ca", "", "clients", ""], given(!of_brokers));
        cases.case(["ca", "", "servers", ""], given(of_brokers));
        cases.case(["ca", "", "enciphers", ""], given(of_brokers));
        cases.case(["ca", "", "netscape-client", ""], given(!of_brokers));
        cases.case(["ca", "", "netscape-server", ""], given(of_brokers));
        for leaf in ["both", "signs", "agrees"] {
            cases.case(["ca", "", leaf, ""], Ok(()));
        }
        cases.case(["ca", "", "data", ""], PURPOSE);
        let of_root = |ok: bool| if ok { Ok(()) } else { UNKNOWN };
        for kind in ["of-", "plain-of-"] {
            cases.case(["client-ca", "", &format!("{kind}client-ca"), ""], of_root(!of_brokers));
            cases.case(["server-ca", "", &format!("{kind}server-ca"), ""], of_root(of_brokers));
            cases.case(["both-ca", "", &format!("{kind}both-ca"), ""], Ok(()));
        }
    }
    cases.end();
}

#[test]
fn everything_on_the_way_is_in_time() {
    let mut cases = Cases::new();
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2090, 1, 1);
    let ca = cases.certificate("ca", None, authority);
    cases.certificate("late", Some(&ca), past);
    cases.certificate("early", Some(&ca), future);
    cases.certificate("alone-late", None, past);
    cases.case(["ca", "", "late", ""], Err("Expired"));
    cases.case(["ca", "", "early", ""], Err("NotValidYet"));
    cases.case(["alone-late", "", "alone-late", ""], Err("Expired"));
    let middle = cases.certificate("middle", Some(&ca), |params| {
        authority(params);
        past(params);
    });
    cases.certificate("of-middle", Some(&middle), |_| {});
    cases.plain("plain-of-middle", "middle");
    for leaf in ["of-middle", "plain-of-middle"] {
        cases.case(["ca", "middle", leaf, ""], Err("Expired"));
        cases.case(["ca middle", "", leaf, ""], Err("Expired"));
    }
    // A root that has run out is none, whoever it has signed stands beside it.
    let root = cases.certificate("root", None, |params| {
        authority(params);
        past(params);
    });
    let good = cases.certificate("good", Some(&root), authority);
    cases.certificate("of-good", Some(&good), |_| {});
    cases.plain("plain-of-good", "good");
    for leaf in ["of-good", "plain-of-good"] {
        cases.case(["root good", "", leaf, ""], Err("Expired"));
    }
    // Renewed under its name and key.
    let key = KeyPair::from_pem(&root.0.key().serialize_pem()).expect("its key");
    cases.make(("renewed", "root"), None, key, authority);
    for leaf in ["of-good", "plain-of-good"] {
        cases.case(["root renewed", "good", leaf, ""], Ok(()));
    }
    cases.without_dates = true;
    cases.certificate("late-of-middle", Some(&middle), past);
    for (sent, leaf) in [("", "late"), ("", "early"), ("middle", "of-middle"), ("middle", "plain-of-middle"), ("middle", "late-of-middle")]
    {
        cases.case(["ca", sent, leaf, ""], Ok(()));
        cases.case(["root", sent, leaf, ""], UNKNOWN);
    }
    cases.case(["root good", "", "of-good", ""], Ok(()));
    cases.case(["alone-late", "", "alone-late", ""], Ok(()));
    cases.end();
}

/// A list of `serials`, from and until January of these years.
fn list((since, until): (i32, i32), serials: &[u64]) -> CertificateRevocationListParams {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2019, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: date_time_ymd(since, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

/// A list of version 1 as DER by hand, since rcgen writes none, with or without an end.
fn plain_list(signer: &Signer, common_name: &str, ends: bool, serials: &[u8]) -> String {
    fn tlv(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
        let content = parts.concat();
        let mut bytes = vec![tag];
        match u8::try_from(content.len()) {
            Ok(len) if len < 128 => bytes.push(len),
            _ => bytes.extend([0x82, (content.len() >> 8) as u8, content.len() as u8]),
        }
        bytes.extend(content);
        bytes
    }
    let time = |text: &str| tlv(0x17, &[text.as_bytes().to_vec()]);
    let algorithm = tlv(0x30, &[tlv(0x06, &[vec![0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]])]);
    let name = tlv(0x30, &[tlv(0x06, &[vec![0x55, 4, 3]]), tlv(0x0c, &[common_name.as_bytes().to_vec()])]);
    let name = tlv(0x30, &[tlv(0x31, &[name])]);
    let entry = |serial: &u8| tlv(0x30, &[tlv(0x02, &[vec![*serial]]), time("190101000000Z")]);
    let revoked: Vec<_> = serials.iter().map(entry).collect();
    let end = if ends { time("490101000000Z") } else { Vec::new() };
    let revoked = if revoked.is_empty() { Vec::new() } else { tlv(0x30, &revoked) };
    let body = tlv(0x30, &[algorithm.clone(), name, time("200101000000Z"), end, revoked]);
    let signature = signer.0.key().sign(&body).expect("signed");
    let der = tlv(0x30, &[body, algorithm, tlv(0x03, &[vec![0], signature])]);
    format!(
        "-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n",
        BASE64_STANDARD.encode(der).as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n")
    )
}

fn numbered(serial: u64) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.serial_number = Some(SerialNumber::from(serial))
}

const REVOKED: Result<(), &str> = Err("Revoked");
const NOT_KNOWN: Result<(), &str> = Err("UnknownRevocationStatus");

#[test]
fn the_newest_list_by_the_issuer_that_is_in_time_counts() {
    let mut cases = Cases::new();
    let ca = cases.certificate("ca", None, authority);
    cases.certificate("two", Some(&ca), numbered(2));
    cases.certificate("three", Some(&ca), numbered(3));
    cases.write_list("old", list((2020, 2090), &[2]), &ca);
    cases.write_list("new", list((2022, 2090), &[3]), &ca);
    cases.write_list("ended", list((2024, 2025), &[]), &ca);
    cases.write_list("to-come", list((2080, 2090), &[]), &ca);
    cases.folder.write("plain.crl", plain_list(&ca, "ca", true, &[2]));
    cases.folder.write("endless.crl", plain_list(&ca, "ca", false, &[2]));
    cases.folder.write("empty.crl", plain_list(&ca, "ca", false, &[]));
    for lists in ["old new", "new old", "ended new", "new ended", "old ended new to-come", "to-come new old"] {
        cases.case(["ca", "", "two", lists], Ok(()));
        cases.case(["ca", "", "three", lists], REVOKED);
    }
    for lists in ["plain", "endless"] {
        cases.case(["ca", "", "two", lists], REVOKED);
        cases.case(["ca", "", "three", lists], Ok(()));
    }
    cases.case(["ca", "", "two", "empty"], Ok(()));
    cases.case(["ca", "", "two", "ended"], Err("ExpiredRevocationList"));
    cases.case(["ca", "", "two", "to-come"], NOT_KNOWN);
    cases.end();
}

#[test]
fn a_list_is_by_the_one_who_signed_the_leaf() {
    let mut cases = Cases::new();
    let ca = cases.certificate("ca", None, authority);
    cases.certificate("two", Some(&ca), numbered(2));
    // Of the same name, with another key.
    let other = cases.make(("other", "ca"), None, KeyPair::generate().expect("a key"), authority);
    cases.certificate("of-other", Some(&other), numbered(2));
    cases.write_list("cas", list((2022, 2090), &[3]), &ca);
    cases.write_list("others", list((2023, 2090), &[]), &other);
    cases.case(["ca", "", "two", "others"], NOT_KNOWN);
    for lists in ["cas others", "others cas"] {
        cases.case(["ca other", "", "two", lists], Ok(()));
        cases.case(["ca other", "", "of-other", lists], Ok(()));
    }
    cases.case(["ca other", "", "of-other", "cas"], NOT_KNOWN);
    // By one who may not sign lists; what writes it here does not know that.
    let mute = cases.certificate("mute", None, |params| {
        authority(params);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    cases.certificate("of-mute", Some(&mute), |_| {});
    let mut able = CertificateParams::new([]).expect("no names");
    able.distinguished_name = rcgen::DistinguishedName::new();
    able.distinguished_name.push(DnType::CommonName, "mute");
    let key = KeyPair::from_pem(&mute.0.key().serialize_pem()).expect("its key");
    cases.write_list("mutes", list((2020, 2090), &[]), &Signer(Issuer::new(able, key)));
    cases.case(["mute", "", "of-mute", "mutes"], NOT_KNOWN);
    // Nobody has signed it but itself, so its own list is asked for.
    cases.certificate("alone", None, |_| {});
    cases.case(["alone", "", "alone", "cas"], NOT_KNOWN);
    // By one that the client sends.
    let middle = cases.certificate("middle", Some(&ca), authority);
    cases.certificate("four", Some(&middle), numbered(4));
    cases.certificate("five", Some(&middle), numbered(5));
    cases.write_list("middles", list((2020, 2090), &[5]), &middle);
    cases.case(["ca", "middle", "four", "cas middles"], Ok(()));
    cases.case(["ca", "middle", "five", "cas middles"], REVOKED);
    cases.case(["ca", "middle", "four", "cas"], NOT_KNOWN);
    cases.end();
}

#[test]
fn a_list_counts_for_those_whom_it_is_about() {
    let mut cases = Cases::new();
    let point = |name: &str| CrlDistributionPoint { uris: vec![format!("http://house.example/{name}")] };
    let ca = cases.certificate("ca", None, authority);
    cases.certificate("leaf", Some(&ca), |_| {});
    cases.certificate("points", Some(&ca), |params| params.crl_distribution_points = vec![point("one"), point("two")]);
    cases.certificate("authority", Some(&ca), authority);
    cases.plain("plain", "ca");
    for (name, at, scope) in [
        ("all", "two", None),
        ("users", "two", Some(CrlScope::UserCertsOnly)),
        ("cas", "two", Some(CrlScope::CaCertsOnly)),
        ("elsewhere", "three", None),
    ] {
        let mut list = list((2020, 2090), &[]);
        list.issuing_distribution_point = Some(CrlIssuingDistributionPoint { distribution_point: point(at), scope });
        cases.write_list(name, list, &ca);
    }
    for (lists, expected) in [("all", Ok(())), ("users", Ok(())), ("cas", NOT_KNOWN), ("elsewhere", NOT_KNOWN)] {
        cases.case(["ca", "", "points", lists], expected);
        for leaf in ["leaf", "plain", "authority"] {
            cases.case(["ca", "", leaf, lists], NOT_KNOWN);
        }
    }
    cases.end();
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
        let Ok(lists) = Lists::read(text.as_bytes(), between.iter()) else { continue };
        counted += 1;
        assert!(trust.judge(&der("leaf"), &between, Rules { lists: Some(&lists), ..rules }).is_err(), "{text}");
    }
    assert!(counted > 100);
}
