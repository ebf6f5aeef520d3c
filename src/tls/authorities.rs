//! The dates of authorities: OpenSSL asks for them, webpki only for those of what stands below.

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};

use super::identity;

/// Whether a certificate has run out, or is not valid yet.
///
/// # Errors
/// Which of the two, or that it is damaged.
pub fn look_at_dates(certificate: &[u8], now: UnixTime) -> Result<(), CertificateError> {
    let (first, last) = identity::period(certificate).ok_or(CertificateError::BadEncoding)?;
    match seconds(now) {
        now if now < first => Err(CertificateError::NotValidYet),
        now if now > last => Err(CertificateError::Expired),
        _ => Ok(()),
    }
}

pub(super) fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// For a chain that leads to `trusted`: that it also leads to those of them that are in time, as `verify` sees it, or to `others`.
///
/// # Errors
/// What is the matter with the one that it leads to.
pub fn are_in_time(
    trusted: &[CertificateDer<'static>],
    others: &RootCertStore,
    chain: &[&CertificateDer<'_>],
    now: UnixTime,
    verify: impl FnOnce(RootCertStore) -> Result<(), Error>,
) -> Result<(), Error> {
    let faults: Vec<_> = trusted.iter().map(|authority| look_at_dates(authority, now).err()).collect();
    if faults.iter().all(Option::is_none) {
        return Ok(());
    }
    let mut roots = others.clone();
    for (authority, _) in trusted.iter().zip(&faults).filter(|(_, fault)| fault.is_none()) {
        roots.add(authority.clone())?;
    }
    if !roots.is_empty() && verify(roots).is_ok() {
        return Ok(());
    }
    let issuers: Vec<_> = chain.iter().filter_map(|certificate| identity::names(certificate)).map(|(_, issuer)| issuer).collect();
    let is_above = |authority: &[u8]| identity::names(authority).is_some_and(|(subject, _)| issuers.contains(&subject));
    let fault = trusted.iter().zip(faults).filter(|(authority, _)| is_above(authority)).find_map(|(_, fault)| fault);
    Err(fault.unwrap_or(CertificateError::UnknownIssuer).into())
}
