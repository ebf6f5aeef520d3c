//! TLS of listeners: the files that a configuration names → what a handshake is done with, all of it or a reason.

pub mod challenge;
mod ciphers;
mod clients;
mod ecdsa_sha512;
mod identity;
pub mod leaf;
pub mod lists;
mod path;
mod pem;
pub mod self_made;
pub mod signatures;
pub mod trust;
mod usage;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::conf::diagnostic::{Diagnostic, Severity};
use crate::conf::files::ReadFiles;
use crate::conf::{Conf, Tls, TlsIdentity};

use lists::Lists;
use trust::{Purpose, Trust};

/// In the broker's environment: the folder where the ACME worker leaves certificates for tls-alpn-01.
pub const CHALLENGES_VARIABLE: &str = "DARNER_ACME_CHALLENGES";

/// One for each of `conf.listeners`; `None` where there is no TLS.
pub type Servers = Vec<Option<Arc<rustls::ServerConfig>>>;

/// Reads what every TLS listener names. The errors of all listeners, in mosquitto's words, are its exit code 1.
pub fn load(files: &dyn ReadFiles, conf: &Conf) -> Result<Servers, Vec<Diagnostic>> {
    let mut servers = Servers::new();
    let mut faults = Vec::new();
    for listener in &conf.listeners {
        let server = listener.tls_files().map(|(certfile, keyfile)| server(files, &listener.tls, certfile, keyfile)).transpose();
        servers.push(server.unwrap_or_else(|fault| {
            faults.push(fault);
            None
        }));
    }
    if faults.is_empty() { Ok(servers) } else { Err(faults) }
}

fn fault(message: String, reason: impl std::fmt::Display) -> Diagnostic {
    Diagnostic { severity: Severity::Error, file: None, line: None, message, hint: Some(format!("({reason})")) }
}

fn server(files: &dyn ReadFiles, tls: &Tls, certfile: &Path, keyfile: &Path) -> Result<Arc<rustls::ServerConfig>, Diagnostic> {
    let provider = Arc::new(CryptoProvider { cipher_suites: ciphers::suites(tls)?, ..rustls::crypto::ring::default_provider() });
    let versions: &[_] = match tls.version.as_deref() {
        Some("tlsv1.3") => &[&rustls::version::TLS13],
        None | Some("tlsv1.2" | "tlsv1.1") => &[&rustls::version::TLS13, &rustls::version::TLS12],
        Some(other) => return Err(fault(format!("Error: Unsupported tls_version \"{other}\"."), "write tlsv1.2 or tlsv1.3")),
    };
    let authorities = authorities(files, tls)?;
    let mut pair = pair(files, certfile, keyfile, &provider)?;
    complete(&mut pair.cert, &authorities);
    let verifier = client_verifier(files, tls, authorities, &provider)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| fault("Error: No cipher is left for the versions of tls_version.".into(), error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    // As mosquitto: every connection is a full handshake, so a certificate that was revoked is not resumed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The certificate chain and its key.
fn pair(files: &dyn ReadFiles, certfile: &Path, keyfile: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, Diagnostic> {
    let bad_certificate = |reason: String| {
        let message = format!("Error: Unable to load server certificate \"{}\". Check certfile.", certfile.display());
        fault(message, reason)
    };
    let bad_key =
        |reason: String| fault(format!("Error: Unable to load server key file \"{}\". Check keyfile.", keyfile.display()), reason);
    let bytes = files.read_part(certfile, &pem::certificates).map_err(|error| bad_certificate(error.to_string()))?;
    let chain = certificates(&bytes).map_err(bad_certificate)?;
    let Some(first) = chain.first() else { return Err(bad_certificate("no certificate in PEM form is in it".into())) };
    if identity::public_key(first).is_none() {
        return Err(bad_certificate("its first certificate is damaged".into()));
    }
    let bytes = files.read(keyfile).map_err(|error| bad_key(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| bad_key(NO_KEY.into()))?;
    let pair = certified_key(chain, key, provider).map_err(bad_key)?;
    pair.ok_or_else(|| {
        let message = "Error: Server certificate/key are inconsistent.".to_owned();
        fault(message, format_args!("{} is not the key of {}", keyfile.display(), certfile.display()))
    })
}

/// Why a file is no key for us.
pub const NO_KEY: &str = "no private key in PEM form without a pass phrase is in it";

/// A certificate with those that signed it, and its key; `None` where they do not belong together, which is looked at here and not by
/// webpki, so that certificates of version 1 pass too.
///
/// # Errors
/// Why the key cannot be used, as half a sentence.
pub fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Option<CertifiedKey>, String> {
    let key = provider.key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    let own = chain.first().and_then(|first| identity::public_key(first));
    let belongs = own.is_some() && key.public_key().as_deref() == own;
    Ok(belongs.then(|| CertifiedKey::new(chain, key)))
}

/// As OpenSSL: a certificate that comes alone is sent with those of cafile and capath that signed it, up to the root.
fn complete(chain: &mut Vec<CertificateDer<'static>>, authorities: &[CertificateDer<'static>]) {
    if chain.len() > 1 {
        return;
    }
    while let Some((_, issuer)) = chain.last().and_then(|last| identity::names(last)) {
        let next = authorities.iter().find(|authority| {
            identity::names(authority).is_some_and(|(subject, signer)| subject == issuer && subject != signer) && !chain.contains(authority)
        });
        match next.cloned() {
            Some(authority) => chain.push(authority),
            None => return,
        }
    }
}

/// The cipher suites that `ciphers` names in OpenSSL's way; all of them for `None`.
///
/// # Errors
/// What is wrong with the list, in one line.
pub fn cipher_suites(ciphers: Option<&str>) -> Result<Vec<rustls::SupportedCipherSuite>, String> {
    let tls = Tls { ciphers: ciphers.map(Into::into), ..Tls::default() };
    ciphers::suites(&tls).map_err(|fault| format!("{} {}", fault.message, fault.hint.unwrap_or_default()))
}

/// Every certificate of a file in PEM form.
///
/// # Errors
/// What is damaged, as half a sentence.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
}

fn client_verifier(
    files: &dyn ReadFiles,
    tls: &Tls,
    authorities: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<Arc<dyn ClientCertVerifier>, Diagnostic> {
    let algorithms = provider.signature_verification_algorithms;
    let mut trust = Trust::new(Purpose::Client, algorithms);
    // Where nobody is asked for a certificate it does not matter whose would be believed.
    for authority in authorities.into_iter().filter(|_| tls.require_certificate) {
        trust.add(authority).map_err(|error| fault("Error: Unable to load CA certificates. Check cafile and capath.".into(), error))?;
    }
    let lists = revocation_lists(files, tls, &trust)?;
    if !tls.require_certificate {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    if trust.is_empty() {
        let message = "Error: Unable to check client certificates, which require_certificate asks for. Check cafile and capath.";
        return Err(fault(message.into(), "no certificate of an authority is in them"));
    }
    Ok(Arc::new(clients::Clients::new(trust, lists, tls.without_dates, algorithms)))
}

/// The certificates of cafile and capath.
fn authorities(files: &dyn ReadFiles, tls: &Tls) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let mut authorities = Vec::new();
    if let Some(cafile) = &tls.cafile {
        let bad = |reason: String| fault(format!("Error: Unable to load CA certificates. Check cafile \"{}\".", cafile.display()), reason);
        let bytes = files.read_part(cafile, &pem::certificates).map_err(|error| bad(error.to_string()))?;
        authorities = certificates(&bytes).map_err(bad)?;
        if authorities.is_empty() {
            return Err(bad("no certificate in PEM form is in it".into()));
        }
    }
    if let Some(capath) = &tls.capath {
        let bad = |reason: String| fault(format!("Error: Unable to load CA certificates. Check capath \"{}\".", capath.display()), reason);
        let paths = files.list(capath).map_err(|error| bad(error.to_string()))?;
        for path in paths.iter().filter(|path| is_hashed(path)) {
            let found = files.read_part(path, &pem::certificates).map_err(|error| error.to_string()).and_then(|bytes| certificates(&bytes));
            authorities.extend(found.map_err(|reason| bad(format!("{}: {reason}", path.display())))?);
        }
    }
    Ok(authorities)
}

/// A name that `openssl rehash` gives, like `9d66eef0.0`: OpenSSL finds no other certificate in a capath.
pub fn is_hashed(path: &Path) -> bool {
    has_number(path, "")
}

/// The same of a revocation list, `9d66eef0.r0`.
fn is_hashed_list(path: &Path) -> bool {
    has_number(path, "r")
}

fn has_number(path: &Path, letter: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some((hash, number)) = name.split_once('.') else { return false };
    let Some(number) = number.strip_prefix(letter) else { return false };
    hash.len() == 8
        && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The lists of crlfile, and those that OpenSSL finds in cafile and capath where it is asked to look; `None`: it is not.
fn revocation_lists(files: &dyn ReadFiles, tls: &Tls, trust: &Trust) -> Result<Option<Lists>, Diagnostic> {
    let Some(crlfile) = &tls.crlfile else { return Ok(None) };
    let bad = |path: &Path, reason: String| {
        fault(format!("Error: Unable to load certificate revocation file \"{}\". Check crlfile.", path.display()), reason)
    };
    let mut lists = Lists::default();
    let mut add = |path: &Path| {
        let bytes = files.read_part(path, &pem::lists).map_err(|error| bad(path, error.to_string()))?;
        lists.add(&bytes, trust.certificates()).map_err(|reason| bad(path, reason))?;
        Ok(lists.is_empty())
    };
    if add(crlfile)? {
        return Err(bad(crlfile, "no list in PEM form is in it".into()));
    }
    if let Some(cafile) = &tls.cafile {
        add(cafile)?;
    }
    if let Some(capath) = &tls.capath {
        let paths = files.list(capath).map_err(|error| bad(capath, error.to_string()))?;
        for path in paths.iter().filter(|path| is_hashed_list(path)) {
            add(path)?;
        }
    }
    Ok(Some(lists))
}

pub use identity::is_user_name;
pub use usage::has_dns_name;

/// What a client that has shown its certificate is called on this listener; `None` where the certificate does not say.
pub fn certificate_user(tls: &Tls, chain: Option<&[CertificateDer<'_>]>) -> Option<String> {
    match tls.identity {
        TlsIdentity::Client => None,
        kind => identity::username(chain?.first()?, kind),
    }
}
