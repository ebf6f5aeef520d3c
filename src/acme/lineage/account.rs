//! The worker's account in certbot's form, so that certbot renews with the account that obtained the certificate.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::durable;

/// `accounts/acme-v02.api.letsencrypt.org/directory` for Let's Encrypt's directory.
pub fn folder(root: &Path, server: &str) -> PathBuf {
    let place = server.split_once("://").map_or(server, |(_, place)| place);
    let safe = place.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..");
    safe.fold(root.join("accounts"), |folder, part| folder.join(part))
}

/// Writes an account with a P-256 key in PEM form, unless it is there, and returns its name.
///
/// # Errors
/// The key is of another kind, or the volume cannot be written.
pub fn write(root: &Path, server: &str, uri: &str, key: &[u8], now: &str) -> io::Result<String> {
    let jwk = jwk(key).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the account's key is not one of P-256"))?;
    let digest = Sha256::digest(uri.as_bytes());
    let id: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let folder = folder(root, server).join(&id);
    if folder.join("meta.json").exists() {
        return Ok(id);
    }
    durable::folder(&folder, 0o700)?;
    let text = |value: serde_json::Value| value.to_string().into_bytes();
    durable::write(&folder.join("private_key.json"), &text(jwk), 0o400)?;
    durable::write(&folder.join("regr.json"), &text(json!({ "body": {}, "uri": uri })), 0o644)?;
    durable::write(&folder.join("meta.json"), &text(json!({ "creation_dt": now, "creation_host": "darner" })), 0o644)?;
    Ok(id)
}

/// The key as RFC 7518 6.2 writes it.
fn jwk(pem: &[u8]) -> Option<serde_json::Value> {
    // `ECPrivateKey` (RFC 5915): version 1, then 32 bytes.
    const BEFORE_SECRET: &[u8] = &[0x02, 0x01, 0x01, 0x04, 0x20];
    let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
    let der = key.secret_der();
    let at = der.windows(BEFORE_SECRET.len()).position(|window| window == BEFORE_SECRET)? + BEFORE_SECRET.len();
    let secret = URL_SAFE_NO_PAD.encode(der.get(at..at + 32)?);
    let public = rustls::crypto::ring::default_provider().key_provider.load_private_key(key).ok()?.public_key()?.to_vec();
    // An uncompressed point ends the SubjectPublicKeyInfo.
    let point = public.len().checked_sub(65).and_then(|start| public.get(start..)).filter(|point| point.first() == Some(&4))?;
    let (x, y) = point.get(1..)?.split_at_checked(32)?;
    Some(json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y), "d": secret }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_kept_by_the_directory_s_address() {
        let folder = folder(Path::new("/e"), "https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(folder, Path::new("/e/accounts/acme-v02.api.letsencrypt.org/directory"));
        assert_eq!(super::folder(Path::new("/e"), "https://ca.test/../../x"), Path::new("/e/accounts/ca.test/x"));
    }

    #[test]
    fn a_p256_key_becomes_a_jwk() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let jwk = jwk(key.serialize_pem().as_bytes()).expect("a key of P-256");
        let raw = key.public_key_raw();
        assert_eq!(jwk["x"], URL_SAFE_NO_PAD.encode(&raw[1..33]));
        assert_eq!(jwk["y"], URL_SAFE_NO_PAD.encode(&raw[33..65]));
        assert!(super::jwk(b"nothing").is_none());
    }
}
