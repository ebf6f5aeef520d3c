//! X.509 version 1: what `openssl x509 -req` makes where nobody gives it extensions, as mosquitto's manual does it. webpki takes version 3
//! only, so that houses with such certificates would stay outside.
//!
//! Only a leaf may be one, and what signed it must itself be among the trusted certificates.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

/// The certificate, where it is of version 1.
fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    (rest.is_empty() && parsed.version() == X509Version::V1).then_some(parsed)
}

/// Looks at signature, dates and revocation of a certificate of version 1; `None` where it is of another version.
pub fn verify(
    leaf: &CertificateDer<'_>,
    trusted: &[CertificateDer<'_>],
    lists: Option<&[CertificateRevocationListDer<'_>]>,
    now: UnixTime,
) -> Option<Result<(), CertificateError>> {
    parse(leaf).map(|leaf| judge(&leaf, trusted, lists, now))
}

fn judge(
    leaf: &X509Certificate<'_>,
    trusted: &[CertificateDer<'_>],
    lists: Option<&[CertificateRevocationListDer<'_>]>,
    now: UnixTime,
) -> Result<(), CertificateError> {
    let authorities = trusted.iter().filter_map(|authority| X509Certificate::from_der(authority).ok()).map(|(_, parsed)| parsed);
    let mut issuers =
        authorities.filter(|authority| authority.subject().as_raw() == leaf.issuer().as_raw() && may_sign(authority)).peekable();
    if issuers.peek().is_none() {
        return Err(CertificateError::UnknownIssuer);
    }
    // What webpki does not take either.
    if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&leaf.signature_algorithm.algorithm) {
        return Err(CertificateError::BadSignature);
    }
    let issuer = issuers.find(|issuer| leaf.verify_signature(Some(issuer.public_key())).is_ok()).ok_or(CertificateError::BadSignature)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < leaf.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > leaf.validity().not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    lists.map_or(Ok(()), |lists| look_up(leaf, &issuer, lists, now))
}

/// A root of version 1 has nothing that would forbid it.
fn may_sign(authority: &X509Certificate<'_>) -> bool {
    authority.version() == X509Version::V1 || authority.is_ca()
}

/// The rules of [`super::client_verifier`]: a list must be there, by the issuer, and not have run out.
fn look_up(
    leaf: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    lists: &[CertificateRevocationListDer<'_>],
    now: i64,
) -> Result<(), CertificateError> {
    let parsed = lists.iter().filter_map(|list| CertificateRevocationList::from_der(list).ok()).map(|(_, list)| list);
    let mut theirs =
        parsed.filter(|list| list.issuer().as_raw() == issuer.subject().as_raw() && list.verify_signature(issuer.public_key()).is_ok());
    let list = theirs.next().ok_or(CertificateError::UnknownRevocationStatus)?;
    if list.next_update().is_none_or(|until| until.timestamp() < now) {
        return Err(CertificateError::ExpiredRevocationList);
    }
    let is_revoked = list.iter_revoked_certificates().any(|revoked| revoked.raw_serial() == leaf.raw_serial());
    if is_revoked { Err(CertificateError::Revoked) } else { Ok(()) }
}

/// That the peer has the key of its certificate of version 1; `None` where it is of another version.
pub fn verify_tls12_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    supported: &WebPkiSupportedAlgorithms,
) -> Option<Result<HandshakeSignatureValid, Error>> {
    let key = parse(certificate)?.tbs_certificate.subject_pki.subject_public_key.data;
    let wanted = supported.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
    // A key of another kind is no key to any of these.
    let is_valid =
        wanted.flat_map(|(_, algorithms)| *algorithms).any(|one| one.verify_signature(&key, message, signed.signature()).is_ok());
    Some(if is_valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(CertificateError::BadSignature.into()) })
}

/// Like [`verify_tls12_signature`].
pub fn verify_tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    supported: &WebPkiSupportedAlgorithms,
) -> Option<Result<HandshakeSignatureValid, Error>> {
    let parsed = parse(certificate)?;
    let key = SubjectPublicKeyInfoDer::from(parsed.tbs_certificate.subject_pki.raw);
    Some(verify_tls13_signature_with_raw_key(message, &key, signed, supported))
}

/// Certificates of clients: version 1 is looked at here, all others by webpki.
#[derive(Debug)]
pub(super) struct AlsoVersion1 {
    pub(super) webpki: Arc<dyn ClientCertVerifier>,
    pub(super) trusted: Vec<CertificateDer<'static>>,
    pub(super) lists: Option<Vec<CertificateRevocationListDer<'static>>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AlsoVersion1 {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match verify(leaf, &self.trusted, self.lists.as_deref(), now) {
            Some(verdict) => verdict.map(|()| ClientCertVerified::assertion()).map_err(Error::from),
            None => self.webpki.verify_client_cert(leaf, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
            .unwrap_or_else(|| self.webpki.verify_tls12_signature(message, certificate, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
            .unwrap_or_else(|| self.webpki.verify_tls13_signature(message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
