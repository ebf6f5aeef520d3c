//! What passes between PID 1 and `darner acme`: one [`Request`] as JSON on its stdin, [`Report`]s as JSON lines on its stdout, the last
//! of them an outcome. Whatever the worker brings is a stranger's until PID 1 has looked at it.
//!
//! The worker is started anew for each attempt, as an unprivileged user that owns `work_dir` (mode 0700). In it:
//!
//! | path | what | until |
//! |---|---|---|
//! | `accounts/DIRECTORY/` | the account's key and address; DIRECTORY is the CA's address with all but letters, digits, `.` and `-` as `_` | for ever |
//! | `pending/LINEAGE/` | the order that is under way, and its key | the certificate is issued, or the order is invalid |
//! | `issued/LINEAGE/` | `privkey.pem`, `fullchain.pem`, `chain.pem` | PID 1 removes it, whether it liked the certificate or not |
//!
//! A worker that finds `issued/LINEAGE` for the same request brings it again without asking the CA. LINEAGE is `Request::lineage`,
//! with `.dry-run` at its end in a dry run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The longest request and the longest line of a report, in bytes. PID 1 need not keep more.
pub const LINE_MAX: usize = 64 * 1024;

/// The name in `LISTEN_FDNAMES` of sockets (one for each family) on port 80, which PID 1 bound.
pub const HTTP_01_SOCKET: &str = "http-01";

/// Where the broker looks for challenge certificates: the variable that PID 1 sets in the broker's environment, an absolute path.
pub const CHALLENGES_VARIABLE: &str = crate::tls::CHALLENGES_VARIABLE;

/// What PID 1 wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Request {
    #[serde(default)]
    pub mode: Mode,
    /// A file name: letters, digits, `.`, `-`, `_`, `:`, not beginning with `.`.
    pub lineage: String,
    /// DNS names, wildcards and IP addresses, the first one being the certificate's common name. The order does not matter.
    pub domains: Vec<String>,
    #[serde(default)]
    pub email: Option<String>,
    /// The CA's directory, an https address.
    pub directory: String,
    /// PEM of roots to trust beside the bundled ones. The worker must be able to read it.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub eab: Option<Eab>,
    #[serde(default)]
    pub profile: Option<String>,
    /// The common name of a chain's topmost issuer, as certbot's `--preferred-chain`.
    #[serde(default)]
    pub preferred_chain: Option<String>,
    #[serde(default)]
    pub key_type: KeyType,
    #[serde(default)]
    pub challenge: Challenge,
    /// For dns-01: a command for `/bin/sh -c`.
    #[serde(default)]
    pub dns_hook: Option<String>,
    pub work_dir: PathBuf,
    /// For tls-alpn-01: a folder that the worker may write and the broker may read, e.g. owned by the worker, group of the broker,
    /// mode 2750. Absent: `work_dir/challenges`.
    #[serde(default)]
    pub challenge_dir: Option<PathBuf>,
    /// For ARI: [`certificate_id`] of the certificate that is to be replaced, or that `mode: renewal_info` asks about.
    #[serde(default)]
    pub replaces: Option<String>,
    /// `Leaf::fingerprint` of the certificate in use: what was brought and taken is not brought again.
    #[serde(default)]
    pub held: Option<String>,
    /// The worker gives up by itself after this many seconds; 0 means 600. PID 1 kills it some seconds later.
    #[serde(default)]
    pub deadline_secs: u64,
    /// For http-01: whether to look first, before anything is ordered, what the CA will find.
    #[serde(default)]
    pub self_check: Option<SelfCheck>,
    /// The account that certbot registered there, to go on with; its key is RSA.
    #[serde(default)]
    pub account: Option<KnownAccount>,
    /// `pending` and `issued` are kept apart from the real ones.
    #[serde(default)]
    pub dry_run: bool,
    /// For `mode: probe`.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// A TLS listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// A name or an address.
    pub host: String,
    pub port: u16,
    /// Connections begin with a header of the PROXY protocol, of version 1: with the other the listener does no TLS.
    #[serde(default)]
    pub is_proxied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Issue,
    /// When does the CA want `replaces` to be renewed (RFC 9773)?
    RenewalInfo,
    /// Which certificates do our own listeners serve? No CA is asked.
    Probe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// Where the CA will look: 80.
    pub port: u16,
    /// The CA sees the public DNS.
    pub is_public: bool,
}

/// An account and its secret key, as a JWK.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAccount {
    pub uri: String,
    pub key: serde_json::Value,
}

impl std::fmt::Debug for KnownAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KnownAccount({})", self.uri)
    }
}

/// Where the worker keeps its account (`key.der`, `account.json`) at a directory.
pub fn account_folder(work_dir: &std::path::Path, directory: &str) -> PathBuf {
    let name: String = directory.chars().map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' }).collect();
    work_dir.join("accounts").join(name)
}

/// External account binding, as CAs give it out: `hmac` is base64url.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eab {
    pub kid: String,
    pub hmac: String,
}

impl std::fmt::Debug for Eab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Eab({})", self.kid)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    #[default]
    P256,
    P384,
    /// For devices that know no elliptic curves.
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Challenge {
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    #[serde(rename = "dns-01")]
    Dns01,
}

/// A line of the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// For the log.
    Event {
        level: Level,
        text: String,
    },
    /// The CA has made a new order: for the ledger.
    Ordered {
        url: String,
    },
    Issued(Issued),
    RenewalInfo(RenewalInfo),
    /// `Leaf::fingerprint` of what each target serves; `None` where nobody answered.
    Probed {
        leaves: Vec<Option<String>>,
    },
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Info,
    Warning,
    Error,
}

/// Paths below `work_dir`, mode 0600. `fullchain` holds the leaf and then `chain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    pub privkey: PathBuf,
    pub fullchain: PathBuf,
    pub chain: PathBuf,
    /// The address of the account that ordered it.
    #[serde(default)]
    pub account: Option<String>,
}

/// What the CA suggests (RFC 9773 4.2), unchecked but that the window has a length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalInfo {
    /// `None`: this CA has no such information, or none for this certificate.
    pub window: Option<Window>,
    /// `Retry-After` within a minute and a day; without a window 6 hours.
    pub retry_after_secs: u64,
    pub explanation_url: Option<String>,
}

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub start: i64,
    pub end: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub step: Step,
    /// The CA's problem type after `urn:ietf:params:acme:error:`, like `rateLimited`.
    #[serde(default)]
    pub problem: Option<String>,
    /// Status of the CA's HTTP answer.
    #[serde(default)]
    pub status: Option<u16>,
    /// What is wrong and what to do, for the log: one line.
    pub text: String,
    #[serde(default)]
    pub retry_after_secs: Option<u64>,
    /// The names that are at fault, where the CA says so.
    #[serde(default)]
    pub identifiers: Vec<String>,
    #[serde(default)]
    pub is_clock_error: bool,
    /// It was a try that a rate limit or the back-off should remember; false for a wrong clock, and where the CA was not asked for
    /// anything.
    pub counted: bool,
}

/// How far the worker came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The request cannot be understood or carried out.
    Request,
    /// `work_dir` cannot be written: nothing was asked of the CA.
    Storage,
    Directory,
    Account,
    Order,
    Challenge,
    Finalize,
    Certificate,
    RenewalInfo,
    /// `deadline_secs` are over.
    Deadline,
}

/// The name of a certificate in ARI (RFC 9773 4.1), from its DER: base64url of its authority key identifier, a dot, and of its serial.
pub fn certificate_id(leaf: &[u8]) -> Option<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use x509_parser::extensions::ParsedExtension;
    use x509_parser::prelude::FromDer as _;

    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(leaf).ok()?;
    let key = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref(),
        _ => None,
    })?;
    Some(format!("{}.{}", URL_SAFE_NO_PAD.encode(key.0), URL_SAFE_NO_PAD.encode(leaf.raw_serial())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_little() {
        let text = r#"{"lineage":"a","domains":["a.example"],"directory":"https://ca.example/dir","work_dir":"/w"}"#;
        let request: Request = serde_json::from_str(text).expect("a request");
        assert_eq!((request.mode, request.challenge, request.key_type), (Mode::Issue, Challenge::Http01, KeyType::P256));
    }

    #[test]
    fn reports_come_back_as_they_went() {
        let failure = Failure {
            step: Step::Order,
            problem: Some("rateLimited".into()),
            status: Some(429),
            text: "too many".into(),
            retry_after_secs: Some(7200),
            identifiers: vec!["a.example".into()],
            is_clock_error: false,
            counted: true,
        };
        for report in [
            Report::Failed(failure),
            Report::Ordered { url: "https://ca.example/order/1".into() },
            Report::RenewalInfo(RenewalInfo { window: Some(Window { start: 1, end: 2 }), retry_after_secs: 60, explanation_url: None }),
        ] {
            let line = serde_json::to_string(&report).expect("a line");
            assert!(line.starts_with(r#"{"report":"#) && !line.contains('\n'));
            assert_eq!(serde_json::from_str::<Report>(&line).expect("a report"), report);
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let eab = Eab { kid: "kid-1".into(), hmac: "c2VjcmV0".into() };
        assert_eq!(format!("{eab:?}"), "Eab(kid-1)");
    }
}
