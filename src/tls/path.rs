//! What a certificate may be used for, as OpenSSL sees it, and the way from a leaf to a root for leaves that webpki does not take: those of
//! X.509 version 1, which `openssl x509 -req` makes where nobody gives it extensions, as mosquitto's manual does it; those that could sign
//! others; and, with `disable_client_cert_date_checks`, those that are out of date.

use rustls::CertificateError;
use rustls::pki_types::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{
    OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_CERT_TYPE, OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::x509::X509Version;

use super::trust::{Purpose, Rules};

/// Certificates between a leaf and its root, as webpki has it.
const BETWEEN_MAX: usize = 6;
/// Signatures that are looked at for one leaf: a stranger chooses what comes with it.
const SIGNATURES_MAX: u32 = 100;

/// Whether it was signed by its own name.
pub(super) fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// Where nothing is said its key is for everything; what cannot be read is for nothing.
fn has_usage(certificate: &X509Certificate<'_>, usage: impl Fn(&KeyUsage) -> bool) -> bool {
    certificate.key_usage().is_ok_and(|said| said.is_none_or(|said| usage(said.value)))
}

fn has_extended_usage(certificate: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let is_for_us = |usage: &ExtendedKeyUsage<'_>| match purpose {
        Purpose::Client => usage.client_auth,
        Purpose::Server => usage.server_auth,
    };
    certificate.extended_key_usage().is_ok_and(|said| said.is_none_or(|said| is_for_us(said.value)))
}

/// Whether a peer may show it.
pub(super) fn serves(leaf: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let is_for_us = |usage: &KeyUsage| match purpose {
        Purpose::Client => usage.digital_signature() || usage.key_agreement(),
        Purpose::Server => usage.digital_signature() || usage.key_agreement() || usage.key_encipherment(),
    };
    has_usage(leaf, is_for_us) && has_extended_usage(leaf, purpose) && has_netscape_usage(leaf, purpose)
}

/// What said the same before there was an extended key usage; easy-rsa still writes it when it is asked to.
fn has_netscape_usage(leaf: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let mut said = leaf.extensions().iter().filter(|extension| extension.oid == OID_X509_EXT_CERT_TYPE);
    said.all(|extension| match (extension.parsed_extension(), purpose) {
        (ParsedExtension::NSCertType(usage), Purpose::Client) => usage.ssl_client(),
        (ParsedExtension::NSCertType(usage), Purpose::Server) => usage.ssl_server(),
        _ => false,
    })
}

/// Whether others are believed that it signed. One of version 1 has nothing that would forbid it, but only a root is taken for an authority
/// without saying that it is one.
pub(super) fn may_sign(certificate: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let is_authority = match certificate.basic_constraints() {
        _ if certificate.version() == X509Version::V1 => is_self_issued(certificate),
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => matches!(certificate.key_usage(), Ok(Some(_))),
        Err(_) => false,
    };
    is_authority && has_usage(certificate, KeyUsage::key_cert_sign) && has_extended_usage(certificate, purpose)
}

/// Whether revocation lists are believed that it signed.
pub(super) fn is_for_lists(issuer: &X509Certificate<'_>) -> bool {
    has_usage(issuer, KeyUsage::crl_sign)
}

/// How many others may stand between it and a leaf.
pub(super) fn path_len(authority: &X509Certificate<'_>) -> Option<usize> {
    let constraints = authority.basic_constraints().ok().flatten()?;
    constraints.value.path_len_constraint.and_then(|most| usize::try_from(most).ok())
}

/// Whether nothing critical is in it that is not looked at here.
fn is_understood(certificate: &X509Certificate<'_>) -> bool {
    const KNOWN: [x509_parser::der_parser::Oid<'static>; 4] =
        [OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME];
    certificate.extensions().iter().all(|extension| !extension.critical || KNOWN.contains(&extension.oid))
}

/// Whether it signs for some names only: nobody here could tell whether a leaf's are these.
fn is_for_some_names(authority: &X509Certificate<'_>) -> bool {
    authority.extensions().iter().any(|extension| extension.oid == OID_X509_EXT_NAME_CONSTRAINTS)
}

pub(super) fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Whether a certificate has run out, or is not valid yet.
///
/// # Errors
/// Which of the two.
pub(super) fn look_at_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let validity = certificate.validity();
    match seconds(now) {
        now if now < validity.not_before.timestamp() => Err(CertificateError::NotValidYet),
        now if now > validity.not_after.timestamp() => Err(CertificateError::Expired),
        _ => Ok(()),
    }
}

/// A leaf that is itself among those trusted, and signed by nobody else.
pub(super) fn judge_itself(leaf: &X509Certificate<'_>, rules: Rules<'_>) -> Result<(), CertificateError> {
    judge_alone(leaf, rules)?;
    look_up(leaf, leaf, rules)
}

fn judge_alone(leaf: &X509Certificate<'_>, rules: Rules<'_>) -> Result<(), CertificateError> {
    if !is_understood(leaf) {
        return Err(CertificateError::UnhandledCriticalExtension);
    }
    if rules.without_dates { Ok(()) } else { look_at_dates(leaf, rules.now) }
}

fn look_up(leaf: &X509Certificate<'_>, issuer: &X509Certificate<'_>, rules: Rules<'_>) -> Result<(), CertificateError> {
    match rules.lists {
        None => Ok(()),
        Some(_) if !is_for_lists(issuer) => Err(CertificateError::UnknownRevocationStatus),
        Some(lists) => lists.look_up(leaf, issuer, rules.now),
    }
}

/// Where a way may lead.
pub(super) struct Way<'a> {
    pub(super) roots: &'a [X509Certificate<'a>],
    pub(super) between: &'a [X509Certificate<'a>],
    pub(super) purpose: Purpose,
    pub(super) rules: Rules<'a>,
}

pub(super) fn judge(leaf: &X509Certificate<'_>, way: &Way<'_>) -> Result<(), CertificateError> {
    let mut signatures = SIGNATURES_MAX;
    let issuer = way.issuer(leaf, 0, &mut signatures)?;
    judge_alone(leaf, way.rules)?;
    look_up(leaf, issuer, way.rules)
}

impl Way<'_> {
    /// Who signed `certificate`, and is believed; `below`: how many stand between `certificate` and the leaf.
    fn issuer(
        &self,
        certificate: &X509Certificate<'_>,
        below: usize,
        signatures: &mut u32,
    ) -> Result<&X509Certificate<'_>, CertificateError> {
        // What webpki does not take either. What is signed, and what says how, are one.
        let said = &certificate.signature_algorithm;
        if *said != certificate.tbs_certificate.signature {
            return Err(CertificateError::BadEncoding);
        }
        if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&said.algorithm) {
            return Err(CertificateError::BadSignature);
        }
        let mut fault = CertificateError::UnknownIssuer;
        let all = self.roots.iter().map(|root| (root, true)).chain(self.between.iter().map(|one| (one, false)));
        let by_name = all.filter(|(issuer, _)| issuer.subject().as_raw() == certificate.issuer().as_raw());
        for (issuer, is_root) in by_name.filter(|(issuer, _)| may_sign(issuer, self.purpose) && !is_for_some_names(issuer)) {
            *signatures = signatures.checked_sub(1).ok_or(CertificateError::UnknownIssuer)?;
            match self.look_at(certificate, issuer, is_root, below, signatures) {
                Ok(()) => return Ok(issuer),
                // Two of one name: what is wrong with the one that did sign it says more.
                Err(CertificateError::BadSignature) if fault != CertificateError::UnknownIssuer => {}
                Err(CertificateError::UnknownIssuer) => {}
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    fn look_at(
        &self,
        certificate: &X509Certificate<'_>,
        issuer: &X509Certificate<'_>,
        is_root: bool,
        below: usize,
        signatures: &mut u32,
    ) -> Result<(), CertificateError> {
        certificate.verify_signature(Some(issuer.public_key())).map_err(|_| CertificateError::BadSignature)?;
        if !self.rules.without_dates {
            look_at_dates(issuer, self.rules.now)?;
        }
        if path_len(issuer).is_some_and(|most| below > most) {
            return Err(CertificateError::InvalidPurpose);
        }
        if !is_understood(issuer) {
            return Err(CertificateError::UnhandledCriticalExtension);
        }
        match is_root {
            true => Ok(()),
            false if below < BETWEEN_MAX => self.issuer(issuer, below + 1, signatures).map(drop),
            false => Err(CertificateError::UnknownIssuer),
        }
    }
}
