//! tls-alpn-01 (RFC 8737): a CA that knocks says so in its first message, and is shown a certificate made for it instead of the listener's.

use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

const PROTOCOL: &[u8] = b"acme-tls/1";
/// Its header, and the most that it holds.
pub const RECORD_BYTES_MAX: usize = 5 + 16_384;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello {
    /// More must be read to know.
    Incomplete,
    /// Somebody who wants to be served.
    Client,
    /// A CA that checks this name.
    Challenge(String),
}

/// Looks at the first record of a connection.
pub fn hello(bytes: &[u8]) -> Hello {
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk() else { return Hello::Incomplete };
    // No handshake, or a longer record than there is: TLS itself will say so.
    let len = usize::from(u16::from_be_bytes([high, low]));
    if kind != 22 || len > RECORD_BYTES_MAX - 5 {
        return Hello::Client;
    }
    let Some(record) = bytes.get(..5 + len) else { return Hello::Incomplete };
    if !record.windows(PROTOCOL.len()).any(|window| window == PROTOCOL) {
        return Hello::Client;
    }
    let mut acceptor = Acceptor::default();
    let mut unread = record;
    let Ok(Some(accepted)) = acceptor.read_tls(&mut unread).map_or(Ok(None), |_| acceptor.accept().map_err(|_| ())) else {
        return Hello::Client;
    };
    let hello = accepted.client_hello();
    // [RFC 8737 3]: that protocol, and no other.
    let is_only = hello.alpn().is_some_and(|protocols| protocols.eq([PROTOCOL]));
    match hello.server_name().filter(|_| is_only) {
        Some(name) => Hello::Challenge(name.to_ascii_lowercase()),
        None => Hello::Client,
    }
}

/// What such a handshake is done with: a certificate and its key in PEM. `None` where they are none.
pub fn server(pem: &[u8]) -> Option<Arc<rustls::ServerConfig>> {
    let chain = super::certificates(pem).ok().filter(|chain| !chain.is_empty())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider.key_provider.load_private_key(PrivateKeyDer::from_pem_slice(pem).ok()?).ok()?;
    // Not by `from_der`, which does not know the critical extension.
    let pair = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let mut config = versions.with_no_client_auth().with_cert_resolver(Arc::new(pair));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Some(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_record(protocols: &[&[u8]], name: &str) -> Vec<u8> {
        let versions = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let versions = versions.with_safe_default_protocol_versions().expect("versions");
        let mut config = versions.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("a hello");
        bytes
    }

    #[test]
    fn only_a_ca_is_taken_for_one() {
        let ca = first_record(&[b"acme-tls/1"], "A.test");
        assert_eq!(hello(&ca), Hello::Challenge("a.test".into()));
        for len in 0..ca.len() {
            assert_eq!(hello(&ca[..len]), Hello::Incomplete, "{len}");
        }
        for protocols in [&[][..], &[b"mqtt".as_slice()], &[b"acme-tls/1", b"mqtt"], &[b"xacme-tls/1"]] {
            assert_eq!(hello(&first_record(protocols, "a.test")), Hello::Client, "{protocols:?}");
        }
        // The name alone is not the protocol; an address has no name.
        assert_eq!(hello(&first_record(&[b"acme-tls/1"], "127.0.0.1")), Hello::Client);
        assert_eq!(hello(b"\x10\x0c\0\x04MQTT\x04"), Hello::Client);
        assert_eq!(hello(b"\x16\x03\x01\xff\xff"), Hello::Client);
    }

    #[test]
    fn what_is_no_certificate_with_a_key_serves_nobody() {
        let made = crate::tls::self_made::placeholder(&["a.test".into()], crate::tls::self_made::Period::around(1_800_000_000, 1));
        let made = made.expect("a pair");
        assert!(server(format!("{}{}", made.certificate, made.key).as_bytes()).is_some());
        for pem in ["", made.certificate.as_str(), made.key.as_str(), "-----BEGIN CERTIFICATE-----\n"] {
            assert!(server(pem.as_bytes()).is_none());
        }
    }
}
