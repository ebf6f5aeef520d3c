//! A certificate authority of our own, and what it signs. No clock and no files: the caller says when and where.
//!
//! Keys are P-256, which every TLS library of the last ten years can do; their randomness is ring's, as in every handshake.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;

use super::leaf::{self, Leaf};

/// The last second of the year 9999, beyond which X.509 has no dates.
const NOT_AFTER_MAX: u64 = 253_402_300_799;
/// X.520 knows no longer common name, in characters.
const COMMON_NAME_MAX: usize = 64;
/// A third of a year: well before anybody warns of the end.
const RENEW_BEFORE: i64 = 120 * 86_400;
/// By this name an authority that we made is known again, together with its key.
pub const AUTHORITY: &str = "darner, self-made for this installation";

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[error("no certificate can be made for {subject}: {reason}")]
pub struct Unmade {
    subject: String,
    reason: String,
}

/// A certificate and its private key, both as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Pem {
    /// The key stays out of logs.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Pem({} bytes)", self.certificate.len())
    }
}

/// When a certificate holds, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub not_before: u64,
    pub not_after: u64,
}

impl Period {
    /// From a day before `now` (clocks differ) to `days` after it.
    pub fn around(now: u64, days: u64) -> Self {
        const DAY: u64 = 86_400;
        Self { not_before: now.saturating_sub(DAY), not_after: now.saturating_add(days.saturating_mul(DAY)).min(NOT_AFTER_MAX) }
    }
}

/// A new private key, as PEM text.
pub fn key() -> Result<String, Unmade> {
    let made = KeyPair::generate().map(|key| key.serialize_pem());
    made.map_err(|error| Unmade { subject: "a key".to_owned(), reason: error.to_string() })
}

/// An authority that signs nothing but what [`server`] is asked for.
pub fn authority(common_name: &str, period: Period) -> Result<Pem, Unmade> {
    authority_of(common_name, period, &key()?)
}

/// The same, with a key that is there already.
pub fn authority_of(common_name: &str, period: Period, key: &str) -> Result<Pem, Unmade> {
    let make = || {
        let mut params = params(Vec::new(), common_name, period)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Pem { certificate: params.self_signed(&KeyPair::from_pem(key)?)?.pem(), key: key.to_owned() })
    };
    make().map_err(|error: rcgen::Error| Unmade { subject: common_name.to_owned(), reason: error.to_string() })
}

/// The authority that these two files are, if it is one that we made: by its name, and by the key that belongs to it.
pub fn own_authority(certificate: &[u8], key: &[u8]) -> Option<Pem> {
    let leaf = leaf::pair(certificate, key).ok()?;
    let is_own = leaf.issuer == AUTHORITY && leaf.others == 0;
    is_own.then_some(Pem { certificate: String::from_utf8(certificate.to_vec()).ok()?, key: String::from_utf8(key.to_vec()).ok()? })
}

/// Whether `authority` signed this certificate.
pub fn has_signed(authority: &Pem, server: &Leaf) -> bool {
    let Ok(own) = Leaf::of_chain(authority.certificate.as_bytes()) else { return false };
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from(server.der.as_slice());
    let (Ok(()), Ok(parsed)) = (roots.add(own.der.into()), ParsedCertificate::try_from(&certificate)) else { return false };
    // Dates are the caller's business: judged as on its last day.
    let then = UnixTime::since_unix_epoch(Duration::from_secs(server.not_after.max(0) as u64));
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], then, algorithms.all).is_ok()
}

/// A server's certificate for `names` (DNS names and addresses, the first is also its common name), signed by `authority`.
/// Its text holds only itself: clients have the authority's certificate.
pub fn server(names: &[String], period: Period, authority: &Pem) -> Result<Pem, Unmade> {
    server_of(names, period, authority, &key()?)
}

/// The same, with a key that is there already.
pub fn server_of(names: &[String], period: Period, authority: &Pem, key: &str) -> Result<Pem, Unmade> {
    let make = || {
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
        let mut params = params(names.to_vec(), names.first().map_or("darner", String::as_str), period)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(Pem { certificate: params.signed_by(&KeyPair::from_pem(key)?, &issuer)?.pem(), key: key.to_owned() })
    };
    make().map_err(|error: rcgen::Error| Unmade { subject: names.join(", "), reason: error.to_string() })
}

/// Whether a certificate of ours is to be made anew at `now`: little is left of it, or it was made by a clock that was ahead.
pub fn is_due(server: &Leaf, now: u64) -> bool {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    now < server.not_before || server.not_after.saturating_sub(now) < RENEW_BEFORE
}

/// A server's certificate for `names` that nobody trusts: it holds a listener's place until a real one has come.
pub fn placeholder(names: &[String], period: Period) -> Result<Pem, Unmade> {
    server(names, period, &authority("darner placeholder, not trusted by anybody", period)?)
}

fn params(names: Vec<String>, common_name: &str, period: Period) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let common_name: String = common_name.chars().take(COMMON_NAME_MAX).collect();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let date = |seconds: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.min(NOT_AFTER_MAX));
    params.not_before = date(period.not_before);
    params.not_after = date(period.not_after);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    /// 2026-11-24.
    const NOW: u64 = 1_795_478_400;

    fn der(pem: &Pem) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.certificate.as_bytes()).expect("a certificate")
    }

    fn verify(server: &Pem, authority: &Pem, name: &str, now: u64) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(der(authority)).expect("an authority");
        let leaf = der(server);
        let parsed = ParsedCertificate::try_from(&leaf).expect("parsed");
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms.all)?;
        rustls::client::verify_server_name(&parsed, &ServerName::try_from(name.to_owned()).expect("a name"))
    }

    #[test]
    fn clients_that_trust_the_authority_accept_the_server_for_its_names_and_its_time() {
        let authority = authority("darner test", Period::around(NOW, 3650)).expect("made");
        let names = ["broker.example".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let server = server(&names, Period::around(NOW, 90), &authority).expect("made");
        for name in ["broker.example", "127.0.0.1", "::1"] {
            verify(&server, &authority, name, NOW).expect(name);
        }
        assert!(verify(&server, &authority, "other.example", NOW).is_err());
        assert!(verify(&server, &authority, "broker.example", NOW + 91 * 86_400).is_err());
        let other = super::authority("darner test", Period::around(NOW, 3650)).expect("made");
        assert!(verify(&server, &other, "broker.example", NOW).is_err());
    }

    #[test]
    fn a_key_belongs_to_its_certificate_and_no_two_are_alike() {
        let made = [1, 2].map(|_| placeholder(&["a.example".to_owned()], Period::around(NOW, 1)).expect("made"));
        assert_ne!(made[0].key, made[1].key);
        for pem in &made {
            let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).expect("a key");
            let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key of ours");
            let leaf = der(pem);
            let (_, certificate) = X509Certificate::from_der(&leaf).expect("parsed");
            assert_eq!(key.public_key().expect("known").as_ref(), certificate.public_key().raw);
            assert!(!format!("{pem:?}").contains("PRIVATE"));
        }
    }

    #[test]
    fn an_authority_of_ours_is_known_again_and_so_is_what_it_signed() {
        let made = authority(AUTHORITY, Period::around(NOW, 7300)).expect("made");
        let own = |of: &Pem, key: &Pem| own_authority(of.certificate.as_bytes(), key.key.as_bytes());
        assert_eq!(own(&made, &made), Some(made.clone()));
        let again = authority_of(AUTHORITY, Period::around(NOW, 1), &made.key).expect("made");
        let other = authority(AUTHORITY, Period::around(NOW, 7300)).expect("made");
        let stranger = authority("acme", Period::around(NOW, 7300)).expect("made");
        assert_eq!(own(&made, &other), None, "without its key");
        assert_eq!(own(&stranger, &stranger), None, "by another name");
        assert_eq!(own_authority(b"", b""), None);

        let leaf = |pem: &Pem| Leaf::of_chain(pem.certificate.as_bytes()).expect("a certificate");
        let names = ["a.example".to_owned()];
        let first = server(&names, Period::around(NOW, 820), &made).expect("made");
        let next = server_of(&names, Period::around(NOW + 800 * 86_400, 820), &made, &first.key).expect("made");
        assert!(next.key == first.key && next.certificate != first.certificate);
        verify(&next, &made, "a.example", NOW + 801 * 86_400).expect("for who trusts the authority");
        for server in [&first, &next] {
            assert!(has_signed(&made, &leaf(server)) && has_signed(&again, &leaf(server)) && !has_signed(&other, &leaf(server)));
        }
        assert!(leaf::pair(next.certificate.as_bytes(), first.key.as_bytes()).is_ok());
        assert!(!has_signed(&Pem { certificate: String::new(), key: String::new() }, &leaf(&first)));
    }

    #[test]
    fn names_and_times_of_any_length_are_taken_or_refused() {
        let long = "l".repeat(300);
        assert!(authority(&long, Period::around(NOW, u64::MAX)).is_ok());
        let made = authority("a", Period::around(0, 1)).expect("made");
        assert!(server(&[], Period::around(NOW, 1), &made).is_ok());
        let error = server(&["gr\u{fc}n".to_owned()], Period::around(NOW, 1), &made).expect_err("not ASCII");
        assert!(error.to_string().starts_with("no certificate can be made for gr\u{fc}n: "), "{error}");
        assert!(server(&["a".to_owned()], Period::around(NOW, 1), &Pem { certificate: String::new(), key: String::new() }).is_err());
    }
}
