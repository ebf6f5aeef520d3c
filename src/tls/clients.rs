//! Whose certificates clients may come with: webpki judges them, but for those of version 1, the dates of authorities and, with
//! `disable_client_cert_date_checks`, their own.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{authorities, identity, version_1};

#[derive(Debug)]
pub(super) struct Clients {
    pub(super) webpki: Arc<dyn ClientCertVerifier>,
    pub(super) trusted: Vec<CertificateDer<'static>>,
    pub(super) lists: Option<Vec<CertificateRevocationListDer<'static>>>,
    pub(super) provider: Arc<CryptoProvider>,
    /// `disable_client_cert_date_checks`: those that have run out, or are not valid yet, are taken, and all else is checked, by one that does
    /// not ask when lists end, since it judges as of another day.
    pub(super) on_another_day: Option<Arc<dyn ClientCertVerifier>>,
}

fn is_about_dates(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(error, Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }))
}

impl Clients {
    /// That the list by the issuer of `leaf`, if there is one, has not ended.
    fn look_at_list(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
        let Some((_, issuer)) = identity::names(leaf) else { return Err(CertificateError::BadEncoding) };
        let lists = self.lists.iter().flatten().filter_map(|list| CertificateRevocationList::from_der(list).ok());
        let theirs = lists.map(|(_, list)| list).find(|list| list.issuer().as_raw() == issuer);
        let has_ended = theirs.is_some_and(|list| version_1::has_ended(&list, authorities::seconds(now)));
        if has_ended { Err(CertificateError::ExpiredRevocationList) } else { Ok(()) }
    }

    /// That those above `leaf`, whom webpki found, have not run out.
    fn look_at_authorities(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let chain: Vec<_> = std::iter::once(leaf).chain(intermediates).collect();
        // Revocation has been looked at.
        authorities::are_in_time(&self.trusted, &RootCertStore::empty(), &chain, now, |roots| {
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
            let verifier = builder.build().map_err(|error| Error::General(error.to_string()))?;
            verifier.verify_client_cert(leaf, intermediates, now).map(drop)
        })
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let rules = version_1::Rules { trusted: &self.trusted, lists: self.lists.as_deref(), without_dates: self.on_another_day.is_some() };
        if let Some(verdict) = version_1::verify(leaf, rules, now) {
            return verdict.map(|()| ClientCertVerified::assertion()).map_err(Error::from);
        }
        let verdict = self.webpki.verify_client_cert(leaf, intermediates, now);
        match (verdict, &self.on_another_day) {
            (Err(error), Some(other)) if is_about_dates(&error) => {
                let Some(last_day) = identity::period(leaf).and_then(|(_, last)| u64::try_from(last).ok()) else { return Err(error) };
                self.look_at_list(leaf, now)?;
                // The last day on which its own dates are right.
                let then = UnixTime::since_unix_epoch(Duration::from_secs(last_day));
                other.verify_client_cert(leaf, intermediates, then)
            }
            (Ok(verdict), None) => self.look_at_authorities(leaf, intermediates, now).map(|()| verdict),
            (verdict, _) => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        version_1::verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
            .unwrap_or_else(|| self.webpki.verify_tls12_signature(message, certificate, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        version_1::verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
            .unwrap_or_else(|| self.webpki.verify_tls13_signature(message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
