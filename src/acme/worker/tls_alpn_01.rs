//! tls-alpn-01 (RFC 8737): a certificate that proves a name, left where the broker finds it when the CA knocks.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{CertificateParams, CustomExtension, KeyPair};

use super::storage;
use crate::acme::exchange::Request;

fn folder(request: &Request) -> PathBuf {
    request.challenge_dir.clone().unwrap_or_else(|| request.work_dir.join("challenges"))
}

/// Removes what an attempt left that was killed.
pub(super) fn clear(request: &Request) {
    let entries = std::fs::read_dir(folder(request)).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "pem")) {
        let _ = std::fs::remove_file(entry.path());
    }
}

/// Writes the certificate for a name, with its key. The key is good for nothing else, so that whoever runs the broker may read it.
pub(super) fn show(request: &Request, name: &str, digest: &[u8]) -> Result<PathBuf, String> {
    if digest.len() != 32 {
        return Err("the proof is no SHA-256".into());
    }
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|error| error.to_string())?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    let path = folder(request).join(format!("{}.pem", server_name(name)));
    let bad = |error: std::io::Error| format!("{} cannot be written: {error}", path.display());
    storage::write(&path, format!("{}{}", certificate.pem(), key.serialize_pem()).as_bytes()).map_err(bad)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).map_err(bad)?;
    Ok(path)
}

/// What the CA calls it in the handshake, which knows no addresses [RFC 8738 6].
fn server_name(name: &str) -> String {
    match name.parse() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let digits = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            digits.map(|digit| format!("{digit:x}.")).collect::<String>() + "ip6.arpa"
        }
        Err(_) => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_called_as_in_the_dns() {
        assert_eq!(server_name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert_eq!(server_name("::1"), format!("1.{}ip6.arpa", "0.".repeat(31)));
        assert_eq!(server_name("A.test"), "a.test");
    }
}
