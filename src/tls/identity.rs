//! Names and keys inside certificates.

use std::fmt::Write as _;

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AttributeTypeAndValue;

use crate::conf::TlsIdentity;

/// OpenSSL's short names of the parts of a subject.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

fn parse(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

/// DER of the SubjectPublicKeyInfo.
pub(super) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    parse(certificate).map(|parsed| parsed.tbs_certificate.subject_pki.raw)
}

/// Subject and issuer, as DER.
pub(super) fn names(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let parsed = parse(certificate)?;
    Some((parsed.tbs_certificate.subject.as_raw(), parsed.tbs_certificate.issuer.as_raw()))
}

/// The first common name, or the whole subject as RFC 2253 writes it; `None` without one, or with a NUL in it.
pub(super) fn username(certificate: &[u8], kind: TlsIdentity) -> Option<String> {
    let parsed = parse(certificate)?;
    let name = match kind {
        TlsIdentity::Client => return None,
        TlsIdentity::CommonName => text(parsed.subject().iter_common_name().next()?)?,
        TlsIdentity::Subject => {
            let mut parts: Vec<String> = parsed
                .subject()
                .iter()
                .map(|group| group.iter().map(attribute).collect::<Option<Vec<_>>>().map(|parts| parts.join("+")))
                .collect::<Option<_>>()?;
            parts.reverse();
            parts.join(",")
        }
    };
    is_user_name(&name).then_some(name)
}

/// Whether a name in a certificate can be a user's: a user name of MQTT has a length of two bytes and no U+0000 `[MQTT-1.5.4-2]`.
pub fn is_user_name(name: &str) -> bool {
    !name.is_empty() && u16::try_from(name.len()).is_ok() && !name.contains('\0')
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    match attribute.as_str() {
        Ok(text) => Some(text.to_owned()),
        Err(_) => String::from_utf8(attribute.as_slice().to_vec()).ok(),
    }
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let id = attribute.attr_type().to_id_string();
    let value = text(attribute)?;
    let name = SHORT_NAMES.iter().find(|(known, _)| *known == id).map_or(id.as_str(), |(_, name)| *name);
    Some(format!("{name}={}", escaped(&value)))
}

/// RFC 2253, and all that is not ASCII as `\XX`, as OpenSSL does.
fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                escaped.push('\\');
                escaped.push(byte as char);
            }
            b'#' | b' ' if at == 0 => {
                escaped.push('\\');
                escaped.push(byte as char);
            }
            b' ' if at == last => escaped.push_str("\\ "),
            0x20..=0x7e => escaped.push(byte as char),
            _ => drop(write!(escaped, "\\{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_escaped_as_openssl_does() {
        assert_eq!(escaped("a,b+c"), "a\\,b\\+c");
        assert_eq!(escaped("#x "), "\\#x\\ ");
        assert_eq!(escaped("ü\u{1}"), "\\C3\\BC\\01");
    }

    #[test]
    fn what_is_no_certificate_has_no_name() {
        for bytes in [&b""[..], b"0\x82", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(username(bytes, TlsIdentity::CommonName), None);
            assert_eq!(public_key(bytes), None);
        }
    }
}
