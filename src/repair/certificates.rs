//! A TLS listener whose files are all missing gets a certificate authority and a server certificate of our own. The authority's key stays
//! in the volume, so that `renewal` can go on with the same authority.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::apply::{Repair, absolute};
use super::observation::{Found, as_allowed, observe};
use super::ownership::is_kept;
use crate::conf::Listener;
use crate::conf::files::KEPT_MODE;
use crate::os::beneath::NewFile;
use crate::tls::self_made::{self, AUTHORITY, Pem, Period, Unmade};

/// 2026-11-23: a clock that says less (a board without a battery, before the network is there) is not believed.
const NOW_MIN: u64 = 1_795_392_000;
const AUTHORITY_DAYS: u64 = 7300;
/// Some clients refuse a server's certificate that holds longer than 825 days.
pub(super) const SERVER_DAYS: u64 = 820;
const KEY_MODE: u32 = 0o600;
pub(super) const CERTIFICATE_MODE: u32 = 0o644;
/// The folder of certbot's tree that configurations name: what is in there is made by a real authority, or not at all.
const CERTBOT: &str = "live";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files of a TLS listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub port: u16,
    /// Where it listens, if the configuration says so.
    pub host: Option<String>,
    pub cafile: Option<PathBuf>,
    pub certfile: PathBuf,
    pub keyfile: PathBuf,
}

impl TlsFiles {
    pub(super) fn of(listener: &Listener) -> Option<Self> {
        let (certfile, keyfile) = listener.tls_files()?;
        let cafile = listener.tls.cafile.clone();
        Some(Self { port: listener.port, host: listener.host.clone(), cafile, certfile: certfile.to_owned(), keyfile: keyfile.to_owned() })
    }

    /// Where the certificate of an authority of ours is, or would be.
    pub(super) fn authority(&self) -> PathBuf {
        let named = self.cafile.clone().filter(|cafile| *cafile != self.certfile);
        named.unwrap_or_else(|| self.certfile.with_file_name("darner-ca.crt"))
    }

    /// Where its key is: beside it, `ca.crt` has `darner-ca.key`.
    pub(super) fn authority_key(&self) -> PathBuf {
        let certificate = self.authority();
        let stem = certificate.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        certificate.with_file_name(format!("darner-{}.key", stem.trim_start_matches("darner-")))
    }
}

/// A file that is to be made, in this order.
struct Part {
    path: PathBuf,
    text: String,
    mode: u32,
    /// Not the broker's: only PID 1 has to read it.
    is_private: bool,
}

/// What a listener needs, whole.
struct Set {
    authority: Pem,
    server: Pem,
    /// What is not there yet.
    parts: Vec<Part>,
}

/// Seconds since 1970, as far as the clock can be believed.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()).max(NOW_MIN)
}

impl Repair<'_> {
    /// Makes what is missing, never over what is there, and renews what we made.
    pub(super) fn certify(&mut self, listeners: &[TlsFiles]) {
        for files in listeners.iter().filter(|files| !files.certfile.iter().any(|part| part == CERTBOT)) {
            self.authority_keys.push(absolute(&files.authority_key()));
            let named: Vec<(&str, &Path)> = [
                Some(("certfile", files.certfile.as_path())),
                Some(("keyfile", files.keyfile.as_path())),
                files.cafile.as_deref().map(|path| ("cafile", path)),
            ]
            .into_iter()
            .flatten()
            .collect();
            let (missing, there): (Vec<_>, Vec<_>) = named.iter().partition(|(_, path)| self.is_missing(path));
            let list = |some: &[(&str, &Path)]| {
                some.iter().map(|(word, path)| format!("{word} '{}'", path.display())).collect::<Vec<_>>().join(" and ")
            };
            if missing.is_empty() {
                self.renew(files);
            } else if there.is_empty() || (self.is_missing(&files.certfile) && self.own_authority(files).is_some()) {
                // The latter: another listener of the same authority, a certificate that was taken away, or what a crash left.
                self.make_certificates(files);
            } else {
                self.say(format!(
                    "listener {}: {} missing although {} there: put it back, or take all of them away to get self-made ones",
                    files.port,
                    is_are(&list(&missing), missing.len()),
                    is_are(&list(&there), there.len())
                ));
            }
        }
    }

    fn is_missing(&self, path: &Path) -> bool {
        matches!(observe(&self.anchor, self.request, &absolute(path)), Found::Nothing { .. })
    }

    /// A file of ours. Links are not followed below the root.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let place = self.anchor.locate(&absolute(path))?;
        as_allowed(self.request.owner, || place.base.read(&place.relative, FILE_BYTES_MAX))
    }

    /// The same of a file that is not marked to stay root's.
    fn read_unless_kept(&self, path: &Path) -> io::Result<Vec<u8>> {
        let place = self.anchor.locate(&absolute(path))?;
        as_allowed(self.request.owner, || place.base.read_if(&place.relative, FILE_BYTES_MAX, |facts| !is_kept(facts)))
    }

    /// The authority that we made for a listener, with its key.
    pub(super) fn own_authority(&self, files: &TlsFiles) -> Option<Pem> {
        self_made::own_authority(&self.read(&files.authority()).ok()?, &self.read(&files.authority_key()).ok()?)
    }

    /// The key that is there, or a new one, which is to be made.
    fn key(&self, path: &Path, is_private: bool, parts: &mut Vec<Part>) -> Result<String, Unmade> {
        // The broker gets the server's key, and whoever wrote its configuration may have named the authority's.
        let there = if is_private { self.read(path) } else { self.read_unless_kept(path) };
        if let Some(key) = there.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
            return Ok(key);
        }
        let key = self_made::key()?;
        // Without another owner to keep it from, the mark would only be in the way.
        let mode = if is_private && self.request.owner.is_some() { KEPT_MODE } else { KEY_MODE };
        parts.push(Part { path: path.to_owned(), text: key.clone(), mode, is_private });
        Ok(key)
    }

    fn assemble(&self, files: &TlsFiles, names: &[String]) -> Result<Set, Unmade> {
        let certificate = |path: PathBuf, text: &str| Part { path, text: text.to_owned(), mode: CERTIFICATE_MODE, is_private: false };
        let mut parts = Vec::new();
        let authority = if let Some(own) = self.own_authority(files) {
            own
        } else {
            let key = self.key(&files.authority_key(), true, &mut parts)?;
            let made = self_made::authority_of(AUTHORITY, Period::around(now(), AUTHORITY_DAYS), &key)?;
            parts.push(certificate(files.authority(), &made.certificate));
            made
        };
        let key = self.key(&files.keyfile, false, &mut parts)?;
        let server = self_made::server_of(names, Period::around(now(), SERVER_DAYS), &authority, &key)?;
        parts.push(certificate(files.certfile.clone(), &server.certificate));
        Ok(Set { authority, server, parts })
    }

    fn make_certificates(&mut self, files: &TlsFiles) {
        let (port, cafile) = (files.port, files.authority());
        if !self.is_missing(&cafile) && self.own_authority(files).is_none() {
            let (shown, key) = (cafile.display(), files.authority_key());
            return self.say(format!(
                "listener {port}: no certificate can be made, as '{shown}' is there without its key '{}': take it away to get another authority",
                key.display()
            ));
        }
        let names = names(files.host.as_deref());
        let set = match self.assemble(files, &names) {
            Ok(set) => set,
            Err(error) => return self.say(format!("listener {port}: {error}")),
        };
        let mut is_stored = true;
        for Part { path, text, mode, is_private } in &set.parts {
            let owner = self.request.owner.filter(|_| !is_private);
            let file = NewFile { bytes: text.as_bytes(), mode: *mode, mtime: None, owner };
            if self.make_file(&absolute(path), &file).is_err() {
                // Nothing more, so that what is on disk fits together: another container may have been faster.
                is_stored = false;
                break;
            }
            self.did(format!("created '{}' (mode {mode:04o}): self-made, as every file of the listener was missing", path.display()));
        }
        let (shown, key) = (cafile.display(), files.authority_key());
        if is_stored {
            self.say(format!(
                "listener {port} uses a SELF-MADE certificate for {}, renewed by itself: give its clients '{shown}' as cafile \
                 (docker cp CONTAINER:{shown} . or oc cp), keep '{}' to yourself, or put your own files in place of all of them",
                names.join(", "),
                key.display()
            ));
        } else {
            self.hold(files, set);
        }
    }

    /// Has the broker use what cannot be stored: all of it, so that it fits together, and the same as long as this process lives.
    fn hold(&mut self, files: &TlsFiles, set: Set) {
        let cafile = files.authority();
        let paths = [&files.keyfile, &cafile, &files.certfile];
        let held = paths.map(|path| self.request.in_use.iter().find(|(known, _)| known == path).map(|(_, bytes)| bytes.clone()));
        let used = match held {
            [Some(key), Some(authority), Some(certificate)] => [key, authority, certificate],
            _ => [set.server.key, set.authority.certificate, set.server.certificate].map(String::into_bytes),
        };
        let [_, authority, _] = &used;
        self.say(format!(
            "listener {} uses a SELF-MADE certificate that cannot be stored beside '{}' and changes at each start: \
             make that folder writable, or put your own files there. Its authority: {}",
            files.port,
            cafile.display(),
            String::from_utf8_lossy(authority).replace('\n', "\\n")
        ));
        self.substitutes.extend(paths.into_iter().cloned().zip(used));
    }
}

fn is_are(list: &str, count: usize) -> String {
    format!("{list} {}", if count == 1 { "is" } else { "are" })
}

fn unique<'a>(all: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in all.map(str::trim).filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// What somebody wants this broker to be called: `DARNER_TLS_NAMES` (with commas), and the listener's own address.
pub(super) fn asked_names(host: Option<&str>) -> Vec<String> {
    let asked = std::env::var("DARNER_TLS_NAMES").unwrap_or_default();
    unique(asked.split(',').chain(host))
}

/// The same, with what this container and this machine are called.
pub(super) fn names(host: Option<&str>) -> Vec<String> {
    let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let asked = asked_names(host);
    unique(asked.iter().map(String::as_str).chain(own.as_deref()).chain(["localhost", "127.0.0.1", "::1"]))
}
