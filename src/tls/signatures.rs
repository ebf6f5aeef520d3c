//! That the peer has the key of its certificate: rustls looks at it, but for certificates of X.509 version 1.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{self, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Version;

use super::trust;

fn of_version_1<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    trust::parse(certificate).filter(|parsed| parsed.version() == X509Version::V1)
}

/// # Errors
/// It has not, or nobody knows.
pub fn verify_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    supported: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let Some(parsed) = of_version_1(certificate) else {
        return crypto::verify_tls12_signature(message, certificate, signed, supported);
    };
    let key = parsed.tbs_certificate.subject_pki.subject_public_key.data;
    let wanted = supported.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
    // A key of another kind is no key to any of these.
    let is_valid =
        wanted.flat_map(|(_, algorithms)| *algorithms).any(|one| one.verify_signature(&key, message, signed.signature()).is_ok());
    if is_valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(CertificateError::BadSignature.into()) }
}

/// Like [`verify_tls12`].
///
/// # Errors
/// As there.
pub fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    supported: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    match of_version_1(certificate) {
        None => crypto::verify_tls13_signature(message, certificate, signed, supported),
        Some(parsed) => {
            let key = SubjectPublicKeyInfoDer::from(parsed.tbs_certificate.subject_pki.raw);
            verify_tls13_signature_with_raw_key(message, &key, signed, supported)
        }
    }
}
