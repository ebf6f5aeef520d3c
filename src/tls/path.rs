//! The way from a leaf to a root.
//!
//! A stranger chooses the leaf and what comes with it, so each step up is taken only where a signature was found good, and few signatures are
//! looked at.

use rustls::CertificateError;
use rustls::pki_types::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};

use super::trust::{Purpose, Rules};
use super::usage::{KeyName, is_for_lists, is_readable, is_self_issued, is_signed, is_understood, may_sign, path_len};

/// Certificates between a leaf and its root, as webpki has it.
const BETWEEN_MAX: usize = 6;
/// Signatures that are looked at for one leaf: some kinds take a millisecond. Namesakes among the trusted mostly say which key is whose.
const SIGNATURES_MAX: u32 = 24;

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
    look_at_extensions(leaf)?;
    look_at_dates(leaf, rules)
}

fn look_at_extensions(certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    if !is_readable(certificate) {
        return Err(CertificateError::BadEncoding);
    }
    if is_understood(certificate) { Ok(()) } else { Err(CertificateError::UnhandledCriticalExtension) }
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

impl Way<'_> {
    /// Those above `leaf`: the one who signed it first, the root last.
    ///
    /// # Errors
    /// Why there is no way.
    pub(super) fn find(&self, leaf: &X509Certificate<'_>) -> Result<Vec<&X509Certificate<'_>>, CertificateError> {
        let mut above = Vec::new();
        self.go_up(leaf, &mut { SIGNATURES_MAX }, &mut above)?;
        Ok(above)
    }

    /// Puts those above `certificate`, which is the last of `above` or the leaf, behind it; nothing where there is no way.
    fn go_up<'w>(
        &'w self,
        certificate: &X509Certificate<'_>,
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
        let key = KeyName::of_certificate(certificate);
        let between = if above.len() < BETWEEN_MAX { self.between } else { &[] };
        let all = self.roots.iter().map(|root| (root, true)).chain(between.iter().map(|one| (one, false)));
        let by_name = all.filter(|(issuer, is_root)| {
            issuer.subject().as_raw() == certificate.issuer().as_raw()
                && key.is_of(issuer)
                && (*is_root || may_sign(issuer, self.purpose, false))
        });
        for (issuer, is_root) in by_name {
            // In a circle nobody comes to a root.
            if above
                .iter()
                .any(|one| one.public_key().raw == issuer.public_key().raw && one.subject().as_raw() == issuer.subject().as_raw())
            {
                continue;
            }
            *signatures = signatures.checked_sub(1).ok_or(CertificateError::UnknownIssuer)?;
            let counted = above.iter().filter(|one| !is_self_issued(one)).count();
            let verdict = self.look_at(certificate, issuer, counted).and_then(|()| {
                above.push(issuer);
                let verdict = if is_root { Ok(()) } else { self.go_up(issuer, signatures, above) };
                if verdict.is_err() {
                    above.pop();
                }
                verdict
            });
            match verdict {
                Ok(()) => return Ok(()),
                // Two of one name: what is wrong with the one that did sign it says more.
                Err(CertificateError::BadSignature) if fault != CertificateError::UnknownIssuer => {}
                Err(CertificateError::UnknownIssuer) => {}
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    /// Whether `issuer` signed `certificate` and may have done so; `counted`: how many stand between it and the leaf, without those that only
    /// took over a name.
    fn look_at(&self, certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>, counted: usize) -> Result<(), CertificateError> {
        if !is_signed(certificate, issuer) {
            return Err(CertificateError::BadSignature);
        }
        look_at_dates(issuer, self.rules)?;
        if path_len(issuer).is_some_and(|most| counted > most) {
            return Err(CertificateError::InvalidPurpose);
        }
        look_at_extensions(issuer)
    }
}
