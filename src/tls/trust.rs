//! Whom a certificate is believed: it, those that came with it, and those that are trusted → believed, or why not.
//!
//! The way to a root is found in `path`, by OpenSSL's rules, which mosquitto follows. webpki then judges that way a second time, but for leaves
//! that it does not take at all: those of X.509 version 1, which `openssl x509 -req` makes where nobody gives it extensions, as mosquitto's
//! manual does it, and those that could sign others. Names that an authority may sign for are looked at there.

use std::sync::Arc;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use rustls::{CertificateError, OtherError};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Version;

use super::ecdsa_sha512;
use super::lists::Lists;
use super::path::{self, Way};
use super::usage::{has_comparable_names, is_for_some_names, is_self_signed, is_signed, may_sign, serves};

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
    algorithms: Vec<&'static dyn SignatureVerificationAlgorithm>,
    /// Those that signed themselves: each is believed for its own sake where it comes as a leaf, and where it may sign a chain ends with it.
    themselves: Vec<SelfSigned>,
    /// The others: they help to find the way to a root, as OpenSSL has it, and are no end of it.
    between: Vec<CertificateDer<'static>>,
    /// Roots of which there is no certificate.
    anchors: Vec<TrustAnchor<'static>>,
}

#[derive(Debug, Clone)]
struct SelfSigned {
    der: CertificateDer<'static>,
    /// As DER: a system has hundreds of them, of which few are asked about.
    subject: Vec<u8>,
    may_sign: bool,
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

/// Certificates that came with a leaf and are shown to webpki beside [`Trust::anchors`]: it goes every way before it looks at a signature.
const SENT_MAX: usize = 4;

pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, parsed)| parsed)
}

impl Trust {
    pub fn new(purpose: Purpose, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let algorithms = algorithms.all.iter().copied().chain(ecdsa_sha512::ALGORITHMS).collect();
        Self { purpose, algorithms, themselves: Vec::new(), between: Vec::new(), anchors: Vec::new() }
    }

    /// Trusts one more.
    ///
    /// # Errors
    /// It is damaged.
    pub fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), CertificateError> {
        let parsed = parse(&certificate).ok_or(CertificateError::BadEncoding)?;
        if is_self_signed(&parsed) {
            let (subject, may_sign) = (parsed.subject().as_raw().to_vec(), may_sign(&parsed, self.purpose, true));
            self.themselves.push(SelfSigned { der: certificate, subject, may_sign });
        } else {
            self.between.push(certificate);
        }
        Ok(())
    }

    /// Trusts one more of which there is no certificate.
    pub fn add_root(&mut self, root: TrustAnchor<'static>) {
        self.anchors.push(root);
    }

    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty() && self.themselves.is_empty() && self.between.is_empty()
    }

    /// All of which there is a certificate.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> + Clone {
        self.themselves.iter().map(|one| &one.der).chain(&self.between)
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
        if self.themselves.iter().any(|one| one.der == *leaf) {
            path::look_at_leaf(&parsed, rules)?;
            return path::look_up(&parsed, &parsed, rules);
        }
        // Nobody else vouches for it, a namesake with its key included.
        if is_self_signed(&parsed) && is_signed(&parsed, &parsed) {
            return Err(CertificateError::UnknownIssuer);
        }
        let between: Vec<_> = sent.iter().chain(&self.between).filter_map(parse).collect();
        let is_named = |subject: &[u8]| std::iter::once(&parsed).chain(&between).any(|one| one.issuer().as_raw() == subject);
        let roots = self.themselves.iter().filter(|one| one.may_sign && is_named(&one.subject));
        let roots: Vec<_> = roots.filter_map(|one| parse(&one.der)).collect();
        let way = Way { roots: &roots, between: &between, purpose: self.purpose, rules };
        let above = match way.find(&parsed) {
            Err(CertificateError::UnknownIssuer) if !self.anchors.is_empty() => {
                let sent = sent.get(..SENT_MAX).unwrap_or(sent);
                return self.ask_webpki(leaf, &self.anchors, sent, rules.now);
            }
            found => found?,
        };
        path::look_at_leaf(&parsed, rules)?;
        self.ask_again(leaf, &parsed, &above, rules)?;
        above.first().map_or(Err(CertificateError::UnknownIssuer), |issuer| path::look_up(&parsed, issuer, rules))
    }

    /// webpki's opinion of a way.
    fn ask_again(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &X509Certificate<'_>,
        above: &[&X509Certificate<'_>],
        rules: Rules<'_>,
    ) -> Result<(), CertificateError> {
        let has_names = above.iter().any(|one| is_for_some_names(one));
        // Which webpki does not take; whether their names are those that an authority may sign for, nobody could tell.
        let is_odd = parsed.version() == X509Version::V1 || parsed.is_ca();
        if is_odd || has_names && !has_comparable_names(parsed) {
            return if has_names { Err(CertificateError::UnknownIssuer) } else { Ok(()) };
        }
        let above: Vec<_> = above.iter().map(|one| CertificateDer::from(one.as_raw())).collect();
        let (root, between) = above.split_last().ok_or(CertificateError::UnknownIssuer)?;
        let anchor = webpki::anchor_from_trusted_cert(root).map_err(|error| reason(&error))?;
        match self.ask_webpki(leaf, &[anchor], between, rules.now) {
            Err(CertificateError::Expired | CertificateError::NotValidYet) if rules.without_dates && !has_names => Ok(()),
            verdict => verdict,
        }
    }

    fn ask_webpki(
        &self,
        leaf: &CertificateDer<'_>,
        anchors: &[TrustAnchor<'_>],
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let usage = match self.purpose {
            Purpose::Client => KeyUsage::client_auth(),
            Purpose::Server => KeyUsage::server_auth(),
        };
        let end_entity = EndEntityCert::try_from(leaf).map_err(|error| reason(&error))?;
        let verdict = end_entity.verify_for_usage(&self.algorithms, anchors, between, now, usage, None, None);
        verdict.map(drop).map_err(|error| reason(&error))
    }
}

/// webpki's, in the words of rustls; without what a stranger wrote.
fn reason(error: &webpki::Error) -> CertificateError {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } | E::InvalidCertValidity => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::RequiredEkuNotFoundContext(_) | E::NameConstraintViolation => CertificateError::InvalidPurpose,
        E::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
    }
}
