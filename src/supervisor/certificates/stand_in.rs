//! What a TLS listener is given until the real certificate is there: one that we made ourselves, in memory.

use std::path::{Path, PathBuf};

use crate::acme::lineage::Store;
use crate::acme::state::Seconds;
use crate::tls::self_made::{self, Period};

/// The name in seed configurations that stands for the user's own.
const EXAMPLE: &str = "mqtt.example.org";
const DAYS: u64 = 3650;

#[derive(Default)]
pub(in crate::supervisor) struct StandIns {
    /// A folder that stands for another.
    alias: Option<(PathBuf, PathBuf)>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl StandIns {
    pub(super) fn new(store: &Store, name: &str, domains: &[String], is_there: bool, now: Seconds) -> Self {
        if domains.is_empty() {
            return Self::default();
        }
        let live = store.live(name);
        let example = store.live(EXAMPLE);
        let alias = (example != live && !example.exists()).then(|| (example, live.clone()));
        let mut files = Vec::new();
        if !is_there {
            let names: Vec<_> = domains.iter().map(|domain| domain.trim_start_matches("*.").to_owned()).collect();
            if let Ok(made) = self_made::placeholder(&names, Period::around(now.max(0) as u64, DAYS)) {
                let certificate = made.certificate.into_bytes();
                for file in ["cert.pem", "chain.pem", "fullchain.pem"] {
                    files.push((live.join(file), certificate.clone()));
                }
                files.push((live.join("privkey.pem"), made.key.into_bytes()));
            }
        }
        Self { alias, files }
    }

    /// Where a path leads.
    pub(in crate::supervisor) fn path(&self, path: &Path) -> PathBuf {
        let alias = self.alias.as_ref().and_then(|(from, to)| path.strip_prefix(from).ok().map(|file| to.join(file)));
        alias.unwrap_or_else(|| path.to_owned())
    }

    pub(in crate::supervisor) fn file(&self, path: &Path) -> Option<&[u8]> {
        self.files.iter().find(|(known, _)| known == path).map(|(_, bytes)| bytes.as_slice())
    }
}
