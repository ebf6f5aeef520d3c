//! Revocation lists, as OpenSSL takes them: of several by one issuer the newest that is in time counts; one that names no end has none; and
//! a leaf about whom no list says anything is not let in.

use std::collections::HashSet;

use rustls::CertificateError;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{DistributionPointName, IssuingDistributionPoint, ParsedExtension};
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_CRL_DISTRIBUTION_POINTS, OID_X509_EXT_DELTA_CRL_INDICATOR,
    OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
};
use x509_parser::prelude::{FromDer as _, X509Extension};
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};
use x509_parser::x509::ReasonCode;

use super::ecdsa_sha512;
use super::path::seconds;
use super::trust;
use super::usage::KeyName;

/// Those of a file.
#[derive(Debug, Default)]
pub struct Lists(Vec<List>);

#[derive(Debug)]
struct List {
    der: CertificateRevocationListDer<'static>,
    /// Its issuer's name, as DER.
    issuer: Vec<u8>,
    /// What it says of its issuer's key.
    key: KeyName,
    /// Keys of trusted certificates that signed it, as DER; looked at once, since a list may be long.
    signers: Vec<Vec<u8>>,
    /// In seconds since 1970.
    since: i64,
    until: Option<i64>,
    /// Nothing critical is in it that is not looked at here.
    is_understood: bool,
    /// It says that something is not in it: what, it is asked each time.
    is_partial: bool,
    /// It says what has changed since another one.
    is_delta: bool,
    serials: HashSet<Vec<u8>>,
}

impl Lists {
    /// Reads those of a text in PEM form, which may have none; `trusted` are those who may have signed them.
    ///
    /// # Errors
    /// What is damaged, as half a sentence.
    pub fn add<'a>(&mut self, bytes: &[u8], trusted: impl Iterator<Item = &'a CertificateDer<'static>> + Clone) -> Result<(), String> {
        for der in CertificateRevocationListDer::pem_slice_iter(bytes) {
            let der = der.map_err(|error| error.to_string())?;
            let list = List::new(der, trusted.clone()).ok_or_else(|| format!("list {} in it is damaged", self.0.len() + 1))?;
            self.0.push(list);
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// That a list by the issuer of `leaf` is there, and `leaf` is not in it.
    pub(super) fn look_up(&self, leaf: &X509Certificate<'_>, issuer: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
        let now = seconds(now);
        // One that cannot be verified counts: the one that is older may be wrong about `leaf`.
        let about_it: Vec<_> = self.0.iter().filter(|list| list.may_be_by(issuer) && list.is_about(leaf)).collect();
        let rank = |list: &List| (list.is_understood, list.is_in_time(now), list.since);
        let best = about_it.iter().map(|list| rank(list)).max().ok_or(CertificateError::UnknownRevocationStatus)?;
        match best {
            (false, ..) => return Err(CertificateError::UnhandledCriticalExtension),
            (_, false, since) if since > now => return Err(CertificateError::UnknownRevocationStatus),
            (_, false, _) => return Err(CertificateError::ExpiredRevocationList),
            _ => {}
        }
        // Of two that are equally new either may be meant, and one that only says what has changed leaves the one before it as it is.
        let good: Vec<_> = about_it.into_iter().filter(|list| list.is_understood && list.is_in_time(now)).collect();
        let newest_whole = good.iter().filter(|list| !list.is_delta).map(|list| list.since).max().unwrap_or(i64::MIN);
        let counted = || good.iter().filter(|list| list.since == newest_whole || list.is_delta && list.since > newest_whole);
        if counted().any(|list| list.serials.contains(number(leaf.raw_serial()))) {
            return Err(CertificateError::Revoked);
        }
        if counted().all(|list| list.is_by(issuer)) { Ok(()) } else { Err(CertificateError::UnknownRevocationStatus) }
    }
}

/// A serial number without what does not matter.
fn number(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}

fn is_revoked(entry: &RevokedCertificate<'_>) -> bool {
    entry.reason_code().is_none_or(|(_, reason)| reason != ReasonCode::RemoveFromCRL)
}

impl List {
    fn new<'a>(der: CertificateRevocationListDer<'static>, trusted: impl Iterator<Item = &'a CertificateDer<'static>>) -> Option<Self> {
        let parsed = parse(&der)?;
        let issuer = parsed.issuer().as_raw();
        let signers = trusted.filter_map(trust::parse).filter(|one| one.subject().as_raw() == issuer && is_signed(&parsed, one));
        let signers = signers.map(|one| one.public_key().raw.to_vec()).collect();
        const KNOWN: [Oid<'static>; 3] =
            [OID_X509_EXT_ISSUER_DISTRIBUTION_POINT, OID_X509_EXT_DELTA_CRL_INDICATOR, OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER];
        let has = |oid: &Oid<'_>| parsed.extensions().iter().any(|one| one.oid == *oid);
        let is_understood = parsed.extensions().iter().all(|one| !one.critical || KNOWN.contains(&one.oid))
            && parsed.iter_revoked_certificates().all(|entry| entry.extensions().iter().all(|one| !one.critical));
        let revoked = parsed.iter_revoked_certificates().filter(|entry| is_revoked(entry));
        Some(Self {
            issuer: issuer.to_vec(),
            key: KeyName::of(parsed.extensions()),
            signers,
            since: parsed.last_update().timestamp(),
            until: parsed.next_update().map(|until| until.timestamp()),
            is_understood,
            is_partial: has(&OID_X509_EXT_ISSUER_DISTRIBUTION_POINT),
            is_delta: has(&OID_X509_EXT_DELTA_CRL_INDICATOR),
            serials: revoked.map(|entry| number(entry.raw_serial()).to_vec()).collect(),
            der: der.clone(),
        })
    }

    fn is_in_time(&self, now: i64) -> bool {
        self.since <= now && self.until.is_none_or(|until| until >= now)
    }

    /// Whether it has the issuer's name, and nobody else is known to have signed it.
    fn may_be_by(&self, issuer: &X509Certificate<'_>) -> bool {
        let is_anothers = !self.signers.is_empty() && !self.signers.iter().any(|key| key == issuer.public_key().raw);
        self.issuer == issuer.subject().as_raw() && self.key.is_of(issuer) && !is_anothers
    }

    fn is_by(&self, issuer: &X509Certificate<'_>) -> bool {
        self.may_be_by(issuer)
            && (self.signers.iter().any(|key| key == issuer.public_key().raw)
                || parse(&self.der).is_some_and(|parsed| is_signed(&parsed, issuer)))
    }

    /// Whether one like `leaf` would be in it: it may be about authorities only, or those that say that it is about them.
    fn is_about(&self, leaf: &X509Certificate<'_>) -> bool {
        if !self.is_partial {
            return true;
        }
        let Some(parsed) = parse(&self.der) else { return false };
        parsed.extensions().iter().all(|extension| match extension.parsed_extension() {
            ParsedExtension::IssuingDistributionPoint(scope) => covers(scope, leaf),
            _ => extension.oid != OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
        })
    }
}

fn covers(scope: &IssuingDistributionPoint<'_>, leaf: &X509Certificate<'_>) -> bool {
    let is_other_kind = if leaf.is_ca() { scope.only_contains_user_certs } else { scope.only_contains_ca_certs };
    let is_of_part = scope.indirect_crl || scope.only_some_reasons.is_some() || scope.only_contains_attribute_certs;
    !is_other_kind && !is_of_part && scope.distribution_point.as_ref().is_none_or(|point| names(leaf, point))
}

/// Whether it says that lists about it are found there.
fn names(leaf: &X509Certificate<'_>, point: &DistributionPointName<'_>) -> bool {
    let mut said = leaf.extensions().iter().filter(|extension| extension.oid == OID_X509_EXT_CRL_DISTRIBUTION_POINTS);
    said.any(|extension: &X509Extension<'_>| {
        let ParsedExtension::CRLDistributionPoints(points) = extension.parsed_extension() else { return false };
        // Lists there may be about some reasons only, or by another.
        let whole = points.iter().filter(|one| one.reasons.is_none() && one.crl_issuer.is_none());
        whole.filter_map(|one| one.distribution_point.as_ref()).any(|one| match (one, point) {
            (DistributionPointName::FullName(ours), DistributionPointName::FullName(theirs)) => {
                ours.iter().any(|name| theirs.contains(name))
            }
            _ => one == point,
        })
    })
}

fn parse<'a>(list: &'a CertificateRevocationListDer<'_>) -> Option<CertificateRevocationList<'a>> {
    CertificateRevocationList::from_der(list).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, parsed)| parsed)
}

fn is_signed(list: &CertificateRevocationList<'_>, issuer: &X509Certificate<'_>) -> bool {
    let (key, signature) = (issuer.public_key(), &list.signature_value.data);
    list.verify_signature(key).is_ok() || ecdsa_sha512::is_signed(key, &list.signature_algorithm, list.tbs_cert_list.as_ref(), signature)
}
