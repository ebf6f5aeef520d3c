//! X.509 version 1: what `openssl x509 -req` makes where nobody gives it extensions, as mosquitto's manual does it. webpki takes version 3
//! only, so that houses with such certificates would stay outside.
//!
//! Only a leaf may be one, and what signed it must itself be among the trusted certificates.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

use super::authorities::{look_at_dates, seconds};

/// The certificate, where it is of version 1.
fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    (rest.is_empty() && parsed.version() == X509Version::V1).then_some(parsed)
}

/// What a certificate of version 1 is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    pub trusted: &'a [CertificateDer<'static>],
    /// `None`: nobody is looked up.
    pub lists: Option<&'a [CertificateRevocationListDer<'static>]>,
    /// Nobody is refused for being out of date, neither the leaf nor who signed it.
    pub without_dates: bool,
}

/// Looks at signature, issuer, dates and revocation of a certificate of version 1; `None` where it is of another version.
pub fn verify(leaf: &CertificateDer<'_>, rules: Rules<'_>, now: UnixTime) -> Option<Result<(), CertificateError>> {
    parse(leaf).map(|leaf| judge(&leaf, rules, now))
}

fn judge(leaf: &X509Certificate<'_>, rules: Rules<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let authorities = rules.trusted.iter().filter_map(|authority| X509Certificate::from_der(authority).ok()).map(|(_, parsed)| parsed);
    let mut issuers =
        authorities.filter(|authority| authority.subject().as_raw() == leaf.issuer().as_raw() && may_sign(authority)).peekable();
    if issuers.peek().is_none() {
        return Err(CertificateError::UnknownIssuer);
    }
    // What webpki does not take either.
    if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&leaf.signature_algorithm.algorithm) {
        return Err(CertificateError::BadSignature);
    }
    // One that was renewed under its name and key stands there twice.
    let signers: Vec<_> = issuers.filter(|issuer| leaf.verify_signature(Some(issuer.public_key())).is_ok()).collect();
    let in_time = signers.iter().find(|signer| rules.without_dates || look_at_dates(signer.as_raw(), now).is_ok());
    let signer = in_time.or(signers.first()).ok_or(CertificateError::BadSignature)?;
    if !rules.without_dates {
        look_at_dates(leaf.as_raw(), now)?;
        look_at_dates(signer.as_raw(), now)?;
    }
    rules.lists.map_or(Ok(()), |lists| look_up(leaf, signer, lists, seconds(now)))
}

/// A root of version 1 has nothing that would forbid it. One of version 3 may be no authority, or one for other things; and where it is
/// limited to some names nobody here could tell whether they are these. How many may stand below it does not matter to a leaf.
fn may_sign(authority: &X509Certificate<'_>) -> bool {
    authority.version() == X509Version::V1
        || authority.is_ca() && is_for(authority, KeyUsage::key_cert_sign) && matches!(authority.name_constraints(), Ok(None))
}

/// Where nothing is said its key is for everything.
fn is_for(authority: &X509Certificate<'_>, usage: impl Fn(&KeyUsage) -> bool) -> bool {
    authority.key_usage().is_ok_and(|said| said.is_none_or(|said| usage(said.value)))
}

/// The rules of [`super::client_verifier`]: a list must be there, about clients and by the issuer, and not have run out.
fn look_up(
    leaf: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    lists: &[CertificateRevocationListDer<'_>],
    now: i64,
) -> Result<(), CertificateError> {
    let mut parsed = lists.iter().filter_map(|list| CertificateRevocationList::from_der(list).ok()).map(|(_, list)| list);
    let is_theirs = |list: &CertificateRevocationList<'_>| {
        list.issuer().as_raw() == issuer.subject().as_raw()
            && is_for(issuer, KeyUsage::crl_sign)
            && is_about_leaves(list)
            && list.verify_signature(issuer.public_key()).is_ok()
    };
    let list = parsed.find(is_theirs).ok_or(CertificateError::UnknownRevocationStatus)?;
    if has_ended(&list, now) {
        return Err(CertificateError::ExpiredRevocationList);
    }
    let is_revoked = list.iter_revoked_certificates().any(|revoked| revoked.raw_serial() == leaf.raw_serial());
    if is_revoked { Err(CertificateError::Revoked) } else { Ok(()) }
}

/// One that says no end has none that is still to come.
pub(super) fn has_ended(list: &CertificateRevocationList<'_>, now: i64) -> bool {
    list.next_update().is_none_or(|until| until.timestamp() < now)
}

/// Whether leaves are in it, and not authorities only. What else could be left out of a list webpki has refused at the start.
fn is_about_leaves(list: &CertificateRevocationList<'_>) -> bool {
    list.extensions().iter().filter(|extension| extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT).all(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::IssuingDistributionPoint(scope) if !scope.only_contains_ca_certs)
    })
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
