//! Whom a certificate is believed: it, those that came with it, and those that are trusted → believed, or why not.
//!
//! webpki finds the way from a certificate to a root. What OpenSSL, and so mosquitto, asks beyond that is asked here: whether a root may sign
//! (webpki takes each one that is trusted for an authority), its dates, and what a key is for. Leaves that webpki does not take at all
//! go the way in `path`.

use std::cell::RefCell;

use rustls::CertificateError;
use rustls::OtherError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Version;

use super::lists::Lists;
use super::path::{self, Way, is_for_lists, is_self_issued, look_at_dates, may_sign, path_len, serves};

/// What the peer is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Client,
    Server,
}

/// The certificates that are trusted.
#[derive(Debug, Clone)]
pub struct Trust {
    purpose: Purpose,
    algorithms: WebPkiSupportedAlgorithms,
    /// Those that may sign and that nobody signed but they themselves: with one of them a chain ends.
    roots: Vec<TrustAnchor<'static>>,
    /// The certificate of each of `roots`, where there is one.
    certificates: Vec<Option<CertificateDer<'static>>>,
    /// Self-signed, so that one which comes as a leaf is believed for its own sake, whether it may sign or not.
    themselves: Vec<CertificateDer<'static>>,
    /// The others: they help to find the way to a root, as OpenSSL has it, and are no end of it.
    between: Vec<CertificateDer<'static>>,
}

/// What else a certificate is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// `None`: nobody is looked up.
    pub lists: Option<&'a Lists>,
    /// Nobody is refused for being out of date, neither the leaf nor who signed it.
    pub without_dates: bool,
    pub now: UnixTime,
}

pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, parsed)| parsed)
}

impl Trust {
    pub fn new(purpose: Purpose, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let (roots, certificates, themselves, between) = Default::default();
        Self { purpose, algorithms, roots, certificates, themselves, between }
    }

    /// Trusts one more.
    ///
    /// # Errors
    /// It is damaged.
    pub fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), CertificateError> {
        let parsed = parse(&certificate).ok_or(CertificateError::BadEncoding)?;
        if !is_self_issued(&parsed) {
            self.between.push(certificate);
            return Ok(());
        }
        if may_sign(&parsed, self.purpose) {
            self.roots.push(webpki::anchor_from_trusted_cert(&certificate).map_err(|error| reason(&error))?.to_owned());
            self.certificates.push(Some(certificate.clone()));
        }
        self.themselves.push(certificate);
        Ok(())
    }

    /// Trusts one more of which there is no certificate.
    pub fn add_root(&mut self, root: TrustAnchor<'static>) {
        self.roots.push(root);
        self.certificates.push(None);
    }

    pub fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.themselves.is_empty() && self.between.is_empty()
    }

    /// All of which there is a certificate.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> + Clone {
        self.themselves.iter().chain(&self.between)
    }

    /// Whether `leaf` is believed, which came with `sent`. What it is called is not looked at.
    ///
    /// # Errors
    /// Why it is not.
    pub fn judge(&self, leaf: &CertificateDer<'_>, sent: &[CertificateDer<'_>], rules: Rules<'_>) -> Result<(), CertificateError> {
        let parsed = parse(leaf).ok_or(CertificateError::BadEncoding)?;
        if !serves(&parsed, self.purpose) {
            return Err(CertificateError::InvalidPurpose);
        }
        if self.themselves.contains(leaf) {
            return path::judge_itself(&parsed, rules);
        }
        // Nobody else vouches for it, a namesake with its key included.
        if is_self_issued(&parsed) && parsed.verify_signature(None).is_ok() {
            return Err(CertificateError::UnknownIssuer);
        }
        // webpki takes no leaf that could sign, and none of version 1.
        if parsed.version() == X509Version::V1 || parsed.is_ca() {
            return self.go_up(&parsed, sent, rules);
        }
        match self.ask_webpki(leaf, &parsed, sent, rules) {
            Err(error) if rules.without_dates && is_about_dates(&error) => self.go_up(&parsed, sent, rules),
            verdict => verdict,
        }
    }

    fn go_up(&self, leaf: &X509Certificate<'_>, sent: &[CertificateDer<'_>], rules: Rules<'_>) -> Result<(), CertificateError> {
        let roots: Vec<_> = self.certificates.iter().flatten().filter_map(parse).collect();
        let between: Vec<_> = sent.iter().chain(&self.between).filter_map(parse).collect();
        path::judge(leaf, &Way { roots: &roots, between: &between, purpose: self.purpose, rules })
    }

    fn ask_webpki(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &X509Certificate<'_>,
        sent: &[CertificateDer<'_>],
        rules: Rules<'_>,
    ) -> Result<(), CertificateError> {
        let end_entity = EndEntityCert::try_from(leaf).map_err(|error| reason(&error))?;
        let between: Vec<_> = sent.iter().chain(&self.between).map(|one| CertificateDer::from(one.as_ref())).collect();
        let usage = match self.purpose {
            Purpose::Client => KeyUsage::client_auth(),
            Purpose::Server => KeyUsage::server_auth(),
        };
        // Of a way that webpki has found and we do not go; it looks for another one then.
        let fault = RefCell::new(None);
        let look = |path: &VerifiedPath<'_>| {
            self.look_at(path, parsed, rules).map_err(|error| {
                *fault.borrow_mut() = Some(error);
                webpki::Error::UnknownIssuer
            })
        };
        let verdict =
            end_entity.verify_for_usage(self.algorithms.all, &self.roots, &between, rules.now, usage, None, Some(&look)).map(drop);
        verdict.map_err(|error| fault.take().unwrap_or_else(|| reason(&error)))
    }

    /// What webpki does not ask about a way to a root.
    fn look_at(&self, path: &VerifiedPath<'_>, leaf: &X509Certificate<'_>, rules: Rules<'_>) -> Result<(), CertificateError> {
        let index = self.roots.iter().position(|root| std::ptr::eq(root, path.anchor()));
        let root = index.and_then(|index| self.certificates.get(index)).and_then(Option::as_ref);
        if let Some(root) = root {
            let root = parse(root).ok_or(CertificateError::BadEncoding)?;
            if !rules.without_dates {
                look_at_dates(&root, rules.now)?;
            }
            if path_len(&root).is_some_and(|most| path.intermediate_certificates().count() > most) {
                return Err(CertificateError::InvalidPurpose);
            }
        }
        let Some(lists) = rules.lists else { return Ok(()) };
        let issuer = path.intermediate_certificates().next().map(webpki::Cert::der).or(root.cloned());
        let issuer = issuer.as_ref().and_then(parse).filter(is_for_lists).ok_or(CertificateError::UnknownRevocationStatus)?;
        lists.look_up(leaf, &issuer, rules.now)
    }
}

fn is_about_dates(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Expired | CertificateError::NotValidYet)
}

/// webpki's, in the words of rustls.
fn reason(error: &webpki::Error) -> CertificateError {
    use webpki::Error as E;
    match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { .. } | E::InvalidCertValidity => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        E::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
    }
}
