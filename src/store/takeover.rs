//! A store that begins with what mosquitto kept.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::mosquitto::{self, Damage, Report, Terms, Unreadable};
use super::{State, frames};
use crate::conf::{Conf, Persistence};
use crate::notice::Notice;

/// mosquitto's database, and what it takes to understand it.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub terms: Terms,
}

/// `persistence_file`, if it is mosquitto's.
pub fn database(conf: &Persistence) -> Option<PathBuf> {
    let file = super::configured(conf);
    frames::is_mosquittos(&file).then_some(file)
}

impl Source {
    /// `zero`: the time of day at the machine's `Time(0)`, in milliseconds since 1970.
    pub fn of(conf: &Conf, zero: i64) -> Option<Self> {
        Some(Self { path: database(&conf.persistence)?, terms: Terms::of(conf, zero) })
    }

    /// Into the state of a store that is new. The database is only read.
    pub(super) fn take_over(&self, state: &mut State, store: &Path, say: &dyn Fn(&Notice)) {
        let path = || self.path.display().to_string();
        let bytes = std::fs::read(&self.path).map_err(|error| error.to_string());
        let (imported, report) = match bytes.and_then(|bytes| mosquitto::import(&bytes, &self.terms).map_err(|error| error.to_string())) {
            Ok(imported) => imported,
            Err(reason) => return say(&Notice::NotImported { path: path(), reason, store: store.display().to_string() }),
        };
        *state = imported;
        let Report { retained, sessions, subscriptions, queued, expired, .. } = report;
        say(&Notice::Imported { path: path(), retained, sessions, subscriptions, queued, expired });
        if !report.is_whole() {
            say(&Notice::ImportedInPart { path: path(), what: report.missing() });
        }
        if is_mounted(&self.path) && is_of_the_image(store) {
            say(&Notice::StoreBesideMount { path: path(), store: store.display().to_string() });
        }
    }

    /// The store is there already: what mosquitto has written since is not in it.
    pub(super) fn compare(&self, store: &Path, say: &dyn Fn(&Notice)) {
        let written = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        if let (Some(theirs), Some(ours)) = (written(&self.path), written(store))
            && theirs > ours
        {
            say(&Notice::DatabaseIsYounger { path: self.path.display().to_string(), store: store.display().to_string() });
        }
    }
}

impl Report {
    /// What could not be read or makes no sense, in words for people.
    pub fn missing(&self) -> String {
        let mut words = Vec::new();
        if self.is_doubtful {
            words.push(format!(
                "it says that its format is of version {}, which is not known, and was read as far as it looks like one that is",
                self.version
            ));
        }
        if self.damage.places > 0 {
            let Damage { places, at, why, bytes } = &self.damage;
            words.push(format!("{why} (byte {at}); {places} places of {bytes} bytes in all were passed over"));
        }
        if self.senseless > 0 {
            words.push(format!("{} entries name a message that is not there, or what MQTT does not permit", self.senseless));
        }
        words.join("; ")
    }
}

/// By itself, as `-v ./mosquitto.db:…` does.
fn is_mounted(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth field is the mount point [proc_pid_mountinfo(5)].
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|mount| Path::new(mount) == path)
}

/// In a folder that is no volume, and goes with its container.
fn is_of_the_image(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    device(folder).is_some_and(|of| Some(of) == device(Path::new("/")))
}

/// A database by itself, for people.
pub fn read_database(path: &Path, terms: &Terms) -> std::io::Result<Result<(State, Report), Unreadable>> {
    Ok(mosquitto::import(&std::fs::read(path)?, terms))
}
