//! Each case is judged by `openssl verify`, too: whom mosquitto lets in comes in, and nobody else.

mod hostile;
mod lists;

use std::process::Command;

use darner::tls::lists::Lists;
use darner::tls::trust::{Purpose, Rules, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber, date_time_ymd,
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

    /// One that was made before, with its own name for a subject.
    fn signer(&self, name: &str) -> Signer {
        let key = KeyPair::from_pem(&self.read(name, "key")).expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Signer(Issuer::new(params, key))
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
        let known = (!lists.is_empty()).then(|| {
            let mut known = Lists::default();
            known.add(self.read(lists, "crl").as_bytes(), all.iter()).expect("lists");
            known
        });
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
const STRANGE: Result<(), &str> = Err("UnhandledCriticalExtension");
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
        cases.case([trusted, sent, "of-member", ""], UNKNOWN);
    }
    for itself in ["ca", "alone", "silent"] {
        cases.case([itself, "", itself, ""], Ok(()));
    }
    cases.case(["ca leaf", "", "leaf", ""], Ok(()));
    cases.case(["usage", "", "usage", ""], PURPOSE);
    cases.case(["ca", "", "alone", ""], UNKNOWN);
    // Signed by somebody: whoever trusts it has to trust him.
    cases.case(["leaf", "", "leaf", ""], UNKNOWN);
    cases.case(["alone", "alone", "of-alone", ""], UNKNOWN);
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
        cases.case(["ca", "lowest low middle", &leaf("of-lowest"), ""], PURPOSE);
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
fn who_stands_between_may_do_that() {
    let mut cases = Cases::new();
    let ca = cases.certificate("ca", None, authority);
    let strange = |critical: bool| {
        let mut content = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        content.set_criticality(critical);
        content
    };
    let usage = |usages: Vec<KeyUsagePurpose>| {
        move |params: &mut CertificateParams| {
            authority(params);
            params.key_usages = usages;
        }
    };
    let extended = |usages: Vec<ExtendedKeyUsagePurpose>| {
        move |params: &mut CertificateParams| {
            authority(params);
            params.extended_key_usages = usages;
        }
    };
    cases.certificate("signs-nothing", Some(&ca), usage(vec![KeyUsagePurpose::DigitalSignature]));
    cases.certificate("signs", Some(&ca), usage(vec![KeyUsagePurpose::KeyCertSign]));
    cases.certificate("servers", Some(&ca), extended(vec![ExtendedKeyUsagePurpose::ServerAuth]));
    cases.certificate("clients", Some(&ca), extended(vec![ExtendedKeyUsagePurpose::ClientAuth]));
    cases.certificate("says-nothing", Some(&ca), |params| {
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    for (name, critical) in [("strange", true), ("remarked", false)] {
        cases.certificate(name, Some(&ca), |params| {
            authority(params);
            params.custom_extensions = vec![strange(critical)];
        });
    }
    let names = ["signs-nothing", "signs", "servers", "clients", "says-nothing", "strange", "remarked"];
    for (name, expected) in names.into_iter().zip([UNKNOWN, Ok(()), UNKNOWN, Ok(()), UNKNOWN, STRANGE, Ok(())]) {
        let signer = cases.signer(name);
        cases.certificate(&format!("of-{name}"), Some(&signer), |_| {});
        cases.certificate(&format!("able-of-{name}"), Some(&signer), authority);
        cases.plain(&format!("plain-of-{name}"), name);
        for kind in ["of", "able-of", "plain-of"] {
            cases.case(["ca", name, &format!("{kind}-{name}"), ""], expected);
            cases.case([&format!("ca {name}"), "", &format!("{kind}-{name}"), ""], expected);
        }
    }
    // And at the top.
    let root = cases.certificate("root", None, |params| {
        authority(params);
        params.custom_extensions = vec![strange(true)];
    });
    cases.certificate("of-root", Some(&root), |_| {});
    cases.plain("plain-of-root", "root");
    let silent = cases.certificate("silent", None, |params| {
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    cases.certificate("of-silent", Some(&silent), |_| {});
    for (trusted, leaf, expected) in [("root", "of-root", STRANGE), ("root", "plain-of-root", STRANGE), ("silent", "of-silent", Ok(()))] {
        cases.case([trusted, "", leaf, ""], expected);
    }
    // What cannot be read: here a NULL in the place of the authority's key.
    let damaged = CustomExtension::from_oid_content(&[2, 5, 29, 35], vec![5, 0]);
    cases.certificate("damaged", Some(&ca), |params| {
        params.use_authority_key_identifier_extension = false;
        params.custom_extensions = vec![damaged];
    });
    cases.case(["ca", "", "damaged", ""], Err("BadEncoding"));
    // proxyCertInfo: what a user has signed for a program.
    let proxy = [0x30, 0x0f, 2, 1, 0, 0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x15, 0];
    let proxy = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 14], proxy.to_vec());
    cases.certificate("proxy", Some(&ca), |params| params.custom_extensions = vec![proxy]);
    cases.case(["ca", "", "proxy", ""], PURPOSE);
    cases.end();
}

#[test]
fn a_key_that_took_over_is_vouched_for_by_the_former_one() {
    let mut cases = Cases::new();
    let former = cases.certificate("ca", None, authority);
    let now = cases.make(("now", "ca"), Some(&former), KeyPair::generate().expect("a key"), authority);
    cases.certificate("of-now", Some(&now), |_| {});
    cases.certificate("able-of-now", Some(&now), authority);
    for leaf in ["of-now", "able-of-now"] {
        cases.case(["ca", "now", leaf, ""], Ok(()));
        cases.case(["now", "", leaf, ""], UNKNOWN);
    }
    cases.case(["now", "", "now", ""], UNKNOWN);
    // Without a word about keys their kinds tell: an elliptic curve makes no signature of RSA.
    openssl(&cases.folder, "req -new -x509 -nodes -newkey rsa:2048 -keyout rsa.key -out rsa.crt -subj /CN=same -days 30");
    let new = "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256";
    openssl(&cases.folder, &format!("{new} -keyout curve.key -out curve.csr -subj /CN=same"));
    openssl(&cases.folder, "x509 -req -in curve.csr -CA rsa.crt -CAkey rsa.key -CAcreateserial -out curve.crt -days 30");
    cases.case(["curve", "", "curve", ""], UNKNOWN);
    cases.case(["rsa", "", "curve", ""], Ok(()));
    cases.end();
}

#[test]
fn an_authority_for_some_names_signs_those() {
    let mut cases = Cases::new();
    cases.of_brokers = true;
    let constrained = |params: &mut CertificateParams| {
        authority(params);
        let permitted_subtrees = vec![GeneralSubtree::DnsName("house.example".into())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    };
    let ca = cases.certificate("ca", None, authority);
    let middle = cases.certificate("middle", Some(&ca), constrained);
    let root = cases.certificate("root", None, constrained);
    for (by, signer, trusted, sent) in [("middle", &middle, "ca", "middle"), ("root", &root, "root", "")] {
        let name = |kind: &str| format!("{kind}-{by}");
        let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
        let (inside, outside) = (dns("a.house.example"), dns("bank.example"));
        cases.certificate(&name("inside"), Some(signer), |params| params.subject_alt_names = vec![inside]);
        cases.certificate(&name("outside"), Some(signer), |params| params.subject_alt_names = vec![outside]);
        cases.make((&name("common"), "bank.example"), Some(signer), KeyPair::generate().expect("a key"), |_| {});
        for of_brokers in [true, false] {
            cases.of_brokers = of_brokers;
            cases.case([trusted, sent, &name("inside"), ""], Ok(()));
            cases.case([trusted, sent, &name("outside"), ""], PURPOSE);
            cases.case([trusted, sent, &name("common"), ""], UNKNOWN);
        }
    }
    cases.end();
}

#[test]
fn of_version_1_only_a_root_signs() {
    let mut cases = Cases::new();
    openssl(&cases.folder, "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout root.key -out root.csr -subj /CN=root");
    openssl(&cases.folder, "x509 -req -in root.csr -signkey root.key -out root.crt -days 30");
    cases.plain("member", "root");
    cases.plain("of-member", "member");
    cases.certificate("three-of-root", Some(&cases.signer("root")), |params| params.use_authority_key_identifier_extension = false);
    cases.certificate("three-of-member", Some(&cases.signer("member")), |params| params.use_authority_key_identifier_extension = false);
    for leaf in ["member", "three-of-root", "root"] {
        cases.case(["root", "", leaf, ""], Ok(()));
    }
    for leaf in ["of-member", "three-of-member"] {
        for (trusted, sent) in [("member", ""), ("root member", ""), ("root", "member")] {
            cases.case([trusted, sent, leaf, ""], UNKNOWN);
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

/// What `easyrsa` makes with `EASYRSA_ALGO ec` and `EASYRSA_DIGEST sha512`, as a widely copied page has it.
#[test]
fn elliptic_curves_with_sha_512_are_taken() {
    let mut cases = Cases::new();
    cases.folder.write("v3", "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n");
    for (ca, curve) in [("ca-256", "P-256"), ("ca-384", "P-384")] {
        let new = format!("req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:{curve} -sha512");
        openssl(&cases.folder, &format!("{new} -x509 -keyout {ca}.key -out {ca}.crt -subj /CN=house"));
        for (leaf, more) in [("three", " -extfile v3"), ("one", "")] {
            let leaf = format!("{leaf}-of-{ca}");
            openssl(&cases.folder, &format!("{new} -keyout {leaf}.key -out {leaf}.csr -subj /CN={leaf}"));
            let by = format!("-CA {ca}.crt -CAkey {ca}.key -CAcreateserial");
            openssl(&cases.folder, &format!("x509 -req -sha512 -in {leaf}.csr {by} -out {leaf}.crt{more}"));
        }
        cases.folder.write("index.txt", "");
        let path = cases.folder.path().display();
        cases.folder.write("ca.cnf", format!("[ca]\ndefault_ca=d\n[d]\ndatabase={path}/index.txt\n"));
        let sign = format!("-keyfile {ca}.key -cert {ca}.crt");
        openssl(&cases.folder, &format!("ca -gencrl -config ca.cnf -md sha512 -crldays 30 {sign} -out {ca}.crl"));
    }
    for (ca, other) in [("ca-256", "ca-384"), ("ca-384", "ca-256")] {
        // One of version 3 says by which key it was signed.
        for (leaf, stranger) in [("three", UNKNOWN), ("one", Err("BadSignature"))] {
            cases.case([ca, "", &format!("{leaf}-of-{ca}"), ca], Ok(()));
            cases.case([other, "", &format!("{leaf}-of-{ca}"), other], stranger);
        }
    }
    cases.end();
}

fn numbered(serial: u64) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.serial_number = Some(SerialNumber::from(serial))
}
