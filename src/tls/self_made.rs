//! A certificate authority of our own, and what it signs. No clock and no files: the caller says when and where.
//!
//! Keys are P-256, which every TLS library of the last ten years can do; their randomness is ring's, as in every handshake.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// The last second of the year 9999, beyond which X.509 has no dates.
const NOT_AFTER_MAX: u64 = 253_402_300_799;
/// X.520 knows no longer common name, in characters.
const COMMON_NAME_MAX: usize = 64;

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

/// An authority that signs nothing but what [`server`] is asked for.
pub fn authority(common_name: &str, period: Period) -> Result<Pem, Unmade> {
    let make = || {
        let mut params = params(Vec::new(), common_name, period)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        Ok(Pem { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    };
    make().map_err(|error: rcgen::Error| Unmade { subject: common_name.to_owned(), reason: error.to_string() })
}

/// A server's certificate for `names` (DNS names and addresses, the first is also its common name), signed by `authority`.
/// Its text holds only itself: clients have the authority's certificate.
pub fn server(names: &[String], period: Period, authority: &Pem) -> Result<Pem, Unmade> {
    let make = || {
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
        let mut params = params(names.to_vec(), names.first().map_or("darner", String::as_str), period)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Pem { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
    };
    make().map_err(|error: rcgen::Error| Unmade { subject: names.join(", "), reason: error.to_string() })
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
    let date = |seconds: u64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds.min(NOT_AFTER_MAX));
    params.not_before = date(period.not_before);
    params.not_after = date(period.not_after);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
    use rustls::server::ParsedCertificate;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    /// 2026-11-24.
    const NOW: u64 = 1_795_478_400;

    fn der(pem: &Pem) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.certificate.as_bytes()).expect("a certificate")
    }

    fn verify(server: &Pem, authority: &Pem, name: &str, now: u64) -> Result<(), rustls::Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(authority)).expect("an authority");
        let leaf = der(server);
        let parsed = ParsedCertificate::try_from(&leaf).expect("parsed");
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
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
