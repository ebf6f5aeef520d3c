//! What a certificate may be used for, as OpenSSL sees it, and the way from a leaf to a root.
//!
//! A stranger chooses the leaf and what comes with it, so each step up is taken only where a signature was found good, and few signatures are
//! looked at.

use rustls::CertificateError;
use rustls::pki_types::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::der_parser::oid;
use x509_parser::extensions::{AuthorityKeyIdentifier, ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{
    OID_PKCS1_SHA1WITHRSA, OID_PKCS9_EMAIL_ADDRESS, OID_SHA1_WITH_RSA, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_CERT_TYPE,
    OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::x509::X509Version;

use super::ecdsa_sha512;
use super::trust::{Purpose, Rules};

/// Certificates between a leaf and its root, as webpki has it.
const BETWEEN_MAX: usize = 6;
/// Signatures that are looked at for one leaf.
const SIGNATURES_MAX: u32 = 100;
/// RFC 3820: a certificate that a user signed for a program of his.
const PROXY_CERT_INFO: Oid<'static> = oid!(1.3.6.1.5.5.7.1.14);

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// Whether it was signed by its own key, as far as it says so itself.
pub(super) fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    is_self_issued(certificate) && is_key_of(certificate, authority_key(certificate))
}

fn has(certificate: &X509Certificate<'_>, extension: &Oid<'_>) -> bool {
    certificate.extensions().iter().any(|one| one.oid == *extension)
}

/// Where nothing is said its key is for everything; what cannot be read is for nothing.
fn has_usage(certificate: &X509Certificate<'_>, usage: impl Fn(&KeyUsage) -> bool) -> bool {
    certificate.key_usage().is_ok_and(|said| match said {
        Some(said) => usage(said.value),
        None => !has(certificate, &OID_X509_EXT_KEY_USAGE),
    })
}

fn has_extended_usage(certificate: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let is_for_us = |usage: &ExtendedKeyUsage<'_>| match purpose {
        Purpose::Client => usage.client_auth,
        Purpose::Server => usage.server_auth,
    };
    certificate.extended_key_usage().is_ok_and(|said| match said {
        Some(said) => is_for_us(said.value),
        None => !has(certificate, &OID_X509_EXT_EXTENDED_KEY_USAGE),
    })
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

/// Whether a peer may show it.
pub(super) fn serves(leaf: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let is_for_us = |usage: &KeyUsage| match purpose {
        Purpose::Client => usage.digital_signature() || usage.key_agreement(),
        Purpose::Server => usage.digital_signature() || usage.key_agreement() || usage.key_encipherment(),
    };
    has_usage(leaf, is_for_us) && has_extended_usage(leaf, purpose) && has_netscape_usage(leaf, purpose) && !has(leaf, &PROXY_CERT_INFO)
}

/// Whether others are believed that it signed. One that does not say that it is an authority is one only as a root: of version 1, which
/// cannot say it, or with a key that is said to be for that.
pub(super) fn may_sign(certificate: &X509Certificate<'_>, purpose: Purpose, is_root: bool) -> bool {
    let is_authority = match certificate.basic_constraints() {
        _ if certificate.version() == X509Version::V1 => is_root,
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => is_root && has(certificate, &OID_X509_EXT_KEY_USAGE) && !has(certificate, &OID_X509_EXT_BASIC_CONSTRAINTS),
        Err(_) => false,
    };
    is_authority && has_usage(certificate, KeyUsage::key_cert_sign) && has_extended_usage(certificate, purpose)
}

/// Whether revocation lists are believed that it signed.
fn is_for_lists(issuer: &X509Certificate<'_>) -> bool {
    has_usage(issuer, KeyUsage::crl_sign)
}

/// How many others may stand between it and a leaf.
fn path_len(authority: &X509Certificate<'_>) -> Option<usize> {
    let constraints = authority.basic_constraints().ok().flatten()?;
    constraints.value.path_len_constraint.and_then(|most| usize::try_from(most).ok())
}

/// Whether nothing critical is in it that is not looked at, here or by webpki.
fn is_understood(certificate: &X509Certificate<'_>) -> bool {
    const KNOWN: [Oid<'static>; 6] = [
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME,
        OID_X509_EXT_NAME_CONSTRAINTS,
        OID_X509_EXT_CERT_TYPE,
    ];
    certificate.extensions().iter().all(|extension| !extension.critical || KNOWN.contains(&extension.oid))
}

/// Whether it signs for some names only.
pub(super) fn is_for_some_names(authority: &X509Certificate<'_>) -> bool {
    has(authority, &OID_X509_EXT_NAME_CONSTRAINTS)
}

/// Whether it says a host's name as an alternative one; `None` where that cannot be read.
pub fn has_dns_name(leaf: &X509Certificate<'_>) -> Option<bool> {
    match leaf.subject_alternative_name().ok()? {
        Some(names) => Some(names.value.general_names.iter().any(|name| matches!(name, GeneralName::DNSName(_)))),
        None => (!has(leaf, &OID_X509_EXT_SUBJECT_ALT_NAME)).then_some(false),
    }
}

/// Whether all its names are where webpki compares them with what its authority may sign for: OpenSSL compares those in the subject, too.
pub(super) fn has_comparable_names(leaf: &X509Certificate<'_>) -> bool {
    has_dns_name(leaf) == Some(true) && leaf.subject().iter_by_oid(&OID_PKCS9_EMAIL_ADDRESS).next().is_none()
}

fn authority_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a AuthorityKeyIdentifier<'a>> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(said) => Some(said),
        _ => None,
    })
}

/// Whether `said`, of a certificate or a list, is not about another key than that of `issuer`.
pub(super) fn is_key_of(issuer: &X509Certificate<'_>, said: Option<&AuthorityKeyIdentifier<'_>>) -> bool {
    let Some(said) = said else { return true };
    let own = issuer.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(own) => Some(own),
        _ => None,
    });
    let is_other_key = said.key_identifier.as_ref().zip(own).is_some_and(|(said, own)| said != own);
    let is_other_serial = said.authority_cert_serial.is_some_and(|serial| serial != issuer.raw_serial());
    !is_other_key && !is_other_serial
}

/// Whether it was signed with the key of `issuer`.
pub(super) fn is_signed(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let (key, signature) = (issuer.public_key(), &certificate.signature_value.data);
    certificate.verify_signature(Some(key)).is_ok()
        || ecdsa_sha512::is_signed(key, &certificate.signature_algorithm, certificate.tbs_certificate.as_ref(), signature)
}

pub(super) fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Whether a certificate has run out, or is not valid yet.
///
/// # Errors
/// Which of the two.
fn look_at_dates(certificate: &X509Certificate<'_>, rules: Rules<'_>) -> Result<(), CertificateError> {
    let validity = certificate.validity();
    match seconds(rules.now) {
        _ if rules.without_dates => Ok(()),
        now if now < validity.not_before.timestamp() => Err(CertificateError::NotValidYet),
        now if now > validity.not_after.timestamp() => Err(CertificateError::Expired),
        _ => Ok(()),
    }
}

/// What is asked of a leaf, whoever signed it.
pub(super) fn look_at_leaf(leaf: &X509Certificate<'_>, rules: Rules<'_>) -> Result<(), CertificateError> {
    if is_understood(leaf) { look_at_dates(leaf, rules) } else { Err(CertificateError::UnhandledCriticalExtension) }
}

/// That a list by `issuer`, who signed `leaf`, is there, and `leaf` is not in it.
pub(super) fn look_up(leaf: &X509Certificate<'_>, issuer: &X509Certificate<'_>, rules: Rules<'_>) -> Result<(), CertificateError> {
    match rules.lists {
        None => Ok(()),
        Some(_) if !is_for_lists(issuer) => Err(CertificateError::UnknownRevocationStatus),
        Some(lists) => lists.look_up(leaf, issuer, rules.now),
    }
}

/// Where a way may lead.
pub(super) struct Way<'a> {
    /// Those that may sign.
    pub(super) roots: &'a [X509Certificate<'a>],
    pub(super) between: &'a [X509Certificate<'a>],
    pub(super) purpose: Purpose,
    pub(super) rules: Rules<'a>,
}

/// How far a way has come.
#[derive(Clone, Copy)]
struct Step {
    /// Certificates above the leaf so far, and how many of them count for path lengths.
    taken: usize,
    counted: usize,
}

impl Way<'_> {
    /// Those above `leaf`: the one who signed it first, the root last.
    ///
    /// # Errors
    /// Why there is no way.
    pub(super) fn find(&self, leaf: &X509Certificate<'_>) -> Result<Vec<&X509Certificate<'_>>, CertificateError> {
        let mut above = Vec::new();
        self.go_up(leaf, Step { taken: 0, counted: 0 }, &mut { SIGNATURES_MAX }, &mut above)?;
        above.reverse();
        Ok(above)
    }

    /// Puts those above `certificate` into `above`, the root first.
    fn go_up<'w>(
        &'w self,
        certificate: &X509Certificate<'_>,
        step: Step,
        signatures: &mut u32,
        above: &mut Vec<&'w X509Certificate<'w>>,
    ) -> Result<(), CertificateError> {
        // Which webpki does not take either. What is signed, and what says how, are one.
        let said = &certificate.signature_algorithm;
        if *said != certificate.tbs_certificate.signature {
            return Err(CertificateError::BadEncoding);
        }
        if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&said.algorithm) {
            return Err(CertificateError::BadSignature);
        }
        let mut fault = CertificateError::UnknownIssuer;
        let between = if step.taken < BETWEEN_MAX { self.between } else { &[] };
        let all = self.roots.iter().map(|root| (root, true)).chain(between.iter().map(|one| (one, false)));
        let by_name = all.filter(|(issuer, is_root)| {
            issuer.subject().as_raw() == certificate.issuer().as_raw()
                && is_key_of(issuer, authority_key(certificate))
                && (*is_root || may_sign(issuer, self.purpose, false))
        });
        for (issuer, is_root) in by_name {
            *signatures = signatures.checked_sub(1).ok_or(CertificateError::UnknownIssuer)?;
            let verdict = self.look_at(certificate, issuer, step).and_then(|()| {
                let next = Step { taken: step.taken + 1, counted: step.counted + usize::from(!is_self_issued(issuer)) };
                if is_root { Ok(()) } else { self.go_up(issuer, next, signatures, above) }
            });
            match verdict {
                Ok(()) => {
                    above.push(issuer);
                    return Ok(());
                }
                // Two of one name: what is wrong with the one that did sign it says more.
                Err(CertificateError::BadSignature) if fault != CertificateError::UnknownIssuer => {}
                Err(CertificateError::UnknownIssuer) => {}
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    fn look_at(&self, certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>, step: Step) -> Result<(), CertificateError> {
        if !is_signed(certificate, issuer) {
            return Err(CertificateError::BadSignature);
        }
        look_at_dates(issuer, self.rules)?;
        if path_len(issuer).is_some_and(|most| step.counted > most) {
            return Err(CertificateError::InvalidPurpose);
        }
        if is_understood(issuer) { Ok(()) } else { Err(CertificateError::UnhandledCriticalExtension) }
    }
}
