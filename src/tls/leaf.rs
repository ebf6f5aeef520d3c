//! What a certificate and its key say about themselves, and whether they belong together.

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::certificates;

/// The first certificate of a chain. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// DNS names and IP addresses, in lower case, sorted.
    pub names: Vec<String>,
    pub not_before: i64,
    pub not_after: i64,
    /// The issuer's common name, or its whole name.
    pub issuer: String,
    pub der: Vec<u8>,
    /// How many certificates come with it.
    pub others: usize,
}

impl Leaf {
    /// Of a chain in PEM form.
    ///
    /// # Errors
    /// Why it is none, as half a sentence.
    pub fn of_chain(pem: &[u8]) -> Result<Self, String> {
        let chain = certificates(pem)?;
        let der = chain.first().ok_or("no certificate in PEM form is in it")?;
        let mut leaf = Self::of_der(der)?;
        leaf.others = chain.len() - 1;
        Ok(leaf)
    }

    /// Of one certificate.
    ///
    /// # Errors
    /// It is damaged.
    pub fn of_der(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| "its first certificate is damaged")?;
        let mut names: Vec<String> = parsed
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|extension| extension.value.general_names.iter().filter_map(name).collect())
            .unwrap_or_default();
        names.sort();
        names.dedup();
        let common = parsed.issuer().iter_common_name().next().and_then(|name| name.as_str().ok());
        Ok(Self {
            names,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            issuer: common.map_or_else(|| parsed.issuer().to_string(), str::to_owned),
            der: der.to_vec(),
            others: 0,
        })
    }

    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        Sha256::digest(&self.der).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// How long it is good for, in seconds.
    pub fn lifetime(&self) -> i64 {
        self.not_after.saturating_sub(self.not_before)
    }

    /// The names that it lacks of those wanted (in lower case).
    pub fn missing<'a>(&self, wanted: &'a [String]) -> Vec<&'a str> {
        wanted.iter().filter(|name| !self.names.contains(name)).map(String::as_str).collect()
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Looks at a chain and a key in PEM form as a pair. Dates are the caller's business.
///
/// # Errors
/// Why they are none, as half a sentence.
pub fn pair(chain: &[u8], key: &[u8]) -> Result<Leaf, String> {
    let leaf = Leaf::of_chain(chain)?;
    let own = super::identity::public_key(&leaf.der).ok_or("its first certificate is damaged")?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "no private key in PEM form is in the key file")?;
    let key = rustls::crypto::ring::default_provider().key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    if key.public_key().is_none_or(|public| public.as_ref() != own) {
        return Err("the key is not the certificate's".into());
    }
    Ok(leaf)
}
