//! What one certificate says of itself, as OpenSSL sees it: what it may be used for, who signed it, and whether all of that can be read.

use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::der_parser::oid;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_PKCS9_EMAIL_ADDRESS, OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_CERT_TYPE, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME, OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};
use x509_parser::x509::X509Version;

use super::ecdsa_sha512;
use super::trust::Purpose;

/// RFC 3820: a certificate that a user signed for a program of his.
const PROXY_CERT_INFO: Oid<'static> = oid!(1.3.6.1.5.5.7.1.14);

pub(super) fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// Whether it was signed by its own key, as far as it says so itself.
pub(super) fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    is_self_issued(certificate) && is_of_own_kind(certificate) && KeyName::of_certificate(certificate).is_of(certificate)
}

/// Whether a key like its own makes such signatures.
fn is_of_own_kind(certificate: &X509Certificate<'_>) -> bool {
    let (key, signature) = (&certificate.public_key().algorithm.algorithm, &certificate.signature_algorithm.algorithm);
    let is_below = |family: &str| signature.to_id_string().starts_with(family);
    match key {
        key if *key == OID_PKCS1_RSAENCRYPTION => is_below("1.2.840.113549.1.1."),
        key if *key == OID_KEY_TYPE_EC_PUBLIC_KEY => is_below("1.2.840.10045.4."),
        key => key == signature,
    }
}

fn has(certificate: &X509Certificate<'_>, extension: &Oid<'_>) -> bool {
    certificate.extensions().iter().any(|one| one.oid == *extension)
}

/// Where nothing is said its key is for everything; what cannot be read is for nothing.
fn has_usage(certificate: &X509Certificate<'_>, usage: impl Fn(&KeyUsage) -> bool) -> bool {
    certificate.key_usage().is_ok_and(|said| match said {
        Some(said) => usage(said.value),
        None => !has(certificate, &OID_X509_EXT_KEY_USAGE),
    })
}

fn has_extended_usage(certificate: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let is_for_us = |usage: &ExtendedKeyUsage<'_>| match purpose {
        Purpose::Client => usage.client_auth,
        Purpose::Server => usage.server_auth,
    };
    certificate.extended_key_usage().is_ok_and(|said| match said {
        Some(said) => is_for_us(said.value),
        None => !has(certificate, &OID_X509_EXT_EXTENDED_KEY_USAGE),
    })
}

/// What said the same before there was an extended key usage; easy-rsa still writes it when it is asked to.
fn has_netscape_usage(leaf: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let mut said = leaf.extensions().iter().filter(|extension| extension.oid == OID_X509_EXT_CERT_TYPE);
    said.all(|extension| match (extension.parsed_extension(), purpose) {
        (ParsedExtension::NSCertType(usage), Purpose::Client) => usage.ssl_client(),
        (ParsedExtension::NSCertType(usage), Purpose::Server) => usage.ssl_server(),
        _ => false,
    })
}

/// Whether a peer may show it.
pub(super) fn serves(leaf: &X509Certificate<'_>, purpose: Purpose) -> bool {
    let is_for_us = |usage: &KeyUsage| match purpose {
        Purpose::Client => usage.digital_signature() || usage.key_agreement(),
        Purpose::Server => usage.digital_signature() || usage.key_agreement() || usage.key_encipherment(),
    };
    has_usage(leaf, is_for_us) && has_extended_usage(leaf, purpose) && has_netscape_usage(leaf, purpose) && !has(leaf, &PROXY_CERT_INFO)
}

/// Whether others are believed that it signed. One that does not say that it is an authority is one only as a root: of version 1, which
/// cannot say it, or with a key that is said to be for that.
pub(super) fn may_sign(certificate: &X509Certificate<'_>, purpose: Purpose, is_root: bool) -> bool {
    let is_authority = match certificate.basic_constraints() {
        _ if certificate.version() == X509Version::V1 => is_root,
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => is_root && has(certificate, &OID_X509_EXT_KEY_USAGE) && !has(certificate, &OID_X509_EXT_BASIC_CONSTRAINTS),
        Err(_) => false,
    };
    is_authority && has_usage(certificate, KeyUsage::key_cert_sign) && has_extended_usage(certificate, purpose)
}

/// Whether revocation lists are believed that it signed.
pub(super) fn is_for_lists(issuer: &X509Certificate<'_>) -> bool {
    has_usage(issuer, KeyUsage::crl_sign)
}

/// How many others may stand between it and a leaf.
pub(super) fn path_len(authority: &X509Certificate<'_>) -> Option<usize> {
    let constraints = authority.basic_constraints().ok().flatten()?;
    constraints.value.path_len_constraint.and_then(|most| usize::try_from(most).ok())
}

/// Whether what is looked at here can be read, and says one thing.
pub(super) fn is_readable(certificate: &X509Certificate<'_>) -> bool {
    const READ: [Oid<'static>; 7] = [
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
        OID_X509_EXT_NAME_CONSTRAINTS,
        OID_X509_EXT_CERT_TYPE,
        OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
        OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
    ];
    let mut seen: Vec<&Oid<'_>> = Vec::new();
    certificate.extensions().iter().filter(|extension| READ.contains(&extension.oid)).all(|extension| {
        use ParsedExtension as P;
        let is_new = !seen.contains(&&extension.oid);
        seen.push(&extension.oid);
        is_new && !matches!(extension.parsed_extension(), P::ParseError { .. } | P::UnsupportedExtension { .. } | P::Unparsed)
    })
}

/// Whether nothing critical is in it that is not looked at, here or by webpki.
pub(super) fn is_understood(certificate: &X509Certificate<'_>) -> bool {
    const KNOWN: [Oid<'static>; 5] = [
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME,
        OID_X509_EXT_NAME_CONSTRAINTS,
    ];
    certificate.extensions().iter().all(|extension| !extension.critical || KNOWN.contains(&extension.oid))
}

/// Whether it signs for some names only.
pub(super) fn is_for_some_names(authority: &X509Certificate<'_>) -> bool {
    has(authority, &OID_X509_EXT_NAME_CONSTRAINTS)
}

/// Whether it says a host's name as an alternative one; `None` where that cannot be read.
pub fn has_dns_name(leaf: &X509Certificate<'_>) -> Option<bool> {
    match leaf.subject_alternative_name().ok()? {
        Some(names) => Some(names.value.general_names.iter().any(|name| matches!(name, GeneralName::DNSName(_)))),
        None => (!has(leaf, &OID_X509_EXT_SUBJECT_ALT_NAME)).then_some(false),
    }
}

/// Whether all its names are where webpki compares them with what its authority may sign for: OpenSSL compares those in the subject, too.
pub(super) fn has_comparable_names(leaf: &X509Certificate<'_>) -> bool {
    has_dns_name(leaf) == Some(true) && leaf.subject().iter_by_oid(&OID_PKCS9_EMAIL_ADDRESS).next().is_none()
}

/// What a certificate or a list says about the key that signed it (RFC 5280 4.2.1.1).
#[derive(Debug, Clone, Default)]
pub(super) struct KeyName {
    id: Option<Vec<u8>>,
    serial: Option<Vec<u8>>,
    /// Who signed the certificate of that key, as DER.
    issuer: Option<Vec<u8>>,
}

impl KeyName {
    pub(super) fn of(extensions: &[X509Extension<'_>]) -> Self {
        let said = extensions.iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(said) => Some(said),
            _ => None,
        });
        let Some(said) = said else { return Self::default() };
        let issuer = said.authority_cert_issuer.iter().flatten().find_map(|name| match name {
            GeneralName::DirectoryName(name) => Some(name.as_raw().to_vec()),
            _ => None,
        });
        let id = said.key_identifier.as_ref().map(|id| id.0.to_vec());
        Self { id, serial: said.authority_cert_serial.map(<[u8]>::to_vec), issuer }
    }

    pub(super) fn of_certificate(certificate: &X509Certificate<'_>) -> Self {
        Self::of(certificate.extensions())
    }

    /// Whether it is not about another key than that of `certificate`.
    pub(super) fn is_of(&self, certificate: &X509Certificate<'_>) -> bool {
        let own = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(own) => Some(own.0),
            _ => None,
        });
        let is_other_key = self.id.as_deref().zip(own).is_some_and(|(said, own)| said != own);
        let is_other_serial = self.serial.as_ref().is_some_and(|serial| serial != certificate.raw_serial());
        let is_other_issuer = self.issuer.as_ref().is_some_and(|issuer| issuer != certificate.issuer().as_raw());
        !is_other_key && !is_other_serial && !is_other_issuer
    }
}

/// Whether it was signed with the key of `issuer`.
pub(super) fn is_signed(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let (key, signature) = (issuer.public_key(), &certificate.signature_value.data);
    certificate.verify_signature(Some(key)).is_ok()
        || ecdsa_sha512::is_signed(key, &certificate.signature_algorithm, certificate.tbs_certificate.as_ref(), signature)
}
