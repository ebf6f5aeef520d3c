//! Signed requests that instant-acme does not offer: registering a key that is on the disk already, and other chains.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Response};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::http_client::Client;
use crate::acme::exchange::Eab;

/// A CA may refuse many nonces in a row.
const NONCES_MAX: u32 = 20;

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn jwk(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    let part = |from, to| URL_SAFE_NO_PAD.encode(point.get(from..to).unwrap_or_default());
    json!({ "crv": "P-256", "kty": "EC", "x": part(1, 33), "y": part(33, 65) })
}

fn load(pkcs8: &[u8]) -> Result<EcdsaKeyPair, String> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new()).map_err(|error| error.to_string())
}

/// The payload of newAccount.
pub(super) fn new_account(pkcs8: &[u8], email: Option<&str>, eab: Option<&Eab>, address: &str) -> Result<Value, String> {
    let key = load(pkcs8)?;
    let mut payload = json!({ "termsOfServiceAgreed": true });
    if let Some(email) = email {
        payload["contact"] = json!([format!("mailto:{email}")]);
    }
    if let Some(eab) = eab {
        let secret = URL_SAFE_NO_PAD
            .decode(eab.hmac.trim_end_matches('=').replace('+', "-").replace('/', "_"))
            .map_err(|_| "the HMAC key of the external account binding is no base64url".to_owned())?;
        let protected = encoded(&json!({ "alg": "HS256", "kid": eab.kid, "url": address }));
        let bound = encoded(&jwk(&key));
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret), format!("{protected}.{bound}").as_bytes());
        payload["externalAccountBinding"] = json!({ "protected": protected, "payload": bound, "signature": URL_SAFE_NO_PAD.encode(tag) });
    }
    Ok(payload)
}

/// Posts as the account `id`, or as the bare key without one. No payload is POST-as-GET.
pub(super) async fn post(
    client: &Client,
    pkcs8: &[u8],
    id: Option<&str>,
    new_nonce: &str,
    address: &str,
    payload: Option<&Value>,
) -> Result<Response<Bytes>, String> {
    let key = load(pkcs8)?;
    let payload = payload.map(encoded).unwrap_or_default();
    let mut tries = NONCES_MAX;
    loop {
        tries -= 1;
        let answer = client.send(Method::HEAD, new_nonce, &[], Vec::new()).await.map_err(|error| super::fault::causes(&*error))?;
        let nonce = answer.headers().get("replay-nonce").and_then(|nonce| nonce.to_str().ok()).ok_or("the CA gave no nonce")?;
        let mut protected = json!({ "alg": "ES256", "nonce": nonce, "url": address });
        match id {
            Some(id) => protected["kid"] = json!(id),
            None => protected["jwk"] = jwk(&key),
        }
        let protected = encoded(&protected);
        let signature = key.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).map_err(|error| error.to_string())?;
        let body = json!({ "protected": protected, "payload": payload, "signature": URL_SAFE_NO_PAD.encode(signature) });
        let headers = [(CONTENT_TYPE, "application/jose+json".to_owned())];
        let answer = client
            .send(Method::POST, address, &headers, body.to_string().into_bytes())
            .await
            .map_err(|error| super::fault::causes(&*error))?;
        let refused = answer.status() == http::StatusCode::BAD_REQUEST && answer.body().windows(8).any(|word| word == b"badNonce");
        if !refused || tries == 0 {
            return Ok(answer);
        }
    }
}
