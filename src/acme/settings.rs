//! What the environment says about certificates: one table, which the README and a house test read too.

use std::net::IpAddr;
use std::path::PathBuf;

use super::exchange::{Challenge, Eab, KeyType};

/// A variable, what it is where it is not set, and what it does.
pub struct Variable {
    pub name: &'static str,
    pub default: &'static str,
    pub help: &'static str,
}

const fn row(name: &'static str, default: &'static str, help: &'static str) -> Variable {
    Variable { name, default, help }
}

pub const VARIABLES: &[Variable] = &[
    row("DOMAIN", "none", "the names of the certificate, with commas or spaces between them; the first one names it"),
    row("EMAIL", "none", "the address that the CA may write to"),
    row("TESTCERT", "", "with any value: certificates of the CA's test server, which nobody trusts and which have generous limits"),
    row("RENEWAL", "`restart`", "what happens with a new certificate: `restart` the broker, or `reload` it, which drops nobody"),
    row("ACME_DIRECTORY", "Let's Encrypt", "the directory of another CA, an https address"),
    row("ACME_CA_FILE", "none", "roots in PEM form for a CA of your own, beside the built-in ones"),
    row("ACME_EAB_KID", "none", "the key identifier of an external account binding, for CAs that ask for it"),
    row("ACME_EAB_HMAC_KEY", "none", "and its key, base64url"),
    row("ACME_PROFILE", "the CA's", "the certificate profile, like `shortlived`"),
    row("ACME_PREFERRED_CHAIN", "the CA's", "the common name of the root whose chain is wanted"),
    row("ACME_KEY_TYPE", "`p256`", "`p256`, `p384`, `rsa2048`, `rsa3072` or `rsa4096`"),
    row(
        "ACME_CHALLENGE",
        "`http-01`",
        "`http-01`, `tls-alpn-01`, or `dns-01`, which is the default where a name has a `*` or `ACME_DNS_HOOK` is set",
    ),
    row("ACME_DNS_HOOK", "none", "the command that sets and removes the record of dns-01, see docs/certificates.md"),
    row("ACME_HTTP_PORT", "`80`", "where http-01 is answered, if something in front leads port 80 there"),
    row("LETSENCRYPT_DIR", "`/etc/letsencrypt`", "where certificates are kept"),
];

const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// Let's Encrypt's limit of names in a certificate.
const DOMAINS_MAX: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Restart,
    Reload,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// In lower case, each once, the first one as it was given.
    pub domains: Vec<String>,
    pub email: Option<String>,
    pub directory: String,
    /// Nobody trusts what comes from there: it never takes the place of a real certificate.
    pub is_test: bool,
    pub ca_file: Option<PathBuf>,
    pub eab: Option<Eab>,
    pub profile: Option<String>,
    pub preferred_chain: Option<String>,
    pub key_type: KeyType,
    pub challenge: Challenge,
    pub dns_hook: Option<String>,
    pub http_port: u16,
}

/// `LETSENCRYPT_DIR`.
pub fn root(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    variable("LETSENCRYPT_DIR").filter(|text| !text.is_empty()).map_or_else(|| PathBuf::from("/etc/letsencrypt"), PathBuf::from)
}

/// The names in DOMAIN that a certificate can have, whatever else is wrong.
pub fn domains(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    names(&variable("DOMAIN").unwrap_or_default(), &mut Vec::new())
}

/// `RENEWAL`, and what is wrong with it.
pub fn renewal(variable: impl Fn(&str) -> Option<String>) -> (Renewal, Option<String>) {
    match variable("RENEWAL").as_deref() {
        None | Some("" | "restart") => (Renewal::Restart, None),
        Some("reload") => (Renewal::Reload, None),
        Some(other) => (
            Renewal::Restart,
            Some(format!("Warning: RENEWAL=\"{other}\" is neither restart nor reload; new certificates restart the broker.")),
        ),
    }
}

impl Settings {
    /// Reads the environment; `None` where no DOMAIN is set.
    ///
    /// # Errors
    /// Lines that say which variable is wrong and what to do.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Vec<String>> {
        let variable = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let Some(list) = variable("DOMAIN") else { return Ok(None) };
        let mut wrong = Vec::new();
        let domains = names(&list, &mut wrong);
        let is_test = variable("TESTCERT").is_some();
        let directory = variable("ACME_DIRECTORY").unwrap_or_else(|| if is_test { STAGING } else { PRODUCTION }.to_owned());
        if !directory.starts_with("https://") {
            wrong.push(format!("ERROR: ACME_DIRECTORY \"{directory}\" is not an https address"));
        }
        if variable("EMAIL").is_none() && variable("ACME_DIRECTORY").is_none() {
            wrong.push("ERROR: $EMAIL must be defined".to_owned());
        }
        let eab = match (variable("ACME_EAB_KID"), variable("ACME_EAB_HMAC_KEY")) {
            (Some(kid), Some(hmac)) => Some(Eab { kid, hmac }),
            (None, None) => None,
            _ => {
                wrong.push("ERROR: ACME_EAB_KID and ACME_EAB_HMAC_KEY must be defined together".to_owned());
                None
            }
        };
        let dns_hook = variable("ACME_DNS_HOOK");
        let has_wildcard = domains.iter().any(|domain| domain.starts_with("*."));
        let by_default = if has_wildcard || dns_hook.is_some() { Challenge::Dns01 } else { Challenge::Http01 };
        let challenge = word("ACME_CHALLENGE", variable("ACME_CHALLENGE"), by_default, &mut wrong);
        if has_wildcard && challenge != Challenge::Dns01 {
            wrong.push("ERROR: a name with a * needs ACME_CHALLENGE=dns-01 and an ACME_DNS_HOOK".to_owned());
        } else if challenge == Challenge::Dns01 && dns_hook.is_none() {
            wrong.push("ERROR: dns-01 needs an ACME_DNS_HOOK, the command that sets the record (docs/certificates.md)".to_owned());
        }
        let key_type = word("ACME_KEY_TYPE", variable("ACME_KEY_TYPE"), KeyType::P256, &mut wrong);
        let http_port = match variable("ACME_HTTP_PORT").map(|text| (text.parse::<u16>(), text)) {
            None => 80,
            Some((Ok(port), _)) if port != 0 => port,
            Some((_, text)) => {
                wrong.push(format!("ERROR: ACME_HTTP_PORT \"{text}\" is not a port"));
                80
            }
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Some(Self {
            is_test: is_test || is_test_server(&directory),
            domains,
            email: variable("EMAIL"),
            directory,
            ca_file: variable("ACME_CA_FILE").map(PathBuf::from),
            eab,
            profile: variable("ACME_PROFILE"),
            preferred_chain: variable("ACME_PREFERRED_CHAIN"),
            key_type,
            challenge,
            dns_hook,
            http_port,
        }))
    }
}

impl Settings {
    /// As these, but of the CA's test server where it has one that is known.
    pub fn for_rehearsal(&self) -> Self {
        let directory = if self.directory == PRODUCTION { STAGING } else { &self.directory };
        Self { directory: directory.to_owned(), ..self.clone() }
    }

    /// What an attempt depends on, in short: when it changes, failures of before mean nothing. `authorities`: the bytes of `ca_file`.
    pub fn fingerprint(&self, authorities: &[u8]) -> String {
        use sha2::{Digest as _, Sha256};
        let mut domains = self.domains.clone();
        domains.sort();
        let eab = self.eab.as_ref().map(|eab| [&eab.kid, &eab.hmac]);
        let all = serde_json::json!([
            domains,
            self.email,
            self.directory,
            self.ca_file,
            eab,
            self.profile,
            self.preferred_chain,
            self.key_type,
            self.challenge,
            self.dns_hook,
            self.http_port,
        ]);
        let digest = Sha256::new().chain_update(all.to_string()).chain_update(authorities).finalize();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Whether a directory is known to be out in the world.
pub fn is_public(directory: &str) -> bool {
    [PRODUCTION, STAGING].contains(&directory)
}

/// Whether the certificates of a directory are for tests only, by its name.
pub fn is_test_server(directory: &str) -> bool {
    directory.split('/').nth(2).is_some_and(|host| host.contains("staging"))
}

fn names(list: &str, wrong: &mut Vec<String>) -> Vec<String> {
    let mut domains = Vec::new();
    for name in list.split([',', ' ', '\t', '\n']).filter(|name| !name.is_empty()) {
        let name = canonical(name);
        if !is_domain(&name) {
            let advice = if name.is_ascii() { "" } else { " (write it in its xn-- form)" };
            wrong.push(format!("ERROR: \"{name}\" in $DOMAIN is no name that a certificate can have{advice}"));
        } else if !domains.contains(&name) {
            domains.push(name);
        }
    }
    if domains.len() > DOMAINS_MAX {
        wrong.push(format!("ERROR: $DOMAIN has more than {DOMAINS_MAX} names"));
    }
    domains
}

/// As certificates have it: an address in its one short form, without the brackets of a URL.
fn canonical(name: &str) -> String {
    let plain = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    match plain.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.trim_end_matches('.').to_ascii_lowercase(),
    }
}

fn is_domain(name: &str) -> bool {
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.parse::<IpAddr>().is_ok() || (plain.len() <= 253 && plain.split('.').all(label))
}

/// A value of an enum by the word that the exchange uses for it.
fn word<T: serde::de::DeserializeOwned>(name: &str, text: Option<String>, default: T, wrong: &mut Vec<String>) -> T {
    let Some(text) = text else { return default };
    serde_json::from_value(serde_json::Value::String(text.to_ascii_lowercase())).unwrap_or_else(|_| {
        let help = VARIABLES.iter().find(|row| row.name == name).map_or("", |row| row.help);
        wrong.push(format!("ERROR: {name} \"{text}\" is not known: {help}"));
        default
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &[(&str, &str)]) -> Result<Option<Settings>, Vec<String>> {
        Settings::read(|name| rows.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn domain_and_email_are_enough() {
        let settings = read(&[("DOMAIN", "MQTT.example.org"), ("EMAIL", "a@b")]).expect("right").expect("wanted");
        assert_eq!((settings.domains, settings.directory.as_str(), settings.is_test), (vec!["mqtt.example.org".into()], PRODUCTION, false));
        assert_eq!((settings.key_type, settings.challenge, settings.http_port), (KeyType::P256, Challenge::Http01, 80));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("DOMAIN", " ")]), Ok(None));
    }

    #[test]
    fn names_come_with_commas_or_spaces_and_any_value_of_testcert_counts() {
        let settings =
            read(&[("DOMAIN", "a.test, b.test a.test,::1"), ("EMAIL", "a@b"), ("TESTCERT", "no")]).expect("right").expect("wanted");
        assert_eq!(settings.domains, ["a.test", "b.test", "::1"]);
        assert_eq!((settings.directory.as_str(), settings.is_test), (STAGING, true));
    }

    #[test]
    fn addresses_are_as_certificates_have_them() {
        let settings =
            read(&[("DOMAIN", "2001:0DB8::0:1 2001:db8::1 [2001:db8:0::1] 192.0.2.1"), ("EMAIL", "a@b")]).expect("right").expect("wanted");
        assert_eq!(settings.domains, ["2001:db8::1", "192.0.2.1"]);
    }

    #[test]
    fn every_variable_that_an_attempt_depends_on_is_in_the_fingerprint() {
        let plain =
            [("DOMAIN", "a.test b.test"), ("EMAIL", "a@b"), ("ACME_DNS_HOOK", "/hook"), ("ACME_EAB_KID", "k"), ("ACME_EAB_HMAC_KEY", "h")];
        let of = |more: &[(&str, &str)], authorities: &[u8]| {
            let rows: Vec<_> =
                more.iter().chain(plain.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name))).copied().collect();
            read(&rows).expect("right").expect("wanted").fingerprint(authorities)
        };
        let first = of(&[], b"");
        assert_eq!(of(&[("DOMAIN", "b.test,a.test"), ("RENEWAL", "reload")], b""), first);
        assert_ne!(of(&[], b"a root"), first);
        for row in [
            ("DOMAIN", "a.test"),
            ("EMAIL", "c@d"),
            ("ACME_DIRECTORY", "https://ca/dir"),
            ("ACME_CA_FILE", "/ca"),
            ("ACME_EAB_KID", "l"),
            ("ACME_EAB_HMAC_KEY", "i"),
            ("ACME_PROFILE", "shortlived"),
            ("ACME_PREFERRED_CHAIN", "X1"),
            ("ACME_KEY_TYPE", "p384"),
            ("ACME_CHALLENGE", "http-01"),
            ("ACME_DNS_HOOK", "/other"),
            ("ACME_HTTP_PORT", "8080"),
            ("TESTCERT", "1"),
        ] {
            assert_ne!(of(&[row], b""), first, "{}", row.0);
        }
    }

    #[test]
    fn wildcards_go_by_dns() {
        let hook = ("ACME_DNS_HOOK", "/hook");
        let settings = read(&[("DOMAIN", "*.a.test"), ("EMAIL", "a@b"), hook]).expect("right").expect("wanted");
        assert_eq!(settings.challenge, Challenge::Dns01);
        assert!(read(&[("DOMAIN", "*.a.test"), ("EMAIL", "a@b")]).is_err());
        assert!(read(&[("DOMAIN", "*.a.test"), ("EMAIL", "a@b"), hook, ("ACME_CHALLENGE", "http-01")]).is_err());
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let wrong = read(&[
            ("DOMAIN", "a..b ü.test"),
            ("ACME_KEY_TYPE", "dsa"),
            ("ACME_HTTP_PORT", "0"),
            ("ACME_EAB_KID", "k"),
            ("ACME_CHALLENGE", "smoke"),
        ])
        .expect_err("wrong");
        assert_eq!(wrong.len(), 7, "{wrong:#?}");
        assert!(wrong.contains(&"ERROR: $EMAIL must be defined".to_owned()), "{wrong:?}");
    }

    #[test]
    fn a_word_for_renewal_that_nobody_knows_is_said() {
        let with = |value: &'static str| renewal(move |_| Some(value.to_owned()));
        assert_eq!(with("reload"), (Renewal::Reload, None));
        assert_eq!(with("").0, Renewal::Restart);
        assert!(with("later").1.is_some());
    }
}
