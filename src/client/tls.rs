//! TLS as the two tools speak it: what the options ask for, and a connection that never blocks in the middle of a record.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::tls::trust::{Purpose, Rules, Trust};
use crate::tls::{self, signatures};

/// Where Linux distributions keep the authorities of the system, the usual one first.
const SYSTEM_AUTHORITIES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The options for TLS, as given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    pub cafile: Option<PathBuf>,
    pub capath: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// OpenSSL's names with colons.
    pub ciphers: Option<String>,
    pub alpn: Option<String>,
    /// The lowest version: `tlsv1.2` or `tlsv1.3`.
    pub version: Option<String>,
    /// The name in the broker's certificate does not matter; its signature does.
    pub insecure: bool,
    pub system_authorities: bool,
}

impl TlsOptions {
    /// Whether TLS is spoken at all: mosquitto's tools ask for an authority in one way or another.
    pub fn is_wanted(&self) -> bool {
        self.cafile.is_some() || self.capath.is_some() || self.system_authorities
    }

    /// Reads the files and makes what connections share.
    ///
    /// # Errors
    /// What is wrong with which option or file, as half a sentence.
    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let suites = tls::cipher_suites(self.ciphers.as_deref())?;
        let provider = Arc::new(CryptoProvider { cipher_suites: suites, ..rustls::crypto::ring::default_provider() });
        let versions: &[_] = match self.version.as_deref() {
            Some("tlsv1.3") => &[&rustls::version::TLS13],
            _ => &[&rustls::version::TLS13, &rustls::version::TLS12],
        };
        let algorithms = provider.signature_verification_algorithms;
        let verifier = BrokerVerifier { trust: self.trust(algorithms)?, algorithms, any_name: self.insecure };
        let pair = self.own_pair(&provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| format!("no cipher of --ciphers is left for --tls-version: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match pair {
            Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// What the broker is shown where it asks.
    fn own_pair(&self, provider: &CryptoProvider) -> Result<Option<CertifiedKey>, String> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        let pair = tls::certified_key(certificates(cert)?, private_key(key)?, provider);
        let pair = pair.map_err(|reason| format!("{}: {reason}", key.display()))?;
        pair.ok_or_else(|| format!("{} is not the key of {}", key.display(), cert.display())).map(Some)
    }

    /// Those of --cafile and --capath, and those of the system where they are asked for.
    fn trust(&self, algorithms: WebPkiSupportedAlgorithms) -> Result<Trust, String> {
        let mut trust = Trust::new(Purpose::Server, algorithms);
        for file in self.cafile.iter().cloned().chain(self.capath.as_deref().map(files_in).transpose()?.into_iter().flatten()) {
            for authority in certificates(&file)? {
                trust.add(authority).map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
        if self.system_authorities {
            let own = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
            let mut files = own.into_iter().chain(SYSTEM_AUTHORITIES.iter().map(PathBuf::from));
            match files.find_map(|file| certificates(&file).ok()) {
                // Distributions carry a few authorities that no longer parse; the others count.
                Some(authorities) => authorities.into_iter().for_each(|authority| drop(trust.add(authority))),
                None => webpki_roots::TLS_SERVER_ROOTS.iter().for_each(|root| trust.add_root(root.clone())),
            }
        }
        if trust.is_empty() { Err("no certificate of an authority in PEM form was found".to_owned()) } else { Ok(trust) }
    }
}

/// The certificates of a folder as `openssl rehash` leaves it; other files are passed over.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {}", folder.display(), super::dial::plain(&error)))?;
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    Ok(files.filter(|file| tls::is_hashed(file) && certificates(file).is_ok()).collect())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {}", file.display(), super::dial::plain(&error)))?;
    let found = tls::certificates(&bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    if found.is_empty() { Err(format!("{}: no certificate in PEM form is in it", file.display())) } else { Ok(found) }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {}", file.display(), super::dial::plain(&error)))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| format!("{}: {}", file.display(), tls::NO_KEY))
}

/// Checks the broker's certificate as OpenSSL does for mosquitto's tools.
#[derive(Debug)]
struct BrokerVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
    any_name: bool,
}

impl ServerCertVerifier for BrokerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.trust.judge(end_entity, intermediates, Rules { lists: None, without_dates: false, now })?;
        if self.any_name || is_common_name(end_entity, server_name) {
            return Ok(ServerCertVerified::assertion());
        }
        let named = ParsedCertificate::try_from(end_entity).map_err(|_| CertificateError::NotValidForName)?;
        verify_server_name(&named, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signatures::verify_tls12(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signatures::verify_tls13(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A certificate without alternative DNS names, as many a house made for itself, is for the host of its common name, which mosquitto's tools
/// take for an address, too.
fn is_common_name(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    if tls::has_dns_name(&certificate) != Some(false) {
        return false;
    }
    let host = host.to_str();
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.is_some_and(|name| match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(parent), Some((_, above))) => parent.contains('.') && parent.eq_ignore_ascii_case(above),
        _ => name.eq_ignore_ascii_case(&host),
    })
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct TlsStream {
    pub(super) tcp: TcpStream,
    connection: ClientConnection,
}

impl TlsStream {
    /// Shakes hands, blocking, until the deadline if there is one.
    ///
    /// # Errors
    /// Why the broker is not trusted or does not speak TLS, as half a sentence.
    pub fn start(config: Arc<ClientConfig>, host: &str, mut tcp: TcpStream, until: Option<Instant>) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is no host name that a certificate can be for"))?;
        let mut connection = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
        while connection.is_handshaking() {
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                let set = tcp.set_read_timeout(Some(left).filter(|left| !left.is_zero()));
                if left.is_zero() || set.is_err() {
                    return Err("the broker did not finish the TLS handshake in time".to_owned());
                }
            }
            connection.complete_io(&mut tcp).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => "the broker closed the connection during the TLS handshake".to_owned(),
                _ => super::dial::plain(&error),
            })?;
        }
        Ok(Self { tcp, connection })
    }

    /// Whether bytes wait inside for the socket to take them.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Says that nothing more will be written.
    pub fn finish(&mut self) {
        self.connection.send_close_notify();
        let _ = self.flush();
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.connection.read_tls(&mut self.tcp)?;
            let processed = self.connection.process_new_packets();
            // An answer or an alert goes out when the socket takes it.
            let _ = self.flush();
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nothing is taken before what is inside has left, so that little is ever inside.
        self.flush()?;
        let taken = self.connection.writer().write(bytes)?;
        match self.flush() {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut self.tcp)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_counts_where_no_other_dns_name_is_said() {
        let is_for = |common_name: &str, others: &[&str], host: &str| {
            let mut params =
                rcgen::CertificateParams::new(others.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names");
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
            let certificate = params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("signed");
            is_common_name(certificate.der(), &ServerName::try_from(host.to_owned()).expect("a host"))
        };
        assert!(is_for("broker", &[], "BROKER") && is_for("192.168.1.10", &[], "192.168.1.10"));
        assert!(is_for("broker", &["192.168.1.10"], "broker"), "an address is no DNS name");
        assert!(!is_for("broker", &["other"], "broker") && !is_for("broker", &[], "other"));
        assert!(is_for("*.house.example", &[], "a.house.example"));
        for host in ["house.example", "a.b.house.example", "b.other.example"] {
            assert!(!is_for("*.house.example", &[], host), "{host}");
        }
        assert!(!is_for("*.example", &[], "a.example") && !is_for("*", &[], "a"));
    }
}
