//! ECDSA with SHA-512 on P-256 and P-384, which ring lacks: easy-rsa signs so where `EASYRSA_DIGEST` is sha512, as widely copied instructions
//! have it.

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::{Digest as _, Sha512};
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA512};
use x509_parser::x509::{AlgorithmIdentifier as ParsedAlgorithm, SubjectPublicKeyInfo};

#[derive(Debug, Clone, Copy)]
enum Curve {
    P256,
    P384,
}

/// For webpki.
pub(super) static ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 2] = [&Curve::P256, &Curve::P384];

impl Curve {
    /// `key`: the point; `signature`: DER.
    fn is_valid(self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let hash = Sha512::digest(message);
        match self {
            Self::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(key)
                .and_then(|key| key.verify_prehash(&hash, &p256::ecdsa::Signature::from_der(signature)?))
                .is_ok(),
            Self::P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(key)
                .and_then(|key| key.verify_prehash(&hash, &p384::ecdsa::Signature::from_der(signature)?))
                .is_ok(),
        }
    }
}

impl SignatureVerificationAlgorithm for Curve {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        if self.is_valid(key, message, signature) { Ok(()) } else { Err(InvalidSignature) }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self {
            Self::P256 => alg_id::ECDSA_P256,
            Self::P384 => alg_id::ECDSA_P384,
        }
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA512
    }
}

/// Whether it is this kind of signature, and a good one.
pub(super) fn is_signed(key: &SubjectPublicKeyInfo<'_>, algorithm: &ParsedAlgorithm<'_>, message: &[u8], signature: &[u8]) -> bool {
    if algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA512 {
        return false;
    }
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let curve = match curve {
        Some(curve) if curve == OID_EC_P256 => Curve::P256,
        Some(curve) if curve == OID_NIST_EC_P384 => Curve::P384,
        _ => return false,
    };
    curve.is_valid(&key.subject_public_key.data, message, signature)
}
