//! Whose certificates clients may come with, as rustls asks for it.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::lists::Lists;
use super::trust::{Rules, Trust};
use super::{identity, signatures};

#[derive(Debug)]
pub(super) struct Clients {
    trust: Trust,
    lists: Option<Lists>,
    /// `disable_client_cert_date_checks`.
    without_dates: bool,
    algorithms: WebPkiSupportedAlgorithms,
    /// What a client that has several certificates chooses by.
    subjects: Vec<DistinguishedName>,
}

impl Clients {
    pub(super) fn new(trust: Trust, lists: Option<Lists>, without_dates: bool, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let subjects = trust.certificates().filter_map(|one| identity::names(one)).map(|(subject, _)| subject.to_vec().into()).collect();
        Self { trust, lists, without_dates, algorithms, subjects }
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.trust.judge(leaf, sent, Rules { lists: self.lists.as_ref(), without_dates: self.without_dates, now })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signatures::verify_tls12(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signatures::verify_tls13(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
