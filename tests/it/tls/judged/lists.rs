//! Revocation lists, judged beside openssl's verdict.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, DnType, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SigningKey as _, date_time_ymd,
};
use rustls::CertificateError;

use super::{Cases, Signer, authority, numbered};

/// A list of `serials`, from and until January of these years.
pub(super) fn list((since, until): (i32, i32), serials: &[u64]) -> CertificateRevocationListParams {
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

/// A list as DER by hand, as rcgen writes none: of version 1, with or without an end, or with an extension.
fn plain_list(signer: &Signer, common_name: &str, ends: bool, serials: &[u8], extension: Option<&[u8]>) -> String {
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
    let version = if extension.is_some() { tlv(2, &[vec![1]]) } else { Vec::new() };
    let extensions = extension.map_or(Vec::new(), |bytes| tlv(0xa0, &[tlv(0x30, &[bytes.to_vec()])]));
    let body = tlv(0x30, &[version, algorithm.clone(), name, time("200101000000Z"), end, revoked, extensions]);
    let signature = signer.0.key().sign(&body).expect("signed");
    let der = tlv(0x30, &[body, algorithm, tlv(0x03, &[vec![0], signature])]);
    format!(
        "-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n",
        BASE64_STANDARD.encode(der).as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n")
    )
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
    cases.folder.write("plain.crl", plain_list(&ca, "ca", true, &[2], None));
    cases.folder.write("endless.crl", plain_list(&ca, "ca", false, &[2], None));
    cases.folder.write("empty.crl", plain_list(&ca, "ca", false, &[], None));
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
fn of_two_equal_lists_and_of_what_has_changed_since_one_each_may_revoke() {
    let mut cases = Cases::new();
    let ca = cases.certificate("ca", None, authority);
    cases.certificate("two", Some(&ca), numbered(2));
    cases.certificate("three", Some(&ca), numbered(3));
    cases.write_list("base", list((2018, 2090), &[3]), &ca);
    // deltaCRLIndicator, critical: number 1.
    let delta = [0x30, 0x0d, 6, 3, 0x55, 0x1d, 0x1b, 1, 1, 0xff, 4, 3, 2, 1, 1];
    cases.folder.write("delta.crl", plain_list(&ca, "ca", true, &[2], Some(&delta)));
    // authorityKeyIdentifier, critical, which says nothing.
    let critical = [0x30, 0x0c, 6, 3, 0x55, 0x1d, 0x23, 1, 1, 0xff, 4, 2, 0x30, 0];
    cases.folder.write("critical.crl", plain_list(&ca, "ca", true, &[2], Some(&critical)));
    // Another, critical, that nobody knows.
    let strange = [0x30, 0x0d, 6, 3, 0x2a, 3, 4, 1, 1, 0xff, 4, 3, 2, 1, 1];
    cases.folder.write("strange.crl", plain_list(&ca, "ca", true, &[], Some(&strange)));
    for lists in ["base delta", "delta base", "critical", "critical base"] {
        cases.case(["ca", "", "two", lists], REVOKED);
    }
    cases.case(["ca", "", "two", "base"], Ok(()));
    cases.case(["ca", "", "three", "critical base"], Ok(()));
    cases.case(["ca", "", "two", "strange"], Err("UnhandledCriticalExtension"));
    // OpenSSL takes the one that it has found first, or the change for the whole; nobody is let in by either here.
    cases.folder.write("clean.crl", plain_list(&ca, "ca", true, &[], None));
    cases.folder.write("revoking.crl", plain_list(&ca, "ca", true, &[2], None));
    for (leaf, lists) in [("two", "clean revoking"), ("two", "revoking clean"), ("three", "base delta")] {
        let (ours, (_, said)) = cases.verdicts("ca", "", leaf, lists);
        assert_eq!(ours, Err(CertificateError::Revoked), "{lists}, and openssl: {said}");
    }
    // What had changed before the whole was written anew is in it.
    cases.write_list("anew", list((2022, 2090), &[3]), &ca);
    cases.case(["ca", "", "two", "delta anew"], Ok(()));
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
    cases.certificate("three", Some(&ca), numbered(3));
    cases.write_list("cas", list((2022, 2090), &[3]), &ca);
    cases.write_list("others", list((2023, 2090), &[]), &other);
    cases.case(["ca", "", "two", "others"], NOT_KNOWN);
    for lists in ["cas others", "others cas"] {
        cases.case(["ca other", "", "two", lists], Ok(()));
        cases.case(["ca other", "", "of-other", lists], Ok(()));
        cases.case(["ca other", "", "three", lists], REVOKED);
    }
    cases.case(["ca other", "", "of-other", "cas"], NOT_KNOWN);
    // One that nobody is known to have signed is no reason to believe an older one.
    cases.folder.write("former.crl", plain_list(&ca, "ca", true, &[], None));
    let stranger = cases.make(("stranger", "ca"), None, KeyPair::generate().expect("a key"), authority);
    cases.folder.write("strangers.crl", plain_list(&stranger, "ca", true, &[2], None));
    cases.write_list("older", list((2018, 2090), &[]), &ca);
    for lists in ["older strangers", "strangers older"] {
        let (ours, (theirs, _)) = cases.verdicts("ca", "", "two", lists);
        assert!(ours.is_err() && !theirs, "{lists}: {ours:?}");
    }
    // Of two authorities of one name each has its own, though it does not say whose it is.
    cases.folder.write("others-plain.crl", plain_list(&other, "ca", true, &[], None));
    cases.case(["ca", "", "two", "former"], Ok(()));
    assert_eq!(cases.verdicts("ca other", "", "two", "former others-plain").0, Ok(()));
    assert_eq!(cases.verdicts("ca other", "", "of-other", "former others-plain").0, Ok(()));
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
    cases.certificate("points-authority", Some(&ca), |params| {
        authority(params);
        params.crl_distribution_points = vec![point("one"), point("two")];
    });
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
        let of_authorities = match lists {
            "users" => NOT_KNOWN,
            "cas" => Ok(()),
            _ => expected,
        };
        cases.case(["ca", "", "points-authority", lists], of_authorities);
        for leaf in ["leaf", "plain", "authority"] {
            cases.case(["ca", "", leaf, lists], NOT_KNOWN);
        }
    }
    cases.end();
}
