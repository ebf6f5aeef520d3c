//! Revocation lists, as OpenSSL takes them: of several by one issuer the newest that is in time counts; one that names no end has none; and
//! a leaf about whom no list says anything is not let in.

use std::collections::HashSet;

use rustls::CertificateError;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, IssuingDistributionPoint, ParsedExtension};
use x509_parser::oid_registry::{
    OID_X509_EXT_CRL_DISTRIBUTION_POINTS, OID_X509_EXT_DELTA_CRL_INDICATOR, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
};
use x509_parser::prelude::{FromDer as _, X509Extension};
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};
use x509_parser::x509::ReasonCode;

use super::path::seconds;
use super::trust;

/// Those of a file.
#[derive(Debug, Default)]
pub struct Lists(Vec<List>);

#[derive(Debug)]
struct List {
    der: CertificateRevocationListDer<'static>,
    /// Its issuer's name, as DER.
    issuer: Vec<u8>,
    /// Keys of trusted certificates that signed it, as DER; looked at once, since a list may be long.
    signers: Vec<Vec<u8>>,
    /// In seconds since 1970.
    since: i64,
    until: Option<i64>,
    /// Nothing critical is in it that is not looked at here.
    is_understood: bool,
    /// It says that something is not in it: what, it is asked each time.
    is_partial: bool,
    serials: HashSet<Vec<u8>>,
}

impl Lists {
    /// Reads a file in PEM form; `trusted` are those who may have signed what is in it.
    ///
    /// # Errors
    /// What is damaged, as half a sentence.
    pub fn read<'a>(bytes: &[u8], trusted: impl Iterator<Item = &'a CertificateDer<'static>> + Clone) -> Result<Self, String> {
        let mut lists = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(bytes) {
            let der = der.map_err(|error| error.to_string())?;
            let list = List::new(der, trusted.clone()).ok_or_else(|| format!("list {} in it is damaged", lists.len() + 1))?;
            lists.push(list);
        }
        if lists.is_empty() { Err("no list in PEM form is in it".into()) } else { Ok(Self(lists)) }
    }

    /// That a list by the issuer of `leaf` is there, and `leaf` is not in it.
    pub(super) fn look_up(&self, leaf: &X509Certificate<'_>, issuer: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
        let now = seconds(now);
        let about_it = self.0.iter().filter(|list| list.is_by(issuer) && list.is_about(leaf));
        let best = about_it.max_by_key(|list| (list.is_understood, list.is_in_time(now), list.since));
        let list = best.ok_or(CertificateError::UnknownRevocationStatus)?;
        if !list.is_understood {
            return Err(CertificateError::UnhandledCriticalExtension);
        }
        match list.until {
            Some(until) if until < now => return Err(CertificateError::ExpiredRevocationList),
            _ if list.since > now => return Err(CertificateError::UnknownRevocationStatus),
            _ => {}
        }
        if list.serials.contains(number(leaf.raw_serial())) { Err(CertificateError::Revoked) } else { Ok(()) }
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
        let is_about_scope =
            |one: &X509Extension<'_>| [OID_X509_EXT_ISSUER_DISTRIBUTION_POINT, OID_X509_EXT_DELTA_CRL_INDICATOR].contains(&one.oid);
        let is_understood = parsed.extensions().iter().all(|one| !one.critical || is_about_scope(one))
            && parsed.iter_revoked_certificates().all(|entry| entry.extensions().iter().all(|one| !one.critical));
        let revoked = parsed.iter_revoked_certificates().filter(|entry| is_revoked(entry));
        Some(Self {
            issuer: issuer.to_vec(),
            signers,
            since: parsed.last_update().timestamp(),
            until: parsed.next_update().map(|until| until.timestamp()),
            is_understood,
            is_partial: parsed.extensions().iter().any(is_about_scope),
            serials: revoked.map(|entry| number(entry.raw_serial()).to_vec()).collect(),
            der: der.clone(),
        })
    }

    fn is_in_time(&self, now: i64) -> bool {
        self.since <= now && self.until.is_none_or(|until| until >= now)
    }

    fn is_by(&self, issuer: &X509Certificate<'_>) -> bool {
        self.issuer == issuer.subject().as_raw()
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
            _ if extension.oid == OID_X509_EXT_DELTA_CRL_INDICATOR => false,
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
        points.iter().filter_map(|one| one.distribution_point.as_ref()).any(|one| match (one, point) {
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
    list.verify_signature(issuer.public_key()).is_ok()
}
