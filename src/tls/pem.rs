//! The parts of a file in PEM form that are wanted, and nothing else of it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

/// Only the certificates. A file that is damaged stays as it is, for its reader to say so.
pub(super) fn certificates(bytes: &[u8]) -> Vec<u8> {
    only::<CertificateDer<'_>>(bytes, "CERTIFICATE")
}

/// Only the revocation lists, in the same way.
pub(super) fn lists(bytes: &[u8]) -> Vec<u8> {
    only::<CertificateRevocationListDer<'_>>(bytes, "X509 CRL")
}

fn only<T: PemObject + AsRef<[u8]>>(bytes: &[u8], label: &str) -> Vec<u8> {
    let mut text = String::new();
    for part in T::pem_slice_iter(bytes) {
        let Ok(part) = part else { return bytes.to_vec() };
        text += &format!("-----BEGIN {label}-----\n");
        for line in BASE64_STANDARD.encode(part).as_bytes().chunks(64) {
            text += &String::from_utf8_lossy(line);
            text.push('\n');
        }
        text += &format!("-----END {label}-----\n");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_remarks_are_left_out() {
        let pem = |label: &str, text: &str| format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
        let (one, two, list) = (pem("CERTIFICATE", &"QUJD".repeat(16)), pem("CERTIFICATE", "QUJDRA=="), pem("X509 CRL", "QUJD"));
        let all = format!("subject: a\n{one}{}\n{list}{two}", pem("PRIVATE KEY", "QUJD"));
        assert_eq!(String::from_utf8_lossy(&certificates(all.as_bytes())), format!("{one}{two}"));
        assert_eq!(lists(all.as_bytes()), list.as_bytes());
        assert_eq!(certificates(b"no certificate"), b"");
        let broken = &one.as_bytes()[..60];
        assert_eq!(certificates(broken), broken);
    }
}
