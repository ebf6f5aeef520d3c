//! An account that certbot registered: its key is RSA, of which instant-acme knows nothing. What that crate signs with a key of its own is
//! signed anew on its way out, so that the account goes on: the CA knows it by `replaces`, by CAA records, and by its limits.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::acme::exchange::KnownAccount;

pub(super) struct GivenAccount {
    pub(super) uri: String,
    /// RFC 7638.
    pub(super) thumbprint: String,
    jwk: Value,
    key: RsaKeyPair,
}

impl GivenAccount {
    /// `None` for a key that cannot be used: another account is registered then.
    pub(super) fn new(known: &KnownAccount) -> Option<Self> {
        let part = |name: &str| URL_SAFE_NO_PAD.decode(known.key.get(name)?.as_str()?.trim_end_matches('=')).ok();
        (known.key.get("kty")? == "RSA").then_some(())?;
        let (n, e) = (part("n")?, part("e")?);
        let jwk = json!({ "e": URL_SAFE_NO_PAD.encode(&e), "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(&n) });
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n, e },
            d: part("d")?,
            p: part("p")?,
            q: part("q")?,
            dP: part("dp")?,
            dQ: part("dq")?,
            qInv: part("qi")?,
        };
        let key = RsaKeyPair::from_components(&components).ok()?;
        // serde_json keeps its members sorted, as RFC 7638 wants them.
        let thumbprint = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, jwk.to_string().as_bytes()));
        Some(Self { uri: known.uri.clone(), thumbprint, jwk, key })
    }

    /// A signed request (RFC 8555 6.2) with our signature instead; `None` where it is none.
    pub(super) fn sign_anew(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut jws: Value = serde_json::from_slice(body).ok()?;
        let mut protected: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jws.get("protected")?.as_str()?).ok()?).ok()?;
        protected["alg"] = json!("RS256");
        if protected.get("jwk").is_some() {
            protected["jwk"] = self.jwk.clone();
        }
        let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
        let payload = jws.get("payload")?.as_str()?;
        let mut signature = vec![0; self.key.public().modulus_len()];
        let message = format!("{protected}.{payload}");
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).ok()?;
        jws["signature"] = json!(URL_SAFE_NO_PAD.encode(signature));
        jws["protected"] = json!(protected);
        Some(jws.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rsa_key_is_no_account() {
        for key in [json!({}), json!({ "kty": "EC" }), json!({ "kty": "RSA", "n": "AQ", "e": "AQAB" }), json!(7)] {
            assert!(GivenAccount::new(&KnownAccount { uri: "u".into(), key }).is_none());
        }
    }
}
