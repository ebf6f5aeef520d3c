//! Accounts in certbot's form: the one that it registered is used on, and ours is left for it.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use md5::{Digest as _, Md5};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use super::durable;
use crate::acme::exchange::KnownAccount;

/// `accounts/acme-v02.api.letsencrypt.org/directory` for Let's Encrypt's directory.
fn folder(root: &Path, server: &str) -> PathBuf {
    let place = server.split_once("://").map_or(server, |(_, place)| place);
    let safe = place.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..");
    safe.fold(root.join("accounts"), |folder, part| folder.join(part))
}

/// The account of this name; `None` where there is none that can be read.
pub fn read(root: &Path, server: &str, id: &str) -> Option<KnownAccount> {
    id.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(())?;
    let folder = folder(root, server).join(id);
    let json = |name| serde_json::from_slice::<Value>(&super::read(&folder.join(name)).ok()?).ok();
    let uri = json("regr.json")?.get("uri")?.as_str()?.to_owned();
    Some(KnownAccount { uri, key: json("private_key.json")? })
}

/// Writes an account with a P-256 key (PKCS#8), unless it is there, and returns the name that certbot gives it.
///
/// # Errors
/// The key is of another kind, or the volume cannot be written.
pub fn write(root: &Path, server: &str, uri: &str, key: &[u8], now: &str) -> io::Result<String> {
    let (jwk, id) = form(key).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the account's key is not one of P-256"))?;
    let folder = folder(root, server).join(&id);
    if read(root, server, &id).is_some_and(|known| known.uri == uri) {
        return Ok(id);
    }
    durable::folder(&folder, 0o700)?;
    let text = |value: &Value| value.to_string().into_bytes();
    durable::write(&folder.join("private_key.json"), &text(&jwk), 0o400)?;
    durable::write(&folder.join("meta.json"), &text(&json!({ "creation_dt": now, "creation_host": "darner" })), 0o644)?;
    durable::write(&folder.join("regr.json"), &text(&json!({ "body": {}, "uri": uri })), 0o644)?;
    Ok(id)
}

/// The key as RFC 7518 6.2 writes it, and its name: the MD5 of the public key in PEM form.
fn form(pkcs8: &[u8]) -> Option<(Value, String)> {
    // `ECPrivateKey` (RFC 5915): version 1, then 32 bytes.
    const BEFORE_SECRET: &[u8] = &[0x02, 0x01, 0x01, 0x04, 0x20];
    let at = pkcs8.windows(BEFORE_SECRET.len()).position(|window| window == BEFORE_SECRET)? + BEFORE_SECRET.len();
    let secret = URL_SAFE_NO_PAD.encode(pkcs8.get(at..at + 32)?);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
    let public = rustls::crypto::ring::default_provider().key_provider.load_private_key(key).ok()?.public_key()?.to_vec();
    // An uncompressed point ends the SubjectPublicKeyInfo.
    let point = public.len().checked_sub(65).and_then(|start| public.get(start..)).filter(|point| point.first() == Some(&4))?;
    let (x, y) = point.get(1..)?.split_at_checked(32)?;
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y), "d": secret });
    let lines: String = STANDARD.encode(&public).as_bytes().chunks(64).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{lines}-----END PUBLIC KEY-----\n");
    let id = Md5::digest(pem.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Some((jwk, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_kept_by_the_directory_s_address() {
        let folder = folder(Path::new("/e"), "https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(folder, Path::new("/e/accounts/acme-v02.api.letsencrypt.org/directory"));
        assert_eq!(super::folder(Path::new("/e"), "https://ca.test/../../x"), Path::new("/e/accounts/ca.test/x"));
        assert_eq!(read(Path::new("/"), "https://ca.test", "../.."), None);
    }

    #[test]
    fn a_p256_key_becomes_a_jwk() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let (jwk, id) = form(&key.serialize_der()).expect("a key of P-256");
        let raw = key.public_key_raw();
        assert_eq!(jwk["x"], URL_SAFE_NO_PAD.encode(&raw[1..33]));
        assert_eq!(jwk["y"], URL_SAFE_NO_PAD.encode(&raw[33..65]));
        assert_eq!(id.len(), 32);
        assert!(form(b"nothing").is_none());
    }
}
