//! A TLS listener whose files are all missing gets a certificate authority and a server certificate of our own.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::apply::Repair;
use super::observation::{Found, observe};
use crate::conf::Listener;
use crate::os::beneath::NewFile;
use crate::tls::self_made::{self, Pem, Period};

/// 2026-11-23: a clock that says less (a board without a battery, before the network is there) is not believed.
const NOW_MIN: u64 = 1_795_392_000;
const AUTHORITY_DAYS: u64 = 7300;
/// Some clients refuse a server's certificate that holds longer than 825 days.
const SERVER_DAYS: u64 = 820;
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
/// The folder of certbot's tree that configurations name: what is in there is made by a real authority, or not at all.
const CERTBOT: &str = "live";

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
}

impl Repair<'_> {
    /// Makes what is missing, never over what is there.
    pub(super) fn certify(&mut self, listeners: &[TlsFiles]) {
        for files in listeners.iter().filter(|files| !files.certfile.iter().any(|part| part == CERTBOT)) {
            let named: Vec<(&str, &Path)> = [
                Some(("certfile", files.certfile.as_path())),
                Some(("keyfile", files.keyfile.as_path())),
                files.cafile.as_deref().map(|path| ("cafile", path)),
            ]
            .into_iter()
            .flatten()
            .collect();
            let is_missing = |path: &Path| {
                std::path::absolute(path).is_ok_and(|path| matches!(observe(&self.anchor, self.request, &path), Found::Nothing { .. }))
            };
            let (missing, there): (Vec<_>, Vec<_>) = named.iter().partition(|(_, path)| is_missing(path));
            let list = |some: &[(&str, &Path)]| {
                some.iter().map(|(word, path)| format!("{word} '{}'", path.display())).collect::<Vec<_>>().join(" and ")
            };
            if missing.is_empty() {
                continue;
            }
            if there.is_empty() {
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

    fn make_certificates(&mut self, files: &TlsFiles) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()).max(NOW_MIN);
        let names = names(files.host.as_deref());
        let made = self_made::authority("darner, self-made for this installation", Period::around(now, AUTHORITY_DAYS))
            .and_then(|authority| Ok((self_made::server(&names, Period::around(now, SERVER_DAYS), &authority)?, authority)));
        let (server, authority): (Pem, Pem) = match made {
            Ok(made) => made,
            Err(error) => return self.say(format!("listener {}: {error}", files.port)),
        };
        let beside = || files.certfile.with_file_name("darner-ca.crt");
        let cafile = files.cafile.clone().unwrap_or_else(beside);
        let wanted = [
            (&files.keyfile, server.key, KEY_MODE),
            (&files.certfile, server.certificate, CERTIFICATE_MODE),
            (&cafile, authority.certificate.clone(), CERTIFICATE_MODE),
        ];
        let mut kept = true;
        for (path, text, mode) in &wanted {
            let file = NewFile { bytes: text.as_bytes(), mode: *mode, mtime: None, owner: self.request.owner };
            let stored = std::path::absolute(path).and_then(|path| self.make_file(&path, &file));
            match stored {
                Ok(()) => self
                    .did(format!("created '{}' (mode {mode:04o}): self-made, as every file of the listener was missing", path.display())),
                Err(_) => kept = false,
            }
        }
        if !kept {
            // All of them, so that what is used fits together.
            self.substitutes.extend(wanted.map(|(path, text, _)| (path.clone(), text.into_bytes())));
        }
        let (port, shown) = (files.port, cafile.display());
        if kept {
            self.say(format!(
                "listener {port} uses a SELF-MADE certificate for {}, good for {SERVER_DAYS} days: give its clients '{shown}' as cafile \
                 (docker cp CONTAINER:{shown} . or oc cp), or put your own files in place of all of them",
                names.join(", ")
            ));
        } else {
            self.say(format!(
                "listener {port} uses a SELF-MADE certificate that cannot be stored beside '{shown}' and changes at each start: \
                 make that folder writable, or put your own files there. Its authority: {}",
                authority.certificate.replace('\n', "\\n")
            ));
        }
    }
}

fn is_are(list: &str, count: usize) -> String {
    format!("{list} {}", if count == 1 { "is" } else { "are" })
}

/// What clients may call this broker: `DARNER_TLS_NAMES` (with commas), this container, this machine.
fn names(host: Option<&str>) -> Vec<String> {
    let asked = std::env::var("DARNER_TLS_NAMES").unwrap_or_default();
    let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let all = asked.split(',').map(str::trim).chain(host).chain(own.as_deref()).chain(["localhost", "127.0.0.1", "::1"]);
    let mut names: Vec<String> = Vec::new();
    for name in all.filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}
