//! The certificate's key and the request that is signed with it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};

use crate::acme::exchange::KeyType;

/// A new key in PEM (PKCS#8). RSA comes from another crate, since ring makes no such keys; ring signs with them.
pub(super) fn generate(kind: KeyType) -> Result<String, String> {
    let curve = |algorithm| KeyPair::generate_for(algorithm).map(|key| key.serialize_pem()).map_err(|error| error.to_string());
    match kind {
        KeyType::P256 => curve(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::P384 => curve(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => rsa_key(2048),
        KeyType::Rsa3072 => rsa_key(3072),
        KeyType::Rsa4096 => rsa_key(4096),
    }
}

fn rsa_key(bits: usize) -> Result<String, String> {
    let key = rsa::PrivateKey::new(&mut rsa::rand_core::UnwrapErr(getrandom::SysRng), bits).map_err(|error| error.to_string())?;
    key.to_pkcs8_pem(LineEnding::LF).map(|pem| pem.as_str().to_owned()).map_err(|error| error.to_string())
}

/// DER of the certificate signing request.
pub(super) fn request(key: &str, domains: &[String]) -> Result<Vec<u8>, String> {
    let key = KeyPair::from_pem(key).map_err(|error| error.to_string())?;
    let mut params = CertificateParams::new(domains.to_vec()).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(&key).map(|request| request.der().to_vec()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_signs_a_request() {
        for kind in [KeyType::P256, KeyType::P384, KeyType::Rsa2048] {
            let key = generate(kind).expect("a key");
            request(&key, &["a.example".into(), "127.0.0.1".into()]).expect("a request");
        }
    }
}
