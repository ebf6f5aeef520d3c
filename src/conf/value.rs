//! One parser per kind of value: text → value, or mosquitto's sentence.

use std::path::PathBuf;

use super::SocketDomain;
use crate::logging::LogType;
use crate::mqtt::ProtocolVersion;

/// Why a value is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn empty(name: &str) -> Self {
        Self::new(format!("Empty '{name}' value in configuration."))
    }

    pub(super) fn invalid(name: &str, word: &str) -> Self {
        Self::new(format!("Invalid '{name}' value ({word})."))
    }
}

/// The first word of a value; the rest of the line is a remark.
pub(super) fn word<'a>(name: &str, rest: &'a str) -> Result<&'a str, Fault> {
    rest.split([' ', '\t']).find(|word| !word.is_empty()).ok_or_else(|| Fault::empty(name))
}

pub(super) fn switch(name: &str, rest: &str) -> Result<bool, Fault> {
    match word(name, rest)? {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(Fault::invalid(name, other).hint("Write true or false.")),
    }
}

/// A number and what followed its digits, if that is no remark: mosquitto drops it without a word.
pub(super) fn number(name: &str, rest: &str) -> Result<(i64, Option<String>), Fault> {
    let word = word(name, rest)?;
    let signs = usize::from(word.starts_with(['-', '+']));
    let digits = word.bytes().skip(signs).take_while(u8::is_ascii_digit).count();
    let (digits, tail) = word.split_at_checked(signs + digits).unwrap_or((word, ""));
    let Ok(value) = digits.parse() else {
        return Err(Fault::new(format!("'{name}' value not a number.")).hint("Write a whole number."));
    };
    Ok((value, (!tail.is_empty() && !tail.starts_with('#')).then(|| tail.to_owned())))
}

/// Seconds.
pub(super) fn duration(name: &str, rest: &str) -> Result<u64, Fault> {
    let fault = || {
        Fault::new(format!("Invalid '{name}' duration in configuration."))
            .hint("Write a number and one of s, h, d, w, m (30 days) and y, such as 3d.")
    };
    let word = word(name, rest)?;
    let word = word.split('#').next().unwrap_or(word);
    let (digits, unit) = match word.strip_suffix(|last: char| last.is_ascii_alphabetic()) {
        Some(digits) => (digits, word.bytes().last()),
        None => (word, None),
    };
    let unit = match unit {
        None | Some(b's') => 1,
        Some(b'h') => 3600,
        Some(b'd') => 86400,
        Some(b'w') => 86400 * 7,
        Some(b'm') => 86400 * 30,
        Some(b'y') => 86400 * 365,
        Some(_) => return Err(fault()),
    };
    let number: u64 = digits.parse().map_err(|_| fault())?;
    number.checked_mul(unit).filter(|seconds| (1..=u64::from(u32::MAX) * 100).contains(seconds)).ok_or_else(fault)
}

/// Strings longer than this are refused, as in mosquitto.
const TEXT_MAX: usize = u16::MAX as usize;

pub(super) fn text(name: &str, rest: &str) -> Result<String, Fault> {
    let text = rest.trim_matches(|c: char| c.is_ascii_whitespace());
    if text.is_empty() {
        return Err(Fault::empty(name));
    }
    if text.len() > TEXT_MAX {
        return Err(Fault::new(format!("Invalid '{name}' value: it is longer than {TEXT_MAX} bytes.")));
    }
    if text.chars().any(|c| c == '\0') {
        return Err(Fault::new("Malformed UTF-8 in configuration."));
    }
    Ok(text.to_owned())
}

pub(super) fn path(name: &str, rest: &str) -> Result<PathBuf, Fault> {
    text(name, rest).map(PathBuf::from)
}

pub(super) fn socket_domain(rest: &str) -> Result<SocketDomain, Fault> {
    match word("socket_domain", rest)? {
        "ipv4" => Ok(SocketDomain::Ipv4),
        "ipv6" => Ok(SocketDomain::Ipv6),
        other => Err(Fault::new(format!("Invalid 'socket_domain' value '{other}' in configuration.")).hint("Write ipv4 or ipv6.")),
    }
}

/// Numbers or names, with commas or spaces between them.
pub(super) fn protocol_versions(rest: &str) -> Result<Vec<ProtocolVersion>, Fault> {
    const NAME: &str = "accept_protocol_versions";
    let mut versions = Vec::new();
    for word in rest.split([',', ' ', '\t']).filter(|word| !word.is_empty()).take_while(|word| !word.starts_with('#')) {
        let version = match word {
            "3" => ProtocolVersion::V31,
            "4" => ProtocolVersion::V311,
            "5" => ProtocolVersion::V5,
            _ => return Err(Fault::invalid(NAME, word).hint("Write a list of 3 (MQTT 3.1), 4 (3.1.1) and 5 (5.0).")),
        };
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    if versions.is_empty() { Err(Fault::empty(NAME)) } else { Ok(versions) }
}

pub(super) const LOG_TYPES: &[(&str, LogType)] = &[
    ("error", LogType::Error),
    ("warning", LogType::Warning),
    ("notice", LogType::Notice),
    ("information", LogType::Information),
    ("debug", LogType::Debug),
    ("subscribe", LogType::Subscribe),
    ("unsubscribe", LogType::Unsubscribe),
    ("websockets", LogType::Websockets),
    ("internal", LogType::Internal),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_takes_its_digits_and_says_what_it_dropped() {
        assert_eq!(number("x", "3 #seconds"), Ok((3, None)));
        assert_eq!(number("x", "-1"), Ok((-1, None)));
        assert_eq!(number("x", "30s"), Ok((30, Some("s".into()))));
        assert_eq!(number("x", "30#s"), Ok((30, None)));
        for bad in ["many", "-", "", "99999999999999999999"] {
            assert!(number("x", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_has_a_unit_and_is_never_zero() {
        assert_eq!(duration("x", "3d #how long"), Ok(3 * 86400));
        assert_eq!(duration("x", "2m"), Ok(60 * 86400));
        assert_eq!(duration("x", "90"), Ok(90));
        for bad in ["0d", "d", "3q", "-1d", "99999999999999999999y", "18446744073709551615y", "3é"] {
            assert!(duration("x", bad).is_err(), "{bad}");
        }
    }
}
