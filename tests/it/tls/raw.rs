//! A client that sends whatever certificate with whatever key.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::support::process::Broker;

/// Trusts everybody: these tests are about what the broker thinks of the client.
#[derive(Debug)]
pub struct Trusting(pub rustls::crypto::WebPkiSupportedAlgorithms);

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn config(broker: &Broker, version: &'static rustls::SupportedProtocolVersion, pair: Option<(&str, &str)>) -> rustls::ClientConfig {
    let provider = rustls::crypto::ring::default_provider();
    let read = |name: &str| std::fs::read(broker.folder.path().join(name)).expect("a file");
    let pair = pair.map(|(certificate, key)| {
        let chain = vec![CertificateDer::from_pem_slice(&read(certificate)).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(&read(key)).expect("a key");
        CertifiedKey::new(chain, provider.key_provider.load_private_key(key).expect("a key of ours"))
    });
    let trusting = Arc::new(Trusting(provider.signature_verification_algorithms));
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]).expect("a version");
    let builder = builder.dangerous().with_custom_certificate_verifier(trusting);
    match pair {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
        None => builder.with_no_client_auth(),
    }
}

/// A handshake in this version of TLS; of version 1.3 the broker's verdict comes after it.
pub fn shake_hands(
    broker: &Broker,
    version: &'static rustls::SupportedProtocolVersion,
    certificate: &str,
    key: &str,
) -> Result<(), String> {
    let socket = TcpStream::connect(("127.0.0.1", broker.port)).expect("accepted");
    finish(broker, socket, version, Some((certificate, key)))
}

/// The handshake over a connection that is open already.
pub fn finish(
    broker: &Broker,
    mut socket: TcpStream,
    version: &'static rustls::SupportedProtocolVersion,
    pair: Option<(&str, &str)>,
) -> Result<(), String> {
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config(broker, version, pair)), name).expect("a client");
    while client.is_handshaking() {
        client.complete_io(&mut socket).map_err(|error| error.to_string())?;
    }
    // A CONNECT of MQTT 3.1.1 without an identifier, and the first byte of what is answered.
    std::io::Write::write_all(&mut rustls::Stream::new(&mut client, &mut socket), b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0")
        .map_err(|error| error.to_string())?;
    let mut first = [0];
    rustls::Stream::new(&mut client, &mut socket).read_exact(&mut first).map_err(|error| error.to_string())?;
    if first == [0x20] { Ok(()) } else { Err(format!("{first:?}")) }
}
