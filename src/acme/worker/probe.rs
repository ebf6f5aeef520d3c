//! Which certificates our own listeners serve, seen as a client sees them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::fault::{Fault, fault};
use crate::acme::exchange::{Report, Step, Target};
use crate::tls::leaf::Leaf;

const PATIENCE: Duration = Duration::from_secs(8);
const TARGETS_MAX: usize = 64;
/// A proxy's own connection, as for its health checks.
const PROXY_HEADER: &[u8] = b"PROXY UNKNOWN\r\n";

/// Takes whatever it is shown, and keeps it.
#[derive(Debug)]
struct Witness {
    seen: Mutex<Option<String>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = Leaf::of_der(leaf).ok().map(|leaf| leaf.fingerprint());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = leaf;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

pub(super) fn run(targets: &[Target]) -> Result<Report, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| fault(Step::Request, format!("the worker cannot start: {error}")))?;
    let leaves = runtime.block_on(async {
        let mut leaves = Vec::new();
        for target in targets.iter().take(TARGETS_MAX) {
            leaves.push(tokio::time::timeout(PATIENCE, leaf(target)).await.ok().flatten());
        }
        leaves
    });
    runtime.shutdown_background();
    Ok(Report::Probed { leaves })
}

/// The certificate that it shows first, also where it then asks for one that we have not.
async fn leaf(target: &Target) -> Option<String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let witness = Arc::new(Witness { seen: Mutex::default(), provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&witness) as _;
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let mut stream = TcpStream::connect((target.host.as_str(), target.port)).await.ok()?;
    if target.is_proxied {
        stream.write_all(PROXY_HEADER).await.ok()?;
    }
    let name = ServerName::try_from(target.host.clone()).ok()?;
    if let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        let _ = stream.shutdown().await;
    }
    witness.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
