//! What a TLS listener is given until the real certificate is there: one that we made ourselves, in memory.

use std::path::{Path, PathBuf};

use super::lineage::Store;
use super::settings;
use super::state::Seconds;
use crate::tls::self_made::{self, Period};

/// The name in seed configurations that stands for the user's own.
const EXAMPLE: &str = "mqtt.example.org";
const DAYS: u64 = 3650;

/// What the configuration's paths below `live/` mean while DOMAIN is set.
#[derive(Default)]
pub struct StandIns {
    /// A folder that stands for another.
    alias: Option<(PathBuf, PathBuf)>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl StandIns {
    /// For the lineage `name` of `domains`. `is_there`: its certificate can be used.
    pub fn new(store: &Store, name: &str, domains: &[String], is_there: bool, now: Seconds) -> Self {
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

    /// What PID 1 would use at its next start with these variables.
    pub fn as_of(variable: impl Fn(&str) -> Option<String>, now: Seconds) -> Self {
        let store = Store::new(&settings::root(&variable));
        let domains = settings::domains(&variable);
        let name = domains.first().map(|first| store.name_for(first)).unwrap_or_default();
        let is_there = store.current(&name).is_ok_and(|pair| pair.is_some_and(|pair| pair.leaf().is_ok()));
        Self::new(&store, &name, &domains, is_there, now)
    }

    /// Where a path leads.
    pub fn path(&self, path: &Path) -> PathBuf {
        let alias = self.alias.as_ref().and_then(|(from, to)| path.strip_prefix(from).ok().map(|file| to.join(file)));
        alias.unwrap_or_else(|| path.to_owned())
    }

    /// The bytes that stand for a file that is not there yet.
    pub fn file(&self, path: &Path) -> Option<&[u8]> {
        self.files.iter().find(|(known, _)| known == path).map(|(_, bytes)| bytes.as_slice())
    }
}
